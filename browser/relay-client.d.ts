/** A peer of an agent mesh, for browsers. What each does is told in README.md beside this file. */

// Coming in ----------------------------------------------------------------------------------------

/** A URL, or one with the subprotocols to offer. */
export type Address = string | { url: string; protocols?: string[] };

/** An agent as it is announced: its id, or an object that has one. */
export type Agent =
  | string
  | { agentId: string; [more: string]: unknown }
  | { id: string; [more: string]: unknown }
  | { name: string; [more: string]: unknown };

export interface JoinOptions {
  /** Where the relay is. A function is called anew for every connection. */
  url: string | (() => Address | Promise<Address>);
  /** The peer's id, the same over all its connections. See `peerId`. */
  id: string;
  agents?: Agent[];
  /** What the presence says beside the agents. */
  metadata?: Record<string, unknown>;
  /** What is sent while there is no connection waits in a bounded queue (the default), or fails. */
  offline?: "wait" | "fail";
  limits?: Partial<Limits>;
  /** How long the first joining may take; 30 by default, Infinity to wait for ever. */
  joinTimeoutS?: number;
  /** `"pong"` (the default): answers to the relay's pings are signs of life. null: only messages. */
  keepalive?: "pong" | null;
}

/** Resolves once the peer is in the mesh and knows who else is. Rejects with a RelayError. */
export function join(options: JoinOptions): Promise<Peer>;

export type State = "waiting" | "joining" | "present" | "renewing" | "switching" | "ended";

/** Fields of a message beside those that a method sets itself. */
export type Fields = Record<string, unknown>;

export interface Message {
  readonly type: string;
  /** The peer, or one of its agents, that sent it. */
  readonly from?: string;
  readonly to?: string;
  readonly data?: any;
  readonly turnId?: string;
  /** The peer that it came from. The relay guarantees it. */
  readonly origin?: string;
  readonly timestamp?: number;
  /** All of it. */
  readonly fields: Readonly<Record<string, any>>;
}

export interface RemotePeer {
  readonly id: string;
  /** The ids of its agents. */
  readonly agents: readonly string[];
  /** What it announced. */
  readonly data: Readonly<Record<string, any>>;
}

export interface Change {
  joined: RemotePeer[];
  updated: RemotePeer[];
  left: RemotePeer[];
  /** Who is here after it. */
  here: Map<string, RemotePeer>;
}

/** Iterate over it for every message that arrives. A reader that is too slow gets a `Lagged`. */
export interface Peer extends AsyncIterable<Message> {
  readonly id: string;
  readonly state: State;
  /** Who else is here: a copy. While there is no connection, who was. */
  readonly roster: Map<string, RemotePeer>;
  /** Resolves when this is over: to null after `leave()`, else to the error. */
  readonly ended: Promise<RelayError | null>;
  /** Who is here (as joined), and from then on who comes, changes and goes. */
  changes(): AsyncIterableIterator<Change>;

  /** Sends a message of any type but presence, heartbeat and capabilities. Resolves when it is handed
   * to the socket; rejects with QueueFull if too much waits already. */
  send(type: string, fields?: Fields): Promise<void>;
  broadcast(data: unknown, fields?: Fields): Promise<void>;
  direct(to: string, data: unknown, fields?: Fields): Promise<void>;
  ack(turnId: string, fields?: Fields): Promise<void>;
  stream(turnId: string, chunk: string, chunkNum: number, fields?: Fields): Promise<void>;
  turnEnd(turnId: string, result: unknown, fields?: Fields): Promise<void>;
  error(turnId: string, sentence: string, fields?: Fields): Promise<void>;
  /** Changes what this peer says about itself. Resolves when the relay has taken it. Rejects with
   * TypeError (no JSON), TooLarge or AnnouncementRefused: then the peer goes on as what it was. */
  announce(changes: { agents?: Agent[]; metadata?: Record<string, unknown> }): Promise<void>;

  /** Gives a command to an agent, or to a peer itself. Throws TypeError for null and undefined. */
  ask(agent: string, command: {}, options?: AskOptions): Turn;
  /** Answers commands, also those that came up to `serveWithinS` before. `agents`: those served (the
   * peer's id for commands to the peer itself); by default all, and those for agents that are not
   * here get an error. Returns how to stop. */
  serve(handler: (command: Command) => unknown, options?: { agents?: string[] }): () => void;

  /** There is reason to look now whether the connection is alive, or to try again. */
  nudge(): void;
  /** Sends what is queued, if need be after a reconnection, within `leaveWithinS`; closes, and ends
   * everything that is under way. */
  leave(): Promise<void>;
}

export interface AskOptions {
  /** The longest silence of the agent, in seconds; 60 by default. */
  timeoutS?: number;
  /** The peer that is meant, where several have the agent. */
  peer?: string;
  fields?: Fields;
}

/** Iterate over it for the chunks of the answer. */
export interface Turn extends AsyncIterable<string> {
  readonly turnId: string;
  /** What the agent returned. */
  result(): Promise<any>;
}

