//! Who may come in, and as what.

use model::media::{MediaCommandKind, MediaOffer};
use model::room::{ParticipantState, RoomSettings};
use model::{
    MessageId, Millis, ParticipantId, Permissions, Role, RoomGrants, RoomId, Timestamp, UserId,
};
use signaling_wire::room::{RefusedMedia, RoomJoin};
use signaling_wire::{ErrorCode, OkData};

use super::offers::{ANSWER_WITHIN, track_offers};
use super::{Joining, Knock, PendingOffer, Person, Room, RoomKey};
use crate::calls::Refusal;
use crate::limits::Limits;
use crate::sessions::SessionKey;
use crate::signaling::Signaling;

/// How many Users a Room remembers.
const STANDINGS_MAX: usize = 4_096;
/// How long somebody who was denied may not knock again.
pub(super) const DENIED_FOR: Millis = Millis::from_secs(60);
/// How long the metadata of all Participants of a Room may be together, in bytes.
pub(super) const METADATA_BYTES_MAX: usize = 32 * 1024;

/// What a Room remembers of a User.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A moderator let them in.
    Admitted,
    /// They were here, as this, and might do that.
    Known(Role, Permissions),
    /// A moderator removed them: they have to be let in.
    Outcast,
    /// A moderator did not let them in; until then they need not ask again.
    Denied(Timestamp),
}

/// Who wants to come in.
struct Applicant<'a> {
    grants: &'a RoomGrants,
    standing: Option<Standing>,
    /// Whether a person is there.
    is_attended: bool,
}

/// What a Room is like, as far as that matters.
#[derive(Debug, Clone, Copy)]
struct Door {
    locked: bool,
    lobby: bool,
    /// Of who comes in.
    role: Role,
    is_moderated: bool,
    is_full: bool,
    is_lobby_full: bool,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Enter(Role, Permissions),
    Wait { is_outcast: bool },
}

impl Applicant<'_> {
    /// Decides about a Room that is there.
    fn admission(&self, door: Door, now: Timestamp) -> Result<Admission, Refusal> {
        let known = match self.standing {
            Some(Standing::Denied(until)) if now < until => {
                return Err(Refusal::new(
                    ErrorCode::LobbyDenied,
                    "a moderator has refused it a moment ago",
                ));
            }
            Some(Standing::Known(role, permissions)) => Some(Some((role, permissions))),
            Some(Standing::Admitted) => Some(None),
            _ => None,
        };
        let is_outcast = self.standing == Some(Standing::Outcast);
        let has_to_wait = is_outcast || (door.lobby && self.grants.guest);
        let has_key = known.is_some() || (self.grants.role == Some(Role::Moderator) && !is_outcast);

        if door.is_full {
            Err(Refusal::new(ErrorCode::RoomFull, "the room is full"))
        } else if has_key {
            let before = known.flatten().filter(|_| self.is_attended);
            Ok(self.enter(before, door))
        } else if door.locked {
            Err(Refusal::new(ErrorCode::RoomLocked, "the room is locked"))
        } else if !has_to_wait {
            Ok(self.enter(None, door))
        } else if !self.is_attended {
            Err(Refusal::new(
                ErrorCode::LobbyDenied,
                "who comes without a person waits in no lobby",
            ))
        } else if door.is_lobby_full {
            Err(Refusal::new(ErrorCode::RoomFull, "the lobby is full"))
        } else {
            Ok(Admission::Wait { is_outcast })
        }
    }

    /// As what they come in: who is the first User where nobody moderates does; otherwise what they were, or their token or the
    /// Room's settings say.
    fn enter(&self, before: Option<(Role, Permissions)>, door: Door) -> Admission {
        let role = match before {
            _ if !door.is_moderated && self.may_inherit() => Role::Moderator,
            Some((role, permissions)) => return Admission::Enter(role, permissions),
            None => self.grants.role.unwrap_or(door.role),
        };
        Admission::Enter(role, role.permissions())
    }

    /// Whether they come to moderate where nobody else does.
    const fn may_inherit(&self) -> bool {
        self.is_attended && !self.grants.guest
    }
}

