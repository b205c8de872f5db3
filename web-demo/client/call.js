import { makeCertificate } from "./certificate.js";
import { CodeExchange, makeNonce, wordsOf } from "./code.js";
import { OffhookError } from "./errors.js";
import { Emitter } from "./events.js";
import { isPhone, named, numberOf } from "./numbers.js";
import { Peer } from "./peer.js";
import { ConnectionReader } from "./stats.js";

/**
 * @import { Device } from "./device.js"
 * @import { PhoneMedia } from "./phone.js"
 * @import { Room } from "./room.js"
 * @import { CallEnd, CallState, Command, Me, MediaKinds, MediaSent, MediaState, Person, Progress, RoomSettings, Transfer } from "./types.js"
 */

/** Q.850 causes of ends that are decided here. */
const CAUSE_NORMAL = 16;
const CAUSE_REJECTED = 21;
const CAUSE_ANSWERED_ELSEWHERE = 26;
const CAUSE_INTERWORKING = 127;

/** Errors that say that the other side is not who it claims to be: such a Call must not go on. */
const BETRAYALS = new Set(["bad_signature", "fingerprint_mismatch", "commitment_mismatch"]);
/** Answers to the end of a Call that was over already. */
const OVER_ALREADY = new Set(["conflict", "wrong_phase", "unknown_call", "not_a_party", "closed"]);

/**
 * What a Call needs of its client.
 * @typedef {object} CallContext
 * @property {Me} me
 * @property {Device} device
 * @property {Command} command
 * @property {() => RTCConfiguration} configuration
 * @property {(error: OffhookError) => void} report
 * @property {(call: Call, settings: Partial<RoomSettings>) => Promise<Room>} upgrade
 * @property {(call: Call, room: string, hooks: {onChange: () => void, onStream: (stream: MediaStream) => void}) => Promise<PhoneMedia|null>} meet joins
 *   the Room of a Call with a phone; null when the Call has ended meanwhile
 * @property {(call: Call) => void} ended
 */

/**
 * @typedef {object} CallEvents
 * @property {[call: Call]} changed any property of the Call changed
 * @property {[stream: MediaStream]} stream the tracks of the other side changed; the stream stays the same object
 * @property {[words: string[]]} code
 * @property {[progress: Progress]} progress what becomes of a phone call before it is answered
 * @property {[keys: string]} dtmf the phone on the other side has pressed keys
 * @property {[end: CallEnd]} ended
 */

/**
 * One Call, as this Device sees it. Properties are facts: they follow what the server says; methods ask for a change.
 * The one exception is an end: hanging up takes effect here at once, with or without a connection.
 * @extends {Emitter<CallEvents>}
 */
export class Call extends Emitter {
  /** @type {"ringing"|"active"|"ended"} */
  phase = "ringing";
  /** Whether it came in while this User was in a Call already. */
  waiting = false;
  /** @type {string|null} the Call this one continues, after a transfer or merge */
  replaces = null;
  /** @type {string|null} the name of the Room this one continues, where only two were left */
  fromRoom = null;
  /** @type {Transfer|null} while a blind transfer rings */
  transferring = null;
  /** @type {MediaStream|null} */
  localStream = null;
  /** @type {MediaStream|null} */
  remoteStream = null;
  /** Whether {@link mute} has silenced the microphone. */
  muted = false;
  /** @type {MediaSent|null} what the other side says that it sends; null until it has */
  peerMedia = null;
  heldByMe = false;
  heldByPeer = false;
  /** @type {number|null} milliseconds since 1970 */
  answeredAt = null;
  answeredElsewhere = false;
  /** @type {Progress|null} how far a phone call is that is not answered yet */
  progress = null;
  /** @type {string|null} the Number of ours that a phone has called */
  dialled = null;
  /** @type {CallEnd|null} */
  end = null;
  /** @type {string[]|null} the short code, once both sides have shown themselves */
  code = null;
  /** @type {"new"|"known"|"changed"|null} whether this Device of the other side was seen before, with the same key */
  peerDevice = null;

  #context;
  #peer;
  #reader = new ConnectionReader();
  /** Made before anything is said, see "The short code". */
  #identity = makeCertificate().then((made) => ({ ...made, nonce: makeNonce() }));
  /** @type {CallState|null} */
  #state = null;
  #sealed = "";
  /** @type {string|null} the first one heard, for a later one could have been made to fit */
  #commitment = null;
  /** @type {Promise<CodeExchange>|null} */
  #exchange = null;
  /** Messages of the exchange, one after the other, from the moment the Call is active. */
  #beginCode = () => {};
  /** @type {Promise<void>} */
  #codeQueue = new Promise((resolve) => (this.#beginCode = resolve));
  /** @type {Promise<any>|null} */
  #accepting = null;
  /** @type {PhoneMedia|null} */
  #phone = null;
  /** The Room that is joined, or about to be. @type {string|null} */
  #room = null;
  /** Whether the other side could be told what we send. */
  #isMediaTold = true;

