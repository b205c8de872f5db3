//! RTP packets seen in place, changed in place, and their headers written (RFC 3550 §5.1).

mod writer;

use std::ops::Range;

pub use writer::{ExtensionUnfit, HeaderWriter, WriteError};

use crate::bytes::{low_u8, u16_at, u32_at};
use crate::extension::Extensions;
use crate::{BufferTooSmall, DecodeError};

/// The length of a header without CSRCs and extensions, in bytes.
pub const HEADER_LEN_MIN: usize = 12;

/// The fields of every header that differ between packets (RFC 3550 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FixedHeader {
    /// The marker: of video, the last packet of a picture.
    pub marker: bool,
    /// The payload type, 7 bits; a writer ignores the eighth.
    pub payload_type: u8,
    /// The sequence number.
    pub sequence_number: u16,
    /// The timestamp, in units of the payload's clock.
    pub timestamp: u32,
    /// The synchronization source.
    pub ssrc: u32,
}

/// A well-formed header, seen in place. It looks at no payload, so it serves for SRTP as well.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// The header, whole.
    bytes: &'a [u8],
    /// Where the CSRCs end.
    csrcs_end: usize,
    /// Where the extension block's content begins; the header's end where there is none.
    extensions_start: usize,
    /// What the block says it is (RFC 3550 §5.3.1).
    profile: u16,
}

impl<'a> Header<'a> {
    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// The [`DecodeError`] that names what is wrong. Source: RFC 3550 §5.1, §5.3.1.
    pub fn parse(bytes: &'a [u8]) -> Result<Header<'a>, DecodeError> {
        let truncated = |needed| DecodeError::Truncated {
            needed,
            got: bytes.len(),
        };
        let [first, ..] = bytes
            .first_chunk::<HEADER_LEN_MIN>()
            .ok_or_else(|| truncated(HEADER_LEN_MIN))?;
        if first >> 6 != 2 {
            return Err(DecodeError::WrongVersion { got: first >> 6 });
        }

        let csrcs_end = HEADER_LEN_MIN + 4 * usize::from(first & 0x0F);
        let mut extensions_start = csrcs_end;
        let mut len = csrcs_end;
        let mut profile = 0;
        if first & 0x10 != 0 {
            extensions_start += 4;
            let (Some(kind), Some(words)) =
                (u16_at(bytes, csrcs_end), u16_at(bytes, csrcs_end + 2))
            else {
                return Err(truncated(extensions_start));
            };
            profile = kind;
            len = extensions_start + 4 * usize::from(words);
        }

        Ok(Header {
            bytes: bytes.get(..len).ok_or_else(|| truncated(len))?,
            csrcs_end,
            extensions_start,
            profile,
        })
    }

    /// The fields of every header.
    #[must_use]
    pub fn fixed(&self) -> FixedHeader {
        FixedHeader {
            marker: self.marker(),
            payload_type: self.payload_type(),
            sequence_number: self.sequence_number(),
            timestamp: self.timestamp(),
            ssrc: self.ssrc(),
        }
    }

    /// Whether the packet ends in padding.
    #[must_use]
    pub fn has_padding(&self) -> bool {
        self.bytes[0] & 0x20 != 0
    }

    /// The marker.
    #[must_use]
    pub fn marker(&self) -> bool {
        self.bytes[1] & 0x80 != 0
    }

    /// The payload type, 0 to 127.
    #[must_use]
    pub fn payload_type(&self) -> u8 {
        self.bytes[1] & 0x7F
    }

    /// The sequence number.
    #[must_use]
    pub fn sequence_number(&self) -> u16 {
        u16_at(self.bytes, 2).unwrap_or_default() // It is there: the header is whole.
    }

    /// The timestamp.
    #[must_use]
    pub fn timestamp(&self) -> u32 {
        u32_at(self.bytes, 4).unwrap_or_default()
    }

    /// The synchronization source.
    #[must_use]
    pub fn ssrc(&self) -> u32 {
        u32_at(self.bytes, 8).unwrap_or_default()
    }

    /// The contributing sources, up to 15, each big-endian.
    #[must_use]
    pub fn csrcs(&self) -> &'a [[u8; 4]] {
        let (csrcs, _) = self.bytes[HEADER_LEN_MIN..self.csrcs_end].as_chunks();
        csrcs
    }

