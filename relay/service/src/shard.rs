//! The control thread: the core, and the streams it serves itself. Moves bytes and time between
//! them, and between the core and the workers; decides nothing.

use std::cell::{Cell, Ref, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use relay_core::{
    Credentials, FiveTuple, Forward, Output, Owners, Prefix, RelayPort, Transport, UsageByAccount,
};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::icmp::{self, Said};
use crate::offload::{self, Offload, Offloaded};
use crate::ports::{News, Ports, Server};
use crate::sender::Sender;
use crate::tcp::Tcp;
use crate::worker::{Batch, Command, Event, Figures, Listener, Remote};
use crate::{udp, xdp};
use sockets::burst::{self, Inbox, RECEIVED_MAX};
use sockets::handover::{End, Label, Receivers, Senders};

/// Room in front of every received packet for the longest prefix a core writes there.
pub(crate) const HEADROOM: usize = Prefix::LEN_MAX;

/// Room behind for padding.
pub(crate) const TAILROOM: usize = 3;

/// The longest UDP payload, in bytes.
pub(crate) const DATAGRAM_LEN_MAX: usize = 65_535;

/// How often a relayed port is asked in its turn, [`RECEIVED_MAX`] datagrams each time.
const PORT_TURNS_MAX: usize = 4;

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
    ports: Ports,
    to_media: RefCell<Senders>,
    from_media: RefCell<Receivers>,
    senders: RefCell<HashMap<FiveTuple, Rc<Sender>>>,
    streams_by_address: RefCell<HashMap<IpAddr, usize>>,
    /// What TCP Allocations hold.
    pub(crate) tcp: Tcp,
    /// What arrives at the streams' relayed ports.
    inbox: RefCell<Inbox>,
    /// Where a payload gets what stands before and behind it.
    buffer: RefCell<Box<[u8]>>,
    /// Wakes the timer when its next deadline may have changed.
    pub(crate) deadline_changed: Notify,
    pub(crate) dropped: Dropped,
    /// DTLS clients in their handshake.
    pub(crate) dtls_newcomers: Cell<usize>,
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
    /// The SFU had no room.
    pub(crate) media_full: Cell<u64>,
    /// Streams refused since there were too many.
    pub(crate) streams: Cell<u64>,
    /// DTLS clients that lost their place before their handshake was over.
    pub(crate) newcomers: Cell<u64>,
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
            ports: Ports::new(owners.clone(), workers.len()),
            workers,
            udp_listeners,
            owners,
            offload: RefCell::new(offload),
            serving: Cell::new(None),
            to_media: RefCell::default(),
            from_media: RefCell::default(),
            senders: RefCell::default(),
            streams_by_address: RefCell::default(),
            tcp: Tcp::default(),
            inbox: RefCell::new(Inbox::new()),
            buffer: RefCell::new(vec![0; HEADROOM + DATAGRAM_LEN_MAX + TAILROOM].into()),
            deadline_changed: Notify::new(),
            dropped: Dropped::default(),
            dtls_newcomers: Cell::default(),
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
            worker.tell(vec![Command::Figures(reply)]);
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

    /// Whether a client nobody knows may begin a handshake.
    pub(crate) fn admit_newcomer(&self, client: IpAddr) -> bool {
        let mut relay = self.relay.borrow_mut();
        relay.admit_newcomer(Instant::now(), client)
    }

    pub(crate) fn take_usage(&self) -> UsageByAccount {
        self.settle_offload(); // What the network driver relayed is in.
        self.relay.borrow_mut().take_usage()
    }

    pub(crate) fn give_back_usage(&self, usage: UsageByAccount) {
        self.relay.borrow_mut().give_back_usage(usage);
    }

    pub(crate) fn streams(&self) -> usize {
        self.senders.borrow().len()
    }

    /// How many bytes wait for all streams, and how many for one at most.
    pub(crate) fn queued(&self) -> (usize, usize) {
        let senders = self.senders.borrow();
        let queued = senders.values().map(|sender| sender.queued());
        queued.fold((0, 0), |(sum, longest), bytes| {
            (sum + bytes, longest.max(bytes))
        })
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
                let forward = self
                    .relay
                    .borrow_mut()
                    .handle_client_packet(now, from, &bytes);
                self.apply_outputs();
                self.serving.set(None);
                // Media of UDP clients comes here only at the end of a move.
                if let Some(forward) = forward {
                    self.forward_payload(&forward, &bytes);
                }
            }
            Event::HandedOver(batch) => self.on_handed_over(&batch),
        }
    }

    fn on_handed_over(self: &Rc<Self>, batch: &Batch) {
        for (to, from, payload) in batch.iter() {
            let now = Instant::now();
            let len = payload.len();
            let forward = self
                .relay
                .borrow_mut()
                .handle_handed_over(now, to, from, len);
            self.apply_outputs();
            if let Some(forward) = forward {
                self.forward_payload(&forward, payload);
            }
        }
    }

    /// Takes in what the SFU has handed over, which is no more than rings hold.
    pub(crate) fn receive_from_media(self: &Rc<Self>) {
        let mut from_media = self.from_media.borrow_mut();
        from_media.look();
        from_media.read(|burst| {
            let Label { relayed, media, .. } = burst.label;
            for payload in burst.into_datagrams() {
                let (now, len) = (Instant::now(), payload.len());
                let forward = self
                    .relay
                    .borrow_mut()
                    .handle_handed_over(now, relayed, media, len);
                self.apply_outputs();
                if let Some(forward) = forward {
                    self.forward_payload(&forward, payload);
                }
            }
        });
    }

    /// Receives what waits at a relayed port, as far as its turn goes; `false` where there may be
    /// more.
    pub(crate) fn receive_from_peers(self: &Rc<Self>, port: RelayPort, socket: &UdpSocket) -> bool {
        let mut inbox = self.inbox.borrow_mut();
        for _ in 0..PORT_TURNS_MAX {
            let received = match inbox.receive(socket, RECEIVED_MAX) {
                Ok(received) => received,
                // What ICMP said, which is in its queue too; the socket itself is fine.
                Err(error) => {
                    tracing::trace!(%error, "Datagram not received");
                    continue;
                }
            };
            for received in (0..received).filter_map(|at| inbox.get(at)) {
                for payload in received.datagrams() {
                    let (now, len) = (Instant::now(), payload.len());
                    let forward =
                        self.relay
                            .borrow_mut()
                            .handle_peer_datagram(now, port, received.from, len);
                    self.apply_outputs();
                    if let Some(forward) = forward {
                        self.forward_payload(&forward, payload);
                    }
                }
            }
            if received < RECEIVED_MAX {
                return true;
            }
        }
        false
    }

    fn forward_payload(self: &Rc<Self>, forward: &Forward, packet: &[u8]) {
        let mut buffer = self.buffer.borrow_mut();
        buffer[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
        self.forward(forward, &mut buffer, HEADROOM);
    }

    /// Takes in what ICMP said at a relayed port, as far as its turn goes; with it what this
    /// machine said of the datagram to `tried` that it did not send. `false` where there may be
    /// more.
    pub(crate) fn receive_errors(
        self: &Rc<Self>,
        port: RelayPort,
        socket: &UdpSocket,
        tried: Option<SocketAddr>,
    ) -> bool {
        let mut tried = tried;
        for _ in 0..icmp::TURN_MAX {
            let (peer, icmp) = match (icmp::receive(socket), tried) {
                (None, _) => return true,
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
        false
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
        self.tell_peers();
    }

    /// Relays on other addresses from now on, as they are seen by peers; returns those that can't be had.
    pub(crate) fn set_public_ips(self: &Rc<Self>, ips: &[IpAddr]) -> Vec<IpAddr> {
        let (known, unknown): (Vec<IpAddr>, Vec<IpAddr>) =
            ips.iter().partition(|ip| self.owners.add(**ip));
        for ip in known {
            self.relay.borrow_mut().set_relayed_ip(ip);
        }
        self.tell_peers();
        unknown
    }

    /// Reaches the SFU by `ends`, those of the workers and then this thread's own, and lets peers be reached at its ports.
    pub(crate) fn connect_media(
        self: &Rc<Self>,
        mut ends: Vec<End>,
        media: BTreeMap<SocketAddr, usize>,
    ) {
        if let Some(own) = ends.pop() {
            self.to_media.replace(own.senders);
            self.from_media.replace(own.receivers);
        }
        for (worker, end) in self.workers.iter().zip(ends) {
            worker.tell(vec![Command::Media(end)]);
        }
        self.relay.borrow_mut().set_media_peers(media);
        self.tell_peers();
    }

    /// Tells everybody which peers may be reached.
    fn tell_peers(self: &Rc<Self>) {
        let peers = self.relay.borrow().peers().clone();
        for worker in &self.workers {
            worker.tell(vec![Command::Peers(peers.clone())]);
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
        // An Allocation that waits for its client ends earlier than it would have.
        self.deadline_changed.notify_one();
    }

    /// Carries out what the core asks for.
    pub(crate) fn apply_outputs(self: &Rc<Self>) {
        let mut relay = self.relay.borrow_mut();
        let mut news = News::default();
        let mut applied = false;
        while let Some(output) = relay.poll_output() {
            applied = true;
            match output {
                Output::Send { to, bytes } => match (to.transport, self.serving.get()) {
                    // Behind the updates it speaks of, which go the same way.
                    (Transport::Udp, Some(worker)) => news.answer(worker, to, bytes),
                    _ => self.send_to_client(to, &bytes, false),
                },
                Output::OpenPort(port) => tell_of(&mut relay, port, self.open_port(port)),
                Output::Listen(port) => tell_of(&mut relay, port, self.listen(port)),
                Output::Connect { id, port, peer } => self.connect(id, port, peer),
                Output::Pair { one, other } => self.tcp.pair(one, other),
                Output::Splice { id, client } => self.tcp.splice(id, client),
                Output::Close(id) => self.tcp.close(id),
                Output::ClosePort(port) => {
                    self.tcp.stop_listening(port);
                    self.with_offload(|offload| offload.close_port(Instant::now(), port));
                    self.ports.close(port, &mut news);
                }
                Output::MovePort { port, to } => {
                    self.with_offload(|offload| offload.close_port(Instant::now(), port));
                    self.move_port(port, to, &mut news);
                }
                Output::Path(update) => {
                    self.with_offload(|offload| {
                        let now = Instant::now();
                        offload::view(now, &relay, |view| offload.update(view, &update));
                    });
                    self.ports.update(update, self.serving.get(), &mut news);
                }
            }
        }
        drop(relay);
        news.spread(&self.workers, &self.owners);
        if applied {
            self.deadline_changed.notify_one();
        }
    }

    /// Binds a port: for the worker being served, which gets it once the core has granted it, or
    /// for a stream.
    fn open_port(self: &Rc<Self>, port: RelayPort) -> io::Result<()> {
        let socket = udp::bind_relayed(self.bound_address(port)?)?;
        burst::receive_bursts(&socket);
        let socket = Arc::new(socket);
        let server = match self.serving.get() {
            Some(worker) => Server::Worker(worker),
            None => Server::Task(self.receive_here(port, socket.clone())?),
        };
        self.ports.add(port, socket, server);
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

    fn receive_here(
        self: &Rc<Self>,
        port: RelayPort,
        socket: Arc<UdpSocket>,
    ) -> io::Result<JoinHandle<()>> {
        let receive = udp::receive_from_peers(self.clone(), port, udp::watch(socket)?);
        Ok(tokio::task::spawn_local(receive))
    }

    /// Serves a port for another 5-tuple of its client.
    fn move_port(self: &Rc<Self>, port: RelayPort, to: FiveTuple, news: &mut News) {
        if to.transport == Transport::Udp {
            return self.ports.move_to_worker(port, to, news);
        }
        let receive = |socket| self.receive_here(port, socket);
        if let Err(error) = self.ports.move_to_control(port, news, receive) {
            tracing::warn!(%error, %port.address, "Relayed port not watched");
        }
    }

    fn forward(self: &Rc<Self>, forward: &Forward, buffer: &mut [u8], start: usize) {
        match forward {
            Forward::ToPeer {
                port,
                to,
                payload,
                dont_fragment,
            } => {
                let Some(socket) = self.ports.socket(*port) else {
                    return;
                };
                let bytes = &buffer[start + payload.start..start + payload.end];
                match dont_fragment {
                    false => self.send_datagram(&*socket, *to, bytes),
                    true => self.send_whole(*port, &socket, *to, bytes),
                }
            }
            Forward::ToMedia {
                thread,
                from,
                to,
                payload,
            } => {
                let label = Label {
                    relayed: *from,
                    media: *to,
                    segment: payload.len(),
                };
                let bytes = &buffer[start + payload.start..start + payload.end];
                let mut to_media = self.to_media.borrow_mut();
                match to_media.write(*thread, label, bytes) {
                    Ok(()) => to_media.wake(),
                    Err(_) => self.dropped.media_full.update(|count| count + 1),
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

/// What one household or machine counts as: an IPv4 address, or an IPv6 /64.
fn limited_address(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
    }
}
