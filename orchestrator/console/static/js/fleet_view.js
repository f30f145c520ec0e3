// All models: totals in a line, and a table with the latency of each against its objective.

import { el, setText, show } from "./dom.js";
import * as format from "./format.js";
import { live } from "./live.js";
import { Curves, drawSparkline, sparkline } from "./sparkline.js";
import { LongTable } from "./table.js";
import { drawState, stateMark } from "./states.js";

// Rows that changed places each second could not be read. A new order comes this often, and not under pointer or focus.
const REORDER_MS = 5000;
const SORT_KEY = "modelfleet.sort";

const STATE_ORDER = ["failed", "starting", "updating", "stopping", "ready", "asleep"];

export function showFleet(main, _parts, signal) {
  const view = new FleetView(signal);
  main.append(...view.elements);
  view.draw();
  live.addEventListener("fleet", () => view.draw(), { signal });
  return "Fleet";
}

class FleetView {
  #filter = el("input", {
    type: "search",
    id: "filter",
    placeholder: "name, state:failed",
    autocomplete: "off",
    spellcheck: "false",
  });
  #count = el("span", { class: "muted", role: "status" });
  #totals = new Totals();
  #empty = el("div", { class: "empty", hidden: true });
  #curves;
  #table;
  #sort = readSort();
  #order = [];
  #orderedAt = 0;
  #drawnCurves = -1;

  constructor(signal) {
    this.#curves = new Curves(signal);
    this.#table = new LongTable("Models", columns(this.#curves), { onSort: (key) => this.#sortBy(key), signal });
    this.#table.markSort(this.#sort.key, this.#sort.isAscending);
    this.#filter.addEventListener("input", () => this.draw(true));
    addEventListener("keydown", (event) => this.#focusFilter(event), { signal });
    this.elements = [
      el("h1", { class: "unseen", tabindex: "-1" }, "Fleet"),
      this.#totals.element,
      el(
        "div",
        { class: "tools" },
        el("label", { for: "filter", class: "unseen" }, "Filter models"),
        this.#filter,
        this.#count,
      ),
      this.#table.element,
      this.#empty,
    ];
  }

  draw(isNewOrder = false) {
    if (!live.fleet) return;
    this.#totals.draw(live.fleet, live.rows.size);
    const rows = this.#inOrder(isNewOrder);
    this.#table.show(rows, this.#drawnCurves !== this.#curves.version);
    this.#drawnCurves = this.#curves.version;
    setText(this.#count, rows.length === live.rows.size ? "" : `${rows.length} of ${live.rows.size} models`);
    this.#showEmpty(rows.length);
  }

  #sortBy(key) {
    const column = columns(this.#curves).find((each) => each.key === key);
    const isAscending = this.#sort.key === key ? !this.#sort.isAscending : (column.ascending ?? false);
    this.#sort = { key, isAscending };
    keepSort(this.#sort);
    this.#table.markSort(key, isAscending);
    this.draw(true);
  }

  #inOrder(isNewOrder) {
    const isHeld = this.#table.body.matches(":hover") || this.#table.body.contains(document.activeElement);
    const isDue = Date.now() - this.#orderedAt > REORDER_MS && !isHeld;
    const names = matching(this.#filter.value);
    const isSame = names.length === this.#order.length && this.#order.every((name) => live.rows.has(name));
    if (isNewOrder || isDue || !isSame) {
      this.#order = sorted(names, this.#sort);
      this.#orderedAt = Date.now();
    }
    return this.#order.map((name) => live.rows.get(name));
  }

  #showEmpty(count) {
    this.#empty.hidden = count > 0;
    this.#table.element.hidden = count === 0;
    if (count > 0) return;
    if (live.rows.size > 0) this.#empty.replaceChildren(el("p", {}, "No model matches the filter."));
    else
      this.#empty.replaceChildren(
        el("p", {}, "No model is served yet. Write a manifest and apply it:"),
        el("pre", { tabindex: "0", "aria-label": "Commands" }, "modelfleet init\nmodelfleet apply"),
      );
  }

  #focusFilter(event) {
    const isTyping = event.target.matches?.("input, textarea, select");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.#filter.focus();
    }
  }
}

/** The line above the table. */
class Totals {
  #values = new Map();
  element = el("dl", { class: "totals", "aria-label": "All models together" });

  draw({ totals, revision, state }, models) {
    const { ready, desired, standby } = totals;
    this.#put("Cluster", { text: state, title: `revision ${revision} is in force` }, state === "degraded" ? "bad" : "");
    this.#put("Models", format.count(models));
    this.#put("Replicas", { text: `${ready}/${desired}`, title: `${ready} ready of ${desired} wanted` });
    this.#put("Standby", format.count(standby));
    this.#put("Requests", format.rate(totals.rate_per_s));
    this.#put("Errors", format.percent(totals.error_ratio), totals.error_ratio > 0.01 ? "bad" : "");
    this.#put("Queued", format.count(totals.queued, "the gateway does not answer"));
    this.#put("Cost", format.cost(totals.cost_per_hour));
  }

  #put(name, value, kind = "") {
    let found = this.#values.get(name);
    if (!found) {
      found = el("dd");
      this.#values.set(name, found);
      this.element.append(el("div", {}, el("dt", {}, name), found));
    }
    show(found, value);
    found.classList.toggle("bad", kind === "bad");
  }
}

