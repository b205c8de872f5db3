import assert from "node:assert/strict";
import { test } from "node:test";

import { sign, toBase64url } from "../code.js";
import { Encryption } from "../e2ee/encryption.js";
import { Opener, ReplayWindow, Sealer, Slot, clearLen } from "../e2ee/frames.js";
import { RoomKeys, kidOf } from "../e2ee/keys.js";
import { concat, decodeHeader, deriveFrameKey, encodeHeader, open, seal } from "../e2ee/sframe.js";

const hex = (text) => Uint8Array.from(text.match(/../g) ?? [], (byte) => parseInt(byte, 16));
const toHex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

test("headers are those of RFC 9605, appendix C.1", () => {
  const rows = [
    [0, 0, "00"],
    [0, 1, "01"],
    [0, 255, "08ff"],
    [0, 256, "090100"],
    [1, 0, "10"],
    [255, 0, "80ff"],
    [255, 255, "88ffff"],
    [256, 256, "9901000100"],
    [0x123, 0x4567, "9901234567"],
  ];
  for (const [kid, counter, encoded] of rows) {
    assert.equal(toHex(encodeHeader(kid, counter)), encoded);
    assert.deepEqual(decodeHeader(hex(encoded)), { kid, counter, len: encoded.length / 2 });
  }
  for (const cut of ["", "08", "99012345", "ffffffffffffffffffffffffffffffffff"]) assert.equal(decodeHeader(hex(cut)), null);
});

test("a frame is sealed as RFC 9605, appendix C.3 has it", async () => {
  const baseKey = hex("000102030405060708090a0b0c0d0e0f");
  const metadata = hex("4945544620534672616d65205747");
  const plaintext = hex("64726166742d696574662d736672616d652d656e63");

  const { header, ciphertext } = await seal(await deriveFrameKey(0x123, baseKey, "encrypt"), 0x4567, metadata, plaintext);
  assert.equal(toHex(concat(header, ciphertext)), "9901234567b7412c2513a1b66dbb48841bbaf17f598751176ad847681a69c6d0b091c07018ce4adb34eb");

  const key = await deriveFrameKey(0x123, baseKey, "decrypt");
  assert.deepEqual(await open(key, 0x4567, header, metadata, ciphertext), plaintext);
  await assert.rejects(open(key, 0x4568, header, metadata, ciphertext));
  await assert.rejects(open(key, 0x4567, header, hex("00"), ciphertext));
});

/** A sealer and an opener with one key, and a receiver of which nobody says whose frames are in it. */
async function pair(kid = 7) {
  const baseKey = crypto.getRandomValues(new Uint8Array(16));
  const sealer = new Sealer();
  const opener = new Opener();
  sealer.setKey(await deriveFrameKey(kid, baseKey, "encrypt"));
  opener.setKey("bob", await deriveFrameKey(kid, baseKey, "decrypt"));
  const slot = new Slot();
  return { sealer, opener, slot, opens: (kind, sealed, now = 0) => opener.open(kind, sealed, slot, now) };
}
const frame = (first, len = 60) => Uint8Array.from({ length: len }, (_, i) => (i === 0 ? first : i));

test("of a VP8 frame the SFU can read the header alone, and nobody can change it", async () => {
  const { sealer, opens } = await pair();
  for (const [kind, plain, clear] of [["video", frame(0x10), 10], ["video", frame(0x11), 3], ["audio", frame(0x78), 0]]) {
    const { frame: sealed } = await sealer.seal(kind, plain);
    assert.equal(clearLen(kind, plain), clear);
    assert.deepEqual(sealed.subarray(0, clear), plain.subarray(0, clear));
    assert.equal(toHex(sealed).includes(toHex(plain.subarray(clear, clear + 8))), false);

    const changed = Uint8Array.from(sealed);
    changed[clear ? 1 : sealed.length - 1] ^= 1;
    assert.deepEqual(await opens(kind, changed), { dropped: "forged", kid: 7 });
    assert.deepEqual(await opens(kind, sealed), { frame: plain });
    assert.deepEqual(await opens(kind, sealed), { dropped: "replayed", kid: 7 });
  }
});

test("without a key nothing leaves, and nothing is shown", async () => {
  assert.deepEqual(await new Sealer().seal("audio", frame(1)), { dropped: "no_key" });

  const { sealer, opener, opens } = await pair(9);
  const { frame: sealed } = await sealer.seal("video", frame(1));
  opener.forget("bob", 9);
  assert.deepEqual(await opens("video", sealed), { dropped: "no_key", kid: 9 });
  const stranger = await pair(9);
  assert.deepEqual(await stranger.opens("video", sealed), { dropped: "forged", kid: 9 });
});

