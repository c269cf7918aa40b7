/** What arrived for a program and was not read yet: bounded, and the oldest go first. */

import { Lagged } from "./errors.js";
import { iterator, Signal } from "./waiting.js";

/**
 * All that is unread of one peer, its messages and the chunks of its turns: together it costs no more
 * than `unreadBytesMax`. Beyond, the heaviest loses its oldest items.
 */
export class Shelf {
  /** Weak, because a program may drop a turn with all its chunks. @type {Set<WeakRef<Unread<any>>>} */
  #full = new Set();
  #size = 0;

  /** @param {Readonly<{ unreadMessagesMax: number, unreadBytesMax: number }>} limits */
  constructor(limits) {
    this.limits = limits;
  }

  /**
   * So much more is unread there.
   *
   * @param {WeakRef<Unread<any>>} unread
   * @param {number} size
   */
  put(unread, size) {
    this.#full.add(unread);
    this.#size += size;
    if (this.#size > this.limits.unreadBytesMax) this.#makeRoom();
  }

  /**
   * So much was read there. `isEmpty`: that was the last of it.
   *
   * @param {WeakRef<Unread<any>>} unread
   * @param {number} size
   * @param {boolean} isEmpty
   */
  take(unread, size, isEmpty) {
    this.#size -= size;
    if (isEmpty) this.#full.delete(unread);
  }

  #makeRoom() {
    const full = [];
    for (const reference of this.#full) {
      const unread = reference.deref();
      if (unread) full.push(unread);
      else this.#full.delete(reference);
    }
    this.#size = full.reduce((sum, { size }) => sum + size, 0);
    while (this.#size > this.limits.unreadBytesMax) {
      const heaviest = full.reduce((one, other) => (other.size > one.size ? other : one));
      // The latest stays in any case.
      if (heaviest.length === 1 && heaviest.size === this.#size) return;
      heaviest.drop();
    }
  }
}

/**
 * What arrived and was not read yet. Each item goes to one reader.
 *
 * @template Item
 */
export class Unread {
  /** What it costs, in bytes. */
  size = 0;
  /** @type {{ item: Item, size: number }[]} */
  #items = [];
  #dropped = 0;
  /** @type {{ error: Error | null } | null} */
  #end = null;
  #news = new Signal();
  #shelf;
  #reference = new WeakRef(this);

  /** @param {Shelf} shelf */
  constructor(shelf) {
    this.#shelf = shelf;
  }

  /** How many items there are. */
  get length() {
    return this.#items.length;
  }

  /**
   * Adds an item that costs so many bytes; the oldest make room for it.
   *
   * @param {Item} item
   * @param {number} [size]
   */
  put(item, size = 0) {
    if (this.#end) return;
    this.#items.push({ item, size });
    this.size += size;
    this.#shelf.put(this.#reference, size);
    if (this.#items.length > this.#shelf.limits.unreadMessagesMax) this.drop();
    this.#news.set();
  }

  /** The oldest item goes. Whoever reads is told. */
  drop() {
    this.#take();
    this.#dropped += 1;
  }

  /** @returns {Item} */
  #take() {
    const { item, size } = /** @type {{ item: Item, size: number }} */ (this.#items.shift());
    this.size -= size;
    this.#shelf.take(this.#reference, size, this.#items.length === 0);
    return item;
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
