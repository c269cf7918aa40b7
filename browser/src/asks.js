/**
 * Commands that a peer gives to agents of others, and what comes back. The twin of
 * protocol/member/asks.py.
 *
 * A command is queued by the call. Answers (`ack`, `stream`, `turn_end`, `error` with its turn id)
 * count only from the peer that was asked; where the roster did not say which one that is, from the
 * first that answers. The relay's own `error` counts always. A turn ends with its result, with an
 * error of the agent or of the relay, when a chunk of the answer is missing, in silence (`timeoutS`
 * without a sign of the agent), when the peer that was asked leaves, when its user abandons it, and with
 * the peer that asked. What was not sent by then never is. If it was sent, and nobody waits for the
 * answer any more, the peer that was asked is told to stop (`cancel`).
 *
 * Where any of several peers may answer, one of those is chosen that have the fewest commands of this
 * peer. If that one leaves, or says that it does not take the command, before it has given a sign of
 * life, another one is asked, once.
 *
 * @import { Announcements } from "./announcements.js"
 * @import { Effect, Instant } from "./effects.js"
 * @import { Limits } from "./limits.js"
 * @import { Message } from "./messages.js"
 * @import { Dropped, Outgoing } from "./outgoing.js"
 * @import { Returns } from "./returns.js"
 * @import { Roster } from "./roster.js"
 */

import { Chunks } from "./chunks.js";
import {
  AmbiguousTarget,
  AnswerGap,
  NotServed,
  QueueFull,
  RelayError,
  TargetLeft,
  TurnError,
  TurnTimeout,
  UnknownTarget,
} from "./errors.js";
import { ANSWERS, compose, isPrivate, isRelays, textOf, turnError, word } from "./messages.js";

/** Whoever looks at the clock so long (seconds) after a turn was due was asleep, or frozen. */
const LATE_S = 1;
/** The errors that say that nobody has begun with the command. @type {readonly unknown[]} */
const NOT_TAKEN = ["unknown_target", "ambiguous_target", "not_served", "busy"];

/**
 * One command under way.
 *
 * @typedef {object} Turn
 * @property {string} id
 * @property {string} agent
 * @property {string | null} peer which one may answer; null while that is open
 * @property {string} text
 * @property {number | null} timeoutS
 * @property {number} due when the silence is too long
 * @property {number | null} ticket its place in the queue; null before it has one
 * @property {boolean} sawPeer the peer was in the roster, or answered, since the command was given
 * @property {boolean} isExcused a clock looked at late was forgiven once
 * @property {Record<string, unknown> | null} message the command, as long as another peer may be asked
 *   instead
 * @property {string | null} before the peer that was asked first, if it is another
 * @property {boolean} isBeforeTold that one was told to stop, or has stopped
 * @property {boolean} isTaken the peer has given a sign of life
 * @property {Chunks} chunks
 */

/**
 * What a room needs of the others.
 *
 * @typedef {object} Neighbours
 * @property {Roster} roster
 * @property {Announcements} announcements
 * @property {Outgoing} outgoing
 * @property {(effect: Effect) => void} emit takes the effects
 */

/**
 * How a command is given, as `Member.ask` has it.
 *
 * @typedef {object} How
 * @property {string | null} peer
 * @property {boolean} any
 * @property {number | null} timeoutS
 * @property {Record<string, unknown>} fields
 */

/** The commands that one peer has given. */
export class Asks {
  #id;
  #limits;
  #roster;
  #announcements;
  #outgoing;
  #returns;
  #roll;
  #emit;
  /** @type {Map<string, Turn>} */
  #turns = new Map();
  /** When one of them may be due; never too late. */
  #soonest = Infinity;
  /** How many of these each peer has. @type {Map<string, number>} */
  #load = new Map();
  /** Of these: for room in the queue. @type {Map<string, Turn>} */
  #waiting = new Map();
  /** Texts that wait for room, too. @type {string[]} */
  #cancels = [];

  /**
   * @param {string} id
   * @param {Readonly<Limits>} limits
   * @param {Neighbours & { returns: Returns, roll: () => number }} neighbours `roll` gives numbers in [0, 1)
   */
  constructor(id, limits, { roster, announcements, outgoing, returns, roll, emit }) {
    this.#id = id;
    this.#limits = limits;
    this.#roster = roster;
    this.#announcements = announcements;
    this.#outgoing = outgoing;
    this.#returns = returns;
    this.#roll = roll;
    this.#emit = emit;
  }

