//! Phones in Calls: what signaling knows of each phone call, and what the gateway is told.
//!
//! ```text
//! call.invite tel:… ─▶ Call, its Room ── JoinPlain ──▶ SFU
//!                            │  └──────── Dial ───────▶ gateway
//!                            ◀─ Progress, Answered, Ended ─┘
//!
//! gateway ── Ring {users} ──▶ a Call for each User, which rings all their Devices
//!         ◀─ Answer {place} ── the first who accepts; the others hear answered_elsewhere
//!         ◀─ Unanswered {why} ─ each who does not
//! ```
//!
//! A phone call outlives the Calls it is in: by a transfer it goes from one to the next. It is hung up when no Call that has not
//! ended names it, unless it was taken into a Room that goes on without a Call.

mod commands;
mod dial_in;
mod events;

use std::collections::{BTreeMap, BTreeSet};

use model::phone::{
    CALLER_NAME_LEN_MAX, PhoneCommand, PhoneCommandKind, PhoneEnd, PhonePlace, PhoneReason,
    PhoneTarget, Unanswered,
};
use model::room::Line;
use model::{
    AccountId, CallId, CallState, End, EndReason, ParticipantId, Party, Phase, PhoneParty, Role,
    RoomName, UserId,
};

use crate::calls::{CallKey, end};
use crate::io::Output;
use crate::rooms::{NewPhone, RoomKey};
use crate::signaling::Signaling;
pub(crate) use commands::target_of;

/// All phone calls of this core, named by the Account and their own ids.
#[derive(Default)]
pub(crate) struct Phones {
    by_key: BTreeMap<CallKey, Phone>,
    /// Whether there is a gateway.
    is_available: bool,
}

/// A phone call.
struct Phone {
    /// The number or address on the other side, in the place of a User.
    user: UserId,
    name: Option<String>,
    /// The Number of ours that was called.
    to: Option<PhoneTarget>,
    stage: Stage,
    /// Where it is heard.
    place: Option<PhonePlace>,
    /// The Calls it is in that have not ended.
    calls: BTreeSet<CallId>,
    /// Whether it belongs to its Room, and to no Call any more.
    stays: bool,
}

/// How far a phone call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It came in and looks for somebody; the flag is whether the caller hears that it rings.
    Looks { rings: bool },
    /// It was dialled.
    Dialled,
    /// Both sides talk.
    Talks,
}

