/**
 * A meeting, as a person goes through it: the device check, the lobby, the conversation, and how it ended. The client's Room
 * knows who is there; this knows what this page makes of it.
 */

import { announce, dismissToast, toast } from "../announce.js";
import { attempt } from "../attempt.js";
import { holdAll } from "../calls.js";
import { openDialog } from "../dialogs.js";
import { h } from "../dom.js";
import { playCue } from "../sounds.js";
import { store } from "../state.js";
import { meetingLink, showInAddress } from "./name.js";
import { OwnMedia } from "./own-media.js";
import { SoundPlayer } from "./sound.js";
import { openInvite } from "./views/invite.js";
import { endWords, people, refusalWords, unansweredWords } from "./words.js";

/** @typedef {import("../../client/index.js").OffhookClient} OffhookClient */
/** @typedef {import("../../client/index.js").Room} Room */
/** @typedef {import("../../client/index.js").Participant} Participant */
/** @typedef {"check" | "joining" | "waiting" | "in" | "over"} Phase */
/** @typedef {"chat" | "people" | null} Panel */

/** How long a reaction stays on a tile. */
const REACTION_MS = 4000;
/** Comings and goings within this are told in one breath. */
const BREATH_MS = 1500;

export class Meeting {
  /** @type {Phase} */
  phase = "check";
  /** @type {Room | null} */
  room = null;
  own = new OwnMedia(() => this.touch());
  /** Whether only an encrypted meeting will do; who begins one begins it so. */
  wantsEncryption;
  /** Whether it has been encrypted from end to end, and may not be for ever. */
  wasEncrypted = false;
  /** What the person chose; a shared screen or a pin shows one tile large all the same. @type {"grid" | "speaker"} */
  layout = "grid";
  /** Whether the shared screen is shown as one tile among others. */
  isScreenSmall = false;
  /** The key of the tile that was pinned. @type {string | null} */
  pinned = null;
  page = 0;
  /** @type {Panel} */
  panel = null;
  unread = 0;
  /** Whether the page shows its lists or a Call meanwhile. */
  isAside = false;
  /** By Participant. @type {Map<string, string>} */
  reactions = new Map();
  /** @type {import("../messages.js").Words & { again: boolean } | null} */
  over = null;

  #client;
  #sound = new SoundPlayer();
  /** @type {Set<() => void>} */
  #watchers = new Set();
  #scheduled = false;
  /** @type {{ joined: string[], left: string[] }} */
  #news = { joined: [], left: [] };
  #newsTimer = 0;
  /** @type {AbortController | null} */
  #joining = null;

  /**
   * @param {OffhookClient} client @param {string} name @param {boolean} wantsEncryption as the link to it says
   * @param {boolean} [begins] at the device check
   */
  constructor(client, name, wantsEncryption, begins = true) {
    this.#client = client;
    this.name = name;
    this.wantsEncryption = wantsEncryption;
    if (!begins) return;
    showInAddress(name, wantsEncryption);
    void this.own.start();
  }

  /** What people call it: a Call that became a meeting has no name that anybody gave it. */
  get title() {
    return this.name.startsWith("call-") ? "Meeting" : this.name;
  }

