// An RTCPeerConnection as far as negotiation goes: signaling states, implicit rollback, `negotiationneeded`. It carries
// no media; its descriptions hold a fingerprint and a number that tells them apart.

let descriptions = 0;

export class FakeConnection {
  static fingerprint = "sha-256 00:11";

  signalingState = "stable";
  connectionState = "new";
  localDescription = null;
  remoteDescription = null;
  restarts = 0;
  /** What `addIceCandidate` was called with. */
  candidates = [];
  closed = false;

  #transceivers = [];
  #isNeeded = false;

  constructor(configuration) {
    this.configuration = configuration;
  }

  getTransceivers() {
    return this.#transceivers;
  }

  addTransceiver(kind, { direction }) {
    const transceiver = { receiver: { track: { kind } }, sender: { replaceTrack: async () => {} }, direction, currentDirection: null };
    this.#transceivers.push(transceiver);
    this.need();
    return transceiver;
  }

  /** Something changed that the other side has to agree to. */
  need() {
    this.#isNeeded = true;
    queueMicrotask(() => this.#fireIfNeeded());
  }

  restartIce() {
    this.restarts++;
    this.need();
  }

  async setLocalDescription({ type = this.signalingState === "have-remote-offer" ? "answer" : "offer" } = {}) {
    await null;
    if (type === "rollback") return this.#rollback();
    this.localDescription = { type, sdp: this.#sdp() };
    if (type === "answer") this.#isNeeded = false;
    this.#become(type === "offer" ? "have-local-offer" : "stable");
  }

  async setRemoteDescription({ type, sdp }) {
    await null;
    if (type === "answer" && this.signalingState !== "have-local-offer") throw new DOMException("no offer", "InvalidStateError");
    this.remoteDescription = { type, sdp };
    if (type === "answer") this.#isNeeded = false;
    this.#become(type === "offer" ? "have-remote-offer" : "stable");
  }

  async addIceCandidate(candidate) {
    this.candidates.push(candidate);
  }

  close() {
    this.closed = true;
  }

  #sdp() {
    return `v=0\r\na=fingerprint:${FakeConnection.fingerprint}\r\na=number:${++descriptions}\r\n`;
  }

  #rollback() {
    this.localDescription = null;
    this.#become("stable");
  }

  #become(state) {
    this.signalingState = state;
    if (state === "stable") queueMicrotask(() => this.#fireIfNeeded());
  }

  #fireIfNeeded() {
    if (this.#isNeeded && this.signalingState === "stable" && !this.closed) this.onnegotiationneeded?.();
  }
}
