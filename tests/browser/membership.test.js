/** The client's core: how a peer comes into a mesh and stays there, in virtual time. */

import assert from "node:assert/strict";
import test from "node:test";

import * as client from "../../browser/relay-client.js";
import { collect, seeded, World } from "./world.js";

const STATES = ["waiting", "joining", "present", "renewing", "switching", "suspended", "ended"];
const EVENTS = [
  "Joined",
  "Failed",
  "Heard",
  "Marked",
  "Lost",
  "Silent",
  "Elapsed",
  "Nudged",
  "Suspended",
  "Ended",
];
const data = (messages) =>
  messages.filter(({ type }) => type === "broadcast").map((message) => message.data);

test("every state has an answer to every event, and no others", () => {
  assert.deepEqual(Object.keys(client.TABLE), STATES);
  for (const row of Object.values(client.TABLE)) assert.deepEqual(Object.keys(row), EVENTS);
});

test("an impossible event throws and changes nothing", () => {
  for (const state of STATES) {
    for (const name of EVENTS) {
      if (client.TABLE[state][name][1] !== "impossible") continue;
      const record = Object.freeze({ ...client.begun(0), state });
      assert.throws(
        () => client.transition(record, { name, at: 1, chance: 0 }, client.LIMITS),
        /a bug/,
      );
    }
  }
});

test("limits that contradict one another, or do not exist, are refused", async () => {
  await assert.rejects(new World().join({ limits: { heartbeatEveryS: 40 } }), /must be less than/);
  await assert.rejects(new World().join({ limits: { heartbeat_every_s: 4 } }), /no limit called/);
  await assert.rejects(new World().join({ limits: { turnsMax: "many" } }), /a number/);
});

test("join resolves when the roster has been replayed", async () => {
  const world = new World();
  world.arrive("bob", "coder", { name: "tester" });
  world.arrive("eve");
  const peer = await world.join({ agents: ["mine"], metadata: { hostname: "here" } });
  assert.equal(peer.state, "present");
  assert.deepEqual([...peer.roster.keys()], ["bob", "eve"]);
  assert.deepEqual(peer.roster.get("bob").agents, ["coder", "tester"]);
  const [presence] = world.sentOf("presence");
  assert.deepEqual(presence.data, {
    hostname: "here",
    agents: ["mine"],
    keepalive: "pong",
    accept: ["batch"],
  });
  assert.equal(presence.timestamp, world.wallMs);
});

test("join resolves five seconds after joining where nobody answers the fence", async () => {
  const world = new World();
  world.answersCapabilities = false;
  const joining = world.join();
  await world.pass(4.9);
  assert.equal(world.sentOf("presence").length, 1);
  await world.pass(0.2);
  assert.equal((await joining).state, "present");
});

test("a batch of messages in one frame is read as its messages", async () => {
  const world = new World();
  const peer = await world.join();
  const seen = collect(peer);
  world.socket.hear([
    { type: "broadcast", from: "bob", data: 1 },
    { type: "broadcast", from: "bob", data: 2 },
  ]);
  await world.settle();
  assert.deepEqual(data(seen), [1, 2]);
});

test("a lost connection is made again, announced again, each time with a fresh URL", async () => {
  const world = new World();
  let calls = 0;
  const peer = await world.join({
    agents: ["a"],
    url: async () => {
      calls += 1;
      return `ws://relay/ws?n=${calls}`;
    },
  });
  for (const code of [1006, 1001, 1013, 1000, 1008]) {
    world.socket.break(code);
    assert.equal(peer.state, "waiting");
    await world.pass(40);
    assert.equal(peer.state, "present");
  }
  assert.deepEqual(
    world.sockets.map(({ url }) => url.slice(-3)),
    ["n=1", "n=2", "n=3", "n=4", "n=5", "n=6"],
  );
  assert.equal(world.sentOf("presence").length, 6);
});

