//! How a role of this process hears and speaks in a Room without a network: packets of Opus pass through two bounded rings between it
//! and the SFU.
//!
//! ```text
//!  gateway: End ── send ──▶ [ring] ──▶ receive ── End: SFU        (and wakes the SFU's thread)
//!           End ◀─ receive ── [ring] ◀── send ─── End: SFU        (the gateway looks at every tick of its clock)
//! ```
//!
//! Each ring has one writer and one reader. No call waits, locks or allocates; what finds no room is dropped and counted, as a
//! network would.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use crate::id::{AccountId, ParticipantId, RoomId, TrackId};

/// The longest payload of a packet, in bytes: the longest frame of Opus (RFC 6716 §3.2.1) and its first byte.
pub const PAYLOAD_LEN_MAX: usize = 1_276;

/// How many voices are heard at once: each has a [slot](Packet::slot) of its own.
pub const VOICES_MAX: usize = 4;

/// The words of a ring, of 8 bytes: more than a second of a voice at the usual bitrates, and a tenth of a second of four at the highest.
const WORDS: usize = 2_048;

/// The words before the payload of a packet.
const HEADER_WORDS: usize = 4;

const _: () = assert!(WORDS.is_power_of_two());
const _: () = assert!(PAYLOAD_LEN_MAX <= 0xffff);

/// Who is in which Room by such an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seat {
    /// The Account.
    pub account: AccountId,
    /// The Room.
    pub room: RoomId,
    /// The Participant.
    pub participant: ParticipantId,
}

/// Why nobody gets the end of a [`Seat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum NoSeat {
    /// The Participant has not joined the Room in time, or was refused.
    #[error("no such participant joined the room")]
    Unknown,
    /// Somebody has it already.
    #[error("the participant's end is taken")]
    Taken,
    /// More are waited for than may be.
    #[error("too many wait for their room")]
    Busy,
    /// The SFU has ended, or there is none.
    #[error("no rooms here")]
    Ended,
}

/// Finds the end of a [`Seat`], waiting a while for its Participant to join.
pub type Attach = Arc<dyn Fn(Seat) -> Attaching + Send + Sync>;

/// What [`Attach`] gives.
pub type Attaching = Pin<Box<dyn Future<Output = Result<End, NoSeat>> + Send>>;

/// How loud a packet is (RFC 6464).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Level {
    /// In dB below full scale: 0 is the loudest, 127 is silence.
    pub below_full: u8,
    /// Whether it is a voice.
    pub voice: bool,
}

/// A packet of sound, but for its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Which of the voices of a receiver it is, from 0 to [`VOICES_MAX`] - 1: sequence numbers count on within one. 0 from a sender.
    pub slot: u8,
    /// Whose sound it is. Another Track than before in a slot is another voice.
    pub track: TrackId,
    /// As in RTP; gaps are losses.
    pub sequence: u16,
    /// When it begins, in 1/48,000 s.
    pub timestamp: u32,
    /// The first packet after a silence.
    pub marker: bool,
    /// How loud it is, where its sender tells.
    pub level: Option<Level>,
}

/// Why a packet is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Unsent {
    /// The other end takes in less than it is sent.
    #[error("the ring is full")]
    Full,
    /// Longer than [`PAYLOAD_LEN_MAX`].
    #[error("a payload longer than {PAYLOAD_LEN_MAX} bytes")]
    TooLong,
    /// The other end is gone.
    #[error("the other end is gone")]
    Closed,
}

/// One of the two ends. Dropping it closes the other.
pub struct End {
    link: Arc<Link>,
    /// Which of the rings is written; the other is read.
    writes: usize,
    /// Where the next packet is written, and how far the reader was when last looked at.
    tail: usize,
    head_seen: usize,
    /// Where the next packet is read.
    head: usize,
    /// Who is to be told when there is something to receive for the other end.
    waker: Option<Waker>,
}

/// Two ends of one connection. `waker` is called for what the second one sends, and when that is dropped: whoever holds the first
/// sleeps otherwise. The second end's holder has a clock of its own.
#[must_use]
pub fn pair(waker: Waker) -> (End, End) {
    let link = Arc::new(Link {
        rings: [Ring::new(), Ring::new()],
        is_closed: AtomicBool::new(false),
    });
    let end = |writes, waker| End {
        link: link.clone(),
        writes,
        tail: 0,
        head_seen: 0,
        head: 0,
        waker,
    };
    (end(0, None), end(1, Some(waker)))
}

