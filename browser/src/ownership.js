/**
 * Whose the peer's id is: what a connection claims before its first presence. The twin of
 * protocol/member/ownership.py.
 *
 * The claim is the `owner`, a secret. The relay keeps a hash of it, and shows it to nobody. As long as
 * the id has a connection, others that claim it are refused (`id_taken`), unless they know the secret:
 * further connections of this peer do, and other programs that were given the same one.
 */

import { writeMessage } from "./messages.js";

const CLAIM_CHARS_MIN = 16;
const CLAIM_CHARS_MAX = 256;

/** What the relay takes in no secret: lone surrogates, and the character that it puts there. */
const UNFIT = /[\p{Surrogate}\ufffe]/u;

/** The claim of one peer. */
export class Ownership {
  #id;
  #owner;
  #takeover;

  /**
   * Without an owner it claims nothing. With `takeover` its first connection ends all others that have
   * the id and the same owner. Throws RangeError.
   *
   * @param {string} id
   * @param {string | null} owner
   * @param {{ takeover?: boolean }} [how]
   */
  constructor(id, owner, { takeover = false } = {}) {
    if (owner !== null && !isOwner(owner)) {
      const bounds = `${CLAIM_CHARS_MIN} to ${CLAIM_CHARS_MAX} characters`;
      throw new RangeError(`an owner is a text of ${bounds} that nobody can guess`);
    }
    if (takeover && owner === null) {
      throw new RangeError("to take over an id, give the owner that it was joined with");
    }
    this.#id = id;
    this.#owner = owner;
    this.#takeover = takeover;
  }

  /** The peer claims its id. */
  get isClaimed() {
    return this.#owner !== null;
  }

  /**
   * The `capabilities` that claims the id.
   *
   * @param {string} turnId
   */
  text(turnId) {
    const data = { claim: this.#owner, ...(this.#takeover && { takeover: true }) };
    return writeMessage({ type: "capabilities", from: this.#id, turnId, data });
  }

  /** The id is this peer's now: from here on it takes over from nobody. */
  joined() {
    this.#takeover = false;
  }
}

/** @param {unknown} owner */
function isOwner(owner) {
  if (typeof owner !== "string" || UNFIT.test(owner)) return false;
  const chars = [...owner].length;
  return chars >= CLAIM_CHARS_MIN && chars <= CLAIM_CHARS_MAX;
}
