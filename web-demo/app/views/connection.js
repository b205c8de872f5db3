/**
 * How this call is connected, for everybody who wants to know: the way the media takes, its numbers, and the five
 * words that prove nobody sits in between.
 */

import { h, keyed, setAttribute, setText } from "../dom.js";
import { bitrate } from "../format.js";
import { icon } from "../icons.js";
import { store } from "../state.js";
import { avatar, setAvatar } from "./avatar.js";

/** @typedef {import("../state.js").Call} Call */
/** @typedef {import("../../client/index.js").Connection} Connection */

const READ_MS = 1000;

const DEVICE_WORDS = {
  new: "You talk with this device for the first time. Comparing the words once is enough; after that it is remembered.",
  known: "You have talked with this device before, and its key is the same.",
  changed:
    "The key of this device has changed since your last call. Compare the words before you say anything private.",
};

const CANDIDATES = /** @type {Record<string, string>} */ ({
  host: "own address",
  srflx: "through a router",
  prflx: "through a router",
  relay: "through the relay",
});

export function connectionView() {
  const close = () => store.set({ panelOpen: false });
  const route = routeView();
  const code = codeView();
  const numbers = numbersView();
  const title = h("h2", { id: "panel-title", tabindex: "-1" }, "How this call is connected");
  const element = h(
    "aside",
    { class: "panel", "aria-labelledby": "panel-title", data: { test: "connection-panel" }, hidden: true },
    h(
      "div",
      { class: "panel-head" },
      title,
      h(
        "button",
        { class: "icon-button", type: "button", "aria-label": "Close details", on: { click: close } },
        icon("close"),
      ),
    ),
    route.element,
    code.element,
    numbers.element,
  );

  /** @type {Call | null} */
  let shown = null;
  const read = async () => {
    const call = shown;
    if (!call || call.phase !== "active") return;
    const connection = await call.connection();
    if (call !== shown) return;
    route.update(call, connection);
    numbers.update(connection);
  };
  setInterval(() => void read(), READ_MS);

  return {
    element,
    /**
     * @param {Call | null} call an active Call, when the panel is open
     */
    update(call) {
      const opened = call && shown !== call;
      const hadFocus = element.contains(document.activeElement);
      shown = call;
      element.hidden = call === null;
      if (hadFocus && !call) document.querySelector(/** @type {"button"} */ ("[data-test=connection-open]"))?.focus();
      if (!call) return;
      code.update(call);
      if (opened) {
        title.focus({ preventScroll: true });
        route.update(call, null);
        void read();
      }
    },
  };
}

/** A drawing: you, the other side, and the relay when it stands between. */
function routeView() {
  const theirs = avatar({ user: "", name: "" });
  const yours = avatar({ user: "", name: "" });
  const words = h("p", { class: "route-words" });
  const detail = h("p", { class: "hint" });
  const line = h(
    "div",
    { class: "route-line", "aria-hidden": "true" },
    yours,
    h("span", { class: "wire" }, h("span", { class: "relay-node" }, "relay")),
    theirs,
  );
  const element = h("section", { class: "route", "aria-label": "Way" }, line, words, detail);

  return {
    element,
    /**
     * @param {Call} call
     * @param {Connection | null} connection
     */
    update(call, connection) {
      setAvatar(theirs, call.peer);
      if (store.state.me) setAvatar(yours, store.state.me);
      setAttribute(element, "data-path", connection?.path ?? "none");
      const protocol = connection?.protocol?.toUpperCase() ?? "";
      setText(
        words,
        connection?.path === "direct"
          ? `Direct, over ${protocol}`
          : connection?.path === "relayed"
            ? `Relayed, over ${protocol}`
            : "Looking for a way…",
      );
      setText(detail, explain(connection));
    },
  };
}

/** @param {Connection | null} connection */
function explain(connection) {
  if (connection?.path === "direct")
    return "Sound and picture go straight to the other browser. No server sees or carries them.";
  if (connection?.path === "relayed")
    return "A firewall is in the way, so the relay passes everything on. It is encrypted end to end; the relay cannot look inside.";
  return "The two browsers try every way between them.";
}

function codeView() {
  const words = h("ol", { class: "code", data: { test: "code" }, "aria-label": "Short code" });
  const how = h("p", { class: "hint" });
  const device = h("p", { class: "device-words" });
  const element = h(
    "section",
    { "aria-labelledby": "code-title" },
    h("h3", { id: "code-title" }, icon("shield"), "Short code"),
    words,
    how,
    device,
  );

  return {
    element,
    /** @param {Call} call */
    update(call) {
      const list = (call.code ?? []).map((word, index) => ({ word, key: `${index}${word}` }));
      keyed(
        words,
        list,
        (item) => item.key,
        ({ word }) => ({ element: h("li", null, word), update() {} }),
      );
      words.hidden = list.length === 0;
      setText(
        how,
        call.code
          ? `Read the words to ${call.peer.name}. If both of you see the same five, nobody is in between, not even this server.`
          : "The two browsers are still agreeing on it.",
      );
      setText(device, call.peerDevice ? DEVICE_WORDS[call.peerDevice] : "");
      setAttribute(device, "data-device", call.peerDevice);
      setAttribute(device, "role", call.peerDevice === "changed" ? "alert" : null);
    },
  };
}

function numbersView() {
  const rows = /** @type {Record<string, HTMLElement>} */ ({});
  const row = (/** @type {string} */ name, /** @type {string} */ label) => {
    rows[name] = h("dd", { data: { test: `stat-${name}` } }, "–");
    return h("div", null, h("dt", null, label), rows[name]);
  };
  const element = h(
    "section",
    { "aria-labelledby": "numbers-title" },
    h("h3", { id: "numbers-title" }, icon("info"), "Numbers"),
    h(
      "dl",
      { class: "numbers" },
      row("in", "Receiving"),
      row("out", "Sending"),
      row("rtt", "Round trip"),
      row("loss", "Loss in / out"),
      row("codecs", "Codecs"),
      row("picture", "Picture"),
      row("here", "This side"),
      row("there", "Other side"),
    ),
  );

  return {
    element,
    /** @param {Connection} connection */
    update(connection) {
      const share = (/** @type {number | null} */ loss) => (loss === null ? "–" : `${(loss * 100).toFixed(1)} %`);
      const { frameWidth, frameHeight, framesPerSecond } = connection;
      setText(rows.in, bitrate(connection.bitrateIn));
      setText(rows.out, bitrate(connection.bitrateOut));
      setText(rows.rtt, connection.rtt === null ? "–" : `${Math.round(connection.rtt)} ms`);
      setText(rows.loss, `${share(connection.lossIn)} / ${share(connection.lossOut)}`);
      setText(rows.codecs, connection.codecs.join(", ") || "–");
      setText(
        rows.picture,
        frameWidth && frameHeight ? `${frameWidth} × ${frameHeight}, ${Math.round(framesPerSecond)}/s` : "–",
      );
      setText(rows.here, CANDIDATES[connection.localType ?? ""] ?? "–");
      setText(rows.there, CANDIDATES[connection.remoteType ?? ""] ?? "–");
    },
  };
}
