// WebRTC stacks we did not write, each in a process of its own as a peer that sends a plain colour and a tone and tells what it
// decodes. They are asked and answer by lines of JSON; what is asked is called `do`:
//
//   offer {sends, audio_slots, video_slots, colour}  → {sdp, tracks: [{mid, source}]}; libwebrtc again, with what it has besides
//   accept {sdp}                                        the answer
//   restart {}                                       → as `offer`; libwebrtc alone
//   received {}                                      → {state, streams: [{mid, frames, loud, width?, height?, colour?}]}
//   close {}                                            and it ends
//
// `frames` are those decoded, of sound those of which something is `loud`; `colour` is the middle of the last picture, as [y, u, v].

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

/** ICE, DTLS, RTP and congestion control written in Python; no simulcast. */
export const startAiortc = () => new Peer(process.env.AIORTC_PYTHON ?? 'python3', here('aiortc_peer.py'));

/** libwebrtc without a browser, with a camera of two Layers. */
export const startWrtc = () => new Peer(process.execPath, here('wrtc_peer.mjs'));

class Peer {
  #child;
  #ended;
  #lines;
  /** Its answers come in the order of the questions. */
  #last = Promise.resolve();

  constructor(program, script) {
    this.#child = spawn(program, [script], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#ended = once(this.#child, 'exit');
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  ask(what, details = {}) {
    const answer = this.#last.then(async () => {
      this.#child.stdin.write(`${JSON.stringify({ do: what, ...details })}\n`);
      const { value, done } = await this.#lines.next();
      if (done) throw new Error(`the peer ended instead of "${what}"`);
      return JSON.parse(value);
    });
    this.#last = answer.catch(() => {});
    return answer;
  }

  /** Ends it; to be called once. */
  async close() {
    // One that has ended by itself has failed whoever asked it.
    if (this.#child.exitCode === null && this.#child.signalCode === null) await this.ask('close');
    await this.#ended;
  }
}
