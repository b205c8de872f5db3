// The Rooms of the server in memory: who is in, their Tracks, the lobby, and a slot for everything as long as there are
// slots. It reads as much of an SDP as that takes and forwards no media.

import { ulid } from "../ulid.js";

const MAY = {
  listener: { speak: false, video: false, share: false, moderate: false, data: false },
  speaker: { speak: true, video: true, share: true, moderate: false, data: true },
  moderator: { speak: true, video: true, share: true, moderate: true, data: true },
};
const MODERATED = new Set(["room.ask", "room.set", "room.admit", "room.role", "room.remove", "room.end"]);
const AUDIO = new Set(["microphone", "screen_audio"]);

export class Rooms {
  /** What to refuse offers with, by User. */
  refusals = new Map();
  participantsMax = 100;
  /** How many Participants one answer lists. */
  page = 100;

  #server;
  #rooms = new Map();

  constructor(server) {
    this.#server = server;
  }

  answer(session, type, data) {
    if (type === "room.join") return this.#join(session, data);
    const room = this.#rooms.get(data.room);
    if (!room) return error("unknown_room");
    const self = [...room.participants.values()].find((one) => one.session === session);
    if (!self) return error("not_in_room");
    if (MODERATED.has(type) && !self.state.permissions.moderate) return error("forbidden");

    switch (type) {
      case "room.offer":
        return this.#offer(room, self, data);
      case "room.leave":
        this.#leave(room, self, "left");
        return ok();
      case "room.mute":
        return this.#mute(room, self, data);
      case "room.want":
        self.wanted = data;
        return ok();
      case "room.set":
        return this.#set(room, data);
      case "room.admit":
        return this.#admit(room, data);
      case "room.role":
        return this.#role(room, data);
      case "room.remove":
        return this.#remove(room, data);
      case "room.end":
        for (const one of [...room.participants.values()]) this.#tell(room, one, "room.ended", { reason: "ended" });
        this.#rooms.delete(room.id);
        return ok();
      case "room.list": {
        const all = states(room);
        const from = all.findIndex(({ participant }) => participant === data.after) + 1;
        const participants = all.slice(from, from + this.page);
        return ok({ participants, next: from + this.page < all.length ? participants.at(-1).participant : undefined });
      }
      case "room.announce":
        self.state.e2ee = { device: session.device.id, device_key: session.device.key, ...data.e2ee };
        return this.#changed(room, self);
      case "room.keys":
        for (const { participant, ciphertext } of data.keys) {
          const to = room.participants.get(participant);
          if (to) this.#tell(room, to, "room.keys", { from: self.state.participant, epoch: data.epoch, ciphertext });
        }
        return ok();
      case "room.hand": {
        const one = data.participant ? room.participants.get(data.participant) : self;
        one.state.hand_at = data.up ? Date.now() : null;
        return this.#changed(room, one);
      }
      case "room.ask": {
        const owner = [...room.participants.values()].find(({ state }) => state.tracks.some(({ track }) => track === data.track));
        this.#tell(room, owner, "room.asked", { track: data.track, by: self.state.participant });
        return ok();
      }
      case "room.invite": {
        if (/^(tel|sips?):/.test(data.user)) return this.#dial(room, data.user);
        const invited = this.#server.sessionsOf(data.user);
        const { user: by, name } = self.state;
        const news = { room: room.name, by, name, participants: room.participants.size };
        for (const session of invited) this.#server.send(session, "room.invited", news);
        return invited.length ? ok() : error("peer_gone");
      }
      case "room.metadata":
        self.state.metadata = data.metadata;
        return this.#changed(room, self);
      case "room.react":
        this.#tellAll(room, "room.reaction", { participant: self.state.participant, reaction: data.reaction });
        return ok();
      case "room.chat":
        return this.#chat(room, self, data);
      default:
        return error("unknown_type");
    }
  }

  /** The one Room of that name, for tests that play the SFU. */
  named(name) {
    return [...this.#rooms.values()].find((room) => room.name === name);
  }

  /** Sends an event to everybody in the Room of that name, or to one User. */
  say(name, type, data, user) {
    const room = this.named(name);
    for (const one of room.participants.values()) {
      if (!user || one.state.user === user) this.#tell(room, one, type, data);
    }
  }

  /** Has somebody join who has no client: what tests of many people need. */
  populate(name, user, { tracks = ["microphone", "camera"], muted = [], role = "speaker", line } = {}) {
    const room = this.named(name);
    const shown = user.startsWith("tel:") ? null : user;
    const self = this.#participant({ session: null, user, name: shown, role });
    if (line) self.state.phone = line;
    self.state.tracks = tracks.map((source) => ({ track: ulid(), source, muted: muted.includes(source) }));
    this.#enter(room, self);
    return self.state;
  }

  /** The phone of this number has answered. */
  phoneTalks(name, user) {
    const room = this.named(name);
    const phone = [...room.participants.values()].find(({ state }) => state.user === user);
    phone.state.phone = "talking";
    this.#changed(room, phone);
  }

  /** The phone of this number has not, and why. */
  phoneEnds(name, user, phone) {
    const room = this.named(name);
    const self = [...room.participants.values()].find(({ state }) => state.user === user);
    room.participants.delete(self.state.participant);
    this.#tellAll(room, "room.left", { participant: self.state.participant, reason: "left", phone });
  }

  #dial(room, user) {
    if ([...room.participants.values()].some(({ state }) => state.user === user)) return error("self_call");
    this.populate(room.name, user, { tracks: ["microphone"], line: "ringing" });
    return ok();
  }

