//! The control thread: the core, and the streams it serves itself. Moves bytes and time between
//! them, and between the core and the workers; decides nothing.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use relay_core::{
    Credentials, FiveTuple, Forward, Output, Owners, PathUpdate, Prefix, RelayPort, Transport,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::burst;
use crate::config::Settings;
use crate::icmp::{self, Said};
use crate::offload::{self, Offload, Offloaded};
use crate::sender::Sender;
use crate::tcp::Tcp;
use crate::worker::{Batch, Command, Event, Figures, Listener, Remote};
use crate::{udp, xdp};

/// Room in front of every received packet for the longest prefix a core writes there.
pub(crate) const HEADROOM: usize = Prefix::LEN_MAX;

/// Room behind for padding.
pub(crate) const TAILROOM: usize = 3;

/// The longest UDP payload, in bytes.
pub(crate) const DATAGRAM_LEN_MAX: usize = 65_535;

/// A relayed port of a stream that is open.
struct OpenPort {
    socket: Rc<UdpSocket>,
    /// Receives from the socket.
    task: JoinHandle<()>,
}

/// What the thread owns. Its cells are borrowed for one synchronous step at a time, never over an
/// `await`.
pub(crate) struct Shard {
    /// As they hold now; [`reconfigure`](Self::reconfigure) puts others in their place.
    settings: RefCell<Rc<Settings>>,
    pub(crate) relay: RefCell<relay_core::Relay>,
    /// Serve UDP clients, whose sockets here only send what a stream has for them.
    workers: Vec<Remote>,
    udp_listeners: Vec<Listener>,
    owners: Arc<Owners>,
    offload: RefCell<xdp::Outcome>,
    /// The worker whose packet is being handled: what follows from it goes back there.
    serving: Cell<Option<usize>>,
    /// By [`PathUpdate::allocation`].
    worker_by_allocation: RefCell<Vec<Option<usize>>>,
    /// Ports bound for a worker which the core has not granted yet, by [`RelayPort::index`].
    bound: RefCell<HashMap<usize, std::net::UdpSocket>>,
    /// By [`RelayPort::index`].
    ports: RefCell<Vec<Option<OpenPort>>>,
    /// The worker that serves the port, by [`RelayPort::index`].
    worker_by_port: RefCell<Vec<Option<usize>>>,
    senders: RefCell<HashMap<FiveTuple, Rc<Sender>>>,
    streams_by_address: RefCell<HashMap<IpAddr, usize>>,
    /// What TCP Allocations hold.
    pub(crate) tcp: Tcp,
    /// The receive buffer of the streams' relayed ports.
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
    /// Datagrams to be kept whole that no interface takes.
    pub(crate) too_long: Cell<u64>,
    /// The queue of a stream was full.
    pub(crate) queue_full: Cell<u64>,
    /// Streams refused since there were too many.
    pub(crate) streams: Cell<u64>,
}

impl Shard {
    pub(crate) fn new(
        settings: Settings,
        relay: relay_core::Relay,
        workers: Vec<Remote>,
        udp_listeners: Vec<Listener>,
        owners: Arc<Owners>,
        offload: xdp::Outcome,
    ) -> Shard {
        Shard {
            settings: RefCell::new(Rc::new(settings)),
            relay: RefCell::new(relay),
            workers,
            udp_listeners,
            owners,
            offload: RefCell::new(offload),
            serving: Cell::new(None),
            worker_by_allocation: RefCell::default(),
            bound: RefCell::default(),
            ports: RefCell::default(),
            worker_by_port: RefCell::default(),
            senders: RefCell::default(),
            streams_by_address: RefCell::default(),
            tcp: Tcp::default(),
            buffer: RefCell::new(vec![0; HEADROOM + DATAGRAM_LEN_MAX + TAILROOM].into()),
            deadline_changed: Notify::new(),
            dropped: Dropped::default(),
        }
    }

