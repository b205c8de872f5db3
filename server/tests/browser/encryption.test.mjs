// Meetings that the server cannot look into, with real browsers and the real server: who is in sees and hears, who has another
// key does not, and a tap where the server stands finds nothing of what left the encoder, until encryption is switched off.

import assert from 'node:assert/strict';

import { clearLen } from '../../../web-demo/client/e2ee/frames.js';
import { decodeHeader, deriveFrameKey, open } from '../../../web-demo/client/e2ee/sframe.js';
import { enter, hears, meets, pictures, seesPictures } from './lib/meeting.mjs';
import { story } from './lib/story.mjs';
import { keepDrops, keepKeys, keepPlain, keptDrops, keptKeys, recorded, spoilKeys, tap } from './lib/tap.mjs';
import { eventually } from './lib/wait.mjs';

/** So many frames of each kind are enough to tell. */
const FRAMES_MIN = 25;
/** So many bytes that are the same are no accident. */
const RUN = 16;

story('Chromium and Firefox see and hear each other and read the same words; who has another key sees and hears nothing', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const alice = await world.person(chromium, 'Alice');
  await keepDrops(alice);
  await goesIn(alice);
  const bob = await meets(world, await world.browser('firefox'), 'Bob');
  for (const person of [alice, bob]) {
    await seesPictures(person, 1);
    await hears(person);
  }
  await readTheSameWords(alice, bob);

  // Mallory is let in and given every key, and has one bit of each wrong.
  const mallory = await world.person(chromium, 'Mallory');
  await keepDrops(mallory);
  await spoilKeys(mallory);
  await enter(mallory);
  await mallory.sees('encrypted');
  const packets = async () => (await mallory.media()).reduce((sum, { audioPackets }) => sum + audioPackets, 0);
  await eventually('a lot has come to Mallory', async () => (await packets()) > 100);
  for (const person of [alice, bob]) await seesPictures(person, 2);
  assert.deepEqual(Object.values(await pictures(mallory)).filter((frames) => frames > 0), []);
  assert.deepEqual((await mallory.media()).map(({ audioEnergy }) => audioEnergy), [0]);
  assert.ok((await keptDrops(mallory)).includes('forged'));
  await mallory.press('meeting-leave');
  await mallory.sees('meeting-over');

  // With the right keys, somebody who comes late sees at once what the others have been sending for long.
  const carol = await world.person(chromium, 'Carol', { at: '/?room=weekly&encrypted=1' });
  const joined = performance.now();
  await carol.press('join');
  await seesPictures(carol, 2);
  console.log(`Carol came late and saw 10 frames of both ${Math.round(performance.now() - joined)} ms after she pressed "Join"`);
  await hears(carol);
  await readTheSameWords(alice, bob, carol);

  // A server that has forgotten the meeting brings nobody back in plain.
  await world.server.kill();
  await world.server.start();
  for (const person of [alice, bob, carol]) {
    await seesPictures(person, 2);
    await person.sees('encrypted');
  }
  await readTheSameWords(alice, bob, carol);
  // The server has named the right sender of everything.
  assert.deepEqual((await keptDrops(alice)).filter((reason) => reason === 'mislabelled' || reason === 'forged'), []);
});

story('a tap on the server finds nothing of an encrypted meeting, and who was in it opens nothing from before or after', {}, async (world) => {
  const chromium = await world.browser('chromium');
  // A service worker would fetch by itself what these pages are given instead.
  const serviceWorkers = 'block';
  const alice = await world.person(chromium, 'Alice', { serviceWorkers });
  await keepPlain(alice);
  await goesIn(alice);
  const spy = await world.visitor(chromium, { serviceWorkers });
  spy.name = 'Spy';
  await tap(spy);
  await spy.page.evaluate(joinWithoutKey, 'weekly');
  await alice.readsThat('toast', /cannot be trusted/);
  await alice.press('meeting-people');
  await alice.readsThat('participant-spy', /Not trusted/);
  await alice.press('close-people');
  const before = await gather(spy);

  const carol = await world.person(await world.browser('firefox'), 'Carol');
  await keepKeys(carol);
  await enter(carol);
  await seesPictures(carol, 1);
  await hears(carol);
  const during = await gather(spy, await opensFor(carol));
  await carol.press('meeting-leave');
  await carol.sees('meeting-over');
  const keys = await keptKeys(carol);
  const isCarols = await opensFor(carol);
  const after = await gather(spy, (frame) => !isCarols(frame));

  // With Carol's keys what went by while she was in is what left Alice's encoders, byte for byte. So the tap has seen it all.
  const plain = new Set((await recorded(alice)).map(({ bytes }) => bytes.toString('latin1')));
  const opened = [];
  for (const frame of during) {
    const { baseKey } = keys.find(({ kid }) => kid === headerOf(frame).kid);
    opened.push({ kind: frame.kind, bytes: await opensWith(baseKey, frame) });
  }
  assert.ok(opened.every(({ bytes }) => bytes !== null && plain.has(bytes.toString('latin1'))));
  // And nothing of that was to be read there.
  const seen = Buffer.concat([...before, ...during, ...after].map(({ bytes }) => bytes));
  const runs = opened.flatMap(({ bytes }) => runsOf(bytes));
  assert.ok(runs.length >= FRAMES_MIN);
  assert.deepEqual(runs.filter((run) => seen.includes(run)), []);
  // None of her keys opens what was sealed before she came or after she left.
  for (const frame of [...before, ...after]) {
    assert.ok(!isCarols(frame));
    for (const { baseKey } of keys) assert.equal(await opensWith(baseKey, frame), null);
  }

  // The same tap sees everything once encryption is off.
  await switchesOff(alice);
  await eventually('the tap is asked whether it goes on', () => spy.page.evaluate(() => globalThis.room.isHalted));
  await recorded(spy);
  await recorded(alice);
  await spy.page.evaluate(() => globalThis.room.goOnUnencrypted());
  const afterwards = await gather(spy);
  const sent = new Set((await recorded(alice)).map(({ bytes }) => bytes.toString('latin1')));
  assert.deepEqual(afterwards.filter(({ bytes }) => !sent.has(bytes.toString('latin1'))).map(({ kind }) => kind), []);
});

