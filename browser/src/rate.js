/** So many a second, and so many at once above that, as one number (GCRA). The twin of
 * protocol/rate.py. */

/** So many a second, and so many at once above that: one number, the time of the next one. */
export class Rate {
  #due = 0;
  #intervalS = 0;
  #burstS = 0;

  /**
   * @param {number} perS
   * @param {number} burst
   */
  constructor(perS, burst) {
    this.set(perS, burst);
  }

  /**
   * @param {number} perS
   * @param {number} burst
   */
  set(perS, burst) {
    this.#intervalS = 1 / perS;
    this.#burstS = Math.max(0, burst - 1) * this.#intervalS;
  }

  /** Nothing counts that went so far. */
  clear() {
    this.#due = 0;
  }

  /** When the next one may go. */
  get opensAt() {
    return this.#due - this.#burstS;
  }

  /**
   * So many go now.
   *
   * @param {number} at
   * @param {number} [count]
   */
  take(at, count = 1) {
    this.#due = Math.max(this.#due, at) + count * this.#intervalS;
  }
}
