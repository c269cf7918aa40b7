/** AWS credentials of a user who is logged in, from a Cognito identity pool. */

import { BadAddress, LoginNeeded, NoCredentials, Unreachable } from "./errors.js";
import { REGION, SUFFIXES } from "./presign.js";
import { timer } from "./timers.js";
import { freshToken } from "./tokens.js";
import { deferred } from "./waiting.js";

/**
 * A value, or a function that is called for it each time.
 *
 * @template T
 * @typedef {T | (() => T | Promise<T>)} MaybeCalled
 */

/**
 * @typedef {object} CognitoOptions
 * @property {string} identityPoolId REGION:UUID
 * @property {string} provider `cognito-idp.REGION.amazonaws.com/POOL` for a user pool
 * @property {MaybeCalled<string>} idToken called each time a token is needed
 * @property {string} [endpoint] another address than AWS's own
 */

/**
 * AWS credentials, and until when they are good.
 *
 * @typedef {object} GivenCredentials
 * @property {string} accessKeyId
 * @property {string} secretAccessKey
 * @property {string} sessionToken
 * @property {Date} expiration
 */

const RENEW_BEFORE_MS = 300_000;
const RENEW_WITHIN_S = 15; // Less than `joinWithinS`, so that an attempt ends with what was wrong.

/**
 * A function that returns AWS credentials for a logged-in user of a Cognito identity pool. They stay
 * in memory, and are renewed five minutes before they expire. It rejects with LoginNeeded,
 * NoCredentials, BadAddress, and Unreachable, this also after 15 s without an answer. Throws
 * BadAddress for the id of an identity pool that is none.
 *
 * @param {CognitoOptions} options
 * @returns {() => Promise<GivenCredentials>}
 */
export function cognitoCredentials({ identityPoolId, provider, idToken, endpoint }) {
  const region = String(identityPoolId).split(":")[0] ?? "";
  if (!REGION.test(region) || !/^[^:]+:[^:]+$/.test(identityPoolId)) {
    throw new BadAddress("not the id of an identity pool; it looks like REGION:UUID");
  }
  const suffix = SUFFIXES[region.startsWith("cn-") ? "aws-cn" : "aws"];
  const at = endpoint ?? `https://cognito-identity.${region}.${suffix}/`;
  /** @type {GivenCredentials | null} */
  let kept = null;
  /** @type {Promise<GivenCredentials> | null} */
  let underWay = null;

  /** @param {AbortSignal} signal */
  const renew = async (signal) => {
    const token = await freshToken(idToken);
    const Logins = { [provider]: token };
    /**
     * @param {string} action
     * @param {object} body
     */
    const ask = (action, body) => askCognito(at, action, { ...body, Logins }, signal);
    const { IdentityId } = await ask("GetId", { IdentityPoolId: identityPoolId });
    const { Credentials: given } = await ask("GetCredentialsForIdentity", { IdentityId });
    if (!given?.AccessKeyId || !given.SecretKey)
      throw new NoCredentials("Cognito gave no credentials");
    return {
      accessKeyId: given.AccessKeyId,
      secretAccessKey: given.SecretKey,
      sessionToken: given.SessionToken,
      expiration: new Date(given.Expiration * 1000),
    };
  };
  return async () => {
    if (kept && kept.expiration.getTime() - Date.now() > RENEW_BEFORE_MS) return kept;
    underWay ??= within(RENEW_WITHIN_S, renew).finally(() => {
      underWay = null;
    });
    kept = await underWay;
    return kept;
  };
}

/**
 * What is made, unless that takes too long: a login or a network may never answer, and nobody else
 * would ask again.
 *
 * @template Made
 * @param {number} seconds
 * @param {(signal: AbortSignal) => Promise<Made>} make
 * @returns {Promise<Made>}
 */
function within(seconds, make) {
  const controller = new AbortController();
  /** @type {import("./waiting.js").Deferred<never>} */
  const late = deferred();
  const cancel = timer(seconds, () => {
    controller.abort();
    late.reject(
      new Unreachable(`no credentials within ${seconds} s; check the login and the network`),
    );
  });
  return Promise.race([make(controller.signal), late.promise]).finally(cancel);
}

/**
 * @param {string} endpoint
 * @param {string} action
 * @param {object} body
 * @param {AbortSignal} signal
 */
async function askCognito(endpoint, action, body, signal) {
  let answer;
  let content;
  try {
    answer = await fetch(endpoint, {
      method: "POST",
      headers: {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": `AWSCognitoIdentityService.${action}`,
      },
      body: JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      signal,
    });
    content = await answer.json();
  } catch {
    throw new Unreachable(
      "Cognito did not answer; check the network, and the identity pool's region",
    );
  }
  if (answer.ok) return content;
  throw refusal(answer.status, String(content?.__type ?? answer.status));
}

/**
 * What an answer other than 200 means. What Cognito says more may quote the request, so that only
 * the kind is passed on.
 *
 * @param {number} status
 * @param {string} type
 */
function refusal(status, type) {
  const kind = type.split(":")[0]?.split("#").at(-1) ?? "";
  const isBusy = status >= 500 || kind === "TooManyRequestsException";
  const isWrong = /^(ResourceNotFound|InvalidParameter|Validation|ResourceConflict)/.test(kind);
  if (kind === "NotAuthorizedException")
    return new LoginNeeded(
      "Cognito did not accept the login; log in again, and check the provider",
    );
  if (isBusy) return new Unreachable(`Cognito cannot answer now (${kind})`);
  if (isWrong)
    return new BadAddress(`Cognito knows no such identity pool, region or provider (${kind})`);
  return new NoCredentials(`Cognito gave none (${kind}); check the roles of the identity pool`);
}