  /** Plays what comes from a Room that a Call is about to become. @param {Room} room */
  hear(room) {
    this.#sound.play(room.audio);
    room.on("audio", (streams) => this.#sound.play(streams));
    room.on("ended", () => this.#sound.close());
  }

  /**
   * Goes on with a Call that has become a meeting.
   *
   * @param {Room} room @param {Parameters<OwnMedia["takeOver"]>[0]} open
   */
  takeOver(room, open) {
    showInAddress(this.name, room.isEncrypted);
    // The Call was, from end to end.
    this.wasEncrypted = true;
    if (!room.isEncrypted) {
      const detail = "A call is encrypted from end to end. This meeting is not: the server could look in from now on.";
      toast("No longer encrypted", detail, { tone: "warning", key: "encryption" });
    }
    this.own.takeOver(open);
    this.room = room;
    this.own.use(room);
    this.#follow(room);
    this.#arrived();
  }

  get isModerator() {
    return Boolean(this.room?.local.permissions.moderate);
  }

  /** @param {() => void} watcher called after changes, at most once for each picture the browser draws */
  watch(watcher) {
    this.#watchers.add(watcher);
  }

  touch() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const tell = () => {
      this.#scheduled = false;
      for (const watcher of this.#watchers) watcher();
    };
    // A hidden page draws nothing, yet says in its title and to the server what changes.
    if (document.hidden) setTimeout(tell, 50);
    else requestAnimationFrame(tell);
  }

  /** Goes in, or asks to be let in. */
  async join() {
    if (this.phase !== "check") return;
    this.#joining = new AbortController();
    this.#become("joining");
    await attempt(holdAll);
    try {
      const { audio, video } = this.own.tracks;
      const settings = this.wantsEncryption ? { encrypted: true } : undefined;
      const room = await this.#client.joinRoom(this.name, { audio, video, settings, signal: this.#joining.signal });
      this.room = room;
      this.own.use(room);
      this.#follow(room);
      if (room.state === "joined") this.#arrived();
      else this.#become("waiting");
    } catch (error) {
      if (this.#joining?.signal.aborted) return;
      this.#end({ ...refusalWords(error), again: true }, "problem");
    }
  }

  /** Leaves, or gives up waiting. A moderator is asked whether it shall be over for all. */
  async leave() {
    if (this.phase === "in" && this.isModerator && (this.room?.participants.size ?? 0) > 0) {
      const answer = await askHowToLeave();
      if (answer === "all") return attempt(() => this.room?.endForAll());
      if (answer !== "leave") return;
    }
    this.#joining?.abort();
    if (this.room && this.room.state !== "ended") await attempt(() => this.room?.leave());
    else if (this.phase !== "over") this.close();
  }

  /** Once more, from the device check. */
  again() {
    this.over = null;
    this.room = null;
    this.wasEncrypted = false;
    this.panel = null;
    this.pinned = null;
    this.page = 0;
    this.own = new OwnMedia(() => this.touch());
    void this.own.start();
    this.#become("check");
  }

  /** Is gone from the page. */
  close() {
    this.#joining?.abort();
    this.own.close();
    this.#sound.close();
    if (this.room && this.room.state !== "ended") void this.room.leave().catch(() => {});
    showInAddress(null, false);
    dismissToast("lobby");
    store.set({ meeting: null });
  }

  /** Puts it aside for the lists or a Call, muted, or brings it back. @param {boolean} aside */
  async setAside(aside) {
    if (this.isAside === aside) return;
    this.isAside = aside;
    this.touch();
    store.touch();
    if (aside) {
      if (this.own.isMicrophoneOn && this.phase === "in") await attempt(() => this.own.toggleMicrophone());
    } else {
      await attempt(holdAll);
    }
  }

  /** @param {Panel} panel closes it when it is open */
  togglePanel(panel) {
    this.panel = this.panel === panel ? null : panel;
    if (this.panel === "chat") this.unread = 0;
    for (const key of ["chat", "lobby"]) dismissToast(key);
    this.touch();
  }

  toggleLayout() {
    const isLarge = this.pinned !== null || this.layout === "speaker" || (this.isScreenShared && !this.isScreenSmall);
    this.pinned = null;
    this.layout = isLarge ? "grid" : "speaker";
    this.isScreenSmall = isLarge;
    this.touch();
    announce(isLarge ? "Everybody is shown alike" : "Who speaks is shown large");
  }

  get isScreenShared() {
    return [...(this.room?.participants.values() ?? [])].some((one) => one.track("screen"));
  }

  /** @param {string | null} key of a tile */
  pin(key) {
    this.pinned = this.pinned === key ? null : key;
    this.touch();
  }

  /** @param {number} page */
  turnTo(page) {
    this.page = page;
    this.touch();
  }

  /** @param {string} text @param {Participant[]} [to] */
  async say(text, to) {
    await this.room?.sendChat(text, to);
  }

  async toggleHand() {
    const { room } = this;
    if (!room) return;
    const up = room.local.handAt === null;
    await attempt(() => room.raiseHand(up));
    announce(up ? "Your hand is up" : "Your hand is down");
  }

  /** @param {string} reaction */
  async react(reaction) {
    const { room } = this;
    if (!room) return;
    this.#showReaction(room.local, reaction);
    await attempt(() => room.react(reaction));
  }

  /** Asks who else shall come. */
  invite() {
    openInvite(this);
  }

  async copyLink() {
    const link = meetingLink(this.name, Boolean(this.room?.isEncrypted));
    try {
      await navigator.clipboard.writeText(link);
      toast("Link copied", "Whoever opens it comes here.", { key: "link" });
    } catch {
      toast("The link", link, { key: "link", stays: true });
    }
  }

  /** Does what a person asked the Room for. @param {(room: Room) => Promise<unknown>} run */
  command(run) {
    const { room } = this;
    return room ? attempt(() => run(room)) : Promise.resolve();
  }

  /** @param {Room} room */
  #follow(room) {
    /** Whether somebody's coming and going is news, and not the way a Room is learned of. */
    const isSettled = () => this.phase === "in" && room.connectionState === "connected";

    room.on("changed", () => this.touch());
    room.on("stateChanged", (state) => {
      if (state === "joined") this.#arrived();
      else if (state === "waiting") this.#become("waiting");
    });
    room.on("audio", (streams) => this.#sound.play(streams));
    room.on("participantJoined", ({ name }) => isSettled() && this.#tellNews("joined", name));
    room.on("participantLeft", ({ name, line }, _, phone) => {
      const told = line === "ringing" ? unansweredWords(name, phone) : null;
      if (told) toast(told.title, told.detail, { tone: "warning", key: `phone-${name}` });
      else if (isSettled()) this.#tellNews("left", name);
    });
    const hands = new Map();
    room.on("participantChanged", (participant) => {
      const before = hands.get(participant.id) ?? null;
      hands.set(participant.id, participant.handAt);
      if (participant !== room.local && !before && participant.handAt)
        announce(`${participant.name} raised their hand`);
    });
    room.on("chat", (message) => {
      if (message.from.participant === room.local.id || this.panel === "chat") return;
      this.unread += 1;
      announce(`${message.from.name} writes: ${message.text}`);
      const action = { label: "Read", run: () => this.panel !== "chat" && this.togglePanel("chat") };
      toast(message.from.name, shortened(message.text), { key: "chat", action });
    });
    room.on(
      "reaction",
      ({ participant, reaction }) => participant !== room.local && this.#showReaction(participant, reaction),
    );
    room.on("lobby", (waiting) => this.#tellLobby(waiting));
    room.on("muted", ({ source }, by) => {
      this.own.wasMuted(source);
      const what = source === "microphone" ? "microphone" : source === "camera" ? "camera" : "screen";
      if (by)
        toast(`Your ${what} was switched off`, `${by.name} did it. You can switch it on again.`, {
          tone: "warning",
          key: `muted-${what}`,
        });
      else if (what === "microphone")
        toast("You listen", "A moderator can let you speak. Raise your hand to ask.", { key: "listener" });
    });
    room.on("halted", () =>
      announce("The meeting is no longer encrypted. You are not seen or heard until you go on", "assertive"),
    );
    let { isEncrypted } = room;
    room.on("settings", () => {
      const isOver = isEncrypted && !room.isEncrypted;
      isEncrypted = room.isEncrypted;
      if (!isOver) return;
      showInAddress(this.name, false);
      if (room.isHalted) return;
      const detail = "You have switched it off. The others are asked whether they go on.";
      toast("No longer encrypted", detail, { tone: "warning", key: "encryption" });
    });
    room.on("connection", (state) => {
      if (state === "connected") announce("Connected to the meeting");
      else if (state === "reconnecting") announce("The connection to the meeting was lost", "assertive");
    });
    room.on("asked", ({ source }, by) => {
      if (source !== "microphone") return;
      const action = { label: "Unmute", run: () => void attempt(() => this.own.isMicrophoneOn || this.own.toggleMicrophone()) };
      toast(`${by?.name ?? "Somebody"} asks you to speak`, "You are muted.", { key: "asked", action });
    });
    room.on("ended", ({ reason }) => {
      if (reason === "call") return this.#becomeCall();
      if (reason !== "aborted")
        this.#end(endWords(reason), reason === "left" || reason === "ended" ? "ended" : "problem");
    });
    room.on("error", (error) => {
      const words = refusalWords(error);
      toast(words.title, words.detail, { tone: "warning", key: `room-${error.code}` });
    });
  }

  #arrived() {
    const { room } = this;
    if (!room) return;
    this.#sound.play(room.audio);
    this.wasEncrypted ||= room.isEncrypted;
    if (room.isEncrypted) showInAddress(this.name, true);
    if (this.phase === "in") return;
    this.#become("in");
    playCue("connected");
    announce(`You are in the meeting, with ${people(room.participants.size)}`, "assertive");
    // What was switched while the answer was on its way.
    const { audio, video } = this.own.tracks;
    const { local } = room;
    void attempt(async () => {
      if (local.track("microphone")?.sent !== audio) await local.setMicrophone(audio ?? false);
      if (local.track("camera")?.sent !== video) await local.setCamera(video);
    });
  }

  /** Two are left, and go on as a Call with the same devices. */
  #becomeCall() {
    this.own.handOver();
    announce("The meeting goes on as a call");
    this.close();
  }

  /** @param {NonNullable<Meeting["over"]>} words @param {"ended" | "problem"} cue */
  #end(words, cue) {
    this.over = words;
    this.own.close();
    this.#sound.close();
    dismissToast("lobby");
    playCue(cue);
    announce(`${words.title}. ${words.detail}`, "assertive");
    this.#become("over");
  }

  /** @param {Phase} phase */
  #become(phase) {
    this.phase = phase;
    this.touch();
    store.touch();
  }

  /** @param {Participant} participant @param {string} reaction */
  #showReaction(participant, reaction) {
    this.reactions.set(participant.id, reaction);
    if (participant !== this.room?.local) announce(`${participant.name}: ${reaction}`);
    this.touch();
    setTimeout(() => {
      if (this.reactions.get(participant.id) === reaction) this.reactions.delete(participant.id);
      this.touch();
    }, REACTION_MS);
  }

