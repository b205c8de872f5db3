//! A rate that is kept over time and not at once: a bucket of tokens.

use std::time::Instant;

/// So many of something per second, and so many at once after a pause.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    burst: f64,
    filled: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(now: Instant, per_second: f64, burst: f64) -> Self {
        Self {
            per_second,
            burst,
            filled: burst,
            filled_at: now,
        }
    }

    /// Takes `count`, or nothing where there are fewer; whether it did.
    pub(crate) fn takes(&mut self, now: Instant, count: f64) -> bool {
        self.fill(now);
        let takes = self.filled >= count;
        if takes {
            self.filled -= count;
        }
        takes
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled = (self.filled + passed * self.per_second).min(self.burst);
        self.filled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_is_kept_over_time_and_not_at_once() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, 100.0, 50.0);
        let mut taken = |now| (0..1000).filter(|_| bucket.takes(now, 1.0)).count();
        assert_eq!(taken(start), 50, "half a second at once");
        assert_eq!(taken(start + Duration::from_millis(100)), 10);
        assert_eq!(taken(start + Duration::from_secs(60)), 50);
    }
}
