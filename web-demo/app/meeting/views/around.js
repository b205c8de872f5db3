/** What a meeting shows before one is in, and after. */

import { h, setText } from "../../dom.js";
import { icon } from "../../icons.js";
import { store } from "../../state.js";

/** @typedef {import("../meeting.js").Meeting} Meeting */

/** On the way in: the server answers, or somebody inside has to. */
export function waitingView() {
  const title = h("h1");
  const words = h("p", { class: "around-words" });
  const element = h(
    "div",
    { class: "around", data: { test: "meeting-waiting" } },
    h("span", { class: "around-sign", "aria-hidden": "true" }, icon("people")),
    h("div", { role: "status" }, title, words),
    h(
      "button",
      {
        class: "button",
        type: "button",
        data: { test: "stop-waiting" },
        on: { click: () => store.state.meeting?.close() },
      },
      "Cancel",
    ),
  );
  return {
    element,
    /** @param {Meeting} meeting */
    update({ phase, name }) {
      setText(title, phase === "waiting" ? "Waiting to be let in" : "Joining…");
      setText(
        words,
        phase === "waiting" ? `Somebody in ${name} has been told that you are here. Stay on this page.` : name,
      );
    },
  };
}

/** How it ended, and what one may do about it. */
export function overView() {
  const title = h("h1");
  const words = h("p", { class: "around-words" });
  const again = h(
    "button",
    {
      class: "button primary",
      type: "button",
      data: { test: "meeting-again" },
      on: { click: () => store.state.meeting?.again() },
    },
    "Join again",
  );
  const close = h(
    "button",
    {
      class: "button",
      type: "button",
      data: { test: "meeting-close" },
      on: { click: () => store.state.meeting?.close() },
    },
    "Close",
  );
  const element = h(
    "div",
    { class: "around", data: { test: "meeting-over" } },
    h("span", { class: "around-sign", "aria-hidden": "true" }, icon("hangup")),
    title,
    words,
    h("div", { class: "around-actions" }, again, close),
  );
  return {
    element,
    /** @param {Meeting} meeting */
    update({ over }) {
      setText(title, over?.title ?? "");
      setText(words, over?.detail ?? "");
      again.hidden = !over?.again;
    },
  };
}
