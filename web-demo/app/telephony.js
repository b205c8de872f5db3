/** What people leave on the answering machine, and how one wants to be called by phone. */

import { toast } from "./announce.js";
import { attempt } from "./attempt.js";
import { ofVoicemail, withNews, withPage } from "./pages.js";
import { store } from "./state.js";

/** @typedef {import("../client/index.js").OffhookClient} OffhookClient */
/** @typedef {import("../client/index.js").VoicemailEntry} VoicemailEntry */
/** @typedef {import("../client/index.js").PhoneSettings} PhoneSettings */

const PAGE = 30;

/** @type {OffhookClient} */
let client;

/** Keeps the list up to date with what the server tells. @param {OffhookClient} next */
export function followVoicemail(next) {
  client = next;
  client.on("voicemail", ({ entry, deleted, unheard }) => {
    const { voicemails, voicemailKnown, voicemailNext } = store.state;
    const isNew = entry && !entry.heard && !voicemails.some(({ voicemail }) => voicemail === entry.voicemail);
    const others = voicemails.filter(({ voicemail }) => voicemail !== deleted);
    const isTold = entry && voicemailKnown;
    store.set({ unheard, voicemails: isTold ? withNews(others, entry, ofVoicemail, voicemailNext === null) : others });
    // Who looks at the list sees it come.
    if (!isNew || (store.state.tab === "voicemail" && !document.hidden)) return;
    const detail = entry.queue ? `For everybody in ${entry.queue}.` : "It waits under Voicemail.";
    toast(`Message from ${entry.peer.name}`, detail, {
      key: `voicemail-${entry.voicemail}`,
      action: { label: "Show", run: () => store.set({ tab: "voicemail", minimised: true }) },
    });
  });
}

/** Loads the newest messages, or what comes after those that are there. */
export async function loadVoicemail({ older = false } = {}) {
  await attempt(async () => {
    const before = older ? (store.state.voicemailNext ?? undefined) : undefined;
    const telephony = await client.telephony();
    const page = await telephony.voicemails({ before, limit: PAGE });
    const kept = older ? store.state.voicemails : [];
    store.set({
      voicemails: withPage(kept, page.voicemails, ofVoicemail),
      voicemailNext: page.next ?? null,
      voicemailKnown: true,
      unheard: page.unheard,
    });
  });
}

/**
 * What was said, as an address for an `<audio>`; to be revoked.
 *
 * @param {string} voicemail
 */
export async function soundOf(voicemail) {
  const telephony = await client.telephony();
  return URL.createObjectURL(await telephony.sound(voicemail));
}

/** Tells everybody whose message it is that it was heard. @param {VoicemailEntry} entry */
export async function markHeard({ voicemail, heard }) {
  if (heard) return;
  const telephony = await client.telephony();
  // It is played all the same; the sign stays, and the next time tries again.
  await telephony.heard(voicemail).catch(() => {});
}

/** @param {string} voicemail */
export async function deleteVoicemail(voicemail) {
  await attempt(async () => {
    const telephony = await client.telephony();
    await telephony.delete(voicemail);
  });
}

/** @returns {Promise<PhoneSettings>} */
export async function phoneSettings() {
  return (await client.telephony()).settings();
}

/** @param {PhoneSettings} settings @returns {Promise<PhoneSettings>} as they were understood */
export async function setPhone(settings) {
  return (await client.telephony()).set(settings);
}
