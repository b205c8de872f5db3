import { OffhookError } from "./errors.js";
import { Emitter } from "./events.js";
import { named } from "./numbers.js";
import { LocalParticipant, RemoteParticipant, RemoteTrack } from "./participant.js";
import { RoomData } from "./room-data.js";
import { RoomMedia } from "./room-media.js";

/**
 * @import { Device } from "./device.js"
 * @import { Encryption } from "./e2ee/encryption.js"
 * @import { LocalTrack, Participant } from "./participant.js"
 * @import { DataMessage } from "./room-data.js"
 * @import { Offer } from "./room-media.js"
 * @import { ChatMessage, Command, MediaState, Reaction, Role, RoomSettings, Waiting } from "./types.js"
 */

/** Wishes change while somebody scrolls; the server hears of them this often at most. */
const WANT_PAUSE_MS = 250;
/** So long more slots are waited for before they are offered together. */
const SLOTS_PAUSE_MS = 100;
/** @type {Set<string>} */
const PICTURES = new Set(["camera", "screen"]);
const CHAT_KEPT_MAX = 500;
/** A join that only had bad luck is tried again so often, with pauses that double. */
const JOINS_MAX = 6;
const JOIN_PAUSE_MS = 500;

/** What holds when nothing was wished for. */
const WISHES_DEFAULT = { automatic: true, wishes: /** @type {Wish[]} */ ([]) };

/** Ends after which the same name may be joined again. */
const REJOINED = new Set(["failed", "moved"]);
/** Errors of a join that a person would try again, too. */
const PASSING = new Set(["internal", "rate_limited", "media_failed", "unknown_room", "not_in_room", "media_refused", "network"]);
const SENDING = /** @type {const} */ (["speak", "video", "share"]);
/** Answers to `leave` that say that we are gone already. */
const LEFT_ALREADY = new Set(["unknown_room", "not_in_room", "closed", "network"]);

/**
 * What a Room needs of its client.
 * @typedef {object} RoomContext
 * @property {Device} device
 * @property {Command} command
 * @property {() => RTCConfiguration} configuration
 * @property {() => string} account
 * @property {(room: Room) => void} ended
 */

/**
 * @typedef {object} JoinOptions
 * @property {MediaStreamTrack|null} [audio] the microphone
 * @property {MediaStreamTrack|null} [video] the camera
 * @property {Partial<RoomSettings>} [settings] of the Room, if this creates it; with `encrypted` only an encrypted one is joined
 * @property {string} [metadata] about oneself
 * @property {AbortSignal} [signal] gives up until the promise resolves
 */

/**
 * @typedef {object} Wish
 * @property {RemoteTrack} track
 * @property {boolean} [wanted] default: true
 * @property {number} [height] how high it is shown, in pixels of the screen; 0 means not visible now
 * @property {boolean} [pinned] comes before all that are not
 * @property {number} [priority] 0 to 255, higher comes first
 */

/**
 * @typedef {object} RoomEvents
 * @property {[room: Room]} changed any property of the Room, or of somebody in it, changed
 * @property {[state: RoomPhase]} stateChanged
 * @property {[participant: RemoteParticipant]} participantJoined
 * @property {[participant: Participant]} participantChanged what they are, may do or send; oneself, too
 * @property {[participant: RemoteParticipant, reason: string, phone?: string]} participantLeft `phone`: what the phone network said of one that has hung up, or was never answered
 * @property {[track: RemoteTrack]} trackSubscribed its `stream` is there
 * @property {[track: RemoteTrack]} trackUnsubscribed
 * @property {[track: RemoteTrack]} trackChanged muted or paused, or no longer
 * @property {[streams: MediaStream[]]} audio there are more streams to play
 * @property {[speakers: Participant[]]} speakers the loudest first
 * @property {[participant: Participant]} quality
 * @property {[message: ChatMessage]} chat
 * @property {[reaction: Reaction]} reaction
 * @property {[message: DataMessage & {participant: Participant|null}]} data over `data`; `participant` is null when they have just left
 * @property {[reason: string]} dataClosed reliable messages were lost: `too_slow`, `rate_limited`, `forbidden`, `bad_data`; `data.reopen()` goes on
 * @property {[waiting: Waiting[]]} lobby who waits for a moderator; only moderators hear of it
 * @property {[settings: RoomSettings]} settings
 * @property {[track: LocalTrack, by: Participant|null]} muted somebody else, or a lost permission, muted an own Track
 * @property {[words: string[]|null]} code
 * @property {[room: Room]} halted encryption was switched off: nothing is sent or received until `goOnUnencrypted()`
 * @property {[track: LocalTrack, by: Participant|null]} asked a moderator would like it to be unmuted
 * @property {[state: MediaState]} connection
 * @property {[end: {reason: string}]} ended `call`: the last two go on as a Call
 * @property {[error: OffhookError]} error what no promise tells
 */

