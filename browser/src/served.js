/**
 * A command that a service has: when it is time for another sign of life, and when nobody waits. The twin
 * of protocol/member/served.py.
 *
 * @import { Message } from "./messages.js"
 */

/** A command of the service `service`, for `agent`, at the cost of `size` bytes. */
export class Served {
  /** How many were sent. */
  chunks = 0;
  /** When the asker has been away for too long; null while it is here. @type {number | null} */
  goneAt = null;

  /**
   * @param {number} service
   * @param {string} agent
   * @param {Message} message
   * @param {number} size
   * @param {{ ackAt: number, askerWasHere: boolean }} since
   */
  constructor(service, agent, message, size, { ackAt, askerWasHere }) {
    this.service = service;
    this.agent = agent;
    this.message = message;
    this.size = size;
    /** When to give another sign of life; null: never. @type {number | null} */
    this.ackAt = ackAt;
    /** Its asker has been in the roster meanwhile. */
    this.askerWasHere = askerWasHere;
  }

  /** Only its asker receives the answers. */
  get isPrivate() {
    return this.message.fields.answers === "direct";
  }

  /**
   * This peer has asked it, under this turn id.
   *
   * @param {string | undefined} asker
   * @param {string | undefined} turnId
   */
  isOf(asker, turnId) {
    return this.message.origin === asker && this.message.turnId === turnId;
  }

  /** When (monotonic seconds) something is due first; Infinity: never. */
  get due() {
    return Math.min(this.ackAt ?? Infinity, this.goneAt ?? Infinity);
  }

  /**
   * The asker is in the roster, or not; and that may mean nothing (`isSure`). If it is away from now on,
   * that is too long at `tooLongAt`.
   *
   * @param {{ isHere: boolean, isSure: boolean, tooLongAt: number }} seen
   */
  noteAsker({ isHere, isSure, tooLongAt }) {
    if (isHere) {
      this.askerWasHere = true;
      this.goneAt = null;
    } else if (this.askerWasHere && isSure) {
      this.goneAt ??= tooLongAt;
    }
  }

  /**
   * The agent has given a sign of life itself. Where everyone receives it, pages would take another `ack`
   * for a beginning.
   *
   * @param {number} ackAt
   */
  chunkSent(ackAt) {
    this.chunks += 1;
    this.ackAt = this.isPrivate ? ackAt : null;
  }
}
