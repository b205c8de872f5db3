//! A packet on its way to one subscriber: what is to be written, not the bytes.

use crate::keys::{ParticipantKey, SlotKey, TrackKey};
use crate::pacer::Class;

/// A packet to be written for one subscriber by [`Room::write`](crate::Room::write), once.
///
/// Its numbers are settled; its payload lies in the cache of its encoding and is gone after a second or so. Whoever drops it
/// makes a loss, which the subscriber may ask for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    pub(crate) participant: ParticipantKey,
    pub(crate) slot: SlotKey,
    pub(crate) track: TrackKey,
    /// The SRTP index of the stream it leaves in.
    pub(crate) index: u64,
    pub(crate) timestamp: u32,
    pub(crate) payload: Payload,
    pub(crate) picture_id: u16,
    pub(crate) tl0_picture_index: u8,
    pub(crate) frame_number: u16,
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
    pub(crate) class: Class,
    pub(crate) wire_len: u16,
}

/// Where the payload comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    /// A packet of the Track.
    Cached { encoding: u8, position: u32 },
    /// The primary block alone of a RED packet of the Track.
    Primary { position: u32 },
    /// Nothing: a packet in place of one that is not wanted.
    Empty,
    /// A packet of the Track that was sent with this number, over RTX.
    Resent {
        encoding: u8,
        position: u32,
        sequence: u16,
    },
    /// An empty packet that was sent with this number, over RTX.
    ResentEmpty { sequence: u16 },
    /// So many bytes of padding, over RTX.
    Padding(u8),
}

impl Forward {
    /// Whom it is for.
    pub const fn participant(&self) -> ParticipantKey {
        self.participant
    }

    /// The slot it leaves in.
    pub const fn slot(&self) -> SlotKey {
        self.slot
    }

    /// The Track it is of.
    pub const fn track(&self) -> TrackKey {
        self.track
    }

    /// What it is to a pacer.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Whether it leaves under the slot's own SSRC, and not under that of resends.
    pub(crate) const fn is_original(&self) -> bool {
        match self.payload {
            Payload::Cached { .. } | Payload::Primary { .. } | Payload::Empty => true,
            Payload::Resent { .. } | Payload::ResentEmpty { .. } | Payload::Padding(_) => false,
        }
    }

    /// The length of the RTP packet in bytes, before SRTP adds its tag; a few bytes too long where a header extension is left out.
    pub const fn wire_len(&self) -> u16 {
        self.wire_len
    }
}
