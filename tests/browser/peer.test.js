/** What a user of the client does: send, read, ask, serve. In virtual time. */

import assert from "node:assert/strict";
import test from "node:test";

import * as client from "../../browser/relay-client.js";
import { collect, LIMITS, World } from "./world.js";

async function joined(options, setUp = () => {}) {
  const world = new World();
  setUp(world);
  return { world, peer: await world.join(options) };
}

/** A message from another peer arrives. */
async function hear(world, message) {
  world.socket.hear(message);
  await world.settle();
}

test("every kind of message goes out in the words of the existing pages", async () => {
  const { world, peer } = await joined();
  await peer.broadcast("hello", { turnId: "t" });
  await peer.direct("bob", { command: "x" }, { targetInstanceId: "b" });
  await peer.ack("t");
  await peer.stream("t", "chunk", 3);
  await peer.turnEnd("t", "result");
  await peer.error("t", "sentence", { to: "bob" });
  await peer.send("ring-update", { from: "agent", data: "free" });
  const said = world.heard.map(({ timestamp, ...rest }) => {
    assert.equal(timestamp, world.wallMs);
    return rest;
  });
  assert.deepEqual(said, [
    { type: "broadcast", from: "me", data: "hello", turnId: "t" },
    { type: "direct", from: "me", to: "bob", data: { command: "x" }, targetInstanceId: "b" },
    { type: "ack", from: "me", turnId: "t", data: {} },
    { type: "stream", from: "me", turnId: "t", data: { chunk: "chunk", chunkNum: 3 } },
    { type: "turn_end", from: "me", turnId: "t", data: { result: "result" } },
    { type: "error", from: "me", turnId: "t", data: { error: "sentence" }, to: "bob" },
    { type: "ring-update", from: "agent", data: "free", instanceId: "me" },
  ]);
});

test("a message arrives with its origin, and all of its fields", async () => {
  const { world, peer } = await joined();
  const seen = collect(peer);
  const fields = {
    type: "direct",
    from: "coder",
    instanceId: "bob",
    to: "me",
    data: 1,
    turnId: "t",
    extra: [2],
  };
  await hear(world, fields);
  assert.equal(seen[0].origin, "bob");
  assert.equal(seen[0].from, "coder");
  assert.deepEqual(seen[0].fields, fields);
});

test("messages with strange contents hurt nobody", async () => {
  const { world, peer } = await joined({}, (world) => (world.limits = null));
  const seen = collect(peer);
  const turn = peer.ask("nobody", "x");
  const { turnId } = turn;
  for (const data of [null, 7, "text", [], { agents: 5 }, { agents: [null, {}, { id: 3 }] }]) {
    for (const type of [
      "presence",
      "broadcast",
      "direct",
      "stream",
      "ack",
      "capabilities_response",
    ]) {
      await hear(world, { type, from: "bob", data, turnId });
    }
    await hear(world, { type: "presence", data });
    await hear(world, { type: "error", from: {}, data, turnId: 7 });
  }
  await hear(world, { type: "error", from: "relay", data: null, turnId });
  await assert.rejects(turn.result(), client.TurnRefused);
  assert.equal(peer.state, "present");
  assert.equal(seen.error, undefined);
  assert.deepEqual(peer.roster.get("bob").agents, []);
});

test("without a connection messages wait, in order, up to a bound", async () => {
  const { world, peer } = await joined({ limits: { queueMessagesMax: 3 } });
  world.socket.break();
  const waiting = [1, 2, 3].map((n) => peer.broadcast(n));
  await assert.rejects(peer.broadcast(4), client.QueueFull);
  await world.pass(5);
  await Promise.all(waiting);
  assert.deepEqual(
    world.heard.map(({ data }) => data),
    [1, 2, 3],
  );
});

test("the queue is bounded in bytes too", async () => {
  const { world, peer } = await joined({ limits: { queueBytesMax: 1024 } });
  for (let n = 0; n < 5; n += 1) await peer.broadcast("ü".repeat(300)); // What was sent is gone.
  world.socket.break();
  // The last one that finds room may be longer than the room.
  const waiting = [1, 2].map(() => peer.broadcast("ü".repeat(300)));
  await assert.rejects(peer.broadcast("ü".repeat(300)), client.QueueFull);
  await world.pass(5);
  await Promise.all(waiting);
});

test("without a connection messages fail at once, if that was asked for", async () => {
  const { world, peer } = await joined({ offline: "fail" });
  world.socket.bufferedAmount = 2 ** 20;
  const waiting = peer.broadcast(0).catch((error) => error);
  world.socket.break();
  assert.ok((await waiting) instanceof client.NotConnected);
  await assert.rejects(peer.broadcast(1), client.NotConnected);
  await world.pass(5);
  await peer.broadcast(2);
  assert.deepEqual(
    world.heard.map(({ data }) => data),
    [2],
  );
});

