/**
 * What a peer says about itself, and how much of that the relay has taken. The twin of
 * protocol/member/announcements.py.
 *
 * Announcements are numbered from 1; number 0 is what the peer joined with. A later announcement
 * stands for all that came before it: when the relay takes or refuses it, those are answered too.
 * A refused one is forgotten, and the peer is again what the relay took last.
 *
 * @import { Instant } from "./effects.js"
 * @import { AnnouncementRefused, RelayError } from "./errors.js"
 */

import { agentIds } from "./agents.js";
import { copyOf, isRecord, writeMessage } from "./messages.js";

/** So many announcements may be on their way on one connection. Beyond, only the latest is made,
 * once one of them is answered. */
const ANNOUNCED_MAX = 16;

/**
 * What one announcement says.
 *
 * @typedef {object} Said
 * @property {number} number
 * @property {readonly unknown[]} agents
 * @property {Readonly<Record<string, unknown>>} metadata
 */

/**
 * These announcements are answered. `error`: why they were refused, null if they were taken.
 *
 * @typedef {{ numbers: number[], error: RelayError | null }} Answered
 */

/** What one peer announces. */
export class Announcements {
  #id;
  #keepalive;
  #number = 0;
  /** @type {number[]} */
  #unanswered = [];
  /** What the peer is to be. @type {Said} */
  wanted;
  /** What the relay has taken last; null before the first joining. @type {Said | null} */
  accepted = null;
  /** What was said last on the connection in use. @type {Said | null} */
  #said = null;
  /** What was said there and is not answered yet, by turn id. @type {Map<string, Said>} */
  #asked = new Map();

  /**
   * Throws TypeError: agents or metadata that are no JSON.
   *
   * @param {string} id
   * @param {unknown} agents
   * @param {unknown} metadata
   * @param {string | null} keepalive what its presences say under that name
   */
  constructor(id, agents, metadata, keepalive) {
    this.#id = id;
    this.#keepalive = keepalive;
    this.wanted = { number: 0, agents: listed(agents), metadata: described(metadata) };
  }

  /** The ids of the peer's own agents, in their order, each once. */
  get agentIds() {
    return [...new Set(agentIds(this.wanted.agents))];
  }

  /**
   * An announcement of these; null: as it is now. Throws TypeError.
   *
   * @param {unknown} agents
   * @param {unknown} metadata
   * @returns {Said}
   */
  made(agents, metadata) {
    return {
      number: this.#number,
      agents: agents == null ? this.wanted.agents : listed(agents),
      metadata: metadata == null ? this.wanted.metadata : described(metadata),
    };
  }

  /**
   * Be this from now on. Returns the number of the announcement.
   *
   * @param {Said} said
   */
  want(said) {
    this.#number += 1;
    this.#unanswered.push(this.#number);
    this.wanted = { ...said, number: this.#number };
    return this.#number;
  }

  /**
   * The presence that says it.
   *
   * @param {Said} said
   * @param {string} turnId
   * @param {Instant} now
   */
  text({ agents, metadata }, turnId, now) {
    const keepalive = this.#keepalive === null ? {} : { keepalive: this.#keepalive };
    const data = { ...metadata, agents, ...keepalive, accept: ["batch"] };
    const timestamp = now.wallMs;
    return writeMessage({ type: "presence", from: this.#id, turnId, data, timestamp });
  }

  // On the connection in use

  /** Something else is wanted than was said, and it may be said now. */
  get isDue() {
    return this.#said !== this.wanted && this.#asked.size < ANNOUNCED_MAX;
  }

  /**
   * What is wanted is said now, under this turn id.
   *
   * @param {string} turnId
   */
  say(turnId) {
    this.#said = this.wanted;
    this.#asked.set(turnId, this.wanted);
    return this.wanted;
  }

  /** What was said is to be said once more. */
  repeat() {
    this.#said = null;
  }

  /**
   * This announcement is not answered yet.
   *
   * @param {string} turnId
   */
  isAsked(turnId) {
    return this.#asked.has(turnId);
  }

  /**
   * A connection that began by saying this is the one in use now.
   *
   * @param {Said} said
   */
  joined(said) {
    this.#said = said;
    this.#asked.clear();
    return this.#accept(said);
  }

  /**
   * The relay has taken what was said under this turn id.
   *
   * @param {string} turnId
   */
  taken(turnId) {
    return this.#accept(this.#pop(turnId));
  }

  /**
   * The relay has refused it.
   *
   * @param {string} turnId
   * @param {AnnouncementRefused} error
   */
  refused(turnId, error) {
    const said = this.#pop(turnId);
    if (this.wanted === said) {
      // Else it has been taken back already.
      this.wanted = this.accepted ?? said;
      this.#said = this.wanted;
    }
    return this.#answer(said.number, error);
  }

  /**
   * The relay has refused what a new connection began with. null: there is nothing that it took
   * before, so that the peer cannot be anything else.
   *
   * @param {Said} said
   * @param {AnnouncementRefused} error
   */
  joinedAsRefused(said, error) {
    if (said === this.accepted || this.accepted === null) return null;
    if (this.wanted === said) this.wanted = this.accepted;
    return this.#answer(said.number, error);
  }

  /**
   * What was said under this turn id. Nothing more is awaited of what was said before it: of
   * announcements in quick succession the relay may take the last alone.
   *
   * @param {string} turnId
   * @returns {Said}
   */
  #pop(turnId) {
    const said = this.#asked.get(turnId);
    if (!said) throw new Error("this announcement was answered already: a bug");
    for (const [id, { number }] of this.#asked) if (number <= said.number) this.#asked.delete(id);
    return said;
  }

  /** @param {Said} said */
  #accept(said) {
    this.accepted = said;
    return this.#answer(said.number, null);
  }

  /**
   * @param {number} number
   * @param {RelayError | null} error
   * @returns {Answered}
   */
  #answer(number, error) {
    const numbers = this.#unanswered.filter((other) => other <= number);
    this.#unanswered = this.#unanswered.slice(numbers.length);
    return { numbers, error };
  }
}

/**
 * A copy, so that it stays what it is, whatever becomes of the objects. Throws TypeError.
 *
 * @param {unknown} agents
 * @returns {unknown[]}
 */
function listed(agents) {
  if (!Array.isArray(agents)) throw new TypeError("agents must be an array, of ids or of objects");
  return copyOf(agents, "agents");
}

/**
 * @param {unknown} metadata
 * @returns {Record<string, unknown>}
 */
function described(metadata) {
  if (!isRecord(metadata)) throw new TypeError("metadata must be an object");
  return copyOf(metadata, "metadata");
}
