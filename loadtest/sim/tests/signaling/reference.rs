//! The state machine of a Call as the document's table has it, one naive function; the core is compared with it.
//!
//! It knows no timeouts and no Sessions: those transitions it takes from what the core tells. It judges the answer to
//! a command by the newest state that was told, and says nothing when somebody is not connected, for then the
//! newest state may have been told to nobody.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::view::{Phase, View};

/// What the core holds, as far as it has told.
#[derive(Default)]
pub struct Reference {
    newest: BTreeMap<String, View>,
    asked: Option<Asked>,
    /// The ids of all commands so far: one that comes again gets the `ok` of its first time.
    ids: BTreeSet<String>,
    /// Whether somebody may come back so late after a crash that what was told since is undone.
    lenient: bool,
}

/// A command on its way through the core.
struct Asked {
    id: String,
    text: String,
    before: View,
    expected: Expected,
}

/// What the document says about a command.
enum Expected {
    /// `ok`, with a state of which this holds.
    Done(fn(&View, &View, &str, &str) -> bool, String, String),
    /// One of these codes.
    Refused(&'static [&'static str]),
}

const STALE: &[&str] = &["conflict"];
const WRONG: &[&str] = &["conflict", "wrong_phase"];
const STRANGER: &[&str] = &["not_a_party", "unknown_call"];
const NOT_YOURS: &[&str] = &["not_a_party", "wrong_phase", "conflict"];

impl Reference {
    /// A reference that has heard nothing yet; a `lenient` one lets a Call that came back contradict what was told since.
    pub fn new(lenient: bool) -> Self {
        Self {
            lenient,
            ..Self::default()
        }
    }

    /// Forgets all Calls, as the server does in a crash.
    pub fn forget(&mut self) {
        self.newest.clear();
        self.asked = None;
    }

    /// Takes note of a frame that the core is about to get. `alone` tells that somebody is not connected.
    pub fn on_command(&mut self, text: &str, user: &str, device: &str, alone: bool) {
        self.asked = None;
        let Ok(frame) = serde_json::from_str::<Value>(text) else {
            return;
        };
        let (kind, data) = (frame["type"].as_str().unwrap_or_default(), &frame["data"]);
        let before = data["call"].as_str().and_then(|call| self.newest.get(call));
        let Some(id) = frame["id"].as_str() else {
            return;
        };
        let is_new = self.ids.insert(id.to_owned());
        let Some(before) = before.filter(|_| is_new && !alone) else {
            return;
        };
        if let Some(expected) = expected(before, kind, data, user, device) {
            let (id, before) = (id.to_owned(), before.clone());
            self.asked = Some(Asked {
                id,
                text: text.to_owned(),
                before,
                expected,
            });
        }
    }

    /// The core has done what there was to do. An answer that comes later had to wait, and the Call has moved on by then.
    pub fn on_quiet(&mut self) {
        self.asked = None;
    }

    /// Takes note of a frame the core sends. Returns what is wrong with it.
    pub fn on_sent(&mut self, frame: &Value) -> Option<String> {
        let view = View::read(&frame["data"]["state"]);
        let mut wrong = None;
        if let Some(asked) = self
            .asked
            .take_if(|asked| frame["reply_to"] == asked.id.as_str())
        {
            wrong = asked.judge(frame, view.as_ref());
        }
        if let Some(view) = view {
            let held = self.newest.get(&view.call);
            if held.is_none_or(|held| view.version() > held.version()) {
                wrong = wrong.or_else(|| held.and_then(|held| unlawful(held, &view, self.lenient)));
                self.newest.insert(view.call.clone(), view);
            }
        }
        wrong
    }
}

impl Asked {
    fn judge(&self, frame: &Value, after: Option<&View>) -> Option<String> {
        let code = frame["data"]["code"].as_str();
        let right = match (&self.expected, frame["type"].as_str(), after) {
            (Expected::Done(holds, user, device), Some("ok"), Some(after)) => {
                holds(&self.before, after, user, device)
            }
            (Expected::Refused(codes), Some("error"), _) => {
                code.is_some_and(|code| codes.contains(&code))
            }
            _ => false,
        };
        (!right).then(|| {
            format!(
                "{} at {:?}\n    was answered {frame}",
                self.text, self.before
            )
        })
    }
}

