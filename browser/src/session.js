/** What clients and relays agree on behind AgentCore. The twin of protocol/session.py; both are
 * tested against the same vectors. */

import { hex, hmac } from "./bytes.js";
import { BadAddress } from "./errors.js";

/** The header of a token for the relay: AgentCore passes it on, also out of a signed query. */
export const TOKEN_HEADER = "X-Amzn-Bedrock-AgentCore-Runtime-Custom-Token";

/**
 * The session id of a mesh: 69 ASCII characters, always the same for the same two. Peers meet only
 * if they connect with the same one. Somebody who knows the name but not the secret cannot guess it.
 * Throws BadAddress: an empty name, or one that is not proper Unicode.
 *
 * @param {string} mesh
 * @param {string} [secret]
 * @returns {Promise<string>}
 */
export async function sessionId(mesh, secret = "") {
  if (typeof mesh !== "string" || mesh === "") throw new BadAddress("a mesh needs a name");
  if (/\p{Surrogate}/u.test(`${mesh}\n${secret}`)) {
    throw new BadAddress("a mesh's name and secret must be Unicode, no lone surrogates");
  }
  const key = `agi-diy-relay mesh:${secret}`.normalize("NFC");
  return `mesh-${hex(await hmac(key, mesh.normalize("NFC")))}`;
}
