/**
 * What the page knows, in one place. Views read it and are told, once per turn of the event loop, that it changed.
 */

/** @typedef {import("../client/index.js").Call} Call */
/** @typedef {import("../client/index.js").VoicemailEntry} VoicemailEntry */
/** @typedef {import("./meeting/meeting.js").Meeting} Meeting */
/** @typedef {{ user: string, name: string, status: string }} Person */
/** @typedef {{ user: string, name: string }} Peer */
/** @typedef {{ call: string, peer: Peer, direction: "in" | "out", media: { audio: boolean, video: boolean }, reason: string | null, phone?: string, missed: boolean, created_at: number, answered_at: number | null, ended_at: number | null }} HistoryEntry */
/** @typedef {{ title: string, detail: string, tone: "calm" | "warning" | "bad", peer: Peer, video: boolean, again: boolean }} Outcome */

/**
 * @typedef {object} State
 * @property {"idle" | "connecting" | "connected" | "reconnecting" | "closed"} link how the server is reached
 * @property {string} linkReason why `link` is what it is, as the client said it
 * @property {boolean} online what the browser says about the network
 * @property {{ account: string, user: string, name: string } | null} me
 * @property {Map<string, Person>} people
 * @property {boolean} peopleKnown false until the directory has arrived once
 * @property {{ status: "available" | "away" | "do_not_disturb", callWaiting: boolean }} presence what this User chose
 * @property {"people" | "history" | "voicemail"} tab
 * @property {Call[]} calls ringing and active, oldest first
 * @property {string | null} currentId the Call on the stage
 * @property {{ peer: Peer, video: boolean } | null} preparing a Call being dialled while the camera starts
 * @property {Outcome | null} outcome how the last Call ended, shown until it is closed
 * @property {HistoryEntry[]} history newest first
 * @property {string | null} historyNext where older entries begin
 * @property {boolean} historyKnown
 * @property {number} missed
 * @property {VoicemailEntry[]} voicemails newest first
 * @property {string | null} voicemailNext where older messages begin
 * @property {boolean} voicemailKnown
 * @property {number} unheard messages that nobody has heard
 * @property {boolean} panelOpen the connection panel
 * @property {boolean} minimised the stage is put aside, on a phone
 * @property {boolean} hasMeetings whether the server has Rooms
 * @property {boolean} canDial whether phones can be called
 * @property {Meeting | null} meeting the one this page is in, or about to be
 */

/** @type {State} */
const initial = {
  link: "idle",
  linkReason: "",
  online: navigator.onLine,
  me: null,
  people: new Map(),
  peopleKnown: false,
  presence: { status: "available", callWaiting: true },
  tab: "people",
  calls: [],
  currentId: null,
  preparing: null,
  outcome: null,
  history: [],
  historyNext: null,
  historyKnown: false,
  missed: 0,
  voicemails: [],
  voicemailNext: null,
  voicemailKnown: false,
  unheard: 0,
  panelOpen: false,
  minimised: false,
  hasMeetings: false,
  canDial: false,
  meeting: null,
};

class Store {
  /** @type {State} */
  state = { ...initial };
  /** @type {Set<(state: State) => void>} */
  #watchers = new Set();
  #scheduled = false;

  /** @param {Partial<State>} patch */
  set(patch) {
    Object.assign(this.state, patch);
    this.touch();
  }

  /**
   * Tells the watchers, for changes inside a Call. Not by animation frame: a hidden page must ring, too.
   */
  touch() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      for (const watcher of this.#watchers) watcher(this.state);
    });
  }

  /** @param {(state: State) => void} watcher called now and after each change */
  watch(watcher) {
    this.#watchers.add(watcher);
    watcher(this.state);
  }

  /** Forgets everything about the User who was signed in. */
  reset() {
    this.set({ ...initial, people: new Map(), online: navigator.onLine });
  }
}

export const store = new Store();

/**
 * The Call on the stage.
 *
 * @param {State} state
 * @returns {Call | null}
 */
export function currentCall(state) {
  return state.calls.find((call) => call.id === state.currentId) ?? null;
}

/**
 * Calls that ring here and wait for an answer, oldest first.
 *
 * @param {State} state
 * @returns {Call[]}
 */
export function ringingIn(state) {
  return state.calls.filter((call) => call.phase === "ringing" && call.direction === "in");
}

/**
 * Calls with a line of their own on the stage: everything but what still rings here.
 *
 * @param {State} state
 * @returns {Call[]}
 */
export function onStage(state) {
  return state.calls.filter((call) => !(call.phase === "ringing" && call.direction === "in"));
}
