/**
 * A connection of a peer that can go on over another socket: what is counted, kept and said. The twin
 * of protocol/member/resuming.py.
 *
 * This is the peer's side of rule 19 in docs/protocol.md. One `Resuming` is one connection, over as
 * many sockets as it takes. Both sides count: the relay the frames of the peer, the peer the messages
 * of the relay. So after a cut each can say how far it got.
 *
 * | stage | a frame goes out | a message comes in | the socket is lost |
 * |---|---|---|---|
 * | off: not asked, refused, or over | - | - | off |
 * | asked: `ask` was sent | kept | - | off; what is kept is in doubt |
 * | open: `offered` said yes | kept; in time a report | counted | away |
 * | away: no socket, until `deadline` | (none) | (none) | (none) |
 * | returning: `comeBack` was sent | (none) | only the answer | away |
 *
 * What ends it, in any stage: `stop`. After `uncountable` it goes on, but cannot come back. What leads
 * on:
 *
 *     asked      offered with a token     open     the frames behind the question are counted
 *     asked      offered without          off      nothing was promised, so nothing is in doubt
 *     open       reported                 open     so many frames are kept no longer
 *     returning  cameBack, resumed        open     those not taken go again (`again`), before all else
 *     returning  cameBack, refused        off      what is kept, and not said to be taken, is in doubt
 *     away       the deadline             off      what is kept is in doubt
 *
 * The sender waits while `hasRoom` is false: what is kept is bounded, and only the relay's word ends
 * keeping it. A relay that gives a token, and then no answer although it says other things, is not
 * waited for longer than `silentAfterS`: then the connection cannot come back any more (`stop`).
 *
 * @import { Limits } from "./limits.js"
 */

import { crc32, utf8 } from "./bytes.js";
import { lastMessage } from "./incoming.js";
import { isRecord } from "./messages.js";
import { positive, whole } from "./outgoing.js";

/** So many reports are awaited at a time; the oldest are forgotten. */
const REPORTS_MAX = 16;
/** A longer token, or epoch, is none. */
const NAME_CHARS_MAX = 256;

/** @typedef {"off" | "asked" | "open" | "away" | "returning"} Stage */

/**
 * A frame with `count` messages of the queue that was sent. `said`: those that the program has said.
 *
 * @typedef {{ text: string, size: number, said: readonly string[], count: number }} Kept
 */

/**
 * What is asked of the relay (`data.resume`).
 *
 * @typedef {{ seconds: number } | { token: string | null, epoch: string, received: number, crc?: number }}
 *   Question
 */

/** One connection. Times are monotonic seconds. */
export class Resuming {
  /** Where the connection is: the table above. @type {Stage} */
  stage = "off";
  /** So many messages have arrived. */
  received = 0;
  /** So many frames the relay has taken, as it said last. */
  taken = 0;
  /** Why it has not come back, or cannot: the relay's word; or `window` (the deadline was over),
   * `unsupported` (the relay does not know how), `unanswered` (it was lost before the relay had said
   * that it may), `uncounted`, or `broken` (what the relay says cannot be right, or it says nothing).
   * @type {string | null} */
  reason = null;
  #limits;
  /** @type {string | null} */
  #token = null;
  #epoch = "";
  #seconds = 0;
  /** @type {Kept[]} */
  #kept = [];
  /** Of these, what is to be sent again, and was not yet. @type {Kept[]} */
  #again = [];
  /** Of both. */
  #bytes = 0;
  /** The frame with the last message that was counted. */
  #last = "";
  /** Frames behind the last report. */
  #unreported = 0;
  #unreportedBytes = 0;
  /** @type {number | null} */
  #reportedAt = null;
  /** By turn id: when it was said. @type {Map<string, number>} */
  #reports = new Map();
  /** @type {number | null} */
  #until = null;

  /** @param {Readonly<Limits>} limits */
  constructor(limits) {
    this.#limits = limits;
  }

  /** So many frames were sent, the same one once. */
  get sent() {
    return this.taken + this.#kept.length + this.#again.length;
  }

  /** Another frame may be sent. */
  get hasRoom() {
    const { unconfirmedFramesMax, unconfirmedBytesMax } = this.#limits;
    const frames = this.#kept.length + this.#again.length;
    if (this.stage === "off") return true;
    return frames < unconfirmedFramesMax && this.#bytes < unconfirmedBytesMax;
  }

