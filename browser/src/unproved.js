/**
 * Joining a relay that does not send a presence back: other signs that it has taken the presence.
 *
 * This project's relay sends a presence back before anything else. Other relays of the protocol do not,
 * or they never answer `capabilities`. A peer joins these, too, at the latest `probeWithinS` after it has
 * announced itself:
 *
 * 1. At half of that time it sends a direct to itself. If that arrives, the relay has decided the
 *    presence, which came before.
 * 2. Else it counts as joined when the time is over, if the relay has said anything at all since then: a
 *    presence of somebody else, or an answer. Where nothing is heard there may be no relay.
 *
 * What such a connection cannot do, because both need the peer's own presence in the order of all
 * messages: it is never replaced by another one while it is in use, and announcements count as taken when
 * they are sent.
 */

/** @import { Limits } from "./limits.js" */

/** The part of `probeWithinS` after which a peer sends a direct to itself. */
const ASKS_AT = 0.5;
/** The key in `data` that marks such a direct. No program is told of it. */
export const PROBE = "probe";

/** A presence that was sent, and has not come back. */
export class Unproved {
  /** It counts as taken, without having come back. */
  isTaken = false;
  /** The turn id of the direct to itself, once that was sent. @type {string | null} */
  direct = null;
  #askDue;
  #due;
  #hasHeard = false;

  /**
   * @param {number} at when it was sent (monotonic seconds)
   * @param {Readonly<Limits>} limits
   */
  constructor(at, { probeWithinS }) {
    this.at = at;
    this.#askDue = at + ASKS_AT * probeWithinS;
    this.#due = at + probeWithinS;
  }

  /**
   * When (monotonic seconds) something is due by itself; null: never.
   *
   * @returns {number | null}
   */
  deadline() {
    if (this.direct === null) return this.#askDue;
    return this.#hasHeard && !this.isTaken ? this.#due : null;
  }

  /**
   * It is time for the direct.
   *
   * @param {number} at
   */
  mustAsk(at) {
    return this.direct === null && this.#askDue <= at;
  }

  /** The relay has said something that is not about this presence. */
  heard() {
    this.#hasHeard = true;
  }

  /**
   * The presence counts as taken from now on.
   *
   * @param {number} at
   */
  isDue(at) {
    return this.#hasHeard && this.#due <= at;
  }
}
