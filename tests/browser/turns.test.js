/** Turns in a page: what is missing is told, what nobody waits for is cancelled, and who reads the
 * answers. (What is decided is in the vectors; here is what a page sees of it.) In virtual time. */

import assert from "node:assert/strict";
import test from "node:test";

import * as client from "../../browser/relay-client.js";
import { Shelf, Unread } from "../../browser/src/unread.js";
import { collect, World } from "./world.js";

async function joined(options = {}) {
  const world = new World();
  world.arrive("bob", "coder");
  const peer = await world.join(options);
  await world.settle();
  return { world, peer };
}

async function hear(world, message) {
  world.socket.hear(message);
  await world.settle();
}

const reply = ({ turnId }, answer, data) => ({
  type: "direct",
  from: "coder",
  instanceId: "bob",
  to: "me",
  targetInstanceId: "me",
  turnId,
  answer,
  data,
});

const command = (fields) => ({
  type: "direct",
  from: "bob",
  to: "poet",
  turnId: "c-1",
  answers: "direct",
  data: { command: "go" },
  ...fields,
});

const told = (world) => world.heard.map(({ type, answer, turnId }) => [type, answer, turnId]);

// What is missing

test("a hole in an answer is an error that has what was received, and stops the work", async () => {
  const { world, peer } = await joined();
  const turn = peer.ask("coder", "x");
  const chunks = collect(turn);
  await hear(world, reply(turn, "stream", { chunk: "a", chunkNum: 0 }));
  await hear(world, reply(turn, "stream", { chunk: "d", chunkNum: 3 }));
  await hear(world, reply(turn, "turn_end", { result: "done", chunks: 4 }));
  await assert.rejects(turn.result(), (error) => {
    assert.ok(error instanceof client.AnswerGap && error instanceof client.TurnError);
    assert.deepEqual(error.chunks, ["a"]);
    return true;
  });
  assert.deepEqual([...chunks], ["a"]);
  assert.ok(chunks.error instanceof client.AnswerGap);
  assert.deepEqual(told(world).at(-1), ["cancel", undefined, turn.turnId]);
});

test("an end that is missing keeps the result", async () => {
  const { world, peer } = await joined();
  const turn = peer.ask("coder", "x");
  await hear(world, reply(turn, "turn_end", { result: "done", chunks: 4 }));
  await assert.rejects(turn.result(), { name: "AnswerGap", result: "done" });
});

test("after a lost connection every loop and every listener is told, in its place", async () => {
  const { world, peer } = await joined();
  const heard = [];
  peer.on("gap", (gap) => heard.push(gap));
  const loops = [collect(peer), collect(peer)];
  await world.broadcast({ data: 1 });
  world.socket.break();
  await world.pass(5);
  await world.broadcast({ data: 2 });
  for (const loop of loops) {
    assert.ok(loop.error instanceof client.Gap);
    assert.deepEqual(
      loop.filter(({ type }) => type === "broadcast").map(({ data }) => data),
      [1],
    );
  }
  const after = collect(peer);
  await world.settle();
  assert.deepEqual(
    after.filter(({ type }) => type === "broadcast").map(({ data }) => data),
    [2],
  );
  assert.equal(heard.length, 1);
  assert.ok(heard[0].seconds > 0);
});

test("of several gaps in one place the last is told, and none is kept for ever", async () => {
  const unread = new Unread(new Shelf({ unreadMessagesMax: 3, unreadBytesMax: 1024 }));
  const slow = unread[Symbol.asyncIterator]();
  for (let n = 0; n < 10; n += 1) {
    unread.gap(new client.Gap(n));
    unread.gap(new client.Gap(n + 100));
    unread.put(n);
  }
  await assert.rejects(slow.next(), client.Lagged);
  for (let n = 7; n < 10; n += 1) {
    await assert.rejects(slow.next(), { name: "Gap", seconds: n + 100 });
    assert.equal((await slow.next()).value, n);
  }
  unread.gap(new client.Gap(1));
  unread.finish();
  unread.gap(new client.Gap(2));
  await assert.rejects(slow.next(), { name: "Gap", seconds: 1 });
  assert.ok((await slow.next()).done);
});

test("a loop that begins later is not told of what was missing before", async () => {
  const unread = new Unread(new Shelf({ unreadMessagesMax: 3, unreadBytesMax: 1024 }));
  const first = unread[Symbol.asyncIterator]();
  unread.gap(new client.Gap(1));
  const second = unread[Symbol.asyncIterator]();
  unread.put("next");
  assert.equal((await second.next()).value, "next");
  await assert.rejects(first.next(), client.Gap);
  assert.equal((await first.next()).value, "next");
});

// Nobody waits any more

const WAYS = {
  "cancel()": async (turn) => turn.cancel(),
  "leaving the loop": async (turn) => {
    for await (const chunk of turn) {
      assert.equal(chunk, "a");
      break;
    }
  },
  "an error in the loop": async (turn) => {
    await assert.rejects(async () => {
      for await (const chunk of turn) throw new Error(chunk);
    }, /a/);
  },
  "a signal": async (_, abort) => abort.abort(new Error("too long")),
  "a timeout": async (_, __, world) => world.pass(61),
};

