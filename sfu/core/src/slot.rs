//! An outgoing stream to one Participant: a `recvonly` section of theirs, with its own SSRC, numbers and memory, that carries one
//! Track or another. With its Track in it, it is a Subscription.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use crate::cache::Record;
use crate::forward::{Forward, Payload};
use crate::history::{Found, History, Refused, Sent};
use crate::keys::{ParticipantKey, SlotKey, TrackKey};
use crate::pacer::Class;
use crate::picture::Detail;
use crate::receiver::low;
use crate::rewrite::{Numbers, Rewriter, Step};
use crate::track::{Format, Layer};

/// The padding of one packet at most: GSO wants sizes alike, and a length is one byte.
const PADDING_MAX: u16 = 255;

/// The shortest time between two requests for a key frame that one subscriber's decoder is granted.
pub const REQUEST_SPACING: Duration = Duration::from_secs(1);

/// A slot, as negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotConfig {
    /// Whether it carries sound.
    pub audio: bool,
    /// Whether the Room puts Tracks into it by itself: those of who speaks. Audio only.
    pub automatic: bool,
    /// Its media description (RFC 5888).
    pub mid: String,
    /// The SSRC of what leaves in it.
    pub ssrc: u32,
    /// The SSRC of resends, where negotiated; without it nothing is sent again.
    pub rtx_ssrc: Option<u32>,
    /// The formats it takes, with the subscriber's payload types, at most [`crate::FORMATS_MAX`].
    pub formats: Vec<Format>,
    /// The sequence number it begins with: random, below 1 << 15 (RFC 3711 §3.3.1), as is that of resends.
    pub sequence: u16,
    /// The timestamp it begins with: random.
    pub timestamp: u32,
    /// The picture id it begins with: random.
    pub picture_id: u16,
}

/// What is in a slot, and what of it goes out.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) key: SlotKey,
    pub(crate) participant: ParticipantKey,
    pub(crate) audio: bool,
    pub(crate) automatic: bool,
    pub(crate) mid: Box<[u8]>,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
    pub(crate) formats: Vec<Format>,
    /// The bytes of a header with the extensions of this leg.
    pub(crate) header_len: u16,

    /// Whether anything can be sent to the subscriber.
    pub(crate) is_reachable: bool,
    pub(crate) track: Option<TrackKey>,
    /// How the subscriber knows the Track's format.
    pub(crate) format: Option<Format>,
    /// What is wanted; `None` while paused.
    pub(crate) wanted: Option<Layer>,
    /// It came just now: nothing of the Track has gone out, and its first Layer is wanted still.
    is_new: bool,
    /// The encoding that goes out now.
    pub(crate) current: Option<u8>,
    /// What of it.
    pub(crate) detail: Detail,
    /// The spatial layer that goes out without frames of lower ones, where any were left out since the last key frame: nothing but
    /// another lets the subscriber go over to a lower one.
    lean: Option<u8>,

    pub(crate) rewriter: Rewriter,
    /// The encoding that went out last and what was added to its timestamps, while its Track is here.
    aligned: Option<(u8, u32)>,
    history: History,
    rtx_sequence: u64,
    /// When the newest key frame began to go out.
    key_frame_at: Option<Instant>,
    /// When the subscriber last asked for one and was listened to.
    key_frame_asked_at: Option<Instant>,

    /// The newest number written, or the one before the first.
    pub(crate) newest_written: u64,
    /// Packets and payload bytes written since the slot began (RFC 3550 §6.4.1), and whether any were since the last report.
    pub(crate) packets: u32,
    pub(crate) octets: u32,
    pub(crate) was_written: bool,
    /// The subscriber has reported about the SSRC, so it needs no mid to tell whose it is.
    pub(crate) knows_mid: bool,
}

/// What a slot leaves behind for one with the same SSRC: its numbers must go on, since SRTP seals each but once (RFC 3711
/// §9.1; under AES-GCM a second time gives the key away, RFC 7714 §8.1).
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
    rewriter: Rewriter,
    rtx_sequence: u64,
    newest_written: u64,
    packets: u32,
    octets: u32,
}

