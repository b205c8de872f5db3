//! The packets of one encoding, kept once for everybody: fan-out and resends name them by position.
//!
//! Payloads lie in one ring of bytes, so a cached packet costs its length and one small record. The ring grows while what it
//! would overwrite is still young, up to [`CACHE_BYTES_MAX`] and [`CACHE_PACKETS_MAX`]; from then on nothing allocates.
//!
//! ```text
//!  bytes   │ payload 7 │ payload 8 │ unused │ payload 5 │ payload 6 │
//!                                  ▲ head     ▲ first
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::rewrite::Incoming;
use crate::track::Codec;

/// The most payload bytes kept of one encoding: a second of 8 Mbit/s.
pub const CACHE_BYTES_MAX: usize = 1 << 20;

/// The most packets kept of one encoding.
pub const CACHE_PACKETS_MAX: usize = 2048;

/// The ring grows rather than overwrite what is younger: a pacer's queue and two round trips of a resend.
const CACHE_AGE: Duration = Duration::from_secs(1);

/// The ring a first packet makes: a second of speech.
const CACHE_BYTES_MIN: usize = 8 << 10;

/// What is kept of a packet besides its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) incoming: Incoming,
    pub(crate) marker: bool,
    /// Whether the payload is RED (RFC 2198).
    pub(crate) red: bool,
    /// What the payload is.
    pub(crate) codec: Codec,
    pub(crate) arrived_at: Instant,
}

/// A packet of the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cached<'a> {
    pub(crate) record: &'a Record,
    /// Header extensions that are passed on, as [`crate::passed`] packs them.
    pub(crate) extensions: &'a [u8],
    pub(crate) payload: &'a [u8],
}

#[derive(Debug)]
struct Entry {
    record: Record,
    offset: usize,
    extensions_len: usize,
    len: usize,
}

/// The ring.
#[derive(Debug, Default)]
pub(crate) struct PacketCache {
    bytes: Vec<u8>,
    head: usize,
    entries: VecDeque<Entry>,
    /// The position of the first entry; positions count packets and wrap.
    first: u32,
}

impl PacketCache {
    /// Keeps a packet and gives its position. What it overwrites is gone.
    ///
    /// A packet longer than the whole ring may become is not kept; a datagram can't be that long.
    pub(crate) fn push(&mut self, record: Record, extensions: &[u8], payload: &[u8]) -> u32 {
        let len = extensions.len() + payload.len();
        debug_assert!(len <= CACHE_BYTES_MAX);

        self.make_room(len, record.arrived_at);
        let offset = self.head;
        self.bytes[offset..][..extensions.len()].copy_from_slice(extensions);
        self.bytes[offset + extensions.len()..][..payload.len()].copy_from_slice(payload);
        self.head = offset + len;

        let position = self.next_position();
        self.entries.push_back(Entry {
            record,
            offset,
            extensions_len: extensions.len(),
            len,
        });
        position
    }

    /// Forgets all packets and gives their memory back: nothing comes any more.
    pub(crate) fn clear(&mut self) {
        self.first = self.next_position();
        self.entries = VecDeque::new();
        self.bytes = Vec::new();
        self.head = 0;
    }

    /// The packet at `position`, while it is kept.
    #[inline]
    pub(crate) fn get(&self, position: u32) -> Option<Cached<'_>> {
        let entry = self
            .entries
            .get(position.wrapping_sub(self.first) as usize)?;
        let bytes = &self.bytes[entry.offset..][..entry.len];
        let (extensions, payload) = bytes.split_at(entry.extensions_len);

