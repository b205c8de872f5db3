//! The `room.*` frames, both ways. The doc comments become the descriptions in the schema.

use std::collections::BTreeSet;

use model::media::{ConnectionQuality, LayerWanted, MID_LEN_MAX, MediaRefusal, Slot};
use model::phone::PhoneReason;
use model::room::{METADATA_LEN_MAX, ParticipantState, RoomSettings, RoomState};
use model::{
    MessageId, ParticipantId, Permissions, Role, RoomId, RoomName, Source, Timestamp, TrackId,
    UserId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::client::{Check, ensure, is_base64url, is_device_key};

/// The most Tracks of one Participant.
pub const TRACKS_MAX: usize = 16;
/// The most wishes in one `room.want`.
pub const WISHES_MAX: usize = 1_000;
/// The longest text of a chat message, in bytes.
pub const CHAT_TEXT_LEN_MAX: usize = 4 * 1024;
/// The most Participants a private message may be for.
pub const CHAT_TO_MAX: usize = 64;
/// The longest reaction, in bytes: one emoji of several parts.
pub const REACTION_LEN_MAX: usize = 16;
/// The most waiting people in one `room.admit`.
pub const ADMIT_MAX: usize = 256;
/// The most keys in one `room.keys`.
pub const KEYS_MAX: usize = 1_000;
/// The longest wrapped key, in bytes.
pub const CIPHERTEXT_LEN_MAX: usize = 128;

/// Comes into a Room, or begins it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomJoin {
    /// The Room's name.
    pub room: RoomName,
    /// Repeated in the answer; grows with every offer.
    pub generation: u32,
    /// The offer: `sendonly` sections are the own Tracks, `recvonly` ones the slots to receive in.
    pub sdp: String,
    /// What the sections that send are; at most 16.
    #[serde(default)]
    pub tracks: Vec<TrackSent>,
    /// Whether what is sent is encrypted from end to end. An encrypted Room takes nothing else.
    #[serde(default)]
    pub encrypted: bool,
    /// How the Room is to be, if this begins it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsChange>,
    /// What the application says about the Participant: at most 4096 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
}

/// A section of an offer that sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrackSent {
    /// Its `mid`: 1 to 16 bytes.
    pub mid: String,
    /// Where it comes from.
    pub source: Source,
    /// Whether it begins muted.
    #[serde(default)]
    pub muted: bool,
}

/// What to change about a Room; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SettingsChange {
    /// Whether nobody else may come in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// Whether guests wait until a moderator admits them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lobby: Option<bool>,
    /// The role of who comes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether the media is encrypted from end to end: for who begins the Room; later it can only be switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Whether it goes on as a Call when of three or more people two are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_to_call: Option<bool>,
    /// What the application says about the Room: at most 4096 bytes; an empty text takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
}

impl SettingsChange {
    /// Changes `settings`.
    pub fn apply(self, settings: &mut RoomSettings) {
        settings.locked = self.locked.unwrap_or(settings.locked);
        settings.lobby = self.lobby.unwrap_or(settings.lobby);
        settings.role = self.role.unwrap_or(settings.role);
        settings.encrypted = self.encrypted.unwrap_or(settings.encrypted);
        settings.back_to_call = self.back_to_call.unwrap_or(settings.back_to_call);
        if let Some(metadata) = self.metadata {
            settings.metadata = Some(metadata).filter(|text| !text.is_empty());
        }
    }
}

impl Check for SettingsChange {
    fn check(&self) -> Result<(), &'static str> {
        check_metadata(self.metadata.as_deref())
    }
}

impl Check for RoomJoin {
    fn check(&self) -> Result<(), &'static str> {
        check_tracks(&self.tracks)?;
        check_metadata(self.metadata.as_deref())?;
        self.settings.as_ref().map_or(Ok(()), Check::check)
    }
}

/// A later offer: other Tracks, more slots, an ICE restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomOffer {
    /// The Room.
    pub room: RoomId,
    /// Higher than that of every offer before.
    pub generation: u32,
    /// The offer.
    pub sdp: String,
    /// All sections that send now; at most 16.
    #[serde(default)]
    pub tracks: Vec<TrackSent>,
}

impl Check for RoomOffer {
    fn check(&self) -> Result<(), &'static str> {
        check_tracks(&self.tracks)
    }
}

/// A Room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OnRoom {
    /// The Room.
    pub room: RoomId,
}

