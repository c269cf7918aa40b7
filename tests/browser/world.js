/** A world for the client's core: virtual time, sockets that a test moves by hand, and a relay that
 * does what docs/protocol.md says, as far as one client can see. */

import { join } from "../../browser/relay-client.js";

export const LIMITS = { messageBytes: 2 ** 20, messagesPerSecond: 1000, messagesBurst: 2000 };

/** One end of a WebSocket. What the client sends waits in `sent` until the relay takes it, what the
 * relay sends waits in `coming` until it is delivered; both at once unless the world is `slow`. */
class FakeSocket {
  readyState = 0;
  bufferedAmount = 0;
  sent = [];
  coming = [];
  hasJoined = false;

  constructor(world, url, protocols) {
    Object.assign(this, { world, url, protocols });
  }

  open() {
    if (this.readyState !== 0) return;
    this.readyState = 1;
    this.onopen?.();
  }

  send(text) {
    if (this.readyState === 0) throw new Error("InvalidStateError");
    if (this.readyState !== 1) return;
    const messages = [JSON.parse(text)].flat();
    this.world.frames.push([this.world.at, text, messages]);
    this.world.texts.push(...messages.map((message) => JSON.stringify(message)));
    this.sent.push(text);
    this.world.moved();
  }

  close(code) {
    this.closedWith = code;
    this.readyState = 3;
    this.world.gone(this);
  }

  /** The relay, or the network, ends it. */
  break(code = 1006) {
    this.readyState = 3;
    this.world.gone(this);
    this.onclose?.({ code });
  }

  /** A frame arrives at the client. */
  hear(frame) {
    if (this.readyState === 1)
      this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
  }
}

export class World {
  at = 1000;
  wallMs = 1_700_000_000_000;
  timers = [];
  sockets = [];
  texts = []; // Everything that the client has sent, in order, over all sockets.
  others = new Map(); // The presences of the other peers.
  heard = []; // What the relay has taken and routed, parsed.
  limits = LIMITS;
  accept = ["batch"];
  frames = []; // [time, text, messages] of every frame that the client has sent.
  opens = true; // New sockets open at once.
  turnsAway = false; // New sockets are closed instead.
  slow = false; // Nothing moves unless a test says so.
  mute = false; // The relay takes everything and says nothing: half open.
  refuses = null; // { code, error } for presences, or a function of their data that returns it.
  answersCapabilities = true;
  grant = null; // What the relay tells of the connection's grant.
  asked = []; // Where somebody was looked for over HTTP,
  isThere = false; // and whether anybody was there.
  looked = []; // What was looked at, to read its status,
  status = null; // and what that was.
  isForbidden = false; // The page's policy stops connections.
  permission = null;
  warnings = [];

  env = {
    connect: (url, protocols) => {
      const socket = new FakeSocket(this, url, protocols);
      this.sockets.push(socket);
      if (this.turnsAway) queueMicrotask(() => socket.break());
      else if (this.opens) queueMicrotask(() => socket.open());
      return socket;
    },
    answers: async (url) => {
      this.asked.push(url);
      return this.isThere;
    },
    now: () => this.at,
    wall: () => this.wallMs,
    chance: () => 0.5,
    timer: (seconds, callback) => {
      const timer = { due: this.at + seconds, callback };
      this.timers.push(timer);
      return () => {
        this.timers = this.timers.filter((other) => other !== timer);
      };
    },
    status: async (url) => {
      this.looked.push(url);
      return this.status;
    },
    isForbidden: () => this.isForbidden,
    permission: async () => this.permission,
    origin: "http://localhost:8000",
    warn: (sentence) => this.warnings.push(sentence),
    watch: ({ nudge, suspend }) => {
      Object.assign(this, { nudge, suspend });
      this.isWatched = true;
      return () => {
        this.isWatched = false;
      };
    },
    report: (error) => {
      throw error;
    },
  };

  join(options = {}) {
    return join({ url: "ws://relay/ws", id: "me", ...options, _env: this.env });
  }

  get socket() {
    return this.sockets.at(-1);
  }

  // Time

  /** Lets everything happen that needs no time. All of that are microtasks here, and every one of
   * them runs, with all that come of it, before the event loop takes its next turn. */
  async settle() {
    await new Promise((resolve) => setImmediate(resolve));
  }

