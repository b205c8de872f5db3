import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { OffhookClient } from "../client.js";
import { FakeServer } from "../fake/server.js";

// The clients run against the fake server with everything but media: these stand for the browser's parts. How media is
// negotiated is for real browsers to show.
before(() => {
  globalThis.MediaStream = class {
    tracks = [];
    getTracks = () => this.tracks;
    addTrack = (track) => this.tracks.push(track);
    removeTrack = (track) => (this.tracks = this.tracks.filter((other) => other !== track));
  };
  globalThis.RTCPeerConnection = class {
    static async generateCertificate() {
      const value = Array.from({ length: 32 }, () => Math.floor(Math.random() * 90 + 10)).join(":");
      return { getFingerprints: () => [{ algorithm: "sha-256", value }] };
    }
    connectionState = "new";
    signalingState = "stable";
    getTransceivers = () => [];
    addTransceiver = () => ({ sender: { replaceTrack: async () => {} } });
    restartIce() {}
    close() {}
  };
});

/** Every client of a test, for one that fails would otherwise go on pinging. */
const opened = new Set();

afterEach(async () => {
  for (const client of opened) await client.close();
  opened.clear();
});

after(() => {
  delete globalThis.MediaStream;
  delete globalThis.RTCPeerConnection;
  delete globalThis.WebSocket;
});

test("a Call rings, is answered and ends; both sides read the same code", async () => {
  const { alice, bob, close } = await people("alice", "bob");
  const incoming = next(bob, "incoming");
  const call = await alice.call("bob");
  assert.equal(call.phase, "ringing");
  assert.deepEqual(call.peer, { user: "bob", name: "Bob" });

  const [rung] = await incoming;
  assert.equal(rung.direction, "in");
  await rung.accept();
  await until(() => call.code && rung.code);
  assert.equal(call.phase, "active");
  assert.deepEqual(call.code, rung.code);
  assert.deepEqual([call.peerDevice, rung.peerDevice], ["new", "new"]);

  const ended = next(call, "ended");
  await rung.hangup();
  assert.equal((await ended)[0].reason, "hangup");
  assert.equal(alice.calls.size + bob.calls.size, 0);
  await close();
});

test("a Device that was met before is known, also when it calls back", async () => {
  const { alice, bob, close } = await people("alice", "bob");
  for (const expected of ["new", "known"]) {
    const [call, rung] = await connected(alice, bob);
    assert.deepEqual([call.peerDevice, rung.peerDevice], [expected, expected]);
    await call.hangup();
    await until(() => rung.phase === "ended");
  }
  await close();
});