  /**
   * Gives a command, under the id `turnId`. Throws TypeError (no command, no JSON), RangeError (a
   * timeout below 0, `peer` and `any` together), TooLarge; what else is wrong ends the turn.
   *
   * @param {string} turnId
   * @param {string} agent
   * @param {unknown} command
   * @param {Instant} now
   * @param {How} how
   */
  ask(turnId, agent, command, now, { peer, any, timeoutS, fields }) {
    if (command == null) throw new TypeError("no peer knows a command that is null or undefined");
    if (timeoutS !== null && !(timeoutS >= 0)) {
      throw new RangeError(`timeoutS must be a number from 0, got ${timeoutS}`);
    }
    if (any && peer !== null) throw new RangeError("any and peer cannot both say who is meant");
    const patienceS = timeoutS === Infinity ? null : timeoutS;
    const hosts = this.#roster.hosts(agent);
    const mayChoose = hosts.length === 1 || (any && hosts.length > 0);
    const target = peer ?? (mayChoose ? this.#choice(hosts) : null);
    // With `instanceId`, because that is how existing pages know whom to answer.
    const message = { type: "direct", to: agent, turnId, instanceId: this.#id };
    const said = { ...message, answers: "direct", ...fields, data: { command } };
    const text = this.#text(said, target, now);
    this.#outgoing.check(text);
    const underWay = this.#turns.size;
    /** @type {Turn} */
    const turn = {
      id: turnId,
      agent,
      peer: null,
      text,
      timeoutS: patienceS,
      due: Infinity,
      ticket: null,
      sawPeer: false,
      isExcused: false,
      message: any ? said : null,
      before: null,
      isBeforeTold: false,
      isTaken: false,
      chunks: new Chunks(),
    };
    this.#turns.set(turnId, turn);
    this.#waitFor(turn, patienceS, now);
    this.#aim(turn, target);
    const isOwn = agent === this.#id || this.#announcements.agentIds.includes(agent);
    if (isOwn && (target === null || target === this.#id)) {
      this.#end(turn, ownTarget(agent, target, hosts));
    } else if (underWay >= this.#limits.asksMax) {
      this.#end(turn, new QueueFull(`${underWay} commands are under way already`));
    } else {
      this.#offer(turn);
    }
  }

  /**
   * @param {Record<string, unknown>} said
   * @param {string | null} peer
   * @param {Instant} now
   */
  #text(said, peer, now) {
    const target = peer === null ? {} : { targetInstanceId: peer };
    return compose(this.#id, { ...target, ...said }, now);
  }

  /** @param {string | null} peer */
  #isHere(peer) {
    return peer !== null && this.#roster.peers.has(peer);
  }

  /**
   * Its user waits no more.
   *
   * @param {string} turnId
   * @param {Instant} now
   */
  abandon(turnId, now) {
    const turn = this.#turns.get(turnId);
    if (turn) this.#giveUp(turn, new TurnError("the turn was abandoned"), now);
  }

  /**
   * The peer is leaving: nobody will hear an answer.
   *
   * @param {RelayError} error
   * @param {Instant} now
   */
  leave(error, now) {
    for (const turn of [...this.#turns.values()]) {
      if (this.#outgoing.isConnected) this.#giveUp(turn, error, now);
      else this.#end(turn, error);
    }
  }

  /**
   * The peer is over, and every turn with it.
   *
   * @param {RelayError} error
   */
  end(error) {
    for (const turn of [...this.#turns.values()]) this.#end(turn, error);
  }

  // Any of several

  /**
   * One of those that have the fewest commands of this peer.
   *
   * @param {readonly string[]} hosts
   * @returns {string}
   */
  #choice(hosts) {
    const load = (/** @type {string} */ host) => this.#load.get(host) ?? 0;
    const fewest = hosts.reduce((least, host) => Math.min(least, load(host)), Infinity);
    const idle = hosts.filter((host) => load(host) === fewest);
    const number = idle.length > 1 ? Math.floor(this.#roll() * idle.length) : 0;
    return /** @type {string} */ (idle[number]);
  }

  /**
   * The turn is for this peer from now on.
   *
   * @param {Turn} turn
   * @param {string | null} peer
   */
  #aim(turn, peer) {
    if (turn.peer !== null) {
      const load = (this.#load.get(turn.peer) ?? 0) - 1;
      if (load > 0) this.#load.set(turn.peer, load);
      else this.#load.delete(turn.peer);
    }
    turn.peer = peer;
    turn.sawPeer = this.#isHere(peer);
    if (peer !== null) this.#load.set(peer, (this.#load.get(peer) ?? 0) + 1);
  }

  /**
   * Asks another one of these peers instead. False: there is none, or it is too late.
   *
   * @param {Turn} turn
   * @param {readonly string[]} hosts
   * @param {Instant} now
   */
  #askAnother(turn, hosts, now) {
    const said = turn.message;
    const others = hosts.filter((host) => host !== turn.peer && host !== this.#id);
    if (said === null || turn.isTaken || others.length === 0) return false;
    if (turn.ticket !== null) this.#outgoing.withdraw(turn.ticket);
    this.#waiting.delete(turn.id);
    turn.before = turn.peer;
    this.#aim(turn, this.#choice(others));
    turn.message = null;
    turn.ticket = null;
    turn.text = this.#text(said, turn.peer, now);
    this.#waitFor(turn, turn.timeoutS, now);
    this.#offer(turn);
    return true;
  }

  // Waiting for room in the queue

  /** @param {Turn} turn */
  #offer(turn) {
    if (!this.#waits) {
      this.#send(turn);
    } else if (this.#waiting.size < this.#limits.turnsMax) {
      this.#waiting.set(turn.id, turn);
    } else {
      const sentence = `${this.#waiting.size} commands wait for room in the queue already`;
      this.#end(turn, new QueueFull(sentence));
    }
  }

  /** A command must wait. Without a connection none does: the queue takes it, or nothing. */
  get #waits() {
    const hasRoom = this.#outgoing.hasRoom && this.#waiting.size === 0;
    return this.#outgoing.isConnected && !hasRoom;
  }

  /** There may be room in the queue now, or no connection any more. */
  flush() {
    this.#flushCancels();
    for (const [turnId, turn] of this.#waiting) {
      if (!this.#outgoing.hasRoom && this.#outgoing.isConnected) return;
      this.#waiting.delete(turnId);
      this.#send(turn);
    }
  }

  #flushCancels() {
    while (this.#cancels.length > 0 && this.#outgoing.hasRoom) {
      try {
        this.#outgoing.offer(this.#cancels.shift() ?? "", null);
      } catch (error) {
        if (!(error instanceof RelayError)) throw error; // Its own offline presence says it as well.
      }
    }
  }

  /** @param {Turn} turn */
  #send(turn) {
    try {
      const target = { to: turn.agent, peer: turn.peer };
      turn.ticket = this.#outgoing.offer(turn.text, target);
      turn.text = ""; // The queue has it now.
    } catch (error) {
      if (!(error instanceof RelayError)) throw error;
      this.#end(turn, error);
    }
  }

  /**
   * These messages will not be sent, because the connection was lost.
   *
   * @param {readonly Dropped[]} dropped
   */
  unsent(dropped) {
    const errors = new Map(dropped.map(({ ticket, error }) => [ticket, error]));
    if (errors.size === 0) return;
    for (const turn of [...this.#turns.values()]) {
      const error = turn.ticket === null ? undefined : errors.get(turn.ticket);
      if (error) this.#end(turn, error);
    }
  }

  // What happens

  /**
   * A message with the id of a turn arrived (as `opened`).
   *
   * @param {Message} message
   * @param {number} size
   * @param {Instant} now
   */
  answer(message, size, now) {
    const turn = this.#turns.get(message.turnId ?? "");
    if (!turn || !ANSWERS.includes(message.type)) return;
    if (isRelays(message) && message.type === "error") {
      // The command to the peer that was asked first came too late.
      if (turn.before !== null && word(message, "target") === turn.before) return;
    } else {
      const origin = message.origin ?? null;
      if (turn.peer === null) this.#aim(turn, origin);
      if (origin !== turn.peer) {
        this.#answeredTooLate(turn, message, now);
        return;
      }
      turn.sawPeer ||= !this.#roster.isCut;
      if (message.type !== "error") {
        turn.isTaken = true;
        turn.message = null;
      }
    }
    this.#waitFor(turn, turn.timeoutS, now);
    if (message.type === "error") {
      this.#refused(turn, message, now);
    } else if (message.type === "stream") {
      this.#streamed(turn, message, size, now);
    } else if (message.type === "turn_end") {
      const result = word(message, "result") ?? null;
      const wrong = turn.chunks.end(word(message, "chunks"));
      if (wrong === null) this.#end(turn, null, result);
      else this.#end(turn, new AnswerGap(wrong, result));
    }
  }

  /**
   * The peer that was asked first had the command, and is back: it is told to stop, once.
   *
   * @param {Turn} turn
   * @param {Message} message
   * @param {Instant} now
   */
  #answeredTooLate(turn, { origin, type }, now) {
    if (origin === undefined || origin !== turn.before || turn.isBeforeTold) return;
    turn.isBeforeTold = true;
    if (type === "ack" || type === "stream") this.#cancel(origin, turn.id, now);
  }

  /**
   * @param {Turn} turn
   * @param {Message} message
   * @param {number} size
   * @param {Instant} now
   */
  #streamed(turn, message, size, now) {
    const wrong = turn.chunks.note(word(message, "chunkNum"), isPrivate(message) ? [0] : [0, 1]);
    if (wrong !== null) {
      this.#giveUp(turn, new AnswerGap(wrong), now);
      return;
    }
    this.#emit({ effect: "Chunk", turn: turn.id, text: textOf(word(message, "chunk")), size });
  }

  /**
   * @param {Turn} turn
   * @param {Message} message
   * @param {Instant} now
   */
  #refused(turn, message, now) {
    const error = turnError(message);
    // Another program under the same id has not served it, and one has.
    if (error instanceof NotServed && turn.isTaken) return;
    const listed = error instanceof AmbiguousTarget ? error.peers : [];
    const hosts = listed.length > 0 ? listed : this.#roster.hosts(turn.agent);
    const isTaken = !NOT_TAKEN.includes(word(message, "code"));
    if (isTaken || !this.#askAnother(turn, hosts, now)) this.#end(turn, error);
  }

  /**
   * Somebody has come or gone.
   *
   * @param {Instant} now
   */
  rosterChanged(now) {
    for (const turn of [...this.#turns.values()]) {
      if (this.#isHere(turn.peer)) {
        turn.sawPeer = true;
      } else if (this.#returns.isAway(turn.peer)) {
        // It may be back any moment, and go on with what it has.
      } else if (turn.sawPeer && !this.#askAnother(turn, this.#roster.hosts(turn.agent), now)) {
        this.#end(turn, new TargetLeft(`${turn.peer} left before it answered`));
      }
    }
  }

  /**
   * When (monotonic seconds) the first silence is too long; null if never. It may be too early while
   * there are several turns: it is asked often, and must not look at all of them.
   *
   * @returns {number | null}
   */
  deadline() {
    return this.#turns.size > 0 && this.#soonest < Infinity ? this.#soonest : null;
  }

  /**
   * A sign of life must come within so many seconds.
   *
   * @param {Turn} turn
   * @param {number | null} withinS
   * @param {Instant} now
   */
  #waitFor(turn, withinS, now) {
    turn.due = withinS === null ? Infinity : now.at + withinS;
    this.#soonest = this.#turns.size > 1 ? Math.min(this.#soonest, turn.due) : turn.due;
  }

  /**
   * Ends what is due.
   *
   * @param {Instant} now
   */
  expire(now) {
    const { at } = now;
    for (const turn of [...this.#turns.values()]) {
      if (turn.due > at) continue;
      if (at - turn.due > LATE_S && !turn.isExcused) {
        // It was this page that did not listen: the answer may be here already.
        turn.isExcused = true;
        turn.due = at + this.#limits.probeWithinS;
      } else {
        const sentence = `no sign of ${turn.agent} for ${turn.timeoutS} s`;
        this.#giveUp(turn, new TurnTimeout(sentence), now);
      }
    }
    this.#soonest = Math.min(Infinity, ...[...this.#turns.values()].map(({ due }) => due));
  }

  /**
   * Ends a turn whose answer nobody wants any more, and tells that to whoever works on it.
   *
   * @param {Turn} turn
   * @param {RelayError} error
   * @param {Instant} now
   */
  #giveUp(turn, error, now) {
    const wasSent = turn.ticket !== null && !this.#outgoing.withdraw(turn.ticket);
    if (wasSent) this.#cancel(turn.peer ?? turn.agent, turn.id, now);
    this.#end(turn, error);
  }

  /**
   * @param {string} to
   * @param {string} turnId
   * @param {Instant} now
   */
  #cancel(to, turnId, now) {
    this.#cancels.push(compose(this.#id, { type: "cancel", to, turnId }, now));
    if (this.#cancels.length > this.#limits.asksMax) this.#cancels.shift();
    this.#flushCancels();
  }

  /**
   * @param {Turn} turn
   * @param {RelayError | null} error
   * @param {unknown} [result]
   */
  #end(turn, error, result = null) {
    this.#turns.delete(turn.id);
    this.#waiting.delete(turn.id);
    this.#aim(turn, null);
    if (error !== null && turn.ticket !== null) this.#outgoing.withdraw(turn.ticket);
    this.#emit({ effect: "TurnEnded", turn: turn.id, error, result });
  }
}

/**
 * The relay passes on nothing that its sender has an agent for, and says nothing.
 *
 * @param {string} agent
 * @param {string | null} peer
 * @param {string[]} hosts
 */
function ownTarget(agent, peer, hosts) {
  if (peer === null && hosts.length > 0) {
    const sentence = `${hosts.length} other peers have an agent ${agent}: name one (peer)`;
    return new AmbiguousTarget(sentence, hosts);
  }
  return new UnknownTarget(`${agent} is of this peer itself, and no other has it`);
}
