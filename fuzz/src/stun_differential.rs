//! A STUN message as three readers see it: ours, and the crates `stun-types` and `stun`.
//!
//! Bytes that one reader refuses and another takes are how somebody is talked past a filter. The
//! three agree on every message but for the differences named here, each with the section of
//! RFC 8489 that has us do otherwise; the tests below show one message for each.
//!
//! Random bytes never carry a right HMAC, so each message is compared as it is, and once more with
//! its tags made right by another crate than ours.

use std::net::SocketAddr;

use relay_stun::{
    AttributeType, DecodeError, HEADER_LEN, IntegrityKey, IntegrityKind, Message, MessageWriter,
    PasswordAlgorithm, TransactionId,
};
use stun::message::Getter as _;
use stun_types::attribute::{self as typed, Attribute as _};
use stun_types::message as types;

/// What the tags are made with, as a short-term password (RFC 8489 §9.1).
const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

/// XOR-MAPPED-ADDRESS in drafts of RFC 5389, which `stun` takes for the one of today.
const XOR_MAPPED_ADDRESS_OF_A_DRAFT: AttributeType = AttributeType(0x8020);

/// What one reader takes a message for.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    /// Class and method, taken apart and put together again by the reader.
    message_type: [u8; 2],
    transaction_id: TransactionId,
    /// Those in front of what ends a message (see [`ends`]).
    attributes: Vec<(u16, Vec<u8>)>,
}

/// A STUN message, and the same with its tags made right.
pub(crate) fn stun_differential(data: &[u8]) {
    if data.len() > usize::from(u16::MAX) {
        return; // No datagram is longer, and `stun-types` counts in 16 bits.
    }
    let Ok(message) = compare(data) else { return };

    let mended = mended(data);
    let again = compare(&mended).expect("only values of tags have changed");
    let tag_len = tag(&message).map(|(kind, value)| (kind, value.len()));
    let is_possible = match tag_len {
        None => false,
        Some((IntegrityKind::Sha1, len)) => len == 20,
        Some((IntegrityKind::Sha256, len)) => (16..=32).contains(&len) && len % 4 == 0,
    };
    assert_eq!(verify(&again), is_possible, "{tag_len:?}");
}

/// Compares what the three say, and returns what we say.
fn compare(data: &[u8]) -> Result<Message<'_>, DecodeError> {
    let ours = Message::parse(data);
    let mut stun = stun::message::Message::new();
    let stun = stun.unmarshal_binary(data).map(|()| stun);
    let types = types::Message::from_bytes(data);
    match &ours {
        Err(error) => {
            assert!(stun.is_err() || stun_takes(*error), "{error}");
            assert!(types.is_err() || types_takes(*error, data), "{error}");
        }
        Ok(ours) => {
            compare_with_stun(ours, stun.expect("it takes what we take"));
            match types {
                Ok(types) => compare_with_types(ours, &types),
                // It looks at FINGERPRINT at once; we leave that to who asks for it (§7.3).
                Err(error) => assert_eq!(ours.verify_fingerprint(), Some(false), "{error}"),
            }
        }
    }
    ours
}

/// What `stun` takes and we refuse.
fn stun_takes(error: DecodeError) -> bool {
    match error {
        // The two leading bits are zero (§5).
        DecodeError::NotStun { .. } => true,
        // The length is that of the whole message (§5).
        DecodeError::WrongLength { got } => got % 4 == 0,
        // A limit of ours.
        DecodeError::TooManyAttributes => true,
        _ => false,
    }
}

/// What `stun-types` takes and we refuse.
fn types_takes(error: DecodeError, data: &[u8]) -> bool {
    match error {
        // The length is that of the whole message, and a multiple of four (§5).
        DecodeError::WrongLength { .. } => true,
        // A limit of ours.
        DecodeError::TooManyAttributes => true,
        // A message is refused as soon as any part of it is malformed (§6.3); it looks no further
        // than to the first attribute that does not count.
        DecodeError::AttributeTooLong { .. } => has_ignored(data),
        _ => false,
    }
}

