/** One member in time: its effects are carried out in their order, and what is due is told. */

import assert from "node:assert/strict";
import test from "node:test";

import { Driver } from "../../browser/src/driver.js";
import { World } from "./world.js";

/** A member that does what the test says. */
class FakeMember {
  effects = [];
  due = null;
  expired = [];

  takeEffects() {
    return this.effects.splice(0);
  }

  deadline() {
    return this.due;
  }

  expire({ at }) {
    this.expired.push(at);
    this.due = null;
  }
}

function driven(carryOut = () => {}, settled = () => {}) {
  const [world, member] = [new World(), new FakeMember()];
  return { world, member, driver: new Driver(member, world.env, { carryOut, settled }) };
}

test("what comes of an effect is obeyed after the effects before it", () => {
  const done = [];
  const { driver } = driven((effect) => {
    done.push(effect);
    if (effect === "first") driver.tell((member) => member.effects.push("of the first"));
  });
  driver.tell((member) => member.effects.push("first", "second"));
  assert.deepEqual(done, ["first", "second", "of the first"]);
});

test("what may be sent is looked at after the effects, also if that has effects", () => {
  const done = [];
  const { driver, member } = driven(
    (effect) => done.push(effect),
    () => {
      done.push("settled");
      if (done.length < 3) member.effects.push("of sending");
    },
  );
  driver.tell((member) => member.effects.push("one"));
  assert.deepEqual(done, ["one", "settled", "of sending", "settled"]);
});

test("what is told and throws is the caller's, and its effects are carried out", () => {
  const done = [];
  const { driver } = driven((effect) => done.push(effect));
  const failing = (member) => {
    member.effects.push("before it");
    throw new TypeError("no");
  };
  assert.throws(() => driver.tell(failing), TypeError);
  assert.deepEqual(done, ["before it"]);
});

test("what nobody called is reported, and ends nothing", () => {
  const { driver, world } = driven();
  const reported = [];
  world.env.report = (error) => reported.push(error.message);
  driver.report(() => {
    throw new Error("a bug");
  });
  assert.deepEqual(reported, ["a bug"]);
});

test("the alarm is for the earliest deadline, and none is left over", async () => {
  const { driver, world, member } = driven();
  const begun = world.at;
  for (const due of [50, 10, 30]) {
    driver.tell(() => {
      member.due = begun + due;
    });
  }
  assert.equal(world.timers.length, 1);
  await world.pass(29);
  assert.deepEqual(member.expired, [], "an alarm that is too early is set again");
  await world.pass(2);
  assert.deepEqual(member.expired, [begun + 30]);
  assert.deepEqual(world.timers, []);
});

test("nothing is due after the end", async () => {
  const { driver, world, member } = driven();
  driver.tell(() => {
    member.due = world.at + 1;
  });
  driver.end();
  assert.deepEqual(world.timers, []);
});
