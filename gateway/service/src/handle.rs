//! Starts the gateway's task, and talks to it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use backing::objects::{Objects, prompt_key, voicemail_key};
use foldhash::fast::RandomState;
use gateway_core::transaction::{Flow, Transport};
use gateway_media::files::{self, Clip};
use model::phone::rows::{LegRecord, PROMPT_MILLIS_MAX};
use model::phone::{PhoneCommand, PhoneEvent, PhoneEventKind, PhonePlace};
use model::plain::{Attach, End, NoSeat, Seat};
use model::time::Timestamp;
use model::{AccountId, TrackId};
use rand::SeedableRng;
use rand::rngs::{StdRng, SysRng};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::doors::{Door, Doors};
use crate::exchange::{Exchange, Kept, Output, Rows, SoundKey, TrunkId};
use crate::figures::Figures;
use crate::resolve::{Found, Hop, Resolver};
use crate::sound::{self, LegId, Sound};
use crate::streams::{Accepted, Stream, StreamEvent, Streams, Tls, accept_all, listen};
use crate::udp::UdpSockets;

/// How many messages of connections may wait; beyond it the connections wait.
const STREAM_EVENTS_MAX: usize = 1_024;

/// How many connections may wait to be taken.
const ACCEPTED_MAX: usize = 64;

/// How many questions may wait for the task.
const QUESTIONS_MAX: usize = 64;

/// How many names are looked up, and how many places in Rooms are waited for, at once.
const LOOKUPS_MAX: usize = 64;

/// How many files of sound are read and decoded, and how many messages are kept, at once.
const FILES_MAX: usize = 2;

/// How long messages that were spoken before the end may take to be kept.
const KEEPING_MAX: Duration = Duration::from_secs(10);

/// How much news may wait for signaling. It takes news at any time; when it does not, it has ended.
const UNTOLD_MAX: usize = 10_000;

/// How many datagrams are taken in before the clock and the other inputs have their turn.
const DATAGRAMS_AT_ONCE: usize = 64;

/// How often figures are published.
const FIGURES_INTERVAL: Duration = Duration::from_secs(1);

/// How long the other sides have to answer when the gateway ends.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// How long to sleep when nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// What the gateway needs of the server.
pub struct Start {
    /// What signaling asks for.
    pub commands: mpsc::Receiver<PhoneCommand>,
    /// What signaling is told.
    pub events: mpsc::Sender<PhoneEvent>,
    /// The media of Legs.
    pub sound: Box<dyn Sound>,
    /// What happens to it.
    pub sound_events: mpsc::Receiver<sound::Event>,
    /// Where places in Rooms come from.
    pub attach: Attach,
    /// How TLS is spoken.
    pub tls: Tls,
    /// What is kept of Legs: the same one whole each time something became of it.
    pub records: mpsc::Sender<LegRecord>,
    /// Where prompts lie, and messages go.
    pub objects: Objects,
}

/// The gateway as the server starts it.
#[derive(Debug)]
pub struct Gateway;

