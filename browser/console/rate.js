/** How many a second, worked out from a count that grows. */

/** For which what has happened counts, about (seconds). */
export const MEMORY_S = 3;

/**
 * A mean over the last seconds, in which what is older counts less. It is right from the first interval
 * on, and it needs no intervals of the same length.
 */
export class Rate {
  #sum = 0;
  #weight = 0;

  /**
   * So many more within so many seconds.
   *
   * @param {number} count
   * @param {number} seconds
   */
  add(count, seconds) {
    const kept = Math.exp(-seconds / MEMORY_S);
    const share = seconds > 0 ? (1 - kept) / seconds : 1 / MEMORY_S;
    this.#sum = this.#sum * kept + count * share;
    this.#weight = this.#weight * kept + 1 - kept;
  }

  get perS() {
    return this.#weight > 0.01 ? this.#sum / this.#weight : 0;
  }
}

/**
 * How much a count has grown. One that is smaller than it was has begun anew.
 *
 * @param {number} before
 * @param {number} now
 */
export function growth(before, now) {
  return now >= before ? now - before : now;
}
