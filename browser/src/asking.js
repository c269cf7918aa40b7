/** Commands given: a `Turn` for each, which gets what comes of it (asks.js decides). */

import { TurnError } from "./errors.js";
import { Turn } from "./turn.js";
import { Unread } from "./unread.js";
import { deferred } from "./waiting.js";

/**
 * @import { Driver } from "./driver.js"
 * @import { Chunk, TurnEnded } from "./effects.js"
 * @import { Asking as How } from "./member.js"
 * @import { Shelf } from "./unread.js"
 * @import { Deferred } from "./waiting.js"
 */

/** The turns of one peer that are not over. */
export class Asking {
  #driver;
  #shelf;
  /** @type {Map<string, { chunks: Unread<string>, over: Deferred<any>, cause?: unknown }>} */
  #turns = new Map();

  /**
   * @param {Driver} driver
   * @param {Shelf} shelf where chunks wait
   */
  constructor(driver, shelf) {
    this.#driver = driver;
    this.#shelf = shelf;
  }

  /**
   * Gives a command.
   *
   * @param {string} agent
   * @param {{}} command
   * @param {How & { signal?: AbortSignal }} how
   * @returns {Turn<any>}
   */
  ask(agent, command, { signal, ...how }) {
    const turn = this.#driver.tell((member, now) => {
      const turnId = member.ask(agent, command, now, how);
      /** @type {Unread<string>} */
      const chunks = new Unread(this.#shelf, { keepsAll: true });
      /** @type {Deferred<any>} */
      const over = deferred();
      const cause = signal?.reason;
      this.#turns.set(turnId, { chunks, over, cause });
      if (signal?.aborted) member.abandon(turnId, now); // Then it is not sent at all.
      return new Turn(turnId, chunks, over.promise, () => this.#abandon(turnId));
    });
    if (signal && !signal.aborted) this.#abandonBy(signal, turn);
    return turn;
  }

  /**
   * @param {string} turnId
   * @param {unknown} [cause]
   */
  #abandon(turnId, cause) {
    const turn = this.#turns.get(turnId);
    if (turn) turn.cause = cause;
    this.#driver.tell((member, now) => member.abandon(turnId, now));
  }

  /**
   * @param {AbortSignal} signal
   * @param {Turn<any>} turn
   */
  #abandonBy(signal, turn) {
    const abandon = () => this.#abandon(turn.turnId, signal.reason);
    signal.addEventListener("abort", abandon);
    const forget = () => signal.removeEventListener("abort", abandon);
    turn.then(forget, forget); // A signal may live longer than many turns.
  }

  /** @param {Chunk} chunk */
  chunk({ turn, text, size }) {
    this.#turns.get(turn)?.chunks.put(text, size);
  }

  /** @param {TurnEnded} turnEnded */
  ended({ turn, error, result }) {
    const ended = this.#turns.get(turn);
    this.#turns.delete(turn);
    if (error instanceof TurnError) {
      error.chunks = ended?.chunks.items ?? [];
      if (ended?.cause !== undefined) error.cause = ended.cause;
    }
    ended?.chunks.finish(error);
    if (error) ended?.over.reject(error);
    else ended?.over.resolve(result);
  }
}
