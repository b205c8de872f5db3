// Desk phones (baresip) that register with the server: they ring beside browsers, call out, and call and are called inside. And Queues,
// whose members are at their browsers.

import assert from 'node:assert/strict';

import { hears } from '../browser/lib/meeting.mjs';
import { story } from '../browser/lib/story.mjs';
import { eventually } from '../browser/lib/wait.mjs';
import { comes, dials, office, startOffice, trunk } from './office.mjs';
import { DESK, NUMBER, OUTSIDE, PBX, SERVER, skip } from './rig.mjs';

const options = { server: false, skip };

/** baresip 1.0 gives up where it reads of SHA-256. */
const DOMAIN = 'domains = ["sip.office.test"]\nsha256 = false';

/** What is loud enough to be a tone, in dB. */
const HEARD = -30;

const DESKS = `
[phones.alice-desk]
user = "alice"
password = "hush"

[phones.bob-desk]
user = "bob"
password = "hush too"

[users.bob]
limits = { calls_per_second = 10 }

[numbers.20]
to = { user = "alice" }

[numbers.21]
to = { user = "bob" }
`;

/** The line of a desk phone in baresip's `accounts`. */
const account = (name, password) =>
  `<sip:${name}@sip.office.test>;auth_pass=${password};outbound="sip:${SERVER}:5060";regint=60;answermode=auto;audio_codecs=PCMA`;

story('a desk phone registers, and answers what rings the browser, too', options, async (world) => {
  const { rig, alice } = await office(world, trunk(DESKS), DOMAIN);
  const phone = await rig.phone('desk', DESK, account('alice-desk', 'hush'));
  await rig.figureBecomes('offhook_gateway_phones', 1);
  const caller = rig.calls('calls', NUMBER);
  await caller.hangsUp();
  await caller.succeeds();
  await alice.seesNo('incoming');
  await rig.figureBecomes('offhook_gateway_calls', 0);
  await phone.close(); // It takes its registration back.
  await rig.figureBecomes('offhook_gateway_phones', 0);
});

story('a browser calls a desk phone by its extension; each holds the other', options, async (world) => {
  const { rig, alice } = await office(world, trunk(DESKS), DOMAIN);
  const phone = await rig.phone('desk', DESK, account('bob-desk', '"hush too"'));
  await rig.figureBecomes('offhook_gateway_phones', 1);
  await dials(alice, '21');
  await alice.isIn('connected');
  await hears(alice);

  await alice.press('hold');
  await alice.isIn('held');
  await phone.says(/sendonly|inactive|re-INVITE/i);
  await alice.press('hold');
  await alice.isIn('connected');
  await hears(alice);

  await phone.does('hold');
  await alice.isIn('held-by-peer');
  await phone.does('resume');
  await alice.isIn('connected');
  await hears(alice);
  await alice.press('hangup');
  await rig.figureBecomes('offhook_gateway_calls', 0);
});

story('a desk phone calls out, and calls a browser by its extension', options, async (world) => {
  const { rig, alice } = await office(world, trunk(DESKS), DOMAIN);
  const phone = await rig.phone('desk', DESK, account('bob-desk', '"hush too"'), { pitch: 400 });
  await rig.figureBecomes('offhook_gateway_phones', 1);
  const outside = await rig.answers('answers');
  await phone.does('dial', `sip:${OUTSIDE}@sip.office.test`);
  await phone.hears([400], HEARD); // It hears itself: the telephone outside sends back what it hears.
  await phone.does('hangup');
  await outside.succeeds();
  await rig.figureBecomes('offhook_gateway_calls', 0);

  await phone.does('dial', 'sip:20@sip.office.test');
  await alice.sees('incoming');
  await alice.press('accept-audio');
  await alice.isIn('connected');
  await hears(alice);
  await phone.does('hangup');
  await alice.isIn('ended', 'idle');
  await rig.figureBecomes('offhook_gateway_calls', 0);
});

story('a desk phone sends its caller on to a browser', options, async (world) => {
  const { rig, alice } = await office(world, trunk(DESKS).replace('to = { user = "alice" }', 'to = { user = "bob" }'), DOMAIN);
  const phone = await rig.phone('desk', DESK, account('bob-desk', '"hush too"'));
  await rig.figureBecomes('offhook_gateway_phones', 1);
  const caller = rig.calls('calls', NUMBER);
  await caller.talks();
  await phone.does('transfer', 'sip:20@sip.office.test');
  await alice.readsThat('incoming', /\+498912345678/);
  await alice.press('accept-audio');
  await alice.isIn('connected');
  await hears(alice);
  // The desk phone has left, and the call goes on.
  await rig.figureBecomes('offhook_gateway_legs', 1);
  await caller.hangsUp();
  await caller.succeeds();
  await alice.isIn('ended', 'idle');
  await rig.figureBecomes('offhook_gateway_calls', 0);
});

