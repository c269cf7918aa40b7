/**
 * The dialog in which somebody looks at one peer and asks its agents. For that the page joins the mesh as
 * a peer of its own, and leaves when the dialog is closed.
 *
 * @import { Turn } from "../relay-client.js"
 * @import { Verdict } from "./attention.js"
 * @import { Model } from "./model.js"
 */

import { at, make, say, show } from "./dom.js";
import { bytes, count, counted, duration, rate } from "./format.js";
import { isBlank, visible } from "./text.js";

/** Of an answer so much is shown; what is older goes. */
const ANSWER_CHARS_MAX = 200_000;
/** For which a peer may be silent before nobody waits any more (seconds). */
const TIMEOUT_S = 120;
const JOIN_WITHIN_S = 20;

/**
 * @typedef {object} Way how to the mesh
 * @property {string} where the address that says where the relay's WebSocket is
 * @property {string | null} token
 */

/** @typedef {import("../relay-client.js").Peer} Peer */

export class Ask {
  #dialog = /** @type {HTMLDialogElement} */ (at("ask"));
  #agent = /** @type {HTMLSelectElement} */ (at("ask-agent"));
  #text = /** @type {HTMLTextAreaElement} */ (at("ask-text"));
  #way;
  /** Whom the dialog is about; "" while it is closed. */
  #id = "";
  /** What the list of agents was made of. */
  #listed = "";
  /** This page as a peer, once somebody has asked. @type {Promise<Peer> | null} */
  #joining = null;
  /** @type {Turn<unknown> | null} */
  #turn = null;
  /** Which question the answer is to. */
  #asked = 0;

