import { Call } from "./call.js";
import { openDevice } from "./device.js";
import { OffhookError } from "./errors.js";
import { Emitter } from "./events.js";
import { named, toTarget } from "./numbers.js";
import { Session } from "./session.js";
import { ulid } from "./ulid.js";

/**
 * @import { CallState, ConnectionState, HistoryEntry, Invitation, Me, MediaKinds, Presence, RoomSettings, Status, VoicemailEntry, Welcome } from "./types.js"
 * @import { Device } from "./device.js"
 * @import { JoinOptions, Room } from "./room.js"
 * @import { Telephony } from "./telephony.js"
 */

/**
 * The part of their life after which TURN credentials are renewed, and the least and the longest pause between two
 * renewals: their end is told by the server's clock, and that of this machine may be wrong.
 */
const CREDENTIALS_SHARE = 0.8;
const CREDENTIALS_PAUSE_MS = 30_000;
const CREDENTIALS_PAUSE_MS_MAX = 30 * 60_000;

/** Errors after which a Call that was handed back to the server is lost. */
const LOST = new Set(["unknown_call", "not_a_party", "forged_snapshot", "wrong_phase"]);

/**
 * @typedef {object} ClientOptions
 * @property {string} [url] default: `/v1/calls` where the page came from
 * @property {string | (() => string | Promise<string>)} token an access token, or what brings a fresh one
 * @property {{name?: string}} [device]
 * @property {{iceTransportPolicy?: RTCIceTransportPolicy}} [rtc] for tests
 */

/**
 * @typedef {object} ClientEvents
 * @property {[state: ConnectionState, reason?: string]} stateChanged
 * @property {[presence: Presence]} presence
 * @property {[call: Call]} incoming
 * @property {[call: Call]} call a Call that nobody dialled here: made by a transfer or merge, or out of a Room
 * @property {[call: Call, room: Room, waitFor: (ready: Promise<unknown>) => void]} upgrading a Call is about to go on in a Room: play
 *   its `audio` now. `waitFor` takes a promise before which sound does not change place
 * @property {[call: Call, room: Room]} upgraded a Call goes on in a Room, whoever wished for it
 * @property {[invitation: Invitation]} invited somebody would like this User to come into a Room
 * @property {[{entry?: HistoryEntry, missed: number}]} history
 * @property {[{entry?: VoicemailEntry, deleted?: string, unheard: number}]} voicemail a message was left or heard (`entry`), or deleted
 * @property {[error: OffhookError]} error what no promise tells
 */

/**
 * A User's connection to Offhook. Facts are events, commands are promises.
 * @extends {Emitter<ClientEvents>}
 */
export class OffhookClient extends Emitter {
  /** @type {Me|null} known once connected */
  me = null;
  /** @type {Map<string, Call>} the Calls that have not ended, by id */
  calls = new Map();
  /** @type {Set<Room>} the Rooms that this page is in, or waits to be let into */
  rooms = new Set();
  /** How many people fit into a Room; 0 where the server has none. */
  roomParticipantsMax = 0;
  /** Whether phones can be called: the access token allows it, and the server has a gateway. */
  canDial = false;

  #options;
  /** @type {Session|null} */
  #session = null;
  /** @type {Device|null} */
  #device = null;
  /** @type {RTCIceServer[]} */
  #iceServers = [];
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #credentialsTimer;
  /** Calls that ended lately, with the time: a server that crashed meanwhile may not know it yet. @type {Map<Call, number>} */
  #ended = new Map();
  #endedMs = 60_000;
  /** What the last Call that went into another one had sent. @type {{into: string, stream: MediaStream|null}|null} */
  #handedOver = null;
  /** Calls on their way into a Room, by id. @type {Map<string, Promise<Room>>} */
  #upgrades = new Map();
  /** @type {{users?: string[]}|null} */
  #presenceWatched = null;
  /** @type {{status?: Status, call_waiting?: boolean}} */
  #presenceSet = {};
  #isConnecting = false;
  /** Whether it was closed while it was connecting. */
  #isGivenUp = false;
  #unwatch = () => {};

