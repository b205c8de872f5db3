// The relay under clients written in Python: aiortc, which calls through it, and aioice, whose TURN client is all it brings.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { startRelay } from './relay.mjs';

let relay;

before(async () => {
  relay = await startRelay();
});

after(async () => {
  await relay?.close();
});

for (const transport of ['udp', 'tcp', 'tls']) {
  test(`aiortc calls aiortc through the relay over ${transport.toUpperCase()}`, async () => {
    const said = await python('echo.py', relay.onlyOver(transport));
    assert.deepEqual(said, { echoed_in_order: true, frames: 30, candidate_types: ['relay'] });
  });

  test(`aioice reaches aioice and a peer over ${transport.toUpperCase()}`, async () => {
    const { username, credential: password } = relay.credentials;
    const port = transport === 'tls' ? relay.port : relay.relayPort;
    const said = await python('endpoint.py', { transport, port, username, password, peer: relay.echoPort });
    assert.deepEqual(said, { between_relayed: 50, from_peer: 50 });
  });
}

/** Runs a script of this folder; what it reads and what it prints is JSON. */
async function python(script, input) {
  const child = spawn(process.env.AIORTC_PYTHON ?? 'python3', [fileURLToPath(new URL(script, import.meta.url))], {
    env: { ...process.env, SSL_CERT_FILE: relay.authority.certificate },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin.end(JSON.stringify(input));
  const [said, [status]] = await Promise.all([text(child.stdout), once(child, 'exit')]);
  assert.equal(status, 0);
  console.log(`${script}: ${said.trim()}`);
  return JSON.parse(said);
}
