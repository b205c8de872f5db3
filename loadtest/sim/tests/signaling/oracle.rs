//! What must hold whatever happens. The Devices report what they see; nothing here looks into the core.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::device::Command;
use crate::mode::Mode;
use crate::view::{Held, Phase, View};

/// Collects facts, and failures as text.
pub struct Oracle {
    pub mode: Mode,
    pub failures: Vec<String>,
    pub calls: BTreeMap<String, Facts>,
    /// The newest state each Device saw of each Call it took part in.
    pub last: BTreeMap<(String, String), View>,
    /// Which User a Device belongs to.
    pub users_by_device: BTreeMap<String, String>,
    /// How often each `history` entry reached each Device.
    pub history: BTreeMap<(String, String), u32>,
    /// Answers by type and code, to see that a run is not idle.
    pub tally: BTreeMap<String, u32>,
    relays: Relays,
    /// How long a Device had no socket, as the server saw it, before its last `hello`.
    away: BTreeMap<String, Duration>,
    ids_by_name: BTreeMap<String, String>,
}

/// What is known of one Call.
#[derive(Default)]
pub struct Facts {
    /// Every version, as it was seen first.
    versions: BTreeMap<(u64, u64), View>,
    /// Every version each Device saw.
    seen: BTreeMap<String, BTreeSet<(u64, u64)>>,
    /// Who was ever seen as the one that accepted.
    winners: BTreeSet<String>,
    /// The versions at which an event was told.
    events: BTreeMap<String, BTreeSet<(u64, u64)>>,
    /// How many commands of each kind could have caused a transition.
    commands: BTreeMap<String, usize>,
    /// What answered commands have promised.
    promises: Vec<Promise>,
    /// The new Calls that claim to continue this one.
    successors: BTreeSet<String>,
}

/// The effect of a command that was answered with `ok`.
#[derive(Debug, Clone)]
enum Promise {
    Winner(String),
    Ended,
    Held { user: String, on: bool },
}

/// Which relayed messages were answered and which arrived.
#[derive(Default)]
struct Relays {
    answered: BTreeSet<String>,
    arrived: BTreeMap<String, Vec<(String, u64)>>,
    markers: BTreeSet<String>,
}

/// How long a Session outlives its WebSocket.
const SESSION_KEPT: Duration = Duration::from_secs(60);

/// What a well-behaved client must never be told.
const CODES_NEVER: [&str; 16] = [
    "bad_frame",
    "unknown_type",
    "bad_data",
    "too_large",
    "wrong_sequence",
    "hello_expected",
    "unauthorized",
    "token_expired",
    "forbidden",
    "rate_limited",
    "session_overflow",
    "call_exists",
    "weak_fingerprint",
    "forged_snapshot",
    "origin_refused",
    "internal",
];