impl Gateway {
    /// Binds every address of `config` and serves them from a task on the caller's runtime.
    ///
    /// # Errors
    ///
    /// A setting that is wrong, or an address that can't be bound.
    pub fn start(config: &Config, start: Start) -> anyhow::Result<Handle> {
        config.validate()?;
        ensure!(
            config.listen_tls.is_empty() || start.tls.server.is_some(),
            "`gateway.listen_tls` needs a certificate: see [tls]"
        );
        let udp = UdpSockets::bind(&config.listen_udp)?;
        let mut doors = Vec::new();
        for (socket, local) in (0..).zip(udp.addresses()?) {
            doors.push(door(config, Transport::Udp, local, socket));
        }
        let (to_accept, accepted) = mpsc::channel(ACCEPTED_MAX);
        let closing = CancellationToken::new();
        for (transport, address) in config.listen() {
            if transport == Transport::Udp {
                continue;
            }
            let listener = listen(address)?;
            doors.push(door(config, transport, listener.local_addr()?, 0));
            let (to_accept, closed) = (to_accept.clone(), closing.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = accept_all(listener, transport, to_accept) => {}
                    () = closed.cancelled() => {}
                }
            });
        }
        let addresses = doors
            .iter()
            .map(|door| (door.transport, door.local))
            .collect();
        let rng = StdRng::try_from_rng(&mut SysRng).context("no entropy from the system")?;
        let (stream_events, from_streams) = mpsc::channel(STREAM_EVENTS_MAX);
        let (lookups, looked_up) = mpsc::channel(LOOKUPS_MAX);
        let (seats, seated) = mpsc::channel(LOOKUPS_MAX);
        let (sounds, loaded) = mpsc::channel(LOOKUPS_MAX);
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let (stopping, stopped) = (CancellationToken::new(), CancellationToken::new());
        let resolver = Arc::new(Resolver::new(&config.dns_servers));
        let config = Arc::new(config.clone());
        let idle = Duration::from_secs(config.connection_idle_seconds);
        let control = Control {
            exchange: Exchange::new(
                (Instant::now(), wall()),
                config,
                Doors(doors.clone()),
                start.sound,
                rng,
            ),
            doors: Doors(doors),
            udp,
            streams: Streams {
                events: stream_events,
                tls: start.tls,
                idle,
            },
            connections: HashMap::default(),
            from_streams,
            accepted,
            lookups,
            looked_up,
            limit: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            resolver,
            attach: start.attach,
            seats,
            seated,
            objects: start.objects,
            sounds,
            loaded,
            files: Arc::new(Semaphore::new(FILES_MAX)),
            keeping: JoinSet::new(),
            commands: start.commands,
            events: start.events,
            sound_events: start.sound_events,
            records: start.records,
            unkept: 0,
            asked,
            stopping: stopping.clone(),
            unsent: 0,
            lost: 0,
            _closing: closing.drop_guard(),
        };
        let guard = stopped.clone().drop_guard();
        tokio::spawn(async move {
            let _guard = guard;
            control.run().await;
        });
        Ok(Handle {
            questions,
            stopping,
            stopped,
            addresses,
        })
    }
}

fn door(config: &Config, transport: Transport, local: SocketAddr, socket: u64) -> Door {
    Door {
        transport,
        local,
        public: SocketAddr::new(config.public(local.ip()), local.port()),
        socket,
    }
}

/// What the task is asked.
enum Question {
    Figures(oneshot::Sender<Figures>),
    Trunks(oneshot::Sender<Vec<(TrunkId, bool)>>),
    Rows(Arc<Rows>, oneshot::Sender<()>),
    Drain,
}

/// Talks to a running gateway. Cheap to clone; the gateway runs on when all clones are gone.
#[derive(Debug, Clone)]
pub struct Handle {
    questions: mpsc::Sender<Question>,
    stopping: CancellationToken,
    stopped: CancellationToken,
    addresses: Vec<(Transport, SocketAddr)>,
}

impl Handle {
    /// The addresses in use, and by what; a port that was 0 is filled in.
    #[must_use]
    pub fn addresses(&self) -> &[(Transport, SocketAddr)] {
        &self.addresses
    }

    /// Takes in all rows of all Accounts: when this returns, they hold. Calls go on.
    pub async fn set_rows(&self, rows: Arc<Rows>) {
        // It may have ended.
        self.ask(|reply| Question::Rows(rows, reply))
            .await
            .unwrap_or_default();
    }

    /// A snapshot of the counters; all zero once the gateway has ended.
    pub async fn figures(&self) -> Figures {
        self.ask(Question::Figures).await.unwrap_or_default()
    }

    /// Every Trunk, and whether it can be called: an address of it answers, and we are registered where that is wanted.
    pub async fn trunks(&self) -> Vec<(TrunkId, bool)> {
        self.ask(Question::Trunks).await.unwrap_or_default()
    }

    /// From now on new calls are refused; those that live go on.
    pub async fn drain(&self) {
        self.questions.send(Question::Drain).await.ok(); // It may have ended.
    }

