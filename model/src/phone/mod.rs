//! What signaling and the phone gateway tell each other: commands flow down, events flow up, as plain values on bounded
//! channels. Nobody calls back.
//!
//! ```text
//! signaling ── PhoneCommand ──▶ gateway ── SIP ──▶ providers, desk phones
//!           ◀── PhoneEvent ────
//! ```
//!
//! Signaling decides who rings, who answers, and in which Room a phone is heard; the gateway decides which Trunk a call takes,
//! whom a Number reaches, and speaks SIP. Sound passes neither: the SFU and the gateway have it between them.
//!
//! A phone call has one id on both sides: that of the Call that dialled it, or one the gateway made for a call that came in. It
//! keeps it while it is handed from one Call of `calls.v1` to another.
//!
//! - Every `Dial` and every `Ring` comes to exactly one `Ended`, whoever ends it; after it the id means nothing to either side.
//! - A command about a call the gateway doesn't know is answered with `Ended` and [`PhoneReason::Lost`].
//! - When the channels break, all phone calls have ended.

mod reason;
pub mod rows;
mod target;

use crate::id::{AccountId, CallId, ParticipantId, RoomId, TrackId, UserId};
use crate::room::{Role, RoomName};
use crate::time::Millis;
use rows::Voicemail;

pub use reason::{PhoneEnd, PhoneReason};
pub(crate) use target::is_of_phone;
pub use target::{PHONE_TARGET_LEN_MAX, PhoneTarget, PhoneTargetError};

/// How many Users one [`PhoneEventKind::Ring`] may ring; more are not rung.
pub const USERS_RUNG_MAX: usize = 32;
/// The longest name of a caller, in bytes, without control characters; the rest of a longer one is dropped.
pub const CALLER_NAME_LEN_MAX: usize = 128;

/// A command to the gateway, about one phone call of an Account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneCommand {
    /// The Account, given back in every event.
    pub account: AccountId,
    /// The phone call.
    pub call: CallId,
    /// What to do.
    pub kind: PhoneCommandKind,
}

/// What the gateway should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PhoneCommandKind {
    /// Dial. What the other side sends before it answers is heard in `place`, too.
    Dial(Box<Dial>),
    /// For a call that came in: at least one Device of the Users rings.
    Ringing,
    /// For a call that came in: a User has answered; it is heard in `place`.
    Answer {
        /// Who.
        user: UserId,
        /// Where it is heard.
        place: PhonePlace,
    },
    /// For a call that came in: this User does not take it. The gateway knows whom else to ask, or what to tell the caller.
    Unanswered {
        /// Who.
        user: UserId,
        /// Why.
        why: Unanswered,
    },
    /// The call is heard somewhere else from now on: it was transferred, or signaling has begun anew. The old place is gone.
    Move {
        /// Where.
        place: PhonePlace,
    },
    /// Send keys, one after the other.
    Keys(Keys),
    /// Hold the other side, or take it back.
    Hold {
        /// Whether it is held.
        on: bool,
    },
    /// End the call.
    HangUp {
        /// The number of Q.850 that says why.
        cause: u8,
    },
}

/// Whom to dial, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// Who dials, or hands the other side of a call over: the Account's rules are about them.
    pub user: UserId,
    /// Their name, when known.
    pub name: Option<String>,
    /// Whom.
    pub to: PhoneTarget,
    /// Where it is heard.
    pub place: PhonePlace,
    /// How long to let it ring.
    pub ring: Millis,
}

/// Where a phone call is heard: as a Participant of a Room who sends one Track of sound. Signaling has told the SFU already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PhonePlace {
    /// The Room.
    pub room: RoomId,
    /// The Participant.
    pub participant: ParticipantId,
    /// The Track.
    pub track: TrackId,
}

/// Why a User does not take a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unanswered {
    /// Nobody answered in time.
    Missed,
    /// The User declined.
    Declined,
    /// The User is busy, by the rules or by choice.
    Busy,
    /// No Device is reachable.
    Unavailable,
    /// Something broke.
    Failed,
}

/// News of a phone call from the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneEvent {
    /// The Account.
    pub account: AccountId,
    /// The phone call.
    pub call: CallId,
    /// What happened.
    pub kind: PhoneEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PhoneEventKind {
    /// A call has come in that Users should be rung for. It comes again for the same call when others should be, as a Queue
    /// has it: those who ring go on ringing. Every User is answered for once, by `Answer` or `Unanswered`.
    Ring(Box<Ring>),
    /// The call was answered by something that is no Device of a browser: those who ring stop, and have not missed it.
    AnsweredElsewhere,
    /// What becomes of a call that was dialled, before it is answered.
    Progress(Progress),
    /// The other side has answered.
    Answered,
    /// The other side has pressed a key.
    Key(Key),
    /// The other side holds the call, or has taken it back.
    Held {
        /// Whether it holds.
        on: bool,
    },
    /// The caller has left a message. What was said is in the object store already; signaling writes the row.
    Voicemail(Box<LeftVoicemail>),
    /// The caller has shown the PIN of a Room. Signaling takes the phone in and says [`PhoneCommandKind::Move`], or hangs up.
    Enter(Box<Enter>),
    /// The call is over.
    Ended(PhoneEnd),
}

