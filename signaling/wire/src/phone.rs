//! What a User has of telephony besides Calls: messages in their mailboxes, and how they want to be called.

use model::record::VoicemailEntry;
use model::{UserId, VoicemailId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::client::{Check, HistoryList, ensure};

/// How long Devices and desk phones may ring, in seconds.
const RING_SECONDS: std::ops::RangeInclusive<u16> = 5..=300;
/// The longest number of a forward, as it is typed, and the longest words for what is no number, in bytes.
const NUMBER_LEN_MAX: usize = 64;
const OTHER_LEN_MAX: usize = 256;

/// A page of the messages in the User's mailboxes.
pub type VoicemailList = HistoryList;

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OnVoicemail {
    /// The message.
    pub voicemail: VoicemailId,
}

impl Check for OnVoicemail {}

/// News of the User's mailboxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VoicemailNews {
    /// A message that was left, or heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<VoicemailEntry>,
    /// A message that is there no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<VoicemailId>,
    /// How many messages nobody has heard.
    pub unheard: u32,
}

/// How a User wants to be called by phone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PhoneSettings {
    /// Nothing rings: calls go where `forward.busy` says.
    pub do_not_disturb: bool,
    /// Whether a second call rings while there is one.
    pub call_waiting: bool,
    /// How long it rings before `forward.no_answer`, from 5 to 300 seconds.
    pub ring_seconds: u16,
    /// Whether calls that reach nobody may leave a message, where `forward` says nothing else.
    pub voicemail: bool,
    /// Where calls go that don't reach the User.
    pub forward: PhoneForwards,
}

/// Where calls go that don't reach a User; nowhere in particular where it is `null`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PhoneForwards {
    /// All calls, without ringing.
    pub always: Option<PhoneForward>,
    /// Those that come while the User is in one, or wants not to be disturbed.
    pub busy: Option<PhoneForward>,
    /// Those nobody answers.
    pub no_answer: Option<PhoneForward>,
    /// Those that come while no Device and no desk phone is there.
    pub offline: Option<PhoneForward>,
}

/// Where a call goes instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PhoneForward {
    /// Into the User's mailbox.
    Voicemail,
    /// To another User.
    User(UserId),
    /// To a number, as it would be dialled.
    Number(String),
    /// To what only an administrator chooses, in words for people. It stays as it is when it comes back.
    Other(String),
}

impl Check for PhoneSettings {
    fn check(&self) -> Result<(), &'static str> {
        ensure(
            RING_SECONDS.contains(&self.ring_seconds),
            "ring_seconds: not from 5 to 300",
        )?;
        let forward = &self.forward;
        let all = [
            &forward.always,
            &forward.busy,
            &forward.no_answer,
            &forward.offline,
        ];
        let fits = |forward: &PhoneForward| match forward {
            PhoneForward::Number(number) => number.len() <= NUMBER_LEN_MAX,
            PhoneForward::Other(words) => words.len() <= OTHER_LEN_MAX,
            PhoneForward::Voicemail | PhoneForward::User(_) => true,
        };
        ensure(all.into_iter().flatten().all(fits), "forward: too long")
    }
}
