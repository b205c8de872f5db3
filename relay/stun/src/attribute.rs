//! Attribute types, the walk over them, and addresses (RFC 8489 §14, RFC 8656 §18).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::message::{MAGIC_COOKIE, TransactionId};

/// The type of an attribute (RFC 8489 §18.3, RFC 8656 §18).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttributeType(pub u16);

macro_rules! attribute_types {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl AttributeType {
            $($(#[$doc])* pub const $name: AttributeType = AttributeType($value);)*

            /// Whether this crate knows the type.
            #[must_use]
            pub fn is_known(self) -> bool {
                matches!(self.0, $($value)|*)
            }
        }
    };
}

attribute_types! {
    /// The client's address in the clear (RFC 8489 §14.1).
    MAPPED_ADDRESS = 0x0001;
    /// Asks for the answer from another address or port (RFC 5780 §7.2).
    CHANGE_REQUEST = 0x0003;
    /// The name the credentials belong to (RFC 8489 §14.3).
    USERNAME = 0x0006;
    /// HMAC-SHA1 over what stands before it (RFC 8489 §14.5).
    MESSAGE_INTEGRITY = 0x0008;
    /// Why a request was refused (RFC 8489 §14.8).
    ERROR_CODE = 0x0009;
    /// Attributes that had to be understood and were not (RFC 8489 §14.13).
    UNKNOWN_ATTRIBUTES = 0x000A;
    /// A Channel's number (RFC 8656 §18.1).
    CHANNEL_NUMBER = 0x000C;
    /// A lifetime in seconds (RFC 8656 §18.2).
    LIFETIME = 0x000D;
    /// A peer's address (RFC 8656 §18.3).
    XOR_PEER_ADDRESS = 0x0012;
    /// The payload of a Send or Data indication (RFC 8656 §18.4).
    DATA = 0x0013;
    /// The realm of long-term credentials (RFC 8489 §14.9).
    REALM = 0x0014;
    /// The server's nonce (RFC 8489 §14.10).
    NONCE = 0x0015;
    /// An Allocation's relayed address (RFC 8656 §18.5).
    XOR_RELAYED_ADDRESS = 0x0016;
    /// The wanted family of the relayed address (RFC 8656 §18.6).
    REQUESTED_ADDRESS_FAMILY = 0x0017;
    /// The wanted port of the relayed address is even (RFC 8656 §18.8).
    EVEN_PORT = 0x0018;
    /// The wanted transport between server and peer (RFC 8656 §18.7).
    REQUESTED_TRANSPORT = 0x0019;
    /// Asks for the DF bit toward the peer (RFC 8656 §18.9).
    DONT_FRAGMENT = 0x001A;
    /// A token of a third party, sealed for the server (RFC 7635 §6.2).
    ACCESS_TOKEN = 0x001B;
    /// HMAC-SHA256 over what stands before it (RFC 8489 §14.6).
    MESSAGE_INTEGRITY_SHA256 = 0x001C;
    /// The algorithm of the client's key (RFC 8489 §14.12).
    PASSWORD_ALGORITHM = 0x001D;
    /// A hash in place of the name (RFC 8489 §14.4).
    USERHASH = 0x001E;
    /// The client's address, obfuscated (RFC 8489 §14.2).
    XOR_MAPPED_ADDRESS = 0x0020;
    /// A relayed port kept for later (RFC 8656 §18.10).
    RESERVATION_TOKEN = 0x0022;
    /// A candidate's priority (RFC 8445 §7.1.1).
    PRIORITY = 0x0024;
    /// The pair is nominated (RFC 8445 §7.1.2).
    USE_CANDIDATE = 0x0025;
    /// Makes a message long (RFC 5780 §7.6).
    PADDING = 0x0026;
    /// The port an answer is wanted at (RFC 5780 §7.5).
    RESPONSE_PORT = 0x0027;
    /// A connection between client and peer (RFC 6062 §6.2.1).
    CONNECTION_ID = 0x002A;
    /// A relayed address of this family is wanted besides the IPv4 one (RFC 8656 §18.11).
    ADDITIONAL_ADDRESS_FAMILY = 0x8000;
    /// Why there is no relayed address of one family (RFC 8656 §18.12).
    ADDRESS_ERROR_CODE = 0x8001;
    /// The algorithms the server offers (RFC 8489 §14.11).
    PASSWORD_ALGORITHMS = 0x8002;
    /// The domain of another server, for its certificate (RFC 8489 §14.16).
    ALTERNATE_DOMAIN = 0x8003;
    /// What ICMP said about a datagram to a peer (RFC 8656 §18.13).
    ICMP = 0x8004;
    /// A text that names the program (RFC 8489 §14.14).
    SOFTWARE = 0x8022;
    /// Another server to try (RFC 8489 §14.15).
    ALTERNATE_SERVER = 0x8023;
    /// CRC-32 over what stands before it (RFC 8489 §14.7).
    FINGERPRINT = 0x8028;
    /// The agent is controlled (RFC 8445 §7.1.3).
    ICE_CONTROLLED = 0x8029;
    /// The agent is controlling (RFC 8445 §7.1.3).
    ICE_CONTROLLING = 0x802A;
    /// The address an answer was sent from (RFC 5780 §7.3).
    RESPONSE_ORIGIN = 0x802B;
    /// The server's other address and port (RFC 5780 §7.4).
    OTHER_ADDRESS = 0x802C;
    /// The name of the server tokens are made for (RFC 7635 §6.1).
    THIRD_PARTY_AUTHORIZATION = 0x802E;
    /// What an Allocation moves to another address with (RFC 8016 §4).
    MOBILITY_TICKET = 0x8030;
    /// ADDITIONAL-ADDRESS-FAMILY as draft-martinsen-tram-ssoda numbered it, and coturn's client
    /// still does.
    ADDITIONAL_ADDRESS_FAMILY_OF_A_DRAFT = 0x8032;
}

impl AttributeType {
    /// Whether a receiver that does not know the type must refuse the message (RFC 8489 §14).
    #[must_use]
    pub fn comprehension_required(self) -> bool {
        self.0 < 0x8000
    }
}

impl fmt::Debug for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// The family of an address (RFC 8489 §14.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl AddressFamily {
    /// The family of `ip`.
    #[must_use]
    pub fn of(ip: IpAddr) -> AddressFamily {
        if ip.is_ipv4() {
            AddressFamily::V4
        } else {
            AddressFamily::V6
        }
    }

    /// The family a byte on the wire names.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<AddressFamily> {
        match byte {
            0x01 => Some(AddressFamily::V4),
            0x02 => Some(AddressFamily::V6),
            _ => None,
        }
    }

    /// The byte that names the family on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            AddressFamily::V4 => 0x01,
            AddressFamily::V6 => 0x02,
        }
    }
}