test("while connected a full queue makes senders wait; when the connection goes, the newest fail", async () => {
  const { world, peer } = await joined({ limits: { queueMessagesMax: 2 } });
  world.socket.bufferedAmount = 2 ** 20;
  const outcomes = [1, 2, 3, 4].map((n) =>
    peer.broadcast(n).then(
      () => "sent",
      (error) => error.name,
    ),
  );
  await world.pass(1);
  world.socket.break();
  await world.pass(5);
  assert.deepEqual(await Promise.all(outcomes), ["sent", "sent", "QueueFull", "QueueFull"]);
});

test("while connected the queue is bounded too, for those who do not wait", async () => {
  for (const [limits, most] of [
    [{ queueMessagesMax: 2 }, 20],
    [{ queueBytesMax: 1024 }, 140], // of 77 bytes each
  ]) {
    const { world, peer } = await joined({ limits });
    world.socket.bufferedAmount = 2 ** 20;
    let full = 0;
    const all = Array.from({ length: 200 }, (_, n) =>
      peer.broadcast(String(n).padStart(9, "0")).catch((error) => {
        assert.ok(error instanceof client.QueueFull);
        full += 1;
      }),
    );
    await world.settle();
    world.socket.bufferedAmount = 0;
    await world.pass(0.1);
    await Promise.all(all);
    assert.ok(world.heard.length <= most && world.heard.length >= 0.9 * most, world.heard.length);
    assert.equal(full, 200 - world.heard.length);
  }
});

test("what the peer sends by itself cannot be sent by hand", async () => {
  const { world, peer } = await joined();
  const before = world.texts.length;
  for (const type of ["presence", "heartbeat", "capabilities"]) {
    await assert.rejects(peer.send(type, { data: {} }), TypeError);
    await assert.rejects(peer.send("any", { type }), TypeError);
  }
  assert.equal(world.texts.length, before);
});

test("what is nested too deep is not read, and loses nothing behind it", async () => {
  const { world, peer } = await joined({ agents: ["coder"] });
  peer.serve(({ text }) => text);
  const seen = collect(peer);
  const deep = `{"agents":["a"],"command":${"[".repeat(100_000)}${"]".repeat(100_000)}}`;
  const presence = `{"type":"presence","from":"bob","data":${deep}}`;
  const command = `{"type":"direct","from":"bob","to":"coder","turnId":"t","data":${deep}}`;
  const behind = `{"type":"broadcast","from":"bob","data":"behind it"}`;
  await hear(world, `[${presence},${presence},${command},${behind}]`);
  assert.deepEqual(
    seen.filter(({ type }) => type === "broadcast").map(({ data }) => data),
    ["behind it"],
  );
  assert.equal(peer.roster.size, 0);
  assert.equal(world.heard.filter(({ type }) => type === "turn_end").length, 0);
});

test("a message that the relay would drop is refused here", async () => {
  const { world, peer } = await joined(
    {},
    (world) => (world.limits = { ...world.limits, messageBytes: 2000 }),
  );
  await peer.broadcast("x".repeat(1800));
  await assert.rejects(peer.broadcast("x".repeat(2000)), client.TooLarge);
  await assert.rejects(peer.broadcast("€".repeat(700)), client.TooLarge);
  assert.equal(world.heard.length, 1);
});

test("a thousand messages at once go out no faster than the relay takes them", async () => {
  const limits = { messageBytes: 1e6, messagesPerSecond: 100, messagesBurst: 50 };
  const { world, peer } = await joined({}, (world) => (world.limits = limits));
  await world.pass(10);
  const all = Promise.all(Array.from({ length: 1000 }, (_, n) => peer.broadcast(n)));
  const begun = world.at;
  assert.ok(world.heard.length <= 50, "no more at once than the burst");
  let tokens = 50 - world.heard.length; // The relay's own bucket.
  let at = begun;
  let taken = world.heard.length;
  while (world.heard.length < 1000) {
    await world.pass(0.05);
    tokens = Math.min(50, tokens + (world.at - at) * 100) - (world.heard.length - taken);
    at = world.at;
    taken = world.heard.length;
    assert.ok(tokens > -1, `${taken} messages after ${at - begun} s`);
  }
  await all;
  const took = world.at - begun;
  assert.ok(took > 9.5 && took < 12, `and not much slower: ${took} s`);
  assert.deepEqual(
    world.heard.map(({ data }) => data),
    Array.from({ length: 1000 }, (_, n) => n),
  );
});

