// An RTCPeerConnection as far as negotiation goes: signaling states, implicit rollback, `negotiationneeded`, transceivers.
// It carries no media; its descriptions hold a fingerprint, a number that tells them apart, and their sections.

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
  /** @type {any[]} */
  channels = [];
  /** Whether anything comes in. */
  carries = false;

  #transceivers = [];
  #isNeeded = false;

  constructor(configuration) {
    this.configuration = configuration;
  }

  getTransceivers() {
    return this.#transceivers;
  }

  getReceivers() {
    return this.#transceivers.map(({ receiver }) => receiver);
  }

  getConfiguration() {
    return this.configuration;
  }

  setConfiguration(configuration) {
    this.configuration = configuration;
  }

  addTransceiver(kind, { direction, sendEncodings = [{}] }) {
    const encodings = sendEncodings.map((encoding) => ({ active: true, ...encoding }));
    const sender = {
      track: null,
      encodings,
      replaceTrack: async (track) => void (sender.track = track),
      getParameters: () => ({ encodings: encodings.map((encoding) => ({ ...encoding })) }),
      setParameters: async (parameters) => void parameters.encodings.forEach((encoding, index) => Object.assign(encodings[index], encoding)),
    };
    const transceiver = { mid: null, receiver: { track: this.makeTrack(kind), getSynchronizationSources: () => (this.carries ? [{ timestamp: performance.now() }] : []) }, sender, direction, currentDirection: null };
    this.#transceivers.push(transceiver);
    this.need();
    return transceiver;
  }

  /** A channel that nobody hears; `say` lets something come by it. */
  createDataChannel(label, init) {
    const channel = { label, ...init, readyState: "connecting", bufferedAmount: 0, sent: [], send: (bytes) => void channel.sent.push(bytes) };
    channel.open = () => {
      channel.readyState = "open";
      channel.onopen?.();
    };
    channel.say = (bytes) => channel.onmessage?.({ data: Uint8Array.from(bytes).buffer });
    this.channels.push(channel);
    return channel;
  }

  /** What a receiver has before anything comes in; a page brings tracks that show something. */
  makeTrack(kind) {
    return { kind };
  }

  /** Says this of itself. */
  become(state) {
    this.connectionState = state;
    this.onconnectionstatechange?.();
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
    this.#transceivers.forEach((transceiver, index) => (transceiver.mid ??= String(index)));
    this.localDescription = { type, sdp: this.#sdp() };
    if (type === "answer") this.#agree();
    this.#become(type === "offer" ? "have-local-offer" : "stable");
  }

  async setRemoteDescription({ type, sdp }) {
    await null;
    if (type === "answer" && this.signalingState !== "have-local-offer") throw new DOMException("no offer", "InvalidStateError");
    this.remoteDescription = { type, sdp };
    if (type === "answer") this.#agree();
    this.#become(type === "offer" ? "have-remote-offer" : "stable");
  }

  async addIceCandidate(candidate) {
    this.candidates.push(candidate);
  }

  close() {
    this.closed = true;
  }

  #sdp() {
    const sections = this.#transceivers.map(({ mid, direction, receiver: { track } }) => {
      return `m=${track.kind} 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:${mid}\r\na=${direction}\r\n`;
    });
    return `v=0\r\na=fingerprint:${FakeConnection.fingerprint}\r\na=number:${++descriptions}\r\n${sections.join("")}`;
  }

  #agree() {
    this.#isNeeded = false;
    for (const transceiver of this.#transceivers) transceiver.currentDirection = transceiver.direction;
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
