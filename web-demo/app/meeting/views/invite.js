/** Who else shall come: people of the directory, and a link for everybody else. */

import { toast } from "../../announce.js";
import { attempt } from "../../attempt.js";
import { openDialog } from "../../dialogs.js";
import { h, setText } from "../../dom.js";
import { icon } from "../../icons.js";
import { store } from "../../state.js";
import { avatar, statusLine } from "../../views/avatar.js";
import { peopleBut } from "../../views/people.js";

/** @typedef {import("../meeting.js").Meeting} Meeting */
/** @typedef {import("../../state.js").Person} Person */

/** @param {Meeting} meeting */
export function openInvite(meeting) {
  const inside = [...(meeting.room?.participants.values() ?? [])].map(({ user }) => user);
  const people = peopleBut(store.state, [store.state.me?.user, ...inside]).filter(({ status }) => status !== "offline");

  void openDialog({ title: "Add people", test: "invite-dialog", class: "narrow" }, () => [
    people.length > 0
      ? h("ul", { class: "rows" }, ...people.map((person) => personRow(meeting, person)))
      : h("p", { class: "nothing" }, "Nobody else is online at the moment."),
    h(
      "button",
      { class: "button wide", type: "button", data: { test: "invite-copy" }, on: { click: () => void meeting.copyLink() } },
      icon("copy"),
      "Copy the link",
    ),
    h("p", { class: "hint" }, "Whoever opens the link comes here. Once only two are left, it is a call again."),
  ]);
}

/** @param {Meeting} meeting @param {Person} person */
function personRow(meeting, person) {
  const status = statusLine();
  status.update(person.status);
  const words = h("span", null, "Invite");
  const invite = async () => {
    button.setAttribute("aria-disabled", "true");
    await attempt(async () => {
      try {
        await meeting.room?.invite(person.user);
        setText(words, "Invited");
      } catch (error) {
        button.removeAttribute("aria-disabled");
        if (/** @type {{ code?: string }} */ (error).code !== "peer_gone") throw error;
        toast(`${person.name} cannot be reached`, "They are away, or do not want to be disturbed.", { key: "invite" });
      }
    });
  };
  const button = h(
    "button",
    {
      class: "button small",
      type: "button",
      data: { test: `invite-${person.user}` },
      on: { click: () => button.hasAttribute("aria-disabled") || void invite() },
    },
    words,
    h("span", { class: "visually-hidden" }, ` ${person.name}`),
  );
  return h(
    "li",
    { class: "row" },
    avatar(person),
    h("span", { class: "row-words" }, h("span", { class: "row-name" }, person.name), status.element),
    button,
  );
}
