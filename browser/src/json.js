/** What is JSON, and what only looks like it. `JSON.stringify` turns a Map into `{}` and NaN into null
 * without a word; here such a value is named, with the way to it. */

/** Objects whose members are all there is to them. */
const PLAIN = ["[object Object]", "[object Arguments]"];

/**
 * Throws TypeError if something in the value is no JSON. Members that are undefined are left out, as
 * `JSON.stringify` does; what has a `toJSON` is what that returns. Throws RangeError for what is
 * nested deeper than the stack.
 *
 * @param {unknown} value
 * @param {string} [name] what the value is called in the error
 */
export function checkJson(value, name = "") {
  if (value === undefined) refuse(name, "undefined");
  check(value, name, new Set());
}

/**
 * @param {unknown} value
 * @param {string} path
 * @param {Set<object>} around the arrays and objects that it is in
 */
function check(value, path, around) {
  const given = converted(value, path);
  if (given === null || typeof given === "string" || typeof given === "boolean") return;
  if (typeof given === "number") {
    if (!Number.isFinite(given)) refuse(path, String(given));
    return;
  }
  if (typeof given !== "object")
    refuse(path, typeof given === "bigint" ? "a BigInt" : `a ${typeof given}`);
  if (around.has(given)) refuse(path, "part of itself");
  around.add(given);
  if (Array.isArray(given)) {
    // By number, because a hole is undefined too.
    for (let n = 0; n < given.length; n += 1) {
      if (given[n] === undefined) refuse(`${path}[${n}]`, "undefined");
      check(given[n], `${path}[${n}]`, around);
    }
  } else {
    const kind = Object.prototype.toString.call(given);
    if (!PLAIN.includes(kind)) refuse(path, withArticle(kind.slice("[object ".length, -1)));
    for (const [member, item] of Object.entries(given)) {
      if (item !== undefined) check(item, path + step(member, path), around);
    }
  }
  around.delete(given);
}

/**
 * @param {any} value
 * @param {string} path
 */
function converted(value, path) {
  if (value === null || !["object", "bigint"].includes(typeof value)) return value;
  if (typeof value.toJSON !== "function") return value;
  const given = value.toJSON("");
  if (given == null) refuse(path, `something invalid: its toJSON gives ${given}`); // as bad dates
  return given;
}

/**
 * The way to a member.
 *
 * @param {string} member
 * @param {string} path
 */
function step(member, path) {
  if (!/^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(member)) return `[${JSON.stringify(member)}]`;
  return path === "" ? member : `.${member}`;
}

/** @param {string} noun */
function withArticle(noun) {
  return `${/^[aeiou]/i.test(noun) ? "an" : "a"} ${noun}`;
}

/**
 * @param {string} path
 * @param {string} what
 * @returns {never}
 */
function refuse(path, what) {
  throw new TypeError(`${path || "it"} is ${what}, and that is no JSON`);
}
