// A curve over the last minutes, drawn by uPlot on a canvas. A canvas says nothing to a screen reader, so that each
// chart has its numbers beside it in words too: the newest in the legend, the range in a sentence, and a table on
// request.
//
// uPlot lies in static/vendor, where `make setup` puts it. Without it the sentence and the table are there all the
// same.

import { eachFrame, el, setText } from "./dom.js";
import { DASH, clock } from "./format.js";

const HEIGHT = 190;
// How often the sentence and the table follow. Each second would be noise.
const WORDS_MS = 15_000;
const TABLE_STEP_S = 60;
const LEAST_SPAN_S = 60;

let library = null;

/** uPlot, or null where this installation has none. Asked for once, when the first chart is shown. */
function loadLibrary() {
  library ??= import("../vendor/uPlot.esm.js")
    .then((module) => {
      document.head.append(el("link", { rel: "stylesheet", href: "static/vendor/uPlot.min.css" }));
      return module.default;
    })
    .catch(() => null);
  return library;
}

export class Chart {
  #series; // [{ label, color, width, dash }]
  #format; // number -> {text}
  #spanS;
  #data = null;
  #plot = null;
  #uplot = null;
  #wordsAt = 0;
  #picture = el("div", { class: "picture", "aria-hidden": "true" });
  #values;
  #sentence = el("p", { class: "unseen" });
  #table = el("table", { class: "plain" });
  #details;
  #redraw = eachFrame(() => this.#draw());

