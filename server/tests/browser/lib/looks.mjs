// What axe-core says about a screen, light and dark, on a phone and on a desktop; pictures are kept for people to look at.

import assert from 'node:assert/strict';
import { mkdtemp, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
const SIZES = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 720 } };

/** So many drawn frames in a row without a change mean that a page has settled; one that never does is looked at all the same. */
const QUIET_FRAMES = 4;
const FRAMES_MAX = 120;

const PICTURES = await mkdtemp(path.join(tmpdir(), 'offhook-screens-'));
process.on('exit', () => console.log(`pictures of every screen are in ${PICTURES}`));

/** Looks at the screen in every way, and fails with everything axe-core found. */
export async function looksRight(person, screen) {
  const found = [];
  const before = person.page.viewportSize();
  for (const colorScheme of ['light', 'dark']) {
    for (const [size, viewport] of Object.entries(SIZES)) {
      await person.page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await person.page.setViewportSize(viewport);
      await person.page.evaluate(settle, { ...viewport, quietFrames: QUIET_FRAMES, framesMax: FRAMES_MAX });
      const file = `${screen.replace(/\W+/g, '-')}-${size}-${colorScheme}.png`;
      await person.page.screenshot({ path: path.join(PICTURES, file) });
      for (const line of await faults(person.page)) found.push(`${size}, ${colorScheme}: ${line}`);
    }
  }
  await person.page.setViewportSize(before);
  await person.page.emulateMedia({ colorScheme: null, reducedMotion: null });
  assert.deepEqual(found, [], `axe-core on "${screen}"`);
}

async function faults(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate((rules) => globalThis.axe.run(document, { runOnly: rules, resultTypes: ['violations'] }), RULES);
  return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 160)} (${node.any.concat(node.all, node.none).map((check) => check.message).join('; ').slice(0, 240)})`));
}

/**
 * Runs in the page: waits until it has the size it was given and has done what it does about that. Some of it follows in later
 * frames: what observes sizes hears of a new one after the layout.
 */
async function settle({ width, height, quietFrames, framesMax }) {
  const drawn = () => new Promise((resolve) => { requestAnimationFrame(resolve); });
  let quiet = 0;
  const observer = new MutationObserver(() => { quiet = 0; });
  observer.observe(document, { subtree: true, childList: true, attributes: true });
  for (let frames = 0; quiet < quietFrames && frames < framesMax; frames += 1) {
    quiet = innerWidth === width && innerHeight === height ? quiet + 1 : 0;
    await drawn();
  }
  observer.disconnect();
}
