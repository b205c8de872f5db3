/** The keys of a telephone: to dial a number, and to press during a call what a machine at the other end asks for. */

import { OffhookError, numberOf, toTarget } from "../../client/index.js";
import { dial } from "../calls.js";
import { openDialog } from "../dialogs.js";
import { h, setText } from "../dom.js";
import { icon } from "../icons.js";
import { errorWords } from "../messages.js";
import { playKey } from "../sounds.js";

/** @typedef {import("../state.js").Call} Call */

/** The keys with the letters that stand on them (ITU-T E.161). */
const KEYS = /** @type {[string, string][]} */ ([
  ["1", ""],
  ["2", "ABC"],
  ["3", "DEF"],
  ["4", "GHI"],
  ["5", "JKL"],
  ["6", "MNO"],
  ["7", "PQRS"],
  ["8", "TUV"],
  ["9", "WXYZ"],
  ["*", ""],
  ["0", "+"],
  ["#", ""],
]);
const SPOKEN = /** @type {Record<string, string>} */ ({ "*": "* star", "#": "# hash" });
/** How long 0 is held down for a plus. */
const PLUS_MS = 600;
/** How many of the keys that were pressed are shown. */
const SHOWN_MAX = 24;

/** The way to the dial pad, where phones can be called. */
export function dialCard() {
  const element = h(
    "div",
    { class: "card dial-card", hidden: true },
    h(
      "button",
      { class: "button wide", type: "button", data: { test: "open-dialpad" }, on: { click: () => openDialPad() } },
      icon("keypad"),
      "Dial a number",
    ),
  );
  return {
    element,
    /** @param {import("../state.js").State} state */
    update({ canDial }) {
      element.hidden = !canDial;
    },
  };
}

/**
 * @param {{ title?: string, action?: string, call?: (peer: { user: string, name: string }) => void }} [options] `call`: what is done with the number
 */
export function openDialPad({ title = "Dial a number", action = "Call", call = (peer) => void dial(peer, false) } = {}) {
  const field = numberField({ test: "number", hasKeys: true });
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const peer = field.peer();
    if (!peer) return;
    close();
    call(peer);
  };
  let close = () => {};
  void openDialog({ title, test: "dialpad", class: "narrow" }, (done) => {
    close = done;
    return [
      h(
        "form",
        { class: "dial-form", on: { submit } },
        field.element,
        pad({ press: field.type, plus: true }),
        h(
          "button",
          { class: "button primary wide", type: "submit", data: { test: "dial" } },
          icon("phone"),
          action,
        ),
      ),
    ];
  });
  field.focus();
}

/**
 * A field for a number, which says what is wrong with it; with a key that erases where there are keys to type with.
 *
 * @param {{ test: string, hasKeys: boolean }} look
 */
export function numberField({ test, hasKeys }) {
  const id = `${test}-problem`;
  const problem = h("p", { class: "hint", id, role: "status" });
  const input = h("input", {
    class: "field number",
    type: "tel",
    placeholder: "+49 30 123456",
    "aria-label": "Number, or address of SIP",
    "aria-describedby": id,
    autocomplete: "off",
    maxlength: 128,
    data: { test },
    on: { input: () => setText(problem, "") },
  });
  const erase = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      "aria-label": "Erase the last digit",
      title: "Erase",
      data: { test: `${test}-erase` },
      on: { click: () => edit(input, "") },
    },
    icon("erase"),
  );
  return {
    element: h("div", { class: "number-field" }, h("div", { class: "number-row" }, input, hasKeys && erase), problem),
    /** @param {string} key */
    type(key) {
      setText(problem, "");
      edit(input, key);
    },
    focus: () => input.focus(),
    /** Whom to call, or null after saying why not. */
    peer() {
      try {
        const user = toTarget(input.value);
        return { user, name: numberOf(user) ?? user };
      } catch (error) {
        const isBad = error instanceof OffhookError;
        setText(problem, isBad ? errorWords(error).detail : String(error));
        input.focus();
        return null;
      }
    },
  };
}

/**
 * The keys for a Call with a phone.
 *
 * @param {Call} call
 */
export function openKeys(call) {
  const pressed = h("output", { class: "keys-pressed", "aria-live": "polite", data: { test: "keys-pressed" } });
  const problem = h("p", { class: "hint", role: "status" });
  const press = async (/** @type {string} */ key) => {
    setText(pressed, `${pressed.textContent}${key}`.slice(-SHOWN_MAX));
    try {
      await call.dtmf(key);
    } catch (error) {
      setText(problem, errorWords(error).detail);
    }
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const key = event.key.toUpperCase();
    if (event.ctrlKey || event.metaKey || event.altKey || !/^[0-9*#A-D]$/.test(key)) return;
    event.preventDefault();
    playKey(key);
    void press(key);
  };
  let over = () => {};
  const done = openDialog({ title: `Keys for ${call.peer.name}`, test: "keys-dialog", class: "narrow" }, (close) => {
    over = call.on("ended", () => close());
    return [
      pressed,
      h("div", { on: { keydown: onKey } }, pad({ press: (key) => void press(key), plus: false })),
      problem,
      h("p", { class: "hint only-hover" }, "You can type the keys, too."),
    ];
  });
  // Wherever the focus is in the dialog, a digit is a key of the phone.
  const dialog = pressed.closest("dialog");
  dialog?.addEventListener("keydown", onKey);
  void done.then(() => over());
}

/**
 * @param {{ press: (key: string) => void, plus: boolean }} options `plus`: 0 held down is a plus
 */
function pad({ press, plus }) {
  return h(
    "div",
    { class: "pad", role: "group", "aria-label": "Keys" },
    ...KEYS.map(([key, letters]) => padKey(key, plus || key !== "0" ? letters : "", press, plus && key === "0")),
  );
}

/**
 * @param {string} key
 * @param {string} letters
 * @param {(key: string) => void} press
 * @param {boolean} hasPlus
 */
function padKey(key, letters, press, hasPlus) {
  let held = 0;
  let wasHeld = false;
  const click = () => {
    if (!wasHeld) {
      playKey(key);
      press(key);
    }
    wasHeld = false;
  };
  const hold = () => {
    wasHeld = false;
    if (!hasPlus) return;
    held = window.setTimeout(() => {
      wasHeld = true;
      press("+");
    }, PLUS_MS);
  };
  const release = () => clearTimeout(held);
  return h(
    "button",
    {
      class: "pad-key",
      type: "button",
      "aria-label": SPOKEN[key] ?? `${key} ${letters}`.trim(),
      data: { test: `key-${key === "*" ? "star" : key === "#" ? "hash" : key}` },
      on: { click, pointerdown: hold, pointerup: release, pointerleave: release, pointercancel: release },
    },
    h("span", { class: "pad-digit" }, key),
    // The name has it with a space in between.
    " ",
    h("span", { class: "pad-letters" }, letters),
  );
}

/**
 * Puts a key where the cursor is, or erases what is before it.
 *
 * @param {HTMLInputElement} input
 * @param {string} key
 */
function edit(input, key) {
  const [start, end] = [input.selectionStart ?? input.value.length, input.selectionEnd ?? input.value.length];
  const from = key === "" && start === end ? Math.max(0, start - 1) : start;
  input.setRangeText(key, from, end, "end");
}
