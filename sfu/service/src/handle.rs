//! Starts the SFU's threads, and talks to them.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use model::id::RoomId;
use model::media::{MediaCommand, MediaEvent};
use model::plain::{Attach, End, NoSeat, Seat};
use rand::SeedableRng;
use rand::rngs::{StdRng, SysRng};
use sockets::burst;
use sockets::handover::{self, OwnerOf};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::doors::Doors;
use crate::exit::Exit;
use crate::figures::Figures;
use crate::outbox::Outbox;
use crate::peer::Identity;
use crate::plain::Ask;
use crate::rooms::Rooms;
use crate::shard::{Command, Shard, StreamEvent};
use crate::shared::Shared;
use crate::waker::{self, Remote};
use crate::{stream, udp};

/// How many commands may wait for a shard.
const COMMANDS_MAX: usize = 1024;

/// How many datagrams of streams may wait for a shard.
const STREAM_EVENTS_MAX: usize = 4096;

/// How many questions may wait for the control thread.
const QUESTIONS_MAX: usize = 64;

/// How long somebody waits for a plain Participant to join.
const ATTACH_MAX: Duration = Duration::from_secs(10);

/// How often figures are published.
const FIGURES_INTERVAL: Duration = Duration::from_secs(1);

/// What the SFU needs of the server.
#[derive(Debug)]
pub struct Start {
    /// What signaling asks for.
    pub commands: mpsc::Receiver<MediaCommand>,
    /// What signaling is told.
    pub events: mpsc::Sender<MediaEvent>,
}

/// The SFU as the server starts it.
#[derive(Debug)]
pub struct Sfu;

impl Sfu {
    /// Binds every port of `config` and serves them from threads of its own, which need no runtime of the caller's.
    ///
    /// # Errors
    ///
    /// A setting that is wrong, or a port that can't be bound. IPv6 loopback is the exception: where this machine has none it is
    /// left out with a warning.
    pub fn start(config: &Config, start: Start) -> anyhow::Result<Handle> {
        config.validate()?;
        let cores = sockets::thread::cores();
        let threads = match config.threads {
            0 => cores.len().max(1),
            threads => threads,
        };
        let sockets = bind(config, threads)?;
        let addresses: Vec<SocketAddr> = sockets
            .iter()
            .flatten()
            .map(|(address, _)| *address)
            .collect();
        let ports_of = |(number, sockets): (usize, &Vec<(SocketAddr, UdpSocket)>)| {
            let told = sockets.iter().map(|(address, _)| config.public(*address));
            told.map(|address| (address, number)).collect::<Vec<_>>()
        };
        let media_ports = sockets.iter().enumerate().flat_map(ports_of).collect();
        let identity = Identity::new()?;
        let shared = Arc::new(Shared::default());
        let config = Arc::new(config.clone());
        let mut streams = Vec::new();
        let mut rng = StdRng::try_from_rng(&mut SysRng).context("no entropy from the system")?;
        let mut crew = Crew {
            shards: Vec::new(),
            threads: Vec::new(),
        };
        for (number, sockets) in sockets.into_iter().enumerate() {
            let (remote, inlet) = waker::connect(COMMANDS_MAX).context("no eventfd")?;
            let sockets = sockets.into_iter();
            let doors = sockets.map(|(local, socket)| (socket, config.public(local)));
            let exit = Exit::new(Doors::new(doors.collect()));
            let outbox = Outbox::new(start.events.clone());
            let (config, shared) = (config.clone(), shared.clone());
            let rooms = Rooms::new(
                number,
                Instant::now(),
                config,
                shared,
                identity.clone(),
                exit,
                outbox,
                rng.fork(),
            );
            let (stream_remote, stream_events) = remote.beside(STREAM_EVENTS_MAX);
            streams.push(stream_remote);
            let shard = Shard::new(number, inlet, stream_events, rooms)?;
            // More threads than cores have no place of their own.
            let core = cores.get(number).filter(|_| threads <= cores.len());
            crew.threads.push(shard.spawn(core.copied())?);
            crew.shards.push(remote);
        }

        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let stopping = CancellationToken::new();
        let stopped = CancellationToken::new();
        let guard = stopped.clone().drop_guard();
        let shards = crew.shards.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let control = Control {
            crew,
            commands: start.commands,
            asked,
            stopping: stopping.clone(),
        };
        thread::Builder::new()
            .name("sfu".to_owned())
            .spawn(move || {
                let _guard = guard;
                runtime.block_on(control.run());
            })?;
        Ok(Handle {
            questions,
            stopping,
            stopped,
            shared,
            addresses,
            media_ports,
            streams,
            shards,
        })
    }
}