  /** The last two have gone on as a Call. */
  goOn(name) {
    const room = this.named(name);
    for (const one of [...room.participants.values()]) this.#tell(room, one, "room.ended", { reason: "call" });
    this.#rooms.delete(room.id);
  }

  /** Takes such a person away again. */
  depopulate(name, user) {
    const room = this.named(name);
    this.#leave(room, [...room.participants.values()].find(({ state }) => state.user === user), "left");
  }

  sessionEnded(session) {
    for (const room of [...this.#rooms.values()]) {
      for (const one of [...room.participants.values()]) if (one.session === session) this.#leave(room, one, "gone");
    }
  }

  #join(session, data) {
    const refusal = this.refusals.get(session.user);
    if (refusal) return error(refusal);
    const room = this.named(data.room) ?? this.#create(data.room, data.settings);
    const isFirst = room.participants.size === 0;
    if (room.settings.locked && !isFirst) return error("room_locked");
    if (room.settings.encrypted && !data.encrypted) return error("room_encrypted");
    if (room.participants.size >= this.participantsMax) return error("room_full");
    const waits = room.waiting.get(session);
    if (room.settings.lobby && !isFirst && !waits?.admitted) {
      room.waiting.set(session, { waiting: ulid(), user: session.user, name: title(session.user), at: Date.now() });
      this.#tellLobby(room);
      return ok({ waiting: true, room: room.id });
    }
    room.waiting.delete(session);
    const before = [...room.participants.values()].find((one) => one.session === session);
    if (before) this.#leave(room, before, "left");

    const role = isFirst ? "moderator" : room.settings.role;
    const self = this.#participant({ session, user: session.user, name: title(session.user), role });
    self.state.metadata = data.metadata ?? null;
    const answer = this.#negotiate(self, data);
    this.#enter(room, self);
    const { participant, permissions } = self.state;
    const present = { settings: room.settings, created_at: room.createdAt, participants: states(room).slice(0, this.page) };
    const state = { room: room.id, name: room.name, ...present };
    const next = room.participants.size > this.page ? present.participants.at(-1).participant : undefined;
    const reply = { participant, role, permissions, state, next, speakers: [], chat: room.chat, ...answer };
    return ok({ ...reply, ...this.#slotsOf(room, self) });
  }

  #create(name, settings) {
    const room = {
      id: ulid(),
      name,
      settings: { locked: false, lobby: false, role: "speaker", encrypted: false, back_to_call: false, metadata: null, ...settings },
      createdAt: Date.now(),
      participants: new Map(),
      waiting: new Map(),
      chat: [],
    };
    this.#rooms.set(room.id, room);
    return room;
  }

  #participant({ session, user, name, role }) {
    const participant = ulid();
    const joined = { hand_at: null, joined_at: Date.now(), tracks: [], metadata: null, e2ee: null };
    const state = { participant, user, name, role, permissions: MAY[role], ...joined };
    return { session, state, mids: new Map(), slots: [], generation: 0, wanted: null, layers: [] };
  }

