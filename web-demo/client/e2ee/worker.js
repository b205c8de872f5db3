// The worker of an encrypted Room: frames come in from the encoder or from the network, and leave sealed or opened.
//
//   page → worker   {type: "seal", kid, baseKey}     our own key from now on
//                   {type: "open", kid, baseKey}     a key of another Participant
//                   {type: "forget", kid}
//   worker → page   {type: "dropped", reason, kid}   at most once a second for each reason and key

import { Opener, Sealer } from "./frames.js";
import { deriveFrameKey } from "./sframe.js";

const REPORT_EVERY_MS = 1_000;
/** How many reasons and keys are told apart; more than that are told together. */
const REPORTS_MAX = 256;

const sealer = new Sealer();
const opener = new Opener();
/** @type {Map<string, number>} when it was told last */
const reported = new Map();

/** Keys are taken in the order they came in, whatever deriving them takes. @type {Promise<void>} */
let keys = Promise.resolve();

self.addEventListener("message", ({ data }) => {
  keys = keys.then(async () => {
    if (data.type === "seal") sealer.setKey(await deriveFrameKey(data.kid, data.baseKey, "encrypt"));
    if (data.type === "open") opener.setKey(await deriveFrameKey(data.kid, data.baseKey, "decrypt"));
    if (data.type === "forget") opener.forget(data.kid);
  });
});

self.addEventListener("rtctransform", (event) => {
  const { transformer } = /** @type {any} */ (event);
  const { direction, kind } = transformer.options;
  const transform = direction === "send" ? sealed(kind) : opened(kind);
  transformer.readable.pipeThrough(new TransformStream({ transform })).pipeTo(transformer.writable).catch(() => {
    // The transceiver has stopped, and its streams with it.
  });
});

/** @param {"audio"|"video"} kind */
const sealed = (kind) => async (/** @type {any} */ frame, /** @type {TransformStreamDefaultController} */ controller) => {
  pass(frame, await sealer.seal(kind, new Uint8Array(frame.data)), controller);
};

/** @param {"audio"|"video"} kind */
const opened = (kind) => async (/** @type {any} */ frame, /** @type {TransformStreamDefaultController} */ controller) => {
  pass(frame, await opener.open(kind, new Uint8Array(frame.data)), controller);
};

/**
 * @param {any} frame @param {{frame: Uint8Array<ArrayBuffer>}|{dropped: string, kid?: number}} result
 * @param {TransformStreamDefaultController} controller
 */
function pass(frame, result, controller) {
  if ("dropped" in result) return report(result.dropped, result.kid ?? null);
  frame.data = result.frame.buffer;
  controller.enqueue(frame);
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
