/** Whose the id is, and with what token a connection comes. In virtual time. */

import assert from "node:assert/strict";
import test from "node:test";

import * as client from "../../browser/relay-client.js";
import { collect, World } from "./world.js";

const OWNER = "the owner of this id";

const claims = (world) =>
  world.sentOf("capabilities").flatMap(({ data }) => (data?.claim ? [data] : []));

/** How a promise ends that must not succeed. */
const failure = (promise) =>
  promise.then(
    () => assert.fail("it did not fail"),
    (error) => error,
  );

// Owners

test("the id is claimed before every presence, and the claim is the same", async () => {
  const world = new World();
  await world.join({ owner: OWNER });
  const [claim, , presence] = world.texts.map((text) => JSON.parse(text));
  assert.deepEqual([claim.type, claim.data], ["capabilities", { claim: OWNER }]);
  assert.equal(presence.type, "presence");
  world.socket.break();
  await world.pass(5);
  assert.deepEqual(claims(world), [{ claim: OWNER }, { claim: OWNER }]);
});

test("without an owner every membership makes one of its own", async () => {
  const world = new World();
  await world.join();
  await world.join();
  const [one, other] = claims(world).map(({ claim }) => claim);
  assert.ok(one.length >= 16);
  assert.notEqual(one, other);
});

test("all peers of an id from peerId share its owner", async () => {
  const world = new World();
  for (const kind of ["shared", "tab"]) {
    const id = await client.peerId(kind);
    for (let tab = 0; tab < 2; tab += 1) await world.join({ id });
  }
  const [one, other, tab, twin] = claims(world).map(({ claim }) => claim);
  assert.equal(one, other);
  assert.equal(tab, twin);
  assert.notEqual(one, tab);
});

test("a takeover is asked for until the peer has joined", async () => {
  const world = new World();
  world.opens = false;
  const joining = world.join({ owner: OWNER, takeover: true });
  world.socket.open();
  await world.settle();
  assert.deepEqual(claims(world).at(-1), { claim: OWNER, takeover: true });
  await joining;
  world.opens = true;
  world.socket.break();
  await world.pass(5);
  assert.deepEqual(claims(world).at(-1), { claim: OWNER });
});

test("what is no owner is refused at once", async () => {
  const world = new World();
  for (const owner of ["", "x".repeat(15), "x".repeat(257), `${"x".repeat(15)}\ud800`, 7]) {
    await assert.rejects(world.join({ owner }), { name: "RangeError", message: /16 to 256/ });
  }
  await assert.rejects(world.join({ takeover: true }), { name: "RangeError", message: /owner/ });
  await assert.rejects(world.join({ owner: "🤖".repeat(8) }), { name: "RangeError" });
  for (const chars of [16, 256]) await world.join({ owner: "🤖".repeat(chars) });
  assert.equal(world.sockets.length, 2);
});

test("an id that others have is tried again, and then the peer ends with IdTaken", async () => {
  const world = new World();
  world.refuses = { code: "id_taken", error: "it is here" };
  const failed = failure(world.join());
  await world.pass(34);
  const openings = world.sockets.length;
  assert.ok(openings > 3 && openings < 12, `${openings}`);
  await world.pass(2);
  const error = await failed;
  assert.ok(error instanceof client.IdTaken);
  await world.pass(600);
  assert.equal(world.sockets.length, openings + 1);
});

test("an id that becomes free meanwhile is joined", async () => {
  const world = new World();
  world.refuses = { code: "id_taken", error: "it is here" };
  const joining = world.join();
  await world.pass(31);
  world.refuses = null;
  await world.pass(5);
  assert.equal((await joining).state, "present");
});

test("a peer that is replaced ends so, and does not come back", async () => {
  const world = new World();
  const peer = await world.join({ owner: OWNER });
  const seen = collect(peer);
  world.socket.hear({ type: "error", from: "bob", data: { code: "replaced" } });
  await world.settle();
  assert.equal(peer.state, "present");
  world.socket.hear({ type: "error", from: "relay", data: { code: "replaced", error: "so" } });
  assert.ok((await peer.ended) instanceof client.Replaced);
  await seen.over;
  assert.ok(seen.error instanceof client.Replaced);
  await assert.rejects(peer.broadcast("x"), { name: "Replaced" });
  await world.pass(600);
  assert.equal(world.sockets.length, 1);
  assert.equal(world.sockets[0].closedWith, 1000);
});

// Tokens

/** What a token is, as the socket gets it. */
const bearer = (token) => [
  `base64UrlBearerAuthorization.${Buffer.from(token).toString("base64url")}`,
  "base64UrlBearerAuthorization",
];

