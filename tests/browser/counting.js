/** A relay that lets connections come back by counting (rule 19 of docs/protocol.md), for tests in
 * virtual time. It keeps every message, so that only what a test forbids cannot be resumed. */

import { crc32 } from "../../browser/src/bytes.js";
import { World } from "./world.js";

/** What the relay knows of one connection, whatever sockets it has. */
class Stream {
  sent = []; // The texts of its messages after the answer that opened it.
  taken = 0; // Frames after the question.
  received = 0; // What the client has reported.
  lostAt = null; // When its socket was gone, null while it has one.
  hasJoined = false;
  resumed = 0;

  constructor(socket, seconds) {
    Object.assign(this, { socket, seconds });
  }
}

export class CountingWorld extends World {
  resumeS = 20;
  epoch = "epoch 1";
  streams = new Map(); // By token.
  refusesToResume = null; // A reason.
  reports = []; // What the client has said that it has received.
  comebacks = 0; // How often somebody wanted to come back.
  refused = []; // Why.
  #tokens = 0;

  capabilities(stream = null) {
    const { resumeS: seconds, epoch } = this;
    const resume = stream ? { token: stream.token, epoch, seconds } : { seconds };
    return { ...super.capabilities(), ...(seconds && { resume }) };
  }

  take(socket) {
    if (socket.stream) socket.stream.taken += 1;
    super.take(socket);
  }

  decide(socket, message) {
    const { resume, received } = message.data ?? {};
    if (message.type !== "capabilities" || !this.resumeS || !this.answersCapabilities) {
      super.decide(socket, message);
    } else if (resume?.token !== undefined) {
      this.comeBack(socket, message, resume);
    } else if (resume !== undefined) {
      const stream = new Stream(socket, Math.min(resume.seconds, this.resumeS));
      this.renew(stream);
      this.reply(socket, message, this.capabilities(stream));
      socket.stream = stream;
    } else if (received !== undefined) {
      this.reports.push(received);
      socket.stream.received = received;
      this.reply(socket, message, { taken: socket.stream.taken });
    } else {
      super.decide(socket, message);
    }
  }

  reply(socket, { turnId }, data) {
    this.answer(socket, { type: "capabilities_response", turnId, data });
  }

  renew(stream) {
    this.#tokens += 1;
    stream.token = `token ${this.#tokens}`;
    this.streams.set(stream.token, stream);
  }

  comeBack(socket, message, { token, epoch, received, crc }) {
    this.comebacks += 1;
    const stream = this.streams.get(token);
    this.streams.delete(token);
    const reason = this.refusalToResume(socket, stream, epoch);
    if (reason !== null) return this.stayAway(socket, message, reason);
    const old = stream.socket;
    while (old.sent.length) this.take(old); // What the old one has still delivered.
    if (old.readyState === 1) old.break(1008);
    const last = received > 0 ? crc32(stream.sent[received - 1] ?? "") : undefined;
    const isWrong = received < stream.received || received > stream.sent.length || crc !== last;
    if (isWrong) return this.stayAway(socket, message, "count");
    stream.resumed += 1;
    Object.assign(stream, { socket, lostAt: null, received });
    this.renew(stream);
    const resume = { resumed: true, taken: stream.taken, ...this.capabilities(stream).resume };
    this.reply(socket, message, { resume });
    for (const text of stream.sent.slice(received)) socket.coming.push(text);
    Object.assign(socket, { stream, hasJoined: stream.hasJoined });
  }

  refusalToResume(socket, stream, epoch) {
    if (this.refusesToResume) return this.refusesToResume;
    if (epoch !== this.epoch) return "epoch";
    if (socket.hasJoined || socket.stream) return "late";
    if (!stream || (stream.lostAt ?? this.at) + stream.seconds < this.at) return "unknown";
    return null;
  }

  stayAway(socket, message, reason) {
    this.refused.push(reason);
    this.reply(socket, message, { resume: { resumed: false, reason, seconds: this.resumeS } });
  }

  put(socket, message) {
    const text = JSON.stringify(message);
    socket.coming.push(text);
    socket.stream?.sent.push(text);
  }

  say(message) {
    super.say(message);
    for (const { hasJoined, lostAt, sent } of this.streams.values()) {
      if (hasJoined && lostAt !== null) sent.push(JSON.stringify(message));
    }
  }

  /** The socket is no more, and the relay knows it; what was on its way is lost. */
  gone(socket) {
    const { stream, isHalved } = socket;
    if (isHalved) return;
    if (stream?.socket === socket && stream.lostAt === null) {
      Object.assign(stream, { hasJoined: socket.hasJoined, lostAt: this.at });
      if (socket.closedWith === 1000) this.streams.delete(stream.token); // Goodbye.
    }
    super.gone(socket);
  }

  /** The client's end of the socket breaks, and the relay does not know. Nothing arrives any more,
   * except what has arrived already and waits to be decided. */
  halve(socket) {
    const { stream } = socket;
    Object.assign(stream, { hasJoined: socket.hasJoined, lostAt: Infinity });
    socket.isHalved = true;
    socket.readyState = 3;
    socket.coming = [];
    socket.onclose?.({ code: 1006 });
  }

  /** The relay begins anew, and knows nobody. */
  restart() {
    this.epoch = `epoch ${Number(this.epoch.split(" ")[1]) + 1}`;
    this.streams.clear();
    for (const socket of this.sockets) if (socket.readyState === 1) socket.break(1001);
  }
}
