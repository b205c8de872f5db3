//! Whatever grows has a limit, and every limit a name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use signaling_wire::{FRAME_LEN_MAX, ServerLimits};

/// The `[signaling.limits]` table of `offhook.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How many Sessions one User may have.
    pub sessions_per_user_max: u32,
    /// How many Sessions one Account may have.
    pub sessions_per_account_max: u32,
    /// How many encoders and viewers over HTTP (WHIP, WHEP) one Account may have.
    pub unattended_per_account_max: u32,
    /// How many Calls one User may take part in.
    pub calls_per_user_max: u32,
    /// Commands per second of one Session, in the long run.
    pub commands_per_second: u32,
    /// Commands of one Session at once.
    pub commands_burst: u32,
    /// Invites per second of one User, in the long run.
    pub invites_per_user_per_second: u32,
    /// Invites of one User at once.
    pub invites_per_user_burst: u32,
    /// Commands per second of one Account, in the long run.
    pub commands_per_account_per_second: u32,
    /// Commands of one Account at once.
    pub commands_per_account_burst: u32,
    /// Connections per second from one address, in the long run.
    pub hellos_per_address_per_second: u32,
    /// Connections from one address at once.
    pub hellos_per_address_burst: u32,
    /// The longest SDP, in bytes.
    pub sdp_bytes_max: u32,
    /// ICE candidates in one frame.
    pub candidates_max: u32,
    /// How many phone calls one Account may have at once, in both directions. What they may cost is limited by its rules for
    /// phones.
    pub phone_calls_per_account_max: u32,
    /// How many Rooms one Account may have.
    pub rooms_per_account_max: u32,
    /// How many Rooms one Session may be in, or wait to be let in.
    pub rooms_per_session_max: u32,
    /// How many Participants one Room may have.
    pub participants_per_room_max: u32,
    /// How many people may wait in the lobby of one Room.
    pub waiting_per_room_max: u32,
    /// What one Participant may tell all others (written, hands, reactions, own Tracks muted, metadata) per second, in the
    /// long run.
    pub room_events_per_second: u32,
    /// The same at once.
    pub room_events_burst: u32,
    /// What all Participants of one Room together may tell all others (what is written, metadata and the like) per second, in bytes
    /// and in the long run: everybody is sent it, and whoever takes it more slowly falls behind.
    pub room_bytes_per_second: u32,
    /// The same at once.
    pub room_bytes_burst: u32,
    /// Offers of one Session to Rooms per second, in the long run: each is read whole by the SFU.
    pub room_offers_per_second: u32,
    /// The same at once.
    pub room_offers_burst: u32,
    /// The longest SDP of a Room, in bytes. There is a section for each picture.
    pub room_sdp_bytes_max: u32,
    /// How long a Session outlives its WebSocket, in milliseconds.
    pub resume_ms: u64,
    /// After how much silence a WebSocket is asked for a pong, in milliseconds.
    pub ping_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_per_user_max: 16,
            sessions_per_account_max: 50_000,
            unattended_per_account_max: 1_000,
            calls_per_user_max: 8,
            commands_per_second: 50,
            commands_burst: 200,
            invites_per_user_per_second: 1,
            invites_per_user_burst: 20,
            commands_per_account_per_second: 5_000,
            commands_per_account_burst: 20_000,
            hellos_per_address_per_second: 20,
            hellos_per_address_burst: 400,
            sdp_bytes_max: 32 * 1024,
            candidates_max: 32,
            phone_calls_per_account_max: 1_000,
            rooms_per_account_max: 1_000,
            rooms_per_session_max: 8,
            participants_per_room_max: 500,
            waiting_per_room_max: 100,
            room_events_per_second: 5,
            room_events_burst: 50,
            room_bytes_per_second: 32 * 1024,
            room_bytes_burst: 128 * 1024,
            room_offers_per_second: 2,
            room_offers_burst: 20,
            room_sdp_bytes_max: 240 * 1024,
            resume_ms: 60_000,
            ping_ms: 25_000,
        }
    }
}

impl Limits {
    /// The part of the limits that `welcome` tells.
    pub(crate) fn for_welcome(&self, has_rooms: bool) -> ServerLimits {
        ServerLimits {
            frame_bytes_max: u32::try_from(FRAME_LEN_MAX).unwrap_or(u32::MAX),
            commands_per_second: self.commands_per_second,
            commands_burst: self.commands_burst,
            calls_per_user_max: self.calls_per_user_max,
            sdp_bytes_max: self.sdp_bytes_max,
            candidates_max: self.candidates_max,
            room_participants_max: has_rooms.then_some(self.participants_per_room_max),
        }
    }
}
