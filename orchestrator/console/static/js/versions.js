// What serves a model: a bar of how its traffic is split, and its versions side by side.

import { el, section, setText, show } from "./dom.js";
import * as format from "./format.js";
import { drawState, stateMark } from "./states.js";

const ENGINE_WHY = "the engine has not said yet";

const COLUMNS = [
  ["Version", "", (cell, { version }, labels) => showVersion(cell, version, labels)],
  [
    "Traffic",
    "percent of the requests that name no version, as routed now",
    (cell, row) => show(cell, { text: `${row.weight} %` }),
  ],
  ["State", "", (cell, row) => drawState(cell.firstChild, row.state, row)],
  [
    "Replicas",
    "ready of wanted, and standby",
    (cell, row) => show(cell, { text: `${row.ready}/${row.desired}${row.standby ? ` +${row.standby}` : ""}` }),
  ],
  ["Requests", "", (cell, row) => show(cell, format.rate(row.rate_per_s))],
  ["Errors", "", (cell, row) => show(cell, format.percent(row.error_ratio))],
  ["p50", "", (cell, row) => show(cell, format.milliseconds(row.p50_ms))],
  ["p95", "", (cell, row, _labels, model) => showJudged(cell, row, "p95_ms", model)],
  ["p99", "", (cell, row, _labels, model) => showJudged(cell, row, "p99_ms", model)],
  ["Queue p95", "what requests waited for a replica", (cell, row) => show(cell, waited(row.queue_p95_ms))],
  ["Model p95", "what replicas took", (cell, row) => show(cell, format.milliseconds(row.model_p95_ms))],
  ["CPU", "of the limit, on average over the replicas", (cell, row) => show(cell, cpu(row.replicas))],
  ["Memory", "the most of one replica, and its limit", (cell, row) => show(cell, memory(row.replicas))],
  ["Cost", "of what runs now", (cell, row) => show(cell, format.cost(row.cost_per_hour))],
];

export class VersionTable {
  #split = el("div", { class: "split", role: "img" });
  #rows = new Map();
  #body = el("tbody", { role: "rowgroup" });
  #labels = {};
  #drawn = null; // what was drawn last

  constructor() {
    const head = el("tr", { role: "row" }, COLUMNS.map(headCell));
    this.element = section(
      "versions",
      "Traffic and versions",
      { class: "card" },
      this.#split,
      el(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": "Versions" },
        el("table", { class: "plain stack", role: "table" }, el("thead", { role: "rowgroup" }, head), this.#body),
      ),
    );
  }

  /** labels: { stable: "1" } */
  name(labels) {
    this.#labels = labels;
    if (this.#drawn) this.draw(...this.#drawn);
  }

  draw(model, fleetRow) {
    this.#drawn = [model, fleetRow];
    this.#drawSplit(model.versions);
    const known = new Set(model.versions.map(({ version }) => version));
    for (const [version, row] of this.#rows) {
      if (known.has(version)) continue;
      row.remove();
      this.#rows.delete(version);
    }
    for (const row of model.versions) this.#drawRow(row, fleetRow);
  }

  #drawRow(row, fleetRow) {
    let found = this.#rows.get(row.version);
    if (!found) {
      found = el("tr", { role: "row" }, COLUMNS.map(makeCell));
      this.#rows.set(row.version, found);
      this.#body.append(found);
    }
    COLUMNS.forEach(([, , patch], index) => patch(found.children[index], row, this.#labels, fleetRow));
  }

  #drawSplit(versions) {
    const shares = versions.filter(({ weight }) => weight > 0);
    while (this.#split.children.length > shares.length) this.#split.lastChild.remove();
    shares.forEach((row, index) => {
      const part = this.#split.children[index] ?? this.#split.appendChild(el("span"));
      part.className = `share share-${(index % 4) + 1}`;
      part.style.flexGrow = row.weight;
      setText(part, row.weight >= 8 ? `${this.#called(row.version)} ${row.weight} %` : "");
      part.title = `${this.#called(row.version)}: ${row.weight} %, ${format.rate(row.rate_per_s).text}`;
    });
    this.#split.setAttribute(
      "aria-label",
      shares.length === 0
        ? "No version gets traffic by default"
        : `Traffic: ${shares.map((row) => `${this.#called(row.version)} ${row.weight} percent`).join(", ")}`,
    );
    this.#split.hidden = shares.length === 0;
  }

  #called(version) {
    const labels = labelsOf(version, this.#labels);
    return labels.length > 0 ? `${version} (${labels.join(", ")})` : version;
  }
}

// The roles say what the stylesheet takes away where it makes a block of each row, on a narrow screen.
function headCell([label, title]) {
  const kind = label === "State" ? "c-state" : null;
  return el("th", { role: "columnheader", scope: "col", class: kind, title: title || null }, label);
}

function makeCell([label]) {
  if (label === "Version") return el("th", { role: "rowheader", scope: "row" });
  const isState = label === "State";
  const attributes = { role: "cell", class: isState ? "c-state" : null, "data-label": label };
  return el("td", attributes, isState ? stateMark() : null);
}

const labelsOf = (version, labels) =>
  Object.entries(labels)
    .filter(([, named]) => named === version)
    .map(([label]) => label);

function showVersion(cell, version, labels) {
  const named = labelsOf(version, labels);
  setText(cell, named.length > 0 ? `${version}  ${named.join(", ")}` : version);
}

function showJudged(cell, row, key, model) {
  const isLate = model?.slo_ms != null && key === `p${model.slo_percentile}_ms` && row[key] > model.slo_ms;
  const shown = format.milliseconds(row[key]);
  show(cell, isLate ? { ...shown, title: `${shown.title}: above the objective of ${model.slo_ms} ms` } : shown);
  cell.classList.toggle("bad", isLate);
}

/** Hundredths of a millisecond are what a request takes to find a free replica: nobody waited. */
function waited(value) {
  if (format.isKnown(value) && value < 0.05) return { text: "0 ms", title: `${value.toFixed(2)} ms` };
  return format.milliseconds(value, "no request was answered lately, or nobody looked for ten seconds yet");
}

function cpu(replicas) {
  const known = replicas.map((replica) => replica.cpu_ratio).filter(format.isKnown);
  if (known.length === 0) return format.unknown(ENGINE_WHY);
  return format.percent(known.reduce((sum, each) => sum + each, 0) / known.length);
}

function memory(replicas) {
  const known = replicas.filter((replica) => format.isKnown(replica.memory_bytes));
  if (known.length === 0) return format.unknown(ENGINE_WHY);
  const most = known.reduce((a, b) => (b.memory_bytes > a.memory_bytes ? b : a));
  const limit = format.isKnown(most.memory_limit_bytes) ? ` of ${format.bytes(most.memory_limit_bytes).text}` : "";
  return { text: `${format.bytes(most.memory_bytes).text}${limit}`, title: `replica ${most.id}` };
}
