//! Leaving: by one's own will or another's, and what becomes of a Room then.

use model::media::MediaCommandKind;
use model::phone::PhoneReason;
use model::room::ParticipantState;
use model::{ParticipantId, Role, RoomId};
use signaling_wire::room::{
    DenyReason, LeaveReason, RoomDenied, RoomEndReason, RoomEnded, RoomLeft,
};
use signaling_wire::{Empty, ErrorCode, OkData, ServerFrame};

use super::admission::Standing;
use super::offers::stale;
use super::{EMPTY_KEPT, Room, RoomKey};
use crate::calls::Refusal;
use crate::sessions::SessionKey;
use crate::signaling::Signaling;

/// How a Participant leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// They said so, or join again.
    Left,
    /// Their phone has hung up, or was never answered.
    HungUp(PhoneReason),
    /// A moderator removed them.
    Removed,
    /// Their Session ends: nobody is there to be told.
    SessionEnds,
    /// The SFU has given them up.
    Lost,
}

impl Leaving {
    /// What the others hear.
    const fn reason(self) -> LeaveReason {
        match self {
            Self::Left | Self::HungUp(_) => LeaveReason::Left,
            Self::Removed => LeaveReason::Removed,
            Self::SessionEnds | Self::Lost => LeaveReason::Gone,
        }
    }

    /// What a phone hears of it.
    const fn phone_end(self) -> PhoneReason {
        match self {
            Self::HungUp(why) => why,
            Self::Left | Self::Removed | Self::SessionEnds => PhoneReason::Hangup,
            Self::Lost => PhoneReason::Failed,
        }
    }

    /// What the phone network said of it.
    const fn phone(self) -> Option<PhoneReason> {
        match self {
            Self::HungUp(why) => Some(why),
            _ => None,
        }
    }

    /// What the one who leaves hears, if it is news.
    const fn told(self) -> Option<RoomEndReason> {
        match self {
            Self::Left | Self::HungUp(_) | Self::SessionEnds => None,
            Self::Removed => Some(RoomEndReason::Removed),
            Self::Lost => Some(RoomEndReason::Failed),
        }
    }
}

impl Refusal {
    pub(super) fn not_in_room() -> Self {
        Self::new(ErrorCode::NotInRoom, "not a participant of the room")
    }

    fn room_ended() -> Self {
        Self::new(ErrorCode::UnknownRoom, "the room has ended")
    }
}

impl Room {
    /// Whose metadata does not count any more.
    pub(super) fn forget_metadata(&mut self, state: &ParticipantState) {
        self.metadata_bytes -= state.metadata.as_ref().map_or(0, String::len);
    }
}

impl Signaling {
    /// Leaves a Room, or its lobby; who is not there has left already.
    pub(super) fn on_room_leave(&mut self, session: SessionKey, room: RoomId) -> OkData {
        let key = (self.sessions.get(session).account, room);
        self.leave_room(session, key, Leaving::Left);
        OkData::Empty(Empty {})
    }

    /// Leaves all Rooms of a Session that ends.
    pub(crate) fn leave_rooms(&mut self, session: SessionKey) {
        for key in self.rooms_of(session) {
            self.leave_room(session, key, Leaving::SessionEnds);
        }
    }

    /// Who joins again must not be there twice.
    pub(super) fn leave_before_joining(&mut self, session: SessionKey, key: RoomKey) {
        let Some(room) = self.rooms.get(key) else {
            return;
        };

        let joining = room.joining_of(session);
        let present = room.of_session(session);
        for id in joining {
            self.give_up_joining(key, id, &stale(), true);
        }
        if let Some(id) = present {
            self.remove_participant(key, id, Leaving::Left);
        }
    }

