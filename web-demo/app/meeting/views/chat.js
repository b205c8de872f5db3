/** What people write to each other in a meeting. */

import { attempt } from "../../attempt.js";
import { h, keyed, setText } from "../../dom.js";
import { when } from "../../format.js";
import { icon } from "../../icons.js";
import { store } from "../../state.js";

/** @typedef {import("../meeting.js").Meeting} Meeting */
/** @typedef {import("../../../client/index.js").ChatMessage} ChatMessage */

const TEXT_LEN_MAX = 1000;
/** Who has scrolled up further than this reads what was said before, and is left there. */
const BOTTOM_PX = 80;

export function chatView() {
  const list = h("ol", { class: "messages", data: { test: "messages" } });
  const log = h("div", { class: "messages-scroll", role: "log", "aria-label": "Messages", tabindex: "0" }, list);
  const nothing = h(
    "p",
    { class: "nothing" },
    "Nothing was written yet. Everybody in the meeting reads what you write.",
  );
  const field = h("textarea", {
    class: "field chat-field",
    rows: "1",
    maxlength: String(TEXT_LEN_MAX),
    placeholder: "Write to everybody",
    "aria-label": "Message to everybody",
    data: { test: "chat-field" },
  });
  const send = () => {
    const text = field.value.trim();
    const { meeting } = store.state;
    if (!text || !meeting) return;
    field.value = "";
    void attempt(async () => {
      try {
        await meeting.say(text);
      } catch (error) {
        // What was not sent is there to be sent again.
        field.value ||= text;
        throw error;
      }
    });
  };
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    send();
    field.focus();
  };
  const element = h(
    "aside",
    { class: "meeting-panel", "aria-label": "Chat", hidden: true, data: { test: "chat" } },
    panelHead("Chat", "chat"),
    nothing,
    log,
    h(
      "form",
      { class: "chat-form", on: { submit } },
      field,
      h(
        "button",
        { class: "icon-button", type: "submit", "aria-label": "Send", title: "Send", data: { test: "chat-send" } },
        icon("send"),
      ),
    ),
  );
  let shown = 0;

  return {
    element,
    /** @param {Meeting | null} meeting when the panel is open */
    update(meeting) {
      const opened = element.hidden && meeting !== null;
      const hadFocus = element.contains(document.activeElement);
      element.hidden = meeting === null;
      if (hadFocus && !meeting) document.querySelector(/** @type {"button"} */ ("[data-test=meeting-chat]"))?.focus();
      if (!meeting?.room) return;
      const { messages } = meeting.room;
      nothing.hidden = messages.length > 0;
      if (opened) field.focus({ preventScroll: true });
      if (!opened && messages.length === shown && list.childElementCount === shown) return;
      const isAtEnd = opened || log.scrollHeight - log.scrollTop - log.clientHeight < BOTTOM_PX;
      shown = messages.length;
      keyed(
        list,
        messages,
        ({ id }) => id,
        (message) => messageRow(message, meeting.room?.local.id ?? ""),
      );
      if (isAtEnd) log.scrollTop = log.scrollHeight;
    },
  };
}

/**
 * @param {string} title
 * @param {"chat" | "people"} panel
 */
export function panelHead(title, panel) {
  return h(
    "div",
    { class: "panel-head" },
    h("h2", null, title),
    h(
      "button",
      {
        class: "icon-button",
        type: "button",
        "aria-label": `Close ${title.toLowerCase()}`,
        data: { test: `close-${panel}` },
        on: { click: () => store.state.meeting?.panel === panel && store.state.meeting.togglePanel(panel) },
      },
      icon("close"),
    ),
  );
}

/** @param {ChatMessage} message @param {string} self */
function messageRow({ from, text, at, to }, self) {
  const own = from.participant === self;
  const name = h("span", { class: "message-name" });
  setText(name, own ? "You" : from.name);
  const element = h(
    "li",
    { class: "message", data: { own: String(own) } },
    h(
      "p",
      { class: "message-head" },
      name,
      to ? " to some" : "",
      " ",
      h("time", { datetime: new Date(at).toISOString() }, when(at)),
    ),
    h("p", { class: "message-text" }, ...linked(text)),
  );
  return { element, update() {} };
}

/** Web addresses become links; everything else stays text. @param {string} text */
function linked(text) {
  return text.split(/(https?:\/\/[^\s<>"]+)/g).map((part, index) => {
    if (index % 2 === 0 || !URL.canParse(part)) return part;
    return h("a", { href: part, target: "_blank", rel: "noopener noreferrer nofollow" }, part);
  });
}
