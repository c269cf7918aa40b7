/** A relay that says anything: the peer lives on, keeps its bounds, and works with the next one. The
 * twin of tests/protocol/member/test_hostile.py; here chance is a seed. */

import assert from "node:assert/strict";
import test from "node:test";

import { RelayError } from "../../browser/src/errors.js";
import { limitsWith } from "../../browser/src/limits.js";
import { Member } from "../../browser/src/member.js";

const LIMITS = limitsWith({
  peersMax: 3,
  rosterBytesMax: 4096,
  readBytesMax: 8192,
  nestingMax: 8,
  turnsMax: 2,
  queueMessagesMax: 4,
  giveUpAfterS: 10_000,
});
const TYPES = ["presence", "error", "capabilities_response", "ack", "stream", "turn_end", "direct"];
const NAMES = ["relay", "ann", "bob", "eve", "coder", "x1", "x2", "__proto__"];
const BOUNDS = [
  "messageBytes",
  "messagesPerSecond",
  "messagesBurst",
  "framesPerSecond",
  "frameBytes",
];
const NUMBERS = ["0.5", "-1", "0", "true", "1e999", "5e-324", "1".repeat(4000), "1", "1000"];
const WORDS = [
  "agents",
  "status",
  "command",
  "chunk",
  "result",
  "error",
  "code",
  "peers",
  "accept",
];
const DEEP = `${"[".repeat(20)}${"]".repeat(20)}`;