test("of two Devices the first to accept wins, and the other hears it", async () => {
  const { alice, bob, second, close } = await people("alice", "bob", "second:bob");
  const rings = [next(bob, "incoming"), next(second, "incoming")];
  const call = await alice.call("bob");
  const rung = (await Promise.all(rings)).map(([incoming]) => incoming);
  const outcomes = await Promise.allSettled(rung.map((incoming) => incoming.accept()));

  assert.deepEqual(outcomes.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
  const [won, lost] = outcomes[0].status === "fulfilled" ? rung : [...rung].reverse();
  assert.equal(outcomes.find(({ status }) => status === "rejected").reason.code, "conflict");
  assert.deepEqual([won.phase, lost.phase], ["active", "ended"]);
  assert.deepEqual([won.answeredElsewhere, lost.answeredElsewhere], [false, true]);
  await until(() => call.phase === "active");
  await close();
});

test("when both call each other, one Call remains", async () => {
  const { alice, bob, close } = await people("alice", "bob");
  const stream = new MediaStream();
  stream.addTrack({ kind: "audio" });
  await Promise.all([alice.call("bob", { stream }), bob.call("alice", { stream })]);
  await until(() => [alice, bob].every(({ calls }) => calls.size === 1 && [...calls.values()][0].code));
  const [ofAlice, ofBob] = [alice, bob].map(({ calls }) => [...calls.values()][0]);
  assert.equal(ofAlice.id, ofBob.id);
  assert.deepEqual(ofAlice.code, ofBob.code);
  assert.deepEqual([ofAlice, ofBob].map(({ localStream }) => localStream.getTracks().length), [1, 1]);
  await close();
});

test("each side hears what the other sends: a screen, a microphone that is off", async () => {
  const { server, alice, bob, close } = await people("alice", "bob");
  const [call, rung] = await connected(alice, bob);
  await until(() => rung.peerMedia);
  assert.deepEqual(rung.peerMedia, { audio: false, video: null });

  const track = { kind: "audio", enabled: true };
  await call.setTrack("audio", track);
  await call.setTrack("video", { kind: "video" });
  await until(() => rung.peerMedia.audio && rung.peerMedia.video === "camera");
  call.mute(true);
  await call.setTrack("screen", { kind: "video", addEventListener() {} });
  await until(() => !rung.peerMedia.audio && rung.peerMedia.video === "screen");
  assert.equal(track.enabled, false);

  rung.peerMedia = null;
  server.crash();
  await until(() => rung.peerMedia);
  assert.deepEqual(rung.peerMedia, { audio: false, video: "screen" });
  await call.setTrack("screen", null);
  await until(() => rung.peerMedia.video === "camera");
  await close();
});

test("a blind transfer moves the other side and its tracks into a new Call", async () => {
  const { alice, bob, carol, close } = await people("alice", "bob", "carol");
  const [call, rung] = await connected(alice, bob);
  await rung.setTrack("audio", { kind: "audio" });
  const [made, rings] = [next(bob, "call"), next(carol, "incoming")];
  await call.transfer("carol");
  assert.equal(call.transferring.to, "carol");

  const [[ofBob], [ofCarol]] = await Promise.all([made, rings]);
  assert.equal(ofBob.replaces, rung.id);
  await ofCarol.accept();
  await until(() => ofBob.code && ofCarol.code && call.phase === "ended");
  assert.equal(call.end.reason, "transferred");
  assert.equal(rung.end.into, ofBob.id);
  assert.deepEqual(ofBob.code, ofCarol.code);
  assert.deepEqual(ofBob.localStream.getTracks(), rung.localStream.getTracks());
  await close();
});

test("an attended transfer connects the two others, each with its own tracks", async () => {
  const { alice, bob, carol, close } = await people("alice", "bob", "carol");
  const [first, ofBob] = await connected(alice, bob);
  await first.hold();
  await until(() => ofBob.heldByPeer);
  const [second, ofCarol] = await connected(alice, carol);
  await ofBob.setTrack("audio", { kind: "audio", id: "bob's" });
  await ofCarol.setTrack("audio", { kind: "audio", id: "carol's" });

  const made = [next(bob, "call"), next(carol, "call")];
  await first.transferTo(second);
  const calls = (await Promise.all(made)).map(([call]) => call);
  await until(() => calls.every(({ code, localStream }) => code && localStream));
  assert.deepEqual(calls[0].code, calls[1].code);
  assert.deepEqual(
    calls.map(({ localStream }) => localStream.getTracks()[0].id),
    ["bob's", "carol's"],
  );
  await until(() => alice.calls.size === 0);
  await close();
});

test("after a crash each side hands its Call back before anything else, and it goes on", async () => {
  const { server, alice, bob, close } = await people("alice", "bob");
  const [call, rung] = await connected(alice, bob);
  server.frames.length = 0;
  server.crash();
  // Said while nobody listens.
  const held = call.hold();
  await held;
  assert.deepEqual([call.phase, rung.phase], ["active", "active"]);
  await until(() => rung.heldByPeer);

  const ofAlice = server.frames.filter(([user, { seq }]) => user === "alice" && seq).map(([, { type }]) => type);
  assert.equal(ofAlice[0], "call.sync");
  assert.ok(ofAlice.indexOf("call.hold") > 0);
  await close();
});

test("hanging up without a connection ends the Call here at once, and there after the crash", async () => {
  const { server, alice, bob, close } = await people("alice", "bob");
  const [call, rung] = await connected(alice, bob);
  server.crash();
  const told = call.hangup();
  assert.equal(call.phase, "ended");
  await told;
  await until(() => rung.phase === "ended");
  assert.equal(rung.end.reason, "hangup");
  await close();
});

test("a Call the server no longer knows is gone", async () => {
  const { server, alice, bob, close } = await people("alice", "bob");
  const [call] = await connected(alice, bob);
  server.calls.answer = () => ["error", { code: "unknown_call" }];
  server.sessions.clear();
  server.cut();
  await until(() => call.phase === "ended");
  assert.equal(call.end.reason, "gone");
  await close();
});

test("a lost message of the code exchange is said again after a crash", async () => {
  const { server, alice, bob, close } = await people("alice", "bob");
  const send = server.send.bind(server);
  server.send = (session, type, ...rest) => type !== "call.verify" && send(session, type, ...rest);
  const rings = next(bob, "incoming");
  const call = await alice.call("bob");
  const [rung] = await rings;
  await rung.accept();
  await until(() => call.phase === "active");
  assert.equal(call.code, null);

  server.send = send;
  server.crash();
  await until(() => call.code && rung.code);
  assert.deepEqual(call.code, rung.code);
  await close();
});

test("calling can be aborted; the other side hears nothing or that it was cancelled", async () => {
  const { alice, bob, close } = await people("alice", "bob");
  const controller = new AbortController();
  const calling = alice.call("bob", { signal: controller.signal });
  controller.abort();
  await assert.rejects(calling, { code: "aborted" });
  assert.equal(alice.calls.size, 0);
  await assert.rejects(alice.call("bob", { signal: controller.signal }), { code: "aborted" });
  await until(() => bob.calls.size === 0);
  await close();
});

test("presence is told, and asked for again after a crash", async () => {
  const { server, alice, bob, close } = await people("alice", "bob");
  assert.deepEqual((await alice.subscribePresence()).map(({ user }) => user).sort(), ["alice", "bob"]);
  const away = next(alice, "presence");
  await bob.setPresence({ status: "away" });
  assert.deepEqual((await away)[0], { user: "bob", name: "Bob", status: "away" });

  const statuses = [];
  alice.on("presence", ({ user, status }) => user === "bob" && statuses.push(status));
  server.crash();
  await until(() => statuses.at(-1) === "away");
  await close();
});

test("what a User has said about themselves is told to each of their Devices", async () => {
  const { bob, second, close } = await people("bob", "second:bob");
  assert.deepEqual(await bob.setPresence(), { status: "available", callWaiting: true, chosen: false });
  await bob.setPresence({ callWaiting: false });
  assert.deepEqual(await second.setPresence(), { status: "available", callWaiting: false, chosen: true });
  await close();
});

test("TURN credentials are renewed before they end, and again after a renewal that failed", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const server = new FakeServer();
  server.turnSeconds = 3_600;
  globalThis.WebSocket = function () {
    return server.open();
  };
  const client = new OffhookClient({ url: "ws://server/v1/calls", token: "alice" });
  let isConnected = false;
  client.connect().then(() => (isConnected = true));
  const renewals = () => server.frames.filter(([, { type }]) => type === "turn.refresh").length;
  const pass = async (ms, step) => {
    for (let passed = 0; passed < ms; passed += step) {
      t.mock.timers.tick(step);
      await new Promise(setImmediate);
    }
  };
  // Keys are made in another thread, as fast as that may be.
  while (!isConnected) await pass(1, 1);

  await pass(29 * 60_000, 1_000);
  assert.equal(renewals(), 0);
  server.turnSeconds = null;
  await pass(60_000, 1_000);
  assert.equal(renewals(), 1);
  server.turnSeconds = 3_600;
  await pass(60_000, 1_000);
  assert.equal(renewals(), 2);
  await pass(31 * 60_000, 1_000);
  assert.equal(renewals(), 3);

  await client.close();
  await pass(60 * 60_000, 10_000);
  assert.equal(renewals(), 3);
});

