// What a phone product has beside calls, on the page and with a server in its own memory: messages on the answering machine, how one
// wants to be called, why calls came to nothing, and numbers in a meeting. What was said comes by HTTP, which the test answers.

import assert from 'node:assert/strict';

import { looksRight } from './lib/looks.mjs';
import { liveInMemory, servePage } from './lib/memory.mjs';
import { story } from './lib/story.mjs';
import { eventually } from './lib/wait.mjs';

const NARROW = { width: 320, height: 640 };

story('messages come in, are played where they stand, called back and deleted', { server: false }, async (world) => {
  const alice = await somebody(world);
  const asked = await answers(alice);
  await alice.press('tab-voicemail');
  await alice.readsThat('voicemail', /No messages/);
  await looksRight(alice, 'voicemail, empty');
  await alice.press('tab-people');

  const old = await leave(alice, { from: 'sip:anonymous@anonymous.invalid', heard: true, millis: 61_000 });
  const shared = await leave(alice, { name: 'Erika Muster', queue: 'sales' });
  await isTold(alice, /Message from Erika Muster.*everybody in sales/s);
  await alice.readsThat('unheard-badge', /^1$/);
  await alice.press('tab-voicemail');
  // However long the rest takes, it is played for as long as it should be.
  await alice.page.evaluate(() => document.querySelectorAll('[data-test^="sound-"]').forEach((sound) => { sound.loop = true; }));
  await alice.readsThat(`voicemail-${shared}`, /Erika Muster.*New.*0:04.*\+15550100.*for sales/s);
  await alice.readsThat(`voicemail-${old}`, /Anonymous caller.*1:01.*Number withheld/s);
  await looksRight(alice, 'voicemail, a new one');

  await alice.press(`play-${shared}`);
  await eventually('the message is played', () => isPlayed(alice, shared));
  assert.match(await nameOf(alice, `play-${shared}`), /^Pause the message from Erika Muster, /);
  assert.deepEqual(asked, [`${shared} Bearer alice`]);
  await alice.seesNo('unheard-badge');
  await eventually('it is not new any more', () => alice.page.evaluate((id) => !document.querySelector(`[data-test="voicemail-${id}"]`).dataset.new, shared));
  await looksRight(alice, 'voicemail, played');
  await isWithin(alice, NARROW, 'voicemail');

  await alice.press(`play-${old}`);
  await eventually('the other one is played instead', async () => (await isPlayed(alice, old)) && !(await isPlayed(alice, shared)));
  await alice.seesNo(`call-back-${old}`);
  await alice.press(`delete-${old}`);
  await alice.readsThat('delete-dialog', /Anonymous caller/);
  await looksRight(alice, 'voicemail, delete');
  await alice.press('delete-really');
  await alice.seesNo(`voicemail-${old}`);
  // Somebody else who shares it deletes it.
  const gone = await leave(alice, { queue: 'sales' });
  await alice.sees(`voicemail-${gone}`);
  await alice.page.evaluate((id) => memory.server.telephony.answer({ user: 'alice' }, 'voicemail.delete', { voicemail: id }), gone);
  await alice.seesNo(`voicemail-${gone}`);

  // Who clicks twice while it is fetched asks for it once, and hears it.
  const twice = await leave(alice, { name: 'Karla' });
  let asks = 0;
  let answer = () => {};
  const fetched = new Promise((resolve) => (answer = resolve));
  await alice.page.route(`**/v1/voicemail/${twice}`, async (route) => {
    asks += 1;
    await fetched;
    return route.fulfill({ contentType: 'audio/wav', body: tone() });
  });
  await alice.press(`play-${twice}`);
  await eventually('it is asked for', () => asks > 0);
  await alice.press(`play-${twice}`);
  answer();
  await eventually('it is played', () => isPlayed(alice, twice));
  assert.equal(asks, 1);

  await alice.press(`play-${shared}`);
  await eventually('the message is played again', () => isPlayed(alice, shared));
  await alice.press(`call-back-${shared}`);
  await alice.isIn('ringing');
  assert.equal(await isPlayed(alice, shared), false, 'a call is not talked into');
});

