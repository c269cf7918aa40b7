/**
 * A peer's own side of the protocol without any I/O: what happened goes in, what to do comes out. The
 * twin of protocol/member/member.py.
 *
 * `Member` is one peer of one mesh, over as many connections as it takes, each named by a number. Its
 * owner opens and closes them, reports what comes of them, at what `Instant`, and carries out what
 * `takeEffects()` says, in order (effects.js). What the program sends waits in the queue; the owner
 * takes from it (`nextFrame`) while the connection takes it.
 *
 * Each module beside this one decides one thing. Here they are put together:
 *
 *     connections    two at most: joining, staying, replacing (the table is in lifecycle)
 *     sockets        what goes over them, and goes on after a cut (resuming)
 *     ownership      whose the id is
 *     patience       when joining has taken too long, and which errors end the peer
 *     roster         who else is here
 *     announcements  what this peer says about itself
 *     subscribing    what its program wants of what others say to everyone
 *     outgoing       what waits to be sent, and when it may go
 *     returns        who was here before a loss, and is waited for
 *     recalling      what was said before the peer came, if it asks for it
 *     asks           commands given
 *     services       commands served
 *
 * (Longer than its twin by the types in its comments.)
 *
 * @import { Said } from "./announcements.js"
 * @import { Effect, Instant } from "./effects.js"
 * @import { RelayError } from "./errors.js"
 * @import { Limits } from "./limits.js"
 * @import { RemotePeer } from "./messages.js"
 * @import { Frame, Habits } from "./outgoing.js"
 */

import { Announcements } from "./announcements.js";
import { Asks } from "./asks.js";
import { Connections, NONCE_CHARS_MAX } from "./connections.js";
import { Left } from "./errors.js";
import { ANSWERS, compose } from "./messages.js";
import { Outgoing } from "./outgoing.js";
import { Ownership } from "./ownership.js";
import { Patience } from "./patience.js";
import { Recalling } from "./recalling.js";
import { Returns, targetOf } from "./returns.js";
import { Roster } from "./roster.js";
import { Services } from "./services.js";
import { FOR_ALL, wishOf } from "./subscribing.js";

/**
 * What `Member` needs beside what it is to be: the turn ids of what it sends by itself begin with
 * `token`, and end with a `nonce()`; `turnId` gives one for each command that is asked. Nobody can
 * guess either. `roll` gives numbers in [0, 1); the rest are as in `Outgoing`, `Announcements` and
 * `Ownership`.
 *
 * @typedef {object} Sources
 * @property {string} token
 * @property {() => string} nonce
 * @property {() => number} roll
 * @property {() => string} turnId
 * @property {string | null} keepalive
 * @property {string | null} [owner]
 * @property {boolean} [takeover]
 * @property {boolean} [shares] others are meant to have the id too
 * @property {boolean} [elects] the connections of the peer elect who serves (elected)
 * @property {unknown} [subscribe] what the program wants (subscribing)
 * @property {number} [history] so many of the last messages are wanted that went to everyone before
 *
 * @typedef {Sources & Habits} Means
 */

/**
 * How a command is given: `peer`, which one is meant; `any`, it may be any of those that have the agent;
 * `timeoutS`, the longest silence, null if any; `fields`, further fields of the message.
 *
 * @typedef {object} Asking
 * @property {string | null} [peer]
 * @property {boolean} [any]
 * @property {number | null} [timeoutS]
 * @property {Record<string, unknown>} [fields]
 */

/** One peer of one mesh. */
export class Member {
  /** What the program gets that wants something of a peer which is over, or leaving.
   * @type {RelayError | null} */
  over = null;
  #token;
  #makeTurnId;
  /** @type {Effect[]} */
  #effects = [];
  #announcements;
  #outgoing;
  #roster;
  #returns;
  #patience;
  #asks;
  #services;
  #connections;

