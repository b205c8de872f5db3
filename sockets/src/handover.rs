//! How the threads of the relay and of the SFU in one process reach each other: a [ring] each way for every pair.
//!
//! ```text
//! relay-0 ─┐ ┌─▶ sfu-0      a client's payloads go to the thread of the media port they are for,
//! relay-1 ─┼─┤              and its answers to the thread whose Allocation they are for
//! relay   ─┘ └─▶ sfu-1
//! ```
//!
//! What is handed over is a [`Burst`]: what the relay's client is sent, or sends, between its relayed address and a media port of the
//! SFU, as a socket would show it. A thread writes during its turn and [wakes](Senders::wake) at its end whom it has written to; what
//! finds no room is dropped by the one who writes, as by a socket that is full.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;

use crate::ring::{self, Full, Reader, Writer};

/// What all rings may take of the address space together, in bytes; memory is taken by what waits alone.
const RINGS_LEN_MAX: usize = 256 * 1024 * 1024;

/// How long each ring is at most and at least, in bytes: what a turn may write for all who receive it. The least holds several of
/// the longest bursts.
const RING_LEN_MAX: usize = 4 * 1024 * 1024;
const RING_LEN_MIN: usize = 512 * 1024;

/// Tells which thread of the relay an Allocation is with, by its relayed address; `None` where there is none.
pub type OwnerOf = Arc<dyn Fn(SocketAddr) -> Option<usize> + Send + Sync>;

/// What a burst goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The relayed address of the client, as peers see it.
    pub relayed: SocketAddr,
    /// The SFU's address, as clients are told it.
    pub media: SocketAddr,
    /// The length of each datagram; the last may be shorter.
    pub segment: usize,
}

/// Datagrams of one client, one behind the other.
#[derive(Debug)]
pub struct Burst<'b> {
    /// Between whom, and how long each is.
    pub label: Label,
    bytes: &'b mut [u8],
}

impl<'b> Burst<'b> {
    /// Each datagram, which may be changed where it lies; an empty one is a datagram, too.
    pub fn into_datagrams(self) -> impl Iterator<Item = &'b mut [u8]> {
        let empty = self.bytes.is_empty().then_some(&mut [][..]);
        empty
            .into_iter()
            .chain(self.bytes.chunks_mut(self.label.segment.max(1)))
    }
}

/// A thread's end.
#[derive(Debug, Default)]
pub struct End {
    /// Toward the threads of the other role.
    pub senders: Senders,
    /// From them.
    pub receivers: Receivers,
}

/// Where a thread hands bursts to those of the other role, by their numbers. By default there are none.
#[derive(Debug, Default)]
pub struct Senders {
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    writer: Writer<Label>,
    waker: Waker,
    has_news: bool,
}

/// Where a thread takes what those of the other role hand to it. By default there are none.
#[derive(Debug, Default)]
pub struct Receivers {
    readers: Vec<Reader<Label>>,
}

/// Connects each thread of one role with each of the other, which are known by what wakes them. Returns the ends of both, in the
/// order of the threads.
#[must_use]
pub fn connect(ones: &[Waker], others: &[Waker]) -> (Vec<End>, Vec<End>) {
    let rings = 2 * ones.len() * others.len();
    let len = (RINGS_LEN_MAX / rings.max(1)).clamp(RING_LEN_MIN, RING_LEN_MAX);
    let mut ends_of_ones: Vec<_> = ones.iter().map(|_| End::default()).collect();
    let mut ends_of_others: Vec<_> = others.iter().map(|_| End::default()).collect();
    for (one, waker_of_one) in ends_of_ones.iter_mut().zip(ones) {
        for (other, waker_of_other) in ends_of_others.iter_mut().zip(others) {
            lead(one, other, waker_of_other, len);
            lead(other, one, waker_of_one, len);
        }
    }
    (ends_of_ones, ends_of_others)
}

/// Leads from one end to another.
fn lead(from: &mut End, to: &mut End, waker: &Waker, len: usize) {
    let (writer, reader) = ring::ring(len);
    from.senders.lanes.push(Lane {
        writer,
        waker: waker.clone(),
        has_news: false,
    });
    to.receivers.readers.push(reader);
}

