//! The Rooms of a shard, and what signaling asks of them.
//!
//! ```text
//! MediaCommand ──▶ Rooms ──▶ MediaEvent
//!                  │   ▲
//!        sfu_core::Room, one for each; a Peer and a queue for each Participant
//! ```
//!
//! Packets are in [`crate::packets`]; here is who is there, what they agreed on, and what is in their slots.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use foldhash::fast::RandomState;
use model::id::{AccountId, ParticipantId, RoomId, TrackId};
use model::media::{
    GoneReason, LayerWanted, MediaCommand, MediaCommandKind, MediaEventKind, MediaOffer,
    MediaRefusal, Slot, TrackOffer,
};
use model::room::Permissions;
use rand::RngExt;
use rand::rngs::StdRng;
use sfu_core::{
    Bitrate, Forward, Output, ParticipantConfig, ParticipantKey, Room as Core, SlotConfig,
    TrackConfig, TrackKey,
};
use sfu_rtp::rtcp::NtpTime;
use slab::Slab;

use crate::config::Config;
use crate::exit::Exit;
use crate::figures::Figures;
use crate::outbox::Outbox;
use crate::outgoing::Way;
use crate::participant::{Bitrates, Newcomer, Participant, Section, Track};
use crate::peer::{Agreed, AgreedSection, Broken, Identity, Peer};
use crate::sdp::{self, Offer};
use crate::timers::{Timer, Timers};
use crate::wishes::{self, Offered, Wants};

/// The most wishes of a Participant; one for each Track of a full Room is more than anybody sees.
const WISHES_MAX: usize = 1024;

/// How many audio slots there are at most: nobody can follow more voices at once.
const AUDIO_SLOTS_WANTED_MAX: usize = 6;

/// How many video slots are asked for at most: a gallery of 7 by 7.
const VIDEO_SLOTS_WANTED_MAX: usize = 49;

/// What all shards count together.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) rooms: AtomicUsize,
    pub(crate) participants: AtomicUsize,
    pub(crate) is_draining: AtomicBool,
}

impl Shared {
    /// Takes one of `max` places.
    fn take(places: &AtomicUsize, max: usize) -> bool {
        let add = |taken: usize| (taken < max).then_some(taken + 1);
        places
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
    }
}

/// A Room.
pub(crate) struct Room {
    pub(crate) account: AccountId,
    pub(crate) id: RoomId,
    pub(crate) core: Core,
    /// Participants by the index of their keys.
    pub(crate) places: Vec<Option<usize>>,
    pub(crate) participants: usize,
    /// In the order in which they came.
    pub(crate) tracks: Vec<Track>,
    /// What the timers remember.
    pub(crate) due: Option<Instant>,
    /// Among those whose core may have something to say.
    pub(crate) is_touched: bool,
    /// What is in the slots has to be thought over.
    pub(crate) is_new: bool,
    /// Somebody has to be told what is in their slots.
    has_news: bool,
}

impl Room {
    /// The place of a Participant.
    pub(crate) fn place(&self, key: ParticipantKey) -> Option<usize> {
        self.places.get(key.index()).copied().flatten()
    }

    fn track(&self, key: TrackKey) -> Option<&Track> {
        self.tracks.iter().find(|track| track.key == key)
    }
}

/// All Rooms of a shard.
pub(crate) struct Rooms {
    pub(crate) config: Arc<Config>,
    shared: Arc<Shared>,
    identity: Identity,
    rng: StdRng,
    /// What absolute send times are counted from.
    pub(crate) started: Instant,
    pub(crate) rooms: Slab<Room>,
    room_by_id: HashMap<RoomId, usize, RandomState>,
    pub(crate) participants: Slab<Participant>,
    participant_by_id: HashMap<ParticipantId, usize, RandomState>,
    pub(crate) participant_by_ufrag: HashMap<String, usize, RandomState>,
    pub(crate) participant_by_way: HashMap<Way, usize, RandomState>,
    pub(crate) timers: Timers,
    pub(crate) exit: Exit,
    pub(crate) outbox: Outbox,
    pub(crate) figures: Figures,
    /// Participants with something to be sent.
    pub(crate) waiting: Vec<usize>,
    /// Rooms whose core may have something to say.
    pub(crate) touched: Vec<usize>,
    /// What a packet becomes; empty between packets.
    pub(crate) forwards: Vec<Forward>,
}