    /// The counters of the core and of all workers.
    pub(crate) async fn figures(&self) -> Figures {
        let mut figures = Figures {
            stats: self.relay.borrow().stats(),
            ..Figures::default()
        };
        if let Some(offloaded) = self.settle_offload() {
            figures
                .stats
                .count_offloaded(offloaded.from_clients, offloaded.to_clients);
        }
        for worker in &self.workers {
            let (reply, answer) = oneshot::channel();
            worker.tell(Command::Figures(reply));
            worker.wake();
            if let Ok(its) = answer.await {
                figures.add(&its);
            }
        }
        figures
    }

    /// Counts what the network driver relayed, for everybody who asks; `None` where it does not.
    pub(crate) fn settle_offload(&self) -> Option<Offloaded> {
        let relay = self.relay.borrow();
        self.with_offload(|offload| {
            offload::view(Instant::now(), &relay, |view| offload.settle(view));
            offload.offloaded()
        })
    }

    fn with_offload<T>(&self, work: impl FnOnce(&mut Offload) -> T) -> Option<T> {
        match &mut *self.offload.borrow_mut() {
            xdp::Outcome::Active(offload) => Some(work(offload)),
            _ => None,
        }
    }

    /// What came of the setting `xdp`.
    pub(crate) fn offload(&self) -> Ref<'_, xdp::Outcome> {
        self.offload.borrow()
    }

    pub(crate) fn streams(&self) -> usize {
        self.senders.borrow().len()
    }

    /// Takes what a worker can't judge.
    pub(crate) fn on_event(self: &Rc<Self>, event: Event) {
        match event {
            Event::Packet {
                worker,
                from,
                bytes,
            } => {
                self.serving.set(Some(worker));
                let now = Instant::now();
                // Media of UDP clients does not come here, so there is nothing to forward.
                self.relay
                    .borrow_mut()
                    .handle_client_packet(now, from, &bytes);
                self.apply_outputs();
                self.serving.set(None);
            }
            Event::HandedOver(batch) => self.on_handed_over(&batch),
        }
    }

    fn on_handed_over(self: &Rc<Self>, batch: &Batch) {
        let mut buffer = self.buffer.borrow_mut();
        for (to, from, payload) in batch.iter() {
            let now = Instant::now();
            let len = payload.len();
            let forward = self
                .relay
                .borrow_mut()
                .handle_handed_over(now, to, from, len);
            self.apply_outputs();
            if let Some(forward) = forward {
                buffer[HEADROOM..HEADROOM + len].copy_from_slice(payload);
                self.forward(&forward, &mut buffer, HEADROOM);
            }
        }
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

    /// Takes in what ICMP said at a relayed port, as far as its turn goes; with it what this
    /// machine said of the datagram to `tried` that it did not send.
    pub(crate) fn receive_errors(
        self: &Rc<Self>,
        port: RelayPort,
        socket: &UdpSocket,
        tried: Option<SocketAddr>,
    ) {
        let mut tried = tried;
        for _ in 0..icmp::TURN_MAX {
            let (peer, icmp) = match (icmp::receive(socket), tried) {
                (None, _) => {
                    // Nothing more until the runtime hears of something new.
                    let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                    socket.try_io(Interest::ERROR, nothing).ok();
                    return;
                }
                (Some(Said::Icmp(peer, icmp)), _) => (peer, icmp),
                (Some(Said::TooLong(mtu)), Some(peer)) => {
                    tried = None; // Each datagram is tried twice.
                    (peer, icmp::too_long(peer, mtu))
                }
                (Some(_), _) => continue,
            };
            let now = Instant::now();
            let forward = self.relay.borrow_mut().handle_icmp(now, port, peer, icmp);
            self.apply_outputs();
            if let Some(forward) = forward {
                let mut buffer = [0; HEADROOM + TAILROOM];
                self.forward(&forward, &mut buffer, HEADROOM);
            }
        }
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

    /// The settings that hold at the moment.
    pub(crate) fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    /// Puts other settings in place of those in use; those of what is bound already stay.
    pub(crate) fn reconfigure(self: &Rc<Self>, settings: Settings, credentials: Credentials) {
        let before = self.settings();
        let settings = Settings {
            bind_v4: before.bind_v4,
            bind_v6: before.bind_v6,
            ..settings
        };
        self.relay.borrow_mut().set_config(settings.core.clone());
        self.settings.replace(Rc::new(settings));
        self.set_credentials(credentials);
        let peers = self.relay.borrow().peers().clone();
        for worker in &self.workers {
            worker.tell(Command::Peers(peers.clone()));
            worker.wake();
        }
        let relay = self.relay.borrow();
        self.with_offload(|offload| {
            offload::view(Instant::now(), &relay, |view| offload.check_peers(view));
        });
        drop(relay);
        self.apply_outputs();
    }

    pub(crate) fn set_credentials(&self, credentials: Credentials) {
        let credentials = self.settings().complete(credentials);
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
        let settings = self.settings();
        let mut senders = self.senders.borrow_mut();
        let mut by_address = self.streams_by_address.borrow_mut();
        let held = by_address
            .get(&limited_address(five_tuple.client.ip()))
            .copied()
            .unwrap_or(0);
        if senders.len() >= settings.streams_max
            || held >= settings.streams_per_address_max
            || senders.contains_key(&five_tuple)
        {
            self.dropped.streams.update(|count| count + 1);
            return None;
        }
        *by_address
            .entry(limited_address(five_tuple.client.ip()))
            .or_default() += 1;
        let sender = Rc::new(Sender::new(settings.stream_queue_bytes_max));
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
    pub(crate) fn apply_outputs(self: &Rc<Self>) {
        let mut relay = self.relay.borrow_mut();
        let mut told = Vec::new();
        let mut applied = false;
        while let Some(output) = relay.poll_output() {
            applied = true;
            match output {
                // Behind the updates it speaks of, which go the same way.
                Output::Send { to, bytes } if to.transport == Transport::Udp => {
                    told.extend(self.serving.get());
                    self.send_response(to, bytes);
                }
                Output::Send { to, bytes } => self.send_to_client(to, &bytes, false),
                Output::OpenPort(port) => tell_of(&mut relay, port, self.open_port(port)),
                Output::Listen(port) => tell_of(&mut relay, port, self.listen(port)),
                Output::Connect { id, port, peer } => self.connect(id, port, peer),
                Output::Pair { one, other } => self.tcp.pair(one, other),
                Output::Splice { id, client } => self.tcp.splice(id, client),
                Output::Close(id) => self.tcp.close(id),
                Output::ClosePort(port) => {
                    self.with_offload(|offload| offload.close_port(Instant::now(), port));
                    told.extend(self.close_port(port));
                }
                Output::Path(update) => {
                    self.with_offload(|offload| {
                        let now = Instant::now();
                        offload::view(now, &relay, |view| offload.update(view, &update));
                    });
                    told.extend(self.update_path(update));
                }
            }
        }
        drop(relay);
        told.sort_unstable();
        told.dedup();
        for worker in told {
            self.workers[worker].wake();
        }
        if applied {
            self.deadline_changed.notify_one();
        }
    }

    fn send_response(&self, to: FiveTuple, bytes: Vec<u8>) {
        match self.serving.get() {
            Some(worker) => self.workers[worker].tell(Command::Send(to, bytes)),
            None => self.send_to_client(to, &bytes, false),
        }
    }

    /// Binds a port: for the worker being served, which gets it once the core has granted it, or
    /// for a stream.
    fn open_port(self: &Rc<Self>, port: RelayPort) -> io::Result<()> {
        let socket = udp::bind_relayed(self.bound_address(port)?)?;
        let owner = match self.serving.get() {
            Some(worker) => {
                burst::receive_bursts(&socket);
                self.bound.borrow_mut().insert(port.index, socket);
                worker
            }
            None => {
                let socket = Rc::new(UdpSocket::from_std(socket)?);
                let receive = udp::receive_from_peers(self.clone(), port, socket.clone());
                let task = tokio::task::spawn_local(receive);
                set(&self.ports, port.index, Some(OpenPort { socket, task }));
                self.workers.len()
            }
        };
        self.owners.set(port.address, Some(owner));
        Ok(())
    }

    /// Where a relayed port is bound, which may not be the address that peers see.
    pub(crate) fn bound_address(&self, port: RelayPort) -> io::Result<SocketAddr> {
        let ip = match port.address.ip() {
            IpAddr::V4(_) => self.settings().bind_v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.settings().bind_v6.map(IpAddr::V6),
        };
        let ip = ip.ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(SocketAddr::new(ip, port.address.port()))
    }

    /// Closes a port; returns the worker that has to hear of it.
    fn close_port(&self, port: RelayPort) -> Option<usize> {
        self.tcp.stop_listening(port);
        self.owners.set(port.address, None);
        self.bound.borrow_mut().remove(&port.index);
        if let Some(open) = set(&self.ports, port.index, None) {
            open.task.abort();
        }
        let worker = set(&self.worker_by_port, port.index, None)?;
        self.workers[worker].tell(Command::Close(port));
        Some(worker)
    }

    /// Tells the worker of an Allocation what changed, and returns which one that is.
    fn update_path(&self, update: PathUpdate) -> Option<usize> {
        let PathUpdate::Open {
            allocation, port, ..
        } = update
        else {
            let by_allocation = self.worker_by_allocation.borrow();
            let worker = by_allocation.get(update.allocation()).copied().flatten()?;
            self.workers[worker].tell(Command::Update(update));
            return Some(worker);
        };
        let worker = self.serving.get()?;
        let socket = self.bound.borrow_mut().remove(&port.index)?;
        set(&self.worker_by_allocation, allocation, Some(worker));
        set(&self.worker_by_port, port.index, Some(worker));
        self.workers[worker].tell(Command::Open(update, port, socket));
        Some(worker)
    }

    fn forward(self: &Rc<Self>, forward: &Forward, buffer: &mut [u8], start: usize) {
        match forward {
            Forward::ToPeer {
                port,
                to,
                payload,
                dont_fragment,
            } => {
                let ports = self.ports.borrow();
                let Some(Some(open)) = ports.get(port.index) else {
                    return;
                };
                let socket = open.socket.clone();
                drop(ports);
                let bytes = &buffer[start + payload.start..start + payload.end];
                match dont_fragment {
                    false => self.send_datagram(&*socket, *to, bytes),
                    true => self.send_whole(*port, &socket, *to, bytes),
                }
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

    /// Sends a datagram that nobody may take apart.
    fn send_whole(
        self: &Rc<Self>,
        port: RelayPort,
        socket: &UdpSocket,
        to: SocketAddr,
        bytes: &[u8],
    ) {
        let Err(error) = udp::send_whole(socket, to, bytes) else {
            return;
        };
        tracing::trace!(%error, "Datagram not sent whole");
        if udp::is_too_long(&error) {
            self.dropped.too_long.update(|count| count + 1);
            self.receive_errors(port, socket, Some(to));
        } else {
            self.dropped.udp.update(|count| count + 1);
        }
    }

    /// Sends at once or not at all: what a full socket refuses is lost, as in any network.
    fn send_datagram(&self, socket: &impl AsFd, to: SocketAddr, bytes: &[u8]) {
        if let Err(error) = udp::send(socket, to, bytes) {
            tracing::trace!(%error, "Datagram not sent");
            self.dropped.udp.update(|count| count + 1);
        }
    }
}

/// Tells the core what came of a port.
fn tell_of(relay: &mut relay_core::Relay, port: RelayPort, opened: io::Result<()>) {
    match opened {
        Ok(()) => relay.handle_port_opened(Instant::now(), port),
        Err(error) => {
            tracing::debug!(%error, %port.address, "Relayed port not bound");
            relay.handle_port_failed(Instant::now(), port);
        }
    }
}

/// Puts `value` at `index` of a table that grows as needed; returns what was there.
fn set<T>(table: &RefCell<Vec<Option<T>>>, index: usize, value: Option<T>) -> Option<T> {
    let mut table = table.borrow_mut();
    if table.len() <= index {
        table.resize_with(index + 1, || None);
    }
    std::mem::replace(&mut table[index], value)
}

/// What one household or machine counts as: an IPv4 address, or an IPv6 /64.
fn limited_address(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
    }
}
