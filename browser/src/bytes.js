/** Text as bytes, and what is computed of them. */

import { BadAddress } from "./errors.js";

const encoder = new TextEncoder();

/**
 * The text in UTF-8.
 *
 * @param {string} text
 * @returns {Uint8Array<ArrayBuffer>}
 */
export const utf8 = (text) => encoder.encode(text);

/**
 * In hexadecimal, small letters.
 *
 * @param {ArrayBuffer | Uint8Array} bytes
 * @returns {string}
 */
export const hex = (bytes) =>
  Array.from(new Uint8Array(bytes), (n) => n.toString(16).padStart(2, "0")).join("");

/** 96 random bits, in hexadecimal. */
export const random = () => hex(crypto.getRandomValues(new Uint8Array(12)));

function subtle() {
  if (globalThis.crypto?.subtle) return crypto.subtle;
  throw new BadAddress("cryptography needs a page from https:// or localhost");
}

/**
 * HMAC-SHA256 of the text. Throws BadAddress in a page without cryptography.
 *
 * @param {string | ArrayBuffer} key
 * @param {string} text
 */
export async function hmac(key, text) {
  const bytes = typeof key === "string" ? utf8(key) : key;
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const made = await subtle().importKey("raw", bytes, algorithm, false, ["sign"]);
  return subtle().sign("HMAC", made, utf8(text));
}

/**
 * SHA-256 of the text, in hexadecimal. Throws BadAddress in a page without cryptography.
 *
 * @param {string} text
 */
export async function sha256(text) {
  return hex(await subtle().digest("SHA-256", utf8(text)));
}

/** By byte: its part of a CRC-32. */
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

/**
 * The CRC-32 of the text in UTF-8, as in zip.
 *
 * @param {string} text
 */
export function crc32(text) {
  let crc = 0xffffffff;
  for (const byte of utf8(text)) crc = (crc >>> 8) ^ (CRC_TABLE[(crc ^ byte) & 0xff] ?? 0);
  return (crc ^ 0xffffffff) >>> 0;
}
