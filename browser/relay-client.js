/**
 * A peer of an agent mesh, for browsers: it joins over a relay, stays connected, asks and serves.
 *
 *     const peer = await join({ url: "ws://localhost:8080/ws", id: "ann", agents: ["coder"] });
 *     const answer = await peer.ask("planner", "what is next?").result();
 *
 * From top to bottom: errors; limits; the life of a membership, as the same table as the relay's
 * own protocol/member/lifecycle.py; timers; one connection; the peer; turns; session ids; and AWS.
 */

// Errors -------------------------------------------------------------------------------------------

/** Everything that can go wrong. No message ever holds a token, a credential or a query string. */
export class RelayError extends Error {
  name = "RelayError";
  /** Trying again may help, and the peer does so by itself. All others end an attempt to join, and a
   * peer that was present after `giveUpAfterS` of nothing else. */
  isTransient = false;
}

/** No connection came about. */
export class Unreachable extends RelayError {
  name = "Unreachable";
  isTransient = true;
}

/** What answered does not speak the protocol of agent meshes. */
export class NotARelay extends RelayError {
  name = "NotARelay";
}

/** The relay did not accept the presence. */
export class AnnouncementRefused extends RelayError {
  name = "AnnouncementRefused";
  constructor(code, sentence) {
    super(`the relay refused the announcement (${code}): ${sentence}`);
    this.code = code;
  }
}

/** The URL, ARN, region, mesh name or identity pool cannot be right. */
export class BadAddress extends RelayError {
  name = "BadAddress";
}

/** There are no credentials to sign with, or they have expired. */
export class NoCredentials extends RelayError {
  name = "NoCredentials";
}

/** The token has expired or was not accepted: the user must log in again. */
export class LoginNeeded extends NoCredentials {
  name = "LoginNeeded";
}

/** There is no connection now, and the peer was told not to wait for one. */
export class NotConnected extends RelayError {
  name = "NotConnected";
}

/** More waits to be sent than the peer may hold. */
export class QueueFull extends RelayError {
  name = "QueueFull";
}

/** The relay would drop a message of this size. */
export class TooLarge extends RelayError {
  name = "TooLarge";
}

/** Messages were not read in time, and the `count` oldest were dropped. Iterate again: what came
 * after them is still there. */
export class Lagged extends RelayError {
  name = "Lagged";
  constructor(count) {
    super(`${count} messages were dropped unread; read faster, or iterate all the time`);
    this.count = count;
  }
}

/** The peer has left the mesh. */
export class Left extends RelayError {
  name = "Left";
  constructor() {
    super("this peer has left the mesh; join again");
  }
}

/** A command got no result. */
export class TurnError extends RelayError {
  name = "TurnError";
}

/** The agent gave no sign of life in time. */
export class TurnTimeout extends TurnError {
  name = "TurnTimeout";
}

/** The agent answered with an error, whose sentence this is. */
export class TurnFailed extends TurnError {
  name = "TurnFailed";
}

/** No peer of the mesh has this agent. */
export class UnknownTarget extends TurnError {
  name = "UnknownTarget";
}

/** Several peers have this agent: say which one is meant (option `peer`). */
export class AmbiguousTarget extends TurnError {
  name = "AmbiguousTarget";
  constructor(sentence, peers) {
    super(sentence);
    this.peers = peers;
  }
}

/** The peer that was asked left before it answered. */
export class TargetLeft extends TurnError {
  name = "TargetLeft";
}

/** The relay did not pass the command on. */
export class TurnRefused extends TurnError {
  name = "TurnRefused";
  constructor(code, sentence) {
    super(`${sentence} (${code})`);
    this.code = code;
  }
}

// Limits -------------------------------------------------------------------------------------------

/** The bounds of one membership; names, defaults and relations are those of `MembershipLimits` in
 * protocol/limits.py. */
export const LIMITS = Object.freeze({
  joinWithinS: 20, // for one attempt: URL, opening, announcement
  backoffFirstS: 0.5, // longest wait after the first failure, doubled after each
  backoffMaxS: 30,
  giveUpAfterS: 30, // of nothing but errors that no further attempt should mend, once present
  heartbeatEveryS: 10,
  silentAfterS: 30, // silence of the relay after which the connection counts as dead
  probeWithinS: 5, // the same when there is doubt
  renewAfterS: 3300, // age of a connection at which a new one replaces it
  switchWithinS: 10, // in which the replaced one may deliver the rest
  queueMessagesMax: 1000,
  queueBytesMax: 2 ** 22,
  unreadMessagesMax: 10_000,
  unreadBytesMax: 2 ** 26, // characters of the same
  turnsMax: 256, // commands served at a time
  serveWithinS: 20, // for which a command waits that nobody serves
  leaveWithinS: 5, // to send what is queued when leaving
});

