/** What the client does behind an edge that counts frames and bounds them, in virtual time. */

import assert from "node:assert/strict";
import test from "node:test";

import * as client from "../../browser/relay-client.js";
import { LIMITS, World } from "./world.js";

const EDGE = { ...LIMITS, framesPerSecond: 200, frameBytes: 32_000 };
const TICK_S = 1 / 180;

async function behindEdge(limits = EDGE, setUp = () => {}) {
  const world = new World();
  world.limits = limits;
  setUp(world);
  const peer = await world.join();
  await world.pass(1); // Past what joining itself said.
  world.frames = [];
  return { world, peer };
}

const numbers = (count) => Array.from({ length: count }, (_, n) => n);
const heardData = (world) => world.heard.map(({ data }) => data);
const bytes = (text) => new TextEncoder().encode(text).length;

/** The most frames in any second. */
function framesPerSecond(frames) {
  const times = frames.map(([at]) => at);
  return Math.max(
    ...times.map((from) => times.filter((at) => at >= from && at < from + 1 - 1e-6).length),
  );
}

test("what waits shares a frame, as an array, in order; the first goes at once and alone", async () => {
  const { world, peer } = await behindEdge();
  const all = numbers(100).map((n) => peer.broadcast(n));
  assert.deepEqual(heardData(world), [0]);
  assert.equal(world.frames[0][1][0], "{", "a message alone is no array");
  await world.pass(TICK_S + 0.001);
  await Promise.all(all);
  assert.deepEqual(heardData(world), numbers(100));
  assert.equal(world.frames.length, 2);
});

test("a frame is as full as may be and no fuller, also where characters have several bytes", async () => {
  const { world, peer } = await behindEdge({ ...EDGE, frameBytes: 2048 });
  const all = numbers(400).map((n) => peer.broadcast("€".repeat(n % 90)));
  await world.pass(10);
  await Promise.all(all);
  assert.equal(world.heard.length, 400);
  const batches = world.frames.filter(([, text]) => text[0] === "[");
  for (const [i, [, text]] of batches.entries()) {
    const [next] = batches[i + 1]?.[2] ?? [];
    assert.ok(bytes(text) <= 2048);
    if (next) assert.ok(bytes(text) + 1 + bytes(JSON.stringify(next)) > 2048);
  }
});

test("frames keep to nine tenths of what the edge allows, without a burst", async () => {
  const { world, peer } = await behindEdge();
  let running = true;
  const chatter = async () => {
    for (let n = 0; running; n += 1) await peer.broadcast(n);
  };
  const chatting = [chatter(), chatter(), chatter()];
  await world.pass(3);
  running = false;
  await world.pass(1);
  await Promise.all(chatting);
  const most = framesPerSecond(world.frames);
  assert.ok(most <= 182 && most > 150, `${most} frames in a second`);
});

test("a relay that takes no arrays gets one message in a frame, and all of them", async () => {
  const { world, peer } = await behindEdge(EDGE, (world) => (world.accept = undefined));
  const all = numbers(500).map((n) => peer.broadcast(n));
  await world.pass(4);
  await Promise.all(all);
  assert.deepEqual(heardData(world), numbers(500));
  assert.ok(world.frames.every(([, text]) => text[0] === "{"));
  assert.ok(framesPerSecond(world.frames) <= 182);
});

test("where nobody counts frames every message has its own, at once", async () => {
  const { world, peer } = await behindEdge(LIMITS);
  await Promise.all(numbers(100).map((n) => peer.broadcast(n)));
  assert.equal(world.frames.length, 100);
});

test("a frame holds no more messages than the relay's own rate allows", async () => {
  const { world, peer } = await behindEdge({ ...EDGE, messagesPerSecond: 100, messagesBurst: 40 });
  const all = numbers(200).map((n) => peer.broadcast(n));
  await world.pass(TICK_S + 0.01);
  assert.ok(world.heard.length <= 22, `${world.heard.length} at once`);
  await world.pass(3);
  await Promise.all(all);
  assert.deepEqual(heardData(world), numbers(200));
});

test("a socket that still holds something gets no further frame behind an edge", async () => {
  const { world, peer } = await behindEdge();
  world.socket.bufferedAmount = 1;
  const all = numbers(3).map((n) => peer.broadcast(n));
  await world.pass(1);
  assert.equal(world.frames.length, 0);
  world.socket.bufferedAmount = 0;
  await world.pass(0.1);
  await Promise.all(all);
  assert.equal(world.frames.length, 1, "what waited shares a frame");
});

