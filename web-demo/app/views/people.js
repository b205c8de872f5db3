/** The directory: everybody of the Account with a lamp, and two ways to call each of them. */

import { toast } from "../announce.js";
import { dial } from "../calls.js";
import { h, keyed, setAttribute, setText } from "../dom.js";
import { icon } from "../icons.js";
import { askForNotifications, notificationPermission } from "../notify.js";
import { recall, remember } from "../storage.js";
import { store } from "../state.js";
import { avatar, setAvatar, statusLine } from "./avatar.js";
import { dialCard } from "./dialpad.js";
import { meetCard } from "./meet.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Person} Person */

/** Who can be reached comes first. */
const ORDER = ["available", "away", "in_call", "do_not_disturb", "offline"];

export function peopleView() {
  let query = "";
  const search = h("input", {
    class: "field search-field",
    id: "people-search",
    type: "search",
    placeholder: "Search people",
    "aria-label": "Search people",
    data: { test: "search" },
    autocomplete: "off",
    spellcheck: "false",
    on: {
      input: () => {
        query = search.value.trim().toLocaleLowerCase();
        store.touch();
      },
    },
  });
  const searchRow = h("div", { class: "search" }, icon("search"), search);
  const list = h("ul", { class: "rows", "aria-label": "People" });
  const nobody = h("p", { class: "nothing", role: "status" });
  const invite = inviteCard();
  const skeleton = h("div", { class: "skeleton", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
  const bell = bellCard();
  const meet = meetCard();
  const phone = dialCard();

  const element = h(
    "section",
    { class: "list", "aria-labelledby": "people-title" },
    h("h1", { id: "people-title", class: "list-title" }, "People"),
    meet.element,
    phone.element,
    searchRow,
    bell.element,
    skeleton,
    list,
    nobody,
    invite,
  );

  return {
    element,
    /** @param {State} state */
    update(state) {
      const everybody = peopleBut(state, [state.me?.user]);
      const found = everybody.filter((person) => person.name.toLocaleLowerCase().includes(query));
      keyed(list, found, (person) => person.user, personRow);
      skeleton.hidden = state.peopleKnown;
      searchRow.hidden = state.peopleKnown && everybody.length === 0;
      list.hidden = found.length === 0;
      setText(nobody, query && found.length === 0 ? `Nobody here is called “${search.value.trim()}”.` : "");
      nobody.hidden = nobody.textContent === "";
      invite.hidden = !state.peopleKnown || everybody.some((person) => person.status !== "offline");
      bell.update(everybody.length > 0);
      meet.update(state);
      phone.update(state);
    },
  };
}

/**
 * Everybody but some, the reachable ones first.
 *
 * @param {State} state
 * @param {(string | undefined)[]} without
 * @returns {Person[]}
 */
export function peopleBut(state, without) {
  return [...state.people.values()]
    .filter((person) => !without.includes(person.user))
    .sort((a, b) => ORDER.indexOf(a.status) - ORDER.indexOf(b.status) || a.name.localeCompare(b.name));
}

/** @param {Person} first */
function personRow(first) {
  let person = first;
  const picture = avatar(person);
  const name = h("span", { class: "row-name" });
  const status = statusLine();
  const audio = callButton("phone", `call-audio-${person.user}`, () => void dial(person, false));
  const video = callButton("video", `call-video-${person.user}`, () => void dial(person, true));
  const element = h(
    "li",
    { class: "row", data: { test: `person-${person.user}` } },
    picture,
    h("span", { class: "row-words" }, name, status.element),
    audio,
    video,
  );

  return {
    element,
    /** @param {Person} next */
    update(next) {
      person = next;
      setAvatar(picture, person);
      setText(name, person.name);
      status.update(person.status);
      setAttribute(element, "data-status", person.status);
      label(audio, `Voice call to ${person.name}`);
      label(video, `Video call to ${person.name}`);
    },
  };
}

/**
 * @param {"phone" | "video"} picture
 * @param {string} test
 * @param {() => void} click
 */
function callButton(picture, test, click) {
  return h(
    "button",
    { class: "icon-button call-button", type: "button", data: { test }, on: { click } },
    icon(picture),
  );
}

/** @param {HTMLElement} button @param {string} words */
function label(button, words) {
  setAttribute(button, "aria-label", words);
  setAttribute(button, "title", words);
}

/** How to get somebody to talk to, while one is alone. */
function inviteCard() {
  return h(
    "div",
    { class: "card invite", data: { test: "invite" } },
    h("h2", null, "Nobody else is here yet"),
    h("p", null, "Open this page in a second window and pick another name. Then call yourself from one to the other."),
    copyButton(),
  );
}

/** @returns {HTMLElement} */
export function copyButton() {
  const copy = async () => {
    const link = location.origin + location.pathname;
    try {
      await navigator.clipboard.writeText(link);
      toast("Link copied", "Open it in another window, another browser, or send it to somebody.");
    } catch {
      toast("The link", link);
    }
  };
  return h(
    "button",
    { class: "button", type: "button", data: { test: "copy-link" }, on: { click: copy } },
    icon("copy"),
    "Copy the link",
  );
}

/** Asks about notifications once there is somebody who could call. */
function bellCard() {
  const done = () => {
    remember("bell", "asked");
    store.touch();
  };
  const allow = async () => {
    const permission = await askForNotifications();
    if (permission === "granted") toast("You will be told", "Calls show up even while this page is in the background.");
    done();
  };
  const element = h(
    "div",
    { class: "card bell", data: { test: "bell" }, hidden: true },
    icon("bell"),
    h("p", null, "Hear of calls while this page is in the background?"),
    h("button", { class: "button small primary", type: "button", on: { click: allow } }, "Yes"),
    h(
      "button",
      { class: "button small", type: "button", "aria-label": "No, do not notify me", on: { click: done } },
      "No",
    ),
  );
  return {
    element,
    /** @param {boolean} useful */
    update(useful) {
      element.hidden = !useful || notificationPermission() !== "default" || recall("bell") !== null;
    },
  };
}
