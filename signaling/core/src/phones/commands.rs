//! What people do with phones: dial, press keys, hold, hand over, take along into a Room.

use model::bus::Origin;
use model::phone::{Dial, Keys, PhoneCommandKind, PhoneReason, PhoneTarget, PhoneTargetError};
use model::{AccountId, CallId, EndReason, Grants, Media, MessageId, Millis, Party, Phase, UserId};
use signaling_wire::ErrorCode;

use super::{Phone, Seated, Stage};
use crate::calls::{CallKey, Outcome, Refusal, end};
use crate::invite::{Invite, party};
use crate::rooms::RoomKey;
use crate::signaling::Signaling;

/// How long a phone that is invited into a Room rings.
const RING: Millis = Millis::from_secs(45);

/// A phone that is about to be dialled, in a Room that is there.
pub(crate) struct Dialled {
    pub(crate) party: Party,
    phone: CallKey,
    to: PhoneTarget,
}

/// Reads whom to dial; `None` for a User.
pub(crate) fn target_of(user: &UserId) -> Option<Result<PhoneTarget, Refusal>> {
    let why = |error| match error {
        PhoneTargetError::Scheme => "not a tel: or sip: address",
        PhoneTargetError::TooLong => "the number or address is too long",
        PhoneTargetError::Number => "not + and 2 to 15 digits, nor 1 to 24 of 0-9, * and #",
        PhoneTargetError::Parameter => {
            "a number with parameters; press the keys of an extension once it is answered"
        }
        PhoneTargetError::Address => {
            "not sip:user@host, with a port and ;transport=udp, tcp or tls if need be"
        }
    };
    user.is_of_phone().then(|| {
        let target = user.as_str().parse::<PhoneTarget>();
        let target = target.map_err(|error| Refusal::new(ErrorCode::BadData, why(error)))?;
        if target.is_anonymous() {
            return Err(Refusal::new(
                ErrorCode::UnknownUser,
                "nobody is there to be called back",
            ));
        }
        Ok(target)
    })
}

