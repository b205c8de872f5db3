//! Rows of telephony and their secrets.

use anyhow::Context;
use model::phone::rows::{Kind, SecretOf};
use model::{AccountId, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row as _, SqliteConnection, SqlitePool};

use super::row::{millis, moment, parsed};
use crate::records::sealing::Sealed;
use crate::records::telephony::{
    Change, Row, SecretRow, Stored, TelephonyError, TelephonyVersion, field_named,
};

/// Reads all of an Account at one moment.
pub(super) async fn load(readers: &SqlitePool, account: AccountId) -> anyhow::Result<Stored> {
    const ROWS: &str = "SELECT kind, name, definition, claim FROM telephony WHERE account_id = ?";
    const SECRETS: &str =
        "SELECT kind, name, field, key_id, sealed FROM telephony_secrets WHERE account_id = ?";

    let mut reader = readers.acquire().await?;
    let mut snapshot = reader.begin().await?;
    let version = version(&mut snapshot, account).await?;
    let rows = sqlx::query(ROWS)
        .bind(account.to_string())
        .fetch_all(&mut *snapshot)
        .await?;
    let secrets = sqlx::query(SECRETS)
        .bind(account.to_string())
        .fetch_all(&mut *snapshot)
        .await?;
    Ok(Stored {
        version,
        rows: rows.iter().map(row).collect::<anyhow::Result<_>>()?,
        secrets: secrets.iter().map(secret).collect::<anyhow::Result<_>>()?,
    })
}

/// Applies a change to the version it was made for.
pub(super) async fn change(
    writer: &SqlitePool,
    account: AccountId,
    expected: u64,
    change: &Change,
    at: Timestamp,
) -> Result<u64, TelephonyError> {
    let mut connection = writer.acquire().await.map_err(anyhow::Error::from)?;
    // Taking the write lock at the start is what makes the busy timeout hold.
    let begun = connection.begin_with("BEGIN IMMEDIATE").await;
    let mut transaction = begun.map_err(anyhow::Error::from)?;
    let now = version(&mut transaction, account).await?;
    if now != expected {
        return Err(TelephonyError::Changed { expected, now });
    }
    for row in &change.put {
        refuse_taken(&mut transaction, account, row).await?;
    }
    write(&mut transaction, account, change)
        .await
        .with_context(|| format!("can't write the telephony of Account {account}"))?;
    let version = now + 1;
    set_version(&mut transaction, account, version, at)
        .await
        .with_context(|| format!("can't write the telephony of Account {account}"))?;
    transaction.commit().await.map_err(anyhow::Error::from)?;
    Ok(version)
}

/// Within the transaction, so that nobody can take it meanwhile.
async fn refuse_taken(
    db: &mut SqliteConnection,
    account: AccountId,
    row: &Row,
) -> Result<(), TelephonyError> {
    const SQL: &str = "SELECT 1 FROM telephony WHERE claim = ? AND account_id <> ?";

    let Some(claim) = &row.claim else {
        return Ok(());
    };
    let taken = sqlx::query(SQL)
        .bind(claim)
        .bind(account.to_string())
        .fetch_optional(db)
        .await
        .map_err(anyhow::Error::from)?;
    match taken {
        None => Ok(()),
        Some(_) => Err(TelephonyError::Taken {
            user: claim.clone(),
            kind: row.kind,
        }),
    }
}

