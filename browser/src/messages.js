/**
 * Messages as programs see them, and the words in which peers give and answer commands. The twin of
 * protocol/member/messages.py.
 *
 * A command is a `direct` or `broadcast` with a `turnId` and `data.command`. Its answers have the
 * same `turnId`: an `ack`, any number of `stream`s (`data.chunk`, `data.chunkNum` from 0), and at the
 * end a `turn_end` (`data.result`, and in `data.chunks` how many chunks there were) or an `error`
 * (`data.error`). These are the words of the existing pages, and everyone receives these answers.
 *
 * A command that says `answers: "direct"` is answered to its asker alone: each answer is a `direct` that
 * has the type of the answer in `answer`, and the same `turnId` and `data`. A `cancel` with the `turnId`
 * says that the asker waits no more.
 *
 * @import { Instant } from "./effects.js"
 */

import { agentIds } from "./agents.js";
import {
  AmbiguousTarget,
  AnswerGap,
  NotServed,
  TargetLeft,
  TurnFailed,
  TurnRefused,
  UnknownTarget,
} from "./errors.js";
import { checkJson } from "./json.js";

/** The relay's own name. */
const RELAY = "relay";

/** The types that answer a command. @type {readonly unknown[]} */
export const ANSWERS = ["ack", "stream", "turn_end", "error"];

/** Types that are not among what others say to everyone: no rule about that holds for them. */
export const NOT_FOR_ALL = ["presence", "direct", "cancel"];

/** An error says no more than that: one that is too large to be sent would say nothing. */
const SENTENCE_CHARS_MAX = 1000;

/** What a peer sends by itself, and no program by hand. */
const OWN_TYPES = ["presence", "heartbeat", "capabilities"];

/**
 * The fields of a message, by their names on the wire.
 *
 * @typedef {Record<string, any>} Wire
 */

/**
 * Any JSON, as it arrives.
 *
 * @typedef {null | boolean | number | string | JsonArray | JsonObject} Json
 * @typedef {readonly Json[]} JsonArray
 * @typedef {{ readonly [name: string]: Json }} JsonObject
 */

/**
 * One message as it arrived.
 *
 * @typedef {object} Message
 * @property {string} type `broadcast`, `direct`, `stream`, ... or any word of the peers' own
 * @property {string | undefined} from the peer, or one of its agents, that sent it
 * @property {string | undefined} to the peer or agent that it was addressed to
 * @property {Json | undefined} data what it says
 * @property {string | undefined} turnId what ties a command and its answers together
 * @property {string | undefined} origin the peer that it came from; the relay guarantees it
 * @property {number | undefined} timestamp when it was sent, in milliseconds since 1970, by the
 *   sender's clock
 * @property {boolean} isOld it was said before this peer came, which has asked for it (`history` of
 *   `join`)
 * @property {Readonly<Record<string, Json>>} fields all of it
 */

/**
 * Another peer of the mesh.
 *
 * @typedef {object} RemotePeer
 * @property {string} id
 * @property {readonly string[]} agents the ids of its agents
 * @property {Readonly<Record<string, Json>>} data what it announced
 */

/**
 * @param {Wire} fields
 * @returns {Readonly<Message>}
 */
export function messageOf(fields, isOld = false) {
  const [from, to] = [string(fields.from), string(fields.to)];
  return Object.freeze({
    type: String(fields.type),
    from,
    to,
    data: fields.data,
    turnId: string(fields.turnId),
    origin: string(fields.instanceId) || from,
    timestamp: typeof fields.timestamp === "number" ? fields.timestamp : undefined,
    isOld,
    fields,
  });
}

/**
 * The peer that a presence announces.
 *
 * @param {Message} presence
 * @returns {Readonly<RemotePeer>}
 */
export function remotePeerOf(presence) {
  const agents = agentIds(word(presence, "agents"));
  /** @type {unknown} */
  const said = presence.data;
  const data = isRecord(said) ? said : {};
  return Object.freeze({ id: presence.from ?? "", agents, data });
}

/**
 * `data.name`; undefined where `data` is no object or has no such member.
 *
 * @param {{ data: unknown }} message
 * @param {string} name
 * @returns {any}
 */
export function word({ data }, name) {
  return isRecord(data) ? data[name] : undefined;
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, any>}
 */