test("every connection asks for a token, which travels as a subprotocol", async () => {
  const world = new World();
  let asked = 0;
  const token = async () => {
    asked += 1;
    return `token.${asked}`;
  };
  await world.join({ token });
  world.socket.break();
  await world.pass(5);
  assert.deepEqual(
    world.sockets.map(({ protocols }) => protocols),
    [bearer("token.1"), bearer("token.2")],
  );
  await world.join({ token: "a text", url: () => ({ url: "ws://x", protocols: ["mine"] }) });
  assert.deepEqual(world.socket.protocols, ["mine", ...bearer("a text")]);
});

test("a token that is none, or has expired, ends the peer at once", async () => {
  const world = new World();
  const expired = `a.${btoa(JSON.stringify({ exp: 1 }))}.c`;
  for (const token of ["", expired, () => undefined, async () => 7]) {
    await assert.rejects(world.join({ token }), { name: "LoginNeeded" });
  }
  assert.equal(world.sockets.length, 0);
});

test("a token function that fails or never answers is asked again without a word of it", async () => {
  const world = new World();
  let asked = 0;
  const failed = failure(
    world.join({
      token: () => {
        asked += 1;
        if (asked % 2) throw new TypeError("s3cr3t");
        return new Promise(() => {});
      },
    }),
  );
  await world.pass(40);
  const error = await failed;
  assert.ok(error instanceof client.Unreachable);
  assert.match(error.message, /token function failed \(TypeError\)/);
  assert.doesNotMatch(error.message, /s3cr3t/);
  assert.ok(asked >= 3 && asked < 10, `${asked}`);
});

test("a server that is there and refuses each time rejects the token", async () => {
  const world = new World();
  world.isThere = true;
  world.turnsAway = true;
  const failed = failure(world.join({ token: "t", url: "wss://relay:1/ws?mesh=m&x=s3cr3t" }));
  await world.pass(10);
  const error = await failed;
  assert.ok(error instanceof client.Rejected);
  assert.equal(error.isTransient, false);
  assert.match(error.message, /token/);
  assert.deepEqual(world.asked, Array(3).fill("https://relay:1/ping"));
  assert.deepEqual(world.looked, Array(3).fill("https://relay:1/ws"));
});

test("a server that is away, or refuses only now and then, does not", async () => {
  const world = new World();
  world.isThere = true;
  const peer = await world.join({ token: "t" });
  world.turnsAway = true;
  for (let round = 0; round < 5; round += 1) {
    world.isThere = round % 2 === 0;
    world.socket.break();
    await world.pass(20);
  }
  assert.notEqual(peer.state, "ended");
  world.turnsAway = false;
  await world.pass(60);
  assert.equal(peer.state, "present");
});

test("refusals before and after an opening are not in a row", async () => {
  const world = new World();
  world.isThere = true;
  world.opens = false;
  const connect = world.env.connect;
  world.env.connect = (...address) => {
    const socket = connect(...address);
    const number = world.sockets.length;
    world.mute = number < 6; // It never joins before.
    queueMicrotask(() => {
      if (number === 3 || number === 6) socket.open();
      if (number < 6) socket.break();
    });
    return socket;
  };
  const joining = world.join({ token: "t" });
  await world.pass(39);
  assert.equal((await joining).state, "present");
});

test("a peer that was present ends after some time of nothing but refusals, without a storm", async () => {
  const world = new World();
  world.isThere = true;
  const peer = await world.join({ token: "t" });
  world.turnsAway = true;
  world.socket.break();
  await world.pass(25);
  assert.notEqual(peer.state, "ended");
  await world.pass(60);
  assert.ok((await peer.ended) instanceof client.Rejected);
  assert.ok(world.sockets.length < 15, `${world.sockets.length}`);
});

test("without a token a hidden refusal is not for good, and trying goes on", async () => {
  const world = new World();
  world.isThere = true;
  world.turnsAway = true;
  const failed = failure(world.join());
  await world.pass(60);
  const error = await failed;
  assert.ok(error instanceof client.Rejected);
  assert.equal(error.isTransient, true);
  assert.match(error.message, /opens no WebSocket/);
});

test("a connection is replaced before its grant ends, and nothing is lost", async () => {
  const world = new World();
  world.grant = { peer: "me", expiresInSeconds: 100 };
  let asked = 0;
  const peer = await world.join({
    token: () => {
      asked += 1;
      return "t";
    },
  });
  const seen = collect(peer);
  for (let number = 0; number < 100; number += 1) {
    await world.pass(2);
    await world.broadcast({ data: number });
  }
  assert.deepEqual(
    seen.map(({ data }) => data),
    Array.from({ length: 100 }, (_, number) => number),
  );
  assert.equal(asked, 3);
});
