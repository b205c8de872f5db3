// Rooms under WebRTC stacks we did not write: aiortc, with ICE, DTLS, RTP and congestion control of its own (REMB, no simulcast),
// and libwebrtc outside of a browser. Each sends VP8 and Opus, and decodes what the others send.

import { hears, meets } from '../browser/lib/meeting.mjs';
import { smallPictures } from '../browser/lib/media.mjs';
import { story } from '../browser/lib/story.mjs';
import { eventually } from '../browser/lib/wait.mjs';
import { startAiortc, startWrtc } from './peers.mjs';
import { Seat } from './seat.mjs';

/** So many frames of a picture mean that it moves, and so many pieces of sound that somebody is heard. */
const FRAMES_MIN = 20;
const LOUD_MIN = 50;

/** How long nothing must come in to count as nothing. */
const QUIET_MS = 1_000;

/** What a codec may do to a plain colour. */
const COLOUR_OFF_MAX = 12;

const BLUE = [80, 200, 100];
const RED = [100, 90, 220];
const BOTH = ['microphone', 'camera'];
const SLOTS = { audio_slots: 4, video_slots: 4 };

story('aiortc, libwebrtc and Chromium in one Room: each decodes the pictures and the sound of all others', {}, async (world) => {
  const alice = await meets(world, await world.browser('chromium'), 'Alice', { scripts: [smallPictures] });
  const aio = await sits(world, 'Aio', startAiortc(), { sends: BOTH, colour: BLUE });
  const roam = await sits(world, 'Roam', startWrtc(), { sends: BOTH, colour: RED });

  await perceives(aio, { alice: null, roam: RED });
  await perceives(roam, { alice: null, aio: BLUE });
  await alice.readsThat('meeting-count', /^3 people$/);
  await looksLike(alice, 'aio', BLUE);
  await looksLike(alice, 'roam', RED);
  await hears(alice);

  // Who moves to another address goes on.
  await roam.restarts();
  await perceives(roam, { alice: null, aio: BLUE });
  await perceives(aio, { alice: null, roam: RED });

  await aio.mutes('camera', true);
  await eventually('Alice sees that the camera of Aio is off', () => alice.page.evaluate(() => document.querySelector('[data-test="tile-aio"]').dataset.picture === 'false'));
  let before = null;
  await eventually('no picture of Aio is forwarded', async () => {
    const now = (await roam.receives()).find(({ user, source }) => user === 'aio' && source === 'camera')?.frames ?? 0;
    const isStill = now === before;
    before = now;
    return isStill;
  }, { interval: QUIET_MS });
  await aio.mutes('camera', false);
  await looksLike(alice, 'aio', BLUE);
  await perceives(roam, { aio: BLUE });

  await roam.leaves();
  await alice.readsThat('meeting-count', /^2 people$/);
  await perceives(aio, { alice: null });
});

story('aiortc receives the Layer of libwebrtc that fits what it shows, and who comes late sees it at once', {}, async (world) => {
  await sits(world, 'Roam', startWrtc(), { sends: BOTH, colour: RED });
  const aio = await sits(world, 'Aio', startAiortc(), { sends: [], colour: BLUE });
  await perceives(aio, { roam: RED });
  for (const height of [180, 360, 180]) {
    await aio.wants('roam', height);
    await eventually(`aiortc decodes pictures ${height} high`, async () => {
      const stream = (await aio.receives()).find(({ source }) => source === 'camera');
      return stream?.height === height || Promise.reject(new Error(JSON.stringify(stream)));
    });
    await perceives(aio, { roam: RED });
  }
  const late = await sits(world, 'Late', startWrtc(), { sends: [], colour: BLUE });
  await perceives(late, { roam: RED });
});

story('who came with sound alone adds a camera later', {}, async (world) => {
  const roam = await sits(world, 'Roam', startWrtc(), { sends: ['microphone'], video_slots: 0, colour: RED });
  const late = await sits(world, 'Late', startWrtc(), { sends: [], colour: BLUE });
  await roam.adds({ sends: ['camera'], colour: RED });
  await perceives(late, { roam: RED });
});

async function sits(world, name, peer, media) {
  world.whenOver(() => peer.close());
  return Seat.take(world.server, { name, room: 'weekly', peer, media: { ...SLOTS, ...media } });
}

/**
 * Waits until pictures and sound of everybody in `others` come in, and the pictures have the right colour, `null` standing for any;
 * prints what there was to see.
 */
async function perceives(seat, others) {
  const before = await seat.receives();
  const grown = (stream, key) => stream[key] - (before.find(({ mid }) => mid === stream.mid)?.[key] ?? 0);
  const now = await eventually(`${seat.name} perceives ${Object.keys(others).join(' and ')}`, async () => {
    const streams = await seat.receives();
    const all = Object.entries(others).every(([user, colour]) => {
      const of = (source) => streams.find((stream) => stream.user === user && stream.source === source);
      const [camera, microphone] = [of('camera'), of('microphone')];
      return camera && microphone && grown(camera, 'frames') >= FRAMES_MIN && grown(microphone, 'loud') >= LOUD_MIN && isColour(camera.colour, colour);
    });
    return all ? streams : Promise.reject(new Error(JSON.stringify(streams)));
  });
  for (const { user, source, frames, loud, width, height } of now) {
    console.log(`${seat.name} of ${user}: ${source}, ${frames} frames${width ? ` of ${width}x${height}` : `, ${loud} of them loud`}`);
  }
}

/** Waits until the tile of `user` on a page shows pictures of that colour. */
async function looksLike(person, user, colour) {
  await eventually(`${person.name} sees ${user} in their colour`, async () => {
    const seen = await person.page.evaluate((name) => {
      const video = document.querySelector(`[data-test="tile-${name}"] video`);
      if (!video?.videoWidth) return null;
      const canvas = new OffscreenCanvas(16, 16);
      const context = canvas.getContext('2d');
      context.drawImage(video, 0, 0, 16, 16);
      return [...context.getImageData(8, 8, 1, 1).data].slice(0, 3);
    }, user);
    return (seen && isColour(yuv(seen), colour)) || Promise.reject(new Error(JSON.stringify(seen && yuv(seen))));
  });
}

function isColour(seen, expected) {
  if (expected === null) return true;
  // The bar wanders over the middle, too: only the chroma says who it is.
  return Boolean(seen) && [1, 2].every((at) => Math.abs(seen[at] - expected[at]) <= COLOUR_OFF_MAX);
}

/** BT.601 with the range of video, as VP8 has it. */
function yuv([r, g, b]) {
  return [
    16 + 0.257 * r + 0.504 * g + 0.098 * b,
    128 - 0.148 * r - 0.291 * g + 0.439 * b,
    128 + 0.439 * r - 0.368 * g - 0.071 * b,
  ].map(Math.round);
}
