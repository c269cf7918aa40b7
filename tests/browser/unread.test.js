/** What is unread in several places is bounded together. */

import assert from "node:assert/strict";
import test from "node:test";

import { Lagged } from "../../browser/src/errors.js";
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
