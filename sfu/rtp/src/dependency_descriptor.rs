//! What a frame depends on, and who needs it: the Dependency Descriptor (the AV1 RTP specification, appendix A). It stands in
//! a header extension, in clear also where payloads are encrypted, and serves AV1, VP9 and any other codec.
//!
//! A key frame brings a [`Structure`]: templates of frames, the decode targets (the qualities one can choose among) and the
//! chains that tell whether a target can still be decoded. Every packet refers to a template and says what differs.

mod bits;
mod structure;

pub use structure::{Indication, Structure};

use crate::bytes::{low_u8, low_u16};
use crate::dependency_descriptor::bits::{BitReader, BitWriter};
use crate::dependency_descriptor::structure::{Indications, List};
use crate::{BufferTooSmall, DecodeError};

/// How many decode targets there can be (§A.8.3).
pub const DECODE_TARGETS_MAX: usize = 32;

/// How many templates there can be (§A.8.2).
pub const TEMPLATES_MAX: usize = 64;

/// How many spatial layers there can be (§A.8.3).
pub const SPATIAL_LAYERS_MAX: usize = 4;

/// How many temporal layers there can be (§A.8.3).
pub const TEMPORAL_LAYERS_MAX: usize = 8;

/// How many frames we take one to refer to. A frame of AV1 refers to 7 at most.
pub const REFERENCES_MAX: usize = 8;

/// The length of the fields that are always there, in bits (§A.8.2).
const MANDATORY_BITS: usize = 24;

/// The length of the flags behind them, in bits (§A.8.2).
const FLAG_BITS: usize = 5;

/// What one packet's descriptor says, its template filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// A frame begins in this packet.
    pub start_of_frame: bool,
    /// A frame ends in this packet.
    pub end_of_frame: bool,
    /// The frame's number, in the order of decoding.
    pub frame_number: u16,
    /// The frame's spatial layer.
    pub spatial_layer: u8,
    /// The frame's temporal layer.
    pub temporal_layer: u8,
    /// The packet brings a structure: its frame is a key frame.
    pub has_structure: bool,
    /// The decode targets that are produced from this frame on, a bit for each, where the packet says so.
    pub active_decode_targets: Option<u32>,
    /// Width and height of the frame's spatial layer, in pixels, where the structure tells them.
    pub resolution: Option<(u32, u32)>,
    indications: Indications,
    frame_diffs: List<u16, REFERENCES_MAX>,
    chain_diffs: List<u8, DECODE_TARGETS_MAX>,
    bits: BitRanges,
}

/// Where in a descriptor the mask of active decode targets stands, and where all ends, in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BitRanges {
    mask_start: usize,
    mask_end: usize,
    end: usize,
}

impl Descriptor {
    /// What the frame is to the decode target `target`; not present to one that there is not.
    #[must_use]
    pub fn indication(&self, target: usize) -> Indication {
        self.indications.get(target)
    }

    /// How far before this frame those are that it refers to, in frame numbers.
    #[must_use]
    pub fn frame_diffs(&self) -> &[u16] {
        self.frame_diffs.as_slice()
    }

    /// How far before this frame the last one of each chain is, in frame numbers: zero where there is none yet.
    #[must_use]
    pub fn chain_diffs(&self) -> &[u8] {
        self.chain_diffs.as_slice()
    }

    /// Writes the descriptor `bytes`, from which this was read, with `active` as its mask of active decode targets, and
    /// returns its length: up to five bytes more. So a receiver learns that Layers it knows of do not come.
    ///
    /// # Errors
    ///
    /// [`BufferTooSmall`].
    pub fn write_with_active_decode_targets(
        &self,
        bytes: &[u8],
        active: u32,
        buffer: &mut [u8],
    ) -> Result<usize, BufferTooSmall> {
        let mut from = BitReader::new(bytes);
        let mut to = BitWriter::new(buffer);
        // What was parsed once has all these bits.
        let copy = |from: &mut BitReader<'_>, to: &mut BitWriter<'_>, until: usize| {
            while from.position() < until {
                let count = (until - from.position()).min(32);
                to.write(from.read(count).unwrap_or_default(), count)?;
            }
            Ok(())
        };

        copy(&mut from, &mut to, MANDATORY_BITS)?;
        let flags = if self.bits.mask_start > MANDATORY_BITS {
            from.read(FLAG_BITS).unwrap_or_default()
        } else {
            0 // There were none.
        };
        to.write(flags | FLAG_ACTIVE, FLAG_BITS)?;
        copy(&mut from, &mut to, self.bits.mask_start)?;
        let targets = self.indications.len();
        to.write(active & low_mask(targets), targets)?;
        from.skip(self.bits.mask_end - self.bits.mask_start);
        copy(&mut from, &mut to, self.bits.end)?;
        Ok(to.finish())
    }
}

