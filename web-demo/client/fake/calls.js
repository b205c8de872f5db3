// The Calls of the fake server: the state machine of docs/calls.v1.md, "Calls", as far as a client can see it.

import { ulid } from "../ulid.js";

const RELAYED = new Set(["call.verify", "call.media", "sdp.offer", "sdp.answer", "ice.candidates", "ice.restart"]);
/** Stands for the AEAD: the client can hand it back but a test can tell it from one made up. */
const SEAL = "sealed:";

export class Calls {
  #server;
  #calls = new Map();
  /** The newest generation each Device has offered, by Call and Device. */
  #offers = new Map();
  /** Which Devices say that they hear the other one in the new place, by Call and place. */
  #moved = new Map();

  constructor(server) {
    this.#server = server;
  }

  get(id) {
    return this.#calls.get(id);
  }

  /** @returns {["ok"|"error", object]} */
  answer(session, type, data) {
    if (type === "call.invite") return this.#invite(session, data);
    if (type === "call.sync") return this.#sync(session, data);
    const call = this.#calls.get(data.call);
    if (!call) return ["error", { code: "unknown_call", message: "unknown Call" }];
    if (RELAYED.has(type)) return this.#relay(session, call, type, data);
    if (type === "call.state") return ok(call);
    if (data.rev !== undefined && data.rev !== call.rev) {
      return ["error", { code: "conflict", message: "the Call moved on", state: call, sealed: seal(call) }];
    }
    return this.#act(session, call, type, data);
  }

  sessionEnded({ device }) {
    for (const call of this.#calls.values()) {
      const takesPart = [call.caller.device, call.callee.device].includes(device.id);
      if (call.phase !== "ended" && takesPart) this.#end(call, "gone", null);
    }
  }

  // What a phone gateway would say.

  /** A phone rings for these Users; the first who accepts has it. @returns {object[]} the Calls */
  phoneRings(users, from, { name = null, to = null } = {}) {
    const phone = ulid();
    return users.map((user) => {
      const call = {
        ...{ call: ulid(), rev: 1, epoch: 1, phase: "ringing", media: { audio: true, video: false } },
        ...{ caller: { user: from, name, device: null, key: null, phone: { call: phone, participant: null, to } }, callee: party(user) },
        ...{ ringing: [], held_by: [], created_at: Date.now(), answered_at: null, ended_at: null, commitment: null },
        ...{ transfer: null, replaces: null, end: null },
      };
      this.#calls.set(call.call, call);
      this.#ring(call);
      return call;
    });
  }

  /** @param {string} id @param {string} progress @param {number} [position] */
  phoneProgresses(id, progress, position) {
    const call = this.#calls.get(id);
    const session = this.#server.ofDevice(call.caller.device);
    this.#server.send(session, "call.progress", { call: id, progress, ...(position && { position }) });
  }

  phoneAnswers(id) {
    const call = this.#calls.get(id);
    this.#step(call, { phase: "active", answered_at: Date.now() });
    this.#tell(call, "answered");
  }

  phonePresses(id, keys) {
    const call = this.#calls.get(id);
    const session = this.#server.ofDevice(call.caller.device ?? call.callee.device);
    this.#server.send(session, "call.dtmf", { call: id, keys, by: call.callee.phone ? call.callee.user : call.caller.user });
  }

  phoneEnds(id, reason, phone) {
    const call = this.#calls.get(id);
    this.#end(call, reason, null, null, phone);
  }

  #invite(session, { call: id, to, media, commitment = null }) {
    const { user, device } = session;
    const isPhone = /^(tel|sips?):/.test(to);
    if (isPhone && !this.#server.canDial) return ["error", { code: "phone_unavailable", message: "no gateway" }];
    const call = {
      call: id,
      rev: 1,
      epoch: 1,
      phase: "ringing",
      media,
      caller: party(user, device),
      callee: party(to),
      ringing: [],
      held_by: [],
      created_at: Date.now(),
      answered_at: null,
      ended_at: null,
      commitment,
      transfer: null,
      replaces: null,
      end: null,
    };
    this.#calls.set(id, call);
    if (isPhone) {
      call.callee = { user: to, name: null, device: null, key: null, phone: { call: id, participant: null, to: null } };
      call.room = `call-${id.toLowerCase()}`;
      return ok(call);
    }
    const crossing = [...this.#calls.values()].find(
      ({ phase, caller, callee }) => phase === "ringing" && caller.user === to && callee.user === user,
    );
    if (crossing) this.#merge(call, crossing);
    else if (!this.#server.sessionsOf(to).length) this.#end(call, "unavailable", null);
    else this.#ring(call);
    return ok(call);
  }

  #ring(call) {
    for (const session of this.#server.sessionsOf(call.callee.user)) {
      const waiting = [...this.#calls.values()].some((other) => other.phase === "active" && involves(other, call.callee.user));
      this.#server.send(session, "call.incoming", { state: { ...call }, sealed: seal(call), waiting });
    }
  }

  /** The lower id goes on with both Devices. */
  #merge(a, b) {
    const [kept, given] = a.call < b.call ? [a, b] : [b, a];
    kept.callee = { ...given.caller };
    this.#step(kept, { phase: "active", answered_at: Date.now() });
    this.#tell(kept, "answered");
    this.#end(given, "merged", null, kept.call);
  }

