import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";

import { openDevice } from "../device.js";
import { FakeConnection } from "../fake/connection.js";
import { Peer } from "../peer.js";

const CALL = "01JAAAAAAAAAAAAAAAAAAAAAAA";
let devices;

before(async () => {
  devices = [await openDevice(), await openDevice()];
  globalThis.MediaStream = class {
    getTracks = () => [];
    addTrack() {}
  };
});

beforeEach(() => (FakeConnection.fingerprint = "sha-256 00:11"));

after(() => {
  delete globalThis.MediaStream;
  delete globalThis.RTCPeerConnection;
});

test("the caller offers, the callee answers, and nobody else offers", async (t) => {
  const { told, connections } = await pair(t);
  assert.deepEqual(told, ["caller sdp.offer 1", "callee sdp.answer 1"]);
  assert.deepEqual(connections.map(({ signalingState }) => signalingState), ["stable", "stable"]);
});

test("when offers cross, the callee gives way", async (t) => {
  const { told, connections, hold, settle } = await pair(t);
  told.length = 0;
  const release = hold("sdp.offer");
  connections.forEach((connection) => connection.need());
  await settle();
  assert.deepEqual([...told].sort(), ["callee sdp.offer 2", "caller sdp.offer 2"]);
  release();
  await settle();
  assert.equal(told.at(-1), "callee sdp.answer 2");
  assert.deepEqual(connections.map(({ signalingState }) => signalingState), ["stable", "stable"]);
});

test("a caller whose offer is refused takes the one it had ignored", async (t) => {
  const { told, connections, settle, refuse } = await pair(t);
  told.length = 0;
  const answerNow = refuse("caller", "sdp.offer", "stale_generation");
  connections.forEach((connection) => connection.need());
  await settle();
  assert.deepEqual(connections.map(({ signalingState }) => signalingState), ["have-local-offer", "have-local-offer"]);
  answerNow();
  await settle();
  assert.deepEqual(told.filter((line) => line.includes("answer")), ["caller sdp.answer 2"]);
  assert.deepEqual(connections.map(({ signalingState }) => signalingState), ["stable", "stable"]);
});

test("an offer or answer that got lost is made good after ten seconds", async (t) => {
  for (const lost of ["sdp.offer", "sdp.answer"]) {
    const { told, connections, lose, settle } = await pair(t);
    told.length = 0;
    lose(lost);
    connections[0].need();
    await settle();
    assert.equal(connections[0].signalingState, "have-local-offer");
    t.mock.timers.tick(10_000);
    await settle();
    assert.deepEqual(told.filter((line) => line.includes("offer")), ["caller sdp.offer 2", "caller sdp.offer 3"]);
    assert.equal(connections[0].signalingState, "stable");
  }
});

test("after lost messages an open offer is repeated under a higher generation, with the same words", async (t) => {
  const { peers, connections, lose, settle, sent } = await pair(t);
  lose("sdp.offer");
  connections[0].need();
  await settle();
  peers[0].resync();
  await settle();
  const [first, second] = sent.filter(({ type }) => type === "sdp.offer").slice(-2);
  assert.equal(second.data.sdp, first.data.sdp);
  assert.equal(second.data.generation, first.data.generation + 1);
  assert.equal(connections[0].signalingState, "stable");
});

test("a callee that lost messages asks for a restart, and the caller makes the offer", async (t) => {
  const { peers, connections, told, settle } = await pair(t);
  told.length = 0;
  peers[1].resync();
  await settle();
  assert.deepEqual(told, ["callee ice.restart ", "caller sdp.offer 2", "callee sdp.answer 2"]);
  assert.equal(connections[0].restarts, 1);
});

test("a path that fails is restarted at once a few times, then with pauses, for as long as the Call lasts", async (t) => {
  const { peers, connections, become, settle } = await pair(t);
  await become("connected");
  assert.equal(peers[0].state, "connected");
  for (let attempt = 1; attempt <= 5; attempt++) {
    await become("failed");
    assert.equal(peers[0].state, "reconnecting");
    if (attempt > 3) {
      assert.equal(connections[0].restarts, attempt - 1);
      t.mock.timers.tick(10_000);
      await settle();
    }
    assert.equal(connections[0].restarts, attempt);
  }
  await become("connected");
  assert.equal(peers[0].state, "connected");
});

test("media without a way counts as failed after half a minute, and connects all the same when there is one", async (t) => {
  const { peers, connections, become, settle } = await pair(t);
  t.mock.timers.tick(29_000);
  assert.equal(peers[0].state, "connecting");
  t.mock.timers.tick(1_000);
  assert.equal(peers[0].state, "failed");
  await become("failed");
  assert.equal(peers[0].state, "failed");
  assert.equal(connections[0].restarts, 1);

  peers[0].restart();
  assert.equal(peers[0].state, "connecting");
  await settle();
  assert.equal(connections[0].restarts, 2);
  await become("connected");
  t.mock.timers.tick(60_000);
  assert.equal(peers[0].state, "connected");
});

