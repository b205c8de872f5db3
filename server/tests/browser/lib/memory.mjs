// The page with everything behind it in its own memory: the fake server of the client, and an RTCPeerConnection whose
// receivers show moving pictures that nobody sent. For what needs many people and no media.

import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { once } from 'node:events';
import path from 'node:path';

import { ROOT } from './offhook.mjs';

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.webmanifest': 'application/manifest+json' };

/** Serves the files of the page as the binary does, and the open sign-in. Returns `{ url, close }`. */
export async function servePage() {
  const server = http.createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    if (pathname === '/demo/config') return response.writeHead(200).end();
    if (pathname === '/demo/sign-in') {
      const body = [];
      for await (const part of request) body.push(part);
      const { name } = JSON.parse(Buffer.concat(body));
      return response.end(JSON.stringify({ token: name.toLowerCase(), user: name.toLowerCase(), name, account: 'acme' }));
    }
    const file = path.join(ROOT, 'web-demo', pathname === '/' ? 'app/index.html' : path.normalize(pathname));
    const bytes = await readFile(file).catch(() => null);
    response.writeHead(bytes ? 200 : 404, { 'content-type': TYPES[path.extname(file)] ?? 'application/octet-stream' });
    response.end(bytes ?? '');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://localhost:${server.address().port}`,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** Goes into the page before its own scripts. Afterwards `memory.server` is the fake server, `memory.connections` what was made. */
export function liveInMemory() {
  const memory = { server: null, connections: [], longTasks: [] };
  globalThis.memory = memory;
  new PerformanceObserver((list) => memory.longTasks.push(...list.getEntries().map(({ duration, startTime }) => ({ duration, startTime })))).observe({ entryTypes: ['longtask'] });

  const ready = Promise.all([import('/client/fake/server.js'), import('/client/fake/connection.js')]).then(([{ FakeServer }, { FakeConnection }]) => {
    memory.server = new FakeServer();
    globalThis.RTCPeerConnection = class extends FakeConnection {
      constructor(configuration) {
        super(configuration);
        memory.connections.push(this);
      }
      makeTrack(kind) {
        return kind === 'video' ? picture().clone() : silence().clone();
      }
      async setRemoteDescription(description) {
        await super.setRemoteDescription(description);
        if (this.connectionState === 'new') setTimeout(() => this.become('connected'), 20);
      }
      getStats = async () => new Map();
    };
    return memory.server;
  });

  globalThis.WebSocket = class {
    readyState = 0;
    #socket = null;
    constructor() {
      void ready.then((server) => {
        this.#socket = server.open();
        for (const event of ['onopen', 'onmessage', 'onclose']) {
          this.#socket[event] = (data) => {
            this.readyState = this.#socket.readyState;
            this[event]?.(data);
          };
        }
      });
    }
    send(text) {
      this.#socket.send(text);
    }
    close(code) {
      this.readyState = 3;
      this.#socket?.close(code);
    }
  };

  let video = null;
  const picture = () => {
    if (video) return video;
    const canvas = Object.assign(document.createElement('canvas'), { width: 320, height: 180 });
    const context = canvas.getContext('2d');
    let turn = 0;
    const draw = () => {
      turn += 1;
      context.fillStyle = `hsl(${(turn * 7) % 360} 30% 40%)`;
      context.fillRect(0, 0, 320, 180);
      context.fillStyle = '#fff';
      context.beginPath();
      context.arc(160 + 60 * Math.sin(turn / 8), 90, 30, 0, 7);
      context.fill();
    };
    draw();
    setInterval(draw, 100);
    [video] = canvas.captureStream(10).getVideoTracks();
    return video;
  };
  let audio = null;
  const silence = () => (audio ??= new AudioContext().createMediaStreamDestination().stream.getAudioTracks()[0]);
}