  async pass(seconds) {
    await this.settle();
    const end = this.at + seconds;
    for (;;) {
      const [next] = this.timers.filter(({ due }) => due <= end).sort((a, b) => a.due - b.due);
      if (!next) break;
      const step = Math.max(0, next.due - this.at);
      this.at += step;
      this.wallMs += step * 1000;
      this.timers = this.timers.filter((other) => other !== next);
      next.callback();
      await this.settle();
    }
    this.wallMs += (end - this.at) * 1000;
    this.at = end;
    await this.settle();
  }

  /** The machine sleeps: no timer runs. Its monotonic clock may or may not go on. */
  sleep(seconds, { monotonic }) {
    this.wallMs += seconds * 1000;
    if (monotonic) this.at += seconds;
  }

  // The relay

  moved() {
    if (this.slow) return;
    for (const socket of this.sockets) while (socket.sent.length) this.take(socket);
    for (const socket of this.sockets) while (socket.coming.length) this.deliver(socket);
  }

  /** The relay decides the messages of this socket's next frame. */
  take(socket) {
    for (const message of [JSON.parse(socket.sent.shift())].flat()) {
      if (this.mute) continue;
      if (JSON.stringify(message).length > this.limits?.messageBytes)
        this.answer(socket, {
          type: "error",
          data: { code: "too_large", error: "dropped unread" },
        });
      else this.decide(socket, message);
    }
  }

  decide(socket, message) {
    if (message.type === "capabilities") {
      if (!this.answersCapabilities) return;
      this.answer(socket, {
        type: "capabilities_response",
        turnId: message.turnId,
        data: this.capabilities(),
      });
    } else if (message.type === "presence" && this.refusal(message.data)) {
      const data = this.refusal(message.data);
      this.answer(socket, { type: "error", turnId: message.turnId, data });
    } else if (message.type === "presence") {
      const isNew = !socket.hasJoined;
      socket.hasJoined = true;
      this.say(message);
      if (isNew) for (const other of this.others.values()) this.put(socket, other);
    } else if (message.type === "direct" && message.to === message.from) {
      this.say(message); // With it a client that waits for long asks whether it is in the mesh.
    } else if (message.type !== "heartbeat") {
      this.heard.push(message);
    }
  }

  capabilities() {
    const { limits, accept, grant } = this;
    return { limits, accept, ...(grant && { grant }) };
  }

  refusal(data) {
    return typeof this.refuses === "function" ? this.refuses(data) : this.refuses;
  }

  answer(socket, message) {
    this.put(socket, { from: "relay", to: "me", ...message });
  }

  /** The relay sends something to one socket of the client. */
  put(socket, message) {
    socket.coming.push(message);
  }

  /** A message to everyone: each joined socket of the client gets it. */
  say(message) {
    for (const socket of this.sockets) {
      if (socket.hasJoined && socket.readyState === 1) this.put(socket, message);
    }
  }

  deliver(socket) {
    socket.hear(socket.coming.shift());
  }

  gone(socket) {
    socket.sent = [];
    socket.coming = [];
    socket.hasJoined = false;
  }

  /** Another peer is here, and says so to whom it may concern. */
  arrive(id, ...agents) {
    const presence = { type: "presence", from: id, data: { agents }, timestamp: this.wallMs };
    this.others.set(id, presence);
    this.say(presence);
    this.moved();
  }

  leave(id, reason = "left") {
    this.others.delete(id);
    this.say({ type: "presence", from: id, data: { status: "offline", reason, agents: [] } });
    this.moved();
  }

  /** Somebody says something to everyone. */
  async broadcast(fields) {
    this.say({ type: "broadcast", from: "bob", ...fields });
    this.moved();
    await this.settle();
  }

  /** What the client sent of this type, parsed. */
  sentOf(type) {
    return this.texts.map((text) => JSON.parse(text)).filter((message) => message.type === type);
  }
}

/** Collects what an iterable yields while the test goes on; `error` is how it ended. */
export function collect(iterable) {
  const seen = [];
  seen.over = (async () => {
    try {
      for await (const item of iterable) seen.push(item);
    } catch (error) {
      seen.error = error;
    }
  })();
  return seen;
}

/** A small seeded generator: the same seed is the same run. */
export function seeded(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
