//! A STUN message seen in place (RFC 8489 §5).

use std::fmt;
use std::net::SocketAddr;

use crate::attribute::{
    AddressFamily, AttributeType, Attributes, decode_xor_address, u16_at, u32_at,
};
use crate::integrity::{IntegrityKey, IntegrityKind, fingerprint_of};

/// The length of the header of every STUN message, in bytes (RFC 8489 §5).
pub const HEADER_LEN: usize = 20;

/// The fixed value at offset 4 of every STUN message (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// How many attributes one message may carry. The fullest legitimate request, a CreatePermission
/// for many peers, stays far below; without a limit 64 KiB of empty attributes would make every
/// look-up walk 16,000 of them.
pub const ATTRIBUTES_MAX: usize = 128;

/// The 96 bits that pair a response with its request (RFC 8489 §5).
pub type TransactionId = [u8; 12];

/// Bytes that are not a message we can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the header, or before what the header announces.
    #[error("truncated: {needed} bytes needed, {got} there")]
    Truncated {
        /// The length the message claims.
        needed: usize,
        /// The length that is there.
        got: usize,
    },
    /// The two leading bits are not zero.
    #[error("not a STUN message: it begins with {got:#04x}")]
    NotStun {
        /// The first byte.
        got: u8,
    },
    /// The magic cookie is missing.
    #[error("wrong magic cookie {got:#010x}")]
    WrongCookie {
        /// What stands at offset 4.
        got: u32,
    },
    /// The header's length is no multiple of four, or bytes follow the message.
    #[error("wrong length {got} in the header")]
    WrongLength {
        /// The length in the header.
        got: usize,
    },
    /// An attribute runs over the end of the message.
    #[error("attribute {attribute} of {len} bytes runs over the end of the message")]
    AttributeTooLong {
        /// The attribute's type.
        attribute: AttributeType,
        /// Its announced length.
        len: usize,
    },
    /// More attributes than [`ATTRIBUTES_MAX`].
    #[error("more than {ATTRIBUTES_MAX} attributes")]
    TooManyAttributes,
    /// A channel number outside 0x4000 to 0x7FFF.
    #[error("channel number {got:#06x} out of range")]
    WrongChannel {
        /// The number.
        got: u16,
    },
}

/// The class of a message (RFC 8489 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Asks for a response.
    Request,
    /// Asks for none.
    Indication,
    /// Answers a request that was carried out.
    Success,
    /// Answers a request that was refused.
    Error,
}

impl Class {
    const fn bits(self) -> u16 {
        match self {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        }
    }
}

/// The method of a message, 12 bits (RFC 8489 §5, RFC 8656 §17).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Method(pub u16);

impl Method {
    /// Binding (RFC 8489 §3).
    pub const BINDING: Method = Method(0x001);
    /// Allocate (RFC 8656 §7).
    pub const ALLOCATE: Method = Method(0x003);
    /// Refresh (RFC 8656 §8).
    pub const REFRESH: Method = Method(0x004);
    /// Send (RFC 8656 §11).
    pub const SEND: Method = Method(0x006);
    /// Data (RFC 8656 §11).
    pub const DATA: Method = Method(0x007);
    /// CreatePermission (RFC 8656 §10).
    pub const CREATE_PERMISSION: Method = Method(0x008);
    /// ChannelBind (RFC 8656 §12).
    pub const CHANNEL_BIND: Method = Method(0x009);
    /// Connect (RFC 6062 §4.3).
    pub const CONNECT: Method = Method(0x00A);
    /// ConnectionBind (RFC 6062 §4.3).
    pub const CONNECTION_BIND: Method = Method(0x00B);
    /// ConnectionAttempt (RFC 6062 §4.4).
    pub const CONNECTION_ATTEMPT: Method = Method(0x00C);
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Method::BINDING => f.write_str("Binding"),
            Method::ALLOCATE => f.write_str("Allocate"),
            Method::REFRESH => f.write_str("Refresh"),
            Method::SEND => f.write_str("Send"),
            Method::DATA => f.write_str("Data"),
            Method::CREATE_PERMISSION => f.write_str("CreatePermission"),
            Method::CHANNEL_BIND => f.write_str("ChannelBind"),
            Method::CONNECT => f.write_str("Connect"),
            Method::CONNECTION_BIND => f.write_str("ConnectionBind"),
            Method::CONNECTION_ATTEMPT => f.write_str("ConnectionAttempt"),
            Method(other) => write!(f, "Method({other:#05x})"),
        }
    }
}

