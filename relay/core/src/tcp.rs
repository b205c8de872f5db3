//! TCP Allocations (RFC 6062): a client reaches peers over TCP, by one connection of its own for
//! each peer.
//!
//! ```text
//!  control connection   Allocate, Connect ▶ Output::Connect ▶ handle_connected ▶ CONNECTION-ID
//!                       ConnectionAttempt ◀ handle_peer_connection ◀ a peer
//!  data connection      ConnectionBind, CONNECTION-ID ▶ Output::Splice: bytes, as they are
//! ```
//!
//! The core knows each connection by its id, who may bind it and until when; the driver holds the
//! sockets and asks for every chunk of bytes when it may go on.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::Rng;
use relay_stun::{
    AddressFamily, AttributeType, Class, ErrorCode, IntegrityKey, IntegrityKind, Message,
    MessageWriter, Method,
};

use crate::authentication::Authenticated;
use crate::peer_address::Denial;
use crate::relay::{FiveTuple, Output, Relay, RelayPort, Transport};
use crate::responses::{Head, has_fingerprint};
use crate::{Refusal, Route};

/// How long a peer may take to accept a connection (RFC 6062 §5.2: at least 30 s).
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a peer's connection waits for the client's ConnectionBind (RFC 6062 §5.2, §5.3).
pub(crate) const BIND_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest ConnectionAttempt indication, in bytes: header, XOR-PEER-ADDRESS with an IPv6
/// address, and CONNECTION-ID.
const ATTEMPT_LEN_MAX: usize = 20 + 24 + 8;

/// What a connection is known by (RFC 6062 §6.2.1); drawn at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the peer.
    ToPeer,
    /// From the peer to the client.
    ToClient,
}

/// When bytes may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At once; they are charged and counted.
    Now,
    /// Not yet: ask again after this time. TCP is slowed down where datagrams are dropped.
    After(Duration),
    /// Never: the connection has ended.
    Never,
}

/// A connection between an Allocation and a peer, and the client's to it.
#[derive(Debug)]
struct Connection {
    allocation: usize,
    peer: SocketAddr,
    route: Route,
    state: State,
    /// When it is looked at again.
    deadline: Instant,
}

#[derive(Debug)]
enum State {
    /// The driver connects to the peer; the Connect request waits for its answer.
    Connecting(Box<Asked>),
    /// The peer is there, the client's data connection is not.
    Pending,
    /// Bytes flow.
    Bound {
        /// How the client's data connection came.
        transport: Transport,
        /// When bytes last flowed.
        active: Instant,
    },
}

/// A Connect request that waits for its peer.
#[derive(Debug)]
struct Asked {
    from: FiveTuple,
    head: Head,
    integrity: IntegrityKind,
    key: IntegrityKey,
}

/// The connections of all Allocations.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    by_id: HashMap<ConnectionId, Connection>,
    /// When each is looked at again, earliest first.
    deadlines: BTreeSet<(Instant, ConnectionId)>,
}

impl Connections {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    fn insert(&mut self, id: ConnectionId, connection: Connection) {
        self.deadlines.insert((connection.deadline, id));
        self.by_id.insert(id, connection);
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.by_id.remove(&id)?;
        self.deadlines.remove(&(connection.deadline, id));
        Some(connection)
    }

    fn set_state(&mut self, id: ConnectionId, state: State, deadline: Instant) -> Option<State> {
        let connection = self.by_id.get_mut(&id)?;
        self.deadlines.remove(&(connection.deadline, id));
        self.deadlines.insert((deadline, id));
        connection.deadline = deadline;
        Some(std::mem::replace(&mut connection.state, state))
    }
}

impl Relay {
    /// Takes a connection that a peer at `from` made to `port`. `None`: close it at once. Else it
    /// is to be kept under the id until [`Output::Splice`] or [`Output::Close`] names it.
    pub fn handle_peer_connection(
        &mut self,
        now: Instant,
        port: RelayPort,
        from: SocketAddr,
    ) -> Option<ConnectionId> {
        self.expire(now);
        match self.on_peer_connection(now, port, from) {
            Ok(id) => Some(id),
            Err(refusal) => {
                self.stats.refuse(refusal);
                None
            }
        }
    }

    /// Takes the driver's word that the peer of [`Output::Connect`] is connected.
    pub fn handle_connected(&mut self, now: Instant, id: ConnectionId) {
        self.expire(now);
        self.on_connected(now, id);
    }

    /// Takes the driver's word that the peer of [`Output::Connect`] could not be reached.
    pub fn handle_connect_failed(&mut self, now: Instant, id: ConnectionId) {
        self.expire(now);
        self.end_connection(id);
    }

