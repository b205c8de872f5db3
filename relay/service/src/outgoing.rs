//! What leaves in one call: datagrams of equal length for one receiver.

use std::net::{SocketAddr, UdpSocket};

use crate::udp;
use sockets::burst::{self, BURST_LEN_MAX, SEGMENTS_MAX};

/// The socket a datagram leaves from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Exit {
    #[default]
    Nowhere,
    /// By its place.
    Listener(usize),
    /// By [`RelayPort::index`].
    Port(usize),
}

/// Datagrams of equal length for one receiver, one behind the other; the last may be shorter.
pub(crate) struct Outgoing {
    exit: Exit,
    to: SocketAddr,
    bytes: Vec<u8>,
    /// The length of each.
    segment: usize,
    count: usize,
    /// A shorter one is the last.
    is_complete: bool,
}

impl Default for Outgoing {
    fn default() -> Outgoing {
        Outgoing {
            exit: Exit::Nowhere,
            to: SocketAddr::from(([0, 0, 0, 0], 0)),
            bytes: Vec::with_capacity(BURST_LEN_MAX),
            segment: 0,
            count: 0,
            is_complete: false,
        }
    }
}

impl Outgoing {
    /// The socket, unless there is nothing to send.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Adds the datagram made of `parts`; `false` where it can't be sent in one call with those
    /// that wait. The first is always taken.
    pub(crate) fn add(&mut self, exit: Exit, to: SocketAddr, parts: &[&[u8]]) -> bool {
        let len = parts.iter().map(|part| part.len()).sum();
        if self.exit == Exit::Nowhere {
            self.exit = exit;
            self.to = to;
            self.segment = len;
            // Nothing can follow an empty datagram: its length would say nothing.
            self.is_complete = len == 0;
        } else {
            let fits = self.exit == exit
                && self.to == to
                && !self.is_complete
                && (1..=self.segment).contains(&len)
                && self.count < SEGMENTS_MAX
                && self.bytes.len() + len <= BURST_LEN_MAX;
            if !fits {
                return false;
            }
            self.is_complete = len < self.segment;
        }
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.count += 1;
        true
    }

    /// Sends all at once, or one by one where that can't be; returns how many were refused.
    pub(crate) fn send(&self, socket: &UdpSocket) -> u64 {
        let send = || burst::send(socket, &self.bytes, self.segment.max(1), self.to);
        let Err(error) = udp::send_again(send) else {
            return 0;
        };
        tracing::trace!(%error, "Datagrams not sent");
        if udp::is_full(&error) || self.count == 1 {
            return self.count as u64;
        }
        // Longer than the way's MTU, or an interface that can't compute checksums.
        let each = self.bytes.chunks(self.segment);
        let refused =
            each.filter(|datagram| burst::send(socket, datagram, self.segment, self.to).is_err());
        refused.count() as u64
    }

    pub(crate) fn clear(&mut self) {
        self.exit = Exit::Nowhere;
        self.bytes.clear();
        self.count = 0;
        self.is_complete = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_datagrams_for_one_receiver_leave_together() {
        let to: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let other: SocketAddr = "192.0.2.1:5001".parse().unwrap();
        let exit = Exit::Port(3);
        let check = |first: usize, then: (Exit, SocketAddr, usize), expected: bool| {
            let mut outgoing = Outgoing::default();
            assert!(outgoing.add(exit, to, &[&vec![1; first]]));
            let (exit, to, len) = then;
            assert_eq!(
                outgoing.add(exit, to, &[&vec![1; len]]),
                expected,
                "{then:?}"
            );
        };
        check(100, (exit, to, 100), true);
        check(100, (exit, to, 40), true);
        check(100, (exit, to, 101), false);
        check(100, (exit, to, 0), false);
        check(0, (exit, to, 0), false);
        check(100, (exit, other, 100), false);
        check(100, (Exit::Port(4), to, 100), false);
        check(100, (Exit::Listener(3), to, 100), false);
        check(40_000, (exit, to, 40_000), false);

        let mut outgoing = Outgoing::default();
        for len in [100, 100, 40] {
            assert!(outgoing.add(exit, to, &[&vec![1; len]]));
        }
        assert!(
            !outgoing.add(exit, to, &[&[1; 40]]),
            "behind a shorter one comes nothing"
        );
    }
}
