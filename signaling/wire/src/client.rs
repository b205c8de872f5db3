//! What a client sends. The doc comments become the descriptions in the schema.

use model::phone::Keys;
use model::{Availability, CallId, DeviceId, Media, Place, SessionId, UserId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::phone::{OnVoicemail, PhoneSettings, VoicemailList};
use crate::room::{
    OnRoom, RoomAdmit, RoomAnnounce, RoomAsk, RoomChat, RoomHand, RoomInvite, RoomJoin, RoomKeys,
    RoomList, RoomMetadata, RoomMute, RoomOffer, RoomReact, RoomRemove, RoomRole, RoomSet,
    RoomWant,
};
use crate::schema::FrameInfo;

/// The most Users one `presence.subscribe` may name.
const USERS_MAX: usize = 1_000;
/// The longest name of a Device, in bytes.
const DEVICE_NAME_LEN_MAX: usize = 128;
/// The longest access token, in bytes.
const TOKEN_LEN_MAX: usize = 8 * 1024;
/// The longest ICE candidate line, in bytes.
pub(crate) const CANDIDATE_LEN_MAX: usize = 1_024;
/// The longest `sdp_mid` or `username_fragment`, in bytes (RFC 8839 §5.4 allows a fragment of 256).
pub(crate) const CANDIDATE_TOKEN_LEN_MAX: usize = 256;
/// The longest cursor of the history, in bytes.
const CURSOR_LEN_MAX: usize = 128;
/// The longest sealed state, in bytes.
const SEALED_LEN_MAX: usize = 16 * 1024;
/// How long a Call may ring, in milliseconds.
const TTL_MS: std::ops::RangeInclusive<u64> = 5_000..=120_000;

macro_rules! client_frames {
    ($($(#[doc = $doc:literal])* $variant:ident($data:ty) = $name:literal $(, $unnumbered:ident)?;)*) => {
        /// A client's frame: its `type` chooses the variant, its `data` is the content.
        #[derive(Debug, Clone, PartialEq)]
        pub enum ClientFrame {
            $($(#[doc = $doc])* $variant($data),)*
        }

        impl ClientFrame {
            /// The `type`.
            pub const fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// Whether the frame carries a `seq`.
            pub const fn is_reliable(&self) -> bool {
                match self { $(Self::$variant(_) => true $(&& !stringify!($unnumbered).is_empty() && false)?,)* }
            }

            pub(crate) const INFO: &[FrameInfo] = &[$(FrameInfo {
                kind: $name,
                about: concat!($($doc,)*),
                reliable: true $(&& !stringify!($unnumbered).is_empty() && false)?,
                data: schemars::SchemaGenerator::subschema_for::<$data>,
            },)*];

            /// Reads `data` as that of `kind`; `None` for a `type` we do not know.
            pub(crate) fn decode(kind: &str, data: &str) -> Result<Option<Self>, DataError> {
                match kind {
                    $($name => {
                        let data: $data = serde_json::from_str(data)?;
                        data.check().map_err(DataError::Value)?;
                        Ok(Some(Self::$variant(data)))
                    })*
                    _ => Ok(None),
                }
            }
        }
    };
}

client_frames! {
    /// Opens or resumes a Session; the first frame on every socket.
    Hello(Hello) = "hello", unnumbered;
    /// Says what was received, when nothing else is to be sent.
    Ack(Empty) = "ack", unnumbered;
    /// Asks for `pong`.
    Ping(Empty) = "ping", unnumbered;
    /// Answers `ping`.
    Pong(Empty) = "pong", unnumbered;
    /// Ends the Session at once.
    Bye(Empty) = "bye", unnumbered;
    /// Asks for fresh TURN credentials.
    TurnRefresh(Empty) = "turn.refresh";
    /// Asks for the status of Users, and for news of it from now on.
    PresenceSubscribe(PresenceSubscribe) = "presence.subscribe";
    /// Says how reachable the User is.
    PresenceSet(PresenceSet) = "presence.set";
    /// Rings a User.
    CallInvite(Invite) = "call.invite";
    /// Says that this Device rings.
    CallRinging(OnCall) = "call.ringing";
    /// Answers a Call; the first Device wins.
    CallAccept(Accept) = "call.accept";
    /// Refuses a Call, for all Devices of the User.
    CallDecline(Decline) = "call.decline";
    /// Gives up before an answer.
    CallCancel(Accept) = "call.cancel";
    /// Ends a Call.
    CallHangup(Hangup) = "call.hangup";
    /// Holds a Call, or takes it back.
    CallHold(Hold) = "call.hold";
    /// Transfers a Call: blind with `to`, attended with `with`.
    CallTransfer(TransferRequest) = "call.transfer";
    /// Presses keys for the phone on the other side.
    CallDtmf(CallDtmf) = "call.dtmf";
    /// Takes both sides of a Call into a Room.
    CallUpgrade(OnCall) = "call.upgrade";
    /// Says that the other side's media arrives in the new place.
    CallMoved(Moved) = "call.moved";
    /// A step of the short code, relayed to the other Device.
    CallVerify(Verify) = "call.verify";
    /// What this Device sends now, relayed to the other Device.
    CallMedia(MediaSent) = "call.media";
    /// Hands a Call's sealed state back after a Session was lost.
    CallSync(Sync) = "call.sync";
    /// Asks for a Call's state.
    CallState(OnCall) = "call.state";
    /// An SDP offer, relayed to the other Device.
    SdpOffer(Sdp) = "sdp.offer";
    /// An SDP answer, relayed to the other Device.
    SdpAnswer(Sdp) = "sdp.answer";
    /// ICE candidates, relayed to the other Device.
    IceCandidates(Candidates) = "ice.candidates";
    /// Asks the other Device for an offer with an ICE restart.
    IceRestart(IceRestart) = "ice.restart";
    /// Asks for the User's Calls, newest first.
    HistoryList(HistoryList) = "history.list";
    /// Says that the User has seen the missed Calls.
    HistorySeen(Empty) = "history.seen";
    /// Asks for the messages in the User's mailboxes, newest first.
    VoicemailList(VoicemailList) = "voicemail.list";
    /// Says that a message was heard.
    VoicemailHeard(OnVoicemail) = "voicemail.heard";
    /// Deletes a message.
    VoicemailDelete(OnVoicemail) = "voicemail.delete";
    /// Asks how the User wants to be called by phone.
    PhoneSettings(Empty) = "phone.settings";
    /// Says how the User wants to be called by phone.
    PhoneSet(PhoneSettings) = "phone.set";
    /// Comes into a Room, or begins it.
    RoomJoin(RoomJoin) = "room.join";
    /// Offers other Tracks, more slots, or an ICE restart.
    RoomOffer(RoomOffer) = "room.offer";
    /// Leaves a Room.
    RoomLeave(OnRoom) = "room.leave";
    /// Asks for the Participants after the first ones.
    RoomList(RoomList) = "room.list";
    /// Mutes a Track, or unmutes an own one.
    RoomMute(RoomMute) = "room.mute";
    /// Says what to see and hear.
    RoomWant(RoomWant) = "room.want";
    /// Changes a Room's settings.
    RoomSet(RoomSet) = "room.set";
    /// Lets people of the lobby in, or does not.
    RoomAdmit(RoomAdmit) = "room.admit";
    /// Asks somebody to unmute a Track.
    RoomAsk(RoomAsk) = "room.ask";
    /// Invites a User into the Room.
    RoomInvite(RoomInvite) = "room.invite";
    /// Gives a Participant another role.
    RoomRole(RoomRole) = "room.role";
    /// Removes a Participant.
    RoomRemove(RoomRemove) = "room.remove";
    /// Ends a Room for everybody.
    RoomEnd(OnRoom) = "room.end";
    /// Raises the hand, or takes it down; a moderator those of others, too.
    RoomHand(RoomHand) = "room.hand";
    /// Shows a reaction.
    RoomReact(RoomReact) = "room.react";
    /// Writes to everybody, or to some.
    RoomChat(RoomChat) = "room.chat";
    /// Says something about oneself, for the application.
    RoomMetadata(RoomMetadata) = "room.metadata";
    /// Shows the others of an encrypted Room a key to wrap theirs for.
    RoomAnnounce(RoomAnnounce) = "room.announce";
    /// Gives others of an encrypted Room the own media key.
    RoomKeys(RoomKeys) = "room.keys";
}

/// Why `data` does not fit its `type`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    /// Wrong shape.
    #[error("{0}")]
    Shape(#[from] serde_json::Error),
    /// Right shape, impossible value.
    #[error("{0}")]
    Value(&'static str),
}

/// What a type alone cannot say about `data`.
pub(crate) trait Check {
    /// Fails with what is wrong, for people.
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

/// No content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Empty {}

impl Check for Empty {}

/// Who connects, and which Session to resume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// The access token: a JWT.
    pub token: String,
    /// The Device.
    pub device: DeviceInfo,
    /// The Session to resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// The Device that connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceInfo {
    /// The id the client keeps.
    pub id: DeviceId,
    /// What people call it.
    #[serde(default)]
    pub name: Option<String>,
    /// Its public key: ECDSA P-256, 65 bytes uncompressed point, base64url without padding.
    pub key: String,
}

/// The Session to resume, with the proof that it is the client's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resume {
    /// The Session.
    pub session: SessionId,
    /// The secret key of the latest `welcome`.
    pub key: String,
    /// The last `seq` the client received.
    pub ack: u64,
}

impl Check for Hello {
    fn check(&self) -> Result<(), &'static str> {
        let name_fits = self
            .device
            .name
            .as_ref()
            .is_none_or(|name| name.len() <= DEVICE_NAME_LEN_MAX);

        ensure(self.token.len() <= TOKEN_LEN_MAX, "token: too long")?;
        ensure(name_fits, "device.name: too long")?;
        ensure(
            is_device_key(&self.device.key),
            "device.key: not a P-256 point in base64url",
        )
    }
}

/// Whose status the client wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PresenceSubscribe {
    /// These Users (at most 1000); without it the whole Account.
    #[serde(default)]
    pub users: Option<Vec<UserId>>,
}

impl Check for PresenceSubscribe {
    fn check(&self) -> Result<(), &'static str> {
        ensure(
            self.users
                .as_ref()
                .is_none_or(|users| users.len() <= USERS_MAX),
            "users: more than 1000",
        )
    }
}

/// How reachable the User is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PresenceSet {
    /// The new status, if it changes.
    #[serde(default)]
    pub status: Option<Availability>,
    /// Whether a second Call may ring, if it changes.
    #[serde(default)]
    pub call_waiting: Option<bool>,
}

impl Check for PresenceSet {}

/// Whom to ring, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Invite {
    /// The new Call's id, made by the client.
    pub call: CallId,
    /// Whom to ring: a User, or a phone (`tel:`, `sip:`).
    pub to: UserId,
    /// What the caller offers to send.
    pub media: Media,
    /// The caller's commitment for the short code: SHA-256, base64url.
    #[serde(default)]
    pub commitment: Option<String>,
    /// How long to ring: 5 000 to 120 000 ms, 45 000 unless told.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
}

