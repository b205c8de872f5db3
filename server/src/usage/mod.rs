//! Usage: what the relay carried for each Account, from its counters into the records.
//!
//! ```text
//! relay ── once a minute: what was relayed since ──▶ Books: sums by Account and hour ──▶ queue of the records
//! ```
//!
//! A row holds the sums since the process began, so that writing it again does no harm, and one that finds no room in the queue
//! is written a minute later. A clean end writes everything; a crash loses a minute at most.

pub mod report;

use std::collections::BTreeMap;
use std::time::Duration;

use backing::records::Records;
use model::record::{RelayUsage, Relayed};
use model::{NodeId, RecordChange, Timestamp};
use relay_service::{AccountUsage, OTHERS, UsageByAccount};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

/// How often the relay's counters are collected: what a crash can lose.
const COLLECT_EVERY: Duration = Duration::from_secs(60);

/// How many rows go into one change: a transaction takes as long as they do.
const ROWS_PER_CHANGE_MAX: usize = 256;

/// How many rows are kept in memory: those of this hour, and older ones while the disk takes nothing. One more holds all Accounts
/// that found no room.
const ROWS_MAX: usize = 200_000;

const HOUR_MS: u64 = 3_600_000;

/// Keeps the books of a relay in a task of its own.
pub struct Keeper {
    task: JoinHandle<Books>,
    relay: relay_service::Handle,
    records: Records,
    ending: CancellationToken,
}

impl Keeper {
    /// Begins to collect.
    pub fn start(relay: relay_service::Handle, records: Records) -> Self {
        let ending = CancellationToken::new();
        let task = keep(relay.clone(), records.clone(), ending.clone());
        Self {
            task: tokio::spawn(task),
            relay,
            records,
            ending,
        }
    }

    /// Collects what the relay left behind and hands everything to the records. The relay has ended.
    pub async fn finish(self) {
        self.ending.cancel();
        let Ok(mut books) = self.task.await else {
            tracing::error!("The books of usage are gone");
            return;
        };
        books.add(now(), self.relay.take_usage().await);
        while let Some(change) = books.next_change() {
            // Waits for room, for nothing comes after this.
            if let Err(error) = self.records.record(change).await {
                tracing::error!(error = format!("{error:#}"), "The last usage is lost");
                return;
            }
        }
    }
}

async fn keep(relay: relay_service::Handle, records: Records, ending: CancellationToken) -> Books {
    let mut books = Books::new(NodeId::from_parts(now(), rand_bits()));
    let mut ticks = interval_at(Instant::now() + COLLECT_EVERY, COLLECT_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = ending.cancelled() => return books,
        }
        books.add(now(), relay.take_usage().await);
        while let Some(change) = books.next_change() {
            if let Err(RecordChange::RelayUsed(rows)) = records.try_record(change) {
                books.take_back(&rows);
                break;
            }
        }
        books.forget_written();
        metrics::gauge!("relay_usage_rows_waiting").set(books.waiting() as f64);
        metrics::counter!("relay_usage_rows_lost_total").absolute(books.lost);
    }
}

fn now() -> Timestamp {
    let now = jiff::Timestamp::now().as_millisecond();
    Timestamp::from_millis(u64::try_from(now).unwrap_or_default())
}

fn rand_bits() -> u128 {
    let mut bits = [0; 16];
    // Without entropy the time alone tells two processes apart.
    let _ = aws_lc_rs::rand::fill(&mut bits);
    u128::from_be_bytes(bits)
}

/// The sums of this process.
struct Books {
    node: NodeId,
    /// Whose rows grow. It never goes back, whatever the clock does: a row that was forgotten would begin again from nothing and
    /// take the place of its larger sum.
    hour: Timestamp,
    rows: BTreeMap<(Timestamp, Box<str>), Row>,
    /// Rows given up, since the disk took nothing for too long.
    lost: u64,
}

#[derive(Default)]
struct Row {
    relayed: Relayed,
    /// The records don't know yet.
    is_waiting: bool,
}

impl Books {
    fn new(node: NodeId) -> Self {
        Self {
            node,
            hour: Timestamp::from_millis(0),
            rows: BTreeMap::new(),
            lost: 0,
        }
    }

    /// Adds what was relayed until `now` to the rows of its hour.
    fn add(&mut self, now: Timestamp, usage: UsageByAccount) {
        self.hour = self.hour.max(hour_of(now));
        for (account, usage) in usage {
            let mut key = (self.hour, account);
            if !self.rows.contains_key(&key) && !self.make_room() {
                key.1 = OTHERS.into();
            }
            let row = self.rows.entry(key).or_default();
            row.relayed += relayed(usage);
            row.is_waiting = true;
        }
    }

    /// Gives up rows of hours that are over until there is room for another one; returns whether there is. Rows of this hour stay:
    /// their Accounts go on.
    fn make_room(&mut self) -> bool {
        while self.rows.len() >= ROWS_MAX
            && let Some(oldest) = self.rows.first_entry()
            && oldest.key().0 < self.hour
        {
            self.lost += u64::from(oldest.remove().is_waiting);
        }
        self.rows.len() < ROWS_MAX
    }

