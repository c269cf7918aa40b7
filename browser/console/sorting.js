/**
 * Which peers the table of agents shows, and in which order. No I/O.
 *
 * @import { Verdict } from "./attention.js"
 * @import { Model, Seen } from "./model.js"
 */

import { gravity } from "./attention.js";

/** @typedef {"id" | "host" | "state" | "heard" | "queue" | "in" | "out" | "turns"} Column */

/**
 * @typedef {object} Choice
 * @property {string} text must be in a peer's id, name, host or agents
 * @property {"all" | "present" | "stale" | "trouble"} state
 * @property {Column | null} column null: those in trouble first, and then by id
 * @property {boolean} isDescending
 */

/** @type {Choice} */
export const ALL = Object.freeze({ text: "", state: "all", column: null, isDescending: false });

const names = new Intl.Collator(undefined, { numeric: true });

/**
 * What a column is sorted by. Numbers are first shown with the largest on top, words with the first.
 *
 * @param {Column | null} column
 * @param {Model} model
 * @param {Verdict["marks"]} marks
 * @returns {(seen: Seen) => string | number}
 */
function valuesOf(column, model, marks) {
  switch (column) {
    case null:
      return ({ id }) => gravity(marks.get(id));
    case "id":
      return ({ id }) => id;
    case "host":
      return ({ told }) => told.host ?? "";
    case "state":
      return ({ told }) => told.state;
    case "heard":
      return ({ told }) => told.heard_ms;
    case "queue":
      return (seen) => model.fullness(seen);
    case "in":
      return (seen) => seen.in.perS;
    case "out":
      return (seen) => seen.out.perS;
    case "turns":
      return (seen) => seen.turns.length;
  }
}

/** @param {Column} column */
export function isOfNumbers(column) {
  return !["id", "host", "state"].includes(column);
}

/** Keeps the order from one look to the next, so that sorting anew costs little. */
export class Order {
  /** All of them, by id. @type {Seen[]} */
  #all = [];
  #comings = -1;
  /** What was shown last. @type {Seen[]} */
  #shown = [];
  #chosen = "";

  /**
   * The peers to show. `isHeld`: none of those that are shown may move now, because somebody points at
   * one.
   *
   * @param {Model} model
   * @param {Verdict} verdict
   * @param {Readonly<Choice>} choice
   * @param {boolean} [isHeld]
   * @returns {Seen[]}
   */
  arrange(model, { marks }, choice, isHeld = false) {
    if (this.#comings !== model.comings) {
      this.#comings = model.comings;
      this.#all = [...model.peers.values()];
      this.#all.sort(
        (one, other) => names.compare(one.id, other.id) || (one.id < other.id ? -1 : 1),
      );
    }
    const text = choice.text.trim().toLowerCase();
    const found = this.#all.filter(
      (seen) =>
        (text === "" || seen.words.includes(text)) &&
        (choice.state === "all" ||
          (choice.state === "trouble" ? marks.has(seen.id) : seen.told.state === choice.state)),
    );
    const chosen = JSON.stringify(choice);
    if (isHeld && chosen === this.#chosen) return this.#hold(found);
    this.#chosen = chosen;
    const { column, isDescending } = choice;
    const worth = valuesOf(column, model, marks);
    const rows = found.map((seen) => ({ seen, value: worth(seen) }));
    const sign = isDescending ? -1 : 1;
    // What is alike stays in the order of ids.
    rows.sort(({ value: one }, { value: other }) =>
      typeof one === "number" && typeof other === "number"
        ? sign * (one - other)
        : sign * names.compare(String(one), String(other)),
    );
    this.#shown = rows.map(({ seen }) => seen);
    return this.#shown;
  }

  /** @param {Seen[]} found */
  #hold(found) {
    const [present, before] = [new Set(found), new Set(this.#shown)];
    this.#shown = [
      ...this.#shown.filter((seen) => present.has(seen)),
      ...found.filter((seen) => !before.has(seen)),
    ];
    return this.#shown;
  }
}