const ASCENDING = [
  ["heartbeatEveryS", "silentAfterS"],
  ["probeWithinS", "silentAfterS"],
  ["joinWithinS", "renewAfterS"],
];

function leastOf(name) {
  if (name.endsWith("BytesMax")) return 1024;
  if (name.endsWith("Max")) return 1;
  return /^(backoff|giveUp|serve|leave)/.test(name) ? 0 : 0.01;
}

/** The default limits with some changed. Throws RangeError for what cannot be meant. */
export function limitsWith(changes = {}) {
  for (const [name, value] of Object.entries(changes)) {
    if (!Object.hasOwn(LIMITS, name)) throw new RangeError(`there is no limit called ${name}`);
    const least = leastOf(name);
    const isRight = typeof value === "number" && value >= least && value <= 2 ** 53;
    if (!isRight || (name.endsWith("Max") && !Number.isInteger(value))) {
      throw new RangeError(`${name} must be a number from ${least}`);
    }
  }
  const limits = { ...LIMITS, ...changes };
  for (const [small, large] of ASCENDING) {
    if (!(limits[small] < limits[large])) {
      throw new RangeError(
        `${small} (${limits[small]}) must be less than ${large} (${limits[large]})`,
      );
    }
  }
  return Object.freeze(limits);
}

// The life of a membership -------------------------------------------------------------------------
//
// Six states, nine events, and what to do in every cell: the state afterwards, and an action. At any
// time there are at most two connections, the one in use and the next one. Why their overlap loses
// and repeats nothing: all connections of a mesh see one same order of messages, in which the
// presence that the next one announces is a mark. The one in use is read up to the mark, the next
// one from the mark on.

/** What happens next, for every state and event. A test compares it with the Python table. */
export const TABLE = Object.freeze(
  whole({
    waiting: {
      Elapsed: ["joining", "attempt"],
      Nudged: ["joining", "attempt"],
      Ended: ["ended", "finish"],
    },
    joining: {
      Joined: ["present", "enter"],
      Failed: ["waiting", "back_off"],
      Elapsed: ["waiting", "back_off"],
      Nudged: ["joining", "ignored"],
      Ended: ["ended", "finish"],
    },
    present: {
      Heard: ["present", "touch"],
      Lost: ["waiting", "back_off"],
      Silent: ["waiting", "back_off"],
      Elapsed: ["renewing", "attempt"],
      Nudged: ["present", "doubt"],
      Ended: ["ended", "finish"],
    },
    renewing: {
      Joined: ["switching", "switch"],
      Failed: ["present", "postpone"],
      Heard: ["renewing", "touch"],
      Marked: ["present", "replace"],
      Lost: ["joining", "carry_on"],
      Silent: ["joining", "carry_on"],
      Elapsed: ["present", "postpone"],
      Nudged: ["renewing", "doubt"],
      Ended: ["ended", "finish"],
    },
    switching: {
      Failed: ["present", "postpone"],
      Heard: ["switching", "touch"],
      Marked: ["present", "replace"],
      Lost: ["present", "replace"],
      Silent: ["present", "replace"],
      Elapsed: ["present", "replace"],
      Nudged: ["switching", "ignored"],
      Ended: ["ended", "finish"],
    },
    ended: {
      Nudged: ["ended", "ignored"],
      Ended: ["ended", "ignored"],
    },
  }),
);

/** What is not in a row cannot happen in that state. */
function whole(rows) {
  const events = Object.keys(rows.renewing);
  const filled = ([state, row]) => [
    state,
    Object.fromEntries(events.map((name) => [name, row[name] ?? [state, "impossible"]])),
  ];
  return Object.fromEntries(Object.entries(rows).map(filled));
}

const IN_USE = ["present", "renewing", "switching"];

/** From the old record to the new one, and the effects to carry out in order: `open` a connection
 * (the next one), `adopt` the next one as the one in use, `discard` the next one, `drop` the one in
 * use, `probe` it for a sign of life. */