fn compare_with_stun(ours: &Message<'_>, mut stun: stun::message::Message) {
    let listed = stun.attributes.0.iter();
    let mut attributes: Vec<_> = listed
        .map(|held| (held.typ.0, held.value.clone()))
        .collect();
    // It lists what stands behind MESSAGE-INTEGRITY, too, where nothing counts (§14.5).
    let end = attributes.iter().position(|(kind, _)| ends(*kind));
    let behind = attributes.split_off(end.unwrap_or(attributes.len()));
    let mut expected = reading(ours);
    for (kind, _) in &mut expected.attributes {
        if *kind == XOR_MAPPED_ADDRESS_OF_A_DRAFT.0 {
            *kind = AttributeType::XOR_MAPPED_ADDRESS.0;
        }
    }
    let theirs = Reading {
        message_type: stun.typ.value().to_be_bytes(),
        transaction_id: stun.transaction_id.0,
        attributes,
    };
    assert_eq!(expected, theirs);

    // It knows no MESSAGE-INTEGRITY-SHA256.
    if tag(ours).is_some_and(|(kind, _)| kind == IntegrityKind::Sha1) {
        let key = stun::integrity::MessageIntegrity::new_short_term_integrity(PASSWORD.to_owned());
        assert_eq!(verify(ours), key.check(&mut stun).is_ok());
    }
    // It takes the first FINGERPRINT for the last attribute, which it must be (§14.7).
    let first = behind
        .iter()
        .position(|(kind, _)| *kind == AttributeType::FINGERPRINT.0);
    if first.is_some_and(|first| first + 1 == behind.len()) {
        let verdict = stun::fingerprint::FINGERPRINT.check(&stun);
        assert_eq!(ours.verify_fingerprint(), Some(verdict.is_ok()));
    }
    // It wants a first byte of zero, which is to be ignored (§14.1), and takes short addresses.
    let value = ours.attribute(AttributeType::XOR_MAPPED_ADDRESS);
    if value.is_some_and(|value| value.first() == Some(&0))
        && ours.attribute(XOR_MAPPED_ADDRESS_OF_A_DRAFT).is_none()
        && let Some(address) = ours.xor_address(AttributeType::XOR_MAPPED_ADDRESS)
    {
        let mut theirs = stun::xoraddr::XorMappedAddress::default();
        theirs.get_from(&stun).expect("it takes what we take");
        assert_eq!(address, SocketAddr::new(theirs.ip, theirs.port));
    }
}

fn compare_with_types(ours: &Message<'_>, theirs: &types::Message<'_>) {
    let id = u128::from(theirs.transaction_id()).to_be_bytes();
    let listed = theirs
        .iter_attributes()
        .map(|(_, held)| (held.get_type().value(), held.value.to_vec()));
    let read = Reading {
        message_type: *theirs
            .get_type()
            .to_bytes()
            .first_chunk()
            .expect("two bytes"),
        transaction_id: *id.last_chunk().expect("96 of 128 bits"),
        attributes: listed.take_while(|(kind, _)| !ends(*kind)).collect(),
    };
    assert_eq!(reading(ours), read);

    // It stops at the first attribute that does not count. MESSAGE-INTEGRITY-SHA256 and
    // FINGERPRINT count behind such a one as well (§14.5).
    if !has_ignored(ours.bytes()) {
        let key = types::ShortTermCredentials::new(PASSWORD.to_owned()).make_key();
        let verdict = theirs.validate_integrity_with_key(&key);
        assert_eq!(verify(ours), verdict.is_ok(), "{verdict:?}");
        assert_ne!(ours.verify_fingerprint(), Some(false));
    }
    let address = theirs.attribute::<typed::XorMappedAddress>().ok();
    assert_eq!(
        ours.xor_address(AttributeType::XOR_MAPPED_ADDRESS),
        address.map(|address| address.addr(theirs.transaction_id()))
    );
    // It wants a phrase of UTF-8 and of 763 bytes at most, too; we read no phrase.
    let phrase = ours
        .attribute(AttributeType::ERROR_CODE)
        .and_then(|value| value.get(4..));
    if phrase.is_some_and(|phrase| phrase.len() <= 763 && str::from_utf8(phrase).is_ok()) {
        let code = theirs.attribute::<typed::ErrorCode>().ok();
        assert_eq!(
            ours.error_code().map(|code| code.0),
            code.map(|code| code.code())
        );
    }
    // It refuses a list with an algorithm it does not know; a client takes the first it does (§9.2.5).
    if let Ok(offered) = theirs.attribute::<typed::PasswordAlgorithms>()
        && let Some(value) = ours.attribute(AttributeType::PASSWORD_ALGORITHMS)
    {
        let expected = match offered.algorithms().first() {
            Some(typed::PasswordAlgorithmValue::MD5) => Some(PasswordAlgorithm::Md5),
            Some(typed::PasswordAlgorithmValue::SHA256) => Some(PasswordAlgorithm::Sha256),
            None => None,
        };
        assert_eq!(PasswordAlgorithm::choose(value), expected);
    }
}

