/** The look in the mirror before a meeting: picture, level, devices, and what is on when one comes in. */

import { chooseDevice, chosenDevice, listDevices, meter } from "../../devices.js";
import { h, setAttribute, setText } from "../../dom.js";
import { icon, setIcon } from "../../icons.js";
import { mediaWords } from "../../messages.js";
import { useSpeaker } from "../../sounds.js";
import { store } from "../../state.js";
import { avatar, setAvatar } from "../../views/avatar.js";
import { DEVICE_KINDS, DEVICE_LABELS, deviceSelect, fillSelect } from "../../views/settings.js";
import { toggle } from "../../views/toggle.js";

/** @typedef {import("../meeting.js").Meeting} Meeting */
/** @typedef {import("../../devices.js").DeviceKind} DeviceKind */

export function checkView() {
  const meeting = () => /** @type {Meeting} */ (store.state.meeting);
  const title = h("h1", { class: "check-title" });
  const preview = h("video", {
    class: "check-video",
    autoplay: true,
    playsinline: true,
    "aria-label": "Your camera's picture",
    data: { test: "preview" },
  });
  // The attribute alone does not mute an element made by script.
  preview.muted = true;
  const face = avatar({ user: "", name: "" }, "huge");
  const words = h("p", { class: "check-words", role: "status" });
  const microphone = switchButton("check-microphone", "M", () => void meeting().own.toggleMicrophone());
  const camera = switchButton("check-camera", "V", () => void meeting().own.toggleCamera());
  const level = levelView();
  const selects = /** @type {Record<DeviceKind, HTMLSelectElement>} */ (
    Object.fromEntries(DEVICE_KINDS.map((kind) => [kind, deviceSelect(kind, "check")]))
  );
  for (const kind of DEVICE_KINDS) selects[kind].addEventListener("change", () => void choose(kind));
  const encryption = toggle({
    label: "End-to-end encrypted",
    hint: "Only those inside can see and hear you; the server cannot. A meeting has it from its beginning or not at all.",
    on: false,
    test: "check-encrypted",
    change: (on) => (meeting().wantsEncryption = on),
  });
  encryption.hidden = !("RTCRtpScriptTransform" in globalThis);
  const join = h("button", { class: "button primary wide", type: "submit", data: { test: "join" } }, "Join");
  const cancel = h(
    "button",
    { class: "button wide", type: "button", data: { test: "check-cancel" }, on: { click: () => meeting().close() } },
    "Cancel",
  );
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    void meeting().join();
  };
  const element = h(
    "form",
    { class: "check", on: { submit } },
    h(
      "div",
      { class: "check-picture" },
      preview,
      face,
      words,
      h("div", { class: "check-switches" }, microphone.element, camera.element),
    ),
    h(
      "div",
      { class: "check-side" },
      title,
      h("p", { class: "hint" }, "Nobody sees or hears you yet."),
      level.element,
      ...DEVICE_KINDS.map((kind) =>
        h("div", { class: "device" }, h("label", { for: selects[kind].id }, DEVICE_LABELS[kind]), selects[kind]),
      ),
      encryption,
      h("div", { class: "check-actions" }, join, cancel),
    ),
  );

  /** @type {Meeting | null} */
  let shown = null;
  const fill = async () => {
    const devices = await listDevices();
    for (const kind of DEVICE_KINDS) fillSelect(selects[kind], devices[kind], chosenDevice(kind));
  };
  navigator.mediaDevices?.addEventListener("devicechange", () => shown && void fill());
  const choose = async (/** @type {DeviceKind} */ kind) => {
    const id = selects[kind].value;
    chooseDevice(kind, id);
    if (kind === "audiooutput") await useSpeaker(id).catch(() => {});
    else await meeting().own.useChosenDevice(kind);
  };

  return {
    element,
    /** @param {Meeting | null} next a meeting that is about to be joined */
    update(next) {
      if (next && next !== shown) {
        setText(title, `Ready for ${next.name}?`);
        /** @type {HTMLInputElement} */ (encryption.querySelector("input")).checked = next.wantsEncryption;
        setTimeout(() => join.focus({ preventScroll: true }), 60);
      }
      shown = next;
      const own = next?.own ?? null;
      show(preview, own?.camera ?? null);
      level.update(own?.microphone ?? null);
      if (!own) return;
      if (store.state.me) setAvatar(face, store.state.me);
      face.hidden = own.camera !== null;
      setText(words, explain(own));
      const isHeard = own.microphone !== null && own.isMicrophoneOn;
      microphone.show(isHeard ? "mic" : "micOff", isHeard ? "Microphone off" : "Microphone on", !isHeard);
      camera.show(own.camera ? "video" : "videoOff", own.camera ? "Camera off" : "Camera on", !own.camera);
      // Names of devices are only given once one of them is open.
      const opened = [own.camera, own.microphone].filter(Boolean).length;
      if (element.dataset.opened !== String(opened)) void fill();
      setAttribute(element, "data-opened", String(opened));
    },
  };
}

/** @param {import("../own-media.js").OwnMedia} own */
function explain({ camera, isCameraWanted, problems }) {
  const problem = (isCameraWanted && problems.camera) || problems.microphone;
  if (problem) {
    const { title, detail } = mediaWords(problem);
    return `${title}. ${detail}`;
  }
  return isCameraWanted && !camera ? "Starting the camera…" : "";
}

/** @param {HTMLVideoElement} video @param {MediaStreamTrack | null} track */
function show(video, track) {
  const shown = video.srcObject instanceof MediaStream ? video.srcObject.getVideoTracks()[0] : null;
  if (shown !== track) video.srcObject = track && new MediaStream([track]);
  video.hidden = track === null;
}

/** How loud the microphone is, so that one sees that it works. */
function levelView() {
  const bar = h("span", { class: "level-bar" });
  const element = h(
    "span",
    {
      class: "level",
      role: "meter",
      "aria-label": "Microphone level",
      "aria-valuemin": "0",
      "aria-valuemax": "100",
      "aria-valuenow": "0",
      data: { test: "check-level" },
    },
    bar,
  );
  /** @type {MediaStreamTrack | null} */
  let measured = null;
  let stop = () => {};
  return {
    element,
    /** @param {MediaStreamTrack | null} track */
    update(track) {
      if (track === measured) return;
      measured = track;
      stop();
      stop = () => {};
      bar.style.transform = "scaleX(0)";
      if (!track) return;
      stop = meter(new MediaStream([track]), (loudness) => {
        bar.style.transform = `scaleX(${loudness.toFixed(2)})`;
        element.setAttribute("aria-valuenow", String(Math.round(loudness * 100)));
      });
    },
  };
}

/**
 * @param {string} test
 * @param {string} key
 * @param {() => void} click
 */
function switchButton(test, key, click) {
  const sign = icon("mic");
  const words = h("span", { class: "visually-hidden" });
  const element = h(
    "button",
    { class: "control", type: "button", data: { test }, "aria-keyshortcuts": key, on: { click } },
    h("span", { class: "control-disc" }, sign, words),
  );
  return {
    element,
    /** @param {import("../../icons.js").IconName} picture @param {string} label @param {boolean} on */
    show(picture, label, on) {
      setIcon(sign, picture);
      setText(words, label);
      setAttribute(element, "title", `${label} (${key})`);
      setAttribute(element, "data-on", String(on));
    },
  };
}
