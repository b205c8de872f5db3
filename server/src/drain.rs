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
    let ends_at = Instant::now() + at_most;
    let mut told_at = None;
    loop {
        let allocations = relay.stats().await.allocations;
        let now = Instant::now();
        if allocations == 0 {
            return;
        }
        if now >= ends_at {
            tracing::warn!(allocations, "Ending Allocations that still live");
            return;
        }
        if told_at.is_none_or(|told_at| now >= told_at + TELL_EVERY) {
            let seconds_left = (ends_at - now).as_secs();
            tracing::info!(allocations, seconds_left, "Waiting for Allocations to end");
            told_at = Some(now);
        }
        sleep(LOOK_EVERY.min(ends_at - now)).await;
    }
}
