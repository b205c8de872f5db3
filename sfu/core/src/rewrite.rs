//! The numbers of one outgoing stream, whatever comes in: Layers switch, temporal layers are dropped, Tracks follow one another
//! in a slot, and the receiver sees one stream whose sequence numbers have no gap but real losses, whose timestamps never fall
//! back and whose picture ids follow one another.
//!
//! ```text
//!  in    10  11  ·   13  14  15  16          14 and 15 are of a temporal layer that is dropped
//!  out  100 101  ·  103          104         12 keeps its number (102), in case it still comes
//!        run: +90 ─────── run: dropped ─ run: +88
//! ```
//!
//! A *run* is a stretch of incoming numbers that were treated alike. Runs of the last [`RUNS_MAX`] changes are kept, so a packet
//! that comes late gets the number that was left for it, or none if its neighbours were dropped.
//!
//! Numbers are left free no faster than packets leave, beyond [`FREE_MAX`] in advance. A receiver learns of a number's cycle by the
//! packets before it alone (RFC 3711 §3.3.1): once it were 1 << 15 ahead of them, no later packet could be opened any more, and how the
//! numbers of a source grow is the publisher's word.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sfu_rtp::payload::PictureId;

use crate::picture::{Detail, Picture, steps};

/// The most runs kept of one outgoing stream: more than two seconds of a stream that drops every second picture.
pub const RUNS_MAX: usize = 64;

/// The most numbers left free in a row for packets that are missing: what comes later than that is too late anyway.
pub const FREE_MAX: u64 = crate::receiver::LATE_MAX;

/// How far timestamps of one source may fall back, as those of pictures out of order do.
const FALL_BACK_MAX: Duration = Duration::from_millis(500);

/// How far timestamps may be ahead of the clock before they count as a jump.
const AHEAD_MAX: Duration = Duration::from_secs(10);

/// How far what sender reports say may be from what the clock says before it is not believed.
const ALIGNED_MAX: Duration = Duration::from_secs(2);

/// How far apart the timestamps of pictures are that are sent at once.
const CATCH_UP_STEP: Duration = Duration::from_millis(1);

/// What of an incoming packet is rewritten.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming {
    /// Unwrapped.
    pub(crate) sequence: u64,
    pub(crate) timestamp: u32,
    pub(crate) picture: Picture,
}

/// What it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Unwrapped; below 1 << 16 for none but the first cycle.
    pub(crate) sequence: u64,
    pub(crate) timestamp: u32,
    /// As many bits of it as the incoming one had.
    pub(crate) picture_id: u16,
    pub(crate) tl0_picture_index: u8,
    /// Of the dependency descriptor.
    pub(crate) frame_number: u16,
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send it.
    Forward(Numbers),
    /// Send an empty packet in its place: its number was left free, and it is not wanted.
    Fill(Numbers),
    /// Send nothing; no number was left for it.
    Skip,
}

/// What is added to the numbers of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Offsets {
    timestamp: u32,
    picture_id: u16,
    tl0_picture_index: u8,
    frame_number: u16,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    /// The first incoming number of it.
    start: u64,
    /// What is added to a sequence number; `None` where packets were dropped.
    sequence: Option<u64>,
    offsets: Offsets,
    /// What was wanted of the pictures.
    detail: Detail,
}

/// The state of one outgoing stream.
#[derive(Debug)]
pub(crate) struct Rewriter {
    clock_rate: u32,
    next_sequence: u64,
    /// How many numbers may be left free now, at most [`FREE_MAX`].
    free: u64,
    next_picture_id: u16,
    next_tl0_picture_index: u8,
    next_frame_number: u16,
    /// The newest timestamp given out, and when; before the first, the one to begin with.
    timestamp: u32,
    timestamp_at: Option<Instant>,

    /// The number its first packet had.
    began_with: u64,
    /// The newest number of the source, forwarded or dropped.
    newest: u64,
    newest_picture_id: Option<u16>,
    offsets: Offsets,
    runs: VecDeque<Run>,
}

impl Rewriter {
    /// A stream that begins with these numbers. `sequence` is below 1 << 15, so that nobody takes the first wrap for a loss
    /// (RFC 3711 §3.3.1).
    pub(crate) fn new(sequence: u16, timestamp: u32, picture_id: u16) -> Self {
        Self {
            clock_rate: 90_000,
            next_sequence: u64::from(sequence),
            free: FREE_MAX,
            next_picture_id: picture_id,
            next_tl0_picture_index: 0,
            next_frame_number: 0,
            timestamp,
            timestamp_at: None,
            began_with: u64::from(sequence),
            newest: 0,
            newest_picture_id: None,
            offsets: Offsets::default(),
            runs: VecDeque::new(),
        }
    }

    /// The number that the first packet of the source got.
    pub(crate) fn began_with(&self) -> u64 {
        self.began_with
    }

    /// The source ends: of it only the numbers are kept that the next one goes on with.
    pub(crate) fn forget_source(&mut self) {
        self.runs = VecDeque::new();
    }

