/** What the stage shows before and after a conversation: nothing yet, ringing, and how it ended. */

import { dial, end, stopDialling } from "../calls.js";
import { h, setAttribute, setText } from "../dom.js";
import { icon } from "../icons.js";
import { currentCall, store } from "../state.js";
import { avatar, setAvatar } from "./avatar.js";
import { openKeys } from "./dialpad.js";
import { copyButton } from "./people.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Call} Call */

/** Devices start faster than this; what takes longer is the browser asking for permission. */
const PROMPT_MS = 1500;

/** An invitation, while there is no Call. */
export function idleView() {
  const face = avatar({ user: "", name: "" });
  const words = h("p");
  const link = copyButton();
  const element = h(
    "div",
    { class: "idle" },
    h(
      "div",
      { class: "idle-cord", "aria-hidden": "true" },
      face,
      h("span", { class: "wire" }),
      h("span", { class: "avatar open-end" }, icon("phone")),
    ),
    h("h2", null, "Ready when you are"),
    words,
    link,
  );
  return {
    element,
    /** @param {State} state */
    update({ me, people }) {
      face.hidden = me === null;
      if (me) setAvatar(face, me);
      const alone = [...people.values()].every(({ user, status }) => user === me?.user || status === "offline");
      // The list beside it has the link while nobody is there.
      link.hidden = alone;
      setText(words, alone ? "Whoever comes in can be called from here." : "Choose somebody on the left, or send the link to somebody else.");
    },
  };
}

/** Who is called, while it rings there or the camera still starts here. */
export function waitingView() {
  const face = avatar({ user: "", name: "" }, "huge");
  const name = h("h2");
  const words = h("p", { class: "waiting-words" });
  const stop = () => {
    const call = currentCall(store.state);
    if (store.state.preparing) stopDialling();
    else if (call) void end(call);
  };
  const hangup = h(
    "button",
    {
      class: "control",
      type: "button",
      data: { test: "hangup", tone: "bad" },
      "aria-keyshortcuts": "X",
      on: { click: stop },
    },
    h("span", { class: "control-disc" }, icon("hangup")),
    h("span", { class: "control-words" }, "Cancel"),
  );
  // A machine may ask for keys before it counts as an answer.
  const press = () => {
    const call = currentCall(store.state);
    if (call) openKeys(call);
  };
  const keys = h(
    "button",
    { class: "control", type: "button", data: { test: "early-keys" }, hidden: true, on: { click: press } },
    h("span", { class: "control-disc" }, icon("keypad")),
    h("span", { class: "control-words" }, "Keys"),
  );
  /** @type {State["preparing"]} */
  let prepared = null;
  let patience = 0;
  const element = h(
    "div",
    { class: "waiting" },
    h("div", { class: "ripples", "aria-hidden": "true" }, h("i"), h("i"), h("i"), face),
    name,
    words,
    h("div", { class: "waiting-controls" }, keys, hangup),
  );

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
        if (preparing)
          patience = window.setTimeout(
            () => setText(words, "The browser asks for permission. Please allow it."),
            PROMPT_MS,
          );
      }
      const peer = preparing?.peer ?? call?.peer;
      const shown = Boolean(preparing) || (call?.phase === "ringing" && call.direction === "out");
      // The same control exists once on the page, so that keys, tests and screen readers find one of it.
      hangup.hidden = !shown;
      if (!peer || !shown) return;
      setAvatar(face, peer);
      setText(name, peer.name);
      keys.hidden = Boolean(preparing) || call?.progress?.kind !== "early_media";
      if (!preparing) setText(words, progressWords(call));
      else if (isNew) setText(words, preparing.video ? "Starting camera and microphone…" : "Starting the microphone…");
    },
  };
}

/** @param {Call | null | undefined} call */
function progressWords(call) {
  if (!call?.isPhone) return "Ringing…";
  const { kind, position } = call.progress ?? { kind: "trying", position: null };
  if (kind === "queued") return position ? `Waiting in a line, place ${position}…` : "Waiting in a line…";
  return { trying: "Calling…", ringing: "Ringing…", early_media: "Not answered yet; you can listen already." }[kind];
}

/** How the last Call ended, and what one may do about it. */
export function outcomeView() {
  const face = avatar({ user: "", name: "" }, "huge");
  const title = h("h2");
  const detail = h("p", { class: "waiting-words" });
  const close = h(
    "button",
    {
      class: "button",
      type: "button",
      data: { test: "outcome-close" },
      on: { click: () => store.set({ outcome: null }) },
    },
    "Close",
  );
  const again = h(
    "button",
    {
      class: "button primary",
      type: "button",
      data: { test: "call-again" },
      on: { click: () => store.state.outcome && void dial(store.state.outcome.peer, store.state.outcome.video) },
    },
    "Call again",
  );
  const element = h(
    "div",
    { class: "outcome", data: { test: "outcome" } },
    face,
    title,
    detail,
    h("div", { class: "outcome-actions" }, close, again),
  );
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
      if (outcome.tone === "calm")
        timer = window.setTimeout(() => store.state.outcome === outcome && store.set({ outcome: null }), 6000);
    },
  };
}
