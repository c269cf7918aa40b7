/**
 * What a peer says about itself, and how much of that the relay has taken. The twin of
 * protocol/member/announcements.py.
 *
 * Announcements are numbered from 1; number 0 is what the peer joined with. A later announcement
 * stands for all that came before it: when the relay takes or refuses it, those are answered too.
 * A refused one is forgotten, and the peer is again what the relay took last.
 *
 * What the program wants of others (subscribing) is part of it. If the relay refuses that alone, because
 * there are too many wishes already, the peer is the same without it (`renounce`).
 *
 * @import { Instant } from "./effects.js"
 * @import { AnnouncementRefused, RelayError } from "./errors.js"
 * @import { Wish } from "./subscribing.js"
 */

import { agentIds } from "./agents.js";
import { copyOf, isRecord, isSame, writeMessage } from "./messages.js";
import { EVERYTHING, FOR_ALL, NEEDED_MAX, subscription } from "./subscribing.js";

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
 * @property {Readonly<Wish>} wish
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
  /** What was said there and is not answered yet, by turn id; and whether a wish was said with it.
   * @type {Map<string, { said: Said, hasWish: boolean }>} */
  #asked = new Map();
  /** Types, whatever is wished. @type {ReadonlySet<string>} */
  #needed = new Set();
  /** The relay does not take what is wished. */
  #isAlone = false;
  /** Of these two. */
  #version = 0;
  /** The same as said on the connection in use, */
  #saidVersion = 0;
  /** and on the one that comes. */
  #begunVersion = 0;
  #beganWithWish = false;

  /**
   * Throws TypeError: agents or metadata that are no JSON.
   *
   * @param {string} id
   * @param {unknown} agents
   * @param {unknown} metadata
   * @param {string | null} keepalive what its presences say under that name
   * @param {Readonly<Wish>} [wish] what its program wants
   */
  constructor(id, agents, metadata, keepalive, wish = EVERYTHING) {
    this.#id = id;
    this.#keepalive = keepalive;
    this.wanted = { number: 0, agents: listed(agents), metadata: described(metadata), wish };
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
   * @param {Readonly<Wish> | null} [wish]
   * @returns {Said}
   */
  made(agents, metadata, wish = null) {
    return {
      number: this.#number,
      agents: agents == null ? this.wanted.agents : listed(agents),
      metadata: metadata == null ? this.wanted.metadata : described(metadata),
      wish: wish ?? this.wanted.wish,
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
   * The peer itself needs messages of these types from now on. True: that is to be said.
   *
   * @param {readonly string[]} types
   */
  need(types) {
    if (types.every((type) => this.#needed.has(type))) return false;
    const said = [this.wanted, ...(this.accepted ? [this.accepted] : [])];
    const subscriptions = () => said.map((one) => this.#subscription(one, this.#needed));
    const before = subscriptions();
    this.#needed = new Set([...this.#needed, ...types]);
    const isNews = !isSame(before, subscriptions());
    if (isNews) this.#version += 1;
    return isNews;
  }

  /** The relay may take what is wished now. */
  retry() {
    this.#isAlone = false;
  }

  /**
   * The relay takes no other wish; the same is to be said without one. False: this is known already.
   * null: it was said without one. `turnId`: of what was refused, on the connection in use; null: on the
   * one that comes.
   *
   * @param {string | null} turnId
   * @returns {boolean | null}
   */
  renounce(turnId) {
    const refused = turnId === null ? undefined : this.#asked.get(turnId);
    if (!(refused ? refused.hasWish : this.#beganWithWish)) return null;
    if (refused) {
      // What was said later is awaited, also if that was the same.
      for (const [id] of this.#asked) {
        this.#asked.delete(id);
        if (id === turnId) break;
      }
    }
    if (this.#isAlone) return false;
    this.#isAlone = true;
    this.#version += 1;
    return true;
  }

  /**
   * @param {Said} said
   * @param {Iterable<string>} needed
   */
  #subscription({ agents, wish }, needed) {
    if (this.#isAlone || wish === EVERYTHING) return null;
    return subscription(wish, agents.length > 0 ? [...needed, ...FOR_ALL] : needed);
  }

  /**
   * The longest presence that may say it.
   *
   * @param {Said} said
   * @param {string} turnId
   * @param {Instant} now
   */
  longest(said, turnId, now) {
    return this.#text(said, turnId, now, NEEDED_MAX);
  }

  /**
   * The presence that says it.
   *
   * @param {Said} said
   * @param {string} turnId
   * @param {Instant} now
   */
  text(said, turnId, now) {
    return this.#text(said, turnId, now, this.#needed);
  }

  /**
   * @param {Said} said
   * @param {string} turnId
   * @param {Instant} now
   * @param {Iterable<string>} needed
   */
  #text(said, turnId, now, needed) {
    const { agents, metadata } = said;
    const keepalive = this.#keepalive === null ? {} : { keepalive: this.#keepalive };
    const wanted = this.#subscription(said, needed);
    const subscribe = wanted === null ? {} : { subscribe: wanted };
    const data = { ...metadata, agents, ...keepalive, ...subscribe, accept: ["batch"] };
    const timestamp = now.wallMs;
    return writeMessage({ type: "presence", from: this.#id, turnId, data, timestamp });
  }

  // On the connection in use

  /** Something else is wanted than was said, and it may be said now. */
  get isDue() {
    const isSaid = this.#said === this.wanted && this.#saidVersion === this.#version;
    return !isSaid && this.#asked.size < ANNOUNCED_MAX;
  }

  /** What is wanted is said now on a connection that comes. */
  begin() {
    this.#begunVersion = this.#version;
    this.#beganWithWish = this.#subscription(this.wanted, this.#needed) !== null;
    return this.wanted;
  }

  /**
   * What is wanted is said now, under this turn id.
   *
   * @param {string} turnId
   */
  say(turnId) {
    const said = this.wanted;
    this.#said = said;
    this.#saidVersion = this.#version;
    const hasWish = this.#subscription(said, this.#needed) !== null;
    this.#asked.set(turnId, { said, hasWish });
    return said;
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
    this.#saidVersion = this.#begunVersion;
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
    const { said } = this.#asked.get(turnId) ?? {};
    if (!said) throw new Error("this announcement was answered already: a bug");
    for (const [id, other] of this.#asked) {
      if (other.said.number <= said.number) this.#asked.delete(id);
    }
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