test("while nobody answers the waits grow, and are never long", async () => {
  const world = new World();
  const peer = await world.join();
  world.opens = false;
  world.socket.break();
  const gaps = [];
  let before = world.at;
  peer.on("state", (state) => {
    if (state === "joining") gaps.push(world.at - before);
    before = world.at;
    if (state === "joining") queueMicrotask(() => world.socket.break());
  });
  await world.pass(8);
  gaps.length = 9;
  const wanted = [0.25, 0.5, 1, 1, 1, 1, 1, 1, 1];
  for (const [i, gap] of gaps.entries()) assert.ok(Math.abs(gap - wanted[i]) < 0.11, `${gaps}`);
  await peer.leave();
});

test("peers that are not in the roster after a reconnection have left", async () => {
  const world = new World();
  world.arrive("bob", "coder");
  world.arrive("eve");
  const peer = await world.join();
  const changes = collect(peer.changes());
  const before = collect(peer);
  world.socket.break();
  world.others.delete("bob");
  world.others.set("dan", { type: "presence", from: "dan", data: { agents: [] } });
  await world.pass(5);
  assert.ok(before.error instanceof client.Gap);
  const after = collect(peer);
  await world.settle();
  const seen = [...before, ...after];
  assert.deepEqual([...peer.roster.keys()], ["eve", "dan"]);
  assert.deepEqual(
    changes[0].joined.map(({ id }) => id),
    ["bob", "eve"],
  );
  assert.deepEqual(
    changes.slice(1).flatMap(({ left }) => left),
    [{ id: "bob", agents: ["coder"], data: changes[0].joined[0].data }],
  );
  assert.deepEqual(
    changes.slice(1).flatMap(({ joined }) => joined.map(({ id }) => id)),
    ["dan"],
  );
  // What was known already is not told again: eve's presence came with the first roster only.
  assert.deepEqual(
    seen.map(({ from }) => from),
    ["bob", "eve", "dan"],
  );
});

test("changes are told as joined, updated and left, and the last state is never missed", async () => {
  const world = new World();
  const peer = await world.join();
  world.arrive("eve"); // who stays as she is, and is not told again
  const changes = collect(peer.changes());
  await world.settle();
  world.arrive("bob", "one");
  await world.settle();
  world.arrive("bob", "one", "two");
  await world.settle();
  world.arrive("bob", "one", "two"); // a sign of life, no change
  await world.settle();
  world.leave("bob", "silent");
  await world.settle();
  const short = changes.map(({ joined, updated, left }) => [
    joined.length,
    updated.length,
    left.map(({ id, agents }) => [id, ...agents]),
  ]);
  assert.deepEqual(short, [
    [1, 0, []],
    [1, 0, []],
    [0, 1, []],
    [0, 0, [["bob", "one", "two"]]],
  ]);
  await peer.leave();
  await changes.over;
  assert.equal(changes.error, undefined);
});

test("changes can be left while they wait, and iterated again after that", async () => {
  const world = new World();
  const peer = await world.join();
  const changes = peer.changes();
  await changes.next();
  const waiting = changes.next();
  assert.deepEqual(await changes.return(), { done: true, value: undefined });
  world.arrive("bob");
  assert.equal((await waiting).value.joined[0].id, "bob");
});

test("a relay that falls silent is asked, then dropped, then joined again", async () => {
  const world = new World();
  const peer = await world.join();
  await world.pass(300);
  assert.equal(world.sockets.length, 1, "a quiet mesh is no dead connection");
  world.mute = true;
  await world.pass(31);
  assert.equal(world.sockets[0].closedWith, 1000);
  world.mute = false;
  await world.pass(30);
  assert.equal(peer.state, "present");
  assert.ok(world.sockets.length > 1);
});

