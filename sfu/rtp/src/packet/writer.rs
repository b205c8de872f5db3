//! Writes headers into a caller's buffer (RFC 3550 §5.1, RFC 8285 §4).

use crate::BufferTooSmall;
use crate::bytes::low_u8;
use crate::extension::{ONE_BYTE_ID_MAX, ONE_BYTE_LEN_MAX, ONE_BYTE_PROFILE, TWO_BYTE_PROFILE};
use crate::packet::{FixedHeader, HEADER_LEN_MIN, first_bytes};

/// Why a header can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The buffer ends before the header.
    #[error(transparent)]
    BufferTooSmall(#[from] BufferTooSmall),
    /// No block can hold the extension.
    #[error(transparent)]
    ExtensionUnfit(#[from] ExtensionUnfit),
}

/// An extension no block can hold: id 0, or a value of more than 255 bytes (RFC 8285 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no extension can have id {id} and {len} bytes")]
pub struct ExtensionUnfit {
    /// The id.
    pub id: u8,
    /// The length of the value.
    pub len: usize,
}

/// Writes a header from front to back; what a failed call had to write is not there, all else is.
///
/// Extensions stand in the one-byte form as long as they can, which every receiver reads, and in the two-byte form from the
/// first on that needs it: an id above 14, an empty value or one of more than 16 bytes (RFC 8285 §4.2).
///
/// ```
/// use sfu_rtp::packet::{FixedHeader, Header, HeaderWriter};
///
/// let fixed = FixedHeader { payload_type: 111, sequence_number: 7, ..FixedHeader::default() };
/// let mut buffer = [0; 1500];
/// let mut writer = HeaderWriter::new(&mut buffer, &fixed, &[])?;
/// writer.extension(1, &[0x85])?;
/// let len = writer.finish()?;
/// assert_eq!(Header::parse(&buffer[..len]).unwrap().extension(1), Some(&[0x85][..]));
/// # Ok::<(), sfu_rtp::packet::WriteError>(())
/// ```
#[derive(Debug)]
pub struct HeaderWriter<'b> {
    buffer: &'b mut [u8],
    /// What is written so far.
    len: usize,
    /// Where the extension block's four leading bytes stand, once there is one.
    block: Option<usize>,
    two_byte: bool,
}

impl<'b> HeaderWriter<'b> {
    /// Begins a header with `fixed` and the first 15 of `csrcs`.
    ///
    /// # Errors
    ///
    /// [`BufferTooSmall`].
    pub fn new(
        buffer: &'b mut [u8],
        fixed: &FixedHeader,
        csrcs: &[[u8; 4]],
    ) -> Result<HeaderWriter<'b>, BufferTooSmall> {
        let csrcs = &csrcs[..csrcs.len().min(15)];
        let len = HEADER_LEN_MIN + 4 * csrcs.len();
        let got = buffer.len();
        let header = buffer
            .get_mut(..len)
            .ok_or(BufferTooSmall { needed: len, got })?;

