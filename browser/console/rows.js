/**
 * A list of which only the lines in sight are in the page, so that thousands of them cost little. All
 * lines are of one height. With the keyboard: the arrows, Page up and down, Home and End go from line to
 * line.
 */

import { make, set } from "./dom.js";

/** Beyond what is in sight, above and below. */
const SPARE = 6;
/** How long a line stands out to which somebody has jumped (milliseconds). */
const JUMPED_MS = 4000;

/** @type {Record<string, (at: number, page: number, last: number) => number>} */
const KEYS = {
  ArrowDown: (at) => at + 1,
  ArrowUp: (at) => at - 1,
  PageDown: (at, page) => at + page,
  PageUp: (at, page) => at - page,
  Home: () => 0,
  End: (_at, _page, last) => last,
};

/**
 * @template Item
 * @template {HTMLElement} Line
 */
export class Rows {
  #scroller;
  #space;
  #how;
  /** @type {readonly Item[]} */
  #items = [];
  /** @type {Map<string, Line>} */
  #lines = new Map();
  /** The line that the Tab key reaches. */
  #current = "";
  #jumped = "";
  #height = 1;
  #isDue = false;
  /** Somebody points at a line, or has one in focus. */
  isHeld = false;

  /**
   * @param {HTMLElement} scroller has a position, a height and the property `--line`, the height of a line
   * @param {object} how
   * @param {(item: Item) => string} how.key
   * @param {() => Line} how.make
   * @param {(line: Line, item: Item) => void} how.fill
   * @param {(item: Item) => void} [how.open] somebody has chosen the line
   * @param {(line: Line) => void} [how.dropped] the line is not needed any more
   */
  constructor(scroller, how) {
    this.#scroller = scroller;
    this.#how = how;
    this.#space = make("div", "space");
    this.#space.setAttribute("role", "rowgroup");
    scroller.append(this.#space);
    scroller.addEventListener("scroll", () => this.#soon(), { passive: true });
    scroller.addEventListener("keydown", (event) => this.#pressed(event));
    scroller.addEventListener("click", ({ target }) => this.#chosen(target));
    scroller.addEventListener("focusin", ({ target }) => this.#focused(target));
    for (const [event, isHeld] of /** @type {const} */ ([
      ["pointerenter", true],
      ["pointerleave", false],
    ])) {
      scroller.addEventListener(event, ({ pointerType }) => {
        this.isHeld = isHeld && pointerType === "mouse";
      });
    }
    new ResizeObserver(() => this.#soon()).observe(scroller);
  }

  /** @param {readonly Item[]} items */
  show(items) {
    this.#items = items;
    this.#draw();
  }

  /**
   * Bring a line into sight and let it stand out. False: there is none.
   *
   * @param {string} key
   */
  jump(key) {
    const index = this.#items.findIndex((item) => this.#how.key(item) === key);
    if (index < 0) return false;
    this.#jumped = key;
    setTimeout(() => {
      if (this.#jumped !== key) return;
      this.#jumped = "";
      this.#draw();
    }, JUMPED_MS);
    this.#go(index, true);
    this.#scroller.scrollIntoView({ block: "nearest" });
    return true;
  }

  #soon() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.#draw();
    });
  }

  #draw() {
    const { clientHeight, scrollTop } = this.#scroller;
    const style = getComputedStyle(this.#scroller);
    this.#height = Number.parseFloat(style.getPropertyValue("--line")) || 32;
    const total = `${this.#items.length * this.#height}px`;
    if (this.#space.style.height !== total) this.#space.style.height = total;
    const first = Math.max(0, Math.floor(scrollTop / this.#height) - SPARE);
    const last = Math.ceil((scrollTop + clientHeight) / this.#height) + SPARE;
    const inSight = this.#items.slice(first, last);
    const keys = new Set(inSight.map(this.#how.key));
    const spare = [...this.#lines].filter(([key]) => !keys.has(key));
    const tabbed = keys.has(this.#current)
      ? this.#current
      : inSight[0] && this.#how.key(inSight[0]);
    inSight.forEach((item, offset) => {
      const key = this.#how.key(item);
      let line = this.#lines.get(key);
      if (!line) {
        const used = spare.pop();
        if (used) this.#lines.delete(used[0]);
        used?.[1].blur(); // It is another line now, on which nobody has the focus.
        line = used?.[1] ?? this.#made();
        this.#lines.set(key, line);
      }
      const y = `${(first + offset) * this.#height}px`;
      if (line.style.top !== y) line.style.top = y;
      line.dataset.key = key;
      line.classList.toggle("jumped", key === this.#jumped);
      set(line, { "aria-rowindex": first + offset + 2, tabindex: key === tabbed ? 0 : -1 });
      this.#how.fill(line, item);
    });
    for (const [key, line] of spare) {
      this.#lines.delete(key);
      line.remove();
      this.#how.dropped?.(line);
    }
  }

  #made() {
    const line = this.#how.make();
    line.classList.add("line");
    line.setAttribute("role", "row");
    this.#space.append(line);
    return line;
  }

  /** @param {EventTarget | null} target */
  #keyOf(target) {
    const line = target instanceof Element ? target.closest(".line") : null;
    return line instanceof HTMLElement ? line.dataset.key : undefined;
  }

  /** @param {EventTarget | null} target */
  #chosen(target) {
    const key = this.#keyOf(target);
    const item = this.#items.find((item) => this.#how.key(item) === key);
    if (item !== undefined) this.#how.open?.(item);
  }

  /** @param {EventTarget | null} target */
  #focused(target) {
    const key = this.#keyOf(target);
    if (key === undefined) return;
    this.#current = key;
    const line = this.#lines.get(key);
    for (const other of this.#lines.values()) set(other, { tabindex: other === line ? 0 : -1 });
  }

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.#chosen(event.target);
      return;
    }
    const to = KEYS[event.key];
    if (!to || this.#items.length === 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const last = this.#items.length - 1;
    const page = Math.max(1, Math.floor(this.#scroller.clientHeight / this.#height) - 1);
    const current = this.#items.findIndex((item) => this.#how.key(item) === this.#current);
    this.#go(Math.min(last, Math.max(0, to(Math.max(0, current), page, last))), false);
  }

  /**
   * @param {number} index
   * @param {boolean} isCentred
   */
  #go(index, isCentred) {
    const item = this.#items[index];
    if (item === undefined) return;
    const { clientHeight, scrollTop } = this.#scroller;
    const top = index * this.#height;
    if (isCentred) this.#scroller.scrollTop = top - (clientHeight - this.#height) / 2;
    else if (top < scrollTop) this.#scroller.scrollTop = top;
    else if (top + this.#height > scrollTop + clientHeight) {
      this.#scroller.scrollTop = top + this.#height - clientHeight;
    }
    this.#current = this.#how.key(item);
    this.#draw();
    this.#lines.get(this.#current)?.focus({ preventScroll: true });
  }
}
