//! Bits per second, as a type: what is sent, what fits and what is wished for.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A rate in bits per second. Sums and differences saturate, so no input can overflow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bitrate(u64);

impl Bitrate {
    /// Nothing at all.
    pub const ZERO: Self = Self(0);
    /// No limit.
    pub const MAX: Self = Self(u64::MAX);

    /// `bits` per second.
    pub const fn bps(bits: u64) -> Self {
        Self(bits)
    }

    /// `kilobits` (thousands of bits) per second.
    pub const fn kbps(kilobits: u64) -> Self {
        Self(kilobits.saturating_mul(1000))
    }

    /// The rate at which `bytes` pass in `time`; [`Bitrate::MAX`] when `time` is zero.
    pub fn of(bytes: u64, time: Duration) -> Self {
        let bits = u128::from(bytes) * 8 * 1_000_000_000;
        let rate = bits.checked_div(time.as_nanos());
        Self(rate.map_or(u64::MAX, |rate| u64::try_from(rate).unwrap_or(u64::MAX)))
    }

    /// The number of bits per second.
    pub const fn as_bps(self) -> u64 {
        self.0
    }

    /// How many whole bytes pass in `time`.
    pub fn bytes_in(self, time: Duration) -> u64 {
        let bits = u128::from(self.0).saturating_mul(time.as_nanos()) / 1_000_000_000;
        u64::try_from(bits / 8).unwrap_or(u64::MAX)
    }

    /// How long `bytes` take; at a rate of zero, [`Duration::MAX`].
    pub fn time_for(self, bytes: u64) -> Duration {
        let nanos = (u128::from(bytes) * 8 * 1_000_000_000).checked_div(u128::from(self.0));
        nanos
            .and_then(|nanos| u64::try_from(nanos).ok())
            .map_or(Duration::MAX, Duration::from_nanos)
    }

    /// This rate times `factor`. A factor that is no number or below zero gives zero.
    pub fn scaled(self, factor: f64) -> Self {
        Self::from_f64(self.as_f64() * factor)
    }

    /// Bits per second for arithmetic; exact up to 2^53.
    #[expect(
        clippy::cast_precision_loss,
        reason = "rates of real links are far below 2^53 bit/s"
    )]
    pub(crate) fn as_f64(self) -> f64 {
        self.0 as f64
    }

    /// The nearest rate to `bits` per second; what is below zero or no number becomes zero.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float saturates when it is cast to an integer"
    )]
    pub(crate) fn from_f64(bits: f64) -> Self {
        Self(bits.max(0.0).round() as u64)
    }
}

impl Add for Bitrate {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Bitrate {
    type Output = Self;

    /// The difference, at least zero.
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Bitrate {
    fn sum<I: Iterator<Item = Self>>(rates: I) -> Self {
        rates.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Bitrate {
    /// Whole kilobits per second: `150 kbit/s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kbit/s", self.0 / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_time_and_rate_agree() {
        let rate = Bitrate::kbps(800);
        let second = Duration::from_secs(1);
        assert_eq!(rate.bytes_in(second), 100_000);
        assert_eq!(rate.time_for(100_000), second);
        assert_eq!(Bitrate::of(100_000, second), rate);
        assert_eq!(rate.to_string(), "800 kbit/s");
    }

    #[test]
    fn the_ends_saturate_instead_of_failing() {
        assert_eq!(Bitrate::of(1, Duration::ZERO), Bitrate::MAX);
        assert_eq!(Bitrate::ZERO.time_for(1), Duration::MAX);
        assert_eq!(Bitrate::MAX + Bitrate::kbps(1), Bitrate::MAX);
        assert_eq!(Bitrate::kbps(1) - Bitrate::kbps(2), Bitrate::ZERO);
        assert_eq!(Bitrate::kbps(1).scaled(-2.0), Bitrate::ZERO);
        assert_eq!(Bitrate::kbps(1).scaled(f64::NAN), Bitrate::ZERO);
        assert_eq!(Bitrate::MAX.bytes_in(Duration::MAX), u64::MAX);
    }
}