  /**
   * Throws TypeError (agents or metadata that are no JSON, a history that is no number, something else as
   * `subscribe`), RangeError (a bad owner, history or `subscribe`), TooLarge (more agents and metadata
   * than a relay takes).
   *
   * @param {string} id
   * @param {unknown} agents
   * @param {unknown} metadata
   * @param {Readonly<Limits>} limits
   * @param {Means} means
   */
  constructor(id, agents, metadata, limits, means) {
    const {
      token,
      nonce,
      roll,
      turnId,
      keepalive,
      owner = null,
      takeover = false,
      shares = false,
      elects = false,
      history = 0,
      subscribe = null,
      ...habits
    } = means;
    this.id = id;
    this.#token = token;
    this.#makeTurnId = turnId;
    /** @param {Effect} effect */
    const emit = (effect) => void this.#effects.push(effect);
    const announcements = new Announcements(id, agents, metadata, keepalive, wishOf(subscribe));
    const roster = new Roster(id, limits, { shares });
    const returns = new Returns(limits, roster);
    const outgoing = new Outgoing(limits, habits, (target) => returns.holds(target));
    this.#announcements = announcements;
    this.#outgoing = outgoing;
    this.#checkPresence(announcements.wanted);
    const ownership = new Ownership(id, owner, { takeover });
    const patience = new Patience(limits, emit);
    const asks = new Asks(id, limits, { roster, announcements, outgoing, returns, roll, emit });
    const neighbours = { roster, announcements, outgoing, emit };
    const services = new Services(id, limits, neighbours, { elects });
    this.#roster = roster;
    this.#returns = returns;
    this.#patience = patience;
    this.#asks = asks;
    this.#services = services;
    const rooms = {
      ownership,
      roster,
      announcements,
      outgoing,
      returns,
      recalling: new Recalling(history, limits),
      asks,
      services,
      patience,
    };
    /** @type {import("./connections.js").Owner} */
    const own = { token, nonce, roll, emit, giveUp: (now, error) => this.end(now, error) };
    this.#connections = new Connections(id, limits, rooms, own);
  }

  // What is seen

  /** Where the membership is in its life. */
  get state() {
    return this.#connections.state;
  }

  /**
   * Who else is here, by id. While there is no connection, who was.
   *
   * @returns {Map<string, RemotePeer>}
   */
  get roster() {
    return this.#roster.peers;
  }

  /** The ids of this peer's own agents. */
  get agentIds() {
    return this.#announcements.agentIds;
  }

  /** The agents of which commands would be handled, if this connection is elected. */
  get servedAgents() {
    return this.#services.agents;
  }

  /** It has joined, and the roster has come whole, or will never be said to have. */
  get isReady() {
    return this.#patience.isReady;
  }

  /** There is a connection over which messages go, or one that was cut and may come back. */
  get isInUse() {
    return this.#connections.isConnected;
  }

  /** There is a connection over which messages go now. */
  get isHere() {
    return this.#connections.isInUse;
  }

  /** The queue takes another message. */
  get hasRoom() {
    return this.#outgoing.hasRoom;
  }

  /** How many messages wait to be sent, or to be sent again after a cut. */
  get queued() {
    return this.#outgoing.size + this.#connections.waiting;
  }

  /** `nextFrame` may have something, now or later: a page looks before whether its socket takes it. */
  get hasToSend() {
    return this.queued > 0 || this.#connections.isBehind;
  }

  /** Something in front of the relay counts frames: what the network holds up would reach it all at
   * once, so that a socket may hold nothing back there. */
  get countsFrames() {
    return this.#outgoing.countsFrames;
  }

