// Building pieces of the page. Text is only ever set as text: class and file names are whatever somebody called them.

const SVG = "http://www.w3.org/2000/svg";
const PICTURE = /^data:image\/(webp|png|jpeg);base64,[A-Za-z0-9+/=]+$/;

/** An element with attributes and children; a string becomes text, a function under `onclick` a listener. */
export function make(tag, attributes = {}, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

export function makeSvg(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}

function furnish(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** A name that somebody else chose: whatever its direction of writing, what stands around it keeps its own. */
export const named = (name) => make("bdi", { class: "name" }, String(name));

export const button = (text, onclick) => make("button", { type: "button", class: "slight", onclick }, text);

/** An <img> of a picture that came with an answer, or null where it is none. */
export function pictureOf(data, description) {
  if (typeof data !== "string" || !PICTURE.test(data)) return null;
  return make("img", { src: data, alt: description, class: "layer" });
}

/** Say something to those who listen instead of look. */
export function say(text, urgent = false) {
  byId(urgent ? "warned" : "said").textContent = text;
}
