/**
 * What a program wants of what others say to everyone (rule 22 in docs/protocol.md). The twin of
 * protocol/member/subscribing.py.
 *
 * The relay's side is protocol/mesh/wishes.py. The program says it as `subscribe`:
 *
 *     undefined, null, true   everything
 *     false                   nothing: only what is for this peer
 *     { others: false, topics: [...], types: [...] }     as in rule 22, any of them
 *
 * What the peer itself needs is never wished away. Directs and presences always arrive, and no answer to
 * this peer is for somebody else. So only `types` can leave out too much, and the presence has more of
 * them than the program has said (`subscription`):
 *
 *     ack, stream, turn_end, error    from the first command on that the program asks. Whoever does not
 *                                     know `answers: "direct"` answers to everyone
 *     broadcast                       while the peer has agents, and from the first `serve` on: commands
 *                                     to everyone
 *
 * The program does not see these: each message is looked at again when it arrives (`isWanted`). So it
 * gets the same, whether the relay knows the rule or not.
 *
 * @import { Message } from "./messages.js"
 * @import { Roster } from "./roster.js"
 */

import { RELAY_LIMITS } from "./limits.js";
import { ANSWERS, isRecord, isRelays, NOT_FOR_ALL } from "./messages.js";

/**
 * `others`: also what is for somebody else. `topics`: patterns, null: any topic. `types`: null: all.
 *
 * @typedef {object} Wish
 * @property {boolean} others
 * @property {ReadonlySet<string> | null} topics
 * @property {ReadonlySet<string> | null} types
 */

/** The type of commands to everyone. */
export const FOR_ALL = Object.freeze(["broadcast"]);
/** All types that may be added. @type {readonly string[]} */
export const NEEDED_MAX = Object.freeze([.../** @type {string[]} */ (ANSWERS), ...FOR_ALL]);
/** @type {Readonly<Wish>} */
export const EVERYTHING = Object.freeze({ others: true, topics: null, types: null });
/** @type {Readonly<Wish>} */
const NOTHING = Object.freeze({ others: false, topics: null, types: new Set() });

const NAMES = ["others", "topics", "types"];
/** What a pattern ends with, if anything may follow. */
const ANY_REST = "*";

/**
 * The wish that a program says so. Throws TypeError, RangeError.
 *
 * @param {unknown} subscribe
 * @returns {Readonly<Wish>}
 */
export function wishOf(subscribe) {
  if (subscribe == null || typeof subscribe === "boolean") {
    return subscribe === false ? NOTHING : EVERYTHING;
  }
  if (!isRecord(subscribe)) {
    throw new TypeError(`subscribe is true, false or an object, not ${String(subscribe)}`);
  }
  for (const name of Object.keys(subscribe)) {
    if (!NAMES.includes(name)) {
      throw new RangeError(`subscribe has ${NAMES.join(", ")}, and no ${name}`);
    }
  }
  const { others = null } = subscribe;
  if (others !== null && typeof others !== "boolean") {
    throw new TypeError(`others in subscribe is true or false, not ${String(others)}`);
  }
  const topics = texts("topics", subscribe.topics);
  const types = texts("types", subscribe.types);
  for (const pattern of topics ?? []) {
    if (pattern.slice(0, -1).includes(ANY_REST)) {
      throw new RangeError(
        `in topics of subscribe, * stands only at the end, not as in ${pattern}`,
      );
    }
  }
  if (others !== false && topics === null && types === null) return EVERYTHING;
  return Object.freeze({ others: others !== false, topics, types });
}

/**
 * @param {string} name
 * @param {unknown} said
 * @returns {Set<string> | null}
 */
function texts(name, said) {
  if (said == null) return null;
  if (!Array.isArray(said) || said.some((text) => typeof text !== "string")) {
    throw new TypeError(`${name} in subscribe is an array of strings`);
  }
  const { idCharsMax, wishNamesMax } = RELAY_LIMITS;
  if (said.length > wishNamesMax) {
    throw new RangeError(`${name} in subscribe has at most ${wishNamesMax} strings`);
  }
  for (const text of said) {
    if (text === "" || /\p{Surrogate}/u.test(text)) {
      throw new RangeError(`${name} in subscribe has what nothing is called`);
    }
    if ([...text].length > idCharsMax) {
      throw new RangeError(`a string in ${name} of subscribe has at most ${idCharsMax} characters`);
    }
  }
  return new Set(said);
}

/**
 * What the presence says in `data.subscribe`; null: nothing. If there are too many types with those that
 * are `needed`, all types come.
 *
 * @param {Readonly<Wish>} wish
 * @param {Iterable<string>} needed
 */
export function subscription(wish, needed) {
  /** @type {{ others?: false, topics?: string[], types?: string[] }} */
  const said = {};
  if (!wish.others) said.others = false;
  if (wish.topics !== null) said.topics = [...wish.topics].sort();
  if (wish.types !== null) {
    const types = new Set([...wish.types, ...needed]);
    if (types.size <= RELAY_LIMITS.wishNamesMax) said.types = [...types].sort();
  }
  return Object.keys(said).length > 0 ? said : null;
}

/**
 * The program of the peer `id`, which has these agents, wants this message, as it came.
 *
 * @param {Readonly<Wish>} wish
 * @param {Message} message
 * @param {string} id
 * @param {() => readonly string[]} agents
 * @param {Roster} roster
 */
export function isWanted(wish, message, id, agents, roster) {
  const { type, fields } = message;
  if (wish === EVERYTHING || NOT_FOR_ALL.includes(type) || isRelays(message)) return true;
  return (
    (wish.types === null || wish.types.has(type)) &&
    hasTopic(wish, fields.topic) &&
    (wish.others || !isForOthers(message, id, agents, roster))
  );
}

/**
 * @param {Readonly<Wish>} wish
 * @param {unknown} topic
 */
function hasTopic({ topics }, topic) {
  if (topics === null || typeof topic !== "string") return true;
  return [...topics].some((pattern) =>
    pattern.endsWith(ANY_REST) ? topic.startsWith(pattern.slice(0, -1)) : topic === pattern,
  );
}

/**
 * It names peers that are here, and this one is not among them.
 *
 * @param {Message} message
 * @param {string} id
 * @param {() => readonly string[]} agents
 * @param {Roster} roster
 */
function isForOthers({ to, fields }, id, agents, roster) {
  const target = fields.targetInstanceId;
  if (typeof target === "string") return roster.peers.has(target);
  if (to === undefined || to === id) return false;
  if (roster.peers.has(to)) return true;
  if (roster.sharedAgentIds.has(to) || agents().includes(to)) return false;
  return roster.hosts(to).length > 0;
}
