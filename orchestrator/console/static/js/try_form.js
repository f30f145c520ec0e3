// A prediction by hand: a field for each input that the model's metadata names, the answer with its status and times,
// and the curl command that sends the same from a terminal.

import { get, post } from "./api.js";
import { el, section, setText } from "./dom.js";
import * as format from "./format.js";
import { requestOf } from "./tensors.js";

export class TryForm {
  #name;
  #signal;
  #form = null; // what the control plane says of the chosen version
  #version = el("select", { id: "try-version" });
  #fields = el("div", { class: "fields" });
  #body = el("textarea", { id: "try-body", rows: "8", spellcheck: "false", autocomplete: "off" });
  #asJson = el("input", { type: "checkbox", id: "try-as-json" });
  #key = el("input", {
    type: "password",
    id: "try-key",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "only where the gateway asks for one",
  });
  #note = el("p", { class: "hint" });
  #problem = el("p", { class: "problem", role: "alert" });
  #answer = el("div", { class: "answer", role: "status" });
  #curl = el("pre", { tabindex: "0", "aria-label": "The same with curl" });
  #copy = el("button", { type: "button", class: "quiet", onclick: () => this.#copyCurl() }, "Copy");
  #send = el("button", { type: "submit", class: "primary", disabled: true }, "Predict");

  constructor(name, signal) {
    this.#name = name;
    this.#signal = signal;
    const form = el(
      "form",
      { onsubmit: (event) => this.#predict(event), oninput: () => this.#drawCurl() },
      el(
        "div",
        { class: "row" },
        el("label", { for: "try-version" }, "Version"),
        this.#version,
        el("span", { class: "grow" }),
        el("label", { for: "try-as-json", class: "check" }, this.#asJson, "Whole request"),
      ),
      this.#note,
      this.#fields,
      el(
        "div",
        { class: "field", id: "try-whole", hidden: true },
        el("label", { for: "try-body" }, "Request body (JSON)"),
        this.#body,
      ),
      el(
        "details",
        {},
        el("summary", {}, "API key"),
        el("div", { class: "field" }, el("label", { for: "try-key" }, "Key"), this.#key),
      ),
      el("div", { class: "row" }, this.#send, this.#problem),
    );
    this.element = section(
      "try",
      "Try it",
      { class: "card" },
      form,
      this.#answer,
      el("details", { class: "curl" }, el("summary", {}, "The same with curl"), this.#copy, this.#curl),
    );
    this.#version.addEventListener("change", () => this.#load());
    this.#asJson.addEventListener("change", () => this.#switch());
  }

  /** The versions that there are now. The first that is offered is asked for what it takes. */
  offer(versions) {
    const offered = [...this.#version.options].map((option) => option.value);
    if (offered.join() === versions.join()) return;
    const chosen = this.#version.value;
    this.#version.replaceChildren(...versions.map((version) => el("option", { value: version }, version)));
    if (versions.includes(chosen)) this.#version.value = chosen;
    else this.#load();
  }

  async #load() {
    const version = this.#version.value;
    if (!version) return;
    // Until it is known what the chosen version takes, nothing can be sent: least of all to the one before.
    this.#form = null;
    this.#send.disabled = true;
    this.#fields.replaceChildren();
    setText(this.#note, "Asking the model what it takes…");
    try {
      const found = await get(this.#path(version), this.#signal);
      if (version === this.#version.value) this.#take(found);
    } catch (error) {
      if (!this.#signal.aborted) setText(this.#note, error.message);
    }
  }

  #path(version) {
    return `/models/${encodeURIComponent(this.#name)}/versions/${encodeURIComponent(version)}/try`;
  }

  #take(form) {
    this.#form = form;
    this.#send.disabled = false;
    setText(this.#note, form.note);
    this.#body.value = form.example;
    this.#fields.replaceChildren(...form.inputs.map((input, index) => inputField(input, index)));
    this.#asJson.checked = form.inputs.length === 0;
    this.#switch(false);
  }

  /** Between fields and the whole request; what was typed into the fields goes along. */
  #switch(isKept = true) {
    if (isKept && this.#asJson.checked && this.#form?.inputs.length)
      this.#body.value = this.#bodyOrNull() ?? this.#body.value;
    this.element.querySelector("#try-whole").hidden = !this.#asJson.checked;
    this.#fields.hidden = this.#asJson.checked;
    this.#drawCurl();
  }

  #bodyOrNull() {
    try {
      return requestOf(
        this.#form.inputs,
        [...this.#fields.querySelectorAll("textarea")].map((field) => field.value),
      );
    } catch {
      return null;
    }
  }

  #wanted() {
    if (this.#asJson.checked) return this.#body.value;
    return requestOf(
      this.#form.inputs,
      [...this.#fields.querySelectorAll("textarea")].map((field) => field.value),
    );
  }

  async #predict(event) {
    event.preventDefault();
    if (!this.#form) return;
    setText(this.#problem, "");
    let body;
    try {
      body = this.#wanted();
    } catch (error) {
      return setText(this.#problem, error.message);
    }
    this.#send.disabled = true;
    try {
      const answer = await post(this.#path(this.#form.version), { body, key: this.#key.value.trim() }, this.#signal);
      this.#answer.replaceChildren(...answerElements(answer));
    } catch (error) {
      if (!this.#signal.aborted) setText(this.#problem, error.message);
    } finally {
      this.#send.disabled = this.#form === null;
    }
  }

  #drawCurl() {
    const body = this.#form && (this.#asJson.checked ? this.#body.value : this.#bodyOrNull());
    if (!body) return setText(this.#curl, "");
    const parts = ["curl -sS -X POST", quoted(this.#form.url), "\\\n  -H 'content-type: application/json'"];
    // The key itself is not in it: what is copied ends in chats and histories.
    if (this.#key.value) parts.push('\\\n  -H "authorization: Bearer $KEY"');
    setText(this.#curl, `${parts.join(" ")} \\\n  -d ${quoted(body)}`);
  }

  async #copyCurl() {
    await navigator.clipboard.writeText(this.#curl.textContent);
    setText(this.#copy, "Copied");
    setTimeout(() => setText(this.#copy, "Copy"), 1500);
  }
}

function inputField({ name, datatype, shape, example }, index) {
  const id = `try-input-${index}`;
  const size = JSON.stringify(example).length;
  const field = el("textarea", {
    id,
    rows: String(Math.min(6, Math.max(1, Math.ceil(size / 60)))),
    spellcheck: "false",
    autocomplete: "off",
    "aria-describedby": `${id}-hint`,
  });
  field.value = JSON.stringify(example);
  const wanted = shape.map((length) => (length === -1 ? "any" : length)).join(" × ");
  return el(
    "div",
    { class: "field" },
    el("label", { for: id }, name, " ", el("span", { class: "muted", id: `${id}-hint` }, `${datatype}, ${wanted}`)),
    field,
  );
}

function answerElements({ status, headers, body, is_binary: isBinary, is_cut: isCut, took_ms: tookMs }) {
  const isGood = status < 400;
  const facts = [
    `took ${format.milliseconds(tookMs).text}`,
    headers["server-timing"],
    headers["x-model-version"] && `version ${headers["x-model-version"]}`,
    headers["x-request-id"] && `request ${headers["x-request-id"]}`,
  ].filter(Boolean);
  return [
    el(
      "p",
      {},
      el("strong", { class: isGood ? "good" : "bad" }, `${status}`),
      el("span", { class: "muted" }, ` ${facts.join(" · ")}`),
    ),
    el(
      "pre",
      { class: "scroll", tabindex: "0", "aria-label": "Answer" },
      isBinary ? `(binary, base64) ${body}` : pretty(body),
    ),
    isCut ? el("p", { class: "hint" }, "Only the first MiB is shown.") : null,
  ].filter(Boolean);
}

function pretty(body) {
  try {
    // Lists of numbers on one line. No string is touched: JSON has line ends between values only.
    return JSON.stringify(JSON.parse(body), null, 2).replace(
      /\[\n\s+([-\d.eE+,\s]+?)\n\s*\]/g,
      (_, list) => `[${list.replace(/\s+/g, " ")}]`,
    );
  } catch {
    return body;
  }
}

/** For a POSIX shell. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
