//! Whose clock says what: the wall clock of reports, the clock of each publisher, and the timestamps of each encoding.
//!
//! All Tracks of a publisher are reported to subscribers by one estimate of the publisher's clock, so sound and picture stay
//! together whatever the network does to either.

use std::time::{Duration, Instant};

use sfu_rtp::rtcp::NtpTime;

/// How far a sender report may be off the estimate before the publisher's clock has been set anew.
const STEP_MAX: i64 = 5 << 32;

/// The wall clock, as it was when the Room began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WallClock {
    at: Instant,
    ntp: NtpTime,
}

impl WallClock {
    pub(crate) const fn new(at: Instant, ntp: NtpTime) -> Self {
        Self { at, ntp }
    }

    /// The wall clock at `now`.
    pub(crate) fn ntp(&self, now: Instant) -> NtpTime {
        NtpTime(
            self.ntp
                .0
                .wrapping_add(ntp_duration(now.saturating_duration_since(self.at))),
        )
    }

    /// `now` in units of a stream's timestamps; only differences mean anything.
    pub(crate) fn ticks(&self, now: Instant, clock_rate: u32) -> u32 {
        ticks_between(self.at, now, clock_rate)
    }
}

/// The time between two moments in units of a stream's timestamps.
pub(crate) fn ticks_between(from: Instant, to: Instant, clock_rate: u32) -> u32 {
    let elapsed = to.saturating_duration_since(from);

    truncate(elapsed.as_micros() * u128::from(clock_rate) / 1_000_000)
}

/// How far our clock is ahead of a publisher's, as the quickest of their sender reports tell.
#[derive(Debug, Default)]
pub(crate) struct PublisherClock {
    /// Ours less theirs, in 2^-32 s.
    ahead: Option<i64>,
}

impl PublisherClock {
    /// Takes a sender report of theirs that came at `ours`.
    pub(crate) fn handle(&mut self, ours: NtpTime, theirs: NtpTime) {
        let sample = ours.0.wrapping_sub(theirs.0).cast_signed();

        self.ahead = Some(match self.ahead {
            Some(ahead) if sample.wrapping_sub(ahead).saturating_abs() <= STEP_MAX => {
                // A report that took less long is nearer the truth; the rest only follows drift.
                if sample <= ahead {
                    sample
                } else {
                    ahead + (sample - ahead) / 64
                }
            }
            _ => sample,
        });
    }

    /// Their clock when ours is `ours`.
    pub(crate) fn theirs(&self, ours: NtpTime) -> Option<NtpTime> {
        Some(NtpTime(ours.0.wrapping_sub(self.ahead?.cast_unsigned())))
    }
}

/// What a sender report says of one encoding: this timestamp at this time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Anchor {
    /// By the publisher's clock.
    pub(crate) ntp: NtpTime,
    pub(crate) timestamp: u32,
}

impl Anchor {
    /// The timestamp at `ntp` by the publisher's clock.
    pub(crate) fn timestamp_at(&self, ntp: NtpTime, clock_rate: u32) -> u32 {
        let elapsed = i128::from(ntp.0.wrapping_sub(self.ntp.0).cast_signed());
        let ticks = (elapsed * i128::from(clock_rate)) >> 32;

        self.timestamp.wrapping_add(truncate(ticks.cast_unsigned()))
    }

    /// What is to be added to timestamps of this encoding to have those of `other` at the same time.
    pub(crate) fn offset_to(&self, other: &Self, clock_rate: u32) -> u32 {
        other
            .timestamp_at(self.ntp, clock_rate)
            .wrapping_sub(self.timestamp)
    }
}

/// A duration in 2^-32 s.
fn ntp_duration(duration: Duration) -> u64 {
    (duration.as_secs() << 32)
        .wrapping_add((u64::from(duration.subsec_nanos()) << 32) / 1_000_000_000)
}

/// The low 32 bits: timestamps wrap.
const fn truncate(ticks: u128) -> u32 {
    (ticks & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1 << 32;

    #[test]
    fn two_encodings_of_one_camera_have_one_time() {
        let small = Anchor {
            ntp: NtpTime(100 * SECOND),
            timestamp: 5_000,
        };
        let large = Anchor {
            ntp: NtpTime(101 * SECOND + SECOND / 2),
            timestamp: 4_294_967_000,
        };

        let offset = large.offset_to(&small, 90_000);
        assert_eq!(4_294_967_000_u32.wrapping_add(offset), 5_000 + 135_000);
        assert_eq!(
            large.timestamp_at(NtpTime(100 * SECOND), 90_000),
            4_294_967_000 - 135_000
        );
    }

    #[test]
    fn a_publishers_clock_is_told_by_the_quickest_report() {
        let mut clock = PublisherClock::default();
        assert!(clock.theirs(NtpTime(0)).is_none());

        clock.handle(NtpTime(50 * SECOND + SECOND / 10), NtpTime(10 * SECOND));
        clock.handle(NtpTime(51 * SECOND + SECOND / 20), NtpTime(11 * SECOND));
        clock.handle(
            NtpTime(52 * SECOND + SECOND / 20 + 64),
            NtpTime(12 * SECOND),
        );
        assert_eq!(
            clock.theirs(NtpTime(60 * SECOND)),
            Some(NtpTime(20 * SECOND - SECOND / 20 - 1))
        );

        clock.handle(NtpTime(70 * SECOND), NtpTime(SECOND));
        assert_eq!(
            clock.theirs(NtpTime(70 * SECOND)),
            Some(NtpTime(SECOND)),
            "set anew"
        );
    }

    #[test]
    fn the_wall_clock_goes_on_from_where_it_began() {
        let start = crate::test::start();
        let wall = WallClock::new(start, NtpTime(7 * SECOND));
        let later = start + Duration::from_millis(1500);

        assert_eq!(wall.ntp(later), NtpTime(8 * SECOND + SECOND / 2));
        assert_eq!(wall.ticks(later, 48_000), 72_000);
    }
}
