/** Who is in a meeting, who waits outside, and what a moderator does about it. */

import { toast } from "../../announce.js";
import { openDialog } from "../../dialogs.js";
import { h, keyed, setAttribute, setText } from "../../dom.js";
import { numberOf } from "../../../client/index.js";
import { icon, setIcon } from "../../icons.js";
import { store } from "../../state.js";
import { avatar, setAvatar } from "../../views/avatar.js";
import { openDialPad } from "../../views/dialpad.js";
import { toggle } from "../../views/toggle.js";
import { DEVICE_WORDS, LINE_WORDS, people, QUALITY_WORDS, ROLE_WORDS } from "../words.js";
import { panelHead } from "./chat.js";
import { askToSwitchOff } from "./encryption.js";

/** @typedef {import("../meeting.js").Meeting} Meeting */
/** @typedef {import("../../../client/index.js").Room} Room */
/** @typedef {import("../../../client/index.js").Participant} Participant */
/** @typedef {import("../../../client/index.js").RemoteParticipant} RemoteParticipant */
/** @typedef {import("../../../client/index.js").Waiting} Waiting */

/** Rows made anew in one picture; a long list is there a moment later, and nothing stutters meanwhile. */
const ROWS_MADE_MAX = 16;

const SETTINGS = /** @type {const} */ ([
  ["lobby", "Lobby", "Guests wait until somebody lets them in."],
  ["locked", "Locked", "Nobody else may come in."],
  ["listeners", "Come in as listeners", "Who joins from now on cannot speak unless you let them."],
  ["encrypted", "End-to-end encrypted", "Switched off it stays off. Everybody is told, and asked whether they go on."],
]);

export function peopleView() {
  const command = (/** @type {(room: Room) => Promise<unknown>} */ run) => void store.state.meeting?.command(run);
  const lobbyList = h("ul", { class: "rows", "aria-labelledby": "lobby-title" });
  const admitAll = h(
    "button",
    {
      class: "button small",
      type: "button",
      data: { test: "admit-all" },
      on: { click: () => command((room) => room.admit(room.waiting.map(({ waiting }) => waiting))) },
    },
    "Let all in",
  );
  const lobby = h(
    "section",
    { class: "lobby", data: { test: "lobby" } },
    h("div", { class: "lobby-head" }, h("h3", { id: "lobby-title" }, "Waiting outside"), admitAll),
    lobbyList,
  );
  const settings = settingsView(command);
  const muteAll = h(
    "button",
    {
      class: "button small wide",
      type: "button",
      data: { test: "mute-all" },
      on: { click: () => command((room) => Promise.all(unmuted(room).map((track) => room.mute(track)))) },
    },
    icon("micOff"),
    "Mute everybody",
  );
  const add = h(
    "button",
    {
      class: "button small wide",
      type: "button",
      data: { test: "meeting-invite" },
      on: { click: () => store.state.meeting?.invite() },
    },
    icon("add"),
    "Add people",
  );
  const callIn = h(
    "button",
    {
      class: "button small wide",
      type: "button",
      data: { test: "meeting-dial" },
      hidden: true,
      on: {
        click: () =>
          openDialPad({
            title: "Call a number into the meeting",
            call: (peer) => command((room) => callInto(room, peer)),
          }),
      },
    },
    icon("keypad"),
    "Call a number",
  );
  const title = h("h3", { id: "inside-title" });
  const list = h("ul", { class: "rows", "aria-labelledby": "inside-title", data: { test: "participants" } });
  const element = h(
    "aside",
    { class: "meeting-panel", "aria-label": "People", hidden: true, data: { test: "people-panel" } },
    panelHead("People", "people"),
    h(
      "div",
      { class: "panel-scroll", tabindex: "0", role: "group", "aria-label": "People in and around the meeting" },
      lobby,
      title,
      list,
      add,
      callIn,
      muteAll,
      settings.element,
    ),
  );

  return {
    element,
    /** @param {Meeting | null} meeting when the panel is open */
    update(meeting) {
      const hadFocus = element.contains(document.activeElement);
      element.hidden = meeting === null;
      if (hadFocus && !meeting) document.querySelector(/** @type {"button"} */ ("[data-test=meeting-people]"))?.focus();
      if (!meeting?.room) return;
      const { room, isModerator } = meeting;
      lobby.hidden = !isModerator || room.waiting.length === 0;
      keyed(
        lobbyList,
        room.waiting,
        ({ waiting }) => waiting,
        (one) => waitingRow(one, command),
      );
      const inside = [room.local, ...[...room.participants.values()].sort(byHand)];
      setText(title, `${people(inside.length)} inside`);
      const rows = Math.min(inside.length, list.childElementCount + ROWS_MADE_MAX);
      keyed(
        list,
        inside.slice(0, rows),
        ({ id }) => id,
        (one) => personRow(one),
      );
      if (rows < inside.length) meeting.touch();
      // A phone could not be heard where everything is encrypted from end to end.
      callIn.hidden = !isModerator || !store.state.canDial || room.isEncrypted;
      muteAll.hidden = !isModerator || unmuted(room).length === 0;
      settings.element.hidden = !isModerator;
      settings.update(room);
    },
  };
}

