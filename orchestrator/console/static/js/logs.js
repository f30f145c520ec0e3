// The last log lines of a model's replicas, merged by time, and those that come while it follows.

import { open } from "./api.js";
import { eachFrame, el, section, setText } from "./dom.js";
import { clock, moment, plural } from "./format.js";
import { live } from "./live.js";

const KEPT = 2000;
const TAIL = 200;

export class LogTail {
  #name;
  #asked = null;
  #isEnded = false; // though it should follow
  #lines = [];
  #waiting = [];
  #box = el("div", { class: "lines scroll", tabindex: "0", role: "region", "aria-label": "Log lines" });
  #follow = el("input", { type: "checkbox", id: "log-follow", checked: true });
  #filter = el("input", {
    type: "search",
    id: "log-filter",
    placeholder: "text in the line",
    autocomplete: "off",
    spellcheck: "false",
  });
  #choice = el("select", { id: "log-version" }, el("option", { value: "" }, "all versions"));
  #empty = el("p", { class: "hint" }, "Nothing was printed yet.");
  #note = el("p", { class: "hint" });
  #draw = eachFrame(() => this.#append());

  constructor(name, signal) {
    this.#name = name;
    this.element = section(
      "logs",
      "Logs",
      { class: "card" },
      el(
        "div",
        { class: "tools" },
        el("label", { for: "log-filter", class: "unseen" }, "Filter lines"),
        this.#filter,
        el("label", { for: "log-version", class: "unseen" }, "Version"),
        this.#choice,
        el("label", { for: "log-follow", class: "check" }, this.#follow, "Follow"),
      ),
      this.#box,
      this.#empty,
      this.#note,
    );
    this.#filter.addEventListener("input", () => this.#refilter());
    this.#choice.addEventListener("change", () => this.#read());
    this.#follow.addEventListener("change", () => this.#read());
    signal.addEventListener("abort", () => this.#asked?.abort());
    live.addEventListener("connection", () => live.connected && this.#isEnded && this.#read(), { signal });
    live.addEventListener("rest", () => this.#asked.abort(), { signal });
    live.addEventListener("wake", () => this.#read(), { signal });
    this.#read();
  }

  /** The versions that there are to choose from. */
  offer(versions) {
    const offered = [...this.#choice.options].map((option) => option.value);
    for (const version of versions) {
      if (!offered.includes(version)) this.#choice.append(el("option", { value: version }, `version ${version}`));
    }
  }

  async #read() {
    this.#asked?.abort();
    this.#asked = new AbortController();
    this.#isEnded = false;
    this.#empty.hidden = false;
    this.#lines = [];
    this.#waiting = [];
    this.#box.replaceChildren();
    setText(this.#note, "");
    const { signal } = this.#asked;
    const query = new URLSearchParams({ tail: TAIL, follow: this.#follow.checked, version: this.#choice.value });
    try {
      const answer = await open(`/models/${encodeURIComponent(this.#name)}/logs?${query}`, signal);
      for await (const line of jsonLines(answer.body)) {
        this.#waiting.push(line);
        this.#draw();
      }
      this.#isEnded = this.#follow.checked; // by a control plane that ends
    } catch (error) {
      if (signal.aborted) return;
      this.#isEnded = true;
      setText(this.#note, `The lines end here: ${error.message}`);
    }
  }

  #append() {
    const wasAtEnd = this.#box.scrollHeight - this.#box.scrollTop - this.#box.clientHeight < 24;
    const found = this.#waiting.splice(0).map((line) => ({ line, element: this.#element(line) }));
    this.#lines.push(...found);
    this.#empty.hidden = this.#lines.length > 0;
    this.#box.append(...found.map(({ element }) => element));
    for (const { element } of this.#lines.splice(0, Math.max(0, this.#lines.length - KEPT))) element.remove();
    if (wasAtEnd) this.#box.scrollTop = this.#box.scrollHeight;
  }

  #element({ at, replica, version, stream, text, level, event, fields }) {
    const element = el(
      "div",
      { class: "line", "data-level": level || null, title: event ? text : null },
      el("span", { class: "muted", title: moment(at) }, clock(at)),
      el("span", { class: "muted from", title: `${replica}, version ${version}, ${stream}` }, replica),
      event ? el("span", {}, event, el("span", { class: "muted" }, inWords(level, fields))) : el("span", {}, text),
    );
    element.hidden = !this.#matches(text);
    return element;
  }

  #matches(text) {
    return text.toLowerCase().includes(this.#filter.value.toLowerCase());
  }

  #refilter() {
    let shown = 0;
    for (const { line, element } of this.#lines) {
      element.hidden = !this.#matches(line.text);
      shown += element.hidden ? 0 : 1;
    }
    setText(this.#note, this.#filter.value ? `${plural(shown, "line")} of ${this.#lines.length}` : "");
    this.#box.scrollTop = this.#box.scrollHeight;
  }
}

/** What a structured line says beside its event: key=value, and its level where that is not the usual one. */
function inWords(level, fields) {
  const said = Object.entries(fields).map(
    ([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`,
  );
  return [level === "info" ? "" : ` ${level}`, ...said.map((each) => ` ${each}`)].join("");
}

/** Objects of a body with one JSON object a line, as they come. */
async function* jsonLines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
  }
}
