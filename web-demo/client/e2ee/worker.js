// The worker of an encrypted Room: frames come in from the encoder or from the network, and leave sealed or opened.
//
//   page → worker   {type: "seal", kid, baseKey}           our own key from now on
//                   {type: "open", owner, kid, baseKey}    a key of another Participant
//                   {type: "forget", owner, kid}
//                   {type: "expect", slot, owner}          whose frames the page shows in a slot; null: anybody's
//   worker → page   {type: "dropped", reason, kid}         at most once a second for each reason and key

import { Opener, Sealer, Slot } from "./frames.js";
import { deriveFrameKey } from "./sframe.js";

const REPORT_EVERY_MS = 1_000;
/** How many reasons and keys are told apart; more than that are told together. */
const REPORTS_MAX = 256;

const sealer = new Sealer();
const opener = new Opener();
/** @type {Map<number, Slot>} */
const slots = new Map();
/** @type {Map<string, number>} when it was told last */
const reported = new Map();

/** Keys are taken in the order they came in, whatever deriving them takes. @type {Promise<void>} */
let keys = Promise.resolve();

self.addEventListener("message", ({ data }) => {
  if (data.type === "expect") return slotOf(data.slot).setOwner(data.owner);
  keys = keys.then(async () => {
    const { type, owner, kid, baseKey } = data;
    if (type === "seal") sealer.setKey(await deriveFrameKey(kid, baseKey, "encrypt"));
    if (type === "open") opener.setKey(owner, await deriveFrameKey(kid, baseKey, "decrypt"));
    if (type === "forget") opener.forget(owner, kid);
  });
});

self.addEventListener("rtctransform", (event) => {
  const { transformer } = /** @type {any} */ (event);
  const { direction, kind, slot } = transformer.options;
  const transform = direction === "send" ? sealed(kind) : opened(kind, slotOf(slot), transformer);
  transformer.readable.pipeThrough(new TransformStream({ transform })).pipeTo(transformer.writable).catch(() => {
    // The transceiver has stopped, and its streams with it.
  });
});

/** @param {"audio"|"video"} kind */
const sealed = (kind) => async (/** @type {any} */ frame, /** @type {TransformStreamDefaultController} */ controller) => {
  pass(frame, await sealer.seal(kind, new Uint8Array(frame.data)), controller);
};

/** @param {"audio"|"video"} kind @param {Slot} slot @param {any} transformer */
function opened(kind, slot, transformer) {
  /** Whether frames came before their key, perhaps the one that all others build on. */
  let isBlind = false;
  return async (/** @type {any} */ frame, /** @type {TransformStreamDefaultController} */ controller) => {
    const result = await opener.open(kind, new Uint8Array(frame.data), slot, performance.now());
    if ("dropped" in result) isBlind ||= result.dropped === "no_key";
    else if (isBlind) {
      isBlind = false;
      // Where a browser cannot be asked to, it finds out by itself that it cannot go on.
      if (kind === "video" && frame.type !== "key") transformer.sendKeyFrameRequest?.().catch(() => {});
    }
    pass(frame, result, controller);
  };
}

/**
 * @param {any} frame @param {{frame: Uint8Array<ArrayBuffer>}|{dropped: string, kid?: number}} result
 * @param {TransformStreamDefaultController} controller
 */
function pass(frame, result, controller) {
  if ("dropped" in result) return report(result.dropped, result.kid ?? null);
  frame.data = result.frame.buffer;
  controller.enqueue(frame);
}

/** @param {number} slot */
function slotOf(slot) {
  const known = slots.get(slot) ?? new Slot();
  slots.set(slot, known);
  return known;
}

/** @param {string} reason @param {number|null} kid */
function report(reason, kid) {
  const name = `${reason} ${kid}`;
  const now = performance.now();
  if (now - (reported.get(name) ?? -Infinity) < REPORT_EVERY_MS) return;
  if (reported.size >= REPORTS_MAX) reported.clear();
  reported.set(name, now);
  self.postMessage({ type: "dropped", reason, kid });
}