/// An incoming packet, as all slots of its Track see it.
#[derive(Clone, Copy)]
pub(crate) struct Offered<'a> {
    pub(crate) record: Record,
    pub(crate) encoding: u8,
    /// Where it lies in the cache; `None` for one without payload, which nobody gets.
    pub(crate) position: Option<u32>,
    /// End-to-end encrypted.
    pub(crate) encrypted: bool,
    /// The first packet that the publisher sent after beginning anew.
    pub(crate) restarted: bool,
    /// Newer than all before.
    pub(crate) is_newest: bool,
    /// The first packet of its picture.
    pub(crate) starts_picture: bool,
    /// It is of a voice that is heard in automatic slots, or no voice.
    pub(crate) is_heard: bool,
    /// The highest layers its encoding has, as far as known.
    pub(crate) top: Detail,
    /// The bytes of payload and header extensions.
    pub(crate) len: u16,
    pub(crate) clock_rate: u32,
    /// What is to be added to its timestamps to have those of another encoding at the same time.
    pub(crate) offset_to: &'a dyn Fn(u8) -> Option<u32>,
}

/// What a NACK for one number leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Send(Forward),
    Refused(Refused),
    /// The publisher is being asked for it, or nobody knows it.
    Nothing,
}

impl Slot {
    pub(crate) fn new(
        now: Instant,
        key: SlotKey,
        participant: ParticipantKey,
        header_len: u16,
        config: SlotConfig,
    ) -> Self {
        let sequence = config.sequence & 0x7fff;

        Self {
            key,
            participant,
            audio: config.audio,
            automatic: config.automatic && config.audio,
            mid: config.mid.into_bytes().into_boxed_slice(),
            ssrc: config.ssrc,
            rtx_ssrc: config.rtx_ssrc,
            formats: config.formats,
            header_len,
            is_reachable: true,
            track: None,
            format: None,
            wanted: None,
            is_new: false,
            current: None,
            detail: Detail {
                spatial: 0,
                temporal: 0,
            },
            lean: None,
            rewriter: Rewriter::new(sequence, config.timestamp, config.picture_id),
            aligned: None,
            history: History::new(now),
            rtx_sequence: u64::from(sequence),
            key_frame_at: None,
            key_frame_asked_at: None,
            newest_written: u64::from(sequence).saturating_sub(1),
            packets: 0,
            octets: 0,
            was_written: false,
            knows_mid: false,
        }
    }

    /// Goes on where the slot that had its SSRCs before ended.
    pub(crate) fn go_on(&mut self, ended: Ended) {
        self.rewriter = ended.rewriter;
        self.rtx_sequence = ended.rtx_sequence;
        self.newest_written = ended.newest_written;
        (self.packets, self.octets) = (ended.packets, ended.octets);
    }

    pub(crate) fn into_ended(mut self) -> Ended {
        self.rewriter.forget_source();
        Ended {
            ssrc: self.ssrc,
            rtx_ssrc: self.rtx_ssrc,
            rewriter: self.rewriter,
            rtx_sequence: self.rtx_sequence,
            newest_written: self.newest_written,
            packets: self.packets,
            octets: self.octets,
        }
    }

    /// Whether one of these SSRCs is its own.
    pub(crate) fn has_any(&self, ssrcs: [Option<u32>; 2]) -> bool {
        [Some(self.ssrc), self.rtx_ssrc]
            .into_iter()
            .any(|own| own.is_some() && ssrcs.contains(&own))
    }

    /// How this slot would carry `format`, if it can.
    pub(crate) fn accepts(&self, format: &Format) -> Option<Format> {
        self.formats
            .iter()
            .find(|own| (own.codec, own.variant) == (format.codec, format.variant))
            .copied()
    }

    /// Puts a Track in, in the format the subscriber knows.
    pub(crate) fn attach(&mut self, track: TrackKey, format: Format) {
        self.detach();
        self.track = Some(track);
        self.format = Some(format);
        self.wanted = Some(Layer {
            encoding: 0,
            spatial: u8::MAX,
            temporal: u8::MAX,
        });
        self.is_new = true;
    }

    /// Takes what is wanted from now on; whether that is another Layer.
    pub(crate) fn want(&mut self, layer: Option<Layer>) -> bool {
        let encoding = |layer: Option<Layer>| layer.map(|layer| layer.encoding);

        self.is_new &= encoding(self.wanted) == encoding(layer);
        std::mem::replace(&mut self.wanted, layer) != layer
    }

    pub(crate) fn detach(&mut self) {
        self.stop();
        self.history.forget_payloads();
        (self.track, self.format, self.wanted) = (None, None, None);
        self.aligned = None;
    }

    /// What went out ends here: nothing more goes out before a new beginning (a key frame, for video).
    pub(crate) fn stop(&mut self) {
        self.current = None;
    }

    /// The encoding a key frame of which is needed, if any; `top` tells what the encodings have.
    pub(crate) fn key_frame_needed(&self, top: impl Fn(u8) -> Detail) -> Option<u8> {
        let wanted = self.wanted.filter(|_| !self.audio && self.is_reachable)?;
        let has_other_detail = || {
            let goal = wanted.spatial.min(top(wanted.encoding).spatial);
            self.detail.spatial < goal || self.lean.is_some_and(|lean| goal < lean)
        };

        (self.current != Some(wanted.encoding) || has_other_detail()).then_some(wanted.encoding)
    }

