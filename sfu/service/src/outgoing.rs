//! What leaves a shard: datagrams written behind each other, and sent in one call where they have one receiver and one length.
//!
//! A packet is rewritten and sealed where it leaves from: the buffer's tail ([`Outgoing::space`]), then [`Outgoing::put`]. What
//! doesn't go with those that wait makes them leave first.

use std::net::SocketAddr;
use std::ops::Range;

use sockets::burst::{BURST_LEN_MAX, SEGMENTS_MAX};

use crate::doors::Doors;

/// The longest datagram, in bytes.
pub(crate) const DATAGRAM_LEN_MAX: usize = 2048;

/// How much is written before the buffer begins anew.
const BUFFER_LEN: usize = 4 * BURST_LEN_MAX;

/// Where a datagram leaves from and goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    /// The socket, by its place; streams, and the relay, have places behind those ([`Exit`](crate::exit::Exit)).
    pub(crate) socket: usize,
    /// The receiver.
    pub(crate) to: SocketAddr,
}

/// What left.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Calls of the system.
    pub(crate) calls: u64,
    /// Datagrams a socket refused.
    pub(crate) refused: u64,
    /// Of all datagrams, those handed to the relay.
    pub(crate) relayed: u64,
    /// Datagrams the relay had no room for.
    pub(crate) relay_full: u64,
    /// Datagrams for Allocations that are no more.
    pub(crate) relay_gone: u64,
}

/// Datagrams of equal length for one receiver, one behind the other; the last may be shorter.
pub(crate) struct Outgoing {
    buffer: Vec<u8>,
    waiting: Range<usize>,
    way: Option<Way>,
    /// The length of each.
    segment: usize,
    count: usize,
    /// A shorter one is the last.
    is_complete: bool,
    pub(crate) sent: Sent,
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_LEN],
            waiting: 0..0,
            way: None,
            segment: 0,
            count: 0,
            is_complete: false,
            sent: Sent::default(),
        }
    }

    /// Where the next datagram is to be written: [`DATAGRAM_LEN_MAX`] bytes.
    pub(crate) fn space(&mut self, doors: &mut Doors) -> &mut [u8] {
        if self.waiting.end + DATAGRAM_LEN_MAX > self.buffer.len() {
            self.flush(doors);
            self.waiting = 0..0;
        }
        &mut self.buffer[self.waiting.end..][..DATAGRAM_LEN_MAX]
    }

    /// Lets the first `len` bytes of [`space`](Self::space) leave by `way`, with those that wait where they can leave together.
    pub(crate) fn put(&mut self, way: Way, len: usize, doors: &mut Doors) {
        let len = len.min(DATAGRAM_LEN_MAX);
        let goes_with = self.way == Some(way)
            && !self.is_complete
            && (1..=self.segment).contains(&len)
            && self.count < SEGMENTS_MAX
            && self.waiting.len() + len <= BURST_LEN_MAX;
        if !goes_with {
            self.flush(doors);
            self.way = Some(way);
            self.segment = len;
        }
        self.is_complete = len < self.segment;
        self.count += 1;
        self.waiting.end += len;
    }

    /// The first `len` bytes of [`space`](Self::space).
    pub(crate) fn written(&self, len: usize) -> &[u8] {
        &self.buffer[self.waiting.end..][..len]
    }

    /// Sends what waits, all at once, or one by one where that can't be.
    pub(crate) fn flush(&mut self, doors: &mut Doors) {
        let Some(way) = self.way.take() else {
            return;
        };
        let bytes = &self.buffer[self.waiting.clone()];
        self.sent.packets += self.count as u64;
        self.sent.bytes += bytes.len() as u64;
        doors.send(way, bytes, self.segment, self.count, &mut self.sent);
        self.waiting.start = self.waiting.end;
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn udp() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").unwrap()
    }

    fn door() -> Doors {
        let address = SocketAddr::from(([192, 0, 2, 1], 10_000));
        Doors::new(vec![(udp(), address)])
    }

    #[test]
    fn equal_datagrams_for_one_receiver_leave_in_one_call() {
        let (mut from, one, other) = (door(), udp(), udp());
        let way = |to: &UdpSocket| Way {
            socket: 0,
            to: to.local_addr().unwrap(),
        };
        let mut outgoing = Outgoing::new();
        let mut put = |to: &UdpSocket, byte: u8, len: usize| {
            outgoing.space(&mut from)[..len].fill(byte);
            outgoing.put(way(to), len, &mut from);
            outgoing.sent.calls
        };

        assert_eq!(put(&one, 1, 100), 0);
        assert_eq!(put(&one, 2, 100), 0);
        assert_eq!(put(&one, 3, 40), 0);
        assert_eq!(put(&one, 4, 40), 1, "behind a shorter one comes nothing");
        assert_eq!(put(&other, 5, 40), 2, "another receiver");
        assert_eq!(put(&other, 6, 41), 3, "a longer one");
        outgoing.flush(&mut from);
        assert_eq!(
            (
                outgoing.sent.calls,
                outgoing.sent.packets,
                outgoing.sent.refused
            ),
            (4, 6, 0)
        );

        let receive = |socket: &UdpSocket| {
            let mut buffer = [0; 200];
            let len = socket.recv(&mut buffer).unwrap();
            (
                buffer[0],
                buffer[..len].iter().all(|byte| *byte == buffer[0]),
                len,
            )
        };
        for expected in [(1, true, 100), (2, true, 100), (3, true, 40), (4, true, 40)] {
            assert_eq!(receive(&one), expected);
        }
        assert_eq!(receive(&other), (5, true, 40));
        assert_eq!(receive(&other), (6, true, 41));
    }

    #[test]
    fn the_buffer_begins_anew_before_it_ends() {
        let (mut from, to) = (door(), udp());
        let way = Way {
            socket: 0,
            to: to.local_addr().unwrap(),
        };
        let mut outgoing = Outgoing::new();
        let mut buffer = [0; DATAGRAM_LEN_MAX];
        for round in 0..BUFFER_LEN / 1000 * 3 {
            let byte = u8::try_from(round % 251).unwrap();
            outgoing.space(&mut from)[..1200].fill(byte);
            outgoing.put(way, 1200, &mut from);
            if round % 5 == 4 {
                outgoing.flush(&mut from);
                for earlier in (0..5).rev() {
                    let byte = u8::try_from((round - earlier) % 251).unwrap();
                    assert_eq!(to.recv(&mut buffer).unwrap(), 1200);
                    assert!(buffer[..1200].iter().all(|got| *got == byte));
                }
            }
        }
        assert_eq!(outgoing.sent.refused, 0);
    }
}
