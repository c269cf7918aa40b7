/** Who else is here, and how that changes. */

/**
 * @import { RemotePeer } from "./messages.js"
 */

/**
 * Who has come, who announces something else, who has gone, since the change before this one.
 *
 * @typedef {object} Change
 * @property {RemotePeer[]} joined
 * @property {RemotePeer[]} updated
 * @property {RemotePeer[]} left
 * @property {Map<string, RemotePeer>} here everybody after it, by id
 */

export {};
