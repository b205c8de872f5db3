// A Device that is no browser: as much of calls.v1 as it takes to be in a Room.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { readFile } from 'node:fs/promises';

import { WebSocket } from 'ws';

/** Frames without a `seq`, which nobody counts. */
const UNCOUNTED = new Set(['welcome', 'ack', 'ping', 'pong', 'goaway', 'bye']);

/** Opens a Session at `url` and returns what `welcome` says; `ca` is a file with the authority to trust. */
export async function firstWelcome(url, token, ca) {
  const session = await Session.open(url, token, ca);
  session.close();
  return session.welcome;
}

/**
 * A Session over one WebSocket, for as long as that lasts. It emits what the server says by itself, each by its `type`, with its
 * `data`.
 */
export class Session extends EventEmitter {
  #socket;
  #sent = 0;
  #received = 0;
  /** Commands on their way, by `id`. */
  #answers = new Map();
  /** What `welcome` said. */
  welcome = null;

  /** Opens it at `url` (`ws:` or `wss:`); `ca` is a file with the authority to trust. Fails when the server does not welcome us. */
  static async open(url, token, ca) {
    const session = new Session(new WebSocket(url, ['calls.v1'], { ca: ca && (await readFile(ca)) }));
    await once(session.#socket, 'open');
    const device = { id: ulid(), name: 'test', key: deviceKey() };
    session.#socket.send(JSON.stringify({ type: 'hello', id: ulid(), data: { token, device } }));
    [session.welcome] = await once(session, 'welcome');
    return session;
  }

  constructor(socket) {
    super();
    this.#socket = socket;
    socket.on('message', (frame) => this.#take(JSON.parse(String(frame))));
    socket.on('error', (error) => this.#end(error));
    socket.on('close', (code, reason) => this.#end(new Error(`closed with ${code} ${reason}`)));
  }

  /** Sends a command and resolves with the `data` of its `ok`; an `error` has its `code`. */
  command(type, data = {}) {
    const id = ulid();
    this.#sent += 1;
    this.#socket.send(JSON.stringify({ type, id, seq: this.#sent, ack: this.#received, data }));
    return new Promise((resolve, reject) => this.#answers.set(id, { type, resolve, reject }));
  }

  /** Is gone without a word, as after a crash. */
  close() {
    this.#socket.close();
  }

  #take({ type, seq, reply_to: replyTo, data = {} }) {
    if (seq !== undefined && !UNCOUNTED.has(type)) {
      this.#received = seq;
      this.#control('ack');
    }
    if (type === 'ping') return this.#control('pong');
    if (type !== 'ok' && type !== 'error') return this.emit(type, data);
    const answer = this.#answers.get(replyTo);
    if (!answer) return this.#end(new Error(`unasked: ${type} ${JSON.stringify(data)}`));
    this.#answers.delete(replyTo);
    if (type === 'ok') return answer.resolve(data);
    return answer.reject(Object.assign(new Error(`${answer.type}: ${JSON.stringify(data)}`), data));
  }

  #control(type) {
    this.#socket.send(JSON.stringify({ type, id: ulid(), ack: this.#received }));
  }

  #end(error) {
    for (const { reject } of this.#answers.values()) reject(error);
    this.#answers.clear();
    // Whoever waits for an event hears of it, too; nobody needs to.
    if (this.listenerCount('error') > 0) this.emit('error', error);
  }
}

/** A P-256 public key as Devices show it. */
function deviceKey() {
  const { x, y } = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' });
  return Buffer.concat([Buffer.of(4), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')]).toString('base64url');
}

/** 26 characters of Crockford's base32; the first holds three bits only. */
function ulid() {
  const digits = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
  return [...randomBytes(26)].map((byte, index) => digits[byte % (index === 0 ? 8 : 32)]).join('');
}
