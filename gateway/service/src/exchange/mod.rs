//! The telephone exchange: transactions, Legs and calls in one place, driven by what comes in and polled for what goes out.
//!
//! ```text
//!  messages, connections ──▶ ┌───────────────────────────────────────────┐ ──▶ Send, Connect, Resolve
//!  PhoneCommand ───────────▶ │ Admission ▶ Transactions ▶ Leg ▶ Call     │ ──▶ Tell: PhoneEvent
//!  rows, media, clock ─────▶ │ Trunks, desk phones, Queues, limits       │ ──▶ Attach: a place in a Room
//!                            └───────────────────────────────────────────┘ ──▶ Record: LegRecord; Sound, called directly
//! ```
//!
//! There is no socket, task or clock in here. One thing leads to another by a queue, never by recursion: what a Leg tells its call,
//! and what the call then orders its Legs, is worked through by [`Exchange::settle`].

mod attending;
mod guesses;
mod incoming;
mod legs;
mod library;
mod limits;
mod outgoing;
mod people;
mod phones;
mod queues;
mod records;
mod strangers;
mod transfers;
mod trunks;
mod voicemail;
mod ways;
mod words;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use gateway_core::call::{self, Call, LegKey};
use gateway_core::endpoint::{self, Endpoint, Refusal};
use gateway_core::leg::{self, RequestId};
use gateway_core::limits::Meters;
use gateway_core::queue::Queue;
use gateway_core::registrar::{Expiry, Registrar};
use gateway_core::transaction::{self, ClientId, Flow, ServerId, Transactions, Transport};
use gateway_media::files::Clip;
use gateway_sip::sanity::{Framing, Incoming, check};
use gateway_sip::{Host, Request, StatusCode};
use model::phone::rows::{DIGEST_REALM, LegRecord, Telephony};
use model::phone::{PhoneCommand, PhoneEvent, PhonePlace};
use model::plain::{End, NoSeat};
use model::time::Timestamp;
use model::{AccountId, CallId, TrackId, UserId};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use crate::admission::Admission;
use crate::config::Config;
use crate::doors::Doors;
use crate::figures::Figures;
use crate::resolve::{Found, Hop};
use crate::sound::{self, LegId, Sound};
use crate::timers::Timers;

use legs::SipLeg;
use trunks::Trunks;

pub(crate) use library::SoundKey;
pub use trunks::TrunkId;
pub(crate) use voicemail::Kept;

/// What we are, for User-Agent and Server: nothing that helps to look for holes.
const AGENT: &str = "offhook";

/// The longest request that goes over UDP, in bytes, where the path's MTU is not known (RFC 3261 §18.1.1).
const DATAGRAM_LEN_MAX: usize = 1_300;

/// What a Via of ours adds, at most.
const VIA_LEN_MAX: usize = 128;

/// The number of the first connection: those below are UDP sockets.
const FIRST_CONNECTION: u64 = 1 << 16;

/// All telephony there is, by Account.
pub type Rows = BTreeMap<AccountId, Arc<Telephony>>;

/// What the driver does.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send a message.
    Send { flow: Flow, bytes: Vec<u8> },
    /// Make a connection, which messages to `flow` go by; over TLS to somebody who is `name`.
    Connect { flow: Flow, name: Option<Arc<str>> },
    /// A connection has shown something of worth.
    Trust { flow: Flow },
    /// Look a name up; the answer is [`Exchange::handle_resolved`].
    Resolve(Hop),
    /// Tell signaling.
    Tell(PhoneEvent),
    /// Keep what is known of a Leg.
    Record(Box<LegRecord>),
    /// Take a place in a Room; the answer is [`Exchange::handle_seat`].
    Attach {
        account: AccountId,
        leg: LegId,
        place: PhonePlace,
    },
    /// Read a file of sound; the answer is [`Exchange::handle_loaded`].
    Load(SoundKey),
    /// Put a message into the object store, then tell signaling.
    Keep(Box<Kept>),
}

/// What is to be done within.
enum Todo {
    Leg(LegId, Box<leg::Event>),
    Call(CallId, Box<call::Event>),
}

