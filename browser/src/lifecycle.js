/**
 * The life of a membership, on the peer's own side. The twin of protocol/member/lifecycle.py.
 *
 * Seven states, ten events, and what to do in every cell: the state afterwards, and an action. At any
 * time there are at most two connections, the one in use and the next one. Why an overlap loses and
 * repeats nothing: all connections of a mesh see one same order of messages, in which the presence
 * that the next one announces is a mark. The one in use is read up to the mark, the next one from
 * the mark on.
 *
 * Nothing here reads a clock or throws dice: an event carries the time (`at`, seconds of any
 * monotonic clock) and, where a backoff may follow, a `chance` from 0 up to 1.
 *
 * @import { Limits } from "./limits.js"
 */

/** @typedef {"waiting" | "joining" | "present" | "renewing" | "switching"
 *   | "suspended" | "ended"} State */

/**
 * @typedef {"Joined" | "Failed" | "Heard" | "Marked" | "Lost" | "Silent" | "Elapsed" | "Nudged"
 *   | "Suspended" | "Ended"} EventName
 */

/**
 * What is to be done: `open` a connection (the next one), `adopt` the next one as the one in use,
 * `discard` the next one, `drop` the one in use, `probe` it for a sign of life.
 *
 * @typedef {"open" | "adopt" | "discard" | "drop" | "probe"} Effect
 */

/**
 * What happened.
 *
 * @typedef {object} Event
 * @property {EventName} name
 * @property {number} at monotonic time (seconds)
 * @property {number} chance for a backoff that may follow
 * @property {number} [until] when that is over at the latest
 * @property {boolean} [isRefusal] it happened because somebody there said no
 */

/**
 * Where a membership is in its life. Times are seconds of the events' clock.
 *
 * @typedef {object} Membership
 * @property {State} state
 * @property {number | null} due when the state runs out by itself; null if never
 * @property {number} heard when something last came on the connection in use
 * @property {number | null} doubted since when there is doubt that it is alive; null: there is none
 * @property {number} attempts how many have failed in a row because nobody answered
 * @property {number} refusals or because somebody refused; one of the two is 0
 * @property {number} joined when the connection in use was joined
 */

/**
 * The record after a transition, and the effects to carry out, in order.
 *
 * @typedef {object} Step
 * @property {Membership} membership
 * @property {Effect[]} effects
 */

/**
 * From the old record to the new one, whose state the table sets, and the effects.
 *
 * @typedef {(old: Membership, event: Event, limits: Readonly<Limits>) => [Membership, ...Effect[]]}
 *   Action
 */

/** @typedef {keyof typeof ACTIONS} ActionName */

/** @type {EventName[]} */
const EVENTS = [
  "Joined",
  "Failed",
  "Heard",
  "Marked",
  "Lost",
  "Silent",
  "Elapsed",
  "Nudged",
  "Suspended",
  "Ended",
];

/** What happens next, for every state and event: the state afterwards, and the action. */
export const TABLE = Object.freeze({
  waiting: whole("waiting", {
    Elapsed: ["joining", "attempt"],
    Nudged: ["joining", "attempt"],
    Suspended: ["suspended", "suspend"],
    Ended: ["ended", "finish"],
  }),
  joining: whole("joining", {
    Joined: ["present", "enter"],
    Failed: ["waiting", "back_off"],
    Elapsed: ["waiting", "back_off"],
    Nudged: ["joining", "ignored"], // It is being made already.
    Suspended: ["suspended", "suspend"],
    Ended: ["ended", "finish"],
  }),
  present: whole("present", {
    Heard: ["present", "touch"],
    Lost: ["waiting", "back_off"],
    Silent: ["waiting", "back_off"],
    Elapsed: ["renewing", "attempt"],
    Nudged: ["present", "doubt"],
    Suspended: ["suspended", "suspend"],
    Ended: ["ended", "finish"],
  }),
  renewing: whole("renewing", {
    Joined: ["switching", "switch"],
    Failed: ["present", "postpone"],
    Heard: ["renewing", "touch"],
    Marked: ["present", "replace"], // The mark overtook the next one's own copy of it.
    Lost: ["joining", "carry_on"],
    Silent: ["joining", "carry_on"],
    Elapsed: ["present", "postpone"],
    Nudged: ["renewing", "doubt"],
    Suspended: ["suspended", "suspend"],
    Ended: ["ended", "finish"],
  }),
  switching: whole("switching", {
    Failed: ["present", "postpone"],
    Heard: ["switching", "touch"],
    Marked: ["present", "replace"],
    Lost: ["present", "replace"],
    Silent: ["present", "replace"],
    Elapsed: ["present", "replace"],
    Nudged: ["switching", "ignored"], // A fresh connection is there already.
    Suspended: ["suspended", "suspend"],
    Ended: ["ended", "finish"],
  }),
  suspended: whole("suspended", {
    Nudged: ["joining", "attempt"],
    Suspended: ["suspended", "ignored"],
    Ended: ["ended", "finish"],
  }),
  ended: whole("ended", {
    Nudged: ["ended", "ignored"],
    Suspended: ["ended", "ignored"],
    Ended: ["ended", "ignored"],
  }),
});