    /// Some of the rows that wait, oldest first, which wait no more.
    fn next_change(&mut self) -> Option<RecordChange> {
        let waiting = self.rows.iter_mut().filter(|(_, row)| row.is_waiting);
        let rows: Vec<_> = waiting
            .take(ROWS_PER_CHANGE_MAX)
            .map(|((hour, account), row)| {
                row.is_waiting = false;
                RelayUsage {
                    account: account.clone(),
                    hour: *hour,
                    node: self.node,
                    relayed: row.relayed,
                }
            })
            .collect();
        (!rows.is_empty()).then_some(RecordChange::RelayUsed(rows))
    }

    /// Lets rows wait again that found no room.
    fn take_back(&mut self, rows: &[RelayUsage]) {
        for row in rows {
            if let Some(row) = self.rows.get_mut(&(row.hour, row.account.clone())) {
                row.is_waiting = true;
            }
        }
    }

    /// Forgets rows of hours that are over.
    fn forget_written(&mut self) {
        let hour = self.hour;
        self.rows
            .retain(|(row_hour, _), row| row.is_waiting || *row_hour >= hour);
    }

    fn waiting(&self) -> usize {
        self.rows.values().filter(|row| row.is_waiting).count()
    }
}

fn relayed(usage: AccountUsage) -> Relayed {
    Relayed {
        allocations: usage.allocations,
        packets_to_peers: usage.to_peers.packets,
        bytes_to_peers: usage.to_peers.bytes,
        packets_to_clients: usage.to_clients.packets,
        bytes_to_clients: usage.to_clients.bytes,
    }
}

fn hour_of(moment: Timestamp) -> Timestamp {
    Timestamp::from_millis(moment.as_millis() / HOUR_MS * HOUR_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(account: &str, bytes: u64) -> UsageByAccount {
        let mut usage = AccountUsage::default();
        usage.to_peers.bytes = bytes;
        [(account.into(), usage)].into()
    }

    fn rows(change: Option<RecordChange>) -> Vec<String> {
        let Some(RecordChange::RelayUsed(rows)) = change else {
            return Vec::new();
        };
        let row = |row: &RelayUsage| {
            let hour = row.hour.as_millis() / HOUR_MS;
            format!("{hour} {} {}", row.account, row.relayed.bytes_to_peers)
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn a_row_grows_and_is_written_again_until_its_hour_is_over() {
        let mut books = Books::new(NodeId::from_u128(1));
        let at = |hours: u64, minutes: u64| {
            Timestamp::from_millis(hours * HOUR_MS + minutes * HOUR_MS / 60)
        };
        books.add(at(5, 1), used("acme", 100));
        assert_eq!(rows(books.next_change()), ["5 acme 100"]);
        assert_eq!(rows(books.next_change()), [""; 0]);
        books.add(at(5, 2), used("acme", 10));
        books.add(at(5, 2), used("globex", 1));
        assert_eq!(rows(books.next_change()), ["5 acme 110", "5 globex 1"]);
        books.forget_written();
        books.add(at(5, 59), used("acme", 1));
        let change = books.next_change();
        assert_eq!(rows(change.clone()), ["5 acme 111"]);

        // It found no room, and the hour is over.
        if let Some(RecordChange::RelayUsed(rows)) = &change {
            books.take_back(rows);
        }
        books.add(at(6, 0), used("acme", 7));
        books.forget_written();
        assert_eq!(books.waiting(), 2);
        assert_eq!(rows(books.next_change()), ["5 acme 111", "6 acme 7"]);
        books.forget_written();
        assert_eq!(books.rows.len(), 1, "this hour's");

        // The clock is set back: the row of hour 5 would begin again from nothing.
        books.add(at(5, 30), used("acme", 1));
        assert_eq!(rows(books.next_change()), ["6 acme 8"]);
    }

    #[test]
    fn rows_are_kept_within_a_limit_and_those_of_this_hour_stay() {
        let mut books = Books::new(NodeId::from_u128(1));
        let hour = |hours: u64| Timestamp::from_millis(hours * HOUR_MS);
        let bytes = |books: &Books| {
            let sums = books.rows.values().map(|row| row.relayed.bytes_to_peers);
            sums.sum::<u64>()
        };
        for account in 0..ROWS_MAX + 3 {
            books.add(hour(1), used(&format!("{account}"), 1));
        }
        books.add(hour(1), used("0", 1));
        assert_eq!((books.rows.len(), books.lost), (ROWS_MAX + 1, 0));
        assert_eq!(bytes(&books), ROWS_MAX as u64 + 4, "nothing is lost");
        let first = rows(books.next_change());
        assert_eq!(first.len(), ROWS_PER_CHANGE_MAX);
        assert_eq!(first[..2], ["1 * 3", "1 0 2"]);

        // Those of the hour before make room, here all that are on record and one that waits.
        for account in 0..ROWS_PER_CHANGE_MAX {
            books.add(hour(2), used(&format!("{account}"), 1));
        }
        assert_eq!((books.rows.len(), books.lost), (ROWS_MAX, 1));
    }

    #[test]
    fn many_rows_go_in_several_changes() {
        let mut books = Books::new(NodeId::from_u128(1));
        for account in 0..ROWS_PER_CHANGE_MAX + 1 {
            books.add(Timestamp::from_millis(0), used(&format!("{account}"), 1));
        }
        let lens = [(); 3].map(|()| rows(books.next_change()).len());
        assert_eq!(lens, [ROWS_PER_CHANGE_MAX, 1, 0]);
    }
}
