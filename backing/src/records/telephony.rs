//! What Accounts have of telephony: Trunks, Numbers, Queues and the rest, whole Accounts at a time.

use std::collections::BTreeMap;

use anyhow::Context;
use model::phone::rows::{Kind, Peering, SecretField, SecretOf, Telephony};
use model::{AccountId, Timestamp};
use serde_json::{Map, Value};

use super::sealing::{Sealed, SecretKeys};
use super::{Records, now};

/// The rows of an Account, and how often they have changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredTelephony {
    /// The rows.
    pub telephony: Telephony,
    /// 0 where there was never one; a higher one after each change.
    pub version: u64,
    /// The secrets that don't open, and why; their rows are without them.
    pub unreadable: Vec<(SecretOf, String)>,
}

/// Why rows were not written.
#[derive(Debug, thiserror::Error)]
pub enum TelephonyError {
    /// Somebody else has written meanwhile: read again, and decide again.
    #[error("the rows have changed meanwhile (version {now}, not {expected})")]
    Changed {
        /// What whoever writes has read.
        expected: u64,
        /// What there is.
        now: u64,
    },
    /// A user of digest authentication belongs to another Account.
    #[error(
        "`{user}`, in `{kind}`, is a SIP user of another Account of this server: take another one"
    )]
    Taken {
        /// The user.
        user: String,
        /// Where it is wanted.
        kind: Kind,
    },
    /// The database does not work, or there is no such Account.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// One row as the database keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) kind: Kind,
    /// Empty for what an Account has one of.
    pub(super) name: String,
    /// JSON without secrets.
    pub(super) definition: String,
    /// What no other row of any Account may have.
    pub(super) claim: Option<String>,
}

/// One secret as the database keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SecretRow {
    pub(super) of: SecretOf,
    pub(super) sealed: Sealed,
}

/// What the database has of an Account.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) version: u64,
    pub(super) rows: Vec<Row>,
    pub(super) secrets: Vec<SecretRow>,
}

/// What has to be done to the database.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) remove: Vec<(Kind, String)>,
    /// Inserted, or put in the place of those of the same name.
    pub(super) put: Vec<Row>,
    pub(super) remove_secrets: Vec<SecretOf>,
    pub(super) put_secrets: Vec<SecretRow>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Records {
    /// What `account` has of telephony, with its secrets; nothing, where it never had any.
    ///
    /// Fails when a row is of a newer version of the server.
    pub async fn telephony(
        &self,
        account: AccountId,
        keys: &SecretKeys,
    ) -> anyhow::Result<StoredTelephony> {
        let stored = self.engine.telephony(account).await?;
        read(account, stored, keys)
            .with_context(|| format!("can't read the telephony of Account {account}"))
    }

    /// Puts `telephony`, which is right by its own check, in the place of what `account` has, all of it or nothing. `expected` is the
    /// version that was read. Returns the version it has now: the same one where nothing is other than before.
    ///
    /// Nobody who reads sees a part of it.
    pub async fn replace_telephony(
        &self,
        account: AccountId,
        expected: u64,
        telephony: &Telephony,
        keys: &SecretKeys,
    ) -> Result<u64, TelephonyError> {
        if let Some(wrong) = telephony.check().first() {
            return Err(anyhow::anyhow!("{wrong}").into());
        }
        let stored = self.engine.telephony(account).await?;
        if stored.version != expected {
            return Err(TelephonyError::Changed {
                expected,
                now: stored.version,
            });
        }
        let change = change(account, &stored, telephony, keys)?;
        if change.is_empty() {
            return Ok(expected);
        }
        self.engine
            .change_telephony(account, expected, &change, now())
            .await
    }

    /// The Accounts whose telephony changed at `since` or later, with their versions, oldest change first, at most `limit`.
    pub async fn telephony_changed_since(
        &self,
        since: Timestamp,
        limit: u32,
    ) -> anyhow::Result<Vec<TelephonyVersion>> {
        self.engine.telephony_changed_since(since, limit).await
    }

    /// Encrypts with the newest key what an older one encrypted; returns how many secrets those were. What was encrypted by a key that
    /// is not among `keys` stays as it is.
    pub async fn reseal_telephony(&self, keys: &SecretKeys) -> anyhow::Result<u64> {
        let mut resealed = 0;
        for (account, old) in self.engine.telephony_secrets_besides(keys.newest()).await? {
            let Ok(secret) = keys.open(account, &old.of, &old.sealed) else {
                continue; // Whoever reads the Account says so.
            };
            let new = SecretRow {
                sealed: keys.seal(account, &old.of, &secret),
                of: old.of,
            };
            resealed += u64::from(
                self.engine
                    .reseal_telephony_secret(account, &old.sealed, &new)
                    .await?,
            );
        }
        Ok(resealed)
    }
}

