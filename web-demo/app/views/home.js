/** The page of a person who is signed in: lists at the side, the stage beside them, the own status in the header. */

import { h, setAttribute, setText } from "../dom.js";
import { icon } from "../icons.js";
import { historySeen } from "../live.js";
import { store } from "../state.js";
import { linkBanner } from "./banner.js";
import { historyView } from "./history.js";
import { mountIncoming } from "./incoming.js";
import { meButton } from "./me.js";
import { peopleView } from "./people.js";
import { openSettings } from "./settings.js";
import { stageView } from "./stage.js";
import { hasVoicemail, voicemailView } from "./voicemail.js";

export function mountHome() {
  const home = /** @type {HTMLElement} */ (document.getElementById("home"));
  const tools = /** @type {HTMLElement} */ (document.getElementById("tools"));

  const settings = h(
    "button",
    {
      class: "icon-button only-home",
      type: "button",
      "aria-label": "Camera and sound",
      title: "Camera and sound",
      data: { test: "devices" },
      on: { click: () => openSettings() },
    },
    icon("settings"),
  );
  const me = meButton();
  tools.prepend(settings);
  tools.append(me.element);

  const people = peopleView();
  const history = historyView();
  const voicemail = voicemailView();
  const missed = badgeView("missed");
  const unheard = badgeView("unheard");
  const peopleTab = tabButton("people", "People", [icon("people")]);
  const historyTab = tabButton("history", "History", [icon("clock")], missed.elements);
  const voicemailTab = tabButton("voicemail", "Voicemail", [icon("voicemail")], unheard.elements);
  const tabs = h("nav", { class: "tabs", "aria-label": "Lists" }, peopleTab, historyTab, voicemailTab);
  const banner = linkBanner();
  const stage = stageView();

  home.append(
    banner.element,
    h(
      "div",
      { class: "side" },
      people.element,
      history.element,
      voicemail.element,
      tabs,
    ),
    stage.element,
  );
  mountIncoming();

  store.watch((state) => {
    me.update(state);
    banner.update(state);
    people.update(state);
    history.update(state);
    voicemail.update(state);
    stage.update(state);

    people.element.hidden = state.tab !== "people";
    history.element.hidden = state.tab !== "history";
    voicemail.element.hidden = state.tab !== "voicemail";
    setAttribute(peopleTab, "aria-current", state.tab === "people" ? "true" : null);
    setAttribute(historyTab, "aria-current", state.tab === "history" ? "true" : null);
    setAttribute(voicemailTab, "aria-current", state.tab === "voicemail" ? "true" : null);
    voicemailTab.hidden = !hasVoicemail(state) && state.tab !== "voicemail";
    setAttribute(tabs, "data-count", voicemailTab.hidden ? "2" : "3");
    missed.update(state.missed);
    unheard.update(state.unheard);
    setAttribute(home, "data-stage", stage.showing(state));
  });
}

/** How many of something are new. @param {string} what */
function badgeView(what) {
  const badge = h("span", { class: "badge", data: { test: `${what}-badge` }, hidden: true });
  const words = h("span", { class: "visually-hidden" });
  return {
    elements: [badge, words],
    /** @param {number} count */
    update(count) {
      badge.hidden = count === 0;
      setText(badge, count > 99 ? "99+" : String(count));
      setText(words, count > 0 ? ` ${what}` : "");
    },
  };
}

/**
 * @param {"people" | "history" | "voicemail"} tab
 * @param {string} label
 * @param {Node[]} before
 * @param {Node[]} after
 */
function tabButton(tab, label, before, after = []) {
  const show = () => {
    store.set({ tab, minimised: true });
    if (tab === "history") void historySeen();
  };
  return h(
    "button",
    { type: "button", class: "tab", data: { test: `tab-${tab}` }, on: { click: show } },
    ...before,
    h("span", null, label),
    ...after,
  );
}
