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
 *
 * @import { Neighbours } from "./asks.js"
 * @import { Instant } from "./effects.js"
 * @import { Limits } from "./limits.js"
 * @import { Message } from "./messages.js"
 */

import { RelayError, TurnError } from "./errors.js";
import { compose, isCommand, replyTo, sentenceOf } from "./messages.js";

const STOPPED = "cancelled: it is not served any more";
const CANCELLED = "cancelled: nobody waits for it any more";
const BUSY = "busy: too many commands at a time; try again later";

/**
 * A handler. `agents`: those it serves; null: whatever is for this peer.
 *
 * @typedef {{ number: number, agents: readonly string[] | null }} Service
 */

/**
 * A command that waits for a service, and the agents that have it already.
 *
 * @typedef {{ message: Message, size: number, due: number, served: ReadonlySet<string> }} Unserved
 */

/**
 * A command that a service has, at the cost of `size` bytes. `chunks`: how many were sent. `ackAt`: when
 * to give another sign of life (null: never). `askerWasHere`: its asker has been in the roster meanwhile.
 * `goneAt`: when the asker has been away for too long.
 *
 * @typedef {object} Command
 * @property {number} service
 * @property {string} agent
 * @property {Message} message
 * @property {number} size
 * @property {number} chunks
 * @property {number | null} ackAt
 * @property {boolean} askerWasHere
 * @property {number | null} goneAt
 */

/**
 * Only its asker receives the answers to this command.
 *
 * @param {Command} command
 */
