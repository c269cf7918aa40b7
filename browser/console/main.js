/** The console: puts the stream, what is known and the views together. docs/console.md says what it shows. */

import { Agents } from "./agents.js";
import { Ask } from "./ask.js";
import { judge } from "./attention.js";
import { at, say } from "./dom.js";
import { FlowView } from "./flow.js";
import { Happenings } from "./happenings.js";
import { Model } from "./model.js";
import { Reader } from "./reader.js";
import { short } from "./text.js";
import { Troubles } from "./troubles.js";
import { Turns } from "./turns.js";
import { Up } from "./up.js";

/** So often the ages are shown anew, without any news (milliseconds). */
const TICK_MS = 1000;
/** The relay has said nothing for longer: then what was fast is slow. */
const QUIET_MS = 2500;
/** The relay says something every second. If it has said nothing for longer, nobody knows what is now. */
const NEWS_MS = 10_000;

const HERE = new URL("../../console/", import.meta.url);

class Console {
  model = new Model();
  /** The time of the latest event by the relay's clock, and when it came by the page's own. */
  #latest = { atMs: 0, heardMs: 0 };
  /** @type {import("./up.js").Link} */
  #link = { state: "opening", why: "", sinceMs: Date.now() };
  /** For the relay; only here. @type {string | null} */
  #token = null;
  #reader = new Reader({
    event: (type, told) => this.#heard(type, told),
    lost: (why) => this.#linked("lost", why),
    refused: (status, why) => this.#refused(status, why),
  });
  #up = new Up((mesh) => this.#choose(mesh));
  #troubles = new Troubles({
    toPeer: (id) => this.#agents.jump(id),
    toTurn: (key) => this.#turns.jump(key),
    toAll: () => this.#agents.showTroubled(),
  });
  #agents = new Agents((id) => this.#ask.open(id, this.model, this.#judged(), this.#nowMs()));
  #flow = new FlowView((id) => this.#agents.jump(id));
  #turns = new Turns((id) => this.#agents.jump(id));
  #happenings = new Happenings((id) => this.#agents.jump(id));
  #ask = new Ask(() => ({ where: this.#address("where"), token: this.#token }));
  #isDue = false;

  constructor() {
    at("token").addEventListener("submit", (event) => {
      event.preventDefault();
      const field = /** @type {HTMLInputElement} */ (at("token-field"));
      this.#token = field.value.trim();
      field.value = "";
      at("token").hidden = true;
      this.#open();
    });
    setInterval(() => this.#tick(), TICK_MS);
    addEventListener("online", () => this.#reader.nudge());
    addEventListener("popstate", () => this.#open());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.#reader.nudge();
    });
    this.#open();
  }

  #open() {
    this.#link = { state: "opening", why: "", sinceMs: Date.now() };
    this.#reader.start(this.#address("stream"), this.#token);
    this.#soon();
  }

  /**
   * An address of the relay, for the mesh that the page's own address names.
   *
   * @param {string} path
   */
  #address(path) {
    const address = new URL(path, HERE);
    const mesh = new URL(location.href).searchParams.get("mesh");
    if (mesh) address.searchParams.set("mesh", mesh);
    return address.href;
  }

  /** @param {string} mesh */
  #choose(mesh) {
    const address = new URL(location.href);
    address.searchParams.set("mesh", mesh);
    history.pushState(null, "", address);
    this.#open();
  }

  /**
   * @param {string} type
   * @param {import("./types.js").Told} told
   */
  #heard(type, told) {
    this.model.apply(type, told);
    this.#latest = { atMs: this.model.atMs, heardMs: performance.now() };
    this.#linked("open", "");
  }

  /**
   * @param {import("./up.js").Link["state"]} state
   * @param {string} why
   */
  #linked(state, why) {
    const sinceMs = state === this.#link.state ? this.#link.sinceMs : Date.now();
    this.#link = { state, why, sinceMs };
    this.#soon();
  }

  /**
   * @param {401 | 403} status
   * @param {string} why
   */
  #refused(status, why) {
    const asked = this.#token === null && status === 401;
    this.#token = null;
    this.#linked("refused", asked ? "the relay asks for a token" : why);
    say(at("token-why"), asked ? "This relay asks for a token." : `The relay refuses that: ${why}`);
    at("token").hidden = false;
    at("token-field").focus();
  }

  /** For how long the relay has said nothing. */
  #quietMs() {
    return performance.now() - this.#latest.heardMs;
  }

  /** Now, by the relay's clock. While there is no news, that stands still: nobody is stuck because of it. */
  #nowMs() {
    const { atMs } = this.#latest;
    return atMs === 0 || this.#link.state !== "open"
      ? this.model.atMs
      : Math.max(this.model.atMs, atMs + Math.min(NEWS_MS, this.#quietMs()));
  }

  #judged() {
    return judge(this.model, this.#nowMs());
  }

  #tick() {
    if (this.#link.state === "open" && this.#quietMs() > QUIET_MS) {
      this.model.apply("change", { at_ms: this.#nowMs() });
    }
    this.#soon();
  }

  /** Show everything anew, once, with the next picture of the screen. */
  #soon() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.#show();
    });
  }

  #show() {
    const { model } = this;
    const nowMs = this.#nowMs();
    const verdict = judge(model, nowMs);
    const quietMs = this.#quietMs();
    const news = this.#link.state === "open" && quietMs > NEWS_MS ? quietMs : 0;
    this.#up.show(model, { ...this.#link, quietMs: news }, Date.now(), nowMs);
    this.#troubles.show(verdict, model.atMs > 0);
    this.#agents.show(model, verdict, nowMs);
    this.#flow.show(model, nowMs);
    this.#turns.show(model, verdict, nowMs);
    this.#happenings.show(model);
    this.#ask.show(model, verdict, nowMs);
    const alarm = verdict.troubles.length > 0 ? `(${verdict.troubles.length}) ` : "";
    const title = `${alarm}${model.mesh === "" ? "Mesh console" : `${short(model.mesh, 40)} · mesh console`}`;
    if (document.title !== title) document.title = title;
  }
}

new Console();
