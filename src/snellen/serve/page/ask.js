// Talking to the server. XMLHttpRequest, since fetch does not say how much of a large picture has been sent.

const PATIENCE = 4; // times that a busy server is asked
const LONGEST_WAIT = 30; // seconds; a server that asks for more is not waited for

const TITLES = {
  0: "The server cannot be reached",
  400: "The server could not read this as a picture",
  401: "The server asks for another token",
  404: "The server does not have this model any more",
  413: "This picture is too large for this server",
  415: "This is no kind of picture that the server reads",
  422: "The server could not read this as a picture",
  429: "Too many pictures at once",
  503: "The server is busy",
};
const LOST = "It may have been stopped, the connection may be down, or the file could not be read. "
  + "Check both and try again.";

let token = sessionStorage.getItem("token") ?? "";

/** What a header cannot carry is no token of any server, and is sent as a wrong one. */
export function useToken(text) {
  token = text.trim().replace(/[^!-~]/gu, "?");
  sessionStorage.setItem("token", token);
}

export const hasToken = () => token !== "";

/**
 * Why there is no answer: a title, the server's own words, and the HTTP status (0: none came back).
 * `passes`: asking again may help.
 */
export class Trouble extends Error {
  constructor(status, detail, retryAfter = null) {
    detail = detail.charAt(0).toUpperCase() + detail.slice(1);
    const title = TITLES[status] ?? `The server answered with error ${status}`;
    super(detail ? `${title}. ${detail}` : `${title}.`);
    const passes = status === 0 || status === 401 || status === 429 || status >= 500;
    Object.assign(this, { status, title, detail, retryAfter, passes });
  }
}

export class Cancelled extends Error {}

/** GET or, with a file, POST; the JSON that came back. Rejects with Trouble or Cancelled. */
export function ask(address, { file = null, signal = null, onsent = null } = {}) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(new Cancelled());
    const request = new XMLHttpRequest();
    request.open(file ? "POST" : "GET", address);
    request.setRequestHeader("Accept", "application/json");
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    if (file) request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    if (onsent) request.upload.addEventListener("progress", (event) => onsent(event.loaded, event.total));
    request.addEventListener("load", () => settle(request, resolve, reject));
    request.addEventListener("error", () => reject(new Trouble(0, LOST)));
    request.addEventListener("abort", () => reject(new Cancelled()));
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    request.send(file);
  });
}

function settle(request, resolve, reject) {
  let answer = null;
  try {
    answer = JSON.parse(request.responseText);
  } catch {
    // Not ours: a proxy's page, perhaps. The status is all that is known.
  }
  if (request.status === 200 && answer !== null && typeof answer === "object") return resolve(answer);
  const detail = typeof answer?.error === "string" ? answer.error : "";
  const wait = Number.parseFloat(request.getResponseHeader("Retry-After") ?? "");
  return reject(new Trouble(request.status, detail, Number.isFinite(wait) ? wait : null));
}

/** As `ask`, but a server that is busy and says for how long is asked again; `onwait(seconds)` is told before. */
export async function askPatiently(address, options) {
  for (let time = 1; ; time += 1) {
    try {
      return await ask(address, options);
    } catch (trouble) {
      const busy = trouble.status === 429 || trouble.status === 503;
      if (!busy || trouble.retryAfter === null || trouble.retryAfter > LONGEST_WAIT || time === PATIENCE) throw trouble;
      const seconds = Math.max(1, Math.ceil(trouble.retryAfter));
      options.onwait?.(seconds);
      await pause(seconds, options.signal);
    }
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(new Cancelled()); }, { once: true });
  });
}

/** Never resolves; rejects with Cancelled when `signal` is aborted. */
export function cancelled(signal) {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(new Cancelled()), { once: true });
  });
}
