// Somebody looks for telephones with sipvicious, the tool that most of those use who do: it finds a phone that answers everybody, in the
// same run, and of ours nothing, while calls go on.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { story } from '../browser/lib/story.mjs';
import { eventually } from '../browser/lib/wait.mjs';
import { DESK, NUMBER, PROVIDER, SERVER, skip, startRig } from './rig.mjs';

const run = promisify(execFile);

/** Where the stranger is, and the phone that anybody finds. */
const STRANGER = '10.44.0.30';
const CONTROL = '10.44.0.11';

const TOOLS = process.env.SIPVICIOUS;

const TELEPHONY = `
[dialling]
country = "49"

[numbers."${NUMBER}"]
to = { user = "alice" }

[users.alice]
number = "${NUMBER}"

[phones.100]
user = "alice"
password = "no-list-has-this-3f9"

[trunks.provider]
peering.registration = { user = "office", domain = "provider.test", expires_seconds = 120 }
targets = ["sip:${PROVIDER}:5060;transport=udp"]
password = "secret"
codecs = ["pcma"]
destinations = { allow = ["+49"] }
`;

const options = { server: false, skip: skip || (TOOLS ? false : 'there is no sipvicious: SIPVICIOUS names the folder of its tools') };

story('a scanner finds the phone that answers everybody, and nothing of ours while a call goes on', options, async (world) => {
  const rig = await startRig(world);
  await rig.startProvider();
  world.server = await rig.startServer(TELEPHONY, 'domains = ["sip.office.test"]\nsha256 = false # baresip 1.0 gives up where it reads of it');
  await rig.figureBecomes('offhook_gateway_trunks_up', 1);
  await rig.phone('desk', DESK, `<sip:100@sip.office.test>;auth_pass=no-list-has-this-3f9;outbound="sip:${SERVER}:5060";regint=60;answermode=auto;audio_codecs=PCMA`);
  await rig.figureBecomes('offhook_gateway_phones', 1);
  await rig.phone('control', CONTROL, `<sip:control@${CONTROL}>;regint=0;audio_codecs=PCMA`);
  const caller = rig.calls('calls', NUMBER);
  await rig.figureBecomes('offhook_gateway_calls', 1);

  const heard = () => rig.figure('offhook_gateway_silent_total');
  const before = await heard();
  for (const method of ['OPTIONS', 'INVITE', 'REGISTER']) {
    // The control may still be starting.
    const found = await eventually('the control phone is found', async () => {
      const { stdout, stderr } = await scan('svmap', '-m', method, '-p', '5060', SERVER, CONTROL);
      const said = stdout + stderr;
      return said.includes(CONTROL) ? said : Promise.reject(new Error(said));
    });
    assert.ok(!found.includes(SERVER), found);
  }
  // Guessing who there is, and what their password is, finds nothing either, though both are there.
  const { stdout, stderr } = await scan('svwar', '-m', 'REGISTER', '-e', '95-105', '--force', '--maximumtime=5', SERVER);
  assert.ok(!/\b100\b.*(reqauth|noauth|weird)/.test(stdout + stderr), stdout + stderr);
  assert.ok(await heard() > before, 'it was heard and not answered');
  assert.equal(await rig.figure('offhook_gateway_calls'), 1);
  assert.equal(await rig.figure('offhook_gateway_trunks_up'), 1);
  await caller.hangsUp();
  await caller.succeeds();
  await rig.figureBecomes('offhook_gateway_calls', 0);
});

/** Runs a tool of sipvicious from the stranger's address. How it ends says nothing: what it prints does. */
function scan(tool, ...args) {
  return run(`${TOOLS}/sipvicious_${tool}`, ['-b', STRANGER, ...args], { timeout: 60_000 })
    .catch(({ stdout, stderr }) => ({ stdout, stderr }));
}
