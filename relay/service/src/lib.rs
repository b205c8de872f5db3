//! The relay's sockets: UDP, TCP and TLS clients in front of [`relay_core::Relay`].
//!
//! ```text
//! UDP listeners ─┐                    ┌─ relayed ports ── peers
//! TCP listeners ─┼─▶ Shard ─ Relay ───┤
//! TLS listeners ─┤   (one thread)     └─ another client of the same relay
//! accept_stream ─┘
//! ```
//!
//! One thread owns the core, its sockets and its streams; what happens on it takes no lock.
//! [`Relay::start`] begins it, the [`Handle`] talks to it.

pub mod client;
mod config;
mod handle;
mod metrics;
mod sender;
mod shard;
mod stream;
mod udp;

pub use config::{Config, StaticUser};
pub use handle::{Handle, Relay, StreamTransport};
pub use relay_core::{Credentials, Secret, Stats};