/**
 * What is not in a row cannot happen in that state.
 *
 * @param {State} state
 * @param {Partial<Record<EventName, [State, ActionName]>>} row
 * @returns {Readonly<Record<EventName, [State, ActionName]>>}
 */
function whole(state, row) {
  const cells = EVENTS.map((name) => [name, row[name] ?? [state, "impossible"]]);
  return Object.freeze(Object.fromEntries(cells));
}

const ACTIONS = {
  /** Legal, and without meaning here. @type {Action} */
  ignored: (old) => [old],

  /** Cannot happen: the connection that it is about does not exist in this state. @type {Action} */
  impossible: (old, { name }) => {
    throw new Error(`${name} in state ${old.state}: a bug`);
  },

  /** Make a connection. @type {Action} */
  attempt: (old, { at }, limits) => [{ ...old, due: at + limits.joinWithinS }, "open"],

  /** The connection that was made is the one in use. (How many attempts have failed is forgotten only
   * when it has lasted, so that one which is always lost at once is not made ever faster.)
   * @type {Action} */
  enter: (old, { at }, limits) => [inUseFrom(old, at, limits), "adopt"],

  /** Read the old one up to the mark. @type {Action} */
  switch: (old, { at }, limits) => [{ ...old, due: at + limits.switchWithinS }],

  /** The old one has delivered all that was its own to deliver, or can deliver no more.
   * @type {Action} */
  replace: (old, { at }, limits) => [inUseFrom(old, at, limits), "drop", "adopt"],

  /** No connection is left: try again, later after every failure. Where nobody answers, it is never
   * much later, because whoever comes back expects to find everyone. @type {Action} */
  back_off: (old, { at, chance, until = Infinity, isRefusal }, limits) => {
    let attempts = isRefusal ? 0 : old.attempts + 1;
    let refusals = isRefusal ? old.refusals + 1 : 0;
    if (old.state !== "joining") {
      const lastedS = at - old.joined; // What was before a healthy connection is forgotten.
      if (lastedS > limits.retryMaxS) attempts = Math.min(attempts, 1);
      if (lastedS > limits.backoffMaxS) refusals = Math.min(refusals, 1);
    }
    const waitMaxS = isRefusal ? limits.backoffMaxS : limits.retryMaxS;
    const waitS = backoff(attempts + refusals - 1, chance, waitMaxS, limits);
    const after = { ...begun(Math.min(at + waitS, until)), attempts, refusals };
    return [after, old.state === "joining" ? "discard" : "drop"];
  },

  /** The replacement was not made; the one in use still is, so there is no hurry. Try again later.
   * @type {Action} */
  postpone: (old, { at, chance }, limits) => {
    const due = at + backoff(old.attempts, chance, limits.backoffMaxS, limits);
    return [{ ...old, due, attempts: old.attempts + 1, refusals: 0 }, "discard"];
  },

  /** The one in use is lost, but the next is on its way already; its time goes on. @type {Action} */
  carry_on: (old) => [{ ...old, doubted: null }, "drop"],

  /** A sign of life. @type {Action} */
  touch: (old, { at }) => [{ ...old, heard: Math.max(old.heard, at), doubted: null }],

  /** Ask for a sign of life, and wait only briefly for it; not again while it is waited for.
   * @type {Action} */
  doubt: (old, { at }) => (old.doubted === null ? [{ ...old, doubted: at }, "probe"] : [old]),

  /** Close whatever is open, and wait for a nudge. @type {Action} */
  suspend: () => [begun(null), "discard", "drop"],

  /** Close whatever is open. @type {Action} */
  finish: () => [begun(null), "discard", "drop"],
};