test("heartbeats go out every ten seconds, with a question only where nothing was heard", async () => {
  const world = new World();
  const peer = await world.join();
  await world.pass(100);
  assert.equal(world.sentOf("heartbeat").length, 10);
  const questions = world.sentOf("capabilities").length;
  for (let i = 0; i < 20; i += 1) {
    await world.broadcast({ data: i });
    await world.pass(5);
  }
  assert.equal(world.sentOf("heartbeat").length, 20);
  assert.ok(world.sentOf("capabilities").length <= questions + 1);
  assert.equal(peer.state, "present");
});

for (const monotonic of [true, false]) {
  const clock = monotonic ? "a clock that went on" : "a clock that slept too";
  test(`after an hour asleep, with ${clock}, a connection that died is replaced in seconds`, async () => {
    const world = new World();
    const peer = await world.join();
    world.sleep(3000, { monotonic });
    world.mute = true;
    await world.pass(16);
    assert.notEqual(world.sockets[0].readyState, 1);
    world.mute = false;
    await world.pass(40);
    assert.equal(peer.state, "present");
    assert.ok(
      world.sockets.length <= 5,
      "it has not made up for the attempts that it slept through",
    );
  });

  test(`after an hour asleep, with ${clock}, a connection that lives is kept`, async () => {
    const world = new World();
    const peer = await world.join();
    world.sleep(3000, { monotonic });
    await world.pass(16);
    assert.equal(peer.state, "present");
    assert.equal(world.sockets.length, 1);
  });
}

test("a nudge makes the next attempt come at once, and doubts the connection in use", async () => {
  const world = new World();
  const peer = await world.join();
  world.opens = false;
  world.socket.break();
  for (let i = 0; i < 8; i += 1) {
    await world.pass(20);
    world.socket.break();
  }
  await world.settle();
  world.opens = true;
  world.isThere = true;
  assert.equal(peer.state, "waiting");
  peer.nudge();
  await world.settle();
  assert.equal(peer.state, "present");
  world.mute = true;
  world.nudge();
  await world.pass(5.1);
  assert.equal(peer.state, "waiting");
});

test("a thousand nudges are one question", async () => {
  const world = new World();
  const peer = await world.join();
  world.slow = true;
  const before = world.sentOf("capabilities").length;
  for (let n = 0; n < 1000; n += 1) peer.nudge();
  assert.equal(world.sentOf("capabilities").length, before + 1);
  world.slow = false;
  world.moved();
  peer.nudge();
  assert.equal(world.sentOf("capabilities").length, before + 2);
});

// Renewal

test("a connection is replaced before it gets too old, and the old one closed properly", async () => {
  const world = new World();
  const peer = await world.join();
  await world.pass(3300);
  await world.settle();
  assert.equal(peer.state, "present");
  assert.deepEqual(
    world.sockets.map(({ readyState }) => readyState),
    [3, 1],
  );
  assert.equal(world.sockets[0].closedWith, 1000);
  await world.pass(7200);
  assert.equal(world.sockets.length, 4);
});

/** A peer in the middle of a renewal: the next connection has announced, nothing has come back. */
async function renewing(options) {
  const world = new World();
  world.arrive("bob");
  const peer = await world.join({ limits: { renewAfterS: 60, ...options } });
  const seen = collect(peer);
  await world.pass(59);
  world.slow = true;
  const drain = (socket) => {
    while (socket.sent.length) world.take(socket);
    while (socket.coming.length) world.deliver(socket);
  };
  drain(world.sockets[0]);
  await world.pass(2);
  const [old, next] = world.sockets;
  return { world, peer, seen, old, next, drain };
}

test("the mark may come on the old connection first", async () => {
  const { world, peer, seen, old, next, drain } = await renewing();
  drain(old);
  world.say({ type: "broadcast", from: "bob", data: 1 });
  world.take(next); // the claim
  world.take(next); // the question whether it may come back
  world.take(next); // the presence: the mark
  world.say({ type: "broadcast", from: "bob", data: 2 });
  while (old.coming.length) world.deliver(old);
  assert.equal(peer.state, "present");
  assert.equal(old.readyState, 3);
  drain(next);
  await world.settle();
  assert.deepEqual(data(seen), [1, 2]);
});

