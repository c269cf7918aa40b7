// @ts-nocheck: what is decided here moves to the rooms of protocol/member's twins.
import { agentIds } from "./agents.js";
import { random, utf8 } from "./bytes.js";

/**
 * @import { Agent } from "./agents.js"
 * @import { RelayError as RelayErrorType } from "./errors.js"
 * @import { State } from "./lifecycle.js"
 * @import { Limits } from "./limits.js"
 * @import { Message, RemotePeer } from "./messages.js"
 * @import { Change } from "./roster.js"
 */

import * as errors from "./errors.js";
import { begun, deadline, expire, isInUse, transition } from "./lifecycle.js";
import { limitsWith } from "./limits.js";
import { messageOf, readFrame, textOf } from "./messages.js";
import { Rate } from "./rate.js";
import { timer } from "./timers.js";
import { Unread } from "./unread.js";
import { deferred, iterator } from "./waiting.js";

const { AmbiguousTarget, AnnouncementRefused, BadAddress, Left, NotARelay, NotConnected } = errors;
const { QueueFull, RelayError, TargetLeft, TooLarge, TurnFailed, TurnRefused, TurnTimeout } =
  errors;
const { UnknownTarget, Unreachable } = errors;

/** What a peer needs of the world. Tests put their own in its place (option `_env`). */
const WORLD = {
  connect: (url, protocols) => new WebSocket(url, protocols),
  now: () => performance.now() / 1000,
  wall: () => Date.now(),
  chance: Math.random,
  timer,
  /** Calls `nudge` when there is reason to look now; returns how to stop that. */
  watch(nudge) {
    const shown = () => document.visibilityState === "visible" && nudge();
    globalThis.addEventListener?.("online", nudge);
    globalThis.document?.addEventListener("visibilitychange", shown);
    return () => {
      globalThis.removeEventListener?.("online", nudge);
      globalThis.document?.removeEventListener("visibilitychange", shown);
    };
  },
  /** An error that nobody can catch. */
  report: (error) => (globalThis.reportError ?? console.error)(error),
};

/** One socket and how far it has come. The peer decides; nothing is decided here. */
class Connection {
  socket = null;
  said = null; // What was announced on it last.
  asked = new Map(); // What was announced on it and not answered yet, by turn id.
  hasJoined = false; // Its own presence has come back on it.
  answers = false; // The relay has answered its fence.
  held = []; // What came after its own presence while another one was in use.
  heldSize = 0;
  replayed = new Set(); // Who is in the roster that follows the own presence; null: it is complete.

  constructor(nonce, fence) {
    this.nonce = nonce;
    this.fence = fence;
  }

  get isOpen() {
    return this.socket?.readyState === 1;
  }

  say(text) {
    if (this.isOpen) this.socket.send(text);
  }

  close() {
    if (!this.socket) return;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close(1000);
  }
}

/**
 * A URL, or one with the subprotocols to offer.
 *
 * @typedef {string | { url: string, protocols?: string[] }} Address
 */

/**
 * Fields of a message beside those that a method sets itself.
 *
 * @typedef {Record<string, unknown>} Fields
 */

/**
 * @typedef {object} JoinOptions
 * @property {string | (() => Address | Promise<Address>)} url where the relay is; a function is
 *   called anew for every connection
 * @property {string} id the peer's id, the same over all its connections; see `peerId`
 * @property {Agent[]} [agents]
 * @property {Record<string, unknown>} [metadata] what the presence says beside the agents
 * @property {"wait" | "fail"} [offline] what is sent while there is no connection waits in a bounded
 *   queue (the default), or fails
 * @property {Partial<Limits>} [limits]
 * @property {number} [joinTimeoutS] how long the first joining may take, in seconds: 30 by default,
 *   Infinity to wait for ever
 * @property {"pong" | null} [keepalive] `"pong"` (the default): answers to the relay's pings are
 *   signs of life; null: only messages
 */

/**
 * @typedef {object} AskOptions
 * @property {number} [timeoutS] the longest silence of the agent, in seconds; 60 by default
 * @property {string} [peer] the peer that is meant, where several have the agent
 * @property {Fields} [fields] further fields of the message
 */

/**
 * A command to one of this peer's agents, as a handler gets it.
 *
 * @typedef {object} Command
 * @property {string} text what is asked: `data.command` if it is text, else its JSON
 * @property {string} from the peer or agent that asked: the answers go to it
 * @property {string} origin the peer that asked
 * @property {string} agent which agent is asked; the peer's id: the peer itself
 * @property {string} turnId what ties the command and its answers together
 * @property {any} data all that the message says
 * @property {(chunk: string) => Promise<void>} stream sends a piece of the answer
 */

/**
 * Joins a mesh. Resolves to the peer once it is in the mesh and knows who else is. Rejects with a
 * RelayError, and with TypeError or RangeError for options that cannot be meant.
 *
 * @param {JoinOptions} options
 * @returns {Promise<Peer>}
 */
export function join(options) {
  return Peer.join(options);
}

