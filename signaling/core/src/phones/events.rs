//! News of the gateway.

use std::collections::BTreeSet;

use model::phone::{
    PhoneCommandKind, PhoneEvent, PhoneEventKind, PhoneTarget, Progress, Ring, USERS_RUNG_MAX,
    Unanswered,
};
use model::{CallId, EndReason, Phase, UserId};
use signaling_wire::{CallDtmf, CallEvent, CallProgress, ServerFrame};

use super::commands::VOICE;
use super::{Phone, Stage, shown_name};
use crate::calls::{CallKey, end};
use crate::invite::Invite;
use crate::signaling::Signaling;
use crate::tell::Address;

impl Signaling {
    /// Takes news of the gateway; what it says about calls that are not known any more changes nothing.
    pub(crate) fn on_phone(&mut self, event: PhoneEvent) {
        let PhoneEvent {
            account,
            call,
            kind,
        } = event;
        let key = (account, call);

        match kind {
            PhoneEventKind::Ring(ring) => self.on_phone_rings(key, *ring),
            PhoneEventKind::AnsweredElsewhere => self.on_answered_elsewhere(key),
            PhoneEventKind::Progress(progress) => self.on_progress(key, progress),
            PhoneEventKind::Answered => self.on_phone_answered(key),
            PhoneEventKind::Key(pressed) => {
                for call in self.calls_of_phone(key, Phase::Active) {
                    let Some(by) = self.user_of_phone(key) else {
                        return;
                    };
                    let news = ServerFrame::CallDtmf(CallDtmf {
                        call: call.1,
                        keys: pressed.into(),
                        by: Some(by),
                    });
                    self.tell_people(call, &news);
                }
            }
            PhoneEventKind::Held { on } => self.on_phone_held(key, on),
            PhoneEventKind::Voicemail(left) => self.on_voicemail_left(account, *left),
            PhoneEventKind::Enter(enter) => self.on_phone_enters(key, *enter),
            PhoneEventKind::Ended(how) => self.phone_ended(key, how),
        }
    }

    /// A call has come in, or looks for more people.
    fn on_phone_rings(&mut self, key: CallKey, ring: Ring) {
        let Ring {
            mut users,
            from,
            name,
            to,
            ring,
        } = ring;
        let mut seen = BTreeSet::new();
        users.retain(|user| seen.insert(user.clone()));
        let too_many = users.split_off(users.len().min(USERS_RUNG_MAX));

        let looks = |phone: &Phone| matches!(phone.stage, Stage::Looks { .. });
        let refusal = match self.phones.by_key.get(&key) {
            Some(phone) if looks(phone) => None,
            Some(_) => return, // somebody talks already
            None if !self.rooms.is_media_available() => Some(Unanswered::Failed),
            None if self.phones.of_account(key.0)
                >= self.limits.phone_calls_per_account_max as usize =>
            {
                Some(Unanswered::Busy)
            }
            None => None,
        };
        if let Some(why) = refusal {
            return self.say_unanswered(key, users.into_iter().chain(too_many), why);
        }
        self.say_unanswered(key, too_many, Unanswered::Unavailable);

        let from = from.unwrap_or_else(PhoneTarget::anonymous);
        self.phones.by_key.entry(key).or_insert_with(|| Phone {
            user: from.user_id(),
            name: shown_name(name),
            to,
            stage: Stage::Looks { rings: false },
            place: None,
            calls: BTreeSet::new(),
            stays: false,
        });
        for user in users {
            if user.is_of_phone() {
                self.say_unanswered(key, [user], Unanswered::Unavailable);
            } else if !self.rings_for(key, &user) {
                self.ring_user(key, user, ring);
            }
        }
    }

    fn say_unanswered(
        &mut self,
        key: CallKey,
        users: impl IntoIterator<Item = UserId>,
        why: Unanswered,
    ) {
        for user in users {
            self.command_phone(key, PhoneCommandKind::Unanswered { user, why });
        }
    }

    fn rings_for(&self, key: CallKey, user: &UserId) -> bool {
        let calls = self.calls_of_phone(key, Phase::Ringing);
        calls.into_iter().any(|call| {
            self.state(call)
                .is_ok_and(|state| state.callee.user == *user)
        })
    }