test("the next connection may have its presence back first", async () => {
  const { world, peer, seen, old, next, drain } = await renewing();
  drain(old);
  world.say({ type: "broadcast", from: "bob", data: 1 });
  world.take(next);
  world.take(next);
  world.take(next);
  world.say({ type: "broadcast", from: "bob", data: 2 });
  drain(next);
  assert.equal(peer.state, "switching");
  await world.settle();
  assert.deepEqual(data(seen), []);
  while (old.coming.length) world.deliver(old);
  assert.equal(peer.state, "present");
  await world.settle();
  assert.deepEqual(data(seen), [1, 2]);
});

test("nothing is sent while the connection changes, and then on the next one", async () => {
  const { world, peer, old, next, drain } = await renewing();
  peer.broadcast("held");
  await world.settle();
  assert.ok(!world.texts.some((text) => text.includes("held")));
  drain(old);
  drain(next);
  drain(next);
  assert.equal(peer.state, "switching");
  assert.deepEqual(world.heard, []); // If the next one is cut now, nothing of it is missing.
  drain(old); // The mark.
  await world.settle();
  drain(next);
  assert.deepEqual(
    world.heard.map((message) => message.data),
    ["held"],
  );
});

test("a connection lost while it is fenced does not keep the next one waiting", async () => {
  const { world, peer, old, next, drain } = await renewing();
  assert.equal(world.sentOf("presence").length, 1);
  old.break();
  assert.equal(peer.state, "joining");
  assert.equal(world.sentOf("presence").length, 2);
  drain(next);
  assert.equal(peer.state, "present");
});

test("a replacement that cannot be made is tried again, and nothing is lost", async () => {
  const { world, peer, old, next, drain } = await renewing();
  peer.broadcast("held");
  drain(old);
  next.break();
  assert.equal(peer.state, "present");
  drain(old);
  assert.deepEqual(
    world.heard.map((message) => message.data),
    ["held"],
  );
  world.slow = false;
  await world.pass(30);
  assert.equal(peer.state, "present");
  assert.equal(world.sockets.length, 3);
});

test("a replacement that is refused leaves the connection in use as it is", async () => {
  const world = new World();
  const peer = await world.join({ limits: { renewAfterS: 60 } });
  world.refuses = { code: "too_many_agents", error: "no" };
  await world.pass(90);
  assert.equal(peer.state, "present");
  assert.equal(world.sockets[0].readyState, 1);
  world.refuses = null;
  await world.pass(60);
  assert.equal(world.sockets[0].readyState, 3);
});

test("what waits during a switch is bounded: beyond, the old connection is given up", async () => {
  const { world, peer, old, next, drain } = await renewing({ unreadMessagesMax: 10 });
  drain(old);
  world.take(next);
  world.take(next);
  drain(next);
  for (let i = 0; i < 11; i += 1) next.hear({ type: "broadcast", from: "bob", data: i });
  assert.equal(peer.state, "present");
  assert.equal(old.readyState, 3);
  await world.settle();
});

