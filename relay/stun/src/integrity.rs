//! Keys, MESSAGE-INTEGRITY and FINGERPRINT (RFC 8489 §9, §14.5 to §14.7).

use std::fmt;

use aws_lc_rs::{constant_time, digest, hmac};
use md5::{Digest, Md5};

use crate::message::HEADER_LEN;

/// What the CRC-32 in FINGERPRINT is XORed with, "STUN" (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// The length of a FINGERPRINT attribute with its header, in bytes.
pub const FINGERPRINT_LEN: usize = 8;

/// Which hash protects a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegrityKind {
    /// MESSAGE-INTEGRITY: HMAC-SHA1, 20 bytes (RFC 8489 §14.5).
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256: HMAC-SHA256, 32 bytes, which a sender may truncate to no less
    /// than 16 (RFC 8489 §14.6).
    Sha256,
}

impl IntegrityKind {
    /// The length of the whole tag, in bytes.
    #[must_use]
    pub fn tag_len(self) -> usize {
        match self {
            IntegrityKind::Sha1 => 20,
            IntegrityKind::Sha256 => 32,
        }
    }
}

/// How the key of long-term credentials is made from the password (RFC 8489 §18.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PasswordAlgorithm {
    /// MD5, the only one before RFC 8489.
    #[default]
    Md5,
    /// SHA-256.
    Sha256,
}

impl PasswordAlgorithm {
    /// The value of a PASSWORD-ALGORITHMS attribute that offers both, the stronger first
    /// (RFC 8489 §14.11).
    pub const BOTH: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

    /// The value of PASSWORD-ALGORITHM: the number, and no parameters (RFC 8489 §14.12).
    #[must_use]
    pub fn value(self) -> [u8; 4] {
        match self {
            PasswordAlgorithm::Md5 => [0, 1, 0, 0],
            PasswordAlgorithm::Sha256 => [0, 2, 0, 0],
        }
    }

    /// Reads the value of PASSWORD-ALGORITHM; `None` where it names no algorithm we know, or has
    /// parameters, which neither of them takes.
    #[must_use]
    pub fn from_value(value: &[u8]) -> Option<PasswordAlgorithm> {
        [PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256]
            .into_iter()
            .find(|algorithm| algorithm.value() == value)
    }

    /// The algorithm a client takes of those in a PASSWORD-ALGORITHMS attribute: the first it
    /// knows, since the server's order is its preference (RFC 8489 §9.2.5). `None` where it knows
    /// none, or the attribute is malformed.
    #[must_use]
    pub fn choose(mut offered: &[u8]) -> Option<PasswordAlgorithm> {
        let mut chosen = None;
        while let [_, _, high, low, rest @ ..] = offered {
            let parameters_len = usize::from(u16::from_be_bytes([*high, *low]));
            let entry = &offered[..4];
            offered = rest.get(parameters_len.next_multiple_of(4)..)?;
            if parameters_len == 0 && chosen.is_none() {
                chosen = PasswordAlgorithm::from_value(entry);
            }
        }
        chosen.filter(|_| offered.is_empty())
    }
}

/// The value of USERHASH: SHA-256 of `username:realm`. The texts are taken as they are; the caller
/// has applied OpaqueString. Source: RFC 8489 §14.4.
#[must_use]
pub fn userhash(username: &str, realm: &str) -> [u8; 32] {
    sha256(&[username, ":", realm])
}

