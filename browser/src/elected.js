/**
 * For which agents this one of several connections of a peer serves. The twin of
 * protocol/member/elected.py.
 *
 * Tabs that share a peer all hear every command for it. So they elect one for each agent (the browser
 * does: election.js), and only that one serves it. The others stand by: they keep each command for as
 * long as one waits for a service, in case they are elected meanwhile, because the one before is gone.
 * What that one took it tells the others, so that nothing is done twice. Whoever does not take part in
 * elections, as programs do not, serves everything.
 */

/** For which agents this connection is elected. */
export class Elected {
  /** @type {Set<string> | null} */
  #agents;
  #takenMax;
  /** The oldest first. @type {Set<string>} */
  #taken = new Set();

  /**
   * `takesPart`: there are elections, and at first it is elected for none. At most `takenMax` of the
   * commands that others took are remembered.
   *
   * @param {{ takesPart: boolean, takenMax: number }} how
   */
  constructor({ takesPart, takenMax }) {
    this.#agents = takesPart ? new Set() : null;
    this.#takenMax = takenMax;
  }

  /** There are others, perhaps, who should know what this one takes. */
  get takesPart() {
    return this.#agents !== null;
  }

  /**
   * It is elected for these from now on; null: for all, there are no elections after all.
   *
   * @param {readonly string[] | null} agents
   */
  elect(agents) {
    this.#agents = agents && new Set(agents);
  }

  /**
   * Commands for this agent are this connection's.
   *
   * @param {string} agent
   */
  serves(agent) {
    return this.#agents === null || this.#agents.has(agent);
  }

  /**
   * Another one has taken this command for this agent.
   *
   * @param {string} turnId
   * @param {string} agent
   */
  noteTaken(turnId, agent) {
    this.#taken.add(JSON.stringify([turnId, agent]));
    if (this.#taken.size > this.#takenMax) {
      for (const oldest of this.#taken) {
        this.#taken.delete(oldest);
        break;
      }
    }
  }

  /**
   * Another one has it already, which it may say before the command itself comes.
   *
   * @param {string | undefined} turnId
   * @param {string} agent
   */
  isTaken(turnId, agent) {
    return this.#taken.size > 0 && this.#taken.has(JSON.stringify([turnId, agent]));
  }
}
