/** A connection that is cut goes on over another socket. In virtual time, with a relay that counts. */

import assert from "node:assert/strict";
import test from "node:test";

import * as client from "../../browser/relay-client.js";
import { CountingWorld } from "./counting.js";
import { collect, LIMITS, seeded } from "./world.js";

const numbers = (count) => Array.from({ length: count }, (_, n) => n + 1);
const data = (messages) => messages.map((message) => message.data);

/** A peer that is here, with bob, and what it is told. */
async function here(options = {}, setUp = () => {}) {
  const world = new CountingWorld();
  setUp(world);
  const peer = await world.join(options);
  const told = { seen: [], gaps: [], all: [], resumed: [], states: [] };
  peer.on("message", (message) => {
    told.seen.push(message.data);
    told.all.push(message.data);
  });
  peer.on("gap", (gap) => {
    told.gaps.push(gap);
    told.all.push("gap");
  });
  peer.on("resumed", ({ seconds }) => told.resumed.push(seconds));
  peer.on("state", (state) => told.states.push(state));
  return { world, peer, told };
}

const heard = (world) => data(world.heard);

/** A peer that has answered a command, on a socket that was cut before the relay took that. */
async function answeredInVain() {
  const { world, peer } = await here({ agents: ["coder"] });
  peer.serve(() => "done");
  world.slow = true;
  world.say({ type: "direct", from: "bob", to: "coder", turnId: "t", data: { command: "go" } });
  world.deliver(world.socket);
  await world.settle();
  world.socket.break();
  world.slow = false;
  return { world, peer };
}

function isAnswered(world) {
  assert.deepEqual(
    world.heard.map(({ type }) => type),
    ["ack", "turn_end"],
  );
}

test("what is said while the socket is cut arrives in order, once, before anything new", async () => {
  const { world, peer, told } = await here();
  await world.broadcast({ data: 1 });
  world.socket.break();
  await world.broadcast({ data: 2 });
  world.answer(world.sockets[0], { type: "error", data: 3 }); // A private one is missed, too.
  await world.broadcast({ data: 4 });
  await world.pass(3);
  await world.broadcast({ data: 5 });
  assert.deepEqual(told.seen, [1, 2, 3, 4, 5]);
  assert.deepEqual([told.gaps, told.resumed.length, peer.resumed], [[], 1, 1]);
  assert.deepEqual(told.states, ["waiting", "joining", "present"]);
  assert.equal(world.sentOf("presence").length, 1);
});

test("what the relay had not taken is sent again, once, before anything new", async () => {
  const { world, peer, told } = await here();
  await peer.broadcast(1);
  world.slow = true;
  await Promise.all([2, 3].map((n) => peer.broadcast(n)));
  world.take(world.socket);
  world.socket.break();
  world.slow = false;
  const late = [4, 5].map((n) => peer.broadcast(n)); // As if there were a connection.
  await world.pass(3);
  await Promise.all(late);
  assert.deepEqual(heard(world), [1, 2, 3, 4, 5]);
  assert.equal(told.resumed.length, 1);
});

test("what goes again by itself goes also if the program waits for nothing", async () => {
  const { world } = await answeredInVain();
  await world.pass(3);
  isAnswered(world);
});

test("a socket that died unnoticed is not said goodbye on, and the rest of it counts", async () => {
  const { world, peer, told } = await here();
  world.slow = true;
  await Promise.all([1, 2].map((n) => peer.broadcast(n)));
  world.halve(world.socket);
  await world.broadcast({ data: "late" });
  world.slow = false;
  await world.pass(3);
  assert.deepEqual(heard(world), [1, 2]);
  assert.deepEqual(told.seen, ["late"]);
  assert.equal(told.resumed.length, 1);
});

test("of a flood goes again what the relay had not taken, whatever reports are among it", async () => {
  for (let taken = 0; taken < 30; taken += 1) {
    const { world, peer } = await here({ limits: { unreportedFramesMax: 3 } });
    world.socket.break();
    world.slow = true;
    const sent = numbers(20).map((n) => peer.broadcast(n));
    await world.pass(1);
    world.take(world.socket); // It comes back,
    world.deliver(world.socket); // and sends all of that at once.
    await Promise.all(sent);
    for (let n = 0; n < taken && world.socket.sent.length > 0; n += 1) world.take(world.socket);
    world.socket.break();
    world.slow = false;
    await world.pass(3);
    assert.deepEqual(heard(world), numbers(20), `${taken} frames`);
    assert.equal(peer.resumed, 2);
  }
});

