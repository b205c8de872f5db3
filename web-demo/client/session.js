import { OffhookError } from "./errors.js";
import { drop, isReachable, openSocket } from "./socket.js";
import { ulid } from "./ulid.js";

/**
 * @import { Socket } from "./socket.js"
 * @import { ConnectionState, Welcome } from "./types.js"
 */

/** `hello` must be answered within this; the server waits as long for ours. */
const WELCOME_TIMEOUT_MS = 10_000;
/** The document allows 16 frames or 2 s; a second leaves room for a slow timer. */
const ACK_FRAMES = 16;
const ACK_DELAY_MS = 1_000;
const PING_IN_CALL_MS = 5_000;
/** A timer that is so late slept with the machine; it takes more than a busy page, or a tab in the background. */
const SLEPT_MS = 90_000;
/** How long a socket may stay silent once the network is known to have changed. */
const PROBE_MS = 2_500;
const OUTBOX_FRAMES_MAX = 256;
const OUTBOX_BYTES_MAX = 256 * 1024;
const BACKOFF_FIRST_MS = 250;
const BACKOFF_MAX_MS = 15_000;
/** In a Call people wait for the other side to come back, so the pauses stay short. */
const BACKOFF_IN_CALL_MAX_MS = 1_500;

/** A command that the server had no time for is sent again after a pause, so often. */
const REFUSED_PAUSE_MS = 1_000;
const REFUSALS_MAX = 3;

/** Answers to `hello` after which trying again with the same token cannot help. */
const REFUSALS = new Set(["unauthorized", "token_expired", "forbidden", "origin_refused"]);

/**
 * @typedef {object} SessionHandlers
 * @property {(state: ConnectionState, reason?: string) => void} onState
 * @property {(welcome: Welcome) => void} onWelcome what it sends goes out before commands that are sent again
 * @property {(type: string, data: any) => void} onMessage
 * @property {(error: OffhookError) => void} onError
 */

/**
 * @typedef {object} SessionOptions
 * @property {string} url
 * @property {string | (() => string | Promise<string>)} token
 * @property {{id: string, name: string, key: string}} device
 * @property {SessionHandlers} handlers
 * @property {(url: string) => Socket} [open]
 * @property {(url: string) => Promise<boolean>} [reach] asks whether the server is there, without a WebSocket
 * @property {() => number} [random]
 */

/**
 * @typedef {object} Unanswered
 * @property {string} type
 * @property {any} data
 * @property {number} refusals how often the server had no time for it
 * @property {(data: any) => void} resolve
 * @property {(error: OffhookError) => void} reject
 */

/**
 * A reliable Session over WebSockets that come and go (docs/calls.v1.md, "A Session").
 *
 * In go commands, out come promises of their answers, and messages in order, each once. What was not acknowledged is
 * sent again when the Session resumes; what was not answered is sent again when the server no longer knows it.
 */
export class Session {
  /** @type {ConnectionState} */
  state = "idle";

  #options;
  #open;
  #reach;
  #random;

  /** @type {Socket|null} the socket that carries the Session */
  #socket = null;
  /** @type {Socket|null} one that has yet to be welcomed; after a `goaway` both exist */
  #candidate = null;
  /** Counts attempts to attach, so that one that was overtaken can tell. */
  #attempt = 0;
  /** Failed attempts since the last `welcome`. */
  #failures = 0;
  /** @type {{resolve: () => void, reject: (error: OffhookError) => void}|null} the first `welcome` is awaited */
  #connecting = null;

  /** @type {{session: string, key: string}|null} */
  #resume = null;
  #seqSent = 0;
  #seqReceived = 0;
  /** @type {{seq: number, frame: Record<string, any>, bytes: number}[]} sent, not acknowledged */
  #outbox = [];
  #outboxBytes = 0;
  /** @type {Map<string, Unanswered>} by id */
  #unanswered = new Map();

