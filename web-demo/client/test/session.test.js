import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeServer } from "../fake/server.js";
import { Session } from "../session.js";

test("connecting shows the token and the Device, and ends with the welcome", async (t) => {
  const { server, session, connected, states } = start(t);
  await pass(t, 10);
  await connected;
  assert.equal(server.hellos[0].token, "alice");
  assert.equal(server.hellos[0].device.id, "D1");
  assert.equal(server.hellos[0].resume, undefined);
  assert.deepEqual(states, ["connecting", "connected"]);
  assert.equal(session.state, "connected");
});

test("a refused token ends the Session with the server's code", async (t) => {
  const server = new FakeServer();
  server.refusals.set("alice", "unauthorized");
  const { session, connected } = start(t, { server });
  const refused = assert.rejects(connected, { code: "unauthorized" });
  await pass(t, 10);
  await refused;
  assert.equal(session.state, "closed");
});

test("a first attempt that reaches nobody rejects with network", async (t) => {
  const server = new FakeServer();
  server.reachable = false;
  const { connected } = start(t, { server });
  const failed = assert.rejects(connected, { code: "network" });
  await pass(t, 10);
  await failed;
});

test("a server that says nothing is given up after ten seconds", async (t) => {
  const open = () => ({ readyState: 0, send() {}, close() {} });
  const { connected } = start(t, { open });
  const failed = assert.rejects(connected, { code: "network" });
  await pass(t, 10_100);
  await failed;
});

test("connecting can be aborted, before and while it runs", async (t) => {
  const already = start(t, { signal: AbortSignal.abort() });
  await assert.rejects(already.connected, { code: "aborted" });
  assert.equal(already.server.sockets.size, 0);

  const controller = new AbortController();
  const { connected, session, server } = start(t, { signal: controller.signal });
  const aborted = assert.rejects(connected, { code: "aborted" });
  await turn();
  controller.abort();
  await aborted;
  assert.equal(session.state, "closed");
  assert.equal(server.sockets.size, 0);
});

test("a token function is asked at each attempt, and once more when the token has expired", async (t) => {
  const server = new FakeServer();
  server.refusals.set("old", "token_expired");
  const tokens = ["old", "alice", "alice"];
  const { connected } = start(t, { server, token: async () => tokens.shift() });
  await pass(t, 2_000);
  await connected;
  server.cut();
  await pass(t, 2_000);
  assert.deepEqual(
    server.hellos.map(({ token }) => token),
    ["old", "alice", "alice"],
  );
});

test("a lost socket is resumed with the latest key and what was received", async (t) => {
  const { server, session, states } = await connectedStart(t);
  await answered(t, session.command("echo", { n: 1 }));
  const { key } = [...server.sessions.values()][0];
  server.cut();
  await pass(t, 1_000);
  assert.deepEqual(server.hellos[1].resume, { session: [...server.sessions.keys()][0], key, ack: 1 });
  assert.deepEqual(states, ["connecting", "connected", "reconnecting network", "connected"]);
});

test("a command that never left is sent when the Session resumes", async (t) => {
  const { server, session } = await connectedStart(t);
  server.cut();
  await pass(t, 1);
  const answer = session.command("echo", { n: 2 });
  assert.deepEqual(await answered(t, answer), { n: 2 });
  assert.deepEqual(echoes(server), [2]);
});

test("an answer that was lost comes again, and the command is not repeated", async (t) => {
  const { server, session } = await connectedStart(t);
  const answer = session.command("echo", { n: 3 });
  // One task for the command to arrive; the answer is on its way when the socket dies.
  t.mock.timers.tick(1);
  const [socket] = server.sockets;
  socket.onmessage = null;
  server.cut();
  assert.deepEqual(await answered(t, answer), { n: 3 });
  assert.deepEqual(echoes(server), [3]);
});

