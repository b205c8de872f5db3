//! Plain Participants: a role of this process speaks and listens in a Room through [`model::plain`] rings, without SDP, ICE, DTLS and SRTP.
//!
//! ```text
//! gateway ── End ──▶ [ring] ──▶ receive_plain ─▶ core, as a packet of an ordinary Track
//!         ◀─ End ─── [ring] ◀── give_plain ◀──── core, in a slot for each voice
//! ```
//!
//! To the Room's core they are Participants like all others: their Track counts as a speaker, is muted by moderators and has its
//! first word heard, and they hear the voices that everybody hears.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::id::{AccountId, ParticipantId, RoomId, TrackId};
use model::media::{GoneReason, MediaEventKind, MediaRefusal};
use model::plain::{self, End, Level, NoSeat, PAYLOAD_LEN_MAX, Seat};
use model::room::{Permissions, Source};
use rand::RngExt;
use sfu_core::quality::{Sample, Steady, quality};
use sfu_core::{
    Bitrate, Codec, EncodingConfig, Format, Forward, PACKET_LEN_MAX, ParticipantConfig,
    ParticipantKey, Refusal, SlotConfig, SlotKey, Stamps, TrackConfig, TrackKey, VOICES_MAX,
};
use sfu_rtp::extension::{AudioLevel, ExtensionKind, ExtensionMap};
use sfu_rtp::packet::{FixedHeader, HeaderWriter, Packet};
use tokio::sync::oneshot;

use crate::figures::Drop;
use crate::packets::{ABSENCE_MAX, LOOK_INTERVAL};
use crate::participant::{Owner, Track};
use crate::rooms::{Room, Rooms, cname};
use crate::shared::Shared;
use crate::timers::Timer;

/// How many may wait for Participants to join, on one shard.
const ASKS_MAX: usize = 1_024;

/// The header extension of the audio level, between us and the core.
const LEVEL_ID: u8 = 1;

/// Opus, between us and the core.
const FORMAT: Format = Format {
    codec: Codec::Opus,
    variant: 0,
    payload_type: 111,
    rtx: None,
    red: None,
    clock_rate: 48_000,
};

// Each voice that is heard has a slot.
const _: () = assert!(plain::VOICES_MAX == VOICES_MAX);
const _: () = assert!(PAYLOAD_LEN_MAX <= sfu_core::PAYLOAD_LEN_MAX);

/// Who waits for the end of a Participant.
pub(crate) struct Ask {
    pub(crate) seat: Seat,
    pub(crate) reply: oneshot::Sender<Result<End, NoSeat>>,
}

/// Who joins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlainJoin {
    pub(crate) id: ParticipantId,
    pub(crate) permissions: Permissions,
    pub(crate) encrypted: bool,
    pub(crate) track: TrackId,
    pub(crate) muted: bool,
}

/// A plain Participant.
pub(crate) struct Plain {
    pub(crate) id: ParticipantId,
    room: usize,
    key: ParticipantKey,
    track: TrackId,
    /// What their packets have between us and the core.
    ssrc: u32,
    /// Those of the voices they hear.
    slots: Vec<SlotKey>,
    pub(crate) permissions: Permissions,
    /// Our end, and theirs until somebody takes it.
    end: End,
    theirs: Option<End>,
    joined_at: Instant,
    quality: Steady,
    due: Option<Instant>,
}

impl Room {
    fn plain(&self, key: ParticipantKey) -> Option<usize> {
        let mut plains = self.plains.iter();
        plains.find_map(|(known, index)| (*known == key).then_some(*index))
    }
}

impl Rooms {
    /// Takes a plain Participant in, or tells why not.
    pub(crate) fn join_plain(
        &mut self,
        now: Instant,
        account: AccountId,
        room: RoomId,
        join: &PlainJoin,
    ) {
        match self.seat(now, account, room, join) {
            Ok(index) => {
                let seat = Seat {
                    account,
                    room,
                    participant: join.id,
                };
                let waits = |ask: &Ask| ask.seat == seat && !ask.reply.is_closed();
                if let Some(at) = self.asks.iter().position(waits) {
                    let ask = self.asks.swap_remove(at);
                    self.hand_over(now, index, ask);
                }
            }
            Err(refusal) => {
                self.figures.refuse(refusal);
                tracing::debug!(participant = %join.id, %refusal, "Plain participant refused");
                let kind = MediaEventKind::Refused {
                    participant: join.id,
                    generation: 0,
                    refusal,
                };
                self.outbox.push(account, room, kind);
            }
        }
    }

