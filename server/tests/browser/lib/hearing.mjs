// What runs inside a Chromium page to find out for how long nothing was heard: a microphone that gives one steady tone, and an
// ear at everything the page receives, which counts samples. Time is that of the sound itself: a machine that is busy elsewhere
// makes a test slower, and changes no figure.

/** Goes into a page before its own scripts: its microphone is a tone, and it keeps what arrives in a place where {@link listen} finds it. */
export function soundAsTone() {
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (constraints) => {
    const stream = await open(constraints);
    for (const track of stream.getAudioTracks()) {
      stream.removeTrack(track);
      track.stop();
      const context = new AudioContext();
      const tone = new OscillatorNode(context, { frequency: 440 });
      const quieter = new GainNode(context, { gain: 0.3 });
      const microphone = context.createMediaStreamDestination();
      tone.connect(quieter).connect(microphone);
      tone.start();
      stream.addTrack(microphone.stream.getAudioTracks()[0]);
    }
    return stream;
  };

  const Original = globalThis.RTCPeerConnection;
  globalThis.received = [];
  globalThis.RTCPeerConnection = class RTCPeerConnection extends Original {
    constructor(...options) {
      super(...options);
      this.addEventListener('track', ({ track }) => {
        if (track.kind !== 'audio') return;
        globalThis.received.push(track);
        globalThis.onReceived?.(track);
      });
    }
  };
}

/** Begins to listen to the sum of all that arrives. */
export async function listen() {
  const processor = `
    registerProcessor('ear', class extends AudioWorkletProcessor {
      constructor() {
        super();
        this.port.onmessage = ({ data }) => (data === 'forget' ? this.forget() : this.tell());
        this.forget();
      }
      forget() {
        Object.assign(this, { quanta: 0, silent: 0, run: 0, longest: 0, loud: 0 });
      }
      tell() {
        const ms = (quanta) => (quanta * 128 * 1000) / sampleRate;
        const { quanta, silent, longest, loud } = this;
        this.port.postMessage({ heardMs: ms(quanta), silentMs: ms(silent), longestGapMs: ms(longest), doubledMs: ms(loud) });
      }
      process([[samples]]) {
        const energy = samples ? samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length : 0;
        const level = Math.sqrt(energy);
        // The tone has a level of 0.21; codecs make little of it, and two of them at once are more than one can be.
        this.run = level < 0.03 ? this.run + 1 : 0;
        this.quanta += 1;
        this.silent += this.run > 0 ? 1 : 0;
        this.loud += level > 0.33 ? 1 : 0;
        this.longest = Math.max(this.longest, this.run);
        return true;
      }
    });`;
  const context = new AudioContext();
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([processor], { type: 'text/javascript' })));
  const ear = new AudioWorkletNode(context, 'ear', { channelCount: 1, channelCountMode: 'explicit' });
  // It is pulled only as long as it leads somewhere.
  ear.connect(new GainNode(context, { gain: 0 })).connect(context.destination);
  globalThis.ear = ear;
  globalThis.onReceived = (track) => context.createMediaStreamSource(new MediaStream([track])).connect(ear);
  globalThis.received.forEach(globalThis.onReceived);
}

/** Forgets what was heard so far. */
export function forget() {
  globalThis.ear.port.postMessage('forget');
}

/** What was heard since: for how long it listened, for how long nothing was heard in all and at a stretch, and for how long too much. */
export function heard() {
  return new Promise((resolve) => {
    globalThis.ear.port.onmessage = ({ data }) => resolve(data);
    globalThis.ear.port.postMessage('tell');
  });
}
