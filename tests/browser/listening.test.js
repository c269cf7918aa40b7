/** Who hears what: listeners, several loops, and a peer that has not joined yet. */

import assert from "node:assert/strict";
import test from "node:test";

import { BadAddress, connect, isMessage, Lagged, Left } from "../../browser/relay-client.js";
import { collect, World } from "./world.js";

async function joined(options) {
  const world = new World();
  return { world, peer: await world.join(options) };
}

const data = (messages) => messages.map((message) => message.data);
const spoken = (messages) => data(messages.filter(({ type }) => type === "broadcast"));

// Listeners

test("listeners hear every message, the roster as it changes, and the state", async () => {
  const world = new World();
  world.arrive("ann");
  const peer = connect({ url: "ws://relay/ws", id: "me", _env: world.env });
  const heard = { state: [], roster: [], message: [], ended: [] };
  for (const name of Object.keys(heard)) peer.on(name, (told) => heard[name].push(told));
  await peer.joined;
  world.arrive("bob", "coder");
  world.arrive("bob", "coder", "typist");
  world.leave("bob");
  await world.broadcast({ data: 1 });
  await peer.leave();
  assert.deepEqual(heard.state, ["present", "ended"]);
  const told = heard.roster.map(({ joined, updated, left, here }) =>
    [joined, updated, left].map((peers) => peers.map(({ id }) => id).join()).concat(here.size),
  );
  assert.deepEqual(told, [
    ["ann", "", "", 1],
    ["bob", "", "", 2],
    ["", "bob", "", 2],
    ["", "", "bob", 1],
  ]);
  assert.deepEqual(spoken(heard.message), [1]);
  assert.deepEqual(heard.ended, [null]);
});

test("several listeners each hear everything, in their order, until they stop", async () => {
  const { world, peer } = await joined();
  const heard = [];
  const stops = ["a", "b"].map((name) => peer.on("message", ({ data }) => heard.push(name + data)));
  const same = () => heard.push("twice");
  peer.on("message", same);
  const stopSame = peer.on("message", same);
  await world.broadcast({ data: 1 });
  stopSame();
  stops[0]();
  stops[0]();
  await world.broadcast({ data: 2 });
  assert.deepEqual(heard, ["a1", "b1", "twice", "twice", "b2", "twice"]);
});

test("a listener that throws is reported, and hurts nobody", async () => {
  const { world, peer } = await joined();
  const [reported, heard] = [[], []];
  world.env.report = (error) => reported.push(error.message);
  const other = await world.join({ id: "you" });
  for (const one of [peer, other]) {
    one.on("message", () => {
      throw new Error("a bug");
    });
    one.on("message", ({ data }) => heard.push(data));
  }
  world.sockets[1].hear({ type: "broadcast", from: "bob", data: 1 });
  await other.leave();
  assert.deepEqual([reported, heard], [["a bug"], [1]]);
});

test("one that is stopped by another is not told any more, one that is added not yet", async () => {
  const { world, peer } = await joined();
  const heard = [];
  let stop = () => {};
  peer.on("message", () => {
    stop();
    peer.on("message", () => heard.push("added"));
  });
  stop = peer.on("message", () => heard.push("stopped"));
  await world.broadcast({ data: 1 });
  assert.deepEqual(heard, []);
});

test("a listener may do anything with the peer, leaving included", async () => {
  const { world, peer } = await joined();
  const states = [];
  peer.on("state", (state) => states.push(state));
  peer.on("message", ({ type }) => {
    if (type !== "broadcast") return;
    peer.broadcast("answer");
    peer.leave();
  });
  await world.broadcast({ data: 1 });
  await peer.ended;
  assert.deepEqual(spoken(world.heard), ["answer"]);
  assert.deepEqual(states, ["ended"]);
});

test("who listens to the roster hears what changes from then on", async () => {
  const { world, peer } = await joined();
  world.arrive("bob");
  const heard = [];
  const listen = () => peer.on("roster", ({ joined }) => heard.push(joined.map(({ id }) => id)));
  const stop = listen();
  world.arrive("carol");
  stop();
  world.arrive("dave");
  listen();
  world.arrive("eve");
  assert.deepEqual(heard, [["carol"], ["eve"]]);
});

