//! Rooms: who is in, what they may do, and what they are told. What reaches whom is the SFU's business.
//!
//! ```text
//! room.join ─▶ admission ─▶ joining ── MediaCommand::Join ──▶ SFU
//!                  │           ▲  ◀──────── Answered ────────
//!                  ▼           │           │
//!               waiting ─ room.join again  ▼
//!             (the lobby)               present ─▶ everybody hears of it
//! ```
//!
//! A Room lives from its first `room.join` until nobody has been in it for a minute, in memory alone: after a crash its
//! Participants join again by its name, and what was written there is gone.

mod admission;
mod commands;
mod encryption;
mod leaving;
mod media;
mod moderation;
mod offers;
mod phones;
mod talk;
mod tell;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::media::{ConnectionQuality, Slot, TrackOffer};
use model::room::{ParticipantState, RoomSettings, RoomState};
use model::{
    AccountId, CallId, MessageId, Millis, ParticipantId, Permissions, Role, RoomId, RoomName,
    Timestamp, TrackId, UserId,
};
use signaling_wire::room::ChatMessage;

use crate::bucket::Bucket;
use crate::limits::Limits;
use crate::sessions::SessionKey;
use crate::signaling::Signaling;
use crate::timers::{Armed, Timers};
use admission::Standing;
pub(crate) use phones::{DialIn, NewPhone};
use upgrade::GoingBack;

/// How long a Room without Participants is kept.
const EMPTY_KEPT: Millis = Millis::from_secs(60);
/// How many Participants are told at once to who joins; the rest comes by `room.list`.
const PAGE_LEN: usize = 100;
/// How many command ids a Participant remembers.
const DONE_MAX: usize = 16;

/// A Room is known within its Account alone.
pub(crate) type RoomKey = (AccountId, RoomId);

/// All Rooms of this core.
pub(crate) struct Rooms {
    by_key: BTreeMap<RoomKey, Room>,
    by_name: BTreeMap<AccountId, BTreeMap<RoomName, RoomId>>,
    pub(crate) timers: Timers<RoomKey>,
    /// Whether there is an SFU.
    is_media_available: bool,
}

/// A Room.
pub(crate) struct Room {
    name: RoomName,
    settings: RoomSettings,
    created_at: Timestamp,
    /// Who is here. The ids are made when somebody joins, so this is the order in which they did.
    pub(crate) participants: BTreeMap<ParticipantId, Participant>,
    /// The same by Session: a Session is in a Room once.
    by_session: BTreeMap<SessionKey, ParticipantId>,
    /// Whose offer the SFU has not answered yet.
    joining: BTreeMap<ParticipantId, Joining>,
    /// Who waits in the lobby, the longest first.
    pub(crate) waiting: Vec<Knock>,
    /// What is remembered of Users who were here, or knocked.
    standings: BTreeMap<UserId, Standing>,
    /// Whose Track it is.
    owners: BTreeMap<TrackId, ParticipantId>,
    /// What was written to everybody, as far as it is kept.
    chat: VecDeque<ChatMessage>,
    chat_bytes: usize,
    /// How long the metadata of all Participants is together.
    metadata_bytes: usize,
    /// What all Participants together may tell everybody, in bytes.
    told: Bucket,
    /// Who speaks, the loudest first.
    speakers: Vec<ParticipantId>,
    /// Whether more than two have been here at once, since two tried to go on as a Call last.
    was_crowd: bool,
    /// The Call in which the two who are left want to go on.
    going_back: Option<GoingBack>,
    /// Whether it was made for a phone call, and ends with it.
    is_of_call: bool,
    /// Phones may be here without people: they have a PIN by which they may begin it.
    is_of_phones: bool,
    /// Since when nobody is here or joins.
    empty_since: Option<Timestamp>,
    armed: Armed,
}

/// Somebody who joins or is here.
struct Person {
    /// `None` of a phone.
    session: Option<SessionKey>,
    /// The phone call, of a phone.
    phone: Option<CallId>,
    /// The `room.join` that brought them.
    command: MessageId,
    state: ParticipantState,
    is_guest: bool,
    /// Whether a person is there.
    is_attended: bool,
}

/// Somebody whose first offer is with the SFU.
struct Joining {
    person: Person,
    offer: PendingOffer,
}

