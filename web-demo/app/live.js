/**
 * The live part: connects the client, keeps the state up to date with what it says, and puts the views on the page.
 */

import { OffhookClient, OffhookError } from "../client/index.js";
import { announce, toast } from "./announce.js";
import { attempt } from "./attempt.js";
import { adopt, follow, isBusy, useClient } from "./calls.js";
import { errorWords } from "./messages.js";
import { asksForEncryption, meetingOfAddress } from "./meeting/name.js";
import { ofHistory, withNews, withPage } from "./pages.js";
import { startRinging } from "./ringing.js";
import { tokenOf } from "./session.js";
import { listenForShortcuts } from "./shortcuts.js";
import { playRingOnce, unlockOnGesture } from "./sounds.js";
import { onStage, store } from "./state.js";
import { recall, remember } from "./storage.js";
import { followVoicemail, loadVoicemail } from "./telephony.js";
import { mountHome } from "./views/home.js";

/** @typedef {import("./session.js").Identity} Identity */
/** @typedef {import("./messages.js").Words} Words */

const HISTORY_PAGE = 30;

/** @type {OffhookClient} */
let client;
/** @type {(words: Words | null) => void} */
let finish;
let mounted = false;

unlockOnGesture();

/**
 * Runs a session of the page.
 *
 * @param {Identity} identity
 * @param {string | null} token a fresh one, when the sign-in has just brought it
 * @returns {Promise<Words | null>} settles when it is over: with the reason, or `null` when the person signed out
 */
export async function start(identity, token) {
  store.reset();
  if (!mounted) mount();
  const over = new Promise((/** @type {(words: Words | null) => void} */ resolve) => (finish = resolve));

  client = new OffhookClient({
    token: tokenOf(identity, token),
    device: { name: deviceName() },
    rtc: { iceTransportPolicy: new URLSearchParams(location.search).get("relay") === "1" ? "relay" : "all" },
  });
  useClient(client);
  listen();
  void connect();
  const words = await over;
  store.state.meeting?.close();
  useClient(null);
  store.reset();
  return words;
}

/** Goes on after the connection was taken over or closed. */
export function connectAgain() {
  location.reload();
}

/**
 * Opens a meeting at its device check; what meetings need is loaded with the first one.
 *
 * @param {string} name
 * @param {boolean} [wantsEncryption]
 */
export async function openMeeting(name, wantsEncryption = false) {
  await attempt(async () => {
    const part = await import("./meeting/index.js");
    await part.openMeeting(client, name, wantsEncryption);
  });
}

export async function signOut() {
  store.state.meeting?.close();
  await client.close().catch(() => {});
  finish(null);
}

/** @param {Partial<import("./state.js").State["presence"]>} change */
export async function setPresence(change) {
  const before = store.state.presence;
  store.set({ presence: { ...before, ...change } });
  try {
    await client.setPresence(change);
    keepPresence();
  } catch (error) {
    store.set({ presence: before });
    const words = errorWords(error);
    toast(words.title, words.detail, { tone: "bad" });
  }
}

/** Loads the newest history, or what comes after what is there. */
export async function loadHistory({ older = false } = {}) {
  await attempt(async () => {
    const before = older ? (store.state.historyNext ?? undefined) : undefined;
    const page = await client.history({ before, limit: HISTORY_PAGE });
    const kept = older ? store.state.history : [];
    store.set({
      history: withPage(kept, page.entries, ofHistory),
      historyNext: page.next ?? null,
      historyKnown: true,
      missed: page.missed,
    });
  });
}

/** Tells every Device of this User that the missed calls were seen. */
export async function historySeen() {
  if (store.state.missed === 0) return;
  store.set({ missed: 0 });
  await client.historySeen().catch(() => {});
}

function mount() {
  mounted = true;
  document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: "/app/call.css" }));
  mountHome();
  startRinging();
  listenForShortcuts();
  addEventListener("online", () => store.set({ online: true }));
  addEventListener("offline", () => store.set({ online: false }));
  addEventListener("beforeunload", (event) => {
    if (isBusy()) event.preventDefault();
  });
}

async function connect() {
  try {
    await client.connect({});
    store.set({ me: client.me });
    followAddress();
    void refresh();
  } catch (error) {
    // The first connection is the page's to repeat; later ones are the client's.
    if (isFinal(error)) return finish(errorWords(error));
    store.set({ link: "closed", linkReason: error instanceof OffhookError ? error.code : "network" });
    setTimeout(() => void connect(), 2000);
  }
}

/** Who came by the link of a meeting goes there. */
function followAddress() {
  const name = meetingOfAddress();
  if (!name) return;
  if (store.state.hasMeetings) void openMeeting(name, asksForEncryption(location.href));
  else toast("No meetings here", "This server has none, so the link leads nowhere.", { tone: "warning" });
}

