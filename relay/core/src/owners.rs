//! Which thread a relayed address belongs to.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::RelayAddresses;

/// Who holds the Allocation behind each relayed port: the only thing threads share. An owner is a
/// number the driver chooses, below [`Owners::OWNERS_MAX`].
#[derive(Debug)]
pub struct Owners {
    addresses: RelayAddresses,
    /// One more than the owner; zero where nobody lives. IPv4 first, then IPv6.
    by_port: [Box<[AtomicU16]>; 2],
}

impl Owners {
    /// How many owners there can be.
    pub const OWNERS_MAX: usize = u16::MAX as usize - 1;

    /// A table in which nobody lives at `addresses`.
    #[must_use]
    pub fn new(addresses: &RelayAddresses) -> Owners {
        let ports = |used: bool| {
            let len = if used { addresses.ports.len() } else { 0 };
            (0..len).map(|_| AtomicU16::new(0)).collect()
        };
        Owners {
            by_port: [ports(addresses.v4.is_some()), ports(addresses.v6.is_some())],
            addresses: addresses.clone(),
        }
    }

    /// Notes who holds the Allocation behind `relayed`, or that nobody does any more. An address
    /// that is not of the relay stays nobody's.
    pub fn set(&self, relayed: SocketAddr, owner: Option<usize>) {
        let number = owner.and_then(|owner| u16::try_from(owner + 1).ok());
        if let Some(slot) = self.slot(relayed) {
            slot.store(number.unwrap_or(0), Ordering::Release);
        }
    }

    /// Who holds the Allocation behind `relayed`.
    #[must_use]
    pub fn get(&self, relayed: SocketAddr) -> Option<usize> {
        let number = self.slot(relayed)?.load(Ordering::Acquire);
        usize::from(number).checked_sub(1)
    }

    fn slot(&self, relayed: SocketAddr) -> Option<&AtomicU16> {
        let ports: &RangeInclusive<u16> = &self.addresses.ports;
        let family = match relayed {
            SocketAddr::V4(at) => (self.addresses.v4 == Some(*at.ip())).then_some(0)?,
            SocketAddr::V6(at) => (self.addresses.v6 == Some(*at.ip())).then_some(1)?,
        };
        let at = relayed.port().checked_sub(*ports.start())?;
        self.by_port[family].get(usize::from(at))
    }
}
