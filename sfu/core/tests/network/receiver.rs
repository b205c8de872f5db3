//! A subscriber's client: reports arrivals, asks for what is missing, decodes what is whole.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sfu_core::feedback::Arrivals;

/// A video packet as a subscriber sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Media {
    pub(crate) sequence: u32,
    /// That of the frame's first packet.
    pub(crate) sequence_first: u32,
    pub(crate) frame: u32,
    pub(crate) packets: u32,
    pub(crate) is_key: bool,
    pub(crate) layer: usize,
}

/// So long a picture stands still before people notice.
const FREEZE: Duration = Duration::from_millis(500);

/// A missing packet is asked for so soon after it is missed, and given up after the other.
const NACK_AFTER: Duration = Duration::from_millis(10);
const NACK_UNTIL: Duration = Duration::from_millis(1200);

/// A decoder that got nothing new for so long asks for a key frame.
const PLI_AFTER: Duration = Duration::from_millis(800);

/// What a receiver asks for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) statuses: Option<Vec<(u16, Option<i64>)>>,
    pub(crate) missing: Vec<u32>,
    pub(crate) key_frame: bool,
}

#[derive(Debug)]
pub(crate) struct Receiver {
    arrivals: Arrivals,
    highest: Option<u32>,
    missing: BTreeMap<u32, (Duration, Option<Duration>)>,
    frames: BTreeMap<u32, (u32, Media)>,
    decoded: Option<u32>,
    decoded_at: Duration,
    asked_key_frame_at: Option<Duration>,
    pub(crate) pictures: u32,
    pub(crate) freezes: u32,
    pub(crate) frozen: Duration,
    pub(crate) frozen_longest: Duration,
    pub(crate) layer: Option<usize>,
}

impl Receiver {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            arrivals: Arrivals::new(start),
            highest: None,
            missing: BTreeMap::new(),
            frames: BTreeMap::new(),
            decoded: None,
            decoded_at: Duration::ZERO,
            asked_key_frame_at: None,
            pictures: 0,
            freezes: 0,
            frozen: Duration::ZERO,
            frozen_longest: Duration::ZERO,
            layer: None,
        }
    }

    pub(crate) fn handle_packet(
        &mut self,
        start: Instant,
        now: Duration,
        transport: u16,
        len: u64,
        media: Option<Media>,
    ) {
        let len = u16::try_from(len).expect("shorter than a datagram");
        self.arrivals.handle_packet(start + now, transport, len);
        let Some(media) = media else {
            return;
        };
        let next = self.highest.map_or(media.sequence, |highest| highest + 1);
        for sequence in next..media.sequence {
            self.missing.insert(sequence, (now, None));
        }
        self.highest = self.highest.max(Some(media.sequence));
        self.missing.remove(&media.sequence);
        if media.is_key {
            // What came before a key frame is not needed any more.
            self.missing = self.missing.split_off(&media.sequence_first);
        }

        if self.decoded.is_some_and(|decoded| media.frame <= decoded) {
            return;
        }
        self.frames.entry(media.frame).or_insert((0, media)).0 += 1;
        self.decode(now);
    }

    /// What the receiver says now; `round_trip` spaces its requests.
    pub(crate) fn ask(&mut self, start: Instant, now: Duration, round_trip: Duration) -> Asked {
        let mut asked = Asked::default();
        if let Some(report) = self.arrivals.poll_report(start + now) {
            let mut statuses = Vec::new();
            let mut next = report.base;
            for &(sequence, micros) in report.arrivals {
                statuses.extend((next..sequence).map(|missing| (low(missing), None)));
                // The format's resolution.
                statuses.push((low(sequence), Some(micros / 250 * 250)));
                next = sequence + 1;
            }
            let taken = report.arrivals.len();
            self.arrivals.reported(start + now, taken);
            asked.statuses = Some(statuses);
        }
        self.missing
            .retain(|_, (since, _)| now - *since < NACK_UNTIL);
        for (&sequence, (since, asked_at)) in &mut self.missing {
            let is_due = asked_at.map_or(now - *since >= NACK_AFTER, |at| now - at >= round_trip);
            if is_due {
                *asked_at = Some(now);
                asked.missing.push(sequence);
            }
        }
        let is_stuck = !self.frames.is_empty() && now - self.decoded_at > PLI_AFTER;
        let is_patient = self
            .asked_key_frame_at
            .is_some_and(|at| now - at < PLI_AFTER);
        if is_stuck && !is_patient {
            self.asked_key_frame_at = Some(now);
            asked.key_frame = true;
        }
        asked
    }

    fn decode(&mut self, now: Duration) {
        loop {
            let next = self.decoded.map_or(0, |decoded| decoded + 1);
            let ready = self.frames.iter().find(|(frame, (received, media))| {
                *received >= media.packets && (**frame == next || media.is_key)
            });
            let Some((&frame, &(_, media))) = ready else {
                return;
            };
            let gap = now - self.decoded_at;
            if self.pictures > 0 && gap > FREEZE {
                self.freezes += 1;
                self.frozen += gap;
                self.frozen_longest = self.frozen_longest.max(gap);
            }
            self.pictures += 1;
            self.decoded = Some(frame);
            self.decoded_at = now;
            self.layer = Some(media.layer);
            self.frames = self.frames.split_off(&(frame + 1));
        }
    }
}

fn low(sequence: u64) -> u16 {
    u16::try_from(sequence % (1 << 16)).expect("16 bits")
}