  /** @param {ClientOptions} options */
  constructor(options) {
    super();
    this.#options = options;
  }

  /** @returns {ConnectionState} */
  get state() {
    return this.#isConnecting ? "connecting" : (this.#session?.state ?? "idle");
  }

  /**
   * Connects; resolves once the server knows this Device. Later interruptions mend by themselves: `state` tells.
   * After `close()`, or a failure, it may be called again.
   * @param {{signal?: AbortSignal}} [options] aborting matters until this resolves
   */
  async connect({ signal } = {}) {
    if (this.state !== "idle" && this.state !== "closed") throw new OffhookError("wrong_phase", `already ${this.state}`);
    this.#isConnecting = true;
    this.#isGivenUp = false;
    try {
      const device = await openDevice();
      if (signal?.aborted || this.#isGivenUp) {
        device.release();
        throw new OffhookError(signal?.aborted ? "aborted" : "closed", "connecting was given up");
      }
      this.#device = device;
      this.#session = new Session({
        url: socketUrl(this.#options.url),
        token: this.#options.token,
        device: { id: device.id, key: device.key, name: this.#options.device?.name ?? "browser" },
        handlers: {
          onState: (state, reason) => this.#stateChanged(state, reason),
          onWelcome: (welcome) => this.#welcomed(welcome),
          onMessage: (type, data) => this.#receive(type, data),
          onError: (error) => this.emit("error", error),
        },
      });
    } finally {
      this.#isConnecting = false;
    }
    this.#unwatch = watchPage(this);
    await this.#session.connect(signal);
  }

  /** Hangs up and leaves what is left and ends the Session; the promise of every open command rejects with `closed`. */
  async close() {
    for (const call of [...this.calls.values()]) {
      (call.direction === "in" && call.phase === "ringing" ? Promise.resolve() : call.hangup()).catch(() => {});
    }
    for (const room of [...this.rooms]) room.leave().catch(() => {});
    this.#isGivenUp = true;
    this.#session?.close();
  }

  /**
   * Names the Users whose presence is wanted, or everybody; later changes come as `presence` events.
   * @param {string[]} [users]
   * @returns {Promise<Presence[]>}
   */
  async subscribePresence(users) {
    const data = users ? { users } : {};
    const reply = await this.#command("presence.subscribe", data);
    this.#presenceWatched = data;
    return reply.users.map(named);
  }

