/** What a peer decides, as tests/vectors/ tells it: events in, effects out. Python runs the same
 * files (tests/vectors/test_vectors.py) and writes them (`python -m tests.vectors`). */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import test from "node:test";

import { agentId } from "../../browser/src/agents.js";
import { crc32 } from "../../browser/src/bytes.js";
import * as errors from "../../browser/src/errors.js";
import { lastMessage, readFrame } from "../../browser/src/incoming.js";
import * as lifecycle from "../../browser/src/lifecycle.js";
import { LIMITS, limitsWith } from "../../browser/src/limits.js";
import { Member } from "../../browser/src/member.js";
import { placeOf, reason } from "../../browser/src/reasons.js";
import { Resuming } from "../../browser/src/resuming.js";
import { compare } from "../../browser/src/roster.js";
import { sessionId } from "../../browser/src/session.js";

const FOLDER = new URL("../vectors/", import.meta.url);

const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
const camelKeys = (given) =>
  Object.fromEntries(Object.entries(given).map(([name, value]) => [camel(name), value]));

// Pure functions

const byId = (peers) => new Map(Object.entries(peers));

const FUNCTIONS = {
  agent_id: ({ agent }) => agentId(agent),
  session_id: ({ mesh, secret }) => sessionId(mesh, secret),
  backoff: ({ attempts, chance, wait_max_s }) =>
    lifecycle.backoff(attempts, chance, wait_max_s, LIMITS),
  deadline: ({ membership }) => lifecycle.deadline(membership, LIMITS),
  expire: ({ membership, now, chance }) => lifecycle.expire(membership, now, chance, LIMITS),
  transition: ({ old, event }) => lifecycle.transition(old, camelKeys(event), LIMITS),
  place_of: ({ host }) => placeOf(host),
  reason({ seen }) {
    const { name, message, isTransient } = reason(camelKeys(seen));
    return { error: name, message, is_transient: isTransient };
  },
  read_frame({ frame }) {
    try {
      return readFrame(frame, LIMITS);
    } catch ({ message }) {
      return { error: message };
    }
  },
  last_message({ frame }) {
    const text = lastMessage(frame);
    return { text, crc: crc32(text) };
  },
  compare({ seen, here }) {
    const { joined, updated, left } = compare(byId(seen), byId(here));
    return { joined, updated, left };
  },
};

async function call({ call, arguments: given, returns, raises }) {
  if (raises) assert.throws(() => FUNCTIONS[call](given), /a bug/);
  else assert.deepEqual(await FUNCTIONS[call](given), returns);
}

// A whole member

/** A value as the files have it. */
function plain(value) {
  if (value === undefined) return null;
  if (value instanceof Error) return plainError(value);
  if (value instanceof Map) return plain(Object.fromEntries(value));
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  if ("fields" in value && "origin" in value) return value.fields;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item)]));
}

function plainError(error) {
  const { name, message, code, peers, reason, inDoubt } = error;
  if (!(error instanceof errors.RelayError)) return { error: name };
  const told = { error: name, message };
  if (code !== undefined) told.code = code;
  if (peers !== undefined) told.peers = peers;
  if (name === "Gap" && reason !== null) Object.assign(told, { reason, in_doubt: plain(inDoubt) });
  return told;
}

function plainEffect({ text, ...effect }) {
  if (effect.effect === "Transmit") return { ...effect, message: JSON.parse(text) };
  const old = effect.effect === "Arrived" && effect.message.isOld ? { is_old: true } : {};
  return text === undefined ? { ...plain(effect), ...old } : plain({ ...effect, text });
}

function plainResult(result) {
  if (typeof result?.text !== "string") return result ?? null;
  const frame = JSON.parse(result.text);
  const is_array = Array.isArray(frame);
  return { messages: [frame].flat(), is_array, tickets: result.tickets };
}

const seen = (member) =>
  plain({
    state: member.state,
    deadline: member.deadline(),
    is_ready: member.isReady,
    is_in_use: member.isInUse,
    has_room: member.hasRoom,
    queued: member.queued,
    agent_ids: member.agentIds,
    roster: member.roster,
    over: member.over,
  });