impl Room {
    /// Remembers something of a User; when too many are remembered, one who would be let in anyway is forgotten.
    pub(super) fn set_standing(&mut self, user: &UserId, standing: Standing) {
        if self.standings.len() >= STANDINGS_MAX && !self.standings.contains_key(user) {
            let is_light = |(_, standing): &(&UserId, &Standing)| {
                matches!(standing, Standing::Known(..) | Standing::Admitted)
            };
            let light = self.standings.iter().find(is_light);
            let forgotten = light.or_else(|| self.standings.iter().next());
            if let Some(forgotten) = forgotten.map(|(user, _)| user.clone()) {
                self.standings.remove(&forgotten);
            }
        }
        self.standings.insert(user.clone(), standing);
    }

    /// Lets a User in who has not been here, or may not come back by themselves.
    pub(super) fn admit(&mut self, user: &UserId) {
        if !matches!(self.standings.get(user), Some(Standing::Known(..))) {
            self.set_standing(user, Standing::Admitted);
        }
    }

    /// Remembers who was here. What is known of a person is not forgotten for their encoder, and who was removed is not let in by what
    /// else of them is still here: a moderator decides that.
    pub(super) fn remember(&mut self, user: &UserId, standing: Standing) {
        let stays = match self.standings.get(user) {
            Some(Standing::Outcast) => true,
            Some(Standing::Known(..)) => standing == Standing::Admitted,
            _ => false,
        };
        if !stays {
            self.set_standing(user, standing);
        }
    }

    fn door(&self, limits: &Limits) -> Door {
        Door {
            locked: self.settings.locked,
            lobby: self.settings.lobby,
            role: self.settings.role,
            is_moderated: self.is_moderated(),
            is_full: self.people() >= limits.participants_per_room_max as usize,
            is_lobby_full: self.waiting.len() >= limits.waiting_per_room_max as usize,
        }
    }
}

