//! Records: Accounts, API keys, Users, Devices, the history of Calls, what was relayed, telephony and its call records.
//!
//! ```text
//! core ── RecordChange ──▶ bounded queue ──▶ writer task ──▶ one transaction for all that waits ──▶ Engine
//! service ── history, Users, API keys ───────────────────────────────────────────────────────────▶ Engine
//! ```
//!
//! Changes are idempotent, so that a crash between applying and forgetting one does no harm. A full queue makes its
//! callers wait. Only when the disk takes nothing any more are changes beyond the queue given up, and counted: Calls go on
//! without their history rather than not at all.

mod engine;
mod people;
mod phone_calls;
mod sealing;
mod sqlite;
mod telephony;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use model::record::{DayOfRelay, HistoryEntry, Named, OpenCallsCursor};
use model::{AccountId, ApiKeyId, CallId, CallRecord, RecordChange, Timestamp, UserId};
use tokio::sync::{mpsc, oneshot};

use engine::Engine;
use writer::Job;

pub use people::{Account, ApiKey};
pub use phone_calls::{KeptPage, LegFilter};
pub use sealing::SecretKeys;
pub use telephony::{StoredTelephony, TelephonyError, TelephonyVersion};

/// How many changes may wait to be written.
pub const QUEUE_LEN_MAX: usize = 4_096;
/// The most entries of one page of history.
pub const HISTORY_PAGE_MAX: u32 = 100;
/// How long a question waits for what was recorded before it; then it is answered from what is there.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// How often whoever waits for room in the queue looks whether the disk still works.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longest name of an Account, in bytes.
const ACCOUNT_NAME_LEN_MAX: usize = 200;

/// The records of this installation. Cheap to clone; all clones share one writer.
#[derive(Clone)]
pub struct Records {
    engine: Arc<dyn Engine>,
    queue: mpsc::Sender<Job>,
    trouble: Arc<Trouble>,
}

/// What the writer has trouble with.
#[derive(Debug, Default)]
struct Trouble {
    /// Whether the last attempt to write failed.
    failing: AtomicBool,
    /// How many changes were given up.
    lost: AtomicU64,
}

impl Trouble {
    fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }
}

/// How the writing of changes goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Whether the last attempt failed; the writer tries on.
    pub failing: bool,
    /// How many changes wait.
    pub waiting: usize,
    /// How many were given up, for the disk took none and [`QUEUE_LEN_MAX`] waited already.
    pub lost: u64,
}

/// A page of a User's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// Newest first.
    pub entries: Vec<HistoryEntry>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<HistoryCursor>,
    /// How many missed Calls the User has not seen.
    pub missed: u32,
}

/// A place in a history: everything older than this Call. As text `<milliseconds>-<call>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryCursor {
    /// When the Call was invited.
    pub created_at: Timestamp,
    /// The Call.
    pub call: CallId,
}

impl std::fmt::Display for HistoryCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.created_at.as_millis(), self.call)
    }
}

impl std::str::FromStr for HistoryCursor {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (millis, call) = text.split_once('-').context("not a cursor of a history")?;

        Ok(Self {
            created_at: Timestamp::from_millis(millis.parse()?),
            call: call.parse()?,
        })
    }
}

impl Records {
    /// Opens the SQLite database at `path`, making it (readable by its owner only) and bringing its tables up to date.
    ///
    /// Must be called within a tokio runtime; the writer lives there. Fails when the file can't be opened or is of a
    /// newer version.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        let engine = sqlite::Sqlite::open(path)
            .await
            .with_context(|| format!("can't open the records in {}", path.display()))?;