/// An error code, 300 to 699 (RFC 8489 §14.8, RFC 8656 §19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// Another server takes the request (RFC 8489 §10).
    pub const TRY_ALTERNATE: ErrorCode = ErrorCode(300);
    /// The request was malformed (RFC 8489 §14.8).
    pub const BAD_REQUEST: ErrorCode = ErrorCode(400);
    /// The request lacks valid credentials (RFC 8489 §14.8).
    pub const UNAUTHORIZED: ErrorCode = ErrorCode(401);
    /// The request was understood and is not allowed (RFC 8656 §19).
    pub const FORBIDDEN: ErrorCode = ErrorCode(403);
    /// Allocations do not move here (RFC 8016 §3.2).
    pub const MOBILITY_FORBIDDEN: ErrorCode = ErrorCode(405);
    /// An attribute that must be understood was not (RFC 8489 §14.8).
    pub const UNKNOWN_ATTRIBUTE: ErrorCode = ErrorCode(420);
    /// The 5-tuple has an Allocation already, or has none (RFC 8656 §19).
    pub const ALLOCATION_MISMATCH: ErrorCode = ErrorCode(437);
    /// The nonce is no longer valid (RFC 8489 §14.8).
    pub const STALE_NONCE: ErrorCode = ErrorCode(438);
    /// The server has no relayed address of this family (RFC 8656 §19).
    pub const ADDRESS_FAMILY_NOT_SUPPORTED: ErrorCode = ErrorCode(440);
    /// The credentials are not those of the Allocation (RFC 8656 §19).
    pub const WRONG_CREDENTIALS: ErrorCode = ErrorCode(441);
    /// The server does not relay this transport protocol (RFC 8656 §19).
    pub const UNSUPPORTED_TRANSPORT_PROTOCOL: ErrorCode = ErrorCode(442);
    /// The peer's family is not that of the relayed address (RFC 8656 §19).
    pub const PEER_ADDRESS_FAMILY_MISMATCH: ErrorCode = ErrorCode(443);
    /// There is a connection to the peer already (RFC 6062 §6.3).
    pub const CONNECTION_ALREADY_EXISTS: ErrorCode = ErrorCode(446);
    /// The peer could not be connected to (RFC 6062 §6.3).
    pub const CONNECTION_TIMEOUT_OR_FAILURE: ErrorCode = ErrorCode(447);
    /// The User has no Allocation left (RFC 8656 §19).
    pub const ALLOCATION_QUOTA_REACHED: ErrorCode = ErrorCode(486);
    /// The server has nothing left to give (RFC 8656 §19).
    pub const INSUFFICIENT_CAPACITY: ErrorCode = ErrorCode(508);

    /// Five bits in front of the class are reserved and ignored (RFC 8489 §14.8).
    fn from_class_and_number(class: u8, number: u8) -> Option<ErrorCode> {
        let class = class & 0x07;
        let is_code = (3..=6).contains(&class) && number < 100;
        is_code.then(|| ErrorCode(u16::from(class) * 100 + u16::from(number)))
    }

    /// The hundreds digit and the rest, as ERROR-CODE holds them (RFC 8489 §14.8).
    pub(crate) fn class_and_number(self) -> [u8; 2] {
        let class = u8::try_from(self.0 / 100).unwrap_or(u8::MAX) & 0x07;
        let number = u8::try_from(self.0 % 100).unwrap_or_default(); // Below 100.
        [class, number]
    }

    /// The reason phrase.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self.0 {
            300 => "Try Alternate",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            405 => "Mobility Forbidden",
            420 => "Unknown Attribute",
            437 => "Allocation Mismatch",
            438 => "Stale Nonce",
            440 => "Address Family not Supported",
            441 => "Wrong Credentials",
            442 => "Unsupported Transport Protocol",
            443 => "Peer Address Family Mismatch",
            446 => "Connection Already Exists",
            447 => "Connection Timeout or Failure",
            486 => "Allocation Quota Reached",
            508 => "Insufficient Capacity",
            _ => "",
        }
    }
}

/// What ICMP said about a datagram the server sent to a peer (RFC 8656 §18.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp {
    /// The ICMP type, below 128; its meaning depends on the peer's family.
    pub kind: u8,
    /// The ICMP code.
    pub code: u8,
    /// The MTU of the next hop where the datagram was too big, else zero.
    pub data: u32,
}

