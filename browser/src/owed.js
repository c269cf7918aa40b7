/**
 * What askers have missed of the end of a turn while they were away, and hear when they are back. The
 * twin of protocol/member/owed.py.
 *
 * An answer to the asker alone is lost if the asker is not there when it comes. The end of a turn must
 * not be, or the asker would wait for nothing: then it is told, as soon as it is back, that there was an
 * end. Only the names of a command are kept for that, and of the latest commands only.
 *
 * @import { Message, Wire } from "./messages.js"
 */

import { messageOf, word } from "./messages.js";

/** Of a command with a longer turn id (in characters) nothing is kept. */
const NAME_CHARS_MAX = 256;

const NAMES = ["type", "from", "instanceId", "turnId", "answers"];

/**
 * What an asker is to be told: `data` of an error of `agent`, in answer to `command`.
 *
 * @typedef {{ asker: string | undefined, command: Message, agent: string, data: object }} Owed
 */

/** What is owed to askers, for so many commands at most; the oldest are forgotten. */
export class Debts {
  #most;
  /** Ends that may not have arrived. @type {Map<string, Owed>} */
  #given = new Map();
  /** @type {Map<string, Owed>} */
  #owed = new Map();

  /** @param {number} most */
  constructor(most) {
    this.#most = most;
  }

  /**
   * The end of a turn was sent. If it does not arrive, the asker is to be told `data`.
   *
   * @param {Message} command
   * @param {string} agent
   * @param {object} data
   */
  given(command, agent, data) {
    this.#keep(this.#given, command, agent, data);
  }

  /**
   * The asker is not there: it is to be told `data` when it is back.
   *
   * @param {Message} command
   * @param {string} agent
   * @param {object} data
   */
  owe(command, agent, data) {
    this.#keep(this.#owed, command, agent, data);
  }

  /**
   * The relay says that the receiver of something is not there. If that was an end, its asker has missed
   * it.
   *
   * @param {Message} error
   */
  undelivered(error) {
    const asker = word(error, "target");
    const key = keyOf(typeof asker === "string" ? asker : undefined, error.turnId);
    const given = this.#given.get(key);
    if (!given) return;
    this.#given.delete(key);
    this.#put(this.#owed, key, given);
  }

  /**
   * What may be told now, to askers that are here. Each is given out once.
   *
   * @param {ReadonlyMap<string, unknown>} here
   */
  due(here) {
    const due = [...this.#owed].filter(([, { asker }]) => asker !== undefined && here.has(asker));
    for (const [key] of due) this.#owed.delete(key);
    return due.map(([, owed]) => owed);
  }

  /** The peer is over. */
  clear() {
    this.#given.clear();
    this.#owed.clear();
  }

  /**
   * @param {Map<string, Owed>} kept
   * @param {Message} command
   * @param {string} agent
   * @param {object} data
   */
  #keep(kept, { origin, turnId, fields }, agent, data) {
    if ([...(turnId ?? "")].length > NAME_CHARS_MAX) return;
    const names = NAMES.filter((name) => Object.hasOwn(fields, name));
    /** @type {Wire} */
    const named = Object.fromEntries(names.map((name) => [name, fields[name]]));
    const owed = { asker: origin, command: messageOf(named), agent, data };
    this.#put(kept, keyOf(origin, turnId), owed);
  }

  /**
   * @param {Map<string, Owed>} kept
   * @param {string} key
   * @param {Owed} owed
   */
  #put(kept, key, owed) {
    kept.set(key, owed);
    for (const [oldest] of kept) {
      if (kept.size <= this.#most) return;
      kept.delete(oldest);
    }
  }
}

/**
 * @param {string | undefined} asker
 * @param {string | undefined} turnId
 */
function keyOf(asker, turnId) {
  return JSON.stringify([asker, turnId]);
}
