/** What arrived for a program and was not read yet: bounded, and the oldest go first. */

import { Gap, Lagged } from "./errors.js";
import { iterator, Signal } from "./waiting.js";

/**
 * All that is unread of one peer, its messages and the chunks of its turns: together it costs no more
 * than `unreadBytesMax`. Beyond, the heaviest loses its oldest items; what was read already, and is
 * only kept, goes before anything else.
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
   * So much more is there.
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
   * So much has gone from there. `isEmpty`: that was the last of it.
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
      const read = full.filter(({ isReadInPart }) => isReadInPart);
      const among = read.length ? read : full;
      const heaviest = among.reduce((one, other) => (other.size > one.size ? other : one));
      // The latest stays in any case.
      if (heaviest.isLast && heaviest.size === this.#size) return;
      heaviest.drop();
    }
  }
}

/** So many gaps in one place are told whole. */
const GAPS_MAX = 16;

/**
 * How far a loop has come: the number of the item that it reads next, and of the last gap that it was
 * told of, or of which it was told that it is not whole (`lag`). `isLeft`: it reads no more.
 *
 * @typedef {{ next: number, gap: number, lag: number, isLeft: boolean }} Place
 */

/**
 * Something may be missing before the item number `at`. Gaps have numbers of their own, from 1. What
 * the error tells costs `size` bytes; so many messages that it told of have been `dropped`.
 *
 * @typedef {{ number: number, at: number, error: Gap, size: number, dropped: number }} Missing
 */

/**
 * What arrived and may be read, once by every loop. All loops share the items: one that is slow loses
 * its oldest, and the others nothing.
 *
 * A loop that is left (`break`, or an error such as Lagged) leaves its place, and the next loop that
 * begins goes on there. Without such a place a loop begins with what arrives from then on. What no
 * place needs any more goes at once; if it `keepsAll`, it stays, as long as there is room, and a loop
 * begins with the first of it.
 *
 * @template Item
 */
export class Unread {
  /** What it costs, in bytes. */
  size = 0;
  /** @type {{ item: Item, size: number }[]} */
  #items = [];
  /** How many items have gone: the number of the first that is there. */
  #gone = 0;
  /** How many items were read by somebody. */
  #read = 0;
  /** Weak, because a program may drop an iterator. @type {Set<WeakRef<Place>>} */
  #places = new Set();
  /** Of loops that were left, or have not begun. @type {Place[]} */
  #left = [];
  /** In their order. @type {Missing[]} */
  #gaps = [];
  /** How many there were. */
  #gapsTold = 0;
  /** @type {{ error: Error | null } | null} */
  #end = null;
  #news = new Signal();
  #shelf;
  #keepsAll;
  #reference = new WeakRef(this);

  /**
   * @param {Shelf} shelf
   * @param {{ keepsAll?: boolean }} [how]
   */
  constructor(shelf, { keepsAll = false } = {}) {
    this.#shelf = shelf;
    this.#keepsAll = keepsAll;
    // The first loop reads all.
    if (!keepsAll) this.#left.push({ next: 0, gap: 0, lag: 0, isLeft: false });
  }

  /** How many items there are. */
  get length() {
    return this.#items.length;
  }

  /** How many items have gone. */
  get gone() {
    return this.#gone;
  }

  /** The items that are there. */
  get items() {
    return this.#items.map(({ item }) => item);
  }

  /** It has one item, and nothing that could go before that. */
  get isLast() {
    return this.#items.length === 1 && this.#heavyGap === undefined;
  }

  /** The oldest item was read by somebody. */
  get isReadInPart() {
    return this.#items.length > 0 && this.#gone < this.#read;
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
    this.#tidy();
    while (this.#items.length > this.#shelf.limits.unreadMessagesMax) this.drop();
    this.#news.set();
  }

  /**
   * Something may be missing before the next item; the error costs so many bytes. Of several that a loop
   * finds in one place the last is told, with what is in doubt by all of them.
   *
   * @param {Gap} error
   * @param {number} [size]
   */
  gap(error, size = 0) {
    if (this.#end) return;
    const at = this.#gone + this.#items.length;
    this.#gapsTold += 1;
    this.#gaps.push({ number: this.#gapsTold, at, error, size, dropped: 0 });
    this.size += size;
    this.#tidy();
    this.#shelf.put(this.#reference, size);
    this.#boundGaps();
    this.#news.set();
  }

  /** The oldest item goes, or what a gap before it tells. Whoever has not read it is told. */
  drop() {
    const gap = this.#heavyGap;
    if (gap) this.#empty(gap);
    else this.#shift();
  }

  /** The first gap before the oldest item that tells something. */
  get #heavyGap() {
    return this.#gaps.find(({ at, size }) => at <= this.#gone && size > 0);
  }

  /** @param {Missing} gap */
  #empty(gap) {
    const { seconds, reason, inDoubt } = gap.error;
    this.#took(gap.size);
    gap.size = 0;
    gap.dropped += inDoubt.length;
    gap.error = new Gap(seconds, reason);
  }