const isAnsweredAlone = ({ message }) => message.fields.answers === "direct";

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
  /** Under way, by number. @type {Map<number, Command>} */
  #commands = new Map();
  #commandsBegun = 0;
  #commandsSize = 0;
  /** @type {Unserved[]} */
  #unserved = [];
  #unservedSize = 0;

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

  // Who serves

  /**
   * A handler serves these agents from now on (null: whatever is for this peer), beginning with what
   * waits for it. Returns the number of the service. Throws TypeError.
   *
   * @param {readonly string[] | null} agents
   * @param {Instant} now
   */
  serve(agents, now) {
    if (agents !== null && !Array.isArray(agents)) throw new TypeError("agents must be an array");
    this.#numbers += 1;
    this.#services.push({ number: this.#numbers, agents: agents && [...agents] });
    this.expire(now);
    for (const waiting of this.#drain()) this.#offer(waiting, now);
    return this.#numbers;
  }

  /**
   * It serves no more. `cancels`: nor what it has already; whoever waits for that is told.
   *
   * @param {number} service
   * @param {Instant} now
   * @param {{ cancels: boolean }} how
   */
  stop(service, now, { cancels }) {
    this.#services = this.#services.filter(({ number }) => number !== service);
    if (!cancels) return;
    for (const [number, command] of [...this.#commands]) {
      if (command.service === service) this.fail(number, STOPPED, now);
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
    if (!isCommand(message) || message.origin === this.#id) return;
    const due = now.at + this.#limits.serveWithinS;
    this.#offer({ message, size, due, served: new Set() }, now);
  }

  /**
   * @param {Unserved} waiting
   * @param {Instant} now
   */
  #offer(waiting, now) {
    const { message } = waiting;
    const served = new Set(waiting.served);
    const named = this.#named(message);
    for (const service of this.#services) {
      for (const agent of this.#meant(service, message, named)) {
        if (served.has(agent)) continue;
        served.add(agent);
        this.#begin(service.number, agent, waiting, now);
      }
    }
    if (named.every((agent) => served.has(agent))) return;
    const isHere = message.to !== undefined && this.#roster.sharedAgentIds.has(message.to);
    if (!isHere && this.#services.some(({ agents }) => agents === null)) {
      this.#refuseUnserved(message, now); // It never will be.
    } else {
      this.#wait({ ...waiting, served });
      this.#makeRoom(now);
    }
  }

  /**
   * Tells the asker that no agent takes its command. What is for the peer itself, or for all, the
   * program may answer by itself, and another program with this id what is for its own.
   *
   * @param {Message} message
   * @param {Instant} now
   */
  #refuseUnserved(message, now) {
    const { to: agent } = message;
    const isOwn = agent !== undefined && this.#announcements.agentIds.includes(agent);
    if (message.type === "broadcast" || agent === undefined || agent === this.#id) return;
    let data;
    if (!isOwn && !this.#roster.sharedAgentIds.has(agent)) {
      data = { error: `there is no agent ${agent} here`, code: "unknown_target" };
    } else if (isOwn && !this.#roster.isShared) {
      data = { error: `${agent} is here, but nobody serves it`, code: "not_served" };
    } else {
      return;
    }
    this.#tell(message, this.#id, "error", data, now);
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
   * @param {Unserved} waiting
   * @param {Instant} now
   */
  #begin(service, agent, { message, size }, now) {
    const { turnsMax, unreadBytesMax } = this.#limits;
    const underWay = this.#commands.size;
    const isTooMuch = underWay > 0 && this.#commandsSize + size > unreadBytesMax;
    if (underWay >= turnsMax || isTooMuch) {
      this.#tell(message, agent, "error", { error: BUSY, code: "busy" }, now);
      return;
    }
    this.#commandsBegun += 1;
    const command = this.#commandsBegun;
    this.#commands.set(command, {
      service,
      agent,
      message,
      size,
      chunks: 0,
      ackAt: now.at + this.#limits.ackEveryS,
      askerWasHere: this.#isHere(message.origin),
      goneAt: null,
    });
    this.#commandsSize += size;
    this.#tell(message, agent, "ack", {}, now);
    this.#emit({ effect: "Handle", service, command, agent, message });
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
      if (isMeant(command)) this.#forsake(number, now);
    }
    for (const waiting of this.#drain()) {
      if (!isMeant(waiting)) this.#wait(waiting);
    }
  }

  /**
   * Nobody waits for this command any more.
   *
   * @param {number} number
   * @param {Instant} now
   */
  #forsake(number, now) {
    const command = this.#over(number);
    if (!command) return;
    const { service, agent, message } = command;
    if (command.goneAt === null || !isAnsweredAlone(command)) {
      this.#tell(message, agent, "error", { error: CANCELLED, code: "cancelled" }, now);
    }
    this.#emit({ effect: "Cancelled", service, command: number });
  }

  /**
   * Somebody has come or gone.
   *
   * @param {Instant} now
   */
  rosterChanged(now) {
    for (const command of this.#commands.values()) {
      if (this.#isHere(command.message.origin)) {
        command.askerWasHere = true;
        command.goneAt = null;
      } else if (command.askerWasHere && !this.#roster.isCut) {
        command.goneAt ??= now.at + this.#limits.askerBackWithinS;
      }
    }
  }

  // What waits for a service

  /** @param {Unserved} command */
  #wait(command) {
    this.#unserved.push(command);
    this.#unservedSize += command.size;
  }

  /**
   * The oldest go if too much waits, and their askers are told.
   *
   * @param {Instant} now
   */
  #makeRoom(now) {
    const { turnsMax, unreadBytesMax } = this.#limits;
    while (
      this.#unserved.length > 1 &&
      (this.#unserved.length > turnsMax || this.#unservedSize > unreadBytesMax)
    ) {
      const { message } = this.#shift();
      if (message.type !== "broadcast") {
        this.#tell(message, this.#id, "error", { error: BUSY, code: "busy" }, now);
      }
    }
  }

  /** The oldest of those that wait, which waits no more. */
  #shift() {
    const oldest = /** @type {Unserved} */ (this.#unserved.shift());
    this.#unservedSize -= oldest.size;
    return oldest;
  }

  #drain() {
    const drained = this.#unserved;
    this.#unserved = [];
    this.#unservedSize = 0;
    return drained;
  }

  /**
   * The program itself says something about a command: it need not be served any more, unless some
   * of the agents it is for have it already.
   *
   * @param {string} turnId
   */
  answered(turnId) {
    if (!this.#unserved.some(({ message }) => message.turnId === turnId)) return;
    for (const waiting of this.#drain()) {
      if (waiting.served.size > 0 || waiting.message.turnId !== turnId) this.#wait(waiting);
    }
  }

  /**
   * When (monotonic seconds) something is due first; null if nothing is.
   *
   * @returns {number | null}
   */
  deadline() {
    let first = this.#unserved[0]?.due ?? Infinity;
    for (const { ackAt, goneAt } of this.#commands.values()) {
      first = Math.min(first, ackAt ?? Infinity, goneAt ?? Infinity);
    }
    return first === Infinity ? null : first;
  }

  /**
   * Refuses what has waited long enough, gives signs of life, cancels for who is gone.
   *
   * @param {Instant} now
   */
  expire(now) {
    while (this.#unserved[0] && this.#unserved[0].due <= now.at) {
      this.#refuseUnserved(this.#shift().message, now);
    }
    for (const [number, command] of [...this.#commands]) {
      if (command.goneAt !== null && command.goneAt <= now.at) {
        this.#forsake(number, now);
      } else if (command.ackAt !== null && command.ackAt <= now.at) {
        command.ackAt = now.at + this.#limits.ackEveryS;
        if (this.#outgoing.isConnected && command.goneAt === null) {
          this.#tell(command.message, command.agent, "ack", {}, now);
        }
      }
    }
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
    streamed.chunks += 1;
    streamed.ackAt = isAnsweredAlone(streamed) ? now.at + this.#limits.ackEveryS : null;
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
  }

  /** The peer is over: nobody can be answered any more. */
  end() {
    this.#services = [];
    this.#commands.clear();
    this.#commandsSize = 0;
    this.#drain();
  }

  /** @param {number} command */
  #over(command) {
    const over = this.#commands.get(command);
    this.#commands.delete(command);
    this.#commandsSize -= over?.size ?? 0;
    return over;
  }

  /** @param {number} command */
  #underWay(command) {
    const underWay = this.#commands.get(command);
    if (!underWay) throw new TurnError("this command is over; nothing more can be said to it");
    return underWay;
  }

  /**
   * @param {Command} command
   * @param {string} type
   * @param {object} data
   * @param {Instant} now
   */
  #answer({ message, agent }, type, data, now) {
    return this.#outgoing.offer(this.#text(message, agent, type, data, now));
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
    try {
      this.#outgoing.offer(this.#text(message, agent, type, data, now), { isReply: true });
    } catch (error) {
      if (!(error instanceof RelayError)) throw error;
    }
  }

  /**
   * @param {Message} message
   * @param {string} agent
   * @param {string} type
   * @param {object} data
   * @param {Instant} now
   */
  #text(message, agent, type, data, now) {
    return compose(this.#id, replyTo(message, agent, type, data), now);
  }
}
