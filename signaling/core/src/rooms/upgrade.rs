//! A Call that goes on in a Room, and a Room that goes on as a Call. The media of both sides moves first; only then does the
//! old place end, so that nobody loses the other on the way. Nobody offers out of turn: in the Room both offer to the server
//! alone, and of a Call the server makes, the caller offers, as in one from a transfer.
//!
//! ```text
//!            call.upgrade: both join the Room, and say call.moved {to: room}
//!   Call ────────────────────────────────────────────────────────────────────▶ Room, the Call ends
//!        ◀────────────────────────────────────────────────────────────────────
//!   the Room ends          both connect, and say call.moved {to: call}     two are left: a Call is made
//! ```

use model::bus::Origin;
use model::room::TrackState;
use model::{
    CallId, CallState, EndReason, Media, MessageId, Millis, Party, Phase, Place, RecordChange,
    RoomName, Source, Timestamp,
};
use signaling_wire::room::{RefusedMedia, RoomEndReason};
use signaling_wire::{ErrorCode, ServerFrame, Upgraded};

use super::{Participant, Room, RoomKey};
use crate::calls::{Call, CallKey, Outcome, Refusal, end};
use crate::sessions::SessionKey;
use crate::signaling::Signaling;
use crate::tell::Address;

/// How the name of a Call's Room begins; the Call's id follows.
const PREFIX: &str = "call-";
/// How long the two who are left in a Room may take to connect to one another.
const CONNECT_WITHIN: Millis = Millis::from_secs(20);

/// A Room whose last two go on as a Call, if they find a way to one another.
#[derive(Debug, Clone, Copy)]
pub(super) struct GoingBack {
    call: CallId,
    pub(super) until: Timestamp,
}

/// The Room of a Call: the one it came from, or one that nobody guesses, for 80 bits of the id are random.
pub(super) fn room_of(call: CallId, from_room: Option<&RoomName>) -> Option<RoomName> {
    let own = || format!("{PREFIX}{call}").to_ascii_lowercase().parse().ok();
    from_room.cloned().or_else(own)
}

impl Room {
    /// The two who are left, if they may go on as a Call: nobody is on the way in, and there is nothing that a Call could
    /// not carry.
    fn two_left(&self) -> Option<[&Participant; 2]> {
        let is_screen =
            |track: &TrackState| matches!(track.source, Source::Screen | Source::ScreenAudio);
        let mut here = self.participants.values();
        let (Some(one), Some(other), None) = (here.next(), here.next(), here.next()) else {
            return None;
        };

        let states = [&one.person.state, &other.person.state];
        let shares = states
            .iter()
            .any(|state| state.tracks.iter().any(is_screen));
        // Nobody calls an encoder, and a phone is in the Room alone.
        let is_person = |one: &Participant| one.person.is_attended && one.person.phone.is_none();
        let are_people = is_person(one) && is_person(other);
        let is_quiet = self.joining.is_empty() && self.waiting.is_empty() && !shares;
        (are_people && is_quiet && one.person.state.user != other.person.state.user)
            .then_some([one, other])
    }

    fn shows_faces(&self) -> bool {
        let mut tracks = self
            .participants
            .values()
            .flat_map(|one| &one.person.state.tracks);
        tracks.any(|track| track.source == Source::Camera && !track.muted)
    }
}

impl Signaling {
    /// Whether the Session could begin the Room of a Call.
    pub(crate) fn ensure_may_upgrade(
        &self,
        session: SessionKey,
        call: CallId,
    ) -> Result<(), Refusal> {
        if !self.rooms.is_media_available() {
            return Err(Refusal::media(
                RefusedMedia::Unavailable,
                "this server forwards no media",
            ));
        }
        let grants = self.room_grants(session);
        if room_of(call, None).is_some_and(|name| grants.may_create(&name)) {
            Ok(())
        } else {
            Err(Refusal::new(
                ErrorCode::Forbidden,
                "the access token does not allow to begin a room",
            ))
        }
    }

    /// Tells the other Device in which Room to go on.
    pub(crate) fn on_upgrade(
        &mut self,
        key: CallKey,
        id: MessageId,
        origin: &Origin,
    ) -> Result<Outcome, Refusal> {
        self.ensure_active(key, origin)?;
        let state = self.state(key)?;
        if state.transfer.is_some() {
            return Err(Refusal::wrong_phase());
        }
        if state.phones().next().is_some() {
            return self.on_upgrade_phone(key, id, origin);
        }
        let room = room_of(key.1, state.from_room.as_ref()).ok_or_else(Refusal::unknown_call)?;
        let other = state.other_party(&origin.user);
        let (user, device) = (other.user.clone(), other.device);

        let news = ServerFrame::CallUpgraded(Upgraded {
            call: key.1,
            room: room.clone(),
            by: origin.user.clone(),
        });
        let to = Address {
            user: &user,
            device,
            except: None,
        };
        if self.tell_call(key, &to, news.kind(), &news.data()) {
            Ok(Outcome::Room(room))
        } else {
            Err(Refusal::new(
                ErrorCode::PeerGone,
                "the other device has no session",
            ))
        }
    }

