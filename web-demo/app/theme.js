/** Light, dark, or as the system has it. */

import { h } from "./dom.js";
import { icon, setIcon } from "./icons.js";
import { recall, remember } from "./storage.js";

const ORDER = /** @type {const} */ (["auto", "light", "dark"]);
const LOOKS = /** @type {const} */ ({
  auto: { icon: "auto", words: "as the system" },
  light: { icon: "sun", words: "light" },
  dark: { icon: "moon", words: "dark" },
});

/** @returns {HTMLElement} the button that goes through the three */
export function themeButton() {
  const picture = icon("auto");
  const button = h("button", { class: "icon-button", type: "button", data: { test: "theme" } }, picture);
  let theme = ORDER.find((name) => name === recall("theme")) ?? "auto";

  const show = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    setIcon(picture, LOOKS[theme].icon);
    const label = `Colours: ${LOOKS[theme].words}`;
    button.setAttribute("aria-label", label);
    button.title = label;
  };
  button.addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    remember("theme", theme === "auto" ? null : theme);
    show();
  });
  show();
  return button;
}
