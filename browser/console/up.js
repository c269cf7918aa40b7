/**
 * The top of the page: whether the relay can be reached, what it is, how much it does.
 *
 * @import { Model } from "./model.js"
 */

import { at, draw, make, say, set, show } from "./dom.js";
import { brief, bytes, clock, count, counted, duration, rate } from "./format.js";
import { short } from "./text.js";

/**
 * How the stream is. `sinceMs` is when that began, by the clock of this machine. `quietMs`: for how long
 * there was no news, if that is strange.
 *
 * @typedef {{ state: "opening" | "open" | "lost" | "refused", why: string, sinceMs: number,
 *   quietMs?: number }} Link
 */

/** @type {Record<Link["state"], string>} */
const WORDS = { opening: "Connecting", open: "Up", lost: "Not reached", refused: "Closed to you" };
const CURVE_WIDTH = 120;
const CURVE_HEIGHT = 26;

/** What the figures are called, and what they tell. @type {[id: string, name: string, title: string][]} */
const FIGURES = [
  ["peers", "peers", "who is here, and how many of them are stale"],
  ["connections", "connections", "of this mesh, and of the whole relay"],
  ["received", "messages/s", "what peers of this mesh say, also what is refused"],
  ["sent", "delivered/s", "what peers of this mesh get"],
  ["refused", "refused/s", "messages that break a rule or a bound"],
  ["turns", "open turns", "commands that are not answered yet"],
  ["held", "memory", "what the relay holds for all its connections, of what it may"],
  ["lag", "late by", "how late the relay is with what it does"],
];

export class Up {
  /** @type {Map<string, { value: HTMLElement, more: HTMLElement, whole: HTMLElement }>} */
  #figures = new Map();
  #curve = draw("path", { class: "curve" });
  #meshes = /** @type {HTMLSelectElement} */ (at("mesh"));
  #listed = "";

  /** @param {(mesh: string) => void} chosen another mesh is to be shown */
  constructor(chosen) {
    for (const [id, name, title] of FIGURES) {
      const [value, more] = [make("b"), make("small")];
      const whole = make("div", "figure", make("dt", "", name), make("dd", "", value, " ", more));
      whole.title = title;
      whole.dataset.figure = id;
      this.#figures.set(id, { value, more, whole });
      at("figures").append(whole);
    }
    const size = { width: CURVE_WIDTH, height: CURVE_HEIGHT };
    const box = { viewBox: `0 0 ${CURVE_WIDTH} ${CURVE_HEIGHT}`, preserveAspectRatio: "none" };
    const curve = draw("svg", { ...size, ...box, "aria-hidden": "true" }, this.#curve);
    this.#figures.get("received")?.whole.append(curve);
    this.#meshes.addEventListener("change", () => chosen(this.#meshes.value));
  }

  /**
   * @param {Model} model
   * @param {Link} link
   * @param {number} nowMs of this machine
   * @param {number} relayMs now, by the relay's clock
   */
  show(model, link, nowMs, relayMs) {
    document.body.dataset.link = link.state;
    say(at("link-word"), WORDS[link.state]);
    say(at("link-more"), this.#more(model, link, nowMs, relayMs));
    this.#showMeshes(model);
    this.#showFigures(model);
  }

  /**
   * @param {Model} model
   * @param {Link} link
   * @param {number} nowMs
   * @param {number} relayMs
   */
  #more(model, link, nowMs, relayMs) {
    const { relay } = model;
    if (link.state === "lost" || link.state === "refused") {
      const since = `since ${clock(link.sinceMs)} (${duration((nowMs - link.sinceMs) / 1000)})`;
      const old = model.atMs === 0 ? "" : "; below is what was so then";
      return `${since}: ${short(link.why, 200)}${old}`;
    }
    if (!relay) return "";
    const seconds = (relayMs - relay.since_ms) / 1000;
    const ending = relay.is_draining ? ", ending" : "";
    const quiet = link.quietMs ? `; no news for ${duration(link.quietMs / 1000)}` : "";
    return `version ${short(relay.version, 20)}, for ${duration(seconds)}${ending}${quiet}`;
  }

  /** @param {Model} model */
  #showMeshes({ mesh, relay }) {
    if (!relay) return;
    const meshes = Object.entries(relay.meshes ?? {});
    if (!meshes.some(([name]) => name === mesh)) meshes.push([mesh, { connections: 0, peers: 0 }]);
    meshes.sort(([one], [other]) => (one < other ? -1 : 1));
    const listed = JSON.stringify([mesh, meshes.map(([name, { peers }]) => [name, peers])]);
    if (listed === this.#listed || document.activeElement === this.#meshes) return;
    this.#listed = listed;
    const options = meshes.map(([name, { peers }]) => {
      const option = make("option");
      option.value = name;
      show(option, `${short(name, 40)} (${count(peers)})`, 60);
      option.selected = name === mesh;
      return option;
    });
    this.#meshes.replaceChildren(...options);
  }

  /** @param {Model} model */
  #showFigures(model) {
    const { relay, peers, mesh, turns } = model;
    if (!relay) return;
    const all = [...peers.values()];
    const stale = all.filter(({ told }) => told.state === "stale").length;
    const own = Object.hasOwn(relay.meshes ?? {}, mesh) ? relay.meshes[mesh] : undefined;
    const open = [...turns.values()].filter(({ outcome }) => outcome === null).length;
    const out = all.reduce((sum, seen) => sum + seen.out.perS, 0);
    const refused = model.perS("refused");
    this.#figure("peers", count(all.length), stale > 0 ? `${count(stale)} stale` : "");
    this.#figure("connections", count(own?.connections ?? 0), `of ${count(relay.connections)}`);
    this.#figure("received", rate(model.perS("received")), "");
    this.#figure("sent", out < 1e5 ? rate(out) : brief(out), "");
    this.#figure("refused", rate(refused), "", refused >= 1);
    this.#figure("turns", count(open), "");
    const isFull = relay.held_bytes > 0.8 * relay.held_bytes_max;
    this.#figure("held", bytes(relay.held_bytes), `of ${bytes(relay.held_bytes_max)}`, isFull);
    const lagMs = Math.round(relay.lag_s * 1000);
    this.#figure("lag", `${count(lagMs)} ms`, "", relay.lag_s >= 0.5);
    this.#drawCurve(model.curve);
    at("figures").setAttribute("aria-label", `${counted(all.length, "peer")} in this mesh`);
  }

  /**
   * @param {string} id
   * @param {string} value
   * @param {string} more
   * @param {boolean} [isBad]
   */
  #figure(id, value, more, isBad = false) {
    const figure = this.#figures.get(id);
    if (!figure) return;
    say(figure.value, value);
    say(figure.more, more);
    figure.whole.classList.toggle("bad", isBad);
  }

  /** @param {number[]} curve */
  #drawCurve(curve) {
    if (curve.length < 2) return;
    const most = Math.max(1, ...curve);
    const step = CURVE_WIDTH / (curve.length - 1);
    const points = curve.map((perS, index) => {
      const y = CURVE_HEIGHT - 1 - ((CURVE_HEIGHT - 2) * perS) / most;
      return `${(index * step).toFixed(1)},${y.toFixed(1)}`;
    });
    set(this.#curve, { d: `M${points.join("L")}` });
  }
}
