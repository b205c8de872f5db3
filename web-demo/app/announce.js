/**
 * What the page says: spoken words for screen readers, and toasts everybody sees.
 */

import { h } from "./dom.js";
import { icon } from "./icons.js";

/** @typedef {{ label: string, run: () => void }} Action */
/** @typedef {{ tone?: "calm" | "warning" | "bad", action?: Action, key?: string, stays?: boolean }} ToastOptions */

const TOAST_MS = 8000;
const TOASTS_MAX = 3;

const polite = /** @type {HTMLElement} */ (document.getElementById("polite"));
const assertive = /** @type {HTMLElement} */ (document.getElementById("assertive"));
const toasts = /** @type {HTMLElement} */ (document.getElementById("toasts"));

/**
 * Has a screen reader say something.
 *
 * @param {string} text
 * @param {"polite" | "assertive"} [urgency]
 */
export function announce(text, urgency = "polite") {
  const region = urgency === "polite" ? polite : assertive;
  // The same words twice in a row are a change only when the region was empty in between.
  region.textContent = "";
  setTimeout(() => (region.textContent = text), 60);
}

/**
 * Shows a message for a while and has it spoken. A toast with a `key` replaces the one before it with that key.
 *
 * @param {string} title
 * @param {string} [detail]
 * @param {ToastOptions} [options]
 */
export function toast(title, detail = "", { tone = "calm", action, key, stays = false } = {}) {
  if (key) dismissToast(key);
  const remove = () => element.remove();
  const element = h(
    "div",
    { class: `toast ${tone}`, data: { test: "toast", key, tone } },
    h(
      "div",
      { class: "toast-words" },
      h("p", { class: "toast-title" }, title),
      detail && h("p", { class: "toast-detail" }, detail),
    ),
    action &&
      h(
        "button",
        { class: "button small", type: "button", on: { click: () => (remove(), action.run()) } },
        action.label,
      ),
    h(
      "button",
      { class: "icon-button", type: "button", "aria-label": "Close message", on: { click: remove } },
      icon("close"),
    ),
  );
  toasts.append(element);
  // Shown anew it lies above a dialog that was opened meanwhile.
  if (toasts.matches(":popover-open")) toasts.hidePopover();
  toasts.showPopover();
  while (toasts.children.length > TOASTS_MAX) toasts.firstElementChild?.remove();
  announce(detail ? `${title}. ${detail}` : title, tone === "bad" ? "assertive" : "polite");
  if (!stays) removeWhenRead(element, remove);
}

/** @param {string} key */
export function dismissToast(key) {
  toasts.querySelector(`[data-key="${CSS.escape(key)}"]`)?.remove();
}

/**
 * Takes a toast away after its time, but never from under a pointer or the keyboard's focus.
 *
 * @param {HTMLElement} element
 * @param {() => void} remove
 */
function removeWhenRead(element, remove) {
  const attempt = () => {
    if (element.matches(":hover, :focus-within")) setTimeout(attempt, 2000);
    else remove();
  };
  setTimeout(attempt, TOAST_MS);
}