story('encryption that is switched off is told, and nobody is seen or heard who has not agreed', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const alice = await begins(world, chromium, 'Alice');
  const bob = await meets(world, await world.browser('firefox'), 'Bob');
  for (const person of [alice, bob]) await seesPictures(person, 1);

  await switchesOff(alice);
  await alice.readsThat('toast', /No longer encrypted/);
  await bob.readsThat('halted', /No longer encrypted/);
  await bob.seesNo('encrypted');
  assert.deepEqual(await bob.media(), [], 'nothing is connected');
  await bob.press('go-on-unencrypted');
  await bob.seesNo('halted');
  for (const person of [alice, bob]) {
    await person.seesNo('encrypted');
    await person.sees('not-encrypted');
    await seesPictures(person, 1);
  }

  // Who takes nothing but an encrypted meeting does not get this one.
  const carol = await world.person(chromium, 'Carol', { at: '/?room=weekly&encrypted=1' });
  await carol.press('join');
  await carol.readsThat('meeting-over', /not encrypted/);
});

/** Signs in and begins the meeting, encrypted. */
async function begins(world, browser, name) {
  const person = await world.person(browser, name);
  await goesIn(person);
  return person;
}

async function goesIn(person) {
  await person.type('meeting-name', 'weekly');
  await person.press('open-meeting');
  await person.sees('join');
  await person.press('check-encrypted');
  await person.press('join');
  await person.sees('encrypted');
}

async function switchesOff(moderator) {
  await moderator.press('meeting-people');
  await moderator.press('room-encrypted');
  await moderator.press('switch-off');
}

async function readTheSameWords(...people) {
  await eventually('all read the same words', async () => {
    const read = [];
    for (const person of people) read.push(await wordsOf(person));
    return (read[0].length === 10 && new Set(read.map(String)).size === 1) || Promise.reject(new Error(JSON.stringify(read)));
  });
}

/** The ten words an encrypted meeting shows. */
async function wordsOf(person) {
  await person.press('encrypted');
  await person.sees('code-dialog');
  const words = await person.page.evaluate(() => [...document.querySelectorAll('[data-test="meeting-code"] li')].map((item) => item.textContent));
  await person.page.keyboard.press('Escape');
  await person.seesNo('code-dialog');
  return words;
}

/** Whether somebody was given the key of a frame. */
async function opensFor(person) {
  const kids = new Set((await keptKeys(person)).map(({ kid }) => kid));
  return (frame) => kids.has(headerOf(frame).kid);
}

/** Frames that `count`, as a tap sees them, at least so many of each kind. */
async function gather(spy, counts = () => true) {
  const frames = [];
  await eventually('the tap sees sound and pictures', async () => {
    frames.push(...(await recorded(spy)).filter(counts));
    const count = (kind) => frames.filter((frame) => frame.kind === kind).length;
    return (count('audio') >= FRAMES_MIN && count('video') >= FRAMES_MIN) || Promise.reject(new Error(`${count('audio')} of sound, ${count('video')} of pictures`));
  });
  return frames;
}

/** The SFrame header of a frame that went by. */
function headerOf({ kind, bytes }) {
  const header = decodeHeader(bytes.subarray(clearLen(kind, bytes)));
  assert.ok(header, 'a frame that was not sealed');
  return header;
}

/** What is behind the part that stays readable, or null. */
async function opensWith(baseKey, frame) {
  const { kid, counter, len } = headerOf(frame);
  const clear = clearLen(frame.kind, frame.bytes);
  const sealed = frame.bytes.subarray(clear);
  const key = await deriveFrameKey(kid, baseKey, 'decrypt');
  return open(key, counter, sealed.subarray(0, len), frame.bytes.subarray(0, clear), sealed.subarray(len)).then(Buffer.from, () => null);
}

/** Some of what a frame holds, where it is long enough. */
function runsOf(bytes) {
  if (bytes.length < RUN) return [];
  return [bytes.subarray(0, RUN), bytes.subarray(bytes.length - RUN)];
}

/** In the page of the tap: joins as the client does, with a Device that nobody can trust, so that nobody hands it a key. */
async function joinWithoutKey(name) {
  const sign = crypto.subtle.sign.bind(crypto.subtle);
  crypto.subtle.sign = async (...options) => {
    const signature = new Uint8Array(await sign(...options));
    signature[0] ^= 1;
    return signature;
  };
  const { OffhookClient } = await import('/client/index.js');
  const answer = await fetch('/demo/sign-in', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"name":"Spy"}' });
  const { token } = await answer.json();
  const client = new OffhookClient({ token });
  await client.connect();
  globalThis.room = await client.joinRoom(name);
}
