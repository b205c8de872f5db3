//! All ways out of a shard, and what waits to leave by them: [doors](crate::doors), and streams of clients that can't send UDP.

use std::net::{SocketAddr, UdpSocket};

use slab::Slab;
use str0m::net::Transmit;
use tokio::sync::mpsc;

use crate::doors::{self, Doors, Relay};
use crate::outgoing::{Outgoing, Sent, Way};

/// Numbers of streams among the sockets begin here.
const STREAMS: usize = doors::PLACES;

/// The most streams of a shard.
const STREAMS_MAX: usize = 4096;

/// A stream of a client that can't send UDP.
struct Stream {
    client: SocketAddr,
    outgoing: mpsc::Sender<Vec<u8>>,
}

/// Where datagrams leave.
pub(crate) struct Exit {
    doors: Doors,
    streams: Slab<Stream>,
    outgoing: Outgoing,
}

impl Exit {
    pub(crate) fn new(doors: Doors) -> Self {
        Self {
            doors,
            streams: Slab::new(),
            outgoing: Outgoing::new(),
        }
    }

    pub(crate) fn sockets(&self) -> &[UdpSocket] {
        self.doors.sockets()
    }

    /// Leads to the relay of this process, too.
    pub(crate) fn connect_relay(&mut self, relay: Relay) {
        self.doors.connect(relay);
    }

    /// The way of a client of the relay; see [`Doors::relayed`].
    pub(crate) fn way_of_relayed(&self, media: SocketAddr, relayed: SocketAddr) -> Option<Way> {
        self.doors.relayed(media, relayed)
    }

    /// What a way's socket is known by; `None` of a stream.
    pub(crate) fn public(&self, way: Way) -> Option<SocketAddr> {
        self.doors.public(way)
    }

    /// What all sockets are known by.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.doors.addresses()
    }

    /// Takes a stream; returns its number, or `None` where there are too many.
    pub(crate) fn open_stream(
        &mut self,
        client: SocketAddr,
        outgoing: mpsc::Sender<Vec<u8>>,
    ) -> Option<usize> {
        let has_room = self.streams.len() < STREAMS_MAX;
        has_room.then(|| self.streams.insert(Stream { client, outgoing }))
    }

    /// The way over a stream.
    pub(crate) fn way_of_stream(&self, number: usize) -> Option<Way> {
        let to = self.streams.get(number)?.client;
        let socket = STREAMS + number;
        Some(Way { socket, to })
    }

    /// Lets a stream go; the task that serves it ends with it.
    pub(crate) fn close_stream(&mut self, number: usize) {
        self.streams.try_remove(number);
    }

    /// Lets the stream go that a way is over, if it is over one.
    pub(crate) fn close_way(&mut self, way: Way) {
        if let Some(number) = way.socket.checked_sub(STREAMS) {
            self.close_stream(number);
        }
    }

    /// Where the next datagram is to be written.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.outgoing.space(&mut self.doors)
    }

    /// Lets the first `len` bytes of [`space`](Self::space) leave.
    pub(crate) fn put(&mut self, way: Way, len: usize) {
        let Some(number) = way.socket.checked_sub(STREAMS) else {
            self.outgoing.put(way, len, &mut self.doors);
            return;
        };
        let datagram = self.outgoing.written(len).to_vec();
        let sent = &mut self.outgoing.sent;
        sent.packets += 1;
        sent.bytes += len as u64;
        let stream = self.streams.get(number);
        if stream.is_none_or(|stream| stream.outgoing.try_send(datagram).is_err()) {
            sent.refused += 1;
        }
    }

    /// Lets what the library says leave: answers to STUN to where it was `asked` from, DTLS to where media goes.
    pub(crate) fn transmit(&mut self, transmit: &Transmit, media: Option<Way>, asked: Option<Way>) {
        let is_stun = transmit.contents.first().is_some_and(|first| *first < 4);
        let way = match is_stun {
            true => asked.filter(|way| way.to == transmit.destination),
            false => media.or(asked),
        };
        let Some(way) = way else {
            return;
        };
        let len = transmit.contents.len();
        let space = self.space();
        if let Some(space) = space.get_mut(..len) {
            space.copy_from_slice(&transmit.contents);
            self.put(way, len);
        }
    }

    /// Sends what waits, at the end of a turn.
    pub(crate) fn flush(&mut self) {
        self.outgoing.flush(&mut self.doors);
        self.doors.wake();
    }

    pub(crate) fn sent(&self) -> Sent {
        self.outgoing.sent
    }
}
