/**
 * What waits to be sent, and when it may go: bounds, pace, arrays of messages, frames. The twin of
 * protocol/member/outgoing.py.
 *
 * The relay tells its own bounds in `capabilities_response` (`data.limits`, `data.accept`). The
 * queue keeps below them, so that the relay never has to drop anything: it uses 0.9 of the messages
 * (and, behind AgentCore's edge, of the frames) that may come in a second. Messages that wait at the
 * same time share one frame as an array, if the relay takes arrays: a frame costs both ends more
 * than a message, and in front of AgentCore frames are counted.
 *
 * @import { Limits } from "./limits.js"
 * @import { Message } from "./messages.js"
 * @import { Target } from "./returns.js"
 */

import { utf8 } from "./bytes.js";
import { NotConnected, QueueFull, TooLarge } from "./errors.js";
import { RELAY_LIMITS } from "./limits.js";
import { isRecord, word } from "./messages.js";
import { Rate } from "./rate.js";

/** The part of the relay's rate limit that the queue uses; the rest is for heartbeats. */
const PACE = 0.9;
/** The part of its burst; the rest is for what the network holds up and then delivers at once. */
const BURST = 0.5;
/** The least rate of messages that a relay may have (protocol/limits.py). */
const RATE_LEAST_PER_S = 0.1;

/**
 * What goes into one frame, the tickets of the messages in it, and those of them that the program says.
 *
 * @typedef {{ text: string, tickets: number[], said: string[] }} Frame
 */

/**
 * A message that will not be sent after all.
 *
 * @typedef {{ ticket: number, error: QueueFull | NotConnected }} Dropped
 */

/**
 * A message that waits. `isSaid`: the program says it, and not the peer for it, as in commands and
 * answers.
 *
 * @typedef {{ text: string, size: number, target: Target | null, isSaid: boolean }} Queued
 */

/**
 * How a queue behaves. `waits`: without a connection messages wait for one; else they are refused.
 * `splits`: the connection sends a long message as several frames; a browser cannot. `overfill`:
 * while there is a connection, so many times the bounds of the queue may wait.
 *
 * @typedef {{ waits: boolean, splits: boolean, overfill: number }} Habits
 */

/** The queue of one peer. Every message in it has a ticket, a number from 1. */
export class Outgoing {
  /** There is a connection in use. The peer says so. */
  isConnected = false;
  #limits;
  #habits;
  #holds;
  /** By ticket. @type {Map<number, Queued>} */
  #queue = new Map();
  #bytes = 0;
  #ticket = 0;
  // Until the relay tells its own.
  #messageBytesMax = RELAY_LIMITS.messageBytesMax;
  #messages = new Rate(PACE * RELAY_LIMITS.messagesPerS, BURST * RELAY_LIMITS.messagesBurst);
  /** Only where an edge in front of the relay counts them. @type {Rate | null} */
  #frames = null;
  /** @type {number} */
  #frameBytes = RELAY_LIMITS.frameBytesMax;
  #takesArrays = false;
  #knowsRelay = false;
  #hasNews = false;

  /**
   * @param {Readonly<Limits>} limits
   * @param {Habits} habits
   * @param {(target: Target | null) => boolean} holds what is for this target must not go yet (returns)
   */
  constructor(limits, habits, holds) {
    this.#limits = limits;
    this.#holds = holds;
    this.#habits = habits;
  }

  /** More may be sent than when this was asked last. */
  takeNews() {
    const hasNews = this.#hasNews;
    this.#hasNews = false;
    return hasNews;
  }

  get size() {
    return this.#queue.size;
  }

  /** Something in front of the relay counts frames. */
  get countsFrames() {
    return this.#frames !== null;
  }

  // Putting in and taking out

  /**
   * The bytes of a text that the relay takes. Throws TooLarge.
   *
   * @param {string} text
   * @param {string} [what]
   */
  check(text, what = "message") {
    const size = utf8(text).length;
    if (size > this.#messageBytesMax) {
      throw new TooLarge(
        `the ${what} has ${size} bytes, and the relay takes ${this.#messageBytesMax}`,
      );
    }
    if (!this.#habits.splits && this.#frames !== null && size > this.#frameBytes) {
      throw new TooLarge(
        `the ${what} has ${size} bytes, and what is in front of the relay takes frames of ` +
          `${this.#frameBytes}; a page cannot split a message, so send it in parts (\`stream\`)`,
      );
    }
    return size;
  }