impl Check for Invite {
    fn check(&self) -> Result<(), &'static str> {
        ensure(
            self.ttl_ms.is_none_or(|ttl| TTL_MS.contains(&ttl)),
            "ttl_ms: not from 5000 to 120000",
        )?;
        ensure(
            self.commitment
                .as_ref()
                .is_none_or(|text| is_base64url(text, 32)),
            "commitment: not 32 bytes in base64url",
        )
    }
}

/// A Call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OnCall {
    /// The Call.
    pub call: CallId,
}

impl Check for OnCall {}

/// Keys of a phone, in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallDtmf {
    /// The Call.
    pub call: CallId,
    /// Which keys, one after the other.
    pub keys: Keys,
    /// The phone that pressed them; set by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
}

impl Check for CallDtmf {}

/// The other side's media arrives in another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// The Call.
    pub call: CallId,
    /// Where it arrives.
    pub to: Place,
}

impl Check for Moved {}

/// A Call at the revision the client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accept {
    /// The Call.
    pub call: CallId,
    /// The revision the client knows.
    pub rev: u32,
}

impl Check for Accept {}

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decline {
    /// The Call.
    pub call: CallId,
    /// The revision the client knows.
    pub rev: u32,
    /// What the caller hears.
    #[serde(default)]
    pub reason: DeclineReason,
}