impl Check for OnRoom {}

/// The Participants after the first ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomList {
    /// The Room.
    pub room: RoomId,
    /// `next` of the page before.
    pub after: ParticipantId,
}

impl Check for RoomList {}

/// Whether a Track is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomMute {
    /// The Room.
    pub room: RoomId,
    /// The Track: an own one, or anybody's for a moderator.
    pub track: TrackId,
    /// Whether it is muted; a moderator can't unmute others.
    pub muted: bool,
}

impl Check for RoomMute {}

/// A wish that somebody unmutes a Track of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomAsk {
    /// The Room.
    pub room: RoomId,
    /// The Track: somebody else's that is muted.
    pub track: TrackId,
}

impl Check for RoomAsk {}

/// Whom to invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomInvite {
    /// The Room.
    pub room: RoomId,
    /// The User.
    pub user: UserId,
}

impl Check for RoomInvite {}

/// What to see and hear; replaces all earlier wishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomWant {
    /// The Room.
    pub room: RoomId,
    /// Whether Tracks that are not named are received, too: all sound, and video as slots and bandwidth allow.
    pub automatic: bool,
    /// At most 1000.
    #[serde(default)]
    pub wishes: Vec<TrackWish>,
}

/// A wish about one Track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrackWish {
    /// The Track.
    pub track: TrackId,
    /// Whether it is wanted at all.
    pub wanted: bool,
    /// How high the picture is shown, in pixels of the screen; 0 while it is not visible. As large as there is unless told.
    #[serde(default)]
    pub height: Option<u16>,
    /// Whether it comes before all that are not pinned.
    #[serde(default)]
    pub pinned: bool,
    /// Higher comes first.
    #[serde(default)]
    pub priority: u8,
}

impl Check for RoomWant {
    fn check(&self) -> Result<(), &'static str> {
        ensure(self.wishes.len() <= WISHES_MAX, "wishes: more than 1000")
    }
}

/// Other settings of a Room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomSet {
    /// The Room.
    pub room: RoomId,
    /// What to change.
    #[serde(flatten)]
    pub change: SettingsChange,
}

impl Check for RoomSet {
    fn check(&self) -> Result<(), &'static str> {
        self.change.check()
    }
}

/// Who of the lobby comes in, or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomAdmit {
    /// The Room.
    pub room: RoomId,
    /// Those of `room.lobby`; at most 256.
    pub waiting: Vec<ParticipantId>,
    /// Whether they may come in.
    pub admit: bool,
}

impl Check for RoomAdmit {
    fn check(&self) -> Result<(), &'static str> {
        ensure(self.waiting.len() <= ADMIT_MAX, "waiting: more than 256")
    }
}

/// What a Participant is from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomRole {
    /// The Room.
    pub room: RoomId,
    /// The Participant.
    pub participant: ParticipantId,
    /// The role, if it changes; brings its permissions unless those are told.
    #[serde(default)]
    pub role: Option<Role>,
    /// The permissions, if they are others than the role's.
    #[serde(default)]
    pub permissions: Option<Permissions>,
}

impl Check for RoomRole {
    fn check(&self) -> Result<(), &'static str> {
        ensure(
            self.role.is_some() || self.permissions.is_some(),
            "neither role nor permissions",
        )
    }
}

/// Who has to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomRemove {
    /// The Room.
    pub room: RoomId,
    /// The Participant.
    pub participant: ParticipantId,
}

impl Check for RoomRemove {}

/// Whether a hand is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomHand {
    /// The Room.
    pub room: RoomId,
    /// Whether it is.
    pub up: bool,
    /// Whose, unless it is the own one: a moderator takes others down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant: Option<ParticipantId>,
}

impl Check for RoomHand {}

/// A reaction that is seen for a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomReact {
    /// The Room.
    pub room: RoomId,
    /// 1 to 16 bytes, such as an emoji.
    pub reaction: String,
}

impl Check for RoomReact {
    fn check(&self) -> Result<(), &'static str> {
        ensure(
            (1..=REACTION_LEN_MAX).contains(&self.reaction.len()) && is_printable(&self.reaction),
            "reaction: not 1 to 16 bytes without control characters",
        )
    }
}

/// Something written to everybody in a Room, or to some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomChat {
    /// The Room.
    pub room: RoomId,
    /// 1 to 4096 bytes; line breaks and tabs are the only control characters.
    pub text: String,
    /// For these Participants alone, 1 to 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<ParticipantId>>,
}

