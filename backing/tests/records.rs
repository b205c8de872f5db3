//! Records in a temporary directory: what is written stays, once, in order.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backing::records::{HISTORY_PAGE_MAX, Records};
use model::record::{Direction, Participant, RelayUsage, Relayed};
use model::{
    AccountId, CallId, CallRecord, DeviceId, EndReason, Media, NodeId, RecordChange, Timestamp,
    UserId,
};
use tempfile::TempDir;

#[tokio::test]
async fn accounts_and_api_keys_are_there_after_opening_again() {
    let t = TestRecords::open().await;
    let account = t.records.create_account("Acme").await.unwrap();
    let key = t.records.create_api_key(account.account).await.unwrap();
    let t = t.reopen().await;

    assert!(t.records.accounts().await.unwrap().contains(&account));
    assert_eq!(
        t.records.api_keys(account.account).await.unwrap(),
        std::slice::from_ref(&key)
    );

    assert_eq!(t.records.api_key(key.id).await.unwrap(), Some(key.clone()));

    let since = key.created_at;
    let revoked = || t.records.api_keys_revoked_since(since, 10);
    assert_eq!(revoked().await.unwrap(), []);
    assert!(t.records.revoke_api_key(key.id).await.unwrap());
    assert_eq!(revoked().await.unwrap(), [(key.id, key.account)]);
    let first = t.records.api_key(key.id).await.unwrap().unwrap().revoked_at;
    assert!(first.is_some());

    assert!(t.records.revoke_api_key(key.id).await.unwrap());
    assert_eq!(
        t.records.api_key(key.id).await.unwrap().unwrap().revoked_at,
        first
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_may_make_the_database_at_once() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("records.db");
    let opened = (0..8).map(|_| {
        let path = path.clone();
        tokio::spawn(async move { Records::open(&path).await })
    });
    for opened in opened.collect::<Vec<_>>() {
        let records = opened.await.unwrap().unwrap();
        records.create_account("Acme").await.unwrap();
    }
}

#[tokio::test]
async fn an_api_key_needs_an_account_and_never_prints_its_secret() {
    let t = TestRecords::open().await;

    assert!(
        t.records
            .create_api_key(AccountId::from_u128(7))
            .await
            .is_err()
    );
    assert!(t.records.create_account("  ").await.is_err());

    let key = t.records.create_api_key(t.account).await.unwrap();
    assert!(!format!("{key:?}").contains(&key.secret));
}

#[tokio::test]
async fn what_was_relayed_is_kept_by_hour_and_read_by_day() {
    const HOUR: u64 = 3_600_000;
    let t = TestRecords::open().await;
    let row = |account: &str, hour: u64, node: u128, bytes: u64| RelayUsage {
        account: account.into(),
        hour: Timestamp::from_millis(hour * HOUR),
        node: NodeId::from_u128(node),
        relayed: Relayed {
            allocations: 1,
            packets_to_peers: 2,
            bytes_to_peers: bytes,
            packets_to_clients: 3,
            bytes_to_clients: 2 * bytes,
        },
    };
    let used = |rows: Vec<RelayUsage>| t.records.try_record(RecordChange::RelayUsed(rows));
    used(vec![row("acme", 0, 1, 100), row("globex", 1, 1, 7)]).unwrap();
    // Later sums of the same hour take the place of earlier ones, twice as well as once.
    for _ in 0..2 {
        used(vec![row("acme", 0, 1, 150)]).unwrap();
    }
    used(vec![row("acme", 23, 2, 1_000), row("acme", 24, 2, 4)]).unwrap();

    let read = async |account: Option<&str>, since: u64| {
        let days = t
            .records
            .relayed(account, Timestamp::from_millis(since * HOUR));
        let days = days.await.unwrap().into_iter();
        days.map(|day| {
            let Relayed {
                bytes_to_peers,
                bytes_to_clients,
                allocations,
                ..
            } = day.relayed;
            assert_eq!(bytes_to_clients, 2 * bytes_to_peers);
            let at = day.day.as_millis() / HOUR;
            format!("{} {at} {allocations} {bytes_to_peers}", day.account)
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(
        read(None, 0).await,
        ["acme 0 2 1150", "globex 0 1 7", "acme 24 1 4"]
    );
    assert_eq!(
        read(Some("acme"), 1).await,
        ["acme 0 1 1000", "acme 24 1 4"]
    );

    let before = Timestamp::from_millis(24 * HOUR);
    assert_eq!(t.records.forget_relayed(before, 2).await.unwrap(), 2);
    assert_eq!(t.records.forget_relayed(before, 2).await.unwrap(), 1);
    assert_eq!(read(None, 0).await, ["acme 24 1 4"]);
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let t = TestRecords::open().await;

    for file in std::fs::read_dir(t.directory.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{file:?}"
        );
    }
}

#[tokio::test]
async fn a_call_has_one_row_however_often_it_is_applied() {
    let t = TestRecords::open().await;
    let begun = call(&t, 1, "alice", "bob");
    let answered = answered(&begun);
    let unseen = ended(&answered, EndReason::Gone, 3_000);
    let ended = ended(&answered, EndReason::Hangup, 9_000);

    for change in [
        RecordChange::CallAnswered(Box::new(answered.clone())),
        RecordChange::CallBegun(Box::new(begun.clone())),
        RecordChange::CallEnded(Box::new(unseen)),
        RecordChange::CallEnded(Box::new(ended.clone())),
        RecordChange::CallAnswered(Box::new(answered.clone())),
        RecordChange::CallBegun(Box::new(begun)),
    ] {
        t.records.record(change.clone()).await.unwrap();
        t.records.record(change).await.unwrap();
    }

    let alice = t.history("alice").await;
    assert_eq!(alice, [ended.entry_for(&user("alice"))]);
    assert_eq!(alice[0].reason, Some(EndReason::Hangup));
    assert_eq!(t.history("bob").await[0].direction, Direction::In);
    assert!(t.history("carol").await.is_empty());
}

#[tokio::test]
async fn missed_calls_count_until_they_are_seen() {
    let t = TestRecords::open().await;

    for n in 1..=3 {
        let mut missed = ended(&call(&t, n, "alice", "bob"), EndReason::Missed, 1_000 * n);
        missed.missed = true;
        t.record(RecordChange::CallEnded(Box::new(missed))).await;
    }
    assert_eq!(t.missed("bob").await, 3);
    assert_eq!(t.missed("alice").await, 0);

    t.record(seen(&t, "bob", 2_000)).await;
    assert_eq!(t.missed("bob").await, 1);

    t.record(seen(&t, "bob", 1_000)).await; // An older look takes nothing back.
    assert_eq!(t.missed("bob").await, 1);
}

#[tokio::test]
async fn history_comes_in_pages_newest_first() {
    let t = TestRecords::open().await;

    for n in 0..250 {
        let (caller, callee) = if n % 3 == 0 {
            ("alice", "bob")
        } else {
            ("bob", "alice")
        };
        let mut call = call(&t, n, caller, callee);
        call.created_at = Timestamp::from_millis(1_000 + n / 5); // Some at the same moment.
        t.record(RecordChange::CallBegun(Box::new(call))).await;
    }

    let (mut before, mut seen) = (None, Vec::new());
    loop {
        let page = t
            .records
            .history(t.account, &user("alice"), before, u32::MAX)
            .await
            .unwrap();
        assert!(page.entries.len() <= HISTORY_PAGE_MAX as usize);
        seen.extend(
            page.entries
                .iter()
                .map(|entry| (entry.created_at, entry.call)),
        );

        let Some(next) = page.next else { break };
        before = Some(next.to_string().parse().unwrap());
    }

    assert_eq!(seen.len(), 250);
    assert!(seen.is_sorted_by(|newer, older| newer > older));
}

#[tokio::test]
async fn open_calls_come_in_pages_oldest_first_and_a_lost_one_is_closed_once() {
    let t = TestRecords::open().await;
    let other = t.records.create_account("Other").await.unwrap().account;
    let now = Timestamp::from_millis(2_000);

    for n in 0..25 {
        let mut call = call(&t, n, "alice", "bob");
        if n % 2 == 0 {
            call.account = other;
        }
        call.created_at = Timestamp::from_millis(1_000 + n / 5);
        t.record(RecordChange::CallBegun(Box::new(call.clone())))
            .await;
        if n == 3 {
            let ended = ended(&call, EndReason::Hangup, 1_500);
            t.record(RecordChange::CallEnded(Box::new(ended))).await;
        }
    }
    let mut later = call(&t, 99, "alice", "bob");
    later.created_at = now;
    t.record(RecordChange::CallBegun(Box::new(later))).await;

    let (mut after, mut open) = (None, Vec::new());
    loop {
        let (rows, next) = t.records.open_calls(now, after, 10).await.unwrap();
        open.extend(rows);
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(open.len(), 24);
    assert!(open.is_sorted_by_key(|row| (row.created_at, row.account, row.call)));

    // Lost or not, the end that a Call had stays, and the end that it gets later counts.
    for number in [1, 3] {
        let lost = ended(&call(&t, number, "alice", "bob"), EndReason::Gone, 1_900);
        t.record(RecordChange::CallLost(Box::new(lost))).await;
    }
    let reason_of = async |number| {
        let entries = t.history("alice").await;
        let entry = entries
            .iter()
            .find(|entry| entry.call == CallId::from_u128(number));
        entry.and_then(|entry| entry.reason)
    };
    assert_eq!(reason_of(1).await, Some(EndReason::Gone));
    assert_eq!(reason_of(3).await, Some(EndReason::Hangup));
    let hung_up = ended(&call(&t, 1, "alice", "bob"), EndReason::Hangup, 9_000);
    t.record(RecordChange::CallEnded(Box::new(hung_up))).await;
    assert_eq!(reason_of(1).await, Some(EndReason::Hangup));
    assert_eq!(
        t.records.open_calls(now, None, 100).await.unwrap().0.len(),
        23
    );
}

#[tokio::test]
async fn an_account_sees_nothing_of_another() {
    let t = TestRecords::open().await;
    let other = t.records.create_account("Other").await.unwrap().account;
    let mut theirs = call(&t, 1, "alice", "bob");
    theirs.account = other;
    t.record(RecordChange::CallBegun(Box::new(theirs))).await;
    t.record(user_seen(other, "alice", Some("Alice"), 1)).await;

    assert!(t.history("alice").await.is_empty());
    assert!(t.records.users(t.account, 10).await.unwrap().is_empty());

    // The same Call id in two Accounts is two Calls.
    t.record(RecordChange::CallBegun(Box::new(call(
        &t, 1, "alice", "bob",
    ))))
    .await;
    assert_eq!(t.history("alice").await.len(), 1);
}

#[tokio::test]
async fn a_user_keeps_the_name_when_a_token_has_none() {
    let t = TestRecords::open().await;
    t.record(user_seen(t.account, "alice", Some("Alice"), 1))
        .await;
    t.record(user_seen(t.account, "alice", None, 2)).await;
    t.record(user_seen(t.account, "bob", None, 3)).await;
    t.records.flush().await.unwrap();

    let users = t.records.users(t.account, 10).await.unwrap();
    let users: Vec<_> = users
        .iter()
        .map(|named| (named.user.as_str(), named.name.as_deref()))
        .collect();
    assert_eq!(users, [("bob", None), ("alice", Some("Alice"))]);

    let asked = [user("nobody"), user("alice")];
    let named = t.records.named(t.account, &asked).await.unwrap();
    assert_eq!(named.len(), 1);
    assert_eq!(named[0].user, asked[1]);
}

#[tokio::test]
async fn a_change_that_cannot_be_written_takes_no_other_with_it() {
    let t = TestRecords::open().await;
    t.record(user_seen(t.account, "alice", None, 1)).await;
    t.record(user_seen(AccountId::from_u128(404), "nobody", None, 1))
        .await;
    t.record(user_seen(t.account, "bob", None, 1)).await;
    t.records.flush().await.unwrap();

    assert_eq!(t.records.users(t.account, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn changes_wait_while_another_process_writes_and_none_is_lost() {
    let t = TestRecords::open().await;
    let url = format!("sqlite://{}", t.path().display());
    let other = sqlx::SqlitePool::connect(&url).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();

    for n in 0..1_000 {
        t.record(user_seen(t.account, &format!("user{n}"), None, n))
            .await;
    }
    assert!(
        tokio::time::timeout(Duration::from_millis(100), t.records.flush())
            .await
            .is_err()
    );

    lock.rollback().await.unwrap();
    t.records.flush().await.unwrap();
    assert_eq!(
        t.records.users(t.account, 2_000).await.unwrap().len(),
        1_000
    );
}

#[tokio::test]
async fn a_question_is_answered_from_what_is_there_while_the_disk_is_stuck() {
    let t = TestRecords::open().await;
    t.record(user_seen(t.account, "alice", None, 1)).await;
    t.records.flush().await.unwrap();
    let url = format!("sqlite://{}", t.path().display());
    let other = sqlx::SqlitePool::connect(&url).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();

    t.record(user_seen(t.account, "bob", None, 2)).await;
    assert_eq!(t.records.users(t.account, 10).await.unwrap().len(), 1);

    lock.rollback().await.unwrap();
    t.records.flush().await.unwrap();
    assert_eq!(t.records.users(t.account, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn old_history_is_forgotten_in_steps_and_the_rest_stays() {
    let t = TestRecords::open().await;
    let other = t.records.create_account("Other").await.unwrap().account;
    for n in 0..10 {
        let mut call = call(&t, n, "alice", "bob");
        call.created_at = Timestamp::from_millis(1_000 * n);
        if n % 2 == 0 {
            call.account = other;
        }
        t.record(RecordChange::CallBegun(Box::new(call))).await;
    }
    t.records.flush().await.unwrap();

    let before = Timestamp::from_millis(7_000);
    let mut steps = Vec::new();
    for _ in 0..4 {
        steps.push(t.records.forget_history(before, 3).await.unwrap());
    }
    assert_eq!(steps, [3, 3, 1, 0]);
    let left: Vec<_> = t
        .history("bob")
        .await
        .iter()
        .map(|entry| entry.call)
        .collect();
    assert_eq!(left, [9, 7].map(CallId::from_u128));
}

/// Dropping the runtime stops the writer wherever it is, as a crash does.
#[test]
fn what_was_flushed_survives_a_crash() {
    let directory = temporary_directory();
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };

    let first = runtime();
    let account = first.block_on(async {
        let t = TestRecords::open_in(directory.clone()).await;
        t.record(RecordChange::CallBegun(Box::new(call(
            &t, 1, "alice", "bob",
        ))))
        .await;
        t.records.flush().await.unwrap();
        for n in 2..500 {
            t.record(RecordChange::CallBegun(Box::new(call(
                &t, n, "alice", "bob",
            ))))
            .await;
        }
        let account = t.account;
        std::mem::forget(t);
        account
    });
    first.shutdown_background();

    runtime().block_on(async {
        let mut t = TestRecords::open_in(directory.clone()).await;
        t.account = account;
        let entries = t.history("alice").await;
        assert!(
            entries
                .iter()
                .any(|entry| entry.call == CallId::from_u128(1))
        );

        // What was in the queue can be applied again.
        for n in 1..500 {
            t.record(RecordChange::CallBegun(Box::new(call(
                &t, n, "alice", "bob",
            ))))
            .await;
        }
        assert_eq!(t.whole_history("alice").await, 499);
    });
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let t = TestRecords::open().await;
    let url = format!("sqlite://{}", t.path().display());
    let other = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', 1, x'00', 0)",
    )
    .execute(&other)
    .await
    .unwrap();

    assert!(Records::open(&t.path()).await.is_err());
}

struct TestRecords {
    records: Records,
    account: AccountId,
    directory: Arc<TempDir>,
}

impl TestRecords {
    async fn open() -> Self {
        Self::open_in(temporary_directory()).await
    }

    async fn open_in(directory: Arc<TempDir>) -> Self {
        let records = Records::open(&directory.path().join("records.db"))
            .await
            .unwrap();
        let account = records.create_account("Test").await.unwrap().account;

        Self {
            records,
            account,
            directory,
        }
    }

    async fn reopen(self) -> Self {
        let records = Records::open(&self.path()).await.unwrap();
        Self { records, ..self }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("records.db")
    }

    async fn record(&self, change: RecordChange) {
        self.records.record(change).await.unwrap();
    }

    async fn history(&self, of: &str) -> Vec<model::record::HistoryEntry> {
        self.records
            .history(self.account, &user(of), None, 100)
            .await
            .unwrap()
            .entries
    }

    async fn whole_history(&self, of: &str) -> usize {
        let (mut before, mut count) = (None, 0);
        loop {
            let page = self
                .records
                .history(self.account, &user(of), before, 100)
                .await
                .unwrap();
            count += page.entries.len();
            before = page.next;
            if before.is_none() {
                return count;
            }
        }
    }

    async fn missed(&self, of: &str) -> u32 {
        self.records.missed(self.account, &user(of)).await.unwrap()
    }
}

fn temporary_directory() -> Arc<TempDir> {
    Arc::new(TempDir::new().unwrap())
}

fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

fn seen(t: &TestRecords, name: &str, at: u64) -> RecordChange {
    RecordChange::HistorySeen {
        account: t.account,
        user: user(name),
        at: Timestamp::from_millis(at),
    }
}

fn user_seen(account: AccountId, id: &str, name: Option<&str>, at: u64) -> RecordChange {
    RecordChange::UserSeen {
        account,
        user: user(id),
        name: name.map(str::to_owned),
        at: Timestamp::from_millis(at),
    }
}

fn call(t: &TestRecords, n: u64, caller: &str, callee: &str) -> CallRecord {
    let participant = |name: &str| Participant {
        user: user(name),
        name: Some(name.to_uppercase()),
        device: None,
    };

    CallRecord {
        account: t.account,
        call: CallId::from_u128(n.into()),
        caller: participant(caller),
        callee: participant(callee),
        media: Media {
            audio: true,
            video: false,
        },
        created_at: Timestamp::from_millis(1_000),
        answered_at: None,
        ended_at: None,
        reason: None,
        cause: None,
        phone: None,
        ended_by: None,
        missed: false,
        replaces: None,
        into: None,
    }
}

fn answered(call: &CallRecord) -> CallRecord {
    let mut call = call.clone();
    call.callee.device = Some(DeviceId::from_u128(5));
    call.answered_at = Some(Timestamp::from_millis(2_000));
    call
}

fn ended(call: &CallRecord, reason: EndReason, at: u64) -> CallRecord {
    CallRecord {
        ended_at: Some(Timestamp::from_millis(at)),
        reason: Some(reason),
        cause: Some(reason.cause()),
        ended_by: Some(user("alice")),
        ..call.clone()
    }
}
