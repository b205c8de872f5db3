//! The way of a packet in: whose it is, whether it is new, what it says, and who gets it.

use std::time::Instant;

use sfu_rtp::extension::{AudioLevel, ExtensionKind, read_identifier};
use sfu_rtp::packet::{Header, Packet};
use sfu_rtp::payload::rtx;

use super::Room;
use crate::PAYLOAD_LEN_MAX;
use crate::cache::Record;
use crate::forward::Forward;
use crate::keys::{ParticipantKey, TrackKey};
use crate::participant::{Participant, Stream};
use crate::passed;
use crate::picture::{self, Picture};
use crate::receiver::Arrival;
use crate::rewrite::Incoming;
use crate::slot::{Offered, Slot};
use crate::stats::Dropped;
use crate::track::{Codec, Encoding, PayloadKind, Track};

/// How often another SSRC may take over one encoding.
pub const SSRC_CHANGES_MAX: u32 = 64;

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// The Track.
    pub track: TrackKey,
    /// Which of its encodings.
    pub encoding: u8,
    /// How loud it is (RFC 6464), where the packet tells.
    pub audio_level: Option<AudioLevel>,
}

impl Room {
    /// Takes an RTP packet of a Participant, authenticated and decrypted, and pushes what goes out for it to `forwards`: at most
    /// one packet for each slot that its Track is in, but for those that begin with it: they get what it goes on with, too.
    ///
    /// # Errors
    ///
    /// Why nothing goes out; counted in [`Room::stats`]. Nothing of it needs an answer.
    pub fn handle_rtp(
        &mut self,
        now: Instant,
        from: ParticipantKey,
        packet: &Packet<'_>,
        forwards: &mut Vec<Forward>,
    ) -> Result<Arrived, Dropped> {
        let before = forwards.len();
        let arrived = self.on_rtp(now, from, packet, forwards);

        self.stats.forwarded += (forwards.len() - before) as u64;
        arrived.inspect_err(|cause| self.stats.count(*cause))
    }

    fn on_rtp(
        &mut self,
        now: Instant,
        from: ParticipantKey,
        packet: &Packet<'_>,
        forwards: &mut Vec<Forward>,
    ) -> Result<Arrived, Dropped> {
        let incoming = self.receive(now, from, packet)?;

        // Who speaks is told by every packet, so that a first word opens its own way.
        let is_heard = !incoming.is_audio
            || incoming.payload.is_empty()
            || self.hear(
                now,
                incoming.arrived.track,
                incoming.arrived.audio_level,
                forwards,
            );
        self.offer(now, from, packet.header(), &incoming, is_heard, forwards)?;
        Ok(incoming.arrived)
    }

