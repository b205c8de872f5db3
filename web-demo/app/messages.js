/**
 * The words for everything that can go wrong or come to an end, in one place and in one voice:
 * what happened, then what to do about it.
 */

import { durationInWords } from "./format.js";

/** @typedef {{ title: string, detail: string }} Words */
/** @typedef {import("./state.js").Call} Call */

/** @type {Record<string, Words>} */
const MEDIA = {
  insecure: {
    title: "This page is not secure",
    detail:
      "Browsers give camera and microphone only to pages opened by https or on localhost. Open http://localhost here, " +
      "or start the server with --lan and use the https address it prints.",
  },
  unsupported: {
    title: "This browser cannot make calls",
    detail: "It has no access to cameras and microphones. A current Chrome, Edge, Firefox or Safari has.",
  },
  "no-camera": {
    title: "No camera found",
    detail: "Connect one, or call with sound only.",
  },
  "no-microphone": {
    title: "No microphone found",
    detail: "Connect one and try again. Without it the other side cannot hear you.",
  },
  "denied-camera": {
    title: "The camera is blocked",
    detail: "Allow it with the camera sign in the address bar, or in the system's privacy settings, and try again.",
  },
  "denied-microphone": {
    title: "The microphone is blocked",
    detail:
      "Allow it with the sign at the left of the address bar, or in the system's privacy settings, and try again.",
  },
  "in-use-camera": {
    title: "The camera is in use",
    detail: "Another program or tab holds it. Close that one and try again.",
  },
  "in-use-microphone": {
    title: "The microphone is in use",
    detail: "Another program or tab holds it. Close that one and try again.",
  },
  "failed-camera": {
    title: "The camera did not start",
    detail: "Choose another one in the device settings, or try again.",
  },
  "failed-microphone": {
    title: "The microphone did not start",
    detail: "Choose another one in the device settings, or try again.",
  },
  "failed-screen": {
    title: "The screen was not shared",
    detail: "The browser or the system refused. Try another window.",
  },
  "no-screen": {
    title: "Screen sharing is not possible here",
    detail: "This browser, as most on phones, cannot share its screen.",
  },
};

/**
 * @param {string} code of a `MediaProblem`
 * @returns {Words}
 */
export function mediaWords(code) {
  return MEDIA[code] ?? MEDIA["failed-microphone"];
}

/** @type {Record<string, Words>} */
const ERRORS = {
  unauthorized: { title: "Signed out", detail: "The server does not accept the access token. Sign in again." },
  token_expired: { title: "Signed out", detail: "The access token has expired. Sign in again." },
  forbidden: { title: "Not allowed", detail: "Your access token does not permit this." },
  rate_limited: { title: "Too fast", detail: "The server asks for a moment of rest. Try again in a few seconds." },
  too_many_sessions: { title: "Too many windows", detail: "You are signed in too often. Close some of the others." },
  too_many_calls: { title: "Too many calls", detail: "End one of your calls before you start another." },
  unknown_user: { title: "Nobody by that name", detail: "This person is not known to the server any more." },
  self_call: { title: "That is you", detail: "Open a second window under another name and call that one." },
  phone_unavailable: { title: "No phone calls here", detail: "This server is not connected to the phone network now." },
  bad_number: { title: "That is no number", detail: "Write it as +49 30 123456 or 42, or as name@host for an address of SIP." },
  unknown_voicemail: { title: "That message is gone", detail: "Somebody who shares it has deleted it." },
  unknown_call: { title: "That call is over", detail: "The server does not know it any more." },
  conflict: { title: "Too late", detail: "The call had changed in the meantime." },
  wrong_phase: { title: "Too late", detail: "The call had changed in the meantime." },
  peer_gone: { title: "The other side is gone", detail: "Their device is not connected to the server." },
  weak_fingerprint: { title: "Call refused", detail: "The other side offered encryption that is too weak." },
  origin_refused: { title: "Refused", detail: "The server does not accept calls from this web address." },
  network: { title: "No connection", detail: "The server cannot be reached. Check the network and try again." },
  closed: { title: "Not connected", detail: "The connection to the server is closed. Reload the page." },
  insecure_context: MEDIA.insecure,
  media_failed: { title: "The call failed", detail: "No way between the two browsers was found, or it was lost." },
  fingerprint_mismatch: {
    title: "Call not safe",
    detail: "The other side’s encryption key is not the one it announced. Somebody may sit in between.",
  },
  bad_signature: {
    title: "Call not safe",
    detail: "The other side’s signature is wrong. Somebody may sit in between.",
  },
  commitment_mismatch: {
    title: "Call not safe",
    detail: "The other side did not keep to what it had announced. Somebody may sit in between.",
  },
  internal: { title: "The server stumbled", detail: "Something went wrong there. Try again." },
};