impl Check for RoomChat {
    fn check(&self) -> Result<(), &'static str> {
        let is_plain = self
            .text
            .chars()
            .all(|character| !character.is_control() || matches!(character, '\n' | '\t'));
        ensure(
            (1..=CHAT_TEXT_LEN_MAX).contains(&self.text.len()) && is_plain,
            "text: not 1 to 4096 bytes without control characters",
        )?;
        ensure(
            self.to
                .as_ref()
                .is_none_or(|to| (1..=CHAT_TO_MAX).contains(&to.len())),
            "to: not 1 to 64 participants",
        )
    }
}

/// What the application says about oneself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomMetadata {
    /// The Room.
    pub room: RoomId,
    /// At most 4096 bytes; `null` takes it away.
    #[serde(default)]
    pub metadata: Option<String>,
}

impl Check for RoomMetadata {
    fn check(&self) -> Result<(), &'static str> {
        check_metadata(self.metadata.as_deref())
    }
}

/// The key others of an encrypted Room wrap theirs for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomAnnounce {
    /// The Room.
    pub room: RoomId,
    /// The key and its signature.
    pub e2ee: AnnouncedKey,
}

/// A key that is announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AnnouncedKey {
    /// P-256, 65 bytes uncompressed point, base64url without padding.
    pub key: String,
    /// By the Device's key: ECDSA P-256 with SHA-256, 64 bytes r‖s, base64url without padding.
    pub signature: String,
}

impl Check for RoomAnnounce {
    fn check(&self) -> Result<(), &'static str> {
        ensure(
            is_device_key(&self.e2ee.key),
            "e2ee.key: not a P-256 point in base64url",
        )?;
        ensure(
            is_base64url(&self.e2ee.signature, 64),
            "e2ee.signature: not 64 bytes in base64url",
        )
    }
}

/// The own media key, wrapped for others of an encrypted Room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomKeys {
    /// The Room.
    pub room: RoomId,
    /// Which of the own keys.
    pub epoch: u16,
    /// For whom; at most 1000.
    pub keys: Vec<WrappedKey>,
}

/// A media key for one Participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WrappedKey {
    /// For whom.
    pub participant: ParticipantId,
    /// What they alone can open: at most 128 bytes.
    pub ciphertext: String,
}

impl Check for RoomKeys {
    fn check(&self) -> Result<(), &'static str> {
        ensure(self.keys.len() <= KEYS_MAX, "keys: more than 1000")?;
        let named: BTreeSet<_> = self.keys.iter().map(|key| key.participant).collect();
        ensure(
            named.len() == self.keys.len(),
            "keys: a participant stands twice",
        )?;
        let is_short = |key: &WrappedKey| {
            key.ciphertext.len() <= CIPHERTEXT_LEN_MAX && key.ciphertext.is_ascii()
        };
        ensure(
            self.keys.iter().all(is_short),
            "keys: a ciphertext is longer than 128 bytes",
        )
    }
}

/// Another Participant's media key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomKeysNews {
    /// The Room.
    pub room: RoomId,
    /// Whose.
    pub from: ParticipantId,
    /// Which of theirs.
    pub epoch: u16,
    /// Wrapped for oneself.
    pub ciphertext: String,
}

/// One is in the Room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomJoined {
    /// Oneself.
    pub participant: ParticipantId,
    /// What one is here.
    pub role: Role,
    /// What one may do.
    pub permissions: Permissions,
    /// The Room, with its first 100 Participants.
    pub state: RoomState,
    /// For `room.list`, when there are more Participants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ParticipantId>,
    /// The Tracks that were taken; a section whose source one may not send is refused in the answer.
    pub tracks: Vec<TrackTaken>,
    /// That of the offer.
    pub generation: u32,
    /// The answer, with the server's candidates.
    pub sdp: String,
    /// What each slot carries.
    pub slots: Vec<Slot>,
    /// How many audio slots there should be in all.
    pub audio_wanted: u16,
    /// How many video slots there should be in all.
    pub video_wanted: u16,
    /// Who speaks now, the loudest first.
    pub speakers: Vec<ParticipantId>,
    /// What was written to everybody, the oldest first, as far as it is kept.
    pub chat: Vec<ChatMessage>,
}

