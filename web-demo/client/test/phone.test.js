import assert from "node:assert/strict";
import { test } from "node:test";

import { connections, inPage, next, people, until } from "../fake/page.js";
import { isReachable, named, numberOf, toTarget } from "../numbers.js";

// Phone calls against the fake server, which stands for the gateway, too. What is heard is for real phones to show.

inPage();

test("what people type becomes a target, or is refused here", () => {
  const check = (typed, target) => assert.equal(toTarget(typed), target);
  check("+49 (30) 123-456", "tel:+4930123456");
  check(" 030/123 456 ", "tel:030123456");
  check("tel:+1.201.555.0123", "tel:+12015550123");
  check("42", "tel:42");
  check("*21#", "tel:*21#");
  check("+49 30\u2013123", "tel:+4930123");
  check("alice@pbx.example", "sip:alice@pbx.example");
  check("SIP:alice@pbx.example;transport=tcp", "SIP:alice@pbx.example;transport=tcp");
  for (const typed of ["", "alice", "+", "+0301234", "12a", "+49*30", "1".repeat(25), "+1234567890123456"]) {
    assert.throws(() => toTarget(typed), { code: "bad_number" }, typed);
  }
});

test("a phone is shown by its number, unless it keeps it to itself", () => {
  assert.equal(numberOf("tel:+4930123456"), "+4930123456");
  assert.equal(numberOf("sips:alice@pbx.example"), "alice@pbx.example");
  assert.equal(numberOf("sip:anonymous@anonymous.invalid"), null);
  assert.equal(numberOf("alice"), null);
  assert.deepEqual([isReachable("tel:42"), isReachable("sip:anonymous@anonymous.invalid"), isReachable("bob")], [true, false, false]);
  const name = (user, given = null) => named({ user, name: given }).name;
  assert.deepEqual([name("tel:42"), name("tel:42", "Desk"), name("sip:anonymous@anonymous.invalid"), name("bob")], ["42", "Desk", "Anonymous caller", "bob"]);
});

test("a number is dialled, heard before it answers, and ends", async () => {
  const { server, alice } = await people("alice");
  assert.equal(alice.canDial, true);
  const stream = new MediaStream([track("audio")]);
  const call = await alice.dial("+49 30 123456", { stream });
  assert.deepEqual([call.phase, call.isPhone, call.number, call.peer.name], ["ringing", true, "+4930123456", "+4930123456"]);
  const { data } = server.frames.find(([, { type }]) => type === "call.invite")[1];
  assert.deepEqual([data.to, data.media, "commitment" in data], ["tel:+4930123456", { audio: true, video: false }, false]);

  // Its Room is joined while it rings, and no connection is made to anybody else.
  const room = await joined(alice);
  assert.equal(room.name, `call-${call.id.toLowerCase()}`);
  assert.equal(connections.length, 1);
  server.calls.phoneProgresses(call.id, "trying");
  server.calls.phoneProgresses(call.id, "queued", 3);
  await until(() => call.progress?.kind === "queued");
  assert.equal(call.progress.position, 3);
  server.calls.phoneProgresses(call.id, "early_media");
  server.rooms.populate(room.name, "tel:+4930123456", { tracks: ["microphone"] });
  await until(() => call.progress.kind === "early_media" && call.remoteStream?.getTracks().length === 1);

  server.calls.phoneAnswers(call.id);
  await until(() => call.phase === "active");
  assert.equal(call.progress, null);
  assert.equal(room.local.track("microphone").sent, stream.getTracks()[0]);
  assert.deepEqual([call.code, framesOf(server, "alice").includes("call.verify")], [null, false]);

  server.calls.phoneEnds(call.id, "hangup", { reason: "hangup", sip: null, cause: 16 });
  await until(() => call.phase === "ended" && room.state === "ended");
  assert.deepEqual([call.end.reason, alice.rooms.size], ["hangup", 0]);
});

test("where there is no gateway, a number is refused at once", async () => {
  const { server, alice } = await people("alice");
  server.canDial = false;
  await assert.rejects(alice.dial("42"), { code: "phone_unavailable" });
  await assert.rejects(alice.dial("nobody"), { code: "bad_number" });
  assert.deepEqual([alice.calls.size, alice.rooms.size], [0, 0]);
});