/**
 * @param {unknown} error
 * @returns {Words}
 */
export function errorWords(error) {
  const code = error && typeof error === "object" && "code" in error ? String(error.code) : "";
  if (ERRORS[code]) return ERRORS[code];
  return {
    title: "That did not work",
    detail: error instanceof Error && error.message ? sentence(error.message) : "Try again.",
  };
}

/** Why the phone network did not put a call through, by the reason it came with. @type {Record<string, Words>} */
const PHONE = {
  no_such_number: { title: "No such number", detail: "Check it, the code of the country too." },
  refused: { title: "The provider refused", detail: "Your phone provider does not put this call through." },
  no_codec: { title: "No common codec", detail: "The other side speaks no codec that this server does." },
  loop: { title: "The call went in circles", detail: "It came back to where it began. Tell who runs this server." },
  congested: { title: "The lines are busy", detail: "The provider takes no calls at the moment. Try again." },
  unreachable: { title: "The provider is out of reach", detail: "It does not answer this server. Try again later." },
  unavailable: { title: "No phone calls here", detail: "This server is not connected to the phone network now." },
  lost: { title: "The phone call is gone", detail: "The connection to the phone network was lost." },
  timed_out: { title: "The phone call is gone", detail: "Nothing was heard of the other side any more." },
  no_route: { title: "No way to that number", detail: "No phone line of your company takes calls to it." },
  forbidden: { title: "Not allowed", detail: "The rules of your company do not allow calls to this number." },
  emergency: { title: "No emergency calls here", detail: "Use another phone. This server does not reach emergency services." },
  limit_reached: { title: "A limit is reached", detail: "Too many calls at once, or too many minutes. Try again later." },
  full: { title: "The server is full", detail: "It takes no more phone calls at the moment. Try again." },
  failed: { title: "The call failed", detail: "The phone network did not put it through. Try again." },
};

/**
 * Why the phone network did not put a call through; null where it is no news that it did not, or nobody knows.
 *
 * @param {string | null | undefined} reason
 * @returns {Words | null}
 */
export function phoneWords(reason) {
  return PHONE[reason ?? ""] ?? null;
}

/**
 * How a Call ended, seen from here.
 *
 * @param {Call} call
 * @param {{ me: string, to: string, nameOf: (user: string) => string }} who
 * @returns {Words & { tone: "calm" | "warning" | "bad", again: boolean }}
 */
