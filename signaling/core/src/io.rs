//! What goes into the core and what comes out.

use bytes::Bytes;
use model::bus::{Message, Target};
use model::media::MediaCommand;
use model::phone::PhoneCommand;
use model::record::{HistoryEntry, Named, OpenCallsCursor, VoicemailEntry};
use model::{
    AccountId, ApiKeyId, CallRecord, Grants, MessageId, RecordChange, RoomGrants, Timestamp,
    UserId, VoicemailId,
};
use signaling_wire::{CloseCode, DeviceInfo, ErrorCode, IceServer, PhoneSettings, Resume};

/// A WebSocket, named by the driver; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A `hello` whose access token the driver has verified.
#[derive(Debug, Clone)]
pub struct VerifiedHello {
    /// The frame's id, which the answer repeats.
    pub id: Option<MessageId>,
    /// The API key that signed the token.
    pub api_key: ApiKeyId,
    /// The Account of the API key.
    pub account: AccountId,
    /// The token's `sub`.
    pub user: UserId,
    /// The token's `name`; at most 128 bytes are kept.
    pub name: Option<String>,
    /// The token's `call` claim.
    pub grants: Grants,
    /// The token's `room` claim.
    pub room_grants: RoomGrants,
    /// Whether the token's time is over; then only a resume is granted.
    pub expired: bool,
    /// The Device.
    pub device: DeviceInfo,
    /// Whether a person is there. An encoder or a viewer over HTTP is in Rooms alone: it is not rung, makes nobody present, waits
    /// in no lobby and comes to moderate by no rule.
    pub attended: bool,
    /// The Session to resume.
    pub resume: Option<Resume>,
    /// A hash of the address the socket came from, for its limit; `None` when it cannot be told (behind an unknown
    /// proxy).
    pub address: Option<u64>,
    /// For `welcome`.
    pub ice_servers: Vec<IceServer>,
}

/// What the driver should do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a text frame.
    Send {
        /// The WebSocket.
        connection: ConnectionId,
        /// UTF-8. Shared with the Session until the client has acknowledged it, so it is not copied.
        text: Bytes,
        /// Whether nobody waits for it: it may leave a few milliseconds later, together with others.
        may_wait: bool,
    },
    /// Close a WebSocket after what was sent before. The core has forgotten it already.
    Close {
        /// The WebSocket.
        connection: ConnectionId,
        /// For the close frame.
        code: CloseCode,
        /// For people, at most 123 bytes.
        reason: &'static str,
    },
    /// Keep a change in the records, before any later query is answered.
    Record(RecordChange),
    /// Find something out and hand it to `handle_answer`. Every query is answered once.
    Query {
        /// Names the answer.
        query: QueryId,
        /// What to find out.
        question: Question,
    },
    /// Hand a command to the SFU; in order.
    Media(MediaCommand),
    /// Hand a command to the phone gateway; in order.
    Phone(PhoneCommand),
    /// Hand a message to the bus.
    Publish {
        /// Who should get it.
        to: Target,
        /// What it says.
        message: Message,
    },
}

impl Output {
    pub(crate) const fn send(connection: ConnectionId, text: Bytes) -> Self {
        Self::Send {
            connection,
            text,
            may_wait: false,
        }
    }
}

