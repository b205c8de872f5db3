// The relay under clients that are not ours: coturn's, and aiortc. They get their credentials as every Device does: in `welcome`.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { firstWelcome } from '../../browser/lib/device.mjs';
import { freePort, OFFHOOK, Offhook } from '../../browser/lib/offhook.mjs';
import { makeAuthority } from '../pki.mjs';

const run = promisify(execFile);

/** How long one client may take. */
const CLIENT_MS_MAX = 120_000;

const CLIENTS = 4;
const MESSAGES = 100;

let folder;
let server;
let authority;
let port;
let relayPort;
let iceServers;

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'offhook-peers-'));
  [port, relayPort] = [await freePort(), await freePort()];
  authority = await makeAuthority(path.join(folder, 'authority'));
  const { certificate, key } = await authority.sign('server', ['IP:127.0.0.1']);
  const config = path.join(folder, 'offhook.toml');
  await writeFile(config, `
listen = ["127.0.0.1:${port}"]
public_url = "https://127.0.0.1:${port}"
data_dir = "${folder}/data"

[tls]
certificate_file = "${certificate}"
key_file = "${key}"

[relay]
listen_udp = ["127.0.0.1:${relayPort}"]
listen_tcp = ["127.0.0.1:${relayPort}"]
relay_ips = ["127.0.0.1"]
`);
  const env = { ...process.env, NODE_EXTRA_CA_CERTS: authority.certificate };
  const isReady = () => run(process.execPath, ['-e', 'fetch(process.argv[1]).then(({ ok }) => process.exit(ok ? 0 : 1))', `https://127.0.0.1:${port}/readyz`], { env });
  server = new Offhook([OFFHOOK, 'serve', '--config', config], {}, isReady);
  await server.start();

  const { stdout: token } = await run(OFFHOOK, ['token', '--config', config, '--user', 'alice', '--name', 'Alice']);
  const welcome = await firstWelcome(`wss://127.0.0.1:${port}/v1/calls`, token.trim(), authority.certificate);
  iceServers = welcome.ice_servers;
});

after(async () => {
  await server?.close();
  if (folder) await rm(folder, { recursive: true, force: true });
});

for (const [transport, flags, portOf] of [
  ['UDP', [], () => relayPort],
  ['TCP', ['-t'], () => relayPort],
  ['TCP, on the port shared with HTTP', ['-t'], () => port],
  ['TLS, on the port shared with HTTPS', ['-t', '-S', '-E', () => authority.certificate], () => port],
]) {
  test(`turnutils_uclient over ${transport} loses nothing`, async () => {
    const { username, credential } = iceServers.find((one) => one.credential);
    const { stdout } = await run('turnutils_uclient', [
      '-y', '-c', '-m', CLIENTS, '-n', MESSAGES, '-l', 200, '-z', 10, '-u', username, '-w', credential,
      ...flags.map((flag) => (typeof flag === 'function' ? flag() : flag)),
      '-p', portOf(), '127.0.0.1',
    ].map(String), { timeout: CLIENT_MS_MAX });

    const [, sent, received] = stdout.match(/tot_send_msgs=(\d+), tot_recv_msgs=(\d+)(?![^]*tot_send_msgs)/) ?? assert.fail(stdout);
    console.log(`${transport}: ${sent} sent, ${received} received`);
    assert.match(stdout, /Total lost packets 0 /);
    assert.ok(Number(sent) >= CLIENTS * MESSAGES && sent === received, stdout);
  });
}

test('turnutils_uclient with a wrong password gets nothing', async () => {
  const { username } = iceServers.find((one) => one.credential);
  const refused = run('turnutils_uclient', ['-y', '-c', '-n', '1', '-u', username, '-w', 'wrong', '-p', String(relayPort), '127.0.0.1'], { timeout: CLIENT_MS_MAX });
  await assert.rejects(refused);
});

for (const transport of ['udp', 'tcp', 'tls']) {
  test(`aiortc calls aiortc through the relay over ${transport.toUpperCase()}`, async () => {
    const child = spawn(process.env.AIORTC_PYTHON ?? 'python3', [fileURLToPath(new URL('echo.py', import.meta.url))], {
      env: { ...process.env, SSL_CERT_FILE: authority.certificate },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    child.stdin.end(JSON.stringify(onlyOver(transport)));
    const [said, [status]] = await Promise.all([text(child.stdout), once(child, 'exit')]);
    assert.equal(status, 0);
    console.log(`${transport}: ${said.trim()}`);
    assert.deepEqual(JSON.parse(said), { echoed_in_order: true, frames: 30, candidate_types: ['relay'] });
  });
}

/** The servers of `welcome`, with nothing but the TURN URLs of one transport. */
function onlyOver(transport) {
  const pattern = { udp: /^turn:.*transport=udp$/, tcp: /^turn:.*transport=tcp$/, tls: /^turns:/ }[transport];
  const servers = iceServers.map((one) => ({ ...one, urls: one.urls.filter((url) => pattern.test(url)) })).filter(({ urls }) => urls.length > 0);
  assert.notEqual(servers.length, 0, `no TURN over ${transport} in ${JSON.stringify(iceServers)}`);
  return servers;
}
