/**
 * The table of agents: a line for each peer of the mesh.
 *
 * @import { Kind, Verdict } from "./attention.js"
 * @import { Model, Seen } from "./model.js"
 * @import { Choice, Column } from "./sorting.js"
 */

import { at, make, say, set, show } from "./dom.js";
import { brief, briefRate, bytes, count, duration } from "./format.js";
import { Rows } from "./rows.js";
import { ALL, isOfNumbers, Order } from "./sorting.js";
import { isBlank, whole } from "./text.js";
import { tag } from "./troubles.js";

/** @type {[column: Column, name: string, title: string][]} */
const COLUMNS = [
  ["id", "agent", "the id of the peer, its name and its agents"],
  ["host", "host", "where it says that it runs"],
  ["state", "state", "present, or stale: silent for some time"],
  ["heard", "heard", "its last sign of life"],
  ["queue", "queue", "what waits for it, of what may wait"],
  ["in", "in/s", "messages a second that it says"],
  ["out", "out/s", "messages a second that it gets"],
  ["turns", "turns", "open commands that it works on"],
];

/** The cells of a line. */
class Line {
  whole = make("div");
  id = make("b", "id");
  tags = make("span", "tags");
  more = make("small", "more");
  host = make("span", "host");
  state = make("span", "state");
  heard = make("span", "heard");
  queue = new Bar("queue");
  in = new Bar("in");
  out = make("span", "out number");
  turns = make("span", "turns number");
  shownTags = "";

  constructor() {
    const first = make("div", "agent", make("div", "names", this.id, this.tags), this.more);
    const cells = [first, this.host, this.state, this.heard, this.queue.whole, this.in.whole];
    for (const cell of [...cells, this.out, this.turns]) {
      cell.setAttribute("role", "gridcell");
      this.whole.append(cell);
    }
  }
}

/** A number, and a bar as long as its part of the most. */
class Bar {
  number = make("span");
  bar = make("i");

  /** @param {string} name */
  constructor(name) {
    this.whole = make("span", `${name} bar number`, this.bar, this.number);
  }

  /**
   * @param {string} text
   * @param {number} part from 0 to 1
   */
  show(text, part) {
    say(this.number, text);
    const width = `${Math.round(100 * Math.min(1, part))}%`;
    if (this.bar.style.width !== width) this.bar.style.width = width;
  }
}

export class Agents {
  /** @type {Choice} */
  #choice = { ...ALL };
  #order = new Order();
  /** @type {Map<HTMLElement, Line>} */
  #lines = new Map();
  #rows;
  /** @type {Model | null} */
  #model = null;
  /** @type {Verdict} */
  #verdict = { troubles: [], marks: new Map(), stuck: new Set() };
  #nowMs = 0;
  /** What a full bar of `in` is. */
  #most = 1;

