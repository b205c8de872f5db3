import { OffhookError } from "./errors.js";
import { named } from "./numbers.js";

/**
 * @import { Line, Permissions, Quality, Role, Source } from "./types.js"
 */

/**
 * A Track of somebody else. Its owner may mute it, the server may pause it for lack of bandwidth, and it is received
 * while `stream` is there.
 */
export class RemoteTrack {
  muted = false;
  /** Whether the server does not send it for lack of bandwidth. */
  paused = false;
  /** @type {MediaStream|null} what to show; sound is in `Room.audio` already */
  stream = null;

  /** @internal @param {string} id @param {Source} source @param {Participant} participant */
  constructor(id, source, participant) {
    this.id = id;
    this.source = source;
    this.participant = participant;
  }

  /** @returns {"audio"|"video"} */
  get kind() {
    return this.source === "camera" || this.source === "screen" ? "video" : "audio";
  }
}

/** An own Track. */
export class LocalTrack {
  /** @type {string|null} null until the server has named it */
  id = null;
  /** @type {MediaStreamTrack|null} */
  mediaTrack = null;
  muted = true;
  /** What the server was told of `muted`. @internal */
  mutedTold = true;
  /** Whether the server takes it, for all that is known. @internal */
  isPermitted = true;

  /** @internal @param {Source} source */
  constructor(source) {
    this.source = source;
  }

  /** What goes out. @returns {MediaStreamTrack|null} */
  get sent() {
    return this.muted ? null : this.mediaTrack;
  }
}

/** Somebody in a Room. Properties are facts: they follow what the server says. */
export class Participant {
  user = "";
  name = "";
  /** @type {Role} */
  role = "speaker";
  /** @type {Permissions} */
  permissions = { speak: true, video: true, share: true, moderate: false, data: true };
  /** @type {number|null} milliseconds since 1970, while the hand is up */
  handAt = null;
  joinedAt = 0;
  /** @type {string|null} */
  metadata = null;
  /** @type {Quality|null} */
  quality = null;
  /** @type {Line|null} of a phone: whether it has answered */
  line = null;
  /** Whether this is one of those who speak now. */
  isSpeaking = false;
  /** @type {{device: string, device_key: string, key: string, signature: string}|null} what they show in an encrypted Room @internal */
  e2ee = null;

  /** @internal @param {string} id */
  constructor(id) {
    this.id = id;
  }

  /** @internal Takes over what the server says about the person. @param {any} state */
  apply(state) {
    this.user = state.user;
    this.name = named({ user: state.user, name: state.name ?? null }).name;
    this.line = state.phone ?? null;
    this.role = state.role;
    this.permissions = state.permissions;
    this.handAt = state.hand_at ?? null;
    this.joinedAt = state.joined_at;
    this.metadata = state.metadata ?? null;
    this.e2ee = state.e2ee ?? null;
  }
}

/** Somebody else. */
export class RemoteParticipant extends Participant {
  /** @type {Map<string, RemoteTrack>} by id */
  tracks = new Map();
  /**
   * In an encrypted Room: whether their Device was met before, with the same key; `refused` has not signed what they announce.
   * @type {"new"|"known"|"changed"|"refused"|null}
   */
  device = null;

  /** @param {Source} source @returns {RemoteTrack|null} */
  track(source) {
    return [...this.tracks.values()].find((track) => track.source === source) ?? null;
  }

  /** @internal @param {any} state @returns {RemoteTrack[]} those that are gone */
  applyTracks({ tracks }) {
    const ids = new Set(tracks.map((/** @type {any} */ { track }) => track));
    const gone = [...this.tracks.values()].filter(({ id }) => !ids.has(id));
    for (const { id } of gone) this.tracks.delete(id);
    for (const { track, source, muted } of tracks) {
      const known = this.tracks.get(track) ?? new RemoteTrack(track, source, this);
      this.tracks.set(track, known);
      known.muted = muted;
    }
    return gone;
  }
}

/**
 * Who is here with this page. The page opens devices and hands over tracks; nothing here stops one.
 */
export class LocalParticipant extends Participant {
  /** @type {Map<Source, LocalTrack>} microphone and camera are always there, perhaps muted */
  tracks = new Map([
    ["microphone", new LocalTrack("microphone")],
    ["camera", new LocalTrack("camera")],
  ]);

  #changed;

  /** @internal @param {(track: LocalTrack|null) => Promise<void>} changed sends what `tracks` say; `track` was (un)muted */
  constructor(changed) {
    super("");
    this.#changed = changed;
  }

  /** @param {Source} source @returns {LocalTrack|null} */
  track(source) {
    return this.tracks.get(source) ?? null;
  }

  /**
   * A track is sent from now on; `false` sends silence without giving it up, `true` sends it again, null lets it go.
   * @param {MediaStreamTrack|boolean|null} track
   */
  setMicrophone(track) {
    return this.#set("microphone", track);
  }

  /** As `setMicrophone`, for the picture. @param {MediaStreamTrack|boolean|null} track */
  setCamera(track) {
    return this.#set("camera", track);
  }

  /**
   * Shares a screen, with its sound where there is some; null ends it.
   * @param {MediaStreamTrack|null} video @param {MediaStreamTrack|null} [audio]
   */
  async setScreen(video, audio = null) {
    for (const [source, mediaTrack] of /** @type {const} */ ([["screen", video], ["screen_audio", video && audio]])) {
      const before = this.tracks.get(source);
      if (!mediaTrack) {
        this.tracks.delete(source);
        continue;
      }
      const track = before ?? new LocalTrack(source);
      this.tracks.set(source, track);
      track.mediaTrack = mediaTrack;
      track.muted = false;
    }
    try {
      await this.#changed(null);
    } catch (error) {
      // Nobody sees it, so it is not shared.
      this.tracks.delete("screen");
      this.tracks.delete("screen_audio");
      throw error;
    }
  }

  /** @param {Source} source @param {MediaStreamTrack|boolean|null} value */
  async #set(source, value) {
    const track = /** @type {LocalTrack} */ (this.tracks.get(source));
    if (value === true && !track.mediaTrack) throw new OffhookError("wrong_phase", `there is no ${source} to switch on`);
    if (typeof value !== "boolean") track.mediaTrack = value;
    track.muted = !value;
    await this.#changed(track);
  }
}
