//! What signaling and the SFU tell each other about Rooms: commands flow down, events flow up, as plain values on bounded
//! channels. Nobody calls back.
//!
//! ```text
//! signaling ── MediaCommand ──▶ SFU
//!           ◀── MediaEvent ────
//! ```
//!
//! Signaling decides who is in a Room and what they may send; the SFU decides which packets of it reach whom.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{AccountId, ParticipantId, RoomId, TrackId};
use crate::room::{Permissions, Source};

/// The longest `mid` of a media description, in bytes: what a one-byte header extension can carry (RFC 8285 §4.2).
pub const MID_LEN_MAX: usize = 16;

/// A command to the SFU, for one Room of an Account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaCommand {
    /// The Account, given back in every event.
    pub account: AccountId,
    /// The Room.
    pub room: RoomId,
    /// What to do.
    pub kind: MediaCommandKind,
}

/// What the SFU should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaCommandKind {
    /// A Participant joins with an offer; the Room begins with its first one. Answered by [`MediaEventKind::Answered`] or
    /// [`MediaEventKind::Refused`].
    Join {
        /// The Participant.
        participant: ParticipantId,
        /// What they may send; enforced by packet.
        permissions: Permissions,
        /// Whether what they send and receive is encrypted from end to end: then nothing is agreed on but VP8 and Opus, of which enough
        /// stays in clear to be forwarded, for as long as they are there.
        encrypted: bool,
        /// Their offer.
        offer: MediaOffer,
    },
    /// A Participant joins who speaks and listens through [`plain`](crate::plain) rings within this process: no offer, no network. Answered by
    /// [`MediaEventKind::Connected`] once somebody has [taken their end](crate::plain::Attach), or by [`MediaEventKind::Refused`] with
    /// generation 0. `Offer` and `Want` are not for them: they hear who is heard.
    JoinPlain {
        /// The Participant.
        participant: ParticipantId,
        /// What they may send; enforced by packet.
        permissions: Permissions,
        /// Whether the Room is encrypted from end to end: then they are refused.
        encrypted: bool,
        /// Their one Track, a [`Source::Microphone`].
        track: TrackId,
        /// Whether it begins muted.
        muted: bool,
    },
    /// A later offer of a Participant: other Tracks, more slots, an ICE restart. Answered as `Join` is.
    Offer {
        /// The Participant.
        participant: ParticipantId,
        /// Their offer.
        offer: MediaOffer,
    },
    /// A Participant has left; the Room ends with its last one.
    Leave {
        /// The Participant.
        participant: ParticipantId,
    },
    /// A Participant may send something else from now on.
    Permit {
        /// The Participant.
        participant: ParticipantId,
        /// What they may send.
        permissions: Permissions,
    },
    /// A Track is forwarded no longer, or again.
    Mute {
        /// The Track.
        track: TrackId,
        /// Whether it is muted.
        muted: bool,
    },
    /// What a Participant wants to see and hear.
    Want {
        /// The Participant.
        participant: ParticipantId,
        /// Tracks that are not named are received if this holds: all sound, and video as slots and bandwidth allow.
        automatic: bool,
        /// The Tracks named; replaces all earlier wishes.
        wishes: Vec<Wish>,
    },
    /// The Room ends for all.
    End,
}

/// An offer and what its media descriptions are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaOffer {
    /// Repeated in the answer; grows with every offer of a Participant.
    pub generation: u32,
    /// The SDP. `sendonly` sections are the Participant's Tracks, `recvonly` ones their slots.
    pub sdp: String,
    /// Which section is which Track. Sections that send and are not named here are refused.
    pub tracks: Vec<TrackOffer>,
}

/// A Track of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackOffer {
    /// The Track.
    pub track: TrackId,
    /// Its media description (RFC 5888).
    pub mid: String,
    /// Where it comes from.
    pub source: Source,
    /// Whether it begins muted.
    pub muted: bool,
}

