// Phone calls on the page, with a server in its own memory that stands for the gateway, too: the dial pad by mouse and by keyboard,
// keys, hand-over, calls that come in. What is heard over real lines is for the phone tests.

import assert from 'node:assert/strict';

import { looksRight } from './lib/looks.mjs';
import { liveInMemory, servePage } from './lib/memory.mjs';
import { story } from './lib/story.mjs';
import { eventually } from './lib/wait.mjs';

const NUMBER = '+4930123456';

story('a number is dialled, heard before it answers, given keys and put on hold', { server: false }, async (world) => {
  const alice = await somebody(world);
  await alice.press('open-dialpad');
  await alice.sees('number');
  await looksRight(alice, 'phone, dial pad');
  await alice.press('dial');
  await readsHint(alice, 'number-problem', /Write it as/);
  for (const key of ['4', '2', 'star', '9']) await alice.press(`key-${key}`);
  await alice.press('number-erase');
  assert.equal(await valueOf(alice, 'number'), '42*');
  await alice.type('number', '+49 30 123-456');
  await alice.press('dial');
  await alice.isIn('ringing');
  await alice.readsThat('call-state', /Calling…/);

  await says(alice, 'phoneProgresses', 'queued', 3);
  await alice.readsThat('call-state', /line, place 3/);
  await looksRight(alice, 'phone, in a line');
  await populate(alice);
  await says(alice, 'phoneProgresses', 'early_media');
  await alice.sees('early-keys');
  await eventually('what the other side plays is heard', () => isHeard(alice));
  await looksRight(alice, 'phone, before the answer');

  await says(alice, 'phoneAnswers');
  await alice.isIn('connected');
  await alice.seesNo('camera');
  await alice.seesNo('screen');
  await eventually('the phone is heard', () => isHeard(alice));
  await looksRight(alice, 'phone, talking');

  await alice.page.keyboard.press('k');
  await alice.sees('keys-pressed');
  for (const key of ['1', '#']) await alice.page.keyboard.press(key);
  await alice.press('key-5');
  await alice.readsThat('keys-pressed', /^1#5$/);
  assert.deepEqual(await sent(alice, 'call.dtmf').then((all) => all.map(({ keys }) => keys)), ['1', '#', '5']);
  await looksRight(alice, 'phone, keys');
  await alice.page.keyboard.press('Escape');
  await alice.seesNo('keys-dialog');

  await alice.press('hold');
  await alice.isIn('held');
  await eventually('nobody is heard while held', async () => !(await isHeard(alice)));
  await alice.press('resume');
  await alice.isIn('connected');
  await says(alice, 'phoneEnds', 'unavailable', { reason: 'congested', sip: 503, cause: 42 });
  await alice.readsThat('outcome', /The lines are busy/);
  await looksRight(alice, 'phone, over');
});

story('a number is dialled by keyboard alone, and the reason is told when nothing comes of it', { server: false }, async (world) => {
  const alice = await somebody(world);
  await focus(alice, 'open-dialpad');
  await alice.page.keyboard.press('Enter');
  await eventually('the number has the focus', () => alice.page.evaluate(() => document.activeElement?.dataset.test === 'number'));
  await alice.page.keyboard.type('112');
  await alice.page.keyboard.press('Enter');
  await alice.isIn('ringing');
  await says(alice, 'phoneEnds', 'failed', { reason: 'emergency', sip: null, cause: 57 });
  await alice.readsThat('outcome', /No emergency calls here/);
});

story('a call is handed over to a number', { server: false }, async (world) => {
  const alice = await somebody(world);
  await dial(alice);
  await populate(alice);
  await says(alice, 'phoneAnswers');
  await alice.isIn('connected');
  await alice.press('transfer');
  await alice.sees('transfer-number');
  await looksRight(alice, 'phone, transfer');
  await alice.type('transfer-number', '030 555');
  await alice.press('transfer-to-number');
  await alice.readsThat('notice', /Transferring to 030555/);
  const [{ to }] = await sent(alice, 'call.transfer');
  assert.equal(to, 'tel:030555');
});

story('a phone calls: its name, number and the one it called; taken by somebody else; in the history', { server: false }, async (world) => {
  const alice = await somebody(world);
  await rings(alice, { name: 'Erika Muster', to: 'tel:+4930100' });
  await alice.readsThat('incoming', /Erika Muster.*phone call from \+15550100 to \+4930100/s);
  await looksRight(alice, 'phone, a call comes in');
  await alice.page.evaluate(() => {
    const [call] = memory.calls;
    memory.server.calls.phoneEnds(call.call, 'answered_elsewhere');
  });
  await alice.seesNo('incoming');

  await rings(alice, {});
  await alice.readsThat('incoming', /\+15550100/);
  await alice.press('accept-audio');
  await alice.isIn('connecting', 'connected');
  await alice.sees('keys');
  await alice.press('hangup');
  await alice.press('outcome-close');

  const entry = { media: { audio: true, video: false }, direction: 'in', reason: 'missed', missed: true, created_at: Date.now(), answered_at: null, ended_at: Date.now() };
  const peers = [{ user: 'tel:+15550100', name: 'Erika Muster' }, { user: 'tel:42', name: null }, { user: 'sip:anonymous@anonymous.invalid', name: null }];
  await alice.press('tab-history');
  await alice.page.evaluate((entries) => {
    const [session] = memory.server.sessions.values();
    for (const entry of entries) memory.server.send(session, 'history', { entry, missed: 3 });
  }, peers.map((peer, index) => ({ ...entry, call: `H${index}`, peer })));
  await alice.readsThat('history-H0', /Erika Muster.*\+15550100/s);
  await alice.readsThat('history-H1', /42/);
  await alice.sees('call-back-H0');
  await alice.seesNo('call-back-H2');
  await looksRight(alice, 'phone, history');
  await alice.press('call-back-H1');
  await alice.isIn('ringing');
});

story('where phones can not be called there is nothing to dial with', { server: false }, async (world) => {
  const alice = await somebody(world, { canDial: false });
  await alice.sees('new-meeting');
  await alice.seesNo('open-dialpad');
});

async function somebody(world, { canDial = true } = {}) {
  const page = await servePage();
  world.whenOver(() => page.close());
  const person = await world.visitor(await world.browser('chromium'), { url: page.url, at: '/', serviceWorkers: 'block' });
  await person.page.addInitScript(liveInMemory);
  await person.page.reload();
  await eventually('the server is there', () => person.page.evaluate(() => memory.server !== null));
  await person.page.evaluate((can) => (memory.server.canDial = can), canDial);
  await person.type('name-input', 'Alice');
  await person.press('sign-in');
  person.name = 'Alice';
  if (canDial) await person.sees('open-dialpad');
  return person;
}

async function dial(person) {
  await person.press('open-dialpad');
  await person.type('number', NUMBER);
  await person.press('dial');
  await person.isIn('ringing');
}

/** The phone of the newest Call is in its Room. */
async function populate(person) {
  await eventually('the Room is joined', () => person.page.evaluate(() => {
    const room = memory.server.frames.findLast(([, { type }]) => type === 'room.join')?.[1].data.room;
    return Boolean(room && memory.server.rooms.named(room));
  }));
  await person.page.evaluate((number) => {
    const { room } = memory.server.frames.findLast(([, { type }]) => type === 'room.join')[1].data;
    memory.server.rooms.populate(room, `tel:${number}`, { tracks: ['microphone'] });
  }, NUMBER);
}

/** Has the gateway say something about the Call dialled last. */
function says(person, what, ...more) {
  return person.page.evaluate(([name, rest]) => {
    const { call } = memory.server.frames.findLast(([, { type }]) => type === 'call.invite')[1].data;
    memory.server.calls[name](call, ...rest);
  }, [what, more]);
}

function rings(person, about) {
  return person.page.evaluate((known) => {
    memory.calls = memory.server.calls.phoneRings(['alice'], 'tel:+15550100', known);
  }, about);
}

function sent(person, type) {
  return person.page.evaluate((kind) => memory.server.frames.filter(([, frame]) => frame.type === kind).map(([, { data }]) => data), type);
}

function isHeard(person) {
  return person.page.evaluate(() => {
    const stream = document.querySelector('[data-test="remote-video"]').srcObject;
    return Boolean(stream?.getAudioTracks().some((track) => track.enabled && track.readyState === 'live'));
  });
}

function valueOf(person, test) {
  return person.page.evaluate((name) => document.querySelector(`[data-test="${name}"]`).value, test);
}

function focus(person, test) {
  return person.page.evaluate((name) => document.querySelector(`[data-test="${name}"]`).focus(), test);
}

async function readsHint(person, id, pattern) {
  await eventually(`a hint reads ${pattern}`, async () => pattern.test(await person.page.evaluate((name) => document.getElementById(name).textContent, id)));
}