    /// Finds out whose a packet is, whether it is new and what it says.
    fn receive<'a>(
        &mut self,
        now: Instant,
        from: ParticipantKey,
        packet: &Packet<'a>,
    ) -> Result<Received<'a>, Dropped> {
        let header = packet.header();
        let publisher = self
            .participants
            .get_mut(from)
            .ok_or(Dropped::UnknownParticipant)?;
        let stream = match publisher.stream(header.ssrc()) {
            Some(stream) => stream,
            None => latch(publisher, &mut self.tracks, header)?,
        };
        let track = self
            .tracks
            .get_mut(stream.track)
            .ok_or(Dropped::UnknownSsrc)?;
        let (format, kind) = track
            .format(header.payload_type())
            .ok_or(Dropped::PayloadType)?;
        let format = *format;
        if stream.is_rtx != (kind == PayloadKind::Rtx) {
            return Err(Dropped::PayloadType);
        }
        if packet.payload().len() > PAYLOAD_LEN_MAX {
            return Err(Dropped::TooLong);
        }

        let is_audio = track.is_audio();
        let asks = track.nack && !track.muted && !track.slots.is_empty();
        let encrypted = track.encrypted;
        let encoding = track
            .encodings
            .get_mut(usize::from(stream.encoding))
            .ok_or(Dropped::UnknownSsrc)?;
        let (arrival, payload) = if stream.is_rtx {
            let (sequence, payload) = rtx::original(packet.payload()).ok_or(Dropped::Padding)?;
            (encoding.receiver.recover(sequence), payload)
        } else {
            let arrival = encoding.receiver.receive(header.sequence_number());
            (arrival, packet.payload())
        };
        let (sequence, is_newest, restarted) = match arrival {
            Arrival::Newest {
                sequence,
                missing,
                restarted,
            } => {
                if restarted {
                    encoding.begin_anew();
                } else if missing > 0 && asks {
                    encoding.missing.skip(now, sequence - missing, missing);
                    let place = (stream.track, stream.encoding);
                    if !self.gaps.contains(&place) {
                        self.gaps.push(place);
                    }
                    self.gaps_at.get_or_insert(now + super::NACK_ROUND);
                }
                (sequence, true, restarted)
            }
            Arrival::Late { sequence } => {
                let round = publisher.round_trip();
                if let Some(sample) = encoding.missing.fill(now, sequence, round)
                    && stream.is_rtx
                {
                    publisher.measure_round_trip(sample);
                }
                (sequence, false, false)
            }
            Arrival::Duplicate => return Err(Dropped::Duplicate),
            Arrival::TooOld => return Err(Dropped::TooOld),
            Arrival::Jump => return Err(Dropped::Jump),
        };
        self.stats.received += 1;
        self.stats.recovered += u64::from(stream.is_rtx);
        encoding.arrived_at = Some(now);
        if !stream.is_rtx && !payload.is_empty() {
            let ticks = self.wall.ticks(now, format.clock_rate);
            encoding.receiver.measure_jitter(header.timestamp(), ticks);
        }

        let extensions = &publisher.config.extensions;
        let value = |kind| extensions.id(kind).and_then(|id| header.extension(id));
        let mut picture = if is_audio || payload.is_empty() {
            Picture::default()
        } else {
            let descriptor = value(ExtensionKind::DependencyDescriptor);
            let dependencies = &mut encoding.dependencies;
            picture::read(format.codec, payload, encrypted, descriptor, dependencies)
                .ok_or(Dropped::Descriptor)?
        };
        let starts_picture = is_newest && encoding.newest_timestamp != Some(header.timestamp());
        // In H.264 each parameter set and slice tells that it is of a key frame; only the first one starts it.
        picture.starts_key_frame &= starts_picture || format.codec != Codec::H264;
        if !payload.is_empty() {
            encoding.rates.count(&picture, payload.len());
            if is_newest {
                encoding.newest_timestamp = Some(header.timestamp());
            }
        }
        if picture.starts_key_frame && is_newest {
            encoding.key_frames.satisfy();
            // Encryption leaves VP8's size in clear, and that of a dependency descriptor.
            encoding.sizes = picture::sizes(format.codec, payload, &encoding.dependencies);
        }

        Ok(Received {
            arrived: Arrived {
                track: stream.track,
                encoding: stream.encoding,
                audio_level: value(ExtensionKind::AudioLevel).and_then(AudioLevel::from_bytes),
            },
            record: Record {
                incoming: Incoming {
                    sequence,
                    timestamp: header.timestamp(),
                    picture,
                },
                marker: header.marker(),
                red: kind == PayloadKind::Red,
                codec: format.codec,
                arrived_at: now,
            },
            payload,
            clock_rate: format.clock_rate,
            is_audio,
            is_newest,
            restarted,
            starts_picture,
        })
    }

    /// Keeps a packet and hands it to all slots that its Track is in.
    fn offer(
        &mut self,
        now: Instant,
        from: ParticipantKey,
        header: &Header<'_>,
        incoming: &Received<'_>,
        is_heard: bool,
        forwards: &mut Vec<Forward>,
    ) -> Result<(), Dropped> {
        let Some((publisher, track)) = self
            .participants
            .get(from)
            .zip(self.tracks.get_mut(incoming.arrived.track))
        else {
            return Err(Dropped::UnknownParticipant);
        };
        if track.muted {
            return Err(Dropped::Muted);
        }
        // Of a voice the last moments are kept even while nobody hears it: they are its first word.
        if track.slots.is_empty() && !incoming.is_audio {
            return Ok(());
        }
        let encrypted = track.encrypted;
        let encoding = track
            .encodings
            .get_mut(usize::from(incoming.arrived.encoding))
            .ok_or(Dropped::UnknownSsrc)?;

        let payload = incoming.payload;
        let position = if payload.is_empty() {
            encoding.beginning.forget();
            None
        } else {
            passed::pack(header, &publisher.config.extensions, &mut self.packed);
            let position = encoding.cache.push(incoming.record, &self.packed, payload);
            let Received {
                record, is_newest, ..
            } = incoming;
            encoding
                .beginning
                .follow(record, *is_newest, position, payload.len());
            Some(position)
        };
        let len = self.packed.len() + payload.len();
        let top = encoding.rates.top();
        let anchors = Anchors {
            track,
            encoding: incoming.arrived.encoding,
            clock_rate: incoming.clock_rate,
        };
        let offered = Offered {
            record: incoming.record,
            encoding: incoming.arrived.encoding,
            position,
            encrypted,
            restarted: incoming.restarted,
            is_newest: incoming.is_newest,
            starts_picture: incoming.starts_picture,
            is_heard,
            top,
            // Less than a datagram.
            len: u16::try_from(len).unwrap_or(u16::MAX),
            clock_rate: incoming.clock_rate,
            offset_to: &|other| anchors.offset_to(other),
        };
        // Who begins with this very packet does as always.
        let beginning = track
            .beginning(now, offered.encoding)
            .filter(|first| position != Some(*first));
        for slot in &track.slots {
            let Some(slot) = self.slots.get_mut(*slot) else {
                continue;
            };
            match beginning {
                Some(first) if slot.may_catch_up(offered.encoding) => {
                    catch_up(now, slot, track, first, &offered, forwards);
                }
                _ => forwards.extend(slot.handle(now, &offered)),
            }
        }
        if position.is_none() {
            return Err(Dropped::Padding);
        }
        Ok(())
    }
}