  /** series: [{ label, color (a custom property), width, dash }]; one array of values each is given to `show`. */
  constructor(id, heading, { series, format, spanS, signal }) {
    this.#series = series;
    this.#format = format;
    this.#spanS = spanS;
    this.#values = series.map(() => el("dd", {}, DASH));
    const legend = el(
      "dl",
      { class: "legend" },
      series.map(({ label, color, dash }, index) =>
        el("div", { class: `key key-${color}${dash ? " dashed" : ""}` }, el("dt", {}, label), this.#values[index]),
      ),
    );
    this.#details = el(
      "details",
      { ontoggle: () => this.#describe(true) },
      el("summary", {}, "As a table"),
      el(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": `${heading}, as a table` },
        this.#table,
      ),
    );
    this.element = el(
      "figure",
      { id, class: "chart card", "aria-labelledby": `${id}-heading` },
      el("figcaption", {}, el("h2", { id: `${id}-heading` }, heading), legend),
      this.#picture,
      this.#sentence,
      this.#details,
    );
    this.#begin(signal);
  }

  /** at: seconds since the epoch; values: one array for each series, null where nothing is known. */
  show(at, values) {
    this.#data = [at, ...values];
    this.#redraw();
  }

  async #begin(signal) {
    this.#uplot = await loadLibrary();
    if (signal.aborted) return;
    if (!this.#uplot) return this.#sayThereIsNone();
    // The first answer of an observer is the size at its beginning.
    const observer = new ResizeObserver(eachFrame(() => this.#resize()));
    observer.observe(this.#picture);
    signal.addEventListener("abort", () => {
      observer.disconnect();
      this.#plot?.destroy();
    });
    addEventListener("scheme", () => this.#make(), { signal });
    this.#redraw();
  }

  #sayThereIsNone() {
    this.#picture.removeAttribute("aria-hidden");
    this.#picture.classList.add("missing");
    this.#picture.textContent =
      "This installation has no chart library: run `make setup` where npm is installed, or install the wheel. " +
      "The table below has the numbers.";
    this.#details.open = true;
    this.#redraw();
  }

  #resize() {
    const width = this.#picture.clientWidth;
    if (width > 0 && this.#plot && this.#plot.width !== width) this.#plot.setSize({ width, height: HEIGHT });
    this.#draw();
  }

  #draw() {
    if (!this.#data) return;
    if (this.#uplot && !this.#plot) this.#make();
    this.#plot?.setData(this.#data);
    this.#showValues(this.#plot?.cursor.idx ?? this.#data[0].length - 1);
    this.#describe(false);
  }

  /** Anew when the scheme changed: a canvas keeps the colours that it was drawn with. */
  #make() {
    const width = this.#picture.clientWidth;
    if (!this.#uplot || !this.#data || width === 0) return;
    this.#plot?.destroy();
    this.#plot = new this.#uplot(this.#options(width), this.#data, this.#picture);
  }

  #options(width) {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const axis = {
      stroke: color("muted"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: color("line"), width: 1 },
      ticks: { show: false },
    };
    return {
      width,
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 8, 0, 0],
      cursor: { y: false, drag: { setScale: false }, points: { size: 6 } },
      scales: {
        x: { range: (plot) => this.#timeRange(plot.data[0]) },
        y: { range: (_plot, _least, most) => [0, niceAbove(most)] },
      },
      axes: [
        {
          ...axis,
          size: 28,
          space: 70,
          values: (_plot, splits, _axis, _space, stepS) => splits.map((at) => clock(at).slice(0, stepS < 60 ? 8 : 5)),
        },
        { ...axis, size: 58, gap: 6, values: (_plot, splits) => splits.map((value) => this.#format(value).text) },
      ],
      series: [
        {},
        ...this.#series.map((each) => ({
          label: each.label,
          stroke: color(each.color),
          width: each.width ?? 1.5,
          dash: each.dash,
          points: { show: false },
        })),
      ],
      hooks: { setCursor: [(plot) => this.#showValues(plot.cursor.idx ?? this.#data[0].length - 1)] },
    };
  }

  /** A young curve has the whole width, from its beginning on; an old one moves along. */
  #timeRange(at) {
    const until = at.at(-1) ?? Date.now() / 1000;
    const begun = at[this.#data[1].findIndex((value) => value !== null)] ?? until;
    return [Math.max(until - this.#spanS, Math.min(begun, until - LEAST_SPAN_S)), until];
  }

  #showValues(index) {
    this.#series.forEach((_, i) => setText(this.#values[i], this.#format(this.#data[i + 1][index] ?? null).text));
  }

  #describe(isAsked) {
    const isDue = Date.now() - this.#wordsAt > WORDS_MS;
    if (!this.#data || (!isDue && !isAsked)) return;
    this.#wordsAt = Date.now();
    setText(this.#sentence, this.#series.map(({ label }, i) => this.#inWords(label, this.#data[i + 1])).join(" "));
    if (this.#details.open) this.#fillTable();
  }

  #inWords(label, values) {
    const known = values.filter((value) => value !== null && value !== undefined);
    if (known.length === 0) return `${label}: nothing is known.`;
    const [least, most, last] = [Math.min(...known), Math.max(...known), known.at(-1)].map(
      (value) => this.#format(value).text,
    );
    return `${label}: ${last} now, between ${least} and ${most} in the last minutes.`;
  }

  #fillTable() {
    const [at, ...values] = this.#data;
    const rows = [];
    for (let i = at.length - 1, next = Infinity; i >= 0; i -= 1) {
      if (at[i] > next) continue;
      next = at[i] - TABLE_STEP_S;
      rows.push(
        el(
          "tr",
          {},
          el("th", { scope: "row" }, clock(at[i])),
          values.map((each) => el("td", {}, this.#format(each[i] ?? null).text)),
        ),
      );
    }
    const head = el(
      "tr",
      {},
      ["Time", ...this.#series.map(({ label }) => label)].map((label) => el("th", { scope: "col" }, label)),
    );
    this.#table.replaceChildren(el("thead", {}, head), el("tbody", {}, rows));
  }
}

/** The next of 1, 2, 5, 10, … above a value and some air: the axis changes seldom. */
function niceAbove(most) {
  if (!(most > 0)) return 1;
  const wanted = most * 1.08;
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 3, 5, 7, 10].map((step) => step * power).find((bound) => bound >= wanted);
}
