// Firewalls. Each call connects through the real page, served over TLS, and takes the way it must.

import assert from 'node:assert/strict';

import { story } from '../browser/lib/story.mjs';
import { eventually } from '../browser/lib/wait.mjs';
import { makeAuthority, makeHome } from './pki.mjs';
import { SERVER, SERVER_SECOND, SERVER_V6, startRig } from './rig.mjs';

const DIRECT = /^host\/udp -> (host|prflx)\/udp$/;
const BETWEEN_ROUTERS = /^(srflx|prflx)\/udp -> (srflx|prflx)\/udp$/;
const RELAYED_UDP = /^relay\/udp\/udp -> \w+\/udp$|^(prflx|srflx|host)\/udp -> relay\/udp$/;
/** Chromium stops looking for ways when the first one works, and that may be the relay over TCP. */
const BOTH_RELAYED = /^relay\/udp\/(udp|tcp|tls) -> (relay|prflx)\/udp$/;
const RELAYED_TCP = /^relay\/udp\/tcp -> (relay|prflx)\/udp$/;
const RELAYED_STREAM = /^relay\/udp\/(tcp|tls) -> (relay|prflx)\/udp$/;
const RELAYED_TLS = /^relay\/udp\/tls -> (relay|prflx)\/udp$/;

/** How long a browser tries every way before it says that there is none. */
const GIVING_UP_MS_MAX = 180_000;

scenario('a network without walls: host to host', { network: 'open', family: 4 }, DIRECT);
scenario('cone NAT on both sides: between the routers', { network: 'cone', family: 4 }, BETWEEN_ROUTERS);
scenario('symmetric NAT on both sides: the relay over UDP', { network: 'symmetric', family: 4 }, RELAYED_UDP);
scenario('no UDP: the relay over TCP', { network: 'noudp', family: 4 }, RELAYED_TCP);
scenario('nothing but TCP 443: the relay on that port', { network: 'tcp443', family: 4 }, RELAYED_STREAM, throughPort443);
scenario('nothing but TLS on TCP 443: the relay over TLS', { network: 'tls443', family: 4 }, RELAYED_TLS, throughPort443);
scenario('both sides ask for nothing but one relay', { network: 'open', family: 4, query: '?relay=1' }, BOTH_RELAYED);
scenario('both ask for nothing but one relay, and no UDP gets there', { network: 'noudp', family: 4, query: '?relay=1' }, RELAYED_TCP);
scenario('both ask for nothing but one relay, behind TLS on TCP 443', { network: 'tls443', family: 4, query: '?relay=1' }, RELAYED_TLS, throughPort443);

scenario('IPv6: host to host', { network: 'open', url: `https://[${SERVER_V6}]` }, DIRECT, ({ localAddress, remoteAddress }) => {
  assert.match(localAddress, /^fd0[12]::2$/);
  assert.match(remoteAddress, /^fd0[12]::2$/);
});

scenario('an HTTP CONNECT proxy is the only way out: the relay on port 443', {
  network: 'proxy',
  family: 4,
  async prepare(rig) {
    await rig.startProxy('ra', '10.1.0.1');
    await rig.startProxy('rb', '10.2.0.1');
  },
  flagsOf: { a: ['--proxy-server=http://10.1.0.1:3128'], b: ['--proxy-server=http://10.2.0.1:3128'] },
}, RELAYED_STREAM, throughPort443);

scenario('nginx in front of page and WebSocket, the relay beside it', {
  network: 'symmetric',
  family: 4,
  listen: ['127.0.0.1:8080'],
  settings: 'trusted_proxies = ["127.0.0.1"]',
  prepare: (rig) => rig.startNginx(),
}, RELAYED_UDP);

story('an authority nobody trusts: not even the page loads', { server: false }, async (world) => {
  const rig = await startRig('tls443', { family: 4 });
  world.whenOver(() => rig.close());
  world.server = await rig.startServer();
  const stranger = await makeHome(`${rig.folder}/stranger`);
  const chromium = await world.browser('chromium', rig.browserIn('a', { home: stranger }));
  await assert.rejects(world.visitor(chromium), /ERR_CERT_AUTHORITY_INVALID/);
});

