//! One thread's core, sockets and streams. Moves bytes between them; decides nothing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use relay_core::{Credentials, FiveTuple, Forward, Output, RelayPort, Stats, Transport};
use relay_stun::DATA_INDICATION_PREFIX_MAX;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::sender::Sender;
use crate::udp;

/// Room in front of every received packet for the longest prefix a core writes there.
pub(crate) const HEADROOM: usize = DATA_INDICATION_PREFIX_MAX;

/// Room behind for padding.
pub(crate) const TAILROOM: usize = 3;

/// The longest UDP payload, in bytes.
pub(crate) const DATAGRAM_LEN_MAX: usize = 65_535;

/// A UDP socket the shard listens on.
pub(crate) struct UdpListener {
    pub(crate) address: SocketAddr,
    pub(crate) socket: UdpSocket,
}

/// A relayed port that is open.
struct OpenPort {
    socket: Rc<UdpSocket>,
    /// Receives from the socket.
    task: JoinHandle<()>,
}

/// What the thread owns. Its cells are borrowed for one synchronous step at a time, never over an
/// `await`.
pub(crate) struct Shard {
    pub(crate) settings: Settings,
    relay: RefCell<relay_core::Relay>,
    udp_listeners: Vec<Rc<UdpListener>>,
    /// By [`RelayPort::index`].
    ports: RefCell<Vec<Option<OpenPort>>>,
    senders: RefCell<HashMap<FiveTuple, Rc<Sender>>>,
    streams_by_address: RefCell<HashMap<IpAddr, usize>>,
    /// The receive buffer of all UDP sockets.
    buffer: RefCell<Box<[u8]>>,
    /// Wakes the timer when its next deadline may have changed.
    pub(crate) deadline_changed: Notify,
    pub(crate) dropped: Dropped,
}

/// Packets the shard could not place, since the start.
#[derive(Default)]
pub(crate) struct Dropped {
    /// A UDP socket refused them.
    pub(crate) udp: Cell<u64>,
    /// The queue of a stream was full.
    pub(crate) queue_full: Cell<u64>,
    /// Streams refused since there were too many.
    pub(crate) streams: Cell<u64>,
}

impl Shard {
    pub(crate) fn new(
        settings: Settings,
        relay: relay_core::Relay,
        udp_listeners: Vec<UdpListener>,
    ) -> Shard {
        Shard {
            settings,
            relay: RefCell::new(relay),
            udp_listeners: udp_listeners.into_iter().map(Rc::new).collect(),
            ports: RefCell::default(),
            senders: RefCell::default(),
            streams_by_address: RefCell::default(),
            buffer: RefCell::new(vec![0; HEADROOM + DATAGRAM_LEN_MAX + TAILROOM].into()),
            deadline_changed: Notify::new(),
            dropped: Dropped::default(),
        }
    }

    pub(crate) fn udp_listeners(&self) -> &[Rc<UdpListener>] {
        &self.udp_listeners
    }

    pub(crate) fn stats(&self) -> Stats {
        self.relay.borrow().stats()
    }

    pub(crate) fn streams(&self) -> usize {
        self.senders.borrow().len()
    }

    /// Receives one datagram from `socket` and hands it on; `false` once nothing more is there.
    pub(crate) fn receive_from_client(self: &Rc<Self>, listener: &UdpListener) -> io::Result<bool> {
        let mut buffer = self.buffer.borrow_mut();
        let Some((len, client)) = udp::receive(&listener.socket, &mut buffer)? else {
            return Ok(false);
        };
        let from = FiveTuple {
            client,
            server: listener.address,
            transport: Transport::Udp,
        };
        self.on_client_packet(from, &mut buffer, HEADROOM, len);
        Ok(true)
    }

    /// Receives one datagram at a relayed port; `false` once nothing more is there.
    pub(crate) fn receive_from_peer(
        self: &Rc<Self>,
        port: RelayPort,
        socket: &UdpSocket,
    ) -> io::Result<bool> {
        let mut buffer = self.buffer.borrow_mut();
        let Some((len, peer)) = udp::receive(socket, &mut buffer)? else {
            return Ok(false);
        };
        let now = Instant::now();
        let forward = self
            .relay
            .borrow_mut()
            .handle_peer_datagram(now, port, peer, len);
        self.apply_outputs();
        if let Some(forward) = forward {
            self.forward(&forward, &mut buffer, HEADROOM);
        }
        Ok(true)
    }

    /// Hands on one message of `len` bytes at `start` of `buffer`, which has [`HEADROOM`] in front
    /// of it and [`TAILROOM`] behind.
    pub(crate) fn on_client_packet(
        self: &Rc<Self>,
        from: FiveTuple,
        buffer: &mut [u8],
        start: usize,
        len: usize,
    ) {
        let now = Instant::now();
        let packet = &buffer[start..start + len];
        let forward = self
            .relay
            .borrow_mut()
            .handle_client_packet(now, from, packet);
        self.apply_outputs();
        if let Some(forward) = forward {
            self.forward(&forward, buffer, start);
        }
    }

    pub(crate) fn on_timeout(self: &Rc<Self>) {
        self.relay.borrow_mut().handle_timeout(Instant::now());
        self.apply_outputs();
    }

    pub(crate) fn on_wall_clock(&self) {
        let unix_now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.relay
            .borrow_mut()
            .handle_wall_clock(Instant::now(), unix_now);
    }

    pub(crate) fn set_credentials(&self, credentials: Credentials) {
        let credentials = credentials.with_users(self.settings.users.clone());
        self.relay.borrow_mut().set_credentials(credentials);
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.relay.borrow_mut().set_draining(draining);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.relay.borrow().poll_timeout()
    }

