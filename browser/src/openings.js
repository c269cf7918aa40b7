/** How a connection is opened, and why that failed, as far as a page can find out. */

import { placeOf } from "./election.js";
import { BadAddress, Rejected, RelayError, Unreachable } from "./errors.js";
import { bearerProtocols } from "./tokens.js";

/**
 * @import { MaybeCalled } from "./cognito.js"
 * @import { Socket, World } from "./world.js"
 */

/** So many refusals in a row are one for good. */
const REFUSALS_MAX = 3;

const HIDDEN =
  "the connection could not be made; a browser hides the reason: check that a relay is at this URL, " +
  "that it allows this page's origin (--allowed-origins), and on AWS that the credentials are valid " +
  "and may invoke the runtime, the token, the region, and this machine's clock";

const REFUSED =
  "a server is at this URL, and refuses the connection; a browser hides the reason: check that the " +
  "token is valid and for this mesh, that the relay allows this page's origin (--allowed-origins), " +
  "and that it is not full";

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

  /**
   * @param {{ url: string, protocols: string[] }} address
   * @returns {Socket}
   */
  connect({ url, protocols }) {
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
  }

  /**
   * A connection did not open; `tell` is told why. Where a token goes along, it may be refused: if
   * somebody answers at this URL over HTTP, but never opens a WebSocket, the peer should not try for
   * ever.
   *
   * @param {string} url
   * @param {(error: RelayError) => void} tell
   */
  async failed(url, tell) {
    if (this.#token !== null) {
      const isThere = await this.#world.answers(httpOf(url));
      this.#refusals = isThere ? this.#refusals + 1 : 0;
    }
    tell(this.#refusals < REFUSALS_MAX ? new Unreachable(HIDDEN) : new Rejected(REFUSED));
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
 * The same place for HTTP, without the query.
 *
 * @param {string} url
 */
function httpOf(url) {
  return url.replace(/^ws/i, "http").replace(/[?#].*$/s, "");
}

/** @param {unknown} error */
function nameOf(error) {
  return error instanceof Error ? error.name : typeof error;
}
