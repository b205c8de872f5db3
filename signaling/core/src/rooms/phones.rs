//! Phones as Participants: they have no Session and no SDP, speak through one Track, and are told nothing.
//!
//! A phone call has a Room of its own, which only those who talk in it may join and which ends with it, until somebody takes it
//! into a Room that outlives it. There a phone stays for as long as there are people.

use std::collections::VecDeque;

use model::media::MediaCommandKind;
use model::phone::{PhonePlace, PhoneReason};
use model::room::{Line, ParticipantState, RoomSettings, TrackState};
use model::{
    AccountId, CallId, MessageId, ParticipantId, Permissions, Role, RoomId, RoomName, Source,
    TrackId, UserId,
};
use signaling_wire::ErrorCode;
use signaling_wire::room::{RefusedMedia, RoomEndReason};

use super::admission::Standing;
use super::leaving::Leaving;
use super::upgrade::room_of;
use super::{Answered, Participant, Person, Room, RoomKey};
use crate::bucket::Bucket;
use crate::calls::{CallKey, Refusal};
use crate::signaling::Signaling;

/// What a phone may do: it has a voice and nothing else.
const PHONE: Permissions = Permissions {
    speak: true,
    video: false,
    share: false,
    moderate: false,
    data: false,
};

/// A phone that comes into a Room.
pub(crate) struct NewPhone {
    /// The phone call.
    pub(crate) call: CallId,
    pub(crate) user: UserId,
    pub(crate) name: Option<String>,
    pub(crate) line: Line,
    pub(crate) role: Role,
}

/// Who comes by a PIN, and what its row allows.
pub(crate) struct DialIn<'a> {
    pub(crate) user: &'a UserId,
    pub(crate) lobby: bool,
    pub(crate) may_begin: bool,
}

impl Signaling {
    /// Makes the Room of a phone call, or finds it where Devices have come back to it after a crash.
    pub(crate) fn begin_phone_room(&mut self, call: CallKey) -> Result<RoomKey, Refusal> {
        if !self.rooms.is_media_available() {
            return Err(Refusal::media(
                RefusedMedia::Unavailable,
                "this server forwards no media",
            ));
        }
        let name = room_of(call.1, None).ok_or_else(Refusal::unknown_call)?;
        if let Some(key) = self.rooms.named(call.0, &name) {
            let room = self.rooms.get_mut(key).ok_or_else(Refusal::unknown_call)?;
            if room.settings.encrypted {
                return Err(Refusal::new(
                    ErrorCode::RoomEncrypted,
                    "a phone can't be heard in a room that is encrypted from end to end",
                ));
            }
            room.is_of_call = true;
            room.empty_since = None;
            return Ok(key);
        }
        if self.rooms.of_account(call.0) >= self.limits.rooms_per_account_max as usize {
            return Err(Refusal::new(
                ErrorCode::RoomFull,
                "the account has too many rooms",
            ));
        }

        let key = (call.0, RoomId::from_parts(self.now, self.rng.wide()));
        let settings = RoomSettings {
            locked: true,
            ..RoomSettings::default()
        };
        let mut room = Room::new(name, settings, self.now, &self.limits);
        room.is_of_call = true;
        self.rooms.insert(key, room);
        Ok(key)
    }

    /// The Room that a phone comes into by a PIN; `None` where it may not. One that nobody is in is begun, where the row says so.
    pub(crate) fn room_for_dial_in(
        &mut self,
        account: AccountId,
        name: &RoomName,
        who: &DialIn<'_>,
    ) -> Option<RoomKey> {
        if !self.rooms.is_media_available() {
            return None;
        }
        let most = self.limits.participants_per_room_max as usize;
        if let Some(key) = self.rooms.named(account, name) {
            let room = self.rooms.get_mut(key)?;
            let standing = room.standings.get(who.user);
            let is_denied = matches!(standing, Some(Standing::Outcast | Standing::Denied(_)));
            // Nobody has a phone wait in a lobby yet: whom it would be asked of is not told.
            let has_to_wait = who.lobby && room.settings.lobby;
            let is_shut = room.is_of_call || room.settings.encrypted || room.settings.locked;
            if is_shut || is_denied || has_to_wait || room.people() >= most {
                return None;
            }
            room.is_of_phones |= who.may_begin;
            return Some(key);
        }
        if !who.may_begin
            || self.rooms.of_account(account) >= self.limits.rooms_per_account_max as usize
        {
            return None;
        }
        let key = (account, RoomId::from_parts(self.now, self.rng.wide()));
        let mut room = Room::new(
            name.clone(),
            RoomSettings::default(),
            self.now,
            &self.limits,
        );
        room.is_of_phones = true;
        self.rooms.insert(key, room);
        Some(key)
    }

    /// The name by which a Room is joined.
    pub(crate) fn room_name(&self, key: RoomKey) -> Option<RoomName> {
        self.rooms.get(key).map(|room| room.name.clone())
    }

    /// The Room of this name.
    pub(crate) fn room_named(&self, account: AccountId, name: &RoomName) -> Option<RoomKey> {
        self.rooms.named(account, name)
    }

