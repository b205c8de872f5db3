//! A Call at its owner: one state machine, told to everybody involved after each transition.

use std::collections::VecDeque;

use model::bus::{Action, Command, Origin};
use model::record::Participant;
use model::{
    AccountId, CallId, CallRecord, CallState, DeviceId, End, EndReason, MessageId, Millis, NodeId,
    Party, Phase, Place, RecordChange, RoomName, Timestamp, UserId,
};
use signaling_wire::room::RefusedMedia;
use signaling_wire::{CallEvent, ErrorCode, ErrorData, OkData, ServerFrame};

use crate::io::Output;
use crate::people::UserCall;
use crate::seal::Snapshot;
use crate::signaling::Signaling;
use crate::sync::{Absent, Settling, must_wait};
use crate::timers::Armed;
use crate::transfer::TransferFate;

/// How many command ids a Call remembers. A client has a handful of commands under way, so an older id cannot come.
const APPLIED_MAX: usize = 32;
/// How many rung Devices a Call remembers; a User has fewer, but new ones can come while it rings.
const RUNG_MAX: usize = 32;
/// How long a Call is kept after its end, for late commands and for `call.sync`.
const ENDED_KEPT: Millis = Millis::from_secs(120);

/// A Call is known within its Account alone: another Account may use the same id and learns nothing.
pub(crate) type CallKey = (AccountId, CallId);

/// A Call at its owner.
pub(crate) struct Call {
    pub(crate) state: CallState,
    pub(crate) ring_until: Timestamp,
    /// The ids of the commands that changed it, oldest first.
    pub(crate) applied: VecDeque<MessageId>,
    /// The callee's Devices that were rung, at most [`RUNG_MAX`].
    pub(crate) rung: Vec<DeviceId>,
    /// `"state":…,"sealed":…` as JSON, for every frame that tells the state.
    pub(crate) told: Box<str>,
    /// After a crash: what must not be decided yet.
    pub(crate) settling: Option<Box<Settling>>,
    /// Whether it came back after a crash.
    pub(crate) came_back: bool,
    /// The epoch of its last transition. To come back is none: then `epoch` grows and nothing has changed.
    pub(crate) changed_in: u32,
    /// Devices that lost their Session, and until when they may come back.
    pub(crate) absent: Vec<Absent>,
    /// The generation of the newest offer of the caller and of the callee.
    pub(crate) offers: [u64; 2],
    /// Where the caller and the callee said last that the other's media arrives, while it moves.
    pub(crate) moved: [Option<Place>; 2],
    pub(crate) armed: Armed,
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    code: ErrorCode,
    message: &'static str,
    /// With `conflict`: the state that holds.
    told: Option<Box<str>>,
    /// With `media_refused`: why.
    reason: Option<RefusedMedia>,
}

/// What a command comes to: the `data` of its `ok`, or nothing yet because it waits.
pub(crate) enum Outcome {
    /// `{state, sealed}` of this Call.
    State(CallKey),
    /// `{room}`.
    Room(RoomName),
    /// `{}`.
    Empty,
    /// Answered later.
    Later,
}

impl Refusal {
    pub(crate) const fn new(code: ErrorCode, message: &'static str) -> Self {
        Self {
            code,
            message,
            told: None,
            reason: None,
        }
    }

    pub(crate) const fn media(reason: RefusedMedia, message: &'static str) -> Self {
        Self {
            code: ErrorCode::MediaRefused,
            message,
            told: None,
            reason: Some(reason),
        }
    }

    pub(crate) fn unknown_call() -> Self {
        Self::new(ErrorCode::UnknownCall, "no such call")
    }

    pub(crate) fn wrong_phase() -> Self {
        Self::new(
            ErrorCode::WrongPhase,
            "the call is in a phase that does not allow it",
        )
    }

    pub(crate) fn not_a_party() -> Self {
        Self::new(
            ErrorCode::NotAParty,
            "this device takes no part in the call",
        )
    }

