// A call made, answered, held and ended without a mouse.

import assert from 'node:assert/strict';

import { story } from './lib/story.mjs';
import { eventually } from './lib/wait.mjs';

/** More presses of Tab than any screen has controls. */
const TABS_MAX = 60;

story('a call by keyboard alone', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const [alice, bob] = [await world.visitor(chromium), await world.visitor(chromium)];
  for (const [person, name] of [[alice, 'Alice'], [bob, 'Bob']]) {
    person.name = name;
    await tabTo(person, 'name-input');
    await person.page.keyboard.type(name);
    await person.page.keyboard.press('Enter');
    await person.isSignedIn();
  }

  await alice.knows('bob');
  await tabTo(alice, 'call-video-bob');
  await alice.page.keyboard.press('Enter');

  // The ring takes the focus: the way to "accept" is short, and nothing behind it can be reached.
  await bob.sees('incoming');
  await tabTo(bob, 'accept-video');
  await bob.page.keyboard.press('Space');
  for (const person of [alice, bob]) await person.isIn('connected');
  for (const person of [alice, bob]) await person.seesAndHears();

  await tabTo(bob, 'hold');
  await bob.page.keyboard.press('Enter');
  await alice.isIn('held-by-peer');
  await tabTo(bob, 'resume');
  await bob.page.keyboard.press('Enter');
  for (const person of [alice, bob]) await person.isIn('connected');

  await tabTo(alice, 'connection-open');
  await alice.page.keyboard.press('Enter');
  await alice.sees('connection-panel');

  await tabTo(alice, 'hangup');
  await alice.page.keyboard.press('Enter');
  for (const person of [alice, bob]) await person.isIn('ended', 'idle');
});

story('a call by single keys', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const [alice, bob] = [await world.person(chromium, 'Alice'), await world.person(chromium, 'Bob')];
  await alice.calls('bob');
  await bob.sees('incoming');
  await eventually('the key answers, once the fingers have rested', async () => {
    await bob.page.keyboard.press('a');
    return !(await bob.shows('incoming'));
  }, { interval: 1_000 });
  for (const person of [alice, bob]) await person.isIn('connected');
  await alice.page.keyboard.press('h');
  await alice.isIn('held');
  await alice.page.keyboard.press('h');
  await alice.isIn('connected');
  await bob.page.keyboard.press('x');
  for (const person of [alice, bob]) await person.isIn('ended', 'idle');
});

/** Presses Tab until the focus is there, as somebody without a mouse does. Every stop on the way must show where it is. */
async function tabTo(person, name) {
  for (let presses = 0; presses < TABS_MAX; presses += 1) {
    const focus = await person.page.evaluate(focused);
    if (focus.test === name) return;
    await person.page.keyboard.press('Tab');
    const next = await person.page.evaluate(focused);
    assert.ok(next.isBody || next.isMarked, `${person.name} can't see that the focus is on ${next.what}`);
  }
  assert.fail(`${person.name} can't reach "${name}" by Tab`);
}

function focused() {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  return {
    test: element.dataset.test,
    what: element.outerHTML.slice(0, 120),
    isBody: element === document.body,
    isMarked: (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== 'none',
  };
}
