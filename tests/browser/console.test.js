/** The console, without its page: the stream is read, what is known is right, and what needs attention is
 * found. */

import assert from "node:assert/strict";
import test from "node:test";

import { judge } from "../../browser/console/attention.js";
import { brief, briefRate, bytes, count, duration, rate } from "../../browser/console/format.js";
import { Model } from "../../browser/console/model.js";
import { BANDS_MAX, picture } from "../../browser/console/picture.js";
import { Rate } from "../../browser/console/rate.js";
import { Reader, SILENT_AFTER_S } from "../../browser/console/reader.js";
import { ALL, Order } from "../../browser/console/sorting.js";
import { EVENT_CHARS_MAX, ServerSentEvents } from "../../browser/console/sse.js";
import { isBlank, short, visible } from "../../browser/console/text.js";

const NOW = 1_000_000;

// Server-sent events

const read = (...pieces) => {
  const events = new ServerSentEvents();
  return pieces.flatMap((piece) => events.read(piece));
};

test("an event has its type and its data, and ends with an empty line", () => {
  assert.deepEqual(read("event: state\ndata: {}\n\n"), [{ type: "state", data: "{}" }]);
  assert.deepEqual(read("data:a\n\n"), [{ type: "message", data: "a" }]);
  assert.deepEqual(read("data: a\ndata:  b\ndata\n\n"), [{ type: "message", data: "a\n b\n" }]);
  assert.deepEqual(read("data: a\n"), []);
});

test("comments, ids and what has no data are no events, and a type is good for one event", () => {
  assert.deepEqual(read(": ping\n\n", "id: 1\nretry: 5\n\n", "event: change\n\n"), []);
  assert.deepEqual(read("event: x\n\ndata: a\n\n"), [{ type: "message", data: "a" }]);
});

test("lines end with CR, LF or both, wherever the stream is cut", () => {
  const text = "event: a\r\ndata: 1\r\rdata: 2\n\r\ndata: x: y\r\n\r\n";
  const whole = read(text);
  assert.deepEqual(
    whole.map(({ type, data }) => [type, data]),
    [
      ["a", "1"],
      ["message", "2"],
      ["message", "x: y"],
    ],
  );
  for (let at = 0; at <= text.length; at++) {
    assert.deepEqual(read(text.slice(0, at), text.slice(at)), whole);
  }
  assert.deepEqual(read(...text), whole);
});

test("an event without an end does not fill the memory", () => {
  const events = new ServerSentEvents();
  const piece = "x".repeat(EVENT_CHARS_MAX / 4);
  for (let number = 0; number < 4; number++) events.read(piece);
  assert.throws(() => events.read("x"), RangeError);
});

// The reader

/** A relay that answers as the test says, and timers that it fires. */
class Surroundings {
  requests = [];
  timers = [];
  told = [];
  chance = () => 1;

  reader() {
    const listener = {
      event: (type, { at_ms }) => this.told.push([type, at_ms]),
      lost: (why) => this.told.push(["lost", why]),
      refused: (status) => this.told.push(["refused", status]),
    };
    return new Reader(listener, this);
  }

  fetch = (url, { headers, signal }) => {
    const request = { url, headers };
    this.requests.push(request);
    return new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => {
        reject(signal.reason);
        request.stream?.error(signal.reason);
      });
      request.fail = () => reject(new TypeError("network"));
      request.refuse = (status, body) => resolve(new Response(body, { status }));
      request.open = (type = "text/event-stream; charset=utf-8") => {
        const body = new ReadableStream({
          start(stream) {
            request.stream = stream;
          },
        });
        resolve(new Response(body, { headers: { "content-type": type } }));
        request.say = (text) => request.stream.enqueue(new TextEncoder().encode(text));
        request.end = () => request.stream.close();
      };
    });
  };

  timer = (seconds, callback) => {
    const timer = { seconds, callback };
    this.timers.push(timer);
    return () => {
      this.timers = this.timers.filter((other) => other !== timer);
    };
  };

  /** The one timer that is left is due. */
  fire() {
    assert.equal(this.timers.length, 1);
    const [timer] = this.timers.splice(0);
    timer.callback();
    return timer.seconds;
  }
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