/** A PBX that is known by its address, whose telephones may have calls transferred. */
const PBX_ROWS = `
[numbers."+49301234568"]
to = { forward = "${OUTSIDE}" }

[trunks.pbx]
targets = ["sip:${PBX}:5060;transport=udp"]
srtp = "off"
codecs = ["pcma"]
transfers = true
`;

story('a telephone of a PBX connects a browser with whom it has asked before', options, async (world) => {
  // What is there for calls alone answers no OPTIONS.
  const { rig, alice } = await office(world, trunk(PBX_ROWS), 'health_seconds = 0', 2);
  const first = rig.ofPbx('transfers', 5060, NUMBER);
  await alice.sees('incoming');
  await alice.press('accept-audio');
  await alice.isIn('connected');
  await hears(alice);
  const outside = await rig.answers('answers');
  const second = rig.ofPbx('consults', 5070, '+49301234568');
  const [call, own, theirs] = (await second.talks()).split(' ');
  await first.goesOn(`Refer-To: <sip:+49301234568@${SERVER}?Replaces=${call.replace('@', '%40')}%3Bto-tag%3D${theirs}%3Bfrom-tag%3D${own}>`);
  // Both telephones of the PBX have left, and the two others hear one another.
  for (const phone of [first, second]) await phone.succeeds();
  await rig.figureBecomes('offhook_gateway_legs', 1);
  await hears(alice);
  await alice.press('hangup');
  await outside.succeeds();
  await rig.figureBecomes('offhook_gateway_calls', 0);
});

const queue = (strategy) => `
[queues.sales]
members = ["alice", "bob"]
strategy = "${strategy}"
rest_seconds = 0
nobody_answers = { voicemail = { queue = "sales" } }
`;

/** The same Account, whose Number leads to a Queue. */
const withQueue = (strategy) => trunk(queue(strategy)).replace('to = { user = "alice" }', 'to = { queue = "sales" }');

story('a Queue rings its members in order, or everybody at once', options, async (world) => {
  const rig = await startOffice(world, withQueue('in_order'));
  const [alice, bob] = [await comes(world, rig, 'Alice'), await comes(world, rig, 'Bob')];
  const first = rig.calls('calls', NUMBER);
  await alice.sees('incoming');
  await bob.seesNo('incoming');
  await alice.press('decline');
  await bob.sees('incoming');
  await bob.press('accept-audio');
  await bob.isIn('connected');
  await hears(bob);
  await first.hangsUp();
  await first.succeeds();
  await rig.figureBecomes('offhook_gateway_calls', 0);

  await rig.apply(withQueue('everybody'));
  const second = rig.calls('calls', NUMBER);
  for (const member of [alice, bob]) await member.sees('incoming');
  await alice.press('accept-audio');
  await alice.isIn('connected');
  await bob.seesNo('incoming');
  await hears(alice);
  await second.hangsUp();
  await second.succeeds();
  await rig.figureBecomes('offhook_gateway_calls', 0);
});

story('a Queue rings the member who has waited longest for a call', options, async (world) => {
  const rig = await startOffice(world, withQueue('evenly'));
  const [alice, bob] = [await comes(world, rig, 'Alice'), await comes(world, rig, 'Bob')];
  const taken = [];
  for (let call = 0; call < 4; call += 1) {
    const caller = rig.calls('calls', NUMBER);
    const [rung, idle] = await eventually('one of them is rung', async () => {
      const [toAlice, toBob] = [await alice.shows('incoming'), await bob.shows('incoming')];
      return (toAlice && [alice, bob]) || (toBob && [bob, alice]);
    });
    assert.ok(!(await idle.shows('incoming')), 'one of them alone');
    await rung.press('accept-audio');
    await rung.isIn('connected');
    taken.push(rung.name);
    await caller.hangsUp();
    await caller.succeeds();
    await rung.isIn('ended', 'idle');
    await rig.figureBecomes('offhook_gateway_calls', 0);
  }
  assert.deepEqual(taken, [taken[0], taken[1], taken[0], taken[1]]);
  assert.notEqual(taken[0], taken[1]);
});