const OWN_TYPES = ["presence", "heartbeat", "capabilities"]; // The peer itself sends them.
// While connected, senders that wait may queue so many times the queue's bounds; those who do not
// wait must hear of it before the page is out of memory.
const QUEUE_TIMES = 10;
const SENTENCE_CHARS_MAX = 1000; // An error that is too large to be sent would say nothing.
const BUFFERED_BYTES_MAX = 2 ** 18; // Beyond, the socket is not given more: it has not sent that yet.
// Of what the relay allows, so that it never has to drop anything: heartbeats come on top, and what a
// network held up arrives at once, faster than it was sent. Half of the burst makes up for a second
// of that under the default limits.
const PACE = 0.9;
const PACE_BURST = 0.5;
const PUMP_EVERY_S = 0.004; // Browsers do not run timers more often.

export class Peer {
  #env;
  #limits;
  #options;
  #announced; // What this peer says about itself, and who waits for the relay to take it.
  #accepted = null; // The latest of that which the relay has taken.
  #membership;
  #inUse = null;
  #next = null;
  #isHeld = false; // Nothing is sent while the connection changes.
  #renewalFence = null;
  #cancelAlarm = null;
  #alarmAt = Infinity;
  #timers = new Set();
  #unwatch;
  #failingSince = null; // With nothing but errors that no further attempt should mend.
  #why = "no answer"; // Why the latest attempt failed, for people.
  #ready = deferred();
  #ended = deferred();
  #over = null; // The error that everybody gets once this is over.
  #tag = random();
  #count = 0;

  #queue = [];
  #queueBytes = 0;
  #isPumpSet = false;
  #drained = deferred();
  // What the relay allows. It says so before `join` resolves; one that never does gets these.
  #messageBytesMax = 2 ** 20;
  #rate = new Rate(PACE * 1000, PACE_BURST * 2000);
  #frames = null; // The rate of frames, where an edge in front of the relay counts them,
  #frameBytes = Infinity; // and how long one may be there.
  #batches = false; // The relay takes arrays of messages.

  #beatAt = 0;
  #beatWall = 0;

  #known = new Map(); // Peer id to { peer, text }, the text of its latest presence.
  #news = deferred();
  #unread;
  #turns = new Map();
  #servers = new Set();
  #unserved; // Commands.
  #shared = []; // The agents of all connections with this id, as the relay says.
  #serving = 0;

