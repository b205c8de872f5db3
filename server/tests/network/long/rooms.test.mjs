// A Room over networks that are bad, with real browsers: Bob sends from a good one, Alice receives behind a bad one, and Carol beside
// Bob must never suffer for it. Each second of Alice and Carol is printed: the Layer, frames, bitrate, freezes.

import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { enter } from '../../browser/lib/meeting.mjs';
import { story } from '../../browser/lib/story.mjs';
import { eventually } from '../../browser/lib/wait.mjs';
import { startRig } from '../rig.mjs';

/** What Bob's camera sees, and the Layers his browser makes of it. */
const CAMERA = { width: 640, height: 360, rate: 15, frames: 15 };
const [LOW, HIGH] = [CAMERA.height / 2, CAMERA.height];

const SECOND_MS = 1_000;
const PATIENCE = { timeout: 120_000, interval: SECOND_MS };

/** So few packets may be lost in 20 seconds to a queue that is filled now and then to see how much fits. */
const LOST_MAX = 20;

/**
 * After a pause a second goes through this network as fast as through a better one, so whether it bears more has to be tried for longer
 * than that. Should it look so once, for a machine had no time for its packets, that is one change up and one down again.
 */
const BUCKET_KB = 32;
const CHANGES_MAX = 2;
const LARGER_S_MAX = 2;

/** In so few seconds no picture of the smaller Layer may come, and it may not stand still for longer: four come each second, at least. */
const STILL_S_MAX = 1;
const STILL_MS_MAX = 1_000;

/** After so many seconds nothing of before is on its way any more. */
const SETTLED_S = 5;

/** How much of the time a picture may stand still for somebody whose network is good. */
const FROZEN_MAX = 0.02;

network('bandwidth that falls from 3 Mbit/s to 150 kbit/s and comes back', async ({ rig, watch, alice, carol }) => {
  await rig.narrow(3_000);
  await watch.until('Alice has the whole picture', alice, ({ height, frames }) => height === HIGH && frames > 0);
  await watch.during('3 Mbit/s', 10);

  const fell = performance.now();
  await rig.narrow(150);
  await watch.until('Alice has the smallest Layer, or none', alice, ({ height, frames }) => height === LOW || frames === 0);
  console.log(`smaller after ${since(fell)}`);
  const narrow = await watch.during('150 kbit/s', 20);
  assert.ok(narrow.get(alice).at(-1).soundPackets > 0, 'sound goes on at 150 kbit/s');

  const rose = performance.now();
  await rig.narrow(3_000);
  await watch.until('Alice has the whole picture again', alice, ({ height, frames }) => height === HIGH && frames > 0);
  console.log(`the whole picture is back after ${since(rose)}`);
  const wide = await watch.during('3 Mbit/s again', 10);
  assert.ok(wide.get(alice).every(({ height }) => height === HIGH), 'no oscillation');
  neverSuffers(watch, carol);
});

network('one of twelve packets is lost', async ({ rig, watch, alice, carol }) => {
  await watch.until('Alice has the whole picture', alice, ({ height, frames }) => height === HIGH && frames > 0);
  await rig.lose(8);
  const lossy = await watch.during('8 % loss', 25);
  const of = lossy.get(alice);
  assert.ok(of.reduce((sum, { lost }) => sum + lost, 0) > 0, 'packets were lost');
  // What was lost was sent again: the picture moves in every second but a few.
  assert.ok(of.filter(({ frames }) => frames === 0).length <= 2, JSON.stringify(of));
  neverSuffers(watch, carol);
});

