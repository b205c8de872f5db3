//! The addresses of this machine, and what kind of address one is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

use crate::config::Network;

/// Every address of an interface that is up, loopback first, without link-local IPv6 (it needs a zone, which no URL can carry).
pub fn of_this_machine() -> anyhow::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = getifaddrs()
        .context("can't list this machine's addresses")?
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| ip(interface.address?))
        .filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect();
    addresses.sort_by_key(|ip| (!ip.is_loopback(), ip.is_ipv6(), *ip));
    addresses.dedup();
    Ok(addresses)
}

/// The networks this machine's interfaces are in, but for loopback.
pub fn networks_of_this_machine() -> anyhow::Result<Vec<Network>> {
    let mut networks: Vec<Network> = getifaddrs()
        .context("can't list this machine's addresses")?
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| {
            let (address, mask) = (ip(interface.address?)?, ip(interface.netmask?)?);
            let prefix = match mask {
                IpAddr::V4(mask) => u32::from(mask).leading_ones(),
                IpAddr::V6(mask) => u128::from(mask).leading_ones(),
            };
            (reach(address) != Reach::Machine)
                .then(|| Network::new(address, u8::try_from(prefix).unwrap_or(u8::MAX)))
        })
        .collect();
    networks.sort_by_key(Network::to_string);
    networks.dedup();
    Ok(networks)
}

fn ip(address: SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This machine only.
    Machine,
    /// A local network, a provider's inner network, or a link.
    Local,
    /// The internet.
    Internet,
    /// Nobody: unspecified, multicast, documentation, reserved.
    Nowhere,
}

/// How far `ip` reaches.
pub fn reach(ip: IpAddr) -> Reach {
    match ip.to_canonical() {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(ip: Ipv4Addr) -> Reach {
    let [a, b, ..] = ip.octets();
    let is_shared = a == 100 && b & 0xC0 == 64; // RFC 6598: behind a provider's NAT.
    if ip.is_loopback() {
        Reach::Machine
    } else if ip.is_private() || ip.is_link_local() || is_shared {
        Reach::Local
    } else if a == 0 || a >= 224 || ip.is_documentation() {
        Reach::Nowhere
    } else {
        Reach::Internet
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    let is_documentation = ip.segments()[..2] == [0x2001, 0x0DB8];
    if ip.is_loopback() {
        Reach::Machine
    } else if ip.is_unique_local() || ip.is_unicast_link_local() {
        Reach::Local
    } else if ip.segments()[0] & 0xE000 == 0x2000 && !is_documentation {
        Reach::Internet // RFC 4291 §2.4 leaves only 2000::/3 for it so far.
    } else {
        Reach::Nowhere
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reaches_as_far_as_its_registry_says() {
        let rows = [
            ("127.0.0.1", Reach::Machine),
            ("::1", Reach::Machine),
            ("::ffff:127.0.0.1", Reach::Machine),
            ("10.1.2.3", Reach::Local),
            ("172.16.0.1", Reach::Local),
            ("192.168.1.1", Reach::Local),
            ("169.254.1.1", Reach::Local),
            ("100.64.0.1", Reach::Local),
            ("100.128.0.1", Reach::Internet),
            ("fd00::1", Reach::Local),
            ("fe80::1", Reach::Local),
            ("8.8.8.8", Reach::Internet),
            ("2606:4700::1", Reach::Internet),
            ("0.0.0.0", Reach::Nowhere),
            ("::", Reach::Nowhere),
            ("224.0.0.1", Reach::Nowhere),
            ("203.0.113.1", Reach::Nowhere),
            ("2001:db8::1", Reach::Nowhere),
        ];
        for (ip, expected) in rows {
            assert_eq!(reach(ip.parse().unwrap()), expected, "{ip}");
        }
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        assert!(
            of_this_machine()
                .unwrap()
                .contains(&IpAddr::V4(Ipv4Addr::LOCALHOST))
        );
    }
}