for (const [name, giveUp] of Object.entries(WAYS)) {
  test(`${name} cancels the work, once`, async () => {
    const { world, peer } = await joined();
    const abort = new AbortController();
    const turn = peer.ask("coder", "x", { signal: abort.signal });
    await hear(world, reply(turn, "stream", { chunk: "a", chunkNum: 0 }));
    await giveUp(turn, abort, world);
    turn.cancel();
    abort.abort();
    await world.settle();
    await assert.rejects(turn.result(), client.TurnError);
    const cancels = world.heard.filter(({ type }) => type === "cancel");
    assert.deepEqual(
      cancels.map(({ to, turnId }) => [to, turnId]),
      [["bob", turn.turnId]],
    );
    assert.deepEqual(turn.chunks, ["a"]);
  });
}

test("the reason of a signal is the cause of the error; aborted before, nothing is sent", async () => {
  const { world, peer } = await joined();
  const signal = AbortSignal.abort(new Error("no more"));
  const turn = peer.ask("coder", "x", { signal });
  await assert.rejects(turn.result(), ({ cause }) => cause === signal.reason);
  await world.settle();
  assert.deepEqual(world.heard, []);
});

test("a signal that is aborted after the end changes nothing", async () => {
  const { world, peer } = await joined();
  const abort = new AbortController();
  const turn = peer.ask("coder", "x", { signal: abort.signal });
  await hear(world, reply(turn, "turn_end", { result: 1 }));
  abort.abort();
  assert.equal(await turn, 1);
  assert.deepEqual(
    world.heard.map(({ type }) => type),
    ["direct"],
  );
});

test("whoever leaves cancels what it has asked", async () => {
  const { world, peer } = await joined();
  const turn = peer.ask("coder", "x");
  await world.settle();
  await peer.leave();
  await assert.rejects(turn.result(), client.Left);
  assert.deepEqual(told(world).at(-1), ["cancel", undefined, turn.turnId]);
});

test("a handler is told to stop, and what it says after that is nobody's", async () => {
  const { world, peer } = await joined({ agents: ["poet"] });
  const stopped = [];
  peer.serve(async ({ signal, stream, turnId }) => {
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    stopped.push([turnId, signal.reason]);
    await assert.rejects(stream("late"), client.TurnError);
    if (turnId === "c-2") throw new Error("late");
    return "late";
  });
  for (const turnId of ["c-1", "c-2"]) {
    await hear(world, command({ turnId }));
    await hear(world, { type: "cancel", from: "bob", to: "me", turnId });
  }
  assert.deepEqual(
    stopped.map(([turnId, reason]) => [turnId, reason instanceof client.TurnError]),
    [
      ["c-1", true],
      ["c-2", true],
    ],
  );
  assert.deepEqual(told(world), [
    ["direct", "ack", "c-1"],
    ["direct", "error", "c-1"],
    ["direct", "ack", "c-2"],
    ["direct", "error", "c-2"],
  ]);
});

test("a handler is told when its asker stays away, and when the peer leaves", async () => {
  const { world, peer } = await joined({ agents: ["poet"] });
  const signals = [];
  peer.serve(({ signal }) => {
    signals.push(signal);
    return new Promise(() => {});
  });
  await hear(world, command());
  world.leave("bob");
  await world.pass(5.5);
  assert.equal(signals[0].aborted, false);
  await world.pass(1);
  assert.equal(signals[0].aborted, true);
  await hear(world, command({ from: "eve" }));
  await peer.leave();
  assert.ok(signals[1].aborted && signals[1].reason instanceof client.Left);
});

// Signs of life, any of several, agents that nobody serves

test("an agent may think for as long as it likes", async () => {
  const { world, peer } = await joined({ agents: ["poet"] });
  peer.serve(() => new Promise(() => {}));
  await hear(world, command());
  await world.pass(35);
  assert.deepEqual(told(world), Array(4).fill(["direct", "ack", "c-1"]));
});

test("any of several is asked, and another if that one leaves", async () => {
  const { world, peer } = await joined();
  world.arrive("eve", "coder");
  const turn = peer.ask("coder", "x", { any: true });
  await world.settle();
  const [first] = world.heard;
  world.leave(first.targetInstanceId);
  await world.settle();
  const second = world.heard.at(-1);
  assert.deepEqual(
    new Set([first, second].map((m) => m.targetInstanceId)),
    new Set(["bob", "eve"]),
  );
  await hear(world, {
    ...reply(turn, "turn_end", { result: 7 }),
    instanceId: second.targetInstanceId,
  });
  assert.equal(await turn, 7);
  assert.throws(() => peer.ask("coder", "x", { any: true, peer: "bob" }), RangeError);
});

test("an agent that nobody serves is an error in time, for the asker in a page too", async () => {
  const { world, peer } = await joined({ agents: ["poet"] });
  await hear(world, command());
  await world.pass(20);
  assert.equal(world.heard[0].data.code, "not_served");
  const turn = peer.ask("coder", "x");
  await hear(world, reply(turn, "error", world.heard[0].data));
  await assert.rejects(turn.result(), client.NotServed);
});

test("an answer to the asker alone is read as what it answers", async () => {
  const { world, peer } = await joined();
  const seen = collect(peer);
  const turn = peer.ask("coder", "x");
  await hear(world, reply(turn, "ack", {}));
  await hear(world, reply(turn, "turn_end", { result: 1 }));
  assert.deepEqual(seen.map(({ type }) => type).slice(-2), ["ack", "turn_end"]);
  assert.equal(seen.at(-1).fields.answer, "turn_end");
});