test("the stream is read, and opened again when it ends", async () => {
  const around = new Surroundings();
  around.reader().start("/stream", null);
  const [first] = around.requests;
  assert.deepEqual(first.headers, { accept: "text/event-stream" });
  first.open();
  await settled();
  first.say('event: state\ndata: {"at_ms":1}\n\nevent: change\nda');
  await settled();
  first.say('ta: {"at_ms":2}\n\n');
  await settled();
  assert.deepEqual(around.told, [
    ["state", 1],
    ["change", 2],
  ]);
  first.end();
  await settled();
  assert.deepEqual(around.told.at(-1), ["lost", "the relay has ended the stream"]);
  assert.equal(around.fire(), 0.5);
  assert.equal(around.requests.length, 2);
});

test("the longer nobody answers, the longer it waits, up to a bound, and success begins anew", async () => {
  const around = new Surroundings();
  around.reader().start("/stream", null);
  const waits = [];
  for (let number = 0; number < 7; number++) {
    around.requests.at(-1).fail();
    await settled();
    waits.push(around.fire());
  }
  assert.deepEqual(waits, [0.5, 1, 2, 4, 8, 10, 10]);
  around.requests.at(-1).open();
  await settled();
  around.requests.at(-1).say('data: {"at_ms":1}\n\n');
  await settled();
  around.requests.at(-1).end();
  await settled();
  assert.equal(around.fire(), 0.5);
});

test("a stream that says nothing for long is dead, and a comment is a sign of life", async () => {
  const around = new Surroundings();
  around.reader().start("/stream", null);
  around.requests[0].open();
  await settled();
  around.requests[0].say(": alive\n\n");
  await settled();
  assert.equal(around.fire(), SILENT_AFTER_S);
  await settled();
  assert.deepEqual(around.told, [["lost", "it has said nothing for 45 s"]]);
  around.fire();
  assert.equal(around.requests.length, 2);
});

test("a relay that asks for a token gets one when there is one, and nobody tries before", async () => {
  const around = new Surroundings();
  const reader = around.reader();
  reader.start("/stream", null);
  around.requests[0].refuse(401, "a token is needed\n");
  await settled();
  assert.deepEqual(around.told, [["refused", 401]]);
  assert.deepEqual(around.timers, []);
  reader.start("/stream", "secret");
  assert.equal(around.requests[1].headers.authorization, "Bearer secret");
  assert.equal(around.requests[1].url, "/stream");
});

test("where there is no room, and where no console is, that is told and tried again", async () => {
  const around = new Surroundings();
  around.reader().start("/stream", null);
  around.requests[0].refuse(503, "16 are watching already\n");
  await settled();
  assert.deepEqual(around.told.at(-1), ["lost", "16 are watching already"]);
  assert.ok(around.fire() >= 5);
  around.requests[1].open("text/html");
  await settled();
  assert.deepEqual(around.told.at(-1), ["lost", "what answers here is no console of a relay"]);
  around.fire();
  around.requests[2].open();
  await settled();
  around.requests[2].say("event: state\ndata: {\n\n");
  await settled();
  assert.deepEqual(around.told.at(-1), ["lost", "the stream cannot be read"]);
});

test("who reads from elsewhere hears nothing more of the first stream", async () => {
  const around = new Surroundings();
  const reader = around.reader();
  reader.start("/one", null);
  around.requests[0].open();
  await settled();
  reader.start("/other", null);
  await settled();
  assert.deepEqual(
    around.requests.map(({ url }) => url),
    ["/one", "/other"],
  );
  reader.stop();
  await settled();
  assert.deepEqual([around.told, around.timers], [[], []]);
});

// Rates

