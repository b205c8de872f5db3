//! Tracks and slots: what a Participant sends and receives, of what was agreed on, and which Track is in which slot.
//!
//! Sound is put into slots by who speaks, which is the core's; pictures by what is wanted ([`crate::wishes`]).

use std::time::Instant;

use model::id::TrackId;
use model::media::{LayerWanted, MediaEventKind, Slot, TrackOffer};
use model::room::Permissions;
use rand::RngExt;
use sfu_core::{EncodingConfig, Output, SlotConfig, TrackConfig, TrackKey, VOICES_MAX};

use crate::participant::{Carried, Carrier, Owner, Participant, Section, Track};
use crate::peer::{Agreed, AgreedSection};
use crate::rooms::{Room, Rooms};
use crate::wishes::{self, Offered};

/// How many audio slots are asked for at most: as many as there are voices heard at once.
const AUDIO_SLOTS_WANTED_MAX: usize = VOICES_MAX;

/// How many video slots are asked for at most: a gallery of 7 by 7.
const VIDEO_SLOTS_WANTED_MAX: usize = 49;

impl Rooms {
    /// Makes Tracks and slots of what was agreed on.
    pub(crate) fn apply(
        &mut self,
        now: Instant,
        index: usize,
        agreed: &Agreed,
        tracks: &[TrackOffer],
    ) {
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
        self.drop_sections(index, agreed);
        self.mute_owned(index);
        self.renew(self.participants[index].room);
    }