const ACTIONS = {
  ignored: (old) => [old],
  impossible: (old, { name }) => {
    throw new Error(`${name} in state ${old.state}: a bug`);
  },
  attempt: (old, { at }, limits) => [{ ...old, due: at + limits.joinWithinS }, "open"],
  enter: (old, { at }, limits) => [inUseFrom(old, at, limits), "adopt"],
  switch: (old, { at }, limits) => [{ ...old, due: at + limits.switchWithinS }],
  replace: (old, { at }, limits) => [inUseFrom(old, at, limits), "drop", "adopt"],
  back_off: (old, { at, chance }, limits) => {
    // What counts are failures in a row, and a connection that lasted ends the row.
    const lasted = old.state !== "joining" && at - old.joined > limits.backoffMaxS;
    const failed = lasted ? 0 : old.attempts;
    const due = at + backoff(failed, chance, limits);
    return [{ ...begun(due), attempts: failed + 1 }, old.state === "joining" ? "discard" : "drop"];
  },
  postpone: (old, { at, chance }, limits) => {
    const due = at + backoff(old.attempts, chance, limits);
    return [{ ...old, due, attempts: old.attempts + 1 }, "discard"];
  },
  carry_on: (old) => [{ ...old, doubted: null }, "drop"],
  touch: (old, { at }) => [{ ...old, heard: Math.max(old.heard, at), doubted: null }],
  doubt: (old, { at }) => (old.doubted === null ? [{ ...old, doubted: at }, "probe"] : [old]),
  finish: () => [begun(null), "discard", "drop"],
};

function inUseFrom(old, at, limits) {
  const due = at + limits.renewAfterS;
  return { ...begun(due), heard: at, attempts: old.attempts, joined: at };
}

/** Seconds to wait after so many failures before this one: doubled each time up to a bound, then
 * spread evenly from nothing to that, so that a thousand peers do not come back as one. */
export function backoff(attempts, chance, limits) {
  return chance * Math.min(limits.backoffMaxS, limits.backoffFirstS * 2 ** Math.min(attempts, 64));
}

/** The record of a peer that wants to join at once. Times are seconds of any monotonic clock. */
export function begun(at) {
  return { state: "waiting", due: at, heard: 0, doubted: null, attempts: 0, joined: 0 };
}

/** The one way from a record to the next: `{ membership, effects }`. `event` is `{ name, at, chance }`;
 * an impossible one throws and changes nothing. */
export function transition(old, event, limits) {
  const [state, action] = TABLE[old.state][event.name];
  const [membership, ...effects] = ACTIONS[action](old, event, limits);
  return { membership: { ...membership, state }, effects };
}

function silentAt({ state, heard, doubted }, limits) {
  if (!IN_USE.includes(state)) return null;
  return doubted === null ? heard + limits.silentAfterS : doubted + limits.probeWithinS;
}

/** When something happens by itself; null if nothing ever does. */
export function deadline(membership, limits) {
  const dues = [membership.due, silentAt(membership, limits)].filter((due) => due !== null);
  return dues.length ? Math.min(...dues) : null;
}

/** The transition whose deadline has come, one at a time. Who notices a silence too late may have
 * been the one who did not listen (asleep, or throttled): that is reason for doubt first. */
export function expire(old, at, chance, limits) {
  const silent = silentAt(old, limits);
  if (silent !== null && silent <= at) {
    const late = at - silent > limits.probeWithinS;
    const doubtful = late && old.doubted === null && old.state !== "switching";
    return transition(old, { name: doubtful ? "Nudged" : "Silent", at, chance }, limits);
  }
  if (old.due !== null && old.due <= at) {
    return transition(old, { name: "Elapsed", at, chance }, limits);
  }
  return { membership: old, effects: [] };
}

// Time, and the world around -----------------------------------------------------------------------

/** Browsers run the timers of a hidden page once a minute, but not those of its workers. So each
 * timer is set twice, here and in one worker for all, and whichever comes first counts. Where a
 * worker cannot be had (a content security policy, Node) the page's own timers remain. */
function makeTimer() {
  const waiting = new Map();
  let last = 0;
  let worker = null;
  const fire = (id) => {
    const callback = waiting.get(id);
    if (waiting.delete(id)) callback();
  };
  try {
    const code = "onmessage = ({ data: [id, ms] }) => setTimeout(postMessage, ms, id)";
    worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    worker.onmessage = ({ data }) => fire(data);
    worker.onerror = (event) => event.preventDefault();
  } catch {
    worker = null;
  }
  return (seconds, callback) => {
    const id = (last += 1);
    const ms = Math.min(Math.max(0, seconds * 1000), 2 ** 31 - 1);
    waiting.set(id, callback);
    const own = setTimeout(fire, ms, id);
    worker?.postMessage([id, ms]);
    return () => {
      clearTimeout(own);
      waiting.delete(id);
    };
  };
}

