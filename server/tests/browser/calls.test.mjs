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
    await alice.knows('carol'); // the list of a transfer is that of its first moment
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

  // A message goes away by itself, before the winner is connected perhaps.
  const losers = new Set();
  const states = await eventually('each Device knows', async () => {
    const all = await Promise.all(bobs.map((bob) => bob.page.evaluate(() => document.querySelector('[data-test="call-state"]').dataset.state)));
    for (const bob of bobs) {
      if ((await bob.shows('toast')) && /answered on another device/i.test(await bob.reads('toast'))) losers.add(bob);
    }
    const talking = all.filter((state) => state === 'connected').length;
    const done = all.filter((state) => state === 'idle').length;
    return (talking === 1 && done === 2 && losers.size === 2 && all) || Promise.reject(new Error(`${all.join(' ')}, ${losers.size} told`));
  });
  const winner = bobs[states.indexOf('connected')];
  assert.ok(!losers.has(winner));
  for (const loser of losers) assert.deepEqual(await loser.media(), []);
  for (const person of [alice, winner]) await person.seesAndHears();

  await alice.press('hangup');
  await winner.isIn('ended', 'idle');
  await alice.remembers(/^Bob: Outgoing, \d/);
  for (const bob of bobs) await bob.remembers(/^Alice: Incoming, \d/);
});

story('a shared screen is shown whole and called a screen, a microphone that is off is told', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const [alice, bob] = [await world.person(chromium, 'Alice'), await world.person(chromium, 'Bob')];
  await alice.calls('bob');
  await bob.accepts();
  for (const person of [alice, bob]) await person.seesAndHears();
  for (const fact of ['peer-screen', 'peer-silent']) assert.ok(!(await bob.shows(fact)), fact);

  await alice.press('screen');
  await bob.sees('peer-screen');
  const remote = () => bob.page.evaluate(() => {
    const { dataset, ariaLabel } = document.querySelector('[data-test="remote-video"]');
    return `${ariaLabel}: ${dataset.fit}`;
  });
  assert.equal(await remote(), 'Alice’s screen: contain');
  await bob.seesAndHears();
  await alice.press('screen');
  await bob.seesNo('peer-screen');

  await alice.press('mute');
  await bob.sees('peer-silent');
  await alice.press('mute');
  await bob.seesNo('peer-silent');
  await bob.press('hangup');
  await alice.isIn('ended', 'idle');
});

story('what somebody chose about calls outlives a reload, and reaches their other Device', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const bob = await world.person(chromium, 'Bob');
  const chosen = (person) => person.page.evaluate(() => {
    const on = (name) => document.querySelector(`[data-test="${name}"]`).checked;
    return { away: on('status-away'), callWaiting: on('call-waiting') };
  });
  const reads = (person, what) => eventually(what, async () => {
    await person.press('status');
    await person.sees('me');
    const { away, callWaiting } = await chosen(person);
    await person.page.keyboard.press('Escape');
    await person.seesNo('me');
    return (away && !callWaiting) || Promise.reject(new Error(JSON.stringify({ away, callWaiting })));
  });

  await bob.press('status');
  await bob.sees('me');
  // The boxes lie under what is drawn in their place.
  for (const name of ['status-away', 'call-waiting']) await bob.page.evaluate((test) => document.querySelector(`[data-test="${test}"]`).click(), name);
  await bob.page.keyboard.press('Escape');
  await bob.page.waitForFunction(() => document.querySelector('[data-test="status"]').dataset.status === 'away');
  await reads(bob, 'both are shown at once');

  await bob.page.reload();
  await bob.isSignedIn();
  await reads(bob, 'both are shown after a reload');
  const second = await world.person(chromium, 'Bob');
  await reads(second, 'both are shown on a second Device');
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
