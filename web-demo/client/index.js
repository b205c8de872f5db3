// The public face of the package; safe to import where there is no browser.
export { OffhookClient } from "./client.js";
export { OffhookError } from "./errors.js";

/**
 * @typedef {import("./call.js").Call} Call
 * @typedef {import("./client.js").ClientOptions} ClientOptions
 * @typedef {import("./client.js").ClientEvents} ClientEvents
 * @typedef {import("./call.js").CallEvents} CallEvents
 * @typedef {import("./stats.js").Connection} Connection
 * @typedef {import("./types.js").ConnectionState} ConnectionState
 * @typedef {import("./types.js").MediaState} MediaState
 * @typedef {import("./types.js").MediaSent} MediaSent
 * @typedef {import("./types.js").Status} Status
 * @typedef {import("./types.js").Presence} Presence
 * @typedef {import("./types.js").HistoryEntry} HistoryEntry
 * @typedef {import("./types.js").CallEnd} CallEnd
 */
