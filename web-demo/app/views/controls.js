/** The row of buttons under a Call. */

import { addPeople, currentActive, end, toggleHold } from "../calls.js";
import { canShareScreen } from "../devices.js";
import { h, setAttribute, setText } from "../dom.js";
import { icon, setIcon } from "../icons.js";
import { localMedia, toggleCamera, toggleMute, toggleScreen } from "../local-media.js";
import { currentCall, store } from "../state.js";
import { openKeys } from "./dialpad.js";
import { openTransfer } from "./transfer.js";

/** @typedef {import("../state.js").Call} Call */
/** @typedef {import("../icons.js").IconName} IconName */

export function controlsView() {
  const withCall = (/** @type {(call: Call) => unknown} */ run) => () => {
    const call = currentActive();
    if (call) void run(call);
  };
  const mute = control("mute", "mic", "M", withCall(toggleMute));
  const camera = control("camera", "video", "V", withCall(toggleCamera));
  const screen = control("screen", "screen", "S", withCall(toggleScreen));
  const keys = control("keys", "keypad", "K", withCall(openKeys));
  const hold = control("hold", "hold", "H", withCall(toggleHold));
  const transfer = control("transfer", "transfer", "T", withCall(openTransfer));
  const add = control("add-people", "add", "P", withCall(addPeople));
  const info = control("connection-open", "info", "I", () => store.set({ panelOpen: !store.state.panelOpen }));
  const hangup = control("hangup", "hangup", "X", () => {
    const call = currentCall(store.state);
    if (call) void end(call);
  });
  hangup.element.dataset.tone = "bad";
  const element = h(
    "div",
    { class: "controls", role: "group", "aria-label": "This call" },
    mute.element,
    camera.element,
    screen.element,
    keys.element,
    hold.element,
    transfer.element,
    add.element,
    info.element,
    hangup.element,
  );

  return {
    element,
    /**
     * @param {Call} call
     * @param {boolean} panelOpen
     */
    update(call, panelOpen) {
      const media = localMedia(call);
      const active = call.phase === "active";
      const silent = !media || media.stream.getAudioTracks().length === 0;
      const muted = silent || call.muted;
      mute.show(muted ? "micOff" : "mic", muted ? "Unmute" : "Mute", muted);
      camera.show(media?.camera ? "video" : "videoOff", media?.camera ? "Camera off" : "Camera on", !media?.camera);
      screen.show("screen", media?.screen ? "Stop sharing" : "Share", Boolean(media?.screen));
      keys.show("keypad", "Keys", null);
      hold.show(call.heldByMe ? "resume" : "hold", call.heldByMe ? "Resume" : "Hold", call.heldByMe);
      transfer.show("transfer", "Transfer", false);
      add.show("add", "Add people", null);
      info.show("info", "Details", panelOpen);
      hangup.show("hangup", active ? "Hang up" : "Cancel", null);
      for (const one of [mute, camera, screen, keys, hold, transfer, add, info]) one.element.hidden = !active;
      // Who is on hold hears nobody, in a meeting neither.
      if (!store.state.hasMeetings || call.heldByMe || call.heldByPeer) add.element.hidden = true;
      if (!canShareScreen()) screen.element.hidden = true;
      // A phone has a voice and keys, and no picture.
      keys.element.hidden = !call.isPhone || call.phase === "ended";
      if (call.isPhone) camera.element.hidden = screen.element.hidden = true;
    },
  };
}

/**
 * @param {string} test
 * @param {IconName} picture
 * @param {string} key
 * @param {() => void} click
 */
export function control(test, picture, key, click) {
  const sign = icon(picture);
  const words = h("span", { class: "control-words" });
  const element = h(
    "button",
    { class: "control", type: "button", data: { test }, "aria-keyshortcuts": key, on: { click } },
    h("span", { class: "control-disc" }, sign),
    words,
  );
  return {
    element,
    /**
     * @param {IconName} next
     * @param {string} label says what a click does
     * @param {boolean | null} on whether the state it stands for is on
     */
    show(next, label, on) {
      setIcon(sign, next);
      setText(words, label);
      setAttribute(element, "title", `${label} (${key})`);
      setAttribute(element, "data-on", on === null ? null : String(on));
    },
  };
}
