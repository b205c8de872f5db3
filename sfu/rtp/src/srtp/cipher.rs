//! Session keys, derived and expanded, and what they do to one packet (RFC 3711 §4, RFC 7714 §8 and §9).

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{constant_time, hmac};
use zeroize::Zeroizing;

use crate::srtp::{KeyError, Profile};

/// The keys of one direction: what comes out of one master key.
pub(super) struct Ciphers {
    pub(super) rtp: Cipher,
    pub(super) rtcp: Cipher,
}

impl Ciphers {
    /// Derives the session keys of both protocols, once and for all: the key derivation rate is zero (RFC 3711 §4.3).
    pub(super) fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Ciphers, KeyError> {
        let needed = profile.key_len() + profile.salt_len();
        let got = key.len() + salt.len();
        let error = KeyError { needed, got };
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return Err(error);
        }
        let master = Master::new(key, salt).map_err(|_| error)?;
        Ok(Ciphers {
            rtp: master.cipher(profile, &Labels::RTP).map_err(|_| error)?,
            rtcp: master.cipher(profile, &Labels::RTCP).map_err(|_| error)?,
        })
    }
}

/// What tells session keys apart (RFC 3711 §4.3.2).
struct Labels {
    encryption: u8,
    authentication: u8,
    salt: u8,
}

impl Labels {
    const RTP: Labels = Labels {
        encryption: 0,
        authentication: 1,
        salt: 2,
    };
    const RTCP: Labels = Labels {
        encryption: 3,
        authentication: 4,
        salt: 5,
    };
}

/// The longest key or salt that is derived, in bytes.
const DERIVED_LEN_MAX: usize = 32;

/// A master key, ready to derive from.
struct Master {
    key: EncryptingKey,
    key_len: usize,
    /// The salt, filled up with zeros to a block (RFC 7714 §11 for the shorter ones).
    salt: Zeroizing<[u8; 16]>,
}

impl Master {
    fn new(key: &[u8], salt: &[u8]) -> Result<Master, Unspecified> {
        let mut block = Zeroizing::new([0; 16]);
        block
            .get_mut(..salt.len())
            .ok_or(Unspecified)?
            .copy_from_slice(salt);
        Ok(Master {
            key: counter_mode(key)?,
            key_len: key.len(),
            salt: block,
        })
    }

    /// The first `len` bytes of what `label` derives (RFC 3711 §4.3.1, §4.3.3): the index is zero.
    fn derive(&self, label: u8, len: usize) -> Result<Derived, Unspecified> {
        let mut block = *self.salt;
        block[7] ^= label;
        let mut derived = Derived {
            bytes: Zeroizing::new([0; DERIVED_LEN_MAX]),
            len,
        };
        let stream = derived.bytes.get_mut(..len).ok_or(Unspecified)?;
        apply_counter_mode(&self.key, block, stream)?;
        Ok(derived)
    }

    fn cipher(&self, profile: Profile, labels: &Labels) -> Result<Cipher, Unspecified> {
        let key = self.derive(labels.encryption, self.key_len)?;
        let salt = self.derive(labels.salt, profile.salt_len())?;
        match profile {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
                Cipher::gcm(key.as_ref(), salt.as_ref())
            }
            Profile::Aes128CmSha1_80 => {
                let authentication = self.derive(labels.authentication, 20)?;
                Cipher::counter_mode(key.as_ref(), salt.as_ref(), authentication.as_ref())
            }
        }
    }
}

/// Bytes derived from a master key.
struct Derived {
    bytes: Zeroizing<[u8; DERIVED_LEN_MAX]>,
    len: usize,
}

impl AsRef<[u8]> for Derived {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The session keys of one protocol in one direction, expanded.
pub(super) enum Cipher {
    /// AES-GCM (RFC 7714).
    Gcm { key: LessSafeKey, salt: [u8; 12] },
    /// AES in counter mode and HMAC-SHA1 (RFC 3711 §4.1.1, §4.2.1).
    CounterMode(Box<CounterMode>),
}

/// The keys of AES in counter mode: large, and rarely there.
pub(super) struct CounterMode {
    key: EncryptingKey,
    salt: [u8; 14],
    authentication: hmac::Key,
}

/// The length of a tag of HMAC-SHA1 (RFC 3711 §5.2).
const SHA1_TAG_LEN: usize = 10;

/// The length of a tag of AES-GCM (RFC 7714 §5.1).
const GCM_TAG_LEN: usize = 16;

impl Cipher {
    pub(super) fn gcm(key: &[u8], salt: &[u8]) -> Result<Cipher, Unspecified> {
        let algorithm = if key.len() == 32 {
            &AES_256_GCM
        } else {
            &AES_128_GCM
        };
        Ok(Cipher::Gcm {
            key: LessSafeKey::new(UnboundKey::new(algorithm, key)?),
            salt: salt.try_into().map_err(|_| Unspecified)?,
        })
    }

