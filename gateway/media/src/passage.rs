//! The numbers of packets that go on as they came, as part of a stream of ours.
//!
//! ```text
//! theirs:  41 42    44 43 45      a phone's own numbers, with what was lost on its way
//!           │  │     │  │  │
//! ours:     7  8    10  9 11      our numbers: losses stay losses, the order is told, and no number is used twice
//! ```
//!
//! What does not fit, since the other side began anew or was silent for long, begins another passage where ours stands.

/// How many numbers back a packet that was overtaken still finds its place.
const BACK_MAX: i64 = 64;

/// How many numbers in a row may be missing.
const AHEAD_MAX: i64 = 100;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It has this index (a sequence number with its rollovers) and this timestamp.
    At(u64, u32),
    /// It came before, or before the passage began.
    Again,
}

/// One passage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passage {
    /// The first packet: their number and timestamp, and what they became.
    theirs: (u16, u32),
    ours: (u64, u32),
    /// Which of the last [`BACK_MAX`] indices before the next one were used; the lowest bit is the last.
    used: u64,
}

impl Passage {
    /// Places a packet of theirs in a stream whose next packet has the index and timestamp `next`, by `passage` or in a new one, which is kept
    /// there; and moves `next` on behind it. Timestamps may be apart by `tolerance` from when they are expected. `length` is that of a frame.
    ///
    /// Returns what becomes of it and whether a passage began with it.
    pub(crate) fn place(
        passage: &mut Option<Self>,
        (number, timestamp): (u16, u32),
        next: &mut (u64, u32),
        (tolerance, length): (u32, u32),
    ) -> (Placed, bool) {
        let known = passage
            .as_ref()
            .and_then(|known| known.find(number, timestamp, *next, tolerance));
        let begins = known.is_none();
        let (index, at) = known.unwrap_or(*next);
        let passage = match passage {
            Some(passage) if !begins => passage,
            _ => passage.insert(Self {
                theirs: (number, timestamp),
                ours: *next,
                // Nothing from before it comes after it.
                used: u64::MAX,
            }),
        };
        if index >= next.0 {
            let ahead = index - next.0 + 1;
            let shift = u32::try_from(ahead).unwrap_or(u32::MAX);
            passage.used = passage.used.checked_shl(shift).unwrap_or(0) | 1;
            // The clock of the other side is ours while its sound goes on.
            *next = (index + 1, at.wrapping_add(length));
            return (Placed::At(index, at), begins);
        }
        let bit = 1 << (next.0 - 1 - index);
        if passage.used & bit != 0 {
            return (Placed::Again, false);
        }
        passage.used |= bit;
        (Placed::At(index, at), false)
    }

    /// A number of theirs was used for something that does not go on: those behind it move up.
    pub(crate) fn skip(&mut self) {
        self.theirs.0 = self.theirs.0.wrapping_add(1);
    }

    fn find(
        &self,
        number: u16,
        timestamp: u32,
        next: (u64, u32),
        tolerance: u32,
    ) -> Option<(u64, u32)> {
        let steps = number.wrapping_sub(self.theirs.0).cast_signed();
        // Far beyond 2^15 packets it is still right: the difference is taken to the place where our stream stands now.
        let base = self.ours.0.wrapping_add_signed(steps.into());
        let rounds = next.0.wrapping_sub(base).wrapping_add(1 << 15) >> 16 << 16;
        let index = base.wrapping_add(rounds);
        let at = self
            .ours
            .1
            .wrapping_add(timestamp.wrapping_sub(self.theirs.1));
        let ahead = index.wrapping_sub(next.0).cast_signed();
        let is_near = (-BACK_MAX..AHEAD_MAX).contains(&ahead);
        let index = next.0.checked_add_signed(ahead)?;
        let apart = at.wrapping_sub(next.1).cast_signed().unsigned_abs();
        (is_near && apart <= tolerance).then_some((index, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u32 = 160;

    struct Stream {
        passage: Option<Passage>,
        next: (u64, u32),
    }

    impl Stream {
        fn new() -> Self {
            Self {
                passage: None,
                next: (7, 1_000),
            }
        }

        fn place(&mut self, number: u16, timestamp: u32) -> (Placed, bool) {
            let terms = (8_000, FRAME);
            Passage::place(
                &mut self.passage,
                (number, timestamp),
                &mut self.next,
                terms,
            )
        }

        fn at(&mut self, number: u16, frame: u32) -> Option<u64> {
            let timestamp = frame.wrapping_mul(FRAME).wrapping_add(50);
            match self.place(number, timestamp).0 {
                Placed::At(index, _) => Some(index),
                Placed::Again => None,
            }
        }
    }

    #[test]
    fn losses_stay_losses_and_nothing_is_used_twice() {
        let mut stream = Stream::new();
        let numbers = [41, 42, 44, 43, 43, 45, 40].map(|number| (number, u32::from(number)));
        let placed = numbers.map(|(number, frame)| stream.at(number, frame));
        assert_eq!(
            placed,
            [Some(7), Some(8), Some(10), Some(9), None, Some(11), None]
        );
    }

    #[test]
    fn numbers_go_round_for_hours() {
        let mut stream = Stream::new();
        for packet in 0..400_000_u32 {
            let [.., high, low] = (packet + 65_000).to_be_bytes();
            let number = u16::from_be_bytes([high, low]);
            assert_eq!(stream.at(number, packet), Some(7 + u64::from(packet)));
        }
    }

    #[test]
    fn who_begins_anew_goes_on_where_ours_stands() {
        let mut stream = Stream::new();
        assert_eq!(stream.place(1, 50), (Placed::At(7, 1_000), true));
        assert_eq!(stream.place(2, 210), (Placed::At(8, 1_160), false));
        // Other numbers; then another clock.
        assert_eq!(stream.place(30_000, 370), (Placed::At(9, 1_320), true));
        assert_eq!(stream.place(30_001, 1 << 31), (Placed::At(10, 1_480), true));
        // A pause of both clocks is none; what ours alone had in between moves it on.
        stream.next.1 += 50 * FRAME;
        let later = (1_u32 << 31) + 51 * FRAME;
        assert_eq!(
            stream.place(30_002, later),
            (Placed::At(11, 1_480 + 51 * FRAME), false)
        );
    }

    #[test]
    fn what_does_not_go_on_leaves_no_gap() {
        let mut stream = Stream::new();
        assert_eq!(stream.at(10, 10), Some(7));
        if let Some(passage) = &mut stream.passage {
            passage.skip();
        }
        assert_eq!(stream.at(12, 12), Some(8));
    }
}
