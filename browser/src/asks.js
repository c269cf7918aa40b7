/**
 * Commands that a peer gives to agents of others, and what comes back. The twin of
 * protocol/member/asks.py.
 *
 * A command is queued by the call. Answers (`ack`, `stream`, `turn_end`, `error` with its turn id)
 * count only from the peer that was asked; where the roster did not say which one that is, from the
 * first that answers. The relay's own `error` counts always. A turn ends with its result, with an
 * error of the agent or of the relay, in silence (`timeoutS` without a sign of the agent), when the
 * peer that was asked leaves, when its user abandons it, and with the peer that asked. What was not
 * sent by then never is.
 *
 * @import { Announcements } from "./announcements.js"
 * @import { Effect, Instant } from "./effects.js"
 * @import { Limits } from "./limits.js"
 * @import { Message } from "./messages.js"
 * @import { Outgoing } from "./outgoing.js"
 * @import { Roster } from "./roster.js"
 */

import {
  AmbiguousTarget,
  QueueFull,
  RelayError,
  TargetLeft,
  TurnError,
  TurnTimeout,
  UnknownTarget,
} from "./errors.js";
import { compose, isRelays, textOf, turnError, word } from "./messages.js";

/** The types that answer a command. */
const ANSWERS = ["ack", "stream", "turn_end", "error"];
/** Whoever looks at the clock so long (seconds) after a turn was due was asleep, or frozen. */
const LATE_S = 1;

/**
 * One command under way.
 *
 * @typedef {object} Turn
 * @property {string} id
 * @property {string} agent
 * @property {string | null} peer which one may answer; null while that is open
 * @property {string} text
 * @property {number | null} timeoutS
 * @property {number | null} due when the silence is too long; null if never
 * @property {number | null} ticket its place in the queue; null before it has one
 * @property {boolean} sawPeer the peer was in the roster, or answered, since the command was given
 * @property {boolean} isExcused a clock looked at late was forgiven once
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

/** The commands that one peer has given. */
export class Asks {
  #id;
  #limits;
  #roster;
  #announcements;
  #outgoing;
  #emit;
  /** @type {Map<string, Turn>} */
  #turns = new Map();
  /** Of these: for room in the queue. @type {Map<string, Turn>} */
  #waiting = new Map();

  /**
   * @param {string} id
   * @param {Readonly<Limits>} limits
   * @param {Neighbours} neighbours
   */
  constructor(id, limits, { roster, announcements, outgoing, emit }) {
    this.#id = id;
    this.#limits = limits;
    this.#roster = roster;
    this.#announcements = announcements;
    this.#outgoing = outgoing;
    this.#emit = emit;
  }