/// There is a structure (§A.8.2); the flags that follow stand below.
const FLAG_STRUCTURE: u32 = 1 << 4;
/// There is a mask of active decode targets.
const FLAG_ACTIVE: u32 = 1 << 3;
/// There are indications in place of the template's.
const FLAG_CUSTOM_INDICATIONS: u32 = 1 << 2;
/// There are frame diffs in place of the template's.
const FLAG_CUSTOM_FRAME_DIFFS: u32 = 1 << 1;
/// There are chain diffs in place of the template's.
const FLAG_CUSTOM_CHAIN_DIFFS: u32 = 1;

/// Whether the descriptor `bytes` brings a structure, and so belongs to a key frame. Needs no [`Reader`].
#[must_use]
pub fn has_structure(bytes: &[u8]) -> bool {
    bytes
        .get(MANDATORY_BITS / 8)
        .is_some_and(|flags| flags & 0x80 != 0)
}

/// Reads the descriptors of one source in the order they come: keeps the structure of the last key frame.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    structure: Option<Structure>,
}

impl Reader {
    /// A reader that has no structure yet.
    #[must_use]
    pub const fn new() -> Reader {
        Reader { structure: None }
    }

    /// The structure of the last key frame.
    #[must_use]
    pub fn structure(&self) -> Option<&Structure> {
        self.structure.as_ref()
    }

    /// Reads the value of the extension, and keeps the structure it brings. A descriptor that can't be read changes
    /// nothing. Only one that brings a structure allocates.
    ///
    /// # Errors
    ///
    /// [`DecodeError::NoStructure`] before the first key frame, and whatever else is wrong. Source: §A.8.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Descriptor, DecodeError> {
        let mut reader = BitReader::new(bytes);
        let start_of_frame = reader.flag()?;
        let end_of_frame = reader.flag()?;
        let template_id = low_u8(u64::from(reader.read(6)?));
        let frame_number = low_u16(u64::from(reader.read(16)?));
        let flags = if bytes.len() * 8 > MANDATORY_BITS {
            reader.read(FLAG_BITS)?
        } else {
            0
        };
        let has = |flag| flags & flag != 0;

        let new = if has(FLAG_STRUCTURE) {
            Some(Structure::read(&mut reader)?)
        } else {
            None
        };
        let structure = new.as_ref().or(self.structure.as_ref());
        let structure = structure.ok_or(DecodeError::NoStructure)?;
        let targets = structure.decode_targets();

        let mask_start = reader.position();
        let active_decode_targets = if has(FLAG_ACTIVE) {
            Some(reader.read(targets)?)
        } else {
            new.as_ref().map(|_| low_mask(targets))
        };
        let mask_end = reader.position();

        let template = structure.template(template_id)?;
        let mut descriptor = Descriptor {
            start_of_frame,
            end_of_frame,
            frame_number,
            spatial_layer: template.spatial_layer,
            temporal_layer: template.temporal_layer,
            has_structure: new.is_some(),
            active_decode_targets,
            resolution: structure.resolution(template.spatial_layer),
            indications: template.indications,
            frame_diffs: template.frame_diffs,
            chain_diffs: template.chain_diffs,
            bits: BitRanges {
                mask_start,
                mask_end,
                end: 0,
            },
        };
        if has(FLAG_CUSTOM_INDICATIONS) {
            descriptor.indications = Indications::read(&mut reader, targets)?;
        }
        if has(FLAG_CUSTOM_FRAME_DIFFS) {
            descriptor.frame_diffs = custom_frame_diffs(&mut reader)?;
        }
        if has(FLAG_CUSTOM_CHAIN_DIFFS) {
            let mut diffs = List::default();
            for _ in 0..structure.chains() {
                diffs.push(low_u8(u64::from(reader.read(8)?)), "chains")?;
            }
            descriptor.chain_diffs = diffs;
        }
        descriptor.bits.end = reader.position();
        if new.is_some() {
            self.structure = new;
        }
        Ok(descriptor)
    }
}

