/** The inside of a meeting: pictures, what lies over them, the buttons, and the panel beside them. */

import { h, setAttribute, setText } from "../../dom.js";
import { duration } from "../../format.js";
import { icon } from "../../icons.js";
import { store } from "../../state.js";
import { makeMovable } from "../../views/tiles.js";
import { people } from "../words.js";
import { chatView } from "./chat.js";
import { meetingControls } from "./controls.js";
import { haltedView, shieldView } from "./encryption.js";
import { peopleView } from "./people.js";
import { selfStream, stageView } from "./stage.js";

/** @typedef {import("../meeting.js").Meeting} Meeting */

/** The media mends small holes by itself; people need not hear of them. */
const PATIENCE_MS = 1500;

export function conversationView() {
  const current = () => store.state.meeting;
  const pager = pagerView();
  const head = headView(pager.element);
  const stage = stageView(current);
  const self = selfView();
  const notice = noticeView();
  const halted = haltedView();
  const controls = meetingControls();
  const chat = chatView();
  const panel = peopleView();
  const element = h(
    "div",
    { class: "conversation", data: { test: "conversation" }, hidden: true },
    head.element,
    h("div", { class: "meeting-pictures" }, stage.element, self.element, notice.element, halted.element),
    controls.element,
    chat.element,
    panel.element,
  );

  return {
    element,
    /** @param {Meeting | null} meeting one that goes on */
    update(meeting) {
      head.update(meeting);
      notice.update(meeting);
      halted.update(meeting);
      if (!meeting?.room) {
        stage.clear();
        self.update(null);
        return;
      }
      setAttribute(element, "data-panel", meeting.panel);
      stage.update(meeting);
      const { isSpotlight, pages, page } = stage.state;
      setAttribute(element, "data-layout", isSpotlight ? "spotlight" : "grid");
      pager.update(pages, page);
      self.update(meeting);
      controls.update(meeting, isSpotlight);
      chat.update(meeting.panel === "chat" ? meeting : null);
      panel.update(meeting.panel === "people" ? meeting : null);
    },
  };
}

/** Name, time, and whether the door is open. @param {HTMLElement} pager */
function headView(pager) {
  const name = h("h1", { class: "meeting-name" });
  const time = h("span", { class: "meeting-time", role: "timer", "aria-live": "off" });
  const count = h("span", { data: { test: "meeting-count" } });
  const lock = h("span", { class: "meeting-fact", hidden: true }, icon("lock"), "Locked");
  const shares = h(
    "span",
    { class: "meeting-fact", hidden: true, data: { test: "sharing" } },
    icon("screen"),
    "You share your screen",
  );
  const plain = h(
    "span",
    { class: "meeting-fact", hidden: true, data: { test: "not-encrypted" } },
    icon("warning"),
    "No longer encrypted",
  );
  const shield = shieldView();
  const link = h(
    "span",
    { class: "meeting-fact link", role: "status", hidden: true, data: { test: "meeting-link" } },
    icon("warning"),
    "The server is away",
  );
  const copy = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      "aria-label": "Copy the link",
      title: "Copy the link",
      data: { test: "copy-meeting-link" },
      on: { click: () => void store.state.meeting?.copyLink() },
    },
    icon("copy"),
  );
  const aside = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      "aria-label": "Put the meeting aside",
      title: "Put the meeting aside",
      data: { test: "meeting-aside" },
      on: { click: () => void store.state.meeting?.setAside(true) },
    },
    icon("back"),
  );
  const element = h(
    "header",
    { class: "meeting-head" },
    aside,
    h("div", { class: "meeting-title" }, name, h("p", { class: "meeting-facts" }, time, count, lock, plain, shares, link)),
    pager,
    shield.element,
    copy,
  );
  /** @type {Meeting | null} */
  let shown = null;
  const tick = () => {
    const since = shown?.room?.createdAt;
    if (since) setText(time, duration(Date.now() - since));
  };
  setInterval(tick, 1000);
  return {
    element,
    /** @param {Meeting | null} meeting */
    update(meeting) {
      shown = meeting;
      if (!meeting?.room) return;
      setText(name, meeting.title);
      setText(count, people(meeting.room.participants.size + 1));
      lock.hidden = !meeting.room.settings.locked;
      plain.hidden = !meeting.wasEncrypted || meeting.room.isEncrypted;
      shield.update(meeting.room);
      shares.hidden = !meeting.own.screen;
      link.hidden = store.state.link === "connected";
      tick();
    },
  };
}