        header[..2].copy_from_slice(&first_bytes(csrcs.len(), fixed));
        header[2..4].copy_from_slice(&fixed.sequence_number.to_be_bytes());
        header[4..8].copy_from_slice(&fixed.timestamp.to_be_bytes());
        header[8..12].copy_from_slice(&fixed.ssrc.to_be_bytes());
        header[HEADER_LEN_MIN..].copy_from_slice(csrcs.as_flattened());
        Ok(HeaderWriter {
            buffer,
            len,
            block: None,
            two_byte: false,
        })
    }

    /// Adds the extension `id` with `value`. Ids are not compared: whoever adds one twice has it twice.
    ///
    /// # Errors
    ///
    /// [`WriteError`] where nothing was added.
    pub fn extension(&mut self, id: u8, value: &[u8]) -> Result<(), WriteError> {
        let len = value.len();
        let (Ok(short_len), 1..) = (u8::try_from(len), id) else {
            return Err(ExtensionUnfit { id, len }.into());
        };
        if !self.two_byte && (id > ONE_BYTE_ID_MAX || !(1..=ONE_BYTE_LEN_MAX).contains(&len)) {
            self.widen()?;
        }

        let block = self.block.unwrap_or(self.len);
        let start = self.len.max(block + 4);
        let prefix = if self.two_byte { 2 } else { 1 };
        let entry = self.room(start, prefix + len)?;
        if let [first, second] = &mut entry[..prefix] {
            (*first, *second) = (id, short_len);
        } else {
            entry[0] = id << 4 | short_len.wrapping_sub(1);
        }
        entry[prefix..].copy_from_slice(value);
        self.block = Some(block);
        self.len = start + prefix + len;
        Ok(())
    }

    /// Ends the header and returns its length in bytes; the payload comes next.
    ///
    /// # Errors
    ///
    /// [`BufferTooSmall`] where the block's padding has no room.
    pub fn finish(mut self) -> Result<usize, BufferTooSmall> {
        let Some(block) = self.block else {
            return Ok(self.len);
        };
        let end = self.len.next_multiple_of(4);
        self.room(self.len, end - self.len)?.fill(0);

        let profile = if self.two_byte {
            TWO_BYTE_PROFILE
        } else {
            ONE_BYTE_PROFILE
        };
        let words = (end - block) / 4 - 1;
        // 65,535 words are more than the 255 extensions of 257 bytes that differ in their ids.
        let words = u16::try_from(words).map_err(|_| BufferTooSmall {
            needed: end,
            got: block + 4 + 4 * usize::from(u16::MAX),
        })?;
        self.buffer[0] |= 0x10;
        self.buffer[block..block + 2].copy_from_slice(&profile.to_be_bytes());
        self.buffer[block + 2..block + 4].copy_from_slice(&words.to_be_bytes());
        Ok(end)
    }

    /// Turns the entries written so far into the two-byte form: each grows by a byte.
    fn widen(&mut self) -> Result<(), BufferTooSmall> {
        if let Some(block) = self.block {
            let mut entries = 0;
            let mut at = block + 4;
            while at < self.len {
                at += 2 + usize::from(self.buffer[at] & 0x0F);
                entries += 1;
            }
            self.room(self.len, entries)?;

            let mut at = block + 4;
            while at < self.len {
                let entry = self.buffer[at];
                let len = usize::from(entry & 0x0F) + 1;
                self.buffer.copy_within(at + 1..self.len, at + 2);
                self.buffer[at] = entry >> 4;
                self.buffer[at + 1] = low_u8(len as u64);
                self.len += 1;
                at += 2 + len;
            }
        }
        self.two_byte = true;
        Ok(())
    }

    fn room(&mut self, at: usize, len: usize) -> Result<&mut [u8], BufferTooSmall> {
        let needed = at + len;
        let got = self.buffer.len();
        self.buffer
            .get_mut(at..needed)
            .ok_or(BufferTooSmall { needed, got })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bytes::tests::hex;
    use crate::packet::Header;

    fn written(extensions: &[(u8, &[u8])]) -> Vec<u8> {
        let mut buffer = [0xee; 1500];
        let mut writer = HeaderWriter::new(&mut buffer, &FIXED, &[]).unwrap();
        for (id, value) in extensions {
            writer.extension(*id, value).unwrap();
        }
        let len = writer.finish().unwrap();
        buffer[..len].to_vec()
    }

    const FIXED: FixedHeader = FixedHeader {
        marker: true,
        payload_type: 96,
        sequence_number: 0x1234,
        timestamp: 0x0102_0304,
        ssrc: 0xcafe_babe,
    };

    #[test]
    fn extensions_stand_in_the_shorter_form_that_holds_them() {
        let check = |extensions: &[(u8, &[u8])], expected: &str| {
            let header = format!("1234 01020304 cafebabe {expected}");
            let first = if expected.is_empty() { "80e0" } else { "90e0" };
            assert_eq!(
                written(extensions),
                hex(&format!("{first} {header}")),
                "{extensions:?}"
            );
        };

        check(&[], "");
        check(&[(1, &[0xaa])], "bede0001 10aa0000");
        check(&[(14, &[1, 2, 3])], "bede0001 e2010203");
        check(
            &[(3, &[1, 2]), (5, &[3, 4, 5])],
            "bede0002 310102 52030405 00",
        );
        check(
            &[(1, &[7; 16])],
            "bede0005 1f07070707070707070707070707070707 000000",
        );
        check(&[(15, &[1])], "10000001 0f010100");
        check(&[(1, &[])], "10000001 01000000");
        check(
            &[(1, &[0xaa]), (2, &[1, 2]), (16, &[9])],
            "10000003 0101aa 02020102 100109 0000",
        );
        check(
            &[(1, &[0xaa]), (2, &[7; 17])],
            "10000006 0101aa 0211 0707070707070707070707070707070707 0000",
        );
    }

    #[test]
    fn csrcs_stand_before_the_extensions() {
        let mut buffer = [0; 64];
        let mut writer = HeaderWriter::new(&mut buffer, &FIXED, &[[1; 4], [2; 4]]).unwrap();
        writer.extension(1, &[5]).unwrap();
        let len = writer.finish().unwrap();
        let header = Header::parse(&buffer[..len]).unwrap();
        assert_eq!(header.csrcs(), [[1; 4], [2; 4]]);
        assert_eq!(header.extension(1), Some(&[5][..]));
        assert_eq!(header.len(), len);

        let mut buffer = [0; 128];
        let writer = HeaderWriter::new(&mut buffer, &FIXED, &[[1; 4]; 17]).unwrap();
        assert_eq!(writer.finish(), Ok(72));
        assert_eq!(Header::parse(&buffer).unwrap().csrcs().len(), 15);
    }

    #[test]
    fn what_has_no_room_is_refused_and_the_rest_stands() {
        let needed = |needed, got| BufferTooSmall { needed, got };
        assert_eq!(
            HeaderWriter::new(&mut [0; 11], &FIXED, &[]).err(),
            Some(needed(12, 11))
        );

        let mut buffer = [0; 20];
        let mut writer = HeaderWriter::new(&mut buffer, &FIXED, &[]).unwrap();
        writer.extension(1, &[1]).unwrap();
        assert_eq!(writer.extension(2, &[1, 2, 3]), Err(needed(22, 20).into()));
        assert_eq!(writer.extension(2, &[]), Err(needed(21, 20).into()));
        assert_eq!(
            writer.extension(0, &[1]),
            Err(ExtensionUnfit { id: 0, len: 1 }.into())
        );
        assert_eq!(
            writer.extension(1, &[0; 256]),
            Err(ExtensionUnfit { id: 1, len: 256 }.into())
        );
        assert_eq!(writer.finish(), Ok(20));
        let extensions: Vec<_> = Header::parse(&buffer).unwrap().extensions().collect();
        assert_eq!(extensions, [(1, &[1][..])]);

        let mut buffer = [0; 19];
        let mut writer = HeaderWriter::new(&mut buffer, &FIXED, &[]).unwrap();
        writer.extension(1, &[1]).unwrap();
        assert_eq!(writer.finish(), Err(needed(20, 19)));
    }

    proptest! {
        /// Whatever is written is read back, in the same order.
        #[test]
        fn what_is_written_is_read(
            marker: bool,
            payload_type in 0u8..128,
            sequence_number: u16,
            timestamp: u32,
            ssrc: u32,
            csrcs in prop::collection::vec(any::<[u8; 4]>(), 0..=15),
            extensions in prop::collection::vec(
                prop_oneof![
                    (1u8..=14, prop::collection::vec(any::<u8>(), 1..=16)),
                    (1u8..=255, prop::collection::vec(any::<u8>(), 0..=40)),
                ],
                0..8,
            ),
        ) {
            let fixed = FixedHeader { marker, payload_type, sequence_number, timestamp, ssrc };
            let mut buffer = [0xee; 1500];
            let mut writer = HeaderWriter::new(&mut buffer, &fixed, &csrcs).unwrap();
            for (id, value) in &extensions {
                writer.extension(*id, value).unwrap();
            }
            let len = writer.finish().unwrap();

            let header = Header::parse(&buffer[..len]).unwrap();
            prop_assert_eq!(header.len(), len);
            prop_assert_eq!(header.fixed(), fixed);
            prop_assert_eq!(header.csrcs(), &csrcs[..]);
            let read: Vec<_> = header.extensions().map(|(id, value)| (id, value.to_vec())).collect();
            prop_assert_eq!(read, extensions);
        }
    }
}
