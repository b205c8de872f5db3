// Somebody at the demo page: what they press, what they see, what reaches them.

import assert from 'node:assert/strict';

import { readMedia } from './media.mjs';
import { eventually, PATIENCE_MS, standsStill } from './wait.mjs';

/** The page's own handles for tests, listed in web-demo/app/README.md. */
const hook = (name) => `[data-test="${name}"]`;

/** A page in either browser. */
export class Person {
  constructor(kind, page) {
    this.kind = kind;
    this.page = page;
    this.problems = [];
    page.on('pageerror', (error) => this.problems.push(error.message));
  }

  async signIn(name) {
    this.name = name;
    await this.type('name-input', name);
    await this.press('sign-in');
    await this.sees('directory');
  }

  async press(name) {
    const locator = this.page.locator(`${hook(name)}:not([hidden])`);
    if (this.kind === 'chromium') await locator.first().click({ timeout: PATIENCE_MS });
    else await locator.setTimeout(PATIENCE_MS).click();
  }

  async type(name, text) {
    const locator = this.page.locator(hook(name));
    if (this.kind === 'chromium') await locator.fill(text, { timeout: PATIENCE_MS });
    else await locator.setTimeout(PATIENCE_MS).fill(text);
  }

  /** Whether something is there and shown. */
  async shows(name) {
    return this.page.evaluate(isShown, hook(name));
  }

  async sees(name, options) {
    await eventually(`${this.name ?? 'the page'} sees "${name}"`, () => this.shows(name), options);
  }

  async seesNo(name, options) {
    await eventually(`${this.name ?? 'the page'} no longer sees "${name}"`, async () => !(await this.shows(name)), options);
  }

  /** The text of something that is shown. */
  async reads(name) {
    await this.sees(name);
    return this.page.evaluate((selector) => document.querySelector(selector).textContent.replace(/\s+/g, ' ').trim(), hook(name));
  }

  /** Waits until something says what it must. */
  async hears(name, pattern, options) {
    let text;
    await eventually(`"${name}" says ${pattern}`, async () => {
      text = await this.reads(name);
      return pattern.test(text) || Promise.reject(new Error(text));
    }, options);
    return text;
  }

  media() {
    return this.page.evaluate(readMedia);
  }

  /** Waits until pictures and sound have come in, and go on coming in. */
  async receivesMedia() {
    const before = await this.media();
    return eventually(`${this.name} sees and hears the other side`, async () => {
      const now = await this.media();
      const moves = now.framesDecoded >= before.framesDecoded + 20 && now.audioPackets >= before.audioPackets + 50;
      return moves && now.audioEnergy > before.audioEnergy ? now : Promise.reject(new Error(JSON.stringify(now)));
    });
  }

  /** Waits until no picture comes in any more. */
  async receivesNoPictures() {
    await standsStill(`${this.name} gets no more pictures`, async () => (await this.media()).framesDecoded);
  }

  /** The five words of the Call on the stage. */
  async code() {
    await eventually(`${this.name} has a short code`, async () => /^\w+([ ·-]+\w+){4}$/.test(await this.reads('code')));
    return (await this.reads('code')).split(/\W+/).join(' ');
  }

  /** Nothing on this page threw an error that nobody caught. */
  assertNoProblems() {
    assert.deepEqual(this.problems, [], `errors on the page of ${this.name}`);
  }
}

function isShown(selector) {
  return [...document.querySelectorAll(selector)].some((element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0);
}
