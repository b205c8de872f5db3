//! What a video packet says about the picture it belongs to, read once per packet from its payload descriptor or its dependency
//! descriptor, and which of it a subscriber gets.
//!
//! Only what travels outside the picture itself is read, so all this works on end-to-end encrypted payloads too, where those
//! bytes are left clear.

use sfu_rtp::dependency_descriptor::{self, Indication};
use sfu_rtp::payload::{PictureId, av1, h264, vp8, vp9};

use crate::track::Codec;

/// The most spatial layers of one encoding.
pub const SPATIAL_LAYERS_MAX: usize = 4;

/// The most temporal layers of one encoding.
pub const TEMPORAL_LAYERS_MAX: usize = 4;

/// The best of one encoding that is wanted: all spatial and temporal layers up to these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Detail {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
}

impl Detail {
    /// The least there is.
    pub(crate) const BASE: Self = Self {
        spatial: 0,
        temporal: 0,
    };
}

/// What a packet says about its picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Picture {
    /// The packet is the first of a picture that can be decoded without any before it.
    pub(crate) starts_key_frame: bool,
    /// The packet is the first of a frame (of a picture, where there are no spatial layers).
    pub(crate) starts_frame: bool,
    /// The packet is the last of a frame.
    pub(crate) ends_frame: bool,
    /// From this frame on the temporal layers up to this one can be decoded though they were dropped before.
    pub(crate) switches_up_to: Option<u8>,
    /// The frame refers to no earlier picture.
    pub(crate) is_independent: bool,
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    pub(crate) id: Option<PictureId>,
    /// Receivers take a gap in the ids for a loss, so the id of a dropped picture goes to the next one. In VP9 ids are referred to
    /// (RFC 9628 §4.2: P_DIFF, and the picture group), so there a dropped picture keeps its own.
    pub(crate) has_dense_ids: bool,
    pub(crate) tl0_picture_index: Option<u8>,
    /// Of the dependency descriptor.
    pub(crate) frame_number: Option<u16>,
    /// Spatial layers above the frame's own that do without it, one bit each: those who get one of them need not get the frame. In K-SVC
    /// that is so of all but key frames.
    pub(crate) unneeded_by: u8,
}

impl Picture {
    /// Whether the picture is part of `detail`, of which there is no more than `top`.
    #[inline]
    pub(crate) fn is_within(&self, detail: Detail, top: Detail) -> bool {
        self.spatial <= detail.spatial
            && self.temporal <= detail.temporal
            && !self.is_unneeded_by(detail.spatial.min(top.spatial))
    }

    /// Whether those who get this spatial layer do without the picture, which is of a lower one.
    #[inline]
    pub(crate) fn is_unneeded_by(&self, spatial: u8) -> bool {
        self.unneeded_by
            .checked_shr(u32::from(spatial))
            .unwrap_or(0)
            & 1
            != 0
    }
}

/// How many pictures later than `before` a picture is; `None` for an earlier one.
pub(crate) fn steps(id: PictureId, before: u16) -> Option<u16> {
    let (mask, half) = if id.long {
        (0x7fff, 0x4000)
    } else {
        (0x7f, 0x40)
    };
    let steps = id.value.wrapping_sub(before) & mask;

    (steps < half).then_some(steps)
}

/// Reads what a video packet says of its picture; `None` if its payload descriptor is malformed. Of encrypted payloads nothing
/// behind the descriptor is read, and of VP8 the first byte, which is left clear.
///
/// VP8 tells all there is to know by itself. Of other codecs the dependency descriptor, `bytes` of which `dependencies` was read,
/// tells more than the payload.
pub(crate) fn read(
    codec: Codec,
    payload: &[u8],
    encrypted: bool,
    bytes: Option<&[u8]>,
    dependencies: &mut dependency_descriptor::Reader,
) -> Option<Picture> {
    let mut picture = match codec {
        Codec::Vp8 => read_vp8(payload)?,
        Codec::Vp9 => read_vp9(payload)?,
        // That it is a key frame is all that the payload tells.
        Codec::H264 if !encrypted => Picture {
            starts_key_frame: h264::is_key_frame(payload),
            ..Picture::default()
        },
        Codec::Av1 if !encrypted => Picture {
            starts_key_frame: av1::AggregationHeader::parse(payload)?.new_sequence,
            ..Picture::default()
        },
        Codec::H264 | Codec::Av1 | Codec::Opus | Codec::Other => Picture::default(),
    };

    if let Some(bytes) = bytes {
        picture.frame_number = frame_number(bytes);
        if codec != Codec::Vp8
            && let Ok(descriptor) = dependencies.read(bytes)
        {
            read_dependencies(&mut picture, &descriptor, dependencies.structure()?);
        }
    }
    Some(picture)
}

