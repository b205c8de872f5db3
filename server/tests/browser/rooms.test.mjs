// The ways into a Room, and what goes through it beside pictures and sound: the client package against the real server.

import assert from 'node:assert/strict';

import { meets, seesPictures } from './lib/meeting.mjs';
import { story } from './lib/story.mjs';
import { eventually } from './lib/wait.mjs';

story('who gets nowhere but to the relay is in the Room through it', {}, async (world) => {
  const chromium = await world.browser('chromium');
  const alice = await meets(world, chromium, 'Alice', { at: '/?relay=1' });
  const bob = await meets(world, chromium, 'Bob', { at: '/?relay=1' });
  for (const person of [alice, bob]) await seesPictures(person, 1);
  for (const person of [alice, bob]) {
    const [{ local, remote }] = await person.media();
    assert.match(local, /^relay\//);
    assert.match(remote, /^host\/udp/);
  }
  // Relay and SFU hand all of it over in memory: no socket of the SFU has seen a datagram.
  const figure = await figures(world);
  for (const direction of ['in', 'out']) {
    const packets = figure(`sfu_packets_total{direction="${direction}"}`);
    assert.ok(packets > 100, `${packets} packets ${direction}`);
    assert.equal(figure(`sfu_relayed_packets_total{direction="${direction}"}`), packets);
  }
  assert.equal(figure('sfu_send_calls_total'), 0);
  assert.ok(figure('relay_media_packets_total{direction="to_sfu"}') > 100);

  // Somebody with a way of their own meets them all the same.
  const carol = await meets(world, chromium, 'Carol');
  for (const person of [alice, bob, carol]) await seesPictures(person, 2);
  assert.ok((await figures(world))('sfu_send_calls_total') > 0);
});

/** What the server has counted, by name and labels. */
async function figures(world) {
  const text = await (await fetch(new URL('/metrics', world.server.url))).text();
  const counted = new Map(text.split('\n').map((line) => line.split(' ')));
  return (name) => Number(counted.get(name) ?? NaN);
}

story('messages of an application go to everybody or to some, reliable or not, in Chromium and Firefox', {}, async (world) => {
  const people = [];
  for (const [name, kind] of [['alice', 'chromium'], ['bob', 'chromium'], ['carol', 'firefox']]) {
    const person = await world.visitor(await world.browser(kind));
    person.name = name;
    people.push(person);
    await person.page.evaluate(join, name);
  }
  const [alice, bob, carol] = people;
  await eventually('everybody knows everybody', async () => {
    const counts = await Promise.all(people.map(({ page }) => page.evaluate(() => globalThis.room.participants.size)));
    return counts.every((count) => count === 2) || Promise.reject(new Error(counts));
  });

  // Messages reach those whose channels are open, and sending waits for one's own.
  for (const { page } of people) await page.evaluate(say, { text: 'ready' });
  await alice.page.evaluate(say, { text: 'to all' });
  await alice.page.evaluate(say, { text: 'to Carol', to: ['carol'] });
  await carol.page.evaluate(say, { text: 'to Bob', to: ['bob'], reliable: false });
  await bob.page.evaluate(say, { text: 'x'.repeat(16 * 1024) });
  const large = ['bob', 16 * 1024, true, false];
  await heardBy(alice, [large]);
  await heardBy(bob, [['alice', 'to all', true, false], ['carol', 'to Bob', false, true]]);
  await heardBy(carol, [['alice', 'to all', true, false], ['alice', 'to Carol', true, true], large]);

  // Who may only listen says nothing; who may speak again does.
  await alice.page.evaluate(() => globalThis.room.setRole(globalThis.named('bob'), 'listener'));
  await eventually('Bob may not', () => bob.page.evaluate(() => globalThis.room.local.permissions.data === false));
  assert.equal(await bob.page.evaluate(say, { text: 'refused' }), 'forbidden');
  await alice.page.evaluate(() => globalThis.room.setRole(globalThis.named('bob'), 'speaker'));
  await eventually('Bob may', () => bob.page.evaluate(() => globalThis.room.local.permissions.data));
  await bob.page.evaluate(say, { text: 'again' });
  await heardBy(carol, [['alice', 'to all', true, false], ['alice', 'to Carol', true, true], large, ['bob', 'again', true, false]]);

  // Another way to the server: the channels go on over it.
  const before = await carol.page.evaluate(credentials);
  await carol.page.evaluate(() => globalThis.room.reconnect());
  await eventually('Carol has restarted', async () => {
    const now = await carol.page.evaluate(credentials);
    return (now.isConnected && now.own !== before.own && now.servers !== before.servers) || Promise.reject(new Error(JSON.stringify(now)));
  });
  await carol.page.evaluate(say, { text: 'still here' });
  await heardBy(alice, [large, ['bob', 'again', true, false], ['carol', 'still here', true, false]]);
});

/** Runs in the page: a client of its own, without the demo's. */
async function join(name) {
  const { OffhookClient } = await import('/client/index.js');
  const signIn = () => fetch('/demo/sign-in', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ name }) });
  const client = new OffhookClient({ token: async () => (await (await signIn()).json()).token, device: { name: 'test' } });
  await client.connect();
  const room = await client.joinRoom('weekly');
  globalThis.room = room;
  globalThis.named = (user) => [...room.participants.values()].find((one) => one.user === user);
  globalThis.heard = [];
  room.on('data', ({ participant, bytes, reliable, named }) => {
    const text = new TextDecoder().decode(bytes);
    if (text !== 'ready') globalThis.heard.push([participant?.user, text.length > 100 ? text.length : text, reliable, named]);
  });
}

/** Runs in the page: the names both ends have for one another in ICE. */
function credentials() {
  const [connection] = globalThis.keptConnections;
  const name = ({ sdp }) => sdp.match(/a=ice-ufrag:(.*)/)[1];
  const isConnected = connection.signalingState === 'stable' && connection.connectionState === 'connected';
  return { isConnected, own: name(connection.currentLocalDescription), servers: name(connection.currentRemoteDescription) };
}

/** Runs in the page: sends, and returns the code of what refused it. */
async function say({ text, to = [], reliable = true }) {
  try {
    await globalThis.room.data.send(new TextEncoder().encode(text), { to: to.map(globalThis.named), reliable });
    return null;
  } catch (error) {
    return error.code;
  }
}

async function heardBy(person, expected) {
  const sorted = (messages) => messages.map((message) => JSON.stringify(message)).sort();
  await eventually(`${person.name} has heard all`, async () => {
    const heard = await person.page.evaluate(() => globalThis.heard);
    return heard.length >= expected.length || Promise.reject(new Error(JSON.stringify(heard)));
  });
  assert.deepEqual(sorted(await person.page.evaluate(() => globalThis.heard)), sorted(expected));
}
