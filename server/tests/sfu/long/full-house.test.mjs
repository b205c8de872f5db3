// Fifty people in one Room: four Chromium and a Firefox, and bots that send what an encoder made. Each browser shows as many as fit its
// window and turns the pages until it has decoded everybody; what is not on a screen is not sent there.
//
// It takes two cores whole for some minutes; what it prints is what there is to know. LEAN=1 has a dozen people instead of fifty.

import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';

import { startBots } from '../../browser/lib/bots.mjs';
import { enter, hears, isDrawn, meets } from '../../browser/lib/meeting.mjs';
import { smallPictures } from '../../browser/lib/media.mjs';
import { measureProcessor } from '../../browser/lib/processor.mjs';
import { story } from '../../browser/lib/story.mjs';
import { nameTasks, tasksOf, traceTasks } from '../../browser/lib/tasks.mjs';
import { eventually } from '../../browser/lib/wait.mjs';

const BOTS = process.env.LEAN ? 7 : 45;

/** Everything takes its time here, and to look takes some of it. */
const PATIENCE = { timeout: 180_000, interval: 500 };

/** So many more frames of a picture mean that it moves: a second of what bots send. */
const FRAMES_MIN = 5;

/** Frames and bytes of a second are counted over this. */
const SPAN_MS = 10_000;

/** What is sent besides what is seen, at most: probes, and what was on its way when a page was turned. */
const BESIDE_MAX = 0.25;

/** No task of a page's main thread may take more of the processor. */
const TASK_MS_MAX = 50;

/** How often pages are turned from the first to the last: who speaks comes to the first meanwhile. */
const ROUNDS_MAX = 4;

/** Small windows, as many pictures as a processor decodes for five at once. */
const PEOPLE = [
  ['Alice', { width: 560, height: 420 }],
  ['Bob', { width: 480, height: 400 }],
  ['Carol', { width: 390, height: 560 }],
  ['Dora', { width: 480, height: 400 }],
];
const FRED = { width: 480, height: 400 };

/** In the end one of them sees all of the others at once, as on a desk. */
const DESK = { width: 1280, height: 720 };

