/** Talks about a camera or microphone that did not open, before a Call goes on without it. */

import { openDialog } from "../dialogs.js";
import { h } from "../dom.js";
import { mediaWords } from "../messages.js";

/**
 * @param {string} code of a `MediaProblem`
 * @returns {Promise<"again" | "without" | "">}
 */
export async function askAboutMedia(code) {
  const words = mediaWords(code);
  // Nothing the person does here makes an insecure page secure.
  const hopeless = code === "insecure" || code === "unsupported";
  const answer = await openDialog({ title: words.title, test: "media-problem", class: "narrow" }, (close) => [
    h("p", null, words.detail),
    h(
      "div",
      { class: "dialog-actions" },
      !hopeless &&
        h(
          "button",
          { class: "button", type: "button", data: { test: "go-without" }, on: { click: () => close("without") } },
          "Go on without",
        ),
      h(
        "button",
        {
          class: "button primary",
          type: "button",
          data: { test: "try-again" },
          on: { click: () => close(hopeless ? "" : "again") },
        },
        hopeless ? "Close" : "Try again",
      ),
    ),
  ]);
  return /** @type {"again" | "without" | ""} */ (answer);
}
