/** A command that is served, as its handler sees it. What is answered is decided in services.js. */

import { warnOnce } from "./deprecated.js";
import { isRecord, textOf, word } from "./messages.js";

/**
 * @import { Json, Message } from "./messages.js"
 */

/** A command to one of this peer's agents. */
export class Command {
  /** What is asked: `data.command` if that is text, else its JSON. @type {string} */
  text;
  /** The peer, or one of its agents, that asks. The answers go to it. @type {string | undefined} */
  from;
  /** The id of the peer that asks. The relay guarantees it. @type {string | undefined} */
  asker;
  /** The one of this peer's agents that is asked, or the peer's own id. @type {string} */
  agent;
  /** What ties the command and its answers together. @type {string} */
  turnId;
  /** All that the message says; `data.command` is the command as it was given.
   * @type {Readonly<Record<string, Json>>} */
  data;
  /**
   * Sends a piece of the answer. Resolves when it is handed to the socket. Rejects as `Peer.send`
   * does, and with a TurnError after the command was answered.
   *
   * @type {(chunk: string) => Promise<void>}
   */
  stream;
  #signal;

  /**
   * @param {Message} message
   * @param {string} agent
   * @param {(chunk: string) => Promise<void>} stream
   * @param {AbortSignal} signal
   */
  constructor(message, agent, stream, signal) {
    this.text = textOf(word(message, "command"));
    this.from = message.from;
    this.asker = message.origin;
    this.agent = agent;
    this.turnId = message.turnId ?? "";
    /** @type {unknown} */
    const data = message.data;
    this.data = isRecord(data) ? data : {};
    this.stream = stream;
    this.#signal = signal;
  }

  /** It is aborted when nobody waits for the answer any more: pass it on to whatever takes long. */
  get signal() {
    return this.#signal;
  }

  /**
   * The old name of `asker`.
   *
   * @deprecated
   */
  get origin() {
    warnOnce("command.origin", "command.asker");
    return this.asker;
  }
}

/**
 * It is a generator, async or not: what a generator function returns.
 *
 * @param {any} returned by a handler
 * @returns {returned is Generator<string> | AsyncGenerator<string>}
 */
export function isGenerator(returned) {
  const kind = Object.prototype.toString.call(returned);
  return kind === "[object AsyncGenerator]" || kind === "[object Generator]";
}

/**
 * What the generator returns, after all that it yields was streamed.
 *
 * @param {Generator<string> | AsyncGenerator<string>} chunks
 * @param {(chunk: string) => Promise<void>} stream
 * @returns {Promise<unknown>}
 */
export async function streamed(chunks, stream) {
  try {
    for (;;) {
      const { done, value } = await chunks.next();
      if (done) return value;
      await stream(value);
    }
  } finally {
    await chunks.return(undefined);
  }
}

/**
 * What is told of anything that a handler threw: something in any case.
 *
 * @param {any} thrown
 * @returns {string}
 */
export function sentenceOf(thrown) {
  let text = "";
  try {
    text = String(thrown?.message || thrown?.name || thrown);
  } catch {
    // An object that cannot even be shown.
  }
  return text || "an error without words";
}
