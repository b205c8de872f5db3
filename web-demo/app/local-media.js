/**
 * What this page sends into each Call: microphone, camera, screen. It opens them, swaps them, and closes them when no
 * Call uses them any more.
 */

import { announce, toast } from "./announce.js";
import { attempt } from "./attempt.js";
import { MediaProblem, openCamera, openMedia, openMicrophone, openScreen } from "./devices.js";
import { mediaWords } from "./messages.js";
import { store } from "./state.js";
import { askAboutMedia } from "./views/problem.js";

/** @typedef {import("./state.js").Call} Call */

/**
 * What this page sends into a Call.
 *
 * @typedef {object} LocalMedia
 * @property {MediaStream} stream microphone and camera, what the small picture shows
 * @property {MediaStreamTrack | null} camera
 * @property {MediaStreamTrack | null} screen
 */

/** How long a Call that continues another may take to arrive. */
const HANDOVER_MS = 5000;

/** @type {WeakMap<Call, LocalMedia>} */
const mediaByCall = new WeakMap();
/** Calls whose microphone was unplugged, with no other one to take its place. @type {Set<Call>} */
const silenced = new Set();

navigator.mediaDevices?.addEventListener("devicechange", () => void regainMicrophones());

/**
 * @param {Call} call
 * @returns {LocalMedia | null}
 */
export function localMedia(call) {
  return mediaByCall.get(call) ?? null;
}

/**
 * Opens what a Call needs and talks about what is missing.
 *
 * @param {boolean} video
 * @returns {Promise<MediaStream | null>} `null` when the person would rather not
 */
export async function mediaFor(video) {
  for (;;) {
    try {
      const { stream, problems } = await openMedia({ video });
      for (const problem of problems) {
        const words = mediaWords(problem.code);
        toast(words.title, `${words.detail} The call goes on with sound only.`, { tone: "warning" });
      }
      return stream;
    } catch (error) {
      const answer = await askAboutMedia(error instanceof MediaProblem ? error.code : "failed-microphone");
      if (answer === "without") return new MediaStream();
      if (answer !== "again") return null;
    }
  }
}

/**
 * @param {Call} call
 * @param {MediaStream} stream
 */
export function attach(call, stream) {
  const [camera = null] = stream.getVideoTracks();
  const watched = mediaByCall.get(call)?.stream.getTracks() ?? [];
  mediaByCall.set(call, { stream, camera, screen: null });
  for (const track of stream.getTracks()) if (!watched.includes(track)) watchTrack(call, track);
}

/**
 * Takes over what the client has moved into a Call that continues another one, or that both sides began at once. The
 * tracks may come later than the Call, one by one.
 *
 * @param {Call} call
 */
export function takeOverTracks(call) {
  const known = mediaByCall.get(call)?.stream.getTracks() ?? [];
  const moved = call.localStream?.getTracks() ?? [];
  const added = moved.filter((track) => !known.some(({ kind }) => kind === track.kind));
  if (added.length > 0) attach(call, new MediaStream([...known, ...added]));
}

/**
 * Closes the devices that no other Call uses.
 *
 * @param {Call} call one that ended
 * @param {boolean} continued whether a meeting, or a Call that may still be on its way goes on with the same tracks
 */
export function release(call, continued) {
  const media = mediaByCall.get(call);
  if (!media) return;
  // A meeting goes on with the screen, too; another Call does not.
  if (!call.end?.room) media.screen?.stop();
  if (continued) setTimeout(() => stopUnused(media), HANDOVER_MS);
  else stopUnused(media);
}

/** What a meeting sends, which may be what a Call has sent. */
function meetingTracks() {
  const { microphone, camera, screen } = store.state.meeting?.own ?? {};
  return [microphone, camera, ...(screen?.getTracks() ?? [])];
}

/** @param {LocalMedia} media */
function stopUnused(media) {
  const inCalls = store.state.calls.flatMap((other) => mediaByCall.get(other)?.stream.getTracks() ?? []);
  const inUse = new Set([...inCalls, ...meetingTracks()]);
  for (const track of [...media.stream.getTracks(), media.screen]) if (!inUse.has(track)) track?.stop();
}

/** @param {Call} call */
export function toggleMute(call) {
  const media = mediaByCall.get(call);
  if (!media) return;
  if (media.stream.getAudioTracks().length === 0) {
    call.mute(false);
    void attempt(async () => replaceMicrophone(call, await openMicrophone()));
    return;
  }
  call.mute(!call.muted);
  announce(call.muted ? "Microphone off" : "Microphone on");
  store.touch();
}

