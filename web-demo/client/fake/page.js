// What a page has and Node has not, and people whose clients speak to one server in memory.

import { after, afterEach, before, beforeEach } from "node:test";

import { OffhookClient } from "../client.js";
import { FakeConnection } from "./connection.js";
import { FakeServer } from "./server.js";

/** How long what is waited for may take. */
const PATIENCE_MS = 5_000;

/** Every RTCPeerConnection of a test, in the order they were made. @type {FakeConnection[]} */
export const connections = [];
const opened = new Set();

/** Every test of the file that calls this runs as in a page; its clients end with it. */
export function inPage() {
  before(() => {
    globalThis.MediaStream = class {
      constructor(tracks = []) {
        this.tracks = [...tracks];
      }
      getTracks = () => this.tracks;
      addTrack = (track) => this.tracks.push(track);
      removeTrack = (track) => (this.tracks = this.tracks.filter((other) => other !== track));
    };
    globalThis.RTCPeerConnection = class extends FakeConnection {
      static async generateCertificate() {
        return { getFingerprints: () => [{ algorithm: "sha-256", value: "00:11" }] };
      }
      constructor(configuration) {
        super(configuration);
        connections.push(this);
      }
    };
  });

  beforeEach(() => {
    connections.length = 0;
  });

  afterEach(async () => {
    for (const client of opened) await client.close();
    opened.clear();
  });

  after(() => {
    delete globalThis.MediaStream;
    delete globalThis.RTCPeerConnection;
    delete globalThis.WebSocket;
  });
}

/** A server, and a connected client for each name. */
export async function people(...names) {
  const server = new FakeServer();
  globalThis.WebSocket = function () {
    return server.open();
  };
  const clients = {};
  for (const name of names) {
    clients[name] = new OffhookClient({ url: "ws://server/v1/calls", token: name });
    opened.add(clients[name]);
    await clients[name].connect();
  }
  return { server, ...clients };
}

/** What the next `event` brings. */
export function next(emitter, event) {
  return new Promise((resolve) => {
    const off = emitter.on(event, (...args) => (off(), resolve(args)));
  });
}

/** Looks at every turn of the event loop: some of what is waited for lasts for one answer of the server only. */
export async function until(condition) {
  const deadline = performance.now() + PATIENCE_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within five seconds: ${condition}`);
    await new Promise(setImmediate);
  }
}
