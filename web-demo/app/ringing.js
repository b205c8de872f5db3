/**
 * Decides from the state alone what has to be heard and who must be alerted, so that no event can leave a ring behind.
 */

import { announce } from "./announce.js";
import { startAttention, stopAttention } from "./notify.js";
import { shortcutsOn } from "./shortcuts.js";
import { playLoop } from "./sounds.js";
import { onStage, ringingIn, store } from "./state.js";

/** @typedef {import("./state.js").Call} Call */

/** @type {string | null} the Call that calls for attention */
let attended = null;

export function startRinging() {
  store.watch((state) => {
    const [ringing] = ringingIn(state);
    const talking = state.calls.some((call) => call.phase === "active");
    // A phone that is heard already plays a tone of its own, and one that only may be on its way plays none.
    const isHeard = (/** @type {Call} */ { progress }) => ["trying", "early_media"].includes(progress?.kind ?? "");
    const calling = onStage(state).some((call) => call.phase === "ringing" && !isHeard(call));

    if (ringing) playLoop(talking ? "waiting" : "ring");
    else playLoop(calling ? "ringback" : null);

    if (ringing?.id === attended) return;
    attended = ringing?.id ?? null;
    if (!ringing) {
      stopAttention();
      return;
    }
    startAttention(ringing.peer.name, ringing.media.video);
    const kind = ringing.media.video ? "video call" : ringing.isPhone ? "phone call" : "voice call";
    const keys = shortcutsOn() ? " A accepts, D declines." : "";
    announce(`Incoming ${kind} from ${ringing.peer.name}.${keys}`, "assertive");
  });
}