/** @param {Call} call switches the camera off for good, so that its light goes out, or on */
export async function toggleCamera(call) {
  const media = mediaByCall.get(call);
  if (!media) return;
  await attempt(async () => {
    if (media.camera) {
      await replaceCamera(call, null);
      announce("Camera off");
    } else {
      await replaceCamera(call, await openCamera());
      announce("Camera on");
    }
  });
}

/** @param {Call} call */
export async function toggleScreen(call) {
  const media = mediaByCall.get(call);
  if (!media) return;
  await attempt(async () => {
    if (media.screen) {
      await stopScreen(call);
      return;
    }
    const track = await openScreen();
    if (!track) return;
    media.screen = track;
    // The browser has a "stop sharing" of its own.
    track.addEventListener("ended", () => void attempt(() => stopScreen(call)));
    await call.setTrack("screen", track);
    announce("You share your screen");
    store.touch();
  });
}

/**
 * Uses newly chosen devices in every Call in progress.
 *
 * @param {"audioinput" | "videoinput"} kind
 */
export async function useChosenDevice(kind) {
  for (const call of store.state.calls) {
    const media = mediaByCall.get(call);
    if (!media) continue;
    if (kind === "audioinput") await attempt(async () => replaceMicrophone(call, await openMicrophone()));
    else if (media.camera) await attempt(async () => replaceCamera(call, await openCamera()));
  }
}

/**
 * @param {Call} call
 * @param {MediaStreamTrack | null} track
 */
async function replaceMicrophone(call, track) {
  const media = mediaByCall.get(call);
  if (!media) return track?.stop();
  swap(media, media.stream.getAudioTracks(), track);
  if (track) watchTrack(call, track);
  await call.setTrack("audio", track);
  store.touch();
}

/**
 * @param {Call} call
 * @param {MediaStreamTrack | null} track
 */
async function replaceCamera(call, track) {
  const media = mediaByCall.get(call);
  if (!media) return track?.stop();
  swap(media, media.camera ? [media.camera] : [], track);
  media.camera = track;
  if (track) watchTrack(call, track);
  await call.setTrack("video", track);
  store.touch();
}

/** @param {Call} call */
async function stopScreen(call) {
  const media = mediaByCall.get(call);
  if (!media?.screen) return;
  media.screen.stop();
  media.screen = null;
  if (call.phase !== "ended") await call.setTrack("screen", null);
  announce("You no longer share your screen");
  store.touch();
}

/**
 * @param {LocalMedia} media
 * @param {MediaStreamTrack[]} old
 * @param {MediaStreamTrack | null} track
 */
function swap(media, old, track) {
  for (const gone of old) {
    media.stream.removeTrack(gone);
    gone.stop();
  }
  if (track) media.stream.addTrack(track);
}

/**
 * Notices a device that is unplugged in mid-call, and goes on with the browser's default one.
 *
 * @param {Call} call
 * @param {MediaStreamTrack} track
 */
function watchTrack(call, track) {
  track.addEventListener("ended", () => {
    const media = mediaByCall.get(call);
    if (!media?.stream.getTracks().includes(track) || call.phase === "ended") return;
    if (track.kind === "video") {
      toast("The camera is gone", "It was unplugged or switched off. The call goes on with sound.", {
        tone: "warning",
      });
      void attempt(() => replaceCamera(call, null));
    } else {
      silenced.add(call);
      void regainMicrophones();
    }
  });
}

/** Uses another microphone where one was unplugged; where there is none, the next one that is plugged in. */
async function regainMicrophones() {
  for (const call of silenced) {
    if (call.phase === "ended") {
      silenced.delete(call);
      continue;
    }
    try {
      await replaceMicrophone(call, await openMicrophone());
      silenced.delete(call);
      toast("Another microphone", "The one you spoke into was unplugged; another one has taken over.", { key: "microphone" });
    } catch {
      if (mediaByCall.get(call)?.stream.getAudioTracks().length) await replaceMicrophone(call, null);
      toast("The microphone is gone", "Nobody hears you until you connect one.", {
        tone: "warning",
        key: "microphone",
        stays: true,
      });
    }
  }
}

/** @param {MediaStream | null} stream one that no Call came to use */
export function stopTracks(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
