/**
 * Somebody calls. Alone it fills the middle of the page; during another call it waits at the top, out of the way of
 * the conversation.
 */

import { accept, decline } from "../calls.js";
import { h, setText } from "../dom.js";
import { icon } from "../icons.js";
import { shortcutsOn } from "../shortcuts.js";
import { canSound } from "../sounds.js";
import { ringingIn, store } from "../state.js";
import { avatar, setAvatar } from "./avatar.js";

/** @typedef {import("../state.js").Call} Call */

export function mountIncoming() {
  /** @type {Call | null} */
  let shown = null;
  const picture = avatar({ user: "", name: "" }, "large");
  const title = h("h2", { id: "incoming-title", tabindex: "-1", autofocus: true });
  const kind = h("p", { class: "incoming-kind" });
  // Browsers let a page make sounds only after a click in it; any click unlocks them.
  const silent = h("p", { class: "incoming-silent" }, "The ring is silent until you click once.");
  const actions = h("div", { class: "incoming-actions" });
  const dialog = h(
    "dialog",
    { class: "incoming", "aria-labelledby": "incoming-title", data: { test: "incoming" } },
    h("div", { class: "ripples", "aria-hidden": "true" }, h("i"), h("i"), h("i"), picture),
    h("div", { class: "incoming-words" }, title, kind, silent),
    actions,
  );
  addEventListener("pointerdown", () => (silent.hidden = true));
  // Esc would only hide the ring; it takes a decision to end it.
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  document.body.append(dialog);

  store.watch((state) => {
    const [call = null] = ringingIn(state);
    const during = state.calls.some((other) => other.phase === "active");
    if (call === shown && (dialog.dataset.during === "true") === during) return;
    shown = call;
    dialog.close();
    if (!call) return;
    setAvatar(picture, call.peer);
    setText(title, call.peer.name);
    setText(kind, words(call, during));
    silent.hidden = canSound();
    dialog.dataset.during = String(during);
    actions.replaceChildren(...(during ? waitingActions(call) : ringingActions(call)));
    if (during) dialog.show();
    else dialog.showModal();
  });
}

/**
 * @param {Call} call
 * @param {boolean} during
 */
function words(call, during) {
  const kind = call.media.video ? "video call" : call.isPhone ? "phone call" : "voice call";
  const first = during ? `A second caller: ${kind}` : `Incoming ${kind}`;
  // The name is the number where the phone network knows no other.
  const number = call.number && call.number !== call.peer.name ? ` from ${call.number}` : "";
  const withheld = call.isPhone && !call.number ? ", number withheld" : "";
  return `${first}${number}${withheld}${call.dialled ? ` to ${call.dialled}` : ""}`;
}

/** @param {Call} call */
function ringingActions(call) {
  const answers = [
    action("decline", "hangup", "Decline", "bad", "D", () => decline(call, "declined")),
    action("busy", "clock", "Busy", "plain", "B", () => decline(call, "busy")),
    action(
      "accept-audio",
      "phone",
      call.media.video ? "Sound only" : "Accept",
      call.media.video ? "plain" : "good",
      call.media.video ? "⇧ A" : "A",
      () => accept(call, { video: false }),
    ),
  ];
  if (call.media.video)
    answers.push(action("accept-video", "video", "Accept", "good", "A", () => accept(call, { video: true })));
  return answers;
}

/** @param {Call} call */
function waitingActions(call) {
  const video = call.media.video;
  return [
    action("decline", "hangup", "Decline", "bad", "D", () => decline(call, "declined")),
    action("end-and-accept", "close", "End and accept", "plain", "E", () => accept(call, { video, others: "end" })),
    action("hold-and-accept", "hold", "Hold and accept", "good", "A", () => accept(call, { video })),
  ];
}

/**
 * @param {string} test
 * @param {import("../icons.js").IconName} picture
 * @param {string} label
 * @param {"good" | "bad" | "plain"} tone
 * @param {string} key
 * @param {() => Promise<void>} run
 */
function action(test, picture, label, tone, key, run) {
  const click = async () => {
    // One answer is enough; a second click would be an error.
    button.setAttribute("aria-disabled", "true");
    await run();
    button.removeAttribute("aria-disabled");
  };
  const button = h(
    "button",
    {
      class: "answer",
      type: "button",
      data: { test, tone },
      on: { click: () => button.hasAttribute("aria-disabled") || void click() },
    },
    h("span", { class: "answer-disc" }, icon(picture)),
    h("span", null, label),
    // Where there is no pointer to hover with there is hardly a keyboard.
    matchMedia("(hover: hover)").matches && shortcutsOn() && h("kbd", { "aria-hidden": "true" }, key),
  );
  return button;
}
