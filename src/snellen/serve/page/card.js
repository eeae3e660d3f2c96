// What is known of a model, in plain words: what it answers, how often it is right, where it is weak.

import { make, named } from "./dom.js";
import { interval, limits, metricMeaning, metricName, metricValue, question, shortList, splitName, splitWords,
  spoken } from "./words.js";

const BEST_KNOWN = ["test", "val"]; // the split that says most about new pictures comes first
const MOST_SHOWN = 4; // weaknesses that need no click

/** The sentence that says what a model answers, with the first few of its classes. */
export function leadPieces(model) {
  const { first, more } = shortList(model.classes ?? []);
  const names = first.flatMap((name, i) => [i ? ", " : "", make("b", {}, named(spoken(name, 60)))]);
  return [question(model.task, first.length), ...names, more > 0 ? ` and ${more} more.` : "."];
}

export function cardPieces(model) {
  return [headline(model), weaknesses(model.findings ?? []), knows(model), numbers(model), origin(model)]
    .filter((piece) => piece !== null);
}

function splitsOf(model) {
  const splits = Object.keys(model.metrics ?? {});
  const place = (split) => (BEST_KNOWN.includes(split) ? BEST_KNOWN.indexOf(split) : BEST_KNOWN.length);
  return splits.sort((one, other) => place(one) - place(other));
}

function headline(model) {
  const split = splitsOf(model).find((each) => model.metrics[each]?.[model.headline]);
  if (split === undefined) return make("p", {}, "How often it is right was not measured.");
  const metric = model.headline;
  const estimate = model.metrics[split][metric];
  const range = interval(metric, estimate);
  const sentence = `Measured on ${estimate.n} ${splitWords(split)}`;
  const doubt = range && `On other pictures of the same kind it would likely lie within ${range} (95 % interval).`;
  return make("div", { class: "headline" },
    make("p", { class: "big" }, metricValue(metric, estimate.value)),
    make("div", {}, make("p", {}, make("b", {}, metricName(metric)),
      metricMeaning(metric) ? `: ${metricMeaning(metric)}.` : "."),
    make("p", { class: "quiet" }, [sentence, doubt].filter(Boolean).join(" "))));
}

function weaknesses(findings) {
  const weak = findings.filter((each) => each.severity !== "info").slice(0, MOST_SHOWN);
  const rest = findings.filter((each) => !weak.includes(each));
  return make("div", {}, make("h3", {}, "Known weaknesses"),
    weak.length ? points(weak) : make("p", {}, "None was found."),
    rest.length ? make("details", {}, make("summary", {}, `Also noticed (${rest.length})`), points(rest)) : null);
}

function points(findings) {
  return make("ul", { class: "points", role: "list" }, ...findings.map(({ severity, message, advice }) => make("li",
    { class: severity }, severity === "serious" ? make("b", {}, "Serious: ") : null, named(message),
    advice ? make("span", { class: "quiet" }, " ", named(advice)) : null)));
}

function knows(model) {
  const { classes = [], task } = model;
  if (!classes.length) return null;
  const { more } = shortList(classes);
  const all = more ? make("details", {}, make("summary", {}, `All ${classes.length} names`),
    make("p", { class: "small" }, ...classes.flatMap((name, i) => [i ? ", " : "", named(name)]))) : null;
  return make("div", {}, make("h3", {}, "What it does not know"), make("p", {}, limits(task)), all);
}

function numbers(model) {
  const splits = splitsOf(model);
  if (!splits.length) return null;
  return make("details", {}, make("summary", {}, "All numbers"), ...splits.map((split) => table(model, split)));
}

function table(model, split) {
  const rows = Object.entries(model.metrics[split]).map(([metric, estimate]) => make("tr", {},
    make("th", { scope: "row" }, named(spoken(metricName(metric)))),
    make("td", {}, metricValue(metric, estimate.value)), make("td", {}, interval(metric, estimate) ?? "–"),
    make("td", {}, String(estimate.n ?? "–"))));
  const titles = ["Metric", "Value", "95 % interval", "n"].map((title) => make("th", { scope: "col" }, title));
  const name = `${splitName(split)} pictures`;
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Numbers, ${name}` },
    make("table", {}, make("caption", {}, name), make("thead", {}, make("tr", {}, ...titles)),
      make("tbody", {}, ...rows)));
}

function origin(model) {
  const versions = Object.entries(model.versions ?? {}).map(([name, version]) => `${name} ${version}`).join(", ");
  const trained = model.trained_on ? `Learnt from ${model.trained_on}.` : "";
  const made = versions ? `Made with ${versions}.` : "";
  const text = [trained, made].filter(Boolean).join(" ");
  return text ? make("p", { class: "quiet small" }, text) : null;
}