/// Somebody in a Room.
pub(crate) struct Participant {
    person: Person,
    /// Which section is which Track.
    sections: Vec<(String, TrackId)>,
    /// The newest offer the SFU took.
    answered: Answered,
    /// A newer one that is with the SFU.
    pending: Option<PendingOffer>,
    slots: Vec<Slot>,
    /// How many audio and video slots there should be.
    slots_wanted: (u16, u16),
    quality: Option<ConnectionQuality>,
    /// The newest commands and what they were answered, the oldest first.
    done: VecDeque<(MessageId, Box<str>)>,
    /// What they may tell all others.
    events: Bucket,
}

/// An offer that is with the SFU.
struct PendingOffer {
    command: MessageId,
    generation: u32,
    tracks: Vec<TrackOffer>,
    until: Timestamp,
}

/// An offer the SFU took, with its answer.
struct Answered {
    command: MessageId,
    generation: u32,
    sdp: String,
}

/// Somebody in the lobby.
pub(crate) struct Knock {
    /// Names them for `room.admit`.
    id: ParticipantId,
    session: SessionKey,
    command: MessageId,
    user: UserId,
    name: Option<String>,
    at: Timestamp,
    /// Whether they wait although no guest has to: a moderator has removed them before.
    is_outcast: bool,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_name: BTreeMap::new(),
            timers: Timers::new(),
            is_media_available: false,
        }
    }
}

impl Rooms {
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Room> {
        self.by_key.values()
    }

    /// Whether there is an SFU.
    pub(crate) fn is_media_available(&self) -> bool {
        self.is_media_available
    }

    fn get(&self, key: RoomKey) -> Option<&Room> {
        self.by_key.get(&key)
    }

    fn get_mut(&mut self, key: RoomKey) -> Option<&mut Room> {
        self.by_key.get_mut(&key)
    }

    fn named(&self, account: AccountId, name: &RoomName) -> Option<RoomKey> {
        let room = self.by_name.get(&account)?.get(name)?;
        Some((account, *room))
    }

    fn of_account(&self, account: AccountId) -> usize {
        self.by_name.get(&account).map_or(0, BTreeMap::len)
    }

    fn insert(&mut self, key: RoomKey, room: Room) {
        let names = self.by_name.entry(key.0).or_default();
        names.insert(room.name.clone(), key.1);
        self.by_key.insert(key, room);
    }

    fn remove(&mut self, key: RoomKey) -> Option<Room> {
        let mut room = self.by_key.remove(&key)?;
        self.timers.disarm(key, &mut room.armed);

        if let Some(names) = self.by_name.get_mut(&key.0) {
            names.remove(&room.name);
            if names.is_empty() {
                self.by_name.remove(&key.0);
            }
        }
        Some(room)
    }

    /// Wakes the Room when it next needs attention.
    fn arm(&mut self, key: RoomKey) {
        let Some(room) = self.by_key.get_mut(&key) else {
            return;
        };
        if let Some(at) = room.deadline() {
            self.timers.arm(key, &mut room.armed, at);
        }
    }
}