story(`four Chromium, a Firefox and ${BOTS} bots in one Room`, {}, async (world) => {
  const scripts = [smallPictures, timeJoins];
  const chromium = await world.browser('chromium');
  const people = [];
  for (const [name, viewport] of PEOPLE) people.push(await meets(world, chromium, name, { viewport, scripts }));
  people.push(await meets(world, await world.browser('firefox'), 'Fred', { viewport: FRED, scripts }));
  const [alice, bob] = people;
  const table = new Map(people.map((person) => [person, { name: person.name, browser: person.kind }]));
  for (const person of people) {
    await seesPage(person);
    // Nobody was there yet when the first one came.
    if (person !== alice) table.get(person)['first picture ms'] = await firstPicture(person);
  }

  await traceTasks(chromium.browser, alice.page);
  for (const person of people.slice(0, PEOPLE.length)) await nameTasks(person.page, person.name);
  await startBots(world, alice.page, 'weekly', BOTS);
  const everybody = people.length + BOTS;
  for (const person of people) await person.readsThat('meeting-count', new RegExp(`^${everybody} people$`), PATIENCE);
  for (const person of people) {
    await seesPage(person);
    await hears(person);
    await eventually(`${person.name} sees who speaks`, () => person.page.evaluate(() => document.querySelector('.tile:not([hidden])[data-speaking="true"]') !== null), PATIENCE);
  }

  const taken = await measureProcessor();
  for (const person of people) Object.assign(table.get(person), await seesEverybody(person, everybody - 1));
  printProcessor('while they turned pages', await taken());
  const { count, longest, pages } = await tasksOf(chromium.browser);
  console.log(`${count} tasks of the Chromium pages, the longest took ${longest.toFixed(1)} ms of the processor`);
  assert.ok(longest <= TASK_MS_MAX, `a task took ${longest} ms`);
  for (const person of people) table.get(person)['longest task ms'] = pages.get(person.name)?.toFixed(1) ?? 'not told';
  console.table([...table.values()]);

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
  const mayNotSpeak = () => bob.page.evaluate(() => document.querySelector('[data-test="meeting-mute"]').ariaDisabled === 'true');
  await eventually('Bob may only listen', mayNotSpeak, PATIENCE);
  await alice.press('more-bob');
  await alice.press('make-speaker');
  await eventually('Bob may speak', async () => !(await mayNotSpeak()), PATIENCE);

  await alice.page.evaluate(() => document.querySelector('[data-test="room-lobby"]').click());
  await eventually('the lobby is on', () => alice.page.evaluate(() => document.querySelector('[data-test="room-lobby"]').checked), PATIENCE);
  const guest = await world.visitor(chromium, { at: '/?room=weekly', viewport: { width: 390, height: 560 }, scripts });
  guest.name = 'Gus';
  await guest.type('name-input', 'Gus');
  await guest.press('guest');
  await guest.press('join');
  await guest.readsThat('meeting-waiting', /waiting to be let in/i, PATIENCE);
  await alice.press('admit-all');
  await guest.sees('conversation', PATIENCE);
  await guest.press('meeting-leave');
  await alice.press('close-people');

  // Who comes into a full house.
  await bob.press('meeting-leave');
  await bob.press('meeting-close');
  await enter(bob);
  await bob.sees('conversation', PATIENCE);
  await seesPage(bob);
  console.log(`Bob came back into a full house and saw the first picture ${await firstPicture(bob)} ms after "Join"`);

  // All others at once, on one screen. Those who are done leave the processor to it.
  for (const person of people.slice(1)) await person.press('meeting-leave');
  await alice.readsThat('meeting-count', new RegExp(`^${1 + BOTS} people$`), PATIENCE);
  await alice.page.setViewportSize(DESK);
  await traceTasks(chromium.browser, alice.page);
  const takenAlone = await measureProcessor();
  await eventually('Alice has them all on one page', async () => (await tilesOf(alice)).length === BOTS, PATIENCE);
  await seesPage(alice);
  const { rates } = await span(alice);
  const tasks = await tasksOf(chromium.browser);
  console.log(`Alice with ${rates.length} pictures on one page: ${spread(rates)} frames a second, the longest task took ${tasks.longest.toFixed(1)} ms of the processor`);
  printProcessor(`while Alice saw ${rates.length} pictures`, await takenAlone());
  assert.ok(tasks.longest <= TASK_MS_MAX, `a task took ${tasks.longest} ms`);
  assert.ok(people.every(({ problems }) => problems.length === 0));
});

/** Waits until every picture on the page that is shown moves; who they are of. */
async function seesPage(person) {
  const before = new Map();
  const tiles = await eventually(`every picture on the page moves for ${person.name}`, async () => {
    const now = await tilesOf(person);
    for (const { user, track, frames } of now) {
      // What another slot carries now begins to count anew.
      const known = before.get(user);
      if (known?.track !== track) before.set(user, { track, frames });
    }
    const isMoving = now.length > 0 && now.every(({ user, frames }) => frames - before.get(user).frames >= FRAMES_MIN);
    return isMoving ? now : Promise.reject(new Error(JSON.stringify(now)));
  }, PATIENCE);
  return tiles.map(({ user }) => user);
}

/** Turns the pages until everybody was seen moving, and says what that was like. */
async function seesEverybody(person, count) {
  // What was on its way before is not counted.
  await seesPage(person);
  const { rates, kbps, beside } = await span(person);
  assert.ok(beside <= BESIDE_MAX, `${person.name} gets pictures that are on no screen: ${(beside * 100).toFixed(0)} % of the bytes`);
  const seen = new Set();
  let turned = 0;
  for (let round = 0; seen.size < count && round < ROUNDS_MAX; round += 1) {
    for (;;) {
      for (const user of await seesPage(person)) seen.add(user);
      if (seen.size === count || !(await turn(person, 'Next page'))) break;
      turned += 1;
    }
    while (seen.size < count && await turn(person, 'Page before'));
  }
  assert.equal(seen.size, count, `${person.name} has seen ${[...seen].join(', ')}`);
  return {
    'pictures on a page': rates.length, 'pages turned': turned, 'others decoded': seen.size,
    'frames/s': spread(rates), 'kbit/s of a page': kbps, 'of it unseen': `${(beside * 100).toFixed(0)} %`,
  };
}