  /** @param {() => Way} way */
  constructor(way) {
    this.#way = way;
    at("ask-close").addEventListener("click", () => this.#dialog.close());
    at("ask-cancel").addEventListener("click", () => this.#cancel());
    this.#dialog.addEventListener("close", () => this.#closed());
    this.#dialog.addEventListener("click", ({ target }) => {
      if (target === this.#dialog) this.#dialog.close(); // Beside it.
    });
    at("ask-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    this.#text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#ask();
    });
    addEventListener("pagehide", () => this.#leave());
  }

  /**
   * @param {string} id of the peer
   * @param {Model} model
   * @param {Verdict} verdict
   * @param {number} nowMs by the relay's clock
   */
  open(id, model, verdict, nowMs) {
    this.#id = id;
    this.#listed = "";
    at("ask-answer").hidden = true;
    at("ask-answer").replaceChildren();
    say(at("ask-status"), "");
    this.show(model, verdict, nowMs);
    this.#dialog.showModal();
    this.#text.focus();
  }

  /**
   * What is known of the peer has changed.
   *
   * @param {Model} model
   * @param {Verdict} verdict
   * @param {number} nowMs
   */
  show(model, { troubles }, nowMs) {
    if (this.#id === "") return;
    show(at("ask-title"), this.#id, 60);
    const seen = model.peers.get(this.#id);
    const own = troubles.filter(({ peer }) => peer === this.#id).map(({ sentence }) => sentence);
    const trouble = at("ask-trouble");
    trouble.hidden = own.length === 0 && seen !== undefined;
    say(trouble, seen ? `It ${own.join("; it ")}.` : "It is not here any more.");
    if (!seen) return;
    const { told } = seen;
    const { state, name, host, connections, heard_ms, received, sent } = told;
    /** @type {[string, string][]} */
    const facts = [
      ["state", `${state}, heard ${duration((nowMs - heard_ms) / 1000)} ago`],
      ["name", isBlank(name) ? "" : (name ?? "")],
      ["host", isBlank(host) ? "" : (host ?? "")],
      ["agents", (told.agents ?? []).join(", ")],
      ["connections", count(connections)],
      ["says", `${rate(seen.in.perS)}/s, ${count(received)} in all`],
      ["gets", `${rate(seen.out.perS)}/s, ${count(sent)} in all`],
      ["waits for it", `${counted(told.queued_messages, "message")}, ${bytes(told.queued_bytes)}`],
      ["works on", counted(seen.turns.length, "command")],
    ];
    fill(
      at("ask-facts"),
      facts.filter(([, text]) => text !== ""),
    );
    this.#list(told.agents ?? []);
  }

  /** @param {string[]} agents */
  #list(agents) {
    const names = agents.length > 0 ? agents : [this.#id];
    const listed = JSON.stringify(names);
    if (listed === this.#listed) return;
    this.#listed = listed;
    const options = names.map((agent) => {
      const option = new Option("", agent);
      show(option, agent, 60);
      return option;
    });
    const before = this.#agent.value;
    this.#agent.replaceChildren(...options);
    if (names.includes(before)) this.#agent.value = before;
  }

  async #ask() {
    const command = this.#text.value.trim();
    if (command === "") return;
    this.#cancel();
    this.#asked += 1;
    const asked = this.#asked;
    const answer = at("ask-answer");
    answer.replaceChildren();
    answer.hidden = false;
    at("ask-cancel").hidden = false;
    say(at("ask-status"), "joining the mesh …");
    const began = performance.now();
    const isCurrent = () => asked === this.#asked;
    try {
      const peer = await this.#peer();
      if (!isCurrent()) return;
      const options = { peer: this.#id, timeoutS: TIMEOUT_S };
      const turn = peer.ask(this.#agent.value, command, options);
      this.#turn = turn;
      say(at("ask-status"), "asked; waiting for a sign of it …");
      for await (const chunk of turn) {
        if (!isCurrent()) return;
        say(at("ask-status"), "it answers …");
        put(answer, chunk, "chunk");
      }
      const result = await turn;
      if (!isCurrent()) return;
      put(answer, textOf(result), "result");
      say(at("ask-status"), `answered after ${((performance.now() - began) / 1000).toFixed(1)} s`);
    } catch (error) {
      if (!isCurrent()) return;
      const { name, message } = error instanceof Error ? error : new Error(String(error));
      say(at("ask-status"), `${name}: ${visible(message).slice(0, 500)}`);
    } finally {
      if (isCurrent()) {
        this.#turn = null;
        at("ask-cancel").hidden = true;
      }
    }
  }

  /** This page as a peer: the one that there is, or a new one. */
  #peer() {
    if (this.#joining) return this.#joining;
    const joining = join(this.#way());
    this.#joining = joining;
    const forget = () => {
      if (this.#joining === joining) this.#joining = null;
    };
    joining.then(({ ended }) => ended.then(forget), forget);
    return joining;
  }

  #cancel() {
    this.#asked += 1;
    this.#turn?.cancel();
    this.#turn = null;
    at("ask-cancel").hidden = true;
    say(at("ask-status"), "cancelled");
  }

  #closed() {
    this.#id = "";
    this.#cancel();
    this.#leave();
  }

  #leave() {
    const joining = this.#joining;
    this.#joining = null;
    joining?.then((peer) => peer.leave()).catch(() => {}); // It has not joined.
  }
}

/**
 * @param {Way} way
 * @returns {Promise<Peer>}
 */
async function join(way) {
  const [client, first] = await Promise.all([import("../relay-client.js"), placeOf(way)]);
  const token = first.token ?? way.token;
  const own = `console-${suffix()}`;
  /** @type {Place | null} */
  let place = first;
  return client.join({
    // Every connection has an address of its own: a signed one is not good for long.
    url: async () => {
      const { url } = place ?? (await placeOf(way));
      place = null;
      return url;
    },
    // Whoever has a token is who it says, or below.
    id: first.peer ? `${first.peer}/${own}` : own,
    ...(token === null ? {} : { token }),
    // It hears only what is for it, however much the others say. The page's policy has no worker.
    ...{ subscribe: false, worker: false, withinS: JOIN_WITHIN_S, metadata: { name: "console" } },
  });
}

/**
 * Where the mesh is.
 *
 * @typedef {object} Place
 * @property {string} url of the relay's WebSocket
 * @property {string | null} [peer] which id a token gives to its bearer
 * @property {string | null} [token] of whoever has started this console
 */

/**
 * @param {Way} way
 * @returns {Promise<Place>}
 */
async function placeOf({ where, token }) {
  const headers = token === null ? {} : { authorization: `Bearer ${token}` };
  const answer = await fetch(where, { headers, cache: "no-store" });
  if (!answer.ok)
    throw new Error(`the relay does not say where its WebSocket is (${answer.status})`);
  return answer.json();
}

function suffix() {
  const random = crypto.getRandomValues(new Uint8Array(4));
  return [...random].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {unknown} data */
function textOf(data) {
  return typeof data === "string" ? data : (JSON.stringify(data, null, 2) ?? "");
}

/**
 * Adds a text to an answer: of a long one the end is shown.
 *
 * @param {HTMLElement} answer
 * @param {string} text
 * @param {string} kind
 */
function put(answer, text, kind) {
  const isAtEnd = answer.scrollTop + answer.clientHeight >= answer.scrollHeight - 8;
  let part = answer.lastElementChild;
  if (part?.className !== kind) {
    part = make("span", kind, document.createTextNode(""));
    answer.append(part);
  }
  const shown = /** @type {Text} */ (part.firstChild);
  // Lines stay lines; everything else that hides is shown.
  shown.appendData(text.slice(-ANSWER_CHARS_MAX).split("\n").map(visible).join("\n"));
  shown.deleteData(0, Math.max(0, shown.length - ANSWER_CHARS_MAX));
  if (isAtEnd) answer.scrollTop = answer.scrollHeight;
}

/**
 * @param {HTMLElement} list
 * @param {[string, string][]} facts
 */
function fill(list, facts) {
  while (list.children.length > facts.length) list.lastElementChild?.remove();
  facts.forEach(([name, text], index) => {
    const line = list.children[index] ?? list.appendChild(make("div", "", make("dt"), make("dd")));
    const [term, definition] = line.children;
    if (term) say(term, name);
    if (definition instanceof HTMLElement) show(definition, text, 120);
  });
}
