/** What lies over the pictures of a Call: with whom and how long, the other lines, and what needs to be known now. */

import { numberOf } from "../../client/index.js";
import { switchTo, toggleHold } from "../calls.js";
import { h, keyed, setAttribute, setText } from "../dom.js";
import { duration } from "../format.js";
import { icon } from "../icons.js";
import { currentCall, onStage, store } from "../state.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Call} Call */

/** Two browsers find each other in a second or two; what takes longer than this wants a word. */
const CONNECTING_MS = 10_000;

/** Name, time and quality at the top of the picture. */
export function headView() {
  const name = h("h2", { class: "talk-name" });
  const time = h("span", { class: "talk-time", role: "timer", "aria-live": "off" });
  const lock = h(
    "button",
    { class: "talk-safe", type: "button", on: { click: () => store.set({ panelOpen: true }) } },
    icon("shield"),
    h("span"),
  );
  const aside = h(
    "button",
    {
      class: "icon-button talk-aside",
      type: "button",
      "aria-label": "Show people and history",
      data: { test: "minimise" },
      on: { click: () => store.set({ minimised: true }) },
    },
    icon("back"),
  );
  const screen = fact("screen", "screen", "Sharing screen");
  const silent = fact("micOff", "silent", "Muted");
  const number = h("span", { class: "talk-fact", data: { test: "peer-number" }, hidden: true });
  const line = h("div", { class: "talk-facts" }, time, number, screen, silent);
  const element = h("div", { class: "talk-head" }, aside, h("div", { class: "talk-title" }, name, line), lock);
  /** @type {Call | null} */
  let shown = null;
  let state = "";
  const tick = () => {
    if (!shown) return;
    const words =
      state === "connecting" ? "Connecting…" : shown.answeredAt ? duration(Date.now() - shown.answeredAt) : "";
    setText(time, words);
  };
  setInterval(tick, 500);

  return {
    element,
    /**
     * @param {Call} call
     * @param {string} current
     */
    update(call, current) {
      shown = call;
      state = current;
      setText(name, call.peer.name);
      // Where the phone network knows no name, the number is the name.
      number.hidden = !call.number || call.number === call.peer.name;
      setText(number, call.number ?? "");
      // On hold nothing is seen or heard of them anyway.
      const isHeld = call.heldByMe || call.heldByPeer;
      screen.hidden = isHeld || call.peerMedia?.video !== "screen";
      silent.hidden = isHeld || call.peerMedia?.audio !== false;
      // Nothing is encrypted while nothing gets through.
      lock.hidden = !call.code || current === "connecting" || current === "failed";
      setAttribute(lock, "data-device", call.peerDevice);
      setText(
        /** @type {Element} */ (lock.lastElementChild),
        call.peerDevice === "changed" ? "Key changed" : "Encrypted",
      );
      tick();
    },
  };
}

/**
 * Something the other side does that their picture and sound alone do not tell.
 *
 * @param {import("../icons.js").IconName} picture
 * @param {string} test
 * @param {string} words
 */
function fact(picture, test, words) {
  return h("span", { class: "talk-fact", data: { test: `peer-${test}` }, hidden: true }, icon(picture), words);
}

/** The other Calls, like the lines of a desk phone. */
export function linesView() {
  const list = h("ul", { class: "lines", "aria-label": "Your calls" });
  return {
    element: list,
    /** @param {State} state */
    update(state) {
      const calls = onStage(state);
      list.hidden = calls.length < 2;
      keyed(list, list.hidden ? [] : calls, (call) => call.id, lineRow);
    },
  };
}

/** @param {Call} first */
function lineRow(first) {
  let call = first;
  const words = h("span", { class: "line-state" });
  const button = h(
    "button",
    {
      class: "line",
      type: "button",
      data: { test: `line-${call.peer.user}` },
      on: { click: () => void switchTo(call) },
    },
    h("span", { class: "lamp", "aria-hidden": "true" }),
    h("span", null, call.peer.name),
    words,
  );
  return {
    element: h("li", null, button),
    /** @param {Call} next */
    update(next) {
      call = next;
      const current = store.state.currentId === call.id;
      setAttribute(button, "aria-current", current ? "true" : null);
      setText(words, call.phase === "ringing" ? "ringing" : call.heldByMe ? "on hold" : "talking");
      setAttribute(button, "data-status", call.heldByMe ? "away" : "available");
    },
  };
}

/** What a person should know about the Call right now: held, reconnecting, being transferred. */
export function noticeView() {
  const title = h("p", { class: "notice-title" });
  const detail = h("p");
  const goOn = () => {
    const call = currentCall(store.state);
    if (call) void toggleHold(call);
  };
  const resume = h(
    "button",
    { class: "button primary", type: "button", data: { test: "resume" }, on: { click: goOn } },
    icon("resume"),
    "Resume",
  );
  const again = h(
    "button",
    {
      class: "button primary",
      type: "button",
      data: { test: "look-again" },
      on: { click: () => currentCall(store.state)?.reconnect() },
    },
    "Try again",
  );
  const element = h("div", { class: "talk-notice", role: "status", data: { test: "notice" } }, title, detail, resume, again);
  /** Which Call is being connected, and whether that takes long. */
  let connecting = "";
  let isSlow = false;
  let patience = 0;

  return {
    element,
    /**
     * @param {Call} call
     * @param {string} name
     */
    update(call, name) {
      const now = name === "connecting" ? call.id : "";
      if (now !== connecting) {
        connecting = now;
        isSlow = false;
        clearTimeout(patience);
        if (now) patience = window.setTimeout(() => ((isSlow = true), store.touch()), CONNECTING_MS);
      }
      const words = noticeWords(call, isSlow ? "slow" : name);
      element.hidden = !words;
      resume.hidden = !call.heldByMe;
      again.hidden = name !== "failed";
      setText(title, words?.[0] ?? "");
      setText(detail, words?.[1] ?? "");
    },
  };
}

/**
 * @param {Call} call
 * @param {string} name
 * @returns {[string, string] | null}
 */
function noticeWords(call, name) {
  const goesTo = call.transferring?.to ?? "";
  const to = goesTo && (store.state.people.get(goesTo)?.name ?? numberOf(goesTo) ?? goesTo);
  if (to && call.transferring?.by === store.state.me?.user)
    return [`Transferring to ${to}`, "It rings there. You may hang up, or wait to see whether it is answered."];
  if (to) return [`You are being transferred to ${to}`, "It rings there."];
  if (name === "held") return ["On hold", `${call.peer.name} neither hears nor sees you.`];
  if (name === "held-by-peer" && call.isPhone) return [`${call.peer.name} put you on hold`, "You hear what they play meanwhile."];
  if (name === "held-by-peer") return [`${call.peer.name} put you on hold`, "They will be back in a moment."];
  if (name === "reconnecting") return ["Reconnecting", "The way to the other side was lost; looking for another one."];
  if (name === "slow" && call.isPhone)
    return ["No way found yet", "A firewall may keep this browser from the server. Every way is tried, the relay too."];
  if (name === "slow")
    return ["No way found yet", "A firewall may keep the two browsers apart. Every way is tried, the relay too."];
  if (name === "failed")
    return [
      "No connection",
      `Nothing gets through between you and ${call.peer.name}; most likely a firewall is in the way. ` +
        "Try again, perhaps in another network, or hang up.",
    ];
  return null;
}
