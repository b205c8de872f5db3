// The page of a meeting with a server in its own memory: every screen, what a person does there, and fifty people at once.
// Real media between real browsers is for meetings.test.mjs.

import assert from 'node:assert/strict';

import { looksRight } from './lib/looks.mjs';
import { liveInMemory, servePage } from './lib/memory.mjs';
import { story } from './lib/story.mjs';
import { tasksOf, traceTasks } from './lib/tasks.mjs';
import { eventually } from './lib/wait.mjs';

/** The longest a main thread may be busy without a pause before people notice. */
const TASK_MS_MAX = 50;

story('a meeting from the device check to its end, alone and with others', { server: false }, async (world) => {
  const alice = await somebody(world, { at: '/?room=weekly' });
  await alice.sees('check-level');
  await looksRight(alice, 'meeting, device check');
  await alice.press('join');
  await alice.sees('invite-link');
  await looksRight(alice, 'meeting, alone');

  await populate(alice, 'bob');
  await alice.sees('meeting-self');
  await looksRight(alice, 'meeting, two');
  await populate(alice, 'carol', 'dora', 'emil');
  await alice.seesNo('meeting-self');
  await alice.sees('tile-alice');
  await say(alice, 'room.quality', 'bob', (participant) => ({ participant, quality: 'poor' }));
  await say(alice, 'room.speakers', 'carol', (participant) => ({ speakers: [participant] }));
  await eventually('the one who speaks is ringed', () => alice.page.evaluate(() => document.querySelector('[data-test="tile-carol"]').dataset.speaking === 'true'));
  await looksRight(alice, 'meeting, five');

  await alice.press('meeting-chat');
  await alice.type('chat-field', 'see https://example.com/notes <b>');
  await alice.press('chat-send');
  await alice.readsThat('messages', /You .* see https:\/\/example\.com\/notes <b>/);
  assert.equal(await alice.page.evaluate(() => document.querySelector('.message-text a').href), 'https://example.com/notes');
  await looksRight(alice, 'meeting, chat');
  await alice.press('close-chat');

  await say(alice, 'room.lobby', 'alice', () => ({ waiting: [{ waiting: 'w1', user: 'zoe', name: 'Zoe', at: Date.now() }] }));
  await alice.press('meeting-people');
  await alice.sees('admit-zoe');
  await looksRight(alice, 'meeting, people');
  await alice.press('more-bob');
  await alice.sees('person-dialog');
  await looksRight(alice, 'meeting, a person');
  await alice.press('mute-person');
  await eventually('Bob is muted', () => alice.page.evaluate(() => document.querySelector('[data-test="tile-bob"]').dataset.muted === 'true'));
  await alice.press('more-bob');
  await alice.press('remove-person');
  await alice.seesNo('participant-bob');
  await alice.press('close-people');

  await alice.page.evaluate(() => memory.server.rooms.populate('weekly', 'frida', { tracks: ['microphone', 'camera', 'screen'] }));
  await alice.sees('screen-of-frida');
  assert.equal(await layout(alice), 'spotlight');
  await looksRight(alice, 'meeting, a shared screen');
  await alice.press('meeting-layout');
  await eventually('everybody is shown alike', async () => (await layout(alice)) === 'grid');

  await alice.page.evaluate(() => memory.connections.at(-1).become('disconnected'));
  await alice.readsThat('meeting-notice', /Reconnecting/);
  await looksRight(alice, 'meeting, no way');
  await alice.page.evaluate(() => memory.connections.at(-1).become('connected'));
  await alice.seesNo('meeting-notice');

  await alice.press('meeting-leave');
  await alice.sees('leave-dialog');
  await alice.press('end-for-all');
  await alice.readsThat('meeting-over', /meeting is over/i);
  await looksRight(alice, 'meeting, over');
  await alice.press('meeting-close');
  await alice.sees('new-meeting');
  assert.equal(new URL(alice.page.url()).search, '');
});

