//! Starts the relay's threads, and talks to them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::{StdRng, SysRng};
use relay_core::{Credentials, FiveTuple, Owners, Path, Refusal, Stats, Transport, UsageByAccount};
use sockets::burst;
use sockets::handover::{End, OwnerOf};
use sockets::wake::Waker;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio_rustls::{TlsAcceptor, rustls};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Settings};
use crate::dtls::{self, Certificates};
use crate::shard::Shard;
use crate::stream::{Accepted, accept_all, serve};
use crate::worker::{self, Command as WorkerCommand, Event, Listener, Remote, Worker};
use crate::{metrics, udp, xdp};

/// How many streams may wait for the relay's thread to take them.
const COMMANDS_MAX: usize = 1024;

/// How many requests of UDP clients may wait for the control thread.
const EVENTS_MAX: usize = 4096;

/// How often the log says that there are no ports left.
const EXHAUSTED_SAID: Duration = Duration::from_secs(60);

/// How often figures are published and the clock is compared.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// The timer's sleep while no Allocation lives.
const TIMER_IDLE: Duration = Duration::from_secs(3600);

/// How a stream given to [`Handle::accept_stream`] travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamTransport {
    /// TCP.
    Tcp,
    /// TLS, which the caller has taken off.
    Tls,
}

/// The relay as the server starts it.
#[derive(Debug)]
pub struct Relay;

impl Relay {
    /// Binds every address of `config` and serves them from threads of its own, which need no
    /// runtime of the caller's. `tls` is needed where `listen_tls` names an address, `dtls` where
    /// `listen_dtls` does.
    ///
    /// # Errors
    ///
    /// A setting that is wrong, an address that can't be bound, or no XDP where it is `on`. IPv6 loopback is the exception:
    /// where this machine has none it is left out with a warning.
    pub fn start(
        config: &Config,
        credentials: Credentials,
        tls: Option<Arc<rustls::ServerConfig>>,
        dtls: Option<Certificates>,
    ) -> anyhow::Result<Handle> {
        let settings = config.settings()?;
        if !config.listen_tls.is_empty() && tls.is_none() {
            anyhow::bail!("`listen_tls` names an address and there is no certificate");
        }
        if !config.listen_dtls.is_empty() {
            dtls::check(dtls.as_ref()).context("`listen_dtls` names an address")?;
        }
        let cores = sockets::thread::cores();
        let threads = match config.threads {
            0 => cores.len().max(1),
            threads => threads,
        };
        let mut sockets = Sockets::bind(config, threads)?;
        let addresses = sockets.addresses()?;
        let offload = xdp::start(settings.xdp.as_ref(), Instant::now())?;
        let mut rng = StdRng::try_from_rng(&mut SysRng).context("no entropy from the system")?;

        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (events, requests) = mpsc::channel(EVENTS_MAX);
        let stopping = CancellationToken::new();
        let stopped = CancellationToken::new();
        let guard = stopped.clone().drop_guard();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;

        let owners = Arc::new(Owners::new(&settings.core.addresses));
        let path_rngs: Vec<_> = (0..threads).map(|_| rng.fork()).collect();
        let unix_now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let relay = relay_core::Relay::new(
            settings.core.clone(),
            settings.complete(credentials),
            rng,
            Instant::now(),
            unix_now,
        );
        let (workers, inlets): (Vec<Remote>, Vec<_>) = (0..threads)
            .map(|_| worker::connect())
            .collect::<anyhow::Result<Vec<_>>>()?
            .into_iter()
            .unzip();
        let mut crew = Crew {
            remotes: workers.clone(),
            threads: Vec::new(),
        };
        for (number, (inlets, rng)) in inlets.into_iter().zip(path_rngs).enumerate() {
            let path = Path::new(number, owners.clone(), relay.peers().clone(), rng);
            let listeners = sockets.udp_of_worker()?;
            let (events, workers) = (events.clone(), workers.clone());
            let worker = Worker::new(number, path, listeners, inlets, events, workers)?;
            // More threads than cores have no place of their own.
            let core = cores.get(number).filter(|_| threads <= cores.len());
            crew.threads.push(worker.spawn(core.copied())?);
        }

        let waker = Waker::new().context("no eventfd")?;
        let wakers = workers.iter().map(Remote::waker);
        let wakers = wakers.chain([waker.clone().into()]).collect();
        let udp_listeners = std::mem::take(&mut sockets.udp_control);
        let left_behind = Arc::new(Mutex::new(UsageByAccount::new()));
        let left = left_behind.clone();
        let control = Control {
            sockets,
            tls,
            dtls,
            inbox,
            requests,
            waker,
            stopping: stopping.clone(),
        };
        let owned = owners.clone();
        thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || {
                let _guard = guard;
                let shard = Shard::new(settings, relay, workers, udp_listeners, owners, offload);
                let shard = Rc::new(shard);
                let served = LocalSet::new().block_on(&runtime, run(shard.clone(), control));
                if let Err(error) = served {
                    tracing::error!(error = format!("{error:#}"), "Relay stopped");
                }
                drop(crew);
                // Nobody relays any more.
                *left.lock().unwrap_or_else(PoisonError::into_inner) = shard.take_usage();
            })?;
        Ok(Handle {
            commands,
            stopping,
            stopped,
            left: left_behind,
            addresses,
            wakers,
            owners: owned,
        })
    }
}

