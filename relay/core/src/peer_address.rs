//! The one address check: which peers an Allocation may reach.
//!
//! CreatePermission, ChannelBind, Send indications, ChannelData and what arrives from peers all
//! ask [`PeerPolicy`]; nothing else decides. An address is first brought to its canonical form, so
//! that no other way of writing it passes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Peers below this port are services, not calls (RFC 8656 §21.2.1 leaves it to the server).
const PORT_MIN: u16 = 1024;

/// Why a peer may not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// 0.0.0.0/8 or `::`.
    #[error("unspecified address")]
    Unspecified,
    /// 127.0.0.0/8 or `::1`.
    #[error("loopback address")]
    Loopback,
    /// 10/8, 172.16/12, 192.168/16, fc00::/7.
    #[error("private address")]
    Private,
    /// 100.64.0.0/10, the shared space of carriers.
    #[error("shared address")]
    Shared,
    /// 169.254/16 or fe80::/10; metadata services of clouds live there.
    #[error("link-local address")]
    LinkLocal,
    /// 224/4 or ff00::/8.
    #[error("multicast address")]
    Multicast,
    /// 255.255.255.255.
    #[error("broadcast address")]
    Broadcast,
    /// Any other block the registries keep from the public internet.
    #[error("reserved address")]
    Reserved,
    /// An address of this server with no live Allocation behind it.
    #[error("own address without an allocation")]
    OwnAddress,
    /// A port below 1024, or none.
    #[error("port below 1024")]
    LowPort,
    /// The operator's deny list.
    #[error("deny list")]
    DenyList,
}

impl Denial {
    /// A stable word for metrics.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Denial::Unspecified => "forbidden_unspecified",
            Denial::Loopback => "forbidden_loopback",
            Denial::Private => "forbidden_private",
            Denial::Shared => "forbidden_shared",
            Denial::LinkLocal => "forbidden_link_local",
            Denial::Multicast => "forbidden_multicast",
            Denial::Broadcast => "forbidden_broadcast",
            Denial::Reserved => "forbidden_reserved",
            Denial::OwnAddress => "forbidden_own_address",
            Denial::LowPort => "forbidden_low_port",
            Denial::DenyList => "forbidden_deny_list",
        }
    }
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// It is a live relayed address of this relay: hand the payload over in memory.
    Own,
    /// It is a media port of this process, which the SFU's thread with this number serves: hand the payload over in memory.
    Media(usize),
    /// Through the network.
    Network,
}

/// What decided about a peer: the first that applies, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule<'p> {
    /// A live relayed address of this relay, as peers are told it.
    LiveRelayed,
    /// A media port of the SFU in this process, which its thread with this number serves.
    Media(usize),
    /// An entry of the deny list.
    Denied(&'p Network),
    /// An entry of the allow list.
    Allowed(&'p Network),
    /// An address of this server that is no live relayed one, nor on the allow list.
    Own,
    /// A special block of addresses that is not on the allow list.
    Block(Denial),
    /// A port below 1024, which no entry of the allow list names.
    LowPort,
    /// Nothing speaks against it.
    Public,
}

impl Rule<'_> {
    /// What follows from it.
    ///
    /// # Errors
    ///
    /// The [`Denial`] that says why the peer may not be reached.
    pub fn route(self) -> Result<Route, Denial> {
        match self {
            Rule::LiveRelayed => Ok(Route::Own),
            Rule::Media(thread) => Ok(Route::Media(thread)),
            Rule::Allowed(_) | Rule::Public => Ok(Route::Network),
            Rule::Denied(_) => Err(Denial::DenyList),
            Rule::Own => Err(Denial::OwnAddress),
            Rule::Block(denial) => Err(denial),
            Rule::LowPort => Err(Denial::LowPort),
        }
    }
}

/// An entry of the allow or deny list: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7`, `192.0.2.7:53`.
///
/// Only an entry with a port speaks about a port: it allows that one even below 1024, or denies
/// that one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    prefix_len: u32,
    port: Option<u16>,
}

