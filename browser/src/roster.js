/**
 * Who else is in the mesh, as presences tell it, and how two views of that differ. The twin of
 * protocol/member/roster.py.
 *
 * The roster has bounds (`peersMax`, `rosterBytesMax`). A presence beyond them is ignored: a new peer
 * is not in the roster, and one that is there stays as it was.
 *
 * After a connection was lost, the roster still shows who was here. The relay then sends the roster
 * anew: presences that say the same as before are no news, and whoever is not among them has left
 * meanwhile. While the connection is lost, nobody is removed.
 *
 * @import { Limits } from "./limits.js"
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
 * now. `isIgnored`: the roster has no room for it.
 *
 * @typedef {{ isNews: boolean, hasChanged: boolean, isIgnored?: boolean }} Noted
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
  /** The peer has been seen with another connection that is not its own. */
  isShared = false;
  /** Presences were ignored: there may be peers that are not in it. */
  isCut = false;
  #ownId;
  #limits;
  /** The latest presence of each, and what that costs.
   * @type {Map<string, { fields: Wire, cost: number }>} */
  #known = new Map();
  #cost = 0;
  /** The relay is sending the roster anew. */
  #isRepeated = false;
  /** Who is not in it yet. @type {Set<string>} */
  #unseen = new Set();

  /**
   * @param {string} ownId the peer whose roster it is
   * @param {Readonly<Limits>} limits
   * @param {{ shares?: boolean }} [how] others are meant to have the peer's id, too
   */
  constructor(ownId, limits, { shares = false } = {}) {
    this.shares = shares;
    this.#ownId = ownId;
    this.#limits = limits;
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
    this.isCut = false;
  }

  /** That connection came to nothing. */
  cancel() {
    this.#isRepeated = false;
    this.#unseen.clear();
  }

  /** The roster has come whole: whoever was not in it has left. */
  complete() {
    for (const id of this.#unseen) this.#remove(id);
    this.cancel();
  }

  /** @param {string} id */
  #remove(id) {
    this.#cost -= this.#known.get(id)?.cost ?? 0;
    this.#known.delete(id);
    return this.peers.delete(id);
  }

  /**
   * A presence arrived, which costs `size` bytes.
   *
   * @param {Message} presence
   * @param {number} size
   * @returns {Noted}
   */
  note(presence, size) {
    const id = presence.from;
    // Of nobody, or from another connection of the same peer.
    if (!id || id === this.#ownId) return { isNews: true, hasChanged: false };
    this.#unseen.delete(id);
    if (isOffline(presence)) return { isNews: true, hasChanged: this.#remove(id) };
    const known = this.#known.get(id);
    if (this.#isRepeated && known && isAlike(known.fields, presence.fields)) {
      return { isNews: false, hasChanged: false };
    }
    const { peersMax, rosterBytesMax } = this.#limits;
    const cost = this.#cost - (known?.cost ?? 0) + size;
    if (this.#known.size + Number(!known) > peersMax || cost > rosterBytesMax) {
      this.isCut = true;
      return { isNews: true, hasChanged: false, isIgnored: true };
    }
    this.#known.set(id, { fields: presence.fields, cost: size });
    this.#cost = cost;
    const peer = remotePeerOf(presence);
    const hasChanged = !isAlike(this.peers.get(id), peer);
    if (hasChanged) this.peers.set(id, peer);
    return { isNews: true, hasChanged };
  }

  /**
   * A presence of the peer itself arrived. `isAnothers`: from a connection of somebody else who shares
   * the id.
   *
   * @param {Message} presence
   * @param {{ isAnothers: boolean }} how
   */
  noteOwn(presence, { isAnothers }) {
    this.isShared ||= isAnothers;
    this.sharedAgentIds = new Set(remotePeerOf(presence).agents);
  }
}