/// Talks to a running relay. Cheap to clone; the relay runs on when all clones are gone.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    stopping: CancellationToken,
    stopped: CancellationToken,
    /// What the relay leaves behind of usage when it ends.
    left: Arc<Mutex<UsageByAccount>>,
    addresses: Addresses,
    /// Of each worker, and then of the control thread.
    wakers: Vec<std::task::Waker>,
    owners: Arc<Owners>,
}

/// The addresses in use, in the order of the settings; a port that was 0 is filled in.
#[derive(Debug, Clone, Default)]
struct Addresses {
    udp: Vec<SocketAddr>,
    tcp: Vec<SocketAddr>,
    tls: Vec<SocketAddr>,
    dtls: Vec<SocketAddr>,
}

/// Tells whoever asked that what it asked for holds.
type Done = oneshot::Sender<()>;

enum Command {
    Accept(Accepted),
    Stats(oneshot::Sender<Stats>),
    Usage(oneshot::Sender<UsageByAccount>),
    Credentials(Credentials, Done),
    Reconfigure(Box<Settings>, Credentials, Done),
    PublicIps(Vec<IpAddr>, oneshot::Sender<Vec<IpAddr>>),
    Media(Vec<End>, BTreeMap<SocketAddr, usize>, Done),
    Draining(bool, Done),
}

impl Handle {
    /// Serves a TURN client that came in through a port the server shares with others. `client`
    /// and `server` are the stream's two ends, `already_read` is what was read from it so far. The
    /// stream is closed at once where the relay has too many.
    pub fn accept_stream(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        already_read: Bytes,
        client: SocketAddr,
        server: SocketAddr,
        transport: StreamTransport,
    ) {
        let transport = match transport {
            StreamTransport::Tcp => Transport::Tcp,
            StreamTransport::Tls => Transport::Tls,
        };
        let five_tuple = FiveTuple {
            client,
            server,
            transport,
        };
        let accepted = Accepted {
            stream: Box::new(stream),
            already_read,
            five_tuple,
        };
        if self.commands.try_send(Command::Accept(accepted)).is_err() {
            tracing::debug!("TURN stream refused: the relay is busy or has ended");
        }
    }

