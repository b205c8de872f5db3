import assert from "node:assert/strict";
import { test } from "node:test";

import { connections, inPage, next, people, until } from "../fake/page.js";
import { ulidBytes } from "../ulid.js";

// Rooms against the fake server. What media does with it is for real browsers to show.

inPage();

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

test("of fifty people nine are seen: slots are offered for those, and for more when more are seen", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const held = await bob.joinRoom("weekly");
  for (let n = 0; n < 48; n++) server.rooms.populate("weekly", `guest${n}`);
  await until(() => held.participants.size === 48);
  const room = await alice.joinRoom("weekly");
  const cameras = [...room.participants.values()].map((one) => one.track("camera"));
  room.want(cameras.map((track, at) => ({ track, height: at < 9 ? 180 : 0 })));
  const slots = () => {
    const { sdp } = server.frames.findLast(([user, { type }]) => user === "alice" && /room\.(join|offer)/.test(type))[1].data;
    return directions(sdp)["video recvonly"];
  };
  await until(() => slots() === 9);
  room.want(cameras.slice(0, 20).map((track) => ({ track, height: 90 })), false);
  await until(() => slots() === 20);
  assert.deepEqual(framesOf(server, "alice").filter((type) => type === "room.offer").length, 2);
});

test("slots that are wanted while an offer is made are in the next one", async () => {
  const { server, alice } = await people("alice");
  const room = await alice.joinRoom("weekly");
  const [connection] = connections;
  const offer = connection.setLocalDescription.bind(connection);
  connection.setLocalDescription = async (...args) => {
    await offer(...args);
    connection.setLocalDescription = offer;
    for (let n = 9; n < 12; n++) server.rooms.populate("weekly", `guest${n}`);
    await until(() => room.participants.size === 12);
  };
  for (let n = 0; n < 9; n++) server.rooms.populate("weekly", `guest${n}`);
  await until(() => room.participants.size === 12 && [...room.participants.values()].every((one) => one.track("camera").stream));
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
  assert.deepEqual(await left, [bob, "left", undefined]);
  assert.deepEqual(lost.sort(), ["camera", "microphone"]);
  assert.equal(bob.track("camera").stream, null);
});

