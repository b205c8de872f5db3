import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { OffhookClient } from "../client.js";
import { FakeConnection } from "../fake/connection.js";
import { FakeServer } from "../fake/server.js";

// Rooms against the fake server. What media does with it is for real browsers to show.

/** Every RTCPeerConnection of a test, in the order they were made. */
let connections = [];
const opened = new Set();

before(() => {
  globalThis.MediaStream = class {
    constructor(tracks = []) {
      this.tracks = tracks;
    }
    getTracks = () => this.tracks;
  };
  globalThis.RTCPeerConnection = class extends FakeConnection {
    constructor(configuration) {
      super(configuration);
      connections.push(this);
    }
  };
});

beforeEach(() => (connections = []));

afterEach(async () => {
  for (const client of opened) await client.close();
  opened.clear();
});

after(() => {
  delete globalThis.MediaStream;
  delete globalThis.RTCPeerConnection;
  delete globalThis.WebSocket;
});

test("a join takes one round trip, and everybody has the others", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("weekly", { audio: track("audio"), video: track("video") });
  const other = await bob.joinRoom("weekly", { audio: track("audio") });
  await until(() => one.participants.size === 1);

  assert.deepEqual(framesOf(server, "alice"), ["room.join"]);
  assert.deepEqual([one.state, one.local.role, other.local.role], ["joined", "moderator", "speaker"]);
  const [bobThere] = one.participants.values();
  const [aliceThere] = other.participants.values();
  assert.deepEqual([bobThere.name, aliceThere.name], ["Bob", "Alice"]);
  assert.deepEqual([...bobThere.tracks.values()].map(({ source, muted }) => [source, muted]), [["microphone", false], ["camera", true]]);
  await until(() => aliceThere.track("camera").stream && bobThere.track("microphone").stream);
  assert.equal(other.audio.length, 4);
  assert.ok(other.audio.includes(aliceThere.track("microphone").stream));
  assert.ok(!other.audio.includes(aliceThere.track("camera").stream));
});

test("a join offers microphone and camera, whether on or off, and slots to receive", async () => {
  const { server, alice } = await people("alice");
  await alice.joinRoom("weekly", { audio: track("audio") });
  const { tracks, sdp, generation } = server.frames.find(([, { type }]) => type === "room.join")[1].data;
  assert.equal(generation, 1);
  assert.deepEqual(tracks, [{ mid: "0", source: "microphone", muted: false }, { mid: "1", source: "camera", muted: true }]);
  assert.deepEqual(directions(sdp), { "audio sendonly": 1, "video sendonly": 1, "audio recvonly": 4, "video recvonly": 8 });
  const layers = connections[0].getTransceivers()[1].sender.encodings.map(({ rid, scaleResolutionDownBy }) => [rid, scaleResolutionDownBy]);
  assert.deepEqual(layers, [["q", 4], ["h", 2], ["f", 1]]);
});

test("a camera goes off and on without a new negotiation", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const camera = track("video");
  const one = await alice.joinRoom("weekly", { video: camera });
  const other = await bob.joinRoom("weekly");
  const seen = [...other.participants.values()][0].track("camera");
  const { sender } = connections[0].getTransceivers()[1];
  assert.equal(sender.track, camera);

  await one.local.setCamera(false);
  await until(() => seen.muted);
  assert.equal(sender.track, null);
  await one.local.setCamera(true);
  await until(() => !seen.muted);
  assert.equal(sender.track, camera);
  await one.local.setCamera(null);
  await assert.rejects(one.local.setCamera(true), { code: "wrong_phase" });
  assert.deepEqual(framesOf(server, "alice"), ["room.join", "room.mute", "room.mute", "room.mute"]);
});

test("what was switched while the server still answered the join is told afterwards", async () => {
  const { server, alice } = await people("alice");
  const joining = alice.joinRoom("weekly", { audio: track("audio") });
  await until(() => server.frames.some(([, { type }]) => type === "room.join"));
  const [room] = alice.rooms;
  await room.local.setMicrophone(false);
  await joining;
  await until(() => framesOf(server, "alice").includes("room.mute"));
  assert.equal(server.rooms.named("weekly").participants.get(room.local.id).state.tracks[0].muted, true);
});

test("a screen takes one offer, its end another, and the next one the same section", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("weekly");
  const other = await bob.joinRoom("weekly");
  const [sharer] = other.participants.values();

  await one.local.setScreen(track("video"), track("audio"));
  await until(() => sharer.track("screen")?.stream && sharer.track("screen_audio")?.stream);
  const screen = sharer.track("screen");
  await one.local.setScreen(null);
  await until(() => sharer.track("screen") === null);
  assert.equal(screen.stream, null);
  await one.local.setScreen(track("video"));
  await until(() => sharer.track("screen")?.stream);
  assert.deepEqual(framesOf(server, "alice"), ["room.join", "room.offer", "room.offer", "room.offer"]);
  assert.equal(connections[0].getTransceivers().length, 16);
});

