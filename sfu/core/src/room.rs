//! A Room: who is in it, what they publish, and what of it reaches whom.

mod control;
mod layers;
mod media;
mod reports;
mod voices;
mod write;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sfu_rtp::extension::{ExtensionKind, ExtensionMap};
use sfu_rtp::rtcp::{NtpTime, ReportBlock};

use crate::bitrate::Bitrate;
use crate::clock::WallClock;
use crate::keys::{ParticipantKey, Slab, SlotKey, TrackKey};
use crate::participant::{Participant, ParticipantConfig, Stream};
use crate::quality::Uplink;
use crate::slot::{Slot, SlotConfig};
use crate::speakers::Speakers;
use crate::stats::Stats;
use crate::track::{ENCODINGS_MAX, FORMATS_MAX, Layer, Track, TrackConfig};

pub use layers::PAUSE_DELAY;
pub use media::{Arrived, SSRC_CHANGES_MAX};
pub use reports::REPORT_INTERVAL;
pub use voices::{FIRST_WORD, VOICES_MAX};
pub use write::{Stamps, Written};

/// The most Participants of a Room on one shard.
pub const PARTICIPANTS_MAX: usize = 4096;

/// The most Tracks of a Participant.
pub const TRACKS_MAX: usize = 16;

/// The most slots of a Participant.
pub const SLOTS_MAX: usize = 256;

/// The longest mid: what a header extension of the one-byte form carries (RFC 8285 §4.2).
pub const MID_LEN_MAX: usize = model::media::MID_LEN_MAX;

/// How often all that is not urgent is looked at.
const ROUND: Duration = Duration::from_millis(100);

/// How often gaps are looked at while there are any.
const NACK_ROUND: Duration = Duration::from_millis(10);

/// Why a Room doesn't take something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// The key names nobody any more.
    #[error("no such participant, track or slot")]
    Unknown,
    /// A limit of the Room.
    #[error("too many participants, tracks, slots, encodings or formats")]
    TooMany,
    /// Another stream of the same Participant has that SSRC.
    #[error("SSRC in use")]
    SsrcCollision,
    /// The slot can't carry the Track's formats.
    #[error("no format in common")]
    NoFormat,
    /// One's own Track, sound in a slot for video or the other way round, or any in a slot that the Room fills by itself.
    #[error("the track does not belong into the slot")]
    Mismatch,
}

/// What the driver should tell others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Tell the publisher which encodings of a Track to send: one bit each, the smallest in the lowest. The rest nobody wants.
    LayersWanted {
        /// The publisher.
        participant: ParticipantKey,
        /// The Track.
        track: TrackKey,
        /// The encodings.
        wanted: u8,
    },
    /// Tell a subscriber that another Track is in an automatic slot.
    SlotChanged {
        /// The subscriber.
        participant: ParticipantKey,
        /// The slot.
        slot: SlotKey,
        /// The Track; `None` if it ended.
        track: Option<TrackKey>,
    },
    /// Others speak than before: see [`Room::speaking`].
    Speaking,
    /// Other encodings of a Track are being sent than before: choose Layers anew.
    EncodingsChanged {
        /// The Track.
        track: TrackKey,
    },
}

/// A Room, or what a shard has of it. See the [crate] for how it is driven.
#[derive(Debug)]
pub struct Room {
    wall: WallClock,
    participants: Slab<ParticipantKey, Participant>,
    tracks: Slab<TrackKey, Track>,
    slots: Slab<SlotKey, Slot>,
    outputs: VecDeque<Output>,
    speakers: Speakers<TrackKey>,
    /// Who has something to be told over RTCP.
    ready: VecDeque<ParticipantKey>,
    /// Encodings with gaps, and when they are looked at next.
    gaps: Vec<(TrackKey, u8)>,
    gaps_at: Option<Instant>,
    /// Encodings of which a key frame is wanted.
    key_frames: Vec<(TrackKey, u8)>,
    round_at: Instant,
    stats: Stats,
    /// Empty between calls, as are all below: kept for their memory.
    needed: Vec<(TrackKey, u8)>,
    blocks: Vec<ReportBlock>,
    /// Header extensions of the packet at hand.
    packed: Vec<u8>,
}

