// Somebody at the demo page: what they press, what they see, what reaches them.

import assert from 'node:assert/strict';

import { readMedia } from './media.mjs';
import { eventually } from './wait.mjs';

/** The page's own handles for tests; web-demo/app/README.md lists them. */
const hook = (name) => `[data-test="${name}"]`;

/** How long nothing must come in to count as nothing, and how many frames are nothing. */
const QUIET_MS = 2_000;
const QUIET_FRAMES_MAX = 4;

/** A page in either browser. */
export class Person {
  constructor(kind, page) {
    this.kind = kind;
    this.page = page;
    this.problems = [];
    this.console = [];
    page.on('pageerror', (error) => this.problems.push(error.message));
    page.on('console', (message) => this.console.push(message.text()));
  }

  // --- hands

  async press(name) {
    for (;;) {
      const element = await eventually(`${this.name ?? 'somebody'} can press "${name}"`, () => this.#shown(name));
      try {
        return await element.click();
      } catch (error) {
        // Made anew before the pointer was there: then once more. Any other error may have come after the click.
        if (!/detached|not attached/i.test(error.message)) throw error;
      }
    }
  }

  async type(name, text) {
    const element = await eventually(`${this.name ?? 'somebody'} can type into "${name}"`, () => this.#shown(name));
    await element.focus();
    await element.evaluate((input) => input.select());
    await this.page.keyboard.type(text);
  }

  // --- eyes

  /** Whether something is there and shown. */
  async shows(name) {
    return (await this.#shown(name)) !== null;
  }

  async sees(name, options) {
    await eventually(`${this.name ?? 'somebody'} sees "${name}"`, () => this.shows(name), options);
  }

  async seesNo(name, options) {
    await eventually(`${this.name ?? 'somebody'} no longer sees "${name}"`, async () => !(await this.shows(name)), options);
  }

  /** The text of something that is shown. */
  async reads(name) {
    const element = await eventually(`${this.name ?? 'somebody'} sees "${name}"`, () => this.#shown(name));
    return element.evaluate((node) => node.innerText.replace(/\s+/g, ' ').trim());
  }

  /** Waits until something says what it must, and returns its words. */
  async readsThat(name, pattern, options) {
    return eventually(`${this.name ?? 'somebody'} reads ${pattern} in "${name}"`, async () => {
      const text = await this.reads(name);
      return pattern.test(text) ? text : Promise.reject(new Error(text));
    }, options);
  }

  // --- the demo

  async signIn(name) {
    this.name = name;
    await this.type('name-input', name);
    await this.press('sign-in');
    await this.isSignedIn();
  }

  async isSignedIn() {
    await this.sees('status');
  }

  /** Waits until the directory says that `user` is there: their row may come before their status. */
  async knows(user) {
    await eventually(`${this.name} sees that ${user} is there`, async () => {
      const status = await this.page.evaluate((selector) => document.querySelector(selector)?.dataset.status, hook(`person-${user}`));
      return (status && status !== 'offline') || Promise.reject(new Error(status));
    });
  }

  /** Opens the video call to `user`, once they are there. */
  async calls(user) {
    await this.knows(user);
    await this.press(`call-video-${user}`);
  }

  async accepts() {
    await this.press('accept-video');
  }

  /** Waits until the stage shows one of these states: idle, ringing, connecting, connected, held, held-by-peer, reconnecting, ended … */
  async isIn(...states) {
    await eventually(`${this.name} is in state ${states.join(' or ')}`, async () => {
      const state = await this.page.evaluate((selector) => document.querySelector(selector)?.dataset.state, hook('call-state'));
      return states.includes(state) || Promise.reject(new Error(state));
    });
  }

  /** The five words of the Call on the stage. */
  async code() {
    if (!(await this.shows('connection-panel'))) await this.press('connection-open');
    const words = await eventually(`${this.name} has a short code`, () => this.page.evaluate(wordsIn, hook('code')));
    await this.press('connection-open');
    return words;
  }

  /** The rows of the history, newest first: whom, what, and whether missed. */
  async history() {
    await this.press('tab-history');
    return this.page.evaluate(historyRows);
  }

  /** Waits until the history reads as it should, each row as `name: detail`. */
  async remembers(...rows) {
    await eventually(`the history of ${this.name} reads ${JSON.stringify(rows.map(String))}`, async () => {
      const history = await this.history();
      const right = history.length === rows.length && rows.every((row, index) => row.test(history[index]));
      return right || Promise.reject(new Error(JSON.stringify(history)));
    });
    await this.press('tab-people');
  }

  // --- media

  media() {
    return this.page.evaluate(readMedia);
  }

  /** Whether a connection of this page has tried every way and found none. */
  hasFailedToConnect() {
    return this.page.evaluate(() => globalThis.keptFailures > 0);
  }

  /** Waits until pictures and sound come in over one connection, and returns what is known about it. */
  async seesAndHears() {
    const before = new Map((await this.media()).map((media) => [media.index, media]));
    return eventually(`${this.name} sees and hears the other side`, async () => {
      const now = await this.media();
      const grown = (media, key) => media[key] - (before.get(media.index)?.[key] ?? 0);
      const alive = now.find((media) => grown(media, 'framesDecoded') >= 20 && grown(media, 'audioPackets') >= 50 && grown(media, 'audioEnergy') > 0);
      return alive ?? Promise.reject(new Error(JSON.stringify(now)));
    });
  }

  /** Waits until no sound comes in, and no picture either: of a sender without a track Firefox makes one black frame a second. */
  async seesAndHearsNothing() {
    let before = null;
    await eventually(`${this.name} sees and hears nothing`, async () => {
      const now = await this.media();
      const still = before !== null && now.every((media, index) => (
        media.audioPackets === before[index]?.audioPackets && media.framesDecoded - before[index].framesDecoded <= QUIET_FRAMES_MAX
      ));
      before = now;
      return still || Promise.reject(new Error(JSON.stringify(now)));
    }, { interval: QUIET_MS });
  }

  /** Nothing on this page threw an error that nobody caught. */
  assertNoProblems() {
    assert.deepEqual(this.problems, [], `errors on the page of ${this.name}`);
  }

  /** The first element under that handle that is shown; the page has some of them once per view. */
  async #shown(name) {
    for (const element of await this.page.$$(hook(name))) {
      if (await element.evaluate(isShown)) return element;
    }
    return null;
  }
}

// What runs inside the page.

function isShown(element) {
  return element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
}

function wordsIn(selector) {
  const words = [...document.querySelectorAll(`${selector} li`)].map((item) => item.textContent.trim());
  return words.length === 5 && words.every((word) => /^[a-z]+$/.test(word)) && words.join(' ');
}

function historyRows() {
  return [...document.querySelectorAll('[data-test="history"] ol > li')].map((row) => {
    const words = (selector) => row.querySelector(selector).textContent.trim();
    return `${words('.row-name')}: ${words('.row-detail')}`;
  });
}
