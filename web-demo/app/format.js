/** How times, rates and names are written. */

/**
 * @param {number} ms
 * @returns {string} `4:05`, `1:02:09`
 */
export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  if (parts[0] === 0) parts.shift();
  return parts.map((part, index) => (index === 0 ? String(part) : String(part).padStart(2, "0"))).join(":");
}

/**
 * A duration as a person says it, for screen readers and sentences.
 *
 * @param {number} ms
 * @returns {string} `4 minutes 5 seconds`
 */
export function durationInWords(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  /** @type {string[]} */
  const words = [];
  const count = (/** @type {number} */ n, /** @type {string} */ unit) => {
    if (n > 0) words.push(`${n} ${unit}${n === 1 ? "" : "s"}`);
  };
  count(Math.floor(seconds / 3600), "hour");
  count(Math.floor(seconds / 60) % 60, "minute");
  count(seconds % 60, "second");
  return words.join(" ") || "0 seconds";
}

/**
 * @param {number} time milliseconds since 1970
 * @param {number} now
 * @returns {string} `14:05` today, `Mon 14:05` this week, else with the date
 */
export function when(time, now = Date.now()) {
  const date = new Date(time);
  const clock = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (date.toDateString() === new Date(now).toDateString()) return clock;
  if (now - time < 6 * 86_400_000) return `${date.toLocaleDateString([], { weekday: "short" })} ${clock}`;
  return `${date.toLocaleDateString([], { day: "numeric", month: "short" })} ${clock}`;
}

/**
 * @param {number | null | undefined} bitsPerSecond
 * @returns {string}
 */
export function bitrate(bitsPerSecond) {
  if (bitsPerSecond === null || bitsPerSecond === undefined) return "–";
  if (bitsPerSecond >= 1_000_000) return `${(bitsPerSecond / 1_000_000).toFixed(1)} Mbit/s`;
  return `${Math.round(bitsPerSecond / 1000)} kbit/s`;
}

/**
 * @param {string} name
 * @returns {string} one or two letters, or one emoji
 */
export function initials(name) {
  // Of a number the last two digits tell more than the code of a country.
  if (/^[+*#\d]+$/.test(name)) return name.slice(-2);
  const words = name.trim().split(/\s+/u).filter(Boolean);
  const letters = (words.length > 1 ? [words[0], words[words.length - 1]] : words).map(firstCharacter);
  const emoji = letters.find((letter) => /\p{Extended_Pictographic}|\p{Regional_Indicator}/u.test(letter));
  return emoji ?? (letters.join("").toUpperCase() || "?");
}

/** Costly to make, so one for all. */
const segmenter = "Segmenter" in Intl ? new Intl.Segmenter() : null;

/** What people take for one character: an emoji of several code points stays whole. @param {string} word */
function firstCharacter(word) {
  if (!segmenter) return [...word][0];
  const [first] = segmenter.segment(word);
  return first.segment;
}

/**
 * @param {string} user
 * @returns {string} one of eight tints, always the same for the same User
 */
export function tint(user) {
  let hash = 7;
  for (const letter of user) hash = (hash * 31 + (letter.codePointAt(0) ?? 0)) >>> 0;
  return String(hash % 8);
}
