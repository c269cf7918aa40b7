/** The sockets of a peer: one for each connection that `Member` has opened. Nothing is decided here. */

/**
 * @import { Driver } from "./driver.js"
 * @import { Limits } from "./limits.js"
 * @import { Openings } from "./openings.js"
 * @import { Socket } from "./world.js"
 */

/** Beyond, a socket is given no more: it has not sent that yet. */
const BUFFERED_BYTES_MAX = 2 ** 18;
/** After an error the end of a socket is told within so many seconds, or never. */
const CLOSED_AFTER_S = 0.25;
/** Browsers do not run timers more often (seconds). */
const PUMP_EVERY_S = 0.004;

export class Lines {
  /** By number of the connection; null while its URL is awaited. @type {Map<number, Socket | null>} */
  #sockets = new Map();
  #openings;
  #driver;
  #sent;
  #limits;
  #warn;
  /** By number of the connection: how to stop looking after it. @type {Map<number, () => void>} */
  #hedges = new Map();
  /** What was told to keep connections waiting. */
  #hindrance = "";
  /** @type {(() => void) | null} */
  #cancelPump = null;
  #pumpAt = Infinity;

  /**
   * @param {Openings} openings
   * @param {Driver} driver
   * @param {Readonly<Limits>} limits
   * @param {object} owner
   * @param {(tickets: number[]) => void} owner.sent is told what was handed to a socket
   * @param {(sentence: string) => void} owner.warn tells whoever develops the page
   */
  constructor(openings, driver, limits, { sent, warn }) {
    this.#openings = openings;
    this.#driver = driver;
    this.#limits = limits;
    this.#sent = sent;
    this.#warn = warn;
  }

  /**
   * Makes a connection.
   *
   * @param {number} number
   */
  async open(number) {
    this.#sockets.set(number, null);
    const openings = this.#openings;
    try {
      const address = openings.known ?? (await openings.address());
      if (openings.isDoubtful) await openings.check(address.url);
      if (!this.#sockets.has(number)) return; // It took too long, or the peer has left.
      this.#sockets.set(number, this.#connected(number, address));
      this.#hedge(number, address);
    } catch (error) {
      this.#failed(number, error);
    }
  }

  /**
   * @param {number} number
   * @param {{ url: string, protocols: string[] }} address
   */
  #connected(number, address) {
    const socket = this.#openings.connect(address);
    let wasOpen = false;
    let isOver = false;
    /** @param {{ code?: number, reason?: string }} how */
    const over = ({ code, reason }) => {
      if (isOver) return;
      isOver = true;
      this.#settle(number);
      if (wasOpen) this.#driver.report((member, now) => member.closed(number, now, code, reason));
      else this.#openings.failure(address.url).then((error) => this.#failed(number, error));
    };
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      wasOpen = true;
      this.#settle(number);
      this.#openings.opened();
      this.#driver.report((member, now) => member.opened(number, now));
    };
    socket.onmessage = ({ data }) => {
      this.#driver.report((member, now) => member.received(number, data, now));
    };
    socket.onclose = over;
    socket.onerror = () => {
      // Where a page's policy forbids the connection, Chromium tells nothing but this.
      if (!wasOpen) this.#driver.after(CLOSED_AFTER_S, () => socket.readyState === 3 && over({}));
    };
    return socket;
  }

  /**
   * Looks after a connection that nobody answers: if somebody who did not answer over HTTP does so
   * now, a new one is answered, and the old one may hang for long. (A second one beside it would wait
   * for the first: browsers open one at a time.)
   *
   * @param {number} number
   * @param {{ url: string, protocols: string[] }} address
   */
  #hedge(number, address, pauseS = this.#limits.hedgeAfterS, wasAway = false) {
    const socket = this.#sockets.get(number);
    const isWaiting = () => socket?.readyState === 0 && this.#sockets.get(number) === socket;
    const cancel = this.#driver.after(pauseS, async () => {
      this.#hedges.delete(number);
      const isThere = await this.#openings.answers(address.url);
      const hindrance = isThere ? null : await this.#openings.hindrance(address.url);
      if (!isWaiting()) return;
      if (hindrance && this.#hindrance !== hindrance.message) {
        this.#hindrance = hindrance.message;
        this.#warn(hindrance.message);
      }
      if (isThere && wasAway) {
        this.close(number);
        this.open(number);
      } else {
        this.#hedge(number, address, Math.min(2 * pauseS, this.#limits.hedgeMaxS), !isThere);
      }
    });
    this.#hedges.set(number, cancel);
  }

  /** @param {number} number */
  #settle(number) {
    this.#hedges.get(number)?.();
    this.#hedges.delete(number);
  }

  /**
   * @param {number} number
   * @param {any} error a RelayError
   */
  #failed(number, error) {
    this.#driver.report((member, now) => member.failed(number, error, now));
  }

  /**
   * Closes a connection, and hears no more of it.
   *
   * @param {number} number
   * @param {number} [code]
   */
  close(number, code = 1000) {
    const socket = this.#sockets.get(number);
    this.#sockets.delete(number);
    this.#settle(number);
    if (!socket) return;
    socket.onopen = null;
    socket.onmessage = null;
    socket.onerror = null;
    socket.onclose = null;
    socket.close(code);
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
    while (member.hasToSend) {
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
      this.#driver.flush(); // What is to go behind this frame, before the next.
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
