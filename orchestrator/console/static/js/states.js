// States as a mark and a word. The mark's shape differs too, so that nobody has to tell colours apart.

import { el, setAttribute, setText } from "./dom.js";

const WORDS = {
  ready: "serves",
  asleep: "no replica is awake; a request wakes it",
  starting: "replicas are starting",
  updating: "replicas are being replaced",
  failed: "replicas cannot start, or keep ending",
  stopping: "is being removed",
};

export function stateMark() {
  return el("span", { class: "state" });
}

/** `row` may say why, and that its rollout is paused. */
export function drawState(mark, state, { reason = "", paused = false } = {}) {
  setAttribute(mark, "data-state", state);
  setText(mark, paused ? `${state}, paused` : state);
  setAttribute(mark, "title", reason || WORDS[state] || null);
}
