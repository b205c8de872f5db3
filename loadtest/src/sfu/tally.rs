//! What arrived: packets, losses and delays, by stream and all together.

use std::time::{Duration, Instant};

use serde::Serialize;
use sfu_rtp::sequence::SequenceUnwrapper;

/// How many numbers back a packet is known not to be a second copy.
const WINDOW: u64 = 1024;

/// The width of a bar of the histogram.
const BAR: Duration = Duration::from_micros(50);

/// Bars of the histogram; what took longer counts for the last.
const BARS: usize = 20_000;

/// One incoming RTP stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) ssrc: u32,
    pub(crate) is_audio: bool,
    pub(crate) key_frames: u64,
    /// When a picture was last asked for.
    pub(crate) asked: Option<Instant>,
    numbers: SequenceUnwrapper,
    first: Option<u64>,
    highest: u64,
    /// Which of the last [`WINDOW`] numbers came.
    seen: Vec<u64>,
    counts: Counts,
}

/// What came in, from the beginning or since a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Packets, each once.
    pub(crate) packets: u64,
    /// Packets that should have come, by their numbers.
    pub(crate) expected: u64,
    pub(crate) bytes: u64,
    /// Copies of what had come already.
    pub(crate) copies: u64,
}

impl Counts {
    /// Packets that should have come, and did not.
    pub(crate) fn lost(self) -> u64 {
        self.expected.saturating_sub(self.packets)
    }

    pub(crate) fn add(&mut self, other: Counts) {
        self.packets += other.packets;
        self.expected += other.expected;
        self.bytes += other.bytes;
        self.copies += other.copies;
    }

    pub(crate) fn since(self, earlier: Counts) -> Counts {
        Counts {
            packets: self.packets.saturating_sub(earlier.packets),
            expected: self.expected.saturating_sub(earlier.expected),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            copies: self.copies.saturating_sub(earlier.copies),
        }
    }
}

impl Stream {
    pub(crate) fn new(ssrc: u32, is_audio: bool) -> Self {
        Self {
            ssrc,
            is_audio,
            key_frames: 0,
            asked: None,
            numbers: SequenceUnwrapper::new(),
            first: None,
            highest: 0,
            seen: vec![0; (WINDOW / 64) as usize],
            counts: Counts::default(),
        }
    }

    /// A packet arrived; whether it is news, and no copy of what had come already.
    pub(crate) fn receive(&mut self, number: u16, len: usize, is_key_frame: bool) -> bool {
        let number = self.numbers.unwrap(number);
        let first = *self.first.get_or_insert(number);
        if number < first {
            // From before the first that was seen: nobody expected it.
            return false;
        }
        if number > self.highest {
            let from = self.highest.max(number.saturating_sub(WINDOW)) + 1;
            for passed in from..=number {
                self.mark(passed, false);
            }
            self.highest = number;
        } else if self.highest - number >= WINDOW || self.is_marked(number) {
            self.counts.copies += 1;
            return false;
        }
        self.mark(number, true);
        self.counts.packets += 1;
        self.counts.bytes += len as u64;
        self.counts.expected = self.highest - first + 1;
        self.key_frames += u64::from(is_key_frame);
        true
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    fn mark(&mut self, number: u64, came: bool) {
        let bit = number % WINDOW;
        let word = &mut self.seen[(bit / 64) as usize];
        match came {
            true => *word |= 1 << (bit % 64),
            false => *word &= !(1 << (bit % 64)),
        }
    }

    fn is_marked(&self, number: u64) -> bool {
        let bit = number % WINDOW;
        self.seen[(bit / 64) as usize] & (1 << (bit % 64)) != 0
    }
}

/// A histogram of one-way delays.
#[derive(Debug, Clone)]
pub(crate) struct Delays {
    bars: Vec<u32>,
    count: u64,
}

impl Delays {
    pub(crate) fn new() -> Self {
        Self {
            bars: vec![0; BARS],
            count: 0,
        }
    }

    pub(crate) fn add(&mut self, delay: Duration) {
        let bar = delay.as_nanos() / BAR.as_nanos();
        let bar = usize::try_from(bar).unwrap_or(BARS).min(BARS - 1);
        self.bars[bar] = self.bars[bar].saturating_add(1);
        self.count += 1;
    }

    pub(crate) fn merge(&mut self, other: &Delays) {
        for (bar, others) in self.bars.iter_mut().zip(&other.bars) {
            *bar = bar.saturating_add(*others);
        }
        self.count += other.count;
    }

    /// The delay that so many of a hundred packets do not exceed, in milliseconds; not a number where there are none.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        if self.count == 0 {
            return f64::NAN;
        }
        let rank = (self.count as f64 * percent / 100.0).ceil();
        let mut below = 0.0;
        for (number, bar) in self.bars.iter().enumerate() {
            below += f64::from(*bar);
            if below >= rank {
                return (number + 1) as f64 * BAR.as_secs_f64() * 1000.0;
            }
        }
        f64::INFINITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(stream: &mut Stream, numbers: &[u16]) -> Counts {
        for number in numbers {
            stream.receive(*number, 100, false);
        }
        stream.counts()
    }

    #[test]
    fn losses_are_gaps_and_copies_count_once() {
        let mut stream = Stream::new(1, false);
        let counts = receive(&mut stream, &[65_534, 65_535, 0, 3, 3, 65_535]);
        assert_eq!((counts.packets, counts.expected, counts.copies), (4, 6, 2));
        assert_eq!(counts.lost(), 2);

        let counts = receive(&mut stream, &[2, 1, 2]);
        assert_eq!(
            (counts.packets, counts.expected, counts.copies),
            (6, 6, 3),
            "late ones are no loss"
        );
        let counts = receive(&mut stream, &[2000]);
        assert_eq!((counts.packets, counts.expected), (7, 2003));
        let counts = receive(&mut stream, &[1999, 900]);
        assert_eq!((counts.packets, counts.copies), (8, 4), "too old to tell");
    }

    #[test]
    fn percentiles_of_delays() {
        let mut delays = Delays::new();
        assert!(delays.percentile(99.0).is_nan());
        for millis in 1..=100 {
            delays.add(Duration::from_millis(millis));
        }
        assert!(
            (delays.percentile(50.0) - 50.05).abs() < 0.01,
            "{}",
            delays.percentile(50.0)
        );
        assert!((delays.percentile(99.0) - 99.05).abs() < 0.01);
        let mut more = Delays::new();
        more.add(Duration::from_secs(100));
        delays.merge(&more);
        assert!(
            (delays.percentile(100.0) - 1000.0).abs() < 0.01,
            "the last bar"
        );
    }
}
