/**
 * What a peer must do, and tell its program: everything that `Member` can answer an event with. The
 * twin of protocol/member/effects.py. Every effect is a name and plain fields.
 *
 * @import { Gap, RelayError } from "./errors.js"
 * @import { Message } from "./messages.js"
 */

/**
 * A moment: `at` in seconds of a monotonic clock, `wallMs` in milliseconds since 1970.
 *
 * @typedef {object} Instant
 * @property {number} at
 * @property {number} wallMs
 */

// For the connections

/**
 * Make a connection with this number; report `opened`, `closed` or `failed`.
 *
 * @typedef {{ effect: "Open", connection: number }} Open
 */

/**
 * Send this text at once, before anything that waits in the queue.
 *
 * @typedef {{ effect: "Transmit", connection: number, text: string }} Transmit
 */

/**
 * Close the connection. Nothing that it still reports matters.
 *
 * @typedef {{ effect: "Close", connection: number }} Close
 */

/**
 * Close the connection, and nothing that it still reports matters. The relay must not take that for
 * leaving: the close code is `DROP_CODE`, if one can be sent.
 *
 * @typedef {{ effect: "Drop", connection: number }} Drop
 */

/** The close code of a socket whose connection goes on over another one (any but 1000, 1001 and 1005
 * would do: rule 19). */
export const DROP_CODE = 4000;

/**
 * Something may be sent that could not be sent before: ask `nextFrame` again.
 *
 * @typedef {{ effect: "Sendable" }} Sendable
 */

// For the program

/**
 * A message for the program, which costs about `size` bytes (incoming.js).
 *
 * @typedef {{ effect: "Arrived", message: Message, size: number }} Arrived
 */

/**
 * Messages may be missing before those that arrive from now on: `error` says why.
 *
 * @typedef {{ effect: "Missed", error: Gap }} Missed
 */

/**
 * The connection was lost, and has come back `seconds` after something was heard there last. Nothing is
 * missing: what was missed arrives from now on, and then what is new.
 *
 * @typedef {{ effect: "Resumed", seconds: number }} Resumed
 */

/**
 * `state` or `roster` is not what it was.
 *
 * @typedef {{ effect: "Changed" }} Changed
 */

/**
 * The peer has joined for the first time, and the roster is as complete as it will be.
 *
 * @typedef {{ effect: "Ready" }} Ready
 */

/**
 * A connection could not be made, because of `error`. Another one will be tried. `news`: the program
 * should hear of it, because the same was not told since it was present last.
 *
 * @typedef {{ effect: "AttemptFailed", error: RelayError, news: boolean }} AttemptFailed
 */

/**
 * The relay has taken the announcement with this number, or refused it with `error`.
 *
 * @typedef {{ effect: "Announced", number: number, error: RelayError | null }} Announced
 */

/**
 * A queued message will not be sent, because the connection was lost.
 *
 * @typedef {{ effect: "Unsent", ticket: number, error: RelayError }} Unsent
 */

/**
 * A piece of the answer to the command `turn`.
 *
 * @typedef {{ effect: "Chunk", turn: string, text: string, size: number }} Chunk
 */

/**
 * The command `turn` has its `result`, or failed with `error`. Nothing more comes of it.
 *
 * @typedef {{ effect: "TurnEnded", turn: string, error: RelayError | null, result: any }} TurnEnded
 */

/**
 * Give this command to the handler of `service`. Report `finish` or `fail` of `command`. `agent`: the
 * one of this peer's agents that is asked, or the peer's own id.
 *
 * @typedef {{ effect: "Handle", service: number, command: number, agent: string, message: Message }}
 *   Handle
 */

/**
 * Nobody waits for this command any more, which the handler of `service` has: it may stop.
 *
 * @typedef {{ effect: "Cancelled", service: number, command: number }} Cancelled
 */

/**
 * This connection has taken the command `turn` for `agent`: the other connections of the peer need not,
 * and are to be told (`taken`).
 *
 * @typedef {{ effect: "Taken", turn: string, agent: string }} Taken
 */

/**
 * Somebody else is in the mesh with the peer's id, and has announced this. Told once.
 *
 * @typedef {{ effect: "PresentTwice", presence: Message }} PresentTwice
 */

/**
 * Something that the relay sent was not taken: `what` it was, and what bounds it. Told once for each
 * bound and connection.
 *
 * @typedef {{ effect: "Ignored", what: string }} Ignored
 */

/**
 * The relay does not take what the program wants (`error`): others want too many different things. It
 * sends everything, and the program still gets only what it wants.
 *
 * @typedef {{ effect: "WishRefused", error: RelayError }} WishRefused
 */

/**
 * The peer is over. `error` says why; null: it has left.
 *
 * @typedef {{ effect: "Finished", error: RelayError | null }} Finished
 */

/**
 * @typedef {Open | Transmit | Close | Drop | Sendable | Arrived | Missed | Resumed | Changed | Ready
 *   | AttemptFailed | Announced | Unsent | Chunk | TurnEnded | Handle | Taken | Cancelled | PresentTwice | Ignored
 *   | WishRefused | Finished} Effect
 */
