//! Who rings, who answers, who is here: the decisions of signaling without sockets, tasks, locks or a clock.
//!
//! ```text
//! hello, frames, disconnects, bus messages, answers, time → [Signaling] → frames, closes, records, queries, bus messages
//!                   news of the SFU and of the gateway → [Signaling] → commands to the SFU and to the gateway
//! ```
//!
//! Three layers: a Session keeps frames in order over any number of WebSockets; a Call is one state machine at its
//! owner, the node that took the invite; people are Users with their Devices and how reachable they are. Beside the Calls
//! are the Rooms: who is in, and what they may do; what reaches whom is the SFU's. Phones are sides of Calls and Participants of
//! Rooms like people; who speaks to their network is the gateway.

mod bucket;
mod bus;
mod calls;
mod commands;
mod history;
mod invite;
mod io;
mod limits;
mod lost;
mod mailbox;
mod people;
mod phones;
mod presence;
mod relay;
mod rng;
mod rooms;
mod seal;
mod session;
mod sessions;
mod signaling;
mod sync;
mod tell;
mod timers;
mod transfer;

pub use io::{Answer, ConnectionId, Counts, Output, QueryId, Question, VerifiedHello};
pub use limits::Limits;
pub use seal::SealSecret;
pub use signaling::Signaling;
