// The shapes this package shares between its files; there is no code here. Names with underscores are those of
// docs/calls.v1.md, as they travel.

/** @typedef {"idle"|"connecting"|"connected"|"reconnecting"|"closed"} ConnectionState the state of a client */
/** @typedef {"new"|"connecting"|"connected"|"reconnecting"|"failed"} MediaState how the media of a Call is connected */
/** @typedef {"available"|"away"|"do_not_disturb"|"in_call"|"offline"} Status */
/** @typedef {{user: string, name: string, status: Status}} Presence */
/** @typedef {{audio: boolean, video: boolean}} MediaKinds */
/** @typedef {{audio: boolean, video: "camera"|"screen"|null}} MediaSent whether the microphone is on, and what the picture is */
/** @typedef {{user: string, name: string}} Person */
/** @typedef {{account: string, user: string, name: string}} Me */
/** @typedef {{reason: string, sip: number|null, cause: number}} PhoneEnd what the phone network said */
/** @typedef {{reason: string, cause: number, by: string|null, into: string|null, room?: string, phone?: PhoneEnd}} CallEnd `into` is the Call, `room` the Room that goes on */
/** @typedef {{kind: "trying"|"ringing"|"early_media"|"queued", position: number|null}} Progress of a phone call; `position` in a line, from 1 */
/** @typedef {"ringing"|"talking"} Line what a phone in a Room does */
/** @typedef {{by: string, to: string, call: string}} Transfer */

/** @typedef {"microphone"|"camera"|"screen"|"screen_audio"} Source where a Track comes from */
/** @typedef {"listener"|"speaker"|"moderator"} Role */
/** @typedef {{speak: boolean, video: boolean, share: boolean, moderate: boolean, data: boolean}} Permissions */
/** @typedef {"lost"|"poor"|"good"|"excellent"} Quality how well a Participant is connected */
/** @typedef {{locked: boolean, lobby: boolean, role: Role, encrypted: boolean, back_to_call: boolean, metadata: string|null}} RoomSettings `role` is that of who comes in; `encrypted` can be switched off, not on; with `back_to_call` the last two go on as a Call */
/** @typedef {{id: string, from: {participant: string, user: string, name: string}, text: string, at: number, to?: string[]}} ChatMessage */
/** @typedef {{participant: import("./participant.js").Participant, reaction: string}} Reaction */
/** @typedef {{room: string, by: string, name: string, participants: number}} Invitation `room` is a name for `joinRoom`; `by` the User, `name` theirs */
/** @typedef {{waiting: string, user: string, name: string, at: number}} Waiting somebody in the lobby; `waiting` is what `admit` takes */

/**
 * @typedef {object} Party
 * @property {string} user
 * @property {string|null} name
 * @property {string|null} device
 * @property {string|null} key the Device key
 * @property {{call: string, participant: string|null, to: string|null}} [phone] of a phone: `to` is the Number of ours that it called
 */

/**
 * @typedef {object} CallState
 * @property {string} call
 * @property {number} rev
 * @property {number} epoch
 * @property {"ringing"|"active"|"ended"} phase
 * @property {MediaKinds} media
 * @property {Party} caller
 * @property {Party} callee
 * @property {string[]} ringing
 * @property {string[]} held_by
 * @property {number} created_at
 * @property {number|null} answered_at
 * @property {number|null} ended_at
 * @property {string|null} commitment
 * @property {Transfer|null} transfer
 * @property {string|null} replaces
 * @property {string} [from_room] the name of the Room it continues
 * @property {string} [room] the name of the Room where a phone is heard
 * @property {CallEnd|null} end
 */

/**
 * @typedef {object} HistoryEntry
 * @property {string} call
 * @property {Person} peer
 * @property {"out"|"in"} direction
 * @property {MediaKinds} media
 * @property {string|null} reason null while it goes on
 * @property {string} [phone] what the phone network said of its end
 * @property {boolean} missed
 * @property {number} created_at
 * @property {number|null} answered_at
 * @property {number|null} ended_at
 */

/**
 * @typedef {object} VoicemailEntry
 * @property {string} voicemail
 * @property {string} [queue] the Queue whose members share it
 * @property {string|null} call the Call it was left in
 * @property {Person} peer who left it
 * @property {number} left_at
 * @property {number} millis how long it is
 * @property {boolean} heard whether somebody has heard it
 */

/** @typedef {"voicemail"|{user: string}|{number: string}|{other: string}} PhoneForward where a call goes instead; `other` is what only an administrator chooses */

/**
 * @typedef {object} PhoneSettings
 * @property {boolean} do_not_disturb nothing rings: calls go where `forward.busy` says
 * @property {boolean} call_waiting whether a second call rings while there is one
 * @property {number} ring_seconds how long it rings before `forward.no_answer`, from 5 to 300
 * @property {boolean} voicemail whether calls that reach nobody may leave a message
 * @property {{always: PhoneForward|null, busy: PhoneForward|null, no_answer: PhoneForward|null, offline: PhoneForward|null}} forward
 */

/**
 * @typedef {object} Welcome
 * @property {string} session
 * @property {string} key
 * @property {number} ack
 * @property {boolean} resumed
 * @property {string} account
 * @property {string} user
 * @property {string|null} name
 * @property {RTCIceServer[]} ice_servers
 * @property {Record<string, number>} limits
 * @property {boolean} [phone] whether phones can be called
 * @property {number} resume_ms
 * @property {number} ping_ms
 */

/**
 * Sends a command through the Session; resolves with the data of its `ok`.
 * @typedef {(type: string, data?: Record<string, any>) => Promise<any>} Command
 */

export {};
