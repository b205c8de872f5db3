/** A line at the top that says when the server or the network is away. */

import { h, setAttribute, setText } from "../dom.js";
import { icon } from "../icons.js";
import { connectAgain } from "../live.js";
import { linkWords } from "../messages.js";

/** The client gets along with short interruptions; people need not hear of them. */
const PATIENCE_MS = 800;

export function linkBanner() {
  const title = h("strong");
  const detail = h("span");
  const again = h(
    "button",
    { class: "button small", type: "button", data: { test: "connect-again" }, on: { click: connectAgain } },
    "Use Offhook here",
  );
  const element = h(
    "div",
    { class: "banner", role: "status", data: { test: "banner" }, hidden: true },
    icon("warning"),
    h("p", null, title, " ", detail),
    again,
  );
  let timer = 0;

  return {
    element,
    /** @param {import("../state.js").State} state */
    update(state) {
      const words = linkWords(state);
      clearTimeout(timer);
      if (!words) {
        element.hidden = true;
        return;
      }
      setText(title, `${words.title}.`);
      setText(detail, words.detail);
      setAttribute(element, "data-tone", words.tone);
      again.hidden = state.link !== "closed" || state.linkReason !== "closed";
      if (element.hidden) timer = window.setTimeout(() => (element.hidden = false), PATIENCE_MS);
    },
  };
}