/// What must happen to a Call in state `before`; `None` where the table leaves it open.
fn expected(before: &View, kind: &str, data: &Value, user: &str, device: &str) -> Option<Expected> {
    let done = |holds| Some(Expected::Done(holds, user.into(), device.into()));
    let refused = |codes| Some(Expected::Refused(codes));
    let is_caller = before.caller_device == device;
    let is_callee = before.callee == user;
    let stale = data["rev"].as_u64() != Some(before.rev);
    if !is_callee && before.caller != user {
        let known = [
            "call.accept",
            "call.decline",
            "call.cancel",
            "call.hangup",
            "call.hold",
            "call.ringing",
            "call.state",
        ];
        return if known.contains(&kind) {
            refused(STRANGER)
        } else {
            None
        };
    }

    match (kind, before.phase) {
        ("call.state", _) => done(|before, after, _, _| after.version() == before.version()),
        ("call.ringing", Phase::Ringing) if is_callee => done(|_, after, _, device| {
            after.phase == Phase::Ringing && after.ringing.contains(device)
        }),
        ("call.accept" | "call.decline", Phase::Ringing) if !is_callee => refused(NOT_YOURS),
        ("call.accept" | "call.decline" | "call.cancel", Phase::Active | Phase::Ended) => {
            refused(WRONG)
        }
        ("call.accept" | "call.decline" | "call.cancel", Phase::Ringing) if stale => refused(STALE),
        ("call.accept", Phase::Ringing) => done(|before, after, _, device| {
            after.phase == Phase::Active
                && after.winner.as_deref() == Some(device)
                && after.rev == before.rev + 1
        }),
        ("call.decline", Phase::Ringing) => {
            done(|_, after, user, _| ended(after, &["declined", "busy"], user))
        }
        ("call.cancel", Phase::Ringing) if is_caller => {
            done(|_, after, user, _| ended(after, &["cancelled"], user))
        }
        ("call.hangup", Phase::Ringing) if is_caller => {
            done(|_, after, user, _| ended(after, &["cancelled"], user))
        }
        ("call.hangup", Phase::Active) if before.is_active_at(device) => {
            done(|_, after, user, _| ended(after, &["hangup"], user))
        }
        ("call.hold", Phase::Active) if before.is_active_at(device) => {
            let on = data["on"] == true;
            if on {
                done(|_, after, user, _| {
                    after.phase == Phase::Active && after.held_by.contains(user)
                })
            } else {
                done(|_, after, user, _| {
                    after.phase == Phase::Active && !after.held_by.contains(user)
                })
            }
        }
        ("call.hold", Phase::Ringing | Phase::Ended) => refused(WRONG),
        _ => None,
    }
}

fn ended(after: &View, reasons: &[&str], by: &str) -> bool {
    let end = after.end.as_ref();
    end.is_some_and(|end| reasons.contains(&end.reason.as_str()) && end.by.as_deref() == Some(by))
}

/// What is wrong with going from `before` to `after`, whoever asked for it.
fn unlawful(before: &View, after: &View, lenient: bool) -> Option<String> {
    let same_people = before.caller == after.caller && before.callee == after.callee;
    let same_caller = before.caller_device == after.caller_device;
    let same_winner = before.winner.is_none() || before.winner == after.winner;
    let forward = before.phase <= after.phase && before.phase != Phase::Ended;
    // What came back after a crash may contradict what was told since.
    let adopted = lenient || before.epoch != after.epoch;
    let right = same_people
        && same_caller
        && before.replaces == after.replaces
        && (adopted || (same_winner && forward));
    (!right).then(|| format!("an unlawful step:\n    {before:?}\n    {after:?}"))
}
