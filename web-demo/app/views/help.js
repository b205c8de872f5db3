/** The list of keys. */

import { openDialog } from "../dialogs.js";
import { h } from "../dom.js";
import { MEETING_SHORTCUTS, setShortcuts, SHORTCUTS, shortcutsOn } from "../shortcuts.js";
import { store } from "../state.js";
import { toggle } from "./toggle.js";

export function openHelp() {
  void openDialog({ title: "Keyboard", test: "help" }, () => [
    toggle({
      label: "Single-letter keys",
      hint: "They act only while you are not typing.",
      on: shortcutsOn(),
      test: "shortcuts-switch",
      change: setShortcuts,
    }),
    keys(SHORTCUTS),
    store.state.hasMeetings && h("h3", null, "In a meeting"),
    store.state.hasMeetings && keys(MEETING_SHORTCUTS),
  ]);
}

/** @param {[string, string][]} list */
function keys(list) {
  return h(
    "dl",
    { class: "keys" },
    ...list.flatMap(([key, words]) => [
      h("dt", null, ...key.split(" ").map((part) => h("kbd", null, part))),
      h("dd", null, words),
    ]),
  );
}