export function endWords(call, { me, to, nameOf }) {
  const name = call.peer.name;
  const out = call.direction === "out";
  const talked = call.answeredAt ? `You talked for ${durationInWords(Date.now() - call.answeredAt)}.` : "";
  /** @param {string} title @param {string} detail @param {"calm" | "warning" | "bad"} tone @param {boolean} again */
  const words = (title, detail, tone, again) => ({ title, detail, tone, again });

  const told = phoneWords(call.end?.phone?.reason);
  if (told) return words(told.title, `${told.detail} ${talked}`.trim(), "bad", true);
  if (call.isPhone && out && call.end?.reason === "cancelled") return words("Call cancelled", "", "calm", false);
  if (call.isPhone && out && call.end?.reason === "missed")
    return words("No answer", `Nobody picked up at ${name}.`, "warning", true);

  switch (call.end?.reason) {
    case "declined":
      return out
        ? words(`${name} declined`, "They cannot talk right now.", "warning", true)
        : words("Declined", `${name} was told that you cannot talk now.`, "calm", false);
    case "busy":
      return out
        ? words(`${name} is busy`, "They are in another call or do not want to be disturbed.", "warning", true)
        : words("Busy", `${name} heard that you are busy.`, "calm", false);
    case "cancelled":
      return out
        ? words("Call cancelled", `${name} sees a missed call.`, "calm", false)
        : words(`Missed call from ${name}`, "They hung up before you answered.", "warning", true);
    case "missed":
      return out
        ? words("No answer", `${name} did not pick up and sees a missed call.`, "warning", true)
        : words(`Missed call from ${name}`, "It rang until time was up.", "warning", true);
    case "unavailable":
      return words(
        `${name} cannot be reached`,
        "None of their devices is online. They will see a missed call.",
        "warning",
        true,
      );
    case "failed":
      return words(
        "The call failed",
        "No way between the two browsers was found, or it was lost. Try again.",
        "bad",
        true,
      );
    case "gone":
      return words(
        "The other side vanished",
        `${name}’s connection was lost and did not come back. ${talked}`.trim(),
        "bad",
        true,
      );
    case "transferred":
      return call.end.by === me
        ? words("Transferred", `${name} talks with ${to} now.`, "calm", false)
        : words("You were transferred", "The call goes on with somebody else.", "calm", false);
    case "merged":
      return words("One call", "You called each other at the same moment.", "calm", false);
    case "bad_signature":
    case "fingerprint_mismatch":
    case "commitment_mismatch":
      return words("Call stopped for safety", ERRORS[call.end.reason].detail, "bad", false);
    default: {
      const by = call.end?.by;
      return words("Call ended", by && by !== me ? `${nameOf(by)} hung up. ${talked}`.trim() : talked, "calm", false);
    }
  }
}

/**
 * How the server is reached, when there is something to say about it.
 *
 * @param {import("./state.js").State} state
 * @returns {(Words & { tone: "warning" | "bad" }) | null}
 */
export function linkWords(state) {
  const talking = state.calls.some((call) => call.phase === "active");
  const goesOn = talking ? " A call that runs directly goes on meanwhile." : "";

  // On localhost the server answers without any network, and then there is nothing to tell.
  if (!state.online && state.link !== "connected") {
    const detail = talking
      ? "Your call continues as soon as the network is back."
      : "You can call again when the network is back.";
    return { title: "You are offline", detail, tone: "bad" };
  }
  if (state.link === "reconnecting") {
    return state.linkReason === "goaway"
      ? { title: "The server is restarting", detail: `It will be back in a moment.${goesOn}`, tone: "warning" }
      : { title: "Reconnecting", detail: `The server cannot be reached at the moment.${goesOn}`, tone: "warning" };
  }
  if (state.link === "closed") {
    if (state.linkReason === "closed") {
      return {
        title: "Taken over",
        detail: "You went on in another window or tab, so this one has stopped.",
        tone: "warning",
      };
    }
    const why = state.linkReason === "network" ? null : ERRORS[state.linkReason];
    if (why) return { ...why, tone: "bad" };
    return { title: "The server cannot be reached", detail: "Trying again every few seconds.", tone: "bad" };
  }
  return null;
}

/** What a presence status is called. */
export const STATUS_WORDS = /** @type {Record<string, string>} */ ({
  available: "Available",
  away: "Away",
  do_not_disturb: "Do not disturb",
  in_call: "In a call",
  offline: "Offline",
});

/** @param {string} text */
function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(start) ? start : `${start}.`;
}
