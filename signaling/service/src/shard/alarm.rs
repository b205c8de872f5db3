//! The one timer of a shard, which rings when the core wants to be woken.

use std::pin::Pin;
use std::time::Duration;

use model::Timestamp;
use tokio::time::{Instant, Sleep};

use crate::clock::Clock;

/// How long the alarm sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);

/// A timer that is set again only when what it is set for has changed.
pub(crate) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// What it is set for, where `None` within is "nothing is due"; `None` without: it has to be set, whatever is due.
    set_for: Option<Option<Timestamp>>,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep(IDLE)),
            set_for: None,
        }
    }

    /// Rings at `due`, or when a long time has passed.
    pub(crate) fn set(&mut self, due: Option<Timestamp>, clock: &Clock) {
        if self.set_for == Some(due) {
            return;
        }

        let wait = due.map_or(IDLE, |at| clock.until(at));
        self.sleep.as_mut().reset(Instant::now() + wait);
        self.set_for = Some(due);
    }

    /// Has [`Alarm::set`] wind it up again even for the same moment: the clock may have been set.
    pub(crate) fn unset(&mut self) {
        self.set_for = None;
    }

    /// Waits until it rings. It goes on ringing until it is set.
    pub(crate) async fn rings(&mut self) {
        self.sleep.as_mut().await;
        self.unset();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_alarm_that_rang_is_silent_when_nothing_else_is_due() {
        let clock = Clock::new();
        let mut alarm = Alarm::new();

        alarm.set(Some(clock.now()), &clock);
        alarm.rings().await;
        alarm.set(None, &clock);

        assert_eq!(alarm.rings().now_or_never(), None);
    }

    #[tokio::test]
    async fn an_alarm_rings_twice_for_one_moment() {
        let clock = Clock::new();
        let due = Some(clock.now());
        let mut alarm = Alarm::new();

        for _ in 0..2 {
            alarm.set(due, &clock);
            alarm.rings().await;
        }
    }
}