story('a message that can not be fetched says why, and the keyboard reaches all there is', { server: false }, async (world) => {
  const alice = await somebody(world);
  await answers(alice, { status: 404, body: JSON.stringify({ code: 'unknown_voicemail', detail: 'no such message' }) });
  const id = await leave(alice, {});
  await focus(alice, 'tab-voicemail');
  await alice.page.keyboard.press('Enter');
  await alice.sees(`play-${id}`);
  await focus(alice, `play-${id}`);
  await alice.page.keyboard.press('Enter');
  await isTold(alice, /That message is gone/);
  await focus(alice, `play-${id}`);
  await alice.page.keyboard.press('Tab');
  await alice.page.keyboard.press('Enter');
  await alice.sees('delete-dialog');
  await focus(alice, 'delete-really');
  await alice.page.keyboard.press('Enter');
  await alice.readsThat('voicemail', /No messages/);
  await eventually('the focus is in the list still', () => alice.page.evaluate(() => document.activeElement?.id === 'voicemail-title'));
});

story('what an older message becomes leaves the list in its order, and nothing stands there twice', { server: false }, async (world) => {
  const all = [];
  const alice = await somebody(world, {
    before: async (person) => {
      for (let hour = 60; hour > 20; hour -= 1) all.unshift(await leave(person, { left_at: Date.now() - hour * 3_600_000 }));
    },
  });
  await alice.press('tab-voicemail');
  await alice.sees(`voicemail-${all[0]}`);
  assert.deepEqual(await listed(alice), all.slice(0, 30));
  // Another device hears one that was not loaded yet.
  await alice.page.evaluate((id) => memory.server.telephony.answer({ user: 'alice' }, 'voicemail.heard', { voicemail: id }), all[35]);
  await alice.readsThat('unheard-badge', /^39$/);
  assert.deepEqual(await listed(alice), all.slice(0, 30));
  await alice.press('voicemail-older');
  await alice.sees(`voicemail-${all[39]}`);
  assert.deepEqual(await listed(alice), all);
  await eventually('the focus is in the list still', () => alice.page.evaluate(() => document.activeElement?.id === 'voicemail-title'));
});

story('how one wants to be called is kept by the server, and said when it is wrong', { server: false }, async (world) => {
  const alice = await somebody(world);
  await openSettings(alice);
  await looksRight(alice, 'phone settings');
  await isWithin(alice, NARROW, 'phone-settings');
  await alice.press('phone-dnd');
  await choose(alice, 'phone-ring', '20');
  await choose(alice, 'forward-busy', 'voicemail');
  await choose(alice, 'forward-no_answer', 'number');
  await alice.sees('forward-no_answer-number');
  await alice.type('forward-no_answer-number', 'home');
  await focus(alice, 'phone-save');
  await alice.page.keyboard.press('Enter');
  await alice.readsThat('phone-problem', /is no number/);
  assert.equal(await alice.page.evaluate(() => document.activeElement?.dataset.test), 'phone-save', 'the focus stays');
  await looksRight(alice, 'phone settings, wrong');
  await alice.type('forward-no_answer-number', '+49 30 555');
  await alice.press('phone-save');
  await alice.seesNo('phone-settings');
  await isTold(alice, /Saved/);
  const kept = await alice.page.evaluate(() => memory.server.telephony.settingsOf('alice'));
  assert.deepEqual(kept, {
    do_not_disturb: true, call_waiting: true, ring_seconds: 20, voicemail: true,
    forward: { always: null, busy: 'voicemail', no_answer: { number: '+49 30 555' }, offline: null },
  });

  // What an administrator has chosen stays as it is.
  const other = { ...kept, do_not_disturb: false, ring_seconds: 33, forward: { ...kept.forward, offline: { other: 'the queue sales' } } };
  await alice.page.evaluate((settings) => memory.server.telephony.answer({ user: 'alice' }, 'phone.set', settings), other);
  await openSettings(alice);
  assert.deepEqual(await alice.page.evaluate(() => ['phone-dnd', 'phone-ring', 'forward-offline', 'forward-no_answer-number'].map((name) => {
    const control = document.querySelector(`[data-test="${name}"]`);
    return control.type === 'checkbox' ? control.checked : control.value;
  })), [false, '33', 'other', '+49 30 555']);
  await alice.press('phone-save');
  await alice.seesNo('phone-settings');
  assert.deepEqual(await alice.page.evaluate(() => memory.server.telephony.settingsOf('alice')), other);
});