    /// Gives the end of a Participant to whoever asks, now or when they join.
    pub(crate) fn attach(&mut self, now: Instant, ask: Ask) {
        let Seat {
            account,
            room,
            participant,
        } = ask.seat;
        let index = self.find_plain(room, participant);
        let index = index.filter(|index| self.rooms[self.plains[*index].room].account == account);
        if let Some(index) = index {
            self.hand_over(now, index, ask);
            return;
        }
        // Who has waited for long enough is gone.
        self.asks.retain(|ask| !ask.reply.is_closed());
        if self.asks.len() < ASKS_MAX {
            self.asks.push(ask);
        } else {
            ask.reply.send(Err(NoSeat::Busy)).ok(); // Whoever asked may be gone.
        }
    }

    fn hand_over(&mut self, now: Instant, index: usize, ask: Ask) {
        let plain = &mut self.plains[index];
        let Some(theirs) = plain.theirs.take() else {
            ask.reply.send(Err(NoSeat::Taken)).ok(); // Whoever asked may be gone.
            return;
        };
        // Whoever asked may be gone: then it is there for the next.
        if let Err(Ok(theirs)) = ask.reply.send(Ok(theirs)) {
            plain.theirs = Some(theirs);
            return;
        }
        let (at, key) = (plain.room, plain.key);
        let kind = MediaEventKind::Connected {
            participant: plain.id,
        };
        let room = &mut self.rooms[at];
        room.core.set_reachable(now, key, true);
        self.outbox.push(room.account, room.id, kind);
        self.touch(at);
    }

    pub(crate) fn find_plain(&self, room: RoomId, participant: ParticipantId) -> Option<usize> {
        let index = *self.plain_by_id.get(&participant)?;
        (self.rooms[self.plains[index].room].id == room).then_some(index)
    }

    fn seat(
        &mut self,
        now: Instant,
        account: AccountId,
        room: RoomId,
        join: &PlainJoin,
    ) -> Result<usize, MediaRefusal> {
        if let Some(index) = self.plain_by_id.get(&join.id).copied() {
            self.remove_plain(index); // They begin anew.
        }
        let at = self.room_by_id.get(&room).copied();
        if join.encrypted || at.is_some_and(|at| self.is_encrypted(at)) {
            return Err(MediaRefusal::Encrypted);
        }
        let there = at.map_or(0, |at| self.rooms[at].participants);
        let is_draining = || {
            let draining = &self.shared.is_draining;
            draining.load(Ordering::Relaxed)
        };
        if there >= self.config.participants_per_room_max
            || (at.is_none() && is_draining())
            || !Shared::take(&self.shared.participants, self.config.participants_max)
        {
            return Err(MediaRefusal::Full);
        }
        let seated = at
            .or_else(|| self.open(now, account, room))
            .ok_or(MediaRefusal::Full)
            .and_then(|at| {
                let entered = self.enter(now, at, join);
                entered.map_err(|refusal| {
                    tracing::debug!(?refusal, "Plain participant not taken");
                    self.close_if_empty(at);
                    MediaRefusal::Full
                })
            });
        if seated.is_err() {
            self.shared.participants.fetch_sub(1, Ordering::Relaxed);
        }
        seated
    }

    /// Whether anybody in a Room sends what only those with keys can hear.
    fn is_encrypted(&self, at: usize) -> bool {
        let places = self.rooms[at].places.iter().copied().flatten();
        places
            .into_iter()
            .any(|index| self.participants[index].encrypted)
    }

    fn enter(&mut self, now: Instant, at: usize, join: &PlainJoin) -> Result<usize, Refusal> {
        let mut extensions = ExtensionMap::new();
        extensions
            .set(ExtensionKind::AudioLevel, LEVEL_ID)
            .map_err(|_| Refusal::NoFormat)?;
        let ssrc = self.rng.random();
        let config = ParticipantConfig {
            extensions,
            reduced_size_rtcp: false,
            cname: cname(&mut self.rng),
            ssrc: self.rng.random(),
        };
        let core = &mut self.rooms[at].core;
        let key = core.join(now, config)?;
        // Nothing is made for them before somebody listens.
        core.set_reachable(now, key, false);
        let published = core.publish(key, track(ssrc));
        let added = published.and_then(|published| {
            let mut slots = Vec::with_capacity(VOICES_MAX);
            for number in 0..VOICES_MAX {
                let config = SlotConfig {
                    audio: true,
                    automatic: true,
                    mid: number.to_string(),
                    ssrc: self.rng.random(),
                    rtx_ssrc: None,
                    formats: vec![FORMAT],
                    sequence: self.rng.random_range(0..1 << 15),
                    timestamp: self.rng.random(),
                    picture_id: 0,
                };
                slots.push(core.add_slot(now, key, config)?);
            }
            Ok((published, slots))
        });
        let (published, slots) = added.inspect_err(|_| core.leave(key))?;

        let (end, theirs) = plain::pair(self.plain_waker.clone());
        let index = self.plains.insert(Plain {
            id: join.id,
            room: at,
            key,
            track: join.track,
            ssrc,
            slots,
            permissions: join.permissions,
            end,
            theirs: Some(theirs),
            joined_at: now,
            quality: Steady::new(),
            due: None,
        });
        self.plain_by_id.insert(join.id, index);
        self.enter_track(at, index, published, join);
        self.mute_tracks(at, Owner::Plain(index), join.permissions);
        let due = &mut self.plains[index].due;
        self.timers
            .set(Timer::Plain(index), due, Some(now + LOOK_INTERVAL));
        Ok(index)
    }