impl Network {
    fn contains_ip(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let shift = 32 - self.prefix_len;
                u32::from(network).checked_shr(shift) == u32::from(ip).checked_shr(shift)
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let shift = 128 - self.prefix_len;
                u128::from(network).checked_shr(shift) == u128::from(ip).checked_shr(shift)
            }
            _ => false,
        }
    }
}

/// A text that is no entry of a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address, address with port, or network like 10.0.0.0/8")]
pub struct NetworkError(String);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let wrong = || NetworkError(text.to_owned());
        let whole = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };

        if let Some((ip, prefix_len)) = text.split_once('/') {
            let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
            let prefix_len = prefix_len.parse().map_err(|_| wrong())?;
            return match prefix_len <= whole(ip) {
                true => Ok(Network {
                    ip,
                    prefix_len,
                    port: None,
                }),
                false => Err(wrong()),
            };
        }
        let (ip, port) = match text.parse::<SocketAddr>() {
            Ok(address) => (address.ip(), Some(address.port())),
            Err(_) => (text.parse().map_err(|_| wrong())?, None),
        };
        Ok(Network {
            ip,
            prefix_len: whole(ip),
            port,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => write!(f, "{}/{}", self.ip, self.prefix_len),
        }
    }
}

/// The operator's word on peers, and which addresses are our own.
#[derive(Debug, Clone, Default)]
pub struct PeerPolicy {
    /// Networks that may be reached although they are denied by default.
    pub allow: Vec<Network>,
    /// Networks that may not be reached; stronger than `allow`.
    pub deny: Vec<Network>,
    /// Addresses of this server: reachable only where a live Allocation is behind them.
    pub own: Vec<IpAddr>,
    /// UDP ports of this process that anybody may send media to, as clients are told them, and the SFU's thread that serves each;
    /// stronger than `deny`.
    pub media: BTreeMap<SocketAddr, usize>,
}

impl PeerPolicy {
    /// Decides on `peer`. `is_live` tells whether an address is a live relayed address of this
    /// relay; it is asked only about our own.
    ///
    /// A live relayed address is allowed even where the deny list holds it: what is handed over in
    /// memory reaches no network.
    ///
    /// # Errors
    ///
    /// The [`Denial`] that says why not.
    pub fn check(
        &self,
        peer: SocketAddr,
        is_live: impl FnOnce(SocketAddr) -> bool,
    ) -> Result<Route, Denial> {
        self.explain(peer, is_live).route()
    }

    /// Decides as [`check`](Self::check) does, and says by which rule.
    #[inline]
    pub fn explain(&self, peer: SocketAddr, is_live: impl FnOnce(SocketAddr) -> bool) -> Rule<'_> {
        let ip = canonical(peer.ip());
        let own = self.own.contains(&ip);

