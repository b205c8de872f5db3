//! What the service can be told.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use signaling_core::Limits;

/// The `[signaling]` table of `offhook.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many tasks decide about calls; each Account belongs to one of them. 0 means one per CPU.
    pub shards: usize,
    /// How many WebSockets one address may have open; an IPv6 address counts with its whole /64. Many people can share an
    /// address: an office, a mobile network.
    pub connections_per_address_max: u32,
    /// How long a client may take from connecting to `hello`, in milliseconds.
    pub hello_ms: u64,
    /// How long a client may take no data while there is some for it, in milliseconds. Its socket is closed then; its Session
    /// can be resumed.
    pub stall_ms: u64,
    /// What one Session, User, Account or address may do.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: 0,
            connections_per_address_max: 2_000,
            hello_ms: 10_000,
            stall_ms: 10_000,
            limits: Limits::default(),
        }
    }
}

/// The secrets of the installation, the same on every node and after every restart.
#[derive(Clone)]
pub struct Secrets {
    /// Seals the states that clients hand back after a crash.
    pub seal: [u8; 32],
    /// Shared with the relay: makes the passwords of TURN.
    pub turn: String,
}

/// Without the secrets.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// Which STUN and TURN addresses clients are told; a port that is `None` is not offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceConfig {
    /// The host of the addresses; `None` means the one the client reached us by.
    pub host: Option<String>,
    /// STUN and TURN over UDP.
    pub udp_port: Option<u16>,
    /// TURN over TCP.
    pub tcp_port: Option<u16>,
    /// TURN over TLS.
    pub tls_port: Option<u16>,
    /// TURN over DTLS.
    pub dtls_port: Option<u16>,
    /// How long credentials are valid.
    pub ttl: Duration,
}

impl Default for IceConfig {
    fn default() -> Self {
        Self {
            host: None,
            udp_port: None,
            tcp_port: None,
            tls_port: None,
            dtls_port: None,
            ttl: Duration::from_secs(3_600),
        }
    }
}

/// Where a request came from, once trusted proxies were heard; the server adds it to every request as an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// The client's address.
    pub ip: IpAddr,
    /// The host, with the port if there is one, that the client reached us by.
    pub host: String,
    /// Whether the client speaks TLS, to us or to a trusted proxy.
    pub secure: bool,
}
