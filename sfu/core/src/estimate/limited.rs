//! Whether there is less to send than would fit (application limited region): then the estimate can't be judged by what arrives.

use std::time::{Duration, Instant};

use crate::bitrate::Bitrate;

/// The share of the estimate that must be used for it to count as used.
const USED: f64 = 0.65;

/// How far back use is looked at.
const WINDOW: Duration = Duration::from_millis(500);

/// Of the window's bytes so many (percent) must be unused for the region to begin, and so few for it to end.
const BEGIN_PERCENT: i64 = 80;
const END_PERCENT: i64 = 50;

/// A budget that fills with time and empties with what is sent.
#[derive(Debug)]
pub(super) struct LimitedDetector {
    /// Bytes unused, at most those of a window, and as far below zero.
    unused: i64,
    updated_at: Option<Instant>,
    is_limited: bool,
}

impl LimitedDetector {
    pub(super) fn new() -> Self {
        Self {
            unused: 0,
            updated_at: None,
            is_limited: false,
        }
    }

    /// `bytes` are sent (0: only time passes) while `estimate` would fit.
    pub(super) fn update(&mut self, now: Instant, bytes: u64, estimate: Bitrate) {
        let rate = estimate.scaled(USED);
        let passed = now.saturating_duration_since(self.updated_at.unwrap_or(now));
        self.updated_at = Some(now);
        let whole = signed(rate.bytes_in(WINDOW)).max(1);
        let filled = signed(rate.bytes_in(passed.min(WINDOW)));
        self.unused = (self.unused + filled - signed(bytes)).clamp(-whole, whole);

        let percent = self.unused.saturating_mul(100) / whole;
        if percent > BEGIN_PERCENT {
            self.is_limited = true;
        } else if percent < END_PERCENT {
            self.is_limited = false;
        }
    }

    pub(super) fn is_limited(&self) -> bool {
        self.is_limited
    }
}

fn signed(bytes: u64) -> i64 {
    // Half of the range, so that sums of two stay within it.
    i64::try_from(bytes).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::start;

    #[test]
    fn little_to_send_is_noticed_and_much_to_send_as_well() {
        let mut now = start();
        let mut detector = LimitedDetector::new();
        let mut run = |percent: u64| {
            for _ in 0..1000 {
                now += Duration::from_millis(10);
                detector.update(now, 1250 * percent / 100, Bitrate::kbps(1000));
            }
            detector.is_limited()
        };
        assert!(run(20));
        assert!(!run(90));
        assert!(run(50));
        assert!(!run(70));
    }

    #[test]
    fn the_largest_rates_are_survived() {
        let mut detector = LimitedDetector::new();
        detector.update(start(), u64::MAX, Bitrate::MAX);
        detector.update(start() + Duration::from_secs(1), u64::MAX, Bitrate::MAX);
    }
}
