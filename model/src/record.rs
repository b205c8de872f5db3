//! What the records keep: changes a core reports, and history as it is read back.

use std::ops::AddAssign;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::call::{EndReason, Media};
use crate::id::{AccountId, CallId, DeviceId, NodeId, UserId, VoicemailId};
use crate::phone::rows::{LegRecord, Mailbox, RowName, Voicemail};
use crate::phone::{PhoneReason, PhoneTarget};
use crate::time::Timestamp;

/// A change the records must keep. The driver applies them in the order they come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordChange {
    /// A Call was invited. Insert the row, or leave an existing one as it is.
    CallBegun(Box<CallRecord>),
    /// A Call was answered. Insert or update the row, unless it has ended.
    CallAnswered(Box<CallRecord>),
    /// A Call ended. Insert or update the row, whatever end it holds: after a crash a Call can come back and end in another
    /// way, and the last end is the one everybody saw.
    CallEnded(Box<CallRecord>),
    /// A Call was under way when the server crashed, and nobody brought it back. Insert or update the row, unless it has ended.
    CallLost(Box<CallRecord>),
    /// A User was seen. Insert, or update name and time.
    UserSeen {
        /// The Account.
        account: AccountId,
        /// The User.
        user: UserId,
        /// The name of the access token.
        name: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// A Device was seen. Insert, or update name, key and time.
    DeviceSeen {
        /// The Account.
        account: AccountId,
        /// The User.
        user: UserId,
        /// The Device.
        device: DeviceId,
        /// What the client calls it.
        name: Option<String>,
        /// Its public key, base64url.
        key: String,
        /// When.
        at: Timestamp,
    },
    /// A User looked at their history: missed Calls up to `at` no longer count.
    HistorySeen {
        /// The Account.
        account: AccountId,
        /// The User.
        user: UserId,
        /// When.
        at: Timestamp,
    },
    /// What a relay carried, as far as it has come. Insert the rows, or put them in place of those of the same key: each is a
    /// sum since the process began, never less than the one before.
    RelayUsed(Vec<RelayUsage>),
    /// A Leg of a phone call began, rang, was answered or ended. Insert the row, or update it unless it has ended.
    Leg(Box<LegRecord>),
    /// A message was left in a mailbox. Insert the row, or leave an existing one as it is.
    VoicemailLeft(Box<Voicemail>),
    /// A message was heard. The first time stays.
    VoicemailHeard {
        /// The Account.
        account: AccountId,
        /// The message.
        id: VoicemailId,
        /// When.
        at: Timestamp,
    },
}

/// What one process relayed for one Account in one hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayUsage {
    /// The Account as user names of the relay say it: an id, or the word an operator gave a static user.
    pub account: Box<str>,
    /// When the hour began.
    pub hour: Timestamp,
    /// The process, which has another id after each start.
    pub node: NodeId,
    /// The sums.
    pub relayed: Relayed,
}

/// What was relayed: payload, without headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// Allocations granted.
    pub allocations: u64,
    /// Packets from clients toward peers; byte streams have none.
    pub packets_to_peers: u64,
    /// Bytes from clients toward peers.
    pub bytes_to_peers: u64,
    /// Packets from peers to clients; byte streams have none.
    pub packets_to_clients: u64,
    /// Bytes from peers to clients.
    pub bytes_to_clients: u64,
}

impl AddAssign for Relayed {
    fn add_assign(&mut self, other: Self) {
        self.allocations += other.allocations;
        self.packets_to_peers += other.packets_to_peers;
        self.bytes_to_peers += other.bytes_to_peers;
        self.packets_to_clients += other.packets_to_clients;
        self.bytes_to_clients += other.bytes_to_clients;
    }
}

/// What was relayed for one Account in one day (UTC).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DayOfRelay {
    /// The Account, as in [`RelayUsage`].
    pub account: Box<str>,
    /// When the day began.
    pub day: Timestamp,
    /// The sums.
    #[serde(flatten)]
    pub relayed: Relayed,
}

