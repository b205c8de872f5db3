// A telephone network on one machine: the provider (kamailio), telephones of the world (sipp, baresip) and desk phones (baresip) around
// the real server, in the network that `alone` makes. See there for who has which address.

import { execFile, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { OFFHOOK, Offhook } from '../browser/lib/offhook.mjs';
import { eventually } from '../browser/lib/wait.mjs';
import { makeAuthority } from '../network/pki.mjs';

const run = promisify(execFile);
const here = (name) => fileURLToPath(new URL(name, import.meta.url));

/** The actors' addresses, in `alone`. */
export const PROVIDER = '10.44.0.1';
export const SERVER = '10.44.0.2';
export const PBX = '10.44.0.3';
export const DESK = '10.44.0.10';
export const WORLD = '10.44.0.20';
export const CALLER = '10.44.0.21';

/** The Number of the Account, and one of the world. */
export const NUMBER = '+49301234567';
export const OUTSIDE = '+498912345678';

/** How many samples a second phones take and give. */
const RATE = 8_000;

const URL_OF_SERVER = 'http://localhost:8080';

/** How much of what a program printed a failed test shows. */
const LINES_MAX = 60;

/** Why the tests of this folder can't run here; `false` where they can. */
export const skip = process.env.PHONE_NETWORK === 'own' ? false : 'run it as root by server/tests/phone/alone, in a network of its own';

/** A rig whose programs end with the story. */
export async function startRig(world) {
  const rig = new Rig(await mkdtemp(path.join(tmpdir(), 'offhook-phone-')));
  world.whenOver(() => rig.close());
  world.whenFailed(() => rig.said);
  rig.authority = await makeAuthority(path.join(rig.folder, 'authority'));
  return rig;
}

class Rig {
  #programs = [];
  #version = 0;

  constructor(folder) {
    this.folder = folder;
  }

  /** Starts the server as an operator has it, with the Account of `telephony` (TOML) and more lines for `[gateway]`. */
  async startServer(telephony, gateway = '') {
    this.config = path.join(this.folder, 'offhook.toml');
    await writeFile(this.config, `
listen = ["127.0.0.1:8080", "[::1]:8080"]
data_dir = "${this.folder}/data"
drain_seconds = 1

[relay]
listen_udp = ["127.0.0.1:3478"]
listen_tcp = ["127.0.0.1:3478"]

[gateway]
listen_udp = ["${SERVER}:5060"]
listen_tcp = ["${SERVER}:5060"]
${gateway}
`);
    // What vouches for the provider is what this machine trusts.
    const env = { SSL_CERT_FILE: this.authority.certificate };
    const server = new Offhook([OFFHOOK, 'serve', '--config', this.config], env, async () => (await fetch(`${URL_OF_SERVER}/readyz`)).ok);
    server.url = URL_OF_SERVER;
    this.server = server;
    await server.start();
    await this.apply(telephony);
    return server;
  }

  /** Gives the Account this telephony, and waits until the server has it. */
  async apply(telephony) {
    const file = path.join(this.folder, 'telephony.toml');
    await writeFile(file, telephony);
    await run(OFFHOOK, ['apply', file, '--yes', '--config', this.config]);
    this.#version += 1;
    await eventually('the server has the telephony', () => new RegExp(`Telephony of an Account.* version=${this.#version} `).test(this.server.log));
  }

  /** An access token of somebody who may call phones. */
  async token(user, name) {
    const { stdout } = await run(OFFHOOK, ['token', '--config', this.config, '--user', user, '--name', name, '--phone']);
    return stdout.trim();
  }

  /** What the doctor says of phones, by line. */
  async doctor() {
    const { stdout } = await run(OFFHOOK, ['doctor', '--config', this.config, '--json']).catch((error) => error);
    return JSON.parse(stdout).findings.filter(({ check }) => check === 'phones' || check === 'trunks');
  }

  /** A figure of the server, all its labels together; 0 where there is none yet. */
  async figure(name) {
    const text = await (await fetch(`${URL_OF_SERVER}/metrics`)).text();
    const lines = text.split(/\r?\n/).filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
    return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
  }

  async figureBecomes(name, value) {
    await eventually(`${name} is ${value}`, async () => {
      const now = await this.figure(name);
      return now === value || Promise.reject(new Error(String(now)));
    });
  }

  /** Starts the provider; `minExpires` is the shortest registration it grants, in seconds. */
  async startProvider({ minExpires = 60 } = {}) {
    const { certificate, key } = await this.authority.sign('provider', [`IP:${PROVIDER}`, 'DNS:provider.test']);
    const text = (await readFile(here('kamailio.cfg'), 'utf8'))
      .replace('FOLDER/provider.key', key)
      .replace('FOLDER/provider.pem', certificate)
      .replace('MIN_EXPIRES', String(minExpires));
    const file = path.join(this.folder, 'kamailio.cfg');
    await writeFile(file, text);
    return this.start('kamailio', '-DD', '-E', '-m', '64', '-M', '8', '-Y', this.folder, '-f', file);
  }

  /** A telephone of the world that is called, by a scenario of ours; it sends back whatever it hears. Ends well, or not. */
  async answers(scenario) {
    const phone = this.#telephone(scenario, [WORLD, 5060]);
    await listens(WORLD, 5060);
    return phone;
  }

  /** A telephone of the world that calls `number` by way of the provider; it sends back whatever it hears. */
  calls(scenario, number) {
    return this.#telephone(scenario, [CALLER, 5060], `${PROVIDER}:5060`, '-s', number);
  }

  /** A telephone of another PBX, at this port of it, that calls `number` without anybody between. */
  ofPbx(scenario, port, number) {
    return this.#telephone(scenario, [PBX, port], `${SERVER}:5060`, '-s', number);
  }

  #telephone(scenario, [address, port], ...args) {
    const at = (end) => path.join(this.folder, `${this.#programs.length}-${scenario}.${end}`);
    const [errors, log] = [at('err'), at('log')];
    const program = this.start('sipp', ...args, '-sf', here(`sipp/${scenario}.xml`), '-i', address, '-p', String(port), '-mi', address, '-mp', String(24_940 + port), '-rtp_echo',
      '-m', '1', '-nostdin', '-watchdog_interval', '0', '-trace_err', '-error_file', errors, '-trace_logs', '-log_file', log);
    /** Waits until it talks; returns what its scenario logs: the Call-ID first. */
    program.talks = () => eventually(`${scenario} talks`, async () => (await readFile(log, 'utf8')).trim());
    /** Waits until it talks, and has it do what comes next in its scenario, with these headers. */
    program.goesOn = async (...headers) => {
      const [call] = (await program.talks()).split(' ');
      await sends(address, port, ['INFO sip:phone SIP/2.0', 'Via: SIP/2.0/UDP test;branch=z9hG4bKgoeson', 'From: <sip:test>;tag=1', 'To: <sip:phone>;tag=2',
        `Call-ID: ${call}`, 'CSeq: 9 INFO', ...headers, 'Content-Length: 0', '', '']);
    };
    /** Waits until it talks, and has it hang up. */
    program.hangsUp = () => program.goesOn();
    return program;
  }

  /**
   * A phone that picks up by itself, gives a steady tone of `pitch` Hz at `level` (1 is as loud as may be) or the `sound` of a WAV file over and
   * over, and writes down what it hears; `account` is its line of baresip's `accounts`, `more` are lines of its `config`.
   */
  async phone(name, address, account, { pitch = 400, level = 0.5, sound = tone(pitch, level), more = '' } = {}) {
    const folder = path.join(this.folder, name);
    await mkdir(folder);
    const at = (file) => path.join(folder, file);
    const control = 4444 + this.#programs.length;
    const modules = (await run('sh', ['-c', 'ls -d /usr/lib/baresip/modules /usr/lib/*/baresip/modules 2>/dev/null | head -1'])).stdout.trim();
    await writeFile(at('accounts'), `${account}\n`);
    await writeFile(at('says.wav'), sound);
    await writeFile(at('config'), `
sip_listen ${address}:5060
sip_cafile ${this.authority.certificate}
net_interface ${address}
rtp_ports 31000-31100
call_max_calls 4
audio_source aufile,${at('says.wav')}
audio_player aubridge,heard
audio_alert aubridge,alert
snd_path ${folder}
ctrl_tcp_listen 127.0.0.1:${control}
module_path ${modules}
module g711.so
module g722.so
module srtp.so
module aufile.so
module aubridge.so
module sndfile.so
module_app account.so
module_app menu.so
module_app ctrl_tcp.so
${more}
`);
    const program = this.start('baresip', '-f', folder, '-v');
    /** Has it do what somebody at its keys would: `dial`, `hold`, `resume`, `hangup`. */
    program.does = (command, params = '') => tells(control, { command, params });
    /** How loud each of these pitches was in the last seconds it heard, in dB of what may be. */
    program.heard = async (pitches) => {
      // One recording for each call, named by its time.
      const recorded = (await readdir(folder)).filter((file) => file.endsWith('-dec.wav')).sort();
      const bytes = await readFile(at(recorded.at(-1) ?? 'nothing heard yet'));
      const heard = new Int16Array(bytes.buffer, bytes.byteOffset + 44, (bytes.length - 44) >> 1).slice(-2 * RATE);
      return pitches.map((one) => loudness(heard, one));
    };
    /** Waits until it hears all of these. */
    program.hears = (pitches, level) => eventually(`${name} hears ${pitches}`, async () => {
      const heard = await program.heard(pitches);
      return heard.every((one) => one > level) || Promise.reject(new Error(JSON.stringify(heard)));
    });
    await program.says(/baresip is ready/);
    return program;
  }

  /** A telephone of the world with a tone of its own, which `dials` the Number by the provider; it has dialled once. */
  async callerWithTone(pitch) {
    const phone = await this.phone('caller', WORLD, `<sip:${OUTSIDE}@provider.test>;regint=0;audio_codecs=PCMA`, { pitch });
    phone.dials = () => phone.does('dial', `sip:${NUMBER}@${PROVIDER}`);
    await phone.dials();
    return phone;
  }

  /** What the call records say of each Leg, oldest first: columns of their table. */
  async legRecords() {
    const script = 'import json, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.row_factory = sqlite3.Row; '
      + 'print(json.dumps([dict(row) for row in db.execute("SELECT * FROM legs ORDER BY created_at")]))';
    return JSON.parse((await run('python3', ['-c', script, path.join(this.folder, 'data/offhook.sqlite')])).stdout);
  }

  /** Starts a program, which ends with the rig at the latest. */
  start(command, ...args) {
    const program = new Program(command, args, this.folder);
    this.#programs.push(program);
    return program;
  }

  /** What all its programs printed last. */
  get said() {
    return this.#programs.map((program) => `${program.command} said\n${program.said}`).join('\n');
  }

  async close() {
    await this.server?.close();
    for (const program of this.#programs.reverse()) await program.close();
    await rm(this.folder, { recursive: true, force: true });
  }
}

class Program {
  #child;
  #ended;
  #lines = [];
  /** A line whose end has not come yet. */
  #begun = '';

  constructor(command, args, folder) {
    this.command = path.basename(command);
    // In a group of its own: kamailio's parent, when it doesn't end and is killed, would leave its children the ports.
    this.#child = spawn(command, args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    this.#ended = Promise.race([once(this.#child, 'exit').then(([code, signal]) => code ?? signal), once(this.#child, 'error').then(([error]) => error.message)]);
    for (const stream of [this.#child.stdout, this.#child.stderr]) stream.setEncoding('utf8').on('data', (text) => this.#keep(text));
  }

  /** What it printed last. */
  get said() {
    return [...this.#lines, this.#begun].join('\n');
  }

  /** Waits until it has ended as it should. */
  async succeeds() {
    const how = await this.#ended;
    if (how !== 0) throw new Error(`${this.command} ended with ${how}:\n${this.said}`);
  }

  /** Waits until it prints something like this. */
  async says(pattern) {
    await eventually(`${this.command} says ${pattern}`, () => pattern.test(this.said) || Promise.reject(new Error(this.said.slice(-500))));
  }

  async close() {
    if (this.#child.exitCode === null && this.#child.signalCode === null && this.#child.pid) {
      this.#child.kill('SIGTERM');
      const late = setTimeout(() => process.kill(-this.#child.pid, 'SIGKILL'), 5_000);
      await this.#ended;
      clearTimeout(late);
    }
  }

  #keep(text) {
    // Of what is drawn over and over on one line nothing is kept.
    const lines = (this.#begun + text).split(/[\r\n]+/);
    this.#begun = lines.pop();
    this.#lines.push(...lines.filter((line) => line.trim() !== '' && !/\x1b|\(bit\/s\)/.test(line)));
    this.#lines.splice(0, this.#lines.length - LINES_MAX);
  }
}

/** A steady tone as a WAV file: linear 16 bit samples, three minutes of it unless told otherwise. */
export function tone(pitch, level, seconds = 180) {
  const samples = Int16Array.from({ length: seconds * RATE }, (_, at) => Math.round(level * 32_767 * Math.sin((2 * Math.PI * pitch * at) / RATE)));
  const head = Buffer.alloc(44);
  head.write('RIFF', 0);
  head.writeUInt32LE(36 + samples.byteLength, 4);
  head.write('WAVEfmt ', 8);
  for (const [at, value] of [[16, 16], [24, RATE], [28, 2 * RATE], [40, samples.byteLength]]) head.writeUInt32LE(value, at);
  for (const [at, value] of [[20, 1], [22, 1], [32, 2], [34, 16]]) head.writeUInt16LE(value, at);
  head.write('data', 36);
  return Buffer.concat([head, Buffer.from(samples.buffer)]);
}

/** How loud a pitch is in these samples, in dB of what may be (a Fourier sum under a Hann window). */
export function loudness(samples, pitch) {
  let [real, imaginary] = [0, 0];
  for (const [at, sample] of samples.entries()) {
    const weight = 0.5 - 0.5 * Math.cos((2 * Math.PI * at) / samples.length);
    const angle = (2 * Math.PI * pitch * at) / RATE;
    real += weight * sample * Math.cos(angle);
    imaginary += weight * sample * Math.sin(angle);
  }
  const amplitude = (4 * Math.hypot(real, imaginary)) / (samples.length * 32_767);
  return Math.round(20 * Math.log10(Math.max(amplitude, 1e-6)));
}

/** Gives baresip a command (a netstring of JSON), and waits for its answer. */
async function tells(port, command) {
  const text = JSON.stringify(command);
  const socket = connect(port, '127.0.0.1');
  socket.write(`${text.length}:${text},`);
  await once(socket, 'data');
  socket.destroy();
}

/** Sends these lines there. */
async function sends(address, port, lines) {
  const socket = createSocket('udp4');
  await promisify(socket.send.bind(socket))(lines.join('\r\n'), port, address);
  socket.close();
}

/** Waits until somebody has this UDP port. */
async function listens(address, port) {
  await eventually(`UDP ${address}:${port} is open`, async () => {
    const { stdout } = await run('ss', ['-Hlun', `src ${address} and sport = :${port}`]);
    return stdout.trim() !== '';
  });
}
