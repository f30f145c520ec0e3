// Numbers and times in words, as people read them: with their unit, as many digits as matter, and never a made-up
// zero.
//
// Each function answers {text, title}: the title has the exact value or, where there is none, why there is none.

export const DASH = "–";

/** What is not known: a dash, and the reason. */
export const unknown = (why) => ({ text: DASH, title: why });

export function count(value, why = "not known") {
  return isKnown(value) ? { text: grouped(value, 0) } : unknown(why);
}

export function rate(value, why = "the gateway has not counted for long enough yet") {
  if (!isKnown(value)) return unknown(why);
  return { text: `${significant(value)}/s`, title: `${value.toFixed(3)} requests per second` };
}

export function milliseconds(value, why = "no request was answered lately") {
  if (!isKnown(value)) return unknown(why);
  const title = `${value.toFixed(2)} ms`;
  if (value >= 10_000) return { text: `${(value / 1000).toFixed(1)} s`, title };
  if (value >= 1000) return { text: `${(value / 1000).toFixed(2)} s`, title };
  return { text: `${value === 0 ? "0" : value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`, title };
}

export function percent(ratio, why = "no request was answered lately") {
  if (!isKnown(ratio)) return unknown(why);
  const value = ratio * 100;
  const title = `${value.toFixed(3)} %`;
  if (value > 0 && value < 0.1) return { text: "<0.1 %", title };
  return { text: `${value === 0 ? "0" : value < 10 ? value.toFixed(1) : value.toFixed(0)} %`, title };
}

export function bytes(value, why = "the engine does not say") {
  if (!isKnown(value)) return unknown(why);
  const title = `${grouped(value, 0)} bytes`;
  for (const [size, unit] of [
    [2 ** 30, "GiB"],
    [2 ** 20, "MiB"],
    [2 ** 10, "KiB"],
  ]) {
    if (value >= size) return { text: `${significant(value / size)} ${unit}`, title };
  }
  return { text: `${value} B`, title };
}

export function cost(value, why = "the manifest has no `pricing`") {
  if (!isKnown(value)) return unknown(why);
  const text = value === 0 ? "0" : value < 0.01 ? value.toPrecision(2) : grouped(value, 2);
  return { text: `${text}/h`, title: `${value} per hour, in the currency of the manifest's \`pricing\`` };
}

/** How long something takes or took: 0.4 s, 12 s, 3 min, 5 h, 2 d. */
export function duration(seconds, why = "not known") {
  if (!isKnown(seconds)) return unknown(why);
  const s = Math.max(0, seconds);
  if (s < 10) return { text: `${s.toFixed(1)} s` };
  if (s < 100) return { text: `${s.toFixed(0)} s` };
  if (s < 5400) return { text: `${Math.round(s / 60)} min` };
  if (s < 129_600) return { text: `${Math.round(s / 3600)} h` };
  return { text: `${Math.round(s / 86_400)} d` };
}

/** A moment (seconds since the epoch) as people say it, with the whole of it in the title. */
export function ago(at, now = Date.now() / 1000) {
  if (!isKnown(at)) return unknown("not known");
  const past = now - at;
  const title = moment(at);
  if (past < 5) return { text: "just now", title };
  return { text: `${duration(Math.max(10, past)).text} ago`, title };
}

export function moment(at) {
  return new Date(at * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** Hours, minutes and seconds of a moment. */
export function clock(at) {
  const date = new Date(at * 1000);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((n) => String(n).padStart(2, "0")).join(":");
}

/** "1 replica", "2 replicas". */
export function plural(number, noun) {
  return `${grouped(number, 0)} ${noun}${number === 1 ? "" : "s"}`;
}

export function isKnown(value) {
  return typeof value === "number" && Number.isFinite(value);
}

function significant(value) {
  if (value === 0) return "0";
  if (value < 10) return value.toFixed(1);
  return grouped(value, 0);
}

function grouped(value, digits) {
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
