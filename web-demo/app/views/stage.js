/** The place where a Call is: nothing yet, ringing, talking, held, or how it ended. */

import { dial, end, stopDialling, switchTo, toggleHold } from "../calls.js";
import { h, keyed, setAttribute, setText } from "../dom.js";
import { duration } from "../format.js";
import { icon } from "../icons.js";
import { currentCall, onStage, store } from "../state.js";
import { avatar, setAvatar } from "./avatar.js";
import { connectionView } from "./connection.js";
import { controlsView } from "./controls.js";
import { copyButton } from "./people.js";
import { tilesView } from "./tiles.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Call} Call */
/** @typedef {"idle" | "call" | "minimised"} Showing */

/** Devices start faster than this; what takes longer is the browser asking for permission. */
const PROMPT_MS = 1500;

export function stageView() {
  const idle = idleView();
  const lines = linesView();
  const head = headView();
  const tiles = tilesView();
  const notice = noticeView();
  const panel = connectionView();
  const controls = controlsView();
  const waiting = waitingView();
  const outcome = outcomeView();
  const element = h(
    "section",
    { class: "stage", "aria-label": "Call", tabindex: "-1", data: { test: "call-state", state: "idle" } },
    idle.element, waiting.element, outcome.element,
    h("div", { class: "talk" }, tiles.element, head.element, lines.element, notice.element, panel.element, controls.element),
    returnBar(),
  );

  return {
    element,
    showing,
    /** @param {State} state */
    update(state) {
      const call = currentCall(state);
      const name = stateName(state, call);
      setAttribute(element, "data-state", name);
      const view = name === "idle" ? "idle" : name === "ended" ? "outcome" : name === "preparing" || name === "ringing" ? "waiting" : "talk";
      if (element.dataset.view !== view) keepFocus(element);
      setAttribute(element, "data-view", view);

      idle.update(state);
      lines.update(state);
      waiting.update(state, call);
      outcome.update(state);
      const talking = view === "talk" ? call : null;
      tiles.update(talking);
      if (talking) {
        head.update(talking, name);
        notice.update(talking, name);
        controls.update(talking, state.panelOpen);
      }
      panel.update(state.panelOpen && talking?.phase === "active" ? talking : null);
    },
  };
}

/**
 * @param {State} state
 * @returns {Showing} on a phone this decides between the lists and the stage
 */
function showing(state) {
  const busy = state.preparing || state.outcome || currentCall(state);
  if (!busy) return "idle";
  return state.minimised && !state.outcome ? "minimised" : "call";
}

/**
 * @param {State} state
 * @param {Call | null} call
 */
function stateName(state, call) {
  if (state.preparing) return "preparing";
  if (!call) return state.outcome ? "ended" : "idle";
  if (call.phase === "ringing") return call.direction === "out" ? "ringing" : "connecting";
  if (call.heldByMe) return "held";
  if (call.heldByPeer) return "held-by-peer";
  return call.connectionState === "new" ? "connecting" : call.connectionState;
}

/**
 * A view that goes away takes the focused button with it: the focus then moves to the stage instead of getting lost.
 *
 * @param {HTMLElement} stage
 */
function keepFocus(stage) {
  setTimeout(() => {
    const focused = document.activeElement;
    if (focused instanceof HTMLElement && focused !== document.body && focused.checkVisibility()) return;
    stage.focus({ preventScroll: true });
  }, 50);
}

function idleView() {
  const face = avatar({ user: "", name: "" });
  const element = h(
    "div",
    { class: "idle" },
    h("div", { class: "idle-cord", "aria-hidden": "true" }, face, h("span", { class: "wire" }), h("span", { class: "avatar open-end" }, icon("phone"))),
    h("h2", null, "Ready when you are"),
    h("p", null, "Choose somebody on the left. To try it alone, open this page in a second window under another name."),
    copyButton(),
  );
  return {
    element,
    /** @param {State} state */
    update({ me }) {
      if (me) setAvatar(face, me);
    },
  };
}

/** Who is called, while it rings there or the camera still starts here. */
function waitingView() {
  const face = avatar({ user: "", name: "" }, "huge");
  const name = h("h2");
  const words = h("p", { class: "waiting-words" });
  const stop = () => {
    const call = currentCall(store.state);
    if (store.state.preparing) stopDialling();
    else if (call) void end(call);
  };
  const hangup = h("button", { class: "control", type: "button", data: { test: "hangup", tone: "bad" }, "aria-keyshortcuts": "X", on: { click: stop } }, h("span", { class: "control-disc" }, icon("hangup")), h("span", { class: "control-words" }, "Cancel"));
  /** @type {State["preparing"]} */
  let prepared = null;
  let patience = 0;
  const element = h("div", { class: "waiting" }, h("div", { class: "ripples", "aria-hidden": "true" }, h("i"), h("i"), h("i"), face), name, words, hangup);

  return {
    element,
    /**
     * @param {State} state
     * @param {Call | null} call
     */
    update({ preparing }, call) {
      const isNew = preparing !== prepared;
      if (isNew) {
        prepared = preparing;
        clearTimeout(patience);
        if (preparing) patience = window.setTimeout(() => setText(words, "The browser asks for permission. Please allow it."), PROMPT_MS);
      }
      const peer = preparing?.peer ?? call?.peer;
      const shown = Boolean(preparing) || (call?.phase === "ringing" && call.direction === "out");
      // The same control exists once on the page, so that keys, tests and screen readers find one of it.
      hangup.hidden = !shown;
      if (!peer || !shown) return;
      setAvatar(face, peer);
      setText(name, peer.name);
      if (!preparing) setText(words, "Ringing…");
      else if (isNew) setText(words, preparing.video ? "Starting camera and microphone…" : "Starting the microphone…");
    },
  };
}

