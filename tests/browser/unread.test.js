/** What is unread in several places is bounded together. */

import assert from "node:assert/strict";
import test from "node:test";

import { Lagged } from "../../browser/src/errors.js";
import { Shelf, Unread } from "../../browser/src/unread.js";

async function read(unread, count) {
  const reader = unread[Symbol.asyncIterator]();
  const items = [];
  while (items.length < count) items.push((await reader.next()).value);
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
