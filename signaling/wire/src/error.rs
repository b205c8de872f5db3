//! What goes wrong on the wire, with the codes clients rely on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::frame::Head;

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal,)*) => {
        /// Why a frame or command was refused. Stable: clients decide by it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum ErrorCode {
            $($(#[doc = $doc])* #[serde(rename = $code)] $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as it is sent.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
        }
    };
}

error_codes! {
    /// Not a frame: no JSON object, or an envelope field of the wrong kind.
    BadFrame = "bad_frame",
    /// A `type` this version does not know.
    UnknownType = "unknown_type",
    /// `data` does not fit the `type`.
    BadData = "bad_data",
    /// Larger than a limit of `welcome`.
    TooLarge = "too_large",
    /// A `seq` beyond the next one.
    WrongSequence = "wrong_sequence",
    /// The first frame was not `hello`.
    HelloExpected = "hello_expected",
    /// No valid access token.
    Unauthorized = "unauthorized",
    /// The access token has expired.
    TokenExpired = "token_expired",
    /// The access token does not allow it.
    Forbidden = "forbidden",
    /// More commands than the limit allows.
    RateLimited = "rate_limited",
    /// The User or the Account has too many Sessions.
    TooManySessions = "too_many_sessions",
    /// Too much was left unacknowledged; the Session has ended.
    SessionOverflow = "session_overflow",
    /// No such Call.
    UnknownCall = "unknown_call",
    /// The Device takes no part in the Call.
    NotAParty = "not_a_party",
    /// The Call has moved on; the state is in the answer.
    Conflict = "conflict",
    /// The Call is not in a phase that allows it.
    WrongPhase = "wrong_phase",
    /// The id names a Call already.
    CallExists = "call_exists",
    /// The User takes part in too many Calls.
    TooManyCalls = "too_many_calls",
    /// No such User can be called.
    UnknownUser = "unknown_user",
    /// A User cannot call themselves.
    SelfCall = "self_call",
    /// An older configuration than the one in force.
    StaleGeneration = "stale_generation",
    /// An SDP without a DTLS fingerprint of SHA-256 or stronger.
    WeakFingerprint = "weak_fingerprint",
    /// A state this installation did not seal.
    ForgedSnapshot = "forged_snapshot",
    /// The other Device has no Session.
    PeerGone = "peer_gone",
    /// No such Room, and one may not begin it.
    UnknownRoom = "unknown_room",
    /// Nobody else may come in.
    RoomLocked = "room_locked",
    /// The Room's media is encrypted from end to end, and what one would send is not.
    RoomEncrypted = "room_encrypted",
    /// No room for another Participant, or for another Room.
    RoomFull = "room_full",
    /// The Session is not in the Room, or who is named is not.
    NotInRoom = "not_in_room",
    /// The media can't be taken; the answer says why.
    MediaRefused = "media_refused",
    /// A moderator has just refused to let one in.
    LobbyDenied = "lobby_denied",
    /// No such message in a mailbox of the User.
    UnknownVoicemail = "unknown_voicemail",
    /// No phone can be called: no gateway runs.
    PhoneUnavailable = "phone_unavailable",
    /// The page's origin is not allowed.
    OriginRefused = "origin_refused",
    /// Our fault.
    Internal = "internal",
}

/// Why the server closes a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The client said `bye`.
    Bye,
    /// The server is about to restart.
    Goaway,
    /// A frame beyond `frame_bytes_max`.
    FrameTooLarge,
    /// A frame that cannot be read.
    BadFrame,
    /// A newer socket took the Session, or the Device.
    Replaced,
    /// A `seq` is missing.
    WrongSequence,
    /// No valid access token.
    Unauthorized,
    /// The client does not keep up, or is silent.
    TooSlow,
    /// The first frame was not `hello`, or came too late.
    HelloExpected,
    /// Too many Sessions.
    TooManyConnections,
    /// Far more commands than the limit allows.
    RateLimited,
}

impl CloseCode {
    /// The number in the close frame.
    pub const fn as_u16(self) -> u16 {
        match self {
            Self::Bye => 1000,
            Self::Goaway => 1001,
            Self::FrameTooLarge => 1009,
            Self::BadFrame => 4000,
            Self::Replaced => 4001,
            Self::WrongSequence => 4002,
            Self::Unauthorized => 4003,
            Self::TooSlow => 4004,
            Self::HelloExpected => 4005,
            Self::TooManyConnections => 4006,
            Self::RateLimited => 4008,
        }
    }
}

/// A frame we cannot read, and what to answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct DecodeError {
    /// `bad_frame`, `too_large`, `unknown_type` or `bad_data`; after the last two the envelope is whole.
    pub code: ErrorCode,
    /// For people.
    pub message: Box<str>,
    /// What could be read of the envelope.
    pub head: Box<Head>,
}

impl DecodeError {
    /// Whether the envelope could be read, so that the conversation can go on.
    pub fn is_envelope_whole(&self) -> bool {
        matches!(self.code, ErrorCode::UnknownType | ErrorCode::BadData)
    }
}
