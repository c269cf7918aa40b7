/** What is unread in several places is bounded together. */

import assert from "node:assert/strict";
import test from "node:test";

import { Gap, Lagged } from "../../browser/src/errors.js";
import { Shelf, Unread } from "../../browser/src/unread.js";

async function read(unread, count) {
  const reader = unread[Symbol.asyncIterator]();
  const items = [];
  while (items.length < count) items.push((await reader.next()).value);
  await reader.return();
  return items;
}

test("what waits in several places is bounded together, and the heaviest loses", async () => {
  const shelf = new Shelf({ unreadMessagesMax: 100, unreadBytesMax: 1024 });
  const [light, heavy] = [new Unread(shelf), new Unread(shelf)];
  light.put(1, 200);
  for (let number = 0; number < 5; number++) heavy.put(number, 300);
  light.put(2, 200);
  assert.deepEqual(await read(light, 2), [1, 2]);
  await assert.rejects(read(heavy, 1), (error) => error instanceof Lagged && error.count === 3);
  assert.deepEqual(await read(heavy, 2), [3, 4]);
  heavy.put(5, 1024);
  assert.deepEqual(await read(heavy, 1), [5]);
});

test("what every loop has read is not there any more, and what is kept is", async () => {
  const shelf = new Shelf({ unreadMessagesMax: 100, unreadBytesMax: 1024 });
  const [passing, kept] = [new Unread(shelf), new Unread(shelf, { keepsAll: true })];
  for (const unread of [passing, kept]) {
    const [one, other] = [unread, unread].map((each) => each[Symbol.asyncIterator]());
    unread.put(1, 10);
    await one.next();
    assert.deepEqual(unread.items, [1]);
    await other.next();
  }
  assert.deepEqual([passing.length, passing.size], [0, 0]);
  assert.deepEqual([kept.items, kept.size, kept.gone], [[1], 10, 0]);
});

test("what is only kept makes room for what nobody has read, however heavy that is", async () => {
  const shelf = new Shelf({ unreadMessagesMax: 100, unreadBytesMax: 1024 });
  const [waiting, kept] = [new Unread(shelf), new Unread(shelf, { keepsAll: true })];
  for (let number = 0; number < 4; number++) kept.put(number, 100);
  assert.deepEqual(await read(kept, 3), [0, 1, 2]);
  waiting.put("heavy", 700);
  waiting.put("light", 124);
  assert.deepEqual([kept.items, kept.gone], [[2, 3], 2]);
  waiting.put("more", 200);
  assert.deepEqual([kept.items, waiting.gone], [[3], 1]);
});

const doubts = (...numbers) => numbers.map((data) => ({ type: "a", data }));

/** What a reader is told of until it has to wait, one after the other. */
async function told(reader, count) {
  const all = [];
  while (all.length < count) {
    try {
      all.push((await reader.next()).value);
    } catch (error) {
      if (error instanceof Lagged) all.push(["lagged", error.count]);
      else all.push([error.seconds, ...error.inDoubt.map(({ data }) => data)]);
    }
  }
  return all;
}

test("gaps in one place are one that tells all that is in doubt, once to each loop", async () => {
  const unread = new Unread(new Shelf({ unreadMessagesMax: 2, unreadBytesMax: 1024 }));
  const [quick, slow] = [unread, unread].map((each) => each[Symbol.asyncIterator]());
  unread.gap(new Gap(1, "epoch", doubts(1, 2)), 10);
  assert.deepEqual(await told(quick, 1), [[1, 1, 2]]);
  unread.gap(new Gap(2, "window", doubts(3)), 10);
  unread.put("x", 10);
  unread.gap(new Gap(3, null, doubts(4)), 10);
  unread.put("y", 10);
  assert.deepEqual(await told(quick, 4), [[2, 3], "x", [3, 4], "y"]);
  assert.equal(unread.size, 50);
  assert.deepEqual(await told(slow, 4), [[2, 1, 2, 3], "x", [3, 4], "y"]);
  assert.equal(unread.size, 0);
});

test("what is in doubt is bounded with all that is unread", async () => {
  const unread = new Unread(new Shelf({ unreadMessagesMax: 100, unreadBytesMax: 1024 }));
  const reader = unread[Symbol.asyncIterator]();
  for (let n = 0; n < 3; n += 1) {
    unread.gap(new Gap(n, "epoch", doubts(1, 2, 3, 4, 5)), 300);
    unread.put(`item ${n}`, 100);
  }
  assert.ok(unread.size <= 1024);
  const five = [1, 2, 3, 4, 5];
  const wanted = [["lagged", 5], [0], "item 0", [1, ...five], "item 1", [2, ...five], "item 2"];
  assert.deepEqual(await told(reader, 7), wanted);
  assert.equal(unread.size, 0);
});

test("gaps that nobody reads of are bounded in number, too", async () => {
  const unread = new Unread(new Shelf({ unreadMessagesMax: 10, unreadBytesMax: 1024 }));
  for (let n = 0; n < 1000; n += 1) unread.gap(new Gap(n, "epoch", doubts(n)), 1);
  assert.ok(unread.size <= 16);
  const [lagged, gap] = await told(unread[Symbol.asyncIterator](), 2);
  assert.deepEqual(lagged, ["lagged", 984]);
  assert.equal(gap.length, 1 + 16);
});