  /**
   * What is to be done, in order; taken once.
   *
   * @returns {Effect[]}
   */
  takeEffects() {
    const effects = this.#effects;
    this.#effects = [];
    if (this.#outgoing.takeNews()) effects.push({ effect: "Sendable" });
    return effects;
  }

  // What happens

  /**
   * Joins. A peer that is not ready `withinS` seconds later gives up, unless it has joined at least;
   * null: it never gives up because of that.
   *
   * @param {Instant} now
   * @param {number | null} [withinS]
   */
  begin(now, withinS = null) {
    this.#patience.begin(now.at, withinS);
    this.#connections.begin(now);
  }

  /**
   * The connection is open.
   *
   * @param {number} connection
   * @param {Instant} now
   */
  opened(connection, now) {
    this.#connections.opened(connection, now);
  }

  /**
   * A frame arrived on the connection: text, or what no relay sends.
   *
   * @param {number} connection
   * @param {unknown} frame
   * @param {Instant} now
   */
  received(connection, frame, now) {
    this.#connections.received(connection, frame, now);
  }

  /**
   * The connection is over, or could not be opened. `code`, `reason`: as it was closed.
   *
   * @param {number} connection
   * @param {Instant} now
   * @param {number} [code]
   * @param {string} [reason]
   */
  closed(connection, now, code, reason) {
    this.#connections.closed(connection, now, code, reason);
  }

  /**
   * The connection could not be made. Some errors end the peer (see patience).
   *
   * @param {number} connection
   * @param {RelayError} error
   * @param {Instant} now
   */
  failed(connection, error, now) {
    this.#connections.failed(connection, error, now);
  }

  /**
   * There is reason to look now whether the connection is alive, or to try again.
   *
   * @param {Instant} now
   */
  nudge(now) {
    this.#connections.nudge(now);
  }

  /**
   * Nobody will work or listen for a while: gives up the commands that others have given, and tells
   * them. To be followed by `suspend`, when what is queued was sent, as far as it can be sent at once.
   *
   * @param {Instant} now
   */
  forsake(now) {
    this.#services.forsake(now);
  }

  /**
   * Nobody will listen for a while: say goodbye to the relay, and wait for a nudge.
   *
   * @param {Instant} now
   */
  suspend(now) {
    this.#connections.suspend(now);
  }

  /**
   * Takes nothing more from the program (it gets Left). Commands that are under way end, in both
   * directions, and whoever works on them or waits for them is told. To be followed by `end`, when what
   * is queued has been sent or has had its time (`leaveWithinS`).
   *
   * @param {Instant} now
   */
  leave(now) {
    this.over ??= new Left();
    this.#asks.leave(this.over, now);
    this.#services.forsake(now, { forGood: true });
  }

  /**
   * Leaves now, or gives up because of `error`. Everything that is under way ends.
   *
   * @param {Instant} now
   * @param {RelayError | null} [error]
   */
  end(now, error = null) {
    if (this.state === "ended") return;
    this.over = error ?? new Left();
    this.#connections.end(now);
    this.#patience.end();
    this.#services.end();
    this.#asks.end(this.over);
    this.#effects.push({ effect: "Finished", error });
  }

  // What the program wants

  /**
   * Be someone with these agents and metadata from now on; null: as before. Returns the
   * announcement's number: `Announced` answers it. Throws TypeError (no JSON), TooLarge, and what
   * ended the peer.
   *
   * @param {unknown} agents
   * @param {unknown} metadata
   * @param {Instant} now
   */
  announce(agents, metadata, now) {
    this.#checkOver();
    const said = this.#announcements.made(agents, metadata);
    this.#checkPresence(said);
    const number = this.#announcements.want(said);
    this.#connections.say(now);
    return number;
  }

  /**
   * Wants this from now on (as in subscribing). Returns the number of an announcement. Throws TypeError,
   * RangeError, TooLarge, and what ended the peer.
   *
   * @param {unknown} subscribe
   * @param {Instant} now
   */
  subscribe(subscribe, now) {
    const wish = wishOf(subscribe);
    this.#checkOver();
    const said = this.#announcements.made(null, null, wish);
    this.#announcements.retry();
    this.#checkPresence(said);
    const number = this.#announcements.want(said);
    this.#connections.say(now);
    return number;
  }

  /**
   * Queues a message with these fields (see `compose`). Returns its ticket. Throws TypeError (no JSON,
   * or a type that the peer sends by itself), TooLarge, QueueFull, NotConnected, and what ended the
   * peer.
   *
   * @param {Record<string, unknown>} fields
   * @param {Instant} now
   */
  send(fields, now) {
    const text = compose(this.id, fields, now);
    this.#checkOver();
    const ticket = this.#outgoing.offer(text, targetOf(fields), { isSaid: true });
    if (typeof fields.turnId === "string") this.#services.answered(fields.turnId);
    return ticket;
  }

  /**
   * Does not send this message, if it is still in the queue.
   *
   * @param {number} ticket
   */
  withdraw(ticket) {
    this.#outgoing.withdraw(ticket);
  }

  /**
   * Gives a command to an agent, or to a peer. Returns its turn id, under which the effects `Chunk`
   * and `TurnEnded` tell what comes of it. Throws TypeError (no command, or no JSON), RangeError (a
   * timeout below 0, or `peer` and `any`), TooLarge, and what ended the peer.
   *
   * @param {string} agent
   * @param {unknown} command
   * @param {Instant} now
   * @param {Asking} [how]
   */
  ask(agent, command, now, { peer = null, any = false, timeoutS = 60, fields = {} } = {}) {
    this.#checkOver();
    const turnId = this.#makeTurnId();
    this.#asks.ask(turnId, agent, command, now, { peer, any, timeoutS, fields });
    this.#need(/** @type {string[]} */ (ANSWERS), now);
    return turnId;
  }

  /**
   * Nobody waits for this turn any more. If it was not sent yet, it never will be; if it was, whoever
   * works on it is told. If it is over already, nothing happens.
   *
   * @param {string} turnId
   * @param {Instant} now
   */
  abandon(turnId, now) {
    this.#asks.abandon(turnId, now);
  }

  /**
   * Has commands for these agents handled (`Handle`), null: all that are for this peer. `atATime`: so
   * many at once, null: any number. Returns the number of the service. Throws TypeError, RangeError,
   * and what ended the peer.
   *
   * @param {readonly string[] | null} agents
   * @param {Instant} now
   * @param {{ atATime?: number | null }} [how]
   */
  serve(agents, now, { atATime = null } = {}) {
    this.#checkOver();
    const number = this.#services.serve(agents, now, { atATime });
    this.#need(FOR_ALL, now);
    return number;
  }

  /**
   * @param {readonly string[]} types
   * @param {Instant} now
   */
  #need(types, now) {
    if (this.#announcements.need(types)) this.#connections.say(now);
  }

  /**
   * The handler of a command has ended, however, also if its command was over before.
   *
   * @param {number} command
   */
  returned(command) {
    this.#services.returned(command);
  }

  /**
   * Serves these agents from now on, of those that are served at all; null: all of them.
   *
   * @param {readonly string[] | null} agents
   * @param {Instant} now
   */
  elect(agents, now) {
    this.#services.elect(agents, now);
  }

  /**
   * Another connection of this peer has taken a command (its `Taken`).
   *
   * @param {string} turnId
   * @param {string} agent
   */
  taken(turnId, agent) {
    this.#services.taken(turnId, agent);
  }

  /**
   * Gives this service no more commands. `cancels`: those it has get an error.
   *
   * @param {number} service
   * @param {Instant} now
   * @param {{ cancels: boolean }} how
   */
  stopServing(service, now, how) {
    this.#services.stop(service, now, how);
  }

  /**
   * Sends a piece of the answer to a command. Returns its ticket. Throws as `send`, and TurnError if
   * the command is over.
   *
   * @param {number} command
   * @param {string} chunk
   * @param {Instant} now
   */
  stream(command, chunk, now) {
    this.#checkOver();
    return this.#services.stream(command, chunk, now);
  }

  /**
   * Sends the result of a command: it is over. Returns its ticket. Throws as `stream`; then the
   * command is still under way, and to be ended by `fail`.
   *
   * @param {number} command
   * @param {unknown} result
   * @param {Instant} now
   */
  finish(command, result, now) {
    this.#checkOver();
    return this.#services.finish(command, result, now);
  }

  /**
   * Answers a command with an error: it is over. If it is over already, nothing happens.
   *
   * @param {number} command
   * @param {string} sentence
   * @param {Instant} now
   */
  fail(command, sentence, now) {
    this.#services.fail(command, sentence, now);
  }

  #checkOver() {
    if (this.over !== null) throw this.over;
  }

