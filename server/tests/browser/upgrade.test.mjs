// A Call becomes a meeting and a Call again, without hanging up, through the real server: what is heard meanwhile is measured.

import assert from 'node:assert/strict';

import { forget, heard, listen, soundAsTone } from './lib/hearing.mjs';
import { story } from './lib/story.mjs';
import { eventually } from './lib/wait.mjs';

/**
 * For how long nothing may be heard, in the time of the sound. Where other programs take all processors, sound is late whatever
 * anybody does; to hang up and to meet anew would still take longer. `GAP_MS_MAX=200` holds the page to what it promises.
 */
const GAP_MS_MAX = Number(process.env.GAP_MS_MAX ?? 1_000);
/** How much sound before and after a change is looked at. */
const STEADY_MS = 2_000;

story('a Call becomes a meeting of three and a Call again: the other side is heard all the while', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const [alice, bob] = [await speaksATone(world, chromium, 'Alice'), await speaksATone(world, chromium, 'Bob')];
  const carol = await world.person(chromium, 'Carol');
  const both = [alice, bob];

  await alice.calls('bob');
  await bob.accepts();
  for (const person of both) await person.seesAndHears();
  await alice.knows('carol');
  for (const person of both) await person.page.evaluate(listen);
  // What a busy machine does to sound by itself tells what may be asked of it.
  const before = await measures('while nothing changes', both, async () => {});
  const allowed = Math.max(GAP_MS_MAX, 10 * before);

  const into = await measures('from the call into the meeting', both, async () => {
    await alice.press('add-people');
    await alice.sees('invite-dialog');
    for (const person of both) await person.sees('conversation');
    for (const person of both) await hasOneConnection(person);
  });

  await alice.press('invite-carol');
  await alice.page.keyboard.press('Escape');
  await carol.readsThat('toast', /Alice invites you to a meeting/);
  await carol.page.evaluate(() => document.querySelector('[data-test="toast"] .button').click());
  await carol.sees('join');
  await carol.press('check-microphone'); // she is not to be heard where nothing should be
  await carol.press('join');
  for (const person of [alice, bob, carol]) await person.readsThat('meeting-count', /^3 people$/);
  await carol.seesAndHears();

  const back = await measures('from the meeting into the call', both, async () => {
    await carol.press('meeting-leave');
    for (const person of both) {
      await person.seesNo('conversation');
      await person.isIn('connected');
      await hasOneConnection(person);
    }
  });
  for (const person of both) await person.seesAndHears();
  for (const gap of [into, back]) assert.ok(gap <= allowed, `nothing was heard for ${gap} ms, and ${before} ms while nothing changed`);
  assert.equal(await alice.code(), await bob.code());

  await alice.press('hangup');
  for (const person of both) await person.isIn('ended', 'idle');
  // Of the second Call the one is the caller who was in the meeting first.
  await alice.remembers(/^Bob: (Outgoing|Incoming), \d/, /^Bob: Outgoing, \d/);
});

story('who is muted and who has no camera stays so in the meeting, and who hangs up there leaves', {}, async (world) => {
  const alice = await world.person(await world.browser('chromium'), 'Alice');
  const bob = await world.person(await world.browser('firefox'), 'Bob');
  await alice.calls('bob');
  await bob.accepts();
  for (const person of [alice, bob]) await person.seesAndHears();
  await alice.press('mute');
  await alice.press('camera');

  await bob.press('add-people');
  await bob.sees('invite-dialog');
  await bob.page.keyboard.press('Escape');
  for (const person of [alice, bob]) {
    await person.sees('conversation');
    await hasOneConnection(person);
  }
  const tile = () => bob.page.evaluate(() => ({ ...document.querySelector('[data-test="tile-alice"]').dataset }));
  await eventually('Alice is as muted as before', async () => {
    const { muted, picture } = await tile();
    return (muted === 'true' && picture === 'false') || Promise.reject(new Error(JSON.stringify({ muted, picture })));
  });
  await alice.seesAndHears();

  await alice.press('meeting-mute');
  await alice.press('meeting-camera');
  await bob.seesAndHears();
  await alice.press('meeting-leave');
  // Who came into the Room first moderates it, and is asked for whom it ends.
  const next = await eventually('Alice has left or is asked', async () => {
    const seen = await alice.page.evaluate(() => ['leave-dialog', 'meeting-leave'].filter((name) => document.querySelector(`[data-test="${name}"]`)?.checkVisibility()));
    if (seen.includes('leave-dialog')) return 'asked';
    return seen.length === 0 ? 'left' : Promise.reject(new Error('neither'));
  });
  if (next === 'asked') await alice.press('leave-only');
  await bob.readsThat('meeting-count', /^1 person$/);
  for (const person of [alice, bob]) await person.isIn('idle');
});

/** Signs in as somebody whose microphone is a tone. */
async function speaksATone(world, browser, name) {
  const person = await world.visitor(browser, { bypassCSP: true });
  await person.page.addInitScript(soundAsTone);
  await person.page.reload();
  await person.signIn(name);
  return person;
}

/** Says for how long nothing was heard around a change; the longest time of anybody, in ms. */
async function measures(what, people, change) {
  let longest = 0;
  for (const { page } of people) await page.evaluate(forget);
  for (const person of people) await hasHeard(person, STEADY_MS);
  await change();
  for (const person of people) {
    const { heardMs } = await person.page.evaluate(heard);
    await hasHeard(person, heardMs + STEADY_MS);
    const { longestGapMs, silentMs, doubledMs } = await person.page.evaluate(heard);
    const figures = `${longestGapMs.toFixed(1)} ms at a stretch, ${silentMs.toFixed(1)} ms in all; too much for ${doubledMs.toFixed(1)} ms`;
    console.log(`${what}: ${person.name} heard nothing for ${figures}`);
    longest = Math.max(longest, longestGapMs);
  }
  return longest;
}

async function hasHeard(person, ms) {
  await eventually(`${person.name} has listened to ${ms} ms`, async () => (await person.page.evaluate(heard)).heardMs >= ms);
}

/** The old way is closed, and there is one that carries. */
async function hasOneConnection(person) {
  await eventually(`${person.name} has one connection`, async () => {
    const states = await person.page.evaluate(() => globalThis.keptConnections.map(({ connectionState }) => connectionState));
    const open = states.filter((state) => state !== 'closed');
    return (open.length === 1 && open[0] === 'connected') || Promise.reject(new Error(states.join(' ')));
  });
}