    /// A snapshot of the counters; all zero once the relay has ended.
    pub async fn stats(&self) -> Stats {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Stats(reply)).await.is_err() {
            return Stats::default();
        }
        answer.await.unwrap_or_default()
    }

    /// Takes what each Account has relayed since the last call; once the relay has ended, what it
    /// left behind. Whoever takes it keeps it: it is told once.
    pub async fn take_usage(&self) -> UsageByAccount {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Usage(reply)).await.is_ok()
            && let Ok(usage) = answer.await
        {
            return usage;
        }
        self.stopped.cancelled().await;
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *left)
    }

    /// Puts other secrets in place of those in use, static users stay. Allocations live on; a password made with a
    /// secret that is gone makes no new one.
    pub async fn set_credentials(&self, credentials: Credentials) {
        let told = self.tell(|done| Command::Credentials(credentials, done));
        told.await.ok(); // Without a relay there is nobody to authenticate.
    }

    /// Puts `config` and `credentials` in place of those in use, without an end to any Allocation
    /// or stream. A peer that is denied now is cut off at once, other limits bound what comes.
    ///
    /// What is bound to sockets, threads and keys stays as it was: every `listen_…`, `threads`,
    /// `relay_ips`, `public_ips`, `port_min`, `port_max` and `realm`.
    ///
    /// # Errors
    ///
    /// A setting that is wrong; then nothing changes.
    pub async fn reconfigure(
        &self,
        config: &Config,
        credentials: Credentials,
    ) -> anyhow::Result<()> {
        let settings = Box::new(config.settings()?);
        self.tell(|done| Command::Reconfigure(settings, credentials, done))
            .await
    }

    /// Relays on `ips` from now on, as the internet sees the addresses of `relay_ips`: new Allocations get them, and those that live
    /// keep what they were told.
    ///
    /// # Errors
    ///
    /// The relay has ended, or can't have one of them: its family is not relayed, or there were too many before it. The others hold.
    pub async fn set_public_ips(&self, ips: Vec<IpAddr>) -> anyhow::Result<()> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::PublicIps(ips, reply)).await;
        sent.ok().context("the relay has ended")?;
        let unknown = answer.await.context("the relay has ended")?;
        ensure!(unknown.is_empty(), "can't relay on {unknown:?}");
        Ok(())
    }

    /// Lets clients reach `media` as peers, though they are addresses of this server, and whatever the lists of peers say: the UDP
    /// ports at which the SFU of this process takes media, as clients are told them, and its thread that serves each. What is sent
    /// there is handed over in memory by `ends`, one for each of [`wakers`](Self::wakers), and so are the answers; nothing of it
    /// touches a network.
    pub async fn connect_media(&self, ends: Vec<End>, media: BTreeMap<SocketAddr, usize>) {
        let told = self.tell(|done| Command::Media(ends, media, done));
        told.await.ok(); // Without a relay nobody is relayed.
    }

    /// What wakes each thread that hands payloads over, in their order.
    #[must_use]
    pub fn wakers(&self) -> &[std::task::Waker] {
        &self.wakers
    }

    /// Tells which of those threads an Allocation is with, to whom what is for its client may be handed.
    #[must_use]
    pub fn owner_of(&self) -> OwnerOf {
        let owners = self.owners.clone();
        Arc::new(move |relayed| owners.get(relayed))
    }

    /// Has something changed, and waits until it holds.
    async fn tell(&self, command: impl FnOnce(Done) -> Command) -> anyhow::Result<()> {
        let (done, holds) = oneshot::channel();
        let sent = self.commands.send(command(done)).await;
        sent.ok().context("the relay has ended")?;
        holds.await.context("the relay has ended")
    }

    /// Begins or ends draining: Allocations live on, new ones are sent to `alternate_servers`, or
    /// refused where there is none.
    pub async fn set_draining(&self, draining: bool) {
        let told = self.tell(|done| Command::Draining(draining, done));
        told.await.ok(); // Without a relay there is nobody to send away.
    }

    /// The UDP addresses in use, in the order of `listen_udp`.
    #[must_use]
    pub fn udp_addresses(&self) -> &[SocketAddr] {
        &self.addresses.udp
    }

    /// The TCP addresses in use, in the order of `listen_tcp`.
    #[must_use]
    pub fn tcp_addresses(&self) -> &[SocketAddr] {
        &self.addresses.tcp
    }

    /// The TLS addresses in use, in the order of `listen_tls`.
    #[must_use]
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.addresses.tls
    }

    /// The DTLS addresses in use, in the order of `listen_dtls`.
    #[must_use]
    pub fn dtls_addresses(&self) -> &[SocketAddr] {
        &self.addresses.dtls
    }

    /// Ends the relay with all Allocations, and waits until its sockets are closed.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        self.stopped.cancelled().await;
    }

    /// Waits until the relay has ended, by [`shutdown`](Self::shutdown) or by an error it logged.
    pub async fn stopped(&self) {
        self.stopped.cancelled().await;
    }
}

/// The workers' threads; they end when this is dropped.
struct Crew {
    remotes: Vec<Remote>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Drop for Crew {
    fn drop(&mut self) {
        for remote in &self.remotes {
            remote.tell(vec![WorkerCommand::Stop]);
            remote.wake();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("Relay thread panicked");
            }
        }
    }
}

/// Sockets bound but not yet watched, so that a wrong address is the caller's error.
struct Sockets {
    /// For each address a socket for every worker not yet started.
    udp: Vec<Vec<std::net::UdpSocket>>,
    /// For each address one more handle of a socket, to send from.
    udp_control: Vec<Listener>,
    tcp: Vec<std::net::TcpListener>,
    tls: Vec<std::net::TcpListener>,
    dtls: Vec<std::net::UdpSocket>,
}