/** @typedef {"joining"|"waiting"|"joined"|"ended"} RoomPhase */

/**
 * A Room, as one Participant has it. Properties are facts, methods ask for a change. It outlives a lost connection to
 * the server, and is joined again by its name when the server has lost it.
 * @extends {Emitter<RoomEvents>}
 */
export class Room extends Emitter {
  id = "";
  /** @type {RoomPhase} `waiting`: in the lobby, until a moderator opens */
  state = "joining";
  /** @type {RoomSettings} */
  settings = { locked: false, lobby: false, role: "speaker", encrypted: false, back_to_call: false, metadata: null };
  /** @type {number|null} milliseconds since 1970 */
  createdAt = null;
  local = new LocalParticipant((track) => this.#sendLocal(track));
  /** @type {Map<string, RemoteParticipant>} the others, by id, in the order they came */
  participants = new Map();
  /** @type {Participant[]} who speaks now, the loudest first */
  speakers = [];
  /** @type {ChatMessage[]} oldest first */
  messages = [];
  /** @type {Waiting[]} */
  waiting = [];
  /** @type {{reason: string}|null} */
  end = null;
  /** Whether encryption was switched off, and the person here has not said that they go on without. */
  isHalted = false;
  /** Messages of the application to the others. */
  data = new RoomData({
    refusal: () => this.#refusesData(),
    onMessage: (message) => this.emit("data", { ...message, participant: this.participant(message.from) }),
    onClosed: (reason) => this.emit("dataClosed", reason),
  });

  #context;
  #options;
  /** @type {RoomMedia|null} */
  #media = null;
  /** Whether what is sent has to be sealed: as the Room is, for all that is known. */
  #isEncrypted = false;
  /** Whether it is us who switch it off. */
  #switchesOff = false;
  /** @type {Encryption|null} */
  #encryption = null;
  /** Counts joins, so that one that was overtaken can tell. */
  #join = 0;
  #isJoining = false;
  /** Which Track is in which slot, as the server said last. @type {Map<string, string|null>} */
  #slots = new Map();
  /** Tracks whose stream the page was told. @type {Set<RemoteTrack>} */
  #subscribed = new Set();
  /** Who is heard elsewhere. @type {string|null} */
  #silenced = null;
  #wishes = WISHES_DEFAULT;
  #wishesTold = "";
  /** How many slots there are Tracks for. */
  #slotsWanted = { audio: 0, video: 0 };
  /** @type {Record<"want"|"join"|"slots", ReturnType<typeof setTimeout>|undefined>} */
  #timers = { want: undefined, join: undefined, slots: undefined };

  /** @internal @param {RoomContext} context @param {string} name @param {JoinOptions} options */
  constructor(context, name, options) {
    super();
    this.name = name;
    this.#context = context;
    this.#options = options;
    this.#isEncrypted = options.settings?.encrypted ?? false;
    for (const [source, mediaTrack] of /** @type {const} */ ([["microphone", options.audio], ["camera", options.video]])) {
      const track = /** @type {LocalTrack} */ (this.local.track(source));
      track.mediaTrack = mediaTrack ?? null;
      track.muted = !mediaTrack;
    }
  }

  /** @returns {MediaState} */
  get connectionState() {
    return this.#media?.state ?? "new";
  }

  /** Whether all that is sent is sealed, and nothing else is shown: what this page does, not what the server says. */
  get isEncrypted() {
    return this.#isEncrypted && !this.isHalted;
  }

  /** Ten words that all who are in an encrypted Room read alike, when nobody sits in between. @returns {string[]|null} */
  get code() {
    return this.#encryption?.code ?? null;
  }

  /** What to play: each stream in an element of its own. Who is heard in which changes by itself. @returns {MediaStream[]} */
  get audio() {
    return this.#media?.audio ?? [];
  }

  /** @param {string} id @returns {Participant|null} oneself, too */
  participant(id) {
    return id === this.local.id ? this.local : (this.participants.get(id) ?? null);
  }

  /** Leaves; takes effect here at once, also without a connection. */
  async leave() {
    if (this.state === "ended") return;
    const told = this.id ? this.#command("room.leave") : Promise.resolve();
    this.abandon("left");
    try {
      await told;
    } catch (error) {
      if (!LEFT_ALREADY.has(OffhookError.from(error, "internal").code)) throw error;
    }
  }

  /** Ends the Room for everybody; a moderator may. */
  async endForAll() {
    await this.#command("room.end");
    this.abandon("ended");
  }

  /**
   * Says which Tracks are wanted, and how large they are shown; replaces all earlier wishes. `automatic`: Tracks without
   * a wish are received as slots and bandwidth allow.
   * @param {Wish[]} wishes
   * @param {boolean} [automatic]
   */
  want(wishes, automatic = true) {
    this.#wishes = { automatic, wishes };
    this.#offerSlots();
    if (this.#timers.want !== undefined) return;
    this.#tellWishes();
    this.#timers.want = setTimeout(() => {
      this.#timers.want = undefined;
      this.#tellWishes();
    }, WANT_PAUSE_MS);
  }

