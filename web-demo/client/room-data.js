import { OffhookError } from "./errors.js";
import { ulidBytes, ulidText } from "./ulid.js";

/**
 * @import { Participant } from "./participant.js"
 */

/**
 * @typedef {object} DataMessage
 * @property {string} from the Participant's id
 * @property {Uint8Array} bytes
 * @property {boolean} reliable
 * @property {boolean} named whether it is for some only, of whom this is one
 */

/**
 * @typedef {object} RoomDataOptions
 * @property {() => string|null} refusal why nothing may be sent now, as an error code
 * @property {(message: DataMessage) => void} onMessage
 * @property {(reason: string) => void} onClosed the reliable channel was closed
 */

/** Both sides know these without a word; see "Data" in docs/calls.v1.md. @type {Record<"reliable"|"lossy", RTCDataChannelInit>} */
const LANES = {
  reliable: { negotiated: true, id: 0 },
  lossy: { negotiated: true, id: 1, ordered: false, maxRetransmits: 0 },
};

const PAYLOAD_MAX = 16 * 1024;
const NAMED_MAX = 64;
/** What the server lets pass per second; it lets twice as much pass at once, for what a network held up. */
const MESSAGES_PER_SECOND = 50;
const BYTES_PER_SECOND = 128 * 1024;
/** What waits here while the way to the server is slow. */
const WAITING_MAX = 1024 * 1024;

const ID_LENGTH = 16;
const MESSAGE = 1;
const CLOSED = 2;
const GO_ON = 3;
const REASONS = ["", "too_slow", "rate_limited", "forbidden", "bad_data"];

/**
 * Messages of an application to the others in a Room, over two data channels to the server. It outlives the connection:
 * a Room that joins again opens them anew.
 */
export class RoomData {
  /** Why reliable messages are neither sent nor received, until `reopen`. @type {string|null} */
  closed = null;

  #options;
  /** @type {Record<"reliable"|"lossy", RTCDataChannel>|null} */
  #channels = null;
  /** Those who wait for a channel to open. @type {Set<() => void>} */
  #waiting = new Set();
  #messages = new Bucket(MESSAGES_PER_SECOND);
  #bytes = new Bucket(BYTES_PER_SECOND);

  /** @internal @param {RoomDataOptions} options */
  constructor(options) {
    this.#options = options;
  }

  /**
   * Sends at most 16 KiB to everybody else, or to some. A reliable message arrives, in order with the others of its sender, as
   * long as nothing is `closed`; any other may get lost, and waits for nothing. Resolves when it is on its way.
   * @param {ArrayBuffer|ArrayBufferView} bytes
   * @param {{to?: Participant[], reliable?: boolean}} [options] `to`: at most 64
   */
  async send(bytes, { to = [], reliable = true } = {}) {
    const payload = ArrayBuffer.isView(bytes) ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : new Uint8Array(bytes);
    if (payload.length > PAYLOAD_MAX) throw new OffhookError("too_large", `a message has at most ${PAYLOAD_MAX} bytes`);
    if (to.length > NAMED_MAX) throw new OffhookError("too_large", `a message names at most ${NAMED_MAX} Participants`);
    const message = new Uint8Array(2 + to.length * ID_LENGTH + payload.length);
    message.set([MESSAGE, to.length]);
    to.forEach(({ id }, index) => message.set(ulidBytes(id), 2 + index * ID_LENGTH));
    message.set(payload, 2 + to.length * ID_LENGTH);

    const channel = await this.#opened(reliable ? "reliable" : "lossy");
    const refusal = this.#options.refusal();
    if (refusal) throw new OffhookError(refusal, "nothing may be sent here now");
    if (reliable && this.closed) throw new OffhookError("data_closed", `closed: ${this.closed}; reopen() goes on`);
    const waits = channel.bufferedAmount + message.length > WAITING_MAX;
    if (waits || !this.#messages.takes(1) || !this.#bytes.takes(message.length)) {
      throw new OffhookError("rate_limited", "more than the server passes on");
    }
    channel.send(message);
  }

  /** Goes on after reliable messages were lost. */
  async reopen() {
    if (!this.closed) return;
    const channel = await this.#opened("reliable");
    channel.send(Uint8Array.of(GO_ON));
    this.closed = null;
  }

  /** @internal @param {RTCPeerConnection} pc before its first offer */
  attach(pc) {
    this.detach();
    this.closed = null;
    const open = (/** @type {"reliable"|"lossy"} */ lane) => {
      const channel = pc.createDataChannel(lane, LANES[lane]);
      channel.binaryType = "arraybuffer";
      channel.onopen = channel.onclose = () => this.#wake();
      channel.onmessage = ({ data }) => this.#heard(lane, new Uint8Array(data));
      return channel;
    };
    this.#channels = { reliable: open("reliable"), lossy: open("lossy") };
  }

  /** @internal The connection ends. */
  detach() {
    for (const channel of Object.values(this.#channels ?? {})) channel.onopen = channel.onclose = channel.onmessage = null;
    this.#channels = null;
    this.#wake();
  }

  #wake() {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }

  /** @param {"reliable"|"lossy"} lane */
  async #opened(lane) {
    for (;;) {
      const refusal = this.#options.refusal();
      if (refusal) throw new OffhookError(refusal, "nothing may be sent here now");
      const channel = this.#channels?.[lane];
      if (channel?.readyState === "open") return channel;
      if (channel && channel.readyState !== "connecting") throw new OffhookError("data_closed", "the channel has ended");
      await new Promise((resolve) => this.#waiting.add(() => resolve(undefined)));
    }
  }

  /** @param {"reliable"|"lossy"} lane @param {Uint8Array} message */
  #heard(lane, message) {
    const [type, second] = message;
    if (type === CLOSED) {
      this.closed = REASONS[second] ?? "internal";
      this.#options.onClosed(this.closed);
    } else if (type === MESSAGE && message.length >= 2 + ID_LENGTH) {
      const from = ulidText(message.subarray(2, 2 + ID_LENGTH));
      const bytes = message.slice(2 + ID_LENGTH);
      this.#options.onMessage({ from, bytes, reliable: lane === "reliable", named: second === 1 });
    }
    // Other types are of a later version.
  }
}

/** So much per second, and as much at once after a pause. */
class Bucket {
  #perSecond;
  #filled;
  #filledAt = performance.now();

  /** @param {number} perSecond */
  constructor(perSecond) {
    this.#perSecond = this.#filled = perSecond;
  }

  /** @param {number} count */
  takes(count) {
    const now = performance.now();
    this.#filled = Math.min(this.#filled + ((now - this.#filledAt) / 1000) * this.#perSecond, this.#perSecond);
    this.#filledAt = now;
    if (this.#filled < count) return false;
    this.#filled -= count;
    return true;
  }
}