impl Sockets {
    fn bind(config: &Config, threads: usize) -> anyhow::Result<Sockets> {
        let udp = |address| udp::bind_group(address, threads);
        let udp = bind_each(&config.listen_udp, "UDP", udp)?;
        let handle = |group: &Vec<std::net::UdpSocket>| -> io::Result<Listener> {
            Ok(Listener {
                address: group[0].local_addr()?,
                socket: group[0].try_clone()?,
            })
        };
        Ok(Sockets {
            udp_control: udp.iter().map(handle).collect::<io::Result<_>>()?,
            udp,
            tcp: bind_each(&config.listen_tcp, "TCP", listen)?,
            tls: bind_each(&config.listen_tls, "TCP", listen)?,
            dtls: bind_each(&config.listen_dtls, "UDP", |address| {
                udp::bind(address, Some(udp::LISTENER_BUFFER_BYTES), false)
            })?,
        })
    }

    /// A socket of each address, for one worker.
    fn udp_of_worker(&mut self) -> io::Result<Vec<Listener>> {
        let mut listeners = Vec::new();
        for group in &mut self.udp {
            if let Some(socket) = group.pop() {
                burst::receive_bursts(&socket);
                let address = socket.local_addr()?;
                listeners.push(Listener { address, socket });
            }
        }
        Ok(listeners)
    }

    fn addresses(&self) -> io::Result<Addresses> {
        let tcp = |sockets: &[std::net::TcpListener]| -> io::Result<Vec<SocketAddr>> {
            sockets
                .iter()
                .map(std::net::TcpListener::local_addr)
                .collect()
        };
        Ok(Addresses {
            udp: self.udp_control.iter().map(|held| held.address).collect(),
            tcp: tcp(&self.tcp)?,
            tls: tcp(&self.tls)?,
            dtls: self
                .dtls
                .iter()
                .map(std::net::UdpSocket::local_addr)
                .collect::<io::Result<_>>()?,
        })
    }
}

/// What the control thread serves.
struct Control {
    sockets: Sockets,
    tls: Option<Arc<rustls::ServerConfig>>,
    dtls: Option<Certificates>,
    inbox: mpsc::Receiver<Command>,
    requests: mpsc::Receiver<Event>,
    /// Wakes the thread for what the SFU hands over.
    waker: Arc<Waker>,
    stopping: CancellationToken,
}

fn bind_each<S>(
    addresses: &[SocketAddr],
    protocol: &str,
    bind: impl Fn(SocketAddr) -> io::Result<S>,
) -> anyhow::Result<Vec<S>> {
    let mut bound = Vec::new();
    for address in addresses {
        match bind(*address) {
            Ok(socket) => bound.push(socket),
            // The default names [::1], which a container without IPv6 does not have.
            Err(error) if is_missing_loopback(*address, &error) => {
                tracing::warn!(%error, "No IPv6 loopback here, left out");
            }
            Err(error) => {
                return Err(error).with_context(|| format!("can't listen on {protocol} {address}"));
            }
        }
    }
    Ok(bound)
}

fn is_missing_loopback(address: SocketAddr, error: &io::Error) -> bool {
    /// EAFNOSUPPORT of Linux, for which `io::ErrorKind` has no name.
    const ADDRESS_FAMILY_NOT_SUPPORTED: i32 = 97;
    let missing = error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(ADDRESS_FAMILY_NOT_SUPPORTED);
    missing && address.is_ipv6() && address.ip().is_loopback()
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};

    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// The control thread: starts a task for each socket and stream, then follows the handle and the
