//! TURN without sockets, tasks or clock: Allocations, Permissions and Channels (RFC 8656).
//!
//! ```text
//!            handle_client_packet                    handle_peer_datagram
//!  client ──────────────────────▶ ┌───────────────┐ ◀────────────────────── peer
//!                                 │     Relay     │
//!  client ◀── Forward::ToClient ──│  Allocations  │── Forward::ToPeer ────▶ peer
//!         ◀── Output::Send ───────└───────────────┘── Output::OpenPort ───▶ driver
//! ```
//!
//! Media leaves as the return value ([`Forward`]), which names a range of the packet that came in
//! and what to write in front of it, so a driver sends from the buffer it received into. All else
//! leaves through the output queue ([`Output`]). What many threads can do without asking, a [`Path`]
//! each does: media of UDP clients, as the Relay tells it by [`PathUpdate`]. A datagram from one Allocation to another of the
//! same relay is handed over inside the core and never touches the network.

mod allocate;
mod allocation;
mod authentication;
mod config;
mod credentials;
mod data;
mod discovery;
mod icmp;
mod limiter;
mod meter;
mod mobility;
mod nonce;
mod owners;
mod path;
pub mod peer_address;
mod ports;
mod quota;
mod refusal;
mod relay;
mod requests;
mod reservation;
mod responses;
mod stats;
mod tcp;
mod third_party;
mod usage;

pub use config::{Alternates, Config, Limits, REALM_LEN_MAX, RelayAddresses};
pub use credentials::{Credentials, SECRETS_MAX, Secret};
pub use discovery::Discovery;
pub use meter::{Budget, Meter, Rates};
pub use owners::Owners;
pub use path::{Path, PathUpdate, Way};
pub use peer_address::{Denial, Network, PeerPolicy, Route, Rule};
pub use refusal::Refusal;
pub use relay::{FiveTuple, Forward, Output, Prefix, Relay, RelayPort, Transport};
pub use stats::{Stats, Traffic};
pub use tcp::{ConnectionId, Direction, Pace};
pub use third_party::{TOKEN_CLOCK_SKEW, ThirdParty, server_name_len_max};
pub use usage::{AccountUsage, OTHERS, Tally, UsageByAccount};

/// How long a Permission lives without a refresh (RFC 8656 §9).
pub const PERMISSION_LIFETIME: std::time::Duration = std::time::Duration::from_secs(300);

/// How long a Channel lives without a refresh (RFC 8656 §12).
pub const CHANNEL_LIFETIME: std::time::Duration = std::time::Duration::from_secs(600);

/// How long a nonce is accepted. Every expiry costs a client one round trip, every accepted one
/// lets a recorded request be played again for that long.
pub const NONCE_LIFETIME: std::time::Duration = std::time::Duration::from_secs(600);
