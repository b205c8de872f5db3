// An office with a Trunk to the provider, and its people at their browsers.

import { NUMBER, PROVIDER, startRig } from './rig.mjs';

const ACCOUNT = `
[dialling]
country = "49"
national_prefix = "0"
international_prefix = "00"

[numbers."${NUMBER}"]
to = { user = "alice" }

# Who declines says so; with a mailbox the caller would be asked to leave a message.
[users.alice]
number = "${NUMBER}"
voicemail = false
limits = { calls_per_second = 10 }
`;

/** The telephony of the Account: a Trunk that registers, over UDP unless told otherwise, and `more` lines. */
export const trunk = (more = '', transport = 'udp') => `${ACCOUNT}
[trunks.provider]
peering.registration = { user = "office", domain = "provider.test", expires_seconds = 120 }
targets = ["sip:${PROVIDER}${transport === 'tls' ? ':5061' : ':5060'};transport=${transport}"]
password = "secret"
codecs = ["pcma"]
destinations = { allow = ["+49"] }
health_seconds = 10
${more}
`;

/** A server with this telephony and more lines for `[gateway]`, all of whose `trunks` can be called. */
export async function startOffice(world, telephony, gateway = '', trunks = 1) {
  const rig = await startRig(world);
  await rig.startProvider();
  world.server = await rig.startServer(telephony, gateway);
  await rig.figureBecomes('offhook_gateway_trunks_up', trunks);
  return rig;
}

/** The same, and Alice at her browser. */
export async function office(world, telephony, gateway, trunks) {
  const rig = await startOffice(world, telephony, gateway, trunks);
  return { rig, alice: await comes(world, rig, 'Alice') };
}

/** Somebody of the office at their browser; `scripts` go into the page before its own. */
export async function comes(world, rig, name, scripts = []) {
  const token = encodeURIComponent(await rig.token(name.toLowerCase(), name));
  const person = await world.visitor(await world.browser('chromium'), { at: `/#token=${token}`, scripts: [keepFrames, ...scripts] });
  person.name = name;
  await person.isSignedIn();
  return person;
}

/** Dials a number at the dial pad. */
export async function dials(person, number) {
  await person.press('open-dialpad');
  await person.type('number', number);
  await person.press('dial');
}

/** What the server told of its own accord, by type. */
export function told(person, type) {
  return person.page.evaluate((kind) => globalThis.keptFrames.filter((frame) => frame.type === kind).map(({ data }) => data), type);
}

/** Goes into a page before its own scripts: keeps what the server says. */
function keepFrames() {
  const Original = globalThis.WebSocket;
  globalThis.keptFrames = [];
  globalThis.WebSocket = class WebSocket extends Original {
    constructor(...args) {
      super(...args);
      this.addEventListener('message', ({ data }) => globalThis.keptFrames.push(JSON.parse(data)));
    }
  };
}
