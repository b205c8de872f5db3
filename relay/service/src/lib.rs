//! The relay's sockets: UDP, TCP, TLS and DTLS clients in front of [`relay_core::Relay`].
//!
//! ```text
//! UDP listeners ──▶ Worker ─ Path ──────┬─ relayed ports ── peers
//!                   (one for each core) ├─ another client of the same relay
//!                     │                 └─ the SFU of this process, in memory
//!                     │ requests  ▲ what was decided
//!                     ▼           │
//! TCP listeners ─┬─▶ Shard ─ Relay ──┬─ relayed ports ── peers
//! TLS listeners ─┤   (one thread)    ├─ another client of the same relay
//! accept_stream ─┤                  └─ the SFU of this process, in memory
//! DTLS sessions ─┘
//! ```
//!
//! Peers of TCP Allocations (RFC 6062) are connected to the streams of their clients on the control
//! thread, too.
//!
//! The control thread owns the core and the streams; the workers carry the media of UDP clients,
//! as the core tells them. What happens on any of them takes no lock. [`Relay::start`] begins them,
//! the [`Handle`] talks to the control thread.

pub mod client;
mod config;
mod dtls;
mod handle;
mod icmp;
mod metrics;
mod offload;
mod outgoing;
mod ports;
mod public_address;
mod sender;
mod shard;
mod stream;
mod tcp;
mod udp;
mod worker;
mod xdp;

pub use config::{Config, StaticUser, ThirdPartyAlgorithm, ThirdPartyConfig, ThirdPartyKey};
pub use dtls::{Certificate, Certificates};
pub use handle::{Handle, Relay, StreamTransport};
pub use public_address::{find as find_public_ips, follow as follow_public_ips};
pub use relay_core::peer_address::canonical;
pub use relay_core::{
    AccountUsage, Credentials, OTHERS, PeerPolicy, Refusal, Rule, Secret, Stats, UsageByAccount,
};
pub use xdp::Xdp;