test("a flood passes even where the network holds it up for a second and then lets all of it go", async () => {
  const { messagesPerSecond, messagesBurst } = LIMITS;
  const { world, peer } = await joined();
  await world.pass(10);
  const all = Promise.all(Array.from({ length: 5000 }, (_, n) => peer.broadcast(n)));
  let room = messagesBurst; // The relay's own bucket, as of `at`.
  let at = world.at;
  let taken = 0;
  for (let step = 0; taken < 5000; step += 1) {
    await world.pass(0.1);
    if (step % 15 < 10) continue; // held up
    room = Math.min(messagesBurst, room + (world.at - at) * messagesPerSecond);
    at = world.at;
    room -= world.heard.length - taken;
    taken = world.heard.length;
    assert.ok(room >= 0, `${taken} messages`);
  }
  await all;
});

test("a socket that has not sent what it was given is given no more", async () => {
  const { world, peer } = await joined();
  world.socket.bufferedAmount = 2 ** 19;
  const sent = peer.broadcast(1);
  await world.pass(1);
  assert.equal(world.heard.length, 0);
  world.socket.bufferedAmount = 0;
  await world.pass(0.1);
  await sent;
  assert.equal(world.heard.length, 1);
});

test("unread messages are bounded, and the reader is told how many are missing", async () => {
  const { world, peer } = await joined({ limits: { unreadMessagesMax: 3 } });
  for (let n = 0; n < 5; n += 1) await hear(world, { type: "broadcast", from: "bob", data: n });
  const first = collect(peer);
  await first.over;
  assert.ok(first.error instanceof client.Lagged);
  assert.equal(first.error.count, 2);
  const second = collect(peer);
  await world.settle();
  assert.deepEqual(
    second.map(({ data }) => data),
    [2, 3, 4],
  );
});

test("unread messages are bounded in size too, but the latest is always there", async () => {
  const { world, peer } = await joined({ limits: { unreadBytesMax: 1024 } });
  for (let n = 0; n < 3; n += 1)
    await hear(world, { type: "broadcast", from: "bob", data: "x".repeat(2000) });
  const first = collect(peer);
  await first.over;
  assert.equal(first.error.count, 2);
  const second = collect(peer);
  await world.settle();
  assert.equal(second.length, 1);
});

test("an announcement is taken, or refused with its code, and repeated on every connection", async () => {
  const { world, peer } = await joined({ agents: ["a"] });
  await peer.announce({ agents: ["a", "b"] });
  world.refuses = { code: "too_many_agents", error: "no" };
  await assert.rejects(peer.announce({ agents: ["a", "b", "c"] }), { code: "too_many_agents" });
  world.refuses = null;
  await world.broadcast({ data: "something happens" });
  assert.equal(world.sentOf("presence").length, 3, "what was refused is not said again");
  world.socket.break();
  const later = peer.announce({ metadata: { mood: "fine" } });
  await world.pass(5);
  await later;
  const last = world.sentOf("presence").at(-1);
  assert.deepEqual(last.data, {
    mood: "fine",
    agents: ["a", "b"],
    keepalive: "pong",
    accept: ["batch"],
  });
  assert.equal(world.sentOf("presence").length, 4);
});

test("what changes while a connection is being announced is announced after it", async () => {
  const { world, peer } = await joined({ agents: ["a"] });
  world.slow = true;
  world.socket.break();
  await world.pass(1);
  assert.equal(peer.state, "joining");
  const taken = peer.announce({ agents: ["b"] });
  assert.equal(world.sentOf("presence").length, 2);
  world.slow = false;
  world.moved();
  await taken;
  assert.deepEqual(world.sentOf("presence").at(-1).data.agents, ["b"]);
});

test("of two announcements the later one counts, and both are told", async () => {
  const { world, peer } = await joined();
  world.slow = true;
  const both = [peer.announce({ agents: ["a"] }), peer.announce({ agents: ["b"] })];
  world.slow = false;
  world.moved();
  await Promise.all(both);
  assert.deepEqual(world.sentOf("presence").at(-1).data.agents, ["b"]);
});

test("keepalive can be left to heartbeats", async () => {
  const { world } = await joined({ keepalive: null });
  assert.deepEqual(world.sentOf("presence")[0].data, { agents: [], accept: ["batch"] });
});

test("presences of the own id are told, but are nobody else's", async () => {
  const { world, peer } = await joined();
  const seen = collect(peer);
  await hear(world, { type: "presence", from: "me", data: { agents: ["of another tab"] } });
  assert.equal(peer.roster.size, 0);
  assert.deepEqual(
    seen.map(({ type, from }) => [type, from]),
    [["presence", "me"]],
  );
});