test("who would rather fail than wait is told when the connection does not come back", async () => {
  const { world, peer } = await here({ offline: "fail" });
  world.socket.break();
  const first = peer.broadcast(1);
  await world.pass(3);
  await first;
  world.refusesToResume = "history";
  world.socket.break();
  const second = peer.broadcast(2).catch((error) => error);
  await world.pass(3);
  assert.ok((await second) instanceof client.NotConnected);
  await peer.broadcast(3);
  assert.deepEqual(heard(world), [1, 3]);
});

test("an announcement that the relay had not taken is made again, and answered", async () => {
  const { world, peer } = await here();
  world.slow = true;
  const announced = peer.announce({ agents: ["coder"] });
  await world.settle();
  world.socket.break();
  world.slow = false;
  await world.pass(3);
  await announced;
  assert.deepEqual(world.sentOf("presence").at(-1).data.agents, ["coder"]);
});

test("a page that slept with a report under way has not given up counting", async () => {
  const { world, peer, told } = await here();
  world.slow = true;
  await peer.broadcast("x");
  await world.pass(10.5);
  world.sleep(60, { monotonic: true });
  await world.pass(0.1);
  world.slow = false;
  world.socket.break();
  await world.pass(3);
  assert.deepEqual([told.gaps, told.resumed.length], [[], 1]);
  assert.deepEqual(heard(world), ["x"]);
});

test("a relay that speaks, and never says what it has taken, is not waited for", async () => {
  const { world, peer, told } = await here();
  await world.pass(1);
  await peer.broadcast("in doubt");
  world.reply = () => {}; // It takes reports, and does not answer them.
  for (let n = 0; n < 9; n += 1) {
    await world.pass(9);
    await world.broadcast({ data: n });
  }
  world.socket.break();
  await world.pass(3);
  assert.equal(told.gaps[0].reason, "broken");
  assert.deepEqual(data(told.gaps[0].inDoubt), ["in doubt"]);
});

test("who leaves waits for what goes again, also of answers to commands", async () => {
  const { world, peer } = await answeredInVain();
  const left = peer.leave();
  await world.pass(3);
  await left;
  isAnswered(world);
});

test("a silent connection is dropped with a code that is no goodbye", async () => {
  const { world, peer, told } = await here();
  world.mute = true;
  world.opens = false;
  await world.pass(26);
  assert.equal(world.sockets[0].closedWith, 4000);
  world.mute = false;
  world.socket.open();
  await world.settle();
  assert.equal(peer.state, "present");
  assert.equal(told.resumed.length, 1);
  assert.deepEqual(told.gaps, []);
});

test("a peer that leaves, or falls asleep, says goodbye", async () => {
  const { world, peer } = await here();
  world.suspend();
  assert.equal(world.socket.closedWith, 1000);
  assert.equal(world.streams.size, 0);
  world.nudge();
  await world.settle();
  assert.equal(world.sentOf("presence").length, 2);
  assert.equal(world.comebacks, 0);
  await peer.leave();
  assert.equal(world.socket.closedWith, 1000);
  assert.equal(world.streams.size, 0);
});

test("a page that falls asleep while it is cut comes back as somebody new, and says so", async () => {
  const { world, told } = await here();
  world.opens = false;
  world.socket.break();
  await world.pass(1);
  world.suspend();
  world.opens = true;
  world.nudge();
  await world.pass(1);
  assert.equal(told.gaps.length, 1);
  assert.equal(world.comebacks, 0);
});