test("frames that were never sealed, or are cut, are dropped", async () => {
  const { sealer, opens } = await pair();
  assert.deepEqual(await sealer.seal("video", frame(0x10, 9)), { dropped: "too_short" });
  const { frame: sealed } = await sealer.seal("video", frame(0x10, 10));
  for (let len = 0; len < sealed.length; len++) {
    assert.ok("dropped" in (await opens("video", sealed.slice(0, len))), `cut to ${len}`);
  }
  assert.deepEqual(await opens("video", sealed), { frame: frame(0x10, 10) });
});

test("whatever comes in is a frame that was sealed, or dropped", async () => {
  const { opens } = await pair();
  for (let round = 0; round < 2000; round++) {
    const bytes = crypto.getRandomValues(new Uint8Array(round % 64));
    assert.ok("dropped" in (await opens(round % 2 ? "audio" : "video", bytes)), toHex(bytes));
  }
});

test("a counter counts once, in any order within the window", () => {
  const window = new ReplayWindow();
  for (const counter of [5, 3, 4, 1027]) assert.equal(window.take(counter), true);
  for (const counter of [5, 4, 1027, 3, 0]) assert.equal(window.take(counter), false, String(counter));
  assert.equal(window.take(1026), true);
});

test("frames of one are not shown as another's, but for the moment in which both are true somewhere", async () => {
  const { sealer, slot, opens } = await pair(3);
  const seal = async () => (await sealer.seal("audio", frame(1))).frame;
  slot.setOwner("bob");
  assert.ok("frame" in (await opens("audio", await seal(), 0)));

  // The server says "carol", and Bob's last frames are still coming in; then it goes on passing on what Bob sends.
  slot.setOwner("carol");
  const late = await seal();
  assert.ok("frame" in (await opens("audio", late, 10_000)));
  assert.deepEqual(await opens("audio", await seal(), 12_000), { dropped: "mislabelled", kid: 3 });
  slot.setOwner("bob");
  assert.ok("frame" in (await opens("audio", late, 12_001)), "counters seen under a wrong name are not used up");
  assert.deepEqual(await opens("audio", late, 12_002), { dropped: "replayed", kid: 3 });
});

test("who has another's key cannot make the others refuse what its owner seals", async () => {
  const { sealer, slot, opener } = await pair(3);
  slot.setOwner("bob");
  const slotOfMallory = new Slot();
  slotOfMallory.setOwner("mallory");
  const frames = [];
  for (let count = 0; count < 2000; count++) frames.push((await sealer.seal("audio", frame(1))).frame);
  // Mallory sends what only its counter makes harmful: far ahead of what Bob has sent.
  await opener.open("audio", frames.at(-1), slotOfMallory, 0);
  assert.ok("frame" in (await opener.open("audio", frames[0], slot, 0)));
});

test("of two Participants with one KID the first keeps it", async () => {
  const { sealer, opener, opens } = await pair(4);
  const other = await deriveFrameKey(4, crypto.getRandomValues(new Uint8Array(16)), "decrypt");
  opener.setKey("carol", other);
  opener.forget("carol", 4);
  assert.ok("frame" in (await opens("audio", (await sealer.seal("audio", frame(1))).frame)));
});

const [A, B, C, R, X] = [..."ABCRX"].map((last) => `01ARZ3NDEKTSV4RRFFQ69G5FA${last}`);
const ROOM = { name: "board", id: R };

/** Two Participants who have taken each other in. */
async function room() {
  const people = await Promise.all(
    [A, B].map(async (participant) => {
      const device = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
      const deviceKey = toBase64url(await crypto.subtle.exportKey("raw", device.publicKey));
      const keys = await RoomKeys.make(ROOM, participant);
      return { participant, device, deviceKey, keys, announcement: await keys.announce((text) => sign(device.privateKey, text)) };
    }),
  );
  const [a, b] = people;
  await a.keys.add(b.participant, b.announcement, b.deviceKey);
  await b.keys.add(a.participant, a.announcement, a.deviceKey);
  return people;
}

test("a key reaches whom it was wrapped for, and changes when somebody comes or leaves", async () => {
  const [a, b] = await room();
  const before = await a.keys.own();
  const first = await a.keys.wrapped();
  assert.deepEqual(await b.keys.unwrap(A, first.epoch, first.keys[0].ciphertext), { owner: A, ...before });

  a.keys.rotate();
  const second = await a.keys.wrapped();
  const after = await b.keys.unwrap(A, second.epoch, second.keys[0].ciphertext);
  assert.equal(second.epoch, 1);
  assert.notDeepEqual(after.baseKey, before.baseKey);
  assert.equal(after.kid, await kidOf(A, 1));

  await assert.rejects(b.keys.unwrap(A, 5, second.keys[0].ciphertext), { code: "bad_key" });
  await assert.rejects(a.keys.unwrap(B, 1, second.keys[0].ciphertext), { code: "bad_key" });
  await assert.rejects(b.keys.unwrap(A, 2, "AAAA"), { code: "bad_key" });
  b.keys.remove(A);
  await assert.rejects(b.keys.unwrap(A, 2, second.keys[0].ciphertext), { code: "bad_key" });
});