/** One's own picture in a corner, as long as it has no tile: with one other person. */
function selfView() {
  const video = h("video", { class: "self-video", autoplay: true, playsinline: true, "aria-hidden": "true" });
  // The attribute alone does not mute an element made by script.
  video.muted = true;
  const words = h("span", { class: "self-words" });
  const element = h(
    "button",
    {
      class: "self",
      type: "button",
      title: "Move to the next corner",
      data: { corner: "bottom-right", test: "meeting-self" },
    },
    video,
    h("span", { class: "visually-hidden" }, "Your picture. Move to the next corner. "),
    words,
  );
  makeMovable(element);
  return {
    element,
    /** @param {Meeting | null} meeting */
    update(meeting) {
      const isShown = meeting?.room?.participants.size === 1;
      element.hidden = !isShown;
      const stream = meeting && isShown ? selfStream(meeting.own.camera) : null;
      if (video.srcObject !== stream) video.srcObject = stream;
      setAttribute(element, "data-picture", stream ? "camera" : "none");
      const isHeard = meeting?.own.isMicrophoneOn && meeting.own.microphone;
      setText(words, stream ? "" : isHeard ? "Camera off" : "Muted, camera off");
    },
  };
}

/** What needs to be known now: the way to the server is lost, or nobody else is here. */
function noticeView() {
  const title = h("p", { class: "notice-title" });
  const detail = h("p");
  const again = h(
    "button",
    {
      class: "button primary",
      type: "button",
      hidden: true,
      on: { click: () => store.state.meeting?.room?.reconnect() },
    },
    "Try again",
  );
  const invite = h(
    "button",
    {
      class: "button primary",
      type: "button",
      hidden: true,
      data: { test: "invite-link" },
      on: { click: () => void store.state.meeting?.copyLink() },
    },
    icon("copy"),
    "Copy the link",
  );
  const element = h(
    "div",
    { class: "meeting-notice", role: "status", hidden: true, data: { test: "meeting-notice" } },
    title,
    detail,
    again,
    invite,
  );
  let lostAt = 0;
  let timer = 0;
  return {
    element,
    /** @param {Meeting | null} meeting */
    update(meeting) {
      const state = meeting?.room?.connectionState;
      const isHalted = Boolean(meeting?.room?.isHalted);
      const isLost = state !== undefined && state !== "connected" && !isHalted;
      clearTimeout(timer);
      if (!isLost) lostAt = 0;
      else if (lostAt === 0) lostAt = performance.now();
      const isLate = isLost && performance.now() - lostAt >= PATIENCE_MS;
      if (isLost && !isLate) timer = window.setTimeout(() => store.state.meeting?.touch(), PATIENCE_MS);
      const isAlone = meeting?.room?.participants.size === 0 && !isLost && !isHalted;
      element.hidden = !isLate && !isAlone;
      setAttribute(element, "data-kind", isLate ? "lost" : "alone");
      again.hidden = !(isLate && state === "failed");
      invite.hidden = !isAlone;
      if (element.hidden) return;
      setText(
        title,
        isAlone
          ? "Nobody else is here yet"
          : state === "connecting" || state === "new"
            ? "Connecting…"
            : state === "failed"
              ? "No connection"
              : "Reconnecting…",
      );
      setText(
        detail,
        isAlone
          ? "Send the link to those you want to meet."
          : state === "failed"
            ? "Nothing gets through to the meeting; most likely a firewall is in the way, or the network is gone."
            : "Pictures and sound come back as soon as there is a way to the server.",
      );
    },
  };
}

/** Leads through the pages of a grid that has more than one. */
function pagerView() {
  const turn = (/** @type {number} */ by) => () => {
    const { meeting } = store.state;
    meeting?.turnTo(Math.max(0, meeting.page + by));
  };
  const before = h(
    "button",
    { class: "icon-button", type: "button", "aria-label": "Page before", on: { click: turn(-1) } },
    icon("back"),
  );
  const next = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      "aria-label": "Next page",
      data: { test: "next-page" },
      on: { click: turn(1) },
    },
    icon("next"),
  );
  const words = h("span", { role: "status", data: { test: "page" } });
  const element = h("div", { class: "pager", hidden: true }, before, words, next);
  return {
    element,
    /** @param {number} pages @param {number} page */
    update(pages, page) {
      element.hidden = pages < 2;
      setText(words, `${page + 1} / ${pages}`);
      before.disabled = page === 0;
      next.disabled = page >= pages - 1;
    },
  };
}
