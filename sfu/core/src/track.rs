//! What a Participant publishes: a Track, its encodings (RTP streams: one, or one for each Layer of simulcast), and what is kept
//! of each.

use std::time::{Duration, Instant};

use crate::beginning::Beginning;
use crate::cache::PacketCache;
use crate::clock::Anchor;
use crate::key_frames::KeyFrames;
use crate::keys::{ParticipantKey, SlotKey};
use crate::missing::Missing;
use crate::picture::{Detail, Sizes};
use crate::rates::Rates;
use crate::receiver::Receiver;
use model::room::Source;
use sfu_rtp::dependency_descriptor;

/// The most encodings of a Track: the Layers of simulcast.
pub const ENCODINGS_MAX: usize = 4;

/// The most formats of a Track or a slot.
pub const FORMATS_MAX: usize = 16;

/// An encoding of which nothing came for this long is not being sent. A screen that doesn't change is sent rarely.
pub(crate) const fn idle_max(source: Source) -> Duration {
    match source {
        Source::Screen => Duration::from_secs(6),
        Source::Camera => Duration::from_millis(1500),
        Source::Microphone | Source::ScreenAudio => Duration::from_secs(3),
    }
}

/// What a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// Opus (RFC 7587).
    Opus,
    /// VP8 (RFC 7741).
    Vp8,
    /// VP9 (RFC 9628).
    Vp9,
    /// H.264 (RFC 6184).
    H264,
    /// AV1 (the RTP payload format of AOMedia).
    Av1,
    /// Any other codec; its payload is passed on as it is, and video of it can only be switched where a dependency descriptor tells of
    /// key frames.
    Other,
}

/// A codec as one side negotiated it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// The codec.
    pub codec: Codec,
    /// Tells apart what a receiver of one can't decode of the other (profiles of H.264, say): equal numbers are compatible.
    pub variant: u8,
    /// The payload type.
    pub payload_type: u8,
    /// That of resends (RFC 4588), where negotiated.
    pub rtx: Option<u8>,
    /// That of redundant audio (RFC 2198), where negotiated.
    pub red: Option<u8>,
    /// Timestamps per second.
    pub clock_rate: u32,
}

/// One RTP stream of a Track, as negotiated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodingConfig {
    /// Its name (RFC 8851), in simulcast.
    pub rid: Option<String>,
    /// Its SSRC where the offer tells; otherwise the first packet with the right mid and rid does.
    pub ssrc: Option<u32>,
    /// The SSRC of its resends, likewise.
    pub rtx_ssrc: Option<u32>,
}

/// A Track, as negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackConfig {
    /// Where it comes from.
    pub source: Source,
    /// Its media description (RFC 5888), which names it in packets of unknown SSRCs.
    pub mid: Option<String>,
    /// The formats it may come in, at most [`FORMATS_MAX`].
    pub formats: Vec<Format>,
    /// Its streams, the smallest first: 1 to [`ENCODINGS_MAX`].
    pub encodings: Vec<EncodingConfig>,
    /// Whether the publisher answers NACKs.
    pub nack: bool,
    /// Whether payloads are end-to-end encrypted: nothing behind a payload's descriptor is looked at.
    pub encrypted: bool,
}

/// One quality of a video Track: an encoding, and of that all spatial and temporal layers up to these. Higher numbers than there
/// are mean all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer {
    /// The encoding, as in [`TrackConfig::encodings`].
    pub encoding: u8,
    /// The highest spatial layer (SVC); 0 is the only one in simulcast.
    pub spatial: u8,
    /// The highest temporal layer.
    pub temporal: u8,
}

impl Layer {
    pub(crate) const fn detail(self) -> Detail {
        Detail {
            spatial: self.spatial,
            temporal: self.temporal,
        }
    }
}

/// What is known of a Layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerInfo {
    /// The Layer.
    pub layer: Layer,
    /// What it and all it needs cost, in bit/s of RTP payloads, measured over the last second or so.
    pub bitrate: u64,
    /// The picture's width and height in pixels, once a key frame told.
    pub size: Option<(u16, u16)>,
    /// Whether its encoding is being sent.
    pub state: LayerState,
}

/// Whether an encoding is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerState {
    /// It is.
    Sent,
    /// It isn't because nobody wanted it; it will be when somebody does.
    Paused,
    /// It isn't, by its publisher's will or for lack of bandwidth.
    Stopped,
}

