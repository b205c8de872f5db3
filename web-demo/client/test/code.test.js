import assert from "node:assert/strict";
import { test } from "node:test";

import { CodeExchange, checkSignature, codeOf, commitmentOf, fingerprintsOf, makeNonce, sdpText, wordsOf } from "../code.js";
import { openDevice } from "../device.js";

const CALL = "01JAAAAAAAAAAAAAAAAAAAAAAA";

/** The fixed vector: any implementation of calls.v1 must come to the same commitment and words. */
const VECTOR = {
  call: CALL,
  caller: {
    key: "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
    fingerprint: `sha-256 ${Array(32).fill("0a").join(":")}`,
    nonce: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
  },
  callee: {
    key: "BHzyewiYUbHjiNwD_mPeUDR7l_aWZn13T6j-CDlQkMEGB3dVEHhRvnhVQsd0xCIg_wiveAOlLC2stB6WXlZ8wiI",
    fingerprint: `sha-256 ${Array(32).fill("ff").join(":")}`,
    nonce: "__79_Pv6-fj39vX08_Lx8O_u7ezr6uno5-bl5OPi4eA",
  },
  commitment: "BzUtoHG23Q2yXVOI6j5Nn7TDc-D_lXkaiZUF_CZS8Fk",
  code: [1927, 802, 487, 1204, 737],
  words: ["valley", "human", "early", "parade", "habitat"],
};

test("the fixed vector gives its commitment, its code and its words", async () => {
  assert.equal(await commitmentOf(VECTOR.call, VECTOR.caller), VECTOR.commitment);
  const code = await codeOf(VECTOR.call, VECTOR.caller, VECTOR.callee);
  assert.deepEqual(code, VECTOR.code);
  assert.deepEqual(await wordsOf(code), VECTOR.words);
});

test("the signed text holds each fingerprint once, in lower case, sorted", () => {
  const sdp = "v=0\r\na=fingerprint:sha-256 BB:02\r\nm=audio\r\na=fingerprint:SHA-256 bb:02\r\na=fingerprint:sha-256 AA:01\r\n";
  assert.deepEqual(fingerprintsOf(sdp), ["sha-256 aa:01", "sha-256 bb:02"]);
  assert.equal(sdpText(CALL, 7, "offer", sdp), `offhook-sdp-v1\n${CALL}\n7\noffer\nsha-256 aa:01,sha-256 bb:02`);
});

test("only the Device's own signature over the same text is right", async () => {
  const [alice, mallory] = [await openDevice(), await openDevice()];
  const signature = await alice.sign("text");
  await checkSignature(alice.key, "text", signature);

  const wrong = { code: "bad_signature" };
  await assert.rejects(checkSignature(alice.key, "another text", signature), wrong);
  await assert.rejects(checkSignature(mallory.key, "text", signature), wrong);
  await assert.rejects(checkSignature(alice.key, "text", "not base64url!"), wrong);
  await assert.rejects(checkSignature("", "text", signature), wrong);
});

test("both sides come to the same code, and learn what the other showed", async () => {
  const [alice, bob] = sides();
  const [ofAlice, ofBob] = await exchange(alice, bob);
  assert.equal(ofAlice.length, 5);
  assert.deepEqual(ofAlice, ofBob);
  assert.deepEqual(alice.peer, bob.own);
  assert.deepEqual(bob.peer, alice.own);
});

test("somebody in between who swaps keys and fingerprints gives the two sides different codes", async () => {
  for (let round = 0; round < 50; round++) {
    const [alice, bob] = sides();
    // Mallory speaks with Alice as the callee and with Bob as the caller, in one Call.
    const [toAlice, toBob] = [side(false), side(true)];
    const [ofAlice] = await exchange(alice, toAlice);
    const [, ofBob] = await exchange(toBob, bob);
    assert.notDeepEqual(ofAlice, ofBob);
    assert.notEqual(alice.peer.fingerprint, bob.own.fingerprint);
  }
});

test("a reveal that does not fit the commitment is refused", async () => {
  const [alice, bob] = sides();
  await bob.receive(await alice.repeat());
  const forged = { ...alice.own, fingerprint: `sha-256 ${Array(32).fill("ee").join(":")}` };
  await assert.rejects(bob.receive({ reveal: forged }), { code: "commitment_mismatch" });
  assert.deepEqual(await bob.receive({ reveal: alice.own }), {}, "and there is no second try");
});

test("the callee does not change its mind about the commitment, nor the caller about the answer", async () => {
  const [alice, bob] = sides();
  const { reply } = await bob.receive(await alice.repeat());
  assert.deepEqual(await bob.receive({ commitment: await commitmentOf(CALL, side(true).own) }), {});

  await alice.receive(reply);
  assert.deepEqual(await alice.receive({ answer: side(false).own }), {});
  assert.deepEqual(alice.peer, bob.own);
});

test("messages that come twice get the same reply, so a lost one can be repeated", async () => {
  const [alice, bob] = sides();
  const commitment = await alice.repeat();
  const first = await bob.receive(commitment);
  assert.deepEqual(await bob.receive(commitment), first);
  assert.deepEqual(await bob.repeat(), first.reply);

  const { reply: reveal } = await alice.receive(first.reply);
  assert.deepEqual(await alice.receive(first.reply), { reply: reveal }, "without another code");
  assert.deepEqual(await alice.repeat(), reveal);
  assert.ok((await bob.receive(reveal)).code);
  assert.equal(await bob.repeat(), null, "there is nothing left to say");
});

test("a reveal without a commitment says nothing", async () => {
  const [alice, bob] = sides();
  assert.deepEqual(await bob.receive({ reveal: alice.own }), {});
});

function side(isCaller) {
  const hex = () => Math.floor(Math.random() * 256).toString(16).padStart(2, "0");
  const fingerprint = `sha-256 ${Array.from({ length: 32 }, hex).join(":")}`;
  const own = { key: makeNonce(), fingerprint, nonce: makeNonce() };
  return Object.assign(new CodeExchange({ call: CALL, isCaller, own }), { own });
}

function sides() {
  return [side(true), side(false)];
}

/** Carries the three messages; returns the code of each side. */
async function exchange(caller, callee) {
  const { reply: answer } = await callee.receive(await caller.repeat());
  const { reply: reveal, code: ofCaller } = await caller.receive(answer);
  const { code: ofCallee } = await callee.receive(reveal);
  return [ofCaller, ofCallee];
}