story('why a call to a number came to nothing stands in the history, and the number beside the name in a call', { server: false }, async (world) => {
  const alice = await somebody(world);
  await alice.press('tab-history');
  const entry = { media: { audio: true, video: false }, direction: 'out', missed: false, created_at: Date.now(), answered_at: null, ended_at: Date.now() };
  const ends = [['busy', 'busy'], ['missed', 'no_answer'], ['failed', 'refused'], ['failed', 'forbidden'], ['unavailable', 'no_such_number']];
  await alice.page.evaluate((entries) => {
    const [session] = memory.server.sessions.values();
    for (const one of entries) memory.server.send(session, 'history', { entry: one, missed: 0 });
  }, ends.map(([reason, phone], index) => ({ ...entry, call: `H${index}`, reason, phone, peer: { user: `tel:+4930${index}555`, name: null } })));
  await alice.readsThat('history-H0', /Busy/);
  await alice.readsThat('history-H1', /No answer/);
  await alice.readsThat('history-H2', /The provider refused\. Your phone provider/);
  await alice.readsThat('history-H3', /Not allowed\. The rules of your company do not allow calls to this number\./);
  await alice.readsThat('history-H4', /No such number\./);
  await looksRight(alice, 'history, reasons of phone calls');
  await isWithin(alice, NARROW, 'history');

  await rings(alice, 'sip:anonymous@anonymous.invalid', {});
  await alice.readsThat('incoming', /Anonymous caller.*phone call, number withheld/s);
  await alice.press('decline');
  await alice.seesNo('incoming');
  await rings(alice, 'tel:+15550100', { name: 'Erika Muster' });
  await alice.press('accept-audio');
  await alice.readsThat('peer-number', /^\+15550100$/);
  await looksRight(alice, 'phone, name and number in a call');
});

story('a number is called into a meeting, muted, unmuted and hung up', { server: false }, async (world) => {
  const alice = await somebody(world, { at: '/?room=weekly' });
  await alice.sees('check-level');
  await alice.press('join');
  await alice.sees('invite-link');
  await alice.press('meeting-people');
  await alice.press('meeting-dial');
  await alice.readsThat('dialpad', /into the meeting/);
  await looksRight(alice, 'meeting, call a number');
  await alice.type('number', '+49 30 123456');
  await alice.press('dial');
  const phone = 'participant-tel:+4930123456';
  await alice.readsThat(phone, /\+4930123456.*ringing/s);
  await alice.page.evaluate(() => memory.server.rooms.phoneTalks('weekly', 'tel:+4930123456'));
  await eventually('the phone has answered', async () => !/ringing/.test(await alice.reads(phone)));
  await looksRight(alice, 'meeting, a phone');

  const more = 'more-tel:+4930123456';
  await alice.press(more);
  await alice.seesNo('make-moderator');
  await looksRight(alice, 'meeting, what to do about a phone');
  await alice.press('mute-person');
  await alice.readsThat(phone, /muted/);
  await alice.press(more);
  await alice.seesNo('ask-to-speak');
  await alice.press('unmute-person');
  await alice.readsThat(phone, /microphone on/);

  await alice.press('meeting-dial');
  await alice.type('number', '+4930123456');
  await alice.press('dial');
  await isTold(alice, /is here already/);
  await alice.press(more);
  await alice.press('remove-person');
  await alice.seesNo(phone);

  await alice.press('meeting-dial');
  await alice.type('number', '+4930123456');
  await alice.press('dial');
  await alice.readsThat(phone, /ringing/);
  await alice.page.evaluate(() => memory.server.rooms.phoneEnds('weekly', 'tel:+4930123456', 'busy'));
  await isTold(alice, /\+4930123456 is busy/);
  await alice.seesNo(phone);
});

story('who may not call phones has neither settings nor an empty answering machine', { server: false }, async (world) => {
  const alice = await somebody(world, { canDial: false });
  await alice.sees('tab-history');
  await alice.seesNo('tab-voicemail');
  await alice.press('status');
  await alice.sees('sign-out');
  await alice.seesNo('open-phone-settings');
  await alice.page.keyboard.press('Escape');
  // A message is shown all the same.
  await leave(alice, {});
  await alice.readsThat('unheard-badge', /^1$/);
});

