//! What the relay counts; every set of keys is fixed.

use std::collections::BTreeMap;

use crate::{Refusal, Transport};

/// Packets and bytes of payload, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
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
    /// Allocations granted since the start.
    pub allocations_granted: u64,
    /// Binding requests answered since the start.
    pub bindings: u64,
    /// Relayed from clients, by [`Transport::index`].
    pub from_clients: [Traffic; Transport::COUNT],
    /// Relayed to clients, by [`Transport::index`].
    pub to_clients: [Traffic; Transport::COUNT],
    /// Handed from one Allocation to another without touching the network.
    pub handed_over: Traffic,
    /// Refusals and dropped packets, by [`Refusal::cause`].
    pub refusals: BTreeMap<&'static str, u64>,
}

impl Stats {
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        *self.refusals.entry(refusal.cause()).or_default() += 1;
    }
}
