/**
 * What was said before a peer came, if it asks for it. The twin of protocol/member/recalling.py.
 *
 * This is the peer's side of rule 21 in docs/protocol.md. One `Recalling` is one peer, over all its
 * connections:
 *
 * 1. It asks on each connection with which it would join (`ask`), until the relay has answered one of
 *    them. So what a program has seen does not come again after a loss.
 * 2. Behind the roster the relay says how many old messages follow (`note`), and so many are old
 *    (`isOld`). They may be cut off in the middle, and go on when the connection has come back.
 * 3. The answer to the question behind the presence comes behind all of them (`end`). So a relay that
 *    does not know the rule is not waited for, and one that counts wrong makes nothing new old.
 *
 * What is old is for the program to read, and for nothing else: no command among it is served, and no
 * answer belongs to a turn.
 *
 * @import { Limits } from "./limits.js"
 * @import { Message } from "./messages.js"
 */

import { isRecord, isRelays, NOT_FOR_ALL, word } from "./messages.js";
import { whole } from "./outgoing.js";

/** Asks for the last `count` messages, 0: for none. */
export class Recalling {
  #count;
  #isAsked = false;
  /** So many old messages are still to come. */
  #left = 0;

  /**
   * Throws TypeError, RangeError.
   *
   * @param {unknown} count
   * @param {Readonly<Limits>} limits
   */
  constructor(count, { unreadMessagesMax }) {
    if (typeof count !== "number" || !Number.isInteger(count)) {
      throw new TypeError(`history is a number of messages, not ${String(count)}`);
    }
    if (count < 0 || count > unreadMessagesMax) {
      const bounds = `from 0 to ${unreadMessagesMax} (unreadMessagesMax)`;
      throw new RangeError(`history is a number of messages ${bounds}, not ${count}`);
    }
    this.#count = count;
  }

  /** A connection is about to join. What to ask there (`data.history`); null: nothing. */
  ask() {
    this.#left = 0;
    this.#isAsked = this.#count > 0;
    return this.#isAsked ? { messages: this.#count } : null;
  }

  /**
   * The relay has answered nothing that the peer has asked: perhaps old messages follow.
   *
   * Longer answers have no turn id, either, and `history` in them is how many it remembers at most. But
   * they say more than that.
   *
   * @param {Message} answer
   */
  note(answer) {
    const history = word(answer, "history");
    const isAlone = isRecord(history) && Object.keys(answer.data ?? {}).length === 1;
    if (!this.#isAsked || !isAlone || answer.turnId !== undefined) return;
    this.end();
    this.#left = whole(history.messages) ?? 0;
  }

  /**
   * This message was said before; asked once for each that arrives.
   *
   * @param {Message} message
   */
  isOld(message) {
    if (this.#left === 0 || NOT_FOR_ALL.includes(message.type) || isRelays(message)) return false;
    this.#left -= 1;
    return true;
  }

  /** Something has arrived of which nothing is read: an old message, if some are to come, or several. */
  excess() {
    this.#left = Math.max(0, this.#left - 1);
  }

  /** All that was asked for has come. */
  end() {
    this.#count = 0;
    this.#isAsked = false;
    this.#left = 0;
  }
}