/** Turns the page, if there is another one that way. */
async function turn(person, label) {
  const before = await person.page.evaluate(() => document.querySelector('[data-test="page"]').textContent);
  const isTurned = await person.page.evaluate((name) => {
    const button = document.querySelector(`.pager:not([hidden]) [aria-label="${name}"]:not(:disabled)`);
    button?.click();
    return button !== null;
  }, label);
  if (isTurned) {
    await eventually(`${person.name} is on another page`, () => person.page.evaluate((words) => document.querySelector('[data-test="page"]').textContent !== words, before), PATIENCE);
  }
  return isTurned;
}

/** Frames a second of each picture on the page, all that comes of pictures in kbit/s, and the share of it that is of no picture there. */
async function span(person) {
  const [start, began] = [await streamsOf(person), performance.now()];
  await pause(SPAN_MS);
  const [end, seconds] = [await streamsOf(person), (performance.now() - began) / 1000];
  const shown = new Map((await tilesOf(person)).map(({ track, user }) => [track, user]));
  const [rates, bytes] = [[], { all: 0, beside: 0 }];
  for (const [track, { frames, bytes: now }] of end) {
    const grown = now - (start.get(track)?.bytes ?? 0);
    bytes.all += grown;
    if (!shown.has(track)) bytes.beside += grown;
    else rates.push({ user: shown.get(track), rate: (frames - (start.get(track)?.frames ?? 0)) / seconds });
  }
  rates.sort((a, b) => a.rate - b.rate);
  return { rates, kbps: Math.round((bytes.all * 8) / 1000 / seconds), beside: bytes.beside / Math.max(1, bytes.all) };
}

/** The least, the median and the most. */
function spread(rates) {
  const of = (at) => rates[at]?.rate.toFixed(1) ?? 'none';
  return `${of(0)} / ${of(Math.floor(rates.length / 2))} / ${of(rates.length - 1)}`;
}

function printProcessor(when, { total, processes }) {
  console.log(`${total.toFixed(0)} % of a core ${when}:`);
  for (const { name, percent, threads } of processes.filter((one) => one.percent >= 1)) {
    console.log(`  ${percent.toFixed(0).padStart(4)} % ${name}: ${threads.map(([thread, share]) => `${thread} ${share.toFixed(0)}`).join(', ')}`);
  }
}

/** Whose pictures are on the page, somebody else's alone: the stream's track, and the frames of it that were decoded. */
async function tilesOf(person) {
  const streams = await streamsOf(person);
  const tiles = await person.page.evaluate(() => {
    const shown = document.querySelectorAll('.tile:not([hidden], [data-self="true"])');
    return [...shown].map((tile) => ({
      user: tile.dataset.test.replace('tile-', ''),
      track: tile.querySelector('video').srcObject?.getVideoTracks()[0]?.id ?? null,
    }));
  });
  return tiles.map((tile) => ({ ...tile, frames: streams.get(tile.track)?.frames ?? 0 }));
}

/** Frames decoded and bytes received so far of each stream of pictures, by its track. */
async function streamsOf(person) {
  return new Map(await person.page.evaluate(async () => {
    const streams = [];
    for (const connection of globalThis.keptConnections) {
      if (connection.connectionState !== 'connected') continue;
      for (const report of (await connection.getStats()).values()) {
        if (report.type !== 'inbound-rtp' || report.kind !== 'video') continue;
        streams.push([report.trackIdentifier, { frames: report.framesDecoded ?? 0, bytes: report.bytesReceived ?? 0 }]);
      }
    }
    return streams;
  }));
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
