// Replicas over the last minutes: one line each, its states as stretches of it, and what it is doing now at the end;
// and why there are so many.

import { get } from "./api.js";
import { el, section, setAttribute, setText, show } from "./dom.js";
import * as format from "./format.js";
import { live } from "./live.js";
import { ScalingReasons } from "./scaling.js";
import { drawState, stateMark } from "./states.js";

const SPANS_S = { "15 min": 900, "1 hour": 3600, "3 hours": 10_800 };
// Replicas that ended long ago are many in a fleet that scales: the newest of them are enough.
const MOST_LINES = 24;
const RELOAD_MS = 1000;

export class Timeline {
  #name;
  #signal;
  #spans = [];
  #knownSince = null;
  #model = null;
  #lines = new Map();
  #list = el("ul", { class: "timeline", "aria-label": "Replicas and their states" });
  #axis = el("div", { class: "axis", "aria-hidden": "true" }, el("span"), el("span"), el("span", {}, "now"));
  #choice = el(
    "select",
    { id: "timeline-span" },
    Object.entries(SPANS_S).map(([label, s]) => el("option", { value: s }, label)),
  );
  #note = el("p", { class: "hint" });
  #asked = "";
  #loading = false;

  constructor(name, signal) {
    this.#name = name;
    this.#signal = signal;
    this.element = section(
      "replicas",
      "Replicas",
      { class: "card" },
      el(
        "div",
        { class: "corner" },
        el("label", { for: "timeline-span", class: "unseen" }, "Time shown"),
        this.#choice,
      ),
      this.#axis,
      this.#list,
      this.#note,
      new ScalingReasons(name, signal).element,
    );
    this.#choice.addEventListener("change", () => this.draw(live.fleet.at));
    this.#load();
  }

  /** What the stream says of replicas now. A replica that came, went or changed its state asks for the spans anew. */
  take(model) {
    this.#model = model;
    const known = model.versions.flatMap((version) => version.replicas.map((r) => `${r.id} ${r.state}`)).join();
    if (known === this.#asked) return;
    this.#asked = known;
    if (!this.#loading) setTimeout(() => this.#load(), RELOAD_MS);
    this.#loading = true;
  }

  async #load() {
    this.#loading = false;
    try {
      const found = await get(`/models/${encodeURIComponent(this.#name)}/replicas/history`, this.#signal);
      this.#spans = found.spans;
      this.#knownSince = found.known_since;
    } catch {
      return; // signed out or away: what is drawn stays
    }
    if (live.fleet) this.draw(live.fleet.at);
  }

  draw(now) {
    const spanS = Number(this.#choice.value);
    const from = now - spanS;
    setText(this.#axis.children[0], format.clock(from).slice(0, 5));
    setText(this.#axis.children[1], format.clock(from + spanS / 2).slice(0, 5));
    const replicas = this.#inSight(from);
    for (const [id, line] of this.#lines) {
      if (replicas.has(id)) continue;
      line.element.remove();
      this.#lines.delete(id);
    }
    for (const [id, spans] of replicas) this.#drawLine(id, spans, from, spanS, now);
    setText(this.#note, this.#inWords(replicas.size, from));
  }

  #inSight(from) {
    const byReplica = new Map();
    for (const span of this.#spans) {
      if ((span.until ?? Infinity) <= from) continue;
      byReplica.set(span.replica, [...(byReplica.get(span.replica) ?? []), span]);
    }
    const newest = [...byReplica].sort(([, a], [, b]) => b[0].since - a[0].since).slice(0, MOST_LINES);
    return new Map(
      newest.sort(
        ([, a], [, b]) => a[0].version.localeCompare(b[0].version, "en", { numeric: true }) || a[0].since - b[0].since,
      ),
    );
  }

  #drawLine(id, spans, from, spanS, now) {
    let line = this.#lines.get(id);
    if (!line) {
      line = makeLine(id, spans[0].version);
      this.#lines.set(id, line);
    }
    this.#list.append(line.element);
    while (line.track.children.length > spans.length) line.track.lastChild.remove();
    spans.forEach((span, index) => {
      const part = line.track.children[index] ?? line.track.appendChild(el("span", { class: "stretch" }));
      const left = Math.max(0, (span.since - from) / spanS);
      const right = Math.min(1, ((span.until ?? now) - from) / spanS);
      part.style.left = `${(left * 100).toFixed(3)}%`;
      part.style.width = `${(Math.max(0, right - left) * 100).toFixed(3)}%`;
      setAttribute(part, "data-state", span.state);
      setAttribute(
        part,
        "title",
        `${span.state} since ${format.moment(span.since)}${span.reason ? `: ${span.reason}` : ""}`,
      );
    });
    drawNow(line, spans.at(-1), this.#replica(id), now);
  }

  #replica(id) {
    return this.#model?.versions.flatMap((version) => version.replicas).find((replica) => replica.id === id) ?? null;
  }

  #inWords(count, from) {
    if (count === 0) return "No replica ran in this time.";
    const isShort = this.#knownSince !== null && this.#knownSince > from;
    return isShort ? `Known since ${format.moment(this.#knownSince)}, when the control plane began.` : "";
  }
}

function makeLine(id, version) {
  const state = stateMark();
  const numbers = el("span", { class: "muted" });
  const track = el("span", { class: "track", "aria-hidden": "true" });
  const element = el(
    "li",
    {},
    el(
      "span",
      { class: "who" },
      el("span", { class: "mono", title: id }, id),
      el("span", { class: "muted" }, `version ${version}`),
    ),
    track,
    el("span", { class: "now" }, state, numbers),
  );
  return { element, track, state, numbers };
}

function drawNow(line, last, replica, now) {
  const isOver = last.until !== null;
  const reason = replica?.reason || last.reason;
  drawState(line.state, isOver ? "gone" : replica?.phase || last.state, { reason });
  setAttribute(line.state, "data-state", isOver ? "gone" : last.state);
  const since = `for ${format.duration(now - last.since).text}`;
  show(
    line.numbers,
    isOver ? format.ago(last.until, now) : { text: replica ? inUse(replica, since) : since, title: since },
  );
}

function inUse(replica, since) {
  const parts = [since];
  if (format.isKnown(replica.cpu_ratio)) parts.push(`CPU ${format.percent(replica.cpu_ratio).text}`);
  if (format.isKnown(replica.memory_bytes)) parts.push(format.bytes(replica.memory_bytes).text);
  return parts.join(", ");
}
