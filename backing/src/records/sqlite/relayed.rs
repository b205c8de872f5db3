//! What was relayed: rows of a process for each Account and hour, read as days.

use model::Timestamp;
use model::record::{DayOfRelay, RelayUsage, Relayed};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::row::{millis, moment};

/// A day in the milliseconds of a row.
const DAY: i64 = 86_400_000;

/// Puts each row in its place: the sums it holds only grow.
pub(super) async fn on_used(db: &mut SqliteConnection, rows: &[RelayUsage]) -> sqlx::Result<()> {
    const UPDATE: &str = "UPDATE relay_usage SET
            allocations = ?, packets_to_peers = ?, bytes_to_peers = ?, packets_to_clients = ?, bytes_to_clients = ?
        WHERE account_id = ? AND hour = ? AND node_id = ?";
    const INSERT: &str = "INSERT INTO relay_usage (
            allocations, packets_to_peers, bytes_to_peers, packets_to_clients, bytes_to_clients,
            account_id, hour, node_id
        ) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";

    for row in rows {
        for statement in [UPDATE, INSERT] {
            let done = sqlx::query(statement)
                .bind(number(row.relayed.allocations))
                .bind(number(row.relayed.packets_to_peers))
                .bind(number(row.relayed.bytes_to_peers))
                .bind(number(row.relayed.packets_to_clients))
                .bind(number(row.relayed.bytes_to_clients))
                .bind(&*row.account)
                .bind(millis(row.hour))
                .bind(row.node.to_string())
                .execute(&mut *db)
                .await?;
            if done.rows_affected() > 0 {
                break;
            }
        }
    }

    Ok(())
}

pub(super) async fn since(
    readers: &SqlitePool,
    account: Option<&str>,
    since: Timestamp,
) -> anyhow::Result<Vec<DayOfRelay>> {
    const SQL: &str = "SELECT account_id, hour - hour % ? AS day,
            SUM(allocations) AS allocations,
            SUM(packets_to_peers) AS packets_to_peers, SUM(bytes_to_peers) AS bytes_to_peers,
            SUM(packets_to_clients) AS packets_to_clients, SUM(bytes_to_clients) AS bytes_to_clients
        FROM relay_usage WHERE hour >= ? AND (? IS NULL OR account_id = ?)
        GROUP BY account_id, hour - hour % ? ORDER BY day, account_id";

    let rows = sqlx::query(SQL)
        .bind(DAY)
        .bind(millis(since))
        .bind(account)
        .bind(account)
        .bind(DAY)
        .fetch_all(readers)
        .await?;
    rows.iter().map(day).collect()
}

pub(super) async fn forget(
    writer: &SqlitePool,
    before: Timestamp,
    limit: u32,
) -> anyhow::Result<u64> {
    // The inner table has a name of its own, because MariaDB can't read the one it deletes from.
    const SQL: &str = "DELETE FROM relay_usage WHERE (account_id, hour, node_id) IN (
        SELECT account_id, hour, node_id FROM (
            SELECT account_id, hour, node_id FROM relay_usage WHERE hour < ? ORDER BY hour LIMIT ?
        ) AS old
    )";

    let delete = sqlx::query(SQL).bind(millis(before)).bind(limit);
    Ok(delete.execute(writer).await?.rows_affected())
}

fn day(row: &SqliteRow) -> anyhow::Result<DayOfRelay> {
    let sum = |column: &str| -> anyhow::Result<u64> {
        Ok(u64::try_from(row.try_get::<i64, _>(column)?)?)
    };
    Ok(DayOfRelay {
        account: row.try_get::<String, _>("account_id")?.into(),
        day: moment(row, "day")?,
        relayed: Relayed {
            allocations: sum("allocations")?,
            packets_to_peers: sum("packets_to_peers")?,
            bytes_to_peers: sum("bytes_to_peers")?,
            packets_to_clients: sum("packets_to_clients")?,
            bytes_to_clients: sum("bytes_to_clients")?,
        },
    })
}

/// As the database counts; nobody relays more than fits.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
