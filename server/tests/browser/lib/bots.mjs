// People for a Room who are no browsers: `loadtest sfu-bots`, which sends what browsers decode.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { makeFilm, makeTone } from './clip.mjs';
import { ROOT } from './offhook.mjs';

const LOADTEST = process.env.LOADTEST_BINARY ?? path.join(ROOT, 'target/release/loadtest');

/** Small and slow pictures: fifty of them are decoded on the same machine. */
const FILM = { width: 160, height: 90, rate: 5, frames: 20, bitrate: 40_000 };

/** They stay until they are told to leave. */
const SECONDS = '86400';

/** So many of them are heard; all others have a camera alone. */
const VOICES = '3';

/**
 * Has `count` of them come into the Room called `room`, one after the other; `page` is a page of the server, whose encoders make what
 * they send. They receive nothing.
 */
export async function startBots(world, page, room, count) {
  const folder = await mkdtemp(path.join(tmpdir(), 'offhook-bots-'));
  const [film, sound] = ['film.ivf', 'sound.ivf'].map((name) => path.join(folder, name));
  await makeFilm(page, film, FILM);
  await makeTone(page, sound);
  const child = spawn(LOADTEST, [
    'sfu-bots', '--url', world.server.url, '--room', room, '--publishers', String(count), '--voices', VOICES, '--seconds', SECONDS,
    '--film', film, '--sound', sound, '--audio-slots', '0', '--video-slots', '0',
  ], { stdio: 'inherit' });
  const ended = once(child, 'exit');
  world.whenOver(async () => {
    child.kill();
    await ended;
    await rm(folder, { recursive: true, force: true });
  });
}