/// Who waits for the answer to a request of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    Leg(LegId, RequestId),
    Registration(TrunkId),
    /// An OPTIONS to one of the addresses of a Trunk.
    Health(TrunkId, SocketAddr),
}

/// A request of ours that waits for its answer.
struct Asked {
    owner: Owner,
    /// It was too long for a datagram: where no connection can be made, it goes by one all the same.
    fallback: Option<(Route, Request)>,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Route {
    transport: Transport,
    address: SocketAddr,
    /// Who that is, for TLS.
    name: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// [`leg::Event::Timeout`].
    Leg(LegId),
    /// The Leg is over, and nothing late comes any more.
    Forget(LegId),
    /// No answer at all from this address of a Trunk: the next one is tried.
    Attempt(LegId),
    /// [`call::Event::Timeout`].
    Call(CallId),
    /// The minutes that a call may talk are used up.
    Minutes(CallId),
    /// Whoever is attended to has waited long enough.
    Attended(CallId),
    /// [`gateway_core::queue::Event::Timeout`].
    Queue(queues::QueueId),
    Registration(TrunkId),
    Health(TrunkId),
    /// Names of a Trunk are looked up again.
    Lookup(TrunkId),
    /// Ways to desk phones behind NATs are used.
    KeepAlive,
}

/// One call: its state machine and who its Legs are.
struct PhoneCall {
    account: AccountId,
    call: Call,
    /// Who each Leg is.
    sides: BTreeMap<LegKey, Side>,
    /// What the numbers in its groups mean.
    targets: Vec<Target>,
    /// Which User each Leg is or belongs to, of those we ring.
    users: BTreeMap<LegKey, UserId>,
    /// What Users who ring are told.
    ring: Option<people::Invitation>,
    /// Its way through the rows, where they lead it.
    leading: Option<ways::Leading>,
    /// The Users who talk in it.
    talks: Vec<UserId>,
    /// Its caller was answered before anybody was there to talk to.
    taken_up: bool,
    /// What the caller does with the gateway itself.
    attended: Option<attending::Attended>,
    /// The number of what the caller was played last.
    plays: u32,
    /// Nothing was played since the answer.
    lead_in: bool,
    /// Whose calls it counts for as one that came in.
    limits: limits::Limits,
    /// Whose calls and minutes to outside it counts for.
    outside: Vec<limits::Outlay>,
    /// What is left of the way that it may go on: Max-Forwards.
    hops: u8,
    /// Where its phones are heard.
    place: Option<PhonePlace>,
    /// Whether signaling has heard of it, and waits for its end.
    told: bool,
    /// Whether Devices ring, as far as signaling was told.
    rings_people: bool,
    /// Whether its end was told.
    ended: bool,
    dialled: bool,
    answered: bool,
    rung: bool,
}

/// Who a Leg is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Side {
    Sip(LegId),
    /// A User, whose Devices are signaling's; heard in a Room.
    User(UserId),
}

/// Whom a group rings.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    User(UserId),
    Trunk(Box<outgoing::Dialling>),
    /// A desk phone where it is registered.
    Desk(Box<phones::Desk>),
}

/// See the [module](self).
pub(crate) struct Exchange {
    config: Arc<Config>,
    doors: Doors,
    transactions: Transactions,
    admission: Admission,
    figures: Figures,
    rng: StdRng,
    rows: Arc<Rows>,
    trunks: Trunks,
    strangers: strangers::Strangers,
    registrar: Registrar,
    queues: BTreeMap<queues::QueueId, Queue<CallId>>,
    library: library::Library,
    messages: voicemail::Messages,
    meters: Meters<limits::Whose>,
    guesses: guesses::Guesses,
    /// What the clock on the wall showed at a moment of the other one.
    clock: (Instant, Timestamp),
    legs: BTreeMap<LegId, SipLeg>,
    endpoint: Endpoint<LegId>,
    asked: HashMap<ClientId, Asked, RandomState>,
    invites: HashMap<ServerId, LegId, RandomState>,
    calls: BTreeMap<CallId, PhoneCall>,
    connections: HashMap<Route, u64, RandomState>,
    /// Every connection that is open, ours and others'.
    open: HashMap<u64, Flow, RandomState>,
    last_connection: u64,
    last_leg: u64,
    timers: Timers<Timer>,
    todo: VecDeque<Todo>,
    outputs: VecDeque<Output>,
    sound: Box<dyn Sound>,
    draining: bool,
}

