// A Device that is no browser: as much of calls.v1 as it takes to be welcomed.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';

import { WebSocket } from 'ws';

/** Opens a Session at `url` and returns what `welcome` says; `ca` is a file with the authority to trust. */
export async function firstWelcome(url, token, ca) {
  const socket = new WebSocket(url, ['calls.v1'], { ca: ca && (await readFile(ca)) });
  await once(socket, 'open');
  const hello = { type: 'hello', id: ulid(), data: { token, device: { id: ulid(), name: 'test', key: deviceKey() } } };
  socket.send(JSON.stringify(hello));
  const [frame] = await once(socket, 'message');
  socket.close();
  const { type, data } = JSON.parse(String(frame));
  if (type !== 'welcome') throw new Error(`${type}: ${JSON.stringify(data)}`);
  return data;
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
