//! A thread of the data path: UDP clients whose packets the kernel steers here, and their relayed
//! ports. Moves datagrams as its [`Path`] says; asks the control thread about all else.
//!
//! ```text
//! listeners ──▶ ┌────────┐ ──▶ relayed ports        control thread: requests there,
//!               │ Worker │                          what was decided back ([`Command`])
//! clients   ◀── └────────┘ ◀── relayed ports        other workers, the SFU: payloads handed over
//! ```
//!
//! The listeners of all workers share their addresses (SO_REUSEPORT), and the kernel chooses one by
//! a hash of the 5-tuple: a client's packets always reach the same worker, so what it knows of the
//! client needs no lock.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use relay_core::{
    FiveTuple, Forward, Path, PathUpdate, PeerPolicy, RelayPort, Stats, Transport, Way,
};
use tokio::sync::{mpsc, oneshot};

use crate::icmp::{self, Said};
use crate::outgoing::{Exit, Outgoing};
use crate::udp;
use sockets::burst::{Inbox, RECEIVED_MAX};
use sockets::handover::{End, Label, Receivers, Senders};
use sockets::pace::{NAP, Pace};
use sockets::thread::settle;
use sockets::wake::Waker;

/// How many sockets one call tells about.
const EVENTS_MAX: usize = 256;

/// How often a listener is asked in its turn, [`RECEIVED_MAX`] datagrams each time.
const LISTENER_TURNS_MAX: usize = 8;

/// How often a relayed port is asked in its turn: asking once more what has nothing costs more than
/// another turn for those that have.
const PORT_TURN_MAX: usize = 1;

/// How many batches of payloads may wait for a worker.
pub(crate) const HANDED_OVER_MAX: usize = 1024;

/// How much one batch may hold, in bytes.
const BATCH_LEN_MAX: usize = 256 * 1024;

/// The waker's number among the sockets that are waited for.
const WAKER: u64 = u64::MAX;

/// Listeners' numbers begin here; those below are of relayed ports.
const LISTENERS: u64 = 1 << 32;

/// What the control thread tells a worker, and workers each other.
pub(crate) enum Command {
    /// Serve this relayed port.
    Open(PathUpdate, RelayPort, Arc<UdpSocket>),
    /// Something changed for an Allocation.
    Update(PathUpdate),
    /// The relayed port is no more.
    Close(RelayPort),
    /// Another serves the relayed port.
    Leave(RelayPort),
    /// Send a response to a client.
    Send(FiveTuple, Vec<u8>),
    /// Other peers may be reached from now on.
    Peers(PeerPolicy),
    /// The SFU is reached by this from now on.
    Media(End),
    /// Tell the counters.
    Figures(oneshot::Sender<Figures>),
    /// End.
    Stop,
}

/// What a worker tells the control thread.
pub(crate) enum Event {
    /// A client sent something that is not media.
    Packet {
        worker: usize,
        from: FiveTuple,
        bytes: Vec<u8>,
    },
    /// Payloads for Allocations of the control thread.
    HandedOver(Batch),
}

/// Counters of a worker, or of all.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures {
    pub(crate) stats: Stats,
    /// Datagrams a socket refused.
    pub(crate) socket_full: u64,
    /// Payloads another thread had no room for.
    pub(crate) handed_over_full: u64,
    /// Payloads the SFU had no room for.
    pub(crate) media_full: u64,
    /// Requests the control thread had no room for.
    pub(crate) requests_full: u64,
    /// Datagrams to be kept whole that no interface takes.
    pub(crate) too_long: u64,
    /// Requests of all threads that wait for the control thread.
    pub(crate) requests_waiting: usize,
}

impl Figures {
    pub(crate) fn add(&mut self, other: &Figures) {
        self.stats += &other.stats;
        self.socket_full += other.socket_full;
        self.handed_over_full += other.handed_over_full;
        self.media_full += other.media_full;
        self.requests_full += other.requests_full;
        self.too_long += other.too_long;
        self.requests_waiting = self.requests_waiting.max(other.requests_waiting);
    }
}

/// Payloads from Allocations of one thread to those of another.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    payloads: Vec<HandedOver>,
}