/// A Track in a Room.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) participant: ParticipantKey,
    pub(crate) source: Source,
    pub(crate) mid: Option<String>,
    pub(crate) formats: Vec<Format>,
    pub(crate) nack: bool,
    pub(crate) encrypted: bool,
    pub(crate) encodings: Vec<Encoding>,
    pub(crate) slots: Vec<SlotKey>,
    pub(crate) muted: bool,
    /// Which encodings the publisher was told to send, one bit each.
    pub(crate) told: u8,
    /// Since when fewer than that are wanted.
    pub(crate) fewer_since: Option<Instant>,
}

impl Track {
    pub(crate) fn new(participant: ParticipantKey, config: TrackConfig) -> Self {
        Self {
            participant,
            source: config.source,
            mid: config.mid,
            formats: config.formats,
            nack: config.nack,
            encrypted: config.encrypted,
            told: all_of(config.encodings.len()),
            encodings: config.encodings.into_iter().map(Encoding::new).collect(),
            slots: Vec::new(),
            muted: false,
            fewer_since: None,
        }
    }

    pub(crate) fn is_audio(&self) -> bool {
        self.source.is_audio()
    }

    /// Where in its cache the key frame of an encoding lies that somebody who comes now begins with. An encrypted one they may have no key
    /// for yet.
    pub(crate) fn beginning(&self, now: Instant, encoding: u8) -> Option<u32> {
        if self.encrypted || self.muted || self.is_audio() {
            return None;
        }
        let encoding = self.encodings.get(usize::from(encoding))?;
        let position = encoding.beginning.position(now)?;

        encoding.cache.get(position).map(|_| position)
    }

    /// The format and its use of a payload type.
    pub(crate) fn format(&self, payload_type: u8) -> Option<(&Format, PayloadKind)> {
        self.formats.iter().find_map(|format| {
            let kind = if format.payload_type == payload_type {
                PayloadKind::Media
            } else if format.red == Some(payload_type) {
                PayloadKind::Red
            } else if format.rtx == Some(payload_type) {
                PayloadKind::Rtx
            } else {
                return None;
            };

            Some((format, kind))
        })
    }

    /// The highest layers that are known of an encoding.
    pub(crate) fn top(&self, encoding: u8) -> Detail {
        self.encodings
            .get(usize::from(encoding))
            .map_or(Detail::BASE, |encoding| encoding.rates.top())
    }

    /// The encoding named `rid`, or the only one.
    pub(crate) fn encoding_of(&self, rid: Option<&str>) -> Option<usize> {
        match rid {
            Some(rid) => self
                .encodings
                .iter()
                .position(|encoding| encoding.rid.as_deref() == Some(rid)),
            None => (self.encodings.len() == 1).then_some(0),
        }
    }
}

/// What a payload type stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadKind {
    Media,
    Red,
    Rtx,
}

/// One incoming stream of a Track, and what is kept of it.
#[derive(Debug)]
pub(crate) struct Encoding {
    pub(crate) rid: Option<String>,
    pub(crate) ssrc: Option<u32>,
    pub(crate) rtx_ssrc: Option<u32>,
    /// How often another SSRC took over.
    pub(crate) ssrc_changes: u32,
    pub(crate) receiver: Receiver,
    pub(crate) missing: Missing,
    /// Numbers to ask the publisher for in the next NACK.
    pub(crate) asked: Vec<u16>,
    pub(crate) cache: PacketCache,
    pub(crate) beginning: Beginning,
    pub(crate) key_frames: KeyFrames,
    pub(crate) rates: Rates,
    pub(crate) anchor: Option<Anchor>,
    pub(crate) dependencies: dependency_descriptor::Reader,
    pub(crate) sizes: Sizes,
    /// When something came last, and whether it counts as being sent.
    pub(crate) arrived_at: Option<Instant>,
    pub(crate) is_active: bool,
    /// The newest packet's.
    pub(crate) newest_timestamp: Option<u32>,
}

impl Encoding {
    fn new(config: EncodingConfig) -> Self {
        Self {
            rid: config.rid,
            ssrc: config.ssrc,
            rtx_ssrc: config.rtx_ssrc,
            ssrc_changes: 0,
            receiver: Receiver::default(),
            missing: Missing::default(),
            asked: Vec::new(),
            cache: PacketCache::default(),
            beginning: Beginning::default(),
            key_frames: KeyFrames::default(),
            rates: Rates::default(),
            anchor: None,
            dependencies: dependency_descriptor::Reader::new(),
            sizes: Sizes::default(),
            arrived_at: None,
            is_active: false,
            newest_timestamp: None,
        }
    }
}

/// The bits of `count` encodings.
pub(crate) const fn all_of(count: usize) -> u8 {
    if count >= 8 {
        u8::MAX
    } else {
        (1 << count) - 1
    }
}
