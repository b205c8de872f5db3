//! Applies changes, each of them idempotent.

use model::record::Participant;
use model::{AccountId, CallRecord, DeviceId, RecordChange, Timestamp, UserId};
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Connection, Sqlite, SqliteConnection, SqlitePool};

use super::row::{millis, name_of};
use super::{legs, relayed, voicemails};
use crate::records::engine::WriteError;

/// How many Devices of a User are remembered; the one unseen for longest goes first.
const DEVICES_PER_USER_MAX: u32 = 64;

type Statement = Query<'static, Sqlite, SqliteArguments>;

pub(super) async fn apply(writer: &SqlitePool, changes: &[RecordChange]) -> Result<(), WriteError> {
    let mut connection = writer.acquire().await.map_err(WriteError::Failed)?;
    let outcome = apply_all(&mut connection, changes).await;

    // SQLite takes a transaction back by itself when the disk is full. The connection does not know, and would begin none
    // ever again.
    if matches!(outcome, Err(WriteError::Failed(_))) {
        let _ = connection.close().await; // What was wrong with it is told already.
    }
    outcome
}

async fn apply_all(
    connection: &mut SqliteConnection,
    changes: &[RecordChange],
) -> Result<(), WriteError> {
    // Taking the write lock at the start is what makes the busy timeout hold: a reader that becomes a writer is refused at once.
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(WriteError::Failed)?;

    for change in changes {
        apply_one(&mut transaction, change)
            .await
            .map_err(|error| match &error {
                sqlx::Error::Database(database)
                    if database.kind() != sqlx::error::ErrorKind::Other =>
                {
                    WriteError::Refused(error)
                }
                sqlx::Error::Encode(_) => WriteError::Refused(error),
                _ => WriteError::Failed(error),
            })?;
    }

    transaction.commit().await.map_err(WriteError::Failed)
}

async fn apply_one(db: &mut SqliteConnection, change: &RecordChange) -> sqlx::Result<()> {
    match change {
        RecordChange::CallBegun(call) => on_call(db, call, Overrides::Nothing).await,
        RecordChange::CallAnswered(call) | RecordChange::CallLost(call) => {
            on_call(db, call, Overrides::Open).await
        }
        RecordChange::CallEnded(call) => on_call(db, call, Overrides::Everything).await,
        RecordChange::UserSeen {
            account,
            user,
            name,
            at,
        } => on_user_seen(db, *account, user, name.as_deref(), *at).await,
        RecordChange::DeviceSeen {
            account,
            user,
            device,
            name,
            key,
            at,
        } => {
            let seen = Seen {
                account: *account,
                user,
                device: *device,
                name: name.as_deref(),
                key,
                at: *at,
            };
            on_device_seen(db, &seen).await
        }
        RecordChange::HistorySeen { account, user, at } => {
            on_history_seen(db, *account, user, *at).await
        }
        RecordChange::RelayUsed(rows) => relayed::on_used(db, rows).await,
        RecordChange::Leg(leg) => legs::on_leg(db, leg).await,
        RecordChange::VoicemailLeft(message) => voicemails::on_left(db, message).await,
        RecordChange::VoicemailHeard { account, id, at } => {
            voicemails::on_heard(db, *account, *id, *at).await
        }
    }
}

/// Which row of the same Call a change takes the place of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overrides {
    Nothing,
    /// One that has not ended.
    Open,
    Everything,
}

/// One row per Call, however often its changes come: a begun one never takes the place of a later one, an answered one
/// never that of an ended one, and the last end stands, for after a crash a Call can come back and end in another way.
async fn on_call(
    db: &mut SqliteConnection,
    call: &CallRecord,
    overrides: Overrides,
) -> sqlx::Result<()> {
    const UPDATE: &str = "UPDATE calls SET
            caller = ?, caller_name = ?, caller_device = ?, callee = ?, callee_name = ?, callee_device = ?,
            audio = ?, video = ?, created_at = ?, answered_at = ?, ended_at = ?, reason = ?, cause = ?, phone_reason = ?, ended_by = ?,
            missed = ?, replaces = ?, into_call = ?
        WHERE account_id = ? AND call_id = ? AND (ended_at IS NULL OR ?)";
    const EXISTS: &str = "SELECT 1 FROM calls WHERE account_id = ? AND call_id = ?";
    const INSERT: &str = "INSERT INTO calls (
            caller, caller_name, caller_device, callee, callee_name, callee_device,
            audio, video, created_at, answered_at, ended_at, reason, cause, phone_reason, ended_by,
            missed, replaces, into_call, account_id, call_id
        ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

    if overrides != Overrides::Nothing {
        let updated = bind_call(sqlx::query(UPDATE), call)?
            .bind(overrides == Overrides::Everything)
            .execute(&mut *db)
            .await?;
        if updated.rows_affected() > 0 {
            return Ok(());
        }
    }

    let exists = sqlx::query(EXISTS)
        .bind(call.account.to_string())
        .bind(call.call.to_string())
        .fetch_optional(&mut *db)
        .await?;
    if exists.is_none() {
        bind_call(sqlx::query(INSERT), call)?.execute(db).await?;
    }

    Ok(())
}