    /// Takes the end of a connection: both sides have closed, or one has failed.
    pub fn handle_connection_closed(&mut self, now: Instant, id: ConnectionId) {
        self.expire(now);
        self.end_connection(id);
    }

    /// Asks when `len` bytes that were read on a spliced connection may be written. Never fails.
    pub fn handle_connection_data(
        &mut self,
        now: Instant,
        id: ConnectionId,
        direction: Direction,
        len: usize,
    ) -> Pace {
        self.expire(now);
        let Some(Connection {
            allocation,
            peer,
            route,
            state: State::Bound { transport, active },
            ..
        }) = self.connections.by_id.get_mut(&id)
        else {
            return Pace::Never;
        };
        // A peer may be denied since.
        if *route == Route::Network
            && let Err(denial) = self.config.peers.check(*peer, |_| false)
        {
            self.stats.refuse(Refusal::Forbidden(denial));
            self.end_connection(id);
            return Pace::Never;
        }
        *active = now;
        let held = &self.allocations[*allocation];
        if let Err(wait) = held.budget.pace(now, len) {
            return Pace::After(wait);
        }
        let transport = transport.index();
        // A byte stream has no packets of its own.
        match direction {
            Direction::ToPeer => {
                held.tally.count_to_peers(0, len as u64);
                self.stats.from_clients[transport].count(len);
                if *route == Route::Own {
                    self.stats.handed_over.count(len);
                }
            }
            Direction::ToClient => {
                held.tally.count_to_clients(0, len as u64);
                self.stats.to_clients[transport].count(len);
            }
        }
        Pace::Now
    }

    /// Answers a Connect request; the checks are those of RFC 6062 §5.2, in its order.
    pub(crate) fn on_connect(
        &mut self,
        now: Instant,
        from: FiveTuple,
        request: &Message<'_>,
        authenticated: &Authenticated,
    ) -> Result<(), Refusal> {
        let index = self.own_allocation(from, authenticated)?; // 437
        let held = &self.allocations[index];
        if !held.tcp {
            return Err(Refusal::WrongAllocationTransport);
        }
        let peer = request
            .xor_address(AttributeType::XOR_PEER_ADDRESS)
            .ok_or(Refusal::BadRequest)?;
        let is_same = |id: &ConnectionId| self.connections.by_id[id].peer == peer;
        if held.connections.iter().any(is_same) {
            return Err(Refusal::ConnectionExists);
        }
        let relayed = held.relayed_toward(peer);
        let relayed = relayed.ok_or(Refusal::PeerAddressFamilyMismatch)?;
        let (route, other) = self.check_tcp_peer(index, peer)?; // 403
        self.ensure_connections_fit(index)?;

        let asked = Box::new(Asked {
            from,
            head: Head {
                id: request.transaction_id(),
                method: Method::CONNECT,
                fingerprint: has_fingerprint(request),
            },
            integrity: authenticated.integrity,
            key: authenticated.key.clone(),
        });
        if let (Route::Own, Some(other)) = (route, other) {
            self.connect_own(now, index, relayed, peer, other, asked);
            return Ok(());
        }
        let port = RelayPort::new(index, relayed);
        let id = self.open_connection(Connection {
            allocation: index,
            peer,
            route,
            state: State::Connecting(asked),
            deadline: now + CONNECT_TIMEOUT,
        });
        self.outputs.push_back(Output::Connect { id, port, peer });
        Ok(())
    }

    /// Connects two TCP Allocations of this relay with one another, which no network sees: the
    /// one at `peer` hears of an attempt, as it would from any peer.
    fn connect_own(
        &mut self,
        now: Instant,
        index: usize,
        relayed: SocketAddr,
        peer: SocketAddr,
        other: usize,
        asked: Box<Asked>,
    ) {
        let one = self.open_connection(Connection {
            allocation: index,
            peer,
            route: Route::Own,
            state: State::Connecting(asked),
            deadline: now + CONNECT_TIMEOUT,
        });
        match self.accept_connection(now, other, relayed, Route::Own) {
            Ok(other) => {
                self.outputs.push_back(Output::Pair { one, other });
                self.on_connected(now, one);
            }
            Err(refusal) => {
                // To the one who asks, a peer that takes no connection is as good as none.
                self.stats.refuse(refusal);
                self.end_connection(one);
            }
        }
    }

