/** The own name and status in the header, and the dialog behind it. */

import { openDialog } from "../dialogs.js";
import { h, setAttribute } from "../dom.js";
import { icon } from "../icons.js";
import { setPresence, signOut } from "../live.js";
import { STATUS_WORDS } from "../messages.js";
import { askForNotifications, notificationPermission } from "../notify.js";
import { store } from "../state.js";
import { avatar, setAvatar } from "./avatar.js";
import { openHelp } from "./help.js";
import { openPhoneSettings } from "./phone-settings.js";
import { toggle } from "./toggle.js";

/** @typedef {import("../state.js").State} State */

const CHOICES = /** @type {const} */ ([
  ["available", "Calls ring."],
  ["away", "Calls ring; others see that you may not hear it."],
  ["do_not_disturb", "Callers hear that you are busy."],
]);

export function meButton() {
  const picture = avatar({ user: "", name: "" }, "small");
  const lamp = h("span", { class: "lamp", "aria-hidden": "true" });
  const element = h(
    "button",
    { class: "me", type: "button", data: { test: "status" }, hidden: true, on: { click: openMe } },
    picture,
    lamp,
  );
  return {
    element,
    /** @param {State} state */
    update({ me, presence, calls }) {
      element.hidden = me === null;
      if (!me) return;
      const status = calls.some((call) => call.phase === "active") ? "in_call" : presence.status;
      setAvatar(picture, me);
      setAttribute(element, "data-status", status);
      setAttribute(element, "aria-label", `${me.name}: ${STATUS_WORDS[status]}. Change status`);
    },
  };
}

function openMe() {
  const { me, presence, canDial } = store.state;
  if (!me) return;
  void openDialog({ title: me.name, test: "me", class: "narrow" }, (close) => [
    h(
      "fieldset",
      { class: "choices" },
      h("legend", null, "Your status"),
      ...CHOICES.map(([status, words]) => {
        const input = h("input", {
          type: "radio",
          name: "status",
          value: status,
          data: { test: `status-${status}` },
          on: { change: () => void setPresence({ status }) },
        });
        input.checked = presence.status === status;
        return h(
          "label",
          { class: "choice", data: { status } },
          input,
          h("span", { class: "lamp", "aria-hidden": "true" }),
          h(
            "span",
            { class: "toggle-words" },
            h("span", null, STATUS_WORDS[status]),
            h("span", { class: "hint" }, words),
          ),
        );
      }),
    ),
    toggle({
      label: "Call waiting",
      hint: "A second caller rings while you talk.",
      on: presence.callWaiting,
      test: "call-waiting",
      change: (callWaiting) => void setPresence({ callWaiting }),
    }),
    canDial &&
      h(
        "button",
        {
          class: "button wide",
          type: "button",
          data: { test: "open-phone-settings" },
          on: { click: () => (close(), void openPhoneSettings()) },
        },
        icon("phone"),
        "Phone calls",
      ),
    notificationPermission() === "default" &&
      h(
        "button",
        { class: "button wide", type: "button", on: { click: () => (void askForNotifications(), close()) } },
        icon("bell"),
        "Notify me of calls",
      ),
    h(
      "button",
      { class: "button wide", type: "button", data: { test: "open-help" }, on: { click: () => (close(), openHelp()) } },
      icon("keyboard"),
      "Keyboard shortcuts",
    ),
    h(
      "button",
      {
        class: "button wide",
        type: "button",
        data: { test: "sign-out" },
        on: { click: () => (close(), void signOut()) },
      },
      "Sign out",
    ),
  ]);
}