  /** What the program has sent, and the relay has not said it has taken, in order. */
  get inDoubt() {
    return [...this.#kept, ...this.#again].flatMap(({ said }) => said);
  }

  /** How many messages of the queue are to be sent again, as far as is known. */
  get waiting() {
    const frames = this.isAway ? this.#kept : this.#again;
    return frames.reduce((sum, { count }) => sum + count, 0);
  }

  /** If its socket is lost now, it may come back. */
  get canReturn() {
    return this.stage === "open" && this.#token !== null;
  }

  // Asking

  /**
   * The connection is new. What to ask; null: nothing.
   *
   * @returns {Question | null}
   */
  ask() {
    const { resumeS } = this.#limits;
    if (resumeS === 0) return null;
    this.stage = "asked";
    return { seconds: resumeS };
  }

  /**
   * The relay has answered what was asked.
   *
   * @param {unknown} resume
   */
  offered(resume) {
    if (this.stage !== "asked") return;
    this.#takeOffer(isRecord(resume) ? resume : {});
    if (this.#token === null) this.stop("unsupported");
    else this.stage = "open";
  }

  /** @param {Record<string, unknown>} offer */
  #takeOffer({ token, epoch, seconds }) {
    const [named, begun] = [name(token), name(epoch)];
    this.#token = begun === null ? null : named;
    this.#epoch = begun ?? "";
    const most = this.#limits.resumeS;
    this.#seconds = Math.min(most, positive(seconds) ?? most);
  }

  /** Nobody knows how many messages have arrived. So it cannot come back. */
  uncountable() {
    this.#token = null;
    this.reason = "uncounted";
  }

  /** It cannot come back any more. Nothing more is kept; what was kept stays in doubt, unless the relay
   * has promised nothing. */
  stop(reason = "broken") {
    this.stage = "off";
    this.reason = reason;
    if (reason === "unsupported") {
      this.#kept = [];
      this.#bytes = 0;
    }
    this.#reports.clear();
    this.#until = null;
  }

  // Counting

  /**
   * A frame with so many messages of the queue goes out.
   *
   * @param {string} text
   * @param {readonly string[]} [said]
   */
  frame(text, said = [], count = 1) {
    if (this.stage !== "asked" && this.stage !== "open") return;
    this.#keep({ text, size: utf8(text).length, said, count });
  }

  /** @param {Kept} kept */
  #keep(kept) {
    this.#kept.push(kept);
    this.#bytes += kept.size;
    this.#unreported += 1;
    this.#unreportedBytes += kept.size;
  }

  /**
   * A message has arrived in this frame. The answers to `ask` and `comeBack` do not count: they come
   * before this stage.
   *
   * @param {string} frame
   */
  message(frame) {
    if (this.stage !== "open") return;
    this.received += 1;
    this.#last = frame;
  }

  // Reporting