function outcomeView() {
  const face = avatar({ user: "", name: "" }, "huge");
  const title = h("h2");
  const detail = h("p", { class: "waiting-words" });
  const close = h("button", { class: "button", type: "button", data: { test: "outcome-close" }, on: { click: () => store.set({ outcome: null }) } }, "Close");
  const again = h("button", { class: "button primary", type: "button", data: { test: "call-again" }, on: { click: () => store.state.outcome && void dial(store.state.outcome.peer, store.state.outcome.video) } }, "Call again");
  const element = h("div", { class: "outcome", data: { test: "outcome" } }, face, title, detail, h("div", { class: "outcome-actions" }, close, again));
  let timer = 0;
  /** @type {State["outcome"]} */
  let shown = null;

  return {
    element,
    /** @param {State} state */
    update({ outcome }) {
      if (outcome === shown) return;
      shown = outcome;
      clearTimeout(timer);
      if (!outcome) return;
      setAvatar(face, outcome.peer);
      setText(title, outcome.title);
      setText(detail, outcome.detail);
      setAttribute(element, "data-tone", outcome.tone);
      again.hidden = !outcome.again;
      // A plain goodbye needs no click; what went wrong stays until it was read.
      if (outcome.tone === "calm") timer = window.setTimeout(() => store.state.outcome === outcome && store.set({ outcome: null }), 6000);
    },
  };
}

/** Name, time and quality at the top of the picture. */
function headView() {
  const name = h("h2", { class: "talk-name" });
  const time = h("span", { class: "talk-time", role: "timer", "aria-live": "off" });
  const lock = h("button", { class: "talk-safe", type: "button", on: { click: () => store.set({ panelOpen: true }) } }, icon("shield"), h("span"));
  const aside = h("button", { class: "icon-button talk-aside", type: "button", "aria-label": "Show people and history", data: { test: "minimise" }, on: { click: () => store.set({ minimised: true }) } }, icon("back"));
  const element = h("div", { class: "talk-head" }, aside, h("div", { class: "talk-title" }, name, time), lock);
  /** @type {Call | null} */
  let shown = null;
  let state = "";
  const tick = () => {
    if (!shown) return;
    const words = state === "connecting" ? "Connecting…" : shown.answeredAt ? duration(Date.now() - shown.answeredAt) : "";
    setText(time, words);
  };
  setInterval(tick, 500);

  return {
    element,
    /**
     * @param {Call} call
     * @param {string} name_
     */
    update(call, name_) {
      shown = call;
      state = name_;
      setText(name, call.peer.name);
      lock.hidden = !call.code;
      setAttribute(lock, "data-device", call.peerDevice);
      setText(/** @type {Element} */ (lock.lastElementChild), call.peerDevice === "changed" ? "Key changed" : "Encrypted");
      tick();
    },
  };
}

/** The other Calls, like the lines of a desk phone. */
function linesView() {
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
  const button = h("button", { class: "line", type: "button", data: { test: `line-${call.peer.user}` }, on: { click: () => void switchTo(call) } }, h("span", { class: "lamp", "aria-hidden": "true" }), h("span", null, call.peer.name), words);
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
function noticeView() {
  const title = h("p", { class: "notice-title" });
  const detail = h("p");
  const resume = h("button", { class: "button primary", type: "button", data: { test: "resume" }, on: { click: () => { const call = currentCall(store.state); if (call) void toggleHold(call); } } }, icon("resume"), "Resume");
  const element = h("div", { class: "talk-notice", role: "status" }, title, detail, resume);

  return {
    element,
    /**
     * @param {Call} call
     * @param {string} name
     */
    update(call, name) {
      const words = noticeWords(call, name);
      element.hidden = !words;
      resume.hidden = !call.heldByMe;
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
  const to = call.transferring && (store.state.people.get(call.transferring.to)?.name ?? call.transferring.to);
  if (to && call.transferring?.by === store.state.me?.user) return [`Transferring to ${to}`, "It rings there. You may hang up, or wait to see whether it is answered."];
  if (to) return [`You are being transferred to ${to}`, "It rings there."];
  if (name === "held") return ["On hold", `${call.peer.name} neither hears nor sees you.`];
  if (name === "held-by-peer") return [`${call.peer.name} put you on hold`, "They will be back in a moment."];
  if (name === "reconnecting") return ["Reconnecting", "The way to the other side was lost; looking for another one."];
  if (name === "failed") return ["No connection", "No way to the other side is found. Hang up and try again, or wait."];
  return null;
}

/** On a phone: the way back from the lists to the call. */
function returnBar() {
  return h("button", { class: "return-bar", type: "button", data: { test: "return" }, on: { click: () => store.set({ minimised: false }) } }, icon("phone"), "Back to the call");
}
