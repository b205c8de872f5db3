//! A shard: one task that owns one core and the Accounts that fall to it.

mod alarm;
mod nodes;
mod questions;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use backing::bus::Bus;
use backing::records::Records;
use bytes::Bytes;
use model::bus::{Body, Message, Target};
use model::media::{MediaCommand, MediaEvent};
use model::phone::{PhoneCommand, PhoneEvent};
use model::{AccountId, ApiKeyId, NodeId, RecordChange};
use signaling_core::{Answer, ConnectionId, Output, QueryId, Question, Signaling, VerifiedHello};
use signaling_wire::{ErrorCode, ErrorData};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::figures::Figures;
use crate::ice::IceServers;
use crate::media::{Lost, Sent, ToMedia};
use crate::phone::{PhoneLost, ToPhone};
use crate::socket::{End, Outbox, SOON, Tell};
use crate::telephony::Telephones;
use alarm::Alarm;
use nodes::ToNodes;

/// How many inputs may wait for a shard; then sockets wait.
const INPUTS_LEN_MAX: usize = 1_024;
/// How many inputs are taken at once: time is read, and sockets are woken, once for all of them.
const BATCH_LEN_MAX: usize = 128;
/// How many frames are handled before the sockets get their turn.
const FRAMES_IN_TURN: u64 = 128;
/// How many messages of other nodes, and how many answers, may wait.
const SIDE_LEN_MAX: usize = 1_024;
/// How often a shard looks after itself.
const UPKEEP: Duration = Duration::from_secs(10);

/// What a shard is told.
pub(crate) enum Input {
    /// A client with a right token.
    Hello(Box<NewConnection>),
    /// Later frames of it, as one read brought them.
    Frames {
        connection: ConnectionId,
        texts: Vec<Utf8Bytes>,
    },
    /// Its socket is gone.
    Gone { connection: ConnectionId },
    /// An API key that signs nothing any more.
    KeyRevoked {
        account: AccountId,
        api_key: ApiKeyId,
    },
    /// From now on there is an SFU.
    MediaBegins {
        commands: mpsc::Sender<MediaCommand>,
    },
    /// News of it.
    Media(Box<MediaEvent>),
    /// It has ended.
    MediaEnded,
    /// From now on there is a phone gateway.
    PhoneBegins {
        commands: mpsc::Sender<PhoneCommand>,
    },
    /// News of it.
    Phone(Box<PhoneEvent>),
    /// It has ended.
    PhoneEnded,
    /// Ask all clients to go elsewhere within so many milliseconds.
    Drain { in_ms: u64 },
    /// Close all sockets, then say so.
    Stop { done: oneshot::Sender<()> },
}

/// A WebSocket that has said `hello`.
pub(crate) struct NewConnection {
    pub(crate) connection: ConnectionId,
    pub(crate) hello: VerifiedHello,
    pub(crate) outbox: Arc<Outbox>,
    /// The host the client reached us by.
    pub(crate) host: Box<str>,
}

/// The way to the shards.
pub(crate) struct Shards {
    inputs: Vec<mpsc::Sender<Input>>,
    connections: AtomicU64,
}

/// What all shards share.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) node: NodeId,
    pub(crate) clock: Arc<Clock>,
    pub(crate) figures: Arc<Figures>,
    pub(crate) ice_servers: Arc<IceServers>,
    pub(crate) records: Records,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) telephones: Arc<OnceLock<Telephones>>,
}

impl Shards {
    /// Starts a shard for each of `cores`. They end when this is dropped and every socket is gone. `broken` is cancelled when
    /// one ends, which before that only a mistake of ours can do.
    pub(crate) fn start(
        cores: Vec<Signaling>,
        surroundings: &Surroundings,
        broken: &CancellationToken,
    ) -> Self {
        let count = cores.len();
        let start = |(number, core)| {
            let (sender, inputs) = mpsc::channel(INPUTS_LEN_MAX);
            let place = Place { number, count };
            let shard = Shard::new(place, core, surroundings.clone());
            let guard = broken.clone().drop_guard();
            tokio::spawn(async move {
                let _guard = guard; // A panic drops it, too.
                shard.run(inputs).await;
            });
            sender
        };

        Self {
            inputs: cores.into_iter().enumerate().map(start).collect(),
            connections: AtomicU64::new(0),
        }
    }

    /// The shard of an Account.
    pub(crate) fn of(&self, account: AccountId) -> &mpsc::Sender<Input> {
        &self.inputs[Place::of(account, self.inputs.len())]
    }

