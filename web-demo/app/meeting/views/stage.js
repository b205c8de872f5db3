/**
 * The pictures of a meeting: a grid, or one large and a strip of the others. Where each lies is computed, never asked for, so
 * that a change costs the browser one layout; what is shown how large goes to the server as a wish.
 */

import { h } from "../../dom.js";
import { grid, gridCapacity, promote, spotlight } from "../layout.js";
import { makeTile } from "./tile.js";

/** @typedef {import("../meeting.js").Meeting} Meeting */
/** @typedef {import("../layout.js").Box} Box */
/** @typedef {import("./tile.js").Spec} Spec */
/** @typedef {import("../../../client/index.js").Wish} Wish */

/** Tiles made anew in one picture; the rest follow in the next ones, so that nothing stutters when fifty come at once. */
const TILES_MADE_MAX = 8;
/** Heights the server is told: small changes of a window are none of its business. */
const HEIGHTS = [90, 180, 270, 360, 540, 720, 1080, 2160];
/** Wishes are for whom one could see soon; in a larger Room the server chooses among the rest. */
const WISHES_MAX = 250;
const SELF = "self";

/** @param {() => Meeting | null} current */
export function stageView(current) {
  const list = h("ul", { class: "tiles", "aria-label": "People in the meeting", data: { test: "tiles" } });
  const element = h("div", { class: "meeting-stage" }, list);
  /** @type {Map<string, ReturnType<typeof makeTile>>} */
  const tiles = new Map();
  let size = { width: 0, height: 0 };
  /** Keys of the others in the order they are shown. @type {string[]} */
  let order = [];
  /** @type {Map<string, number>} */
  const spokeAt = new Map();
  let dominant = "";

  new ResizeObserver(([{ contentRect }]) => {
    size = { width: Math.floor(contentRect.width), height: Math.floor(contentRect.height) };
    current()?.touch();
  }).observe(list);
  document.addEventListener("visibilitychange", () => current()?.touch());

  /** @param {Meeting} meeting @param {Map<string, Spec>} specs */
  const arrange = (meeting, specs) => {
    const keys = [...specs.keys()];
    order = [...order.filter((key) => specs.has(key)), ...keys.filter((key) => !order.includes(key))];
    const speaking = [...specs.values()].filter(
      ({ participant, source }) => participant.isSpeaking && source === "camera",
    );
    for (const { key } of speaking) spokeAt.set(key, performance.now());
    const loudest = meeting.room?.speakers.find(({ id }) => specs.has(id))?.id;
    dominant = loudest ?? (specs.has(dominant) ? dominant : (order.find((key) => key !== SELF) ?? ""));

    const large = largeKey(meeting, specs, dominant);
    const others = order.filter((key) => key !== large);
    const { boxes, shown } = large ? spotlightOf(others, size) : gridOf(others, size);
    const pages = Math.max(1, Math.ceil(others.length / shown));
    if (meeting.page >= pages) meeting.page = pages - 1;
    if (meeting.page === 0) {
      const quietOrder = promote(
        others,
        shown,
        speaking.map(({ key }) => key),
        spokeAt,
      );
      order = large ? [large, ...quietOrder] : quietOrder;
      return { large, pages, placed: assign(large, quietOrder.slice(0, shown), boxes) };
    }
    const from = meeting.page * shown;
    return { large, pages, placed: assign(large, others.slice(from, from + shown), boxes) };
  };

  return {
    element,
    /** Whether one tile is larger than the others, and how many pages there are. */
    state: { isSpotlight: false, pages: 1, page: 0 },
    /** @param {Meeting} meeting */
    update(meeting) {
      const specs = specsOf(meeting);
      for (const [key, tile] of tiles) {
        if (specs.has(key)) continue;
        tile.element.remove();
        tiles.delete(key);
      }
      if (size.width === 0 || size.height === 0) return;
      const { large, pages, placed } = arrange(meeting, specs);
      Object.assign(this.state, { isSpotlight: large !== null, pages, page: meeting.page });

      let made = 0;
      for (const [key, spec] of specs) {
        const box = placed.get(key) ?? null;
        let tile = tiles.get(key);
        if (!tile) {
          if (!box) continue;
          if (made === TILES_MADE_MAX) {
            meeting.touch();
            break;
          }
          made += 1;
          tile = makeTile({ pin: () => current()?.pin(key) });
          tiles.set(key, tile);
          list.append(tile.element);
        }
        if (box) tile.update(spec);
        tile.place(box);
      }
      meeting.room?.want(wishesOf(specs, placed, large));
    },
    /** Forgets a meeting that is over. */
    clear() {
      for (const { element: tile } of tiles.values()) tile.remove();
      tiles.clear();
      spokeAt.clear();
      order = [];
    },
  };
}

