/**
 * The connections of a peer, two at most: joining, staying, coming back, and replacing one by the next.
 * The twin of protocol/member/connections.py.
 *
 * After a cut the peer goes on over another socket, if the relay has agreed to that before (rule 19 in
 * docs/protocol.md, and sockets.js):
 *
 * 1. While that is open, a lost connection counts as one: the queue takes messages, and nobody is told
 *    of a loss. The states are those of joining.
 * 2. The next one is opened. It asks for what was missed, before anything else.
 * 3. If the relay agrees, it is the one in use at once. What was not taken is sent again, before
 *    anything of the queue. If not, it joins as ever, and the program hears of a `Gap`.
 *
 * How a connection replaces another, so that nothing is lost, doubled or put out of order:
 *
 * 1. The next one is opened. The queue is held, and a `capabilities` is sent behind everything that
 *    was sent on the one in use: its answer means that the relay has decided all of it.
 * 2. The next one announces. That presence goes to all connections of the mesh, in one order with
 *    everything else: it is the mark. The one in use is read up to it, the next one from it on (what
 *    it delivers earlier waits in `ahead`).
 * 3. The queue goes on over the next one as soon as that is the one in use. So if the one in use is cut
 *    before, the next one is given up, and nothing is missing: the one in use comes back.
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
 * @import { Recalling } from "./recalling.js"
 * @import { Returns } from "./returns.js"
 * @import { Roster } from "./roster.js"
 * @import { Services } from "./services.js"
 */

import { AnnouncementRefused, Gap, IdTaken, NotARelay, Replaced, Unreachable } from "./errors.js";
import { isArray, Nonsense, readFrame } from "./incoming.js";
import {
  begun,
  deadline,
  expire,
  isInUse,
  kept,
  renewedBy,
  silentAt,
  transition,
} from "./lifecycle.js";
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
import { Sockets } from "./sockets.js";
import { isWanted } from "./subscribing.js";
import { PROBE, Unproved } from "./unproved.js";

