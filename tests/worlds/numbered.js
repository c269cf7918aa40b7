/** A page that says numbered messages and notes what it hears: the one of benchmarks/losses.py. It runs in Node, and
 * as a page in Chromium. `client` is the browser module. */

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));

/**
 * Joins, and says the numbers from 1 to `count`, one every `everyMs`, once `other` is there. Returns what
 * it does, as it goes on: `heard` has numbers, and "gap" where the module says that some may be missing.
 */
export function begin(client, { url, id, other, count, everyMs }) {
  const peer = client.connect({ url, id, withinS: Infinity });
  const notes = { heard: [], inDoubt: [], failed: [], resumed: 0, said: 0 };
  peer.on("message", ({ type, origin, data }) => {
    if (type === "broadcast" && origin === other) notes.heard.push(data);
  });
  peer.on("gap", ({ inDoubt }) => {
    notes.heard.push("gap");
    notes.inDoubt.push(...inDoubt.map(({ data }) => data));
  });
  const talk = async () => {
    await peer.joined;
    while (!peer.roster.has(other)) await pause(20);
    const began = performance.now();
    const sending = [];
    for (let n = 1; n <= count; n += 1) {
      await pause(began + n * everyMs - performance.now());
      sending.push(peer.broadcast(n).catch(() => notes.failed.push(n)));
      notes.said = n;
    }
    await Promise.all(sending);
  };
  talk().catch((error) => notes.failed.push(String(error)));
  return {
    notes: () => ({ ...notes, resumed: peer.resumed ?? 0 }),
    leave: () => peer.leave(),
  };
}

/** In Node: the options are the first line of what it reads; every further line is answered with the
 * notes, and at the end of them it leaves. */
export async function main(module) {
  const { createInterface } = await import("node:readline");
  const client = await import(module);
  let page = null;
  for await (const line of createInterface({ input: process.stdin })) {
    if (page === null) page = begin(client, JSON.parse(line));
    else console.log(JSON.stringify(page.notes()));
  }
  await page?.leave();
  process.exit(0);
}