  static async join(options) {
    const peer = new Peer(options);
    const { joinTimeoutS = 30 } = options;
    peer.#beat();
    peer.#apply(expire(peer.#membership, peer.#env.now(), peer.#env.chance(), peer.#limits));
    if (joinTimeoutS < Infinity) {
      peer.#after(joinTimeoutS, () => {
        if (!peer.#ready.isDone) peer.#end(unreachable(peer.#why, joinTimeoutS));
      });
    }
    await peer.#ready.promise;
    return peer;
  }

  constructor({ url, id, agents = [], metadata = {}, limits, _env, ...options }) {
    if (typeof id !== "string" || id === "") throw new TypeError("a peer needs an id, a string");
    if (![undefined, "wait", "fail"].includes(options.offline)) {
      throw new TypeError('offline must be "wait" or "fail"');
    }
    if (typeof url !== "string" && typeof url !== "function") {
      throw new BadAddress("the url must be a string, or a function that returns one");
    }
    this.#env = { ...WORLD, ..._env };
    this.#limits = limitsWith(limits);
    this.#options = { url, ...options };
    /** @type {string} */
    this.id = id;
    this.#announced = this.#checked(agents, metadata);
    this.#unread = new Unread(this.#limits);
    this.#unserved = new Unread({ ...this.#limits, unreadMessagesMax: this.#limits.turnsMax });
    this.#membership = begun(this.#env.now());
    this.#unwatch = this.#env.watch(() => this.nudge());
  }

  // What a user sees ----------------------------------------------------------------------------

  /**
   * Where the membership is in its life.
   *
   * @returns {State}
   */
  get state() {
    return this.#membership.state;
  }

  /**
   * Who else is here: a copy.
   *
   * @returns {Map<string, RemotePeer>}
   */
  get roster() {
    return new Map(Array.from(this.#known, ([id, { peer }]) => [id, peer]));
  }

  /**
   * Resolves when this is over: to null after `leave()`, else to the error.
   *
   * @returns {Promise<RelayErrorType | null>}
   */
  get ended() {
    return this.#ended.promise;
  }

  /**
   * Every message that arrives. A reader that is too slow gets a `Lagged`.
   *
   * @returns {AsyncIterableIterator<Message>}
   */
  [Symbol.asyncIterator]() {
    return this.#unread[Symbol.asyncIterator]();
  }

  /**
   * Who is here, and from then on who has come, changed and gone since the change before.
   *
   * @returns {AsyncIterableIterator<Change>}
   */
  changes() {
    let seen = null;
    return iterator(async () => {
      for (;;) {
        const [before, here] = [seen, this.roster];
        seen = here;
        const joined = [...here.values()].filter(({ id }) => !before?.has(id));
        const updated = [...here.values()].filter(
          (peer) => before?.has(peer.id) && before.get(peer.id) !== peer,
        );
        const left = [...(before?.values() ?? [])].filter(({ id }) => !here.has(id));
        if (!before || joined.length || updated.length || left.length) {
          return { done: false, value: { joined, updated, left, here: new Map(here) } };
        }
        if (this.state === "ended") {
          if (this.#over instanceof Left) return { done: true, value: undefined };
          throw this.#over;
        }
        await this.#news.promise;
      }
    });
  }

  /**
   * Sends a message of any type. Resolves when it is handed to the socket, so that to await it is
   * to send no faster than the relay takes it.
   *
   * @param {string} type
   * @param {Fields} [fields]
   * @returns {Promise<void>}
   */
  async send(type, fields) {
    await this.#post(type, fields).promise;
  }

  /**
   * Says something to all other peers.
   *
   * @param {unknown} data
   * @param {Fields} [fields]
   * @returns {Promise<void>}
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
   * @returns {Promise<void>}
   */
  direct(to, data, fields) {
    return this.send("direct", { to, data, ...fields });
  }

  /**
   * Says that a command was taken.
   *
   * @param {string} turnId
   * @param {Fields} [fields]
   * @returns {Promise<void>}
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
   * @returns {Promise<void>}
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
   * @returns {Promise<void>}
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
   * @returns {Promise<void>}
   */
  error(turnId, sentence, fields) {
    return this.send("error", { turnId, data: { error: sentence }, ...fields });
  }

  /**
   * Changes what this peer says about itself. Resolves when the relay has taken it.
   *
   * @param {{ agents?: Agent[], metadata?: Record<string, unknown> }} changes
   * @returns {Promise<void>}
   */
  async announce({ agents = this.#announced.agents, metadata = this.#announced.metadata }) {
    if (this.#over) throw this.#over;
    const { resolve, reject } = this.#announced.answer;
    this.#announced = this.#checked(agents, metadata);
    const { promise } = this.#announced.answer;
    promise.then(resolve, reject); // The one before may never be said.
    this.#announceChanges();
    return promise;
  }

  /** There is reason to look whether the connection is alive, or to try now to make one. */
  nudge() {
    this.#step("Nudged");
  }

  /**
   * Sends what is queued, if need be after a reconnection; closes, ends all that is under way.
   *
   * @returns {Promise<void>}
   */
  async leave() {
    if (this.#over) return void (await this.ended);
    this.#over = new Left();
    if (this.#queue.length) {
      const cancel = this.#after(this.#limits.leaveWithinS, this.#drained.resolve);
      await this.#drained.promise;
      cancel();
    }
    this.#end(this.#over);
  }

  /**
   * Gives a command to an agent. The answer comes in chunks (`for await`) and as a whole
   * (`result()`). `timeoutS` is the longest silence; `peer` says whose agent, if several have it.
   *
   * @param {string} agent
   * @param {{}} command
   * @param {AskOptions} [options]
   * @returns {Turn}
   */
  ask(agent, command, { timeoutS = 60, peer, fields } = {}) {
    if (command == null) throw new TypeError("no peer would know this as a command");
    const hosts = [...this.roster.values()].filter(
      ({ id, agents }) => id === agent || agents.includes(agent),
    );
    const target = peer ?? (hosts.length === 1 ? hosts[0].id : undefined);
    const turn = new Turn(this.#nonce(), agent, target, timeoutS, this.#limits, this.#env);
    const { turnId } = turn;
    let item = null;
    const over = () => {
      this.#turns.delete(turnId);
      this.#withdraw(item);
    };
    this.#turns.set(turnId, turn);
    turn._over.then(over, over);
    try {
      const isOwn = agent === this.id || agentIds(this.#announced.agents).includes(agent);
      if (isOwn && (!target || target === this.id)) {
        // The relay passes on nothing that its sender has an agent for, and says nothing.
        const name = JSON.stringify(agent);
        if (target || !hosts.length)
          throw new UnknownTarget(`only this peer itself has ${name}; call it here`);
        const ids = hosts.map(({ id }) => id);
        throw new AmbiguousTarget(`${ids.length} other peers have ${name}: name one (peer)`, ids);
      }
      const address = {
        to: agent,
        instanceId: this.id,
        ...(target && { targetInstanceId: target }),
      };
      item = this.#post("direct", { ...address, turnId, data: { command }, ...fields });
      item.promise.catch((error) => turn._fail(error));
    } catch (error) {
      turn._fail(error);
    }
    return turn;
  }

  /**
   * Answers commands for these agents (all that are announced, and the peer itself), also those
   * that came up to `serveWithinS` before: what the handler streams becomes chunks, what it returns
   * the result, what it throws an error. Returns how to stop.
   *
   * @param {(command: Command) => unknown} handler
   * @param {{ agents?: string[] }} [options]
   * @returns {() => void}
   */
  serve(handler, { agents } = {}) {
    if (agents != null && !Array.isArray(agents)) throw new TypeError("agents must be an array");
    const server = { handler, agents };
    this.#servers.add(server);
    const oldest = this.#env.now() - this.#limits.serveWithinS;
    for (const command of this.#unserved.drain()) {
      if (command.since >= oldest) this.#command(command);
    }
    return () => void this.#servers.delete(server);
  }

  // The life of the membership ------------------------------------------------------------------

  #step(name) {
    const event = { name, at: this.#env.now(), chance: this.#env.chance() };
    this.#apply(transition(this.#membership, event, this.#limits));
  }

  #apply({ membership, effects }) {
    this.#membership = membership;
    for (const effect of effects) this.#carryOut(effect);
    this.#setAlarm();
    this.#announceChanges();
    if (effects.length && !isInUse(this.#membership)) this.#shorten();
    this.#pump();
  }

  #carryOut(effect) {
    if (effect === "open") {
      this.#next = new Connection(this.#nonce(), this.#nonce());
      this.#open(this.#next);
    } else if (effect === "adopt") {
      this.#adopt();
    } else if (effect === "discard") {
      this.#next?.close();
      this.#next = null;
      this.#isHeld = false;
    } else if (effect === "drop") {
      this.#inUse?.close();
      this.#inUse = null;
      // Nothing is left to wait for on the one that was in use.
      if (this.#next?.isOpen && !this.#next.said) this.#announceOn(this.#next);
    } else if (effect === "probe") {
      this.#ask(this.#inUse, this.#nonce());
    }
  }

  /** One alarm, for the deadline of the record. Being too early does no harm. */
  #setAlarm() {
    const due = deadline(this.#membership, this.#limits);
    if (due === null || this.#alarmAt <= due) return;
    this.#cancelAlarm?.();
    this.#alarmAt = due;
    this.#cancelAlarm = this.#after(Math.max(0.001, due - this.#env.now()), () => {
      this.#alarmAt = Infinity;
      this.#apply(expire(this.#membership, this.#env.now(), this.#env.chance(), this.#limits));
    });
  }

  async #open(connection) {
    try {
      const { url } = this.#options;
      const address = typeof url === "function" ? await url() : url;
      if (this.#next !== connection) return; // It took too long, or the peer has left.
      const [target, protocols] =
        typeof address === "string" ? [address] : [address?.url, address?.protocols];
      if (typeof target !== "string") throw new BadAddress("the url function must return a URL");
      const socket = this.#connect(target, protocols);
      connection.socket = socket;
      socket.binaryType = "arraybuffer";
      socket.onopen = () => this.#opened(connection);
      socket.onmessage = ({ data }) => this.#received(connection, data);
      socket.onclose = ({ code }) => this.#closed(connection, code);
    } catch (error) {
      if (this.#next !== connection) return;
      const known = error instanceof RelayError;
      // Its message may hold anything, so that it is not quoted.
      this.#failed(known ? error : new Unreachable(`the url function failed (${error?.name})`));
    }
  }

  #connect(url, protocols) {
    try {
      return this.#env.connect(url, protocols ?? []);
    } catch (error) {
      const advice = "it must begin with ws:// or wss://, and from an https page with wss://";
      throw new BadAddress(`the browser refused the URL (${error.name}): ${advice}`);
    }
  }

  #opened(connection) {
    if (!this.#inUse) {
      this.#announceOn(connection);
      return;
    }
    // What was sent on the one in use must have been decided before the next one speaks.
    this.#isHeld = true;
    this.#renewalFence = this.#nonce();
    if (this.#inUse.answers) this.#ask(this.#inUse, this.#renewalFence);
    else this.#announceOn(connection);
  }

  #announceOn(connection) {
    this.#say(connection, connection.nonce);
    this.#ask(connection, connection.fence); // Its answer comes behind the roster.
  }

  /** What this peer says about itself has changed since it was said on this connection. */
  #announceChanges() {
    const connection = this.#outlet;
    if (connection?.said && connection.said !== this.#announced) {
      this.#say(connection, this.#nonce());
    }
  }

  #say(connection, turnId) {
    connection.said = this.#announced;
    connection.asked.set(turnId, this.#announced);
    connection.say(this.#presence(this.#announced, turnId));
  }

  /** The relay has taken what was announced under this turn id. */
  #taken(connection, turnId) {
    const said = connection.asked.get(turnId);
    if (!connection.asked.delete(turnId)) return;
    this.#accepted = said;
    said.answer.resolve();
  }

  /** Or not. The peer is again what the relay has taken; before that there is nothing to go back to. */
  #refused(connection, turnId, data) {
    const said = connection.asked.get(turnId);
    connection.asked.delete(turnId);
    const refusal = new AnnouncementRefused(textOf(data?.code), textOf(data?.error));
    refusal.isTransient = data?.code === "rate_limited";
    const wasTried = this.#accepted !== null && said !== this.#accepted;
    if (wasTried) said.answer.reject(refusal);
    if (wasTried && this.#announced === said) this.#announced = connection.said = this.#accepted;
    if (connection === this.#next) {
      this.#failed(wasTried ? new Unreachable(refusal.message) : refusal);
    }
  }

  #closed(connection, code) {
    if (connection === this.#inUse) this.#step("Lost");
    if (connection === this.#next) {
      this.#failed(new Unreachable(`closed with code ${code} before the relay had answered`));
    }
  }

  /** The attempt is over. What no further attempt would mend ends the membership, but not while there
   * is a connection that works, nor soon after there was: logins get renewed, and what stands in
   * front of a relay answers all kinds of things while it restarts. */
  #failed(error) {
    this.#why = error.message;
    if (error.isTransient) {
      this.#failingSince = null;
    } else if (!this.#inUse) {
      this.#failingSince ??= this.#env.now();
      const failingS = this.#env.now() - this.#failingSince;
      if (!this.#ready.isDone || failingS >= this.#limits.giveUpAfterS) {
        this.#end(error);
        return;
      }
    }
    this.#step("Failed");
  }

  #adopt() {
    const connection = this.#next;
    this.#inUse = connection;
    this.#next = null;
    this.#isHeld = false;
    this.#failingSince = null;
    this.#taken(connection, connection.nonce);
    // A relay of another make may never answer `capabilities`.
    this.#after(this.#limits.probeWithinS, () => {
      if (connection === this.#inUse) this.#settled(connection);
    });
    const held = connection.held;
    connection.held = [];
    for (const { message, size } of held) this.#deliver(connection, message, size);
  }

  /** The roster is complete, or nobody will ever say so. */
  #settled(connection) {
    connection.replayed = null;
    this.#ready.isDone = true;
    this.#ready.resolve();
  }

  #end(error) {
    if (this.state === "ended") return;
    this.#over = error;
    for (const { reject } of this.#queue.splice(0)) reject(error);
    this.#step("Ended");
    this.#unwatch();
    for (const cancel of [...this.#timers]) cancel();
    this.#ready.reject(error);
    this.#ended.resolve(error instanceof Left ? null : error);
    this.#unread.finish(error instanceof Left ? null : error);
    for (const turn of [...this.#turns.values()]) turn._fail(error);
    this.#announced.answer.reject(error);
    this.#changed();
  }

  #after(seconds, callback) {
    const cancelTimer = this.#env.timer(seconds, () => {
      this.#timers.delete(cancel);
      callback();
    });
    const cancel = () => {
      this.#timers.delete(cancel);
      cancelTimer();
    };
    this.#timers.add(cancel);
    return cancel;
  }

  /** A heartbeat; behind it, if the relay was silent, a question that it must answer. */
  #beat() {
    const { heartbeatEveryS, silentAfterS } = this.#limits;
    const wall = this.#env.wall();
    const slept = this.#beatWall && wall - this.#beatWall > (heartbeatEveryS + silentAfterS) * 1000;
    this.#beatWall = wall;
    this.#after(heartbeatEveryS, () => this.#beat());
    if (slept) this.nudge();
    if (this.#inUse) {
      const text = JSON.stringify({ type: "heartbeat", from: this.id, timestamp: wall });
      this.#inUse.say(text);
      if (this.#membership.heard <= this.#beatAt) this.#ask(this.#inUse, this.#nonce());
    }
    this.#beatAt = this.#env.now();
  }

  #nonce() {
    this.#count += 1;
    return `${this.#tag}-${this.#count}`;
  }

  #ask(connection, turnId) {
    connection?.say(JSON.stringify({ type: "capabilities", turnId }));
  }

  #presence({ agents, metadata }, turnId) {
    const { keepalive = "pong" } = this.#options;
    const data = { ...metadata, agents, ...(keepalive && { keepalive }), accept: ["batch"] };
    return JSON.stringify({
      type: "presence",
      from: this.id,
      turnId,
      data,
      timestamp: this.#env.wall(),
    });
  }

  /** What can be announced: a copy, so that it stays that. Throws what is wrong with it: a relay that
   * drops a message as too large does not say which one that was. */
  #checked(agents, metadata) {
    if (!Array.isArray(agents)) throw new TypeError("agents must be an array");
    const said = { ...JSON.parse(JSON.stringify({ agents, metadata })), answer: deferred() };
    const error = this.#tooLarge(utf8(this.#presence(said, `${this.#tag}-999999999`)).length);
    if (error) throw error;
    return said;
  }

  // What is sent --------------------------------------------------------------------------------

  /** Puts a message into the queue, and returns what waits there. */
  #post(type, fields) {
    if (this.#over) throw this.#over;
    const message = { type, from: this.id, ...fields };
    if (OWN_TYPES.includes(message.type)) {
      throw new TypeError(`${message.type} is sent by the peer itself; use announce or nudge`);
    }
    if (message.from !== this.id) message.instanceId ??= this.id;
    message.timestamp ??= this.#env.wall();
    const item = this.#enqueue(JSON.stringify(message));
    // A command that the program itself says something about is served by it. One that is served for
    // some agents already waits on for the others: those say something too.
    const { turnId } = message;
    this.#unserved.drain(({ message, served }) => message.turnId === turnId && !served.size);
    return item;
  }

  #enqueue(text) {
    const bytes = utf8(text).length;
    const error = this.#tooLarge(bytes);
    if (error) throw error;
    const isHere = isInUse(this.#membership);
    if (!isHere && this.#options.offline === "fail")
      throw new NotConnected("there is no connection at the moment");
    const times = isHere ? QUEUE_TIMES : 1;
    if (!this.#hasRoom(this.#queue.length + 1, this.#queueBytes + bytes, times)) throw queueFull();
    const item = { text, bytes, ...deferred() };
    this.#queue.push(item);
    this.#queueBytes += bytes;
    this.#pump();
    return item;
  }

  /** Takes out of the queue what need not be sent any more. */
  #withdraw(item) {
    const at = this.#queue.indexOf(item);
    if (at < 0) return;
    this.#queue.splice(at, 1);
    this.#queueBytes -= item.bytes;
    this.#pump();
  }

  #hasRoom(messages, bytes, times = 1) {
    const { queueMessagesMax, queueBytesMax } = this.#limits;
    return messages <= times * queueMessagesMax && bytes <= times * queueBytesMax;
  }

  /** The connection is gone: what the queue may not hold meanwhile fails, the newest first. */
  #shorten() {
    const fails = this.#options.offline === "fail";
    while (this.#queue.length && (fails || !this.#hasRoom(this.#queue.length, this.#queueBytes))) {
      const { bytes, reject } = this.#queue.pop();
      this.#queueBytes -= bytes;
      reject(
        fails ? new NotConnected("the connection was lost before this was sent") : queueFull(),
      );
    }
  }

  /** The connection that outgoing messages go to now. */
  get #outlet() {
    if (this.state === "switching") return this.#next;
    return this.#isHeld ? null : this.#inUse;
  }

  #tooLarge(bytes) {
    if (bytes > this.#messageBytesMax) {
      return new TooLarge(`${bytes} bytes; the relay takes ${this.#messageBytesMax} at most`);
    }
    if (bytes > this.#frameBytes) {
      return new TooLarge(
        `${bytes} bytes; what is in front of the relay takes frames of ${this.#frameBytes} at most, ` +
          "and a page cannot spread a message over several; send it in parts (`stream`)",
      );
    }
    return null;
  }

  #pump() {
    const connection = this.#outlet;
    while (this.#queue.length && connection?.isOpen && !this.#isPumpSet) {
      const wait = this.#opensAt(connection) - this.#env.now();
      if (wait > 0) {
        this.#isPumpSet = true;
        this.#after(Math.max(wait, PUMP_EVERY_S), () => {
          this.#isPumpSet = false;
          this.#pump();
        });
        return;
      }
      this.#sendFrame(connection);
    }
    if (!this.#queue.length && this.#over) this.#drained.resolve();
  }

  /** When the next frame may go. */
  #opensAt({ socket }) {
    // What the network holds up would reach an edge all at once, so there nothing may be held up.
    const isFull = socket.bufferedAmount > (this.#frames ? 0 : BUFFERED_BYTES_MAX);
    const taken = isFull ? this.#env.now() + PUMP_EVERY_S : 0;
    return Math.max(taken, this.#rate.opensAt, this.#frames?.opensAt ?? 0);
  }

  /** One message; where frames are counted, as many as fit into one frame. */
  #sendFrame(connection) {
    const now = this.#env.now();
    const items = [];
    let total = 1; // A bracket; behind each message comes a comma, or the other one.
    do {
      const item = this.#queue.shift();
      this.#queueBytes -= item.bytes;
      this.#rate.take(now);
      items.push(item);
      total += item.bytes + 1;
    } while (
      this.#frames &&
      this.#batches &&
      total + this.#queue[0]?.bytes + 1 <= this.#frameBytes &&
      this.#rate.opensAt <= now
    );
    this.#frames?.take(now);
    const texts = items.map(({ text }) => text);
    connection.say(texts.length > 1 ? `[${texts.join()}]` : texts[0]);
    for (const { resolve } of items) resolve();
  }

  /** The relay's own bounds, as it told them; nonsense changes nothing. */
  #learn({ accept, limits } = {}) {
    const bound = (name) => (limits?.[name] > 0 ? Number(limits[name]) : undefined);
    const perS = bound("messagesPerSecond");
    const framesPerS = bound("framesPerSecond");
    this.#messageBytesMax = bound("messageBytes") ?? this.#messageBytesMax;
    if (perS) this.#rate.set(PACE * perS, PACE_BURST * (bound("messagesBurst") ?? perS));
    if (!framesPerS) this.#frames = null;
    else if (this.#frames) this.#frames.set(PACE * framesPerS, 0);
    else this.#frames = new Rate(PACE * framesPerS, 0);
    this.#frameBytes = (framesPerS && bound("frameBytes")) ?? Infinity;
    this.#batches = Array.isArray(accept) && accept.includes("batch");
    this.#pump();
  }

  // What arrives --------------------------------------------------------------------------------

  #received(connection, data) {
    const messages = readFrame(data);
    if (messages === null) {
      const sentence =
        "what answers at this URL is not a relay of agent meshes; check host, port and path (/ws)";
      if (connection === this.#next) this.#failed(new NotARelay(sentence));
      else if (connection === this.#inUse) this.#step("Lost"); // Whether it is a relay shows in joining again.
      return;
    }
    if (connection === this.#inUse) this.#step("Heard");
    const size = Math.ceil(data.length / messages.length);
    for (const message of messages) this.#arrived(connection, message, size);
  }

  #arrived(connection, message, size) {
    const { type, from, turnId } = message;
    const isOwn = type === "presence" && from === this.id;
    if (isOwn) this.#shared = agentIds(message.data?.agents);
    if (connection !== this.#inUse && connection !== this.#next) return;
    if (!connection.hasJoined) {
      // Whatever precedes the own presence was said before this connection joined.
      if (isOwn && turnId === connection.nonce) {
        connection.hasJoined = true;
        if (connection === this.#next) this.#step("Joined"); // Else the mark was here before it.
      } else if (type === "error" && from === "relay" && connection === this.#next) {
        // An error without a turn id is about the presence too: nothing else was said here.
        const { nonce, asked } = connection;
        if (asked.has(nonce) && (turnId ?? nonce) === nonce)
          this.#refused(connection, nonce, message.data);
      }
    } else if (connection === this.#next) {
      connection.held.push({ message, size });
      connection.heldSize += size;
      const { unreadMessagesMax, unreadBytesMax } = this.#limits;
      const tooMuch =
        connection.held.length > unreadMessagesMax || connection.heldSize > unreadBytesMax;
      if (tooMuch) this.#step("Elapsed");
    } else if (isOwn && this.#next?.said && turnId === this.#next.nonce) {
      this.#step("Marked");
    } else {
      this.#deliver(connection, message, size);
    }
  }

  /** What goes wrong with one message is no reason to lose those behind it. */
  #deliver(connection, fields, size) {
    try {
      this.#handle(connection, fields, size);
    } catch (error) {
      this.#env.report(error);
    }
  }

  #handle(connection, fields, size) {
    const { type, from, turnId, data } = fields;
    if (type === "capabilities_response" && this.#isOurs(turnId)) {
      this.#answered(connection, turnId, data);
      return;
    }
    if (type === "presence" && !this.#noticed(connection, fields)) return;
    if (type === "error" && from === "relay" && connection.asked.has(turnId)) {
      this.#refused(connection, turnId, data);
      return;
    }
    const message = messageOf(fields);
    this.#unread.put(message, size);
    if (typeof turnId !== "string") return;
    this.#turns.get(turnId)?._answered(message, size);
    const isCommand = (type === "direct" || type === "broadcast") && data?.command != null;
    if (!isCommand || message.origin === this.id) return;
    this.#command({ message, size, since: this.#env.now(), served: new Set() });
  }

  #isOurs(turnId) {
    return typeof turnId === "string" && turnId.startsWith(this.#tag);
  }

  #answered(connection, turnId, data) {
    this.#learn(data ?? {});
    if (turnId === connection.fence) {
      connection.answers = true;
      for (const id of this.#known.keys()) {
        if (connection.replayed && !connection.replayed.has(id)) this.#gone(id);
      }
      this.#settled(connection);
    }
    const next = this.#next;
    if (turnId === this.#renewalFence && next?.isOpen && !next.said) this.#announceOn(next);
  }

  /** Notes what a presence says. False if nobody needs to hear of it. */
  #noticed(connection, fields) {
    const { from, turnId, data } = fields;
    if (from === this.id) {
      this.#taken(connection, turnId);
      return false; // Its own, or that of another tab with the same id.
    }
    if (typeof from !== "string") return true;
    if (data?.status === "offline") {
      this.#gone(from);
      return true;
    }
    const before = this.#known.get(from);
    const text = JSON.stringify(fields);
    connection.replayed?.add(from);
    if (before?.text === text) return connection.replayed === null;
    const peer = Object.freeze({ id: from, agents: agentIds(data?.agents), data: data ?? {} });
    const isNew = !before || JSON.stringify(before.peer) !== JSON.stringify(peer);
    this.#known.set(from, { peer: isNew ? peer : before.peer, text });
    if (isNew) this.#changed();
    return true;
  }

  #gone(id) {
    if (!this.#known.delete(id)) return;
    for (const turn of [...this.#turns.values()]) turn._left(id);
    this.#changed();
  }

  #changed() {
    this.#news.resolve();
    this.#news = deferred();
  }

  // Commands served -----------------------------------------------------------------------------

  /** The first server for an agent gets its commands. What nobody serves waits a while, because
   * others see a peer before its program gets as far as `serve`. `served`: who has it already. */
  #command(command) {
    const { message, size, served } = command;
    const named = this.#named(message);
    for (const { handler, agents } of this.#servers) {
      for (const agent of this.#meant(message, named, agents)) {
        if (served.has(agent)) continue;
        served.add(agent);
        this.#run(handler, agent, message);
      }
    }
    if (named.every((agent) => served.has(agent))) return;
    if ([...this.#servers].some(({ agents }) => !agents) && !this.#shared.includes(message.to)) {
      // Then it is for nobody that this peer has, and never will be served.
      this.#refuse(message, this.id, {
        error: sentenceOf(`there is no agent ${textOf(message.to)} here`),
      });
    } else {
      this.#unserved.put(command, size);
    }
  }

  /** Whom a command is for; the peer's id stands for the peer itself. */
  #named({ type, to = this.id }) {
    const announced = agentIds(this.#announced.agents);
    return type !== "broadcast" ? [to] : announced.length > 0 ? announced : [this.id];
  }

  /** Those of the agents served whom it is for. */
  #meant({ type }, named, served) {
    if (served && type === "broadcast") return served;
    const own = served ?? [...agentIds(this.#announced.agents), this.id];
    return named.filter((agent) => own.includes(agent));
  }

  #reply({ from, turnId }, agent, type, data) {
    return this.send(type, { from: agent, to: from, instanceId: this.id, turnId, data });
  }

  #refuse(message, agent, data) {
    this.#reply(message, agent, "error", data).catch(() => {}); // Then there is nobody to tell.
  }

  async #run(handler, agent, message) {
    const { from, origin, turnId, data } = message;
    if (this.#serving >= this.#limits.turnsMax) {
      const error = `busy: ${this.#serving} commands are being served; try again later`;
      this.#refuse(message, agent, { code: "busy", error });
      return;
    }
    this.#serving += 1;
    const reply = (type, data) => this.#reply(message, agent, type, data);
    reply("ack", {}).catch(() => {});
    let chunkNum = -1;
    const stream = (chunk) => {
      chunkNum += 1;
      return reply("stream", { chunk, chunkNum });
    };
    const text = textOf(data.command);
    try {
      await null; // So that a handler never runs in the middle of something.
      const result = await handler({ text, from, origin, agent, turnId, data, stream });
      await reply("turn_end", { result: result ?? null });
    } catch (error) {
      this.#refuse(message, agent, { error: sentenceOf(error) });
    } finally {
      this.#serving -= 1;
    }
  }
}

