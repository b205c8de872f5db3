//! Where something is: a name or an address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest host name that is read, in characters (RFC 1035 §2.3.4).
const NAME_LEN_MAX: usize = 255;

/// A host as URIs and Via headers have it (RFC 3261 §25.1 with the IPv6 of RFC 5954).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name, as it was written; names are equal in any case.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

impl Host {
    /// Reads a name, an IPv4 address or an IPv6 address in brackets; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
            return Some(Self::Ip(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Ip(address.into()));
        }
        is_name(text).then(|| Self::Name(text.to_owned()))
    }

    /// Reads what may follow a host: a colon and a port. The port of an address without one is `None`.
    #[must_use]
    pub fn parse_with_port(text: &str) -> Option<(Self, Option<u16>)> {
        let (host, port) = match text.rfind(']') {
            Some(end) => text.split_at(end + 1),
            None => text.split_at(text.find([':', ' ', '\t']).unwrap_or(text.len())),
        };
        let port = match crate::text::trim(port) {
            "" => None,
            rest => {
                let digits = crate::text::trim(rest.strip_prefix(':')?);
                let port = crate::text::decimal(digits, u64::from(u16::MAX))?;
                Some(u16::try_from(port).ok().filter(|port| *port != 0)?)
            }
        };
        Some((Self::parse(host)?, port))
    }

    /// The address, when it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Name(_) => None,
        }
    }

    /// Whether both are the same host: names in any case, addresses by value.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(a), Self::Name(b)) => a.eq_ignore_ascii_case(b),
            (a, b) => a == b,
        }
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// `hostname`, with underscores, which private networks do use. Four numbers with dots are no name.
fn is_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let alphanumeric =
            |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && alphanumeric(label.bytes().next())
            && alphanumeric(label.bytes().last())
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= NAME_LEN_MAX
        && text.split('.').all(label)
        && last.bytes().any(|byte| !byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let check = |text: &str, expected: Option<(&str, Option<u16>)>| {
            let got = Host::parse_with_port(text).map(|(host, port)| (host.to_string(), port));
            assert_eq!(
                got.as_ref().map(|(h, p)| (h.as_str(), *p)),
                expected,
                "{text}"
            );
        };
        check("example.com", Some(("example.com", None)));
        check("example.com.", Some(("example.com.", None)));
        check("a_b.local:5060", Some(("a_b.local", Some(5060))));
        check("192.0.2.1:1", Some(("192.0.2.1", Some(1))));
        check("[2001:db8::10]:5070", Some(("[2001:db8::10]", Some(5070))));
        check("[2001:db8::10:5070]", Some(("[2001:db8::10:5070]", None)));
        check("[::ffff:192.0.2.10]", Some(("[::ffff:192.0.2.10]", None)));
        check("host : 5060", Some(("host", Some(5060))));
        for wrong in [
            "",
            ":",
            "host:",
            "host:0",
            "host:65536",
            "host:-1",
            "-a.com",
            "a..b",
            "192.0.2.256",
            "2001:db8::10",
            "[2001:db8::10",
            "[2001:db8:::10]",
            "[192.0.2.1]",
            "host port",
            "h\u{f6}st",
            "[::1]x",
        ] {
            check(wrong, None);
        }
    }
}
