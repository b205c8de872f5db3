//! One side hands the other over: blind, by ringing a third User, or attended, by joining two Calls.

use model::bus::Origin;
use model::phone::PhoneTarget;
use model::{
    CallId, CallState, End, EndReason, MessageId, Millis, Phase, RecordChange, Transfer, UserId,
};
use signaling_wire::{CallEvent, ErrorCode};

use crate::calls::{Call, CallKey, Outcome, Refusal, end};
use crate::invite::Invite;
use crate::phones::target_of;
use crate::signaling::Signaling;
use crate::tell::{Address, update_data};

/// How long a transferred Call rings.
const RING: Millis = Millis::from_secs(45);

/// What becomes of a blind transfer whose old Call ends.
pub(crate) enum TransferFate {
    /// The new Call is the reason.
    Done,
    /// The transferring side hung up: the new Call rings on.
    RingsOn(CallId),
    /// The side that was handed over is gone: the new Call has no caller.
    Over(CallId),
}

impl TransferFate {
    pub(crate) fn of(transfer: Transfer, how: &End) -> Self {
        if matches!(how.reason, EndReason::Transferred | EndReason::Merged) {
            Self::Done
        } else if how.by == Some(transfer.by) {
            Self::RingsOn(transfer.call)
        } else {
            Self::Over(transfer.call)
        }
    }
}

/// The new Call of a transfer has the id of the command, so that the command sent again after a crash finds it.
fn new_key(old: CallKey, command: MessageId) -> CallKey {
    (old.0, CallId::from_u128(command.as_u128()))
}

impl Signaling {
    pub(crate) fn on_transfer_to(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
        to: UserId,
    ) -> Result<Outcome, Refusal> {
        self.ensure_may_transfer(key, origin)?;
        let phone = target_of(&to).transpose()?;
        let to = phone.as_ref().map_or(to, PhoneTarget::user_id);

        let state = self.state(key)?;
        if state.is_party(&to) {
            return Err(Refusal::new(
                ErrorCode::SelfCall,
                "the user takes part in the call already",
            ));
        }

        let handed_over = state.other_party(&origin.user).clone();
        let (media, new) = (state.media, new_key(key, id));
        let came_back = self.came_back(new, key)?;

        // The new Call comes first, so that the old one's seal holds it.
        let mut dialled = None;
        if came_back.is_none() {
            let invite = Invite {
                media,
                commitment: None,
                ttl: RING,
            };
            dialled = self.prepare_transfer(new, &handed_over, phone, origin)?;
            let callee = match &dialled {
                Some(dialled) => dialled.party.clone(),
                None => self.absent_party(new.0, to.clone()),
            };
            let caller = handed_over.clone();
            self.begin_call(new, None, caller, callee, invite, Some(key.1));
            self.inherit_absence(new, key);
        }
        let transfer = Transfer {
            by: origin.user.clone(),
            to,
            call: new.1,
        };
        self.transition(key, Some(id), |state| state.transfer = Some(transfer));
        self.announce(key, CallEvent::Transferring, origin);

        if came_back.is_none() {
            self.announce_created(new, &handed_over, Some(&origin.user));
            match dialled {
                Some(dialled) => self.dial_transferred(dialled, origin, RING),
                None => self.ring(new, None),
            }
        } else {
            self.check_transfer(key);
        }
        Ok(Outcome::State(key))
    }

    pub(crate) fn on_transfer_with(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
        with: CallId,
    ) -> Result<Outcome, Refusal> {
        let other = (key.0, with);
        let new = new_key(key, id);
        self.ensure_may_transfer(key, origin)?;
        if self.came_back(new, key)?.is_some() {
            self.finish_attended(key, id, origin, other);
            return Ok(Outcome::State(key));
        }
        if !self.state(other)?.is_party(&origin.user) {
            return Err(Refusal::not_a_party());
        }
        self.ensure_may_transfer(other, origin)?;
        if self
            .calls
            .get(&other)
            .is_some_and(|call| call.settling.is_some())
        {
            return Err(Refusal::wrong_phase());
        }

        let mut caller = self.state(key)?.other_party(&origin.user).clone();
        let mut callee = self.state(other)?.other_party(&origin.user).clone();
        if caller.user == callee.user {
            return Err(Refusal::new(
                ErrorCode::SelfCall,
                "both calls are with the same user",
            ));
        }

        let room = self.join_phones(key.0, &mut caller, &mut callee);
        let state = CallState {
            call: new.1,
            rev: 1,
            epoch: 1,
            phase: Phase::Active,
            media: self.state(key)?.media,
            caller: caller.clone(),
            callee: callee.clone(),
            ringing: Vec::new(),
            held_by: Vec::new(),
            created_at: self.now,
            answered_at: Some(self.now),
            ended_at: None,
            commitment: None,
            transfer: None,
            replaces: Some(key.1),
            from_room: None,
            room: room.and_then(|room| self.room_name(room)),
            end: None,
        };
        self.insert_call(new, Call::new(state, self.now));
        self.record_call(new, RecordChange::CallBegun);
        self.record_call(new, RecordChange::CallAnswered);
        self.inherit_absence(new, key);
        self.inherit_absence(new, other);
        self.announce_created(new, &caller, Some(&origin.user));
        self.announce_created(new, &callee, Some(&origin.user));
        self.finish_attended(key, id, origin, other);
        Ok(Outcome::State(key))
    }