story('a locked meeting, a lobby, and a server without meetings', { server: false }, async (world) => {
  const alice = await somebody(world, { at: '/' });
  await alice.type('meeting-name', 'Team Café');
  await alice.press('open-meeting');
  await alice.sees('join');
  assert.equal(new URL(alice.page.url()).searchParams.get('room'), 'team-cafe');
  await alice.page.evaluate(() => memory.server.rooms.refusals.set('alice', 'room_locked'));
  await alice.press('join');
  await alice.readsThat('meeting-over', /locked/);
  await alice.page.evaluate(() => memory.server.rooms.refusals.clear());

  // Somebody else has made it, with a lobby.
  await alice.page.evaluate(() => {
    const answer = memory.server.rooms.answer.bind(memory.server.rooms);
    memory.server.rooms.answer = (session, type, data) => (type === 'room.join' ? ['ok', { waiting: true, room: 'R1' }] : answer(session, type, data));
  });
  await alice.press('meeting-again');
  await alice.press('join');
  await alice.readsThat('meeting-waiting', /waiting to be let in/i);
  await looksRight(alice, 'meeting, lobby');
  await alice.page.evaluate(() => {
    const [session] = memory.server.sessions.values();
    memory.server.send(session, 'room.denied', { room: 'R1', reason: 'denied' });
  });
  await alice.readsThat('meeting-over', /not let in/);
  await alice.press('meeting-close');

  await alice.page.evaluate(() => {
    memory.server.crash();
    memory.server.rooms.participantsMax = 0;
  });
  await alice.seesNo('new-meeting');
});

story('an encrypted meeting: its words, and the question when it is no longer one', { server: false }, async (world) => {
  const alice = await somebody(world, { at: '/?room=weekly&encrypted=1' });
  await alice.sees('check-encrypted');
  assert.ok(await alice.page.evaluate(() => document.querySelector('[data-test="check-encrypted"]').checked), 'the link says so');
  await alice.press('join');
  await alice.sees('encrypted');
  await populate(alice, 'bob', 'carol');
  await alice.press('encrypted');
  await eventually('there are ten words', () => alice.page.evaluate(() => document.querySelectorAll('[data-test="meeting-code"] li').length === 10));
  await looksRight(alice, 'meeting, the words');
  await alice.page.keyboard.press('Escape');
  await alice.seesNo('code-dialog');

  await alice.press('meeting-people');
  await alice.press('room-encrypted');
  await alice.sees('switch-off-dialog');
  await looksRight(alice, 'meeting, switching encryption off');
  await alice.page.keyboard.press('Escape');
  await alice.seesNo('switch-off-dialog');
  await eventually('it is on as before', () => alice.page.evaluate(() => document.querySelector('[data-test="room-encrypted"]').checked));
  await alice.press('close-people');

  // Somebody else does it, or the server says so.
  await alice.page.evaluate(() => {
    const { settings } = memory.server.rooms.named('weekly');
    settings.encrypted = false;
    memory.server.rooms.say('weekly', 'room.settings', { settings });
  });
  await alice.sees('halted');
  assert.ok(await alice.page.evaluate(() => memory.connections.every(({ closed }) => closed)), 'nothing is sent');
  await looksRight(alice, 'meeting, halted');
  await alice.press('go-on-unencrypted');
  await alice.seesNo('halted');
  await alice.sees('not-encrypted');
  await looksRight(alice, 'meeting, no longer encrypted');
  assert.equal(new URL(alice.page.url()).searchParams.get('encrypted'), null);
});

