// Asks before something is changed, and says what will happen in whole sentences.

import { el } from "./dom.js";

/** Whether the person said yes. The element that had the focus gets it back. */
export function confirm({ heading, sentences, details = null, action, danger = false }) {
  const before = document.activeElement;
  const dialog = el("dialog", { "aria-labelledby": "dialog-heading", "aria-describedby": "dialog-text" },
    el("form", { method: "dialog" },
      el("h2", { id: "dialog-heading" }, heading),
      el("div", { id: "dialog-text" }, sentences.map((sentence) => el("p", {}, sentence))),
      details,
      el("div", { class: "row end" },
        el("button", { value: "no", autofocus: true }, "Cancel"),
        el("button", { value: "yes", class: danger ? "primary danger-fill" : "primary" }, action))));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      before?.focus?.();
      resolve(dialog.returnValue === "yes");
    });
  });
}
