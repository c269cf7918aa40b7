/**
 * The stream of the console as docs/console.md says it: types only.
 *
 * @typedef {object} Peer
 * @property {"present" | "stale"} state
 * @property {string | null} name
 * @property {string | null} host
 * @property {string[]} agents
 * @property {number} connections
 * @property {number} heard_ms
 * @property {number} received messages that have come from it
 * @property {number} sent messages that it was sent
 * @property {number} queued_messages
 * @property {number} queued_bytes
 *
 * @typedef {object} Turn
 * @property {string} id
 * @property {string} asker
 * @property {string | null} to
 * @property {string | null} by
 * @property {string} type
 * @property {number} began_ms
 * @property {number} last_ms
 * @property {number} chunks
 * @property {"ended" | "failed" | "cancelled" | "left" | null} outcome
 *
 * @typedef {object} Happening
 * @property {number} n
 * @property {number} at_ms
 * @property {string} what
 * @property {string | null} peer
 * @property {number | null} connection
 * @property {string | null} why
 * @property {number | null} count
 *
 * @typedef {object} Bounds
 * @property {number} mailbox_messages_max
 * @property {number} mailbox_bytes_max
 * @property {number} messages_per_s
 * @property {number} stale_after_s
 * @property {number} reap_after_s
 *
 * @typedef {object} Relay
 * @property {string} version
 * @property {number} since_ms
 * @property {boolean} is_draining
 * @property {number} connections
 * @property {number} held_bytes
 * @property {number} held_bytes_max
 * @property {number} lag_s
 * @property {Record<string, { connections: number, peers: number }>} meshes
 *
 * @typedef {[from: string, to: string | null, type: string, count: number]} Flow
 *
 * @typedef {object} Told what an event of the stream has in it: all of it in a `state`, some in a `change`
 * @property {number} at_ms
 * @property {string} [mesh]
 * @property {Bounds} [bounds]
 * @property {Relay} [relay]
 * @property {Record<string, number>} [totals]
 * @property {Record<string, Peer | null>} [peers]
 * @property {Record<string, Turn | null>} [turns]
 * @property {Flow[]} [flow]
 * @property {number | null} [flow_since_ms]
 * @property {Happening[]} [events]
 */

export {};