/// Talks to a running SFU. Cheap to clone; the SFU runs on when all clones are gone.
#[derive(Debug, Clone)]
pub struct Handle {
    questions: mpsc::Sender<oneshot::Sender<Figures>>,
    stopping: CancellationToken,
    stopped: CancellationToken,
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    media_ports: BTreeMap<SocketAddr, usize>,
    streams: Vec<Remote<StreamEvent>>,
    shards: Vec<Remote<Command>>,
}

impl Handle {
    /// The end of a Participant who joined by [`JoinPlain`](model::media::MediaCommandKind::JoinPlain), or does within ten seconds. To be
    /// awaited in a runtime with timers.
    ///
    /// # Errors
    ///
    /// [`NoSeat`]: nobody joined so, or somebody else has their end.
    pub async fn attach(&self, seat: Seat) -> Result<End, NoSeat> {
        let shard = &self.shards[shard_of(seat.room, self.shards.len())];
        let (reply, answer) = oneshot::channel();
        if shard
            .try_send(Command::Attach(Ask { seat, reply }))
            .is_err()
        {
            return Err(match self.stopped.is_cancelled() {
                true => NoSeat::Ended,
                false => NoSeat::Busy,
            });
        }
        match tokio::time::timeout(ATTACH_MAX, answer).await {
            Ok(answer) => answer.unwrap_or(Err(NoSeat::Ended)),
            Err(_) => Err(NoSeat::Unknown),
        }
    }

    /// The same for a role that knows nothing of an SFU.
    #[must_use]
    pub fn attacher(&self) -> Attach {
        let handle = self.clone();
        Arc::new(move |seat| {
            let handle = handle.clone();
            Box::pin(async move { handle.attach(seat).await })
        })
    }

    /// The addresses media comes in at, of one shard after the other; a port that was 0 is filled in.
    #[must_use]
    pub fn udp_addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The same as clients are told them, those of `sfu.public_ips` where that is set, with the thread that serves each, by its place
    /// among the [`wakers`](Self::wakers): to whom the relay of this process hands over what its clients send there.
    #[must_use]
    pub fn media_ports(&self) -> BTreeMap<SocketAddr, usize> {
        self.media_ports.clone()
    }

    /// What wakes each thread that serves Rooms, in their order.
    #[must_use]
    pub fn wakers(&self) -> Vec<Waker> {
        self.shards.iter().map(Remote::waker).collect()
    }

    /// Takes what the relay of this process hands over by `ends`, one for each of [`wakers`](Self::wakers), for datagrams of its
    /// clients, and hands over what is for them: each to the thread of the relay that `owner_of` names.
    pub fn connect_relay(&self, ends: Vec<handover::End>, owner_of: &OwnerOf) {
        for (shard, end) in self.shards.iter().zip(ends) {
            // One that has ended takes nothing any more.
            shard.send(Command::Relay(end, owner_of.clone())).ok();
        }
    }

    /// A snapshot of the counters of all shards; all zero once the SFU has ended.
    pub async fn figures(&self) -> Figures {
        let (reply, answer) = oneshot::channel();
        if self.questions.send(reply).await.is_err() {
            return Figures::default();
        }
        answer.await.unwrap_or_default()
    }

    /// Says at which TCP addresses streams come in that are handed over by [`serve_stream`](Self::serve_stream), as the internet sees
    /// them. Participants who join from now on are told, unless `sfu.tcp` is off.
    pub fn set_tcp_addresses(&self, addresses: Vec<SocketAddr>) {
        self.shared.set_tcp_addresses(addresses);
    }

