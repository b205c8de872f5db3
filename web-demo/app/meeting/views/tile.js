/** One picture of a meeting: somebody's camera, or a shared screen, with who it is and how they are. */

import { h, setAttribute, setText } from "../../dom.js";
import { icon, setIcon } from "../../icons.js";
import { avatar, setAvatar } from "../../views/avatar.js";
import { QUALITY_WORDS, factWords } from "../words.js";

/** @typedef {import("../layout.js").Box} Box */

/**
 * What a tile shows.
 *
 * @typedef {object} Spec
 * @property {string} key
 * @property {import("../../../client/index.js").Participant} participant
 * @property {boolean} isSelf
 * @property {"camera" | "screen"} source
 * @property {import("../../../client/index.js").RemoteTrack | null} track of somebody else
 * @property {MediaStream | null} stream what there is to see
 * @property {boolean} isSilent
 * @property {boolean} isPinned
 * @property {string} [reaction]
 */

/**
 * The most of a camera's picture that may be cut off so that it fills its tile: a wide picture fills the upright tile of a phone,
 * for people sit in the middle. Of a screen nothing is.
 */
const CROP_MAX = 0.6;

/** @param {{ pin: () => void }} on */
export function makeTile({ pin: togglePin }) {
  const video = h("video", {
    class: "tile-video",
    autoplay: true,
    playsinline: true,
    "aria-hidden": "true",
    tabindex: "-1",
  });
  // Sound has elements of its own.
  video.muted = true;
  const face = avatar({ user: "", name: "" });
  const silent = icon("micOff");
  const name = h("span", { class: "tile-name-words" });
  const facts = h("span", { class: "visually-hidden" });
  const hand = h(
    "span",
    { class: "tile-sign hand", "aria-hidden": "true", title: "Hand raised", hidden: true },
    icon("hand"),
  );
  const quality = h("span", { class: "tile-sign quality", "aria-hidden": "true", hidden: true }, icon("info"));
  const reaction = h("span", { class: "tile-reaction", "aria-hidden": "true", hidden: true });
  const paused = h("span", { class: "tile-paused", hidden: true }, "Picture paused: little bandwidth");
  const pinSign = icon("pin");
  const pin = h("button", { class: "tile-pin", type: "button", on: { click: togglePin } }, pinSign);
  const element = h(
    "li",
    { class: "tile", hidden: true, on: { dblclick: togglePin } },
    video,
    face,
    paused,
    h("span", { class: "tile-name" }, silent, name, facts),
    h("span", { class: "tile-signs" }, hand, quality),
    reaction,
    pin,
  );

  let isScreen = false;
  /** @type {Box | null} */
  let placed = null;
  const fit = () => {
    const { videoWidth, videoHeight } = video;
    if (!placed || !videoWidth || !videoHeight) return;
    const shapes = [videoWidth / videoHeight, placed.width / placed.height].sort((a, b) => a - b);
    setAttribute(video, "data-fit", !isScreen && 1 - shapes[0] / shapes[1] <= CROP_MAX ? "cover" : "contain");
  };
  video.addEventListener("resize", fit);
  // Frames come some time after their stream: until then the face stays.
  video.addEventListener("loadeddata", () => {
    setAttribute(element, "data-drawn", "true");
    fit();
  });

  return {
    element,
    /** @param {Spec} spec */
    update({ participant, isSelf, source, track, stream, isSilent, isPinned, reaction: shownReaction }) {
      isScreen = source === "screen";
      const visible = track?.paused ? null : stream;
      if (video.srcObject !== visible) {
        video.srcObject = visible;
        setAttribute(element, "data-drawn", null);
      }
      const words = isScreen ? `${participant.name}’s screen` : isSelf ? "You" : participant.name;
      const isMuted = isSilent && !isScreen;
      const hasHand = participant.handAt !== null && !isScreen;
      const isWeak = (participant.quality === "poor" || participant.quality === "lost") && !isScreen;
      setAttribute(element, "data-test", isScreen ? `screen-of-${participant.user}` : `tile-${participant.user}`);
      setAttribute(element, "data-picture", String(visible !== null));
      setAttribute(element, "data-source", source);
      setAttribute(element, "data-self", String(isSelf));
      setAttribute(element, "data-speaking", String(participant.isSpeaking && !isScreen));
      setAttribute(element, "data-muted", String(isMuted));
      setAvatar(face, participant);
      setText(name, words);
      setText(
        facts,
        factWords({
          isMuted,
          isHidden: !isScreen && stream === null,
          hasHand,
          quality: isWeak ? participant.quality : null,
        }),
      );
      setAttribute(silent, "hidden", isMuted ? null : "");
      hand.hidden = !hasHand;
      quality.hidden = !isWeak;
      setAttribute(quality, "data-quality", participant.quality);
      if (isWeak && participant.quality) setAttribute(quality, "title", QUALITY_WORDS[participant.quality]);
      paused.hidden = !track?.paused;
      reaction.hidden = isScreen || !shownReaction;
      setText(reaction, shownReaction ?? "");
      setIcon(pinSign, isPinned ? "unpin" : "pin");
      setAttribute(pin, "aria-label", isPinned ? `Unpin ${words}` : `Pin ${words}`);
      setAttribute(pin, "title", isPinned ? "Unpin" : "Pin");
    },
    /** @param {Box | null} box where it lies; null: not on this page */
    place(box) {
      if (
        box &&
        placed &&
        box.x === placed.x &&
        box.y === placed.y &&
        box.width === placed.width &&
        box.height === placed.height
      )
        return;
      const wasHidden = placed === null;
      placed = box;
      element.hidden = box === null;
      if (!box) return;
      const { style } = element;
      style.transform = `translate(${box.x}px, ${box.y}px)`;
      style.width = `${box.width}px`;
      style.height = `${box.height}px`;
      setAttribute(element, "data-size", box.height < 130 ? "small" : box.height < 300 ? "medium" : "large");
      // A browser may stop a picture that nobody can see.
      if (wasHidden && video.srcObject && video.paused) void video.play().catch(() => {});
      fit();
    },
  };
}
