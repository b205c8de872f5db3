//! The relay: what comes in, what goes out, and the Allocations in between.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::mem::replace;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use relay_stun::{Icmp, PacketKind, TransactionId, classify};
use slab::Slab;

use crate::allocation::{Allocation, family_index};
use crate::icmp::INDICATION_LEN_MAX;
use crate::limiter::Limiter;
use crate::mobility::Tickets;
use crate::nonce::Nonces;
use crate::path::PathUpdate;
use crate::ports::BusyPorts;
use crate::quota::Quotas;
use crate::reservation::Reservations;
use crate::tcp::{ConnectionId, Connections};
use crate::usage::Usages;
use crate::{Config, Credentials, PeerPolicy, Refusal, Stats};

/// How many relayed addresses of before are still own ones. What lives behind one that was before
/// them is out of reach for other Allocations.
const FORMER_IPS_MAX: usize = 8;

/// How a client reaches the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// DTLS over UDP.
    Dtls,
}

impl Transport {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// All, in the order of [`index`](Self::index).
    pub const ALL: [Transport; Transport::COUNT] = [
        Transport::Udp,
        Transport::Tcp,
        Transport::Tls,
        Transport::Dtls,
    ];

    /// A dense number, for tables.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// A stable word for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Dtls => "dtls",
        }
    }

    /// Whether ChannelData is padded to a multiple of 4 bytes (RFC 8656 §12.5): it has to be in a
    /// byte stream, and is over DTLS, which is served as one.
    #[must_use]
    pub fn is_stream(self) -> bool {
        self != Transport::Udp
    }
}

/// What an Allocation is known by (RFC 8656 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// The client's address, as the server sees it.
    pub client: SocketAddr,
    /// The server's address, as the driver listens on it.
    pub server: SocketAddr,
    /// The transport between the two.
    pub transport: Transport,
}

/// A relayed port the driver binds for an Allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelayPort {
    /// A dense number, for tables: twice the Allocation's, and one more for IPv6. Used again once
    /// the port is closed.
    pub index: usize,
    /// The relayed address as peers see it. The port is the one to bind, the address may differ
    /// behind a NAT.
    pub address: SocketAddr,
}

impl RelayPort {
    pub(crate) fn new(allocation: usize, address: SocketAddr) -> RelayPort {
        RelayPort {
            index: 2 * allocation + family_index(address.ip()),
            address,
        }
    }

    /// The Allocation's own dense number, which its two ports share.
    #[must_use]
    pub fn allocation(self) -> usize {
        self.index / 2
    }
}

/// What the driver should do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send `bytes` to a client: a response.
    Send {
        /// The client, and the socket to send from.
        to: FiveTuple,
        /// One whole message.
        bytes: Vec<u8>,
    },
    /// Bind a relayed port, say so with [`Relay::handle_port_opened`] or
    /// [`Relay::handle_port_failed`], and hand what arrives there to
    /// [`Relay::handle_peer_datagram`].
    OpenPort(RelayPort),
    /// Listen for TCP connections at a relayed port, with the same answers, and tell of each with
    /// [`Relay::handle_peer_connection`].
    Listen(RelayPort),
    /// Connect to a peer from a relayed port over TCP, and say what came of it with
    /// [`Relay::handle_connected`] or [`Relay::handle_connect_failed`].
    Connect {
        /// What the connection is known by.
        id: ConnectionId,
        /// The port to connect from.
        port: RelayPort,
        /// The peer.
        peer: SocketAddr,
    },
    /// Connect two connections with one another in memory: each is the other's peer.
    Pair {
        /// The one that was asked for.
        one: ConnectionId,
        /// The one that was offered.
        other: ConnectionId,
    },
    /// Pass bytes on between the peer of a connection and this client's stream, which carries no
    /// messages any more, as [`Relay::handle_connection_data`] allows; what the client has sent
    /// already belongs to the peer. The response before it is the last that the client is sent.
    Splice {
        /// The connection.
        id: ConnectionId,
        /// The client's data connection.
        client: FiveTuple,
    },
    /// Close a connection on both sides, whatever its state.
    Close(ConnectionId),
    /// Release a relayed port of either kind, and [close](crate::Path::close_port) it on its client's Path.
    ClosePort(RelayPort),
    /// Serve a relayed port, which stays open, for another 5-tuple, that of the same client
    /// elsewhere. The Path that served it [closes](crate::Path::close_port) it; the Path of `to`,
    /// where there is one, is told of it by the updates that follow.
    MovePort {
        /// The port.
        port: RelayPort,
        /// Where the client is from now on.
        to: FiveTuple,
    },
    /// Tell the [`Path`](crate::Path) that serves the client, where there is one. Comes before the
    /// response that promises it, so what is sent to a client must leave after what was told.
    Path(PathUpdate),
}

