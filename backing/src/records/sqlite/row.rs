//! Rows to values and back.

use std::fmt::Display;
use std::str::FromStr;

use anyhow::Context;
use model::record::{Named, Participant};
use model::{AccountId, ApiKeyId, CallRecord, Media, Timestamp};
use serde::Serialize;
use serde::de::value::Error as TextError;
use serde::de::{DeserializeOwned, IntoDeserializer};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::records::{Account, ApiKey};

pub(super) fn account(row: &SqliteRow) -> anyhow::Result<Account> {
    Ok(Account {
        account: parsed(row, "account_id")?,
        name: row.try_get("name")?,
        created_at: moment(row, "created_at")?,
    })
}

pub(super) fn api_key(row: &SqliteRow) -> anyhow::Result<ApiKey> {
    Ok(ApiKey {
        id: parsed(row, "api_key_id")?,
        account: parsed(row, "account_id")?,
        secret: row.try_get("secret")?,
        created_at: moment(row, "created_at")?,
        revoked_at: optional_moment(row, "revoked_at")?,
    })
}

pub(super) fn api_key_and_account(row: &SqliteRow) -> anyhow::Result<(ApiKeyId, AccountId)> {
    Ok((parsed(row, "api_key_id")?, parsed(row, "account_id")?))
}

pub(super) fn named(row: &SqliteRow) -> anyhow::Result<Named> {
    Ok(Named {
        user: parsed(row, "user_id")?,
        name: row.try_get("name")?,
    })
}

pub(super) fn call(row: &SqliteRow) -> anyhow::Result<CallRecord> {
    Ok(CallRecord {
        account: parsed(row, "account_id")?,
        call: parsed(row, "call_id")?,
        caller: Participant {
            user: parsed(row, "caller")?,
            name: row.try_get("caller_name")?,
            device: optional_parsed(row, "caller_device")?,
        },
        callee: Participant {
            user: parsed(row, "callee")?,
            name: row.try_get("callee_name")?,
            device: optional_parsed(row, "callee_device")?,
        },
        media: Media {
            audio: row.try_get("audio")?,
            video: row.try_get("video")?,
        },
        created_at: moment(row, "created_at")?,
        answered_at: optional_moment(row, "answered_at")?,
        ended_at: optional_moment(row, "ended_at")?,
        reason: optional_word(row, "reason")?,
        cause: row.try_get("cause")?,
        phone: optional_word(row, "phone_reason")?,
        ended_by: optional_parsed(row, "ended_by")?,
        missed: row.try_get("missed")?,
        replaces: optional_parsed(row, "replaces")?,
        into: optional_parsed(row, "into_call")?,
    })
}

/// A moment as the database keeps it; the far future beyond its range is as good as its end.
pub(super) fn millis(moment: Timestamp) -> i64 {
    i64::try_from(moment.as_millis()).unwrap_or(i64::MAX)
}

/// A value that is one word, by the name the JSON has for it, too.
pub(super) fn name_of<T: Serialize>(value: T) -> sqlx::Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        Ok(other) => Err(sqlx::Error::Encode(format!("not a name: {other}").into())),
        Err(error) => Err(sqlx::Error::Encode(error.into())),
    }
}

/// The value that has this name in a text column.
pub(super) fn optional_word<T: DeserializeOwned>(
    row: &SqliteRow,
    column: &str,
) -> anyhow::Result<Option<T>> {
    let name: Option<&str> = row.try_get(column)?;

    name.map(|name| T::deserialize(name.into_deserializer()))
        .transpose()
        .map_err(|error: TextError| anyhow::anyhow!("column {column}: {error}"))
}

pub(super) fn word<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> anyhow::Result<T> {
    optional_word(row, column)?.with_context(|| format!("column {column} is null"))
}

/// A text column as the id it holds.
pub(super) fn parsed<T>(row: &SqliteRow, column: &str) -> anyhow::Result<T>
where
    T: FromStr<Err: Display>,
{
    optional_parsed(row, column)?.with_context(|| format!("column {column} is null"))
}

pub(super) fn optional_parsed<T>(row: &SqliteRow, column: &str) -> anyhow::Result<Option<T>>
where
    T: FromStr<Err: Display>,
{
    let text: Option<&str> = row.try_get(column)?;

    text.map(str::parse)
        .transpose()
        .map_err(|error| anyhow::anyhow!("column {column}: {error}"))
}

pub(super) fn moment(row: &SqliteRow, column: &str) -> anyhow::Result<Timestamp> {
    optional_moment(row, column)?.with_context(|| format!("column {column} is null"))
}

pub(super) fn optional_moment(row: &SqliteRow, column: &str) -> anyhow::Result<Option<Timestamp>> {
    let millis: Option<i64> = row.try_get(column)?;

    Ok(millis.map(|millis| Timestamp::from_millis(millis.cast_unsigned())))
}
