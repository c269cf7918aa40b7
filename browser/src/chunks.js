/**
 * The chunks of one answer: which one is which, and whether one is missing. The twin of
 * protocol/member/chunks.py.
 *
 * A worker numbers its chunks (`data.chunkNum`), and its `turn_end` may say how many there were
 * (`data.chunks`). Peers of this project begin with 0, and existing pages with 1. So an answer may
 * begin with either, unless only a peer of this project can have given it. An answer in which a chunk
 * has no number is not judged, because not every worker counts.
 */

/** Above that the two languages do not read the same numbers. */
const WHOLE_MAX = 2 ** 53;

/** The chunks of one answer, as they come. */
export class Chunks {
  /** How many have come. */
  count = 0;
  /** The number of the next one; null before the first. @type {number | null} */
  #next = null;
  #hasNumbers = true;

  /**
   * A chunk with this number came, whatever that is. `begins`: what the first may have. Returns what is
   * wrong with the answer, in words, or null.
   *
   * @param {unknown} number
   * @param {readonly number[]} [begins]
   * @returns {string | null}
   */
  note(number, begins = [0, 1]) {
    const whole = wholeOf(number);
    if (whole === null) this.#hasNumbers = false;
    let wrong = null;
    if (this.#hasNumbers && whole !== null) {
      wrong = this.#wrong(whole, begins);
      this.#next = whole + 1;
    }
    this.count += 1;
    return wrong;
  }

  /**
   * @param {number} number
   * @param {readonly number[]} begins
   */
  #wrong(number, begins) {
    const next = this.#next;
    if (next === null) {
      if (begins.includes(number)) return null;
      return `the answer began with chunk ${number}: the ones before it were lost`;
    }
    if (number < next) {
      const cause = "does more than one program answer under this id?";
      return `chunk ${number} of the answer came after chunk ${next - 1}: ${cause}`;
    }
    if (number === next) return null;
    if (number === next + 1) return `chunk ${next} of the answer was lost`;
    return `chunks ${next} to ${number - 1} of the answer were lost`;
  }

  /**
   * The answer is over, and its worker says that it had so many chunks, if that is a number. Returns
   * what is wrong, in words, or null.
   *
   * @param {unknown} total
   * @returns {string | null}
   */
  end(total) {
    const whole = wholeOf(total);
    if (whole === null || !this.#hasNumbers || whole === this.count) return null;
    return `the answer had ${whole} chunks, and ${this.count} came`;
  }
}

/**
 * The value if it is a whole number that both languages read alike, else null.
 *
 * @param {unknown} value
 * @returns {number | null}
 */
function wholeOf(value) {
  return typeof value === "number" && Number.isInteger(value) && Math.abs(value) <= WHOLE_MAX
    ? value
    : null;
}
