// The relay under coturn's own tools. What they print is what counts: most of them exit with 0 whatever has happened.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';

import { HAS_IPV6, startRelay } from './relay.mjs';

const run = promisify(execFile);

/** How long one tool may take. */
const TOOL_MS_MAX = 120_000;

/** How long one may take whose end nobody waits for. */
const BAD_MS_MAX = 10_000;

/** They mostly wait. */
const TOOLS_AT_ONCE = 6;

const CLIENTS = 4;
const MESSAGES = 100;

/** Two ends of which each is a client of the relay, by Channels; without -c each has a second port, kept by RESERVATION-TOKEN. */
const PAIRS = ['-y', '-c'];
const PAIRS_WITH_RTCP = ['-y'];
const SEND = ['-s'];
const TCP = ['-t'];
const TLS = () => ['-t', '-S', '-E', relay.authority.certificate];
const DTLS = () => ['-S', '-E', relay.authority.certificate];
/** Somebody who knows nothing of the relay. */
const PEER = () => ['-c', '-e', '127.0.0.1', '-r', relay.echoPort];
const BOTH_FAMILIES = ['-Z', '-y'];
const IPV6 = ['-x'];
const IPV4 = ['-X'];
/** Not over TLS or DTLS, where the tool uses sessions it has freed. */
const MOBILITY = ['-M'];
const PADDED = ['-D'];
/** Permissions and Channels besides those it needs, some of the wrong family. */
const MORE_REQUESTS = ['-G'];
/** Peers over TCP (RFC 6062); the flag brings -t, -y and -c. */
const TCP_PEERS = ['-T'];
/** Some requests that are wrong; not for -T, where it binds connections there are not and waits for them. */
const WRONG_REQUESTS = ['-N'];
/** Datagrams nobody may take apart (DONT-FRAGMENT). */
const WHOLE = ['-g'];
/** No requests for Permissions: Channels bring theirs. */
const NO_PERMISSIONS = ['-I'];
/** Attributes of drafts, which may be passed over. */
const DRAFTS = ['-a', '100000', '-o', 'https://calls.example'];
/** They vanish once data flows, without a word. */
const VANISHING = ['-B'];
/** They leave in the middle of the first requests. */
const HASTY = ['-O'];
/** Every tenth message has some bytes changed. */
const MANGLED = ['-R'];

const udp = () => relay.relayPort;
const dtls = () => relay.dtlsPort;
const shared = () => relay.port;

let relay;

before(async () => {
  relay = await startRelay('tcp_allocations = true');
});

after(async () => {
  await relay?.close();
});

describe('turnutils_uclient loses nothing', { concurrency: TOOLS_AT_ONCE }, () => {
  for (const [title, port, flags, skip] of [
    // These wait half a minute for connections, so they come first.
    ['TCP, to peers over TCP', udp, [TCP_PEERS]],
    ['TCP, to peers over TCP, moving', udp, [TCP_PEERS, MOBILITY]],
    ['TLS, to peers over TCP', shared, [TCP_PEERS, TLS]],
    ['UDP, Channels', udp, [PAIRS]],
    ['UDP, Send indications', udp, [PAIRS, SEND]],
    ['UDP, with RTCP', udp, [PAIRS_WITH_RTCP]],
    ['UDP, a peer by Channel', udp, [PEER]],
    ['UDP, a peer by Send indications', udp, [PEER, SEND]],
    ['UDP, both families', udp, [BOTH_FAMILIES], !HAS_IPV6],
    ['UDP, both families by Send indications', udp, [BOTH_FAMILIES, SEND], !HAS_IPV6],
    ['UDP, IPv6', udp, [PAIRS, IPV6], !HAS_IPV6],
    ['UDP, IPv4 by name', udp, [PAIRS, IPV4]],
    ['UDP, padded', udp, [PAIRS, PADDED]],
    ['UDP, more requests', udp, [PAIRS, MORE_REQUESTS]],
    ['UDP, more requests by Send indications', udp, [PAIRS, MORE_REQUESTS, SEND]],
    ['UDP, wrong requests', udp, [PAIRS, WRONG_REQUESTS]],
    ['UDP, kept whole', udp, [PAIRS, WHOLE, SEND]],
    ['UDP, moving', udp, [PAIRS, MOBILITY]],
    ['UDP, moving, Send indications', udp, [PAIRS, MOBILITY, SEND]],
    ['UDP, moving, both families', udp, [BOTH_FAMILIES, MOBILITY], !HAS_IPV6],
    ['UDP, no Permissions asked for', udp, [PAIRS, NO_PERMISSIONS]],
    ['UDP, attributes of drafts', udp, [PAIRS, DRAFTS]],
    ['TCP, Channels', udp, [PAIRS, TCP]],
    ['TCP, Send indications', udp, [PAIRS, TCP, SEND]],
    ['TCP, with RTCP', udp, [PAIRS_WITH_RTCP, TCP]],
    ['TCP, a peer by Channel', udp, [PEER, TCP]],
    ['TCP, both families', udp, [BOTH_FAMILIES, TCP], !HAS_IPV6],
    ['TCP, moving', udp, [PAIRS, TCP, MOBILITY]],
    ['TCP, moving, Send indications', udp, [PAIRS, TCP, MOBILITY, SEND]],
    ['TCP, wrong requests', udp, [PAIRS, TCP, WRONG_REQUESTS]],
    ['TCP, on the port shared with HTTP', shared, [PAIRS, TCP]],
    ['TLS, on the port shared with HTTPS', shared, [PAIRS, TLS]],
    ['TLS, Send indications', shared, [PAIRS, TLS, SEND]],
    ['TLS, a peer by Channel', shared, [PEER, TLS]],
    ['TLS, more requests', shared, [PAIRS, TLS, MORE_REQUESTS]],
    ['DTLS, Channels', dtls, [PAIRS, DTLS]],
    ['DTLS, Send indications', dtls, [PAIRS, DTLS, SEND]],
    ['DTLS, more requests', dtls, [PAIRS, DTLS, MORE_REQUESTS]],
    ['DTLS, kept whole', dtls, [PAIRS, DTLS, WHOLE, SEND]],
    ['DTLS, with RTCP', dtls, [PAIRS_WITH_RTCP, DTLS]],
    ['DTLS, a peer by Channel', dtls, [PEER, DTLS]],
  ]) {
    test(title, { skip: skip && 'no ::1 on this machine' }, async () => {
      const said = await uclient(port(), flags.flatMap((some) => (typeof some === 'function' ? some() : some)));
      console.log(`${title}: ${messagesOf(said)} messages`);
      assert.doesNotMatch(said, /ERROR: read_mobility_ticket/); // It goes on without a ticket it has no room for.
    });
  }
});

