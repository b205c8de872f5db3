//! A Call as a client reads it from JSON, and what a client keeps of it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

/// The fields of a Call's state that clients act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub call: String,
    pub epoch: u64,
    pub rev: u64,
    pub phase: Phase,
    pub caller: String,
    pub caller_device: String,
    pub callee: String,
    pub winner: Option<String>,
    pub ringing: BTreeSet<String>,
    pub held_by: BTreeSet<String>,
    pub transfer: Option<String>,
    pub replaces: Option<String>,
    pub end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Ringing,
    Active,
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub reason: String,
    pub by: Option<String>,
    pub into: Option<String>,
}

/// A Call at one Device.
#[derive(Debug, Clone)]
pub struct Held {
    pub view: View,
    pub sealed: String,
    /// When the Device learned of the end. It keeps the Call a while, to hand it back after a crash.
    pub ended_at: Option<Duration>,
}

impl View {
    /// Reads a state; `None` when a field the document promises is missing.
    pub fn read(state: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let set = |value: &Value| {
            value
                .as_array()?
                .iter()
                .map(text)
                .collect::<Option<BTreeSet<_>>>()
        };
        let end = match &state["end"] {
            Value::Null => None,
            end => Some(End {
                reason: text(&end["reason"])?,
                by: text(&end["by"]),
                into: text(&end["into"]),
            }),
        };
        Some(Self {
            call: text(&state["call"])?,
            epoch: state["epoch"].as_u64()?,
            rev: state["rev"].as_u64()?,
            phase: match state["phase"].as_str()? {
                "ringing" => Phase::Ringing,
                "active" => Phase::Active,
                "ended" => Phase::Ended,
                _ => return None,
            },
            caller: text(&state["caller"]["user"])?,
            caller_device: text(&state["caller"]["device"])?,
            callee: text(&state["callee"]["user"])?,
            winner: text(&state["callee"]["device"]),
            ringing: set(&state["ringing"])?,
            held_by: set(&state["held_by"])?,
            transfer: text(&state["transfer"]["call"]),
            replaces: text(&state["replaces"]),
            end,
        })
    }

    pub fn version(&self) -> (u64, u64) {
        (self.epoch, self.rev)
    }

    /// What both ends and the server must agree on once all is quiet.
    pub fn verdict(&self) -> Verdict<'_> {
        (
            self.phase,
            self.winner.as_deref(),
            &self.held_by,
            self.end.as_ref(),
        )
    }

    /// Whether `device` of `user` takes part or may still come to: the caller's, the winner, or
    /// any Device of the callee while nobody has won.
    pub fn involves(&self, user: &str, device: &str) -> bool {
        self.caller_device == device
            || self.winner.as_deref() == Some(device)
            || (self.winner.is_none() && self.callee == user)
    }

    /// Whether both Devices are known and `device` is one of them.
    pub fn is_active_at(&self, device: &str) -> bool {
        self.phase == Phase::Active
            && (self.caller_device == device || self.winner.as_deref() == Some(device))
    }

    /// Whether this state takes the place of `held`: an ended one always wins, otherwise the newer one does.
    pub fn replaces(&self, held: &Self) -> bool {
        let rank = |view: &Self| (view.phase == Phase::Ended, view.version());
        rank(self) > rank(held)
    }
}

pub type Verdict<'a> = (
    Phase,
    Option<&'a str>,
    &'a BTreeSet<String>,
    Option<&'a End>,
);