/** Numbers in [0, 1), the same for a seed (mulberry32). */
function dice(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function chance(seed) {
  const roll = dice(seed);
  const pick = (list) => list[Math.floor(roll() * list.length)];
  const quoted = (list) => JSON.stringify(pick(list));
  const bound = () => `${quoted(BOUNDS)}:${roll() < 0.8 ? pick(NUMBERS) : anything(2)}`;
  const limits = () => `{${bound()},${bound()},${bound()}}`;
  function anything(depth) {
    if (depth === 0) return pick([...NUMBERS, "null", '"offline"', '"\\ud800"', '"🤖"', DEEP]);
    if (roll() < 0.4) return `[${anything(depth - 1)},${anything(depth - 1)}]`;
    return roll() < 0.5 ? `{${quoted(WORDS)}:${anything(depth - 1)}}` : anything(0);
  }
  function data() {
    if (roll() < 0.2) return anything(2);
    return `{${quoted(WORDS)}:${anything(2)},"limits":${limits()}}`;
  }
  function message(turns) {
    const turnId = roll() < 0.8 ? quoted(turns) : anything(1);
    const from = roll() < 0.8 ? quoted(NAMES) : anything(1);
    const to = roll() < 0.3 ? `,"instanceId":${quoted(NAMES)}` : "";
    return `{"type":${quoted(TYPES)},"from":${from}${to},"turnId":${turnId},"data":${data()}}`;
  }
  function frame(turns) {
    const form = roll();
    if (form < 0.6) return message(turns);
    if (form < 0.9) return `[${message(turns)},${message(turns)}]`;
    return pick(["", "null", "[]", "[".repeat(300), new ArrayBuffer(2), anything(2), "{"]);
  }
  return { pick, roll, frame, limits };
}

class Victim {
  at = 1000;
  connection = 0;
  said = [];
  commands = [];
  sizes = [];

  constructor() {
    let [nonces, turns] = [0, 0];
    const nonce = () => String(++nonces);
    const turnId = () => `turn-${++turns}`;
    const habits = { waits: true, splits: false, overfill: 1, keepalive: "pong" };
    const sources = { token: "t", nonce, turnId, roll: () => 0.5 };
    this.member = new Member("ann", ["coder"], {}, LIMITS, { ...sources, ...habits });
    this.member.begin(this.now);
    this.obey();
  }

  get now() {
    return { at: this.at, wallMs: this.at * 1000 };
  }

  get isOver() {
    return this.member.state === "ended";
  }

  obey() {
    for (const effect of this.member.takeEffects()) {
      if (effect.effect === "Open") {
        this.connection = effect.connection;
        this.said = [];
        this.member.opened(effect.connection, this.now);
        this.obey();
      } else if (effect.effect === "Transmit") this.said.push(JSON.parse(effect.text));
      else if (effect.effect === "Close" && effect.connection === this.connection)
        this.connection = 0;
      else if (effect.effect === "Handle") this.commands.push(effect.command);
      else if (effect.effect === "Arrived") this.sizes.push(effect.size);
    }
  }

  hear(frame) {
    if (!this.connection) this.join();
    this.read(frame);
  }

  read(frame) {
    this.member.received(this.connection, frame, this.now);
    this.obey();
  }

  wait(seconds) {
    const until = this.at + seconds;
    for (let due = this.member.deadline(); due !== null && due <= until; ) {
      this.at = Math.max(this.at, due);
      this.member.expire(this.now);
      this.obey();
      due = this.member.deadline();
    }
    this.at = until;
  }

  join() {
    for (let times = 0; times < 60 && !this.member.isInUse && !this.isOver; times++) {
      if (this.connection) this.answer();
      else this.wait(1);
    }
  }

  answer(limits = { messageBytes: 9999, messagesPerSecond: 10, messagesBurst: 1 }) {
    for (const said of [...this.said]) {
      const { type, turnId } = said;
      const answer = { type: "capabilities_response", from: "relay", turnId, data: { limits } };
      if (type === "presence") this.read(JSON.stringify(said));
      else if (type === "capabilities") this.read(JSON.stringify(answer));
    }
  }

  do(doing) {
    const { member, now } = this;
    const doings = {
      ask: () => member.ask("helper", "x", now, { timeoutS: 20 }),
      serve: () => member.serve(null, now),
      announce: () => member.announce(["coder", "x"], null, now),
      nudge: () => member.nudge(now),
      send: () => member.send({ type: "a" }, now),
      reply: () => this.commands.map((command) => member.finish(command, 1, now)),
      wait: () => this.wait(11),
    };
    try {
      doings[doing]();
    } catch (error) {
      if (!(error instanceof RelayError)) throw error;
    }
    member.nextFrame(this.connection, this.now);
    this.obey();
  }

  check() {
    const { member } = this;
    assert.ok(member.roster.size <= LIMITS.peersMax);
    assert.ok(member.queued <= LIMITS.queueMessagesMax + LIMITS.turnsMax);
    assert.ok(this.sizes.every((size) => size <= LIMITS.readBytesMax));
    assert.equal(member.deadline() === null, this.isOver);
  }
}

const DOINGS = ["ask", "serve", "announce", "nudge", "send", "reply", "wait"];

for (let seed = 0; seed < 150; seed++) {
  test(`whatever a relay says, the peer lives on: seed ${seed}`, () => {
    const { pick, roll, frame } = chance(seed);
    const victim = new Victim();
    const joins = seed % 4 > 0;
    if (joins) victim.join();
    for (let steps = 0; steps < 25; steps++) {
      const turns = [
        ...victim.said.map(({ turnId }) => turnId ?? null),
        "turn-1",
        "t:1",
        "c",
        null,
      ];
      if (roll() < 0.3) victim.do(pick(DOINGS));
      else victim.hear(frame(turns));
      victim.check();
    }
    if (victim.isOver) {
      assert.ok(!joins);
      return;
    }
    victim.member.closed(victim.connection, victim.now);
    victim.obey();
    victim.join();
    victim.answer();
    assert.equal(victim.member.state, "present");
    assert.equal(victim.member.roster.size, 0);
    for (let times = 0; times < 100 && victim.member.queued > 0; times++) {
      victim.member.nextFrame(victim.connection, victim.now);
      victim.wait(1);
      victim.answer();
    }
    assert.equal(victim.member.queued, 0);
  });
}
