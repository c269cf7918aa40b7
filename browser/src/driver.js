/** One `Member` in time: it gets the present moment, and what it decides is carried out. The twin of
 * actors/client/driver.py. */

/**
 * @import { Effect, Instant } from "./effects.js"
 * @import { Member } from "./member.js"
 * @import { World } from "./world.js"
 */

/**
 * Something that the member is told.
 *
 * @template [Result=void]
 * @typedef {(member: Member, now: Instant) => Result} Happened
 */

export class Driver {
  #world;
  #carryOut;
  #settled;
  #isObeying = false;
  /** @type {(() => void) | null} */
  #cancelAlarm = null;
  #alarmAt = Infinity;

  /**
   * @param {Member} member
   * @param {World} world
   * @param {{ carryOut: (effect: Effect) => void, settled: () => void }} owner `carryOut` is called with
   *   every effect, in order; `settled` when there are none left: something may be sent now
   */
  constructor(member, world, { carryOut, settled }) {
    this.member = member;
    this.#world = world;
    this.#carryOut = carryOut;
    this.#settled = settled;
  }

  /** @returns {Instant} */
  now() {
    return { at: this.#world.now(), wallMs: this.#world.wall() };
  }

  /**
   * Tells the member something, and obeys. What it throws is the caller's.
   *
   * @template Result
   * @param {Happened<Result>} happened
   * @returns {Result}
   */
  tell(happened) {
    try {
      return happened(this.member, this.now());
    } finally {
      this.obey();
    }
  }

  /**
   * The same for what nobody called, so that nobody could catch what goes wrong.
   *
   * @param {Happened} happened
   */
  report(happened) {
    try {
      this.tell(happened);
    } catch (error) {
      this.#world.report(error);
    }
  }

  /** Carries out what the member has decided, one after the other. What comes of an effect is told to
   * the member at once, and obeyed after the effects before it. */
  obey() {
    if (this.#isObeying) return;
    this.#isObeying = true;
    try {
      do {
        this.flush();
        this.#settled();
      } while (this.flush());
    } finally {
      this.#isObeying = false;
    }
    this.#setAlarm();
  }

  /** Carries out what the member has decided so far, in the middle of something: what is sent must go in
   * the order in which it was decided. Returns whether there was anything. */
  flush() {
    const effects = this.member.takeEffects();
    for (const effect of effects) this.#carryOut(effect);
    return effects.length > 0;
  }

  /** One alarm, for the member's deadline. Being too early does no harm. */
  #setAlarm() {
    const due = this.member.deadline();
    if (due === null || this.#alarmAt <= due) return;
    this.#cancelAlarm?.();
    this.#alarmAt = due;
    this.#cancelAlarm = this.after(due - this.#world.now(), () => {
      this.#alarmAt = Infinity;
      this.report((member, now) => {
        if ((member.deadline() ?? Infinity) <= now.at) member.expire(now);
      });
    });
  }

  /**
   * Calls back after so many seconds (a millisecond at least); returns how to cancel that.
   *
   * @param {number} seconds
   * @param {() => void} callback
   */
  after(seconds, callback) {
    return this.#world.timer(Math.max(0.001, seconds), callback);
  }

  /** Nothing will be due any more. */
  end() {
    this.#cancelAlarm?.();
  }
}
