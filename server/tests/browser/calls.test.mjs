// Two people call each other in their browsers.

import assert from 'node:assert/strict';

import { story } from './lib/story.mjs';
import { eventually } from './lib/wait.mjs';

for (const [one, other] of [['chromium', 'chromium'], ['chromium', 'firefox'], ['firefox', 'chromium']]) {
  story(`${one} calls ${other}: pictures, sound, one code, hold, a transfer, the end`, {}, async (world) => {
    const alice = await world.person(await world.browser(one), 'Alice');
    const bob = await world.person(await world.browser(other), 'Bob');

    await alice.calls('bob');
    await bob.accepts();
    for (const person of [alice, bob]) await person.isIn('connected');
    for (const person of [alice, bob]) await person.seesAndHears();
    assert.equal(await alice.code(), await bob.code());

    await alice.press('hold');
    await alice.isIn('held');
    await bob.isIn('held-by-peer');
    for (const person of [alice, bob]) await person.seesAndHearsNothing();
    await alice.press('resume');
    for (const person of [alice, bob]) await person.isIn('connected');
    for (const person of [alice, bob]) await person.seesAndHears();

    const carol = await world.person(await world.browser('chromium'), 'Carol');
    await alice.press('transfer');
    await alice.press('transfer-to-carol');
    await carol.accepts();
    await alice.isIn('ended', 'idle');
    for (const person of [bob, carol]) await person.isIn('connected');
    for (const person of [bob, carol]) await person.seesAndHears();
    assert.equal(await bob.code(), await carol.code());

    await carol.press('hangup');
    for (const person of [bob, carol]) await person.isIn('ended', 'idle');

    await alice.remembers(/^Bob: Outgoing, \d/);
    await bob.remembers(/^Carol: Outgoing, \d/, /^Alice: Incoming, \d/);
    await carol.remembers(/^Bob: Incoming, \d/);
  });
}

story('an attended transfer connects the two that were talked to', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const [alice, bob, carol] = [await world.person(chromium, 'Alice'), await world.person(chromium, 'Bob'), await world.person(chromium, 'Carol')];

  await alice.calls('bob');
  await bob.accepts();
  await alice.isIn('connected');
  await alice.calls('carol');
  await bob.isIn('held-by-peer');
  await carol.accepts();
  await alice.isIn('connected');
  await carol.seesAndHears();

  await alice.press('transfer');
  await alice.press('connect-with-bob');
  await alice.isIn('ended', 'idle');
  for (const person of [bob, carol]) await person.isIn('connected');
  for (const person of [bob, carol]) await person.seesAndHears();
  assert.equal(await bob.code(), await carol.code());

  await bob.press('hangup');
  await carol.isIn('ended', 'idle');
});

story('three Devices of one User race to accept: one wins, the others hear of it', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const alice = await world.person(chromium, 'Alice');
  const bobs = [];
  for (let device = 0; device < 3; device += 1) bobs.push(await world.person(chromium, 'Bob'));

  await alice.calls('bob');
  for (const bob of bobs) await bob.sees('incoming');
  // One click each, as close together as three pages allow.
  await Promise.all(bobs.map((bob) => bob.page.evaluate(() => document.querySelector('[data-test="accept-video"]').click())));

  const states = await eventually('each Device knows', async () => {
    const all = await Promise.all(bobs.map((bob) => bob.page.evaluate(() => document.querySelector('[data-test="call-state"]').dataset.state)));
    const talking = all.filter((state) => state === 'connected').length;
    const done = all.filter((state) => state === 'idle').length;
    return (talking === 1 && done === 2 && all) || Promise.reject(new Error(all.join(' ')));
  });
  const winner = bobs[states.indexOf('connected')];
  const losers = bobs.filter((bob) => bob !== winner);
  for (const loser of losers) {
    await loser.readsThat('toast', /answered on another device/i);
    assert.deepEqual(await loser.media(), []);
  }
  for (const person of [alice, winner]) await person.seesAndHears();

  await alice.press('hangup');
  await winner.isIn('ended', 'idle');
  await alice.remembers(/^Bob: Outgoing, \d/);
  for (const bob of bobs) await bob.remembers(/^Alice: Incoming, \d/);
});

story('mDNS names instead of addresses: somebody without a camera watches', {}, async (world) => {
  const watcher = await world.person(await world.browser('chromium', { mdns: true }, 'without permissions'), 'Alice');
  const bob = await world.person(await world.browser('chromium'), 'Bob');
  const names = [];
  watcher.page.on('websocket', (socket) => socket.on('framesent', ({ payload }) => names.push(...(String(payload).match(/[\w-]+\.local/g) ?? []))));
  await watcher.page.reload();
  await watcher.isSignedIn();

  await watcher.calls('bob');
  await watcher.press('go-without');
  await bob.accepts();
  for (const person of [watcher, bob]) await person.isIn('connected');
  await watcher.seesAndHears();
  assert.notEqual(names.length, 0, 'no candidate was an mDNS name');

  await bob.press('hangup');
  await watcher.isIn('ended', 'idle');
});

story('both sides through the relay, on localhost, with the default configuration', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const alice = await world.person(chromium, 'Alice', { at: '/?relay=1' });
  const bob = await world.person(chromium, 'Bob', { at: '/?relay=1' });

  await alice.calls('bob');
  await bob.accepts();
  for (const person of [alice, bob]) {
    const { local, remote } = await person.seesAndHears();
    assert.match(local, /^relay\/udp\/(udp|tcp)$/);
    assert.match(remote, /^(relay|prflx)\/udp$/);
  }
  assert.equal(await alice.code(), await bob.code());
  await bob.press('hangup');
  await alice.isIn('ended', 'idle');
});