    pub(crate) fn has_allocation(&self, five_tuple: &FiveTuple) -> bool {
        self.relay.borrow().has_allocation(five_tuple)
    }

    /// Makes room for a stream; `None` where there are too many, or this one is there already.
    pub(crate) fn open_stream(&self, five_tuple: FiveTuple) -> Option<Rc<Sender>> {
        let mut senders = self.senders.borrow_mut();
        let mut by_address = self.streams_by_address.borrow_mut();
        let held = by_address
            .get(&limited_address(five_tuple.client.ip()))
            .copied()
            .unwrap_or(0);
        if senders.len() >= self.settings.streams_max
            || held >= self.settings.streams_per_address_max
            || senders.contains_key(&five_tuple)
        {
            self.dropped.streams.update(|count| count + 1);
            return None;
        }
        *by_address
            .entry(limited_address(five_tuple.client.ip()))
            .or_default() += 1;
        let sender = Rc::new(Sender::new(self.settings.stream_queue_bytes_max));
        senders.insert(five_tuple, sender.clone());
        Some(sender)
    }

    /// Takes back what [`open_stream`](Self::open_stream) gave, with the stream's Allocation.
    pub(crate) fn close_stream(self: &Rc<Self>, five_tuple: FiveTuple) {
        self.senders.borrow_mut().remove(&five_tuple);
        let mut by_address = self.streams_by_address.borrow_mut();
        let address = limited_address(five_tuple.client.ip());
        if let Some(held) = by_address.get_mut(&address) {
            *held -= 1;
            if *held == 0 {
                by_address.remove(&address);
            }
        }
        drop(by_address);
        self.relay
            .borrow_mut()
            .handle_stream_closed(Instant::now(), five_tuple);
        self.apply_outputs();
    }

    /// Carries out what the core asks for.
    fn apply_outputs(self: &Rc<Self>) {
        let mut relay = self.relay.borrow_mut();
        let mut applied = false;
        while let Some(output) = relay.poll_output() {
            applied = true;
            match output {
                Output::Send { to, bytes } => self.send_to_client(to, &bytes, false),
                Output::OpenPort(port) => match self.open_port(port) {
                    Ok(()) => relay.handle_port_opened(Instant::now(), port),
                    Err(error) => {
                        tracing::debug!(%error, %port.address, "Relayed port not bound");
                        relay.handle_port_failed(Instant::now(), port);
                    }
                },
                Output::ClosePort(port) => self.close_port(port),
            }
        }
        if applied {
            self.deadline_changed.notify_one();
        }
    }

    fn open_port(self: &Rc<Self>, port: RelayPort) -> io::Result<()> {
        let ip = match port.address.ip() {
            IpAddr::V4(_) => self.settings.bind_v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.settings.bind_v6.map(IpAddr::V6),
        };
        let ip = ip.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = udp::bind(SocketAddr::new(ip, port.address.port()), None)?;
        let socket = Rc::new(UdpSocket::from_std(socket)?);
        let task =
            tokio::task::spawn_local(udp::receive_from_peers(self.clone(), port, socket.clone()));

        let mut ports = self.ports.borrow_mut();
        if ports.len() <= port.index {
            ports.resize_with(port.index + 1, || None);
        }
        ports[port.index] = Some(OpenPort { socket, task });
        Ok(())
    }

    fn close_port(&self, port: RelayPort) {
        let open = self
            .ports
            .borrow_mut()
            .get_mut(port.index)
            .and_then(Option::take);
        if let Some(open) = open {
            open.task.abort();
        }
    }

    fn forward(&self, forward: &Forward, buffer: &mut [u8], start: usize) {
        match forward {
            Forward::ToPeer { port, to, payload } => {
                let ports = self.ports.borrow();
                let Some(Some(open)) = ports.get(port.index) else {
                    return;
                };
                let bytes = &buffer[start + payload.start..start + payload.end];
                self.send_datagram(&open.socket, *to, bytes);
            }
            Forward::ToClient {
                to,
                prefix,
                payload,
                padding,
            } => {
                let prefix = prefix.as_bytes();
                let payload_start = start + payload.start;
                let payload_end = start + payload.end;
                let first = payload_start - prefix.len();
                buffer[first..payload_start].copy_from_slice(prefix);
                buffer[payload_end..payload_end + padding].fill(0);
                self.send_to_client(*to, &buffer[first..payload_end + padding], true);
            }
        }
    }

    fn send_to_client(&self, to: FiveTuple, bytes: &[u8], is_media: bool) {
        if to.transport == Transport::Udp {
            let listener = self
                .udp_listeners
                .iter()
                .find(|held| held.address == to.server);
            if let Some(listener) = listener {
                self.send_datagram(&listener.socket, to.client, bytes);
            }
        } else if let Some(sender) = self.senders.borrow().get(&to)
            && !sender.push(bytes, is_media)
        {
            self.dropped.queue_full.update(|count| count + 1);
        }
    }

    /// Sends at once or not at all: what a full socket refuses is lost, as in any network.
    fn send_datagram(&self, socket: &UdpSocket, to: SocketAddr, bytes: &[u8]) {
        if let Err(error) = udp::send(socket, to, bytes) {
            tracing::trace!(%error, "Datagram not sent");
            self.dropped.udp.update(|count| count + 1);
        }
    }
}

/// What one household or machine counts as: an IPv4 address, or an IPv6 /64.
fn limited_address(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
    }
}