test("in 400 random runs a renewal neither loses, doubles nor reorders, in either direction", async () => {
  let lostConnections = 0;
  for (let seed = 1; seed <= 400; seed += 1) {
    const chance = seeded(seed);
    const world = new World();
    world.arrive("bob");
    const peer = await world.join({ limits: { renewAfterS: 60 } });
    const seen = collect(peer);
    await world.pass(59);
    world.slow = true;
    let said = 0;
    let told = 0;
    const promises = [];
    await world.pass(1.5);
    const fails = chance() < 0.3;
    for (let step = 0; step < 120; step += 1) {
      const open = world.sockets.filter(({ readyState }) => readyState === 1);
      const socket = open[Math.floor(chance() * open.length)];
      const dice = chance();
      if (dice < 0.2) {
        said += 1;
        world.say({ type: "broadcast", from: "bob", data: said });
      } else if (dice < 0.4) {
        told += 1;
        promises.push(peer.broadcast(told).catch(() => {}));
      } else if (dice < 0.7) {
        if (socket.sent.length) world.take(socket);
      } else if (socket.coming.length) {
        world.deliver(socket);
      }
      if (fails && step === 40 && peer.state === "renewing" && world.sockets.length === 2) {
        lostConnections += 1;
        world.sockets[1].break(); // The replacement, not yet announced or not yet joined.
      }
      await null;
    }
    world.slow = false;
    world.moved();
    await world.pass(30);
    const numbers = (count) => Array.from({ length: count }, (_, i) => i + 1);
    assert.deepEqual(data(seen), numbers(said), `seed ${seed}: received`);
    assert.deepEqual(
      world.heard.map((message) => message.data),
      numbers(told),
      `seed ${seed}: sent`,
    );
    assert.ok(world.sockets.length >= 2);
    await Promise.all(promises);
    await peer.leave();
  }
  assert.ok(lostConnections > 5);
});

// What ends a membership

test("a refused announcement ends it with its code", async () => {
  const world = new World();
  world.refuses = { code: "spoofed", error: "`relay` is the relay's own name" };
  const error = await world.join().catch((error) => error);
  assert.ok(error instanceof client.AnnouncementRefused);
  assert.equal(error.code, "spoofed");
  assert.equal(world.sockets[0].closedWith, 1000);
});

test("an announcement that was only too early is tried again", async () => {
  const world = new World();
  world.refuses = { code: "rate_limited", error: "too many" };
  const joining = world.join();
  await world.pass(3);
  world.refuses = null;
  await world.pass(10);
  assert.equal((await joining).state, "present");
});

for (const nonsense of ["hello", "{}", "[1]", "null", '{"type":7}', new ArrayBuffer(3)]) {
  test(`what answers ${JSON.stringify(nonsense)} is not a relay`, async () => {
    const world = new World();
    world.mute = true;
    const joining = world.join();
    joining.catch(() => {});
    await world.settle();
    world.socket.onmessage({ data: nonsense });
    await assert.rejects(joining, client.NotARelay);
  });
}

test("nonsense from a relay that was one before costs the connection only", async () => {
  const world = new World();
  const peer = await world.join();
  world.socket.hear("nonsense");
  assert.equal(peer.state, "waiting");
  assert.equal(world.sockets[0].closedWith, 1000);
  await world.pass(5);
  assert.equal(peer.state, "present");
});

for (const [answers, isThere, kind, advice] of [
  [true, true, "Rejected", /--allowed-origins/], // A browser hides what was answered.
  [true, false, "Unreachable", /nobody answers at host:443; is the relay running/],
  [false, false, "Unreachable", /nobody has answered at this URL within 5 s/],
]) {
  test(`the first join gives up after a while, and says what to check: ${advice}`, async () => {
    const world = new World();
    Object.assign(world, { opens: false, isThere });
    const url = "wss://host/ws?X-Amz-Security-Token=SECRET";
    const joining = world.join({ url, withinS: 5 });
    joining.catch(() => {});
    if (answers) world.socket.break();
    await world.pass(6);
    const error = await joining.catch((error) => error);
    assert.equal(error.name, kind);
    assert.match(error.message, advice);
    assert.doesNotMatch(String(error.stack), /SECRET/);
    assert.deepEqual(world.timers, [], "nothing of it goes on");
  });
}

test("the first join waits for ever if asked to", async () => {
  const world = new World();
  world.opens = false;
  const joining = world.join({ withinS: Infinity });
  await world.pass(36_000);
  world.opens = true;
  await world.pass(60);
  assert.equal((await joining).state, "present");
});

