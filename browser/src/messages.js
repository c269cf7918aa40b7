/** Messages as programs see them. */

/**
 * One message as it arrived.
 *
 * @typedef {object} Message
 * @property {string} type
 * @property {string} [from] the peer, or one of its agents, that sent it
 * @property {string} [to] the peer or agent that it was addressed to
 * @property {any} [data]
 * @property {string} [turnId] what ties a command and its answers together
 * @property {string} [origin] the peer that it came from; the relay guarantees it
 * @property {number} [timestamp]
 * @property {Readonly<Record<string, any>>} fields all of it
 */

/**
 * Another peer of the mesh.
 *
 * @typedef {object} RemotePeer
 * @property {string} id
 * @property {readonly string[]} agents the ids of its agents
 * @property {Readonly<Record<string, any>>} data what it announced
 */

/**
 * The messages of one frame, an object or an array of them; null if it is no frame of a relay.
 *
 * @param {unknown} data
 * @returns {Record<string, any>[] | null}
 */
export function readFrame(data) {
  try {
    const frame = typeof data === "string" ? JSON.parse(data) : null;
    const messages = Array.isArray(frame) ? frame : [frame];
    return messages.every((message) => typeof message?.type === "string") ? messages : null;
  } catch {
    return null;
  }
}

/**
 * @param {Record<string, any>} fields
 * @returns {Readonly<Message>}
 */
export function messageOf(fields) {
  const { type, from, to, data, turnId, instanceId, timestamp } = fields;
  const origin = instanceId ?? from;
  return Object.freeze({ type, from, to, data, turnId, origin, timestamp, fields });
}

/**
 * What should be text, but came from somebody else and may be anything.
 *
 * @param {unknown} value
 * @param {string} [otherwise]
 * @returns {string}
 */
export function textOf(value, otherwise = "") {
  return typeof value === "string" ? value : value == null ? otherwise : JSON.stringify(value);
}