/**
 * Everything there is to see, by key.
 *
 * @param {Meeting} meeting
 * @returns {Map<string, Spec>}
 */
function specsOf(meeting) {
  /** @type {Map<string, Spec>} */
  const specs = new Map();
  const { room, own, reactions, pinned } = meeting;
  if (!room) return specs;
  const add = (/** @type {Omit<Spec, "isPinned">} */ spec) =>
    specs.set(spec.key, { ...spec, isPinned: pinned === spec.key });

  if (room.participants.size !== 1) {
    const stream = selfStream(own.camera);
    const isSilent = !own.isMicrophoneOn || own.microphone === null;
    add({
      key: SELF,
      participant: room.local,
      isSelf: true,
      source: "camera",
      track: null,
      stream,
      isSilent,
      reaction: reactions.get(room.local.id),
    });
  }
  for (const participant of room.participants.values()) {
    const screen = participant.track("screen");
    if (screen) {
      const key = `${participant.id}:screen`;
      add({ key, participant, isSelf: false, source: "screen", track: screen, stream: screen.stream, isSilent: true });
    }
    const camera = participant.track("camera");
    const stream = camera && !camera.muted ? camera.stream : null;
    const isSilent = participant.track("microphone")?.muted ?? true;
    add({
      key: participant.id,
      participant,
      isSelf: false,
      source: "camera",
      track: camera,
      stream,
      isSilent,
      reaction: reactions.get(participant.id),
    });
  }
  return specs;
}

/** @type {WeakMap<MediaStreamTrack, MediaStream>} */
const ownStreams = new WeakMap();

/** One stream for each own camera, so that its picture does not begin anew with every change. @param {MediaStreamTrack | null} camera */
export function selfStream(camera) {
  if (!camera) return null;
  const stream = ownStreams.get(camera) ?? new MediaStream([camera]);
  ownStreams.set(camera, stream);
  return stream;
}

/**
 * Which tile is shown large, if any: the pinned one, else a shared screen, else who speaks where that was chosen.
 *
 * @param {Meeting} meeting
 * @param {Map<string, Spec>} specs
 * @param {string} dominant
 */
function largeKey({ pinned, layout, isScreenSmall }, specs, dominant) {
  if (pinned && specs.has(pinned)) return pinned;
  const screen = [...specs.values()].find(({ source }) => source === "screen");
  if (screen && !isScreenSmall) return screen.key;
  return layout === "speaker" && specs.has(dominant) ? dominant : null;
}

/** @param {string[]} others @param {import("../layout.js").Size} size */
function gridOf(others, size) {
  const shown = gridCapacity(others.length, size);
  return { shown, boxes: grid(Math.min(shown, others.length), size) };
}

/** @param {string[]} others @param {import("../layout.js").Size} size */
function spotlightOf(others, size) {
  const { main, strip } = spotlight(others.length, size);
  return { shown: Math.max(1, strip.length), boxes: [main, ...strip] };
}

/** @param {string | null} large @param {string[]} shown @param {Box[]} boxes */
function assign(large, shown, boxes) {
  const keys = large ? [large, ...shown] : shown;
  // A last page that is not full keeps the tiles of the others at their size.
  return new Map(keys.map((key, index) => [key, boxes[index]]));
}

/**
 * @param {Map<string, Spec>} specs
 * @param {Map<string, Box>} placed
 * @param {string | null} large
 */
function wishesOf(specs, placed, large) {
  /** @type {Wish[]} */
  const wishes = [];
  /** @type {Wish[]} */
  const unseen = [];
  for (const { key, track, isPinned } of specs.values()) {
    if (!track) continue;
    const box = document.hidden ? undefined : placed.get(key);
    if (!box) unseen.push({ track, height: 0 });
    else
      wishes.push({
        track,
        height: pixels(box.height),
        ...(isPinned && { pinned: true }),
        ...(key === large && { priority: 1 }),
      });
  }
  return [...wishes, ...unseen].slice(0, WISHES_MAX);
}

/** @param {number} height in CSS pixels */
function pixels(height) {
  const physical = height * devicePixelRatio;
  return HEIGHTS.find((step) => step >= physical) ?? HEIGHTS[HEIGHTS.length - 1];
}
