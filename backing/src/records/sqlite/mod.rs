//! SQLite: one connection that writes, a few that read.
//!
//! WAL lets readers go on while the writer commits. `synchronous = FULL` makes a commit survive a power cut: it costs
//! one fsync per *transaction*, and the writer puts everything that waits into one, so `NORMAL` would gain little and
//! could lose an API key that an operator has been shown.

mod changes;
mod legs;
mod relayed;
mod row;
mod telephony;
mod voicemails;

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use model::phone::rows::{KeptCursor, LegRecord, Mailbox, Voicemail};
use model::record::{DayOfRelay, HistoryEntry, Named, OpenCallsCursor};
use model::{AccountId, ApiKeyId, CallRecord, RecordChange, Timestamp, UserId, VoicemailId};
use sqlx::SqlitePool;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};

use super::engine::{Engine, WriteError};
use super::phone_calls::LegFilter;
use super::sealing::Sealed;
use super::telephony::{Change, SecretRow, Stored, TelephonyError, TelephonyVersion};
use super::{Account, ApiKey, HistoryCursor};
use row::millis;

/// How many questions can be answered at once.
const READERS: u32 = 3;
/// How long a statement waits for another process that writes, such as `offhook token`.
const TIMEOUT_BUSY: Duration = Duration::from_secs(10);
/// How often a database is tried to be opened: processes that make it at the same time are in each other's way, and no lock
/// of SQLite's covers that.
const OPEN_TRIES_MAX: u32 = 20;
/// How long to wait in between.
const OPEN_PAUSE: Duration = Duration::from_millis(100);

/// An SQLite database.
pub(super) struct Sqlite {
    /// One connection: SQLite has one writer at a time anyway, and here nobody waits in a busy loop.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    pub(super) async fn open(path: &Path) -> anyhow::Result<Self> {
        make_private(path)?;

        for _ in 1..OPEN_TRIES_MAX {
            match Self::try_open(path).await {
                Err(error) if is_passing(&error) => tokio::time::sleep(OPEN_PAUSE).await,
                outcome => return outcome,
            }
        }
        Self::try_open(path).await
    }

    async fn try_open(path: &Path) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(TIMEOUT_BUSY);

        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await?;
        sqlx::migrate!("migrations/sqlite").run(&writer).await?;

        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await?;

        Ok(Self { writer, readers })
    }
}

/// Whether another process may be the cause, one that is making the database at this moment.
fn is_passing(error: &anyhow::Error) -> bool {
    let of_database = error.chain().find_map(|error| {
        let error = error.downcast_ref::<sqlx::Error>()?;
        error.as_database_error()
    });
    of_database.is_some()
}

/// Makes the file, so that nobody but its owner can read the secrets in it; its companions take over its mode.
fn make_private(path: &Path) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);

    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);

    options.open(path).map(drop).context("can't make the file")
}

impl Engine for Sqlite {
    fn apply<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<(), WriteError>> {
        changes::apply(&self.writer, changes).boxed()
    }

    fn insert_account<'a>(&'a self, account: &'a Account) -> BoxFuture<'a, anyhow::Result<()>> {
        const SQL: &str = "INSERT INTO accounts (account_id, name, created_at) VALUES (?, ?, ?)";

        let insert = sqlx::query(SQL)
            .bind(account.account.to_string())
            .bind(&account.name)
            .bind(millis(account.created_at));
        async { Ok(insert.execute(&self.writer).await.map(drop)?) }.boxed()
    }

    fn accounts(&self) -> BoxFuture<'_, anyhow::Result<Vec<Account>>> {
        const SQL: &str =
            "SELECT account_id, name, created_at FROM accounts ORDER BY created_at, account_id";

