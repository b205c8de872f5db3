//! A Participant as a shard knows them: how they are reached, their keys, what they are sent and may send.

use std::time::{Duration, Instant};

use model::id::{ParticipantId, TrackId};
use model::media::Slot;
use model::room::{Permissions, Source};
use relay_stun::IntegrityKey;
use sfu_core::downlink::{Downlink, What};
use sfu_core::feedback::{Arrivals, Remb};
use sfu_core::layers::Budget;
use sfu_core::quality::Steady;
use sfu_core::{Bitrate, Forward, ParticipantKey, Room as Core, SlotKey, Stamps, TrackKey};
use sfu_rtp::BufferTooSmall;
use sfu_rtp::extension::AbsSendTime;
use sfu_rtp::rtcp::Builder;
use sfu_rtp::srtp::{Inbound, Outbound};

use crate::bucket::Bucket;
use crate::data::Talk;
use crate::exit::Exit;
use crate::figures::{Drop, Figures};
use crate::outgoing::Way;
use crate::peer::{Agreed, Feedback, Peer};
use crate::wishes::Wants;

/// How many addresses of a Participant are known at once: candidates of two families, some behind other NATs.
const WAYS_MAX: usize = 8;

/// How many addresses a Participant may prove to have until ICE begins anew. The library keeps each of them that long, and a request
/// costs it as much as there are.
pub(crate) const WAYS_LEARNT_MAX: usize = 64;

/// How many signed requests of a Participant are answered per second, and at once. ICE sends one in 50 ms while it looks for a way
/// (RFC 8445 §14.2), over each of some interfaces.
const CHECKS_PER_SECOND: f64 = 100.0;
const CHECKS_BURST: f64 = 200.0;

/// How much may come at once above the rate a Participant may send with: a key frame of a shared screen.
const INTAKE_BURST: Duration = Duration::from_millis(500);

/// How long the RTCP a shard writes itself may be.
const FEEDBACK_LEN_MAX: usize = 1200;

/// What a Participant hears about what they send.
#[derive(Debug)]
pub(crate) enum Uplink {
    /// When each packet arrived.
    Arrivals(Arrivals),
    /// A ceiling.
    Ceiling(Remb),
    /// Reports of loss alone.
    Reports,
}

/// Whether media can flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not yet.
    Connecting,
    /// It does.
    Connected,
    /// It did.
    Disconnected,
}

/// A media description of a Participant.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) mid: String,
    pub(crate) is_audio: bool,
    /// What they send there.
    pub(crate) track: Option<(TrackId, TrackKey)>,
    /// What they receive there.
    pub(crate) slot: Option<Carrier>,
    /// What the slot carries now has not been told.
    pub(crate) is_news: bool,
}

/// A slot, and what is in it.
#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) key: SlotKey,
    pub(crate) track: Option<Carried>,
    /// It was told that nothing is sent for lack of bandwidth.
    pub(crate) is_paused: bool,
}

impl Carrier {
    pub(crate) fn new(key: SlotKey) -> Self {
        Self {
            key,
            track: None,
            is_paused: false,
        }
    }

    /// Puts a Track into the slot, or none.
    pub(crate) fn put(&mut self, track: Option<Carried>) {
        self.track = track;
        self.is_paused = false;
    }
}

/// A Track in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) id: TrackId,
    pub(crate) key: TrackKey,
    pub(crate) source: Source,
}

impl Carried {
    pub(crate) fn of(track: &Track) -> Self {
        Self {
            id: track.id,
            key: track.key,
            source: track.source,
        }
    }
}

/// Whose a Track is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A Participant's with a Peer, by their place.
    Peer(usize),
    /// A [plain](crate::plain) one's, by their place among those.
    Plain(usize),
}

/// A Track of a Participant, as the Room knows it.
#[derive(Debug, Clone)]
pub(crate) struct Track {
    pub(crate) id: TrackId,
    pub(crate) key: TrackKey,
    pub(crate) owner: Owner,
    pub(crate) source: Source,
    /// As its owner or a moderator says.
    pub(crate) is_muted: bool,
    /// Muted, or not permitted.
    pub(crate) is_silent: bool,
    /// In the order of the offer; empty names without simulcast.
    pub(crate) rids: Vec<String>,
}

/// What each direction of a Participant may carry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bitrates {
    pub(crate) up: Bitrate,
    pub(crate) down: Bitrate,
}

