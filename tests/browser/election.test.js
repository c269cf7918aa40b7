/** One tab at a time is elected for each agent, and another one when that gives up. */

import assert from "node:assert/strict";
import test from "node:test";

import { Election } from "../../browser/src/election.js";
import { Browser } from "./tabs.js";

const settle = () => new Promise((resolve) => setImmediate(resolve));

function voter(browser, id = "me") {
  const seen = { elected: [], taken: [] };
  const election = new Election(browser.tab(), id, {
    elected: (agents) => {
      seen.elected = agents;
    },
    taken: (...command) => seen.taken.push(command),
  });
  return { election, seen };
}

test("one of the tabs is elected, and the next one when it gives up", async () => {
  const browser = new Browser();
  const [one, two, three] = [0, 1, 2].map(() => voter(browser));
  for (const { election } of [one, two, three]) election.stand("ws://x", ["a", "b"]);
  await settle();
  const elected = () => [one, two, three].map(({ seen }) => seen.elected.join());
  assert.deepEqual(elected(), ["a,b", "", ""]);
  two.election.end();
  one.election.stand("ws://x", ["b"]);
  await settle();
  assert.deepEqual(elected(), ["b", "", "a"]);
  one.election.end();
  await settle();
  assert.deepEqual(elected(), ["", "", "a,b"]);
});

test("standing again for the same changes nothing", async () => {
  const browser = new Browser();
  const [one, two] = [voter(browser), voter(browser)];
  one.election.stand("ws://x", ["a"]);
  two.election.stand("ws://x", ["a"]);
  await settle();
  one.election.stand("ws://x", ["a"]);
  await settle();
  assert.deepEqual([one.seen.elected, two.seen.elected], [["a"], []]);
});

test("other relays, meshes and peers have elections of their own", async () => {
  const browser = new Browser();
  const all = [voter(browser), voter(browser), voter(browser, "you")];
  all[0].election.stand("ws://x", ["a"]);
  all[1].election.stand("ws://y", ["a"]);
  all[2].election.stand("ws://x", ["a"]);
  await settle();
  assert.ok(all.every(({ seen }) => seen.elected.join() === "a"));
  all[0].election.stand("ws://y", ["a"]);
  await settle();
  assert.deepEqual(all[0].seen.elected, []);
});

test("what one tab has taken the others of the peer hear, and only they", async () => {
  const browser = new Browser();
  const [one, two, other] = [voter(browser), voter(browser), voter(browser, "you")];
  for (const { election } of [one, two, other]) election.stand("ws://x", ["a"]);
  one.election.took("t", "a");
  browser.channels[0].postMessage("nonsense");
  browser.channels[0].postMessage(null);
  assert.deepEqual([one.seen.taken, two.seen.taken, other.seen.taken], [[], [["t", "a"]], []]);
  two.election.end();
  one.election.took("u", "a");
  assert.equal(two.seen.taken.length, 1);
  assert.equal(browser.channels.length, 2);
});

test("where the browser refuses locks, every tab serves all", async () => {
  const browser = new Browser();
  browser.refuses = true;
  const { election, seen } = voter(browser);
  election.stand("ws://x", ["a"]);
  await settle();
  assert.equal(seen.elected, null);
  election.stand("ws://x", ["a", "b"]);
  await settle();
  assert.equal(seen.elected, null);
  assert.deepEqual(browser.channels, []);
});