impl Phones {
    /// Whether there is a gateway.
    pub(crate) fn is_available(&self) -> bool {
        self.is_available
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    fn of_account(&self, account: AccountId) -> usize {
        let first = (account, CallId::from_u128(0));
        let last = (account, CallId::from_u128(u128::MAX));
        self.by_key.range(first..=last).count()
    }
}

/// Why a User has not taken a call, as the gateway hears it.
const fn unanswered(reason: EndReason) -> Unanswered {
    match reason {
        EndReason::Missed => Unanswered::Missed,
        EndReason::Declined => Unanswered::Declined,
        EndReason::Busy => Unanswered::Busy,
        EndReason::Unavailable | EndReason::Gone => Unanswered::Unavailable,
        _ => Unanswered::Failed,
    }
}

/// A name as it may be shown: short, and on one line.
fn shown_name(name: Option<String>) -> Option<String> {
    let mut name: String = name?.chars().filter(|one| !one.is_control()).collect();
    name.truncate(name.floor_char_boundary(CALLER_NAME_LEN_MAX));
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

impl Signaling {
    /// Hands a command to the gateway.
    fn command_phone(&mut self, phone: CallKey, kind: PhoneCommandKind) {
        let (account, call) = phone;
        self.output(Output::Phone(PhoneCommand {
            account,
            call,
            kind,
        }));
    }

    /// Takes whether there is a gateway. When it goes, so do all phone calls.
    pub(crate) fn on_phone_available(&mut self, is_available: bool) {
        self.phones.is_available = is_available;
        if is_available {
            return;
        }

        let keys: Vec<CallKey> = self.phones.by_key.keys().copied().collect();
        for key in keys {
            self.phone_ended(key, PhoneEnd::of(PhoneReason::Lost));
        }
    }

    /// Notes in which Calls a phone is, after each of their transitions.
    pub(crate) fn note_phones(&mut self, account: AccountId, state: &CallState) {
        for party in state.phones() {
            let Some(phone) = self.phones.by_key.get_mut(&(account, party.call)) else {
                continue;
            };
            if state.phase == Phase::Ended {
                phone.calls.remove(&state.call);
            } else {
                phone.calls.insert(state.call);
            }
        }
    }

    /// A Call has ended, and what follows from that was done: phones in no other Call hang up, and who talks to them no more
    /// leaves their Room.
    pub(crate) fn release_phones(&mut self, key: CallKey) {
        let Ok(state) = self.state(key) else { return };
        let Some(how) = state.end.clone() else { return };
        let phones: Vec<CallKey> = state.phones().map(|phone| (key.0, phone.call)).collect();
        if phones.is_empty() {
            return;
        }
        let callee = state.callee.user.clone();
        let users = [&state.caller, &state.callee]
            .into_iter()
            .filter(|party| party.phone.is_none())
            .map(|party| party.user.clone());
        let users: Vec<UserId> = users.collect();
        let room = state.room.clone();

        for phone in phones {
            let Some(held) = self.phones.by_key.get(&phone) else {
                continue;
            };
            match held.stage {
                Stage::Looks { .. } => {
                    if how.reason != EndReason::AnsweredElsewhere {
                        let (user, why) = (callee.clone(), unanswered(how.reason));
                        self.command_phone(phone, PhoneCommandKind::Unanswered { user, why });
                    }
                }
                Stage::Dialled | Stage::Talks => {
                    if held.calls.is_empty() && !held.stays {
                        self.hang_up(phone, how.cause);
                    }
                }
            }
        }
        if let Some(room) = room.and_then(|name| self.room_named(key.0, &name)) {
            for user in users {
                self.leave_call_room(key.0, room, &user);
            }
        }
    }

    /// Takes a User out of the Room of a phone call, unless another Call of theirs is there.
    fn leave_call_room(&mut self, account: AccountId, room: RoomKey, user: &UserId) {
        let name = self.room_name(room);
        let is_there = self.user(account, user).is_some_and(|entry| {
            entry
                .calls
                .iter()
                .filter(|known| known.phase != Phase::Ended)
                .filter_map(|known| self.calls.get(&(account, known.call)))
                .any(|call| call.state.room == name)
        });
        if !is_there {
            self.expel_from_call(room, user);
        }
    }

    /// Ends a phone call from our side.
    fn hang_up(&mut self, key: CallKey, cause: u8) {
        let Some(phone) = self.phones.by_key.remove(&key) else {
            return;
        };

        self.command_phone(key, PhoneCommandKind::HangUp { cause });
        self.vacate(key.0, phone.place, PhoneReason::Hangup);
    }

    /// Takes a phone out of where it was heard.
    fn vacate(&mut self, account: AccountId, place: Option<PhonePlace>, why: PhoneReason) {
        if let Some(place) = place {
            self.phone_leaves((account, place.room), place.participant, why);
        }
    }

    /// A phone is not in its Room any more: a moderator has removed it, the Room has ended, or the SFU has given it up.
    pub(crate) fn on_phone_left(&mut self, room: RoomKey, call: CallId, why: PhoneReason) {
        let key = (room.0, call);
        let is_there = |phone: &Phone| phone.place.is_some_and(|place| place.room == room.1);
        if !self.phones.by_key.get(&key).is_some_and(is_there) {
            return; // it has left by itself, or is elsewhere already
        }

        let how = PhoneEnd::of(why);
        self.command_phone(key, PhoneCommandKind::HangUp { cause: how.cause });
        self.phone_ended(key, how);
    }

    /// A phone call is over, for all Calls it is in.
    fn phone_ended(&mut self, key: CallKey, how: PhoneEnd) {
        let Some(phone) = self.phones.by_key.remove(&key) else {
            return;
        };

        for call in phone.calls {
            let call = (key.0, call);
            if let Ok(state) = self.state(call) {
                let how = end_of(how, state, &phone.user);
                self.end_call(call, None, how, None);
            }
        }
        self.vacate(key.0, phone.place, how.reason);
    }

    /// A phone comes into a Room and may speak; tells where it is heard.
    fn place_phone(&mut self, key: CallKey, room: RoomKey) -> Option<PhonePlace> {
        self.place_phone_as(key, room, Role::Speaker)
    }

    fn place_phone_as(&mut self, key: CallKey, room: RoomKey, role: Role) -> Option<PhonePlace> {
        let phone = self.phones.by_key.get(&key)?;
        let line = match phone.stage {
            Stage::Talks => Line::Talking,
            Stage::Looks { .. } | Stage::Dialled => Line::Ringing,
        };
        let new = NewPhone {
            call: key.1,
            user: phone.user.clone(),
            name: phone.name.clone(),
            line,
            role,
        };
        let place = self.phone_joins(room, new);
        if let Some(phone) = self.phones.by_key.get_mut(&key) {
            phone.place = Some(place);
        }
        Some(place)
    }

    /// A phone as a side of a Call.
    fn phone_party(&self, key: CallKey) -> Option<Party> {
        let phone = self.phones.by_key.get(&key)?;
        Some(Party {
            user: phone.user.clone(),
            name: phone.name.clone(),
            device: None,
            key: None,
            phone: Some(PhoneParty {
                call: key.1,
                participant: phone.place.map(|place| place.participant),
                to: phone.to.clone(),
            }),
        })
    }

    /// The Room in which a phone is heard, with the name by which it is joined.
    fn room_of_phone(&self, key: CallKey) -> Option<(RoomKey, RoomName)> {
        let place = self.phones.by_key.get(&key)?.place?;
        let room = (key.0, place.room);
        Some((room, self.room_name(room)?))
    }

    /// Where the phone that is a side of a Call is heard, if it is one and is: the Room's name, the phone call, the Participant.
    pub(crate) fn seat_of(
        &self,
        account: AccountId,
        party: &Party,
    ) -> Option<(RoomName, CallId, ParticipantId)> {
        let key = (account, party.phone.as_ref()?.call);
        let place = self.phones.by_key.get(&key)?.place?;
        let (_, name) = self.room_of_phone(key)?;
        Some((name, key.1, place.participant))
    }

    /// After a crash a Call has come back whose phone is not known here: the gateway is asked whether it still has it, and says
    /// that the call is lost if not.
    pub(crate) fn revive_phones(&mut self, key: CallKey) {
        let Ok(state) = self.state(key) else { return };
        if state.phase == Phase::Ended {
            return;
        }
        let sides = [(state.caller.clone(), true), (state.callee.clone(), false)];
        let (phase, users) = (state.phase, sides.clone().map(|(party, _)| party));
        let unknown: Vec<(Party, bool)> = sides
            .into_iter()
            .filter(|(party, _)| {
                let known =
                    |phone: &PhoneParty| self.phones.by_key.contains_key(&(key.0, phone.call));
                party.phone.as_ref().is_some_and(|phone| !known(phone))
            })
            .collect();

        for (party, is_caller) in unknown {
            let Some(told) = party.phone else { continue };
            let phone = (key.0, told.call);
            let stage = match phase {
                Phase::Active => Stage::Talks,
                // Of a phone that is transferred while somebody rings, it is heard that it talks.
                _ if is_caller && told.participant.is_some() => Stage::Talks,
                _ if is_caller => Stage::Looks { rings: false },
                _ => Stage::Dialled,
            };
            self.phones.by_key.insert(
                phone,
                Phone {
                    user: party.user,
                    name: party.name,
                    to: told.to,
                    stage,
                    place: None,
                    calls: self.open_calls_with(phone),
                    stays: false,
                },
            );
            if !self.phones.is_available {
                self.phone_ended(phone, PhoneEnd::of(PhoneReason::Lost));
            } else if matches!(stage, Stage::Looks { .. }) {
                self.command_phone(phone, PhoneCommandKind::Ringing);
            } else {
                self.seat_again(key, phone, &users);
            }
        }
    }

    /// The Calls that have not ended and name a phone call.
    fn open_calls_with(&self, phone: CallKey) -> BTreeSet<CallId> {
        let first = (phone.0, CallId::from_u128(0));
        let last = (phone.0, CallId::from_u128(u128::MAX));
        let names = |state: &CallState| {
            state.phase != Phase::Ended && state.phones().any(|party| party.call == phone.1)
        };
        let calls = self.calls.range(first..=last);
        calls
            .filter(|(_, call)| names(&call.state))
            .map(|(key, _)| key.1)
            .collect()
    }

    /// Makes the Room of a phone call anew.
    fn seat_again(&mut self, key: CallKey, phone: CallKey, users: &[Party]) {
        let Ok(room) = self.begin_phone_room(key) else {
            return self.phone_ended(phone, PhoneEnd::of(PhoneReason::Failed));
        };
        for party in users.iter().filter(|party| party.phone.is_none()) {
            self.admit_to_call(room, &party.user);
        }
        let name = self.room_name(room);
        let Some(place) = self.place_phone(phone, room) else {
            return;
        };
        self.transition(key, None, |state| {
            state.room = name;
            for side in [&mut state.caller, &mut state.callee] {
                side.take_seat(phone.1, place.participant);
            }
        });
        self.command_phone(phone, PhoneCommandKind::Move { place });
    }
}

/// Where a phone is among the Participants.
pub(crate) trait Seated {
    /// Notes it, if it is this one.
    fn take_seat(&mut self, call: CallId, participant: ParticipantId);
}

impl Seated for Party {
    fn take_seat(&mut self, call: CallId, participant: ParticipantId) {
        if let Some(phone) = self.phone.as_mut().filter(|phone| phone.call == call) {
            phone.participant = Some(participant);
        }
    }
}

/// How a Call ends whose phone is gone.
fn end_of(how: PhoneEnd, state: &CallState, phone: &UserId) -> End {
    let is_caller = state.caller.user == *phone;
    let reason = match (how.reason, state.phase) {
        (PhoneReason::NoAnswer, _) => EndReason::Missed,
        (PhoneReason::Lost | PhoneReason::TimedOut, _) => EndReason::Gone,
        // Who calls and goes before an answer has given up, whatever the network calls it.
        (_, Phase::Ringing) if is_caller => EndReason::Cancelled,
        (PhoneReason::Hangup, Phase::Ringing) | (PhoneReason::Declined, _) => EndReason::Declined,
        (PhoneReason::Hangup | PhoneReason::Cancelled, _) => EndReason::Hangup,
        (PhoneReason::Busy, _) => EndReason::Busy,
        (PhoneReason::NoSuchNumber | PhoneReason::NoRoute | PhoneReason::Unreachable, _) => {
            EndReason::Unavailable
        }
        _ => EndReason::Failed,
    };
    let is_theirs = matches!(
        reason,
        EndReason::Hangup | EndReason::Cancelled | EndReason::Declined | EndReason::Busy
    );
    End {
        cause: how.cause,
        phone: Some(how),
        ..end(reason, Some(phone).filter(|_| is_theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_the_network_is_short_and_on_one_line() {
        let shown = |name: &str| shown_name(Some(name.to_owned()));

        assert_eq!(
            shown(" Erika \r\n Muster "),
            Some("Erika  Muster".to_owned())
        );
        assert_eq!(shown("\t"), None);
        assert_eq!(shown(&"é".repeat(100)), Some("é".repeat(64)));
        assert_eq!(shown_name(None), None);
    }
}
