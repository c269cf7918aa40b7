/**
 * Commands that others give to this peer's agents: who gets which, what waits, what is refused. The
 * twin of protocol/member/services.py.
 *
 * A service is a handler of the program, for some agents or for whatever is for this peer. A command
 * goes to the first service for the agent it names; the peer's own id stands for the peer itself. A
 * peer is visible to others before its program gets as far as `serve`, so a command that nobody
 * serves waits `serveWithinS` for a service, and then its asker is told. More than `turnsMax` at a time,
 * or than cost `unreadBytesMax`, are told that the peer is busy.
 *
 * Every command that a service takes is answered by an `ack` at once, and by one `turn_end` or `error` at
 * the end. As long as the agent says nothing, the `ack` is repeated every `ackEveryS`: to an asker that
 * is answered alone always, to everyone only before the first chunk, because existing pages take it for
 * a beginning. A command is cancelled when its asker says so, or is offline for `askerBackWithinS`.
 * When this connection goes, or falls asleep, others of its peer may stay; so askers are told `left`.
 * Which commands of a service wait for others of it, places decides; and for which agents this one of
 * several connections of the peer serves, elected.
 *
 * @import { Neighbours } from "./asks.js"
 * @import { Instant } from "./effects.js"
 * @import { End } from "./ends.js"
 * @import { Limits } from "./limits.js"
 * @import { Message } from "./messages.js"
 * @import { Waiting } from "./unserved.js"
 */

import { Elected } from "./elected.js";
import { BUSY, CANCELLED, LEFT, MISSED, STOPPED } from "./ends.js";
import { RelayError, TurnError } from "./errors.js";
import { compose, isCommand, isRelays, replyTo, sentenceOf, word } from "./messages.js";
import { Debts } from "./owed.js";
import { Places } from "./places.js";
import { targetOf } from "./returns.js";
import { Served } from "./served.js";
import { Unserved } from "./unserved.js";

/**
 * A handler. `agents`: those it serves; null: whatever is for this peer.
 *
 * @typedef {{ number: number, agents: readonly string[] | null }} Service
 */

/** The services of one peer. */
export class Services {
  #id;
  #limits;
  #roster;
  #announcements;
  #outgoing;
  #emit;
  /** @type {Service[]} */
  #services = [];
  #numbers = 0;
  /** Under way, by number. @type {Map<number, Served>} */
  #commands = new Map();
  #commandsBegun = 0;
  #commandsSize = 0;
  /** When something may be due for one of them; never too late. */
  #soonest = Infinity;
  #debts;
  #unserved;
  #places;
  #elected;

  /**
   * @param {string} id
   * @param {Readonly<Limits>} limits
   * @param {Neighbours} neighbours
   * @param {{ elects: boolean }} how
   */
  constructor(id, limits, { roster, announcements, outgoing, emit }, { elects }) {
    this.#id = id;
    this.#limits = limits;
    this.#roster = roster;
    this.#announcements = announcements;
    this.#outgoing = outgoing;
    this.#emit = emit;
    this.#debts = new Debts(limits.turnsMax);
    this.#unserved = new Unserved(limits);
    this.#places = new Places(limits.serviceQueueMax);
    this.#elected = new Elected({ takesPart: elects, takenMax: limits.unreadMessagesMax });
  }

  // Who serves

