// What is around every view: the cluster's name, the pages, the colour scheme, whether the numbers are fresh, and
// what the cluster is busy with. It is the one that speaks to screen readers, and it does so when something happened,
// not each second.

import { session } from "./api.js";
import { live } from "./live.js";
import { el, setAttribute, setText } from "./dom.js";
import { ago, duration } from "./format.js";

const at = (id) => document.getElementById(id);
const [cluster, pages, pulse, banner, operation, announcer] = [
  "cluster",
  "pages",
  "pulse",
  "banner",
  "operation",
  "announcer",
].map(at);
// How long an operation that ended stays on the page.
const ENDED_S = 15;
// A reconnection that is quicker than this is nobody's business.
const PATIENCE_MS = 1500;

let lostTimer = null;
let announced = "";

/** Says a sentence to screen readers, once. */
export function announce(sentence) {
  if (sentence === announced) return;
  announced = sentence;
  announcer.textContent = sentence;
}

export function showPages(page) {
  pages.hidden = at("sign-out").hidden = pulse.hidden = false;
  for (const link of pages.querySelectorAll("a")) {
    const isCurrent = link.hash === `#/${page === "manifest" ? page : ""}`;
    setAttribute(link, "aria-current", isCurrent ? (page === "models" ? "true" : "page") : null);
  }
}

export function hidePages() {
  pages.hidden = at("sign-out").hidden = pulse.hidden = banner.hidden = operation.hidden = true;
  setText(cluster, "");
  delete document.documentElement.dataset.old;
}

export function onSignOut(then) {
  at("sign-out").addEventListener("click", async () => {
    await session.end().catch(() => {}); // away: the cookie is of no use to anybody else meanwhile
    then();
  });
}

live.addEventListener("connection", () => {
  clearTimeout(lostTimer);
  if (live.connected) showFound();
  else lostTimer = setTimeout(showLost, PATIENCE_MS);
});

live.addEventListener("fleet", () => {
  const fleet = live.fleet;
  setText(cluster, fleet.cluster);
  setText(pulse, "live");
  setAttribute(
    pulse,
    "title",
    `revision ${fleet.revision}, ${fleet.engine} engine; numbers of the last ten seconds, each second`,
  );
  showOperation(fleet.operation);
  showTrouble(fleet);
});

live.addEventListener("journal", ({ detail }) => {
  if (detail.level !== "info") announce(`${detail.level}: ${detail.message}`);
});

setInterval(() => {
  if (live.connected === false && !banner.hidden && banner.dataset.kind === "lost") showLost();
}, 1000);

function showLost() {
  if (live.connected !== false || pages.hidden) return;
  document.documentElement.dataset.old = "";
  const age = live.fleet ? ` The numbers below are ${duration(live.age).text} old.` : "";
  showBanner("lost", `The control plane does not answer.${age} The gateway goes on serving; trying again…`);
  setText(pulse, "lost");
  announce("The connection to the control plane is lost. Numbers are old.");
}

function showFound() {
  const wasLost = "old" in document.documentElement.dataset;
  delete document.documentElement.dataset.old;
  if (!wasLost) return;
  banner.hidden = true;
  announce("The control plane is back. Numbers are fresh.");
}

/** What is wrong with the cluster's own parts, for that explains everything else. */
function showTrouble(fleet) {
  if (fleet.engine_error) showBanner("trouble", `The ${fleet.engine} engine: ${fleet.engine_error}`);
  else if (!fleet.gateway.ready)
    showBanner("trouble", `The gateway is not ready${fleet.gateway.error ? `: ${fleet.gateway.error}` : "."}`);
  else if (!banner.hidden && live.connected) banner.hidden = true;
}

function showBanner(kind, sentence) {
  banner.dataset.kind = kind;
  banner.hidden = false;
  setText(banner, sentence);
}

function showOperation(found) {
  const ended = found?.ended_at ?? null;
  const isOver = !found || (ended !== null && Date.now() / 1000 - ended > ENDED_S);
  operation.hidden = isOver;
  if (isOver) return;
  const what = `${found.kind}${found.revision ? ` to revision ${found.revision}` : ""}`;
  const sentence = found.error || found.step;
  operation.dataset.state = found.state;
  if (operation.dataset.shown !== `${found.id} ${found.state} ${sentence}`) {
    operation.dataset.shown = `${found.id} ${found.state} ${sentence}`;
    const when = ended === null ? "" : ago(ended).text;
    operation.replaceChildren(
      el("strong", {}, `${what}: ${found.state}`),
      el("span", {}, sentence),
      el("span", { class: "muted" }, when),
    );
    if (ended !== null || found.state === "converging") announce(`${what}: ${found.state}. ${found.error}`);
  }
}

// The address belongs to the views: a link to the content must not change it.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  at("main").focus();
});

const scheme = at("scheme");
const showScheme = () => {
  setText(scheme, { system: "Auto", light: "Light", dark: "Dark" }[globalThis.modelfleetScheme.name]);
  setAttribute(scheme, "aria-label", `Colour scheme: ${scheme.textContent}. Change it`);
};
scheme.addEventListener("click", () => globalThis.modelfleetScheme.next());
addEventListener("scheme", showScheme);
showScheme();
