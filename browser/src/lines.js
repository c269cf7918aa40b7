/** The sockets of a peer: one for each connection that `Member` has opened. Nothing is decided here. */

import { BadAddress, RelayError, Unreachable } from "./errors.js";

/**
 * @import { Driver } from "./driver.js"
 * @import { Socket, World } from "./world.js"
 */

/** Beyond, a socket is given no more: it has not sent that yet. */
const BUFFERED_BYTES_MAX = 2 ** 18;
/** Browsers do not run timers more often (seconds). */
const PUMP_EVERY_S = 0.004;

const HIDDEN =
  "the connection could not be made; a browser hides the reason: check that a relay is at this URL, " +
  "that it allows this page's origin (--allowed-origins), and on AWS that the credentials are valid " +
  "and may invoke the runtime, the region, and this machine's clock";

/**
 * A URL, or one with the subprotocols to offer.
 *
 * @typedef {string | { url: string, protocols?: string[] }} Address
 */

export class Lines {
  /** By number of the connection; null while its URL is awaited. @type {Map<number, Socket | null>} */
  #sockets = new Map();
  #url;
  #driver;
  #world;
  #sent;
  /** @type {(() => void) | null} */
  #cancelPump = null;
  #pumpAt = Infinity;

  /**
   * @param {string | (() => Address | Promise<Address>)} url
   * @param {Driver} driver
   * @param {World} world
   * @param {(tickets: number[]) => void} sent is told what was handed to a socket
   */
  constructor(url, driver, world, sent) {
    this.#url = url;
    this.#driver = driver;
    this.#world = world;
    this.#sent = sent;
  }

  /**
   * Makes a connection.
   *
   * @param {number} number
   */
  async open(number) {
    this.#sockets.set(number, null);
    try {
      const address = typeof this.#url === "function" ? await this.#url() : this.#url;
      if (!this.#sockets.has(number)) return; // It took too long, or the peer has left.
      this.#sockets.set(number, this.#connected(number, address));
    } catch (error) {
      if (!this.#sockets.has(number)) return;
      // Whatever a user's function throws may hold a credential: only its name is shown.
      const kind = error instanceof Error ? error.name : typeof error;
      const known = error instanceof RelayError;
      this.#failed(number, known ? error : new Unreachable(`the url function failed (${kind})`));
    }
  }

  /**
   * @param {number} number
   * @param {any} address
   */
  #connected(number, address) {
    const isText = typeof address === "string";
    const [url, protocols] = isText ? [address] : [address?.url, address?.protocols];
    if (typeof url !== "string") throw new BadAddress("the url function must return a URL");
    const socket = this.#socket(url, protocols ?? []);
    let wasOpen = false;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      wasOpen = true;
      this.#driver.report((member, now) => member.opened(number, now));
    };
    socket.onmessage = ({ data }) => {
      this.#driver.report((member, now) => member.received(number, data, now));
    };
    socket.onclose = () => {
      if (wasOpen) this.#driver.report((member, now) => member.closed(number, now));
      else this.#failed(number, new Unreachable(HIDDEN));
    };
    return socket;
  }

  /**
   * @param {string} url
   * @param {string[]} protocols
   */
  #socket(url, protocols) {
    try {
      return this.#world.connect(url, protocols);
    } catch (error) {
      const advice = "it must begin with ws:// or wss://, and from an https page with wss://";
      const kind = error instanceof Error ? error.name : typeof error;
      throw new BadAddress(`the browser refused the URL (${kind}): ${advice}`);
    }
  }

  /**
   * @param {number} number
   * @param {RelayError} error
   */
  #failed(number, error) {
    this.#driver.report((member, now) => member.failed(number, error, now));
  }

  /**
   * Closes a connection, and hears no more of it.
   *
   * @param {number} number
   */
  close(number) {
    const socket = this.#sockets.get(number);
    this.#sockets.delete(number);
    if (!socket) return;
    socket.onopen = null;
    socket.onmessage = null;
    socket.onclose = null;
    socket.close(1000);
  }

  /**
   * Sends a text at once.
   *
   * @param {number} number
   * @param {string} text
   */
  transmit(number, text) {
    const socket = this.#sockets.get(number);
    if (socket?.readyState === 1) socket.send(text);
  }

  /** Sends what may be sent now of what waits, and comes back when more may. */
  pump() {
    for (const [number, socket] of this.#sockets) {
      if (socket?.readyState === 1) this.#pumpOn(number, socket);
    }
  }

  /**
   * @param {number} number
   * @param {Socket} socket
   */
  #pumpOn(number, socket) {
    const { member } = this.#driver;
    while (member.queued > 0) {
      const now = this.#driver.now();
      if (socket.bufferedAmount > (member.countsFrames ? 0 : BUFFERED_BYTES_MAX)) {
        this.#pumpLater(now.at, now.at);
        return;
      }
      const frame = member.nextFrame(number, now);
      if (frame === null) return;
      if (typeof frame === "number") {
        this.#pumpLater(frame, now.at);
        return;
      }
      socket.send(frame.text);
      this.#sent(frame.tickets);
    }
  }

  /**
   * @param {number} due
   * @param {number} at
   */
  #pumpLater(due, at) {
    const soonest = Math.max(due, at + PUMP_EVERY_S);
    if (this.#pumpAt <= soonest) return;
    this.#cancelPump?.();
    this.#pumpAt = soonest;
    this.#cancelPump = this.#driver.after(soonest - at, () => {
      this.#pumpAt = Infinity;
      this.#driver.obey(); // Which ends in `pump`.
    });
  }

  /** Nothing is sent any more. */
  end() {
    this.#cancelPump?.();
  }
}
