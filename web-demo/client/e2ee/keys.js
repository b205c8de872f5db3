// Keys of an encrypted Room: each Participant seals with a key of their own, which the others get wrapped for them alone
// (docs/calls.v1.md, "Encrypted Rooms"). Needs WebCrypto, nothing of a browser.

import { checkSignature, fromBase64url, toBase64url, wordsOf } from "../code.js";
import { OffhookError } from "../errors.js";
import { BASE_KEY_LEN, concat } from "./sframe.js";

const ECDH = { name: "ECDH", namedCurve: "P-256" };
const IV_LEN = 12;
/** Epochs of one Participant, each with a KID of its own; after these only another join helps. */
const EPOCHS = 1 << 16;
/** What ids and keys look like. The server tells them, and what is no id could read like the lines of somebody else. */
const ULID = /^[0-9A-HJKMNP-TV-Z]{26}$/;
const POINT = /^[\w-]{87}$/;
/** Twice that of a Call: nobody commits to anything here, so whoever looks for two Rooms with one code needs 2^55 tries. */
const CODE_WORDS = 10;
const BITS_PER_WORD = 11;
/** Makes each of those tries this much dearer. */
const CODE_ROUNDS = 100_000;

const utf8 = new TextEncoder();

/**
 * What a Participant shows to the others: the public half of a key made for this Room, signed by their Device.
 * @typedef {{key: string, signature: string}} Announcement
 */

/**
 * Which Room it is: its name as the person knows it, since the server could give two Rooms one id, and its id.
 * @typedef {{name: string, id: string}} RoomNamed
 */

/** @param {RoomNamed} room @param {string} participant @param {string} key */
const announcementText = ({ name, id }, participant, key) => `offhook-e2ee-v1\n${name}\n${id}\n${participant}\n${key}`;

/**
 * The KID a Participant's key of an epoch has: 32 bits of their id's hash, then 16 of the epoch.
 * @param {string} participant @param {number} epoch
 */
export async function kidOf(participant, epoch) {
  const hash = new DataView(await crypto.subtle.digest("SHA-256", utf8.encode(participant)));
  return hash.getUint32(0) * EPOCHS + (epoch % EPOCHS);
}

/**
 * Somebody else: what they announced, the keys of what goes there and comes from there, and the epoch they are in.
 * @typedef {object} Other
 * @property {Announcement} announcement
 * @property {string} deviceKey
 * @property {Promise<CryptoKey>} wrapping
 * @property {Promise<CryptoKey>} opening
 * @property {number} epoch -1 before their first key
 */

/** The keys of one Participant in one Room. */
export class RoomKeys {
  #room;
  #participant;
  #pair;
  /** Our own, of this epoch. */
  #baseKey = crypto.getRandomValues(new Uint8Array(BASE_KEY_LEN));
  epoch = 0;
  /** @type {Map<string, Other>} by Participant */
  #others = new Map();

  /** @param {RoomNamed} room @param {string} participant @param {CryptoKeyPair} pair */
  constructor(room, participant, pair) {
    this.#room = room;
    this.#participant = participant;
    this.#pair = pair;
  }

  /** @param {RoomNamed} room @param {string} participant */
  static async make(room, participant) {
    if (!ULID.test(room.id) || !ULID.test(participant)) throw badKey();
    return new RoomKeys(room, participant, await crypto.subtle.generateKey(ECDH, false, ["deriveBits"]));
  }

