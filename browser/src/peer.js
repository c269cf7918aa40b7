/**
 * A peer in a page: sockets, timers, promises and iteration around a `Member`, which makes all
 * decisions (member.js). Here it gets the time and the events, and what it decides is carried out.
 *
 * What the relay had not taken when a connection broke is sent again, if the connection can come back;
 * if not, it may have arrived, and a `Gap` says so. (Most of the lines are the types of the methods.)
 */

/**
 * @import { Agent } from "./agents.js"
 * @import { Command } from "./command.js"
 * @import { Happened } from "./driver.js"
 * @import { Effect } from "./effects.js"
 * @import { Gap, RelayError } from "./errors.js"
 * @import { State } from "./lifecycle.js"
 * @import { Json, Message, RemotePeer } from "./messages.js"
 * @import { AskOptions, Events, Fields, JoinOptions, Subscribe } from "./options.js"
 * @import { Change } from "./roster.js"
 * @import { Turn } from "./turn.js"
 * @import { Deferred } from "./waiting.js"
 * @import { World } from "./world.js"
 */

import { Asking } from "./asking.js";
import { random } from "./bytes.js";
import { warnOnce } from "./deprecated.js";
import { Driver } from "./driver.js";
import { DROP_CODE } from "./effects.js";
import { Election, warnWithoutLocks } from "./election.js";
import { Left } from "./errors.js";
import { isShared, ownerOf } from "./ids.js";
import { costOf } from "./incoming.js";
import { limitsWith } from "./limits.js";
import { Lines } from "./lines.js";
import { Listeners } from "./listeners.js";
import { Member } from "./member.js";
import { writeMessage } from "./messages.js";
import { News } from "./news.js";
import { Openings } from "./openings.js";
import { compare, isEmpty } from "./roster.js";
import { Serving } from "./serving.js";
import { pageTimer } from "./timers.js";
import { Shelf, Unread } from "./unread.js";
import { deferred, iterator, Signal } from "./waiting.js";
import { WORLD } from "./world.js";

/** While connected, so many times the queue's bounds may wait. Senders that wait for `send` never
 * come so far; those who do not must hear of it before the page is out of memory. */
const OVERFILL = 10;

/** @type {readonly (keyof Events)[]} */
const EVENTS = ["state", "roster", "message", "gap", "resumed", "twice", "ended"];

const TWICE =
  "another page or program is in the mesh with the id of this peer: both hear, and serve, the same " +
  "commands. Give each an id of its own, or the same `owner` if they are meant to be one peer";

const LEFT_OUT_HERE = "the relay sends everything, and this peer leaves out the rest";

/**
 * Begins to join a mesh, and returns the peer at once: to listen to, to serve and to send with. What it
 * sends waits until it has joined. `await peer.joined` for that. Throws TypeError, RangeError or
 * BadAddress for options that cannot be meant.
 *
 * @param {JoinOptions} options
 * @returns {Peer}
 */
export function connect(options) {
  return new Peer(options);
}

/**
 * Joins a mesh. Resolves to the peer once it is in the mesh and knows who else is. Rejects with a
 * RelayError: an error that no further attempt should mend at once, any other after `withinS`. Rejects
 * with TypeError or RangeError for options that cannot be meant.
 *
 * @param {JoinOptions} options
 * @returns {Promise<Peer>}
 */
export async function join(options) {
  return connect(options).joined;
}

/**
 * A peer of a mesh. Made by `connect` and `join`. Listen to it (`on`), or iterate over it for every
 * message that arrives: each listener and each loop gets everything.
 */
export class Peer {
  #limits;
  #driver;
  #openings;
  #lines;
  /** @type {Election | null} */
  #election = null;
  /** @type {Unread<Message>} */
  #unread;
  #asking;
  #serving;
  /** By ticket: what is told when it was handed to a socket. @type {Map<number, Deferred<void>>} */
  #sending = new Map();
  /** By number of the announcement. @type {Map<number, Deferred<void>>} */
  #announcing = new Map();
  /** @type {Deferred<Peer>} */
  #joined = deferred();
  /** @type {Deferred<RelayError | null>} */
  #ended = deferred();
  #changed = new Signal();
  #listeners;
  #news;
  #isPresentTwice = false;
  #resumed = 0;
  /** Nothing waits to be sent any more. */
  #drained = new Signal();
  /** @type {Promise<void> | null} */
  #leaving = null;
  #unwatch;
  #warn;