        async {
            all(
                sqlx::query(SQL).fetch_all(&self.readers).await?,
                row::account,
            )
        }
        .boxed()
    }

    fn insert_api_key<'a>(&'a self, key: &'a ApiKey) -> BoxFuture<'a, anyhow::Result<()>> {
        const SQL: &str =
            "INSERT INTO api_keys (api_key_id, account_id, secret, created_at, revoked_at)
            VALUES (?, ?, ?, ?, ?)";

        let insert = sqlx::query(SQL)
            .bind(key.id.to_string())
            .bind(key.account.to_string())
            .bind(&key.secret)
            .bind(millis(key.created_at))
            .bind(key.revoked_at.map(millis));
        async { Ok(insert.execute(&self.writer).await.map(drop)?) }.boxed()
    }

    fn api_keys(&self, account: AccountId) -> BoxFuture<'_, anyhow::Result<Vec<ApiKey>>> {
        const SQL: &str = "SELECT api_key_id, account_id, secret, created_at, revoked_at
            FROM api_keys WHERE account_id = ? ORDER BY api_key_id";

        let select = sqlx::query(SQL).bind(account.to_string());
        async { all(select.fetch_all(&self.readers).await?, row::api_key) }.boxed()
    }

    fn api_key(&self, id: ApiKeyId) -> BoxFuture<'_, anyhow::Result<Option<ApiKey>>> {
        const SQL: &str = "SELECT api_key_id, account_id, secret, created_at, revoked_at
            FROM api_keys WHERE api_key_id = ?";

        let select = sqlx::query(SQL).bind(id.to_string());
        async {
            let row = select.fetch_optional(&self.readers).await?;
            row.as_ref().map(row::api_key).transpose()
        }
        .boxed()
    }

    fn revoke_api_key(&self, id: ApiKeyId, at: Timestamp) -> BoxFuture<'_, anyhow::Result<bool>> {
        const SQL: &str =
            "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, ?) WHERE api_key_id = ?";

        let update = sqlx::query(SQL).bind(millis(at)).bind(id.to_string());
        async { Ok(update.execute(&self.writer).await?.rows_affected() > 0) }.boxed()
    }

    fn api_keys_revoked_since(
        &self,
        since: Timestamp,
        limit: u32,
    ) -> BoxFuture<'_, anyhow::Result<Vec<(ApiKeyId, AccountId)>>> {
        const SQL: &str = "SELECT api_key_id, account_id FROM api_keys
            WHERE revoked_at >= ? ORDER BY revoked_at DESC LIMIT ?";

        let select = sqlx::query(SQL).bind(millis(since)).bind(limit);
        async {
            all(
                select.fetch_all(&self.readers).await?,
                row::api_key_and_account,
            )
        }
        .boxed()
    }

    fn history<'a>(
        &'a self,
        account: AccountId,
        user: &'a UserId,
        before: Option<HistoryCursor>,
        limit: u32,
    ) -> BoxFuture<'a, anyhow::Result<Vec<HistoryEntry>>> {
        // Each half walks its own index backwards and stops at the limit.
        const SQL: &str = "
            SELECT * FROM (
                SELECT * FROM calls WHERE account_id = ? AND caller = ? AND (created_at, call_id) < (?, ?)
                ORDER BY created_at DESC, call_id DESC LIMIT ?
            ) AS dialled
            UNION ALL
            SELECT * FROM (
                SELECT * FROM calls WHERE account_id = ? AND callee = ? AND (created_at, call_id) < (?, ?)
                ORDER BY created_at DESC, call_id DESC LIMIT ?
            ) AS received
            ORDER BY created_at DESC, call_id DESC LIMIT ?";

        let (created_at, call) = match before {
            Some(before) => (millis(before.created_at), before.call.to_string()),
            None => (i64::MAX, String::new()),
        };

        async move {
            let mut select = sqlx::query(SQL);
            for _half in 0..2 {
                select = select
                    .bind(account.to_string())
                    .bind(user.as_str())
                    .bind(created_at)
                    .bind(call.clone())
                    .bind(limit);
            }

            let rows = select.bind(limit).fetch_all(&self.readers).await?;
            all(rows, |row| Ok(row::call(row)?.entry_for(user)))
        }
        .boxed()
    }

    fn open_calls(
        &self,
        before: Timestamp,
        after: Option<OpenCallsCursor>,
        limit: u32,
    ) -> BoxFuture<'_, anyhow::Result<Vec<CallRecord>>> {
        // Its index holds the open rows alone.
        const SQL: &str = "SELECT * FROM calls
            WHERE ended_at IS NULL AND created_at < ? AND (created_at, account_id, call_id) > (?, ?, ?)
            ORDER BY created_at, account_id, call_id LIMIT ?";

        let (created_at, account, call) = match after {
            Some(after) => (
                millis(after.created_at),
                after.account.to_string(),
                after.call.to_string(),
            ),
            None => (i64::MIN, String::new(), String::new()),
        };
        let select = sqlx::query(SQL)
            .bind(millis(before))
            .bind(created_at)
            .bind(account)
            .bind(call)
            .bind(limit);
        async { all(select.fetch_all(&self.readers).await?, row::call) }.boxed()
    }

    fn missed<'a>(
        &'a self,
        account: AccountId,
        user: &'a UserId,
    ) -> BoxFuture<'a, anyhow::Result<u32>> {
        const SQL: &str = "SELECT COUNT(*) FROM calls
            WHERE account_id = ? AND callee = ? AND missed = 1 AND ended_at > COALESCE(
                (SELECT history_seen_at FROM users WHERE users.account_id = ? AND users.user_id = ?), 0)";

        let select = sqlx::query_scalar(SQL)
            .bind(account.to_string())
            .bind(user.as_str())
            .bind(account.to_string())
            .bind(user.as_str());
        async { Ok(select.fetch_one(&self.readers).await?) }.boxed()
    }

    fn forget_history(&self, before: Timestamp, limit: u32) -> BoxFuture<'_, anyhow::Result<u64>> {
        // The inner table has a name of its own, because MariaDB can't read the one it deletes from.
        const SQL: &str = "DELETE FROM calls WHERE (account_id, call_id) IN (
            SELECT account_id, call_id FROM (
                SELECT account_id, call_id FROM calls WHERE created_at < ? ORDER BY created_at LIMIT ?
            ) AS old
        )";

        let delete = sqlx::query(SQL).bind(millis(before)).bind(limit);
        async { Ok(delete.execute(&self.writer).await?.rows_affected()) }.boxed()
    }

    fn relayed<'a>(
        &'a self,
        account: Option<&'a str>,
        since: Timestamp,
    ) -> BoxFuture<'a, anyhow::Result<Vec<DayOfRelay>>> {
        relayed::since(&self.readers, account, since).boxed()
    }

    fn forget_relayed(&self, before: Timestamp, limit: u32) -> BoxFuture<'_, anyhow::Result<u64>> {
        relayed::forget(&self.writer, before, limit).boxed()
    }

    fn telephony(&self, account: AccountId) -> BoxFuture<'_, anyhow::Result<Stored>> {
        telephony::load(&self.readers, account).boxed()
    }

    fn change_telephony<'a>(
        &'a self,
        account: AccountId,
        expected: u64,
        change: &'a Change,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<u64, TelephonyError>> {
        telephony::change(&self.writer, account, expected, change, at).boxed()
    }

    fn telephony_changed_since(
        &self,
        since: Timestamp,
        limit: u32,
    ) -> BoxFuture<'_, anyhow::Result<Vec<TelephonyVersion>>> {
        telephony::changed_since(&self.readers, since, limit).boxed()
    }

    fn telephony_secrets_besides<'a>(
        &'a self,
        key_id: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<Vec<(AccountId, SecretRow)>>> {
        telephony::secrets_besides(&self.readers, key_id).boxed()
    }

    fn reseal_telephony_secret<'a>(
        &'a self,
        account: AccountId,
        old: &'a Sealed,
        new: &'a SecretRow,
    ) -> BoxFuture<'a, anyhow::Result<bool>> {
        telephony::reseal(&self.writer, account, old, new).boxed()
    }

    fn legs<'a>(
        &'a self,
        account: AccountId,
        filter: &'a LegFilter,
        before: Option<KeptCursor>,
        limit: u32,
    ) -> BoxFuture<'a, anyhow::Result<Vec<LegRecord>>> {
        legs::page(&self.readers, account, filter, before, limit).boxed()
    }

    fn forget_legs(&self, before: Timestamp, limit: u32) -> BoxFuture<'_, anyhow::Result<u64>> {
        legs::forget(&self.writer, before, limit).boxed()
    }

    fn voicemails<'a>(
        &'a self,
        account: AccountId,
        mailbox: &'a Mailbox,
        before: Option<KeptCursor>,
        limit: u32,
    ) -> BoxFuture<'a, anyhow::Result<Vec<Voicemail>>> {
        voicemails::page(&self.readers, account, mailbox, before, limit).boxed()
    }

    fn voicemail(
        &self,
        account: AccountId,
        id: VoicemailId,
    ) -> BoxFuture<'_, anyhow::Result<Option<Voicemail>>> {
        voicemails::one(&self.readers, account, id).boxed()
    }

    fn voicemails_new<'a>(
        &'a self,
        account: AccountId,
        mailbox: &'a Mailbox,
    ) -> BoxFuture<'a, anyhow::Result<u32>> {
        voicemails::unheard(&self.readers, account, mailbox).boxed()
    }

    fn delete_voicemail(
        &self,
        account: AccountId,
        id: VoicemailId,
    ) -> BoxFuture<'_, anyhow::Result<bool>> {
        voicemails::delete(&self.writer, account, id).boxed()
    }

    fn users(&self, account: AccountId, limit: u32) -> BoxFuture<'_, anyhow::Result<Vec<Named>>> {
        const SQL: &str = "SELECT user_id, name FROM users WHERE account_id = ?
            ORDER BY seen_at DESC, user_id LIMIT ?";

        let select = sqlx::query(SQL).bind(account.to_string()).bind(limit);
        async { all(select.fetch_all(&self.readers).await?, row::named) }.boxed()
    }

    fn named<'a>(
        &'a self,
        account: AccountId,
        users: &'a [UserId],
    ) -> BoxFuture<'a, anyhow::Result<Vec<Named>>> {
        const SQL: &str = "SELECT user_id, name FROM users WHERE account_id = ? AND user_id = ?";

        async move {
            let mut reader = self.readers.acquire().await?;
            let mut named = Vec::new();

            for user in users {
                let select = sqlx::query(SQL)
                    .bind(account.to_string())
                    .bind(user.as_str());
                if let Some(row) = select.fetch_optional(&mut *reader).await? {
                    named.push(row::named(&row)?);
                }
            }

            Ok(named)
        }
        .boxed()
    }
}

fn all<T>(
    rows: Vec<SqliteRow>,
    read: impl Fn(&SqliteRow) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<T>> {
    rows.into_iter().map(|row| read(&row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_that_was_full_is_written_to_again() {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(&dir.path().join("records")).await.unwrap();
        let account = Account {
            account: AccountId::from_u128(1),
            name: "Acme".to_owned(),
            created_at: Timestamp::from_millis(1),
        };
        sqlite.insert_account(&account).await.unwrap();
        let changes: Vec<_> = (0..1_000)
            .map(|n| RecordChange::UserSeen {
                account: account.account,
                user: format!("user{n}").parse().unwrap(),
                name: Some("x".repeat(200)),
                at: Timestamp::from_millis(n),
            })
            .collect();

        // To this connection, the disk is full; the one that comes after it finds room.
        let full = sqlx::query("PRAGMA max_page_count = 20");
        full.execute(&sqlite.writer).await.unwrap();
        let refused = sqlite.apply(&changes).await;
        assert!(matches!(refused, Err(WriteError::Failed(_))), "{refused:?}");

        sqlite.apply(&changes).await.unwrap();
        let users = sqlite.users(account.account, 2_000).await.unwrap();
        assert_eq!(users.len(), changes.len());
    }
}
