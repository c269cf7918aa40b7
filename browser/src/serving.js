/** Commands served: calls the handler of a service for each (services.js decides). */

import { Command, isGenerator, sentenceOf, streamed } from "./command.js";
import { TurnError } from "./errors.js";

/**
 * @import { Driver, Happened } from "./driver.js"
 * @import { Handle } from "./effects.js"
 * @import { RelayError } from "./errors.js"
 */

/** @typedef {(command: Command) => unknown} Handler */

/** The handlers of one peer, and what they work on. */
export class Serving {
  #driver;
  #queued;
  /** By number of the service. @type {Map<number, Handler>} */
  #handlers = new Map();
  /** By number of the command: what tells its handler to stop. @type {Map<number, AbortController>} */
  #aborts = new Map();

  /**
   * @param {Driver} driver
   * @param {(put: Happened<number>) => Promise<void>} queued queues something, and resolves when it
   *   is handed to the socket
   */
  constructor(driver, queued) {
    this.#driver = driver;
    this.#queued = queued;
  }

  /**
   * Has commands handled. Returns how to stop that.
   *
   * @param {Handler} handler
   * @param {{ agents?: readonly string[], atATime?: number }} how
   */
  serve(handler, { agents, atATime }) {
    if (typeof handler !== "function") throw new TypeError("the handler must be a function");
    const service = this.#driver.tell((member, now) => {
      const number = member.serve(agents ?? null, now, { atATime: atATime ?? null });
      this.#handlers.set(number, handler);
      return number;
    });
    return () => {
      this.#driver.tell((member, now) => member.stopServing(service, now, { cancels: false }));
      this.#handlers.delete(service);
    };
  }

  /** @param {Handle} handle */
  async handle({ service, command, agent, message }) {
    const handler = this.#handlers.get(service);
    /** @param {string} chunk */
    const stream = (chunk) => this.#queued((member, now) => member.stream(command, chunk, now));
    const { signal } = this.#abortable(command);
    try {
      await null; // So that a handler never runs in the middle of something.
      const returned = await handler?.(new Command(message, agent, stream, signal));
      const result = isGenerator(returned) ? await streamed(returned, stream) : returned;
      if (signal.aborted) return; // The command is over; nobody waits for the result.
      this.#driver.tell((member, now) => member.finish(command, result, now));
    } catch (error) {
      if (signal.aborted) return;
      if (this.#driver.member.over === null) {
        console.error(`agi-diy-relay-client: the handler of ${agent} failed:`, error);
      }
      this.#driver.report((member, now) => member.fail(command, sentenceOf(error), now));
    } finally {
      this.#driver.report((member) => member.returned(command));
      this.#aborts.delete(command);
    }
  }

  /** @param {number} command */
  #abortable(command) {
    const abort = new AbortController();
    this.#aborts.set(command, abort);
    return abort;
  }

  /**
   * Nobody waits for this command any more, or the peer leaves and has told its asker so.
   *
   * @param {number} command
   */
  cancelled(command) {
    const { over } = this.#driver.member;
    this.#abort(command, over ?? new TurnError("nobody waits for this command any more"));
  }

  /**
   * The peer is over.
   *
   * @param {RelayError} over
   */
  end(over) {
    for (const command of [...this.#aborts.keys()]) this.#abort(command, over);
  }

  /**
   * @param {number} command
   * @param {RelayError} reason
   */
  #abort(command, reason) {
    this.#aborts.get(command)?.abort(reason);
    this.#aborts.delete(command);
  }
}