test('who vanishes, leaves in haste or sends what is mangled harms nobody else', async () => {
  // Whether these get anywhere is no question here: they drop what was on its way to them, and some wait for ever.
  const bad = Promise.allSettled([
    [udp, PAIRS, VANISHING], [udp, PAIRS, TCP, VANISHING], [udp, PEER(), HASTY], [udp, PEER(), TCP, HASTY],
    [udp, PAIRS, MANGLED], [udp, PAIRS, TCP, MANGLED], [dtls, PAIRS, DTLS(), MANGLED],
  ].map(([port, ...flags]) => run('turnutils_uclient', argumentsOf(port(), flags.flat(), { clients: 20 }), { timeout: BAD_MS_MAX })));
  const [overUdp, overTcp] = await Promise.all([uclient(relay.relayPort, PAIRS), uclient(relay.relayPort, [...PAIRS, ...TCP])]);
  messagesOf(overUdp);
  messagesOf(overTcp);
  await bad;
});

test('turnutils_uclient with a wrong password gets nothing', async () => {
  await assert.rejects(uclient(relay.relayPort, PAIRS, 'wrong'), ({ stdout }) => /Cannot complete Allocation/.test(stdout));
});

describe('turnutils_natdiscovery', () => {
  for (const [title, flags, expected] of [
    ['mapping', ['-m'], [/NAT with Endpoint Independent Mapping!/]],
    ['filtering', ['-f'], [/NAT with Endpoint Independent Filtering!/]],
    ['mapping and filtering, padded', ['-m', '-f', '-P'], [/Endpoint Independent Mapping!/, /Endpoint Independent Filtering!/]],
    ['hairpinning', ['-H'], [/successful hairpinning/]],
    ['collision', ['-c', '-A', '127.0.0.3'], [/RFC 5780 response 2[^]*reflexive addr: 127\.0\.0\.3:/]],
  ]) {
    test(title, async () => {
      const { stdout } = await run('turnutils_natdiscovery', [...flags, '-p', String(relay.relayPort), '127.0.0.1'], { timeout: TOOL_MS_MAX });
      for (const one of expected) assert.match(stdout, one);
    });
  }
});

test('turnutils_stunclient hears from all the addresses it asks for', async () => {
  const { stdout } = await run('turnutils_stunclient', ['-f', '-p', String(relay.relayPort), '127.0.0.1'], { timeout: TOOL_MS_MAX });
  const answers = stdout.split('RFC 5780 response ').slice(1);
  assert.equal(answers.length, 3, stdout);
  const origins = answers.map((answer) => answer.match(/Response origin: : (127\.0\.0\.\d):/)?.[1]);
  assert.deepEqual(origins, ['127.0.0.1', '127.0.0.2', '127.0.0.2'], stdout);
  for (const answer of answers) assert.match(answer, /reflexive addr: 127\.0\.0\.1:\d+/);
});

/** What the tool prints, on either stream. */
async function uclient(port, flags, password = relay.credentials.credential) {
  const { stdout, stderr } = await run('turnutils_uclient', argumentsOf(port, flags, { password }), { timeout: TOOL_MS_MAX });
  return stdout + stderr;
}

function argumentsOf(port, flags, { clients = CLIENTS, password = relay.credentials.credential }) {
  return [
    ...flags, '-m', clients, '-n', MESSAGES, '-l', 200, '-z', 10, '-u', relay.credentials.username, '-w', password, '-p', port, '127.0.0.1',
  ].map(String);
}

/** How many messages the tool has sent, none of which is lost. */
function messagesOf(said) {
  const [, sent, received] = said.match(/tot_send_msgs=(\d+), tot_recv_msgs=(\d+)(?![^]*tot_send_msgs)/) ?? assert.fail(said);
  assert.match(said, /Total lost packets 0 /);
  assert.ok(Number(sent) >= CLIENTS * MESSAGES && sent === received, said);
  return sent;
}