// Asking

const withCoder = (world) => world.arrive("bob", "coder");
const reply = (turn, type, data, fields) => ({
  type,
  from: "coder",
  instanceId: "bob",
  turnId: turn.turnId,
  data,
  ...fields,
});

test("a command gets its chunks and its result, and both can be had", async () => {
  const { world, peer } = await joined({}, withCoder);
  const turn = peer.ask("coder", "write a haiku");
  await world.settle();
  const { turnId, timestamp, ...command } = world.heard[0];
  assert.deepEqual(command, {
    type: "direct",
    from: "me",
    to: "coder",
    instanceId: "me",
    targetInstanceId: "bob",
    answers: "direct",
    data: { command: "write a haiku" },
  });
  const chunks = collect(turn);
  await hear(world, reply(turn, "ack", {}));
  await hear(world, reply(turn, "stream", { chunk: "old ", chunkNum: 0 }));
  await hear(world, reply(turn, "stream", { chunk: "pond", chunkNum: 1 }));
  await hear(world, reply(turn, "turn_end", { result: "old pond" }));
  assert.equal(await turn.result(), "old pond");
  await chunks.over;
  assert.deepEqual([...chunks], ["old ", "pond"]);
  assert.equal(chunks.error, undefined);
  assert.equal(world.timers.filter(({ due }) => Math.abs(due - world.at - 60) < 1).length, 0);
});

test("silence, not length, ends a turn", async () => {
  const { world, peer } = await joined({}, withCoder);
  const turn = peer.ask("coder", "x", { timeoutS: 10 });
  for (let n = 0; n < 5; n += 1) {
    await world.pass(9);
    await hear(world, reply(turn, "stream", { chunk: "x", chunkNum: n }));
  }
  const chunks = collect(turn);
  await world.pass(11);
  await assert.rejects(turn.result(), client.TurnTimeout);
  await chunks.over;
  assert.equal(chunks.length, 5);
  assert.ok(chunks.error instanceof client.TurnTimeout);
});

test("an agent's error is the turn's, in the agent's words", async () => {
  const { world, peer } = await joined({}, withCoder);
  const turn = peer.ask("coder", "x");
  await hear(world, reply(turn, "error", { error: "out of ink" }));
  await assert.rejects(turn.result(), { name: "TurnFailed", message: "out of ink" });
});

test("answers that are no text are told as JSON", async () => {
  const { world, peer } = await joined({}, withCoder);
  const [turn, failing] = [peer.ask("coder", "x"), peer.ask("coder", "y")];
  const chunks = collect(turn);
  const odd = { toString: 1 };
  await hear(world, [
    reply(turn, "stream", { chunk: odd }),
    reply(turn, "stream", { chunk: null }),
    reply(turn, "stream", "no data"),
    reply(turn, "turn_end", { result: 1 }),
    reply(failing, "error", { error: odd }),
  ]);
  assert.equal(await turn.result(), 1);
  await chunks.over;
  assert.deepEqual([...chunks], ['{"toString":1}', "", ""]);
  await assert.rejects(failing.result(), { name: "TurnFailed", message: '{"toString":1}' });
});

test("a command that is none cannot be given", async () => {
  const { world, peer } = await joined({}, withCoder);
  assert.throws(() => peer.ask("coder", undefined), TypeError);
  assert.throws(() => peer.ask("coder", null), TypeError);
  assert.deepEqual(world.heard, []);
});

test("a command whose turn is over is not sent any more", async () => {
  const { world, peer } = await joined({}, withCoder);
  world.opens = false;
  world.socket.break();
  const turn = peer.ask("coder", "pay", { timeoutS: 5 });
  const other = peer.broadcast("still");
  await world.pass(6);
  await assert.rejects(turn.result(), client.TurnTimeout);
  world.opens = true;
  await world.pass(60);
  await other;
  assert.deepEqual(
    world.heard.map(({ data }) => data),
    ["still"],
  );
});

test("a page that slept reads what has come before it gives a turn up", async () => {
  const { world, peer } = await joined({}, withCoder);
  const [answered, silent] = [peer.ask("coder", "x"), peer.ask("coder", "y")];
  await world.settle();
  world.slow = true;
  world.sleep(120, { monotonic: true });
  await world.pass(0);
  world.slow = false;
  await hear(world, reply(answered, "turn_end", { result: "in time" }));
  assert.equal(await answered.result(), "in time");
  let isOver = false;
  silent.result().catch(() => (isOver = true));
  await world.pass(4.9);
  assert.equal(isOver, false);
  await world.pass(0.2);
  assert.equal(isOver, true, "once, not again and again");
});