fn reading(message: &Message<'_>) -> Reading {
    let mut header = [0; HEADER_LEN];
    let id = message.transaction_id();
    MessageWriter::new(&mut header, message.class(), message.method(), id)
        .finish()
        .expect("a header fits a header");
    let attributes = message.attributes();
    Reading {
        message_type: [header[0], header[1]],
        transaction_id: id,
        attributes: attributes
            .map(|(kind, value)| (kind.0, value.to_vec()))
            .collect(),
    }
}

fn verify(message: &Message<'_>) -> bool {
    message.verify_integrity(&IntegrityKey::short_term(PASSWORD))
}

/// Whether what stands behind an attribute of this type does not count, but for more of the three
/// (§14.5 to §14.7).
fn ends(kind: u16) -> bool {
    [
        AttributeType::MESSAGE_INTEGRITY,
        AttributeType::MESSAGE_INTEGRITY_SHA256,
        AttributeType::FINGERPRINT,
    ]
    .contains(&AttributeType(kind))
}

/// All that has the form of an attribute, as offset, type and length of the value.
fn walk(data: &[u8]) -> impl Iterator<Item = (usize, AttributeType, usize)> + '_ {
    let mut offset = HEADER_LEN;
    std::iter::from_fn(move || {
        let [t0, t1, l0, l1] = *data.get(offset..)?.first_chunk()?;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let at = offset;
        offset += 4 + len.next_multiple_of(4);
        let kind = AttributeType(u16::from_be_bytes([t0, t1]));
        (offset <= data.len()).then_some((at, kind, len))
    })
}

/// Whether an attribute stands where it does not count: behind FINGERPRINT, or behind an integrity
/// that it may not follow.
fn has_ignored(data: &[u8]) -> bool {
    let mut last = None;
    walk(data).any(|(_, kind, _)| {
        let counts = match last {
            None => true,
            Some(AttributeType::MESSAGE_INTEGRITY) => {
                kind != AttributeType::MESSAGE_INTEGRITY && ends(kind.0)
            }
            Some(AttributeType::MESSAGE_INTEGRITY_SHA256) => kind == AttributeType::FINGERPRINT,
            Some(_) => false,
        };
        if ends(kind.0) {
            last = Some(kind);
        }
        !counts
    })
}

/// The tag that decides about a message: the first of each kind counts, SHA-1 none behind SHA-256,
/// and none behind FINGERPRINT (§14.5 to §14.7).
fn tag<'a>(message: &Message<'a>) -> Option<(IntegrityKind, &'a [u8])> {
    let bytes = message.bytes();
    let value = |(at, _, len): (usize, AttributeType, usize)| &bytes[at + 4..][..len];
    let in_front = || walk(bytes).take_while(|(_, kind, _)| *kind != AttributeType::FINGERPRINT);
    let first = |wanted| in_front().find(|(_, kind, _)| *kind == wanted).map(value);
    let sha256 = first(AttributeType::MESSAGE_INTEGRITY_SHA256);
    let sha1 = first(AttributeType::MESSAGE_INTEGRITY);
    sha256
        .map(|value| (IntegrityKind::Sha256, value))
        .or(sha1.map(|value| (IntegrityKind::Sha1, value)))
}