    /// Whether an encoding is begun with its newest key frame, though that was before, and not with another one.
    pub(crate) fn may_catch_up(&self, encoding: u8) -> bool {
        self.is_new
            && self.is_reachable
            && self.current.is_none()
            && self
                .wanted
                .is_some_and(|wanted| wanted.encoding == encoding)
    }

    /// Whether to listen to a subscriber `round` away who asks for a key frame: not if one is on its way to them, and not more
    /// often than every [`REQUEST_SPACING`], for all others pay for it.
    pub(crate) fn may_ask_for_key_frame(&mut self, now: Instant, round: Duration) -> bool {
        let is_within = |at: Option<Instant>, duration| {
            at.is_some_and(|at| now.saturating_duration_since(at) < duration)
        };

        if is_within(self.key_frame_at, round)
            || is_within(self.key_frame_asked_at, REQUEST_SPACING)
        {
            return false;
        }
        self.key_frame_asked_at = Some(now);
        true
    }

    /// Takes a packet of the slot's Track; gives what goes out for it.
    #[inline]
    pub(crate) fn handle(&mut self, now: Instant, offered: &Offered<'_>) -> Option<Forward> {
        if !self.is_reachable || (self.automatic && !offered.is_heard) {
            self.stop();
            return None;
        }

        let step = if !offered.is_newest {
            if self.current != Some(offered.encoding) {
                return None;
            }
            let takes = self.takes(offered);
            self.rewriter
                .late(&offered.record.incoming, |picture, detail| {
                    takes && picture.is_within(detail, offered.top)
                })
        } else if self.current == Some(offered.encoding) && !self.ends_before(offered) {
            self.follow_wanted(offered);
            self.follow(now, offered)
        } else if self.may_begin(offered) {
            self.begin(now, offered);
            self.rewriter
                .newest(now, &offered.record.incoming, self.detail, true)
        } else {
            return None;
        };

        self.finish(now, offered, step)
    }

    /// Takes a packet of a key frame that was before, or of what followed that; all of them are to be taken, the newest one included, one
    /// after the other. Of temporal layers the lowest is enough to see what is next.
    pub(crate) fn catch_up(&mut self, now: Instant, offered: &Offered<'_>) -> Option<Forward> {
        let step = if self.current.is_none() {
            self.begin(now, offered);
            self.detail.temporal = 0;
            self.rewriter
                .newest(now, &offered.record.incoming, self.detail, true)
        } else {
            if offered.starts_picture {
                self.rewriter.catch_up(offered.record.incoming.timestamp);
                self.aligned = Some((offered.encoding, self.rewriter.timestamp_offset()));
            }
            self.follow(now, offered)
        };

        self.finish(now, offered, step)
    }

    /// Takes the next packet of what goes out.
    fn follow(&mut self, now: Instant, offered: &Offered<'_>) -> Step {
        let picture = &offered.record.incoming.picture;
        let keep = self.takes(offered) && picture.is_within(self.detail, offered.top);
        let spatial = self.detail.spatial.min(offered.top.spatial);

        if picture.is_unneeded_by(spatial) {
            self.lean = Some(spatial);
        }
        self.rewriter
            .newest(now, &offered.record.incoming, self.detail, keep)
    }

    fn finish(&mut self, now: Instant, offered: &Offered<'_>, step: Step) -> Option<Forward> {
        match step {
            Step::Forward(numbers) => self.forward(now, offered, &numbers),
            Step::Fill(numbers) => self.fill(now, numbers.sequence, numbers.timestamp),
            Step::Skip => None,
        }
    }

    /// Answers a NACK for one number, from a subscriber `round` away.
    pub(crate) fn resend(&mut self, now: Instant, number: u16, round: Duration) -> Answer {
        let (Some(_), Some(payload_type)) =
            (self.rtx_ssrc, self.format.and_then(|format| format.rtx))
        else {
            return Answer::Nothing;
        };

        match self.history.resend(now, number, round) {
            Found::Resend(sent) => match self.resent(&sent, payload_type, Class::Retransmission) {
                Some(forward) => Answer::Send(forward),
                None => Answer::Nothing,
            },
            Found::Spent(refused) => Answer::Refused(refused),
            // What was left for packets of an encoding that goes out no more will never come.
            Found::Hole(sequence)
                if self.current.is_none() || sequence < self.rewriter.began_with() =>
            {
                let timestamp = self.history.timestamp_near(sequence);
                self.fill(now, sequence, timestamp)
                    .map_or(Answer::Nothing, Answer::Send)
            }
            Found::Hole(_) | Found::Unknown => Answer::Nothing,
        }
    }

