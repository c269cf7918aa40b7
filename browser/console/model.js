/**
 * What is known of a mesh: a state and changes go in, and what the page shows is worked out from them. No
 * I/O, and no clock but that of the relay (`at_ms`).
 *
 * @import { Bounds, Flow, Happening, Peer, Relay, Told, Turn } from "./types.js"
 */

import { growth, Rate } from "./rate.js";

/** The latest events that are kept. */
export const EVENTS_MAX = 500;
/** Points of the little curve of the whole mesh, one for each event of the stream. */
export const CURVE_MAX = 120;

/** A peer, and what is worked out of it. */
export class Seen {
  in = new Rate();
  out = new Rate();
  /** What it says beside the answers to commands: chunks that somebody has asked for flood nobody. */
  unasked = new Rate();
  /** The commands that it works on. @type {string[]} keys */
  turns = [];
  /** What the filter looks at. */
  words = "";

  /**
   * @param {string} id
   * @param {Peer} told
   */
  constructor(id, told) {
    this.id = id;
    this.told = told;
    this.tell(told);
  }

  /** @param {Peer} told */
  tell(told) {
    this.told = told;
    const { name, host, agents } = told;
    this.words = [this.id, name ?? "", host ?? "", ...(agents ?? [])].join("\n").toLowerCase();
  }
}

/** What the relay says of a mesh. */
export class Model {
  mesh = "";
  /** The latest event of the stream was so at this time; 0: there was none. */
  atMs = 0;
  /** @type {Bounds | null} */
  bounds = null;
  /** @type {Relay | null} */
  relay = null;
  /** @type {Record<string, number>} */
  totals = {};
  /** How fast these grow. @type {Map<string, Rate>} */
  rates = new Map();
  /** How much was received a second, then and then. @type {number[]} */
  curve = [];
  /** @type {Map<string, Seen>} */
  peers = new Map();
  /** @type {Map<string, Turn>} */
  turns = new Map();
  /** Who works on an open turn, by its key. @type {Map<string, string>} */
  workers = new Map();
  /** @type {Flow[]} */
  flow = [];
  /** @type {number | null} */
  flowSinceMs = null;
  /** The oldest first. @type {Happening[]} */
  events = [];
  /** Goes up with each peer that comes or goes. */
  comings = 0;

  /**
   * An event of the stream has come. What is of no known type says nothing.
   *
   * @param {string} type
   * @param {Told} told
   */
  apply(type, told) {
    if (type === "state") this.#begin(told);
    else if (type !== "change" || this.atMs === 0) return;
    const seconds = this.atMs === 0 ? 0 : Math.max(0, told.at_ms - this.atMs) / 1000;
    this.atMs = told.at_ms;
    this.relay = told.relay ?? this.relay;
    this.flow = told.flow ?? this.flow;
    if (told.flow_since_ms !== undefined) this.flowSinceMs = told.flow_since_ms;
    const answered = this.#noteTurns(told.turns ?? {}, type === "state");
    this.#notePeers(told.peers ?? {}, type === "state", seconds, answered);
    this.#noteTotals(told.totals ?? {}, seconds);
    this.#noteEvents(told.events ?? []);
    this.#assignTurns();
  }