impl Exchange {
    pub(crate) fn new(
        (now, wall): (Instant, Timestamp),
        config: Arc<Config>,
        doors: Doors,
        sound: Box<dyn Sound>,
        mut rng: StdRng,
    ) -> Self {
        let endpoint = Endpoint::new(endpoint::Settings {
            agent: AGENT.to_owned(),
            registrar: true,
            strangers: endpoint::Strangers::Challenge,
        });
        Self {
            admission: Admission::new(now, &config),
            strangers: strangers::Strangers::new(&config),
            registrar: Registrar::new(
                now,
                (DIGEST_REALM, config.digests()),
                &rng.random(),
                Expiry::default(),
                AGENT,
            ),
            queues: BTreeMap::new(),
            library: library::Library::default(),
            messages: voicemail::Messages::default(),
            meters: Meters::new(),
            guesses: guesses::Guesses::default(),
            clock: (now, wall),
            config,
            doors,
            transactions: Transactions::default(),
            figures: Figures::default(),
            rng,
            rows: Arc::default(),
            trunks: Trunks::default(),
            legs: BTreeMap::new(),
            endpoint,
            asked: HashMap::default(),
            invites: HashMap::default(),
            calls: BTreeMap::new(),
            connections: HashMap::default(),
            open: HashMap::default(),
            last_connection: FIRST_CONNECTION,
            last_leg: 0,
            timers: Timers::new(),
            todo: VecDeque::new(),
            outputs: VecDeque::new(),
            sound,
            draining: false,
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Exchange::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let all = [
            self.transactions.poll_timeout(),
            self.timers.next(),
            self.registrar.poll_timeout(),
        ];
        all.into_iter().flatten().min()
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.transactions.handle_timeout(now);
        for change in self.registrar.handle_timeout(now) {
            self.on_phone(&change);
        }
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Leg(id) => self.tell_leg(id, leg::Event::Timeout),
                Timer::Forget(id) => self.forget_leg(now, id),
                Timer::Attempt(id) => self.on_attempt_timeout(now, id),
                Timer::Call(id) => self.tell_call(id, call::Event::Timeout),
                Timer::Minutes(id) => self.look_at_minutes(now, id),
                Timer::Attended(id) => {
                    self.on_attended(now, id, attending::Happens::Timeout);
                }
                Timer::Queue(id) => {
                    self.step_queue(now, &id, gateway_core::queue::Event::Timeout);
                }
                Timer::KeepAlive => self.keep_alive(now),
                Timer::Registration(id) => self.on_registration_timeout(now, &id),
                Timer::Health(id) => self.on_health_timeout(now, &id),
                Timer::Lookup(id) => self.look_up(now, &id),
            }
        }
        self.settle(now);
    }

    /// A message came: a datagram, or one cut out of a stream. `wall` is the time of day.
    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        wall: Timestamp,
        flow: Flow,
        bytes: &[u8],
    ) {
        self.clock = (now, wall);
        let source = flow.remote.ip();
        let known = self.trunks.knows(source);
        // A registered phone has no rate, and proves itself all the same.
        let is_ours = known || self.registrar.is_known(&flow);
        if let Err(silence) = self.admission.admit(now, source, is_ours) {
            return self.figures.silence(silence);
        }
        // What keeps a way through a NAT open (RFC 5626 §3.5.1), or a mere blank.
        if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return;
        }
        let framing = match flow.transport {
            Transport::Udp => Framing::Datagram,
            Transport::Tcp | Transport::Tls => Framing::Stream,
        };
        let tag = self.word();
        match check(bytes, framing, &tag) {
            // A response finds its request by a branch that nobody guesses.
            Ok(Incoming::Response(response)) => {
                let response = Incoming::Response(response);
                self.transactions.handle_incoming(now, flow, response);
            }
            Ok(Incoming::Request(request)) => {
                // Where a phone is, nobody says by their address alone.
                let proves = !known || request.request.method == gateway_sip::Method::Register;
                if proves && !self.admit_stranger(now, flow, &request) {
                    return self.settle(now); // It may have been asked for a password.
                }
                if flow.transport.is_reliable() {
                    self.outputs.push_back(Output::Trust { flow });
                }
                let request = Incoming::Request(request);
                self.transactions.handle_incoming(now, flow, request);
            }
            Err(unfit) if known => self.transactions.handle_unfit(flow, unfit),
            Err(unfit) => self.figures.unfit(unfit.cause),
        }
        self.settle_at(now, wall);
    }

    /// Whether a connection from there is taken, and which way it is then.
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        transport: Transport,
        remote: SocketAddr,
    ) -> Option<Flow> {
        let source = remote.ip();
        let known = self.trunks.knows(source);
        if let Err(silence) = self.admission.admit(now, source, known) {
            self.figures.silence(silence);
            return None;
        }
        let of_them = self.open.values().filter(|flow| flow.remote.ip() == source);
        if self.open.len() >= self.config.connections_max
            || of_them.count() >= self.config.connections_per_address_max
        {
            self.figures.connections_refused += 1;
            return None;
        }
        self.last_connection += 1;
        let flow = Flow {
            transport,
            remote,
            socket: self.last_connection,
        };
        self.open.insert(flow.socket, flow);
        Some(flow)
    }

    /// A connection is over.
    pub(crate) fn handle_closed(&mut self, now: Instant, flow: Flow) {
        self.open.remove(&flow.socket);
        self.connections.retain(|_, socket| *socket != flow.socket);
        for change in self.registrar.handle_broken(&flow) {
            self.on_phone(&change);
        }
        self.transactions.handle_broken(flow);
        self.settle(now);
    }

    /// A name was looked up.
    pub(crate) fn handle_resolved(&mut self, now: Instant, hop: &Hop, found: &Found) {
        self.on_trunk_resolved(now, hop, found);
        self.on_hop_resolved(now, hop, found);
        self.settle(now);
    }

    /// Signaling wants something.
    pub(crate) fn handle_command(&mut self, now: Instant, command: PhoneCommand) {
        self.on_command(now, command);
        self.settle(now);
    }

    /// Something happened to the media of a Leg.
    pub(crate) fn handle_sound(&mut self, now: Instant, event: sound::Event) {
        self.on_sound(now, event);
        self.settle(now);
    }

    /// A file of sound was read, or can't be.
    pub(crate) fn handle_loaded(&mut self, now: Instant, key: SoundKey, clip: Option<Clip>) {
        self.on_loaded(now, key, clip);
        self.settle(now);
    }

    /// A place in a Room was found, or not.
    pub(crate) fn handle_seat(
        &mut self,
        now: Instant,
        leg: LegId,
        track: TrackId,
        end: Result<End, NoSeat>,
    ) {
        self.on_seat(leg, track, end);
        self.settle(now);
    }

    /// From now on new calls are refused; those that live go on.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.endpoint.drain();
    }

    /// Ends all calls and takes all registrations back; what is to be sent for that comes out by [`Exchange::poll_output`].
    pub(crate) fn end_all(&mut self, now: Instant) {
        let calls: Vec<CallId> = self.calls.keys().copied().collect();
        for call in calls {
            self.tell_call(call, call::Event::HangUp);
        }
        self.stop_registrations(now);
        self.settle(now);
    }

    /// Whether nothing waits for an answer any more.
    pub(crate) fn is_quiet(&self) -> bool {
        self.calls.is_empty() && self.asked.is_empty() && !self.messages.are_spoken()
    }

    /// What happened so far.
    pub(crate) fn figures(&self, now: Instant) -> Figures {
        let mut figures = self.figures.clone();
        figures.calls = self.calls.len();
        figures.legs = self.legs.values().filter(|leg| !leg.leg.is_over()).count();
        figures.connections = self.open.len();
        figures.banned = self.admission.banned(now);
        let (clients, servers) = self.transactions.len();
        figures.transactions = clients + servers;
        figures.take_transactions(self.transactions.counters());
        for refusal in Refusal::ALL {
            figures
                .requests_refused
                .insert(refusal.as_str(), self.endpoint.refused(refusal));
        }
        (figures.trunks, figures.trunks_up) = self.trunks.count();
        figures.phones = self.registrar.len();
        figures.waiting = self.queues.values().map(Queue::len).sum();
        figures
    }

    fn tell_leg(&mut self, id: LegId, event: leg::Event) {
        self.todo.push_back(Todo::Leg(id, Box::new(event)));
    }

    fn tell_call(&mut self, id: CallId, event: call::Event) {
        self.todo.push_back(Todo::Call(id, Box::new(event)));
    }

    /// Works through what one thing leads to, until nothing is left to do. A call that comes in takes its id from the time it came at,
    /// which only messages have.
    fn settle(&mut self, now: Instant) {
        self.settle_at(now, Timestamp::from_millis(0));
    }

    fn settle_at(&mut self, now: Instant, wall: Timestamp) {
        loop {
            if let Some(todo) = self.todo.pop_front() {
                match todo {
                    Todo::Leg(id, event) => self.step_leg(now, id, *event),
                    Todo::Call(id, event) => self.step_call(now, id, *event),
                }
            } else if let Some(output) = self.transactions.poll_output() {
                self.on_transaction(now, wall, output);
            } else {
                return;
            }
        }
    }

    fn on_transaction(&mut self, now: Instant, wall: Timestamp, output: transaction::Output) {
        use transaction::Output as T;
        match output {
            T::Send { flow, bytes } => self.outputs.push_back(Output::Send { flow, bytes }),
            T::Request { id, flow, incoming } => self.on_request(now, wall, id, flow, incoming),
            T::Ack { incoming, .. } => {
                if let Some(leg) = self.endpoint.leg_of(&incoming).copied() {
                    self.tell_leg(leg, leg::Event::Ack(incoming));
                }
            }
            T::Cancelled { id, .. } => self.tell_invited(id, leg::Event::Cancelled),
            T::Unacknowledged(id) => self.tell_invited(id, leg::Event::Unacknowledged(id)),
            T::NoPrack(id) => self.tell_invited(id, leg::Event::NoPrack),
            T::Response { id, flow, incoming } => {
                let is_final = incoming.response.code.is_final();
                let is_invite = incoming.envelope.cseq.method == gateway_sip::Method::Invite;
                let Some(asked) = self.asked.get(&id) else {
                    return;
                };
                let owner = asked.owner.clone();
                // Of an INVITE more than one 2xx may come.
                if is_final && !(is_invite && incoming.response.code.is_success()) {
                    self.asked.remove(&id);
                }
                match owner {
                    Owner::Leg(leg, of) => self.on_leg_response(leg, of, flow, incoming),
                    Owner::Registration(trunk) => {
                        self.on_registration_response(now, &trunk, incoming);
                    }
                    Owner::Health(trunk, address) if is_final => {
                        let code = incoming.response.code;
                        let up = code != StatusCode::SERVICE_UNAVAILABLE
                            && code != StatusCode::REQUEST_TIMEOUT;
                        self.on_health(&trunk, address, up);
                    }
                    Owner::Health(..) => {}
                }
            }
            T::TimedOut(id) => self.on_silence(now, id, StatusCode::REQUEST_TIMEOUT),
            T::Failed(id) => self.on_silence(now, id, StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    fn tell_invited(&mut self, id: ServerId, event: leg::Event) {
        if let Some(leg) = self.invites.get(&id).copied() {
            self.tell_leg(leg, event);
        }
    }

    /// No response comes.
    fn on_silence(&mut self, now: Instant, id: ClientId, code: StatusCode) {
        let Some(asked) = self.asked.remove(&id) else {
            return;
        };
        match asked.fallback {
            // Nothing was sent: there is no connection to be had there (RFC 3261 §18.1.1).
            Some((route, request)) if code == StatusCode::SERVICE_UNAVAILABLE => {
                self.figures.sent_long_over_udp += 1;
                self.send_by(now, asked.owner, &route, request, None);
            }
            _ => self.tell_no_response(now, asked.owner, code),
        }
    }

    fn tell_no_response(&mut self, now: Instant, owner: Owner, code: StatusCode) {
        match owner {
            Owner::Leg(leg, of) => self.tell_leg(leg, leg::Event::NoResponse { of, code }),
            Owner::Registration(trunk) => self.on_no_registration_response(now, &trunk, code),
            Owner::Health(trunk, address) => self.on_health(&trunk, address, false),
        }
    }

    /// Sends a request where it goes; by a connection when it is too long for a datagram (RFC 3261 §18.1.1).
    fn send(&mut self, now: Instant, owner: Owner, route: &Route, request: Request) {
        let is_long = route.transport == Transport::Udp
            && request.to_bytes().len() + VIA_LEN_MAX > DATAGRAM_LEN_MAX;
        if is_long && request.method != gateway_sip::Method::Ack {
            let by_tcp = Route {
                transport: Transport::Tcp,
                ..route.clone()
            };
            let fallback = Some((route.clone(), request.clone()));
            self.send_by(now, owner, &by_tcp, request, fallback);
        } else {
            self.send_by(now, owner, route, request, None);
        }
    }

    fn send_by(
        &mut self,
        now: Instant,
        owner: Owner,
        route: &Route,
        request: Request,
        fallback: Option<(Route, Request)>,
    ) {
        match self.flow_to(route) {
            Some(flow) => self.send_on(now, owner, flow, request, fallback),
            None => self.tell_no_response(now, owner, StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    fn send_on(
        &mut self,
        now: Instant,
        owner: Owner,
        flow: Flow,
        request: Request,
        fallback: Option<(Route, Request)>,
    ) {
        let door = self.doors.reached_by(flow.transport, flow.remote.ip());
        let Some(public) = door.map(|door| door.public) else {
            return self.tell_no_response(now, owner, StatusCode::SERVICE_UNAVAILABLE);
        };
        let is_ack = request.method == gateway_sip::Method::Ack;
        let sent_by = (&Host::Ip(public.ip()), public.port());
        let rng = &mut self.rng;
        let sent = self
            .transactions
            .request(now, flow, sent_by, request, &mut || rng.next_u64());
        match sent {
            Ok(_) if is_ack => {}
            Ok(id) => {
                if let Owner::Leg(leg, of) = &owner
                    && let Some(leg) = self.legs.get_mut(leg)
                {
                    leg.sent(*of, id);
                }
                self.asked.insert(id, Asked { owner, fallback });
            }
            Err(transaction::Full) => {
                self.figures.overload += 1;
                self.tell_no_response(now, owner, StatusCode::SERVICE_UNAVAILABLE);
            }
        }
    }

    /// The way there: a socket, or a connection that is there or is made now.
    fn flow_to(&mut self, route: &Route) -> Option<Flow> {
        let door = self.doors.toward(route.transport, route.address.ip());
        if route.transport == Transport::Udp {
            return door.map(|door| Flow {
                transport: Transport::Udp,
                remote: route.address,
                socket: door.socket,
            });
        }
        if let Some(socket) = self.connections.get(route)
            && let Some(flow) = self.open.get(socket)
        {
            return Some(*flow);
        }
        self.last_connection += 1;
        let flow = Flow {
            transport: route.transport,
            remote: route.address,
            socket: self.last_connection,
        };
        self.connections.insert(route.clone(), flow.socket);
        self.open.insert(flow.socket, flow);
        self.outputs.push_back(Output::Connect {
            flow,
            name: route.name.clone(),
        });
        Some(flow)
    }

    /// What the clock on the wall shows.
    fn wall(&self, now: Instant) -> Timestamp {
        let (then, wall) = self.clock;
        let passed = now.saturating_duration_since(then).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        Timestamp::from_millis(wall.as_millis().saturating_add(passed))
    }

    fn word(&mut self) -> String {
        format!("{:016x}", self.rng.next_u64())
    }

    fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }
}

/// Whether an address means something only where it is: nobody elsewhere can send there.
fn is_inner(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || (a == 100 && (64..128).contains(&b)) // shared (RFC 6598)
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
        }
    }
}