test("after a crash unanswered commands come again under their ids, after those sent at the welcome", async (t) => {
  const { server, session, onWelcome } = await connectedStart(t);
  const before = session.command("echo", { n: 4 });
  server.crash();
  onWelcome.push(() => session.command("call.sync", { call: "C", sealed: "" }).catch(() => {}));
  assert.deepEqual(await answered(t, before), { n: 4 });
  const sent = server.frames.filter(([, { seq }]) => seq).map(([, { type, seq }]) => `${type} ${seq}`);
  assert.deepEqual(sent, ["call.sync 1", "echo 2"]);
});

test("an answered command is not sent again after a crash", async (t) => {
  const { server, session } = await connectedStart(t);
  await answered(t, session.command("echo", { n: 5 }));
  server.crash();
  await pass(t, 1_000);
  assert.deepEqual(echoes(server), [5]);
});

test("after a gap the socket is closed with 4002, and what was missing comes with the resume", async (t) => {
  const { server, session, messages } = await connectedStart(t);
  const [held] = server.sessions.values();
  const { socket } = held;
  held.socket = null;
  server.send(held, "presence", { n: 1 });
  held.socket = socket;
  server.send(held, "presence", { n: 2 });
  await pass(t, 3);
  assert.equal(socket.closedWith, 4002);
  assert.deepEqual(messages, []);
  await pass(t, 2_000);
  assert.equal(session.state, "connected");
  assert.deepEqual(messages, [1, 2]);
});

test("what comes twice is heard once", async (t) => {
  const { server, messages } = await connectedStart(t);
  const [held] = server.sessions.values();
  server.send(held, "presence", { n: 1 });
  held.socket.deliver(held.outbox[0]);
  await pass(t, 3);
  assert.deepEqual(messages, [1]);
});

test("sixteen messages are acknowledged at once, fewer after a second", async (t) => {
  const { server } = await connectedStart(t);
  const [held] = server.sessions.values();
  for (let n = 1; n <= 16; n++) server.send(held, "presence", { n });
  await pass(t, 4);
  assert.equal(held.outbox.length, 0);

  server.send(held, "presence", { n: 17 });
  await pass(t, 500);
  assert.equal(held.outbox.length, 1);
  await pass(t, 600);
  assert.equal(held.outbox.length, 0);
});

test("attempts are spread and grow apart, to fifteen seconds, or to one and a half in a Call", async (t) => {
  for (const [inCall, most] of [
    [false, 15_000],
    [true, 1_500],
  ]) {
    const { server, session } = await connectedStart(t, { random: () => 1 });
    session.setInCall(inCall);
    const attempts = [];
    let now = 0;
    const open = server.open;
    server.open = () => (attempts.push(now), open());
    server.reachable = false;
    server.cut();
    for (; now < 100_000; now += 50) await pass(t, 50, 50);

    const pauses = attempts.slice(1).map((at, i) => at - attempts[i]);
    assert.ok(attempts[0] <= 300, "the first comes soon");
    assert.ok(pauses.every((pause, i) => i === 0 || pause >= pauses[i - 1] - 50), `${pauses}`);
    assert.ok(Math.abs(Math.max(...pauses) - most) <= 150, `${pauses}`);
    session.close();
  }
});

test("after two failed sockets, requests find out when the server is back, with a socket now and then", async (t) => {
  const server = new FakeServer();
  const tries = [];
  const open = () => (tries.push("socket"), server.open());
  const reach = async () => (tries.push("request"), server.reachable);
  const { session } = await connectedStart(t, { server, open, reach });
  tries.length = 0;
  server.reachable = false;
  server.cut();
  while (tries.length < 9) await pass(t, 50, 50);
  const requests = Array(6).fill("request");
  assert.deepEqual(tries, ["socket", "socket", ...requests, "socket"]);

  server.reachable = true;
  await pass(t, 15_100, 50);
  assert.deepEqual(tries.slice(9), ["request", "socket"]);
  assert.equal(session.state, "connected");
});

