//! What an operator decides about the core.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use relay_stun::AddressFamily;

use crate::discovery::Discovery;
use crate::meter::Rates;
use crate::peer_address::PeerPolicy;

/// The longest realm, in bytes. It stands in every answer to a stranger: with a longer one the
/// answer to a bare header would be more than three times as long, IP and UDP headers included.
pub const REALM_LEN_MAX: usize = 36;

/// The settings of a [`Relay`](crate::Relay).
#[derive(Debug, Clone)]
pub struct Config {
    /// The realm of the long-term credentials, at most [`REALM_LEN_MAX`] bytes.
    pub realm: String,
    /// Where relayed addresses are taken from.
    pub addresses: RelayAddresses,
    /// How much may be held at once.
    pub limits: Limits,
    /// The lifetime of an Allocation that asks for none, or for less (RFC 8656 §7.2: 600 s).
    pub lifetime_default: Duration,
    /// The longest lifetime granted (RFC 8656 §7.2 suggests 3,600 s).
    pub lifetime_max: Duration,
    /// Whether Allocations may move to another address of their client, over any transport
    /// (RFC 8016).
    pub mobility: bool,
    /// Whether clients over TCP and TLS may have TCP Allocations (RFC 6062); without, 442.
    pub tcp_allocations: bool,
    /// How long a connection to a peer may carry nothing before it is closed.
    pub connection_idle: Duration,
    /// Where clients find out how their NAT behaves (RFC 5780).
    pub discovery: Vec<Discovery>,
    /// Which peers may be reached.
    pub peers: PeerPolicy,
    /// Where clients are sent while this relay drains.
    pub alternates: Alternates,
}

impl Config {
    /// Which peers the relay lets its clients reach: the operator's word, and what it adds about
    /// its own relayed addresses.
    #[must_use]
    pub fn peer_policy(&self) -> PeerPolicy {
        let RelayAddresses { v4, v6, .. } = self.addresses;
        let relayed = [v4.map(IpAddr::V4), v6.map(IpAddr::V6)];
        let mut peers = self.peers.clone();
        peers.own.extend(relayed.into_iter().flatten());
        peers
    }
}

/// The servers that take the clients of a relay that drains (RFC 8489 §10).
#[derive(Debug, Clone, Default)]
pub struct Alternates {
    /// Their addresses; a client is sent to one of the family it came over. Without one it is
    /// refused with 508.
    pub servers: Vec<SocketAddr>,
    /// The domain in their certificate, for clients over TLS.
    pub domain: Option<String>,
}

/// The relayed addresses as clients and peers see them.
#[derive(Debug, Clone)]
pub struct RelayAddresses {
    /// The IPv4 address; without one such Allocations are refused with 440.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address; without one such Allocations are refused with 440.
    pub v6: Option<Ipv6Addr>,
    /// The ports.
    pub ports: RangeInclusive<u16>,
}

impl RelayAddresses {
    pub(crate) fn ip(&self, family: AddressFamily) -> Option<IpAddr> {
        match family {
            AddressFamily::V4 => self.v4.map(IpAddr::V4),
            AddressFamily::V6 => self.v6.map(IpAddr::V6),
        }
    }
}

/// Everything that grows has a limit here.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Allocations of all Users together; the next is refused with 508.
    pub allocations_max: usize,
    /// Allocations of one User; the next is refused with 486.
    pub allocations_per_user_max: usize,
    /// Allocations of all Users of one Account; the next is refused with 486.
    pub allocations_per_account_max: usize,
    /// What the Allocations of one User may relay; more is dropped.
    pub user_rates: Rates,
    /// What the Allocations of one Account may relay; more is dropped.
    pub account_rates: Rates,
    /// Permissions of one Allocation; the next is refused with 508.
    pub permissions_per_allocation_max: usize,
    /// Channels of one Allocation; the next is refused with 508.
    pub channels_per_allocation_max: usize,
    /// Connections to peers of all TCP Allocations together; the next is refused with 508, or closed
    /// where a peer makes it.
    pub connections_max: usize,
    /// Connections of one TCP Allocation.
    pub connections_per_allocation_max: usize,
    /// Those of them that wait for the peer or for the client.
    pub connections_unbound_per_allocation_max: usize,
    /// Connections of one User; the next is refused with 486.
    pub connections_per_user_max: usize,
    /// Connections of all Users of one Account; the next is refused with 486.
    pub connections_per_account_max: usize,
    /// Answers over UDP to all clients of one network, an IPv4 /24 or an IPv6 /48, that have not
    /// authenticated, in each second; four seconds' worth may go out at once, and what is beyond
    /// gets silence. Zero: no bound.
    pub stranger_answers_per_second_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            allocations_max: 10_000,
            allocations_per_user_max: 64,
            allocations_per_account_max: 5_000,
            user_rates: Rates::default(),
            account_rates: Rates::default(),
            permissions_per_allocation_max: 64,
            channels_per_allocation_max: 64,
            connections_max: 4_096,
            connections_per_allocation_max: 64,
            connections_unbound_per_allocation_max: 16,
            connections_per_user_max: 256,
            connections_per_account_max: 1_024,
            stranger_answers_per_second_max: 256,
        }
    }
}