    /// Tells the place of an Account's shard in [`all`](Self::all).
    pub(crate) fn place_of(&self) -> impl Fn(AccountId) -> usize + Send + use<> {
        let count = self.inputs.len();
        move |account| Place::of(account, count)
    }

    pub(crate) fn all(&self) -> &[mpsc::Sender<Input>] {
        &self.inputs
    }

    pub(crate) fn new_connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed))
    }
}

/// Which of how many shards one is.
#[derive(Clone, Copy)]
struct Place {
    number: usize,
    count: usize,
}

impl Place {
    /// The number of the shard of an Account.
    fn of(account: AccountId, count: usize) -> usize {
        // The low bits of a ULID are random.
        usize::try_from(account.as_u128() % count as u128).unwrap_or(0)
    }

    fn serves(self, account: AccountId) -> bool {
        Self::of(account, self.count) == self.number
    }
}

struct Shard {
    place: Place,
    core: Signaling,
    connections: HashMap<ConnectionId, Connection>,
    around: Surroundings,
    to_nodes: ToNodes,
    from_nodes: mpsc::Receiver<Message>,
    questions: mpsc::Sender<(QueryId, Question)>,
    answers: mpsc::Receiver<(QueryId, Answer)>,
    to_media: ToMedia,
    to_phone: ToPhone,
    /// Whose outboxes were filled and not told yet.
    filled: Vec<Arc<Outbox>>,
    /// Whose outboxes hold what may wait, until when at the latest.
    waiting: Vec<Arc<Outbox>>,
    waiting_until: Option<Instant>,
    /// Frames since the figures were told.
    received: u64,
    sent: u64,
}

struct Connection {
    outbox: Arc<Outbox>,
    host: Box<str>,
    /// What the first frame will tell about.
    greeting: Option<Greeting>,
}

#[derive(Clone, Copy)]
enum Greeting {
    Begin,
    Resume,
}

impl Shard {
    fn new(place: Place, core: Signaling, around: Surroundings) -> Self {
        let (heard, from_nodes) = mpsc::channel(SIDE_LEN_MAX);
        let to_nodes = ToNodes::start(around.node, Arc::clone(&around.bus), heard);
        let (questions, answers) = questions::start(&around, move |account| place.serves(account));

        Self {
            place,
            core,
            connections: HashMap::new(),
            around,
            to_nodes,
            from_nodes,
            questions,
            answers,
            to_media: ToMedia::default(),
            to_phone: ToPhone::default(),
            filled: Vec::new(),
            waiting: Vec::new(),
            waiting_until: None,
            received: 0,
            sent: 0,
        }
    }

    /// Moves what happens to the core, and what it decides to where it belongs, until nobody can tell it anything.
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut batch = Vec::with_capacity(BATCH_LEN_MAX);
        let mut upkeep = tokio::time::interval(UPKEEP);
        let mut alarm = Alarm::new();
        let mut patience = Box::pin(tokio::time::sleep(SOON));
        self.core.handle_start(self.around.clock.now());

