import assert from "node:assert/strict";
import { test } from "node:test";

import { connections, inPage, next, people, until } from "../fake/page.js";

// From a Call into a Room and back, against the fake server: in which order things happen, and who is heard where. How long
// nobody is heard is for real browsers to show.

inPage();

test("a Call goes on in a Room: the other side follows, and the Call ends once both hear each other there", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const [call, rung] = await connected(alice, bob);
  const shown = [alice, bob].map((client) => next(client, "upgraded"));
  const room = await call.upgrade();
  await until(() => bob.rooms.size === 1 && [...bob.rooms][0].state === "joined");
  const [other] = bob.rooms;
  assert.equal(room.name, other.name);
  assert.equal(room.settings.back_to_call, true);
  await until(() => room.participants.size === 1 && connections.length === 4);
  assert.ok(room.local.track("microphone").sent === call.sent.audio && room.local.track("camera").sent === call.sent.video);

  // Alice is there with all that comes in, Bob is not: both go on hearing each other somewhere.
  const [ofAlice, ofBob] = ["alice", "bob"].map((user) => connectionOf(server, user, "room.join"));
  const [before, beforeOfBob] = [connectionOf(server, "alice", "sdp.offer"), connectionOf(server, "bob", "sdp.answer")];
  carry(ofAlice);
  const [aliceShown, bobShown] = await Promise.all([shown[0], Promise.race([shown[1], pause(400)])]);
  assert.ok(aliceShown[0] === call && aliceShown[1] === room && bobShown === undefined);
  assert.deepEqual([call.phase, rung.phase], ["active", "active"]);
  assert.deepEqual([before, ofAlice, beforeOfBob, ofBob].map(isHeard), [false, true, true, false]);

  carry(ofBob);
  await shown[1];
  await until(() => call.phase === "ended" && rung.phase === "ended");
  assert.equal(call.end.reason, "upgraded");
  assert.ok(before.closed && beforeOfBob.closed);
  assert.deepEqual([room.state, other.state], ["joined", "joined"]);
  assert.deepEqual([isHeard(ofAlice), isHeard(ofBob)], [true, true]);
  assert.equal(framesOf(server, "alice").filter((type) => type === "call.moved").length, 1);
});

test("when both wish for a Room at once, there is one", async () => {
  const { alice, bob } = await people("alice", "bob");
  const [call, rung] = await connected(alice, bob);
  const [one, other] = await Promise.all([call.upgrade(), rung.upgrade()]);
  await until(() => one.participants.size === 1 && other.participants.size === 1);
  assert.deepEqual([alice.rooms.size, bob.rooms.size, one.name === other.name], [1, 1, true]);
});

test("while both places are there, mute and camera hold in both", async () => {
  const { alice, bob } = await people("alice", "bob");
  const [call] = await connected(alice, bob);
  call.mute(true);
  const room = await call.upgrade();
  const microphone = call.sent.audio;
  assert.equal(room.local.track("microphone").sent, null);

  await room.local.setMicrophone(microphone);
  await until(() => !call.muted);
  assert.equal(microphone.enabled, true);
  await room.local.setMicrophone(false);
  await until(() => call.muted);
  await room.local.setCamera(null);
  await until(() => call.sent.video === null);
});

test("a screen that is shared in a Call is shared in the Room", async () => {
  const { alice, bob } = await people("alice", "bob");
  const [call] = await connected(alice, bob);
  const screen = track("video");
  await call.setTrack("screen", screen);
  const room = await call.upgrade();
  await until(() => room.local.track("screen")?.sent === screen);
});

test("where the other side can't come, the Call goes on and is heard", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  server.rooms.refusals.set("bob", "forbidden");
  const [call, rung] = await connected(alice, bob);
  const failed = next(bob, "error");
  const room = await call.upgrade();
  assert.equal((await failed)[0].code, "forbidden");
  assert.deepEqual([call.phase, rung.phase, isHeard(connections[0])], ["active", "active", true]);

  await rung.hangup();
  await until(() => room.state === "ended");
  assert.equal(alice.rooms.size, 0);
});

