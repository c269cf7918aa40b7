/** How a page opens its connections: what it finds out when one fails, and how it comes back. */

import assert from "node:assert/strict";
import test from "node:test";

import { allowsWorkers } from "../../browser/src/timers.js";
import { World } from "./world.js";

/** What joining ends with, and after how many sockets. */
async function refused(facts, options = {}) {
  const world = new World();
  Object.assign(world, { turnsAway: true, ...facts });
  const failed = world.join({ withinS: 3, ...options }).then(
    () => assert.fail("it joined"),
    (error) => error,
  );
  await world.pass(3.1);
  const error = await failed;
  return { error, world };
}

// Why it failed

for (const [name, facts, options, kind, words] of [
  ["a dead port", {}, {}, "Unreachable", /nobody answers at relay:80; is the relay running/],
  [
    "a path that is none",
    { isThere: true, status: 404 },
    { url: "ws://relay/x" },
    "Rejected",
    /\/ws/,
  ],
  ["a server of pages", { isThere: true, status: 200 }, {}, "Rejected", /no relay of agent meshes/],
  ["another origin", { isThere: true, status: 403 }, {}, "Rejected", /--allowed-origins http:/],
  ["a relay that is full", { isThere: true, status: 503 }, {}, "Rejected", /full/],
  ["a server that hides", { isThere: true }, {}, "Rejected", /opens no WebSocket/],
  ["a policy of the page", { isForbidden: true }, {}, "BadAddress", /connect-src/],
  ["a user who said no", { permission: "denied" }, {}, "Rejected", /local network access/],
  ["a user who is asked", { permission: "prompt" }, {}, "Unreachable", /allow it/],
]) {
  test(`joining says what is wrong: ${name}`, async () => {
    const { error, world } = await refused(facts, options);
    assert.equal(error.name, kind);
    assert.match(error.message, words);
    assert.equal(error.status, kind === "Rejected" ? world.status : undefined);
    if (error.isTransient) {
      assert.match(world.warnings[0], words, "the console says it at once");
      assert.equal(world.warnings.length, new Set(world.warnings).size, "each reason once");
    } else {
      assert.equal(world.sockets.length, 1, "it ends at once");
    }
  });
}

test("a file is no page that a relay takes", async () => {
  const world = new World();
  Object.assign(world, { turnsAway: true, isThere: true, status: 403 });
  world.env.origin = "null";
  await assert.rejects(world.join(), /opened from files/);
});

test("nobody looks at what AWS answers, and no local page hears of AWS", async () => {
  const url = "wss://bedrock-agentcore.eu-west-1.amazonaws.com/runtimes/x/ws?Signature=s3cr3t";
  const { error, world } = await refused({ isThere: true, status: 403 }, { url });
  assert.match(error.message, /may invoke the runtime/);
  assert.deepEqual(world.looked, []);
  assert.doesNotMatch(`${error.stack} ${world.warnings} ${world.asked}`, /s3cr3t/);
});

test("what is looked at has no query and is the path of the relay", async () => {
  for (const [path, looked] of [
    ["", "/ws"],
    ["/?mesh=s3cr3t", "/ws"],
    ["/ws/?mesh=m#x", "/ws"],
    ["/a/ws?x=1", "/a/ws"],
  ]) {
    const { world } = await refused({ isThere: true, status: 503 }, { url: `ws://relay:9${path}` });
    assert.deepEqual([...new Set(world.looked)], [`http://relay:9${looked}`]);
    assert.deepEqual([...new Set(world.asked)], ["http://relay:9/ping"]);
  }
});

// Coming back

/** A peer whose relay has gone. */
async function left() {
  const world = new World();
  const peer = await world.join();
  world.turnsAway = true;
  world.socket.break();
  return { world, peer };
}

test("a relay that is away for ten minutes costs few sockets, and is found at once", async () => {
  const { world, peer } = await left();
  await world.pass(600);
  assert.ok(world.sockets.length < 30, `${world.sockets.length}`); // Browsers slow down who makes more.
  assert.ok(world.asked.length > 300, `${world.asked.length}`);
  world.turnsAway = false;
  world.isThere = true;
  await world.pass(1.1);
  assert.equal(peer.state, "present");
  await peer.leave();
});

test("where a look is told wrongly that nobody is there, a socket is tried all the same", async () => {
  const { world, peer } = await left();
  await world.pass(60);
  world.turnsAway = false;
  await world.pass(26);
  assert.equal(peer.state, "present");
  await peer.leave();
});

