// Two people in two offices, each behind a router, and the server on the internet between them: namespaces, certificates,
// the configured server, and the browsers inside. See rig.sh for the map.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { OFFHOOK, Offhook } from '../browser/lib/offhook.mjs';
import { makeAuthority, makeHome } from './pki.mjs';

const run = promisify(execFile);
const here = (name) => fileURLToPath(new URL(name, import.meta.url));

/** The server's addresses, in rig.sh. */
export const SERVER = '100.64.0.2';
export const SERVER_SECOND = '100.64.0.3';
export const SERVER_V6 = 'fd12::2';

/** The rig's addresses are of documentation and shared ranges, which no relay should reach unless it is told to. */
const PEERS = ['203.0.113.0/24', '198.51.100.0/24', '10.1.0.0/24', '10.2.0.0/24'];

/** Namespaces are named after this process, so that two runs don't meet. */
const PREFIX = `oh${process.pid}`;

/** Lays the cables of a scenario of rig.sh; `family` 4 takes IPv6 away from both offices. */
export async function startRig(scenario, { family = 46 } = {}) {
  const env = { ...process.env, PREFIX, FAMILY: String(family) };
  await run(here('rig.sh'), ['down'], { env });
  await run(here('rig.sh'), ['up', scenario], { env });
  const folder = await mkdtemp(path.join(tmpdir(), 'offhook-rig-'));
  return new Rig(env, folder);
}

class Rig {
  #env;
  #children = [];

  constructor(env, folder) {
    this.#env = env;
    this.folder = folder;
  }

  /** The authority that both offices trust, and the home folder in which Chromium does so; made once. */
  async trust() {
    this.authority ??= await makeAuthority(path.join(this.folder, 'authority'));
    this.home ??= await makeHome(path.join(this.folder, 'home'), [this.authority.certificate]);
    return this.authority;
  }

