// Boxes and outlines over the picture itself, so that they can be hidden and shown without the server.

import { make, makeSvg } from "./dom.js";

const LARGEST = 1600; // pixels of the longer side that are kept of a picture: fifty million would fill a phone's memory
const LETTERS = 12; // CSS pixels of the names
const OPACITY = 115; // of 255, of an object's colour
const UNTOLD = "#e69f00";

/** The colour of each class, as the server draws it. */
export function coloursOf({ classes = [], colours = [] }) {
  return new Map(classes.map((name, i) => [name, colours[i] ?? UNTOLD]));
}

/** `file` as {node, width, height}, upright; null where this browser cannot read it. The size is the file's own. */
export async function preview(file) {
  const address = URL.createObjectURL(file);
  try {
    const image = new Image();
    image.src = address;
    await image.decode();
    const { naturalWidth: width, naturalHeight: height } = image;
    const scale = Math.min(1, LARGEST / Math.max(width, height));
    const look = Math.max(width, height) <= 128 ? "layer pixels" : "layer";
    const node = make("canvas", { class: look, width: Math.max(1, Math.round(width * scale)),
      height: Math.max(1, Math.round(height * scale)) });
    node.getContext("2d").drawImage(image, 0, 0, node.width, node.height);
    return { node, width, height };
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** Whether the objects of an answer can be drawn over `seen`: it is the same picture, and their shapes are told. */
export function canDraw(answer, seen, task) {
  const [width, height] = answer.size ?? [];
  if (seen === null || seen.width !== width || seen.height !== height) return false;
  return task !== "instances" || answer.objects.every((each) => typeof each.segmentation?.counts === "string");
}

/** Layers over `frame`, which shows a picture of `size`; show(objects) draws those and takes all others away. */
export class Places {
  constructor(frame, [width, height], colours) {
    Object.assign(this, { frame, width, height, colours, objects: [], unit: null });
    const scale = Math.min(1, LARGEST / Math.max(width, height));
    this.masks = make("canvas", { class: "layer", "aria-hidden": "true", width: Math.max(1, Math.round(width * scale)),
      height: Math.max(1, Math.round(height * scale)) });
    this.boxes = makeSvg("svg", { class: "layer", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    frame.append(this.masks, this.boxes);
    this.watcher = new ResizeObserver(() => this.unit !== this.pixel() && this.drawBoxes()); // letters keep their size
    this.watcher.observe(frame);
  }

  show(objects) {
    this.objects = objects;
    this.drawMasks(objects.filter((each) => each.segmentation));
    this.drawBoxes();
  }

  /** A CSS pixel in pixels of the picture. */
  pixel() {
    const { clientWidth, clientHeight } = this.frame;
    return Math.max(this.width / (clientWidth || 1), this.height / (clientHeight || 1));
  }

  drawBoxes() {
    this.unit = this.pixel();
    const written = [];
    const lines = [];
    const names = [];
    for (const { label, confidence, box: [x0, y0, x1, y1], segmentation } of this.objects) {
      const colour = this.colours.get(label) ?? UNTOLD;
      const place = { x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) };
      if (!segmentation) {
        lines.push(makeSvg("rect", { ...place, class: "box-ground" }));
        lines.push(makeSvg("rect", { ...place, class: "box", stroke: colour }));
      }
      names.push(this.name(`${label} ${confidence.toFixed(2)}`, place, colour, written));
    }
    this.boxes.replaceChildren(...lines, ...names.filter((each) => each !== null));
  }

  /** The name above its box; null where it would lie on another one: the colour still tells the class. */
  name(text, box, colour, written) {
    const { unit } = this;
    const letters = [...text];
    const short = letters.length > 24 ? `${letters.slice(0, 23).join("")}…` : text;
    const height = (LETTERS + 5) * unit;
    const width = ([...short].length * 0.6 * LETTERS + 8) * unit;
    const x = Math.max(0, Math.min(box.x, this.width - width));
    const y = box.y >= height ? box.y - height : Math.max(0, box.y);
    const meets = (other) => x < other.x + other.width && other.x < x + width && y < other.y + other.height
      && other.y < y + height;
    if (written.some(meets)) return null;
    written.push({ x, y, width, height });
    return makeSvg("g", {}, makeSvg("rect", { x, y, width, height, rx: 2 * unit, fill: colour }),
      makeSvg("text", { x: x + 4 * unit, y: y + (LETTERS + 1) * unit, "font-size": LETTERS * unit,
        class: isDark(colour) ? "on-dark" : "on-light", textLength: width - 8 * unit,
        lengthAdjust: "spacingAndGlyphs" }, short));
  }

  drawMasks(objects) {
    const pen = this.masks.getContext("2d");
    const { width, height } = this.masks;
    pen.clearRect(0, 0, width, height);
    if (!objects.length) return;
    const pixels = pen.createImageData(width, height);
    for (const each of [...objects].reverse()) { // the surest lie in front
      const mask = spread(each.segmentation, width, height);
      colourIn(pixels.data, mask, width, height, this.colours.get(each.label) ?? UNTOLD);
    }
    pen.putImageData(pixels, 0, 0);
  }

  remove() {
    this.watcher.disconnect();
  }
}

/** COCO's compressed runs as numbers: digits of 5 bits, lowest first, each number less the second before it. */
export function runsOf(text) {
  const counts = [];
  for (let i = 0; i < text.length;) {
    let value = 0, digits = 0, code = 32;
    while (code & 32 && i < text.length && digits < 7) {
      code = text.charCodeAt(i) - 48;
      value += (code & 31) * 2 ** (5 * digits);
      digits += 1;
      i += 1;
    }
    if (code & 16) value -= 2 ** (5 * digits);
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
  }
  return counts;
}

/** Runs down the columns of a mask [height, width], as 0 and 1 for each pixel of a picture of another size. */
function spread({ size, counts }, width, height) {
  const [ownHeight] = size;
  const ownWidth = size[1];
  const mask = new Uint8Array(width * height);
  const columns = Array.from({ length: ownWidth }, () => []);
  let place = 0;
  runsOf(counts).forEach((count, i) => {
    for (let rest = i % 2 ? count : 0, at = place; rest > 0;) {
      const column = Math.floor(at / ownHeight), top = at % ownHeight;
      const length = Math.min(rest, ownHeight - top);
      columns[column]?.push([top, top + length]);
      at += length;
      rest -= length;
    }
    place += count;
  });
  for (let x = 0; x < width; x += 1) {
    for (const [top, bottom] of columns[Math.floor((x + 0.5) * ownWidth / width)] ?? []) {
      const last = Math.min(height, Math.round(bottom * height / ownHeight));
      for (let y = Math.round(top * height / ownHeight); y < last; y += 1) mask[y * width + x] = 1;
    }
  }
  return mask;
}

function colourIn(pixels, mask, width, height, colour) {
  const [red, green, blue] = rgb(colour);
  const edge = Math.max(1, Math.round(Math.max(width, height) / 400));
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x];
  for (let y = 0, i = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, i += 1) {
      if (!mask[i]) continue;
      const core = inside(x - edge, y) && inside(x + edge, y) && inside(x, y - edge) && inside(x, y + edge);
      pixels.set([red, green, blue, core ? OPACITY : 255], 4 * i);
    }
  }
}

const rgb = (colour) => [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));

/** Whether white is easier to read on it than black (WCAG 2.2's relative luminance). */
function isDark(colour) {
  const [red, green, blue] = rgb(colour).map((value) => (value / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.179;
}
