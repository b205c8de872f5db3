/** Plays what is heard in a meeting: an element for each stream, on the chosen loudspeaker. */

import { toast } from "../announce.js";
import { applySpeaker } from "../devices.js";
import { h } from "../dom.js";

export class SoundPlayer {
  /** @type {Map<MediaStream, HTMLAudioElement>} */
  #elements = new Map();

  /** @param {MediaStream[]} streams all there are now */
  play(streams) {
    for (const [stream, element] of this.#elements) if (!streams.includes(stream)) this.#remove(stream, element);
    for (const stream of streams) if (!this.#elements.has(stream)) this.#add(stream);
  }

  close() {
    for (const [stream, element] of this.#elements) this.#remove(stream, element);
  }

  /** @param {MediaStream} stream */
  #add(stream) {
    const element = h("audio", { class: "remote-sound", autoplay: true });
    element.srcObject = stream;
    this.#elements.set(stream, element);
    document.body.append(element);
    void applySpeaker(element);
    // Browsers keep a page silent that nobody has touched yet.
    element.play().catch((error) => {
      if (error?.name !== "NotAllowedError" || !this.#elements.has(stream)) return;
      const listen = () => [...this.#elements.values()].forEach((one) => void one.play().catch(() => {}));
      toast("The browser keeps this page silent", "", {
        key: "silent",
        stays: true,
        action: { label: "Listen", run: listen },
      });
    });
  }

  /** @param {MediaStream} stream @param {HTMLAudioElement} element */
  #remove(stream, element) {
    element.srcObject = null;
    element.remove();
    this.#elements.delete(stream);
  }
}
