// The real server: target/release/offhook, each with its own ports and its own empty data folder.

import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { eventually } from './wait.mjs';

/** The repository. */
export const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));

/** The binary under test. */
export const OFFHOOK = process.env.OFFHOOK_BINARY ?? path.join(ROOT, 'target/release/offhook');

/** How much of the server's log a failed test shows. */
const LOG_LINES_MAX = 200;

/**
 * Starts a server on loopback as somebody without a configuration has it, but on free ports.
 *
 * `args` follow `offhook`; `env` adds settings. `stop` sends SIGTERM, `kill` SIGKILL, and `start` brings it back on the same ports
 * and data.
 */
export async function startOffhook({ args = ['serve'], env = {} } = {}) {
  const folder = await mkdtemp(path.join(tmpdir(), 'offhook-test-'));
  const [port, relayPort] = [await freePort(), await freePort()];
  const url = `http://localhost:${port}`;
  const server = new Offhook([OFFHOOK, ...args], {
    OFFHOOK_LISTEN: JSON.stringify([`127.0.0.1:${port}`, `[::1]:${port}`]),
    OFFHOOK_DATA_DIR: path.join(folder, 'data'),
    OFFHOOK_RELAY__LISTEN_UDP: JSON.stringify([`127.0.0.1:${relayPort}`, `[::1]:${relayPort}`]),
    OFFHOOK_RELAY__LISTEN_TCP: JSON.stringify([`127.0.0.1:${relayPort}`, `[::1]:${relayPort}`]),
    ...env,
  }, async () => (await fetch(`${url}/readyz`)).ok);
  Object.assign(server, { folder, port, relayPort, url });
  await server.start();
  return server;
}

/** One server process, and how to bring it back. */
export class Offhook {
  #command;
  #env;
  #isReady;
  #child = null;
  #log = [];

  /** `command` is program and arguments, `env` is laid over ours, `isReady` resolves to true once clients are served. */
  constructor(command, env, isReady) {
    this.#command = command;
    this.#env = env;
    this.#isReady = isReady;
  }

  async start() {
    const [program, ...args] = this.#command;
    const child = spawn(program, args, { env: { ...process.env, ...this.#env }, cwd: this.folder, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => this.#keep(String(bytes)));
    await eventually('the server is ready', async () => {
      if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}`);
      return this.#isReady();
    }).catch((error) => {
      throw new Error(`${error.message}\n${this.log}`);
    });
  }

  /** Asks the server to end, and waits until it has. */
  async stop() {
    await this.#end('SIGTERM');
  }

  /** The server crashes. */
  async kill() {
    await this.#end('SIGKILL');
  }

  /** Ends the server and forgets its data. */
  async close() {
    await this.#end('SIGKILL');
    if (this.folder) await rm(this.folder, { recursive: true, force: true });
  }

  /** The last lines the server printed. */
  get log() {
    return this.#log.join('\n');
  }

  async #end(signal) {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }

  #keep(text) {
    this.#log.push(...text.trimEnd().split('\n'));
    this.#log.splice(0, this.#log.length - LOG_LINES_MAX);
  }
}

/**
 * A port that neither TCP nor UDP uses at the moment. Below those the system gives to clients, or a browser might get it while the
 * server is away.
 */
export async function freePort() {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    const tcp = createServer().listen(port, '127.0.0.1');
    const udp = createSocket('udp4').bind(port, '127.0.0.1');
    const opened = [tcp, udp].map((socket) => once(socket, 'listening').then(() => socket, () => null));
    const sockets = await Promise.all(opened);
    await Promise.all(sockets.filter(Boolean).map((socket) => once(socket.close(), 'close')));
    if (sockets.every(Boolean)) return port;
  }
}