    /// The `data` of the `error`.
    pub(crate) fn data(&self) -> String {
        let Self {
            code,
            message,
            told,
            reason,
        } = self;
        if let Some(reason) = reason {
            let data = ErrorData {
                reason: Some(*reason),
                ..ErrorData::new(*code, *message)
            };
            return ServerFrame::Error(data).data();
        }
        let code = code.as_str();
        match told {
            None => format!(r#"{{"code":"{code}","message":"{message}"}}"#),
            Some(told) => format!(r#"{{"code":"{code}","message":"{message}",{told}}}"#),
        }
    }
}

impl Call {
    pub(crate) fn new(state: CallState, ring_until: Timestamp) -> Self {
        Self {
            changed_in: state.epoch,
            state,
            ring_until,
            applied: VecDeque::new(),
            rung: Vec::new(),
            told: Box::default(),
            settling: None,
            came_back: false,
            absent: Vec::new(),
            offers: [0; 2],
            moved: [None; 2],
            armed: Armed::default(),
        }
    }

    pub(crate) fn remember(&mut self, command: MessageId) {
        if self.applied.len() == APPLIED_MAX {
            self.applied.pop_front();
        }
        self.applied.push_back(command);
    }

    /// Notes that these Devices are rung; tells whether any of them is new.
    pub(crate) fn note_rung(&mut self, devices: &[DeviceId]) -> bool {
        let before = self.rung.len();
        for device in devices {
            if self.rung.len() < RUNG_MAX && !self.rung.contains(device) {
                self.rung.push(*device);
            }
        }
        self.rung.len() > before
    }

    /// The Call as it is sealed, without a successor.
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            state: self.state.clone(),
            changed_in: self.changed_in,
            ring_until: self.ring_until,
            applied: self.applied.iter().copied().collect(),
            rung: self.rung.clone(),
            successor: None,
        }
    }

    /// The row of the records.
    pub(crate) fn record(&self, account: AccountId) -> CallRecord {
        let state = &self.state;
        let participant = |party: &Party| Participant {
            user: party.user.clone(),
            name: party.name.clone(),
            device: party.device,
        };

        CallRecord {
            account,
            call: state.call,
            caller: participant(&state.caller),
            callee: participant(&state.callee),
            media: state.media,
            created_at: state.created_at,
            answered_at: state.answered_at,
            ended_at: state.ended_at,
            reason: state.end.as_ref().map(|end| end.reason),
            cause: state.end.as_ref().map(|end| end.cause),
            phone: state
                .end
                .as_ref()
                .and_then(|end| Some(end.phone.as_ref()?.reason)),
            ended_by: state.end.as_ref().and_then(|end| end.by.clone()),
            missed: state.is_missed(),
            replaces: state.replaces,
            into: state.end.as_ref().and_then(|end| end.into),
        }
    }

    /// The Device takes part and the Call is active.
    pub(crate) fn ensure_active(&self, user: &UserId, device: DeviceId) -> Result<(), Refusal> {
        if self.state.phase != Phase::Active {
            Err(Refusal::wrong_phase())
        } else if !self.state.takes_part(user, device) {
            Err(Refusal::not_a_party())
        } else {
            Ok(())
        }
    }

    /// When the Call next needs attention.
    fn deadline(&self) -> Option<Timestamp> {
        if let Some(ended_at) = self.state.ended_at {
            return Some(ended_at + ENDED_KEPT);
        }

        let settled = self.settling.as_ref().map(|settling| settling.until);
        let rung =
            (self.state.phase == Phase::Ringing && settled.is_none()).then_some(self.ring_until);
        let absent = self.absent.iter().map(|absent| absent.until).min();
        [settled, rung, absent].into_iter().flatten().min()
    }
}

/// How a Call ends.
pub(crate) fn end(reason: EndReason, by: Option<&UserId>) -> End {
    End {
        reason,
        cause: reason.cause(),
        by: by.cloned(),
        into: None,
        room: None,
        phone: None,
    }
}

impl Signaling {
    /// Takes a command of a Session at `node`, as the Call's owner.
    pub(crate) fn on_command(&mut self, node: NodeId, account: AccountId, command: Command) {
        let (session, id) = (command.origin.session, command.id);

        match self.apply(node, account, command) {
            Ok(Outcome::Later) => {}
            Ok(Outcome::Room(room)) => {
                let data = ServerFrame::Ok(OkData::Upgraded { room }).data();
                self.reply(node, account, session, id, true, &data);
            }
            Ok(Outcome::Empty) => self.reply(node, account, session, id, true, "{}"),
            Ok(Outcome::State(key)) => {
                let data = self
                    .calls
                    .get(&key)
                    .map(|call| format!("{{{}}}", call.told))
                    .unwrap_or_default();
                self.reply(node, account, session, id, true, &data);
            }
            Err(refusal) => self.reply(node, account, session, id, false, &refusal.data()),
        }
    }

