/**
 * What this page has open for a meeting: camera, microphone, screen. From the device check on, and until it is over.
 */

import { announce, dismissToast, toast } from "../announce.js";
import { attempt } from "../attempt.js";
import { MediaProblem, meter, openCamera, openDisplay, openMicrophone } from "../devices.js";
import { mediaWords } from "../messages.js";
import { recall, remember } from "../storage.js";

/** @typedef {import("../../client/index.js").Room} Room */
/** @typedef {import("../../client/index.js").Source} Source */
/** @typedef {"camera" | "microphone"} Device */

/** Speech, and for how long it takes to be no cough: in turns of the meter, twenty a second. */
const SPEECH_LEVEL = 0.6;
const SPEECH_TURNS = 12;

export class OwnMedia {
  /** @type {MediaStreamTrack | null} */
  camera = null;
  /** @type {MediaStreamTrack | null} open while muted, too, so that speaking starts at once */
  microphone = null;
  /** @type {MediaStream | null} */
  screen = null;
  /** Whether people hear what the microphone hears. */
  isMicrophoneOn = recall("meeting.microphone") !== "off";
  /** Whether the camera should be on; it may not have started. */
  isCameraWanted = recall("meeting.camera") !== "off";
  /** Why a device did not open: codes of a `MediaProblem`. @type {Partial<Record<Device, string>>} */
  problems = {};

  /** @type {Room | null} */
  #room = null;
  #changed;
  #closed = false;
  #stopListening = () => {};

