//! When what is to be done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// A moment for each key that has one.
pub(crate) struct Timers<K> {
    by_key: BTreeMap<K, Instant>,
    by_time: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Clone> Timers<K> {
    pub(crate) fn new() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }

    /// Sets, moves or takes away the moment of `key`.
    pub(crate) fn set(&mut self, key: &K, at: Option<Instant>) {
        if let Some(before) = self.by_key.remove(key) {
            self.by_time.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            self.by_key.insert(key.clone(), at);
            self.by_time.insert((at, key.clone()));
        }
    }

    /// Whether `key` has a moment.
    pub(crate) fn has(&self, key: &K) -> bool {
        self.by_key.contains_key(key)
    }

    /// The first moment.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes a key whose moment has come.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_key_has_one_moment_and_the_first_comes_first() {
        let (mut timers, now) = (Timers::new(), Instant::now());
        let at = |seconds| Some(now + Duration::from_secs(seconds));
        timers.set(&"a", at(3));
        timers.set(&"b", at(2));
        timers.set(&"a", at(1));
        timers.set(&"c", at(1));
        timers.set(&"c", None);
        assert_eq!(timers.next(), at(1));
        assert_eq!(timers.pop(now), None);
        let later = now + Duration::from_secs(5);
        assert_eq!(
            [(); 3].map(|()| timers.pop(later)),
            [Some("a"), Some("b"), None]
        );
        assert_eq!(timers.next(), None);
    }
}
