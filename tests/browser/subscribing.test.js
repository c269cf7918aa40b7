/** A page that wants only some of what others say (rule 22 of docs/protocol.md). In virtual time, with a
 * relay that does not know the rule and sends everything: the page leaves out the rest. */

import assert from "node:assert/strict";
import test from "node:test";

import { connect, join } from "../../browser/relay-client.js";
import { collect, World } from "./world.js";

const PRICES = { types: ["price"] };

/** Joins, and listens from the beginning. */
async function listening(options) {
  const world = new World();
  const told = [];
  world.arrive("bob", "helper");
  world.arrive("carol", "writer");
  const peer = connect({ url: "ws://relay/ws", id: "me", ...options, _env: world.env });
  peer.on("message", ({ type, data }) => type !== "presence" && told.push(data));
  await world.settle();
  await peer.joined;
  return { world, peer, told };
}

async function sayEverything(world) {
  await world.broadcast({ data: "to all" });
  await world.broadcast({ to: "me", data: "to me" });
  await world.broadcast({ to: "carol", data: "to carol" });
  await world.broadcast({ to: "writer", data: "to carol's writer" });
  await world.broadcast({ type: "price", data: 1 });
  await world.broadcast({ type: "price", topic: "fruit/apples", data: 2 });
  await world.broadcast({ type: "price", topic: "wine", data: 3 });
  await world.broadcast({ type: "direct", to: "me", data: "direct" });
}

const subscriptions = (world) => world.sentOf("presence").map(({ data }) => data.subscribe);

const CASES = [
  [undefined, ["to all", "to me", "to carol", "to carol's writer", 1, 2, 3]],
  [null, ["to all", "to me", "to carol", "to carol's writer", 1, 2, 3]],
  [true, ["to all", "to me", "to carol", "to carol's writer", 1, 2, 3]],
  [false, []],
  [{ others: false }, ["to all", "to me", 1, 2, 3]],
  [{ topics: ["fruit/*"] }, ["to all", "to me", "to carol", "to carol's writer", 1, 2]],
  [PRICES, [1, 2, 3]],
  [{ others: false, topics: ["wine"], types: ["broadcast", "price"] }, ["to all", "to me", 1, 3]],
];

for (const [subscribe, wanted] of CASES) {
  test(`a page gets what it says it wants: ${JSON.stringify(subscribe)}`, async () => {
    const { world, peer, told } = await listening({ subscribe });
    const read = collect(peer);
    await sayEverything(world);
    assert.deepEqual(told, [...wanted, "direct"]);
    const data = read.filter(({ type }) => type !== "presence").map((message) => message.data);
    assert.deepEqual(data, told);
  });
}

test("what is wanted changes, and each connection says it", async () => {
  const { world, peer, told } = await listening({ subscribe: PRICES });
  await peer.subscribe({ topics: ["wine"], types: ["price"] });
  await sayEverything(world);
  assert.deepEqual(told.splice(0), [1, 3, "direct"]);
  world.socket.break();
  await world.pass(3);
  await peer.subscribe(true);
  await sayEverything(world);
  assert.equal(told.length, CASES[0][1].length + 1);
  const both = { topics: ["wine"], types: ["price"] };
  assert.deepEqual(subscriptions(world), [PRICES, both, both, undefined]);
});

test("who wants nothing asks a page, and serves a command to everyone, all the same", async () => {
  const { world, peer, told } = await listening({ subscribe: false });
  peer.serve(({ text }) => text.toUpperCase());
  const turn = peer.ask("bob", "count");
  await world.settle();
  await world.broadcast({ turnId: "c-1", data: { command: "go" } });
  await world.broadcast({
    type: "stream",
    turnId: turn.turnId,
    data: { chunk: "one", chunkNum: 1 },
  });
  await world.broadcast({ type: "turn_end", turnId: turn.turnId, data: { result: "one" } });
  assert.equal(await turn, "one");
  const [end] = world.heard.filter(({ type }) => type === "turn_end");
  assert.deepEqual([end.turnId, end.data.result], ["c-1", "GO"]);
  assert.deepEqual(told, []);
  assert.deepEqual(subscriptions(world), [
    { others: false, types: [] },
    { others: false, types: ["broadcast"] },
    { others: false, types: ["ack", "broadcast", "error", "stream", "turn_end"] },
  ]);
});

test("where there is no room for its wish it joins without, and warns", async () => {
  const world = new World();
  const data = { code: "too_many_wishes", error: "2048 are here" };
  world.refuses = ({ subscribe }) => (subscribe ? data : null);
  const told = [];
  const peer = connect({ url: "ws://relay/ws", id: "me", subscribe: PRICES, _env: world.env });
  peer.on("message", ({ type, data }) => type !== "presence" && told.push(data));
  await world.pass(3);
  await peer.joined;
  await sayEverything(world);
  assert.deepEqual(told, [1, 2, 3, "direct"]);
  await peer.announce({ metadata: { host: "here" } });
  assert.deepEqual(subscriptions(world), [PRICES, undefined, undefined]);
  const warned = () =>
    world.warnings.filter((sentence) => /leaves out the rest: .*2048 are here/.test(sentence));
  assert.equal(warned().length, 1);
  await peer.subscribe({ others: false }); // It tries again, in vain.
  assert.equal(warned().length, 2);
  world.refuses = null;
  await peer.subscribe(PRICES);
  assert.deepEqual(subscriptions(world).at(-1), PRICES);
});

test("what cannot be meant is refused at once", async () => {
  const { env } = new World();
  const options = { url: "ws://relay/ws", id: "me", _env: env };
  const { peer } = await listening({});
  const cases = [
    ...["all", 1, ["a"], () => {}, Symbol("a"), { others: 1 }].map((no) => [no, "TypeError"]),
    ...[{ types: "a" }, { topics: [1] }, { types: new Set() }].map((no) => [no, "TypeError"]),
    ...[{ topics: ["a*b"] }, { types: [""] }, { topic: ["a"] }].map((no) => [no, "RangeError"]),
    ...[{ types: ["\ud800"] }, { types: ["x".repeat(257)] }].map((no) => [no, "RangeError"]),
    [{ types: Array(65).fill("x") }, "RangeError"],
  ];
  for (const [subscribe, name] of cases) {
    assert.throws(() => connect({ ...options, subscribe }), { name, message: /subscribe/ });
    await assert.rejects(join({ ...options, subscribe }), { name });
    await assert.rejects(peer.subscribe(subscribe), { name });
  }
});
