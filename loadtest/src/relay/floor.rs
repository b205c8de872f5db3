//! The floor: a forwarder that knows no TURN. It takes four bytes off what comes from a client and puts them on
//! what goes to one, and that is all. Runs as a child process, so that it is measured as the servers are.
//!
//! A client introduces itself with a message of text that begins with a zero byte: `peer CHANNEL ADDRESS` opens a
//! connected socket toward a peer, `pair CHANNEL OTHER` leads from one channel to the client of another.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use clap::Args;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::socket::{RECEIVED_LEN_MAX, Socket};

/// The bytes of a ChannelData header.
pub(super) const HEADER_LEN: usize = 4;

/// How many sockets one call tells about.
const EVENTS_MAX: usize = 256;

/// The listener's number among the sockets that are waited for.
const LISTENER: u64 = u64::MAX;

#[derive(Args)]
pub(crate) struct FloorArguments {
    /// The address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// Takes and sends bursts in one call each.
    #[arg(long)]
    bursts: bool,
}

/// Forwards until the process is ended.
pub(crate) fn run(arguments: &FloorArguments) -> anyhow::Result<()> {
    let mut floor = Floor {
        listener: Socket::bind(arguments.listen, arguments.bursts).context("can't listen")?,
        epoll: Epoll::new(EpollCreateFlags::empty())?,
        bursts: arguments.bursts,
        channels: HashMap::new(),
        routes: Vec::new(),
    };
    floor.epoll.add(
        &floor.listener,
        EpollEvent::new(EpollFlags::EPOLLIN, LISTENER),
    )?;
    let mut events = vec![EpollEvent::empty(); EVENTS_MAX];
    let mut buffer = vec![0; HEADER_LEN + RECEIVED_LEN_MAX];
    loop {
        let ready = match floor.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(ready) => ready,
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..ready] {
            let token = event.data();
            match (usize::try_from(token), floor.bursts) {
                (Ok(at), false) if token != LISTENER => floor.plain_from_peer(at, &mut buffer)?,
                (Ok(at), true) if token != LISTENER => floor.bursts_from_peer(at, &mut buffer)?,
                (_, false) => floor.plain_from_client(&mut buffer)?,
                (_, true) => floor.bursts_from_client(&mut buffer)?,
            }
        }
    }
}

struct Floor {
    listener: Socket,
    epoll: Epoll,
    bursts: bool,
    channels: HashMap<u16, usize>,
    routes: Vec<Route>,
}

/// Where a channel leads.
struct Route {
    client: SocketAddr,
    channel: u16,
    /// Toward a peer; without one, to the client of the other channel.
    peer: Option<Socket>,
    other: u16,
}

impl Floor {
    /// How many messages one socket may bring before others have their turn.
    const TURN: usize = 64;

