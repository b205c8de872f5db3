//! `offhook usage`: what the relay carried, for people and for machines.

use std::fmt::Write as _;

use anyhow::Context;
use backing::records::Records;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use model::Timestamp;
use model::record::{DayOfRelay, Relayed};

use crate::cli::UsageOptions;
use crate::config::Config;
use crate::state::DataDir;

/// How many days are shown where nobody says since when.
const DAYS: i64 = 30;

/// Reads the records beside a running server; returns the words for standard output.
///
/// Fails when the records can't be read.
pub async fn usage(config: &Config, options: &UsageOptions) -> anyhow::Result<String> {
    let data = DataDir::open_existing(&config.data_dir)?;
    let records = Records::open(&data.prepare_database()?).await?;
    let since = match options.since {
        Some(date) => beginning(date)?,
        None => {
            let today = jiff::Timestamp::now().to_zoned(TimeZone::UTC).date();
            beginning(today.saturating_sub(jiff::Span::new().days(DAYS)))?
        }
    };
    let days = records.relayed(options.account.as_deref(), since).await?;
    match options.json {
        true => Ok(format!("{}\n", json(&days))),
        false => Ok(text(&days)),
    }
}

/// When a day begins (UTC).
fn beginning(date: Date) -> anyhow::Result<Timestamp> {
    let zoned = date.to_zoned(TimeZone::UTC).context("no such day")?;
    let millis = u64::try_from(zoned.timestamp().as_millisecond()).unwrap_or_default();
    Ok(Timestamp::from_millis(millis))
}

fn date_of(day: Timestamp) -> String {
    let millis = i64::try_from(day.as_millis()).unwrap_or_default();
    let moment = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    moment.to_zoned(TimeZone::UTC).date().to_string()
}

/// `{"usage":[{"account","day","allocations",…}]}`; the day is a date.
fn json(days: &[DayOfRelay]) -> serde_json::Value {
    let entry = |day: &DayOfRelay| {
        let Relayed {
            allocations,
            packets_to_peers,
            bytes_to_peers,
            packets_to_clients,
            bytes_to_clients,
        } = day.relayed;
        serde_json::json!({
            "account": day.account,
            "day": date_of(day.day),
            "allocations": allocations,
            "packets_to_peers": packets_to_peers,
            "bytes_to_peers": bytes_to_peers,
            "packets_to_clients": packets_to_clients,
            "bytes_to_clients": bytes_to_clients,
        })
    };
    serde_json::json!({ "usage": days.iter().map(entry).collect::<Vec<_>>() })
}

/// A line for each day and Account, and one for all of them.
fn text(days: &[DayOfRelay]) -> String {
    if days.is_empty() {
        return "Nothing was relayed in this time.\n".to_owned();
    }
    let account_len = |day: &DayOfRelay| shown(&day.account).chars().count();
    let width = days.iter().map(account_len).max().unwrap_or(0).max(7);
    // Writing to a string can't fail.
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<10}  {:<width$}  {:>11}  {:>16}  {:>16}",
        "day (UTC)", "Account", "Allocations", "bytes to peers", "bytes to clients"
    );
    let mut line = |day: &str, account: &str, relayed: &Relayed| {
        let _ = writeln!(
            out,
            "{day:<10}  {account:<width$}  {:>11}  {:>16}  {:>16}",
            relayed.allocations, relayed.bytes_to_peers, relayed.bytes_to_clients
        );
    };
    let mut all = Relayed::default();
    for day in days {
        line(&date_of(day.day), &shown(&day.account), &day.relayed);
        all += day.relayed;
    }
    line("all", "", &all);
    out
}

/// A user name can hold anything; a terminal is to see words.
fn shown(account: &str) -> String {
    account.escape_debug().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(account: &str, day: u64, bytes: u64) -> DayOfRelay {
        DayOfRelay {
            account: account.into(),
            day: Timestamp::from_millis(day * 86_400_000),
            relayed: Relayed {
                allocations: 1,
                packets_to_peers: 1,
                bytes_to_peers: bytes,
                packets_to_clients: 2,
                bytes_to_clients: 10 * bytes,
            },
        }
    }

    #[test]
    fn usage_reads_as_a_table_with_a_sum() {
        let days = [day("acme", 20_000, 1_000), day("a\u{1b}b", 20_001, 5)];
        assert_eq!(
            text(&days),
            "day (UTC)   Account   Allocations    bytes to peers  bytes to clients\n\
             2024-10-04  acme                1              1000             10000\n\
             2024-10-05  a\\u{1b}b            1                 5                50\n\
             all                             2              1005             10050\n"
        );
        assert!(text(&[]).starts_with("Nothing"));
    }

    #[test]
    fn usage_for_machines_holds_every_sum() {
        assert_eq!(
            json(&[day("acme", 20_000, 7)]).to_string(),
            "{\"usage\":[{\"account\":\"acme\",\"allocations\":1,\"bytes_to_clients\":70,\"bytes_to_peers\":7,\
             \"day\":\"2024-10-04\",\"packets_to_clients\":2,\"packets_to_peers\":1}]}"
        );
    }
}