/// A wish about one Track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// The Track.
    pub track: TrackId,
    /// Whether it is wanted at all.
    pub wanted: bool,
    /// How high the picture is shown, in pixels of the screen; 0 means not visible now. `None`: unknown, as large as there is.
    pub height: Option<u16>,
    /// Whether it comes before all that are not pinned.
    pub pinned: bool,
    /// Higher comes first.
    pub priority: u8,
}

/// What a slot of a Participant carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slot {
    /// The `recvonly` section of their offer.
    pub mid: String,
    /// The Track that is received there now.
    pub track: Option<TrackId>,
}

/// How well a Participant is connected.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionQuality {
    /// Nothing comes from them any more.
    Lost,
    /// People notice it all the time.
    Poor,
    /// People may notice it.
    Good,
    /// As it should be.
    Excellent,
}

/// News of a Room from the SFU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaEvent {
    /// The Account, as in the command.
    pub account: AccountId,
    /// The Room.
    pub room: RoomId,
    /// What happened.
    pub kind: MediaEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaEventKind {
    /// The answer to an offer.
    Answered {
        /// The Participant.
        participant: ParticipantId,
        /// That of the offer.
        generation: u32,
        /// The SDP.
        sdp: String,
        /// What each of their slots carries.
        slots: Vec<Slot>,
    },
    /// An offer is refused; what was negotiated before goes on. After a refused `Join` the Participant is not in the Room.
    Refused {
        /// The Participant.
        participant: ParticipantId,
        /// That of the offer.
        generation: u32,
        /// Why.
        refusal: MediaRefusal,
    },
    /// ICE and DTLS have found the Participant, for the first time or again.
    Connected {
        /// The Participant.
        participant: ParticipantId,
    },
    /// Nothing has come from the Participant for a while; they may come back by themselves or with an ICE restart.
    Disconnected {
        /// The Participant.
        participant: ParticipantId,
    },
    /// Other Tracks are in a Participant's slots, or more slots are wanted.
    Slots {
        /// The Participant.
        participant: ParticipantId,
        /// Those that changed.
        slots: Vec<Slot>,
        /// How many audio slots there should be in all.
        audio_wanted: u16,
        /// How many video slots there should be in all.
        video_wanted: u16,
    },
    /// A video Track is not sent to a Participant for lack of bandwidth, or is sent again.
    Paused {
        /// The Participant who receives it.
        participant: ParticipantId,
        /// The Track.
        track: TrackId,
        /// Whether it is paused.
        paused: bool,
    },
    /// Which Layers of a Participant's own video Track anybody receives: the rest need not be sent.
    Layers {
        /// The Participant who sends it.
        participant: ParticipantId,
        /// The Track.
        track: TrackId,
        /// By rid, in the order of the offer; empty rids stand for Tracks without simulcast.
        wanted: Vec<LayerWanted>,
    },
    /// Who speaks now, the loudest first; empty when nobody does.
    Speakers {
        /// The Participants.
        speakers: Vec<ParticipantId>,
    },
    /// How well a Participant is connected, when it changes.
    Quality {
        /// The Participant.
        participant: ParticipantId,
        /// How well.
        quality: ConnectionQuality,
    },
    /// The SFU has given a Participant up; they are not in the Room's media any more.
    Gone {
        /// The Participant.
        participant: ParticipantId,
        /// Why.
        reason: GoneReason,
    },
    /// The Room's media is lost by a fault of ours, as when a shard ends: nobody is in it any more.
    Failed,
}

/// Whether a Layer is received by anybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LayerWanted {
    /// Its rid (RFC 8852); empty without simulcast.
    pub rid: String,
    /// Whether anybody receives it.
    pub wanted: bool,
}

