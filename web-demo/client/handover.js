/**
 * @import { Call } from "./call.js"
 * @import { Room } from "./room.js"
 * @import { Command } from "./types.js"
 */

/** How often it is looked whether media arrives. */
const LOOK_MS = 20;
/** For how long it has to arrive without a pause, for a jitter buffer begins with some hiccups; and what counts as a pause. */
const STEADY_MS = 300;
const PAUSE_MS = { audio: 150, video: 1_000 };
/** Who is connected and sends nothing after this sends nothing at all. */
const PATIENCE_MS = 5_000;
/** What a crash of the server may have swallowed is said again after this. */
const AGAIN_MS = 5_000;

/**
 * Two people move between a Call and a Room, and none loses the other on the way: both places carry their media until both
 * hear and see each other in the new one. At any time one of the two is heard; it changes from one moment to the next,
 * once what arrives in the new place arrives steadily.
 *
 * Mute, camera and screen belong to the Room as long as one is in it, and the Call follows.
 */
export class Handover {
  /** Called once: the new place is the one to look at. */
  onMoved = () => {};

  #call;
  #room;
  #to;
  #command;
  #isOver = false;
  /** Whether the page plays what comes from the new place. */
  #isReady = true;
  #wasShown = false;
  /** Whether the new place is the one that is heard. */
  #isMoved = false;
  /** Whether the Room has what the Call sends. */
  #hasRoomLed = false;
  /** Times of `performance`, in ms. @type {Record<"connected"|"arrived"|"told", number|null>} */
  #since = { connected: null, arrived: null, told: null };
  /** What arrived last, by Track or kind, and when that was seen first. @type {Map<string, {at: number, seen: number}>} */
  #newest = new Map();

