//! Writes STUN messages into a caller's buffer (RFC 8489 §5, §14).

use std::net::SocketAddr;

use crate::attribute::{AddressFamily, AttributeType, encode_address, encode_xor_address};
use crate::integrity::{IntegrityKey, IntegrityKind, fingerprint_of};
use crate::message::{
    Class, ErrorCode, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, message_type,
};

/// The buffer ended before the message, or the message passed 65,535 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message does not fit the buffer")]
pub struct BufferTooSmall;

/// Builds one message, attribute by attribute, in the order they are written.
///
/// A call that does not fit is remembered and reported once, by [`finish`](Self::finish).
#[derive(Debug)]
pub struct MessageWriter<'b> {
    buffer: &'b mut [u8],
    /// The length so far; `None` once something did not fit.
    len: Option<usize>,
    transaction_id: TransactionId,
}

impl<'b> MessageWriter<'b> {
    /// Begins a message.
    #[must_use]
    pub fn new(
        buffer: &'b mut [u8],
        class: Class,
        method: Method,
        transaction_id: TransactionId,
    ) -> MessageWriter<'b> {
        let len = buffer.get_mut(..HEADER_LEN).map(|header| {
            header[..2].copy_from_slice(&message_type(class, method).to_be_bytes());
            header[2..4].fill(0);
            header[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            header[8..].copy_from_slice(&transaction_id);
            HEADER_LEN
        });
        MessageWriter {
            buffer,
            len,
            transaction_id,
        }
    }

    /// Writes an attribute; its padding is zero.
    #[must_use]
    pub fn attribute(mut self, attribute: AttributeType, value: &[u8]) -> Self {
        self.len = self.len.and_then(|at| {
            let value_len = u16::try_from(value.len()).ok()?;
            let end = at + 4 + value.len();
            let next = end.next_multiple_of(4);
            let message_len = u16::try_from(next - HEADER_LEN).ok()?;
            let room = self.buffer.get_mut(at..next)?;
            room[..2].copy_from_slice(&attribute.0.to_be_bytes());
            room[2..4].copy_from_slice(&value_len.to_be_bytes());
            room[4..end - at].copy_from_slice(value);
            room[end - at..].fill(0);
            self.buffer[2..4].copy_from_slice(&message_len.to_be_bytes());
            Some(next)
        });
        self
    }

    /// Writes an attribute of four bytes.
    #[must_use]
    pub fn u32(self, attribute: AttributeType, value: u32) -> Self {
        self.attribute(attribute, &value.to_be_bytes())
    }

    /// Writes an XOR-…-ADDRESS attribute (RFC 8489 §14.2).
    #[must_use]
    pub fn xor_address(self, attribute: AttributeType, address: SocketAddr) -> Self {
        let mut value = [0; 20];
        let len = encode_xor_address(&mut value, address, &self.transaction_id);
        self.attribute(attribute, &value[..len])
    }

    /// Writes an address attribute that is not obfuscated (RFC 8489 §14.1).
    #[must_use]
    pub fn address(self, attribute: AttributeType, address: SocketAddr) -> Self {
        let mut value = [0; 20];
        let len = encode_address(&mut value, address);
        self.attribute(attribute, &value[..len])
    }

    /// Writes ERROR-CODE without a phrase, for answers that must stay small (RFC 8489 §14.8).
    #[must_use]
    pub fn bare_error_code(self, code: ErrorCode) -> Self {
        let [class, number] = code.class_and_number();
        self.attribute(AttributeType::ERROR_CODE, &[0, 0, class, number])
    }

    /// Writes ERROR-CODE with the code's own phrase (RFC 8489 §14.8).
    #[must_use]
    pub fn error_code(self, code: ErrorCode) -> Self {
        self.coded(AttributeType::ERROR_CODE, 0, code)
    }

    /// Writes ADDRESS-ERROR-CODE with the code's own phrase (RFC 8656 §18.12).
    #[must_use]
    pub fn address_error_code(self, family: AddressFamily, code: ErrorCode) -> Self {
        self.coded(AttributeType::ADDRESS_ERROR_CODE, family.byte(), code)
    }

    fn coded(self, attribute: AttributeType, first: u8, code: ErrorCode) -> Self {
        let phrase = code.reason().as_bytes();
        let mut value = [0; 64];
        value[0] = first;
        [value[2], value[3]] = code.class_and_number();
        let end = (4 + phrase.len()).min(value.len());
        value[4..end].copy_from_slice(&phrase[..end - 4]);
        self.attribute(attribute, &value[..end])
    }

    /// Writes UNKNOWN-ATTRIBUTES, of which a message never needs more than 16 (RFC 8489 §14.13).
    #[must_use]
    pub fn unknown_attributes(self, unknown: impl Iterator<Item = AttributeType>) -> Self {
        let mut value = [0; 32];
        let mut len = 0;
        for (room, attribute) in value.chunks_exact_mut(2).zip(unknown) {
            room.copy_from_slice(&attribute.0.to_be_bytes());
            len += 2;
        }
        self.attribute(AttributeType::UNKNOWN_ATTRIBUTES, &value[..len])
    }

