/**
 * What comes in from the relay: reads a frame, and says what it costs to hold its messages. The twin
 * of protocol/member/incoming.py.
 *
 * Text of many small values takes much more memory once it is read: the 3 characters of `[],` become
 * 80 bytes. So what waits in a peer is counted by what it costs about, which is estimated from the
 * text, in the same way in both languages:
 *
 * - 1 byte for a character; 4 for each UTF-16 unit of a text that is not all ASCII, or may not be once
 *   its escapes are read.
 * - 64 bytes for each mark (`[`, `{`, `,` or `:`), because a value stands behind it. Marks in strings
 *   count as well, where they make little difference; else they are left out.
 *
 * @import { Limits } from "./limits.js"
 * @import { Wire } from "./messages.js"
 */

import { isRecord } from "./messages.js";

/** What a mark costs. */
const MARK_BYTES = 64;
/** Up to that, and up to 4 times the characters, marks in strings count like all others. */
const MARKS_FREE_BYTES = 4096;

const [QUOTE, COMMA, COLON, BACKSLASH] = [0x22, 0x2c, 0x3a, 0x5c];
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];
const SPACE = [" ", "\t", "\r", "\n"];
const MARKS = [COMMA, COLON, OPEN_LIST, OPEN_OBJECT];

/** A frame that no relay of this protocol sends. */
export class Nonsense extends Error {
  name = "Nonsense";
}

/**
 * A message, and the bytes that it costs about.
 *
 * @typedef {{ fields: Wire, size: number }} Incoming
 */

/**
 * A message of which a peer reads nothing, in so many words, because it is above this bound.
 *
 * @typedef {{ what: string, bound: number }} Excess
 */

/**
 * What a JSON text costs to hold once it is read, in bytes, about.
 *
 * @param {string} text
 */
export function costOf(text) {
  return measured(text).cost;
}

/**
 * What a JSON text costs, and how deep it nests.
 *
 * @param {string} text
 */
function measured(text) {
  let [isAscii, isInString, marks, marksInStrings, depth, deepest] = [true, false, 0, 0, 0, 0];
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code > 0x7f) isAscii = false;
    const isOpening = code === OPEN_LIST || code === OPEN_OBJECT;
    const isMark = isOpening || code === COMMA || code === COLON;
    if (isInString) {
      if (isMark) marksInStrings += 1;
      else if (code === QUOTE) isInString = false;
      else if (code === BACKSLASH) {
        at += 1;
        const escaped = text.charCodeAt(at);
        if (escaped > 0x7f) isAscii = false;
        if (MARKS.includes(escaped)) marksInStrings += 1;
      }
    } else if (isMark) {
      marks += 1;
      if (isOpening) {
        depth += 1;
        deepest = Math.max(deepest, depth);
      }
    } else if (code === QUOTE) isInString = true;
    else if (code === CLOSE_LIST || code === CLOSE_OBJECT) depth -= 1;
  }
  const isNarrow = isAscii && !text.includes("\\u");
  const size = isNarrow ? text.length : 4 * text.length;
  const most = MARK_BYTES * (marks + marksInStrings);
  const isSure = most <= MARKS_FREE_BYTES || most <= 4 * size;
  return { cost: size + (isSure ? most : MARK_BYTES * marks), depth: deepest };
}

/**
 * The messages of one frame from the relay: an object, or an array of them. What costs more than
 * `readBytesMax`, or nests deeper than `nestingMax`, is an Excess.
 *
 * Throws Nonsense: it is no JSON of messages. All binary frames are nonsense.
 *
 * @param {unknown} data
 * @param {Readonly<Limits>} limits
 * @returns {(Incoming | Excess)[]}
 */
export function readFrame(data, { readBytesMax, nestingMax }) {
  if (typeof data !== "string") throw new Nonsense("not JSON");
  const { cost, depth } = measured(data);
  if (cost > readBytesMax) {
    return [{ what: "a frame that costs too much memory to read", bound: readBytesMax }];
  }
  const tooDeep = { what: "a message that nests too deep", bound: nestingMax };
  if (!isArray(data)) {
    return [depth > nestingMax ? tooDeep : { fields: message(parsed(data)), size: cost }];
  }
  const isDeeper = depth > nestingMax + 1;
  /** @type {unknown[]} */
  const whole = isDeeper ? [] : parsed(data);
  const messages = whole.map(message);
  const read = split(data).map((text, number) => {
    const { cost: size, depth } = measured(text);
    if (isDeeper && depth > nestingMax) return tooDeep;
    return { fields: messages[number] ?? message(parsed(text)), size };
  });
  if (isDeeper && !read.includes(tooDeep)) throw new Nonsense("not JSON"); // It has no end.
  return read;
}

/**
 * @param {unknown} fields
 * @returns {Wire}
 */
function message(fields) {
  if (isRecord(fields) && typeof fields.type === "string") return fields;
  throw new Nonsense("JSON, but not a message: an object with a `type`");
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Nonsense("not JSON");
  }
}

/**
 * The objects and arrays in an array, as texts.
 *
 * @param {string} text
 */
function split(text) {
  const found = [];
  let [isInString, depth, begin] = [false, 0, 0];
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (isInString) {
      if (code === BACKSLASH) at += 1;
      else if (code === QUOTE) isInString = false;
    } else if (code === QUOTE) isInString = true;
    else if (code === OPEN_LIST || code === OPEN_OBJECT) {
      depth += 1;
      if (depth === 2) begin = at;
    } else if (code === CLOSE_LIST || code === CLOSE_OBJECT) {
      depth -= 1;
      if (depth === 1) found.push(text.slice(begin, at + 1));
    }
  }
  return found;
}

/**
 * This frame is an array of messages.
 *
 * @param {string} frame
 */
export function isArray(frame) {
  return /^[ \t\r\n]*\[/.test(frame);
}

/**
 * The last message of a frame that was read, to the letter.
 *
 * @param {string} frame
 */
export function lastMessage(frame) {
  if (!isArray(frame)) return frame;
  const until = frame.slice(0, frame.lastIndexOf("]"));
  const last = split(frame).at(-1) ?? "";
  const shorter = withoutEndSpace(until);
  const before = withoutEndSpace(shorter.slice(0, shorter.length - last.length));
  return until.slice(before.length);
}

/** @param {string} text */
function withoutEndSpace(text) {
  let end = text.length;
  while (SPACE.includes(text.charAt(end - 1))) end -= 1;
  return text.slice(0, end);
}
