/** Old names of public things. They go on working for one release, with one warning each. */

const warned = new Set();

/**
 * Says once, in the console, that a name is old.
 *
 * @param {string} old
 * @param {string} name
 */
export function warnOnce(old, name) {
  if (warned.has(old)) return;
  warned.add(old);
  console.warn(`agi-diy-relay-client: \`${old}\` is now \`${name}\`; the next release drops it`);
}
