import { OffhookError } from "./errors.js";
import { ConnectionReader, newestIn } from "./stats.js";

/**
 * @import { Encryption } from "./e2ee/encryption.js"
 * @import { LocalTrack } from "./participant.js"
 * @import { RoomData } from "./room-data.js"
 * @import { MediaState, Source } from "./types.js"
 */

/** Sections for what others send; enough for most Rooms, which then never negotiate again. */
const AUDIO_SLOTS = 4;
const VIDEO_SLOTS = 8;
/** What a server may ask for, so that a mistake of its does not take the page down. */
const AUDIO_SLOTS_MAX = 16;
const VIDEO_SLOTS_MAX = 64;

/** Sections every join offers, whether the device is on or not: switching it on then takes no negotiation. */
const SOURCES_ALWAYS = /** @type {const} */ (["microphone", "camera"]);
const SOURCES = /** @type {const} */ ([...SOURCES_ALWAYS, "screen", "screen_audio"]);

/** A Layer without spatial ones, whose temporal ones a server can drop for who has little bandwidth. */
const scalabilityMode = "L1T3";
/** @type {Partial<Record<Source, (RTCRtpEncodingParameters & {scalabilityMode: string})[]>>} */
const ENCODINGS = {
  camera: [
    { rid: "q", scaleResolutionDownBy: 4, maxBitrate: 150_000, scalabilityMode },
    { rid: "h", scaleResolutionDownBy: 2, maxBitrate: 500_000, scalabilityMode },
    { rid: "f", scaleResolutionDownBy: 1, maxBitrate: 1_700_000, scalabilityMode },
  ],
  screen: [{ maxBitrate: 2_500_000, scalabilityMode }],
};

/**
 * So wide has the longer side of a camera's picture to be for so many Layers: of a smaller one Chromium sends just the first
 * ones, which would be a quarter of what the camera sees.
 */
const LAYERS_BY_SIDE = /** @type {const} */ ([
  [960, 3],
  [480, 2],
  [0, 1],
]);

/** A path that went quiet often comes back by itself. */
const QUIET_MS = 3_000;
/** How long no way is found before the media counts as failed. It is looked for all the same. */
const SEARCH_MS_MAX = 30_000;
/** ICE restarts in a row without success after which everything is begun anew. */
const RESTARTS_MAX = 2;
/** An offer the server had no time for is made again after this. */
const OFFER_PAUSE_MS = 5_000;

/** Answers to an offer that mean that the server does not know us there. */
const UNKNOWN = new Set(["unknown_room", "not_in_room"]);

/**
 * What an offer says to the server; the names are those of docs/calls.v1.md.
 * @typedef {{generation: number, sdp: string, tracks: {mid: string, source: Source, muted: boolean}[]}} Offer
 */

/**
 * @typedef {object} RoomMediaOptions
 * @property {Map<Source, LocalTrack>} locals what is sent
 * @property {Encryption|null} encryption of everything that is sent and received
 * @property {() => RTCConfiguration} configuration
 * @property {RoomData|null} data what goes over data channels; null opens none
 * @property {(offer: Offer) => Promise<any>} offer sends a later offer; resolves with the answer once it was taken note of
 * @property {() => void} onChange the state changed
 * @property {() => void} onAudio there are more streams to play
 * @property {() => void} onLost only a new join can help
 * @property {(error: OffhookError) => void} onError
 */

/**
 * The media connection of one Participant: one RTCPeerConnection to the server. Only this side offers, so offers never
 * cross. Own Tracks have a section each; what comes in has slots, whose content the server changes without a word of SDP.
 *
 * It knows nothing of the WebSocket: while that is away, messages wait and media goes on.
 */
export class RoomMedia {
  /** @type {MediaState} */
  state = "new";

  #options;
  #pc;
  #reader = new ConnectionReader();
  #closed = false;
  /** @type {Promise<unknown>} what negotiates, one step after the other */
  #queue = Promise.resolve();
  #generation = 0;
  /** @type {Map<Source, RTCRtpTransceiver>} */
  #sections = new Map();
  /** How many Layers a sender sends its picture in. @type {Map<RTCRtpSender, number>} */
  #layers = new Map();
  /** @type {Record<"audio"|"video", {transceiver: RTCRtpTransceiver, stream: MediaStream}[]>} */
  #slots = { audio: [], video: [] };
  /** The directions of the last offer that was answered. @type {Map<RTCRtpTransceiver, RTCRtpTransceiverDirection>} */
  #agreed = new Map();
  #wasConnected = false;
  #restarts = 0;
  /** @type {Record<"quiet"|"search"|"offer", ReturnType<typeof setTimeout>|undefined>} */
  #timers = { quiet: undefined, search: undefined, offer: undefined };

