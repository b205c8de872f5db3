//! A Room as everybody in it sees it: its Participants, their Tracks, its settings.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{DeviceId, ParticipantId, RoomId, TrackId, UserId};
use crate::time::Timestamp;

/// The longest name of a Room, in bytes.
pub const ROOM_NAME_LEN_MAX: usize = 64;

/// How a Room is found within its Account: the last part of its link. 1 to [`ROOM_NAME_LEN_MAX`] of `a-z`, `0-9`, `-`, `_`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct RoomName(#[schemars(regex(pattern = "^[a-z0-9_-]{1,64}$"))] String);

/// Not 1 to [`ROOM_NAME_LEN_MAX`] characters of `a-z`, `0-9`, `-` and `_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a room name of 1 to {ROOM_NAME_LEN_MAX} characters of a-z, 0-9, - and _")]
pub struct RoomNameError;

impl RoomName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoomName {
    type Err = RoomNameError;

    fn from_str(text: &str) -> Result<Self, RoomNameError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for RoomName {
    type Error = RoomNameError;

    fn try_from(text: String) -> Result<Self, RoomNameError> {
        let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');

        if (1..=ROOM_NAME_LEN_MAX).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text))
        } else {
            Err(RoomNameError)
        }
    }
}

impl From<RoomName> for String {
    fn from(name: RoomName) -> Self {
        name.0
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a Participant is in a Room; each role has its [`Permissions`].
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees and hears.
    Listener,
    /// Speaks, shows, shares and sends data, too.
    Speaker,
    /// Moderates, too.
    Moderator,
}

/// What a Participant may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Permissions {
    /// May send a microphone.
    pub speak: bool,
    /// May send a camera.
    pub video: bool,
    /// May share a screen, with its sound.
    pub share: bool,
    /// May mute and remove others, admit from the lobby, give roles and change the Room's settings.
    pub moderate: bool,
    /// May send messages over data channels.
    #[serde(default)]
    pub data: bool,
}

impl Role {
    /// What the role may do where nothing else was said.
    pub const fn permissions(self) -> Permissions {
        let sends = !matches!(self, Self::Listener);

        Permissions {
            speak: sends,
            video: sends,
            share: sends,
            moderate: matches!(self, Self::Moderator),
            data: sends,
        }
    }
}

impl Permissions {
    /// Whether any Track may be sent.
    pub const fn may_send_media(self) -> bool {
        self.speak || self.video || self.share
    }

    /// Whether a Track of `source` may be sent.
    pub const fn may_send(self, source: Source) -> bool {
        match source {
            Source::Microphone => self.speak,
            Source::Camera => self.video,
            Source::Screen | Source::ScreenAudio => self.share,
        }
    }
}

/// Where a Track comes from.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A voice.
    Microphone,
    /// A face.
    Camera,
    /// A screen or a window.
    Screen,
    /// What a shared screen sounds like.
    ScreenAudio,
}

impl Source {
    /// Whether it is sound.
    pub const fn is_audio(self) -> bool {
        matches!(self, Self::Microphone | Self::ScreenAudio)
    }
}

/// A Track as others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrackState {
    /// The Track.
    pub track: TrackId,
    /// Where it comes from.
    pub source: Source,
    /// Whether nothing is sent just now, by its owner's choice or a moderator's.
    pub muted: bool,
}

/// A Participant as others know them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParticipantState {
    /// The Participant.
    pub participant: ParticipantId,
    /// The User.
    pub user: UserId,
    /// What to call them.
    pub name: Option<String>,
    /// What they are here.
    pub role: Role,
    /// What they may do.
    pub permissions: Permissions,
    /// When they raised their hand, while it is up.
    pub hand_at: Option<Timestamp>,
    /// When they joined.
    pub joined_at: Timestamp,
    /// Whether it is a phone, and what it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<Line>,
    /// What they send.
    pub tracks: Vec<TrackState>,
    /// What the application says about them: at most [`METADATA_LEN_MAX`] bytes.
    pub metadata: Option<String>,
    /// What they show the others of an encrypted Room, once they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e2ee: Option<Announcement>,
}

/// What a phone in a Room does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// It is dialled; what it sends is the ringing, or an announcement.
    Ringing,
    /// It has answered.
    Talking,
}

/// The key others wrap theirs for, in an encrypted Room. The server believes nothing of it: the others check the signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Announcement {
    /// The Device; set by the server.
    pub device: DeviceId,
    /// Its public key, as in `hello`; set by the server.
    pub device_key: String,
    /// A key made for this Room: P-256, uncompressed point, base64url without padding.
    pub key: String,
    /// By the Device's key: ECDSA with SHA-256, 64 bytes r‖s, base64url without padding.
    pub signature: String,
}

/// The longest metadata of a Participant or a Room, in bytes.
pub const METADATA_LEN_MAX: usize = 4 * 1024;

/// What a moderator may change about a Room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomSettings {
    /// Whether nobody else may come in.
    pub locked: bool,
    /// Whether guests wait until a moderator admits them.
    pub lobby: bool,
    /// The role of who comes in.
    pub role: Role,
    /// Whether the media is encrypted from end to end; can be switched off, and not on again.
    #[serde(default)]
    pub encrypted: bool,
    /// Whether it goes on as a Call when of three or more people two are left.
    #[serde(default)]
    pub back_to_call: bool,
    /// What the application says about the Room: at most [`METADATA_LEN_MAX`] bytes.
    pub metadata: Option<String>,
}

impl Default for RoomSettings {
    fn default() -> Self {
        Self {
            locked: false,
            lobby: false,
            role: Role::Speaker,
            encrypted: false,
            back_to_call: false,
            metadata: None,
        }
    }
}

/// A Room as who joins it gets to know it; later changes come one by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomState {
    /// The Room.
    pub room: RoomId,
    /// Its name.
    pub name: RoomName,
    /// Its settings.
    pub settings: RoomSettings,
    /// When the first Participant joined.
    pub created_at: Timestamp,
    /// Who is here, the longest first.
    pub participants: Vec<ParticipantState>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_name_is_short_and_plain() {
        let is_name = |text: &str| text.parse::<RoomName>().is_ok();

        assert!(is_name("weekly") && is_name("team_4-a") && is_name(&"a".repeat(64)));
        assert!(!is_name("") && !is_name(&"a".repeat(65)));
        assert!(!is_name("Weekly") && !is_name("a b") && !is_name("a/b") && !is_name("é"));
    }

    #[test]
    fn each_source_needs_its_permission() {
        let speaks = Permissions {
            speak: true,
            video: false,
            share: false,
            moderate: false,
            data: false,
        };

        assert!(speaks.may_send(Source::Microphone));
        assert!(!speaks.may_send(Source::Camera));
        assert!(!speaks.may_send(Source::Screen) && !speaks.may_send(Source::ScreenAudio));
        assert!(!Role::Listener.permissions().may_send(Source::Microphone));
        assert!(Role::Moderator.permissions().moderate && !Role::Speaker.permissions().moderate);
    }
}
