/**
 * The connections of a peer, two at most: joining, staying, and replacing one by the next. The twin
 * of protocol/member/connections.py.
 *
 * How a connection replaces another, so that nothing is lost, doubled or put out of order:
 *
 * 1. The next one is opened. The queue is held, and a `capabilities` is sent behind everything that
 *    was sent on the one in use: its answer means that the relay has decided all of it.
 * 2. The next one announces. That presence goes to all connections of the mesh, in one order with
 *    everything else: it is the mark. The one in use is read up to it, the next one from it on (what
 *    it delivers earlier waits in `ahead`).
 * 3. The queue goes on over the next one as soon as that is the one in use.
 *
 * Before every joining presence goes the claim of the id, where there is one (ownership). After it
 * follows a `capabilities`: its answer comes after the whole roster, so whoever has not been in it has
 * gone.
 *
 * What is trusted, and of whom: answers to questions (`capabilities`) and errors, of the relay only; a
 * presence of this peer, of this peer only. All have the turn id of what they answer, and that is a
 * new one which nobody can guess. Others see those of presences, and never those of questions.
 *
 * (Longer than its twin by the types in its comments.)
 *
 * @import { Announcements, Answered, Said } from "./announcements.js"
 * @import { Asks } from "./asks.js"
 * @import { Effect, Instant } from "./effects.js"
 * @import { RelayError } from "./errors.js"
 * @import { EventName, Membership, Step } from "./lifecycle.js"
 * @import { Limits } from "./limits.js"
 * @import { Message, Wire } from "./messages.js"
 * @import { Frame, Outgoing } from "./outgoing.js"
 * @import { Ownership } from "./ownership.js"
 * @import { Patience } from "./patience.js"
 * @import { Returns } from "./returns.js"
 * @import { Roster } from "./roster.js"
 * @import { Services } from "./services.js"
 */

import { AnnouncementRefused, Gap, IdTaken, NotARelay, Replaced, Unreachable } from "./errors.js";
import { Nonsense, readFrame } from "./incoming.js";
import { begun, deadline, expire, isInUse, renewedBy, transition } from "./lifecycle.js";
import {
  isOffline,
  isRelays,
  messageOf,
  opened,
  sentenceOf,
  word,
  writeMessage,
} from "./messages.js";
import { positive } from "./outgoing.js";
import { refuses } from "./patience.js";

/** So many answers of the relay are awaited at a time; the oldest questions are forgotten. */
const QUESTIONS_MAX = 16;
/** RFC 6455: the connection was lost without a close. */
const LOST_CODE = 1006;
export const NONCE_CHARS_MAX = 32;

/** A connection whose grant ends is replaced after this part of the time that is left. */
const RENEW_AT = 0.8;

/**
 * Where what arrives is decided: one object for each module beside this one.
 *
 * @typedef {object} Rooms
 * @property {Ownership} ownership
 * @property {Roster} roster
 * @property {Announcements} announcements
 * @property {Outgoing} outgoing
 * @property {Returns} returns
 * @property {Asks} asks
 * @property {Services} services
 * @property {Patience} patience
 */

/**
 * What the connections need of their owner.
 *
 * @typedef {object} Owner
 * @property {string} token the beginning of the turn ids of what they send by themselves
 * @property {() => string} nonce the end of each of these, which nobody can guess
 * @property {() => number} roll gives numbers in [0, 1)
 * @property {(effect: Effect) => void} emit takes the effects
 * @property {(now: Instant, error: RelayError) => void} giveUp ends the peer
 */

/**
 * The next connection.
 *
 * @typedef {object} Next
 * @property {number} connection
 * @property {boolean} isOpen
 * @property {string | null} presence the turn id of what was announced on it and is awaited
 * @property {string | null} fence the turn id of what the one in use must answer first
 * @property {Said | null} said
 * @property {{ fields: Wire, size: number }[]} ahead what it delivered before its time
 * @property {number} aheadSize bytes that this costs
 */