test("a steady rate is right from the first interval on, whatever the intervals are", () => {
  const steady = new Rate();
  assert.equal(steady.perS, 0);
  for (const seconds of [1, 1, 0.2, 3, 60, 0.01]) {
    steady.add(10 * seconds, seconds);
    assert.ok(Math.abs(steady.perS - 10) < 1e-9);
  }
});

test("a rate follows within seconds, and is nothing after a while of nothing", () => {
  const rate = new Rate();
  for (let second = 0; second < 60; second++) rate.add(0, 1);
  for (let second = 0; second < 5; second++) rate.add(100, 1);
  assert.ok(rate.perS > 80 && rate.perS <= 100);
  rate.add(50, 0);
  assert.ok(rate.perS > 90);
  rate.add(0, 60);
  assert.ok(rate.perS < 0.05);
});

// The model

const peer = (more = {}) => ({
  ...{ state: "present", name: null, host: null, agents: [], connections: 1, heard_ms: NOW },
  ...{ received: 0, sent: 0, queued_messages: 0, queued_bytes: 0, ...more },
});
const turn = (more = {}) => ({
  ...{ id: "c-1", asker: "ann", to: "bob", by: null, type: "direct", began_ms: NOW },
  ...{ last_ms: NOW, chunks: 0, outcome: null, ...more },
});
const relay = (more = {}) => ({
  ...{ version: "0.1.0", since_ms: 5, is_draining: false, connections: 2, held_bytes: 0 },
  ...{ held_bytes_max: 1000, lag_s: 0, meshes: {}, ...more },
});
const happening = (n, more = {}) => ({
  ...{ n, at_ms: NOW, what: "joined", peer: "ann", connection: 1, why: null, count: null, ...more },
});
const state = (more = {}) => ({
  ...{ at_ms: NOW, mesh: "default", relay: relay(), totals: { received: 0 }, turns: {} },
  bounds: {
    ...{ mailbox_messages_max: 100, mailbox_bytes_max: 1000, messages_per_s: 1000 },
    ...{ stale_after_s: 15, reap_after_s: 30 },
  },
  ...{ peers: {}, flow: [], flow_since_ms: NOW, events: [], ...more },
});
const modelOf = (more = {}) => {
  const model = new Model();
  model.apply("state", state(more));
  return model;
};

test("a state has everything, and a change only what has changed", () => {
  const model = modelOf({
    peers: { ann: peer(), bob: peer() },
    turns: { 1: turn(), 2: turn() },
    events: [happening(1)],
  });
  model.apply("change", {
    at_ms: NOW + 1000,
    peers: { bob: null, cy: peer({ name: "Cy" }), ann: peer({ state: "stale" }) },
    turns: { 1: null, 2: turn({ outcome: "ended" }) },
    events: [happening(2, { what: "left" })],
  });
  assert.deepEqual([...model.peers.keys()], ["ann", "cy"]);
  assert.equal(model.peers.get("ann").told.state, "stale");
  assert.deepEqual([...model.turns.keys()], ["2"]);
  assert.deepEqual(
    model.events.map(({ n }) => n),
    [1, 2],
  );
  model.apply("state", state({ peers: { dan: peer() } }));
  assert.deepEqual([[...model.peers.keys()], model.events, model.turns.size], [["dan"], [], 0]);
});

test("nothing is known before the first state, nor from an event of an unknown type", () => {
  const model = new Model();
  model.apply("change", { at_ms: NOW, peers: { ann: peer() } });
  model.apply("message", state({ peers: { ann: peer() } }));
  assert.deepEqual([model.peers.size, model.atMs], [0, 0]);
});

test("a peer may have any id", () => {
  const model = modelOf({ peers: JSON.parse('{"__proto__": {}, "constructor": {}}') });
  assert.deepEqual([...model.peers.keys()], ["__proto__", "constructor"]);
  assert.equal({}.told, undefined);
});