  /** The queue takes another message. */
  get hasRoom() {
    return this.#hasRoom(0);
  }

  /** @param {number} spare */
  #hasRoom(spare) {
    const { queueMessagesMax, queueBytesMax } = this.#limits;
    const times = this.isConnected ? this.#habits.overfill : 1;
    return (
      this.#queue.size < times * queueMessagesMax + spare &&
      this.#bytes < times * queueBytesMax + spare * 2 ** 10
    );
  }

  /**
   * Puts a message into the queue. Returns its ticket.
   *
   * `isSaid`: the program says it, and not the peer for it, as in commands and answers. `isReply`: a short reply that the peer gives by itself (an `ack`, a refusal). So that no asker is
   * left without one, `turnsMax` of these may wait beyond the bounds. Throws TooLarge, QueueFull, and
   * NotConnected where messages do not wait for a connection.
   *
   * @param {string} text
   * @param {Target | null} target the one whom it is for
   * @param {{ isSaid?: boolean, isReply?: boolean }} [how]
   */
  offer(text, target, { isSaid = false, isReply = false } = {}) {
    const size = this.check(text);
    if (!this.#habits.waits && !this.isConnected) {
      throw new NotConnected('there is no connection now; offline="wait" would wait for one');
    }
    if (!this.#hasRoom(isReply ? this.#limits.turnsMax : 0)) throw this.#full();
    this.#ticket += 1;
    this.#queue.set(this.#ticket, { text, size, target, isSaid });
    this.#hasNews = true;
    this.#bytes += size;
    return this.#ticket;
  }

  /**
   * Takes a message out of the queue again. Returns whether it was still there.
   *
   * @param {number} ticket
   */
  withdraw(ticket) {
    this.#bytes -= this.#queue.get(ticket)?.size ?? 0;
    return this.#queue.delete(ticket);
  }

  /**
   * There is no connection any more. What may not wait for the next one is dropped, the newest
   * first. (Where `overfill` is 1 nothing is: its sender believes that it goes.)
   *
   * @returns {Dropped[]}
   */
  disconnected() {
    this.isConnected = false;
    this.#messages.clear(); // The relay counts by connection.
    this.#frames?.clear();
    const { waits, overfill } = this.#habits;
    /** @type {Dropped[]} */
    const dropped = [];
    if (overfill === 1) return dropped;
    const { queueMessagesMax, queueBytesMax } = this.#limits;
    for (const [ticket, { size }] of [...this.#queue].reverse()) {
      const fits = this.#queue.size <= queueMessagesMax && this.#bytes <= queueBytesMax;
      if (waits && fits) break;
      this.#queue.delete(ticket);
      this.#bytes -= size;
      const lost = new NotConnected("the connection was lost before this was sent");
      dropped.push({ ticket, error: waits ? this.#full() : lost });
    }
    return dropped;
  }

  #full() {
    const { queueMessagesMax, queueBytesMax } = this.#limits;
    return new QueueFull(
      `${this.#queue.size} messages wait to be sent already ` +
        `(at most ${queueMessagesMax}, of ${queueBytesMax} bytes together)`,
    );
  }

  // Sending

  /**
   * What to send at monotonic time `at`; or, if the pace forbids it, at what time to ask again; or
   * null: nothing waits. A relay that has not told its bounds yet is waited for until `patientUntil`.
   *
   * @param {number} at
   * @param {number} patientUntil
   * @returns {Frame | number | null}
   */
  nextFrame(at, patientUntil) {
    const sendable = this.#sendable();
    const first = sendable.next().value;
    if (first === undefined) return null;
    let due = this.#opensAt;
    if (!this.#knowsRelay) due = Math.max(due, patientUntil);
    return due > at ? due : this.#frame(first, sendable, at);
  }

  /**
   * One message; if the relay takes arrays, as many as fit into one frame.
   *
   * @param {number} first
   * @param {Generator<number, undefined>} others
   * @param {number} at
   * @returns {Frame}
   */
  #frame(first, others, at) {
    const texts = [];
    const tickets = [];
    const said = [];
    let total = 1; // A bracket; behind each message comes a comma, or the other one.
    const most = Math.min(this.#frameBytes, this.#messageBytesMax); // An array is bounded as a message.
    /** @type {number | undefined} */
    let ticket = first;
    for (; ticket !== undefined; ticket = others.next().value) {
      const { text, size, isSaid } = this.#queue.get(ticket) ?? {
        text: "",
        size: 0,
        isSaid: false,
      };
      const fits = total + size + 1 <= most && this.#messages.opensAt <= at;
      if (tickets.length > 0 && !(this.#takesArrays && fits)) break;
      this.#queue.delete(ticket);
      this.#bytes -= size;
      this.#messages.take(at);
      texts.push(text);
      tickets.push(ticket);
      if (isSaid) said.push(text);
      total += size + 1;
    }
    const isArray = texts.length > 1;
    this.#takeFrame(isArray ? total : total - 2, at);
    return { text: isArray ? `[${texts.join()}]` : (texts[0] ?? ""), tickets, said };
  }

  get #opensAt() {
    return Math.max(this.#messages.opensAt, this.#frames?.opensAt ?? -Infinity);
  }

  /**
   * @param {number} size
   * @param {number} at
   */
  #takeFrame(size, at) {
    this.#frames?.take(at, Math.ceil(size / this.#frameBytes));
  }

  /**
   * A frame of so many bytes and messages is to be sent again, at monotonic time `at`. Returns at what
   * time to ask again, if the pace forbids it; else null.
   *
   * @param {number} size
   * @param {number} count
   * @param {number} at
   */
  repeat(size, count, at) {
    const due = this.#opensAt;
    if (due > at) return due;
    this.#messages.take(at, count);
    this.#takeFrame(size, at);
    return null;
  }

  /**
   * The tickets of what may go now, in order, each when it is asked for.
   *
   * @returns {Generator<number, undefined>}
   */
  *#sendable() {
    /** @type {Map<string, boolean>} */
    const held = new Map();
    for (const [ticket, { target }] of this.#queue) {
      const key = target === null ? "" : JSON.stringify([target.to, target.peer]);
      if (!held.has(key)) held.set(key, this.#holds(target));
      if (!held.get(key)) yield ticket;
    }
    return undefined;
  }

  /** What was held may go now. */
  released() {
    this.#hasNews ||= this.#queue.size > 0;
  }

  // What the relay allows

  /**
   * The relay has told its own bounds. What is nonsense among them changes nothing.
   *
   * @param {Message} capabilities
   */
  learn(capabilities) {
    this.#knowsRelay = true;
    this.#hasNews = true;
    const [accepted, bounds] = [word(capabilities, "accept"), word(capabilities, "limits")];
    this.#takesArrays = Array.isArray(accepted) && accepted.includes("batch");
    if (!isRecord(bounds)) return;
    this.#messageBytesMax = count(bounds.messageBytes) ?? this.#messageBytesMax;
    const perS = rate(bounds.messagesPerSecond);
    if (perS !== null) {
      this.#messages.set(PACE * perS, BURST * (count(bounds.messagesBurst) ?? perS));
    }
    const framesPerS = rate(bounds.framesPerSecond);
    this.#frameBytes = count(bounds.frameBytes) ?? this.#frameBytes;
    if (framesPerS !== null) {
      this.#frames ??= new Rate(1, 0);
      this.#frames.set(PACE * framesPerS, 0);
    } else if (bounds.framesPerSecond == null) {
      this.#frames = null;
    }
  }
}

/**
 * The value if it is a finite number above 0.
 *
 * @param {unknown} value
 */
export function positive(value) {
  return typeof value === "number" && value > 0 && value < Infinity ? value : null;
}

/**
 * The value if it is a count.
 *
 * @param {unknown} value
 */
export function whole(value) {
  const isCount = Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 2 ** 53;
  return isCount ? Number(value) : null;
}

/**
 * The value if it is a rate (1/s) that a relay may have: a smaller one would mute the peer.
 *
 * @param {unknown} value
 */
function rate(value) {
  const number = positive(value);
  return number !== null && number >= RATE_LEAST_PER_S ? number : null;
}

/**
 * The whole part of the value if that is a finite number from 1.
 *
 * @param {unknown} value
 */
function count(value) {
  const number = positive(value);
  return number !== null && number >= 1 ? Math.trunc(number) : null;
}
