/** The list of keys. */

import { openDialog } from "../dialogs.js";
import { h } from "../dom.js";
import { setShortcuts, SHORTCUTS, shortcutsOn } from "../shortcuts.js";
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
    h(
      "dl",
      { class: "keys" },
      ...SHORTCUTS.flatMap(([key, words]) => [
        h("dt", null, ...key.split(" ").map((part) => h("kbd", null, part))),
        h("dd", null, words),
      ]),
    ),
  ]);
}