test("rates come from how totals grow, in a change, in a new state, and for who has just come", () => {
  const model = modelOf({
    peers: { ann: peer({ received: 5000, sent: 70 }) },
    totals: { received: 9000 },
  });
  assert.equal(model.peers.get("ann").in.perS, 0);
  const ann = (received) => peer({ received, sent: received / 10 });
  model.apply("change", {
    at_ms: NOW + 2000,
    peers: { ann: ann(5100), bob: peer({ received: 8 }) },
    totals: { received: 9400, codes: { rate_limited: 3 } },
  });
  const near = (value, expected) => assert.ok(Math.abs(value - expected) < 1e-6, String(value));
  near(model.peers.get("ann").in.perS, 50);
  near(model.peers.get("ann").out.perS, 220);
  near(model.peers.get("bob").in.perS, 4);
  near(model.perS("received"), 200);
  near(model.perS("codes"), 0);
  model.apply("state", state({ at_ms: NOW + 4000, peers: { ann: ann(5200) } }));
  near(model.peers.get("ann").in.perS, 50);
  assert.equal(model.curve.length, 2);
});

test("a relay that was started again, and another mesh, begin at nothing", () => {
  for (const another of [{ relay: relay({ since_ms: 6 }) }, { mesh: "other" }]) {
    const model = modelOf({ peers: { ann: peer({ received: 10 }) } });
    model.apply(
      "state",
      state({ at_ms: NOW + 9000, peers: { ann: peer({ received: 999 }) }, ...another }),
    );
    assert.equal(model.peers.get("ann").in.perS, 0);
    assert.deepEqual(model.curve, []);
  }
});

test("a peer whose count is smaller has connected anew", () => {
  const model = modelOf({ peers: { ann: peer({ received: 900 }) } });
  model.apply("change", { at_ms: NOW + 1000, peers: { ann: peer({ received: 4 }) } });
  assert.ok(Math.abs(model.peers.get("ann").in.perS - 4) < 1e-6);
});

test("events that come twice are kept once, and the latest 500", () => {
  const model = modelOf({ events: [happening(1), happening(2)] });
  model.apply("change", { at_ms: NOW, events: [happening(2), happening(3)] });
  assert.equal(model.events.length, 3);
  const many = Array.from({ length: 600 }, (_, n) => happening(n + 4));
  model.apply("change", { at_ms: NOW, events: many });
  assert.deepEqual([model.events.length, model.events.at(-1).n], [500, 603]);
});

test("a turn is on the peer that answers it, the peer that it names, or the only one with the agent", () => {
  const model = modelOf({
    peers: { bob: peer({ agents: ["coder", "both"] }), cy: peer({ agents: ["both"] }) },
    turns: {
      1: turn({ to: "coder", by: "cy" }),
      2: turn({ to: "bob" }),
      3: turn({ to: "coder" }),
      4: turn({ to: "both" }),
      5: turn({ to: null }),
      6: turn({ to: "bob", outcome: "ended" }),
    },
  });
  assert.deepEqual(model.peers.get("bob").turns, ["2", "3"]);
  assert.deepEqual(model.peers.get("cy").turns, ["1"]);
});

test("a queue is as full as its messages or its bytes are, whichever is more", () => {
  const model = modelOf({
    peers: {
      ann: peer({ queued_messages: 10, queued_bytes: 500 }),
      bob: peer({ queued_messages: 500 }),
    },
  });
  assert.deepEqual(
    [...model.peers.values()].map((seen) => model.fullness(seen)),
    [0.5, 1],
  );
});

// Attention

const kinds = (model, atMs = NOW) =>
  judge(model, atMs).troubles.map(({ kind, peer, turn }) => [kind, peer, turn]);

