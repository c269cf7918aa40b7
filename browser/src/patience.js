/**
 * How long a peer goes on trying: when joining has taken too long, and when errors end the peer. The
 * twin of protocol/member/patience.py.
 *
 * Some errors are permanent: no further attempt should mend them (`isTransient` is false). They end
 * a peer that was never present at once. A peer that has been present ends only after `giveUpAfterS`
 * of nothing else, because tokens get renewed, and what stands in front of a relay answers all kinds
 * of things while it restarts.
 *
 * While nobody answers, the peer tries again and again, seldom more than a few seconds apart
 * (lifecycle.js). Only where somebody answers and refuses it tries ever less often: with an error, or
 * with a close code that says no (`refuses`). Each reason is told once (`AttemptFailed`), and the last
 * one is what joining ends with if it takes too long.
 *
 * An id that somebody else has is tried again for `takenForS` in any case: perhaps that is only this
 * page's own last connection, which died unnoticed.
 *
 * @import { Effect } from "./effects.js"
 * @import { RelayError } from "./errors.js"
 * @import { Limits } from "./limits.js"
 */

import { IdTaken, Unreachable } from "./errors.js";

/** The close codes with which a relay says no: a rule was broken, or there is no room. */
const REFUSES = [1002, 1003, 1007, 1008, 1009, 1010, 1013];
/** So many reasons are told once each; whatever is told beyond that is told again. */
const TOLD_MAX = 16;

/**
 * Whoever closed a connection with this code said no. Codes from 4000 on are those that whatever is in
 * front of a relay may have of its own.
 *
 * @param {number} code
 */
export function refuses(code) {
  return REFUSES.includes(code) || (code >= 4000 && code < 5000);
}

/** The patience of one peer. */
export class Patience {
  /** The peer has joined, and the roster has come whole, or will never be said to have. */
  isReady = false;
  #limits;
  #emit;
  #wasPresent = false;
  /** With nothing but permanent errors. @type {number | null} */
  #failingSince = null;
  /** All of them: somebody else has the id. */
  #isTaken = false;
  /** The latest. @type {RelayError | null} */
  #failure = null;
  /** The reasons that were told since it was present last. @type {Set<string>} */
  #told = new Set();
  #withinS = 0;
  /** @type {number | null} */
  #joinDue = null;
  /** From then on nobody will say that it is whole. @type {number | null} */
  #readyDue = null;

  /**
   * @param {Readonly<Limits>} limits
   * @param {(effect: Effect) => void} emit takes the effects `Ready` and `AttemptFailed`
   */
  constructor(limits, emit) {
    this.#limits = limits;
    this.#emit = emit;
  }

  /**
   * The peer begins to join; `withinS` seconds are enough for that, null: any time is.
   *
   * @param {number} at
   * @param {number | null} withinS
   */
  begin(at, withinS) {
    if (withinS === null) return;
    this.#withinS = withinS;
    this.#joinDue = at + withinS;
  }

  /**
   * A connection has joined. A relay that knows no `capabilities` never says that the roster is
   * whole: `probeWithinS` after `since` it counts as whole.
   *
   * @param {number} at
   * @param {number} [since]
   */
  joined(at, since = at) {
    this.#failingSince = null;
    this.#wasPresent = true;
    this.#told.clear();
    this.#readyDue = since + this.#limits.probeWithinS;
  }

  /** An attempt has failed, and not with a permanent error. */
  passed() {
    this.#failingSince = null;
  }

  /**
   * An attempt has failed because nobody answered; no permanent error is undone by that.
   *
   * @param {Unreachable} error
   */
  missed(error) {
    this.#failure = error;
    this.#tell(error);
  }

  /**
   * An attempt has failed; `isInUse`: another connection is there. True: give up.
   *
   * @param {RelayError} error
   * @param {number} at
   * @param {{ isInUse: boolean }} where
   */
  failed(error, at, where) {
    const givesUp = this.#givesUp(error, at, where);
    if (!givesUp) this.#tell(error);
    return givesUp;
  }

  /** @param {RelayError} error */
  #tell(error) {
    const news = !this.#told.has(error.message);
    if (news) {
      if (this.#told.size >= TOLD_MAX) this.#told.clear();
      this.#told.add(error.message);
    }
    this.#emit({ effect: "AttemptFailed", error, news });
  }

  /**
   * @param {RelayError} error
   * @param {number} at
   * @param {{ isInUse: boolean }} where
   */
  #givesUp(error, at, { isInUse }) {
    this.#failure = error;
    if (error.isTransient) {
      this.#failingSince = null;
      return false;
    }
    if (isInUse) return false;
    const isTaken = error instanceof IdTaken;
    if (isTaken !== this.#isTaken) this.#failingSince = null;
    this.#isTaken = isTaken;
    this.#failingSince ??= at;
    const lastsS = at - this.#failingSince;
    if (isTaken) return lastsS >= this.#limits.takenForS;
    return !this.#wasPresent || lastsS >= this.#limits.giveUpAfterS;
  }

  /** When (monotonic seconds) another attempt must be made at the latest, because it decides;
   * Infinity if none does. */
  get lastAttemptAt() {
    if (this.#failingSince === null || !this.#isTaken) return Infinity;
    return this.#failingSince + this.#limits.takenForS;
  }

  /** The roster is whole, or as complete as it will be. */
  complete() {
    if (this.isReady) return;
    this.isReady = true;
    this.#emit({ effect: "Ready" });
  }

  /** The peer is over. */
  end() {
    this.#joinDue = null;
    this.#readyDue = null;
  }

  /**
   * When (monotonic seconds) the waiting for the first joining is over; null if never.
   *
   * @returns {number | null}
   */
  deadline() {
    if (this.isReady) return null;
    const [join, ready] = [this.#joinDue, this.#readyDue];
    return join === null || ready === null ? (join ?? ready) : Math.min(join, ready);
  }

  /**
   * What is due: the peer is ready, if a connection is there (`isInUse`), or it has been joining for
   * too long. Returns the error to end with then: the latest, if there is one.
   *
   * @param {number} at
   * @param {{ isInUse: boolean }} where
   * @returns {RelayError | null}
   */
  expire(at, { isInUse }) {
    const due = this.deadline();
    if (due === null || due > at) return null;
    if (isInUse) {
      this.complete();
    } else if (due === this.#joinDue) {
      const sentence =
        `nobody has answered at this URL within ${this.#withinS} s; check host and port, and ` +
        "whether a firewall is in between";
      return this.#failure ?? new Unreachable(sentence);
    } else {
      this.#readyDue = null; // That connection was lost; the next one has time of its own.
    }
    return null;
  }
}