/// What the caller hears of a refusal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeclineReason {
    /// No.
    #[default]
    Declined,
    /// Not now.
    Busy,
}

impl Check for Decline {}

/// The end of a Call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hangup {
    /// The Call.
    pub call: CallId,
    /// A number of Q.850 from 1 to 127, 16 unless told.
    #[serde(default)]
    pub cause: Option<u8>,
}

impl Check for Hangup {
    fn check(&self) -> Result<(), &'static str> {
        ensure(
            self.cause.is_none_or(|cause| (1..=127).contains(&cause)),
            "cause: not from 1 to 127",
        )
    }
}

/// Hold, or take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hold {
    /// The Call.
    pub call: CallId,
    /// Whether to hold.
    pub on: bool,
}

impl Check for Hold {}

/// Where a Call goes: exactly one of `to` and `with`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransferRequest {
    /// The Call.
    pub call: CallId,
    /// Blind: the User to ring.
    #[serde(default)]
    pub to: Option<UserId>,
    /// Attended: the other Call, whose other side is connected with this one's.
    #[serde(default)]
    pub with: Option<CallId>,
}

impl Check for TransferRequest {
    fn check(&self) -> Result<(), &'static str> {
        ensure(
            self.to.is_some() != self.with.is_some(),
            "not exactly one of to and with",
        )
    }
}

