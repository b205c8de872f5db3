// Phones in a Room with browsers: each hears all the others, and not itself. Each has a pitch of its own. A Room forwards four voices at a
// time, so that one of the five is always silent: first Bob, then Alice.

import { eventually } from '../browser/lib/wait.mjs';
import { story } from '../browser/lib/story.mjs';
import { startOffice, trunk } from './office.mjs';
import { skip } from './rig.mjs';

/** Pitches whose sums and differences are none of them. */
const PHONES = [['10', 440], ['11', 610], ['20', 830]];
const PEOPLE = [['Alice', 1130], ['Bob', 1510]];
const PITCHES = [...PHONES, ...PEOPLE].map(([, pitch]) => pitch);

/** How loud each is: all together are less than what may be. */
const LEVEL = 0.1;

/** What is heard is louder than this, and what is not at least so much softer than all that is; in dB. */
const HEARD = -40;
const APART = 20;

story('three phones and two browsers in a Room: each hears all but itself', { server: false, skip }, async (world) => {
  const rig = await startOffice(world, trunk());
  const phones = [];
  for (const [host, pitch] of PHONES) {
    const line = `<sip:+49891000${host}@10.44.0.${host}>;regint=0;answermode=auto;audio_codecs=PCMA`;
    phones.push({ name: host, pitch, phone: await rig.phone(`phone-${host}`, `10.44.0.${host}`, line, { pitch, level: LEVEL }) });
  }
  const browser = await world.browser('chromium');
  const people = [];
  for (const [name, pitch] of PEOPLE) {
    const person = await world.visitor(browser, { at: '/nothing-here' });
    person.name = name;
    await person.page.evaluate(joins, { token: await rig.token(name.toLowerCase(), name), pitch, level: LEVEL });
    people.push({ name, pitch, person });
  }
  const [alice] = people;
  await alice.person.page.evaluate(async (numbers) => {
    for (const number of numbers) await globalThis.room.invite(`tel:${number}`);
  }, PHONES.map(([host]) => `+49891000${host}`));

  for (const silent of people.toReversed()) {
    for (const one of people) await one.person.page.evaluate((gain) => (globalThis.voice.gain.value = gain), one === silent ? 0 : LEVEL);
    for (const { name, pitch, person } of people) await hearsAllBut(name, [pitch, silent.pitch], () => person.page.evaluate(loudnesses, PITCHES));
    for (const { name, pitch, phone } of phones) await hearsAllBut(name, [pitch, silent.pitch], () => phone.heard(PITCHES));
  }

  // Who leaves is heard no more, and the others are.
  const [first, second] = phones;
  await first.phone.does('hangup');
  await rig.figureBecomes('offhook_gateway_calls', 2);
  await hearsAllBut(second.name, [second.pitch, first.pitch, people[0].pitch], () => second.phone.heard(PITCHES));
});

/** Waits until somebody hears all pitches but these. */
async function hearsAllBut(name, silent, loudness) {
  await eventually(`${name} hears all but ${silent}`, async () => {
    const all = await loudness();
    const of = (isSilent) => all.filter((_, index) => silent.includes(PITCHES[index]) === isSilent);
    const others = Math.min(...of(false));
    return (others > HEARD && Math.max(...of(true)) < others - APART) || Promise.reject(new Error(JSON.stringify(all)));
  });
}

/** Runs in the page: a client of its own, whose microphone is a tone, and an ear at all that comes in. */
async function joins({ token, pitch, level }) {
  const { OffhookClient } = await import('/client/index.js');
  const context = new AudioContext();
  const microphone = context.createMediaStreamDestination();
  const tone = new OscillatorNode(context, { frequency: pitch });
  globalThis.voice = new GainNode(context, { gain: level });
  tone.connect(globalThis.voice).connect(microphone);
  tone.start();

  globalThis.ear = new AnalyserNode(context, { fftSize: 32_768, smoothingTimeConstant: 0, minDecibels: -120 });
  const heard = new Set();
  const listen = (streams) => {
    for (const stream of streams) {
      if (heard.has(stream)) continue;
      heard.add(stream);
      const element = new Audio(); // Chromium brings sound of a connection to nobody else without one.
      element.srcObject = stream;
      element.muted = true;
      void element.play();
      context.createMediaStreamSource(stream).connect(globalThis.ear);
    }
  };

  const client = new OffhookClient({ token: async () => token, device: { name: 'test' } });
  await client.connect();
  const room = await client.joinRoom('conference', { audio: microphone.stream.getAudioTracks()[0] });
  room.on('audio', listen);
  listen(room.audio);
  globalThis.room = room;
}

/** Runs in the page: how loud each of these pitches is, in dB. */
function loudnesses(pitches) {
  const { ear } = globalThis;
  const bins = new Float32Array(ear.frequencyBinCount);
  ear.getFloatFrequencyData(bins);
  const width = ear.context.sampleRate / ear.fftSize;
  return pitches.map((pitch) => {
    const at = Math.round(pitch / width);
    return Math.max(-120, Math.round(Math.max(...bins.slice(at - 3, at + 4))));
  });
}