/// In the order of both statements, the key last.
fn bind_call(statement: Statement, call: &CallRecord) -> sqlx::Result<Statement> {
    let reason = call.reason.map(name_of).transpose()?;
    let phone = call.phone.map(name_of).transpose()?;

    let statement = bind_participant(statement, &call.caller);
    let statement = bind_participant(statement, &call.callee);

    Ok(statement
        .bind(call.media.audio)
        .bind(call.media.video)
        .bind(millis(call.created_at))
        .bind(call.answered_at.map(millis))
        .bind(call.ended_at.map(millis))
        .bind(reason)
        .bind(call.cause)
        .bind(phone)
        .bind(call.ended_by.as_ref().map(UserId::to_string))
        .bind(call.missed)
        .bind(call.replaces.map(|call| call.to_string()))
        .bind(call.into.map(|call| call.to_string()))
        .bind(call.account.to_string())
        .bind(call.call.to_string()))
}

fn bind_participant(statement: Statement, participant: &Participant) -> Statement {
    statement
        .bind(participant.user.to_string())
        .bind(participant.name.clone())
        .bind(participant.device.map(|device| device.to_string()))
}

async fn on_user_seen(
    db: &mut SqliteConnection,
    account: AccountId,
    user: &UserId,
    name: Option<&str>,
    at: Timestamp,
) -> sqlx::Result<()> {
    // A token without a name says nothing about the name.
    const UPDATE: &str = "UPDATE users SET name = COALESCE(?, name), seen_at = ? WHERE account_id = ? AND user_id = ?";
    const INSERT: &str =
        "INSERT INTO users (name, seen_at, account_id, user_id) VALUES (?, ?, ?, ?)";

    for statement in [UPDATE, INSERT] {
        let done = sqlx::query(statement)
            .bind(name)
            .bind(millis(at))
            .bind(account.to_string())
            .bind(user.as_str())
            .execute(&mut *db)
            .await?;
        if done.rows_affected() > 0 {
            break;
        }
    }

    Ok(())
}

struct Seen<'a> {
    account: AccountId,
    user: &'a UserId,
    device: DeviceId,
    name: Option<&'a str>,
    key: &'a str,
    at: Timestamp,
}

async fn on_device_seen(db: &mut SqliteConnection, seen: &Seen<'_>) -> sqlx::Result<()> {
    const UPDATE: &str = "UPDATE devices SET name = COALESCE(?, name), device_key = ?, seen_at = ?
        WHERE account_id = ? AND user_id = ? AND device_id = ?";
    const INSERT: &str =
        "INSERT INTO devices (name, device_key, seen_at, account_id, user_id, device_id)
        VALUES (?, ?, ?, ?, ?, ?)";
    // The inner table has a name of its own, because MariaDB can't read the one it deletes from.
    const FORGET: &str =
        "DELETE FROM devices WHERE account_id = ? AND user_id = ? AND device_id NOT IN (
            SELECT device_id FROM (
                SELECT device_id FROM devices WHERE account_id = ? AND user_id = ?
                ORDER BY seen_at DESC, device_id DESC LIMIT ?
            ) AS kept
        )";

    let (account, user) = (seen.account.to_string(), seen.user.as_str());

    for statement in [UPDATE, INSERT] {
        let done = sqlx::query(statement)
            .bind(seen.name)
            .bind(seen.key)
            .bind(millis(seen.at))
            .bind(&account)
            .bind(user)
            .bind(seen.device.to_string())
            .execute(&mut *db)
            .await?;
        if done.rows_affected() > 0 && statement == UPDATE {
            return Ok(());
        }
    }

    sqlx::query(FORGET)
        .bind(&account)
        .bind(user)
        .bind(&account)
        .bind(user)
        .bind(DEVICES_PER_USER_MAX)
        .execute(db)
        .await
        .map(drop)
}

async fn on_history_seen(
    db: &mut SqliteConnection,
    account: AccountId,
    user: &UserId,
    at: Timestamp,
) -> sqlx::Result<()> {
    const UPDATE: &str = "UPDATE users SET history_seen_at = CASE WHEN history_seen_at < ? THEN ? ELSE history_seen_at END
        WHERE account_id = ? AND user_id = ?";
    const INSERT: &str =
        "INSERT INTO users (seen_at, history_seen_at, account_id, user_id) VALUES (?, ?, ?, ?)";

    for statement in [UPDATE, INSERT] {
        let done = sqlx::query(statement)
            .bind(millis(at))
            .bind(millis(at))
            .bind(account.to_string())
            .bind(user.as_str())
            .execute(&mut *db)
            .await?;
        if done.rows_affected() > 0 {
            break;
        }
    }

    Ok(())
}