test("a screen that the server refuses is not shared, and the rest goes on", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("weekly");
  const other = await bob.joinRoom("weekly", { video: track("video") });
  const answer = server.rooms.answer.bind(server.rooms);
  server.rooms.answer = (session, type, data) => (type === "room.offer" ? ["error", { code: "forbidden" }] : answer(session, type, data));
  await assert.rejects(one.local.setScreen(track("video")), { code: "forbidden" });
  assert.equal(one.local.track("screen"), null);
  assert.equal(connections[0].signalingState, "stable");

  server.rooms.answer = answer;
  await one.local.setScreen(track("video"));
  const [sharer] = other.participants.values();
  await until(() => sharer.track("screen")?.stream);
});

test("when there are more pictures than slots, more slots are offered, once", async () => {
  const { server, alice } = await people("alice");
  const room = await alice.joinRoom("weekly");
  for (let n = 0; n < 12; n++) server.rooms.populate("weekly", `guest${n}`);
  await until(() => room.participants.size === 12 && [...room.participants.values()].every((one) => one.track("camera").stream));
  const { sdp } = server.frames.findLast(([, { type }]) => type === "room.offer")[1].data;
  assert.equal(directions(sdp)["video recvonly"], 12);
  assert.ok(framesOf(server, "alice").length <= 5, framesOf(server, "alice").join());

  const streams = new Set([...room.participants.values()].map((one) => one.track("camera").stream));
  assert.equal(streams.size, 12);
});

test("of a big Room everybody is known, page by page", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  await alice.joinRoom("weekly");
  for (let n = 0; n < 25; n++) server.rooms.populate("weekly", `guest${n}`);
  server.rooms.page = 10;
  const room = await bob.joinRoom("weekly");
  await until(() => room.participants.size === 26);
  assert.deepEqual(framesOf(server, "bob").filter((type) => type === "room.list").length, 2);
  const names = [...room.participants.values()].map(({ user }) => user);
  assert.deepEqual([names[0], names[1], names[25]], ["alice", "guest0", "guest24"]);
});

test("who leaves is gone with their streams", async () => {
  const { server, alice } = await people("alice");
  const room = await alice.joinRoom("weekly");
  server.rooms.populate("weekly", "bob");
  await until(() => [...room.participants.values()][0]?.track("camera").stream);
  const [bob] = room.participants.values();
  const lost = [];
  room.on("trackUnsubscribed", (gone) => lost.push(gone.source));
  const left = next(room, "participantLeft");
  server.rooms.depopulate("weekly", "bob");
  assert.deepEqual(await left, [bob, "left"]);
  assert.deepEqual(lost.sort(), ["camera", "microphone"]);
  assert.equal(bob.track("camera").stream, null);
});

