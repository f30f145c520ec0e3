// Signing in: by the link that `modelfleet console` prints, or with a code or the token pasted here.

import { session } from "./api.js";
import { el } from "./dom.js";

export function showSignIn(main, sentence, signal, then) {
  const input = el("input", {
    id: "token",
    name: "token",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "token-hint sign-in-problem",
  });
  const problem = el("p", { id: "sign-in-problem", class: "problem", role: "alert" }, sentence);
  const form = el(
    "form",
    { onsubmit: submit },
    el("label", { for: "token" }, "Or paste the token"),
    el("div", { class: "row" }, input, el("button", { type: "submit", class: "primary" }, "Sign in")),
    el(
      "p",
      { id: "token-hint", class: "hint" },
      "It is in the file ",
      el("code", {}, "token"),
      " in the state directory.",
    ),
  );
  main.replaceChildren(
    el(
      "div",
      { class: "sign-in" },
      el("h1", { tabindex: "-1" }, "Sign in"),
      el("p", {}, "On the machine that runs the control plane, type"),
      el("pre", { tabindex: "0", "aria-label": "Command" }, "modelfleet console"),
      el("p", {}, "and open the link that it prints. It works once, within ten minutes."),
      form,
      problem,
    ),
  );
  input.focus();

  async function submit(event) {
    event.preventDefault();
    try {
      await session.begin(credentials(input.value.trim()));
      if (!signal.aborted) await then();
    } catch (error) {
      problem.textContent = error.message;
      input.select();
    }
  }
}

/** Somebody may paste the whole link, or the code of it. */
function credentials(text) {
  const code = /#code=(.+)$/.exec(text)?.[1];
  return code ? { code: decodeURIComponent(code) } : { token: text };
}
