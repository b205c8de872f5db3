//! Call records of phone calls.

use model::phone::PhoneEnd;
use model::phone::rows::{KeptCursor, LegBy, LegRecord, LegSound};
use model::{AccountId, LegId, Timestamp};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row, Sqlite, SqliteConnection, SqlitePool};

use super::row::{
    millis, moment, name_of, optional_moment, optional_parsed, optional_word, parsed, word,
};
use crate::records::phone_calls::LegFilter;

/// Inserts the row, or brings it up to date; one that has ended stays, unless this is an end, too.
pub(super) async fn on_leg(db: &mut SqliteConnection, leg: &LegRecord) -> sqlx::Result<()> {
    const UPDATE: &str = "UPDATE legs SET
            call_id = ?, direction = ?, trunk = ?, phone = ?, user_id = ?, from_remote = ?, to_remote = ?, caller_name = ?,
            number = ?, queue = ?, created_at = ?, ringing_at = ?, answered_at = ?, ended_at = ?, reason = ?, sip_status = ?,
            cause = ?, ended_by = ?, codec = ?, encrypted = ?, packets_received = ?, packets_lost = ?, packets_sent = ?,
            jitter_micros = ?, round_trip_micros = ?, mos_hundredths = ?, recording = ?
        WHERE account_id = ? AND leg_id = ? AND (ended_at IS NULL OR ?)";
    const EXISTS: &str = "SELECT 1 FROM legs WHERE account_id = ? AND leg_id = ?";
    const INSERT: &str = "INSERT INTO legs (
            call_id, direction, trunk, phone, user_id, from_remote, to_remote, caller_name,
            number, queue, created_at, ringing_at, answered_at, ended_at, reason, sip_status,
            cause, ended_by, codec, encrypted, packets_received, packets_lost, packets_sent,
            jitter_micros, round_trip_micros, mos_hundredths, recording, account_id, leg_id
        ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

    let updated = bind(sqlx::query(UPDATE), leg)?
        .bind(leg.ended_at.is_some())
        .execute(&mut *db)
        .await?;
    if updated.rows_affected() > 0 {
        return Ok(());
    }
    let exists = sqlx::query(EXISTS)
        .bind(leg.account.to_string())
        .bind(leg.leg.to_string())
        .fetch_optional(&mut *db)
        .await?;
    if exists.is_none() {
        bind(sqlx::query(INSERT), leg)?.execute(db).await?;
    }
    Ok(())
}

/// In the order of both statements, the key last.
fn bind(
    statement: Query<'static, Sqlite, SqliteArguments>,
    leg: &LegRecord,
) -> sqlx::Result<Query<'static, Sqlite, SqliteArguments>> {
    let (trunk, phone) = match &leg.by {
        LegBy::Trunk(name) => (Some(name.to_string()), None),
        LegBy::Phone(user) => (None, Some(user.to_string())),
    };
    let statement = statement
        .bind(leg.call.to_string())
        .bind(name_of(leg.direction)?)
        .bind(trunk)
        .bind(phone)
        .bind(leg.user.as_ref().map(ToString::to_string))
        .bind(leg.from.clone())
        .bind(leg.to.clone())
        .bind(leg.name.clone())
        .bind(leg.number.as_ref().map(ToString::to_string))
        .bind(leg.queue.as_ref().map(ToString::to_string))
        .bind(millis(leg.created_at))
        .bind(leg.ringing_at.map(millis))
        .bind(leg.answered_at.map(millis))
        .bind(leg.ended_at.map(millis))
        .bind(leg.end.map(|end| name_of(end.reason)).transpose()?)
        .bind(leg.end.and_then(|end| end.sip))
        .bind(leg.end.map(|end| end.cause))
        .bind(leg.ended_by.map(name_of).transpose()?);
    let sound = leg.sound.as_ref();
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Ok(statement
        .bind(sound.map(|sound| sound.codec.clone()))
        .bind(sound.map(|sound| sound.encrypted))
        .bind(sound.map(|sound| count(sound.packets_received)))
        .bind(sound.map(|sound| count(sound.packets_lost)))
        .bind(sound.map(|sound| count(sound.packets_sent)))
        .bind(sound.map(|sound| sound.jitter_micros))
        .bind(sound.and_then(|sound| sound.round_trip_micros))
        .bind(sound.map(|sound| sound.mos_hundredths))
        .bind(leg.recording.clone())
        .bind(leg.account.to_string())
        .bind(leg.leg.to_string()))
}