  #act(session, call, type, data) {
    const { user, device } = session;
    const wrong = ["error", { code: "wrong_phase", message: `the Call is ${call.phase}` }];
    if (call.phase === "ended") return wrong;

    switch (type) {
      case "call.ringing":
        if (call.phase !== "ringing") return wrong;
        this.#step(call, { ringing: [...call.ringing, device.id] });
        this.#tell(call, "ringing");
        return ok(call);
      case "call.accept":
        if (call.phase !== "ringing") return wrong;
        this.#step(call, { phase: "active", answered_at: Date.now(), callee: party(user, device) });
        if (call.caller.phone) this.#takesPhone(call);
        this.#tell(call, "answered");
        if (call.replaces) this.#end(this.#calls.get(call.replaces), "transferred", null, call.call);
        return ok(call);
      case "call.decline":
        this.#end(call, data.reason, user);
        return ok(call);
      case "call.cancel":
        if (call.phase !== "ringing") return wrong;
        this.#end(call, "cancelled", user);
        return ok(call);
      case "call.hangup":
        this.#end(call, call.phase === "ringing" ? "cancelled" : "hangup", user);
        return ok(call);
      case "call.hold": {
        const others = call.held_by.filter((holder) => holder !== user);
        this.#step(call, { held_by: data.on ? [...others, user] : others });
        this.#tell(call, data.on ? "held" : "resumed");
        return ok(call);
      }
      case "call.dtmf":
        return ["ok", { state: call, sealed: seal(call) }];
      case "call.upgrade": {
        if (call.room) {
          this.#end(call, "upgraded", user);
          return ["ok", { room: call.room }];
        }
        const room = call.from_room ?? `call-${call.call.toLowerCase()}`;
        const target = this.#server.ofDevice(otherSide(call, user).device);
        if (!target) return ["error", { code: "peer_gone", message: "the other Device has no Session" }];
        this.#server.send(target, "call.upgraded", { call: call.call, room, by: user });
        return ["ok", { room }];
      }
      case "call.moved":
        this.#hasMoved(call, device.id, data.to);
        return ["ok", {}];
      case "call.transfer":
        return data.to ? this.#transferBlind(call, user, data.to) : this.#transferAttended(call, user, data.with);
      default:
        return ["error", { code: "unknown_type", message: type }];
    }
  }

  /** The phone is taken: the Calls of the others end. */
  #takesPhone(call) {
    call.room = `call-${call.call.toLowerCase()}`;
    for (const other of this.#calls.values()) {
      const isSame = other.caller.phone?.call === call.caller.phone.call && other !== call;
      if (isSame && other.phase === "ringing") this.#end(other, "answered_elsewhere", call.callee.user);
    }
  }

  #hasMoved(call, device, to) {
    const key = `${call.call} ${to}`;
    const moved = this.#moved.get(key) ?? new Set();
    this.#moved.set(key, moved.add(device));
    if (moved.size < 2) return;
    if (to === "call") return this.#server.rooms.goOn(call.from_room);
    this.#end(call, "upgraded", null);
    call.end.room = call.from_room ?? `call-${call.call.toLowerCase()}`;
  }

  /** Two who are left in a Room go on as a Call. */
  begin(caller, callee, room) {
    const call = {
      ...{ call: ulid(), rev: 1, epoch: 1, phase: "active", media: { audio: true, video: true } },
      ...{ caller: party(caller.user, caller.device), callee: party(callee.user, callee.device), ringing: [], held_by: [] },
      ...{ created_at: Date.now(), answered_at: Date.now(), ended_at: null, commitment: null, transfer: null, replaces: null },
      ...{ from_room: room, end: null },
    };
    this.#calls.set(call.call, call);
    this.#tell(call, "created");
  }

  #transferBlind(call, user, to) {
    const other = otherSide(call, user);
    const next = this.#successor(call, other, party(to), "ringing");
    this.#step(call, { transfer: { by: user, to, call: next.call } });
    this.#tell(next, "created", [other.device]);
    this.#tell(call, "transferring");
    this.#ring(next);
    return ok(call);
  }

  #transferAttended(call, user, withId) {
    const second = this.#calls.get(withId);
    const next = this.#successor(call, otherSide(call, user), otherSide(second, user), "active");
    this.#tell(next, "created", [next.caller.device, next.callee.device]);
    this.#end(call, "transferred", user, next.call);
    this.#end(second, "transferred", user, next.call);
    return ok(call);
  }

  #successor(call, caller, callee, phase) {
    const next = { ...call, call: ulid(), rev: 1, phase, caller: { ...caller }, callee, ringing: [], held_by: [] };
    Object.assign(next, { commitment: null, transfer: null, replaces: call.call, end: null });
    this.#calls.set(next.call, next);
    return next;
  }

  #sync(session, { sealed }) {
    if (!sealed.startsWith(SEAL)) return ["error", { code: "forged_snapshot", message: "not sealed by this server" }];
    const claimed = JSON.parse(sealed.slice(SEAL.length));
    const held = this.#calls.get(claimed.call);
    if (!held || newer(claimed, held)) {
      const call = { ...claimed, epoch: claimed.epoch + 1 };
      this.#calls.set(call.call, call);
      this.#tell(call, "adopted");
    }
    return ok(this.#calls.get(claimed.call));
  }

  #relay(session, call, type, data) {
    const { caller, callee } = call;
    const other = caller.device === session.device.id ? callee.device : caller.device;
    if (!this.#isFresh(call.call, session.device.id, other, type, data.generation)) {
      return ["error", { code: "stale_generation", message: "older than the configuration in force" }];
    }
    const target = this.#server.ofDevice(other);
    if (!target) return ["error", { code: "peer_gone", message: "the other Device has no Session" }];
    this.#server.send(target, type, { ...data, from: session.device.id });
    return ["ok", {}];
  }

  /** Both sides may offer the same generation at once; perfect negotiation settles that at the ends. */
  #isFresh(call, own, other, type, generation) {
    const newest = (device) => this.#offers.get(`${call} ${device}`) ?? 0;
    if (type === "sdp.answer") return generation === newest(other);
    if (type === "ice.candidates") return generation >= Math.max(newest(own), newest(other));
    if (type !== "sdp.offer") return true;
    if (generation <= newest(own) || generation < newest(other)) return false;
    this.#offers.set(`${call} ${own}`, generation);
    return true;
  }

  #end(call, reason, by, into = null, phone = undefined) {
    const end = { reason, cause: 16, by, into, ...(phone && { phone }) };
    this.#step(call, { phase: "ended", ended_at: Date.now(), transfer: null, end });
    this.#tell(call, "ended");
  }

  #step(call, changes) {
    Object.assign(call, changes, { rev: call.rev + 1 });
  }

  /** To the Devices named, else to all that ring or take part. */
  #tell(call, event, devices) {
    const callees = call.callee.device
      ? [call.callee.device, ...call.ringing]
      : this.#server.sessionsOf(call.callee.user).map(({ device }) => device.id);
    for (const device of new Set(devices ?? [call.caller.device, ...callees])) {
      const session = this.#server.ofDevice(device);
      if (session) this.#server.send(session, "call.update", { state: { ...call }, sealed: seal(call), event });
    }
  }
}

function party(user, device) {
  const name = user[0].toUpperCase() + user.slice(1);
  return { user, name, device: device?.id ?? null, key: device?.key ?? null };
}

function otherSide({ caller, callee }, user) {
  return caller.user === user ? callee : caller;
}

function involves({ caller, callee }, user) {
  return caller.user === user || callee.user === user;
}

function newer(a, b) {
  if ((a.phase === "ended") !== (b.phase === "ended")) return a.phase === "ended";
  return a.epoch !== b.epoch ? a.epoch > b.epoch : a.rev > b.rev;
}

function seal(call) {
  return SEAL + JSON.stringify(call);
}

function ok(call) {
  return ["ok", { state: { ...call }, sealed: seal(call) }];
}
