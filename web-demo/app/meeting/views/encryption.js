/** What a person sees of end-to-end encryption: the mark with its words, the question before it ends, and after it has ended. */

import { openDialog } from "../../dialogs.js";
import { h, setAttribute, setText } from "../../dom.js";
import { icon } from "../../icons.js";
import { store } from "../../state.js";

/** @typedef {import("../meeting.js").Meeting} Meeting */
/** @typedef {import("../../../client/index.js").Room} Room */

/** The mark in the head of a meeting that opens the words. */
export function shieldView() {
  const words = h("span", null, "Encrypted");
  const element = h(
    "button",
    {
      class: "talk-safe",
      type: "button",
      hidden: true,
      data: { test: "encrypted" },
      on: { click: () => openCode() },
    },
    icon("shield"),
    words,
  );
  return {
    element,
    /** @param {Room} room */
    update(room) {
      element.hidden = !room.isEncrypted;
      const isChanged = changedDevices(room).length > 0;
      setText(words, isChanged ? "Compare the words" : "Encrypted");
      setAttribute(element, "data-device", isChanged ? "changed" : null);
    },
  };
}

/** The words that prove that nobody sits in between; they follow who comes and leaves while one reads. */
function openCode() {
  const room = store.state.meeting?.room;
  if (!room) return;
  const list = h("ol", { class: "code", "aria-label": "Words to compare", data: { test: "meeting-code" } });
  const hint = h("p", { class: "hint", role: "status" });
  const devices = h("p", { class: "device-words" });
  const update = () => {
    const { code } = room;
    list.replaceChildren(...(code ?? []).map((word) => h("li", null, word)));
    list.hidden = code === null;
    const isAlone = room.participants.size === 0;
    setText(
      hint,
      !code
        ? "The browsers are agreeing on the words."
        : isAlone
          ? "Nobody else is here yet. The words change whenever somebody comes or leaves."
          : "Read them to one another. If all have the same ten, nobody is in between. They change whenever somebody comes or leaves.",
    );
    const changed = changedDevices(room);
    setText(
      devices,
      changed.length
        ? `${changed.join(" and ")}: the key of that device is not the one it had before. Compare the words before you trust it.`
        : "",
    );
    setAttribute(devices, "data-device", changed.length ? "changed" : null);
  };
  const stop = [room.on("code", update), room.on("participantChanged", update)];
  update();
  const closed = openDialog({ title: "Encrypted from end to end", test: "code-dialog", class: "narrow" }, () => [
    h("p", null, "Sound and pictures are sealed in each browser. The server passes them on and cannot look inside."),
    list,
    hint,
    devices,
    h("p", { class: "hint" }, "The chat, names and who speaks when are not sealed."),
  ]);
  void closed.then(() => stop.forEach((off) => off()));
}

/** @returns {Promise<boolean>} whether a moderator means it */
export async function askToSwitchOff() {
  const answer = await openDialog(
    { title: "Switch encryption off?", test: "switch-off-dialog", class: "narrow" },
    (close) => [
      h("p", null, "It cannot be switched on again in this meeting. Everybody is told, and asked whether they go on."),
      h(
        "div",
        { class: "dialog-actions" },
        h("button", { class: "button primary", type: "button", on: { click: () => close() } }, "Keep it on"),
        h(
          "button",
          { class: "button", type: "button", data: { test: "switch-off" }, on: { click: () => close("off") } },
          "Switch it off",
        ),
      ),
    ],
  );
  return answer === "off";
}

/** Stands over the pictures after somebody has switched it off: nothing is sent before the person here says so. */
export function haltedView() {
  const current = () => store.state.meeting;
  const element = h(
    "div",
    {
      class: "meeting-notice",
      role: "alertdialog",
      "aria-labelledby": "halted-title",
      "aria-describedby": "halted-words",
      hidden: true,
      data: { kind: "lost", test: "halted" },
    },
    h("p", { class: "notice-title", id: "halted-title" }, "No longer encrypted"),
    h(
      "p",
      { id: "halted-words" },
      "A moderator has switched end-to-end encryption off. You are not seen or heard, and you see and hear nobody, until you go on. The server could look in then.",
    ),
    h(
      "div",
      { class: "notice-actions" },
      h(
        "button",
        {
          class: "button",
          type: "button",
          data: { test: "leave-unencrypted" },
          on: { click: () => void current()?.leave() },
        },
        "Leave",
      ),
      h(
        "button",
        {
          class: "button primary",
          type: "button",
          data: { test: "go-on-unencrypted" },
          on: { click: () => void current()?.command((room) => room.goOnUnencrypted()) },
        },
        "Go on without",
      ),
    ),
  );
  return {
    element,
    /** @param {Meeting | null} meeting */
    update(meeting) {
      const isHalted = Boolean(meeting?.room?.isHalted);
      if (element.hidden === !isHalted) return;
      element.hidden = !isHalted;
      if (isHalted) element.querySelector("button")?.focus({ preventScroll: true });
    },
  };
}

/** @param {Room} room @returns {string[]} whose Device has another key than when it was met before */
function changedDevices(room) {
  return [...room.participants.values()].filter(({ device }) => device === "changed").map(({ name }) => name);
}