/** A mesh in which peers say so many messages a second. */
const talking = (rates, more = {}) => {
  const peers = (seconds) =>
    Object.fromEntries(
      Object.entries(rates).map(([id, perS]) => [id, peer({ received: perS * seconds })]),
    );
  const model = modelOf({ peers: peers(0), ...more });
  model.apply("change", { at_ms: NOW + 1000, peers: peers(1) });
  return model;
};
const many = (number, perS) =>
  Object.fromEntries(Array.from({ length: number }, (_, n) => [`agent-${n}`, perS]));

test("a command that is silent for more than 30 s is stuck, and one that is over is not", () => {
  const model = modelOf({
    peers: { ann: peer(), bob: peer() },
    turns: { 1: turn(), 2: turn({ outcome: "failed" }), 3: turn({ last_ms: NOW + 5000 }) },
  });
  assert.deepEqual(kinds(model, NOW + 30_000), []);
  assert.deepEqual(kinds(model, NOW + 30_001), [["stuck", "bob", "1"]]);
  const { troubles, stuck, marks } = judge(model, NOW + 90_000);
  assert.deepEqual([...stuck], ["1", "3"]);
  assert.deepEqual(marks.get("bob"), ["stuck"]);
  assert.equal(
    troubles[0].sentence,
    "has been silent for 1\u00a0min on a command of ann, and on 1 more",
  );
});

test("a command that nobody has answered is stuck, too, and names both", () => {
  const model = modelOf({ turns: { 1: turn({ to: "gone" }) } });
  const [trouble] = judge(model, NOW + 60_000).troubles;
  assert.deepEqual([trouble.peer, trouble.turn], [null, "1"]);
  assert.match(trouble.sentence, /^nobody has answered a command of ann for gone/);
});

test("a peer that says by far more than the others floods the mesh, among many and among two", () => {
  assert.deepEqual(kinds(talking({ ...many(200, 1), loud: 120 })), [["flooding", "loud", null]]);
  assert.deepEqual(kinds(talking({ quiet: 0, loud: 60 })), [["flooding", "loud", null]]);
  assert.deepEqual(kinds(talking({ quiet: 0, talker: 40 })), []);
});

test("where all say much, none floods, until one is near what it may say", () => {
  assert.deepEqual(kinds(talking(many(50, 200))), []);
  assert.deepEqual(kinds(talking({ ...many(50, 200), near: 500 })), [["flooding", "near", null]]);
});

test("an agent that streams an answer that somebody has asked for does not flood", () => {
  const model = modelOf({ peers: { bob: peer(), ann: peer() }, turns: { 1: turn({ by: "bob" }) } });
  model.apply("change", {
    at_ms: NOW + 1000,
    peers: { bob: peer({ received: 150 }) },
    turns: { 1: turn({ by: "bob", chunks: 150, last_ms: NOW + 1000 }) },
  });
  assert.deepEqual(kinds(model), []);
});

test("whose messages are refused for their rate floods, and refused for other reasons is named", () => {
  const refused = (n, peer, why, count, at_ms = NOW) =>
    happening(n, { what: "refused", peer, why, count, at_ms });
  const model = modelOf({
    peers: { ann: peer(), bob: peer(), cy: peer() },
    events: [
      refused(1, "ann", "rate_limited", 3),
      refused(2, "bob", "unknown_target", 19),
      refused(3, "bob", "too_large", 2),
      refused(4, "cy", "rate_limited", 900, NOW - 61_000),
    ],
  });
  assert.deepEqual(kinds(model), [
    ["flooding", "ann", null],
    ["refused", "bob", null],
  ]);
  assert.match(judge(model, NOW).troubles[1].sentence, /21 messages .*unknown_target/);
});

test("a slow reader is found before it is evicted, and a relay at its bounds comes first", () => {
  const model = modelOf({
    peers: { ann: peer({ queued_messages: 50 }), bob: peer({ queued_messages: 49 }) },
    relay: relay({ is_draining: true, held_bytes: 900, lag_s: 2 }),
  });
  assert.deepEqual(kinds(model), [
    ["relay", null, null],
    ["relay", null, null],
    ["relay", null, null],
    ["slow", "ann", null],
  ]);
});

