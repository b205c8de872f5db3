// Every screen of the page, light and dark, on a phone and on a desktop: axe-core must find nothing, and pictures are kept for
// people to look at.

import { looksRight } from './lib/looks.mjs';
import { story } from './lib/story.mjs';
import { eventually } from './lib/wait.mjs';

/** A page by plain HTTP from another machine; browsers trust localhost alone. */
const ELSEWHERE = 'elsewhere.test';

story('the way in: welcome, token, insecure page, no server', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const visitor = await world.visitor(chromium);
  await visitor.sees('name-input');
  await looksRight(visitor, 'welcome');

  const insecure = await world.visitor(chromium);
  await insecure.page.route(`http://${ELSEWHERE}/**`, async (route) => {
    const url = route.request().url().replace(`http://${ELSEWHERE}`, world.server.url);
    await route.fulfill({ response: await route.fetch({ url }) });
  });
  await insecure.page.goto(`http://${ELSEWHERE}/`);
  await insecure.page.getByText('not secure').waitFor();
  await looksRight(insecure, 'insecure');

  // As a configured server, which has no open sign-in, answers it.
  const guest = await world.visitor(chromium, { serviceWorkers: 'block' });
  await guest.page.route('**/demo/config', (route) => route.fulfill({ status: 404 }));
  await guest.page.reload();
  await guest.sees('token-input');
  await looksRight(guest, 'token');

  // The service worker shows the page although nothing is behind it.
  const isKept = () => navigator.serviceWorker.getRegistration().then((registration) => registration?.active?.state === 'activated');
  await eventually('the service worker is there', () => visitor.page.evaluate(isKept));
  await visitor.page.reload();
  await world.server.stop();
  await visitor.page.reload();
  await visitor.page.getByText('cannot be reached').waitFor();
  await looksRight(visitor, 'no server');
});

story('at home: alone, with others, dialogs, history', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const alice = await world.person(chromium, 'Alice');
  await alice.sees('invite');
  await looksRight(alice, 'alone');

  const bob = await world.person(chromium, 'Bob');
  await alice.sees('call-video-bob');
  await looksRight(alice, 'people');

  for (const [button, dialog] of [['status', 'me'], ['devices', 'devices-dialog']]) {
    await alice.press(button);
    await alice.sees(dialog);
    await looksRight(alice, dialog);
    await alice.page.keyboard.press('Escape');
    await alice.seesNo(dialog);
  }
  await alice.page.keyboard.press('?');
  await alice.sees('help');
  await looksRight(alice, 'help');
  await alice.page.keyboard.press('Escape');

  await alice.press('tab-history');
  await looksRight(alice, 'history, empty');
  await bob.calls('alice');
  await alice.sees('incoming');
  await bob.press('hangup');
  await bob.isIn('idle', 'ended');
  await alice.seesNo('incoming');
  await alice.readsThat('history', /Missed/);
  await looksRight(alice, 'history, missed');
});

story('ringing: here, there, declined, without a microphone', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const alice = await world.person(chromium, 'Alice');
  const bob = await world.person(chromium, 'Bob');
  await alice.calls('bob');
  await alice.isIn('ringing');
  await bob.sees('incoming');
  await looksRight(alice, 'ringing there');
  await looksRight(bob, 'ringing here');
  await bob.press('decline');
  await alice.sees('outcome');
  await looksRight(alice, 'declined');

  const carol = await world.person(await world.browser('chromium', { mdns: true }, 'without permissions'), 'Carol');
  await carol.calls('alice');
  await carol.sees('media-problem');
  await looksRight(carol, 'microphone blocked');
});

story('talking: connected, details, hold, transfer, a second call, a server that is away', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const [alice, bob, carol] = [await world.person(chromium, 'Alice'), await world.person(chromium, 'Bob'), await world.person(chromium, 'Carol')];
  await alice.calls('bob');
  await bob.accepts();
  for (const person of [alice, bob]) await person.isIn('connected');
  await alice.seesAndHears();
  await looksRight(alice, 'connected');

  await bob.press('screen');
  await bob.press('mute');
  for (const fact of ['peer-screen', 'peer-silent']) await alice.sees(fact);
  await looksRight(alice, 'a shared screen');
  await bob.press('screen');

  await alice.press('connection-open');
  await alice.sees('code');
  await looksRight(alice, 'details');
  await alice.press('connection-open');

  await alice.press('transfer');
  await alice.sees('transfer-dialog');
  await looksRight(alice, 'transfer');
  await alice.page.keyboard.press('Escape');

  await carol.calls('alice');
  await alice.sees('incoming');
  await looksRight(alice, 'a second caller');
  await alice.press('hold-and-accept');
  await bob.isIn('held-by-peer');
  await alice.sees('line-bob');
  await looksRight(alice, 'two calls');
  await looksRight(bob, 'held by the other side');
  await carol.press('hangup');
  await alice.isIn('held'); // the call with Bob is back on the stage
  await looksRight(alice, 'held');
  await alice.press('resume');
  await alice.isIn('connected');

  await world.server.stop();
  await alice.sees('banner');
  await looksRight(alice, 'server away');
  await alice.press('hangup');
  await alice.isIn('ended', 'idle');
});

story('no way between two browsers: said soon, said plainly, tried again', { server: { args: ['serve', '--roles', 'signaling,web'] } }, async (world) => {
  const chromium = await world.browser('chromium');
  const people = [];
  for (const name of ['Alice', 'Bob']) people.push(await world.person(chromium, name, { at: '/?relay=1' }));
  const [alice, bob] = people;
  await alice.calls('bob');
  await bob.accepts();

  await Promise.all(people.map((person) => person.readsThat('notice', /no way found yet/i)));
  for (const person of people) await person.isIn('failed');
  await alice.readsThat('notice', /firewall/i);
  await looksRight(alice, 'no way');
  await alice.press('look-again');
  await alice.isIn('connecting');
  await bob.press('hangup');
  await alice.isIn('ended', 'idle');
});
