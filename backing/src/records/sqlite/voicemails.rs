//! Messages in mailboxes.

use anyhow::bail;
use model::phone::rows::{KeptCursor, Mailbox, Voicemail};
use model::{AccountId, Timestamp, VoicemailId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::row::{millis, moment, name_of, optional_moment, optional_parsed, parsed, word};

pub(super) async fn on_left(db: &mut SqliteConnection, message: &Voicemail) -> sqlx::Result<()> {
    const EXISTS: &str = "SELECT 1 FROM voicemails WHERE account_id = ? AND voicemail_id = ?";
    const INSERT: &str = "INSERT INTO voicemails (
            account_id, voicemail_id, mailbox_kind, mailbox, call_id, from_remote, caller_name, left_at, millis, format, heard_at
        ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

    let exists = sqlx::query(EXISTS)
        .bind(message.account.to_string())
        .bind(message.id.to_string())
        .fetch_optional(&mut *db)
        .await?;
    if exists.is_some() {
        return Ok(());
    }
    let (kind, mailbox) = place(&message.mailbox);
    sqlx::query(INSERT)
        .bind(message.account.to_string())
        .bind(message.id.to_string())
        .bind(kind)
        .bind(mailbox)
        .bind(message.call.map(|call| call.to_string()))
        .bind(message.from.clone())
        .bind(message.name.clone())
        .bind(millis(message.left_at))
        .bind(message.millis)
        .bind(name_of(message.format)?)
        .bind(message.heard_at.map(millis))
        .execute(db)
        .await
        .map(drop)
}

pub(super) async fn on_heard(
    db: &mut SqliteConnection,
    account: AccountId,
    id: VoicemailId,
    at: Timestamp,
) -> sqlx::Result<()> {
    const SQL: &str = "UPDATE voicemails SET heard_at = COALESCE(heard_at, ?)
        WHERE account_id = ? AND voicemail_id = ?";

    sqlx::query(SQL)
        .bind(millis(at))
        .bind(account.to_string())
        .bind(id.to_string())
        .execute(db)
        .await
        .map(drop)
}

pub(super) async fn page(
    readers: &SqlitePool,
    account: AccountId,
    mailbox: &Mailbox,
    before: Option<KeptCursor>,
    limit: u32,
) -> anyhow::Result<Vec<Voicemail>> {
    const SQL: &str = "SELECT * FROM voicemails
        WHERE account_id = ? AND mailbox_kind = ? AND mailbox = ? AND (left_at, voicemail_id) < (?, ?)
        ORDER BY left_at DESC, voicemail_id DESC LIMIT ?";

    let (at, id) = match before {
        Some(before) => (
            millis(before.at),
            VoicemailId::from_u128(before.id).to_string(),
        ),
        None => (i64::MAX, String::new()),
    };
    let (kind, mailbox) = place(mailbox);
    let rows = sqlx::query(SQL)
        .bind(account.to_string())
        .bind(kind)
        .bind(mailbox)
        .bind(at)
        .bind(id)
        .bind(limit)
        .fetch_all(readers)
        .await?;
    rows.iter().map(voicemail).collect()
}

pub(super) async fn one(
    readers: &SqlitePool,
    account: AccountId,
    id: VoicemailId,
) -> anyhow::Result<Option<Voicemail>> {
    const SQL: &str = "SELECT * FROM voicemails WHERE account_id = ? AND voicemail_id = ?";

    let row = sqlx::query(SQL)
        .bind(account.to_string())
        .bind(id.to_string())
        .fetch_optional(readers)
        .await?;
    row.as_ref().map(voicemail).transpose()
}

pub(super) async fn unheard(
    readers: &SqlitePool,
    account: AccountId,
    mailbox: &Mailbox,
) -> anyhow::Result<u32> {
    const SQL: &str = "SELECT COUNT(*) FROM voicemails
        WHERE account_id = ? AND mailbox_kind = ? AND mailbox = ? AND heard_at IS NULL";

    let (kind, mailbox) = place(mailbox);
    let select = sqlx::query_scalar(SQL)
        .bind(account.to_string())
        .bind(kind)
        .bind(mailbox);
    Ok(select.fetch_one(readers).await?)
}

pub(super) async fn delete(
    writer: &SqlitePool,
    account: AccountId,
    id: VoicemailId,
) -> anyhow::Result<bool> {
    const SQL: &str = "DELETE FROM voicemails WHERE account_id = ? AND voicemail_id = ?";

    let delete = sqlx::query(SQL)
        .bind(account.to_string())
        .bind(id.to_string());
    Ok(delete.execute(writer).await?.rows_affected() > 0)
}

/// A mailbox as two columns have it.
fn place(mailbox: &Mailbox) -> (&'static str, String) {
    match mailbox {
        Mailbox::User(user) => ("user", user.to_string()),
        Mailbox::Queue(name) => ("queue", name.to_string()),
    }
}

fn voicemail(row: &SqliteRow) -> anyhow::Result<Voicemail> {
    let mailbox = match row.try_get("mailbox_kind")? {
        "user" => Mailbox::User(parsed(row, "mailbox")?),
        "queue" => Mailbox::Queue(parsed(row, "mailbox")?),
        other => bail!("column mailbox_kind: `{other}`"),
    };
    Ok(Voicemail {
        account: parsed(row, "account_id")?,
        id: parsed(row, "voicemail_id")?,
        mailbox,
        call: optional_parsed(row, "call_id")?,
        from: row.try_get("from_remote")?,
        name: row.try_get("caller_name")?,
        left_at: moment(row, "left_at")?,
        millis: row.try_get("millis")?,
        format: word(row, "format")?,
        heard_at: optional_moment(row, "heard_at")?,
    })
}