for (const trusted of [true, false]) {
  story(`the page from nginx, and a relay whose certificate is ${trusted ? 'trusted: calls connect' : 'not: none does'}`, { server: false }, async (world) => {
    const rig = await startRig('tls443', { family: 4 });
    world.whenOver(() => rig.close());
    // The page comes from an address of its own, with a certificate that is always trusted.
    await rig.startNginx(SERVER_SECOND);
    const authority = trusted ? await rig.trust() : await makeAuthority(`${rig.folder}/other`);
    world.server = await rig.startServer({
      listen: [`${SERVER}:443`, '127.0.0.1:8080'],
      settings: 'trusted_proxies = ["127.0.0.1"]',
      certificate: await authority.sign('relay', [`IP:${SERVER}`]),
    });
    const people = await meet(world, rig, { url: `https://${SERVER_SECOND}` });
    const [alice, bob] = people;
    await alice.calls('bob');
    await bob.accepts();

    for (const person of people) {
      if (trusted) {
        await settlesOn(person, RELAYED_TLS);
      } else {
        await eventually(`ICE gives up for ${person.name}`, () => person.hasFailedToConnect(), { timeout: GIVING_UP_MS_MAX });
        assert.deepEqual(await person.media(), []);
      }
    }
  });
}

story('a second device over --lan', { server: false }, async (world) => {
  const rig = await startRig('open', { family: 4 });
  world.whenOver(() => rig.close());
  world.server = await rig.startLanServer('a');
  const home = await makeHome(`${rig.folder}/home`, [`${rig.folder}/data/development/authority.pem`]);

  const alice = await world.person(await world.browser('chromium', rig.browserIn('a', { home }), 'a'), 'Alice');
  const bob = await world.person(await world.browser('chromium', rig.browserIn('b', { home }), 'b'), 'Bob', { url: 'https://10.1.0.2:8443' });
  await bob.calls('alice');
  await alice.accepts();
  for (const person of [alice, bob]) await settlesOn(person, DIRECT);
  assert.equal(await alice.code(), await bob.code());
});

/** Alice calls Bob through a network; both must see, hear, and be connected by a pair like `way`. */
function scenario(title, { network, family, url, listen, settings, prepare, flagsOf, query }, way, check = () => {}) {
  story(title, { server: false }, async (world) => {
    const rig = await startRig(network, { family });
    world.whenOver(() => rig.close());
    await prepare?.(rig);
    world.server = await rig.startServer({ url, listen, settings });
    const [alice, bob] = await meet(world, rig, { flagsOf, query });

    await alice.calls('bob');
    await bob.accepts();
    for (const person of [alice, bob]) await person.isIn('connected');
    for (const person of [alice, bob]) {
      const media = await settlesOn(person, way);
      console.log(`${person.name}: ${wayOf(media)} (${media.localAddress} -> ${media.remoteAddress}${media.relayUrl ? `, ${media.relayUrl}` : ''})`);
      check(media);
    }
    assert.equal(await alice.code(), await bob.code());
    await alice.press('hangup');
    await bob.isIn('ended', 'idle');
  });
}

/** Alice in office a and Bob in office b, signed in with tokens. */
async function meet(world, rig, { flagsOf = {}, query = '', url = world.server.url }) {
  const people = [];
  for (const [node, user, name] of [['a', 'alice', 'Alice'], ['b', 'bob', 'Bob']]) {
    const browser = await world.browser('chromium', rig.browserIn(node, { flags: flagsOf[node] }), node);
    const token = await rig.token(user, name);
    const at = `/${query}#token=${encodeURIComponent(token)}`;
    // What stands in front of the server may still be starting.
    const person = await eventually('the page loads', () => world.visitor(browser, { at, url }));
    person.name = name;
    await person.isSignedIn();
    people.push(person);
  }
  return people;
}

/** ICE starts on the first pair that answers and moves to the best one; pictures and sound must come in on that. */
async function settlesOn(person, way) {
  return eventually(`${person.name} is connected by ${way}`, async () => {
    const media = await person.seesAndHears();
    return way.test(wayOf(media)) ? media : Promise.reject(new Error(wayOf(media)));
  });
}

function throughPort443({ relayUrl }) {
  assert.match(relayUrl, /^turns?:100\.64\.0\.2:443\?transport=tcp$/);
}

function wayOf({ local, remote }) {
  return `${local} -> ${remote}`;
}
