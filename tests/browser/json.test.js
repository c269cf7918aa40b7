/** What is no JSON is refused, with the way to it, instead of turned into something else. */

import assert from "node:assert/strict";
import test from "node:test";

import { checkJson } from "../../browser/src/json.js";
import { World } from "./world.js";

class Point {
  constructor(x) {
    this.x = x;
  }
}

const ring = { a: [1] };
ring.a.push({ b: ring });

const REFUSED = [
  ["a Map", { data: new Map([[1, 2]]) }, "data is a Map"],
  ["a Set in an array", { data: [new Set()] }, "data[0] is a Set"],
  ["an Error", { data: { why: new TypeError("x") } }, "data.why is an Error"],
  ["a typed array", { data: { bytes: new Uint8Array(2) } }, "data.bytes is an Uint8Array"],
  ["a buffer", { data: new ArrayBuffer(2) }, "data is an ArrayBuffer"],
  ["a promise", { data: Promise.resolve() }, "data is a Promise"],
  ["a pattern", { data: /x/ }, "data is a RegExp"],
  ["a function", { data: { f() {} } }, "data.f is a function"],
  ["a symbol", { data: Symbol("x") }, "data is a symbol"],
  ["undefined in an array", { data: { x: [1, undefined] } }, "data.x[1] is undefined"],
  ["a hole in an array", { data: new Array(1) }, "data[0] is undefined"],
  ["NaN", { data: { n: NaN } }, "data.n is NaN"],
  ["infinity", { data: [[-Infinity]] }, "data[0][0] is -Infinity"],
  ["a BigInt", { data: { n: 10n } }, "data.n is a BigInt"],
  ["a cycle", { data: ring }, "data.a[1].b is part of itself"],
  ["a name with a dot", { data: { "a.b": { "": NaN } } }, 'data["a.b"][""] is NaN'],
  ["a date that is none", { data: new Date(NaN) }, "data is something invalid"],
  ["what hides in a toJSON", { data: { toJSON: () => [NaN] } }, "data[0] is NaN"],
];

for (const [name, value, sentence] of REFUSED) {
  test(`${name} is refused`, () => {
    assert.throws(
      () => checkJson(value),
      (error) => error instanceof TypeError && error.message.startsWith(sentence),
    );
  });
}

test("what JSON.stringify says in other words is taken", () => {
  const shared = { a: 1 };
  const bare = Object.assign(Object.create(null), { x: null });
  for (const value of [
    [shared, shared],
    { left: undefined, out: "\ud83d" },
    [new Date(0), new URL("ws://x"), new Point(1), bare, -0, "", false],
  ]) {
    checkJson(value);
  }
});

test("it is refused wherever a program says something", async () => {
  const world = new World();
  const peer = await world.join({ agents: ["coder"] });
  const before = world.texts.length;
  await assert.rejects(peer.broadcast({ a: new Map() }), /^TypeError: data\.a is a Map/);
  await assert.rejects(peer.send("any", { more: NaN }), /^TypeError: more is NaN/);
  await assert.rejects(peer.turnEnd("t", [undefined]), /^TypeError: data\.result\[0\]/);
  await assert.rejects(peer.announce({ agents: [{ id: NaN }] }), /^TypeError: agents\[0\]\.id/);
  await assert.rejects(peer.announce({ metadata: { x: 1n } }), /^TypeError: metadata\.x is a B/);
  assert.throws(() => peer.ask("bob", { f() {} }), /^TypeError: data\.command\.f is a function/);
  await assert.rejects(world.join({ id: "you", agents: [new Set()] }), /^TypeError: agents\[0\]/);
  assert.equal(world.texts.length, before);
});