  /**
   * @internal
   * @param {CallContext} context
   * @param {{id: string, direction: "out"|"in", peer: Person, media: MediaKinds}} call
   */
  constructor(context, { id, direction, peer, media }) {
    super();
    this.id = id;
    this.direction = direction;
    this.peer = peer;
    this.media = media;
    this.#context = context;
    this.#peer = new Peer({
      call: id,
      device: context.device,
      command: context.command,
      configuration: context.configuration,
      onChange: () => this.#changed(),
      onStream: (stream) => this.emit("stream", stream),
      onFailure: (error) => this.#failed(error),
    });
    // Told when the Call starts; a Call that is declined needs none.
    this.#identity.catch(() => {});
  }

  /** @returns {MediaState} */
  get connectionState() {
    return this.isPhone ? (this.#phone?.state ?? "new") : this.#peer.state;
  }

  /** Whether the other side is a phone. */
  get isPhone() {
    return isPhone(this.peer.user);
  }

  /** The number or address of the phone on the other side; null of a User, and where the caller keeps it to themselves. */
  get number() {
    return numberOf(this.peer.user);
  }

  /** Presses keys for the phone on the other side. @param {string} keys 1 to 32 of `0-9*#A-D` */
  async dtmf(keys) {
    await this.#command("call.dtmf", { keys });
  }

  /**
   * Answers the Call with the tracks of `stream`. Rejects with `conflict` when it was decided elsewhere meanwhile.
   * @param {{stream?: MediaStream|null}} [options]
   */
  accept({ stream } = {}) {
    if (this.direction === "out") return Promise.reject(new OffhookError("wrong_phase", "only the callee accepts"));
    this.useStream(stream);
    this.#accepting ??= this.#atRevision("call.accept").finally(() => (this.#accepting = null));
    return this.#accepting;
  }

  /** @param {"declined"|"busy"} [reason] */
  decline(reason = "declined") {
    return this.#endHere(reason, CAUSE_REJECTED, () => this.#atRevision("call.decline", { reason }));
  }

  /** Stops calling. When the other side answered in the same moment, this hangs up. */
  cancel() {
    return this.#endHere("cancelled", CAUSE_NORMAL, async () => {
      // The invite may still be on its way, with no revision known yet; a hangup needs none.
      if (!this.#state) return this.#command("call.hangup");
      try {
        await this.#atRevision("call.cancel");
      } catch {
        await this.#command("call.hangup");
      }
    });
  }

  hangup() {
    if (this.phase === "ringing") return this.direction === "out" ? this.cancel() : this.decline();
    return this.#endHere("hangup", CAUSE_NORMAL, () => this.#command("call.hangup"));
  }

  hold() {
    return this.#hold(true);
  }

  resume() {
    return this.#hold(false);
  }

  /** Blind transfer: the other side rings `user`. @param {string} user a User, or a phone: `tel:…`, `sip:…` */
  async transfer(user) {
    this.#applyReply(await this.#command("call.transfer", { to: user }));
  }

  /** Attended transfer: connects the other sides of both Calls and leaves. @param {Call} other */
  async transferTo(other) {
    this.#applyReply(await this.#command("call.transfer", { with: other.id }));
  }

  /**
   * Goes on in a Room, where others can come in; the other side follows by itself, and nobody loses the other on the way.
   * Resolves once this side is in it; the Call ends when both hear each other there.
   * @param {Partial<RoomSettings>} [settings] of the Room
   */
  upgrade(settings = {}) {
    return this.#context.upgrade(this, settings);
  }

  /** Silences what the microphone sends, or lets it be heard again, by the track's `enabled`. @param {boolean} on */
  mute(on) {
    this.muted = on;
    const { audio } = this.#peer.media.tracks;
    if (audio) audio.enabled = !on;
    this.#phone?.send();
    this.#tellMedia();
    this.#changed();
  }

  /** Looks for another way to the other side now, as the client does by itself when the network comes back. */
  reconnect() {
    if (this.phase === "active" && !this.isPhone) this.#peer.restart();
  }

  /**
   * Replaces what is sent. A screen is sent in the camera's place; `null` brings the camera back.
   * @param {"audio"|"video"|"screen"} kind
   * @param {MediaStreamTrack|null} track stays the page's: it is never stopped here
   */
  async setTrack(kind, track) {
    if (this.phase === "ended") return;
    const { media } = this.#peer;
    const before = media.tracks[kind];
    if (before === track) return;
    media.tracks[kind] = track;
    if (kind === "screen") {
      // Text stays sharp this way, at a lower frame rate.
      if (track && !track.contentHint) track.contentHint = "detail";
      // The browser's own "stop sharing" button.
      track?.addEventListener("ended", () => this.#peer.media.tracks.screen === track && this.setTrack("screen", null));
    } else {
      if (kind === "audio" && track && this.muted) track.enabled = false;
      this.localStream ??= new MediaStream();
      if (before) this.localStream.removeTrack(before);
      if (track) this.localStream.addTrack(track);
    }
    const sent = this.#sendMedia();
    this.#tellMedia();
    this.#changed();
    // Before the Call is active there is nothing to wait for.
    if (this.phase === "active") await sent;
  }

  /** How the Call is connected, with rates since the last reading. */
  async connection() {
    if (this.isPhone) return (await this.#phone?.room.connection()) ?? this.#reader.read([]);
    const report = await this.#peer.stats();
    /** @type {any[]} */
    const stats = [];
    report?.forEach((stat) => stats.push(stat));
    return this.#reader.read(stats);
  }

  // From here on: for the client, not for pages.

  /** @internal */
  get sealed() {
    return this.#sealed;
  }

  /** @internal Whether it rings here and nobody has asked to accept it. */
  get isUnasked() {
    return this.direction === "in" && this.phase === "ringing" && !this.#accepting;
  }

  /** @internal @param {number} [ttl] */
  async invite(ttl) {
    // Nobody can read words to a phone that its network could not read, too.
    const { commitment } = /** @type {any} */ (this.isPhone ? {} : await (await this.#codeExchange()).repeat());
    if (this.phase === "ended") throw new OffhookError("aborted", "the Call was cancelled before it rang");
    const data = { to: this.peer.user, media: this.media, ...(commitment && { commitment }), ...(ttl && { ttl_ms: ttl }) };
    this.#applyReply(await this.#command("call.invite", data));
  }

  /** @internal Says that this Device rings. */
  async ring() {
    if (this.phase !== "ringing" || this.#state?.ringing.includes(this.#context.device.id)) return;
    try {
      this.#applyReply(await this.#command("call.ringing"));
    } catch {
      // Whatever became of the Call comes as its own update.
    }
  }

  /** @internal Sends the tracks of `stream`, as the page or an earlier Call had them. @param {MediaStream|null} [stream] */
  useStream(stream) {
    if (!stream) return;
    for (const track of stream.getTracks()) {
      // Who was silent in the Call before stays so.
      if (track.kind === "audio" && track.enabled === false) this.muted = true;
      this.setTrack(/** @type {"audio"|"video"} */ (track.kind), track);
    }
  }

  /** @internal What is sent, muted or not. */
  get sent() {
    return this.#peer.media.tracks;
  }

  /** @internal When sound or pictures of the other side came through last; 0: never. @param {"audio"|"video"} kind */
  arrivedAt(kind) {
    return this.#peer.arrivedAt(kind);
  }

  /** @internal The other side is heard elsewhere, or here again. @param {boolean} on */
  silence(on) {
    this.#peer.media.silence(on);
  }

  /** @internal Takes over a state the server told. @param {CallState} state @param {string} sealed */
  apply(state, sealed) {
    if (this.#state && !isNewer(state, this.#state)) return;
    this.#state = state;
    this.#sealed = sealed;
    this.#commitment ??= state.commitment;
    if (this.phase === "ended") return;

    const [mine, theirs] = this.#parties(state);
    const { user, name } = named(theirs);
    this.peer = { user, name };
    this.dialled = theirs.phone?.to ? numberOf(theirs.phone.to) : null;
    this.media = state.media;
    this.replaces = state.replaces;
    this.fromRoom = state.from_room ?? null;
    this.transferring = state.transfer;
    this.answeredAt = state.answered_at;
    this.heldByMe = state.held_by.includes(mine.user);
    this.heldByPeer = state.held_by.includes(theirs.user);

    if (state.phase === "ended" && state.end) return this.#finish(state.end);
    if (state.phase === "active") {
      if (mine.device !== this.#context.device.id) return this.#wasAnsweredElsewhere();
      if (this.isPhone) this.#answered();
      else this.#start(theirs.key ?? "");
      this.#holdMedia(state.held_by.length > 0);
    }
    if (state.room && this.isPhone && mine.device === this.#context.device.id) this.#meet(state.room);
    this.#changed();
  }

  /** @internal @param {string} type @param {any} data */
  handle(type, data) {
    if (type === "call.progress") this.#progressed(data);
    else if (type === "call.dtmf") this.emit("dtmf", data.keys);
    else if (type === "call.verify") this.#enqueueCode((exchange) => this.#verify(exchange, data));
    else if (type === "call.media") this.#heardMedia(data);
    else this.#peer.handle(type, data);
  }

  /** @internal What was queued for this Device may be lost: says again what the other side may wait for. */
  resync() {
    if (this.phase !== "active" || this.isPhone) return;
    this.#peer.resync();
    this.#tellMedia();
    if (!this.code) this.#enqueueCode(async (exchange) => this.#say(await exchange.repeat()));
  }

  /** @internal */
  configure() {
    this.#peer.configure();
  }

  /** @internal Ends the Call here only. @param {string} reason @param {number} [cause] */
  abandon(reason, cause = CAUSE_INTERWORKING) {
    this.#finish({ reason, cause, by: null, into: null });
  }

  /** @param {string} type @param {Record<string, any>} [data] */
  #command(type, data) {
    return this.#context.command(type, { call: this.id, ...data });
  }

  /**
   * Sends a command that names the revision it expects, again after a conflict as long as the Call still rings.
   * @param {string} type
   * @param {Record<string, any>} [data]
   */
  async #atRevision(type, data) {
    for (;;) {
      const rev = this.#state?.rev ?? 0;
      try {
        return this.#applyReply(await this.#command(type, { rev, ...data }));
      } catch (error) {
        const { code, details } = OffhookError.from(error, "internal");
        if (code !== "conflict" || !details.state) throw error;
        this.apply(details.state, details.sealed);
        if (details.state.phase !== "ringing" || details.state.rev === rev) throw error;
      }
    }
  }

  /** @param {{state: CallState, sealed: string}} reply */
  #applyReply({ state, sealed }) {
    if (state.call === this.id) this.apply(state, sealed);
  }

  /** @param {boolean} on */
  async #hold(on) {
    // Silence must not wait for the server; sound may.
    if (on) this.#holdMedia(true);
    try {
      this.#applyReply(await this.#command("call.hold", { on }));
    } finally {
      this.#holdMedia(this.heldByMe || this.heldByPeer);
    }
  }

  /** Neither side is sent anything; a phone goes on playing what it plays to who is held. @param {boolean} held */
  #holdMedia(held) {
    if (this.isPhone) this.#phone?.send();
    else this.#peer.hold(held);
  }

  #sendMedia() {
    return this.isPhone ? (this.#phone?.send() ?? Promise.resolve()) : this.#peer.sendMedia();
  }

  /**
   * @param {string} reason
   * @param {number} cause
   * @param {() => Promise<any>} tell
   */
  async #endHere(reason, cause, tell) {
    if (this.phase === "ended") return;
    const told = tell();
    this.#finish({ reason, cause, by: this.#context.me.user, into: null });
    try {
      await told;
    } catch (error) {
      if (!OVER_ALREADY.has(OffhookError.from(error, "internal").code)) throw error;
    }
  }

  /** @param {CallEnd} end */
  #finish(end) {
    if (this.phase === "ended") return;
    this.phase = "ended";
    this.end = end;
    this.transferring = null;
    this.#peer.close();
    this.#phone?.close();
    if (end.reason === "answered_elsewhere") this.answeredElsewhere = true;
    this.#context.ended(this);
    this.#changed();
    this.emit("ended", end);
  }

  #wasAnsweredElsewhere() {
    this.answeredElsewhere = true;
    this.#finish({ reason: "answered_elsewhere", cause: CAUSE_ANSWERED_ELSEWHERE, by: this.#context.me.user, into: null });
  }

  /** @param {OffhookError} error */
  #failed(error) {
    if (this.phase === "ended") return;
    this.#context.report(error);
    if (!BETRAYALS.has(error.code)) return;
    this.#endHere(error.code, CAUSE_INTERWORKING, () => this.#command("call.hangup", { cause: CAUSE_INTERWORKING }));
  }

  /** @param {CallState} state @returns {[mine: import("./types.js").Party, theirs: import("./types.js").Party]} */
  #parties({ caller, callee }) {
    return this.direction === "out" ? [caller, callee] : [callee, caller];
  }

  /** The Call is active and ours. @param {string} key the other Device's */
  #start(key) {
    if (this.phase === "active") return;
    this.phase = "active";
    this.remoteStream = this.#peer.media.remoteStream;
    const isCaller = this.direction === "out";
    this.#identity
      .then(({ certificate }) => this.#peer.start({ certificate, isCaller, key }))
      .catch((error) => this.#failed(OffhookError.from(error, "media_failed")));

    this.#enqueueCode(async (exchange) => {
      if (!isCaller && this.#commitment) await this.#verify(exchange, { commitment: this.#commitment });
      // A Call that nobody dialled here: the commitment was in no invite.
      if (isCaller && !this.#commitment) await this.#say(await exchange.repeat());
    });
    this.#beginCode();
    this.#tellMedia();
  }

  /** The phone has answered, or we have answered it. */
  #answered() {
    this.phase = "active";
    this.progress = null;
  }

  /** Joins the Room where a phone is heard, from the first moment there is one. @param {string} name */
  async #meet(name) {
    if (this.#room === name) return;
    this.#room = name;
    const before = this.#phone;
    try {
      const onStream = (/** @type {MediaStream} */ stream) => {
        this.remoteStream = stream;
        this.emit("stream", stream);
        this.#changed();
      };
      const met = await this.#context.meet(this, name, { onChange: () => this.#changed(), onStream });
      // The server has begun anew, with another Room.
      before?.close();
      if (!met) return;
      this.#phone = met;
      this.#phone.send();
      this.#changed();
    } catch (thrown) {
      this.#room = null;
      this.#failed(OffhookError.from(thrown, "media_failed"));
    }
  }

  /** @param {{progress: Progress["kind"], position?: number}} news */
  #progressed({ progress, position }) {
    if (this.phase !== "ringing") return;
    this.progress = { kind: progress, position: position ?? null };
    this.emit("progress", this.progress);
    this.#changed();
  }

  /** Tells the other side what the tracks alone do not: a screen looks like a camera, and a silent one like a quiet room. */
  #tellMedia() {
    if (this.phase !== "active" || this.isPhone) return;
    const { audio, video, screen } = this.#peer.media.tracks;
    const sent = { audio: Boolean(audio?.enabled), video: screen ? "screen" : video ? "camera" : null };
    this.#isMediaTold = true;
    this.#command("call.media", sent).catch(() => (this.#isMediaTold = false));
  }

  /** @param {MediaSent} sent */
  #heardMedia({ audio, video }) {
    this.peerMedia = { audio, video: video ?? null };
    // After a crash the other side may be back later than we are: then it speaks first.
    if (!this.#isMediaTold) this.#tellMedia();
    this.#changed();
  }

  #codeExchange() {
    this.#exchange ??= this.#identity.then(({ fingerprint, nonce }) => {
      const own = { key: this.#context.device.key, fingerprint, nonce };
      return new CodeExchange({ call: this.id, isCaller: this.direction === "out", own });
    });
    return this.#exchange;
  }

  /** @param {(exchange: CodeExchange) => Promise<any>} step */
  #enqueueCode(step) {
    this.#codeQueue = this.#codeQueue.then(async () => {
      if (this.phase === "ended") return;
      try {
        await step(await this.#codeExchange());
      } catch (error) {
        this.#failed(OffhookError.from(error, "internal"));
      }
    });
  }

  /** @param {object|null|undefined} data */
  #say(data) {
    if (!data) return;
    // What gets lost is said again by resync().
    this.#command("call.verify", data).catch(() => {});
  }

  /** @param {CodeExchange} exchange @param {any} message */
  async #verify(exchange, message) {
    const { reply, code } = await exchange.receive(message);
    this.#say(reply);
    if (!code || !exchange.peer || !this.#state) return;

    const theirs = this.#parties(this.#state)[1];
    const { key, fingerprint } = exchange.peer;
    if (key !== theirs.key) throw new OffhookError("bad_signature", "the other Device showed another key than it signs with");
    this.#peer.expectFingerprint(fingerprint);
    const { account } = this.#context.me;
    this.peerDevice = await this.#context.device.recognise(`${account}/${theirs.user}/${theirs.device}`, key);
    this.code = await wordsOf(code);
    this.emit("code", this.code);
    this.#changed();
  }

  #changed() {
    this.emit("changed", this);
  }
}

/** An ended state always wins, then the highest (`epoch`, `rev`). @param {CallState} a @param {CallState} b */
function isNewer(a, b) {
  if ((a.phase === "ended") !== (b.phase === "ended")) return a.phase === "ended";
  return a.epoch !== b.epoch ? a.epoch > b.epoch : a.rev > b.rev;
}