    /// Writes MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 over what is written so far
    /// (RFC 8489 §14.5, §14.6).
    #[must_use]
    pub fn integrity(self, kind: IntegrityKind, key: &IntegrityKey) -> Self {
        let Some(len) = self.len else {
            return self;
        };
        let tag = key.tag(kind, &self.buffer[..len], kind.tag_len());
        let attribute = match kind {
            IntegrityKind::Sha1 => AttributeType::MESSAGE_INTEGRITY,
            IntegrityKind::Sha256 => AttributeType::MESSAGE_INTEGRITY_SHA256,
        };
        self.attribute(attribute, tag.as_ref())
    }

    /// Writes FINGERPRINT, which ends the message (RFC 8489 §14.7).
    #[must_use]
    pub fn fingerprint(self) -> Self {
        let Some(len) = self.len else {
            return self;
        };
        let value = fingerprint_of(&self.buffer[..len]);
        self.u32(AttributeType::FINGERPRINT, value)
    }

    /// The finished message.
    ///
    /// # Errors
    ///
    /// [`BufferTooSmall`] where any part did not fit.
    pub fn finish(self) -> Result<&'b [u8], BufferTooSmall> {
        let len = self.len.ok_or(BufferTooSmall)?;
        Ok(&self.buffer[..len])
    }
}

/// The longest prefix [`write_data_indication`] writes, in bytes: header, XOR-PEER-ADDRESS with
/// an IPv6 address, and the header of DATA.
pub const DATA_INDICATION_PREFIX_MAX: usize = HEADER_LEN + 24 + 4;

/// Writes everything of a Data indication that stands before its payload; returns the length (36
/// or 48 bytes), or `None` where the payload is too long for one message. The payload and
/// [`padding_len`] zero bytes follow, so a relay can send from the buffer the payload arrived in.
/// Source: RFC 8656 §11.3.
pub fn write_data_indication(
    prefix: &mut [u8; DATA_INDICATION_PREFIX_MAX],
    transaction_id: TransactionId,
    peer: SocketAddr,
    payload_len: u16,
) -> Option<usize> {
    let written = MessageWriter::new(prefix, Class::Indication, Method::DATA, transaction_id)
        .xor_address(AttributeType::XOR_PEER_ADDRESS, peer)
        .attribute(AttributeType::DATA, &[])
        .finish()
        .ok()?
        .len();
    let message_len = written - HEADER_LEN + usize::from(payload_len).next_multiple_of(4);
    let message_len = u16::try_from(message_len).ok()?;
    prefix[2..4].copy_from_slice(&message_len.to_be_bytes());
    prefix[written - 2..written].copy_from_slice(&payload_len.to_be_bytes());
    Some(written)
}

/// How many bytes of padding follow `len` bytes (0 to 3).
#[must_use]
pub fn padding_len(len: usize) -> usize {
    len.next_multiple_of(4) - len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    #[test]
    fn a_message_that_does_not_fit_is_reported_once() {
        let mut buffer = [0; 27];
        let written = MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, [0; 12])
            .u32(AttributeType::LIFETIME, 1)
            .fingerprint()
            .integrity(IntegrityKind::Sha1, &IntegrityKey::short_term("x"))
            .finish();
        assert_eq!(written, Err(BufferTooSmall));
    }

    #[test]
    fn a_data_indication_reads_back() {
        for (peer, payload) in [("192.0.2.7:9", &b"hello"[..]), ("[2001:db8::7]:65535", b"")] {
            let peer: SocketAddr = peer.parse().unwrap();
            let mut prefix = [0; DATA_INDICATION_PREFIX_MAX];
            let payload_len = u16::try_from(payload.len()).unwrap();
            let len = write_data_indication(&mut prefix, [3; 12], peer, payload_len).unwrap();
            let mut bytes = prefix[..len].to_vec();
            bytes.extend_from_slice(payload);
            bytes.resize(bytes.len() + padding_len(payload.len()), 0);

            let message = Message::parse(&bytes).unwrap();
            assert_eq!(
                (message.class(), message.method()),
                (Class::Indication, Method::DATA)
            );
            assert_eq!(
                message.xor_address(AttributeType::XOR_PEER_ADDRESS),
                Some(peer)
            );
            assert_eq!(message.attribute(AttributeType::DATA), Some(payload));
        }
    }

    #[test]
    fn a_payload_too_long_for_a_message_is_none() {
        let mut prefix = [0; DATA_INDICATION_PREFIX_MAX];
        let peer = "192.0.2.7:9".parse().unwrap();
        assert_eq!(
            write_data_indication(&mut prefix, [3; 12], peer, u16::MAX),
            None
        );
    }
}
