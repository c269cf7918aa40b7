/** Waiting for what somebody else brings about: a promise with its ends in hand, a signal, an
 * iterator. */

/**
 * A promise, and how to settle it.
 *
 * @template Value
 * @typedef {{
 *   promise: Promise<Value>,
 *   resolve: (value: Value) => void,
 *   reject: (reason: unknown) => void,
 * }} Deferred
 */

/**
 * A promise that its owner settles. Whoever waits for it hears of its failure; nobody has to wait.
 *
 * @template [Value=void]
 * @returns {Deferred<Value>}
 */
export function deferred() {
  /** @type {Partial<Deferred<Value>>} */
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(() => {});
  return /** @type {Deferred<Value>} */ (made);
}

/** Wakes all who wait for news, each time there are some. */
export class Signal {
  #next = deferred();

  /** Resolves with the next `set`. */
  get next() {
    return this.#next.promise;
  }

  set() {
    this.#next.resolve();
    this.#next = deferred();
  }
}

/**
 * An async iterator that goes on after an error, and that can be left while it waits. (A generator
 * can do neither.)
 *
 * @template Value
 * @param {() => Promise<IteratorResult<Value, undefined>>} next
 * @param {() => void} [left] is called when the loop over it is left
 * @returns {AsyncIterableIterator<Value>}
 */
export function iterator(next, left = () => {}) {
  return {
    next,
    async return() {
      left();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
