/**
 * What askers hear when their commands end otherwise than by the word of a handler. The twin of
 * protocol/member/ends.py.
 *
 * Each is the `data` of an `error`. One of them has no code, so here are only its words.
 */

/**
 * A sentence in `error`, and a `code` by which the asker's client knows it.
 *
 * @typedef {{ error: string, code: string }} End
 */

export const STOPPED = "cancelled: it is not served any more";
/** @type {Readonly<End>} */
export const CANCELLED = { error: "cancelled: nobody waits for it any more", code: "cancelled" };
/** @type {Readonly<End>} */
export const LEFT = { error: "left: the program or page that worked on it has gone", code: "left" };
/** @type {Readonly<End>} */
export const MISSED = { error: "the answer came while its asker was away", code: "missed" };
/** @type {Readonly<End>} */
export const BUSY = { error: "busy: too many commands at a time; try again later", code: "busy" };