export function isRecord(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param {unknown} value */
function string(value) {
  return typeof value === "string" ? value : undefined;
}

/**
 * The relay itself says it, and no peer, nor an agent that is called like the relay.
 *
 * @param {Message} message
 */
export function isRelays({ from, origin }) {
  return from === RELAY && origin === RELAY;
}

/**
 * This presence says that its peer has gone.
 *
 * @param {Message} presence
 */
export function isOffline(presence) {
  return word(presence, "status") === "offline";
}

/**
 * It asks for an answer.
 *
 * @param {Message} message
 */
export function isCommand(message) {
  const isSentSo = ["direct", "broadcast"].includes(message.type) && message.turnId !== undefined;
  return isSentSo && word(message, "command") != null;
}

/**
 * The message as its reader sees it: an answer that came to the asker alone has the type of that answer.
 * All other messages are as they came.
 *
 * @param {Message} message
 * @returns {Readonly<Message>}
 */
export function opened(message) {
  const { type, fields } = message;
  if (type !== "direct" || !ANSWERS.includes(fields.answer)) return message;
  return messageOf({ ...fields, type: fields.answer });
}

/**
 * This answer, as `opened` shows it, came to the asker alone.
 *
 * @param {Message} answer
 */
export function isPrivate({ type, fields }) {
  return fields.answer === type;
}

/**
 * The fields of an answer to this command: to its asker alone if it says so, else to everyone in the
 * words of existing pages.
 *
 * @param {Message} command
 * @param {string} agent
 * @param {string} type
 * @param {object} data
 * @returns {Wire}
 */
export function replyTo({ from, origin, turnId, fields }, agent, type, data) {
  if (fields.answers === "direct" && origin !== undefined) {
    // Both fields: somebody else may have an agent that is called like the asker.
    const named = { to: origin, targetInstanceId: origin };
    return { type: "direct", from: agent, ...named, answer: type, turnId, data };
  }
  const address = from === undefined ? {} : { to: from };
  return { type, from: agent, ...address, turnId, data };
}

/**
 * What an `error` that answers a command means. The relay's own have a code, and some of those that
 * peers of this project give.
 *
 * @param {Message} message
 */
export function turnError(message) {
  const sentence = sentenceOf(word(message, "error"), "the agent reported an error without words");
  const code = word(message, "code");
  if (code === "unknown_target") return new UnknownTarget(sentence);
  if (!isRelays(message)) {
    if (code === "missed") return new AnswerGap(sentence);
    if (code === "left") return new TargetLeft(sentence);
    return code === "not_served" ? new NotServed(sentence) : new TurnFailed(sentence);
  }
  if (code === "ambiguous_target") {
    const listed = word(message, "peers");
    const peers = Array.isArray(listed) ? listed.filter((id) => typeof id === "string") : [];
    return new AmbiguousTarget(sentence, peers);
  }
  return new TurnRefused(sentenceOf(code), sentence);
}

/**
 * What should be text, but came from somebody else and may be any JSON.
 *
 * @param {unknown} value
 * @param {string} [otherwise]
 * @returns {string}
 */
export function textOf(value, otherwise = "") {
  if (value == null) return otherwise;
  try {
    return typeof value === "string" ? value : writeMessage(value);
  } catch {
    return otherwise; // Nested too deep.
  }
}

/**
 * The same for words of an error: not too many characters of them, and no half of one.
 *
 * @param {unknown} value
 * @param {string} [otherwise]
 */
export function sentenceOf(value, otherwise = "") {
  const characters = [...textOf(value, otherwise).slice(0, 2 * SENTENCE_CHARS_MAX)];
  return characters.slice(0, SENTENCE_CHARS_MAX).join("");
}

/**
 * The text of what the program of peer `id` sends; `fields` has at least `type`.
 *
 * `from` is the peer unless it is given; where that is one of its agents, `instanceId` says which
 * peer has it. Throws TypeError: a type that the peer sends by itself, or what is no JSON.
 *
 * @param {string} id
 * @param {Wire} fields
 * @param {Instant} now
 */
export function compose(id, fields, now) {
  if (OWN_TYPES.includes(fields.type)) {
    throw new TypeError(`${fields.type} is sent by the peer itself; use \`announce\` or \`nudge\``);
  }
  /** @type {Wire} */
  const message = { type: fields.type, from: id, ...fields };
  if (message.from === undefined) message.from = id;
  if (message.from !== id && message.instanceId === undefined) message.instanceId = id;
  if (message.timestamp === undefined) message.timestamp = now.wallMs;
  return writeMessage(message);
}

/**
 * One message as text. Throws TypeError, with the way to it, if something in it is no JSON or has no
 * end.
 *
 * @param {unknown} fields
 * @param {string} [name] what the value is called in the error
 * @returns {string}
 */
export function writeMessage(fields, name) {
  try {
    checkJson(fields, name);
    return JSON.stringify(fields);
  } catch (error) {
    if (error instanceof RangeError) throw new TypeError("nested too deep to be JSON");
    throw error;
  }
}

/**
 * The value as it arrives elsewhere. Throws TypeError if it is no JSON.
 *
 * @param {unknown} value
 * @param {string} [name] what the value is called in the error
 * @returns {any}
 */
export function copyOf(value, name) {
  return JSON.parse(writeMessage(value, name));
}

/**
 * These two values of JSON are the same, whatever the order of their members.
 *
 * @param {any} one
 * @param {any} other
 * @returns {boolean}
 */
export function isSame(one, other) {
  if (one === other) return true;
  if (Array.isArray(one)) {
    return (
      Array.isArray(other) &&
      one.length === other.length &&
      one.every((item, n) => isSame(item, other[n]))
    );
  }
  if (!isRecord(one) || !isRecord(other)) return false;
  const names = Object.keys(one);
  return (
    names.length === Object.keys(other).length &&
    names.every((name) => Object.hasOwn(other, name) && isSame(one[name], other[name]))
  );
}