  /** @param {() => void} changed */
  constructor(changed) {
    this.#changed = changed;
    navigator.mediaDevices?.addEventListener("devicechange", this.#devicesChanged);
  }

  /** Opens what was on the last time. */
  async start() {
    await Promise.all([this.#open("microphone"), this.isCameraWanted && this.#open("camera")]);
  }

  /**
   * Goes on with what a Call had open.
   *
   * @param {{ microphone: MediaStreamTrack | null, camera: MediaStreamTrack | null, screen: MediaStreamTrack | null, isMuted: boolean }} open
   */
  takeOver({ microphone, camera, screen, isMuted }) {
    this.microphone = microphone;
    this.camera = camera;
    this.isMicrophoneOn = microphone !== null && !isMuted;
    this.isCameraWanted = camera !== null;
    if (microphone) this.#watch("microphone", microphone);
    if (camera) this.#watch("camera", camera);
    if (screen) this.#watchScreen(new MediaStream([screen]));
    this.#changed();
  }

  /** Lets go of everything without closing it: a Call goes on with it. */
  handOver() {
    this.#room = null;
    this.#stopListening();
    this.microphone = this.camera = this.screen = null;
    this.close();
  }

  /** What goes into a Room from its first moment. */
  get tracks() {
    return { audio: this.isMicrophoneOn ? this.microphone : null, video: this.camera };
  }

  /** @param {Room} room from now on changes go there */
  use(room) {
    this.#room = room;
    this.#listenWhileMuted();
  }

  async toggleMicrophone() {
    if (!this.microphone) {
      await this.#open("microphone");
      if (!this.microphone) return this.#explain("microphone");
      this.isMicrophoneOn = true;
    } else {
      this.isMicrophoneOn = !this.isMicrophoneOn;
    }
    remember("meeting.microphone", this.isMicrophoneOn ? null : "off");
    this.#changed();
    this.#listenWhileMuted();
    await this.#sendMicrophone();
    announce(this.isMicrophoneOn ? "Microphone on" : "Microphone off");
  }

  async toggleCamera() {
    this.isCameraWanted = !this.camera;
    remember("meeting.camera", this.isCameraWanted ? null : "off");
    if (this.isCameraWanted) {
      await this.#open("camera");
      if (!this.camera) return this.#explain("camera");
    } else {
      // For good, so that its light goes out.
      this.#drop("camera");
    }
    await this.#sendCamera();
    announce(this.camera ? "Camera on" : "Camera off");
  }

  async toggleScreen() {
    if (this.screen) return this.stopScreen();
    const stream = await openDisplay({ sound: true });
    if (!stream) return;
    const [video] = stream.getVideoTracks();
    const [audio = null] = stream.getAudioTracks();
    this.#watchScreen(stream);
    this.#changed();
    try {
      await this.#room?.local.setScreen(video, audio);
      announce("You share your screen");
    } catch (error) {
      this.#stopCapture();
      throw error;
    }
  }

  async stopScreen() {
    if (!this.screen) return;
    this.#stopCapture();
    if (this.#room?.state === "joined") await this.#room.local.setScreen(null);
    announce("You no longer share your screen");
  }

  /** Takes newly chosen devices. @param {"audioinput" | "videoinput"} kind */
  async useChosenDevice(kind) {
    const device = kind === "audioinput" ? "microphone" : "camera";
    if (device === "camera" && !this.camera) return;
    await this.#open(device);
    await (device === "camera" ? this.#sendCamera() : this.#sendMicrophone());
  }

  /**
   * Somebody else, or a lost permission, has muted a Track: the page shows it, and a camera's light goes out.
   *
   * @param {Source} source
   */
  wasMuted(source) {
    if (source === "microphone") {
      this.isMicrophoneOn = false;
      this.#listenWhileMuted();
    } else if (source === "camera") this.#drop("camera");
    else void this.stopScreen();
    this.#changed();
  }

  close() {
    this.#closed = true;
    this.#stopListening();
    navigator.mediaDevices?.removeEventListener("devicechange", this.#devicesChanged);
    this.#drop("camera");
    this.#drop("microphone");
    this.#stopCapture();
  }

  /** Says it, once, when somebody speaks whom nobody can hear. */
  #listenWhileMuted() {
    this.#stopListening();
    if (this.isMicrophoneOn || !this.microphone || !this.#room) return;
    let turns = 0;
    let stop = meter(new MediaStream([this.microphone]), (loudness) => {
      turns = loudness > SPEECH_LEVEL ? turns + 1 : 0;
      if (turns < SPEECH_TURNS) return;
      stop();
      stop = () => {};
      const action = { label: "Unmute", run: () => void attempt(() => this.toggleMicrophone()) };
      toast("You are muted", "Nobody hears what you say.", { key: "speaking", action });
    });
    this.#stopListening = () => {
      this.#stopListening = () => {};
      stop();
      dismissToast("speaking");
    };
  }

  /** @param {Device} device replaces what is open; what went wrong is in `problems` */
  async #open(device) {
    try {
      const track = await (device === "camera" ? openCamera() : openMicrophone());
      this.#drop(device);
      if (this.#closed) return track.stop();
      this[device] = track;
      delete this.problems[device];
      this.#watch(device, track);
    } catch (error) {
      this.problems[device] = error instanceof MediaProblem ? error.code : `failed-${device}`;
    }
    this.#changed();
  }

  /** @param {Device} device @param {MediaStreamTrack} track */
  #watch(device, track) {
    track.addEventListener("ended", () => this[device] === track && void this.#lost(device));
  }

  /** The browser has a "stop sharing" of its own. @param {MediaStream} stream */
  #watchScreen(stream) {
    this.screen = stream;
    stream.getVideoTracks()[0]?.addEventListener("ended", () => this.screen === stream && void this.stopScreen());
  }

  /** @param {Device} device */
  #drop(device) {
    const track = this[device];
    this[device] = null;
    track?.stop();
    this.#changed();
  }

  /** It was unplugged: another one takes its place, if there is one. @param {Device} device */
  async #lost(device) {
    await this.#open(device);
    if (this.problems[device]) this.#drop(device);
    await (device === "camera" ? this.#sendCamera() : this.#sendMicrophone());
    if (this[device]) {
      toast(`Another ${device}`, "The one you used was unplugged; another one has taken over.", { key: device });
    } else {
      const detail =
        device === "camera" ? "The meeting goes on with sound." : "Nobody hears you until you connect one.";
      toast(`The ${device} is gone`, detail, { tone: "warning", key: device });
    }
  }

  /** A microphone was plugged in where there was none. */
  #devicesChanged = async () => {
    if (this.microphone || !this.problems.microphone?.startsWith("no-")) return;
    await this.#open("microphone");
    if (this.microphone) await this.#sendMicrophone();
  };

  async #sendMicrophone() {
    const { local, state } = this.#room ?? {};
    if (!local || state === "ended") return;
    if (!this.isMicrophoneOn) return local.setMicrophone(false);
    try {
      await local.setMicrophone(this.microphone);
    } catch (error) {
      this.isMicrophoneOn = false;
      this.#changed();
      throw error;
    }
  }

  async #sendCamera() {
    const { local, state } = this.#room ?? {};
    if (!local || state === "ended") return;
    try {
      await local.setCamera(this.camera);
    } catch (error) {
      this.#drop("camera");
      throw error;
    }
  }

  #stopCapture() {
    for (const track of this.screen?.getTracks() ?? []) track.stop();
    this.screen = null;
    this.#changed();
  }

  /** @param {Device} device */
  #explain(device) {
    const words = mediaWords(this.problems[device] ?? "");
    toast(words.title, words.detail, { tone: "warning", key: device });
  }
}
