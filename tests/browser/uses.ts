// Every export of the client, as a TypeScript program would use it. Only checked, never run.

import type {
  Change,
  Command,
  Events,
  JoinOptions,
  Json,
  Limits,
  Membership,
  Message,
  Peer,
  RemotePeer,
  State,
  Turn,
} from "agi-diy-relay-client";
import {
  AmbiguousTarget,
  AnnouncementRefused,
  AnswerGap,
  agentcore,
  BadAddress,
  backoff,
  begun,
  cognitoCredentials,
  connect,
  deadline,
  expire,
  Gap,
  IdTaken,
  isMessage,
  join,
  Lagged,
  Left,
  LIMITS,
  LoginNeeded,
  limitsWith,
  NoCredentials,
  NotARelay,
  NotConnected,
  NotServed,
  oauth,
  peerId,
  presign,
  QueueFull,
  Rejected,
  type RelayError,
  Replaced,
  sessionId,
  TABLE,
  TargetLeft,
  TooLarge,
  TurnError,
  TurnFailed,
  TurnRefused,
  TurnTimeout,
  transition,
  UnknownTarget,
  Unreachable,
} from "agi-diy-relay-client";

const credentials = cognitoCredentials({
  identityPoolId: "r:1",
  provider: "p",
  idToken: async () => "token",
});
const arn = "arn:aws:bedrock-agentcore:us-west-2:1:runtime/x";

const options: JoinOptions = {
  url: agentcore({
    arn,
    mesh: "m",
    secret: "s",
    credentials,
    qualifier: "DEFAULT",
    customHeaders: { a: "b" },
    token: async () => "token",
  }),
  id: await peerId("shared", "name"),
  agents: ["a", { agentId: "b", more: 1 }, { name: "c" }],
  metadata: { hostname: "h" },
  offline: "fail",
  limits: { heartbeatEveryS: 5 },
  withinS: Infinity,
  keepalive: null,
  history: 50,
  subscribe: { others: false, topics: ["orders", "robots/*"], types: ["broadcast"] },
  owner: "sixteen characters",
  takeover: true,
  token: async () => "token",
};
const peer: Peer = await join(options);
await join({ url: oauth({ arn, mesh: "m", token: "t" }), id: "x" });
await join({ url: () => ({ url: "ws://x", protocols: ["p"] }), id: "x" });
await join({ url: new URL("ws://x"), id: "x" });
const early: Peer = connect({ url: async () => new URL("ws://x"), id: "x" });
const joined: Peer = await early.joined;
const stops: (() => void)[] = [
  joined.on("state", (state: State) => console.log(state)),
  joined.on("roster", ({ joined, here }: Change) => console.log(joined.length, here.size)),
  joined.on("message", ({ type, data, isOld }) => console.log(type, data, isOld)),
  joined.on("gap", ({ message, seconds, reason, inDoubt }: Gap) => {
    console.log(
      message,
      seconds,
      reason,
      inDoubt.map(({ type, data }) => [type, data]),
    );
  }),
  joined.on("resumed", ({ seconds }) => console.log(seconds, joined.resumed)),
  joined.on("ended", (error) => console.log(error?.message)),
];
const told: Events["ended"] = null;

const state: State = peer.state;
const bob: RemotePeer | undefined = peer.roster.get("bob");
const agents: readonly string[] = bob?.agents ?? [];

for await (const message of peer) {
  const seen: Message = message;
  console.log(seen.type, seen.from, seen.to, seen.data, seen.turnId, seen.origin, seen.fields.more);
  if (isMessage(seen, "stream")) console.log(seen.data.chunk.length);
  if (isMessage(seen, "error")) console.log(seen.data.error.length, seen.data.code);
  if (isMessage(seen, "turn_end")) console.log(seen.data.result);
  if (isMessage(seen, "presence")) console.log(seen.data.status);
}
const changes: AsyncIterableIterator<Change> = peer.changes();
for await (const change of changes) {
  const { joined, updated, left, here }: Change = change;
  console.log(joined[0]?.id, updated, left[0]?.agents, here.size, agents, state);
}
await peer.send("any", { data: 1 });
await peer.broadcast("x", { turnId: "t" });
await peer.direct("bob", { command: "x" });
await peer.ack("t");
await peer.stream("t", "chunk", 0);
await peer.turnEnd("t", { any: "thing" });
await peer.error("t", "sentence");
await peer.announce({ agents: ["z"] });
await peer.subscribe({ topics: ["orders"] });
await peer.subscribe(false);
peer.nudge();

const turn: Turn = peer.ask("coder", "write", { timeoutS: 3, peer: "bob", fields: { x: 1 } });
const { signal }: AbortController = new AbortController();
peer.ask("coder", "write", { any: true, signal }).cancel();
for await (const chunk of turn) console.log(chunk.length, turn.turnId);
const answer: Json = await turn;
const same: Json = await turn.result();
const chunks: string[] = turn.chunks;
const typed: Turn<string> = peer.ask<string>("coder", "write");
const result: string = await typed;
const length: number = await typed
  .then(
    (text) => text.length,
    () => 0,
  )
  .finally(() => console.log(answer, same, chunks, turn.dropped, told, stops));
await turn.catch((error) => console.log(error, length));

const stop: () => void = peer.serve(
  async (command: Command) => {
    const aborted: boolean = command.signal.aborted;
    console.log(aborted);
    await command.stream(
      command.text + command.from + command.asker + command.agent + command.turnId,
    );
    return { result, data: command.data.command };
  },
  { agents: ["a"] },
);
stop();
await peer.leave();
const why: RelayError | null = await peer.ended;

const signed: string = await presign({
  arn,
  credentials: await credentials(),
  sessionId: await sessionId("m", "s"),
});
const kinds: (new (...given: never[]) => RelayError)[] = [
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
  Replaced,
  TargetLeft,
  TooLarge,
  TurnError,
  TurnFailed,
  TurnRefused,
  TurnTimeout,
  UnknownTarget,
  Unreachable,
];
if (why instanceof AnnouncementRefused || why instanceof TurnRefused)
  console.log(why.code, why.isTransient);
if (why instanceof AmbiguousTarget) console.log(why.peers.length);
if (why instanceof Lagged) console.log(why.count + 1);
if (why instanceof Gap) console.log(why.seconds + 1);
if (why instanceof TurnError) console.log(why.chunks.length);
if (why instanceof AnswerGap) console.log(why.result);

const limits: Readonly<Limits> = limitsWith({ turnsMax: 2, giveUpAfterS: 0 });
const record: Membership = begun(0);
const step = transition(record, { name: "Elapsed", at: 1, chance: 0.5 }, limits);
const due: number | null = deadline(expire(step.membership, 2, 0.5, LIMITS).membership, LIMITS);
console.log(TABLE.waiting.Elapsed[0], backoff(1, 0.5, 3, limits), due, signed, kinds);

// @ts-expect-error a peer needs an id
void join({ url: "ws://x" });
// @ts-expect-error null is no command
peer.ask("coder", null);
// @ts-expect-error there is no such event
peer.on("anything", () => {});
// @ts-expect-error what others say may be anything
console.log((await turn).length);
// @ts-expect-error there is no such state
TABLE.sleeping;