/// The history row of a Call, whole in every change so that any of them can be the first to arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// The Account.
    pub account: AccountId,
    /// The Call; the key of the row together with the Account.
    pub call: CallId,
    /// Who rang.
    pub caller: Participant,
    /// Who was rung.
    pub callee: Participant,
    /// What was offered.
    pub media: Media,
    /// When it was invited.
    pub created_at: Timestamp,
    /// When it was answered.
    pub answered_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it ended.
    pub reason: Option<EndReason>,
    /// The number of Q.850 for why it ended.
    pub cause: Option<u8>,
    /// What the phone network said of its end; `None` where no phone took part.
    pub phone: Option<PhoneReason>,
    /// Who ended it; `None` when the server did.
    pub ended_by: Option<UserId>,
    /// Whether the callee missed it.
    pub missed: bool,
    /// The Call this one continues.
    pub replaces: Option<CallId>,
    /// The Call that took over.
    pub into: Option<CallId>,
}

/// A place among the Calls without an end, oldest first: everything after this row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenCallsCursor {
    /// When the Call was invited.
    pub created_at: Timestamp,
    /// The Account.
    pub account: AccountId,
    /// The Call.
    pub call: CallId,
}

/// A User's part in a recorded Call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// The User.
    pub user: UserId,
    /// The name, when known to the Call's owner.
    pub name: Option<String>,
    /// The Device, once known.
    pub device: Option<DeviceId>,
}

/// One Call in a User's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// The Call.
    pub call: CallId,
    /// The other side.
    pub peer: Named,
    /// Who rang whom.
    pub direction: Direction,
    /// What was offered.
    pub media: Media,
    /// Why it ended; `null` while it goes on.
    pub reason: Option<EndReason>,
    /// What the phone network said of its end; absent where no phone took part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<PhoneReason>,
    /// Whether this User missed it.
    pub missed: bool,
    /// When it was invited.
    pub created_at: Timestamp,
    /// When it was answered.
    pub answered_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// A message in a mailbox, as those hear of it whose mailbox it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VoicemailEntry {
    /// The message.
    pub voicemail: VoicemailId,
    /// The Queue it was left for, whose members share it; absent for one of the User alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The Call it was left in.
    pub call: Option<CallId>,
    /// Who left it: a phone (`tel:`, `sip:`) or a User.
    pub peer: Named,
    /// When.
    pub left_at: Timestamp,
    /// How long it is, in milliseconds.
    pub millis: u32,
    /// Whether somebody has heard it.
    pub heard: bool,
}

/// A User with the name others see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Named {
    /// The User.
    pub user: UserId,
    /// The name, when known.
    pub name: Option<String>,
}

/// Who rang whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// This User rang.
    Out,
    /// This User was rung.
    In,
}

impl From<&Voicemail> for VoicemailEntry {
    /// What stands for nobody is told as a caller who keeps their number to themselves.
    fn from(message: &Voicemail) -> Self {
        let queue = match &message.mailbox {
            Mailbox::User(_) => None,
            Mailbox::Queue(name) => Some(RowName::to_string(name)),
        };
        let user = message.from.as_ref().and_then(|from| from.parse().ok());
        Self {
            voicemail: message.id,
            queue,
            call: message.call,
            peer: Named {
                user: user.unwrap_or_else(|| PhoneTarget::anonymous().user_id()),
                name: message.name.clone(),
            },
            left_at: message.left_at,
            millis: message.millis,
            heard: message.heard_at.is_some(),
        }
    }
}

impl CallRecord {
    /// The Call as `user` sees it in the history: the other side is the peer, and only a callee misses a Call.
    pub fn entry_for(&self, user: &UserId) -> HistoryEntry {
        let (direction, peer) = if self.caller.user == *user {
            (Direction::Out, &self.callee)
        } else {
            (Direction::In, &self.caller)
        };

        HistoryEntry {
            call: self.call,
            peer: Named {
                user: peer.user.clone(),
                name: peer.name.clone(),
            },
            direction,
            media: self.media,
            reason: self.reason,
            phone: self.phone,
            missed: self.missed && direction == Direction::In,
            created_at: self.created_at,
            answered_at: self.answered_at,
            ended_at: self.ended_at,
        }
    }
}