/// Media on its way out; `payload` is the part of the packet just handled that goes along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// Send the payload from a relayed port, as it is.
    ToPeer {
        /// The port to send from.
        port: RelayPort,
        /// The peer.
        to: SocketAddr,
        /// The payload's place in the packet.
        payload: Range<usize>,
        /// Nobody may take the datagram apart: it goes with DF set, or not at all. All others go
        /// with DF clear (RFC 8656 §15, alternate behavior).
        dont_fragment: bool,
    },
    /// Hand the payload to the SFU of this process, as it is.
    ToMedia {
        /// The SFU's thread, as [`PeerPolicy::media`] names it.
        thread: usize,
        /// The relayed address it comes from.
        from: SocketAddr,
        /// The media port it is for.
        to: SocketAddr,
        /// The payload's place in the packet.
        payload: Range<usize>,
    },
    /// Send the payload to a client, with `prefix` in front and `padding` zero bytes behind.
    ToClient {
        /// The client, and the socket to send from.
        to: FiveTuple,
        /// What stands in front of the payload.
        prefix: Prefix,
        /// The payload's place in the packet.
        payload: Range<usize>,
        /// How many zero bytes follow the payload (0 to 3).
        padding: usize,
    },
}

/// What stands in front of a payload: a ChannelData header, all of a Data indication but its
/// payload, or a whole Data indication that has none. At most [`Prefix::LEN_MAX`] bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    pub(crate) bytes: [u8; Prefix::LEN_MAX],
    pub(crate) len: usize,
}

impl Prefix {
    /// The longest there is, in bytes: an indication of what ICMP said.
    pub const LEN_MAX: usize = INDICATION_LEN_MAX;

    /// The bytes to write.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::fmt::Debug for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prefix of {} bytes", self.len)
    }
}

/// A TURN server without sockets; see the crate's page for its two ways in and out.
#[derive(Debug)]
pub struct Relay {
    pub(crate) config: Config,
    pub(crate) credentials: Credentials,
    pub(crate) nonces: Nonces,
    pub(crate) tickets: Tickets,
    pub(crate) strangers: Limiter,
    /// No new Allocation is granted.
    pub(crate) draining: bool,
    pub(crate) rng: StdRng,
    /// When the relay's own time began; nonces count seconds from here.
    pub(crate) epoch: Instant,
    /// The time since 1970 at some instant, for the expiry in user names.
    pub(crate) wall_clock: (Instant, Duration),
    pub(crate) allocations: Slab<Allocation>,
    pub(crate) allocation_by_five_tuple: HashMap<FiveTuple, usize>,
    /// Of those that may move, by their number.
    pub(crate) allocation_by_number: HashMap<u64, usize>,
    /// The number of the next Allocation.
    pub(crate) next_number: u64,
    pub(crate) allocation_by_relayed: HashMap<SocketAddr, usize>,
    /// Relayed addresses of before that Allocations still have, oldest first.
    pub(crate) former_ips: Vec<IpAddr>,
    pub(crate) quotas: Quotas,
    pub(crate) usages: Usages,
    pub(crate) reservations: Reservations,
    pub(crate) busy_ports: BusyPorts,
    pub(crate) connections: Connections,
    /// When each Allocation ends, earliest first.
    pub(crate) deadlines: BTreeSet<(Instant, usize)>,
    /// When each announced client is given up, earliest first.
    pub(crate) arrivals: BTreeSet<(Instant, usize)>,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) stats: Stats,
}

