//! Where datagrams leave a shard at once: its sockets, and the relay of this process, which takes those for its clients in memory.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};

use sockets::burst;
use sockets::handover::{Label, OwnerOf, Senders};

use crate::outgoing::{Sent, Way};

/// Places of the doors as the relay's clients reach them begin here, behind those of the sockets.
const RELAYED: usize = 1 << 15;

/// Behind all places of doors.
pub(crate) const PLACES: usize = 1 << 16;

/// The sockets of a shard with what clients know them by, and the way to the relay, where there is one.
pub(crate) struct Doors {
    sockets: Vec<UdpSocket>,
    /// As the internet calls them.
    public: Vec<SocketAddr>,
    relay: Option<Relay>,
}

/// The relay of this process.
pub(crate) struct Relay {
    pub(crate) senders: Senders,
    pub(crate) owner_of: OwnerOf,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relay")
    }
}

impl Doors {
    /// Sockets, and what clients know each by.
    pub(crate) fn new(sockets: Vec<(UdpSocket, SocketAddr)>) -> Self {
        let (sockets, public) = sockets.into_iter().unzip();
        Self {
            sockets,
            public,
            relay: None,
        }
    }

    /// Leads to the relay from now on.
    pub(crate) fn connect(&mut self, relay: Relay) {
        self.relay = Some(relay);
    }

    pub(crate) fn sockets(&self) -> &[UdpSocket] {
        &self.sockets
    }

    /// What a way's door is known by; `None` where it has none.
    pub(crate) fn public(&self, way: Way) -> Option<SocketAddr> {
        let at = way.socket.checked_sub(RELAYED).unwrap_or(way.socket);
        self.public.get(at).copied()
    }

    /// What all are known by.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.public.iter().copied()
    }

    /// The way of a client of the relay who knows the door as `media`; `None` where there is no such door.
    pub(crate) fn relayed(&self, media: SocketAddr, relayed: SocketAddr) -> Option<Way> {
        let at = self.public.iter().position(|public| *public == media)?;
        Some(Way {
            socket: RELAYED + at,
            to: relayed,
        })
    }

    /// Sends `count` datagrams of `segment` bytes each, of which the last may be shorter, and says in `sent` what became of them.
    pub(crate) fn send(
        &mut self,
        way: Way,
        bytes: &[u8],
        segment: usize,
        count: usize,
        sent: &mut Sent,
    ) {
        if let Some(socket) = self.sockets.get(way.socket) {
            return send(socket, bytes, segment, way.to, sent);
        }
        let count = count as u64;
        let (Some(media), Some(relay)) = (self.public(way), &mut self.relay) else {
            return;
        };
        let Some(thread) = (relay.owner_of)(way.to) else {
            sent.relay_gone += count;
            return;
        };
        let label = Label {
            relayed: way.to,
            media,
            segment,
        };
        match relay.senders.write(thread, label, bytes) {
            Ok(()) => sent.relayed += count,
            Err(_) => sent.relay_full += count,
        }
    }

    /// Has the relay hear of what it was handed.
    pub(crate) fn wake(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.senders.wake();
        }
    }
}

fn send(socket: &UdpSocket, bytes: &[u8], segment: usize, to: SocketAddr, sent: &mut Sent) {
    sent.calls += 1;
    let Err(error) = burst::send(socket, bytes, segment, to) else {
        return;
    };
    tracing::trace!(%error, "Datagrams not sent");
    // Longer than the way's MTU, an interface that can't compute checksums, or news of an earlier datagram. A full socket is full
    // for each of them.
    for datagram in bytes.chunks(segment.max(1)) {
        sent.calls += 1;
        sent.refused += u64::from(burst::send(socket, datagram, segment, to).is_err());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use sockets::handover::{self, End};

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Two doors, one of which the relay's clients know by another address, and a relay of two threads, the second of which holds
    /// all Allocations at odd ports.
    fn connected() -> (Doors, Vec<End>) {
        let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut doors = Doors::new(vec![
            (socket(), address("203.0.113.7:10000")),
            (socket(), address("[2001:db8::7]:10000")),
        ]);
        let waker = Waker::noop().clone();
        let (ends, mut own) = handover::connect(&[waker.clone(), waker.clone()], &[waker]);
        doors.connect(Relay {
            senders: own.remove(0).senders,
            owner_of: Arc::new(|relayed| (relayed.port() % 2 == 1).then_some(1)),
        });
        (doors, ends)
    }

    #[test]
    fn what_came_by_the_relay_goes_back_by_it_as_one_burst() {
        let (mut doors, mut ends) = connected();
        let client = address("203.0.113.7:50001");
        let way = doors.relayed(address("203.0.113.7:10000"), client).unwrap();
        assert_eq!(doors.public(way), Some(address("203.0.113.7:10000")));
        let mut sent = Sent::default();
        doors.send(way, b"abcde", 2, 3, &mut sent);
        doors.wake();
        assert_eq!((sent.relayed, sent.calls, sent.refused), (3, 0, 0));

        let v6 = address("[2001:db8::1]:50003");
        let way_v6 = doors.relayed(address("[2001:db8::7]:10000"), v6).unwrap();
        assert_ne!(way.socket, way_v6.socket);
        doors.send(way_v6, b"f", 1, 1, &mut sent);

        ends[1].receivers.look();
        let mut heard = Vec::new();
        ends[1].receivers.read(|burst| {
            let label = burst.label;
            let datagrams: Vec<_> = burst.into_datagrams().map(|one| one.to_vec()).collect();
            heard.push((label.relayed, label.media, datagrams));
        });
        let expected = vec![b"ab".to_vec(), b"cd".to_vec(), b"e".to_vec()];
        assert_eq!(
            heard,
            [
                (client, address("203.0.113.7:10000"), expected),
                (v6, address("[2001:db8::7]:10000"), vec![b"f".to_vec()]),
            ]
        );
    }

    #[test]
    fn what_nobody_takes_is_counted_by_cause() {
        let (mut doors, mut ends) = connected();
        let media = address("203.0.113.7:10000");
        let mut sent = Sent::default();
        let gone = doors.relayed(media, address("203.0.113.7:50002")).unwrap();
        doors.send(gone, b"abc", 2, 2, &mut sent);
        assert_eq!((sent.relayed, sent.relay_gone, sent.relay_full), (0, 2, 0));

        let there = doors.relayed(media, address("203.0.113.7:50001")).unwrap();
        let burst = vec![0; 60_000];
        let mut taken = 0;
        while sent.relay_full == 0 {
            taken = sent.relayed;
            doors.send(there, &burst, 1_200, 50, &mut sent);
        }
        assert_eq!((sent.relay_full, taken), (50, sent.relayed));
        assert!(taken > 1_000, "{taken}");
        ends[1].receivers.look();
        ends[1].receivers.read(|_| {});
        doors.send(there, &burst, 1_200, 50, &mut sent);
        assert_eq!((sent.relay_full, sent.relayed), (50, taken + 50));

        // Nobody is known by this one.
        assert_eq!(
            doors.relayed(address("203.0.113.7:10001"), address("203.0.113.7:50001")),
            None
        );
    }
}
