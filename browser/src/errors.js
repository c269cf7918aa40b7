/**
 * Every way in which a peer's membership or one of its turns can fail, and what its user can do.
 *
 * All are `RelayError`s. Their sentences never hold tokens, signatures, query strings or message
 * contents. The twin of protocol/member/errors.py.
 *
 * @import { Message } from "./messages.js"
 */

/** What can go wrong between a peer and the mesh. */
export class RelayError extends Error {
  name = "RelayError";
  /** Trying again may help, and the peer does so by itself. All others end an attempt to join, and
   * a peer that was present once after `giveUpAfterS` of nothing else. */
  isTransient = false;
}

// Coming in

/** No connection came about. */
export class Unreachable extends RelayError {
  name = "Unreachable";
  isTransient = true;
}

/** What answered does not speak the protocol of agent meshes. */
export class NotARelay extends RelayError {
  name = "NotARelay";
}

/** Codes of the relay that are not about the presence itself: others may go meanwhile. */
const TRANSIENT = ["rate_limited", "no_room", "too_many_connections"];

/** The relay did not accept the presence. `code` as in docs/protocol.md. It is transient if the
 * presence itself is not to blame. */
export class AnnouncementRefused extends RelayError {
  name = "AnnouncementRefused";
  /**
   * @param {string} code
   * @param {string} sentence
   */
  constructor(code, sentence) {
    super(`the relay refused the announcement (${code}): ${sentence}`);
    this.code = code;
    this.isTransient = TRANSIENT.includes(code);
  }
}

/** Another program has this id in the mesh, and another `owner`. The peer has tried again for
 * `takenForS`: it was not its own last connection. */
export class IdTaken extends RelayError {
  name = "IdTaken";
  constructor() {
    super(
      "another program has this id in the mesh; join under another id, or give both the same `owner`",
    );
  }
}

/** Another program with the same `owner` has taken over this id (`takeover`). */
export class Replaced extends RelayError {
  name = "Replaced";
  constructor() {
    super("another program with the same `owner` has taken over this id");
  }
}

/** Somebody answers the opening, and not with a WebSocket. `status`: the HTTP status, null where the
 * browser hides it. The message says what it means (reasons.js). */
export class Rejected extends RelayError {
  name = "Rejected";
  /**
   * @param {string} message
   * @param {number | null} [status]
   * @param {{ isTransient?: boolean }} [how] by default what passes is transient, and a hidden status
   */
  constructor(message, status = null, how) {
    super(message);
    this.status = status;
    const passes = status === null || PASSING.includes(status) || status >= 500;
    this.isTransient = how?.isTransient ?? passes;
  }
}

/** Of HTTP, beside those of a server that fails. */
const PASSING = [408, 409, 424, 425, 426, 429];

/** The URL, ARN, region, mesh name or identity pool cannot be right. */
export class BadAddress extends RelayError {
  name = "BadAddress";
}

/** There are no credentials to sign with, or they have expired. */
export class NoCredentials extends RelayError {
  name = "NoCredentials";
}

/** The token has expired or was not accepted: the user must log in again. */
export class LoginNeeded extends NoCredentials {
  name = "LoginNeeded";
}

// Sending and receiving

/** There is no connection now, and the peer was told not to wait for one. */
export class NotConnected extends RelayError {
  name = "NotConnected";
}

/** More waits to be sent than the peer may hold. */
export class QueueFull extends RelayError {
  name = "QueueFull";
}

/** The relay would drop a message of this size. */
export class TooLarge extends RelayError {
  name = "TooLarge";
}

/** Messages were not read in time, and the `count` oldest were dropped. Iterate again: what came
 * after them is still there. */
export class Lagged extends RelayError {
  name = "Lagged";
  /** @param {number} count */
  constructor(count) {
    super(`${count} messages were dropped unread; read faster, or all the time`);
    this.count = count;
  }
}

/** Messages may be missing here, because a connection was lost and could not come back: the peer heard
 * nothing for the `seconds` until the next one had joined.
 *
 * `inDoubt`: what the program has sent of which nobody knows whether it has arrived, in order. It is
 * not sent again. `reason`: why the connection has not come back, as in rule 19 of docs/protocol.md
 * (`epoch`, `unknown`, `history`, `count`, `grant`), or a word of this module: `window` (it took too
 * long), `unsupported` (the relay cannot do that, so it does not say what has arrived, and `inDoubt` is
 * empty), `unanswered` (it was lost before the relay had agreed), `uncounted` or `broken` (what the relay
 * sent cannot be right); null if it was not asked for.
 *
 * Iterate again: what came after it is still there. */
export class Gap extends RelayError {
  name = "Gap";
  /**
   * @param {number} seconds
   * @param {string | null} [reason]
   * @param {readonly Message[]} [inDoubt]
   */
  constructor(seconds, reason = null, inDoubt = []) {
    const lost = `what was said in the ${Math.ceil(seconds)} s until this peer was back may be missing`;
    const doubt = `, and ${inDoubt.length} messages that it had sent may not have arrived`;
    super(`the connection was lost; ${lost}${inDoubt.length > 0 ? doubt : ""}`);
    this.seconds = seconds;
    this.reason = reason;
    this.inDoubt = inDoubt;
  }
}

/** The peer has left the mesh. */
export class Left extends RelayError {
  name = "Left";
  constructor() {
    super("this peer has left the mesh; join again");
  }
}

// Turns

/** A command got no result. */
export class TurnError extends RelayError {
  name = "TurnError";
  /** What had come of the answer by then. @type {readonly string[]} */
  chunks = [];
}

/** The agent gave no sign of life in time. It is told to stop. */
export class TurnTimeout extends TurnError {
  name = "TurnTimeout";
}

/** The agent answered with an error, whose sentence this is. */
export class TurnFailed extends TurnError {
  name = "TurnFailed";
}

/** Chunks of the answer were lost, came twice, or out of order, or its end came while this peer was away.
 * `result`: what the agent gave at the end, if only that showed that something is missing. */
export class AnswerGap extends TurnError {
  name = "AnswerGap";
  /**
   * @param {string} sentence
   * @param {unknown} [result]
   */
  constructor(sentence, result = null) {
    super(sentence);
    this.result = result;
  }
}

/** The peer has this agent, but its program does not serve it. */
export class NotServed extends TurnError {
  name = "NotServed";
}

/** No peer of the mesh has this agent, or the peer that was asked does not. */
export class UnknownTarget extends TurnError {
  name = "UnknownTarget";
}

/** Several peers have this agent. Say which one is meant (option `peer`), or use `any`. */
export class AmbiguousTarget extends TurnError {
  name = "AmbiguousTarget";
  /**
   * @param {string} sentence
   * @param {readonly string[]} peers the ids of those that have it
   */
  constructor(sentence, peers) {
    super(sentence);
    this.peers = peers;
  }
}

/** The peer that was asked left before it answered. */
export class TargetLeft extends TurnError {
  name = "TargetLeft";
}

/** The relay did not pass the command on. `code` as in docs/protocol.md. */
export class TurnRefused extends TurnError {
  name = "TurnRefused";
  /**
   * @param {string} code
   * @param {string} sentence
   */
  constructor(code, sentence) {
    super(`${sentence} (${code})`);
    this.code = code;
  }
}