for (const [code, kind] of [
  ["unknown_target", client.UnknownTarget],
  ["ambiguous_target", client.AmbiguousTarget],
  ["too_large", client.TurnRefused],
]) {
  test(`the relay's ${code} is a ${kind.name}`, async () => {
    const { world, peer } = await joined();
    const turn = peer.ask("coder", "x");
    await world.settle();
    const data = { code, error: "why", peers: ["bob", "eve"] };
    await hear(world, { type: "error", from: "relay", turnId: turn.turnId, data });
    const error = await turn.result().catch((error) => error);
    assert.ok(
      error instanceof kind &&
        error instanceof client.TurnError &&
        error instanceof client.RelayError,
    );
    if (code === "ambiguous_target") assert.deepEqual(error.peers, ["bob", "eve"]);
    assert.equal(world.heard[0].targetInstanceId, undefined);
  });
}

test("only the peer that was asked may answer", async () => {
  const { world, peer } = await joined({}, withCoder);
  const turn = peer.ask("coder", "x");
  await hear(world, reply(turn, "turn_end", { result: "forged" }, { instanceId: "eve" }));
  await hear(world, reply(turn, "turn_end", { result: "true" }));
  assert.equal(await turn.result(), "true");
});

test("where it was open who is asked, the first to answer goes on", async () => {
  const { world, peer } = await joined();
  const turn = peer.ask("coder", "x");
  await hear(world, reply(turn, "ack", {}, { instanceId: "eve" }));
  await hear(world, reply(turn, "turn_end", { result: "forged" }));
  await hear(world, reply(turn, "turn_end", { result: "true" }, { instanceId: "eve" }));
  assert.equal(await turn.result(), "true");
});

test("a peer can be named, and can be asked itself", async () => {
  const { world, peer } = await joined({}, (world) => {
    world.arrive("bob", "coder");
    world.arrive("eve", "coder");
  });
  peer.ask("coder", "x");
  peer.ask("coder", "x", { peer: "eve" });
  peer.ask("bob", "x", { fields: { extra: 1 } });
  await world.settle();
  assert.deepEqual(
    world.heard.map(({ targetInstanceId }) => targetInstanceId),
    [undefined, "eve", "bob"],
  );
  assert.equal(world.heard[2].extra, 1);
});

test("the peer that was asked leaves: the turn says so", async () => {
  const { world, peer } = await joined({}, withCoder);
  const turn = peer.ask("coder", "x");
  await world.settle();
  world.leave("bob");
  await assert.rejects(turn.result(), client.TargetLeft);
});

test("an agent that this peer and several others have is ambiguous", async () => {
  const { world, peer } = await joined({ agents: ["coder"] });
  for (const id of ["bob", "eve"]) world.arrive(id, "coder");
  await world.settle();
  await assert.rejects(peer.ask("coder", "x").result(), (error) => {
    assert.ok(error instanceof client.AmbiguousTarget);
    assert.deepEqual(error.peers, ["bob", "eve"]);
    return true;
  });
});

test("a command for an agent of another tab is left to that tab", async () => {
  const { world, peer } = await joined({ agents: ["coder"], owner: "of both of these tabs" });
  peer.serve(() => "x");
  await hear(world, {
    type: "presence",
    from: "me",
    data: { agents: ["coder", "of another tab"] },
  });
  await hear(world, command({ to: "of another tab" }));
  assert.deepEqual(answers(world), []);
});

test("an agent that only this peer has is not asked over the relay", async () => {
  const { world, peer } = await joined({ agents: ["mine"] });
  await assert.rejects(peer.ask("mine", "x").result(), client.UnknownTarget);
  world.arrive("bob", "mine");
  await assert.rejects(peer.ask("mine", "x", { peer: "me" }).result(), client.UnknownTarget);
  assert.deepEqual(world.heard, []);
  peer.ask("mine", "for bob");
  await world.settle();
  assert.equal(world.heard[0].targetInstanceId, "bob");
});

test("a command that cannot be sent fails its turn", async () => {
  const { world, peer } = await joined({ offline: "fail" });
  world.socket.break();
  await assert.rejects(peer.ask("coder", "x").result(), client.NotConnected);
});

