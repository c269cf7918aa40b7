/** What is told to those who listen for the state of a peer and for its roster: what has changed since
 * they were told last. */

import { compare, isEmpty } from "./roster.js";

/**
 * @import { State } from "./lifecycle.js"
 * @import { Listeners } from "./listeners.js"
 * @import { RemotePeer } from "./messages.js"
 * @import { Events } from "./options.js"
 */

/**
 * What there is to be told of now.
 *
 * @typedef {{ state: State, roster: Map<string, RemotePeer> }} Seen
 */

export class News {
  #listeners;
  #seen;
  /** What those who listen were told last. @type {State} */
  #state = "waiting";
  /** The same; null while nobody listens. @type {Map<string, RemotePeer> | null} */
  #roster = null;
  /** The roster may be another than that. */
  #isDue = false;

  /**
   * @param {Listeners<Events>} listeners
   * @param {Seen} seen
   */
  constructor(listeners, seen) {
    this.#listeners = listeners;
    this.#seen = seen;
  }

  /** Somebody listens for the roster from now on. */
  follow() {
    this.#roster ??= this.#seen.roster;
  }

  /** The roster may have changed. */
  note() {
    this.#isDue = true;
  }

  /** Tells what has changed. */
  tell() {
    const { state } = this.#seen;
    if (state !== this.#state) {
      this.#state = state;
      this.#listeners.tell("state", state);
    }
    if (this.#roster === null || !this.#isDue) return;
    this.#isDue = false;
    if (!this.#listeners.has("roster")) {
      this.#roster = null;
      return;
    }
    const change = compare(this.#roster, this.#seen.roster);
    this.#roster = new Map(change.here);
    if (!isEmpty(change)) this.#listeners.tell("roster", change);
  }
}
