/**
 * The pictures of a Call: the other side large, oneself small. Where there is no picture there is a face of initials,
 * and the sound still plays.
 */

import { applySpeaker } from "../devices.js";
import { h, setAttribute, setText } from "../dom.js";
import { localMedia } from "../local-media.js";
import { avatar, setAvatar } from "./avatar.js";

/** @typedef {import("../state.js").Call} Call */

/** The most of a camera's picture that may be cut off so that it fills the stage; of a screen nothing is. */
const CROP_MAX = 0.3;
const CORNERS = /** @type {const} */ (["bottom-right", "bottom-left", "top-left", "top-right"]);
/** A pointer that moved less than this meant a click. */
const DRAG_PX = 6;

export function tilesView() {
  const remote = h("video", {
    class: "remote-video",
    autoplay: true,
    playsinline: true,
    data: { test: "remote-video" },
  });
  const face = avatar({ user: "", name: "" }, "huge");
  const remoteTile = h("div", { class: "remote" }, remote, face);
  const self = selfTile();
  const element = h("div", { class: "tiles" }, remoteTile, self.element);

  let isScreen = false;

  const fit = () => {
    const { videoWidth, videoHeight } = remote;
    const { clientWidth, clientHeight } = remoteTile;
    if (!videoWidth || !clientWidth) return;
    const shapes = [videoWidth / videoHeight, clientWidth / clientHeight].sort((a, b) => a - b);
    remote.dataset.fit = !isScreen && 1 - shapes[0] / shapes[1] <= CROP_MAX ? "cover" : "contain";
  };
  remote.addEventListener("resize", fit);
  new ResizeObserver(fit).observe(remoteTile);

  return {
    element,
    /** @param {Call | null} call */
    update(call) {
      const stream = call?.remoteStream ?? null;
      if (remote.srcObject !== stream) {
        remote.srcObject = stream;
        void applySpeaker(remote);
      }
      const arrives = call?.connectionState === "connected" || call?.connectionState === "reconnecting";
      const hasPicture = Boolean(stream?.getVideoTracks().length) && arrives && !call?.heldByMe && !call?.heldByPeer;
      // Hidden, not removed: the sound comes out of the same element.
      setAttribute(remoteTile, "data-picture", String(hasPicture));
      isScreen = call?.peerMedia?.video === "screen";
      setAttribute(remoteTile, "data-screen", String(isScreen));
      fit();
      if (call) {
        setAvatar(face, call.peer);
        setAttribute(remote, "aria-label", `${call.peer.name}’s ${isScreen ? "screen" : "picture"}`);
      }
      self.update(call);
    },
  };
}

function selfTile() {
  const video = h("video", {
    class: "self-video",
    autoplay: true,
    playsinline: true,
    muted: true,
    data: { test: "self-video" },
    "aria-label": "Your picture",
  });
  // The attribute alone does not mute an element made by script.
  video.muted = true;
  const words = h("span", { class: "self-words" });
  const name = h("span", { class: "visually-hidden" }, "Your picture. Move to the next corner. ");
  const element = h(
    "button",
    {
      class: "self",
      type: "button",
      title: "Move to the next corner",
      data: { corner: CORNERS[0], test: "self-tile" },
    },
    video,
    name,
    words,
  );
  makeMovable(element);

  return {
    element,
    /** @param {Call | null} call */
    update(call) {
      const media = call && localMedia(call);
      const track = media?.screen ?? media?.camera ?? null;
      const shown = video.srcObject instanceof MediaStream ? video.srcObject.getVideoTracks()[0] : null;
      if (shown !== (track ?? undefined)) video.srcObject = track ? new MediaStream([track]) : null;
      // To a phone no picture goes.
      element.hidden = !media || Boolean(call?.heldByMe || call?.isPhone);
      setAttribute(element, "data-picture", track ? (media?.screen ? "screen" : "camera") : "none");
      setText(words, media?.screen ? "Your screen" : track ? "" : call?.muted ? "Muted, camera off" : "Camera off");
    },
  };
}

/**
 * Dragged with a pointer it settles in the nearest corner; clicked, or by key, it goes round the corners.
 *
 * @param {HTMLElement} element
 */
export function makeMovable(element) {
  /** @type {{ x: number, y: number } | null} */
  let start = null;
  let dragged = false;

  element.addEventListener("pointerdown", (event) => {
    start = { x: event.clientX, y: event.clientY };
    dragged = false;
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [x, y] = [event.clientX - start.x, event.clientY - start.y];
    if (Math.hypot(x, y) > DRAG_PX) dragged = true;
    if (dragged) element.style.transform = `translate(${x}px, ${y}px)`;
  });
  const drop = () => {
    if (dragged) element.dataset.corner = nearestCorner(element);
    element.style.transform = "";
    start = null;
  };
  element.addEventListener("pointerup", drop);
  element.addEventListener("pointercancel", drop);
  element.addEventListener("click", () => {
    if (dragged) return;
    const at = CORNERS.findIndex((corner) => corner === element.dataset.corner);
    element.dataset.corner = CORNERS[(at + 1) % CORNERS.length];
  });
}

/** @param {HTMLElement} element */
function nearestCorner(element) {
  const tile = element.getBoundingClientRect();
  const stage = /** @type {HTMLElement} */ (element.parentElement).getBoundingClientRect();
  const right = tile.left + tile.width / 2 > stage.left + stage.width / 2;
  const bottom = tile.top + tile.height / 2 > stage.top + stage.height / 2;
  return `${bottom ? "bottom" : "top"}-${right ? "right" : "left"}`;
}