// The table of agents

const shown = (model, choice = {}, order = new Order(), isHeld = false) =>
  order.arrange(model, judge(model, NOW), { ...ALL, ...choice }, isHeld).map(({ id }) => id);

test("those in trouble come first, then all by id, numbers as numbers", () => {
  const model = talking({ "a-10": 1, "a-2": 1, z: 400, b: 0 });
  assert.deepEqual(shown(model), ["z", "a-2", "a-10", "b"]);
});

test("the agents are sorted by any column, both ways, and what is alike stays in the order of ids", () => {
  const model = talking({ b: 5, a: 5, c: 9 });
  assert.deepEqual(shown(model, { column: "in", isDescending: true }), ["c", "a", "b"]);
  assert.deepEqual(shown(model, { column: "in" }), ["a", "b", "c"]);
  for (const column of ["id", "host", "state", "heard", "queue", "out", "turns"]) {
    assert.deepEqual(shown(model, { column }), ["a", "b", "c"]);
  }
  assert.deepEqual(shown(model, { column: "id", isDescending: true }), ["c", "b", "a"]);
});

test("the filter looks at ids, names, hosts and agents, and at states", () => {
  const model = modelOf({
    peers: {
      a: peer({ name: "Ann's Laptop" }),
      b: peer({ host: "gpu-1", state: "stale" }),
      c: peer({ agents: ["planner"] }),
      d: peer({ queued_messages: 100 }),
    },
  });
  assert.deepEqual(shown(model, { text: " LAPTOP" }), ["a"]);
  assert.deepEqual(shown(model, { text: "gpu" }), ["b"]);
  assert.deepEqual(shown(model, { text: "plan" }), ["c"]);
  assert.deepEqual(shown(model, { state: "stale" }), ["b"]);
  assert.deepEqual(shown(model, { state: "trouble" }), ["d"]);
  assert.deepEqual(shown(model, { text: "gpu", state: "present" }), []);
});

test("while somebody points at a line, none moves: who comes is last, who goes is gone", () => {
  const order = new Order();
  const byIn = { column: "in", isDescending: true };
  const model = talking({ a: 1, b: 2, c: 3 });
  assert.deepEqual(shown(model, byIn, order), ["c", "b", "a"]);
  model.apply("change", {
    at_ms: NOW + 2000,
    peers: { a: peer({ received: 400 }), b: null, d: peer({ received: 900 }) },
  });
  assert.deepEqual(shown(model, byIn, order, true), ["c", "a", "d"]);
  assert.deepEqual(shown(model, byIn, order, false), ["d", "a", "c"]);
  assert.deepEqual(shown(model, { ...byIn, text: "a" }, order, true), ["a"]);
});

// The picture

test("who says most is on top, bands are as thick as their counts, and inside their ends", () => {
  const { senders, receivers, bands, height, types } = picture([
    ["ann", null, "broadcast", 10],
    ["bob", null, "broadcast", 30],
    ["bob", "ann", "direct", 5],
  ]);
  assert.deepEqual(
    senders.map(({ id, count }) => [id, count]),
    [
      ["bob", 35],
      ["ann", 10],
    ],
  );
  assert.deepEqual(
    receivers.map(({ id, isEveryone }) => [id, isEveryone]),
    [
      [null, true],
      ["ann", false],
    ],
  );
  assert.deepEqual(types, [
    ["broadcast", 40],
    ["direct", 5],
  ]);
  const [most, middle] = bands;
  assert.ok(Math.abs(most.thickness - 3 * middle.thickness) < 1e-9);
  for (const band of bands) {
    for (const [end, y] of [
      [band.from, band.fromY],
      [band.to, band.toY],
    ]) {
      assert.ok(y - band.thickness / 2 >= end.y - 1e-9);
      assert.ok(y + band.thickness / 2 <= end.y + end.height + 1e-9);
      assert.ok(end.y + end.height <= height + 1e-9);
    }
  }
});

