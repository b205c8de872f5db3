//! A naive history store: the meaning of each change, word for word, over a map.

use std::collections::BTreeMap;

use model::{CallId, CallRecord, RecordChange, UserId};

/// What would be in the database. It survives crashes of the server.
#[derive(Default)]
pub struct Store {
    pub rows: BTreeMap<CallId, CallRecord>,
    pub seen_at: BTreeMap<UserId, model::Timestamp>,
}

impl Store {
    pub fn apply(&mut self, change: &RecordChange) {
        match change {
            RecordChange::CallBegun(row) => {
                self.rows.entry(row.call).or_insert_with(|| (**row).clone());
            }
            RecordChange::CallAnswered(row) | RecordChange::CallLost(row) => {
                let ended = self
                    .rows
                    .get(&row.call)
                    .is_some_and(|old| old.ended_at.is_some());
                if !ended {
                    self.rows.insert(row.call, (**row).clone());
                }
            }
            RecordChange::CallEnded(row) => {
                self.rows.insert(row.call, (**row).clone());
            }
            RecordChange::HistorySeen { user, at, .. } => {
                self.seen_at.insert(user.clone(), *at);
            }
            RecordChange::UserSeen { .. }
            | RecordChange::DeviceSeen { .. }
            | RecordChange::RelayUsed(_)
            | RecordChange::Leg(_)
            | RecordChange::VoicemailLeft(_)
            | RecordChange::VoicemailHeard { .. } => {}
        }
    }

    /// The rows of `user`, newest first.
    pub fn of(&self, user: &UserId) -> impl Iterator<Item = &CallRecord> {
        self.rows
            .values()
            .rev()
            .filter(move |row| row.caller.user == *user || row.callee.user == *user)
    }

    /// The rows without an end from before `before`.
    pub fn open(&self, before: model::Timestamp) -> impl Iterator<Item = &CallRecord> {
        self.rows
            .values()
            .filter(move |row| row.ended_at.is_none() && row.created_at < before)
    }

    /// How many Calls `user` missed since the last look.
    pub fn missed(&self, user: &UserId) -> usize {
        let since = self.seen_at.get(user).copied().unwrap_or_default();
        self.of(user)
            .filter(|row| row.callee.user == *user && row.missed && row.created_at > since)
            .count()
    }
}