test("keys go to the phone, and come from it", async () => {
  const { server, alice, call } = await talking();
  const heard = [];
  call.on("dtmf", (keys) => heard.push(keys));
  await call.dtmf("12#");
  assert.equal(server.frames.find(([, { type }]) => type === "call.dtmf")[1].data.keys, "12#");
  server.calls.phonePresses(call.id, "5");
  await until(() => heard.length === 1);
  assert.deepEqual(heard, ["5"]);
  assert.equal(alice.calls.size, 1);
});

test("who is muted or holds sends nothing, and who holds hears nothing", async () => {
  const { call, room } = await talking();
  const microphone = room.local.track("microphone");
  const [heard] = call.remoteStream.getTracks();
  assert.ok(microphone.sent);
  call.mute(true);
  await until(() => microphone.sent === null);
  call.mute(false);
  await until(() => microphone.sent !== null);

  await call.hold();
  await until(() => microphone.sent === null && heard.enabled === false);
  await call.resume();
  await until(() => microphone.sent !== null && heard.enabled === true);
});

test("another microphone is sent to the phone", async () => {
  const { call, room } = await talking();
  const other = track("audio");
  await call.setTrack("audio", other);
  await until(() => room.local.track("microphone").sent === other);
});

test("a phone rings for several people: who is first has it, the others hear that it was answered elsewhere", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const rings = [alice, bob].map((client) => next(client, "incoming"));
  server.calls.phoneRings(["alice", "bob"], "tel:+15550100", { name: "Erika", to: "tel:+4930100" });
  const [[ofAlice], [ofBob]] = await Promise.all(rings);
  assert.deepEqual([ofAlice.peer, ofAlice.number, ofAlice.dialled], [{ user: "tel:+15550100", name: "Erika" }, "+15550100", "+4930100"]);
  assert.deepEqual([alice.rooms.size, bob.rooms.size], [0, 0]);

  await ofBob.accept({ stream: new MediaStream([track("audio")]) });
  const room = await joined(bob);
  await until(() => ofAlice.phase === "ended");
  assert.deepEqual([ofBob.phase, ofAlice.end.reason, ofAlice.answeredElsewhere, alice.rooms.size], ["active", "answered_elsewhere", true, 0]);
  await ofBob.hangup();
  await until(() => room.state === "ended");
});

test("a phone call goes on in its Room when it is taken into one", async () => {
  const { alice, call, room } = await talking();
  const upgraded = next(alice, "upgraded");
  assert.ok((await call.upgrade()) === room);
  assert.ok((await upgraded)[1] === room);
  await until(() => call.phase === "ended");
  assert.deepEqual([call.end.reason, room.state, alice.rooms.size], ["upgraded", "joined", 1]);
  const [phone] = room.participants.values();
  assert.equal(phone.name, "+4930123456");
});

test("a call that is cancelled while its Room is joined leaves it", async () => {
  const { alice } = await people("alice");
  const call = await alice.dial("42");
  await call.hangup();
  await until(() => alice.rooms.size === 0);
  assert.deepEqual([call.phase, call.end.reason], ["ended", "cancelled"]);
});

test("after a crash of the server the Room of a phone call is joined again", async () => {
  const { server, alice, call, room } = await talking();
  server.crash();
  await until(() => framesOf(server, "alice").includes("call.sync") && room.state === "joined" && server.rooms.named(room.name));
  assert.deepEqual([call.phase, alice.rooms.size], ["active", 1]);
});

/** Alice talks with a phone, which is heard. */
async function talking() {
  const { server, alice } = await people("alice");
  const call = await alice.dial("+4930123456", { stream: new MediaStream([track("audio")]) });
  const room = await joined(alice);
  server.rooms.populate(room.name, "tel:+4930123456", { tracks: ["microphone"] });
  server.calls.phoneAnswers(call.id);
  await until(() => call.phase === "active" && call.remoteStream?.getTracks().length === 1);
  return { server, alice, call, room };
}

async function joined(client) {
  await until(() => [...client.rooms][0]?.state === "joined");
  return [...client.rooms][0];
}

function framesOf(server, user) {
  return server.frames.filter(([from]) => from === user).map(([, { type }]) => type);
}

function track(kind) {
  return { kind, enabled: true, addEventListener() {} };
}
