/**
 * Who is signed in, and with what. In demo mode a name is enough; a configured server wants a token.
 *
 * The name of this tab is kept for its lifetime, so that a reload stays signed in while a second window asks again:
 * two windows with two names is how one person tries a call. The last name is kept for the next visit.
 */

import { recall, remember } from "./storage.js";

/** @typedef {{ kind: "demo", name: string } | { kind: "token", token: string }} Identity */

/** The server cannot be asked. */
export class Unreachable extends Error {}

/**
 * Asks whether this server has the open sign-in of the demo.
 *
 * @returns {Promise<"demo" | "token">}
 */
export async function signInKind() {
  const response = await ask("/demo/config");
  if (response.status === 404) return "token";
  if (!response.ok) throw new Unreachable(`the server answered ${response.status}`);
  return "demo";
}

/**
 * Signs in by name. Asking again with the same name gives a fresh token for the same User.
 *
 * @param {string} name
 * @returns {Promise<{ token: string, user: string, name: string, account: string }>}
 */
export async function signInByName(name) {
  return signIn("/demo/sign-in", { name });
}

/**
 * Signs in as somebody from outside, for one meeting alone: a new User each time, who waits where there is a lobby.
 *
 * @param {string} name
 * @param {string} room
 * @returns {Promise<{ token: string, user: string, name: string, account: string }>}
 */
export async function signInAsGuest(name, room) {
  return signIn("/demo/guest", { name, room });
}

/**
 * @param {string} url
 * @param {Record<string, string>} who
 */
async function signIn(url, who) {
  const response = await ask(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(who),
  });
  const answer = await response.json().catch(() => null);
  if (!response.ok || !answer?.token) {
    const text = answer?.message ?? answer?.error?.message;
    throw new Error(typeof text === "string" ? text : `the server answered ${response.status}`);
  }
  return answer;
}

/**
 * Takes a token out of the URL fragment. It leaves the address bar at once, before it can be copied or land in the
 * browser's history.
 */
export function takeTokenFromFragment() {
  if (!location.hash.startsWith("#token=")) return;
  const token = decodeURIComponent(location.hash.slice("#token=".length));
  history.replaceState(null, "", location.pathname + location.search);
  if (token) remember("token", token, sessionStorage);
}

/** @returns {Identity | null} */
export function rememberedIdentity() {
  const token = recall("token", sessionStorage);
  if (token) return { kind: "token", token };
  const name = recall("name", sessionStorage);
  return name ? { kind: "demo", name } : null;
}

/** @param {Identity} identity */
export function rememberIdentity(identity) {
  if (identity.kind === "token") {
    remember("token", identity.token, sessionStorage);
    return;
  }
  remember("name", identity.name, sessionStorage);
  remember("lastName", identity.name);
}

/** @returns {string} the name of the last visit, to be offered again */
export function lastName() {
  return recall("lastName") ?? "";
}

export function forgetIdentity() {
  remember("name", null, sessionStorage);
  remember("token", null, sessionStorage);
}

/**
 * What the client shows the server: a token, or for the demo a way to get a fresh one at each connection.
 *
 * @param {Identity} identity
 * @param {string | null} first a fresh token, when there is one
 * @returns {string | (() => Promise<string>)}
 */
export function tokenOf(identity, first) {
  if (identity.kind === "token") return identity.token;
  return async () => {
    const token = first ?? (await signInByName(identity.name)).token;
    first = null;
    return token;
  };
}

/**
 * @param {string} url
 * @param {RequestInit} [init]
 */
async function ask(url, init) {
  try {
    return await fetch(url, { cache: "no-store", ...init });
  } catch {
    throw new Unreachable("the server cannot be reached");
  }
}
