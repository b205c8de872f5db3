//! What was sent in one outgoing stream, so that it can be sent again (RFC 4588), within bounds: a packet at most once per round
//! trip and [`RESENDS_MAX`] times in all, and resends no more than a share of what is sent.

use std::time::{Duration, Instant};

/// How often one packet is sent again at most.
pub const RESENDS_MAX: u8 = 8;

/// The most packets that are remembered of one stream.
pub const HISTORY_MAX: usize = 1024;

/// How much of the bytes sent may be sent again: one in so many.
pub const RESEND_SHARE: usize = 2;

/// The bytes that may be sent again in a burst.
pub const RESEND_BURST_MAX: usize = 64 << 10;

/// What a stream begins with.
const HISTORY_MIN: usize = 64;

/// The memory grows rather than forget what is younger: what three requests in a row could ask for on a long way.
const HISTORY_AGE: Duration = Duration::from_millis(900);

/// The shortest time between two resends of a packet.
const ROUND_MIN: Duration = Duration::from_millis(10);

/// What a remembered packet was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The unwrapped number in the outgoing stream.
    pub(crate) sequence: u64,
    pub(crate) timestamp: u32,
    /// Where its payload lies, in the cache of which encoding; `None` for an empty packet.
    pub(crate) position: Option<u32>,
    pub(crate) encoding: u8,
    pub(crate) marker: bool,
    pub(crate) picture_id: u16,
    pub(crate) tl0_picture_index: u8,
    pub(crate) frame_number: u16,
    /// Without headers.
    pub(crate) len: u16,
}

/// What is kept of it: half a cache line, for one is written with each packet to each subscriber.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// The low half of the number: what is remembered at once is closer together.
    sequence: u32,
    timestamp: u32,
    position: u32,
    /// In milliseconds since the stream began.
    at: u32,
    resent_at: u32,
    picture_id: u16,
    frame_number: u16,
    len: u16,
    tl0_picture_index: u8,
    encoding: u8,
    resends: u8,
    /// [`IS_THERE`] and the other bits below.
    flags: u8,
}

const _: () = assert!(size_of::<Entry>() == 32);

/// Anything was written here.
const IS_THERE: u8 = 1;
/// It has a payload.
const HAS_PAYLOAD: u8 = 1 << 1;
const MARKER: u8 = 1 << 2;
/// Its Track is in the slot no more.
const IS_GONE: u8 = 1 << 3;

impl Entry {
    fn new(sent: &Sent, at: u32) -> Self {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };

        Self {
            sequence: low(sent.sequence),
            timestamp: sent.timestamp,
            position: sent.position.unwrap_or(0),
            at,
            resent_at: 0,
            picture_id: sent.picture_id,
            frame_number: sent.frame_number,
            len: sent.len,
            tl0_picture_index: sent.tl0_picture_index,
            encoding: sent.encoding,
            resends: 0,
            flags: IS_THERE
                | flag(sent.position.is_some(), HAS_PAYLOAD)
                | flag(sent.marker, MARKER),
        }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether this is of the packet with that number.
    fn is(&self, sequence: u64) -> bool {
        self.has(IS_THERE) && self.sequence == low(sequence)
    }

    /// What was sent with the number `sequence`, which is its own.
    fn sent(&self, sequence: u64) -> Sent {
        Sent {
            sequence,
            timestamp: self.timestamp,
            position: self.has(HAS_PAYLOAD).then_some(self.position),
            encoding: self.encoding,
            marker: self.has(MARKER),
            picture_id: self.picture_id,
            tl0_picture_index: self.tl0_picture_index,
            frame_number: self.frame_number,
            len: self.len,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "only the low half is kept")]
const fn low(sequence: u64) -> u32 {
    sequence as u32
}

/// What became of a number that a subscriber misses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Send it again.
    Resend(Sent),
    /// It was sent, and is not to be sent again (now).
    Spent(Refused),
    /// It was never sent.
    Hole(u64),
    /// Nobody knows any more, or it is yet to come.
    Unknown,
}

/// Why a packet is not sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It was, less than a round trip ago.
    TooSoon,
    /// It was, often.
    TooOften,
    /// Resends have used up their share.
    Share,
    /// Its Track is in the slot no more.
    Gone,
}

/// The memory of one outgoing stream.
#[derive(Debug)]
pub(crate) struct History {
    began_at: Instant,
    /// At `sequence % len`, which is a power of two or 0.
    entries: Vec<Entry>,
    /// The newest number sent, and the oldest of which all is known.
    newest: Option<u64>,
    known_from: u64,
    /// How many bytes may be sent again.
    budget: usize,
}

