/** Past calls, newest first. */

import { isPhone, isReachable } from "../../client/index.js";
import { dial } from "../calls.js";
import { h, setAttribute, setText } from "../dom.js";
import { duration, when } from "../format.js";
import { icon, setIcon } from "../icons.js";
import { loadHistory } from "../live.js";
import { phoneWords } from "../messages.js";
import { ofHistory } from "../pages.js";
import { store } from "../state.js";
import { avatar, setAvatar } from "./avatar.js";
import { listView, numberWords } from "./list.js";

/** @typedef {import("../state.js").HistoryEntry} Entry */

export function historyView() {
  const list = listView(
    {
      name: "history",
      title: "History",
      label: "Past calls",
      sign: "clock",
      empty: "No calls yet. Those you make, and those you miss, will be listed here.",
      more: "Show older calls",
      older: () => loadHistory({ older: true }),
    },
    ofHistory.idOf,
    entryRow,
  );

  return {
    element: list.element,
    /** @param {import("../state.js").State} state */
    update({ tab, history, historyKnown, historyNext }) {
      if (tab === "history") list.update(history, { isKnown: historyKnown, hasMore: historyNext !== null });
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
      setText(words, [numberWords(entry.peer), outcome(entry)].filter(Boolean).join(" · "));
      back.hidden = isPhone(entry.peer.user) && !(store.state.canDial && isReachable(entry.peer.user));
      setText(time, when(entry.created_at));
      setAttribute(time, "datetime", new Date(entry.created_at).toISOString());
      setAttribute(element, "data-missed", entry.missed ? "true" : null);
      setAttribute(back, "aria-label", `${entry.media.video ? "Video" : "Voice"} call to ${entry.peer.name}`);
    },
  };
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
