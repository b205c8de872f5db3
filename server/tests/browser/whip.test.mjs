// Encoders of other makes, FFmpeg among them, publish by WHIP, a plain page watches by WHEP, and people of the Room see the encoder.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

import { hears, meets, seesPictures } from './lib/meeting.mjs';
import { story } from './lib/story.mjs';
import { eventually } from './lib/wait.mjs';

const PYTHON = process.env.AIORTC_PYTHON ?? 'python3';
const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const ENCODER = here('encoder.py');
const FFMPEG = here('ffmpeg.py');

/** So many frames, or packets of sound, more mean that they flow. */
const FRAMES_MIN = 10;

const skip = spawnSync(PYTHON, ['-c', 'import aiortc']).status === 0 ? false : 'aiortc is missing';
if (skip) console.log(`SKIPPED: ${skip}`);

story('an encoder of another make is seen by people and by a viewer over HTTP, through an ICE restart, until it stops', { skip }, async (world) => {
  const chromium = await world.browser('chromium');
  const viewer = await Viewer.open(world, chromium, 'watcher');
  const early = await viewer.watch().catch((error) => error.message);
  assert.match(early, /409 5 .*unknown_room/, 'the Room has not begun');

  const encoder = await publish(world, ENCODER, 'VP8');
  await eventually('the viewer is let in', () => viewer.watch());
  await viewer.sees('the encoder');
  await viewer.hears();

  const alice = await meets(world, chromium, 'Alice');
  await seesPictures(alice, 1);
  await alice.readsThat('meeting-count', /^3 people$/);

  await viewer.restartsIce();
  await viewer.sees('the encoder after an ICE restart');

  assert.equal(await viewer.leaves(), 200);
  await alice.readsThat('meeting-count', /^2 people$/);
  assert.equal(await viewer.leaves(), 404);
  encoder.stop();
  await alice.readsThat('meeting-count', /^1 person$/);
  assert.equal(await encoder.end(), 'out 200');
});

story('a viewer who names somebody sees them, and an encoder of H264 is removed by a moderator', { skip }, async (world) => {
  const chromium = await world.browser('chromium');
  const alice = await meets(world, chromium, 'Alice');
  const encoder = await publish(world, ENCODER, 'H264');
  await seesPictures(alice, 1);
  const viewer = await Viewer.open(world, chromium, 'watcher', '?participant=camera');
  await viewer.watch();
  await viewer.sees('the encoder');
  assert.equal(await viewer.codec(), 'video/H264');

  await alice.press('meeting-people');
  await alice.press('more-camera');
  await alice.press('remove-person');
  await alice.readsThat('meeting-count', /^2 people$/);
  await viewer.seesNothing();
  assert.equal(await encoder.end(), 'lost');
});

story('FFmpeg is seen and heard by people and by a viewer over HTTP, until it stops', { skip }, async (world) => {
  const chromium = await world.browser('chromium');
  const alice = await meets(world, chromium, 'Alice');
  const encoder = await publish(world, FFMPEG);
  await seesPictures(alice, 1);
  await hears(alice);
  const viewer = await Viewer.open(world, chromium, 'watcher', '?participant=camera');
  await viewer.watch();
  await viewer.sees('FFmpeg');
  await viewer.hears();
  assert.equal(await viewer.codec(), 'video/H264');

  encoder.stop();
  assert.equal(await encoder.end(), 'out');
  await alice.readsThat('meeting-count', /^2 people$/);
  await viewer.seesNothing();
});

/** Starts an encoder, and waits until its media may flow; `details` follow address and token. `end` resolves to the last it says. */
async function publish(world, script, ...details) {
  const { token } = await signIn(world, 'Camera');
  const child = spawn(PYTHON, [script, `${world.server.url}/v1/whip/weekly`, token, ...details], { stdio: ['pipe', 'pipe', 'pipe'] });
  world.whenOver(() => child.kill('SIGKILL'));
  const ended = once(child, 'exit');
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => { said += bytes; });
  await eventually('the encoder is in', () => /^in$/m.test(said) || Promise.reject(new Error(`${child.exitCode} ${said}`)));
  return {
    stop: () => child.stdin.end(),
    async end() {
      await eventually('the encoder is out', () => /^(out( \d+)?|lost)$/m.test(said));
      // It waits for this, too.
      child.stdin.end();
      await ended;
      return said.trim().split('\n').at(-1);
    },
  };
}

async function signIn(world, name) {
  const answer = await fetch(`${world.server.url}/demo/sign-in`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ name }),
  });
  return answer.json();
}

