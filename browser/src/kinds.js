/** What messages of the known types say. Anybody may send anything under these names, so a message is
 * looked at before it counts as one of them. */

/**
 * @import { Json, Message } from "./messages.js"
 */

import { isRecord } from "./messages.js";

/**
 * `data` by the type of its message. There may be more in each.
 *
 * @typedef {object} KnownData
 * @property {Readonly<Record<string, Json>>} presence
 * @property {Readonly<{ chunk: string, chunkNum?: Json }>} stream
 * @property {Readonly<{ result: Json }>} turn_end
 * @property {Readonly<{ error: string, code?: Json }>} error
 */

/** What must be there, and as what. @type {Record<keyof KnownData, (data: any) => boolean>} */
const HAS = {
  presence: () => true,
  stream: ({ chunk }) => typeof chunk === "string",
  turn_end: ({ result }) => result !== undefined,
  error: ({ error }) => typeof error === "string",
};

/**
 * The message is of this type, and says what such a message says.
 *
 * @template {keyof KnownData} Type
 * @param {Message} message
 * @param {Type} type
 * @returns {message is Message & { type: Type, data: KnownData[Type] }}
 */
export function isMessage(message, type) {
  /** @type {unknown} */
  const data = message.data;
  return message.type === type && isRecord(data) && HAS[type](data);
}