/// A Participant.
pub(crate) struct Participant {
    pub(crate) id: ParticipantId,
    /// Their Room's place.
    pub(crate) room: usize,
    pub(crate) key: ParticipantKey,
    pub(crate) peer: Peer,
    /// What their STUN requests begin with, and are signed with.
    pub(crate) ufrag: String,
    pub(crate) password: IntegrityKey,
    /// Where they have proved to be, the latest last.
    pub(crate) ways: Vec<Way>,
    /// All that they have proved to have since ICE began, at most [`WAYS_LEARNT_MAX`].
    learnt: Vec<Way>,
    checks: Bucket,
    /// Where they want media.
    pub(crate) way: Option<Way>,
    pub(crate) keys: Option<(Inbound, Outbound)>,
    pub(crate) downlink: Downlink<Forward>,
    pub(crate) uplink: Uplink,
    down: Feedback,
    bitrates: Bitrates,
    /// What may come in, in bytes.
    intake: Bucket,
    /// What we are called in RTCP to them.
    pub(crate) ssrc: u32,
    cname: Box<str>,
    /// Whether RTCP to them may be without a report (RFC 5506).
    reduces_rtcp: bool,
    /// What they sent last as.
    pub(crate) ssrc_seen: u32,
    /// The number of the transport-wide sequence number among the header extensions of what they send.
    pub(crate) sequence_id: Option<u8>,
    pub(crate) permissions: Permissions,
    /// What they send and receive is encrypted from end to end.
    pub(crate) encrypted: bool,
    pub(crate) wants: Wants,
    /// What they say over data channels.
    pub(crate) talk: Talk,
    pub(crate) generation: u32,
    pub(crate) sections: Vec<Section>,
    pub(crate) state: State,
    /// Since when there are pictures for them.
    pub(crate) seen_since: Option<Instant>,
    pub(crate) joined_at: Instant,
    /// When something authenticated came last.
    pub(crate) heard_at: Instant,
    /// What is in their slots has to be thought over.
    pub(crate) is_renewed: bool,
    /// It was, and what slots there should be has not been told.
    pub(crate) is_refilled: bool,
    /// What signaling knows of the slots there should be.
    pub(crate) wanted_told: (u16, u16),
    /// When the library wants to be called.
    pub(crate) peer_due: Option<Instant>,
    /// When Layers are chosen anew; `None` while they see nothing.
    pub(crate) choose_due: Option<Instant>,
    pub(crate) budget: Budget,
    /// What all they want to receive would take.
    pub(crate) wished: Bitrate,
    pub(crate) quality: Steady,
    /// When connection and figures are looked at.
    pub(crate) look_due: Instant,
    /// What the timers remember.
    pub(crate) due: Option<Instant>,
    /// Among those who have something to be sent.
    pub(crate) is_waiting: bool,
    /// Among those whom something was told over data channels.
    pub(crate) is_told: bool,
    /// The core knows that they can be sent something.
    pub(crate) is_reached: bool,
    /// Since when something they should see does not fit.
    pub(crate) short_since: Option<Instant>,
}

/// What makes a Participant.
pub(crate) struct Newcomer {
    pub(crate) id: ParticipantId,
    pub(crate) room: usize,
    pub(crate) key: ParticipantKey,
    pub(crate) peer: Peer,
    pub(crate) permissions: Permissions,
    pub(crate) encrypted: bool,
    pub(crate) generation: u32,
    pub(crate) ssrc: u32,
    pub(crate) cname: Box<str>,
    pub(crate) bitrates: Bitrates,
}

impl Participant {
    pub(crate) fn new(now: Instant, newcomer: Newcomer, agreed: &Agreed) -> Self {
        let bitrates = newcomer.bitrates;
        let mut participant = Self {
            id: newcomer.id,
            room: newcomer.room,
            key: newcomer.key,
            peer: newcomer.peer,
            ufrag: agreed.ufrag.clone(),
            password: IntegrityKey::short_term(&agreed.password),
            ways: Vec::new(),
            learnt: Vec::new(),
            checks: Bucket::new(now, CHECKS_PER_SECOND, CHECKS_BURST),
            way: None,
            keys: None,
            downlink: downlink(now, agreed.down, bitrates),
            uplink: uplink(now, agreed.up, bitrates),
            down: agreed.down,
            bitrates,
            intake: intake(now, bitrates.up),
            ssrc: newcomer.ssrc,
            cname: newcomer.cname,
            reduces_rtcp: agreed.reduces_rtcp,
            ssrc_seen: 0,
            sequence_id: None,
            permissions: newcomer.permissions,
            encrypted: newcomer.encrypted,
            wants: Wants::new(true, Vec::new()),
            talk: Talk::new(now),
            generation: newcomer.generation,
            sections: Vec::new(),
            state: State::Connecting,
            seen_since: None,
            joined_at: now,
            heard_at: now,
            is_renewed: false,
            is_refilled: false,
            wanted_told: (0, 0),
            peer_due: Some(now),
            choose_due: None,
            budget: Budget::new(),
            wished: Bitrate::ZERO,
            quality: Steady::new(),
            look_due: now,
            due: None,
            is_waiting: false,
            is_told: false,
            is_reached: false,
            short_since: None,
        };
        participant.follow(now, agreed);
        participant
    }

