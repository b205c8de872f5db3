// A story: a test with a server and browsers of its own, which end with it.

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';

import { startChromium, startFirefox } from './browsers.mjs';
import { ROOT, startOffhook } from './offhook.mjs';

/** Where a story that failed leaves what its people saw. */
const FAILURES = path.join(ROOT, 'target/check/failures');

/** `run` gets a {@link World}; `options.server` go to the server, `false` starts none. `options.skip` says why it can't run here. */
export function story(title, options, run) {
  test(title, { skip: options.skip ?? false }, async () => {
    const world = new World();
    try {
      if (options.server !== false) world.server = await startOffhook(options.server);
      await run(world);
      for (const person of world.people) person.assertNoProblems();
    } catch (error) {
      await world.tellWhatWasSeen(title);
      throw error;
    } finally {
      await world.close();
    }
  });
}

/** Everything a story starts. */
export class World {
  server = null;
  people = [];
  #browsers = new Map();
  #closing = [];
  #witnesses = [];

  /** `close` is called when the story is over. */
  whenOver(close) {
    this.#closing.push(close);
  }

  /** `tell` says what it saw, as text, where the story fails. */
  whenFailed(tell) {
    this.#witnesses.push(tell);
  }

  /** The story's browser of that kind: `chromium` or `firefox`, started when it is first needed. `name` tells several apart. */
  async browser(kind, options, name = kind) {
    if (!this.#browsers.has(name)) {
      const browser = await (kind === 'chromium' ? startChromium : startFirefox)(options);
      this.#browsers.set(name, browser);
    }
    return this.#browsers.get(name);
  }

  /** Opens the page as a new person. `at` is the path and query, `options` go to the browser's context. */
  async visitor(browser, { at = '/', url = this.server.url, ...options } = {}) {
    const person = await browser.person(url + at, options);
    this.people.push(person);
    return person;
  }

  /** Opens the page and signs in. */
  async person(browser, name, options) {
    const person = await this.visitor(browser, options);
    await person.signIn(name);
    return person;
  }

  async tellWhatWasSeen(title) {
    const folder = path.join(FAILURES, title.replace(/\W+/g, '-'));
    await mkdir(folder, { recursive: true });
    for (const [index, person] of this.people.entries()) {
      const file = path.join(folder, `${index}-${person.name ?? 'nobody'}.png`);
      await person.page.screenshot({ path: file }).catch(() => {});
      console.log(`${person.name}: ${JSON.stringify(await person.media().catch(String))} ${person.problems.join(' | ')}`);
      console.log(person.console.slice(-20).join('\n'));
    }
    console.log(`pictures are in ${folder}; the server said\n${this.server?.log}`);
    for (const tell of this.#witnesses) console.log(tell());
  }

  async close() {
    for (const close of this.#closing.reverse()) await close();
    for (const browser of this.#browsers.values()) await browser.close();
    await this.server?.close();
  }
}
