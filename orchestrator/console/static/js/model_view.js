// One model: its latency against the objective, where its traffic goes, what runs, what happened and why, and a way
// to try it. Each part is a module of its own; this one puts them on the page and gives each what the stream brings.

import { get } from "./api.js";
import { Chart } from "./chart.js";
import { el, setText, show } from "./dom.js";
import { EventList } from "./events.js";
import * as format from "./format.js";
import { live } from "./live.js";
import { LogTail } from "./logs.js";
import { ModelCurves, SPAN_S } from "./model_curves.js";
import { RolloutButtons } from "./rollout.js";
import { drawState, stateMark } from "./states.js";
import { Timeline } from "./timeline.js";
import { TryForm } from "./try_form.js";
import { VersionTable } from "./versions.js";

export function showModel(main, [name], signal) {
  const view = new ModelView(name, signal);
  main.append(...view.elements);
  view.begin();
  return name;
}

class ModelView {
  #name;
  #signal;
  #state = stateMark();
  #reason = el("p", { class: "muted lead" });
  #facts = el("dl", { class: "totals" });
  #choice = el("select", { id: "curves-of" }, el("option", { value: "" }, "all versions"));
  #missing = el("p", { class: "wait", role: "alert", hidden: true });
  #body = el("div", { class: "model" });

  constructor(name, signal) {
    this.#name = name;
    this.#signal = signal;
    this.curves = new ModelCurves(name);
    this.latency = new Chart("latency", "Latency", {
      signal,
      spanS: SPAN_S,
      format: format.milliseconds,
      series: [
        { label: "p50", color: "share-3" },
        { label: "p95", color: "share-1", width: 2.25 },
        { label: "p99", color: "share-2", dash: [2, 3] },
        { label: "objective", color: "bad", width: 1.25, dash: [7, 5] },
      ],
    });
    this.requests = new Chart("requests", "Requests", {
      signal,
      spanS: SPAN_S,
      format: format.rate,
      series: [
        { label: "requests", color: "share-1", width: 2 },
        { label: "failed", color: "bad", width: 1.5, dash: [4, 3] },
      ],
    });
    this.rollout = new RolloutButtons(name, signal);
    this.versions = new VersionTable();
    this.timeline = new Timeline(name, signal);
    this.events = new EventList(name, signal);
    this.logs = new LogTail(name, signal);
    this.tryForm = new TryForm(name, signal);
    this.elements = [this.#head(), this.#missing, this.#body];
    this.#body.append(
      el("div", { class: "tools" }, el("label", { for: "curves-of" }, "Curves of"), this.#choice),
      el("div", { class: "pair" }, this.latency.element, this.requests.element),
      this.versions.element,
      this.timeline.element,
      el("div", { class: "pair" }, this.events.element, this.tryForm.element),
      this.logs.element,
    );
  }

  begin() {
    const signal = this.#signal;
    live.addEventListener("fleet", () => this.#drawFleet(), { signal });
    live.addEventListener("model", () => this.#drawModel(), { signal });
    this.#choice.addEventListener("change", () => this.#drawCurves());
    // What was missed meanwhile, the control plane kept.
    live.addEventListener("wake", () => this.curves.load(signal).catch(() => {}), { signal });
    this.curves.load(signal).then(
      () => this.#drawCurves(),
      () => {},
    ); // the stream fills them all the same
    get(`/models/${encodeURIComponent(this.#name)}`, signal).then(
      (found) => this.versions.name(found.model.labels),
      () => {},
    );
    if (live.fleet) this.#drawFleet();
    if (live.model) this.#drawModel();
  }

  #head() {
    return el(
      "div",
      { class: "head" },
      el(
        "div",
        {},
        el(
          "nav",
          { "aria-label": "Where this page is" },
          el("a", { href: "#/" }, "Fleet"),
          el("span", { "aria-hidden": "true" }, " / "),
        ),
        el("div", { class: "title" }, el("h1", { tabindex: "-1" }, this.#name), this.#state),
        this.#reason,
      ),
      this.#facts,
      this.rollout.element,
    );
  }

  #drawFleet() {
    const row = live.rows.get(this.#name);
    this.#missing.hidden = row !== undefined;
    this.#body.hidden = row === undefined;
    if (!row) {
      setText(this.#missing, `There is no model ${this.#name} now. The manifest, or its history, may say why.`);
      return;
    }
    drawState(this.#state, row.state, row);
    setText(this.#reason, row.reason);
    this.#drawFacts(row);
    this.rollout.draw(row, live.model);
    this.curves.add();
    this.#drawCurves();
    this.timeline.draw(live.fleet.at);
  }

  #drawModel() {
    this.versions.draw(live.model, live.rows.get(this.#name));
    this.timeline.take(live.model);
    this.rollout.draw(live.rows.get(this.#name), live.model);
    this.tryForm.offer(live.model.versions.map(({ version }) => version));
    this.logs.offer(live.model.versions.map(({ version }) => version));
    const offered = [...this.#choice.options].map((option) => option.value).filter(Boolean);
    for (const { version } of live.model.versions) {
      if (!offered.includes(version)) this.#choice.append(el("option", { value: version }, `version ${version}`));
    }
  }

  #drawFacts(row) {
    const facts = [
      [
        "Replicas",
        {
          text: `${row.ready}/${row.desired}${row.standby ? ` +${row.standby}` : ""}`,
          title: `${row.ready} ready of ${row.desired} wanted, ${row.standby} in standby`,
        },
      ],
      ["Requests", format.rate(row.rate_per_s)],
      ["Errors", format.percent(row.error_ratio)],
      ["In flight", format.count(row.in_flight, "the gateway does not answer")],
      ["Queued", format.count(row.queued, "the gateway does not answer")],
      ["Cost", format.cost(row.cost_per_hour)],
    ];
    if (this.#facts.children.length === 0)
      this.#facts.append(...facts.map(([name]) => el("div", {}, el("dt", {}, name), el("dd"))));
    facts.forEach(([, value], index) => show(this.#facts.children[index].lastChild, value));
  }

  #drawCurves() {
    const version = this.#choice.value;
    const { at } = this.curves;
    const objective = live.rows.get(this.#name)?.slo_ms ?? null;
    const of = (kind) => this.curves.of(version, kind);
    this.latency.show(at, [of("p50_ms"), of("p95_ms"), of("p99_ms"), at.map(() => objective)]);
    const [rates, errors] = [of("rate_per_s"), of("error_ratio")];
    this.requests.show(at, [rates, rates.map((rate, i) => failed(rate, errors[i]))]);
  }
}

/** Failed requests a second. Where none was answered, none failed, if it is known that none came. */
function failed(rate, ratio) {
  if (rate === null || rate === undefined) return null;
  if (ratio === null || ratio === undefined) return rate === 0 ? 0 : null;
  return rate * ratio;
}
