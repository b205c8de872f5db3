//! What is kept of phone calls and for them: prompts, messages in mailboxes, call records.

use serde::{Deserialize, Serialize};

use super::Found;
use super::routing::Mailbox;
use super::text::{E164, Label, RowName, Sha256Hex, SipUser};
use crate::id::{AccountId, CallId, LegId, UserId, VoicemailId};
use crate::phone::PhoneEnd;
use crate::time::Timestamp;

/// The longest prompt or music, in milliseconds.
pub const PROMPT_MILLIS_MAX: u32 = 30 * 60 * 1_000;

/// The largest file of a prompt or of music, in bytes.
pub const PROMPT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The longest number or address in a call record, in bytes; the rest of a longer one is dropped.
pub const REMOTE_LEN_MAX: usize = 128;

/// What callers hear: words or music. The file lies in the object store under its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// For people.
    #[serde(default)]
    pub label: Option<Label>,
    /// What it is and where it lies.
    pub sha256: Sha256Hex,
    /// How it is coded.
    pub format: SoundFormat,
    /// Its length in milliseconds.
    pub millis: u32,
}

/// How sound in a file is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SoundFormat {
    /// WAV with linear samples of 16 bits, or G.711.
    Wav,
    /// Opus in Ogg (RFC 7845).
    OggOpus,
}

impl SoundFormat {
    /// How names of such files end.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::OggOpus => "ogg",
        }
    }
}

impl Prompt {
    pub(super) fn check(&self, found: &mut Found<'_>) {
        if !(1..=PROMPT_MILLIS_MAX).contains(&self.millis) {
            found.wrong(
                "millis",
                format!("{} is not 1 to {PROMPT_MILLIS_MAX}", self.millis),
            );
        }
    }
}

/// A message in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voicemail {
    /// The Account.
    pub account: AccountId,
    /// Its id; also the name of its object.
    pub id: VoicemailId,
    /// Whose.
    pub mailbox: Mailbox,
    /// The Call it was left in.
    pub call: Option<CallId>,
    /// Who left it, as it stands in the place of a User: `tel:+4930123456`, `sip:…`, or a User; `None` for whoever withheld
    /// their number.
    pub from: Option<String>,
    /// What the caller was called.
    pub name: Option<String>,
    /// When.
    pub left_at: Timestamp,
    /// How long it is, in milliseconds.
    pub millis: u32,
    /// How it is coded.
    pub format: SoundFormat,
    /// When somebody first heard it.
    pub heard_at: Option<Timestamp>,
}

/// The call record (CDR) of one Leg: a phone's or Trunk's side of a phone call, from its first request to its end. Whole in every
/// change, so that any of them can be the first to arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegRecord {
    /// The Account.
    pub account: AccountId,
    /// The Leg.
    pub leg: LegId,
    /// The phone call it belongs to: the Legs of one share it.
    pub call: CallId,
    /// Who called whom.
    pub direction: LegDirection,
    /// By what it went.
    pub by: LegBy,
    /// The User of ours who called, or was reached.
    pub user: Option<UserId>,
    /// The number or address that called, as it was shown; `None` where it was withheld.
    pub from: Option<String>,
    /// The number or address that was called.
    pub to: Option<String>,
    /// What the caller was called.
    pub name: Option<String>,
    /// The Number of ours that was dialled or shown.
    pub number: Option<E164>,
    /// The Queue the call came through.
    pub queue: Option<RowName>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it rang.
    pub ringing_at: Option<Timestamp>,
    /// When it was answered.
    pub answered_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub end: Option<PhoneEnd>,
    /// Which side ended it; `None` when time or a failure did.
    pub ended_by: Option<LegSide>,
    /// How it sounded, as far as anybody could tell.
    pub sound: Option<LegSound>,
    /// The object that keeps what was said.
    pub recording: Option<String>,
}

/// Who called whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegDirection {
    /// The other side called us.
    In,
    /// We called the other side.
    Out,
}

/// By what a Leg went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegBy {
    /// A Trunk.
    Trunk(RowName),
    /// A desk phone.
    Phone(SipUser),
}

/// Which side of a Leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegSide {
    /// We, or who was on our side of it.
    Ours,
    /// The phone or the provider.
    Theirs,
}

/// How a Leg sounded: what came from the other side, as we received it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegSound {
    /// The codec, by its name in SDP in lower case.
    pub codec: String,
    /// Whether media was encrypted.
    pub encrypted: bool,
    /// Packets received.
    pub packets_received: u64,
    /// Packets that should have come and didn't.
    pub packets_lost: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// The jitter of arrival at the end, in microseconds (RFC 3550 §6.4.1).
    pub jitter_micros: u32,
    /// The way there and back at the end, in microseconds, where RTCP told.
    pub round_trip_micros: Option<u32>,
    /// An estimate of the mean opinion score, in hundredths: 100 to 500 (ITU-T G.107).
    pub mos_hundredths: u16,
}

/// What a phone or a provider says of a number or a name, as it is kept: without control characters, at most [`REMOTE_LEN_MAX`] bytes,
/// the rest of a longer one dropped; `None` where nothing is left.
pub fn remote_text(text: &str) -> Option<String> {
    let mut kept: String = text.chars().filter(|c| !c.is_control()).collect();
    let end = kept.floor_char_boundary(REMOTE_LEN_MAX);
    kept.truncate(end);
    let kept = kept.trim();
    (!kept.is_empty()).then(|| kept.to_owned())
}

/// A place in a list, everything older than this: the text `<milliseconds>-<id>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptCursor {
    /// When the entry began.
    pub at: Timestamp,
    /// The number of its id.
    pub id: u128,
}

impl std::fmt::Display for KeptCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.at.as_millis(), LegId::from_u128(self.id))
    }
}

impl std::str::FromStr for KeptCursor {
    type Err = super::text::Unfit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unfit = || super::text::Unfit::new("this is no cursor of a list");
        let (millis, id) = text.split_once('-').ok_or_else(unfit)?;
        Ok(Self {
            at: Timestamp::from_millis(millis.parse().map_err(|_| unfit())?),
            id: id.parse::<LegId>().map_err(|_| unfit())?.as_u128(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_kept_short_and_plain() {
        assert_eq!(remote_text(" +49 30\r\n").as_deref(), Some("+49 30"));
        assert_eq!(remote_text("\0 "), None);
        let long = remote_text(&"ü".repeat(REMOTE_LEN_MAX)).unwrap();
        assert_eq!(long.len(), REMOTE_LEN_MAX);
    }

    #[test]
    fn a_cursor_comes_back_from_its_text() {
        let cursor = KeptCursor {
            at: Timestamp::from_millis(1_790_000_000_123),
            id: 77,
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "1", "1-", "-", "x-01ARZ3NDEKTSV4RRFFQ69G5FAV"] {
            assert!(text.parse::<KeptCursor>().is_err(), "{text}");
        }
    }
}
