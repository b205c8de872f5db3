//! The newest key frame of an encoding and all that followed it: what somebody who comes just then begins with, without asking for
//! another one, which everybody would pay for.
//!
//! ```text
//!  in    K  p  p  p  ·          ← somebody subscribes here
//!  out            K p p p p p   what they get with the next packet: K whole, and nothing is missing behind it
//! ```

use std::time::{Duration, Instant};

use crate::cache::Record;

/// How old a key frame may be: what follows it has to be kept until it has left, and is sent again for who loses it.
pub const BEGINNING_AGE_MAX: Duration = Duration::from_millis(600);

/// The most payload bytes of it: a quarter of a second of the rate that a way is thought to have when nothing is known of it. Another key
/// frame is there as soon.
pub const BEGINNING_BYTES_MAX: usize = 16 << 10;

/// The most packets of it.
pub const BEGINNING_PACKETS_MAX: u32 = 48;

/// Nothing is waited for once nothing came for so long: the packet that it is sent with.
const LIVE: Duration = Duration::from_millis(150);

/// Where it lies in the cache of the encoding.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// The first packet of the key frame.
    position: u32,
    arrived_at: Instant,
    /// When the newest came, and the number of the one that goes on.
    newest_at: Instant,
    next: u64,
    packets: u32,
    bytes: usize,
}

/// Follows an encoding from key frame to key frame.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    kept: Option<Kept>,
}

impl Beginning {
    /// Takes a packet that was put into the cache at `position`; `len` is that of its payload. Whatever is not the next one in the
    /// stream ends what could be begun with.
    #[inline]
    pub(crate) fn follow(&mut self, record: &Record, is_newest: bool, position: u32, len: usize) {
        let (now, sequence) = (record.arrived_at, record.incoming.sequence);
        let before = match self.kept {
            _ if !is_newest => None,
            _ if record.incoming.picture.starts_key_frame => Some(Kept {
                position,
                arrived_at: now,
                newest_at: now,
                next: sequence,
                packets: 0,
                bytes: 0,
            }),
            kept => kept.filter(|kept| kept.next == sequence),
        };

        self.kept = before
            .map(|kept| Kept {
                newest_at: now,
                next: sequence + 1,
                packets: kept.packets + 1,
                bytes: kept.bytes + len,
                ..kept
            })
            .filter(|kept| {
                kept.bytes <= BEGINNING_BYTES_MAX && kept.packets <= BEGINNING_PACKETS_MAX
            });
    }

    /// Until the next key frame there is nothing to begin with.
    pub(crate) fn forget(&mut self) {
        self.kept = None;
    }

    /// Where the first packet of the key frame lies, if it is worth waiting for the next packet of the encoding.
    pub(crate) fn position(&self, now: Instant) -> Option<u32> {
        let is_within = |at, max| now.saturating_duration_since(at) <= max;
        let kept = self.kept?;

        (is_within(kept.arrived_at, BEGINNING_AGE_MAX) && is_within(kept.newest_at, LIVE))
            .then_some(kept.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Picture;
    use crate::rewrite::Incoming;
    use crate::track::Codec;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_gap_what_comes_late_and_what_is_too_much_or_too_old_is_no_beginning() {
        let start = crate::test::start();
        let mut beginning = Beginning::default();
        let mut follow = |millis: u32, sequence: u64, is_key: bool, is_newest: bool, len: usize| {
            let now = start + MS * millis;
            let record = record(now, sequence, is_key);
            let position = u32::try_from(sequence).unwrap() + 1000;
            beginning.follow(&record, is_newest, position, len);
            beginning.position(now)
        };

        assert_eq!(follow(0, 1, false, true, 100), None, "no key frame yet");
        assert_eq!(follow(10, 2, true, true, 1000), Some(1002));
        assert_eq!(follow(20, 3, false, true, 1000), Some(1002));
        assert_eq!(follow(30, 5, false, true, 1000), None, "4 is missing");
        assert_eq!(follow(40, 4, false, false, 1000), None);
        assert_eq!(follow(50, 6, true, true, 1000), Some(1006));
        assert_eq!(follow(60, 7, false, true, BEGINNING_BYTES_MAX), None);
        assert_eq!(follow(70, 8, true, true, 0), Some(1008));
        for n in 1..BEGINNING_PACKETS_MAX {
            assert_eq!(follow(70, 8 + u64::from(n), false, true, 1), Some(1008));
        }
        let next = 8 + u64::from(BEGINNING_PACKETS_MAX);
        assert_eq!(follow(70, next, false, true, 1), None, "too many packets");
        for n in 0..6 {
            let at = 100 + n * 100;
            assert_eq!(
                follow(at, next + 1 + u64::from(n), n == 0, true, 1),
                Some(u32::try_from(next).unwrap() + 1001)
            );
        }
        assert!(follow(700, next + 7, false, true, 1).is_some());
        assert_eq!(follow(800, next + 8, false, true, 1), None, "too old");
    }

    #[test]
    fn nobody_waits_for_what_does_not_come() {
        let start = crate::test::start();
        let mut beginning = Beginning::default();
        beginning.follow(&record(start, 1, true), true, 7, 100);

        assert_eq!(beginning.position(start + LIVE), Some(7));
        assert_eq!(beginning.position(start + LIVE + MS), None);
        beginning.forget();
        assert_eq!(beginning.position(start), None);
    }

    fn record(now: Instant, sequence: u64, is_key: bool) -> Record {
        Record {
            incoming: Incoming {
                sequence,
                timestamp: 0,
                picture: Picture {
                    starts_key_frame: is_key,
                    ..Picture::default()
                },
            },
            marker: false,
            red: false,
            codec: Codec::Vp8,
            arrived_at: now,
        }
    }
}
