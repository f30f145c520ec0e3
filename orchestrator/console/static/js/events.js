// What happened to a model, newest first, each with its reason in the control plane's own words.

import { get } from "./api.js";
import { el, section, show } from "./dom.js";
import { ago } from "./format.js";
import { live } from "./live.js";

const KEPT = 200;
const FIRST = 50;

export class EventList {
  #name;
  #list = el("ol", { class: "events" });
  #empty = el("p", { class: "hint" }, "Nothing has happened yet.");
  #seen = new Set();

  constructor(name, signal) {
    this.#name = name;
    this.element = section(
      "events",
      "Events",
      { class: "card" },
      this.#empty,
      el(
        "div",
        { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Events, newest first" },
        this.#list,
      ),
    );
    live.addEventListener("journal", ({ detail }) => this.#add(detail), { signal });
    live.addEventListener("connection", () => live.connected && this.#load(signal), { signal });
    this.#load(signal);
    const timer = setInterval(() => this.#drawTimes(), 10_000);
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  async #load(signal) {
    const found = await get(`/events?model=${encodeURIComponent(this.#name)}&limit=${FIRST}`, signal).catch(() => []);
    found.forEach((event) => this.#add(event));
  }

  #add(event) {
    if (event.model !== this.#name || this.#seen.has(event.id)) return;
    this.#seen.add(event.id);
    const item = eventItem(event);
    // They come in order but for those that were asked for while new ones came.
    const next = [...this.#list.children].find((other) => Number(other.dataset.id) < event.id) ?? null;
    this.#list.insertBefore(item, next);
    if (this.#list.children.length > KEPT) this.#list.lastChild.remove();
    this.#empty.hidden = true;
  }

  #drawTimes() {
    for (const item of this.#list.children) show(item.firstChild, ago(Number(item.dataset.at)));
  }
}

function eventItem({ id, at, level, kind, message, version, replica }) {
  const when = el("time", { class: "muted", datetime: new Date(at * 1000).toISOString() });
  show(when, ago(at));
  // What a replica last said, a traceback for one, stands in the lines after the first.
  const [sentence, ...more] = message.split("\n");
  const where = [kind, version && `version ${version}`, replica].filter(Boolean).join(" · ");
  return el(
    "li",
    { "data-level": level, "data-id": id, "data-at": at },
    when,
    el(
      "div",
      {},
      level === "info" ? null : el("strong", {}, `${level}: `),
      sentence,
      more.length > 0 ? el("pre", {}, more.join("\n")) : null,
      el("span", { class: "where" }, where),
    ),
  );
}
