/**
 * Draws who says how much to whom: picture.js says where everything is.
 *
 * @import { Model } from "./model.js"
 * @import { Band, End, Picture } from "./picture.js"
 */

import { at, draw, make, say, set } from "./dom.js";
import { brief, count, counted, duration } from "./format.js";
import { BANDS_MAX, picture } from "./picture.js";
import { short, whole } from "./text.js";

/** Each type has a colour (console.css) and a pattern of dashes, so that nobody needs the colours. */
const TYPES = ["broadcast", "direct", "stream", "turn_end", "ack", "error", "cancel", "presence"];
/** Of names beside the picture, about. */
const CHAR_WIDTH = 7;
/** A picture that is narrower has only names there, and no numbers. */
const WIDE = 440;
const BAR_WIDTH = 6;
/** A band that is so thick has its type written on it. */
const WRITTEN_FROM = 15;

export class FlowView {
  #toPeer;
  /** @type {Set<string>} */
  #hidden = new Set();
  /** @type {Model | null} */
  #model = null;
  #relayMs = 0;
  #drawn = "";
  #isWide = true;
  #listed = "";

  /** @param {(id: string) => void} toPeer leads to a peer */
  constructor(toPeer) {
    this.#toPeer = toPeer;
    new ResizeObserver(() => this.#redraw()).observe(at("flow-picture"));
  }

  /**
   * @param {Model} model
   * @param {number} nowMs by the relay's clock
   */
  show(model, nowMs) {
    this.#model = model;
    this.#relayMs = nowMs;
    this.#redraw();
  }

  #redraw() {
    if (!this.#model) return;
    const { flow, flowSinceMs } = this.#model;
    const width = at("flow-picture").clientWidth;
    const seconds = flowSinceMs === null ? 60 : Math.min(60, (this.#relayMs - flowSinceMs) / 1000);
    const all = flow.reduce((sum, [, , , count]) => sum + count, 0);
    const span = seconds >= 60 ? "the last minute" : `the last ${duration(Math.max(1, seconds))}`;
    say(at("flow-count"), flow.length === 0 ? "" : `${count(all)} messages in ${span}`);
    const drawn = JSON.stringify([flow, [...this.#hidden], width]);
    if (drawn === this.#drawn || width === 0) return;
    this.#drawn = drawn;
    const made = picture(flow, this.#hidden);
    at("flow-none").hidden = flow.length > 0;
    at("flow-ends").hidden = flow.length === 0;
    this.#listTypes(made);
    at("flow-picture").replaceChildren(...(made.bands.length > 0 ? [this.#draw(made, width)] : []));
  }

  /** @param {Picture} picture */
  #listTypes({ types }) {
    const listed = JSON.stringify([types, [...this.#hidden]]);
    if (listed === this.#listed) return;
    this.#listed = listed;
    const focused =
      document.activeElement instanceof HTMLElement
        ? document.activeElement.dataset.type
        : undefined;
    const buttons = types.slice(0, 12).map(([type, number]) => {
      const line = draw("line", {
        x1: 0,
        y1: 5,
        x2: 26,
        y2: 5,
        class: `band ${classOf(type)}`,
        "stroke-width": 8,
      });
      const swatch = draw("svg", { width: 26, height: 10, "aria-hidden": "true" }, line);
      const button = make(
        "button",
        "type",
        swatch,
        ` ${short(type, 24)} `,
        make("small", "", brief(number)),
      );
      button.type = "button";
      button.dataset.type = type;
      set(button, { "aria-pressed": String(!this.#hidden.has(type)) });
      button.addEventListener("click", () => {
        if (!this.#hidden.delete(type)) this.#hidden.add(type);
        this.#redraw();
      });
      return button;
    });
    at("flow-types").replaceChildren(...buttons);
    if (focused !== undefined) buttons.find(({ dataset }) => dataset.type === focused)?.focus();
  }

  /**
   * @param {Picture} picture
   * @param {number} width
   */
  #draw({ senders, receivers, bands, others, height }, width) {
    this.#isWide = width >= WIDE;
    const side = Math.min(160, width * (this.#isWide ? 0.28 : 0.33));
    const [left, right] = [side, width - side];
    const svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "list" });
    for (const band of [...bands].reverse())
      svg.append(...drawBand(band, left + BAR_WIDTH, right - BAR_WIDTH, others));
    for (const end of senders) svg.append(this.#end(end, left, side, "end"));
    for (const end of receivers) svg.append(this.#end(end, right - BAR_WIDTH, side, "start"));
    return svg;
  }

  /**
   * The name and the bar of an end.
   *
   * @param {End} end
   * @param {number} x of its bar
   * @param {number} side how wide its name may be
   * @param {"start" | "end"} anchor
   */
  #end({ id, isEveryone, count: number, y, height }, x, side, anchor) {
    const own = id ?? (isEveryone ? "everyone" : "others");
    const numberText = this.#isWide ? brief(number) : "";
    const most = Math.max(8, Math.floor((side - 12) / CHAR_WIDTH) - numberText.length);
    const bar = draw("rect", { x, y, width: BAR_WIDTH, height, class: "bar", rx: 2 });
    const textX = anchor === "end" ? x - 6 : x + BAR_WIDTH + 6;
    const place = {
      x: textX,
      y: y + height / 2,
      "text-anchor": anchor,
      "dominant-baseline": "central",
    };
    const strong = draw("tspan", { class: id === null ? "dim" : "" }, short(own, most));
    const small = draw("tspan", { class: "dim" }, numberText);
    const gap = numberText === "" ? "" : "  ";
    const parts = anchor === "end" ? [small, gap, strong] : [strong, gap, small];
    const title = draw("title", {}, `${whole(own)}: ${counted(number, "message")}`);
    const group = draw(
      "g",
      { class: id === null ? "end" : "end way" },
      title,
      bar,
      draw("text", place, ...parts),
    );
    if (id !== null) group.addEventListener("click", () => this.#toPeer(id));
    return group;
  }
}

/** @param {string | null} type */
function classOf(type) {
  if (type === null) return "rest";
  return TYPES.includes(type) ? type : "other";
}

/**
 * @param {Band} band
 * @param {number} left
 * @param {number} right
 * @param {number} others
 */
function drawBand({ type, from, to, count: number, thickness, fromY, toY }, left, right, others) {
  const middle = (left + right) / 2;
  const d = `M${left},${fromY}C${middle},${fromY} ${middle},${toY} ${right},${toY}`;
  const name = type === null ? `all others: ${counted(others, "flow")}` : short(type);
  const [sender, receiver] = [from, to].map(({ id, isEveryone }) =>
    whole(id ?? (isEveryone ? "everyone" : "others")),
  );
  const said = `${name} from ${sender} to ${receiver}: ${counted(number, "message")}`;
  const shape = { d, class: `band ${classOf(type)}`, "stroke-width": thickness.toFixed(1) };
  const path = draw(
    "path",
    { ...shape, role: "listitem", "aria-label": said },
    draw("title", {}, said),
  );
  if (thickness < WRITTEN_FROM) return [path];
  const place = {
    x: middle,
    y: (fromY + toY) / 2,
    "text-anchor": "middle",
    "dominant-baseline": "central",
  };
  const word =
    type === null
      ? `${BANDS_MAX} are shown, ${others} more`
      : `${short(type, 16)} ${brief(number)}`;
  return [path, draw("text", { ...place, class: "word" }, word)];
}
