/**
 * Text as it is shown. Whatever comes from the mesh can be anything: it must not hide, pretend, or
 * break the page. Nothing here is HTML, and nothing that uses this makes HTML of it.
 */

/** Characters that nobody sees, or that change how others are seen: controls, format characters (bidi
 * overrides, zero widths, tags), separators of lines, halves of characters, and unassigned planes. */
const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\u115f\u1160\u3164\uffa0]|\u034f/gu;
/** What makes one emoji of several is no trick. */
const JOINED =
  /(?<=\p{Extended_Pictographic}|\p{Emoji_Modifier}|\ufe0f)\u200d(?=\p{Extended_Pictographic})/gu;
/** More marks than this on one letter are left out: they would cover other lines. */
const MARKS = /(\p{M}{4})\p{M}+/gu;
/** Stands for a joiner that stays while the others are made visible. */
const KEPT = "\ufdd0";

/**
 * A text whose hidden characters are visible: `⟨U+202E⟩` for the override of direction, `␊` for the end
 * of a line.
 *
 * @param {string} text
 */
export function visible(text) {
  return text
    .replace(/\ufdd0/g, "⟨U+FDD0⟩")
    .replace(JOINED, KEPT)
    .replace(HIDDEN, name)
    .replace(MARKS, "$1")
    .replace(/\ufdd0/g, "\u200d");
}

/** @param {string} character */
function name(character) {
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return "␡";
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** Of a text in a tooltip. */
const TITLE_CHARS_MAX = 1000;

/**
 * A text that takes one line: visible, and cut in the middle, because ids differ at their ends.
 *
 * @param {string} text
 * @param {number} [most] characters of it
 */
export function short(text, most = 48) {
  // No more than can count is looked at, however long it is.
  const isLong = text.length > 8 * most;
  const all = [...visible(isLong ? text.slice(0, 4 * most) : text)];
  const end = isLong ? [...visible(text.slice(-4 * most))] : all;
  if (!isLong && all.length <= most) return all.join("");
  const tail = Math.floor((most - 1) / 3);
  const cut = tail > 0 ? end.slice(-tail) : [];
  return [...all.slice(0, most - 1 - tail), "…", ...cut].join("");
}

/**
 * The same as a tooltip has it: nearly all of it.
 *
 * @param {string} text
 */
export function whole(text) {
  return short(text, TITLE_CHARS_MAX);
}

/**
 * A text that shows something.
 *
 * @param {string | null | undefined} text
 */
export function isBlank(text) {
  return !text || !/[^\s\u2800]/u.test(text);
}