test("a typed error of the url function ends it, any other is tried again without a word of it", async () => {
  const world = new World();
  const fatal = new client.LoginNeeded("the token has expired; log in again");
  await assert.rejects(world.join({ url: () => Promise.reject(fatal) }), fatal);
  let calls = 0;
  const url = () => {
    calls += 1;
    if (calls < 4) throw new Error("SECRET");
    return "ws://relay/ws";
  };
  const joining = world.join({ url });
  await world.pass(10);
  assert.equal((await joining).state, "present");
  const failing = world.join({
    withinS: 3,
    url: () => Promise.reject(new TypeError("SECRET")),
  });
  failing.catch(() => {});
  await world.pass(4);
  const error = await failing.catch((error) => error);
  assert.match(error.message, /TypeError/);
  assert.doesNotMatch(error.message + error.stack, /SECRET/);
});

test("a url that is none ends it", async () => {
  const world = new World();
  await assert.rejects(world.join({ url: () => 7 }), client.BadAddress);
  await assert.rejects(world.join({ url: undefined }), client.BadAddress);
  world.env.connect = () => {
    throw new DOMException("The URL 'nonsense?SECRET' is invalid.", "SyntaxError");
  };
  const error = await world.join({ url: "nonsense?SECRET" }).catch((error) => error);
  assert.ok(error instanceof client.BadAddress);
  assert.doesNotMatch(error.message + error.stack, /SECRET/);
});

test("errors that nothing mends end a peer that was present only after a while of them", async () => {
  const world = new World();
  let [kind, calls] = [null, 0];
  const url = () => {
    calls += 1;
    if (kind) throw new kind(`number ${calls}`);
    return "ws://relay/ws";
  };
  const peer = await world.join({ url });
  for (let times = 0; times < 2; times += 1) {
    kind = client.LoginNeeded;
    world.socket.break();
    await world.pass(29);
    assert.equal(peer.state, "waiting", "and a join forgets those before it");
    kind = null;
    await world.pass(16);
    assert.equal(peer.state, "present");
  }
  kind = client.LoginNeeded;
  world.socket.break();
  await world.pass(20);
  kind = Error; // a passing one
  await world.pass(16);
  kind = client.LoginNeeded;
  await world.pass(29);
  assert.equal(peer.state, "waiting");
  await world.pass(60);
  assert.equal(peer.state, "ended");
  const error = await peer.ended;
  assert.ok(error instanceof client.LoginNeeded);
  assert.equal(error.message, `number ${calls}`, "the last of them");
});

// What a peer says about itself

const refusesBad = (data) => data.bad && { code: "too_many_agents", error: "no" };

test("what the relay would drop, or what is no JSON, is never announced", async () => {
  const circular = {};
  circular.self = circular;
  for (const [wrong, kind] of [
    [{ metadata: { text: "x".repeat(2 ** 20) } }, client.TooLarge],
    [{ metadata: { n: 10n } }, TypeError],
    [{ metadata: circular }, TypeError],
    [{ agents: "coder" }, TypeError],
  ]) {
    const world = new World();
    await assert.rejects(world.join(wrong), kind);
    assert.equal(world.sockets.length, 0);

    const peer = await world.join({ agents: ["a"], metadata: { mood: "fine" } });
    await assert.rejects(peer.announce(wrong), kind);
    world.socket.break();
    await world.pass(5);
    assert.equal(peer.state, "present");
    const { agents, mood } = world.sentOf("presence").at(-1).data;
    assert.deepEqual([agents, mood], [["a"], "fine"]);
    await peer.announce({ agents: ["b"] });
  }
});

test("what was announced stays that, whatever becomes of the objects", async () => {
  const world = new World();
  const metadata = { n: 1 };
  const peer = await world.join({ metadata });
  metadata.n = 10n;
  world.socket.break();
  await world.pass(5);
  assert.equal(peer.state, "present");
  assert.equal(world.sentOf("presence").at(-1).data.n, 1);
});