/** The connections of one peer, each named by a number from 1. */
export class Connections {
  #id;
  #limits;
  #rooms;
  #owner;
  #emit;
  /** @type {Membership} */
  #life = begun(null);
  #opened = 0;
  /** @type {number | null} */
  #use = null;
  /** @type {Next | null} */
  #next = null;
  /** The turn id whose answer follows the whole roster. @type {string | null} */
  #sync = null;
  /** Their turn ids. @type {string[]} */
  #questions = [];
  /** What was told on this connection to be ignored. @type {Set<string>} */
  #ignored = new Set();
  /** What the message costs that is being read. */
  #size = 0;
  /** @type {Instant} */
  #beat = { at: 0, wallMs: 0 };
  /** Nothing was heard since the last heartbeat. */
  #isQuiet = false;
  /** When something was heard on a connection in use; null before the first. @type {number | null} */
  #heardAt = null;
  /** All of the connection that is replaced was read. */
  #isWhole = true;

  /**
   * @param {string} id
   * @param {Readonly<Limits>} limits
   * @param {Rooms} rooms
   * @param {Owner} owner
   */
  constructor(id, limits, rooms, owner) {
    this.#id = id;
    this.#limits = limits;
    this.#rooms = rooms;
    this.#owner = owner;
    this.#emit = owner.emit;
  }

  /** Where the membership is in its life. */
  get state() {
    return this.#life.state;
  }