/// A step of the short code: exactly one of `commitment`, `answer` and `reveal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verify {
    /// The Call.
    pub call: CallId,
    /// The sender's Device; set by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DeviceId>,
    /// From the caller of a Call from a transfer: SHA-256, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commitment: Option<String>,
    /// From the callee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Shown>,
    /// From the caller, after the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reveal: Option<Shown>,
}

/// What a side shows for the short code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shown {
    /// The Device's public key, base64url.
    pub key: String,
    /// `sha-256 aa:bb:…` in lower case.
    pub fingerprint: String,
    /// 32 random bytes, base64url.
    pub nonce: String,
}

impl Check for Verify {
    fn check(&self) -> Result<(), &'static str> {
        let steps = [
            self.commitment.is_some(),
            self.answer.is_some(),
            self.reveal.is_some(),
        ];
        let one = steps.into_iter().filter(|step| *step).count() == 1;
        ensure(one, "not exactly one of commitment, answer and reveal")?;

        let commitment_fits = self
            .commitment
            .as_ref()
            .is_none_or(|text| is_base64url(text, 32));
        ensure(commitment_fits, "commitment: not 32 bytes in base64url")?;

        for shown in self.answer.iter().chain(&self.reveal) {
            ensure(
                is_device_key(&shown.key),
                "key: not a P-256 point in base64url",
            )?;
            ensure(
                shown.fingerprint.len() <= CANDIDATE_TOKEN_LEN_MAX,
                "fingerprint: too long",
            )?;
            ensure(
                is_base64url(&shown.nonce, 32),
                "nonce: not 32 bytes in base64url",
            )?;
        }

        Ok(())
    }
}

/// What a Device sends in a Call, as people see and hear it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MediaSent {
    /// The Call.
    pub call: CallId,
    /// The sender's Device; set by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DeviceId>,
    /// Whether its microphone is on.
    pub audio: bool,
    /// What its picture is; `null` while it sends none.
    #[serde(default)]
    pub video: Option<Picture>,
}