test("a relay that drops the presence as too large has refused it", async () => {
  const world = new World();
  world.limits = { ...world.limits, messageBytes: 1000 };
  const joining = world.join({ metadata: { text: "x".repeat(1000) } });
  await assert.rejects(joining, { name: "AnnouncementRefused", code: "too_large" });
});

test("what is refused when joining again is told, and the peer is again what it was", async () => {
  const world = new World();
  const peer = await world.join({ agents: ["a"], limits: { giveUpAfterS: 0 } });
  world.refuses = refusesBad;
  world.socket.break();
  const outcome = peer.announce({ metadata: { bad: 1 } }).catch((error) => error);
  await world.pass(5);
  assert.equal((await outcome).code, "too_many_agents");
  assert.equal(peer.state, "present");
  assert.equal(world.sentOf("presence").at(-1).data.bad, undefined);
  await peer.announce({ agents: ["b"] });
});

test("two announcements refused in a row are both forgotten", async () => {
  const world = new World();
  const peer = await world.join({ metadata: { n: 1 } });
  await peer.announce({ metadata: { n: 2 } });
  world.refuses = refusesBad;
  world.slow = true;
  const outcomes = [1, 2].map((bad) =>
    peer.announce({ metadata: { bad } }).catch(({ name }) => name),
  );
  world.slow = false;
  world.moved();
  assert.deepEqual(await Promise.all(outcomes), ["AnnouncementRefused", "AnnouncementRefused"]);
  world.socket.break();
  await world.pass(5);
  assert.equal(peer.state, "present");
  assert.equal(world.sentOf("presence").at(-1).data.n, 2);
});

test("what is refused is told even if something else was announced meanwhile", async () => {
  const world = new World();
  const peer = await world.join();
  world.refuses = refusesBad;
  world.slow = true;
  const bad = peer.announce({ metadata: { bad: 1 } }).catch(({ name }) => name);
  const good = peer.announce({ metadata: { good: 1 } });
  world.slow = false;
  world.moved();
  await good;
  assert.equal(await bad, "AnnouncementRefused");
});

test("what is refused on the replacement costs that only, whichever is said next", async () => {
  const world = new World();
  const peer = await world.join({ limits: { renewAfterS: 60 }, metadata: { n: 1 } });
  world.refuses = refusesBad;
  world.opens = false;
  await world.pass(61);
  world.slow = true;
  world.socket.open();
  const outcome = peer.announce({ metadata: { bad: 1 } }).catch(({ name }) => name);
  world.slow = false;
  world.opens = true;
  world.moved();
  assert.equal(await outcome, "AnnouncementRefused");
  assert.equal(peer.state, "present");
  await world.pass(60);
  assert.equal(world.sockets[0].readyState, 3, "replaced all the same");
  assert.equal(world.sentOf("presence").at(-1).data.n, 1);
});

// What ends everything

test("what ends a membership ends everything that waits for it", async () => {
  const world = new World();
  world.arrive("bob", "coder");
  const peer = await world.join({
    limits: { giveUpAfterS: 0 },
    url: () => (world.expired ? Promise.reject(world.expired) : "ws://relay/ws"),
  });
  const seen = collect(peer);
  const changes = collect(peer.changes());
  const turn = peer.ask("coder", "x");
  await world.settle();
  world.expired = new client.LoginNeeded("log in");
  world.socket.break();
  const waiting = peer.broadcast("never").catch((error) => error);
  const announcing = peer.announce({ agents: ["never"] }).catch((error) => error);
  await world.pass(2);
  assert.equal(peer.state, "ended");
  assert.equal(await peer.ended, world.expired);
  assert.equal(await waiting, world.expired);
  assert.equal(await announcing, world.expired);
  await assert.rejects(turn.result(), world.expired);
  await assert.rejects(peer.broadcast("later"), world.expired);
  await assert.rejects(peer.announce({ agents: [] }), world.expired);
  await seen.over;
  await changes.over;
  assert.equal(seen.error, world.expired);
  assert.equal(changes.error, world.expired);
  assert.deepEqual(world.timers, []);
  assert.equal(world.isWatched, false);
});