impl Rooms {
    pub(crate) fn new(
        now: Instant,
        config: Arc<Config>,
        shared: Arc<Shared>,
        identity: Identity,
        exit: Exit,
        outbox: Outbox,
        rng: StdRng,
    ) -> Self {
        Self {
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
            timers: Timers::default(),
            exit,
            outbox,
            figures: Figures::default(),
            waiting: Vec::new(),
            touched: Vec::new(),
            forwards: Vec::new(),
        }
    }

    /// Does what signaling asks for.
    pub(crate) fn handle_command(&mut self, now: Instant, command: MediaCommand) {
        let MediaCommand {
            account,
            room,
            kind,
        } = command;
        match kind {
            MediaCommandKind::Join {
                participant,
                permissions,
                offer,
            } => {
                let generation = offer.generation;
                let joined = self.join(now, account, room, participant, permissions, &offer);
                self.answer(now, account, room, participant, generation, joined);
            }
            MediaCommandKind::Offer { participant, offer } => {
                let generation = offer.generation;
                let agreed = self.renegotiate(now, room, participant, &offer);
                self.answer(now, account, room, participant, generation, agreed);
            }
            MediaCommandKind::Leave { participant } => {
                if let Some(index) = self.find(room, participant) {
                    self.remove(index);
                }
            }
            MediaCommandKind::Permit {
                participant,
                permissions,
            } => {
                if let Some(index) = self.find(room, participant) {
                    self.participants[index].permissions = permissions;
                    self.mute_owned(index);
                }
            }
            MediaCommandKind::Mute { track, muted } => self.mute(room, track, muted),
            MediaCommandKind::Want {
                participant,
                automatic,
                mut wishes,
            } => {
                if let Some(index) = self.find(room, participant) {
                    wishes.truncate(WISHES_MAX);
                    self.participants[index].wants = Wants { automatic, wishes };
                    self.renew(self.participants[index].room);
                }
            }
            MediaCommandKind::End => {
                if let Some(at) = self.room_by_id.get(&room).copied() {
                    let there: Vec<usize> =
                        self.rooms[at].places.iter().copied().flatten().collect();
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

    /// Has what is queued for a Participant sent at the end of the turn.
    pub(crate) fn wait(&mut self, index: usize) {
        if let Some(participant) = self.participants.get_mut(index)
            && !participant.is_waiting
        {
            participant.is_waiting = true;
            self.waiting.push(index);
        }
    }

    fn find(&self, room: RoomId, participant: ParticipantId) -> Option<usize> {
        let index = *self.participant_by_id.get(&participant)?;
        (self.rooms[self.participants[index].room].id == room).then_some(index)
    }

    fn join(
        &mut self,
        now: Instant,
        account: AccountId,
        room: RoomId,
        id: ParticipantId,
        permissions: Permissions,
        offered: &MediaOffer,
    ) -> Result<(usize, String), MediaRefusal> {
        let offer = Offer::read(&offered.sdp)?;
        if let Some(index) = self.participant_by_id.get(&id).copied() {
            self.remove(index); // They begin anew.
        }
        let at = self.room_by_id.get(&room).copied();
        let there = at.map_or(0, |at| self.rooms[at].participants);
        let is_new_and_draining = at.is_none() && self.shared.is_draining.load(Ordering::Relaxed);
        if there >= self.config.participants_per_room_max || is_new_and_draining {
            return Err(MediaRefusal::Full);
        }
        let addresses = self.exit.addresses();
        let fault = |broken: Broken| {
            tracing::warn!(?broken, "Offer not carried out");
            MediaRefusal::BadSdp
        };
        let peer = Peer::new(now, &self.identity, &addresses, &offer);
        let mut peer = peer.map_err(|broken| self.count(broken)).map_err(fault)?;
        let agreed = peer.accept(&offer, |section| is_refused(section, &offered.tracks));
        let agreed = agreed.map_err(|error| match error {
            Ok(refusal) => refusal,
            Err(broken) => fault(self.count(broken)),
        })?;

        if !Shared::take(&self.shared.participants, self.config.participants_max) {
            return Err(MediaRefusal::Full);
        }
        let Some(at) = at.or_else(|| self.open(now, account, room)) else {
            self.shared.participants.fetch_sub(1, Ordering::Relaxed);
            return Err(MediaRefusal::Full);
        };
        let ssrc = self.rng.random();
        let key = self.rooms[at].core.join(
            now,
            ParticipantConfig {
                extensions: agreed.extensions,
                reduced_size_rtcp: false,
                cname: cname(&mut self.rng),
                ssrc,
            },
        );
        let Ok(key) = key else {
            self.shared.participants.fetch_sub(1, Ordering::Relaxed);
            self.close_if_empty(at);
            return Err(MediaRefusal::Full);
        };
        let newcomer = Newcomer {
            id,
            room: at,
            key,
            peer,
            permissions,
            generation: offered.generation,
            ssrc,
            bitrates: Bitrates {
                up: Bitrate::kbps(self.config.bitrate_in_max_kbps.into()),
                down: Bitrate::kbps(self.config.bitrate_out_max_kbps.into()),
            },
        };
        let index = self
            .participants
            .insert(Participant::new(now, newcomer, &agreed));
        self.participant_by_id.insert(id, index);
        self.participant_by_ufrag
            .insert(agreed.ufrag.clone(), index);
        let room = &mut self.rooms[at];
        room.participants += 1;
        if room.places.len() <= key.index() {
            room.places.resize(key.index() + 1, None);
        }
        room.places[key.index()] = Some(index);
        self.apply(now, index, &agreed, &offered.tracks);
        self.wait(index);
        Ok((index, agreed.answer))
    }

    fn renegotiate(
        &mut self,
        now: Instant,
        room: RoomId,
        id: ParticipantId,
        offered: &MediaOffer,
    ) -> Result<(usize, String), MediaRefusal> {
        let index = self
            .find(room, id)
            .ok_or(MediaRefusal::UnknownParticipant)?;
        let participant = &mut self.participants[index];
        if offered.generation <= participant.generation {
            return Err(MediaRefusal::StaleGeneration);
        }
        let offer = Offer::read(&offered.sdp)?;
        let agreed = participant
            .peer
            .accept(&offer, |section| is_refused(section, &offered.tracks));
        let agreed = match agreed {
            Ok(agreed) => agreed,
            Err(Ok(refusal)) => return Err(refusal),
            Err(Err(broken)) => {
                self.break_off(index, broken);
                return Err(MediaRefusal::BadSdp);
            }
        };
        participant.generation = offered.generation;
        if participant.ufrag != agreed.ufrag {
            self.participant_by_ufrag.remove(&participant.ufrag);
            self.participant_by_ufrag
                .insert(agreed.ufrag.clone(), index);
        }
        participant.follow(now, &agreed);
        let (at, key) = (participant.room, participant.key);
        self.rooms[at].core.set_extensions(key, agreed.extensions);
        self.apply(now, index, &agreed, &offered.tracks);
        self.wait(index);
        Ok((index, agreed.answer))
    }

    fn count(&mut self, broken: Broken) -> Broken {
        self.figures.panics += u64::from(broken == Broken::Panicked);
        broken
    }

    /// Begins a Room, if there may be one more.
    fn open(&mut self, now: Instant, account: AccountId, id: RoomId) -> Option<usize> {
        if !Shared::take(&self.shared.rooms, self.config.rooms_max) {
            return None;
        }
        let at = self.rooms.insert(Room {
            account,
            id,
            core: Core::new(now, wall_clock()),
            places: Vec::new(),
            participants: 0,
            tracks: Vec::new(),
            due: None,
            is_touched: false,
            is_new: false,
            has_news: false,
        });
        self.room_by_id.insert(id, at);
        Some(at)
    }

    /// Lets a Participant go, and the Room with the last.
    fn remove(&mut self, index: usize) {
        let Some(mut participant) = self.participants.try_remove(index) else {
            return;
        };
        // Says goodbye where that is still possible.
        if participant.peer.close().is_ok() {
            let (exit, media) = (&mut self.exit, participant.way);
            participant
                .peer
                .poll(|transmit| exit.transmit(transmit, media))
                .ok();
        }
        self.timers
            .set(Timer::Participant(index), &mut participant.due, None);
        self.shared.participants.fetch_sub(1, Ordering::Relaxed);
        self.participant_by_id.remove(&participant.id);
        self.participant_by_ufrag.remove(&participant.ufrag);
        for way in &participant.ways {
            self.participant_by_way.remove(way);
        }
        let at = participant.room;
        let room = &mut self.rooms[at];
        room.core.leave(participant.key);
        room.places[participant.key.index()] = None;
        room.tracks.retain(|track| track.owner != index);
        room.participants -= 1;
        self.renew(at);
        self.close_if_empty(at);
    }

    fn close_if_empty(&mut self, at: usize) {
        if self
            .rooms
            .get(at)
            .is_some_and(|room| room.participants == 0)
        {
            let mut room = self.rooms.remove(at);
            self.timers.set(Timer::Room(at), &mut room.due, None);
            self.room_by_id.remove(&room.id);
            self.shared.rooms.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Makes Tracks and slots of what was agreed on.
    fn apply(&mut self, now: Instant, index: usize, agreed: &Agreed, tracks: &[TrackOffer]) {
        for agreed in &agreed.sections {
            let sections = &mut self.participants[index].sections;
            let known = sections
                .iter()
                .position(|section| section.mid == agreed.mid);
            let at = known.unwrap_or_else(|| {
                sections.push(Section {
                    mid: agreed.mid.clone(),
                    is_audio: agreed.is_audio,
                    track: None,
                    slot: None,
                    is_news: false,
                });
                sections.len() - 1
            });
            let offered = tracks.iter().find(|track| track.mid == agreed.mid);
            let offered =
                offered.filter(|track| agreed.sends && track.source.is_audio() == agreed.is_audio);
            self.apply_track(index, at, agreed, offered);
            self.apply_slot(now, index, at, agreed);
        }
        self.mute_owned(index);
        self.renew(self.participants[index].room);
    }

    fn apply_track(
        &mut self,
        index: usize,
        at: usize,
        agreed: &AgreedSection,
        offered: Option<&TrackOffer>,
    ) {
        let participant = &mut self.participants[index];
        let room = &mut self.rooms[participant.room];
        let section = &mut participant.sections[at];
        if let Some((id, key)) = section.track
            && offered.is_none_or(|offered| offered.track != id)
        {
            room.core.unpublish(key);
            room.tracks.retain(|track| track.key != key);
            section.track = None;
        }
        let Some(offered) = offered else {
            return;
        };
        if let Some((id, _)) = section.track {
            if let Some(track) = room.tracks.iter_mut().find(|track| track.id == id) {
                track.is_muted = offered.muted;
            }
            return;
        }
        let published = room.core.publish(
            participant.key,
            TrackConfig {
                source: offered.source,
                mid: Some(agreed.mid.clone()),
                formats: agreed.formats.clone(),
                encodings: agreed.encodings.clone(),
                nack: agreed.nack,
                encrypted: false,
            },
        );
        let key = match published {
            Ok(key) => key,
            Err(refusal) => {
                tracing::debug!(?refusal, mid = agreed.mid, "Track not taken");
                return;
            }
        };
        section.track = Some((offered.track, key));
        let rid = |encoding: &sfu_core::EncodingConfig| encoding.rid.clone().unwrap_or_default();
        room.tracks.push(Track {
            id: offered.track,
            key,
            owner: index,
            source: offered.source,
            is_muted: offered.muted,
            is_silent: true,
            rids: agreed.encodings.iter().map(rid).collect(),
        });
    }

    fn apply_slot(&mut self, now: Instant, index: usize, at: usize, agreed: &AgreedSection) {
        let participant = &mut self.participants[index];
        let room = &mut self.rooms[participant.room];
        let section = &mut participant.sections[at];
        let Some((ssrc, rtx_ssrc)) = agreed.ssrc else {
            if let Some((key, _)) = section.slot.take() {
                room.core.remove_slot(key);
            }
            return;
        };
        if section.slot.is_some() {
            return;
        }
        let added = room.core.add_slot(
            now,
            participant.key,
            SlotConfig {
                audio: agreed.is_audio,
                automatic: false,
                mid: agreed.mid.clone(),
                ssrc,
                rtx_ssrc,
                formats: agreed.formats.clone(),
                sequence: self.rng.random_range(0..1 << 15),
                timestamp: self.rng.random(),
                picture_id: self.rng.random_range(0..1 << 15),
            },
        );
        match added {
            Ok(key) => section.slot = Some((key, None)),
            Err(refusal) => tracing::debug!(?refusal, mid = agreed.mid, "Slot not taken"),
        }
    }

    fn answer(
        &mut self,
        now: Instant,
        account: AccountId,
        room: RoomId,
        participant: ParticipantId,
        generation: u32,
        agreed: Result<(usize, String), MediaRefusal>,
    ) {
        let kind = match agreed {
            Ok((index, sdp)) => {
                // What others send is in the slots before they are told.
                let at = self.participants[index].room;
                self.fill_slots(now, at);
                let participant = &mut self.participants[index];
                for section in &mut participant.sections {
                    section.is_news = false;
                }
                MediaEventKind::Answered {
                    participant: participant.id,
                    generation,
                    sdp,
                    slots: participant.slots(),
                }
            }
            Err(refusal) => {
                self.figures.refuse(refusal);
                tracing::debug!(%participant, %refusal, "Offer refused");
                MediaEventKind::Refused {
                    participant,
                    generation,
                    refusal,
                }
            }
        };
        self.outbox.push(account, room, kind);
    }

    fn mute(&mut self, room: RoomId, track: TrackId, muted: bool) {
        let Some(at) = self.room_by_id.get(&room).copied() else {
            return;
        };
        let tracks = &mut self.rooms[at].tracks;
        if let Some(track) = tracks.iter_mut().find(|known| known.id == track) {
            track.is_muted = muted;
            let owner = track.owner;
            self.mute_owned(owner);
        }
    }

    /// Has the Tracks of a Participant forwarded or not, by their mute and by what is permitted.
    fn mute_owned(&mut self, index: usize) {
        let participant = &self.participants[index];
        let (at, permissions) = (participant.room, participant.permissions);
        let room = &mut self.rooms[at];
        for track in room.tracks.iter_mut().filter(|track| track.owner == index) {
            track.is_silent = track.is_muted || !permissions.may_send(track.source);
            room.core.set_muted(track.key, track.is_silent);
        }
        self.renew(at);
    }

    /// Puts Tracks into video slots as they are wanted, and hears what the core has put into audio slots.
    pub(crate) fn fill_slots(&mut self, now: Instant, at: usize) {
        let Some(room) = self.rooms.get_mut(at) else {
            return;
        };
        if std::mem::take(&mut room.is_new) {
            room.has_news = true;
            for place in 0..room.places.len() {
                if let Some(index) = room.places[place]
                    && let Some(participant) = self.participants.get_mut(index)
                {
                    fill(now, room, index, participant, true);
                    fill(now, room, index, participant, false);
                }
            }
        }
        self.hear(at);
    }

    /// Hears what the core of a Room has to say.
    fn hear(&mut self, at: usize) {
        let Some(room) = self.rooms.get_mut(at) else {
            return;
        };
        while let Some(output) = room.core.poll_output() {
            match output {
                Output::SlotChanged {
                    participant,
                    slot,
                    track,
                } => {
                    let track = track.and_then(|key| room.track(key)).map(|track| track.id);
                    let sections = room
                        .place(participant)
                        .and_then(|index| self.participants.get_mut(index))
                        .map(|participant| &mut participant.sections);
                    for section in sections.into_iter().flatten() {
                        if let Some((key, carried)) = &mut section.slot
                            && *key == slot
                            && *carried != track
                        {
                            *carried = track;
                            section.is_news = true;
                            room.has_news = true;
                        }
                    }
                }
                Output::LayersWanted {
                    participant,
                    track,
                    wanted,
                } => {
                    let owner = room
                        .place(participant)
                        .and_then(|index| self.participants.get(index));
                    if let (Some(owner), Some(track)) = (owner, room.track(track)) {
                        let layer = |(at, rid): (usize, &String)| LayerWanted {
                            rid: rid.clone(),
                            wanted: wanted >> at & 1 == 1,
                        };
                        let kind = MediaEventKind::Layers {
                            participant: owner.id,
                            track: track.id,
                            wanted: track.rids.iter().enumerate().map(layer).collect(),
                        };
                        self.outbox.push(room.account, room.id, kind);
                    }
                }
                Output::EncodingsChanged { .. } => {}
            }
        }
    }

    /// Tells each Participant of a Room what is in their slots, where that is news.
    pub(crate) fn tell_slots(&mut self, at: usize) {
        let Some(room) = self.rooms.get_mut(at) else {
            return;
        };
        if !std::mem::take(&mut room.has_news) {
            return;
        }
        for index in room.places.iter().copied().flatten() {
            let Some(participant) = self.participants.get_mut(index) else {
                continue;
            };
            let wanted = slots_wanted(room, index, participant);
            if wanted == participant.wanted_told
                && !participant.sections.iter().any(|section| section.is_news)
            {
                continue;
            }
            participant.wanted_told = wanted;
            let news = |section: &mut Section| {
                let is_news = std::mem::take(&mut section.is_news);
                let (_, track) = section.slot.filter(|_| is_news)?;
                let mid = section.mid.clone();
                Some(Slot { mid, track })
            };
            let kind = MediaEventKind::Slots {
                participant: participant.id,
                slots: participant.sections.iter_mut().filter_map(news).collect(),
                audio_wanted: wanted.0,
                video_wanted: wanted.1,
            };
            self.outbox.push(room.account, room.id, kind);
        }
    }
}

/// A section that sends something nobody has given a name.
fn is_refused(section: &sdp::Section<'_>, tracks: &[TrackOffer]) -> bool {
    section.kind != sdp::Kind::Application
        && section.direction.sends
        && !tracks.iter().any(|track| track.mid == section.mid)
}

/// Puts what a Participant wants to see into their slots.
fn fill(
    now: Instant,
    room: &mut Room,
    index: usize,
    participant: &mut Participant,
    is_audio: bool,
) {
    let offered = offered_to(room, index, is_audio);
    let wanted = wishes::wanted(&offered, &participant.wants);
    let is_slot = |section: &&mut Section| section.is_audio == is_audio && section.slot.is_some();
    let mut slots: Vec<&mut Section> = participant.sections.iter_mut().filter(is_slot).collect();
    let carried: Vec<Option<TrackId>> = slots
        .iter()
        .map(|section| section.slot.and_then(|(_, track)| track))
        .collect();
    let assigned = wishes::assign(&carried, &wanted);
    for (section, track) in slots.iter_mut().zip(assigned) {
        let Some((key, carried)) = &mut section.slot else {
            continue;
        };
        if *carried == track {
            continue;
        }
        let found = track.and_then(|id| room.tracks.iter().find(|known| known.id == id));
        let subscribed = match found {
            Some(found) => room
                .core
                .subscribe(now, *key, found.key)
                .map(|()| Some(found.id)),
            None => {
                room.core.unsubscribe(*key);
                Ok(None)
            }
        };
        match subscribed {
            Ok(track) => {
                *carried = track;
                section.is_news = true;
            }
            Err(refusal) => {
                tracing::debug!(?refusal, mid = section.mid, "Track not put into a slot");
            }
        }
    }
}

/// How many audio and video slots a Participant should have in all.
fn slots_wanted(room: &Room, index: usize, participant: &Participant) -> (u16, u16) {
    let has = |is_audio: bool| {
        let is_slot = |section: &&Section| section.is_audio == is_audio && section.slot.is_some();
        participant.sections.iter().filter(is_slot).count()
    };
    let there = |is_audio: bool| {
        wishes::wanted(&offered_to(room, index, is_audio), &participant.wants).len()
    };
    let wanted = |has: usize, there: usize, max: usize| {
        u16::try_from(has.max(there.min(max))).unwrap_or(u16::MAX)
    };
    (
        wanted(has(true), there(true), AUDIO_SLOTS_WANTED_MAX),
        wanted(has(false), there(false), VIDEO_SLOTS_WANTED_MAX),
    )
}

/// What others send that a Participant could hear or see.
fn offered_to(room: &Room, index: usize, is_audio: bool) -> Vec<Offered> {
    let is_of_others = |track: &&Track| track.source.is_audio() == is_audio && track.owner != index;
    let offered = |track: &Track| Offered {
        track: track.id,
        source: track.source,
        is_muted: track.is_silent,
    };
    room.tracks
        .iter()
        .filter(is_of_others)
        .map(offered)
        .collect()
}

fn cname(rng: &mut StdRng) -> String {
    format!("{:016x}", rng.random::<u64>())
}

fn wall_clock() -> NtpTime {
    NtpTime::from_unix(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO),
    )
}