/// Where a payload goes and comes from, and how long it is.
#[derive(Clone, Copy)]
struct HandedOver {
    to: SocketAddr,
    from: SocketAddr,
    len: usize,
}

impl Batch {
    /// Each payload with the relayed address it goes to, and the one or the media port it comes from.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr, &[u8])> {
        let mut rest = &self.bytes[..];
        self.payloads.iter().map(move |handed| {
            let payload;
            (payload, rest) = rest.split_at(handed.len);
            (handed.to, handed.from, payload)
        })
    }
}

/// Reaches a worker from other threads.
#[derive(Clone)]
pub(crate) struct Remote {
    commands: Sender<Vec<Command>>,
    handed_over: SyncSender<Batch>,
    waker: Arc<Waker>,
}

impl Remote {
    /// Tells the worker, which hears of it all at once, after the next [`wake`](Self::wake) at the
    /// latest.
    pub(crate) fn tell(&self, commands: Vec<Command>) {
        // A worker that has ended has closed all there was.
        self.commands.send(commands).ok();
    }

    pub(crate) fn wake(&self) {
        self.waker.call();
    }

    /// Wakes the worker, for those who leave what they have for it elsewhere.
    pub(crate) fn waker(&self) -> std::task::Waker {
        self.waker.clone().into()
    }
}

/// The other ends of a [`Remote`].
pub(crate) struct Inlets {
    commands: Receiver<Vec<Command>>,
    handed_over: Receiver<Batch>,
    waker: Arc<Waker>,
}

/// A worker to start, and how to reach it.
pub(crate) fn connect() -> anyhow::Result<(Remote, Inlets)> {
    let waker = Waker::new().context("no eventfd")?;
    let (commands, commands_in) = std::sync::mpsc::channel();
    let (handed_over, handed_over_in) = std::sync::mpsc::sync_channel(HANDED_OVER_MAX);
    let remote = Remote {
        commands,
        handed_over,
        waker: waker.clone(),
    };
    let inlets = Inlets {
        commands: commands_in,
        handed_over: handed_over_in,
        waker,
    };
    Ok((remote, inlets))
}

/// A socket the workers listen on, under the address its clients are known by.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) socket: UdpSocket,
}

/// A relayed port that is open.
struct OpenPort {
    port: RelayPort,
    /// Shared with the control thread, which keeps it for the time when the client moves.
    socket: Arc<UdpSocket>,
}

/// What the thread owns.
pub(crate) struct Worker {
    number: usize,
    path: Path,
    epoll: Epoll,
    listeners: Vec<Listener>,
    /// By [`RelayPort::index`].
    ports: Vec<Option<OpenPort>>,
    inlets: Inlets,
    control: mpsc::Sender<Event>,
    /// All workers, this one among them, by their numbers.
    workers: Vec<Remote>,
    /// What goes to each owner, by its number; the last is the control thread.
    batches: Vec<Batch>,
    to_media: Senders,
    from_media: Receivers,
    outgoing: Outgoing,
    figures: Figures,
}