/// A packet that is new, and what it says.
struct Received<'a> {
    arrived: Arrived,
    record: Record,
    payload: &'a [u8],
    clock_rate: u32,
    is_audio: bool,
    is_newest: bool,
    restarted: bool,
    starts_picture: bool,
}

/// Sends who came just before a packet the key frame at `first` in the cache and all that followed it, that packet included.
fn catch_up(
    now: Instant,
    slot: &mut Slot,
    track: &Track,
    first: u32,
    newest: &Offered<'_>,
    forwards: &mut Vec<Forward>,
) {
    let Some(encoding) = track.encodings.get(usize::from(newest.encoding)) else {
        return;
    };
    let mut timestamp = None;

    for (position, cached) in encoding.cache.from(first) {
        let own = cached.record.incoming.timestamp;
        let len = cached.extensions.len() + cached.payload.len();
        let offered = Offered {
            record: *cached.record,
            position: Some(position),
            starts_picture: timestamp.replace(own) != Some(own),
            // Less than a datagram.
            len: u16::try_from(len).unwrap_or(u16::MAX),
            ..*newest
        };
        forwards.extend(slot.catch_up(now, &offered));
    }
}

/// Where the encodings of a Track stand in time.
struct Anchors<'a> {
    track: &'a Track,
    encoding: u8,
    clock_rate: u32,
}

impl Anchors<'_> {
    /// What is to be added to timestamps of the encoding to have those of `other` at the same time.
    fn offset_to(&self, other: u8) -> Option<u32> {
        if other == self.encoding {
            return Some(0);
        }
        let anchor = |index: u8| self.track.encodings.get(usize::from(index))?.anchor;

        Some(anchor(self.encoding)?.offset_to(&anchor(other)?, self.clock_rate))
    }
}

/// Finds out by its header extensions whose an unknown SSRC is (RFC 8843 §9.2, RFC 8852).
fn latch(
    publisher: &mut Participant,
    tracks: &mut crate::keys::Slab<TrackKey, Track>,
    header: &Header<'_>,
) -> Result<Stream, Dropped> {
    let text = |kind| {
        let id = publisher.config.extensions.id(kind)?;
        read_identifier(header.extension(id)?)
    };
    let mid = text(ExtensionKind::Mid).ok_or(Dropped::UnknownSsrc)?;
    let key = publisher
        .tracks
        .iter()
        .copied()
        .find(|key| {
            tracks
                .get(*key)
                .is_some_and(|track| track.mid.as_deref() == Some(mid))
        })
        .ok_or(Dropped::UnknownSsrc)?;
    let track = tracks.get_mut(key).ok_or(Dropped::UnknownSsrc)?;
    let (_, kind) = track
        .format(header.payload_type())
        .ok_or(Dropped::PayloadType)?;
    let is_rtx = kind == PayloadKind::Rtx;
    let rid = match text(ExtensionKind::RepairedRid) {
        Some(repaired) if is_rtx => Some(repaired),
        _ => text(ExtensionKind::Rid),
    };
    let index = track.encoding_of(rid).ok_or(Dropped::UnknownSsrc)?;
    let encoding = &mut track.encodings[index];

    let own = if is_rtx {
        &mut encoding.rtx_ssrc
    } else {
        &mut encoding.ssrc
    };
    let before = own.replace(header.ssrc());
    let stream = Stream {
        ssrc: header.ssrc(),
        track: key,
        // At most ENCODINGS_MAX.
        encoding: u8::try_from(index).unwrap_or(u8::MAX),
        is_rtx,
    };
    if let Some(before) = before {
        if encoding.ssrc_changes >= SSRC_CHANGES_MAX {
            *own = Some(before);
            return Err(Dropped::TooManySsrcs);
        }
        encoding.ssrc_changes += 1;
        publisher.remove_stream(before);
    }
    if !publisher.add_stream(stream) {
        return Err(Dropped::TooManySsrcs);
    }
    if before.is_some() && !is_rtx {
        encoding.receiver.expect_new_beginning();
    }
    Ok(stream)
}

impl Encoding {
    /// Another sender, or the same one from the beginning: what was learnt of it is of no use.
    fn begin_anew(&mut self) {
        self.missing.clear();
        self.anchor = None;
        self.newest_timestamp = None;
    }
}
