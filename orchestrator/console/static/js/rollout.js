// What a person may do to a model's rollout: give a version all traffic, hold it, go on, go back. Each asks first, and says
// what will happen; how it goes on shows at the top of the page, where operations are.

import { post } from "./api.js";
import { confirm } from "./dialog.js";
import { el, setText } from "./dom.js";
import { announce } from "./shell.js";

export class RolloutButtons {
  #name;
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
    this.#signal = signal;
    this.element = el("div", { class: "rollout", role: "group", "aria-label": "Rollout" },
      el("label", { for: "promote-version", class: "unseen" }, "Version to promote"), this.#version,
      this.#promote, this.#pause, this.#rollback, this.#problem);
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
      this.#version.replaceChildren(...versions.map((version) => el("option", { value: version }, `version ${version}`)));
      // The newest that does not have all of it is what one most likely means.
      this.#version.value = versions.includes(chosen) ? chosen : versions.findLast((version) => row.traffic[version] !== 100) ?? versions[0];
    }
    this.#version.hidden = this.#promote.hidden = versions.length < 2;
    setText(this.#pause, row.paused ? "Resume" : "Pause");
  }

  async #askPromote() {
    const version = this.#version.value;
    const share = this.#row.traffic[version] ?? 0;
    const others = Object.entries(this.#row.traffic).filter(([other, percent]) => other !== version && percent > 0);
    await this.#ask("promote", { version }, {
      heading: `Promote ${this.#name}@${version}?`,
      sentences: [
        `Version ${version} gets all requests that name no version; it has ${share} % of them now.`,
        ...others.map(([other, percent]) => `Version ${other} gets none of them any more; it has ${percent} % now.`),
        "It becomes a new revision. Traffic moves when the version is ready to carry it, and no request is lost.",
      ],
      action: "Promote",
    });
  }

  async #askPause() {
    if (this.#row.paused) {
      await this.#ask("resume", {}, {
        heading: `Go on with the rollout of ${this.#name}?`,
        sentences: ["What was applied and waits takes effect: replicas are replaced, and traffic moves to what the manifest asks for."],
        action: "Resume",
      });
      return;
    }
    await this.#ask("pause", {}, {
      heading: `Pause the rollout of ${this.#name}?`,
      sentences: ["Its replicas and the split of its traffic stay as they are, also when another manifest is applied, until somebody resumes it.",
        "Scaling and the replacement of failed replicas go on."],
      action: "Pause",
    });
  }

  async #askRollback() {
    await this.#ask("rollback", {}, {
      heading: `Roll back ${this.#name}?`,
      sentences: [
        "The model goes back to how it was in the newest revision in which it was not as it is now: its versions, traffic and settings.",
        "Other models stay as they are. It becomes a new revision, so that this can be rolled back too.",
      ],
      action: "Roll back",
      danger: true,
    });
  }

  async #ask(verb, body, question) {
    setText(this.#problem, "");
    if (!(await confirm(question))) return;
    try {
      await post(`/models/${encodeURIComponent(this.#name)}/${verb}`, body, this.#signal);
      announce(`${question.action}: begun.`);
    } catch (error) {
      if (!this.#signal.aborted) setText(this.#problem, error.message);
    }
  }
}
