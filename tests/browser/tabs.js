/** What the tabs of one browser share: locks, and channels on which they hear one another. */

export class Browser {
  /** By name: who holds it, and who waits. */
  locks = new Map();
  channels = [];
  /** Locks are refused, as in a frame without an origin. */
  refuses = false;

  /** What one more tab sees of it. */
  tab() {
    return {
      locks: { request: (...given) => this.#request(...given) },
      channel: (name) => this.#open(name),
    };
  }

  async #request(name, { signal }, callback) {
    if (this.refuses) throw new DOMException("no", "SecurityError");
    const before = this.locks.get(name) ?? Promise.resolve();
    let release;
    const mine = new Promise((resolve) => {
      release = resolve;
    });
    this.locks.set(
      name,
      before.then(() => mine),
    );
    const aborted = new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
    });
    try {
      await Promise.race([before, aborted]);
      await callback({ name });
    } finally {
      release();
    }
  }

  #open(name) {
    const channel = {
      name,
      onmessage: null,
      postMessage: (data) => {
        for (const other of this.channels) {
          if (other !== channel && other.name === name) other.onmessage?.({ data });
        }
      },
      close: () => {
        this.channels = this.channels.filter((other) => other !== channel);
      },
    };
    this.channels.push(channel);
    return channel;
  }
}
