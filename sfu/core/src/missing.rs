//! What is asked of a publisher again: packets that are missing from one encoding (RFC 4585 §6.2.1).
//!
//! A gap waits [`REORDERING`] in case the packet was only overtaken, is asked for once per round trip and given up after
//! [`TRIES_MAX`] tries, [`AGE_MAX`], or when more than [`MISSING_MAX`] are open: then only a key frame helps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The most packets of one encoding that are asked for at once.
pub const MISSING_MAX: usize = 256;

/// How often a packet is asked for.
pub const TRIES_MAX: u8 = 10;

/// How long a missing packet is of use to anybody.
const AGE_MAX: Duration = Duration::from_millis(1000);

/// How long a packet may be overtaken before it counts as lost.
const REORDERING: Duration = Duration::from_millis(5);

/// The shortest time between two requests for a packet.
const ROUND_MIN: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Gap {
    sequence: u64,
    since: Instant,
    /// When it is asked for next.
    due_at: Instant,
    tries: u8,
}

/// The gaps of one encoding.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// In the order of their numbers.
    gaps: VecDeque<Gap>,
    given_up: bool,
}

impl Missing {
    pub(crate) fn is_empty(&self) -> bool {
        self.gaps.is_empty()
    }

    /// Notes that the `count` numbers from `first` on were skipped.
    pub(crate) fn skip(&mut self, now: Instant, first: u64, count: u64) {
        if count > MISSING_MAX as u64 {
            self.give_up();
            return;
        }

        for sequence in first..first + count {
            self.gaps.push_back(Gap {
                sequence,
                since: now,
                due_at: now + REORDERING,
                tries: 0,
            });
        }
        if self.gaps.len() > MISSING_MAX {
            self.give_up();
        }
    }

    /// Notes that a missing number came. Gives how long ago it was asked for if that was once, so that it measures a round trip.
    pub(crate) fn fill(
        &mut self,
        now: Instant,
        sequence: u64,
        round: Duration,
    ) -> Option<Duration> {
        let index = self
            .gaps
            .binary_search_by_key(&sequence, |gap| gap.sequence)
            .ok()?;
        let gap = self.gaps.remove(index)?;

        (gap.tries == 1).then(|| {
            let asked_at = gap.due_at - wait(round);
            now.saturating_duration_since(asked_at)
        })
    }

    /// Puts up to `MISSING_MAX` numbers to ask for now into `numbers`, ascending.
    ///
    /// `round` is the round trip to the publisher. True if a packet was given up since the last call.
    pub(crate) fn poll(&mut self, now: Instant, round: Duration, numbers: &mut Vec<u16>) -> bool {
        let before = self.gaps.len();
        self.gaps.retain(|gap| {
            gap.tries < TRIES_MAX && now.saturating_duration_since(gap.since) < AGE_MAX
        });
        let given_up = std::mem::take(&mut self.given_up) || self.gaps.len() < before;

        for gap in self.gaps.iter_mut().filter(|gap| gap.due_at <= now) {
            gap.tries += 1;
            gap.due_at = now + wait(round);
            numbers.push(crate::receiver::low(gap.sequence));
        }
        given_up
    }

    /// Forgets all: nobody wants the encoding now, or its sender began anew.
    pub(crate) fn clear(&mut self) {
        self.gaps.clear();
        self.given_up = false;
    }

    fn give_up(&mut self) {
        self.gaps.clear();
        self.given_up = true;
    }
}

/// How long an answer may take before a packet is asked for again.
fn wait(round: Duration) -> Duration {
    (round + round / 4).max(ROUND_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(100);

    fn poll(missing: &mut Missing, now: Instant) -> (Vec<u16>, bool) {
        let mut numbers = Vec::new();
        let given_up = missing.poll(now, ROUND, &mut numbers);

        (numbers, given_up)
    }

    #[test]
    fn a_gap_is_asked_for_after_a_moment_then_once_per_round_trip() {
        let mut missing = Missing::default();
        let start = crate::test::start();
        let at = |millis| start + Duration::from_millis(millis);
        missing.skip(start, 65_535, 2);

        assert_eq!(
            poll(&mut missing, at(4)),
            (vec![], false),
            "it may only be late"
        );
        assert_eq!(poll(&mut missing, at(5)), (vec![65_535, 0], false));
        assert_eq!(poll(&mut missing, at(100)), (vec![], false));
        assert_eq!(
            missing.fill(at(120), 65_535, ROUND),
            Some(Duration::from_millis(115))
        );
        assert_eq!(poll(&mut missing, at(130)), (vec![0], false));
        assert_eq!(
            missing.fill(at(140), 65_536, ROUND),
            None,
            "which request it answers nobody knows"
        );
        assert!(missing.is_empty());
    }

    #[test]
    fn what_never_comes_is_given_up_once() {
        let mut missing = Missing::default();
        let start = crate::test::start();
        missing.skip(start, 1, 1);

        let rounds = (0..200).map(|n| poll(&mut missing, start + Duration::from_millis(10) * n));
        let (asked, given_up) = rounds.fold((0, 0), |(asked, given_up), (numbers, lost)| {
            (asked + numbers.len(), given_up + usize::from(lost))
        });

        assert!((7..=usize::from(TRIES_MAX)).contains(&asked), "{asked}");
        assert_eq!(given_up, 1);
    }

    #[test]
    fn too_many_gaps_are_given_up_together() {
        let mut missing = Missing::default();
        let now = crate::test::start();

        missing.skip(now, 1, MISSING_MAX as u64);
        assert!(!poll(&mut missing, now).1);
        missing.skip(now, 1000, 1);
        assert!(missing.is_empty() && poll(&mut missing, now).1);

        missing.skip(now, 2000, u64::MAX - 5000);
        assert!(missing.is_empty() && poll(&mut missing, now).1);
    }
}
