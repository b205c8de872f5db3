//! SRTP and SRTCP: opened and sealed in place (RFC 3711, RFC 7714), with keys out of a DTLS handshake (RFC 5764).
//!
//! One [`Inbound`] and one [`Outbound`] belong to each transport; one knows the other side's key, one ours. Key schedules are
//! expanded once, when they are made. No call allocates, except where an SSRC is heard for the first time.
//!
//! Under AES-GCM a nonce used for two different packets gives away the key that authenticates them. The nonce is made of
//! SSRC and index, so a packet is sealed once, whatever differs: its extensions count, too. What has to be sent again goes
//! over RTX with a sequence number of its own, or byte for byte as it was sealed.

mod cipher;
mod inbound;
mod outbound;
mod replay;

pub use inbound::{Inbound, OpenError, Opened, SSRCS_MAX, SSRCS_SILENT_MAX};
pub use outbound::{Outbound, SealError};
pub use replay::REPLAY_WINDOW;

use crate::srtp::cipher::Ciphers;

/// By how many bytes sealing makes a packet longer at most: a tag, and the index of SRTCP.
pub const OVERHEAD_MAX: usize = 16 + 4;

/// What protects the packets, negotiated in the DTLS handshake (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// AES-128 in counter mode, and HMAC-SHA1 with a tag of 80 bits.
    Aes128CmSha1_80,
    /// AES-128 in Galois counter mode.
    AeadAes128Gcm,
    /// AES-256 in Galois counter mode.
    AeadAes256Gcm,
}

impl Profile {
    /// All profiles, the most wanted first: Galois counter mode costs a quarter of the other.
    pub const ALL: [Profile; 3] = [
        Profile::AeadAes128Gcm,
        Profile::AeadAes256Gcm,
        Profile::Aes128CmSha1_80,
    ];

    /// The profile's number in DTLS.
    #[must_use]
    pub fn id(self) -> u16 {
        match self {
            Profile::Aes128CmSha1_80 => 0x0001,
            Profile::AeadAes128Gcm => 0x0007,
            Profile::AeadAes256Gcm => 0x0008,
        }
    }

    /// The profile that has a number in DTLS.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Profile> {
        Profile::ALL.into_iter().find(|profile| profile.id() == id)
    }

    /// The length of a master key, in bytes.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Profile::Aes128CmSha1_80 | Profile::AeadAes128Gcm => 16,
            Profile::AeadAes256Gcm => 32,
        }
    }

    /// The length of a master salt, in bytes.
    #[must_use]
    pub fn salt_len(self) -> usize {
        match self {
            Profile::Aes128CmSha1_80 => 14,
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 12,
        }
    }

    /// The length of the tag that follows each packet, in bytes.
    #[must_use]
    pub fn tag_len(self) -> usize {
        match self {
            Profile::Aes128CmSha1_80 => 10,
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 16,
        }
    }

    /// How many bytes the DTLS exporter is asked for: two keys and two salts (RFC 5764 §4.2).
    #[must_use]
    pub fn keying_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }
}

/// Which side of the DTLS handshake we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DtlsRole {
    /// We began the handshake.
    Client,
    /// The other side did.
    Server,
}

/// Keys that can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("keying material of {got} bytes, {needed} needed")]
pub struct KeyError {
    /// How many bytes the profile needs.
    pub needed: usize,
    /// How many there are.
    pub got: usize,
}

