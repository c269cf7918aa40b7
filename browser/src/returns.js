/**
 * Who was here when the connection was lost, and may be back any moment. The twin of
 * protocol/member/returns.py.
 *
 * A relay that was started again knows nobody. Its peers come back within seconds, and not all at
 * once: a message that is sent to one of them by who came first would be refused. So what is for
 * somebody who was here before waits in the queue until that one is back, or until it has been waited
 * for long enough (`returnWithinS`, from the peer's own return on). Everything else goes at once.
 *
 * @import { Limits } from "./limits.js"
 * @import { RemotePeer } from "./messages.js"
 * @import { Roster } from "./roster.js"
 */

/**
 * Whom a direct message is for: `to`, a peer or an agent, and `peer`, the peer that is meant where it
 * is named.
 *
 * @typedef {{ to: string | null, peer: string | null }} Target
 */

/**
 * Whom a message with these fields is for; null if it is not for one peer.
 *
 * @param {Record<string, unknown>} fields
 * @returns {Target | null}
 */
export function targetOf({ type, to, targetInstanceId: peer }) {
  if (type !== "direct") return null;
  return { to: typeof to === "string" ? to : null, peer: typeof peer === "string" ? peer : null };
}

/** The peers that are waited for. */
export class Returns {
  #limits;
  #roster;
  /** @type {Map<string, RemotePeer>} */
  #away = new Map();
  /** How many of these have this name, or an agent of this name. @type {Map<string, number>} */
  #names = new Map();
  /** @type {number | null} */
  #due = null;

  /**
   * @param {Readonly<Limits>} limits
   * @param {Roster} roster who is here
   */
  constructor(limits, roster) {
    this.#limits = limits;
    this.#roster = roster;
  }

  /** The connection is lost. Everybody may have to come back, or nobody. */
  lost() {
    this.#away = new Map([...this.#away, ...this.#roster.peers]);
    this.#names.clear();
    for (const peer of this.#away.values()) this.#count(peer, 1);
    this.#due = null;
  }

  /**
   * @param {RemotePeer} peer
   * @param {number} step
   */
  #count({ id, agents }, step) {
    for (const name of [id, ...agents]) this.#names.set(name, (this.#names.get(name) ?? 0) + step);
  }

  /**
   * The peer itself is back.
   *
   * @param {number} at
   */
  joined(at) {
    if (this.#away.size > 0) this.#due = at + this.#limits.returnWithinS;
  }

  /**
   * Somebody has come back, or has left for good. Returns whether it was waited for.
   *
   * @param {string} id
   */
  seen(id) {
    const peer = this.#away.get(id);
    if (!peer) return false;
    this.#away.delete(id);
    this.#count(peer, -1);
    return true;
  }

  /**
   * This peer is waited for.
   *
   * @param {string | null} id
   */
  isAway(id) {
    return id !== null && this.#away.has(id);
  }

  /**
   * A message for this target waits: who is meant is away, and nobody else can be meant.
   *
   * @param {Target | null} target
   */
  holds(target) {
    if (target === null || this.#away.size === 0) return false;
    const { to, peer } = target;
    if (peer !== null) return this.#away.has(peer);
    if (to === null || !this.#names.get(to)) return false;
    return this.#roster.hosts(to).every((id) => this.#away.has(id));
  }

  /** When (monotonic seconds) nobody is waited for any more; null if nobody is. */
  deadline() {
    return this.#away.size > 0 ? this.#due : null;
  }

  /**
   * Returns whether the time is over, and nobody is waited for any more.
   *
   * @param {number} at
   */
  expire(at) {
    const due = this.deadline();
    if (due === null || due > at) return false;
    this.#away.clear();
    return true;
  }
}
