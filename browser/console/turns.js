/**
 * The table of turns: commands that are open, and the latest that are over.
 *
 * @import { Verdict } from "./attention.js"
 * @import { Model } from "./model.js"
 * @import { Turn } from "./types.js"
 */

import { at, make, say, set, show } from "./dom.js";
import { count, duration } from "./format.js";
import { Rows } from "./rows.js";
import { whole } from "./text.js";

/** A shape and a word for each outcome. @type {Record<string, string>} */
const OUTCOMES = {
  open: "▷ open",
  stuck: "■ stuck",
  ended: "✓ ended",
  failed: "✕ failed",
  cancelled: "⊘ cancelled",
  left: "← asker left",
};
const COLUMNS = ["asker → agent", "outcome", "age", "silent", "chunks"];

/** @typedef {Turn & { key: string, worker: string | null, isStuck: boolean }} Shown */

/** The cells of a line. */
class Line {
  whole = make("div");
  asker = make("b", "party");
  worker = make("b", "party");
  outcome = make("span", "outcome");
  age = make("span", "age number");
  silent = make("span", "silent number");
  chunks = make("span", "chunks number");

  constructor() {
    const arrow = make("span", "dim", " → ");
    const who = make("span", "who", this.asker, arrow, this.worker);
    for (const cell of [who, this.outcome, this.age, this.silent, this.chunks]) {
      cell.setAttribute("role", "gridcell");
      this.whole.append(cell);
    }
  }
}

export class Turns {
  /** @type {Map<HTMLElement, Line>} */
  #lines = new Map();
  #rows;
  #text = /** @type {HTMLInputElement} */ (at("turns-text"));
  #state = /** @type {HTMLSelectElement} */ (at("turns-state"));
  /** @type {Shown[]} */
  #all = [];
  #nowMs = 0;

  /** @param {(id: string) => void} toPeer leads to the peer that works on a turn */
  constructor(toPeer) {
    this.#rows = new Rows(at("turns-lines"), {
      key: (/** @type {Shown} */ { key }) => key,
      make: () => {
        const line = new Line();
        this.#lines.set(line.whole, line);
        return line.whole;
      },
      fill: (element, turn) => this.#fill(this.#lines.get(element), turn),
      open: ({ worker }) => {
        if (worker !== null) toPeer(worker);
      },
      dropped: (element) => this.#lines.delete(element),
    });
    for (const name of COLUMNS) {
      const head = make("div", name === COLUMNS[0] || name === "outcome" ? "" : "number", name);
      head.setAttribute("role", "columnheader");
      at("turns-heads").append(head);
    }
    this.#text.addEventListener("input", () => this.#redraw());
    this.#state.addEventListener("change", () => this.#redraw());
  }

  /**
   * @param {Model} model
   * @param {Verdict} verdict
   * @param {number} nowMs by the relay's clock
   */
  show(model, { stuck }, nowMs) {
    this.#nowMs = nowMs;
    this.#all = [...model.turns].map(([key, turn]) => ({
      ...turn,
      ...{ key, worker: model.workers.get(key) ?? turn.by ?? turn.to, isStuck: stuck.has(key) },
    }));
    const rank = (/** @type {Shown} */ turn) => (turn.isStuck ? 0 : turn.outcome === null ? 1 : 2);
    this.#all.sort((one, other) => {
      const difference = rank(one) - rank(other);
      if (difference !== 0) return difference;
      return rank(one) === 0 ? one.last_ms - other.last_ms : other.last_ms - one.last_ms;
    });
    this.#redraw();
  }

  /**
   * Bring a turn into sight, whatever was chosen before.
   *
   * @param {string} key
   */
  jump(key) {
    if (this.#rows.jump(key)) return;
    this.#text.value = "";
    this.#state.value = "all";
    this.#redraw();
    this.#rows.jump(key);
  }

  #redraw() {
    const text = this.#text.value.trim().toLowerCase();
    const state = this.#state.value;
    const shown = this.#all.filter(
      ({ id, asker, to, by, outcome }) =>
        (state === "all" || (state === "open") === (outcome === null)) &&
        [id, asker, to ?? "", by ?? ""].join("\n").toLowerCase().includes(text),
    );
    const open = this.#all.filter(({ outcome }) => outcome === null).length;
    say(at("turns-count"), `${count(open)} open`);
    set(at("turns-grid"), { "aria-rowcount": shown.length + 1 });
    const none = at("turns-none");
    none.hidden = shown.length > 0;
    say(
      none,
      this.#all.length === 0 ? "No command was given lately." : "No turn is as you have chosen.",
    );
    this.#rows.show(shown);
  }

  /**
   * @param {Line | undefined} line
   * @param {Shown} turn
   */
  #fill(line, turn) {
    if (!line) return;
    const { asker, worker, outcome, began_ms, last_ms, chunks, isStuck } = turn;
    show(line.asker, asker, 28);
    show(line.worker, worker ?? "everyone", 28);
    const state = isStuck ? "stuck" : (outcome ?? "open");
    say(line.outcome, OUTCOMES[state] ?? state);
    line.whole.dataset.outcome = state;
    const untilMs = outcome === null ? this.#nowMs : last_ms;
    say(line.age, duration((untilMs - began_ms) / 1000));
    say(line.silent, outcome === null ? duration((this.#nowMs - last_ms) / 1000) : "");
    say(line.chunks, chunks > 0 ? count(chunks) : "");
    const title = `turn ${whole(turn.id)}`;
    if (line.whole.title !== title) line.whole.title = title;
    line.whole.dataset.trouble = isStuck ? "stuck" : "";
  }
}
