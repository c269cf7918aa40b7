/** A command that was given, as its user sees it. What comes of it is decided in asks.js. */

import { iterator } from "./waiting.js";

/**
 * @import { Json } from "./messages.js"
 * @import { Unread } from "./unread.js"
 */

/**
 * A command and its answers. `await` it for the result, iterate over it for the chunks, or both. Made
 * by `Peer.ask`. It is abandoned by `cancel`, by its `signal`, and by a loop over its chunks that is left
 * (`break`, an error); then whoever works on the command is told to stop. (An async function that returns a turn returns its result, as with any promise.)
 *
 * @template [Result=Json]
 * @implements {PromiseLike<Result>}
 */
export class Turn {
  /** What ties the command and its answers together. @type {string} */
  turnId;
  #chunks;
  #result;
  #abandon;

  /**
   * @param {string} turnId
   * @param {Unread<string>} chunks
   * @param {Promise<Result>} result
   * @param {() => void} abandon
   */
  constructor(turnId, chunks, result, abandon) {
    this.turnId = turnId;
    this.#chunks = chunks;
    this.#result = result;
    this.#abandon = abandon;
  }

  /** Nobody waits for this any more: waiting for it rejects with a TurnError. Once the turn is over,
   * nothing happens. */
  cancel() {
    this.#abandon();
  }

  /**
   * What the agent returned: `data.result` of its answer. Rejects with a TurnError, and with what
   * ended the peer. The same as to await the turn.
   *
   * @returns {Promise<Result>}
   */
  result() {
    return this.#result;
  }

  /**
   * As for any promise: of the result.
   *
   * @template [Kept=Result]
   * @template [Caught=never]
   * @param {((result: Result) => Kept | PromiseLike<Kept>) | null} [onResult]
   * @param {((error: any) => Caught | PromiseLike<Caught>) | null} [onError]
   * @returns {Promise<Kept | Caught>}
   */
  // biome-ignore lint/suspicious/noThenProperty: a turn is to be awaited.
  then(onResult, onError) {
    return this.#result.then(onResult, onError);
  }

  /**
   * @template [Caught=never]
   * @param {((error: any) => Caught | PromiseLike<Caught>) | null} [onError]
   * @returns {Promise<Result | Caught>}
   */
  catch(onError) {
    return this.#result.catch(onError);
  }

  /**
   * @param {(() => void) | null} [onOver]
   * @returns {Promise<Result>}
   */
  finally(onOver) {
    return this.#result.finally(onOver);
  }

  /**
   * The chunks that have come so far, also after an error. Of a very long answer the oldest are
   * dropped: `dropped` says how many.
   *
   * @returns {string[]}
   */
  get chunks() {
    return this.#chunks.items;
  }

  /** How many chunks were dropped, because all that is unread and kept has bounds. */
  get dropped() {
    return this.#chunks.gone;
  }

  /**
   * The chunks, from the first on, as they come. At the end the iteration stops, or throws what
   * `result()` rejects with. A reader that is too slow gets a `Lagged`. To leave the loop is to abandon
   * the turn.
   *
   * @returns {AsyncIterableIterator<string>}
   */
  [Symbol.asyncIterator]() {
    const chunks = this.#chunks[Symbol.asyncIterator]();
    return iterator(
      () => chunks.next(),
      () => {
        chunks.return?.();
        this.#abandon();
      },
    );
  }
}