/// Why an offer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum MediaRefusal {
    /// Not an SDP we can read, or one that says what none may.
    #[error("the SDP can't be read: {0}")]
    BadSdp(SdpFault),
    /// More media descriptions than the SFU allows.
    #[error("the SDP has too many media descriptions")]
    TooManySections,
    /// A fingerprint weaker than SHA-256, or none of SHA-256.
    #[error("the SDP has a DTLS fingerprint weaker than sha-256, or none of sha-256")]
    WeakFingerprint,
    /// Nothing of what is offered can be forwarded.
    #[error("no codec in common")]
    NoCodec,
    /// An older or repeated generation.
    #[error("a later offer was made already")]
    StaleGeneration,
    /// The Room or the server is full.
    #[error("no room for another participant")]
    Full,
    /// The Participant is not in the Room.
    #[error("not a participant of the room")]
    UnknownParticipant,
    /// The Room is encrypted from end to end, and the Participant has no keys.
    #[error("the room is encrypted from end to end")]
    Encrypted,
}

macro_rules! sdp_faults {
    ($($(#[doc = $doc:literal])* $name:ident = $label:literal, $text:literal;)*) => {
        /// What is wrong with an SDP; the text is for whoever wrote the client.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
        pub enum SdpFault {
            $($(#[doc = $doc])* #[error($text)] $name,)*
        }

        impl SdpFault {
            /// All faults.
            pub const ALL: [SdpFault; [$($label),*].len()] = [$(SdpFault::$name),*];

            /// The fault as the label of a metric.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(SdpFault::$name => $label,)*
                }
            }

            /// What to do about it.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(SdpFault::$name => $text,)*
                }
            }
        }
    };
}

sdp_faults! {
    /// Longer than any browser's with all the sections there may be.
    TooLong = "too_long", "it is longer than 256 KiB";
    /// A line that is longer than any that says something.
    LineTooLong = "line_too_long", "a line is longer than 4096 bytes";
    /// Nothing to negotiate.
    NoSections = "no_sections", "it does not begin with v=0, or has no media description";
    /// A kind of media we don't have.
    Media = "media", "a media description is not audio, video or application, or there are two of application";
    /// A transport we don't have (RFC 8829 §5.1.2).
    Protocol = "protocol", "a media description is neither UDP/TLS/RTP/SAVPF nor UDP/DTLS/SCTP";
    /// More than any browser has codecs.
    TooManyFormats = "too_many_formats", "a media description has more than 64 payload types";
    /// One payload type for two codecs of a bundle (RFC 9143 §9.1).
    RepeatedFormat = "repeated_format", "a payload type stands for two codecs";
    /// A `mid` that can't be answered or sent (RFC 5888 §4, RFC 8285 §4.2).
    Mid = "mid", "a mid is missing, is there twice, is no token, or is longer than 16 bytes";
    /// One `mid` for two media descriptions.
    RepeatedMid = "repeated_mid", "two media descriptions have one mid";
    /// Several transports (RFC 9143 §7.2).
    NotBundled = "not_bundled", "not all media descriptions are in one BUNDLE group";
    /// A `rid` that can't be sent (RFC 8852 §3).
    Rid = "rid", "a rid is there twice, or is not 1 to 16 letters and digits";
    /// More encodings than anybody needs.
    TooManyEncodings = "too_many_encodings", "a media description has more than 3 encodings";
    /// More SSRCs than encodings.
    TooManySsrcs = "too_many_ssrcs", "a media description has more than 16 SSRCs";
    /// One SSRC for two streams.
    RepeatedSsrc = "repeated_ssrc", "an SSRC stands for two streams";
    /// Credentials that RFC 8839 §5.4 doesn't allow.
    Ice = "ice", "there is no ice-ufrag of 4 to 256, or no ice-pwd of 22 to 256 characters";
    /// Two identities in one bundle (RFC 9143 §7.1.3).
    Fingerprints = "fingerprints", "a fingerprint of sha-256 is not 32 bytes in hexadecimal, or there are two that differ";
    /// All else.
    Unreadable = "unreadable", "it is not an offer as RFC 8829 has it, or not one that can follow the last";
}

/// Why a Participant was given up by the SFU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GoneReason {
    /// ICE never found them, or lost them for too long.
    Unreachable,
    /// DTLS failed, or was closed by them.
    DtlsFailed,
    /// A fault of ours was met while serving them; the Room goes on.
    Failed,
}
