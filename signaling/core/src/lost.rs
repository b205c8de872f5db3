//! Calls that a crash took away: the records know them, and nobody brings them back.
//!
//! A row is written before anybody is told. Who crashes right after it leaves a Call that no Device holds, and the Devices
//! of any Call may stay away. Such a row would say for ever that the Call goes on.

use model::record::OpenCallsCursor;
use model::{CallRecord, EndReason, Millis, RecordChange, Timestamp};

use crate::history::{Pending, Waiting};
use crate::io::{Output, Question};
use crate::signaling::Signaling;

/// How many rows are looked at at once.
const PAGE_LEN: u16 = 100;
/// How long the core waits when the records did not answer.
const RETRY_AFTER: Millis = Millis::from_secs(30);

/// What is left to do about the Calls of before the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LostCalls {
    started_at: Timestamp,
    /// The rows up to here are done.
    after: Option<OpenCallsCursor>,
    /// When to ask; `None` while an answer is on its way.
    pub(crate) ask_at: Option<Timestamp>,
}

impl Signaling {
    /// Looks for lost Calls once every Device had the time to come back.
    pub(crate) fn begin_lost_calls(&mut self) {
        let (started_at, wait) = (self.now, Millis::new(self.limits.resume_ms));
        self.lost_calls = Some(LostCalls {
            started_at,
            after: None,
            ask_at: Some(started_at + wait),
        });
    }

    pub(crate) fn on_lost_calls_due(&mut self) {
        let now = self.now;
        let Some(lost) = &mut self.lost_calls else {
            return;
        };
        if lost.ask_at.is_none_or(|at| at > now) {
            return;
        }

        lost.ask_at = None;
        let question = Question::OpenCalls {
            before: lost.started_at,
            after: lost.after,
            limit: PAGE_LEN,
        };
        self.ask(
            question,
            Pending {
                session: None,
                command: None,
                waiting: Waiting::OpenCalls,
            },
        );
    }

    /// Closes the rows whose Call is not here.
    pub(crate) fn on_open_calls(&mut self, rows: Vec<CallRecord>, next: Option<OpenCallsCursor>) {
        for row in rows {
            if !self.calls.contains_key(&(row.account, row.call)) {
                self.close_lost(row);
            }
        }

        let (started_at, now) = (self.lost_calls.map(|lost| lost.started_at), self.now);
        self.lost_calls = started_at.zip(next).map(|(started_at, after)| LostCalls {
            started_at,
            after: Some(after),
            ask_at: Some(now),
        });
    }

    pub(crate) fn on_open_calls_failed(&mut self) {
        let again_at = self.now + RETRY_AFTER;
        if let Some(lost) = &mut self.lost_calls {
            lost.ask_at = Some(again_at);
        }
    }

    fn close_lost(&mut self, row: CallRecord) {
        let row = CallRecord {
            ended_at: Some(self.now),
            reason: Some(EndReason::Gone),
            cause: Some(EndReason::Gone.cause()),
            ended_by: None,
            missed: row.answered_at.is_none(),
            ..row
        };
        self.output(Output::Record(RecordChange::CallLost(Box::new(
            row.clone(),
        ))));
        self.tell_history_of(&row);
    }
}
