/** @typedef {"audio"|"video"} MediaKind */

const KINDS = /** @type {const} */ (["audio", "video"]);

/**
 * What one Call sends and shows: one audio and one video sender, and one MediaStream of the other side that stays
 * the same object as long as the Call lives, so that a page may give it to a <video> once.
 */
export class Media {
  /** @type {Record<"audio"|"video"|"screen", MediaStreamTrack|null>} */
  tracks = { audio: null, video: null, screen: null };
  remoteStream = new MediaStream();
  /** While a Call is held, nothing is sent and nothing is heard. */
  held = false;
  /** Whether the other side is heard elsewhere meanwhile. */
  #silent = false;

  /** @param {boolean} on */
  silence(on) {
    this.#silent = on;
    for (const track of this.remoteStream.getTracks()) this.#admit(track);
  }

  /** @param {MediaStreamTrack} track */
  #admit(track) {
    track.enabled = !this.held && !(this.#silent && track.kind === "audio");
  }

  /** @param {MediaKind} kind A shared screen takes the place of the camera. */
  #wanted(kind) {
    return kind === "video" ? (this.tracks.screen ?? this.tracks.video) : this.tracks.audio;
  }

  /**
   * Makes the senders send what is wanted. The one that offers first makes both sections, so that a camera or a screen
   * can be added later without new ones; the other side fills the sections of the first offer.
   * @param {RTCPeerConnection} pc
   */
  async send(pc) {
    for (const kind of KINDS) {
      const track = this.#wanted(kind);
      const direction = track ? "sendrecv" : "recvonly";
      const transceiver = transceiverOf(pc, kind) ?? pc.addTransceiver(kind, { direction });
      // The direction tells the other side that the picture is gone, a silent sender would leave it frozen.
      if (transceiver.direction !== direction) transceiver.direction = direction;
      await transceiver.sender.replaceTrack(this.held ? null : track);
    }
  }

  /**
   * Brings `remoteStream` in line with what the other side sends now.
   * @param {RTCPeerConnection} pc
   * @returns {boolean} whether it changed
   */
  receive(pc) {
    const received = pc
      .getTransceivers()
      .filter(({ currentDirection }) => currentDirection === "sendrecv" || currentDirection === "recvonly")
      .map(({ receiver }) => receiver.track);
    const shown = this.remoteStream.getTracks();
    const added = received.filter((track) => !shown.includes(track));
    const removed = shown.filter((track) => !received.includes(track));

    for (const track of removed) this.remoteStream.removeTrack(track);
    for (const track of added) this.remoteStream.addTrack(track);
    for (const track of received) this.#admit(track);
    return added.length + removed.length > 0;
  }
}

/** @param {RTCPeerConnection} pc @param {MediaKind} kind */
function transceiverOf(pc, kind) {
  return pc.getTransceivers().find(({ receiver, direction }) => receiver.track.kind === kind && direction !== "stopped");
}
