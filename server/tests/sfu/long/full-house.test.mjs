// Fifty people in one Room: four Chromium and a Firefox, and bots that send what an encoder made. All of it is decoded.
//
// It takes two cores whole for some minutes; what it prints is what there is to know. LEAN=1 has a dozen people instead of fifty.

import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';

import { startBots } from '../../browser/lib/bots.mjs';
import { enter, hears, isDrawn, meets } from '../../browser/lib/meeting.mjs';
import { smallPictures } from '../../browser/lib/media.mjs';
import { story } from '../../browser/lib/story.mjs';
import { tasksOf, traceTasks } from '../../browser/lib/tasks.mjs';
import { eventually } from '../../browser/lib/wait.mjs';

const BOTS = process.env.LEAN ? 7 : 45;

/** Everything takes its time here. */
const PATIENCE = { timeout: 300_000 };

/** So many frames of a picture mean that it moves. */
const FRAMES_MIN = 10;

/** Frames of a second are counted over this. */
const SPAN_MS = 10_000;

/** The first sees all of them, the others what fits. */
const PEOPLE = [
  ['Alice', { width: 1280, height: 720 }],
  ['Bob', { width: 800, height: 600 }],
  ['Carol', { width: 390, height: 844 }],
  ['Dora', { width: 640, height: 480 }],
];

story(`four Chromium, a Firefox and ${BOTS} bots in one Room`, {}, async (world) => {
  const chromium = await world.browser('chromium');
  const people = [];
  for (const [name, viewport] of PEOPLE) {
    people.push(await meets(world, chromium, name, { viewport, scripts: [smallPictures, timeJoins] }));
  }
  people.push(await meets(world, await world.browser('firefox'), 'Fred', { viewport: { width: 800, height: 600 }, scripts: [smallPictures, timeJoins] }));
  const [alice, bob] = people;
  for (const person of people) await seesAll(person, people.length);
  for (const person of people.slice(1)) console.log(`${person.name} (${person.kind}) saw the first picture ${await firstPicture(person)} ms after "Join"`);

  await startBots(world, alice.page, 'weekly', BOTS);
  const everybody = people.length + BOTS;
  await traceTasks(chromium.browser, alice.page);
  for (const person of people) await person.readsThat('meeting-count', new RegExp(`^${everybody} people$`), PATIENCE);
  for (const person of people) await seesAll(person, everybody);
  for (const person of people) {
    await hears(person);
    await eventually(`${person.name} sees who speaks`, () => person.page.evaluate(() => document.querySelector('.tile:not([hidden])[data-speaking="true"]') !== null), PATIENCE);
  }

  await alice.press('meeting-chat');
  await alice.type('chat-field', 'hello everybody');
  await alice.press('chat-send');
  for (const person of people.slice(1)) {
    await person.press('meeting-chat');
    await person.readsThat('messages', /Alice .* hello everybody/, PATIENCE);
    await person.press('close-chat');
  }
  await alice.press('close-chat');

  await bob.press('meeting-screen');
  for (const person of people.filter((one) => one !== bob)) {
    await eventually(`${person.name} sees the screen`, () => isDrawn(person, 'screen-of-bob'), PATIENCE);
  }
  await bob.press('meeting-screen');
  for (const person of people.filter((one) => one !== bob)) await person.seesNo('screen-of-bob', PATIENCE);

  await alice.press('meeting-people');
  await alice.press('more-bob');
  await alice.press('make-listener');
  await eventually('Bob may only listen', () => bob.page.evaluate(() => document.querySelector('[data-test="meeting-mute"]').disabled), PATIENCE);
  await alice.press('more-bob');
  await alice.press('make-speaker');
  await eventually('Bob may speak', () => bob.page.evaluate(() => !document.querySelector('[data-test="meeting-mute"]').disabled), PATIENCE);

  await alice.page.evaluate(() => document.querySelector('[data-test="room-lobby"]').click());
  await eventually('the lobby is on', () => alice.page.evaluate(() => document.querySelector('[data-test="room-lobby"]').checked), PATIENCE);
  const guest = await world.visitor(chromium, { at: '/?room=weekly', viewport: { width: 390, height: 844 }, scripts: [smallPictures, timeJoins] });
  guest.name = 'Gus';
  await guest.type('name-input', 'Gus');
  await guest.press('guest');
  await guest.press('join');
  await guest.readsThat('meeting-waiting', /waiting to be let in/i, PATIENCE);
  await alice.press('admit-all');
  await guest.sees('conversation', PATIENCE);
  await guest.press('meeting-leave');
  await alice.press('close-people');

  const { count, longest } = await tasksOf(chromium.browser);
  console.log(`${count} tasks of the Chromium pages, the longest took ${longest.toFixed(1)} ms of the processor`);

  // Who comes into a full house.
  await bob.press('meeting-leave');
  await bob.press('meeting-close');
  await enter(bob);
  await bob.sees('conversation', PATIENCE);
  await seesAll(bob, everybody);
  console.log(`Bob came back and saw the first picture ${await firstPicture(bob)} ms after "Join"`);
  assert.ok(people.every(({ problems }) => problems.length === 0));
});