  /** There is a connection over which messages go. */
  get isInUse() {
    return isInUse(this.#life);
  }

  // What happens

  /**
   * Makes the first connection.
   *
   * @param {Instant} now
   */
  begin(now) {
    this.#life = begun(now.at);
    this.expire(now);
  }

  /**
   * The connection is open.
   *
   * @param {number} connection
   * @param {Instant} now
   */
  opened(connection, now) {
    const coming = this.#next;
    if (coming?.connection !== connection) return;
    coming.isOpen = true;
    if (this.#use === null) {
      this.#announceOn(coming, now);
    } else {
      coming.fence = this.#turnId();
      this.#askCapabilities(this.#use, coming.fence);
    }
  }

  /**
   * A frame arrived on the connection.
   *
   * @param {number} connection
   * @param {unknown} frame
   * @param {Instant} now
   */
  received(connection, frame, now) {
    if (connection === this.#use) {
      this.#isQuiet = false;
      this.#heardAt = now.at;
      this.#apply("Heard", now);
    } else if (this.#next?.connection !== connection) {
      return;
    }
    let arrived;
    try {
      arrived = readFrame(frame, this.#limits);
    } catch (error) {
      if (!(error instanceof Nonsense)) throw error;
      this.#nonsense(connection, error, now);
      return;
    }
    for (const one of arrived) {
      const coming = this.#next;
      if ("bound" in one) {
        this.#ignore(one.what, `at most ${one.bound}`);
      } else if (connection === this.#use) {
        this.#size = one.size;
        this.#onUse(one.fields, now);
      } else if (connection === coming?.connection) {
        this.#size = one.size;
        this.#onNext(coming, one.fields, now);
      }
    }
  }

  /**
   * The connection is over, or could not be opened. `code`, `reason`: as it was closed.
   *
   * @param {number} connection
   * @param {Instant} now
   * @param {number} [code]
   * @param {string} [reason]
   */
  closed(connection, now, code = LOST_CODE, reason = "") {
    const isRefusal = refuses(code);
    if (connection === this.#use) {
      this.#apply("Lost", now, { chance: this.#owner.roll(), isRefusal });
    } else if (connection === this.#next?.connection) {
      this.#rooms.patience.passed();
      this.#miss(`the connection was closed before the relay answered (${code})`, reason);
      this.#apply("Failed", now, { chance: this.#owner.roll(), isRefusal });
    }
  }

  /**
   * An attempt has failed without an error.
   *
   * @param {string} sentence
   * @param {string} [reason]
   */
  #miss(sentence, reason) {
    const error = new Unreachable(reason ? `${sentence}: ${sentenceOf(reason)}` : sentence);
    this.#rooms.patience.missed(error);
  }

  /**
   * The connection could not be made. The peer tries again, or gives up.
   *
   * @param {number} connection
   * @param {RelayError} error
   * @param {Instant} now
   */
  failed(connection, error, now) {
    if (connection !== this.#next?.connection) return;
    if (this.#rooms.patience.failed(error, now.at, { isInUse: this.#use !== null })) {
      this.#owner.giveUp(now, error);
    } else {
      const until = this.#rooms.patience.lastAttemptAt;
      const isRefusal = !(error instanceof Unreachable);
      this.#apply("Failed", now, { chance: this.#owner.roll(), until, isRefusal });
    }
  }

  /**
   * Look now whether the connection is alive, or try again now.
   *
   * @param {Instant} now
   */
  nudge(now) {
    this.#apply("Nudged", now, { chance: this.#owner.roll() });
  }

  /**
   * Closes whatever is open, and makes no connection until `nudge`.
   *
   * @param {Instant} now
   */
  suspend(now) {
    this.#apply("Suspended", now);
  }

  /**
   * Closes whatever is open, for good.
   *
   * @param {Instant} now
   */
  end(now) {
    this.#apply("Ended", now);
  }

  // Time

  /**
   * When (monotonic seconds) `expire` must be called next; null if never.
   *
   * @returns {number | null}
   */
  deadline() {
    const due = deadline(this.#life, this.#limits);
    return due !== null && this.isInUse ? Math.min(due, this.#beatDue) : due;
  }

  /**
   * Does what is due.
   *
   * @param {Instant} now
   */
  expire(now) {
    if (this.isInUse && this.#beatDue <= now.at) this.#heartbeat(now);
    const step = expire(this.#life, now.at, this.#owner.roll(), this.#limits);
    if (step.effects.includes("discard")) {
      this.#miss(`the relay has not answered within ${this.#limits.joinWithinS} s`);
    }
    this.#step(step, now);
  }

  get #beatDue() {
    return this.#beat.at + this.#limits.heartbeatEveryS;
  }

  /** @param {Instant} now */
  #heartbeat(now) {
    const use = present(this.#use);
    const beat = { type: "heartbeat", from: this.#id, timestamp: now.wallMs };
    // The relay does not answer heartbeats, so a quiet mesh sounds like a dead connection.
    this.#transmit(this.#route ?? use, writeMessage(beat));
    if (this.#isQuiet) this.#askCapabilities(use, this.#turnId());
    const elapsedS = (now.wallMs - this.#beat.wallMs) / 1000;
    if (elapsedS > this.#limits.heartbeatEveryS + this.#limits.silentAfterS) {
      this.nudge(now); // Asleep, perhaps on a machine whose monotonic clock sleeps too.
    }
    this.#beat = now;
    this.#isQuiet = true;
  }

  // The life

  /**
   * @param {EventName} name
   * @param {Instant} now
   * @param {{ chance?: number, until?: number, isRefusal?: boolean }} [how]
   */
  #apply(name, now, how) {
    const event = { name, at: now.at, chance: 0, ...how };
    this.#step(transition(this.#life, event, this.#limits), now);
  }

  /**
   * @param {Step} step
   * @param {Instant} now
   */
  #step({ membership, effects }, now) {
    const before = this.state;
    this.#life = membership;
    if (before !== this.state) this.#emit({ effect: "Changed" });
    for (const effect of effects) {
      if (effect === "open") this.#open();
      else if (effect === "adopt") this.#adopt(now);
      else if (effect === "discard") this.#discard();
      else if (effect === "drop") this.#drop();
      else this.#askCapabilities(present(this.#use), this.#turnId()); // probe
    }
    const coming = this.#next;
    if (this.#use === null && coming?.isOpen && coming.presence === null) {
      this.#announceOn(coming, now); // The one in use was lost while it was being fenced.
    }
    this.#connect();
    this.say(now);
  }

  #open() {
    this.#opened += 1;
    this.#next = {
      connection: this.#opened,
      isOpen: false,
      presence: null,
      fence: null,
      said: null,
      ahead: [],
      aheadSize: 0,
    };
    this.#emit({ effect: "Open", connection: this.#opened });
  }

  #discard() {
    if (this.#next !== null) this.#emit({ effect: "Close", connection: this.#next.connection });
    this.#next = null;
    this.#sync = null;
    this.#rooms.roster.cancel();
  }

  #drop() {
    if (this.#use !== null) this.#emit({ effect: "Close", connection: this.#use });
    this.#use = null;
  }

  /** Tells the queue whether there is a connection in use. */
  #connect() {
    const { outgoing, returns, asks } = this.#rooms;
    if (this.isInUse) {
      outgoing.isConnected = true;
    } else if (outgoing.isConnected) {
      returns.lost();
      const dropped = outgoing.disconnected();
      for (const lost of dropped) this.#emit({ effect: "Unsent", ...lost });
      asks.unsent(dropped);
      asks.flush();
    }
  }

  /** @param {Instant} now */
  #adopt(now) {
    const coming = present(this.#next);
    this.#use = coming.connection;
    this.#next = null;
    if (this.#heardAt !== null && !this.#isWhole) {
      this.#emit({ effect: "Missed", error: new Gap(now.at - this.#heardAt) });
    }
    this.#heardAt = now.at;
    this.#isWhole = false;
    this.#ignored.clear();
    this.#beat = now;
    this.#isQuiet = false;
    this.#rooms.patience.joined(now.at);
    this.#rooms.returns.joined(now.at);
    this.#rooms.ownership.joined();
    this.#tell(this.#rooms.announcements.joined(present(coming.said)));
    for (const { fields, size } of coming.ahead) {
      if (this.#use === null) break; // That was the end.
      this.#size = size;
      this.#onUse(fields, now);
    }
  }

  /**
   * @param {Next} coming
   * @param {Instant} now
   */
  #announceOn(coming, now) {
    const { announcements, ownership, roster } = this.#rooms;
    if (ownership.isClaimed) {
      this.#transmit(coming.connection, ownership.text(this.#turnId())); // Its answer tells nothing.
    }
    coming.presence = this.#turnId();
    coming.said = announcements.wanted;
    this.#transmit(coming.connection, announcements.text(coming.said, coming.presence, now));
    this.#sync = this.#turnId();
    roster.begin();
    this.#askCapabilities(coming.connection, this.#sync);
  }

  /**
   * Announces on the connection in use what has changed, if it may be said there.
   *
   * @param {Instant} now
   */
  say(now) {
    const { announcements } = this.#rooms;
    if (this.#use === null || this.#route !== this.#use || !announcements.isDue) return;
    const turnId = this.#turnId();
    const said = announcements.say(turnId);
    this.#transmit(this.#use, announcements.text(said, turnId, now));
  }

  /** @param {Answered} answered */
  #tell({ numbers, error }) {
    for (const number of numbers) this.#emit({ effect: "Announced", number, error });
  }

  /**
   * @param {number} connection
   * @param {string} turnId
   */
  #askCapabilities(connection, turnId) {
    this.#questions.push(turnId);
    if (this.#questions.length > QUESTIONS_MAX) this.#questions.shift();
    const question = { type: "capabilities", from: this.#id, turnId };
    this.#transmit(connection, writeMessage(question));
  }

  /**
   * @param {number} connection
   * @param {string} text
   */
  #transmit(connection, text) {
    this.#emit({ effect: "Transmit", connection, text });
  }

  #turnId() {
    return `${this.#owner.token}:${this.#owner.nonce()}`;
  }

  // What arrives

  /**
   * @param {Next} coming
   * @param {Wire} fields
   * @param {Instant} now
   */
  #onNext(coming, fields, now) {
    if (this.state === "switching") {
      coming.ahead.push({ fields, size: this.#size });
      coming.aheadSize += this.#size;
      const { unreadMessagesMax, unreadBytesMax } = this.#limits;
      if (coming.ahead.length > unreadMessagesMax || coming.aheadSize > unreadBytesMax) {
        this.#apply("Elapsed", now);
      }
    } else if (coming.presence !== null) {
      const message = messageOf(fields);
      const { type, from, turnId } = message;
      const isAnswer = turnId === coming.presence;
      if (type === "presence" && isAnswer && from === this.#id) {
        this.#noteOwn(message, now);
        this.#apply("Joined", now);
      } else if (type === "error" && isRelays(message) && (isAnswer || turnId === undefined)) {
        // Without a turn id it is about the presence too: nothing else was said here.
        this.#refused(coming, message, now);
      }
    }
  }

  /**
   * @param {Next} coming
   * @param {Message} error
   * @param {Instant} now
   */
  #refused(coming, error, now) {
    if (word(error, "code") === "id_taken") {
      this.failed(coming.connection, new IdTaken(), now);
      return;
    }
    const refused = refusal(error);
    if (refused.isTransient) {
      this.failed(coming.connection, refused, now);
      return;
    }
    const answered = this.#rooms.announcements.joinedAsRefused(present(coming.said), refused);
    if (answered !== null) {
      // Something that was never accepted: be what was, and try again.
      this.#tell(answered);
      this.#emit({ effect: "Arrived", message: error, size: this.#size });
      this.#rooms.patience.passed();
      this.#apply("Failed", now, { chance: this.#owner.roll() });
    } else {
      this.failed(coming.connection, refused, now);
    }
  }

  /**
   * @param {Wire} fields
   * @param {Instant} now
   */
  #onUse(fields, now) {
    const message = opened(messageOf(fields));
    const { type, turnId, origin } = message;
    if (type === "presence") this.#noteOwn(message, now);
    const isOwn = isRelays(message) || origin === this.#id;
    if (isOwn && turnId?.startsWith(`${this.#owner.token}:`)) {
      this.#onOwn(message, turnId, now);
    } else if (type === "presence") {
      this.#onPresence(message, now);
    } else if (type === "error" && isRelays(message) && word(message, "code") === "replaced") {
      this.#owner.giveUp(now, new Replaced());
    } else if (type !== "capabilities_response" || !isRelays(message)) {
      this.#rooms.asks.answer(message, this.#size, now);
      this.#rooms.services.note(message, this.#size, now);
      this.#arrived(message);
    }
  }

  /** @param {Message} message */
  #arrived(message) {
    this.#emit({ effect: "Arrived", message, size: this.#size });
  }