impl Room {
    fn new(name: RoomName, settings: RoomSettings, now: Timestamp, limits: &Limits) -> Self {
        Self {
            name,
            settings,
            created_at: now,
            participants: BTreeMap::new(),
            by_session: BTreeMap::new(),
            joining: BTreeMap::new(),
            waiting: Vec::new(),
            standings: BTreeMap::new(),
            owners: BTreeMap::new(),
            chat: VecDeque::new(),
            chat_bytes: 0,
            metadata_bytes: 0,
            told: Bucket::full(now, limits.room_bytes_burst),
            speakers: Vec::new(),
            was_crowd: false,
            going_back: None,
            is_of_call: false,
            is_of_phones: false,
            empty_since: None,
            armed: Armed::default(),
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        let ends_at = self.empty_since.map(|since| since + EMPTY_KEPT);
        let joining = self.joining.values().map(|joining| joining.offer.until);
        let pending = self
            .participants
            .values()
            .filter_map(|participant| participant.pending.as_ref())
            .map(|offer| offer.until);
        let back = self.going_back.as_ref().map(|back| back.until);
        joining.chain(pending).chain(ends_at).chain(back).min()
    }

    /// The Room for who joins it: its first Participants, and the last of them when there are more.
    fn state(&self, room: RoomId) -> (RoomState, Option<ParticipantId>) {
        let (participants, next) = self.page(None);
        let state = RoomState {
            room,
            name: self.name.clone(),
            settings: self.settings.clone(),
            created_at: self.created_at,
            participants,
        };
        (state, next)
    }

    /// The Participants after one, at most [`PAGE_LEN`], and the last of them when there are more.
    fn page(&self, after: Option<ParticipantId>) -> (Vec<ParticipantState>, Option<ParticipantId>) {
        use std::ops::Bound::{Excluded, Unbounded};

        let from = after.map_or(Unbounded, Excluded);
        let mut rest = self.participants.range((from, Unbounded));
        let page: Vec<_> = rest
            .by_ref()
            .take(PAGE_LEN)
            .map(|(_, participant)| participant.person.state.clone())
            .collect();
        let last = page.last().map(|state| state.participant);
        (page, last.filter(|_| rest.next().is_some()))
    }

    /// The Participant of a Session.
    fn of_session(&self, session: SessionKey) -> Option<ParticipantId> {
        self.by_session.get(&session).copied()
    }

    fn moderators(&self) -> impl Iterator<Item = (ParticipantId, SessionKey)> {
        let moderates = |(_, one): &(&ParticipantId, &Participant)| one.permissions().moderate;
        self.participants
            .iter()
            .filter(moderates)
            .filter_map(|(id, one)| Some((*id, one.person.session?)))
    }

    /// Whether somebody here moderates, or will once the SFU has answered.
    fn is_moderated(&self) -> bool {
        let joining = self.joining.values().map(|joining| &joining.person.state);
        self.moderators().next().is_some()
            || joining.into_iter().any(|state| state.permissions.moderate)
    }

    /// How many are here or join.
    fn people(&self) -> usize {
        self.participants.len() + self.joining.len()
    }

    /// The same without phones.
    fn persons(&self) -> usize {
        self.by_session.len() + self.joining.len()
    }

    /// Whether somebody has ever been here.
    fn has_begun(&self) -> bool {
        !self.participants.is_empty() || !self.standings.is_empty()
    }
}

impl Person {
    /// Whether they come to moderate where nobody else does.
    const fn may_inherit(&self) -> bool {
        self.is_attended && !self.is_guest
    }

    /// What the Room remembers of them when they leave. An encoder may have the name of a person, whose role is none of its own.
    const fn standing(&self) -> Standing {
        match self.is_attended {
            true => Standing::Known(self.state.role, self.state.permissions),
            false => Standing::Admitted,
        }
    }
}

impl Participant {
    fn permissions(&self) -> Permissions {
        self.person.state.permissions
    }

    /// What the SFU and everybody else know of the Participant's Track.
    fn track_mut(&mut self, track: TrackId) -> Option<&mut model::room::TrackState> {
        let tracks = &mut self.person.state.tracks;
        tracks.iter_mut().find(|state| state.track == track)
    }

    fn answer_to(&self, command: MessageId) -> Option<&str> {
        let done = self.done.iter().find(|(id, _)| *id == command);
        done.map(|(_, data)| data.as_ref())
    }

    fn remember(&mut self, command: MessageId, data: &str) {
        if self.done.len() == DONE_MAX {
            self.done.pop_front();
        }
        self.done.push_back((command, data.into()));
    }

    /// Takes a role and what it allows; tells which Tracks fall silent by it.
    fn become_role(&mut self, role: Role, permissions: Permissions) -> Vec<TrackId> {
        let state = &mut self.person.state;
        (state.role, state.permissions) = (role, permissions);

        let forbidden = state
            .tracks
            .iter_mut()
            .filter(|track| !track.muted && !permissions.may_send(track.source));
        let silenced = forbidden.map(|track| {
            track.muted = true;
            track.track
        });
        silenced.collect()
    }
}

impl Signaling {
    /// Notes that a Session has to do with a Room, so that its end is told there.
    fn note_room(&mut self, session: SessionKey, room: RoomId) {
        let rooms = &mut self.sessions.get_mut(session).rooms;
        if !rooms.contains(&room) {
            rooms.push(room);
        }
    }

    /// The other way round, unless the Session still has to do with it.
    fn forget_room(&mut self, session: impl Into<Option<SessionKey>>, key: RoomKey) {
        let Some(session) = session.into() else {
            return;
        };
        let is_there = self.rooms.get(key).is_some_and(|room| {
            room.of_session(session).is_some()
                || room
                    .joining
                    .values()
                    .any(|one| one.person.session == Some(session))
                || room.waiting.iter().any(|knock| knock.session == session)
        });
        if !is_there {
            let rooms = &mut self.sessions.get_mut(session).rooms;
            rooms.retain(|room| *room != key.1);
        }
    }

    fn rooms_of(&self, session: SessionKey) -> BTreeSet<RoomKey> {
        let session = self.sessions.get(session);
        let keys = session.rooms.iter().map(|room| (session.account, *room));
        keys.collect()
    }
}
