/**
 * Cameras, microphones and screens: opening them, choosing between them, and finding out why one did not open.
 */

import { recall, remember } from "./storage.js";

/** @typedef {"audioinput" | "videoinput" | "audiooutput"} DeviceKind */
/** @typedef {"microphone" | "camera" | "screen"} Source */

/** Why a device did not open; `code` is a key of the words in messages.js. */
export class MediaProblem extends Error {
  /** @param {string} code */
  constructor(code) {
    super(code);
    this.name = "MediaProblem";
    this.code = code;
  }
}

/** @returns {"insecure" | "unsupported" | null} why this page can never have a camera or microphone */
export function obstacle() {
  if (!window.isSecureContext) return "insecure";
  return typeof navigator.mediaDevices?.getUserMedia === "function" && "RTCPeerConnection" in window
    ? null
    : "unsupported";
}

/** @returns {boolean} */
export function canShareScreen() {
  return typeof navigator.mediaDevices?.getDisplayMedia === "function";
}

/**
 * Opens what a Call needs. A missing camera does not keep anybody from talking: the stream then has sound only, and
 * `problems` says what is missing. Without a microphone it throws, for that should be the person's decision.
 *
 * @param {{ video: boolean }} wanted
 * @returns {Promise<{ stream: MediaStream, problems: MediaProblem[] }>}
 */
export async function openMedia({ video }) {
  ensurePossible();
  try {
    const both = { audio: constraintsOf("audioinput"), video: video && constraintsOf("videoinput") };
    return { stream: await navigator.mediaDevices.getUserMedia(both), problems: [] };
  } catch (error) {
    if (!video) throw problemOf(error, "microphone");
  }
  // The error does not tell which of the two it was about, so each is asked alone.
  const stream = new MediaStream([await openMicrophone()]);
  try {
    stream.addTrack(await openCamera());
    return { stream, problems: [] };
  } catch (problem) {
    return { stream, problems: [/** @type {MediaProblem} */ (problem)] };
  }
}

/** @returns {Promise<MediaStreamTrack>} */
export async function openMicrophone() {
  return open("microphone", { audio: constraintsOf("audioinput") });
}

/** @returns {Promise<MediaStreamTrack>} */
export async function openCamera() {
  return open("camera", { video: constraintsOf("videoinput") });
}

/** @returns {Promise<MediaStreamTrack | null>} `null` when the person closed the browser's dialog */
export async function openScreen() {
  const stream = await openDisplay({ sound: false });
  return stream?.getVideoTracks()[0] ?? null;
}

/**
 * A screen, a window or a tab, with what it sounds like where that is asked for and the browser can.
 *
 * @param {{ sound: boolean }} wanted
 * @returns {Promise<MediaStream | null>} `null` when the person closed the browser's dialog
 */
export async function openDisplay({ sound }) {
  if (!canShareScreen()) throw new MediaProblem("no-screen");
  // Music and films are not to be taken for noise.
  const audio = sound && { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  try {
    const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { max: 30 } }, audio });
    const [track] = stream.getVideoTracks();
    // Text has to stay readable: rather fewer pictures than blurred ones.
    track.contentHint = "detail";
    return stream;
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotAllowedError") return null;
    throw new MediaProblem("failed-screen");
  }
}

/** @returns {Promise<Record<DeviceKind, MediaDeviceInfo[]>>} */
export async function listDevices() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const kind = (/** @type {DeviceKind} */ name) => devices.filter((device) => device.kind === name);
  return { audioinput: kind("audioinput"), videoinput: kind("videoinput"), audiooutput: kind("audiooutput") };
}

/**
 * @param {DeviceKind} kind
 * @returns {string} empty for the browser's default
 */
export function chosenDevice(kind) {
  return recall(`device.${kind}`) ?? "";
}

/**
 * @param {DeviceKind} kind
 * @param {string} id
 */
export function chooseDevice(kind, id) {
  remember(`device.${kind}`, id || null);
}

/**
 * Has a media element play on the chosen loudspeaker, where the browser can.
 *
 * @param {HTMLMediaElement} element
 */
export async function applySpeaker(element) {
  const sink = /** @type {HTMLMediaElement & { setSinkId?: (id: string) => Promise<void>, sinkId?: string }} */ (
    element
  );
  const id = chosenDevice("audiooutput");
  if (!sink.setSinkId || sink.sinkId === id) return;
  // A loudspeaker that is gone leaves the sound on the default one.
  await sink.setSinkId(id).catch(() => {});
}

/**
 * Measures how loud a stream is.
 *
 * @param {MediaStream} stream
 * @param {(level: number) => void} tell gets 0 to 1, about twenty times a second
 * @returns {() => void} stops it
 */
export function meter(stream, tell) {
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 512 });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    // From -60 dBFS (a quiet room) to -10 (loud speech).
    const decibels = 10 * Math.log10(power + 1e-9);
    tell(Math.min(1, Math.max(0, (decibels + 60) / 50)));
  }, 50);
  return () => {
    clearInterval(timer);
    void context.close();
  };
}

/**
 * @param {Source} source
 * @param {MediaStreamConstraints} constraints
 */
async function open(source, constraints) {
  ensurePossible();
  try {
    const stream = await navigator.mediaDevices.getUserMedia(constraints);
    return stream.getTracks()[0];
  } catch (error) {
    throw problemOf(error, source);
  }
}

function ensurePossible() {
  const code = obstacle();
  if (code) throw new MediaProblem(code);
}

/** @param {"audioinput" | "videoinput"} kind */
function constraintsOf(kind) {
  const id = chosenDevice(kind);
  // `ideal`: a camera that was unplugged since yesterday must not keep the call from starting.
  const device = id ? { deviceId: { ideal: id } } : {};
  if (kind === "audioinput")
    return { ...device, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  return { ...device, width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
}

/**
 * @param {unknown} error
 * @param {Source} source
 * @returns {MediaProblem}
 */
function problemOf(error, source) {
  if (error instanceof MediaProblem) return error;
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotFoundError" || name === "OverconstrainedError") return new MediaProblem(`no-${source}`);
  if (name === "NotAllowedError" || name === "SecurityError") return new MediaProblem(`denied-${source}`);
  if (name === "NotReadableError" || name === "AbortError") return new MediaProblem(`in-use-${source}`);
  return new MediaProblem(`failed-${source}`);
}
