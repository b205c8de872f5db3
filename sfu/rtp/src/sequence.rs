//! Numbers that wrap, compared and unwrapped (RFC 3550 §5.1, §A.1; RFC 1982).
//!
//! Sequence numbers have 16 bits and timestamps 32. An unwrapper turns each into 64 bits that never wrap, also when
//! packets come out of order: of all numbers that could be meant, the one nearest to the highest so far.

use crate::bytes::{low_u16, low_u32};

/// `a - b`, by the shorter way around: positive when `a` is newer. Exactly half a cycle apart counts as older.
#[must_use]
pub fn diff_u16(a: u16, b: u16) -> i16 {
    a.wrapping_sub(b).cast_signed()
}

/// `a - b`, by the shorter way around: positive when `a` is newer. Exactly half a cycle apart counts as older.
#[must_use]
pub fn diff_u32(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

/// Whether the sequence number `a` comes after `b`.
#[must_use]
pub fn is_newer_u16(a: u16, b: u16) -> bool {
    diff_u16(a, b) > 0
}

/// Whether the timestamp `a` comes after `b`.
#[must_use]
pub fn is_newer_u32(a: u32, b: u32) -> bool {
    diff_u32(a, b) > 0
}

/// Unwraps 16-bit sequence numbers.
///
/// The first becomes itself plus 2^16, so that what was sent before it has a number too. Whoever numbers SRTP packets
/// takes the index of [`crate::srtp::Inbound`] instead, which has been authenticated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SequenceUnwrapper {
    highest: Option<u64>,
}

impl SequenceUnwrapper {
    /// An unwrapper that has seen nothing.
    #[must_use]
    pub const fn new() -> SequenceUnwrapper {
        SequenceUnwrapper { highest: None }
    }

    /// The number `value` stands for; remembers it when it is the highest so far.
    pub fn unwrap(&mut self, value: u16) -> u64 {
        let unwrapped = self.peek(value);
        self.highest = self.highest.max(Some(unwrapped));
        unwrapped
    }

    /// The number `value` stands for, and remembers nothing.
    #[must_use]
    pub fn peek(&self, value: u16) -> u64 {
        match self.highest {
            Some(highest) => nearest(highest, i64::from(diff_u16(value, low_u16(highest)))),
            None => (1 << 16) + u64::from(value),
        }
    }

    /// The highest number so far.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// Unwraps 32-bit timestamps.
///
/// The first becomes itself plus 2^32, so that what was sampled before it has a number too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimestampUnwrapper {
    highest: Option<u64>,
}

impl TimestampUnwrapper {
    /// An unwrapper that has seen nothing.
    #[must_use]
    pub const fn new() -> TimestampUnwrapper {
        TimestampUnwrapper { highest: None }
    }

    /// The number `value` stands for; remembers it when it is the highest so far.
    pub fn unwrap(&mut self, value: u32) -> u64 {
        let unwrapped = self.peek(value);
        self.highest = self.highest.max(Some(unwrapped));
        unwrapped
    }

    /// The number `value` stands for, and remembers nothing.
    #[must_use]
    pub fn peek(&self, value: u32) -> u64 {
        match self.highest {
            Some(highest) => nearest(highest, i64::from(diff_u32(value, low_u32(highest)))),
            None => (1 << 32) + u64::from(value),
        }
    }

    /// The highest number so far.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// The highest is never below one cycle, and a difference never above half of one: nothing saturates here before 2^63
/// packets.
fn nearest(highest: u64, diff: i64) -> u64 {
    highest.saturating_add_signed(diff)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn newer_is_told_across_the_wrap() {
        let check = |a, b, newer| {
            assert_eq!(is_newer_u16(a, b), newer, "{a} {b}");
            let wide = |value: u16| u32::from(value) << 16;
            assert_eq!(
                is_newer_u32(wide(a), wide(b)),
                newer,
                "{a} {b} as timestamps"
            );
        };

        check(1, 0, true);
        check(0, 1, false);
        check(7, 7, false);
        check(0, 65_535, true);
        check(65_535, 0, false);
        check(0x7fff, 0, true);
        check(0x8000, 0, false);
        check(0, 0x8000, false);
    }

    #[test]
    fn numbers_count_on_across_wraps() {
        let mut unwrapper = SequenceUnwrapper::new();
        let mut check = |value, unwrapped: u64| assert_eq!(unwrapper.unwrap(value), unwrapped);

        check(65_534, 131_070);
        check(0, 131_072);
        check(65_535, 131_071);
        check(1, 131_073);
        check(32_768, 163_840);
        check(65_000, 196_072);
        check(2, 196_610);
        check(65_001, 196_073);
    }

    #[test]
    fn what_came_before_the_first_has_a_number() {
        let mut sequence = SequenceUnwrapper::new();
        assert_eq!(sequence.unwrap(3), 65_539);
        assert_eq!(sequence.unwrap(65_530), 65_530);
        assert_eq!(sequence.highest(), Some(65_539));

        let mut timestamp = TimestampUnwrapper::new();
        assert_eq!(timestamp.unwrap(3), (1 << 32) + 3);
        assert_eq!(timestamp.unwrap(u32::MAX), u64::from(u32::MAX));
        assert_eq!(timestamp.unwrap(4), (1 << 32) + 4);
    }

    #[test]
    fn peeking_remembers_nothing() {
        let mut unwrapper = SequenceUnwrapper::new();
        assert_eq!(unwrapper.peek(9), 65_545);
        assert_eq!(unwrapper.highest(), None);

        unwrapper.unwrap(9);
        assert_eq!(unwrapper.peek(10), 65_546);
        assert_eq!(unwrapper.highest(), Some(65_545));
    }

    proptest! {
        /// Any walk with steps shorter than half a cycle from the highest is followed exactly.
        #[test]
        fn a_walk_is_followed(first: u16, steps in prop::collection::vec(-20_000i64..20_000, 1..200)) {
            let mut unwrapper = SequenceUnwrapper::new();
            let mut highest = unwrapper.unwrap(first);
            for step in steps {
                let number = highest.saturating_add_signed(step);
                prop_assert_eq!(unwrapper.unwrap(low_u16(number)), number);
                highest = highest.max(number);
                prop_assert_eq!(unwrapper.highest(), Some(highest));
            }
        }
    }
}