impl History {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            began_at: now,
            entries: Vec::new(),
            newest: None,
            known_from: 0,
            budget: RESEND_BURST_MAX / 2,
        }
    }

    /// Remembers what is sent for the first time.
    pub(crate) fn insert(&mut self, now: Instant, sent: Sent) {
        let at = self.millis(now);
        self.budget = (self.budget + usize::from(sent.len) / RESEND_SHARE).min(RESEND_BURST_MAX);

        let newest = self
            .newest
            .map_or(sent.sequence, |newest| newest.max(sent.sequence));
        if self.newest.is_none() {
            self.known_from = sent.sequence;
        }
        while self.would_forget_young(newest, at) {
            self.grow();
        }
        self.newest = Some(newest);
        let len = self.entries.len() as u64;
        self.known_from = self.known_from.max((newest + 1).saturating_sub(len));

        if sent.sequence >= self.known_from {
            let index = self.index(sent.sequence);
            self.entries[index] = Entry::new(&sent, at);
        }
    }

    /// Looks up what a subscriber at a distance of `round` misses; what is found to resend counts as resent.
    pub(crate) fn resend(&mut self, now: Instant, number: u16, round: Duration) -> Found {
        let Some(sequence) = self.unwrap(number) else {
            return Found::Unknown;
        };
        let now = self.millis(now);
        let round = u32::try_from(round.max(ROUND_MIN).as_millis()).unwrap_or(u32::MAX);
        let index = self.index(sequence);
        let entry = &mut self.entries[index];
        if !entry.is(sequence) {
            return Found::Hole(sequence);
        }

        if entry.has(IS_GONE) {
            Found::Spent(Refused::Gone)
        } else if entry.resends >= RESENDS_MAX {
            Found::Spent(Refused::TooOften)
        } else if entry.resends > 0 && now.saturating_sub(entry.resent_at) < round {
            Found::Spent(Refused::TooSoon)
        } else if self.budget < usize::from(entry.len) {
            Found::Spent(Refused::Share)
        } else {
            self.budget -= usize::from(entry.len);
            entry.resends += 1;
            entry.resent_at = now;
            Found::Resend(entry.sent(sequence))
        }
    }

    /// The newest packet that `fits`, for padding. It counts neither as a resend nor against the share.
    pub(crate) fn newest_that(&self, fits: impl Fn(&Sent) -> bool) -> Option<Sent> {
        let newest = self.newest?;

        (self.known_from..=newest)
            .rev()
            .take(HISTORY_MIN)
            .filter_map(|sequence| {
                let entry = &self.entries[self.index(sequence)];
                let is_known = entry.is(sequence) && !entry.has(IS_GONE);
                is_known.then(|| entry.sent(sequence))
            })
            .find(fits)
    }

    /// The Track leaves the slot: what was sent of it can't be sent again.
    pub(crate) fn forget_payloads(&mut self) {
        for entry in &mut self.entries {
            entry.flags |= IS_GONE;
        }
    }

    /// The unwrapped number, if everything about it is known.
    fn unwrap(&self, number: u16) -> Option<u64> {
        let newest = self.newest?;
        let behind = crate::receiver::low(newest).wrapping_sub(number);

        newest
            .checked_sub(u64::from(behind))
            .filter(|&sequence| sequence >= self.known_from)
    }

    /// The timestamp of the nearest packet sent before `sequence`, or else after it.
    pub(crate) fn timestamp_near(&self, sequence: u64) -> u32 {
        let newest = self.newest.unwrap_or(sequence);
        let find = |sequence: u64| {
            let entry = &self.entries[self.index(sequence)];
            entry.is(sequence).then_some(entry.timestamp)
        };

        (self.known_from..sequence)
            .rev()
            .find_map(find)
            .or_else(|| (sequence..=newest).find_map(find))
            .unwrap_or(0)
    }

    fn would_forget_young(&self, newest: u64, at: u32) -> bool {
        if self.entries.is_empty() {
            return true;
        }
        if self.entries.len() >= HISTORY_MAX {
            return false;
        }

        let entry = &self.entries[self.index(newest)];
        entry.has(IS_THERE)
            && !entry.is(newest)
            && u128::from(at.saturating_sub(entry.at)) < HISTORY_AGE.as_millis()
    }

    fn grow(&mut self) {
        let len = (self.entries.len() * 2).clamp(HISTORY_MIN, HISTORY_MAX);
        let before = std::mem::replace(&mut self.entries, vec![Entry::default(); len]);

        for entry in before.into_iter().filter(|entry| entry.has(IS_THERE)) {
            let index = self.index(u64::from(entry.sequence));
            let other = &self.entries[index];
            // Of two that meet, the younger is the one still known.
            let is_younger = entry.sequence.wrapping_sub(other.sequence).cast_signed() > 0;
            if !other.has(IS_THERE) || is_younger {
                self.entries[index] = entry;
            }
        }
    }

    fn index(&self, sequence: u64) -> usize {
        let mask = self.entries.len().saturating_sub(1) as u64;

        // At most HISTORY_MAX.
        usize::try_from(sequence & mask).unwrap_or(0)
    }

    fn millis(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.began_at).as_millis()).unwrap_or(u32::MAX)
    }
}
