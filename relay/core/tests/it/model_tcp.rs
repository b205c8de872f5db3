//! TCP Allocations (RFC 6062) against a naive model of them, step by step under simulated time.
//!
//! `RELAY_MODEL_SEEDS` sets how many seeds are run, `RELAY_MODEL_SEED` runs one alone.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use relay_core::{ConnectionId, Direction, Output, PERMISSION_LIFETIME, Pace, Transport};
use relay_stun::client::{AllocateOptions, Event, Request};
use relay_stun::{AttributeType, Class, ErrorCode, Message, Method};

use crate::model::for_each_seed;
use crate::world::{OTHER_PEER, PEER, PEER_V6, Phone, World};

const STEPS: u16 = 300;
const CONNECTIONS_MAX: usize = 6;
const CONNECTIONS_PER_ALLOCATION_MAX: usize = 4;
const UNBOUND_MAX: usize = 3;
const IDLE: Duration = Duration::from_secs(100);
const LIFETIME: Duration = Duration::from_secs(600);

/// How long a peer may take to accept, and the client to bind (RFC 6062 §5.2).
const WAIT: Duration = Duration::from_secs(30);

/// Peers nobody may reach.
const FORBIDDEN_PEER: &str = "10.0.0.1:5000";
const LOW_PORT_PEER: &str = "8.8.8.8:53";
const OWN_PEER: &str = "7.7.7.7:3478";

/// What everybody holds, kept in the simplest way.
#[derive(Default)]
struct Model {
    /// By client.
    held: Vec<Option<Held>>,
    connections: Vec<Connection>,
    /// What the driver is told, and what clients are sent, in this step.
    told: Vec<String>,
    sent: Vec<String>,
}

struct Held {
    relayed: String,
    expires: Instant,
    /// IP addresses, and until when.
    permissions: Vec<(String, Instant)>,
}

struct Connection {
    id: ConnectionId,
    holder: usize,
    peer: String,
    state: State,
    deadline: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Pending,
    Bound { active: Instant },
}

#[test]
fn the_core_does_what_the_model_of_rfc_6062_says() {
    for_each_seed(run);
}

fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::seeded(seed, |config| {
        config.limits.connections_max = CONNECTIONS_MAX;
        config.limits.connections_per_allocation_max = CONNECTIONS_PER_ALLOCATION_MAX;
        config.limits.connections_unbound_per_allocation_max = UNBOUND_MAX;
        config.connection_idle = IDLE;
    });
    let mut phones: Vec<Phone> = [Transport::Tcp, Transport::Tls, Transport::Tcp]
        .into_iter()
        .zip(1000..)
        .map(|(transport, port)| world.phone(&name_of(port), port, transport))
        .collect();
    let mut model = Model {
        held: phones.iter().map(|_| None).collect(),
        ..Model::default()
    };
    let mut ids = vec![ConnectionId(7)];

    for step in 0..STEPS {
        let at = rng.random_range(0..phones.len());
        let other = phones[(at + 1) % 3]
            .relayed
            .map(|relayed| relayed.to_string());
        let peer = match rng.random_range(0..10) {
            0..=2 => PEER.to_owned(),
            3..=4 => OTHER_PEER.to_owned(),
            5 => [FORBIDDEN_PEER, LOW_PORT_PEER, OWN_PEER, PEER_V6][rng.random_range(0..4)]
                .to_owned(),
            6 => phones[at]
                .relayed
                .map_or(OWN_PEER.to_owned(), |own| own.to_string()),
            _ => other.unwrap_or(OWN_PEER.to_owned()),
        };
        // One that lives, or any that was ever seen.
        let any = ids[rng.random_range(0..ids.len())];
        let id = match rng.random_range(0..3 * model.connections.len().max(1)) {
            0 => any,
            which => model.connections.get(which / 3).map_or(any, |held| held.id),
        };
        let now = world.now;
        let context = format!("seed {seed}, step {step}, client {at}, peer {peer}, {id:?}");

        match rng.random_range(0..16) {
            0..=1 => {
                let options = AllocateOptions {
                    tcp: true,
                    ..AllocateOptions::default()
                };
                let got = world.allocate_with(&mut phones[at], options);
                match &model.held[at] {
                    Some(_) => assert_eq!(got, Err(ErrorCode::ALLOCATION_MISMATCH), "{context}"),
                    None => {
                        assert_eq!(got, Ok(()), "{context}: allocate");
                        model.held[at] = Some(Held {
                            relayed: phones[at].relayed(),
                            expires: now + LIFETIME,
                            permissions: Vec::new(),
                        });
                    }
                }
            }
            2 => {
                let lifetime = if rng.random_range(0..3) == 0 { 0 } else { 600 };
                let expected = model.held[at].as_ref().map(|_| lifetime);
                let expected = expected.ok_or(ErrorCode::ALLOCATION_MISMATCH);
                match (&mut model.held[at], lifetime) {
                    (Some(_), 0) => model.end(at),
                    (Some(held), _) => held.expires = now + LIFETIME,
                    (None, _) => {}
                }
                let got = world.refresh(&mut phones[at], lifetime);
                assert_eq!(got, expected, "{context}: refresh");
            }
            3..=4 => {
                let expected = match &mut model.held[at] {
                    None => Err(ErrorCode::ALLOCATION_MISMATCH),
                    Some(_) if peer == PEER_V6 => Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH),
                    Some(_) if peer == FORBIDDEN_PEER => Err(ErrorCode::FORBIDDEN),
                    Some(held) => {
                        held.permit(now, &peer);
                        Ok(())
                    }
                };
                let got = world.permit(&mut phones[at], &peer);
                assert_eq!(got, expected, "{context}: permit");
            }
            5..=7 => {
                let expected = model.connect(now, at, &peer);
                let got = connect(&mut world, &mut phones[at], &peer);
                match (expected, got) {
                    (Expected::Refused(expected), Asked::Refused(got)) => {
                        assert_eq!(got, expected, "{context}: connect");
                    }
                    (Expected::Waits, Asked::Waits(id)) => {
                        ids.push(id);
                        model.add(id, at, &peer, State::Connecting, now + WAIT);
                        model.told.push(format!("connect {peer}"));
                    }
                    // One was opened and ended at once.
                    (Expected::RefusedByOther, Asked::Refused(got)) => {
                        assert_eq!(got, ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE, "{context}");
                        assert!(
                            matches!(world.told.pop(), Some(Output::Close(_))),
                            "{context}"
                        );
                    }
                    (Expected::Paired(holder), Asked::Connected(id)) => {
                        let Some(Output::Pair { one, other }) = world.told.pop() else {
                            panic!("{context}: no pair");
                        };
                        assert_eq!(one, id, "{context}: pair");
                        let own = model.held[at].as_ref().unwrap().relayed.clone();
                        ids.extend([one, other]);
                        model.add(one, at, &peer, State::Pending, now + WAIT);
                        model.add(other, holder, &own, State::Pending, now + WAIT);
                        model
                            .sent
                            .push(format!("{holder}: attempt {other:?} of {own}"));
                    }
                    (expected, got) => panic!("{context}: {got:?} in place of {expected:?}"),
                }
            }
            8 => {
                if let Some(held) = model.find(id, |state| state == State::Connecting) {
                    held.state = State::Pending;
                    held.deadline = now + WAIT;
                    let holder = held.holder;
                    model.sent.push(format!("{holder}: connected {id:?}"));
                }
                world.relay.handle_connected(now, id);
            }
            9 => {
                model.close(id);
                match rng.random() {
                    true => world.relay.handle_connect_failed(now, id),
                    false => world.relay.handle_connection_closed(now, id),
                }
            }
            10..=11 => {
                let from = match peer.as_str() {
                    PEER => format!("8.8.8.8:{}", 6000 + step),
                    _ => peer.clone(),
                };
                let port = world.ports.iter().flatten();
                let mut port = port.filter(|port| Some(port.address) == phones[at].relayed);
                // The address may be somebody else's by now.
                let Some(port) = port.next().copied().filter(|_| model.held[at].is_some()) else {
                    continue;
                };
                let is_let_in = model.accepts(now, at, &from);
                let got = world
                    .relay
                    .handle_peer_connection(now, port, from.parse().unwrap());
                assert_eq!(got.is_some(), is_let_in, "{context}: {from} connects");
                if let Some(id) = got {
                    ids.push(id);
                    model.add(id, at, &from, State::Pending, now + WAIT);
                    model.sent.push(format!("{at}: attempt {id:?} of {from}"));
                }
            }
            12..=13 => {
                let holder = model.find(id, |_| true).map(|held| held.holder);
                let by = holder.filter(|_| rng.random_range(0..4) > 0).unwrap_or(at);
                let name = phones[by].at.client.port();
                let mut data = world.phone(&name_of(name), 3000 + step, Transport::Tls);
                let expected = match model.find(id, |state| state == State::Pending) {
                    None => Err(ErrorCode::BAD_REQUEST),
                    Some(held) if held.holder != by => Err(ErrorCode::WRONG_CREDENTIALS),
                    Some(held) => {
                        held.state = State::Bound { active: now };
                        held.deadline = now + IDLE;
                        model.told.push(format!("splice {id:?}"));
                        Ok(())
                    }
                };
                let connection_id = id.0;
                let got = world.ask(&mut data, Request::ConnectionBind { connection_id });
                assert_eq!(got.map(|_| ()), expected, "{context}: bind");
            }
            14 => {
                let bound = model.find(id, |state| matches!(state, State::Bound { .. }));
                let expected = match bound {
                    None => Pace::Never,
                    Some(held) => {
                        held.state = State::Bound { active: now };
                        Pace::Now
                    }
                };
                let direction = [Direction::ToPeer, Direction::ToClient][rng.random_range(0..2)];
                let got = world.relay.handle_connection_data(now, id, direction, 100);
                assert_eq!(got, expected, "{context}: data");
            }
            _ if rng.random_range(0..4) == 0 => {
                model.end(at);
                world.relay.handle_stream_closed(now, phones[at].at);
            }
            _ => {
                let seconds = [1, 29, 30, 31, 99, 100, 300, 600][rng.random_range(0..8)];
                world.advance(Duration::from_secs(seconds));
                model.expire(world.now);
            }
        }
        world.drain();

        let mut told: Vec<_> = world.told.drain(..).map(|output| show(&output)).collect();
        let mut sent: Vec<String> = world
            .sent
            .drain(..)
            .map(|(to, bytes)| format!("{}: {}", to.client.port() - 1000, show_message(&bytes)))
            .collect();
        for list in [&mut told, &mut sent, &mut model.told, &mut model.sent] {
            list.sort();
        }
        assert_eq!(told, std::mem::take(&mut model.told), "{context}: told");
        assert_eq!(sent, std::mem::take(&mut model.sent), "{context}: sent");
        let stats = world.relay.stats();
        let allocations = model.held.iter().flatten().count();
        let counted = (stats.allocations, stats.connections);
        assert_eq!(counted, (allocations, model.connections.len()), "{context}");
        assert_eq!(world.relay.poll_timeout(), model.deadline(), "{context}");
    }
}