/** So many answers of the relay are awaited at a time; the oldest questions are forgotten. */
const QUESTIONS_MAX = 16;
const TOO_MANY_WISHES = "too_many_wishes";
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
 * @property {Recalling} recalling
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
 * @property {boolean} isAsked it wants to go on with a lost one,
 * @property {boolean} isBack and does
 * @property {string | null} presence the turn id of what was announced on it and is awaited
 * @property {string | null} fence the turn id of what the one in use must answer first
 * @property {Said | null} said
 * @property {Unproved | null} unproved what else may tell that the presence was taken
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
  #sockets;
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
  /** The one in use was joined without its own presence. */
  #isUnproved = false;

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
    this.#sockets = new Sockets(id, limits, {
      outgoing: rooms.outgoing,
      turnId: () => this.#turnId(),
      emit: owner.emit,
    });
  }

  /** Where the membership is in its life. */
  get state() {
    return this.#life.state;
  }

  /** There is a connection over which messages go. */
  get isInUse() {
    return isInUse(this.#life);
  }

  /** There is one, or one that was lost and may come back. */
  get isConnected() {
    return this.isInUse || this.#sockets.isAway;
  }

  /** How many messages of the queue wait to be sent again. */
  get waiting() {
    return this.#sockets.waiting;
  }

  /** Something is to be sent again, before anything of the queue. */
  get isBehind() {
    return this.#use !== null && this.#sockets.isBehind(this.#use);
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
    this.#beginOn(coming, now);
  }

  /**
   * It is open, and nothing was said there.
   *
   * @param {Next} coming
   * @param {Instant} now
   */
  #beginOn(coming, now) {
    if (this.#use !== null) {
      if (this.#sockets.isBehind(this.#use)) return; // Else when it is not.
      coming.fence = this.#turnId();
      this.#askCapabilities(this.#use, coming.fence);
    } else if (this.#sockets.isAway) {
      coming.isAsked = true;
      this.#sockets.comeBack(coming.connection);
    } else {
      this.#announceOn(coming, now);
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
    const text = String(frame);
    for (const one of arrived) {
      const coming = this.#next;
      if ("bound" in one) {
        const isCountable = arrived.length > 1 || !isArray(text);
        this.#sockets.excess(connection, text, { isCountable });
        this.#rooms.recalling.excess();
        this.#ignore(one.what, `at most ${one.bound}`);
      } else if (this.#sockets.note(connection, text, messageOf(one.fields))) {
        // The answer to something that was asked there.
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
      this.#chooseUse(now);
      this.#apply("Lost", now, { chance: this.#owner.roll(), isRefusal });
    } else if (connection === this.#next?.connection) {
      this.#rooms.patience.passed();
      this.#miss(`the connection was closed before the relay answered (${code})`, reason);
      this.#apply("Failed", now, { chance: this.#owner.roll(), isRefusal });
    }
  }

  /**
   * The one in use is lost. If it may come back, it delivers all that the next one would.
   *
   * @param {Instant} now
   */
  #chooseUse(now) {
    if (this.#use === null || (this.#next?.presence ?? null) === null) return;
    if (this.#sockets.canReturn(this.#use)) {
      this.#apply("Failed", now, { chance: this.#owner.roll() });
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
    this.#tellLoss(now);
  }

  // Time

  /**
   * When (monotonic seconds) `expire` must be called next; null if never.
   *
   * @returns {number | null}
   */
  deadline() {
    const beatDue = this.isInUse ? this.#beatDue : null;
    const reportDue = this.#sockets.reportDue(this.#use);
    const proofDue = this.#awaited?.deadline() ?? null;
    const lifeDue = deadline(this.#life, this.#limits);
    const dues = [lifeDue, this.#sockets.deadline(), beatDue, reportDue, proofDue];
    const known = dues.filter((due) => due !== null);
    return known.length > 0 ? Math.min(...known) : null;
  }

  /**
   * Does what is due.
   *
   * @param {Instant} now
   */
  expire(now) {
    if (this.isInUse && this.#beatDue <= now.at) this.#heartbeat(now);
    this.#prove(now);
    if (!this.#canBeReplaced) this.#life = kept(this.#life, now.at);
    this.#sockets.reportInTime(this.#use, now.at);
    if (this.#sockets.expire(now.at)) this.#rooms.outgoing.released(); // Whoever waits for room is told.
    const silent = silentAt(this.#life, this.#limits);
    let step = expire(this.#life, now.at, this.#owner.roll(), this.#limits);
    if (silent !== null && silent <= now.at && step.effects.includes("drop")) {
      const before = this.#next;
      this.#chooseUse(now);
      if (this.#next !== before) {
        step = expire(this.#life, now.at, this.#owner.roll(), this.#limits);
      }
    }
    if (step.effects.includes("discard")) {
      this.#miss(`the relay has not answered within ${this.#limits.joinWithinS} s`);
    }
    this.#step(step, now);
  }

  /** The presence that was sent, if only its coming back is missing. */
  get #awaited() {
    return this.state === "joining" ? (this.#next?.unproved ?? null) : null;
  }

  /**
   * Perhaps the relay has taken the presence, although it does not come back.
   *
   * @param {Instant} now
   */
  #prove(now) {
    const unproved = this.#awaited;
    if (unproved === null) return;
    if (unproved.mustAsk(now.at)) {
      unproved.direct = this.#turnId();
      this.#hearItself(present(this.#next).connection, unproved.direct);
    }
    if (unproved.isDue(now.at)) this.#joinUnproved(unproved, now);
  }

  /**
   * @param {Unproved} unproved
   * @param {Instant} now
   */
  #joinUnproved(unproved, now) {
    unproved.isTaken = true;
    this.#apply("Joined", now);
  }

  /**
   * Another connection can take the place of the one in use, and nothing is lost: the relay answers
   * questions, and sends presences back.
   */
  get #canBeReplaced() {
    return this.#sync === null && !this.#isUnproved;
  }

  get #beatDue() {
    return this.#beat.at + this.#limits.heartbeatEveryS;
  }

  /** @param {Instant} now */
  #heartbeat(now) {
    const use = present(this.#use);
    const beat = { type: "heartbeat", from: this.#id, timestamp: now.wallMs };
    // The relay does not answer heartbeats, so a quiet mesh sounds like a dead connection.
    this.#sockets.transmit(this.#route ?? use, writeMessage(beat));
    const hasReported = this.#sockets.report(use, now.at, { isQuiet: this.#isQuiet });
    if (this.#isQuiet && !hasReported) this.#probe(use);
    const elapsedS = (now.wallMs - this.#beat.wallMs) / 1000;
    if (elapsedS > this.#limits.heartbeatEveryS + this.#limits.silentAfterS) {
      this.nudge(now); // Asleep, perhaps on a machine whose monotonic clock sleeps too.
    } else if (this.#isQuiet && hasReported && this.#sockets.canReturn(use)) {
      this.nudge(now); // The report before has no answer; later the relay would not wait.
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
      else if (effect === "discard") this.#discard(now);
      else if (effect === "drop") this.#drop(now);
      else this.#probe(present(this.#use));
    }
    if (this.#isOver) this.#sockets.giveUp();
    const coming = this.#next;
    if (this.#use === null && coming?.isOpen && coming.presence === null && !coming.isAsked) {
      this.#beginOn(coming, now); // The one in use was lost while it was being fenced.
    }
    this.#connect();
    this.say(now);
  }

  #open() {
    this.#opened += 1;
    this.#next = {
      connection: this.#opened,
      isOpen: false,
      isAsked: false,
      isBack: false,
      presence: null,
      fence: null,
      said: null,
      unproved: null,
      ahead: [],
      aheadSize: 0,
    };
    this.#emit({ effect: "Open", connection: this.#opened });
  }

  /** Nothing is to be made any more, or not for now. */
  get #isOver() {
    return this.state === "suspended" || this.state === "ended";
  }

  /**
   * Closes the next one. If it was to go on with a lost one, the relay must not take that for leaving.
   *
   * @param {Instant} now
   */
  #discard(now) {
    const coming = this.#next;
    this.#next = null;
    if (coming !== null) {
      const mayReturn = this.#sockets.forget(coming.connection, now.at) && !this.#isOver;
      this.#emit({ effect: mayReturn ? "Drop" : "Close", connection: coming.connection });
      if (coming.presence === null) return; // The roster is still that of the one before.
    }
    this.#sync = null;
    this.#rooms.roster.cancel();
  }

  /**
   * The one in use is over: lost, replaced, or left.
   *
   * @param {Instant} now
   */
  #drop(now) {
    const use = this.#use;
    this.#use = null;
    if (use === null) return;
    const isLost = this.state === "waiting" || this.state === "joining";
    const mayReturn = isLost && this.#sockets.lose(use, now.at);
    this.#sockets.forget(use, now.at);
    this.#emit({ effect: mayReturn ? "Drop" : "Close", connection: use });
  }

  /** Tells the queue whether there is a connection in use. */
  #connect() {
    const { outgoing, returns, asks } = this.#rooms;
    if (this.isConnected) {
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
    this.#beat = now;
    this.#isQuiet = false;
    this.#isUnproved = coming.unproved?.isTaken ?? false;
    this.#rooms.patience.joined(now.at, this.#isUnproved ? coming.unproved?.at : undefined);
    if (coming.isBack) {
      this.#emit({ effect: "Resumed", seconds: now.at - present(this.#heardAt) });
      this.#heardAt = now.at;
      this.#askCapabilities(this.#use, this.#turnId()); // For how long it may be used.
      return;
    }
    this.#tellLoss(now);
    this.#heardAt = now.at;
    this.#isWhole = false;
    this.#ignored.clear();
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
   * Tells the program what may be missing, if something may.
   *
   * @param {Instant} now
   */
  #tellLoss(now) {
    const { reason, doubts } = this.#sockets.takeLoss();
    const mayMiss = !this.#isWhole && this.state !== "ended";
    if (this.#heardAt !== null && (mayMiss || doubts.length > 0)) {
      this.#emit({ effect: "Missed", error: new Gap(now.at - this.#heardAt, reason, doubts) });
    }
  }

  /**
   * @param {Next} coming
   * @param {Instant} now
   */
  #announceOn(coming, now) {
    const { announcements, ownership, recalling, roster } = this.#rooms;
    const { connection } = coming;
    if (ownership.isClaimed) {
      this.#sockets.transmit(connection, ownership.text(this.#turnId())); // Its answer tells nothing.
    }
    this.#sockets.ask(connection, recalling.ask());
    coming.presence = this.#turnId();
    coming.said = announcements.begin();
    this.#sockets.transmit(connection, announcements.text(coming.said, coming.presence, now));
    coming.unproved = new Unproved(now.at, this.#limits);
    this.#sync = this.#turnId();
    roster.begin();
    this.#askCapabilities(connection, this.#sync);
  }

  /**
   * Announces on the connection in use what has changed, if it may be said there.
   *
   * @param {Instant} now
   */
  say(now) {
    const { announcements } = this.#rooms;
    if (this.#use === null || this.#route !== this.#use || !announcements.isDue) return;
    if (this.#sockets.isBehind(this.#use)) return;
    const turnId = this.#turnId();
    const said = announcements.say(turnId);
    this.#sockets.transmit(this.#use, announcements.text(said, turnId, now));
    if (this.#isUnproved) this.#tell(announcements.taken(turnId));
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
    this.#sockets.transmit(connection, writeMessage(question));
  }

  /**
   * Asks for a sign of life. A relay that has never answered a question may send a direct.
   *
   * @param {number} connection
   */
  #probe(connection) {
    this.#askCapabilities(connection, this.#turnId());
    const isUnanswered = this.#sync !== null && this.#next === null; // It was asked on this connection.
    if (isUnanswered) this.#hearItself(connection, this.#turnId());
  }

  /**
   * @param {number} connection
   * @param {string} turnId
   */
  #hearItself(connection, turnId) {
    const direct = {
      type: "direct",
      from: this.#id,
      to: this.#id,
      turnId,
      data: { [PROBE]: true },
    };
    this.#sockets.transmit(connection, writeMessage(direct));
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
    } else if (coming.isAsked) {
      const message = messageOf(fields);
      if (this.#sockets.isAnswer(coming.connection, message)) {
        this.#answerComingBack(coming, message, now);
      }
    } else if (coming.presence !== null) {
      const message = messageOf(fields);
      const { type, from, turnId } = message;
      const isAnswer = turnId === coming.presence;
      // About the presence too: of what else was said here, this relay would name the turn.
      const isAboutAll = turnId === undefined && typeof word(message, "code") === "string";
      if (type === "presence" && isAnswer && from === this.#id) {
        this.#noteOwn(message, now);
        this.#apply("Joined", now);
      } else if (type === "error" && isRelays(message) && (isAnswer || isAboutAll)) {
        this.#refused(coming, message, now);
      } else if (this.#awaited !== null) {
        this.#onUnproved(coming, this.#awaited, fields, now);
      }
    }
  }

  /**
   * The relay says something else before the presence comes back, if ever it does.
   *
   * @param {Next} coming
   * @param {Unproved} unproved
   * @param {Wire} fields
   * @param {Instant} now
   */
  #onUnproved(coming, unproved, fields, now) {
    const message = messageOf(fields);
    const { turnId, origin } = message;
    if (turnId !== undefined && turnId === unproved.direct && origin === this.#id) {
      this.#joinUnproved(unproved, now);
      return;
    }
    if (!isRelays(message)) {
      const { unreadMessagesMax, unreadBytesMax } = this.#limits;
      const isFull = coming.aheadSize + this.#size > unreadBytesMax;
      if (isFull || coming.ahead.length >= unreadMessagesMax) {
        return; // It may still come back, and who is here is said again.
      }
      coming.ahead.push({ fields, size: this.#size });
      coming.aheadSize += this.#size;
    } else if (turnId !== this.#sync) {
      return;
    }
    unproved.heard();
    this.#prove(now);
  }

  /**
   * The relay says whether this socket goes on with the connection that was lost.
   *
   * @param {Next} coming
   * @param {Message} answer
   * @param {Instant} now
   */
  #answerComingBack(coming, answer, now) {
    if (this.#sockets.cameBack(coming.connection, answer)) {
      coming.isBack = true;
      this.#apply("Joined", now);
    } else if (this.#sockets.isBroken) {
      this.#rooms.patience.passed();
      this.#miss("the relay has counted in a way that cannot be right");
      this.#apply("Failed", now, { chance: this.#owner.roll() });
    } else {
      coming.isAsked = false;
      this.#connect();
      this.#rooms.outgoing.released();
      this.#announceOn(coming, now);
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
    if (this.#isRenounced(refused)) {
      this.#rooms.patience.passed();
      this.#apply("Failed", now, { chance: this.#owner.roll() });
      return;
    }
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
    const { recalling } = this.#rooms;
    const arrived = messageOf(fields);
    if (recalling.isOld(arrived)) {
      this.#handOn(arrived, messageOf(fields, true));
      return;
    }
    const message = opened(arrived);
    const { type, turnId, origin } = message;
    if (type === "presence") this.#noteOwn(message, now);
    const isOwn = isRelays(message) || origin === this.#id;
    if (isOwn && turnId?.startsWith(`${this.#owner.token}:`)) {
      this.#onOwn(message, turnId, now);
    } else if (type === "presence") {
      this.#onPresence(message, now);
    } else if (type === "error" && isRelays(message) && word(message, "code") === "replaced") {
      this.#owner.giveUp(now, new Replaced());
    } else if (type === "capabilities_response" && isRelays(message)) {
      recalling.note(message);
    } else if (type === "direct" && isOwn && word(message, PROBE) === true) {
      // Another connection of this peer wants to hear itself.
    } else {
      this.#rooms.asks.answer(message, this.#size, now);
      this.#rooms.services.note(message, this.#size, now);
      this.#handOn(arrived, message);
    }
  }

  /**
   * Gives the program what has `arrived`, as this message, if it wants it.
   *
   * @param {Message} arrived
   * @param {Message} message
   */
  #handOn(arrived, message) {
    const { announcements, roster } = this.#rooms;
    const { wish } = announcements.wanted;
    if (isWanted(wish, arrived, this.#id, () => announcements.agentIds, roster)) {
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
        const refused = refusal(message);
        if (this.#isRenounced(refused, turnId)) {
          this.say(now);
          return;
        }
        this.#tell(announcements.refused(turnId, refused));
      }
      this.#arrived(message);
      this.say(now);
    }
  }

  /**
   * It was refused for what the program wants, and the peer will say the same without it. `turnId`: of
   * what was refused on the connection in use, null: on the next one.
   *
   * @param {AnnouncementRefused} refused
   * @param {string | null} [turnId]
   */
  #isRenounced(refused, turnId = null) {
    if (refused.code !== TOO_MANY_WISHES) return false;
    const isNews = this.#rooms.announcements.renounce(turnId);
    if (isNews) this.#emit({ effect: "WishRefused", error: refused });
    return isNews !== null;
  }

  /**
   * The relay answers a question.
   *
   * @param {Message} message
   * @param {string} turnId
   * @param {Instant} now
   */
  #answered(message, turnId, now) {
    const { outgoing, patience, recalling, roster } = this.#rooms;
    const coming = this.#next;
    if (coming !== null && turnId === coming.fence && coming.presence === null) {
      this.#announceOn(coming, now);
    } else if (turnId === this.#sync) {
      this.#sync = null;
      recalling.end();
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
      this.#sockets.uncountable(connection);
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
    if (connection === this.#use && this.#sockets.isBehind(connection)) {
      const again = this.#sockets.again(connection, now.at);
      if (!this.#sockets.isBehind(connection)) this.#catchUp(now);
      return again;
    }
    if (connection !== this.#route || !this.#sockets.hasRoom(connection)) return null;
    // A relay that knows no `capabilities` is not waited for long.
    const patientUntil = this.#life.joined + this.#limits.probeWithinS;
    const frame = this.#rooms.outgoing.nextFrame(now.at, patientUntil);
    if (typeof frame === "object" && frame !== null) {
      this.#sockets.queued(connection, frame, now.at);
      this.#rooms.asks.flush(); // There is room now.
    }
    return frame;
  }

  /**
   * All has been sent again: what waited for that goes on.
   *
   * @param {Instant} now
   */
  #catchUp(now) {
    this.say(now);
    const coming = this.#next;
    if (coming?.isOpen && coming.fence === null) this.#beginOn(coming, now);
    this.#rooms.outgoing.released();
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