    /// Ends all calls, takes registrations back, and waits until the sockets are closed.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        self.stopped.cancelled().await;
    }

    /// Waits until the gateway has ended, by [`shutdown`](Self::shutdown) or by a mistake.
    pub async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.questions.send(question(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// A place in a Room that was waited for.
struct Seated {
    leg: LegId,
    track: TrackId,
    end: Result<End, NoSeat>,
}

/// The task that owns everything.
struct Control {
    exchange: Exchange,
    doors: Doors,
    udp: UdpSockets,
    streams: Streams,
    connections: HashMap<u64, Stream, RandomState>,
    from_streams: mpsc::Receiver<StreamEvent>,
    accepted: mpsc::Receiver<Accepted>,
    lookups: mpsc::Sender<(Hop, Found)>,
    looked_up: mpsc::Receiver<(Hop, Found)>,
    limit: Arc<Semaphore>,
    resolver: Arc<Resolver>,
    attach: Attach,
    seats: mpsc::Sender<Seated>,
    seated: mpsc::Receiver<Seated>,
    objects: Objects,
    sounds: mpsc::Sender<(SoundKey, Option<Clip>)>,
    loaded: mpsc::Receiver<(SoundKey, Option<Clip>)>,
    files: Arc<Semaphore>,
    /// Messages on their way into the object store.
    keeping: JoinSet<Option<PhoneEvent>>,
    commands: mpsc::Receiver<PhoneCommand>,
    events: mpsc::Sender<PhoneEvent>,
    sound_events: mpsc::Receiver<sound::Event>,
    asked: mpsc::Receiver<Question>,
    stopping: CancellationToken,
    records: mpsc::Sender<LegRecord>,
    unsent: u64,
    /// Messages that could not be kept.
    lost: u64,
    /// Records that nobody took.
    unkept: u64,
    _closing: tokio_util::sync::DropGuard,
}

impl Control {
    async fn run(mut self) {
        let mut publishing = tokio::time::interval(FIGURES_INTERVAL);
        let (mut has_signaling, mut has_handles) = (true, true);
        let events = self.events.clone();
        // News that signaling has not taken yet, oldest first.
        let mut untold = VecDeque::new();
        loop {
            while let Some(output) = self.exchange.poll_output() {
                if let Some(news) = self.act(output) {
                    untold.push_back(news);
                }
            }
            if untold.len() > UNTOLD_MAX {
                tracing::error!("Signaling takes no news of phone calls, gateway stopped");
                return;
            }
            let now = Instant::now();
            let due = self.exchange.poll_timeout().unwrap_or(now + IDLE);
            tokio::select! {
                () = self.stopping.cancelled() => return self.say_goodbye().await,
                room = events.reserve(), if !untold.is_empty() => match room {
                    Ok(room) => if let Some(news) = untold.pop_front() {
                        room.send(news);
                    },
                    Err(_) => untold.clear(), // Signaling has ended.
                },
                datagram = self.udp.receive() => {
                    self.on_datagram(&datagram);
                    self.take_more().await;
                }
                Some(event) = self.from_streams.recv() => self.on_stream(event),
                Some(accepted) = self.accepted.recv() => self.on_accepted(accepted),
                command = self.commands.recv(), if has_signaling => match command {
                    Some(command) => self.exchange.handle_command(Instant::now(), command),
                    None => has_signaling = false, // Serve on: calls end when their Rooms do.
                },
                Some(event) = self.sound_events.recv() => {
                    self.exchange.handle_sound(Instant::now(), event);
                }
                Some((hop, found)) = self.looked_up.recv() => {
                    self.exchange.handle_resolved(Instant::now(), &hop, &found);
                }
                Some(seated) = self.seated.recv() => self.on_seated(seated),
                Some((key, clip)) = self.loaded.recv() => {
                    self.exchange.handle_loaded(Instant::now(), key, clip);
                }
                Some(kept) = self.keeping.join_next() => untold.extend(self.on_kept(kept)),
                asked = self.asked.recv(), if has_handles => match asked {
                    Some(question) => self.answer(question),
                    None => has_handles = false,
                },
                _ = publishing.tick() => self.figures().publish(),
                () = sleep_until(due.into()) => self.exchange.handle_timeout(Instant::now()),
            }
        }
    }

    fn on_datagram(&mut self, datagram: &crate::udp::Datagram) {
        let flow = Flow {
            transport: Transport::Udp,
            remote: datagram.from,
            socket: datagram.socket,
        };
        let bytes = self.udp.payload(datagram);
        self.exchange
            .handle_message(Instant::now(), wall(), flow, bytes);
    }

    /// What is there already, without going to sleep in between.
    async fn take_more(&mut self) {
        for _ in 0..DATAGRAMS_AT_ONCE {
            let more = if_ready(self.udp.receive()).await;
            match more {
                Some(datagram) => self.on_datagram(&datagram),
                None => return,
            }
        }
    }

    fn on_stream(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Message { flow, bytes } => {
                self.exchange
                    .handle_message(Instant::now(), wall(), flow, &bytes);
            }
            StreamEvent::Closed { flow } => {
                self.connections.remove(&flow.socket);
                self.exchange.handle_closed(Instant::now(), flow);
            }
        }
    }

    fn on_accepted(&mut self, accepted: Accepted) {
        let Accepted {
            transport,
            tcp,
            from,
        } = accepted;
        if let Some(flow) = self.exchange.accept(Instant::now(), transport, from) {
            let stream = self.streams.accept(flow, tcp);
            self.connections.insert(flow.socket, stream);
        }
    }

    fn on_seated(&mut self, seated: Seated) {
        let Seated { leg, track, end } = seated;
        self.exchange.handle_seat(Instant::now(), leg, track, end);
    }

    fn answer(&mut self, question: Question) {
        // Whoever asked may be gone.
        match question {
            Question::Figures(reply) => drop(reply.send(self.figures())),
            Question::Trunks(reply) => drop(reply.send(self.exchange.trunk_states())),
            Question::Rows(rows, reply) => {
                self.exchange.set_rows(Instant::now(), rows);
                reply.send(()).ok();
            }
            Question::Drain => self.exchange.drain(),
        }
    }

    fn figures(&self) -> Figures {
        Figures {
            unsent: self.unsent,
            unkept: self.unkept,
            messages_lost: self.lost,
            ..self.exchange.figures(Instant::now())
        }
    }

    /// Does one thing; news for signaling comes back.
    fn act(&mut self, output: Output) -> Option<PhoneEvent> {
        match output {
            Output::Send { flow, bytes } => self.send(flow, bytes),
            Output::Connect { flow, name } => {
                let door = self.doors.reached_by(flow.transport, flow.remote.ip());
                let local = door.map_or(flow.remote, |door| door.local);
                let stream = self.streams.connect(flow, local, name.as_deref());
                self.connections.insert(flow.socket, stream);
            }
            Output::Trust { flow } => {
                if let Some(stream) = self.connections.get(&flow.socket) {
                    stream.trust();
                }
            }
            Output::Resolve(hop) => self.look_up(hop),
            Output::Tell(event) => return Some(event),
            Output::Record(record) => {
                if self.records.try_send(*record).is_err() {
                    self.unkept += 1;
                }
            }
            Output::Attach {
                account,
                leg,
                place,
            } => self.take_seat(account, leg, place),
            Output::Load(key) => self.load(key),
            Output::Keep(message) => self.keep(*message),
        }
        None
    }

    fn send(&mut self, flow: Flow, bytes: Vec<u8>) {
        if flow.transport == Transport::Udp {
            if let Err(error) = self.udp.send(flow.socket, flow.remote, &bytes) {
                // It is sent again by its transaction.
                tracing::debug!(to = %flow.remote, %error, "Datagram of SIP not sent");
                self.unsent += 1;
            }
            return;
        }
        let taken = self
            .connections
            .get(&flow.socket)
            .is_some_and(|stream| stream.send(bytes));
        // One that takes nothing is closed, and its task says so.
        if !taken && self.connections.remove(&flow.socket).is_none() {
            self.exchange.handle_closed(Instant::now(), flow);
        }
    }

    fn look_up(&self, hop: Hop) {
        let (limit, resolver) = (self.limit.clone(), self.resolver.clone());
        let lookups = self.lookups.clone();
        tokio::spawn(async move {
            let Ok(_permit) = limit.acquire().await else {
                return;
            };
            let found = resolver.find(&hop).await;
            lookups.send((hop, found)).await.ok(); // The gateway may have ended.
        });
    }

    fn take_seat(&self, account: AccountId, leg: LegId, place: PhonePlace) {
        let seat = Seat {
            account,
            room: place.room,
            participant: place.participant,
        };
        let (waiting, seats) = ((self.attach)(seat), self.seats.clone());
        tokio::spawn(async move {
            let seated = Seated {
                leg,
                track: place.track,
                end: waiting.await,
            };
            seats.send(seated).await.ok(); // The gateway may have ended.
        });
    }

    /// Reads a file of an Account, elsewhere.
    fn load(&self, key: SoundKey) {
        let (limit, sounds, objects) = (
            self.files.clone(),
            self.sounds.clone(),
            self.objects.clone(),
        );
        tokio::spawn(async move {
            let Ok(_permit) = limit.acquire().await else {
                return;
            };
            let clip = match read(&objects, &key).await {
                Ok(clip) => Some(clip),
                Err(error) => {
                    let (account, sha256) = (key.account, key.sha256.as_str());
                    let error = format!("{error:#}");
                    tracing::warn!(%account, sha256, error, "Prompt can't be played");
                    None
                }
            };
            sounds.send((key, clip)).await.ok(); // The gateway may have ended.
        });
    }

    /// Puts a message into the object store, elsewhere.
    fn keep(&mut self, message: Kept) {
        let (limit, objects) = (self.files.clone(), self.objects.clone());
        self.keeping.spawn(async move {
            let _permit = limit.acquire().await.ok()?;
            let Kept { left, tape } = message;
            let (account, call) = (left.message.account, left.message.call?);
            let key = voicemail_key(account, left.message.id, left.message.format);
            let kept = async {
                let file = spawn_blocking(move || {
                    let samples = tape.message().unwrap_or_default();
                    files::write_wav(tape.rate(), 1, samples)
                });
                objects.put(&key, file.await?).await
            };
            if let Err(error) = kept.await {
                let error = format!("{error:#}");
                tracing::error!(%account, %call, error, "Message is lost");
                return None;
            }
            Some(PhoneEvent {
                account,
                call,
                kind: PhoneEventKind::Voicemail(Box::new(left)),
            })
        });
    }

    /// A message was kept: signaling hears of it.
    fn on_kept(
        &mut self,
        kept: Result<Option<PhoneEvent>, tokio::task::JoinError>,
    ) -> Option<PhoneEvent> {
        let news = kept.ok().flatten();
        self.lost += u64::from(news.is_none());
        news
    }

    /// Ends all calls and waits a moment for those who are told so.
    async fn say_goodbye(mut self) {
        self.exchange.end_all(Instant::now());
        let ends_at = Instant::now() + GOODBYE_MAX;
        loop {
            while let Some(output) = self.exchange.poll_output() {
                if let Some(news) = self.act(output) {
                    self.events.try_send(news).ok(); // Signaling may have ended before.
                }
            }
            if self.exchange.is_quiet() {
                return self.keep_rest().await;
            }
            let due = self.exchange.poll_timeout().unwrap_or(ends_at).min(ends_at);
            tokio::select! {
                datagram = self.udp.receive() => self.on_datagram(&datagram),
                Some(event) = self.from_streams.recv() => self.on_stream(event),
                // What callers said until now comes back.
                Some(event) = self.sound_events.recv() => {
                    self.exchange.handle_sound(Instant::now(), event);
                }
                () = sleep_until(due.into()) => {
                    let now = Instant::now();
                    if now >= ends_at {
                        return self.keep_rest().await;
                    }
                    self.exchange.handle_timeout(now);
                }
            }
        }
    }

    /// Messages whose callers hung up with us, and those on their way, are kept.
    async fn keep_rest(mut self) {
        let keeping = async {
            while let Some(kept) = self.keeping.join_next().await {
                if let Some(news) = self.on_kept(kept) {
                    self.events.send(news).await.ok(); // Signaling may have ended before.
                }
            }
        };
        if tokio::time::timeout(KEEPING_MAX, keeping).await.is_err() {
            tracing::error!("Messages are lost: the object store took too long");
        }
    }
}

/// Reads and decodes a file of an Account.
async fn read(objects: &Objects, key: &SoundKey) -> anyhow::Result<Clip> {
    let at = prompt_key(key.account, &key.sha256, key.format);
    let bytes = objects.get(&at).await?.context("it is not there")?;
    let read = spawn_blocking(move || files::read(&bytes, PROMPT_MILLIS_MAX / 1_000));
    let (_, clip) = read.await??;
    Ok(clip)
}

/// What is ready now.
async fn if_ready<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match future.as_mut().poll(cx) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// The time of day, for ids.
fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(0))
}
