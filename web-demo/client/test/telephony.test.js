import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { inPage, next, people } from "../fake/page.js";

// Mailboxes and settings against the fake server; what is said in a message comes by HTTP, which the test plays.

inPage();

const fetchOfNode = globalThis.fetch;
afterEach(() => {
  globalThis.fetch = fetchOfNode;
});

test("messages are listed with who left them, page by page", async () => {
  const { server, alice } = await people("alice");
  server.telephony.leave(["alice"], { from: "sip:anonymous@anonymous.invalid", heard: true });
  server.telephony.leave(["bob"], {});
  server.telephony.leave(["alice"], { name: "Erika", queue: "sales" });
  server.telephony.leave(["alice"], {});

  const telephony = await alice.telephony();
  const first = await telephony.voicemails({ limit: 2 });
  assert.deepEqual(first.voicemails.map(({ peer, queue }) => [peer.name, queue]), [["+15550100", undefined], ["Erika", "sales"]]);
  const second = await telephony.voicemails({ limit: 2, before: first.next });
  assert.deepEqual(second.voicemails.map(({ peer }) => peer.name), ["Anonymous caller"]);
  assert.deepEqual([first.unheard, "next" in second], [2, false]);
});

test("a message that is left, heard or deleted is told to all who share it", async () => {
  const { server, alice, bob } = await people("alice", "bob");
  const left = [alice, bob].map((client) => next(client, "voicemail"));
  const id = server.telephony.leave(["alice", "bob"], { queue: "sales" });
  for (const [{ entry, unheard }] of await Promise.all(left)) assert.deepEqual([entry.voicemail, entry.peer.name, unheard], [id, "+15550100", 1]);

  const telephony = await alice.telephony();
  let news = next(bob, "voicemail");
  await telephony.heard(id);
  const [{ entry, unheard }] = await news;
  assert.deepEqual([entry.heard, unheard], [true, 0]);
  news = next(bob, "voicemail");
  await telephony.delete(id);
  assert.deepEqual((await news)[0], { deleted: id, unheard: 0 });
  await assert.rejects(telephony.heard(id), { code: "unknown_voicemail" });
});

test("what was said is asked for with the token, where the server is", async () => {
  const { alice } = await people("alice");
  const telephony = await alice.telephony();
  let asked = null;
  globalThis.fetch = async (url, { headers }) => {
    asked = [String(url), headers.authorization];
    return new Response(new Blob(["RIFF"], { type: "audio/wav" }));
  };
  const sound = await telephony.sound("01ARZ3NDEKTSV4RRFFQ69G5FAV");
  assert.deepEqual([sound.size, sound.type], [4, "audio/wav"]);
  assert.deepEqual(asked, ["http://server/v1/voicemail/01ARZ3NDEKTSV4RRFFQ69G5FAV", "Bearer alice"]);

  globalThis.fetch = async () => Response.json({ code: "token_expired", detail: "the access token has expired" }, { status: 401 });
  await assert.rejects(telephony.sound("x"), { code: "token_expired", message: "the access token has expired" });
  globalThis.fetch = async () => new Response("<html>", { status: 502 });
  await assert.rejects(telephony.sound("x"), { code: "internal" });
  globalThis.fetch = async () => {
    throw new TypeError("fetch failed");
  };
  await assert.rejects(telephony.sound("x"), { code: "network" });
  await assert.rejects(telephony.sound("x", { signal: AbortSignal.abort() }), { code: "aborted" });
});

test("settings are what the server has understood, or the reason why not", async () => {
  const { server, alice } = await people("alice");
  const telephony = await alice.telephony();
  const settings = await telephony.settings();
  assert.deepEqual([settings.do_not_disturb, settings.forward.busy], [false, null]);
  const wanted = { ...settings, do_not_disturb: true, forward: { ...settings.forward, busy: "voicemail", no_answer: { number: "+49 30 1" } } };
  assert.deepEqual(await telephony.set(wanted), wanted);
  assert.deepEqual(await telephony.settings(), wanted);

  const wrong = { ...wanted, forward: { ...wanted.forward, offline: { number: "home" } } };
  await assert.rejects(telephony.set(wrong), { code: "bad_data" });
  server.canDial = false;
  await assert.rejects(telephony.set(settings), { code: "forbidden" });
});