story('the keys of a meeting', { server: false }, async (world) => {
  const alice = await somebody(world, { at: '/?room=weekly' });
  await alice.sees('join');
  await eventually('the button to join has the focus', () => alice.page.evaluate(() => document.activeElement?.dataset.test === 'join'));
  await alice.page.keyboard.press('Enter');
  await alice.sees('conversation');
  const isOn = (test) => alice.page.evaluate((name) => document.querySelector(`[data-test="${name}"]`).dataset.on === 'true', test);
  for (const [key, test] of [['m', 'meeting-mute'], ['v', 'meeting-camera'], ['h', 'meeting-hand'], ['c', 'meeting-chat']]) {
    await alice.page.keyboard.press(key);
    await eventually(`"${key}" switches ${test}`, () => isOn(test));
  }
  // What is typed is typed.
  await alice.page.keyboard.type('hmx');
  assert.equal(await alice.page.evaluate(() => document.querySelector('[data-test="chat-field"]').value), 'hmx');
  await alice.page.keyboard.press('Escape');
  await alice.page.evaluate(() => document.activeElement.blur());
  await alice.page.keyboard.press('Escape');
  await alice.seesNo('chat');
  await alice.page.keyboard.press('p');
  await alice.sees('people-panel');
  await alice.page.keyboard.press('x');
  await alice.readsThat('meeting-over', /You left/);
  await alice.page.keyboard.press('Tab');
  assert.equal(await alice.page.evaluate(() => document.activeElement.dataset.test), 'meeting-again');
});

story('with fifty people in it no task of the page takes longer than 50 ms', { server: false }, async (world) => {
  const alice = await somebody(world, { at: '/?room=weekly' });
  await alice.press('join');
  await alice.sees('tiles');
  const { browser } = await world.browser('chromium');
  await traceTasks(browser, alice.page);

  await alice.page.evaluate(() => {
    for (let guest = 0; guest < 49; guest += 1) memory.server.rooms.populate('weekly', `guest${guest}`);
  });
  const drawn = () => alice.page.evaluate(() => document.querySelectorAll('.tile:not([hidden])[data-drawn]').length);
  await eventually('49 pictures are there', async () => (await drawn()) === 49 || Promise.reject(new Error(String(await drawn()))));
  await alice.readsThat('page', /^1 \/ 2$/);
  await alice.page.evaluate(async () => {
    const everybody = [...memory.server.rooms.named('weekly').participants.keys()];
    for (let turn = 0; turn < 30; turn += 1) {
      memory.server.rooms.say('weekly', 'room.speakers', { speakers: [everybody[turn], everybody[(turn * 7) % 49]] });
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  });
  await alice.press('meeting-layout');
  await alice.press('meeting-layout');
  await alice.press('meeting-people');
  await eventually('everybody is in the list', () => alice.page.evaluate(() => document.querySelectorAll('[data-test="participants"] > li').length === 50));
  await alice.press('meeting-chat');
  await alice.page.setViewportSize({ width: 1000, height: 700 });
  await alice.press('next-page');
  await alice.page.evaluate(() => {
    for (let guest = 0; guest < 40; guest += 1) memory.server.rooms.depopulate('weekly', `guest${guest}`);
  });
  await alice.readsThat('meeting-count', /^10 people$/);

  const { count, longest } = await tasksOf(browser);
  console.log(`${count} tasks, the longest took ${longest.toFixed(1)} ms`);
  assert.ok(count > 500, 'the trace has the tasks of the page');
  assert.ok(longest <= TASK_MS_MAX, `a task took ${longest} ms`);
});

/** Alice, signed in, on a page that has everything behind it in its memory. */
async function somebody(world, { at }) {
  const page = await servePage();
  world.whenOver(() => page.close());
  const person = await world.visitor(await world.browser('chromium'), { url: page.url, at, serviceWorkers: 'block' });
  await person.page.addInitScript(liveInMemory);
  await person.page.reload();
  await person.type('name-input', 'Alice');
  await person.press('sign-in');
  person.name = 'Alice';
  return person;
}

/** Has people come into the meeting of this page. */
async function populate(person, ...users) {
  await person.page.evaluate((names) => names.forEach((user) => memory.server.rooms.populate('weekly', user)), users);
}

/** Sends an event about `user`; `dataOf` makes its data of their id. */
async function say(person, type, user, dataOf) {
  const id = await person.page.evaluate((name) => [...memory.server.rooms.named('weekly').participants.values()].find(({ state }) => state.user === name).state.participant, user);
  await person.page.evaluate(([kind, data]) => memory.server.rooms.say('weekly', kind, data), [type, dataOf(id)]);
}

function layout(person) {
  return person.page.evaluate(() => document.querySelector('[data-test="conversation"]').dataset.layout);
}
