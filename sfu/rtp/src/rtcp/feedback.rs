//! Feedback about packets and pictures: NACK and PLI (RFC 4585 §6), FIR (RFC 5104 §4.3.1), REMB
//! (draft-alvestrand-rmcat-remb-03).

use crate::DecodeError;
use crate::bytes::low_u32;
use crate::rtcp::word;

/// How a REMB is told from other application layer feedback.
pub(super) const REMB_IDENTIFIER: [u8; 4] = *b"REMB";

/// Packets a receiver misses (RFC 4585 §6.2.1).
#[derive(Debug, Clone, Copy)]
pub struct Nack<'a> {
    /// Who misses them.
    pub sender_ssrc: u32,
    /// Whose packets they are.
    pub media_ssrc: u32,
    pairs: &'a [[u8; 4]],
}

impl<'a> Nack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Nack<'a>, DecodeError> {
        let (sender_ssrc, media_ssrc) = (word(body, 0)?, word(body, 4)?);
        let (pairs, _) = body[8..].as_chunks();
        Ok(Nack {
            sender_ssrc,
            media_ssrc,
            pairs,
        })
    }

    /// The sequence numbers in their order: up to 17 for each four bytes. What stands twice comes twice.
    pub fn sequence_numbers(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.pairs.iter().flat_map(|[a, b, c, d]| {
            let first = u16::from_be_bytes([*a, *b]);
            let following = u16::from_be_bytes([*c, *d]);
            let following = (1..=16u16).filter(move |bit| following >> (bit - 1) & 1 != 0);
            std::iter::once(0)
                .chain(following)
                .map(move |offset| first.wrapping_add(offset))
        })
    }
}

/// A decoder that needs a key frame since it lost something (RFC 4585 §6.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureLossIndication {
    /// Who needs it.
    pub sender_ssrc: u32,
    /// Whose key frame it is.
    pub media_ssrc: u32,
}

impl PictureLossIndication {
    pub(super) fn parse(body: &[u8]) -> Result<PictureLossIndication, DecodeError> {
        Ok(PictureLossIndication {
            sender_ssrc: word(body, 0)?,
            media_ssrc: word(body, 4)?,
        })
    }
}

/// Decoders that need a key frame (RFC 5104 §4.3.1).
#[derive(Debug, Clone, Copy)]
pub struct FullIntraRequest<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    entries: &'a [[u8; 8]],
}

impl<'a> FullIntraRequest<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<FullIntraRequest<'a>, DecodeError> {
        let sender_ssrc = word(body, 0)?;
        word(body, 4)?; // The media source is not used (RFC 5104 §4.3.1.2).
        let (entries, _) = body[8..].as_chunks();
        Ok(FullIntraRequest {
            sender_ssrc,
            entries,
        })
    }

    /// Whose key frames are wanted, each with the number of the request: who repeats a request repeats the number.
    pub fn requests(&self) -> impl Iterator<Item = (u32, u8)> + use<'a> {
        self.entries
            .iter()
            .map(|[a, b, c, d, number, ..]| (u32::from_be_bytes([*a, *b, *c, *d]), *number))
    }
}

/// How much a receiver believes it can receive (draft-alvestrand-rmcat-remb-03 §2.2).
#[derive(Debug, Clone, Copy)]
pub struct Remb<'a> {
    /// Who believes it.
    pub sender_ssrc: u32,
    /// The bitrate of all `ssrcs` together, in bit/s.
    pub bits_per_second: u64,
    ssrcs: &'a [[u8; 4]],
}

impl<'a> Remb<'a> {
    pub(super) fn is_remb(body: &[u8]) -> bool {
        body.get(8..12) == Some(&REMB_IDENTIFIER)
    }

