/**
 * What a person does with Calls, and what Calls do to the page.
 */

import { announce, dismissToast, toast } from "./announce.js";
import { attempt } from "./attempt.js";
import { attach, mediaFor, release, stopTracks, takeOverTracks } from "./local-media.js";
import { endWords, errorWords } from "./messages.js";
import { playCue } from "./sounds.js";
import { currentCall, onStage, store } from "./state.js";

/** @typedef {import("./state.js").Call} Call */
/** @typedef {import("./state.js").Peer} Peer */
/** @typedef {import("../client/index.js").OffhookClient} OffhookClient */

/** @type {OffhookClient | null} */
let client = null;
/** Who got the Calls that were handed over here. @type {WeakMap<Call, string>} */
const handedTo = new WeakMap();
/** Calls that are being answered while their devices start. @type {Set<Call>} */
const answering = new Set();
/** Counts attempts to dial, so that one that was given up while the camera started can tell. */
let dialling = 0;

/** @param {OffhookClient | null} next */
export function useClient(next) {
  client = next;
}

/**
 * Calls somebody. Calls in progress are put on hold first.
 *
 * @param {Peer} peer
 * @param {boolean} video
 */
export async function dial(peer, video) {
  if (!client || store.state.preparing) return;
  const turn = ++dialling;
  void store.state.meeting?.setAside(true);
  store.set({ preparing: { peer, video }, outcome: null, minimised: false });
  dismissToast("end");
  announce(`Calling ${peer.name}`);
  const given = await mediaFor(video);
  if (turn !== dialling || !given) {
    stopTracks(given);
    if (turn === dialling) store.set({ preparing: null });
    return;
  }
  try {
    await holdOthers(null);
    const call = await client.call(peer.user, { media: { audio: true, video }, stream: given });
    if (turn !== dialling) {
      follow(call, given);
      await call.cancel();
      return;
    }
    store.set({ preparing: null, currentId: call.id });
    follow(call, given);
  } catch (error) {
    stopTracks(given);
    const words = errorWords(error);
    store.set({ preparing: null, outcome: { ...words, tone: "bad", peer, video, again: true } });
    playCue("problem");
    announce(`${words.title}. ${words.detail}`, "assertive");
  }
}

/** Gives up a Call that is being dialled while its camera still starts. */
export function stopDialling() {
  dialling += 1;
  store.set({ preparing: null });
}

/**
 * Answers.
 *
 * @param {Call} call
 * @param {{ video: boolean, others?: "hold" | "end" }} how what becomes of other Calls
 */
export async function accept(call, { video, others = "hold" }) {
  // A key pressed twice must not open the microphone twice.
  if (answering.has(call)) return;
  answering.add(call);
  const given = await mediaFor(video);
  answering.delete(call);
  if (!given) return;
  if (call.phase !== "ringing") {
    stopTracks(given);
    return;
  }
  await attempt(async () => {
    if (others === "end") await Promise.all(activeCalls().map((other) => other.hangup()));
    else await holdOthers(call);
    attach(call, given);
    await store.state.meeting?.setAside(true);
    store.set({ currentId: call.id, outcome: null, minimised: false });
    await call.accept({ stream: given });
  });
}

/**
 * @param {Call} call
 * @param {"declined" | "busy"} reason
 */
export function decline(call, reason) {
  return attempt(() => call.decline(reason));
}

/** @param {Call} call hangs up, or cancels while it rings */
export function end(call) {
  return attempt(() => (call.phase === "ringing" ? call.cancel() : call.hangup()));
}

/** @param {Call} call */
export async function toggleHold(call) {
  await attempt(async () => {
    if (call.heldByMe) {
      await holdOthers(call);
      await call.resume();
      announce("Call resumed");
    } else {
      await call.hold();
      announce("Call on hold");
    }
  });
}

/** @param {Call} call puts it on the stage and holds the others */
export async function switchTo(call) {
  store.set({ currentId: call.id, outcome: null });
  await attempt(async () => {
    await holdOthers(call);
    if (call.phase === "active" && call.heldByMe) await call.resume();
    announce(`Now with ${call.peer.name}`);
  });
}

/**
 * @param {Call} call
 * @param {Peer} to
 */
export async function transfer(call, to) {
  await attempt(async () => {
    handedTo.set(call, to.name);
    await call.transfer(to.user);
    announce(`Transferring ${call.peer.name} to ${to.name}`);
  });
}

/**
 * Connects the two people this User talks to.
 *
 * @param {Call} call
 * @param {Call} other
 */
export async function connectBoth(call, other) {
  handedTo.set(call, other.peer.name);
  handedTo.set(other, call.peer.name);
  await attempt(() => call.transferTo(other));
}

/** Calls that are on their way into a meeting, because somebody here wants more people in it. @type {WeakSet<Call>} */
const growing = new WeakSet();

/**
 * Goes on as a meeting, with the same person and without hanging up, and asks who else shall come.
 *
 * @param {Call} call
 */
export async function addPeople(call) {
  if (growing.has(call)) return;
  growing.add(call);
  announce("The call becomes a meeting");
  try {
    await call.upgrade();
  } catch (error) {
    growing.delete(call);
    const words = errorWords(error);
    toast(words.title, `${words.detail} The call goes on.`, { tone: "warning" });
  }
}

/** Whether somebody here wanted the meeting a Call has become. @param {Call} call */
export function wasGrownHere(call) {
  return growing.has(call);
}

