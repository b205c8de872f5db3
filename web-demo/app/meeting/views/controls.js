/** The row of buttons under a meeting. */

import { canShareScreen } from "../../devices.js";
import { toast } from "../../announce.js";
import { attempt } from "../../attempt.js";
import { h, setAttribute, setText } from "../../dom.js";
import { store } from "../../state.js";
import { control } from "../../views/controls.js";
import { openSettings } from "../../views/settings.js";

/** @typedef {import("../meeting.js").Meeting} Meeting */

const REACTIONS = /** @type {const} */ ([
  ["👍", "Thumbs up"],
  ["👏", "Applause"],
  ["❤️", "Heart"],
  ["😂", "Laughter"],
  ["😮", "Surprise"],
  ["🎉", "Party"],
]);

/** What a Participant may not do, and what a moderator may let them do. */
const PERMITS = /** @type {const} */ ({
  speak: ["speak", "speak"],
  video: ["show yourself", "switch your camera on"],
  share: ["share your screen", "share it"],
});

export function meetingControls() {
  const run = (/** @type {(meeting: Meeting) => unknown} */ what) => () => {
    const { meeting } = store.state;
    if (meeting) void attempt(() => what(meeting));
  };
  const reactions = reactionsView();
  const microphone = control(
    "meeting-mute",
    "mic",
    "M",
    run((meeting) => permitted(meeting, "speak") && meeting.own.toggleMicrophone()),
  );
  const camera = control(
    "meeting-camera",
    "video",
    "V",
    run((meeting) => permitted(meeting, "video") && meeting.own.toggleCamera()),
  );
  const screen = control(
    "meeting-screen",
    "screen",
    "S",
    run((meeting) => permitted(meeting, "share") && meeting.own.toggleScreen()),
  );
  const hand = control(
    "meeting-hand",
    "hand",
    "H",
    run((meeting) => meeting.toggleHand()),
  );
  const react = control("meeting-react", "smile", "R", () => reactions.toggle());
  const chat = control(
    "meeting-chat",
    "chat",
    "C",
    run((meeting) => meeting.togglePanel("chat")),
  );
  const people = control(
    "meeting-people",
    "people",
    "P",
    run((meeting) => meeting.togglePanel("people")),
  );
  const layout = control(
    "meeting-layout",
    "grid",
    "L",
    run((meeting) => meeting.toggleLayout()),
  );
  const devices = control("meeting-devices", "settings", "", () => openSettings());
  const leave = control(
    "meeting-leave",
    "hangup",
    "X",
    run((meeting) => meeting.leave()),
  );
  const all = [microphone, camera, screen, hand, react, chat, people, layout, devices, leave];
  leave.element.dataset.tone = "bad";
  const unread = badge(chat.element);
  const waiting = badge(people.element);
  screen.element.hidden = !canShareScreen();
  react.element.setAttribute("aria-haspopup", "true");
  const element = h(
    "div",
    { class: "meeting-controls", role: "group", "aria-label": "This meeting" },
    reactions.element,
    ...all.map((one) => one.element),
  );

  return {
    element,
    /** @param {Meeting} meeting @param {boolean} isSpotlight */
    update({ own, room, panel, unread: count }, isSpotlight) {
      if (!room) return;
      const { speak, video, share } = room.local.permissions;
      const isHeard = own.isMicrophoneOn && own.microphone !== null;
      const isUp = room.local.handAt !== null;
      microphone.show(isHeard ? "mic" : "micOff", isHeard ? "Mute" : "Unmute", !isHeard);
      camera.show(own.camera ? "video" : "videoOff", own.camera ? "Camera off" : "Camera on", !own.camera);
      screen.show("screen", own.screen ? "Stop sharing" : "Share", own.screen !== null);
      hand.show("hand", isUp ? "Lower hand" : "Raise hand", isUp);
      react.show("smile", "React", null);
      chat.show("chat", "Chat", panel === "chat");
      people.show("people", "People", panel === "people");
      layout.show(isSpotlight ? "grid" : "speaker", isSpotlight ? "Grid" : "Speaker", null);
      devices.show("settings", "Devices", null);
      leave.show("hangup", "Leave", null);
      disable(microphone.element, !speak);
      disable(camera.element, !video);
      disable(screen.element, !share);
      unread(count, "unread");
      waiting(room.waiting.length, "waiting");
    },
  };
}

/** Who may only listen finds the button, and hears why it does nothing. @param {HTMLElement} button @param {boolean} isDisabled */
function disable(button, isDisabled) {
  setAttribute(button, "aria-disabled", isDisabled ? "true" : null);
}

/** Whether a Participant may do something; tells them when they may not. @param {Meeting} meeting @param {"speak"|"video"|"share"} what */
function permitted({ room }, what) {
  if (!room || room.local.permissions[what]) return true;
  const [verb, words] = PERMITS[what];
  toast(`You may not ${verb}`, `A moderator can let you ${words}. Raise your hand to ask.`, { key: "listener" });
  return false;
}

/** A number at a button. @param {HTMLElement} button */
function badge(button) {
  const element = h("span", { class: "badge", hidden: true });
  const words = h("span", { class: "visually-hidden" });
  button.append(element, words);
  return (/** @type {number} */ count, /** @type {string} */ what) => {
    element.hidden = count === 0;
    setText(element, count > 99 ? "99+" : String(count));
    setText(words, count > 0 ? ` ${what}` : "");
  };
}

function reactionsView() {
  const element = h(
    "div",
    { class: "reactions", popover: "auto", role: "group", "aria-label": "Reactions", data: { test: "reactions" } },
    ...REACTIONS.map(([sign, label]) => {
      const click = () => {
        element.hidePopover();
        void store.state.meeting?.react(sign);
      };
      return h("button", { class: "reaction", type: "button", "aria-label": label, title: label, on: { click } }, sign);
    }),
  );
  return {
    element,
    toggle() {
      element.togglePopover();
      if (element.matches(":popover-open")) element.querySelector("button")?.focus();
    },
  };
}
