/**
 * The list of events: comings, goings, refusals, evictions, the latest first.
 *
 * @import { Model } from "./model.js"
 * @import { Happening } from "./types.js"
 */

import { at, make, say, set, show } from "./dom.js";
import { clock, count } from "./format.js";
import { Rows } from "./rows.js";
import { short } from "./text.js";

/** A shape and a word for each kind of event. @type {Record<string, string>} */
const WORDS = {
  joined: "→ joined",
  left: "← left",
  refused: "⊘ refused",
  spared: "◌ spared",
  closed: "✕ closed",
};

/** What causes and codes mean, in words. @type {Record<string, string>} */
const WHY = {
  left: "of itself",
  silent: "silent for too long",
  evicted: "it read too slowly",
  crashed: "an error in the relay",
  rate_limited: "too fast",
  echoed: "it says again what others have said",
  unknown_target: "nobody has that name",
  ambiguous_target: "several have that name",
  too_large: "the message is too large",
  lagging: "it is behind with answers to others",
};

/**
 * The events as they are shown, the latest first. What happens again and again to one peer is one line.
 *
 * @param {readonly Happening[]} events the oldest first
 * @returns {Happening[]}
 */
export function merged(events) {
  /** @type {Happening[]} */
  const lines = [];
  for (const event of events) {
    const last = lines.at(-1);
    const isSame = last?.what === event.what && last.peer === event.peer && last.why === event.why;
    if (!isSame || event.peer === null) lines.push(event);
    else
      lines.splice(-1, 1, { ...event, n: last.n, count: (last.count ?? 1) + (event.count ?? 1) });
  }
  return lines.reverse();
}

/** The cells of a line. */
class Line {
  whole = make("div");
  time = make("span", "time");
  what = make("span", "what");
  peer = make("b", "peer");
  why = make("span", "why");

  constructor() {
    for (const cell of [this.time, this.what, this.peer, this.why]) {
      cell.setAttribute("role", "gridcell");
      this.whole.append(cell);
    }
  }
}

export class Happenings {
  /** @type {Map<HTMLElement, Line>} */
  #lines = new Map();
  #rows;
  #text = /** @type {HTMLInputElement} */ (at("events-text"));
  #kind = /** @type {HTMLSelectElement} */ (at("events-kind"));
  /** As the relay tells them. @type {readonly Happening[]} */
  #events = [];
  /** @type {Happening[]} */
  #all = [];

  /** @param {(id: string) => void} toPeer leads to the peer of an event */
  constructor(toPeer) {
    this.#rows = new Rows(at("events-lines"), {
      key: (/** @type {Happening} */ { n }) => String(n),
      make: () => {
        const line = new Line();
        this.#lines.set(line.whole, line);
        return line.whole;
      },
      fill: (element, event) => this.#fill(this.#lines.get(element), event),
      open: ({ peer }) => {
        if (peer !== null) toPeer(peer);
      },
      dropped: (element) => this.#lines.delete(element),
    });
    this.#text.addEventListener("input", () => this.#redraw());
    this.#kind.addEventListener("change", () => this.#redraw());
  }

  /** @param {Model} model */
  show({ events }) {
    if (events === this.#events) return;
    this.#events = events;
    this.#all = merged(events);
    this.#redraw();
  }

  #redraw() {
    const text = this.#text.value.trim().toLowerCase();
    const kinds = this.#kind.value.split(" ");
    const shown = this.#all.filter(
      ({ what, peer, why }) =>
        (kinds[0] === "all" || kinds.includes(what)) &&
        [what, peer ?? "", why ?? ""].join("\n").toLowerCase().includes(text),
    );
    say(
      at("events-count"),
      this.#events.length === 0 ? "" : `the latest ${count(this.#events.length)}`,
    );
    set(at("events-grid"), { "aria-rowcount": shown.length });
    const none = at("events-none");
    none.hidden = shown.length > 0;
    say(
      none,
      this.#all.length === 0 ? "Nothing has happened yet." : "No event is as you have chosen.",
    );
    this.#rows.show(shown);
  }

  /**
   * @param {Line | undefined} line
   * @param {Happening} event
   */
  #fill(line, { at_ms, what, peer, connection, why, count: times }) {
    if (!line) return;
    say(line.time, clock(at_ms));
    show(line.what, WORDS[what] ?? what, 16);
    line.whole.dataset.what = what;
    show(line.peer, peer ?? (connection === null ? "" : `connection ${connection}`), 32);
    const meaning = Object.hasOwn(WHY, why ?? "") ? WHY[why ?? ""] : undefined;
    const cause = why === null || why === what ? "" : (meaning ?? short(why, 60));
    const often = times !== null && times > 1 ? `${count(times)} times` : "";
    say(line.why, [often, cause].filter(Boolean).join(": "));
    const title = [often, cause, meaning === undefined ? "" : `(${why})`].filter(Boolean).join(" ");
    if (line.why.title !== title) line.why.title = title;
  }
}
