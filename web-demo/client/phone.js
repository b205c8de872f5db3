/**
 * @import { Call } from "./call.js"
 * @import { RemoteTrack } from "./participant.js"
 * @import { Room } from "./room.js"
 */

/**
 * What is said with a phone: the Call's Room carries it, to which the server brings the phone. It is joined while the phone
 * rings, for what it sends before the answer is heard, too. Mute and hold are the Call's; the Room follows.
 */
export class PhoneMedia {
  /** What is heard; the object stays the same. */
  remoteStream = new MediaStream();

  #call;
  /** @type {Promise<void>} one change of the microphone after the other */
  #sending = Promise.resolve();

  /** @param {{call: Call, room: Room, onChange: () => void, onStream: (stream: MediaStream) => void, onError: (error: any) => void}} options */
  constructor({ call, room, onChange, onStream, onError }) {
    this.#call = call;
    this.room = room;
    this.onStream = onStream;
    this.onError = onError;
    room.on("connection", () => onChange());
    room.on("stateChanged", () => this.send());
    room.on("trackSubscribed", (track) => this.#settle(track));
    room.on("trackUnsubscribed", (track) => this.#settle(track));
    room.on("error", (error) => onError(error));
  }

  get state() {
    return this.room.connectionState;
  }

  /** Sends what the Call says now, and lets be heard what it lets be heard. */
  send() {
    const isHeld = this.#call.heldByMe;
    for (const track of this.remoteStream.getTracks()) track.enabled = !isHeld;
    this.#sending = this.#sending.then(async () => {
      const { audio } = this.#call.sent;
      const microphone = this.room.local.track("microphone");
      if (this.room.state === "ended" || !microphone) return;
      const isOn = Boolean(audio) && !this.#call.muted && !this.#call.heldByMe;
      if (microphone.mediaTrack !== audio) await this.room.local.setMicrophone(audio);
      if (microphone.muted === isOn) await this.room.local.setMicrophone(isOn);
    });
    this.#sending = this.#sending.catch((error) => this.onError(error));
    return this.#sending;
  }

  /** The Room is left, unless it goes on without the Call. */
  close() {
    if (this.#call.end?.reason === "upgraded") return;
    this.room.leave().catch((error) => this.onError(error));
  }

  /** Brings what is heard in line with the Tracks that arrive. @param {RemoteTrack} changed */
  #settle(changed) {
    if (changed.kind !== "audio") return;
    const tracks = [...this.room.participants.values()].flatMap((one) => [...one.tracks.values()]);
    const heard = tracks.flatMap(({ kind, stream }) => (kind === "audio" && stream ? stream.getTracks() : []));
    const before = this.remoteStream.getTracks();
    for (const track of before) if (!heard.includes(track)) this.remoteStream.removeTrack(track);
    for (const track of heard) if (!before.includes(track)) this.remoteStream.addTrack(track);
    for (const track of heard) track.enabled = !this.#call.heldByMe;
    this.onStream(this.remoteStream);
  }
}
