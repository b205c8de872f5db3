import { checkSignature, fingerprintsOf, sdpText } from "./code.js";
import { OffhookError } from "./errors.js";
import { Media } from "./media.js";
import { newestIn } from "./stats.js";

/**
 * @import { Device } from "./device.js"
 * @import { Command, MediaState } from "./types.js"
 */

const CANDIDATES_AT_ONCE = 32;
/** Long enough to gather what comes in one burst, too short to be noticed. */
const CANDIDATES_DELAY_MS = 20;
/** Candidates kept while the description they belong to is on its way. */
const CANDIDATES_EARLY_MAX = 256;
/** An offer whose answer got lost is sent again after this. */
const ANSWER_TIMEOUT_MS = 10_000;
/** A path that went quiet often comes back by itself. */
const QUIET_MS = 3_000;
/** How long no way is found before the media counts as failed. It is looked for all the same. */
const SEARCH_MS_MAX = 30_000;
/** ICE restarts in a row without success after which there is a pause before each. */
const RESTARTS_QUICK = 3;
const RESTART_PAUSE_MS = 10_000;

/**
 * @typedef {object} PeerOptions
 * @property {string} call
 * @property {Device} device
 * @property {Command} command
 * @property {() => RTCConfiguration} configuration
 * @property {() => void} onChange the state changed
 * @property {(stream: MediaStream) => void} onStream the tracks of the other side changed
 * @property {(error: OffhookError) => void} onFailure the other side cannot be trusted, or negotiation failed
 */

/**
 * The media connection of one Call: perfect negotiation with the callee polite, generations, trickled candidates in
 * batches, ICE restarts. It knows nothing of the WebSocket: while that is away, messages wait and media goes on.
 *
 * Everything that touches the RTCPeerConnection runs in one queue, so no step meets another halfway.
 */
export class Peer {
  media = new Media();
  /** @type {MediaState} */
  state = "new";

  #options;
  /** @type {RTCPeerConnection|null} */
  #pc = null;
  #closed = false;
  #isCaller = false;
  #key = "";
  /** @type {() => void} */
  #begin = () => {};
  /** @type {Promise<void>} what arrives before the start waits in it */
  #queue = new Promise((resolve) => (this.#begin = resolve));

  /** The highest generation of an offer sent or seen. */
  #generation = 0;
  /** That of our offer that waits for its answer; 0 when none does. */
  #generationOffered = 0;
  /** That of our last description, which candidates go with. */
  #generationLocal = 0;
  /** That of the last offer heard, and of the last description applied. */
  #generationHeard = 0;
  #generationRemote = 0;
  /** @type {any} an offer that lost against ours, in case ours is refused */
  #offerIgnored = null;
  /** @type {string[]} what the other side's last description carried */
  #fingerprints = [];
  /** @type {string|null} the one it showed for the code */
  #fingerprintShown = null;

  /** @type {RTCIceCandidate[]} */
  #candidatesOut = [];
  #gatheringDone = false;
  /** While a description is being made, for candidates must not overtake it. */
  #describing = false;
  /** @type {{generation: number, candidates: any[]}[]} */
  #candidatesEarly = [];

  #wasConnected = false;
  #restarts = 0;
  /** @type {Record<"candidates"|"answer"|"quiet"|"search", ReturnType<typeof setTimeout>|undefined>} */
  #timers = { candidates: undefined, answer: undefined, quiet: undefined, search: undefined };

  /** @param {PeerOptions} options */
  constructor(options) {
    this.#options = options;
  }

