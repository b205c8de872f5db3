//! One in-order stream: what is under way on it and which ends still take part.

use std::collections::VecDeque;
use std::time::Duration;

use crate::NodeId;

/// What travels on a stream.
#[derive(Debug)]
pub(crate) enum Item<M> {
    /// The stream stands.
    Open,
    /// A message of the test.
    Message(M),
    /// The other end closed, or the stream was cut.
    End,
}

/// A stream between `ends[0]`, its opener, and `ends[1]`.
#[derive(Debug)]
pub(crate) struct Stream<M> {
    pub(crate) ends: [NodeId; 2],
    /// Whether an end takes part; one that closed or heard of the end does not.
    pub(crate) open: [bool; 2],
    /// False once cut: what is sent now goes nowhere.
    pub(crate) carries: bool,
    /// What is under way toward each end, oldest first.
    under_way: [VecDeque<Item<M>>; 2],
    /// When the last of it arrives, so that nothing overtakes it.
    arrival_last: [Duration; 2],
}

impl<M> Stream<M> {
    pub(crate) fn new(opener: NodeId, acceptor: NodeId) -> Self {
        Self {
            ends: [opener, acceptor],
            open: [true; 2],
            carries: true,
            under_way: [VecDeque::new(), VecDeque::new()],
            arrival_last: [Duration::ZERO; 2],
        }
    }

    pub(crate) fn under_way(&self, end: usize) -> usize {
        self.under_way[end].len()
    }

    /// Puts `item` on its way toward `end`, to arrive at `at` or when what is before it has
    /// arrived. Returns that time, or `None` when it is lost at once.
    pub(crate) fn put(&mut self, end: usize, item: Item<M>, at: Duration) -> Option<Duration> {
        // The end of a cut stream is news of this side's own machine, not something carried.
        let lost = !self.carries && !matches!(item, Item::End);
        if lost || !self.open[end] {
            return None;
        }
        let at = at.max(self.arrival_last[end]);
        self.arrival_last[end] = at;
        self.under_way[end].push_back(item);
        Some(at)
    }

    /// Takes what arrives next at `end`; nothing when it was lost in a cut.
    pub(crate) fn take(&mut self, end: usize) -> Option<Item<M>> {
        self.under_way[end].pop_front()
    }

    /// Loses all but the first `keep` items under way toward `end`.
    pub(crate) fn lose_after(&mut self, end: usize, keep: u64) {
        self.under_way[end].truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// Lets `end` take part no longer.
    pub(crate) fn leave(&mut self, end: usize) {
        self.open[end] = false;
        self.under_way[end].clear();
    }

    /// Whether neither end takes part any more.
    pub(crate) fn is_over(&self) -> bool {
        self.open == [false; 2]
    }
}
