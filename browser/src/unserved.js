/**
 * Commands that wait for somebody to serve them: the oldest first, and bounded. The twin of
 * protocol/member/unserved.py.
 *
 * At most `turnsMax` wait, and no more than cost `unreadBytesMax`, but one does in any case.
 *
 * @import { Limits } from "./limits.js"
 * @import { Message } from "./messages.js"
 */

/**
 * A command that waits until `due` (monotonic seconds), and the agents that have it already.
 *
 * `size`: what it costs, in bytes. `standsBy`: it is served, but another connection of this peer was
 * elected for that.
 *
 * @typedef {{ message: Message, size: number, due: number, served: ReadonlySet<string>,
 *   standsBy: boolean }} Waiting
 */

/** What waits for a service in one peer. */
export class Unserved {
  #limits;
  /** @type {Waiting[]} */
  #waiting = [];
  #size = 0;

  /** @param {Readonly<Limits>} limits */
  constructor(limits) {
    this.#limits = limits;
  }

  /**
   * One more waits.
   *
   * @param {Waiting} waiting
   */
  add(waiting) {
    this.#waiting.push(waiting);
    this.#size += waiting.size;
  }

  /** The oldest, as far as too much waits. They wait no more. */
  tooMany() {
    const { turnsMax, unreadBytesMax } = this.#limits;
    const dropped = [];
    while (
      this.#waiting.length > 1 &&
      (this.#waiting.length > turnsMax || this.#size > unreadBytesMax)
    ) {
      dropped.push(this.#shift());
    }
    return dropped;
  }

  /**
   * Those whose time is over. They wait no more.
   *
   * @param {number} at
   */
  expired(at) {
    const expired = [];
    while (this.#waiting[0] && this.#waiting[0].due <= at) expired.push(this.#shift());
    return expired;
  }

  /** All of them, which wait no more. */
  drain() {
    const drained = this.#waiting;
    this.#waiting = [];
    this.#size = 0;
    return drained;
  }

  /** When the time of the first is over; null if none waits. */
  get due() {
    return this.#waiting[0]?.due ?? null;
  }

  #shift() {
    const oldest = /** @type {Waiting} */ (this.#waiting.shift());
    this.#size -= oldest.size;
    return oldest;
  }
}
