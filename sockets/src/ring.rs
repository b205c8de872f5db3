//! Labelled bytes from one thread to another, in memory: a ring with one writer and one reader.
//!
//! ```text
//! lines   │ head bytes… │ head bytes… │ free …      a burst is whole and in one piece
//! places  │ 0 │ 7 │ … where each begins, in their order
//! ```
//!
//! Nobody waits, locks or allocates: what finds no room is refused. The reader gets the bytes where they lie and may change them
//! there. While the reader keeps up, the writer begins at the front again and again, so that what is used stays in the caches and
//! the rest of a large ring is never touched.

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// The unit of room, in bytes: a cache line, so that the two threads never meet in one.
pub const LINE_LEN: usize = 64;

/// How many bursts may wait in a ring.
pub const WAITING_MAX: usize = 4_096;

/// Behind so many lines the writer looks whether the reader has caught up, to begin at the front.
const WARM_LINES: usize = 32 * 1024 / LINE_LEN;

const _: () = assert!(WAITING_MAX.is_power_of_two());

/// There is no room, or nobody who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room in the ring")]
pub struct Full;

/// Where one thread writes. Dropping it leaves the reader what was written.
pub struct Writer<L> {
    ring: Arc<Ring<L>>,
    /// How many bursts were written, and how many were read when last looked at.
    tail: usize,
    head_seen: usize,
    /// The line behind what was written last.
    next: usize,
}

/// Where another thread reads.
pub struct Reader<L> {
    ring: Arc<Ring<L>>,
    /// How many bursts were read, and how many were written when last looked at.
    head: usize,
    tail_seen: usize,
}

/// A burst that waits to be read. Dropping it gives its room back.
pub struct Entry<'r, L> {
    /// What it was written with.
    pub label: L,
    bytes: &'r mut [u8],
    reader: Taken<'r, L>,
}

impl<L> Entry<'_, L> {
    /// Its bytes, where they lie; until the entry is dropped and no longer.
    pub fn bytes(&mut self) -> &mut [u8] {
        self.bytes
    }
}

/// A ring of `len` bytes, of which heads take a part.
///
/// # Panics
///
/// `len` is 256 GB or more.
#[must_use]
pub fn ring<L: Copy + Send>(len: usize) -> (Writer<L>, Reader<L>) {
    let ring = Arc::new(Ring::new(len.div_ceil(LINE_LEN)));
    let writer = Writer {
        ring: ring.clone(),
        tail: 0,
        head_seen: 0,
        next: 0,
    };
    let reader = Reader {
        ring,
        head: 0,
        tail_seen: 0,
    };
    (writer, reader)
}

impl<L: Copy + Send> Writer<L> {
    /// Writes one burst made of `parts`, which the reader sees at once.
    ///
    /// # Errors
    ///
    /// [`Full`]: it is dropped.
    pub fn write(&mut self, label: L, parts: &[&[u8]]) -> Result<(), Full> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let lines = Ring::<L>::HEAD_LINES + len.div_ceil(LINE_LEN);
        let at = self.find_room(lines).ok_or(Full)?;
        // SAFETY: `lines` lines from `at` on are free: they are part of the ring and of no burst that waits, so the reader does not
        // touch them before the store to `tail` below. A head fits into `HEAD_LINES` lines and is aligned as a line is.
        unsafe {
            let start = self.ring.line(at);
            start.cast::<Head<L>>().write(Head { label, len });
            let mut to = start.add(Ring::<L>::HEAD_LINES).cast::<u8>();
            for part in parts {
                to.copy_from_nonoverlapping(part.as_ptr(), part.len());
                to = to.add(part.len());
            }
        }
        // `ring` sees to it that lines can be counted so.
        let place = u32::try_from(at).map_err(|_| Full)?;
        self.ring.places[self.tail % WAITING_MAX].store(place, Ordering::Relaxed);
        self.next = at + lines;
        self.tail = self.tail.wrapping_add(1);
        // Whoever sees this sees the burst.
        self.ring.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether the reader is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ring.is_closed.load(Ordering::Relaxed)
    }

    /// Where so many lines are free.
    fn find_room(&mut self, lines: usize) -> Option<usize> {
        if self.is_closed() {
            return None;
        }
        if self.next < WARM_LINES
            && let Some(at) = self.room(lines)
        {
            return Some(at);
        }
        // What was read before this may be written over after it.
        self.head_seen = self.ring.head.load(Ordering::Acquire);
        self.room(lines)
    }

    fn room(&self, lines: usize) -> Option<usize> {
        let all = self.ring.lines.len();
        let waiting = self.tail.wrapping_sub(self.head_seen);
        if waiting == 0 {
            return (lines <= all).then_some(0);
        }
        if waiting == WAITING_MAX {
            return None;
        }
        let oldest = self.ring.places[self.head_seen % WAITING_MAX].load(Ordering::Relaxed);
        let oldest = oldest as usize;
        if self.next <= oldest {
            return (lines <= oldest - self.next).then_some(self.next);
        }
        // Behind what waits, or before it.
        if lines <= all - self.next {
            return Some(self.next);
        }
        (lines <= oldest).then_some(0)
    }
}

