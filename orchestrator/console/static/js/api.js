// Requests to the control plane. The browser sends the session's cookie by itself; the header says that a page of the
// console asks, which a page from elsewhere cannot send along.

const OURS = { "x-modelfleet-console": "1" };
const SESSION = "/api/v1/console/session";

/** An answer that is not the one wanted. `message` is the control plane's own sentence. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body?.error ?? `the control plane answered ${status}`);
    this.status = status;
    this.diagnostics = body?.diagnostics ?? [];
  }
}

/** Nobody answers: the control plane is away, or the way to it. */
export class AwayError extends Error {
  constructor(cause) {
    super("the control plane does not answer; `modelfleet up` starts it", { cause });
  }
}

export const get = (path, signal) => ask("GET", `/api/v1${path}`, undefined, signal);
export const post = (path, body = {}, signal) => ask("POST", `/api/v1${path}`, body, signal);

/** A body that is read as it comes (log lines). */
export const open = (path, signal) => send("GET", `/api/v1${path}`, undefined, signal);

export const session = {
  read: () => ask("GET", SESSION),
  begin: (credentials) => ask("POST", SESSION, credentials),
  end: () => ask("DELETE", SESSION),
};

async function ask(method, path, body, signal) {
  const answer = await send(method, path, body, signal);
  return answer.status === 204 ? null : answer.json();
}

async function send(method, path, body, signal) {
  const options = { method, signal, headers: { ...OURS }, cache: "no-store" };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new AwayError(error);
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  if (answer.status === 401 && path !== SESSION) dispatchEvent(new Event("signed-out"));
  throw new ApiError(answer.status, said);
}