  /** When it is time for a report, because many frames have gone out; null: not for now.
   *
   * 0, which is at once, if it is the first; or if so much of what may be kept has gone out that sending
   * would soon have to wait for the answer. */
  get reportDue() {
    const { unreportedFramesMax, unconfirmedFramesMax, unconfirmedBytesMax } = this.#limits;
    const frames = this.#unreported;
    const isMuch =
      frames >= Math.max(1, Math.floor(unconfirmedFramesMax / 2)) ||
      this.#unreportedBytes >= Math.floor(unconfirmedBytesMax / 2);
    if (this.stage !== "open" || this.#again.length > 0) return null;
    if (isMuch) return 0;
    if (frames < unreportedFramesMax) return null;
    return this.#reportedAt === null ? 0 : this.#reportedAt + this.#limits.reportEveryS;
  }

  /**
   * A report: what to say (`data`) under this turn id. Null: there is nobody to tell.
   *
   * @param {string} turnId
   * @param {number} at
   */
  report(turnId, at) {
    if (this.stage !== "open") return null;
    this.#reports.set(turnId, at);
    this.#reportedAt = at;
    if (this.#reports.size > REPORTS_MAX) this.#forgetReport();
    this.#unreported = -1; // Its own frame is in the answer.
    this.#unreportedBytes = 0;
    return { received: this.received };
  }

  #forgetReport() {
    const [oldest] = this.#reports.keys();
    if (oldest !== undefined) this.#reports.delete(oldest);
    return oldest;
  }

  /**
   * The answer to this report is awaited.
   *
   * @param {string} turnId
   */
  isReport(turnId) {
    return this.#reports.has(turnId);
  }

  /**
   * The relay has answered a report. Returns whether something is kept no longer.
   *
   * @param {string} turnId
   * @param {unknown} taken
   */
  reported(turnId, taken) {
    while (this.#reports.size > 0 && this.#forgetReport() !== turnId) {
      // What is answered later has made it superfluous.
    }
    const count = whole(taken);
    if (this.stage !== "open" || count === null || count < this.taken) return false;
    if (count > this.taken + this.#kept.length) this.stop();
    else this.#drop(count);
    return true;
  }

  /** @param {number} count */
  #drop(count) {
    const dropped = this.#kept.splice(0, count - this.taken);
    for (const { size } of dropped) this.#bytes -= size;
    this.taken = count;
  }

  /**
   * The relay has left a report without an answer for too long.
   *
   * @param {number} at
   */
  isIgnored(at) {
    const [oldest] = this.#reports.values();
    return oldest !== undefined && at - oldest > this.#limits.silentAfterS;
  }

  // A lost socket

  /**
   * The socket is gone. Returns whether the connection may come back; if not, what is in doubt is still
   * there to be read.
   *
   * @param {number} at
   */
  lost(at) {
    this.#reports.clear();
    this.#kept.push(...this.#again);
    this.#again = [];
    this.#unreported = this.#kept.length;
    this.#unreportedBytes = this.#bytes;
    if (this.stage === "returning") {
      this.stage = "away";
    } else if (this.canReturn) {
      this.stage = "away";
      this.#until = at + this.#seconds;
    } else if (this.stage !== "away") {
      if (this.stage === "asked") this.reason = "unanswered";
      this.stage = "off";
    }
    return this.stage === "away";
  }

  /** It has no socket, or not yet, and may come back. */
  get isAway() {
    return this.stage === "away" || this.stage === "returning";
  }

  /** When it cannot come back any more. While the relay is asked, it is waited for. */
  deadline() {
    return this.stage === "away" ? this.#until : null;
  }

  /**
   * Returns whether the time is over. What is in doubt is still there to be read.
   *
   * @param {number} at
   */
  expire(at) {
    const due = this.deadline();
    if (due === null || due > at) return false;
    this.stage = "off";
    this.reason = "window";
    return true;
  }

  /**
   * A new socket is open. What to ask there, before anything else.
   *
   * @returns {Question}
   */
  comeBack() {
    this.stage = "returning";
    const asked = { token: this.#token, epoch: this.#epoch, received: this.received };
    return this.received === 0 ? asked : { ...asked, crc: crc32(lastMessage(this.#last)) };
  }

  /**
   * The relay has answered. Returns whether the connection goes on; if not, `reason` says why, and what
   * is in doubt is still there to be read.
   *
   * @param {unknown} resume
   */
  cameBack(resume) {
    if (this.stage !== "returning") return false;
    const answer = isRecord(resume) ? resume : {};
    let taken = whole(answer.taken);
    const most = this.taken + this.#kept.length;
    if (taken !== null && (taken < this.taken || taken > most)) taken = null;
    if (answer.resumed !== true) {
      this.stage = "off";
      this.reason = name(answer.reason) ?? "unsupported";
      this.#drop(taken ?? this.taken);
    } else if (taken === null) {
      this.stage = "off";
      this.reason = "broken";
    } else {
      this.#drop(taken);
      this.#again = this.#kept;
      this.#kept = [];
      this.#unreported = 0;
      this.#unreportedBytes = 0;
      this.#until = null;
      this.#takeOffer(answer);
      this.stage = "open";
      this.reason = this.#token === null ? "unsupported" : null;
    }
    return this.stage === "open";
  }

  /** There is something to be sent again, before anything that is new. */
  get isBehind() {
    return this.#again.length > 0;
  }

  /** The next frame that is to be sent again. It goes out now. */
  again() {
    const kept = this.peek();
    this.#again.shift();
    this.#bytes -= kept.size;
    this.#keep(kept);
    return kept;
  }

  /** The frame that `again` will give. */
  peek() {
    const kept = this.#again[0];
    if (kept === undefined) throw new Error("there is none: a bug");
    return kept;
  }
}

/**
 * The value if it can be a token.
 *
 * @param {unknown} value
 */
function name(value) {
  const isName = typeof value === "string" && value !== "" && [...value].length <= NAME_CHARS_MAX;
  return isName ? value : null;
}