    /// Timestamps per second of the source.
    pub(crate) fn clock_rate(&self) -> u32 {
        self.clock_rate
    }

    /// What is added to timestamps of the source now.
    pub(crate) fn timestamp_offset(&self) -> u32 {
        self.offsets.timestamp
    }

    /// The newest timestamp given out, or the one to begin with.
    pub(crate) fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// The newest timestamp given out and when, once there is one.
    pub(crate) fn newest_timestamp(&self) -> Option<(u32, Instant)> {
        Some((self.timestamp, self.timestamp_at?))
    }

    /// Goes over to a source whose first packet is `first`; [`Self::newest`] is to be called with it next.
    ///
    /// `offset` is what sender reports say is to be added to its timestamps so that they go on evenly.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        clock_rate: u32,
        first: &Incoming,
        detail: Detail,
        offset: Option<u32>,
    ) {
        self.clock_rate = clock_rate;
        self.offsets = Offsets {
            timestamp: self
                .timestamp_of_next(now, first.timestamp, offset)
                .wrapping_sub(first.timestamp),
            picture_id: self
                .next_picture_id
                .wrapping_sub(first.picture.id.map_or(0, |id| id.value)),
            tl0_picture_index: self
                .next_tl0_picture_index
                .wrapping_sub(first.picture.tl0_picture_index.unwrap_or(0)),
            frame_number: self
                .next_frame_number
                .wrapping_sub(first.picture.frame_number.unwrap_or(0)),
        };
        self.began_with = self.next_sequence;
        self.newest = first.sequence.wrapping_sub(1);
        self.newest_picture_id = None;
        self.runs.clear();
        self.push_run(first.sequence, true, detail);
    }

    /// Takes a packet that is newer than all before of this source. It is dropped without a trace unless `keep`.
    pub(crate) fn newest(
        &mut self,
        now: Instant,
        incoming: &Incoming,
        detail: Detail,
        keep: bool,
    ) -> Step {
        let sequence = incoming.sequence;
        let missing = sequence.saturating_sub(self.newest).saturating_sub(1);

        // Numbers are left for what is missing: it may still come, and if not, it was lost. Where there are too few of them it is
        // treated as what is dropped.
        if missing > 0 {
            let is_left = missing <= self.free;
            if is_left {
                self.free -= missing;
            }
            if self
                .last_run()
                .is_none_or(|run| run.sequence.is_some() != is_left)
            {
                let detail = self.last_run().map_or(detail, |run| run.detail);
                self.push_run(self.newest + 1, is_left, detail);
            }
            if is_left {
                self.next_sequence += missing;
            }
        }
        self.newest = sequence;

        self.follow_picture(&incoming.picture, keep);
        if keep {
            self.follow_timestamp(now, incoming.timestamp);
        }

        let goes_on = self.last_run().is_some_and(|run| {
            run.sequence.is_some() == keep
                && run.detail == detail
                && (!keep || run.offsets == self.offsets)
        });
        if !goes_on {
            self.push_run(sequence, keep, detail);
        }
        if !keep {
            return Step::Skip;
        }

        let numbers = Numbers {
            sequence: self.next_sequence,
            ..numbers_of(incoming, &self.offsets)
        };
        self.next_sequence += 1;
        self.free = (self.free + 1).min(FREE_MAX);
        if self.timestamp_at.is_none() {
            self.timestamp = numbers.timestamp;
        }
        self.timestamp_at = Some(now);
        self.note(&numbers, &incoming.picture);
        Step::Forward(numbers)
    }

    /// The picture with this timestamp is sent later than its time, with others: from it on the timestamps go on right behind what was
    /// sent last, or the receiver would hold back what follows for as long.
    pub(crate) fn catch_up(&mut self, timestamp: u32) {
        let next = self
            .timestamp
            .wrapping_add(self.ticks(CATCH_UP_STEP).cast_unsigned());

        self.offsets.timestamp = next.wrapping_sub(timestamp);
    }

    /// Takes a packet older than the newest that comes for the first time. `keeps` tells whether a picture is part of what was
    /// wanted at its time.
    pub(crate) fn late(
        &mut self,
        incoming: &Incoming,
        keeps: impl FnOnce(&Picture, Detail) -> bool,
    ) -> Step {
        let index = self
            .runs
            .partition_point(|run| run.start <= incoming.sequence);
        let Some(run) = index.checked_sub(1).and_then(|index| self.runs.get(index)) else {
            return Step::Skip;
        };
        let Some(offset) = run.sequence else {
            return Step::Skip;
        };

        let numbers = Numbers {
            sequence: incoming.sequence.wrapping_add(offset),
            ..numbers_of(incoming, &run.offsets)
        };
        if keeps(&incoming.picture, run.detail) {
            self.note(&numbers, &incoming.picture);
            Step::Forward(numbers)
        } else {
            Step::Fill(numbers)
        }
    }

    /// Whatever comes next has later numbers than these. They need not be the latest: a packet that came late, or the rest of a picture.
    fn note(&mut self, numbers: &Numbers, picture: &Picture) {
        if let Some(id) = picture.id
            && let value = numbers.picture_id
            && let Some(ids) = steps(PictureId { value, ..id }, self.next_picture_id)
        {
            self.next_picture_id = self.next_picture_id.wrapping_add(ids + 1);
        }
        let indices = numbers
            .tl0_picture_index
            .wrapping_sub(self.next_tl0_picture_index);
        if indices.cast_signed() >= 0 {
            self.next_tl0_picture_index = numbers.tl0_picture_index.wrapping_add(1);
        }
        let frames = numbers.frame_number.wrapping_sub(self.next_frame_number);
        if frames.cast_signed() >= 0 {
            self.next_frame_number = numbers.frame_number.wrapping_add(1);
        }
        let ticks = numbers.timestamp.wrapping_sub(self.timestamp);
        if ticks.cast_signed() > 0 {
            self.timestamp = numbers.timestamp;
        }
    }

    fn last_run(&self) -> Option<&Run> {
        self.runs.back()
    }

    fn push_run(&mut self, start: u64, keep: bool, detail: Detail) {
        if self.runs.len() == RUNS_MAX {
            self.runs.pop_front();
        }
        self.runs.push_back(Run {
            start,
            sequence: keep.then(|| self.next_sequence.wrapping_sub(start)),
            offsets: self.offsets,
            detail,
        });
    }

    /// Keeps picture ids in a row: a dropped picture's id goes to the next one.
    fn follow_picture(&mut self, picture: &Picture, keep: bool) {
        let Some(id) = picture.id else {
            return;
        };
        let later = self
            .newest_picture_id
            .replace(id.value)
            .and_then(|before| steps(id, before));

        match later {
            Some(0) => {}
            Some(1..=PICTURES_MISSING_MAX) => {
                if !keep && picture.has_dense_ids {
                    self.offsets.picture_id = self.offsets.picture_id.wrapping_sub(1);
                }
            }
            // The first of a source, or ids that fall back or jump and mean nothing: go on with the next.
            _ => {
                let next = self.next_picture_id.wrapping_sub(u16::from(!keep));
                self.offsets.picture_id = next.wrapping_sub(id.value);
            }
        }
    }

    /// Believes the source's timestamps while they go on somehow evenly.
    fn follow_timestamp(&mut self, now: Instant, timestamp: u32) {
        let Some(at) = self.timestamp_at else {
            return;
        };
        let step = timestamp
            .wrapping_add(self.offsets.timestamp)
            .wrapping_sub(self.timestamp)
            .cast_signed();
        let ahead_max = self.ticks(now.saturating_duration_since(at) + AHEAD_MAX);

        if step < -self.ticks(FALL_BACK_MAX) || step > ahead_max {
            let next = self.timestamp_of_next(now, timestamp, None);
            self.offsets.timestamp = next.wrapping_sub(timestamp);
        }
    }

    /// The timestamp the next packet gets when its source is new: what the sender reports say if it is credible, else as long
    /// after the last one as the clock says. Always later than the last one.
    fn timestamp_of_next(&self, now: Instant, timestamp: u32, offset: Option<u32>) -> u32 {
        let Some(at) = self.timestamp_at else {
            return self.timestamp;
        };
        let elapsed = self.ticks(now.saturating_duration_since(at)).max(1);
        let by_clock = self.timestamp.wrapping_add(elapsed.cast_unsigned());

        let by_reports = offset
            .map(|offset| timestamp.wrapping_add(offset))
            .filter(|by_reports| {
                let distance = by_reports.wrapping_sub(by_clock).cast_signed();
                let step = by_reports.wrapping_sub(self.timestamp).cast_signed();

                distance.saturating_abs() <= self.ticks(ALIGNED_MAX)
                    && step > -self.ticks(ALIGNED_MAX)
            });
        match by_reports {
            Some(by_reports) if by_reports.wrapping_sub(self.timestamp).cast_signed() > 0 => {
                by_reports
            }
            // Captured before what was sent last: right behind that.
            Some(_) => self.timestamp.wrapping_add(1),
            None => by_clock,
        }
    }

    /// `duration` in units of timestamps; at most a quarter of their range.
    fn ticks(&self, duration: Duration) -> i32 {
        let ticks = duration.as_micros() * u128::from(self.clock_rate) / 1_000_000;

        i32::try_from(ticks).unwrap_or(i32::MAX).min(1 << 30)
    }
}

/// The most pictures that may be missing in a row before their ids are not believed.
const PICTURES_MISSING_MAX: u16 = 1024;

fn numbers_of(incoming: &Incoming, offsets: &Offsets) -> Numbers {
    Numbers {
        sequence: 0,
        timestamp: incoming.timestamp.wrapping_add(offsets.timestamp),
        picture_id: incoming
            .picture
            .id
            .map_or(0, |id| id.value)
            .wrapping_add(offsets.picture_id),
        tl0_picture_index: incoming
            .picture
            .tl0_picture_index
            .unwrap_or(0)
            .wrapping_add(offsets.tl0_picture_index),
        frame_number: incoming
            .picture
            .frame_number
            .unwrap_or(0)
            .wrapping_add(offsets.frame_number),
    }
}
