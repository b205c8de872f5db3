// SFrame (RFC 9605), cipher suite AES_128_GCM_SHA256_128, with WebCrypto alone.

/** The registered number of AES_128_GCM_SHA256_128 (RFC 9605 §8.1). */
const SUITE = 4;
const KEY_LEN = 16;
const NONCE_LEN = 12;
export const TAG_LEN = 16;
/** How long a base key is, in bytes. */
export const BASE_KEY_LEN = 16;

const utf8 = new TextEncoder();

/**
 * What a base key becomes for one KID.
 * @typedef {{kid: number, key: CryptoKey, salt: Uint8Array<ArrayBuffer>}} FrameKey
 */

/**
 * Derives the key and the salt of a KID (RFC 9605 §4.4.2). A key either seals or opens, never both (§4.4.1).
 * @param {number} kid up to 2^53 @param {Uint8Array<ArrayBuffer>} baseKey @param {"encrypt"|"decrypt"} use
 * @returns {Promise<FrameKey>}
 */
export async function deriveFrameKey(kid, baseKey, use) {
  const secret = await crypto.subtle.importKey("raw", baseKey, "HKDF", false, ["deriveBits"]);
  /** @param {string} label @param {number} len */
  const derive = (label, len) => {
    const info = new Uint8Array(label.length + 10);
    info.set(utf8.encode(label));
    new DataView(info.buffer).setBigUint64(label.length, BigInt(kid));
    new DataView(info.buffer).setUint16(label.length + 8, SUITE);
    return crypto.subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info }, secret, len * 8);
  };

  const [keyBits, saltBits] = await Promise.all([
    derive("SFrame 1.0 Secret key ", KEY_LEN),
    derive("SFrame 1.0 Secret salt ", NONCE_LEN),
  ]);
  const key = await crypto.subtle.importKey("raw", keyBits, "AES-GCM", false, [use]);
  return { kid, key, salt: new Uint8Array(saltBits) };
}

/**
 * The header of a frame (RFC 9605 §4.3). @param {number} kid @param {number} counter @returns {Uint8Array<ArrayBuffer>}
 */
export function encodeHeader(kid, counter) {
  const kidBytes = kid < 8 ? [] : bigEndian(kid);
  const counterBytes = counter < 8 ? [] : bigEndian(counter);
  const kidField = kid < 8 ? kid : 8 | (kidBytes.length - 1);
  const counterField = counter < 8 ? counter : 8 | (counterBytes.length - 1);
  return Uint8Array.of((kidField << 4) | counterField, ...kidBytes, ...counterBytes);
}

/**
 * Reads the header at the beginning of `bytes`; null when there is none that we could have made.
 * @param {Uint8Array} bytes @returns {{kid: number, counter: number, len: number}|null}
 */
export function decodeHeader(bytes) {
  if (bytes.length === 0) return null;
  const [config] = bytes;
  let len = 1;
  /** @param {number} field */
  const read = (field) => {
    if (field < 8) return field;
    const end = len + (field & 7) + 1;
    if (end > bytes.length) return NaN;
    let value = 0;
    for (; len < end; len++) value = value * 256 + bytes[len];
    return value;
  };
  const kid = read(config >> 4);
  const counter = read(config & 15);
  return Number.isSafeInteger(kid) && Number.isSafeInteger(counter) ? { kid, counter, len } : null;
}

/**
 * Seals `plaintext`; `metadata` is authenticated, not sealed and not part of the result (RFC 9605 §4.4.3).
 * The same `counter` must never come twice with one key.
 * @param {FrameKey} key @param {number} counter @param {Uint8Array} metadata @param {Uint8Array<ArrayBuffer>} plaintext
 * @returns {Promise<{header: Uint8Array, ciphertext: Uint8Array}>}
 */
export async function seal({ kid, key, salt }, counter, metadata, plaintext) {
  const header = encodeHeader(kid, counter);
  const ciphertext = await crypto.subtle.encrypt(parameters(salt, counter, header, metadata), key, plaintext);
  return { header, ciphertext: new Uint8Array(ciphertext) };
}

/**
 * Opens what {@link seal} made; rejects when any bit of it, or of `metadata`, is another (RFC 9605 §4.4.4).
 * @param {FrameKey} key @param {number} counter @param {Uint8Array} header @param {Uint8Array} metadata
 * @param {Uint8Array<ArrayBuffer>} ciphertext
 */
export async function open({ key, salt }, counter, header, metadata, ciphertext) {
  return new Uint8Array(await crypto.subtle.decrypt(parameters(salt, counter, header, metadata), key, ciphertext));
}

/**
 * @param {Uint8Array} salt @param {number} counter @param {Uint8Array} header @param {Uint8Array} metadata
 * @returns {AesGcmParams}
 */
function parameters(salt, counter, header, metadata) {
  const iv = Uint8Array.from(salt);
  let rest = counter;
  for (let i = NONCE_LEN - 1; rest > 0; i--) {
    iv[i] ^= rest % 256;
    rest = Math.floor(rest / 256);
  }
  return { name: "AES-GCM", iv, additionalData: concat(header, metadata), tagLength: TAG_LEN * 8 };
}

/** With the fewest bytes. @param {number} value above 0 */
function bigEndian(value) {
  const bytes = [];
  for (; value > 0; value = Math.floor(value / 256)) bytes.unshift(value % 256);
  return bytes;
}

/** @param {Uint8Array[]} parts @returns {Uint8Array<ArrayBuffer>} */
export function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
