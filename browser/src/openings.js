/** How a connection is opened, and why that failed, as far as a page can find out. */

import { placeOf } from "./election.js";
import { BadAddress, Rejected, RelayError, Unreachable } from "./errors.js";
import { RELAY_PATH, ROOT_PATHS, reason, placeOf as whereIs } from "./reasons.js";
import { bearerProtocols } from "./tokens.js";

/**
 * @import { MaybeCalled } from "./cognito.js"
 * @import { Seen } from "./reasons.js"
 * @import { Socket, World } from "./world.js"
 */

/** So many refusals in a row are one for good. */
const REFUSALS_MAX = 3;

/** After so many attempts in a row to which nobody answered, one looks over HTTP first whether anybody
 * is there. Browsers slow down a page whose WebSockets fail again and again, by up to a minute, so that
 * it would be late when the relay is back. A look costs nothing of the kind. */
const MISSES_MAX = 2;

/** For a page that cannot look, or is told wrongly that nobody is there: a WebSocket is tried every so
 * many seconds all the same. */
const TRY_EVERY_S = 25;

/**
 * A URL, or one with the subprotocols to offer.
 *
 * @typedef {string | URL | { url: string | URL, protocols?: string[] }} Address
 */

export class Openings {
  /** Which mesh of which relay connections lead to; empty before that is known. */
  place = "";
  #url;
  #token;
  #world;
  /** In a row. */
  #refusals = 0;
  /** Attempts in a row to which nobody answered. */
  #misses = 0;
  /** When a WebSocket was tried last. */
  #triedAt = -Infinity;

  /**
   * Throws BadAddress for what is no URL and no function.
   *
   * @param {string | URL | (() => Address | Promise<Address>)} url
   * @param {MaybeCalled<string> | null} token
   * @param {World} world
   */
  constructor(url, token, world) {
    const known = typeof url === "function" ? url : hrefOf(url);
    if (known === null) {
      throw new BadAddress("the url must be a string, a URL, or a function that returns one");
    }
    this.#url = known;
    if (typeof known === "string") this.place = placeOf(known);
    this.#token = token;
    this.#world = world;
  }

  /** Where every connection goes, if nobody need be asked. */
  get known() {
    const url = this.#url;
    return typeof url === "string" && this.#token === null ? { url, protocols: [] } : null;
  }

  /**
   * Where the next connection goes. Rejects with a RelayError.
   *
   * @returns {Promise<{ url: string, protocols: string[] }>}
   */
  async address() {
    const url = this.#url;
    /** @type {any} */
    const address = typeof url === "function" ? await asked("url", url) : url;
    const where = hrefOf(address) ?? hrefOf(address?.url);
    const offered = address?.protocols;
    if (where !== null) this.place = placeOf(where);
    if (where === null) throw new BadAddress("the url function must return a URL");
    const token = this.#token;
    const bearer = token === null ? [] : await asked("token", () => bearerProtocols(token));
    return { url: where, protocols: [...(offered ?? []), ...bearer] };
  }

  /** A look comes before the next WebSocket. */
  get isDoubtful() {
    return this.#misses >= MISSES_MAX;
  }

