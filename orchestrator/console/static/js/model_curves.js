// The last fifteen minutes of one model, and of each of its versions, second by second: what the control plane kept,
// and then what the stream brings. Where the stream was lost is a gap, not a line.

import { get } from "./api.js";
import { live } from "./live.js";

export const SPAN_S = 900;
const GAP_S = 5;
const KINDS = ["rate_per_s", "error_ratio", "p50_ms", "p95_ms", "p99_ms"];

export class ModelCurves {
  at = [];
  #name;
  #curves = new Map([["", empty()]]); // "" is all versions together

  constructor(name) {
    this.#name = name;
  }

  async load(signal) {
    const found = await get(`/series?model=${encodeURIComponent(this.#name)}`, signal);
    const added = this.at.filter((at) => at > (found.at.at(-1) ?? 0)).length;
    const kept = found.at.length;
    const join = (before, now) =>
      KINDS.map((kind) => [kind, [...full(before?.[kind], kept), ...now[kind].slice(now[kind].length - added)]]);
    const curves = { "": found.models[this.#name], ...found.versions };
    for (const version of new Set([...Object.keys(curves), ...this.#curves.keys()])) {
      const now = this.#curves.get(version) ?? padded(this.at.length);
      this.#curves.set(version, Object.fromEntries(join(curves[version], now)));
    }
    this.at = [...found.at, ...this.at.slice(this.at.length - added)];
  }

  /** Notes what is known now. */
  add() {
    const row = live.rows.get(this.#name);
    const at = live.fleet.at;
    const last = this.at.at(-1) ?? 0;
    if (!row || at <= last) return;
    if (this.at.length > 0 && at - last > GAP_S) this.#push(last + 1, new Map());
    const rows = new Map([["", row]]);
    for (const version of live.model?.versions ?? []) rows.set(version.version, version);
    this.#push(at, rows);
    this.#forget(at - SPAN_S);
  }

  of(version, kind) {
    return this.#curves.get(version)?.[kind] ?? full([], this.at.length);
  }

  #push(at, rows) {
    for (const version of rows.keys())
      if (!this.#curves.has(version)) this.#curves.set(version, padded(this.at.length));
    for (const [version, curves] of this.#curves) {
      for (const kind of KINDS) curves[kind].push(rows.get(version)?.[kind] ?? null);
    }
    this.at.push(at);
  }

  #forget(before) {
    const old = this.at.findIndex((at) => at >= before);
    if (old <= 0) return;
    this.at.splice(0, old);
    for (const curves of this.#curves.values()) for (const kind of KINDS) curves[kind].splice(0, old);
  }
}

const empty = () => Object.fromEntries(KINDS.map((kind) => [kind, []]));
const padded = (length) => Object.fromEntries(KINDS.map((kind) => [kind, full([], length)]));

/** As many values as there are times: what is missing at the end is not known. */
function full(values = [], length) {
  return [...values.slice(0, length), ...Array(Math.max(0, length - values.length)).fill(null)];
}
