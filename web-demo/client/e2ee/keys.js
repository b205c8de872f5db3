// Keys of an encrypted Room: each Participant seals with a key of their own, which the others get wrapped for them alone
// (docs/calls.v1.md, "Encrypted Rooms"). Needs WebCrypto, nothing of a browser.

import { checkSignature, fromBase64url, toBase64url, wordsOf } from "../code.js";
import { OffhookError } from "../errors.js";
import { BASE_KEY_LEN, concat } from "./sframe.js";

const ECDH = { name: "ECDH", namedCurve: "P-256" };
const IV_LEN = 12;
/** Epochs of one Participant count modulo this. */
const EPOCHS = 1 << 16;
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

/** @param {string} room @param {string} participant @param {string} key */
const announcementText = (room, participant, key) => `offhook-e2ee-v1\n${room}\n${participant}\n${key}`;

/**
 * The KID a Participant's key of an epoch has: 32 bits of their id's hash, then 16 of the epoch.
 * @param {string} participant @param {number} epoch
 */
export async function kidOf(participant, epoch) {
  const hash = new DataView(await crypto.subtle.digest("SHA-256", utf8.encode(participant)));
  return hash.getUint32(0) * EPOCHS + (epoch % EPOCHS);
}

/** The keys of one Participant in one Room. */
export class RoomKeys {
  #room;
  #participant;
  #pair;
  /** Our own, of this epoch. */
  #baseKey = crypto.getRandomValues(new Uint8Array(BASE_KEY_LEN));
  epoch = 0;
  /** @type {Map<string, {announcement: Announcement, deviceKey: string, wrapping: Promise<CryptoKey>, opening: Promise<CryptoKey>}>} by Participant */
  #others = new Map();

  /** @param {string} room @param {string} participant @param {CryptoKeyPair} pair */
  constructor(room, participant, pair) {
    this.#room = room;
    this.#participant = participant;
    this.#pair = pair;
  }

  /** @param {string} room @param {string} participant */
  static async make(room, participant) {
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
    await checkSignature(deviceKey, announcementText(this.#room, participant, announcement.key), announcement.signature);
    const secret = this.#agree(announcement.key);
    this.#others.set(participant, {
      announcement,
      deviceKey,
      wrapping: secret.then((bits) => this.#wrappingKey(bits, this.#participant, participant, "encrypt")),
      opening: secret.then((bits) => this.#wrappingKey(bits, participant, this.#participant, "decrypt")),
    });
  }

  /** @param {string} participant */
  remove(participant) {
    this.#others.delete(participant);
  }

  /** Another key of our own, since somebody came or left: who is not here any more, or was not yet, must not read on. */
  rotate() {
    this.#baseKey = crypto.getRandomValues(new Uint8Array(BASE_KEY_LEN));
    this.epoch = (this.epoch + 1) % EPOCHS;
  }

  /** Our own key, to seal with. @returns {Promise<{kid: number, baseKey: Uint8Array<ArrayBuffer>}>} */
  async own() {
    return { baseKey: this.#baseKey, kid: await kidOf(this.#participant, this.epoch) };
  }

  /** Our own key for each of the others, or for those named. @param {string[]} [participants] */
  async wrapped(participants = [...this.#others.keys()]) {
    const { epoch } = this;
    const baseKey = this.#baseKey;
    const keys = participants.map(async (participant) => {
      const other = this.#other(participant);
      const iv = crypto.getRandomValues(new Uint8Array(IV_LEN));
      const additionalData = utf8.encode(String(epoch));
      const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData }, await other.wrapping, baseKey);
      return { participant, ciphertext: toBase64url(concat(iv, new Uint8Array(sealed))) };
    });
    return { epoch, keys: await Promise.all(keys) };
  }

  /**
   * The key another Participant sent us, to open with. Rejects with `bad_key` when it is not theirs, or not for us.
   * @param {string} from @param {number} epoch @param {string} ciphertext
   */
  async unwrap(from, epoch, ciphertext) {
    const other = this.#other(from);
    try {
      const bytes = fromBase64url(ciphertext);
      const iv = bytes.subarray(0, IV_LEN);
      const additionalData = utf8.encode(String(epoch));
      const sealed = bytes.subarray(IV_LEN);
      const opened = await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData }, await other.opening, sealed);
      if (opened.byteLength !== BASE_KEY_LEN) throw new RangeError("a key of another length");
      return { kid: await kidOf(from, epoch), baseKey: new Uint8Array(opened) };
    } catch {
      throw new OffhookError("bad_key", "a key of the room could not be opened");
    }
  }

  /**
   * Ten words that are the same for all when everybody has everybody's real keys. They change with every Participant.
   * @param {string} ownDeviceKey @param {Announcement} own
   */
  async code(ownDeviceKey, own) {
    const lines = [...this.#others].map(([participant, { announcement, deviceKey }]) => [participant, deviceKey, announcement.key]);
    lines.push([this.#participant, ownDeviceKey, own.key]);
    const text = ["offhook-e2ee-code-v1", this.#room, ...lines.map((line) => line.join(" ")).sort()].join("\n");

    const secret = await crypto.subtle.importKey("raw", utf8.encode(text), "PBKDF2", false, ["deriveBits"]);
    const salt = utf8.encode(this.#room);
    const stretched = await crypto.subtle.deriveBits({ name: "PBKDF2", hash: "SHA-256", salt, iterations: CODE_ROUNDS }, secret, 128);
    const bits = new Uint8Array(stretched).reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    return wordsOf(Array.from({ length: CODE_WORDS }, (_, i) => Number((bits >> BigInt(128 - BITS_PER_WORD * (i + 1))) & 2047n)));
  }

  /** @param {string} participant */
  #other(participant) {
    const other = this.#others.get(participant);
    if (!other) throw new OffhookError("not_in_room", `${participant} has announced no key`);
    return other;
  }

  /** @param {string} key */
  async #agree(key) {
    const publicKey = await crypto.subtle.importKey("raw", fromBase64url(key), ECDH, false, []);
    const bits = await crypto.subtle.deriveBits({ name: "ECDH", public: publicKey }, this.#pair.privateKey, 256);
    return crypto.subtle.importKey("raw", bits, "HKDF", false, ["deriveKey"]);
  }

  /** @param {CryptoKey} secret @param {string} from @param {string} to @param {"encrypt"|"decrypt"} use */
  #wrappingKey(secret, from, to, use) {
    const info = utf8.encode(`offhook-e2ee-key-v1\n${this.#room}\n${from}\n${to}`);
    const hkdf = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info };
    return crypto.subtle.deriveKey(hkdf, secret, { name: "AES-GCM", length: 256 }, false, [use]);
  }
}
