/** Ids of peers that stay the same over reloads. */

import { random } from "./bytes.js";

/** @type {Map<string, Promise<string>>} */
const tabIds = new Map();
/** By id. @type {Map<string, string>} */
const owners = new Map();
/** Those that all tabs have. @type {Set<string>} */
const sharedIds = new Set();

/**
 * A peer id that stays the same over reloads: `"shared"`, one for all tabs of this origin, or
 * `"tab"`, one for each. Several peers in one page need a `name` each. Without storage it is a new
 * one every time. The owner of the id is kept beside it, so that all who get the id may have it.
 *
 * @param {"shared" | "tab"} kind
 * @param {string} [name]
 * @returns {Promise<string>}
 */
export async function peerId(kind, name = "") {
  const key = `agi-diy-relay:peer:${name}`;
  const ownerKey = `agi-diy-relay:owner:${name}`;
  if (kind === "shared") {
    const id = owned("localStorage", ownerKey, stored("localStorage", key));
    sharedIds.add(id);
    return id;
  }
  if (kind !== "tab") throw new TypeError('a peer id is "shared" or "tab"');
  const made = tabIds.get(name) ?? ownTabId(key);
  tabIds.set(name, made);
  return owned("sessionStorage", ownerKey, await made);
}

/**
 * The owner that goes with an id which `peerId` gave.
 *
 * @param {string} id
 * @returns {string | null}
 */
export function ownerOf(id) {
  return owners.get(id) ?? null;
}

/**
 * Other tabs are meant to have this id too.
 *
 * @param {string} id
 */
export function isShared(id) {
  return sharedIds.has(id);
}

/**
 * The id, whose owner is kept in this storage.
 *
 * @param {"localStorage" | "sessionStorage"} storage
 * @param {string} key
 * @param {string | null} kept
 */
function owned(storage, key, kept) {
  const id = kept ?? random();
  owners.set(id, owners.get(id) ?? stored(storage, key) ?? random());
  return id;
}

/**
 * A duplicated tab starts with a copy of the other one's storage. A lock, held as long as the tab
 * lives, decides which of the two an id belongs to.
 *
 * @param {string} key
 */
async function ownTabId(key) {
  const id = stored("sessionStorage", key) ?? random();
  if (!globalThis.navigator?.locks || (await takes(`${key}:${id}`))) return id;
  const another = stored("sessionStorage", key, random()) ?? random();
  await takes(`${key}:${another}`);
  return another;
}

/**
 * Takes a lock for as long as the page lives, if nobody has it.
 *
 * @param {string} lock
 * @returns {Promise<boolean>}
 */
function takes(lock) {
  return new Promise((resolve) => {
    /** @param {Lock | null} held */
    const hold = (held) => {
      resolve(held !== null);
      return held && new Promise(() => {});
    };
    navigator.locks.request(lock, { ifAvailable: true }, hold).catch(() => resolve(true));
  });
}

/**
 * @param {"localStorage" | "sessionStorage"} storage
 * @param {string} key
 * @param {string} [value]
 */
function stored(storage, key, value) {
  try {
    const kept = globalThis[storage];
    if (value ?? !kept.getItem(key)) kept.setItem(key, value ?? random());
    return kept.getItem(key);
  } catch {
    return null;
  }
}