export interface Command {
  readonly text: string;
  /** Who is answered: the peer or agent that asked. */
  readonly from: string;
  /** The peer that asked. */
  readonly origin: string;
  /** Which agent is asked. */
  readonly agent: string;
  readonly turnId: string;
  readonly data: any;
  /** Sends a piece of the answer. */
  stream(chunk: string): Promise<void>;
}

// Names and AWS ------------------------------------------------------------------------------------

/** A peer id that stays the same over reloads, for all tabs of this origin or for each. */
export function peerId(kind: "shared" | "tab", name?: string): Promise<string>;

/** The AgentCore session id of a mesh. Peers meet only if they connect with the same one. */
export function sessionId(mesh: string, secret?: string): Promise<string>;

export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
}

type MaybeCalled<T> = T | (() => T | Promise<T>);

interface Runtime {
  arn: string;
  /** The endpoint of the runtime; DEFAULT if left out. */
  qualifier?: string;
  /** Checked against the ARN, which says it anyway. */
  region?: string;
  /** Another address than AWS's own. */
  endpoint?: string;
}

interface Signed extends Runtime {
  /** `X-Amzn-Bedrock-AgentCore-Runtime-Custom-...`: they reach the relay as headers. */
  customHeaders?: Record<string, string>;
  /** 300 at most. */
  expiresS?: number;
}

/** A signed URL that opens a WebSocket to a runtime. */
export function presign(
  options: Signed & { credentials: Credentials; sessionId: string; date?: Date },
): Promise<string>;

/** The `url` for `join` of a mesh on AgentCore, signed anew for every connection. */
export function agentcore(
  options: Signed & { mesh: string; secret?: string; credentials: MaybeCalled<Credentials> },
): () => Promise<string>;

/** The same for a runtime that takes OAuth tokens. */
export function oauth(
  options: Runtime & { mesh: string; secret?: string; token: MaybeCalled<string> },
): () => Promise<{ url: string; protocols: string[] }>;

/** AWS credentials of a logged-in user of an identity pool, renewed before they expire. Rejects after
 * 15 s without an answer. */
export function cognitoCredentials(options: {
  identityPoolId: string;
  /** `cognito-idp.REGION.amazonaws.com/POOL` for a user pool. */
  provider: string;
  /** Called each time a token is needed. */
  idToken: MaybeCalled<string>;
  endpoint?: string;
}): () => Promise<Required<Credentials> & { expiration: Date }>;

// Errors -------------------------------------------------------------------------------------------

/** Everything that can go wrong. No message ever holds a token, a credential or a query string. */
export class RelayError extends Error {
  /** Trying again may help, and the peer does so by itself. */
  isTransient: boolean;
}
export class Unreachable extends RelayError {}
export class NotARelay extends RelayError {}
export class AnnouncementRefused extends RelayError {
  constructor(code: string, sentence: string);
  code: string;
}
export class BadAddress extends RelayError {}
export class NoCredentials extends RelayError {}
export class LoginNeeded extends NoCredentials {}
export class NotConnected extends RelayError {}
export class QueueFull extends RelayError {}
export class TooLarge extends RelayError {}
export class Lagged extends RelayError {
  constructor(count: number);
  count: number;
}
export class Left extends RelayError {
  constructor();
}
export class TurnError extends RelayError {}
export class TurnTimeout extends TurnError {}
export class TurnFailed extends TurnError {}
export class UnknownTarget extends TurnError {}
export class AmbiguousTarget extends TurnError {
  constructor(sentence: string, peers: string[]);
  peers: string[];
}
export class TargetLeft extends TurnError {}
export class TurnRefused extends TurnError {
  constructor(code: string, sentence: string);
  code: string;
}

// The life of a membership, for those who want to check it -------------------------------------------

/** Durations in seconds; `Max` are counts, or bytes. */
export interface Limits {
  joinWithinS: number;
  backoffFirstS: number;
  backoffMaxS: number;
  giveUpAfterS: number;
  heartbeatEveryS: number;
  silentAfterS: number;
  probeWithinS: number;
  renewAfterS: number;
  switchWithinS: number;
  queueMessagesMax: number;
  queueBytesMax: number;
  unreadMessagesMax: number;
  unreadBytesMax: number;
  turnsMax: number;
  serveWithinS: number;
  leaveWithinS: number;
}

export type EventName =
  "Joined" | "Failed" | "Heard" | "Marked" | "Lost" | "Silent" | "Elapsed" | "Nudged" | "Ended";
export type Effect = "open" | "adopt" | "discard" | "drop" | "probe";

export interface Membership {
  state: State;
  due: number | null;
  heard: number;
  doubted: number | null;
  attempts: number;
  joined: number;
}

export interface Step {
  membership: Membership;
  effects: Effect[];
}

export const LIMITS: Readonly<Limits>;
export const TABLE: Readonly<Record<State, Record<EventName, [State, string]>>>;
export function limitsWith(changes?: Partial<Limits>): Readonly<Limits>;
export function begun(at: number | null): Membership;
export function backoff(attempts: number, chance: number, limits: Limits): number;
export function deadline(membership: Membership, limits: Limits): number | null;
export function expire(old: Membership, at: number, chance: number, limits: Limits): Step;
export function transition(
  old: Membership,
  event: { name: EventName; at: number; chance: number },
  limits: Limits,
): Step;
