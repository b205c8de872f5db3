//! From an invite to its answer.

use model::bus::Origin;
use model::{
    AccountId, CallId, CallState, DeviceId, EndReason, Media, MessageId, Millis, Party, Phase,
    RecordChange, UserId,
};
use signaling_wire::{CallEvent, ErrorCode};

use crate::calls::{Call, CallKey, Outcome, Refusal, end};
use crate::people::Reach;
use crate::phones::{Seated, target_of};
use crate::signaling::Signaling;
use crate::tell::Address;

/// How many Calls a User can be in before another invite is busy.
const CALLS_BUSY: usize = 2;

/// What a caller asks for.
pub(crate) struct Invite {
    pub(crate) media: Media,
    pub(crate) commitment: Option<String>,
    pub(crate) ttl: Millis,
}

/// Why an invite does not ring; `None` when it rings.
fn refusal_of(reach: Reach) -> Option<EndReason> {
    let is_full = reach.calls >= CALLS_BUSY || (reach.calls > 0 && !reach.call_waiting);

    if !reach.can_ring {
        Some(EndReason::Unavailable)
    } else if reach.do_not_disturb || is_full {
        Some(EndReason::Busy)
    } else {
        None
    }
}

/// The sender of a command as a side of a Call.
pub(crate) fn party(origin: &Origin) -> Party {
    Party {
        user: origin.user.clone(),
        name: origin.name.clone(),
        device: Some(origin.device),
        key: Some(origin.key.clone()),
        phone: None,
    }
}

impl Signaling {
    pub(crate) fn on_invite(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
        to: UserId,
        invite: Invite,
    ) -> Result<Outcome, Refusal> {
        if let Some(call) = self.calls.get(&key) {
            let is_again = call.applied.contains(&id) && call.state.caller.user == origin.user;
            let exists = Refusal::new(ErrorCode::CallExists, "the id names a call already");
            return if is_again {
                Ok(Outcome::State(key))
            } else {
                Err(exists)
            };
        }
        self.ensure_may_invite(key.0, origin, &to)?;
        if let Some(phone) = target_of(&to) {
            return self.on_invite_phone(key, id, origin, phone?, invite.ttl);
        }

        let crossing = self.crossing(key.0, &origin.user, &to);
        let callee = self.absent_party(key.0, to);
        self.begin_call(key, Some(id), party(origin), callee, invite, None);
        match crossing {
            None => self.ring(key, Some(origin)),
            Some(other) => self.merge(key, other, origin),
        }
        Ok(Outcome::State(key))
    }

