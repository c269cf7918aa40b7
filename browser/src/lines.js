/** The sockets of a peer: one for each connection that `Member` has opened. Nothing is decided here. */

/**
 * @import { Driver } from "./driver.js"
 * @import { Openings } from "./openings.js"
 * @import { Socket } from "./world.js"
 */

/** Beyond, a socket is given no more: it has not sent that yet. */
const BUFFERED_BYTES_MAX = 2 ** 18;
/** Browsers do not run timers more often (seconds). */
const PUMP_EVERY_S = 0.004;

export class Lines {
  /** By number of the connection; null while its URL is awaited. @type {Map<number, Socket | null>} */
  #sockets = new Map();
  #openings;
  #driver;
  #sent;
  /** @type {(() => void) | null} */
  #cancelPump = null;
  #pumpAt = Infinity;

  /**
   * @param {Openings} openings
   * @param {Driver} driver
   * @param {(tickets: number[]) => void} sent is told what was handed to a socket
   */
  constructor(openings, driver, sent) {
    this.#openings = openings;
    this.#driver = driver;
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
      const address = this.#openings.known ?? (await this.#openings.address());
      if (!this.#sockets.has(number)) return; // It took too long, or the peer has left.
      this.#sockets.set(number, this.#connected(number, address));
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
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      wasOpen = true;
      this.#openings.opened();
      this.#driver.report((member, now) => member.opened(number, now));
    };
    socket.onmessage = ({ data }) => {
      this.#driver.report((member, now) => member.received(number, data, now));
    };
    socket.onclose = ({ code, reason }) => {
      if (wasOpen) this.#driver.report((member, now) => member.closed(number, now, code, reason));
      else this.#openings.failed(address.url, (error) => this.#failed(number, error));
    };
    return socket;
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
