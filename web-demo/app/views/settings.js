/** Camera, microphone and loudspeaker, with a picture and a level to try them before anybody else sees or hears. */

import { openDialog } from "../dialogs.js";
import {
  applySpeaker,
  chooseDevice,
  chosenDevice,
  listDevices,
  MediaProblem,
  meter,
  openCamera,
  openMicrophone,
} from "../devices.js";
import { h, setText } from "../dom.js";
import { useChosenDevice } from "../local-media.js";
import { mediaWords } from "../messages.js";
import { playRingOnce, useSpeaker } from "../sounds.js";
import { store } from "../state.js";

/** @typedef {import("../devices.js").DeviceKind} DeviceKind */

/** What each kind of device is called. */
export const DEVICE_LABELS = /** @type {const} */ ({
  videoinput: "Camera",
  audioinput: "Microphone",
  audiooutput: "Loudspeaker",
});
export const DEVICE_KINDS = /** @type {const} */ (["videoinput", "audioinput", "audiooutput"]);

export async function openSettings() {
  const preview = h("video", {
    class: "preview-video",
    autoplay: true,
    playsinline: true,
    muted: true,
    "aria-label": "Your camera's picture",
    data: { test: "preview" },
  });
  // The attribute alone does not mute an element made by script.
  preview.muted = true;
  const words = h("p", { class: "preview-words", role: "status" }, "Starting the camera…");
  const bar = h("span", { class: "level-bar" });
  const level = h(
    "span",
    {
      class: "level",
      role: "meter",
      "aria-label": "Microphone level",
      "aria-valuemin": "0",
      "aria-valuemax": "100",
      "aria-valuenow": "0",
      data: { test: "level" },
    },
    bar,
  );
  const selects = {
    videoinput: deviceSelect("videoinput"),
    audioinput: deviceSelect("audioinput"),
    audiooutput: deviceSelect("audiooutput"),
  };
  /** @type {MediaStreamTrack | null} */
  let camera = null;
  /** @type {MediaStreamTrack | null} */
  let microphone = null;
  let stopMeter = () => {};
  let open = true;

  const startCamera = async () => {
    camera?.stop();
    camera = null;
    try {
      const track = await openCamera();
      if (!open) return track.stop();
      camera = track;
      preview.srcObject = new MediaStream([track]);
      setText(words, "");
    } catch (problem) {
      preview.srcObject = null;
      explain(problem);
    }
  };
  const startMicrophone = async () => {
    stopMeter();
    microphone?.stop();
    microphone = null;
    try {
      const track = await openMicrophone();
      if (!open) return track.stop();
      microphone = track;
      stopMeter = meter(new MediaStream([track]), (loudness) => {
        bar.style.transform = `scaleX(${loudness.toFixed(2)})`;
        level.setAttribute("aria-valuenow", String(Math.round(loudness * 100)));
      });
    } catch (problem) {
      explain(problem);
    }
  };
  const explain = (/** @type {unknown} */ problem) => {
    const { title, detail } = mediaWords(problem instanceof MediaProblem ? problem.code : "failed-camera");
    setText(words, `${title}. ${detail}`);
  };
  const choose = async (/** @type {DeviceKind} */ kind) => {
    chooseDevice(kind, selects[kind].value);
    if (kind === "audiooutput") {
      await useSpeaker(selects[kind].value).catch(() => {});
      for (const element of document.querySelectorAll(/** @type {"video"} */ (".remote-video, .remote-sound")))
        await applySpeaker(element);
      return;
    }
    await (kind === "videoinput" ? startCamera() : startMicrophone());
    await useChosenDevice(kind);
    await store.state.meeting?.own.useChosenDevice(kind);
  };
  const fill = async () => {
    const devices = await listDevices();
    for (const kind of DEVICE_KINDS) fillSelect(selects[kind], devices[kind], chosenDevice(kind));
  };

  const closed = openDialog({ title: "Camera and sound", test: "devices-dialog" }, () => [
    h("div", { class: "preview" }, preview, words),
    ...DEVICE_KINDS.map((kind) => {
      selects[kind].addEventListener("change", () => void choose(kind));
      return h(
        "div",
        { class: "device" },
        h("label", { for: `device-${kind}` }, DEVICE_LABELS[kind]),
        selects[kind],
        kind === "audioinput" && level,
        kind === "audiooutput" &&
          h("button", { class: "button small", type: "button", on: { click: playRingOnce } }, "Play the ring"),
      );
    }),
  ]);
  navigator.mediaDevices?.addEventListener("devicechange", fill);
  // Names of devices are only given once one of them is open.
  await Promise.all([startCamera(), startMicrophone()]);
  await fill();

  await closed;
  open = false;
  navigator.mediaDevices?.removeEventListener("devicechange", fill);
  stopMeter();
  for (const track of [camera, microphone]) /** @type {MediaStreamTrack | null} */ (track)?.stop();
}

/**
 * @param {DeviceKind} kind
 * @param {string} [place] the page may have several
 */
export function deviceSelect(kind, place = "device") {
  return h(
    "select",
    { class: "field", id: `${place}-${kind}`, data: { test: `${place}-${kind}` } },
    h("option", { value: "" }, "Automatic"),
  );
}

/**
 * @param {HTMLSelectElement} element
 * @param {MediaDeviceInfo[]} devices
 * @param {string} chosen
 */
export function fillSelect(element, devices, chosen) {
  const options = devices
    .filter((device) => device.deviceId && device.deviceId !== "default")
    .map((device, index) => h("option", { value: device.deviceId }, device.label || `Device ${index + 1}`));
  element.replaceChildren(h("option", { value: "" }, "Automatic"), ...options);
  element.value = devices.some((device) => device.deviceId === chosen) ? chosen : "";
  element.disabled = options.length === 0;
}