/// Walks over attributes: each type with its value, padding left out. Ends at the first that does
/// not fit.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(bytes: &'a [u8], offset: usize) -> Attributes<'a> {
        Attributes { bytes, offset }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (AttributeType, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let attribute = u16_at(self.bytes, self.offset)?;
        let len = usize::from(u16_at(self.bytes, self.offset + 2)?);
        let start = self.offset + 4;
        let value = self.bytes.get(start..start + len)?;
        self.offset = start + len.next_multiple_of(4);
        Some((AttributeType(attribute), value))
    }
}

/// Reads the value of an XOR-…-ADDRESS attribute; `None` where its length or family is wrong.
/// Source: RFC 8489 §14.2.
#[must_use]
pub fn decode_xor_address(value: &[u8], transaction_id: &TransactionId) -> Option<SocketAddr> {
    let port = u16_at(value, 2)? ^ (MAGIC_COOKIE >> 16) as u16;
    let mask = xor_mask(transaction_id);
    let ip: IpAddr = match (value.get(1)?, value.len()) {
        (0x01, 8) => {
            let mut octets = [0; 4];
            octets.copy_from_slice(&value[4..]);
            xor(&mut octets, &mask);
            Ipv4Addr::from(octets).into()
        }
        (0x02, 20) => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&value[4..]);
            xor(&mut octets, &mask);
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Reads the value of an address attribute that is not obfuscated: MAPPED-ADDRESS,
/// ALTERNATE-SERVER; `None` where its length or family is wrong. Source: RFC 8489 §14.1.
#[must_use]
pub fn decode_address(value: &[u8]) -> Option<SocketAddr> {
    let port = u16_at(value, 2)?;
    let ip: IpAddr = match (value.get(1)?, value.len()) {
        (0x01, 8) => <[u8; 4]>::try_from(&value[4..]).ok()?.into(),
        (0x02, 20) => <[u8; 16]>::try_from(&value[4..]).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Writes the value of an address attribute that is not obfuscated into `value`; returns how many
/// bytes it has (8 or 20). Source: RFC 8489 §14.1.
pub(crate) fn encode_address(value: &mut [u8; 20], address: SocketAddr) -> usize {
    value[0] = 0;
    value[1] = AddressFamily::of(address.ip()).byte();
    value[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            value[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            value[4..20].copy_from_slice(&ip.octets());
            20
        }
    }
}

/// Writes the value of an XOR-…-ADDRESS attribute into `value`; returns how many bytes it has
/// (8 or 20). Source: RFC 8489 §14.2.
pub(crate) fn encode_xor_address(
    value: &mut [u8; 20],
    address: SocketAddr,
    transaction_id: &TransactionId,
) -> usize {
    let mask = xor_mask(transaction_id);
    let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
    value[0] = 0;
    value[1] = AddressFamily::of(address.ip()).byte();
    value[2..4].copy_from_slice(&port.to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            let mut octets = ip.octets();
            xor(&mut octets, &mask);
            value[4..8].copy_from_slice(&octets);
            8
        }
        IpAddr::V6(ip) => {
            let mut octets = ip.octets();
            xor(&mut octets, &mask);
            value[4..20].copy_from_slice(&octets);
            20
        }
    }
}

fn xor_mask(transaction_id: &TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(transaction_id);
    mask
}

fn xor(octets: &mut [u8], mask: &[u8; 16]) {
    for (octet, mask) in octets.iter_mut().zip(mask) {
        *octet ^= mask;
    }
}

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(
        bytes.get(offset..offset + 2)?.try_into().ok()?,
    ))
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(
        bytes.get(offset..offset + 4)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_xor() {
        let id = [0xA5; 12];
        for text in [
            "192.0.2.1:32853",
            "[2001:db8::1]:1",
            "0.0.0.0:0",
            "[::]:65535",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let mut value = [0; 20];
            let len = encode_xor_address(&mut value, address, &id);
            assert_eq!(decode_xor_address(&value[..len], &id), Some(address));
        }
    }

    #[test]
    fn plain_addresses_read_back() {
        for text in ["192.0.2.1:32853", "[2001:db8::1]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut value = [0; 20];
            let len = encode_address(&mut value, address);
            assert_eq!(decode_address(&value[..len]), Some(address));
            assert_eq!(decode_address(&value[..len - 1]), None);
        }
    }

    #[test]
    fn an_address_of_the_wrong_length_is_none() {
        let id = [0; 12];
        for value in [
            &[][..],
            &[0],
            &[0, 1, 0, 0],
            &[0, 1, 0, 0, 0, 0, 0],
            &[0, 2, 0, 0, 0, 0, 0, 0],
            &[0, 3, 0, 0, 0, 0, 0, 0],
            &[0; 20],
        ] {
            assert_eq!(decode_xor_address(value, &id), None, "{value:?}");
        }
    }
}