  /** Mutes a Track of somebody else; only they can switch it on again, or a moderator that of a phone. @param {RemoteTrack} track */
  async mute(track, muted = true) {
    await this.#command("room.mute", { track: track.id, muted });
  }

  /** @param {Participant} participant */
  async remove(participant) {
    await this.#command("room.remove", { participant: participant.id });
  }

  /** @param {Participant} participant @param {Role} role */
  async setRole(participant, role) {
    await this.#command("room.role", { participant: participant.id, role });
  }

  /** Lets people in from the lobby, or sends them away. @param {string[]} waiting @param {boolean} [admit] */
  async admit(waiting, admit = true) {
    await this.#command("room.admit", { waiting, admit });
  }

  /** @param {Partial<RoomSettings>} settings */
  async set(settings) {
    this.#switchesOff ||= settings.encrypted === false;
    try {
      const reply = await this.#command("room.set", settings);
      if (reply.settings) this.#applySettings(reply.settings);
    } finally {
      this.#switchesOff = false;
    }
  }

  /** Sends and receives again after encryption was switched off: in plain for the server. */
  async goOnUnencrypted() {
    if (!this.isHalted) return;
    this.isHalted = false;
    this.#isEncrypted = false;
    await this.#joinAgain();
  }

  /** @param {boolean} up */
  async raiseHand(up) {
    await this.#command("room.hand", { up });
  }

  /** @param {string} reaction at most 16 bytes */
  async react(reaction) {
    await this.#command("room.react", { reaction });
  }

  /** @param {string} text at most 4 KiB @param {Participant[]} [to] only these read it; default: everybody */
  async sendChat(text, to) {
    const { id, at } = await this.#command("room.chat", { text, ...(to && { to: to.map((one) => one.id) }) });
    const { id: participant, user, name } = this.local;
    this.#addMessage({ id, from: { participant, user, name }, text, at, ...(to && { to: to.map((one) => one.id) }) });
  }

  /** What others read about this Participant. @param {string} metadata at most 4 KiB */
  async setMetadata(metadata) {
    await this.#command("room.metadata", { metadata });
    this.#options = { ...this.#options, metadata };
  }

  /** Looks for another way to the server now. */
  reconnect() {
    if (this.state === "joined") this.#media?.restart();
  }

  /** How it is connected, with rates since the last reading. */
  async connection() {
    return this.#media?.connection() ?? null;
  }