  /** @param {{certificate: RTCCertificate, isCaller: boolean, key: string}} start `key` is the other Device's */
  start({ certificate, isCaller, key }) {
    if (this.#closed || this.#pc) return;
    this.#isCaller = isCaller;
    this.#key = key;
    const pc = new RTCPeerConnection({
      ...this.#options.configuration(),
      bundlePolicy: "max-bundle",
      certificates: [certificate],
    });
    this.#pc = pc;
    pc.onnegotiationneeded = () => this.#enqueue(() => this.#negotiate(pc));
    pc.onicecandidate = ({ candidate }) => this.#gathered(candidate);
    pc.onconnectionstatechange = () => this.#connectionChanged(pc);
    this.#begin();
    // Only the caller opens with an offer; the callee's tracks fill its sections. That saves a collision.
    if (isCaller) this.sendMedia();
    this.#search();
  }

  /** Sends what `media` says now. */
  sendMedia() {
    return this.#enqueue(async (pc) => {
      const isBeforeFirstOffer = !this.#isCaller && !pc.remoteDescription;
      if (!isBeforeFirstOffer) await this.media.send(pc);
      this.media.receive(pc);
    });
  }

  /** @param {boolean} held */
  hold(held) {
    if (this.media.held === held) return;
    this.media.held = held;
    this.sendMedia();
  }

  /** When sound or pictures of the other side came through last; 0: never. @param {"audio"|"video"} kind */
  arrivedAt(kind) {
    const receivers = this.#pc?.getReceivers() ?? [];
    return Math.max(0, ...receivers.filter(({ track }) => track.kind === kind).map(newestIn));
  }

  /** @param {string} type @param {any} data */
  handle(type, data) {
    this.#enqueue(async (pc) => {
      if (type === "sdp.offer") await this.#onOffer(pc, data);
      else if (type === "sdp.answer") await this.#onAnswer(pc, data);
      else if (type === "ice.candidates") await this.#onCandidates(pc, data);
      else if (type === "ice.restart") await this.#renew(pc);
    });
  }

  /**
   * From now on every description must carry this fingerprint. Throws `fingerprint_mismatch` when the last one did not.
   * @param {string} fingerprint
   */
  expectFingerprint(fingerprint) {
    this.#fingerprintShown = fingerprint.toLowerCase();
    this.#checkFingerprints();
  }

  /** Messages may have been lost: repeats what is open and mends what does not flow. */
  resync() {
    this.#enqueue(async (pc) => {
      if (pc.signalingState === "have-local-offer") await this.#sendOffer(pc);
      else if (pc.connectionState !== "connected") this.#askRestart(pc);
    });
  }

  /** Looks for new paths, for instance after a change of network. */
  restart() {
    this.#restarts = 0;
    if (this.state === "failed") this.#search();
    this.#enqueue(async (pc) => this.#askRestart(pc));
  }

  /** The next ICE restart uses what the client's configuration says now. */
  configure() {
    this.#enqueue(async (pc) => pc.setConfiguration({ ...pc.getConfiguration(), ...this.#options.configuration() }));
  }

  async stats() {
    return this.#pc ? this.#pc.getStats() : null;
  }

  close() {
    this.#closed = true;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    if (!this.#pc) return;
    this.#pc.onnegotiationneeded = this.#pc.onicecandidate = this.#pc.onconnectionstatechange = null;
    this.#pc.close();
  }

  /** @param {(pc: RTCPeerConnection) => Promise<void>} step */
  #enqueue(step) {
    return (this.#queue = this.#queue.then(async () => {
      if (this.#closed || !this.#pc) return;
      try {
        await step(this.#pc);
      } catch (error) {
        // A step cut short by close() failed because of it.
        if (!this.#closed) this.#options.onFailure(OffhookError.from(error, "media_failed"));
      }
    }));
  }

  /** @param {RTCPeerConnection} pc */
  async #negotiate(pc) {
    // Not stable: the browser asks again once it is.
    if (pc.signalingState !== "stable") return;
    this.#describing = true;
    await pc.setLocalDescription();
    await this.#sendOffer(pc);
  }

  /**
   * Sends the present local offer under a new generation. Sending the same description twice does no harm, while
   * rolling back and making another would number its sections anew.
   * @param {RTCPeerConnection} pc
   */
  async #sendOffer(pc) {
    const generation = ++this.#generation;
    this.#generationOffered = generation;
    this.#sendDescription(pc, "offer", generation, await this.#signed(pc, "offer", generation));
    clearTimeout(this.#timers.answer);
    this.#timers.answer = setTimeout(() => {
      this.#enqueue(async () => {
        if (pc.signalingState === "have-local-offer") await this.#sendOffer(pc);
      });
    }, ANSWER_TIMEOUT_MS);
  }

  /** @param {RTCPeerConnection} pc @param {"offer"|"answer"} kind @param {number} generation */
  async #signed(pc, kind, generation) {
    const { sdp } = /** @type {RTCSessionDescription} */ (pc.localDescription);
    const { call, device } = this.#options;
    return { call, generation, sdp, signature: await device.sign(sdpText(call, generation, kind, sdp)) };
  }

  /** @param {RTCPeerConnection} pc @param {"offer"|"answer"} kind @param {number} generation @param {object} data */
  #sendDescription(pc, kind, generation, data) {
    this.#options.command(`sdp.${kind}`, data).catch((error) => {
      if (error.code === "stale_generation" && kind === "offer") {
        this.#enqueue(() => this.#offerRefused(pc, generation));
      } else {
        this.#refused(error);
      }
    });
    this.#generationLocal = generation;
    this.#describing = false;
    this.#flushCandidates();
  }

  /** Two offers crossed and the server let the other one through: take it instead. @param {RTCPeerConnection} pc @param {number} generation */
  async #offerRefused(pc, generation) {
    if (this.#generationOffered !== generation || pc.signalingState !== "have-local-offer") return;
    if (this.#offerIgnored) return this.#takeOffer(pc, this.#offerIgnored);
    this.#generationOffered = 0;
    // Back in "stable" the browser asks again for whatever this offer was about.
    await pc.setLocalDescription({ type: "rollback" });
  }

  /** @param {RTCPeerConnection} pc @param {{generation: number, sdp: string, signature: string}} offer */
  async #onOffer(pc, offer) {
    const { generation } = offer;
    if (generation <= this.#generationHeard) return;
    await this.#verify("offer", offer);

    this.#generation = Math.max(this.#generation, generation);
    const collides = pc.signalingState !== "stable";
    if (collides && this.#isCaller) this.#offerIgnored = offer;
    else await this.#takeOffer(pc, offer);
  }

  /** Applies an offer and answers it; an own one is rolled back. @param {RTCPeerConnection} pc @param {{generation: number, sdp: string}} offer */
  async #takeOffer(pc, { generation, sdp }) {
    this.#generationHeard = generation;
    this.#generationOffered = 0;
    this.#offerIgnored = null;
    clearTimeout(this.#timers.answer);
    this.#describing = true;
    try {
      await pc.setRemoteDescription({ type: "offer", sdp });
    } catch (error) {
      if (!(error instanceof DOMException) || error.name !== "InvalidAccessError") throw error;
      // Firefox refuses an offer that restarts ICE after one of its own that did not, even once that is rolled back.
      await pc.setLocalDescription(await pc.createOffer({ iceRestart: true }));
      await pc.setRemoteDescription({ type: "offer", sdp });
    }
    await this.media.send(pc);
    await pc.setLocalDescription();
    this.#sendDescription(pc, "answer", generation, await this.#signed(pc, "answer", generation));
    await this.#settled(pc, generation);
  }

  /** @param {RTCPeerConnection} pc @param {{generation: number, sdp: string, signature: string}} answer */
  async #onAnswer(pc, answer) {
    const { generation, sdp } = answer;
    if (generation !== this.#generationOffered || pc.signalingState !== "have-local-offer") return;
    await this.#verify("answer", answer);
    clearTimeout(this.#timers.answer);
    this.#generationOffered = 0;
    this.#offerIgnored = null;
    await pc.setRemoteDescription({ type: "answer", sdp });
    await this.#settled(pc, generation);
  }

  /** @param {RTCPeerConnection} pc @param {number} generation */
  async #settled(pc, generation) {
    this.#generationRemote = generation;
    if (this.media.receive(pc)) this.#options.onStream(this.media.remoteStream);
    const early = this.#candidatesEarly;
    this.#candidatesEarly = [];
    for (const batch of early) await this.#onCandidates(pc, batch);
  }

  /** @param {"offer"|"answer"} kind @param {{generation: number, sdp: string, signature: string}} description */
  async #verify(kind, { generation, sdp, signature }) {
    await checkSignature(this.#key, sdpText(this.#options.call, generation, kind, sdp), signature);
    this.#fingerprints = fingerprintsOf(sdp);
    this.#checkFingerprints();
  }

  #checkFingerprints() {
    const shown = this.#fingerprintShown;
    if (shown === null || this.#fingerprints.every((fingerprint) => fingerprint === shown)) return;
    throw new OffhookError(
      "fingerprint_mismatch",
      "the media does not come from the Device that showed its code: somebody may sit in between",
    );
  }

  /** @param {RTCIceCandidate|null} candidate */
  #gathered(candidate) {
    if (candidate?.candidate) this.#candidatesOut.push(candidate);
    else this.#gatheringDone = true;
    this.#timers.candidates ??= setTimeout(() => this.#flushCandidates(), CANDIDATES_DELAY_MS);
  }

  #flushCandidates() {
    clearTimeout(this.#timers.candidates);
    this.#timers.candidates = undefined;
    if (this.#describing) return;
    while (this.#candidatesOut.length || this.#gatheringDone) {
      const batch = this.#candidatesOut.splice(0, CANDIDATES_AT_ONCE);
      const done = this.#gatheringDone && this.#candidatesOut.length === 0;
      if (done) this.#gatheringDone = false;
      const candidates = batch.map(({ candidate, sdpMid, sdpMLineIndex, usernameFragment }) => {
        return { candidate, sdp_mid: sdpMid, sdp_m_line_index: sdpMLineIndex, username_fragment: usernameFragment };
      });
      const data = { call: this.#options.call, generation: this.#generationLocal, candidates, ...(done && { done }) };
      this.#options.command("ice.candidates", data).catch((error) => {
        // An offer of the other side came in between; these go with our answer to it.
        if (error.code === "stale_generation") this.#candidatesOut.unshift(...batch);
        else this.#refused(error);
      });
    }
  }

  /** @param {RTCPeerConnection} pc @param {{generation: number, candidates: any[]}} batch */
  async #onCandidates(pc, batch) {
    if (batch.generation > this.#generationRemote) {
      if (this.#candidatesEarly.length < CANDIDATES_EARLY_MAX) this.#candidatesEarly.push(batch);
      return;
    }
    for (const { candidate, sdp_mid, sdp_m_line_index, username_fragment } of batch.candidates) {
      try {
        await pc.addIceCandidate({
          candidate,
          sdpMid: sdp_mid,
          sdpMLineIndex: sdp_m_line_index,
          usernameFragment: username_fragment,
        });
      } catch {
        // One of an offer that was rolled back or of a path from before a restart: the others decide.
      }
    }
  }

  /** @param {RTCPeerConnection} pc */
  #askRestart(pc) {
    // The caller makes the offers of restarts, so that two of them do not cross.
    if (this.#isCaller) return this.#renew(pc);
    this.#options.command("ice.restart", { call: this.#options.call }).catch((error) => this.#refused(error));
  }

  /** @param {RTCPeerConnection} pc */
  async #renew(pc) {
    if (pc.signalingState === "have-local-offer") return this.#sendOffer(pc);
    pc.restartIce();
  }

  /** @param {RTCPeerConnection} pc */
  #connectionChanged(pc) {
    clearTimeout(this.#timers.quiet);
    if (pc.connectionState === "connected") {
      clearTimeout(this.#timers.search);
      this.#restarts = 0;
      this.#wasConnected = true;
      this.#setState("connected");
      return;
    }
    if (this.state === "connected") this.#search();
    if (pc.connectionState === "disconnected") this.#mendIn(QUIET_MS);
    else if (pc.connectionState === "failed") this.#mendIn(this.#restarts < RESTARTS_QUICK ? 0 : RESTART_PAUSE_MS);
  }

  /** There is no way to the other side, or none any more. */
  #search() {
    this.#setState(this.#wasConnected ? "reconnecting" : "connecting");
    clearTimeout(this.#timers.search);
    this.#timers.search = setTimeout(() => this.#setState("failed"), SEARCH_MS_MAX);
  }

  /** @param {number} ms */
  #mendIn(ms) {
    this.#timers.quiet = setTimeout(() => {
      this.#restarts++;
      this.#enqueue(async (pc) => this.#askRestart(pc));
    }, ms);
  }

  /** @param {OffhookError} error */
  #refused(error) {
    // Only what tells of a mistake of ours is worth a word; the rest means that the Call or the other side is gone.
    if (["bad_data", "too_large", "weak_fingerprint", "internal"].includes(error.code)) this.#options.onFailure(error);
  }

  /** @param {MediaState} state */
  #setState(state) {
    if (this.state === state || this.#closed) return;
    this.state = state;
    this.#options.onChange();
  }
}
