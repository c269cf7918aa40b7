/**
 * A peer of an agent mesh, for browsers: it joins over a relay, stays connected, asks and serves.
 *
 *     const peer = await join({ url: "ws://localhost:8080/ws", id: "ann", agents: ["coder"] });
 *     const answer = await peer.ask("planner", "what is next?");
 *
 * This file only says what the module is made of. Its rooms are in src/.
 */

/**
 * @typedef {import("./src/agents.js").Agent} Agent
 * @typedef {import("./src/lifecycle.js").Effect} Effect
 * @typedef {import("./src/lifecycle.js").EventName} EventName
 * @typedef {import("./src/lifecycle.js").Membership} Membership
 * @typedef {import("./src/lifecycle.js").State} State
 * @typedef {import("./src/lifecycle.js").Step} Step
 * @typedef {import("./src/limits.js").Limits} Limits
 * @typedef {import("./src/kinds.js").KnownData} KnownData
 * @typedef {import("./src/messages.js").Json} Json
 * @typedef {import("./src/messages.js").Message} Message
 * @typedef {import("./src/messages.js").RemotePeer} RemotePeer
 * @typedef {import("./src/openings.js").Address} Address
 * @typedef {import("./src/options.js").AskOptions} AskOptions
 * @typedef {import("./src/command.js").Command} Command
 * @typedef {import("./src/options.js").Events} Events
 * @typedef {import("./src/options.js").Fields} Fields
 * @typedef {import("./src/options.js").JoinOptions} JoinOptions
 * @typedef {import("./src/peer.js").Peer} Peer
 * @typedef {import("./src/presign.js").Credentials} Credentials
 * @typedef {import("./src/roster.js").Change} Change
 */

/**
 * @template [Result=Json]
 * @typedef {import("./src/turn.js").Turn<Result>} Turn
 */

export { agentcore, oauth } from "./src/agentcore.js";
export { cognitoCredentials } from "./src/cognito.js";
export {
  AmbiguousTarget,
  AnnouncementRefused,
  AnswerGap,
  BadAddress,
  Gap,
  IdTaken,
  Lagged,
  Left,
  LoginNeeded,
  NoCredentials,
  NotARelay,
  NotConnected,
  NotServed,
  QueueFull,
  Rejected,
  RelayError,
  Replaced,
  TargetLeft,
  TooLarge,
  TurnError,
  TurnFailed,
  TurnRefused,
  TurnTimeout,
  UnknownTarget,
  Unreachable,
} from "./src/errors.js";
export { peerId } from "./src/ids.js";
export { isMessage } from "./src/kinds.js";
export { backoff, begun, deadline, expire, TABLE, transition } from "./src/lifecycle.js";
export { LIMITS, limitsWith } from "./src/limits.js";
export { connect, join } from "./src/peer.js";
export { presign } from "./src/presign.js";
export { sessionId } from "./src/session.js";
