/** Which of the tabs that share a peer serves an agent: one at a time, elected by the browser (Web Locks).
 * What a tab does with a command for an agent that it is not elected for is decided in services.js. */

import { SESSION } from "./presign.js";

/**
 * A lock manager as browsers have one (`navigator.locks`), as far as it is used here.
 *
 * @typedef {{ request: (
 *   name: string, options: { signal: AbortSignal }, callback: () => Promise<void> | undefined,
 * ) => Promise<unknown> }} Locks
 */

/**
 * What tabs tell one another with (BroadcastChannel): nobody hears himself.
 *
 * @typedef {{ postMessage: (data: unknown) => void, close: () => void,
 *   onmessage: ((event: MessageEvent) => void) | null }} Channel
 */

/**
 * What an election needs of the browser.
 *
 * @typedef {object} Halls
 * @property {Locks | null} locks null: there are none, and every tab serves
 * @property {(name: string) => Channel} channel
 */

/**
 * Whom an election tells. `elected`: for which agents this tab is elected now; null: there are no
 * elections, it serves them all. `taken`: another tab has taken a command for this agent.
 *
 * @typedef {object} Voter
 * @property {(agents: readonly string[] | null) => void} elected
 * @property {(turnId: string, agent: string) => void} taken
 */

/**
 * The wish to serve one agent. `end` gives it up, whether it was elected or not.
 *
 * @typedef {{ isElected: boolean, end: () => void }} Candidacy
 */

/** What tells the meshes of one relay apart, and of the relays on AgentCore. */
const MESH_PARAMETERS = ["mesh", SESSION.toLowerCase()];

/**
 * Which mesh of which relay this URL leads to, without what changes from one connection to the next.
 *
 * @param {string} url
 */
export function placeOf(url) {
  try {
    const { protocol, host, pathname, searchParams } = new URL(url);
    const named = [...searchParams].filter(([name]) =>
      MESH_PARAMETERS.includes(name.toLowerCase()),
    );
    return JSON.stringify([protocol, host, pathname, ...named]);
  } catch {
    return url;
  }
}

const PREFIX = "agi-diy-relay:serves";

export class Election {
  #halls;
  #id;
  #voter;
  /** By agent. @type {Map<string, Candidacy>} */
  #candidacies = new Map();
  #place = "";
  /** @type {Channel | null} */
  #channel = null;
  /** The browser refuses locks to this page. */
  #isOff = false;

  /**
   * @param {Halls & { locks: Locks }} halls
   * @param {string} id of the peer
   * @param {Voter} voter
   */
  constructor(halls, id, voter) {
    this.#halls = halls;
    this.#id = id;
    this.#voter = voter;
  }

  /**
   * Stands for these agents, and for no others, in the mesh at this place. `listens`: hears what other
   * tabs take, also if it stands for nothing.
   *
   * @param {string} place
   * @param {readonly string[]} agents
   * @param {{ listens?: boolean }} [how]
   */
  stand(place, agents, { listens = agents.length > 0 } = {}) {
    if (this.#isOff) return;
    const isElsewhere = place !== this.#place;
    let hasLost = false;
    for (const [agent, candidacy] of this.#candidacies) {
      if (!isElsewhere && agents.includes(agent)) continue;
      this.#candidacies.delete(agent);
      candidacy.end();
      hasLost ||= candidacy.isElected;
    }
    if (isElsewhere || !listens) this.#hangUp();
    this.#place = place;
    if (hasLost) this.#tell();
    if (listens) this.#channel ??= this.#listen();
    for (const agent of agents) {
      if (!this.#candidacies.has(agent)) this.#candidacies.set(agent, this.#candidate(agent));
    }
  }

  /**
   * This tab has taken a command for this agent.
   *
   * @param {string} turnId
   * @param {string} agent
   */
  took(turnId, agent) {
    this.#channel?.postMessage({ turnId, agent });
  }

  /** Stands for nothing any more. */
  end() {
    this.stand(this.#place, []);
  }

  #listen() {
    const channel = this.#halls.channel(this.#name());
    channel.onmessage = ({ data }) => {
      const { turnId, agent } = data ?? {};
      if (typeof turnId === "string" && typeof agent === "string") this.#voter.taken(turnId, agent);
    };
    return channel;
  }

  #hangUp() {
    this.#channel?.close();
    this.#channel = null;
  }

  /** @param {string[]} more */
  #name(...more) {
    return `${PREFIX}:${JSON.stringify([this.#place, this.#id, ...more])}`;
  }

  /**
   * @param {string} agent
   * @returns {Candidacy}
   */
  #candidate(agent) {
    const waiting = new AbortController();
    let isOver = false;
    let leave = () => {};
    const candidacy = {
      isElected: false,
      end() {
        isOver = true;
        waiting.abort();
        leave();
      },
    };
    const elected = () => {
      if (isOver) return undefined;
      candidacy.isElected = true;
      this.#tell();
      return /** @type {Promise<void>} */ (new Promise((resolve) => (leave = resolve)));
    };
    this.#halls.locks
      .request(this.#name(agent), { signal: waiting.signal }, elected)
      .catch(() => isOver || this.#off());
    return candidacy;
  }

  #tell() {
    const elected = [...this.#candidacies].filter(([, { isElected }]) => isElected);
    this.#voter.elected(elected.map(([agent]) => agent));
  }

  /** There are no elections here after all: as in a frame without an origin. */
  #off() {
    this.end();
    this.#isOff = true;
    warnWithoutLocks();
    this.#voter.elected(null);
  }
}

let hasWarned = false;

/** Says once, in the console of a page, that its tabs cannot agree on who serves. */
export function warnWithoutLocks() {
  if (hasWarned || !globalThis.document) return;
  hasWarned = true;
  console.warn(
    "agi-diy-relay-client: there are no Web Locks here (they need a secure context: https, or localhost). " +
      "If several tabs share the id of a peer, each of them serves every command",
  );
}
