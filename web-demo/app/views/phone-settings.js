/** How one wants to be called by phone: what rings, for how long, and where calls go that do not reach anybody. */

import { attempt } from "../attempt.js";
import { openDialog } from "../dialogs.js";
import { h, setText } from "../dom.js";
import { toast } from "../announce.js";
import { errorWords } from "../messages.js";
import { store } from "../state.js";
import { phoneSettings, setPhone } from "../telephony.js";
import { peopleBut } from "./people.js";
import { toggle } from "./toggle.js";

/** @typedef {import("../../client/index.js").PhoneSettings} PhoneSettings */
/** @typedef {import("../../client/index.js").PhoneForward} PhoneForward */
/** @typedef {keyof PhoneSettings["forward"]} Case */

const RING_SECONDS = [10, 15, 20, 25, 30, 40, 60, 90];

/** When calls go elsewhere, and what happens to them where nothing is chosen. */
const CASES = /** @type {[Case, string, string][]} */ ([
  ["always", "All calls", "Ring here"],
  ["busy", "While I am busy", "As usual"],
  ["no_answer", "When nobody answers", "As usual"],
  ["offline", "While no device of mine is there", "As usual"],
]);

export async function openPhoneSettings() {
  /** @type {PhoneSettings | null} */
  let held = null;
  await attempt(async () => {
    held = await phoneSettings();
  });
  if (held) showForm(held);
}

/** @param {PhoneSettings} held */
function showForm(held) {
  const wanted = { ...held };
  const ring = h(
    "select",
    { class: "field", id: "phone-ring", data: { test: "phone-ring" } },
    ...[...new Set([...RING_SECONDS, held.ring_seconds])]
      .sort((a, b) => a - b)
      .map((seconds) => h("option", { value: String(seconds) }, `${seconds} seconds`)),
  );
  ring.value = String(held.ring_seconds);
  const forwards = CASES.map(([name, label, usual]) => forwardField(name, label, usual, held.forward[name]));
  const problem = h("p", { class: "hint form-problem", role: "alert", data: { test: "phone-problem" } });
  const save = h("button", { class: "button primary", type: "submit", data: { test: "phone-save" } }, "Save");
  let close = () => {};

  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (save.hasAttribute("aria-busy")) return;
    setText(problem, "");
    // Not disabled: that takes the focus away, and whoever uses the keyboard would have to look for it.
    save.setAttribute("aria-busy", "true");
    const forward = /** @type {PhoneSettings["forward"]} */ (Object.fromEntries(forwards.map(({ name, value }) => [name, value()])));
    try {
      await setPhone({ ...wanted, ring_seconds: Number(ring.value), forward });
      close();
      toast("Saved", "It holds for your phone calls within a few seconds.", { key: "phone-settings" });
    } catch (error) {
      setText(problem, errorWords(error).detail);
    }
    save.removeAttribute("aria-busy");
  };
  void openDialog({ title: "Phone calls", test: "phone-settings" }, (done) => {
    close = done;
    return [
      h(
        "form",
        { class: "phone-form", on: { submit } },
        toggle({
          label: "Do not disturb",
          hint: "No call of the phone network rings, desk phones included. Calls go where “while I am busy” says.",
          on: held.do_not_disturb,
          test: "phone-dnd",
          change: (on) => (wanted.do_not_disturb = on),
        }),
        toggle({
          label: "Call waiting",
          hint: "A second caller rings while you talk.",
          on: held.call_waiting,
          test: "phone-waiting",
          change: (on) => (wanted.call_waiting = on),
        }),
        toggle({
          label: "Voicemail",
          hint: "Who reaches nobody may leave a message, unless the call is forwarded.",
          on: held.voicemail,
          test: "phone-voicemail",
          change: (on) => (wanted.voicemail = on),
        }),
        h("div", { class: "device" }, h("label", { for: "phone-ring" }, "Ring for"), ring),
        h("fieldset", { class: "forwards" }, h("legend", null, "Forward calls"), ...forwards.map(({ element }) => element)),
        problem,
        h("div", { class: "dialog-actions" }, save),
      ),
    ];
  });
}

/**
 * Where calls go in one case.
 *
 * @param {Case} name
 * @param {string} label
 * @param {string} usual
 * @param {PhoneForward | null} held
 */
function forwardField(name, label, usual, held) {
  const id = `forward-${name}`;
  const at = (/** @type {"user" | "number" | "other"} */ kind) =>
    typeof held === "object" && held && kind in held ? /** @type {Record<string, string>} */ (held)[kind] : "";
  const kinds = [
    ["", usual],
    ["voicemail", "To my voicemail"],
    ["user", "To a person"],
    ["number", "To a number"],
    // An administrator has chosen it; it can be kept or given up.
    ...(at("other") ? [["other", `To ${at("other")}`]] : []),
  ];
  const select = h(
    "select",
    { class: "field", id, data: { test: id }, on: { change: () => show(true) } },
    ...kinds.map(([value, words]) => h("option", { value }, words)),
  );
  const number = h("input", {
    class: "field",
    type: "tel",
    "aria-label": `${label}: number`,
    placeholder: "+49 30 123456",
    autocomplete: "off",
    maxlength: 64,
    data: { test: `${id}-number` },
  });
  const people = peopleBut(store.state, [store.state.me?.user]);
  const known = people.some(({ user }) => user === at("user"));
  const person = h(
    "select",
    { class: "field", "aria-label": `${label}: person`, data: { test: `${id}-person` } },
    ...people.map((one) => h("option", { value: one.user }, one.name)),
    ...(at("user") && !known ? [h("option", { value: at("user") }, at("user"))] : []),
  );
  number.value = at("number");
  if (at("user")) person.value = at("user");
  select.value = held === "voicemail" ? held : ((/** @type {const} */ (["user", "number", "other"])).find((kind) => at(kind)) ?? "");

  /** @param {boolean} wasChosen */
  const show = (wasChosen) => {
    number.hidden = select.value !== "number";
    number.required = !number.hidden;
    person.hidden = select.value !== "user";
    person.required = !person.hidden;
    if (wasChosen && !number.hidden) number.focus();
  };
  show(false);

  return {
    name,
    element: h("div", { class: "device" }, h("label", { for: id }, label), select, number, person),
    /** @returns {PhoneForward | null} */
    value() {
      switch (select.value) {
        case "voicemail":
          return "voicemail";
        case "user":
          return { user: person.value };
        case "number":
          return { number: number.value.trim() };
        case "other":
          return { other: at("other") };
        default:
          return null;
      }
    },
  };
}