network('a slow subscriber beside a fast one', async ({ rig, watch, alice, carol }) => {
  await rig.narrow(300, { queueMs: 1_000, bucketKb: BUCKET_KB });
  await watch.until('Carol has the whole picture', carol, ({ height, frames }) => height === HIGH && frames > 0);
  await watch.until('Alice has a smaller one', alice, ({ height, frames }) => height < HIGH && frames > 0);
  const held = await watch.during('300 kbit/s for Alice alone', 25);
  assert.ok(held.get(carol).every(({ height, frames }) => height === HIGH && frames > 0), 'Carol keeps the whole picture');
  // What waited in the queue of her network when it became narrow comes first. Then she has the smaller picture, which moves, and
  // nothing overflows that queue.
  const fits = held.get(alice).slice(SETTLED_S);
  const changes = fits.filter(({ height }, at) => at > 0 && height !== fits[at - 1].height).length;
  assert.ok(changes <= CHANGES_MAX, `${changes} changes of Layer: ${JSON.stringify(fits)}`);
  assert.ok(fits.filter(({ height }) => height !== LOW).length <= LARGER_S_MAX, JSON.stringify(fits));
  assert.ok(fits.filter(({ frames }) => frames === 0).length <= STILL_S_MAX, JSON.stringify(fits));
  assert.ok(fits.every(({ frozenMs }) => frozenMs <= STILL_MS_MAX), JSON.stringify(fits));
  assert.ok(fits.reduce((sum, { lost }) => sum + lost, 0) <= LOST_MAX, JSON.stringify(fits));
  neverSuffers(watch, carol);
});

/** Alice in office a, Bob and Carol in office b, all in one meeting; Alice and Carol have no camera. */
function network(title, run) {
  story(title, { server: false }, async (world) => {
    const rig = await startRig('open', { family: 4 });
    world.whenOver(() => rig.close());
    world.server = await rig.startServer();
    const camera = path.join(rig.folder, 'camera.y4m');
    await writeNoise(camera, CAMERA);
    const people = {};
    for (const [node, user, name] of [['b', 'bob', 'Bob'], ['b', 'carol', 'Carol'], ['a', 'alice', 'Alice']]) {
      const browser = await world.browser('chromium', rig.browserIn(node, { flags: [`--use-file-for-fake-video-capture=${camera}`] }), node);
      const token = await rig.token(user, name);
      const person = await world.visitor(browser, { at: `/#token=${encodeURIComponent(token)}`, viewport: { width: 900, height: 600 }, scripts: [wholePictures] });
      person.name = name;
      await person.isSignedIn();
      if (user !== 'bob') await person.page.evaluate(() => localStorage.setItem('offhook.meeting.camera', 'off'));
      await enter(person);
      await person.sees('conversation');
      people[user] = person;
    }
    // Large for both, so that what limits the Layer is the network.
    for (const person of [people.alice, people.carol]) await pins(person, 'bob');
    const watch = new Watch([people.alice, people.carol]);
    await run({ rig, watch, ...people });
  });
}

async function pins(person, user) {
  await person.sees(`tile-${user}`);
  await person.page.evaluate((name) => document.querySelector(`[data-test="tile-${name}"] .tile-pin`).click(), user);
}

/** Reads what people receive, second by second. */
class Watch {
  #people;
  #before = new Map();
  /** All seconds of each person. */
  seconds = new Map();

  constructor(people) {
    this.#people = people;
    for (const person of people) this.seconds.set(person, []);
  }