    /// One side hears the other in the new place; once both do, the old one ends.
    pub(crate) fn on_moved(
        &mut self,
        key: CallKey,
        origin: &Origin,
        to: Place,
    ) -> Result<Outcome, Refusal> {
        self.ensure_active(key, origin)?;
        let call = self.calls.get_mut(&key).ok_or_else(Refusal::unknown_call)?;
        let side = usize::from(call.state.callee.user == origin.user);
        call.moved[side] = Some(to);
        if call.moved == [Some(to); 2] {
            call.moved = [None; 2];
            match to {
                Place::Room => self.end_upgraded(key),
                Place::Call => self.end_room_left(key),
            }
        }
        Ok(Outcome::Empty)
    }

    fn end_upgraded(&mut self, key: CallKey) {
        let room = self
            .state(key)
            .ok()
            .and_then(|state| room_of(key.1, state.from_room.as_ref()));
        let mut how = end(EndReason::Upgraded, None);
        how.room = room;
        self.end_call(key, None, how, None);
    }

    /// Ends the Room that the two of a Call came from. It goes on where others have come in meanwhile, and the Call ends.
    fn end_room_left(&mut self, key: CallKey) {
        let Ok(state) = self.state(key) else { return };
        let sides = [&state.caller, &state.callee].map(|party| (party.user.clone(), party.device));
        let from = state.from_room.as_ref();
        let room = from.and_then(|name| self.rooms.named(key.0, name));
        let Some((room_key, room)) = room.and_then(|key| Some((key, self.rooms.get(key)?))) else {
            return;
        };

        let is_side = |session: Option<SessionKey>| {
            session.is_some_and(|session| {
                let session = self.sessions.get(session);
                sides.contains(&(session.user.clone(), Some(session.device)))
            })
        };
        let here = room.participants.values().map(|one| one.person.session);
        let joining = room.joining.values().map(|one| one.person.session);
        if room.waiting.is_empty() && here.chain(joining).all(is_side) {
            self.end_room(room_key, RoomEndReason::Call, true);
        } else {
            self.end_upgraded(key);
        }
    }

    /// After a change of who is in a Room, or of what they send: two who are left of more go on as a Call where that is
    /// wished for, and do not when somebody comes or goes meanwhile.
    pub(super) fn consider_call(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let people = room.people();
        room.was_crowd |= people > 2;

        if let Some(back) = room.going_back
            && people != 2
        {
            room.going_back = None;
            let call = (key.0, back.call);
            if people > 2 {
                self.end_upgraded(call);
            } else {
                self.end_call(call, None, end(EndReason::Gone, None), None);
            }
            return;
        }
        let may = room.settings.back_to_call && room.was_crowd && room.going_back.is_none();
        if may && let Some(two) = self.rooms.get(key).and_then(Room::two_left) {
            let [Some(one), Some(other)] = two.map(|one| one.person.session) else {
                return;
            };
            let sessions = [one, other];
            let is_there = |session: &SessionKey| self.sessions.get(*session).connection.is_some();
            if sessions.iter().all(is_there) {
                self.go_back(key, sessions);
            }
        }
    }

    /// Makes a Call of the two who are left: the one who has been there longer calls.
    fn go_back(&mut self, key: RoomKey, sessions: [SessionKey; 2]) {
        let until = self.now + CONNECT_WITHIN;
        let call = CallId::from_parts(self.now, self.rng.wide());
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        room.was_crowd = false;
        room.going_back = Some(GoingBack { call, until });
        let (name, video) = (room.name.clone(), room.shows_faces());
        self.rooms.arm(key);

        let [caller, callee] = sessions.map(|session| self.party_of(session));
        let state = CallState {
            call,
            rev: 1,
            epoch: 1,
            phase: Phase::Active,
            media: Media { audio: true, video },
            caller: caller.clone(),
            callee: callee.clone(),
            ringing: Vec::new(),
            held_by: Vec::new(),
            created_at: self.now,
            answered_at: Some(self.now),
            ended_at: None,
            commitment: None,
            transfer: None,
            replaces: None,
            from_room: Some(name),
            room: None,
            end: None,
        };
        let call = (key.0, call);
        self.insert_call(call, Call::new(state, self.now));
        self.record_call(call, RecordChange::CallBegun);
        self.record_call(call, RecordChange::CallAnswered);
        for party in [caller, callee] {
            self.announce_created(call, &party, None);
        }
    }

    /// Who found no way to one another stays in the Room.
    pub(super) fn expire_going_back(&mut self, key: RoomKey) {
        let now = self.now;
        let back = self
            .rooms
            .get_mut(key)
            .and_then(|room| room.going_back.take_if(|back| back.until <= now));
        if let Some(back) = back {
            self.end_call((key.0, back.call), None, end(EndReason::Failed, None), None);
        }
    }

    fn party_of(&self, session: SessionKey) -> Party {
        let session = self.sessions.get(session);
        Party {
            user: session.user.clone(),
            name: session.name.as_deref().map(str::to_owned),
            device: Some(session.device),
            key: Some(session.device_key.as_ref().to_owned()),
            phone: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_a_call_is_named_after_it_or_the_one_it_came_from() {
        let call: CallId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        let weekly: RoomName = "weekly".parse().unwrap();

        let own = room_of(call, None).unwrap();
        assert_eq!(own.as_str(), "call-01arz3ndektsv4rrffq69g5fav");
        assert_eq!(room_of(call, Some(&weekly)), Some(weekly));
    }
}
