/** A list at the side that is loaded page by page: its rows, what is said while there is none, and the button for more. */

import { isPhone, isReachable, numberOf } from "../../client/index.js";
import { h, keyed } from "../dom.js";
import { icon } from "../icons.js";

/**
 * @template Item
 * @param {{ name: string, title: string, label: string, sign: import("../icons.js").IconName, empty: string, more: string, older: () => unknown }} look
 * @param {(item: Item) => string} keyOf
 * @param {(item: Item) => { element: Element, update(item: Item): void, close?(): void }} row
 */
export function listView(look, keyOf, row) {
  const list = h("ol", { class: "rows", "aria-label": look.label });
  const empty = h("div", { class: "nothing empty" }, icon(look.sign), h("p", null, look.empty));
  const older = h(
    "button",
    { class: "button wide", type: "button", data: { test: `${look.name}-older` }, on: { click: () => void look.older() } },
    look.more,
  );
  const title = h("h1", { id: `${look.name}-title`, class: "list-title", tabindex: "-1" }, look.title);
  const element = h(
    "section",
    { class: "list", "aria-labelledby": title.id, data: { test: look.name } },
    title,
    list,
    empty,
    older,
  );

  return {
    element,
    /**
     * @param {Item[]} items
     * @param {{ isKnown: boolean, hasMore: boolean }} page
     */
    update(items, { isKnown, hasMore }) {
      const focused = document.activeElement;
      keyed(list, items, keyOf, row);
      // A row that went away, and a button that is not needed any more, take the focus along.
      list.hidden = items.length === 0;
      empty.hidden = !isKnown || items.length > 0;
      older.hidden = !hasMore;
      const isLost = focused === older ? older.hidden : focused !== document.activeElement && !focused?.isConnected;
      if (isLost) title.focus();
    },
  };
}

/**
 * The number of a phone that is known by a name; nothing where the name says all there is.
 *
 * @param {import("../state.js").Peer} peer
 */
export function numberWords({ user, name }) {
  const number = isPhone(user) && !isReachable(user) ? "Number withheld" : numberOf(user);
  return number !== name && number;
}