  /**
   * A state replaces everything. What was known before it only tells how fast things grow, if it is still
   * the same life of the same mesh.
   *
   * @param {Told} told
   */
  #begin(told) {
    const isAnother = told.mesh !== this.mesh || told.relay?.since_ms !== this.relay?.since_ms;
    if (isAnother) {
      this.atMs = 0;
      this.peers = new Map();
      this.turns = new Map();
      this.totals = {};
      this.rates = new Map();
      this.curve = [];
    }
    this.mesh = told.mesh ?? "";
    this.bounds = told.bounds ?? null;
    this.events = [];
    this.comings += 1;
  }

  /**
   * Returns how many chunks each peer has sent for turns.
   *
   * @param {Record<string, Turn | null>} turns
   * @param {boolean} isAll
   */
  #noteTurns(turns, isAll) {
    /** @type {Map<string, number>} */
    const answered = new Map();
    const before = this.turns;
    if (isAll) this.turns = new Map();
    for (const [key, turn] of Object.entries(turns)) {
      const known = before.get(key);
      if (turn === null) {
        this.turns.delete(key);
        continue;
      }
      this.turns.set(key, turn);
      if (turn.by === null || (isAll && !known)) continue;
      const more = growth(known?.chunks ?? 0, turn.chunks);
      answered.set(turn.by, (answered.get(turn.by) ?? 0) + more);
    }
    return answered;
  }

  /**
   * @param {Record<string, Peer | null>} peers
   * @param {boolean} isAll
   * @param {number} seconds since the event before
   * @param {Map<string, number>} answered
   */
  #notePeers(peers, isAll, seconds, answered) {
    const before = this.peers;
    if (isAll) this.peers = new Map();
    /** @type {Map<Seen, [number, number]>} */
    const grown = new Map();
    for (const [id, told] of Object.entries(peers)) {
      const known = before.get(id);
      if (told === null) {
        if (this.peers.delete(id)) this.comings += 1;
        continue;
      }
      // Nothing is known of what those did before who are here in the first state.
      const [received, sent] = known
        ? [known.told.received, known.told.sent]
        : isAll
          ? [told.received, told.sent]
          : [0, 0];
      const seen = known ?? new Seen(id, told);
      grown.set(seen, [growth(received, told.received), growth(sent, told.sent)]);
      seen.tell(told);
      if (!this.peers.has(id)) this.comings += 1;
      this.peers.set(id, seen);
    }
    for (const seen of this.peers.values()) {
      const [received, sent] = grown.get(seen) ?? [0, 0];
      seen.in.add(received, seconds);
      seen.out.add(sent, seconds);
      seen.unasked.add(Math.max(0, received - (answered.get(seen.id) ?? 0)), seconds);
    }
  }

  /**
   * @param {Record<string, number>} totals
   * @param {number} seconds
   */
  #noteTotals(totals, seconds) {
    const before = this.totals;
    this.totals = { ...before, ...totals };
    for (const [name, total] of Object.entries(this.totals)) {
      if (typeof total !== "number") continue;
      const rate = this.rates.get(name) ?? new Rate();
      this.rates.set(name, rate);
      rate.add(growth(before[name] ?? total, total), seconds);
    }
    if (seconds > 0) this.curve = [...this.curve, this.perS("received")].slice(-CURVE_MAX);
  }

  /**
   * How fast a total grows.
   *
   * @param {string} name
   */
  perS(name) {
    return this.rates.get(name)?.perS ?? 0;
  }

  /** @param {Happening[]} events */
  #noteEvents(events) {
    if (events.length === 0) return; // It stays the same list, so that nobody looks at it again.
    const newest = this.events.at(-1)?.n ?? -1;
    const news = events.filter(({ n }) => n > newest).sort((one, other) => one.n - other.n);
    this.events = [...this.events, ...news].slice(-EVENTS_MAX);
  }

  /** Which peer works on which of the open turns, as far as that is known: a peer that is here. */
  #assignTurns() {
    for (const seen of this.peers.values()) if (seen.turns.length > 0) seen.turns = [];
    this.workers = new Map();
    /** @type {Map<string, string | null> | null} */
    let hosts = null;
    for (const [key, turn] of this.turns) {
      if (turn.outcome !== null) continue;
      let id = turn.by ?? turn.to;
      if (id !== null && !this.peers.has(id)) {
        hosts ??= this.#hosts();
        id = hosts.get(id) ?? null;
      }
      if (id === null) continue;
      this.workers.set(key, id);
      this.peers.get(id)?.turns.push(key);
    }
  }

  /** By agent: the one peer that has it, or null if there are several. */
  #hosts() {
    /** @type {Map<string, string | null>} */
    const hosts = new Map();
    for (const { id, told } of this.peers.values()) {
      for (const agent of told.agents ?? []) hosts.set(agent, hosts.has(agent) ? null : id);
    }
    return hosts;
  }

  /**
   * How full the queue of a peer is: from 0 to 1.
   *
   * @param {Seen} seen
   */
  fullness({ told }) {
    if (!this.bounds) return 0;
    const { mailbox_messages_max, mailbox_bytes_max } = this.bounds;
    const parts = [
      told.queued_messages / mailbox_messages_max,
      told.queued_bytes / mailbox_bytes_max,
    ];
    return Math.min(1, Math.max(0, ...parts.filter(Number.isFinite)));
  }
}