impl Icmp {
    /// The value of the attribute: 16 bits reserved, 7 of type, 9 of code, 32 of data.
    #[must_use]
    pub fn value(self) -> [u8; 8] {
        let kind_and_code = u16::from(self.kind & 0x7F) << 9 | u16::from(self.code);
        let mut value = [0; 8];
        value[2..4].copy_from_slice(&kind_and_code.to_be_bytes());
        value[4..].copy_from_slice(&self.data.to_be_bytes());
        value
    }

    /// Reads the value of the attribute; `None` for a code of more than eight bits, which ICMP
    /// does not have.
    #[must_use]
    pub fn from_value([_, _, k, c, data @ ..]: [u8; 8]) -> Option<Icmp> {
        let kind_and_code = u16::from_be_bytes([k, c]);
        Some(Icmp {
            kind: u8::try_from(kind_and_code >> 9).ok()?,
            code: u8::try_from(kind_and_code & 0x1FF).ok()?,
            data: u32::from_be_bytes(data),
        })
    }
}

/// A well-formed STUN message, seen in place.
///
/// Attributes behind MESSAGE-INTEGRITY are not seen, except MESSAGE-INTEGRITY-SHA256 and
/// FINGERPRINT; of an attribute that stands twice the first is seen (RFC 8489 §14).
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    /// Where the attributes that count end: at the first integrity attribute or FINGERPRINT.
    attributes_end: usize,
    /// Offset of the MESSAGE-INTEGRITY attribute's header.
    integrity: Option<usize>,
    /// Offset of the MESSAGE-INTEGRITY-SHA256 attribute's header.
    integrity_sha256: Option<usize>,
    /// Offset of the FINGERPRINT attribute's header.
    fingerprint: Option<usize>,
}