    pub(super) fn parse(body: &'a [u8]) -> Result<Remb<'a>, DecodeError> {
        let rate = word(body, 12)?;
        let [count, ..] = rate.to_be_bytes();
        let end = 16 + 4 * usize::from(count);
        let (ssrcs, _) = body
            .get(16..end)
            .ok_or(DecodeError::Truncated {
                needed: end,
                got: body.len(),
            })?
            .as_chunks();
        let exponent = rate >> 18 & 0x3F;
        let mantissa = u128::from(rate & 0x3FFFF) << exponent;
        Ok(Remb {
            sender_ssrc: word(body, 0)?,
            bits_per_second: u64::try_from(mantissa).unwrap_or(u64::MAX),
            ssrcs,
        })
    }

    /// The sources it is about.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.ssrcs.iter().map(|ssrc| u32::from_be_bytes(*ssrc))
    }
}

/// The word of a REMB that holds `bits_per_second`, rounded down to 18 significant bits, and the count of its sources.
pub(super) fn remb_rate(bits_per_second: u64, ssrcs: u8) -> u32 {
    let exponent = (u64::BITS - bits_per_second.leading_zeros()).saturating_sub(18);
    u32::from(ssrcs) << 24 | exponent << 18 | low_u32(bits_per_second >> exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::tests::hex;
    use crate::rtcp::{Compound, Packet};

    #[test]
    fn nacks_name_all_that_is_missed() {
        let bytes = hex("81cd0004 00000001 00000002 000a0000 fffe8005");
        let Some(Ok(Packet::Nack(nack))) = Compound::parse(&bytes).next() else {
            panic!("a NACK");
        };
        assert_eq!((nack.sender_ssrc, nack.media_ssrc), (1, 2));
        let missed: Vec<_> = nack.sequence_numbers().collect();
        assert_eq!(missed, [10, 65_534, 65_535, 1, 14]);
    }

    #[test]
    fn key_frames_are_asked_for() {
        let bytes = hex("84ce0006 00000001 00000000 00000002 07000000 00000003 08ffffff");
        let Some(Ok(Packet::FullIntraRequest(request))) = Compound::parse(&bytes).next() else {
            panic!("a FIR");
        };
        assert_eq!(request.sender_ssrc, 1);
        assert_eq!(request.requests().collect::<Vec<_>>(), [(2, 7), (3, 8)]);
    }

    #[test]
    fn bitrates_have_18_significant_bits() {
        let check = |bits_per_second, word, read| {
            assert_eq!(remb_rate(bits_per_second, 0), word, "{bits_per_second}");
            let mut body = hex("00000001 00000000 52454d42");
            body.extend(word.to_be_bytes());
            assert!(Remb::is_remb(&body));
            assert_eq!(Remb::parse(&body).unwrap().bits_per_second, read);
        };

        check(0, 0, 0);
        check(0x3ffff, 0x3ffff, 0x3ffff);
        check(0x40000, 1 << 18 | 0x20000, 0x40000);
        check(0x40001, 1 << 18 | 0x20000, 0x40000);
        check(2_500_000, 4 << 18 | 156_250, 2_500_000);
        check(u64::MAX, 46 << 18 | 0x3ffff, 0x3ffff << 46);
    }

    #[test]
    fn what_is_truncated_is_no_feedback() {
        let check = |bytes: &str, error| {
            assert_eq!(
                Compound::parse(&hex(bytes)).next().unwrap().err(),
                error,
                "{bytes}"
            );
        };
        let truncated = |needed, got| Some(DecodeError::Truncated { needed, got });

        check("81cd0001 00000001", truncated(8, 4));
        check("81ce0001 00000001", truncated(8, 4));
        check("84ce0001 00000001", truncated(8, 4));
        check("8fce0003 00000001 00000000 52454d42", truncated(16, 12));
        check(
            "8fce0004 00000001 00000000 52454d42 01000000",
            truncated(20, 16),
        );
        check("8fce0004 00000001 00000000 52454d42 00ffffff", None);
        check("8fce0003 00000001 00000000 41414141", None);

        let bytes = hex("8fce0004 00000001 00000000 52454d42 00ffffff");
        let Some(Ok(Packet::Remb(remb))) = Compound::parse(&bytes).next() else {
            panic!("a REMB");
        };
        assert_eq!(remb.bits_per_second, u64::MAX);
    }
}
