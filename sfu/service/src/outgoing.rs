//! What leaves a shard: datagrams written behind each other, and sent in one call where they have one receiver and one length.
//!
//! A packet is rewritten and sealed where it leaves from: the buffer's tail ([`Outgoing::space`]), then [`Outgoing::put`]. What
//! doesn't go with those that wait makes them leave first.

use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;

use sockets::burst::{self, BURST_LEN_MAX, SEGMENTS_MAX};

/// The longest datagram, in bytes.
pub(crate) const DATAGRAM_LEN_MAX: usize = 2048;

/// How much is written before the buffer begins anew.
const BUFFER_LEN: usize = 4 * BURST_LEN_MAX;

/// Where a datagram leaves from and goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    /// The socket, by its place.
    pub(crate) socket: usize,
    /// The receiver.
    pub(crate) to: SocketAddr,
}

/// What the sockets were given.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Calls of the system.
    pub(crate) calls: u64,
    /// Datagrams a socket refused.
    pub(crate) refused: u64,
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
    pub(crate) fn space(&mut self, sockets: &[UdpSocket]) -> &mut [u8] {
        if self.waiting.end + DATAGRAM_LEN_MAX > self.buffer.len() {
            self.flush(sockets);
            self.waiting = 0..0;
        }
        &mut self.buffer[self.waiting.end..][..DATAGRAM_LEN_MAX]
    }

    /// Lets the first `len` bytes of [`space`](Self::space) leave by `way`, with those that wait where they can leave together.
    pub(crate) fn put(&mut self, way: Way, len: usize, sockets: &[UdpSocket]) {
        let len = len.min(DATAGRAM_LEN_MAX);
        let goes_with = self.way == Some(way)
            && !self.is_complete
            && (1..=self.segment).contains(&len)
            && self.count < SEGMENTS_MAX
            && self.waiting.len() + len <= BURST_LEN_MAX;
        if !goes_with {
            self.flush(sockets);
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
    pub(crate) fn flush(&mut self, sockets: &[UdpSocket]) {
        let Some(way) = self.way.take() else {
            return;
        };
        let bytes = &self.buffer[self.waiting.clone()];
        self.sent.packets += self.count as u64;
        self.sent.bytes += bytes.len() as u64;
        if let Some(socket) = sockets.get(way.socket) {
            let (calls, refused) = send(socket, bytes, self.segment, way.to);
            self.sent.calls += calls;
            self.sent.refused += refused;
        }
        self.waiting.start = self.waiting.end;
        self.count = 0;
    }
}

/// Returns how many calls it took, and how many datagrams were refused.
fn send(socket: &UdpSocket, bytes: &[u8], segment: usize, to: SocketAddr) -> (u64, u64) {
    let Err(error) = burst::send(socket, bytes, segment, to) else {
        return (1, 0);
    };
    tracing::trace!(%error, "Datagrams not sent");
    let mut calls = 1;
    let mut refused = 0;
    // Longer than the way's MTU, an interface that can't compute checksums, or news of an earlier datagram. A full socket is full
    // for each of them.
    for datagram in bytes.chunks(segment.max(1)) {
        calls += 1;
        refused += u64::from(burst::send(socket, datagram, segment, to).is_err());
    }
    (calls, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn equal_datagrams_for_one_receiver_leave_in_one_call() {
        let (from, one, other) = (vec![udp()], udp(), udp());
        let way = |to: &UdpSocket| Way {
            socket: 0,
            to: to.local_addr().unwrap(),
        };
        let mut outgoing = Outgoing::new();
        let mut put = |to: &UdpSocket, byte: u8, len: usize| {
            outgoing.space(&from)[..len].fill(byte);
            outgoing.put(way(to), len, &from);
            outgoing.sent.calls
        };

        assert_eq!(put(&one, 1, 100), 0);
        assert_eq!(put(&one, 2, 100), 0);
        assert_eq!(put(&one, 3, 40), 0);
        assert_eq!(put(&one, 4, 40), 1, "behind a shorter one comes nothing");
        assert_eq!(put(&other, 5, 40), 2, "another receiver");
        assert_eq!(put(&other, 6, 41), 3, "a longer one");
        outgoing.flush(&from);
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
        let (from, to) = (vec![udp()], udp());
        let way = Way {
            socket: 0,
            to: to.local_addr().unwrap(),
        };
        let mut outgoing = Outgoing::new();
        let mut buffer = [0; DATAGRAM_LEN_MAX];
        for round in 0..BUFFER_LEN / 1000 * 3 {
            let byte = u8::try_from(round % 251).unwrap();
            outgoing.space(&from)[..1200].fill(byte);
            outgoing.put(way, 1200, &from);
            if round % 5 == 4 {
                outgoing.flush(&from);
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
