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

/** @typedef {import("../devices.js").DeviceKind} DeviceKind */

const LABELS = /** @type {const} */ ({ videoinput: "Camera", audioinput: "Microphone", audiooutput: "Loudspeaker" });
const KINDS = /** @type {const} */ (["videoinput", "audioinput", "audiooutput"]);

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
    videoinput: select("videoinput"),
    audioinput: select("audioinput"),
    audiooutput: select("audiooutput"),
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
      for (const element of document.querySelectorAll(/** @type {"video"} */ ("video.remote-video")))
        await applySpeaker(element);
      return;
    }
    await (kind === "videoinput" ? startCamera() : startMicrophone());
    await useChosenDevice(kind);
  };
  const fill = async () => {
    const devices = await listDevices();
    for (const kind of KINDS) fillSelect(selects[kind], devices[kind], chosenDevice(kind));
  };

  const closed = openDialog({ title: "Camera and sound", test: "devices-dialog" }, () => [
    h("div", { class: "preview" }, preview, words),
    ...KINDS.map((kind) => {
      selects[kind].addEventListener("change", () => void choose(kind));
      return h(
        "div",
        { class: "device" },
        h("label", { for: `device-${kind}` }, LABELS[kind]),
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

/** @param {DeviceKind} kind */
function select(kind) {
  return h(
    "select",
    { class: "field", id: `device-${kind}`, data: { test: `device-${kind}` } },
    h("option", { value: "" }, "Automatic"),
  );
}

/**
 * @param {HTMLSelectElement} element
 * @param {MediaDeviceInfo[]} devices
 * @param {string} chosen
 */
function fillSelect(element, devices, chosen) {
  const options = devices
    .filter((device) => device.deviceId && device.deviceId !== "default")
    .map((device, index) => h("option", { value: device.deviceId }, device.label || `Device ${index + 1}`));
  element.replaceChildren(h("option", { value: "" }, "Automatic"), ...options);
  element.value = devices.some((device) => device.deviceId === chosen) ? chosen : "";
  element.disabled = options.length === 0;
}