  /** @param {"joined" | "left"} kind @param {string} name */
  #tellNews(kind, name) {
    this.#news[kind].push(name);
    clearTimeout(this.#newsTimer);
    this.#newsTimer = window.setTimeout(() => {
      const { joined, left } = this.#news;
      this.#news = { joined: [], left: [] };
      const words = [said(joined, "came in"), said(left, "left")].filter(Boolean);
      announce(words.join(". "));
    }, BREATH_MS);
  }

  /** @param {import("../../client/index.js").Waiting[]} waiting */
  #tellLobby(waiting) {
    if (waiting.length === 0) return dismissToast("lobby");
    if (this.panel === "people") return;
    const [first] = waiting;
    const title = waiting.length === 1 ? `${first.name} wants to come in` : `${people(waiting.length)} want to come in`;
    const letIn = { label: "Let in", run: () => void this.command((room) => room.admit([first.waiting])) };
    const look = { label: "Look", run: () => this.panel !== "people" && this.togglePanel("people") };
    toast(title, "", { key: "lobby", action: waiting.length === 1 ? letIn : look });
  }
}

/** @returns {Promise<string>} `leave`, `all`, or nothing */
function askHowToLeave() {
  return openDialog({ title: "Leave the meeting?", test: "leave-dialog", class: "narrow" }, (close) => [
    h("p", null, "The others go on without you, unless you end it for everybody."),
    h(
      "div",
      { class: "dialog-actions" },
      h(
        "button",
        { class: "button", type: "button", data: { test: "end-for-all" }, on: { click: () => close("all") } },
        "End for everybody",
      ),
      h(
        "button",
        { class: "button primary", type: "button", data: { test: "leave-only" }, on: { click: () => close("leave") } },
        "Leave",
      ),
    ),
  ]);
}

/** @param {string[]} names @param {string} verb */
function said(names, verb) {
  if (names.length === 0) return "";
  return names.length <= 2 ? `${names.join(" and ")} ${verb}` : `${people(names.length)} ${verb}`;
}

/** @param {string} text */
function shortened(text) {
  return text.length > 120 ? `${text.slice(0, 119)}…` : text;
}
