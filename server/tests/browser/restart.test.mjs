// The server goes away in mid-call. Nobody who talks should notice.

import assert from 'node:assert/strict';

import { story } from './lib/story.mjs';
import { eventually } from './lib/wait.mjs';

/** How long after the server is back both sides may take to be attached again. */
const ATTACHED_MS_MAX = 3_000;

for (const [how, words, end] of [
  ['is restarted', /restarting/, (server) => server.stop()],
  ['crashes and comes back', /cannot be reached/, (server) => server.kill()],
]) {
  story(`the server ${how} in mid-call: the picture goes on, both come back, one hang-up ends it`, {}, async (world) => {
    const chromium = await world.browser('chromium');
    const alice = await world.person(chromium, 'Alice');
    const bob = await world.person(chromium, 'Bob');
    await alice.calls('bob');
    await bob.accepts();
    for (const person of [alice, bob]) await person.seesAndHears();

    await end(world.server);
    for (const person of [alice, bob]) {
      await person.readsThat('banner', words);
      await person.seesAndHears();
      await person.readsThat('banner', words);
      await person.isIn('connected');
    }

    await world.server.start();
    const started = performance.now();
    const attached = await Promise.all([alice, bob].map(async (person) => {
      await eventually(`${person.name} is attached`, async () => !(await person.shows('banner')));
      return performance.now() - started;
    }));
    console.log(`attached again after ${attached.map(Math.round).join(' and ')} ms`);
    assert.ok(Math.max(...attached) <= ATTACHED_MS_MAX, `attached after ${attached} ms`);
    for (const person of [alice, bob]) await person.seesAndHears();

    await alice.press('hangup');
    for (const person of [alice, bob]) await person.isIn('ended', 'idle');
    await alice.remembers(/^Bob: Outgoing, \d/);
    await bob.remembers(/^Alice: Incoming, \d/);
  });
}
