/** Tabs that share a peer: all hear its commands, and one of them serves. */

import assert from "node:assert/strict";
import test from "node:test";

import { CountingWorld } from "./counting.js";
import { Browser } from "./tabs.js";
import { collect, World } from "./world.js";

const COMMAND = { type: "direct", from: "bob", to: "coder", data: { command: "go" } };

/** One more tab with this peer, in a world of its own. `ran`: what its handler was given. */
async function opened(browser, options = {}, world = new World()) {
  Object.assign(world.env, browser?.tab());
  const peer = await world.join({
    id: "me",
    agents: ["coder"],
    owner: "of all of these tabs",
    ...options,
  });
  const ran = [];
  peer.serve((command) => {
    ran.push(command.turnId);
    return "done";
  });
  await world.settle();
  return { world, peer, ran };
}

/** What the relay does with a command: each tab that is present hears it. */
async function command(tabs, turnId) {
  for (const { world } of tabs) world.socket.hear({ ...COMMAND, turnId });
  for (const { world } of tabs) await world.settle();
}

const ran = (tabs) => tabs.map((tab) => tab.ran.join());

test("of the tabs that share a peer one serves, and another one when it leaves", async () => {
  const browser = new Browser();
  const tabs = [await opened(browser), await opened(browser), await opened(browser)];
  await command(tabs, "1");
  assert.deepEqual(ran(tabs), ["1", "", ""]);
  await tabs[0].peer.leave();
  await tabs[0].world.settle();
  await command(tabs.slice(1), "2");
  assert.deepEqual(ran(tabs), ["1", "2", ""]);
});

test("all of them hear everything", async () => {
  const browser = new Browser();
  const tabs = [await opened(browser), await opened(browser)];
  const heard = tabs.map(({ peer }) => collect(peer));
  await command(tabs, "1");
  assert.deepEqual(
    heard.map((messages) => messages.map(({ turnId }) => turnId)),
    [["1"], ["1"]],
  );
});

test("a command that came while nobody served is served by the next one, and none twice", async () => {
  const browser = new Browser();
  const tabs = [await opened(browser), await opened(browser)];
  await command(tabs, "1");
  tabs[0].world.mute = true;
  await command(tabs.slice(1), "2"); // The first tab is closing, and does not hear it any more.
  assert.deepEqual(ran(tabs), ["1", ""]);
  await tabs[0].peer.leave();
  await tabs[0].world.settle();
  await tabs[1].world.settle();
  assert.deepEqual(ran(tabs), ["1", "2"]);
});

test("a tab that is cut off lets another one serve, and comes back behind it", async () => {
  const browser = new Browser();
  const tabs = [await opened(browser), await opened(browser)];
  tabs[0].world.socket.break();
  await tabs[0].world.settle();
  await command(tabs.slice(1), "1");
  await tabs[0].world.pass(5);
  assert.equal(tabs[0].peer.state, "present");
  await command(tabs, "2");
  assert.deepEqual(ran(tabs), ["", "1,2"]);
});

test("what a tab gets late, because it was cut, another one has served, whoever leaves then", async () => {
  const browser = new Browser();
  const worlds = [new CountingWorld(), new CountingWorld()];
  const tabs = [await opened(browser, {}, worlds[0]), await opened(browser, {}, worlds[1])];
  const say = (turnId) => {
    for (const world of worlds) world.say({ ...COMMAND, turnId });
    for (const world of worlds) world.moved();
  };
  worlds[0].socket.break();
  await worlds[0].settle();
  say("1");
  await worlds[1].settle();
  await worlds[0].pass(5);
  assert.equal(tabs[0].peer.resumed, 1);
  await tabs[1].peer.leave();
  await worlds[0].settle();
  say("2");
  await worlds[0].settle();
  assert.deepEqual(ran(tabs), ["2", "1"]);
});

test("the only tab serves what it gets late, because it was cut", async () => {
  const world = new CountingWorld();
  const tab = await opened(new Browser(), {}, world);
  world.socket.break();
  world.say({ ...COMMAND, turnId: "1" });
  await world.pass(5);
  assert.deepEqual(tab.ran, ["1"]);
});

test("a page that falls asleep lets another tab serve", async () => {
  const browser = new Browser();
  const tabs = [await opened(browser), await opened(browser)];
  tabs[0].world.suspend();
  await tabs[0].world.settle();
  assert.deepEqual(browser.channels.length, 1, "and hears nothing of the others any more");
  await command(tabs, "1");
  tabs[0].world.nudge();
  await tabs[0].world.pass(5);
  assert.equal(tabs[0].peer.state, "present");
  await command(tabs, "2");
  assert.deepEqual(ran(tabs), ["", "1,2"]);
});

