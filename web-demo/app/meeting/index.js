/** The part of the page that meetings need, loaded with the first one. */

import { store } from "../state.js";
import { Meeting } from "./meeting.js";
import { mountMeeting } from "./views/frame.js";

/** @type {Promise<void> | null} */
let mounting = null;

/**
 * Opens a meeting at its device check, or brings back the one that is open.
 *
 * @param {import("../../client/index.js").OffhookClient} client
 * @param {string} name
 * @param {boolean} wantsEncryption
 */
export async function openMeeting(client, name, wantsEncryption) {
  await (mounting ??= mountMeeting());
  const { meeting } = store.state;
  const isInside = meeting?.phase === "in" || meeting?.phase === "waiting";
  if (meeting && (meeting.name === name || isInside)) {
    await meeting.setAside(false);
    return;
  }
  meeting?.close();
  store.set({ meeting: new Meeting(client, name, wantsEncryption), outcome: null });
}
