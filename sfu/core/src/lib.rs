//! The SFU without sockets, tasks or clock: what of a Room's media reaches whom, and how much of it fits.
//!
//! ```text
//!  publisher                        Room                                   subscriber
//!            handle_rtp   ┌─────────────────────────────┐
//!  ─ RTP ──────────────▶  │ Track ─ Encoding ─ Receiver │
//!                         │            │    └ Missing   │ ─ poll_rtcp ─▶ NACK, PLI, RR
//!                         │       PacketCache           │
//!                         │            │ position       │
//!                         │          Slots ─ Rewriter   │ ─ Forward ─▶ Downlink ─ write ─▶ RTP
//!                         │              └ History      │ ─ poll_rtcp ─▶ SR
//!  ─ RTCP ─────────────▶  └─────────────────────────────┘
//!            handle_rtcp
//!
//!  feedback ──▶ Downlink (estimate, pacer) ── estimate ──▶ layers::Budget ──▶ layers::allocate ──▶ a Layer per Track
//! ```
//!
//! - [`Room`]: who publishes what, and what of it reaches whom. A packet is kept once, in the cache of its encoding; what goes out
//!   is a [`Forward`], a few numbers and the packet's place, so that fan-out and pacing move no bytes. [`Room::write`] makes the
//!   packet in the buffer it is sealed in. After warm-up no packet allocates.
//! - [`downlink`]: the way to one subscriber: bandwidth estimation, probing, pacing.
//! - [`layers`]: which Layer of each Track is forwarded within a budget.
//! - [`feedback`]: what publishers are told of their packets' arrival.
//! - [`speakers`]: who is heard and who leads, from audio levels.
//! - [`quality`]: how well a Participant is connected.

mod beginning;
mod bitrate;
mod cache;
mod clock;
pub mod downlink;
mod estimate;
pub mod feedback;
mod forward;
mod history;
mod key_frames;
mod keys;
pub mod layers;
mod missing;
mod pacer;
mod participant;
mod passed;
mod picture;
pub mod quality;
mod rates;
mod receiver;
mod rewrite;
mod room;
mod slot;
pub mod speakers;
mod stats;
#[cfg(test)]
mod test;
mod track;

pub use beginning::{BEGINNING_AGE_MAX, BEGINNING_BYTES_MAX, BEGINNING_PACKETS_MAX};
pub use bitrate::Bitrate;
pub use cache::{CACHE_BYTES_MAX, CACHE_PACKETS_MAX};
pub use estimate::{Acks, RATE_MIN, RATE_START, SILENT_RATE, UNGUIDED_RATE_MAX};
pub use forward::Forward;
pub use history::{HISTORY_MAX, RESEND_BURST_MAX, RESEND_SHARE, RESENDS_MAX};
pub use key_frames::KEY_FRAME_SPACING;
pub use keys::{ParticipantKey, SlotKey, TrackKey};
pub use missing::{MISSING_MAX, TRIES_MAX};
pub use pacer::{BURST, Class, QUEUE_MAX};
pub use participant::{NACKS_MAX, ParticipantConfig, SSRCS_MAX, SSRCS_OUT_MAX};
pub use picture::{SPATIAL_LAYERS_MAX, TEMPORAL_LAYERS_MAX};
pub use receiver::{DROPOUT_MAX, LATE_MAX};
pub use rewrite::{FREE_MAX, RUNS_MAX};
pub use room::{
    Arrived, FIRST_WORD, MID_LEN_MAX, Output, PARTICIPANTS_MAX, PAUSE_DELAY, REPORT_INTERVAL,
    Refusal, Room, SLOTS_MAX, SSRC_CHANGES_MAX, Stamps, TRACKS_MAX, VOICES_MAX, Written,
};
pub use slot::{REQUEST_SPACING, SlotConfig};
pub use stats::{Dropped, Stats};
pub use track::{
    Codec, ENCODINGS_MAX, EncodingConfig, FORMATS_MAX, Format, Layer, LayerInfo, LayerState,
    TrackConfig,
};

/// The longest packet that is written, in bytes: what a datagram of 1,500 bytes over IPv6 carries.
pub const PACKET_LEN_MAX: usize = 1_452;

/// The longest payload that is taken; a longer one could not be sent on with the header of another leg.
pub const PAYLOAD_LEN_MAX: usize = 1_360;