    /// Serves a client that came over TCP (ICE-TCP, RFC 6544) until the stream ends. `already_read` is what was read from it so far:
    /// a STUN request behind a length of 16 bits (RFC 4571 §2). A stream for nobody here ends at once.
    pub async fn serve_stream(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        already_read: Bytes,
        client: SocketAddr,
    ) {
        let shard_of = |ufrag: &str| self.streams.get(self.shared.shard_of(ufrag)?).cloned();
        stream::serve(stream, already_read, client, shard_of).await;
    }

    /// Begins or ends draining: Rooms that live go on and take Participants, new ones are refused.
    pub fn set_draining(&self, draining: bool) {
        self.shared.is_draining.store(draining, Ordering::Relaxed);
    }

    /// Ends the SFU with all Rooms, and waits until its sockets are closed.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        self.stopped.cancelled().await;
    }

    /// Waits until the SFU has ended, by [`shutdown`](Self::shutdown) or by an error it logged.
    pub async fn stopped(&self) {
        self.stopped.cancelled().await;
    }
}

/// The shards' threads; they end when this is dropped.
struct Crew {
    shards: Vec<Remote<Command>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Drop for Crew {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.send(Command::Stop).ok(); // It may have ended with an error.
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("SFU thread panicked");
            }
        }
    }
}

/// The control thread: leads commands to shards and figures out of them.
struct Control {
    crew: Crew,
    commands: mpsc::Receiver<MediaCommand>,
    asked: mpsc::Receiver<oneshot::Sender<Figures>>,
    stopping: CancellationToken,
}

impl Control {
    async fn run(mut self) {
        let mut publishing = tokio::time::interval(FIGURES_INTERVAL);
        let (mut has_signaling, mut has_handles) = (true, true);
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                command = self.commands.recv(), if has_signaling => match command {
                    // Waits for room: then signaling's own channel fills up, and signaling knows.
                    Some(command) => {
                        let shard = &self.crew.shards[shard_of(command.room, self.crew.shards.len())];
                        if shard.send(Command::Media(command)).is_err() {
                            tracing::error!("SFU thread has ended, SFU stopped");
                            return;
                        }
                    }
                    None => has_signaling = false, // Serve on.
                },
                asked = self.asked.recv(), if has_handles => match asked {
                    Some(reply) => { reply.send(self.figures().await).ok(); } // Whoever asked may be gone.
                    None => has_handles = false,
                },
                _ = publishing.tick() => self.figures().await.publish(),
            }
        }
    }

    async fn figures(&self) -> Figures {
        let mut all = Figures::default();
        for shard in &self.crew.shards {
            let (reply, answer) = oneshot::channel();
            if shard.try_send(Command::Figures(reply)).is_ok()
                && let Ok(figures) = answer.await
            {
                all.add(&figures);
            }
        }
        all
    }
}

/// The shard of a Room.
fn shard_of(room: RoomId, shards: usize) -> usize {
    // The upper bits are the time it was made at, the lower ones random.
    let random = room.as_u128() & u128::from(u64::MAX);
    usize::try_from(random % shards.max(1) as u128).unwrap_or(0)
}

/// The sockets of each shard, with their addresses.
fn bind(config: &Config, threads: usize) -> anyhow::Result<Vec<Vec<(SocketAddr, UdpSocket)>>> {
    let mut shards = Vec::new();
    for number in 0..threads {
        let port = match config.port {
            0 => 0,
            first => u16::try_from(usize::from(first) + number)
                .context("`sfu.port` leaves no port for each thread")?,
        };
        let mut sockets = Vec::new();
        for ip in &config.listen_ips {
            let address = SocketAddr::new(*ip, port);
            match udp::bind(address) {
                Ok(socket) => {
                    burst::receive_bursts(&socket);
                    sockets.push((socket.local_addr()?, socket));
                }
                // The default names [::1], which a container without IPv6 does not have.
                Err(error) if is_missing_loopback(address, &error) => {
                    tracing::warn!(%error, "No IPv6 loopback here, left out");
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("can't listen on UDP {address}"));
                }
            }
        }
        ensure!(
            !sockets.is_empty(),
            "`sfu.listen_ips` names no address of this machine"
        );
        shards.push(sockets);
    }
    Ok(shards)
}

fn is_missing_loopback(address: SocketAddr, error: &io::Error) -> bool {
    let missing = error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT);
    missing && address.is_ipv6() && address.ip().is_loopback()
}
