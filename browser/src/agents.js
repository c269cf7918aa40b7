/** An agent as its peer announces it: how its id is read, in one place. The twin of
 * protocol/agents.py. */

/**
 * An agent as it is announced: its id, or an object that has one.
 *
 * @typedef {string
 *   | { agentId: string, [more: string]: unknown }
 *   | { id: string, [more: string]: unknown }
 *   | { name: string, [more: string]: unknown }} Agent
 */

/**
 * The id of an agent as it is announced: a string, or the first of `agentId`, `id` and `name` that
 * is one. null if there is none; an empty string is none.
 *
 * @param {any} agent
 * @returns {string | null}
 */
export function agentId(agent) {
  if (typeof agent === "string") return agent || null;
  if (typeof agent !== "object" || agent === null || Array.isArray(agent)) return null;
  const names = [agent.agentId, agent.id, agent.name];
  return names.find((name) => typeof name === "string" && name !== "") ?? null;
}

/**
 * The ids of those of a list of agents that have one; none for what is no list.
 *
 * @param {unknown} agents
 * @returns {string[]}
 */
export function agentIds(agents) {
  if (!Array.isArray(agents)) return [];
  return agents.map(agentId).filter((id) => id !== null);
}
