//! Numbers of any count of bits, the highest first.

use crate::bytes::low_u8;
use crate::{BufferTooSmall, DecodeError};

/// Reads bits from the front.
#[derive(Debug, Clone)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> BitReader<'a> {
        BitReader { bytes, at: 0 }
    }

    /// How many bits were read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Leaves `count` bits out, which are there.
    pub(super) fn skip(&mut self, count: usize) {
        self.at += count;
    }

    /// The next `count` bits, up to 32: f(n) of the specification.
    pub(super) fn read(&mut self, count: usize) -> Result<u32, DecodeError> {
        let end = self.at + count;
        if end > self.bytes.len() * 8 {
            return Err(DecodeError::Truncated {
                needed: end.div_ceil(8),
                got: self.bytes.len(),
            });
        }
        let mut value = 0;
        while self.at < end {
            let left = 8 - self.at % 8;
            let take = left.min(end - self.at);
            let byte = u32::from(self.bytes[self.at / 8]);
            value = value << take | byte >> (left - take) & ((1 << take) - 1);
            self.at += take;
        }
        Ok(value)
    }

    /// One bit.
    pub(super) fn flag(&mut self) -> Result<bool, DecodeError> {
        Ok(self.read(1)? != 0)
    }

    /// A number below `end` in as few bits as can be: ns(n) of the specification.
    pub(super) fn below(&mut self, end: u32) -> Result<u32, DecodeError> {
        let bits = u32::BITS - end.leading_zeros();
        let short = (1u32 << bits) - end;
        let value = self.read(bits.saturating_sub(1) as usize)?;
        if value < short {
            return Ok(value);
        }
        Ok((value << 1) - short + self.read(1)?)
    }
}

/// Writes bits from the front.
#[derive(Debug)]
pub(super) struct BitWriter<'b> {
    buffer: &'b mut [u8],
    at: usize,
}

impl<'b> BitWriter<'b> {
    pub(super) fn new(buffer: &'b mut [u8]) -> BitWriter<'b> {
        BitWriter { buffer, at: 0 }
    }

    /// Writes the low `count` bits of `value`, up to 32.
    pub(super) fn write(&mut self, value: u32, count: usize) -> Result<(), BufferTooSmall> {
        let needed = (self.at + count).div_ceil(8);
        let got = self.buffer.len();
        if needed > got {
            return Err(BufferTooSmall { needed, got });
        }
        for bit in (0..count).rev() {
            let byte = &mut self.buffer[self.at / 8];
            if self.at.is_multiple_of(8) {
                *byte = 0;
            }
            *byte |= low_u8(u64::from(value >> bit & 1)) << (7 - self.at % 8);
            self.at += 1;
        }
        Ok(())
    }

    /// The length in bytes; what is left of the last one is zero.
    pub(super) fn finish(self) -> usize {
        self.at.div_ceil(8)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_below_an_end_take_few_bits() {
        let read = |bytes: &[u8], end| {
            let mut reader = BitReader::new(bytes);
            (reader.below(end), reader.position())
        };

        assert_eq!(read(&[], 1), (Ok(0), 0));
        // Of five numbers three take two bits and two take three.
        assert_eq!(read(&[0b0000_0000], 5), (Ok(0), 2));
        assert_eq!(read(&[0b1000_0000], 5), (Ok(2), 2));
        assert_eq!(read(&[0b1100_0000], 5), (Ok(3), 3));
        assert_eq!(read(&[0b1110_0000], 5), (Ok(4), 3));
        assert_eq!(read(&[0b0110_0000], 4), (Ok(1), 2));
        assert_eq!(
            read(&[], 2),
            (Err(DecodeError::Truncated { needed: 1, got: 0 }), 0)
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(numbers in prop::collection::vec((any::<u32>(), 0usize..=32), 0..40)) {
            let mut buffer = [0xff; 200];
            let mut writer = BitWriter::new(&mut buffer);
            for (value, count) in &numbers {
                writer.write(*value, *count).unwrap();
            }
            let len = writer.finish();

            let mut reader = BitReader::new(&buffer[..len]);
            for (value, count) in numbers {
                let kept = u64::from(value) & ((1 << count) - 1);
                prop_assert_eq!(u64::from(reader.read(count).unwrap()), kept);
            }
            prop_assert!(reader.position() <= len * 8);
            let rest = len * 8 - reader.position();
            prop_assert_eq!(reader.read(rest), Ok(0));
            prop_assert!(reader.read(1).is_err());
        }
    }
}