impl End {
    /// Sends a packet.
    ///
    /// # Errors
    ///
    /// [`Unsent`]: it is dropped, and counted unless the other end is gone.
    pub fn send(&mut self, packet: &Packet, payload: &[u8]) -> Result<(), Unsent> {
        if self.is_closed() {
            return Err(Unsent::Closed);
        }
        let ring = &self.link.rings[self.writes];
        let refuse = |why| {
            ring.dropped.fetch_add(1, Ordering::Relaxed);
            Err(why)
        };
        if payload.len() > PAYLOAD_LEN_MAX {
            return refuse(Unsent::TooLong);
        }
        let words = HEADER_WORDS + payload.len().div_ceil(8);
        if WORDS - self.tail.wrapping_sub(self.head_seen) < words {
            self.head_seen = ring.head.load(Ordering::Acquire);
            if WORDS - self.tail.wrapping_sub(self.head_seen) < words {
                return refuse(Unsent::Full);
            }
        }
        for (at, word) in header(packet, payload.len()).into_iter().enumerate() {
            ring.put(self.tail.wrapping_add(at), word);
        }
        for (at, bytes) in (HEADER_WORDS..).zip(payload.chunks(8)) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            ring.put(self.tail.wrapping_add(at), u64::from_le_bytes(word));
        }
        self.tail = self.tail.wrapping_add(words);
        // Whoever sees this sees the words, too.
        ring.tail.store(self.tail, Ordering::Release);
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
        Ok(())
    }

    /// The next packet and the length of its payload, which is written to `payload`; what was sent before the other end closed
    /// comes, too.
    pub fn receive(&mut self, payload: &mut [u8; PAYLOAD_LEN_MAX]) -> Option<(Packet, usize)> {
        let ring = &self.link.rings[1 - self.writes];
        if ring.tail.load(Ordering::Acquire) == self.head {
            return None;
        }
        let mut words = [0; HEADER_WORDS];
        for (at, word) in words.iter_mut().enumerate() {
            *word = ring.get(self.head.wrapping_add(at));
        }
        let (packet, len) = read_header(words);
        let payload = &mut payload[..len];
        for (at, bytes) in (HEADER_WORDS..).zip(payload.chunks_mut(8)) {
            let word = ring.get(self.head.wrapping_add(at)).to_le_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
        let words = HEADER_WORDS + len.div_ceil(8);
        self.head = self.head.wrapping_add(words);
        // What was read may be written over from now on.
        ring.head.store(self.head, Ordering::Release);
        Some((packet, len))
    }

    /// Whether the other end is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.link.is_closed.load(Ordering::Acquire)
    }

    /// How many packets were dropped on their way to the other end, and on their way here.
    #[must_use]
    pub fn dropped(&self) -> (u64, u64) {
        let of = |ring: &Ring| ring.dropped.load(Ordering::Relaxed);
        (
            of(&self.link.rings[self.writes]),
            of(&self.link.rings[1 - self.writes]),
        )
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.link.is_closed.store(true, Ordering::Release);
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End")
            .field("is_closed", &self.is_closed())
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

/// What both ends share.
struct Link {
    rings: [Ring; 2],
    is_closed: AtomicBool,
}

/// Words that were written and not read yet lie between head and tail, which only ever grow. Each word is an atomic of its own, so
/// that no writer and reader ever meet in one; on the machines we know that is as good as a copy.
struct Ring {
    words: Box<[AtomicU64]>,
    head: Apart<AtomicUsize>,
    tail: Apart<AtomicUsize>,
    dropped: AtomicU64,
}

/// In a cache line of its own: the two ends are on two cores.
#[repr(align(64))]
struct Apart<T>(T);

impl<T> std::ops::Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Ring {
    fn new() -> Self {
        Self {
            words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
            head: Apart(AtomicUsize::new(0)),
            tail: Apart(AtomicUsize::new(0)),
            dropped: AtomicU64::new(0),
        }
    }

    fn put(&self, at: usize, word: u64) {
        self.words[at % WORDS].store(word, Ordering::Relaxed);
    }

    fn get(&self, at: usize) -> u64 {
        self.words[at % WORDS].load(Ordering::Relaxed)
    }
}

const MARKER: u64 = 1 << 8;
const HAS_LEVEL: u64 = 1 << 9;
const IS_VOICE: u64 = 1 << 10;

fn header(packet: &Packet, len: usize) -> [u64; HEADER_WORDS] {
    let numbers = len as u64 | u64::from(packet.sequence) << 16 | u64::from(packet.timestamp) << 32;
    let flag = |is_set: bool, bit: u64| if is_set { bit } else { 0 };
    let level = packet.level.map_or(0, |level| {
        HAS_LEVEL | flag(level.voice, IS_VOICE) | u64::from(level.below_full) << 16
    });
    let rest = u64::from(packet.slot) | flag(packet.marker, MARKER) | level;
    let [high, low] = halves(packet.track.as_u128());
    [numbers, rest, high, low]
}

fn read_header(words: [u64; HEADER_WORDS]) -> (Packet, usize) {
    let [numbers, rest, high, low] = words;
    let [
        len_low,
        len_high,
        sequence_low,
        sequence_high,
        timestamp @ ..,
    ] = numbers.to_le_bytes();
    let [slot, _, below_full, ..] = rest.to_le_bytes();
    let packet = Packet {
        slot,
        track: TrackId::from_u128(u128::from(high) << 64 | u128::from(low)),
        sequence: u16::from_le_bytes([sequence_low, sequence_high]),
        timestamp: u32::from_le_bytes(timestamp),
        marker: rest & MARKER != 0,
        level: (rest & HAS_LEVEL != 0).then_some(Level {
            below_full,
            voice: rest & IS_VOICE != 0,
        }),
    };
    let len = usize::from(u16::from_le_bytes([len_low, len_high]));
    (packet, len.min(PAYLOAD_LEN_MAX))
}

fn halves(value: u128) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = value.to_be_bytes();
    [
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u64::from_be_bytes(rest),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;
    use std::thread;

    use super::*;

    fn packet(number: u32) -> Packet {
        Packet {
            slot: number.to_le_bytes()[0] % 4,
            track: TrackId::from_u128(u128::MAX / 3 + u128::from(number)),
            sequence: u16::from_le_bytes([number.to_le_bytes()[0], number.to_le_bytes()[1]]),
            timestamp: number.wrapping_mul(960),
            marker: number.is_multiple_of(3),
            level: number.is_multiple_of(2).then_some(Level {
                below_full: number.to_le_bytes()[0] % 128,
                voice: number.is_multiple_of(5),
            }),
        }
    }

    fn payload(number: u32) -> Vec<u8> {
        let len = number as usize * 37 % (PAYLOAD_LEN_MAX + 1);
        vec![number.to_le_bytes()[0]; len]
    }

    fn received(end: &mut End) -> Option<(Packet, Vec<u8>)> {
        let mut bytes = [0; PAYLOAD_LEN_MAX];
        let (packet, len) = end.receive(&mut bytes)?;
        Some((packet, bytes[..len].to_vec()))
    }

    #[test]
    fn what_is_sent_arrives_whole_in_both_directions() {
        let (mut near, mut far) = pair(Waker::noop().clone());
        for number in 0..1_000 {
            let sent = (packet(number), payload(number));
            assert_eq!(near.send(&sent.0, &sent.1), Ok(()));
            assert_eq!(far.send(&sent.0, &sent.1), Ok(()));
            assert_eq!(received(&mut near), Some(sent.clone()));
            assert_eq!(received(&mut far), Some(sent));
        }
        assert_eq!((received(&mut near), received(&mut far)), (None, None));
        assert_eq!(near.dropped(), (0, 0));
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_the_rest_is_in_order() {
        let (mut near, mut far) = pair(Waker::noop().clone());
        let sent = (0..100)
            .take_while(|number| near.send(&packet(*number), &[7; 1_000]).is_ok())
            .count();
        let fits = WORDS / (HEADER_WORDS + 125);
        assert_eq!(sent, fits);
        assert_eq!(near.send(&packet(0), &[7; 1_000]), Err(Unsent::Full));
        let too_long = [0; PAYLOAD_LEN_MAX + 1];
        assert_eq!(near.send(&packet(0), &too_long), Err(Unsent::TooLong));
        assert_eq!((near.dropped(), far.dropped()), ((3, 0), (0, 3)));
        for number in 0..u32::try_from(fits).unwrap() {
            assert_eq!(
                received(&mut far),
                Some((packet(number), vec![7; 1_000])),
                "{number}"
            );
        }
        assert_eq!(received(&mut far), None);
        assert_eq!(near.send(&packet(9), &[]), Ok(()));
        assert_eq!(received(&mut far), Some((packet(9), Vec::new())));
    }

    #[test]
    fn who_goes_closes_the_other_and_what_was_sent_still_comes() {
        let (mut near, mut far) = pair(Waker::noop().clone());
        assert_eq!(far.send(&packet(1), b"last"), Ok(()));
        drop(far);
        assert!(near.is_closed());
        assert_eq!(near.send(&packet(1), b"x"), Err(Unsent::Closed));
        assert_eq!(received(&mut near), Some((packet(1), b"last".to_vec())));
        assert_eq!(received(&mut near), None);
    }

    #[test]
    fn the_sleeper_is_woken_and_the_other_is_not() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let (mut near, mut far) = pair(count.clone().into());
        let woken = || count.0.load(Ordering::Relaxed);
        assert_eq!(near.send(&packet(1), b"x"), Ok(()));
        assert_eq!(woken(), 0);
        assert_eq!(far.send(&packet(1), b"x"), Ok(()));
        assert_eq!(woken(), 1);
        drop(far);
        assert_eq!(woken(), 2);
    }

    #[test]
    fn two_threads_never_tear_a_packet() {
        const PACKETS: u32 = 100_000;
        let (mut near, mut far) = pair(Waker::noop().clone());
        let writer = thread::spawn(move || {
            for number in 0..PACKETS {
                while far.send(&packet(number), &payload(number)) == Err(Unsent::Full) {
                    thread::yield_now();
                }
            }
            far
        });
        for number in 0..PACKETS {
            let got = loop {
                match received(&mut near) {
                    Some(got) => break got,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(got, (packet(number), payload(number)));
        }
        assert!(writer.join().is_ok());
    }
}
