/**
 * The icons, drawn with a 24 × 24 pen of width 2. They are decoration: the control that holds one has the words.
 */

import { svg } from "./dom.js";

const PATHS = {
  phone:
    "M6.6 3.5h2.6l1.7 4.3-2.2 1.7a12 12 0 0 0 5.8 5.8l1.7-2.2 4.3 1.7v2.6a3 3 0 0 1-3.2 3A16.8 16.8 0 0 1 3.6 6.7a3 3 0 0 1 3-3.2z",
  video: "M4.5 6.5h9a2 2 0 0 1 2 2v7a2 2 0 0 1-2 2h-9a2 2 0 0 1-2-2v-7a2 2 0 0 1 2-2zM15.5 11l6-3.5v9l-6-3.5",
  videoOff:
    "M9.5 6.5h4a2 2 0 0 1 2 2v3m0 3.5v.5a2 2 0 0 1-2 2h-9a2 2 0 0 1-2-2v-7a2 2 0 0 1 1.6-1.960M15.5 11l6-3.5v9l-4-2.3M3 3l18 18",
  mic: "M12 3a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3zM5.5 11a6.5 6.5 0 0 0 13 0M12 17.5V21",
  micOff:
    "M15 9.5V6a3 3 0 0 0-5.8-1.1M9 9v2a3 3 0 0 0 4.6 2.5M5.5 11a6.5 6.5 0 0 0 10.5 5.1m2-2.5a6.4 6.4 0 0 0 .5-2.6M12 17.5V21M3 3l18 18",
  screen:
    "M4 4.5h16a1.5 1.5 0 0 1 1.5 1.5v9a1.5 1.5 0 0 1-1.5 1.5H4A1.5 1.5 0 0 1 2.5 15V6A1.5 1.5 0 0 1 4 4.5zM8 20h8M12 13V8m-2.5 2.5L12 8l2.5 2.5",
  hold: "M8.5 5v14M15.5 5v14",
  resume: "M7.5 4.5v15l12-7.5z",
  transfer: "M4 8h14m-4-4 4 4-4 4M20 16H6m4-4-4 4 4 4",
  hangup:
    "M3.2 13.8c0-2.3 4-4.8 8.8-4.8s8.8 2.5 8.8 4.8c0 1.2-.3 2.7-1.3 2.7l-3.5-.6c-.8-.2-1-1-1-1.8v-1.4a11 11 0 0 0-6 0v1.4c0 .8-.2 1.6-1 1.8l-3.5.6c-1 0-1.3-1.5-1.3-2.7z",
  settings:
    "M4 7h9m4 0h3M4 17h3m4 0h9M15 4.5a2.5 2.5 0 1 1 0 5 2.5 2.5 0 0 1 0-5zM9 14.5a2.5 2.5 0 1 1 0 5 2.5 2.5 0 0 1 0-5z",
  info: "M4 18.5v-3M9.3 18.5v-7M14.7 18.5v-10M20 18.5v-13",
  people:
    "M9 4.5a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7zM2.5 19.5a6.5 6.5 0 0 1 13 0M16 5a3.5 3.5 0 0 1 0 6.5M18 14.2a6.5 6.5 0 0 1 3.5 5.3",
  add: "M9.5 4.5a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7zM3 19.5a6.5 6.5 0 0 1 13 0M19 8v6M16 11h6",
  clock: "M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17zM12 7.5V12l3 2",
  search: "M10.5 4a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zM20.5 20.5l-5.3-5.3",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  moon: "M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5z",
  auto: "M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17zM12 3.5v17M12 8h5.5M12 12h8.5M12 16h5.5",
  close: "M6 6l12 12M18 6L6 18",
  back: "M15 5l-7 7 7 7",
  incoming: "M18 6L6.5 17.5M6 9v9h9",
  outgoing: "M6 18L17.5 6.5M9 6h9v9",
  missed: "M4 8l8 7 8-8M4 13.5V8h5.5",
  copy: "M9 9h9.5A1.5 1.5 0 0 1 20 10.5V19a1.5 1.5 0 0 1-1.5 1.5H10A1.5 1.5 0 0 1 8.5 19V9.5M15.5 8.5V5A1.5 1.5 0 0 0 14 3.5H5.5A1.5 1.5 0 0 0 4 5v8.5A1.5 1.5 0 0 0 5.5 15h3",
  bell: "M6.5 16.5V11a5.5 5.5 0 0 1 11 0v5.5l1.5 1.5H5zM10 20.5h4",
  keyboard:
    "M4 6.5h16a1.5 1.5 0 0 1 1.5 1.5v8a1.5 1.5 0 0 1-1.5 1.5H4A1.5 1.5 0 0 1 2.5 16V8A1.5 1.5 0 0 1 4 6.5zM6.5 10.5h.01M10.2 10.5h.01M13.8 10.5h.01M17.5 10.5h.01M8 14h8",
  merge: "M4 5c0 5 8 3 8 8v7M20 5c0 5-8 3-8 8M9 17l3 3 3-3",
  shield: "M12 3l7.5 3v5.5c0 4.5-3 8-7.5 9.5-4.5-1.5-7.5-5-7.5-9.5V6z",
  warning: "M12 4l9 16H3zM12 10v4.5M12 17.2v.1",
  hand:
    "M8 12.5V6a1.5 1.5 0 0 1 3 0v5m0-6.5a1.5 1.5 0 0 1 3 0V11m0-5a1.5 1.5 0 0 1 3 0v6.5m0-3.5a1.5 1.5 0 0 1 3 0V15a6 6 0 0 1-6 6h-1.5a6 6 0 0 1-5-2.7L4.3 14a1.6 1.6 0 0 1 2.6-1.8L8 13.5",
  chat: "M5 4.5h14a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2h-7.5L7 20.5v-4H5a2 2 0 0 1-2-2v-8a2 2 0 0 1 2-2zM8 9h8M8 12.5h5",
  smile: "M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17zM8.5 14.2a4.3 4.3 0 0 0 7 0M9 9.5v.6M15 9.5v.6",
  grid: "M4 4.5h7v7H4zM13 4.5h7v7h-7zM4 13.5h7v6H4zM13 13.5h7v6h-7z",
  speaker: "M3.5 4.5h17v10.5h-17zM3.5 18h4.5v2H3.5zM9.8 18h4.5v2H9.8zM16 18h4.5v2H16z",
  pin: "M9 3.5h6l-.8 6.5 3.3 3v2H6.5v-2l3.3-3zM12 15v6",
  unpin: "M9 3.5h6l-.8 6.5 3.3 3v2h-6m-5 0v-2l3-2.7M12 15v6M4 4l16 16",
  lock: "M6 11h12v9.5H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  send: "M4 12L20 4.5 15.5 20l-4-6.5zM11.5 13.5L20 4.5",
  next: "M9 5l7 7-7 7",
  keypad:
    "M5.5 5.5h.01M12 5.5h.01M18.5 5.5h.01M5.5 11h.01M12 11h.01M18.5 11h.01M5.5 16.5h.01M12 16.5h.01M18.5 16.5h.01M12 21.5h.01",
  erase: "M9 6h10.5a1.5 1.5 0 0 1 1.5 1.5v9a1.5 1.5 0 0 1-1.5 1.5H9l-6-6zM12 9.5l5 5M17 9.5l-5 5",
  voicemail:
    "M6.5 8.5a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7zM17.5 8.5a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7zM6.5 15.5h11",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 12.5h8L17 7M10.5 11v5M13.5 11v5",
  more: "M5 12h.01M12 12h.01M19 12h.01",
};

/** @typedef {keyof typeof PATHS} IconName */

/**
 * @param {IconName} name
 * @returns {SVGElement}
 */
export function icon(name) {
  return svg(
    "svg",
    { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    svg("path", { d: PATHS[name] }),
  );
}

/**
 * Shows another icon in an element made by {@link icon}.
 *
 * @param {SVGElement} element
 * @param {IconName} name
 */
export function setIcon(element, name) {
  const path = /** @type {SVGElement} */ (element.firstElementChild);
  if (path.getAttribute("d") !== PATHS[name]) path.setAttribute("d", PATHS[name]);
}
