/**
 * How many commands a service has at a time, and which of them wait for the one before to end. The twin
 * of protocol/member/places.py.
 *
 * A handler may be one that cannot run twice at once (`atATime`). Commands beyond that wait in its
 * service, in their order, up to `serviceQueueMax`. A place is free again when the handler itself has
 * ended. That may be long after its command was over: a handler that was told to stop takes its time.
 */

/**
 * The places of one service: commands by their numbers.
 *
 * @typedef {{ atATime: number, taken: Set<number>, waiting: number[] }} ServicePlaces
 */

/** The places of all services of a peer. A service without a bound has none here, and takes everything
 * at once. */
export class Places {
  /** @type {Map<number, ServicePlaces>} */
  #byService = new Map();

  /** @param {number} queueMax */
  constructor(queueMax) {
    this.queueMax = queueMax;
  }

  /**
   * A service begins.
   *
   * @param {number} service
   * @param {number | null} atATime
   */
  open(service, atATime) {
    if (atATime === null) return;
    this.#byService.set(service, { atATime, taken: new Set(), waiting: [] });
  }

  /**
   * A service has ended. Returns what waited there.
   *
   * @param {number} service
   * @returns {number[]}
   */
  close(service) {
    const places = this.#byService.get(service);
    this.#byService.delete(service);
    return [...(places?.waiting ?? [])];
  }

  /**
   * One more would find no place, not even to wait.
   *
   * @param {number} service
   */
  isFull(service) {
    const places = this.#byService.get(service);
    return places !== undefined && places.waiting.length >= this.queueMax;
  }

  /**
   * A command comes. Returns whether it is its turn at once.
   *
   * @param {number} service
   * @param {number} command
   */
  enter(service, command) {
    const places = this.#byService.get(service);
    if (!places) return true;
    if (places.taken.size >= places.atATime) {
      places.waiting.push(command);
      return false;
    }
    places.taken.add(command);
    return true;
  }

  /**
   * A command is over. Returns whether it was still waiting.
   *
   * @param {number} service
   * @param {number} command
   */
  withdraw(service, command) {
    const places = this.#byService.get(service);
    if (!places?.waiting.includes(command)) return false;
    places.waiting = places.waiting.filter((other) => other !== command);
    return true;
  }

  /**
   * The handler of this command has ended. Returns whose turn it is now, if anyone's.
   *
   * @param {number} command
   * @returns {number | null}
   */
  leave(command) {
    for (const places of this.#byService.values()) {
      if (!places.taken.delete(command)) continue;
      const following = places.waiting.shift();
      if (following === undefined) return null;
      places.taken.add(following);
      return following;
    }
    return null;
  }
}