impl Room {
    /// A Room without anybody. `wall` is the wall clock at `now`.
    pub fn new(now: Instant, wall: NtpTime) -> Self {
        Self {
            wall: WallClock::new(now, wall),
            participants: Slab::new(),
            tracks: Slab::new(),
            slots: Slab::new(),
            outputs: VecDeque::new(),
            speakers: Speakers::new(VOICES_MAX),
            ready: VecDeque::new(),
            gaps: Vec::new(),
            gaps_at: None,
            key_frames: Vec::new(),
            round_at: now + ROUND,
            stats: Stats::default(),
            needed: Vec::new(),
            blocks: Vec::new(),
            packed: Vec::new(),
        }
    }

    /// What was counted so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// How many Participants, Tracks and slots there are.
    pub fn len(&self) -> (usize, usize, usize) {
        (self.participants.len(), self.tracks.len(), self.slots.len())
    }

    /// Takes a Participant in.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooMany`] with [`PARTICIPANTS_MAX`] in the Room.
    pub fn join(
        &mut self,
        now: Instant,
        config: ParticipantConfig,
    ) -> Result<ParticipantKey, Refusal> {
        if self.participants.len() >= PARTICIPANTS_MAX {
            return Err(Refusal::TooMany);
        }

        Ok(self
            .participants
            .insert_with(|_| Participant::new(now, config)))
    }

    /// Other header extensions were negotiated with a Participant, and whether feedback may come without a report (RFC 5506).
    pub fn set_leg(
        &mut self,
        participant: ParticipantKey,
        extensions: ExtensionMap,
        reduced_size_rtcp: bool,
    ) {
        let Some(participant) = self.participants.get_mut(participant) else {
            return;
        };

        participant.config.extensions = extensions;
        participant.config.reduced_size_rtcp = reduced_size_rtcp;
        for slot in &participant.slots {
            if let Some(slot) = self.slots.get_mut(*slot) {
                slot.header_len = header_len(&extensions, slot.mid.len());
            }
        }
    }