impl Signaling {
    /// Whether somebody may dial a phone, whether one can be dialled,
    /// and whether the id is free: a client makes it.
    fn ensure_may_phone(&self, phone: CallKey, grants: Grants) -> Result<(), Refusal> {
        let account = phone.0;
        if !grants.dial || !grants.phone {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the access token has no grant phone",
            ));
        }
        if !self.phones.is_available {
            return Err(Refusal::new(
                ErrorCode::PhoneUnavailable,
                "this server has no phone gateway",
            ));
        }
        if self.phones.of_account(account) >= self.limits.phone_calls_per_account_max as usize {
            return Err(Refusal::new(
                ErrorCode::TooManyCalls,
                "the account has too many phone calls",
            ));
        }
        if self.phones.by_key.contains_key(&phone) {
            return Err(Refusal::new(
                ErrorCode::CallExists,
                "the id names a phone call already",
            ));
        }
        Ok(())
    }

    /// Rings a phone.
    pub(crate) fn on_invite_phone(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
        to: PhoneTarget,
        ring: Millis,
    ) -> Result<Outcome, Refusal> {
        self.ensure_may_phone(key, origin.grants)?;
        let room = self.begin_phone_room(key)?;
        self.admit_to_call(room, &origin.user);

        let invite = Invite {
            media: VOICE,
            commitment: None,
            ttl: ring,
        };
        let dialled = self.prepare_dial(key, room, to);
        self.begin_call(
            key,
            Some(id),
            party(origin),
            dialled.party.clone(),
            invite,
            None,
        );
        self.dial(dialled, &origin.user, origin.name.clone(), ring);
        Ok(Outcome::State(key))
    }

    /// Notes a phone call that will be dialled, and gives it its place in a Room.
    fn prepare_dial(&mut self, phone: CallKey, room: RoomKey, to: PhoneTarget) -> Dialled {
        let user = to.user_id();
        self.phones.by_key.insert(
            phone,
            Phone {
                user: user.clone(),
                name: None,
                to: None,
                stage: Stage::Dialled,
                place: None,
                calls: std::collections::BTreeSet::new(),
                stays: false,
            },
        );
        self.place_phone(phone, room);
        let nobody = Party {
            user,
            name: None,
            device: None,
            key: None,
            phone: None,
        };
        Dialled {
            party: self.phone_party(phone).unwrap_or(nobody),
            phone,
            to,
        }
    }

    fn dial(&mut self, dialled: Dialled, user: &UserId, name: Option<String>, ring: Millis) {
        let Dialled { phone, to, .. } = dialled;
        let Some(place) = self.phones.by_key.get(&phone).and_then(|phone| phone.place) else {
            return; // its Room has ended already
        };
        let dial = Dial {
            user: user.clone(),
            name,
            to,
            place,
            ring,
        };
        self.command_phone(phone, PhoneCommandKind::Dial(Box::new(dial)));
    }

    /// Presses keys for the phones on the other side; before the answer, too, where a machine asks already.
    pub(crate) fn on_keys(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
        keys: &Keys,
    ) -> Result<Outcome, Refusal> {
        let state = self.state(key)?;
        if !state.takes_part(&origin.user, origin.device) {
            return Err(Refusal::not_a_party());
        }
        if state.phase == Phase::Ended {
            return Err(Refusal::wrong_phase());
        }
        let phones: Vec<CallId> = state.phones().map(|phone| phone.call).collect();
        if phones.is_empty() {
            return Err(Refusal::new(
                ErrorCode::WrongPhase,
                "no phone takes part in the call",
            ));
        }

        for phone in phones {
            self.command_phone((key.0, phone), PhoneCommandKind::Keys(keys.clone()));
        }
        if let Some(call) = self.calls.get_mut(&key) {
            call.remember(id);
        }
        Ok(Outcome::State(key))
    }

    /// Tells the phones of a Call whether somebody who is no phone holds it.
    pub(crate) fn hold_phones(&mut self, key: CallKey) {
        let Ok(state) = self.state(key) else { return };
        let on = state.held_by.iter().any(|user| !user.is_of_phone());
        let phones: Vec<CallId> = state.phones().map(|phone| phone.call).collect();
        for phone in phones {
            self.command_phone((key.0, phone), PhoneCommandKind::Hold { on });
        }
    }

    /// Sees to it that the two sides of a Call from a transfer can meet where a phone is one of them, before there is the Call.
    /// `to` is the phone that will be dialled, if it is one.
    ///
    /// Fails when there can't be a Room.
    pub(crate) fn prepare_transfer(
        &mut self,
        new: CallKey,
        handed_over: &Party,
        to: Option<PhoneTarget>,
        origin: &Origin,
    ) -> Result<Option<Dialled>, Refusal> {
        let Some(to) = to else { return Ok(None) };

        self.ensure_may_phone(new, origin.grants)?;
        let own = handed_over.phone.as_ref();
        let place = own.and_then(|phone| self.room_of_phone((new.0, phone.call)));
        let room = match place {
            Some((room, _)) => room,
            None => self.begin_phone_room(new)?,
        };
        if handed_over.phone.is_none() {
            self.admit_to_call(room, &handed_over.user);
        }
        Ok(Some(self.prepare_dial(new, room, to)))
    }

    /// Dials for a transfer.
    pub(crate) fn dial_transferred(&mut self, dialled: Dialled, origin: &Origin, ring: Millis) {
        self.dial(dialled, &origin.user, origin.name.clone(), ring);
    }

    /// Brings the two sides of an attended transfer together in one Room where phones take part; tells which one, and the sides
    /// as they are there.
    pub(crate) fn join_phones(
        &mut self,
        account: AccountId,
        caller: &mut Party,
        callee: &mut Party,
    ) -> Option<RoomKey> {
        let room_of = |core: &Self, party: &Party| {
            let phone = party.phone.as_ref()?;
            core.room_of_phone((account, phone.call))
        };
        let (room, _) = room_of(self, caller).or_else(|| room_of(self, callee))?;

        for party in [caller, callee] {
            let Some(phone) = &party.phone else {
                self.admit_to_call(room, &party.user);
                continue;
            };
            let call = phone.call;
            if let Some(participant) = self.move_phone((account, call), room) {
                party.take_seat(call, participant);
            }
        }
        Some(room)
    }

    /// A phone goes from one Room to another; `None` when it is there already.
    fn move_phone(&mut self, phone: CallKey, room: RoomKey) -> Option<model::ParticipantId> {
        let held = self.phones.by_key.get_mut(&phone)?;
        let before = held.place.take_if(|place| place.room != room.1)?;

        let place = self.place_phone(phone, room)?;
        self.vacate(phone.0, Some(before), PhoneReason::Hangup);
        self.command_phone(phone, PhoneCommandKind::Move { place });
        Some(place.participant)
    }

    /// Somebody answers: where the other side is a phone, sees to it that they meet. Tells the Room's name and where the phone is
    /// in it.
    ///
    /// Fails when there can't be a Room.
    pub(crate) fn meet_phone(&mut self, key: CallKey, callee: &Party) -> Result<(), Refusal> {
        let state = self.state(key)?;
        let Some(caller) = state.caller.phone.clone() else {
            return Ok(());
        };
        let phone = (key.0, caller.call);
        let Some(held) = self.phones.by_key.get_mut(&phone) else {
            return Err(Refusal::unknown_call());
        };

        // One that was transferred has its Room already.
        let looks = matches!(held.stage, Stage::Looks { .. });
        let room = match held.place {
            Some(place) => (key.0, place.room),
            None => self.begin_phone_room(key)?,
        };
        self.admit_to_call(room, &callee.user);
        if looks {
            if let Some(held) = self.phones.by_key.get_mut(&phone) {
                held.stage = Stage::Talks;
            }
            if let Some(place) = self.place_phone(phone, room) {
                let user = callee.user.clone();
                self.command_phone(phone, PhoneCommandKind::Answer { user, place });
            }
        }
        Ok(())
    }

    /// After an answer: the Calls that rang for others end.
    pub(crate) fn stop_others(&mut self, key: CallKey) {
        let Ok(state) = self.state(key) else { return };
        let Some(phone) = state.caller.phone.as_ref().map(|phone| (key.0, phone.call)) else {
            return;
        };
        let by = state.callee.user.clone();
        let others = self.phones.by_key.get(&phone);
        let others: Vec<CallId> = others
            .into_iter()
            .flat_map(|phone| phone.calls.iter().copied())
            .filter(|call| *call != key.1)
            .collect();
        for other in others {
            let other = (key.0, other);
            if self
                .state(other)
                .is_ok_and(|state| state.phase == Phase::Ringing)
            {
                let how = end(EndReason::AnsweredElsewhere, Some(&by));
                self.end_call(other, None, how, None);
            }
        }
    }

    /// The Room of a phone call goes on as a Room like others; the phones stay in it.
    pub(crate) fn on_upgrade_phone(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
    ) -> Result<Outcome, Refusal> {
        let state = self.state(key)?;
        let name = state.room.clone().ok_or_else(Refusal::wrong_phase)?;
        let phones: Vec<CallId> = state.phones().map(|phone| phone.call).collect();
        for phone in phones {
            if let Some(phone) = self.phones.by_key.get_mut(&(key.0, phone)) {
                phone.stays = true;
            }
        }
        if let Some(room) = self.room_named(key.0, &name) {
            self.keep_room(room);
        }

        let mut how = end(EndReason::Upgraded, Some(&origin.user));
        how.room = Some(name.clone());
        // The answer names the Room alone, so that who asked hears of the end, too.
        self.end_call(key, Some(id), how, None);
        Ok(Outcome::Room(name))
    }

    /// Dials a phone into a Room, at somebody's wish who is there.
    pub(crate) fn invite_phone(
        &mut self,
        room: RoomKey,
        to: PhoneTarget,
        by: (&UserId, Option<String>, Grants),
    ) -> Result<(), Refusal> {
        let (user, name, grants) = by;
        let phone = (room.0, CallId::from_parts(self.now, self.rng.wide()));
        self.ensure_may_phone(phone, grants)?;
        let dialled = self.prepare_dial(phone, room, to);
        if let Some(held) = self.phones.by_key.get_mut(&phone) {
            held.stays = true;
        }
        self.dial(dialled, user, name, RING);
        Ok(())
    }
}

/// What a phone can carry.
pub(crate) const VOICE: Media = Media {
    audio: true,
    video: false,
};
