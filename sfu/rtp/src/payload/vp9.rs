//! The VP9 payload descriptor (RFC 9628 §4.2).

use crate::DecodeError;
use crate::bytes::u16_at;
use crate::payload::{PictureId, rewrite_numbers};

/// How many spatial layers there can be (RFC 9628 §4.2.1).
pub const SPATIAL_LAYERS_MAX: usize = 8;

/// How many pictures a packet can name that it refers to (RFC 9628 §4.2).
const REFERENCES_MAX: usize = 3;

/// What stands in front of each packet's part of a layer frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// How many bytes it has.
    pub len: usize,
    /// The picture's number (I).
    pub picture_id: Option<PictureId>,
    /// The layer frame refers to pictures before (P).
    pub inter_picture_predicted: bool,
    /// The layer, where layers are told (L).
    pub layer: Option<Layer>,
    /// What a picture refers to differs from picture to picture (F).
    pub flexible: bool,
    /// The number of the last picture of temporal layer 0, in the mode that is not flexible (TL0PICIDX).
    pub tl0_picture_index: Option<u8>,
    /// A layer frame begins in this packet (B).
    pub start_of_frame: bool,
    /// A layer frame ends in this packet (E).
    pub end_of_frame: bool,
    /// No upper spatial layer of this picture refers to this one (Z).
    pub not_reference_for_upper: bool,
    /// The spatial layers of the pictures from here on (V).
    pub structure: Option<Structure>,
}

/// The layer of a layer frame (RFC 9628 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// The temporal layer, 0 to 7 (TID).
    pub temporal: u8,
    /// From here on one may go up to this temporal layer (U).
    pub switching_up: bool,
    /// The spatial layer, 0 to 7 (SID).
    pub spatial: u8,
    /// The layer frame refers to the spatial layer below, of the same picture (D).
    pub inter_layer_dependent: bool,
}

/// The scalability structure (RFC 9628 §4.2.1). Of its pictures' references only their count is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Structure {
    /// How many spatial layers there are, 1 to 8 (`N_S` + 1).
    pub spatial_layers: u8,
    /// Width and height of each, in pixels; zeros where they are not told, and above the layers there are.
    pub resolutions: [(u16, u16); SPATIAL_LAYERS_MAX],
    /// How many pictures the group has that repeats, zero where it is not told (`N_G`).
    pub pictures: u8,
}

impl Descriptor {
    /// Reads the descriptor at the front of `payload`.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`], or [`DecodeError::TooMany`] for more than three references. Source: RFC 9628 §4.2.
    pub fn parse(payload: &[u8]) -> Result<Descriptor, DecodeError> {
        let mut reader = Reader { payload, at: 0 };
        let first = reader.byte()?;
        let has = |bit: u8| first & bit != 0;
        let inter_picture_predicted = has(0x40);
        let flexible = has(0x10);

        let picture_id = if has(0x80) {
            let rest = payload.get(reader.at..).unwrap_or_default();
            let id = PictureId::read(rest);
            reader.skip(id.map_or(rest.len() + 1, PictureId::len))?;
            id
        } else {
            None
        };
        let mut layer = None;
        let mut tl0_picture_index = None;
        if has(0x20) {
            let byte = reader.byte()?;
            layer = Some(Layer {
                temporal: byte >> 5,
                switching_up: byte & 0x10 != 0,
                spatial: byte >> 1 & 0x07,
                inter_layer_dependent: byte & 1 != 0,
            });
            if !flexible {
                tl0_picture_index = Some(reader.byte()?);
            }
        }
        if flexible && inter_picture_predicted {
            let mut references = 1;
            while reader.byte()? & 1 != 0 {
                references += 1;
                if references > REFERENCES_MAX {
                    return Err(DecodeError::TooMany {
                        what: "references",
                        max: REFERENCES_MAX,
                    });
                }
            }
        }
        let structure = if has(0x02) {
            Some(reader.structure()?)
        } else {
            None
        };

        Ok(Descriptor {
            len: reader.at,
            picture_id,
            inter_picture_predicted,
            layer,
            flexible,
            tl0_picture_index,
            start_of_frame: has(0x08),
            end_of_frame: has(0x04),
            not_reference_for_upper: has(0x01),
            structure,
        })
    }

    /// Whether a key frame begins in this packet: a layer frame of the lowest spatial layer that refers to nothing.
    #[must_use]
    pub fn is_key_frame(&self) -> bool {
        self.start_of_frame
            && !self.inter_picture_predicted
            && self.layer.is_none_or(|layer| layer.spatial == 0)
    }

    /// Writes `picture_id` and `tl0_picture_index` over those in `payload`, from which this was read; of what is not there
    /// nothing is written, and of a short picture id the low 7 bits.
    pub fn rewrite(&self, payload: &mut [u8], picture_id: u16, tl0_picture_index: u8) {
        let index = self.tl0_picture_index.map(|_| tl0_picture_index);
        rewrite_numbers(payload, 1, (self.picture_id, picture_id), 1, index);
    }
}