        Ok(Self::with_engine(Arc::new(engine)))
    }

    fn with_engine(engine: Arc<dyn Engine>) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_LEN_MAX);
        let trouble = Arc::new(Trouble::default());
        tokio::spawn(writer::run(Arc::clone(&engine), Arc::clone(&trouble), jobs));

        Self {
            engine,
            queue,
            trouble,
        }
    }

    /// Hands a change to the writer; waits while the queue is full.
    ///
    /// The change is on disk after the next [`flush`](Self::flush). Changes are applied in the order of the calls.
    /// While the disk takes nothing and the queue is full, the change is given up and counted in [`Health`]. Fails only when the
    /// runtime of the writer is gone.
    pub async fn record(&self, change: RecordChange) -> anyhow::Result<()> {
        loop {
            if let Ok(place) = self.queue.try_reserve() {
                place.send(Job::Change(change));
                return Ok(());
            }
            if self.trouble.is_failing() {
                let lost = self.trouble.lost.fetch_add(1, Ordering::Relaxed) + 1;
                // Rarer and rarer: the log may be on the same disk.
                if lost.is_power_of_two() {
                    tracing::error!(
                        lost,
                        "Changes given up, the disk takes none and enough wait"
                    );
                }
                return Ok(());
            }
            if let Ok(place) = tokio::time::timeout(LOOK_EVERY, self.queue.reserve()).await {
                place
                    .map_err(|_| anyhow::anyhow!("the writer of the records has ended"))?
                    .send(Job::Change(change));
                return Ok(());
            }
        }
    }

    /// Hands a change to the writer if there is room for it at once.
    ///
    /// Otherwise gives it back: the caller keeps it and tries again.
    pub fn try_record(&self, change: RecordChange) -> Result<(), RecordChange> {
        match self.queue.try_reserve() {
            Ok(place) => {
                place.send(Job::Change(change));
                Ok(())
            }
            Err(_) => Err(change),
        }
    }

    /// Waits until the writer has panicked: nothing can be recorded any more.
    pub async fn broken(&self) {
        self.queue.closed().await;
    }

    /// How the writing goes.
    pub fn health(&self) -> Health {
        Health {
            failing: self.trouble.is_failing(),
            waiting: self.queue.max_capacity() - self.queue.capacity(),
            lost: self.trouble.lost.load(Ordering::Relaxed),
        }
    }

    /// Waits until everything recorded before is on disk.
    ///
    /// Waits as long as the disk refuses to take it; callers that can't, set a deadline.
    pub async fn flush(&self) -> anyhow::Result<()> {
        let (done, written) = oneshot::channel();
        let asked = self.queue.send(Job::Flush(done)).await;

        asked
            .ok()
            .context("the writer of the records has ended")
            .and(written.await.context("the writer of the records has ended"))
    }

    /// Waits for what was recorded before, but not for a disk that takes nothing.
    async fn settle(&self) -> anyhow::Result<()> {
        if self.trouble.is_failing() {
            return Ok(());
        }
        match tokio::time::timeout(SETTLE_MAX, self.flush()).await {
            Ok(flushed) => flushed,
            Err(_) => Ok(()),
        }
    }

    /// Makes an Account. `name` has 1 to 200 bytes and is for people only.
    pub async fn create_account(&self, name: &str) -> anyhow::Result<Account> {
        anyhow::ensure!(
            (1..=ACCOUNT_NAME_LEN_MAX).contains(&name.trim().len()),
            "not a name of 1 to {ACCOUNT_NAME_LEN_MAX} bytes: {name:?}"
        );

        let account = Account {
            account: AccountId::from_parts(now(), rand::random()),
            name: name.trim().to_owned(),
            created_at: now(),
        };
        self.engine.insert_account(&account).await?;

        Ok(account)
    }

    /// All Accounts, oldest first.
    pub async fn accounts(&self) -> anyhow::Result<Vec<Account>> {
        self.engine.accounts().await
    }

    /// Makes an API key for `account`. Fails when there is no such Account.
    pub async fn create_api_key(&self, account: AccountId) -> anyhow::Result<ApiKey> {
        let key = ApiKey::generate(account, now());
        self.engine
            .insert_api_key(&key)
            .await
            .with_context(|| format!("can't make an API key for Account {account}"))?;

        Ok(key)
    }

    /// The API keys of `account`, revoked ones included, oldest first.
    pub async fn api_keys(&self, account: AccountId) -> anyhow::Result<Vec<ApiKey>> {
        self.engine.api_keys(account).await
    }

    /// One API key, revoked or not; `None` when it never existed.
    pub async fn api_key(&self, id: ApiKeyId) -> anyhow::Result<Option<ApiKey>> {
        self.engine.api_key(id).await
    }

    /// Revokes an API key; an earlier time of revocation stays. Returns whether there is such a key.
    pub async fn revoke_api_key(&self, id: ApiKeyId) -> anyhow::Result<bool> {
        self.engine.revoke_api_key(id, now()).await
    }

    /// The API keys of all Accounts that were revoked at `since` or later, with their Accounts, at most `limit`, the latest first.
    pub async fn api_keys_revoked_since(
        &self,
        since: Timestamp,
        limit: u32,
    ) -> anyhow::Result<Vec<(ApiKeyId, AccountId)>> {
        self.engine.api_keys_revoked_since(since, limit).await
    }

    /// A page of the history of `user`: Calls older than `before`, at most `limit` and [`HISTORY_PAGE_MAX`].
    ///
    /// Sees every change recorded before, unless the disk is stuck.
    pub async fn history(
        &self,
        account: AccountId,
        user: &UserId,
        before: Option<HistoryCursor>,
        limit: u32,
    ) -> anyhow::Result<HistoryPage> {
        self.settle().await?;
        let limit = limit.clamp(1, HISTORY_PAGE_MAX);
        // One more than wanted tells whether there is another page.
        let mut entries = self
            .engine
            .history(account, user, before, limit + 1)
            .await?;
        let missed = self.engine.missed(account, user).await?;

        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        let next = entries.last().filter(|_| more).map(|entry| HistoryCursor {
            created_at: entry.created_at,
            call: entry.call,
        });

        Ok(HistoryPage {
            entries,
            next,
            missed,
        })
    }

    /// Calls of all Accounts that have no end and were invited before `before`: at most `limit`, oldest first, and where
    /// the next page begins (`None` on the last one). Sees every change recorded before, unless the disk is stuck.
    pub async fn open_calls(
        &self,
        before: Timestamp,
        after: Option<OpenCallsCursor>,
        limit: u32,
    ) -> anyhow::Result<(Vec<CallRecord>, Option<OpenCallsCursor>)> {
        self.settle().await?;
        let rows = self.engine.open_calls(before, after, limit).await?;

        let is_full = rows.len() >= limit as usize;
        let next = rows.last().filter(|_| is_full).map(|row| OpenCallsCursor {
            created_at: row.created_at,
            account: row.account,
            call: row.call,
        });
        Ok((rows, next))
    }

    /// Forgets the Calls of all Accounts that were invited before `before`, the oldest first, at most `limit`: whoever
    /// writes waits as long as that takes. Returns how many those were.
    pub async fn forget_history(&self, before: Timestamp, limit: u32) -> anyhow::Result<u64> {
        self.engine.forget_history(before, limit).await
    }

    /// What was relayed from `since` on, oldest first, by day (UTC) and Account: for one Account, named as user names of the
    /// relay name it, or for all. Sees every change recorded before, unless the disk is stuck.
    pub async fn relayed(
        &self,
        account: Option<&str>,
        since: Timestamp,
    ) -> anyhow::Result<Vec<DayOfRelay>> {
        self.settle().await?;
        self.engine.relayed(account, since).await
    }

    /// Forgets what was relayed before `before`, the oldest first, at most `limit` rows. Returns how many those were.
    pub async fn forget_relayed(&self, before: Timestamp, limit: u32) -> anyhow::Result<u64> {
        self.engine.forget_relayed(before, limit).await
    }

    /// How many missed Calls `user` has not seen. Sees every change recorded before, unless the disk is stuck.
    pub async fn missed(&self, account: AccountId, user: &UserId) -> anyhow::Result<u32> {
        self.settle().await?;
        self.engine.missed(account, user).await
    }

    /// The Users of `account`, last seen first, at most `limit`. Sees every change recorded before, unless the disk is stuck.
    pub async fn users(&self, account: AccountId, limit: u32) -> anyhow::Result<Vec<Named>> {
        self.settle().await?;
        self.engine.users(account, limit).await
    }

    /// Those of `users` that `account` has; unknown ones are left out. Sees every change recorded before, unless the disk is stuck.
    pub async fn named(&self, account: AccountId, users: &[UserId]) -> anyhow::Result<Vec<Named>> {
        self.settle().await?;
        self.engine.named(account, users).await
    }
}