test("a moderator mutes; nobody but oneself unmutes, and the page hears of it", async () => {
  const { alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("weekly", { audio: track("audio") });
  const other = await bob.joinRoom("weekly", { audio: track("audio") });
  await until(() => one.participants.size === 1);
  const muted = next(other, "muted");
  await one.mute([...one.participants.values()][0].track("microphone"));
  const [own, by] = await muted;
  assert.deepEqual([own.source, own.muted, by.name], ["microphone", true, "Alice"]);
  assert.equal(connections[1].getTransceivers()[0].sender.track, null);
  await assert.rejects(other.mute([...other.participants.values()][0].track("microphone")), { code: "forbidden" });

  await other.local.setMicrophone(true);
  await until(() => [...one.participants.values()][0].track("microphone").muted === false);
});

test("a listener sends nothing, not even when they switch something on", async () => {
  const { alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("weekly", { settings: { role: "listener" } });
  const silenced = [];
  const joining = bob.joinRoom("weekly", { audio: track("audio"), video: track("video") });
  await until(() => bob.rooms.size);
  const [listening] = bob.rooms;
  listening.on("muted", (own, by) => silenced.push([own.source, by]));
  const other = await joining;
  assert.deepEqual(silenced, [["microphone", null], ["camera", null]]);
  assert.equal(connections[1].getTransceivers()[0].sender.track, null);
  await assert.rejects(other.local.setMicrophone(true), { code: "forbidden" });
  assert.equal(other.local.track("microphone").muted, true);

  await until(() => one.participants.size);
  const [listener] = one.participants.values();
  assert.equal(listener.tracks.size, 0);
  await one.setRole(listener, "speaker");
  await until(() => other.local.track("microphone").id);
  await other.local.setMicrophone(true);
  assert.equal(connections[1].getTransceivers()[0].sender.track?.kind, "audio");
  await until(() => listener.track("microphone")?.muted === false);
});

test("the lobby: waiting, let in, sent away", async () => {
  const { alice, bob, carol } = await people("alice", "bob", "carol");
  const one = await alice.joinRoom("weekly", { settings: { lobby: true } });
  const other = await bob.joinRoom("weekly");
  const third = await carol.joinRoom("weekly");
  assert.deepEqual([other.state, third.state, other.participants.size], ["waiting", "waiting", 0]);
  await until(() => one.waiting.length === 2);
  assert.deepEqual(one.waiting.map(({ name }) => name), ["Bob", "Carol"]);

  const ended = next(third, "ended");
  await one.admit([one.waiting[0].waiting]);
  await until(() => other.state === "joined" && one.participants.size === 1);
  await one.admit([one.waiting[0].waiting], false);
  assert.equal((await ended)[0].reason, "denied");
  await until(() => one.waiting.length === 0);
  assert.equal(carol.rooms.size, 0);
});

test("locked, full and refused are said by their codes", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("weekly");
  await one.set({ locked: true });
  assert.equal(one.settings.locked, true);
  await assert.rejects(bob.joinRoom("weekly"), { code: "room_locked" });
  await one.set({ locked: false });
  server.rooms.participantsMax = 1;
  await assert.rejects(bob.joinRoom("weekly"), { code: "room_full" });
  assert.equal(bob.rooms.size, 0);
  assert.ok(connections.slice(1).every(({ closed }) => closed));
});

test("wishes go out when they change, and not more often than four times a second", async () => {
  const { server, alice } = await people("alice");
  const room = await alice.joinRoom("weekly");
  server.rooms.populate("weekly", "bob");
  await until(() => room.participants.size);
  const camera = [...room.participants.values()][0].track("camera");
  for (let height = 100; height <= 900; height += 100) room.want([{ track: camera, height }]);
  room.want([{ track: camera, height: 1080, pinned: true }], false);
  await until(() => framesOf(server, "alice").filter((type) => type === "room.want").length === 2);
  room.want([{ track: camera, height: 1080, pinned: true }], false);
  await new Promise((resolve) => setTimeout(resolve, 300));

  const told = server.frames.filter(([, { type }]) => type === "room.want").map(([, { data }]) => data);
  const { id } = room;
  assert.deepEqual(told.map(({ wishes }) => wishes[0].height), [100, 1080]);
  assert.deepEqual(told[1], { room: id, automatic: false, wishes: [{ track: camera.id, wanted: true, height: 1080, pinned: true }] });
});

test("layers that nobody wants are not sent", async () => {
  const { server, alice } = await people("alice");
  const room = await alice.joinRoom("weekly", { video: track("video") });
  const wanted = [["q", true], ["h", false], ["f", false]].map(([rid, isWanted]) => ({ rid, wanted: isWanted }));
  server.rooms.say("weekly", "room.layers", { track: room.local.track("camera").id, wanted });
  const { encodings } = connections[0].getTransceivers()[1].sender;
  await until(() => !encodings[2].active);
  assert.deepEqual(encodings.map(({ active }) => active), [true, false, false]);
});

test("speakers, quality, pauses, hands, reactions and chat arrive", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("weekly");
  await one.sendChat("before you came");
  const other = await bob.joinRoom("weekly");
  await until(() => one.participants.size);
  assert.deepEqual(other.messages.map(({ text, from }) => [text, from.name]), [["before you came", "Alice"]]);
  const [aliceThere] = other.participants.values();
  const [bobThere] = one.participants.values();

  server.rooms.say("weekly", "room.speakers", { speakers: [aliceThere.id] });
  server.rooms.say("weekly", "room.quality", { participant: aliceThere.id, quality: "poor" });
  server.rooms.say("weekly", "room.paused", { track: aliceThere.track("camera").id, paused: true }, "bob");
  const reacted = next(one, "reaction");
  await other.react("👏");
  await other.raiseHand(true);
  await other.sendChat("hello", [aliceThere]);
  await until(() => bobThere.handAt && one.messages.length === 2);
  assert.deepEqual([aliceThere.isSpeaking, aliceThere.quality, aliceThere.track("camera").paused], [true, "poor", true]);
  assert.deepEqual([one.local.isSpeaking, one.local.quality], [true, "poor"]);
  assert.deepEqual(await reacted, [{ participant: bobThere, reaction: "👏" }]);
  assert.deepEqual(other.messages, one.messages);
  assert.deepEqual(one.messages[1].to, [one.local.id]);
});

