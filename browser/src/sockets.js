/**
 * What goes over the sockets of a peer, so that a connection can go on after its socket was cut. The
 * twin of protocol/member/sockets.py.
 *
 * Every number that the peer opens stands for a socket. What each carries is counted and kept by a
 * `Resuming` (resuming.js), which moves to another socket when it comes back. At most one has none at a
 * time (`isAway`): it was the one in use.
 *
 * The peer asks on every new socket before it announces itself, and reports with every heartbeat and
 * after so many frames, but not too often. The answers to that are taken here, whenever and wherever
 * they come: nobody else can know their turn ids.
 *
 * @import { Effect } from "./effects.js"
 * @import { Limits } from "./limits.js"
 * @import { Message } from "./messages.js"
 * @import { Frame, Outgoing } from "./outgoing.js"
 */

import { isRelays, messageOf, word, writeMessage } from "./messages.js";
import { Resuming } from "./resuming.js";

const ANSWERS = ["capabilities_response", "error"];

/**
 * What the sockets need of their owner: a turn id that nobody can guess, and somebody who takes the
 * effects. `outgoing` gives the pace at which frames are sent again.
 *
 * @typedef {object} Owner
 * @property {Outgoing} outgoing
 * @property {() => string} turnId
 * @property {(effect: Effect) => void} emit
 */

/** Those of the peer `id`. */
export class Sockets {
  #id;
  #limits;
  #outgoing;
  #turnId;
  #emit;
  /** @type {Map<number, Resuming>} */
  #carried = new Map();
  /** By socket: the turn id of what was asked there. @type {Map<number, string>} */
  #asked = new Map();
  /** @type {Resuming | null} */
  #away = null;
  /** @type {string | null} */
  #reason = null;
  /** @type {readonly string[]} */
  #doubts = [];

  /**
   * @param {string} id
   * @param {Readonly<Limits>} limits
   * @param {Owner} owner
   */
  constructor(id, limits, { outgoing, turnId, emit }) {
    this.#id = id;
    this.#limits = limits;
    this.#outgoing = outgoing;
    this.#turnId = turnId;
    this.#emit = emit;
  }

  // What goes out

  /**
   * Sends this text at once, before anything that waits in the queue.
   *
   * @param {number} socket
   * @param {string} text
   */
  transmit(socket, text) {
    this.#emit({ effect: "Transmit", connection: socket, text });
    this.#carried.get(socket)?.frame(text, [], 0);
  }

  /**
   * A frame of the queue goes out now.
   *
   * @param {number} socket
   * @param {Frame} frame
   * @param {number} at
   */
  queued(socket, { text, tickets, said }, at) {
    const carried = this.#carried.get(socket);
    if (carried === undefined) return;
    carried.frame(text, said, tickets.length);
    this.reportInTime(socket, at);
  }

  /**
   * A frame of the queue may go there: what is kept is bounded.
   *
   * @param {number} socket
   */
  hasRoom(socket) {
    return this.#carried.get(socket)?.hasRoom ?? true;
  }

  /**
   * Something is to be sent there again, before anything of the queue.
   *
   * @param {number} socket
   */
  isBehind(socket) {
    return this.#carried.get(socket)?.isBehind ?? false;
  }

  /**
   * The next frame that goes out again; or, if the pace forbids it, at what time (monotonic seconds) to
   * ask for it; or null: there is none. Its tickets were told before.
   *
   * @param {number} socket
   * @param {number} at
   * @returns {Frame | number | null}
   */
  again(socket, at) {
    const carried = this.#carried.get(socket);
    if (!carried?.isBehind) return null;
    const { text, size, count } = carried.peek();
    const due = this.#outgoing.repeat(size, count, at);
    if (due !== null) return due;
    carried.again();
    this.reportInTime(socket, at);
    return { text, tickets: [], said: [] };
  }

  /** How many messages of the queue wait to be sent again. */
  get waiting() {
    const carried = [...this.#carried.values(), ...(this.#away ? [this.#away] : [])];
    return carried.reduce((sum, { waiting }) => sum + waiting, 0);
  }

  // Asking and reporting

  /**
   * The socket is new: asks that what it carries may come back, and for what was said before
   * (`data.history`).
   *
   * @param {number} socket
   * @param {{ messages: number } | null} history
   */
  ask(socket, history) {
    const carried = new Resuming(this.#limits);
    const resume = carried.ask();
    const wishes = Object.entries({ resume, history }).filter(([, wish]) => wish !== null);
    if (wishes.length === 0) return;
    this.#carried.set(socket, carried);
    this.#asked.set(socket, this.#question(socket, Object.fromEntries(wishes)));
  }

  /**
   * Says what has arrived, and asks what has been taken. False: there is nothing to report. `isQuiet`:
   * nothing was heard lately, so nothing is known of reports without an answer.
   *
   * @param {number} socket
   * @param {number} at
   * @param {{ isQuiet: boolean }} how
   */
  report(socket, at, { isQuiet }) {
    const carried = this.#carried.get(socket);
    if (carried === undefined) return false;
    if (!isQuiet && carried.isIgnored(at)) carried.stop();
    return this.#report(socket, carried, at);
  }

  /**
   * When (monotonic seconds) `reportInTime` has something to say there; null: never.
   *
   * @param {number | null} socket
   */
  reportDue(socket) {
    return this.#carriedBy(socket)?.reportDue ?? null;
  }

  /**
   * Reports, if it is time because of what has gone out.
   *
   * @param {number | null} socket
   * @param {number} at
   */
  reportInTime(socket, at) {
    const carried = this.#carriedBy(socket);
    const due = carried?.reportDue ?? null;
    if (socket === null || !carried || due === null || due > at) return;
    this.#report(socket, carried, at);
  }

  /** @param {number | null} socket */
  #carriedBy(socket) {
    return socket === null ? undefined : this.#carried.get(socket);
  }

  /**
   * @param {number} socket
   * @param {Resuming} carried
   * @param {number} at
   */
  #report(socket, carried, at) {
    const turnId = this.#turnId();
    const data = carried.report(turnId, at);
    if (data === null) return false;
    this.transmit(socket, this.#capabilities(turnId, data));
    return true;
  }

  /**
   * Asks something that does not count as a frame. Returns its turn id.
   *
   * @param {number} socket
   * @param {object} data
   */
  #question(socket, data) {
    const turnId = this.#turnId();
    const text = this.#capabilities(turnId, data);
    this.#emit({ effect: "Transmit", connection: socket, text });
    return turnId;
  }