    /// A packet that does no harm and is about `wire_len` bytes long: a recent one again, or nothing but padding. `is_kept` tells
    /// whether what lies at a position of an encoding's cache can still be sent.
    pub(crate) fn pad(
        &mut self,
        wire_len: u16,
        is_kept: impl Fn(u8, u32) -> bool,
    ) -> Option<Forward> {
        self.rtx_ssrc?;
        let payload_type = self.format?.rtx?;
        let header_len = self.header_len;
        let fits = |sent: &Sent| {
            let len = sent.len.saturating_add(header_len + 2);
            let is_like = len <= wire_len && len > wire_len / 2;
            is_like
                && sent
                    .position
                    .is_some_and(|position| is_kept(sent.encoding, position))
        };

        if let Some(sent) = self.history.newest_that(fits) {
            return self.resent(&sent, payload_type, Class::Video);
        }
        // Also before anything was sent: a Track may be paused until a probe finds room for it.
        let timestamp = self.rewriter.timestamp();
        let padding = wire_len.saturating_sub(header_len).clamp(1, PADDING_MAX);
        let forward = Forward {
            timestamp,
            payload: Payload::Padding(u8::try_from(padding).unwrap_or(u8::MAX)),
            payload_type,
            index: self.rtx_sequence,
            class: Class::Video,
            wire_len: header_len.saturating_add(padding),
            ..self.blank()?
        };
        self.rtx_sequence += 1;
        Some(forward)
    }

    /// Whether what goes out ends with the picture before this packet's.
    fn ends_before(&mut self, offered: &Offered<'_>) -> bool {
        let ends = offered.restarted || (offered.starts_picture && self.wanted.is_none());

        if ends {
            self.stop();
        }
        ends
    }

    /// Whether what goes out may go over to this packet's encoding with it.
    fn may_begin(&self, offered: &Offered<'_>) -> bool {
        let Some(wanted) = self.wanted else {
            return false;
        };
        if !self.takes(offered) {
            return false;
        }
        if self.audio {
            return self.current.is_none();
        }

        // Something smaller than what is wanted is better than nothing until that comes.
        let fits = offered.encoding == wanted.encoding
            || (self.current.is_none() && offered.encoding < wanted.encoding);
        fits && offered.record.incoming.picture.starts_key_frame
    }

    fn begin(&mut self, now: Instant, offered: &Offered<'_>) {
        let offset = self.aligned.and_then(|(encoding, offset)| {
            Some(offset.wrapping_add((offered.offset_to)(encoding)?))
        });

        self.detail = self.wanted.map_or(self.detail, Layer::detail);
        self.lean = None;
        self.is_new = false;
        self.rewriter.begin(
            now,
            offered.clock_rate,
            &offered.record.incoming,
            self.detail,
            offset,
        );
        self.aligned = Some((offered.encoding, self.rewriter.timestamp_offset()));
        self.current = Some(offered.encoding);
    }

    /// Takes up or leaves out layers where that is possible without harm.
    fn follow_wanted(&mut self, offered: &Offered<'_>) {
        let Some(wanted) = self.wanted else {
            return;
        };
        if offered.record.incoming.picture.starts_key_frame {
            self.lean = None;
        }
        let goal = match offered.encoding.cmp(&wanted.encoding) {
            Ordering::Equal => wanted.detail(),
            // Something larger goes out only until the key frame of what is wanted: with as little as there is of it.
            Ordering::Greater => Detail {
                temporal: 0,
                ..self.detail
            },
            Ordering::Less => return,
        };
        if goal == self.detail {
            return;
        }

        // Only with the first packet of a picture, so that what is missing before it was all wanted as before.
        let picture = &offered.record.incoming.picture;
        if picture.starts_key_frame {
            self.detail = goal;
            return;
        }
        let goal = if self.lean.is_some_and(|lean| goal.spatial < lean) {
            // As little as there is of it until the key frame.
            Detail {
                spatial: self.detail.spatial,
                temporal: 0,
            }
        } else {
            goal
        };
        if picture.starts_frame && picture.spatial == 0 {
            self.detail.spatial = self.detail.spatial.min(goal.spatial);
            self.detail.temporal = self.detail.temporal.min(goal.temporal);
        }
        if let Some(up_to) = picture.switches_up_to
            && picture.starts_frame
            && picture.temporal <= goal.temporal
            && picture.spatial == self.detail.spatial.min(offered.top.spatial)
        {
            self.detail.temporal = self.detail.temporal.max(up_to.min(goal.temporal));
        }
        if picture.starts_frame
            && picture.is_independent
            && picture.spatial <= goal.spatial
            && picture.spatial == self.detail.spatial.saturating_add(1)
        {
            self.detail.spatial = picture.spatial;
        }
    }