test("an agent that only one tab has is served there", async () => {
  const browser = new Browser();
  const tabs = [await opened(browser), await opened(browser, { agents: ["painter"] })];
  for (const { world } of tabs) {
    world.socket.hear({ ...COMMAND, to: "painter", turnId: "1" });
    await world.settle();
  }
  assert.deepEqual(ran(tabs), ["", "1"]);
});

test("whoever serves no more lets another tab do it", async () => {
  const browser = new Browser();
  const one = await opened(browser, { agents: ["coder", "other"] });
  const stop = one.peer.serve(() => "", { agents: ["other"] });
  stop();
  const world = new World();
  Object.assign(world.env, browser.tab());
  const peer = await world.join({ id: "me", agents: ["coder"], owner: "of all of these tabs" });
  const heard = [];
  const stopTwo = peer.serve(({ turnId }) => heard.push(turnId));
  stopTwo();
  const two = { world, peer, ran: heard };
  await command([one, two], "1");
  assert.deepEqual(ran([one, two]), ["1", ""]);
});

test("peers with other ids, and in other meshes, serve for themselves", async () => {
  const browser = new Browser();
  const tabs = [
    await opened(browser),
    await opened(browser, { id: "you" }),
    await opened(browser, { url: async () => "ws://relay/ws?mesh=other&token=1" }),
    await opened(browser, { url: async () => "ws://relay/ws?token=2&mesh=other" }),
  ];
  await command(tabs, "1");
  assert.deepEqual(ran(tabs), ["1", "1", "1", ""]);
});

test("without locks, or where they are refused, every tab serves", async () => {
  const browser = new Browser();
  browser.refuses = true;
  const tabs = [await opened(browser), await opened(browser), await opened(null)];
  await command(tabs, "1");
  assert.deepEqual(ran(tabs), ["1", "1", "1"]);
});

// One command at a time

test("a handler that runs once at a time gets the next command when it has ended", async () => {
  const { world, peer } = await opened(null, { agents: ["coder"] });
  const [begun, ends] = [[], []];
  peer.serve(
    ({ turnId }) => {
      begun.push(turnId);
      return new Promise((resolve) => ends.push(resolve));
    },
    { agents: ["slow"], atATime: 1 },
  );
  for (const turnId of ["1", "2", "3"]) {
    world.socket.hear({ ...COMMAND, to: "slow", turnId });
  }
  await world.settle();
  assert.deepEqual(begun, ["1"]);
  assert.deepEqual(
    world.sentOf("ack").map(({ turnId }) => turnId),
    ["1", "2", "3"],
  );
  world.socket.hear({ type: "cancel", from: "bob", to: "me", turnId: "1" });
  await world.settle();
  assert.deepEqual(begun, ["1"], "it was told to stop, and has not yet");
  ends[0]();
  await world.settle();
  assert.deepEqual(begun, ["1", "2"]);
  ends[1]("done");
  await world.settle();
  assert.deepEqual(begun, ["1", "2", "3"]);
  assert.throws(() => peer.serve(() => {}, { atATime: 0 }), RangeError);
  assert.throws(() => peer.serve(() => {}, { atATime: "1" }), RangeError);
});

// Present twice

async function warned(body) {
  const [warnings, original] = [[], console.warn];
  console.warn = (text) => warnings.push(text);
  try {
    await body();
  } finally {
    console.warn = original;
  }
  return warnings;
}

test("a peer that finds itself present twice is told once", async () => {
  const world = new World();
  const peer = await world.join();
  const heard = [];
  peer.on("twice", ({ turnId }) => heard.push(turnId));
  const warnings = await warned(async () => {
    for (const turnId of ["u:1", "u:2"]) {
      world.say({ type: "presence", from: "me", data: { agents: [] }, turnId });
      world.moved();
    }
    await world.settle();
  });
  assert.deepEqual(heard, ["u:1"]);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /another page or program is in the mesh with the id of this peer/);
  assert.equal(peer.isPresentTwice, true);
});

test("its own connections, and those that are meant to share the id, are no alarm", async () => {
  const warnings = await warned(async () => {
    const world = new World();
    const peer = await world.join({ limits: { renewAfterS: 50 } });
    await world.pass(120); // Renewed twice.
    world.socket.break();
    await world.pass(10);
    await peer.announce({ agents: ["coder"] });
    assert.equal(peer.isPresentTwice, false);
    const sharing = new World();
    const tab = await sharing.join({ owner: "of all of these tabs" });
    sharing.say({ type: "presence", from: "me", data: { agents: [] }, turnId: "u:1" });
    sharing.moved();
    assert.equal(tab.isPresentTwice, false);
    await Promise.all([peer.leave(), tab.leave()]);
  });
  assert.deepEqual(
    warnings.filter((text) => /id of this peer/.test(text)),
    [],
  );
});