  /** @param {(text: string) => Promise<string>} sign by the Device's key @returns {Promise<Announcement>} */
  async announce(sign) {
    const key = toBase64url(await crypto.subtle.exportKey("raw", this.#pair.publicKey));
    return { key, signature: await sign(announcementText(this.#room, this.#participant, key)) };
  }

  /**
   * Takes another Participant in. Rejects with `bad_signature` when their Device did not sign what they announce.
   * @param {string} participant @param {Announcement} announcement @param {string} deviceKey
   */
  async add(participant, announcement, deviceKey) {
    if (!ULID.test(participant) || ![deviceKey, announcement.key].every((key) => POINT.test(key))) throw badKey();
    await checkSignature(deviceKey, announcementText(this.#room, participant, announcement.key), announcement.signature);
    const secret = this.#agree(announcement.key);
    this.#others.set(participant, {
      announcement,
      deviceKey,
      wrapping: secret.then((bits) => this.#wrappingKey(bits, this.#participant, participant, "encrypt")),
      opening: secret.then((bits) => this.#wrappingKey(bits, participant, this.#participant, "decrypt")),
      epoch: -1,
    });
  }

  /** Whether somebody was taken in. @param {string} participant */
  has(participant) {
    return this.#others.has(participant);
  }

  /** @param {string} participant */
  remove(participant) {
    this.#others.delete(participant);
  }

  /**
   * Another key of our own, since somebody came or left: who is not here any more, or was not yet, must not read on.
   * Throws `keys_spent` after the last epoch.
   */
  rotate() {
    if (this.epoch + 1 === EPOCHS) throw new OffhookError("keys_spent", "there was a key for every epoch");
    this.#baseKey = crypto.getRandomValues(new Uint8Array(BASE_KEY_LEN));
    this.epoch++;
  }

  /** Our own key, to seal with. @returns {Promise<{kid: number, baseKey: Uint8Array<ArrayBuffer>}>} */
  async own() {
    return { baseKey: this.#baseKey, kid: await kidOf(this.#participant, this.epoch) };
  }

  /** Our own key for each of the others. */
  async wrapped() {
    const { epoch } = this;
    const baseKey = this.#baseKey;
    const keys = [...this.#others].map(async ([participant, other]) => {
      const iv = crypto.getRandomValues(new Uint8Array(IV_LEN));
      const additionalData = utf8.encode(String(epoch));
      const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData }, await other.wrapping, baseKey);
      return { participant, ciphertext: toBase64url(concat(iv, new Uint8Array(sealed))) };
    });
    return { epoch, keys: await Promise.all(keys) };
  }

  /**
   * The key another Participant sent us, to open with. Rejects with `bad_key` when it is not theirs, not for us, or not newer
   * than the one before: an old key would let old frames in once more.
   * @param {string} from @param {number} epoch @param {string} ciphertext
   */
  async unwrap(from, epoch, ciphertext) {
    const other = this.#others.get(from);
    if (!other || epoch <= other.epoch) throw badKey();
    try {
      const bytes = fromBase64url(ciphertext);
      const iv = bytes.subarray(0, IV_LEN);
      const additionalData = utf8.encode(String(epoch));
      const sealed = bytes.subarray(IV_LEN);
      const opened = await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData }, await other.opening, sealed);
      if (opened.byteLength !== BASE_KEY_LEN) throw new RangeError("a key of another length");
      other.epoch = epoch;
      return { owner: from, kid: await kidOf(from, epoch), baseKey: new Uint8Array(opened) };
    } catch {
      throw badKey();
    }
  }

  /**
   * Ten words that are the same for all when everybody has everybody's real keys. They change with every Participant.
   * @param {string} ownDeviceKey @param {Announcement} own
   */
  async code(ownDeviceKey, own) {
    const lines = [...this.#others].map(([participant, { announcement, deviceKey }]) => [participant, deviceKey, announcement.key]);
    lines.push([this.#participant, ownDeviceKey, own.key]);
    const { name, id } = this.#room;
    const text = ["offhook-e2ee-code-v1", name, id, ...lines.map((line) => line.join(" ")).sort()].join("\n");

    const secret = await crypto.subtle.importKey("raw", utf8.encode(text), "PBKDF2", false, ["deriveBits"]);
    const salt = utf8.encode(id);
    const stretched = await crypto.subtle.deriveBits({ name: "PBKDF2", hash: "SHA-256", salt, iterations: CODE_ROUNDS }, secret, 128);
    const bits = new Uint8Array(stretched).reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    return wordsOf(Array.from({ length: CODE_WORDS }, (_, i) => Number((bits >> BigInt(128 - BITS_PER_WORD * (i + 1))) & 2047n)));
  }

  /** @param {string} key */
  async #agree(key) {
    const publicKey = await crypto.subtle.importKey("raw", fromBase64url(key), ECDH, false, []);
    const bits = await crypto.subtle.deriveBits({ name: "ECDH", public: publicKey }, this.#pair.privateKey, 256);
    return crypto.subtle.importKey("raw", bits, "HKDF", false, ["deriveKey"]);
  }

  /** @param {CryptoKey} secret @param {string} from @param {string} to @param {"encrypt"|"decrypt"} use */
  #wrappingKey(secret, from, to, use) {
    const info = utf8.encode(`offhook-e2ee-key-v1\n${this.#room.id}\n${from}\n${to}`);
    const hkdf = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info };
    return crypto.subtle.deriveKey(hkdf, secret, { name: "AES-GCM", length: 256 }, false, [use]);
  }
}

function badKey() {
  return new OffhookError("bad_key", "a key of the room is not what it should be");
}