  /** @param {JoinOptions & { _env?: Partial<World> }} options as for the function `connect` */
  constructor({ url, id, agents = [], metadata = {}, limits, offline = "wait", ...options }) {
    const { joinTimeoutS, withinS = joinTimeoutS ?? 40 } = options;
    const {
      keepalive,
      owner = ownerOf(id),
      takeover = false,
      token = null,
      worker = true,
      history = 0,
      subscribe = null,
      _env,
    } = options;
    if (typeof id !== "string" || id === "") throw new TypeError("a peer needs an id, a string");
    if (offline !== "wait" && offline !== "fail") {
      throw new TypeError('offline must be "wait" or "fail"');
    }
    if (joinTimeoutS !== undefined) warnOnce("joinTimeoutS", "withinS");
    const world = { ...WORLD, ...(worker ? {} : { timer: pageTimer }), ..._env };
    this.#openings = new Openings(url, token, world);
    this.#limits = limitsWith(limits);
    const member = new Member(id, agents, metadata, this.#limits, {
      token: random(),
      nonce: random,
      roll: world.chance,
      turnId: random,
      keepalive: keepalive === undefined ? "pong" : keepalive,
      waits: offline === "wait",
      splits: false,
      overfill: OVERFILL,
      owner: owner ?? (takeover ? null : random()),
      takeover,
      shares: options.owner !== undefined || (isShared(id) && world.locks !== null),
      elects: world.locks !== null,
      history,
      subscribe,
    });
    this.#driver = new Driver(member, world, {
      carryOut: (effect) => this.#carryOut(effect),
      settled: () => this.#settled(),
    });
    this.#warn = world.warn;
    this.#lines = new Lines(this.#openings, this.#driver, this.#limits, {
      sent: (tickets) => {
        for (const ticket of tickets) settle(this.#sending, ticket, null);
      },
      warn: world.warn,
    });
    const shelf = new Shelf(this.#limits);
    this.#unread = new Unread(shelf);
    this.#asking = new Asking(this.#driver, shelf);
    this.#serving = new Serving(this.#driver, (put) => this.#queued(put));
    this.#listeners = /** @type {Listeners<Events>} */ (new Listeners(EVENTS, world.report));
    this.#news = new News(this.#listeners, this);
    const { locks, channel } = world;
    if (locks) {
      this.#election = new Election({ locks, channel }, id, {
        elected: (agents) => this.#driver.report((member, now) => member.elect(agents, now)),
        taken: (turn, agent) => this.#driver.report((member) => member.taken(turn, agent)),
      });
    }
    this.#unwatch = world.watch({
      nudge: () => this.nudge(),
      suspend: () => {
        this.#driver.tell((member, now) => member.forsake(now)); // Askers hear that before it closes.
        this.#driver.tell((member, now) => member.suspend(now));
      },
    });
    this.#driver.tell((member, now) => member.begin(now, withinS === Infinity ? null : withinS));
  }

  /**
   * As the function `join`.
   *
   * @param {JoinOptions} options
   */
  static join(options) {
    return join(options);
  }

  get #member() {
    return this.#driver.member;
  }

  // What a user sees

  /** @returns {string} */
  get id() {
    return this.#member.id;
  }

  /**
   * Where the membership is in its life.
   *
   * @returns {State}
   */
  get state() {
    return this.#member.state;
  }

  /**
   * Somebody else has been seen in the mesh with this peer's id, without having its `owner`. A warning
   * in the console said so once, and the event `twice`.
   *
   * @returns {boolean}
   */
  get isPresentTwice() {
    return this.#isPresentTwice;
  }

  /**
   * How often the connection was cut and went on without any loss (event `resumed`). Where it could
   * not, there is a `Gap`.
   *
   * @returns {number}
   */
  get resumed() {
    return this.#resumed;
  }

  /**
   * Who else is here, by id: a copy. While there is no connection, who was.
   *
   * @returns {Map<string, RemotePeer>}
   */
  get roster() {
    return new Map(this.#member.roster);
  }

  /**
   * Resolves to the peer itself, once it is in the mesh and knows who else is. Rejects with what ended
   * it before, after `leave()` with Left.
   *
   * @returns {Promise<Peer>}
   */
  get joined() {
    return this.#joined.promise;
  }

  /**
   * Resolves when this is over: to null after `leave()`, else to the error.
   *
   * @returns {Promise<RelayError | null>}
   */
  get ended() {
    return this.#ended.promise;
  }

  /**
   * Calls the listener for every event of this name from now on: `state`, `roster`, `message`, `gap`,
   * `resumed`, `twice` or `ended`. Returns how to stop that. A listener is called at once when something happens; what it
   * throws is reported as an uncaught error, and hurts nobody else. Throws TypeError.
   *
   * @template {keyof Events} Name
   * @param {Name} event
   * @param {(told: Events[Name]) => void} listener
   * @returns {() => void}
   */
  on(event, listener) {
    const stop = this.#listeners.on(event, listener);
    if (event === "roster") this.#news.follow();
    return stop;
  }

  /**
   * Every message that arrives, for every loop. The first loop begins with what arrived before it; any
   * other goes on where one was left (`break`, an error), or else begins now. A reader that is too
   * slow gets a `Lagged`, and a `Gap` where messages may be missing because the connection was lost; it
   * can iterate on. The iteration ends when the peer leaves, and throws what ended it otherwise.
   *
   * @returns {AsyncIterableIterator<Message>}
   */
  [Symbol.asyncIterator]() {
    return this.#unread[Symbol.asyncIterator]();
  }

  /**
   * Who is here (as joined), and from then on who has come, changed and gone since the change before.
   * It ends when the peer leaves, and throws what ended it otherwise.
   *
   * @returns {AsyncIterableIterator<Change>}
   */
  changes() {
    /** @type {Map<string, RemotePeer> | null} */
    let seen = null;
    return iterator(async () => {
      for (;;) {
        const change = compare(seen ?? new Map(), this.roster);
        if (seen === null || !isEmpty(change)) {
          seen = new Map(change.here);
          return { done: false, value: change };
        }
        if (this.state === "ended") {
          if (this.#member.over instanceof Left) return { done: true, value: undefined };
          throw this.#member.over;
        }
        await this.#changed.next;
      }
    });
  }

  /**
   * Sends a message of any type but presence, heartbeat and capabilities (TypeError). Resolves when it
   * is handed to the socket: to await each is to send no faster than the relay takes it. Rejects with
   * QueueFull, TooLarge, NotConnected, TypeError for what is no JSON, and what ended the peer.
   *
   * @param {string} type
   * @param {Fields} [fields]
   * @returns {Promise<void>}
   */
  async send(type, fields) {
    return this.#queued((member, now) => member.send({ type, ...fields }, now));
  }

  /**
   * Says something to all other peers.
   *
   * @param {unknown} data
   * @param {Fields} [fields]
   */
  broadcast(data, fields) {
    return this.send("broadcast", { data, ...fields });
  }

  /**
   * Says something to one peer, or to the peer that has the agent `to`.
   *
   * @param {string} to
   * @param {unknown} data
   * @param {Fields} [fields]
   */
  direct(to, data, fields) {
    return this.send("direct", { to, data, ...fields });
  }

  /**
   * Says that a command was taken.
   *
   * @param {string} turnId
   * @param {Fields} [fields]
   */
  ack(turnId, fields) {
    return this.send("ack", { turnId, data: {}, ...fields });
  }

  /**
   * Sends a piece of the answer to a command; `chunkNum` counts from 0.
   *
   * @param {string} turnId
   * @param {string} chunk
   * @param {number} chunkNum
   * @param {Fields} [fields]
   */
  stream(turnId, chunk, chunkNum, fields) {
    return this.send("stream", { turnId, data: { chunk, chunkNum }, ...fields });
  }

  /**
   * Sends the result of a command.
   *
   * @param {string} turnId
   * @param {unknown} result
   * @param {Fields} [fields]
   */
  turnEnd(turnId, result, fields) {
    return this.send("turn_end", { turnId, data: { result: result ?? null }, ...fields });
  }

  /**
   * Says that a command failed.
   *
   * @param {string} turnId
   * @param {string} sentence
   * @param {Fields} [fields]
   */
  error(turnId, sentence, fields) {
    return this.send("error", { turnId, data: { error: sentence }, ...fields });
  }

  /**
   * Changes what this peer says about itself, also after every reconnection. Resolves when the relay
   * has taken it. Rejects with AnnouncementRefused, and then the peer is again what it was; with
   * TypeError (no JSON), TooLarge, and what ended the peer.
   *
   * @param {{ agents?: readonly Agent[], metadata?: Record<string, unknown> }} changes
   * @returns {Promise<void>}
   */
  async announce({ agents, metadata }) {
    return this.#announced((member, now) => member.announce(agents ?? null, metadata ?? null, now));
  }

  /**
   * Wants this from now on of what others say to everyone, as `subscribe` of `join`. What is wanted no
   * more does not come from the call on; what is wanted anew does when this has resolved, as `announce`
   * does. Rejects as that, and with TypeError or RangeError for what cannot be meant.
   *
   * @param {Subscribe | null} wanted
   * @returns {Promise<void>}
   */
  async subscribe(wanted) {
    return this.#announced((member, now) => member.subscribe(wanted, now));
  }

  /**
   * Announces something. Resolves when the relay has taken it.
   *
   * @param {Happened<number>} announce returns its number
   * @returns {Promise<void>}
   */
  async #announced(announce) {
    /** @type {Deferred<void>} */
    const answer = deferred();
    this.#driver.tell((member, now) => this.#announcing.set(announce(member, now), answer));
    return answer.promise;
  }

  /** There is reason to look now whether the connection is alive, or to try again. */
  nudge() {
    this.#driver.tell((member, now) => member.nudge(now));
  }

  /**
   * Gives a command to an agent, or to a peer itself. It is queued by the call; what comes of it, the
   * turn tells: `await` it for the result, iterate over it for the chunks. What nobody waits for any
   * more is cancelled (see `Turn`), and so is everything when the peer leaves. Throws TypeError (null,
   * undefined, no JSON), RangeError (a timeout below 0, `peer` and `any`), TooLarge, and what ended the
   * peer.
   *
   * @template [Result=Json] what the agent returns
   * @param {string} agent
   * @param {{}} command
   * @param {AskOptions} [options]
   * @returns {Turn<Result>}
   */
  ask(agent, command, options = {}) {
    return this.#asking.ask(agent, command, options);
  }

  /**
   * Answers commands for these agents (the peer's id: for the peer itself), by default for all of this
   * peer's; also those that came up to `serveWithinS` before. What the handler streams becomes chunks,
   * what it returns the result, what it throws an error, which the console shows too. A generator
   * yields chunks and returns the result. `atATime`: so many by this handler, if it cannot run more
   * often at once; up to `serviceQueueMax` others wait until one has ended. Of several tabs that share
   * the peer one serves. `command.signal` is aborted when the asker waits no more. Returns how to stop: commands under way are still answered then. Throws
   * TypeError, RangeError, and what ended the peer.
   *
   * @param {(command: Command) => unknown} handler
   * @param {{ agents?: readonly string[], atATime?: number }} [options]
   * @returns {() => void}
   */
  serve(handler, options = {}) {
    const stop = this.#serving.serve(handler, options);
    if (!this.#election) warnWithoutLocks();
    return stop;
  }

  /**
   * Cancels what was asked; sends what is queued, if need be after a reconnection, within `leaveWithinS`;
   * closes, and ends everything that is under way.
   *
   * @returns {Promise<void>}
   */
  leave() {
    this.#leaving ??= this.#leave();
    return this.#leaving;
  }

  async #leave() {
    this.#driver.tell((member, now) => member.leave(now));
    const cancel = this.#driver.after(this.#limits.leaveWithinS, () => this.#end());
    while (this.#member.queued > 0 && this.state !== "ended") await this.#drained.next;
    cancel();
    this.#end();
  }

  #end() {
    this.#driver.tell((member, now) => member.end(now));
  }

  // The member in time

  /** Every effect was carried out: what waits may be sent now. */
  #settled() {
    if (this.#election) {
      // Whoever is cut off lets another tab serve. If it may come back, it gets what that one has taken.
      const { isHere, isInUse, servedAgents } = this.#member;
      const listens = isInUse && servedAgents.length > 0;
      this.#election.stand(this.#openings.place, isHere ? servedAgents : [], { listens });
    }
    this.#news.tell();
    this.#lines.pump();
    if (this.#member.queued === 0) this.#drained.set();
  }

  /** @param {Effect} effect */
  #carryOut(effect) {
    switch (effect.effect) {
      case "Open":
        return void this.#lines.open(effect.connection);
      case "Transmit":
        return this.#lines.transmit(effect.connection, effect.text);
      case "Close":
        return this.#lines.close(effect.connection);
      case "Drop":
        return this.#lines.close(effect.connection, DROP_CODE);
      case "Arrived":
        this.#unread.put(effect.message, effect.size);
        return this.#listeners.tell("message", effect.message);
      case "Missed":
        return this.#miss(effect.error);
      case "Resumed":
        this.#resumed += 1;
        return this.#listeners.tell("resumed", { seconds: effect.seconds });
      case "Changed":
        this.#news.note();
        return this.#changed.set();
      case "Ready":
        return this.#joined.resolve(this);
      case "AttemptFailed":
        if (effect.news) this.#warn(`not connected, tries again: ${effect.error.message}`);
        return;
      case "Announced":
        return settle(this.#announcing, effect.number, effect.error);
      case "Unsent":
        return settle(this.#sending, effect.ticket, effect.error);
      case "Chunk":
        return this.#asking.chunk(effect);
      case "TurnEnded":
        return this.#asking.ended(effect);
      case "Handle":
        return void this.#serving.handle(effect);
      case "Taken":
        return this.#election?.took(effect.turn, effect.agent);
      case "PresentTwice":
        return this.#foundTwice(effect.presence);
      case "Cancelled":
        return this.#serving.cancelled(effect.command);
      case "Ignored":
        return this.#warn(`ignored ${effect.what}`);
      case "WishRefused":
        return this.#warn(`${LEFT_OUT_HERE}: ${effect.error.message}`);
      case "Finished":
        return this.#finished(effect.error);
      case "Sendable": // The lines are pumped after every effect anyway.
    }
  }

  /** @param {Gap} gap */
  #miss(gap) {
    const costs = gap.inDoubt.map(({ fields }) => costOf(writeMessage(fields)));
    this.#unread.gap(
      gap,
      costs.reduce((sum, cost) => sum + cost, 0),
    );
    this.#listeners.tell("gap", gap);
  }

  /** @param {RelayError | null} error */
  #finished(error) {
    this.#unwatch();
    this.#lines.end();
    this.#driver.end();
    const over = error ?? new Left();
    this.#joined.reject(over);
    this.#unread.finish(error);
    this.#serving.end(over);
    for (const ticket of [...this.#sending.keys()]) settle(this.#sending, ticket, over);
    for (const number of [...this.#announcing.keys()]) settle(this.#announcing, number, over);
    this.#ended.resolve(error);
    this.#changed.set();
    this.#drained.set();
    this.#news.tell();
    this.#listeners.tell("ended", error);
  }

  /**
   * Queues something. Resolves when it is handed to the socket.
   *
   * @param {Happened<number>} put returns its ticket
   * @returns {Promise<void>}
   */
  async #queued(put) {
    /** @type {Deferred<void>} */
    const sent = deferred();
    this.#driver.tell((member, now) => this.#sending.set(put(member, now), sent));
    return sent.promise;
  }

  /** @param {Message} presence */
  #foundTwice(presence) {
    this.#isPresentTwice = true;
    console.warn(`agi-diy-relay-client: ${TWICE}`);
    this.#listeners.tell("twice", presence);
  }
}

/**
 * Answers whoever waits under this number, once.
 *
 * @param {Map<number, Deferred<void>>} waiting
 * @param {number} number
 * @param {RelayError | null} error
 */
function settle(waiting, number, error) {
  const one = waiting.get(number);
  waiting.delete(number);
  if (error) one?.reject(error);
  else one?.resolve();
}
