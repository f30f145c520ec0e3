// Why each version has as many replicas as it has: the autoscaler's newest decision in its own words, and what it
// rested on.

import { get } from "./api.js";
import { el, setText, show } from "./dom.js";
import { ago, moment, plural } from "./format.js";
import { live } from "./live.js";

// Decisions that change nothing make no event, and their reasons move with the load.
const ASK_MS = 5000;

export class ScalingReasons {
  #path;
  #signal;
  #items = new Map();
  element = el("ul", { class: "reasons", "aria-label": "Why there are so many replicas" });

  constructor(name, signal) {
    this.#path = `/models/${encodeURIComponent(name)}/scaling`;
    this.#signal = signal;
    const timer = setInterval(() => live.connected && this.#ask(), ASK_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    this.#ask();
  }

  async #ask() {
    const found = await get(this.#path, this.#signal).catch(() => null); // away: what was said last stays
    if (!found) return;
    for (const [version, item] of this.#items) {
      if (found.some((each) => each.version === version)) continue;
      item.remove();
      this.#items.delete(version);
    }
    for (const each of found) this.#draw(each);
  }

  #draw(status) {
    let item = this.#items.get(status.version);
    if (!item) {
      item = this.element.appendChild(makeItem(status.version));
      this.#items.set(status.version, item);
    }
    const [, count, reason, when, details] = item.children;
    setText(count, counted(status));
    setText(reason, reasoned(status));
    if (status.decided_at === null) setText(when, "");
    else show(when, ago(status.decided_at));
    details.hidden = status.inputs.length === 0;
    const text = status.inputs.flat().join("\n");
    if (details.dataset.shown === text) return;
    details.dataset.shown = text;
    details.lastChild.replaceChildren(
      ...status.inputs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
    );
  }
}

function makeItem(version) {
  const details = el("details", {}, el("summary", {}, "What it rests on"), el("dl", { class: "inputs" }));
  return el(
    "li",
    {},
    el("strong", {}, `version ${version}`),
    el("span"),
    el("span"),
    el("span", { class: "muted" }),
    details,
  );
}

function counted({ replicas, standby, minimum, maximum }) {
  const kept = standby > 0 ? ` and ${standby} in standby` : "";
  const range = minimum === maximum ? "" : ` (${minimum} to ${maximum})`;
  return `${plural(replicas, "replica")}${kept}${range}`;
}

function reasoned({ chosen_by: chosenBy, override, reason }) {
  if (chosenBy === "manifest") return "as the manifest says";
  if (chosenBy === "load") return reason || "nothing was decided yet";
  const until = override?.until ? `until ${moment(override.until)}` : "until it is taken back";
  return `set by hand ${until}`;
}
