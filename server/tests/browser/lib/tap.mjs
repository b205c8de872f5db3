// Listening in on a Room from where its server stands: what a Participant without a key is sent is what the server has once it
// has opened SRTP, since its payloads are passed on as they came. And what leaves a browser's encoder, to compare with.

/** The page asks for these instead of files of the server. */
const WORKER = '/client/e2ee/worker.js';
const RECORDER = '/recorder.js';

/** In front of the worker that seals: keeps what is about to be sealed, behind the part that stays readable. */
const KEEP_PLAIN = `
  const encrypt = crypto.subtle.encrypt.bind(crypto.subtle);
  crypto.subtle.encrypt = (parameters, key, data) => {
    self.postMessage({ recorded: data.slice(0) });
    return encrypt(parameters, key, data);
  };
`;

/** A worker that hands on every encoded frame, and keeps it. */
const KEEP_FRAMES = `
  self.addEventListener('rtctransform', ({ transformer }) => {
    const { kind } = transformer.options;
    const transform = (frame, controller) => {
      self.postMessage({ recorded: frame.data.slice(0), kind });
      controller.enqueue(frame);
    };
    transformer.readable.pipeThrough(new TransformStream({ transform })).pipeTo(transformer.writable).catch(() => {});
  });
`;

/** Has a page of Chromium keep what leaves its encoders, before anything is sealed. To be called before it joins. */
export async function keepPlain({ page }) {
  await page.route(`**${WORKER}`, async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: KEEP_PLAIN + (await response.text()) });
  });
  await serveRecorder(page);
  await page.evaluate(recordEnds, { end: 'sender', recorder: RECORDER });
}

/** Makes a page of Chromium a tap: no frame is opened there, all are kept. To be called before it joins. */
export async function tap({ page }) {
  await serveRecorder(page);
  await page.evaluate(recordEnds, { end: 'receiver', recorder: RECORDER });
}

/** What was kept since it was asked for last: `{ kind, bytes }` for each frame; what a worker was about to seal has no `kind`. */
export async function recorded({ page }) {
  const frames = await page.evaluate(takeRecorded);
  return frames.map(({ kind, text }) => ({ kind, bytes: Buffer.from(text, 'base64') }));
}

/** Has a page in either browser keep the keys it opens the frames of others with. To be called before it joins. */
export async function keepKeys({ page }) {
  await page.evaluate(() => {
    globalThis.keptKeys = [];
    const { postMessage } = Worker.prototype;
    Worker.prototype.postMessage = function (message, ...options) {
      if (message.type === 'open') globalThis.keptKeys.push({ kid: message.kid, baseKey: [...message.baseKey] });
      return postMessage.call(this, message, ...options);
    };
  });
}

/** Those keys, oldest first: `{ kid, baseKey }`. */
export async function keptKeys({ page }) {
  const keys = await page.evaluate(() => globalThis.keptKeys);
  return keys.map(({ kid, baseKey }) => ({ kid, baseKey: Uint8Array.from(baseKey) }));
}

/** Has a page in either browser keep why frames were not shown. To be called before it joins. */
export async function keepDrops({ page }) {
  await page.evaluate(() => {
    globalThis.keptDrops = [];
    const OriginalWorker = globalThis.Worker;
    globalThis.Worker = class Worker extends OriginalWorker {
      constructor(...options) {
        super(...options);
        this.addEventListener('message', ({ data }) => data.type === 'dropped' && globalThis.keptDrops.push(data.reason));
      }
    };
  });
}

/** Those reasons, each once. */
export async function keptDrops({ page }) {
  return page.evaluate(() => [...new Set(globalThis.keptDrops)]);
}

/** Has a page take every key of others with one bit changed. To be called before it joins. */
export async function spoilKeys({ page }) {
  await page.evaluate(() => {
    const { postMessage } = Worker.prototype;
    Worker.prototype.postMessage = function (message, ...options) {
      if (message.type === 'open') message.baseKey[0] ^= 1;
      return postMessage.call(this, message, ...options);
    };
  });
}

async function serveRecorder(page) {
  await page.route(`**${RECORDER}`, (route) => route.fulfill({ contentType: 'text/javascript', body: KEEP_FRAMES }));
}

// What runs inside the page.

/**
 * Keeps what goes through the `sender` or `receiver` of each transceiver the client makes. Where the client sets a transform of its
 * own for it, a tap takes its place; a sender's own worker keeps what it is given by itself.
 */
function recordEnds({ end, recorder }) {
  globalThis.recordedFrames = [];
  const keep = ({ data }) => data.recorded && globalThis.recordedFrames.push({ kind: data.kind, bytes: new Uint8Array(data.recorded) });
  const worker = new Worker(recorder);
  worker.addEventListener('message', keep);

  const OriginalWorker = globalThis.Worker;
  globalThis.Worker = class Worker extends OriginalWorker {
    constructor(...options) {
      super(...options);
      this.addEventListener('message', keep);
    }
  };
  const Transform = globalThis.RTCRtpScriptTransform;
  if (end === 'receiver') {
    globalThis.RTCRtpScriptTransform = class {
      constructor(_, options) {
        return new Transform(worker, options);
      }
    };
  }
  const { addTransceiver } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.addTransceiver = function (kind, ...options) {
    const transceiver = addTransceiver.call(this, kind, ...options);
    // By then the client has set its own, if it does at all; nothing was offered yet.
    queueMicrotask(() => (transceiver[end].transform ??= new Transform(worker, { kind })));
    return transceiver;
  };
}

function takeRecorded() {
  return globalThis.recordedFrames.splice(0).map(({ kind, bytes }) => {
    let text = '';
    for (const byte of bytes) text += String.fromCharCode(byte);
    return { kind, text: btoa(text) };
  });
}
