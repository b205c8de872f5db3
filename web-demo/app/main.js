/**
 * The part of the page that is there at once: the theme, the sign-in, the service worker. The live part, with the
 * client and everything about Calls, is loaded behind it.
 */

import { h } from "./dom.js";
import { obstacle } from "./devices.js";
import { meetingOfAddress } from "./meeting/name.js";
import { mediaWords } from "./messages.js";
import * as session from "./session.js";
import { themeButton } from "./theme.js";

/** @typedef {import("./session.js").Identity} Identity */

const root = document.documentElement;
const notice = element("welcome-notice");
const signIn = /** @type {HTMLFormElement} */ (element("sign-in"));
const tokenForm = /** @type {HTMLFormElement} */ (element("token-form"));
const guest = /** @type {HTMLButtonElement} */ (element("guest"));
const nameInput = /** @type {HTMLInputElement} */ (element("name"));
const tokenInput = /** @type {HTMLInputElement} */ (element("token"));

// Asked for now, needed after the sign-in: it loads while somebody types a name.
const live = import("./live.js");
live.catch(() => {});

session.takeTokenFromFragment();
element("tools").append(themeButton());
registerServiceWorker();
void begin();

signIn.addEventListener("submit", (event) => {
  event.preventDefault();
  const name = nameInput.value.trim();
  if (!name) return;
  void enterBy(async () => {
    const { token } = await session.signInByName(name);
    return { identity: { kind: "demo", name }, token };
  });
});
guest.addEventListener("click", () => {
  const name = nameInput.value.trim();
  const meeting = meetingOfAddress();
  if (!signIn.reportValidity() || !name || !meeting) return;
  void enterBy(async () => {
    const { token } = await session.signInAsGuest(name, meeting);
    return { identity: { kind: "token", token }, token };
  });
});
tokenForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const token = tokenInput.value.trim();
  if (token) void enter({ kind: "token", token });
});

async function begin() {
  const code = obstacle();
  if (code) {
    showWelcome();
    const words = mediaWords(code);
    tell(words.title, words.detail);
    for (const control of document.querySelectorAll(".welcome-form :is(input, button)"))
      control.setAttribute("disabled", "");
    return;
  }
  const identity = session.rememberedIdentity();
  if (identity) {
    await enter(identity);
    return;
  }
  showWelcome();
  void offerLastName();
  await chooseForm();
}

/** Shows the form this server asks for. */
async function chooseForm() {
  try {
    const kind = await session.signInKind();
    signIn.hidden = kind !== "demo";
    tokenForm.hidden = kind !== "token";
    notice.hidden = true;
    // A phone would cover half the page with its keyboard.
    if (matchMedia("(hover: hover)").matches) (kind === "demo" ? nameInput : tokenInput).focus({ preventScroll: true });
  } catch {
    const again = h(
      "button",
      { class: "button small", type: "button", on: { click: () => void chooseForm() } },
      "Try again",
    );
    if (navigator.onLine)
      tell("The server cannot be reached", "It may be restarting. Nothing is lost; try again in a moment.", again);
    else
      tell(
        "You are offline",
        "The page is here, but calls need a network. It goes on by itself when the network is back.",
        again,
      );
    addEventListener("online", () => void chooseForm(), { once: true });
  }
}

/** Offers the name of the last visit, unless it is in use in another window: then this one wants another. */
async function offerLastName() {
  const name = session.lastName();
  if (!name) return;
  const locks = await navigator.locks?.query();
  if (locks?.held?.some((lock) => lock.name === lockOf(name))) {
    element("name-hint").textContent =
      `${name} is open in another window of this browser. Take another name here, and call ${name}.`;
  } else if (!nameInput.value) {
    nameInput.value = name;
  }
}

/** @param {() => Promise<{ identity: Identity, token: string }>} signInNow */
async function enterBy(signInNow) {
  busy(true);
  try {
    const { identity, token } = await signInNow();
    await enter(identity, token);
  } catch (error) {
    busy(false);
    if (error instanceof session.Unreachable) tell("The server cannot be reached", "Check the network and try again.");
    else tell("This name does not work", error instanceof Error ? error.message : "");
  }
}

/**
 * @param {Identity} identity
 * @param {string | null} [token]
 */
async function enter(identity, token = null) {
  const part = await live.catch(() => null);
  if (!part) {
    await backToWelcome({
      title: "The page is not complete",
      detail: "A part of it could not be loaded. Check the network and reload.",
    });
    return;
  }
  session.rememberIdentity(identity);
  if (identity.kind === "demo") holdName(identity.name);
  root.dataset.screen = "home";
  notice.hidden = true;
  const words = await part.start(identity, token);
  session.forgetIdentity();
  if (words) await backToWelcome(words);
  else location.reload();
}

/**
 * Shows other windows of this browser that the name is taken, for as long as this one is open.
 *
 * @param {string} name
 */
function holdName(name) {
  void navigator.locks?.request(lockOf(name), { mode: "shared" }, () => new Promise(() => {}));
}

/** @param {import("./messages.js").Words} words why nobody is signed in any more */
async function backToWelcome(words) {
  showWelcome();
  await chooseForm();
  tell(words.title, words.detail);
}

function showWelcome() {
  root.dataset.screen = "welcome";
  const meeting = meetingOfAddress();
  guest.hidden = !meeting;
  if (meeting) element("lead").textContent = `You are on your way to the meeting “${meeting}”. One thing before it:`;
  busy(false);
}

/** @param {boolean} on */
function busy(on) {
  for (const form of [signIn, tokenForm]) form.toggleAttribute("data-busy", on);
}

/**
 * @param {string} title
 * @param {string} detail
 * @param {...Node} more
 */
function tell(title, detail, ...more) {
  notice.replaceChildren(h("p", { class: "notice-title" }, title), h("p", null, detail), ...more);
  notice.hidden = false;
}

function registerServiceWorker() {
  if (!isSecureContext || !("serviceWorker" in navigator)) return;
  // A page without its cache works as well, just not offline.
  addEventListener("load", () => void navigator.serviceWorker.register("/app/sw.js", { scope: "/" }).catch(() => {}));
}

/** @param {string} name */
function lockOf(name) {
  return `offhook-name:${name.toLowerCase()}`;
}

/** @param {string} id */
function element(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}