test("a lost socket changes nothing about the media, nor does anybody join twice", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("weekly");
  const other = await bob.joinRoom("weekly");
  server.cut();
  await until(() => alice.state === "reconnecting");
  server.rooms.populate("weekly", "carol");
  await until(() => alice.state === "connected" && one.participants.size === 2 && other.participants.size === 2);
  assert.equal(connections.length, 2);
  assert.deepEqual(framesOf(server, "alice"), ["room.join"]);
});

test("after a crash of the server the Room is joined again by its name", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("weekly", { audio: track("audio") });
  const other = await bob.joinRoom("weekly");
  await until(() => one.participants.size);
  const before = one.id;
  server.crash();
  await until(() => one.id !== before && [one, other].every((room) => room.state === "joined" && room.participants.size === 1));
  await until(() => [...other.participants.values()][0].track("microphone")?.stream);
  assert.deepEqual(connections.map(({ closed }) => closed), [true, true, false, false]);
  assert.equal(connections[2].getTransceivers()[0].sender.track?.kind ?? connections[3].getTransceivers()[0].sender.track?.kind, "audio");
});

test("a path that fails is restarted twice, then the Room is joined anew", async () => {
  const { server, alice } = await people("alice");
  const room = await alice.joinRoom("weekly");
  const states = [];
  room.on("connection", (state) => states.push(state));
  assert.equal(room.connectionState, "connecting");
  connections[0].become("connected");
  for (const count of [1, 2]) {
    connections[0].become("failed");
    await until(() => framesOf(server, "alice").filter((type) => type === "room.offer").length === count);
    assert.equal(connections[0].restarts, count);
  }
  connections[0].become("failed");
  await until(() => connections.length === 2 && framesOf(server, "alice").at(-1) === "room.join");
  connections[1].become("connected");
  assert.deepEqual(states, ["connected", "reconnecting", "connecting", "connected"]);
  assert.equal(connections[0].closed, true);
});

test("a Room that failed or moved is joined again, one that ended is over", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("weekly");
  const other = await bob.joinRoom("weekly");
  server.rooms.say("weekly", "room.ended", { reason: "moved" }, "bob");
  await until(() => connections.length === 3 && other.state === "joined");

  await until(() => one.participants.size);
  const ended = next(other, "ended");
  await one.remove([...one.participants.values()].at(-1));
  assert.equal((await ended)[0].reason, "removed");
  await assert.rejects(other.react("👏"), { code: "wrong_phase" });

  const over = next(one, "ended");
  await one.endForAll();
  assert.equal((await over)[0].reason, "ended");
  assert.equal(alice.rooms.size + bob.rooms.size, 0);
});

test("who gives up while the server answers is not left behind in the Room", async () => {
  const { server, alice } = await people("alice");
  const controller = new AbortController();
  const joining = alice.joinRoom("weekly", { signal: controller.signal });
  await until(() => server.frames.some(([, { type }]) => type === "room.join"));
  controller.abort();
  await assert.rejects(joining, { code: "aborted" });
  await until(() => framesOf(server, "alice").includes("room.leave"));
  assert.equal(server.rooms.named("weekly").participants.size, 0);
});

test("leaving the page leaves the Room", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("weekly");
  await bob.joinRoom("weekly");
  await until(() => one.participants.size);
  await bob.close();
  await until(() => one.participants.size === 0);
  assert.equal(server.rooms.named("weekly").participants.size, 1);
});

async function people(...names) {
  const server = new FakeServer();
  globalThis.WebSocket = function () {
    return server.open();
  };
  const clients = {};
  for (const name of names) {
    clients[name] = new OffhookClient({ url: "ws://server/v1/calls", token: name });
    opened.add(clients[name]);
    await clients[name].connect();
  }
  return { server, ...clients };
}

/** The `room.*` commands somebody has sent. */
function framesOf(server, user) {
  return server.frames.filter(([by, { type }]) => by === user && type.startsWith("room.")).map(([, { type }]) => type);
}

function directions(sdp) {
  const count = {};
  for (const [, kind, direction] of sdp.matchAll(/^m=(\w+)[^]*?^a=(sendonly|recvonly|inactive)/gm)) {
    count[`${kind} ${direction}`] = (count[`${kind} ${direction}`] ?? 0) + 1;
  }
  return count;
}

function track(kind) {
  return { kind };
}

function next(emitter, event) {
  return new Promise((resolve) => {
    const off = emitter.on(event, (...args) => (off(), resolve(args)));
  });
}

/** Looks at every turn of the event loop: some of what is waited for lasts for one answer of the server only. */
async function until(condition) {
  const deadline = performance.now() + 5_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within five seconds: ${condition}`);
    await new Promise(setImmediate);
  }
}
