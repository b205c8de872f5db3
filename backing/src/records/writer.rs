//! The one task that writes changes: whatever waits goes into one transaction.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::RecordChange;
use tokio::sync::{mpsc, oneshot};

use super::Trouble;
use super::engine::{Engine, WriteError};

/// The most changes of one transaction: readers elsewhere wait no longer than this takes.
const BATCH_LEN_MAX: usize = 512;
/// How long the writer waits after a failure, at first and at most.
const RETRY_AFTER: Duration = Duration::from_millis(50);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// Work for the writer.
pub(super) enum Job {
    /// Write this.
    Change(RecordChange),
    /// Say when everything before is on disk.
    Flush(oneshot::Sender<()>),
}

/// Writes until every sender of `jobs` is gone.
pub(super) async fn run(
    engine: Arc<dyn Engine>,
    trouble: Arc<Trouble>,
    mut jobs: mpsc::Receiver<Job>,
) {
    let mut taken = Vec::with_capacity(BATCH_LEN_MAX);
    let mut changes = Vec::with_capacity(BATCH_LEN_MAX);
    let mut waiting = Vec::new();

    while jobs.recv_many(&mut taken, BATCH_LEN_MAX).await > 0 {
        for job in taken.drain(..) {
            match job {
                Job::Change(change) => changes.push(change),
                Job::Flush(done) => waiting.push(done),
            }
        }

        if !changes.is_empty() {
            write(engine.as_ref(), &trouble, &changes).await;
            changes.clear();
        }

        for done in waiting.drain(..) {
            let _ = done.send(()); // Whoever asked may have given up.
        }
    }
}

/// Writes all of `changes`, however long the database takes; only what it can never take is left out.
async fn write(engine: &dyn Engine, trouble: &Trouble, changes: &[RecordChange]) {
    let Err(refused) = write_patiently(engine, trouble, changes).await else {
        return;
    };

    if let [change] = changes {
        tracing::error!(kind = kind(change), %refused, "Change left out of the records");
        return;
    }

    for change in changes {
        let change_alone = std::slice::from_ref(change);
        if let Err(refused) = write_patiently(engine, trouble, change_alone).await {
            tracing::error!(kind = kind(change), %refused, "Change left out of the records");
        }
    }
}

/// Tries until the database works; fails only with a refusal.
async fn write_patiently(
    engine: &dyn Engine,
    trouble: &Trouble,
    changes: &[RecordChange],
) -> Result<(), WriteError> {
    let mut retry_after = RETRY_AFTER;

    loop {
        let outcome = engine.apply(changes).await;
        let failed = matches!(outcome, Err(WriteError::Failed(_)));
        trouble.failing.store(failed, Ordering::Relaxed);

        match outcome {
            Ok(()) => return Ok(()),
            Err(refused @ WriteError::Refused(_)) => return Err(refused),
            Err(WriteError::Failed(error)) => {
                tracing::error!(%error, changes = changes.len(), "Records can't be written, trying again");
                tokio::time::sleep(retry_after).await;
                retry_after = (retry_after * 2).min(RETRY_AFTER_MAX);
            }
        }
    }
}

fn kind(change: &RecordChange) -> &'static str {
    match change {
        RecordChange::CallBegun(_) => "call_begun",
        RecordChange::CallAnswered(_) => "call_answered",
        RecordChange::CallEnded(_) => "call_ended",
        RecordChange::CallLost(_) => "call_lost",
        RecordChange::UserSeen { .. } => "user_seen",
        RecordChange::DeviceSeen { .. } => "device_seen",
        RecordChange::HistorySeen { .. } => "history_seen",
        RecordChange::RelayUsed(_) => "relay_used",
        RecordChange::Leg(_) => "leg",
        RecordChange::VoicemailLeft(_) => "voicemail_left",
        RecordChange::VoicemailHeard { .. } => "voicemail_heard",
    }
}