test("chunks that nobody reads are bounded, and the result comes all the same", async () => {
  const { world, peer } = await joined({ limits: { unreadMessagesMax: 2 } }, withCoder);
  const turn = peer.ask("coder", "x");
  for (let n = 0; n < 5; n += 1)
    await hear(world, reply(turn, "stream", { chunk: String(n), chunkNum: n }));
  await hear(world, reply(turn, "turn_end", { result: "done" }));
  assert.equal(await turn.result(), "done");
  const chunks = collect(turn);
  await chunks.over;
  assert.equal(chunks.error.count, 3);
});

test("what cannot be asked at all throws at the call, and asks nothing", async () => {
  const { world, peer } = await joined({}, withCoder);
  assert.throws(() => peer.ask("coder", "x".repeat(2 ** 20)), client.TooLarge);
  assert.throws(() => peer.ask("coder", 10n), TypeError);
  assert.throws(() => peer.ask("coder", "x", { timeoutS: -1 }), RangeError);
  await peer.leave();
  assert.throws(() => peer.ask("coder", "x"), client.Left);
  assert.deepEqual(world.heard, []);
});

test("a peer that is called like an agent of others comes before them", async () => {
  const { world, peer } = await joined({}, (world) => {
    world.arrive("bob");
    world.arrive("eve", "bob");
  });
  peer.ask("bob", "x");
  await world.settle();
  assert.equal(world.heard[0].targetInstanceId, "bob");
});

test("a command that finds the queue full is sent when there is room", async () => {
  const { world, peer } = await joined({ limits: { queueMessagesMax: 1 } }, withCoder);
  world.socket.bufferedAmount = 2 ** 20;
  const all = Array.from({ length: 10 }, (_, n) => peer.broadcast(n));
  const turn = peer.ask("coder", "x");
  world.socket.bufferedAmount = 0;
  await world.pass(1);
  await Promise.all(all);
  assert.equal(world.heard.at(-1).turnId, turn.turnId);
});

// Serving

const command = (fields) => ({
  type: "direct",
  from: "ann",
  to: "coder",
  turnId: "t1",
  data: { command: "go" },
  ...fields,
});
const answers = (world) => world.heard.map(({ timestamp, ...rest }) => rest);

test("a command is acknowledged, streamed to, and answered with what the handler returns", async () => {
  const { world, peer } = await joined({ agents: ["coder"] });
  const seen = [];
  peer.serve(async ({ stream, ...command }) => {
    seen.push(command);
    await stream("a");
    await stream("b");
    return { sum: 2 };
  });
  await hear(world, command({ from: "planner", instanceId: "ann" }));
  const address = { from: "coder", to: "planner", instanceId: "me", turnId: "t1" };
  assert.deepEqual(answers(world), [
    { type: "ack", ...address, data: {} },
    { type: "stream", ...address, data: { chunk: "a", chunkNum: 0 } },
    { type: "stream", ...address, data: { chunk: "b", chunkNum: 1 } },
    { type: "turn_end", ...address, data: { result: { sum: 2 }, chunks: 2 } },
  ]);
  assert.deepEqual(seen, [
    {
      text: "go",
      from: "planner",
      asker: "ann",
      agent: "coder",
      turnId: "t1",
      data: { command: "go" },
    },
  ]);
});

test("what a handler throws is an error; so is a result that is no JSON", async () => {
  const { world, peer } = await joined({ agents: ["coder", "other"] });
  peer.serve(() => Promise.reject(new Error("out of ink")), { agents: ["coder"] });
  peer.serve(() => 10n, { agents: ["other"] });
  await hear(world, command());
  await hear(world, command({ to: "other" }));
  const errors = answers(world).filter(({ type }) => type === "error");
  assert.equal(errors[0].data.error, "out of ink");
  assert.match(errors[1].data.error, /data.result is a BigInt/);
});

test("whatever a handler throws, whoever asked is told something", async () => {
  const { world, peer } = await joined({ agents: ["coder"] });
  const odd = [new Error(), new TypeError(""), Object.create(null), undefined, "", Symbol("s")];
  peer.serve(({ data }) => {
    throw odd[data.command];
  });
  for (const n of odd.keys()) await hear(world, command({ data: { command: n } }));
  const errors = answers(world).filter(({ type }) => type === "error");
  assert.deepEqual(
    errors.map(({ data }) => data.error),
    [
      "Error",
      "TypeError",
      "an error without words",
      "undefined",
      "an error without words",
      "Symbol(s)",
    ],
  );
});

test("the agents that are served are an array", async () => {
  const { peer } = await joined({ agents: ["writer"] });
  assert.throws(() => peer.serve(() => "x", { agents: "writer" }), TypeError);
});

