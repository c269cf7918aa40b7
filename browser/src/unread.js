/** What arrived for a program and was not read yet: bounded, and the oldest go first. */

import { Lagged } from "./errors.js";
import { iterator, Signal } from "./waiting.js";

/**
 * What arrived and was not read yet. Each item goes to one reader.
 *
 * @template Item
 */
export class Unread {
  /** @type {{ item: Item, size: number }[]} */
  #items = [];
  #size = 0;
  #dropped = 0;
  /** @type {{ error: Error | null } | null} */
  #end = null;
  #news = new Signal();
  #messagesMax;
  #bytesMax;

  /** @param {Readonly<{ unreadMessagesMax: number, unreadBytesMax: number }>} limits */
  constructor({ unreadMessagesMax, unreadBytesMax }) {
    this.#messagesMax = unreadMessagesMax;
    this.#bytesMax = unreadBytesMax;
  }

  /**
   * Adds an item of so many characters; the oldest make room for it. The latest stays in any case.
   *
   * @param {Item} item
   * @param {number} [size]
   */
  put(item, size = 0) {
    if (this.#end) return;
    this.#items.push({ item, size });
    this.#size += size;
    while (
      this.#items.length > 1 &&
      (this.#items.length > this.#messagesMax || this.#size > this.#bytesMax)
    ) {
      this.#take();
      this.#dropped += 1;
    }
    this.#news.set();
  }

  /** @returns {Item} */
  #take() {
    const { item, size } = /** @type {{ item: Item, size: number }} */ (this.#items.shift());
    this.#size -= size;
    return item;
  }

  /**
   * All of them that are meant, at once.
   *
   * @param {(item: Item) => boolean} [isMeant]
   * @returns {Item[]}
   */
  drain(isMeant = () => true) {
    const drained = this.#items.filter(({ item }) => isMeant(item));
    if (drained.length) this.#items = this.#items.filter((entry) => !drained.includes(entry));
    for (const { size } of drained) this.#size -= size;
    return drained.map(({ item }) => item);
  }

  /**
   * Nothing more comes. A reader stops after the rest, with this error if there is one.
   *
   * @param {Error | null} [error]
   */
  finish(error = null) {
    this.#end ??= { error };
    this.#news.set();
  }

  /** @returns {Promise<IteratorResult<Item, undefined>>} */
  async #next() {
    for (;;) {
      if (this.#dropped) {
        const count = this.#dropped;
        this.#dropped = 0;
        throw new Lagged(count);
      }
      if (this.#items.length) return { done: false, value: this.#take() };
      if (this.#end?.error) throw this.#end.error;
      if (this.#end) return { done: true, value: undefined };
      await this.#news.next;
    }
  }

  [Symbol.asyncIterator]() {
    return iterator(() => this.#next());
  }
}
