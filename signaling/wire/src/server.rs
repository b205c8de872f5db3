//! What the server sends. The doc comments become the descriptions in the schema.

use model::phone::Progress;
use model::record::{HistoryEntry, VoicemailEntry};
use model::room::{ParticipantState, RoomSettings};
use model::{
    AccountId, Availability, CallId, CallState, DeviceId, MessageId, ParticipantId, RoomId,
    RoomName, SessionId, Status, Timestamp, UserId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::client::{CallDtmf, Candidates, Empty, IceRestart, MediaSent, Sdp, Verify};
use crate::error::ErrorCode;
use crate::phone::{PhoneSettings, VoicemailNews};
use crate::room::{
    RefusedMedia, RoomAdmitted, RoomAsked, RoomChatNews, RoomConnection, RoomDenied, RoomEnded,
    RoomInvited, RoomJoined, RoomKeysNews, RoomLayers, RoomLeft, RoomLobby, RoomMuted, RoomOffered,
    RoomParticipant, RoomPaused, RoomQuality, RoomReaction, RoomSettingsNews, RoomSlots,
    RoomSpeakers,
};
use crate::schema::FrameInfo;

macro_rules! server_frames {
    ($($(#[doc = $doc:literal])* $variant:ident($data:ty) = $name:literal, $reliable:literal;)*) => {
        /// A server's frame: its `type` chooses the variant, its `data` is the content.
        #[derive(Debug, Clone, PartialEq)]
        pub enum ServerFrame {
            $($(#[doc = $doc])* $variant($data),)*
        }

        impl ServerFrame {
            /// The `type`.
            pub const fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// The `data` as JSON.
            pub fn data(&self) -> String {
                match self {
                    // Every data type is made of plain fields with string keys, so writing it as JSON cannot fail.
                    $(Self::$variant(data) => serde_json::to_string(data).unwrap_or_default(),)*
                }
            }

            pub(crate) const INFO: &[FrameInfo] = &[$(FrameInfo {
                kind: $name,
                about: concat!($($doc,)*),
                reliable: $reliable,
                data: schemars::SchemaGenerator::subschema_for::<$data>,
            },)*];
        }
    };
}

server_frames! {
    /// Answers `hello`.
    Welcome(Box<Welcome>) = "welcome", false;
    /// A command was done.
    Ok(OkData) = "ok", true;
    /// A command was refused; without a `seq` when it answers no reliable frame.
    Error(ErrorData) = "error", true;
    /// Says what was received, when nothing else is to be sent.
    Ack(Empty) = "ack", false;
    /// Asks for `pong`.
    Ping(Empty) = "ping", false;
    /// Answers `ping`.
    Pong(Empty) = "pong", false;
    /// Asks the client to connect again.
    Goaway(Goaway) = "goaway", false;
    /// A User's status changed.
    Presence(PresenceNews) = "presence", true;
    /// The User is rung.
    CallIncoming(Box<Incoming>) = "call.incoming", true;
    /// A Call changed.
    CallUpdate(Box<Update>) = "call.update", true;
    /// What becomes of a phone call before it is answered.
    CallProgress(CallProgress) = "call.progress", true;
    /// The phone on the other side has pressed keys.
    CallDtmf(CallDtmf) = "call.dtmf", true;
    /// The Call goes on in a Room: `room.join` it.
    CallUpgraded(Upgraded) = "call.upgraded", true;
    /// A step of the short code from the other Device.
    CallVerify(Verify) = "call.verify", true;
    /// What the other Device sends now.
    CallMedia(MediaSent) = "call.media", true;
    /// An SDP offer of the other Device.
    SdpOffer(Sdp) = "sdp.offer", true;
    /// An SDP answer of the other Device.
    SdpAnswer(Sdp) = "sdp.answer", true;
    /// ICE candidates of the other Device.
    IceCandidates(Candidates) = "ice.candidates", true;
    /// The other Device wants an offer with an ICE restart.
    IceRestart(IceRestart) = "ice.restart", true;
    /// A Call ended or the missed ones were seen.
    History(HistoryNews) = "history", true;
    /// A message was left, heard or deleted.
    Voicemail(Box<VoicemailNews>) = "voicemail", true;
    /// A moderator lets one in: `room.join` again.
    RoomAdmitted(RoomAdmitted) = "room.admitted", true;
    /// One may not come in.
    RoomDenied(RoomDenied) = "room.denied", true;
    /// A Participant has joined, or has changed.
    RoomParticipant(Box<RoomParticipant>) = "room.participant", true;
    /// A Participant has left.
    RoomLeft(RoomLeft) = "room.left", true;
    /// The Room's settings are others.
    RoomSettings(RoomSettingsNews) = "room.settings", true;
    /// Who waits in the lobby.
    RoomLobby(RoomLobby) = "room.lobby", true;
    /// Other Tracks are in one's slots, or more slots are wanted.
    RoomSlots(RoomSlots) = "room.slots", true;
    /// Who speaks; may get lost with a socket and is told again after a resume.
    RoomSpeakers(RoomSpeakers) = "room.speakers", false;
    /// How well a Participant is connected; may get lost with a socket and is told again after a resume.
    RoomQuality(RoomQuality) = "room.quality", false;
    /// A Track is not sent to one for lack of bandwidth, or is sent again.
    RoomPaused(RoomPaused) = "room.paused", true;
    /// Which Layers of an own Track anybody receives.
    RoomLayers(RoomLayers) = "room.layers", true;
    /// Whether one's media reaches the server.
    RoomConnection(RoomConnection) = "room.connection", true;
    /// Something was written.
    RoomChat(Box<RoomChatNews>) = "room.chat", true;
    /// A Participant reacts.
    RoomReaction(RoomReaction) = "room.reaction", true;
    /// A moderator muted an own Track.
    RoomMuted(RoomMuted) = "room.muted", true;
    /// A moderator would like one to unmute an own Track.
    RoomAsked(RoomAsked) = "room.asked", true;
    /// Somebody invites one into a Room.
    RoomInvited(RoomInvited) = "room.invited", true;
    /// Another Participant's media key, in an encrypted Room.
    RoomKeys(RoomKeysNews) = "room.keys", true;
    /// One is not in the Room any more.
    RoomEnded(RoomEnded) = "room.ended", true;
}

/// The Session, and what the client needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Welcome {
    /// The Session.
    pub session: SessionId,
    /// The secret that resumes it; a new one with every `welcome`.
    pub key: String,
    /// The last `seq` the server received.
    pub ack: u64,
    /// Whether the Session goes on; otherwise `seq` starts again at 1 on both sides.
    pub resumed: bool,
    /// The Account of the access token.
    pub account: AccountId,
    /// The User of the access token.
    pub user: UserId,
    /// The User's name.
    pub name: Option<String>,
    /// For the `RTCPeerConnection`.
    pub ice_servers: Vec<IceServer>,
    /// What the server will refuse beyond.
    pub limits: ServerLimits,
    /// Whether phones can be called: the access token allows it, and a gateway runs.
    #[serde(default)]
    pub phone: bool,
    /// How long the Session outlives its socket, in milliseconds.
    pub resume_ms: u64,
    /// How often each side may ask for a `pong`, in milliseconds.
    pub ping_ms: u64,
    /// The server's name and version.
    pub server: String,
}

/// An entry for `RTCConfiguration.iceServers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IceServer {
    /// `stun:`, `turn:` and `turns:` addresses.
    pub urls: Vec<String>,
    /// For TURN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// For TURN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// What the server will refuse beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerLimits {
    /// The longest frame, in bytes.
    pub frame_bytes_max: u32,
    /// Commands per second in the long run.
    pub commands_per_second: u32,
    /// Commands at once.
    pub commands_burst: u32,
    /// Calls of one User at once.
    pub calls_per_user_max: u32,
    /// The longest SDP, in bytes.
    pub sdp_bytes_max: u32,
    /// ICE candidates in one frame.
    pub candidates_max: u32,
    /// Participants of one Room; absent where there are no Rooms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_participants_max: Option<u32>,
}

/// The answer to a command; which form depends on the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OkData {
    /// To `call.*`, except those that are relayed.
    Call {
        /// The state that holds now.
        state: Box<CallState>,
        /// The same, sealed for `call.sync`.
        sealed: String,
    },
    /// To `presence.subscribe`.
    Presence {
        /// The Users and their status.
        users: Vec<UserPresence>,
    },
    /// To `presence.set`.
    Reachable {
        /// What holds for the User now.
        status: Availability,
        /// Whether a second Call may ring.
        call_waiting: bool,
        /// Whether a Device of the User has said so; otherwise that is how everybody begins.
        chosen: bool,
    },
    /// To `turn.refresh`.
    IceServers {
        /// With fresh credentials.
        ice_servers: Vec<IceServer>,
    },
    /// To `history.list`.
    History {
        /// Newest first.
        entries: Vec<HistoryEntry>,
        /// For `before` of the next page; absent on the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
        /// How many missed Calls are unseen.
        missed: u32,
    },
    /// To `voicemail.list`.
    Voicemails {
        /// Newest first.
        voicemails: Vec<VoicemailEntry>,
        /// For `before` of the next page; absent on the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
        /// How many messages nobody has heard.
        unheard: u32,
    },
    /// To `phone.settings` and `phone.set`.
    PhoneSettings(Box<PhoneSettings>),
    /// To `room.join`.
    RoomJoined(Box<RoomJoined>),
    /// To `room.join` of somebody who has to wait in the lobby.
    RoomWaiting {
        /// Always true.
        waiting: bool,
        /// The Room.
        room: RoomId,
    },
    /// To `room.offer`.
    RoomOffered(RoomOffered),
    /// To `room.list`.
    RoomParticipants {
        /// The longest first.
        participants: Vec<ParticipantState>,
        /// For the next page; absent on the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<ParticipantId>,
    },
    /// To `room.set`.
    RoomSettings {
        /// Those that hold now.
        settings: RoomSettings,
    },
    /// To `room.chat`.
    RoomChat {
        /// That of the message.
        id: MessageId,
        /// When it was written.
        at: Timestamp,
    },
    /// To `call.upgrade`.
    Upgraded {
        /// The Room.
        room: RoomName,
    },
    /// To every other command.
    Empty(Empty),
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorData {
    /// Stable: clients decide by it.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// With `conflict`: the state that holds now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Box<CallState>>,
    /// With `conflict`: the same, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// With `media_refused`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<RefusedMedia>,
}

impl ErrorData {
    /// An error with no more to say.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            state: None,
            sealed: None,
            reason: None,
        }
    }
}

/// The server will close the socket soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Goaway {
    /// How soon, in milliseconds.
    pub in_ms: u64,
    /// For people.
    pub reason: String,
}

