/**
 * Keeps the stream of the console open: opens it, reads it, and opens it again after a failure.
 *
 * @import { Told } from "./types.js"
 */

import { ServerSentEvents } from "./sse.js";

/** The wait after the first failure; doubled after each (seconds). */
export const BACKOFF_FIRST_S = 0.5;
export const BACKOFF_MAX_S = 10;
/** Where the relay has no room for one more reader. */
export const NO_ROOM_S = 5;
/** So long without a word, and the stream counts as dead. The relay says something more often. */
export const SILENT_AFTER_S = 45;
/** Of an answer that is no stream, so much is shown. */
const SENTENCE_CHARS_MAX = 300;

/**
 * What whoever reads is told.
 *
 * @typedef {object} Listener
 * @property {(type: string, told: Told) => void} event
 * @property {(why: string) => void} lost it is tried again by itself
 * @property {(status: 401 | 403, why: string) => void} refused it is tried again by `start`
 */

/**
 * @typedef {object} Surroundings
 * @property {(url: string, options: RequestInit) => Promise<Response>} fetch
 * @property {(seconds: number, callback: () => void) => () => void} timer returns how to cancel it
 * @property {() => number} chance from 0 to 1
 */

/** @type {Surroundings} */
const BROWSER = {
  fetch: (url, options) => fetch(url, options),
  timer: (seconds, callback) => {
    const id = setTimeout(callback, seconds * 1000);
    return () => clearTimeout(id);
  },
  chance: Math.random,
};

/** The stream did not come, or broke: the sentence for people. */
class Failure extends Error {
  /**
   * @param {string} sentence
   * @param {number} [status] of HTTP
   */
  constructor(sentence, status = 0) {
    super(sentence);
    this.status = status;
  }
}

export class Reader {
  #listener;
  #around;
  #failures = 0;
  #url = "";
  /** @type {string | null} */
  #token = null;
  /** Ends what is under way. */
  #stop = () => {};

  /**
   * @param {Listener} listener
   * @param {Partial<Surroundings>} [around]
   */
  constructor(listener, around = {}) {
    this.#listener = listener;
    this.#around = { ...BROWSER, ...around };
  }

  /**
   * Read from there from now on, and from nowhere else.
   *
   * @param {string} url
   * @param {string | null} token
   */
  start(url, token) {
    this.stop();
    this.#url = url;
    this.#token = token;
    this.#failures = 0;
    this.#open();
  }

  stop() {
    this.#stop();
    this.#stop = () => {};
  }

  /** Do not wait any longer before the next attempt: the network is back, somebody looks. */
  nudge() {
    if (this.#failures > 0) this.start(this.#url, this.#token);
  }

  async #open() {
    const controller = new AbortController();
    let cancel = () => {};
    this.#stop = () => {
      cancel();
      controller.abort();
    };
    const { signal } = controller;
    const watch = () => {
      cancel();
      cancel = this.#around.timer(SILENT_AFTER_S, () => {
        controller.abort(new Failure(`it has said nothing for ${SILENT_AFTER_S} s`));
      });
    };
    watch();
    try {
      await this.#read(signal, watch);
      throw new Failure("the relay has ended the stream");
    } catch (error) {
      cancel();
      const { reason } = signal;
      if (signal.aborted && !(reason instanceof Failure)) return; // By `stop`.
      controller.abort();
      const failure = reason instanceof Failure ? reason : failureOf(error);
      if (failure.status === 401 || failure.status === 403) {
        this.#stop = () => {};
        this.#listener.refused(failure.status, failure.message);
        return;
      }
      this.#stop = this.#around.timer(this.#wait(failure), () => this.#open());
      this.#listener.lost(failure.message);
    }
  }

  /**
   * @param {AbortSignal} signal
   * @param {() => void} heard
   */
  async #read(signal, heard) {
    /** @type {Record<string, string>} */
    const headers = { accept: "text/event-stream" };
    if (this.#token !== null) headers.authorization = `Bearer ${this.#token}`;
    const options = { headers, signal, cache: /** @type {const} */ ("no-store") };
    const answer = await this.#around.fetch(this.#url, options);
    if (!answer.ok || !answer.body) throw await refusal(answer);
    const type = answer.headers.get("content-type") ?? "";
    if (!type.startsWith("text/event-stream")) {
      throw new Failure("what answers here is no console of a relay");
    }
    const decoder = new TextDecoder();
    const events = new ServerSentEvents();
    const body = answer.body.getReader();
    for (;;) {
      const { done, value } = await body.read();
      if (done || signal.aborted) return;
      heard();
      for (const { type, data } of events.read(decoder.decode(value, { stream: true }))) {
        this.#listener.event(type, JSON.parse(data));
        this.#failures = 0;
      }
    }
  }

  /** @param {Failure} failure */
  #wait(failure) {
    const longest = Math.min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** this.#failures);
    this.#failures += 1;
    const least = failure.status === 503 ? NO_ROOM_S : longest / 2;
    return least + (longest / 2) * this.#around.chance();
  }
}

/** @param {Response} answer */
async function refusal(answer) {
  const text = (await answer.text().catch(() => "")).trim().slice(0, SENTENCE_CHARS_MAX);
  return new Failure(text || `the relay answers ${answer.status}`, answer.status);
}

/** @param {unknown} error */
function failureOf(error) {
  if (error instanceof Failure) return error;
  if (error instanceof SyntaxError || error instanceof RangeError) {
    return new Failure("the stream cannot be read");
  }
  return new Failure("there is no connection to the relay");
}
