//! Sound for phone calls: codecs, jitter, losses, silence, DTMF, mixing.
//!
//! ```text
//! RTP ─▶ jitter ─▶ g711, g722, opus ─▶ samples ─▶ mixer ─▶ samples ─▶ g711, g722, opus ─▶ RTP
//!          └ lost ─▶ concealment ──┘                                      dtmf ──────────┘
//!          └ silent ─▶ comfort_noise
//! files ─▶ player ─▶ samples ─▶ a Leg;  a Leg ─▶ samples ─▶ recorder ─▶ files
//! ```
//!
//! [`leg::Leg`] is all of it put together: one side of a phone call, between its packets and the rings of a Room ([`model::plain`]).
//!
//! Samples are 16 bits, mono, at 8,000, 16,000 or 48,000 a second, so that a call between a phone and a browser needs no resampler: Opus codes at
//! all of them. Nothing here has a clock, a socket or a lock, and after the first packets nothing allocates. What a phone sends
//! can't make any of it panic.

use std::time::Duration;

use gateway_sip::sdes::Suite;
use sfu_rtp::srtp::Profile;

pub mod clock;
pub mod codec;
pub mod comfort_noise;
pub mod concealment;
mod decimation;
pub mod dtmf;
mod fifo;
pub mod files;
pub mod g711;
pub mod g722;
pub mod jitter;
pub mod latch;
pub mod leg;
mod line;
pub mod mixer;
pub mod opus;
mod passage;
pub mod player;
pub mod quality;
mod receiving;
mod reception;
pub mod recorder;
mod resample;
mod sending;
pub mod signs;
mod sounds;
#[cfg(test)]
mod tone;

/// How long a frame is.
pub const FRAME: Duration = Duration::from_millis(20);

/// Frames in a second.
pub const FRAMES_PER_SECOND: u32 = 50;

/// The most samples of a frame, at 48,000 a second.
pub const FRAME_LEN_MAX: usize = 960;

/// The payload type of comfort noise (RFC 3551 §6).
pub const COMFORT_NOISE_PAYLOAD_TYPE: u8 = 13;

/// How SRTP is told of a suite of an SDP.
#[must_use]
pub fn profile(suite: Suite) -> Profile {
    match suite {
        Suite::Aes128CmSha1_80 => Profile::Aes128CmSha1_80,
        Suite::AeadAes128Gcm => Profile::AeadAes128Gcm,
        Suite::AeadAes256Gcm => Profile::AeadAes256Gcm,
    }
}

/// The loudness of `samples` in dB below a full-scale square wave (dBov), as RFC 3389 and RFC 6464 count it: 0 is the loudest, 127 is
/// silence. An empty slice is silent.
#[must_use]
pub fn level(samples: &[i16]) -> u8 {
    let energy: f64 = samples
        .iter()
        .map(|sample| f64::from(*sample) * f64::from(*sample))
        .sum();
    let mean = energy / samples.len().max(1) as f64;
    if mean < 1.0 {
        return 127;
    }
    let level = -10.0 * (mean / (32_768.0 * 32_768.0)).log10();
    // Within 0 and 91, since the mean is between 1 and 2^30.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to what fits"
    )]
    let level = level.round().clamp(0.0, 127.0) as u8;
    level
}
