//! The VP8 payload descriptor, and how a key frame begins (RFC 7741 §4).

use crate::DecodeError;
use crate::payload::{PictureId, rewrite_numbers};

/// What stands in front of each packet's part of a picture (RFC 7741 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// How many bytes it has.
    pub len: usize,
    /// No other picture refers to this one (N).
    pub non_reference: bool,
    /// A partition begins in this packet (S).
    pub start_of_partition: bool,
    /// Which partition it is (PID).
    pub partition: u8,
    /// The picture's number (I).
    pub picture_id: Option<PictureId>,
    /// The number of the last picture of temporal layer 0 (TL0PICIDX).
    pub tl0_picture_index: Option<u8>,
    /// The temporal layer, 0 to 3 (TID).
    pub temporal_layer: Option<u8>,
    /// The picture refers to temporal layer 0 only (Y): here one may begin with this layer.
    pub layer_sync: bool,
    /// Which key frame the picture refers to (KEYIDX).
    pub key_index: Option<u8>,
    /// Whether the packet begins with the start of a key frame.
    pub is_key_frame: bool,
}

impl Descriptor {
    /// Reads the descriptor at the front of `payload`.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`]. Source: RFC 7741 §4.2.
    pub fn parse(payload: &[u8]) -> Result<Descriptor, DecodeError> {
        let mut at = 0;
        let mut next = || {
            at += 1;
            payload.get(at - 1).copied().ok_or(DecodeError::Truncated {
                needed: at,
                got: payload.len(),
            })
        };
        let first = next()?;
        let present = if first & 0x80 != 0 { next()? } else { 0 };

        let mut picture_id = None;
        if present & 0x80 != 0 {
            let high = next()?;
            let bytes = [high, if high & 0x80 != 0 { next()? } else { 0 }];
            picture_id = PictureId::read(&bytes);
        }
        let tl0_picture_index = if present & 0x40 != 0 {
            Some(next()?)
        } else {
            None
        };
        let layers = if present & 0x30 != 0 { next()? } else { 0 };

        let start_of_partition = first & 0x10 != 0;
        let partition = first & 0x07;
        // The inverse key frame flag of the payload header (RFC 7741 §4.3).
        let header = payload.get(at);
        Ok(Descriptor {
            len: at,
            non_reference: first & 0x20 != 0,
            start_of_partition,
            partition,
            picture_id,
            tl0_picture_index,
            temporal_layer: (present & 0x20 != 0).then_some(layers >> 6),
            layer_sync: present & 0x20 != 0 && layers & 0x20 != 0,
            key_index: (present & 0x10 != 0).then_some(layers & 0x1F),
            is_key_frame: start_of_partition
                && partition == 0
                && header.is_some_and(|header| header & 1 == 0),
        })
    }

    /// Whether a picture begins in this packet.
    #[must_use]
    pub fn is_start_of_picture(&self) -> bool {
        self.start_of_partition && self.partition == 0
    }

    /// Writes `picture_id` and `tl0_picture_index` over those in `payload`, from which this was read; of what is not there
    /// nothing is written, and of a short picture id the low 7 bits.
    pub fn rewrite(&self, payload: &mut [u8], picture_id: u16, tl0_picture_index: u8) {
        let index = self.tl0_picture_index.map(|_| tl0_picture_index);
        rewrite_numbers(payload, 2, (self.picture_id, picture_id), 0, index);
    }
}