/** @param {Room} room @param {{ user: string, name: string }} peer */
async function callInto(room, { user, name }) {
  try {
    await room.invite(user);
  } catch (error) {
    if (/** @type {{ code?: string }} */ (error).code !== "self_call") throw error;
    toast(`${name} is here already`, "A number is in a meeting once.", { key: "invite" });
  }
}

/** Hands that are up come first, the longest up before the others. @param {RemoteParticipant} a @param {RemoteParticipant} b */
function byHand(a, b) {
  return (a.handAt ?? Infinity) - (b.handAt ?? Infinity) || a.name.localeCompare(b.name);
}

/** @param {Room} room */
function unmuted(room) {
  const microphones = [...room.participants.values()].map((one) => one.track("microphone"));
  return microphones
    .filter((track) => track !== null && !track.muted)
    .map((track) => /** @type {NonNullable<typeof track>} */ (track));
}

/** @param {(run: (room: Room) => Promise<unknown>) => void} command */
function settingsView(command) {
  const switches = SETTINGS.map(([name, label, hint]) => {
    const change = async (/** @type {boolean} */ on) => {
      if (name === "encrypted" && !(await askToSwitchOff())) return store.state.meeting?.touch();
      command((room) => room.set(name === "listeners" ? { role: on ? "listener" : "speaker" } : { [name]: on }));
    };
    return { name, element: toggle({ label, hint, on: false, test: `room-${name}`, change: (on) => void change(on) }) };
  });
  return {
    element: h(
      "div",
      { class: "room-settings", role: "group", "aria-label": "Settings of the meeting" },
      ...switches.map((one) => one.element),
    ),
    /** @param {Room} room */
    update({ settings, isEncrypted }) {
      const on = {
        lobby: settings.lobby,
        locked: settings.locked,
        listeners: settings.role === "listener",
        encrypted: isEncrypted,
      };
      for (const { name, element } of switches) {
        /** @type {HTMLInputElement} */ (element.querySelector("input")).checked = on[name];
        // It can only be switched off.
        if (name === "encrypted") element.hidden = !on.encrypted;
      }
    },
  };
}

/** @param {Waiting} waiting @param {(run: (room: Room) => Promise<unknown>) => void} command */
function waitingRow({ waiting, user, name }, command) {
  const whom = () => h("span", { class: "visually-hidden" }, ` ${name}`);
  const answer = (/** @type {boolean} */ admit) => () => command((room) => room.admit([waiting], admit));
  const element = h(
    "li",
    { class: "row" },
    avatar({ user, name }, "small"),
    h("span", { class: "row-words" }, h("span", { class: "row-name" }, name)),
    h(
      "button",
      { class: "button small", type: "button", data: { test: `deny-${user}` }, on: { click: answer(false) } },
      "Deny",
      whom(),
    ),
    h(
      "button",
      { class: "button small primary", type: "button", data: { test: `admit-${user}` }, on: { click: answer(true) } },
      "Let in",
      whom(),
    ),
  );
  return { element, update() {} };
}