    fn enter_track(&mut self, at: usize, index: usize, key: TrackKey, join: &PlainJoin) {
        let room = &mut self.rooms[at];
        room.participants += 1;
        room.plains.push((self.plains[index].key, index));
        room.tracks.push(Track {
            id: join.track,
            key,
            owner: Owner::Plain(index),
            source: Source::Microphone,
            is_muted: join.muted,
            is_silent: true,
            rids: vec![String::new()],
        });
    }

    /// A plain Participant may send something else from now on.
    pub(crate) fn permit_plain(&mut self, index: usize, permissions: Permissions) {
        let plain = &mut self.plains[index];
        plain.permissions = permissions;
        let at = plain.room;
        self.mute_tracks(at, Owner::Plain(index), permissions);
    }

    /// Lets a plain Participant go, and the Room with the last.
    pub(crate) fn remove_plain(&mut self, index: usize) {
        let Some(plain) = self.forget_plain(index) else {
            return;
        };
        let at = plain.room;
        let room = &mut self.rooms[at];
        room.core.leave(plain.key);
        room.plains.retain(|(_, known)| *known != index);
        room.tracks
            .retain(|track| track.owner != Owner::Plain(index));
        room.participants -= 1;
        self.renew(at);
        self.close_if_empty(at);
    }

    /// Takes a plain Participant out of all but their Room. Whoever has their end finds it closed.
    fn forget_plain(&mut self, index: usize) -> Option<Plain> {
        let mut plain = self.plains.try_remove(index)?;
        self.timers.set(Timer::Plain(index), &mut plain.due, None);
        self.shared.participants.fetch_sub(1, Ordering::Relaxed);
        self.plain_by_id.remove(&plain.id);
        Some(plain)
    }

    fn give_up_plain(&mut self, index: usize, reason: GoneReason) {
        let plain = &self.plains[index];
        let (id, room) = (plain.id, &self.rooms[plain.room]);
        let kind = MediaEventKind::Gone {
            participant: id,
            reason,
        };
        self.outbox.push(room.account, room.id, kind);
        self.figures.give_up(reason);
        tracing::info!(participant = %id, ?reason, "Plain participant given up");
        self.remove_plain(index);
    }

    /// Gives up those of a Room that a fault of ours has ended, without another word of its core; all others are looked at anew.
    pub(crate) fn fail_plain(&mut self, now: Instant, at: usize) {
        for (_, index) in std::mem::take(&mut self.rooms[at].plains) {
            let Some(plain) = self.forget_plain(index) else {
                continue;
            };
            let room = &mut self.rooms[at];
            room.participants -= 1;
            let kind = MediaEventKind::Gone {
                participant: plain.id,
                reason: GoneReason::Failed,
            };
            self.outbox.push(room.account, room.id, kind);
            self.figures.give_up(GoneReason::Failed);
        }
        for (index, plain) in &mut self.plains {
            self.timers
                .set(Timer::Plain(index), &mut plain.due, Some(now));
        }
    }

    /// Takes in what plain Participants have sent.
    pub(crate) fn receive_plain(&mut self, now: Instant) {
        let mut payload = [0; PAYLOAD_LEN_MAX];
        for index in 0..self.plains.capacity() {
            let mut is_closed = false;
            while let Some(plain) = self.plains.get_mut(index) {
                // Before what it says last, or that would be lost.
                is_closed = plain.end.is_closed();
                let Some((packet, len)) = plain.end.receive(&mut payload) else {
                    break;
                };
                self.on_plain(now, index, &packet, &payload[..len]);
            }
            if is_closed {
                self.give_up_plain(index, GoneReason::Unreachable);
            }
        }
    }

    fn on_plain(&mut self, now: Instant, index: usize, packet: &plain::Packet, payload: &[u8]) {
        self.figures.plain_in += 1;
        let plain = &self.plains[index];
        let (at, key) = (plain.room, plain.key);
        if packet.track != plain.track {
            return self.figures.drop_packet(Drop::Plain);
        }
        let mut buffer = [0; PACKET_LEN_MAX];
        let Some(len) = write(packet, plain.ssrc, payload, &mut buffer) else {
            return self.figures.drop_packet(Drop::Plain);
        };
        let Ok(packet) = Packet::parse(&buffer[..len]) else {
            return self.figures.drop_packet(Drop::Rtp);
        };
        self.forward(now, at, key, &packet);
    }