    /// Goes by what was agreed on again; sections are the caller's.
    pub(crate) fn follow(&mut self, now: Instant, agreed: &Agreed) {
        if self.ufrag != agreed.ufrag {
            self.learnt.clear();
        }
        self.ufrag.clone_from(&agreed.ufrag);
        self.password = IntegrityKey::short_term(&agreed.password);
        self.sequence_id = agreed.sequence_id();
        self.reduces_rtcp = agreed.reduces_rtcp;
        if self.down != agreed.down {
            self.down = agreed.down;
            self.downlink = downlink(now, agreed.down, self.bitrates);
        }
        let is_same = matches!(
            (&self.uplink, agreed.up),
            (Uplink::Arrivals(_), Feedback::Transport)
                | (Uplink::Ceiling(_), Feedback::Estimate)
                | (Uplink::Reports, Feedback::None)
        );
        if !is_same {
            self.uplink = uplink(now, agreed.up, self.bitrates);
        }
    }

    /// Whether to answer a signed request from `way`: there have not been too many of them, nor from too many addresses.
    pub(crate) fn may_check(&mut self, now: Instant, way: Way) -> bool {
        if !self.checks.takes(now, 1.0) {
            return false;
        }
        let is_known = self.learnt.contains(&way);
        if !is_known && self.learnt.len() < WAYS_LEARNT_MAX {
            self.learnt.push(way);
            return true;
        }
        is_known
    }

    /// Remembers an address they have proved to have; returns one that is forgotten for it.
    pub(crate) fn learn(&mut self, way: Way) -> Option<Way> {
        if self.ways.contains(&way) {
            return None;
        }
        self.ways.push(way);
        if self.ways.len() <= WAYS_MAX {
            return None;
        }
        let oldest = self
            .ways
            .iter()
            .position(|known| Some(*known) != self.way)?;
        Some(self.ways.remove(oldest))
    }

    /// Whether `len` more bytes may come in.
    pub(crate) fn takes(&mut self, now: Instant, len: usize) -> bool {
        self.intake.takes(now, len as f64)
    }

    /// Whether there are keys and an address to send media with.
    pub(crate) fn can_be_reached(&self) -> bool {
        self.keys.is_some() && self.way.is_some()
    }

    /// Puts a packet into their queue; whether it has room.
    pub(crate) fn push(&mut self, now: Instant, forward: Forward) -> bool {
        // Who can't be reached is sent nothing late.
        !self.can_be_reached()
            || self
                .downlink
                .push(now, forward.class(), forward.wire_len(), forward)
                .is_ok()
    }