  #unacknowledged = 0;
  #pingMs = 25_000;
  #pingsUnanswered = 0;
  #inCall = false;
  /** Whether the server has said that it goes away, and none has welcomed us since. */
  #isLeft = false;
  #frameBytesMax = 64 * 1024;

  /** @type {Record<"welcome"|"ack"|"ping"|"probe"|"retry"|"goaway", ReturnType<typeof setTimeout>|undefined>} */
  #timers = { welcome: undefined, ack: undefined, ping: undefined, probe: undefined, retry: undefined, goaway: undefined };

  /** @param {SessionOptions} options */
  constructor(options) {
    this.#options = options;
    this.#open = options.open ?? openSocket;
    this.#reach = options.reach ?? isReachable;
    this.#random = options.random ?? Math.random;
  }

  /**
   * Connects for the first time; from then on the Session connects again by itself until it is closed or refused.
   * @param {AbortSignal} [signal]
   * @returns {Promise<void>} rejects when the first attempt fails
   */
  connect(signal) {
    if (this.state !== "idle") return Promise.reject(new OffhookError("closed", "this Session was used before"));
    if (signal?.aborted) return Promise.reject(new OffhookError("aborted", "connecting was aborted"));

    return new Promise((resolve, reject) => {
      const abort = () => this.#end(new OffhookError("aborted", "connecting was aborted"));
      signal?.addEventListener("abort", abort);
      const done = () => signal?.removeEventListener("abort", abort);
      this.#connecting = {
        resolve: () => (done(), resolve()),
        reject: (error) => (done(), reject(error)),
      };
      this.#setState("connecting");
      this.#attach();
    });
  }

  /**
   * Sends a command, now or when the Session is attached again.
   * @param {string} type
   * @param {Record<string, any>} [data]
   * @returns {Promise<any>} the data of `ok`; rejects with the `error`
   */
  command(type, data = {}) {
    if (this.state === "idle" || this.state === "closed") {
      return Promise.reject(new OffhookError("closed", "not connected"));
    }

    return new Promise((resolve, reject) => {
      const id = ulid();
      const bytes = byteLength({ type, id, data });
      if (bytes + 64 > this.#frameBytesMax) {
        return reject(new OffhookError("too_large", `${type} has ${bytes} bytes`));
      }
      if (this.#outbox.length >= OUTBOX_FRAMES_MAX || this.#outboxBytes + bytes > OUTBOX_BYTES_MAX) {
        return reject(new OffhookError("session_overflow", "too much waits for the connection"));
      }
      this.#unanswered.set(id, { type, data, refusals: 0, resolve, reject });
      this.#sendReliable({ type, id, data }, bytes);
    });
  }

  /** Ends the Session at once: the server forgets it, what was not answered is rejected with `closed`. */
  close() {
    if (this.state === "closed") return;
    if (this.#socket) this.#send(this.#socket, { type: "bye", id: ulid() });
    this.#end(new OffhookError("closed", "the Session was closed"));
  }

  /** In a Call a dead socket is noticed sooner. @param {boolean} inCall */
  setInCall(inCall) {
    if (this.#inCall === inCall) return;
    this.#inCall = inCall;
    if (this.#socket) this.#schedulePing();
  }

  /** To be called when the network may have changed: finds out soon whether the socket still lives. */
  probe() {
    if (this.#socket) {
      this.#send(this.#socket, { type: "ping", id: ulid() });
      this.#timers.probe ??= setTimeout(() => this.#giveUp(), PROBE_MS);
    } else if (this.state === "reconnecting" && !this.#candidate) {
      this.#attach();
    }
  }

  /** Opens a socket and says `hello` on it. The present socket, if any, stays in use until the `welcome`. */
  async #attach() {
    clearTimeout(this.#timers.retry);
    clearTimeout(this.#timers.goaway);
    clearTimeout(this.#timers.welcome);
    if (this.#candidate) drop(this.#candidate);
    this.#candidate = null;
    const attempt = ++this.#attempt;
    this.#timers.welcome = setTimeout(() => {
      this.#attachFailed(new OffhookError("network", "the server did not answer in time"));
    }, WELCOME_TIMEOUT_MS);
    /** @type {string} */
    let token;
    /** @type {Socket} */
    let socket;
    try {
      if (this.#shouldReach() && !(await this.#reach(this.#options.url))) {
        throw new OffhookError("network", "the server cannot be reached");
      }
      // Asking for a token takes the network too, and fails with it.
      token = typeof this.#options.token === "function" ? await this.#options.token() : this.#options.token;
      if (attempt !== this.#attempt) return;
      socket = this.#open(this.#options.url);
    } catch (error) {
      if (attempt === this.#attempt) this.#attachFailed(OffhookError.from(error, "network"));
      return;
    }

    this.#candidate = socket;
    socket.onopen = () => {
      const resume = this.#resume ? { ...this.#resume, ack: this.#seqReceived } : undefined;
      socket.send(JSON.stringify({ type: "hello", id: ulid(), data: { token, device: this.#options.device, resume } }));
    };
    socket.onmessage = ({ data }) => this.#receive(socket, data);
    socket.onclose = ({ code, reason }) => this.#closedByServer(socket, code, reason);
  }

  /**
   * Firefox lets WebSockets to an address that failed wait longer and longer, up to a minute, whatever we do. So once two
   * have failed, ordinary requests find out when the server is back; now and then a socket tries all the same, for a page
   * whose security policy allows nothing else.
   */
  #shouldReach() {
    return this.#failures >= 2 && this.#failures % 8 !== 0;
  }

  /** @param {OffhookError} error */
  #attachFailed(error) {
    clearTimeout(this.#timers.welcome);
    if (this.#candidate) drop(this.#candidate);
    this.#candidate = null;
    this.#attempt++;
    this.#failures++;

    // A token function may bring a fresh token, once; a fixed one stays expired.
    const renewable = error.code === "token_expired" && typeof this.#options.token === "function" && this.#failures < 3;
    const isFinal = this.#connecting !== null || REFUSALS.has(error.code);
    if (isFinal && !renewable) this.#end(error);
    else this.#retry(error.code);
  }

  /** @param {string} reason */
  #retry(reason) {
    clearTimeout(this.#timers.retry);
    if (!this.#socket && !this.#connecting) this.#setState("reconnecting", this.#isLeft ? "goaway" : reason);
    this.#timers.retry = setTimeout(() => this.#attach(), this.#backoff());
  }

  /** The first try comes almost at once; later ones are spread, so that a restarted server is not run over. */
  #backoff() {
    const most = this.#inCall ? BACKOFF_IN_CALL_MAX_MS : BACKOFF_MAX_MS;
    const pause = Math.min(most, BACKOFF_FIRST_MS * 2 ** this.#failures);
    return this.#failures === 0 ? this.#random() * BACKOFF_FIRST_MS : pause * (0.5 + this.#random() / 2);
  }

  /** @param {Socket} socket @param {number} code @param {string} reason */
  #closedByServer(socket, code, reason) {
    const error = new OffhookError(code === 4003 ? "unauthorized" : "network", reason || `connection closed (${code})`);
    if (socket === this.#candidate) return this.#attachFailed(error);
    if (socket !== this.#socket) return;

    this.#isLeft ||= code === 1001;
    this.#detach();
    // With a successor on its way (goaway) its welcome is next; the server merely closed the old one first.
    if (this.#candidate) return;
    if (code === 4001) this.#end(new OffhookError("closed", "this Session is used elsewhere"));
    else this.#retry(error.code);
  }

  /** Gives up a socket that fell silent, without waiting for a closing handshake that cannot come. */
  #giveUp() {
    this.#detach();
    if (!this.#candidate) this.#retry("network");
  }

  /** @param {number} [code] */
  #detach(code) {
    if (this.#socket) drop(this.#socket, code);
    this.#socket = null;
    for (const name of /** @type {const} */ (["ack", "ping", "probe", "goaway"])) {
      clearTimeout(this.#timers[name]);
      this.#timers[name] = undefined;
    }
  }

  /** @param {OffhookError} error why; every open promise is rejected with it */
  #end(error) {
    this.#attempt++;
    clearTimeout(this.#timers.welcome);
    clearTimeout(this.#timers.retry);
    this.#detach(1000);
    if (this.#candidate) drop(this.#candidate, 1000);
    this.#candidate = null;
    this.#resume = null;

    const unanswered = [...this.#unanswered.values()];
    this.#unanswered.clear();
    const connecting = this.#connecting;
    this.#connecting = null;
    this.#setState("closed", error.code);
    connecting?.reject(error);
    for (const command of unanswered) command.reject(error);
  }

  /** @param {Socket} socket @param {any} text */
  #receive(socket, text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return this.#closeWrong(socket, 4000);
    }

    if (socket === this.#candidate) {
      if (frame.type === "welcome") this.#welcomed(socket, frame.data);
      else if (frame.type === "error") this.#attachFailed(errorOf(frame.data));
      return;
    }

    this.#pingsUnanswered = 0;
    clearTimeout(this.#timers.probe);
    this.#timers.probe = undefined;
    if (typeof frame.ack === "number") this.#acknowledged(frame.ack);
    if (typeof frame.seq === "number") {
      if (frame.seq <= this.#seqReceived) return;
      if (frame.seq > this.#seqReceived + 1) return this.#closeWrong(socket, 4002);
      this.#seqReceived = frame.seq;
      this.#oweAck(socket);
    }
    this.#dispatch(socket, frame);
  }

  /** @param {Socket} socket @param {{type: string, reply_to?: string, data?: any}} frame */
  #dispatch(socket, { type, reply_to, data = {} }) {
    switch (type) {
      case "ok":
      case "error": {
        const id = reply_to ?? "";
        const command = this.#unanswered.get(id);
        if (!command) {
          if (type === "error") this.#options.handlers.onError(errorOf(data));
          return;
        }
        if (data.code === "rate_limited" && this.#tryLater(id, command)) return;
        this.#unanswered.delete(id);
        return type === "ok" ? command.resolve(data) : command.reject(errorOf(data));
      }
      case "ping":
        return this.#send(socket, { type: "pong", id: ulid() });
      case "goaway":
        this.#isLeft = true;
        // The latter half of the time is kept for attempts that fail.
        this.#timers.goaway ??= setTimeout(() => this.#attach(), (this.#random() * (data.in_ms ?? 0)) / 2);
        return;
      case "pong":
      case "ack":
        return;
      default:
        return this.#options.handlers.onMessage(type, data);
    }
  }

  /**
   * Nothing was done for a command that came too fast: it goes out again, but an invite is for people to repeat.
   * @param {string} id @param {Unanswered} command
   */
  #tryLater(id, command) {
    if (command.type === "call.invite" || ++command.refusals > REFUSALS_MAX) return false;
    const frame = { type: command.type, id, data: command.data };
    setTimeout(() => this.#unanswered.has(id) && this.#sendReliable(frame, byteLength(frame)), REFUSED_PAUSE_MS);
    return true;
  }

  /** @param {Socket} socket @param {Welcome} welcome */
  #welcomed(socket, welcome) {
    clearTimeout(this.#timers.welcome);
    this.#detach(1000);
    this.#socket = socket;
    this.#candidate = null;
    this.#failures = 0;
    this.#isLeft = false;
    this.#resume = { session: welcome.session, key: welcome.key };
    this.#pingMs = welcome.ping_ms ?? this.#pingMs;
    this.#frameBytesMax = welcome.limits?.frame_bytes_max ?? this.#frameBytesMax;
    this.#schedulePing();

    /** @type {[string, Unanswered][]} */
    let again = [];
    if (welcome.resumed) {
      this.#acknowledged(welcome.ack);
      for (const { frame } of this.#outbox) this.#send(socket, frame);
    } else {
      again = this.#startOver();
    }
    this.#options.handlers.onWelcome(welcome); // first: who hears of `connected` may ask who we are
    this.#setState("connected");
    for (const [id, command] of again) {
      const frame = { type: command.type, id, data: command.data };
      this.#unanswered.set(id, command);
      this.#sendReliable(frame, byteLength(frame));
    }
    this.#connecting?.resolve();
    this.#connecting = null;
  }

  /** The server knows nothing of us: count from 1 again. Returns the commands to send again. */
  #startOver() {
    this.#seqSent = 0;
    this.#seqReceived = 0;
    this.#unacknowledged = 0;
    this.#outbox = [];
    this.#outboxBytes = 0;
    const unanswered = [...this.#unanswered];
    this.#unanswered = new Map();
    // A call.sync holds what was true at the last start; the owner sends a new one.
    for (const [, { type, reject }] of unanswered) {
      if (type === "call.sync") reject(new OffhookError("network", "the Session was lost again"));
    }
    return unanswered.filter(([, { type }]) => type !== "call.sync");
  }

  /** @param {Record<string, any>} frame @param {number} bytes */
  #sendReliable(frame, bytes) {
    const seq = ++this.#seqSent;
    const sent = { ...frame, seq };
    this.#outbox.push({ seq, frame: sent, bytes });
    this.#outboxBytes += bytes;
    if (this.#socket) this.#send(this.#socket, sent);
  }

  /** @param {number} ack */
  #acknowledged(ack) {
    while (this.#outbox.length && this.#outbox[0].seq <= ack) {
      this.#outboxBytes -= /** @type {{bytes: number}} */ (this.#outbox.shift()).bytes;
    }
  }

  /** Every frame carries the `ack`, so sending anything settles what we owe. @param {Socket} socket @param {Record<string, any>} frame */
  #send(socket, frame) {
    if (socket.readyState !== 1) return;
    socket.send(JSON.stringify({ ...frame, ack: this.#seqReceived }));
    this.#unacknowledged = 0;
    clearTimeout(this.#timers.ack);
    this.#timers.ack = undefined;
  }

  /** @param {Socket} socket */
  #oweAck(socket) {
    const ack = () => this.#send(socket, { type: "ack", id: ulid() });
    if (++this.#unacknowledged >= ACK_FRAMES) return ack();
    this.#timers.ack ??= setTimeout(ack, ACK_DELAY_MS);
  }

  #schedulePing() {
    clearTimeout(this.#timers.ping);
    const pause = this.#inCall ? Math.min(PING_IN_CALL_MS, this.#pingMs) : this.#pingMs;
    const due = Date.now() + pause;
    this.#timers.ping = setTimeout(() => {
      if (!this.#socket) return;
      const hasSlept = Date.now() - due > SLEPT_MS;
      if (this.#pingsUnanswered >= 2 && !hasSlept) return this.#giveUp();
      this.#pingsUnanswered++;
      if (hasSlept) this.probe();
      else this.#send(this.#socket, { type: "ping", id: ulid() });
      this.#schedulePing();
    }, pause);
  }

  /** Closes because the other side broke the protocol, then resumes: what is missing comes again. @param {Socket} socket @param {number} code */
  #closeWrong(socket, code) {
    if (socket === this.#candidate) {
      return this.#attachFailed(new OffhookError("bad_frame", "the server sent something that is not calls.v1"));
    }
    this.#detach(code);
    this.#failures++;
    if (!this.#candidate) this.#retry(code === 4002 ? "wrong_sequence" : "bad_frame");
  }

  /** @param {ConnectionState} state @param {string} [reason] */
  #setState(state, reason) {
    if (this.state === state) return;
    this.state = state;
    this.#options.handlers.onState(state, reason);
  }
}

/** @param {{code?: string, message?: string}} data */
function errorOf({ code = "internal", message, ...details }) {
  return new OffhookError(code, message, details);
}

/** @param {unknown} value */
function byteLength(value) {
  return new TextEncoder().encode(JSON.stringify(value)).length;
}