/** @param {Participant} first */
function personRow(first) {
  let person = first;
  const picture = avatar(first, "small");
  const name = h("span", { class: "row-name" });
  const detail = h("span", { class: "row-detail" });
  const hand = h(
    "span",
    { class: "row-sign hand", title: "Hand raised", hidden: true },
    icon("hand"),
    h("span", { class: "visually-hidden" }, "Hand raised"),
  );
  const microphone = icon("mic");
  const camera = icon("video");
  const facts = h("span", { class: "visually-hidden" });
  const more = h(
    "button",
    { class: "icon-button", type: "button", on: { click: () => openPerson(person) } },
    icon("more"),
  );
  const element = h(
    "li",
    { class: "row" },
    picture,
    h("span", { class: "row-words" }, name, detail),
    hand,
    h("span", { class: "row-signs", "aria-hidden": "true" }, microphone, camera),
    facts,
    more,
  );
  return {
    element,
    /** @param {Participant} next */
    update(next) {
      person = next;
      const { meeting } = store.state;
      const isSelf = next === meeting?.room?.local;
      const { isHeard, isSeen } = isSelf ? ownState(meeting) : stateOf(/** @type {RemoteParticipant} */ (next));
      const isWeak = next.quality === "poor" || next.quality === "lost";
      setAvatar(picture, next);
      setText(name, isSelf ? `${next.name} (you)` : next.name);
      setText(
        detail,
        [
          next.line ? LINE_WORDS[next.line] : ROLE_WORDS[next.role],
          next.line && numberOf(next.user) !== next.name && numberOf(next.user),
          isWeak && next.quality && QUALITY_WORDS[next.quality],
          !isSelf && DEVICE_WORDS[/** @type {RemoteParticipant} */ (next).device ?? ""],
        ]
          .filter(Boolean)
          .join(" · "),
      );
      setIcon(microphone, isHeard ? "mic" : "micOff");
      setIcon(camera, isSeen ? "video" : "videoOff");
      // A phone has no camera to speak of.
      camera.toggleAttribute("hidden", next.line !== null);
      const seen = isSeen ? "camera on" : "camera off";
      setText(facts, [isHeard ? "microphone on" : "muted", next.line === null && seen].filter(Boolean).join(", "));
      setAttribute(microphone, "data-on", String(isHeard));
      setAttribute(camera, "data-on", String(isSeen));
      hand.hidden = next.handAt === null;
      more.hidden = isSelf || !meeting?.isModerator;
      setAttribute(more, "aria-label", `What to do about ${next.name}`);
      setAttribute(more, "data-test", `more-${next.user}`);
      setAttribute(element, "data-test", `participant-${next.user}`);
      setAttribute(element, "data-role", next.role);
    },
  };
}

/** @param {Meeting | null} meeting */
function ownState(meeting) {
  const { own } = meeting ?? {};
  return { isHeard: Boolean(own?.isMicrophoneOn && own.microphone), isSeen: Boolean(own?.camera) };
}

/** @param {RemoteParticipant} person */
function stateOf(person) {
  const isOn = (/** @type {"microphone" | "camera"} */ source) => person.track(source)?.muted === false;
  return { isHeard: isOn("microphone"), isSeen: isOn("camera") };
}

/** What a moderator may do about somebody. @param {Participant} person */
function openPerson(person) {
  const { meeting } = store.state;
  const remote = meeting?.room?.participants.get(person.id);
  if (!meeting || !remote) return;
  const microphone = remote.track("microphone");
  const camera = remote.track("camera");
  const screen = remote.track("screen");
  const isPhone = remote.line !== null;
  void openDialog({ title: person.name, test: "person-dialog", class: "narrow" }, (close) => {
    const action = (
      /** @type {string} */ test,
      /** @type {import("../../icons.js").IconName} */ sign,
      /** @type {string} */ label,
      /** @type {(room: Room) => Promise<unknown>} */ run,
    ) =>
      h(
        "button",
        {
          class: "button wide",
          type: "button",
          data: { test },
          on: { click: () => (close(), void meeting.command(run)) },
        },
        icon(sign),
        label,
      );
    return [
      microphone && !microphone.muted && action("mute-person", "micOff", "Mute", (room) => room.mute(microphone)),
      isPhone &&
        microphone?.muted &&
        action("unmute-person", "mic", "Unmute", (room) => room.mute(microphone, false)),
      !isPhone && microphone !== null && microphone.muted && action("ask-to-speak", "mic", "Ask to unmute", (room) => room.askToUnmute(microphone)),
      remote.handAt !== null && action("lower-hand", "hand", "Lower the hand", (room) => room.lowerHand(remote)),
      camera &&
        !camera.muted &&
        action("stop-camera", "videoOff", "Switch the camera off", (room) => room.mute(camera)),
      screen && action("stop-screen", "screen", "Stop the shared screen", (room) => room.mute(screen)),
      !isPhone &&
        person.role !== "moderator" &&
        action("make-moderator", "shield", "Make a moderator", (room) => room.setRole(person, "moderator")),
      !isPhone &&
        person.role !== "speaker" &&
        action("make-speaker", "mic", person.role === "listener" ? "Let speak" : "Make a participant", (room) =>
          room.setRole(person, "speaker"),
        ),
      !isPhone &&
        person.role !== "listener" &&
        action("make-listener", "people", "Make a listener", (room) => room.setRole(person, "listener")),
      isPhone
        ? action("remove-person", "hangup", "Hang up", (room) => room.remove(person))
        : action("remove-person", "close", "Remove from the meeting", (room) => room.remove(person)),
    ].filter((one) => typeof one === "object");
  });
}