/// A question of the core to its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// What the core wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A page of a User's history, newest first; answered by [`Answer::History`].
    History {
        /// The Account.
        account: AccountId,
        /// The User.
        user: UserId,
        /// `next` of the page before, as the client handed it back; it can be anything.
        before: Option<String>,
        /// How many, 1 to 100.
        limit: u16,
    },
    /// How many missed Calls a User has not seen; answered by [`Answer::Missed`].
    Missed {
        /// The Account.
        account: AccountId,
        /// The User.
        user: UserId,
    },
    /// The names of Users the records know; answered by [`Answer::Directory`].
    Directory {
        /// The Account.
        account: AccountId,
        /// These Users; `None` means all.
        users: Option<Vec<UserId>>,
        /// At most so many.
        limit: usize,
    },
    /// Calls of the Accounts this core serves, or would, that have no end; answered by [`Answer::OpenCalls`].
    OpenCalls {
        /// Those that were invited before this.
        before: Timestamp,
        /// `next` of the page before.
        after: Option<OpenCallsCursor>,
        /// How many at most.
        limit: u16,
    },
    /// Fresh TURN credentials; answered by [`Answer::IceServers`].
    IceServers {
        /// The Account.
        account: AccountId,
        /// The User.
        user: UserId,
    },
    /// A page of the messages in a User's mailboxes, newest first; answered by [`Answer::Voicemails`].
    Voicemails {
        /// The Account.
        account: AccountId,
        /// The User.
        user: UserId,
        /// `next` of the page before, as the client handed it back; it can be anything.
        before: Option<String>,
        /// How many, 1 to 100.
        limit: u16,
    },
    /// How many messages in a User's mailboxes nobody has heard; answered by [`Answer::Unheard`].
    Unheard {
        /// The Account.
        account: AccountId,
        /// The User.
        user: UserId,
    },
    /// Note that a message was heard, if it is in a mailbox of the User; answered by [`Answer::Mailbox`].
    HearVoicemail {
        /// The Account.
        account: AccountId,
        /// The User.
        user: UserId,
        /// The message.
        voicemail: VoicemailId,
        /// When.
        at: Timestamp,
    },
    /// Delete a message, if it is in a mailbox of the User; answered by [`Answer::Mailbox`].
    DeleteVoicemail {
        /// The Account.
        account: AccountId,
        /// The User.
        user: UserId,
        /// The message.
        voicemail: VoicemailId,
    },
    /// How a User wants to be called by phone; answered by [`Answer::PhoneSettings`].
    PhoneSettings {
        /// The Account.
        account: AccountId,
        /// The User.
        user: UserId,
    },
    /// Keep how a User wants to be called by phone; answered by [`Answer::PhoneSettings`].
    SetPhone {
        /// The Account.
        account: AccountId,
        /// The User.
        user: UserId,
        /// All of it.
        settings: Box<PhoneSettings>,
    },
}

/// What the driver found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Question::History`].
    History {
        /// Newest first.
        entries: Vec<HistoryEntry>,
        /// For the next page; `None` on the last one.
        next: Option<String>,
        /// How many missed Calls are unseen.
        missed: u32,
    },
    /// To [`Question::Missed`].
    Missed(u32),
    /// To [`Question::Directory`].
    Directory(Vec<Named>),
    /// To [`Question::OpenCalls`].
    OpenCalls {
        /// The rows, oldest first.
        rows: Vec<CallRecord>,
        /// For the next page; `None` on the last one.
        next: Option<OpenCallsCursor>,
    },
    /// To [`Question::IceServers`].
    IceServers(Vec<IceServer>),
    /// To [`Question::Voicemails`].
    Voicemails {
        /// Newest first.
        entries: Vec<VoicemailEntry>,
        /// For the next page; `None` on the last one.
        next: Option<String>,
        /// How many messages nobody has heard.
        unheard: u32,
    },
    /// To [`Question::Unheard`].
    Unheard(u32),
    /// To [`Question::HearVoicemail`] and [`Question::DeleteVoicemail`]: it was done.
    Mailbox {
        /// Whose mailbox it is.
        users: Vec<UserId>,
        /// The message as it is now, or was.
        entry: Box<VoicemailEntry>,
    },
    /// To [`Question::PhoneSettings`] and [`Question::SetPhone`]: what holds.
    PhoneSettings(Box<PhoneSettings>),
    /// It is not done, and the client hears why.
    Refused {
        /// For the client.
        code: ErrorCode,
        /// For people.
        message: String,
    },
    /// It could not be found out; the client gets `internal`.
    Failed,
}

/// How much the core holds, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accounts with something going on.
    pub accounts: usize,
    /// Sessions with a socket.
    pub sessions_connected: usize,
    /// Sessions that wait for their client to come back.
    pub sessions_detached: usize,
    /// Calls that ring.
    pub calls_ringing: usize,
    /// Calls that were answered.
    pub calls_active: usize,
    /// Calls that are over and kept for late commands.
    pub calls_ended: usize,
    /// Phone calls, in both directions.
    pub phone_calls: usize,
    /// Rooms, with somebody in them or for a minute after.
    pub rooms: usize,
    /// Participants of Rooms.
    pub participants: usize,
    /// People in the lobbies of Rooms.
    pub waiting: usize,
}