impl Relay {
    /// A relay without Allocations. `rng` must be seeded from the system's entropy outside of
    /// tests: relayed ports and the key of the nonces come from it. `unix_now` is the time since
    /// 1970.
    #[must_use]
    pub fn new(
        mut config: Config,
        credentials: Credentials,
        mut rng: StdRng,
        now: Instant,
        unix_now: Duration,
    ) -> Relay {
        config.peers = config.peer_policy();
        let mut nonce_secret = [0; 32];
        rng.fill_bytes(&mut nonce_secret);
        let mut ticket_secret = [0; 16];
        rng.fill_bytes(&mut ticket_secret);
        let answers_per_second_max = config.limits.stranger_answers_per_second_max;

        Relay {
            credentials: credentials.for_realm(&config.realm),
            config,
            nonces: Nonces::new(&nonce_secret),
            tickets: Tickets::new(&ticket_secret),
            strangers: Limiter::new([rng.next_u64(), rng.next_u64()], answers_per_second_max),
            draining: false,
            rng,
            epoch: now,
            wall_clock: (now, unix_now),
            allocations: Slab::new(),
            allocation_by_five_tuple: HashMap::new(),
            allocation_by_number: HashMap::new(),
            next_number: 0,
            allocation_by_relayed: HashMap::new(),
            former_ips: Vec::new(),
            quotas: Quotas::new(now),
            usages: Usages::default(),
            reservations: Reservations::default(),
            busy_ports: BusyPorts::default(),
            connections: Connections::default(),
            deadlines: BTreeSet::new(),
            arrivals: BTreeSet::new(),
            outputs: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// Takes one whole message from a client: a datagram, or a frame of a stream without its
    /// padding. Never fails; what is refused is answered or counted.
    pub fn handle_client_packet(
        &mut self,
        now: Instant,
        from: FiveTuple,
        packet: &[u8],
    ) -> Option<Forward> {
        self.expire(now);
        let handled = match classify(packet) {
            Some(PacketKind::ChannelData) => self.on_channel_data(now, from, packet).map(Some),
            Some(PacketKind::Stun) => self.on_message(now, from, packet),
            None => Err(Refusal::Malformed),
        };
        self.count_refusal(handled)
    }

    /// Takes one datagram of `len` bytes that arrived at a relayed port. Never fails.
    pub fn handle_peer_datagram(
        &mut self,
        now: Instant,
        port: RelayPort,
        from: SocketAddr,
        len: usize,
    ) -> Option<Forward> {
        self.expire(now);
        let handled = self.on_peer_datagram(now, port, from, len).map(Some);
        self.count_refusal(handled)
    }

    /// Takes a payload of `len` bytes that was handed over in memory, for the Allocation at the relayed address `to`: from the one
    /// at `from`, which a [`Path`](crate::Path) holds, or from the SFU at its media port `from`. Never fails.
    pub fn handle_handed_over(
        &mut self,
        now: Instant,
        to: SocketAddr,
        from: SocketAddr,
        len: usize,
    ) -> Option<Forward> {
        self.expire(now);
        let handled = self.on_handed_over(now, to, from, len).map(Some);
        self.count_refusal(handled)
    }

    /// Takes what ICMP said about a datagram that was sent from `port` to `peer`; what is returned
    /// tells the client (RFC 8656 §11.5) and has no payload. The driver must have seen that it was
    /// about a UDP datagram of this port: a socket's own error queue does.
    pub fn handle_icmp(
        &mut self,
        now: Instant,
        port: RelayPort,
        peer: SocketAddr,
        icmp: Icmp,
    ) -> Option<Forward> {
        self.expire(now);
        let handled = self.on_icmp(now, port, peer, icmp).map(Some);
        self.count_refusal(handled)
    }

    /// Takes the driver's word that `port` is bound, which grants its Allocation.
    pub fn handle_port_opened(&mut self, now: Instant, port: RelayPort) {
        self.expire(now);
        if self.is_allocated(port) {
            self.on_port_opened(now, port);
        }
    }

    /// Takes the driver's word that `port` could not be bound; another is tried, a few times.
    pub fn handle_port_failed(&mut self, now: Instant, port: RelayPort) {
        self.expire(now);
        if self.is_allocated(port) {
            self.on_port_failed(now, port);
        }
    }

    /// Takes the end of a client's stream, which ends its Allocation; one that may move is given
    /// the time its client needs to come back.
    pub fn handle_stream_closed(&mut self, now: Instant, five_tuple: FiveTuple) {
        self.expire(now);
        self.on_stream_closed(now, five_tuple);
    }

    /// Takes the time since 1970, which may have been set anew since the last call.
    pub fn handle_wall_clock(&mut self, now: Instant, unix_now: Duration) {
        self.wall_clock = (now, unix_now);
    }

    /// Puts other secrets in place of those in use; Allocations live on.
    pub fn set_credentials(&mut self, credentials: Credentials) {
        self.credentials = credentials.for_realm(&self.config.realm);
    }

    /// Puts other settings in place of those in use; Allocations live on under them. What a peer
    /// that is denied now sends, or is sent, is refused whatever Permissions say. Rates hold at once;
    /// other limits bound what comes and take nothing away. The realm, which is part of every
    /// client's key, and the relayed addresses stay as they are. A [`Path`](crate::Path) has to be
    /// given the new [`peers`](Self::peers).
    pub fn set_config(&mut self, config: Config) {
        let before = &self.config;
        let rates = |config: &Config| (config.limits.user_rates, config.limits.account_rates);
        let other_rates = rates(&config) != rates(before);
        let media = before.peers.media.clone();
        self.config = Config {
            realm: before.realm.clone(),
            addresses: before.addresses.clone(),
            ..config
        };
        self.config.peers = PeerPolicy {
            media,
            ..self.config.peer_policy()
        };
        self.config.peers.own.extend(&self.former_ips);
        let limits = &self.config.limits;
        self.strangers
            .set_rate(limits.stranger_answers_per_second_max);
        if other_rates {
            self.quotas.set_rates(limits);
            for (allocation, held) in &mut self.allocations {
                held.budget = self.quotas.budget(held.identity.user(), limits);
                let budget = held.budget.clone();
                self.outputs
                    .push_back(Output::Path(PathUpdate::Charge { allocation, budget }));
            }
        }
    }

    /// Relays on `ip` from now on, in place of the relayed address of its family, which is seen
    /// there no more: new Allocations get it, and those that live keep what they were told. A family
    /// that is not relayed stays so. A [`Path`](crate::Path) has to be given the new
    /// [`peers`](Self::peers), and [`Owners`](crate::Owners) has to know the address.
    pub fn set_relayed_ip(&mut self, ip: IpAddr) {
        let addresses = &mut self.config.addresses;
        let before = match ip {
            IpAddr::V4(ip) => addresses.v4.as_mut().map(|held| replace(held, ip).into()),
            IpAddr::V6(ip) => addresses.v6.as_mut().map(|held| replace(held, ip).into()),
        };
        let Some(before) = before.filter(|before| *before != ip) else {
            return;
        };
        match self.former_ips.iter().position(|former| *former == ip) {
            Some(at) => drop(self.former_ips.remove(at)),
            None => self.config.peers.own.push(ip),
        }
        self.former_ips.push(before);
        let mut too_many = self.former_ips.len().saturating_sub(FORMER_IPS_MAX);
        let (relayed, reservations) = (&self.allocation_by_relayed, &self.reservations);
        let own = &mut self.config.peers.own;
        self.former_ips.retain(|former| {
            let is_used = relayed.keys().any(|address| address.ip() == *former);
            let stays = too_many == 0 && (is_used || reservations.is_at(*former));
            too_many = too_many.saturating_sub(1);
            // It may be the operator's word besides.
            if !stays && let Some(at) = own.iter().position(|own| own == former) {
                own.remove(at);
            }
            stays
        });
    }

    /// Lets peers be reached at `media`, whatever lists and blocks say: UDP ports of this process, and the SFU's thread that serves
    /// each, to which what is for it goes ([`Forward::ToMedia`]). A [`Path`](crate::Path) has to be given the new
    /// [`peers`](Self::peers).
    pub fn set_media_peers(&mut self, media: BTreeMap<SocketAddr, usize>) {
        self.config.peers.media = media;
    }

    /// Begins or ends draining: Allocations live on, new ones are sent to
    /// [`Config::alternates`](Config), or refused with 508 where there is none.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Ends every Allocation whose time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next of use.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let first = |deadlines: &BTreeSet<(Instant, usize)>| deadlines.first().map(|first| first.0);
        let allocations = first(&self.deadlines).into_iter();
        let connections = self.connections.deadline();
        allocations
            .chain(first(&self.arrivals))
            .chain(connections)
            .min()
    }

    /// What the driver should do next; call until `None` after every `handle_*`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Which peers may be reached, for a [`Path`](crate::Path).
    #[must_use]
    pub fn peers(&self) -> &PeerPolicy {
        &self.config.peers
    }

    /// Whether this 5-tuple has an Allocation.
    #[must_use]
    pub fn has_allocation(&self, five_tuple: &FiveTuple) -> bool {
        self.allocation_by_five_tuple.contains_key(five_tuple)
    }

    /// When the Allocation with this dense number ends; `None` where there is none.
    #[must_use]
    pub fn expires(&self, allocation: usize) -> Option<Instant> {
        self.allocations
            .get(allocation)
            .map(|allocation| allocation.expires)
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            allocations: self.allocations.len(),
            connections: self.connections.len(),
            ..self.stats.clone()
        };
        for (_, held) in &self.allocations {
            stats.allocations_by_transport[held.five_tuple.transport.index()] += 1;
        }
        stats
    }