function listen() {
  client.on("stateChanged", (state, reason) => {
    const before = store.state.link;
    // Another try after a failed one is no news until it succeeds.
    if (state === "connecting" && before === "closed") return;
    store.set({ link: state, linkReason: reason ?? "", hasMeetings: client.roomParticipantsMax > 0, canDial: client.canDial });
    if (state === "connected" && before === "reconnecting") {
      announce("Connected to the server again");
      void refresh();
    }
    if (state === "closed" && isFinalCode(reason)) finish(errorWords(new OffhookError(reason ?? "", "")));
  });
  client.on("presence", (person) => {
    if (person.user === store.state.me?.user) adoptStatus(person.status);
    const people = new Map(store.state.people);
    people.set(person.user, person);
    store.set({ people });
  });
  client.on("incoming", (call) => follow(call));
  client.on("call", (call) => adopt(call));
  client.on("upgrading", (call, room, waitFor) => {
    waitFor(import("./meeting/index.js").then((part) => part.prepare(client, room)));
  });
  client.on("upgraded", (call, room) => {
    void attempt(async () => (await import("./meeting/index.js")).goOn(call, room));
  });
  client.on("invited", ({ room, name, participants }) => {
    if (store.state.meeting?.name === room) return;
    playRingOnce();
    const others = participants > 1 ? `${participants} people are there.` : "Nobody else is there yet.";
    toast(`${name} invites you to a meeting`, others, {
      key: `invited-${room}`,
      stays: true,
      action: { label: "Join", run: () => void openMeeting(room) },
    });
  });
  client.on("history", ({ entry, missed }) => {
    const { history, historyKnown, historyNext } = store.state;
    store.set({ missed, history: entry && historyKnown ? withNews(history, entry, ofHistory, historyNext === null) : history });
    // Who looks at the list has seen it.
    if (store.state.tab === "history" && !document.hidden && missed > 0) void historySeen();
  });
  followVoicemail(client);
  client.on("error", (error) => {
    if (isFinal(error)) return;
    const words = errorWords(error);
    toast(words.title, words.detail, { tone: "bad", key: `error-${error.code}` });
  });
}

/** Asks for what may have been missed while there was no connection. */
async function refresh() {
  await attempt(async () => {
    const people = await directory();
    store.set({ people: new Map(people.map((person) => [person.user, person])), peopleKnown: true });
  });
  await attempt(settlePresence);
  await loadHistory();
  await loadVoicemail();
  for (const call of client.calls.values()) {
    if (!onStage(store.state).includes(call) && call.phase !== "ended") follow(call);
  }
}

/** Everybody, as far as it is this User's business: a guest has no directory. */
async function directory() {
  try {
    return await client.subscribePresence();
  } catch (error) {
    if (error instanceof OffhookError && error.code === "forbidden") return [];
    throw error;
  }
}

/**
 * Brings back what this User chose: the server knows as long as one of their devices is there, afterwards this browser
 * does.
 */
async function settlePresence() {
  const kept = JSON.parse(recall(presenceKey()) ?? "null");
  let holds = await client.setPresence();
  if (kept && !holds.chosen) holds = await client.setPresence(kept);
  const { status, callWaiting } = holds;
  store.set({ presence: { status: isChoice(status) ? status : "available", callWaiting } });
  if (holds.chosen) keepPresence();
}

/** Takes over a status chosen on another device. @param {string} status */
function adoptStatus(status) {
  if (!isChoice(status) || status === store.state.presence.status) return;
  store.set({ presence: { ...store.state.presence, status } });
  keepPresence();
}

function keepPresence() {
  remember(presenceKey(), JSON.stringify(store.state.presence));
}

function presenceKey() {
  return `presence.${client.me?.account}.${client.me?.user}`;
}

/** @param {string} status @returns {status is import("./state.js").State["presence"]["status"]} */
function isChoice(status) {
  return status === "available" || status === "away" || status === "do_not_disturb";
}

/** @param {unknown} error */
function isFinal(error) {
  return error instanceof OffhookError && isFinalCode(error.code);
}

/** @param {string | undefined} code */
function isFinalCode(code) {
  return ["unauthorized", "token_expired", "forbidden", "origin_refused", "insecure_context"].includes(code ?? "");
}

/** @returns {string} `Firefox on Linux`, as the other devices of this User are shown it */
function deviceName() {
  const agent = navigator.userAgent;
  const first = (/** @type {[RegExp, string][]} */ table, /** @type {string} */ fallback) =>
    table.find(([pattern]) => pattern.test(agent))?.[1] ?? fallback;
  const browser = first(
    [
      [/Edg\//, "Edge"],
      [/Firefox\//, "Firefox"],
      [/Chrom(e|ium)\//, "Chrome"],
      [/Safari\//, "Safari"],
    ],
    "Browser",
  );
  const system = first(
    [
      [/Android/, "Android"],
      [/iPhone|iPad/, "iOS"],
      [/Windows/, "Windows"],
      [/Mac OS/, "macOS"],
      [/Linux/, "Linux"],
    ],
    "",
  );
  return system ? `${browser} on ${system}` : browser;
}