  /** What runs a browser in node `a` or `b`, for `startChromium`. */
  browserIn(node, { home = this.home, flags = [] } = {}) {
    return { program: here('in-namespace'), env: { NAMESPACE: this.#name(node) }, home, flags };
  }

  /** Starts a program in a namespace; it ends with the rig. */
  start(node, program, ...args) {
    const child = spawn('ip', ['netns', 'exec', this.#name(node), program, ...args], { stdio: 'inherit' });
    this.#children.push(child);
    return child;
  }

  /** Runs a program in a namespace and returns what it prints. */
  async exec(node, program, ...args) {
    const { stdout } = await run('ip', ['netns', 'exec', this.#name(node), program, ...args]);
    return stdout;
  }

  /**
   * Starts the configured server in namespace `s`: HTTPS, WebSocket and TURN over TLS on TCP 443, STUN and TURN on port 3478.
   * `url` is how people get there, `settings` are lines that come first in its configuration and `certificate` is its own.
   */
  async startServer({ url = `https://${SERVER}`, listen = ['0.0.0.0:443', '[::]:443'], settings = '', certificate } = {}) {
    const authority = await this.trust();
    certificate ??= await authority.sign('server', [`IP:${SERVER}`, `IP:${SERVER_SECOND}`, `IP:${SERVER_V6}`]);
    const addresses = JSON.stringify([`${SERVER}:3478`, `[${SERVER_V6}]:3478`]);
    this.config = path.join(this.folder, 'offhook.toml');
    await writeFile(this.config, `
listen = ${JSON.stringify(listen)}
public_url = "${url}"
data_dir = "${this.folder}/data"
${settings}

[tls]
certificate_file = "${certificate.certificate}"
key_file = "${certificate.key}"

[relay]
listen_udp = ${addresses}
listen_tcp = ${addresses}
relay_ips = ["${SERVER}", "${SERVER_V6}"]
peers_allow = ${JSON.stringify(PEERS)}
`);
    return this.#serve('s', ['serve', '--config', this.config], url);
  }

  /** Starts `offhook serve --lan` in an office, as somebody tries it at home. Its certificate is its own. */
  async startLanServer(node) {
    return this.#serve(node, ['serve', '--lan', '--data', path.join(this.folder, 'data')], 'https://localhost:8443');
  }

  /** An access token, as a company's backend would get it. */
  async token(user, name) {
    const { stdout } = await run(OFFHOOK, ['token', '--config', this.config, '--user', user, '--name', name]);
    return stdout.trim();
  }

  /** nginx in namespace `s`, configured as deploy/nginx.conf says, on one of the server's addresses. */
  async startNginx(address = SERVER) {
    const { certificate, key } = await (await this.trust()).sign('nginx', [`IP:${address}`]);
    const text = await readFile(here('../../../deploy/nginx.conf'), 'utf8');
    const server = text
      .replace('listen 443 ssl', `listen ${address}:443 ssl`)
      .replace(/listen \[::\]:443 ssl;/, '')
      .replace(/ssl_certificate +.*/, `ssl_certificate ${certificate};`)
      .replace(/ssl_certificate_key +.*/, `ssl_certificate_key ${key};`)
      .replace(/server_name .*/, 'server_name _;');
    const file = path.join(this.folder, 'nginx.conf');
    await writeFile(file, `daemon off; pid ${this.folder}/nginx.pid; error_log stderr; events {}\nhttp { access_log off;\n${server}\n}\n`);
    this.start('s', 'nginx', '-p', this.folder, '-c', file);
  }

  /** An HTTP CONNECT proxy on an office's router, and nothing else that lets anything out. */
  async startProxy(router, address) {
    const file = path.join(this.folder, `${router}.conf`);
    await writeFile(file, `Port 3128\nListen ${address}\nAllow 10.0.0.0/8\nConnectPort 443\nTimeout 600\nLogLevel Critical\n`);
    this.start(router, 'tinyproxy', '-d', '-c', file);
  }

  /**
   * Lets at most so many kbit/s through to office a, and keeps what is more for up to `queueMs`; after a pause `bucketKb` kilobytes pass
   * at once. 0 lets everything through.
   */
  async narrow(kbps, { queueMs = 300, bucketKb = 4 } = {}) {
    if (kbps === 0) return this.exec('ra', 'tc', 'qdisc', 'del', 'dev', 'lan', 'root');
    return this.exec('ra', 'tc', 'qdisc', 'replace', 'dev', 'lan', 'root', 'tbf', 'rate', `${kbps}kbit`, 'burst', `${bucketKb}kb`, 'latency', `${queueMs}ms`);
  }

  /** Loses so many percent of the datagrams to office a, at random. */
  async lose(percent) {
    await this.exec('ra', 'nft', 'add', 'table', 'inet', 'loss');
    await this.exec('ra', 'nft', 'add', 'chain', 'inet', 'loss', 'forward', '{ type filter hook forward priority 10; }');
    await this.exec('ra', 'nft', 'add', 'rule', 'inet', 'loss', 'forward', 'oifname', 'lan', 'meta', 'l4proto', 'udp', 'numgen', 'random', 'mod', '100', '<', String(percent), 'drop');
  }

  async close() {
    await this.server?.close();
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await ended;
    }
    await run(here('rig.sh'), ['down'], { env: this.#env });
    await rm(this.folder, { recursive: true, force: true });
  }

  async #serve(node, args, url) {
    const fetchIt = ['-e', 'fetch(process.argv[1]).then(({ ok }) => process.exit(ok ? 0 : 1))', `${url}/readyz`];
    // Whether it is served is the question here, not by whom: that is for the browsers to check.
    const env = { ...process.env, NODE_TLS_REJECT_UNAUTHORIZED: '0', NODE_NO_WARNINGS: '1' };
    this.server = new Offhook(['ip', 'netns', 'exec', this.#name(node), OFFHOOK, ...args], {}, async () => {
      await run('ip', ['netns', 'exec', this.#name(node), process.execPath, ...fetchIt], { env });
      return true;
    });
    await this.server.start();
    this.server.url = url;
    return this.server;
  }

  #name(node) {
    return `${PREFIX}-${node}`;
  }
}
