//! Messages between the nodes that serve one Account.
//!
//! A Call lives at one node, its owner; its Devices may have their Sessions elsewhere. Commands travel from a Session's
//! node to the owner, and what Devices are told travels back:
//!
//! ```text
//! Session's node  — Command, Leave →  owner
//!                 ←  Reply, Deliver —
//! every node      —  Presence, Hello →  every node with a Session of the Account
//! ```

use serde::{Deserialize, Serialize};

use crate::call::{Media, Phase, Place};
use crate::id::{AccountId, CallId, DeviceId, MessageId, NodeId, SessionId, UserId};
use crate::people::{Availability, Grants};
use crate::phone::Keys;
use crate::time::{Millis, Timestamp};

/// A message about one Account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The Account it is about.
    pub account: AccountId,
    /// The node that sent it.
    pub from: NodeId,
    /// What it says.
    pub body: Body,
}

/// Who should get a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// One node.
    Node(NodeId),
    /// Every other node that serves the message's Account.
    Account,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A command of a Device, for the Call's owner.
    Command(Box<Command>),
    /// The owner's answer to a command, for the Session that sent it.
    Reply {
        /// The Session.
        session: SessionId,
        /// The command's id.
        command: MessageId,
        /// Whether it was done; chooses between `ok` and `error`.
        done: bool,
        /// The frame's `data` as JSON.
        data: Box<str>,
    },
    /// A frame for Devices of a User.
    Deliver(Box<Deliver>),
    /// A Device left its Call at the owner.
    Leave(Leave),
    /// What the sending node knows about a User; replaces what it said before.
    Presence {
        /// The User.
        user: UserId,
        /// What it knows.
        known: UserOnNode,
    },
    /// The sending node begins to serve the Account and asks the others for their [`Body::Presence`] of it.
    Hello,
    /// The sending node is gone, as seen by the bus or said by itself; what it told no longer holds.
    NodeGone,
}

/// Who sends a command, as its Session's node has verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The Session the answer goes to.
    pub session: SessionId,
    /// The User.
    pub user: UserId,
    /// The User's name.
    pub name: Option<String>,
    /// The Device.
    pub device: DeviceId,
    /// The Device's public key, base64url.
    pub key: String,
    /// What the User may do.
    pub grants: Grants,
}

/// A command about a Call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Who sends it.
    pub origin: Origin,
    /// Its id; the same command sent again has the same.
    pub id: MessageId,
    /// The Call.
    pub call: CallId,
    /// What to do.
    pub action: Action,
}

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Ring a User.
    Invite {
        /// Whom.
        to: UserId,
        /// What the caller offers.
        media: Media,
        /// The caller's commitment for the short code.
        commitment: Option<String>,
        /// How long to ring.
        ttl: Millis,
    },
    /// This Device rings.
    Ringing,
    /// Answer.
    Accept {
        /// The revision the Device knows.
        rev: u32,
    },
    /// Refuse.
    Decline {
        /// The revision the Device knows.
        rev: u32,
        /// Whether to say busy.
        busy: bool,
    },
    /// Give up before an answer.
    Cancel {
        /// The revision the Device knows.
        rev: u32,
    },
    /// End the Call.
    Hangup {
        /// A number of Q.850.
        cause: Option<u8>,
    },
    /// Hold or take back.
    Hold {
        /// Whether to hold.
        on: bool,
    },
    /// Press keys for the phone on the other side.
    Keys {
        /// Which.
        keys: Keys,
    },
    /// Send the other side to a third User.
    TransferTo {
        /// Whom.
        to: UserId,
    },
    /// Connect the other sides of two Calls.
    TransferWith {
        /// The other Call.
        with: CallId,
    },
    /// Hand back a sealed state.
    Sync {
        /// As the server sealed it.
        sealed: Box<str>,
    },
    /// Tell the other Device in which Room to go on.
    Upgrade,
    /// The other side's media arrives there.
    Moved {
        /// Where.
        to: Place,
    },
    /// Tell the state.
    State,
    /// Pass a frame to the other Device.
    Relay(Relay),
}

/// A frame from Device to Device of an active Call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// Which kind.
    pub kind: RelayKind,
    /// The frame's `data` as JSON, with the sender's Device in it.
    pub data: Box<str>,
}

/// Which kind of frame is relayed, and the generation it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayKind {
    /// A step of the short code.
    Verify,
    /// An SDP offer of this generation.
    Offer(u64),
    /// The SDP answer to the offer of this generation.
    Answer(u64),
    /// ICE candidates of this generation.
    Candidates(u64),
    /// A wish for an ICE restart.
    Restart,
    /// What the Device sends now.
    Media,
}

/// A frame for Devices of a User.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deliver {
    /// The User.
    pub user: UserId,
    /// One Device, or all of them.
    pub device: Option<DeviceId>,
    /// A Device that need not be told.
    pub except: Option<DeviceId>,
    /// The frame's `type`.
    pub kind: Box<str>,
    /// The frame's `data` as JSON.
    pub data: Box<str>,
    /// What the User's node remembers about the Call, to find its owner; `None` when the frame is about no Call.
    pub call: Option<CallRef>,
}

/// What a node remembers about a Call that lives elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRef {
    /// The Call.
    pub call: CallId,
    /// The node where it lives.
    pub owner: NodeId,
    /// Where it is in its life.
    pub phase: Phase,
}

/// A Device's Session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// The User.
    pub user: UserId,
    /// The Device.
    pub device: DeviceId,
    /// The Call.
    pub call: CallId,
    /// Until when a `call.sync` of the Device takes it back; zero when the Device is gone for good.
    pub grace: Millis,
}

/// What one node knows about a User.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct UserOnNode {
    /// The name, from the newest Session there.
    pub name: Option<String>,
    /// The Devices with a Session there.
    pub devices: Vec<DeviceId>,
    /// Whether one of them may answer.
    pub may_answer: bool,
    /// What the User said last there about being reachable.
    pub availability: Availability,
    /// Whether a second Call may ring.
    pub call_waiting: bool,
    /// When the User said so; the newest counts.
    pub set_at: Timestamp,
    /// The Calls of the User which that node owns and which have not ended.
    pub calls: Vec<CallId>,
    /// Whether a Device of the User takes part in one of them.
    pub in_call: bool,
}

impl UserOnNode {
    /// Whether the node has nothing to do with the User.
    pub fn is_nothing(&self) -> bool {
        self.devices.is_empty() && self.calls.is_empty()
    }
}
