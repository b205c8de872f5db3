import { OffhookError } from "../errors.js";
import { RoomKeys } from "./keys.js";

/**
 * @import { Device } from "../device.js"
 * @import { RemoteParticipant } from "../participant.js"
 * @import { Announcement, RoomNamed } from "./keys.js"
 */

/** So long a new key has to reach the others before anything is sealed with it; and so often there is a new one at most. */
const KEY_LEAD_MS = 500;
/** Keys of one Participant that may be in use: the one before still arrives, and the one after may be there already. */
const KIDS_KEPT = 3;
/** How many Participants may send a key before we are told of them: as many as a Room may have. */
const EARLY_MAX = 1_000;
/** What the server did not take is said again after this. */
const AGAIN_MS = 1_000;
/** Answers after which saying it again is no use: we are not there, or encryption is off. */
const HOPELESS = new Set(["unknown_room", "not_in_room", "forbidden", "closed", "wrong_phase", "bad_data"]);

/** Whether this browser can seal and open what it sends and receives. */
export function canEncrypt() {
  return "RTCRtpScriptTransform" in globalThis && typeof Worker === "function";
}

/** @typedef {{from: string, epoch: number, ciphertext: string}} Wrapped a key of a Participant, for us alone */

/**
 * @typedef {object} EncryptionOptions
 * @property {Device} device
 * @property {(type: string, data: Record<string, any>) => Promise<any>} command
 * @property {() => boolean} maySend
 * @property {(participant: string, key: string|null) => void} onDevice somebody is there with this Device key; null: with one that
 *   cannot be trusted
 * @property {() => void} onCode the words changed
 * @property {() => void} onSpent only another join helps
 * @property {(error: OffhookError) => void} onError somebody cannot be trusted, or nothing can be sealed
 */

/**
 * What makes one PeerConnection's media unreadable for the server: a worker that seals and opens frames, and the keys it does
 * that with, which change when somebody comes or leaves. One for each join.
 */
export class Encryption {
  /** @type {string[]|null} ten words that are equal for all when nobody sits in between */
  code = null;

  #options;
  #worker;
  #closed = false;
  /** What touches keys, one step after the other. @type {Promise<void>} */
  #queue = Promise.resolve();
  /** @type {RoomKeys|null} */
  #keys = null;
  /** @type {Announcement|null} */
  #announcement = null;
  /** The others as told last, until that is taken in. @type {{id: string, e2ee: RemoteParticipant["e2ee"]}[]|null} */
  #others = null;
  /** What each of the others has announced. @type {Map<string, string>} */
  #known = new Map();
  /** @type {Map<string, number[]>} of each of the others, oldest first */
  #kids = new Map();
  /** Keys that came before we were told of who sent them. @type {Map<string, Wrapped>} */
  #early = new Map();
  /** Receivers, and whose frames belong there. @type {Map<RTCRtpTransceiver, {slot: number, owner: string|null}>} */
  #slots = new Map();
  /** Whether those who were here before us were taken in. */
  #isSettled = false;
  /** Counts codes, for only the last one is right. */
  #spelling = 0;
  /** While a new key is on its way. @type {ReturnType<typeof setTimeout>|undefined} */
  #lead = undefined;
  /** Whether somebody came or left meanwhile. */
  #isStale = false;
  /** Whether we have handed out no key, since we may send nothing: of hundreds who listen nobody needs one. */
  #isSilent = false;

  /** @param {EncryptionOptions} options */
  constructor(options) {
    this.#options = options;
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.#worker.onerror = () => options.onError(new OffhookError("cannot_encrypt", "what seals and opens frames did not start"));
  }

  /**
   * To be called when a transceiver is made: later, Chromium would send in plain.
   * @param {RTCRtpTransceiver} transceiver @param {"audio"|"video"} kind @param {"send"|"receive"} direction
   */
  protect(transceiver, kind, direction) {
    const end = /** @type {any} */ (direction === "send" ? transceiver.sender : transceiver.receiver);
    const { RTCRtpScriptTransform } = /** @type {any} */ (globalThis);
    const slot = this.#slots.size;
    if (direction === "receive") this.#slots.set(transceiver, { slot, owner: null });
    end.transform = new RTCRtpScriptTransform(this.#worker, { direction, kind, slot });
  }

  /**
   * Only frames of `owner` are shown there, whatever the server passes on; null: of anybody.
   * @param {RTCRtpTransceiver} transceiver @param {string|null} owner a Participant
   */
  expect(transceiver, owner) {
    const known = this.#slots.get(transceiver);
    if (!known || known.owner === owner) return;
    known.owner = owner;
    this.#worker.postMessage({ type: "expect", ...known });
  }

  /** We are in: shows our key to the others. @param {RoomNamed} room @param {string} participant */
  begin(room, participant) {
    this.#queue = this.#run(async () => {
      const keys = await RoomKeys.make(room, participant);
      const announcement = await keys.announce(this.#options.device.sign);
      this.#keys = keys;
      this.#announcement = announcement;
      this.#worker.postMessage({ type: "seal", ...(await keys.own()) });
      await this.#say("room.announce", { e2ee: announcement });
    });
  }