/** What each event is here: from the arguments by name to a call. */
const EVENTS = {
  begin: (member, now, { within_s }) => member.begin(now, within_s),
  opened: (member, now, { connection }) => member.opened(connection, now),
  received: (member, now, { connection, frame }) => member.received(connection, frame, now),
  closed: (member, now, { connection, code, reason }) =>
    member.closed(connection, now, code, reason),
  failed: (member, now, { connection, error }) => member.failed(connection, errorOf(error), now),
  nudge: (member, now) => member.nudge(now),
  forsake: (member, now) => member.forsake(now),
  suspend: (member, now) => member.suspend(now),
  leave: (member, now) => member.leave(now),
  end: (member, now, { error }) => member.end(now, error && errorOf(error)),
  expire: (member, now) => member.expire(now),
  announce: (member, now, { agents, metadata }) => member.announce(agents, metadata, now),
  subscribe: (member, now, { subscribe }) => member.subscribe(subscribe, now),
  send: (member, now, { fields }) => member.send(fields, now),
  withdraw: (member, _, { ticket }) => member.withdraw(ticket),
  ask: (member, now, { agent, command, ...how }) => member.ask(agent, command, now, camelKeys(how)),
  abandon: (member, now, { turn }) => member.abandon(turn, now),
  serve: (member, now, { agents, ...how }) => member.serve(agents, now, camelKeys(how)),
  returned: (member, _, { command }) => member.returned(command),
  elect: (member, now, { agents }) => member.elect(agents, now),
  taken: (member, _, { turn, agent }) => member.taken(turn, agent),
  stop_serving: (member, now, { service, cancels }) =>
    member.stopServing(service, now, { cancels }),
  stream: (member, now, { command, chunk }) => member.stream(command, chunk, now),
  finish: (member, now, { command, result }) => member.finish(command, result, now),
  fail: (member, now, { command, sentence }) => member.fail(command, sentence, now),
  next_frame: (member, now, { connection }) => plainResult(member.nextFrame(connection, now)),
};

const KINDS = { ...errors };
const errorOf = ({ error, message }) => new KINDS[error](message);

function memberOf(setup, source) {
  const defaults = { waits: true, splits: true, overfill: 1, keepalive: "pong", token: "t" };
  const { id, agents = [], metadata = {}, limits = {}, ...habits } = { ...defaults, ...setup };
  let turns = 0;
  const turnId = () => {
    turns += 1;
    return `turn-${turns}`;
  };
  let nonces = 0;
  const nonce = () => {
    nonces += 1;
    return String(nonces);
  };
  const sources = { roll: () => source.roll, nonce, turnId };
  const given = limitsWith({ resumeS: 0, ...camelKeys(limits) });
  return new Member(id, agents, metadata, given, { ...sources, ...habits });
}

function replay({ setup, steps }) {
  const source = { roll: 0 };
  const member = memberOf(setup, source);
  const state = {};
  for (const [number, step] of steps.entries()) {
    const { name, at, wall_ms, roll, ...given } = step.event;
    source.roll = roll;
    const told = {};
    try {
      told.returns = EVENTS[name](member, { at, wallMs: wall_ms }, given) ?? null;
    } catch (error) {
      told.raises = plainError(error);
    }
    told.effects = member.takeEffects().map(plainEffect);
    Object.assign(state, step.after);
    const where = `step ${number}: ${JSON.stringify(step.event)}`;
    const wanted = { ...step };
    delete wanted.event;
    delete wanted.after;
    if (["ValueError", "TypeError"].includes(wanted.raises?.error)) {
      assert.match(told.raises?.error ?? "nothing", /^(Range|Type)Error$/, where);
      told.raises = wanted.raises;
    }
    assert.deepEqual(told, wanted, where);
    assert.deepEqual(seen(member), state, `${where}: what is seen afterwards`);
  }
}

// An object of one module

const CLASSES = { Resuming };

function replayObject({ class: name, limits, steps }) {
  const object = new CLASSES[name](limitsWith(camelKeys(limits)));
  const state = {};
  for (const [number, { do: method, arguments: given, returns, after }] of steps.entries()) {
    const where = `step ${number}: ${method}(${JSON.stringify(given)})`;
    const told = plain(object[camel(method)](...Object.values(given)));
    assert.deepEqual(told, returns, where);
    Object.assign(state, after);
    const shown = Object.keys(state).map((key) => {
      const value = object[camel(key)];
      return [key, plain(typeof value === "function" ? object[camel(key)]() : value)];
    });
    assert.deepEqual(Object.fromEntries(shown), state, `${where}: what it shows afterwards`);
  }
}

for (const file of readdirSync(FOLDER).filter((name) => name.endsWith(".json"))) {
  const { room, cases } = JSON.parse(readFileSync(new URL(file, FOLDER), "utf8"));
  for (const one of cases) {
    const run = "call" in one ? call : "class" in one ? replayObject : replay;
    test(`${room}: ${one.name}`, () => run(one));
  }
}
