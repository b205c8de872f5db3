//! An IP address or a network in CIDR notation, as operators write them in lists.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A network such as `10.0.0.0/8`, or one address such as `192.0.2.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of the first `prefix` bits of `address`; a prefix that is too long means the address alone.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.min(bits);
        let host = u32::from(bits - prefix);
        let address = match address {
            IpAddr::V4(v4) => {
                let bits = u32::from(v4);
                IpAddr::V4(bits.checked_shr(host).map_or(0, |net| net << host).into())
            }
            IpAddr::V6(v6) => {
                let bits = u128::from(v6);
                IpAddr::V6(bits.checked_shr(host).map_or(0, |net| net << host).into())
            }
        };
        Self { address, prefix }
    }

    /// Whether every address of its family is in it.
    pub fn is_everybody(&self) -> bool {
        self.prefix == 0
    }

    /// Whether `ip` is in this network; an IPv4-mapped IPv6 address counts as the IPv4 address in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.prefix);
                u32::from(net).checked_shr(shift) == u32::from(ip).checked_shr(shift)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.prefix);
                u128::from(net).checked_shr(shift) == u128::from(ip).checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| {
            format!("`{text}` is neither an IP address nor a network such as 10.0.0.0/8")
        })?;
        let prefix_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => prefix_max,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|prefix| *prefix <= prefix_max)
                .ok_or_else(|| {
                    format!("`{text}` has a prefix length that is not 0 to {prefix_max}")
                })?,
        };
        Ok(Self::new(address, prefix))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_only() {
        let rows = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
        ];
        for (network, ip, expected) in rows {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.contains(ip.parse().unwrap()),
                expected,
                "{network} {ip}"
            );
        }
    }

    #[test]
    fn a_network_is_written_without_its_host_bits() {
        let rows = [
            ("192.168.1.77/24", "192.168.1.0/24"),
            ("10.9.8.7/0", "0.0.0.0/0"),
            ("2001:db8::7/32", "2001:db8::/32"),
            ("::7/0", "::/0"),
        ];
        for (text, expected) in rows {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_text() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0",
            "example.com",
            "::/129",
            "10.0.0.0/",
        ] {
            assert!(
                text.parse::<Network>().unwrap_err().contains(text),
                "{text}"
            );
        }
    }
}