fn now() -> Timestamp {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();

    Timestamp::from_millis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::{BoxFuture, ready};
    use model::VoicemailId;
    use model::phone::rows::{KeptCursor, LegRecord, Mailbox, Voicemail};

    use super::*;
    use engine::WriteError;

    /// A disk that is full until it is not.
    #[derive(Default)]
    struct Disk {
        has_room: AtomicBool,
        written: AtomicU64,
    }

    impl Engine for Disk {
        fn apply<'a>(
            &'a self,
            changes: &'a [RecordChange],
        ) -> BoxFuture<'a, Result<(), WriteError>> {
            let outcome = if self.has_room.load(Ordering::Relaxed) {
                self.written
                    .fetch_add(changes.len() as u64, Ordering::Relaxed);
                Ok(())
            } else {
                Err(WriteError::Failed(sqlx::Error::WorkerCrashed))
            };
            ready(outcome).boxed()
        }

        fn insert_account<'a>(&'a self, _: &'a Account) -> BoxFuture<'a, anyhow::Result<()>> {
            ready(Ok(())).boxed()
        }

        fn accounts(&self) -> BoxFuture<'_, anyhow::Result<Vec<Account>>> {
            ready(Ok(Vec::new())).boxed()
        }

        fn insert_api_key<'a>(&'a self, _: &'a ApiKey) -> BoxFuture<'a, anyhow::Result<()>> {
            ready(Ok(())).boxed()
        }

        fn api_keys(&self, _: AccountId) -> BoxFuture<'_, anyhow::Result<Vec<ApiKey>>> {
            ready(Ok(Vec::new())).boxed()
        }

        fn api_key(&self, _: ApiKeyId) -> BoxFuture<'_, anyhow::Result<Option<ApiKey>>> {
            ready(Ok(None)).boxed()
        }

        fn revoke_api_key(&self, _: ApiKeyId, _: Timestamp) -> BoxFuture<'_, anyhow::Result<bool>> {
            ready(Ok(false)).boxed()
        }

        fn api_keys_revoked_since(
            &self,
            _: Timestamp,
            _: u32,
        ) -> BoxFuture<'_, anyhow::Result<Vec<(ApiKeyId, AccountId)>>> {
            ready(Ok(Vec::new())).boxed()
        }

        fn history<'a>(
            &'a self,
            _: AccountId,
            _: &'a UserId,
            _: Option<HistoryCursor>,
            _: u32,
        ) -> BoxFuture<'a, anyhow::Result<Vec<HistoryEntry>>> {
            ready(Ok(Vec::new())).boxed()
        }

        fn missed<'a>(&'a self, _: AccountId, _: &'a UserId) -> BoxFuture<'a, anyhow::Result<u32>> {
            ready(Ok(0)).boxed()
        }

        fn open_calls(
            &self,
            _: Timestamp,
            _: Option<OpenCallsCursor>,
            _: u32,
        ) -> BoxFuture<'_, anyhow::Result<Vec<CallRecord>>> {
            ready(Ok(Vec::new())).boxed()
        }

        fn forget_history(&self, _: Timestamp, _: u32) -> BoxFuture<'_, anyhow::Result<u64>> {
            ready(Ok(0)).boxed()
        }

        fn relayed<'a>(
            &'a self,
            _: Option<&'a str>,
            _: Timestamp,
        ) -> BoxFuture<'a, anyhow::Result<Vec<DayOfRelay>>> {
            ready(Ok(Vec::new())).boxed()
        }

        fn forget_relayed(&self, _: Timestamp, _: u32) -> BoxFuture<'_, anyhow::Result<u64>> {
            ready(Ok(0)).boxed()
        }

        fn telephony(&self, _: AccountId) -> BoxFuture<'_, anyhow::Result<telephony::Stored>> {
            ready(Ok(telephony::Stored::default())).boxed()
        }

        fn change_telephony<'a>(
            &'a self,
            _: AccountId,
            expected: u64,
            _: &'a telephony::Change,
            _: Timestamp,
        ) -> BoxFuture<'a, Result<u64, TelephonyError>> {
            ready(Ok(expected)).boxed()
        }

        fn telephony_changed_since(
            &self,
            _: Timestamp,
            _: u32,
        ) -> BoxFuture<'_, anyhow::Result<Vec<TelephonyVersion>>> {
            ready(Ok(Vec::new())).boxed()
        }

        fn telephony_secrets_besides<'a>(
            &'a self,
            _: &'a str,
        ) -> BoxFuture<'a, anyhow::Result<Vec<(AccountId, telephony::SecretRow)>>> {
            ready(Ok(Vec::new())).boxed()
        }

        fn reseal_telephony_secret<'a>(
            &'a self,
            _: AccountId,
            _: &'a sealing::Sealed,
            _: &'a telephony::SecretRow,
        ) -> BoxFuture<'a, anyhow::Result<bool>> {
            ready(Ok(false)).boxed()
        }

        fn legs<'a>(
            &'a self,
            _: AccountId,
            _: &'a LegFilter,
            _: Option<KeptCursor>,
            _: u32,
        ) -> BoxFuture<'a, anyhow::Result<Vec<LegRecord>>> {
            ready(Ok(Vec::new())).boxed()
        }

        fn forget_legs(&self, _: Timestamp, _: u32) -> BoxFuture<'_, anyhow::Result<u64>> {
            ready(Ok(0)).boxed()
        }

        fn voicemails<'a>(
            &'a self,
            _: AccountId,
            _: &'a Mailbox,
            _: Option<KeptCursor>,
            _: u32,
        ) -> BoxFuture<'a, anyhow::Result<Vec<Voicemail>>> {
            ready(Ok(Vec::new())).boxed()
        }

        fn voicemail(
            &self,
            _: AccountId,
            _: VoicemailId,
        ) -> BoxFuture<'_, anyhow::Result<Option<Voicemail>>> {
            ready(Ok(None)).boxed()
        }

        fn voicemails_new<'a>(
            &'a self,
            _: AccountId,
            _: &'a Mailbox,
        ) -> BoxFuture<'a, anyhow::Result<u32>> {
            ready(Ok(0)).boxed()
        }

        fn delete_voicemail(
            &self,
            _: AccountId,
            _: VoicemailId,
        ) -> BoxFuture<'_, anyhow::Result<bool>> {
            ready(Ok(false)).boxed()
        }

        fn users(&self, _: AccountId, _: u32) -> BoxFuture<'_, anyhow::Result<Vec<Named>>> {
            ready(Ok(Vec::new())).boxed()
        }

        fn named<'a>(
            &'a self,
            _: AccountId,
            _: &'a [UserId],
        ) -> BoxFuture<'a, anyhow::Result<Vec<Named>>> {
            ready(Ok(Vec::new())).boxed()
        }
    }

    fn change(n: u64) -> RecordChange {
        RecordChange::HistorySeen {
            account: AccountId::from_u128(1),
            user: "alice".parse().unwrap(),
            at: Timestamp::from_millis(n),
        }
    }

    #[tokio::test]
    async fn a_full_disk_holds_nobody_up_and_what_waits_is_written_once_there_is_room() {
        let disk = Arc::new(Disk::default());
        let records = Records::with_engine(disk.clone());
        let mut recorded = 0;
        while records.health().lost == 0 {
            records.record(change(recorded)).await.unwrap();
            recorded += 1;
        }
        recorded -= 1;
        assert!(recorded >= QUEUE_LEN_MAX as u64, "{recorded}");
        let health = records.health();
        assert!(
            health.failing && health.waiting == QUEUE_LEN_MAX && health.lost == 1,
            "{health:?}"
        );
        assert_eq!(
            records.users(AccountId::from_u128(1), 10).await.unwrap(),
            []
        );

        disk.has_room.store(true, Ordering::Relaxed);
        records.flush().await.unwrap();
        assert_eq!(disk.written.load(Ordering::Relaxed), recorded);
        assert!(!records.health().failing);
    }
}