async fn write(db: &mut SqliteConnection, account: AccountId, change: &Change) -> sqlx::Result<()> {
    const REMOVE: &str = "DELETE FROM telephony WHERE account_id = ? AND kind = ? AND name = ?";
    const PUT: &str =
        "INSERT INTO telephony (definition, claim, account_id, kind, name) VALUES (?, ?, ?, ?, ?)";
    const REMOVE_SECRET: &str = "DELETE FROM telephony_secrets
        WHERE account_id = ? AND kind = ? AND name = ? AND field = ?";
    const PUT_SECRET: &str =
        "INSERT INTO telephony_secrets (key_id, sealed, account_id, kind, name, field)
        VALUES (?, ?, ?, ?, ?, ?)";

    let account = account.to_string();
    // Everything that changes goes first, so that a claim can pass from one row to another.
    let gone = change
        .remove
        .iter()
        .map(|(kind, name)| (*kind, name.as_str()));
    let replaced = change.put.iter().map(|row| (row.kind, row.name.as_str()));
    for (kind, name) in gone.chain(replaced) {
        sqlx::query(REMOVE)
            .bind(&account)
            .bind(kind.section())
            .bind(name)
            .execute(&mut *db)
            .await?;
    }
    for row in &change.put {
        sqlx::query(PUT)
            .bind(&row.definition)
            .bind(&row.claim)
            .bind(&account)
            .bind(row.kind.section())
            .bind(&row.name)
            .execute(&mut *db)
            .await?;
    }
    let replaced = change.put_secrets.iter().map(|secret| &secret.of);
    for of in change.remove_secrets.iter().chain(replaced) {
        sqlx::query(REMOVE_SECRET)
            .bind(&account)
            .bind(of.kind.section())
            .bind(&of.name)
            .bind(of.field.as_str())
            .execute(&mut *db)
            .await?;
    }
    for SecretRow { of, sealed } in &change.put_secrets {
        sqlx::query(PUT_SECRET)
            .bind(&sealed.key_id)
            .bind(&sealed.bytes)
            .bind(&account)
            .bind(of.kind.section())
            .bind(&of.name)
            .bind(of.field.as_str())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

async fn version(db: &mut SqliteConnection, account: AccountId) -> anyhow::Result<u64> {
    const SQL: &str = "SELECT version FROM telephony_versions WHERE account_id = ?";

    let version: Option<i64> = sqlx::query_scalar(SQL)
        .bind(account.to_string())
        .fetch_optional(db)
        .await?;
    Ok(u64::try_from(version.unwrap_or_default())?)
}

async fn set_version(
    db: &mut SqliteConnection,
    account: AccountId,
    version: u64,
    at: Timestamp,
) -> anyhow::Result<()> {
    const UPDATE: &str =
        "UPDATE telephony_versions SET version = ?, changed_at = ? WHERE account_id = ?";
    const INSERT: &str =
        "INSERT INTO telephony_versions (version, changed_at, account_id) VALUES (?, ?, ?)";

    for statement in [UPDATE, INSERT] {
        let done = sqlx::query(statement)
            .bind(i64::try_from(version)?)
            .bind(millis(at))
            .bind(account.to_string())
            .execute(&mut *db)
            .await?;
        if done.rows_affected() > 0 {
            break;
        }
    }
    Ok(())
}

pub(super) async fn changed_since(
    readers: &SqlitePool,
    since: Timestamp,
    limit: u32,
) -> anyhow::Result<Vec<TelephonyVersion>> {
    const SQL: &str = "SELECT account_id, version, changed_at FROM telephony_versions
        WHERE changed_at >= ? ORDER BY changed_at, account_id LIMIT ?";

    let rows = sqlx::query(SQL)
        .bind(millis(since))
        .bind(limit)
        .fetch_all(readers)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(TelephonyVersion {
                account: parsed(row, "account_id")?,
                version: u64::try_from(row.try_get::<i64, _>("version")?)?,
                changed_at: moment(row, "changed_at")?,
            })
        })
        .collect()
}

pub(super) async fn secrets_besides(
    readers: &SqlitePool,
    key_id: &str,
) -> anyhow::Result<Vec<(AccountId, SecretRow)>> {
    const SQL: &str = "SELECT account_id, kind, name, field, key_id, sealed
        FROM telephony_secrets WHERE key_id <> ?";

    let rows = sqlx::query(SQL).bind(key_id).fetch_all(readers).await?;
    rows.iter()
        .map(|row| Ok((parsed(row, "account_id")?, secret(row)?)))
        .collect()
}

/// Puts the same secret, encrypted anew, in its place, unless it has changed meanwhile; whether it was.
pub(super) async fn reseal(
    writer: &SqlitePool,
    account: AccountId,
    old: &Sealed,
    new: &SecretRow,
) -> anyhow::Result<bool> {
    const SQL: &str = "UPDATE telephony_secrets SET key_id = ?, sealed = ?
        WHERE account_id = ? AND kind = ? AND name = ? AND field = ? AND key_id = ? AND sealed = ?";

    let done = sqlx::query(SQL)
        .bind(&new.sealed.key_id)
        .bind(&new.sealed.bytes)
        .bind(account.to_string())
        .bind(new.of.kind.section())
        .bind(&new.of.name)
        .bind(new.of.field.as_str())
        .bind(&old.key_id)
        .bind(&old.bytes)
        .execute(writer)
        .await?;
    Ok(done.rows_affected() > 0)
}

fn row(row: &SqliteRow) -> anyhow::Result<Row> {
    Ok(Row {
        kind: kind(row)?,
        name: row.try_get("name")?,
        definition: row.try_get("definition")?,
        claim: row.try_get("claim")?,
    })
}

fn secret(row: &SqliteRow) -> anyhow::Result<SecretRow> {
    let field: &str = row.try_get("field")?;
    Ok(SecretRow {
        of: SecretOf {
            kind: kind(row)?,
            name: row.try_get("name")?,
            field: field_named(field).with_context(|| format!("column field: `{field}`"))?,
        },
        sealed: Sealed {
            key_id: row.try_get("key_id")?,
            bytes: row.try_get("sealed")?,
        },
    })
}

fn kind(row: &SqliteRow) -> anyhow::Result<Kind> {
    let kind: &str = row.try_get("kind")?;
    Kind::of_section(kind).with_context(|| {
        format!(
            "column kind: `{kind}` is of a newer version of this server, or the database is damaged"
        )
    })
}
