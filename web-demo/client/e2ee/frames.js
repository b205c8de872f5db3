// Encoded frames, sealed and opened in the worker: what stays readable for the SFU, which keys there are, what comes twice.

import { TAG_LEN, concat, decodeHeader, open, seal } from "./sframe.js";

/** @import { FrameKey } from "./sframe.js" */

/** What a VP8 depacketizer has to read: the uncompressed data chunk of a frame (RFC 6386 §9.1). */
const VP8_CLEAR_KEY = 10;
const VP8_CLEAR_DELTA = 3;
/** Keys of others kept at once: two epochs of each Participant of a large Room. */
const KEYS_MAX = 1024;
/** How far frames of one sender may overtake each other, over all their Tracks. */
const REPLAY_WINDOW = 1024;

/** Why a frame was not passed on. @typedef {"no_key"|"too_short"|"not_sealed"|"replayed"|"forged"} Dropped */

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

/** Opens the frames of others. */
export class Opener {
  /** @type {Map<number, {key: FrameKey, seen: ReplayWindow}>} by KID, the one set last at the end */
  #keys = new Map();

  /** @param {FrameKey} key */
  setKey(key) {
    if (this.#keys.has(key.kid)) return;
    this.#keys.set(key.kid, { key, seen: new ReplayWindow() });
    if (this.#keys.size > KEYS_MAX) {
      const [oldest] = this.#keys.keys();
      this.#keys.delete(oldest);
    }
  }

  /** @param {number} kid */
  forget(kid) {
    this.#keys.delete(kid);
  }

  /**
   * The frame as it was before it was sealed, or why there is none.
   * @param {"audio"|"video"} kind @param {Uint8Array<ArrayBuffer>} frame
   * @returns {Promise<{frame: Uint8Array<ArrayBuffer>}|{dropped: Dropped, kid?: number}>}
   */
  async open(kind, frame) {
    const len = clearLen(kind, frame);
    const clear = frame.subarray(0, len);
    const sealed = frame.subarray(len);
    const header = decodeHeader(sealed);
    if (!header || sealed.length < header.len + TAG_LEN) return { dropped: "not_sealed" };

    const { kid, counter } = header;
    const known = this.#keys.get(kid);
    if (!known) return { dropped: "no_key", kid };
    if (!known.seen.isNew(counter)) return { dropped: "replayed", kid };
    try {
      const opened = await open(known.key, counter, sealed.subarray(0, header.len), clear, sealed.subarray(header.len));
      // Only now: who can't seal must not be able to make us refuse what others sealed.
      if (!known.seen.take(counter)) return { dropped: "replayed", kid };
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
