// A server of calls.v1 in memory: Sessions, resume, presence, Calls and Rooms as docs/calls.v1.md tells them, without limits,
// signatures of tokens or time. Its sockets look like WebSockets to the client; nothing leaves the process.

import { ulid } from "../ulid.js";
import { Calls } from "./calls.js";
import { Rooms } from "./rooms.js";
import { Telephony } from "./telephony.js";

export class FakeServer {
  /** Whether new sockets open at all. */
  reachable = true;
  /** Every hello seen, oldest first. */
  hellos = [];
  /** Frames of clients in the order they arrived: `[user, frame]`. */
  frames = [];
  /** What to refuse tokens with, by token. */
  refusals = new Map();
  pingMs = 25_000;
  /** Whether there is a phone gateway, and everybody may use it. */
  canDial = true;
  /** How long TURN credentials are good; null refuses new ones. */
  turnSeconds = null;

  sessions = new Map();
  sockets = new Set();
  presence = new Map();
  calls = new Calls(this);
  rooms = new Rooms(this);
  telephony = new Telephony(this);

  /** Made for `Session`'s option `open`. */
  open = () => {
    const socket = new FakeSocket(this);
    this.sockets.add(socket);
    setTimeout(() => {
      if (socket.readyState !== 0) return;
      if (!this.reachable) return socket.fail(1006);
      socket.readyState = 1;
      socket.onopen?.({});
    }, 0);
    return socket;
  };

  /** Cuts every socket without a word, as a lost network does. */
  cut(code = 1006) {
    for (const socket of [...this.sockets]) socket.fail(code);
  }

  /** Forgets Sessions and Calls, as a crash does; the sealing secret survives on disk. */
  crash() {
    this.cut();
    this.sessions.clear();
    this.presence.clear();
    this.calls = new Calls(this);
    this.rooms = new Rooms(this);
  }

  sessionsOf(user) {
    return [...this.sessions.values()].filter((session) => session.user === user);
  }

  ofDevice(device) {
    return [...this.sessions.values()].find((session) => session.device.id === device);
  }

  /** Sends a reliable message to a Session, now or when it resumes. */
  send(session, type, data, replyTo) {
    const frame = { type, id: ulid(), seq: ++session.sent, data, ...(replyTo && { reply_to: replyTo }) };
    session.outbox.push(frame);
    session.socket?.deliver({ ...frame, ack: session.received });
  }

  receive(socket, frame) {
    if (frame.type === "hello") return this.#hello(socket, frame.data);
    const { session } = socket;
    session.keyBefore = null;
    this.frames.push([session.user, frame]);
    session.outbox = session.outbox.filter(({ seq }) => seq > (frame.ack ?? 0));

    if (frame.seq !== undefined) {
      if (frame.seq <= session.received) return;
      if (frame.seq > session.received + 1) return socket.end(4002);
      session.received = frame.seq;
    }
    if (frame.type === "ping") socket.deliver({ type: "pong", id: ulid() });
    else if (frame.type === "bye") this.#ended(session);
    else if (frame.seq !== undefined) this.#command(session, frame);
  }

  #hello(socket, { token, device, resume }) {
    this.hellos.push({ token, device, resume });
    const refusal = this.refusals.get(token);
    if (refusal) {
      socket.deliver({ type: "error", id: ulid(), data: { code: refusal, message: refusal } });
      return socket.end(4003);
    }

    const old = resume && this.sessions.get(resume.session);
    // A welcome can be lost on its way: the key before it stays good until the client speaks.
    const resumed = Boolean(old) && [old.key, old.keyBefore].includes(resume.key);
    const session = resumed
      ? old
      : { id: ulid(), user: token, device, sent: 0, received: 0, outbox: [], answered: new Map(), watches: false };
    if (resumed) old.socket?.end(4001);
    session.keyBefore = resumed ? resume.key : null;
    session.key = ulid();
    session.socket = socket;
    socket.session = session;
    this.sessions.set(session.id, session);

