/** Modal dialogs on `<dialog>`: the browser keeps the focus inside and gives it back afterwards. */

import { h } from "./dom.js";
import { icon } from "./icons.js";

/**
 * Opens a dialog and resolves with the value it was closed with; empty for Esc, the cross, or a click beside it.
 *
 * @param {{ title: string, test?: string, class?: string }} look
 * @param {(close: (value?: string) => void) => (Node | null | false)[]} content
 * @returns {Promise<string>}
 */
export function openDialog(look, content) {
  const titleId = `dialog-${(dialogs += 1)}`;
  const close = (value = "") => dialog.close(value);
  const dialog = h(
    "dialog",
    { class: `dialog ${look.class ?? ""}`, "aria-labelledby": titleId, data: { test: look.test } },
    h(
      "div",
      { class: "dialog-head" },
      h("h2", { id: titleId, tabindex: "-1", autofocus: true }, look.title),
      h(
        "button",
        { class: "icon-button", type: "button", "aria-label": "Close", on: { click: () => close() } },
        icon("close"),
      ),
    ),
    h("div", { class: "dialog-body" }, ...content(close)),
  );
  document.body.append(dialog);
  dialog.showModal();
  dialog.addEventListener("pointerdown", (event) => {
    if (event.target === dialog) close();
  });
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
  });
}

let dialogs = 0;
