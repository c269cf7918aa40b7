/** Numbers, times and sizes as people read them. */

/** @type {[number, string][]} */
const UNITS = [
  [86_400, "d"],
  [3600, "h"],
  [60, "min"],
];

/** Keeps a number and its unit on one line. */
const NO_BREAK = "\u00a0";

/**
 * A duration in one unit: `3 s`, `12 min`, `5 h`.
 *
 * @param {number} seconds
 */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  for (const [size, unit] of UNITS) {
    if (whole >= size) return Math.floor(whole / size) + NO_BREAK + unit;
  }
  return `${whole}${NO_BREAK}s`;
}

/**
 * So many a second, with as many digits as say something.
 *
 * @param {number} perS
 */
export function rate(perS) {
  if (perS < 0.05) return "0";
  return perS < 10 ? perS.toFixed(1) : count(Math.round(perS));
}

/**
 * The same in little room: 1.5k instead of 1 500.
 *
 * @param {number} perS
 */
export function briefRate(perS) {
  return perS < 1000 ? rate(perS) : brief(perS);
}

/**
 * A number with gaps between its thousands.
 *
 * @param {number} number
 */
export function count(number) {
  return String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/**
 * A number in little room: 950, 1.2k, 18k, 3.4M.
 *
 * @param {number} number
 */
export function brief(number) {
  if (number < 1000) return String(Math.round(number));
  const [size, unit] = number < 1e6 ? [1e3, "k"] : [1e6, "M"];
  const scaled = number / size;
  return `${scaled < 10 ? scaled.toFixed(1) : Math.round(scaled)}${unit}`;
}

/** @param {number} number */
export function bytes(number) {
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  let [value, unit] = [number, 0];
  while (value >= 1024 && unit < names.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${names[unit]}`;
}

/**
 * The time of day, here.
 *
 * @param {number} ms since the epoch
 */
export function clock(ms) {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? "?" : date.toTimeString().slice(0, 8);
}

/**
 * One thing or several of it.
 *
 * @param {number} number
 * @param {string} one
 * @param {string} [several]
 */
export function counted(number, one, several = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : several}`;
}