impl<'a> Message<'a> {
    /// Reads `bytes`, which must be exactly one message.
    ///
    /// # Errors
    ///
    /// The [`DecodeError`] that names what is wrong. Source: RFC 8489 §6.3.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        if bytes.len() < HEADER_LEN {
            return Err(DecodeError::Truncated {
                needed: HEADER_LEN,
                got: bytes.len(),
            });
        }
        if bytes[0] & 0xC0 != 0 {
            return Err(DecodeError::NotStun { got: bytes[0] });
        }
        let cookie = u32_at(bytes, 4).unwrap_or_default();
        if cookie != MAGIC_COOKIE {
            return Err(DecodeError::WrongCookie { got: cookie });
        }
        let len = usize::from(u16_at(bytes, 2).unwrap_or_default());
        if len % 4 != 0 || bytes.len() > HEADER_LEN + len {
            return Err(DecodeError::WrongLength { got: len });
        }
        if bytes.len() < HEADER_LEN + len {
            return Err(DecodeError::Truncated {
                needed: HEADER_LEN + len,
                got: bytes.len(),
            });
        }

        let mut message = Message {
            bytes,
            attributes_end: bytes.len(),
            integrity: None,
            integrity_sha256: None,
            fingerprint: None,
        };
        message.walk()?;
        Ok(message)
    }

    /// Checks that every attribute lies inside the message, and remembers the three that end it.
    fn walk(&mut self) -> Result<(), DecodeError> {
        let mut offset = HEADER_LEN;
        let mut count = 0;

        while offset < self.bytes.len() {
            let (Some(attribute), Some(len)) =
                (u16_at(self.bytes, offset), u16_at(self.bytes, offset + 2))
            else {
                // The length is a multiple of four, so a header is never cut in two.
                return Err(DecodeError::Truncated {
                    needed: offset + 4,
                    got: self.bytes.len(),
                });
            };
            let attribute = AttributeType(attribute);
            let len = usize::from(len);
            let next = offset + 4 + len.next_multiple_of(4);
            if next > self.bytes.len() {
                return Err(DecodeError::AttributeTooLong { attribute, len });
            }
            count += 1;
            if count > ATTRIBUTES_MAX {
                return Err(DecodeError::TooManyAttributes);
            }

            // FINGERPRINT is last (RFC 8489 §14.7), MESSAGE-INTEGRITY-SHA256 may follow
            // MESSAGE-INTEGRITY (§14.6), and nothing else behind either counts (§14.5).
            if self.fingerprint.is_none() {
                let ends = match attribute {
                    AttributeType::MESSAGE_INTEGRITY
                        if self.integrity.is_none() && self.integrity_sha256.is_none() =>
                    {
                        &mut self.integrity
                    }
                    AttributeType::MESSAGE_INTEGRITY_SHA256 if self.integrity_sha256.is_none() => {
                        &mut self.integrity_sha256
                    }
                    AttributeType::FINGERPRINT => &mut self.fingerprint,
                    _ => {
                        offset = next;
                        continue;
                    }
                };
                *ends = Some(offset);
                self.attributes_end = self.attributes_end.min(offset);
            }
            offset = next;
        }
        Ok(())
    }

    /// The whole message.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The class.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.message_type() & 0x0110 {
            0x0000 => Class::Request,
            0x0010 => Class::Indication,
            0x0100 => Class::Success,
            _ => Class::Error,
        }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        let bits = self.message_type();
        Method((bits & 0x000F) | ((bits & 0x00E0) >> 1) | ((bits & 0x3E00) >> 2))
    }

    fn message_type(&self) -> u16 {
        u16_at(self.bytes, 0).unwrap_or_default()
    }

    /// The transaction id.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..HEADER_LEN]);
        id
    }

    /// The attributes that count, in order; duplicates included.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(&self.bytes[..self.attributes_end], HEADER_LEN)
    }

    /// The value of the first attribute of this type, without padding.
    #[must_use]
    pub fn attribute(&self, attribute: AttributeType) -> Option<&'a [u8]> {
        self.attributes()
            .find(|(found, _)| *found == attribute)
            .map(|(_, value)| value)
    }

    /// The value of a text attribute; `None` where it is missing or no UTF-8.
    #[must_use]
    pub fn text(&self, attribute: AttributeType) -> Option<&'a str> {
        std::str::from_utf8(self.attribute(attribute)?).ok()
    }

    /// The value of an attribute of four bytes; `None` where it is missing or of another length.
    #[must_use]
    pub fn u32(&self, attribute: AttributeType) -> Option<u32> {
        Some(u32::from_be_bytes(
            self.attribute(attribute)?.try_into().ok()?,
        ))
    }

    /// The address in the first attribute of this type; `None` where it is missing or malformed
    /// (RFC 8489 §14.2).
    #[must_use]
    pub fn xor_address(&self, attribute: AttributeType) -> Option<SocketAddr> {
        decode_xor_address(self.attribute(attribute)?, &self.transaction_id())
    }

    /// CHANNEL-NUMBER (RFC 8656 §18.1); `None` where it is missing or malformed. The range is not
    /// checked.
    #[must_use]
    pub fn channel_number(&self) -> Option<u16> {
        self.u32(AttributeType::CHANNEL_NUMBER)
            .map(|value| (value >> 16) as u16)
    }

    /// The protocol number in REQUESTED-TRANSPORT (RFC 8656 §18.7); `None` where the attribute is
    /// missing or malformed.
    #[must_use]
    pub fn requested_transport(&self) -> Option<u8> {
        self.u32(AttributeType::REQUESTED_TRANSPORT)
            .map(|value| (value >> 24) as u8)
    }

    /// The family in REQUESTED-ADDRESS-FAMILY (RFC 8656 §18.6): `None` where the attribute is
    /// missing, `Some(None)` where it names no family we know.
    #[must_use]
    pub fn requested_address_family(&self) -> Option<Option<AddressFamily>> {
        self.family(AttributeType::REQUESTED_ADDRESS_FAMILY)
    }

    /// The family in ADDITIONAL-ADDRESS-FAMILY (RFC 8656 §18.11), by its number or by that of the
    /// draft: `None` where the attribute is missing, `Some(None)` where it names no family we know.
    #[must_use]
    pub fn additional_address_family(&self) -> Option<Option<AddressFamily>> {
        self.family(AttributeType::ADDITIONAL_ADDRESS_FAMILY)
            .or_else(|| self.family(AttributeType::ADDITIONAL_ADDRESS_FAMILY_OF_A_DRAFT))
    }

    fn family(&self, attribute: AttributeType) -> Option<Option<AddressFamily>> {
        Some(match self.attribute(attribute)? {
            [byte, _, _, _] => AddressFamily::from_byte(*byte),
            _ => None,
        })
    }

    /// ADDRESS-ERROR-CODE without its phrase (RFC 8656 §18.12); `None` where it is missing or
    /// malformed.
    #[must_use]
    pub fn address_error_code(&self) -> Option<(AddressFamily, ErrorCode)> {
        match self.attribute(AttributeType::ADDRESS_ERROR_CODE)? {
            [family, rest @ ..] => {
                let [_, class, number, ..] = rest else {
                    return None;
                };
                let code = ErrorCode::from_class_and_number(*class, *number)?;
                Some((AddressFamily::from_byte(*family)?, code))
            }
            [] => None,
        }
    }

    /// ICMP (RFC 8656 §18.13); `None` where it is missing or malformed.
    #[must_use]
    pub fn icmp(&self) -> Option<Icmp> {
        let value: &[u8; 8] = self.attribute(AttributeType::ICMP)?.try_into().ok()?;
        Icmp::from_value(*value)
    }

    /// ERROR-CODE without its phrase (RFC 8489 §14.8); `None` where it is missing or malformed.
    #[must_use]
    pub fn error_code(&self) -> Option<ErrorCode> {
        match self.attribute(AttributeType::ERROR_CODE)? {
            [_, _, class, number, ..] => ErrorCode::from_class_and_number(*class, *number),
            _ => None,
        }
    }

    /// Whether, and how, the message is protected; the stronger where both kinds are there.
    #[must_use]
    pub fn integrity_kind(&self) -> Option<IntegrityKind> {
        if self.integrity_sha256.is_some() {
            Some(IntegrityKind::Sha256)
        } else {
            self.integrity.map(|_| IntegrityKind::Sha1)
        }
    }

    /// Whether the message's strongest integrity attribute was made with `key`; `false` where
    /// there is none. Takes the same time whatever bytes differ. Source: RFC 8489 §14.5, §14.6.
    #[must_use]
    pub fn verify_integrity(&self, key: &IntegrityKey) -> bool {
        let (kind, offset) = match (self.integrity_sha256, self.integrity) {
            (Some(offset), _) => (IntegrityKind::Sha256, offset),
            (None, Some(offset)) => (IntegrityKind::Sha1, offset),
            (None, None) => return false,
        };
        let Some((_, value)) = Attributes::new(self.bytes, offset).next() else {
            return false;
        };
        key.verify(kind, &self.bytes[..offset], value)
    }

    /// Whether FINGERPRINT is right; `None` where there is none (RFC 8489 §14.7).
    #[must_use]
    pub fn verify_fingerprint(&self) -> Option<bool> {
        let offset = self.fingerprint?;
        let (_, value) = Attributes::new(self.bytes, offset).next()?;
        let expected = fingerprint_of(&self.bytes[..offset]).to_be_bytes();
        Some(value == expected.as_slice() && offset + 8 == self.bytes.len())
    }
}

