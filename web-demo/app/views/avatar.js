/** A person's round picture, and the lamp that shows whether a call would reach them. */

import { h, setAttribute, setText } from "../dom.js";
import { initials, tint } from "../format.js";
import { STATUS_WORDS } from "../messages.js";

/**
 * @param {{ user: string, name: string }} person
 * @param {string} [size] a class
 */
export function avatar(person, size = "") {
  return h(
    "span",
    { class: `avatar ${size}`, data: { tint: tint(person.user) }, "aria-hidden": "true" },
    initials(person.name),
  );
}

/**
 * Shows another person in an avatar.
 *
 * @param {HTMLElement} element
 * @param {{ user: string, name: string }} person
 */
export function setAvatar(element, person) {
  setAttribute(element, "data-tint", tint(person.user));
  setText(element, initials(person.name));
}

/** A lamp with its word; the colour alone would not do. */
export function statusLine() {
  const word = h("span");
  const element = h("span", { class: "status-line" }, h("span", { class: "lamp", "aria-hidden": "true" }), word);
  return {
    element,
    /** @param {string} status */
    update(status) {
      setAttribute(element, "data-status", status);
      setText(word, STATUS_WORDS[status] ?? status);
    },
  };
}
