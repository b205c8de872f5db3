//! The sockets of a shard, and what waits to leave by them.

use std::net::{SocketAddr, UdpSocket};

use str0m::net::{Protocol, Transmit};

use crate::outgoing::{Outgoing, Sent, Way};

/// A socket, and what clients know it by.
pub(crate) struct Door {
    /// As the internet calls it.
    pub(crate) public: SocketAddr,
}

/// Where datagrams leave.
pub(crate) struct Exit {
    sockets: Vec<UdpSocket>,
    doors: Vec<Door>,
    outgoing: Outgoing,
}

impl Exit {
    pub(crate) fn new(sockets: Vec<UdpSocket>, doors: Vec<Door>) -> Self {
        Self {
            sockets,
            doors,
            outgoing: Outgoing::new(),
        }
    }

    pub(crate) fn sockets(&self) -> &[UdpSocket] {
        &self.sockets
    }

    /// What a socket is known by.
    pub(crate) fn public(&self, socket: usize) -> Option<SocketAddr> {
        self.doors.get(socket).map(|door| door.public)
    }

    /// What a Peer can be reached at.
    pub(crate) fn addresses(&self) -> Vec<(Protocol, SocketAddr)> {
        self.doors
            .iter()
            .map(|door| (Protocol::Udp, door.public))
            .collect()
    }

    /// Where the next datagram is to be written.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.outgoing.space(&self.sockets)
    }

    /// Lets the first `len` bytes of [`space`](Self::space) leave.
    pub(crate) fn put(&mut self, way: Way, len: usize) {
        self.outgoing.put(way, len, &self.sockets);
    }

    /// Lets what the library says leave: answers to STUN to where it was asked from, DTLS to where media goes.
    pub(crate) fn transmit(&mut self, transmit: &Transmit, media: Option<Way>) {
        let is_stun = transmit.contents.first().is_some_and(|first| *first < 4);
        let asked = self
            .doors
            .iter()
            .position(|door| door.public == transmit.source);
        let asked = asked.map(|socket| Way {
            socket,
            to: transmit.destination,
        });
        let way = match is_stun {
            true => asked,
            false => media.or(asked),
        };
        if let Some(way) = way {
            self.outgoing
                .put_copy(way, &transmit.contents, &self.sockets);
        }
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) {
        self.outgoing.flush(&self.sockets);
    }

    pub(crate) fn sent(&self) -> Sent {
        self.outgoing.sent
    }
}
