/**
 * What needs attention, at the top of the page: each with a link to its line.
 *
 * @import { Kind, Trouble, Verdict } from "./attention.js"
 */

import { at, make, say, show } from "./dom.js";
import { counted } from "./format.js";
import { short } from "./text.js";

/** So many are named; a button leads to all others. */
const SHOWN_MAX = 5;

/** A word and a shape for each kind. Colours alone would not do. @type {Record<Kind, [shape: string, word: string]>} */
export const KINDS = {
  relay: ["◆", "relay"],
  stuck: ["■", "stuck"],
  flooding: ["▲", "flooding"],
  slow: ["▼", "slow reader"],
  refused: ["⊘", "refused"],
};

/** @type {readonly Kind[]} */
const GRAVE = ["relay", "stuck", "flooding"];

/**
 * The label of a kind of trouble.
 *
 * @param {Kind} kind
 */
export function tag(kind) {
  const [shape, word] = KINDS[kind];
  const made = make("span", `tag ${kind}`, make("span", "shape", shape), ` ${word}`);
  made.firstElementChild?.setAttribute("aria-hidden", "true");
  return made;
}

/**
 * @typedef {object} Ways
 * @property {(id: string) => void} toPeer
 * @property {(key: string) => void} toTurn
 * @property {() => void} toAll
 */

export class Troubles {
  #ways;
  #shown = "";
  /** Which were told to those who listen to the page. @type {Set<string>} */
  #told = new Set();

  /** @param {Ways} ways where the links lead */
  constructor(ways) {
    this.#ways = ways;
    at("troubles-more").addEventListener("click", () => this.#ways.toAll());
  }

  /**
   * @param {Verdict} verdict
   * @param {boolean} isKnown something has come from the relay
   */
  show({ troubles }, isKnown) {
    this.#tell(troubles);
    const shown = troubles.slice(0, SHOWN_MAX);
    const rest = troubles.length - shown.length;
    const isGrave = troubles.some(({ kind }) => GRAVE.includes(kind));
    at("attention").classList.toggle("calm", troubles.length === 0);
    at("attention").classList.toggle("mild", troubles.length > 0 && !isGrave);
    at("attention").hidden = !isKnown;
    const more = at("troubles-more");
    more.hidden = rest === 0;
    say(more, `and ${counted(rest, "more")}`.replace(/s$/, ""));
    const seen = JSON.stringify(shown.map(({ kind, peer, turn }) => [kind, peer, turn]));
    const list = at("troubles");
    if (seen !== this.#shown || list.childElementCount === 0) {
      this.#shown = seen;
      const lines = shown.map((trouble) => this.#line(trouble));
      list.replaceChildren(...(lines.length > 0 ? lines : [calm()]));
    }
    // The links stay as they are, so that they can be clicked; only the words between them change.
    shown.forEach(({ sentence }, index) => {
      const words = list.children[index]?.querySelector(".sentence");
      if (words) say(words, sentence);
    });
  }

  /**
   * Who listens to the page hears of each trouble once, and not of its numbers again and again.
   *
   * @param {Trouble[]} troubles
   */
  #tell(troubles) {
    const keys = new Map(troubles.map((trouble) => [`${trouble.kind} ${trouble.peer}`, trouble]));
    const news = [...keys].filter(([key]) => !this.#told.has(key)).slice(0, SHOWN_MAX);
    this.#told = new Set(keys.keys());
    if (news.length === 0) return;
    const words = news.map(([, { kind, peer }]) => `${KINDS[kind][1]}: ${short(peer ?? "", 40)}`);
    say(at("attention-news"), words.join(", "));
  }

  /** @param {Trouble} trouble */
  #line({ kind, peer, turn, sentence }) {
    const line = make("li", kind, tag(kind), " ");
    if (peer !== null) {
      const link = make("button", "link");
      link.type = "button";
      show(link, peer, 40);
      link.addEventListener("click", () => this.#ways.toPeer(peer));
      line.append(link, " ");
    }
    line.append(make("span", "sentence", sentence));
    if (turn !== null) {
      const link = make("button", "link", "its turn");
      link.type = "button";
      link.addEventListener("click", () => this.#ways.toTurn(turn));
      line.append(" · ", link);
    }
    return line;
  }
}

function calm() {
  const shape = make("span", "shape", "✓");
  shape.setAttribute("aria-hidden", "true");
  return make("li", "calm", shape, " Nothing is stuck, and nobody floods this mesh.");
}
