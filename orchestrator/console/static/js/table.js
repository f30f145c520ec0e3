// A long table of which only the rows in sight are in the document: a thousand models scroll as smoothly as ten.
//
// It scrolls with the page. The body is as high as all rows together; each row in sight lies at its place in it. A
// row element belongs to its key as long as it is in sight, so that focus and selection stay where they are while
// numbers change, and what changed is the only thing touched; then it is taken for another row. Rows say their place
// to screen readers by aria-rowindex. `make bench-console` measures it.

import { eachFrame, el, setAttribute } from "./dom.js";

// Rows beyond both edges, so that a quick flick or the Tab key finds the next one already there.
const SPARE = 6;
// Once a scroll has rested for so long, the document's order is made that of the table.
const REST_MS = 150;

/**
 * columns: [{ key, label, title, cell(), patch(cell, row), order(row), ascending, plain }]
 * `order` makes a column sortable; `ascending` is what its first click gives.
 */
export class LongTable {
  #columns;
  #shown = new Map(); // key -> { element, cells, row }
  #rows = [];
  #drawn = 0;
  #rest = null;
  #redraw = eachFrame(() => this.#draw());

  constructor(caption, columns, { onSort, signal }) {
    this.#columns = columns;
    this.head = el(
      "tr",
      { role: "row", "aria-rowindex": "1" },
      columns.map((column) => this.#header(column, onSort)),
    );
    this.body = el("tbody", { role: "rowgroup" });
    this.element = el(
      "table",
      { class: "long", role: "table", "aria-label": caption },
      el("thead", { role: "rowgroup" }, this.head),
      this.body,
    );
    addEventListener("scroll", this.#redraw, { passive: true, signal });
    addEventListener("resize", this.#redraw, { passive: true, signal });
  }

  /** Shows these rows, in this order; each has a `name`. `everything`: also what no row's change tells (curves). */
  show(rows, everything = false) {
    this.#rows = rows;
    if (everything) this.#drawn += 1;
    setAttribute(this.element, "aria-rowcount", String(rows.length + 1));
    this.#redraw();
  }

  /** Says at the headers how the rows are sorted. */
  markSort(key, isAscending) {
    this.#columns.forEach((column, index) => {
      if (!column.order) return;
      const sort = column.key === key ? (isAscending ? "ascending" : "descending") : "none";
      setAttribute(this.head.children[index], "aria-sort", sort);
    });
  }

  #header({ key, label, title = null, order }, onSort) {
    const inner = order
      ? el("button", { type: "button", title, onclick: () => onSort(key) }, label)
      : el("span", { title }, label);
    return el("th", { role: "columnheader", scope: "col", class: `c-${key}` }, inner);
  }

  #draw() {
    if (!this.element.isConnected) return;
    const height = this.#rowHeight();
    this.body.style.height = `${this.#rows.length * height}px`;
    const top = this.body.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / height) - SPARE);
    const last = Math.min(this.#rows.length, Math.ceil((innerHeight - top) / height) + SPARE);
    const wanted = new Map();
    for (let index = first; index < last; index += 1) wanted.set(this.#rows[index].name, index);
    this.#keepFocused(wanted);
    const free = this.#takeFree(wanted);
    for (const [key, index] of wanted) this.#place(key, index, height, free);
    for (const { element } of free) element.remove();
    clearTimeout(this.#rest);
    // Who goes by the Tab key needs the order now; a scroll is smoother without.
    if (this.body.contains(this.#focused())) this.#inOrder();
    else this.#rest = setTimeout(() => this.#inOrder(), REST_MS);
  }

  /** Those that went out of sight. A scroll that made new ones all the way would cost twice as much. */
  #takeFree(wanted) {
    const free = [];
    for (const [key, found] of this.#shown) {
      if (wanted.has(key)) continue;
      // The row in focus is gone from the table: the focus must not find itself on another model.
      if (found.element === this.#focused()) document.activeElement.blur();
      free.push(found);
      this.#shown.delete(key);
    }
    return free;
  }

  /** Who scrolls away from the row in focus finds it again with the next key. */
  #keepFocused(wanted) {
    for (const [key, found] of this.#shown) {
      if (wanted.has(key) || !found.element.contains(document.activeElement)) continue;
      const index = this.#rows.findIndex((row) => row.name === key);
      if (index >= 0) wanted.set(key, index);
    }
  }

  #place(key, index, height, free) {
    const row = this.#rows[index];
    const found = this.#shown.get(key) ?? free.pop() ?? this.#make();
    this.#shown.set(key, found);
    if (found.index !== index || found.height !== height) {
      found.element.style.top = `${index * height}px`;
      setAttribute(found.element, "aria-rowindex", String(index + 2));
      found.index = index;
      found.height = height;
    }
    if (found.row === row && found.drawn === this.#drawn) return;
    this.#columns.forEach((column, i) => column.patch(found.cells[i], row, found));
    found.row = row;
    found.drawn = this.#drawn;
  }

  #make() {
    const cells = this.#columns.map((column) => {
      const cell = el(column.key === "name" ? "th" : "td", {
        class: `c-${column.key}`,
        "data-label": column.label,
        role: column.key === "name" ? "rowheader" : "cell",
        scope: column.key === "name" ? "row" : null,
      });
      cell.append(...[column.cell?.() ?? []].flat());
      return cell;
    });
    const element = this.body.appendChild(el("tr", { role: "row" }, cells));
    return { element, cells, row: null };
  }

  /** The Tab key and screen readers go by the document's order. A row that is moved loses the focus: that one stays. */
  #inOrder() {
    const sorted = [...this.#shown.values()].sort((a, b) => a.index - b.index).map(({ element }) => element);
    const fixed = Math.max(0, sorted.indexOf(this.#focused()));
    for (let i = fixed - 1; i >= 0; i -= 1) {
      if (sorted[i].nextSibling !== sorted[i + 1]) this.body.insertBefore(sorted[i], sorted[i + 1]);
    }
    for (let i = fixed + 1; i < sorted.length; i += 1) {
      if (sorted[i - 1].nextSibling !== sorted[i]) sorted[i - 1].after(sorted[i]);
    }
  }

  #focused() {
    return document.activeElement?.closest("tr") ?? null;
  }

  /** The stylesheet decides: rows are higher where a narrow screen puts them on two lines. */
  #rowHeight() {
    return parseFloat(getComputedStyle(this.element).getPropertyValue("--row-height"));
  }
}
