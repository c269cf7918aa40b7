/**
 * What needs attention, and why: turns that are stuck, peers that flood the mesh, are refused or read too
 * slowly, a relay that is at its bounds. No I/O.
 *
 * | what | when |
 * |---|---|
 * | stuck | a command is open, and there was no sign of it for 30 s |
 * | flooding | a peer says half of what one may, or by far more than the others, or the relay refuses it for its rate |
 * | refused | much of what a peer says is refused for other reasons |
 * | slow | half of what may wait for a peer waits |
 * | relay | it ends, has little memory left, or is late |
 *
 * @import { Model, Seen } from "./model.js"
 * @import { Happening } from "./types.js"
 */

import { bytes, count, counted, duration, rate } from "./format.js";
import { short } from "./text.js";

/** A turn that is silent for longer is stuck. (Whoever works on a command says so every 10 s.) */
export const STUCK_AFTER_S = 30;
/** Of `messages_per_s`: who says more, floods. */
export const NEAR = 0.5;
/** Who says so many a second more than nine tenths of the others, and at least so many, floods. */
export const FAR_TIMES = 10;
export const FAR_PER_S = 50;
/** So many refused in the last minute are much. */
export const REFUSED_MIN = 20;
/** What is said of the last minute counts events of so long. */
export const RECENT_S = 60;
/** A queue that is so full is long, and so is the memory of the relay. */
export const FULL = 0.5;
export const MEMORY_FULL = 0.8;
/** A loop that is so late is slow (seconds). */
export const LATE_S = 0.5;
const TOO_FAST = "rate_limited";

/** @typedef {"relay" | "stuck" | "flooding" | "slow" | "refused"} Kind */

/**
 * @typedef {object} Trouble
 * @property {Kind} kind
 * @property {string | null} peer whose trouble it is; null: nobody's
 * @property {string | null} turn the key of the turn that has been silent for longest
 * @property {string} sentence what it does; its subject is the peer
 * @property {number} weight of two of one kind, the heavier comes first
 */

/**
 * @typedef {object} Verdict
 * @property {Trouble[]} troubles the worst first
 * @property {Map<string, Kind[]>} marks what peers have, by id
 * @property {Set<string>} stuck the keys of turns
 */

/** @type {readonly Kind[]} The worst first. */
const KINDS = ["relay", "stuck", "flooding", "slow", "refused"];

/**
 * The place of a peer among those in trouble: the worst has the least, and one without any trouble the most.
 *
 * @param {Kind[]} [marks]
 */
export function gravity([worst] = []) {
  return worst === undefined ? KINDS.length : KINDS.indexOf(worst);
}

/**
 * Judge what is known.
 *
 * @param {Model} model
 * @param {number} nowMs by the relay's clock
 * @returns {Verdict}
 */
export function judge(model, nowMs) {
  const { silent, stuck } = stuckTurns(model, nowMs);
  const troubles = [
    ...relayTroubles(model),
    ...silent,
    ...floods(model, nowMs),
    ...[...model.peers.values()].flatMap((seen) => slowReader(model, seen)),
  ];
  troubles.sort(
    (one, other) =>
      KINDS.indexOf(one.kind) - KINDS.indexOf(other.kind) || other.weight - one.weight,
  );
  /** @type {Map<string, Kind[]>} */
  const marks = new Map();
  for (const { kind, peer } of troubles) {
    if (peer !== null) marks.set(peer, [...(marks.get(peer) ?? []), kind]);
  }
  return { troubles, marks, stuck };
}

/**
 * @param {Model} model
 * @param {number} nowMs
 */
function stuckTurns(model, nowMs) {
  /** By peer, or for those of nobody by turn. @type {Map<string, string[]>} */
  const groups = new Map();
  const stuck = new Set();
  for (const [key, turn] of model.turns) {
    if (turn.outcome !== null || nowMs - turn.last_ms <= STUCK_AFTER_S * 1000) continue;
    stuck.add(key);
    const worker = model.workers.get(key);
    const group = worker === undefined ? `turn ${key}` : `peer ${worker}`;
    groups.set(group, [...(groups.get(group) ?? []), key]);
  }
  const silent = [...groups.values()].flatMap((keys) => silence(model, keys, nowMs));
  return { silent, stuck };
}

/**
 * @param {Model} model
 * @param {string[]} keys of stuck turns of one peer
 * @param {number} nowMs
 * @returns {Trouble[]}
 */