test("a server that said it goes away is the reason until one welcomes us again", async (t) => {
  const { server, session, states } = await connectedStart(t);
  const [held] = server.sessions.values();
  held.socket.deliver({ type: "goaway", id: "G", data: { in_ms: 100, reason: "stop" } });
  await pass(t, 1);
  server.reachable = false;
  server.cut(1001);
  await pass(t, 5_000);
  server.reachable = true;
  await pass(t, 15_100, 50);
  server.cut();
  await pass(t, 1_000);
  assert.deepEqual(states.slice(2), ["reconnecting goaway", "connected", "reconnecting network", "connected"]);
  session.close();
});

test("who wakes up from sleep finds out soon that the socket is dead", async (t) => {
  const { server, session, states } = await connectedStart(t, { apis: ["setTimeout", "Date"] });
  const [socket] = server.sockets;
  socket.send = () => {};
  await pass(t, 1_000);
  // The clock goes on without the timers.
  t.mock.timers.setTime(Date.now() + 3_600_000);
  await pass(t, 25_000 + 3_000, 50);
  assert.deepEqual(states.slice(2), ["reconnecting network", "connected"]);
  assert.equal(session.state, "connected");
  session.close();
});

test("two pings without an answer give the socket up, sooner in a Call", async (t) => {
  for (const [inCall, within] of [
    [false, 76_000],
    [true, 16_000],
  ]) {
    const { server, session } = await connectedStart(t);
    session.setInCall(inCall);
    const [socket] = server.sockets;
    // Half open: nothing arrives, nothing is closed.
    socket.send = () => {};
    await pass(t, within - 2_000, 50);
    assert.equal(session.state, "connected");
    await pass(t, 3_000, 50);
    assert.equal(server.hellos.length, 2);
    assert.equal(session.state, "connected");
    session.close();
  }
});

test("a probe finds a dead socket within seconds", async (t) => {
  const { server, session } = await connectedStart(t);
  server.sockets.forEach((socket) => (socket.send = () => {}));
  session.probe();
  await pass(t, 3_500, 50);
  assert.equal(server.hellos.length, 2);
  assert.equal(session.state, "connected");
});

test("after goaway the new socket is welcomed before the old one closes", async (t) => {
  const { server, session, states, messages } = await connectedStart(t);
  const [held] = server.sessions.values();
  held.socket.deliver({ type: "goaway", id: "x", data: { in_ms: 2_000, reason: "deploy" } });
  server.send(held, "presence", { n: 1 });
  const answer = session.command("echo", { n: 2 });
  assert.deepEqual(await answered(t, answer), { n: 2 });
  await pass(t, 2_000);
  assert.equal(server.hellos.length, 2);
  assert.deepEqual(states, ["connecting", "connected"]);
  assert.deepEqual(messages, [1]);
  assert.equal(server.sockets.size, 1);
});

test("a Session that is used elsewhere ends here", async (t) => {
  const { server, session } = await connectedStart(t);
  server.cut(4001);
  await pass(t, 10);
  assert.equal(session.state, "closed");
});

test("what waits for the connection is bounded", async (t) => {
  const { server, session } = await connectedStart(t);
  await assert.rejects(session.command("echo", { text: "x".repeat(65_536) }), { code: "too_large" });
  server.reachable = false;
  server.cut();
  await pass(t, 1);
  const waiting = Array.from({ length: 256 }, (_, n) => session.command("echo", { n }));
  await assert.rejects(session.command("echo"), { code: "session_overflow" });
  server.reachable = true;
  await answered(t, Promise.all(waiting));
  assert.equal(echoes(server).length, 256);
});