test("a message longer than a frame is refused, with the bound, the reason and the way out", async () => {
  const { world, peer } = await behindEdge();
  const overhead = bytes(JSON.stringify({ type: "broadcast", from: "me", data: "" })) + 26;
  const longest = peer.broadcast("x".repeat(32_000 - overhead));
  await assert.rejects(peer.broadcast("x".repeat(32_000)), {
    name: "TooLarge",
    message: /32000.*page cannot.*stream/s,
  });
  await assert.rejects(peer.broadcast("€".repeat(11_000)), client.TooLarge);
  const short = peer.broadcast("short");
  await world.pass(1);
  await Promise.all([longest, short]);
  assert.equal(world.heard.length, 2);
});

test("a result that is too long becomes an error for who asked", async () => {
  const { world, peer } = await behindEdge();
  peer.serve(() => "x".repeat(200_000), { agents: ["coder"] });
  const command = { from: "bob", to: "coder", turnId: "t", data: { command: "go" } };
  world.socket.hear({ type: "direct", ...command });
  await world.pass(1);
  assert.deepEqual(
    world.heard.map(({ type }) => type),
    ["ack", "error"],
  );
  assert.match(world.heard[1].data.error, /32000/);
});

test("a presence that is longer than a frame is refused too", async () => {
  const { world, peer } = await behindEdge();
  await assert.rejects(peer.announce({ metadata: { text: "x".repeat(40_000) } }), client.TooLarge);
  assert.equal(world.sentOf("presence").length, 1);
});

test("an error that is too long is cut, so that whoever asked hears of it", async () => {
  const { world, peer } = await behindEdge();
  peer.serve(() => Promise.reject(new Error(`x${"<html>\u{1f408}".repeat(6000)}`)), {
    agents: ["coder"],
  });
  const command = { from: "bob", to: "coder", turnId: "t", data: { command: "go" } };
  world.socket.hear({ type: "direct", ...command });
  await world.pass(1);
  const { error } = world.heard.at(-1).data;
  assert.equal([...error].length, 1000);
  assert.doesNotMatch(error, /\p{Surrogate}/u);
});

test("without an edge a message may be as long as the relay takes it", async () => {
  const { world, peer } = await behindEdge(LIMITS);
  await peer.broadcast("x".repeat(200_000));
  assert.equal(world.heard.length, 1);
});

test("join resolves when the bounds are known, or after a while at a relay that never tells", async () => {
  const world = new World();
  world.limits = { ...EDGE, frameBytes: 1024 };
  const peer = await world.join();
  await assert.rejects(peer.broadcast("x".repeat(1024)), client.TooLarge);

  const other = new World();
  other.answersCapabilities = false;
  const joining = other.join();
  await other.pass(5.1);
  await (await joining).broadcast("x".repeat(1024));
  assert.equal(other.heard.length, 1);
});

test("after a reconnection the bounds are those of the new connection", async () => {
  const { world, peer } = await behindEdge();
  world.limits = LIMITS;
  world.socket.break();
  await world.pass(5);
  await peer.broadcast("x".repeat(100_000));
  await Promise.all(numbers(50).map((n) => peer.broadcast(n)));
  assert.ok(world.frames.every(([, text]) => text[0] === "{"));
});

test("a flood over renewals behind an edge neither loses, doubles nor reorders", async () => {
  const world = new World();
  world.limits = EDGE;
  const peer = await world.join({ limits: { renewAfterS: 30 } });
  let sent = 0;
  for (let step = 0; step < 240; step += 1) {
    for (let n = 0; n < 150; n += 1) {
      sent += 1;
      peer.broadcast(sent).catch(() => {});
    }
    await world.pass(0.5);
  }
  await world.pass(20);
  assert.ok(world.sockets.length >= 4);
  assert.deepEqual(
    heardData(world),
    numbers(sent).map((n) => n + 1),
  );
});

for (const strange of [{ framesPerSecond: -1 }, { framesPerSecond: "many" }, { frameBytes: 10 }]) {
  test(`bounds that are none change nothing: ${JSON.stringify(strange)}`, async () => {
    const { peer } = await behindEdge({ ...LIMITS, ...strange });
    await peer.broadcast("x".repeat(100_000));
  });
}
