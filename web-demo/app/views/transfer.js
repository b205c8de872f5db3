/** Whom to hand a Call to: somebody of the directory, or the other side of a second Call. */

import { connectBoth, transfer } from "../calls.js";
import { openDialog } from "../dialogs.js";
import { numberField } from "./dialpad.js";
import { h } from "../dom.js";
import { icon } from "../icons.js";
import { store } from "../state.js";
import { avatar, statusLine } from "./avatar.js";
import { peopleBut } from "./people.js";

/** @typedef {import("../state.js").Call} Call */
/** @typedef {import("../state.js").Person} Person */

/** @param {Call} call */
export function openTransfer(call) {
  const { state } = store;
  const others = state.calls.filter((other) => other !== call && other.phase === "active");
  const talkedTo = [call, ...others].map(({ peer }) => peer.user);
  const people = peopleBut(state, [state.me?.user, ...talkedTo]).filter((person) => person.status !== "offline");

  void openDialog({ title: `Transfer ${call.peer.name}`, test: "transfer-dialog", class: "narrow" }, (close) => [
    others.length > 0 && h("h3", null, "Connect your two calls"),
    others.length > 0 &&
      h(
        "ul",
        { class: "rows" },
        ...others.map((other) => otherRow(call, other, () => (close(), void connectBoth(call, other)))),
      ),
    h("h3", null, "Hand over to"),
    people.length > 0
      ? h(
          "ul",
          { class: "rows" },
          ...people.map((person) => personRow(person, () => (close(), void transfer(call, person)))),
        )
      : h("p", { class: "nothing" }, "Nobody else is online at the moment."),
    state.canDial && h("h3", null, "Or to a number"),
    state.canDial && numberForm(call, close),
    h(
      "p",
      { class: "hint" },
      `Their phone rings while ${call.peer.name} waits. If nobody answers, you have the call back.`,
    ),
  ]);
}

/**
 * @param {Call} call
 * @param {() => void} close
 */
function numberForm(call, close) {
  const field = numberField({ test: "transfer-number", hasKeys: false });
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const peer = field.peer();
    if (!peer) return;
    close();
    void transfer(call, peer);
  };
  return h(
    "form",
    { class: "transfer-form", on: { submit } },
    field.element,
    h("button", { class: "button", type: "submit", data: { test: "transfer-to-number" } }, icon("transfer"), "Transfer"),
  );
}

/**
 * @param {Person} person
 * @param {() => void} choose
 */
function personRow(person, choose) {
  const status = statusLine();
  status.update(person.status);
  return h(
    "li",
    null,
    h(
      "button",
      { class: "row row-button", type: "button", data: { test: `transfer-to-${person.user}` }, on: { click: choose } },
      avatar(person),
      h("span", { class: "row-words" }, h("span", { class: "row-name" }, person.name), status.element),
      icon("transfer"),
    ),
  );
}

/**
 * @param {Call} call
 * @param {Call} other
 * @param {() => void} choose
 */
function otherRow(call, other, choose) {
  return h(
    "li",
    null,
    h(
      "button",
      {
        class: "row row-button",
        type: "button",
        data: { test: `connect-with-${other.peer.user}` },
        on: { click: choose },
      },
      avatar(other.peer),
      h(
        "span",
        { class: "row-words" },
        h("span", { class: "row-name" }, `Connect ${call.peer.name} and ${other.peer.name}`),
        h("span", { class: "row-detail" }, "You leave; they go on talking."),
      ),
      icon("merge"),
    ),
  );
}