/// Width and height of the key frame that begins in `payload`, in pixels before scaling; `None` where none begins. Source:
/// RFC 6386 §9.1.
#[must_use]
pub fn dimensions(payload: &[u8]) -> Option<(u16, u16)> {
    let descriptor = Descriptor::parse(payload)
        .ok()
        .filter(|it| it.is_key_frame)?;
    let [_, _, _, 0x9D, 0x01, 0x2A, a, b, c, d] = *payload.get(descriptor.len..)?.first_chunk()?
    else {
        return None;
    };
    // The two bits above each tell how to scale.
    let pixels = |bytes| u16::from_le_bytes(bytes) & 0x3FFF;
    Some((pixels([a, b]), pixels([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::tests::hex;

    const PLAIN: Descriptor = Descriptor {
        len: 1,
        non_reference: false,
        start_of_partition: false,
        partition: 0,
        picture_id: None,
        tl0_picture_index: None,
        temporal_layer: None,
        layer_sync: false,
        key_index: None,
        is_key_frame: false,
    };

    #[test]
    fn descriptors_are_read() {
        let check = |payload: &str, expected: Descriptor| {
            assert_eq!(Descriptor::parse(&hex(payload)), Ok(expected), "{payload}");
        };
        let short = Some(PictureId {
            value: 0x11,
            long: false,
        });
        let long = Some(PictureId {
            value: 0x1122,
            long: true,
        });
        let start = Descriptor {
            start_of_partition: true,
            ..PLAIN
        };

        check("00", PLAIN);
        check(
            "30",
            Descriptor {
                non_reference: true,
                ..start
            },
        );
        check(
            "13 00",
            Descriptor {
                partition: 3,
                ..start
            },
        );
        check("10 01", start);
        check(
            "10 00",
            Descriptor {
                is_key_frame: true,
                ..start
            },
        );
        check("00 00", PLAIN);
        check("80 00", Descriptor { len: 2, ..PLAIN });
        check(
            "90 80 11 00",
            Descriptor {
                len: 3,
                picture_id: short,
                is_key_frame: true,
                ..start
            },
        );
        check(
            "90 80 9122 01",
            Descriptor {
                len: 4,
                picture_id: long,
                ..start
            },
        );
        check(
            "80 40 07",
            Descriptor {
                len: 3,
                tl0_picture_index: Some(7),
                ..PLAIN
            },
        );
        let layers = Descriptor {
            temporal_layer: Some(2),
            layer_sync: true,
            ..PLAIN
        };
        check("80 20 a5", Descriptor { len: 3, ..layers });
        check(
            "80 10 a5",
            Descriptor {
                len: 3,
                key_index: Some(5),
                ..PLAIN
            },
        );
        let all = Descriptor {
            picture_id: long,
            tl0_picture_index: Some(7),
            key_index: Some(5),
            ..layers
        };
        check("80 f0 9122 07 a5", Descriptor { len: 6, ..all });
    }

    #[test]
    fn what_is_announced_must_be_there() {
        let whole = hex("80 f0 9122 07 a5");
        for got in 0..whole.len() {
            let error = DecodeError::Truncated {
                needed: got + 1,
                got,
            };
            assert_eq!(Descriptor::parse(&whole[..got]), Err(error));
        }
    }

    #[test]
    fn numbers_are_rewritten_in_place() {
        let check = |payload: &str, expected: &str| {
            let mut payload = hex(payload);
            let descriptor = Descriptor::parse(&payload).unwrap();
            descriptor.rewrite(&mut payload, 0xF3C4, 0xDD);
            assert_eq!(payload, hex(expected));
        };

        check("10 ab", "10 ab");
        check("90 00 ab", "90 00 ab");
        check("90 80 11 ab", "90 80 44 ab");
        check("90 80 9122 ab", "90 80 f3c4 ab");
        check("90 40 11 ab", "90 40 dd ab");
        check("90 f0 9122 07 a5 ab", "90 f0 f3c4 dd a5 ab");
        check("90 c0 11 07 ab", "90 c0 44 dd ab");
    }

    #[test]
    fn key_frames_tell_their_size() {
        let check =
            |payload: &str, expected| assert_eq!(dimensions(&hex(payload)), expected, "{payload}");

        check("10 500100 9d012a 8002 e001", Some((640, 480)));
        check("90 80 11 500100 9d012a 8042 e081", Some((640, 480)));
        check("10 510100 9d012a 8002 e001", None);
        check("00 500100 9d012a 8002 e001", None);
        check("11 500100 9d012a 8002 e001", None);
        check("10 500100 9d012b 8002 e001", None);
        check("10 500100 9d012a 8002 e0", None);
        check("", None);
    }
}
