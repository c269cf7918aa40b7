/**
 * The picture of who says how much to whom: senders on the left, receivers on the right, a band for each
 * type between them, as thick as its count. Only numbers: flow.js draws it.
 *
 * @import { Flow } from "./types.js"
 */

/** So many bands are shown; all others are one. */
export const BANDS_MAX = 40;
/** The thickest end of all takes so much, and every other in proportion. */
const TALLEST = 150;
/** No band is thinner, or it could not be seen. */
const THINNEST = 1;
/** A name needs so much. */
const NAME_HEIGHT = 17;
const GAP = 7;

/**
 * A sender or a receiver. `id` is null for all others, and for everyone (`isEveryone`).
 *
 * @typedef {object} End
 * @property {string | null} id
 * @property {boolean} isEveryone
 * @property {number} count
 * @property {number} y
 * @property {number} height
 */

/**
 * A band from one end to another. `type` is null for the one of all others.
 *
 * @typedef {object} Band
 * @property {string | null} type
 * @property {End} from
 * @property {End} to
 * @property {number} count
 * @property {number} thickness
 * @property {number} fromY of its middle
 * @property {number} toY
 */

/**
 * @typedef {object} Picture
 * @property {End[]} senders
 * @property {End[]} receivers
 * @property {Band[]} bands
 * @property {number} others how many flows are in the last band
 * @property {number} height
 * @property {[string, number][]} types every type that there is, and its count: the largest first
 */

/**
 * @param {Flow[]} flow
 * @param {ReadonlySet<string>} [hidden] types that are not shown
 * @returns {Picture}
 */
export function picture(flow, hidden = new Set()) {
  /** @type {Map<string, number>} */
  const types = new Map();
  for (const [, , type, count] of flow) types.set(type, (types.get(type) ?? 0) + count);
  const wanted = flow.filter(([, , type, count]) => !hidden.has(type) && count > 0);
  wanted.sort((one, other) => other[3] - one[3]);
  const shown = wanted.slice(0, BANDS_MAX);
  const rest = wanted.slice(BANDS_MAX);
  const [senders, receivers] = [new Ends(), new Ends()];
  /** @type {Band[]} */
  const bands = shown.map(([from, to, type, count]) => ({
    ...{ type, count, thickness: 0, fromY: 0, toY: 0 },
    from: senders.end(`peer ${from}`, { id: from, isEveryone: false }, count),
    to: receivers.end(to === null ? "" : `peer ${to}`, { id: to, isEveryone: to === null }, count),
  }));
  if (rest.length > 0) {
    const count = rest.reduce((sum, flow) => sum + flow[3], 0);
    const end = { id: null, isEveryone: false };
    const [from, to] = [senders.end("others", end, count), receivers.end("others", end, count)];
    bands.push({ type: null, count, thickness: 0, fromY: 0, toY: 0, from, to });
  }
  const most = Math.max(1, ...[...senders.all, ...receivers.all].map(({ count }) => count));
  for (const band of bands) band.thickness = Math.max(THINNEST, (TALLEST * band.count) / most);
  const heights = [
    place(senders.all, bands, "from", "fromY"),
    place(receivers.all, bands, "to", "toY"),
  ];
  return {
    senders: senders.all,
    receivers: receivers.all,
    bands,
    others: rest.length,
    height: Math.max(...heights),
    types: [...types].sort(([, one], [, other]) => other - one),
  };
}

/** The ends on one side. */
class Ends {
  /** @type {Map<string, End>} */
  #ends = new Map();

  /**
   * @param {string} key
   * @param {{ id: string | null, isEveryone: boolean }} what
   * @param {number} count
   */
  end(key, what, count) {
    const end = this.#ends.get(key) ?? { ...what, count: 0, y: 0, height: 0 };
    this.#ends.set(key, end);
    end.count += count;
    return end;
  }

  /** The largest first, and all others last. */
  get all() {
    const isOther = (/** @type {End} */ { id, isEveryone }) => id === null && !isEveryone;
    return [...this.#ends.values()].sort(
      (one, other) => Number(isOther(one)) - Number(isOther(other)) || other.count - one.count,
    );
  }
}

/**
 * Puts the ends of one side under one another, and the bands into their ends. Returns how tall that is.
 *
 * @param {End[]} ends
 * @param {Band[]} bands
 * @param {"from" | "to"} side
 * @param {"fromY" | "toY"} y
 */
function place(ends, bands, side, y) {
  const opposite = side === "from" ? "to" : "from";
  let top = 0;
  for (const end of ends) {
    // The bands keep the order of their other ends, so that few of them cross.
    const own = bands.filter((band) => band[side] === end);
    own.sort(
      (one, other) => other[opposite].count - one[opposite].count || other.count - one.count,
    );
    const thick = own.reduce((sum, { thickness }) => sum + thickness, 0);
    end.y = top;
    end.height = Math.max(NAME_HEIGHT, thick);
    let middle = top + (end.height - thick) / 2;
    for (const band of own) {
      band[y] = middle + band.thickness / 2;
      middle += band.thickness;
    }
    top += end.height + GAP;
  }
  return Math.max(0, top - GAP);
}
