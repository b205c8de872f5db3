// The public face of the package; safe to import where there is no browser.
export { OffhookClient } from "./client.js";
export { OffhookError } from "./errors.js";
export { isPhone, isReachable, numberOf, toTarget } from "./numbers.js";

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
 * @typedef {import("./types.js").VoicemailEntry} VoicemailEntry
 * @typedef {import("./types.js").PhoneSettings} PhoneSettings
 * @typedef {import("./types.js").PhoneForward} PhoneForward
 * @typedef {import("./telephony.js").Telephony} Telephony
 * @typedef {import("./types.js").CallEnd} CallEnd
 * @typedef {import("./types.js").PhoneEnd} PhoneEnd
 * @typedef {import("./types.js").Progress} Progress
 * @typedef {import("./room.js").Room} Room
 * @typedef {import("./room.js").RoomEvents} RoomEvents
 * @typedef {import("./room.js").JoinOptions} JoinOptions
 * @typedef {import("./room-data.js").RoomData} RoomData
 * @typedef {import("./room-data.js").DataMessage} DataMessage
 * @typedef {import("./room.js").Wish} Wish
 * @typedef {import("./participant.js").Participant} Participant
 * @typedef {import("./participant.js").RemoteParticipant} RemoteParticipant
 * @typedef {import("./participant.js").LocalParticipant} LocalParticipant
 * @typedef {import("./participant.js").RemoteTrack} RemoteTrack
 * @typedef {import("./participant.js").LocalTrack} LocalTrack
 * @typedef {import("./types.js").Role} Role
 * @typedef {import("./types.js").Source} Source
 * @typedef {import("./types.js").Quality} Quality
 * @typedef {import("./types.js").ChatMessage} ChatMessage
 * @typedef {import("./types.js").RoomSettings} RoomSettings
 * @typedef {import("./types.js").Waiting} Waiting
 * @typedef {import("./types.js").Invitation} Invitation
 */