/// What a picture shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Picture {
    /// A camera's picture: it may be cut to fit.
    Camera,
    /// A shared screen or window: all of it matters.
    Screen,
}

impl Check for MediaSent {}

/// A sealed state handed back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sync {
    /// The Call.
    pub call: CallId,
    /// As it came with the latest state.
    pub sealed: String,
}

impl Check for Sync {
    fn check(&self) -> Result<(), &'static str> {
        ensure(self.sealed.len() <= SEALED_LEN_MAX, "sealed: too long")
    }
}

/// A session description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sdp {
    /// The Call.
    pub call: CallId,
    /// The sender's Device; set by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DeviceId>,
    /// Of an offer: higher than any this Device saw or sent in the Call. Of an answer: that of the offer.
    pub generation: u64,
    /// The description.
    pub sdp: String,
    /// By the Device's key: ECDSA P-256 with SHA-256, 64 bytes r‖s, base64url.
    pub signature: String,
}

impl Check for Sdp {
    fn check(&self) -> Result<(), &'static str> {
        ensure(
            is_base64url(&self.signature, 64),
            "signature: not 64 bytes in base64url",
        )
    }
}

/// ICE candidates, as they are found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidates {
    /// The Call.
    pub call: CallId,
    /// The sender's Device; set by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DeviceId>,
    /// The generation they belong to.
    pub generation: u64,
    /// At most `candidates_max`.
    pub candidates: Vec<Candidate>,
    /// There are no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<bool>,
}

/// One ICE candidate, with the fields of `RTCIceCandidateInit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// The candidate line.
    pub candidate: String,
    /// The m-section's mid.
    #[serde(default)]
    pub sdp_mid: Option<String>,
    /// The m-section's place.
    #[serde(default)]
    pub sdp_m_line_index: Option<u16>,
    /// The ICE user fragment.
    #[serde(default)]
    pub username_fragment: Option<String>,
}

impl Check for Candidates {
    fn check(&self) -> Result<(), &'static str> {
        for candidate in &self.candidates {
            let tokens = [&candidate.sdp_mid, &candidate.username_fragment];
            let tokens_fit = tokens
                .into_iter()
                .flatten()
                .all(|token| token.len() <= CANDIDATE_TOKEN_LEN_MAX);

            ensure(
                candidate.candidate.len() <= CANDIDATE_LEN_MAX,
                "candidate: too long",
            )?;
            ensure(tokens_fit, "sdp_mid or username_fragment: too long")?;
        }

        Ok(())
    }
}

/// A wish for an offer with an ICE restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IceRestart {
    /// The Call.
    pub call: CallId,
    /// The sender's Device; set by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DeviceId>,
}

impl Check for IceRestart {}

/// A page of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryList {
    /// `next` of the page before.
    #[serde(default)]
    pub before: Option<String>,
    /// How many, 1 to 100; 100 unless told.
    #[serde(default)]
    pub limit: Option<u16>,
}

impl Check for HistoryList {
    fn check(&self) -> Result<(), &'static str> {
        ensure(
            self.before
                .as_ref()
                .is_none_or(|cursor| cursor.len() <= CURSOR_LEN_MAX),
            "before: too long",
        )?;
        ensure(
            self.limit.is_none_or(|limit| (1..=100).contains(&limit)),
            "limit: not from 1 to 100",
        )
    }
}

pub(crate) fn ensure(fine: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if fine { Ok(()) } else { Err(otherwise) }
}

/// Whether `text` is base64url without padding of `len` bytes; the value of unused bits does not matter to us.
pub(crate) fn is_base64url(text: &str, len: usize) -> bool {
    text.len() == (len * 4).div_ceil(3)
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Whether `text` has the form of an uncompressed P-256 point: 65 bytes that begin with 4.
pub(crate) fn is_device_key(text: &str) -> bool {
    is_base64url(text, 65) && text.starts_with('B') && matches!(text.as_bytes()[1], b'A'..=b'P')
}
