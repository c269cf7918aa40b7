/** Who wants to hear of what happens to a peer, and is told. */

/**
 * @template {Record<string, any>} Events by name: what its listeners are told
 */
export class Listeners {
  /** @type {Map<keyof Events, Set<{ listener: (told: any) => void }>>} */
  #listeners = new Map();
  #report;

  /**
   * @param {readonly (keyof Events & string)[]} names of the events
   * @param {(error: unknown) => void} report takes what a listener throws
   */
  constructor(names, report) {
    for (const name of names) this.#listeners.set(name, new Set());
    this.#report = report;
  }

  /**
   * Calls the listener from now on. Returns how to stop that. Throws TypeError.
   *
   * @template {keyof Events & string} Name
   * @param {Name} name
   * @param {(told: Events[Name]) => void} listener
   * @returns {() => void}
   */
  on(name, listener) {
    const listeners = this.#listeners.get(name);
    if (!listeners) {
      const names = [...this.#listeners.keys()].map(String).join(", ");
      throw new TypeError(`there is no event ${name}; there are ${names}`);
    }
    if (typeof listener !== "function") throw new TypeError("the listener must be a function");
    const one = { listener }; // Whoever listens twice is told twice, and can stop once.
    listeners.add(one);
    return () => void listeners.delete(one);
  }

  /**
   * Somebody listens to this.
   *
   * @param {keyof Events} name
   */
  has(name) {
    return (this.#listeners.get(name)?.size ?? 0) > 0;
  }

  /**
   * Tells all who listen now. One that throws keeps it from nobody.
   *
   * @template {keyof Events} Name
   * @param {Name} name
   * @param {Events[Name]} told
   */
  tell(name, told) {
    const listeners = this.#listeners.get(name) ?? new Set();
    for (const one of [...listeners]) {
      if (!listeners.has(one)) continue; // Another one has stopped it meanwhile.
      try {
        one.listener(told);
      } catch (error) {
        this.#report(error);
      }
    }
  }
}