test("there are no other events, and a listener is a function", async () => {
  const { peer } = await joined();
  assert.throws(() => peer.on("close", () => {}), /^TypeError: there is no event close; there are/);
  assert.throws(() => peer.on("message", null), TypeError);
});

// Loops

test("several loops each get everything", async () => {
  const { world, peer } = await joined();
  const [one, other] = [collect(peer), collect(peer)];
  await world.broadcast({ data: 1 });
  const late = collect(peer);
  await world.broadcast({ data: 2 });
  assert.deepEqual([spoken(one), spoken(other), spoken(late)], [[1, 2], [1, 2], [2]]);
});

test("the first loop begins with what arrived before it", async () => {
  const { world, peer } = await joined();
  await world.broadcast({ data: 1 });
  const first = collect(peer);
  await world.settle();
  assert.deepEqual(spoken(first), [1]);
});

test("a loop goes on where one was left", async () => {
  const { world, peer } = await joined();
  const other = collect(peer);
  const seen = [];
  await Promise.all([
    (async () => {
      for await (const message of peer) {
        seen.push(message);
        if (message.data === 1) break;
      }
    })(),
    world.broadcast({ data: 1 }),
  ]);
  await world.broadcast({ data: 2 });
  await world.settle();
  const next = collect(peer);
  await world.broadcast({ data: 3 });
  assert.deepEqual([spoken(seen), spoken(next), spoken(other)], [[1], [2, 3], [1, 2, 3]]);
});

test("a loop that is left while it waits takes nothing from the next one", async () => {
  const { world, peer } = await joined();
  const reader = peer[Symbol.asyncIterator]();
  const waiting = reader.next();
  await reader.return();
  assert.deepEqual(await waiting, { done: true, value: undefined });
  const next = collect(peer);
  await world.broadcast({ data: 1 });
  assert.deepEqual(spoken(next), [1]);
  assert.equal((await reader.next()).done, true);
});

test("a slow loop loses its oldest, and the others nothing", async () => {
  const { world, peer } = await joined({ limits: { unreadMessagesMax: 2 } });
  const quick = collect(peer);
  await world.settle();
  const slow = peer[Symbol.asyncIterator]();
  for (let n = 1; n <= 5; n += 1) await world.broadcast({ data: n });
  await assert.rejects(slow.next(), (error) => error instanceof Lagged && error.count === 3);
  assert.equal((await slow.next()).value.data, 4);
  assert.deepEqual(spoken(quick), [1, 2, 3, 4, 5]);
  assert.equal(quick.error, undefined);
});

test("what nobody needs any more is not kept", async () => {
  const { world, peer } = await joined({ limits: { unreadMessagesMax: 3 } });
  const loop = collect(peer);
  await world.settle();
  for (let n = 1; n <= 20; n += 1) await world.broadcast({ data: n });
  assert.equal(spoken(loop).length, 20);
  assert.equal(loop.error, undefined);
});

// Before it has joined

test("a peer that has not joined yet listens, serves and sends", async () => {
  const world = new World();
  world.opens = false;
  const url = new URL("ws://relay/ws");
  const peer = connect({ url, id: "me", agents: ["coder"], _env: world.env });
  assert.equal(peer.state, "joining");
  const heard = [];
  peer.on("message", ({ type }) => heard.push(type));
  peer.serve(({ text }) => `${text}!`);
  const sent = peer.broadcast("early");
  world.socket.open();
  assert.equal(await peer.joined, peer);
  await sent;
  const command = { turnId: "t", data: { command: "go" } };
  world.socket.hear({ type: "direct", from: "bob", to: "coder", ...command });
  await world.settle();
  assert.deepEqual(heard, ["direct"]);
  assert.deepEqual(
    world.heard.map(({ type }) => type),
    ["broadcast", "ack", "turn_end"],
  );
  assert.equal(world.socket.url, "ws://relay/ws");
});

