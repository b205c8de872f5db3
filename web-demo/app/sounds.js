/**
 * The sounds of a telephone, made on the spot with WebAudio: no file to load, and the volume is ours.
 */

/** @typedef {"ring" | "ringback" | "waiting"} Loop */
/** @typedef {"connected" | "ended" | "problem"} Cue */
/** @typedef {{ at: number, hz: number, for: number, volume: number }} Note in seconds */

/** One turn of each loop, and how long it takes. The ring is a rising chord that repeats like an old bell's double stroke. */
const LOOPS = /** @type {Record<Loop, { every: number, notes: Note[] }>} */ ({
  ring: { every: 3, notes: [...chime(0), ...chime(0.6)] },
  // The tone most of Europe hears while the other side rings: 425 Hz, one second in five (ITU-T E.180).
  ringback: { every: 5, notes: [{ at: 0, hz: 425, for: 1, volume: 0.06 }] },
  waiting: {
    every: 4,
    notes: [
      { at: 0, hz: 660, for: 0.16, volume: 0.05 },
      { at: 0.24, hz: 660, for: 0.16, volume: 0.05 },
    ],
  },
});

const CUES = /** @type {Record<Cue, Note[]>} */ ({
  connected: [
    { at: 0, hz: 523, for: 0.12, volume: 0.06 },
    { at: 0.1, hz: 784, for: 0.2, volume: 0.06 },
  ],
  ended: [
    { at: 0, hz: 523, for: 0.12, volume: 0.06 },
    { at: 0.12, hz: 392, for: 0.24, volume: 0.06 },
  ],
  problem: [0, 0.3, 0.6].map((at) => ({ at, hz: 425, for: 0.2, volume: 0.06 })),
});

/** @type {AudioContext | null} */
let context = null;
/** @type {Loop | null} */
let looping = null;
let timer = 0;
/** @type {GainNode | null} */
let loopVolume = null;

/**
 * Lets the page make sounds from the first click or key on; browsers forbid them before.
 */
export function unlockOnGesture() {
  const unlock = () => void audio()?.resume();
  for (const type of ["pointerdown", "keydown"]) addEventListener(type, unlock, { capture: true });
}

/** @returns {boolean} whether a ring would be heard */
export function canSound() {
  return audio()?.state === "running";
}

/**
 * Plays a loop until another one, or `null`, takes its place.
 *
 * @param {Loop | null} loop
 */
export function playLoop(loop) {
  if (loop === looping) return;
  looping = loop;
  clearTimeout(timer);
  loopVolume?.disconnect();
  loopVolume = null;
  if (loop) turn(loop);
}

/** @param {Cue} cue */
export function playCue(cue) {
  const ctx = audio();
  if (ctx?.state === "running") schedule(ctx, CUES[cue], ctx.destination);
}

/** The two tones of each key (ITU-T Q.23), by row and column. */
const ROWS = [697, 770, 852, 941];
const COLUMNS = [1209, 1336, 1477, 1633];

/** What a key sounds like to who presses it. @param {string} key `0-9*#A-D` */
export function playKey(key) {
  const ctx = audio();
  const at = "123A456B789C*0#D".indexOf(key);
  if (ctx?.state !== "running" || at < 0) return;
  const tones = [ROWS[Math.floor(at / 4)], COLUMNS[at % 4]];
  schedule(ctx, tones.map((hz) => ({ at: 0, hz, for: 0.12, volume: 0.04 })), ctx.destination);
}

/** Plays the ring once, to test a loudspeaker. */
export function playRingOnce() {
  const ctx = audio();
  if (ctx) void ctx.resume().then(() => schedule(ctx, LOOPS.ring.notes, ctx.destination));
}

/**
 * Sends every sound to a chosen loudspeaker, where the browser can.
 *
 * @param {string} deviceId empty for the default
 */
export async function useSpeaker(deviceId) {
  const ctx = /** @type {(AudioContext & { setSinkId?: (id: string) => Promise<void> }) | null} */ (audio());
  await ctx?.setSinkId?.(deviceId);
}

/** @param {Loop} loop */
function turn(loop) {
  const ctx = audio();
  // A context that no gesture has unlocked yet would pile the notes up and play them all at once later.
  if (ctx?.state === "running") {
    loopVolume ??= new GainNode(ctx);
    loopVolume.connect(ctx.destination);
    schedule(ctx, LOOPS[loop].notes, loopVolume);
  }
  timer = window.setTimeout(() => turn(loop), LOOPS[loop].every * 1000);
}

/**
 * @param {AudioContext} ctx
 * @param {Note[]} notes
 * @param {AudioNode} target
 */
function schedule(ctx, notes, target) {
  for (const note of notes) {
    const start = ctx.currentTime + 0.02 + note.at;
    const end = start + note.for;
    const gain = new GainNode(ctx, { gain: 0 });
    gain.gain.setValueAtTime(0, start);
    gain.gain.linearRampToValueAtTime(note.volume, start + 0.02);
    gain.gain.setValueAtTime(note.volume, Math.max(start + 0.02, end - 0.08));
    gain.gain.linearRampToValueAtTime(0, end);
    const tone = new OscillatorNode(ctx, { frequency: note.hz, type: "sine" });
    tone.connect(gain).connect(target);
    tone.start(start);
    tone.stop(end);
    tone.onended = () => gain.disconnect();
  }
}

/** @param {number} at */
function chime(at) {
  return [587, 740, 880].map((hz, index) => ({ at: at + index * 0.12, hz, for: 0.42, volume: 0.12 }));
}

function audio() {
  if (!context && typeof AudioContext === "function") context = new AudioContext();
  return context;
}
