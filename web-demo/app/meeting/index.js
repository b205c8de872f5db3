/** The part of the page that meetings need, loaded with the first one. */

import { wasGrownHere } from "../calls.js";
import { localMedia } from "../local-media.js";
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

/** Meetings that Calls are about to become. @type {WeakMap<import("../../client/index.js").Room, Meeting>} */
const prepared = new WeakMap();

/**
 * A Call is about to become a meeting: it is heard from now on, and not seen yet.
 *
 * @param {import("../../client/index.js").OffhookClient} client
 * @param {import("../../client/index.js").Room} room
 */
export async function prepare(client, room) {
  const meeting = new Meeting(client, room.name, room.isEncrypted, false);
  prepared.set(room, meeting);
  meeting.hear(room);
  await (mounting ??= mountMeeting());
}

/**
 * A Call has become a meeting: shows it with what the Call had open, and asks who else shall come if that is what it is for.
 *
 * @param {import("../../client/index.js").Call} call
 * @param {import("../../client/index.js").Room} room
 */
export async function goOn(call, room) {
  const meeting = prepared.get(room);
  if (!meeting || room.state === "ended") return;
  await mounting;
  const open = localMedia(call);
  const [microphone = null] = open?.stream.getAudioTracks() ?? [];
  store.state.meeting?.close();
  store.set({ meeting, outcome: null });
  const media = { microphone, camera: open?.camera ?? null, screen: open?.screen ?? null, isMuted: call.muted };
  meeting.takeOver(room, media);
  if (wasGrownHere(call)) meeting.invite();
}