    /// The extensions in their order; none where the block is of a kind RFC 8285 does not know.
    #[must_use]
    pub fn extensions(&self) -> Extensions<'a> {
        Extensions::new(self.profile, &self.bytes[self.extensions_start..])
    }

    /// The value of the first extension called `id`.
    #[must_use]
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        self.extensions()
            .find_map(|(other, value)| (other == id).then_some(value))
    }

    /// Where in the packet the value of the first extension called `id` stands, for whoever changes it later.
    #[must_use]
    pub fn extension_range(&self, id: u8) -> Option<Range<usize>> {
        let mut extensions = self.extensions();
        while let Some((other, value)) = extensions.next() {
            if other == id {
                let end = self.extensions_start + extensions.position();
                return Some(end - value.len()..end);
            }
        }
        None
    }

    /// The length of the header with CSRCs and extensions, in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// A well-formed packet in plain, seen in place.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    header: Header<'a>,
    bytes: &'a [u8],
    payload_end: usize,
}

impl<'a> Packet<'a> {
    /// Reads `bytes`, which must be exactly one packet, already decrypted.
    ///
    /// # Errors
    ///
    /// The [`DecodeError`] that names what is wrong. Source: RFC 3550 §5.1.
    pub fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, DecodeError> {
        let header = Header::parse(bytes)?;
        let space = bytes.len() - header.len();
        let mut payload_end = bytes.len();
        if header.has_padding() {
            let got = *bytes.last().unwrap_or(&0);
            if got == 0 || usize::from(got) > space {
                return Err(DecodeError::WrongPadding { got, space });
            }
            payload_end -= usize::from(got);
        }

        Ok(Packet {
            header,
            bytes,
            payload_end,
        })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// The payload without padding; empty for a packet that is there for its padding only.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.payload_range()]
    }

    /// Where the payload stands in the packet.
    #[must_use]
    pub fn payload_range(&self) -> Range<usize> {
        self.header.len()..self.payload_end
    }

    /// How many bytes of padding end the packet, the one that counts them included.
    #[must_use]
    pub fn padding_len(&self) -> usize {
        self.bytes.len() - self.payload_end
    }
}

/// A header changed in place.
#[derive(Debug)]
pub struct HeaderMut<'a> {
    bytes: &'a mut [u8],
}