for (const reason of ["epoch", "unknown", "history", "count", "grant", "late"]) {
  test(`where the relay refuses (${reason}), it joins anew, and a gap says so in its place`, async () => {
    const { world, peer, told } = await here();
    const messages = collect(peer);
    await world.broadcast({ data: 1 });
    world.slow = true;
    await peer.broadcast("in doubt");
    world.socket.break();
    world.slow = false;
    world.refusesToResume = reason;
    const late = peer.broadcast("later");
    await world.pass(3);
    await late;
    await world.broadcast({ data: 2 });
    assert.deepEqual(data(messages), [1]);
    assert.ok(messages.error instanceof client.Gap);
    const [gap] = told.gaps;
    assert.equal(gap.reason, reason);
    assert.deepEqual(data(gap.inDoubt), ["in doubt"]);
    assert.match(gap.message, /1 messages that it had sent may not have arrived/);
    assert.deepEqual(heard(world), ["later"]); // And what is in doubt is not sent again.
    assert.deepEqual(data(collect(peer)), []);
    assert.equal(world.sentOf("presence").length, 2);
    assert.deepEqual([told.resumed, told.seen], [[], [1, 2]]);
  });
}

test("after too long it does not even ask", async () => {
  const { world, told } = await here();
  world.opens = false;
  world.socket.break();
  await world.pass(25);
  world.opens = true;
  await world.pass(25);
  assert.equal(world.comebacks, 0);
  assert.equal(told.gaps[0].reason, "window");
});

test("after a restart of the relay nothing is doubled and what is in doubt is told", async () => {
  const { world, peer, told } = await here();
  await peer.broadcast(1);
  world.restart();
  const late = peer.broadcast(2);
  await world.pass(3);
  await late;
  assert.deepEqual(heard(world), [1, 2]);
  assert.equal(told.gaps[0].reason, "epoch");
  assert.deepEqual(data(told.gaps[0].inDoubt), [1]); // The relay had not said so yet.
});

test("a relay without the rule is what it always was", async () => {
  const { world, peer, told } = await here({}, (world) => (world.resumeS = 0));
  await peer.broadcast(1);
  world.socket.break();
  await world.pass(3);
  assert.equal(told.gaps[0].reason, "unsupported");
  assert.deepEqual(told.gaps[0].inDoubt, []);
  assert.equal(world.comebacks, 0);
});

test("it need not come back", async () => {
  const { world, told } = await here({ limits: { resumeS: 0 } });
  world.socket.break();
  await world.pass(3);
  assert.equal(told.gaps[0].reason, null);
  assert.equal(world.streams.size, 0);
});

test("turns go on over a cut", async () => {
  const { world, peer } = await here({}, (world) => world.arrive("bob", "coder"));
  const turn = peer.ask("coder", "go");
  await world.settle();
  const answer = { from: "coder", instanceId: "bob", turnId: turn.turnId };
  world.say({ ...answer, type: "stream", data: { chunk: "one", chunkNum: 0 } });
  world.moved();
  world.socket.break();
  world.say({ ...answer, type: "stream", data: { chunk: "two", chunkNum: 1 } });
  world.say({ ...answer, type: "turn_end", data: { result: 12, chunks: 2 } });
  await world.pass(3);
  assert.equal(await turn, 12);
  assert.deepEqual(turn.chunks, ["one", "two"]);
});

test("a report goes out after so many frames, and with every heartbeat", async () => {
  const { world, peer } = await here();
  for (let n = 0; n < 200; n += 1) await peer.broadcast(n);
  await world.settle();
  assert.equal(world.reports.length, 1);
  await world.pass(0.25); // Nothing more is sent.
  assert.equal(world.reports.length, 2);
  const after = world.reports.length;
  await world.pass(30);
  assert.ok(world.reports.length - after >= 2);
  assert.ok(world.reports.length - after <= 4);
});

test("a flood is reported ten times a second at most", async () => {
  const { world, peer } = await here({ limits: { heartbeatEveryS: 20 } });
  for (let n = 0; n < 512; n += 1) {
    for (let k = 0; k < 4; k += 1) peer.broadcast(n);
    await world.pass(1 / 256);
  }
  const reports = world.reports.length; // In 2 s, of 2048 frames: 32 times 64.
  assert.ok(reports >= 18 && reports <= 21, `${reports} reports`);
  assert.equal(world.heard.length, 4 * 512);
});

test("large messages do not wait for a heartbeat until they may go on", async () => {
  const { world, peer } = await here();
  const sent = numbers(40).map(() => peer.broadcast("x".repeat(500_000)));
  await world.pass(1);
  await Promise.all(sent);
  assert.equal(world.heard.length, 40);
});

