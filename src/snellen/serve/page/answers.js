// What a model says of one picture, as a piece of the page.

import { button, make, named, pictureOf } from "./dom.js";
import { canDraw, Places } from "./places.js";
import { amount, counted, listed, percent, shortList, spoken } from "./words.js";

const FIRST = 5; // rows that are shown before "Show all"

/** A sentence that says all that matters, to be read aloud. */
export function inWords(answer) {
  if (answer.objects) return counted(answer.objects);
  const values = Object.entries(answer.values ?? {}).map(([name, value]) => `${spoken(name, 40)} ${amount(value)}`);
  if (answer.values) return values.join(", ");
  if (answer.label !== undefined) return `${spoken(answer.label)}, ${percent(answer.confidence)} sure`;
  if (answer.shares) return spoken(answer.text ?? answer.labels.join(", "), 200);
  return listed(answer.labels ?? []) || "none of the labels";
}

/** How high the answer will about be, in rem: kept free, so that nothing below it jumps when it arrives. */
export function roomFor({ task, classes = [] }) {
  const rows = Math.min(FIRST, classes.length);
  if (task === "regression") return 7.5 + 4.5 * rows;
  if (task === "detection" || task === "instances") return 28;
  return 9.5 + 2.6 * rows + (classes.length > FIRST ? 3 : 0) + (task === "segmentation" ? 2.5 : 0);
}

/** The pieces below a file's name. `view` is the picture's frame (View), `model` what /models says. */
export function answerPieces(answer, view, model) {
  if (answer.objects) return objects(answer, view, model);
  view.showPicture(answer.shares ? answer.picture : null, answer);
  if (answer.values) return [valueList(answer.values)];
  if (answer.shares) return shares(answer, view, model);
  return answer.label === undefined ? anyLabels(answer) : oneLabel(answer);
}

function oneLabel(answer) {
  const verdict = make("p", { class: "verdict" }, named(answer.label), " ",
    make("span", { class: "sure" }, `${percent(answer.confidence)} sure`));
  return [verdict, bars(rowsOf(answer.probabilities), "How likely it holds each class to be")];
}

function anyLabels(answer) {
  const none = make("span", { class: "quiet" }, "none of the labels");
  const { first, more } = shortList(answer.labels);
  const chips = first.map((label) => make("span", { class: "chip" }, named(label)));
  if (more) chips.push(make("span", { class: "sure" }, `and ${more} more`));
  const verdict = make("p", { class: chips.length ? "verdict chips" : "verdict" }, ...(chips.length ? chips : [none]));
  return [verdict, bars(rowsOf(answer.probabilities), "How likely it holds each label to be")];
}

function shares(answer, view, model) {
  const [largest] = answer.labels;
  const verdict = largest === undefined
    ? make("p", { class: "verdict" }, make("span", { class: "quiet" }, "nothing that it knows"))
    : make("p", { class: "verdict" }, named(largest), " ", make("span", { class: "sure" },
      `covers ${percent(answer.shares[largest])}`));
  const sure = Number.isFinite(answer.confidence)
    ? make("p", { class: "quiet small" }, `On the average point it is ${percent(answer.confidence)} sure.`) : null;
  const rows = rowsOf(answer.shares).map(([name, share]) => [name, share, view.colours.get(name)]);
  return [verdict, bars(rows, "What share of the picture each takes"), sure];
}

function valueList(values) {
  return make("dl", { class: "values" }, ...Object.entries(values).map(([name, value]) => make("div", {},
    make("dt", {}, named(name)), make("dd", {}, amount(value)))));
}

function objects(answer, view, model) {
  const found = [...answer.objects].sort((one, other) => other.confidence - one.confidence);
  const drawn = canDraw(answer, view.seen, model.task);
  const places = drawn ? view.place(answer.size) : null;
  if (!drawn) view.showPicture(answer.picture, answer);
  const verdict = make("p", { class: "verdict" });
  const list = make("div");
  let open = false;
  const show = (threshold) => {
    const shown = found.filter((each) => each.confidence >= threshold);
    verdict.textContent = counted(shown);
    const rows = shown.map((each) => [each.label, each.confidence, view.colours.get(each.label)]);
    const all = list.querySelector("[aria-expanded]");
    open = all ? all.getAttribute("aria-expanded") === "true" : open;
    list.replaceChildren(bars(rows, "What it found, the surest first", open));
    places?.show(shown);
    return shown.length;
  };
  const slider = found.length ? threshold(found.length, show, drawn) : null;
  show(0);
  return [verdict, slider, list];
}

