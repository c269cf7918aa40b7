/** Timers that also run in a hidden page. */

/**
 * Calls back after so many seconds; returns how to cancel that.
 *
 * @typedef {(seconds: number, callback: () => void) => () => void} Timer
 */

/**
 * The page's own timers.
 *
 * @type {Timer}
 */
export const pageTimer = (seconds, callback) => {
  const own = setTimeout(callback, msOf(seconds));
  return () => clearTimeout(own);
};

/**
 * Browsers run the timers of a hidden page once a minute, but not those of its workers. So once the
 * page is hidden, each timer is set twice, there and in one worker for all, and whichever comes first
 * counts. A page that is never hidden has no worker. Where the page's policy forbids one, or there are
 * none (Node), its own timers remain.
 *
 * @returns {Timer}
 */
function makeTimer() {
  /** @type {Map<number, { dueMs: number, callback: () => void }>} */
  const waiting = new Map();
  let last = 0;
  /** Undefined until it is needed; null if there can be none. @type {Worker | null | undefined} */
  let worker;
  /** @param {number} id */
  const fire = (id) => {
    const due = waiting.get(id);
    waiting.delete(id);
    due?.callback();
  };
  const hide = () => {
    if (worker !== undefined || !isHidden()) return;
    worker = mayHaveWorkers() ? makeWorker(fire) : null;
    for (const [id, { dueMs }] of waiting) worker?.postMessage([id, dueMs - performance.now()]);
  };
  globalThis.document?.addEventListener("visibilitychange", hide);
  return (seconds, callback) => {
    hide();
    last += 1;
    const id = last;
    const ms = msOf(seconds);
    waiting.set(id, { dueMs: performance.now() + ms, callback });
    const own = setTimeout(fire, ms, id);
    worker?.postMessage([id, ms]);
    return () => {
      clearTimeout(own);
      waiting.delete(id);
    };
  };
}

/** @param {number} seconds */
function msOf(seconds) {
  return Math.min(Math.max(0, seconds * 1000), 2 ** 31 - 1);
}

function isHidden() {
  return globalThis.document?.visibilityState === "hidden";
}

/** @param {(id: number) => void} fire */
function makeWorker(fire) {
  try {
    const code = "onmessage = ({ data: [id, ms] }) => setTimeout(postMessage, ms, id)";
    const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    worker.onmessage = ({ data }) => fire(data);
    worker.onerror = (event) => event.preventDefault();
    return worker;
  } catch {
    return null;
  }
}

/** Whether the policies that stand in the page itself let it have our worker. A browser writes an error
 * to the console for each one that it forbids, so this is asked before. (What a header says, no page can
 * know: it says so with `worker: false`.) */
function mayHaveWorkers() {
  const metas = document.querySelectorAll('meta[http-equiv="content-security-policy" i]');
  return [...metas].every((meta) => allowsWorkers(meta.getAttribute("content") ?? ""));
}

/** What a policy calls the sources of workers: the first of these that it has. */
const DIRECTIVES = ["worker-src", "child-src", "script-src", "default-src"];

/**
 * Whether a Content Security Policy allows a worker whose source is a blob.
 *
 * @param {string} policy
 */
export function allowsWorkers(policy) {
  /** @type {Map<string, string[]>} */
  const directives = new Map();
  for (const directive of policy.split(";")) {
    const [name = "", ...sources] = directive.trim().toLowerCase().split(/\s+/);
    if (!directives.has(name)) directives.set(name, sources); // The first of a name counts.
  }
  const named = DIRECTIVES.find((name) => directives.has(name));
  return named === undefined || (directives.get(named) ?? []).includes("blob:");
}

/** @type {Timer | null} */
let shared = null;

/** @type {Timer} */
export const timer = (seconds, callback) => {
  shared ??= makeTimer();
  return shared(seconds, callback);
};
