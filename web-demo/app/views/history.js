/** Past calls, newest first. */

import { isPhone, isReachable, numberOf } from "../../client/index.js";
import { dial } from "../calls.js";
import { h, keyed, setAttribute, setText } from "../dom.js";
import { duration, when } from "../format.js";
import { icon, setIcon } from "../icons.js";
import { loadHistory } from "../live.js";
import { phoneWords } from "../messages.js";
import { store } from "../state.js";
import { avatar, setAvatar } from "./avatar.js";

/** @typedef {import("../state.js").HistoryEntry} Entry */

export function historyView() {
  const list = h("ol", { class: "rows", "aria-label": "Past calls" });
  const empty = h(
    "div",
    { class: "nothing empty" },
    icon("clock"),
    h("p", null, "No calls yet. Those you make, and those you miss, will be listed here."),
  );
  const older = h(
    "button",
    {
      class: "button wide",
      type: "button",
      data: { test: "history-older" },
      on: { click: () => void loadHistory({ older: true }) },
    },
    "Show older calls",
  );
  const element = h(
    "section",
    { class: "list", "aria-labelledby": "history-title", data: { test: "history" } },
    h("h1", { id: "history-title", class: "list-title" }, "History"),
    list,
    empty,
    older,
  );

  return {
    element,
    /** @param {import("../state.js").State} state */
    update(state) {
      if (state.tab !== "history") return;
      keyed(list, state.history, (entry) => entry.call, entryRow);
      list.hidden = state.history.length === 0;
      empty.hidden = !state.historyKnown || state.history.length > 0;
      older.hidden = state.historyNext === null;
    },
  };
}

/** @param {Entry} first */
function entryRow(first) {
  let entry = first;
  const picture = avatar(entry.peer);
  const name = h("span", { class: "row-name" });
  const sign = icon("incoming");
  const words = h("span");
  const time = h("time", { class: "row-time" });
  const back = h(
    "button",
    {
      class: "icon-button call-button",
      type: "button",
      data: { test: `call-back-${entry.call}` },
      on: { click: () => void dial(entry.peer, entry.media.video) },
    },
    icon(entry.media.video ? "video" : "phone"),
  );
  const element = h(
    "li",
    { class: "row", data: { test: `history-${entry.call}` } },
    picture,
    h("span", { class: "row-words" }, name, h("span", { class: "row-detail" }, sign, words)),
    time,
    back,
  );

  return {
    element,
    /** @param {Entry} next */
    update(next) {
      entry = next;
      setAvatar(picture, entry.peer);
      setText(name, entry.peer.name);
      setIcon(sign, entry.missed ? "missed" : entry.direction === "in" ? "incoming" : "outgoing");
      setText(words, withNumber(entry, outcome(entry)));
      back.hidden = isPhone(entry.peer.user) && !(store.state.canDial && isReachable(entry.peer.user));
      setText(time, when(entry.created_at));
      setAttribute(time, "datetime", new Date(entry.created_at).toISOString());
      setAttribute(element, "data-missed", entry.missed ? "true" : null);
      setAttribute(back, "aria-label", `${entry.media.video ? "Video" : "Voice"} call to ${entry.peer.name}`);
    },
  };
}

/**
 * The number of who is known by a name.
 *
 * @param {Entry} entry
 * @param {string} words
 */
function withNumber({ peer }, words) {
  const number = isPhone(peer.user) && !isReachable(peer.user) ? "Number withheld" : numberOf(peer.user);
  return number && number !== peer.name ? `${number} · ${words}` : words;
}

/**
 * @param {Entry} entry
 * @returns {string}
 */
function outcome(entry) {
  const out = entry.direction === "out";
  if (entry.answered_at && entry.ended_at)
    return `${out ? "Outgoing" : "Incoming"}, ${duration(entry.ended_at - entry.answered_at)}`;
  if (entry.missed) return "Missed";
  const told = phoneWords(entry.phone);
  if (out && told) return `${told.title}. ${told.detail}`;
  switch (entry.reason) {
    case "declined":
      return out ? "Declined" : "You declined";
    case "busy":
      return out ? "Busy" : "You were busy";
    case "cancelled":
      return "Cancelled";
    case "unavailable":
      return "Not reachable";
    case "missed":
      return "No answer";
    case "answered_elsewhere":
      return "Taken by somebody else";
    case "failed":
      return "Failed";
    default:
      return out ? "Outgoing" : "Incoming";
  }
}