function silence(model, keys, nowMs) {
  const turns = keys.flatMap((key) => {
    const turn = model.turns.get(key);
    return turn ? [{ key, turn }] : [];
  });
  turns.sort((one, other) => one.turn.last_ms - other.turn.last_ms);
  const [first] = turns;
  if (!first) return [];
  const { key, turn } = first;
  const peer = model.workers.get(key) ?? null;
  const seconds = (nowMs - turn.last_ms) / 1000;
  const asker = short(turn.asker, 32);
  const others = turns.length > 1 ? `, and on ${turns.length - 1} more` : "";
  const sentence =
    peer === null
      ? `nobody has answered a command of ${asker} for ${short(turn.to ?? "everyone", 32)}: silent for ${duration(seconds)}`
      : `has been silent for ${duration(seconds)} on a command of ${asker}${others}`;
  return [{ kind: "stuck", peer, turn: key, sentence, weight: seconds }];
}

/**
 * @param {Model} model
 * @param {number} nowMs
 * @returns {Trouble[]}
 */
function floods(model, nowMs) {
  const peers = [...model.peers.values()];
  const most = model.bounds?.messages_per_s ?? Infinity;
  const far = farAbove(peers);
  const refused = refusals(model.events, nowMs);
  return peers.flatMap((seen) => {
    const { id } = seen;
    const perS = seen.in.perS;
    /** @type {Map<string, number>} */
    const codes = refused.get(id) ?? new Map();
    const tooFast = codes.get(TOO_FAST) ?? 0;
    const others = [...codes.values()].reduce((sum, count) => sum + count, 0) - tooFast;
    const says = `says ${rate(perS)} messages a second`;
    /** @type {Trouble[]} */
    const found = [];
    const add = (
      /** @type {Kind} */ kind,
      /** @type {string} */ sentence,
      /** @type {number} */ weight,
    ) => found.push({ kind, peer: id, turn: null, sentence, weight });
    if (tooFast > 0) {
      add("flooding", `${says}; ${count(tooFast)} were refused in the last minute`, perS);
    } else if (perS >= NEAR * most) {
      add("flooding", `${says}, of ${rate(most)} that it may`, perS);
    } else if (seen.unasked.perS >= far) {
      add("flooding", `${says}, by far more than the others`, perS);
    }
    if (others >= REFUSED_MIN) {
      const [[code = ""] = []] = [...codes]
        .filter(([code]) => code !== TOO_FAST)
        .sort(([, one], [, other]) => other - one);
      const sentence = `had ${counted(others, "message")} refused in the last minute (${short(code)})`;
      add("refused", sentence, others);
    }
    return found;
  });
}

/**
 * So many a second are far more than what others say.
 *
 * @param {Seen[]} peers
 */
function farAbove(peers) {
  const rates = peers.map(({ unasked }) => unasked.perS).sort((one, other) => one - other);
  // Of few peers the one that says most is none of the others.
  const index = Math.min(Math.floor(rates.length * 0.9), rates.length - 2);
  return Math.max(FAR_PER_S, FAR_TIMES * (rates[index] ?? 0));
}

/**
 * By peer and code: how many messages were refused in the last minute.
 *
 * @param {Happening[]} events
 * @param {number} nowMs
 */
function refusals(events, nowMs) {
  /** @type {Map<string, Map<string, number>>} */
  const found = new Map();
  for (const { at_ms, what, peer, why, count } of events) {
    if (what !== "refused" || peer === null || nowMs - at_ms > RECENT_S * 1000) continue;
    const codes = found.get(peer) ?? new Map();
    found.set(peer, codes);
    codes.set(why ?? "", (codes.get(why ?? "") ?? 0) + (count ?? 1));
  }
  return found;
}

/**
 * @param {Model} model
 * @param {Seen} seen
 * @returns {Trouble[]}
 */
function slowReader(model, seen) {
  const fullness = model.fullness(seen);
  if (fullness < FULL) return [];
  const { queued_messages, queued_bytes } = seen.told;
  const waiting = `${counted(queued_messages, "message")} (${bytes(queued_bytes)})`;
  const sentence = `reads too slowly: ${waiting} wait for it, ${Math.round(100 * fullness)} % of what may`;
  return [{ kind: "slow", peer: seen.id, turn: null, sentence, weight: fullness }];
}

/**
 * @param {Model} model
 * @returns {Trouble[]}
 */
function relayTroubles({ relay }) {
  if (!relay) return [];
  const { is_draining, held_bytes, held_bytes_max, lag_s } = relay;
  const sentences = [];
  if (is_draining) sentences.push("The relay is ending: it takes no more connections.");
  if (held_bytes >= MEMORY_FULL * held_bytes_max) {
    sentences.push(
      `The relay holds ${bytes(held_bytes)}, of ${bytes(held_bytes_max)} that it may.`,
    );
  }
  if (lag_s >= LATE_S) sentences.push(`The relay is ${lag_s.toFixed(1)} s late with everything.`);
  return sentences.map((sentence) => ({
    kind: "relay",
    peer: null,
    turn: null,
    sentence,
    weight: 0,
  }));
}