test("leaving sends what is queued, closes with 1000, and is the end", async () => {
  const world = new World();
  const peer = await world.join();
  const seen = collect(peer);
  world.socket.bufferedAmount = 2 ** 20;
  const sent = peer.broadcast("last words");
  const leaving = peer.leave();
  const again = peer.leave();
  await assert.rejects(peer.broadcast("too late"), client.Left);
  await world.pass(0.5);
  assert.equal(world.heard.length, 0);
  world.socket.bufferedAmount = 0;
  await world.pass(0.5);
  await Promise.all([leaving, again, sent, seen.over]);
  assert.deepEqual(
    world.heard.map((message) => message.data),
    ["last words"],
  );
  assert.equal(world.socket.closedWith, 1000);
  assert.equal(await peer.ended, null);
  assert.equal(seen.error, undefined);
  assert.deepEqual(world.timers, []);
});

test("leaving waits for a reconnection if something is queued", async () => {
  for (const comesBack of [true, false]) {
    const world = new World();
    const peer = await world.join();
    world.opens = comesBack;
    world.socket.break();
    const sent = peer.broadcast("last words").catch(({ name }) => name);
    const at = world.at;
    const leaving = peer.leave().then(() => world.at - at);
    await world.pass(10);
    assert.equal(world.heard.length, Number(comesBack));
    assert.equal(await sent, comesBack ? undefined : "Left");
    assert.ok(comesBack ? (await leaving) < 1 : (await leaving) >= 5);
  }
});

test("leaving while there is no connection and nothing queued takes no time", async () => {
  const world = new World();
  const peer = await world.join();
  world.socket.break();
  await peer.leave();
  assert.equal(peer.state, "ended");
});

test("leaving does not wait for ever for a socket that takes nothing", async () => {
  const world = new World();
  const peer = await world.join();
  world.socket.bufferedAmount = 2 ** 20;
  const sent = peer.broadcast("never").catch((error) => error);
  const leaving = peer.leave().then(() => [...world.timers]);
  await world.pass(5.1);
  assert.deepEqual(await leaving, [], "nothing looks any more whether it takes something");
  assert.ok((await sent) instanceof client.Left);
});

test("what ends a peer that is leaving lets it go", async () => {
  const world = new World();
  const fatal = new client.LoginNeeded("log in");
  const peer = await world.join({
    limits: { giveUpAfterS: 0 },
    url: () => (world.sockets.length ? Promise.reject(fatal) : "ws://relay/ws"),
  });
  world.socket.bufferedAmount = 2 ** 20;
  const sent = peer.broadcast("never").catch((error) => error);
  const leaving = peer.leave();
  world.socket.break();
  await world.pass(1);
  await leaving;
  assert.equal(await sent, fatal);
});

test("a URL that comes after its time opens nothing", async () => {
  const world = new World();
  const answers = [];
  const joining = world.join({ url: () => new Promise((resolve) => answers.push(resolve)) });
  await world.pass(20.5);
  assert.equal(answers.length, 2);
  answers[0]("ws://relay/ws?late");
  await world.settle();
  assert.equal(world.sockets.length, 0);
  answers[1]("ws://relay/ws?fresh");
  assert.equal((await joining).state, "present");
  assert.equal(world.sockets.length, 1);
});

test("a peer can leave before it has joined", async () => {
  const world = new World();
  world.opens = false;
  const joining = world.join({ withinS: 1 });
  joining.catch(() => {});
  await world.pass(2);
  await assert.rejects(joining, client.Unreachable);
});
