// Who is at the other end: SDP signed by Device keys, and the short code both people can compare
// (docs/calls.v1.md, "Configuration of media" and "The short code"). Nothing here needs a browser, only WebCrypto.

import { OffhookError } from "./errors.js";

const ECDSA = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const WORDS = 5;
const BITS_PER_WORD = 11;

/**
 * What one side shows: its Device key, the fingerprint of its DTLS certificate and 32 random bytes.
 * @typedef {{key: string, fingerprint: string, nonce: string}} Shown
 */

/** @param {ArrayBuffer|Uint8Array} bytes */
export function toBase64url(bytes) {
  const text = String.fromCharCode(...new Uint8Array(bytes));
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** @param {string} text @returns {Uint8Array<ArrayBuffer>} */
export function fromBase64url(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

export function makeNonce() {
  return toBase64url(crypto.getRandomValues(new Uint8Array(32)));
}

/** The values of all `a=fingerprint:` lines, in lower case, each once, sorted. @param {string} sdp */
export function fingerprintsOf(sdp) {
  const values = [...sdp.matchAll(/^a=fingerprint:(.*?)\s*$/gm)].map(([, value]) => value.toLowerCase());
  return [...new Set(values)].sort();
}

/**
 * What the signature of an offer or answer is made over.
 * @param {string} call @param {number} generation @param {"offer"|"answer"} kind @param {string} sdp
 */
export function sdpText(call, generation, kind, sdp) {
  return `offhook-sdp-v1\n${call}\n${generation}\n${kind}\n${fingerprintsOf(sdp).join(",")}`;
}

/** @param {CryptoKey} privateKey @param {string} text @returns {Promise<string>} r‖s in base64url */
export async function sign(privateKey, text) {
  return toBase64url(await crypto.subtle.sign(ECDSA, privateKey, new TextEncoder().encode(text)));
}

/**
 * Rejects with `bad_signature` unless `signature` over `text` was made with the private half of `key`.
 * @param {string} key @param {string} text @param {string} signature
 */
export async function checkSignature(key, text, signature) {
  let right = false;
  try {
    const publicKey = await crypto.subtle.importKey("raw", fromBase64url(key), ECDSA, false, ["verify"]);
    right = await crypto.subtle.verify(ECDSA, publicKey, fromBase64url(signature), new TextEncoder().encode(text));
  } catch {
    // A key or signature that cannot even be read is as wrong as one that does not fit.
  }
  if (!right) throw new OffhookError("bad_signature", "the media description was not signed by the other Device");
}

/** @param {string} call @param {Shown} shown */
export async function commitmentOf(call, { key, fingerprint, nonce }) {
  return toBase64url(await sha256(`offhook-commit-v1\n${call}\n${key}\n${fingerprint}\n${nonce}`));
}

/**
 * The indices into the word list: the first 55 bits, most significant first.
 * @param {string} call @param {Shown} caller @param {Shown} callee
 */
export async function codeOf(call, caller, callee) {
  const parts = ["offhook-code-v1", call];
  for (const { key, fingerprint, nonce } of [caller, callee]) parts.push(key, fingerprint, nonce);
  const digest = new Uint8Array(await sha256(parts.join("\n")));

  const bits = digest.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  return Array.from({ length: WORDS }, (_, i) => {
    return Number((bits >> BigInt(256 - BITS_PER_WORD * (i + 1))) & 2047n);
  });
}

/** The words are loaded when the first code is shown, not with the page. @param {number[]} code */
export async function wordsOf(code) {
  const { words } = await import("./words.js");
  return code.map((index) => words[index]);
}

/**
 * One side of commit, answer, reveal. Every message may come twice (it is sent again after a crash): the same
 * message gets the same reply, a different one none, for whoever could answer twice could try until the code fits.
 */
export class CodeExchange {
  #call;
  #isCaller;
  #own;
  /** @type {string|null} what the caller bound itself to */
  #commitment = null;
  /** @type {Shown|null} */
  #peer = null;

  /** @param {{call: string, isCaller: boolean, own: Shown}} options */
  constructor({ call, isCaller, own }) {
    this.#call = call;
    this.#isCaller = isCaller;
    this.#own = own;
  }

  /** What the other side showed, once the exchange is complete. */
  get peer() {
    return this.#peer;
  }

  /** What to say again after messages may have been lost; null when there is nothing to say. */
  async repeat() {
    if (this.#isCaller) return this.#peer ? { reveal: this.#own } : { commitment: await commitmentOf(this.#call, this.#own) };
    return this.#commitment && !this.#peer ? { answer: this.#own } : null;
  }

  /**
   * @param {{commitment?: string, answer?: Shown, reveal?: Shown}} message
   * @returns {Promise<{reply?: object, code?: number[]}>} what to send back, and the code when it is new
   */
  async receive({ commitment, answer, reveal }) {
    if (this.#isCaller) return answer ? this.#answered(answer) : {};
    if (commitment) {
      this.#commitment ??= commitment;
      return commitment === this.#commitment ? { reply: { answer: this.#own } } : {};
    }
    return reveal ? this.#revealed(reveal) : {};
  }

  /** @param {Shown} answer */
  async #answered(answer) {
    if (!this.#peer) {
      this.#peer = pick(answer);
      return { reply: { reveal: this.#own }, code: await codeOf(this.#call, this.#own, this.#peer) };
    }
    return same(this.#peer, answer) ? { reply: { reveal: this.#own } } : {};
  }

  /** @param {Shown} reveal */
  async #revealed(reveal) {
    if (!this.#commitment || this.#peer) return {};
    const caller = pick(reveal);
    // Taken before the first await, so that of two reveals in one moment only one counts.
    this.#peer = caller;
    if ((await commitmentOf(this.#call, caller)) !== this.#commitment) {
      throw new OffhookError("commitment_mismatch", "the other side revealed something else than it had committed to");
    }
    return { code: await codeOf(this.#call, caller, this.#own) };
  }
}

/** @param {Shown} shown @returns {Shown} */
function pick({ key, fingerprint, nonce }) {
  return { key, fingerprint, nonce };
}

/** @param {Shown} a @param {Shown} b */
function same(a, b) {
  return a.key === b.key && a.fingerprint === b.fingerprint && a.nonce === b.nonce;
}

/** @param {string} text */
function sha256(text) {
  return crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
}
