// People of the real page in a meeting: how they come in, and what they see and hear there.

import { eventually } from './wait.mjs';

/** So many frames of a picture mean that it moves. */
const FRAMES_MIN = 10;

/** Signs in and goes into the meeting. */
export async function meets(world, browser, name, options) {
  const person = await world.person(browser, name, options);
  await enter(person);
  await person.sees('conversation');
  return person;
}

/** Goes into the meeting from the lists. */
export async function enter(person) {
  await person.type('meeting-name', 'weekly');
  await person.press('open-meeting');
  await person.press('join');
}

/** Waits until at least so many pictures come in and move. */
export async function seesPictures(person, count) {
  const before = await pictures(person);
  await eventually(`${person.name} sees ${count} moving`, async () => {
    const now = await pictures(person);
    const moving = Object.keys(now).filter((id) => now[id] - (before[id] ?? 0) >= FRAMES_MIN);
    return moving.length >= count || Promise.reject(new Error(JSON.stringify([before, now])));
  });
}

/** Frames decoded so far, by stream. */
export function pictures(person) {
  return person.page.evaluate(async () => {
    const frames = {};
    for (const [index, connection] of globalThis.keptConnections.entries()) {
      if (connection.connectionState !== 'connected') continue;
      for (const report of (await connection.getStats()).values()) {
        if (report.type === 'inbound-rtp' && report.kind === 'video') frames[`${index} ${report.mid ?? report.id}`] = report.framesDecoded ?? 0;
      }
    }
    return frames;
  });
}

/** Waits until there is sound. */
export async function hears(person) {
  const before = await energy(person);
  await eventually(`${person.name} hears somebody`, async () => (await energy(person)) > before);
}

async function energy(person) {
  return (await person.media()).reduce((sum, { audioEnergy }) => sum + audioEnergy, 0);
}

/** Whether a tile shows a picture. */
export function isDrawn(person, test) {
  return person.page.evaluate((name) => document.querySelector(`[data-test="${name}"]`)?.dataset.drawn === 'true', test);
}
