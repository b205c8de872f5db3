/** A meeting on the page: in front of everything else, or put aside behind a button that leads back. */

import { h, setAttribute } from "../../dom.js";
import { icon } from "../../icons.js";
import { store } from "../../state.js";
import { overView, waitingView } from "./around.js";
import { checkView } from "./check.js";
import { conversationView } from "./conversation.js";

/** @typedef {import("../meeting.js").Meeting} Meeting */

/** @returns {Promise<void>} settles when the style sheet is there, so that nothing is shown without it */
export async function mountMeeting() {
  const style = h("link", { rel: "stylesheet", href: "/app/meeting/meeting.css" });
  const styled = new Promise((resolve) => (style.onload = style.onerror = () => resolve(undefined)));
  document.head.append(style);
  await styled;

  const check = checkView();
  const waiting = waitingView();
  const conversation = conversationView();
  const over = overView();
  const element = h(
    "section",
    { class: "meeting", "aria-label": "Meeting", tabindex: "-1", hidden: true, data: { test: "meeting" } },
    check.element,
    waiting.element,
    conversation.element,
    over.element,
  );
  const back = h(
    "button",
    {
      class: "meeting-back",
      type: "button",
      hidden: true,
      data: { test: "meeting-back" },
      on: { click: () => void store.state.meeting?.setAside(false) },
    },
    icon("people"),
    "Back to the meeting",
  );
  /** @type {HTMLElement} */ (document.getElementById("main")).append(element, back);

  const awake = keepAwake();
  const update = () => {
    const { meeting } = store.state;
    awake(meeting?.phase === "in");
    const where = !meeting ? null : meeting.isAside ? "aside" : "front";
    setAttribute(document.documentElement, "data-meeting", where);
    element.hidden = where !== "front";
    back.hidden = where !== "aside";
    check.element.hidden = meeting?.phase !== "check";
    waiting.element.hidden = meeting?.phase !== "joining" && meeting?.phase !== "waiting";
    conversation.element.hidden = meeting?.phase !== "in";
    over.element.hidden = meeting?.phase !== "over";
    check.update(meeting?.phase === "check" ? meeting : null);
    conversation.update(meeting?.phase === "in" ? meeting : null);
    if (!meeting) return;
    if (element.dataset.phase !== meeting.phase) keepFocus(element);
    setAttribute(element, "data-phase", meeting.phase);
    waiting.update(meeting);
    over.update(meeting);
  };

  /** @type {Meeting | null} */
  let shown = null;
  store.watch(({ meeting }) => {
    if (meeting === shown) return meeting?.touch();
    shown = meeting;
    meeting?.watch(() => meeting === store.state.meeting && update());
    update();
  });
}

/** Keeps the screen from going dark while one watches and does not type. */
function keepAwake() {
  /** @type {Promise<WakeLockSentinel | null> | null} */
  let lock = null;
  // A page that was hidden in between has lost it.
  document.addEventListener("visibilitychange", () => !document.hidden && lock && (lock = ask()));
  const ask = async () => {
    try {
      return await navigator.wakeLock.request("screen");
    } catch {
      // A browser or a battery that says no: then it goes dark.
      return null;
    }
  };
  return (/** @type {boolean} */ on) => {
    if (on) lock ??= ask();
    else if (lock) {
      void lock.then((held) => held?.release());
      lock = null;
    }
  };
}

/**
 * A phase that is over takes its focused button with it: the focus then moves to the meeting instead of getting lost.
 *
 * @param {HTMLElement} element
 */
function keepFocus(element) {
  setTimeout(() => {
    const focused = document.activeElement;
    if (focused instanceof HTMLElement && focused !== document.body && focused.checkVisibility()) return;
    if (!element.hidden) element.focus({ preventScroll: true });
  }, 50);
}