impl Oracle {
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            failures: Vec::new(),
            calls: BTreeMap::new(),
            last: BTreeMap::new(),
            users_by_device: BTreeMap::new(),
            history: BTreeMap::new(),
            tally: BTreeMap::new(),
            relays: Relays::default(),
            away: BTreeMap::new(),
            ids_by_name: BTreeMap::new(),
        }
    }

    pub fn add_device(&mut self, name: &str, id: &str, user: &str) {
        self.users_by_device.insert(id.into(), user.into());
        self.ids_by_name.insert(name.into(), id.into());
    }

    pub fn fail(&mut self, text: String) {
        self.failures.push(text);
    }

    fn require(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.fail(text());
        }
    }

    // What Devices report.

    pub fn on_command(&mut self, device: &str, command: &Command) {
        let kind = match (command.kind.as_str(), command.data["on"].as_bool()) {
            ("call.hold", Some(true)) => "hold",
            ("call.hold", _) => "resume",
            (kind, _) => kind,
        };
        for field in ["call", "with"] {
            if let Some(call) = command.data[field].as_str() {
                *self
                    .calls
                    .entry(call.into())
                    .or_default()
                    .commands
                    .entry(kind.into())
                    .or_default() += 1;
            }
        }
        if let Some(marker) = marker(&command.data) {
            let fresh = self.relays.markers.insert(marker.clone());
            self.require(fresh, || {
                format!("{device}: the test used marker {marker} twice")
            });
        }
    }

    pub fn on_answer(&mut self, device: &str, command: &Command, kind: &str, data: &Value) {
        let code = data["code"].as_str().unwrap_or(kind);
        *self
            .tally
            .entry(format!("{} {code}", command.kind))
            .or_default() += 1;
        if kind == "error" {
            let expected = match code {
                // Two Calls with the same other side cannot be connected to one.
                "self_call" => {
                    command.data["with"].is_string()
                        || command.data["to"].as_str() == self.user_of(device)
                }
                "unknown_user" => command.data["to"] == "nobody",
                // A role may be lost while a command of it is on its way.
                "forbidden" => command.kind.starts_with("room."),
                code => !CODES_NEVER.contains(&code),
            };
            return self.require(expected, || {
                format!(
                    "{device}: {} {} was refused: {data}",
                    command.kind, command.data
                )
            });
        }
        if let Some(marker) = marker(&command.data) {
            self.relays.answered.insert(marker);
        }
        if command.kind.starts_with("call.") && command.kind != "call.verify" {
            match View::read(&data["state"]) {
                Some(view) => self.on_done(device, command, &view),
                None => self.fail(format!(
                    "{device}: ok to {} without a state: {data}",
                    command.kind
                )),
            }
        }
    }

    /// Checks that the state in an `ok` shows what the command asked for, and keeps it as a promise.
    fn on_done(&mut self, device: &str, command: &Command, view: &View) {
        let (user, id) = (
            self.user_of(device).unwrap_or_default().to_owned(),
            self.ids_by_name[device].clone(),
        );
        let promise = match command.kind.as_str() {
            "call.accept" => Promise::Winner(id),
            "call.decline" | "call.cancel" | "call.hangup" => Promise::Ended,
            "call.hold" => Promise::Held {
                user,
                on: command.data["on"] == true,
            },
            "call.transfer" if command.data["with"].is_string() => Promise::Ended,
            _ => return,
        };
        // A command that comes again is answered with what holds by now.
        let holds = promise.holds(view) || self.mode.long_absences_over_crashes;
        self.require(holds, || {
            format!(
                "{device}: ok to {} {} shows {view:?}",
                command.kind, command.data
            )
        });

        let promises = &mut self.calls.entry(view.call.clone()).or_default().promises;
        if let Promise::Held { user, .. } = &promise {
            // Only the last word of a User about hold stands.
            promises
                .retain(|old| !matches!(old, Promise::Held { user: other, .. } if other == user));
        }
        promises.push(promise);
    }

    pub fn on_state(
        &mut self,
        device: &str,
        user: &str,
        via: &str,
        event: Option<&str>,
        view: &View,
    ) {
        *self
            .tally
            .entry(format!("{via} {}", event.unwrap_or("-")))
            .or_default() += 1;
        self.check_shape(device, view);
        let id = self.ids_by_name[device].clone();
        let call = view.call.clone();

        let key = (device.to_owned(), call.clone());
        let held = self.last.get(&key);
        if let Some(held) = held
            && self.mode.ordered_updates
            && matches!(via, "call.update" | "call.incoming")
            && view.version() < held.version()
        {
            let text = format!("{device}: {via} goes back from {held:?} to {view:?}");
            self.fail(text);
        } else if via == "call.sync" || held.is_none_or(|held| view.replaces(held)) {
            if view.involves(user, &id) {
                self.last.insert(key, view.clone());
            } else {
                self.last.remove(&key);
            }
        }

        if let Some(old) = &view.replaces {
            self.calls
                .entry(old.clone())
                .or_default()
                .successors
                .insert(call.clone());
        }
        let facts = self.calls.entry(call).or_default();
        let mut problems = Vec::new();
        // A bystander, another Device of the callee, may hear of what is lost in a crash before either end knew of it.
        let at_an_end = view.caller_device == id || view.winner.as_ref() == Some(&id);
        if at_an_end || !self.mode.crashes {
            facts.winners.extend(view.winner.clone());
            let version = facts.versions.entry(view.version());
            let known = version.or_insert_with(|| view.clone());
            if known != view && !self.mode.long_absences_over_crashes {
                problems.push(format!(
                    "one version, two states:\n    {known:?}\n    {view:?}"
                ));
            }
        }
        if facts.winners.len() > 1 && !self.mode.long_absences_over_crashes {
            problems.push(format!("two winners: {:?} at {view:?}", facts.winners));
        }
        facts
            .seen
            .entry(device.into())
            .or_default()
            .insert(view.version());
        if via == "call.transfer" && view.rev > 1 {
            // One that fails at once takes two steps; the Device that asked hears of the second alone.
            let before = (view.epoch, view.rev - 1);
            facts.seen.entry(device.into()).or_default().insert(before);
        }
        if let Some(event) = event {
            facts
                .events
                .entry(event.into())
                .or_default()
                .insert(view.version());
        }
        for problem in problems {
            self.fail(format!("{device}: {via}: {problem}"));
        }
    }

    /// What any state must fulfil by itself.
    fn check_shape(&mut self, device: &str, view: &View) {
        let owner = |device: &str| self.users_by_device.get(device);
        let right = view.rev >= 1
            && view.epoch >= 1
            && owner(&view.caller_device) == Some(&view.caller)
            && view
                .winner
                .as_deref()
                .is_none_or(|device| owner(device) == Some(&view.callee))
            && view
                .ringing
                .iter()
                .all(|device| owner(device) == Some(&view.callee))
            && view
                .held_by
                .iter()
                .all(|user| *user == view.caller || *user == view.callee)
            && (view.phase == Phase::Ended) == view.end.is_some()
            && match view.phase {
                Phase::Ringing => view.winner.is_none() && view.held_by.is_empty(),
                Phase::Active => view.winner.is_some(),
                Phase::Ended => true,
            };
        self.require(right, || {
            format!("{device}: a state that cannot be: {view:?}")
        });
    }

    /// The server has got a `hello`; for so long it had no socket of this Device.
    pub fn on_hello(&mut self, id: &str, away: Duration) {
        self.away.insert(id.into(), away);
    }

    pub fn on_welcome(&mut self, device: &str, asked: bool, resumed: bool) {
        *self
            .tally
            .entry(format!("welcome resumed={resumed}"))
            .or_default() += 1;
        let away = self.away.get(&self.ids_by_name[device]);
        let in_time = away.is_none_or(|away| *away < SESSION_KEPT);
        if self.mode.always_resumes && in_time {
            self.require(asked == resumed, || {
                format!("{device}: asked to resume: {asked}, resumed: {resumed}")
            });
        } else {
            self.require(asked || !resumed, || {
                format!("{device}: resumed without asking")
            });
        }
    }

    pub fn on_close_code(&mut self, device: &str, code: u16) {
        *self.tally.entry(format!("close {code}")).or_default() += 1;
        self.require(matches!(code, 1000 | 1001 | 4001 | 4004), || {
            format!("{device}: closed with {code}")
        });
    }

    pub fn on_loose_error(&mut self, device: &str, frame: &Value) {
        self.fail(format!("{device}: {frame}"));
    }

    pub fn on_relayed(&mut self, device: &str, kind: &str, data: &Value) {
        *self.tally.entry(format!("relayed {kind}")).or_default() += 1;
        let from = data["from"].as_str().unwrap_or_default();
        self.require(self.users_by_device.contains_key(from), || {
            format!("{device}: {kind} from nobody: {data}")
        });
        let Some(marker) = marker(data) else { return };
        let Some((sender, number)) = marker.split_once('#') else {
            return;
        };
        let number = number.parse().unwrap_or(0);
        let arrived = self.relays.arrived.entry(device.into()).or_default();
        let late = arrived
            .iter()
            .rfind(|(other, _)| other == sender)
            .is_some_and(|(_, last)| *last >= number);
        arrived.push((sender.into(), number));
        if !self.mode.crashes {
            self.require(!late, || {
                format!("{device}: {marker} arrived twice or out of order")
            });
        }
    }

    pub fn on_history(&mut self, device: &str, data: &Value) {
        if let Some(call) = data["entry"]["call"].as_str() {
            *self
                .history
                .entry((device.into(), call.into()))
                .or_default() += 1;
        }
    }

    /// A Device lost its memory.
    pub fn on_forgotten(&mut self, device: &str) {
        self.last.retain(|(name, _), _| name != device);
        for facts in self.calls.values_mut() {
            facts.seen.remove(device);
        }
    }

    /// A Device with a new Session hands back what it holds. An end it has forgotten by then cannot win any more over what
    /// somebody brings back who was away for even longer.
    pub fn on_handed_back(&mut self, device: &str, held: &BTreeMap<String, Held>) {
        if self.mode.long_absences_over_crashes {
            self.last
                .retain(|(name, call), _| name != device || held.contains_key(call));
        }
    }

    // What must hold in the end.

    /// Checks what holds once all Devices have been connected and quiet for long.
    pub fn check_quiet(&mut self) {
        let mut problems = Vec::new();
        for ((device, call), view) in &self.last {
            let facts = &self.calls[call];
            for ((other, _), theirs) in self.last.iter().filter(|((_, c), _)| c == call) {
                if theirs.verdict() != view.verdict() {
                    problems.push(format!(
                        "{device} and {other} disagree:\n    {view:?}\n    {theirs:?}"
                    ));
                }
            }
            match view.phase {
                Phase::Ringing => problems.push(format!("{device} rings for ever: {view:?}")),
                Phase::Active => {
                    let ends = [Some(&view.caller_device), view.winner.as_ref()];
                    let holders = self.last.keys().filter(|(name, c)| {
                        c == call && ends.contains(&Some(&self.ids_by_name[name]))
                    });
                    if holders.count() != 2 {
                        problems.push(format!("{device} is alone in {view:?}"));
                    }
                }
                Phase::Ended => {}
            }
            for promise in facts.promises.iter().filter(|promise| !promise.holds(view)) {
                if !self.mode.long_absences_over_crashes {
                    problems.push(format!("lost at {device}: {promise:?} of {view:?}"));
                }
            }
        }
        self.failures.extend(problems);
        self.check_counts();
        self.check_gaps();
    }

    /// No command was applied twice: no more transitions than commands that could cause them.
    fn check_counts(&mut self) {
        if self.mode.long_absences_over_crashes {
            return;
        }
        let mut problems = Vec::new();
        for (call, facts) in &self.calls {
            let count = |kind: &str| facts.commands.get(kind).copied().unwrap_or(0);
            let told = |event: &str| facts.events.get(event).map_or(0, BTreeSet::len);
            let checks = [
                ("held", told("held"), count("hold")),
                ("resumed", told("resumed"), count("resume")),
                ("transferring", told("transferring"), count("call.transfer")),
                ("successors", facts.successors.len(), count("call.transfer")),
            ];
            for (what, told, commands) in checks {
                if told > commands {
                    problems.push(format!(
                        "{call}: {told} times {what} by {commands} commands"
                    ));
                }
            }
        }
        self.failures.extend(problems);
    }

    /// Nothing reliable was lost: every Device saw every revision between its first and its last,
    /// and every relayed message that was answered arrived.
    fn check_gaps(&mut self) {
        if !self.mode.always_resumes {
            return;
        }
        let mut problems = Vec::new();
        for (call, facts) in &self.calls {
            for (device, seen) in &facts.seen {
                let involved = self.last.contains_key(&(device.clone(), call.clone()));
                let (Some(first), Some(last)) = (seen.first(), seen.last()) else {
                    continue;
                };
                if involved && (first.0 != last.0 || seen.len() as u64 != last.1 - first.1 + 1) {
                    problems.push(format!(
                        "{device} missed a revision of {call}: saw {seen:?}"
                    ));
                }
            }
        }
        let arrived: BTreeSet<_> = self
            .relays
            .arrived
            .values()
            .flatten()
            .map(|(sender, number)| format!("{sender}#{number}"))
            .collect();
        for marker in self.relays.answered.difference(&arrived) {
            problems.push(format!("{marker} was answered and never arrived"));
        }
        self.failures.extend(problems);
    }

    fn user_of(&self, device: &str) -> Option<&str> {
        self.users_by_device
            .get(self.ids_by_name.get(device)?)
            .map(String::as_str)
    }
}

impl Promise {
    fn holds(&self, view: &View) -> bool {
        match self {
            Self::Winner(device) => view.winner.as_ref() == Some(device),
            Self::Ended => view.phase == Phase::Ended,
            Self::Held { user, on } => {
                view.phase == Phase::Ended || view.held_by.contains(user) == *on
            }
        }
    }
}

/// The text by which the test knows a relayed message again: sender and number.
fn marker(data: &Value) -> Option<String> {
    let candidate = data["candidates"][0]["candidate"].as_str()?;
    Some(
        candidate
            .strip_prefix("candidate:")?
            .split(' ')
            .next()?
            .to_owned(),
    )
}
