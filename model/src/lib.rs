//! The vocabulary every role speaks: ids, the states of a Call, and the plain messages that pass between roles and nodes.
//!
//! Nothing here decides anything; the cores do. The same names appear in the JSON, the database columns and the logs.

pub mod bus;
pub mod call;
pub mod id;
pub mod media;
pub mod network;
pub mod people;
pub mod phone;
pub mod plain;
pub mod record;
pub mod room;
pub mod time;

pub use call::{CallState, End, EndReason, Media, Party, Phase, PhoneParty, Place, Transfer};
pub use id::{
    AccountId, ApiKeyId, CallId, DeviceId, LegId, MessageId, NodeId, ParticipantId, RoomId,
    SessionId, TrackId, UserId, VoicemailId,
};
pub use network::Network;
pub use people::{Availability, Grants, RoomGrants, Status};
pub use record::{CallRecord, RecordChange};
pub use room::{Permissions, Role, RoomName, Source};
pub use time::{Millis, Timestamp};