    fn apply(
        &mut self,
        node: NodeId,
        account: AccountId,
        command: Command,
    ) -> Result<Outcome, Refusal> {
        let key = (account, command.call);
        match command.action {
            Action::Invite {
                to,
                media,
                commitment,
                ttl,
            } => {
                let invite = crate::invite::Invite {
                    media,
                    commitment,
                    ttl,
                };
                return self.on_invite(key, command.id, &command.origin, to, invite);
            }
            Action::Sync { sealed } => return self.on_sync(key, &command.origin, &sealed),
            _ => {}
        }

        let call = self.calls.get_mut(&key).ok_or_else(Refusal::unknown_call)?;
        if !call.state.is_party(&command.origin.user) {
            return Err(Refusal::not_a_party());
        }
        if call.applied.contains(&command.id) {
            let room = call.state.end.as_ref().and_then(|end| end.room.clone());
            if let Action::TransferWith { with } = command.action {
                self.finish_attended(key, command.id, &command.origin, (account, with));
            }
            return Ok(match (command.action, room) {
                (Action::Upgrade, Some(room)) => Outcome::Room(room),
                _ => Outcome::State(key),
            });
        }
        if command.action == Action::State {
            return Ok(Outcome::State(key));
        }
        let waits = call.settling.is_some() && must_wait(&command.action, call.state.phase);
        if waits {
            return self.wait_until_settled(key, node, command);
        }

        let Command {
            origin, id, action, ..
        } = command;
        match action {
            Action::Ringing => self.on_ringing(key, id, &origin),
            Action::Accept { rev } => self.on_accept(key, id, &origin, rev),
            Action::Decline { rev, busy } => self.on_decline(key, id, &origin, rev, busy),
            Action::Cancel { rev } => self.on_cancel(key, id, &origin, rev),
            Action::Hangup { cause } => self.on_hangup(key, id, &origin, cause),
            Action::Hold { on } => self.on_hold(key, id, &origin, on),
            Action::Keys { keys } => self.on_keys(key, id, &origin, &keys),
            Action::TransferTo { to } => self.on_transfer_to(key, id, &origin, to),
            Action::TransferWith { with } => self.on_transfer_with(key, id, &origin, with),
            Action::Upgrade => self.on_upgrade(key, id, &origin),
            Action::Moved { to } => self.on_moved(key, &origin, to),
            Action::Relay(relay) => self.on_relay(key, &origin.user, origin.device, &relay),
            Action::Invite { .. } | Action::Sync { .. } | Action::State => Ok(Outcome::State(key)),
        }
    }

    fn on_hangup(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
        cause: Option<u8>,
    ) -> Result<Outcome, Refusal> {
        let state = self.state(key)?;
        let is_caller = state.caller.user == origin.user;
        if !state.takes_part(&origin.user, origin.device) {
            return match state.phase {
                Phase::Ringing if !is_caller => Err(Refusal::wrong_phase()),
                _ => Err(Refusal::not_a_party()),
            };
        }

        let reason = match state.phase {
            Phase::Ringing => EndReason::Cancelled,
            Phase::Active => EndReason::Hangup,
            Phase::Ended => return Ok(Outcome::State(key)), // both sides hung up
        };
        let mut how = end(reason, Some(&origin.user));
        how.cause = cause.unwrap_or(how.cause);
        self.end_call(key, Some(id), how, Some(origin));
        Ok(Outcome::State(key))
    }

    fn on_hold(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
        on: bool,
    ) -> Result<Outcome, Refusal> {
        self.ensure_active(key, origin)?;

        let is_held = self.state(key)?.held_by.contains(&origin.user);
        if is_held != on {
            self.transition(key, Some(id), |state| {
                if on {
                    state.held_by.push(origin.user.clone());
                } else {
                    state.held_by.retain(|user| *user != origin.user);
                }
            });
            let event = if on {
                CallEvent::Held
            } else {
                CallEvent::Resumed
            };
            self.announce(key, event, origin);
            self.hold_phones(key);
        }
        Ok(Outcome::State(key))
    }

    pub(crate) fn state(&self, key: CallKey) -> Result<&CallState, Refusal> {
        self.calls
            .get(&key)
            .map(|call| &call.state)
            .ok_or_else(Refusal::unknown_call)
    }

    /// The Device takes part and the Call is active.
    pub(crate) fn ensure_active(&self, key: CallKey, origin: &Origin) -> Result<(), Refusal> {
        let call = self.calls.get(&key).ok_or_else(Refusal::unknown_call)?;
        call.ensure_active(&origin.user, origin.device)
    }

    /// The client knows the newest revision.
    pub(crate) fn ensure_rev(&self, key: CallKey, rev: u32) -> Result<(), Refusal> {
        let call = self.calls.get(&key).ok_or_else(Refusal::unknown_call)?;
        if call.state.rev == rev {
            return Ok(());
        }

        let told = Some(call.told.clone());
        Err(Refusal {
            told,
            ..Refusal::new(ErrorCode::Conflict, "the call has moved on")
        })
    }

    /// Takes a Call in: a new one, or one that came back.
    pub(crate) fn insert_call(&mut self, key: CallKey, call: Call) {
        self.calls.insert(key, call);
        self.seal(key);
    }