/** What is told of anything that was thrown: not too much, and something in any case. */
function sentenceOf(thrown) {
  let text = "";
  try {
    text = String(thrown?.message || thrown?.name || thrown);
  } catch {
    // An object that cannot even be shown.
  }
  const cut = (text || "an error without words").slice(0, SENTENCE_CHARS_MAX);
  return cut.replace(/\p{Surrogate}$/u, ""); // Not half a character.
}

const queueFull = () =>
  new QueueFull("too much waits to be sent already; wait for `send` each time");

function unreachable(why, seconds) {
  return new Unreachable(
    `not joined within ${seconds} s (latest: ${why}). A browser hides the reason; check that a relay is at ` +
      "this URL, that it allows this page's origin (--allowed-origins), and on AWS that the credentials " +
      "are valid and may invoke the runtime, the region, and this machine's clock",
  );
}

const LATE_S = 1; // Whoever looks so long after a turn was due was asleep, or frozen.

/** A command that was given. Names with an underscore are the peer's to call. */
export class Turn {
  #chunks;
  #done = deferred();
  #isOver = false;
  #agent;
  #target;
  #timeoutS;
  #heardAt;
  #excuseS; // What a turn gets more, once, that was looked at late.
  #env;
  #cancel;

  constructor(turnId, agent, target, timeoutS, limits, env) {
    /** @type {string} */
    this.turnId = turnId;
    this.#agent = agent;
    this.#target = target;
    this.#timeoutS = timeoutS;
    this.#env = env;
    this.#chunks = new Unread(limits);
    this.#excuseS = limits.probeWithinS;
    this.#heardAt = env.now();
    this.#wait(timeoutS);
  }