    pub(super) fn counter_mode(
        key: &[u8],
        salt: &[u8],
        authentication: &[u8],
    ) -> Result<Cipher, Unspecified> {
        Ok(Cipher::CounterMode(Box::new(CounterMode {
            key: counter_mode(key)?,
            salt: salt.try_into().map_err(|_| Unspecified)?,
            authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, authentication),
        })))
    }

    /// The length of a tag, in bytes.
    pub(super) fn tag_len(&self) -> usize {
        match self {
            Cipher::Gcm { .. } => GCM_TAG_LEN,
            Cipher::CounterMode(_) => SHA1_TAG_LEN,
        }
    }

    /// Whether the index of SRTCP stands between packet and tag; else behind the tag (RFC 3711 §3.4, RFC 7714 §9.2).
    pub(super) fn index_before_tag(&self) -> bool {
        matches!(self, Cipher::CounterMode(_))
    }

    /// Encrypts `packet` behind its first `clear` bytes and returns its tag. `trailer` is what is authenticated behind the
    /// packet: the rollover counter of SRTP, the index of SRTCP.
    #[inline]
    pub(super) fn seal(
        &self,
        nonce: PacketNonce,
        packet: &mut [u8],
        clear: usize,
        trailer: Trailer,
    ) -> Result<Tag, Unspecified> {
        let (header, content) = packet.split_at_mut_checked(clear).ok_or(Unspecified)?;
        match self {
            Cipher::Gcm { key, salt } => {
                let nonce = nonce.gcm(salt);
                let tag = match trailer {
                    Trailer::Rollover(_) => {
                        key.seal_in_place_separate_tag(nonce, Aad::from(header), content)
                    }
                    Trailer::Index(index) => {
                        let aad = rtcp_aad(header, index).ok_or(Unspecified)?;
                        key.seal_in_place_separate_tag(nonce, Aad::from(aad), content)
                    }
                }?;
                Tag::new(tag.as_ref())
            }
            Cipher::CounterMode(keys) => {
                apply_counter_mode(&keys.key, nonce.counter_mode(&keys.salt), content)?;
                Tag::new(&sha1(&keys.authentication, packet, trailer).as_ref()[..SHA1_TAG_LEN])
            }
        }
    }

    /// Checks `tag` and decrypts `packet` behind its first `clear` bytes; an error says that the packet is not authentic,
    /// and leaves anything in its place.
    #[inline]
    pub(super) fn open(
        &self,
        nonce: PacketNonce,
        packet: &mut [u8],
        clear: usize,
        trailer: Trailer,
        tag: &[u8],
    ) -> Result<(), Unspecified> {
        match self {
            Cipher::Gcm { key, salt } => {
                let (header, content) = packet.split_at_mut_checked(clear).ok_or(Unspecified)?;
                let nonce = nonce.gcm(salt);
                match trailer {
                    Trailer::Rollover(_) => {
                        key.open_in_place_separate_tag(nonce, Aad::from(header), tag, content)
                    }
                    Trailer::Index(index) => {
                        let aad = rtcp_aad(header, index).ok_or(Unspecified)?;
                        key.open_in_place_separate_tag(nonce, Aad::from(aad), tag, content)
                    }
                }?;
            }
            Cipher::CounterMode(keys) => {
                let expected = sha1(&keys.authentication, packet, trailer);
                constant_time::verify_slices_are_equal(&expected.as_ref()[..SHA1_TAG_LEN], tag)?;
                let content = packet.get_mut(clear..).ok_or(Unspecified)?;
                apply_counter_mode(&keys.key, nonce.counter_mode(&keys.salt), content)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cipher::Gcm { .. } => "Gcm",
            Cipher::CounterMode(_) => "CounterMode",
        })
    }
}

/// What is authenticated behind a packet without being a part of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trailer {
    /// The rollover counter of SRTP (RFC 3711 §4.2). AES-GCM has it in its nonce and needs it here no more.
    Rollover(u32),
    /// The index of SRTCP with the E bit (RFC 3711 §3.4, RFC 7714 §9.2).
    Index(u32),
}

/// The tag of one packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag {
    bytes: [u8; GCM_TAG_LEN],
    len: usize,
}

impl Tag {
    fn new(tag: &[u8]) -> Result<Tag, Unspecified> {
        let mut bytes = [0; GCM_TAG_LEN];
        bytes
            .get_mut(..tag.len())
            .ok_or(Unspecified)?
            .copy_from_slice(tag);
        Ok(Tag {
            bytes,
            len: tag.len(),
        })
    }
}

impl AsRef<[u8]> for Tag {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What makes a packet's nonce: its source and its index of 48 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct PacketNonce {
    pub(super) ssrc: u32,
    pub(super) index: u64,
}

