//! Sound for phone calls: codecs, jitter, losses, silence, DTMF, mixing.
//!
//! ```text
//! RTP ─▶ jitter ─▶ g711, g722 ─▶ samples ─▶ mixer ─▶ samples ─▶ g711, g722 ─▶ RTP
//!          └ lost ─▶ concealment ──┘                               dtmf ─────────┘
//!          └ silent ─▶ comfort_noise
//! ```
//!
//! Samples are 16 bits, mono, at 8,000 or 16,000 a second, so that a call between a phone and a browser needs no resampler: Opus codes at
//! both rates. Nothing here has a clock, a socket or a lock, and after the first packets nothing allocates. What a phone sends
//! can't make any of it panic.

pub mod comfort_noise;
pub mod concealment;
pub mod dtmf;
pub mod g711;
pub mod g722;
pub mod jitter;
pub mod mixer;
#[cfg(test)]
mod tone;

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
