// Small curves of the last minutes, without axes. The number beside a curve says its last value; the curve only its
// shape.

import { live } from "./live.js";
import { get } from "./api.js";
import { svg } from "./dom.js";

const POINTS = 60;
// At least so many fill the width: a minute.
const LEAST_POINTS = 5;
const WIDTH = 96;
const HEIGHT = 20;
const KINDS = ["rate_per_s", "p95_ms"];

/** Curves of all models: those that the control plane kept, and what the stream brought since. */
export class Curves {
  #curves = new Map();
  #stepS = 15;
  #addedAt = 0;
  version = 0; // grows with each change, so that who draws knows whether to

  constructor(signal) {
    live.addEventListener("fleet", () => this.#add(), { signal });
    this.#load(signal);
  }

  of(name, kind) {
    return this.#curves.get(name)?.[kind] ?? [];
  }

  async #load(signal) {
    const found = await get("/series", signal).catch(() => null); // the stream fills the curves all the same
    if (!found) return;
    this.#stepS = found.step_s;
    for (const [name, kept] of Object.entries(found.models)) {
      this.#curves.set(name, Object.fromEntries(KINDS.map((kind) => [kind, kept[kind].slice(-POINTS)])));
    }
    this.#addedAt = found.at.at(-1) ?? 0;
    this.version += 1;
  }

  #add() {
    const { at } = live.fleet;
    if (at - this.#addedAt < this.#stepS) return;
    this.#addedAt = at;
    this.version += 1;
    for (const [name, row] of live.rows) {
      const curves = this.#curves.get(name) ?? Object.fromEntries(KINDS.map((kind) => [kind, []]));
      for (const kind of KINDS) curves[kind] = [...curves[kind], row[kind]].slice(-POINTS);
      this.#curves.set(name, curves);
    }
    for (const name of this.#curves.keys()) if (!live.rows.has(name)) this.#curves.delete(name);
  }
}

/** An empty curve to draw into. Screen readers have the number beside it. */
export function sparkline() {
  const line = svg("path", { class: "spark", "vector-effect": "non-scaling-stroke" });
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, "aria-hidden": "true", focusable: "false" },
    line,
  );
}

/** Draws values, oldest first and the newest at the right edge. Where nothing is known is a gap. */
export function drawSparkline(picture, values) {
  const path = linePath(values);
  const line = picture.firstChild;
  if (line.getAttribute("d") !== path) line.setAttribute("d", path);
}

function linePath(values) {
  const known = values.filter((value) => value !== null);
  const highest = Math.max(...known, 1e-9);
  // A young curve has the whole width too: otherwise it were a dot for the first minutes, when people look at it most.
  const begun = Math.max(
    0,
    values.findIndex((value) => value !== null),
  );
  const last = values.length - 1;
  const step = WIDTH / Math.max(LEAST_POINTS - 1, last - begun);
  let path = "";
  let isDrawing = false;
  for (let index = begun; index <= last; index += 1) {
    const value = values[index];
    if (value === null || value === undefined) {
      isDrawing = false;
      continue;
    }
    const x = (WIDTH - (last - index) * step).toFixed(1);
    const y = (HEIGHT - 1.5 - (value / highest) * (HEIGHT - 3)).toFixed(1);
    path += isDrawing ? `L${x} ${y}` : `M${x} ${y}h0.01`;
    isDrawing = true;
  }
  return path;
}
