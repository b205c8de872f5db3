// libwebrtc without a browser, as a peer that does what it is told: see peers.mjs, which starts it in a process of its own. When it
// ends, what it leaves running would crash.

import { createInterface } from 'node:readline';

import wrtc from '@roamhq/wrtc';

const { RTCVideoSink, RTCVideoSource, RTCAudioSink, RTCAudioSource } = wrtc.nonstandard;

/** What libwebrtc makes its two Layers of. */
const WIDTH = 640;
const HEIGHT = 360;
const FRAME_MS = 66;
const LAYERS = [{ rid: 'q', scaleResolutionDownBy: 2, maxBitrate: 150_000 }, { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 500_000 }];

/** Sound goes in by ten milliseconds. */
const SAMPLE_RATE = 48_000;
const SAMPLES = SAMPLE_RATE / 100;
const TONE_HZ = 400;
const TONE_PEAK = 8_000;
/** What is louder than this is no silence. */
const LOUD_PEAK = 500;

class Peer {
  #connection = new wrtc.RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  /** What to stop when it closes. */
  #running = [];
  #streams = new Map();

  async offer({ sends, audio_slots: audioSlots, video_slots: videoSlots, colour }) {
    for (const source of sends) {
      const track = source === 'microphone' ? this.#microphone() : this.#camera(colour);
      this.#connection.addTransceiver(track, { direction: 'sendonly', ...(source === 'camera' && { sendEncodings: LAYERS }) });
    }
    const slots = ['audio', 'video'].flatMap((kind) => Array.from({ length: kind === 'audio' ? audioSlots : videoSlots }, () => (
      this.#connection.addTransceiver(kind, { direction: 'recvonly' })
    )));
    const described = await this.#describe();
    for (const slot of slots) this.#watch(slot.mid, slot.receiver.track);
    return described;
  }

  /** Offers once more, and looks for ways anew. */
  async restart() {
    this.#connection.restartIce();
    return this.#describe();
  }

  async accept({ sdp }) {
    await this.#connection.setRemoteDescription({ type: 'answer', sdp });
  }

  async received() {
    return { state: this.#connection.connectionState, streams: [...this.#streams.values()] };
  }

  async close() {
    for (const stop of this.#running) stop();
    for (const { sender, receiver } of this.#connection.getTransceivers()) for (const { track } of [sender, receiver]) track?.stop();
    this.#connection.close();
  }

  async #describe() {
    await this.#connection.setLocalDescription(await this.#connection.createOffer());
    const tracks = this.#connection.getTransceivers().filter(({ direction }) => direction === 'sendonly')
      .map(({ mid, sender }) => ({ mid, source: sender.track.kind === 'audio' ? 'microphone' : 'camera' }));
    return { sdp: this.#connection.localDescription.sdp, tracks };
  }

  #camera(colour) {
    const source = new RTCVideoSource();
    let number = 0;
    this.#every(FRAME_MS, () => source.onFrame({ width: WIDTH, height: HEIGHT, data: picture(colour, number++) }));
    return source.createTrack();
  }

  #microphone() {
    const source = new RTCAudioSource();
    const samples = Int16Array.from({ length: SAMPLES }, (_, n) => TONE_PEAK * Math.sin((2 * Math.PI * TONE_HZ * n) / SAMPLE_RATE));
    this.#every(10, () => source.onData({ samples, sampleRate: SAMPLE_RATE, bitsPerSample: 16, channelCount: 1, numberOfFrames: SAMPLES }));
    return source.createTrack();
  }

  /** A timer that makes up for turns it missed, so that sound has no holes. */
  #every(ms, run) {
    const began = performance.now();
    let turns = 0;
    const timer = setInterval(() => {
      for (; turns * ms <= performance.now() - began; turns += 1) run();
    }, ms);
    this.#running.push(() => clearInterval(timer));
  }

  #watch(mid, track) {
    const note = (more) => {
      const { frames = 0, loud = 0, ...rest } = this.#streams.get(mid) ?? { mid };
      this.#streams.set(mid, { ...rest, frames: frames + 1, loud: loud + (more.loud ?? 0), ...(more.width && more) });
    };
    const sink = track.kind === 'audio' ? new RTCAudioSink(track) : new RTCVideoSink(track);
    this.#running.push(() => sink.stop());
    sink.ondata = ({ samples }) => note({ loud: Number(samples.some((sample) => Math.abs(sample) > LOUD_PEAK)) });
    sink.onframe = ({ frame: { width, height, data } }) => note({ loud: 0, width, height, colour: middleOf(width, height, data) });
  }
}

/** A plain colour with a white bar that wanders, in I420. */
function picture([y, u, v], number) {
  const data = new Uint8ClampedArray((WIDTH * HEIGHT * 3) / 2);
  data.fill(y, 0, WIDTH * HEIGHT);
  data.fill(u, WIDTH * HEIGHT, WIDTH * HEIGHT * 1.25);
  data.fill(v, WIDTH * HEIGHT * 1.25);
  const top = (number * 8) % (HEIGHT - 16);
  data.fill(235, top * WIDTH, (top + 16) * WIDTH);
  return data;
}

function middleOf(width, height, data) {
  const at = (w, h) => Math.floor(h / 2) * w + Math.floor(w / 2);
  const [w, h] = [Math.ceil(width / 2), Math.ceil(height / 2)];
  return [data[at(width, height)], data[width * height + at(w, h)], data[width * height + w * h + at(w, h)]];
}

const peer = new Peer();
for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, ...asked } = JSON.parse(line);
  const answer = await peer[what](asked);
  process.stdout.write(`${JSON.stringify(answer ?? {})}\n`);
  if (what === 'close') break;
}
process.kill(process.pid, 'SIGKILL');
