// The relay under browsers that may use nothing else, over each transport they know: none speaks TURN over DTLS.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { startChromium, startFirefox } from '../../browser/lib/browsers.mjs';
import { makeHome } from '../pki.mjs';
import { startRelay } from './relay.mjs';

const MESSAGES = 50;

let folder;
let relay;

before(async () => {
  relay = await startRelay();
  folder = await mkdtemp(path.join(tmpdir(), 'offhook-home-'));
});

after(async () => {
  await relay?.close();
  if (folder) await rm(folder, { recursive: true, force: true });
});

test('Chromium reaches Chromium through the relay alone', async (t) => {
  const home = await makeHome(path.join(folder, 'chromium'), [relay.authority.certificate]);
  const chromium = await startChromium({ home });
  t.after(() => chromium.close());
  const page = await (await chromium.browser.newContext()).newPage();
  for (const transport of ['udp', 'tcp', 'tls']) await reaches(page, transport);
});

// Whom Firefox trusts is not ours to say: over TLS it meets the relay in no test.
test('Firefox reaches Firefox through the relay alone', async (t) => {
  const firefox = await startFirefox();
  t.after(() => firefox.close());
  const page = await firefox.browser.newPage();
  for (const transport of ['udp', 'tcp']) await reaches(page, transport);
});

async function reaches(page, transport) {
  const said = await page.evaluate(echoThroughRelay, { iceServers: relay.onlyOver(transport), count: MESSAGES });
  console.log(`${transport}: ${JSON.stringify(said)}`);
  assert.deepEqual(said, { echoedInOrder: MESSAGES, ways: [`relay/${transport}`] });
}

/** Runs in the page: two connections that may use nothing but relayed addresses, and messages there and back. */
async function echoThroughRelay({ iceServers, count }) {
  const ends = [0, 1].map(() => new RTCPeerConnection({ iceServers, iceTransportPolicy: 'relay' }));
  const [caller, callee] = ends;
  const channel = caller.createDataChannel('echo');
  const echoed = [];
  const finished = new Promise((resolve) => {
    channel.onmessage = ({ data }) => echoed.push(data) === count && resolve();
  });
  channel.onopen = () => Array.from({ length: count }, (_, number) => channel.send(`message ${number}`));
  callee.ondatachannel = ({ channel: incoming }) => { incoming.onmessage = ({ data }) => incoming.send(data); };

  const describe = async (end, description) => {
    await end.setLocalDescription(description);
    while (end.iceGatheringState !== 'complete') await new Promise((resolve) => { setTimeout(resolve, 20); });
    return end.localDescription;
  };
  await callee.setRemoteDescription(await describe(caller, await caller.createOffer()));
  await caller.setRemoteDescription(await describe(callee, await callee.createAnswer()));
  await finished;

  const ways = new Set();
  for (const end of ends) {
    const stats = [...(await end.getStats()).values()];
    for (const pair of stats.filter(({ type, nominated, state }) => type === 'candidate-pair' && nominated && state === 'succeeded')) {
      const { candidateType, relayProtocol } = stats.find(({ id }) => id === pair.localCandidateId);
      ways.add(`${candidateType}/${relayProtocol}`);
    }
    end.close();
  }
  return { echoedInOrder: echoed.filter((message, number) => message === `message ${number}`).length, ways: [...ways] };
}