test("a key that was there before does not come again", async () => {
  const [a, b] = await room();
  const first = await a.keys.wrapped();
  a.keys.rotate();
  const second = await a.keys.wrapped();
  for (const { epoch, keys } of [first, second]) await b.keys.unwrap(A, epoch, keys[0].ciphertext);
  for (const { epoch, keys } of [first, second]) {
    await assert.rejects(b.keys.unwrap(A, epoch, keys[0].ciphertext), { code: "bad_key" });
  }
  a.keys.epoch = 65_535;
  assert.throws(() => a.keys.rotate(), { code: "keys_spent" });
});

test("a key that a Device did not sign for this Room is not taken", async () => {
  const [a, b] = await room();
  const { key } = b.announcement;
  await assert.rejects(a.keys.add(C, { key: a.announcement.key, signature: b.announcement.signature }, b.deviceKey), { code: "bad_signature" });
  const rows = [
    ["board", X, B],
    ["party", R, B],
    ["board", R, C],
  ];
  for (const [name, id, participant] of rows) {
    const signature = await sign(b.device.privateKey, `offhook-e2ee-v1\n${name}\n${id}\n${participant}\n${key}`);
    await assert.rejects(a.keys.add(B, { key, signature }, b.deviceKey), { code: "bad_signature" }, `${name} ${id} ${participant}`);
  }
});

test("an id that reads like the lines of somebody else is none", async () => {
  const [a, b] = await room();
  const id = `${B} ${b.deviceKey} ${b.announcement.key}\n${C}`;
  const signature = await sign(b.device.privateKey, `offhook-e2ee-v1\nboard\n${R}\n${id}\n${b.announcement.key}`);
  await assert.rejects(a.keys.add(id, { key: b.announcement.key, signature }, b.deviceKey), { code: "bad_key" });
  await assert.rejects(RoomKeys.make({ name: "board", id }, A), { code: "bad_key" });
  await assert.rejects(RoomKeys.make(ROOM, id), { code: "bad_key" });
  const spaced = `${b.deviceKey.slice(0, 40)}\n${b.deviceKey.slice(40)}`;
  await assert.rejects(a.keys.add(B, b.announcement, spaced), { code: "bad_key" });
});

test("the code of a Room is the same for all, until somebody's key is another's", async () => {
  const [a, b] = await room();
  const words = await a.keys.code(a.deviceKey, a.announcement);
  assert.equal(words.length, 10);
  assert.deepEqual(await b.keys.code(b.deviceKey, b.announcement), words);

  const [, stranger] = await room();
  await a.keys.add(B, stranger.announcement, stranger.deviceKey);
  assert.notDeepEqual(await a.keys.code(a.deviceKey, a.announcement), words);
});

test("a key that comes before its sender was named opens their frames once they are", async (t) => {
  const [a, b] = await room();
  const told = [];
  globalThis.Worker = class {
    postMessage(message) {
      told.push(message);
    }
    terminate() {}
  };
  t.after(() => delete globalThis.Worker);
  let announced;
  const shown = new Promise((resolve) => (announced = resolve));
  const nothing = () => {};
  const encryption = new Encryption({
    device: { key: a.deviceKey, sign: (text) => sign(a.device.privateKey, text) },
    command: async (type, { e2ee }) => type === "room.announce" && announced(e2ee),
    maySend: () => false,
    onDevice: nothing,
    onCode: nothing,
    onSpent: nothing,
    onError: (error) => assert.fail(error),
  });
  encryption.begin(ROOM, A);
  encryption.update([]);
  await b.keys.add(A, await shown, a.deviceKey);
  const { epoch, keys } = await b.keys.wrapped();

  encryption.handleKeys({ from: B, epoch, ciphertext: keys[0].ciphertext });
  encryption.update([{ id: B, e2ee: { ...b.announcement, device_key: b.deviceKey } }]);
  while (!told.some(({ type }) => type === "open")) await new Promise((resolve) => setImmediate(resolve));
  const { owner, kid } = told.find(({ type }) => type === "open");
  assert.deepEqual({ owner, kid }, { owner: B, kid: (await b.keys.own()).kid });
  encryption.close();
});
