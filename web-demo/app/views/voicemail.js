/** Messages on the answering machine, newest first. */

import { isReachable } from "../../client/index.js";
import { attempt } from "../attempt.js";
import { dial } from "../calls.js";
import { applySpeaker } from "../devices.js";
import { openDialog } from "../dialogs.js";
import { h, setAttribute, setText } from "../dom.js";
import { duration, durationInWords, when } from "../format.js";
import { icon, setIcon } from "../icons.js";
import { ofVoicemail } from "../pages.js";
import { store } from "../state.js";
import { deleteVoicemail, loadVoicemail, markHeard, soundOf } from "../telephony.js";
import { avatar, setAvatar } from "./avatar.js";
import { listView, numberWords } from "./list.js";

/** @typedef {import("../../client/index.js").VoicemailEntry} Entry */

/** The one that is played: two at once are none. @type {HTMLAudioElement | null} */
let playing = null;

/** Whether there is anything to show: where phones can be called, or somebody has left a message. @param {import("../state.js").State} state */
export function hasVoicemail({ canDial, voicemails }) {
  return canDial || voicemails.length > 0;
}

export function voicemailView() {
  const list = listView(
    {
      name: "voicemail",
      title: "Voicemail",
      label: "Messages",
      sign: "voicemail",
      empty: "No messages. What callers leave when nobody answers will be listed here.",
      more: "Show older messages",
      older: () => loadVoicemail({ older: true }),
    },
    ofVoicemail.idOf,
    entryRow,
  );
  /** A call that comes or goes out is not talked into. */
  let wasBusy = false;

  return {
    element: list.element,
    /** @param {import("../state.js").State} state */
    update({ tab, calls, voicemails, voicemailKnown, voicemailNext }) {
      const isBusy = calls.length > 0;
      if (tab !== "voicemail" || (isBusy && !wasBusy)) playing?.pause();
      wasBusy = isBusy;
      if (tab === "voicemail") list.update(voicemails, { isKnown: voicemailKnown, hasMore: voicemailNext !== null });
    },
  };
}

/** @param {Entry} first */
function entryRow(first) {
  let entry = first;
  const picture = avatar(entry.peer);
  const name = h("span", { class: "row-name" });
  const words = h("span");
  const sign = icon("resume");
  const play = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      data: { test: `play-${entry.voicemail}` },
      on: { click: () => void attempt(() => toggle()) },
    },
    sign,
  );
  const remove = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      data: { test: `delete-${entry.voicemail}` },
      on: { click: () => void askToDelete(entry) },
    },
    icon("trash"),
  );
  const back = h(
    "button",
    {
      class: "button small",
      type: "button",
      data: { test: `call-back-${entry.voicemail}` },
      on: { click: () => void dial(entry.peer, false) },
    },
    icon("phone"),
    "Call back",
  );
  const sound = h("audio", {
    controls: true,
    preload: "auto",
    data: { test: `sound-${entry.voicemail}` },
    on: {
      play: () => start(),
      playing: () => void markHeard(entry),
      pause: () => show(),
      ended: () => show(),
    },
  });
  const open = h("div", { class: "voicemail-open", hidden: true }, sound, back);
  const element = h(
    "li",
    { class: "row voicemail-row", data: { test: `voicemail-${entry.voicemail}` } },
    picture,
    h("span", { class: "row-words" }, name, h("span", { class: "row-detail" }, words)),
    play,
    remove,
    open,
  );
  let loaded = "";

  const start = () => {
    if (playing !== sound) playing?.pause();
    playing = sound;
    show();
  };
  const show = () => {
    const isPlaying = !sound.paused && !sound.ended;
    setIcon(sign, isPlaying ? "hold" : "resume");
    setAttribute(play, "aria-label", `${isPlaying ? "Pause" : "Play"} the message from ${entry.peer.name}, ${whenSaid(entry)}`);
    setAttribute(play, "title", isPlaying ? "Pause" : "Play");
  };
  const toggle = async () => {
    if (!sound.paused) return sound.pause();
    // It is on its way, and another click wants nothing else.
    if (play.hasAttribute("aria-busy")) return;
    if (!loaded) {
      play.setAttribute("aria-busy", "true");
      try {
        loaded = await soundOf(entry.voicemail);
      } finally {
        play.removeAttribute("aria-busy");
      }
      if (!element.isConnected) return URL.revokeObjectURL(loaded);
      sound.src = loaded;
      open.hidden = false;
      await applySpeaker(sound);
      // Who went elsewhere meanwhile does not want to hear it now.
      if (store.state.tab !== "voicemail" || store.state.calls.length > 0) return;
    }
    await sound.play().catch((error) => {
      // Paused before its first sound.
      if (error.name !== "AbortError") throw error;
    });
  };

  return {
    element,
    /** @param {Entry} next */
    update(next) {
      entry = next;
      setAvatar(picture, entry.peer);
      setText(name, entry.peer.name);
      setText(words, detail(entry));
      setAttribute(element, "data-new", entry.heard ? null : "true");
      setAttribute(remove, "aria-label", `Delete the message from ${entry.peer.name}, ${whenSaid(entry)}`);
      setAttribute(remove, "title", "Delete");
      setAttribute(sound, "aria-label", `Message from ${entry.peer.name}, ${durationInWords(entry.millis)}`);
      back.hidden = !(store.state.canDial && isReachable(entry.peer.user)) && !store.state.people.has(entry.peer.user);
      show();
    },
    /** The row has gone. */
    close() {
      if (playing === sound) playing = null;
      sound.pause();
      if (loaded) URL.revokeObjectURL(loaded);
    },
  };
}

/** @param {Entry} entry */
function whenSaid({ left_at }) {
  return when(left_at);
}

/** @param {Entry} entry */
function detail({ heard, peer, queue, left_at, millis }) {
  const parts = [!heard && "New", when(left_at), duration(millis), numberWords(peer), queue && `for ${queue}`];
  return parts.filter(Boolean).join(" · ");
}

/** @param {Entry} entry */
async function askToDelete({ voicemail, peer, queue, left_at }) {
  const answer = await openDialog({ title: "Delete this message?", test: "delete-dialog", class: "narrow" }, (close) => [
    h(
      "p",
      null,
      `From ${peer.name}, ${when(left_at)}. ${queue ? `It is gone for everybody in ${queue} then.` : "It can't be brought back."}`,
    ),
    h(
      "div",
      { class: "dialog-actions" },
      h("button", { class: "button", type: "button", on: { click: () => close() } }, "Keep"),
      h(
        "button",
        { class: "button primary", type: "button", data: { test: "delete-really" }, on: { click: () => close("delete") } },
        "Delete",
      ),
    ),
  ]);
  if (answer === "delete") await deleteVoicemail(voicemail);
}