  /**
   * Says how reachable the User is, on all Devices; what is left out stays.
   * @param {{status?: Status, callWaiting?: boolean}} [presence]
   * @returns {Promise<{status: Status, callWaiting: boolean, chosen: boolean}>} what holds now; `chosen` is false as long
   *   as no Device of the User has said anything
   */
  async setPresence({ status, callWaiting } = {}) {
    const data = { ...(status && { status }), ...(callWaiting !== undefined && { call_waiting: callWaiting }) };
    const holds = await this.#command("presence.set", data);
    Object.assign(this.#presenceSet, data);
    return { status: holds.status, callWaiting: holds.call_waiting, chosen: holds.chosen };
  }

  /**
   * Calls a User; resolves as soon as the server has taken the Call on, which then rings or has ended already (`busy`,
   * `unavailable`). `signal` gives up until then; afterwards the Call's own `cancel()` does.
   * @param {string} user
   * @param {{media?: MediaKinds, stream?: MediaStream|null, signal?: AbortSignal, ttlMs?: number}} [options]
   * @returns {Promise<Call>}
   */
  async call(user, { media = { audio: true, video: true }, stream, signal, ttlMs } = {}) {
    if (signal?.aborted) throw new OffhookError("aborted", "calling was aborted");
    const { name } = named({ user, name: null });
    const call = this.#add({ id: ulid(), direction: "out", peer: { user, name }, media });
    call.useStream(stream);

    let abort = () => {};
    /** @type {Promise<never>} */
    const aborted = new Promise((_, reject) => {
      abort = () => reject(new OffhookError("aborted", "calling was aborted"));
      signal?.addEventListener("abort", abort);
    });
    try {
      await Promise.race([call.invite(ttlMs), aborted]);
      return call;
    } catch (error) {
      if (signal?.aborted) call.cancel().catch(() => {});
      else call.abandon("failed");
      throw OffhookError.from(error, "media_failed");
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /**
   * Calls a phone: a number as people type it (`+49 30 123456`, `42`), or an address of SIP. Rejects with `bad_number` what is
   * neither, with `forbidden` where the access token does not allow it, with `phone_unavailable` where there is no gateway. Its
   * `progress` tells what becomes of it, and what the other side plays meanwhile is heard already.
   * @param {string} number
   * @param {{stream?: MediaStream|null, signal?: AbortSignal, ttlMs?: number}} [options]
   * @returns {Promise<Call>}
   */
  async dial(number, options = {}) {
    return this.call(toTarget(number), { ...options, media: { audio: true, video: false } });
  }

  /**
   * Joins a Room of the Account, or creates it; resolves as soon as the server has answered: `joined`, or `waiting` in the
   * lobby. What Rooms need is loaded with the first one.
   * @param {string} name 1 to 64 of `a-z`, `0-9`, `-` and `_`
   * @param {JoinOptions} [options]
   * @returns {Promise<Room>}
   */
  async joinRoom(name, options = {}) {
    const room = await this.#makeRoom(name, options);
    return this.#join(room, options.signal);
  }

  /** @param {string} name @param {JoinOptions} options */
  async #makeRoom(name, { signal, ...options }) {
    const { Room } = await import("./room.js");
    const device = this.#device;
    const isConnected = device !== null && (this.state === "connected" || this.state === "reconnecting");
    if (signal?.aborted || !isConnected) throw new OffhookError(isConnected ? "aborted" : "closed", "the Room was not joined");
    const room = new Room(
      {
        device,
        command: (type, data) => this.#command(type, data),
        configuration: () => this.#configuration(),
        account: () => this.me?.account ?? "",
        ended: (ended) => this.#roomEnded(ended),
      },
      name,
      options,
    );
    this.rooms.add(room);
    this.#updateInCall();
    return room;
  }

  /** @param {Room} room @param {AbortSignal} [signal] */
  async #join(room, signal) {
    const abort = () => room.abandon("aborted");
    signal?.addEventListener("abort", abort);
    try {
      await room.join();
      if (signal?.aborted) throw new OffhookError("aborted", "joining was aborted");
      return room;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /**
   * @param {{before?: string, limit?: number}} [page]
   * @returns {Promise<{entries: HistoryEntry[], next?: string, missed: number}>} newest first
   */
  async history(page = {}) {
    const { entries, ...rest } = await this.#command("history.list", page);
    return { ...rest, entries: entries.map(withPeerNamed) };
  }

  /** Marks missed Calls as seen. */
  async historySeen() {
    await this.#command("history.seen");
  }

  /** Mailboxes, and how this User wants to be called by phone; what they need is loaded with the first use. @returns {Promise<Telephony>} */
  async telephony() {
    const { Telephony } = await import("./telephony.js");
    return new Telephony((type, data) => this.#command(type, data), this.#options);
  }

  /** @internal The page woke up or went online. @param {boolean} isNewNetwork */
  networkChanged(isNewNetwork) {
    this.#session?.probe();
    if (isNewNetwork) for (const media of [...this.calls.values(), ...this.rooms]) media.reconnect();
  }

  /** @param {Call} call @param {Partial<RoomSettings>} [settings] @returns {Promise<Room>} */
  async #upgrade(call, settings) {
    const { room } = await this.#command("call.upgrade", { call: call.id });
    const own = [...this.rooms].find(({ name }) => call.isPhone && name === room);
    if (own) {
      // A phone is in a Room already; from now on that is all there is.
      this.emit("upgraded", call, own);
      return own;
    }
    return this.#goOn(call, room, settings);
  }

  /**
   * Where a phone is heard.
   * @param {Call} call @param {string} name
   * @param {{onChange: () => void, onStream: (stream: MediaStream) => void}} hooks
   */
  async #meet(call, name, hooks) {
    const { PhoneMedia } = await import("./phone.js");
    const room = await this.#makeRoom(name, { audio: call.muted ? null : call.sent.audio });
    const media = new PhoneMedia({ call, room, onError: (error) => this.emit("error", error), ...hooks });
    if (call.phase === "ended") {
      media.close();
      return null;
    }
    await this.#join(room);
    if (/** @type {string} */ (call.phase) === "ended") media.close();
    return media;
  }

  /** Both sides come here, and both may have wished for it. @param {Call} call @param {string} name @param {Partial<RoomSettings>} [settings] */
  #goOn(call, name, settings) {
    const under = this.#upgrades.get(call.id);
    if (under) return under;
    const going = this.#enter(call, name, settings);
    this.#upgrades.set(call.id, going);
    going.catch(() => this.#upgrades.delete(call.id));
    return going;
  }

  /** @param {Call} call @param {string} name @param {Partial<RoomSettings>} [settings] */
  async #enter(call, name, settings) {
    const { Handover } = await import("./handover.js");
    const { audio, video } = call.sent;
    const room = await this.#makeRoom(name, { audio: call.muted ? null : audio, video, settings: { back_to_call: true, ...settings } });
    const handover = new Handover({ call, room, to: "room", command: (type, data) => this.#command(type, data) });
    handover.onMoved = () => this.emit("upgraded", call, room);
    this.emit("upgrading", call, room, (ready) => handover.waitFor(ready));
    return this.#join(room);
  }

  /** @param {Call} call one that the last two of a Room go on in @param {Room} room */
  async #comeBack(call, room) {
    const { Handover } = await import("./handover.js");
    new Handover({ call, room, to: "call", command: (type, data) => this.#command(type, data) });
  }

  /** @param {string} type @param {Record<string, any>} [data] @returns {Promise<any>} */
  #command(type, data) {
    return this.#session?.command(type, data) ?? Promise.reject(new OffhookError("closed", "not connected"));
  }

  /** @param {ConnectionState} state @param {string} [reason] */
  #stateChanged(state, reason) {
    if (state === "closed") {
      this.#unwatch();
      clearTimeout(this.#credentialsTimer);
      this.#device?.release();
      for (const call of [...this.calls.values()]) call.abandon("gone");
      for (const room of [...this.rooms]) room.abandon(reason ?? "closed");
      this.#ended.clear();
      this.#handedOver = null;
    }
    this.emit("stateChanged", state, reason);
  }

  /** @param {Welcome} welcome */
  #welcomed({ account, user, name, ice_servers, resumed, resume_ms, limits, phone }) {
    this.me = { account, user, name: name ?? user };
    this.#endedMs = resume_ms;
    this.roomParticipantsMax = limits?.room_participants_max ?? 0;
    this.canDial = phone ?? false;
    this.#useIceServers(ice_servers);
    if (resumed) return;

    for (const call of [...this.calls.values(), ...this.#ended.keys()]) this.#handBack(call);
    for (const room of [...this.rooms]) room.sessionLost();
    this.#presenceAgain().catch((error) => this.emit("error", error));
  }

  /** The server lost this Session, perhaps all of them: shows it the last state it sealed for us. @param {Call} call */
  async #handBack(call) {
    // Without a state the invite is unanswered, and the Session sends it again.
    if (!call.sealed) return;
    try {
      const { state, sealed } = await this.#command("call.sync", { call: call.id, sealed: call.sealed });
      call.apply(state, sealed);
      call.resync();
    } catch (thrown) {
      const error = OffhookError.from(thrown, "internal");
      if (LOST.has(error.code)) call.abandon("gone");
      else if (error.code !== "network" && error.code !== "closed") this.emit("error", error);
    }
  }

  async #presenceAgain() {
    if (Object.keys(this.#presenceSet).length) await this.#command("presence.set", this.#presenceSet);
    if (!this.#presenceWatched) return;
    const { users } = await this.#command("presence.subscribe", this.#presenceWatched);
    for (const presence of users) this.emit("presence", named(presence));
  }

  /** @param {string} type @param {any} data */
  #receive(type, data) {
    if (type === "room.invited") return this.emit("invited", { ...data, name: data.name ?? data.by });
    if (type.startsWith("room.")) return [...this.rooms].find(({ id }) => id === data.room)?.handle(type, data);
    switch (type) {
      case "call.incoming":
        return this.#incoming(data);
      case "call.update":
        return this.#update(data);
      case "call.progress":
      case "call.dtmf":
      case "call.verify":
      case "call.media":
      case "sdp.offer":
      case "sdp.answer":
      case "ice.candidates":
      case "ice.restart":
        return this.calls.get(data.call)?.handle(type, data);
      case "call.upgraded": {
        const call = this.calls.get(data.call);
        // Without it the Call goes on as it is.
        if (call?.phase === "active") this.#goOn(call, data.room).catch((error) => this.emit("error", error));
        return;
      }
      case "presence":
        return this.emit("presence", named(data));
      case "history":
      case "voicemail":
        return this.emit(type, data.entry ? { ...data, entry: withPeerNamed(data.entry) } : data);
    }
    // Other types are of a later version, and nothing we could miss.
  }

  /** @param {{state: CallState, sealed: string, waiting?: boolean}} data */
  #incoming({ state, sealed, waiting = false }) {
    const known = this.#find(state.call);
    const call = known ?? this.#addState(state);
    call.waiting = waiting;
    call.apply(state, sealed);
    // A new Session hears of a Call again that rings here already.
    call.ring();
    if (!known) this.emit("incoming", call);
  }

  /** @param {{state: CallState, sealed: string, event: string}} data */
  #update({ state, sealed, event }) {
    const known = this.#find(state.call);
    if (known?.phase === "ended" || !known) return this.#updateUnknown(known, state, sealed, event);

    // A merge answers a Call that rang here a moment ago.
    const isAnsweredForUs = event === "answered" && known.isUnasked && this.#takesPart(state);
    if (isAnsweredForUs) known.useStream(this.#streamFor(state));
    known.apply(state, sealed);
    if (isAnsweredForUs) this.emit("call", known);
    // After a crash what was on its way to the other side may be lost, even if our own Session was not.
    if (event === "adopted") known.resync();
  }

  /**
   * News of a Call that is over here, was made by a transfer or merge, or was this Device's before the page was loaded.
   * @param {Call|undefined} ended @param {CallState} state @param {string} sealed @param {string} event
   */
  #updateUnknown(ended, state, sealed, event) {
    ended?.apply(state, sealed);
    if (state.phase === "ended" || !this.#takesPart(state)) return;
    if (ended) {
      // Another side brought back a Call from before its end.
      if (event === "adopted") this.#handBack(ended);
    } else if (event === "created" || event === "answered") {
      const call = this.#addState(state);
      const room = [...this.rooms].find(({ name }) => name === state.from_room);
      // There the other side is heard until it is heard here.
      if (room) call.silence(true);
      call.useStream(room ? room.stream : this.#streamFor(state));
      call.apply(state, sealed);
      this.emit("call", call);
      if (room) this.#comeBack(call, room).catch((error) => this.emit("error", error));
    } else {
      // Its media is gone with the page that had it; nobody should wait for it.
      this.#command("call.hangup", { call: state.call }).catch(() => {});
    }
  }

  /** @param {string} id */
  #find(id) {
    return this.calls.get(id) ?? [...this.#ended.keys()].find((call) => call.id === id);
  }

  /** @param {CallState} state */
  #takesPart({ caller, callee }) {
    return [caller.device, callee.device].includes(this.#device?.id ?? "");
  }

  /** @param {CallState} state */
  #addState({ call, caller, callee, media }) {
    const direction = caller.user === this.me?.user ? "out" : "in";
    const { user, name } = named(direction === "out" ? callee : caller);
    return this.#add({ id: call, direction, peer: { user, name }, media });
  }

  /** @param {{id: string, direction: "out"|"in", peer: {user: string, name: string}, media: MediaKinds}} described */
  #add(described) {
    const { me } = this;
    const device = this.#device;
    if (!me || !device) throw new OffhookError("closed", "not connected");
    const call = new Call(
      {
        me,
        device,
        command: (type, data) => this.#command(type, data),
        configuration: () => this.#configuration(),
        report: (error) => this.emit("error", error),
        upgrade: (upgraded, settings) => this.#upgrade(upgraded, settings),
        meet: (met, room, hooks) => this.#meet(met, room, hooks),
        ended: (ended) => this.#callEnded(ended),
      },
      described,
    );
    this.calls.set(call.id, call);
    this.#updateInCall();
    return call;
  }

  /** @returns {RTCConfiguration} */
  #configuration() {
    return { ...this.#options.rtc, iceServers: this.#iceServers };
  }

  #updateInCall() {
    this.#session?.setInCall(this.calls.size + this.rooms.size > 0);
  }

  /** @param {Room} room */
  #roomEnded(room) {
    this.rooms.delete(room);
    this.#updateInCall();
  }