  /** What the browser counts. @returns {Promise<RTCStatsReport|null>} */
  async stats() {
    return (await this.#media?.stats()) ?? null;
  }

  /** Asks a moderator's question: would somebody unmute a Track? @param {RemoteTrack} track */
  async askToUnmute(track) {
    await this.#command("room.ask", { track: track.id });
  }

  /** Takes down the hand of somebody else; a moderator may. @param {Participant} participant */
  async lowerHand(participant) {
    await this.#command("room.hand", { up: false, participant: participant.id });
  }

  /**
   * Asks a User of the Account to come in; rejects with `peer_gone` when they cannot be reached. A phone (`tel:…`, `sip:…`) is
   * dialled, which takes a moderator.
   * @param {string} user
   */
  async invite(user) {
    await this.#command("room.invite", { user });
  }

  // From here on: for the client, not for pages.

  /** @internal What this side has open, for a Call that goes on from here. */
  get stream() {
    const stream = new MediaStream();
    for (const { mediaTrack, muted, source } of this.local.tracks.values()) {
      if (!mediaTrack || (source !== "microphone" && (source !== "camera" || muted))) continue;
      // Here a muted microphone is not sent at all, there it is silent.
      if (muted) mediaTrack.enabled = false;
      stream.addTrack(mediaTrack);
    }
    return stream;
  }

  /** @internal When a Track came through last; 0: never. @param {RemoteTrack} track */
  arrivedAt({ stream }) {
    return (stream && this.#media?.arrivedAt(stream)) || 0;
  }

  /** @internal Somebody is heard elsewhere; null: everybody is heard here. @param {string|null} user */
  silence(user) {
    this.#silenced = user;
    this.#settleSound();
  }

  /** @internal Resolves when the server has answered: in the Room, or in its lobby. */
  async join() {
    try {
      await this.#joinOnce();
    } catch (error) {
      if (this.state === "joining") this.abandon(OffhookError.from(error, "media_failed").code);
      throw error;
    }
  }

  /** @internal The Session is another one: the server knows nothing of us. A join on its way is sent again by the Session. */
  sessionLost() {
    if (!this.#isJoining) this.#joinAgain();
  }

  /** @internal */
  configure() {
    this.#media?.configure();
  }

  /** @internal Ends it here only. @param {string} reason */
  abandon(reason) {
    if (this.state === "ended") return;
    this.#join++;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#closeMedia();
    this.end = { reason };
    this.#setState("ended");
    this.#context.ended(this);
    this.emit("ended", this.end);
  }

  /** @internal @param {string} type @param {any} data */
  handle(type, data) {
    switch (type) {
      case "room.admitted":
        return this.state === "waiting" ? this.#joinAgain() : undefined;
      case "room.denied":
        return this.abandon(data.reason === "ended" ? "ended" : "denied");
      case "room.ended":
        return REJOINED.has(data.reason) ? this.#joinAgain() : this.abandon(data.reason);
    }
    if (this.state !== "joined") return;

    switch (type) {
      case "room.participant":
        return this.#applyParticipant(data.participant);
      case "room.left":
        return this.#left(data.participant, data.reason, data.phone);
      case "room.settings":
        return this.#applySettings(data.settings);
      case "room.lobby":
        this.waiting = data.waiting.map(named);
        this.emit("lobby", this.waiting);
        return this.#changed();
      case "room.slots":
        for (const { mid, track } of data.slots) this.#slots.set(mid, track ?? null);
        this.#settleSlots();
        return this.#slotsTold(data);
      case "room.speakers":
        return this.#applySpeakers(data.speakers);
      case "room.quality":
        return this.#applyQuality(data);
      case "room.paused":
        return this.#changeTrack(data.track, (track) => (track.paused = data.paused));
      case "room.layers":
        return this.#applyLayers(data);
      case "room.connection":
        // Nothing arrives there, whatever the browser thinks of its path.
        return data.connected ? undefined : this.#media?.restart();
      case "room.chat":
        return this.#addMessage(data.message);
      case "room.reaction":
        return this.#applyReaction(data);
      case "room.muted":
        return this.#wasMuted(data);
      case "room.keys":
        return this.#encryption?.handleKeys(data);
      case "room.asked":
        return this.#wasAsked(data);
    }
    // Other types are of a later version, and nothing we could miss.
  }

  /** @param {string} type @param {Record<string, any>} [data] */
  #command(type, data) {
    if (this.state === "ended") return Promise.reject(new OffhookError("wrong_phase", "the Room was left"));
    return this.#context.command(type, { room: this.id, ...data });
  }

  /** @returns {Promise<void>} */
  async #joinOnce() {
    const turn = ++this.#join;
    this.#isJoining = true;
    this.#closeMedia();
    const encryption = this.#isEncrypted ? await this.#makeEncryption() : null;
    if (turn !== this.#join) return encryption?.close();
    this.#encryption = encryption;
    /** @type {RoomMedia} */
    const media = new RoomMedia({
      locals: this.local.tracks,
      encryption,
      configuration: this.#context.configuration,
      data: encryption ? null : this.data,
      offer: async (/** @type {Offer} */ offer) => this.#took(media, offer, await this.#command("room.offer", offer)),
      onChange: () => this.#connectionChanged(media),
      onAudio: () => media === this.#media && this.emit("audio", media.audio),
      onLost: () => media === this.#media && this.#joinAgain(),
      onError: (error) => this.emit("error", error),
    });
    this.#media = media;
    const { metadata } = this.#options;
    // A Room that the server has lost comes back as it was, encrypted above all.
    const settings = this.createdAt === null ? this.#options.settings : this.settings;
    try {
      await media.join(async (offer) => {
        const said = { ...(settings && { settings }), ...(metadata && { metadata }), ...(encryption && { encrypted: true }) };
        const reply = await this.#context.command("room.join", { room: this.name, ...offer, ...said });
        if (turn !== this.#join) {
          // It was left, or joined anew, while the server still answered.
          if (this.state === "ended") this.#context.command("room.leave", { room: reply.room ?? reply.state.room }).catch(() => {});
          return null;
        }
        if (encryption && reply.state && !reply.state.settings.encrypted) {
          this.#context.command("room.leave", { room: reply.state.room }).catch(() => {});
          throw new OffhookError("not_encrypted", "the Room is there already, and not encrypted");
        }
        return this.#took(media, offer, reply);
      });
    } catch (error) {
      if (turn !== this.#join || this.#isEncrypted || OffhookError.from(error, "internal").code !== "room_encrypted") throw error;
      // Transforms have to be there before the offer is made, so it is made once more.
      this.#isEncrypted = true;
      return this.#joinOnce();
    } finally {
      if (turn === this.#join) this.#isJoining = false;
    }
    if (turn === this.#join && this.state === "joined") this.emit("audio", media.audio);
  }

  async #makeEncryption() {
    const { Encryption, canEncrypt } = await import("./e2ee/encryption.js");
    if (!canEncrypt()) throw new OffhookError("cannot_encrypt", "this browser cannot encrypt what it sends to an SFU");
    return new Encryption({
      device: this.#context.device,
      command: (type, data) => this.#command(type, data),
      maySend: () => SENDING.some((permission) => this.local.permissions[permission]),
      onDevice: (id, key) => void this.#recognise(id, key),
      onSpent: () => void this.#joinAgain(),
      onCode: () => {
        this.emit("code", this.code);
        this.#changed();
      },
      onError: (error) => this.emit("error", error),
    });
  }

  /** @param {string} id @param {string|null} key of their Device, if it can be trusted */
  async #recognise(id, key) {
    const participant = this.participants.get(id);
    if (!participant?.e2ee) return;
    const peer = `${this.#context.account()}/${participant.user}/${participant.e2ee.device}`;
    participant.device = key === null ? "refused" : await this.#context.device.recognise(peer, key);
    this.emit("participantChanged", participant);
    this.#changed();
  }

  /** Joins by name after the server, or we, lost the Room; as often as it takes while there is hope. */
  async #joinAgain(attempt = 1) {
    if (this.state === "ended" || this.isHalted) return;
    clearTimeout(this.#timers.join);
    if (this.state === "waiting") this.#setState("joining");
    try {
      await this.#joinOnce();
    } catch (thrown) {
      const error = OffhookError.from(thrown, "media_failed");
      if (/** @type {RoomPhase} */ (this.state) === "ended") return;
      if (!PASSING.has(error.code) || attempt >= JOINS_MAX) return this.abandon(error.code);
      this.#timers.join = setTimeout(() => this.#joinAgain(attempt + 1), JOIN_PAUSE_MS * 2 ** (attempt - 1));
    }
  }

  /**
   * What an answer says beside its SDP. Taken in at once: the events behind it build on it.
   * @param {RoomMedia} media @param {Offer} offer @param {any} reply
   */
  #took(media, offer, reply) {
    if (media !== this.#media) return null;
    if (reply.waiting) {
      this.#closeMedia();
      this.id = reply.room;
      this.#setState("waiting");
      return null;
    }
    for (const { mid, source, muted } of offer.tracks) {
      const local = this.local.track(source);
      const id = reply.tracks?.find((/** @type {any} */ one) => one.mid === mid)?.track ?? null;
      if (local) Object.assign(local, { id, mutedTold: muted });
    }
    for (const { mid, track } of reply.slots ?? []) this.#slots.set(mid, track ?? null);
    if (reply.state) this.#joined(reply);
    if (reply.next) this.#listMore(media, reply.next).catch((error) => this.emit("error", error));
    this.#settleSlots();
    this.#slotsTold(reply);
    // Switched while the server answered.
    for (const track of this.local.tracks.values()) this.#tellMuted(track).catch((error) => this.emit("error", error));
    return reply;
  }

  /** @param {any} reply */
  #joined({ participant, role, permissions, state, speakers = [], chat = [] }) {
    this.id = state.room;
    this.createdAt = state.created_at;
    this.settings = state.settings;
    this.local.id = participant;
    Object.assign(this.local, { role, permissions });
    this.messages = chat.slice(-CHAT_KEPT_MAX).map((/** @type {any} */ message) => ({ ...message, from: named(message.from) }));
    this.#wishesTold = JSON.stringify(WISHES_DEFAULT);
    this.#setState("joined");
    this.#encryption?.begin({ name: this.name, id: this.id }, participant);

    const present = new Set(state.participants.map((/** @type {any} */ one) => one.participant));
    for (const id of [...this.participants.keys()]) if (!present.has(id)) this.#left(id, "gone");
    for (const one of state.participants) this.#applyParticipant(one);
    this.#encryption?.update(this.participants.values());
    this.#applySpeakers(speakers);
    this.#obeyPermissions();
    this.#tellWishes();
  }

  /** In a big Room the answer to a join names the first Participants only. @param {RoomMedia} media @param {string} after */
  async #listMore(media, after) {
    for (let next = after; next && media === this.#media; ) {
      const page = await this.#command("room.list", { after: next });
      for (const one of page.participants) this.#applyParticipant(one);
      next = page.next;
    }
  }

  /** @param {any} state */
  #applyParticipant(state) {
    if (state.participant === this.local.id) {
      this.local.apply(state);
      this.emit("participantChanged", this.local);
      this.#obeyPermissions();
      return this.#changed();
    }
    const known = this.participants.get(state.participant);
    const participant = known ?? new RemoteParticipant(state.participant);
    const before = new Map([...participant.tracks].map(([id, { muted }]) => [id, muted]));
    participant.apply(state);
    participant.applyTracks(state);
    this.participants.set(participant.id, participant);
    this.#encryption?.update(this.participants.values());
    this.emit(known ? "participantChanged" : "participantJoined", participant);
    for (const [id, track] of participant.tracks) {
      if (before.has(id) && before.get(id) !== track.muted) this.emit("trackChanged", track);
    }
    this.#settleSlots();
    this.#changed();
  }

