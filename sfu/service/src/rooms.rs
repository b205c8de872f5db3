//! The Rooms of a shard, and what signaling asks of them.
//!
//! ```text
//! MediaCommand ──▶ Rooms ──▶ MediaEvent
//!                  │   ▲
//!        sfu_core::Room, one for each; a Peer and a queue for each Participant
//! ```
//!
//! Packets are in [`crate::packets`]; here is who is there, what they agreed on, and what is in their slots.

mod joining;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use foldhash::fast::RandomState;
use model::id::{AccountId, ParticipantId, RoomId, TrackId};
use model::media::{GoneReason, MediaCommand, MediaCommandKind, MediaEventKind};
use rand::RngExt;
use rand::rngs::StdRng;
use sfu_core::{Forward, ParticipantKey, Room as Core, Stats, TrackKey};
use sfu_rtp::rtcp::NtpTime;
use slab::Slab;
use str0m::net::Protocol;

use self::joining::Who;
use crate::bucket::Bucket;
use crate::config::Config;
use crate::data;
use crate::exit::Exit;
use crate::figures::Figures;
use crate::outbox::Outbox;
use crate::outgoing::Way;
use crate::participant::{Owner, Participant, Track};
use crate::peer::{Broken, Identity};
use crate::plain::{Ask, Plain, PlainJoin};
use crate::shared::Shared;
use crate::timers::{Timer, Timers};
use crate::wishes::Wants;

/// A Room.
pub(crate) struct Room {
    pub(crate) account: AccountId,
    pub(crate) id: RoomId,
    pub(crate) core: Core,
    /// Participants by the index of their keys.
    pub(crate) places: Vec<Option<usize>>,
    /// Plain Participants, with their places among those.
    pub(crate) plains: Vec<(ParticipantKey, usize)>,
    /// All of them.
    pub(crate) participants: usize,
    /// In the order in which they came.
    pub(crate) tracks: Vec<Track>,
    /// What may be passed on over data channels.
    pub(crate) deliveries: Bucket,
    /// What the timers remember.
    pub(crate) due: Option<Instant>,
    /// Among those whose core may have something to say.
    pub(crate) is_touched: bool,
    /// What is in the slots has to be thought over.
    pub(crate) is_new: bool,
    /// Participants of whose slots alone that holds.
    pub(crate) renewed: Vec<usize>,
    /// Somebody has to be told what is in their slots.
    pub(crate) has_news: bool,
}

impl Room {
    /// The place of a Participant.
    pub(crate) fn place(&self, key: ParticipantKey) -> Option<usize> {
        self.places.get(key.index()).copied().flatten()
    }

    pub(crate) fn track(&self, key: TrackKey) -> Option<&Track> {
        self.tracks.iter().find(|track| track.key == key)
    }
}

/// All Rooms of a shard.
pub(crate) struct Rooms {
    /// The shard's.
    number: usize,
    pub(crate) config: Arc<Config>,
    pub(crate) shared: Arc<Shared>,
    identity: Identity,
    pub(crate) rng: StdRng,
    /// What absolute send times are counted from.
    pub(crate) started: Instant,
    pub(crate) rooms: Slab<Room>,
    pub(crate) room_by_id: HashMap<RoomId, usize, RandomState>,
    pub(crate) participants: Slab<Participant>,
    participant_by_id: HashMap<ParticipantId, usize, RandomState>,
    pub(crate) participant_by_ufrag: HashMap<String, usize, RandomState>,
    pub(crate) participant_by_way: HashMap<Way, usize, RandomState>,
    pub(crate) plains: Slab<Plain>,
    pub(crate) plain_by_id: HashMap<ParticipantId, usize, RandomState>,
    /// Who waits for plain Participants to join.
    pub(crate) asks: Vec<Ask>,
    /// Wakes the shard for what plain Participants send.
    pub(crate) plain_waker: Waker,
    pub(crate) timers: Timers,
    pub(crate) exit: Exit,
    pub(crate) outbox: Outbox,
    pub(crate) figures: Figures,
    /// What Rooms counted that have ended.
    pub(crate) ended: Stats,
    /// Participants with something to be sent.
    pub(crate) waiting: Vec<usize>,
    /// Participants whom something was told over data channels.
    pub(crate) told: Vec<usize>,
    /// A message as it is passed on; nothing between messages.
    pub(crate) message: Vec<u8>,
    /// Rooms whose core may have something to say.
    pub(crate) touched: Vec<usize>,
    /// What a packet becomes; empty between packets.
    pub(crate) forwards: Vec<Forward>,
    /// The Room that something is done for just now.
    pub(crate) at_work: Option<usize>,
}

