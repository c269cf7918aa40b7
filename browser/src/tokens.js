/** Tokens of a logged-in user, and how they travel. */

import { utf8 } from "./bytes.js";
import { LoginNeeded } from "./errors.js";

/** @import { MaybeCalled } from "./cognito.js" */

/**
 * A token that has not expired, as far as it can be read. Throws LoginNeeded.
 *
 * @param {unknown} token
 * @returns {string}
 */
function checkToken(token) {
  if (typeof token !== "string" || token === "") throw new LoginNeeded("there is no token; log in");
  let claims = null;
  try {
    claims = JSON.parse(atob(token.split(".")[1]?.replace(/-/g, "+").replace(/_/g, "/") ?? ""));
  } catch {
    // Not a JSON Web Token: its receiver will judge it.
  }
  if (claims?.exp * 1000 <= Date.now())
    throw new LoginNeeded("the token has expired; log in again");
  return token;
}

/**
 * The token for one connection. Rejects with LoginNeeded, and with what the function throws.
 *
 * @param {MaybeCalled<string>} token
 * @returns {Promise<string>}
 */
export async function freshToken(token) {
  return checkToken(typeof token === "function" ? await token() : token);
}

/**
 * The subprotocols by which a WebSocket brings a token, the one place where a browser can put it.
 * Rejects with LoginNeeded, and with what the function throws.
 *
 * @param {MaybeCalled<string>} token
 * @returns {Promise<string[]>}
 */
export async function bearerProtocols(token) {
  const bearer = await freshToken(token);
  const base64 = btoa(String.fromCharCode(...utf8(bearer)));
  const text = base64.replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const name = "base64UrlBearerAuthorization";
  return [`${name}.${text}`, name];
}
