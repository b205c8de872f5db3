//! The short way of media: what one thread must know to relay for its UDP clients, and nothing else.
//!
//! ```text
//!   Relay (one) ── Output::Path(PathUpdate) ──▶ Path (one for each thread)
//!
//!  client ──▶ handle_client_packet ──▶ Way::Forward ─────▶ peer, the SFU, or another client of this thread
//!                                  └─▶ Way::HandOver ────▶ the thread of the other Allocation
//!                                  └─▶ Way::Control ─────▶ Relay: a request
//!  peer   ──▶ handle_peer_datagram ──▶ Way::Forward ─────▶ client
//!  SFU    ──▶ handle_handed_over   ──▶ Way::Forward ─────▶ client
//! ```
//!
//! The [`Relay`](crate::Relay) decides who may do what and tells the Path of the thread its client
//! reaches; a Path asks nobody, so threads share neither lock nor memory but the table of
//! [`Owners`]. The checks of a packet are those of the Relay, in the same order.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use rand::Rng;
use rand::rngs::StdRng;
use relay_stun::{
    AddressFamily, CHANNEL_DATA_HEADER_LEN, ChannelData, Icmp, Message, PacketKind, TransactionId,
    classify,
};

use crate::allocation::{Channels, Permissions};
use crate::data::{Sent, payload_to_client};
use crate::icmp::{self, Pace};
use crate::owners::Owners;
use crate::relay::{FiveTuple, Forward, RelayPort};
use crate::{Budget, PeerPolicy, Refusal, Route, Stats, Tally};

/// The type of a Send indication as it stands in front of the message (RFC 8489 §5, RFC 8656 §17).
const SEND_INDICATION: [u8; 2] = [0x00, 0x16];

/// What changes on the Path of a client's thread. A port that closes is told by
/// [`Output::ClosePort`](crate::Output::ClosePort) and [`Path::close_port`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathUpdate {
    /// The Allocation holds this relayed port, and its client this 5-tuple.
    Open {
        /// A dense number, used again once all its ports are closed.
        allocation: usize,
        /// The client, and the socket to send from.
        five_tuple: FiveTuple,
        /// The relayed port.
        port: RelayPort,
        /// What the Allocation may relay.
        budget: Budget,
        /// Where to add what it relays.
        tally: Tally,
    },
    /// A Permission is installed or refreshed.
    Permit {
        /// The Allocation.
        allocation: usize,
        /// The peers' address.
        ip: IpAddr,
        /// When it ends.
        expires: Instant,
    },
    /// A Channel is bound or refreshed.
    Bind {
        /// The Allocation.
        allocation: usize,
        /// The Channel's number.
        number: u16,
        /// The peer it leads to.
        peer: SocketAddr,
        /// When it ends.
        expires: Instant,
    },
    /// What the Allocation may relay is another.
    Charge {
        /// The Allocation.
        allocation: usize,
        /// What it may relay from now on.
        budget: Budget,
    },
    /// The client will be at this 5-tuple; what it sends from there is for the Relay to judge. For
    /// the Path that 5-tuple reaches.
    Announce {
        /// The Allocation, which another Path may serve.
        allocation: usize,
        /// Where the client will be.
        five_tuple: FiveTuple,
    },
    /// The client will not be at this 5-tuple. For the Path that was told it would.
    Retract {
        /// The Allocation.
        allocation: usize,
        /// Where the client will not be.
        five_tuple: FiveTuple,
    },
}