test("connecting and closing again and again leaves nothing behind", async () => {
  const server = new FakeServer();
  globalThis.WebSocket = function () {
    return server.open();
  };
  const client = new OffhookClient({ url: "ws://server/v1/calls", token: "alice" });
  for (let round = 0; round < 5; round++) {
    await client.connect();
    await client.close();
  }
  const aborted = client.connect({ signal: AbortSignal.abort() });
  await assert.rejects(aborted, { code: "aborted" });
  const closed = client.connect();
  await client.close();
  await assert.rejects(closed, { code: "closed" });
  await until(() => server.sockets.size === 0 && server.sessions.size === 0);
});

test("closing hangs up, and nothing can be asked any more", async () => {
  const { alice, bob, close } = await people("alice", "bob");
  const [, rung] = await connected(alice, bob);
  await alice.close();
  await until(() => rung.phase === "ended");
  assert.equal(rung.end.reason, "hangup");
  await assert.rejects(alice.call("bob"), { code: "closed" });
  assert.equal(alice.state, "closed");
  await close();
});

/** Connected clients by name; `second:bob` is another Device of bob. */
async function people(...names) {
  const server = new FakeServer();
  globalThis.WebSocket = function () {
    return server.open();
  };
  const clients = {};
  for (const name of names) {
    const [key, user = key] = name.split(":");
    clients[key] = new OffhookClient({ url: "ws://server/v1/calls", token: user });
    opened.add(clients[key]);
    await clients[key].connect();
  }
  const close = () => Promise.all(Object.values(clients).map((client) => client.close()));
  return { server, ...clients, close };
}

/** Both sides of a Call that was answered and has its code. */
async function connected(from, to) {
  const rings = next(to, "incoming");
  const call = await from.call(to.me.user);
  const [rung] = await rings;
  await rung.accept();
  await until(() => call.code && rung.code);
  return [call, rung];
}

function next(emitter, event) {
  return new Promise((resolve) => {
    const off = emitter.on(event, (...args) => (off(), resolve(args)));
  });
}

async function until(condition) {
  for (let waited = 0; !condition(); waited += 5) {
    if (waited > 5_000) throw new Error(`not within five seconds: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
