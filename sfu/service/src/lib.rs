//! The SFU's threads and sockets, in front of [`sfu_core`]: what reaches whom in a Room, from signaling's word to the wire.
//!
//! ```text
//! signaling ─ MediaCommand ─▶ control ─▶ ┌────────────────────────────────────────┐
//!           ◀─ MediaEvent ───────────────│ Shard: one thread, one port, some Rooms │ ◀─▶ Participants
//!                                        │  Peer (SDP, ICE, DTLS, SCTP: str0m)     │
//!                                        │  SRTP (sfu-rtp) ◀─▶ Room (sfu-core)     │
//! relay ◀── rings in memory ────────────▶└────────────────────────────────────────┘
//! ```
//!
//! A Room lives on one shard, so what happens to its packets takes no lock. The library negotiates; from the first byte of SRTP on
//! all is ours. [`Sfu::start`] begins the threads, the [`Handle`] talks to them.

mod bucket;
mod choice;
mod config;
mod data;
mod delivery;
mod doors;
mod exit;
mod figures;
mod handle;
pub mod intake;
mod keys;
#[cfg(test)]
mod oracle;
mod outbox;
mod outgoing;
mod packets;
mod participant;
mod peer;
mod plain;
mod rooms;
mod sdp;
mod shard;
mod shared;
mod slots;
mod stream;
mod timers;
mod udp;
mod waker;
mod wishes;

pub use config::Config;
pub use figures::{DataDrop, Drop, Figures};
pub use handle::{Handle, Sfu, Start};
pub use sdp::{OFFER_LEN_MAX, SECTIONS_MAX};