  /**
   * Gives a command, under the id `turnId`. Throws TypeError (no command, no JSON), RangeError (a
   * timeout below 0), TooLarge; what else is wrong ends the turn.
   *
   * @param {string} turnId
   * @param {string} agent
   * @param {unknown} command
   * @param {Instant} now
   * @param {{ peer: string | null, timeoutS: number | null, fields: Record<string, unknown> }} how
   */
  ask(turnId, agent, command, now, { peer, timeoutS, fields }) {
    if (command == null) throw new TypeError("no peer knows a command that is null or undefined");
    if (timeoutS !== null && !(timeoutS >= 0)) {
      throw new RangeError(`timeoutS must be a number from 0, got ${timeoutS}`);
    }
    const patienceS = timeoutS === Infinity ? null : timeoutS;
    const hosts = this.#roster.hosts(agent);
    const target = peer ?? (hosts.length === 1 ? (hosts[0] ?? null) : null);
    // With `instanceId`, because that is how existing pages know whom to answer.
    const message = {
      type: "direct",
      to: agent,
      turnId,
      instanceId: this.#id,
      ...(target !== null && { targetInstanceId: target }),
      ...fields,
      data: { command },
    };
    const text = compose(this.#id, message, now);
    this.#outgoing.check(text);
    const underWay = this.#turns.size;
    const turn = {
      id: turnId,
      agent,
      peer: target,
      text,
      timeoutS: patienceS,
      due: patienceS === null ? null : now.at + patienceS,
      ticket: null,
      sawPeer: this.#isHere(target),
      isExcused: false,
    };
    this.#turns.set(turnId, turn);
    const isOwn = agent === this.#id || this.#announcements.agentIds.includes(agent);
    if (isOwn && (target === null || target === this.#id)) {
      this.#end(turn, ownTarget(agent, target, hosts));
    } else if (underWay >= this.#limits.asksMax) {
      this.#end(turn, new QueueFull(`${underWay} commands are under way already`));
    } else if (!this.#waits) {
      this.#send(turn);
    } else if (this.#waiting.size < this.#limits.turnsMax) {
      this.#waiting.set(turnId, turn);
    } else {
      const sentence = `${this.#waiting.size} commands wait for room in the queue already`;
      this.#end(turn, new QueueFull(sentence));
    }
  }

  /** @param {string | null} peer */
  #isHere(peer) {
    return peer !== null && this.#roster.peers.has(peer);
  }

  /**
   * Its user waits no more.
   *
   * @param {string} turnId
   */
  abandon(turnId) {
    const turn = this.#turns.get(turnId);
    if (turn) this.#end(turn, new TurnError("the turn was abandoned"));
  }

  /**
   * The peer is over, and every turn with it.
   *
   * @param {RelayError} error
   */
  end(error) {
    for (const turn of [...this.#turns.values()]) this.#end(turn, error);
  }

  // Waiting for room in the queue

  /** A command must wait. Without a connection none does: the queue takes it, or nothing. */
  get #waits() {
    const hasRoom = this.#outgoing.hasRoom && this.#waiting.size === 0;
    return this.#outgoing.isConnected && !hasRoom;
  }

  /** There may be room in the queue now, or no connection any more. */
  flush() {
    for (const [turnId, turn] of this.#waiting) {
      if (!this.#outgoing.hasRoom && this.#outgoing.isConnected) return;
      this.#waiting.delete(turnId);
      this.#send(turn);
    }
  }

  /** @param {Turn} turn */
  #send(turn) {
    try {
      turn.ticket = this.#outgoing.offer(turn.text);
      turn.text = ""; // The queue has it now.
    } catch (error) {
      if (!(error instanceof RelayError)) throw error;
      this.#end(turn, error);
    }
  }

  // What happens

  /**
   * A message with the id of a turn arrived.
   *
   * @param {Message} message
   * @param {number} size
   * @param {number} at
   */
  answer(message, size, at) {
    const turn = this.#turns.get(message.turnId ?? "");
    if (!turn || !ANSWERS.includes(message.type)) return;
    if (!(isRelays(message) && message.type === "error")) {
      const origin = message.origin ?? null;
      turn.peer ??= origin;
      if (origin !== turn.peer) return;
      turn.sawPeer ||= !this.#roster.isCut;
    }
    if (turn.timeoutS !== null) turn.due = at + turn.timeoutS;
    if (message.type === "stream") {
      const text = textOf(word(message, "chunk"));
      this.#emit({ effect: "Chunk", turn: turn.id, text, size });
    } else if (message.type === "turn_end") {
      this.#end(turn, null, word(message, "result") ?? null);
    } else if (message.type === "error") {
      this.#end(turn, turnError(message));
    }
  }

  /** Somebody has come or gone. */
  rosterChanged() {
    for (const turn of [...this.#turns.values()]) {
      if (this.#isHere(turn.peer)) turn.sawPeer = true;
      else if (turn.sawPeer) {
        this.#end(turn, new TargetLeft(`${turn.peer} left before it answered`));
      }
    }
  }

  /**
   * When (monotonic seconds) the first silence is too long; null if never.
   *
   * @returns {number | null}
   */
  deadline() {
    const dues = [...this.#turns.values()].map(({ due }) => due).filter((due) => due !== null);
    return dues.length ? dues.reduce((least, due) => Math.min(least, due)) : null;
  }

  /**
   * Ends what is due.
   *
   * @param {number} at
   */
  expire(at) {
    for (const turn of [...this.#turns.values()]) {
      if (turn.due === null || turn.due > at) continue;
      if (at - turn.due > LATE_S && !turn.isExcused) {
        // It was this page that did not listen: the answer may be here already.
        turn.isExcused = true;
        turn.due = at + this.#limits.probeWithinS;
      } else {
        this.#end(turn, new TurnTimeout(`no sign of ${turn.agent} for ${turn.timeoutS} s`));
      }
    }
  }

  /**
   * @param {Turn} turn
   * @param {RelayError | null} error
   * @param {unknown} [result]
   */
  #end(turn, error, result = null) {
    this.#turns.delete(turn.id);
    this.#waiting.delete(turn.id);
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
