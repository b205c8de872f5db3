//! The end of a server that is asked to end: what lives may live on for a while, and nothing new begins.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often it is looked whether everything has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often the log tells what is still waited for.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Sends new Allocations of `relay` away and waits until those that live have ended, for `at_most`.
///
/// Returns at once when there are none.
pub(crate) async fn relay(relay: &relay_service::Handle, at_most: Duration) {
    relay.set_draining(true).await;
    let mut wait = Wait::new("Allocations", at_most);
    while let Some(pause) = wait.goes_on(relay.stats().await.allocations) {
        sleep(pause).await;
    }
}

/// Lets no new Room begin at `sfu` and waits until those that live are empty, for `at_most`.
///
/// Returns at once when there are none.
pub(crate) async fn rooms(sfu: &sfu_service::Handle, at_most: Duration) {
    sfu.set_draining(true);
    let mut wait = Wait::new("Participants of Rooms", at_most);
    while let Some(pause) = wait.goes_on(sfu.figures().await.participants) {
        sleep(pause).await;
    }
}

/// Lets no new phone call begin at `gateway` and waits until those that live have ended, for `at_most`.
///
/// Returns at once when there are none.
pub(crate) async fn phones(gateway: &gateway_service::Handle, at_most: Duration) {
    gateway.drain().await;
    let mut wait = Wait::new("phone calls", at_most);
    while let Some(pause) = wait.goes_on(gateway.figures().await.calls) {
        sleep(pause).await;
    }
}

/// A wait for what still lives.
struct Wait {
    what: &'static str,
    ends_at: Instant,
    told_at: Option<Instant>,
}

impl Wait {
    fn new(what: &'static str, at_most: Duration) -> Self {
        Self {
            what,
            ends_at: Instant::now() + at_most,
            told_at: None,
        }
    }

    /// When to look again; `None` once nothing is left, or no time.
    fn goes_on(&mut self, count: usize) -> Option<Duration> {
        let (what, now) = (self.what, Instant::now());
        if count == 0 {
            return None;
        }
        if now >= self.ends_at {
            tracing::warn!(what, count, "Ending what still lives");
            return None;
        }
        let is_due = |told_at| now >= told_at + TELL_EVERY;
        if self.told_at.is_none_or(is_due) {
            let seconds_left = (self.ends_at - now).as_secs();
            tracing::info!(what, count, seconds_left, "Waiting for what lives to end");
            self.told_at = Some(now);
        }
        Some(LOOK_EVERY.min(self.ends_at - now))
    }
}