pub(super) async fn page(
    readers: &SqlitePool,
    account: AccountId,
    filter: &LegFilter,
    before: Option<KeptCursor>,
    limit: u32,
) -> anyhow::Result<Vec<LegRecord>> {
    // A statement for each index that can lead.
    const OF_ALL: &str = "SELECT * FROM legs
        WHERE account_id = ? AND (created_at, leg_id) < (?, ?) AND created_at >= ? AND (? IS NULL OR trunk = ?)
        ORDER BY created_at DESC, leg_id DESC LIMIT ?";
    const OF_USER: &str = "SELECT * FROM legs
        WHERE account_id = ? AND user_id = ? AND (created_at, leg_id) < (?, ?) AND created_at >= ? AND (? IS NULL OR trunk = ?)
        ORDER BY created_at DESC, leg_id DESC LIMIT ?";
    const OF_CALL: &str = "SELECT * FROM legs
        WHERE account_id = ? AND call_id = ? AND (created_at, leg_id) < (?, ?) AND created_at >= ? AND (? IS NULL OR trunk = ?)
            AND (? IS NULL OR user_id = ?)
        ORDER BY created_at DESC, leg_id DESC LIMIT ?";

    let (at, id) = match before {
        Some(before) => (millis(before.at), LegId::from_u128(before.id).to_string()),
        None => (i64::MAX, String::new()),
    };
    let user = filter.user.as_ref().map(ToString::to_string);
    let trunk = filter.trunk.as_ref().map(ToString::to_string);
    let select = match (&filter.call, &user) {
        (Some(call), _) => sqlx::query(OF_CALL)
            .bind(account.to_string())
            .bind(call.to_string()),
        (None, Some(user)) => sqlx::query(OF_USER)
            .bind(account.to_string())
            .bind(user.clone()),
        (None, None) => sqlx::query(OF_ALL).bind(account.to_string()),
    };
    let mut select = select
        .bind(at)
        .bind(id)
        .bind(filter.since.map_or(i64::MIN, millis))
        .bind(trunk.clone())
        .bind(trunk);
    if filter.call.is_some() {
        select = select.bind(user.clone()).bind(user);
    }
    let rows = select.bind(limit).fetch_all(readers).await?;
    rows.iter().map(leg).collect()
}

pub(super) async fn forget(
    writer: &SqlitePool,
    before: Timestamp,
    limit: u32,
) -> anyhow::Result<u64> {
    // The inner table has a name of its own, because MariaDB can't read the one it deletes from.
    const SQL: &str = "DELETE FROM legs WHERE (account_id, leg_id) IN (
        SELECT account_id, leg_id FROM (
            SELECT account_id, leg_id FROM legs WHERE created_at < ? ORDER BY created_at LIMIT ?
        ) AS old
    )";

    let delete = sqlx::query(SQL).bind(millis(before)).bind(limit);
    Ok(delete.execute(writer).await?.rows_affected())
}

fn leg(row: &SqliteRow) -> anyhow::Result<LegRecord> {
    let by = match optional_parsed(row, "phone")? {
        Some(user) => LegBy::Phone(user),
        None => LegBy::Trunk(parsed(row, "trunk")?),
    };
    let reason = optional_word(row, "reason")?;
    let cause: Option<u8> = row.try_get("cause")?;
    let sip = row.try_get("sip_status")?;
    Ok(LegRecord {
        account: parsed(row, "account_id")?,
        leg: parsed(row, "leg_id")?,
        call: parsed(row, "call_id")?,
        direction: word(row, "direction")?,
        by,
        user: optional_parsed(row, "user_id")?,
        from: row.try_get("from_remote")?,
        to: row.try_get("to_remote")?,
        name: row.try_get("caller_name")?,
        number: optional_parsed(row, "number")?,
        queue: optional_parsed(row, "queue")?,
        created_at: moment(row, "created_at")?,
        ringing_at: optional_moment(row, "ringing_at")?,
        answered_at: optional_moment(row, "answered_at")?,
        ended_at: optional_moment(row, "ended_at")?,
        end: reason
            .zip(cause)
            .map(|(reason, cause)| PhoneEnd { reason, sip, cause }),
        ended_by: optional_word(row, "ended_by")?,
        sound: sound(row)?,
        recording: row.try_get("recording")?,
    })
}

fn sound(row: &SqliteRow) -> anyhow::Result<Option<LegSound>> {
    let Some(codec) = row.try_get("codec")? else {
        return Ok(None);
    };
    let count = |column: &str| -> anyhow::Result<u64> {
        Ok(u64::try_from(row.try_get::<i64, _>(column)?)?)
    };
    Ok(Some(LegSound {
        codec,
        encrypted: row.try_get("encrypted")?,
        packets_received: count("packets_received")?,
        packets_lost: count("packets_lost")?,
        packets_sent: count("packets_sent")?,
        jitter_micros: row.try_get("jitter_micros")?,
        round_trip_micros: row.try_get("round_trip_micros")?,
        mos_hundredths: row.try_get("mos_hundredths")?,
    }))
}