  /**
   * What the agent returned. Rejects with a TurnError, or what ended the membership.
   *
   * @returns {Promise<any>}
   */
  result() {
    return this.#done.promise;
  }

  /**
   * The chunks, as they come; afterwards it ends, or throws what `result()` rejects with.
   *
   * @returns {AsyncIterableIterator<string>}
   */
  [Symbol.asyncIterator]() {
    return this.#chunks[Symbol.asyncIterator]();
  }

  get _over() {
    return this.#done.promise;
  }

  #wait(seconds) {
    if (seconds === Infinity) return;
    this.#cancel = this.#env.timer(seconds, () => {
      const left = this.#heardAt + this.#timeoutS - this.#env.now();
      if (left > 0) {
        this.#wait(left);
      } else if (left < -LATE_S && this.#excuseS) {
        this.#wait(this.#excuseS); // It was this page that did not listen: it may be here already.
        this.#excuseS = 0;
      } else {
        this._fail(new TurnTimeout(`${this.#agent} gave no sign of life for ${this.#timeoutS} s`));
      }
    });
  }

  /** Only the peer that was asked may answer; if that was open, the first one that does. */
  _answered({ type, from, origin, data }, size) {
    if (type === "error" && from === "relay") return this._fail(relaysError(data));
    if (!["ack", "stream", "turn_end", "error"].includes(type)) return;
    if (origin !== (this.#target ?? origin)) return;
    this.#target = origin;
    this.#heardAt = this.#env.now();
    if (type === "stream") this.#chunks.put(textOf(data?.chunk), size);
    if (type === "turn_end") this.#finish(null, data?.result);
    if (type === "error") this._fail(new TurnFailed(textOf(data?.error, "an error without words")));
  }

  _left(id) {
    if (id === this.#target) this._fail(new TargetLeft(`${id} left before it had answered`));
  }

  _fail(error) {
    this.#finish(error);
  }

  #finish(error, result) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#cancel?.();
    this.#chunks.finish(error);
    if (error) this.#done.reject(error);
    else this.#done.resolve(result);
  }
}

function relaysError(data) {
  const { code, peers } = data ?? {};
  const error = textOf(data?.error);
  if (code === "unknown_target") return new UnknownTarget(error);
  if (code === "ambiguous_target") return new AmbiguousTarget(error, peers ?? []);
  return new TurnRefused(textOf(code), error);
}
