//! Deadlines, ordered. Each owner has at most one here and looks at its own state when it fires.

use std::collections::BTreeSet;

use model::Timestamp;

/// Deadlines of owners named by `K`.
///
/// An owner keeps what [`Timers::arm`] gave it. A deadline that moved into the future is not moved here: it fires
/// early once, and the owner arms again. That spares a search per frame.
#[derive(Debug)]
pub(crate) struct Timers<K>(BTreeSet<(Timestamp, K)>);

/// When an owner's timer fires, if it is armed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Armed(Option<Timestamp>);

impl<K: Copy + Ord> Timers<K> {
    pub(crate) fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// Makes sure that `owner` is woken at `at` or before.
    pub(crate) fn arm(&mut self, owner: K, armed: &mut Armed, at: Timestamp) {
        if armed.0.is_some_and(|armed_at| armed_at <= at) {
            return;
        }

        self.disarm(owner, armed);
        self.0.insert((at, owner));
        armed.0 = Some(at);
    }

    /// Forgets an owner that goes away.
    pub(crate) fn disarm(&mut self, owner: K, armed: &mut Armed) {
        if let Some(at) = armed.0.take() {
            self.0.remove(&(at, owner));
        }
    }

    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes an owner whose time has come; it is no longer armed.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<K> {
        let (at, owner) = *self.0.first()?;
        if at > now {
            return None;
        }

        self.0.pop_first();
        Some(owner)
    }
}

impl Armed {
    /// To be called by an owner that was woken.
    pub(crate) fn fired(&mut self) {
        self.0 = None;
    }
}