    /// A Call for one of those who are rung.
    fn ring_user(&mut self, key: CallKey, user: UserId, ring: model::Millis) {
        let Some(caller) = self.phone_party(key) else {
            return;
        };
        let call = (key.0, CallId::from_parts(self.now, self.rng.wide()));
        let invite = Invite {
            media: VOICE,
            commitment: None,
            ttl: ring,
        };
        let callee = self.absent_party(key.0, user);
        self.begin_call(call, None, caller, callee, invite, None);
        self.ring(call, None);
    }

    /// The caller hears that it rings, once a Device has said so.
    pub(crate) fn say_ringing(&mut self, key: CallKey) {
        let Ok(state) = self.state(key) else { return };
        let Some(phone) = state.caller.phone.as_ref().map(|phone| (key.0, phone.call)) else {
            return;
        };
        if let Some(held) = self.phones.by_key.get_mut(&phone)
            && held.stage == (Stage::Looks { rings: false })
        {
            held.stage = Stage::Looks { rings: true };
            self.command_phone(phone, PhoneCommandKind::Ringing);
        }
    }

    /// Something that is no Device of ours has taken the call.
    fn on_answered_elsewhere(&mut self, key: CallKey) {
        for call in self.calls_of_phone(key, Phase::Ringing) {
            self.end_call(call, None, end(EndReason::AnsweredElsewhere, None), None);
        }
    }

    fn on_progress(&mut self, key: CallKey, progress: Progress) {
        for call in self.calls_of_phone(key, Phase::Ringing) {
            let news = ServerFrame::CallProgress(CallProgress::new(call.1, progress));
            self.tell_people(call, &news);
        }
    }

    fn on_phone_answered(&mut self, key: CallKey) {
        let Some(phone) = self.phones.by_key.get_mut(&key) else {
            return;
        };
        if phone.stage != Stage::Dialled {
            return;
        }
        phone.stage = Stage::Talks;
        if let Some(place) = phone.place {
            self.phone_talks((key.0, place.room), place.participant);
        }

        for call in self.calls_of_phone(key, Phase::Ringing) {
            let callee = self.state(call).map(|state| state.callee.clone());
            let is_callee = |callee: &model::Party| {
                let phone = callee.phone.as_ref();
                phone.is_some_and(|phone| phone.call == key.1)
            };
            if let Ok(callee) = callee
                && is_callee(&callee)
            {
                self.answer(call, None, callee, None);
            }
        }
    }

    /// The other side holds the call, or takes it back.
    fn on_phone_held(&mut self, key: CallKey, on: bool) {
        let Some(by) = self.user_of_phone(key) else {
            return;
        };
        for call in self.calls_of_phone(key, Phase::Active) {
            let is_held = self
                .state(call)
                .is_ok_and(|state| state.held_by.contains(&by));
            if is_held == on {
                continue;
            }
            self.transition(call, None, |state| {
                if on {
                    state.held_by.push(by.clone());
                } else {
                    state.held_by.retain(|user| *user != by);
                }
            });
            let event = if on {
                CallEvent::Held
            } else {
                CallEvent::Resumed
            };
            self.announce_except(call, event, Some(&by), None);
        }
    }

    /// The Calls of a phone in this phase.
    fn calls_of_phone(&self, key: CallKey, phase: Phase) -> Vec<CallKey> {
        let Some(phone) = self.phones.by_key.get(&key) else {
            return Vec::new();
        };
        let calls = phone.calls.iter().map(|call| (key.0, *call));
        calls
            .filter(|call| self.state(*call).is_ok_and(|state| state.phase == phase))
            .collect()
    }

    fn user_of_phone(&self, key: CallKey) -> Option<UserId> {
        self.phones.by_key.get(&key).map(|phone| phone.user.clone())
    }

    /// Tells the Devices that take part in a Call.
    fn tell_people(&mut self, key: CallKey, frame: &ServerFrame) {
        let Ok(state) = self.state(key) else { return };
        let sides = [state.caller.clone(), state.callee.clone()];
        let data = frame.data();
        for side in sides {
            let to = Address {
                user: &side.user,
                device: side.device,
                except: None,
            };
            if side.device.is_some() {
                self.tell_call(key, &to, frame.kind(), &data);
            }
        }
    }
}