test("a page whose policy forbids to look goes on without", async () => {
  const world = new World();
  world.env.isForbidden = (url) => url.startsWith("http:");
  const peer = await world.join();
  world.turnsAway = true;
  world.socket.break();
  await world.pass(60);
  assert.ok(world.sockets.length > 40, `${world.sockets.length}`);
  await peer.leave();
});

test("a relay that comes back between the attempt and the look does not refuse", async () => {
  const { world, peer } = await left();
  await world.pass(1);
  world.isThere = true; // And its sockets are still turned away.
  await world.pass(1.1);
  assert.doesNotMatch(`${world.warnings}`, /opens no WebSocket/);
  world.turnsAway = false;
  await world.pass(2);
  assert.equal(peer.state, "present");
  await peer.leave();
});

test("an opening that hangs is made anew when somebody is there again", async () => {
  const world = new World();
  const peer = await world.join();
  world.opens = false;
  world.socket.break();
  await world.pass(10);
  const [hanging, count] = [world.socket, world.sockets.length];
  world.opens = true;
  world.isThere = true;
  await world.pass(4.1);
  assert.equal(peer.state, "present");
  assert.equal(hanging.closedWith, 1000);
  assert.equal(world.sockets.length, count + 1);
  await world.pass(30);
  assert.equal(world.sockets.length, count + 1);
  await peer.leave();
  assert.deepEqual(world.timers, []);
});

test("an opening that a server takes long to answer is left alone", async () => {
  const world = new World();
  world.opens = false;
  world.isThere = true;
  const joining = world.join();
  await world.pass(19);
  assert.equal(world.sockets.length, 1);
  world.socket.open();
  assert.equal((await joining).state, "present");
});

test("while the user is asked, the console says so, once", async () => {
  const world = new World();
  Object.assign(world, { opens: false, permission: "prompt" });
  const joining = world.join();
  await world.pass(15);
  assert.equal(world.warnings.length, 1);
  assert.match(world.warnings[0], /the browser asks its user/);
  world.socket.open();
  await joining;
});

// Asleep

test("a page that falls asleep leaves at once, and is back when it wakes up", async () => {
  const world = new World();
  const peer = await world.join();
  world.suspend();
  assert.equal(peer.state, "suspended");
  assert.equal(world.socket.closedWith, 1000);
  const sent = peer.broadcast("later");
  world.sleep(3600, { monotonic: false });
  world.nudge();
  await world.settle();
  assert.equal(peer.state, "present");
  await sent;
  assert.equal(world.sockets.length, 2);
  await peer.leave();
});

test("a page that falls asleep tells first who waits for its commands", async () => {
  const world = new World();
  const peer = await world.join({ agents: ["poet"] });
  const signals = [];
  peer.serve(({ signal }) => {
    signals.push(signal);
    return new Promise(() => {});
  });
  const { socket } = world;
  const asked = { type: "direct", from: "bob", to: "poet", turnId: "c" };
  world.say({ ...asked, data: { command: "write" } });
  world.moved();
  await world.settle();
  world.suspend();
  const told = world.sentOf("error").map(({ turnId, data }) => [turnId, data.code]);
  assert.deepEqual(told, [["c", "left"]]);
  assert.equal(socket.closedWith, 1000);
  assert.equal(signals[0].aborted, true);
  await peer.leave();
});

test("a page that goes while it joins opens nothing more", async () => {
  const world = new World();
  let give;
  const joining = world.join({ url: () => new Promise((resolve) => (give = resolve)) });
  await world.settle();
  world.suspend();
  give("ws://relay/ws");
  await world.settle();
  assert.equal(world.sockets.length, 0);
  world.nudge();
  await world.settle();
  give("ws://relay/ws");
  assert.equal((await joining).state, "present");
});

// Workers

for (const [policy, allowed] of [
  ["", true],
  ["connect-src 'none'", true],
  ["worker-src 'none'", false],
  ["worker-src blob:", true],
  ["worker-src 'self'; default-src blob:", false],
  ["child-src blob:; script-src 'self'", true],
  ["script-src 'self'", false],
  ["default-src 'self'", false],
  ["DEFAULT-SRC 'self' BLOB:", true],
  ["default-src *", false], // A star names no blob.
  ["worker-src 'none'; worker-src blob:", false],
]) {
  test(`a policy ${allowed ? "allows" : "forbids"} the worker: ${policy}`, () => {
    assert.equal(allowsWorkers(policy), allowed);
  });
}
