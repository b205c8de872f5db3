// People meet in one Room, through the real server: pictures and sound of everybody, chat, roles, a lobby, a shared screen, a
// server that crashes.

import assert from 'node:assert/strict';

import { enter, hears, isDrawn, meets, seesPictures } from './lib/meeting.mjs';
import { story } from './lib/story.mjs';
import { eventually } from './lib/wait.mjs';

story('two Chromium and a Firefox in one Room: pictures and sound of everybody, chat, a screen, who leaves', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const alice = await meets(world, chromium, 'Alice');
  const bob = await meets(world, chromium, 'Bob');
  for (const person of [alice, bob]) await seesPictures(person, 1);
  const carol = await meets(world, await world.browser('firefox'), 'Carol');
  const everybody = [alice, bob, carol];
  for (const person of everybody) {
    await person.readsThat('meeting-count', /^3 people$/);
    await seesPictures(person, 2);
    await hears(person);
  }
  // The microphones of tests beep.
  await eventually('somebody is ringed as speaking', () => alice.page.evaluate(() => document.querySelector('.tile[data-speaking="true"]') !== null));

  await alice.press('meeting-chat');
  await alice.type('chat-field', 'hello everybody');
  await alice.press('chat-send');
  for (const person of [bob, carol]) {
    await person.press('meeting-chat');
    await person.readsThat('messages', /Alice .* hello everybody/);
    await person.press('close-chat');
  }
  await alice.press('close-chat');

  await bob.press('meeting-screen');
  for (const person of [alice, carol]) {
    await person.sees('screen-of-bob');
    await eventually(`${person.name} sees the screen`, () => isDrawn(person, 'screen-of-bob'));
  }
  await bob.press('meeting-screen');
  for (const person of [alice, carol]) await person.seesNo('screen-of-bob');

  await carol.press('meeting-camera');
  await eventually('Alice sees that the camera of Carol is off', () => alice.page.evaluate(() => document.querySelector('[data-test="tile-carol"]').dataset.picture === 'false'));
  await seesPictures(alice, 1);
  await carol.press('meeting-camera');
  await seesPictures(alice, 2);

  await carol.press('meeting-leave');
  await carol.sees('meeting-over');
  for (const person of [alice, bob]) await person.readsThat('meeting-count', /^2 people$/);
  await alice.press('meeting-leave');
  await alice.press('end-for-all');
  await bob.readsThat('meeting-over', /ended for everybody/);
});

story('a moderator mutes, gives roles, removes and lets in again', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const [alice, bob] = [await meets(world, chromium, 'Alice'), await meets(world, chromium, 'Bob')];
  for (const person of [alice, bob]) await seesPictures(person, 1);

  await alice.press('meeting-people');
  await alice.press('more-bob');
  await alice.press('mute-person');
  await bob.readsThat('toast', /microphone was switched off/);
  await eventually('Bob is shown muted', () => alice.page.evaluate(() => document.querySelector('[data-test="tile-bob"]').dataset.muted === 'true'));
  await bob.press('meeting-mute');
  await eventually('Bob speaks again', () => alice.page.evaluate(() => document.querySelector('[data-test="tile-bob"]').dataset.muted === 'false'));

  await alice.press('more-bob');
  await alice.press('make-listener');
  const mayNotSpeak = () => bob.page.evaluate(() => document.querySelector('[data-test="meeting-mute"]').ariaDisabled === 'true');
  await eventually('Bob may only listen', mayNotSpeak);
  await bob.page.focus('[data-test="meeting-mute"]');
  await bob.page.keyboard.press('Enter');
  await eventually('Bob hears why', () => bob.page.evaluate(() => document.body.innerText.includes('You may not speak')));
  await seesPictures(bob, 1);
  await alice.press('more-bob');
  await alice.press('make-speaker');
  await eventually('Bob may speak', async () => !(await mayNotSpeak()));
  await bob.press('meeting-camera');
  await seesPictures(alice, 1);

  // Who was removed waits outside.
  await alice.press('more-bob');
  await alice.press('remove-person');
  await bob.readsThat('meeting-over', /removed/);
  await bob.press('meeting-close');
  await enter(bob);
  await bob.readsThat('meeting-waiting', /waiting to be let in/i);
  await alice.press('admit-bob');
  await bob.sees('conversation');
  for (const person of [alice, bob]) await seesPictures(person, 1);
});

story('a guest with the link waits in the lobby until somebody lets them in, and has no directory', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const alice = await meets(world, chromium, 'Alice');
  await alice.press('meeting-people');
  await alice.page.evaluate(() => document.querySelector('[data-test="room-lobby"]').click());
  await eventually('the lobby is on', () => alice.page.evaluate(() => document.querySelector('[data-test="room-lobby"]').checked));

  const guest = await world.visitor(chromium, { at: '/?room=weekly' });
  guest.name = 'Gus';
  await guest.type('name-input', 'Gus');
  await guest.press('guest');
  await guest.press('join');
  await guest.readsThat('meeting-waiting', /waiting to be let in/i);
  await alice.press('admit-all');
  await guest.sees('conversation');
  for (const person of [alice, guest]) await seesPictures(person, 1);
  await guest.press('meeting-leave');
  await guest.press('meeting-close');
  await guest.sees('invite');
  assert.ok(!(await guest.shows('person-alice')));
});

story('a server that crashes: everybody is in the Room again', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const people = [await meets(world, chromium, 'Alice'), await meets(world, chromium, 'Bob')];
  for (const person of people) await seesPictures(person, 1);
  await world.server.kill();
  await world.server.start();
  for (const person of people) {
    await seesPictures(person, 1);
    await person.readsThat('meeting-count', /^2 people$/);
  }
});