/// Reads diffs of 4, 8 or 12 bits, until a size of zero (§A.8.2, `frame_fdiffs`).
fn custom_frame_diffs(
    reader: &mut BitReader<'_>,
) -> Result<List<u16, REFERENCES_MAX>, DecodeError> {
    let mut diffs = List::default();
    loop {
        let size = match reader.read(2)? {
            0 => return Ok(diffs),
            1 => 4,
            2 => 8,
            _ => 12,
        };
        let diff = low_u16(u64::from(reader.read(size)?));
        diffs.push(diff + 1, "references")?;
    }
}

/// The lowest `count` bits, up to 32.
fn low_mask(count: usize) -> u32 {
    match count {
        0..=31 => (1 << count) - 1,
        _ => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bytes::tests::hex;

    /// A key frame of AV1 as Chrome sends it: three spatial and three temporal layers.
    const KEY_FRAME: &str = "c1017280081485214eafffaaaa863cf0430c10c302afc0aaa0063c00430010c002a000a80006000040001d9549
        26e082b04a0941b820ac1282503157f974000ca864330e222222eca8655304224230eca877530077004200ef008601df010d";

    #[test]
    fn a_key_frame_brings_a_structure() {
        let mut reader = Reader::new();
        let bytes = hex(KEY_FRAME);
        let descriptor = reader.read(&bytes).unwrap();

        assert!(has_structure(&bytes));
        assert!(descriptor.start_of_frame && descriptor.end_of_frame && descriptor.has_structure);
        assert_eq!(descriptor.frame_number, 0x172);
        assert_eq!(
            (descriptor.spatial_layer, descriptor.temporal_layer),
            (0, 0)
        );
        assert_eq!(descriptor.resolution, Some((120, 67)));
        assert_eq!(descriptor.active_decode_targets, Some(0x1ff));
        assert_eq!(descriptor.frame_diffs(), []);
        assert_eq!(descriptor.chain_diffs(), [0, 0, 0]);
        assert_eq!(descriptor.indication(0), Indication::Switch);
        assert_eq!(descriptor.indication(9), Indication::NotPresent);

        let structure = reader.structure().unwrap();
        assert_eq!(
            (structure.spatial_layers(), structure.temporal_layers()),
            (3, 3)
        );
        assert_eq!((structure.decode_targets(), structure.chains()), (9, 3));
        let layers: Vec<_> = (0..9)
            .filter_map(|target| structure.layers(target))
            .collect();
        assert_eq!(
            layers,
            [
                (0, 0),
                (0, 1),
                (0, 2),
                (1, 0),
                (1, 1),
                (1, 2),
                (2, 0),
                (2, 1),
                (2, 2)
            ]
        );
        let chains: Vec<_> = (0..9)
            .filter_map(|target| structure.protected_by(target))
            .collect();
        assert_eq!(chains, [0, 0, 0, 1, 1, 1, 2, 2, 2]);
        assert_eq!(structure.resolution(2), Some((480, 270)));
        assert_eq!(structure.decode_target(1, 2), Some(5));
        assert_eq!(structure.decode_target(3, 0), None);
        assert_eq!(structure.layers(9), None);
        assert_eq!(structure.protected_by(9), None);
    }

    #[test]
    fn frames_behind_a_key_frame_refer_to_its_templates() {
        let mut reader = Reader::new();
        assert_eq!(reader.read(&hex("860173")), Err(DecodeError::NoStructure));
        reader.read(&hex(KEY_FRAME)).unwrap();

        let mut check = |bytes: &str, start, end, number, layers, active| {
            let descriptor = reader.read(&hex(bytes)).unwrap();
            assert_eq!(
                (descriptor.start_of_frame, descriptor.end_of_frame),
                (start, end),
                "{bytes}"
            );
            assert_eq!(descriptor.frame_number, number);
            assert_eq!(
                (descriptor.spatial_layer, descriptor.temporal_layer),
                layers,
                "{bytes}"
            );
            assert_eq!(descriptor.active_decode_targets, active);
            assert!(!descriptor.has_structure);
        };
        check("86017340fc", true, false, 0x173, (1, 0), Some(0x3f));
        check("46017340fc", false, true, 0x173, (1, 0), Some(0x3f));
        check("c3017540fc", true, true, 0x175, (0, 2), Some(0x3f));
        check("88017640fc", true, false, 0x176, (1, 2), Some(0x3f));
        check("c2017840fc", true, true, 0x178, (0, 1), Some(0x3f));
        check("860173", true, false, 0x173, (1, 0), None);
        check("8b0174", true, false, 0x174, (2, 0), None);
        check("0b0174", false, false, 0x174, (2, 0), None);
    }

    /// One spatial and two temporal layers, two decode targets, one chain; `rest` follows the structure.
    fn two_layers(flags: u32, rest: &[(u32, usize)]) -> Vec<u8> {
        let head = [
            (1, 1),
            (1, 1),
            (5, 6),
            (0x1234, 16),
            (0b10000 | flags, FLAG_BITS),
        ];
        let structure = [
            (5, 6),         // the first template is 5
            (1, 5),         // two decode targets
            (0, 2),         // another template of the same layers
            (1, 2),         // one of the next temporal layer
            (3, 2),         // no more templates
            (0b1010, 4),    // both begin here
            (0b1110, 4),    // required, switch
            (0b0001, 4),    // not present, discardable
            (0, 1),         // refers to nothing
            (0b10_0010, 6), // two frames before
            (0b10_0000, 6), // one frame before
            (0b10, 2),      // one chain of at most two
            // Of one chain its number takes no bits.
            (0, 4),
            (2, 4),
            (1, 4),
            (0, 1), // no resolutions
        ];
        let mut buffer = [0; 64];
        let mut writer = BitWriter::new(&mut buffer);
        for (value, count) in head.iter().chain(&structure).chain(rest) {
            writer.write(*value, *count).unwrap();
        }
        let len = writer.finish();
        buffer[..len].to_vec()
    }

    #[test]
    fn what_differs_from_the_template_is_told() {
        let mut reader = Reader::new();
        let plain = reader.read(&two_layers(0, &[])).unwrap();
        let structure = reader.structure().unwrap().clone();
        assert_eq!(structure.temporal_layers(), 2);
        assert_eq!(
            [structure.layers(0), structure.layers(1)],
            [Some((0, 0)), Some((0, 1))]
        );
        assert_eq!(structure.protected_by(1), Some(0));
        assert_eq!(plain.resolution, None);
        assert_eq!(plain.active_decode_targets, Some(3));
        assert_eq!(plain.indication(1), Indication::Switch);

        let custom = [
            (0b01, 2),   // active: the first
            (0b0011, 4), // not present, required
            (1, 2),
            (3, 4),
            (2, 2),
            (99, 8),
            (3, 2),
            (999, 12),
            (0, 2),
            (200, 8),
        ];
        let descriptor = reader.read(&two_layers(0b1111, &custom)).unwrap();
        assert_eq!(descriptor.active_decode_targets, Some(1));
        assert_eq!(descriptor.indication(0), Indication::NotPresent);
        assert_eq!(descriptor.indication(1), Indication::Required);
        assert_eq!(descriptor.frame_diffs(), [4, 100, 1000]);
        assert_eq!(descriptor.chain_diffs(), [200]);

        let second = reader.read(&[0x87, 0, 7]).unwrap();
        assert_eq!((second.temporal_layer, second.frame_number), (1, 7));
        assert_eq!(second.indication(1), Indication::Discardable);
        assert_eq!(
            (second.frame_diffs(), second.chain_diffs()),
            (&[1][..], &[1][..])
        );
        let wrong = DecodeError::WrongValue {
            field: "frame_dependency_template_id",
            got: 8,
        };
        assert_eq!(reader.read(&[0x88, 0, 7]), Err(wrong));
        assert_eq!(
            reader.read(&[0x84, 0, 7]),
            Err(DecodeError::WrongValue {
                field: "frame_dependency_template_id",
                got: 4,
            })
        );
    }

    #[test]
    fn what_can_not_be_read_changes_nothing() {
        let mut reader = Reader::new();
        let first = two_layers(0, &[]);
        reader.read(&first).unwrap();
        let before = reader.structure().cloned();

        let whole = hex(KEY_FRAME);
        for got in 0..whole.len() {
            let result = reader.read(&whole[..got]);
            if got == 3 {
                // The mandatory fields alone: a template that the structure does not have.
                assert!(matches!(
                    result,
                    Err(DecodeError::WrongValue { got: 1, .. })
                ));
            } else {
                assert!(
                    matches!(result, Err(DecodeError::Truncated { .. })),
                    "{got}: {result:?}"
                );
            }
            assert_eq!(reader.structure(), before.as_ref());
        }

        // Ten references, sixty-five templates, five spatial layers, nine temporal layers.
        let too_many = |bits: &[(u32, usize)], repeated: (u32, usize, usize)| {
            let mut buffer = [0; 64];
            let mut writer = BitWriter::new(&mut buffer);
            for (value, count) in [(0b1100_0000, 8), (0, 16), (0b10000, 5), (0, 6), (0, 5)]
                .iter()
                .chain(bits)
            {
                writer.write(*value, *count).unwrap();
            }
            for _ in 0..repeated.2 {
                writer.write(repeated.0, repeated.1).unwrap();
            }
            let len = writer.finish();
            Reader::new().read(&buffer[..len]).err()
        };
        let error = |what, max| Some(DecodeError::TooMany { what, max });
        assert_eq!(
            too_many(&[(3, 2), (0, 2)], (0b1_0000, 5, 9)),
            error("references", 8)
        );
        assert_eq!(too_many(&[], (0, 2, 70)), error("templates", 64));
        assert_eq!(too_many(&[], (2, 2, 4)), error("spatial layers", 4));
        assert_eq!(too_many(&[], (1, 2, 8)), error("temporal layers", 8));
    }

    #[test]
    fn the_mask_is_put_into_what_has_none() {
        let mut reader = Reader::new();
        reader.read(&hex(KEY_FRAME)).unwrap();
        let mut check = |bytes: &str, active, expected: &str| {
            let bytes = hex(bytes);
            let descriptor = reader.read(&bytes).unwrap();
            let mut buffer = [0xff; 64];
            let len = descriptor
                .write_with_active_decode_targets(&bytes, active, &mut buffer)
                .unwrap();
            assert_eq!(buffer[..len], hex(expected));
            let short =
                descriptor.write_with_active_decode_targets(&bytes, active, &mut buffer[..len - 1]);
            assert_eq!(
                short,
                Err(BufferTooSmall {
                    needed: len,
                    got: len - 1
                })
            );
        };

        check("860173", 0x3f, "86017340fc");
        check("860173", u32::MAX, "86017347fc");
        check("86017340fc", 0x1ff, "86017347fc");
        check("86017340fc", 0, "8601734000");
    }

    proptest! {
        /// With another mask a descriptor says the same in all else, whatever else it says.
        #[test]
        fn a_mask_changes_nothing_else(flags in 0u32..16, active: u32, again: u32) {
            let fields: [(u32, &[(u32, usize)]); 4] = [
                (FLAG_ACTIVE, &[(0b10, 2)]),
                (FLAG_CUSTOM_INDICATIONS, &[(0b0111, 4)]),
                (FLAG_CUSTOM_FRAME_DIFFS, &[(2, 2), (99, 8), (0, 2)]),
                (FLAG_CUSTOM_CHAIN_DIFFS, &[(77, 8)]),
            ];
            let fields = fields.iter().filter(|(flag, _)| flags & flag != 0);
            let rest: Vec<_> = fields.flat_map(|(_, bits)| bits.iter().copied()).collect();
            let mut bytes = two_layers(flags, &rest);
            let mut reader = Reader::new();
            let original = reader.read(&bytes).unwrap();
            let structure = reader.structure().cloned();

            for active in [active, again] {
                let descriptor = reader.read(&bytes).unwrap();
                let mut buffer = [0xff; 64];
                let len = descriptor.write_with_active_decode_targets(&bytes, active, &mut buffer).unwrap();
                prop_assert!(len <= bytes.len() + 5);
                bytes = buffer[..len].to_vec();
                let read = reader.read(&bytes).unwrap();
                prop_assert_eq!(read.active_decode_targets, Some(active & 3));
                let same = Descriptor {
                    active_decode_targets: original.active_decode_targets,
                    bits: original.bits,
                    ..read
                };
                prop_assert_eq!(same, original);
                prop_assert_eq!(reader.structure(), structure.as_ref());
            }
        }

        /// No bytes make a reader panic, nor what is written of them differ.
        #[test]
        fn any_bytes_are_read(descriptors in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..20)) {
            let mut reader = Reader::new();
            reader.read(&hex(KEY_FRAME)).unwrap();
            for bytes in descriptors {
                if let Ok(descriptor) = reader.read(&bytes) {
                    let mut buffer = [0; 90];
                    let len = descriptor.write_with_active_decode_targets(&bytes, u32::MAX, &mut buffer).unwrap();
                    prop_assert!(reader.read(&buffer[..len]).is_ok());
                }
            }
        }
    }
}
