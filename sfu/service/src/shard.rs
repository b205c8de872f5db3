//! A thread of the SFU: some Rooms, and a UDP port through which all their media goes. Moves datagrams and time; [`Rooms`] decides.
//!
//! ```text
//! commands ──▶ ┌───────┐ ──▶ events
//! datagrams ─▶ │ Shard │ ──▶ datagrams
//! time ──────▶ └───────┘
//! ```

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use model::media::MediaCommand;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use sockets::burst::{Inbox, RECEIVED_MAX};
use sockets::handover::{End, Label, OwnerOf, Receivers};
use sockets::pace::{NAP, Pace};
use sockets::thread::settle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::doors::Relay;
use crate::figures::{Drop, Figures};
use crate::outgoing::Way;
use crate::plain::Ask;
use crate::rooms::Rooms;
use crate::waker::Inlet;

/// How many sockets one call tells about.
const EVENTS_MAX: usize = 16;

/// How often a socket is asked in its turn, [`RECEIVED_MAX`] bursts each time.
const SOCKET_TURNS_MAX: usize = 8;

/// How many commands are carried out in a turn: an offer takes a millisecond, and media doesn't wait for many.
const COMMANDS_PER_TURN_MAX: usize = 4;

/// How many datagrams of streams are taken in in a turn.
const STREAM_EVENTS_PER_TURN_MAX: usize = 256;

/// How soon events are tried again that signaling had no room for.
const OUTBOX_INTERVAL: Duration = Duration::from_millis(10);

/// The waker's number among the sockets that are waited for.
const WAKER: u64 = u64::MAX;

/// What a shard is told.
pub(crate) enum Command {
    /// Signaling's word.
    Media(MediaCommand),
    /// Hand the end of a plain Participant over.
    Attach(Ask),
    /// Reach clients of the relay by this from now on.
    Relay(End, OwnerOf),
    /// Tell the counters.
    Figures(oneshot::Sender<Figures>),
    /// End.
    Stop,
}

/// What a stream has to tell its shard.
pub(crate) enum StreamEvent {
    /// It is there.
    Open {
        client: SocketAddr,
        /// Where its datagrams go.
        outgoing: mpsc::Sender<Vec<u8>>,
        /// Gets its number.
        number: oneshot::Sender<usize>,
    },
    /// A datagram came by it.
    Datagram {
        number: usize,
        /// Numbers are given anew, and the stream may have been let go meanwhile.
        client: SocketAddr,
        bytes: Vec<u8>,
        /// The next may come when this one was heard.
        _permit: OwnedSemaphorePermit,
    },
    /// It has ended.
    Close { number: usize, client: SocketAddr },
}

/// What the thread owns.
pub(crate) struct Shard {
    number: usize,
    epoll: Epoll,
    inlet: Inlet<Command>,
    streams: Receiver<StreamEvent>,
    /// What the relay hands over.
    relayed: Receivers,
    rooms: Rooms,
    /// Datagrams of this turn.
    received: usize,
}

impl Shard {
    /// A shard that waits for its sockets from now on.
    ///
    /// # Errors
    ///
    /// The system can't watch them.
    pub(crate) fn new(
        number: usize,
        inlet: Inlet<Command>,
        streams: Receiver<StreamEvent>,
        mut rooms: Rooms,
    ) -> anyhow::Result<Self> {
        rooms.plain_waker = inlet.waker();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("no epoll")?;
        let readable = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        epoll.add(inlet.event(), readable(WAKER))?;
        for (at, socket) in (0..).zip(rooms.exit.sockets()) {
            epoll.add(socket, readable(at))?;
        }
        Ok(Self {
            number,
            epoll,
            inlet,
            streams,
            relayed: Receivers::default(),
            rooms,
            received: 0,
        })
    }