        // Another way of writing an own address is never handed over: the relayed address is
        // given to peers in one form only.
        if own && ip == peer.ip() && is_live(peer) {
            return Rule::LiveRelayed;
        }
        // The same goes for these, and what is sent to them reaches no network either.
        if let Some(thread) = self.media.get(&peer) {
            return Rule::Media(*thread);
        }
        let listed = |network: &Network| {
            network.contains_ip(ip) && network.port.is_none_or(|port| port == peer.port())
        };
        if let Some(network) = self.deny.iter().find(|network| listed(network)) {
            return Rule::Denied(network);
        }
        let mut allowed = None;
        for network in self.allow.iter().filter(|network| listed(network)) {
            // One that names the port says more.
            if allowed.is_none() || network.port.is_some() {
                allowed = Some(network);
            }
        }
        if allowed.is_none() {
            if own {
                return Rule::Own;
            }
            if let Err(denial) = ensure_public(ip) {
                return Rule::Block(denial);
            }
        }
        let low_port_allowed = allowed.is_some_and(|network| network.port.is_some());
        if peer.port() < PORT_MIN && !low_port_allowed {
            return Rule::LowPort;
        }
        allowed.map_or(Rule::Public, Rule::Allowed)
    }

    /// Decides on `from`, who sent what arrived at a relayed port from the network. What own relayed addresses and media ports send
    /// is handed over in memory: from the network it would let in whoever writes their address.
    ///
    /// # Errors
    ///
    /// The [`Denial`] that says why not.
    pub fn check_arrival(&self, from: SocketAddr) -> Result<(), Denial> {
        match self.check(from, |_| false)? {
            Route::Network => Ok(()),
            Route::Own | Route::Media(_) => Err(Denial::OwnAddress),
        }
    }

    /// Decides on `ip` before a port is known, as CreatePermission must: allows what some port
    /// behind it could be allowed for. Every datagram is asked about again by [`check`](Self::check).
    ///
    /// # Errors
    ///
    /// The [`Denial`] that says why not.
    pub fn check_ip(&self, ip: IpAddr) -> Result<(), Denial> {
        self.explain_ip(ip).route().map(|_| ())
    }

    /// Decides as [`check_ip`](Self::check_ip) does, and says by which rule. An own address could
    /// be a [live one](Rule::LiveRelayed).
    #[must_use]
    pub fn explain_ip(&self, ip: IpAddr) -> Rule<'_> {
        let canonical_ip = canonical(ip);
        if self.own.contains(&canonical_ip) && canonical_ip == ip {
            return Rule::LiveRelayed;
        }
        if let Some((_, thread)) = self.media.iter().find(|(media, _)| media.ip() == ip) {
            return Rule::Media(*thread);
        }
        let denied =
            |network: &Network| network.contains_ip(canonical_ip) && network.port.is_none();
        if let Some(network) = self.deny.iter().find(|network| denied(network)) {
            return Rule::Denied(network);
        }
        let allowed = |network: &&Network| network.contains_ip(canonical_ip);
        if let Some(network) = self.allow.iter().find(allowed) {
            return Rule::Allowed(network);
        }
        if self.own.contains(&canonical_ip) {
            return Rule::Own;
        }
        ensure_public(canonical_ip).map_or_else(Rule::Block, |()| Rule::Public)
    }
}

/// The one form of an address: where an IPv6 address only wraps an IPv4 one, that one.
///
/// Unwraps v4-mapped (`::ffff:0:0/96`), v4-compatible (`::/96`), v4-translated
/// (`::ffff:0:0:0/96`, RFC 2765), NAT64 (`64:ff9b::/96`, RFC 6052) and 6to4 (`2002::/16`,
/// RFC 3056) addresses; `::` and `::1` stay what they are. Never fails.
#[must_use]
pub fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else {
        return ip;
    };
    let low = |a: u16, b: u16| {
        let [a0, a1] = a.to_be_bytes();
        let [b0, b1] = b.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a0, a1, b0, b1))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => ip,
        [0, 0, 0, 0, 0, 0xffff, a, b] => low(a, b),
        [0, 0, 0, 0, 0xffff, 0, a, b] => low(a, b),
        [0, 0, 0, 0, 0, 0, a, b] => low(a, b),
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] => low(a, b),
        [0x2002, a, b, ..] => low(a, b),
        _ => ip,
    }
}

fn ensure_public(ip: IpAddr) -> Result<(), Denial> {
    match ip {
        IpAddr::V4(ip) => ensure_public_v4(ip),
        IpAddr::V6(ip) => ensure_public_v6(ip),
    }
}

