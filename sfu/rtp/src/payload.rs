//! What a forwarder reads and changes in payloads: the descriptors in front of coded pictures, and how Opus, RED and RTX
//! are packed.
//!
//! Nothing here looks into a coded picture beyond what a key frame begins with; in an encrypted Room even that is not there
//! except for VP8.

pub mod av1;
pub mod h264;
pub mod opus;
pub mod red;
pub mod rtx;
pub mod vp8;
pub mod vp9;

use crate::bytes::{low_u8, low_u16};

/// The number of a picture, of 7 or 15 bits (RFC 7741 §4.2, RFC 9628 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureId {
    /// The number.
    pub value: u16,
    /// Whether it has 15 bits.
    pub long: bool,
}

impl PictureId {
    /// Reads the one or two bytes at the front of `bytes`.
    fn read(bytes: &[u8]) -> Option<PictureId> {
        let first = *bytes.first()?;
        if first & 0x80 == 0 {
            return Some(PictureId {
                value: u16::from(first),
                long: false,
            });
        }
        Some(PictureId {
            value: u16::from_be_bytes([first & 0x7F, *bytes.get(1)?]),
            long: true,
        })
    }

    /// How many bytes it takes.
    fn len(self) -> usize {
        if self.long { 2 } else { 1 }
    }

    /// Writes as many low bits of `value` as this one has, over it.
    fn overwrite(self, bytes: &mut [u8], value: u16) {
        match bytes {
            [first, second, ..] if self.long => {
                let [high, low] = value.to_be_bytes();
                (*first, *second) = (high | 0x80, low);
            }
            [first, ..] if !self.long => *first = low_u8(u64::from(value)) & 0x7F,
            _ => {}
        }
    }

    /// The number that comes `count` pictures after this one, of as many bits.
    #[must_use]
    pub fn after(self, count: u16) -> PictureId {
        let mask = if self.long { 0x7FFF } else { 0x7F };
        let value = low_u16((u64::from(self.value) + u64::from(count)) & mask);
        PictureId { value, ..self }
    }
}

/// Writes over the numbers a descriptor has: that of the picture at `at`, and TL0PICIDX `between` bytes behind it.
fn rewrite_numbers(
    payload: &mut [u8],
    at: usize,
    (own, picture_id): (Option<PictureId>, u16),
    between: usize,
    tl0_picture_index: Option<u8>,
) {
    if let (Some(own), Some(bytes)) = (own, payload.get_mut(at..)) {
        own.overwrite(bytes, picture_id);
    }
    let at = at + own.map_or(0, PictureId::len) + between;
    if let (Some(index), Some(byte)) = (tl0_picture_index, payload.get_mut(at)) {
        *byte = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_ids_have_7_or_15_bits() {
        let check = |bytes: &[u8], expected| assert_eq!(PictureId::read(bytes), expected);
        let id = |value, long| Some(PictureId { value, long });

        check(&[], None);
        check(&[0x7f], id(0x7f, false));
        check(&[0x80], None);
        check(&[0x80, 0x01], id(1, true));
        check(&[0xff, 0xff], id(0x7fff, true));
    }

    #[test]
    fn picture_ids_wrap() {
        let after = |value, long, count| PictureId { value, long }.after(count).value;
        assert_eq!(after(0x7f, false, 1), 0);
        assert_eq!(after(0x7f, true, 1), 0x80);
        assert_eq!(after(0x7fff, true, 2), 1);
        assert_eq!(after(5, true, u16::MAX), 4);
    }
}
