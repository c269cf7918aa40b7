/**
 * Reads server-sent events, as the HTML standard says how. No I/O: text goes in, events come out.
 *
 * (The browser's own EventSource cannot send a token.)
 */

/** An event of more characters than this ends the reading. A mesh of 5 000 peers has 2 million. */
export const EVENT_CHARS_MAX = 2 ** 26;

/**
 * @typedef {{ type: string, data: string }} ServerSent
 */

export class ServerSentEvents {
  /** What has come of a line that has not ended. @type {string[]} */
  #begun = [];
  /** Of the event that has not ended. */
  #chars = 0;
  #type = "";
  /** @type {string[]} */
  #data = [];
  /** The text before this one ended with CR: an LF now belongs to it. */
  #endedWithCr = false;

  /**
   * The events that end in this piece of the stream. Throws RangeError for one that is too long.
   *
   * @param {string} text
   * @returns {ServerSent[]}
   */
  read(text) {
    if (text === "") return [];
    const rest = this.#endedWithCr && text.startsWith("\n") ? text.slice(1) : text;
    this.#endedWithCr = text.endsWith("\r");
    const events = [];
    let from = 0;
    for (const end of rest.matchAll(/\r\n|\r|\n/g)) {
      this.#put(rest.slice(from, end.index));
      const line = this.#begun.join("");
      this.#begun = [];
      from = end.index + end[0].length;
      const event = line === "" ? this.#end() : this.#line(line);
      if (event) events.push(event);
    }
    this.#put(rest.slice(from));
    return events;
  }

  /** @param {string} piece of a line */
  #put(piece) {
    this.#chars += piece.length;
    if (this.#chars > EVENT_CHARS_MAX) throw new RangeError("an event is too long");
    if (piece !== "") this.#begun.push(piece);
  }

  /**
   * @param {string} line
   * @returns {null}
   */
  #line(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "event") this.#type = value;
    if (name === "data") this.#data.push(value);
    return null; // Comments, ids and `retry` say nothing to us.
  }

  /** @returns {ServerSent | null} */
  #end() {
    const event = { type: this.#type || "message", data: this.#data.join("\n") };
    const isEvent = this.#data.length > 0;
    this.#type = "";
    this.#data = [];
    this.#chars = 0;
    return isEvent ? event : null;
  }
}
