//! What is kept of phone calls: call records and messages in mailboxes.

use model::phone::rows::{KeptCursor, LegRecord, Mailbox, RowName, Voicemail};
use model::{AccountId, CallId, Timestamp, UserId, VoicemailId};

use super::Records;

/// The most entries of one page.
const PAGE_MAX: u32 = 500;

/// Which call records are asked for: those that fit all that is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LegFilter {
    /// Of one User.
    pub user: Option<UserId>,
    /// Of one Trunk.
    pub trunk: Option<RowName>,
    /// Of one phone call.
    pub call: Option<CallId>,
    /// Begun at this moment or later.
    pub since: Option<Timestamp>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPage<T> {
    /// Newest first.
    pub entries: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<KeptCursor>,
}

impl Records {
    /// The call records of `account` that fit `filter` and are older than `before`, at most `limit` and 500. Sees every change
    /// recorded before, unless the disk is stuck.
    pub async fn legs(
        &self,
        account: AccountId,
        filter: &LegFilter,
        before: Option<KeptCursor>,
        limit: u32,
    ) -> anyhow::Result<KeptPage<LegRecord>> {
        self.settle().await?;
        let limit = limit.clamp(1, PAGE_MAX);
        let entries = self.engine.legs(account, filter, before, limit + 1).await?;
        Ok(page(entries, limit, |leg| KeptCursor {
            at: leg.created_at,
            id: leg.leg.as_u128(),
        }))
    }

    /// Forgets the call records of all Accounts that began before `before`, the oldest first, at most `limit`; how many those were.
    pub async fn forget_legs(&self, before: Timestamp, limit: u32) -> anyhow::Result<u64> {
        self.engine.forget_legs(before, limit).await
    }

    /// The messages in a mailbox older than `before`, at most `limit` and 500. Sees every change recorded before, unless the disk is
    /// stuck.
    pub async fn voicemails(
        &self,
        account: AccountId,
        mailbox: &Mailbox,
        before: Option<KeptCursor>,
        limit: u32,
    ) -> anyhow::Result<KeptPage<Voicemail>> {
        self.settle().await?;
        let limit = limit.clamp(1, PAGE_MAX);
        let entries = self
            .engine
            .voicemails(account, mailbox, before, limit + 1)
            .await?;
        Ok(page(entries, limit, |message| KeptCursor {
            at: message.left_at,
            id: message.id.as_u128(),
        }))
    }

    /// One message; `None` where there is none. Sees every change recorded before, unless the disk is stuck.
    pub async fn voicemail(
        &self,
        account: AccountId,
        id: VoicemailId,
    ) -> anyhow::Result<Option<Voicemail>> {
        self.settle().await?;
        self.engine.voicemail(account, id).await
    }

    /// How many messages of a mailbox nobody has heard. Sees every change recorded before, unless the disk is stuck.
    pub async fn voicemails_new(
        &self,
        account: AccountId,
        mailbox: &Mailbox,
    ) -> anyhow::Result<u32> {
        self.settle().await?;
        self.engine.voicemails_new(account, mailbox).await
    }

    /// Deletes a message; whether there was one. What was said is an object, and is for whoever keeps those.
    pub async fn delete_voicemail(
        &self,
        account: AccountId,
        id: VoicemailId,
    ) -> anyhow::Result<bool> {
        // One that is still on its way to the disk would come after its end.
        self.settle().await?;
        self.engine.delete_voicemail(account, id).await
    }
}

/// One entry more than wanted tells whether there is another page.
fn page<T>(mut entries: Vec<T>, limit: u32, cursor: impl Fn(&T) -> KeptCursor) -> KeptPage<T> {
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next = entries.last().filter(|_| more).map(cursor);
    KeptPage { entries, next }
}
