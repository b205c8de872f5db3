/** The way into meetings: a new one, or one by its name or link. */

import { h, setText } from "../dom.js";
import { icon } from "../icons.js";
import { openMeeting } from "../live.js";
import { asksForEncryption, meetingName, newMeetingName } from "../meeting/name.js";

export function meetCard() {
  const field = h("input", {
    class: "field",
    id: "meeting-name",
    type: "text",
    placeholder: "Name or link",
    "aria-label": "Name or link of a meeting",
    "aria-describedby": "meeting-problem",
    autocomplete: "off",
    autocapitalize: "none",
    spellcheck: "false",
    data: { test: "meeting-name" },
    on: { input: () => setText(problem, "") },
  });
  const problem = h("p", { class: "hint", id: "meeting-problem", role: "status" });
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const name = meetingName(field.value);
    if (!name) return setText(problem, "Type a name, such as weekly, or paste a link.");
    const wantsEncryption = asksForEncryption(field.value);
    field.value = "";
    void openMeeting(name, wantsEncryption);
  };
  const element = h(
    "div",
    { class: "card meet", data: { test: "meet" }, hidden: true },
    h(
      "button",
      {
        class: "button primary wide",
        type: "button",
        data: { test: "new-meeting" },
        on: { click: () => void openMeeting(newMeetingName()) },
      },
      icon("video"),
      "New meeting",
    ),
    h(
      "form",
      { class: "meet-form", on: { submit } },
      field,
      h("button", { class: "button", type: "submit", data: { test: "open-meeting" } }, "Join"),
    ),
    problem,
  );
  return {
    element,
    /** @param {import("../state.js").State} state */
    update({ hasMeetings }) {
      element.hidden = !hasMeetings;
    },
  };
}
