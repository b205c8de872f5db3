/** Names of meetings: what people type, paste or get made up, as the server takes them. */

const WORDS = [
  "amber brisk calm clear early fair green kind light merry quick quiet sunny warm wide young",
  "birch brook cedar cloud field garden harbor heron maple meadow otter river robin stone swift willow",
].map((list) => list.split(" "));
const NAME_LEN_MAX = 64;

/**
 * What somebody typed or pasted: a name in any spelling, or the link of a meeting.
 *
 * @param {string} text
 * @returns {string | null} 1 to 64 of `a-z`, `0-9`, `-` and `_`
 */
export function meetingName(text) {
  const given = linkOf(text)?.searchParams.get("room") ?? text;
  const plain = given
    .normalize("NFKD")
    .toLowerCase()
    .replace(/\p{Mark}/gu, "")
    .replace(/[^a-z0-9_]+/g, "-")
    .replace(/^-+/, "")
    .slice(0, NAME_LEN_MAX)
    .replace(/-+$/, "");
  return plain || null;
}

/** @returns {string} a name that nobody guesses, yet can be read aloud */
export function newMeetingName() {
  const random = crypto.getRandomValues(new Uint32Array(4));
  const words = WORDS.map((list, index) => list[random[index] % list.length]);
  // Ten characters of 32: who has the link may come in, who guesses may not.
  const secret = Array.from(
    crypto.getRandomValues(new Uint8Array(10)),
    (byte) => "abcdefghijkmnpqrstuvwxyz23456789"[byte % 32],
  );
  return `${words.join("-")}-${secret.join("")}`;
}

/**
 * @param {string} name
 * @param {boolean} isEncrypted who opens the link then takes nothing else, whatever the server says
 * @returns {string}
 */
export function meetingLink(name, isEncrypted) {
  return `${location.origin}${location.pathname}?room=${name}${isEncrypted ? "&encrypted=1" : ""}`;
}

/** @param {string} text what somebody pasted, or the address of the page @returns {boolean} */
export function asksForEncryption(text) {
  return linkOf(text)?.searchParams.get("encrypted") === "1";
}

/** @returns {string | null} the meeting that the address of this page names */
export function meetingOfAddress() {
  const given = new URLSearchParams(location.search).get("room");
  return given ? meetingName(given) : null;
}

/** Puts the meeting into the address, for reloads and bookmarks, or takes it out. @param {string | null} name @param {boolean} isEncrypted */
export function showInAddress(name, isEncrypted) {
  const url = new URL(location.href);
  if (name) url.searchParams.set("room", name);
  else url.searchParams.delete("room");
  if (isEncrypted) url.searchParams.set("encrypted", "1");
  else url.searchParams.delete("encrypted");
  if (url.href !== location.href) history.replaceState(null, "", url);
}

/** @param {string} text */
function linkOf(text) {
  const trimmed = text.trim();
  if (!/^https?:\/\//i.test(trimmed)) return null;
  try {
    return new URL(trimmed);
  } catch {
    return null;
  }
}
