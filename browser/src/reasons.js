/**
 * Why a connection could not be made, in words that say what to do. The twin of
 * protocol/member/reasons.py, which has the whole of it: a page learns less than a program.
 *
 * @import { RelayError } from "./errors.js"
 */

import { BadAddress, Rejected, Unreachable } from "./errors.js";

/** Where the WebSocket of a relay is. */
export const RELAY_PATH = "/ws";
/** The relay of this project takes these for `RELAY_PATH`, because people write them. */
export const ROOT_PATHS = ["", "/", "/ws/"];

/** @typedef {"local" | "aws" | "elsewhere"} Place */

/**
 * What was seen of an attempt.
 *
 * @typedef {object} Seen
 * @property {string} host of the URL
 * @property {number} port
 * @property {string} path without the query
 * @property {boolean} isSecure
 * @property {boolean} hasToken a token went along
 * @property {number | null} status the HTTP status that answers a look at the same path, if the page
 *   may read it
 * @property {boolean | null} isThere somebody answers over HTTP; null: not known
 * @property {string} origin of the page
 * @property {boolean} isForbidden its Content Security Policy stopped the attempt
 * @property {PermissionState | null} permission what its user has said to `local network access`; null
 *   where the browser does not ask
 */

/**
 * Where a host name, in lower case, points.
 *
 * @param {string} host
 * @returns {Place}
 */
export function placeOf(host) {
  const name = host.replace(/^\[/, "").replace(/\]$/, "").replace(/\.$/, "");
  if (name === "localhost" || name === "::1") return "local";
  if (name.endsWith(".localhost") || name.startsWith("127.")) return "local";
  return /\.amazonaws\.com(\.cn)?$/.test(name) ? "aws" : "elsewhere";
}

/**
 * What to tell: a permanent error if no further attempt can help while nothing changes.
 *
 * @param {Seen} seen
 * @returns {RelayError}
 */
export function reason(seen) {
  const shown = `${seen.host}:${seen.port}`;
  const error = notAllowedToTry(seen, shown);
  if (error) return error;
  if (seen.status !== null) {
    return new Rejected(`${shown} answered ${seen.status}: ${answered(seen)}`, seen.status);
  }
  return seen.isThere
    ? new Rejected(unreadable(seen, shown))
    : new Unreachable(nobody(seen, shown));
}

/**
 * @param {Seen} seen
 * @param {string} shown
 */
function notAllowedToTry({ host, isSecure, origin, isForbidden, permission }, shown) {
  if (isForbidden) {
    return new BadAddress(
      `this page's Content-Security-Policy forbids it to connect to ${shown}; add ` +
        `${isSecure ? "wss" : "ws"}://${shown} to \`connect-src\``,
    );
  }
  if (origin.startsWith("https:") && !isSecure && placeOf(host) !== "local") {
    return new BadAddress(
      `a page of https may not connect to ${shown} without TLS; use wss:// in the URL`,
    );
  }
  if (permission === "denied") {
    return new Rejected(
      `this browser keeps the page from ${shown}, because that is an address of this machine or its ` +
        `network; allow ${origin} \`local network access\` in the site's settings (docs/local.md)`,
      null,
      { isTransient: false },
    );
  }
  return null;
}

/**
 * @param {Seen} seen
 * @param {string} shown
 */
function nobody({ origin, permission, isThere }, shown) {
  if (permission === "prompt") {
    return (
      `${shown} is an address of this machine or its network, and the browser asks its user whether ` +
      `${origin} may reach it; allow it (docs/local.md)`
    );
  }
  if (isThere === false) {
    return `nobody answers at ${shown}; is the relay running? Check host and port`;
  }
  return `there is no connection to ${shown}; check that a relay is there, host and port`;
}

const NO_RELAY = "a server is there, and no relay of agent meshes; check host and port";
const NOT_THIS_PATH = `no relay is at this path; that of a relay is ${RELAY_PATH}`;

/** @type {Record<number, string>} */
const AWS = {
  400: "the request is not valid; check the ARN and that the session id has 33 to 256 characters",
  401: "the token is missing, has expired or is not accepted; log in again",
  403:
    "not allowed; check that the token is for this mesh, or that the credentials have not expired " +
    "and may invoke this runtime over WebSocket; also check the region, and this machine's clock",
  404: "there is nothing at this address; check the ARN and the region",
  409: "the session is starting or stopping",
  424: "the relay behind AgentCore did not answer, or did not accept the token; see its logs",
};

/** @type {Record<number, string>} */
const ANYWHERE = {
  400: "the request is not valid; check the URL, and the name of the mesh",
  401: "the token is missing, has expired or is not accepted; log in again",
  408: "the request came too slowly",
  409: "it cannot take the connection just now",
  421: "the relay does not know this host name as its own (`--allow-host`)",
  429: "too many requests",
  431: "the token, or another header, is too long",
  502: "what is in front of the relay does not reach it; is the relay running?",
  503: "the relay is full, or it is shutting down",
  504: "what is in front of the relay gets no answer from it",
};

/** @param {Seen} seen */
function answered({ host, path, status, origin, hasToken }) {
  const code = status ?? 0;
  if (placeOf(host) === "aws" && Object.hasOwn(AWS, code)) return AWS[code];
  if (code === 403 && origin === "null") {
    return (
      "the relay does not take pages that are opened from files; open the page over HTTP (python3 -m " +
      "http.server), or start the relay with --allowed-origins null"
    );
  }
  if (code === 403) {
    return (
      `the relay does not allow the origin ${origin}; start it with --allowed-origins ${origin}, or ` +
      "check that the token is for this mesh"
    );
  }
  if (code === 426 && hasToken) {
    return "a relay is there, and refuses the token, or is full; log in again";
  }
  if (code === 426) {
    return "a relay is there, and refuses the connection; it asks for a token, or is full";
  }
  if (Object.hasOwn(ANYWHERE, code)) return ANYWHERE[code];
  if (code >= 300 && code < 400) return "it sends to another address; use that one in the URL";
  if (code >= 500) return "it has failed; see its logs";
  return [RELAY_PATH, ...ROOT_PATHS].includes(path) ? NO_RELAY : NOT_THIS_PATH;
}

/**
 * @param {Seen} seen
 * @param {string} shown
 */
function unreadable({ host, hasToken, origin }, shown) {
  if (placeOf(host) === "aws") {
    return (
      `${shown} refuses the connection, and the browser hides why; check that the credentials are ` +
      "valid and may invoke the runtime, the token, the region, and this machine's clock"
    );
  }
  const token = hasToken ? "the token, " : "";
  return (
    `a server answers at ${shown}, and opens no WebSocket; the browser hides why: check ${token}that ` +
    `it is a relay, its path (${RELAY_PATH}), and that it allows the origin ${origin} ` +
    "(--allowed-origins)"
  );
}