  /**
   * @param {string} turnId
   * @param {object} data
   */
  #capabilities(turnId, data) {
    return writeMessage({ type: "capabilities", from: this.#id, turnId, data });
  }

  // What comes in

  /**
   * A message has arrived in this frame. True: it answers `ask`, or a report.
   *
   * @param {number} socket
   * @param {string} frame
   * @param {Message} message
   */
  note(socket, frame, message) {
    const carried = this.#carried.get(socket);
    if (carried === undefined) return false;
    carried.message(frame);
    const { type, turnId } = message;
    if (!ANSWERS.includes(type) || !isRelays(message) || turnId === undefined) return false;
    if (turnId === this.#asked.get(socket)) {
      this.#asked.delete(socket);
      carried.offered(word(message, "resume"));
    } else if (carried.isReport(turnId)) {
      if (carried.reported(turnId, word(message, "taken"))) this.#outgoing.released();
    } else {
      return false;
    }
    return true;
  }

  /**
   * A message has arrived of which nothing is read; or a frame of nobody knows how many.
   *
   * @param {number} socket
   * @param {string} frame
   * @param {{ isCountable: boolean }} how
   */
  excess(socket, frame, { isCountable }) {
    const carried = this.#carried.get(socket);
    carried?.message(frame);
    if (!isCountable) carried?.uncountable();
  }

  /**
   * Something has arrived that no relay sends.
   *
   * @param {number} socket
   */
  uncountable(socket) {
    this.#carried.get(socket)?.uncountable();
  }

  // Lost sockets

  /** A connection has lost its socket, and may come back. */
  get isAway() {
    return this.#away !== null;
  }

  /**
   * What it carries could come back.
   *
   * @param {number} socket
   */
  canReturn(socket) {
    return this.#carried.get(socket)?.canReturn ?? false;
  }

  /**
   * The socket in use is gone. Returns whether what it carried may come back.
   *
   * @param {number} socket
   * @param {number} at
   */
  lose(socket, at) {
    const carried = this.#carried.get(socket);
    this.#asked.delete(socket);
    this.#carried.delete(socket);
    if (carried === undefined) return false;
    this.#away = carried;
    if (!carried.lost(at)) this.giveUp();
    return this.isAway;
  }

  /**
   * Another socket is gone, or this one has been replaced. True: something may still come back that was
   * asked for there.
   *
   * @param {number} socket
   * @param {number} at
   */
  forget(socket, at) {
    this.#carried.delete(socket);
    const wasAsked = this.#asked.delete(socket);
    return wasAsked && (this.#away?.lost(at) ?? false);
  }

  /** What is away does not come back. */
  giveUp() {
    if (this.#away === null) return;
    this.#reason = this.#away.reason;
    this.#doubts = this.#away.inDoubt;
    this.#away = null;
  }

  /**
   * When (monotonic seconds) that is so by itself; null: never.
   *
   * @returns {number | null}
   */
  deadline() {
    return this.#away?.deadline() ?? null;
  }

  /**
   * Returns whether what was away does not come back any more.
   *
   * @param {number} at
   */
  expire(at) {
    const isOver = this.#away?.expire(at) ?? false;
    if (isOver) this.giveUp();
    return isOver;
  }

  /**
   * This socket is new: asks there to go on with what is away.
   *
   * @param {number} socket
   */
  comeBack(socket) {
    if (this.#away === null) return;
    this.#asked.set(socket, this.#question(socket, { resume: this.#away.comeBack() }));
  }

  /**
   * The relay answers that.
   *
   * @param {number} socket
   * @param {Message} message
   */
  isAnswer(socket, message) {
    const isFromRelay = ANSWERS.includes(message.type) && isRelays(message);
    return isFromRelay && message.turnId === this.#asked.get(socket);
  }

  /**
   * The answer. Returns whether what was away goes on there.
   *
   * @param {number} socket
   * @param {Message} message
   */
  cameBack(socket, message) {
    const carried = this.#away;
    this.#asked.delete(socket);
    if (!carried?.cameBack(word(message, "resume"))) {
      this.giveUp();
      return false;
    }
    this.#carried.set(socket, carried);
    this.#away = null;
    return true;
  }

  /** The relay has answered what cannot be right: that socket is of no use. */
  get isBroken() {
    return this.#reason === "broken";
  }

  /** Why the connection in use was lost for good, and what the program had sent of which nobody knows
   * whether it arrived. Told once. */
  takeLoss() {
    const told = {
      reason: this.#reason,
      doubts: this.#doubts.map((text) => messageOf(JSON.parse(text))),
    };
    this.#reason = null;
    this.#doubts = [];
    return told;
  }
}
