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
    let live = async || relay.stats().await.allocations;
    wait("Allocations", live, at_most).await;
}

/// Lets no new Room begin at `sfu` and waits until those that live are empty, for `at_most`.
///
/// Returns at once when there are none.
pub(crate) async fn rooms(sfu: &sfu_service::Handle, at_most: Duration) {
    sfu.set_draining(true);
    let live = async || sfu.figures().await.participants;
    wait("Participants of Rooms", live, at_most).await;
}

/// Waits until nothing is `live` any more, for `at_most`.
async fn wait(what: &str, live: impl AsyncFn() -> usize, at_most: Duration) {
    let ends_at = Instant::now() + at_most;
    let mut told_at = None;
    loop {
        let count = live().await;
        let now = Instant::now();
        if count == 0 {
            return;
        }
        if now >= ends_at {
            tracing::warn!(what, count, "Ending what still lives");
            return;
        }
        if told_at.is_none_or(|told_at| now >= told_at + TELL_EVERY) {
            let seconds_left = (ends_at - now).as_secs();
            tracing::info!(what, count, seconds_left, "Waiting for what lives to end");
            told_at = Some(now);
        }
        sleep(LOOK_EVERY.min(ends_at - now)).await;
    }
}
