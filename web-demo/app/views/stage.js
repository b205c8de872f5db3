/** The place where a Call is: nothing yet, ringing, talking, held, or how it ended. */

import { h, setAttribute } from "../dom.js";
import { icon } from "../icons.js";
import { currentCall, store } from "../state.js";
import { idleView, outcomeView, waitingView } from "./around.js";
import { connectionView } from "./connection.js";
import { controlsView } from "./controls.js";
import { headView, linesView, noticeView } from "./talk.js";
import { tilesView } from "./tiles.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Call} Call */
/** @typedef {"idle" | "call" | "minimised"} Showing */

/** Which part of the stage belongs to a state; the others belong to a conversation. */
const VIEWS = /** @type {Record<string, string>} */ ({
  idle: "idle",
  preparing: "waiting",
  ringing: "waiting",
  ended: "outcome",
});

export function stageView() {
  const idle = idleView();
  const lines = linesView();
  const head = headView();
  const tiles = tilesView();
  const notice = noticeView();
  const panel = connectionView();
  const controls = controlsView();
  const waiting = waitingView();
  const outcome = outcomeView();
  const element = h(
    "section",
    { class: "stage", "aria-label": "Call", tabindex: "-1", data: { test: "call-state", state: "idle" } },
    idle.element,
    waiting.element,
    outcome.element,
    h(
      "div",
      { class: "talk" },
      tiles.element,
      head.element,
      lines.element,
      notice.element,
      panel.element,
      controls.element,
    ),
    returnBar(),
  );

  return {
    element,
    showing,
    /** @param {State} state */
    update(state) {
      const call = currentCall(state);
      const name = stateName(state, call);
      if (element.dataset.state !== name) keepFocus(element);
      setAttribute(element, "data-state", name);
      const view = VIEWS[name] ?? "talk";
      setAttribute(element, "data-view", view);

      idle.update(state);
      lines.update(state);
      waiting.update(state, call);
      outcome.update(state);
      const talking = view === "talk" ? call : null;
      // A phone is heard before it answers.
      tiles.update(talking ?? (call?.isPhone && call.phase === "ringing" ? call : null));
      if (talking) {
        head.update(talking, name);
        notice.update(talking, name);
        controls.update(talking, state.panelOpen);
      }
      panel.update(state.panelOpen && talking?.phase === "active" ? talking : null);
    },
  };
}

/**
 * @param {State} state
 * @returns {Showing} on a phone this decides between the lists and the stage
 */
function showing(state) {
  const busy = state.preparing || state.outcome || currentCall(state);
  if (!busy) return "idle";
  return state.minimised && !state.outcome ? "minimised" : "call";
}

/**
 * @param {State} state
 * @param {Call | null} call
 */
function stateName(state, call) {
  if (state.preparing) return "preparing";
  if (!call) return state.outcome ? "ended" : "idle";
  if (call.phase === "ringing") return call.direction === "out" ? "ringing" : "connecting";
  if (call.heldByMe) return "held";
  if (call.heldByPeer) return "held-by-peer";
  return call.connectionState === "new" ? "connecting" : call.connectionState;
}

/**
 * A state that goes away takes its focused button with it: the focus then moves to the stage instead of getting lost.
 *
 * @param {HTMLElement} stage
 */
function keepFocus(stage) {
  setTimeout(() => {
    const focused = document.activeElement;
    if (focused instanceof HTMLElement && focused !== document.body && focused.checkVisibility()) return;
    stage.focus({ preventScroll: true });
  }, 50);
}

/** On a phone: the way back from the lists to the call. */
function returnBar() {
  return h(
    "button",
    {
      class: "return-bar",
      type: "button",
      data: { test: "return" },
      on: { click: () => store.set({ minimised: false }) },
    },
    icon("phone"),
    "Back to the call",
  );
}
