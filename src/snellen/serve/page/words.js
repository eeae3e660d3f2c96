// Numbers and sentences as a person reads them.

const ABBREVIATED = {
  iou: "IoU", map: "mAP", map50: "mAP at IoU 0.5", map75: "mAP at IoU 0.75", ap: "AP", ap50: "AP at IoU 0.5",
  mar1: "recall with 1 answer", mar10: "recall with 10 answers", mar100: "recall with 100 answers",
  r2: "R²", mae: "mean absolute error", rmse: "root mean squared error",
  roc: "ROC", froc: "FROC", auc: "area", f1: "F1",
};
const SHARES = ["accuracy", "precision", "recall", "f1", "error", "sensitivity", "specificity", "ece"];
const NOT_SHARES = ["average_precision", "absolute_error"];
const AMOUNTS = ["mae", "rmse", "median_absolute_error", "bias"];
const MEANINGS = {
  accuracy: "the share of pictures that it names rightly",
  mean_average_precision: "how well it puts the pictures that have a label before those that have not: 1 is perfect",
  r2: "the share of the differences between pictures that it explains: 1 is perfect, 0 is always saying the mean",
  map: "how many it finds, how few it finds wrongly and how well its boxes fit, in one number: 1 is perfect",
  mask_map: "how many it finds, how few it finds wrongly and how well its outlines fit, in one number: 1 is perfect",
  mean_iou: "how well its areas cover the true ones, mean of the classes: 1 is perfect",
};
const SPLITS = {
  test: "test pictures that it had never seen.",
  val: "validation pictures. It did not learn from them, but they decided which model was kept, so that the number may "
    + "be a little too good.",
  train: "pictures that it learnt from. On others it will be worse.",
};
const SPLIT_NAMES = { test: "Test", val: "Validation", train: "Training" };
const MOST_NAMED = 8;

/** `94.8 %` of 0..1; what is not quite nothing or everything is not rounded to it. */
export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  if (share < 1 && share > 0.999) return "> 99.9 %";
  return `${(100 * share).toFixed(1)} %`;
}

/** `23.4`, `12346`, `1.2e-7`: enough digits to tell values apart, and no exponent where none is needed. */
export function amount(value, digits = 4) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e12) return String(Number(value.toPrecision(digits)));
  const whole = Math.trunc(size) === 0 ? 0 : String(Math.trunc(size)).length;
  return whole >= digits ? value.toFixed(0) : String(Number(value.toPrecision(digits)));
}

/** `2.3 MB` */
export function bytes(count) {
  if (count < 1e3) return `${count} bytes`;
  return count < 1e6 ? `${Math.round(count / 1e3)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

/** Metrics that are read in percent; the same rule as in the reports. */
export function isShare(metric) {
  const name = metric.split("/")[0];
  return SHARES.some((word) => name.includes(word)) && !NOT_SHARES.some((word) => name.includes(word));
}

/** `accuracy` -> `Accuracy`, `recall/ants` -> `Recall of ants`. */
export function metricName(metric) {
  const [name, ...rest] = metric.split("/");
  const words = name.split("_").map((word) => ABBREVIATED[word] ?? word).join(" ");
  const start = words.startsWith("mA") ? words : words[0].toUpperCase() + words.slice(1);
  return rest.length ? `${start} of ${rest.join("/")}` : start;
}

export const metricMeaning = (metric) => MEANINGS[metric] ?? null;
export const splitWords = (split) => SPLITS[split] ?? `pictures (${split}).`;
export const splitName = (split) => SPLIT_NAMES[split] ?? split;

/** A metric's value with its own unit: `94.8 %`, `0.813`. */
export function metricValue(metric, value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (isShare(metric)) return `${(100 * value).toFixed(1)} %`;
  return AMOUNTS.includes(metric.split("/")[0]) ? amount(value, 3) : value.toFixed(3);
}

/** `90.0 to 97.3 %`, or null where no interval was asked for. */
export function interval(metric, { low, high }) {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return null;
  return `${metricValue(metric, low).replace(" %", "")} to ${metricValue(metric, high)}`;
}

/** What a model answers, before the names of its classes. */
export function question(task, num) {
  const these = num === 1 ? "this" : "these";
  const questions = {
    classification: "It says which of these a picture shows: ",
    multilabel: `It says which of ${num === 1 ? "this" : "these"} apply to a picture, any number of them: `,
    regression: `It estimates ${num === 1 ? "this number" : "these numbers"} from a picture: `,
    detection: `It finds ${these} in a picture and draws a box around each: `,
    instances: `It finds ${these} in a picture and outlines each: `,
    segmentation: "It says of every point of a picture which of these it belongs to: ",
  };
  return questions[task] ?? "It answers with: ";
}

/** What a model cannot know by its nature; null where nothing needs to be said. */
export function limits(task) {
  const others = {
    classification: "Shown anything else, it still answers with one of these.",
    regression: "Shown anything else, it still answers with a number.",
    segmentation: "Whatever else there is, it is given one of these.",
  };
  return others[task] ?? "Whatever else a picture shows, it says nothing about.";
}

/** The first few of `names`, and how many more there are. */
export function shortList(names) {
  const first = names.length > MOST_NAMED + 1 ? names.slice(0, MOST_NAMED) : names;
  return { first, more: names.length - first.length };
}

/** A name short enough to be read aloud. */
export function spoken(name, longest = 80) {
  const letters = [...String(name)];
  return letters.length > longest ? `${letters.slice(0, longest).join("")}…` : String(name);
}

/** `3 RBC, 1 WBC`; of many kinds the most frequent, and how many others. */
export function counted(objects) {
  const counts = new Map();
  for (const { label } of objects) counts.set(label, (counts.get(label) ?? 0) + 1);
  const { first, more } = shortList([...counts].sort((one, other) => other[1] - one[1]));
  const others = objects.length - first.reduce((sum, [, count]) => sum + count, 0);
  const told = first.map(([label, count]) => `${count} ${spoken(label, 40)}`);
  return [...told, ...(more ? [`${others} of ${more} other kinds`] : [])].join(", ") || "nothing";
}

/** `ants, dark`; of many the first, and how many more. */
export function listed(labels) {
  const { first, more } = shortList(labels);
  return [...first.map((label) => spoken(label, 40)), ...(more ? [`${more} more`] : [])].join(", ");
}
