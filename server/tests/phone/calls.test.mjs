// Phone calls through a provider that is not ours: kamailio, with telephones of the world behind it (sipp) and browsers on our side. All of
// them send back what they hear, so that who hears something was heard, too.

import assert from 'node:assert/strict';

import { hears } from '../browser/lib/meeting.mjs';
import { story } from '../browser/lib/story.mjs';
import { eventually } from '../browser/lib/wait.mjs';
import { dials, office, told, trunk } from './office.mjs';
import { NUMBER, OUTSIDE, WORLD, skip, startRig } from './rig.mjs';

const options = { server: false, skip };

story('the Trunk registers, is looked after, and registers again after a restart', options, async (world) => {
  const rig = await startRig(world);
  await rig.startProvider();
  world.server = await rig.startServer(trunk());
  await rig.figureBecomes('offhook_gateway_trunks_up', 1);
  assert.equal(await rig.figure('offhook_gateway_registrations_total'), 1);
  const findings = await rig.doctor();
  assert.ok(findings.every(({ outcome }) => outcome !== 'bad'), JSON.stringify(findings));
  assert.match(findings.find(({ check }) => check === 'trunks').what, /^1 of 1 answer/);

  await world.server.stop();
  const missed = rig.calls('calls', NUMBER);
  await missed.says(/480|Unexpected/); // It took its registration back.
  await missed.close();
  await world.server.start();
  await rig.figureBecomes('offhook_gateway_trunks_up', 1);

  await rig.apply(trunk().replace('"secret"', '"wrong"'));
  await rig.figureBecomes('offhook_gateway_trunks_up', 0);
  assert.match((await rig.doctor()).find(({ check }) => check === 'trunks').what, /^0 of 1 can be called/);
  await rig.apply(trunk());
  await rig.figureBecomes('offhook_gateway_trunks_up', 1);
});

story('a telephone calls the Number, a browser rings and answers, and hangs up', options, async (world) => {
  const { rig, alice } = await office(world, trunk());
  const phone = rig.calls('calls-until-bye', NUMBER);
  await alice.readsThat('incoming', /Caller of the world.*\+498912345678/s);
  await alice.press('accept-audio');
  await alice.isIn('connected');
  await hears(alice);
  await alice.press('hangup');
  await phone.succeeds();
  await rig.figureBecomes('offhook_gateway_calls', 0);
});

story('the caller gives up, is declined, and hangs up', options, async (world) => {
  const { rig, alice } = await office(world, trunk());
  const declined = rig.calls('calls', NUMBER);
  await alice.sees('incoming');
  await alice.press('decline');
  await declined.says(/486/);
  await declined.close();

  const phone = rig.calls('calls', NUMBER);
  await alice.sees('incoming');
  await alice.press('accept-audio');
  await alice.isIn('connected');
  await phone.hangsUp();
  await phone.succeeds();
  await alice.isIn('ended', 'idle');
  await rig.figureBecomes('offhook_gateway_calls', 0);
});

story('a number is dialled, heard before it answers, given keys, and hangs up', options, async (world) => {
  const { rig, alice } = await office(world, trunk());
  const phone = await rig.answers('early');
  await dials(alice, OUTSIDE);
  await eventually('what comes before the answer is heard', async () => (await told(alice, 'call.progress')).some(({ progress }) => progress === 'early_media'));
  await hears(alice);
  await alice.isIn('connected');
  await hears(alice);
  await alice.page.keyboard.press('k');
  await alice.sees('keys-pressed');
  for (const key of ['1', '#']) await alice.page.keyboard.press(key);
  // The telephone sends them back, as all it hears.
  await eventually('the keys have been there and back', async () => (await told(alice, 'call.dtmf')).map(({ keys }) => keys).join('') === '1#');
  await phone.hangsUp();
  await phone.succeeds();
  await alice.isIn('ended', 'idle');
  await rig.figureBecomes('offhook_gateway_calls', 0);
});

story('a number rings, answers, and the browser hangs up; one is busy; one is nobody’s to call', options, async (world) => {
  const { rig, alice } = await office(world, trunk());
  const phone = await rig.answers('answers');
  await dials(alice, '089 12345678');
  await alice.isIn('connected');
  await hears(alice);
  await alice.press('hangup');
  await phone.succeeds();
  await alice.press('outcome-close');

  for (const [number, words] of [['+49555123456', /busy/i], ['+49556123456', /refused|provider/i], ['+15550100', /not allowed/i]]) {
    await dials(alice, number);
    await alice.readsThat('outcome', words);
    await alice.press('outcome-close');
  }
  await rig.figureBecomes('offhook_gateway_calls', 0);
});

story('over TLS to the provider, and SRTP to the telephone', options, async (world) => {
  const { rig, alice } = await office(world, trunk('srtp = "required"\n', 'tls'));
  await rig.phone('world', WORLD, `<sip:${OUTSIDE}@${WORLD}>;regint=0;answermode=auto;mediaenc=srtp-mand;audio_codecs=PCMA`);
  await dials(alice, OUTSIDE);
  await alice.isIn('connected');
  await hears(alice);
  await alice.press('hangup');
  await rig.figureBecomes('offhook_gateway_calls', 0);
});

story('a server that is asked to end hangs up', options, async (world) => {
  const { rig, alice } = await office(world, trunk());
  const phone = rig.calls('calls-until-bye', NUMBER);
  await alice.sees('incoming');
  await alice.press('accept-audio');
  await alice.isIn('connected');
  await world.server.stop();
  await phone.succeeds();
});