impl PathUpdate {
    /// The Allocation that changes.
    #[must_use]
    pub fn allocation(&self) -> usize {
        match *self {
            PathUpdate::Open { allocation, .. }
            | PathUpdate::Permit { allocation, .. }
            | PathUpdate::Bind { allocation, .. }
            | PathUpdate::Charge { allocation, .. }
            | PathUpdate::Announce { allocation, .. }
            | PathUpdate::Retract { allocation, .. } => allocation,
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Way {
    /// Send it on.
    Forward(Forward),
    /// Hand `payload` to the Path of another thread, to [`Path::handle_handed_over`].
    HandOver {
        /// The owner of the relayed address, as [`Owners`] names it.
        owner: usize,
        /// The relayed address it is for.
        to: SocketAddr,
        /// The relayed address it comes from, or the SFU's media port.
        from: SocketAddr,
        /// The payload's place in the packet.
        payload: Range<usize>,
    },
    /// It is a request or something else that only the Relay can judge.
    Control,
    /// It is refused, and counted.
    Nowhere,
}

/// One Allocation, as far as media needs it.
#[derive(Debug)]
struct Flow {
    five_tuple: FiveTuple,
    /// The relayed ports, IPv4 first, then IPv6; at least one.
    ports: [Option<RelayPort>; 2],
    permissions: Permissions,
    channels: Channels,
    budget: Budget,
    tally: Tally,
    icmp_pace: Pace,
}

impl Flow {
    /// The port toward peers of the family of `peer`.
    fn port_toward(&self, peer: SocketAddr) -> Option<RelayPort> {
        self.ports[family(peer)]
    }
}

fn family(address: SocketAddr) -> usize {
    usize::from(address.is_ipv6())
}

/// The table of one thread; see the module's page.
#[derive(Debug)]
pub struct Path {
    owner: usize,
    owners: Arc<Owners>,
    peers: PeerPolicy,
    rng: StdRng,
    /// By [`PathUpdate::allocation`].
    flows: Vec<Option<Box<Flow>>>,
    flow_by_five_tuple: HashMap<FiveTuple, usize, RandomState>,
    /// Where clients said they will be; one 5-tuple for each Allocation at most.
    announced: HashSet<FiveTuple, RandomState>,
    /// By [`RelayPort::index`].
    flow_by_port: Vec<Option<usize>>,
    flow_by_relayed: HashMap<SocketAddr, usize, RandomState>,
    stats: Stats,
}

impl Path {
    /// A Path without Allocations. `owner` is its own number in `owners`, `peers` the policy of the
    /// Relay ([`Relay::peers`](crate::Relay::peers)); `rng` makes transaction ids.
    #[must_use]
    pub fn new(owner: usize, owners: Arc<Owners>, peers: PeerPolicy, rng: StdRng) -> Path {
        Path {
            owner,
            owners,
            peers,
            rng,
            flows: Vec::new(),
            flow_by_five_tuple: HashMap::default(),
            announced: HashSet::default(),
            flow_by_port: Vec::new(),
            flow_by_relayed: HashMap::default(),
            stats: Stats::default(),
        }
    }

    /// Takes what the Relay says. An update for an Allocation that is not here changes nothing: its
    /// port was closed meanwhile.
    pub fn handle_update(&mut self, now: Instant, update: PathUpdate) {
        match update {
            PathUpdate::Open {
                allocation,
                five_tuple,
                port,
                budget,
                tally,
            } => self.open(allocation, five_tuple, port, budget, tally),
            PathUpdate::Permit {
                allocation,
                ip,
                expires,
            } => {
                if let Some(flow) = self.flow_mut(allocation) {
                    flow.permissions.install(now, ip, expires);
                }
            }
            PathUpdate::Bind {
                allocation,
                number,
                peer,
                expires,
            } => {
                if let Some(flow) = self.flow_mut(allocation) {
                    flow.channels.install(now, number, peer, expires);
                }
            }
            PathUpdate::Charge { allocation, budget } => {
                if let Some(flow) = self.flow_mut(allocation) {
                    flow.budget = budget;
                }
            }
            PathUpdate::Announce { five_tuple, .. } => {
                self.announced.insert(five_tuple);
            }
            PathUpdate::Retract { five_tuple, .. } => {
                self.announced.remove(&five_tuple);
            }
        }
    }

    /// Follows another policy from now on, that of the Relay.
    pub fn set_peers(&mut self, peers: PeerPolicy) {
        self.peers = peers;
    }

    fn flow_mut(&mut self, allocation: usize) -> Option<&mut Flow> {
        self.flows.get_mut(allocation)?.as_deref_mut()
    }

    fn open(
        &mut self,
        allocation: usize,
        five_tuple: FiveTuple,
        port: RelayPort,
        budget: Budget,
        tally: Tally,
    ) {
        if self.flows.len() <= allocation {
            self.flows.resize_with(allocation + 1, || None);
        }
        let flow = self.flows[allocation].get_or_insert_with(|| {
            Box::new(Flow {
                five_tuple,
                ports: [None; 2],
                permissions: Permissions::default(),
                channels: Channels::default(),
                budget,
                tally,
                icmp_pace: Pace::default(),
            })
        });
        self.announced.remove(&five_tuple);
        self.flow_by_five_tuple.remove(&flow.five_tuple);
        flow.five_tuple = five_tuple;
        flow.ports[family(port.address)] = Some(port);
        self.flow_by_five_tuple.insert(five_tuple, allocation);
        self.flow_by_relayed.insert(port.address, allocation);
        if self.flow_by_port.len() <= port.index {
            self.flow_by_port.resize(port.index + 1, None);
        }
        self.flow_by_port[port.index] = Some(allocation);
    }

    /// Forgets a relayed port, and with its last port the Allocation. A port that is not here
    /// changes nothing.
    pub fn close_port(&mut self, port: RelayPort) {
        let Some(Some(allocation)) = self.flow_by_port.get_mut(port.index).map(Option::take) else {
            return;
        };
        self.flow_by_relayed.remove(&port.address);
        let Some(flow) = self.flow_mut(allocation) else {
            return;
        };
        flow.ports[family(port.address)] = None;
        // Its peers end with it: the Relay may lead a Channel of theirs to the other family.
        let ended = AddressFamily::of(port.address.ip());
        flow.permissions.forget(ended);
        flow.channels.forget(ended);
        if flow.ports == [None; 2] {
            let five_tuple = flow.five_tuple;
            self.flow_by_five_tuple.remove(&five_tuple);
            self.flows[allocation] = None;
        }
    }

    /// Takes one datagram from a UDP client. Never fails; what is refused is counted.
    pub fn handle_client_packet(&mut self, now: Instant, from: FiveTuple, packet: &[u8]) -> Way {
        let way = match classify(packet) {
            Some(PacketKind::ChannelData) => self.on_channel_data(now, from, packet),
            Some(PacketKind::Stun) if is_send(packet) => self.on_send(now, from, packet),
            Some(PacketKind::Stun) => return Way::Control,
            None => Err(Refusal::Malformed),
        };
        match way {
            // The first from there, which ends the move.
            Err(Refusal::NoAllocation) if self.announced.contains(&from) => Way::Control,
            way => self.count_refusal(way),
        }
    }

    /// Takes one datagram of `len` bytes that arrived at a relayed port. Never fails.
    pub fn handle_peer_datagram(
        &mut self,
        now: Instant,
        port: RelayPort,
        from: SocketAddr,
        len: usize,
    ) -> Way {
        let way = self.on_peer_datagram(now, port, from, len);
        self.count_refusal(way)
    }

    /// Takes a payload of `len` bytes that was handed over in memory, for the Allocation at `to`: from the one at `from`, which
    /// another thread or the Relay holds, or from the SFU at its media port `from`. Never fails.
    pub fn handle_handed_over(
        &mut self,
        now: Instant,
        to: SocketAddr,
        from: SocketAddr,
        len: usize,
    ) -> Way {
        let way = self.hand_over(now, to, from, 0..len);
        self.count_refusal(way)
    }

    /// Takes what ICMP said about a datagram that was sent from `port` to `peer`; see
    /// [`Relay::handle_icmp`](crate::Relay::handle_icmp). Never fails.
    pub fn handle_icmp(
        &mut self,
        now: Instant,
        port: RelayPort,
        peer: SocketAddr,
        icmp: Icmp,
    ) -> Way {
        let way = self.on_icmp(now, port, peer, icmp);
        self.count_refusal(way)
    }

    /// A snapshot of the counters of media; what requests count is the Relay's.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn on_channel_data(
        &mut self,
        now: Instant,
        from: FiveTuple,
        packet: &[u8],
    ) -> Result<Way, Refusal> {
        let data = ChannelData::parse(packet).map_err(|_| Refusal::Malformed)?;
        let (allocation, flow) = self.flow_of(&from)?;
        let peer = flow
            .channels
            .peer(now, data.channel)
            .ok_or(Refusal::NoChannel)?;
        let port = flow.port_toward(peer).ok_or(Refusal::NoAllocation)?;
        flow.budget.admit(now, data.payload.len())?;
        let payload = CHANNEL_DATA_HEADER_LEN..CHANNEL_DATA_HEADER_LEN + data.payload.len();

        self.relay_to_peer(now, allocation, port, peer, payload, false)
    }

    fn on_send(&mut self, now: Instant, from: FiveTuple, packet: &[u8]) -> Result<Way, Refusal> {
        let message = Message::parse(packet).map_err(|_| Refusal::Malformed)?;
        let Sent {
            peer,
            payload,
            dont_fragment,
        } = Sent::of(&message)?;
        let (allocation, flow) = self.flow_of(&from)?;
        if !flow.permissions.permits(now, peer.ip()) {
            return Err(Refusal::NoPermission);
        }
        let port = flow.port_toward(peer).ok_or(Refusal::NoAllocation)?;
        flow.budget.admit(now, payload.len())?;

        self.relay_to_peer(now, allocation, port, peer, payload, dont_fragment)
    }

    fn on_peer_datagram(
        &mut self,
        now: Instant,
        port: RelayPort,
        from: SocketAddr,
        len: usize,
    ) -> Result<Way, Refusal> {
        let allocation = self.flow_by_port.get(port.index).copied().flatten();
        let allocation = allocation.ok_or(Refusal::NoAllocation)?;
        // An own address is let in by a hand-over alone; see `Relay::on_peer_datagram`.
        self.peers.check_arrival(from).map_err(Refusal::Forbidden)?;

        self.relay_to_client(now, allocation, from, 0..len)
    }

    fn on_icmp(
        &mut self,
        now: Instant,
        port: RelayPort,
        peer: SocketAddr,
        icmp: Icmp,
    ) -> Result<Way, Refusal> {
        let id = new_id(&mut self.rng);
        let allocation = self.flow_by_port.get(port.index).copied().flatten();
        let flow = allocation.and_then(|allocation| self.flow_mut(allocation));
        let flow = flow.ok_or(Refusal::NoAllocation)?;
        let (to, permissions, pace) = (flow.five_tuple, &flow.permissions, &mut flow.icmp_pace);
        let forward = icmp::tell(now, to, permissions, pace, (peer, icmp), || id)?;
        self.stats.icmp_indications += 1;
        Ok(Way::Forward(forward))
    }

    fn relay_to_peer(
        &mut self,
        now: Instant,
        allocation: usize,
        port: RelayPort,
        peer: SocketAddr,
        payload: Range<usize>,
        dont_fragment: bool,
    ) -> Result<Way, Refusal> {
        let mut owner = None;
        let route = self.peers.check(peer, |address| {
            owner = self.owners.get(address);
            owner.is_some()
        });
        let route = route.map_err(Refusal::Forbidden)?;
        if let Some(flow) = self.flows[allocation].as_deref() {
            let transport = flow.five_tuple.transport;
            flow.tally.count_to_peers(1, payload.len() as u64);
            self.stats.from_clients[transport.index()].count(payload.len());
        }

        match (route, owner) {
            // What has just come here may not have been opened yet: then it is handed over too, behind
            // the update that opens it.
            (Route::Own, Some(owner))
                if owner == self.owner && self.flow_by_relayed.contains_key(&peer) =>
            {
                self.hand_over(now, peer, port.address, payload)
            }
            (Route::Own, Some(owner)) => Ok(Way::HandOver {
                owner,
                to: peer,
                from: port.address,
                payload,
            }),
            (Route::Media(thread), _) => {
                self.stats.to_media.count(payload.len());
                Ok(Way::Forward(Forward::ToMedia {
                    thread,
                    from: port.address,
                    to: peer,
                    payload,
                }))
            }
            _ => Ok(Way::Forward(Forward::ToPeer {
                port,
                to: peer,
                payload,
                dont_fragment,
            })),
        }
    }

    fn hand_over(
        &mut self,
        now: Instant,
        to: SocketAddr,
        from: SocketAddr,
        payload: Range<usize>,
    ) -> Result<Way, Refusal> {
        let Some(&allocation) = self.flow_by_relayed.get(&to) else {
            // It may have moved while the payload was on its way.
            let owner = self.owners.get(to).filter(|owner| *owner != self.owner);
            let owner = owner.ok_or(Refusal::NoAllocation)?;
            return Ok(Way::HandOver {
                owner,
                to,
                from,
                payload,
            });
        };
        let len = payload.len();
        let way = self.relay_to_client(now, allocation, from, payload)?;
        let is_media = self.peers.media.contains_key(&from);
        self.stats.handed_over_from(is_media).count(len);
        Ok(way)
    }

    fn relay_to_client(
        &mut self,
        now: Instant,
        allocation: usize,
        from: SocketAddr,
        payload: Range<usize>,
    ) -> Result<Way, Refusal> {
        let flow = self.flows.get(allocation).and_then(Option::as_deref);
        let flow = flow.ok_or(Refusal::NoAllocation)?;
        if !flow.permissions.permits(now, from.ip()) {
            return Err(Refusal::NoPermission);
        }
        flow.budget.admit(now, payload.len())?;
        let to = flow.five_tuple;
        let channel = flow.channels.number(now, from);
        let rng = &mut self.rng;
        let new_id = || new_id(rng);
        let len = payload.len();
        let forward = payload_to_client(to, channel, from, payload, new_id)?;
        flow.tally.count_to_clients(1, len as u64);
        self.stats.to_clients[to.transport.index()].count(len);
        Ok(Way::Forward(forward))
    }

    /// The Allocation of a 5-tuple.
    fn flow_of(&self, five_tuple: &FiveTuple) -> Result<(usize, &Flow), Refusal> {
        let allocation = self.flow_by_five_tuple.get(five_tuple);
        allocation
            .and_then(|allocation| Some((*allocation, self.flows[*allocation].as_deref()?)))
            .ok_or(Refusal::NoAllocation)
    }

    fn count_refusal(&mut self, way: Result<Way, Refusal>) -> Way {
        way.unwrap_or_else(|refusal| {
            self.stats.refuse(refusal);
            Way::Nowhere
        })
    }
}

fn new_id(rng: &mut StdRng) -> TransactionId {
    let mut id = [0; 12];
    rng.fill_bytes(&mut id);
    id
}

/// Whether `packet`, which begins as STUN does, is a Send indication: the one message of a client
/// that carries media and needs no credentials.
fn is_send(packet: &[u8]) -> bool {
    packet.starts_with(&SEND_INDICATION)
}