/**
 * Follows a Call from its first moment to its end.
 *
 * @param {Call} call
 * @param {MediaStream} [stream] what this page sends into it
 */
export function follow(call, stream) {
  if (store.state.calls.includes(call)) return;
  if (stream) attach(call, stream);
  if (call.phase === "ended") {
    // Busy or not reachable: it was over before it rang.
    onEnded(call);
    return;
  }
  store.set({ calls: [...store.state.calls, call] });

  let connected = false;
  let heldByPeer = false;
  let sharesScreen = false;
  call.on("changed", () => {
    takeOverTracks(call);
    // Out of a meeting nobody comes anew.
    if (call.phase === "active" && !connected && !call.fromRoom) {
      connected = true;
      playCue("connected");
      announce(`Connected with ${call.peer.name}`, "assertive");
    }
    if (call.heldByPeer !== heldByPeer) {
      heldByPeer = call.heldByPeer;
      announce(heldByPeer ? `${call.peer.name} put you on hold` : `${call.peer.name} is back`);
    }
    if ((call.peerMedia?.video === "screen") !== sharesScreen) {
      sharesScreen = !sharesScreen;
      announce(`${call.peer.name} ${sharesScreen ? "shares the screen" : "no longer shares the screen"}`);
    }
    store.touch();
  });
  call.on("progress", ({ kind, position }) => {
    if (kind === "queued" && position) announce(`Place ${position} in the line`);
    store.touch();
  });
  call.on("stream", () => store.touch());
  call.on("code", () => store.touch());
  call.on("ended", () => onEnded(call));
}

/**
 * Takes in a Call that nobody dialled here: a transfer or a merge made it out of another one.
 *
 * @param {Call} call
 */
export function adopt(call) {
  store.set({ currentId: call.id, outcome: null });
  follow(call, new MediaStream());
  // One who is muted in a meeting sends nothing there; the call has the microphone all the same, silent.
  const { microphone, isMicrophoneOn } = store.state.meeting?.own ?? {};
  if (call.fromRoom && microphone && !call.localStream?.getAudioTracks().length) {
    call.mute(!isMicrophoneOn);
    void call.setTrack("audio", microphone);
  }
  takeOverTracks(call);
}

/** @returns {boolean} whether leaving the page would end a conversation */
export function isBusy() {
  const { preparing, meeting } = store.state;
  return preparing !== null || onStage(store.state).length > 0 || meeting?.phase === "in";
}

/** Makes way for a meeting. */
export function holdAll() {
  return holdOthers(null);
}

/** @returns {boolean} */
export function isTalking() {
  return activeCalls().length > 0;
}

/** @param {Call} call */
function onEnded(call) {
  const { calls, currentId, me, people } = store.state;
  const left = calls.filter((other) => other !== call);
  const wasOnStage = currentId === call.id;
  const continued = left.find((other) => other.replaces === call.id || other.id === call.end?.into);
  const next = continued ?? onStage({ ...store.state, calls: left })[0] ?? null;
  store.set({ calls: left, currentId: wasOnStage ? (next?.id ?? null) : currentId });
  release(call, call.end?.by !== me?.user && Boolean(call.end?.into ?? call.end?.room));
  // It goes on as a meeting, or the meeting did not become a call after all.
  const { meeting } = store.state;
  if (call.end?.reason === "upgraded" || (call.fromRoom && meeting?.phase === "in" && meeting.name === call.fromRoom)) return;
  tellEnd(call, {
    stage: wasOnStage && !next,
    who: {
      me: me?.user ?? "",
      to: handedTo.get(call) ?? "the other person",
      nameOf: (user) => (user === call.peer.user ? call.peer.name : (people.get(user)?.name ?? user)),
    },
  });
}

/**
 * @param {Call} call
 * @param {{ stage: boolean, who: { me: string, to: string, nameOf: (user: string) => string } }} where
 */
function tellEnd(call, { stage, who }) {
  if (call.answeredElsewhere) {
    const by = call.end?.by;
    if (!by) toast("Answered elsewhere", `${call.peer.name} talks on another phone.`);
    else if (by === who.me) toast("Answered on another device", `You took ${call.peer.name}’s call there.`);
    else toast(`${who.nameOf(by)} took the call`, `${call.peer.name} rang for several of you.`);
    return;
  }
  const reason = call.end?.reason;
  if (reason === "merged" || (reason === "transferred" && !stage)) return;

  const words = endWords(call, who);
  if (call.direction === "out" || call.answeredAt) playCue(words.tone === "calm" ? "ended" : "problem");
  if (stage) {
    store.set({ outcome: { ...words, peer: call.peer, video: call.media.video }, panelOpen: false });
    announce(`${words.title}. ${words.detail}`, "assertive");
    return;
  }
  const again = { label: "Call back", run: () => void dial(call.peer, call.media.video) };
  toast(words.title, words.detail, { tone: words.tone, action: words.again ? again : undefined, key: "end" });
}

/** @param {Call | null} except */
async function holdOthers(except) {
  const others = activeCalls().filter((call) => call !== except && !call.heldByMe);
  await Promise.all(others.map((call) => call.hold()));
}

function activeCalls() {
  return store.state.calls.filter((call) => call.phase === "active");
}

/** @returns {Call | null} the Call the controls act on */
export function currentActive() {
  const call = currentCall(store.state);
  return call?.phase === "active" ? call : null;
}
