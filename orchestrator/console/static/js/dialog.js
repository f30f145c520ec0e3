// Asks before something is changed, and says what will happen in whole sentences.

import { el } from "./dom.js";

/**
 * Whether the person said yes: what they wrote into the field ("" where there is none), or null for no. The element
 * that had the focus gets it back.
 */
export function confirm({ heading, sentences, details = null, field = null, action, danger = false }) {
  const before = document.activeElement;
  const input = field && el("input", { id: "dialog-field", maxlength: "500", autocomplete: "off" });
  const dialog = el(
    "dialog",
    { "aria-labelledby": "dialog-heading", "aria-describedby": "dialog-text" },
    el(
      "form",
      { method: "dialog" },
      el("h2", { id: "dialog-heading" }, heading),
      el(
        "div",
        { id: "dialog-text" },
        sentences.map((sentence) => el("p", {}, sentence)),
      ),
      details,
      input && el("div", { class: "field" }, el("label", { for: input.id }, field), input),
      el(
        "div",
        { class: "row end" },
        // The first button is what Enter in the field presses: there nobody means to call it off.
        input && el("button", { value: "yes", class: "unseen", tabindex: "-1", "aria-hidden": "true" }),
        el("button", { value: "no", autofocus: true }, "Cancel"),
        el("button", { value: "yes", class: danger ? "primary danger-fill" : "primary" }, action),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      before?.focus?.();
      resolve(dialog.returnValue === "yes" ? (input?.value.trim() ?? "") : null);
    });
  });
}
