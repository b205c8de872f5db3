/**
 * The keys of the page. Single letters act only when nobody types, and can be switched off (WCAG 2.1.4).
 */

import * as calls from "./calls.js";
import { toggleCamera, toggleMute, toggleScreen } from "./local-media.js";
import { recall, remember } from "./storage.js";
import { currentCall, ringingIn, store } from "./state.js";
import { openHelp } from "./views/help.js";
import { openTransfer } from "./views/transfer.js";

/** What each key does, in the words of the help. */
export const SHORTCUTS = /** @type {[string, string][]} */ ([
  ["A", "Accept a call as it was offered"],
  ["Shift A", "Accept with sound only"],
  ["D", "Decline"],
  ["E", "End the call you are in and accept the second one"],
  ["B", "Say that you are busy"],
  ["M", "Microphone off or on"],
  ["V", "Camera off or on"],
  ["S", "Share the screen or stop"],
  ["H", "Hold or resume"],
  ["N", "Switch to the other call"],
  ["K", "Keys, in a call with a phone"],
  ["T", "Transfer"],
  ["P", "Add people"],
  ["I", "How this call is connected"],
  ["X", "Hang up"],
  ["/", "Search people"],
  ["?", "This list"],
  ["Esc", "Close what is open"],
]);

/** What they do in a meeting, where it differs. */
export const MEETING_SHORTCUTS = /** @type {[string, string][]} */ ([
  ["H", "Raise your hand or lower it"],
  ["R", "React"],
  ["C", "Chat"],
  ["P", "People"],
  ["L", "Show everybody alike, or who speaks large"],
  ["X", "Leave"],
]);

/** The buttons of a meeting that keys press: what a person may not do, a key does not do either. */
const MEETING_KEYS = /** @type {Record<string, string>} */ ({
  m: "meeting-mute",
  v: "meeting-camera",
  s: "meeting-screen",
  h: "meeting-hand",
  r: "meeting-react",
  c: "meeting-chat",
  p: "meeting-people",
  l: "meeting-layout",
  x: "meeting-leave",
});
const CHECK_KEYS = /** @type {Record<string, string>} */ ({ m: "check-microphone", v: "check-camera" });

/** A ring may pop up in the middle of a word: its keys wait until the fingers have rested this long. */
const REST_MS = 700;

let lastKey = 0;

/** @returns {boolean} */
export function shortcutsOn() {
  return recall("shortcuts") !== "off";
}

/** @param {boolean} on */
export function setShortcuts(on) {
  remember("shortcuts", on ? null : "off");
}

export function listenForShortcuts() {
  addEventListener("keydown", (event) => {
    const rested = performance.now() - lastKey > REST_MS;
    lastKey = performance.now();
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.key !== "Escape" && (!shortcutsOn() || isTyping(event.target))) return;
    const run = commandFor(event.key.toLowerCase(), event.shiftKey, rested);
    if (!run) return;
    event.preventDefault();
    run();
  });
}

/**
 * @param {string} key
 * @param {boolean} shift
 * @param {boolean} rested
 * @returns {(() => void) | null}
 */
function commandFor(key, shift, rested) {
  const [ringing] = ringingIn(store.state);
  if (ringing && rested) {
    if (key === "a") return () => void calls.accept(ringing, { video: ringing.media.video && !shift });
    if (key === "d") return () => void calls.decline(ringing, "declined");
    if (key === "e" && calls.isTalking())
      return () => void calls.accept(ringing, { video: ringing.media.video, others: "end" });
    if (key === "b") return () => void calls.decline(ringing, "busy");
  }
  if (document.querySelector("dialog:modal")) return null;
  const { meeting } = store.state;
  if (meeting && !meeting.isAside) return meetingCommand(meeting, key);
  if (key === "escape" && store.state.panelOpen) return () => store.set({ panelOpen: false });
  if (key === "?") return openHelp;
  if (key === "/") return () => document.querySelector(/** @type {"input"} */ ("#people-search"))?.focus();

  if (key === "x" && store.state.preparing) return calls.stopDialling;
  const call = currentCall(store.state);
  if (!call || call.phase === "ended") return null;
  if (key === "x") return () => void calls.end(call);
  if (call.phase !== "active") return null;
  switch (key) {
    case "m":
      return () => toggleMute(call);
    case "v":
      return call.isPhone ? null : () => void toggleCamera(call);
    case "s":
      return call.isPhone ? null : () => void toggleScreen(call);
    case "h":
      return () => void calls.toggleHold(call);
    case "t":
      return () => openTransfer(call);
    case "k":
      return () => document.querySelector(/** @type {"button"} */ ("[data-test=keys]:not([hidden])"))?.click();
    case "p":
      return () => document.querySelector(/** @type {"button"} */ ("[data-test=add-people]:not([hidden])"))?.click();
    case "i":
      return () => store.set({ panelOpen: !store.state.panelOpen });
    case "n": {
      const other = store.state.calls.find((one) => one !== call && one.phase === "active");
      return other ? () => void calls.switchTo(other) : null;
    }
    default:
      return null;
  }
}

/**
 * @param {import("./state.js").Meeting} meeting
 * @param {string} key
 * @returns {(() => void) | null}
 */
function meetingCommand(meeting, key) {
  if (key === "?") return openHelp;
  if (key === "escape" && meeting.panel) return () => meeting.togglePanel(meeting.panel);
  const test = meeting.phase === "in" ? MEETING_KEYS[key] : meeting.phase === "check" ? CHECK_KEYS[key] : undefined;
  const button = document.querySelector(/** @type {"button"} */ (`[data-test="${test}"]`));
  return button?.checkVisibility() ? () => button.click() : null;
}

/** @param {EventTarget | null} target */
function isTyping(target) {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || target.matches("input:not([type=checkbox], [type=radio]), textarea, select"))
  );
}