test("a command for an agent that is not here is answered, where a server is for everything", async () => {
  const { world, peer } = await joined({ agents: ["coder"] });
  peer.serve(() => "x", { agents: ["coder"] });
  await hear(world, command({ to: "stranger" }));
  assert.deepEqual(answers(world), [], "somebody may serve it yet");
  peer.serve(() => "x");
  await hear(world, command({ to: "stranger", turnId: "t2" }));
  const [first, second] = answers(world);
  assert.equal(first.turnId, "t1");
  assert.deepEqual(second, {
    type: "error",
    from: "me",
    to: "ann",
    turnId: "t2",
    data: { error: "there is no agent stranger here", code: "unknown_target" },
  });
});

test("a broadcast command is for every agent served, a direct for the one it names or the peer", async () => {
  const { world, peer } = await joined({ agents: ["coder", "other"] });
  peer.serve(({ agent }) => agent);
  await hear(world, command({ type: "broadcast", to: undefined }));
  await hear(world, command({ to: "other" }));
  await hear(world, command({ to: "me" }));
  await hear(world, command({ to: "stranger" }));
  await hear(world, command({ data: {} }));
  await hear(world, command({ turnId: undefined }));
  await hear(world, command({ instanceId: "me" })); // from another tab of this very peer
  const results = answers(world).filter(({ type }) => type === "turn_end");
  assert.deepEqual(results.map(({ data }) => data.result).sort(), [
    "coder",
    "me",
    "other",
    "other",
  ]);
});

test("each agent's commands go to the first server for it", async () => {
  const { world, peer } = await joined({ agents: ["coder", "other"] });
  peer.serve(() => "first", { agents: ["coder"] });
  peer.serve(() => "second");
  await hear(world, command());
  await hear(world, command({ to: "other" }));
  await hear(world, command({ type: "broadcast", to: undefined }));
  const results = answers(world).filter(({ type }) => type === "turn_end");
  assert.deepEqual(
    results.map(({ from, data }) => [from, data.result]),
    [
      ["coder", "first"],
      ["other", "second"],
      ["coder", "first"],
      ["other", "second"],
    ],
  );
});

test("a command that came before serve is served then, if that is soon", async () => {
  const { world, peer } = await joined({ agents: ["coder", "other"] });
  await hear(world, command({ turnId: "late" }));
  await world.pass(11);
  await hear(world, command({ turnId: "in time" }));
  await hear(world, command({ turnId: "not yet", to: "other" }));
  await world.pass(10);
  const served = () =>
    answers(world)
      .filter(({ type }) => type === "turn_end")
      .map(({ turnId }) => turnId);
  peer.serve(() => "x", { agents: ["coder"] });
  await world.settle();
  assert.deepEqual(served(), ["in time"]);
  peer.serve(() => "x");
  await world.settle();
  assert.deepEqual(served(), ["in time", "not yet"]);
});

test("a broadcast command that some agents have is kept for the others", async () => {
  const { world, peer } = await joined({ agents: ["a", "b", "c"] });
  const served = () =>
    answers(world)
      .filter(({ type }) => type === "turn_end")
      .map(({ from, data }) => from + data.result);
  const stop = peer.serve(() => 1, { agents: ["a"] });
  await hear(world, command({ type: "broadcast", to: undefined }));
  stop();
  peer.serve(() => 2, { agents: ["a", "b"] });
  await world.settle();
  assert.deepEqual(served(), ["a1", "b2"]);
  peer.serve(() => 3);
  await world.settle();
  assert.deepEqual(served(), ["a1", "b2", "c3"]);
  peer.serve(() => 4);
  await world.settle();
  assert.equal(served().length, 3);
});

test("a command that the program answers by hand is not served after that", async () => {
  const { world, peer } = await joined({ agents: ["coder"] });
  await hear(world, command({ turnId: "by hand" }));
  await hear(world, command({ turnId: "served" }));
  await peer.ack("by hand");
  peer.serve(() => "x");
  await world.settle();
  assert.deepEqual(
    answers(world).map(({ type, turnId }) => [type, turnId]),
    [
      ["ack", "by hand"],
      ["ack", "served"],
      ["turn_end", "served"],
    ],
  );
});

test("more commands than may be served at a time are answered with busy", async () => {
  const { world, peer } = await joined({ agents: ["coder"], limits: { turnsMax: 2 } });
  const ends = [];
  peer.serve(() => new Promise((resolve) => ends.push(resolve)));
  for (const turnId of ["1", "2", "3"]) await hear(world, command({ turnId }));
  const [error] = answers(world).filter(({ type }) => type === "error");
  assert.equal(error.turnId, "3");
  assert.equal(error.data.code, "busy");
  for (const end of ends) end();
  await world.settle();
  await hear(world, command({ turnId: "4" }));
  assert.equal(ends.length, 3);
});