  /** @param {(id: string) => void} chosen a peer is to be asked */
  constructor(chosen) {
    this.#rows = new Rows(at("agents-lines"), {
      key: (/** @type {Seen} */ { id }) => id,
      make: () => {
        const line = new Line();
        this.#lines.set(line.whole, line);
        return line.whole;
      },
      fill: (element, seen) => this.#fill(this.#lines.get(element), seen),
      open: ({ id }) => chosen(id),
      dropped: (element) => this.#lines.delete(element),
    });
    this.#makeHeads();
    const text = /** @type {HTMLInputElement} */ (at("agents-text"));
    const state = /** @type {HTMLSelectElement} */ (at("agents-state"));
    text.addEventListener("input", () => this.#choose({ text: text.value }));
    state.addEventListener("change", () => {
      this.#choose({ state: /** @type {Choice["state"]} */ (state.value) });
    });
  }

  #makeHeads() {
    for (const [column, name, title] of COLUMNS) {
      const button = make("button", "", name);
      button.type = "button";
      button.title = title;
      button.addEventListener("click", () => this.#sort(column));
      const head = make("div", isOfNumbers(column) && column !== "heard" ? "number" : "", button);
      head.setAttribute("role", "columnheader");
      head.dataset.column = column;
      at("agents-heads").append(head);
    }
    const sort = /** @type {HTMLSelectElement} */ (at("agents-sort"));
    sort.append(new Option("trouble first", ""));
    for (const [column, name] of COLUMNS) sort.append(new Option(name, column));
    sort.addEventListener("change", () => {
      const column = /** @type {Column | ""} */ (sort.value);
      this.#choose({ column: column || null, isDescending: column !== "" && isOfNumbers(column) });
    });
  }

  /** @param {Column} column once: sorted by it; twice: the other way; then as at first */
  #sort(column) {
    const first = isOfNumbers(column);
    const { column: before, isDescending } = this.#choice;
    if (before !== column) this.#choose({ column, isDescending: first });
    else if (isDescending === first) this.#choose({ isDescending: !first });
    else this.#choose({ column: null, isDescending: false });
  }

  /** @param {Partial<Choice>} change */
  #choose(change) {
    this.#choice = { ...this.#choice, ...change };
    const { text, state, column, isDescending } = this.#choice;
    const [textField, stateField, sortField] = ["agents-text", "agents-state", "agents-sort"].map(
      (id) => /** @type {HTMLInputElement} */ (at(id)),
    );
    if (textField && textField.value !== text) textField.value = text;
    if (stateField) stateField.value = state;
    if (sortField) sortField.value = column ?? "";
    for (const head of at("agents-heads").children) {
      const isIt = head instanceof HTMLElement && head.dataset.column === column;
      set(head, { "aria-sort": isIt ? (isDescending ? "descending" : "ascending") : null });
    }
    this.#redraw();
  }

  /** Only those in trouble. */
  showTroubled() {
    this.#choose({ text: "", state: "trouble" });
    at("agents").scrollIntoView({ block: "nearest" });
  }

  /**
   * Bring a peer into sight, whatever was chosen before. One that is not here any more has no line.
   *
   * @param {string} id
   */
  jump(id) {
    if (!this.#model?.peers.has(id)) return;
    if (this.#rows.jump(id)) return;
    this.#choose({ text: "", state: "all" });
    this.#rows.jump(id);
  }

  /**
   * @param {Model} model
   * @param {Verdict} verdict
   * @param {number} nowMs by the relay's clock
   */
  show(model, verdict, nowMs) {
    this.#model = model;
    this.#verdict = verdict;
    this.#nowMs = nowMs;
    this.#most = Math.max(10, ...[...model.peers.values()].map((seen) => seen.in.perS));
    this.#redraw();
  }

  #redraw() {
    if (!this.#model) return;
    const shown = this.#order.arrange(this.#model, this.#verdict, this.#choice, this.#rows.isHeld);
    const all = this.#model.peers.size;
    say(
      at("agents-count"),
      shown.length === all ? count(all) : `${count(shown.length)} of ${count(all)}`,
    );
    set(at("agents-grid"), { "aria-rowcount": shown.length + 1 });
    const none = at("agents-none");
    none.hidden = shown.length > 0;
    say(none, all === 0 ? "Nobody is in this mesh." : "No agent is as you have chosen.");
    this.#rows.show(shown);
  }

  /**
   * @param {Line | undefined} line
   * @param {Seen} seen
   */
  #fill(line, seen) {
    if (!line || !this.#model) return;
    const { told, id } = seen;
    show(line.id, id, 40);
    const agents = (told.agents ?? []).filter((agent) => agent !== id);
    const name = isBlank(told.name) || told.name === id ? [] : [told.name ?? ""];
    show(line.more, [...name, agents.slice(0, 20).join(", ")].filter(Boolean).join(" · "), 90);
    const host = isBlank(told.host) ? "" : (told.host ?? "");
    show(line.host, host, 24);
    const isStale = told.state === "stale";
    say(line.state, isStale ? "◐ stale" : "● present");
    line.state.classList.toggle("stale", isStale);
    say(line.heard, duration((this.#nowMs - told.heard_ms) / 1000));
    const queued = told.queued_messages;
    line.queue.show(queued > 0 ? brief(queued) : "", this.#model.fullness(seen));
    const waiting = queued > 0 ? `${count(queued)} messages, ${bytes(told.queued_bytes)}` : "";
    if (line.queue.whole.title !== waiting) line.queue.whole.title = waiting;
    line.in.show(briefRate(seen.in.perS), seen.in.perS / this.#most);
    say(line.out, briefRate(seen.out.perS));
    const stuck = seen.turns.filter((key) => this.#verdict.stuck.has(key)).length;
    say(line.turns, seen.turns.length === 0 ? "" : count(seen.turns.length));
    this.#tag(line, this.#verdict.marks.get(id) ?? []);
    const label = `${whole(id)}, ${told.state}${stuck > 0 ? `, ${stuck} stuck` : ""}`;
    set(line.whole, { "aria-label": label });
  }

  /**
   * @param {Line} line
   * @param {Kind[]} marks
   */
  #tag(line, marks) {
    const shown = marks.join(" ");
    if (shown === line.shownTags) return;
    line.shownTags = shown;
    line.tags.replaceChildren(...marks.map(tag));
    line.whole.dataset.trouble = marks[0] ?? "";
  }
}