    /// Says whether anything can be sent to a Participant, as it can be to a new one. While nothing can, nothing is made for them, and
    /// no key frame is asked for that would be gone when they come; then all they see begins with one.
    pub fn set_reachable(&mut self, now: Instant, participant: ParticipantKey, is_reachable: bool) {
        let Some(participant) = self.participants.get_mut(participant) else {
            return;
        };

        participant.is_reachable = is_reachable;
        let slots = participant.slots.clone();
        for key in slots {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.is_reachable = is_reachable;
                slot.stop();
            }
            self.follow_wishes(now, key);
        }
    }

    /// Lets a Participant go, with their Tracks and slots.
    pub fn leave(&mut self, participant: ParticipantKey) {
        let Some(participant) = self.participants.remove(participant) else {
            return;
        };

        for slot in participant.slots {
            self.end_slot(slot);
        }
        for track in participant.tracks {
            self.end_track(track);
        }
    }

    /// Takes a Track of a Participant.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`]; [`Refusal::TooMany`] above [`TRACKS_MAX`], [`ENCODINGS_MAX`] or [`FORMATS_MAX`] or without any;
    /// [`Refusal::SsrcCollision`].
    pub fn publish(
        &mut self,
        participant: ParticipantKey,
        config: TrackConfig,
    ) -> Result<TrackKey, Refusal> {
        let publisher = self
            .participants
            .get_mut(participant)
            .ok_or(Refusal::Unknown)?;
        if publisher.tracks.len() >= TRACKS_MAX
            || !(1..=ENCODINGS_MAX).contains(&config.encodings.len())
            || !(1..=FORMATS_MAX).contains(&config.formats.len())
        {
            return Err(Refusal::TooMany);
        }
        let (encodings, is_audio) = (config.encodings.clone(), config.source.is_audio());
        let track = self.tracks.insert_with(|_| Track::new(participant, config));

        publisher.tracks.push(track);
        if is_audio {
            self.speakers.join(track);
        }
        for (encoding, index) in encodings.iter().zip(0_u8..) {
            let ssrcs = [(encoding.ssrc, false), (encoding.rtx_ssrc, true)];
            for (ssrc, is_rtx) in ssrcs
                .into_iter()
                .filter_map(|(ssrc, is_rtx)| Some((ssrc?, is_rtx)))
            {
                let stream = Stream {
                    ssrc,
                    track,
                    encoding: index,
                    is_rtx,
                };
                if !publisher.add_stream(stream) {
                    self.unpublish(track);
                    return Err(Refusal::SsrcCollision);
                }
            }
        }
        Ok(track)
    }

    /// Ends a Track; slots that carry it are empty then.
    pub fn unpublish(&mut self, track: TrackKey) {
        if let Some(publisher) = self
            .tracks
            .get(track)
            .and_then(|track| self.participants.get_mut(track.participant))
        {
            publisher.tracks.retain(|other| *other != track);
            publisher.streams.retain(|stream| stream.track != track);
            publisher
                .receiver_reports
                .retain(|(other, _)| *other != track);
        }
        self.end_track(track);
    }

    /// Forwards nothing of a Track from now on, or something again.
    pub fn set_muted(&mut self, track: TrackKey, muted: bool) {
        self.speakers.set_muted(track, muted);
        let Some(track) = self.tracks.get_mut(track) else {
            return;
        };

        if muted && !track.muted {
            for slot in &track.slots {
                if let Some(slot) = self.slots.get_mut(*slot) {
                    slot.stop();
                }
            }
        }
        if muted {
            // Nobody who comes later sees what was before.
            for encoding in &mut track.encodings {
                encoding.beginning.forget();
            }
        }
        track.muted = muted;
    }

    /// Takes a slot of a Participant. With the SSRCs of one that ended it goes on with the numbers of that, whatever `config`
    /// says: a section that sends again has the SSRCs it had.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`]; [`Refusal::TooMany`] above [`SLOTS_MAX`], [`FORMATS_MAX`], [`MID_LEN_MAX`] or [`SSRCS_OUT_MAX`](crate::SSRCS_OUT_MAX);
    /// [`Refusal::SsrcCollision`], also with one of a slot that ended and had another for resends.
    pub fn add_slot(
        &mut self,
        now: Instant,
        participant: ParticipantKey,
        config: SlotConfig,
    ) -> Result<SlotKey, Refusal> {
        let subscriber = self
            .participants
            .get_mut(participant)
            .ok_or(Refusal::Unknown)?;
        if subscriber.slots.len() >= SLOTS_MAX
            || config.formats.len() > FORMATS_MAX
            || !(1..=MID_LEN_MAX).contains(&config.mid.len())
        {
            return Err(Refusal::TooMany);
        }
        let Err(index) = subscriber
            .slots_by_ssrc
            .binary_search_by_key(&config.ssrc, |(ssrc, _)| *ssrc)
        else {
            return Err(Refusal::SsrcCollision);
        };

        let (ssrc, rtx_ssrc) = (config.ssrc, config.rtx_ssrc);
        let is_taken = |slot: &SlotKey| {
            let slot = self.slots.get(*slot);
            slot.is_some_and(|slot| slot.has_any([Some(ssrc), rtx_ssrc]))
        };
        if rtx_ssrc == Some(ssrc) || subscriber.slots.iter().any(is_taken) {
            return Err(Refusal::SsrcCollision);
        }
        match subscriber.ended([Some(ssrc), rtx_ssrc]) {
            Some(ended) if (ended.ssrc, ended.rtx_ssrc) != (ssrc, rtx_ssrc) => {
                return Err(Refusal::SsrcCollision);
            }
            None if subscriber.has_used_up_ssrcs() => return Err(Refusal::TooMany),
            _ => {}
        }
        let header_len = header_len(&subscriber.config.extensions, config.mid.len());
        let slot = self
            .slots
            .insert_with(|key| Slot::new(now, key, participant, header_len, config));
        let ended = subscriber.take_ended(ssrc);
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.is_reachable = subscriber.is_reachable;
            if let Some(ended) = ended {
                slot.go_on(ended);
            }
        }
        subscriber.slots.push(slot);
        subscriber.slots_by_ssrc.insert(index, (ssrc, slot));
        self.fill(slot);
        Ok(slot)
    }

    /// Ends a slot. Its numbers are kept for one with the same SSRC.
    pub fn remove_slot(&mut self, slot: SlotKey) {
        let Some(ended) = self.end_slot(slot) else {
            return;
        };
        if let Some(subscriber) = self.participants.get_mut(ended.participant) {
            subscriber.slots.retain(|other| *other != slot);
            subscriber.slots_by_ssrc.retain(|(_, other)| *other != slot);
            subscriber.keep_ended(ended.into_ended());
        }
    }

    /// Puts a Track into a slot, in place of what is there. Video begins with a key frame of the smallest encoding: the last one, if that
    /// was just now, or another, which is asked for; say what is wanted by [`Self::set_layer`].
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`], [`Refusal::Mismatch`], [`Refusal::NoFormat`]; then the slot keeps what it has.
    pub fn subscribe(
        &mut self,
        now: Instant,
        slot: SlotKey,
        track: TrackKey,
    ) -> Result<(), Refusal> {
        if self.slots.get(slot).is_some_and(|slot| slot.automatic) {
            return Err(Refusal::Mismatch);
        }
        self.carry(slot, track)?;
        self.follow_wishes(now, slot);
        Ok(())
    }

    /// Puts a Track into a slot.
    fn carry(&mut self, slot: SlotKey, track: TrackKey) -> Result<(), Refusal> {
        let to = self.slots.get(slot).ok_or(Refusal::Unknown)?;
        let from = self.tracks.get(track).ok_or(Refusal::Unknown)?;
        if from.participant == to.participant || from.is_audio() != to.audio {
            return Err(Refusal::Mismatch);
        }
        if to.track == Some(track) {
            return Ok(());
        }
        let format = from
            .formats
            .iter()
            .find_map(|format| to.accepts(format))
            .ok_or(Refusal::NoFormat)?;

        self.unsubscribe(slot);
        let (Some(to), Some(from)) = (self.slots.get_mut(slot), self.tracks.get_mut(track)) else {
            return Err(Refusal::Unknown);
        };
        to.attach(track, format);
        from.slots.push(slot);
        Ok(())
    }

    /// Empties a slot.
    pub fn unsubscribe(&mut self, slot: SlotKey) {
        let Some(to) = self.slots.get_mut(slot) else {
            return;
        };

        if let Some(from) = to.track.and_then(|track| self.tracks.get_mut(track)) {
            from.slots.retain(|other| *other != slot);
        }
        to.detach();
    }

    /// Says which Layer of the Track in a slot is wanted; `None` pauses it.
    ///
    /// Spatial and temporal layers of the encoding that goes out are left out from the next picture on, and taken up where the stream
    /// allows it; another encoding takes over at its next key frame, which is asked for.
    pub fn set_layer(&mut self, now: Instant, slot: SlotKey, layer: Option<Layer>) {
        let Some(to) = self.slots.get_mut(slot).filter(|slot| slot.track.is_some()) else {
            return;
        };

        if to.want(layer) {
            self.follow_wishes(now, slot);
        }
    }

    /// What a slot carries: the Track, and the Layer that goes out now.
    pub fn carried(&self, slot: SlotKey) -> Option<(TrackKey, Option<Layer>)> {
        let slot = self.slots.get(slot)?;
        let layer = slot.current.map(|encoding| Layer {
            encoding,
            spatial: slot.detail.spatial,
            temporal: slot.detail.temporal,
        });

        Some((slot.track?, layer))
    }

    /// What is being forwarded to a Participant, by what its publishers send: first in slots of whose SSRCs `is_named` holds for one,
    /// then in all others.
    pub fn forwarded(
        &self,
        participant: ParticipantKey,
        is_named: impl Fn(u32) -> bool,
    ) -> (Bitrate, Bitrate) {
        let (mut named, mut beside) = (Bitrate::ZERO, Bitrate::ZERO);
        let slots = self.participants.get(participant);
        for slot in slots.into_iter().flat_map(|to| &to.slots) {
            let Some(slot) = self.slots.get(*slot) else {
                continue;
            };
            let encoding = slot.track.zip(slot.current).and_then(|(track, encoding)| {
                let encodings = &self.tracks.get(track)?.encodings;
                encodings.get(usize::from(encoding))
            });
            let Some(encoding) = encoding.filter(|encoding| encoding.is_active) else {
                continue;
            };
            let rate = Bitrate::bps(encoding.rates.up_to(slot.detail));
            let is_of = is_named(slot.ssrc) || slot.rtx_ssrc.is_some_and(&is_named);
            let sum = if is_of { &mut named } else { &mut beside };
            *sum = *sum + rate;
        }
        (named, beside)
    }

    /// The round trip to a Participant, once one was measured.
    pub fn round_trip(&self, participant: ParticipantKey) -> Option<Duration> {
        self.participants.get(participant)?.measured_round_trip()
    }

    /// How what a Participant sends arrives, by the reports they were sent last.
    pub fn uplink(&self, participant: ParticipantKey) -> Uplink {
        let participant = self.participants.get(participant);
        participant
            .map(|participant| participant.uplink)
            .unwrap_or_default()
    }

    /// The average loss that a Participant has reported since the last call, in 1/256; `None` if nothing was reported.
    pub fn take_loss(&mut self, participant: ParticipantKey) -> Option<u8> {
        self.participants.get_mut(participant)?.take_loss()
    }

    /// What the driver should tell others next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn end_slot(&mut self, slot: SlotKey) -> Option<Slot> {
        self.unsubscribe(slot);
        self.slots.remove(slot)
    }

    fn end_track(&mut self, track: TrackKey) {
        let Some(ended) = self.tracks.remove(track) else {
            return;
        };

        self.speakers.leave(track);
        for slot in ended.slots {
            if let Some(slot) = self.slots.get_mut(slot) {
                slot.detach();
                if slot.automatic {
                    self.outputs.push_back(Output::SlotChanged {
                        participant: slot.participant,
                        slot: slot.key,
                        track: None,
                    });
                }
            }
        }
    }
}

/// The length of a header with the extensions of a leg, in bytes.
fn header_len(extensions: &ExtensionMap, mid_len: usize) -> u16 {
    let values = [
        (ExtensionKind::Mid, mid_len),
        (ExtensionKind::TransportSequenceNumber, 2),
        (ExtensionKind::AbsSendTime, 3),
    ];
    let len: usize = values
        .into_iter()
        .filter(|(kind, _)| extensions.id(*kind).is_some())
        .map(|(_, len)| 1 + len)
        .sum();
    let block = if len == 0 {
        0
    } else {
        4 + len.next_multiple_of(4)
    };

    // A mid is at most MID_LEN_MAX bytes long.
    u16::try_from(sfu_rtp::packet::HEADER_LEN_MIN + block).unwrap_or(u16::MAX)
}
