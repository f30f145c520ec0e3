// Where the console begins: signs in, follows the stream, and shows the view that the address names.
//
//   #/                      the fleet             fleet_view.js
//   #/models/NAME           a model               model_view.js
//   #/manifest[/B[/A]]      revision B, and what changed since A      manifest_view.js
//
// A view is a function (main, parts, signal) that fills `main` and answers the page's title. Everything that it listens
// to, asks or repeats ends with `signal`, which is aborted when another view comes.

import { session } from "./api.js";
import { live } from "./live.js";
import { el } from "./dom.js";
import * as shell from "./shell.js";
import { showFleet } from "./fleet_view.js";
import { showSignIn } from "./sign_in_view.js";

// The fleet is there at once; what draws charts is fetched when somebody looks at one.
const VIEWS = {
  "": async () => showFleet,
  models: async () => (await import("./model_view.js")).showModel,
  manifest: async () => (await import("./manifest_view.js")).showManifest,
};

const main = document.getElementById("main");
let opened = new AbortController();
let places = 0;

addEventListener("hashchange", navigate);
addEventListener("signed-out", () => signIn("The session has ended."));
shell.onSignOut(() => signIn("Signed out."));
begin();

async function begin() {
  const code = /^#code=(.+)$/.exec(location.hash)?.[1];
  // Out of the address at once, so that neither history nor a shared screen keeps it.
  if (code) history.replaceState(null, "", "#/");
  try {
    const found = code ? await session.begin({ code: decodeURIComponent(code) }) : await session.read();
    if (!found.signed_in) return signIn();
    await navigate();
  } catch (error) {
    signIn(error.message);
  }
}

async function navigate() {
  if (location.hash.startsWith("#code=")) return begin(); // a fresh link, opened where the console already is
  opened.abort();
  opened = new AbortController();
  const signal = opened.signal;
  const [page, ...parts] = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
  live.follow(page === "models" ? parts[0] : "");
  shell.showPages(page);
  try {
    const view = await (VIEWS[page] ?? VIEWS[""])();
    if (signal.aborted) return;
    main.replaceChildren();
    const title = view(main, parts, signal);
    document.title = `${title} – Modelfleet`;
    // Who came by a link or the back button hears where they are. At the first page nothing was left to come from.
    if (places++ > 0) {
      scrollTo(0, 0);
      main.querySelector("h1")?.focus({ preventScroll: true });
    }
  } catch (error) {
    main.replaceChildren(el("p", { class: "wait", role: "alert" }, `This page could not be loaded: ${error.message}`));
  }
}

function signIn(sentence = "") {
  live.stop();
  opened.abort();
  opened = new AbortController();
  shell.hidePages();
  document.title = "Sign in – Modelfleet";
  showSignIn(main, sentence, opened.signal, navigate);
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // an address that somebody broke names what it says
  }
}
