/** The words of meetings: why one was not joined, how one ended, what is worth saying about somebody in it. */

import { errorWords, phoneWords } from "../messages.js";

/** @typedef {import("../messages.js").Words} Words */
/** @typedef {import("../../client/index.js").Participant} Participant */

/** @type {Record<string, Words>} */
const REFUSALS = {
  room_locked: { title: "The meeting is locked", detail: "Nobody else may come in. Ask somebody inside to unlock it." },
  room_full: { title: "The meeting is full", detail: "There is no place left. Try again when somebody has gone." },
  lobby_denied: { title: "You were not let in", detail: "Somebody inside has decided so." },
  forbidden: { title: "Not allowed", detail: "Your access token does not permit this." },
  bad_data: { title: "That is not a meeting", detail: "A name has letters, digits and hyphens." },
  media_refused: {
    title: "The meeting did not start",
    detail: "The server and this browser did not agree on pictures and sound. Reload, and try again.",
  },
  media_failed: {
    title: "The meeting did not start",
    detail: "This browser did not get its pictures and sound ready. Reload, and try again.",
  },
  cannot_encrypt: {
    title: "This browser cannot encrypt",
    detail: "The meeting is encrypted from end to end. A current Chrome, Edge, Firefox or Safari can take part.",
  },
  not_encrypted: {
    title: "This meeting is not encrypted",
    detail: "Somebody began it without end-to-end encryption. Join without, or begin another one.",
  },
  bad_signature: {
    title: "Somebody cannot be trusted",
    detail: "The key of somebody in this meeting is not signed by their device. They neither see nor hear you.",
  },
  bad_key: {
    title: "Somebody may not be heard",
    detail: "A key that came for this meeting is not what it should be. If somebody stays silent, leave and join again.",
  },
  unknown_type: { title: "No meetings here", detail: "This server has none." },
};

/** @type {Record<string, Words & { again: boolean }>} */
const ENDS = {
  left: { title: "You left the meeting", detail: "", again: true },
  ended: { title: "The meeting is over", detail: "It was ended for everybody.", again: false },
  removed: { title: "You were removed", detail: "Somebody who looks after this meeting has decided so.", again: false },
  denied: { title: "You were not let in", detail: "Somebody inside has decided so.", again: true },
  replaced: { title: "Taken over", detail: "You went on in another window or on another device.", again: true },
  closed: { title: "Not connected", detail: "The connection to the server is closed. Reload the page.", again: false },
};

/** What a role is called, and what it is about. */
export const ROLE_WORDS = {
  listener: "Listener",
  speaker: "Participant",
  moderator: "Moderator",
};

/** What a phone in a meeting does. */
export const LINE_WORDS = {
  ringing: "Phone, ringing",
  talking: "Phone",
};

export const QUALITY_WORDS = {
  lost: "Connection lost",
  poor: "Poor connection",
  good: "Fair connection",
  excellent: "Good connection",
};

/** What is worth saying of somebody's Device in an encrypted meeting. @type {Record<string, string>} */
export const DEVICE_WORDS = {
  changed: "Another key than before",
  refused: "Not trusted: sees and hears nothing of you",
};

/** @param {unknown} error @returns {Words} why a meeting was not joined */
export function refusalWords(error) {
  const code = error && typeof error === "object" && "code" in error ? String(error.code) : "";
  return REFUSALS[code] ?? errorWords(error);
}

/** @param {string} reason @returns {Words & { again: boolean }} */
export function endWords(reason) {
  return ENDS[reason] ?? { ...refusalWords({ code: reason }), again: true };
}

/**
 * Why a number that was called into a meeting did not come; null where somebody here gave up.
 *
 * @param {string} name @param {string | undefined} reason
 * @returns {Words | null}
 */
export function unansweredWords(name, reason) {
  switch (reason) {
    case "busy":
      return { title: `${name} is busy`, detail: "Try again later." };
    case "no_answer":
      return { title: `${name} does not answer`, detail: "Nobody picked up." };
    case "declined":
      return { title: `${name} declined`, detail: "They cannot talk right now." };
    default: {
      const told = phoneWords(reason);
      return told && { title: told.title, detail: `${name}: ${told.detail}` };
    }
  }
}

/** @param {number} count */
export function people(count) {
  return count === 1 ? "1 person" : `${count} people`;
}

/**
 * How somebody is, for who cannot see the signs on their tile.
 *
 * @param {{ isMuted: boolean, isHidden: boolean, hasHand: boolean, quality: Participant["quality"] }} facts
 */
export function factWords({ isMuted, isHidden, hasHand, quality }) {
  const words = [
    isMuted && "muted",
    isHidden && "camera off",
    hasHand && "hand raised",
    quality && QUALITY_WORDS[quality].toLowerCase(),
  ];
  return words
    .filter(Boolean)
    .map((word) => `, ${word}`)
    .join("");
}