impl<L: Copy + Send> Reader<L> {
    /// Looks at what was written; [`read`](Self::read) gives that and no more. Returns how many bursts wait.
    pub fn look(&mut self) -> usize {
        // What was written before this is seen after it.
        self.tail_seen = self.ring.tail.load(Ordering::Acquire);
        self.tail_seen.wrapping_sub(self.head)
    }

    /// The next burst of those [`look`](Self::look) has seen.
    pub fn read(&mut self) -> Option<Entry<'_, L>> {
        if self.tail_seen == self.head {
            return None;
        }
        let place = self.ring.places[self.head % WAITING_MAX].load(Ordering::Relaxed);
        // SAFETY: the burst was written whole before the `tail` that was seen, and the writer leaves it alone until the store to
        // `head` when the entry is dropped. The entry is the only one: it holds this reader.
        let (head, bytes) = unsafe {
            let start = self.ring.line(place as usize);
            let head = start.cast::<Head<L>>().read();
            let bytes = start.add(Ring::<L>::HEAD_LINES).cast::<u8>();
            (head, std::slice::from_raw_parts_mut(bytes, head.len))
        };
        Some(Entry {
            label: head.label,
            bytes,
            reader: Taken(self),
        })
    }
}

/// Gives the room of a burst back, whatever became of who took it.
struct Taken<'r, L>(&'r mut Reader<L>);

impl<L> Drop for Taken<'_, L> {
    fn drop(&mut self) {
        self.0.head = self.0.head.wrapping_add(1);
        // What was read may be written over from now on.
        self.0.ring.head.store(self.0.head, Ordering::Release);
    }
}

impl<L> Drop for Reader<L> {
    fn drop(&mut self) {
        self.ring.is_closed.store(true, Ordering::Relaxed);
    }
}

impl<L> fmt::Debug for Writer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

impl<L> fmt::Debug for Reader<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

impl<L: fmt::Debug> fmt::Debug for Entry<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("label", &self.label)
            .field("len", &self.bytes.len())
            .field("reader", &self.reader.0)
            .finish()
    }
}

/// What both threads share.
struct Ring<L> {
    lines: Box<[UnsafeCell<Line>]>,
    /// Where each burst that waits begins, by its number.
    places: Box<[AtomicU32]>,
    head: Apart<AtomicUsize>,
    tail: Apart<AtomicUsize>,
    is_closed: AtomicBool,
    label: PhantomData<L>,
}

#[repr(C, align(64))]
struct Line([u8; LINE_LEN]);

/// What stands before the bytes of a burst.
#[derive(Clone, Copy)]
struct Head<L> {
    label: L,
    len: usize,
}

/// In a cache line of its own: the two ends are on two cores.
#[repr(align(64))]
struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

