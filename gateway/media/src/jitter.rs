//! Packets come early, late, twice and in any order; sound is wanted every 20 ms.
//!
//! ```text
//! push: packets as they come ─▶ [ring by sequence number] ─▶ pull: one frame each 20 ms
//!             └─ how late each is ─▶ Lateness ─▶ how much to hold back
//! ```
//!
//! What is held back follows the network: it rises as soon as something came too late, by waiting a frame longer, and falls by leaving
//! one frame out when for seconds more was held than was needed. Where the clock of a phone is not ours, that is also what keeps
//! both together.

use std::time::{Duration, Instant};

/// The most packets that are held.
const SLOTS: usize = 32;
/// The longest payload that is held, in bytes; nothing longer is a frame of sound.
pub const PAYLOAD_LEN_MAX: usize = 1_400;
/// The least that is held back.
pub const DELAY_MIN: Duration = Duration::from_millis(20);
/// The most.
pub const DELAY_MAX: Duration = Duration::from_millis(200);
/// For how long a late packet counts.
const MEMORY: Duration = Duration::from_secs(8);
/// How far apart two sequence numbers are that belong to one stream.
const GAP_MAX: u16 = 500;
/// How many frames in a row may be missing before it is a pause.
const MISSING_MAX: u32 = 10;

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits for its time.
    Held,
    /// Its time is over.
    Late,
    /// It came before.
    Again,
    /// It is longer than any frame.
    TooLong,
    /// It is far from those before: a stream began anew, and this packet waits for its time.
    Restarted,
}

/// What is to be heard now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulled {
    /// A frame: so many bytes were written, of this timestamp.
    Frame {
        /// The length, in bytes.
        len: usize,
        /// The timestamp.
        timestamp: u32,
    },
    /// A frame was lost or is late: something is to be made up.
    Lost,
    /// Nobody sends.
    Nothing,
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames that were heard.
    pub heard: u64,
    /// Frames that were missing when their time came.
    pub lost: u64,
    /// Packets that came after their time.
    pub late: u64,
    /// Frames that were left out to hold less back.
    pub left_out: u64,
}

/// The buffer of one stream.
#[derive(Debug)]
pub struct JitterBuffer {
    slots: Vec<Slot>,
    clock_rate: u32,
    frame: Duration,
    /// The number of the frame that is heard next, once the stream has begun.
    next: Option<u16>,
    /// The highest number that came.
    newest: u16,
    held: usize,
    /// Whether enough was held back to begin.
    playing: bool,
    missing: u32,
    /// The least that was held over the last while, in frames, and since when it is counted.
    surplus: Option<(usize, Instant)>,
    lateness: Lateness,
    stats: Stats,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    sequence: Option<u16>,
    timestamp: u32,
    payload: Vec<u8>,
}

impl JitterBuffer {
    /// A buffer for a stream whose timestamps count `clock_rate` a second, and whose packets hold `frame` of sound.
    #[must_use]
    pub fn new(clock_rate: u32, frame: Duration) -> Self {
        Self {
            slots: vec![Slot::default(); SLOTS],
            clock_rate: clock_rate.max(1),
            frame: frame.max(Duration::from_millis(1)),
            next: None,
            newest: 0,
            held: 0,
            playing: false,
            missing: 0,
            surplus: None,
            lateness: Lateness::default(),
            stats: Stats::default(),
        }
    }