struct Reader<'a> {
    payload: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn skip(&mut self, len: usize) -> Result<(), DecodeError> {
        let needed = self.at + len;
        let got = self.payload.len();
        if needed > got {
            return Err(DecodeError::Truncated { needed, got });
        }
        self.at = needed;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.skip(1)?;
        Ok(self.payload[self.at - 1])
    }

    /// Reads the scalability structure (RFC 9628 §4.2.1).
    fn structure(&mut self) -> Result<Structure, DecodeError> {
        let first = self.byte()?;
        let mut structure = Structure {
            spatial_layers: (first >> 5) + 1,
            resolutions: [(0, 0); SPATIAL_LAYERS_MAX],
            pictures: 0,
        };
        if first & 0x10 != 0 {
            for resolution in &mut structure.resolutions[..usize::from(structure.spatial_layers)] {
                let at = self.at;
                self.skip(4)?;
                let pixels = |at| u16_at(self.payload, at).unwrap_or_default(); // They are there.
                *resolution = (pixels(at), pixels(at + 2));
            }
        }
        if first & 0x08 != 0 {
            structure.pictures = self.byte()?;
            for _ in 0..structure.pictures {
                let references = self.byte()? >> 2 & 0x03;
                self.skip(usize::from(references))?;
            }
        }
        Ok(structure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::tests::hex;

    const PLAIN: Descriptor = Descriptor {
        len: 1,
        picture_id: None,
        inter_picture_predicted: false,
        layer: None,
        flexible: false,
        tl0_picture_index: None,
        start_of_frame: false,
        end_of_frame: false,
        not_reference_for_upper: false,
        structure: None,
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
        let layer = Some(Layer {
            temporal: 2,
            switching_up: true,
            spatial: 1,
            inter_layer_dependent: true,
        });
        let flexible = Descriptor {
            flexible: true,
            inter_picture_predicted: true,
            ..PLAIN
        };

        check("00 ff", PLAIN);
        check(
            "0d",
            Descriptor {
                start_of_frame: true,
                end_of_frame: true,
                not_reference_for_upper: true,
                ..PLAIN
            },
        );
        check(
            "80 11",
            Descriptor {
                len: 2,
                picture_id: short,
                ..PLAIN
            },
        );
        check(
            "80 9122",
            Descriptor {
                len: 3,
                picture_id: long,
                ..PLAIN
            },
        );
        let layered = Descriptor {
            picture_id: long,
            layer,
            ..PLAIN
        };
        check(
            "a0 9122 53 07",
            Descriptor {
                len: 5,
                tl0_picture_index: Some(7),
                ..layered
            },
        );
        check(
            "b0 9122 53",
            Descriptor {
                len: 4,
                flexible: true,
                ..layered
            },
        );
        check("50 02", Descriptor { len: 2, ..flexible });
        check("50 03 05 06", Descriptor { len: 4, ..flexible });
        check(
            "10 03",
            Descriptor {
                flexible: true,
                ..PLAIN
            },
        );

        let structure = |spatial_layers, pictures, told: &[(u16, u16)]| {
            let mut resolutions = [(0, 0); SPATIAL_LAYERS_MAX];
            resolutions[..told.len()].copy_from_slice(told);
            Some(Structure {
                spatial_layers,
                resolutions,
                pictures,
            })
        };
        check(
            "02 00",
            Descriptor {
                len: 2,
                structure: structure(1, 0, &[]),
                ..PLAIN
            },
        );
        let told = structure(2, 0, &[(640, 360), (1280, 720)]);
        check(
            "02 30 02800168 050002d0",
            Descriptor {
                len: 10,
                structure: told,
                ..PLAIN
            },
        );
        let told = structure(1, 2, &[]);
        check(
            "02 08 02 04 01 08 01 02",
            Descriptor {
                len: 8,
                structure: told,
                ..PLAIN
            },
        );
    }

    #[test]
    fn what_is_announced_must_be_there() {
        let check = |payload: &str| {
            let whole = hex(payload);
            assert!(Descriptor::parse(&whole).is_ok(), "{payload}");
            for got in 0..whole.len() {
                let error = Descriptor::parse(&whole[..got]).err();
                assert!(
                    matches!(error, Some(DecodeError::Truncated { needed, .. }) if needed > got),
                    "{got}"
                );
            }
        };

        check("a0 9122 53 07");
        check("d0 11 03 05 06");
        check("02 38 02800168 050002d0 02 04 01 08 01 02");
        let error = DecodeError::TooMany {
            what: "references",
            max: 3,
        };
        assert_eq!(Descriptor::parse(&hex("50 03 05 07 02")), Err(error));
    }

    #[test]
    fn key_frames_are_told() {
        let check = |payload: &str, expected| {
            assert_eq!(
                Descriptor::parse(&hex(payload)).unwrap().is_key_frame(),
                expected,
                "{payload}"
            );
        };

        check("08", true);
        check("00", false);
        check("48", false);
        check("28 00 00", true);
        check("28 02 00", false);
    }

    #[test]
    fn numbers_are_rewritten_in_place() {
        let check = |payload: &str, expected: &str| {
            let mut payload = hex(payload);
            let descriptor = Descriptor::parse(&payload).unwrap();
            descriptor.rewrite(&mut payload, 0xF3C4, 0xDD);
            assert_eq!(payload, hex(expected));
        };

        check("00 ab", "00 ab");
        check("80 11 ab", "80 44 ab");
        check("80 9122 ab", "80 f3c4 ab");
        check("a0 9122 53 07 ab", "a0 f3c4 53 dd ab");
        check("20 53 07 ab", "20 53 dd ab");
        check("b0 9122 53 07", "b0 f3c4 53 07");
    }
}