/// A Track of the offer and its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrackTaken {
    /// The section.
    pub mid: String,
    /// The Track, which keeps its id as long as its section goes on.
    pub track: TrackId,
}

/// A later offer was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomOffered {
    /// That of the offer.
    pub generation: u32,
    /// The answer.
    pub sdp: String,
    /// The Tracks that were taken.
    pub tracks: Vec<TrackTaken>,
    /// What each slot carries.
    pub slots: Vec<Slot>,
}

/// Something that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChatMessage {
    /// Made by the server.
    pub id: MessageId,
    /// Who wrote it.
    pub from: ChatAuthor,
    /// What.
    pub text: String,
    /// When.
    pub at: Timestamp,
    /// For whom alone, if not for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<ParticipantId>>,
}

/// Who wrote something; may have left since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChatAuthor {
    /// The Participant.
    pub participant: ParticipantId,
    /// The User.
    pub user: UserId,
    /// The User's name.
    pub name: Option<String>,
}

/// One may come in now: `room.join` again.
pub type RoomAdmitted = OnRoom;

/// One may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomDenied {
    /// The Room.
    pub room: RoomId,
    /// Why.
    pub reason: DenyReason,
}

/// Why somebody in the lobby may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DenyReason {
    /// A moderator said so.
    Denied,
    /// The Room is over.
    Ended,
}

/// Somebody has joined, or has changed: all of their state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomParticipant {
    /// The Room.
    pub room: RoomId,
    /// Their state.
    pub participant: ParticipantState,
}

/// Somebody has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomLeft {
    /// The Room.
    pub room: RoomId,
    /// Who.
    pub participant: ParticipantId,
    /// Why.
    pub reason: LeaveReason,
    /// Of a phone that has hung up or was never answered: what the phone network said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<PhoneReason>,
}

/// Why somebody is not in a Room any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// They left.
    Left,
    /// A moderator removed them.
    Removed,
    /// Their Session ended, or nothing came from them for too long.
    Gone,
}

/// The Room's settings are others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomSettingsNews {
    /// The Room.
    pub room: RoomId,
    /// All of them.
    pub settings: RoomSettings,
}

/// Who waits in the lobby; told to those who moderate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomLobby {
    /// The Room.
    pub room: RoomId,
    /// All of them, the longest first.
    pub waiting: Vec<Waiting>,
}

/// Somebody in the lobby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// For `room.admit`.
    pub waiting: ParticipantId,
    /// The User.
    pub user: UserId,
    /// The User's name.
    pub name: Option<String>,
    /// Since when they wait.
    pub at: Timestamp,
}

/// Other Tracks are in one's slots, or more slots are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomSlots {
    /// The Room.
    pub room: RoomId,
    /// Those that changed.
    pub slots: Vec<Slot>,
    /// How many audio slots there should be in all.
    pub audio_wanted: u16,
    /// How many video slots there should be in all.
    pub video_wanted: u16,
}

/// Who speaks now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomSpeakers {
    /// The Room.
    pub room: RoomId,
    /// The loudest first; empty when nobody does.
    pub speakers: Vec<ParticipantId>,
}

/// How well somebody is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomQuality {
    /// The Room.
    pub room: RoomId,
    /// Who.
    pub participant: ParticipantId,
    /// How well.
    pub quality: ConnectionQuality,
}

/// A video Track is not sent to one for lack of bandwidth, or is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomPaused {
    /// The Room.
    pub room: RoomId,
    /// The Track.
    pub track: TrackId,
    /// Whether it is paused.
    pub paused: bool,
}

/// Which Layers of an own Track anybody receives: the rest need not be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomLayers {
    /// The Room.
    pub room: RoomId,
    /// The Track.
    pub track: TrackId,
    /// By `rid`, in the order of the offer; an empty `rid` stands for a Track without simulcast.
    pub wanted: Vec<LayerWanted>,
}

/// Whether one's media reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomConnection {
    /// The Room.
    pub room: RoomId,
    /// Whether it does; when it does not, an offer with an ICE restart helps.
    pub connected: bool,
}

/// Something was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomChatNews {
    /// The Room.
    pub room: RoomId,
    /// What.
    pub message: ChatMessage,
}

/// Somebody reacts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomReaction {
    /// The Room.
    pub room: RoomId,
    /// Who.
    pub participant: ParticipantId,
    /// How.
    pub reaction: String,
}

