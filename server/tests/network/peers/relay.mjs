// A configured server on loopback whose relay offers all it has, and credentials as every Device gets them: in `welcome`.

import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { networkInterfaces, tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

import { firstWelcome } from '../../browser/lib/device.mjs';
import { freePort, OFFHOOK, Offhook } from '../../browser/lib/offhook.mjs';
import { makeAuthority } from '../pki.mjs';

const run = promisify(execFile);

/** Whether there is a way to relay over IPv6. */
export const HAS_IPV6 = Object.values(networkInterfaces()).flat().some(({ address }) => address === '::1');

/**
 * Starts the server. UDP and TCP clients are served at `relayPort` of 127.0.0.1 (and ::1), DTLS clients at `dtlsPort`, TCP and TLS
 * clients at `port`, too, which is shared with HTTPS. The second address and port of NAT discovery are 127.0.0.2 and `otherPort`.
 * Peers on 127.0.0.1 are allowed; `echoPort` is one that echoes. `settings` are more lines of `[relay]`.
 */
export async function startRelay(settings = '') {
  const folder = await mkdtemp(path.join(tmpdir(), 'offhook-peers-'));
  const [port, relayPort, otherPort, dtlsPort] = await Promise.all(Array.from({ length: 4 }, () => freePort()));
  const echo = createSocket('udp4').bind(0, '127.0.0.1');
  echo.on('message', (message, { port: from, address }) => echo.send(message, from, address));
  await once(echo, 'listening');
  const echoPort = echo.address().port;

  const authority = await makeAuthority(path.join(folder, 'authority'));
  const { certificate, key } = await authority.sign('server', ['IP:127.0.0.1']);
  const config = path.join(folder, 'offhook.toml');
  const udp = ['127.0.0.1', '127.0.0.2'].flatMap((ip) => [`${ip}:${relayPort}`, `${ip}:${otherPort}`]);
  const v6 = HAS_IPV6 ? [`[::1]:${relayPort}`] : [];
  await writeFile(config, `
listen = ["127.0.0.1:${port}"]
public_url = "https://127.0.0.1:${port}"
data_dir = "${folder}/data"

[tls]
certificate_file = "${certificate}"
key_file = "${key}"

[relay]
listen_udp = ${JSON.stringify([...udp, ...v6])}
listen_tcp = ${JSON.stringify([`127.0.0.1:${relayPort}`, ...v6])}
listen_dtls = ["127.0.0.1:${dtlsPort}"]
relay_ips = ${JSON.stringify(HAS_IPV6 ? ['127.0.0.1', '::1'] : ['127.0.0.1'])}
peers_allow = ["127.0.0.1"]
nat_discovery = true
allocations_per_user_max = 500
${settings}

[sfu]
port = 0
`);
  const env = { ...process.env, NODE_EXTRA_CA_CERTS: authority.certificate };
  const isReady = () => run(process.execPath, ['-e', 'fetch(process.argv[1]).then(({ ok }) => process.exit(ok ? 0 : 1))', `https://127.0.0.1:${port}/readyz`], { env });
  const server = new Offhook([OFFHOOK, 'serve', '--config', config], {}, isReady);
  await server.start();

  const { stdout: token } = await run(OFFHOOK, ['token', '--config', config, '--user', 'alice', '--name', 'Alice']);
  const { ice_servers: iceServers } = await firstWelcome(`wss://127.0.0.1:${port}/v1/calls`, token.trim(), authority.certificate);

  return {
    server, port, relayPort, dtlsPort, echoPort, authority, iceServers,
    credentials: iceServers.find((one) => one.credential),

    /** The servers of `welcome`, with nothing but the TURN URLs of one transport. */
    onlyOver(transport) {
      const pattern = { udp: /^turn:.*transport=udp$/, tcp: /^turn:.*transport=tcp$/, tls: /^turns:.*transport=tcp$/ }[transport];
      const servers = iceServers.map((one) => ({ ...one, urls: one.urls.filter((url) => pattern.test(url)) })).filter(({ urls }) => urls.length > 0);
      if (servers.length === 0) throw new Error(`no TURN over ${transport} in ${JSON.stringify(iceServers)}`);
      return servers;
    },

    async close() {
      echo.close();
      await server.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
