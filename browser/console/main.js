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
/** The relay has said nothing for longer: then nothing has happened, and what was fast is slow. */
const QUIET_MS = 2500;

const HERE = new URL("../../console/", import.meta.url);

class Console {
  model = new Model();
  /** When the latest event of the stream came, by the page's own clock. */
  #heardMs = 0;
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
    this.#heardMs = performance.now();
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

  /** Now, by the relay's clock. While the stream is lost, that stands still. */
  #nowMs() {
    const { atMs } = this.model;
    const isOpen = this.#link.state === "open";
    return atMs === 0 || !isOpen ? atMs : atMs + performance.now() - this.#heardMs;
  }

  #judged() {
    return judge(this.model, this.#nowMs());
  }

  #tick() {
    const isQuiet = performance.now() - this.#heardMs > QUIET_MS;
    if (this.#link.state === "open" && isQuiet) {
      this.model.apply("change", { at_ms: this.#nowMs() });
      this.#heardMs = performance.now();
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
    this.#up.show(model, this.#link, Date.now(), nowMs);
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
