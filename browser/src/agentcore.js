/** The `url` for `join` of a mesh on Amazon Bedrock AgentCore. */

import { presign, query, runtimeOf, SESSION } from "./presign.js";
import { sessionId, TOKEN_HEADER } from "./session.js";
import { bearerProtocols, freshToken } from "./tokens.js";

/**
 * @import { MaybeCalled } from "./cognito.js"
 * @import { Credentials, Runtime, Signed } from "./presign.js"
 *
 * @typedef {object} MeshName
 * @property {string} mesh peers meet if this and the secret are the same
 * @property {string} [secret]
 *
 * @typedef {object} Proofs
 * @property {MaybeCalled<Credentials>} credentials
 * @property {MaybeCalled<string>} [token] for the relay, where it asks for one: 4096 characters at
 *   most
 *
 * @typedef {Signed & MeshName & Proofs} AgentcoreOptions
 * @typedef {Runtime & MeshName & { token: MaybeCalled<string> }} OAuthOptions
 */

/**
 * The `url` for `join` of a mesh on AgentCore: signed anew for every connection, since such a URL
 * lives for five minutes. `credentials` is an object or a function that returns one, and `token` a
 * text or a function; functions are called for every connection. Throws BadAddress for an ARN that
 * is none.
 *
 * @param {AgentcoreOptions} options
 * @returns {() => Promise<string>}
 */
export function agentcore({ mesh, secret, credentials, token, customHeaders, ...rest }) {
  runtimeOf(rest); // Sooner rather than at the first connection.
  return async () => {
    const session = await sessionId(mesh, secret);
    const current = typeof credentials === "function" ? await credentials() : credentials;
    const headers = { ...customHeaders };
    if (token !== undefined) headers[TOKEN_HEADER] = await freshToken(token);
    return presign({ ...rest, customHeaders: headers, sessionId: session, credentials: current });
  };
}

/**
 * The same for a runtime that takes OAuth tokens: the token travels as a subprotocol, the one
 * place where a browser can put it.
 *
 * @param {OAuthOptions} options
 * @returns {() => Promise<{ url: string, protocols: string[] }>}
 */
export function oauth({ mesh, secret, token, qualifier, ...rest }) {
  const { scheme, host, path } = runtimeOf(rest);
  return async () => {
    const protocols = await bearerProtocols(token);
    const parameters = {
      ...(qualifier && { qualifier }),
      [SESSION]: await sessionId(mesh, secret),
    };
    const url = `${scheme}://${host}${path}?${query(Object.entries(parameters)).join("&")}`;
    return { url, protocols };
  };
}