  #enter(room, self) {
    room.participants.set(self.state.participant, self);
    this.#tellAll(room, "room.participant", { participant: self.state }, self);
    this.#tellSlots(room, self);
    if (self.state.permissions.moderate && room.waiting.size) this.#tellLobby(room);
  }

  #offer(room, self, data) {
    if (data.generation <= self.generation) return error("media_refused");
    const answer = this.#negotiate(self, data);
    this.#tellAll(room, "room.participant", { participant: self.state }, self);
    this.#tellSlots(room, self);
    return ok({ ...answer, ...this.#slotsOf(room, self) });
  }

  /** Takes an offer in: its sections that send are Tracks, the others slots. */
  #negotiate(self, { generation, sdp, tracks }) {
    self.generation = generation;
    const sections = sectionsOf(sdp);
    self.slots = sections.filter(({ direction }) => direction === "recvonly");
    const { speak, video, share } = self.state.permissions;
    const may = { microphone: speak, camera: video, screen: share, screen_audio: share };
    const sends = new Set(sections.filter(({ direction }) => direction === "sendonly").map(({ mid }) => mid));
    const named = tracks.filter(({ mid, source }) => sends.has(mid) && may[source]);
    const mids = new Map(named.map(({ mid }) => [mid, self.mids.get(mid) ?? ulid()]));
    self.mids = mids;
    self.state.tracks = named.map(({ mid, source, muted }) => ({ track: mids.get(mid), source, muted }));
    return { generation, sdp: `answer to ${generation}`, tracks: [...mids].map(([mid, track]) => ({ mid, track })) };
  }

  #slotsOf(room, self) {
    const others = [...room.participants.values()].filter((one) => one !== self).flatMap(({ state }) => state.tracks);
    const sound = others.filter(({ source }) => AUDIO.has(source));
    const pictures = others.filter(({ source }) => !AUDIO.has(source));
    const fill = (kind, tracks) => {
      const slots = self.slots.filter((slot) => slot.kind === kind);
      return slots.map(({ mid }, index) => ({ mid, track: tracks[index]?.track ?? null }));
    };
    const slots = [...fill("audio", sound), ...fill("video", pictures)];
    return { slots, audio_wanted: self.slots.filter(({ kind }) => kind === "audio").length, video_wanted: pictures.length };
  }

  #tellSlots(room, but) {
    for (const one of room.participants.values()) {
      if (one !== but && one.session) this.#tell(room, one, "room.slots", this.#slotsOf(room, one));
    }
  }

  #leave(room, self, reason) {
    room.participants.delete(self.state.participant);
    this.#tellAll(room, "room.left", { participant: self.state.participant, reason });
    this.#tellSlots(room);
    const left = [...room.participants.values()];
    if (room.settings.back_to_call && left.length === 2) this.#server.calls.begin(left[0].session, left[1].session, room.name);
  }

  #mute(room, self, { track, muted }) {
    const owner = [...room.participants.values()].find(({ state }) => state.tracks.some((one) => one.track === track));
    if (!owner) return error("bad_data");
    const isOwn = owner === self;
    // A phone can not unmute itself.
    if (!isOwn && ((!muted && !owner.state.phone) || !self.state.permissions.moderate)) return error("forbidden");
    const state = owner.state.tracks.find((one) => one.track === track);
    const may = { microphone: owner.state.permissions.speak, camera: owner.state.permissions.video };
    if (!muted && may[state.source] === false) return error("forbidden");
    state.muted = muted;
    if (!isOwn) this.#tell(room, owner, "room.muted", { track, by: self.state.participant });
    return this.#changed(room, owner);
  }

  #set(room, changes) {
    const { locked, lobby, role, encrypted, metadata } = changes;
    if (encrypted && !room.settings.encrypted) return error("forbidden");
    for (const [key, value] of Object.entries({ locked, lobby, role, encrypted, metadata })) if (value !== undefined) room.settings[key] = value;
    this.#tellAll(room, "room.settings", { settings: room.settings });
    return ok({ settings: room.settings });
  }

  #admit(room, { waiting, admit }) {
    for (const [session, entry] of [...room.waiting]) {
      if (!waiting.includes(entry.waiting)) continue;
      if (admit) entry.admitted = true;
      else room.waiting.delete(session);
      const type = admit ? "room.admitted" : "room.denied";
      this.#server.send(session, type, { room: room.id, ...(!admit && { reason: "denied" }) });
    }
    this.#tellLobby(room);
    return ok();
  }

  #role(room, { participant, role }) {
    const one = room.participants.get(participant);
    if (!one) return error("bad_data");
    Object.assign(one.state, { role, permissions: MAY[role] });
    return this.#changed(room, one);
  }

  #remove(room, { participant }) {
    const one = room.participants.get(participant);
    if (!one) return error("bad_data");
    this.#tell(room, one, "room.ended", { reason: "removed" });
    this.#leave(room, one, "removed");
    return ok();
  }

  #chat(room, self, { text, to }) {
    const { participant, user, name } = self.state;
    const message = { id: ulid(), from: { participant, user, name }, text, at: Date.now(), ...(to && { to }) };
    if (!to) room.chat.push(message);
    for (const one of room.participants.values()) {
      if (one !== self && (!to || to.includes(one.state.participant))) this.#tell(room, one, "room.chat", { message });
    }
    return ok({ id: message.id, at: message.at });
  }

  #changed(room, self) {
    this.#tellAll(room, "room.participant", { participant: self.state });
    return ok();
  }

  #tellLobby(room) {
    const waiting = [...room.waiting.values()].filter(({ admitted }) => !admitted);
    for (const one of room.participants.values()) {
      if (one.state.permissions.moderate) this.#tell(room, one, "room.lobby", { waiting });
    }
  }

  #tellAll(room, type, data, but) {
    for (const one of room.participants.values()) if (one !== but) this.#tell(room, one, type, data);
  }

  #tell(room, { session }, type, data) {
    if (session) this.#server.send(session, type, { room: room.id, ...data });
  }
}

function sectionsOf(sdp) {
  return sdp
    .split(/^m=/m)
    .slice(1)
    .map((text) => ({
      kind: /^\w+/.exec(text)[0],
      mid: /^a=mid:(\S+)/m.exec(text)[1],
      direction: /^a=(sendonly|recvonly|sendrecv|inactive)/m.exec(text)[1],
    }));
}

function states(room) {
  return [...room.participants.values()].map(({ state }) => structuredClone(state));
}

function title(user) {
  return user[0].toUpperCase() + user.slice(1);
}

function ok(data = {}) {
  return ["ok", data];
}

function error(code) {
  return ["error", { code, message: code }];
}