  /** The others are these now, with what each has announced. @param {Iterable<RemoteParticipant>} participants */
  update(participants) {
    const isPending = this.#others !== null;
    this.#others = [...participants].map(({ id, e2ee }) => ({ id, e2ee }));
    if (isPending) return;
    this.#enqueue(async (keys) => {
      const others = this.#others ?? [];
      this.#others = null;
      const present = new Set(others.map(({ id }) => id));
      const gone = [...this.#known.keys()].filter((id) => !present.has(id));
      for (const id of gone) this.#forget(keys, id);
      const come = [];
      for (const { id, e2ee } of others) if (e2ee && (await this.#takeIn(keys, id, e2ee))) come.push(id);
      const isFirst = !this.#isSettled;
      this.#isSettled = true;
      const isChanged = gone.length + come.length > 0;
      if (!isChanged && !isFirst) return;
      // Words that are no longer right are shown to nobody.
      this.#tellCode(null);
      // Those who were here before us may have the key we begin with. Of later ones, who left reads nothing from now on, and
      // who came nothing from before.
      await (isFirst ? this.#share(keys) : this.#renew(keys));
      // Only now: they take their time, and somebody waits for the key.
      void this.#spell(keys);
    });
  }

  /** What we may send has changed. */
  permitted() {
    if (this.#options.maySend()) this.#enqueue(async (keys) => {
      if (this.#isSilent) await this.#renew(keys);
    });
  }

  /** A key of somebody else. @param {Wrapped} wrapped */
  handleKeys(wrapped) {
    this.#enqueue(async (keys) => {
      const { from, epoch, ciphertext } = wrapped;
      if (!keys.has(from)) {
        // Of somebody who cannot be trusted, which was told; or of one whom a later page of the list will name.
        if (!this.#known.has(from) && this.#early.size < EARLY_MAX) this.#early.set(from, wrapped);
        return;
      }
      const opened = await keys.unwrap(from, epoch, ciphertext);
      const kids = [...(this.#kids.get(from) ?? []), opened.kid];
      for (const kid of kids.splice(0, kids.length - KIDS_KEPT)) this.#worker.postMessage({ type: "forget", owner: from, kid });
      this.#kids.set(from, kids);
      this.#worker.postMessage({ type: "open", ...opened });
    });
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#lead);
    this.#worker.terminate();
  }

  /**
   * Whether somebody who was not known before can have keys now.
   * @param {RoomKeys} keys @param {string} id @param {NonNullable<RemoteParticipant["e2ee"]>} e2ee
   */
  async #takeIn(keys, id, e2ee) {
    const shown = JSON.stringify(e2ee);
    const before = this.#known.get(id);
    if (before === shown) return false;
    this.#known.set(id, shown);
    try {
      // Who joins again is another Participant: what one has announced never changes.
      if (before !== undefined) throw new OffhookError("bad_signature", "a Participant announced another key");
      await keys.add(id, { key: e2ee.key, signature: e2ee.signature }, e2ee.device_key);
      this.#options.onDevice(id, e2ee.device_key);
      const early = this.#early.get(id);
      this.#early.delete(id);
      if (early) this.handleKeys(early);
      return true;
    } catch (error) {
      // They get no key of ours, and theirs open nothing here.
      this.#drop(keys, id);
      this.#options.onDevice(id, null);
      this.#options.onError(OffhookError.from(error, "bad_signature"));
      return false;
    }
  }

  /** Another key from now on; while the one before is still on its way, from then on. @param {RoomKeys} keys */
  async #renew(keys) {
    this.#isStale = true;
    if (this.#lead !== undefined) return;
    try {
      keys.rotate();
    } catch {
      return this.#options.onSpent();
    }
    await this.#share(keys);
  }

  /** Hands our key to all, and seals with it once they have it. @param {RoomKeys} keys */
  async #share(keys) {
    this.#isStale = false;
    this.#isSilent = !this.#options.maySend();
    if (this.#isSilent) return;
    const own = await keys.own();
    const { epoch, keys: wrapped } = await keys.wrapped();
    if (wrapped.length) await this.#say("room.keys", { epoch, keys: wrapped });
    if (this.#closed) return;
    this.#lead = setTimeout(() => {
      this.#lead = undefined;
      if (epoch > 0) this.#worker.postMessage({ type: "seal", ...own });
      if (this.#isStale) this.#enqueue((current) => this.#renew(current));
    }, KEY_LEAD_MS);
  }

  /** @param {RoomKeys} keys @param {string} id */
  #forget(keys, id) {
    this.#drop(keys, id);
    this.#known.delete(id);
  }

  /** @param {RoomKeys} keys @param {string} id */
  #drop(keys, id) {
    keys.remove(id);
    for (const kid of this.#kids.get(id) ?? []) this.#worker.postMessage({ type: "forget", owner: id, kid });
    this.#kids.delete(id);
  }

  /** @param {RoomKeys} keys */
  async #spell(keys) {
    const turn = this.#spelling;
    const { device, onError } = this.#options;
    try {
      const code = await keys.code(device.key, /** @type {Announcement} */ (this.#announcement));
      if (turn === this.#spelling) this.#tellCode(code);
    } catch (error) {
      onError(OffhookError.from(error, "internal"));
    }
  }

  /** @param {string[]|null} code */
  #tellCode(code) {
    if (this.#closed) return;
    this.#spelling++;
    this.code = code;
    this.#options.onCode();
  }

  /** Says it until it is taken: without it, somebody who left would go on reading. @param {string} type @param {Record<string, any>} data */
  async #say(type, data) {
    while (!this.#closed) {
      try {
        return await this.#options.command(type, data);
      } catch (error) {
        if (HOPELESS.has(OffhookError.from(error, "internal").code)) throw error;
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  }

  /** @param {(keys: RoomKeys) => Promise<void>} step */
  #enqueue(step) {
    this.#queue = this.#queue.then(() => this.#run(async () => {
      // Without keys of our own there is nothing to hand out, and that was told.
      if (this.#keys) await step(this.#keys);
    }));
  }

  /** @param {() => Promise<void>} step */
  async #run(step) {
    if (this.#closed) return;
    try {
      await step();
    } catch (error) {
      if (!this.#closed) this.#options.onError(OffhookError.from(error, "internal"));
    }
  }
}