impl Worker {
    /// A worker for `listeners`, which waits for its sockets from now on. `path` has the number
    /// `number` among the owners; the control thread's is that of `workers` in all.
    pub(crate) fn new(
        number: usize,
        path: Path,
        listeners: Vec<Listener>,
        inlets: Inlets,
        control: mpsc::Sender<Event>,
        workers: Vec<Remote>,
    ) -> anyhow::Result<Worker> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("no epoll")?;
        let readable = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        epoll.add(inlets.waker.event(), readable(WAKER))?;
        for (at, listener) in listeners.iter().enumerate() {
            epoll.add(&listener.socket, readable(LISTENERS + at as u64))?;
        }
        let owners = workers.len() + 1;
        Ok(Worker {
            number,
            path,
            epoll,
            listeners,
            ports: Vec::new(),
            inlets,
            control,
            workers,
            batches: (0..owners).map(|_| Batch::default()).collect(),
            to_media: Senders::default(),
            from_media: Receivers::default(),
            outgoing: Outgoing::default(),
            figures: Figures::default(),
        })
    }

    /// Serves on a thread of its own until told to stop; on `core`, where one is named.
    pub(crate) fn spawn(self, core: Option<usize>) -> io::Result<JoinHandle<()>> {
        let thread = std::thread::Builder::new().name(format!("relay-{}", self.number));
        thread.spawn(move || {
            settle(core);
            if let Err(error) = self.run() {
                tracing::error!(error = format!("{error:#}"), "Relay thread stopped");
            }
        })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let mut inbox = Inbox::new();
        let mut pace = Pace::new(Instant::now());
        loop {
            let timeout = if pace.naps() {
                EpollTimeout::ZERO
            } else {
                pace.rest();
                EpollTimeout::NONE
            };
            let ready = match self.epoll.wait(&mut events, timeout) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error).context("can't wait for sockets"),
            };
            let now = Instant::now();
            // Before anything that arrived meanwhile, which may be another's to serve by now.
            if !self.obey_commands(now) {
                return Ok(());
            }
            let mut received = 0;
            for event in &events[..ready] {
                match event.data() {
                    WAKER => {
                        let Some(handed) = self.obey(now) else {
                            return Ok(());
                        };
                        received += handed;
                    }
                    token if token >= LISTENERS => {
                        received += self.receive_from_clients(place(token), now, &mut inbox);
                    }
                    token => {
                        let happened = event.events();
                        if happened.contains(EpollFlags::EPOLLERR) {
                            self.receive_errors(place(token), now, None);
                        }
                        if happened.contains(EpollFlags::EPOLLIN) {
                            received += self.receive_from_peers(place(token), now, &mut inbox);
                        }
                    }
                }
            }
            self.flush();
            self.hand_over();
            pace.count(now, received);
            if ready == 0 && pace.naps() {
                pace.rest();
                std::thread::sleep(NAP);
            }
        }
    }

    /// Carries out what other threads ask for; returns how many datagrams the SFU had, or `None` when it is to stop.
    fn obey(&mut self, now: Instant) -> Option<usize> {
        self.inlets.waker.hear();
        if !self.obey_commands(now) {
            return None;
        }
        let received = self.receive_from_media(now)?;
        // Bounded, so that others have their turn.
        for _ in 0..HANDED_OVER_MAX {
            let Ok(batch) = self.inlets.handed_over.try_recv() else {
                return Some(received);
            };
            // Whoever handed it over knew of what was told before.
            if !self.obey_commands(now) {
                return None;
            }
            for (to, from, payload) in batch.iter() {
                let way = self.path.handle_handed_over(now, to, from, payload.len());
                self.follow(way, payload);
            }
        }
        self.inlets.waker.call();
        Some(received)
    }

    /// Takes in what the SFU has handed over, which is no more than rings hold; returns how many datagrams that was, or `None`
    /// when it is to stop.
    fn receive_from_media(&mut self, now: Instant) -> Option<usize> {
        // It may have been sent here by what was told before.
        if self.from_media.look() && !self.obey_commands(now) {
            return None;
        }
        let mut from_media = std::mem::take(&mut self.from_media);
        let mut datagrams = 0;
        from_media.read(|burst| {
            let Label { relayed, media, .. } = burst.label;
            for payload in burst.into_datagrams() {
                datagrams += 1;
                let len = payload.len();
                let way = self.path.handle_handed_over(now, relayed, media, len);
                self.follow(way, payload);
            }
        });
        self.from_media = from_media;
        Some(datagrams)
    }

    fn obey_commands(&mut self, now: Instant) -> bool {
        while let Ok(commands) = self.inlets.commands.try_recv() {
            for command in commands {
                match command {
                    Command::Open(update, port, socket) => {
                        self.path.handle_update(now, update);
                        self.open(port, socket);
                    }
                    Command::Update(update) => self.path.handle_update(now, update),
                    // Nobody else has the socket any more, and closing it ends the waiting for it.
                    Command::Close(port) => drop(self.give_up(port)),
                    Command::Leave(port) => {
                        if let Some(open) = self.give_up(port)
                            && let Err(error) = self.epoll.delete(&*open.socket)
                        {
                            tracing::warn!(%error, "Relayed port still watched");
                        }
                    }
                    Command::Send(to, bytes) => {
                        if let Some(at) = self.listener_of(to) {
                            self.put(Exit::Listener(at), to.client, &[&bytes]);
                        }
                    }
                    Command::Peers(peers) => self.path.set_peers(peers),
                    Command::Media(end) => {
                        self.to_media = end.senders;
                        self.from_media = end.receivers;
                    }
                    Command::Figures(reply) => {
                        self.figures.stats = self.path.stats().clone();
                        self.figures.requests_waiting =
                            self.control.max_capacity() - self.control.capacity();
                        reply.send(self.figures.clone()).ok(); // Whoever asked may be gone.
                    }
                    Command::Stop => return false,
                }
            }
        }
        true
    }

    fn open(&mut self, port: RelayPort, socket: Arc<UdpSocket>) {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, port.index as u64);
        if let Err(error) = self.epoll.add(&*socket, event) {
            tracing::warn!(%error, "Relayed port not watched");
        }
        if self.ports.len() <= port.index {
            self.ports.resize_with(port.index + 1, || None);
        }
        self.ports[port.index] = Some(OpenPort { port, socket });
    }

    /// Sends what waits at a relayed port and forgets the port.
    fn give_up(&mut self, port: RelayPort) -> Option<OpenPort> {
        self.flush();
        self.path.close_port(port);
        self.ports.get_mut(port.index)?.take()
    }

    /// Takes in what waits at a listener; returns how many datagrams that was.
    fn receive_from_clients(&mut self, at: usize, now: Instant, inbox: &mut Inbox) -> usize {
        let mut datagrams = 0;
        for _ in 0..LISTENER_TURNS_MAX {
            let listener = &self.listeners[at];
            let server = listener.address;
            let received = match inbox.receive(&listener.socket, RECEIVED_MAX) {
                Ok(received) => received,
                // An ICMP error about a datagram sent before; the socket itself is fine.
                Err(error) => {
                    tracing::trace!(%error, "Datagram not received");
                    break;
                }
            };
            for received in (0..received).filter_map(|at| inbox.get(at)) {
                let from = FiveTuple {
                    client: received.from,
                    server,
                    transport: Transport::Udp,
                };
                for packet in received.datagrams() {
                    datagrams += 1;
                    match self.path.handle_client_packet(now, from, packet) {
                        Way::Control => self.ask(from, packet),
                        way => self.follow(way, packet),
                    }
                }
            }
            if received < RECEIVED_MAX {
                break;
            }
        }
        datagrams
    }

    /// Takes in what waits at a relayed port; returns how many datagrams that was.
    fn receive_from_peers(&mut self, index: usize, now: Instant, inbox: &mut Inbox) -> usize {
        let Some(Some(open)) = self.ports.get(index) else {
            return 0;
        };
        let port = open.port;
        let received = match inbox.receive(&*open.socket, PORT_TURN_MAX) {
            Ok(received) => received,
            Err(error) => {
                tracing::trace!(%error, "Datagram not received");
                return 0;
            }
        };
        let mut datagrams = 0;
        for received in (0..received).filter_map(|at| inbox.get(at)) {
            for payload in received.datagrams() {
                datagrams += 1;
                let len = payload.len();
                let way = self
                    .path
                    .handle_peer_datagram(now, port, received.from, len);
                self.follow(way, payload);
            }
        }
        datagrams
    }

    /// Takes in what ICMP said at a relayed port, as far as its turn goes; with it what this
    /// machine said of the datagram to `tried` that it did not send.
    fn receive_errors(&mut self, index: usize, now: Instant, tried: Option<SocketAddr>) {
        let mut tried = tried;
        for _ in 0..icmp::TURN_MAX {
            let Some(Some(open)) = self.ports.get(index) else {
                return;
            };
            let port = open.port;
            let (peer, icmp) = match (icmp::receive(&*open.socket), tried) {
                (None, _) => return,
                (Some(Said::Icmp(peer, icmp)), _) => (peer, icmp),
                (Some(Said::TooLong(mtu)), Some(peer)) => {
                    tried = None; // Each datagram is tried twice.
                    (peer, icmp::too_long(peer, mtu))
                }
                (Some(_), _) => continue,
            };
            let way = self.path.handle_icmp(now, port, peer, icmp);
            self.follow(way, &[]);
        }
    }

    /// Sends a datagram that nobody may take apart, in its turn.
    fn send_whole(&mut self, port: RelayPort, to: SocketAddr, payload: &[u8]) {
        self.flush();
        let Some(Some(open)) = self.ports.get(port.index) else {
            return;
        };
        let Err(error) = udp::send_whole(&*open.socket, to, payload) else {
            return;
        };
        tracing::trace!(%error, "Datagram not sent whole");
        if !udp::is_too_long(&error) {
            self.figures.socket_full += 1;
            return;
        }
        self.figures.too_long += 1;
        self.receive_errors(port.index, Instant::now(), Some(to));
    }

    /// Sends a packet the way it has to go.
    fn follow(&mut self, way: Way, packet: &[u8]) {
        match way {
            Way::Forward(Forward::ToPeer {
                port,
                to,
                payload,
                dont_fragment: false,
            }) => self.put(Exit::Port(port.index), to, &[&packet[payload]]),
            Way::Forward(Forward::ToPeer {
                port, to, payload, ..
            }) => self.send_whole(port, to, &packet[payload]),
            Way::Forward(Forward::ToClient {
                to,
                prefix,
                payload,
                padding,
            }) => {
                if let Some(at) = self.listener_of(to) {
                    let padding = &[0; 3][..padding];
                    let parts = [prefix.as_bytes(), &packet[payload], padding];
                    self.put(Exit::Listener(at), to.client, &parts);
                }
            }
            Way::Forward(Forward::ToMedia {
                thread,
                from,
                to,
                payload,
            }) => {
                let label = Label {
                    relayed: from,
                    media: to,
                    segment: payload.len(),
                };
                let handed = self.to_media.write(thread, label, &packet[payload]);
                self.figures.media_full += u64::from(handed.is_err());
            }
            Way::HandOver {
                owner,
                to,
                from,
                payload,
            } => {
                let batch = &mut self.batches[owner];
                if batch.bytes.len() + payload.len() > BATCH_LEN_MAX {
                    self.figures.handed_over_full += 1;
                    return;
                }
                let len = payload.len();
                batch.payloads.push(HandedOver { to, from, len });
                batch.bytes.extend_from_slice(&packet[payload]);
            }
            Way::Control | Way::Nowhere => {}
        }
    }

    fn ask(&mut self, from: FiveTuple, packet: &[u8]) {
        let event = Event::Packet {
            worker: self.number,
            from,
            bytes: packet.to_vec(),
        };
        if self.control.try_send(event).is_err() {
            self.figures.requests_full += 1;
        }
    }

    /// The listener a client is answered from.
    fn listener_of(&self, client: FiveTuple) -> Option<usize> {
        let is_it = |listener: &Listener| listener.address == client.server;
        self.listeners.iter().position(is_it)
    }

    /// Puts a datagram with those before it, or sends them first where it doesn't fit to them.
    fn put(&mut self, exit: Exit, to: SocketAddr, parts: &[&[u8]]) {
        if !self.outgoing.add(exit, to, parts) {
            self.flush();
            self.outgoing.add(exit, to, parts);
        }
    }

    fn flush(&mut self) {
        let outgoing = &mut self.outgoing;
        let socket = match outgoing.exit() {
            Exit::Nowhere => return,
            Exit::Listener(at) => Some(&self.listeners[at].socket),
            Exit::Port(index) => {
                let open = self.ports.get(index).and_then(Option::as_ref);
                open.map(|open| &*open.socket)
            }
        };
        if let Some(socket) = socket {
            self.figures.socket_full += outgoing.send(socket);
        }
        outgoing.clear();
    }

    /// Gives what was collected for other threads to them.
    fn hand_over(&mut self) {
        self.to_media.wake();
        for (owner, batch) in self.batches.iter_mut().enumerate() {
            if batch.payloads.is_empty() {
                continue;
            }
            let count = batch.payloads.len() as u64;
            let batch = std::mem::take(batch);
            let refused = match self.workers.get(owner) {
                Some(worker) => {
                    let sent = worker.handed_over.try_send(batch);
                    worker.wake();
                    matches!(sent, Err(TrySendError::Full(_)))
                }
                None => self.control.try_send(Event::HandedOver(batch)).is_err(),
            };
            if refused {
                self.figures.handed_over_full += count;
            }
        }
    }
}

/// A listener's place, or the [`RelayPort::index`], in a socket's number.
fn place(token: u64) -> usize {
    (token % LISTENERS) as usize
}
