/** Timers that also run in a hidden page, and the world that a peer lives in. */

/**
 * Calls back after so many seconds; returns how to cancel that.
 *
 * @typedef {(seconds: number, callback: () => void) => () => void} Timer
 */

/**
 * Browsers run the timers of a hidden page once a minute, but not those of its workers. So each
 * timer is set twice, here and in one worker for all, and whichever comes first counts. Where a
 * worker cannot be had (a content security policy, Node) the page's own timers remain.
 *
 * @returns {Timer}
 */
function makeTimer() {
  /** @type {Map<number, () => void>} */
  const waiting = new Map();
  let last = 0;
  /** @type {Worker | null} */
  let worker = null;
  /** @param {number} id */
  const fire = (id) => {
    const callback = waiting.get(id);
    waiting.delete(id);
    callback?.();
  };
  try {
    const code = "onmessage = ({ data: [id, ms] }) => setTimeout(postMessage, ms, id)";
    worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    worker.onmessage = ({ data }) => fire(data);
    worker.onerror = (event) => event.preventDefault();
  } catch {
    worker = null;
  }
  return (seconds, callback) => {
    last += 1;
    const id = last;
    const ms = Math.min(Math.max(0, seconds * 1000), 2 ** 31 - 1);
    waiting.set(id, callback);
    const own = setTimeout(fire, ms, id);
    worker?.postMessage([id, ms]);
    return () => {
      clearTimeout(own);
      waiting.delete(id);
    };
  };
}

/** @type {Timer | null} */
let shared = null;

/** @type {Timer} */
export const timer = (seconds, callback) => {
  shared ??= makeTimer();
  return shared(seconds, callback);
};