    /// Gives a packet to the plain Participant it is for.
    pub(crate) fn give_plain(&mut self, at: usize, forward: &Forward) {
        let room = &mut self.rooms[at];
        let index = room.plain(forward.participant());
        let Some((plain, track)) = index.and_then(|index| self.plains.get_mut(index)).zip(
            room.tracks
                .iter()
                .find(|track| track.key == forward.track()),
        ) else {
            return;
        };
        let is_sealed = match track.owner {
            Owner::Peer(owner) => self.participants[owner].encrypted,
            Owner::Plain(_) => false,
        };
        let slot = plain.slots.iter().position(|slot| *slot == forward.slot());
        let Some(slot) = slot.and_then(|slot| u8::try_from(slot).ok()) else {
            return;
        };
        if is_sealed {
            return self.figures.drop_packet(Drop::NotForwarded);
        }
        let mut buffer = [0; PACKET_LEN_MAX];
        let written = room.core.write(forward, &mut buffer, Stamps::default());
        let packet = written.and_then(|written| Packet::parse(&buffer[..written.len]).ok());
        let Some(packet) = packet else {
            return self.figures.drop_packet(Drop::Late);
        };
        let header = packet.header();
        let level = header.extension(LEVEL_ID).and_then(AudioLevel::from_bytes);
        let told = plain::Packet {
            slot,
            track: track.id,
            sequence: header.sequence_number(),
            timestamp: header.timestamp(),
            marker: header.marker(),
            level: level.map(|level| Level {
                below_full: level.level,
                voice: level.voice,
            }),
        };
        match plain.end.send(&told, packet.payload()) {
            Ok(()) => self.figures.plain_out += 1,
            Err(_) => self.figures.drop_packet(Drop::Plain),
        }
    }

    /// Looks whether somebody has taken the end of a plain Participant, and how they are heard.
    pub(crate) fn look_at_plain(&mut self, now: Instant, index: usize) {
        let Some(plain) = self.plains.get_mut(index) else {
            return;
        };
        plain.due = None;
        if plain.theirs.is_some() && now.saturating_duration_since(plain.joined_at) > ABSENCE_MAX {
            return self.give_up_plain(index, GoneReason::Unreachable);
        }
        let room = &self.rooms[plain.room];
        let uplink = room.core.uplink(plain.key);
        // Rings have neither a way back that is measured nor one that could break.
        let sample = Sample {
            loss: uplink.loss(),
            round_trip: Duration::ZERO,
            jitter: uplink.jitter,
            estimate: Bitrate::kbps(1_000),
            wished: Bitrate::ZERO,
            silence: Duration::ZERO,
        };
        if plain.theirs.is_none()
            && let Some(quality) = plain.quality.update(now, quality(&sample))
        {
            let kind = MediaEventKind::Quality {
                participant: plain.id,
                quality,
            };
            self.outbox.push(room.account, room.id, kind);
        }
        self.timers.set(
            Timer::Plain(index),
            &mut plain.due,
            Some(now + LOOK_INTERVAL),
        );
    }

    /// Counts who is there now.
    pub(crate) fn count_plain(&mut self) {
        let attached = self.plains.iter();
        let attached = attached.filter(|(_, plain)| plain.theirs.is_none());
        self.figures.connected += attached.count();
        self.figures.plain = self.plains.len();
        self.figures.participants += self.plains.len();
    }
}

/// The Track of a plain Participant.
fn track(ssrc: u32) -> TrackConfig {
    TrackConfig {
        source: Source::Microphone,
        mid: None,
        formats: vec![FORMAT],
        encodings: vec![EncodingConfig {
            rid: None,
            ssrc: Some(ssrc),
            rtx_ssrc: None,
        }],
        nack: false,
        encrypted: false,
    }
}

/// Writes a packet as the core reads it; returns its length.
fn write(packet: &plain::Packet, ssrc: u32, payload: &[u8], buffer: &mut [u8]) -> Option<usize> {
    let header = FixedHeader {
        marker: packet.marker,
        payload_type: FORMAT.payload_type,
        sequence_number: packet.sequence,
        timestamp: packet.timestamp,
        ssrc,
    };
    let mut writer = HeaderWriter::new(buffer, &header, &[]).ok()?;
    if let Some(level) = packet.level {
        let level = AudioLevel {
            voice: level.voice,
            level: level.below_full,
        };
        writer.extension(LEVEL_ID, &level.to_bytes()).ok()?;
    }
    let header_len = writer.finish().ok()?;
    let len = header_len + payload.len();
    buffer.get_mut(header_len..len)?.copy_from_slice(payload);
    Some(len)
}