test("a handler does not run before serve has returned", async () => {
  const { world, peer } = await joined({ agents: ["coder"] });
  await hear(world, command());
  let runs = 0;
  peer.serve(() => {
    runs += 1;
  });
  assert.equal(runs, 0);
  await world.settle();
  assert.equal(runs, 1);
});

test("a handler is a function", async () => {
  const { peer } = await joined({ agents: ["coder"] });
  assert.throws(() => peer.serve("handler"), TypeError);
});

test("what is under way when serving stops is still answered, and then nothing more", async () => {
  const { world, peer } = await joined({ agents: ["coder"] });
  let go;
  let stream;
  const stop = peer.serve((command) => {
    stream = command.stream;
    return new Promise((resolve) => {
      go = resolve;
    });
  });
  await hear(world, command());
  stop();
  stop();
  go("done");
  await world.settle();
  assert.deepEqual(
    answers(world).map(({ type }) => type),
    ["ack", "turn_end"],
  );
  await assert.rejects(stream("too late"), client.TurnError);
});

test("old names work, and each is said to be old once", async (t) => {
  const warn = t.mock.method(console, "warn", () => {});
  const { world, peer } = await joined({ agents: ["coder"], joinTimeoutS: 7 });
  const other = new World();
  other.opens = false;
  const joining = other.join({ joinTimeoutS: 7 }).catch((error) => error);
  await other.pass(7);
  assert.match((await joining).message, /within 7 s/);
  peer.serve(({ origin }) => origin);
  for (const turnId of ["1", "2"]) await hear(world, command({ turnId, instanceId: "ann" }));
  const results = answers(world).filter(({ type }) => type === "turn_end");
  assert.deepEqual(
    results.map(({ data }) => data.result),
    ["ann", "ann"],
  );
  const warned = warn.mock.calls.map(({ arguments: [sentence] }) => sentence.match(/`.*?`/g));
  assert.deepEqual(warned, [
    ["`joinTimeoutS`", "`withinS`"],
    ["`command.origin`", "`command.asker`"],
  ]);
});

test("nothing is served after it was stopped, nor after leaving", async () => {
  const { world, peer } = await joined({ agents: ["coder"] });
  const stop = peer.serve(() => "x");
  stop();
  await hear(world, command());
  assert.deepEqual(answers(world), []);
  peer.serve(({ stream }) => peer.leave().then(() => stream("too late")));
  await hear(world, command());
  await world.settle();
  assert.equal(peer.state, "ended");
});

/** What the console shows as errors meanwhile. */
async function shown(body) {
  const [errors, original] = [[], console.error];
  console.error = (...told) => errors.push(told);
  try {
    await body();
  } finally {
    console.error = original;
  }
  return errors;
}

test("what a handler throws is shown where it runs, too", async () => {
  const { world, peer } = await joined({ agents: ["coder", "other"] });
  const error = new Error("out of ink");
  peer.serve(() => Promise.reject(error), { agents: ["coder"] });
  peer.serve(() => new Map(), { agents: ["other"] });
  const errors = await shown(async () => {
    await hear(world, command());
    await hear(world, command({ to: "other" }));
  });
  assert.deepEqual(errors[0], ["agi-diy-relay-client: the handler of coder failed:", error]);
  assert.match(errors[1][1].message, /^data\.result is a Map/);
  assert.equal(errors.length, 2);
});

test("a handler that is over with its peer is not shown as failed", async () => {
  const { world, peer } = await joined({ agents: ["coder"] });
  let answer;
  peer.serve(() => new Promise((resolve) => (answer = resolve)));
  await hear(world, command());
  const errors = await shown(async () => {
    await peer.leave();
    answer("too late");
    await world.settle();
  });
  assert.deepEqual(errors, []);
});

test("a handler may be a generator, async or not", async () => {
  const { world, peer } = await joined({ agents: ["coder", "other"] });
  peer.serve(
    function* () {
      yield "a";
      yield "b";
      return "done";
    },
    { agents: ["coder"] },
  );
  let isClosed = false;
  peer.serve(
    async function* () {
      try {
        yield "c";
        yield new Map();
      } finally {
        isClosed = true;
      }
    },
    { agents: ["other"] },
  );
  const said = () => answers(world).map(({ type, data }) => data.chunk ?? data.result ?? type);
  await hear(world, command());
  assert.deepEqual(said(), ["ack", "a", "b", "done"]);
  await shown(() => hear(world, command({ to: "other" })));
  assert.deepEqual(said().slice(4), ["ack", "c", "error"]);
  assert.ok(isClosed);
});