let sharedTimer = null;

/** What a peer needs of the world. Tests put their own in its place (option `_env`). */
const WORLD = {
  connect: (url, protocols) => new WebSocket(url, protocols),
  now: () => performance.now() / 1000,
  wall: () => Date.now(),
  chance: Math.random,
  timer: (seconds, callback) => (sharedTimer ??= makeTimer())(seconds, callback),
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

function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(() => {}); // Whoever waits for it hears of its failure; nobody has to wait.
  return made;
}

const hex = (bytes) =>
  Array.from(new Uint8Array(bytes), (n) => n.toString(16).padStart(2, "0")).join("");
const random = () => hex(crypto.getRandomValues(new Uint8Array(12)));

/** No generator: that would be over after an error, and could not be left while it waits. */
const iterator = (next) => ({
  next,
  return: async () => ({ done: true, value: undefined }),
  [Symbol.asyncIterator]() {
    return this;
  },
});

/** What has arrived and is not read yet. Bounded: the oldest go, and the reader is told. */
class Unread {
  #items = [];
  #size = 0;
  #dropped = 0;
  #limits;
  #news = deferred();
  #end = null;

  constructor(limits) {
    this.#limits = limits;
  }

  /** `size` is about how many characters of text it came in. */
  push(value, size) {
    if (this.#end) return;
    this.#items.push({ value, size });
    this.#size += size;
    const { unreadMessagesMax, unreadBytesMax } = this.#limits;
    while (
      this.#items.length > unreadMessagesMax ||
      (this.#size > unreadBytesMax && this.#items.length > 1)
    ) {
      this.#take();
      this.#dropped += 1;
    }
    this.#wake();
  }

  #take() {
    const { value, size } = this.#items.shift();
    this.#size -= size;
    return value;
  }

  /** All of them that are meant, at once. */
  drain(isMeant = () => true) {
    const drained = this.#items.filter(({ value }) => isMeant(value));
    if (drained.length) this.#items = this.#items.filter((item) => !drained.includes(item));
    for (const { size } of drained) this.#size -= size;
    return drained.map(({ value }) => value);
  }

  /** Nothing more comes: the reader stops after the rest, with this error if there is one. */
  finish(error) {
    this.#end ??= { error };
    this.#wake();
  }

  #wake() {
    this.#news.resolve();
    this.#news = deferred();
  }

