//! What a database must do for [`Records`](super::Records).
//!
//! Another database comes in as another implementation. The statements of [`sqlite`](super::sqlite) are kept to what
//! MariaDB understands too: `?` for values, and *update, else insert* in one transaction in place of an upsert.

use futures_util::future::BoxFuture;
use model::record::{DayOfRelay, HistoryEntry, Named, OpenCallsCursor};
use model::{AccountId, ApiKeyId, CallRecord, RecordChange, Timestamp, UserId};

use super::{Account, ApiKey, HistoryCursor};

/// Why changes were not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// One of them can never be written, such as one of an Account that does not exist.
    #[error("the records refuse it: {0}")]
    Refused(sqlx::Error),
    /// The database does not work at the moment.
    #[error("the records can't be written: {0}")]
    Failed(sqlx::Error),
}

/// A database.
pub(super) trait Engine: Send + Sync + 'static {
    /// Applies all `changes`, in order, in one transaction, or none of them. What was applied before changes nothing.
    fn apply<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<(), WriteError>>;

    fn insert_account<'a>(&'a self, account: &'a Account) -> BoxFuture<'a, anyhow::Result<()>>;
    fn accounts(&self) -> BoxFuture<'_, anyhow::Result<Vec<Account>>>;

    fn insert_api_key<'a>(&'a self, key: &'a ApiKey) -> BoxFuture<'a, anyhow::Result<()>>;
    fn api_keys(&self, account: AccountId) -> BoxFuture<'_, anyhow::Result<Vec<ApiKey>>>;
    fn api_key(&self, id: ApiKeyId) -> BoxFuture<'_, anyhow::Result<Option<ApiKey>>>;
    /// Whether there is such a key.
    fn revoke_api_key(&self, id: ApiKeyId, at: Timestamp) -> BoxFuture<'_, anyhow::Result<bool>>;
    /// Those revoked at `since` or later, the latest first.
    fn api_keys_revoked_since(
        &self,
        since: Timestamp,
        limit: u32,
    ) -> BoxFuture<'_, anyhow::Result<Vec<(ApiKeyId, AccountId)>>>;

    /// Newest first.
    fn history<'a>(
        &'a self,
        account: AccountId,
        user: &'a UserId,
        before: Option<HistoryCursor>,
        limit: u32,
    ) -> BoxFuture<'a, anyhow::Result<Vec<HistoryEntry>>>;
    /// Calls without an end that were invited before `before`, oldest first.
    fn open_calls(
        &self,
        before: Timestamp,
        after: Option<OpenCallsCursor>,
        limit: u32,
    ) -> BoxFuture<'_, anyhow::Result<Vec<CallRecord>>>;
    /// Missed Calls that ended after the User last looked.
    fn missed<'a>(
        &'a self,
        account: AccountId,
        user: &'a UserId,
    ) -> BoxFuture<'a, anyhow::Result<u32>>;

    /// Forgets at most `limit` Calls invited before `before`, of all Accounts; how many those were.
    fn forget_history(&self, before: Timestamp, limit: u32) -> BoxFuture<'_, anyhow::Result<u64>>;

    /// What was relayed from `since` on, by day and Account; of one Account, or of all.
    fn relayed<'a>(
        &'a self,
        account: Option<&'a str>,
        since: Timestamp,
    ) -> BoxFuture<'a, anyhow::Result<Vec<DayOfRelay>>>;
    /// Forgets at most `limit` rows of what was relayed before `before`; how many those were.
    fn forget_relayed(&self, before: Timestamp, limit: u32) -> BoxFuture<'_, anyhow::Result<u64>>;

    /// Last seen first.
    fn users(&self, account: AccountId, limit: u32) -> BoxFuture<'_, anyhow::Result<Vec<Named>>>;
    /// Those of `users` that exist.
    fn named<'a>(
        &'a self,
        account: AccountId,
        users: &'a [UserId],
    ) -> BoxFuture<'a, anyhow::Result<Vec<Named>>>;
}
