/** What users say to a peer beside the message itself, and what it tells them: types only. */

/**
 * @import { Agent } from "./agents.js"
 * @import { MaybeCalled } from "./cognito.js"
 * @import { Gap, RelayError } from "./errors.js"
 * @import { State } from "./lifecycle.js"
 * @import { Limits } from "./limits.js"
 * @import { Message } from "./messages.js"
 * @import { Address } from "./openings.js"
 * @import { Change } from "./roster.js"
 */

/**
 * Fields of a message beside those that a method sets itself.
 *
 * @typedef {Record<string, unknown>} Fields
 */

/**
 * What is wanted of what others say to everyone: true: everything; false: nothing; or some of it.
 * `others`: false: not what is for somebody else. `topics`: of messages with a `topic`, those that one of
 * these patterns matches (`*` at the end stands for anything). `types`: messages of these types.
 *
 * @typedef {boolean | { others?: boolean | null, topics?: readonly string[] | null,
 *   types?: readonly string[] | null }} Subscribe
 */

/**
 * @typedef {object} JoinOptions
 * @property {string | URL | (() => Address | Promise<Address>)} url where the relay is; a function is
 *   called anew for every connection
 * @property {string} id the peer's id, the same over all its connections; see `peerId`
 * @property {readonly Agent[]} [agents]
 * @property {Record<string, unknown>} [metadata] what the presence says beside the agents
 * @property {"wait" | "fail"} [offline] what is sent while there is no connection waits in a bounded
 *   queue (the default), or fails
 * @property {Partial<Limits>} [limits]
 * @property {number} [withinS] how long the first joining may take, in seconds: 40 by default,
 *   Infinity to wait for ever
 * @property {number} [history] so many of the last messages that went to everyone before are wanted, too:
 *   these are `isOld`, and all there when it has joined
 * @property {Subscribe | null} [subscribe] what is wanted of what others say to everyone: by default
 *   everything; false: nothing, as for a page that only asks and serves
 * @property {string} [owner] the secret by which the id is this page's, 16 to 256 characters; tabs and
 *   programs that share it share the id. By default that of an id from `peerId`, else a random one
 * @property {boolean} [takeover] end whoever has the id with the same owner
 * @property {MaybeCalled<string>} [token] for the relay; a function is asked for every connection
 * @property {number} [joinTimeoutS] the old name of `withinS` (deprecated)
 * @property {"pong" | null} [keepalive] `"pong"` (the default): answers to the relay's pings are
 *   signs of life; null: only messages
 * @property {boolean} [worker] false: the page's policy forbids workers of `blob:`, so none is tried;
 *   see docs/page.md
 */

/**
 * @typedef {object} AskOptions
 * @property {number} [timeoutS] the longest silence of the agent, in seconds; 60 by default
 * @property {string} [peer] the peer that is meant, where several have the agent
 * @property {boolean} [any] it may be any of those that have the agent: one with the fewest commands of
 *   this peer, and another one, once, if that one leaves or does not take it
 * @property {AbortSignal} [signal] abandons the turn when it is aborted; its reason is the `cause` of the
 *   TurnError
 * @property {Fields} [fields] further fields of the message; `answers: "all"` has it answered for all to
 *   read
 */

/**
 * What a peer tells those who listen (`Peer.on`), by the names of the events.
 *
 * @typedef {object} Events
 * @property {State} state where the membership is in its life now
 * @property {Change} roster who has come, changed and gone
 * @property {Message} message every message that arrives
 * @property {Gap} gap messages may be missing before those that arrive from now on, because the
 *   connection was lost
 * @property {{ seconds: number }} resumed the connection was cut, and goes on: nothing is missing, and
 *   nothing was heard for so long
 * @property {Message} twice somebody else is in the mesh with the id of this peer, and not with its
 *   `owner`: what it announced. Told once
 * @property {RelayError | null} ended the peer is over: null after `leave()`, else the error
 */

export {};