fn sha256(parts: &[&str]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The key messages are protected with. Its bytes are never printed.
#[derive(Clone)]
pub struct IntegrityKey {
    bytes: KeyBytes,
}

#[derive(Clone)]
enum KeyBytes {
    Md5([u8; 16]),
    Sha256([u8; 32]),
    Raw(Box<[u8]>),
}

impl IntegrityKey {
    /// The key of long-term credentials: the hash of `username:realm:password`. The texts are
    /// taken as they are; the caller has applied OpaqueString. Source: RFC 8489 §18.5.1.
    #[must_use]
    pub fn long_term(
        algorithm: PasswordAlgorithm,
        username: &str,
        realm: &str,
        password: &str,
    ) -> IntegrityKey {
        let parts = [username, ":", realm, ":", password];
        let bytes = match algorithm {
            PasswordAlgorithm::Md5 => {
                let mut hash = Md5::new();
                for part in parts {
                    hash.update(part);
                }
                KeyBytes::Md5(hash.finalize().into())
            }
            PasswordAlgorithm::Sha256 => KeyBytes::Sha256(sha256(&parts)),
        };
        IntegrityKey { bytes }
    }

    /// The key of short-term credentials: the password itself. Source: RFC 8489 §9.1.1.
    #[must_use]
    pub fn short_term(password: &str) -> IntegrityKey {
        IntegrityKey {
            bytes: KeyBytes::Raw(password.as_bytes().into()),
        }
    }

    /// A key that is given as it is, such as that of a third party's token (RFC 7635 §6.2).
    #[must_use]
    pub fn raw(bytes: &[u8]) -> IntegrityKey {
        IntegrityKey {
            bytes: KeyBytes::Raw(bytes.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            KeyBytes::Md5(bytes) => bytes,
            KeyBytes::Sha256(bytes) => bytes,
            KeyBytes::Raw(bytes) => bytes,
        }
    }

    /// The tag of a message of which `before` stands before the integrity attribute; `tag_len` is
    /// the length of that attribute's value.
    ///
    /// The header's length field is taken as if the message ended with the attribute
    /// (RFC 8489 §14.5), whatever it holds now.
    pub(crate) fn tag(&self, kind: IntegrityKind, before: &[u8], tag_len: usize) -> hmac::Tag {
        let algorithm = match kind {
            IntegrityKind::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            IntegrityKind::Sha256 => hmac::HMAC_SHA256,
        };
        let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, self.bytes()));
        update_with_len(before, tag_len, |part| context.update(part));
        context.sign()
    }

    pub(crate) fn verify(&self, kind: IntegrityKind, before: &[u8], value: &[u8]) -> bool {
        let len_allowed = match kind {
            IntegrityKind::Sha1 => value.len() == 20,
            IntegrityKind::Sha256 => {
                value.len() >= 16 && value.len() <= 32 && value.len().is_multiple_of(4)
            }
        };
        if !len_allowed {
            return false;
        }
        let tag = self.tag(kind, before, value.len());
        constant_time::verify_slices_are_equal(&tag.as_ref()[..value.len()], value).is_ok()
    }
}

impl fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntegrityKey")
    }
}

/// The password of REST credentials: base64 of HMAC-SHA1 of the user name under the shared secret.
/// Never fails. Source: draft-uberti-behave-turn-rest-00 §2.2.
#[must_use]
pub fn rest_password(secret: &[u8], username: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, username.as_bytes());
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, tag)
}

/// The value of FINGERPRINT behind `before` (RFC 8489 §14.7).
pub(crate) fn fingerprint_of(before: &[u8]) -> u32 {
    let mut crc = !0;
    update_with_len(before, 4, |part| crc = crc32_update(crc, part));
    !crc ^ FINGERPRINT_XOR
}

/// Feeds `before` with the header's length set as if one attribute of `value_len` bytes followed
/// and ended the message.
fn update_with_len(before: &[u8], value_len: usize, mut update: impl FnMut(&[u8])) {
    let len = before.len() + 4 + value_len - HEADER_LEN;
    // A message is at most 65,555 bytes, so its attributes fit 16 bits.
    let len = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    update(&before[..2]);
    update(&len);
    update(&before[4..]);
}

/// CRC-32 as in ITU V.42 (the one of zip and PNG). Never fails. Source: RFC 8489 §14.7.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    !crc32_update(!0, bytes)
}

fn crc32_update(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| {
        (crc >> 8) ^ CRC32_TABLE[((crc ^ u32::from(byte)) & 0xFF) as usize]
    })
}

const CRC32_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i: u32 = 0;
    while i < 256 {
        let mut crc = i;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xEDB8_8320
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[i as usize] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_matches_its_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn the_first_algorithm_we_know_is_chosen() {
        let check = |offered: &[u8], expected| {
            assert_eq!(PasswordAlgorithm::choose(offered), expected, "{offered:?}");
        };

        check(&PasswordAlgorithm::BOTH, Some(PasswordAlgorithm::Sha256));
        check(&[0, 1, 0, 0, 0, 2, 0, 0], Some(PasswordAlgorithm::Md5));
        check(&[0, 9, 0, 0, 0, 2, 0, 0], Some(PasswordAlgorithm::Sha256));
        check(
            &[0, 9, 0, 3, 1, 2, 3, 0, 0, 1, 0, 0],
            Some(PasswordAlgorithm::Md5),
        );
        check(&[0, 9, 0, 0], None);
        check(&[], None);
        check(&[0, 2, 0, 0, 0], None);
        check(&[0, 2, 0, 4, 1, 2, 3], None);
        check(&[0, 2, 0xFF, 0xFF], None);
    }

    #[test]
    fn a_key_prints_nothing_of_itself() {
        assert_eq!(
            format!("{:?}", IntegrityKey::short_term("hidden")),
            "IntegrityKey"
        );
    }

    #[test]
    fn the_rest_password_is_that_of_coturn() {
        // echo -n 1900000000:acme:alice | openssl dgst -sha1 -hmac secret -binary | base64
        assert_eq!(
            rest_password(b"secret", "1900000000:acme:alice"),
            REST_PASSWORD_EXAMPLE
        );
    }

    const REST_PASSWORD_EXAMPLE: &str = "MNpA9ZbnMAzCU8518JdRxEYKY3c=";
}
