import { OffhookError } from "./errors.js";

/** Who keeps their number to themselves (RFC 3323). */
const ANONYMOUS = "sip:anonymous@anonymous.invalid";
const SCHEME = /^(tel|sips?):/i;
/** What people write between digits. */
const SEPARATORS = /[\s().\-\u2010-\u2015/]/g;

/** Whether the other side of a Call is a phone, by what stands in the place of a User. @param {string} user */
export function isPhone(user) {
  return SCHEME.test(user);
}

/** Whether a phone can be called back: it has shown its number. @param {string} user */
export function isReachable(user) {
  return isPhone(user) && user !== ANONYMOUS;
}

/**
 * What to show of a phone: `+4930123456`, `42`, `alice@example.com`; null of a User, and of a caller who keeps it to themselves.
 * @param {string} user
 * @returns {string|null}
 */
export function numberOf(user) {
  return isReachable(user) ? user.replace(SCHEME, "") : null;
}

/**
 * Whom somebody means who types this: `tel:` and the number without what stands between its digits, or an address of SIP as it
 * is. Rejects with `bad_number` what can't be dialled.
 * @param {string} text
 * @returns {string}
 */
export function toTarget(text) {
  const typed = text.trim();
  if (/^sips?:/i.test(typed)) return typed;
  if (/^[^@\s]+@[^@\s]+$/.test(typed)) return `sip:${typed}`;
  const number = typed.replace(/^tel:/i, "").replace(SEPARATORS, "");
  if (!/^(\+[1-9]\d{1,14}|[0-9*#]{1,24})$/.test(number)) throw new OffhookError("bad_number", "that is no number");
  return `tel:${number}`;
}

/** Who has no name is called by their number, or by the User's id; who keeps the number to themselves is anonymous. @template {{user: string, name: string|null}} Somebody @param {Somebody} somebody */
export function named(somebody) {
  const { user, name } = somebody;
  return { ...somebody, name: name ?? numberOf(user) ?? (isPhone(user) ? "Anonymous caller" : user) };
}
