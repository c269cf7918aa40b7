/**
 * Who else is in the mesh, as presences tell it, and how two views of that differ. The twin of
 * protocol/member/roster.py.
 *
 * After a connection was lost, the roster still shows who was here. The relay then sends the roster
 * anew: presences that say the same as before are no news, and whoever is not among them has left
 * meanwhile. While the connection is lost, nobody is removed.
 *
 * @import { Message, RemotePeer, Wire } from "./messages.js"
 */

import { isOffline, isSame, remotePeerOf } from "./messages.js";

/**
 * Who has come, who announces something else, who has gone, since the change before this one.
 *
 * @typedef {object} Change
 * @property {RemotePeer[]} joined
 * @property {RemotePeer[]} updated
 * @property {RemotePeer[]} left
 * @property {Map<string, RemotePeer>} here everybody after it, by id
 */

/**
 * What a presence was. `isNews`: the program should hear of it. `hasChanged`: the roster is another
 * now.
 *
 * @typedef {{ isNews: boolean, hasChanged: boolean }} Noted
 */

/**
 * What has changed from `seen` to `here`.
 *
 * @param {ReadonlyMap<string, RemotePeer>} seen
 * @param {Map<string, RemotePeer>} here
 * @returns {Change}
 */
export function compare(seen, here) {
  const [before, after] = [[...seen.values()], [...here.values()]];
  return {
    joined: after.filter(({ id }) => !seen.has(id)),
    updated: after.filter((peer) => seen.has(peer.id) && !isAlike(seen.get(peer.id), peer)),
    left: before.filter(({ id }) => !here.has(id)),
    here,
  };
}

/**
 * Nobody has come, changed or gone.
 *
 * @param {Change} change
 */
export function isEmpty({ joined, updated, left }) {
  return joined.length + updated.length + left.length === 0;
}

/**
 * Two presences say the same of a peer. What is nested too deep to be compared is another.
 *
 * @param {unknown} one
 * @param {unknown} other
 */
function isAlike(one, other) {
  try {
    return isSame(one, other);
  } catch {
    return false;
  }
}

/** The other peers, by id. */
export class Roster {
  /** @type {Map<string, RemotePeer>} */
  peers = new Map();
  /** The agents of all connections with the peer's own id, as the relay tells them.
   * @type {ReadonlySet<string>} */
  sharedAgentIds = new Set();
  #ownId;
  /** The latest presence of each, whole. @type {Map<string, Wire>} */
  #known = new Map();
  /** The relay is sending the roster anew. */
  #isRepeated = false;
  /** Who is not in it yet. @type {Set<string>} */
  #unseen = new Set();

  /** @param {string} ownId the peer whose roster it is */
  constructor(ownId) {
    this.#ownId = ownId;
  }

  /**
   * The ids of the others that a command for `agent` may mean: the peer of this name, which comes
   * before all agents, or all peers with such an agent.
   *
   * @param {string} agent
   * @returns {string[]}
   */
  hosts(agent) {
    if (this.peers.has(agent)) return [agent];
    const hosts = [...this.peers.values()].filter(({ agents }) => agents.includes(agent));
    return hosts.map(({ id }) => id);
  }

  /** A new connection has announced the peer: the roster will come anew. */
  begin() {
    this.#isRepeated = true;
    this.#unseen = new Set(this.peers.keys());
  }

  /** That connection came to nothing. */
  cancel() {
    this.#isRepeated = false;
    this.#unseen.clear();
  }

  /** The roster has come whole: whoever was not in it has left. */
  complete() {
    for (const id of this.#unseen) {
      this.peers.delete(id);
      this.#known.delete(id);
    }
    this.cancel();
  }

  /**
   * A presence arrived.
   *
   * @param {Message} presence
   * @returns {Noted}
   */
  note(presence) {
    const id = presence.from ?? "";
    this.#unseen.delete(id);
    if (id === this.#ownId) return { isNews: true, hasChanged: false }; // From another connection.
    if (isOffline(presence)) {
      this.#known.delete(id);
      return { isNews: true, hasChanged: this.peers.delete(id) };
    }
    const known = this.#known.get(id);
    if (this.#isRepeated && known && isAlike(known, presence.fields)) {
      return { isNews: false, hasChanged: false };
    }
    this.#known.set(id, presence.fields);
    const peer = remotePeerOf(presence);
    const hasChanged = !isAlike(this.peers.get(id), peer);
    if (hasChanged) this.peers.set(id, peer);
    return { isNews: true, hasChanged };
  }

  /**
   * A presence of the peer itself arrived, from whichever of its connections.
   *
   * @param {Message} presence
   */
  noteOwn(presence) {
    this.sharedAgentIds = new Set(remotePeerOf(presence).agents);
  }
}