    socket.deliver({
      type: "welcome",
      id: ulid(),
      data: {
        session: session.id,
        key: session.key,
        ack: session.received,
        resumed,
        account: "acme",
        user: token,
        name: token[0].toUpperCase() + token.slice(1),
        ice_servers: this.#iceServers() ?? [],
        limits: { frame_bytes_max: 65536, room_participants_max: this.rooms.participantsMax },
        phone: this.canDial,
        resume_ms: 60_000,
        ping_ms: this.pingMs,
        server: "fake",
      },
    });
    if (resumed) {
      session.outbox = session.outbox.filter(({ seq }) => seq > resume.ack);
      for (const frame of session.outbox) socket.deliver({ ...frame, ack: session.received });
    } else {
      this.announce(session.user);
    }
  }

  #command(session, { type, id, data }) {
    const before = session.answered.get(id);
    const [kind, reply] = before ?? this.#answer(session, type, data);
    session.answered.set(id, [kind, reply]);
    this.send(session, kind, reply, id);
  }

  #answer(session, type, data) {
    switch (type) {
      case "presence.subscribe":
        session.watches = true;
        return ["ok", { users: [...new Set([...this.sessions.values()].map(({ user }) => user))].map((user) => this.statusOf(user)) }];
      case "presence.set":
        return ["ok", this.#setPresence(session.user, data)];
      case "turn.refresh": {
        const servers = this.#iceServers();
        return servers ? ["ok", { ice_servers: servers }] : ["error", { code: "internal", message: "no credentials" }];
      }
      case "history.list":
        return ["ok", { entries: [], missed: 0 }];
      case "history.seen":
      case "echo":
        return ["ok", data];
      case "voicemail.list":
      case "voicemail.heard":
      case "voicemail.delete":
      case "phone.settings":
      case "phone.set":
        return this.telephony.answer(session, type, data);
      default:
        return (type.startsWith("room.") ? this.rooms : this.calls).answer(session, type, data);
    }
  }

  #iceServers() {
    if (this.turnSeconds === null) return null;
    const username = `${Math.floor(Date.now() / 1000) + this.turnSeconds}:acme:somebody`;
    return [{ urls: ["turn:server"], username, credential: "secret" }];
  }

  #setPresence(user, { status, call_waiting }) {
    const before = this.presence.get(user);
    const said = { status: status ?? before?.status ?? "available", call_waiting: call_waiting ?? before?.call_waiting ?? true };
    if (status !== undefined || call_waiting !== undefined) this.presence.set(user, said);
    this.announce(user);
    return { ...said, chosen: this.presence.has(user) };
  }

  statusOf(user) {
    const online = this.sessionsOf(user).length > 0;
    return { user, name: user[0].toUpperCase() + user.slice(1), status: online ? (this.presence.get(user)?.status ?? "available") : "offline" };
  }

  announce(user) {
    for (const session of this.sessions.values()) {
      if (session.watches) this.send(session, "presence", this.statusOf(user));
    }
  }

  #ended(session) {
    this.sessions.delete(session.id);
    session.socket?.end(1000);
    this.calls.sessionEnded(session);
    this.rooms.sessionEnded(session);
    this.announce(session.user);
  }
}

class FakeSocket {
  readyState = 0;
  onopen = null;
  onmessage = null;
  onclose = null;
  session = null;
  isLost = false;

  constructor(server) {
    this.server = server;
  }

  /** From the client. */
  send(text) {
    const frame = JSON.parse(text);
    // A task later, as on a network: what was sent before the network died may or may not arrive.
    setTimeout(() => !this.isLost && this.server.receive(this, frame), 0);
  }

  /** To the client; what is on its way when the socket dies is lost. */
  deliver(frame) {
    const text = JSON.stringify(frame);
    setTimeout(() => this.readyState === 1 && this.onmessage?.({ data: text }), 0);
  }

  close(code) {
    this.closedWith = code;
    this.#gone();
  }

  /** The network in between dies. */
  fail(code) {
    if (this.readyState === 3) return;
    this.isLost = true;
    this.#gone();
    setTimeout(() => this.onclose?.({ code, reason: "" }), 0);
  }

  /** The server closes: what it had sent before arrives first. */
  end(code) {
    setTimeout(() => this.fail(code), 0);
  }

  #gone() {
    this.readyState = 3;
    this.server.sockets.delete(this);
    if (this.session?.socket === this) this.session.socket = null;
  }
}