test("a path that goes quiet gets three seconds", async (t) => {
  const { peers, connections, become, settle } = await pair(t);
  await become("connected");
  await become("disconnected");
  t.mock.timers.tick(2_000);
  await settle();
  assert.equal(peers[0].state, "reconnecting");
  assert.equal(connections[0].restarts, 0);
  t.mock.timers.tick(1_000);
  await settle();
  assert.equal(connections[0].restarts, 1);
});

test("candidates go in batches of 32 and never before their description", async (t) => {
  const { connections, told, sent, settle } = await pair(t, { candidatesBeforeOffer: 40 });
  assert.equal(told[0], "caller sdp.offer 1");
  const batches = sent.filter(({ type }) => type === "ice.candidates").map(({ data }) => data.candidates.length);
  assert.deepEqual(batches, [32, 8]);
  await settle();
  assert.equal(connections[1].candidates.length, 40);
});

test("candidates that come before the description they belong to wait for it", async (t) => {
  const { peers, connections, settle } = await pair(t);
  peers[1].handle("ice.candidates", { generation: 2, candidates: [{ candidate: "early" }] });
  await settle();
  assert.equal(connections[1].candidates.length, 0);
  connections[0].need();
  await settle();
  assert.deepEqual(connections[1].candidates.map(({ candidate }) => candidate), ["early"]);
});

test("an offer that somebody else signed, or changed, is a betrayal", async (t) => {
  const { peers, sent, failures, settle } = await pair(t);
  const { data } = sent.find(({ type }) => type === "sdp.offer");
  const tampered = [
    { ...data, generation: 5 },
    { ...data, generation: 6, sdp: data.sdp.replace("00:11", "66:66") },
    { ...data, generation: 7, signature: "AAAA" },
  ];
  for (const offer of tampered) peers[1].handle("sdp.offer", offer);
  await settle();
  assert.deepEqual(failures, ["bad_signature", "bad_signature", "bad_signature"]);
});

test("a fingerprint other than the one shown for the code is a betrayal, before and after", async (t) => {
  const { peers, connections, failures, settle } = await pair(t);
  peers[1].expectFingerprint("SHA-256 00:11");
  assert.throws(() => peers[0].expectFingerprint("sha-256 22:33"), { code: "fingerprint_mismatch" });

  FakeConnection.fingerprint = "sha-256 22:33";
  connections[0].need();
  await settle();
  assert.equal(failures[0], "fingerprint_mismatch");
});

/** Two Peers of one Call that have exchanged their first offer and answer, with a server in between that can be told to fail. */
async function pair(t, { candidatesBeforeOffer = 0 } = {}) {
  t.mock.timers.reset();
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const connections = [];
  const told = [];
  const sent = [];
  const failures = [];
  const faults = [];
  const held = [];
  let holding = null;
  let work = 0;

  globalThis.RTCPeerConnection = class extends FakeConnection {
    constructor(configuration) {
      super(configuration);
      connections.push(this);
    }
  };

  const names = ["caller", "callee"];
  const peers = names.map((name, side) => {
    const command = async (type, data) => {
      work++;
      if (type !== "ice.candidates") told.push(`${name} ${type} ${data.generation ?? ""}`);
      sent.push({ type, data });
      const fault = faults.findIndex(({ of, by }) => of === type && (!by || by === name));
      if (fault >= 0) {
        const { code, isDue } = faults.splice(fault, 1)[0];
        await isDue;
        if (code) throw Object.assign(new Error(code), { code });
        return;
      }
      const deliver = () => peers[1 - side].handle(type, data);
      if (holding === type) held.push(deliver);
      else deliver();
    };
    return new Peer({
      call: CALL,
      device: devices[side],
      command,
      configuration: () => ({ iceServers: [] }),
      onChange: () => {},
      onStream: () => {},
      onFailure: ({ code }) => failures.push(code),
    });
  });

  /** Waits until both have done what they had to, on a clock that moves only as far as batches of candidates need. */
  const settle = async () => {
    for (let before = -1, calm = 0; calm < 3; calm = work === before ? calm + 1 : 0) {
      before = work;
      // Behind what is queued: signatures take their time in other threads.
      for (const peer of peers) await peer.sendMedia();
      await new Promise(setImmediate);
      t.mock.timers.tick(20);
    }
  };

  /** The caller's connection says this of itself. */
  const become = async (state) => {
    connections[0].connectionState = state;
    connections[0].onconnectionstatechange();
    await settle();
  };

  peers.forEach((peer, side) => peer.start({ certificate: {}, isCaller: side === 0, key: devices[1 - side].key }));
  for (let n = 0; n < candidatesBeforeOffer; n++) connections[0].onicecandidate({ candidate: { candidate: `c${n}` } });
  await settle();

  return {
    peers,
    connections,
    told,
    sent,
    failures,
    become,
    settle,
    hold(type) {
      holding = type;
      return () => {
        holding = null;
        for (const deliver of held.splice(0)) deliver();
      };
    },
    lose: (of) => faults.push({ of }),
    /** Returns what lets the refusal arrive. */
    refuse(by, of, code) {
      let answerNow;
      const isDue = new Promise((resolve) => (answerNow = resolve));
      faults.push({ by, of, code, isDue });
      return answerNow;
    },
  };
}
