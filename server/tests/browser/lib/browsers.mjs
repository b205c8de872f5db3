// Debian's Chromium and Firefox, headless, with a camera and a microphone that are made up.

import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';

import { keepConnections } from './media.mjs';
import { Person } from './person.mjs';
import { PATIENCE_MS } from './wait.mjs';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FIREFOX = process.env.FIREFOX ?? '/usr/bin/firefox-esr';

const CHROMIUM_FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-dev-shm-usage',
  '--use-fake-device-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
];

/** Gives the camera without a question. It also makes Chromium show raw addresses instead of mDNS names. */
const CHROMIUM_GRANTS_MEDIA = '--use-fake-ui-for-media-stream';

/** Both ends of a call may be on a machine that has no interface but `lo`. */
const CHROMIUM_USES_LOOPBACK = '--allow-loopback-in-peer-connection';

const FIREFOX_PREFERENCES = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.autoplay.default': 0,
  'media.peerconnection.ice.loopback': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  // Puppeteer clicks where a button was when it looked.
  'ui.prefersReducedMotion': 1,
  // What a fresh profile would ask the internet for.
  'media.gmp-manager.url': '',
  'media.gmp-manager.updateEnabled': false,
  'app.update.enabled': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'services.settings.server': 'data:,#remote-settings-dummy/v1',
  'toolkit.telemetry.server': '',
  'extensions.update.enabled': false,
};

/**
 * Starts Chromium. `program` replaces the executable (a wrapper that enters a network namespace, told which by `env`), `home` holds
 * the NSS database whose authorities it trusts, `mdns` gives no camera and so hides local addresses, `flags` are added.
 */
export async function startChromium({ program = CHROMIUM, env = {}, home, mdns = false, flags = [] } = {}) {
  const browser = await chromium.launch({
    executablePath: program,
    headless: true,
    timeout: PATIENCE_MS,
    args: [...CHROMIUM_FLAGS, ...(mdns ? [] : [CHROMIUM_GRANTS_MEDIA]), CHROMIUM_USES_LOOPBACK, ...flags],
    env: { ...process.env, ...env, ...(home && { HOME: home }) },
  });
  return new Browser('chromium', browser);
}

/** Starts Firefox; `preferences` are added to ours. */
export async function startFirefox({ preferences = {} } = {}) {
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: FIREFOX,
    headless: true,
    timeout: PATIENCE_MS,
    extraPrefsFirefox: { ...FIREFOX_PREFERENCES, ...preferences },
  });
  return new Browser('firefox', browser);
}

/** Either browser. Each Person gets a profile of their own in it. */
class Browser {
  constructor(kind, browser) {
    this.kind = kind;
    this.browser = browser;
  }

  /**
   * Opens `url` as somebody whom nobody knows yet. `scripts` are functions that run in the page before its own. The other options
   * go to Playwright's context (viewport, colorScheme, permissions …) and mean nothing to Firefox, except `viewport`.
   */
  async person(url, { scripts = [], viewport = { width: 1280, height: 720 }, ...options } = {}) {
    let page;
    if (this.kind === 'chromium') {
      const context = await this.browser.newContext({ viewport, ...options });
      context.setDefaultTimeout(PATIENCE_MS);
      page = await context.newPage();
      for (const script of [keepConnections, ...scripts]) await page.addInitScript(script);
    } else {
      const context = await this.browser.createBrowserContext();
      page = await context.newPage();
      page.setDefaultTimeout(PATIENCE_MS);
      await page.setViewport(viewport);
      for (const script of [keepConnections, ...scripts]) await page.evaluateOnNewDocument(script);
    }
    await page.goto(url);
    return new Person(this.kind, page);
  }

  async close() {
    await this.browser.close();
  }
}