    fn leave_room(&mut self, session: SessionKey, key: RoomKey, how: Leaving) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };

        let waiting_before = room.waiting.len();
        room.waiting.retain(|knock| knock.session != session);
        let has_waited = room.waiting.len() < waiting_before;
        let (joining, present) = (room.joining_of(session), room.of_session(session));

        if has_waited {
            self.tell_lobby(key);
            self.consider_call(key);
        }
        for id in joining {
            if how == Leaving::SessionEnds {
                self.drop_joining(key, id);
                self.command_media(key, MediaCommandKind::Leave { participant: id });
                self.note_emptiness(key);
            } else {
                self.give_up_joining(key, id, &Refusal::not_in_room(), true);
            }
        }
        if let Some(id) = present {
            self.remove_participant(key, id, how);
        }
        self.forget_room(session, key);
        self.consider_phones(key);
    }

    /// Takes a Participant out of a Room and tells who has to know.
    pub(super) fn remove_participant(&mut self, key: RoomKey, id: ParticipantId, how: Leaving) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let Some(participant) = room.participants.remove(&id) else {
            return;
        };

        let state = &participant.person.state;
        match how {
            _ if participant.person.phone.is_some() => {}
            Leaving::Removed => room.set_standing(&state.user, Standing::Outcast),
            _ => room.remember(&state.user, participant.person.standing()),
        }
        room.forget_metadata(state);
        for track in &state.tracks {
            room.owners.remove(&track.track);
        }
        if let Some(session) = participant.person.session {
            room.by_session.remove(&session);
        }
        room.speakers.retain(|speaker| *speaker != id);

        if how != Leaving::Lost {
            self.command_media(key, MediaCommandKind::Leave { participant: id });
        }
        let session = participant.person.session;
        if how != Leaving::SessionEnds {
            if let Some(offer) = participant.pending {
                self.refuse_room(session, offer.command, &Refusal::not_in_room());
            }
            if let Some(reason) = how.told() {
                let ended = RoomEnded {
                    room: key.1,
                    reason,
                };
                self.tell_session(session, &ServerFrame::RoomEnded(ended));
            }
        }
        self.forget_room(session, key);

        let left = RoomLeft {
            room: key.1,
            participant: id,
            reason: how.reason(),
            phone: how.phone(),
        };
        self.tell_room(key, &ServerFrame::RoomLeft(left), None);
        self.ensure_moderated(key);
        self.note_emptiness(key);
        self.consider_call(key);
        if let Some(phone) = participant.person.phone {
            self.on_phone_left(key, phone, how.phone_end());
        }
    }

    /// Where nobody moderates any more, the User who has been here the longest does.
    pub(super) fn ensure_moderated(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get(key) else {
            return;
        };
        if room.moderators().next().is_some() {
            return;
        }

        let mut users = room.participants.iter();
        let heir = users.find(|(_, participant)| participant.person.may_inherit());
        if let Some(heir) = heir.map(|(id, _)| *id) {
            self.give_role(key, heir, Role::Moderator, Role::Moderator.permissions());
        }
    }

    /// Sees whether anybody is left. A Room nobody has ever been in ends at once.
    pub(super) fn note_emptiness(&mut self, key: RoomKey) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let has_phones = room.is_of_phones && room.phones().next().is_some();
        if room.is_of_call || room.persons() > 0 || has_phones {
            return;
        }

        if room.has_begun() {
            room.empty_since.get_or_insert(now);
            self.rooms.arm(key);
        } else {
            self.end_room(key, RoomEndReason::Ended, false);
        }
    }

    pub(crate) fn on_room_timer(&mut self, key: RoomKey) {
        if let Some(room) = self.rooms.get_mut(key) {
            room.armed.fired();
        }

        self.expire_offers(key);
        self.expire_going_back(key);
        let ends_at = self
            .rooms
            .get(key)
            .and_then(|room| room.empty_since)
            .map(|since| since + EMPTY_KEPT);
        if ends_at.is_some_and(|ends_at| ends_at <= self.now) {
            self.end_room(key, RoomEndReason::Ended, true); // phones may be there
        } else {
            self.rooms.arm(key);
        }
    }

    /// Ends a Room for everybody in it, on the way into it, and before its door.
    pub(super) fn end_room(&mut self, key: RoomKey, reason: RoomEndReason, tells_media: bool) {
        let Some(room) = self.rooms.remove(key) else {
            return;
        };

        if tells_media && room.people() > 0 {
            self.command_media(key, MediaCommandKind::End);
        }
        let ended = ServerFrame::RoomEnded(RoomEnded {
            room: key.1,
            reason,
        });
        let mut phones = Vec::new();
        for participant in room.participants.into_values() {
            let session = participant.person.session;
            phones.extend(participant.person.phone);
            if let Some(offer) = participant.pending {
                self.refuse_room(session, offer.command, &Refusal::room_ended());
            }
            self.tell_session(session, &ended);
            self.forget_room(session, key);
        }
        for joining in room.joining.into_values() {
            let (session, command) = (joining.person.session, joining.person.command);
            self.refuse_room(session, command, &Refusal::room_ended());
            self.forget_room(session, key);
        }
        let denied = ServerFrame::RoomDenied(RoomDenied {
            room: key.1,
            reason: DenyReason::Ended,
        });
        for knock in room.waiting {
            self.tell_session(knock.session, &denied);
            self.forget_room(knock.session, key);
        }
        for phone in phones {
            let why = match reason {
                RoomEndReason::Failed => PhoneReason::Failed,
                _ => PhoneReason::Hangup,
            };
            self.on_phone_left(key, phone, why);
        }
    }
}

impl Room {
    fn joining_of(&self, session: SessionKey) -> Vec<ParticipantId> {
        let theirs = self
            .joining
            .iter()
            .filter(|(_, joining)| joining.person.session == Some(session));
        theirs.map(|(id, _)| *id).collect()
    }
}
