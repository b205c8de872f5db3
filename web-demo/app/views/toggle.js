/** A switch with its label. */

import { h } from "../dom.js";

/**
 * @param {{ label: string, hint?: string, on: boolean, test?: string, change: (on: boolean) => void }} options
 */
export function toggle({ label, hint, on, test, change }) {
  const input = h("input", {
    type: "checkbox",
    role: "switch",
    class: "switch",
    data: { test },
    on: { change: () => change(input.checked) },
  });
  input.checked = on;
  return h(
    "label",
    { class: "toggle" },
    h("span", { class: "toggle-words" }, h("span", null, label), hint && h("span", { class: "hint" }, hint)),
    input,
  );
}