    /// Changes a Call and counts it.
    pub(crate) fn transition(
        &mut self,
        key: CallKey,
        command: Option<MessageId>,
        change: impl FnOnce(&mut CallState),
    ) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };

        change(&mut call.state);
        call.state.rev += 1;
        call.changed_in = call.state.epoch;
        if let Some(command) = command {
            call.remember(command);
        }
        self.seal(key);
    }

    /// Seals the state as it is now and lets both Users know of the Call.
    pub(crate) fn seal(&mut self, key: CallKey) {
        let random = self.rng.wide();
        let Some(call) = self.calls.get(&key) else {
            return;
        };

        let successor = self.successor(key.0, &call.state).map(Box::new);
        let snapshot = Snapshot {
            successor,
            ..call.snapshot()
        };
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        let sealed = self.sealer.seal(key.0, &snapshot, random);
        let state = snapshot.state;
        let json = serde_json::to_string(&state).unwrap_or_default(); // plain fields cannot fail
        call.told = format!(r#""state":{json},"sealed":"{sealed}""#).into();

        self.arm_call(key);
        self.note_phones(key.0, &state);
        let (owner, phase) = (self.node, state.phase);
        for (party, answers) in [(&state.caller, false), (&state.callee, true)] {
            let takes_part = if answers {
                phase == Phase::Active
            } else {
                phase != Phase::Ended
            };
            if party.phone.is_some() {
                continue; // nobody here
            }
            let noted = UserCall {
                call: state.call,
                owner,
                phase,
                takes_part,
            };

            let entry = self.user_entry(key.0, &party.user);
            let before = entry.find_call(noted.call).copied();
            entry.note_call(noted);
            if before != Some(noted) {
                self.refresh_user(key.0, &party.user);
            }
        }
    }

    /// The Call that takes over from one, or would if it is answered.
    fn successor(&self, account: AccountId, state: &CallState) -> Option<Snapshot> {
        let rings = state.transfer.as_ref().map(|transfer| transfer.call);
        let into = state.end.as_ref().and_then(|end| end.into);

        self.calls
            .get(&(account, rings.or(into)?))
            .map(Call::snapshot)
    }

    pub(crate) fn arm_call(&mut self, key: CallKey) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };

        if let Some(at) = call.deadline() {
            self.call_timers.arm(key, &mut call.armed, at);
        }
    }

    pub(crate) fn on_call_timer(&mut self, key: CallKey) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };

        call.armed.fired();
        if call
            .state
            .ended_at
            .is_some_and(|ended_at| ended_at + ENDED_KEPT <= self.now)
        {
            return self.forget_call(key);
        }
        if call
            .settling
            .as_ref()
            .is_some_and(|settling| settling.until <= self.now)
        {
            self.settle(key);
        }
        self.drop_absent(key);

        let now = self.now;
        let rang_out = self.calls.get(&key).is_some_and(|call| {
            call.state.phase == Phase::Ringing && call.settling.is_none() && call.ring_until <= now
        });
        if rang_out {
            self.end_call(key, None, end(EndReason::Missed, None), None);
        }
        self.arm_call(key);
    }

    fn forget_call(&mut self, key: CallKey) {
        let Some(call) = self.calls.remove(&key) else {
            return;
        };

        for Party { user, phone, .. } in [call.state.caller, call.state.callee] {
            if phone.is_some() {
                continue;
            }
            self.user_entry(key.0, &user)
                .calls
                .retain(|known| known.call != key.1);
            self.refresh_user(key.0, &user);
        }
    }

    /// Ends a Call, unless it has ended, and does what follows for a transfer. The Device of `except` has the state in
    /// its `ok`.
    pub(crate) fn end_call(
        &mut self,
        key: CallKey,
        command: Option<MessageId>,
        mut how: End,
        except: Option<&Origin>,
    ) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        if call.state.phase == Phase::Ended {
            return;
        }

        let transfer = call.state.transfer.take();
        let fate = transfer.map(|transfer| TransferFate::of(transfer, &how));
        if let Some(TransferFate::RingsOn(call)) = &fate {
            how.into = Some(*call);
        }

        let now = self.now;
        let by = how.by.clone();
        self.transition(key, command, |state| {
            state.phase = Phase::Ended;
            state.ended_at = Some(now);
            state.end = Some(how);
        });
        self.record_call(key, RecordChange::CallEnded);
        self.announce_except(key, CallEvent::Ended, by.as_ref(), except);
        self.tell_history(key);
        self.flush_waiting(key);
        self.after_end(key, fate.as_ref(), by.as_ref());
        self.release_phones(key);
    }

    /// Hands the Call's row to the records.
    pub(crate) fn record_call(
        &mut self,
        key: CallKey,
        change: impl FnOnce(Box<CallRecord>) -> RecordChange,
    ) {
        if let Some(call) = self.calls.get(&key) {
            let record = Box::new(call.record(key.0));
            self.output(Output::Record(change(record)));
        }
    }
}
