//! What the relay counts; every set of keys is fixed.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use crate::{Refusal, Transport};

/// Packets and bytes of payload, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets; a chunk of a TCP connection (RFC 6062) counts as one.
    pub packets: u64,
    /// Bytes of application data, without headers.
    pub bytes: u64,
}

impl Traffic {
    pub(crate) fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// A snapshot of the counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Allocations that live now.
    pub allocations: usize,
    /// The same by [`Transport::index`].
    pub allocations_by_transport: [usize; Transport::COUNT],
    /// Allocations granted since the start.
    pub allocations_granted: u64,
    /// Connections of TCP Allocations to peers that live now.
    pub connections: usize,
    /// Connections that a client bound, since the start.
    pub connections_bound: u64,
    /// Binding requests answered since the start.
    pub bindings: u64,
    /// Allocations that moved to another address of their client, since the start.
    pub allocations_moved: u64,
    /// Clients told what ICMP said, since the start.
    pub icmp_indications: u64,
    /// Relayed from clients, by [`Transport::index`].
    pub from_clients: [Traffic; Transport::COUNT],
    /// Relayed to clients, by [`Transport::index`].
    pub to_clients: [Traffic; Transport::COUNT],
    /// Of those from clients over UDP, what the network driver relayed.
    pub offloaded_from_clients: Traffic,
    /// Of those to clients over UDP, what the network driver relayed.
    pub offloaded_to_clients: Traffic,
    /// Handed from one Allocation to another without touching the network.
    pub handed_over: Traffic,
    /// Of those from clients, for media ports of this process.
    pub to_media: Traffic,
    /// Of those to clients, from media ports of this process.
    pub from_media: Traffic,
    /// Refusals and dropped packets, by [`Refusal::cause`] and the code of the answer, 0 where
    /// silence was the answer.
    pub refusals: BTreeMap<(&'static str, u16), u64>,
}

impl AddAssign<&Stats> for Stats {
    fn add_assign(&mut self, other: &Stats) {
        self.allocations += other.allocations;
        self.allocations_granted += other.allocations_granted;
        self.allocations_moved += other.allocations_moved;
        self.icmp_indications += other.icmp_indications;
        self.connections += other.connections;
        self.connections_bound += other.connections_bound;
        self.bindings += other.bindings;
        self.offloaded_from_clients += other.offloaded_from_clients;
        self.offloaded_to_clients += other.offloaded_to_clients;
        self.handed_over += other.handed_over;
        self.to_media += other.to_media;
        self.from_media += other.from_media;
        for index in 0..Transport::COUNT {
            self.allocations_by_transport[index] += other.allocations_by_transport[index];
            self.from_clients[index] += other.from_clients[index];
            self.to_clients[index] += other.to_clients[index];
        }
        for (cause, count) in &other.refusals {
            *self.refusals.entry(*cause).or_default() += count;
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl Stats {
    /// Adds what the network driver relayed for clients over UDP, past the core and its Paths.
    pub fn count_offloaded(&mut self, from_clients: Traffic, to_clients: Traffic) {
        self.from_clients[Transport::Udp.index()] += from_clients;
        self.to_clients[Transport::Udp.index()] += to_clients;
        self.offloaded_from_clients += from_clients;
        self.offloaded_to_clients += to_clients;
    }

    /// How often was refused by `cause`, whatever the answer.
    #[must_use]
    pub fn refused(&self, cause: &str) -> u64 {
        let of_cause = self.refusals.iter().filter(|((held, _), _)| *held == cause);
        of_cause.map(|(_, count)| count).sum()
    }

    /// What counts payloads that were handed over to clients, by the SFU or by another Allocation.
    pub(crate) fn handed_over_from(&mut self, is_media: bool) -> &mut Traffic {
        match is_media {
            true => &mut self.from_media,
            false => &mut self.handed_over,
        }
    }

    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        let code = refusal.code().map_or(0, |code| code.0);
        *self.refusals.entry((refusal.cause(), code)).or_default() += 1;
    }
}