  /** @param {Call} call */
  #callEnded(call) {
    this.calls.delete(call.id);
    this.#upgrades.delete(call.id);
    const now = Date.now();
    this.#ended.set(call, now);
    for (const [old, at] of this.#ended) if (at < now - this.#endedMs) this.#ended.delete(old);
    this.#updateInCall();

    const into = call.end?.into;
    if (!into) return;
    const next = this.calls.get(into);
    if (!next) this.#handedOver = { into, stream: call.localStream };
    else if (!next.localStream) next.useStream(call.localStream);
  }

  /** The tracks for a Call that continues another: the end of that one may come before or after. @param {CallState} state */
  #streamFor({ call, replaces, caller }) {
    if (this.#handedOver?.into === call) return this.#handedOver.stream;
    const crossing = [...this.calls.values()].find((other) => {
      return other.phase === "ringing" && other.direction === "out" && other.peer.user === caller.user;
    });
    return (this.calls.get(replaces ?? "") ?? crossing)?.localStream;
  }

  /** @param {RTCIceServer[]} servers */
  #useIceServers(servers) {
    this.#iceServers = servers;
    for (const media of [...this.calls.values(), ...this.rooms]) media.configure();

    const left = expiryOf(servers) - Date.now();
    if (left === Infinity) return clearTimeout(this.#credentialsTimer);
    const pause = Math.max(CREDENTIALS_PAUSE_MS, left * CREDENTIALS_SHARE);
    this.#renewCredentialsIn(Math.min(pause, CREDENTIALS_PAUSE_MS_MAX));
  }