/// A User's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserPresence {
    /// The User.
    pub user: UserId,
    /// The name, when known.
    pub name: Option<String>,
    /// How reachable.
    pub status: Status,
}

/// A User's new status.
pub type PresenceNews = UserPresence;

/// The User is rung.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Incoming {
    /// The Call.
    pub state: CallState,
    /// The same, sealed for `call.sync`.
    pub sealed: String,
    /// Whether the User is in a Call already.
    pub waiting: bool,
}

/// A Call changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Update {
    /// The Call.
    pub state: CallState,
    /// The same, sealed for `call.sync`.
    pub sealed: String,
    /// What happened.
    pub event: CallEvent,
    /// The User who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// The Device that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

/// What becomes of a phone call before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallProgress {
    /// The Call.
    pub call: CallId,
    /// How far it is.
    pub progress: ProgressKind,
    /// With `queued`: at which place it waits, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u16>,
}

/// How far a phone call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProgressKind {
    /// On its way.
    Trying,
    /// It rings there.
    Ringing,
    /// The other side can be heard in the Call's Room.
    EarlyMedia,
    /// It waits in a line.
    Queued,
}

impl CallProgress {
    /// What the gateway says, for those in the Call.
    pub const fn new(call: CallId, progress: Progress) -> Self {
        let (progress, position) = match progress {
            Progress::Trying => (ProgressKind::Trying, None),
            Progress::Ringing => (ProgressKind::Ringing, None),
            Progress::EarlyMedia => (ProgressKind::EarlyMedia, None),
            Progress::Queued { position } => (ProgressKind::Queued, Some(position)),
        };
        Self {
            call,
            progress,
            position,
        }
    }
}

/// A Call goes on in a Room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Upgraded {
    /// The Call; it ends once both sides say that the media arrives in the Room.
    pub call: CallId,
    /// The Room.
    pub room: RoomName,
    /// The User who wants it.
    pub by: UserId,
}

/// What happened to a Call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallEvent {
    /// The set of Devices that ring changed.
    Ringing,
    /// A Device answered.
    Answered,
    /// It is over.
    Ended,
    /// A side holds it.
    Held,
    /// A side took it back.
    Resumed,
    /// A blind transfer rings.
    Transferring,
    /// A blind transfer came to nothing.
    TransferFailed,
    /// A new Call in which this Device takes part without having dialled.
    Created,
    /// It came back after a crash.
    Adopted,
}

/// News for the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryNews {
    /// The Call that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<HistoryEntry>,
    /// How many missed Calls are unseen.
    pub missed: u32,
}