  /**
   * A relay that drops a message as too large does not say which one that was.
   *
   * @param {Said} said
   */
  #checkPresence(said) {
    const longest = { at: 0, wallMs: 10 ** 12 };
    const text = this.#announcements.longest(
      said,
      `${this.#token}:${"9".repeat(NONCE_CHARS_MAX)}`,
      longest,
    );
    this.#outgoing.check(text, "presence");
  }

  // Time

  /**
   * When (monotonic seconds) `expire` must be called next; null if never.
   *
   * @returns {number | null}
   */
  deadline() {
    const rooms = [this.#connections, this.#patience, this.#asks, this.#services, this.#returns];
    const dues = rooms.map((room) => room.deadline()).filter((due) => due !== null);
    return dues.length ? Math.min(...dues) : null;
  }

  /**
   * Does what is due.
   *
   * @param {Instant} now
   */
  expire(now) {
    this.#connections.expire(now);
    if (this.#returns.expire(now.at)) {
      this.#outgoing.released();
      this.#asks.rosterChanged(now);
    }
    this.#asks.expire(now);
    this.#services.expire(now);
    const error = this.#patience.expire(now.at, { isInUse: this.isInUse });
    if (error !== null) this.end(now, error);
  }

  // What is sent

  /**
   * What to send next on this connection; or, if the pace forbids it, at what time (monotonic
   * seconds) to ask again; or null: nothing waits, or it must not go here, or not now.
   *
   * @param {number} connection
   * @param {Instant} now
   * @returns {Frame | number | null}
   */
  nextFrame(connection, now) {
    return this.#connections.nextFrame(connection, now);
  }
}
