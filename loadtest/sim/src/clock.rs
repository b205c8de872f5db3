//! The time of the simulated world.

use std::time::{Duration, Instant};

/// A clock that moves only when it is told to.
#[derive(Debug, Clone)]
pub struct Clock {
    now: Duration,
    base: Option<Instant>,
    unix_base: Duration,
}

impl Clock {
    /// What the calendar shows when the simulation starts: a moment in 2026.
    const UNIX_START: Duration = Duration::from_millis(1_790_000_000_000);

    /// A clock at zero.
    pub fn new() -> Self {
        Self {
            now: Duration::ZERO,
            base: None,
            unix_base: Self::UNIX_START,
        }
    }

    /// A clock at zero whose [`Clock::instant`] counts from `base`.
    ///
    /// An `Instant` cannot be made from a number, so a test that needs one lends its own; only
    /// differences to it are ever seen.
    pub fn from_instant(base: Instant) -> Self {
        Self {
            base: Some(base),
            ..Self::new()
        }
    }

    /// Time since the start of the simulation.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The moment as an `Instant`, when the clock was made with one.
    pub fn instant(&self) -> Option<Instant> {
        self.base.map(|base| base + self.now)
    }

    /// The moment as the calendar shows it, since 1970.
    pub fn unix(&self) -> Duration {
        self.unix_base + self.now
    }

    /// Moves on to `to`; a moment that has passed leaves the clock where it is.
    pub fn advance_to(&mut self, to: Duration) {
        self.now = self.now.max(to);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let mut clock = Clock::new();
        clock.advance_to(Duration::from_secs(5));
        clock.advance_to(Duration::from_secs(3));
        assert_eq!(clock.now(), Duration::from_secs(5));
        assert_eq!(clock.unix() - Clock::new().unix(), Duration::from_secs(5));
    }

    #[test]
    fn instants_count_from_the_one_that_was_lent() {
        let base = Instant::now();
        let mut clock = Clock::from_instant(base);
        clock.advance_to(Duration::from_millis(1500));
        assert_eq!(clock.instant(), Some(base + Duration::from_millis(1500)));
        assert_eq!(Clock::new().instant(), None);
    }
}