  /** @param {{call: Call, room: Room, to: "call"|"room", command: Command}} move */
  constructor({ call, room, to, command }) {
    this.#call = call;
    this.#room = room;
    this.#to = to;
    this.#command = command;
    this.#hear(to === "room" ? "call" : "room");
    call.on("ended", () => this.#finish());
    room.on("ended", () => this.#finish());
    room.on("stateChanged", (state) => to === "room" && state === "joined" && this.#lead());
    this.#look();
  }

  /** Nothing changes place before. @param {Promise<unknown>} ready */
  waitFor(ready) {
    this.#isReady = false;
    ready.finally(() => (this.#isReady = true)).catch((error) => this.#room.emit("error", error));
  }

  #look() {
    if (this.#isOver) return;
    setTimeout(() => this.#look(), LOOK_MS);
    this.#follow();
    const now = performance.now();
    const { connected, arrived, told } = this.#since;
    this.#since.connected = this.#isConnected() ? (connected ?? now) : null;
    this.#since.arrived = this.#arrives(now) ? (arrived ?? now) : null;

    if (this.#since.connected === null) {
      // A crash took the new place away, and not the old one.
      if (this.#isMoved) this.#move(false);
      if (this.#to === "room" && this.#room.state === "joined" && !this.#peer) this.#askAgain(now);
    } else if (!this.#isMoved) {
      if (this.#isReady && this.#since.arrived !== null && now - this.#since.arrived >= STEADY_MS) this.#move(true);
    } else if (now - (told ?? 0) >= AGAIN_MS) this.#tell();
    // Where others are is where to look, however long the other side takes.
    if (this.#to === "room" && this.#room.participants.size > 1) this.#show();
  }

  /** @param {boolean} isMoved */
  #move(isMoved) {
    this.#isMoved = isMoved;
    this.#hear((this.#to === "room") === isMoved ? "room" : "call");
    if (!isMoved) return;
    this.#tell();
    this.#show();
  }

  /** @param {"call"|"room"} where */
  #hear(where) {
    this.#call.silence(where === "room");
    this.#room.silence(where === "room" ? null : this.#call.peer.user);
  }

  #tell() {
    this.#since.told = performance.now();
    // Refused when the Call has ended meanwhile; what gets lost is said again.
    this.#command("call.moved", { call: this.#call.id, to: this.#to }).catch(() => {});
  }

  /** The other side may not have heard of the Room. @param {number} now */
  #askAgain(now) {
    this.#since.told ??= now;
    if (now - this.#since.told < AGAIN_MS) return;
    this.#since.told = now;
    this.#command("call.upgrade", { call: this.#call.id }).catch(() => {});
  }

  #show() {
    if (this.#wasShown) return;
    this.#wasShown = true;
    this.onMoved();
  }

  #isConnected() {
    const { state, connectionState } = this.#room;
    if (this.#to === "call") return this.#call.connectionState === "connected";
    return state === "joined" && connectionState === "connected" && this.#peer !== null;
  }

  /** Whether all comes through that the other side sends. @param {number} now */
  #arrives(now) {
    const { connected } = this.#since;
    if (connected === null) return false;
    if (now - connected >= PATIENCE_MS) return true;
    if (this.#to === "room") {
      const sent = [...(this.#peer?.tracks.values() ?? [])].filter(({ muted, source }) => !muted && source !== "screen_audio");
      return sent.map((track) => this.#flows(track.id, track.kind, this.#room.arrivedAt(track), now)).every(Boolean);
    }
    const { peerMedia } = this.#call;
    const kinds = /** @type {const} */ (["audio", "video"]).filter((kind) => peerMedia?.[kind]);
    return peerMedia !== null && kinds.map((kind) => this.#flows(kind, kind, this.#call.arrivedAt(kind), now)).every(Boolean);
  }

  /**
   * Whether something goes on arriving.
   * @param {string} what @param {"audio"|"video"} kind @param {number} at when the newest of it arrived, by a clock of its own; 0: never
   * @param {number} now
   */
  #flows(what, kind, at, now) {
    const before = this.#newest.get(what);
    if (at && at !== before?.at) this.#newest.set(what, { at, seen: now });
    return now - (this.#newest.get(what)?.seen ?? -Infinity) < PAUSE_MS[kind];
  }

  /** The other side, in the Room. */
  get #peer() {
    const { user } = this.#call.peer;
    return [...this.#room.participants.values()].find((one) => one.user === user) ?? null;
  }

  /** Brings what is sent in line. */
  #follow() {
    if (this.#room.state !== "joined") return;
    const { local } = this.#room;
    const [microphone, camera, screen] = [local.track("microphone"), local.track("camera"), local.track("screen")];
    if (!microphone || !camera) return;
    if (microphone.mediaTrack) this.#call.setTrack("audio", microphone.mediaTrack);
    if (this.#call.muted !== microphone.muted) this.#call.mute(microphone.muted);
    this.#call.setTrack("video", camera.sent);
    this.#call.setTrack("screen", screen?.sent ?? null);
  }

  /** What was switched in the Call while the Room was joined, and a screen, which comes on its own. */
  #lead() {
    if (this.#hasRoomLed) return;
    this.#hasRoomLed = true;
    const { audio, video, screen } = this.#call.sent;
    const { local } = this.#room;
    const report = (/** @type {any} */ error) => this.#room.emit("error", error);
    if (local.track("microphone")?.muted !== (this.#call.muted || !audio)) local.setMicrophone(this.#call.muted ? false : audio).catch(report);
    if (local.track("camera")?.sent !== video) local.setCamera(video).catch(report);
    if (screen) local.setScreen(screen).catch(report);
  }

  /** One of the two is over: the other one is heard. */
  #finish() {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#hear(this.#room.state === "ended" ? "call" : "room");
    if (this.#room.state === "ended") return;
    // The Call silenced the microphone in its own way.
    const microphone = this.#room.local.track("microphone");
    if (microphone?.mediaTrack) microphone.mediaTrack.enabled = true;
    if (this.#to === "call") return;
    const isAlone = this.#room.participants.size === 0 && this.#call.end?.reason !== "upgraded";
    if (isAlone && !this.#wasShown) this.#room.leave().catch((error) => this.#room.emit("error", error));
    else this.#show();
  }
}