/// The message with all its tags and fingerprints made right, as far as their lengths allow, by
/// `stun-types`.
fn mended(data: &[u8]) -> Vec<u8> {
    let key = types::ShortTermCredentials::new(PASSWORD.to_owned()).make_key();
    let mut mended = data.to_vec();
    for (at, kind, len) in walk(data) {
        let end = at + 4 + len.next_multiple_of(4);
        let message_len = u16::try_from(end - HEADER_LEN).expect("within a message");
        let mut header = [mended[0], mended[1], 0, 0];
        header[2..].copy_from_slice(&message_len.to_be_bytes());
        let parts = [&header[..], &mended[4..at]];
        let right = match kind {
            AttributeType::MESSAGE_INTEGRITY => typed::MessageIntegrity::compute(&parts, &key)
                .expect("a key of any length")
                .to_vec(),
            AttributeType::MESSAGE_INTEGRITY_SHA256 => {
                typed::MessageIntegritySha256::compute(&parts, &key)
                    .expect("a key of any length")
                    .to_vec()
            }
            AttributeType::FINGERPRINT => {
                // "STUN" (§14.7).
                let crc = u32::from_be_bytes(typed::Fingerprint::compute(&parts));
                (crc ^ 0x5354_554E).to_be_bytes().to_vec()
            }
            _ => continue,
        };
        let room = mended[at + 4..][..len].iter_mut();
        room.zip(right).for_each(|(to, from)| *to = from);
    }
    mended
}

#[cfg(test)]
mod tests {
    use relay_stun::{ATTRIBUTES_MAX, Class, Method};

    use super::*;

    /// A Binding request with these attributes, without their padding.
    fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut buffer = vec![0; 4096];
        let mut writer =
            MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, [0xA5; 12]);
        for (kind, value) in attributes {
            writer = writer.attribute(AttributeType(*kind), value);
        }
        let len = writer.finish().unwrap().len();
        buffer.truncate(len);
        buffer
    }

    fn changed(bytes: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = bytes;
        change(&mut bytes);
        bytes
    }

    #[test]
    fn the_differences_are_those_that_are_named() {
        const MI: (u16, &[u8]) = (0x0008, &[0; 20]);
        const SHA256: (u16, &[u8]) = (0x001C, &[0; 32]);
        const FINGERPRINT: (u16, &[u8]) = (0x8028, &[0; 4]);
        const SOFTWARE: (u16, &[u8]) = (0x8022, b"x");

        // Who takes the message, once its tags are right.
        let check = |bytes: Vec<u8>, expected: &str| {
            stun_differential(&bytes);
            let bytes = if Message::parse(&bytes).is_ok() {
                mended(&bytes)
            } else {
                bytes
            };
            let ours = Message::parse(&bytes);
            let mut got: Vec<_> = Vec::new();
            match &ours {
                Ok(ours) if verify(ours) => got.push("we, verified"),
                Ok(_) => got.push("we"),
                Err(_) => {}
            }
            let mut stun = stun::message::Message::new();
            if stun.unmarshal_binary(&bytes).is_ok() {
                got.push("stun");
            }
            if types::Message::from_bytes(&bytes).is_ok() {
                got.push("stun-types");
            }
            assert_eq!(got.join(", "), expected, "{}", bytes.escape_ascii());
        };

        check(message(&[SOFTWARE]), "we, stun, stun-types");
        check(message(&[SOFTWARE, MI]), "we, verified, stun, stun-types");
        check(
            message(&[MI, SHA256, FINGERPRINT]),
            "we, verified, stun, stun-types",
        );
        // A wrong cookie, and a length that ends inside an attribute: nobody.
        check(changed(message(&[]), |bytes| bytes[4] = 0), "");
        check(changed(message(&[SOFTWARE]), |bytes| bytes[23] = 5), "");
        // The two leading bits (§5).
        check(changed(message(&[]), |bytes| bytes[0] |= 0x80), "stun");
        // Bytes behind the message, and a length that is no multiple of four (§5).
        check(
            changed(message(&[SOFTWARE]), |bytes| bytes[3] = 0),
            "stun, stun-types",
        );
        check(
            changed(message(&[SOFTWARE]), |bytes| bytes[3] = 6),
            "stun-types",
        );
        // A limit of ours.
        check(message(&[SOFTWARE; ATTRIBUTES_MAX + 1]), "stun, stun-types");
        // A malformed attribute behind one that does not count (§6.3).
        check(
            changed(message(&[MI, SOFTWARE, SOFTWARE]), |bytes| {
                let at = bytes.len() - 5;
                bytes[at] = 9;
            }),
            "stun-types",
        );
        // SHA-256 behind an attribute that does not count still counts (§14.5).
        check(
            message(&[MI, SOFTWARE, SHA256, FINGERPRINT]),
            "we, verified, stun, stun-types",
        );
        // A FINGERPRINT that can't be right (§7.3).
        check(message(&[(0x8028, &[0; 8])]), "we, stun");
    }
}