impl Signaling {
    pub(super) fn on_room_join(
        &mut self,
        session: SessionKey,
        command: MessageId,
        join: RoomJoin,
    ) -> Result<(), Refusal> {
        let account = self.sessions.get(session).account;
        let there = self.rooms.named(account, &join.room);
        if let Some(key) = there
            && self.answer_join_again(session, command, key)
        {
            return Ok(());
        }

        if !self.rooms.is_media_available {
            return Err(Refusal::media(
                RefusedMedia::Unavailable,
                "this server forwards no media",
            ));
        }
        self.take_offer(session)?;
        self.ensure_room_sdp(&join.sdp)?;
        let grants = self.room_grants(session);
        // Who talks to a phone may join the Room that was made for it, whatever Rooms their token names.
        let is_meant = there.is_some_and(|key| self.is_of_own_call(session, key));
        if !is_meant && !grants.may_join(&join.room) {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the access token does not allow to join this room",
            ));
        }
        self.ensure_encrypted(there, &join)?;
        if let Some(key) = there {
            // Who joins again wants to be there anew, as after a lost RTCPeerConnection.
            self.leave_before_joining(session, key);
        }
        let rooms = &self.sessions.get(session).rooms;
        let is_new = there.is_none_or(|key| !rooms.contains(&key.1));
        if is_new && rooms.len() >= self.limits.rooms_per_session_max as usize {
            return Err(Refusal::new(
                ErrorCode::RoomFull,
                "the session is in too many rooms",
            ));
        }

        // A Room that has only just begun ends with the first who gives up.
        let there = self.rooms.named(account, &join.room);
        let (key, admission) = match there {
            Some(key) => (key, self.admission(session, key, &grants)?),
            None => {
                let key = self.begin_room(session, &grants, &join)?;
                let role = self.role_of_first(session, key, &grants);
                (key, Admission::Enter(role, role.permissions()))
            }
        };
        match admission {
            Admission::Enter(role, permissions) => {
                self.enter(session, command, key, (role, permissions), join)
            }
            Admission::Wait { is_outcast } => {
                self.knock(session, command, key, is_outcast);
                Ok(())
            }
        }
    }

    /// Answers a command that is known already; false when it is new.
    fn answer_join_again(&mut self, session: SessionKey, command: MessageId, key: RoomKey) -> bool {
        let Some(room) = self.rooms.get(key) else {
            return false;
        };

        let is_theirs =
            |person: &Person| person.session == Some(session) && person.command == command;
        let mut joining = room.joining.values();
        let mut present = room.participants.iter();
        if joining.any(|joining| is_theirs(&joining.person)) {
            return true; // answered when the SFU has
        }
        if let Some((id, _)) = present.find(|(_, one)| is_theirs(&one.person)) {
            let id = *id;
            self.answer_joined(key, id, command);
            return true;
        }
        let mut waiting = room.waiting.iter();
        let waits = waiting.any(|knock| knock.session == session && knock.command == command);
        if waits {
            self.answer_waiting(session, command, key);
        }
        waits
    }

    /// Whether the Room is that of a phone call of the Session's User.
    fn is_of_own_call(&self, session: SessionKey, key: RoomKey) -> bool {
        let user = &self.sessions.get(session).user;
        self.rooms.get(key).is_some_and(|room| {
            room.is_of_call
                && matches!(
                    room.standings.get(user),
                    Some(Standing::Admitted | Standing::Known(..))
                )
        })
    }

    /// Into an encrypted Room nothing may be sent that is not.
    fn ensure_encrypted(&self, there: Option<RoomKey>, join: &RoomJoin) -> Result<(), Refusal> {
        let is_encrypted = match there.and_then(|key| self.rooms.get(key)) {
            Some(room) => room.settings.encrypted,
            None => {
                let wanted = join.settings.as_ref();
                wanted.is_some_and(|settings| settings.encrypted == Some(true))
            }
        };
        if is_encrypted && !join.encrypted {
            return Err(Refusal::new(
                ErrorCode::RoomEncrypted,
                "the room is encrypted from end to end",
            ));
        }
        Ok(())
    }

    fn admission(
        &self,
        session: SessionKey,
        key: RoomKey,
        grants: &RoomGrants,
    ) -> Result<Admission, Refusal> {
        let of = self.sessions.get(session);
        let unknown = || Refusal::new(ErrorCode::UnknownRoom, "no such room");
        let room = self.rooms.get(key).ok_or_else(unknown)?;
        let applicant = Applicant {
            grants,
            standing: room.standings.get(&of.user).copied(),
            is_attended: of.is_attended,
        };
        applicant.admission(room.door(&self.limits), self.now)
    }

    fn begin_room(
        &mut self,
        session: SessionKey,
        grants: &RoomGrants,
        join: &RoomJoin,
    ) -> Result<RoomKey, Refusal> {
        let account = self.sessions.get(session).account;
        if !grants.may_create(&join.room) {
            return Err(Refusal::new(
                ErrorCode::UnknownRoom,
                "no such room, and the access token does not allow to begin it",
            ));
        }
        if self.rooms.of_account(account) >= self.limits.rooms_per_account_max as usize {
            return Err(Refusal::new(
                ErrorCode::RoomFull,
                "the account has too many rooms",
            ));
        }

        let key = (account, RoomId::from_parts(self.now, self.rng.wide()));
        let mut settings = RoomSettings::default();
        if let Some(change) = join.settings.clone() {
            change.apply(&mut settings);
        }
        let room = Room::new(join.room.clone(), settings, self.now, &self.limits);
        self.rooms.insert(key, room);
        Ok(key)
    }

    /// Who begins a Room moderates it; an encoder or a guest that was there before all Users does not.
    fn role_of_first(&self, session: SessionKey, key: RoomKey, grants: &RoomGrants) -> Role {
        if self.sessions.get(session).is_attended && !grants.guest {
            return Role::Moderator;
        }
        let settings = self.rooms.get(key).map(|room| room.settings.role);
        grants.role.or(settings).unwrap_or(Role::Speaker)
    }

    /// Hands the offer of who may come in to the SFU.
    fn enter(
        &mut self,
        session: SessionKey,
        command: MessageId,
        key: RoomKey,
        (role, permissions): (Role, Permissions),
        join: RoomJoin,
    ) -> Result<(), Refusal> {
        let id = ParticipantId::from_parts(self.now, self.rng.wide());
        let of = self.sessions.get(session);
        let state = ParticipantState {
            participant: id,
            user: of.user.clone(),
            name: of.name.as_deref().map(str::to_owned),
            role,
            permissions,
            hand_at: None,
            joined_at: self.now,
            phone: None,
            tracks: Vec::new(),
            metadata: join.metadata,
            e2ee: None,
        };
        let is_attended = of.is_attended;
        let is_guest = self.room_grants(session).guest;

        let tracks = track_offers(&mut self.rng, self.now, join.tracks, permissions, None);
        let offer = PendingOffer {
            command,
            generation: join.generation,
            tracks,
            until: self.now + ANSWER_WITHIN,
        };
        let media = MediaOffer {
            generation: offer.generation,
            sdp: join.sdp,
            tracks: offer.tracks.clone(),
        };
        let metadata_len = state.metadata.as_ref().map_or(0, String::len);
        let Some(room) = self.rooms.get_mut(key) else {
            return Ok(());
        };
        if room.metadata_bytes + metadata_len > METADATA_BYTES_MAX {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                "the room has too much metadata",
            ));
        }
        room.metadata_bytes += metadata_len;
        room.empty_since = None;
        let waiting_before = room.waiting.len();
        room.waiting.retain(|knock| knock.session != session);
        let has_waited = room.waiting.len() < waiting_before;
        let person = Person {
            session: Some(session),
            phone: None,
            command,
            state,
            is_guest,
            is_attended,
        };
        room.joining.insert(id, Joining { person, offer });
        let encrypted = room.settings.encrypted;

        self.note_room(session, key.1);
        if has_waited {
            self.tell_lobby(key);
        }
        self.rooms.arm(key);
        self.command_media(
            key,
            MediaCommandKind::Join {
                participant: id,
                permissions,
                encrypted,
                offer: media,
            },
        );
        Ok(())
    }

    fn knock(&mut self, session: SessionKey, command: MessageId, key: RoomKey, is_outcast: bool) {
        let of = self.sessions.get(session);
        let knock = Knock {
            id: ParticipantId::from_parts(self.now, self.rng.wide()),
            session,
            command,
            user: of.user.clone(),
            name: of.name.as_deref().map(str::to_owned),
            at: self.now,
            is_outcast,
        };
        let mut is_news = false;
        if let Some(room) = self.rooms.get_mut(key) {
            let mut waiting = room.waiting.iter_mut();
            match waiting.find(|before| before.session == session) {
                Some(before) => before.command = command, // they keep their place
                None => {
                    room.waiting.push(knock);
                    is_news = true;
                }
            }
        }

        self.note_room(session, key.1);
        self.answer_waiting(session, command, key);
        if is_news {
            self.tell_lobby(key);
        }
    }

    fn answer_waiting(&mut self, session: SessionKey, command: MessageId, key: RoomKey) {
        let waiting = OkData::RoomWaiting {
            waiting: true,
            room: key.1,
        };
        self.answer_room(session, command, waiting);
    }

    pub(super) fn room_grants(&self, session: SessionKey) -> RoomGrants {
        let grants = &self.sessions.get(session).room_grants;
        grants.as_deref().cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn open() -> Door {
        Door {
            locked: false,
            lobby: false,
            role: Role::Speaker,
            is_moderated: true,
            is_full: false,
            is_lobby_full: false,
        }
    }

    fn user() -> RoomGrants {
        RoomGrants::default()
    }

    fn guest() -> RoomGrants {
        RoomGrants {
            guest: true,
            ..user()
        }
    }

    const fn known(role: Role) -> Option<Standing> {
        Some(Standing::Known(role, role.permissions()))
    }

    fn moderator() -> RoomGrants {
        RoomGrants {
            role: Some(Role::Moderator),
            ..user()
        }
    }

    /// `enter <role>`, `wait`, or the code of the refusal.
    fn check(door: Door, grants: &RoomGrants, standing: Option<Standing>, expected: &str) {
        check_for(true, door, grants, standing, expected);
    }

    fn check_for(
        is_attended: bool,
        door: Door,
        grants: &RoomGrants,
        standing: Option<Standing>,
        expected: &str,
    ) {
        let applicant = Applicant {
            grants,
            standing,
            is_attended,
        };
        let got = match applicant.admission(door, NOW) {
            Ok(Admission::Enter(role, permissions)) if permissions == role.permissions() => {
                format!("enter {role:?}").to_lowercase()
            }
            Ok(Admission::Enter(role, _)) => format!("enter {role:?} as before").to_lowercase(),
            Ok(Admission::Wait { .. }) => "wait".to_owned(),
            Err(refusal) => {
                let data: serde_json::Value = serde_json::from_str(&refusal.data()).unwrap();
                data["code"].as_str().unwrap().to_owned()
            }
        };
        assert_eq!(got, expected, "{door:?} {grants:?} {standing:?}");
    }

    #[test]
    fn an_open_door_lets_everybody_in_as_the_settings_say() {
        let webinar = Door {
            role: Role::Listener,
            ..open()
        };

        check(open(), &user(), None, "enter speaker");
        check(open(), &guest(), None, "enter speaker");
        check(webinar, &user(), None, "enter listener");
        check(webinar, &moderator(), None, "enter moderator");
        check(webinar, &user(), known(Role::Speaker), "enter speaker");
        check(
            open(),
            &moderator(),
            known(Role::Listener),
            "enter listener",
        );
    }

    #[test]
    fn who_comes_again_may_do_what_they_might() {
        let silenced = Permissions {
            speak: false,
            ..Role::Speaker.permissions()
        };
        let before = Some(Standing::Known(Role::Speaker, silenced));
        let leaderless = Door {
            is_moderated: false,
            ..open()
        };

        check(open(), &user(), before, "enter speaker as before");
        check(open(), &moderator(), before, "enter speaker as before");
        check(leaderless, &user(), before, "enter moderator");
        check(leaderless, &guest(), before, "enter speaker as before");
    }

    #[test]
    fn the_first_user_moderates_where_nobody_does_and_a_guest_never() {
        let leaderless = Door {
            is_moderated: false,
            ..open()
        };

        check(leaderless, &user(), None, "enter moderator");
        check(leaderless, &guest(), None, "enter speaker");
    }

    #[test]
    fn an_encoder_comes_in_at_once_or_not_at_all_and_moderates_by_its_token_alone() {
        let leaderless = Door {
            is_moderated: false,
            ..open()
        };
        let lobby = Door {
            lobby: true,
            ..open()
        };
        let check = |door, grants: &RoomGrants, standing, expected: &str| {
            check_for(false, door, grants, standing, expected);
        };

        check(leaderless, &user(), None, "enter speaker");
        check(leaderless, &moderator(), None, "enter moderator");
        check(lobby, &user(), None, "enter speaker");
        check(lobby, &guest(), None, "lobby_denied");
        check(open(), &user(), Some(Standing::Outcast), "lobby_denied");
        let locked = Door {
            locked: true,
            ..open()
        };
        let person = known(Role::Moderator);
        check(locked, &user(), None, "room_locked");
        check(locked, &user(), person, "enter speaker");
    }

    #[test]
    fn guests_wait_in_the_lobby_until_they_are_admitted() {
        let lobby = Door {
            lobby: true,
            ..open()
        };
        let full = Door {
            is_lobby_full: true,
            ..lobby
        };
        let denied = |until| Some(Standing::Denied(Timestamp::from_millis(until)));

        check(lobby, &user(), None, "enter speaker");
        check(lobby, &guest(), None, "wait");
        check(lobby, &guest(), Some(Standing::Admitted), "enter speaker");
        check(lobby, &guest(), known(Role::Listener), "enter listener");
        check(lobby, &guest(), denied(1_001), "lobby_denied");
        check(lobby, &guest(), denied(1_000), "wait");
        check(full, &guest(), None, "room_full");
    }

    #[test]
    fn who_was_removed_has_to_be_let_in() {
        check(open(), &user(), Some(Standing::Outcast), "wait");
        check(open(), &moderator(), Some(Standing::Outcast), "wait");
    }

    #[test]
    fn a_locked_room_opens_for_those_who_were_there() {
        let locked = Door {
            locked: true,
            ..open()
        };

        check(locked, &user(), None, "room_locked");
        check(locked, &user(), Some(Standing::Outcast), "room_locked");
        check(locked, &moderator(), None, "enter moderator");
        check(locked, &guest(), known(Role::Speaker), "enter speaker");
    }

    #[test]
    fn a_full_room_is_full_for_everybody() {
        let full = Door {
            is_full: true,
            ..open()
        };

        check(full, &moderator(), None, "room_full");
        check(full, &user(), known(Role::Moderator), "room_full");
    }
}