test("the last two of a Room go on as a Call, and the Room ends once both hear each other there", async () => {
  const { server, alice, bob, carol } = await people("alice", "bob", "carol");
  const settings = { back_to_call: true };
  const [audio, video] = [track("audio"), track("video")];
  const room = await alice.joinRoom("weekly", { settings, audio, video });
  const other = await bob.joinRoom("weekly", { audio: track("audio") });
  const third = await carol.joinRoom("weekly");
  connections.forEach(carry);
  await other.local.setMicrophone(false);
  const calls = [alice, bob].map((client) => next(client, "call"));
  await third.leave();
  const [[call], [rung]] = await Promise.all(calls);
  assert.deepEqual([call.fromRoom, call.direction, rung.direction], ["weekly", "out", "in"]);
  assert.ok(call.sent.audio === audio && call.sent.video === video);
  assert.deepEqual([rung.muted, rung.sent.audio.enabled], [true, false]);

  await until(() => connections.length === 5 && call.peerMedia && rung.peerMedia);
  await until(() => connectionOf(server, "alice", "sdp.offer") && connectionOf(server, "bob", "sdp.answer"));
  const [ofAlice, ofBob] = [connectionOf(server, "alice", "sdp.offer"), connectionOf(server, "bob", "sdp.answer")];
  await until(() => ofAlice.signalingState === "stable" && call.remoteStream.getTracks().length);
  assert.deepEqual([isHeard(connections[0]), isHeard(ofAlice)], [true, false]);
  carry(ofAlice);
  await until(() => isHeard(ofAlice));
  assert.equal(room.state, "joined");
  assert.equal(isHeard(connections[1]), true);
  const over = next(room, "ended");
  carry(ofBob);
  assert.deepEqual(await over, [{ reason: "call" }]);
  await until(() => other.state === "ended");
  assert.deepEqual([call.phase, rung.phase, isHeard(ofBob)], ["active", "active", true]);
});

test("people are invited by their User, and asked to unmute", async () => {
  const { alice, bob, carol } = await people("alice", "bob", "carol");
  const room = await alice.joinRoom("weekly");
  const other = await bob.joinRoom("weekly");
  const invited = next(carol, "invited");
  await room.invite("carol");
  assert.deepEqual(await invited, [{ room: "weekly", by: "alice", name: "Alice", participants: 2 }]);
  await assert.rejects(room.invite("nobody"), { code: "peer_gone" });

  const asked = next(other, "asked");
  await until(() => room.participants.size === 1);
  await room.askToUnmute([...room.participants.values()][0].track("microphone"));
  const [wanted, by] = await asked;
  assert.deepEqual([wanted.source, by.name], ["microphone", "Alice"]);

  await other.raiseHand(true);
  const [raised] = room.participants.values();
  await until(() => raised.handAt !== null);
  await room.lowerHand(raised);
  await until(() => other.local.handAt === null);
});

/** Two connected people in a Call, each with a microphone and a camera. */
async function connected(alice, bob) {
  const incoming = next(bob, "incoming");
  const stream = () => new MediaStream([track("audio"), track("video")]);
  const call = await alice.call("bob", { stream: stream() });
  const [rung] = await incoming;
  await rung.accept({ stream: stream() });
  await until(() => connections.length === 2 && call.remoteStream?.getTracks().length && rung.remoteStream?.getTracks().length);
  connections.forEach(carry);
  await until(() => call.connectionState === "connected" && rung.connectionState === "connected");
  return [call, rung];
}

/** The newest connection whose description somebody sent in such a frame. */
function connectionOf(server, user, type) {
  const { data } = server.frames.findLast(([by, frame]) => by === user && frame.type === type)?.[1] ?? {};
  return connections.findLast(({ localDescription }) => data && localDescription?.sdp === data.sdp);
}

/** From now on media comes in. */
function carry(connection) {
  connection.carries = true;
  connection.become("connected");
}

/** Whether any sound of the connection is let through that a page plays. */
function isHeard(connection) {
  const sound = connection.getReceivers().filter(({ track }) => track.kind === "audio");
  return sound.every((receiver) => receiver.track.enabled !== false);
}

function track(kind) {
  return { kind, enabled: true, addEventListener() {} };
}

function framesOf(server, user) {
  return server.frames.filter(([name, { seq }]) => name === user && seq).map(([, { type }]) => type);
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