/// A moderator muted one of one's Tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomMuted {
    /// The Room.
    pub room: RoomId,
    /// The Track.
    pub track: TrackId,
    /// The moderator.
    pub by: ParticipantId,
}

/// A moderator would like one to unmute a Track.
pub type RoomAsked = RoomMuted;

/// Somebody would like one to come into a Room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomInvited {
    /// The Room's name, for `room.join`.
    pub room: RoomName,
    /// The User who invites.
    pub by: UserId,
    /// The User's name.
    pub name: Option<String>,
    /// How many are there.
    pub participants: u32,
}

/// One is not in the Room any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomEnded {
    /// The Room.
    pub room: RoomId,
    /// Why.
    pub reason: RoomEndReason,
}

/// Why one is not in a Room any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoomEndReason {
    /// A moderator removed one.
    Removed,
    /// A moderator ended the Room for all.
    Ended,
    /// One joined it again in another way.
    Replaced,
    /// The media failed, or did not come through for too long: `room.join` again.
    Failed,
    /// The Room is elsewhere now: `room.join` again.
    Moved,
    /// It goes on as a Call between the two who were left.
    Call,
}

/// Why an offer is refused: what stands beside `media_refused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusedMedia {
    /// Not an SDP the server can read.
    BadSdp,
    /// More media descriptions than the server allows.
    TooManySections,
    /// A fingerprint weaker than SHA-256, or none.
    WeakFingerprint,
    /// Nothing of what is offered can be forwarded.
    NoCodec,
    /// A later offer was made already.
    StaleGeneration,
    /// No room for another Participant.
    Full,
    /// The media knows nothing of the Participant: join again.
    UnknownParticipant,
    /// The answer took too long.
    Timeout,
    /// This server forwards no media.
    Unavailable,
}

impl From<MediaRefusal> for RefusedMedia {
    fn from(refusal: MediaRefusal) -> Self {
        match refusal {
            MediaRefusal::BadSdp(_) => Self::BadSdp,
            MediaRefusal::TooManySections => Self::TooManySections,
            MediaRefusal::WeakFingerprint => Self::WeakFingerprint,
            MediaRefusal::NoCodec => Self::NoCodec,
            MediaRefusal::StaleGeneration => Self::StaleGeneration,
            MediaRefusal::Full => Self::Full,
            MediaRefusal::UnknownParticipant => Self::UnknownParticipant,
            // No offer is refused for it: who makes one can encrypt.
            MediaRefusal::Encrypted => Self::NoCodec,
        }
    }
}

fn check_tracks(tracks: &[TrackSent]) -> Result<(), &'static str> {
    ensure(tracks.len() <= TRACKS_MAX, "tracks: more than 16")?;

    let is_mid = |mid: &str| {
        (1..=MID_LEN_MAX).contains(&mid.len()) && mid.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let mids: BTreeSet<&str> = tracks.iter().map(|track| track.mid.as_str()).collect();
    ensure(
        mids.iter().all(|mid| is_mid(mid)),
        "tracks: a mid is not 1 to 16 visible characters",
    )?;
    ensure(mids.len() == tracks.len(), "tracks: a mid stands twice")?;

    // Each would be a voice of its own among the few that a Room hears.
    let is_once = |source| tracks.iter().filter(|track| track.source == source).count() <= 1;
    ensure(
        is_once(Source::Microphone) && is_once(Source::ScreenAudio),
        "tracks: a microphone or the sound of a screen stands twice",
    )
}

fn check_metadata(metadata: Option<&str>) -> Result<(), &'static str> {
    ensure(
        metadata.is_none_or(|text| text.len() <= METADATA_LEN_MAX && is_printable(text)),
        "metadata: more than 4096 bytes, or with control characters",
    )
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_stays_and_an_empty_text_clears() {
        let mut settings = RoomSettings {
            locked: true,
            metadata: Some("{}".into()),
            ..RoomSettings::default()
        };

        let change = SettingsChange {
            lobby: Some(true),
            ..SettingsChange::default()
        };
        change.apply(&mut settings);
        assert!(settings.locked && settings.lobby);
        assert_eq!(settings.metadata.as_deref(), Some("{}"));

        let change = SettingsChange {
            metadata: Some(String::new()),
            ..SettingsChange::default()
        };
        change.apply(&mut settings);
        assert_eq!(settings.metadata, None);
    }
}