        loop {
            self.wake_filled();
            if !self.waiting.is_empty() && self.waiting_until.is_none() {
                let until = Instant::now() + SOON;
                patience.as_mut().reset(until);
                self.waiting_until = Some(until);
            }
            alarm.set(self.core.poll_timeout(), &self.around.clock);

            tokio::select! {
                taken = inputs.recv_many(&mut batch, BATCH_LEN_MAX) => {
                    if taken == 0 {
                        return;
                    }
                    // Who else is ready to be read goes first; what all of them bring is answered together.
                    tokio::task::yield_now().await;
                    while batch.len() < BATCH_LEN_MAX && let Ok(input) = inputs.try_recv() {
                        batch.push(input);
                    }
                    for input in batch.drain(..) {
                        self.on_input(input).await;
                    }
                    self.tell_figures();
                }
                () = &mut patience, if self.waiting_until.is_some() => self.wake_waiting(),
                () = alarm.rings() => {
                    self.core.handle_timeout(self.around.clock.now());
                    self.apply(None).await;
                }
                Some((query, answer)) = self.answers.recv() => {
                    self.core.handle_answer(self.around.clock.now(), query, answer);
                    self.apply(None).await;
                }
                Some(message) = self.from_nodes.recv() => {
                    self.core.handle_bus(self.around.clock.now(), message);
                    self.apply(None).await;
                }
                sent = self.to_media.send_unsent() => {
                    match sent {
                        Ok(Sent::One) => {}
                        Ok(Sent::KeepsUp) => self.regain_media(),
                        Err(lost) => self.lose_media(lost),
                    }
                    self.apply(None).await;
                }
                sent = self.to_phone.send_unsent() => {
                    if let Err(lost) = sent {
                        self.lose_phone(lost);
                        self.apply(None).await;
                    }
                }
                _ = upkeep.tick() => {
                    self.on_upkeep().await;
                    alarm.unset(); // The clock may have been set.
                }
            }
        }
    }

    async fn on_input(&mut self, input: Input) {
        let now = self.around.clock.now();

        match input {
            Input::Hello(new) => {
                let NewConnection {
                    connection,
                    hello,
                    outbox,
                    host,
                } = *new;
                let greeting = Some(if hello.resume.is_some() {
                    Greeting::Resume
                } else {
                    Greeting::Begin
                });
                self.received += 1;
                self.connections.insert(
                    connection,
                    Connection {
                        outbox,
                        host,
                        greeting,
                    },
                );
                self.core.handle_hello(now, connection, hello);
                self.apply(Some(connection)).await;
            }
            Input::Frames { connection, texts } => {
                for text in texts {
                    self.core.handle_frame(now, connection, &text);
                    self.apply(Some(connection)).await;
                    self.count_received().await;
                }
            }
            Input::Gone { connection } => {
                self.connections.remove(&connection);
                self.core.handle_disconnect(now, connection);
                self.apply(None).await;
            }
            Input::KeyRevoked { account, api_key } => {
                self.core.handle_key_revoked(now, account, api_key);
                self.apply(None).await;
            }
            Input::MediaBegins { commands } => {
                self.to_media.open(commands);
                self.core.handle_media_available(now, true);
                self.apply(None).await;
            }
            Input::Media(event) => {
                self.core.handle_media(now, *event);
                self.apply(None).await;
            }
            Input::MediaEnded => {
                self.to_media.close();
                self.core.handle_media_available(now, false);
                self.apply(None).await;
            }
            Input::PhoneBegins { commands } => {
                self.to_phone.open(commands);
                self.core.handle_phone_available(now, true);
                self.apply(None).await;
            }
            Input::Phone(event) => {
                self.core.handle_phone(now, *event);
                self.apply(None).await;
            }
            Input::PhoneEnded => {
                self.to_phone.close();
                self.core.handle_phone_available(now, false);
                self.apply(None).await;
            }
            Input::Drain { in_ms } => {
                self.core.handle_drain(now, in_ms, "the server restarts");
                self.apply(None).await;
            }
            Input::Stop { done } => {
                self.core.handle_stop(now);
                self.apply(None).await;
                let _ = done.send(()); // Whoever asked may have given up.
            }
        }
    }

    /// Does what the core says. `asker` is the connection whose input is handled.
    async fn apply(&mut self, asker: Option<ConnectionId>) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send {
                    connection,
                    text,
                    may_wait,
                } => self.send(connection, text, may_wait),
                Output::Close {
                    connection,
                    code,
                    reason,
                } => {
                    // The socket's task will report it gone; the core knows already.
                    if let Some(connection) = self.connections.get(&connection) {
                        connection.outbox.close(End { code, reason });
                    }
                }
                Output::Record(change) => {
                    self.wake_filled();
                    self.record(change).await;
                }
                Output::Query { query, question } => self.ask(asker, query, question),
                Output::Media(command) => {
                    if let Err(lost) = self.to_media.send(command) {
                        self.lose_media(lost);
                    }
                }
                Output::Phone(command) => {
                    if let Err(lost) = self.to_phone.send(command) {
                        self.lose_phone(lost);
                    }
                }
                Output::Publish { to, message } => {
                    self.wake_filled();
                    if matches!((to, &message.body), (Target::Account, Body::Hello)) {
                        self.to_nodes.subscribe(message.account).await;
                    }
                    self.to_nodes.publish(to, message).await;
                }
            }
        }
    }

    /// What the SFU holds is not known any more: all Rooms end.
    fn lose_media(&mut self, lost: Lost) {
        tracing::error!(error = %lost, "All rooms end");
        self.core
            .handle_media_available(self.around.clock.now(), false);
    }

    /// The SFU has forgotten all Rooms that ended, and takes new ones.
    fn regain_media(&mut self) {
        tracing::warn!("The SFU keeps up again, and takes new rooms");
        self.core
            .handle_media_available(self.around.clock.now(), true);
    }

    /// What the gateway holds is not known any more: all phone calls have ended.
    fn lose_phone(&mut self, lost: PhoneLost) {
        tracing::error!(error = %lost, "No phone calls any more");
        self.core
            .handle_phone_available(self.around.clock.now(), false);
    }

    fn send(&mut self, connection: ConnectionId, text: Bytes, may_wait: bool) {
        let Some(connection) = self.connections.get_mut(&connection) else {
            return;
        };

        let refused = refusal_of(&text);
        let figures = &self.around.figures;
        match (connection.greeting.take(), refused) {
            (Some(_), Some(code)) => figures.hello_refused(code),
            (Some(Greeting::Resume), None) => figures.resumed(is_resumed(&text)),
            (None, Some(code)) => figures.command_refused(code),
            (Some(Greeting::Begin) | None, None) => {}
        }
        match connection.outbox.push(text, may_wait) {
            Tell::Now => self.filled.push(Arc::clone(&connection.outbox)),
            Tell::Soon => self.waiting.push(Arc::clone(&connection.outbox)),
            Tell::Nothing => {}
        }
        self.sent += 1;
    }

    /// Tells the sockets, before the shard waits for anything.
    fn wake_filled(&mut self) {
        for outbox in self.filled.drain(..) {
            outbox.wake();
        }
    }

    /// Counts a frame that was handled. After some, the sockets get their turn to write what came of them, before it is so
    /// much that they look slow.
    async fn count_received(&mut self) {
        self.received += 1;
        if self.received >= FRAMES_IN_TURN {
            self.tell_figures();
            self.wake_filled();
            tokio::task::yield_now().await;
        }
    }

    fn tell_figures(&mut self) {
        let (received, sent) = (&mut self.received, &mut self.sent);
        self.around
            .figures
            .frames(std::mem::take(received), std::mem::take(sent));
    }

    /// Tells those whose frames have waited.
    fn wake_waiting(&mut self) {
        self.waiting_until = None;
        for outbox in self.waiting.drain(..) {
            outbox.wake_if_filled();
        }
    }

    async fn record(&mut self, change: RecordChange) {
        match &change {
            RecordChange::CallAnswered(call) => self.around.figures.call_answered(call),
            RecordChange::CallEnded(call) => self.around.figures.call_ended(call),
            RecordChange::CallLost(call) => {
                tracing::info!(account = %call.account, call = %call.call, "Nobody brought the Call back");
                self.around.figures.call_ended(call);
            }
            _ => {}
        }

        // Waiting here is the back-pressure: a shard does not run ahead of the disk.
        if let Err(error) = self.around.records.record(change).await {
            tracing::error!(%error, "Change lost");
        }
    }

    fn ask(&mut self, asker: Option<ConnectionId>, query: QueryId, question: Question) {
        let refused = match question {
            Question::IceServers { account, user } => {
                let host = asker
                    .and_then(|asker| self.connections.get(&asker))
                    .map_or("", |connection| &connection.host);
                let now = self.around.clock.now();
                Some(Answer::IceServers(
                    self.around.ice_servers.for_user(now, account, &user, host),
                ))
            }
            // Another node may hold the Calls that are not here.
            Question::OpenCalls { .. } if !self.around.bus.is_alone(self.around.node) => {
                Some(Answer::OpenCalls {
                    rows: Vec::new(),
                    next: None,
                })
            }
            // The records are behind; a client asks again rather than that everybody waits.
            question => self
                .questions
                .try_send((query, question))
                .err()
                .map(|_| Answer::Failed),
        };

        if let Some(answer) = refused {
            self.core
                .handle_answer(self.around.clock.now(), query, answer);
        }
    }

    async fn on_upkeep(&mut self) {
        let core = &self.core;

        self.around.clock.follow();
        self.around.figures.held(self.place.number, &core.counts());
        self.to_nodes.keep(|account| core.serves(account)).await;
    }
}

/// The code of an `error`; `None` for other frames. The core keeps no figures, so they are told by what it sends.
fn refusal_of(text: &[u8]) -> Option<ErrorCode> {
    #[derive(serde::Deserialize)]
    struct Refused {
        data: ErrorData,
    }

    text.starts_with(br#"{"type":"error""#).then(|| {
        serde_json::from_slice(text)
            .map_or(ErrorCode::Internal, |refused: Refused| refused.data.code)
    })
}

/// Whether a `welcome` says that the Session goes on.
fn is_resumed(text: &[u8]) -> bool {
    const RESUMED: &[u8] = br#""resumed":true"#;
    text.windows(RESUMED.len()).any(|part| part == RESUMED)
}