// SAFETY: of the lines, each is either free, and then the one writer's, or part of a burst that waits, and then the one reader's;
// `head` and `tail` hand them over. Labels pass from one thread to the other by value.
unsafe impl<L: Send> Send for Ring<L> {}
// SAFETY: as above.
unsafe impl<L: Send> Sync for Ring<L> {}

impl<L> Ring<L> {
    const HEAD_LINES: usize = {
        assert!(align_of::<Head<L>>() <= LINE_LEN);
        size_of::<Head<L>>().div_ceil(LINE_LEN)
    };

    fn new(lines: usize) -> Self {
        assert!(u32::try_from(lines).is_ok(), "a ring too large to count");
        // SAFETY: a line is bytes, for which zeroes are a value. The system gives zeroed pages when they are touched first.
        let lines = unsafe { Box::<[UnsafeCell<Line>]>::new_zeroed_slice(lines).assume_init() };
        Self {
            lines,
            places: (0..WAITING_MAX).map(|_| AtomicU32::new(0)).collect(),
            head: Apart(AtomicUsize::new(0)),
            tail: Apart(AtomicUsize::new(0)),
            is_closed: AtomicBool::new(false),
            label: PhantomData,
        }
    }

    /// Where a line of the ring is, and those behind it.
    fn line(&self, at: usize) -> *mut Line {
        UnsafeCell::raw_get(self.lines.as_ptr().wrapping_add(at))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// A burst that tells by every byte which it is.
    fn burst(number: u32, len: usize) -> Vec<u8> {
        let [first, second, ..] = number.to_le_bytes();
        let bytes = (0..=u8::MAX).cycle().take(len);
        bytes
            .map(|at| at.wrapping_add(first).wrapping_mul(second | 1))
            .collect()
    }

    fn read_one(reader: &mut Reader<u32>) -> Option<(u32, Vec<u8>)> {
        let mut entry = reader.read()?;
        Some((entry.label, entry.bytes().to_vec()))
    }

    #[test]
    fn bursts_arrive_whole_in_order_and_to_be_changed() {
        let (mut writer, mut reader) = ring(4_096);
        assert_eq!(reader.look(), 0);
        writer.write(1, &[b"one", b" and ", b"a half"]).unwrap();
        writer.write(2, &[]).unwrap();
        assert!(reader.read().is_none(), "nobody has looked");
        assert_eq!(reader.look(), 2);
        writer.write(3, &[b"late"]).unwrap();
        let mut entry = reader.read().unwrap();
        entry.bytes()[0] = b'O';
        assert_eq!((entry.label, &*entry.bytes()), (1, &b"One and a half"[..]));
        drop(entry);
        assert_eq!(read_one(&mut reader), Some((2, Vec::new())));
        assert_eq!(read_one(&mut reader), None, "the last was not looked at");
        assert_eq!(reader.look(), 1);
        assert_eq!(read_one(&mut reader), Some((3, b"late".to_vec())));
    }

    #[test]
    fn what_finds_no_room_is_refused_until_something_was_read() {
        let (mut writer, mut reader) = ring::<u32>(10 * LINE_LEN);
        let bytes = [7; 2 * LINE_LEN];
        for number in 0..3 {
            assert_eq!(writer.write(number, &[&bytes]), Ok(()));
        }
        assert_eq!(writer.write(3, &[&bytes]), Err(Full));
        assert_eq!(writer.write(3, &[]), Ok(()), "a line is left");
        assert_eq!(writer.write(4, &[]), Err(Full));
        assert_eq!(reader.look(), 4);
        let held = reader.read().unwrap();
        assert_eq!(writer.write(4, &[]), Err(Full), "it is not given back yet");
        drop(held);
        assert_eq!(writer.write(4, &[&bytes]), Ok(()));
        reader.look();
        let numbers: Vec<_> =
            std::iter::from_fn(|| read_one(&mut reader).map(|one| one.0)).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert_eq!(
            writer.write(5, &[&[0; 10 * LINE_LEN]]),
            Err(Full),
            "too long for any ring of ten lines"
        );
        assert_eq!(writer.write(5, &[&[0; 9 * LINE_LEN]]), Ok(()));
    }

    #[test]
    fn no_more_than_so_many_wait_however_short() {
        let (mut writer, mut reader) = ring::<u32>(WAITING_MAX * 2 * LINE_LEN);
        let written = (0..).take_while(|number| writer.write(*number, &[]).is_ok());
        assert_eq!(written.count(), WAITING_MAX);
        assert_eq!(reader.look(), WAITING_MAX);
        drop(reader.read());
        assert_eq!(writer.write(9, &[]), Ok(()));
    }

    #[test]
    fn who_goes_leaves_what_was_written_and_nobody_writes_to_who_is_gone() {
        let (mut writer, mut reader) = ring(4_096);
        writer.write(1, &[b"last"]).unwrap();
        drop(writer);
        reader.look();
        assert_eq!(read_one(&mut reader), Some((1, b"last".to_vec())));

        let (mut writer, reader) = ring(4_096);
        assert!(!writer.is_closed());
        drop(reader);
        assert!(writer.is_closed());
        assert_eq!(writer.write(1, &[b"x"]), Err(Full));
    }

    #[test]
    fn room_is_given_back_by_who_panics() {
        let (mut writer, mut reader) = ring(4_096);
        writer.write(1, &[b"one"]).unwrap();
        writer.write(2, &[b"two"]).unwrap();
        reader.look();
        let fault = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _entry = reader.read();
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(fault.is_err());
        assert_eq!(read_one(&mut reader), Some((2, b"two".to_vec())));
    }

    proptest! {
        /// Against a queue: whatever is written and read when, what comes is what was taken, in order and whole, and a burst is
        /// refused only where the ring is as good as full.
        #[test]
        fn a_ring_is_a_queue_with_an_end(
            lines in 8_usize..2_000,
            steps in prop::collection::vec((any::<bool>(), 0_usize..3_000), 1..400),
        ) {
            let (mut writer, mut reader) = ring::<u32>(lines * LINE_LEN);
            let mut expected = VecDeque::new();
            let needed = |len: usize| 1 + len.div_ceil(LINE_LEN);
            for (number, (writes, len)) in (0_u32..).zip(steps) {
                if writes {
                    let bytes = burst(number, len);
                    let (one, other) = bytes.split_at(len / 3);
                    let taken: usize = expected.iter().map(|(_, bytes): &(u32, Vec<u8>)| needed(bytes.len())).sum();
                    match writer.write(number, &[one, other]) {
                        Ok(()) => expected.push_back((number, bytes)),
                        // In one piece before or behind what waits, so up to half of the rest may be of no use, and what was too
                        // short for the one that went to the front.
                        Err(Full) => prop_assert!(
                            2 * needed(len) + needed(3_000) > lines - taken,
                            "{taken} of {lines} lines, {len} bytes"
                        ),
                    }
                } else {
                    prop_assert_eq!(reader.look(), expected.len());
                    for _ in 0..len % 5 {
                        prop_assert_eq!(read_one(&mut reader), expected.pop_front());
                    }
                }
            }
            reader.look();
            while let Some(one) = expected.pop_front() {
                prop_assert_eq!(read_one(&mut reader), Some(one));
            }
            prop_assert!(read_one(&mut reader).is_none());
        }
    }

    #[test]
    fn two_threads_never_tear_a_burst() {
        const BURSTS: u32 = 200_000;
        let len = |number: u32| number as usize * 37 % 700;
        let (mut writer, mut reader) = ring(16 * 1024);
        let writing = thread::spawn(move || {
            for number in 0..BURSTS {
                while writer
                    .write(number, &[&burst(number, len(number))])
                    .is_err()
                {
                    thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < BURSTS {
            if reader.look() == 0 {
                thread::yield_now();
            }
            while let Some(mut entry) = reader.read() {
                assert_eq!(entry.label, next);
                assert_eq!(*entry.bytes(), burst(next, len(next)));
                entry.bytes().fill(0xEE); // The writer's again soon.
                next += 1;
            }
        }
        assert!(writing.join().is_ok());
    }
}