/// workers.
async fn run(shard: Rc<Shard>, control: Control) -> anyhow::Result<()> {
    let Control {
        sockets,
        tls,
        dtls,
        mut inbox,
        mut requests,
        waker,
        stopping,
    } = control;
    let media = waker.event().as_fd().try_clone_to_owned()?;
    // SAFETY: the descriptor is open and the same for as long as the AsyncFd has it.
    let media = unsafe { AsyncFd::register_with_interest(media, Interest::READABLE) }?;
    tokio::task::spawn_local(take_in_media(shard.clone(), media, waker));
    for listener in sockets.tcp {
        let listener = TcpListener::from_std(listener)?;
        tokio::task::spawn_local(accept_all(shard.clone(), listener, None));
    }
    for listener in sockets.tls {
        let listener = TcpListener::from_std(listener)?;
        let acceptor = tls.clone().map(TlsAcceptor::from);
        tokio::task::spawn_local(accept_all(shard.clone(), listener, acceptor));
    }
    for socket in sockets.dtls {
        if let Some(certificates) = dtls.clone() {
            let socket = UdpSocket::from_std(socket)?;
            tokio::task::spawn_local(dtls::serve_all(shard.clone(), socket, certificates));
        }
    }
    tokio::task::spawn_local(keep_time(shard.clone()));
    tokio::task::spawn_local(keep_house(shard.clone()));

    let mut has_handles = true;
    loop {
        let command = tokio::select! {
            () = stopping.cancelled() => break,
            Some(event) = requests.recv() => {
                shard.on_event(event);
                continue;
            }
            command = inbox.recv(), if has_handles => match command {
                Some(command) => command,
                None => {
                    has_handles = false; // Serve on.
                    continue;
                }
            },
        };
        match command {
            Command::Accept(accepted) => {
                let shard = shard.clone();
                tokio::task::spawn_local(async move {
                    let Accepted {
                        stream,
                        already_read,
                        five_tuple,
                    } = accepted;
                    serve(shard, five_tuple, stream, &already_read).await;
                });
            }
            Command::Stats(reply) => {
                let shard = shard.clone();
                tokio::task::spawn_local(async move {
                    // Whoever asked may have stopped waiting.
                    reply.send(shard.figures().await.stats).ok();
                });
            }
            Command::Usage(reply) => {
                if let Err(usage) = reply.send(shard.take_usage()) {
                    shard.give_back_usage(usage); // Whoever asked has stopped waiting.
                }
            }
            // Whoever asked may have stopped waiting.
            Command::Credentials(credentials, done) => {
                shard.set_credentials(credentials);
                done.send(()).ok();
            }
            Command::Reconfigure(settings, credentials, done) => {
                shard.reconfigure(*settings, credentials);
                done.send(()).ok();
            }
            Command::PublicIps(ips, reply) => {
                reply.send(shard.set_public_ips(&ips)).ok();
            }
            Command::Media(ends, media, done) => {
                shard.connect_media(ends, media);
                done.send(()).ok();
            }
            Command::Draining(draining, done) => {
                shard.set_draining(draining);
                done.send(()).ok();
            }
        }
    }
    metrics::publish(&shard).await;
    Ok(())
}

/// Tells the operator that the range of ports is used up.
#[derive(Default)]
struct Exhausted {
    refused: u64,
    said: Option<Instant>,
}

impl Exhausted {
    fn look(&mut self, stats: &Stats, now: Instant) {
        let refused = stats.refused(Refusal::PortsExhausted.cause());
        let is_due = self.said.is_none_or(|said| now >= said + EXHAUSTED_SAID);
        if refused > self.refused && is_due {
            tracing::warn!(
                allocations = stats.allocations,
                refused = refused - self.refused,
                "All relayed ports are taken; widen `relay.port_min` to `relay.port_max`"
            );
            self.refused = refused;
            self.said = Some(now);
        }
    }
}

/// Takes in what the SFU hands over for clients on streams, when it calls.
async fn take_in_media(shard: Rc<Shard>, event: AsyncFd<OwnedFd>, waker: Arc<Waker>) {
    while let Ok(mut called) = event.readable().await {
        // Whoever calls after this is seen by the next turn.
        called.clear_ready();
        waker.hear();
        shard.receive_from_media();
    }
}

/// Ends what has expired, when it expires.
async fn keep_time(shard: Rc<Shard>) {
    loop {
        let deadline = shard
            .deadline()
            .unwrap_or_else(|| Instant::now() + TIMER_IDLE);
        tokio::select! {
            () = tokio::time::sleep_until(deadline.into()) => shard.on_timeout(),
            () = shard.deadline_changed.notified() => {}
        }
    }
}

async fn keep_house(shard: Rc<Shard>) {
    let mut exhausted = Exhausted::default();
    loop {
        shard.on_wall_clock();
        let stats = metrics::publish(&shard).await;
        exhausted.look(&stats, Instant::now());
        tokio::time::sleep(HOUSEKEEPING_INTERVAL).await;
    }
}