impl<'a> HeaderMut<'a> {
    /// Takes the packet `bytes`.
    ///
    /// # Errors
    ///
    /// Those of [`Header::parse`].
    pub fn parse(bytes: &'a mut [u8]) -> Result<HeaderMut<'a>, DecodeError> {
        Header::parse(bytes)?;
        Ok(HeaderMut { bytes })
    }

    /// Sets or clears the marker.
    pub fn set_marker(&mut self, marker: bool) {
        self.bytes[1] = self.bytes[1] & 0x7F | u8::from(marker) << 7;
    }

    /// Sets the payload type, of which 7 bits count.
    pub fn set_payload_type(&mut self, payload_type: u8) {
        self.bytes[1] = self.bytes[1] & 0x80 | payload_type & 0x7F;
    }

    /// Sets the sequence number.
    pub fn set_sequence_number(&mut self, sequence_number: u16) {
        self.bytes[2..4].copy_from_slice(&sequence_number.to_be_bytes());
    }

    /// Sets the timestamp.
    pub fn set_timestamp(&mut self, timestamp: u32) {
        self.bytes[4..8].copy_from_slice(&timestamp.to_be_bytes());
    }

    /// Sets the synchronization source.
    pub fn set_ssrc(&mut self, ssrc: u32) {
        self.bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
    }

    /// The value of the first extension called `id`, to be changed without changing its length.
    pub fn extension_mut(&mut self, id: u8) -> Option<&mut [u8]> {
        let range = Header::parse(self.bytes).ok()?.extension_range(id)?;
        self.bytes.get_mut(range)
    }
}

/// Ends the packet of `len` bytes in `buffer`, which has no padding yet, with `padding` bytes of it, and returns the new
/// length. No padding asked for changes nothing. Source: RFC 3550 §5.1.
///
/// # Errors
///
/// [`BufferTooSmall`] where `buffer` has no room behind the packet, or there is no packet.
pub fn pad(buffer: &mut [u8], len: usize, padding: u8) -> Result<usize, BufferTooSmall> {
    let end = len + usize::from(padding);
    let got = buffer.len();
    let too_small = BufferTooSmall { needed: end, got };
    let packet = buffer.get_mut(..end).ok_or(too_small)?;
    if len < HEADER_LEN_MIN {
        return Err(BufferTooSmall {
            needed: HEADER_LEN_MIN,
            got: len,
        });
    }
    if padding == 0 {
        return Ok(len);
    }

    packet[0] |= 0x20;
    packet[len..].fill(0);
    packet[end - 1] = padding;
    Ok(end)
}

/// The first two bytes of a header: version 2, nothing announced yet.
fn first_bytes(csrcs: usize, fixed: &FixedHeader) -> [u8; 2] {
    let csrcs = low_u8(csrcs as u64) & 0x0F;
    [
        0x80 | csrcs,
        u8::from(fixed.marker) << 7 | fixed.payload_type & 0x7F,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::tests::hex;

    #[test]
    fn headers_are_read() {
        let packet =
            hex("92e0 1234 00000102 deadbeef 11111111 22222222 bede0001 10aa 2000 0102030405");
        let header = Header::parse(&packet).unwrap();

        let fixed = FixedHeader {
            marker: true,
            payload_type: 96,
            sequence_number: 0x1234,
            timestamp: 0x0102,
            ssrc: 0xdead_beef,
        };
        assert_eq!(header.fixed(), fixed);
        assert_eq!(header.csrcs(), [[0x11; 4], [0x22; 4]]);
        assert_eq!(header.len(), 28);
        assert_eq!(header.extension(1), Some(&[0xaa][..]));
        assert_eq!(header.extension_range(1), Some(25..26));
        assert_eq!(header.extension_range(2), Some(27..28));
        assert_eq!(header.extension(3), None);
        assert_eq!(header.extension_range(3), None);
        assert!(!header.has_padding());
        assert_eq!(Packet::parse(&packet).unwrap().payload(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_is_no_packet_is_told_apart() {
        let check = |packet: &str, error| {
            assert_eq!(Packet::parse(&hex(packet)).err(), error, "{packet}");
        };
        let truncated = |needed, got| Some(DecodeError::Truncated { needed, got });
        let padding = |got, space| Some(DecodeError::WrongPadding { got, space });

        check("", truncated(12, 0));
        check("8060 0001 00000000 000000", truncated(12, 11));
        check("8060 0001 00000000 00000000", None);
        check(
            "4060 0001 00000000 00000000",
            Some(DecodeError::WrongVersion { got: 1 }),
        );
        check(
            "c060 0001 00000000 00000000",
            Some(DecodeError::WrongVersion { got: 3 }),
        );
        check("8160 0001 00000000 00000000 000000", truncated(16, 15));
        check("8160 0001 00000000 00000000 00000000", None);
        check("9060 0001 00000000 00000000 bede00", truncated(16, 15));
        check(
            "9060 0001 00000000 00000000 bede0001 000000",
            truncated(20, 19),
        );
        check(
            "9060 0001 00000000 00000000 bedeffff 00000000",
            truncated(262_156, 20),
        );
        check("9060 0001 00000000 00000000 bede0000", None);
        check("a060 0001 00000000 00000000", padding(0, 0));
        check("a060 0001 00000000 00000000 00", padding(0, 1));
        check("a060 0001 00000000 00000000 02", padding(2, 1));
        check("a060 0001 00000000 00000001", padding(1, 0));
        check("a060 0001 00000000 00000000 01", None);
        check("a060 0001 00000000 00000000 ff000003", None);
    }

    #[test]
    fn padding_is_no_payload() {
        let packet = hex("a060 0001 00000000 00000000 ff000003");
        let packet = Packet::parse(&packet).unwrap();
        assert_eq!(packet.payload(), [0xff]);
        assert_eq!(packet.payload_range(), 12..13);
        assert_eq!(packet.padding_len(), 3);
    }

    #[test]
    fn padding_is_written() {
        let mut buffer = hex("8060 0001 00000000 00000000 aabb ffffffffffff");

        assert_eq!(pad(&mut buffer, 14, 0), Ok(14));
        assert_eq!(buffer[0], 0x80);
        assert_eq!(pad(&mut buffer, 14, 4), Ok(18));
        assert_eq!(buffer[14..], [0, 0, 0, 4, 0xff, 0xff]);
        let packet = Packet::parse(&buffer[..18]).unwrap();
        assert_eq!(packet.payload(), [0xaa, 0xbb]);
        assert_eq!(packet.padding_len(), 4);

        let too_small = |needed, got| Err(BufferTooSmall { needed, got });
        assert_eq!(pad(&mut buffer, 14, 7), too_small(21, 20));
        assert_eq!(pad(&mut buffer, 11, 1), too_small(12, 11));
    }

    #[test]
    fn headers_are_changed_in_place() {
        let mut packet = hex("9060 0001 00000000 00000000 bede0001 1100 0000 ee");
        let mut header = HeaderMut::parse(&mut packet).unwrap();
        header.set_marker(true);
        header.set_payload_type(0xff);
        header.set_sequence_number(0x0203);
        header.set_timestamp(0x0405_0607);
        header.set_ssrc(0x0809_0a0b);
        header
            .extension_mut(1)
            .unwrap()
            .copy_from_slice(&[0xaa, 0xbb]);
        assert_eq!(header.extension_mut(2), None);
        assert_eq!(
            packet,
            hex("90ff 0203 04050607 08090a0b bede0001 11aa bb00 ee")
        );

        let mut header = HeaderMut::parse(&mut packet).unwrap();
        header.set_marker(false);
        assert_eq!(packet[1], 0x7f);
        assert!(HeaderMut::parse(&mut [0; 12]).is_err());
    }
}