/** A page with an RTCPeerConnection and fetch, and nothing of ours. */
class Viewer {
  static async open(world, browser, name, query = '') {
    const viewer = new Viewer();
    const { token } = await signIn(world, name);
    viewer.page = await (await browser.browser.newContext()).newPage();
    await viewer.page.goto(`${world.server.url}/healthz`);
    viewer.request = { url: `${world.server.url}/v1/whep/weekly${query}`, token };
    return viewer;
  }

  /** Begins; throws with status, Retry-After and problem when it is refused. */
  async watch() {
    await this.page.evaluate(async ({ url, token }) => {
      const connection = new RTCPeerConnection();
      for (const kind of ['audio', 'video']) connection.addTransceiver(kind, { direction: 'recvonly' });
      const video = document.createElement('video');
      connection.ontrack = ({ streams }) => { [video.srcObject] = streams; video.play().catch(() => {}); };
      await connection.setLocalDescription();
      const headers = { authorization: `Bearer ${token}` };
      const answer = await fetch(url, { method: 'POST', headers: { ...headers, 'content-type': 'application/sdp' }, body: connection.localDescription.sdp });
      const said = await answer.text();
      if (answer.status !== 201) {
        connection.close();
        throw new Error(`${answer.status} ${answer.headers.get('retry-after')} ${said}`);
      }
      await connection.setRemoteDescription({ type: 'answer', sdp: said });
      globalThis.seat = { connection, headers, answer: said, session: new URL(answer.headers.get('location'), url).href };
    }, this.request);
    return true;
  }

  async sees(whom) {
    const before = await this.#stats('video');
    await eventually(`the viewer sees ${whom}`, async () => {
      const now = await this.#stats('video');
      return now.framesDecoded - (before.framesDecoded ?? 0) >= FRAMES_MIN || Promise.reject(new Error(JSON.stringify(now)));
    });
  }

  async seesNothing() {
    await eventually('no more frames come', async () => {
      const before = await this.#stats('video');
      await new Promise((resolve) => { setTimeout(resolve, 500); });
      return (await this.#stats('video')).framesReceived === before.framesReceived;
    });
  }

  async hears() {
    await eventually('sound comes', async () => (await this.#stats('audio')).packetsReceived >= FRAMES_MIN);
  }

  async codec() {
    return (await this.#stats('video')).codec;
  }

  /** As RFC 9725 has it: new credentials go there and back, everything else stays. */
  async restartsIce() {
    await this.page.evaluate(async () => {
      const { connection, headers, session, answer } = globalThis.seat;
      const value = (sdp, name) => sdp.match(new RegExp(`^a=${name}:(.*)$`, 'm'))[1].trim();
      connection.restartIce();
      await connection.setLocalDescription();
      const { sdp } = connection.localDescription;
      const body = ['m=audio 9 UDP/TLS/RTP/SAVPF 111', `a=mid:${value(sdp, 'mid')}`, ...['ice-ufrag', 'ice-pwd'].map((name) => `a=${name}:${value(sdp, name)}`), ''].join('\r\n');
      const type = { 'content-type': 'application/trickle-ice-sdpfrag' };
      const answered = await fetch(session, { method: 'PATCH', headers: { ...headers, ...type, 'if-match': '*' }, body });
      const fragment = await answered.text();
      if (answered.status !== 200) throw new Error(`${answered.status} ${fragment}`);
      const renewed = ['ice-ufrag', 'ice-pwd'].reduce((text, name) => text.replaceAll(new RegExp(`^a=${name}:.*$`, 'gm'), `a=${name}:${value(fragment, name)}`), answer);
      if (renewed === answer) throw new Error('the credentials are the old ones');
      await connection.setRemoteDescription({ type: 'answer', sdp: renewed });
      // One candidate more changes nothing, but has to be taken.
      const tag = answered.headers.get('etag');
      const trickled = await fetch(session, { method: 'PATCH', headers: { ...headers, ...type, 'if-match': tag }, body: 'a=end-of-candidates\r\n' });
      if (trickled.status !== 204) throw new Error(`${trickled.status} ${await trickled.text()}`);
    });
  }

  /** The status of the answer. */
  leaves() {
    return this.page.evaluate(async () => {
      const { headers, session } = globalThis.seat;
      return (await fetch(session, { method: 'DELETE', headers })).status;
    });
  }

  #stats(kind) {
    return this.page.evaluate(async (wanted) => {
      const reports = [...(await globalThis.seat.connection.getStats()).values()];
      const found = reports.find((report) => report.type === 'inbound-rtp' && report.kind === wanted) ?? {};
      return { ...found, codec: reports.find((report) => report.id === found.codecId)?.mimeType };
    }, kind);
  }
}