impl fmt::Debug for Message<'_> {
    /// Names class and method only: attributes carry addresses and names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {:?} of {} bytes",
            self.method(),
            self.class(),
            self.bytes.len()
        )
    }
}

/// The first two bytes of a message: class and method interleaved (RFC 8489 §5).
pub(crate) fn message_type(class: Class, method: Method) -> u16 {
    let m = method.0 & 0x0FFF;
    class.bits() | (m & 0x000F) | ((m & 0x0070) << 1) | ((m & 0x0F80) << 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MessageWriter;

    #[test]
    fn class_and_method_survive_the_interleaving() {
        let mut buffer = [0; 64];
        for class in [
            Class::Request,
            Class::Indication,
            Class::Success,
            Class::Error,
        ] {
            for method in 0..0x1000 {
                let bytes = MessageWriter::new(&mut buffer, class, Method(method), [7; 12])
                    .finish()
                    .unwrap();
                let message = Message::parse(bytes).unwrap();
                assert_eq!((message.class(), message.method()), (class, Method(method)));
            }
        }
    }

    #[test]
    fn malformed_bytes_are_named() {
        let good = [
            0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        ];
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut bytes = good.to_vec();
            change(&mut bytes);
            let got = match Message::parse(&bytes) {
                Ok(_) => "ok".to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(got, expected);
        };

        check(&|_| {}, "ok");
        check(&|b| b.truncate(19), "truncated: 20 bytes needed, 19 there");
        check(&|b| b.clear(), "truncated: 20 bytes needed, 0 there");
        check(&|b| b[0] = 0x40, "not a STUN message: it begins with 0x40");
        check(&|b| b[4] = 0, "wrong magic cookie 0x0012a442");
        check(&|b| b[3] = 3, "wrong length 3 in the header");
        check(&|b| b.push(0), "wrong length 0 in the header");
        check(&|b| b[3] = 4, "truncated: 24 bytes needed, 20 there");
        check(
            &|b| {
                b[3] = 4;
                b.extend([0, 6, 0, 1]);
            },
            "attribute 0x0006 of 1 bytes runs over the end of the message",
        );
        check(
            &|b| {
                b[3] = 4;
                b.extend([0, 6, 0xFF, 0xFF]);
            },
            "attribute 0x0006 of 65535 bytes runs over the end of the message",
        );
        check(
            &|b| {
                let len = u16::try_from((ATTRIBUTES_MAX + 1) * 4).unwrap();
                b[2..4].copy_from_slice(&len.to_be_bytes());
                b.extend(std::iter::repeat_n([0x80, 6, 0, 0], ATTRIBUTES_MAX + 1).flatten());
            },
            "more than 128 attributes",
        );
    }

    #[test]
    fn the_first_of_two_attributes_wins() {
        let mut buffer = [0; 64];
        let bytes = MessageWriter::new(&mut buffer, Class::Request, Method::REFRESH, [0; 12])
            .u32(AttributeType::LIFETIME, 1)
            .u32(AttributeType::LIFETIME, 2)
            .finish()
            .unwrap();
        assert_eq!(
            Message::parse(bytes).unwrap().u32(AttributeType::LIFETIME),
            Some(1)
        );
    }

    #[test]
    fn icmp_reads_back() {
        for (kind, code, data) in [(3, 4, 1500), (127, 255, u32::MAX), (0, 0, 0)] {
            let icmp = Icmp { kind, code, data };
            assert_eq!(Icmp::from_value(icmp.value()), Some(icmp));
        }
        let port_unreachable = Icmp {
            kind: 3,
            code: 3,
            data: 0,
        };
        assert_eq!(port_unreachable.value(), [0, 0, 0x06, 0x03, 0, 0, 0, 0]);
        assert_eq!(Icmp::from_value([0, 0, 0x01, 0x00, 0, 0, 0, 0]), None);
    }

    #[test]
    fn an_address_error_code_reads_back() {
        let mut buffer = [0; 100];
        let bytes = MessageWriter::new(&mut buffer, Class::Success, Method::ALLOCATE, [0; 12])
            .address_error_code(AddressFamily::V6, ErrorCode::INSUFFICIENT_CAPACITY)
            .finish()
            .unwrap();
        assert_eq!(
            Message::parse(bytes).unwrap().address_error_code(),
            Some((AddressFamily::V6, ErrorCode::INSUFFICIENT_CAPACITY))
        );
    }

    #[test]
    fn attributes_behind_the_integrity_do_not_count() {
        let key = IntegrityKey::short_term("secret");
        let mut buffer = [0; 256];
        let bytes = MessageWriter::new(&mut buffer, Class::Request, Method::REFRESH, [0; 12])
            .u32(AttributeType::PRIORITY, 1)
            .integrity(IntegrityKind::Sha1, &key)
            .u32(AttributeType::LIFETIME, 2)
            .finish()
            .unwrap();
        let message = Message::parse(bytes).unwrap();

        assert_eq!(message.u32(AttributeType::LIFETIME), None);
        assert!(message.verify_integrity(&key));
        assert!(!message.verify_integrity(&IntegrityKey::short_term("other")));
    }

    #[test]
    fn sha256_is_preferred_where_both_are_there() {
        let key = IntegrityKey::short_term("secret");
        let mut buffer = [0; 256];
        let bytes = MessageWriter::new(&mut buffer, Class::Request, Method::REFRESH, [0; 12])
            .integrity(IntegrityKind::Sha1, &IntegrityKey::short_term("downgraded"))
            .integrity(IntegrityKind::Sha256, &key)
            .fingerprint()
            .finish()
            .unwrap();
        let message = Message::parse(bytes).unwrap();

        assert_eq!(message.integrity_kind(), Some(IntegrityKind::Sha256));
        assert!(message.verify_integrity(&key));
        assert_eq!(message.verify_fingerprint(), Some(true));
    }
}