        Some(Cached {
            record: &entry.record,
            extensions,
            payload,
        })
    }

    /// The packets that came within `age` before `now`, oldest first, with their positions.
    pub(crate) fn since(
        &self,
        now: Instant,
        age: Duration,
    ) -> impl Iterator<Item = (u32, Cached<'_>)> {
        let is_old =
            move |entry: &Entry| now.saturating_duration_since(entry.record.arrived_at) > age;
        let old = self.entries.partition_point(is_old);

        (old..self.entries.len()).filter_map(move |index| {
            let position = self.first.wrapping_add(u32::try_from(index).ok()?);

            Some((position, self.get(position)?))
        })
    }

    /// The packets from `position` on that are kept, oldest first, with their positions.
    pub(crate) fn from(&self, position: u32) -> impl Iterator<Item = (u32, Cached<'_>)> {
        let first = position.wrapping_sub(self.first) as usize;

        (first..self.entries.len()).filter_map(move |index| {
            let position = self.first.wrapping_add(u32::try_from(index).ok()?);

            Some((position, self.get(position)?))
        })
    }

    /// Packets and bytes of the ring, for a test of the limits.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes.len())
    }

    fn next_position(&self) -> u32 {
        // At most CACHE_PACKETS_MAX entries.
        self.first
            .wrapping_add(u32::try_from(self.entries.len()).unwrap_or(u32::MAX))
    }

    /// Moves `head` to where `len` bytes are free, growing or forgetting.
    fn make_room(&mut self, len: usize, now: Instant) {
        loop {
            if self.entries.is_empty() {
                self.head = 0;
                if self.bytes.len() >= len {
                    return;
                }
            } else if self.entries.len() < CACHE_PACKETS_MAX && self.fits(len) {
                return;
            }

            if self.may_grow(len, now) {
                self.grow(len);
            } else {
                self.entries.pop_front();
                self.first = self.first.wrapping_add(1);
            }
        }
    }

    /// Whether `len` bytes are free at `head`, or at the start behind which the ring begins anew.
    fn fits(&mut self, len: usize) -> bool {
        let Some(first) = self.entries.front() else {
            return self.bytes.len() >= len;
        };

        // The bytes in use are either one piece before the head, or wrap around the end.
        if first.offset < self.head {
            if self.bytes.len() - self.head >= len {
                return true;
            }
            if first.offset >= len {
                self.head = 0;
                return true;
            }
            return false;
        }
        first.offset - self.head >= len
    }

    fn may_grow(&self, len: usize, now: Instant) -> bool {
        if self.bytes.len() < len {
            return true;
        }

        let is_young = self.entries.front().is_some_and(|first| {
            now.saturating_duration_since(first.record.arrived_at) < CACHE_AGE
        });
        is_young && self.bytes.len() < CACHE_BYTES_MAX && self.entries.len() < CACHE_PACKETS_MAX
    }

    /// Makes the ring twice as large, with what it holds at the front.
    fn grow(&mut self, len: usize) {
        let size = (self.bytes.len() * 2)
            .max(len.next_power_of_two())
            .clamp(CACHE_BYTES_MIN, CACHE_BYTES_MAX);
        let mut bytes = vec![0; size];
        let mut head = 0;

        for entry in &mut self.entries {
            bytes[head..][..entry.len].copy_from_slice(&self.bytes[entry.offset..][..entry.len]);
            entry.offset = head;
            head += entry.len;
        }
        self.bytes = bytes;
        self.head = head;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::picture::Picture;

    fn record(sequence: u64, arrived_at: Instant) -> Record {
        Record {
            incoming: Incoming {
                sequence,
                timestamp: 0,
                picture: Picture::default(),
            },
            marker: false,
            red: false,
            codec: Codec::Vp8,
            arrived_at,
        }
    }

    #[test]
    fn a_slow_stream_keeps_little_and_a_fast_one_a_second() {
        let mut slow = PacketCache::default();
        let mut fast = PacketCache::default();
        let start = crate::test::start();

        for n in 0..500_u32 {
            slow.push(
                record(n.into(), start + Duration::from_millis(20) * n),
                &[],
                &[0; 80],
            );
        }
        for n in 0..3000_u32 {
            fast.push(
                record(n.into(), start + Duration::from_millis(2) * n),
                &[],
                &[0; 1000],
            );
        }

        assert_eq!(slow.size().1, CACHE_BYTES_MIN);
        let oldest = fast.get(fast.first).unwrap().record.incoming.sequence;
        assert!((2000..=2500).contains(&oldest), "{oldest}");
        assert!(fast.size().1 <= CACHE_BYTES_MAX);
    }

    #[test]
    fn what_was_forgotten_is_not_found_under_its_old_position() {
        let mut cache = PacketCache::default();
        let start = crate::test::start();
        let old = cache.push(record(1, start), &[], &[1]);

        cache.clear();
        assert!(cache.get(old).is_none() && cache.size() == (0, 0));
        let new = cache.push(record(2, start), &[], &[2]);
        assert!(cache.get(old).is_none() && cache.get(new).is_some());
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_was_put_in(
            packets in proptest::collection::vec((0_usize..1500, 0_usize..20, 0_u64..30), 1..600),
        ) {
            let mut cache = PacketCache::default();
            let mut now = crate::test::start();
            let mut put = Vec::new();

            for ((n, byte), (len, extensions_len, millis)) in (0_u64..).zip((0..=250).cycle()).zip(packets) {
                now += Duration::from_millis(millis);
                let position = cache.push(
                    record(n, now),
                    &vec![byte ^ 0xff; extensions_len],
                    &vec![byte; len],
                );
                put.push((position, byte, len, extensions_len));

                let (packets, bytes) = cache.size();
                prop_assert!(packets <= CACHE_PACKETS_MAX && bytes <= CACHE_BYTES_MAX);
                prop_assert!(cache.get(position).is_some(), "the newest is there");
            }

            let mut found = 0;
            for (n, (position, byte, len, extensions_len)) in put.iter().enumerate() {
                let Some(cached) = cache.get(*position) else {
                    prop_assert_eq!(found, 0, "the oldest go first");
                    continue;
                };
                found += 1;
                prop_assert_eq!(cached.record.incoming.sequence, n as u64);
                prop_assert!(cached.payload.len() == *len && cached.payload.iter().all(|b| b == byte));
                prop_assert!(cached.extensions.len() == *extensions_len);
                prop_assert!(cached.extensions.iter().all(|b| *b == byte ^ 0xff));
            }
            prop_assert_eq!(found, cache.size().0);
        }
    }
}
