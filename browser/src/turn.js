/** A command that was given, as its user sees it. What comes of it is decided in asks.js. */

/**
 * @import { Unread } from "./unread.js"
 */

/** A command and its answers. Iterate over it for the chunks. Made by `Peer.ask`. */
export class Turn {
  /** What ties the command and its answers together. @type {string} */
  turnId;
  #chunks;
  #result;

  /**
   * @param {string} turnId
   * @param {Unread<string>} chunks
   * @param {Promise<any>} result
   */
  constructor(turnId, chunks, result) {
    this.turnId = turnId;
    this.#chunks = chunks;
    this.#result = result;
  }

  /**
   * What the agent returned: `data.result` of its answer. Rejects with a TurnError, and with what
   * ended the peer.
   *
   * @returns {Promise<any>}
   */
  result() {
    return this.#result;
  }

  /**
   * The chunks, as they come. At the end the iteration stops, or throws what `result()` rejects with.
   * A reader that is too slow gets a `Lagged`.
   *
   * @returns {AsyncIterableIterator<string>}
   */
  [Symbol.asyncIterator]() {
    return this.#chunks[Symbol.asyncIterator]();
  }
}
