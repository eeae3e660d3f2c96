// The page: pictures come in from anywhere, wait their turn, and their answers are shown.

import { answerPieces, inWords, roomFor, View } from "./answers.js";
import { ask, askPatiently, Cancelled, cancelled, hasToken, Trouble, useToken } from "./ask.js";
import { offerCamera } from "./camera.js";
import { cardPieces, leadPieces } from "./card.js";
import { button, byId, make, named, say } from "./dom.js";
import { coloursOf, preview } from "./places.js";
import { bytes, spoken } from "./words.js";

const WHY = "Explain";

let models = [];
let model = null; // the one that the next picture goes to
let jobs = []; // newest first, as on the page
let running = null;
let explained = Promise.resolve(); // when the explanations so far are there: the server makes one at a time

/** One picture on its way to an answer. */
class Job {
  constructor(file) {
    Object.assign(this, { file, model, state: "waiting", answer: null, work: null });
    this.view = new View(file.name, coloursOf(model));
    this.body = make("div", { class: "body" });
    this.why = make("p", { class: "why small", hidden: true });
    const title = make("h3", { class: "file" }, named(file.name));
    this.words = make("div", { class: "words" }, title, this.body);
    this.node = make("article", {}, make("div", {}, this.view.node, this.why), this.words);
    this.wait();
    this.seen = preview(file).then((seen) => this.view.start(seen));
  }

  wait() {
    this.state = "waiting";
    this.words.style.minHeight = `${roomFor(this.model)}rem`;
    const words = make("p", { class: "quiet" }, "Waiting for its turn");
    this.show(words, this.buttons(button("Cancel", () => this.cancel())));
  }

  async run() {
    this.state = "running";
    this.work = new AbortController();
    const { words, progress } = this.showProgress();
    say(`${spoken(this.file.name)} is being sent`);
    try {
      const answer = await askPatiently(this.address("predict", "&picture=1"), {
        file: this.file,
        signal: this.work.signal,
        onsent: (sent, total) => tellProgress(words, progress, sent, total),
        onwait: (seconds) => { words.textContent = `The server is busy. It is asked again in ${seconds} s.`; },
      });
      await this.seen;
      this.finish(answer);
    } catch (trouble) {
      this.fail(trouble);
    }
    this.work = null;
  }

  address(verb, more = "") {
    return `${verb}?model=${encodeURIComponent(this.model.name)}${more}`;
  }

  showProgress() {
    const words = make("p", { class: "quiet" }, "Sending");
    const progress = make("progress", { max: 1, "aria-label": `Progress of ${spoken(this.file.name)}` });
    const cancel = button("Cancel", () => this.cancel());
    cancel.setAttribute("aria-keyshortcuts", "Escape");
    this.show(words, progress, this.buttons(cancel));
    return { words, progress };
  }

  finish(answer) {
    this.state = "done";
    this.answer = answer;
    const pieces = answerPieces(answer, this.view, this.model);
    const explain = this.model.explains ? button(WHY, () => this.explain(explain)) : null;
    explain?.setAttribute("aria-pressed", "false");
    const by = models.length > 1 ? make("p", { class: "quiet small" }, "Answered by ", named(this.model.name)) : null;
    this.show(...pieces, by, this.buttons(explain, button("Save as JSON", () => save([this])), this.removeButton()));
    say(`${spoken(this.file.name)}: ${inWords(answer)}`);
  }

  fail(trouble) {
    const cancelled = trouble instanceof Cancelled;
    this.state = cancelled ? "cancelled" : "failed";
    this.words.style.minHeight = "";
    if (!cancelled && !(trouble instanceof Trouble)) console.error(trouble);
    const said = cancelled ? [make("p", { class: "quiet" }, "Cancelled")] : reasons(trouble);
    const again = button("Try again", () => { this.wait(); work(); });
    this.show(...said, this.buttons(cancelled || trouble.passes ? again : null, this.removeButton()));
    say(`${spoken(this.file.name)}: ${cancelled ? "cancelled" : trouble.message}`, !cancelled);
    if (trouble.status === 401) askForToken(true);
  }