    /// Lets a User into the Room of their phone call.
    pub(crate) fn admit_to_call(&mut self, key: RoomKey, user: &UserId) {
        if let Some(room) = self.rooms.get_mut(key) {
            room.admit(user);
        }
    }

    /// A phone comes in; tells the SFU and everybody there.
    pub(crate) fn phone_joins(&mut self, key: RoomKey, phone: NewPhone) -> PhonePlace {
        let (now, rng) = (self.now, &mut self.rng);
        let participant = ParticipantId::from_parts(now, rng.wide());
        let track = TrackId::from_parts(now, rng.wide());
        let place = PhonePlace {
            room: key.1,
            participant,
            track,
        };
        let events = Bucket::full(now, self.limits.room_events_burst);
        let Some(room) = self.rooms.get_mut(key) else {
            return place;
        };
        if room.is_of_phones {
            room.empty_since = None;
        }

        // A phone has a voice at most, and moderates nothing.
        let role = phone.role.min(Role::Speaker);
        let permissions = Permissions {
            speak: role.permissions().speak,
            ..PHONE
        };
        let state = ParticipantState {
            participant,
            user: phone.user,
            name: phone.name,
            role,
            permissions,
            hand_at: None,
            joined_at: now,
            phone: Some(phone.line),
            tracks: vec![TrackState {
                track,
                source: Source::Microphone,
                muted: false,
            }],
            metadata: None,
            e2ee: None,
        };
        // Nobody asked for it by a command.
        let command = MessageId::from_u128(phone.call.as_u128());
        let one = Participant {
            person: Person {
                session: None,
                phone: Some(phone.call),
                command,
                state,
                is_guest: true,
                is_attended: true,
            },
            sections: Vec::new(),
            answered: Answered {
                command,
                generation: 0,
                sdp: String::new(),
            },
            pending: None,
            slots: Vec::new(),
            slots_wanted: (0, 0),
            quality: None,
            done: VecDeque::new(),
            events,
        };
        room.participants.insert(participant, one);
        room.owners.insert(track, participant);
        let encrypted = room.settings.encrypted;

        self.command_media(
            key,
            MediaCommandKind::JoinPlain {
                participant,
                permissions,
                encrypted,
                track,
                muted: false,
            },
        );
        self.tell_participant(key, participant, None);
        self.consider_call(key);
        place
    }

    /// A phone that was dialled has answered; everybody in its Room hears it.
    pub(crate) fn phone_talks(&mut self, key: RoomKey, participant: ParticipantId) {
        if let Some(one) = self.participant_mut(key, participant)
            && one.person.state.phone == Some(Line::Ringing)
        {
            one.person.state.phone = Some(Line::Talking);
            self.tell_participant(key, participant, None);
        }
    }

    /// A phone goes; a Room that was made for it ends with the last one.
    pub(crate) fn phone_leaves(
        &mut self,
        key: RoomKey,
        participant: ParticipantId,
        why: PhoneReason,
    ) {
        self.remove_participant(key, participant, Leaving::HungUp(why));
        let is_over = self
            .rooms
            .get(key)
            .is_some_and(|room| room.is_of_call && room.phones().next().is_none());
        if is_over {
            self.end_room(key, RoomEndReason::Ended, true);
        }
    }

    /// The Room of a phone call goes on without the call: the phone stays for as long as there are people.
    pub(crate) fn keep_room(&mut self, key: RoomKey) {
        if let Some(room) = self.rooms.get_mut(key) {
            room.is_of_call = false;
        }
        self.note_emptiness(key);
    }

    /// Takes a User who talks no more out of the Room of a phone call, and lets them in no more.
    pub(crate) fn expel_from_call(&mut self, key: RoomKey, user: &UserId) {
        let Some(room) = self.rooms.get_mut(key).filter(|room| room.is_of_call) else {
            return;
        };

        let is_theirs = |person: &Person| person.state.user == *user;
        let here: Vec<_> = room
            .participants
            .iter()
            .filter(|(_, one)| is_theirs(&one.person))
            .map(|(id, _)| *id)
            .collect();
        let joining: Vec<_> = room
            .joining
            .iter()
            .filter(|(_, one)| is_theirs(&one.person))
            .map(|(id, _)| *id)
            .collect();
        room.set_standing(user, Standing::Outcast);
        for id in joining {
            self.give_up_joining(key, id, &Refusal::not_in_room(), true);
        }
        for id in here {
            self.remove_participant(key, id, Leaving::Removed);
        }
    }

    /// In a Room that is no call's own, phones hang up after the last person.
    pub(super) fn consider_phones(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get(key) else {
            return;
        };
        if room.is_of_call || room.is_of_phones || room.persons() > 0 {
            return;
        }

        let phones: Vec<ParticipantId> = room.phones().collect();
        for phone in phones {
            self.remove_participant(key, phone, Leaving::Left);
        }
    }
}

impl Room {
    pub(super) fn phones(&self) -> impl Iterator<Item = ParticipantId> {
        self.participants
            .iter()
            .filter(|(_, one)| one.person.phone.is_some())
            .map(|(id, _)| *id)
    }
}
