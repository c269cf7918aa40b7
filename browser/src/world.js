/** What a peer needs of the world around it. Tests put their own in its place. */

/** @import { Halls } from "./election.js" */

import { placeOf } from "./reasons.js";
import { timer } from "./timers.js";

/** Nobody who is there needs longer to answer (seconds). */
const ANSWER_WITHIN_S = 2;
/** So many places that a page's policy forbids are remembered. */
const FORBIDDEN_MAX = 64;

/**
 * One end of a WebSocket, as far as a peer uses it.
 *
 * @typedef {Pick<WebSocket, "readyState" | "bufferedAmount" | "send" | "close" | "binaryType"
 *   | "onopen" | "onmessage" | "onerror" | "onclose">} Socket
 */

/**
 * What a page hears of its own life: `nudge` when there is reason to look whether the connection is
 * alive, or when it wakes up; `suspend` when it falls asleep, or goes.
 *
 * @typedef {{ nudge: () => void, suspend: () => void }} Life
 */

/**
 * @typedef {object} OwnWorld
 * @property {(url: string, protocols: string[]) => Socket} connect
 * @property {(url: string) => Promise<boolean>} answers whether anybody answers there over HTTP
 * @property {(url: string) => Promise<number | null>} status the HTTP status of what is answered there;
 *   null if the page may not know
 * @property {(url: string) => boolean} isForbidden whether this page's policy has stopped a connection
 *   to there
 * @property {(host: string) => Promise<PermissionState | null>} permission what the user has said to
 *   access to such an address of this machine or its network; null where nobody asks
 * @property {string} origin of the page
 * @property {() => number} now seconds of a monotonic clock
 * @property {() => number} wall milliseconds since 1970
 * @property {() => number} chance a number in [0, 1)
 * @property {import("./timers.js").Timer} timer
 * @property {(life: Life) => () => void} watch tells of the page's life; returns how to stop that
 * @property {(sentence: string) => void} warn tells whoever develops the page
 * @property {(error: unknown) => void} report takes an error that nobody can catch
 */

/** @typedef {OwnWorld & Halls} World */

/** The places that the page's policy has stopped a connection to. @type {Set<string> | null} */
let forbidden = null;

/** Notes from now on what the page's policy stops. */
function noteViolations() {
  if (forbidden !== null) return forbidden;
  const seen = new Set();
  forbidden = seen;
  globalThis.document?.addEventListener("securitypolicyviolation", (event) => {
    const place = placeIn(event.blockedURI);
    if (!event.effectiveDirective.startsWith("connect-src") || place === null) return;
    if (event.disposition === "enforce" && seen.size < FORBIDDEN_MAX) seen.add(place);
  });
  return seen;
}

/**
 * Scheme, host and port of a URL; null if it is none.
 *
 * @param {string} url
 */
function placeIn(url) {
  try {
    const { protocol, host } = new URL(url);
    return `${protocol}//${host}`;
  } catch {
    return null;
  }
}

/**
 * Asks over HTTP, and not for long. Null if nobody answers, or the page may not know.
 *
 * @param {string} url
 * @param {RequestMode} mode
 */
async function look(url, mode) {
  const request = new AbortController();
  const cancel = timer(ANSWER_WITHIN_S, () => request.abort());
  const { signal } = request;
  noteViolations();
  try {
    return await fetch(url, { mode, cache: "no-store", credentials: "omit", signal });
  } catch {
    return null;
  } finally {
    cancel();
    request.abort(); // What else it answers does not matter.
  }
}

/** Addresses of a network at home or at work. */
const PRIVATE = /^(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|169\.254\.)|\.local$|^\[f[cd]/;

/**
 * By which names browsers ask for access to such an address.
 *
 * @param {string} host
 */
function permissionsFor(host) {
  if (placeOf(host) === "local") return ["loopback-network", "local-network-access"];
  return PRIVATE.test(host) ? ["local-network", "local-network-access"] : [];
}

/** @type {Readonly<World>} */
export const WORLD = Object.freeze({
  connect(url, protocols) {
    noteViolations();
    return new WebSocket(url, protocols);
  },
  answers: async (url) => (await look(url, "no-cors")) !== null,
  status: async (url) => (await look(url, "cors"))?.status ?? null,
  isForbidden(url) {
    const place = placeIn(url);
    return place !== null && noteViolations().has(place);
  },
  async permission(host) {
    const own = globalThis.location?.hostname ?? "";
    if (placeOf(own) === "local" || PRIVATE.test(own)) return null;
    for (const name of permissionsFor(host)) {
      try {
        const asked = /** @type {PermissionDescriptor} */ (/** @type {unknown} */ ({ name }));
        return (await navigator.permissions.query(asked)).state;
      } catch {
        // This browser has no such permission, or none of its own.
      }
    }
    return null;
  },
  get origin() {
    return globalThis.origin ?? "null";
  },
  now: () => performance.now() / 1000,
  wall: () => Date.now(),
  chance: Math.random,
  timer,
  watch({ nudge, suspend }) {
    const shown = () => document.visibilityState === "visible" && nudge();
    /** @param {PageTransitionEvent} event */
    const isBack = ({ persisted }) => persisted && nudge();
    /** @type {[EventTarget | undefined, string, (event: any) => void][]} */
    const listening = [
      [globalThis, "online", nudge],
      [globalThis, "pagehide", suspend],
      [globalThis, "pageshow", isBack],
      [globalThis.document, "freeze", suspend],
      [globalThis.document, "resume", nudge],
      [globalThis.document, "visibilitychange", shown],
    ];
    for (const [target, name, heard] of listening) target?.addEventListener?.(name, heard);
    return () => {
      for (const [target, name, heard] of listening) target?.removeEventListener?.(name, heard);
    };
  },
  locks: globalThis.isSecureContext ? (globalThis.navigator?.locks ?? null) : null,
  channel: (name) => new BroadcastChannel(name),
  warn: (sentence) => console.warn(`agi-diy-relay-client: ${sentence}`),
  report: (error) => (globalThis.reportError ?? console.error)(error),
});
