//! Calls that outlive a crash, and Devices that leave: `call.sync`, the settle window, absence.

use model::bus::{Action, Body, Command, Leave, Origin, Target};
use model::{
    AccountId, CallState, DeviceId, EndReason, Millis, NodeId, Phase, RecordChange, Timestamp,
    UserId,
};
use signaling_wire::{CallEvent, ErrorCode};

use crate::calls::{Call, CallKey, Outcome, Refusal, end};
use crate::people::UserCall;
use crate::seal::Snapshot;
use crate::session::Session;
use crate::signaling::Signaling;
use crate::tell::{Address, update_data};

/// How long a Call that came back waits for the Devices in it.
const SETTLE: Millis = Millis::from_secs(5);
/// How many commands wait for a Call to settle; the others are told to come again.
const WAITING_MAX: usize = 64;

/// A Call that came back and may not be the newest yet.
pub(crate) struct Settling {
    pub(crate) until: Timestamp,
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

impl Absent {
    pub(crate) fn is(&self, user: &UserId, device: DeviceId) -> bool {
        self.user == *user && self.device == device
    }
}

/// Whether a command could contradict what somebody else holds. Ending an active Call never does: an end always wins.
pub(crate) fn must_wait(action: &Action, phase: Phase) -> bool {
    match action {
        Action::Sync { .. } | Action::State => false,
        Action::Hangup { .. } => phase != Phase::Active,
        _ => true,
    }
}

/// Whether what was sealed takes the place of what is held: an end always does, otherwise what was changed last.
///
/// `epoch` alone does not tell: a Call that came back has a higher one than what another Device holds from before the
/// crash, which may be newer all the same.
fn is_newer(sealed: &Snapshot, held: &Call) -> bool {
    let theirs = (sealed.changed_in, sealed.state.rev, sealed.state.epoch);
    let ours = (held.changed_in, held.state.rev, held.state.epoch);

    match (held.state.phase, sealed.state.phase) {
        (Phase::Ended, _) => false,
        (_, Phase::Ended) => true,
        _ => theirs > ours,
    }
}

/// The `epoch` of a Call that comes back: above the one it had, and above any that somebody else may have been told after
/// an earlier crash and not handed back yet. So it is the age of the Call in milliseconds, for the first 49 days.
fn next_epoch(state: &CallState, now: Timestamp) -> u32 {
    let age = u32::try_from((now - state.created_at).get()).unwrap_or(0);
    age.max(state.epoch.saturating_add(1))
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
    let rung = call.rung.iter().chain(&state.ringing);
    let rung = rung
        .filter(|_| state.phase == Phase::Ringing)
        .map(|device| (state.callee.user.clone(), *device));

    caller.into_iter().chain(callee).chain(rung).collect()
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
            self.adopt(key, snapshot);
            self.revive_phones(key);
            self.tell_in_touch(key, origin);
            self.check_transferred(key);
            if self
                .calls
                .get(&key)
                .is_some_and(|call| call.settling.is_none())
            {
                self.check_transfer(key);
            }
        }
        self.device_is_back(key, origin);
        self.follow_into(key, origin);
        Ok(Outcome::State(key))
    }

    /// Takes what was sealed in the place of what is held, and waits for what the other Devices hold.
    fn adopt(&mut self, key: CallKey, snapshot: Snapshot) {
        let Snapshot {
            mut state,
            changed_in,
            ring_until,
            applied,
            rung,
            successor,
        } = snapshot;
        let held = self.calls.remove(&key);
        let taken = held.as_ref().map_or(0, |held| {
            // What everybody was told must not look newer than what holds from now on.
            let above = u32::from(state.rev <= held.state.rev);
            held.state.epoch.saturating_add(above)
        });
        state.epoch = taken.max(next_epoch(&state, self.now));

        let mut call = Call {
            came_back: true,
            changed_in,
            ..Call::new(state, ring_until)
        };
        applied
            .into_iter()
            .for_each(|command| call.remember(command));
        call.note_rung(&rung);
        let until = self.now + SETTLE;
        let settling = |synced| {
            Some(Box::new(Settling {
                until,
                synced,
                waiting: Vec::new(),
            }))
        };
        let mut present = Vec::new();
        call.settling = match held {
            None => settling(Vec::new()),
            Some(held) => {
                held.applied
                    .iter()
                    .for_each(|command| call.remember(*command));
                call.note_rung(&held.rung);
                present = devices_of(&held);
                (call.offers, call.absent, call.armed) = (held.offers, held.absent, held.armed);
                if held.came_back {
                    held.settling
                } else {
                    settling(present.clone())
                }
            }
        };

        // Who is in the Call must show up, unless they were in touch already.
        let until = self.now + Millis::new(self.limits.resume_ms);
        for (user, device) in devices_of(&call) {
            let is_known = call.absent.iter().any(|absent| absent.is(&user, device));
            if !is_known && !present.contains(&(user.clone(), device)) {
                call.absent.push(Absent {
                    user,
                    device,
                    until,
                });
            }
        }

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
        if let Some(successor) = successor {
            self.revive(key.0, *successor);
        }
    }

    /// The Call that takes over comes back with the one it takes over from, if nobody has brought it back yet.
    fn revive(&mut self, account: AccountId, successor: Snapshot) {
        let key = (account, successor.state.call);
        if !self.calls.contains_key(&key) {
            self.adopt(key, successor);
            self.revive_phones(key);
        }
    }

    /// A Call for which another one waits has come back: answered or ended, the other one hears it.
    fn check_transferred(&mut self, key: CallKey) {
        match self.state(key).map(|state| state.phase) {
            Ok(Phase::Active) => self.finish_transfer(key),
            Ok(Phase::Ended) => self.after_end(key, None, None),
            Ok(Phase::Ringing) | Err(_) => {}
        }
    }

    /// A Device has synced. The Call is settled when it has ended, or when all in it have synced and, while it rings, all
    /// that were rung: any of them may have answered, or may be the only one that heard of an answer. A caller alone
    /// cannot know.
    fn device_is_back(&mut self, key: CallKey, origin: &Origin) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };

        call.absent
            .retain(|absent| !absent.is(&origin.user, origin.device));
        let expected = devices_of(call);
        let state = &call.state;
        let Some(settling) = &mut call.settling else {
            return;
        };

        let synced = &mut settling.synced;
        let device = (origin.user.clone(), origin.device);
        if !synced.contains(&device) {
            synced.push(device);
        }
        let callee_synced = state.callee.phone.is_some() // the gateway is asked
            || synced.iter().any(|(user, _)| *user == state.callee.user);
        let all_synced = expected.iter().all(|device| synced.contains(device));
        if state.phase == Phase::Ended || (all_synced && callee_synced) {
            self.settle(key);
        }
    }

    /// Tells those that something newer came back who have nothing newer themselves: the Devices that have synced, or
    /// everybody when the Call was settled before.
    fn tell_in_touch(&mut self, key: CallKey, origin: &Origin) {
        let settling = self.calls.get(&key).and_then(|call| call.settling.as_ref());
        let Some(settling) = settling else {
            return self.tell_all_adopted(key, origin);
        };

        for (user, device) in settling.synced.clone() {
            if user != origin.user || device != origin.device {
                self.tell_adopted(key, &user, device);
            }
        }
    }

    /// Tells the caller's Device and all of the callee's: what holds now may have another winner than what held before.
    fn tell_all_adopted(&mut self, key: CallKey, except: &Origin) {
        let Some(call) = self.calls.get(&key) else {
            return;
        };

        let data = update_data(&call.told, CallEvent::Adopted, None, None);
        let (caller, callee) = (call.state.caller.clone(), call.state.callee.user.clone());
        for (user, device) in [(&caller.user, caller.device), (&callee, None)] {
            let to = Address {
                user,
                device,
                except: Some(except),
            };
            self.tell_call(key, &to, "call.update", &data);
        }
    }

    fn tell_adopted(&mut self, key: CallKey, user: &UserId, device: DeviceId) {
        let Some(call) = self.calls.get(&key) else {
            return;
        };

        let data = update_data(&call.told, CallEvent::Adopted, None, None);
        let to = Address {
            user,
            device: Some(device),
            except: None,
        };
        self.tell_call(key, &to, "call.update", &data);
    }

    /// Tells the Devices that have not synced what holds now; before, they may have held something newer. Those that
    /// may not even know that it rings are rung.
    fn tell_unsynced(&mut self, key: CallKey, synced: &[(UserId, DeviceId)]) {
        let Ok(state) = self.state(key) else { return };

        let (caller, callee) = (state.caller.clone(), state.callee.user.clone());
        let (answered_by, ringing) = (state.callee.device, state.ringing.clone());
        let rings = state.phase == Phase::Ringing;
        let is_unsynced =
            |user: &UserId, device: DeviceId| synced.iter().all(|(u, d)| u != user || *d != device);

        if let Some(device) = caller
            .device
            .filter(|device| is_unsynced(&caller.user, *device))
        {
            self.tell_adopted(key, &caller.user, device);
        }
        let callees = match answered_by {
            Some(device) => vec![device],
            None => self.devices_of(key.0, &callee),
        };
        for device in callees
            .into_iter()
            .filter(|device| is_unsynced(&callee, *device))
        {
            if rings && !ringing.contains(&device) {
                self.tell_incoming(key, &callee, Some(device));
            } else {
                self.tell_adopted(key, &callee, device);
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

    /// What holds now holds: everybody is told, a transfer that did not come back is dropped, and commands that waited
    /// are done.
    pub(crate) fn settle(&mut self, key: CallKey) {
        let settling = self
            .calls
            .get_mut(&key)
            .and_then(|call| call.settling.take());
        let Some(settling) = settling else { return };

        self.tell_unsynced(key, &settling.synced);
        self.check_transfer(key);
        self.check_transferred(key);
        for (node, command) in settling.waiting {
            self.on_command(node, key.0, command);
        }
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
            .retain(|absent| !absent.is(&leave.user, leave.device));
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
