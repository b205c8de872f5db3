//! When what is due.

use std::collections::BTreeSet;
use std::time::Instant;

/// What something is due for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A Room, by its place.
    Room(usize),
    /// A Participant, by its place.
    Participant(usize),
    /// A plain Participant, by its place among those.
    Plain(usize),
}

/// One deadline for each [`Timer`].
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Instant, Timer)>);

impl Timers {
    /// Puts `next` in place of the deadline that `known` remembers.
    pub(crate) fn set(&mut self, timer: Timer, known: &mut Option<Instant>, next: Option<Instant>) {
        if *known == next {
            return;
        }
        if let Some(at) = *known {
            self.0.remove(&(at, timer));
        }
        if let Some(at) = next {
            self.0.insert((at, timer));
        }
        *known = next;
    }

    /// The next deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// What is due, the longest waiting first. Whoever takes it has to set its deadline anew: what `known` remembers is gone.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let (at, _) = self.0.first()?;
        (*at <= now)
            .then(|| self.0.pop_first().map(|(_, timer)| timer))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_timer_has_one_deadline() {
        let start = Instant::now();
        let at = |millis| Some(start + Duration::from_millis(millis));
        let mut timers = Timers::default();
        let (mut room, mut participant) = (None, None);
        timers.set(Timer::Room(1), &mut room, at(10));
        timers.set(Timer::Participant(1), &mut participant, at(20));
        timers.set(Timer::Room(1), &mut room, at(30));
        assert_eq!(timers.next(), at(20));
        assert_eq!(timers.pop(start), None);

        let later = start + Duration::from_millis(40);
        assert_eq!(timers.pop(later), Some(Timer::Participant(1)));
        participant = None;
        timers.set(Timer::Participant(1), &mut participant, None);
        assert_eq!(timers.pop(later), Some(Timer::Room(1)));
        assert_eq!((timers.pop(later), timers.next()), (None, None));
    }
}
