/** URLs that open a WebSocket to an AgentCore runtime, signed with Signature Version 4. */

import { hex, hmac, sha256 } from "./bytes.js";
import { BadAddress, NoCredentials } from "./errors.js";

/**
 * @typedef {object} Credentials
 * @property {string} accessKeyId
 * @property {string} secretAccessKey
 * @property {string} [sessionToken]
 */

/**
 * A runtime of AgentCore.
 *
 * @typedef {object} Runtime
 * @property {string} arn
 * @property {string} [qualifier] the endpoint of the runtime; DEFAULT if left out
 * @property {string} [region] checked against the ARN, which says it anyway
 * @property {string} [endpoint] another address than AWS's own
 */

/**
 * A runtime, and what is signed for it.
 *
 * @typedef {object} SignedOnly
 * @property {Record<string, string>} [customHeaders] `X-Amzn-Bedrock-AgentCore-Runtime-Custom-...`:
 *   they reach the relay as headers
 * @property {number} [expiresS] how long the URL is valid, in seconds: 300 at most, the default
 *
 * @typedef {Runtime & SignedOnly} Signed
 */

/** @typedef {Signed & { credentials: Credentials, sessionId: string, date?: Date }} PresignOptions */

const SERVICE = "bedrock-agentcore";
export const SESSION = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id";
const EXPIRES_S_MAX = 300;

/** Where AWS is, by partition. @type {Readonly<Record<string, string>>} */
export const SUFFIXES = Object.freeze({
  aws: "amazonaws.com",
  "aws-us-gov": "amazonaws.com",
  "aws-cn": "amazonaws.com.cn",
});
export const REGION = /^[a-z]{2}(-[a-z]+)+-\d+$/;
const ARN = /^arn:(aws|aws-us-gov|aws-cn):bedrock-agentcore:([^:]*):([^:]+):runtime\/[^:]+$/;

/**
 * Percent-encoding as AWS wants it: everything but letters, digits and `-._~`.
 *
 * @param {string} text
 */
function encoded(text) {
  /** @param {string} char */
  const more = (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`;
  try {
    return encodeURIComponent(text).replace(/[!'()*]/g, more);
  } catch {
    throw new BadAddress("what goes into a URL must be Unicode, no lone surrogates");
  }
}

/**
 * Names and values as they stand in a query, each with its `=`.
 *
 * @param {[string, string][]} pairs
 */
export const query = (pairs) => pairs.map(([name, value]) => `${encoded(name)}=${encoded(value)}`);

/**
 * Where the runtime is that an ARN names. Throws BadAddress.
 *
 * @param {Runtime} runtime
 */
export function runtimeOf({ arn, region, endpoint }) {
  const [isOne, partition = "", where = ""] = ARN.exec(String(arn)) ?? [];
  if (!isOne || !REGION.test(where) || where.startsWith("cn-") !== (partition === "aws-cn")) {
    throw new BadAddress(
      "not the ARN of a runtime; it looks like arn:aws:bedrock-agentcore:REGION:ACCOUNT:runtime/ID",
    );
  }
  if (region && region !== where) {
    throw new BadAddress(`the runtime is in region ${where}, not ${region}; leave \`region\` out`);
  }
  const base = endpoint ?? `https://${SERVICE}.${where}.${SUFFIXES[partition]}`;
  if (!URL.canParse(base)) throw new BadAddress("the endpoint is not a URL");
  const { host, protocol } = new URL(base);
  const scheme = protocol === "http:" ? "ws" : "wss";
  return { region: where, host, scheme, path: `/runtimes/${encoded(arn)}/ws` };
}

/** @param {string} id */
function checkSession(id) {
  if (typeof id === "string" && id.length >= 33 && id.length <= 256) return id;
  throw new BadAddress("a session id has 33 to 256 characters; make it with sessionId(mesh)");
}

/**
 * A URL that opens a WebSocket to a runtime, signed in its query. Equal to what
 * `AgentCoreRuntimeClient.generate_presigned_url` of the Python SDK makes of the same input.
 * Throws BadAddress, NoCredentials, and RangeError for `expiresS`.
 *
 * @param {PresignOptions} options
 * @returns {Promise<string>}
 */
export async function presign(options) {
  const { region, host, scheme, path } = runtimeOf(options);
  const { credentials, sessionId, qualifier, customHeaders } = options;
  const { expiresS = EXPIRES_S_MAX, date = new Date() } = options;
  const { accessKeyId, secretAccessKey, sessionToken } = credentials ?? {};
  if (!accessKeyId || !secretAccessKey) {
    throw new NoCredentials(
      "there are no AWS credentials; log in, or pass accessKeyId and secretAccessKey",
    );
  }
  if (!(expiresS >= 1 && expiresS <= EXPIRES_S_MAX)) {
    throw new RangeError(`expiresS must be from 1 to ${EXPIRES_S_MAX}`);
  }
  const time = date.toISOString().replace(/[-:]|\.\d+/g, "");
  const scope = [time.slice(0, 8), region, SERVICE, "aws4_request"];
  const parameters = {
    ...(qualifier && { qualifier }),
    ...customHeaders,
    [SESSION]: checkSession(sessionId),
  };
  const pairs = query([
    ...Object.entries(parameters),
    ["X-Amz-Algorithm", "AWS4-HMAC-SHA256"],
    ["X-Amz-Credential", [accessKeyId, ...scope].join("/")],
    ["X-Amz-Date", time],
    ["X-Amz-Expires", String(expiresS)],
    ["X-Amz-SignedHeaders", "host"], // A browser can send no other.
  ]);
  if (sessionToken) pairs.push(...query([["X-Amz-Security-Token", sessionToken]]));
  // The path is encoded once more than in the URL, as for every service but S3.
  const uri = path.split("/").map(encoded).join("/");
  const sorted = pairs.map((pair) => pair.split("=")).sort(byNameThenValue);
  const canonical = [
    "GET",
    uri,
    sorted.map((pair) => pair.join("=")).join("&"),
    `host:${host}\n`,
    "host",
    await sha256(""),
  ].join("\n");
  const toSign = ["AWS4-HMAC-SHA256", time, scope.join("/"), await sha256(canonical)].join("\n");
  /** @type {string | ArrayBuffer} */
  let key = `AWS4${secretAccessKey}`;
  for (const part of scope) key = await hmac(key, part);
  const signature = hex(await hmac(key, toSign));
  return `${scheme}://${host}${path}?${pairs.join("&")}&X-Amz-Signature=${signature}`;
}

/**
 * @param {string[]} one
 * @param {string[]} other
 */
function byNameThenValue([name = "", value = ""], [otherName = "", otherValue = ""]) {
  if (name !== otherName) return name < otherName ? -1 : 1;
  return value < otherValue ? -1 : Number(value > otherValue);
}
