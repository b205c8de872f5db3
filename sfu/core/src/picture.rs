//! What a video packet says about the picture it belongs to, read once per packet from its payload descriptor or its dependency
//! descriptor, and which of it a subscriber gets.
//!
//! Only what travels outside the picture itself is read, so all this works on end-to-end encrypted payloads too, where those
//! bytes are left clear.

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
    /// From this frame on the temporal layers up to its own can be shown though they were dropped before.
    pub(crate) switches_up: bool,
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
}

impl Picture {
    /// Whether the picture is part of `detail`.
    #[inline]
    pub(crate) fn is_within(&self, detail: Detail) -> bool {
        self.spatial <= detail.spatial && self.temporal <= detail.temporal
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
pub(crate) fn read(codec: Codec, payload: &[u8], encrypted: bool) -> Option<Picture> {
    Some(match codec {
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
    })
}

/// The width and height that the first packet of a key frame tells.
pub(crate) fn size(codec: Codec, payload: &[u8]) -> Option<(u16, u16)> {
    let is_told = |size: &(u16, u16)| size.0 > 0 && size.1 > 0;

    match codec {
        Codec::Vp8 => vp8::dimensions(payload),
        Codec::Vp9 => {
            let structure = vp9::Descriptor::parse(payload).ok()?.structure?;
            structure.resolutions.into_iter().rfind(is_told)
        }
        _ => None,
    }
}

fn read_vp8(payload: &[u8]) -> Option<Picture> {
    let descriptor = vp8::Descriptor::parse(payload).ok()?;

    Some(Picture {
        starts_key_frame: descriptor.is_key_frame,
        starts_frame: descriptor.is_start_of_picture(),
        switches_up: descriptor.layer_sync,
        temporal: descriptor.temporal_layer.unwrap_or(0),
        id: descriptor.picture_id,
        has_dense_ids: true,
        tl0_picture_index: descriptor.tl0_picture_index,
        ..Picture::default()
    })
}

fn read_vp9(payload: &[u8]) -> Option<Picture> {
    let descriptor = vp9::Descriptor::parse(payload).ok()?;

    Some(Picture {
        starts_key_frame: descriptor.is_key_frame(),
        starts_frame: descriptor.start_of_frame,
        ends_frame: descriptor.end_of_frame,
        switches_up: descriptor.layer.is_some_and(|layer| layer.switching_up),
        is_independent: !descriptor.inter_picture_predicted,
        spatial: descriptor.layer.map_or(0, |layer| layer.spatial),
        temporal: descriptor.layer.map_or(0, |layer| layer.temporal),
        id: descriptor.picture_id,
        tl0_picture_index: descriptor.tl0_picture_index,
        ..Picture::default()
    })
}
