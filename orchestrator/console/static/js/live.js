// What the control plane streams: the fleet, the model that is looked at, and what happens. It keeps the last of all
// of it, so that the page goes on showing it, marked as old, while the stream is lost.
//
// Events: `fleet` (rows, totals), `model`, `journal` (detail: the event), `connection` (`connected` changed), `rest`
// and `wake`: a tab that nobody sees lets go of what it follows, for a browser has six connections to a server in all.

import { session } from "./api.js";

// The stream says something each second. So long a silence is a connection that nobody told us has ended.
const SILENCE_MS = 6000;
// The browser connects again by itself until the server refuses; then we do.
const RETRY_MS = 2000;
// Who only looks something up in another tab finds the page as it was.
const REST_MS = 5000;

class Live extends EventTarget {
  rows = new Map();
  fleet = null;
  model = null;
  connected = null; // null: never yet
  isResting = false;
  #source = null;
  #name = "";
  #heardAt = 0;
  #timers = [];
  #hidden = null;

  constructor() {
    super();
    document.addEventListener("visibilitychange", () => this.#see());
  }

  /** Follows the fleet, and one model's versions and replicas if it is named. */
  follow(name = "") {
    if (this.#source && this.#name === name) return;
    if (this.#name !== name) this.model = null;
    this.#name = name;
    this.#connect();
    if (this.#timers.length === 0) this.#timers = [setInterval(() => this.#watch(), 1000)];
  }

  stop() {
    this.isResting = false;
    this.#source?.close();
    this.#source = null;
    this.#timers.forEach(clearInterval);
    this.#timers = [];
  }

  #see() {
    clearTimeout(this.#hidden);
    if (document.hidden) this.#hidden = setTimeout(() => this.#rest(), REST_MS);
    else if (this.isResting) this.#wake();
  }

  #rest() {
    if (!this.#source) return; // nobody is signed in
    this.isResting = true;
    this.#source.close();
    this.dispatchEvent(new Event("rest"));
  }

  #wake() {
    this.isResting = false;
    this.#heardAt = Date.now();
    this.#connect();
    this.dispatchEvent(new Event("wake"));
  }

  /** Seconds since the control plane was last heard. */
  get age() {
    return (Date.now() - this.#heardAt) / 1000;
  }

  #connect() {
    this.#source?.close();
    const query = this.#name ? `?model=${encodeURIComponent(this.#name)}` : "";
    const source = new EventSource(`/api/v1/stream${query}`);
    source.addEventListener("fleet", (event) => this.#hear(() => this.#takeFleet(JSON.parse(event.data))));
    source.addEventListener("model", (event) => this.#hear(() => this.#takeModel(JSON.parse(event.data))));
    source.addEventListener("journal", (event) => this.#hear(() => this.#takeJournal(JSON.parse(event.data))));
    source.addEventListener("open", () => this.#hear(() => {}));
    source.addEventListener("error", () => this.#lose(source));
    this.#source = source;
  }

  #hear(take) {
    this.#heardAt = Date.now();
    this.#setConnected(true);
    take();
  }

  #takeFleet(update) {
    if (update.whole) this.rows.clear();
    for (const row of update.models) this.rows.set(row.name, row);
    for (const name of update.gone) this.rows.delete(name);
    this.fleet = update;
    this.dispatchEvent(new Event("fleet"));
  }

  #takeModel(update) {
    if (update.name !== this.#name) return;
    this.model = update;
    this.dispatchEvent(new Event("model"));
  }

  #takeJournal(event) {
    this.dispatchEvent(new CustomEvent("journal", { detail: event }));
  }

  #lose(source) {
    if (source !== this.#source) return;
    this.#setConnected(false);
    if (source.readyState === EventSource.CLOSED) setTimeout(() => this.#reconnect(source), RETRY_MS);
  }

  /** A refused stream is a session that ended, or a server that is not there: asking says which. */
  async #reconnect(source) {
    if (source !== this.#source) return;
    try {
      const { signed_in: signedIn } = await session.read();
      if (!signedIn) return dispatchEvent(new Event("signed-out"));
    } catch {
      // away: as before
    }
    if (source === this.#source) this.#connect();
  }

  #watch() {
    if (this.connected && !this.isResting && Date.now() - this.#heardAt > SILENCE_MS) {
      this.#setConnected(false);
      this.#connect();
    }
  }

  #setConnected(connected) {
    if (this.connected === connected) return;
    this.connected = connected;
    this.dispatchEvent(new Event("connection"));
  }
}

export const live = new Live();