test("a peer may be called as nobody, as everyone and as others", () => {
  const { receivers } = picture([
    ["a", null, "x", 1],
    ["a", "", "x", 1],
    ["a", "others", "x", 1],
    ["a", "everyone", "x", 1],
  ]);
  assert.equal(receivers.length, 4);
});

test("of many the largest are shown, and all others are one band at the end", () => {
  const flow = Array.from({ length: 60 }, (_, n) => [`p-${n}`, `q-${n}`, "direct", 100 - n]);
  const { bands, others, senders } = picture(flow);
  assert.deepEqual([bands.length, others], [BANDS_MAX + 1, 20]);
  assert.equal(bands.at(-1).type, null);
  assert.deepEqual([senders.at(-1).id, senders.at(-1).count], [null, 1010]);
  assert.deepEqual(picture([]).bands, []);
});

test("types can be left out, and are still listed", () => {
  const { bands, types } = picture(
    [
      ["a", "b", "stream", 5],
      ["a", "b", "ack", 2],
    ],
    new Set(["stream"]),
  );
  assert.deepEqual(
    bands.map(({ type }) => type),
    ["ack"],
  );
  assert.deepEqual(types, [
    ["stream", 5],
    ["ack", 2],
  ]);
});

// Text

test("what hides, or turns the direction of others, is visible", () => {
  assert.equal(visible("a\u202eb"), "a⟨U+202E⟩b");
  assert.equal(visible("a\u0000\n\u007f\u0085"), "a␀␊␡⟨U+0085⟩");
  assert.equal(visible("a\u200bb\u2066\ufeff"), "a⟨U+200B⟩b⟨U+2066⟩⟨U+FEFF⟩");
  assert.equal(visible("\ud800x"), "⟨U+D800⟩x");
  assert.equal(visible("\u{e0041}"), "⟨U+E0041⟩");
  assert.equal(visible(`z${"\u0335".repeat(50)}`), `z${"\u0335".repeat(4)}`);
});

test("what is only unusual stays as it is", () => {
  for (const text of [
    "Ann",
    "Zoë",
    "王小明",
    "שלום",
    "a b",
    "👩‍💻 dev",
    "👨🏽‍🚀",
    "नमस्ते",
    "<b>&amp;",
  ]) {
    assert.equal(visible(text), text);
  }
});

test("a long text is cut in the middle, and is not looked at as a whole", () => {
  assert.equal(short("abcdefghij", 10), "abcdefghij");
  assert.equal(short("abcdefghijk", 10), "abcdef…ijk");
  assert.equal([...short("👍".repeat(1e6), 10)].length, 10);
  assert.equal(short(`${"x".repeat(1e6)}end`, 10), "xxxxxx…end");
  assert.equal([...short("\u202e".repeat(100), 10)].length, 10);
});

test("a name of nothing is no name", () => {
  for (const text of [null, undefined, "", "  ", "\u2800"]) assert.ok(isBlank(text));
  assert.ok(!isBlank("a"));
});

const plain = (text) => text.replace("\u00a0", " ");

test("numbers are as people read them", () => {
  assert.deepEqual([0, 59.9, 60, 7200, 200_000].map(duration).map(plain), [
    "0 s",
    "59 s",
    "1 min",
    "2 h",
    "2 d",
  ]);
  assert.deepEqual([0.01, 0.25, 9.94, 12.5, 1234].map(rate), [
    "0",
    "0.3",
    "9.9",
    "13",
    "1\u202f234",
  ]);
  assert.deepEqual([999, 1234, 18_400, 2.5e6].map(brief), ["999", "1.2k", "18k", "2.5M"]);
  assert.deepEqual([0, 1023, 1536, 1 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "1.0 GiB"]);
  assert.deepEqual([999, 1515].map(briefRate), ["999", "1.5k"]);
  assert.equal(count(1234567), "1\u202f234\u202f567");
});