impl Rooms {
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another thing a shard has, and one place calls this"
    )]
    pub(crate) fn new(
        number: usize,
        now: Instant,
        config: Arc<Config>,
        shared: Arc<Shared>,
        identity: Identity,
        exit: Exit,
        outbox: Outbox,
        rng: StdRng,
    ) -> Self {
        Self {
            number,
            config,
            shared,
            identity,
            rng,
            started: now,
            rooms: Slab::new(),
            room_by_id: HashMap::default(),
            participants: Slab::new(),
            participant_by_id: HashMap::default(),
            participant_by_ufrag: HashMap::default(),
            participant_by_way: HashMap::default(),
            plains: Slab::new(),
            plain_by_id: HashMap::default(),
            asks: Vec::new(),
            plain_waker: Waker::noop().clone(),
            timers: Timers::default(),
            exit,
            outbox,
            figures: Figures::default(),
            ended: Stats::default(),
            waiting: Vec::new(),
            told: Vec::new(),
            message: Vec::new(),
            touched: Vec::new(),
            forwards: Vec::new(),
            at_work: None,
        }
    }

    /// Does what signaling asks for.
    pub(crate) fn handle_command(&mut self, now: Instant, command: MediaCommand) {
        let MediaCommand {
            account,
            room,
            kind,
        } = command;
        self.at_work = self.room_by_id.get(&room).copied();
        match kind {
            MediaCommandKind::Join {
                participant,
                permissions,
                encrypted,
                offer,
            } => {
                let generation = offer.generation;
                let who = Who {
                    id: participant,
                    permissions,
                    encrypted,
                };
                let joined = self.join(now, account, room, who, &offer);
                self.answer(now, account, room, participant, generation, joined);
            }
            MediaCommandKind::JoinPlain {
                participant,
                permissions,
                encrypted,
                track,
                muted,
            } => {
                let join = PlainJoin {
                    id: participant,
                    permissions,
                    encrypted,
                    track,
                    muted,
                };
                self.join_plain(now, account, room, &join);
            }
            MediaCommandKind::Offer { participant, offer } => {
                let generation = offer.generation;
                let agreed = self.renegotiate(now, room, participant, &offer);
                self.answer(now, account, room, participant, generation, agreed);
            }
            MediaCommandKind::Leave { participant } => {
                if let Some(index) = self.find(room, participant) {
                    self.remove(index);
                } else if let Some(index) = self.find_plain(room, participant) {
                    self.remove_plain(index);
                }
            }
            MediaCommandKind::Permit {
                participant,
                permissions,
            } => {
                if let Some(index) = self.find(room, participant) {
                    self.participants[index].permissions = permissions;
                    self.mute_owned(index);
                } else if let Some(index) = self.find_plain(room, participant) {
                    self.permit_plain(index, permissions);
                }
            }
            MediaCommandKind::Mute { track, muted } => self.mute(room, track, muted),
            MediaCommandKind::Want {
                participant,
                automatic,
                wishes,
            } => {
                if let Some(index) = self.find(room, participant) {
                    self.participants[index].wants = Wants::new(automatic, wishes);
                    self.renew_one(index);
                }
            }
            MediaCommandKind::End => {
                if let Some(at) = self.room_by_id.get(&room).copied() {
                    for (_, index) in self.rooms[at].plains.clone() {
                        self.remove_plain(index);
                    }
                    // It has ended with the last of them, if nobody else is there.
                    let there: Vec<usize> = match self.room_by_id.contains_key(&room) {
                        true => self.rooms[at].places.iter().copied().flatten().collect(),
                        false => Vec::new(),
                    };
                    for index in there {
                        self.remove(index);
                    }
                }
            }
        }
    }

    /// Gives a Participant up and tells why.
    pub(crate) fn give_up(&mut self, index: usize, reason: GoneReason) {
        let Some(participant) = self.participants.get(index) else {
            return;
        };
        let (id, room) = (participant.id, &self.rooms[participant.room]);
        let kind = MediaEventKind::Gone {
            participant: id,
            reason,
        };
        self.outbox.push(room.account, room.id, kind);
        self.figures.give_up(reason);
        tracing::info!(participant = %id, ?reason, "Participant given up");
        self.remove(index);
    }

    /// Gives a Participant up whose Peer is broken.
    pub(crate) fn break_off(&mut self, index: usize, broken: Broken) {
        let reason = match broken {
            Broken::Panicked => {
                self.figures.panics += 1;
                GoneReason::Failed
            }
            Broken::Dtls => GoneReason::DtlsFailed,
        };
        self.give_up(index, reason);
    }

    /// Has the core's words heard at the end of the turn.
    pub(crate) fn touch(&mut self, at: usize) {
        if let Some(room) = self.rooms.get_mut(at)
            && !room.is_touched
        {
            room.is_touched = true;
            self.touched.push(at);
        }
    }

    /// Has what is in the slots thought over at the end of the turn.
    pub(crate) fn renew(&mut self, at: usize) {
        self.touch(at);
        if let Some(room) = self.rooms.get_mut(at) {
            room.is_new = true;
        }
    }

    /// Has what is in the slots of one Participant thought over at the end of the turn: what they want is nobody else's business.
    fn renew_one(&mut self, index: usize) {
        let Some(participant) = self.participants.get_mut(index) else {
            return;
        };
        let at = participant.room;
        if !std::mem::replace(&mut participant.is_renewed, true)
            && let Some(room) = self.rooms.get_mut(at)
        {
            room.renewed.push(index);
        }
        self.touch(at);
    }

    /// Has what is queued for a Participant sent at the end of the turn.
    pub(crate) fn wait(&mut self, index: usize) {
        if let Some(participant) = self.participants.get_mut(index)
            && !participant.is_waiting
        {
            participant.is_waiting = true;
            self.waiting.push(index);
        }
    }

    /// What a Peer can be reached at.
    fn addresses(&self) -> Vec<(Protocol, SocketAddr)> {
        let udp = self
            .exit
            .addresses()
            .map(|address| (Protocol::Udp, address));
        let tcp = match self.config.tcp {
            true => self.shared.tcp_addresses(),
            false => Vec::new(),
        };
        udp.chain(tcp.into_iter().map(|address| (Protocol::Tcp, address)))
            .collect()
    }

    /// Which of them a datagram came to.
    pub(crate) fn address_of(&self, way: Way) -> Option<(Protocol, SocketAddr)> {
        if let Some(address) = self.exit.public(way) {
            return Some((Protocol::Udp, address));
        }
        let known = self.shared.tcp_addresses();
        let is_family = |address: &&SocketAddr| address.is_ipv4() == way.to.is_ipv4();
        let address = known.iter().find(is_family).or(known.first())?;
        Some((Protocol::Tcp, *address))
    }

    /// The place of a Participant of the Room at `at`.
    pub(crate) fn find_in(&self, at: usize, id: ParticipantId) -> Option<usize> {
        let index = *self.participant_by_id.get(&id)?;
        (self.participants[index].room == at).then_some(index)
    }

    fn find(&self, room: RoomId, participant: ParticipantId) -> Option<usize> {
        let index = *self.participant_by_id.get(&participant)?;
        (self.rooms[self.participants[index].room].id == room).then_some(index)
    }

    /// Begins a Room, if there may be one more.
    pub(crate) fn open(&mut self, now: Instant, account: AccountId, id: RoomId) -> Option<usize> {
        if !Shared::take(&self.shared.rooms, self.config.rooms_max) {
            return None;
        }
        let at = self.rooms.insert(Room {
            account,
            id,
            core: Core::new(now, wall_clock()),
            places: Vec::new(),
            plains: Vec::new(),
            participants: 0,
            tracks: Vec::new(),
            deliveries: data::deliveries(now),
            due: None,
            is_touched: false,
            is_new: false,
            renewed: Vec::new(),
            has_news: false,
        });
        self.room_by_id.insert(id, at);
        Some(at)
    }

    /// Lets a Participant go, and the Room with the last.
    fn remove(&mut self, index: usize) {
        let Some(mut participant) = self.forget(index) else {
            return;
        };
        // Says goodbye where that is still possible.
        if participant.peer.close().is_ok() {
            let (exit, media) = (&mut self.exit, participant.way);
            participant
                .peer
                .poll(|transmit| exit.transmit(transmit, media, None))
                .ok();
        }
        for way in participant.ways.drain(..) {
            self.exit.close_way(way);
        }
        let at = participant.room;
        let room = &mut self.rooms[at];
        room.core.leave(participant.key);
        room.places[participant.key.index()] = None;
        room.tracks
            .retain(|track| track.owner != Owner::Peer(index));
        room.participants -= 1;
        self.renew(at);
        self.close_if_empty(at);
    }

    /// Takes a Participant out of all but their Room.
    fn forget(&mut self, index: usize) -> Option<Participant> {
        let mut participant = self.participants.try_remove(index)?;
        self.timers
            .set(Timer::Participant(index), &mut participant.due, None);
        self.shared.participants.fetch_sub(1, Ordering::Relaxed);
        self.participant_by_id.remove(&participant.id);
        self.participant_by_ufrag.remove(&participant.ufrag);
        for way in &participant.ways {
            self.participant_by_way.remove(way);
        }
        self.shared.leave(&participant.ufrag);
        Some(participant)
    }

    /// Forgets a stream that has ended.
    pub(crate) fn close_stream(&mut self, number: usize) {
        if let Some(way) = self.exit.way_of_stream(number)
            && let Some(index) = self.participant_by_way.remove(&way)
            && let Some(participant) = self.participants.get_mut(index)
        {
            participant.ways.retain(|known| *known != way);
            participant.way = participant.way.filter(|known| *known != way);
            self.wait(index);
        }
        self.exit.close_stream(number);
    }

    /// Goes on after a fault of ours: the Room it happened in ends without another word of its core, all else is looked at anew.
    pub(crate) fn recover(&mut self, now: Instant) {
        self.figures.panics += 1;
        self.forwards.clear();
        if let Some(at) = self.at_work.take()
            && let Some(room) = self.rooms.get(at)
        {
            tracing::error!(room = %room.id, "Room ended by a fault of the SFU");
            self.fail_plain(now, at);
            for index in self.rooms[at].places.clone().into_iter().flatten() {
                if let Some(participant) = self.forget(index) {
                    for way in &participant.ways {
                        self.exit.close_way(*way);
                    }
                    let room = &mut self.rooms[at];
                    room.participants -= 1;
                    let kind = MediaEventKind::Gone {
                        participant: participant.id,
                        reason: GoneReason::Failed,
                    };
                    self.outbox.push(room.account, room.id, kind);
                    self.figures.give_up(GoneReason::Failed);
                }
            }
            self.close_if_empty(at);
        }
        self.waiting.clear();
        self.told.clear();
        self.touched.clear();
        for (index, participant) in &mut self.participants {
            participant.is_waiting = true;
            self.waiting.push(index);
            participant.is_told = true;
            self.told.push(index);
            self.timers
                .set(Timer::Participant(index), &mut participant.due, Some(now));
        }
        for (at, room) in &mut self.rooms {
            room.is_touched = true;
            self.touched.push(at);
            self.timers.set(Timer::Room(at), &mut room.due, Some(now));
        }
    }

    pub(crate) fn close_if_empty(&mut self, at: usize) {
        if self
            .rooms
            .get(at)
            .is_some_and(|room| room.participants == 0)
        {
            let mut room = self.rooms.remove(at);
            self.ended.add(room.core.stats());
            self.timers.set(Timer::Room(at), &mut room.due, None);
            self.room_by_id.remove(&room.id);
            self.shared.rooms.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn mute(&mut self, room: RoomId, track: TrackId, muted: bool) {
        let Some(at) = self.room_by_id.get(&room).copied() else {
            return;
        };
        let tracks = &mut self.rooms[at].tracks;
        if let Some(track) = tracks.iter_mut().find(|known| known.id == track) {
            track.is_muted = muted;
            let owner = track.owner;
            let permissions = match owner {
                Owner::Peer(index) => self.participants[index].permissions,
                Owner::Plain(index) => self.plains[index].permissions,
            };
            self.mute_tracks(at, owner, permissions);
        }
    }
}

pub(crate) fn cname(rng: &mut StdRng) -> String {
    format!("{:016x}", rng.random::<u64>())
}

fn wall_clock() -> NtpTime {
    NtpTime::from_unix(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO),
    )
}
