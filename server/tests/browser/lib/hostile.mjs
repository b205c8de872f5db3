// A server that lies: it stands between the pages and a real server, reads everything, and tries to sit in their Calls.

import { createHash, generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';

import { WebSocket, WebSocketServer } from 'ws';

/**
 * Starts a proxy to the server at `url`. `lies` says what it swaps on its way to each page:
 *
 * - `descriptions`: the DTLS fingerprint in every SDP, signed again with a key of its own;
 * - `keys`: the other side's Device key, wherever the state of a Call names it;
 * - `exchange`: the steps of the short code, so that they fit the keys and fingerprints it made up.
 */
export async function startHostileServer(url, lies) {
  const proxy = http.createServer((request, response) => {
    const headers = { ...request.headers, host: new URL(url).host, ...(request.headers.origin && { origin: url }) };
    const upstream = http.request(url + request.url, { method: request.method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    upstream.on('error', () => response.destroy());
    request.pipe(upstream);
  });

  const liar = new Liar(lies);
  const sockets = new WebSocketServer({ server: proxy, handleProtocols: () => 'calls.v1' });
  sockets.on('connection', (page, request) => {
    const server = new WebSocket(url.replace(/^http/, 'ws') + request.url, ['calls.v1'], { origin: url });
    const victim = { user: null, calls: new Map() };
    const early = [];
    page.on('message', (frame) => (server.readyState === WebSocket.OPEN ? server.send(String(frame)) : early.push(String(frame))));
    server.on('open', () => early.splice(0).forEach((frame) => server.send(frame)));
    server.on('message', (frame) => page.send(JSON.stringify(liar.twist(victim, JSON.parse(String(frame))))));
    server.on('close', () => page.close());
    server.on('error', () => page.close());
    page.on('close', () => server.close());
  });

  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  return {
    url: `http://localhost:${proxy.address().port}`,
    close() {
      for (const socket of sockets.clients) socket.terminate();
      proxy.closeAllConnections();
      proxy.close();
    },
  };
}

/** Tells each side of a Call that it talks with somebody whom the liar made up. */
class Liar {
  #lies;
  /** For each Call: who it pretends to be toward the callee, and toward the caller. */
  #masks = new Map();

  constructor(lies) {
    this.#lies = lies;
  }

  /** Rewrites a frame on its way to a page; `victim` is what is known about that page. */
  twist(victim, frame) {
    const { type, data } = frame;
    if (type === 'welcome') victim.user = data.user;
    if (data?.state) this.#twistState(victim, data.state);

    const role = victim.calls.get(data?.call);
    if (!role) return frame;
    const mask = this.#mask(data.call)[role];
    if (type === 'call.verify' && this.#lies.exchange) {
      if (data.answer) data.answer = mask.shown;
      if (data.reveal) data.reveal = mask.shown;
    }
    if ((type === 'sdp.offer' || type === 'sdp.answer') && this.#lies.descriptions) {
      data.sdp = data.sdp.replace(/^a=fingerprint:.*$/gm, `a=fingerprint:${mask.shown.fingerprint.toUpperCase().replace('SHA', 'sha')}`);
      data.signature = mask.sign(`offhook-sdp-v1\n${data.call}\n${data.generation}\n${type.slice('sdp.'.length)}\n${mask.shown.fingerprint}`);
    }
    return frame;
  }

  #twistState(victim, state) {
    const role = state.caller.user === victim.user ? 'caller' : 'callee';
    victim.calls.set(state.call, role);
    const mask = this.#mask(state.call)[role];
    const other = role === 'caller' ? state.callee : state.caller;
    if (other.key && this.#lies.keys) other.key = mask.shown.key;
    if (role === 'callee' && this.#lies.exchange) state.commitment = mask.commitment;
  }

  #mask(call) {
    if (!this.#masks.has(call)) this.#masks.set(call, { caller: makeMask(call), callee: makeMask(call) });
    return this.#masks.get(call);
  }
}

/** Somebody who does not exist, complete with Device key, fingerprint, nonce and commitment. */
function makeMask(call) {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const { x, y } = publicKey.export({ format: 'jwk' });
  const key = Buffer.concat([Buffer.of(4), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')]).toString('base64url');
  const fingerprint = `sha-256 ${randomBytes(32).toString('hex').match(/../g).join(':')}`;
  const nonce = randomBytes(32).toString('base64url');
  return {
    shown: { key, fingerprint, nonce },
    commitment: createHash('sha256').update(`offhook-commit-v1\n${call}\n${key}\n${fingerprint}\n${nonce}`).digest('base64url'),
    sign: (text) => sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url'),
  };
}