  /**
   * Rejects with Unreachable if it is in vain to try a WebSocket now, because nobody is there.
   *
   * @param {string} url
   */
  async check(url) {
    const isDue = this.#world.now() - this.#triedAt >= TRY_EVERY_S;
    if (!this.isDoubtful || isDue || (await this.answers(url))) return;
    if (this.#world.isForbidden(rootOf(url))) return; // So nobody knows.
    throw reason(await this.#seen(url, false));
  }

  /**
   * Whether anybody answers there over HTTP. In front of AgentCore there always is somebody.
   *
   * @param {string} url
   */
  answers(url) {
    return this.#world.answers(rootOf(url));
  }

  /**
   * @param {{ url: string, protocols: string[] }} address
   * @returns {Socket}
   */
  connect({ url, protocols }) {
    this.#triedAt = this.#world.now();
    try {
      return this.#world.connect(url, protocols);
    } catch (error) {
      const advice = "it must begin with ws:// or wss://, and from an https page with wss://";
      throw new BadAddress(`the browser refused the URL (${nameOf(error)}): ${advice}`);
    }
  }

  /** A connection is open. */
  opened() {
    this.#refusals = 0;
    this.#misses = 0;
  }

  /**
   * A connection did not open. Why, as far as a page can find out (reasons.js). Where a token goes
   * along, it may be refused: if somebody answers at this URL over HTTP, but never opens a WebSocket,
   * the peer should not try for ever.
   *
   * @param {string} url
   * @returns {Promise<RelayError>}
   */
  async failure(url) {
    const isThere = await this.answers(url);
    this.#refusals = isThere ? this.#refusals + 1 : 0;
    const wasAway = this.#misses > 0;
    this.#misses = isThere ? 0 : this.#misses + 1;
    if (isThere && wasAway) return new Unreachable("the relay has only just come back");
    const error = reason(await this.#seen(url, isThere));
    const isFinal = this.#token !== null && this.#refusals >= REFUSALS_MAX;
    if (!(isFinal && error instanceof Rejected)) return error;
    return new Rejected(error.message, error.status, { isTransient: false });
  }

  /**
   * What keeps a connection waiting, if the page can find out; null if not.
   *
   * @param {string} url
   * @returns {Promise<RelayError | null>}
   */
  async hindrance(url) {
    const seen = await this.#seen(url, false);
    return seen.permission === "prompt" || seen.isForbidden ? reason(seen) : null;
  }

  /**
   * @param {string} url
   * @param {boolean} isThere
   * @returns {Promise<Seen>}
   */
  async #seen(url, isThere) {
    const world = this.#world;
    const { hostname, port, pathname, protocol } = parsed(url);
    const isSecure = /^(wss|https):$/i.test(protocol);
    const path = ROOT_PATHS.includes(pathname) ? RELAY_PATH : pathname;
    const looked = `${rootOf(url).slice(0, -LOOK.length)}${path}`;
    const isReadable = isThere && whereIs(hostname) !== "aws";
    return {
      host: hostname,
      port: Number(port) || (isSecure ? 443 : 80),
      path: pathname,
      isSecure,
      hasToken: this.#token !== null,
      status: isReadable ? await world.status(looked) : null,
      isThere,
      origin: world.origin,
      isForbidden: world.isForbidden(url),
      permission: await world.permission(hostname),
    };
  }
}

/**
 * What a function of the user returns. Whatever it throws may hold a credential: only its name is
 * shown.
 *
 * @template Value
 * @param {string} what
 * @param {() => Value | Promise<Value>} ask
 */
async function asked(what, ask) {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof RelayError) throw error;
    throw new Unreachable(`the ${what} function failed (${nameOf(error)})`);
  }
}

/**
 * The text of a URL, null if it is none. A URL of another window is one, too.
 *
 * @param {any} url
 * @returns {string | null}
 */
function hrefOf(url) {
  if (typeof url === "string") return url;
  return typeof url?.href === "string" ? url.href : null;
}

/**
 * A URL as browsers take it for a WebSocket. Throws BadAddress.
 *
 * @param {string} url
 */
function parsed(url) {
  try {
    return new URL(url, globalThis.location?.href);
  } catch {
    throw new BadAddress("the URL must be ws://HOST[:PORT]/ws or wss://...");
  }
}

/** What is asked for, to see whether anybody answers: no page of whatever is there. */
const LOOK = "/ping";

/**
 * Where to look whether anybody is there.
 *
 * @param {string} url
 */
function rootOf(url) {
  const { protocol, host } = parsed(url);
  return `${protocol.replace(/^ws/i, "http")}//${host}${LOOK}`;
}

/** @param {unknown} error */
function nameOf(error) {
  return error instanceof Error ? error.name : typeof error;
}