/// What comes of a Connect request.
#[derive(Debug)]
enum Expected {
    Refused(ErrorCode),
    /// The peer is connected to, over the network.
    Waits,
    /// The peer is the Allocation of this client.
    Paired(usize),
    /// It is another's Allocation, which takes none.
    RefusedByOther,
}

#[derive(Debug)]
enum Asked {
    Refused(ErrorCode),
    Waits(ConnectionId),
    Connected(ConnectionId),
}

impl Model {
    /// The checks of RFC 6062 §5.2, in its order.
    fn connect(&self, now: Instant, at: usize, peer: &str) -> Expected {
        let Some(held) = &self.held[at] else {
            return Expected::Refused(ErrorCode::ALLOCATION_MISMATCH);
        };
        let its = |connection: &&Connection| connection.holder == at;
        if self
            .connections
            .iter()
            .filter(its)
            .any(|held| held.peer == peer)
        {
            return Expected::Refused(ErrorCode::CONNECTION_ALREADY_EXISTS);
        }
        if peer == PEER_V6 {
            return Expected::Refused(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH);
        }
        let behind = |held: &Option<Held>| held.as_ref().is_some_and(|held| held.relayed == peer);
        let other = self.held.iter().position(behind);
        if held.relayed == peer || (other.is_none() && !is_public(peer)) {
            return Expected::Refused(ErrorCode::FORBIDDEN);
        }
        if !self.has_room(at, 0) {
            return Expected::Refused(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        match other {
            None => Expected::Waits,
            Some(other) if self.permits(now, other, &held.relayed) && self.has_room(other, 1) => {
                Expected::Paired(other)
            }
            Some(_) => Expected::RefusedByOther,
        }
    }

    fn accepts(&self, now: Instant, at: usize, from: &str) -> bool {
        is_public(from) && self.permits(now, at, from) && self.has_room(at, 0)
    }

    fn permits(&self, now: Instant, at: usize, peer: &str) -> bool {
        let held = self.held[at].as_ref();
        let permitted = |(ip, until): &(String, Instant)| ip == ip_of(peer) && now < *until;
        held.is_some_and(|held| held.permissions.iter().any(permitted))
    }

    /// Whether a connection fits beside those there are and so many `more` of others.
    fn has_room(&self, at: usize, more: usize) -> bool {
        let its = || self.connections.iter().filter(|held| held.holder == at);
        let unbound = its().filter(|held| !matches!(held.state, State::Bound { .. }));
        self.connections.len() + more < CONNECTIONS_MAX
            && its().count() < CONNECTIONS_PER_ALLOCATION_MAX
            && unbound.count() < UNBOUND_MAX
    }

    fn add(
        &mut self,
        id: ConnectionId,
        holder: usize,
        peer: &str,
        state: State,
        deadline: Instant,
    ) {
        self.connections.push(Connection {
            id,
            holder,
            peer: peer.to_owned(),
            state,
            deadline,
        });
    }

    fn find(&mut self, id: ConnectionId, is: impl Fn(State) -> bool) -> Option<&mut Connection> {
        let mut connections = self.connections.iter_mut();
        connections.find(|held| held.id == id && is(held.state))
    }

    /// Ends a connection, if it is there.
    fn close(&mut self, id: ConnectionId) {
        let Some(place) = self.connections.iter().position(|held| held.id == id) else {
            return;
        };
        let ended = self.connections.remove(place);
        self.told.push(format!("close {id:?}"));
        if ended.state == State::Connecting {
            self.sent
                .push(format!("{}: refused with 447", ended.holder));
        }
    }

    /// Ends an Allocation, if it is there.
    fn end(&mut self, at: usize) {
        self.held[at] = None;
        let its = self.connections.iter().filter(|held| held.holder == at);
        let its: Vec<_> = its.map(|held| held.id).collect();
        for id in its {
            self.close(id);
        }
    }

    fn expire(&mut self, now: Instant) {
        let mut over = Vec::new();
        for held in &mut self.connections {
            match held.state {
                _ if held.deadline > now => {}
                State::Bound { active } if active + IDLE > now => held.deadline = active + IDLE,
                _ => over.push(held.id),
            }
        }
        for id in over {
            self.close(id);
        }
        for at in 0..self.held.len() {
            if self.held[at]
                .as_ref()
                .is_some_and(|held| held.expires <= now)
            {
                self.end(at);
            }
        }
    }

    /// When something ends next, or is looked at again.
    fn deadline(&self) -> Option<Instant> {
        let allocations = self.held.iter().flatten().map(|held| held.expires);
        let connections = self.connections.iter().map(|held| held.deadline);
        allocations.chain(connections).min()
    }
}

impl Held {
    fn permit(&mut self, now: Instant, peer: &str) {
        self.permissions.retain(|(ip, _)| ip != ip_of(peer));
        let until = now + PERMISSION_LIFETIME;
        self.permissions.push((ip_of(peer).to_owned(), until));
    }
}

/// Peers everybody may reach.
fn is_public(peer: &str) -> bool {
    peer != LOW_PORT_PEER && ["8.8.8.8", "9.9.9.9"].contains(&ip_of(peer))
}

fn ip_of(peer: &str) -> &str {
    peer.rsplit_once(':').unwrap().0
}

fn name_of(port: u16) -> String {
    format!("user{port}")
}

fn connect(world: &mut World, phone: &mut Phone, peer: &str) -> Asked {
    let peer = peer.parse().unwrap();
    let mut request = phone.conversation.request(Request::Connect { peer });
    loop {
        let Some(answer) = world.exchange(phone, &request) else {
            let Some(Output::Connect { id, .. }) = world.told.last() else {
                panic!("no answer, and nothing is connected");
            };
            return Asked::Waits(*id);
        };
        match phone.conversation.handle(&answer) {
            Event::Retry(retry) => request = retry,
            Event::Success(answer) => {
                return Asked::Connected(ConnectionId(answer.connection_id.unwrap()));
            }
            Event::Refused(code) => return Asked::Refused(code),
            event => panic!("{event:?}"),
        }
    }
}

fn show(output: &Output) -> String {
    match output {
        Output::Connect { peer, .. } => format!("connect {peer}"),
        Output::Splice { id, .. } => format!("splice {id:?}"),
        Output::Close(id) => format!("close {id:?}"),
        output => format!("{output:?}"),
    }
}

/// What a client is told of its connections.
fn show_message(bytes: &[u8]) -> String {
    let message = Message::parse(bytes).unwrap();
    let id = message.u32(AttributeType::CONNECTION_ID).map(ConnectionId);
    match (message.class(), message.method(), id) {
        (Class::Error, Method::CONNECT, None) => {
            format!("refused with {}", message.error_code().unwrap().0)
        }
        (Class::Success, Method::CONNECT, Some(id)) => format!("connected {id:?}"),
        (Class::Indication, Method::CONNECTION_ATTEMPT, Some(id)) => {
            let peer = message.xor_address(AttributeType::XOR_PEER_ADDRESS);
            format!("attempt {id:?} of {}", peer.unwrap())
        }
        other => panic!("{other:?}"),
    }
}
