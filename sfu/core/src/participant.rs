//! A Participant: the incoming streams of their Tracks, their slots, and what is to be told to them over RTCP.

use std::time::{Duration, Instant};

use sfu_rtp::extension::ExtensionMap;

use crate::clock::PublisherClock;
use crate::keys::{SlotKey, TrackKey};
use crate::quality::Uplink;
use crate::slot::Ended;

/// The most incoming SSRCs of a Participant.
pub const SSRCS_MAX: usize = 64;

/// The most outgoing SSRCs of a Participant, those of slots that have ended included: each could come again.
pub const SSRCS_OUT_MAX: usize = 1024;

/// How many packets a Participant may ask for again in a tenth of a second; more is a flood, not a loss.
pub const NACKS_MAX: u32 = 2048;

/// The round trip that is assumed until one was measured.
const ROUND_TRIP_DEFAULT: Duration = Duration::from_millis(100);

/// The longest round trip that is believed.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(5);

/// A Participant, as negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantConfig {
    /// The header extensions of their leg.
    pub extensions: ExtensionMap,
    /// Whether feedback may come without a report (RFC 5506).
    pub reduced_size_rtcp: bool,
    /// What we call ourselves in RTCP to them (RFC 7022): at most 255 bytes.
    pub cname: String,
    /// Our SSRC where we report as a receiver: random.
    pub ssrc: u32,
}

/// An incoming SSRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) ssrc: u32,
    pub(crate) track: TrackKey,
    pub(crate) encoding: u8,
    pub(crate) is_rtx: bool,
}

/// A Participant in a Room.
#[derive(Debug)]
pub(crate) struct Participant {
    pub(crate) config: ParticipantConfig,
    /// In the order of their SSRCs.
    pub(crate) streams: Vec<Stream>,
    pub(crate) tracks: Vec<TrackKey>,
    pub(crate) slots: Vec<SlotKey>,
    /// Voices that get no automatic slot of theirs.
    pub(crate) hushed: Vec<TrackKey>,
    /// In the order of their SSRCs.
    pub(crate) slots_by_ssrc: Vec<(u32, SlotKey)>,
    /// What slots that have ended left behind.
    ended: Vec<Ended>,
    pub(crate) clock: PublisherClock,
    round_trip: Option<Duration>,
    /// How many packets they may still ask for in this round.
    pub(crate) nacks_left: u32,
    /// The sum and number of losses reported since somebody asked.
    losses: (u32, u32),
    /// How what they send arrives, and what of the reports on it is written so far.
    pub(crate) uplink: Uplink,
    pub(crate) uplink_next: Uplink,

    /// When reports are due, and which are still to be written.
    pub(crate) report_at: Instant,
    pub(crate) sender_reports: Vec<SlotKey>,
    pub(crate) receiver_reports: Vec<(TrackKey, u8)>,
    /// Encodings to ask for packets or key frames.
    pub(crate) nacks: Vec<(TrackKey, u8)>,
    pub(crate) key_frames: Vec<(TrackKey, u8)>,
    /// Whether they are in the Room's list of those who have any of this.
    pub(crate) is_ready: bool,
    /// Whether anything can be sent to them.
    pub(crate) is_reachable: bool,
}

impl Participant {
    pub(crate) fn new(now: Instant, config: ParticipantConfig) -> Self {
        Self {
            config,
            streams: Vec::new(),
            tracks: Vec::new(),
            slots: Vec::new(),
            hushed: Vec::new(),
            slots_by_ssrc: Vec::new(),
            ended: Vec::new(),
            clock: PublisherClock::default(),
            round_trip: None,
            nacks_left: NACKS_MAX,
            losses: (0, 0),
            uplink: Uplink::default(),
            uplink_next: Uplink::default(),
            report_at: now,
            sender_reports: Vec::new(),
            receiver_reports: Vec::new(),
            nacks: Vec::new(),
            key_frames: Vec::new(),
            is_ready: false,
            is_reachable: true,
        }
    }

    #[inline]
    pub(crate) fn stream(&self, ssrc: u32) -> Option<Stream> {
        let index = self
            .streams
            .binary_search_by_key(&ssrc, |stream| stream.ssrc)
            .ok()?;

        self.streams.get(index).copied()
    }

    /// Takes a stream in; false if its SSRC is taken or there are [`SSRCS_MAX`].
    pub(crate) fn add_stream(&mut self, stream: Stream) -> bool {
        if self.streams.len() >= SSRCS_MAX {
            return false;
        }
        match self
            .streams
            .binary_search_by_key(&stream.ssrc, |stream| stream.ssrc)
        {
            Ok(_) => false,
            Err(index) => {
                self.streams.insert(index, stream);
                true
            }
        }
    }

    pub(crate) fn remove_stream(&mut self, ssrc: u32) {
        self.streams.retain(|stream| stream.ssrc != ssrc);
    }

    pub(crate) fn slot(&self, ssrc: u32) -> Option<SlotKey> {
        let index = self
            .slots_by_ssrc
            .binary_search_by_key(&ssrc, |(ssrc, _)| *ssrc)
            .ok()?;

        self.slots_by_ssrc.get(index).map(|(_, slot)| *slot)
    }

    /// Whether another slot is one too many: of each that ended something is kept.
    pub(crate) fn has_used_up_ssrcs(&self) -> bool {
        2 * (self.slots.len() + self.ended.len()) >= SSRCS_OUT_MAX
    }

    /// Keeps what a slot that ends leaves behind.
    pub(crate) fn keep_ended(&mut self, ended: Ended) {
        self.ended.push(ended);
    }

    /// What the slot with one of these SSRCs left behind, if there was one.
    pub(crate) fn ended(&self, ssrcs: [Option<u32>; 2]) -> Option<&Ended> {
        let is_known = |ssrc: Option<u32>| ssrc.is_some() && ssrcs.contains(&ssrc);

        self.ended
            .iter()
            .find(|ended| is_known(Some(ended.ssrc)) || is_known(ended.rtx_ssrc))
    }

    /// The slot with this SSRC is there again: what it left behind is its own again.
    pub(crate) fn take_ended(&mut self, ssrc: u32) -> Option<Ended> {
        let index = self.ended.iter().position(|ended| ended.ssrc == ssrc)?;

        Some(self.ended.swap_remove(index))
    }

    pub(crate) fn measured_round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    pub(crate) fn round_trip(&self) -> Duration {
        self.round_trip.unwrap_or(ROUND_TRIP_DEFAULT)
    }

    /// Takes a measured round trip into the average (RFC 6298's weight).
    pub(crate) fn measure_round_trip(&mut self, sample: Duration) {
        if sample > ROUND_TRIP_MAX {
            return;
        }

        self.round_trip = Some(
            self.round_trip
                .map_or(sample, |average| (average * 7 + sample) / 8),
        );
    }

    pub(crate) fn report_loss(&mut self, fraction: u8) {
        self.losses.0 = self.losses.0.saturating_add(u32::from(fraction));
        self.losses.1 = self.losses.1.saturating_add(1);
    }

    /// The average of the losses reported since the last call, in 1/256.
    pub(crate) fn take_loss(&mut self) -> Option<u8> {
        let (sum, count) = std::mem::take(&mut self.losses);

        u8::try_from(sum.checked_div(count)?).ok()
    }

    pub(crate) fn has_rtcp(&self) -> bool {
        !(self.sender_reports.is_empty()
            && self.receiver_reports.is_empty()
            && self.nacks.is_empty()
            && self.key_frames.is_empty())
    }
}