  /** Shows the map that explains the answer, or takes it away again. */
  async explain(pressed) {
    if (pressed.getAttribute("aria-pressed") === "true") {
      this.view.explain(null);
      this.why.hidden = true;
      return pressed.setAttribute("aria-pressed", "false");
    }
    if (this.work) return this.cancel();
    this.work = new AbortController();
    const { signal } = this.work;
    pressed.textContent = "Cancel";
    this.why.textContent = "Waiting for the explanation before it";
    this.why.hidden = false;
    const answer = explained.then(() => {
      if (signal.aborted) throw new Cancelled();
      this.why.textContent = "The model looks at it again, with parts of it hidden. That can take a minute.";
      return askPatiently(this.address("explain"), { file: this.file, signal });
    });
    explained = answer.catch(() => {});
    try {
      const { picture, about } = await Promise.race([answer, cancelled(signal)]);
      pressed.setAttribute("aria-pressed", String(this.view.explain(picture)));
      this.why.textContent = about;
      say(about);
    } catch (trouble) {
      this.why.textContent = trouble instanceof Cancelled ? "" : trouble.message;
      this.why.hidden = trouble instanceof Cancelled;
      if (!(trouble instanceof Cancelled)) say(trouble.message, true);
    }
    pressed.textContent = WHY;
    this.work = null;
    return undefined;
  }

  cancel() {
    if (this.state === "waiting") this.fail(new Cancelled());
    this.work?.abort();
  }

  remove() {
    this.cancel();
    this.view.remove();
    const next = jobs[jobs.indexOf(this) + 1];
    this.node.remove();
    jobs = jobs.filter((job) => job !== this);
    showList();
    (next?.node.querySelector("button") ?? byId("choose")).focus();
  }

  removeButton() {
    const remove = button("Remove", () => this.remove());
    remove.setAttribute("aria-label", `Remove ${spoken(this.file.name)}`);
    return remove;
  }

  buttons(...all) {
    return make("div", { class: "buttons" }, ...all);
  }

  /** What stands beside the picture. The keyboard stays where it was: at the first button, where a button went. */
  show(...pieces) {
    const focused = this.body.contains(document.activeElement);
    this.body.replaceChildren(...pieces.filter((piece) => piece));
    if (focused) this.body.querySelector("button")?.focus();
    showList();
  }
}

function tellProgress(words, progress, sent, total) {
  if (sent < total) {
    progress.value = sent / total;
    words.textContent = `Sending ${bytes(total)}: ${Math.floor(100 * sent / total)} %`;
  } else {
    progress.removeAttribute("value");
    words.textContent = "The model is looking";
  }
}

function reasons(trouble) {
  if (!(trouble instanceof Trouble)) {
    return [make("p", { class: "error" }, `The page could not show it: ${trouble.message}`)];
  }
  const detail = trouble.detail ? make("p", {}, make("bdi", {}, trouble.detail)) : null;
  return [make("p", { class: "error" }, trouble.title), detail];
}

/** Take in pictures, in the order given, above those that are there. */
function add(files) {
  warn("");
  if (!files.length) return;
  const fresh = files.map((file) => new Job(file));
  byId("results").prepend(...fresh.map((job) => job.node));
  jobs = [...fresh, ...jobs];
  showList();
  fresh[0].node.scrollIntoView({ block: "nearest", behavior: "auto" });
  work();
}

/** One after the other, in the order of the page: the server has others to serve as well. */
async function work() {
  if (running) return;
  for (running = nextJob(); running; running = nextJob()) await running.run();
}

const nextJob = () => jobs.find((job) => job.state === "waiting") ?? null;

function showList() {
  byId("answers").hidden = !jobs.length;
  byId("for-all").hidden = jobs.filter((job) => job.answer).length < 2;
}

