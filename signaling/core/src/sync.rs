//! Calls that outlive a crash, and Devices that leave: `call.sync`, the settle window, absence.

use model::bus::{Action, Body, Command, Leave, Origin, Target};
use model::{
    AccountId, DeviceId, EndReason, Millis, NodeId, Phase, RecordChange, Timestamp, UserId,
};
use signaling_wire::{CallEvent, ErrorCode};

use crate::calls::{Call, CallKey, Outcome, Refusal, end};
use crate::people::UserCall;
use crate::seal::Snapshot;
use crate::session::Session;
use crate::signaling::Signaling;

/// How long a Call that came back waits for the Devices in it.
const SETTLE: Millis = Millis::from_secs(5);
/// How many commands wait for a Call to settle; the others are told to come again.
const WAITING_MAX: usize = 64;

/// A Call that came back and may not be the newest yet.
pub(crate) struct Settling {
    pub(crate) until: Timestamp,
    /// `epoch` and `rev` as they were sealed, to compare with what the others hand back.
    origin: (u32, u32),
    synced: Vec<(UserId, DeviceId)>,
    waiting: Vec<(NodeId, Command)>,
}

/// A Device of a Call that has lost its Session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Absent {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    /// Until when it may come back.
    pub(crate) until: Timestamp,
}

/// Whether a command could contradict what somebody else holds. Ending an active Call never does: an end always wins.
pub(crate) fn must_wait(action: &Action, phase: Phase) -> bool {
    match action {
        Action::Sync { .. } | Action::State => false,
        Action::Hangup { .. } => phase != Phase::Active,
        _ => true,
    }
}

/// Whether what was sealed takes the place of what is held.
fn is_newer(sealed: &Snapshot, held: &Call) -> bool {
    let held_version = held
        .settling
        .as_ref()
        .map_or((held.state.epoch, held.state.rev), |settling| {
            settling.origin
        });
    let is_ended = |phase| phase == Phase::Ended;

    !is_ended(held.state.phase)
        && (is_ended(sealed.state.phase) || (sealed.state.epoch, sealed.state.rev) > held_version)
}

/// The Devices that may hold something newer.
fn devices_of(call: &Call) -> Vec<(UserId, DeviceId)> {
    let state = &call.state;
    let caller = state
        .caller
        .device
        .map(|device| (state.caller.user.clone(), device));
    let callee = state
        .callee
        .device
        .map(|device| (state.callee.user.clone(), device));
    let ringing = state
        .ringing
        .iter()
        .map(|device| (state.callee.user.clone(), *device));
    let ringing = ringing.filter(|_| state.phase == Phase::Ringing);

    caller.into_iter().chain(callee).chain(ringing).collect()
}

impl Signaling {
    pub(crate) fn on_sync(
        &mut self,
        key: CallKey,
        origin: &Origin,
        sealed: &str,
    ) -> Result<Outcome, Refusal> {
        let forged = Refusal::new(ErrorCode::ForgedSnapshot, "not sealed here for this call");
        let snapshot = self.sealer.open(key.0, key.1, sealed).ok_or(forged)?;
        if !snapshot.state.is_party(&origin.user) {
            return Err(Refusal::not_a_party());
        }

        let is_news = self
            .calls
            .get(&key)
            .is_none_or(|held| is_newer(&snapshot, held));
        if is_news {
            self.adopt(key, snapshot, origin);
        }
        self.device_is_back(key, origin);
        Ok(Outcome::State(key))
    }

    /// Takes what was sealed in the place of what is held, and waits for what the other Devices hold.
    fn adopt(&mut self, key: CallKey, snapshot: Snapshot, origin: &Origin) {
        let Snapshot {
            mut state,
            ring_until,
            applied,
        } = snapshot;
        let held = self.calls.remove(&key);
        let version = (state.epoch, state.rev);
        state.epoch = held
            .as_ref()
            .map_or(0, |held| held.state.epoch)
            .max(state.epoch + 1);

        let mut call = Call::new(state, ring_until);
        applied
            .into_iter()
            .for_each(|command| call.remember(command));
        let mut settling = Settling {
            until: self.now + SETTLE,
            origin: version,
            synced: Vec::new(),
            waiting: Vec::new(),
        };
        if let Some(held) = held {
            held.applied
                .iter()
                .for_each(|command| call.remember(*command));
            (call.offers, call.absent, call.armed) = (held.offers, held.absent, held.armed);
            if let Some(before) = held.settling {
                settling = Settling {
                    origin: version,
                    ..*before
                };
            }
        }

        let resume = Millis::new(self.limits.resume_ms);
        for (user, device) in devices_of(&call) {
            let is_known = call
                .absent
                .iter()
                .any(|absent| absent.user == user && absent.device == device);
            if !is_known && !settling.synced.contains(&(user.clone(), device)) {
                call.absent.push(Absent {
                    user,
                    device,
                    until: self.now + resume,
                });
            }
        }
        call.settling = Some(Box::new(settling));

        let phase = call.state.phase;
        self.insert_call(key, call);
        self.record_call(
            key,
            match phase {
                Phase::Ringing => RecordChange::CallBegun,
                Phase::Active => RecordChange::CallAnswered,
                Phase::Ended => RecordChange::CallEnded,
            },
        );
        self.announce_except(key, CallEvent::Adopted, None, Some(origin));
        if phase == Phase::Ringing {
            self.ring_unaware(key);
        }
        if phase == Phase::Ended {
            self.settle(key);
        }
    }

