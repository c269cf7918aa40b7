/**
 * Logs the user of a page in at the login page of infrastructure/cognito.yaml: code flow with PKCE.
 *
 *     const idToken = await login(outputs); // leaves for the login page and comes back, if need be
 *     cognitoCredentials({ identityPoolId, provider, idToken });
 *
 * Resolves to a function that gives an ID token, renewed for as long as Cognito renews it. After that
 * the old one is given, which Cognito refuses: time to log in again. Tokens stay in memory.
 * `page` is the address to come back to: one of the stack's CallbackUrls, to the letter.
 */
export async function login({ ClientId, Domain }, page = location.origin + location.pathname) {
  const arrived = new URLSearchParams(location.search);
  const begun = JSON.parse(sessionStorage.getItem("login"));
  sessionStorage.removeItem("login");
  const isAnswer = begun && arrived.get("state") === begun.state;
  if (!isAnswer || !(arrived.has("code") || arrived.has("error"))) {
    return depart({ ClientId, Domain }, page);
  }
  history.replaceState(null, "", page); // An answer is good for once.
  if (arrived.has("error")) throw new Error(arrived.get("error_description") ?? arrived.get("error"));

  const ask = async (fields) => {
    const body = new URLSearchParams({ client_id: ClientId, ...fields });
    const answer = await fetch(`https://${Domain}/oauth2/token`, { method: "POST", body });
    if (answer.status >= 500) throw new Error(`the login page answers ${answer.status}`);
    return answer.ok ? answer.json() : null;
  };
  const soon = ({ expires_in }) => Date.now() + (expires_in - RENEW_BEFORE_S) * 1000;

  let tokens = await ask({
    grant_type: "authorization_code",
    code: arrived.get("code"),
    redirect_uri: page,
    code_verifier: begun.verifier,
  });
  if (!tokens) throw new Error("the login was not accepted; reload the page to try again");
  let renewAt = soon(tokens);

  return async () => {
    if (Date.now() >= renewAt) {
      const renewed = await ask({ grant_type: "refresh_token", refresh_token: tokens.refresh_token });
      if (renewed) {
        tokens = { ...tokens, ...renewed };
        renewAt = soon(renewed);
      }
    }
    return tokens.id_token;
  };
}

/** What a token says. Nobody has checked it: good for showing it, and for nothing else. */
export function claimsOf(token) {
  const base64 = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
  const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

const RENEW_BEFORE_S = 600; // Credentials are renewed 5 minutes before they expire: sooner than that.

/** Goes to the login page. Never resolves: this page is left. */
async function depart({ ClientId, Domain }, page) {
  const [state, verifier] = [random(), random()];
  sessionStorage.setItem("login", JSON.stringify({ state, verifier }));
  const challenge = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  const query = new URLSearchParams({
    response_type: "code",
    client_id: ClientId,
    redirect_uri: page,
    scope: "openid",
    state,
    code_challenge: base64url(challenge),
    code_challenge_method: "S256",
  });
  location.assign(`https://${Domain}/oauth2/authorize?${query}`);
  return new Promise(() => {});
}

function random() {
  return base64url(crypto.getRandomValues(new Uint8Array(32)));
}

function base64url(bytes) {
  const base64 = btoa(String.fromCharCode(...new Uint8Array(bytes)));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
