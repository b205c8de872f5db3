//! The state of a Call, as its owner holds it and everybody involved sees it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{CallId, DeviceId, ParticipantId, UserId};
use crate::phone::{PhoneEnd, PhoneTarget};
use crate::room::RoomName;
use crate::time::Timestamp;

/// A Call after one of its transitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallState {
    /// The Call.
    pub call: CallId,
    /// Counts transitions, from 1.
    pub rev: u32,
    /// Counts owners, from 1: a crash that the Call survived adds one.
    pub epoch: u32,
    /// Where the Call is in its life; it only moves forward.
    pub phase: Phase,
    /// What the caller offered to send.
    pub media: Media,
    /// Who rings.
    pub caller: Party,
    /// Who is rung; the Device is known once one has accepted.
    pub callee: Party,
    /// The callee's Devices known to ring.
    pub ringing: Vec<DeviceId>,
    /// Who holds the Call.
    pub held_by: Vec<UserId>,
    /// When it was invited.
    pub created_at: Timestamp,
    /// When it was answered.
    pub answered_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The caller's commitment for the short code; `null` in a Call from a transfer.
    pub commitment: Option<String>,
    /// The blind transfer that rings now.
    pub transfer: Option<Transfer>,
    /// The Call this one continues, after a transfer.
    pub replaces: Option<CallId>,
    /// The Room this one continues, where only two were left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_room: Option<RoomName>,
    /// The Room where the two meet, when one of them is a phone: both Devices `room.join` it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomName>,
    /// How it ended.
    pub end: Option<End>,
}

/// Where a Call is in its life.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Invited, not answered.
    Ringing,
    /// Answered.
    Active,
    /// Over.
    Ended,
}

/// Where the media of two people can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the Call: between the two Devices.
    Call,
    /// In a Room: through the SFU.
    Room,
}

/// What a Call carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Media {
    /// Sound.
    pub audio: bool,
    /// Pictures.
    pub video: bool,
}

/// One side of a Call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Party {
    /// The User; the number or the address of a phone.
    pub user: UserId,
    /// The User's name, when known.
    pub name: Option<String>,
    /// The Device that takes part.
    pub device: Option<DeviceId>,
    /// That Device's public key: ECDSA P-256, uncompressed point, base64url without padding.
    pub key: Option<String>,
    /// What is known of a phone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<PhoneParty>,
}

/// A phone as a side of a Call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PhoneParty {
    /// The phone call: as it goes from one Call to another by a transfer, it keeps this id.
    pub call: CallId,
    /// The phone among the Participants of the Call's Room, once it is there.
    pub participant: Option<ParticipantId>,
    /// The Number of ours that it called.
    pub to: Option<PhoneTarget>,
}

/// A blind transfer that rings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transfer {
    /// Who transfers.
    pub by: UserId,
    /// Who is rung.
    pub to: UserId,
    /// The new Call.
    pub call: CallId,
}

/// How a Call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// The same as a number of ITU-T Q.850.
    pub cause: u8,
    /// Who ended it; `null` when the server did.
    pub by: Option<UserId>,
    /// The Call that took over.
    pub into: Option<CallId>,
    /// The Room where it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomName>,
    /// What the phone network says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<PhoneEnd>,
}

/// Why a Call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Somebody hung up.
    Hangup,
    /// The callee declined.
    Declined,
    /// The callee is busy, by the rules or by choice.
    Busy,
    /// The caller gave up before an answer.
    Cancelled,
    /// Nobody answered in time.
    Missed,
    /// No Device of the callee is reachable.
    Unavailable,
    /// Something broke.
    Failed,
    /// Another Call took over, by a transfer.
    Transferred,
    /// Another Call took over, because both sides rang each other.
    Merged,
    /// It goes on in a Room.
    Upgraded,
    /// A Session ended and did not come back.
    Gone,
    /// Another User took a phone call that rang for several.
    AnsweredElsewhere,
}

impl EndReason {
    /// The number ITU-T Q.850 gives this reason.
    pub const fn cause(self) -> u8 {
        match self {
            // Normal clearing.
            Self::Hangup | Self::Cancelled | Self::Transferred | Self::Merged | Self::Upgraded => {
                16
            }
            Self::Busy => 17,              // user busy
            Self::Missed => 19,            // no answer from user
            Self::Unavailable => 20,       // subscriber absent
            Self::Declined => 21,          // call rejected
            Self::AnsweredElsewhere => 26, // non-selected user clearing
            Self::Gone => 27,              // destination out of order
            Self::Failed => 41,            // temporary failure
        }
    }
}

impl CallState {
    /// Whether `user` is the caller or the callee.
    pub fn is_party(&self, user: &UserId) -> bool {
        self.caller.user == *user || self.callee.user == *user
    }

    /// Whether `device` of `user` takes part: the caller's, or the one that answered.
    pub fn takes_part(&self, user: &UserId, device: DeviceId) -> bool {
        [&self.caller, &self.callee]
            .into_iter()
            .any(|party| party.user == *user && party.device == Some(device))
    }

    /// The side of `user`.
    pub fn party(&self, user: &UserId) -> Option<&Party> {
        [&self.caller, &self.callee]
            .into_iter()
            .find(|party| party.user == *user)
    }

    /// The other side, as `user` sees it. Nobody calls themselves, so the User tells the sides apart.
    pub fn other_party(&self, user: &UserId) -> &Party {
        if self.caller.user == *user {
            &self.callee
        } else {
            &self.caller
        }
    }

    /// The phones in the Call.
    pub fn phones(&self) -> impl Iterator<Item = &PhoneParty> {
        [&self.caller, &self.callee]
            .into_iter()
            .filter_map(|party| party.phone.as_ref())
    }

    /// Whether the Call ended before any Device was rung: nobody was reachable, or the callee was busy by the rules.
    pub fn never_rang(&self) -> bool {
        self.end.as_ref().is_some_and(|end| match end.reason {
            EndReason::Unavailable => true,
            EndReason::Busy => end.by.is_none(),
            _ => false,
        })
    }

    /// Whether the Call ended without the callee having been able to do anything about it.
    pub fn is_missed(&self) -> bool {
        let Some(end) = &self.end else { return false };

        match end.reason {
            EndReason::Missed | EndReason::Cancelled => true,
            EndReason::Gone => self.answered_at.is_none(),
            _ => self.never_rang(),
        }
    }
}