    /// Ends the two old Calls of an attended transfer; a crash may have come after the first.
    pub(crate) fn finish_attended(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
        other: CallKey,
    ) {
        let mut how = end(EndReason::Transferred, Some(&origin.user));
        how.into = Some(new_key(key, id).1);
        self.end_call(key, Some(id), how.clone(), Some(origin));
        if self.ensure_active(other, origin).is_ok() {
            self.end_call(other, Some(id), how, None);
        }
    }

    /// The phase of the new Call of a transfer, when it is here already: the transfer was done before a crash, the new
    /// Call has come back, and the command comes again.
    fn came_back(&self, new: CallKey, old: CallKey) -> Result<Option<Phase>, Refusal> {
        match self.calls.get(&new) {
            None => Ok(None),
            Some(call) if call.state.replaces == Some(old.1) => Ok(Some(call.state.phase)),
            Some(_) => Err(Refusal::new(
                ErrorCode::CallExists,
                "the id names a call already",
            )),
        }
    }

    /// Who has to come back to the old Call has to come back to the new one.
    pub(crate) fn inherit_absence(&mut self, new: CallKey, old: CallKey) {
        let absent = self
            .calls
            .get(&old)
            .map(|call| call.absent.clone())
            .unwrap_or_default();
        if let Some(call) = self.calls.get_mut(&new) {
            let state = &call.state;
            call.absent.extend(
                absent
                    .into_iter()
                    .filter(|absent| state.takes_part(&absent.user, absent.device)),
            );
            self.arm_call(new);
        }
    }

    /// A Device has come back to a Call that ended into another: if it is missed there, it is told and back there too.
    pub(crate) fn follow_into(&mut self, key: CallKey, origin: &Origin) {
        let into = self
            .state(key)
            .ok()
            .and_then(|state| state.end.as_ref()?.into);
        let Some(new) = into.map(|into| (key.0, into)) else {
            return;
        };
        let Some(call) = self.calls.get_mut(&new) else {
            return;
        };

        let before = call.absent.len();
        call.absent
            .retain(|absent| !absent.is(&origin.user, origin.device));
        if call.absent.len() < before
            && let Some(party) = call.state.party(&origin.user).cloned()
        {
            self.announce_created(new, &party, Some(&origin.user));
        }
    }

    fn ensure_may_transfer(&self, key: CallKey, origin: &Origin) -> Result<(), Refusal> {
        if !origin.grants.transfer {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the access token has no grant transfer",
            ));
        }
        self.ensure_active(key, origin)?;
        if self.state(key)?.transfer.is_some() {
            return Err(Refusal::wrong_phase());
        }
        Ok(())
    }

    /// Tells a Device that it takes part in a Call it has not dialled.
    pub(crate) fn announce_created(
        &mut self,
        key: CallKey,
        party: &model::Party,
        by: Option<&UserId>,
    ) {
        let Some(call) = self.calls.get(&key) else {
            return;
        };

        let data = update_data(&call.told, CallEvent::Created, by, None);
        let to = Address {
            user: &party.user,
            device: party.device,
            except: None,
        };
        self.tell_call(key, &to, "call.update", &data);
    }

    /// A Call was answered: if it rang for a transfer, the old Call is over.
    pub(crate) fn finish_transfer(&mut self, key: CallKey) {
        if let Some((old, by)) = self.transferred_from(key) {
            let mut how = end(EndReason::Transferred, Some(&by));
            how.into = Some(key.1);
            self.end_call(old, None, how, None);
        }
    }

    /// A Call has ended: what rang for it stops, and what it rang for goes on or ends too.
    pub(crate) fn after_end(
        &mut self,
        key: CallKey,
        fate: Option<&TransferFate>,
        by: Option<&UserId>,
    ) {
        if let Some(TransferFate::Over(new)) = fate {
            self.end_call((key.0, *new), None, end(EndReason::Cancelled, by), None);
        }

        let Some((old, transferring)) = self.transferred_from(key) else {
            return;
        };
        let merged_into = self
            .state(key)
            .ok()
            .and_then(|state| state.end.as_ref()?.into);
        match merged_into {
            Some(into) => {
                let mut how = end(EndReason::Transferred, Some(&transferring));
                how.into = Some(into);
                self.end_call(old, None, how, None);
            }
            None => self.fail_transfer(old, &transferring),
        }
    }

    /// After a crash: what became of the Call a blind transfer rings decides what becomes of the old one.
    pub(crate) fn check_transfer(&mut self, old: CallKey) {
        let transfer = self
            .state(old)
            .ok()
            .and_then(|state| state.transfer.clone());
        let Some(transfer) = transfer else { return };

        let new = (old.0, transfer.call);
        match self.state(new).map(|state| state.phase) {
            Ok(Phase::Ringing) => {}
            Ok(Phase::Active) => self.finish_transfer(new),
            Ok(Phase::Ended) => self.after_end(new, None, None),
            Err(_) => self.fail_transfer(old, &transfer.by),
        }
    }

    /// The old Call of a blind transfer goes on.
    pub(crate) fn fail_transfer(&mut self, old: CallKey, transferring: &UserId) {
        self.transition(old, None, |state| state.transfer = None);
        self.announce_except(old, CallEvent::TransferFailed, Some(transferring), None);
    }

    /// The active Call for whose blind transfer this one rings, and who transfers.
    fn transferred_from(&self, key: CallKey) -> Option<(CallKey, UserId)> {
        let old = (key.0, self.state(key).ok()?.replaces?);
        let state = self.state(old).ok()?;
        let transfer = state
            .transfer
            .as_ref()
            .filter(|transfer| transfer.call == key.1)?;

        (state.phase == Phase::Active).then(|| (old, transfer.by.clone()))
    }
}
