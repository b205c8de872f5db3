// A server that swaps what it should pass on. Whoever compares the five words finds out; where it can be found out without
// comparing, the page refuses.

import assert from 'node:assert/strict';

import { startHostileServer } from './lib/hostile.mjs';
import { story } from './lib/story.mjs';
import { eventually } from './lib/wait.mjs';

story('a server that passes everything on yields one code', {}, async (world) => {
  const [alice, bob] = await aCallThrough(world, {});
  assert.equal(await alice.code(), await bob.code());
  await alice.seesAndHears();
});

story('a server that swaps everything, signatures forged, yields two codes', {}, async (world) => {
  const [alice, bob] = await aCallThrough(world, { descriptions: true, keys: true, exchange: true });
  const codes = [await alice.code(), await bob.code()];
  assert.notEqual(codes[0], codes[1]);
});

for (const lies of [{ descriptions: true }, { descriptions: true, keys: true }, { keys: true }, { descriptions: true, exchange: true }]) {
  story(`a server that swaps ${Object.keys(lies).join(' and ')} only is found out by the page`, {}, async (world) => {
    const people = await aCallThrough(world, lies);
    await eventually('the Call is over on one side at least', async () => {
      const states = await Promise.all(people.map((person) => person.page.evaluate(() => document.querySelector('[data-test="call-state"]').dataset.state)));
      return states.includes('ended') || Promise.reject(new Error(states.join()));
    });
    for (const person of people) assert.deepEqual(await person.media(), []);
  });
}

/** Alice calls Bob, both through a server with these lies. */
async function aCallThrough(world, lies) {
  const hostile = await startHostileServer(world.server.url, lies);
  world.whenOver(() => hostile.close());
  const chromium = await world.browser('chromium');
  const alice = await world.person(chromium, 'Alice', { url: hostile.url });
  const bob = await world.person(chromium, 'Bob', { url: hostile.url });
  await alice.calls('bob');
  await bob.accepts();
  return [alice, bob];
}
