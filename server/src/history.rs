//! Forgets old history, old call records of phones and old usage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backing::records::Records;
use model::Timestamp;
use tokio::time::{Instant, interval_at, sleep};

/// When the first look is, so that a start has the disk for itself, and how long it is until the next.
const FIRST_LOOK: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// How many rows are forgotten at once, and the pause between: the writer of new ones waits as long as one step takes.
const STEP: u32 = 500;
const PAUSE: Duration = Duration::from_millis(100);

const DAY_MS: u64 = 86_400_000;

/// What is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old {
    /// Calls, by when they were invited.
    History,
    /// Call records of phones, by when they began.
    Legs,
    /// What was relayed.
    Usage,
}

/// Looks every hour for what is older than `days`, for ever; zero keeps it.
pub async fn forget_old(old: Old, records: Records, days: Arc<AtomicU32>) {
    let mut looks = interval_at(Instant::now() + FIRST_LOOK, LOOK_EVERY);
    loop {
        looks.tick().await;
        let days = days.load(Ordering::Relaxed);
        if days == 0 {
            continue;
        }
        let now = jiff::Timestamp::now().as_millisecond();
        let now = Timestamp::from_millis(u64::try_from(now).unwrap_or_default());
        match forget_before(old, &records, days_before(now, days)).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, days, what = ?old, "Forgot what is old"),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), what = ?old, "Can't forget what is old");
            }
        }
    }
}

fn days_before(now: Timestamp, days: u32) -> Timestamp {
    Timestamp::from_millis(now.as_millis().saturating_sub(u64::from(days) * DAY_MS))
}

async fn forget_before(old: Old, records: &Records, before: Timestamp) -> anyhow::Result<u64> {
    let mut forgotten = 0;
    loop {
        let rows = match old {
            Old::History => records.forget_history(before, STEP).await?,
            Old::Legs => records.forget_legs(before, STEP).await?,
            Old::Usage => records.forget_relayed(before, STEP).await?,
        };
        forgotten += rows;
        if rows < u64::from(STEP) {
            return Ok(forgotten);
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_back_from_now_and_never_before_1970() {
        let check = |now, days, expected| {
            assert_eq!(
                days_before(Timestamp::from_millis(now), days).as_millis(),
                expected
            );
        };
        check(10 * DAY_MS + 1, 3, 7 * DAY_MS + 1);
        check(DAY_MS, 1, 0);
        check(DAY_MS, u32::MAX, 0);
    }

    #[tokio::test]
    async fn everything_old_goes_however_much_it_is() {
        use model::record::Participant;
        use model::{CallId, CallRecord, Media, RecordChange};

        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(&dir.path().join("records")).await.unwrap();
        let account = records.create_account("Acme").await.unwrap().account;
        let participant = |user: &str| Participant {
            user: user.parse().unwrap(),
            name: None,
            device: None,
        };
        for n in 0..1_100_u64 {
            let call = CallRecord {
                account,
                call: CallId::from_u128(n.into()),
                caller: participant("alice"),
                callee: participant("bob"),
                media: Media {
                    audio: true,
                    video: false,
                },
                created_at: Timestamp::from_millis(n),
                answered_at: None,
                ended_at: None,
                reason: None,
                cause: None,
                phone: None,
                ended_by: None,
                missed: false,
                replaces: None,
                into: None,
            };
            let change = RecordChange::CallBegun(Box::new(call));
            records.record(change).await.unwrap();
        }
        records.flush().await.unwrap();

        let before = Timestamp::from_millis(1_090);
        let forgotten = forget_before(Old::History, &records, before).await;
        assert_eq!(forgotten.unwrap(), 1_090);
        let alice = "alice".parse().unwrap();
        let left = records.history(account, &alice, None, 100).await.unwrap();
        assert_eq!(left.entries.len(), 10);
    }
}