function columns(curves) {
  const latency = (key, label) => ({
    key,
    label,
    title: `${label} of the last ten seconds`,
    order: (row) => row[key],
    patch: (cell, row) => showLatency(cell, row, key),
  });
  return [
    {
      key: "name",
      label: "Model",
      ascending: true,
      order: (row) => row.name,
      cell: () => [el("a"), el("span", { class: "reason" })],
      patch: showName,
    },
    {
      key: "state",
      label: "State",
      ascending: true,
      order: (row) => STATE_ORDER.indexOf(row.state),
      cell: stateMark,
      patch: (cell, row) => drawState(cell.firstChild, row.state, row),
    },
    {
      key: "replicas",
      label: "Replicas",
      title: "ready of wanted, and standby",
      order: (row) => row.ready,
      cell: () => [el("span"), el("span", { class: "muted" })],
      patch: showReplicas,
    },
    {
      key: "rate_per_s",
      label: "Requests",
      title: "requests per second, over the last ten",
      order: (row) => row.rate_per_s,
      patch: (cell, row) => show(cell, format.rate(row.rate_per_s)),
    },
    curve("rate_curve", "Rate lately", curves, "rate_per_s"),
    {
      key: "error_ratio",
      label: "Errors",
      title: "share of failed requests, over the last ten seconds",
      order: (row) => row.error_ratio,
      patch: showErrors,
    },
    latency("p50_ms", "p50"),
    latency("p95_ms", "p95"),
    latency("p99_ms", "p99"),
    { key: "slo", label: "Objective", order: (row) => row.slo_ms, patch: showObjective },
    curve("latency_curve", "p95 lately", curves, "p95_ms"),
    {
      key: "queued",
      label: "Queued",
      order: (row) => row.queued,
      patch: (cell, row) => show(cell, format.count(row.queued, "the gateway does not answer")),
    },
    {
      key: "cost",
      label: "Cost",
      title: "what runs now costs, per hour",
      order: (row) => row.cost_per_hour,
      patch: (cell, row) => show(cell, format.cost(row.cost_per_hour)),
    },
  ];
}

const curve = (key, label, curves, kind) => ({
  key,
  label,
  title: "the last fifteen minutes, or as long as it is known",
  cell: sparkline,
  patch: (cell, row) => drawSparkline(cell.firstChild, [...curves.of(row.name, kind), row[kind]]),
});

function showName(cell, row) {
  const [link, reason] = cell.children;
  if (link.textContent !== row.name) {
    link.textContent = row.name;
    link.href = `#/models/${encodeURIComponent(row.name)}`;
  }
  show(reason, { text: row.reason, title: row.reason || null });
}

function showReplicas(cell, row) {
  const [awake, standby] = cell.children;
  show(awake, { text: `${row.ready}/${row.desired}`, title: `${row.ready} ready of ${row.desired} wanted` });
  show(standby, {
    text: row.standby ? ` +${row.standby}` : "",
    title: row.standby ? `${row.standby} in standby: loaded and paused` : null,
  });
  awake.classList.toggle("warn", row.ready < row.desired);
}

function showErrors(cell, row) {
  show(cell, format.percent(row.error_ratio));
  cell.classList.toggle("bad", row.error_ratio > 0.01);
}

/** The percentile that the objective names is marked where it is above it: by words and weight, not by colour alone. */
function showLatency(cell, row, key) {
  const shown = format.milliseconds(row[key]);
  const isJudged = row.slo_ms !== null && key === `p${row.slo_percentile}_ms` && row[key] !== null;
  const isLate = isJudged && row[key] > row.slo_ms;
  show(cell, isLate ? { ...shown, title: `${shown.title}: above the objective of ${row.slo_ms} ms` } : shown);
  cell.classList.toggle("bad", isLate);
}

function showObjective(cell, row) {
  if (row.slo_ms === null) return show(cell, format.unknown("the manifest has no `slo` for it"));
  const { text } = format.milliseconds(row.slo_ms);
  show(cell, {
    text: `p${row.slo_percentile} ${text}`,
    title: `${row.slo_percentile} % of the requests within ${row.slo_ms} ms`,
  });
}

/** Names whose row matches every word of the filter; `state:failed` asks for a state. */
function matching(filter) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (row) =>
    words.every((word) =>
      word.startsWith("state:") ? row.state.startsWith(word.slice(6)) : row.name.toLowerCase().includes(word),
    );
  return [...live.rows.values()].filter(matches).map((row) => row.name);
}

/** What is unknown comes last, whichever way; equal rows by name. */
function sorted(names, { key, isAscending }) {
  const order = columns(null).find((column) => column.key === key)?.order ?? ((row) => row.name);
  const sign = isAscending ? 1 : -1;
  const keyed = names.map((name) => [order(live.rows.get(name)), name]);
  keyed.sort(([a, nameA], [b, nameB]) => {
    if ((a === null) !== (b === null)) return a === null ? 1 : -1;
    const byValue = typeof a === "string" ? compareNames(a, b) : a - b;
    return byValue ? sign * byValue : compareNames(nameA, nameB);
  });
  return keyed.map(([, name]) => name);
}

// Made once: localeCompare would make one for each of ten thousand comparisons. "model-9" comes before "model-10".
const { compare: compareNames } = new Intl.Collator("en", { numeric: true });

function readSort() {
  try {
    const { key, isAscending } = JSON.parse(sessionStorage.getItem(SORT_KEY));
    return { key, isAscending };
  } catch {
    return { key: "name", isAscending: true };
  }
}

function keepSort(sort) {
  try {
    sessionStorage.setItem(SORT_KEY, JSON.stringify(sort));
  } catch {
    // storage is switched off: the order lasts as long as the view
  }
}