    /// Answers a ConnectionBind request; the checks are those of RFC 6062 §5.4, in its order.
    pub(crate) fn on_connection_bind(
        &mut self,
        now: Instant,
        from: FiveTuple,
        request: &Message<'_>,
        authenticated: &Authenticated,
    ) -> Result<(), Refusal> {
        // A stream that controls an Allocation can't stop to.
        if !is_byte_stream(from.transport) || self.index_of(&from).is_some() {
            return Err(Refusal::BadRequest);
        }
        let id = request.u32(AttributeType::CONNECTION_ID);
        let id = ConnectionId(id.ok_or(Refusal::BadRequest)?);
        let pending = self.connections.by_id.get(&id);
        let pending = pending.filter(|held| matches!(held.state, State::Pending));
        let allocation = pending.ok_or(Refusal::UnknownConnection)?.allocation;
        if self.allocations[allocation].identity.user() != authenticated.identity.user() {
            return Err(Refusal::WrongCredentials);
        }

        let bound = State::Bound {
            transport: from.transport,
            active: now,
        };
        let idle = now + self.config.connection_idle;
        self.connections.set_state(id, bound, idle);
        self.stats.connections_bound += 1;
        self.send_success(from, request, authenticated, |writer| {
            writer.u32(AttributeType::CONNECTION_ID, id.0)
        });
        self.outputs.push_back(Output::Splice { id, client: from });
        Ok(())
    }

    /// Whom a ConnectionBind request is about, for its key.
    pub(crate) fn index_of_connection(&self, request: &Message<'_>) -> Option<usize> {
        if request.method() != Method::CONNECTION_BIND {
            return None;
        }
        let id = ConnectionId(request.u32(AttributeType::CONNECTION_ID)?);
        Some(self.connections.by_id.get(&id)?.allocation)
    }

    fn on_connected(&mut self, now: Instant, id: ConnectionId) {
        let connecting = |held: &Connection| matches!(held.state, State::Connecting(_));
        if !self.connections.by_id.get(&id).is_some_and(connecting) {
            return;
        }
        let deadline = now + BIND_TIMEOUT;
        let before = self.connections.set_state(id, State::Pending, deadline);
        if let Some(State::Connecting(asked)) = before {
            self.answer_connect(&asked, Class::Success, |writer| {
                writer.u32(AttributeType::CONNECTION_ID, id.0)
            });
        }
    }

    fn on_peer_connection(
        &mut self,
        now: Instant,
        port: RelayPort,
        from: SocketAddr,
    ) -> Result<ConnectionId, Refusal> {
        let index = port.allocation();
        let held = self.allocations.get(index);
        held.filter(|held| held.tcp && held.opening.is_none() && held.holds(port.address))
            .ok_or(Refusal::NoAllocation)?;
        // What two own Allocations have for one another comes through memory.
        self.config
            .peers
            .check(from, |_| false)
            .map_err(Refusal::Forbidden)?;
        self.accept_connection(now, index, from, Route::Network)
    }

    /// Takes a connection from `peer` and tells the client of it (RFC 6062 §5.3).
    fn accept_connection(
        &mut self,
        now: Instant,
        index: usize,
        peer: SocketAddr,
        route: Route,
    ) -> Result<ConnectionId, Refusal> {
        let held = &self.allocations[index];
        if held.is_gone {
            return Err(Refusal::NoAllocation); // Nobody is there for the moment.
        }
        if !held.permissions.permits(now, peer.ip()) {
            return Err(Refusal::NoPermission);
        }
        let to = held.five_tuple;
        self.ensure_connections_fit(index)?;
        let id = self.open_connection(Connection {
            allocation: index,
            peer,
            route,
            state: State::Pending,
            deadline: now + BIND_TIMEOUT,
        });
        let transaction_id = self.new_transaction_id();
        let mut buffer = [0; ATTEMPT_LEN_MAX];
        let attempt = MessageWriter::new(
            &mut buffer,
            Class::Indication,
            Method::CONNECTION_ATTEMPT,
            transaction_id,
        )
        .xor_address(AttributeType::XOR_PEER_ADDRESS, peer)
        .u32(AttributeType::CONNECTION_ID, id.0)
        .finish()
        .expect("ATTEMPT_LEN_MAX leaves room for both attributes");
        let bytes = attempt.to_vec();
        self.outputs.push_back(Output::Send { to, bytes });
        Ok(id)
    }

    /// Whether a peer may be connected to, and the Allocation behind it where it is an own one.
    fn check_tcp_peer(
        &self,
        index: usize,
        peer: SocketAddr,
    ) -> Result<(Route, Option<usize>), Refusal> {
        // A connection to itself would be opened by nobody but itself.
        if self.allocations[index].holds(peer) {
            return Err(Refusal::Forbidden(Denial::OwnAddress));
        }
        let other = self.live_listening(peer);
        let route = self
            .config
            .peers
            .check(peer, |_| other.is_some())
            .map_err(Refusal::Forbidden)?;
        // Media ports are UDP ports; what listens at the same numbers over TCP is something else.
        if matches!(route, Route::Media(_)) {
            return Err(Refusal::Forbidden(Denial::OwnAddress));
        }
        Ok((route, other))
    }