/// How often the rows of an Account have changed, and when they last did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelephonyVersion {
    /// The Account.
    pub account: AccountId,
    /// How often.
    pub version: u64,
    /// When.
    pub changed_at: Timestamp,
}

fn read(account: AccountId, stored: Stored, keys: &SecretKeys) -> anyhow::Result<StoredTelephony> {
    let mut sections = Map::new();
    for row in stored.rows {
        let value: Value = serde_json::from_str(&row.definition)
            .with_context(|| format!("`{}` in `{}`", row.name, row.kind))?;
        if row.kind.is_single() {
            sections.insert(row.kind.section().to_owned(), value);
        } else if let Value::Object(section) = sections
            .entry(row.kind.section())
            .or_insert_with(|| Value::Object(Map::new()))
        {
            section.insert(row.name, value);
        }
    }
    let mut telephony: Telephony = serde_json::from_value(Value::Object(sections))?;
    let (mut secrets, mut unreadable) = (BTreeMap::new(), Vec::new());
    for SecretRow { of, sealed } in stored.secrets {
        match keys.open(account, &of, &sealed) {
            Ok(secret) => drop(secrets.insert(of, secret)),
            Err(error) => unreadable.push((of, error.to_string())),
        }
    }
    telephony.set_secrets(secrets);
    Ok(StoredTelephony {
        telephony,
        version: stored.version,
        unreadable,
    })
}

/// What has to change for the database to hold `telephony`.
fn change(
    account: AccountId,
    stored: &Stored,
    telephony: &Telephony,
    keys: &SecretKeys,
) -> anyhow::Result<Change> {
    let mut change = Change::default();
    let mut old: BTreeMap<(Kind, String), &Row> = stored
        .rows
        .iter()
        .map(|row| ((row.kind, row.name.clone()), row))
        .collect();
    for row in rows(telephony)? {
        if old.remove(&(row.kind, row.name.clone())) != Some(&row) {
            change.put.push(row);
        }
    }
    change.remove = old.into_keys().collect();

    let mut old: BTreeMap<&SecretOf, &Sealed> = stored
        .secrets
        .iter()
        .map(|secret| (&secret.of, &secret.sealed))
        .collect();
    for (of, secret) in telephony.secrets() {
        let is_same = old
            .remove(&of)
            .is_some_and(|sealed| keys.open(account, &of, sealed).as_ref() == Ok(&secret));
        if !is_same {
            let sealed = keys.seal(account, &of, &secret);
            change.put_secrets.push(SecretRow { of, sealed });
        }
    }
    change.remove_secrets = old.into_keys().cloned().collect();
    Ok(change)
}

/// The rows of an Account; what it has one of and is as always has none.
fn rows(telephony: &Telephony) -> anyhow::Result<Vec<Row>> {
    let usual = serde_json::to_value(Telephony::default())?;
    let Value::Object(mut sections) = serde_json::to_value(telephony)? else {
        anyhow::bail!("telephony is not an object");
    };
    let mut claims = claims(telephony);
    let mut rows = Vec::new();
    for kind in Kind::ALL {
        let Some(section) = sections.remove(kind.section()) else {
            continue;
        };
        if kind.is_single() {
            if Some(&section) != usual.get(kind.section()) {
                rows.push(Row {
                    kind,
                    name: String::new(),
                    definition: section.to_string(),
                    claim: None,
                });
            }
        } else if let Value::Object(section) = section {
            rows.extend(section.into_iter().map(|(name, row)| Row {
                claim: claims.remove(&(kind, name.clone())),
                kind,
                name,
                definition: row.to_string(),
            }));
        }
    }
    Ok(rows)
}

/// The users of digest authentication.
fn claims(telephony: &Telephony) -> BTreeMap<(Kind, String), String> {
    let phones = telephony
        .phones
        .keys()
        .map(|user| ((Kind::Phones, user.to_string()), user.to_string()));
    let trunks = telephony
        .trunks
        .iter()
        .filter_map(|(name, trunk)| match &trunk.peering {
            Peering::Inbound(inbound) => {
                Some(((Kind::Trunks, name.to_string()), inbound.user.to_string()))
            }
            Peering::Address | Peering::Registration(_) => None,
        });
    phones.chain(trunks).collect()
}

/// The field of this name.
pub(super) fn field_named(name: &str) -> Option<SecretField> {
    SecretField::ALL
        .into_iter()
        .find(|field| field.as_str() == name)
}