/// Both directions of a transport, from what the DTLS exporter gives for `EXTRACTOR-dtls_srtp`: the client's key, the
/// server's, the client's salt, the server's. `role` is ours. Source: RFC 5764 §4.2.
///
/// # Errors
///
/// [`KeyError`] where `exporter` is not [`Profile::keying_material_len`] bytes long.
pub fn sessions(
    profile: Profile,
    role: DtlsRole,
    exporter: &[u8],
) -> Result<(Inbound, Outbound), KeyError> {
    let error = KeyError {
        needed: profile.keying_material_len(),
        got: exporter.len(),
    };
    if error.needed != error.got {
        return Err(error);
    }
    let (keys, salts) = exporter.split_at(2 * profile.key_len());
    let (client_key, server_key) = keys.split_at(profile.key_len());
    let (client_salt, server_salt) = salts.split_at(profile.salt_len());

    let client = (client_key, client_salt);
    let server = (server_key, server_salt);
    let (theirs, ours) = match role {
        DtlsRole::Client => (server, client),
        DtlsRole::Server => (client, server),
    };
    Ok((
        Inbound::new(profile, theirs.0, theirs.1)?,
        Outbound::new(profile, ours.0, ours.1)?,
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::DecodeError;
    use crate::bytes::tests::hex;
    use crate::srtp::cipher::Cipher;

    /// Session keys as RFC 7714 §16 and §17 have them, which begin behind the derivation.
    fn rfc_7714(key_len: u8) -> Ciphers {
        let key: Vec<u8> = (0..key_len).collect();
        let salt = hex("517569642070726f2071756f");
        Ciphers {
            rtp: Cipher::gcm(&key, &salt).unwrap(),
            rtcp: Cipher::gcm(&key, &salt).unwrap(),
        }
    }

    fn sealed_rtp(outbound: &Outbound, packet: &[u8], index: u64) -> Vec<u8> {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + OVERHEAD_MAX, 0);
        let len = outbound
            .seal_rtp(&mut buffer, 12, packet.len(), index)
            .unwrap();
        buffer.truncate(len);
        buffer
    }

    fn sealed_rtcp(outbound: &mut Outbound, packet: &[u8]) -> Vec<u8> {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + OVERHEAD_MAX, 0);
        let len = outbound.seal_rtcp(&mut buffer, packet.len()).unwrap();
        buffer.truncate(len);
        buffer
    }

    fn opened_rtp(inbound: &mut Inbound, sealed: &[u8]) -> Result<(Vec<u8>, u64), OpenError> {
        let mut packet = sealed.to_vec();
        let opened = inbound.open_rtp(&mut packet)?;
        packet.truncate(opened.len);
        Ok((packet, opened.index))
    }

    fn opened_rtcp(inbound: &mut Inbound, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut packet = sealed.to_vec();
        let len = inbound.open_rtcp(&mut packet)?;
        packet.truncate(len);
        Ok(packet)
    }

    /// Both ends of a transport; the first sends to the second.
    fn pair(profile: Profile) -> (Outbound, Inbound) {
        let exporter: Vec<u8> = (0..).take(profile.keying_material_len()).collect();
        let (_, outbound) = sessions(profile, DtlsRole::Client, &exporter).unwrap();
        let (inbound, _) = sessions(profile, DtlsRole::Server, &exporter).unwrap();
        (outbound, inbound)
    }

    fn rtp(ssrc: u32, sequence_number: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, 96];
        packet.extend(sequence_number.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(ssrc.to_be_bytes());
        packet.extend(payload);
        packet
    }

    #[test]
    fn packets_are_those_of_rfc_7714_16() {
        let plain = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976
            69736120 696e2070 61727465 73207472 6573";
        let check = |key_len, sealed: &str| {
            let outbound = Outbound::with(rfc_7714(key_len));
            assert_eq!(sealed_rtp(&outbound, &hex(plain), 0xf17b), hex(sealed));
            let mut inbound = Inbound::with(rfc_7714(key_len));
            assert_eq!(
                opened_rtp(&mut inbound, &hex(sealed)),
                Ok((hex(plain), 0xf17b))
            );
        };

        check(
            16,
            "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a
             51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        );
        check(
            32,
            "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02
             76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        );
    }

    #[test]
    fn compounds_are_those_of_rfc_7714_17() {
        let plain = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
            deadbeef deadbeef deadbeef deadbeef deadbeef";
        let check = |key_len, sealed: &str| {
            let mut outbound = Outbound::with(rfc_7714(key_len));
            outbound.set_rtcp_index(0x5d4);
            assert_eq!(sealed_rtcp(&mut outbound, &hex(plain)), hex(sealed));
            let mut inbound = Inbound::with(rfc_7714(key_len));
            assert_eq!(opened_rtcp(&mut inbound, &hex(sealed)), Ok(hex(plain)));
            assert_eq!(
                opened_rtcp(&mut inbound, &hex(sealed)),
                Err(OpenError::Replayed { index: 0x5d4 })
            );
        };

        check(
            16,
            "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda
             4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
        );
        check(
            32,
            "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 110555be
             8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
        );
        let mut inbound = Inbound::with(rfc_7714(16));
        let authenticated = hex(
            "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef
             deadbeef deadbeef deadbeef 841dd968 3dd78ec9 2ae58790 125f62b3 000005d4",
        );
        assert_eq!(
            opened_rtcp(&mut inbound, &authenticated),
            Err(OpenError::NotEncrypted)
        );
    }

    /// What libsrtp's own tests seal, from a master key on: its derivation for AES-GCM is in no RFC's vectors.
    #[test]
    fn packets_are_those_of_libsrtp() {
        let rtp = hex("800f1234 decafbad cafebabe abababab abababab abababab abababab");
        let rtcp = hex("81c8000b cafebabe abababab abababab abababab abababab");
        let check = |profile, key: &str, salt: &str, sealed: &str, compound: &str| {
            let mut outbound = Outbound::new(profile, &hex(key), &hex(salt)).unwrap();
            assert_eq!(sealed_rtp(&outbound, &rtp, 0x1234), hex(sealed));
            outbound.set_rtcp_index(1);
            assert_eq!(sealed_rtcp(&mut outbound, &rtcp), hex(compound));

            let mut inbound = Inbound::new(profile, &hex(key), &hex(salt)).unwrap();
            assert_eq!(
                opened_rtp(&mut inbound, &hex(sealed)),
                Ok((rtp.clone(), 0x1234))
            );
            assert_eq!(opened_rtcp(&mut inbound, &hex(compound)), Ok(rtcp.clone()));
        };

        check(
            Profile::AeadAes128Gcm,
            "000102030405060708090a0b0c0d0e0f",
            "a0a1a2a3a4a5a6a7a8a9aaab",
            "800f1234 decafbad cafebabe c5002ede 04cfdd2e b91159e0 880aa06e d2976826 f796b201 df3131a1 27e8a392",
            "81c8000b cafebabe c98b8b5d f0392a55 852b6c21 ac8e7025 c52c6fbe a2b3b446 ea31123b a88ce61e 80000001",
        );
        check(
            Profile::Aes128CmSha1_80,
            "e1f97a0d3e018be0d64fa32c06de4139",
            "0ec675ad498afeebb6960b3aabe6",
            "800f1234 decafbad cafebabe 4e55dc4c e79978d8 8ca4d215 949d2402 b78d6acc 99ea179b 8dbb",
            "81c8000b cafebabe 7128035b e487b9bd bef89041 f977a5a8 80000001 993e08cd 54d6c123 0798",
        );
    }

    #[test]
    fn each_side_of_a_handshake_opens_what_the_other_seals() {
        for profile in Profile::ALL {
            assert_eq!(Profile::from_id(profile.id()), Some(profile));
            let exporter: Vec<u8> = (0..).take(profile.keying_material_len()).collect();
            let (mut client_in, client_out) =
                sessions(profile, DtlsRole::Client, &exporter).unwrap();
            let (mut server_in, server_out) =
                sessions(profile, DtlsRole::Server, &exporter).unwrap();

            let sealed = sealed_rtp(&client_out, &rtp(1, 1, b"up"), 1);
            assert_eq!(
                opened_rtp(&mut client_in, &sealed),
                Err(OpenError::NotAuthentic)
            );
            assert_eq!(
                opened_rtp(&mut server_in, &sealed),
                Ok((rtp(1, 1, b"up"), 1))
            );
            let sealed = sealed_rtp(&server_out, &rtp(1, 1, b"down"), 1);
            assert_eq!(
                opened_rtp(&mut client_in, &sealed),
                Ok((rtp(1, 1, b"down"), 1))
            );

            let error = KeyError {
                needed: profile.keying_material_len(),
                got: 3,
            };
            assert_eq!(
                sessions(profile, DtlsRole::Client, &[0; 3]).err(),
                Some(error)
            );
            assert!(Inbound::new(profile, &[0; 16], &[0; 13]).is_err());
        }
        assert_eq!(Profile::from_id(2), None);
    }

    #[test]
    fn what_is_changed_is_not_authentic() {
        for profile in Profile::ALL {
            let (mut outbound, mut inbound) = pair(profile);
            let sealed = sealed_rtp(&outbound, &rtp(7, 5, b"payload"), 5);
            for at in [1, 4, 11, 12, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(
                    opened_rtp(&mut inbound, &changed),
                    Err(OpenError::NotAuthentic),
                    "{at}"
                );
            }
            // With another rollover counter the index differs, and so does the tag.
            let wrapped = sealed_rtp(&outbound, &rtp(7, 5, b"payload"), 5 + (1 << 16));
            assert_eq!(
                opened_rtp(&mut inbound, &wrapped),
                Err(OpenError::NotAuthentic)
            );
            assert!(format!("{inbound:?}").contains("sources: []"));
            assert!(opened_rtp(&mut inbound, &sealed).is_ok());

            let sealed = sealed_rtcp(&mut outbound, &hex("80c90001 00000007"));
            for at in [1, 4, sealed.len() - 1, sealed.len() - 12] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(
                    opened_rtcp(&mut inbound, &changed),
                    Err(OpenError::NotAuthentic),
                    "{at}"
                );
            }
            assert_eq!(
                opened_rtcp(&mut inbound, &sealed),
                Ok(hex("80c90001 00000007"))
            );
        }
    }

    #[test]
    fn packets_count_on_across_the_rollover() {
        let (outbound, mut inbound) = pair(Profile::AeadAes128Gcm);
        let mut check = |index: u64, expected: Result<u64, OpenError>| {
            let [.., a, b] = index.to_be_bytes();
            let sealed = sealed_rtp(&outbound, &rtp(1, u16::from_be_bytes([a, b]), b"x"), index);
            assert_eq!(
                opened_rtp(&mut inbound, &sealed).map(|(_, index)| index),
                expected,
                "{index}"
            );
        };

        check(65_000, Ok(65_000));
        check(65_537, Ok(65_537));
        check(65_535, Ok(65_535));
        check(65_535, Err(OpenError::Replayed { index: 65_535 }));
        check(65_536, Ok(65_536));
        check(65_537 - 1_024, Err(OpenError::TooOld { index: 64_513 }));
        for index in (90_000..1_000_000).step_by(30_000) {
            check(index, Ok(index));
        }
    }

    #[test]
    fn nothing_comes_before_the_first_rollover() {
        let (outbound, mut inbound) = pair(Profile::Aes128CmSha1_80);
        assert!(opened_rtp(&mut inbound, &sealed_rtp(&outbound, &rtp(1, 3, b""), 3)).is_ok());
        let sealed = sealed_rtp(&outbound, &rtp(1, 65_000, b""), 65_000);
        assert_eq!(
            opened_rtp(&mut inbound, &sealed),
            Err(OpenError::TooOld { index: 65_000 })
        );
    }

    #[test]
    fn sources_come_and_go_for_ever_and_nothing_of_them_comes_twice() {
        let (mut outbound, mut inbound) = pair(Profile::AeadAes128Gcm);
        let mut open = |ssrc: u32, index: u64| {
            let [.., high, low] = index.to_be_bytes();
            let packet = rtp(ssrc, u16::from_be_bytes([high, low]), b"");
            let opened = opened_rtp(&mut inbound, &sealed_rtp(&outbound, &packet, index));
            opened.map(|(_, index)| index)
        };
        // One goes on beyond a rollover, and falls silent.
        assert!(
            (60_000..80_000)
                .step_by(500)
                .all(|index| open(7, index) == Ok(index))
        );
        let known = u32::try_from(SSRCS_MAX).unwrap();
        let silent = u32::try_from(SSRCS_SILENT_MAX).unwrap();
        for ssrc in 100..100 + known + silent - 2 {
            assert_eq!(open(ssrc, 1), Ok(1), "{ssrc}");
            // One that goes on is never forgotten.
            assert_eq!(open(8, u64::from(ssrc)), Ok(ssrc.into()));
        }
        assert_eq!(open(100, 1), Err(OpenError::TooOld { index: 1 }));
        assert_eq!(open(100, 2), Ok(2));
        assert_eq!(open(7, 79_500), Err(OpenError::TooOld { index: 79_500 }));
        assert_eq!(open(7, 79_499), Err(OpenError::TooOld { index: 79_499 }));
        assert_eq!(open(7, 79_501), Ok(79_501), "with its rollovers");
        assert_eq!(open(7, 79_000), Err(OpenError::Replayed { index: 79_000 }));

        let sealed: Vec<Vec<u8>> = (0..2 * known)
            .map(|ssrc| {
                let [a, b, c, d] = ssrc.to_be_bytes();
                sealed_rtcp(&mut outbound, &[0x80, 201, 0, 1, a, b, c, d])
            })
            .collect();
        for packet in &sealed {
            assert!(opened_rtcp(&mut inbound, packet).is_ok());
        }
        for packet in &sealed {
            assert!(opened_rtcp(&mut inbound, packet).is_err(), "it came before");
        }
    }

    #[test]
    fn what_is_too_short_is_not_opened() {
        for profile in Profile::ALL {
            let (_, mut inbound) = pair(profile);
            let tag = profile.tag_len();
            let truncated = |needed, got| Some(DecodeError::Truncated { needed, got }.into());

            let mut packet = rtp(1, 1, &vec![0; tag - 1]);
            let got = packet.len();
            assert_eq!(
                inbound.open_rtp(&mut packet).err(),
                truncated(12 + tag, got)
            );
            assert_eq!(inbound.open_rtp(&mut []).err(), truncated(12, 0));
            let mut packet = vec![0x80; 8 + 4 + tag - 1];
            assert_eq!(
                inbound.open_rtcp(&mut packet).err(),
                truncated(12 + tag, 11 + tag)
            );
            assert_eq!(inbound.open_rtcp(&mut []).err(), truncated(12 + tag, 0));
            let wrong = Err(DecodeError::WrongVersion { got: 1 }.into());
            assert_eq!(inbound.open_rtcp(&mut [0x40; 40]), wrong);
        }
    }

    #[test]
    fn what_can_not_be_sealed_is_refused() {
        let (mut outbound, _) = pair(Profile::AeadAes128Gcm);
        let too_small = |needed, got| Err(SealError::from(crate::BufferTooSmall { needed, got }));
        let mut buffer = rtp(1, 1, &[0; 17]);

        assert_eq!(outbound.seal_rtp(&mut buffer, 12, 14, 1), too_small(30, 29));
        assert_eq!(outbound.seal_rtp(&mut buffer, 14, 13, 1), too_small(14, 13));
        assert_eq!(outbound.seal_rtp(&mut buffer, 0, 11, 1), too_small(12, 11));
        let wrong = SealError::WrongIndex {
            index: 2,
            sequence_number: 1,
        };
        assert_eq!(outbound.seal_rtp(&mut buffer, 12, 13, 2), Err(wrong));
        assert_eq!(
            outbound.seal_rtp(&mut buffer, 12, 13, 1 << 48 | 1),
            Err(SealError::KeyUsedUp)
        );
        assert_eq!(buffer, rtp(1, 1, &[0; 17]));

        assert_eq!(outbound.seal_rtcp(&mut [0; 27], 8), too_small(28, 27));
        assert_eq!(outbound.seal_rtcp(&mut [0; 27], 7), too_small(8, 7));
        outbound.set_rtcp_index(0x7fff_ffff);
        assert_eq!(outbound.seal_rtcp(&mut [0; 28], 8), Ok(28));
        assert_eq!(
            outbound.seal_rtcp(&mut [0; 28], 8),
            Err(SealError::KeyUsedUp)
        );
    }

    proptest! {
        /// What is sealed is opened: any packets in any order within the window, each once.
        #[test]
        fn what_is_sealed_is_opened(
            profile in prop::sample::select(&Profile::ALL[..]),
            first in 0u64..1 << 16,
            steps in prop::collection::vec(-600i64..600, 1..60),
            payload in prop::collection::vec(any::<u8>(), 0..1300),
        ) {
            let (outbound, mut inbound) = pair(profile);
            let mut opened = std::collections::BTreeSet::new();
            let mut index = first;
            for step in std::iter::once(0).chain(steps) {
                index = index.saturating_add_signed(step).max(first);
                let [.., a, b] = index.to_be_bytes();
                let plain = rtp(9, u16::from_be_bytes([a, b]), &payload);
                let sealed = sealed_rtp(&outbound, &plain, index);
                prop_assert_eq!(sealed.len(), plain.len() + profile.tag_len());

                let highest = *opened.last().unwrap_or(&index);
                let result = opened_rtp(&mut inbound, &sealed);
                if index + REPLAY_WINDOW <= highest {
                    prop_assert_eq!(result, Err(OpenError::TooOld { index }));
                } else if opened.insert(index) {
                    prop_assert_eq!(result, Ok((plain, index)));
                } else {
                    prop_assert_eq!(result, Err(OpenError::Replayed { index }));
                }
            }
        }
    }
}