impl PacketNonce {
    /// Two zeros, SSRC and index, and the salt over it (RFC 7714 §8.1, §9.1).
    fn gcm(self, salt: &[u8; 12]) -> Nonce {
        let mut nonce = *salt;
        for (byte, own) in nonce[2..].iter_mut().zip(self.bytes()) {
            *byte ^= own;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// The salt, SSRC and index over it, and a counter of blocks (RFC 3711 §4.1.1).
    fn counter_mode(self, salt: &[u8; 14]) -> [u8; 16] {
        let mut block = [0; 16];
        block[..14].copy_from_slice(salt);
        for (byte, own) in block[4..14].iter_mut().zip(self.bytes()) {
            *byte ^= own;
        }
        block
    }

    fn bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        let [_, _, index @ ..] = self.index.to_be_bytes();
        bytes[..4].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes[4..].copy_from_slice(&index);
        bytes
    }
}

/// The first eight bytes of a compound, and the index (RFC 7714 §9.2).
fn rtcp_aad(header: &[u8], index: u32) -> Option<[u8; 12]> {
    let mut aad = [0; 12];
    aad[..8].copy_from_slice(header.first_chunk::<8>()?);
    aad[8..].copy_from_slice(&index.to_be_bytes());
    Some(aad)
}

fn sha1(key: &hmac::Key, packet: &[u8], trailer: Trailer) -> hmac::Tag {
    let (Trailer::Rollover(trailer) | Trailer::Index(trailer)) = trailer;
    let mut context = hmac::Context::with_key(key);
    context.update(packet);
    context.update(&trailer.to_be_bytes());
    context.sign()
}

fn counter_mode(key: &[u8]) -> Result<EncryptingKey, Unspecified> {
    let algorithm = if key.len() == 32 {
        &cipher::AES_256
    } else {
        &cipher::AES_128
    };
    EncryptingKey::ctr(UnboundCipherKey::new(algorithm, key)?)
}

/// Adds the key stream that begins with the counter `block` to `content`.
fn apply_counter_mode(
    key: &EncryptingKey,
    block: [u8; 16],
    content: &mut [u8],
) -> Result<(), Unspecified> {
    let context = EncryptionContext::Iv128(FixedLength::from(block));
    key.less_safe_encrypt(content, context).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::tests::hex;

    #[test]
    fn keys_are_derived_as_rfc_3711_b_3_shows() {
        let key = hex("e1f97a0d3e018be0d64fa32c06de4139");
        let salt = hex("0ec675ad498afeebb6960b3aabe6");
        let master = Master::new(&key, &salt).unwrap();
        let check = |label, expected: &str| {
            let expected = hex(expected);
            let derived = master.derive(label, expected.len()).unwrap();
            assert_eq!(derived.as_ref(), expected, "label {label}");
        };

        check(0, "c61e7a93744f39ee10734afe3ff7a087");
        check(2, "30cbbc08863d8c85d49db34a9ae1");
        check(1, "cebe321f6ff7716b6fd4ab49af256a156d38baa4");
    }

    #[test]
    fn the_key_stream_is_that_of_rfc_3711_b_2() {
        let key = counter_mode(&hex("2b7e151628aed2a6abf7158809cf4f3c")).unwrap();
        let salt = <[u8; 14]>::try_from(hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd")).unwrap();
        let block = PacketNonce { ssrc: 0, index: 0 }.counter_mode(&salt);
        let mut stream = vec![0; 0xff02 * 16];
        apply_counter_mode(&key, block, &mut stream).unwrap();

        assert_eq!(stream[..16], hex("e03ead0935c95e80e166b16dd92b4eb4"));
        assert_eq!(stream[16..32], hex("d23513162b02d0f72a43a2fe4a5f97ab"));
        assert_eq!(stream[32..48], hex("41e95b3bb0a2e8dd477901e4fca894c0"));
        let last = &stream[0xfeff * 16..];
        assert_eq!(last[..16], hex("ec8cdf7398607cb0f2d21675ea9ea1e4"));
        assert_eq!(last[16..32], hex("362b7c3c6773516318a077d7fc5073ae"));
        assert_eq!(last[32..], hex("6a2cc3787889374fbeb4c81b17ba6c44"));
    }

    #[test]
    fn nonces_are_those_of_rfc_7714() {
        let salt = <[u8; 12]>::try_from(hex("517569642070726f2071756f")).unwrap();
        let check = |ssrc, index, expected: &str| {
            let nonce = PacketNonce { ssrc, index }.gcm(&salt);
            assert_eq!(nonce.as_ref()[..], hex(expected));
        };

        check(0x5501_a0b2, 0xf17b, "51753c6580c2726f20718414");
        check(0x4d61_7273, 0x5d4, "517524055203726f207170bb");
    }

    #[test]
    fn keys_are_not_shown() {
        let cipher = Cipher::gcm(&[0xab; 16], &[0xcd; 12]).unwrap();
        assert_eq!(format!("{cipher:?}"), "Gcm");
        let cipher = Cipher::counter_mode(&[0xab; 16], &[0xcd; 14], &[0xef; 20]).unwrap();
        assert_eq!(format!("{cipher:?}"), "CounterMode");
    }
}