  /** @param {RoomMediaOptions} options */
  constructor(options) {
    this.#options = options;
    this.#pc = new RTCPeerConnection({ ...options.configuration(), bundlePolicy: "max-bundle" });
    this.#pc.onconnectionstatechange = () => this.#connectionChanged();
    for (const source of SOURCES_ALWAYS) this.#addSection(source);
    this.#addSlots("audio", AUDIO_SLOTS);
    this.#addSlots("video", VIDEO_SLOTS);
    options.data?.attach(this.#pc);
  }

  /** What to play, one stream for each audio slot; who is heard in them changes by itself. */
  get audio() {
    return this.#slots.audio.map(({ stream }) => stream);
  }

  /**
   * Makes the first offer.
   * @param {(offer: Offer) => Promise<any>} send resolves with the answer; one without an SDP leaves everything as it is
   */
  join(send) {
    return this.#enqueue(async () => {
      this.#search();
      await this.#fillSections();
      await this.#exchange(send);
    });
  }

  /**
   * Sends what `locals` say now. Resolves once it is sent, which takes a negotiation for the first screen only.
   */
  async send() {
    await this.#fillSections();
    if (this.#isUnsettled()) await this.#negotiate();
  }

  /** Offers everything once more: something is permitted that was not. */
  offerAgain() {
    return this.#enqueue(async () => {
      await this.#fillSections();
      await this.#exchange(this.#options.offer);
    });
  }

  /** Offers more slots when the server wants more. @param {number} audio @param {number} video */
  wantSlots(audio, video) {
    const before = this.#slots.audio.length;
    this.#addSlots("audio", Math.min(audio, AUDIO_SLOTS_MAX) - before);
    this.#addSlots("video", Math.min(video, VIDEO_SLOTS_MAX) - this.#slots.video.length);
    if (this.#slots.audio.length > before) this.#options.onAudio();
    if (this.#isUnsettled()) this.#negotiate().catch((error) => this.#failed(error));
  }

  /** What arrives in a slot. @param {string} mid @returns {MediaStream|null} */
  streamOf(mid) {
    const slots = [...this.#slots.audio, ...this.#slots.video];
    return slots.find(({ transceiver }) => transceiver.mid === mid)?.stream ?? null;
  }

  /** Whose frames an encrypted Room shows in a slot; null: anybody's. @param {string} mid @param {string|null} owner a Participant */
  expect(mid, owner) {
    const slots = [...this.#slots.audio, ...this.#slots.video];
    const slot = slots.find(({ transceiver }) => transceiver.mid === mid);
    if (slot) this.#options.encryption?.expect(slot.transceiver, owner);
  }

  /** When something came through last; 0: never. @param {MediaStream} stream that of a slot */
  arrivedAt(stream) {
    const slot = [...this.#slots.audio, ...this.#slots.video].find((one) => one.stream === stream);
    return slot ? newestIn(slot.transceiver.receiver) : 0;
  }

  /** What is sent in a section. @param {string} mid */
  sourceOf(mid) {
    return [...this.#sections].find(([, transceiver]) => transceiver.mid === mid)?.[0] ?? null;
  }

  /**
   * Stops Layers that nobody receives, and begins them again.
   * @param {Source} source @param {{rid: string, wanted: boolean}[]} wanted
   */
  setLayers(source, wanted) {
    const sender = this.#sections.get(source)?.sender;
    if (!sender) return;
    const isWanted = new Map(wanted.map((layer) => [layer.rid, layer.wanted]));
    // Parameters must be set in the turn they were read in; Firefox forgets them otherwise.
    const parameters = sender.getParameters();
    const count = source === "camera" ? layersOf(sender.track) : parameters.encodings.length;
    parameters.encodings.forEach((encoding, at) => {
      encoding.active = at < count && (isWanted.get(encoding.rid ?? "") ?? true);
    });
    sender.setParameters(parameters).catch((error) => this.#failed(error));
  }

  /** Looks for new paths, for instance after a change of network. */
  restart() {
    this.#restarts = 0;
    this.#restart();
  }

  /** The next ICE restart uses what the client's configuration says now. */
  configure() {
    if (!this.#closed) this.#pc.setConfiguration({ ...this.#pc.getConfiguration(), ...this.#options.configuration() });
  }

  async connection() {
    /** @type {any[]} */
    const stats = [];
    (await this.stats())?.forEach((stat) => stats.push(stat));
    return this.#reader.read(stats);
  }

  async stats() {
    return this.#closed ? null : this.#pc.getStats();
  }

  close() {
    this.#closed = true;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#pc.onconnectionstatechange = null;
    this.#options.data?.detach();
    this.#pc.close();
  }

  /** @param {Source} source */
  #addSection(source) {
    const kind = source === "camera" || source === "screen" ? "video" : "audio";
    const sendEncodings = ENCODINGS[source]?.map((encoding) => ({ ...encoding }));
    this.#sections.set(source, this.#addTransceiver(kind, { direction: "sendonly", ...(sendEncodings && { sendEncodings }) }));
  }

  /** @param {"audio"|"video"} kind @param {number} count */
  #addSlots(kind, count) {
    for (let added = 0; added < count; added++) {
      const transceiver = this.#addTransceiver(kind, { direction: "recvonly" });
      this.#slots[kind].push({ transceiver, stream: new MediaStream([transceiver.receiver.track]) });
    }
  }

  /** The one place where transceivers are made. @param {"audio"|"video"} kind @param {RTCRtpTransceiverInit} init */
  #addTransceiver(kind, init) {
    const transceiver = this.#pc.addTransceiver(kind, init);
    const { encryption } = this.#options;
    encryption?.protect(transceiver, kind, init.direction === "sendonly" ? "send" : "receive");
    const codecs = codecsOf(kind, encryption !== null);
    if (codecs.length) transceiver.setCodecPreferences?.(codecs);
    dropDescriptor(transceiver);
    return transceiver;
  }

  /** Gives every section what it sends now, and the direction that goes with it. */
  async #fillSections() {
    const given = [];
    for (const source of SOURCES) {
      const local = this.#options.locals.get(source);
      // A server may answer a section it does not want by closing it for good.
      if (this.#sections.get(source)?.currentDirection === "stopped") this.#sections.delete(source);
      if (local?.isPermitted && !this.#sections.has(source)) this.#addSection(source);
      const transceiver = this.#sections.get(source);
      if (!transceiver) continue;
      // The section of a screen that is shared no longer waits for the next one.
      const direction = local ? "sendonly" : "inactive";
      if (transceiver.direction !== direction) transceiver.direction = direction;
      const { sender } = transceiver;
      const track = local?.sent ?? null;
      if (source === "camera" && track) given.push(this.#fitLayers(sender, track));
      given.push(sender.replaceTrack(track));
    }
    await Promise.all(given);
  }

  /** The largest Layer is what the camera sees, however small that is. @param {RTCRtpSender} sender @param {MediaStreamTrack} track */
  async #fitLayers(sender, track) {
    const count = layersOf(track);
    if (this.#layers.get(sender) === count) return;
    this.#layers.set(sender, count);
    const parameters = sender.getParameters();
    parameters.encodings.forEach((encoding, at) => {
      encoding.scaleResolutionDownBy = 2 ** Math.max(0, count - 1 - at);
      encoding.active = at < count;
    });
    await sender.setParameters(parameters);
  }

  #isUnsettled() {
    const living = this.#pc.getTransceivers().filter(({ direction }) => direction !== "stopped");
    return living.some((transceiver) => this.#agreed.get(transceiver) !== transceiver.direction);
  }

  /** Agrees on what changed since the last offer. */
  #negotiate() {
    return this.#enqueue(async () => {
      // An offer before this one may have said it all.
      if (this.#isUnsettled()) await this.#exchange(this.#options.offer);
    });
  }

  #restart() {
    this.#enqueue(async () => {
      this.#pc.restartIce();
      await this.#exchange(this.#options.offer);
    }).catch((error) => this.#failed(error));
  }

  /** @param {(offer: Offer) => Promise<any>} send */
  async #exchange(send) {
    const pc = this.#pc;
    // What comes or changes while the offer is made may be missing in it: it is as it was before, and offered again.
    const directions = pc.getTransceivers().map((transceiver) => /** @type {const} */ ([transceiver, transceiver.direction]));
    await pc.setLocalDescription();
    const { sdp } = /** @type {RTCSessionDescription} */ (pc.localDescription);
    try {
      const reply = await send({ generation: ++this.#generation, sdp, tracks: this.#trackOffers() });
      if (this.#closed || !reply?.sdp) return;
      await pc.setRemoteDescription({ type: "answer", sdp: reply.sdp });
      this.#agreed = new Map(directions);
    } catch (error) {
      // What was agreed on before goes on.
      if (!this.#closed && pc.signalingState === "have-local-offer") await pc.setLocalDescription({ type: "rollback" });
      throw error;
    }
  }

  #trackOffers() {
    const offers = [];
    for (const [source, { mid, direction }] of this.#sections) {
      const local = this.#options.locals.get(source);
      if (mid !== null && direction === "sendonly" && local?.isPermitted) offers.push({ mid, source, muted: local.muted });
    }
    return offers;
  }

  /** @param {() => Promise<void>} step */
  #enqueue(step) {
    const done = this.#queue.then(async () => {
      if (this.#closed) return;
      try {
        await step();
      } catch (error) {
        // A step cut short by close() failed because of it.
        if (!this.#closed) throw OffhookError.from(error, "media_failed");
      }
    });
    this.#queue = done.catch(() => {});
    return done;
  }

  /** A step failed that nobody waits for. @param {OffhookError} error */
  #failed(error) {
    if (this.#closed || error.code === "closed") return;
    if (UNKNOWN.has(error.code)) return this.#options.onLost();
    this.#options.onError(OffhookError.from(error, "media_failed"));
    clearTimeout(this.#timers.offer);
    this.#timers.offer = setTimeout(() => {
      if (this.#pc.connectionState !== "connected") this.#restart();
      else this.#negotiate().catch((again) => this.#failed(again));
    }, OFFER_PAUSE_MS);
  }

  #connectionChanged() {
    const { connectionState } = this.#pc;
    clearTimeout(this.#timers.quiet);
    if (connectionState === "connected") {
      clearTimeout(this.#timers.search);
      this.#restarts = 0;
      this.#wasConnected = true;
      this.#setState("connected");
      return;
    }
    if (this.state === "connected") this.#search();
    if (connectionState === "disconnected") this.#timers.quiet = setTimeout(() => this.#mend(), QUIET_MS);
    else if (connectionState === "failed") this.#mend();
  }

  /** An ICE restart finds another path; where it does not, DTLS or the server may have lost us. */
  #mend() {
    if (++this.#restarts > RESTARTS_MAX) this.#options.onLost();
    else this.#restart();
  }

  /** There is no way to the server, or none any more. */
  #search() {
    this.#setState(this.#wasConnected ? "reconnecting" : "connecting");
    clearTimeout(this.#timers.search);
    this.#timers.search = setTimeout(() => this.#setState("failed"), SEARCH_MS_MAX);
  }

  /** @param {MediaState} state */
  #setState(state) {
    if (this.state === state || this.#closed) return;
    this.state = state;
    this.#options.onChange();
  }
}

/** How many Layers a camera's picture is sent in. @param {MediaStreamTrack|null} track */
function layersOf(track) {
  const { width = Infinity, height = 0 } = track?.getSettings?.() ?? {};
  const side = Math.max(width, height);
  return LAYERS_BY_SIDE.find(([least]) => side >= least)?.[1] ?? 1;
}

/**
 * VP8, which all publishers send, says in its payload descriptor what this extension would say once more for every packet.
 * Where the browser offers it by itself, it is taken out.
 * @param {RTCRtpTransceiver & {getHeaderExtensionsToNegotiate?: () => any[], setHeaderExtensionsToNegotiate?: (extensions: any[]) => void}} transceiver
 */
function dropDescriptor(transceiver) {
  const extensions = transceiver.getHeaderExtensionsToNegotiate?.() ?? [];
  const descriptor = extensions.find(({ uri }) => uri.includes("dependency-descriptor"));
  if (!descriptor) return;
  descriptor.direction = "stopped";
  transceiver.setHeaderExtensionsToNegotiate?.(extensions);
}

/**
 * The codecs worth offering: a browser's whole list, times the number of slots, would not fit into a frame. The order is
 * the browser's. Of sealed frames only VP8's have a part that the server can still read, and sound goes without RED.
 * @param {"audio"|"video"} kind @param {boolean} isEncrypted
 */
function codecsOf(kind, isEncrypted) {
  const codecs = globalThis.RTCRtpReceiver?.getCapabilities?.(kind)?.codecs ?? [];
  return codecs.filter(({ mimeType, sdpFmtpLine = "" }) => {
    const name = mimeType.toLowerCase();
    if (isEncrypted && !["audio/opus", "video/vp8", "video/rtx"].includes(name)) return false;
    switch (name) {
      case "audio/opus":
      case "audio/red":
      case "video/vp8":
      case "video/rtx":
        return true;
      case "video/vp9":
      case "video/av1":
        return !/profile(-id)?=[1-9]/.test(sdpFmtpLine);
      case "video/h264":
        return /packetization-mode=1/.test(sdpFmtpLine) && /profile-level-id=42[0e]01f/i.test(sdpFmtpLine);
      default:
        return false;
    }
  });
}