test("a command that came too fast is sent again after a pause, an invite is not", async (t) => {
  const { server, session } = await connectedStart(t);
  const [held] = server.sessions.values();
  const tired = (id) => held.answered.set(id, ["error", { code: "rate_limited" }]);
  server.receive = ((receive) => (socket, frame) => {
    if (frame.type !== "bye" && !held.answered.has(frame.id)) tired(frame.id);
    else held.answered.delete(frame.id);
    receive.call(server, socket, frame);
  })(server.receive);
  assert.deepEqual(await answered(t, session.command("echo", { n: 1 })), { n: 1 });
  await assert.rejects(answered(t, session.command("call.invite", { n: 2 })), { code: "rate_limited" });
});

test("closing says bye and rejects what is open", async (t) => {
  const { server, session, states } = await connectedStart(t);
  const open = assert.rejects(session.command("echo"), { code: "closed" });
  session.close();
  await open;
  assert.equal(states.at(-1), "closed closed");
  await assert.rejects(session.command("echo"), { code: "closed" });
  await pass(t, 30_000, 100);
  assert.equal(server.hellos.length, 1);
});

test("however sockets die, every command has its effect once and every message is heard once, in order", async (t) => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = generator(seed);
    const { server, session, messages } = await connectedStart(t, { random });
    const [held] = server.sessions.values();
    const answers = [];
    let told = 0;
    for (let step = 0; step < 60; step++) {
      const dice = random();
      if (dice < 0.4) answers.push(session.command("echo", { n: answers.length }));
      else if (dice < 0.7) server.send(held, "presence", { n: ++told });
      else if (dice < 0.8) server.cut();
      t.mock.timers.tick(1 + Math.floor(random() * 3));
      await turn();
    }
    const all = await answered(t, Promise.all(answers));
    await pass(t, 3_000, 5);
    const expected = answers.map((_, n) => n);
    assert.deepEqual(all, expected.map((n) => ({ n })), `seed ${seed}`);
    assert.deepEqual(messages, Array.from({ length: told }, (_, n) => n + 1), `seed ${seed}`);
    assert.deepEqual([...new Set(echoes(server))], expected, `seed ${seed}`);
    session.close();
  }
});

/** A Session that has begun to connect to a fake server, on a clock that only `pass` moves. */
function start(t, { server = new FakeServer(), token = "alice", open, reach, random = () => 0.5, signal, apis = ["setTimeout"] } = {}) {
  t.mock.timers.reset();
  t.mock.timers.enable({ apis });
  const states = [];
  const messages = [];
  const onWelcome = [];
  const session = new Session({
    url: "ws://server/v1/calls",
    token,
    device: { id: "D1", name: "test", key: "K" },
    open: open ?? (() => server.open()),
    reach: reach ?? (async () => true),
    random,
    handlers: {
      onState: (state, reason) => states.push([state, reason].filter(Boolean).join(" ")),
      onWelcome: () => onWelcome.splice(0).forEach((then) => then()),
      onMessage: (_type, { n }) => messages.push(n),
      onError: () => {},
    },
  });
  return { server, session, connected: session.connect(signal), states, messages, onWelcome };
}

async function connectedStart(t, options) {
  const started = start(t, options);
  await pass(t, 10);
  await started.connected;
  return started;
}

/** Lets `ms` pass, and everything happen that is due. */
async function pass(t, ms, step = 1) {
  for (let passed = 0; passed < ms; passed += step) {
    t.mock.timers.tick(step);
    await turn();
  }
}

/** Lets time pass until the promise has settled. */
async function answered(t, promise) {
  let isSettled = false;
  const settled = promise.finally(() => (isSettled = true));
  settled.catch(() => {});
  for (let passed = 0; passed < 60_000 && !isSettled; passed++) await pass(t, 1);
  return promise;
}

/** The unmocked end of this turn of the event loop, when every promise that can go on has. */
function turn() {
  return new Promise(setImmediate);
}

/** The commands that had an effect: those answered for the first time, by their number. */
function echoes(server) {
  const seen = new Set();
  return server.frames
    .filter(([, { type, id }]) => type === "echo" && !seen.has(id) && seen.add(id))
    .map(([, { data }]) => data.n);
}

/** Mulberry32: small, seeded. */
function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