/**
 * @param {Membership} old
 * @param {number} at
 * @param {Readonly<Limits>} limits
 * @returns {Membership}
 */
function inUseFrom(old, at, limits) {
  const { attempts, refusals } = old;
  return { ...begun(at + limits.renewAfterS), heard: at, attempts, refusals, joined: at };
}

/**
 * Seconds to wait after so many failures before this one: doubled each time up to `waitMaxS`, then
 * spread evenly from nothing to that, so that a thousand peers do not come back as one.
 *
 * @param {number} attempts
 * @param {number} chance
 * @param {number} waitMaxS
 * @param {Readonly<Limits>} limits
 */
export function backoff(attempts, chance, waitMaxS, limits) {
  const grownS = limits.backoffFirstS * 2 ** Math.min(attempts, 64);
  return chance * Math.min(waitMaxS, limits.backoffMaxS, grownS);
}

/**
 * The record of a peer that wants to join at once, at monotonic time `at` (seconds).
 *
 * @param {number | null} at
 * @returns {Membership}
 */
export function begun(at) {
  const none = { heard: 0, doubted: null, attempts: 0, refusals: 0, joined: 0 };
  return { state: "waiting", due: at, ...none };
}

/**
 * The one way from a record to the next. An impossible event throws and changes nothing.
 *
 * @param {Membership} old
 * @param {Event} event
 * @param {Readonly<Limits>} limits
 * @returns {Step}
 */
export function transition(old, event, limits) {
  const [state, action] = TABLE[old.state][event.name];
  const [membership, ...effects] = ACTIONS[action](old, event, limits);
  return { membership: { ...membership, state }, effects };
}

/**
 * The record of a connection that may not be used for long: it is replaced at `at`, if not sooner.
 * Without a connection, or if it is being replaced already, nothing changes.
 *
 * @param {Membership} membership
 * @param {number} at
 * @returns {Membership}
 */
export function renewedBy(membership, at) {
  const { state, due } = membership;
  return state === "present" && due !== null && at < due ? { ...membership, due: at } : membership;
}

/**
 * The record of a connection that cannot be replaced while it is in use, and should be at `at`: it is in
 * use until it is lost.
 *
 * @param {Membership} membership
 * @param {number} at
 * @returns {Membership}
 */
export function kept(membership, at) {
  const { state, due } = membership;
  return state === "present" && due !== null && due <= at
    ? { ...membership, due: null }
    : membership;
}

/**
 * There is a connection in use.
 *
 * @param {Membership} membership
 */
export function isInUse({ state }) {
  return state === "present" || state === "renewing" || state === "switching";
}

/**
 * When the connection in use counts as dead if nothing is heard; null if there is none.
 *
 * @param {Membership} membership
 * @param {Readonly<Limits>} limits
 */
export function silentAt(membership, limits) {
  if (!isInUse(membership)) return null;
  const { heard, doubted } = membership;
  return doubted === null ? heard + limits.silentAfterS : doubted + limits.probeWithinS;
}

/**
 * When (monotonic seconds) something happens by itself; null if nothing ever does.
 *
 * @param {Membership} membership
 * @param {Readonly<Limits>} limits
 * @returns {number | null}
 */
export function deadline(membership, limits) {
  const { due } = membership;
  const silent = silentAt(membership, limits);
  return due === null || silent === null ? (due ?? silent) : Math.min(due, silent);
}

/**
 * The transition whose deadline is at or before `at`, if there is one.
 *
 * One at a time, at the time it is noticed: a page that slept for an hour has lost its connection
 * once, and has not made a hundred attempts meanwhile. A silence that is noticed too late may be the
 * page's own, which did not listen: that is reason for doubt first.
 *
 * @param {Membership} old
 * @param {number} at
 * @param {number} chance
 * @param {Readonly<Limits>} limits
 * @returns {Step}
 */
export function expire(old, at, chance, limits) {
  const silent = silentAt(old, limits);
  if (silent !== null && silent <= at) {
    const late = at - silent > limits.probeWithinS;
    const doubtful = late && old.doubted === null && old.state !== "switching";
    return transition(old, { name: doubtful ? "Nudged" : "Silent", at, chance }, limits);
  }
  if (old.due !== null && old.due <= at) {
    return transition(old, { name: "Elapsed", at, chance }, limits);
  }
  return { membership: old, effects: [] };
}