    /// Ends sections whose place another has taken (RFC 8829 §5.2.2).
    fn drop_sections(&mut self, index: usize, agreed: &Agreed) {
        let participant = &mut self.participants[index];
        let room = &mut self.rooms[participant.room];
        participant.sections.retain(|section| {
            let is_there = agreed
                .sections
                .iter()
                .any(|agreed| agreed.mid == section.mid);
            if !is_there {
                if let Some((_, key)) = section.track {
                    room.core.unpublish(key);
                    room.tracks.retain(|track| track.key != key);
                }
                if let Some(carrier) = &section.slot {
                    room.core.remove_slot(carrier.key);
                }
            }
            is_there
        });
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
                encrypted: participant.encrypted,
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
        let rid = |encoding: &EncodingConfig| encoding.rid.clone().unwrap_or_default();
        room.tracks.push(Track {
            id: offered.track,
            key,
            owner: Owner::Peer(index),
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
            if let Some(carrier) = section.slot.take() {
                // What leaves as its SSRC goes on counting when it comes again: the core keeps its numbers.
                room.core.remove_slot(carrier.key);
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
                automatic: agreed.is_audio,
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
            Ok(key) => section.slot = Some(Carrier::new(key)),
            Err(refusal) => tracing::debug!(?refusal, mid = agreed.mid, "Slot not taken"),
        }
    }

    /// Has the Tracks of a Participant forwarded or not, by their mute and by what is permitted.
    pub(crate) fn mute_owned(&mut self, index: usize) {
        let participant = &self.participants[index];
        let (at, permissions) = (participant.room, participant.permissions);
        self.mute_tracks(at, Owner::Peer(index), permissions);
    }

    pub(crate) fn mute_tracks(&mut self, at: usize, owner: Owner, permissions: Permissions) {
        let room = &mut self.rooms[at];
        for track in room.tracks.iter_mut().filter(|track| track.owner == owner) {
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
        let is_new = std::mem::take(&mut room.is_new);
        let mut renewed = std::mem::take(&mut room.renewed);
        if is_new {
            renewed.clear();
            renewed.extend(room.places.iter().copied().flatten());
        }
        for index in renewed.iter().copied() {
            // They may have left meanwhile.
            if let Some(participant) = self.participants.get_mut(index)
                && participant.room == at
            {
                participant.is_renewed = false;
                participant.is_refilled = true;
                room.has_news = true;
                fill(now, room, index, participant);
                let hushed = hushed(room, index, participant);
                room.core.hush(participant.key, hushed);
                participant.choose_due = Some(now);
            }
        }
        self.hear(now, at);
        // Something may be due sooner than it was.
        for index in renewed.drain(..) {
            self.wait(index);
        }
        if let Some(room) = self.rooms.get_mut(at) {
            room.renewed = renewed;
        }
    }

    /// Has all of a Room looked at: something may be due sooner than it was.
    fn wait_all(&mut self, at: usize) {
        for place in 0..self.rooms.get(at).map_or(0, |room| room.places.len()) {
            if let Some(index) = self.rooms[at].places[place] {
                self.wait(index);
            }
        }
    }

    /// Hears what the core of a Room has to say.
    fn hear(&mut self, now: Instant, at: usize) {
        let Some(room) = self.rooms.get_mut(at) else {
            return;
        };
        let mut is_other = false;
        while let Some(output) = room.core.poll_output() {
            match output {
                Output::SlotChanged {
                    participant,
                    slot,
                    track,
                } => {
                    let track = track.and_then(|key| room.track(key)).map(Carried::of);
                    let sections = room
                        .place(participant)
                        .and_then(|index| self.participants.get_mut(index))
                        .map(|participant| &mut participant.sections);
                    for section in sections.into_iter().flatten() {
                        if let Some(carrier) = &mut section.slot
                            && carrier.key == slot
                            && carrier.track != track
                        {
                            carrier.put(track);
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
                Output::Speaking => {
                    let mut speakers = Vec::new();
                    for voice in room.core.speaking() {
                        let owner = room.track(*voice).and_then(|track| match track.owner {
                            Owner::Peer(index) => Some(self.participants.get(index)?.id),
                            Owner::Plain(index) => Some(self.plains.get(index)?.id),
                        });
                        // A microphone and the sound of a shared screen are one speaker.
                        if let Some(owner) = owner
                            && !speakers.contains(&owner)
                        {
                            speakers.push(owner);
                        }
                    }
                    let kind = MediaEventKind::Speakers { speakers };
                    self.outbox.push(room.account, room.id, kind);
                }
                Output::EncodingsChanged { track } => {
                    is_other = true;
                    for index in room.places.iter().copied().flatten() {
                        let participant = self.participants.get_mut(index);
                        if let Some(participant) = participant.filter(|known| known.carries(track))
                        {
                            participant.choose_due = Some(now);
                        }
                    }
                }
            }
        }
        if is_other {
            self.wait_all(at);
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
            let wanted = match std::mem::take(&mut participant.is_refilled) {
                true => slots_wanted(room, index, participant),
                false => participant.wanted_told,
            };
            if wanted == participant.wanted_told
                && !participant.sections.iter().any(|section| section.is_news)
            {
                continue;
            }
            participant.wanted_told = wanted;
            let news = |section: &mut Section| {
                let is_news = std::mem::take(&mut section.is_news);
                let carrier = section.slot.as_ref().filter(|_| is_news)?;
                Some(Slot {
                    mid: section.mid.clone(),
                    track: carrier.track.map(|track| track.id),
                })
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

/// Puts what a Participant wants to see into their slots.
fn fill(now: Instant, room: &mut Room, index: usize, participant: &mut Participant) {
    let offered = |track: &Track| Offered {
        track: track.id,
        source: track.source,
        is_muted: track.is_silent,
    };
    let offered: Vec<Offered> = of_others(room, index, false).map(offered).collect();
    let wanted = wishes::wanted(&offered, &participant.wants);
    let is_slot = |section: &&mut Section| !section.is_audio && section.slot.is_some();
    let mut slots: Vec<&mut Section> = participant.sections.iter_mut().filter(is_slot).collect();
    let carried: Vec<Option<TrackId>> = slots
        .iter()
        .map(|section| section.slot.as_ref()?.track.map(|track| track.id))
        .collect();
    let assigned = wishes::assign(&carried, &wanted);
    for (section, track) in slots.iter_mut().zip(assigned) {
        let Some(carrier) = &mut section.slot else {
            continue;
        };
        if carrier.track.map(|carried| carried.id) == track {
            continue;
        }
        let found = track.and_then(|id| room.tracks.iter().find(|known| known.id == id));
        let subscribed = match found {
            Some(found) => room
                .core
                .subscribe(now, carrier.key, found.key)
                .map(|()| Some(Carried::of(found))),
            None => {
                room.core.unsubscribe(carrier.key);
                Ok(None)
            }
        };
        match subscribed {
            Ok(track) => {
                carrier.put(track);
                section.is_news = true;
            }
            Err(refusal) => {
                tracing::debug!(?refusal, mid = section.mid, "Track not put into a slot");
            }
        }
    }
}

/// The voices a Participant does not want to hear.
fn hushed(room: &Room, index: usize, participant: &Participant) -> Vec<TrackKey> {
    let wants = &participant.wants;
    if wants.wants_all() {
        return Vec::new();
    }
    let is_hushed = |track: &&Track| !wants.wants(track.id);
    let voices = of_others(room, index, true).filter(is_hushed);
    voices.map(|track| track.key).collect()
}

/// How many audio and video slots a Participant should have in all.
fn slots_wanted(room: &Room, index: usize, participant: &Participant) -> (u16, u16) {
    let has = |is_audio: bool| {
        let is_slot = |section: &&Section| section.is_audio == is_audio && section.slot.is_some();
        participant.sections.iter().filter(is_slot).count()
    };
    let wanted = |is_audio: bool, max: usize| {
        let is_wanted = |track: &&Track| participant.wants.wants(track.id);
        let there = of_others(room, index, is_audio).filter(is_wanted);
        let count = has(is_audio).max(there.take(max).count());
        u16::try_from(count).unwrap_or(u16::MAX)
    };
    (
        wanted(true, AUDIO_SLOTS_WANTED_MAX),
        wanted(false, VIDEO_SLOTS_WANTED_MAX),
    )
}

/// What others send that a Participant could hear or see.
fn of_others(room: &Room, index: usize, is_audio: bool) -> impl Iterator<Item = &Track> {
    let is_it = move |track: &&Track| {
        track.source.is_audio() == is_audio && track.owner != Owner::Peer(index)
    };
    room.tracks.iter().filter(is_it)
}