/// The frame number of a dependency descriptor: it stands in its mandatory fields (the AV1 RTP specification, §A.8.2).
pub(crate) fn frame_number(descriptor: &[u8]) -> Option<u16> {
    descriptor
        .get(1..3)?
        .first_chunk()
        .map(|bytes| u16::from_be_bytes(*bytes))
}

/// Width and height by spatial layer.
pub(crate) type Sizes = [Option<(u16, u16)>; SPATIAL_LAYERS_MAX];

/// Width and height of each spatial layer, as far as the first packet of a key frame tells.
pub(crate) fn sizes(
    codec: Codec,
    payload: &[u8],
    dependencies: &dependency_descriptor::Reader,
) -> Sizes {
    let by_structure = |spatial: usize| {
        let (width, height) = dependencies
            .structure()?
            .resolution(u8::try_from(spatial).ok()?)?;
        Some((u16::try_from(width).ok()?, u16::try_from(height).ok()?))
    };

    match codec {
        Codec::Vp8 => [vp8::dimensions(payload), None, None, None],
        Codec::Vp9 => {
            let structure = vp9::Descriptor::parse(payload)
                .ok()
                .and_then(|descriptor| descriptor.structure);
            std::array::from_fn(|spatial| match &structure {
                Some(structure) => {
                    Some(structure.resolutions[spatial]).filter(|(width, _)| *width > 0)
                }
                None => by_structure(spatial),
            })
        }
        _ => std::array::from_fn(by_structure),
    }
}

fn read_vp8(payload: &[u8]) -> Option<Picture> {
    let descriptor = vp8::Descriptor::parse(payload).ok()?;
    let temporal = descriptor.temporal_layer.unwrap_or(0);

    Some(Picture {
        starts_key_frame: descriptor.is_key_frame,
        starts_frame: descriptor.is_start_of_picture(),
        switches_up_to: descriptor.layer_sync.then_some(temporal),
        temporal,
        id: descriptor.picture_id,
        has_dense_ids: true,
        tl0_picture_index: descriptor.tl0_picture_index,
        ..Picture::default()
    })
}

fn read_vp9(payload: &[u8]) -> Option<Picture> {
    let descriptor = vp9::Descriptor::parse(payload).ok()?;
    let layer = descriptor.layer;

    Some(Picture {
        starts_key_frame: descriptor.is_key_frame(),
        starts_frame: descriptor.start_of_frame,
        ends_frame: descriptor.end_of_frame,
        switches_up_to: layer
            .filter(|layer| layer.switching_up)
            .map(|layer| layer.temporal),
        is_independent: !descriptor.inter_picture_predicted,
        spatial: layer.map_or(0, |layer| layer.spatial),
        temporal: layer.map_or(0, |layer| layer.temporal),
        id: descriptor.picture_id,
        tl0_picture_index: descriptor.tl0_picture_index,
        unneeded_by: layer
            .filter(|_| descriptor.not_reference_for_upper)
            .map_or(0, |layer| above(layer.spatial)),
        ..Picture::default()
    })
}

/// The spatial layers above one, one bit each.
fn above(spatial: u8) -> u8 {
    u8::MAX.checked_shl(u32::from(spatial) + 1).unwrap_or(0)
}

fn read_dependencies(
    picture: &mut Picture,
    descriptor: &dependency_descriptor::Descriptor,
    structure: &dependency_descriptor::Structure,
) {
    let spatial = descriptor.spatial_layer;
    // A frame of the lowest temporal layer is decoded by everybody, so whom it lets begin may begin.
    let lets_begin = |temporal: &u8| {
        let target = structure.decode_target(spatial, *temporal);
        target.is_some_and(|target| descriptor.indication(target) == Indication::Switch)
    };

    picture.starts_key_frame =
        descriptor.has_structure && descriptor.start_of_frame && spatial == 0;
    picture.starts_frame = descriptor.start_of_frame;
    picture.ends_frame = descriptor.end_of_frame;
    picture.switches_up_to = if descriptor.temporal_layer == 0 {
        (0..structure.temporal_layers()).rev().find(lets_begin)
    } else {
        None
    };
    picture.is_independent = false;
    // A frame no decode target of a spatial layer needs, whatever the temporal one, is of no use to those who get it.
    picture.unneeded_by = (spatial + 1..structure.spatial_layers())
        .filter(|upper| {
            (0..structure.temporal_layers())
                .filter_map(|temporal| structure.decode_target(*upper, temporal))
                .all(|target| descriptor.indication(target) == Indication::NotPresent)
        })
        .fold(0, |bits, upper| {
            bits | 1_u8.checked_shl(u32::from(upper)).unwrap_or(0)
        });
    (picture.spatial, picture.temporal) = (spatial, descriptor.temporal_layer);
}