    /// What happened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How much is to be held back now.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.lateness
            .spread()
            .clamp(DELAY_MIN.max(self.frame), DELAY_MAX)
    }

    /// A packet came at `now`.
    pub fn push(&mut self, now: Instant, sequence: u16, timestamp: u32, payload: &[u8]) -> Pushed {
        if payload.len() > PAYLOAD_LEN_MAX {
            return Pushed::TooLong;
        }
        let mut pushed = Pushed::Held;
        if let Some(next) = self.next {
            let ahead = sequence.wrapping_sub(next);
            let behind = next.wrapping_sub(sequence);
            if ahead > GAP_MAX && behind > GAP_MAX {
                self.restart();
                pushed = Pushed::Restarted;
            } else if behind != 0 && behind <= GAP_MAX {
                // Before the first frame was heard, the order is still open.
                if self.playing || usize::from(behind) + self.held > SLOTS / 2 {
                    self.lateness.note(now, timestamp, self.clock_rate);
                    self.stats.late += 1;
                    return Pushed::Late;
                }
                self.next = Some(sequence);
            } else if usize::from(ahead) >= SLOTS {
                // More than is held: what is in between is given up.
                self.skip_to(sequence.wrapping_sub(low_half(SLOTS / 2)));
            }
        }
        let at = usize::from(sequence) % SLOTS;
        if self.slots[at].sequence == Some(sequence) {
            return Pushed::Again;
        }
        self.lateness.note(now, timestamp, self.clock_rate);
        if self.next.is_none() {
            self.next = Some(sequence);
            self.newest = sequence;
        } else if sequence.wrapping_sub(self.newest) < 1 << 15 {
            self.newest = sequence;
        }
        let slot = &mut self.slots[at];
        self.held += usize::from(slot.sequence.is_none());
        slot.sequence = Some(sequence);
        slot.timestamp = timestamp;
        slot.payload.clear();
        slot.payload.extend_from_slice(payload);
        pushed
    }

    /// The time of the next frame has come: call this once for each frame, by a clock of our own. A frame's payload is written to
    /// `out`, which has [`PAYLOAD_LEN_MAX`] bytes.
    pub fn pull(&mut self, now: Instant, out: &mut [u8; PAYLOAD_LEN_MAX]) -> Pulled {
        let Some(next) = self.next else {
            return Pulled::Nothing;
        };
        let wanted = self.wanted();
        if !self.playing {
            if self.held == 0 || self.depth(next) < wanted {
                // The wait until enough is held is part of the pause before it.
                return Pulled::Nothing;
            }
            self.playing = true;
            self.surplus = None;
        }
        let next = self.leave_out(now, next, wanted);
        let slot = &mut self.slots[usize::from(next) % SLOTS];
        if slot.sequence == Some(next) {
            slot.sequence = None;
            self.held -= 1;
            self.next = Some(next.wrapping_add(1));
            self.missing = 0;
            self.stats.heard += 1;
            let len = slot.payload.len();
            out[..len].copy_from_slice(&slot.payload);
            return Pulled::Frame {
                len,
                timestamp: slot.timestamp,
            };
        }
        if self.held > 0 && self.depth(next) >= wanted {
            // As much as is to be held back is there, and this one is not: its time is over.
            self.next = Some(next.wrapping_add(1));
            self.stats.lost += 1;
            return Pulled::Lost;
        }
        // Too little is there. What comes next is heard in its place, and from then on a frame more is held back.
        self.missing += 1;
        if self.missing > MISSING_MAX {
            self.playing = false;
            return Pulled::Nothing;
        }
        self.stats.lost += 1;
        Pulled::Lost
    }

    /// The payload of the frame that is heard next, if it came: it may tell something of one that was [lost](Pulled::Lost) just now.
    #[must_use]
    pub fn peek(&self) -> Option<&[u8]> {
        let next = self.next?;
        let slot = &self.slots[usize::from(next) % SLOTS];
        (slot.sequence == Some(next)).then_some(&slot.payload[..])
    }

    /// A stream with another source begins.
    pub fn restart(&mut self) {
        for slot in &mut self.slots {
            slot.sequence = None;
        }
        self.next = None;
        self.held = 0;
        self.playing = false;
        self.missing = 0;
        self.surplus = None;
        self.lateness = Lateness::default();
    }

    /// How many frames are to be held.
    fn wanted(&self) -> usize {
        let frames = self.delay().as_micros().div_ceil(self.frame.as_micros());
        usize::try_from(frames).unwrap_or(SLOTS).min(SLOTS / 2)
    }

    /// How many frames are between the next and the newest, both of them counted.
    fn depth(&self, next: u16) -> usize {
        if self.held == 0 {
            0
        } else {
            usize::from(self.newest.wrapping_sub(next)) + 1
        }
    }

    /// Leaves the next frame out when more was held than needed for a second, or far more than may be at all.
    fn leave_out(&mut self, now: Instant, next: u16, wanted: usize) -> u16 {
        let depth = self.depth(next);
        let (least, since) = match self.surplus {
            Some((least, since)) => (least.min(depth), since),
            None => (depth, now),
        };
        self.surplus = Some((least, since));
        let settled = now.saturating_duration_since(since) >= Duration::from_secs(1);
        if settled {
            self.surplus = None;
        }
        let frames_max = DELAY_MAX.as_micros().div_ceil(self.frame.as_micros());
        let overfull = u128::try_from(depth).is_ok_and(|depth| depth > frames_max + 1);
        let surplus = settled && least > wanted + 1;
        if !overfull && !surplus {
            return next;
        }
        self.stats.left_out += 1;
        self.skip_to(next.wrapping_add(1));
        next.wrapping_add(1)
    }

    /// Gives up all before `sequence`.
    fn skip_to(&mut self, sequence: u16) {
        for slot in &mut self.slots {
            let before = slot
                .sequence
                .is_some_and(|held| sequence.wrapping_sub(held).wrapping_sub(1) < 1 << 14);
            if before {
                slot.sequence = None;
                self.held -= 1;
            }
        }
        self.next = Some(sequence);
    }
}

/// How much later than the quickest packets come.
#[derive(Debug, Default)]
struct Lateness {
    first: Option<(Instant, u32)>,
    /// The quickest and the slowest, of the last while and of the one before.
    spans: [Option<Span>; 2],
    since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    least: i64,
    most: i64,
}

impl Lateness {
    /// Notes when a packet came against when its timestamp says it was made.
    fn note(&mut self, now: Instant, timestamp: u32, clock_rate: u32) {
        let (start, first) = *self.first.get_or_insert((now, timestamp));
        let elapsed = i64::try_from(now.saturating_duration_since(start).as_micros());
        // The sign makes it right for packets from before the first, too.
        let ticks = i64::from(timestamp.wrapping_sub(first).cast_signed());
        if ticks.abs() >= 1 << 30 {
            // Half a day has passed, or the timestamps jumped: the circle begins here.
            *self = Self::default();
            self.note(now, timestamp, clock_rate);
            return;
        }
        let transit = elapsed.unwrap_or(i64::MAX / 2) - ticks * 1_000_000 / i64::from(clock_rate);

        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= MEMORY / 2 {
            self.spans = [None, self.spans[0]];
            self.since = Some(now);
        }
        let span = self.spans[0].get_or_insert(Span {
            least: transit,
            most: transit,
        });
        span.least = span.least.min(transit);
        span.most = span.most.max(transit);
    }

    fn spread(&self) -> Duration {
        let spans = || self.spans.iter().flatten();
        let least = spans().map(|span| span.least).min().unwrap_or(0);
        let most = spans().map(|span| span.most).max().unwrap_or(0);
        Duration::from_micros(u64::try_from(most - least).unwrap_or(0))
    }
}

fn low_half(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