  /** @param {string} id @param {string} reason @param {string} [phone] */
  #left(id, reason, phone) {
    const participant = this.participants.get(id);
    if (!participant) return;
    this.participants.delete(id);
    this.#encryption?.update(this.participants.values());
    this.#settleSlots();
    this.emit("participantLeft", participant, reason, phone);
    this.#changed();
  }

  /** Brings the streams of all Tracks in line with what the slots carry. */
  #settleSlots() {
    /** @type {Map<RemoteTrack, MediaStream>} */
    const received = new Map();
    for (const [mid, id] of this.#slots) {
      const track = id ? this.#findTrack(id) : null;
      this.#media?.expect(mid, track?.participant.id ?? null);
      const stream = track && this.#media?.streamOf(mid);
      if (track && stream) received.set(track, stream);
    }
    const changed = [];
    for (const track of this.#subscribed) {
      if (received.get(track) === track.stream) continue;
      track.stream = null;
      this.#subscribed.delete(track);
      changed.push(track);
    }
    for (const track of changed) this.emit("trackUnsubscribed", track);
    this.#settleSound(received);
    for (const [track, stream] of received) {
      if (track.stream === stream) continue;
      track.stream = stream;
      this.#subscribed.add(track);
      changed.push(track);
      this.emit("trackSubscribed", track);
    }
    if (changed.length) this.#changed();
  }

  /** Lets everybody be heard but who is heard elsewhere. @param {Map<RemoteTrack, MediaStream>} [received] */
  #settleSound(received = new Map([...this.#subscribed].map((track) => [track, /** @type {MediaStream} */ (track.stream)]))) {
    const silent = [...received].filter(([{ kind, participant }]) => kind === "audio" && participant.user === this.#silenced);
    const streams = silent.map(([, stream]) => stream);
    for (const stream of this.audio) {
      for (const track of stream.getTracks()) track.enabled = !streams.includes(stream);
    }
  }

  /** @param {string} id @returns {RemoteTrack|null} */
  #findTrack(id) {
    for (const { tracks } of this.participants.values()) {
      const track = tracks.get(id);
      if (track) return track;
    }
    return null;
  }

  /** @param {string} id @param {(track: RemoteTrack) => void} change */
  #changeTrack(id, change) {
    const track = this.#findTrack(id);
    if (!track) return;
    change(track);
    this.emit("trackChanged", track);
    this.#changed();
  }

  /** @param {RoomSettings} settings */
  #applySettings(settings) {
    this.settings = settings;
    const isOver = !settings.encrypted && this.isEncrypted;
    const isOurs = this.#switchesOff;
    if (isOver && isOurs) this.#isEncrypted = false;
    if (isOver && !isOurs) this.#halt();
    this.emit("settings", settings);
    if (isOver && isOurs) void this.#joinAgain();
    if (isOver && !isOurs) this.emit("halted", this);
    this.#changed();
  }

  /**
   * Encryption is off, or the server only says so: what a person began to say encrypted leaves in plain when they say so, not
   * before.
   */
  #halt() {
    clearTimeout(this.#timers.join);
    this.#join++;
    this.#isJoining = false;
    this.isHalted = true;
    this.#closeMedia();
  }

  /** @param {string[]} ids */
  #applySpeakers(ids) {
    for (const speaker of this.speakers) speaker.isSpeaking = false;
    this.speakers = ids.map((id) => this.participant(id)).filter((one) => one !== null);
    for (const speaker of this.speakers) speaker.isSpeaking = true;
    this.emit("speakers", this.speakers);
    this.#changed();
  }

  /** @param {{participant: string, quality: import("./types.js").Quality}} data */
  #applyQuality({ participant: id, quality }) {
    const participant = this.participant(id);
    if (!participant) return;
    participant.quality = quality;
    this.emit("quality", participant);
    this.#changed();
  }

  /** @param {{participant: string, reaction: string}} data */
  #applyReaction({ participant: id, reaction }) {
    const participant = this.participant(id);
    if (participant) this.emit("reaction", { participant, reaction });
  }

  /** @param {{track: string, wanted: {rid: string, wanted: boolean}[]}} data */
  #applyLayers({ track: id, wanted }) {
    const track = this.#ownTrack(id);
    if (track) this.#media?.setLayers(track.source, wanted);
  }

  /** @param {string} id */
  #ownTrack(id) {
    return [...this.local.tracks.values()].find((track) => track.id === id) ?? null;
  }

  /** @param {ChatMessage} message */
  #addMessage(message) {
    if (this.messages.some(({ id }) => id === message.id)) return;
    const shown = { ...message, from: named(message.from) };
    this.messages = [...this.messages, shown].sort((a, b) => a.at - b.at).slice(-CHAT_KEPT_MAX);
    this.emit("chat", shown);
    this.#changed();
  }

  /** @param {{track: string, by?: string|null}} data */
  #wasMuted({ track: id, by }) {
    const track = this.#ownTrack(id);
    if (!track) return;
    Object.assign(track, { muted: true, mutedTold: true });
    this.#media?.send().catch((error) => this.emit("error", error));
    this.emit("muted", track, by ? this.participant(by) : null);
    this.#changed();
  }

  /** @param {{track: string, by: string}} data */
  #wasAsked({ track: id, by }) {
    const track = this.#ownTrack(id);
    if (track?.muted) this.emit("asked", track, this.participant(by));
  }

  /**
   * What may not be sent any more is not sent, whatever the server does with it. What may be sent now, and the server has
   * left out so far, is offered again.
   */
  #obeyPermissions() {
    this.#encryption?.permitted();
    const { speak, video, share } = this.local.permissions;
    const may = { microphone: speak, camera: video, screen: share, screen_audio: share };
    let isMore = false;
    for (const track of this.local.tracks.values()) {
      isMore ||= !track.isPermitted && may[track.source] && !track.id;
      track.isPermitted = may[track.source];
      if (track.isPermitted || track.muted) continue;
      track.muted = true;
      this.#sendLocal(track).catch((error) => this.emit("error", error));
      this.emit("muted", track, null);
    }
    if (isMore) this.#media?.offerAgain().catch((error) => this.emit("error", error));
  }

  /** Sends what the own Tracks say now. @param {LocalTrack|null} track the one that was (un)muted */
  async #sendLocal(track) {
    if (this.state === "ended") throw new OffhookError("wrong_phase", "the Room was left");
    if (track && !track.muted && !track.isPermitted) {
      track.muted = true;
      throw new OffhookError("forbidden", `a ${this.local.role} may not send a ${track.source}`);
    }
    // A Call that it is sent into, too, or was, silences it in this way.
    if (track?.mediaTrack && !track.muted) track.mediaTrack.enabled = true;
    this.#changed();
    const sent = this.#media?.send();
    await Promise.all([sent, track && this.#tellMuted(track)]);
    this.#changed();
  }

  /** @param {LocalTrack} track */
  async #tellMuted(track) {
    const { muted } = track;
    if (!track.id || track.mutedTold === muted || this.state !== "joined") return;
    track.mutedTold = muted;
    try {
      await this.#command("room.mute", { track: track.id, muted });
    } catch (error) {
      // Not allowed to: nothing reaches the others, so nothing is sent.
      if (!muted && track.muted === muted) {
        Object.assign(track, { muted: true, mutedTold: true });
        await this.#media?.send();
        this.#changed();
      }
      throw error;
    }
  }

  #tellWishes() {
    if (this.state !== "joined") return;
    const { automatic, wishes } = this.#wishes;
    const known = wishes.filter(({ track }) => this.#findTrack(track.id) === track);
    const said = known.map(({ track, wanted = true, ...rest }) => ({ track: track.id, wanted, ...rest }));
    const told = JSON.stringify({ automatic, wishes: said });
    if (told === this.#wishesTold) return;
    this.#wishesTold = told;
    this.#command("room.want", { automatic, wishes: said }).catch((error) => {
      this.#wishesTold = "";
      if (!LEFT_ALREADY.has(error.code) && this.state === "joined") this.emit("error", error);
    });
  }

  /** @param {{audio_wanted?: number, video_wanted?: number}} told */
  #slotsTold({ audio_wanted = 0, video_wanted = 0 }) {
    this.#slotsWanted = { audio: audio_wanted, video: video_wanted };
    this.#offerSlots();
  }

  /**
   * Offers more slots for what there is, as far as it is seen: each costs every later negotiation something, and what comes into view
   * takes the place of what left it. Soon, and not at once: whoever shows people says first which of them fit, and in a Room that
   * fills they come one after the other.
   */
  #offerSlots() {
    this.#timers.slots ??= setTimeout(() => {
      this.#timers.slots = undefined;
      const { audio, video } = this.#slotsWanted;
      this.#media?.wantSlots(audio, Math.min(video, this.#seen(video)));
    }, SLOTS_PAUSE_MS);
  }

  /** How many pictures are seen of so many that could be. @param {number} count */
  #seen(count) {
    const { automatic, wishes } = this.#wishes;
    const known = wishes.filter(({ track }) => PICTURES.has(track.source) && this.#findTrack(track.id) === track);
    const seen = known.filter(({ wanted = true, height = 1 }) => wanted && height > 0).length;
    return automatic ? Math.max(seen, count - (known.length - seen)) : seen;
  }

  /** Why nothing may be sent over data channels. */
  #refusesData() {
    if (this.state === "ended") return "wrong_phase";
    if (this.isEncrypted || this.settings.encrypted) return "room_encrypted";
    return this.state === "joined" && !this.local.permissions.data ? "forbidden" : null;
  }

  #closeMedia() {
    this.#media?.close();
    this.#media = null;
    this.#encryption?.close();
    this.#encryption = null;
    this.#slots.clear();
    this.#slotsWanted = { audio: 0, video: 0 };
    this.#settleSlots();
    for (const track of this.local.tracks.values()) Object.assign(track, { id: null, isPermitted: true });
  }

  /** @param {RoomMedia} media */
  #connectionChanged(media) {
    if (media !== this.#media) return;
    this.emit("connection", media.state);
    this.#changed();
  }

  /** @param {RoomPhase} state */
  #setState(state) {
    if (this.state === state) return;
    this.state = state;
    this.emit("stateChanged", state);
    this.#changed();
  }

  #changed() {
    this.emit("changed", this);
  }
}
