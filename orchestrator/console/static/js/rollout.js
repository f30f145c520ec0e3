// What a person may do to a model's rollout: give a version all traffic, hold it, go on, go back. Each asks first,
// and says what will happen; how it goes on shows at the top of the page, where operations are.

import { get, post } from "./api.js";
import { confirm } from "./dialog.js";
import { el, setText } from "./dom.js";
import { announce } from "./shell.js";

export class RolloutButtons {
  #name;
  #path;
  #signal;
  #row = null;
  #model = null;
  #version = el("select", { id: "promote-version" });
  #promote = el("button", { type: "button", onclick: () => this.#askPromote() }, "Promote");
  #pause = el("button", { type: "button", onclick: () => this.#askPause() }, "Pause");
  #rollback = el("button", { type: "button", class: "danger", onclick: () => this.#askRollback() }, "Roll back");
  #problem = el("p", { class: "problem", role: "alert" });

  constructor(name, signal) {
    this.#name = name;
    this.#path = `/models/${encodeURIComponent(name)}/rollout`;
    this.#signal = signal;
    this.element = el(
      "div",
      { class: "rollout", role: "group", "aria-label": "Rollout" },
      el("label", { for: "promote-version", class: "unseen" }, "Version to promote"),
      this.#version,
      this.#promote,
      this.#pause,
      this.#rollback,
      this.#problem,
    );
  }

  draw(row, model) {
    this.#row = row ?? null;
    this.#model = model;
    this.element.hidden = !row;
    if (!row) return;
    const versions = model?.versions.map(({ version }) => version) ?? [];
    const offered = [...this.#version.options].map((option) => option.value);
    if (offered.join() !== versions.join()) {
      const chosen = this.#version.value;
      this.#version.replaceChildren(
        ...versions.map((version) => el("option", { value: version }, `version ${version}`)),
      );
      // The newest that does not have all of it is what one most likely means.
      this.#version.value = versions.includes(chosen)
        ? chosen
        : (versions.findLast((version) => row.traffic[version] !== 100) ?? versions[0]);
    }
    this.#version.hidden = this.#promote.hidden = versions.length < 2;
    setText(this.#pause, row.paused ? "Resume" : "Pause");
  }

  async #askPromote() {
    const version = this.#version.value;
    const share = this.#row.traffic[version] ?? 0;
    const others = Object.entries(this.#row.traffic).filter(([other, percent]) => other !== version && percent > 0);
    await this.#ask(
      "promote",
      { version },
      {
        heading: `Promote ${this.#name}@${version}?`,
        sentences: [
          `Version ${version} gets all requests that name no version; it has ${share} % of them now.`,
          ...others.map(([other, percent]) => `Version ${other} gets none of them any more; it has ${percent} % now.`),
          "It becomes a new revision. Traffic moves when the version is ready to carry it, and no request is lost.",
        ],
        action: "Promote",
      },
    );
  }

  #askPause() {
    return this.#row.paused
      ? this.#askResume()
      : this.#ask(
          "pause",
          {},
          {
            heading: `Pause the rollout of ${this.#name}?`,
            sentences: [
              "None of its replicas is replaced or removed and no traffic moves until somebody resumes it. " +
                "What is applied for it meanwhile waits. Replicas that fail are made anew.",
            ],
            field: "Why, for others to read (may be empty)",
            action: "Pause",
          },
        );
  }

  async #askResume() {
    const found = await get(this.#path, this.#signal).catch(() => null);
    await this.#ask(
      "resume",
      {},
      {
        heading: `Go on with the rollout of ${this.#name}?`,
        sentences: [
          found?.paused_reason ? `It was paused because: ${found.paused_reason}` : null,
          found && !found.waiting
            ? "Nothing was applied for it since it was paused: what was under way then goes on."
            : "What was applied for it since then takes effect: replicas are replaced, and traffic moves.",
        ].filter(Boolean),
        action: "Resume",
      },
    );
  }

  async #askRollback() {
    await this.#ask(
      "rollback",
      {},
      {
        heading: `Roll back ${this.#name}?`,
        sentences: [
          "The model's versions, traffic and settings become those of the newest revision in which they were others.",
          "Other models stay as they are. It becomes a new revision, so that this can be rolled back too.",
        ],
        action: "Roll back",
        danger: true,
      },
    );
  }

  async #ask(verb, body, question) {
    setText(this.#problem, "");
    const said = await confirm(question);
    if (said === null) return;
    try {
      await post(`${this.#path}/${verb}`, said ? { ...body, reason: said } : body, this.#signal);
      announce(`${question.action}: begun.`);
    } catch (error) {
      if (!this.#signal.aborted) setText(this.#problem, error.message);
    }
  }
}
