//! What a database must do for [`Records`](super::Records).
//!
//! Another database comes in as another implementation. The statements of [`sqlite`](super::sqlite) are kept to what
//! MariaDB understands too: `?` for values, and *update, else insert* in one transaction in place of an upsert.

use futures_util::future::BoxFuture;
use model::phone::rows::{KeptCursor, LegRecord, Mailbox, Voicemail};
use model::record::{DayOfRelay, HistoryEntry, Named, OpenCallsCursor};
use model::{AccountId, ApiKeyId, CallRecord, RecordChange, Timestamp, UserId, VoicemailId};

use super::phone_calls::LegFilter;
use super::sealing::Sealed;
use super::telephony::{Change, SecretRow, Stored, TelephonyError, TelephonyVersion};
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

    /// All rows of an Account at one moment.
    fn telephony(&self, account: AccountId) -> BoxFuture<'_, anyhow::Result<Stored>>;
    /// Makes a change to the version it was made for, in one transaction; returns the version there is now.
    fn change_telephony<'a>(
        &'a self,
        account: AccountId,
        expected: u64,
        change: &'a Change,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<u64, TelephonyError>>;
    /// Those changed at `since` or later, oldest change first.
    fn telephony_changed_since(
        &self,
        since: Timestamp,
        limit: u32,
    ) -> BoxFuture<'_, anyhow::Result<Vec<TelephonyVersion>>>;
    /// Secrets of all Accounts that another key than this one encrypted.
    fn telephony_secrets_besides<'a>(
        &'a self,
        key_id: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<Vec<(AccountId, SecretRow)>>>;
    /// Puts a secret that was encrypted anew in the place of the old one, unless that has changed; whether it was.
    fn reseal_telephony_secret<'a>(
        &'a self,
        account: AccountId,
        old: &'a Sealed,
        new: &'a SecretRow,
    ) -> BoxFuture<'a, anyhow::Result<bool>>;

    /// Newest first.
    fn legs<'a>(
        &'a self,
        account: AccountId,
        filter: &'a LegFilter,
        before: Option<KeptCursor>,
        limit: u32,
    ) -> BoxFuture<'a, anyhow::Result<Vec<LegRecord>>>;
    /// Forgets at most `limit` Legs that began before `before`, of all Accounts; how many those were.
    fn forget_legs(&self, before: Timestamp, limit: u32) -> BoxFuture<'_, anyhow::Result<u64>>;

    /// Newest first; of one mailbox.
    fn voicemails<'a>(
        &'a self,
        account: AccountId,
        mailbox: &'a Mailbox,
        before: Option<KeptCursor>,
        limit: u32,
    ) -> BoxFuture<'a, anyhow::Result<Vec<Voicemail>>>;
    fn voicemail(
        &self,
        account: AccountId,
        id: VoicemailId,
    ) -> BoxFuture<'_, anyhow::Result<Option<Voicemail>>>;
    /// Messages nobody has heard yet.
    fn voicemails_new<'a>(
        &'a self,
        account: AccountId,
        mailbox: &'a Mailbox,
    ) -> BoxFuture<'a, anyhow::Result<u32>>;
    /// Whether there was such a message.
    fn delete_voicemail(
        &self,
        account: AccountId,
        id: VoicemailId,
    ) -> BoxFuture<'_, anyhow::Result<bool>>;
}