test("what is kept is bounded: beyond, messages wait until the relay has taken some", async () => {
  const { world, peer } = await here({ limits: { unconfirmedFramesMax: 100 } });
  world.mute = true;
  const sent = { count: 0 };
  for (let n = 0; n < 300; n += 1) {
    peer.broadcast(n).then(
      () => (sent.count += 1),
      () => {},
    );
  }
  await world.settle();
  assert.ok(sent.count <= 100, `${sent.count} were handed on`);
  assert.ok(sent.count > 50);
});

test("a replacement under which the old one is cut loses nothing", async () => {
  const { world, peer, told } = await here({ limits: { renewAfterS: 60 } });
  await world.pass(59);
  world.slow = true;
  await world.pass(2);
  assert.equal(peer.state, "renewing");
  world.socket.open();
  world.sockets[0].break();
  world.slow = false;
  await world.broadcast({ data: 1 });
  await world.pass(5);
  await world.broadcast({ data: 2 });
  assert.deepEqual(told.seen, [1, 2]);
  assert.deepEqual(told.gaps, []);
});

test("in 400 random runs cuts lose, double and reorder nothing, in either direction", async () => {
  let resumed = 0;
  let whole = 0;
  for (let seed = 1; seed <= 400; seed += 1) {
    const chance = seeded(seed);
    const isBehindEdge = chance() < 0.3;
    const { world, peer, told } = await here(
      {
        limits: {
          renewAfterS: 30,
          backoffFirstS: 0.1,
          retryMaxS: 0.2,
          unreportedFramesMax: 1 + Math.floor(chance() * 8),
        },
      },
      (world) => {
        if (isBehindEdge) world.limits = { ...LIMITS, framesPerSecond: 200, frameBytes: 4000 };
      },
    );
    let said = 0;
    let sent = 0;
    const promises = [];
    world.slow = true;
    for (let step = 0; step < 200; step += 1) {
      const open = world.sockets.filter(({ readyState, sent }) => readyState === 1 || sent.length);
      const socket = open[Math.floor(chance() * open.length)];
      const dice = chance();
      if (dice < 0.2) {
        said += 1;
        world.say({ type: "broadcast", from: "bob", data: said });
      } else if (dice < 0.4) {
        sent += 1;
        promises.push(peer.broadcast(sent));
      } else if (dice < 0.6) {
        if (socket?.sent.length && socket.readyState === 1) world.take(socket);
      } else if (dice < 0.8) {
        if (socket?.coming.length) world.deliver(socket);
      } else if (dice < 0.84 && socket?.readyState === 1) {
        if (chance() < 0.3 && socket.stream) world.halve(socket);
        else socket.break();
      } else if (dice < 0.9) {
        await world.pass(chance());
      }
      await null;
    }
    world.slow = false;
    world.moved();
    await world.pass(60);
    await Promise.all(promises);
    // Only where the relay has refused, because a cut took its answer with it, may something be missing.
    assert.equal(told.gaps.length > 0, world.refused.length > 0, `seed ${seed}`);
    const inDoubt = told.gaps.flatMap((gap) => data(gap.inDoubt));
    const missing = numbers(sent).filter((n) => !heard(world).includes(n));
    assert.deepEqual(
      missing.filter((n) => !inDoubt.includes(n)),
      [],
      `seed ${seed}: in doubt`,
    );
    const passed = numbers(sent).filter((n) => !missing.includes(n));
    assert.deepEqual(heard(world), passed, `seed ${seed}: sent`);
    let next = 1;
    let mayJump = false;
    for (const what of told.all) {
      const isRight = what === "gap" || what === next || (mayJump && what > next);
      assert.ok(isRight, `seed ${seed}: received ${what}, not ${next}`);
      mayJump = what === "gap";
      if (!mayJump) next = what + 1;
    }
    if (world.refused.length === 0) {
      assert.deepEqual(told.all, numbers(said), `seed ${seed}: received`);
      assert.deepEqual(missing, [], `seed ${seed}: sent`);
      whole += 1;
    }
    resumed += peer.resumed;
    await peer.leave();
  }
  assert.ok(resumed > 800 && whole > 200, `${resumed} came back, ${whole} runs were whole`);
});
