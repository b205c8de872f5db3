// This Device: an id and a key that outlive the page, and the keys other Devices have shown before.

import { sign, toBase64url } from "./code.js";
import { OffhookError } from "./errors.js";
import { ulid } from "./ulid.js";

/** Pages of one origin that can be open at once, each as a Device of its own. */
const SLOTS_MAX = 16;
/** A reloaded page waits this long for its former self to let go of its slot. */
const SLOT_WAIT_MS = 400;
const SLOT_KEY = "offhook-device";

/**
 * @typedef {object} Device
 * @property {string} id
 * @property {string} key the public key: 65 bytes, base64url
 * @property {(text: string) => Promise<string>} sign
 * @property {(peer: string, key: string) => Promise<"new"|"known"|"changed">} recognise compares `key` with the one `peer`
 *   showed before and remembers it
 * @property {() => void} release lets another page be this Device; nothing else is asked of it afterwards
 */

/**
 * Finds or makes this page's Device. The private key cannot be exported. Where storage is blocked everything stays
 * in memory, and the Device is a new one after each reload.
 * @returns {Promise<Device>}
 */
export async function openDevice() {
  if (!globalThis.crypto?.subtle) {
    throw new OffhookError("insecure_context", "calls need a secure page: https, or localhost");
  }
  const { slot, release: releaseSlot } = await claimSlot();
  const store = new Store();
  const release = () => {
    store.close();
    releaseSlot();
  };
  try {
    let record = await store.get("devices", slot);
    if (!record) {
      const ecdsa = { name: "ECDSA", namedCurve: "P-256" };
      record = { id: ulid(), keys: await crypto.subtle.generateKey(ecdsa, false, ["sign", "verify"]) };
      await store.put("devices", slot, record);
    }
    const { id, keys } = record;
    const key = toBase64url(await crypto.subtle.exportKey("raw", keys.publicKey));

    return {
      id,
      key,
      release,
      sign: (text) => sign(keys.privateKey, text),
      async recognise(peer, shown) {
        const before = await store.get("peers", peer);
        if (before !== shown) await store.put("peers", peer, shown);
        if (!before) return "new";
        return before === shown ? "known" : "changed";
      },
    };
  } catch (error) {
    release();
    throw error;
  }
}

/**
 * Two pages open at once must not be the same Device: each takes a slot under a lock that ends with the page.
 * A reloaded page gets its own slot back.
 * @returns {Promise<{slot: number, release: () => void}>}
 */
async function claimSlot() {
  const locks = globalThis.navigator?.locks;
  if (!locks) return { slot: 0, release() {} };

  const before = slotBefore();
  if (before !== null) {
    const release = await lock(locks, before, { signal: AbortSignal.timeout(SLOT_WAIT_MS) });
    if (release) return { slot: before, release };
  }
  for (let slot = 0; slot < SLOTS_MAX; slot++) {
    const release = await lock(locks, slot, { ifAvailable: true });
    if (release) {
      rememberSlot(slot);
      return { slot, release };
    }
  }
  throw new OffhookError("too_many_sessions", `more than ${SLOTS_MAX} pages are connected`);
}

/**
 * @param {LockManager} locks
 * @param {number} slot
 * @param {LockOptions} options
 * @returns {Promise<(() => void)|null>} what releases the lock, or null when another page holds it
 */
function lock(locks, slot, options) {
  return new Promise((resolve) => {
    const held = locks.request(`${SLOT_KEY}-${slot}`, options, (granted) => {
      if (!granted) return resolve(null);
      return /** @type {Promise<void>} */ (new Promise((release) => resolve(() => release())));
    });
    held.catch(() => resolve(null));
  });
}

/** Session storage is kept per tab and over reloads; it throws where storage is blocked. */
function slotBefore() {
  try {
    const text = sessionStorage.getItem(SLOT_KEY);
    return text === null ? null : Number(text);
  } catch {
    return null;
  }
}

/** @param {number} slot */
function rememberSlot(slot) {
  try {
    sessionStorage.setItem(SLOT_KEY, String(slot));
  } catch {
    // Then the next load takes any free slot.
  }
}

/** IndexedDB, the one place that keeps a CryptoKey without exporting it; memory where it is blocked. */
class Store {
  /** @type {Map<string, any>} */
  #memory = new Map();
  /** @type {Promise<IDBDatabase|null>} */
  #database = openDatabase().catch(() => null);

  close() {
    this.#database.then((database) => database?.close());
  }

  /** @param {"devices"|"peers"} store @param {IDBValidKey} key @returns {Promise<any>} */
  async get(store, key) {
    const database = await this.#database;
    const kept = this.#memory.get(`${store}/${key}`);
    if (kept || !database) return kept;
    return outcome(database.transaction(store).objectStore(store).get(key)).catch(() => undefined);
  }

  /** @param {"devices"|"peers"} store @param {IDBValidKey} key @param {any} value */
  async put(store, key, value) {
    this.#memory.set(`${store}/${key}`, value);
    const database = await this.#database;
    if (!database) return;
    try {
      await outcome(database.transaction(store, "readwrite").objectStore(store).put(value, key));
    } catch {
      // Private windows may refuse a CryptoKey; memory has it.
    }
  }
}

/** @returns {Promise<IDBDatabase>} */
async function openDatabase() {
  const request = indexedDB.open("offhook", 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("devices");
    request.result.createObjectStore("peers");
  };
  return outcome(request);
}

/** @template Result @param {IDBRequest<Result>} request @returns {Promise<Result>} */
function outcome(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