    /// A Device has synced.
    fn device_is_back(&mut self, key: CallKey, origin: &Origin) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };

        call.absent
            .retain(|absent| absent.user != origin.user || absent.device != origin.device);
        let expected = devices_of(call);
        if let Some(settling) = &mut call.settling {
            settling.synced.push((origin.user.clone(), origin.device));
            if expected
                .iter()
                .all(|device| settling.synced.contains(device))
            {
                self.settle(key);
            }
        }
    }

    pub(crate) fn wait_until_settled(
        &mut self,
        key: CallKey,
        node: NodeId,
        command: Command,
    ) -> Result<Outcome, Refusal> {
        let settling = self
            .calls
            .get_mut(&key)
            .and_then(|call| call.settling.as_mut());
        match settling {
            Some(settling) if settling.waiting.len() < WAITING_MAX => {
                settling.waiting.push((node, command));
                Ok(Outcome::Later)
            }
            _ => Err(Refusal::new(
                ErrorCode::RateLimited,
                "the call settles after a crash",
            )),
        }
    }

    /// What holds now holds: a transfer that did not come back is dropped, and commands that waited are done.
    pub(crate) fn settle(&mut self, key: CallKey) {
        let Some(call) = self.calls.get(&key) else {
            return;
        };

        let is_active = call.state.phase == Phase::Active;
        let lost_transfer = call
            .state
            .transfer
            .clone()
            .filter(|transfer| is_active && !self.calls.contains_key(&(key.0, transfer.call)));
        if let Some(transfer) = lost_transfer {
            self.fail_transfer(key, &transfer.by);
        }
        if is_active {
            self.finish_transfer(key);
        }
        self.flush_waiting(key);
        self.arm_call(key);
    }

    /// Does the commands that waited for a Call to settle.
    pub(crate) fn flush_waiting(&mut self, key: CallKey) {
        let settling = self
            .calls
            .get_mut(&key)
            .and_then(|call| call.settling.take());
        for (node, command) in settling.into_iter().flat_map(|settling| settling.waiting) {
            self.on_command(node, key.0, command);
        }
    }

    /// A Session has ended: its Device leaves a Call, here or at the Call's owner.
    pub(crate) fn device_leaves(&mut self, session: &Session, call: UserCall, grace: Millis) {
        let leave = Leave {
            user: session.user.clone(),
            device: session.device,
            call: call.call,
            grace,
        };
        if call.owner == self.node {
            self.on_leave(session.account, &leave);
        } else {
            self.publish(
                session.account,
                Target::Node(call.owner),
                Body::Leave(leave),
            );
        }
    }

    pub(crate) fn on_leave(&mut self, account: AccountId, leave: &Leave) {
        let key = (account, leave.call);
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };

        let is_ringing =
            call.state.callee.user == leave.user && call.state.ringing.contains(&leave.device);
        if !call.state.takes_part(&leave.user, leave.device) && !is_ringing {
            return;
        }

        let until = self.now + leave.grace;
        call.absent
            .retain(|absent| absent.user != leave.user || absent.device != leave.device);
        call.absent.push(Absent {
            user: leave.user.clone(),
            device: leave.device,
            until,
        });
        self.drop_absent(key);
        self.arm_call(key);
    }

    /// Devices that stayed away too long are out: an active Call ends, a ringing one rings one Device less.
    pub(crate) fn drop_absent(&mut self, key: CallKey) {
        let now = self.now;
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };

        let gone: Vec<Absent> = call
            .absent
            .extract_if(.., |absent| absent.until <= now)
            .collect();
        for Absent { user, device, .. } in gone {
            let Ok(state) = self.state(key) else { return };

            if state.phase == Phase::Ended {
                return;
            }
            if state.takes_part(&user, device) {
                self.end_call(key, None, end(EndReason::Gone, Some(&user)), None);
            } else if state.phase == Phase::Ringing && state.ringing.contains(&device) {
                self.transition(key, None, |state| {
                    state.ringing.retain(|other| *other != device);
                });
                self.announce_except(key, CallEvent::Ringing, Some(&user), None);
            }
        }
    }
}
