// Encoded frames, sealed and opened in the worker: what stays readable for the SFU, which keys there are, what comes twice.

import { TAG_LEN, concat, decodeHeader, open, seal } from "./sframe.js";

/** @import { FrameKey } from "./sframe.js" */

/** What a VP8 depacketizer has to read: the uncompressed data chunk of a frame (RFC 6386 §9.1). */
const VP8_CLEAR_KEY = 10;
const VP8_CLEAR_DELTA = 3;
/** Keys of others kept at once: three epochs of each Participant of a large Room. */
const KEYS_MAX = 1536;
/** How far frames of one sender may overtake each other, over all their Tracks. */
const REPLAY_WINDOW = 1024;
/** What is said about a slot, and what is in it, come on different ways: so long they may differ. */
const MISLABELLED_MS_MAX = 2_000;

/** Why a frame was not passed on. @typedef {"no_key"|"too_short"|"not_sealed"|"replayed"|"forged"|"mislabelled"} Dropped */

/**
 * How many bytes at the beginning of a frame stay readable; they are authenticated all the same.
 * @param {"audio"|"video"} kind @param {Uint8Array} frame VP8 if video
 */
export function clearLen(kind, frame) {
  if (kind === "audio") return 0;
  const isKey = (frame[0] & 1) === 0;
  return isKey ? VP8_CLEAR_KEY : VP8_CLEAR_DELTA;
}

/** Seals the frames of this Participant: one counter for all Tracks and Layers, for they share a key. */
export class Sealer {
  /** @type {FrameKey|null} */
  #key = null;
  #counter = 0;

  /** @param {FrameKey} key never one that was set before */
  setKey(key) {
    this.#key = key;
    this.#counter = 0;
  }

  /**
   * The frame as it leaves, or why it does not: without a key nothing leaves.
   * @param {"audio"|"video"} kind @param {Uint8Array<ArrayBuffer>} frame
   * @returns {Promise<{frame: Uint8Array<ArrayBuffer>}|{dropped: Dropped}>}
   */
  async seal(kind, frame) {
    if (!this.#key) return { dropped: "no_key" };
    const len = clearLen(kind, frame);
    if (frame.length < len) return { dropped: "too_short" };

    const counter = this.#counter++;
    const clear = frame.subarray(0, len);
    const { header, ciphertext } = await seal(this.#key, counter, clear, frame.subarray(len));
    return { frame: concat(clear, header, ciphertext) };
  }
}

/**
 * One receiver: whose frames the page shows there. The server says so, and could lie: say "Carol", and pass on what Bob sent.
 */
export class Slot {
  /** @type {string|null} null: nobody is named, so nobody can be mistaken */
  #owner = null;
  /** Since when something else was in it than what is said. */
  #since = NaN;

  /** @param {string|null} owner a Participant */
  setOwner(owner) {
    if (owner === this.#owner) return;
    this.#owner = owner;
    this.#since = NaN;
  }

  /**
   * Whether frames of `owner` are what is said, may be soon or were just now, or are something else.
   * @param {string} owner @param {number} now milliseconds
   * @returns {"right"|"passing"|"wrong"}
   */
  judge(owner, now) {
    if (this.#owner === null || owner === this.#owner) return "right";
    // Frames that are right again in between are no excuse: that begins anew with what is said.
    if (Number.isNaN(this.#since)) this.#since = now;
    return now - this.#since < MISLABELLED_MS_MAX ? "passing" : "wrong";
  }
}

/** Opens the frames of others. */
export class Opener {
  /** @type {Map<number, {key: FrameKey, owner: string, seen: ReplayWindow}>} by KID, the one set last at the end */
  #keys = new Map();

  /** @param {string} owner the Participant whose it is @param {FrameKey} key */
  setKey(owner, key) {
    // The server gives out the ids that KIDs are made of: who comes second with one does not take the place of the first.
    if (this.#keys.has(key.kid)) return;
    this.#keys.set(key.kid, { key, owner, seen: new ReplayWindow() });
    if (this.#keys.size > KEYS_MAX) {
      const [oldest] = this.#keys.keys();
      this.#keys.delete(oldest);
    }
  }

  /** @param {string} owner @param {number} kid */
  forget(owner, kid) {
    if (this.#keys.get(kid)?.owner === owner) this.#keys.delete(kid);
  }

  /**
   * The frame as it was before it was sealed, or why there is none.
   * @param {"audio"|"video"} kind @param {Uint8Array<ArrayBuffer>} frame @param {Slot} slot @param {number} now milliseconds
   * @returns {Promise<{frame: Uint8Array<ArrayBuffer>}|{dropped: Dropped, kid?: number}>}
   */
  async open(kind, frame, slot, now) {
    const len = clearLen(kind, frame);
    const clear = frame.subarray(0, len);
    const sealed = frame.subarray(len);
    const header = decodeHeader(sealed);
    if (!header || sealed.length < header.len + TAG_LEN) return { dropped: "not_sealed" };

    const { kid, counter } = header;
    const known = this.#keys.get(kid);
    if (!known) return { dropped: "no_key", kid };
    const label = slot.judge(known.owner, now);
    if (label === "wrong") return { dropped: "mislabelled", kid };
    if (!known.seen.isNew(counter)) return { dropped: "replayed", kid };
    try {
      const opened = await open(known.key, counter, sealed.subarray(0, header.len), clear, sealed.subarray(header.len));
      // Only now, and only where it belongs: everybody has this key, and nobody shall make us refuse what its owner seals.
      if (label === "right" && !known.seen.take(counter)) return { dropped: "replayed", kid };
      return { frame: concat(clear, opened) };
    } catch {
      return { dropped: "forged", kid };
    }
  }
}

/** Which counters of one key were seen, the newest {@link REPLAY_WINDOW} of them (RFC 9605 §9.3). */
export class ReplayWindow {
  #highest = -1;
  /** By counter modulo the window: the counter seen there last. */
  #seen = new Float64Array(REPLAY_WINDOW).fill(-1);

  /** @param {number} counter */
  isNew(counter) {
    return counter > this.#highest - REPLAY_WINDOW && this.#seen[counter % REPLAY_WINDOW] !== counter;
  }

  /** Whether it was new. @param {number} counter */
  take(counter) {
    if (!this.isNew(counter)) return false;
    this.#seen[counter % REPLAY_WINDOW] = counter;
    this.#highest = Math.max(this.#highest, counter);
    return true;
  }
}