/// The special-purpose blocks of IPv4 (RFC 6890 and the registry it began).
fn ensure_public_v4(ip: Ipv4Addr) -> Result<(), Denial> {
    Err(match ip.octets() {
        [255, 255, 255, 255] => Denial::Broadcast,
        [0, ..] => Denial::Unspecified,
        [127, ..] => Denial::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Denial::Private,
        [100, 64..=127, ..] => Denial::Shared,
        [169, 254, ..] => Denial::LinkLocal,
        [224..=239, ..] => Denial::Multicast,
        [240..=255, ..]
        | [192, 0, 0, _]
        | [192, 0, 2, _]
        | [192, 31, 196, _]
        | [192, 52, 193, _]
        | [192, 88, 99, _]
        | [192, 175, 48, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Denial::Reserved,
        _ => return Ok(()),
    })
}

/// Of IPv6 only global unicast, 2000::/3, is public, less the blocks kept inside it (RFC 6890).
fn ensure_public_v6(ip: Ipv6Addr) -> Result<(), Denial> {
    Err(match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Denial::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Denial::Loopback,
        [0xfc00..=0xfdff, ..] => Denial::Private,
        [0xfe80..=0xfeff, ..] => Denial::LinkLocal,
        [0xff00..=0xffff, ..] => Denial::Multicast,
        // IETF protocol assignments, Teredo and ORCHID among them; documentation; SRv6.
        [0x2001, 0..=0x01ff, ..]
        | [0x2001, 0x0db8, ..]
        | [0x2620, 0x004f, 0x8000, ..]
        | [0x3fff, 0..=0x0fff, ..] => Denial::Reserved,
        [0x2000..=0x3fff, ..] => return Ok(()),
        _ => Denial::Reserved,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_written_form_of_an_address_gets_the_same_answer() {
        let policy = PeerPolicy::default();
        let check = |ips: &[&str], expected: Result<Route, Denial>| {
            for ip in ips {
                let ip: IpAddr = ip.parse().unwrap();
                assert_eq!(
                    policy.check(SocketAddr::new(ip, 5000), |_| false),
                    expected,
                    "{ip}"
                );
                assert_eq!(policy.check_ip(ip), expected.map(|_| ()), "{ip}");
            }
        };

        check(
            &[
                "8.8.8.8",
                "::ffff:8.8.8.8",
                "::8.8.8.8",
                "64:ff9b::8.8.8.8",
                "2002:808:808::1",
            ],
            Ok(Route::Network),
        );
        check(
            &[
                "2a00:1450::1",
                "2606:4700::1111",
                "2001:4860::8888",
                "2001:200::1",
            ],
            Ok(Route::Network),
        );
        check(
            &[
                "127.0.0.1",
                "127.255.255.254",
                "::1",
                "::ffff:127.0.0.1",
                "::ffff:7f00:1",
                "::127.0.0.1",
                "::ffff:0:127.0.0.1",
                "64:ff9b::127.0.0.1",
                "64:ff9b::7f00:1",
                "2002:7f00:1::",
                "2002:7f00:1:1:2:3:4:5",
            ],
            Err(Denial::Loopback),
        );
        check(
            &[
                "0.0.0.0",
                "0.1.2.3",
                "::",
                "::ffff:0.0.0.0",
                "64:ff9b::",
                "2002::1",
                "::2",
            ],
            Err(Denial::Unspecified),
        );
        check(
            &[
                "10.0.0.1",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.1.1",
                "::ffff:10.0.0.1",
                "::10.0.0.1",
                "64:ff9b::192.168.1.1",
                "2002:a00:1::1",
                "2002:c0a8:101::1",
                "fc00::1",
                "fd12:3456::1",
            ],
            Err(Denial::Private),
        );
        check(
            &["172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1"],
            Ok(Route::Network),
        );
        check(
            &[
                "100.64.0.1",
                "100.127.255.255",
                "::ffff:100.64.0.1",
                "2002:6440:1::1",
            ],
            Err(Denial::Shared),
        );
        check(
            &[
                "169.254.169.254",
                "::ffff:169.254.169.254",
                "::169.254.169.254",
                "64:ff9b::a9fe:a9fe",
                "2002:a9fe:a9fe::",
                "fe80::1",
                "febf::1",
                "fec0::1",
            ],
            Err(Denial::LinkLocal),
        );
        check(
            &[
                "224.0.0.1",
                "239.255.255.255",
                "::ffff:224.0.0.251",
                "ff02::1",
                "ff0e::1",
            ],
            Err(Denial::Multicast),
        );
        check(
            &[
                "255.255.255.255",
                "::ffff:255.255.255.255",
                "2002:ffff:ffff::",
            ],
            Err(Denial::Broadcast),
        );
        check(
            &[
                "240.0.0.1",
                "192.0.0.1",
                "192.0.2.1",
                "192.88.99.1",
                "198.18.0.1",
                "198.51.100.1",
                "203.0.113.1",
                "64:ff9b:1::1",
                "100::1",
                "2001::1",
                "2001:db8::1",
                "3fff::1",
                "5f00::1",
                "4000::1",
                "1::1",
            ],
            Err(Denial::Reserved),
        );
    }

    #[test]
    fn lists_and_own_addresses_decide_in_their_order() {
        let policy = PeerPolicy {
            allow: networks("10.1.0.0/16 192.0.2.7:53 127.0.0.0/8 203.0.113.0/24"),
            deny: networks("10.1.2.0/24 8.8.4.4 9.9.9.9:5000 198.51.100.9"),
            own: ["127.0.0.1", "198.51.100.9", "203.0.113.5"]
                .map(|ip| ip.parse().unwrap())
                .into(),
            media: BTreeMap::new(),
        };
        let live = |address: SocketAddr| address.port() == 50_000;
        let check = |peer: &str, expected: Result<Route, Denial>| {
            let peer: SocketAddr = peer.parse().unwrap();
            assert_eq!(policy.check(peer, live), expected, "{peer}");
        };

        check("10.1.0.1:5000", Ok(Route::Network)); // allowed
        check("[::ffff:10.1.0.1]:5000", Ok(Route::Network));
        check("10.1.0.1:80", Err(Denial::LowPort)); // a network says nothing about ports
        check("10.1.2.3:5000", Err(Denial::DenyList)); // deny is stronger
        check("10.2.0.1:5000", Err(Denial::Private));
        check("192.0.2.7:53", Ok(Route::Network)); // an entry with a port does
        check("192.0.2.7:54", Err(Denial::Reserved));
        check("8.8.4.4:5000", Err(Denial::DenyList));
        check("[64:ff9b::8.8.4.4]:5000", Err(Denial::DenyList));
        check("9.9.9.9:5000", Err(Denial::DenyList));
        check("9.9.9.9:5001", Ok(Route::Network));
        check("9.9.9.9:0", Err(Denial::LowPort));
        check("127.0.0.1:50000", Ok(Route::Own)); // live
        check("127.0.0.1:50001", Ok(Route::Network)); // not live, allowed
        check("127.0.0.2:50000", Ok(Route::Network)); // not ours
        check("198.51.100.9:50000", Ok(Route::Own)); // live is stronger than the deny list
        check("198.51.100.9:50001", Err(Denial::DenyList));
        check("203.0.113.5:443", Err(Denial::LowPort));
        check("[::ffff:198.51.100.9]:50000", Err(Denial::DenyList)); // one form only

        assert_eq!(policy.check_ip("198.51.100.9".parse().unwrap()), Ok(()));
        assert_eq!(policy.check_ip("9.9.9.9".parse().unwrap()), Ok(()));
        assert_eq!(policy.check_ip("192.0.2.7".parse().unwrap()), Ok(()));
        assert_eq!(
            policy.check_ip("8.8.4.4".parse().unwrap()),
            Err(Denial::DenyList)
        );
    }

    #[test]
    fn the_rule_that_decided_is_named() {
        let policy = PeerPolicy {
            allow: networks("10.1.0.0/16 10.1.0.9:53"),
            deny: networks("10.1.2.0/24 9.9.9.9:5000"),
            own: vec!["203.0.113.5".parse().unwrap()],
            media: BTreeMap::new(),
        };
        let check = |peer: &str, expected: &str| {
            let peer: SocketAddr = peer.parse().unwrap();
            let rule = policy.explain(peer, |address| address.port() == 50_000);
            let named = match rule {
                Rule::Allowed(entry) | Rule::Denied(entry) => format!("{entry}"),
                rule => format!("{rule:?}"),
            };
            assert_eq!(named, expected, "{peer}");
        };
        check("203.0.113.5:50000", "LiveRelayed");
        check("203.0.113.5:50001", "Own");
        check("10.1.2.3:5000", "10.1.2.0/24");
        check("10.1.0.9:5000", "10.1.0.0/16");
        check("10.1.0.9:53", "10.1.0.9:53");
        check("10.1.0.8:53", "LowPort");
        check("9.9.9.9:5000", "9.9.9.9:5000");
        check("9.9.9.9:5001", "Public");
        check("[2002:7f00:1::]:5000", "Block(Loopback)");

        let by_ip = |ip: &str| policy.explain_ip(ip.parse().unwrap());
        assert_eq!(by_ip("203.0.113.5"), Rule::LiveRelayed);
        assert_eq!(by_ip("9.9.9.9"), Rule::Public, "some port of it is");
        assert_eq!(by_ip("10.1.2.3"), Rule::Denied(&policy.deny[0]));
        assert_eq!(by_ip("10.1.0.9"), Rule::Allowed(&policy.allow[0]));
        assert_eq!(by_ip("::ffff:203.0.113.5"), Rule::Own);
    }

    #[test]
    fn a_media_port_of_this_process_is_reached_and_nothing_beside_it() {
        let policy = PeerPolicy {
            deny: vec!["10.0.0.0/8".parse().unwrap()],
            own: vec!["127.0.0.1".parse().unwrap()],
            media: [("127.0.0.1:10000", 0), ("10.0.0.7:10001", 1)]
                .map(|(media, thread)| (media.parse().unwrap(), thread))
                .into(),
            ..PeerPolicy::default()
        };
        let check = |peer: &str, expected: Result<Route, Denial>| {
            let peer: SocketAddr = peer.parse().unwrap();
            assert_eq!(policy.check(peer, |_| false), expected, "{peer}");
        };
        check("127.0.0.1:10000", Ok(Route::Media(0)));
        check("10.0.0.7:10001", Ok(Route::Media(1)));
        // One form only.
        check("[::ffff:127.0.0.1]:10000", Err(Denial::OwnAddress));
        check("[::ffff:10.0.0.7]:10001", Err(Denial::DenyList));
        check("127.0.0.1:10001", Err(Denial::OwnAddress));
        check("10.0.0.7:10000", Err(Denial::DenyList));
        check("10.0.0.8:10001", Err(Denial::DenyList));

        // A Permission names no port; each datagram is asked about again.
        let check_ip = |ip: &str| policy.check_ip(ip.parse().unwrap());
        assert_eq!(check_ip("10.0.0.7"), Ok(()));
        assert_eq!(check_ip("10.0.0.8"), Err(Denial::DenyList));
        assert_eq!(check_ip("::ffff:10.0.0.7"), Err(Denial::DenyList));

        // From the network nobody writes their address.
        for media in policy.media.keys() {
            assert_eq!(
                policy.check_arrival(*media),
                Err(Denial::OwnAddress),
                "{media}"
            );
        }
        assert_eq!(
            policy.check_arrival("8.8.8.8:10000".parse().unwrap()),
            Ok(())
        );
    }

    #[test]
    fn an_own_address_without_an_allocation_is_denied() {
        let policy = PeerPolicy {
            own: vec!["8.8.8.8".parse().unwrap()],
            ..PeerPolicy::default()
        };
        let peer = "8.8.8.8:50000".parse().unwrap();
        assert_eq!(policy.check(peer, |_| false), Err(Denial::OwnAddress));
        assert_eq!(policy.check(peer, |_| true), Ok(Route::Own));
        let written_otherwise = "[64:ff9b::8.8.8.8]:50000".parse().unwrap();
        assert_eq!(
            policy.check(written_otherwise, |_| true),
            Err(Denial::OwnAddress)
        );
        assert_eq!(
            policy.check_ip("::ffff:8.8.8.8".parse().unwrap()),
            Err(Denial::OwnAddress)
        );
    }

    #[test]
    fn networks_are_read_or_refused() {
        for text in [
            "10.0.0.0/8",
            "2001:db8::/32",
            "0.0.0.0/0",
            "::/0",
            "192.0.2.7:53",
            "[::1]:53",
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("::1".parse::<Network>().unwrap().to_string(), "::1/128");
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/-1",
            "host",
            "1.2.3.4:x",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        let everything: Network = "0.0.0.0/0".parse().unwrap();
        assert!(everything.contains_ip("203.0.113.9".parse().unwrap()));
        assert!(!everything.contains_ip("::1".parse().unwrap()));
    }

    fn networks(text: &str) -> Vec<Network> {
        text.split(' ')
            .map(|network| network.parse().unwrap())
            .collect()
    }
}
