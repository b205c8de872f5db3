//! When frames are due: every 20 ms from a beginning, never later for having been late.

use std::time::Instant;

use crate::FRAME;

/// How many frames are made up for at once after a pause of the machine; those before are let go.
pub const LATE_MAX: u32 = 10;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Frames that are to be let pass: their time is long over.
    pub passed: u32,
    /// Frames that are to be made now.
    pub now: u32,
}

/// A clock that ticks every 20 ms.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    next: Instant,
}

impl Clock {
    /// A clock whose first tick is at `first`.
    #[must_use]
    pub fn new(first: Instant) -> Self {
        Self { next: first }
    }

    /// When the next frame is due.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.next
    }

    /// What is due at `now`.
    pub fn tick(&mut self, now: Instant) -> Due {
        let Some(late) = now.checked_duration_since(self.next) else {
            return Due { passed: 0, now: 0 };
        };
        let ticks = u32::try_from(late.as_nanos() / FRAME.as_nanos()).unwrap_or(u32::MAX - 1) + 1;
        self.next += FRAME * ticks;
        let now = ticks.min(LATE_MAX);
        Due {
            passed: ticks - now,
            now,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any time will do to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_clock_that_is_looked_at_late_never_drifts() {
        let start = start();
        let mut clock = Clock::new(start);
        let (mut now, mut ticks, mut random) = (start, 0, 1_u64);
        while now < start + Duration::from_secs(3_600) {
            let due = clock.tick(now);
            ticks += due.now;
            assert_eq!(due.passed, 0);
            assert!(clock.next() > now && clock.next() <= now + FRAME);
            // Up to 60 ms late, at odd moments.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            now += Duration::from_micros((random >> 40) % 60_000);
        }
        let expected = now.duration_since(start).as_millis() / 20;
        assert!(u128::from(ticks).abs_diff(expected) <= 4);
    }

    #[test]
    fn a_long_pause_is_passed_over_and_time_goes_on() {
        let start = start();
        let mut clock = Clock::new(start);
        assert_eq!(clock.tick(start), Due { passed: 0, now: 1 });
        assert_eq!(clock.tick(start), Due { passed: 0, now: 0 });
        let due = clock.tick(start + Duration::from_secs(2));
        assert_eq!((due.passed, due.now), (90, 10));
        assert_eq!(clock.next(), start + Duration::from_millis(2_020));
    }
}