/**
 * Waits until every picture on the screen moves, one for each of `count` people but as many as fit, and prints how many frames of
 * a second each has.
 */
async function seesAll(person, count) {
  const before = await tilesOf(person);
  await eventually(`every picture moves for ${person.name}`, async () => {
    const tiles = await tilesOf(person);
    const hasPages = await person.page.evaluate(() => !document.querySelector('.pager').hidden);
    const isAll = hasPages ? tiles.length > 1 : tiles.length === count - 1;
    const isMoving = tiles.every(({ user, frames }) => frames - (before.find((one) => one.user === user)?.frames ?? 0) >= FRAMES_MIN);
    return (isAll && isMoving) || Promise.reject(new Error(JSON.stringify(tiles)));
  }, PATIENCE);
  const [start, began] = [await tilesOf(person), performance.now()];
  await pause(SPAN_MS);
  const [end, seconds] = [await tilesOf(person), (performance.now() - began) / 1000];
  const rates = end.flatMap(({ user, frames }) => {
    const then = start.find((one) => one.user === user);
    // What stopped, or is another slot's now, has no rate.
    return then && frames >= then.frames ? [{ user, rate: (frames - then.frames) / seconds }] : [];
  }).sort((a, b) => a.rate - b.rate);
  const of = (at) => (rates[at] ? `${rates[at].rate.toFixed(1)} (${rates[at].user})` : 'none');
  console.log(`${person.name} (${person.kind}) with ${count} people: ${rates.length} pictures of ${end.length} others on the screen; frames a second: `
    + `least ${of(0)}, median ${of(Math.floor(rates.length / 2))}, most ${of(rates.length - 1)}`);
}

/** Frames decoded for each tile on the screen that shows somebody else. */
function tilesOf(person) {
  return person.page.evaluate(async () => {
    const frames = new Map();
    for (const connection of globalThis.keptConnections) {
      if (connection.connectionState !== 'connected') continue;
      for (const report of (await connection.getStats()).values()) {
        if (report.type === 'inbound-rtp' && report.kind === 'video') frames.set(report.trackIdentifier, report.framesDecoded ?? 0);
      }
    }
    const tiles = document.querySelectorAll('.tile:not([hidden], [data-self="true"])');
    return [...tiles].map((tile) => {
      const [track] = tile.querySelector('video').srcObject?.getVideoTracks() ?? [];
      return { user: tile.dataset.test.replace('tile-', ''), frames: frames.get(track?.id) ?? 0 };
    });
  });
}

/** How many ms passed from the last click on "Join" to the first picture of somebody else. */
function firstPicture(person) {
  return eventually(`${person.name} has seen a first picture`, () => person.page.evaluate(() => globalThis.firstPictureAfter), PATIENCE);
}

// What runs inside pages, before their own scripts.

/** From the click on "Join" to the first picture that is not one's own. */
function timeJoins() {
  let joined = null;
  document.addEventListener('click', ({ target }) => {
    if (!(target instanceof Element) || !target.closest('[data-test="join"]')) return;
    joined = performance.now();
    globalThis.firstPictureAfter = 0;
  }, { capture: true });
  document.addEventListener('loadeddata', ({ target }) => {
    const tile = target instanceof Element ? target.closest('.tile') : null;
    if (joined === null || !tile || tile.dataset.self === 'true') return;
    globalThis.firstPictureAfter = Math.round(performance.now() - joined);
    joined = null;
  }, { capture: true });
}