  /** Waits until a second of `person` is as it should be. */
  async until(what, person, isSo) {
    await eventually(what, async () => {
      const second = (await this.#read()).get(person);
      return (second && isSo(second)) || Promise.reject(new Error(JSON.stringify(second)));
    }, PATIENCE);
  }

  /** Prints so many seconds of everybody, and returns them by person. */
  async during(what, count) {
    const all = new Map(this.#people.map((person) => [person, []]));
    for (let number = 0; number < count; number += 1) {
      await pause(SECOND_MS);
      for (const [person, second] of await this.#read()) all.get(person).push(second);
    }
    for (const [person, seconds] of all) {
      const row = (key, show = (value) => value) => seconds.map((second) => String(show(second[key]))).join(' ');
      console.log(`${what}, ${person.name}: height ${row('height')}; frames/s ${row('frames')}; kbit/s ${row('kbps')}; frozen ms ${row('frozenMs')}; lost ${row('lost')}; asked again ${row('nacks')}`);
    }
    return all;
  }

  async #read() {
    const seconds = new Map();
    for (const person of this.#people) {
      const now = await person.page.evaluate(readSecond);
      const before = this.#before.get(person);
      this.#before.set(person, now);
      if (!now || !before) continue;
      const span = (now.at - before.at) / 1_000;
      const grown = (key) => now[key] - before[key];
      const second = {
        height: now.height,
        frames: Math.round(grown('frames') / span),
        kbps: Math.round((grown('bytes') * 8) / 1_000 / span),
        frozenMs: Math.round(grown('frozen') * 1_000),
        lost: grown('lost'),
        nacks: grown('nacks'),
        soundPackets: grown('soundPackets'),
        spanMs: Math.round(span * 1_000),
      };
      seconds.set(person, second);
      this.seconds.get(person).push(second);
    }
    return seconds;
  }
}

/** Whose network is good sees a picture that moves, and all of it. */
function neverSuffers(watch, person) {
  const seconds = watch.seconds.get(person);
  // What came before the whole picture is the beginning.
  const settled = seconds.slice(seconds.findIndex(({ height }) => height === HIGH));
  const sum = (key) => settled.reduce((total, second) => total + second[key], 0);
  const share = sum('frozenMs') / sum('spanMs');
  console.log(`${person.name}: ${settled.length} seconds at ${HIGH}, frozen ${(share * 100).toFixed(2)} % of the time`);
  assert.ok(settled.every(({ height }) => height === HIGH), 'the whole picture all the time');
  assert.ok(share <= FROZEN_MAX, `frozen for ${share} of the time`);
}

function since(moment) {
  return `${((performance.now() - moment) / 1_000).toFixed(1)} s`;
}

/**
 * Pictures no encoder makes small: noise that changes, in YUV4MPEG2, with nothing in the chroma. It fills a quarter of them: a key frame
 * is no larger than others that way, and nobody's picture stands still when somebody else needs one.
 */
async function writeNoise(file, { width, height, rate, frames }) {
  const out = await open(file, 'w');
  await out.write(`YUV4MPEG2 W${width} H${height} F${rate}:1 Ip A1:1 C420jpeg\n`);
  const chroma = Buffer.alloc((width * height) / 2, 128);
  for (let frame = 0; frame < frames; frame += 1) {
    const luma = Buffer.alloc(width * height, 128);
    // Blocks of four by four: what is finer an encoder throws away at once.
    for (let y = 0; y < height / 2; y += 4) {
      const row = Buffer.alloc(width / 2);
      for (let x = 0; x < row.length; x += 4) row.fill(64 + Math.floor(Math.random() * 128), x, x + 4);
      for (let line = 0; line < 4; line += 1) row.copy(luma, (y + line) * width);
    }
    await out.write('FRAME\n');
    await out.write(luma);
    await out.write(chroma);
  }
  await out.close();
}

// What runs inside the page.

/** The camera as the file has it, and Layers as large as they should be: on a busy machine pictures are left out instead. */
function wholePictures() {
  const { setParameters } = RTCRtpSender.prototype;
  RTCRtpSender.prototype.setParameters = function (parameters) {
    return setParameters.call(this, this.track?.kind === 'audio' ? parameters : { ...parameters, degradationPreference: 'maintain-resolution' });
  };
  const { mediaDevices } = navigator;
  const open = mediaDevices.getUserMedia.bind(mediaDevices);
  mediaDevices.getUserMedia = ({ video, ...rest }) => open({ ...rest, ...(video && { video: { width: 640, height: 360 } }) });
}

/** What has come in so far: of pictures the one that is shown, which is the only one; of sound everything. */
async function readSecond() {
  const read = { at: 0, height: 0, frames: 0, bytes: 0, frozen: 0, lost: 0, nacks: 0, soundPackets: 0 };
  for (const connection of globalThis.keptConnections) {
    if (connection.connectionState !== 'connected') continue;
    for (const report of (await connection.getStats()).values()) {
      if (report.type !== 'inbound-rtp') continue;
      read.at = report.timestamp;
      read.bytes += report.bytesReceived + report.headerBytesReceived;
      if (report.kind === 'audio') {
        read.soundPackets += report.packetsReceived;
        continue;
      }
      read.lost += report.packetsLost;
      read.nacks += report.nackCount;
      read.frames += report.framesDecoded;
      read.frozen += report.totalFreezesDuration;
      read.height = Math.max(read.height, report.frameHeight ?? 0);
    }
  }
  return read.at ? read : null;
}
