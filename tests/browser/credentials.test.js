/** Credentials for pages, where what they depend on never answers. */

import assert from "node:assert/strict";
import test from "node:test";

import * as client from "../../browser/relay-client.js";

const POOL = { identityPoolId: "us-west-2:1", provider: "p", endpoint: "http://cognito.invalid/" };
const GIVEN = { AccessKeyId: "A", SecretKey: "S", SessionToken: "T", Expiration: 1e10 };

for (const [what, stuckLogin, stuckFetch] of [
  ["a login", 1, 0],
  ["Cognito", 0, 1],
]) {
  test(`${what} that never answers costs one attempt, and the next one asks anew`, async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const signals = [];
    const [logins, fetches] = [[], []];
    let hang;
    const hangs = new Promise((resolve) => {
      hang = resolve;
    });
    const never = () => {
      hang();
      return new Promise(() => {});
    };
    t.mock.method(globalThis, "fetch", async (url, { signal }) => {
      signals.push(signal);
      if (fetches.push(url) <= stuckFetch) await never();
      return { ok: true, json: async () => ({ IdentityId: "i", Credentials: GIVEN }) };
    });
    const idToken = () => (logins.push(1) <= stuckLogin ? never() : "token");
    const credentials = client.cognitoCredentials({ ...POOL, idToken });
    const outcomes = [credentials(), credentials()].map((made) => made.catch((error) => error));
    await hangs;
    t.mock.timers.tick(client.LIMITS.joinWithinS * 1000 - 1);
    for (const error of await Promise.all(outcomes)) {
      assert.ok(error instanceof client.Unreachable, "which is tried again");
    }
    assert.equal(signals.length, stuckFetch);
    assert.ok(signals.every(({ aborted }) => aborted));
    assert.equal((await credentials()).accessKeyId, "A");
    assert.equal(logins.length, 2);
  });
}