  /** The agents that some service is for, each once. */
  get agents() {
    const own = [...this.#announcements.agentIds, this.#id];
    return [...new Set(this.#services.flatMap(({ agents }) => agents ?? own))];
  }

  /**
   * A handler serves these agents from now on (null: whatever is for this peer), beginning with what
   * waits for it, so many commands at a time (null: any number). Returns the number of the service.
   * Throws TypeError, RangeError.
   *
   * @param {readonly string[] | null} agents
   * @param {Instant} now
   * @param {{ atATime: number | null }} how
   */
  serve(agents, now, { atATime }) {
    if (agents !== null && !Array.isArray(agents)) throw new TypeError("agents must be an array");
    if (atATime !== null && !(Number.isInteger(atATime) && atATime >= 1)) {
      throw new RangeError(`atATime must be a whole number from 1, got ${atATime}`);
    }
    this.#numbers += 1;
    this.#places.open(this.#numbers, atATime);
    this.#services.push({ number: this.#numbers, agents: agents && [...agents] });
    this.expire(now);
    for (const waiting of this.#unserved.drain()) this.#offer(waiting, now);
    return this.#numbers;
  }

  /**
   * It serves no more, and what waits in it for others is over. `cancels`: so is what it has already.
   * Whoever waits for that is told.
   *
   * @param {number} service
   * @param {Instant} now
   * @param {{ cancels: boolean }} how
   */
  stop(service, now, { cancels }) {
    this.#services = this.#services.filter(({ number }) => number !== service);
    for (const number of this.#places.close(service)) this.fail(number, STOPPED, now);
    if (!cancels) return;
    for (const [number, command] of [...this.#commands]) {
      if (command.service === service) this.fail(number, STOPPED, now);
    }
  }

  /**
   * This connection serves these agents from now on, null: all, beginning with what nobody has taken
   * yet. What it has already stays here.
   *
   * @param {readonly string[] | null} agents
   * @param {Instant} now
   */
  elect(agents, now) {
    this.#elected.elect(agents);
    this.expire(now);
    for (const waiting of this.#unserved.drain()) this.#offer(waiting, now);
  }

  /**
   * Another connection of this peer has taken a command.
   *
   * @param {string} turnId
   * @param {string} agent
   */
  taken(turnId, agent) {
    this.#elected.noteTaken(turnId, agent);
    for (const waiting of this.#unserved.drain()) {
      const served = new Set(waiting.served);
      if (waiting.message.turnId === turnId) served.add(agent);
      const isOver = this.#named(waiting.message).every((named) => served.has(named));
      if (!isOver) this.#unserved.add({ ...waiting, served });
    }
  }

  // What arrives

  /**
   * A message arrived. Only commands are served, and none of the peer's own.
   *
   * @param {Message} message
   * @param {number} size
   * @param {Instant} now
   */
  note(message, size, now) {
    if (message.type === "cancel") this.#cancel(message, now);
    if (message.type === "error" && isRelays(message)) {
      if (word(message, "code") !== "unknown_target") return;
      this.#debts.undelivered(message);
      this.#pay(now);
    }
    if (!isCommand(message) || message.origin === this.#id) return;
    const due = now.at + this.#limits.serveWithinS;
    this.#offer({ message, size, due, served: new Set(), standsBy: false }, now);
  }

  /**
   * @param {Waiting} waiting
   * @param {Instant} now
   */
  #offer(waiting, now) {
    const { message } = waiting;
    const served = new Set(waiting.served);
    const named = this.#named(message);
    let standsBy = false;
    for (const service of this.#services) {
      for (const agent of this.#meant(service, message, named)) {
        if (served.has(agent)) continue;
        if (this.#elected.isTaken(message.turnId, agent)) {
          served.add(agent);
        } else if (!this.#elected.serves(agent)) {
          standsBy = true;
        } else {
          served.add(agent);
          this.#begin(service.number, agent, waiting, now);
        }
      }
    }
    if (named.every((agent) => served.has(agent))) return;
    const { to = "" } = message;
    const isHere = standsBy || this.#roster.sharedAgentIds.has(to);
    if (!isHere && this.#services.some(({ agents }) => agents === null)) {
      this.#refuseUnserved({ ...waiting, served, standsBy }, now); // It never will be.
    } else {
      this.#unserved.add({ ...waiting, served, standsBy });
      this.#makeRoom(now);
    }
  }

  /**
   * Tells the asker that no agent takes its command. What is for the peer itself, or for all, the
   * program may answer by itself, and another program or tab with this id what is for its own.
   *
   * @param {Waiting} waiting
   * @param {Instant} now
   */
  #refuseUnserved({ message, standsBy }, now) {
    if (standsBy) return;
    const { to: agent } = message;
    const isOwn = agent !== undefined && this.#announcements.agentIds.includes(agent);
    if (message.type === "broadcast" || agent === undefined || agent === this.#id) return;
    let data;
    if (!isOwn && !this.#roster.sharedAgentIds.has(agent)) {
      data = { error: `there is no agent ${agent} here`, code: "unknown_target" };
    } else if (isOwn && !this.#isPerhapsAnothers) {
      data = { error: `${agent} is here, but nobody serves it`, code: "not_served" };
    } else {
      return;
    }
    this.#tell(message, this.#id, "error", data, now);
  }

  /** Somebody else with this id may serve what nobody serves here. Of those who are meant to share an
   * id one serves, perhaps, and the others never do. */
  get #isPerhapsAnothers() {
    return this.#roster.isShared || (this.#roster.shares && this.#numbers === 0);
  }

  /**
   * The agents that a command is for.
   *
   * @param {Message} message
   * @returns {readonly string[]}
   */
  #named({ type, to = this.#id }) {
    if (type !== "broadcast") return [to];
    const own = this.#announcements.agentIds;
    return own.length > 0 ? own : [this.#id];
  }

  /**
   * Those of the service's agents that it is for.
   *
   * @param {Service} service
   * @param {Message} message
   * @param {readonly string[]} named
   */
  #meant({ agents }, { type }, named) {
    if (agents !== null && type === "broadcast") return agents;
    const own = agents ?? [...this.#announcements.agentIds, this.#id];
    return named.filter((agent) => own.includes(agent));
  }

  /**
   * @param {number} service
   * @param {string} agent
   * @param {Waiting} waiting
   * @param {Instant} now
   */
  #begin(service, agent, { message, size }, now) {
    const { turnId } = message;
    if (this.#elected.takesPart && turnId !== undefined) {
      this.#emit({ effect: "Taken", turn: turnId, agent });
    }
    const { turnsMax, unreadBytesMax } = this.#limits;
    const underWay = this.#commands.size;
    const isTooMuch = underWay > 0 && this.#commandsSize + size > unreadBytesMax;
    if (underWay >= turnsMax || isTooMuch) {
      this.#tell(message, agent, "error", BUSY, now);
      return;
    }
    if (this.#places.isFull(service)) {
      const error = `busy: ${this.#places.queueMax} commands wait for ${agent}; try again later`;
      this.#tell(message, agent, "error", { error, code: "busy" }, now);
      return;
    }
    this.#commandsBegun += 1;
    const command = this.#commandsBegun;
    const ackAt = now.at + this.#limits.ackEveryS;
    const since = { ackAt, askerWasHere: this.#isHere(message.origin) };
    this.#commands.set(command, new Served(service, agent, message, size, since));
    this.#commandsSize += size;
    this.#soonest = this.#commands.size > 1 ? Math.min(this.#soonest, ackAt) : ackAt;
    this.#tell(message, agent, "ack", {}, now);
    if (this.#places.enter(service, command)) {
      this.#emit({ effect: "Handle", service, command, agent, message });
    }
  }

  /**
   * The handler of this command has ended: the next one may begin.
   *
   * @param {number} number
   */
  returned(number) {
    const following = this.#places.leave(number);
    const command = following === null ? undefined : this.#commands.get(following);
    if (following === null || !command) return;
    const { service, agent, message } = command;
    this.#emit({ effect: "Handle", service, command: following, agent, message });
  }

  // Who waits for the answer

  /** @param {string | undefined} asker */
  #isHere(asker) {
    return asker !== undefined && this.#roster.peers.has(asker);
  }

  /**
   * An asker waits no more. Nobody else may say that.
   *
   * @param {Message} cancel
   * @param {Instant} now
   */
  #cancel(cancel, now) {
    /** @param {{ message: Message }} one */
    const isMeant = ({ message: { origin, turnId } }) =>
      origin === cancel.origin && turnId === cancel.turnId;
    for (const [number, command] of [...this.#commands]) {
      if (command.isOf(cancel.origin, cancel.turnId)) this.#forsake(number, CANCELLED, now);
    }
    for (const waiting of this.#unserved.drain()) {
      if (!isMeant(waiting)) this.#unserved.add(waiting);
    }
  }

  /**
   * Nobody works here for a while, or `forGood`: askers of what is under way are told, if there is a
   * connection.
   *
   * @param {Instant} now
   * @param {{ forGood?: boolean }} [how]
   */
  forsake(now, { forGood = false } = {}) {
    if (forGood) this.#services = [];
    const end = this.#outgoing.isConnected ? LEFT : null;
    for (const number of [...this.#commands.keys()]) this.#forsake(number, end, now);
  }

  /**
   * Nobody waits for this command any more, or nobody works on it.
   *
   * @param {number} number
   * @param {End | null} end null: its asker is not told
   * @param {Instant} now
   */
  #forsake(number, end, now) {
    const command = this.#commands.get(number);
    if (!command) return;
    const { service, agent, message } = command;
    const hasBegun = !this.#places.withdraw(service, number);
    this.#over(number);
    if (end && (command.goneAt === null || !command.isPrivate)) {
      this.#tell(message, agent, "error", end, now);
    } else if (end) {
      this.#debts.owe(message, agent, end);
    }
    if (hasBegun) this.#emit({ effect: "Cancelled", service, command: number });
  }

  /**
   * Somebody has come or gone.
   *
   * @param {Instant} now
   */
  rosterChanged(now) {
    const tooLongAt = now.at + this.#limits.askerBackWithinS;
    const isSure = !this.#roster.isCut;
    for (const command of this.#commands.values()) {
      const isHere = this.#isHere(command.message.origin);
      command.noteAsker({ isHere, isSure, tooLongAt });
      this.#soonest = Math.min(this.#soonest, command.due);
    }
    this.#pay(now);
  }

  /**
   * Tells askers that are back what they have missed.
   *
   * @param {Instant} now
   */
  #pay(now) {
    for (const { command, agent, data } of this.#debts.due(this.#roster.peers)) {
      this.#tell(command, agent, "error", data, now);
    }
  }

  /** @param {Served} command */
  #given(command) {
    if (!command.isPrivate) return;
    this.#debts.given(command.message, command.agent, MISSED);
  }

  // What waits for a service

  /**
   * The oldest go if too much waits, and their askers are told.
   *
   * @param {Instant} now
   */
  #makeRoom(now) {
    for (const { message, standsBy } of this.#unserved.tooMany()) {
      if (message.type === "broadcast" || standsBy) continue;
      this.#tell(message, this.#id, "error", BUSY, now);
    }
  }

  /**
   * The program itself says something about a command: it need not be served any more, unless some
   * of the agents it is for have it already.
   *
   * @param {string} turnId
   */
  answered(turnId) {
    if (this.#unserved.due === null) return;
    for (const waiting of this.#unserved.drain()) {
      if (waiting.served.size > 0 || waiting.message.turnId !== turnId) this.#unserved.add(waiting);
    }
  }

  /**
   * When (monotonic seconds) something is due first; null if nothing is. It may be too early while
   * commands are served: it is asked often, and must not look at all of them.
   *
   * @returns {number | null}
   */
  deadline() {
    const soonest = this.#commands.size > 0 ? this.#soonest : Infinity;
    const first = Math.min(soonest, this.#unserved.due ?? Infinity);
    return first === Infinity ? null : first;
  }

  /**
   * Refuses what has waited long enough, gives signs of life, cancels for who is gone.
   *
   * @param {Instant} now
   */
  expire(now) {
    for (const waited of this.#unserved.expired(now.at)) this.#refuseUnserved(waited, now);
    for (const [number, command] of [...this.#commands]) {
      if (command.goneAt !== null && command.goneAt <= now.at) {
        this.#forsake(number, CANCELLED, now);
      } else if (command.ackAt !== null && command.ackAt <= now.at) {
        command.ackAt = now.at + this.#limits.ackEveryS;
        if (this.#outgoing.isConnected && command.goneAt === null) {
          this.#tell(command.message, command.agent, "ack", {}, now);
        }
      }
    }
    const dues = [...this.#commands.values()].map(({ due }) => due);
    this.#soonest = Math.min(Infinity, ...dues);
  }

  // What is answered

  /**
   * Sends a piece of the answer. Returns its ticket. Throws TypeError (no JSON), TurnError (the
   * command is over), and as `Outgoing.offer`.
   *
   * @param {number} command
   * @param {string} chunk
   * @param {Instant} now
   */
  stream(command, chunk, now) {
    const streamed = this.#underWay(command);
    const ticket = this.#answer(streamed, "stream", { chunk, chunkNum: streamed.chunks }, now);
    streamed.chunkSent(now.at + this.#limits.ackEveryS);
    return ticket;
  }

  /**
   * Sends the result: the command is over. Returns its ticket. Throws as `stream`, and then it is not
   * over: `fail` it. TurnError: it was over already.
   *
   * @param {number} command
   * @param {unknown} result
   * @param {Instant} now
   */
  finish(command, result, now) {
    const finished = this.#underWay(command);
    const data = { result: result ?? null, chunks: finished.chunks };
    const ticket = this.#answer(finished, "turn_end", data, now);
    this.#over(command);
    this.#given(finished);
    return ticket;
  }

  /**
   * The command is over with an error of so many words, or is over already.
   *
   * @param {number} command
   * @param {string} sentence
   * @param {Instant} now
   */
  fail(command, sentence, now) {
    const failed = this.#over(command);
    if (!failed) return;
    this.#tell(failed.message, failed.agent, "error", { error: sentenceOf(sentence) }, now);
    this.#given(failed);
  }

  /** The peer is over: nobody can be answered any more. */
  end() {
    this.#services = [];
    this.#commands.clear();
    this.#commandsSize = 0;
    this.#debts.clear();
    this.#places = new Places(this.#limits.serviceQueueMax);
    this.#unserved.drain();
  }

  /** @param {number} command */
  #over(command) {
    const over = this.#commands.get(command);
    this.#commands.delete(command);
    this.#commandsSize -= over?.size ?? 0;
    if (over) this.#places.withdraw(over.service, command);
    return over;
  }

  /** @param {number} command */
  #underWay(command) {
    const underWay = this.#commands.get(command);
    if (!underWay) throw new TurnError("this command is over; nothing more can be said to it");
    return underWay;
  }

  /**
   * @param {Served} command
   * @param {string} type
   * @param {object} data
   * @param {Instant} now
   */
  #answer({ message, agent }, type, data, now) {
    const fields = replyTo(message, agent, type, data);
    return this.#outgoing.offer(compose(this.#id, fields, now), targetOf(fields));
  }

  /**
   * Replies without being asked to. Without a connection, and no room to wait for one, nobody is
   * told.
   *
   * @param {Message} message
   * @param {string} agent
   * @param {string} type
   * @param {object} data
   * @param {Instant} now
   */
  #tell(message, agent, type, data, now) {
    const fields = replyTo(message, agent, type, data);
    try {
      this.#outgoing.offer(compose(this.#id, fields, now), targetOf(fields), { isReply: true });
    } catch (error) {
      if (!(error instanceof RelayError)) throw error;
    }
  }
}
