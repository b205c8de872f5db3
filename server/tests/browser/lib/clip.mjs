// Short films and sounds for synthetic people, made by Chromium's encoders, in IVF as `loadtest sfu-bots` reads it.

import { writeFile } from 'node:fs/promises';

/** Writes pictures of a bar that wanders over colours: VP8, so many frames a second, the first of them a key frame. */
export async function makeFilm(page, file, { width, height, rate, frames, bitrate }) {
  const encoded = await page.evaluate(encodePictures, { width, height, rate, frames, bitrate });
  await writeFile(file, ivf('VP80', width, height, rate, encoded));
}

/** Writes a second of a tone: Opus by 20 ms. */
export async function makeTone(page, file) {
  await writeFile(file, ivf('OPUS', 0, 0, 50, await page.evaluate(encodeTone)));
}

/** The header of a file of IVF, and that of each frame. */
function ivf(codec, width, height, rate, encoded) {
  const header = Buffer.alloc(32);
  header.write(`DKIF\0\0\x20\0${codec}`, 'latin1');
  header.writeUInt16LE(width, 12);
  header.writeUInt16LE(height, 14);
  header.writeUInt32LE(rate, 16);
  header.writeUInt32LE(1, 20);
  header.writeUInt32LE(encoded.length, 24);
  const frames = encoded.flatMap((bytes, number) => {
    const head = Buffer.alloc(12);
    head.writeUInt32LE(bytes.length, 0);
    head.writeUInt32LE(number, 4);
    return [head, Buffer.from(bytes)];
  });
  return Buffer.concat([header, ...frames]);
}

// What runs inside the page, which has to be a secure one.

async function encodePictures({ width, height, rate, frames, bitrate }) {
  const encoded = [];
  const encoder = new VideoEncoder({
    output(chunk) {
      const bytes = new Uint8Array(chunk.byteLength);
      chunk.copyTo(bytes);
      encoded.push([...bytes]);
    },
    error(error) { throw error; },
  });
  encoder.configure({ codec: 'vp8', width, height, bitrate, framerate: rate, latencyMode: 'realtime' });
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d');
  for (let number = 0; number < frames; number += 1) {
    context.fillStyle = `hsl(${(360 * number) / frames} 60% 40%)`;
    context.fillRect(0, 0, width, height);
    context.fillStyle = 'white';
    context.fillRect((width * number) / frames, 0, width / 16, height);
    const frame = new VideoFrame(canvas, { timestamp: (number * 1_000_000) / rate });
    encoder.encode(frame, { keyFrame: number === 0 });
    frame.close();
  }
  await encoder.flush();
  return encoded;
}

async function encodeTone() {
  const encoded = [];
  const encoder = new AudioEncoder({
    output(chunk) {
      const bytes = new Uint8Array(chunk.byteLength);
      chunk.copyTo(bytes);
      encoded.push([...bytes]);
    },
    error(error) { throw error; },
  });
  const sampleRate = 48_000;
  encoder.configure({ codec: 'opus', sampleRate, numberOfChannels: 1, bitrate: 24_000 });
  const data = Float32Array.from({ length: sampleRate }, (_, n) => 0.3 * Math.sin((2 * Math.PI * 300 * n) / sampleRate));
  encoder.encode(new AudioData({ format: 'f32', sampleRate, numberOfFrames: sampleRate, numberOfChannels: 1, timestamp: 0, data }));
  await encoder.flush();
  return encoded;
}