test("a peer that leaves before it has joined says so", async () => {
  const world = new World();
  world.opens = false;
  const peer = connect({ url: "ws://relay/ws", id: "me", _env: world.env });
  await peer.leave();
  await assert.rejects(peer.joined, Left);
  assert.equal(await peer.ended, null);
});

test("what is no URL is refused at once, or when the function gives it", async () => {
  const world = new World();
  for (const url of [null, 7, {}]) {
    assert.throws(() => connect({ url, id: "me", _env: world.env }), BadAddress);
    await assert.rejects(world.join({ url }), BadAddress);
    await assert.rejects(world.join({ url: () => url }), BadAddress);
  }
  await world.join({ url: async () => ({ url: new URL("ws://other/ws") }) });
  assert.equal(world.socket.url, "ws://other/ws");
});

// Turns

test("a turn is awaited for its result, and its chunks are there", async () => {
  const { world, peer } = await joined();
  world.arrive("bob", "coder");
  const turn = peer.ask("coder", "write");
  const { turnId } = turn;
  const streamed = collect(turn);
  const say = (type, data) => world.socket.hear({ type, from: "bob", turnId, data });
  say("stream", { chunk: "a", chunkNum: 0 });
  assert.deepEqual(turn.chunks, ["a"]);
  say("stream", { chunk: "b", chunkNum: 1 });
  say("turn_end", { result: { done: true } });
  assert.deepEqual(await turn, { done: true });
  await world.settle();
  assert.deepEqual([turn.chunks, [...streamed], turn.dropped], [["a", "b"], ["a", "b"], 0]);
  const again = collect(turn);
  await again.over;
  assert.deepEqual([...again], ["a", "b"]);
});

test("a turn that fails rejects whoever awaits it, and keeps the chunks it got", async () => {
  const { world, peer } = await joined();
  world.arrive("bob", "coder");
  const turn = peer.ask("coder", "write");
  const said = { from: "bob", turnId: turn.turnId };
  world.socket.hear({ ...said, type: "stream", data: { chunk: "a", chunkNum: 0 } });
  world.socket.hear({ ...said, type: "error", data: { error: "out of ink" } });
  await assert.rejects(async () => await turn, /out of ink/);
  assert.equal(await turn.catch(({ name }) => name), "TurnFailed");
  assert.equal(
    await turn.then(
      () => "result",
      () => "error",
    ),
    "error",
  );
  await assert.rejects(turn.finally(() => {}));
  assert.deepEqual(turn.chunks, ["a"]);
});

test("what was read of a turn makes room before anything that was not", async () => {
  const { world, peer } = await joined({ limits: { unreadBytesMax: 4000 } });
  world.arrive("bob", "coder");
  const turn = peer.ask("coder", "write");
  const streamed = collect(turn);
  await world.broadcast({ data: "kept" });
  for (let n = 0; n < 10; n += 1) {
    const chunk = { chunk: String(n).repeat(500), chunkNum: n };
    world.socket.hear({ type: "stream", from: "bob", turnId: turn.turnId, data: chunk });
    await world.settle();
  }
  assert.equal(streamed.length, 10);
  assert.ok(turn.dropped > 0);
  assert.equal(turn.chunks.length, 10 - turn.dropped);
});

// What messages say

test("a message counts as one of its type only if it says what such a message says", () => {
  const message = (type, data) => ({ type, data });
  assert.ok(isMessage(message("stream", { chunk: "x" }), "stream"));
  assert.ok(isMessage(message("turn_end", { result: null }), "turn_end"));
  assert.ok(isMessage(message("error", { error: "x" }), "error"));
  assert.ok(isMessage(message("presence", {}), "presence"));
  assert.ok(!isMessage(message("stream", { chunk: 7 }), "stream"));
  assert.ok(!isMessage(message("turn_end", {}), "turn_end"));
  assert.ok(!isMessage(message("error", "x"), "error"));
  assert.ok(!isMessage(message("error", { error: "x" }), "stream"));
});