    /// Serves on a thread of its own until told to stop; on `core`, where one is named.
    pub(crate) fn spawn(self, core: Option<usize>) -> io::Result<JoinHandle<()>> {
        let thread = std::thread::Builder::new().name(format!("sfu-{}", self.number));
        thread.spawn(move || {
            settle(core);
            if let Err(error) = self.run() {
                tracing::error!(error = format!("{error:#}"), "SFU thread stopped");
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
                self.timeout(Instant::now())
            };
            let ready = match self.epoll.wait(&mut events, timeout) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error).context("can't wait for sockets"),
            };
            // One time for all that happens in a turn.
            let now = Instant::now();
            // A fault of ours ends the Room it happened in, and no other.
            let turn = AssertUnwindSafe(|| self.turn(now, &events[..ready], &mut inbox));
            match catch_unwind(turn) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(_) => {
                    self.rooms.recover(now);
                    // What was left undone has its turn.
                    self.inlet.ring();
                }
            }
            pace.count(now, std::mem::take(&mut self.received));
            self.rooms.figures.turns += 1;
            self.rooms.figures.busy_micros += u64::try_from(now.elapsed().as_micros()).unwrap_or(0);
            // Under load what comes in the meantime is found at once, and leaves in fewer calls.
            if ready == 0 && pace.naps() {
                pace.rest();
                std::thread::sleep(NAP);
            }
        }
    }

    /// Does all there is to do; `false` when told to stop.
    fn turn(&mut self, now: Instant, events: &[EpollEvent], inbox: &mut Inbox) -> bool {
        for event in events {
            match event.data() {
                WAKER => {
                    if !self.obey(now) {
                        return false;
                    }
                }
                token => self.receive(usize::try_from(token).unwrap_or(usize::MAX), now, inbox),
            }
        }
        self.rooms.handle_timeouts(now);
        self.rooms.finish_turn(now);
        true
    }

    /// How long to wait for a socket.
    fn timeout(&mut self, now: Instant) -> EpollTimeout {
        let outbox = (!self.rooms.outbox.flush()).then(|| now + OUTBOX_INTERVAL);
        let next = [self.rooms.timers.next(), outbox]
            .into_iter()
            .flatten()
            .min();
        let Some(at) = next else {
            return EpollTimeout::NONE;
        };
        // Up to the next millisecond, so as not to wake up before it is time.
        let wait = at.saturating_duration_since(now) + Duration::from_micros(999);
        EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::MAX)
    }

    /// Takes in what waits at a socket.
    fn receive(&mut self, at: usize, now: Instant, inbox: &mut Inbox) {
        for _ in 0..SOCKET_TURNS_MAX {
            let Some(socket) = self.rooms.exit.sockets().get(at) else {
                return;
            };
            let received = match inbox.receive(socket, RECEIVED_MAX) {
                Ok(received) => received,
                // An ICMP error about a datagram sent before; the socket itself is fine.
                Err(error) => {
                    tracing::trace!(%error, "Datagram not received");
                    return;
                }
            };
            for place in 0..received {
                let Some(received) = inbox.get_mut(place) else {
                    continue;
                };
                let way = Way {
                    socket: at,
                    to: received.from,
                };
                for datagram in received.bytes.chunks_mut(received.segment) {
                    self.received += 1;
                    self.rooms.handle_datagram(now, way, datagram);
                }
            }
            if received < RECEIVED_MAX {
                return;
            }
        }
    }

    /// Takes in what the relay has handed over, which is no more than rings hold.
    fn receive_relayed(&mut self, now: Instant) {
        self.relayed.look();
        let (rooms, received) = (&mut self.rooms, &mut self.received);
        self.relayed.read(|burst| {
            let Label { media, relayed, .. } = burst.label;
            let way = rooms.exit.way_of_relayed(media, relayed);
            for datagram in burst.into_datagrams() {
                *received += 1;
                rooms.figures.relayed_in += 1;
                match way {
                    Some(way) => rooms.handle_datagram(now, way, datagram),
                    None => rooms.figures.drop_packet(Drop::Stranger),
                }
            }
        });
    }

    /// Takes in what waits at streams, as far as its turn goes.
    fn receive_from_streams(&mut self, now: Instant) {
        for _ in 0..STREAM_EVENTS_PER_TURN_MAX {
            match self.streams.try_recv() {
                Ok(StreamEvent::Open {
                    client,
                    outgoing,
                    number,
                }) => {
                    // Whoever does not hear its number has gone.
                    if let Some(at) = self.rooms.exit.open_stream(client, outgoing)
                        && number.send(at).is_err()
                    {
                        self.rooms.close_stream(at);
                    }
                }
                Ok(StreamEvent::Datagram {
                    number,
                    client,
                    mut bytes,
                    ..
                }) => {
                    if let Some(way) = self.way_of_stream(number, client) {
                        self.rooms.handle_datagram(now, way, &mut bytes);
                        // Its first datagram has to prove whose it is.
                        if !self.rooms.participant_by_way.contains_key(&way) {
                            self.rooms.close_stream(number);
                        }
                    }
                }
                Ok(StreamEvent::Close { number, client }) => {
                    if self.way_of_stream(number, client).is_some() {
                        self.rooms.close_stream(number);
                    }
                }
                Err(_) => return,
            }
        }
        self.inlet.ring();
    }

    /// The way over the stream of a client, while it is there.
    fn way_of_stream(&self, number: usize, client: SocketAddr) -> Option<Way> {
        let way = self.rooms.exit.way_of_stream(number);
        way.filter(|way| way.to == client)
    }

    /// Carries out what other threads ask for; `false` when that is to stop.
    fn obey(&mut self, now: Instant) -> bool {
        self.inlet.hear();
        self.receive_relayed(now);
        self.receive_from_streams(now);
        self.rooms.receive_plain(now);
        for _ in 0..COMMANDS_PER_TURN_MAX {
            match self.inlet.receive() {
                Some(Command::Media(command)) => self.rooms.handle_command(now, command),
                Some(Command::Attach(ask)) => self.rooms.attach(now, ask),
                Some(Command::Relay(End { senders, receivers }, owner_of)) => {
                    self.relayed = receivers;
                    let relay = Relay { senders, owner_of };
                    self.rooms.exit.connect_relay(relay);
                }
                Some(Command::Figures(reply)) => {
                    self.rooms.take_stock();
                    reply.send(self.rooms.figures.clone()).ok(); // Whoever asked may be gone.
                }
                Some(Command::Stop) => return false,
                None => return true,
            }
        }
        self.inlet.ring();
        true
    }
}