/// A phone that may join a Room by its PIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enter {
    /// The Room.
    pub room: RoomName,
    /// What the phone may do there.
    pub role: Role,
    /// Whether it waits until somebody in the Room admits it.
    pub lobby: bool,
    /// Whether it may begin the Room.
    pub may_begin: bool,
    /// The caller; `None` when they keep it to themselves.
    pub from: Option<PhoneTarget>,
    /// What the caller, or who knows their number, calls them.
    pub name: Option<String>,
    /// The Number they dialled.
    pub to: Option<PhoneTarget>,
}

/// A message that was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftVoicemail {
    /// The message.
    pub message: Voicemail,
    /// Whose mailbox it is: [`rows::Telephony::users_of_mailbox`].
    pub users: Vec<UserId>,
}

/// Who should be rung, by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// The Users, each of them on all their Devices; at most [`USERS_RUNG_MAX`].
    pub users: Vec<UserId>,
    /// The caller; `None` when they keep it to themselves.
    pub from: Option<PhoneTarget>,
    /// What the caller, or who knows their number, calls them.
    pub name: Option<String>,
    /// The Number they dialled.
    pub to: Option<PhoneTarget>,
    /// How long these Users are rung.
    pub ring: Millis,
}

/// What becomes of a call before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Progress {
    /// It is on its way.
    Trying,
    /// It rings there.
    Ringing,
    /// The other side can be heard already: its own ringing, or an announcement.
    EarlyMedia,
    /// It waits in a line of theirs, where the other side says so.
    Queued {
        /// At which place, from 1.
        position: u16,
    },
}

/// A key of a phone (RFC 4733 §3.2): `0` to `9`, `*`, `#`, `A` to `D`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u8);

/// Keys pressed one after the other, 1 to [`Keys::LEN_MAX`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Keys(Box<[Key]>);

/// Not a key of a phone, or not as many as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 1 to {} keys of 0-9, *, # and A-D", Keys::LEN_MAX)]
pub struct KeyError;

/// All keys, in the order of their events (RFC 4733 table 7).
const KEYS: &[u8; 16] = b"0123456789*#ABCD";

impl Key {
    /// The key that looks like this.
    pub fn from_char(key: char) -> Result<Self, KeyError> {
        let key = u8::try_from(key).map_err(|_| KeyError)?;
        KEYS.contains(&key).then_some(Self(key)).ok_or(KeyError)
    }

    /// The key of an event of RFC 4733: 0 to 15.
    pub fn from_event(event: u8) -> Option<Self> {
        KEYS.get(usize::from(event)).copied().map(Self)
    }

    /// What it looks like.
    pub const fn as_char(self) -> char {
        self.0 as char
    }

    /// Its event in RFC 4733: 0 to 15.
    pub fn event(self) -> u8 {
        let at = KEYS.iter().position(|key| *key == self.0);
        at.and_then(|at| u8::try_from(at).ok()).unwrap_or(0) // a `Key` is one of them
    }
}

impl Keys {
    /// How many keys may be sent at once.
    pub const LEN_MAX: usize = 32;

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = Key> + '_ {
        self.0.iter().copied()
    }
}

impl From<Key> for Keys {
    fn from(key: Key) -> Self {
        Self([key].into())
    }
}

impl std::str::FromStr for Keys {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if !(1..=Self::LEN_MAX).contains(&text.len()) {
            return Err(KeyError);
        }
        let keys: Result<Vec<Key>, _> = text.chars().map(Key::from_char).collect();
        Ok(Self(keys?.into()))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Write::write_char(f, self.as_char())
    }
}

impl std::fmt::Display for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|key| key.fmt(f))
    }
}

/// What people press is theirs: a PIN, a card number. No log shows it.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl serde::Serialize for Keys {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Keys {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Keys {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Keys".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "pattern": "^[0-9*#A-D]{1,32}$",
            "description": "Keys of a phone, pressed one after the other.",
        })
    }
}

impl PhoneEnd {
    /// An end that nobody on the other side has said anything about.
    pub const fn of(reason: PhoneReason) -> Self {
        Self {
            reason,
            sip: None,
            cause: reason.cause(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_a_phone_and_not_too_many() {
        let parse = |text: &str| text.parse::<Keys>().map(|keys| keys.to_string());

        assert_eq!(parse("0123456789*#ABCD").as_deref(), Ok("0123456789*#ABCD"));
        assert_eq!(parse(&"1".repeat(32)), Ok("1".repeat(32)));
        for wrong in ["", "a", "E", "1 2", "+", "١", &"1".repeat(33)] {
            assert_eq!(parse(wrong), Err(KeyError), "{wrong}");
        }
    }

    #[test]
    fn a_key_has_the_event_of_the_rfc() {
        for event in 0..16 {
            assert_eq!(Key::from_event(event).map(Key::event), Some(event));
        }
        assert_eq!(Key::from_event(16), None);
        assert_eq!(Key::from_char('#').map(Key::event), Ok(11));
        assert_eq!(Key::from_char('D').map(Key::event), Ok(15));
    }

    #[test]
    fn what_was_pressed_is_not_in_a_log() {
        let keys: Keys = "7117".parse().unwrap();
        assert!(
            !format!(
                "{keys:?} {:?}",
                PhoneEventKind::Key(keys.iter().next().unwrap())
            )
            .contains('7')
        );
        assert_eq!(format!("{keys:?}"), "Keys(4)");
    }
}
