// The few things that every view does with the document. Nothing in the console writes HTML from text: whatever comes
// from a server becomes a text node, so that a model's name or log line is never markup.

import { DASH } from "./format.js";

/**
 * An element: el("td", { class: "number", title: "…" }, "12", another). A function is a listener (onclick: f), null
 * and false leave an attribute out, true sets it empty.
 */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for a part of a picture. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Sets what a node says, and touches the document only when that is something else than before. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets or (null) removes an attribute, as rarely. */
export function setAttribute(node, name, value) {
  if (node.getAttribute(name) === value) return;
  if (value === null) node.removeAttribute(name);
  else node.setAttribute(name, value);
}

/** What to show and, in the title, what is behind it: `{text, title}` of format.js. */
export function show(node, { text, title = null }) {
  setText(node, text);
  setAttribute(node, "title", title);
  node.classList.toggle("unknown", text === DASH);
}

/** A section with a heading, as every view is made of. Returns the section; `append` to it. */
export function section(id, heading, attributes = {}, ...children) {
  const title = el("h2", { id: `${id}-heading` }, heading);
  return el("section", { id, "aria-labelledby": title.id, ...attributes }, title, ...children);
}

/** Runs at most once a frame, however often it is called. */
export function eachFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}