  async #next() {
    for (;;) {
      if (this.#dropped) {
        const count = this.#dropped;
        this.#dropped = 0;
        throw new Lagged(count);
      }
      if (this.#items.length) return { done: false, value: this.#take() };
      if (this.#end?.error) throw this.#end.error;
      if (this.#end) return { done: true, value: undefined };
      await this.#news.promise;
    }
  }

  [Symbol.asyncIterator]() {
    return iterator(() => this.#next());
  }
}

// Messages -----------------------------------------------------------------------------------------

/** The messages of one frame, an object or an array of them; null if it is no frame of a relay. */
function readFrame(data) {
  try {
    const frame = typeof data === "string" ? JSON.parse(data) : null;
    const messages = Array.isArray(frame) ? frame : [frame];
    return messages.every((message) => typeof message?.type === "string") ? messages : null;
  } catch {
    return null;
  }
}

function messageOf(fields) {
  const { type, from, to, data, turnId, instanceId, timestamp } = fields;
  return Object.freeze({
    type,
    from,
    to,
    data,
    turnId,
    origin: instanceId ?? from,
    timestamp,
    fields,
  });
}

function agentIds(agents) {
  const ids = Array.isArray(agents)
    ? agents.map((agent) =>
        typeof agent === "string" ? agent : (agent?.agentId ?? agent?.id ?? agent?.name),
      )
    : [];
  return ids.filter((id) => typeof id === "string" && id !== "");
}

/** What should be text, but came from somebody else and may be anything. */
function textOf(value, otherwise = "") {
  return typeof value === "string" ? value : value == null ? otherwise : JSON.stringify(value);
}

const encoder = new TextEncoder();
const utf8 = (text) => encoder.encode(text);

// One connection -----------------------------------------------------------------------------------

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

// The peer -----------------------------------------------------------------------------------------

/** Joins a mesh. Resolves to the peer once it is in it and knows who else is. */
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

/** So many a second, and so many at once above that. One number: the time of the next one. */
class Rate {
  #due = 0;

  set(perS, burst) {
    this.intervalS = 1 / perS;
    this.burstS = Math.max(0, burst - 1) / perS;
    return this;
  }

  get opensAt() {
    return this.#due - this.burstS;
  }

  take(at) {
    this.#due = Math.max(this.#due, at) + this.intervalS;
  }
}

class Peer {
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
  #rate = new Rate().set(PACE * 1000, PACE_BURST * 2000);
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
    this.id = id;
    this.#announced = this.#checked(agents, metadata);
    this.#unread = new Unread(this.#limits);
    this.#unserved = new Unread({ ...this.#limits, unreadMessagesMax: this.#limits.turnsMax });
    this.#membership = begun(this.#env.now());
    this.#unwatch = this.#env.watch(() => this.nudge());
  }

  // What a user sees ----------------------------------------------------------------------------

  get state() {
    return this.#membership.state;
  }

  /** Who else is here: a copy. */
  get roster() {
    return new Map(Array.from(this.#known, ([id, { peer }]) => [id, peer]));
  }

  /** Resolves when this is over: to null after `leave()`, else to the error. */
  get ended() {
    return this.#ended.promise;
  }

  [Symbol.asyncIterator]() {
    return this.#unread[Symbol.asyncIterator]();
  }

  /** Who is here, and from then on who has come, changed and gone since the change before. */
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

  /** Sends a message of any type. Resolves when it is handed to the socket, so that to await it is
   * to send no faster than the relay takes it. */
  async send(type, fields) {
    await this.#post(type, fields).promise;
  }

  broadcast(data, fields) {
    return this.send("broadcast", { data, ...fields });
  }

  direct(to, data, fields) {
    return this.send("direct", { to, data, ...fields });
  }

  ack(turnId, fields) {
    return this.send("ack", { turnId, data: {}, ...fields });
  }

  stream(turnId, chunk, chunkNum, fields) {
    return this.send("stream", { turnId, data: { chunk, chunkNum }, ...fields });
  }

  turnEnd(turnId, result, fields) {
    return this.send("turn_end", { turnId, data: { result: result ?? null }, ...fields });
  }

  error(turnId, sentence, fields) {
    return this.send("error", { turnId, data: { error: sentence }, ...fields });
  }

  /** Changes what this peer says about itself. Resolves when the relay has taken it. */
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

  /** Sends what is queued, if need be after a reconnection; closes, ends all that is under way. */
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

  /** Gives a command to an agent. The answer comes in chunks (`for await`) and as a whole
   * (`result()`). `timeoutS` is the longest silence; `peer` says whose agent, if several have it. */
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

  /** Answers commands for these agents (all that are announced, and the peer itself), also those
   * that came up to `serveWithinS` before: what the handler streams becomes chunks, what it returns
   * the result, what it throws an error. Returns how to stop. */
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
    if (effects.length && !IN_USE.includes(this.state)) this.#shorten();
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
      const socket = (connection.socket = this.#connect(target, protocols));
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
    const connection = (this.#inUse = this.#next);
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
    const isInUse = IN_USE.includes(this.state);
    if (!isInUse && this.#options.offline === "fail")
      throw new NotConnected("there is no connection at the moment");
    const times = isInUse ? QUEUE_TIMES : 1;
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
    this.#frames = framesPerS ? (this.#frames ?? new Rate()).set(PACE * framesPerS, 0) : null;
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
    this.#unread.push(message, size);
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
      this.#unserved.push(command, size);
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
    const stream = (chunk) => reply("stream", { chunk, chunkNum: (chunkNum += 1) });
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

// Turns --------------------------------------------------------------------------------------------

const LATE_S = 1; // Whoever looks so long after a turn was due was asleep, or frozen.

/** A command that was given. Names with an underscore are the peer's to call. */
class Turn {
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

  /** What the agent returned. Rejects with a TurnError, or what ended the membership. */
  result() {
    return this.#done.promise;
  }

  /** The chunks, as they come; afterwards it ends, or throws what `result()` rejects with. */
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
    if (type === "stream") this.#chunks.push(textOf(data?.chunk), size);
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

// Names --------------------------------------------------------------------------------------------

const tabIds = new Map();

/** A peer id that stays the same over reloads: `"shared"`, one for all tabs of this origin, or
 * `"tab"`, one for each. Several peers in one page need a `name` each. Where there is no storage it is
 * a new one every time. */
export async function peerId(kind, name = "") {
  const key = `agi-diy-relay:peer:${name}`;
  if (kind === "shared") return stored("localStorage", key) ?? random();
  if (kind !== "tab") throw new TypeError('a peer id is "shared" or "tab"');
  if (!tabIds.has(name)) tabIds.set(name, ownTabId(key));
  return tabIds.get(name);
}

/** A duplicated tab starts with a copy of the other one's storage. Which of the two an id belongs to
 * is decided by a lock, held as long as the tab lives. */
async function ownTabId(key) {
  const id = stored("sessionStorage", key) ?? random();
  if (!globalThis.navigator?.locks || (await takes(`${key}:${id}`))) return id;
  const another = stored("sessionStorage", key, random()) ?? random();
  await takes(`${key}:${another}`);
  return another;
}

/** Takes a lock for as long as the page lives, if nobody has it. */
function takes(lock) {
  return new Promise((resolve) => {
    const hold = (held) => {
      resolve(held !== null);
      return held && new Promise(() => {});
    };
    navigator.locks.request(lock, { ifAvailable: true }, hold).catch(() => resolve(true));
  });
}

function stored(storage, key, value) {
  try {
    const kept = globalThis[storage];
    if (value ?? !kept.getItem(key)) kept.setItem(key, value ?? random());
    return kept.getItem(key);
  } catch {
    return null;
  }
}

function subtle() {
  if (globalThis.crypto?.subtle) return crypto.subtle;
  throw new BadAddress("cryptography needs a page from https:// or localhost");
}

async function hmac(key, text) {
  const bytes = typeof key === "string" ? utf8(key) : key;
  const made = await subtle().importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, [
    "sign",
  ]);
  return subtle().sign("HMAC", made, utf8(text));
}

/** The AgentCore session id of a mesh, the same as `session_id` in protocol/session.py: peers meet
 * only if they connect with the same one. Who knows the name but not the secret cannot guess it. */
export async function sessionId(mesh, secret = "") {
  if (typeof mesh !== "string" || mesh === "") throw new BadAddress("a mesh needs a name");
  if (/\p{Surrogate}/u.test(mesh + "\n" + secret)) {
    throw new BadAddress("a mesh's name and secret must be Unicode, no lone surrogates");
  }
  const key = `agi-diy-relay mesh:${secret}`.normalize("NFC");
  return `mesh-${hex(await hmac(key, mesh.normalize("NFC")))}`;
}

// AWS ----------------------------------------------------------------------------------------------

const SERVICE = "bedrock-agentcore";
const SESSION = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id";
const EXPIRES_S_MAX = 300;
const SUFFIXES = {
  aws: "amazonaws.com",
  "aws-us-gov": "amazonaws.com",
  "aws-cn": "amazonaws.com.cn",
};
const REGION = /^[a-z]{2}(-[a-z]+)+-\d+$/;
const ARN = /^arn:(aws|aws-us-gov|aws-cn):bedrock-agentcore:([^:]*):([^:]+):runtime\/[^:]+$/;

/** Percent-encoding as AWS wants it: everything but letters, digits and `-._~`. */
function encoded(text) {
  const more = (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`;
  try {
    return encodeURIComponent(text).replace(/[!'()*]/g, more);
  } catch {
    throw new BadAddress("what goes into a URL must be Unicode, no lone surrogates");
  }
}

const query = (pairs) => pairs.map(([name, value]) => `${encoded(name)}=${encoded(value)}`);

/** The runtime that an ARN names: where it is. Throws BadAddress. */
function runtimeOf(arn, region, endpoint) {
  const [isOne, partition, where] = ARN.exec(String(arn)) ?? [];
  if (!isOne || !REGION.test(where) || where.startsWith("cn-") !== (partition === "aws-cn")) {
    throw new BadAddress(
      "not the ARN of a runtime; it looks like arn:aws:bedrock-agentcore:REGION:ACCOUNT:runtime/ID",
    );
  }
  if (region && region !== where) {
    throw new BadAddress(`the runtime is in region ${where}, not ${region}; leave \`region\` out`);
  }
  const base = endpoint ?? `https://${SERVICE}.${where}.${SUFFIXES[partition]}`;
  if (!URL.canParse(base)) throw new BadAddress("the endpoint is not a URL");
  const { host, protocol } = new URL(base);
  const scheme = protocol === "http:" ? "ws" : "wss";
  return { region: where, host, scheme, path: `/runtimes/${encoded(arn)}/ws` };
}

function checkSession(id) {
  if (typeof id === "string" && id.length >= 33 && id.length <= 256) return id;
  throw new BadAddress("a session id has 33 to 256 characters; make it with sessionId(mesh)");
}

/** A URL that opens a WebSocket to a runtime, signed with Signature Version 4 in its query. Equal to
 * what `AgentCoreRuntimeClient.generate_presigned_url` of the Python SDK makes of the same input. */
export async function presign({
  arn,
  credentials,
  sessionId: session,
  qualifier,
  customHeaders,
  expiresS = EXPIRES_S_MAX,
  date = new Date(),
  region: given,
  endpoint,
}) {
  const { region, host, scheme, path } = runtimeOf(arn, given, endpoint);
  const { accessKeyId, secretAccessKey, sessionToken } = credentials ?? {};
  if (!accessKeyId || !secretAccessKey) {
    throw new NoCredentials(
      "there are no AWS credentials; log in, or pass accessKeyId and secretAccessKey",
    );
  }
  if (!(expiresS >= 1 && expiresS <= EXPIRES_S_MAX)) {
    throw new RangeError(`expiresS must be from 1 to ${EXPIRES_S_MAX}`);
  }
  const time = date.toISOString().replace(/[-:]|\.\d+/g, "");
  const scope = [time.slice(0, 8), region, SERVICE, "aws4_request"];
  const parameters = {
    ...(qualifier && { qualifier }),
    ...customHeaders,
    [SESSION]: checkSession(session),
  };
  const pairs = query([
    ...Object.entries(parameters),
    ["X-Amz-Algorithm", "AWS4-HMAC-SHA256"],
    ["X-Amz-Credential", [accessKeyId, ...scope].join("/")],
    ["X-Amz-Date", time],
    ["X-Amz-Expires", String(expiresS)],
    ["X-Amz-SignedHeaders", "host"], // A browser can send no other.
    ...(sessionToken ? [["X-Amz-Security-Token", sessionToken]] : []),
  ]);
  const digest = async (text) => hex(await subtle().digest("SHA-256", utf8(text)));
  // The path is encoded once more than in the URL, as for every service but S3.
  const uri = path.split("/").map(encoded).join("/");
  const sorted = pairs.map((pair) => pair.split("=")).sort(byNameThenValue);
  const canonical = [
    "GET",
    uri,
    sorted.map((pair) => pair.join("=")).join("&"),
    `host:${host}\n`,
    "host",
  ];
  const request = [...canonical, await digest("")].join("\n");
  const toSign = ["AWS4-HMAC-SHA256", time, scope.join("/"), await digest(request)].join("\n");
  let key = `AWS4${secretAccessKey}`;
  for (const part of scope) key = await hmac(key, part);
  return `${scheme}://${host}${path}?${pairs.join("&")}&X-Amz-Signature=${hex(await hmac(key, toSign))}`;
}

function byNameThenValue([name, value], [otherName, otherValue]) {
  if (name !== otherName) return name < otherName ? -1 : 1;
  return value < otherValue ? -1 : Number(value > otherValue);
}

/** The `url` for `join` of a mesh on AgentCore: signed anew for every connection, since such a URL
 * lives for five minutes. `credentials` is an object or a function that returns one. */
export function agentcore({ arn, mesh, secret, credentials, ...rest }) {
  runtimeOf(arn, rest.region, rest.endpoint); // Sooner rather than at the first connection.
  return async () => {
    const session = await sessionId(mesh, secret);
    const current = typeof credentials === "function" ? await credentials() : credentials;
    return presign({ ...rest, arn, sessionId: session, credentials: current });
  };
}

/** The same for a runtime that takes OAuth tokens: the token travels as a subprotocol, the one
 * place where a browser can put it. */
export function oauth({ arn, mesh, secret, token, qualifier, region, endpoint }) {
  const { scheme, host, path } = runtimeOf(arn, region, endpoint);
  return async () => {
    const bearer = checkToken(typeof token === "function" ? await token() : token);
    const name = "base64UrlBearerAuthorization";
    const base64 = btoa(String.fromCharCode(...utf8(bearer)));
    const text = base64.replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
    const parameters = {
      ...(qualifier && { qualifier }),
      [SESSION]: await sessionId(mesh, secret),
    };
    const url = `${scheme}://${host}${path}?${query(Object.entries(parameters)).join("&")}`;
    return { url, protocols: [`${name}.${text}`, name] };
  };
}

/** A token that has not expired, as far as it can be read. Throws LoginNeeded. */
function checkToken(token) {
  if (typeof token !== "string" || token === "") throw new LoginNeeded("there is no token; log in");
  let claims = null;
  try {
    claims = JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
  } catch {
    // Not a JSON Web Token: whoever it is for will judge it.
  }
  if (claims?.exp * 1000 <= Date.now())
    throw new LoginNeeded("the token has expired; log in again");
  return token;
}

const RENEW_BEFORE_MS = 300_000;
const RENEW_WITHIN_S = 15; // Less than `joinWithinS`, so that an attempt ends with what was wrong.

/** A function that returns AWS credentials for a logged-in user of a Cognito identity pool. They stay
 * in memory, and are renewed five minutes before they expire; `idToken` is called each time one is
 * needed. `provider` is for a user pool `cognito-idp.REGION.amazonaws.com/POOL`. */
export function cognitoCredentials({ identityPoolId, provider, idToken, endpoint }) {
  const region = String(identityPoolId).split(":")[0];
  if (!REGION.test(region) || !/^[^:]+:[^:]+$/.test(identityPoolId)) {
    throw new BadAddress("not the id of an identity pool; it looks like REGION:UUID");
  }
  const suffix = SUFFIXES[region.startsWith("cn-") ? "aws-cn" : "aws"];
  const at = endpoint ?? `https://cognito-identity.${region}.${suffix}/`;
  let kept = null;
  let underWay = null;

  const renew = async (signal) => {
    const token = checkToken(typeof idToken === "function" ? await idToken() : idToken);
    const Logins = { [provider]: token };
    const ask = (action, body) => askCognito(at, action, { ...body, Logins }, signal);
    const { IdentityId } = await ask("GetId", { IdentityPoolId: identityPoolId });
    const { Credentials: given } = await ask("GetCredentialsForIdentity", { IdentityId });
    if (!given?.AccessKeyId || !given.SecretKey)
      throw new NoCredentials("Cognito gave no credentials");
    return {
      accessKeyId: given.AccessKeyId,
      secretAccessKey: given.SecretKey,
      sessionToken: given.SessionToken,
      expiration: new Date(given.Expiration * 1000),
    };
  };
  return async () => {
    if (kept && kept.expiration - Date.now() > RENEW_BEFORE_MS) return kept;
    underWay ??= within(RENEW_WITHIN_S, renew).finally(() => (underWay = null));
    return (kept = await underWay);
  };
}

/** What is made, unless that takes too long: a login or a network may never answer, and nobody else
 * would ask again. */
function within(seconds, make) {
  const controller = new AbortController();
  const late = deferred();
  const cancel = WORLD.timer(seconds, () => {
    controller.abort();
    late.reject(
      new Unreachable(`no credentials within ${seconds} s; check the login and the network`),
    );
  });
  return Promise.race([make(controller.signal), late.promise]).finally(cancel);
}

async function askCognito(endpoint, action, body, signal) {
  let answer;
  let content;
  try {
    answer = await fetch(endpoint, {
      method: "POST",
      headers: {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": `AWSCognitoIdentityService.${action}`,
      },
      body: JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      signal,
    });
    content = await answer.json();
  } catch {
    throw new Unreachable(
      "Cognito did not answer; check the network, and the identity pool's region",
    );
  }
  if (answer.ok) return content;
  // What Cognito says more may quote the request, so that only the kind is passed on.
  const type = String(content?.__type ?? answer.status);
  const kind = type.split(":")[0].split("#").at(-1);
  const isBusy = answer.status >= 500 || kind === "TooManyRequestsException";
  const isWrong = /^(ResourceNotFound|InvalidParameter|Validation|ResourceConflict)/.test(kind);
  if (kind === "NotAuthorizedException")
    throw new LoginNeeded("Cognito did not accept the login; log in again, and check the provider");
  if (isBusy) throw new Unreachable(`Cognito cannot answer now (${kind})`);
  if (isWrong)
    throw new BadAddress(`Cognito knows no such identity pool, region or provider (${kind})`);
  throw new NoCredentials(`Cognito gave none (${kind}); check the roles of the identity pool`);
}