    fn ensure_may_invite(
        &mut self,
        account: AccountId,
        origin: &Origin,
        to: &UserId,
    ) -> Result<(), Refusal> {
        if !origin.grants.dial {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the access token has no grant dial",
            ));
        }
        if *to == origin.user {
            return Err(Refusal::new(
                ErrorCode::SelfCall,
                "a user cannot call themselves",
            ));
        }

        let (now, limits) = (self.now, &self.limits);
        let (per_second, burst) = (
            limits.invites_per_user_per_second,
            limits.invites_per_user_burst,
        );
        let calls_max = origin
            .grants
            .max_concurrent
            .map_or(u32::MAX, u32::from)
            .min(limits.calls_per_user_max);

        let caller = self.user_entry(account, &origin.user);
        if !caller.invites.take(now, per_second, burst) {
            return Err(Refusal::new(ErrorCode::RateLimited, "too many invites"));
        }
        if caller.open_calls().len() >= calls_max as usize {
            return Err(Refusal::new(
                ErrorCode::TooManyCalls,
                "the user is in too many calls",
            ));
        }
        Ok(())
    }

    /// The invite of `callee` that rings `caller` already.
    fn crossing(&self, account: AccountId, caller: &UserId, callee: &UserId) -> Option<CallKey> {
        let rings = |call: &Call| {
            call.state.phase == Phase::Ringing
                && call.settling.is_none()
                && call.state.caller.user == *callee
                && call.state.callee.user == *caller
        };

        let known = self.user(account, caller)?.calls.iter();
        known
            .map(|known| (account, known.call))
            .find(|key| self.calls.get(key).is_some_and(rings))
    }

    /// Takes a new Call in; it rings nobody yet.
    pub(crate) fn begin_call(
        &mut self,
        key: CallKey,
        command: Option<MessageId>,
        caller: Party,
        callee: Party,
        invite: Invite,
        replaces: Option<CallId>,
    ) {
        let seat = self.seat_of(key.0, &callee);
        let seat = seat.or_else(|| self.seat_of(key.0, &caller));
        let state = CallState {
            call: key.1,
            rev: 1,
            epoch: 1,
            phase: Phase::Ringing,
            media: invite.media,
            caller,
            callee,
            ringing: Vec::new(),
            held_by: Vec::new(),
            created_at: self.now,
            answered_at: None,
            ended_at: None,
            commitment: invite.commitment,
            transfer: None,
            replaces,
            from_room: None,
            room: seat.map(|(room, ..)| room),
            end: None,
        };

        let mut call = Call::new(state, self.now + invite.ttl);
        if let Some(command) = command {
            call.remember(command);
        }
        self.insert_call(key, call);
        self.record_call(key, RecordChange::CallBegun);
    }

    pub(crate) fn absent_party(&self, account: AccountId, user: UserId) -> Party {
        let name = self
            .user(account, &user)
            .and_then(|entry| entry.name())
            .map(str::to_owned);
        Party {
            user,
            name,
            device: None,
            key: None,
            phone: None,
        }
    }

    /// Rings the callee's Devices, or ends the Call when that is not possible. The Device of `except` has the state in
    /// its `ok`.
    pub(crate) fn ring(&mut self, key: CallKey, except: Option<&Origin>) {
        let Ok(state) = self.state(key) else { return };

        let callee = state.callee.user.clone();
        let mut reach = self.reach(key.0, &callee);
        reach.calls = reach.calls.saturating_sub(1); // without this one

        match refusal_of(reach) {
            Some(reason) => self.end_call(key, None, end(reason, None), except),
            None => self.tell_incoming(key, &callee, None),
        }
    }

    pub(crate) fn tell_incoming(
        &mut self,
        key: CallKey,
        callee: &UserId,
        device: Option<DeviceId>,
    ) {
        let rung = device.map_or_else(|| self.devices_of(key.0, callee), |device| vec![device]);
        let is_news = self
            .calls
            .get_mut(&key)
            .is_some_and(|call| call.note_rung(&rung));
        if is_news {
            self.seal(key);
        }

        let waiting = self
            .user(key.0, callee)
            .is_some_and(|user| user.open_calls().len() > 1);
        let Some(call) = self.calls.get(&key) else {
            return;
        };

        let data = format!(r#"{{{},"waiting":{waiting}}}"#, call.told);
        self.tell_call(
            key,
            &Address {
                user: callee,
                device,
                except: None,
            },
            "call.incoming",
            &data,
        );
    }

    /// A Device comes online: what rings its User rings here too.
    pub(crate) fn ring_late(&mut self, account: AccountId, user: &UserId, device: DeviceId) {
        let Some(entry) = self.user(account, user) else {
            return;
        };

        let keys: Vec<CallKey> = entry
            .calls
            .iter()
            .map(|known| (account, known.call))
            .collect();
        for key in keys {
            let rings = self.calls.get(&key).is_some_and(|call| {
                call.state.phase == Phase::Ringing
                    && call.state.callee.user == *user
                    && call.settling.is_none()
            });
            if rings {
                self.tell_incoming(key, user, Some(device));
            }
        }
    }

    /// Both sides ring each other: the lower id becomes the Call, the other one ends.
    fn merge(&mut self, new: CallKey, old: CallKey, origin: &Origin) {
        let (low, high) = if old.1 < new.1 {
            (old, new)
        } else {
            (new, old)
        };
        let Some(answers) = self.calls.get(&high).map(|call| call.state.caller.clone()) else {
            return;
        };

        let mut merged = end(EndReason::Merged, None);
        merged.into = Some(low.1);
        let has_ok = |key| (key == new).then_some(origin);

        self.answer(low, None, answers, has_ok(low));
        self.inherit_absence(low, high);
        self.end_call(high, None, merged, has_ok(high));
    }

    pub(crate) fn on_ringing(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
    ) -> Result<Outcome, Refusal> {
        let state = self.state_for_callee(key, origin)?;
        if state.phase != Phase::Ringing {
            return Err(Refusal::wrong_phase());
        }

        if !state.ringing.contains(&origin.device) {
            self.transition(key, Some(id), |state| state.ringing.push(origin.device));
            self.announce(key, CallEvent::Ringing, origin);
            self.say_ringing(key);
        }
        Ok(Outcome::State(key))
    }

    pub(crate) fn on_accept(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
        rev: u32,
    ) -> Result<Outcome, Refusal> {
        self.state_for_callee(key, origin)?;
        if !origin.grants.answer {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the access token has no grant answer",
            ));
        }
        self.ensure_ringing_at(key, rev)?;

        let callee = party(origin);
        self.meet_phone(key, &callee)?;
        self.answer(key, Some(id), callee, Some(origin));
        self.stop_others(key);
        Ok(Outcome::State(key))
    }

    pub(crate) fn on_decline(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
        rev: u32,
        busy: bool,
    ) -> Result<Outcome, Refusal> {
        self.state_for_callee(key, origin)?;
        self.ensure_ringing_at(key, rev)?;

        let reason = if busy {
            EndReason::Busy
        } else {
            EndReason::Declined
        };
        self.end_call(key, Some(id), end(reason, Some(&origin.user)), Some(origin));
        Ok(Outcome::State(key))
    }

    pub(crate) fn on_cancel(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
        rev: u32,
    ) -> Result<Outcome, Refusal> {
        let state = self.state(key)?;
        if state.caller.user != origin.user || state.caller.device != Some(origin.device) {
            return Err(Refusal::not_a_party());
        }
        self.ensure_ringing_at(key, rev)?;

        self.end_call(
            key,
            Some(id),
            end(EndReason::Cancelled, Some(&origin.user)),
            Some(origin),
        );
        Ok(Outcome::State(key))
    }

    fn state_for_callee(&self, key: CallKey, origin: &Origin) -> Result<&CallState, Refusal> {
        let state = self.state(key)?;
        if state.callee.user == origin.user {
            Ok(state)
        } else {
            Err(Refusal::not_a_party())
        }
    }

    fn ensure_ringing_at(&self, key: CallKey, rev: u32) -> Result<(), Refusal> {
        self.ensure_rev(key, rev)?;
        if self.state(key)?.phase == Phase::Ringing {
            Ok(())
        } else {
            Err(Refusal::wrong_phase())
        }
    }

    /// A Device has answered; a transfer that waited for it is done.
    pub(crate) fn answer(
        &mut self,
        key: CallKey,
        command: Option<MessageId>,
        callee: Party,
        except: Option<&Origin>,
    ) {
        let now = self.now;
        let by = callee.user.clone();
        let caller = self.state(key).map(|state| state.caller.clone());
        let seat = caller.ok().and_then(|caller| self.seat_of(key.0, &caller));
        self.transition(key, command, |state| {
            state.phase = Phase::Active;
            state.answered_at = Some(now);
            state.callee = callee;
            if let Some((room, phone, participant)) = seat {
                state.room = Some(room);
                state.caller.take_seat(phone, participant);
            }
        });
        self.record_call(key, RecordChange::CallAnswered);
        self.announce_except(key, CallEvent::Answered, Some(&by), except);
        self.finish_transfer(key);
    }
}
