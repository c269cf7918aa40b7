/** What was said before a page came, if it asks for it (rule 21 of docs/protocol.md). In virtual time. */

import assert from "node:assert/strict";
import test from "node:test";

import { connect, join } from "../../browser/relay-client.js";
import { CountingWorld } from "./counting.js";
import { collect } from "./world.js";

/** A relay that remembers. */
class RecallingWorld extends CountingWorld {
  recalls = true;
  said = []; // What went to everyone, oldest first.
  wishes = []; // What the client has asked for.

  decide(socket, message) {
    const wish = message.data?.history?.messages;
    if (message.type === "capabilities" && wish !== undefined) {
      this.wishes.push(wish);
      socket.wish = wish;
    }
    const isNew = message.type === "presence" && !socket.hasJoined;
    super.decide(socket, message);
    if (isNew && socket.hasJoined && socket.wish !== undefined && this.recalls) {
      const old = this.said.slice(-socket.wish);
      const data = { history: { messages: old.length } };
      this.answer(socket, { type: "capabilities_response", data });
      for (const message of old) this.put(socket, message);
    }
  }

  async broadcast(fields) {
    this.said.push({ type: "broadcast", from: "bob", ...fields });
    await super.broadcast(fields);
  }
}

async function remembering(count) {
  const world = new RecallingWorld();
  for (let n = 1; n <= count; n += 1) await world.broadcast({ data: n });
  return world;
}

const shown = (messages) =>
  messages
    .filter(({ type }) => type === "broadcast")
    .map(({ data, isOld }) => (isOld ? data : `new ${data}`));

/** Joins, and listens from the beginning. */
async function listening(world, options) {
  const told = [];
  const peer = connect({ url: "ws://relay/ws", id: "me", ...options, _env: world.env });
  peer.on("message", (message) => told.push(message));
  await world.settle();
  await peer.joined;
  return { peer, told };
}

test("who asks gets the last messages, and can tell them from new ones", async () => {
  const world = await remembering(5);
  const { peer, told } = await listening(world, { history: 3 });
  assert.deepEqual(shown(told), [3, 4, 5]); // All there when it has joined.
  const read = collect(peer);
  await world.broadcast({ data: 6 });
  assert.deepEqual(shown(told), [3, 4, 5, "new 6"]);
  assert.deepEqual(shown(read), shown(told));
  assert.deepEqual(told[0].fields, world.said[2]);
});

test("who does not ask gets none", async () => {
  const world = await remembering(5);
  const { told } = await listening(world, {});
  assert.deepEqual([told, world.wishes], [[], []]);
});

test("a relay that does not know how is joined all the same", async () => {
  const world = await remembering(5);
  world.recalls = false;
  const { told } = await listening(world, { history: 50 });
  await world.broadcast({ data: 6 });
  assert.deepEqual(shown(told), ["new 6"]);
});

test("an old command is served by nobody", async () => {
  const world = await remembering(0);
  await world.broadcast({ turnId: "c-1", data: { command: "old" } });
  const { peer, told } = await listening(world, { agents: ["coder"], history: 50 });
  const served = [];
  peer.serve(({ text }) => void served.push(text));
  await world.broadcast({ turnId: "c-2", data: { command: "new" } });
  assert.deepEqual(served, ["new"]);
  assert.deepEqual(
    told.map(({ isOld }) => isOld),
    [true, false],
  );
});

test("a cut among them loses and doubles none, and nobody asks again", async () => {
  for (let count = 0; count < 10; count += 1) {
    // It has claimed its id, may come back, and has joined.
    const world = await remembering(5);
    world.slow = true;
    const told = [];
    const peer = connect({ url: "ws://relay/ws", id: "me", history: 5, _env: world.env });
    peer.on("message", (message) => told.push(message));
    await world.settle();
    while (world.socket.sent.length) world.take(world.socket);
    const coming = Math.min(3 + count, world.socket.coming.length);
    for (let n = 0; n < coming; n += 1) world.deliver(world.socket);
    world.socket.break();
    world.slow = false;
    await world.broadcast({ data: 6 });
    await world.pass(3);
    await world.broadcast({ data: 7 });
    await peer.joined;
    assert.deepEqual(shown(told), [1, 2, 3, 4, 5, "new 6", "new 7"], `cut behind ${count}`);
    assert.deepEqual([peer.resumed, world.wishes], [1, [5]]);
    await peer.leave();
  }
});

test("after a gap nothing old comes again", async () => {
  const world = await remembering(2);
  const { peer, told } = await listening(world, { history: 5 });
  world.restart();
  await world.broadcast({ data: 3 });
  await world.pass(3);
  await world.broadcast({ data: 4 });
  assert.deepEqual(shown(told), [1, 2, "new 4"]);
  assert.deepEqual([peer.state, world.wishes], ["present", [5]]);
});

test("a number that cannot be meant is refused at once", async () => {
  const { env } = new RecallingWorld();
  const options = { url: "ws://relay/ws", id: "me", _env: env };
  for (const history of [-1, 10_001]) {
    assert.throws(() => connect({ ...options, history }), {
      name: "RangeError",
      message: `history is a number of messages from 0 to 10000 (unreadMessagesMax), not ${history}`,
    });
  }
  for (const history of [null, "50", 1.5, Number.NaN, Infinity, true, [50], {}]) {
    assert.throws(() => connect({ ...options, history }), TypeError);
    await assert.rejects(join({ ...options, history }), TypeError);
  }
});