async function somebody(world, { canDial = true, at = '/', before = async () => {} } = {}) {
  const page = await servePage();
  world.whenOver(() => page.close());
  const person = await world.visitor(await world.browser('chromium'), { url: page.url, at, serviceWorkers: 'block' });
  await person.page.addInitScript(liveInMemory);
  await person.page.reload();
  await eventually('the server is there', () => person.page.evaluate(() => memory.server !== null));
  await person.page.evaluate((can) => (memory.server.canDial = can), canDial);
  await before(person);
  await person.type('name-input', 'Alice');
  await person.press('sign-in');
  person.name = 'Alice';
  // Who comes by the link of a meeting is at its door at once.
  if (at === '/') await person.isSignedIn();
  return person;
}

/** Answers requests for what was said, with a second of a tone unless told otherwise; returns who asked for what. */
async function answers(person, answer = { contentType: 'audio/wav', body: tone() }) {
  const asked = [];
  await person.page.route('**/v1/voicemail/*', (route) => {
    asked.push(`${route.request().url().split('/').at(-1)} ${route.request().headers().authorization}`);
    return route.fulfill(answer);
  });
  return asked;
}

/** A WAV of ten seconds, 16 bits at 8 kHz. */
function tone() {
  const samples = 80_000;
  const wav = Buffer.alloc(44 + samples * 2);
  wav.write('RIFF', 0);
  wav.writeUInt32LE(36 + samples * 2, 4);
  wav.write('WAVEfmt ', 8);
  wav.writeUInt32LE(16, 16);
  wav.writeUInt16LE(1, 20);
  wav.writeUInt16LE(1, 22);
  wav.writeUInt32LE(8_000, 24);
  wav.writeUInt32LE(16_000, 28);
  wav.writeUInt16LE(2, 32);
  wav.writeUInt16LE(16, 34);
  wav.write('data', 36);
  wav.writeUInt32LE(samples * 2, 40);
  for (let sample = 0; sample < samples; sample += 1) wav.writeInt16LE(Math.round(8_000 * Math.sin(sample / 3)), 44 + sample * 2);
  return wav;
}

/** Somebody leaves a message for Alice; returns its id. */
function leave(person, about) {
  return person.page.evaluate((known) => memory.server.telephony.leave(['alice'], known), about);
}

/** The messages on the page, from above. */
function listed(person) {
  return person.page.evaluate(() => [...document.querySelectorAll('.voicemail-row')].map((row) => row.dataset.test.replace('voicemail-', '')));
}

function isPlayed(person, id) {
  return person.page.evaluate((message) => {
    const sound = document.querySelector(`[data-test="sound-${message}"]`);
    return !sound.paused && sound.currentTime > 0;
  }, id);
}

async function openSettings(person) {
  await person.press('status');
  await person.press('open-phone-settings');
  await person.sees('phone-settings');
}

function choose(person, test, value) {
  return person.page.selectOption(`[data-test="${test}"]`, value);
}

function rings(person, from, about) {
  return person.page.evaluate(([number, known]) => void memory.server.calls.phoneRings(['alice'], number, known), [from, about]);
}

function focus(person, test) {
  return person.page.evaluate((name) => document.querySelector(`[data-test="${name}"]`).focus(), test);
}

function nameOf(person, test) {
  return person.page.evaluate((name) => document.querySelector(`[data-test="${name}"]`).getAttribute('aria-label'), test);
}

/** One of the messages on the page says it; there may be several. */
function isTold(person, pattern) {
  return eventually(`${person.name} is told ${pattern}`, async () => {
    const told = await person.page.evaluate(() => [...document.querySelectorAll('[data-test="toast"]')].map((toast) => toast.innerText));
    return told.some((text) => pattern.test(text)) || Promise.reject(new Error(JSON.stringify(told)));
  });
}

/** On a screen this small nothing of it is cut off at the side. */
async function isWithin(person, viewport, test) {
  const before = person.page.viewportSize();
  await person.page.setViewportSize(viewport);
  const beyond = await person.page.evaluate((name) => {
    const whole = document.querySelector(`[data-test="${name}"]`);
    const parts = [whole, ...whole.querySelectorAll('*')].filter((part) => part.checkVisibility() && part.getClientRects().length > 0 && !part.classList.contains('visually-hidden'));
    return parts.filter((part) => part.getBoundingClientRect().right > innerWidth + 1 || part.getBoundingClientRect().left < -1).map((part) => part.outerHTML.slice(0, 120));
  }, test);
  await person.page.setViewportSize(before);
  assert.deepEqual(beyond, [], `"${test}" at ${viewport.width} pixels`);
}
