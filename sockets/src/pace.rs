//! When a thread of the data path lies down for a moment although there is much to do.
//!
//! Going to sleep and waking up costs a thread as much as four datagrams do (`loadtest relay`, row
//! `light`). One that keeps up easily therefore takes in all there is, then naps, whatever comes
//! meanwhile, and finds several at once.

use std::time::{Duration, Instant};

/// Above so many datagrams a second there are naps, each of which finds two or three at least.
const NAP_ABOVE_PER_SECOND: f64 = 5_000.0;

/// How long a nap is. What comes meanwhile waits for half of it on average, which is to stay below
/// 0.3 ms with all that is added by waking up.
pub const NAP: Duration = Duration::from_micros(500);

/// So many datagrams since the last rest are enough to go on without one: sockets hold little.
const NAP_BELOW: usize = 32;

/// The time over which the rate is taken.
const RATE_WINDOW: Duration = Duration::from_millis(10);

/// What a thread had to do of late.
#[derive(Debug)]
pub struct Pace {
    since: Instant,
    datagrams: usize,
    is_high: bool,
    since_rest: usize,
}

impl Pace {
    /// A thread that had nothing to do until `now`.
    #[must_use]
    pub fn new(now: Instant) -> Pace {
        Pace {
            since: now,
            datagrams: 0,
            is_high: false,
            since_rest: 0,
        }
    }

    /// Whether to nap once there is nothing to do, rather than wait for what comes next.
    #[must_use]
    pub fn naps(&self) -> bool {
        self.is_high && self.since_rest < NAP_BELOW
    }

    /// Adds what came at `now`. Told of nothing, it finds out that the load is over.
    pub fn count(&mut self, now: Instant, datagrams: usize) {
        self.datagrams += datagrams;
        self.since_rest += datagrams;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= RATE_WINDOW {
            let per_second = self.datagrams as f64 / elapsed.as_secs_f64();
            self.is_high = per_second > NAP_ABOVE_PER_SECOND;
            self.datagrams = 0;
            self.since = now;
        }
    }

    /// A rest begins, by a nap or by waiting.
    pub fn rest(&mut self) {
        self.since_rest = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_come_only_under_load() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut naps = |windows: f64, datagrams| {
            pace.count(start + RATE_WINDOW.mul_f64(windows), datagrams);
            pace.rest();
            pace.naps()
        };
        assert!(!naps(0.5, 1000));
        assert!(naps(1.0, 1000));
        assert!(!naps(3.0, 10), "little to do");
        assert!(naps(4.0, 1000));
        assert!(!naps(5.0, 0), "nothing came any more");
    }

    #[test]
    fn whoever_is_busy_goes_on_without_a_nap() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.count(start + RATE_WINDOW, 1000);
        assert!(!pace.naps());
        pace.rest();
        pace.count(start + RATE_WINDOW, NAP_BELOW - 1);
        assert!(pace.naps());
        pace.count(start + RATE_WINDOW, 1);
        assert!(!pace.naps());
    }
}
