// What callers hear where nobody has answered yet: a Menu, by whose keys they find somebody, and a mailbox.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';

import { hears } from '../browser/lib/meeting.mjs';
import { story } from '../browser/lib/story.mjs';
import { eventually } from '../browser/lib/wait.mjs';
import { comes, office, trunk } from './office.mjs';
import { loudness, skip, startRig, tone } from './rig.mjs';

const options = { server: false, skip };

/** What is loud enough to be a tone, and soft enough to be none, in dB. */
const HEARD = -30;
const UNHEARD = -60;

/** What the prompt is, what the caller says, and what is heard before a message (ITU-T E.182). */
const PROMPT = 600;
const VOICE = 1_000;
const SPEAK_NOW = 1_400;

const MENU = `
[prompts.welcome]
file = "welcome.wav"

[menus.main]
prompt = "welcome"
choices = { 2 = { user = "alice" }, 3 = "busy" }
extensions = true
otherwise = "hang_up"

[numbers.20]
to = { user = "alice" }
`;

story('a key of a Menu rings somebody, and so does their extension', options, async (world) => {
  const rig = await startRig(world);
  await rig.startProvider();
  await writeFile(path.join(rig.folder, 'welcome.wav'), tone(PROMPT, 0.3, 20));
  world.server = await rig.startServer(trunk(MENU).replace('to = { user = "alice" }', 'to = { menu = "main" }'));
  await rig.figureBecomes('offhook_gateway_trunks_up', 1);
  const alice = await comes(world, rig, 'Alice');
  const caller = await rig.callerWithTone(VOICE);
  for (const keys of ['2', '20#']) {
    await caller.hears([PROMPT], HEARD);
    await alice.seesNo('incoming');
    for (const key of keys) await caller.does('sndcode', key);
    await alice.sees('incoming');
    await alice.press('accept-audio');
    await alice.isIn('connected');
    await hears(alice);
    await eventually('the prompt is over', async () => (await caller.heard([PROMPT]))[0] < HEARD);
    await alice.press('hangup');
    await rig.figureBecomes('offhook_gateway_calls', 0);
    if (keys === '2') await caller.dials();
  }
});

story('a message is left, told of, played and fetched', options, async (world) => {
  const { rig, alice } = await office(world, trunk().replace('voicemail = false', 'voicemail = true'));
  const caller = await rig.callerWithTone(VOICE);
  await alice.sees('incoming');
  await alice.press('decline');
  await caller.hears([SPEAK_NOW], HEARD);
  await eventually('it may speak', async () => (await caller.heard([SPEAK_NOW]))[0] < UNHEARD);
  await caller.does('hangup');
  await rig.figureBecomes('offhook_gateway_messages_total', 1);
  assert.equal(await rig.figure('offhook_gateway_messages_lost_total'), 0);

  await alice.readsThat('unheard-badge', /^1$/);
  await alice.press('tab-voicemail');
  await alice.readsThat('voicemail', /Caller of the world|\+498912345678/);
  const id = await alice.page.evaluate(() => document.querySelector('[data-test^="play-"]').dataset.test.slice('play-'.length));
  await alice.press(`play-${id}`);
  await alice.seesNo('unheard-badge');
  const wav = Buffer.from(await alice.page.evaluate(fetchMessage, { id, token: await rig.token('alice', 'Alice') }), 'base64');
  assert.equal(wav.subarray(0, 4).toString(), 'RIFF');
  const samples = new Int16Array(wav.buffer.slice(wav.byteOffset + 44, wav.byteOffset + wav.length - (wav.length % 2)));
  const [voice, other] = [VOICE, PROMPT].map((pitch) => loudness(samples, pitch));
  assert.ok(voice > HEARD && other < UNHEARD, `${samples.length} samples, ${voice} dB of ${VOICE} Hz, ${other} dB of ${PROMPT} Hz`);
});

/** Runs in the page: what was said, as base64. */
async function fetchMessage({ id, token }) {
  const response = await fetch(`/v1/voicemail/${id}`, { headers: { authorization: `Bearer ${token}` } });
  if (!response.ok) throw new Error(String(response.status));
  const bytes = new Uint8Array(await response.arrayBuffer());
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