  /** Of many gaps in one place the oldest are told no more, but for how much they have told. */
  #boundGaps() {
    if (this.#gaps.length <= GAPS_MAX) return;
    const end = this.#gone + this.#items.length;
    this.#boundGapsAt(({ at }) => at <= this.#gone);
    this.#boundGapsAt(({ at }) => at === end);
  }

  /** @param {(gap: Missing) => boolean} isThere */
  #boundGapsAt(isThere) {
    const there = this.#gaps.filter(isThere);
    while (there.length > GAPS_MAX) {
      const [oldest, next] = /** @type {[Missing, Missing]} */ (there);
      this.#empty(oldest);
      next.dropped += oldest.dropped;
      there.shift();
      this.#gaps.splice(this.#gaps.indexOf(oldest), 1);
    }
  }

  #shift() {
    const { size } = /** @type {{ size: number }} */ (this.#items.shift());
    this.#gone += 1;
    this.#took(size);
    this.#boundGaps();
  }

  /** @param {number} size */
  #took(size) {
    this.size -= size;
    this.#shelf.take(this.#reference, size, this.#items.length === 0 && this.size === 0);
  }

  /**
   * Nothing more comes. A loop stops after the rest, with this error if there is one.
   *
   * @param {Error | null} [error]
   */
  finish(error = null) {
    this.#end ??= { error };
    this.#news.set();
  }

  /** What every loop has read goes, and every gap that all were told of. */
  #tidy() {
    if (this.#keepsAll) return;
    const places = [...this.#left];
    for (const reference of this.#places) {
      const place = reference.deref();
      if (place) places.push(place);
      else this.#places.delete(reference);
    }
    let [needed, told] = [Infinity, Infinity];
    for (const { next, gap } of places) {
      needed = Math.min(needed, next);
      told = Math.min(told, gap);
    }
    while (this.#items.length > 0 && this.#gone < needed) this.#shift();
    for (let [first] = this.#gaps; first && first.number <= told; [first] = this.#gaps) {
      this.#gaps.shift();
      this.#took(first.size);
    }
  }

  // Reading

  [Symbol.asyncIterator]() {
    /** null between a Lagged or a Gap and going on. @type {Place | null} */
    let place = this.#enter();
    let isOver = false;
    return iterator(
      async () => {
        if (isOver) return { done: true, value: undefined };
        place ??= this.#enter();
        try {
          return await this.#next(place);
        } catch (error) {
          if (error instanceof Lagged || error instanceof Gap) {
            this.#leave(place);
            place = null;
          }
          throw error;
        }
      },
      () => {
        if (place && !isOver) this.#leave(place);
        isOver = true;
      },
    );
  }

  #enter() {
    const start = this.#keepsAll ? 0 : this.#gone + this.#items.length;
    const place = this.#left.shift() ?? this.#placeAt(start);
    this.#places.add(new WeakRef(place));
    return place;
  }

  /**
   * @param {number} next
   * @returns {Place}
   */
  #placeAt(next) {
    return { next, gap: this.#gapsTold, lag: this.#gapsTold, isLeft: false };
  }

  /** @param {Place} place */
  #leave(place) {
    for (const reference of this.#places) {
      if (reference.deref() === place) this.#places.delete(reference);
    }
    this.#left.push({ ...place });
    place.isLeft = true; // It may be waiting for the next item: that is not for it any more.
    this.#news.set();
  }

  /**
   * Throws what is to be told of the gaps in this place.
   *
   * @param {Place} place
   */
  #tellGaps(place) {
    const gaps = this.#gaps.filter(({ number, at }) => number > place.gap && at <= place.next);
    const last = gaps.at(-1);
    if (!last) return;
    const untold = gaps.filter(({ number }) => number > place.lag);
    const dropped = untold.reduce((sum, gap) => sum + gap.dropped, 0);
    place.lag = last.number;
    if (dropped > 0) throw new Lagged(dropped);
    place.gap = last.number;
    this.#tidy();
    const { seconds, reason } = last.error;
    throw gaps.length === 1
      ? last.error
      : new Gap(
          seconds,
          reason,
          gaps.flatMap(({ error }) => error.inDoubt),
        );
  }

  /**
   * @param {Place} place
   * @returns {Promise<IteratorResult<Item, undefined>>}
   */
  async #next(place) {
    while (!place.isLeft) {
      const missed = this.#gone - place.next;
      if (missed > 0) {
        place.next = this.#gone;
        throw new Lagged(missed);
      }
      this.#tellGaps(place);
      const next = this.#items[place.next - this.#gone];
      if (next) {
        place.next += 1;
        this.#read = Math.max(this.#read, place.next);
        this.#tidy();
        return { done: false, value: next.item };
      }
      if (this.#end?.error) throw this.#end.error;
      if (this.#end) return { done: true, value: undefined };
      await this.#news.next;
    }
    return { done: true, value: undefined };
  }
}
