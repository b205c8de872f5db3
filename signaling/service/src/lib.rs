//! The driver of signaling: sockets, tokens, credentials and records around [`signaling_core::Signaling`].
//!
//! ```text
//! GET /v1/calls ─▶ http: origin, limits ─▶ socket task ─ hello ─▶ tokens
//!                                            ▲   │
//!                                     outbox │   │ frames, bounded
//!                                            │   ▼
//!                                       shard task: one Signaling ─▶ records, bus, questions
//!                                                            ▲ └───▶ commands to the SFU
//!                                                            └────── its news
//! ```
//!
//! Encoders and viewers that speak HTTP come to the shards by `whip`, as clients within this process.
//!
//! An Account belongs to one shard, chosen by its id; one task owns a shard. A socket task knows nothing about Calls,
//! a shard nothing about sockets.

mod addresses;
mod clock;
mod config;
mod demo;
mod figures;
mod http;
mod ice;
mod media;
mod phone;
mod service;
mod shard;
mod socket;
mod telephony;
pub mod tokens;
mod whip;

pub use config::{ClientInfo, Config, IceConfig, Secrets};
pub use media::Media;
pub use phone::Phone;
pub use service::Service;
pub use telephony::{Directory, Telephones};