function threshold(num, show, drawn) {
  const id = `threshold-${Math.random().toString(36).slice(2)}`;
  const said = make("output", { for: id, class: "small quiet" }, `all ${num} shown`);
  const input = make("input", { id, type: "range", min: 0, max: 100, step: 1, value: 0 });
  const value = make("span", { class: "number" }, "0 %");
  input.addEventListener("input", () => {
    const shown = show(Number(input.value) / 100);
    value.textContent = `${input.value} %`;
    input.setAttribute("aria-valuetext", `${input.value} %`);
    said.textContent = shown === num ? `all ${num} shown` : `${shown} of ${num} shown`;
  });
  const words = "The slider acts on the list; the picture shows all.";
  const note = drawn ? null : make("p", { class: "small quiet" }, words);
  return make("div", { class: "threshold" }, make("div", { class: "line" },
    make("label", { for: id }, "Show if at least this sure"), value), input, said, note);
}

const rowsOf = (numbers) => Object.entries(numbers).sort((one, other) => other[1] - one[1]);

/** Rows of [name, 0..1, colour] as a list with bars; the first five, and the rest when asked for. */
function bars(rows, description, open = false) {
  const list = make("ol", { class: "bars", role: "list", "aria-label": description });
  const fill = (all) => list.replaceChildren(...rows.slice(0, all ? rows.length : FIRST).map(bar));
  fill(open);
  const pieces = [list];
  if (rows.length > FIRST) {
    const words = (all) => (all ? `Show the first ${FIRST} only` : `Show all ${rows.length}`);
    const more = button(words(open), () => {
      const all = more.getAttribute("aria-expanded") !== "true";
      more.setAttribute("aria-expanded", String(all));
      more.textContent = words(all);
      fill(all);
    });
    more.setAttribute("aria-expanded", String(open));
    pieces.push(more);
  }
  return make("div", {}, ...pieces);
}

function bar([name, share, colour]) {
  const filled = make("span", { class: "fill" });
  filled.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  const patch = colour ? make("span", { class: "patch", "aria-hidden": "true" }) : null;
  if (patch) patch.style.background = colour;
  return make("li", {}, make("span", { class: "line" }, make("span", { class: "what" }, patch, named(name)), " ",
    make("span", { class: "number" }, percent(share))),
  make("span", { class: "track", "aria-hidden": "true" }, filled));
}

/** The frame that shows the picture, what is drawn on it, or the map that explains an answer. */
export class View {
  constructor(fileName, colours) {
    Object.assign(this, { fileName, colours, seen: null, places: null, drawn: null, map: null });
    this.node = make("div", { class: "frame" });
  }

  /** `seen` as preview() makes it, or null: this browser cannot show the file. */
  start(seen) {
    this.seen = seen;
    if (seen === null) return this.node.append(make("p", { class: "layer quiet" }, "no preview"));
    seen.node.setAttribute("role", "img");
    seen.node.setAttribute("aria-label", `Your picture ${spoken(this.fileName)}`);
    return this.node.replaceChildren(seen.node);
  }

  /** The server's picture instead of one's own; without one, its picture only where there is no other. */
  showPicture(data, answer) {
    this.drawn = pictureOf(data ?? (this.seen === null ? answer.picture : null),
      `Picture ${spoken(this.fileName)} with the answer: ${inWords(answer)}`);
    if (this.drawn !== null) this.node.replaceChildren(this.drawn);
  }

  place(size) {
    this.places = new Places(this.node, size, this.colours);
    return this.places;
  }

  /** Shows the map of an explanation, or with null what was there before. */
  explain(data) {
    this.map?.remove();
    const description = `Map over picture ${spoken(this.fileName)}: what its answer rests on`;
    this.map = data === null ? null : pictureOf(data, description);
    this.node.classList.toggle("explained", this.map !== null);
    if (this.map !== null) this.node.append(this.map);
    return this.map !== null;
  }

  /** A canvas is given back now: browsers look for memory late, and phones have little for them. */
  remove() {
    this.places?.remove();
    for (const canvas of this.node.querySelectorAll("canvas")) canvas.width = 0;
  }
}
