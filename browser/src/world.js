/** What a peer needs of the world around it. Tests put their own in its place. */

/** @import { Halls } from "./election.js" */

import { timer } from "./timers.js";

const ANSWER_WITHIN_S = 5;

/**
 * One end of a WebSocket, as far as a peer uses it.
 *
 * @typedef {Pick<WebSocket, "readyState" | "bufferedAmount" | "send" | "close" | "binaryType"
 *   | "onopen" | "onmessage" | "onclose">} Socket
 */

/**
 * @typedef {object} OwnWorld
 * @property {(url: string, protocols: string[]) => Socket} connect
 * @property {(url: string) => Promise<boolean>} answers whether anybody answers there over HTTP
 * @property {() => number} now seconds of a monotonic clock
 * @property {() => number} wall milliseconds since 1970
 * @property {() => number} chance a number in [0, 1)
 * @property {import("./timers.js").Timer} timer
 * @property {(nudge: () => void) => () => void} watch calls `nudge` when there is reason to look
 *   whether the connection is alive; returns how to stop that
 * @property {(error: unknown) => void} report takes an error that nobody can catch
 */

/** @typedef {OwnWorld & Halls} World */

/** @type {Readonly<World>} */
export const WORLD = Object.freeze({
  connect: (url, protocols) => new WebSocket(url, protocols),
  async answers(url) {
    const request = new AbortController();
    const cancel = timer(ANSWER_WITHIN_S, () => request.abort());
    const { signal } = request;
    try {
      await fetch(url, { mode: "no-cors", cache: "no-store", credentials: "omit", signal });
      return true;
    } catch {
      return false;
    } finally {
      cancel();
      request.abort(); // What it answers does not matter.
    }
  },
  now: () => performance.now() / 1000,
  wall: () => Date.now(),
  chance: Math.random,
  timer,
  watch(nudge) {
    const shown = () => document.visibilityState === "visible" && nudge();
    globalThis.addEventListener?.("online", nudge);
    globalThis.document?.addEventListener("visibilitychange", shown);
    return () => {
      globalThis.removeEventListener?.("online", nudge);
      globalThis.document?.removeEventListener("visibilitychange", shown);
    };
  },
  locks: globalThis.isSecureContext ? (globalThis.navigator?.locks ?? null) : null,
  channel: (name) => new BroadcastChannel(name),
  report: (error) => (globalThis.reportError ?? console.error)(error),
});
