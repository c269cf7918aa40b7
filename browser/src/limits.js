/**
 * Every bound and every duration of one membership, in one place. Names, defaults and relations are
 * those of `MembershipLimits` in protocol/limits.py (but for its threads, which a page does not have).
 *
 * Units are the last part of a name: `S` seconds, `BytesMax` bytes, `Max` a count.
 *
 * @typedef {{ -readonly [Name in keyof typeof LIMITS]: number }} Limits
 */

/** The defaults. */
export const LIMITS = Object.freeze({
  /** For one attempt: URL, opening, announcement. */
  joinWithinS: 20,
  /** The longest wait after the first failure; doubled after each. */
  backoffFirstS: 0.5,
  /** The longest wait between attempts while nobody answers. */
  retryMaxS: 2,
  /** The same while somebody answers, and refuses. */
  backoffMaxS: 30,
  /** For which messages to peers that were here before a loss wait for these to come back. */
  returnWithinS: 8,
  /** For which an opening may stay without an answer before the relay is looked for in another way. */
  hedgeAfterS: 1.5,
  /** The longest time between two such looks; it doubles with each. */
  hedgeMaxS: 4,
  /** Of nothing but errors that no further attempt should mend, once present: then the peer ends. */
  giveUpAfterS: 30,
  /** For which a peer tries again while others have its id. */
  takenForS: 35,
  /** Between heartbeats. */
  heartbeatEveryS: 10,
  /** Silence of the relay after which the connection counts as dead. */
  silentAfterS: 30,
  /** The same when there is doubt. */
  probeWithinS: 5,
  /** Age of a connection at which a new one replaces it. */
  renewAfterS: 3300,
  /** In which the replaced connection may deliver the rest. */
  switchWithinS: 10,
  /** For which the relay is asked to keep a lost connection; 0: it is not asked. */
  resumeS: 20,
  /** Frames sent since the relay was asked last how many it has taken. */
  unreportedFramesMax: 64,
  /** The shortest time between two such questions, unless half of what follows has gone out. */
  reportEveryS: 0.1,
  /** Frames sent that the relay has not said it has taken. */
  unconfirmedFramesMax: 1024,
  /** Bytes of the same. */
  unconfirmedBytesMax: 2 ** 22,
  /** Messages that wait to be sent. */
  queueMessagesMax: 1000,
  /** Bytes of the same. */
  queueBytesMax: 2 ** 22,
  /** Messages that arrived and were not read. */
  unreadMessagesMax: 10_000,
  /** Bytes that the same cost in memory, about (64 for each value in them), with the chunks that wait
   * in turns; what waits for a connection to replace another, or to be served, and what is being
   * served may cost as much each. */
  unreadBytesMax: 2 ** 26,
  /** Bytes that a frame may cost in memory, about, once it is read. */
  readBytesMax: 2 ** 26,
  /** Depth of arrays and objects in a message that arrives. */
  nestingMax: 256,
  /** Peers in the roster. */
  peersMax: 20_000,
  /** Bytes that their presences cost in memory, about. */
  rosterBytesMax: 2 ** 28,
  /** Commands given that are not over yet. */
  asksMax: 10_000,
  /** Commands that are served at a time. */
  turnsMax: 256,
  /** Commands that wait in one `serve` for others of it to end (`atATime`). */
  serviceQueueMax: 64,
  /** For which a command waits that nobody serves. */
  serveWithinS: 20,
  /** Silence of an agent that works on a command, after which its peer says another `ack`. */
  ackEveryS: 10,
  /** For which an asker may be offline before what it has asked is cancelled. */
  askerBackWithinS: 6,
  /** To send what is queued when leaving. */
  leaveWithinS: 5,
});

/** Bounds of a relay, until it tells its own: the defaults of `Limits` in protocol/limits.py. */
export const RELAY_LIMITS = Object.freeze({
  messageBytesMax: 2 ** 20,
  messagesPerS: 1000,
  messagesBurst: 2000,
  frameBytesMax: 32_000,
  idCharsMax: 256,
  wishNamesMax: 64,
});

/** @type {[keyof Limits, keyof Limits][]} */
const ASCENDING = [
  ["heartbeatEveryS", "silentAfterS"],
  ["probeWithinS", "silentAfterS"],
  ["joinWithinS", "renewAfterS"],
  ["hedgeAfterS", "hedgeMaxS"],
];

/** @param {string} name */
function leastOf(name) {
  if (name.endsWith("BytesMax")) return 1024;
  if (name.endsWith("Max")) return 1;
  return /^(backoff|re(try|turn|sume|port)|giveUp|taken|serve|asker|leave)/.test(name) ? 0 : 0.01;
}

/**
 * The default limits with some changed. Throws RangeError for a name that does not exist, a value
 * that is out of bounds, and values that contradict one another.
 *
 * @param {Partial<Limits>} [changes]
 * @returns {Readonly<Limits>}
 */
export function limitsWith(changes = {}) {
  for (const [name, value] of Object.entries(changes)) {
    if (!Object.hasOwn(LIMITS, name)) throw new RangeError(`there is no limit called ${name}`);
    const least = leastOf(name);
    const isRight = typeof value === "number" && value >= least && value <= 2 ** 53;
    if (!isRight || (name.endsWith("Max") && !Number.isInteger(value))) {
      throw new RangeError(`${name} must be a number from ${least}`);
    }
  }
  const limits = { ...LIMITS, ...changes };
  for (const [small, large] of ASCENDING) {
    if (!(limits[small] < limits[large])) {
      throw new RangeError(
        `${small} (${limits[small]}) must be less than ${large} (${limits[large]})`,
      );
    }
  }
  return Object.freeze(limits);
}