    /// Sends what may leave now.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        started: Instant,
        core: &mut Core,
        exit: &mut Exit,
        figures: &mut Figures,
    ) {
        let (Some((_, outbound)), Some(way)) = (&mut self.keys, self.way) else {
            return;
        };
        let micros = now.saturating_duration_since(started).as_micros();
        let sent_at = AbsSendTime::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        self.downlink.handle_timeout(now);
        while let Some(departure) = self.downlink.poll_send(now) {
            let (forward, asked) = match departure.what {
                What::Packet(forward) => (Some(forward), forward.wire_len()),
                What::Padding(len) => (core.pad(self.key, len), len),
            };
            let stamps = Stamps {
                transport_sequence: Some(departure.sequence),
                abs_send_time: Some(sent_at),
            };
            let space = exit.space();
            let written = forward.and_then(|forward| core.write(&forward, space, stamps));
            let sealed = written.and_then(|written| {
                let sealed =
                    outbound.seal_rtp(space, written.header_len, written.len, written.index);
                Some((written.len, sealed.ok()?))
            });
            let len = match sealed {
                Some((len, sealed)) => {
                    exit.put(way, sealed);
                    u16::try_from(len).unwrap_or(u16::MAX)
                }
                None => 0,
            };
            if len != asked {
                self.downlink.amend(now, &departure, len);
            }
            if len == 0 && forward.is_some() {
                figures.drop_packet(Drop::Late);
            }
        }
    }

    /// Tells them how what they send arrives, if it is time.
    pub(crate) fn send_feedback(&mut self, now: Instant, exit: &mut Exit) {
        let (Some((_, outbound)), Some(way)) = (&mut self.keys, self.way) else {
            return;
        };
        loop {
            let space = exit.space();
            let mut builder = Builder::new(&mut space[..FEEDBACK_LEN_MAX]);
            if !self.reduces_rtcp && compound(&mut builder, self.ssrc, &self.cname).is_err() {
                return;
            }
            let written = match &mut self.uplink {
                Uplink::Reports => return,
                Uplink::Arrivals(arrivals) => {
                    let Some(report) = arrivals.poll_report(now) else {
                        return;
                    };
                    let taken = builder.transport_feedback(
                        self.ssrc,
                        self.ssrc_seen,
                        report.count,
                        report.base,
                        report.arrivals,
                    );
                    let taken = taken.unwrap_or(0);
                    // What can't be written at all is not tried again.
                    arrivals.reported(now, taken.max(1));
                    taken > 0
                }
                Uplink::Ceiling(remb) => {
                    let Some(ceiling) = remb.poll(now) else {
                        return;
                    };
                    builder
                        .remb(self.ssrc, ceiling.as_bps(), &[self.ssrc_seen])
                        .is_ok()
                }
            };
            let len = builder.len();
            if written && let Ok(len) = outbound.seal_rtcp(space, len) {
                exit.put(way, len);
            }
        }
    }

    /// When something is due.
    pub(crate) fn next_due(&self, now: Instant) -> Instant {
        let feedback = match &self.uplink {
            _ if self.keys.is_none() => None,
            Uplink::Arrivals(arrivals) => arrivals.poll_timeout(),
            Uplink::Ceiling(remb) => Some(remb.poll_timeout(now)),
            Uplink::Reports => None,
        };
        let downlink = self
            .keys
            .as_ref()
            .and_then(|_| self.downlink.poll_timeout(now));
        [self.peer_due, downlink, feedback, self.choose_due]
            .into_iter()
            .flatten()
            .fold(self.look_due, Instant::min)
    }

    /// Whether a Track is in one of their slots.
    pub(crate) fn carries(&self, track: TrackKey) -> bool {
        let carriers = self
            .sections
            .iter()
            .filter_map(|section| section.slot.as_ref());
        carriers
            .filter_map(|carrier| carrier.track)
            .any(|carried| carried.key == track)
    }

    /// What their slots carry.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let slot = |section: &Section| {
            let carrier = section.slot.as_ref()?;
            Some(Slot {
                mid: section.mid.clone(),
                track: carrier.track.map(|track| track.id),
            })
        };
        self.sections.iter().filter_map(slot).collect()
    }
}

fn intake(now: Instant, limit: Bitrate) -> Bucket {
    let bytes_per_second = limit.as_bps() as f64 / 8.0;
    let burst = bytes_per_second * INTAKE_BURST.as_secs_f64();
    Bucket::new(now, bytes_per_second, burst)
}

fn downlink(now: Instant, feedback: Feedback, bitrates: Bitrates) -> Downlink<Forward> {
    let mut downlink = Downlink::new(now, feedback.into());
    downlink.set_max(bitrates.down);
    downlink
}

/// Begins what both sides have not agreed to do without (RFC 3550 §6.1, RFC 4585 §3.1): a report and who it is from.
fn compound(builder: &mut Builder<'_>, ssrc: u32, cname: &str) -> Result<(), BufferTooSmall> {
    builder.receiver_report(ssrc, &[])?;
    builder.source_description(ssrc, cname)
}

fn uplink(now: Instant, feedback: Feedback, bitrates: Bitrates) -> Uplink {
    match feedback {
        Feedback::Transport => Uplink::Arrivals(Arrivals::new(now)),
        Feedback::Estimate => Uplink::Ceiling(Remb::new(bitrates.up)),
        Feedback::None => Uplink::Reports,
    }
}