  /** @param {number} ms */
  #renewCredentialsIn(ms) {
    clearTimeout(this.#credentialsTimer);
    this.#credentialsTimer = setTimeout(async () => {
      try {
        const { ice_servers } = await this.#command("turn.refresh");
        this.#useIceServers(ice_servers);
      } catch {
        if (this.state !== "closed") this.#renewCredentialsIn(CREDENTIALS_PAUSE_MS);
      }
    }, ms);
  }
}

/** @template {{peer: import("./types.js").Person}} Entry @param {Entry} entry @returns {Entry} */
function withPeerNamed(entry) {
  return { ...entry, peer: named(entry.peer) };
}

/** When the first of the credentials ends: their usernames begin with that time in seconds. @param {RTCIceServer[]} servers */
function expiryOf(servers) {
  const times = servers.map(({ username }) => Number(/^\d+/.exec(username ?? "")?.[0]) * 1000);
  return Math.min(Infinity, ...times.filter((time) => time > 0));
}

/** @param {string} [url] */
function socketUrl(url = "/v1/calls") {
  const absolute = new URL(url, globalThis.location?.href);
  absolute.protocol = absolute.protocol.replace("http", "ws");
  return absolute.href;
}

/**
 * Tells the client what happens to its page. Leaving the page ends the Session, or the other side would look at a
 * frozen picture until the server gives up.
 * @param {OffhookClient} client
 * @returns {() => void} stops watching
 */
function watchPage(client) {
  if (!globalThis.window) return () => {};
  const page = new AbortController();
  const { signal } = page;
  addEventListener("pagehide", ({ persisted }) => !persisted && client.close(), { signal });
  addEventListener("online", () => client.networkChanged(true), { signal });
  document.addEventListener("visibilitychange", () => !document.hidden && client.networkChanged(false), { signal });
  return () => page.abort();
}
