//! Which thread a relayed address belongs to.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::RelayAddresses;
use crate::allocation::family_index;

/// Who holds the Allocation behind each relayed port: the only thing threads share. An owner is a
/// number the driver chooses, below [`Owners::OWNERS_MAX`].
#[derive(Debug)]
pub struct Owners {
    ports: RangeInclusive<u16>,
    /// IPv4 first, then IPv6.
    families: [Option<Family>; 2],
}

/// A port is bound once, so one relayed address at a time has it.
#[derive(Debug)]
struct Family {
    /// The relayed addresses so far, in the order they came; none is ever taken out.
    ips: Box<[OnceLock<IpAddr>]>,
    /// One more than the owner in the upper half, zero where nobody lives, and the place of the
    /// address in the lower one.
    by_port: Box<[AtomicU32]>,
}

impl Owners {
    /// How many owners there can be.
    pub const OWNERS_MAX: usize = u16::MAX as usize - 1;

    /// How many relayed addresses of each family there can be, one after the other.
    pub const ADDRESSES_MAX: usize = 1_024;

    /// A table in which nobody lives at `addresses`.
    #[must_use]
    pub fn new(addresses: &RelayAddresses) -> Owners {
        let family = |ip: IpAddr| {
            let family = Family {
                ips: (0..Self::ADDRESSES_MAX).map(|_| OnceLock::new()).collect(),
                by_port: addresses.ports.clone().map(|_| AtomicU32::new(0)).collect(),
            };
            family.add(ip);
            family
        };
        Owners {
            families: [
                addresses.v4.map(|ip| family(ip.into())),
                addresses.v6.map(|ip| family(ip.into())),
            ],
            ports: addresses.ports.clone(),
        }
    }

    /// Takes in a relayed address besides those there were; `false` where its family is not relayed,
    /// or had too many.
    #[must_use]
    pub fn add(&self, ip: IpAddr) -> bool {
        let family = &self.families[family_index(ip)];
        family.as_ref().is_some_and(|family| family.add(ip))
    }

    /// Notes who holds the Allocation behind `relayed`, or that nobody does any more. An address
    /// that is not of the relay stays nobody's.
    pub fn set(&self, relayed: SocketAddr, owner: Option<usize>) {
        let Some((family, slot)) = self.slot(relayed) else {
            return;
        };
        let place = family.place_of(relayed.ip());
        let number = owner.and_then(|owner| u16::try_from(owner + 1).ok());
        match (place, number) {
            (Some(place), Some(number)) => {
                let both = u32::from(number) << 16 | u32::from(place);
                slot.store(both, Ordering::Release);
            }
            _ if self.get(relayed).is_some() => slot.store(0, Ordering::Release),
            _ => {}
        }
    }

    /// Who holds the Allocation behind `relayed`.
    #[must_use]
    pub fn get(&self, relayed: SocketAddr) -> Option<usize> {
        let (family, slot) = self.slot(relayed)?;
        let both = slot.load(Ordering::Acquire);
        let place = (both & 0xFFFF) as usize;
        let owner = ((both >> 16) as usize).checked_sub(1)?;
        (family.ips.get(place)?.get() == Some(&relayed.ip())).then_some(owner)
    }

    fn slot(&self, relayed: SocketAddr) -> Option<(&Family, &AtomicU32)> {
        let family = self.families[family_index(relayed.ip())].as_ref()?;
        let at = relayed.port().checked_sub(*self.ports.start())?;
        Some((family, family.by_port.get(usize::from(at))?))
    }
}

impl Family {
    fn place_of(&self, ip: IpAddr) -> Option<u16> {
        let place = self.ips.iter().position(|held| held.get() == Some(&ip));
        place.and_then(|place| u16::try_from(place).ok())
    }

    fn add(&self, ip: IpAddr) -> bool {
        self.place_of(ip).is_some() || self.ips.iter().any(|held| held.set(ip).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_belongs_to_one_address_at_a_time() {
        let owners = Owners::new(&RelayAddresses {
            v4: Some("192.0.2.1".parse().unwrap()),
            v6: None,
            ports: 50_000..=50_001,
        });
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (before, after) = (at("192.0.2.1:50001"), at("192.0.2.2:50001"));
        owners.set(after, Some(7));
        assert_eq!(owners.get(after), None, "no address of the relay");
        owners.set(before, Some(3));
        assert!(owners.add(after.ip()) && !owners.add("2001:db8::1".parse().unwrap()));
        owners.set(after, None);
        assert_eq!((owners.get(before), owners.get(after)), (Some(3), None));
        owners.set(before, None);
        owners.set(after, Some(0));
        assert_eq!((owners.get(before), owners.get(after)), (None, Some(0)));
        for outside in ["192.0.2.1:49999", "192.0.2.1:50002", "[2001:db8::1]:50000"] {
            owners.set(at(outside), Some(1));
            assert_eq!(owners.get(at(outside)), None, "{outside}");
        }
        let more = (0..2_000_u32).filter(|n| owners.add(std::net::Ipv4Addr::from(*n).into()));
        assert_eq!(more.count(), Owners::ADDRESSES_MAX - 2);
        assert!(owners.add(before.ip()), "it is there");
    }
}
