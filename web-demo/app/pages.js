/** Lists that come page by page, newest first, and of which there is news in between. */

/**
 * What is known of one kind of list: how its entries are told apart, and when they are of.
 *
 * @template Entry
 * @typedef {{ idOf: (entry: Entry) => string, timeOf: (entry: Entry) => number }} Kind
 */

/** @type {Kind<import("./state.js").HistoryEntry>} */
export const ofHistory = { idOf: ({ call }) => call, timeOf: ({ created_at }) => created_at };

/** @type {Kind<import("./state.js").VoicemailEntry>} */
export const ofVoicemail = { idOf: ({ voicemail }) => voicemail, timeOf: ({ left_at }) => left_at };

/**
 * The list with a page behind it. What is there already, as it may have come as news meanwhile, stays where it is.
 *
 * @template Entry
 * @param {Entry[]} held
 * @param {Entry[]} page
 * @param {Kind<Entry>} kind
 */
export function withPage(held, page, { idOf }) {
  const known = new Set(held.map(idOf));
  return [...held, ...page.filter((entry) => !known.has(idOf(entry)))];
}

/**
 * The list with an entry that is new or has changed, in its place. What is older than all that was loaded comes with its own page,
 * unless the list is whole.
 *
 * @template Entry
 * @param {Entry[]} held
 * @param {Entry} entry
 * @param {Kind<Entry>} kind
 * @param {boolean} isWhole
 */
export function withNews(held, entry, { idOf, timeOf }, isWhole) {
  const id = idOf(entry);
  if (held.some((other) => idOf(other) === id)) return held.map((other) => (idOf(other) === id ? entry : other));
  const at = held.findIndex((other) => timeOf(other) <= timeOf(entry));
  if (at < 0) return isWhole ? [...held, entry] : held;
  return [...held.slice(0, at), entry, ...held.slice(at)];
}