    fn plain_from_client(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..Self::TURN {
            let (len, from) = match self.listener.plain().recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => continue,
            };
            if buffer[0] == 0 {
                self.introduce(&buffer[1..len], from);
                continue;
            }
            let Some(route) = self.route(buffer) else {
                continue;
            };
            // A full socket loses the message, as in any network.
            match &route.peer {
                Some(peer) => drop(peer.plain().send(&buffer[HEADER_LEN..len])),
                None => {
                    let Some(other) = self.channels.get(&route.other) else {
                        continue;
                    };
                    let client = self.routes[*other].client;
                    buffer[..2].copy_from_slice(&self.routes[*other].channel.to_be_bytes());
                    drop(self.listener.plain().send_to(&buffer[..len], client));
                }
            }
        }
        Ok(())
    }

    fn plain_from_peer(&mut self, at: usize, buffer: &mut [u8]) -> io::Result<()> {
        let route = &self.routes[at];
        let Some(peer) = &route.peer else {
            return Ok(());
        };
        for _ in 0..Self::TURN {
            let len = match peer.plain().recv(&mut buffer[HEADER_LEN..]) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => continue,
            };
            buffer[..HEADER_LEN].copy_from_slice(&header(route.channel, len));
            drop(
                self.listener
                    .plain()
                    .send_to(&buffer[..HEADER_LEN + len], route.client),
            );
        }
        Ok(())
    }

    fn bursts_from_client(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        while let Some(received) = self.listener.receive(buffer)? {
            let Some(from) = received.from else { continue };
            if buffer[0] == 0 {
                self.introduce(&buffer[1..received.len], from);
                continue;
            }
            let Some(route) = self.route(buffer) else {
                continue;
            };
            match &route.peer {
                Some(peer) => {
                    let messages = buffer[..received.len].chunks(received.segment);
                    let parts: Vec<_> = messages
                        .map(|message| IoSlice::new(&message[HEADER_LEN..]))
                        .collect();
                    peer.send(&parts, len_of(received.segment - HEADER_LEN), None)?;
                }
                None => {
                    let Some(other) = self.channels.get(&route.other) else {
                        continue;
                    };
                    let channel = self.routes[*other].channel.to_be_bytes();
                    let client = self.routes[*other].client;
                    for message in buffer[..received.len].chunks_mut(received.segment) {
                        message[..2].copy_from_slice(&channel);
                    }
                    let parts = [IoSlice::new(&buffer[..received.len])];
                    self.listener
                        .send(&parts, len_of(received.segment), Some(client))?;
                }
            }
        }
        Ok(())
    }

    fn bursts_from_peer(&mut self, at: usize, buffer: &mut [u8]) -> io::Result<()> {
        let route = &self.routes[at];
        let Some(peer) = &route.peer else {
            return Ok(());
        };
        while let Some(received) = peer.receive(buffer)? {
            let header = header(route.channel, received.segment);
            let parts: Vec<_> = buffer[..received.len]
                .chunks(received.segment)
                .flat_map(|message| [IoSlice::new(&header), IoSlice::new(message)])
                .collect();
            let segment = len_of(received.segment + HEADER_LEN);
            self.listener.send(&parts, segment, Some(route.client))?;
        }
        Ok(())
    }

    fn route(&self, message: &[u8]) -> Option<&Route> {
        let channel = u16::from_be_bytes([message[0], message[1]]);
        self.channels.get(&channel).map(|at| &self.routes[*at])
    }

    /// Takes a client in and says so; what makes no sense stays unanswered.
    fn introduce(&mut self, text: &[u8], client: SocketAddr) {
        let words = String::from_utf8_lossy(text);
        let mut words = words.split(' ');
        let (Some(kind), Some(Ok(channel)), Some(to)) = (
            words.next(),
            words.next().map(str::parse::<u16>),
            words.next(),
        ) else {
            return;
        };
        let (peer, other) = match kind {
            "peer" => (self.toward(to), 0),
            "pair" => (None, to.parse().unwrap_or_default()),
            _ => {
                // Only asks whether somebody is there.
                self.listener.plain().send_to(b"yes", client).ok();
                return;
            }
        };
        let at = self.routes.len();
        if let Some(peer) = &peer {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, at as u64);
            if self.epoll.add(peer, event).is_err() {
                return;
            }
        }
        let address = peer
            .as_ref()
            .and_then(|peer| peer.address().ok())
            .unwrap_or(client);
        self.channels.insert(channel, at);
        self.routes.push(Route {
            client,
            channel,
            peer,
            other,
        });
        // A lost answer is asked for again.
        self.listener
            .plain()
            .send_to(address.to_string().as_bytes(), client)
            .ok();
    }

    fn toward(&self, peer: &str) -> Option<Socket> {
        let socket = Socket::bind((Ipv4Addr::LOCALHOST, 0).into(), self.bursts).ok()?;
        socket.connect(peer.parse().ok()?).ok()?;
        Some(socket)
    }
}

/// The header of a message with a payload of `len` bytes.
pub(super) fn header(channel: u16, len: usize) -> [u8; HEADER_LEN] {
    let [c0, c1] = channel.to_be_bytes();
    let [l0, l1] = len_of(len).to_be_bytes();
    [c0, c1, l0, l1]
}

/// A length inside a datagram, which always fits.
pub(super) fn len_of(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