  /**
   * @param {Message} presence
   * @param {Instant} now
   */
  #noteOwn(presence, now) {
    if (presence.from !== this.#id) return;
    const isOwn = presence.turnId?.startsWith(`${this.#owner.token}:`) ?? false;
    const isAnothers = !isOwn && !isOffline(presence);
    const { roster } = this.#rooms;
    if (isAnothers && !roster.shares && !roster.isShared) {
      this.#emit({ effect: "PresentTwice", presence });
      this.#rooms.announcements.repeat(); // So that the other one finds out, too.
      this.say(now);
    }
    this.#rooms.roster.noteOwn(presence, { isAnothers });
  }

  /**
   * The answer to something that the membership itself has sent; none of the user's.
   *
   * @param {Message} message
   * @param {string} turnId
   * @param {Instant} now
   */
  #onOwn(message, turnId, now) {
    const { announcements } = this.#rooms;
    if (message.type === "presence" && message.from === this.#id) {
      if (turnId === this.#next?.presence) {
        this.#isWhole = true;
        this.#apply("Marked", now);
      } else if (announcements.isAsked(turnId)) {
        this.#tell(announcements.taken(turnId));
        this.say(now);
      }
    } else if (!isRelays(message)) {
      // Another connection of this peer may say what it likes.
    } else if (this.#questions.includes(turnId)) {
      this.#questions.splice(this.#questions.indexOf(turnId), 1);
      this.#answered(message, turnId, now);
    } else if (message.type === "error") {
      if (announcements.isAsked(turnId)) {
        this.#tell(announcements.refused(turnId, refusal(message)));
      }
      this.#arrived(message);
      this.say(now);
    }
  }

  /**
   * The relay answers a question.
   *
   * @param {Message} message
   * @param {string} turnId
   * @param {Instant} now
   */
  #answered(message, turnId, now) {
    const { outgoing, patience, roster } = this.#rooms;
    const coming = this.#next;
    if (coming !== null && turnId === coming.fence && coming.presence === null) {
      this.#announceOn(coming, now);
    } else if (turnId === this.#sync) {
      this.#sync = null;
      roster.complete();
      this.#rosterChanged(now);
      patience.complete();
    } else if (message.type === "error") {
      this.#arrived(message);
    }
    if (message.type === "capabilities_response") {
      outgoing.learn(message);
      this.#renewInTime(word(message, "grant"), now);
    }
  }

  /**
   * Replaces the connection before its grant ends, if the relay says when that is. But a new one is
   * not replaced at once, whatever the relay says.
   *
   * @param {any} grant
   * @param {Instant} now
   */
  #renewInTime(grant, now) {
    const expiresInS = positive(grant?.expiresInSeconds);
    if (expiresInS === null) return;
    const soonest = this.#life.joined + this.#limits.probeWithinS;
    this.#life = renewedBy(this.#life, Math.max(soonest, now.at + RENEW_AT * expiresInS));
  }

  /**
   * @param {Message} presence
   * @param {Instant} now
   */
  #onPresence(presence, now) {
    const noted = this.#rooms.roster.note(presence, this.#size);
    const { outgoing, returns } = this.#rooms;
    if (presence.from !== undefined && returns.seen(presence.from)) outgoing.released();
    if (noted.isIgnored) {
      const { peersMax, rosterBytesMax } = this.#limits;
      const bounds = `at most ${peersMax} peers, of ${rosterBytesMax} bytes together`;
      this.#ignore("a presence for which the roster has no room", bounds);
    }
    if (noted.hasChanged) this.#rosterChanged(now);
    if (noted.isNews) this.#arrived(presence);
  }

  /** @param {Instant} now */
  #rosterChanged(now) {
    this.#rooms.asks.rosterChanged(now);
    this.#rooms.services.rosterChanged(now);
    this.#emit({ effect: "Changed" });
  }

  /**
   * @param {string} what
   * @param {string} bounds
   */
  #ignore(what, bounds) {
    if (this.#ignored.has(what)) return;
    this.#ignored.add(what);
    this.#emit({ effect: "Ignored", what: `${what} (${bounds})` });
  }

  /**
   * @param {number} connection
   * @param {Nonsense} nonsense
   * @param {Instant} now
   */
  #nonsense(connection, nonsense, now) {
    if (connection === this.#use) {
      this.closed(connection, now);
    } else {
      const what = `what answers at this URL is no relay of agent meshes (it sent ${nonsense.message})`;
      this.failed(connection, new NotARelay(`${what}; check host, port and path`), now);
    }
  }

  // What is sent

  /**
   * What to send next on this connection; or, if the pace forbids it, at what time (monotonic
   * seconds) to ask again; or null: nothing waits, or it must not go here, or not now.
   *
   * @param {number} connection
   * @param {Instant} now
   * @returns {Frame | number | null}
   */
  nextFrame(connection, now) {
    if (connection !== this.#route) return null;
    // A relay that knows no `capabilities` is not waited for long.
    const patientUntil = this.#life.joined + this.#limits.probeWithinS;
    const frame = this.#rooms.outgoing.nextFrame(now.at, patientUntil);
    if (typeof frame === "object" && frame !== null) this.#rooms.asks.flush(); // There is room now.
    return frame;
  }

  /** The connection on which the queue goes, if it goes at all. */
  get #route() {
    // Held: the relay must have decided everything on the one before the other.
    return this.#next?.isOpen ? null : this.#use;
  }
}

/** @param {Message} error */
function refusal(error) {
  return new AnnouncementRefused(sentenceOf(word(error, "code")), sentenceOf(word(error, "error")));
}

/**
 * What is there for certain.
 *
 * @template Value
 * @param {Value | null} value
 * @returns {Value}
 */
function present(value) {
  if (value === null) throw new Error("there is none: a bug");
  return value;
}
