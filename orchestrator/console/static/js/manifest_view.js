// The manifest as applied: the revision in force or any other, what changed between two of them, and the way back.

import { get, post } from "./api.js";
import { confirm } from "./dialog.js";
import { el, section, setText, show } from "./dom.js";
import { ago } from "./format.js";
import { live } from "./live.js";

// A dialog is for reading before saying yes; the whole of a longer diff stands on a page of its own.
const MOST_LINES = 60;

export function showManifest(main, [after = "", before = ""], signal) {
  const view = new ManifestView(Number(after) || null, Number(before) || null, signal);
  main.append(...view.elements);
  view.load();
  // A revision that comes while one looks at "the one in force" is what one wants to see.
  let revision = live.fleet?.revision;
  live.addEventListener(
    "fleet",
    () => {
      if (live.fleet.revision === revision) return;
      revision = live.fleet.revision;
      view.load();
    },
    { signal },
  );
  if (before) return `Revision ${before} to ${after}`;
  return after ? `Revision ${after}` : "Manifest";
}

class ManifestView {
  #after;
  #before;
  #signal;
  #revisions = [];
  #heading = el("h1", { tabindex: "-1" }, "Manifest");
  #lead = el("p", { class: "muted lead" });
  #choice = el("select", { id: "compare-with" });
  #rollback = el(
    "button",
    { type: "button", class: "danger", hidden: true, onclick: () => this.#askRollback() },
    "Roll back to this",
  );
  #problem = el("p", { class: "problem", role: "alert" });
  #text = el("div", { class: "code scroll", tabindex: "0", role: "region", "aria-label": "Manifest" });
  #list = el("ol", { class: "revisions" });

  constructor(after, before, signal) {
    this.#after = after;
    this.#before = before;
    this.#signal = signal;
    this.#choice.addEventListener("change", () => this.#compare());
    this.elements = [
      el(
        "div",
        { class: "head" },
        el("div", {}, this.#heading, this.#lead),
        el(
          "div",
          { class: "row" },
          el("label", { for: "compare-with" }, "Compared with"),
          this.#choice,
          this.#rollback,
        ),
      ),
      this.#problem,
      el(
        "div",
        { class: "manifest" },
        section("history", "History", { class: "card" }, this.#list),
        section("text", "As applied", { class: "card" }, this.#text),
      ),
    ];
  }

  async load() {
    try {
      this.#revisions = await get("/history", this.#signal);
      if (this.#revisions.length === 0) return this.#sayThereIsNone();
      const shown = this.#after ?? this.#revisions[0].revision;
      this.#drawHistory(shown);
      const isDiff = this.#before !== null;
      this.elements.at(-1).querySelector("#text-heading").textContent = isDiff
        ? `What changed from revision ${this.#before} to ${shown}`
        : "As applied";
      if (isDiff) this.#drawDiff(await get(`/history/${this.#before}/diff/${shown}`, this.#signal));
      else this.#drawText(await get(`/history/${shown}`, this.#signal));
    } catch (error) {
      if (!this.#signal.aborted) setText(this.#problem, error.message);
    }
  }

  #sayThereIsNone() {
    this.#text.replaceChildren(el("p", { class: "hint" }, "Nothing has been applied yet: `modelfleet apply` does."));
  }

  #drawHistory(shown) {
    const found = this.#revisions.find(({ revision }) => revision === shown);
    setText(this.#heading, `Revision ${shown}`);
    const when = found ? `, ${found.kind} ${ago(found.at).text}` : "";
    setText(this.#lead, found ? `${found.current ? "In force" : "Not in force"}${when}: ${found.summary}` : "");
    this.#rollback.hidden = !found || found.current;
    this.#choice.replaceChildren(
      el("option", { value: "" }, "nothing"),
      ...this.#revisions
        .filter(({ revision }) => revision !== shown)
        .map(({ revision, kind, at }) =>
          el("option", { value: revision }, `revision ${revision} (${kind} ${ago(at).text})`),
        ),
    );
    this.#choice.value = this.#before ?? "";
    this.#list.replaceChildren(...this.#revisions.map((each) => revisionItem(each, each.revision === shown)));
  }

  #drawText({ manifest }) {
    const lines = manifest.replace(/\n$/, "").split("\n");
    this.#text.replaceChildren(
      el(
        "pre",
        {},
        lines.map((line) => el("span", { class: "numbered" }, `${line}\n`)),
      ),
    );
  }

  #drawDiff({ lines }) {
    if (lines.length === 0)
      return this.#text.replaceChildren(el("p", { class: "hint" }, "The two manifests are the same."));
    this.#text.replaceChildren(
      el(
        "pre",
        {},
        lines.map((line) => el("span", { class: kindOfLine(line) }, `${line}\n`)),
      ),
    );
  }

  #compare() {
    const shown = this.#after ?? this.#revisions[0].revision;
    location.hash = this.#choice.value ? `#/manifest/${shown}/${this.#choice.value}` : `#/manifest/${shown}`;
  }

  async #askRollback() {
    const current = this.#revisions.find((each) => each.current).revision;
    try {
      const { lines } = await get(`/history/${current}/diff/${this.#after}`, this.#signal);
      const isSure = await confirm({
        heading: `Roll back to revision ${this.#after}?`,
        sentences: [
          `All models go back to how they were as revision ${this.#after}: versions, traffic, settings and files.`,
          "Replicas that are as wanted stay; others are replaced without losing a request. It becomes a new revision.",
          lines.length === 0 ? "The text of the two manifests is the same." : "In the manifest, this changes:",
        ],
        details:
          lines.length === 0
            ? null
            : el(
                "div",
                { class: "code scroll", tabindex: "0", role: "region", "aria-label": "What changes" },
                el(
                  "pre",
                  {},
                  lines.slice(0, MOST_LINES).map((line) => el("span", { class: kindOfLine(line) }, `${line}\n`)),
                  lines.length > MOST_LINES ? `… ${lines.length - MOST_LINES} more lines` : "",
                ),
              ),
        action: "Roll back",
        danger: true,
      });
      if (isSure !== null) await post("/rollback", { revision: this.#after }, this.#signal);
    } catch (error) {
      if (!this.#signal.aborted) setText(this.#problem, error.message);
    }
  }
}

function revisionItem({ revision, at, kind, state, summary, current }, isShown) {
  const when = el("time", { class: "muted", datetime: new Date(at * 1000).toISOString() });
  show(when, ago(at));
  return el(
    "li",
    {},
    el("a", { href: `#/manifest/${revision}`, "aria-current": isShown ? "true" : null }, `Revision ${revision}`),
    current ? el("strong", { class: "tag" }, "in force") : null,
    when,
    el(
      "p",
      { class: state === "failed" ? "bad" : "muted" },
      `${kind}${state === "succeeded" ? "" : `, ${state}`}: ${summary}`,
    ),
  );
}

function kindOfLine(line) {
  if (line.startsWith("+++") || line.startsWith("---") || line.startsWith("@@")) return "where";
  return { "+": "added", "-": "removed" }[line[0]] ?? "same";
}