    /// The TCP Allocation behind a relayed address, once it listens.
    fn live_listening(&self, address: SocketAddr) -> Option<usize> {
        let index = *self.allocation_by_relayed.get(&address)?;
        let held = &self.allocations[index];
        (held.tcp && held.opening.is_none()).then_some(index)
    }

    fn ensure_connections_fit(&self, index: usize) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let held = &self.allocations[index];
        let unbound =
            |id: &&ConnectionId| !matches!(self.connections.by_id[id].state, State::Bound { .. });
        if self.connections.len() >= limits.connections_max
            || held.connections.len() >= limits.connections_per_allocation_max
            || held.connections.iter().filter(unbound).count()
                >= limits.connections_unbound_per_allocation_max
        {
            return Err(Refusal::ConnectionsExhausted);
        }
        self.quotas
            .ensure_connection_fits(held.identity.user(), limits)
    }

    /// Takes a connection in, for which [`ensure_connections_fit`](Self::ensure_connections_fit)
    /// found room.
    fn open_connection(&mut self, connection: Connection) -> ConnectionId {
        let id = loop {
            let id = ConnectionId(self.rng.next_u32());
            if !self.connections.by_id.contains_key(&id) {
                break id;
            }
        };
        let held = &mut self.allocations[connection.allocation];
        held.connections.push(id);
        self.quotas.hold_connection(held.identity.user());
        self.connections.insert(id, connection);
        id
    }

    /// Ends a connection, with 447 to the client that still waits for it.
    fn end_connection(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(id) else {
            return;
        };
        let held = &mut self.allocations[connection.allocation];
        held.connections.retain(|other| *other != id);
        self.quotas.release_connection(held.identity.user());
        self.outputs.push_back(Output::Close(id));
        if let State::Connecting(asked) = connection.state {
            self.stats.refuse(Refusal::ConnectionFailed);
            self.answer_connect(&asked, Class::Error, |writer| {
                writer.error_code(ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE)
            });
        }
    }

    /// Ends the connections of an Allocation to peers for which `ends` holds.
    pub(crate) fn end_connections(&mut self, index: usize, ends: impl Fn(IpAddr) -> bool) {
        let ids = self.allocations[index].connections.clone();
        for id in ids {
            if ends(self.connections.by_id[&id].peer.ip()) {
                self.end_connection(id);
            }
        }
    }

    /// Ends what has waited too long, and looks again at what has moved meanwhile.
    pub(crate) fn expire_connections(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.connections.deadlines.first()
            && deadline <= now
        {
            let idle = self.config.connection_idle;
            match &self.connections.by_id[&id].state {
                &State::Bound { transport, active } if active + idle > now => {
                    let bound = State::Bound { transport, active };
                    self.connections.set_state(id, bound, active + idle);
                    continue;
                }
                State::Bound { .. } => self.stats.refuse(Refusal::ConnectionIdle),
                State::Pending => self.stats.refuse(Refusal::ConnectionUnbound),
                State::Connecting(_) => {} // Counted where it is answered.
            }
            self.end_connection(id);
        }
    }

    fn answer_connect(
        &mut self,
        asked: &Asked,
        class: Class,
        build: impl FnOnce(MessageWriter<'_>) -> MessageWriter<'_>,
    ) {
        let protection = Some((asked.integrity, &asked.key));
        self.write(asked.from, asked.head, class, protection, build);
    }
}

/// Whether a client's transport is one that RFC 6062 allows: TCP, with TLS or without.
pub(crate) fn is_byte_stream(transport: Transport) -> bool {
    matches!(transport, Transport::Tcp | Transport::Tls)
}

/// Whether a request may ask for a TCP Allocation (RFC 6062 §5.1).
pub(crate) fn ensure_tcp_allocation(from: FiveTuple, request: &Message<'_>) -> Result<(), Refusal> {
    let has = |attribute| request.attribute(attribute).is_some();
    if !is_byte_stream(from.transport)
        || has(AttributeType::DONT_FRAGMENT)
        || has(AttributeType::EVEN_PORT)
        || has(AttributeType::RESERVATION_TOKEN)
    {
        return Err(Refusal::BadRequest);
    }
    Ok(())
}

/// Whether `ip` is of `family`.
pub(crate) fn is_of(family: AddressFamily) -> impl Fn(IpAddr) -> bool {
    move |ip| AddressFamily::of(ip) == family
}