test("a phone that is called into a Room rings, talks, and says why it does not come", async () => {
  const { server, alice } = await people("alice");
  const room = await alice.joinRoom("weekly");
  await room.invite("tel:+4930123456");
  await until(() => room.participants.size === 1);
  const [phone] = room.participants.values();
  assert.deepEqual([phone.name, phone.line], ["+4930123456", "ringing"]);
  await assert.rejects(room.invite("tel:+4930123456"), { code: "self_call" });
  const left = next(room, "participantLeft");
  server.rooms.phoneEnds("weekly", "tel:+4930123456", "busy");
  assert.deepEqual(await left, [phone, "left", "busy"]);

  await room.invite("tel:42");
  await until(() => room.participants.size === 1);
  server.rooms.phoneTalks("weekly", "tel:42");
  const [other] = room.participants.values();
  await until(() => other.line === "talking");
  const microphone = other.track("microphone");
  for (const muted of [true, false]) {
    await room.mute(microphone, muted);
    await until(() => microphone.muted === muted);
  }
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

test("messages name whom they are for and whom they are from", async () => {
  const { alice, bob } = await people("alice", "bob");
  const room = await alice.joinRoom("weekly");
  await bob.joinRoom("weekly");
  await until(() => room.participants.size === 1);
  const [bobThere] = room.participants.values();
  const [reliable, lossy] = connections[0].channels;
  assert.deepEqual([reliable.negotiated, reliable.id, lossy.id, lossy.ordered, lossy.maxRetransmits], [true, 0, 1, false, 0]);

  const early = room.data.send(Uint8Array.of(7));
  assert.deepEqual(reliable.sent, []);
  reliable.open();
  lossy.open();
  await early;
  await room.data.send(Uint8Array.of(8).buffer, { to: [bobThere], reliable: false });
  const id = [...ulidBytes(bobThere.id)];
  assert.deepEqual([[...reliable.sent[0]], [...lossy.sent[0]]], [[1, 0, 7], [1, 1, ...id, 8]]);

  const heard = [];
  room.on("data", (message) => heard.push(message));
  reliable.say([1, 0, ...id, 5, 6]);
  lossy.say([1, 1, ...id]);
  reliable.say([99]);
  assert.deepEqual(heard, [
    { from: bobThere.id, participant: bobThere, bytes: Uint8Array.of(5, 6), reliable: true, named: false },
    { from: bobThere.id, participant: bobThere, bytes: new Uint8Array(), reliable: false, named: true },
  ]);
});

test("reliable messages that were lost are told of, and go on when the page says so", async () => {
  const { alice } = await people("alice");
  const room = await alice.joinRoom("weekly");
  const [reliable] = connections[0].channels;
  reliable.open();
  const reasons = [];
  room.on("dataClosed", (reason) => reasons.push(reason));
  reliable.say([2, 1]);
  assert.deepEqual([reasons, room.data.closed], [["too_slow"], "too_slow"]);
  await assert.rejects(room.data.send(new Uint8Array(1)), { code: "data_closed" });
  await room.data.reopen();
  await room.data.send(new Uint8Array(1));
  assert.deepEqual(reliable.sent.map((sent) => [...sent]), [[3], [1, 0, 0]]);

  await assert.rejects(room.data.send(new Uint8Array(16_385)), { code: "too_large" });
  const sent = await Promise.allSettled(Array.from({ length: 200 }, () => room.data.send(new Uint8Array(1))));
  assert.equal(sent.at(-1).reason.code, "rate_limited");
  const waiting = assert.rejects(room.data.send(new Uint8Array(1), { reliable: false }), { code: "wrong_phase" });
  await room.leave();
  await waiting;
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
  const before = other.local.id;
  server.rooms.say("weekly", "room.ended", { reason: "moved" }, "bob");
  await until(() => other.local.id !== before && one.participants.has(other.local.id));
  assert.equal(connections.length, 3);

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

test("in an encrypted Room everybody has everybody's key, reads one code, and nobody who left has the next key", async (t) => {
  const workers = withEncryption(t);
  const { server, alice, bob, carol } = await people("alice", "bob", "carol");
  const one = await alice.joinRoom("secret", { settings: { encrypted: true } });
  const other = await bob.joinRoom("secret");
  const joins = server.frames.filter(([by, { type }]) => by === "bob" && type === "room.join").map(([, { data }]) => data.encrypted ?? false);
  assert.deepEqual(joins, [false, true]);
  const third = await carol.joinRoom("secret");
  const rooms = [one, other, third];
  await until(() => rooms.every(({ code }) => code) && new Set(rooms.map(({ code }) => code.join())).size === 1);
  assert.equal(one.code.length, 10);

  // Every transceiver has a transform from the moment it is made.
  const protectedBy = connections.filter(({ closed }) => !closed).flatMap((connection) => connection.getTransceivers());
  assert.ok(protectedBy.every(({ sender, receiver, direction }) => (direction === "sendonly" ? sender : receiver).transform));
  const [ofAlice, ofBob, ofCarol] = workers;
  await until(() => workers.every((worker) => workers.every((to) => to === worker || opens(to, sealsOf(worker).at(-1)))));
  // Nobody has what was sealed before they came.
  assert.ok(!opens(ofBob, sealsOf(ofAlice)[0]));
  for (const key of [...sealsOf(ofAlice).slice(0, -1), ...sealsOf(ofBob).slice(0, -1)]) assert.ok(!opens(ofCarol, key));
  // Of each slot it is said whose frames belong there.
  const owners = new Set(ofAlice.told.filter(({ type }) => type === "expect").map(({ owner }) => owner));
  assert.deepEqual([...owners].filter(Boolean).sort(), [other.local.id, third.local.id].sort());

  const before = sealsOf(ofAlice).at(-1);
  await third.leave();
  await until(() => sealsOf(ofAlice).at(-1) !== before && opens(ofBob, sealsOf(ofAlice).at(-1)));
  assert.ok(!opens(ofCarol, sealsOf(ofAlice).at(-1)));
  assert.ok(ofAlice.told.some(({ type, kid }) => type === "forget" && kid === sealsOf(ofCarol).at(-1).kid));
  assert.ok(ofCarol.isOver);
});

test("many who come and leave get new keys, though not one for each of them", async (t) => {
  const workers = withEncryption(t);
  const { alice, bob, carol, dora } = await people("alice", "bob", "carol", "dora");
  const one = await alice.joinRoom("secret", { settings: { encrypted: true } });
  const others = await Promise.all([bob, carol, dora].map((client) => client.joinRoom("secret")));
  await others[2].leave();
  await until(() => one.participants.size === 2 && workers.slice(1, 3).every((to) => opens(to, sealsOf(workers[0]).at(-1))));
  assert.ok(sealsOf(workers[0]).length <= 4, String(sealsOf(workers[0]).length));
  assert.ok(!opens(workers[3], sealsOf(workers[0]).at(-1)));
});

test("who may only listen hands out no key, until they may speak", async (t) => {
  const workers = withEncryption(t);
  const { server, alice, bob, carol } = await people("alice", "bob", "carol");
  const one = await alice.joinRoom("secret", { settings: { encrypted: true, role: "listener" } });
  const other = await bob.joinRoom("secret");
  await carol.joinRoom("secret");
  await until(() => workers.length === 3 && workers.slice(1).every((to) => opens(to, sealsOf(workers[0]).at(-1))));
  assert.ok(!["bob", "carol"].some((user) => framesOf(server, user).includes("room.keys")));

  await one.setRole(one.participants.get(other.local.id), "speaker");
  await until(() => [workers[0], workers[2]].every((to) => opens(to, sealsOf(workers[1]).at(-1))));
  assert.ok(!framesOf(server, "carol").includes("room.keys"));
});

test("a key that the server does not take is handed out all the same, later", async (t) => {
  const workers = withEncryption(t);
  const { server, alice, bob } = await people("alice", "bob");
  const answer = server.rooms.answer.bind(server.rooms);
  let refusals = 0;
  server.rooms.answer = (session, type, data) => {
    if (type === "room.keys" && refusals++ === 0) return ["error", { code: "rate_limited", message: "too fast" }];
    return answer(session, type, data);
  };
  await alice.joinRoom("secret", { settings: { encrypted: true } });
  await bob.joinRoom("secret");
  await until(() => workers.length === 2 && workers.every((to, index) => opens(to, sealsOf(workers[1 - index]).at(-1))));
  assert.ok(refusals >= 2);
});

test("encryption that a moderator switches off is off for all who agree to it, and who asks for it does not join without", async (t) => {
  withEncryption(t);
  const { alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("secret", { settings: { encrypted: true } });
  const other = await bob.joinRoom("secret");
  await until(() => one.participants.size);
  assert.deepEqual([one.isEncrypted, other.isEncrypted], [true, true]);
  const halted = next(other, "halted");
  await one.set({ encrypted: false });
  await halted;
  await until(() => connections.length === 4 && one.state === "joined" && one.participants.size === 1);
  // Bob was told, and sends nothing as long as he has not said that he goes on.
  assert.deepEqual([other.isHalted, other.isEncrypted, other.settings.encrypted], [true, false, false]);
  assert.equal(connections.filter(({ closed }) => !closed).length, 1);

  await other.goOnUnencrypted();
  await until(() => connections.length === 5 && [one, other].every((room) => room.state === "joined" && room.participants.size === 1));
  assert.deepEqual([one.code, other.code, one.isHalted, other.isHalted], [null, null, false, false]);
  assert.ok(connections.slice(3).every((connection) => connection.getTransceivers().every(({ sender, receiver }) => !sender.transform && !receiver.transform)));

  await other.leave();
  await assert.rejects(bob.joinRoom("secret", { settings: { encrypted: true } }), { code: "not_encrypted" });
  await until(() => one.participants.size === 0);
});

test("a server that says that encryption is off gets nothing in plain, not even when it has lost the Room", async (t) => {
  withEncryption(t);
  const { server, alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("secret", { settings: { encrypted: true } });
  await bob.joinRoom("secret");
  server.rooms.say("secret", "room.settings", { settings: { ...one.settings, encrypted: false } }, "alice");
  await until(() => one.isHalted);
  server.rooms.say("secret", "room.ended", { reason: "failed" }, "alice");
  server.rooms.say("secret", "room.settings", { settings: { ...one.settings, encrypted: true } }, "alice");
  await until(() => one.settings.encrypted);
  assert.deepEqual([one.isEncrypted, one.isHalted, connections.length], [false, true, 3]);
  assert.ok(connections[0].closed);
});

test("what is sent in plain is not called encrypted, whatever the server says", async () => {
  const { server, alice } = await people("alice");
  const answer = server.rooms.answer.bind(server.rooms);
  server.rooms.answer = (session, type, data) => {
    const [kind, reply] = answer(session, type, data);
    if (type === "room.join") reply.state = { ...reply.state, settings: { ...reply.state.settings, encrypted: true } };
    return [kind, reply];
  };
  const room = await alice.joinRoom("secret");
  assert.equal(room.isEncrypted, false);
});

test("a key that comes twice opens nothing again, and what somebody has announced stays", async (t) => {
  const workers = withEncryption(t);
  const { server, alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("secret", { settings: { encrypted: true } });
  const other = await bob.joinRoom("secret");
  const ofBob = () => workers[0].told.filter(({ type }) => type === "open").length;
  await until(() => ofBob() === 1);
  const [, { data }] = server.frames.find(([by, { type }]) => by === "bob" && type === "room.keys");
  let refused = next(one, "error");
  server.rooms.say("secret", "room.keys", { from: other.local.id, epoch: data.epoch, ciphertext: data.keys[0].ciphertext }, "alice");
  assert.equal((await refused)[0].code, "bad_key");
  assert.equal(ofBob(), 1);

  assert.equal(one.participants.get(other.local.id).device, "new");

  // A server that puts a key of its own in the place of Bob's, under Bob's name.
  const { state } = server.rooms.named("secret").participants.get(other.local.id);
  refused = next(one, "error");
  server.rooms.say("secret", "room.participant", { participant: { ...state, e2ee: { ...state.e2ee, key: one.participants.get(other.local.id).e2ee.device_key } } }, "alice");
  assert.equal((await refused)[0].code, "bad_signature");
  await until(() => workers[0].told.some(({ type, owner }) => type === "forget" && owner === other.local.id));
});

test("a Room that comes back after a crash is as encrypted as it was", async (t) => {
  withEncryption(t);
  const { server, alice, bob } = await people("alice", "bob");
  const one = await alice.joinRoom("secret", { settings: { encrypted: true, role: "listener" } });
  const other = await bob.joinRoom("secret");
  server.crash();
  await until(() => [one, other].every((room) => room.participants.size === 1 && room.id === server.rooms.named("secret")?.id));
  assert.deepEqual([server.rooms.named("secret").settings.encrypted, server.rooms.named("secret").settings.role], [true, "listener"]);
});

test("who sends something in another's name gets no key", async (t) => {
  const workers = withEncryption(t);
  const { server, alice, bob } = await people("alice", "bob");
  const answer = server.rooms.answer.bind(server.rooms);
  server.rooms.answer = (session, type, data) => {
    if (type === "room.announce" && session.user === "bob") data.e2ee.key = data.e2ee.key.replace(/.$/, (last) => (last === "A" ? "B" : "A"));
    return answer(session, type, data);
  };
  const one = await alice.joinRoom("secret", { settings: { encrypted: true } });
  const refused = next(one, "error");
  await bob.joinRoom("secret");
  assert.equal((await refused)[0].code, "bad_signature");
  assert.ok(workers[0].told.every(({ type }) => type !== "open"));
  assert.ok(!framesOf(server, "alice").includes("room.keys"));
  assert.deepEqual([...one.participants.values()].map(({ device }) => device), ["refused"]);
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

/** Stands for what browsers have to encrypt with; returns the workers, in the order they were made. */
function withEncryption(t) {
  const workers = [];
  globalThis.Worker = class {
    told = [];
    isOver = false;
    constructor() {
      workers.push(this);
    }
    postMessage(message) {
      this.told.push(message);
    }
    terminate() {
      this.isOver = true;
    }
  };
  globalThis.RTCRtpScriptTransform = class {
    constructor(worker, options) {
      Object.assign(this, { worker, options });
    }
  };
  t.after(() => {
    delete globalThis.Worker;
    delete globalThis.RTCRtpScriptTransform;
  });
  return workers;
}

/** What a worker was told to seal with. */
function sealsOf(worker) {
  return worker.told.filter(({ type }) => type === "seal");
}

/** Whether a worker was told a key, if there is one already. */
function opens(worker, key) {
  const isIt = ({ type, kid, baseKey }) => type === "open" && kid === key.kid && String(baseKey) === String(key.baseKey);
  return key !== undefined && worker.told.some(isIt);
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
