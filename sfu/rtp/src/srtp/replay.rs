//! Which packets of a source have come already (RFC 3711 §3.3.2).

/// How many indices below the highest are remembered. libwebrtc's senders spread a retransmission or a burst over more
/// than the 64 that RFC 3711 §3.3.2 asks for.
pub const REPLAY_WINDOW: u64 = 1024;

const WORDS: usize = (REPLAY_WINDOW / 64) as usize;

/// The highest index, and which of the [`REPLAY_WINDOW`] up to it have come.
#[derive(Debug, Clone)]
pub(super) struct ReplayWindow {
    highest: u64,
    /// A bit for each index, at its place modulo the window's length.
    seen: [u64; WORDS],
}

/// Why an index is not new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotNew {
    /// It has come before.
    Seen,
    /// It is older than what the window remembers.
    TooOld,
}

impl ReplayWindow {
    /// A window in which `first` has come.
    pub(super) fn new(first: u64) -> ReplayWindow {
        let mut window = ReplayWindow {
            highest: first,
            seen: [0; WORDS],
        };
        window.mark(first);
        window
    }

    /// A window in which all up to `highest` have come.
    pub(super) fn until(highest: u64) -> ReplayWindow {
        ReplayWindow {
            highest,
            seen: [u64::MAX; WORDS],
        }
    }

    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether `index` has not come yet.
    pub(super) fn check(&self, index: u64) -> Result<(), NotNew> {
        if index > self.highest {
            return Ok(());
        }
        if self.highest - index >= REPLAY_WINDOW {
            return Err(NotNew::TooOld);
        }
        let (word, bit) = place(index);
        if self.seen[word] & bit != 0 {
            return Err(NotNew::Seen);
        }
        Ok(())
    }

    /// Remembers `index`, which [`Self::check`] found to be new and whose packet is authentic.
    pub(super) fn accept(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= REPLAY_WINDOW {
                self.seen.fill(0);
            } else {
                for passed in self.highest + 1..index {
                    let (word, bit) = place(passed);
                    self.seen[word] &= !bit;
                }
            }
            self.highest = index;
        }
        self.mark(index);
    }

    fn mark(&mut self, index: u64) {
        let (word, bit) = place(index);
        self.seen[word] |= bit;
    }
}

fn place(index: u64) -> (usize, u64) {
    let place = index % REPLAY_WINDOW;
    ((place / 64) as usize, 1 << (place % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_index_is_new_once() {
        let mut window = ReplayWindow::new(5_000);
        assert_eq!(window.check(5_000), Err(NotNew::Seen));
        assert_eq!(window.check(4_999), Ok(()));
        assert_eq!(window.check(5_000 - 1_023), Ok(()));
        assert_eq!(window.check(5_000 - 1_024), Err(NotNew::TooOld));

        window.accept(4_999);
        assert_eq!(window.check(4_999), Err(NotNew::Seen));
        window.accept(6_000);
        assert_eq!(window.check(4_999), Err(NotNew::Seen));
        assert_eq!(window.check(4_998), Ok(()));
        window.accept(100_000);
        assert_eq!(window.check(99_999), Ok(()));
        assert_eq!(window.check(6_000), Err(NotNew::TooOld));
        assert_eq!(window.highest(), 100_000);
    }

    #[test]
    fn what_went_before_stays_behind() {
        let mut window = ReplayWindow::until(5_000);
        assert_eq!(window.check(5_000), Err(NotNew::Seen));
        assert_eq!(window.check(4_500), Err(NotNew::Seen));
        assert_eq!(window.check(5_001), Ok(()));
        window.accept(5_003);
        assert_eq!(window.check(5_002), Ok(()));
        assert_eq!(window.check(4_999), Err(NotNew::Seen));
    }

    proptest! {
        /// The window is a set of which all that is old is forgotten, and refused.
        #[test]
        fn it_is_a_set(
            first in 0u64..10_000,
            steps in prop::collection::vec(prop_oneof![-1_100i64..1_100, -5i64..5, -2i64..3_000], 1..400),
        ) {
            let mut window = ReplayWindow::new(first);
            let mut seen = BTreeSet::from([first]);
            for step in steps {
                let highest = *seen.last().unwrap();
                let index = highest.saturating_add_signed(step);
                let expected = if index + REPLAY_WINDOW <= highest {
                    Err(NotNew::TooOld)
                } else if seen.contains(&index) {
                    Err(NotNew::Seen)
                } else {
                    Ok(())
                };
                prop_assert_eq!(window.check(index), expected);
                if expected.is_ok() {
                    window.accept(index);
                    seen.insert(index);
                }
                prop_assert_eq!(window.highest(), *seen.last().unwrap());
            }
        }
    }
}