    /// Whether the packet can go out at all: it has a payload that the subscriber understands.
    fn takes(&self, offered: &Offered<'_>) -> bool {
        let has_red = || self.format.is_some_and(|format| format.red.is_some());

        offered.position.is_some() && (!offered.record.red || !offered.encrypted || has_red())
    }

    fn forward(
        &mut self,
        now: Instant,
        offered: &Offered<'_>,
        numbers: &Numbers,
    ) -> Option<Forward> {
        let format = self.format?;
        let position = offered.position?;
        let picture = &offered.record.incoming.picture;

        if picture.starts_key_frame {
            self.key_frame_at = Some(now);
        }
        let (payload, payload_type) = match format.red {
            None if offered.record.red => (Payload::Primary { position }, format.payload_type),
            Some(red) if offered.record.red => (cached(offered.encoding, position), red),
            _ => (cached(offered.encoding, position), format.payload_type),
        };
        // The first packet of a source of sound tells the receiver that a talkspurt begins (RFC 3551 §4.1), and the last
        // packet of the layers that go out is the last of the picture.
        let marker = offered.record.marker
            || (self.audio && numbers.sequence == self.rewriter.began_with())
            || (picture.ends_frame
                && picture.spatial == self.detail.spatial
                && self.detail.spatial < offered.top.spatial);

        let forward = Forward {
            index: numbers.sequence,
            timestamp: numbers.timestamp,
            payload,
            picture_id: numbers.picture_id,
            tl0_picture_index: numbers.tl0_picture_index,
            frame_number: numbers.frame_number,
            payload_type,
            marker,
            wire_len: self.header_len.saturating_add(offered.len),
            ..self.blank()?
        };
        self.remember(
            now,
            &forward,
            Some((offered.encoding, position)),
            offered.len,
        );
        Some(forward)
    }

    /// An empty packet in place of one that will not come.
    fn fill(&mut self, now: Instant, sequence: u64, timestamp: u32) -> Option<Forward> {
        let forward = Forward {
            index: sequence,
            timestamp,
            ..self.blank()?
        };

        self.remember(now, &forward, None, 0);
        Some(forward)
    }

    fn resent(&mut self, sent: &Sent, payload_type: u8, class: Class) -> Option<Forward> {
        let sequence = low(sent.sequence);
        let payload = match sent.position {
            Some(position) => Payload::Resent {
                encoding: sent.encoding,
                position,
                sequence,
            },
            None => Payload::ResentEmpty { sequence },
        };
        let forward = Forward {
            index: self.rtx_sequence,
            timestamp: sent.timestamp,
            payload,
            picture_id: sent.picture_id,
            tl0_picture_index: sent.tl0_picture_index,
            frame_number: sent.frame_number,
            payload_type,
            marker: sent.marker,
            class,
            wire_len: self.header_len.saturating_add(sent.len).saturating_add(2),
            ..self.blank()?
        };

        self.rtx_sequence += 1;
        Some(forward)
    }

    fn remember(&mut self, now: Instant, forward: &Forward, place: Option<(u8, u32)>, len: u16) {
        // Without RTX nothing is sent again.
        if self.rtx_ssrc.is_none() {
            return;
        }

        self.history.insert(
            now,
            Sent {
                sequence: forward.index,
                timestamp: forward.timestamp,
                position: place.map(|(_, position)| position),
                encoding: place.map_or(0, |(encoding, _)| encoding),
                marker: forward.marker,
                picture_id: forward.picture_id,
                tl0_picture_index: forward.tl0_picture_index,
                frame_number: forward.frame_number,
                len,
            },
        );
    }

    /// An empty packet of the Track.
    fn blank(&self) -> Option<Forward> {
        Some(Forward {
            participant: self.participant,
            slot: self.key,
            track: self.track?,
            index: 0,
            timestamp: 0,
            payload: Payload::Empty,
            picture_id: 0,
            tl0_picture_index: 0,
            frame_number: 0,
            payload_type: self.format?.payload_type,
            marker: false,
            class: if self.audio {
                Class::Audio
            } else {
                Class::Video
            },
            wire_len: self.header_len.saturating_add(1),
        })
    }
}

const fn cached(encoding: u8, position: u32) -> Payload {
    Payload::Cached { encoding, position }
}
