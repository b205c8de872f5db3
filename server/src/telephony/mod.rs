//! Telephony of Accounts: the file that says it, and how a running server learns of a change.
//!
//! ```text
//! offhook apply ─▶ records ◀── every two seconds: what changed lately? ── Keeper ─▶ watch: Directory ─▶ gateway
//! ```
//!
//! The command and the server share nothing but the records, so that it works whether one runs or not, and from another machine as
//! well where the records are elsewhere.

pub mod apply;
pub mod difference;
pub mod document;
pub mod prompts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use backing::records::{Records, SecretKeys, TelephonyVersion};
use model::phone::rows::Telephony;
use model::{AccountId, Timestamp};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at};

/// What all Accounts have, whole Accounts at a time: who holds one has a state that was once applied.
pub type Directory = Arc<BTreeMap<AccountId, Arc<Telephony>>>;

/// How often the records are asked.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How far back each look goes: clocks of whoever writes differ, and a transaction is seen some time after its moment.
const LOOK_BACK_MS: u64 = 5 * 60_000;

/// How many changed Accounts are asked for at once.
const PAGE: u32 = 1_000;

/// Follows the records.
pub struct Keeper {
    records: Records,
    keys: SecretKeys,
    versions: BTreeMap<AccountId, u64>,
    latest: Timestamp,
    directory: watch::Sender<Directory>,
}

impl Keeper {
    /// Reads what there is. Rows that can't be read are told in the log, and the rest is there all the same.
    ///
    /// Fails when the records can't be read at all.
    pub async fn start(records: Records, keys: SecretKeys) -> anyhow::Result<Self> {
        let resealed = records.reseal_telephony(&keys).await?;
        if resealed > 0 {
            tracing::info!(
                secrets = resealed,
                "Encrypted secrets of telephony with the new `seal`; `seal_before` can go"
            );
        }
        let mut keeper = Self {
            records,
            keys,
            versions: BTreeMap::new(),
            latest: Timestamp::from_millis(0),
            directory: watch::channel(Directory::default()).0,
        };
        keeper
            .look()
            .await
            .context("can't read the telephony of Accounts")?;
        Ok(keeper)
    }

    /// What all Accounts have at the moment, and news of each change.
    pub fn directory(&self) -> watch::Receiver<Directory> {
        self.directory.subscribe()
    }

    /// Follows, for ever.
    pub async fn keep(mut self) {
        let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        let mut is_failing = false;
        loop {
            looks.tick().await;
            match self.look().await {
                Ok(()) => is_failing = false,
                // Once: it may go on for hours.
                Err(_) if is_failing => {}
                Err(error) => {
                    is_failing = true;
                    tracing::error!(
                        error = format!("{error:#}"),
                        "Can't look for changes of telephony; what was read last goes on"
                    );
                }
            }
        }
    }

    /// Reads the Accounts that have changed since the last look.
    async fn look(&mut self) -> anyhow::Result<()> {
        let mut changed = BTreeMap::new();
        let mut since =
            Timestamp::from_millis(self.latest.as_millis().saturating_sub(LOOK_BACK_MS));
        loop {
            let page = self.records.telephony_changed_since(since, PAGE).await?;
            let is_full = page.len() >= PAGE as usize;
            let last = page.last().map(|version| version.changed_at);
            for TelephonyVersion {
                account,
                version,
                changed_at,
            } in page
            {
                self.latest = self.latest.max(changed_at);
                if self.versions.get(&account) != Some(&version) {
                    changed.insert(account, version);
                }
            }
            match last.filter(|_| is_full) {
                // More than a page in one millisecond is more than there can be.
                Some(last) if last > since => since = last,
                _ => break,
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        let mut directory = self.directory.borrow().as_ref().clone();
        for (account, version) in changed {
            match self.records.telephony(account, &self.keys).await {
                Ok(stored) => {
                    tell_of(account, &stored.telephony, version);
                    for (of, why) in &stored.unreadable {
                        let (kind, row, field) = (of.kind, &of.name, of.field.as_str());
                        tracing::error!(%account, %kind, row, field, why, "A secret can't be read, and its row is without it");
                    }
                    self.versions.insert(account, stored.version);
                    directory.insert(account, Arc::new(stored.telephony));
                }
                Err(error) => {
                    // It is not tried again before it changes again.
                    self.versions.insert(account, version);
                    tracing::error!(%account, error = format!("{error:#}"), "Telephony can't be read; what was read last goes on");
                }
            }
        }
        self.directory.send_replace(Arc::new(directory));
        Ok(())
    }
}

/// Says in the log what an operator should know of an Account's rows.
fn tell_of(account: AccountId, telephony: &Telephony, version: u64) {
    let (trunks, numbers) = (telephony.trunks.len(), telephony.numbers.len());
    tracing::info!(%account, version, trunks, numbers, "Telephony of an Account");
    if telephony.lacks_emergency() {
        tracing::warn!(
            %account,
            "There is a Trunk, and nobody has said what becomes of calls for help: they are refused with spoken words until `emergency` is applied"
        );
    }
}

#[cfg(test)]
mod tests;