impl Senders {
    /// Hands a burst to a thread, which hears of it with the next [`wake`](Self::wake) at the latest.
    ///
    /// # Errors
    ///
    /// [`Full`]: too much waits there, or there is no such thread; the burst is dropped.
    pub fn write(&mut self, thread: usize, label: Label, bytes: &[u8]) -> Result<(), Full> {
        let lane = self.lanes.get_mut(thread).ok_or(Full)?;
        lane.writer.write(label, &[bytes])?;
        lane.has_news = true;
        Ok(())
    }

    /// Wakes those who were handed something.
    pub fn wake(&mut self) {
        for lane in &mut self.lanes {
            if std::mem::take(&mut lane.has_news) {
                lane.waker.wake_by_ref();
            }
        }
    }
}

impl Receivers {
    /// Looks at what was handed over; [`read`](Self::read) gives that and no more. Returns whether there is anything.
    pub fn look(&mut self) -> bool {
        let waiting: usize = self.readers.iter_mut().map(Reader::look).sum();
        waiting > 0
    }

    /// Gives `take` each burst [`look`](Self::look) has seen, in the order of each thread that wrote them. One that `take` fails over
    /// does not come again.
    pub fn read(&mut self, mut take: impl FnMut(Burst<'_>)) {
        for reader in &mut self.readers {
            while let Some(mut entry) = reader.read() {
                take(Burst {
                    label: entry.label,
                    bytes: entry.bytes(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wake;

    fn address(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn label(port: u16, segment: usize) -> Label {
        Label {
            relayed: address(port),
            media: address(10_000),
            segment,
        }
    }

    /// What waits at an end: whose it is, and the datagrams.
    fn taken(end: &mut End) -> Vec<(u16, Vec<Vec<u8>>)> {
        let mut taken = Vec::new();
        end.receivers.look();
        end.receivers.read(|burst| {
            let port = burst.label.relayed.port();
            let datagrams = burst.into_datagrams().map(|datagram| datagram.to_vec());
            taken.push((port, datagrams.collect()));
        });
        taken
    }

    #[test]
    fn each_thread_reaches_each_of_the_other_role_and_wakes_it_once() {
        let events: Vec<_> = (0..5).map(|_| wake::Waker::new().unwrap()).collect();
        let wakers: Vec<Waker> = events.iter().map(|event| event.clone().into()).collect();
        let (mut ones, mut others) = connect(&wakers[..3], &wakers[3..]);
        for (number, one) in (1..).zip(&mut ones) {
            one.senders.write(1, label(number, 2), b"abcde").unwrap();
            one.senders.write(1, label(number, 0), b"").unwrap();
            assert_eq!(one.senders.write(2, label(number, 1), b"x"), Err(Full));
        }
        assert!(events[4].event().read().is_err(), "the turn goes on");
        for one in &mut ones {
            one.senders.wake();
        }
        assert_eq!(events[4].event().read(), Ok(1));
        assert!(events[3].event().read().is_err(), "nothing was for it");

        let datagrams = vec![b"ab".to_vec(), b"cd".to_vec(), b"e".to_vec()];
        let expected: Vec<_> = (1..4)
            .flat_map(|number| [(number, datagrams.clone()), (number, vec![Vec::new()])])
            .collect();
        assert_eq!(taken(&mut others[1]), expected);
        assert_eq!(taken(&mut others[0]), []);

        others[0].senders.write(2, label(7, 9), b"answer").unwrap();
        others[0].senders.wake();
        assert_eq!(events[2].event().read(), Ok(1));
        assert_eq!(taken(&mut ones[2]), [(7, vec![b"answer".to_vec()])]);
        assert_eq!(taken(&mut ones[0]), []);
    }

    #[test]
    fn who_is_gone_is_handed_nothing() {
        let waker = [Waker::noop().clone()];
        let (mut ones, others) = connect(&waker, &waker);
        drop(others);
        assert_eq!(ones[0].senders.write(0, label(1, 1), b"x"), Err(Full));
        assert_eq!(taken(&mut ones[0]), []);
    }

    #[test]
    fn a_ring_holds_the_longest_burst_whatever_the_number_of_threads() {
        let many = vec![Waker::noop().clone(); 40];
        let (mut ones, mut others) = connect(&many, &many[..20]);
        let longest = vec![1; crate::burst::BURST_LEN_MAX];
        for _ in 0..7 {
            ones[39]
                .senders
                .write(19, label(1, 1_200), &longest)
                .unwrap();
        }
        assert_eq!(taken(&mut others[19]).len(), 7);
    }
}