function save(some) {
  const told = some.map(({ file, answer }) => {
    const { picture, ...rest } = answer;
    return { file: file.name, ...rest };
  });
  const text = JSON.stringify(some.length === 1 ? told[0] : told, null, 1);
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const stem = some.length === 1 ? some[0].file.name.replace(/\.\w{1,5}$/, "") : "answers";
  const safe = stem.replace(/[^\p{L}\p{N} _-]+/gu, "-").slice(0, 60) || "answer";
  make("a", { href: address, download: `${safe}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

function warn(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
  if (text) say(text, true);
}

/** The files that were dropped or pasted, without folders; says so where there are none. */
function filesOf(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === "file");
  const folders = entries.filter((item) => item.webkitGetAsEntry?.()?.isDirectory).length;
  const files = entries.filter((item) => !item.webkitGetAsEntry?.()?.isDirectory).map((item) => item.getAsFile());
  return { files: files.filter((file) => file !== null), folders };
}

function takeDrop(event) {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const { files, folders } = filesOf(event.dataTransfer);
  add(files);
  if (folders) warn("A folder was left out. Open it, and drop the pictures that are in it.");
  else if (!files.length) warn("That was no file. Save the picture first, and then drop the file here.");
}

function takePaste(event) {
  const { files } = filesOf(event.clipboardData);
  if (!files.length) return;
  event.preventDefault();
  add(files);
}

function listen() {
  const files = byId("files");
  byId("choose").addEventListener("click", () => files.click());
  files.addEventListener("change", () => { add([...files.files]); files.value = ""; });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", takeDrop);
  document.addEventListener("paste", takePaste);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !byId("camera-window").open) jobs.forEach((job) => job.work?.abort());
  });
  byId("save-all").addEventListener("click", () => save(jobs.filter((job) => job.answer)));
  byId("remove-all").addEventListener("click", () => [...jobs].forEach((job) => job.remove()));
  byId("model").addEventListener("change", (event) => choose(event.target.selectedIndex));
  offerCamera((file) => add([file]));
}

function choose(index) {
  model = models[index];
  byId("model").selectedIndex = index;
  if (models.length > 1) history.replaceState(null, "", `#${new URLSearchParams({ model: model.name })}`);
  byId("lead").replaceChildren(...leadPieces(model));
  byId("card-body").replaceChildren(...cardPieces(model));
  document.title = `${model.name}: Snellen`;
}

function askForToken(wrong) {
  const trouble = wrong ? "The token that was given is not the one of this server." : "";
  byId("main").hidden = true;
  byId("token-form").hidden = false;
  byId("token-trouble").textContent = trouble;
  byId("token-trouble").hidden = !wrong;
  byId("token").setAttribute("aria-invalid", String(wrong));
  byId("token").focus();
  byId("token").select();
  if (wrong) say(trouble, true);
}

async function start() {
  for (const id of ["main", "token-form", "no-models"]) byId(id).hidden = true;
  try {
    ({ models } = await ask("models"));
    if (!models?.length) throw new Trouble(200, "It serves no model.");
  } catch (trouble) {
    if (trouble.status === 401) return askForToken(hasToken());
    byId("no-models-reason").textContent = trouble.status === 200 ? trouble.detail : trouble.message;
    byId("no-models").hidden = false;
    return say(byId("no-models-reason").textContent, true);
  }
  byId("model").replaceChildren(...models.map(({ name }) => make("option", {}, spoken(name, 60))));
  byId("chooser").hidden = models.length < 2;
  byId("main").hidden = false;
  const wanted = model?.name ?? new URLSearchParams(location.hash.slice(1)).get("model");
  return choose(Math.max(0, models.findIndex(({ name }) => name === wanted)));
}

/** What was pressed is gone: the keyboard goes on at the first button. */
async function startAgain() {
  await start();
  if (!byId("main").hidden) byId("choose").focus();
}

listen();
byId("again").addEventListener("click", startAgain);
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("token").value);
  startAgain();
});
start();