    /// The place of the Allocation of this 5-tuple.
    pub(crate) fn index_of(&self, five_tuple: &FiveTuple) -> Option<usize> {
        self.allocation_by_five_tuple.get(five_tuple).copied()
    }

    fn is_allocated(&self, port: RelayPort) -> bool {
        self.allocations
            .get(port.allocation())
            .is_some_and(|held| held.holds(port.address))
    }

    /// Makes everything before `now` happen, so that no handler sees what has expired.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.quotas.expire(now);
        self.expire_connections(now);
        self.expire_arrivals(now);
        while let Some(&(deadline, index)) = self.deadlines.first()
            && deadline <= now
        {
            self.remove(index);
        }
        while let Some(reservation) = self.reservations.take_expired(now) {
            self.quotas.release(&reservation.user);
        }
    }

    /// Ends an Allocation: its ports, its place in the quota and all it holds.
    pub(crate) fn remove(&mut self, index: usize) {
        if !self.allocations.contains(index) {
            return;
        }
        self.end_connections(index, |_| true);
        self.retract(index);
        self.forget_five_tuple(index, self.allocations[index].five_tuple);
        let allocation = self.allocations.remove(index);
        self.deadlines.remove(&(allocation.expires, index));
        self.allocation_by_number.remove(&allocation.number);
        let user = allocation.identity.user();
        self.quotas.release(user);
        self.usages.end(user, allocation.tally.clone());
        for address in allocation.addresses() {
            self.close_port(index, address);
        }
    }

    /// Whether a client nobody knows may be answered at `now` over UDP, as it begins a handshake;
    /// if so it counts among the answers to its network.
    pub fn admit_newcomer(&mut self, now: Instant, client: IpAddr) -> bool {
        let since_epoch = now.saturating_duration_since(self.epoch);
        let is_admitted = self.strangers.admit(since_epoch, client);
        if !is_admitted {
            self.stats.refuse(Refusal::RateLimited);
        }
        is_admitted
    }

    /// Sets when an Allocation ends.
    pub(crate) fn set_expiry(&mut self, index: usize, expires: Instant) {
        let held = &mut self.allocations[index];
        self.deadlines.remove(&(held.expires, index));
        held.expires = expires;
        self.deadlines.insert((expires, index));
    }

    /// Gives a relayed address back.
    pub(crate) fn close_port(&mut self, index: usize, address: SocketAddr) {
        self.allocation_by_relayed.remove(&address);
        let port = RelayPort::new(index, address);
        self.outputs.push_back(Output::ClosePort(port));
    }

    pub(crate) fn new_transaction_id(&mut self) -> TransactionId {
        let mut id = [0; 12];
        self.rng.fill_bytes(&mut id);
        id
    }

    fn count_refusal(&mut self, handled: Result<Option<Forward>, Refusal>) -> Option<Forward> {
        handled.unwrap_or_else(|refusal| {
            self.stats.refuse(refusal);
            None
        })
    }
}
