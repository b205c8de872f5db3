//! A relay, its clients and its peers under one simulated clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use relay_core::{
    Alternates, Config, Credentials, FiveTuple, Forward, Limits, Output, Owners, Path, PathUpdate,
    PeerPolicy, Relay, RelayAddresses, RelayPort, Secret, Transport, Way,
};
use relay_stun::client::{AllocateOptions, Client, Event, Request};
use relay_stun::{AddressFamily, AttributeType, ErrorCode, Icmp, Message};

/// The time since 1970 when a world begins.
pub(crate) const UNIX_START: Duration = Duration::from_secs(1_800_000_000);

/// The peers of the stories; the default policy allows them.
pub(crate) const PEER: &str = "8.8.8.8:5000";
pub(crate) const OTHER_PEER: &str = "9.9.9.9:6000";
pub(crate) const PEER_V6: &str = "[2600::1]:5000";

pub(crate) struct World {
    pub(crate) relay: Relay,
    pub(crate) now: Instant,
    start: Instant,
    pub(crate) credentials: Credentials,
    /// Ports the relay holds open, by index.
    pub(crate) ports: Vec<Option<RelayPort>>,
    /// Ports that other programs hold.
    pub(crate) busy_ports: Vec<u16>,
    /// Whether the next ports can't be bound.
    pub(crate) ports_fail: bool,
    /// Whether the next IPv6 ports can't be bound.
    pub(crate) v6_ports_fail: bool,
    /// What the relay sent to clients, beside media.
    pub(crate) sent: Vec<(FiveTuple, Vec<u8>)>,
    /// What the relay wants done for TCP Allocations.
    pub(crate) told: Vec<Output>,
    /// What a thread for UDP clients would do with the same packets.
    path: Path,
    owners: Arc<Owners>,
}

/// The number of the world's path among the owners.
const PATH: usize = 0;

/// The number of the relay, which serves streams itself.
const CONTROL: usize = 1;

/// A client of the world.
pub(crate) struct Phone {
    pub(crate) at: FiveTuple,
    pub(crate) conversation: Client,
    /// The relayed address, once allocated; the IPv4 one where there are two.
    pub(crate) relayed: Option<SocketAddr>,
    /// The IPv6 relayed address besides the IPv4 one.
    pub(crate) relayed_v6: Option<SocketAddr>,
    /// What the port above the relayed one is kept under.
    pub(crate) token: Option<[u8; 8]>,
    /// What the Allocation moves with.
    pub(crate) ticket: Option<Vec<u8>>,
    /// Why one of two families is missing.
    pub(crate) missing: Option<(AddressFamily, ErrorCode)>,
    /// What the connection last asked for is known by.
    pub(crate) connection: Option<u32>,
}

/// Where media came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Delivered {
    Peer {
        from: SocketAddr,
        to: SocketAddr,
        payload: Vec<u8>,
        /// In one piece or not at all.
        whole: bool,
    },
    Client {
        to: FiveTuple,
        packet: Vec<u8>,
    },
    /// The SFU, in memory.
    Media {
        thread: usize,
        from: SocketAddr,
        to: SocketAddr,
        payload: Vec<u8>,
    },
}

pub(crate) fn config() -> Config {
    Config {
        realm: "offhook".to_owned(),
        addresses: RelayAddresses {
            v4: Some("7.7.7.7".parse().unwrap()),
            v6: Some("2600::7".parse().unwrap()),
            ports: 50_000..=50_999,
        },
        limits: Limits::default(),
        tcp_allocations: true,
        connection_idle: Duration::from_secs(3600),
        lifetime_default: Duration::from_secs(600),
        lifetime_max: Duration::from_secs(3600),
        mobility: true,
        discovery: Vec::new(),
        peers: PeerPolicy::default(),
        alternates: Alternates::default(),
    }
}

impl World {
    pub(crate) fn new() -> World {
        World::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> World {
        World::seeded(1, change)
    }

    pub(crate) fn seeded(seed: u64, change: impl FnOnce(&mut Config)) -> World {
        let mut config = config();
        change(&mut config);
        let credentials = Credentials::new([Secret::new("new"), Secret::new("old")]);
        #[allow(
            clippy::disallowed_methods,
            reason = "the one real instant simulated time is counted from"
        )]
        let start = Instant::now();
        let rng = StdRng::seed_from_u64(seed);
        let owners = Arc::new(Owners::new(&config.addresses));
        let relay = Relay::new(config, credentials.clone(), rng, start, UNIX_START);
        let path_rng = StdRng::seed_from_u64(seed + 1);
        World {
            path: Path::new(PATH, owners.clone(), relay.peers().clone(), path_rng),
            owners,
            relay,
            now: start,
            start,
            credentials,
            ports: Vec::new(),
            busy_ports: Vec::new(),
            ports_fail: false,
            v6_ports_fail: false,
            sent: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Lets time pass, as a driver that oversleeps would: the timer fires at the end only.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by;
        self.relay.handle_timeout(self.now);
        self.drain();
    }

    /// Other settings come into force while everything lives.
    pub(crate) fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) {
        let mut config = config();
        change(&mut config);
        self.relay.set_config(config);
        self.path.set_peers(self.relay.peers().clone());
        self.drain();
    }

    /// The relay is seen at another address.
    pub(crate) fn move_relay(&mut self, ip: &str) {
        let ip = ip.parse().unwrap();
        assert!(self.owners.add(ip));
        self.relay.set_relayed_ip(ip);
        self.path.set_peers(self.relay.peers().clone());
        self.drain();
    }

    pub(crate) fn unix_now(&self) -> Duration {
        UNIX_START + (self.now - self.start)
    }

    /// A client of `acme:<name>` whose credentials live for a day.
    pub(crate) fn phone(&mut self, name: &str, port: u16, transport: Transport) -> Phone {
        let expiry = self.unix_now() + Duration::from_secs(86_400);
        let (username, password) = self.credentials.issue(expiry, "acme", name).unwrap();
        Phone::new(&username, &password, port, transport)
    }

    /// A client over UDP with an IPv4 Allocation.
    pub(crate) fn allocated(&mut self, name: &str, port: u16) -> Phone {
        let mut phone = self.phone(name, port, Transport::Udp);
        assert_eq!(self.allocate(&mut phone), Ok(()));
        phone
    }

    pub(crate) fn allocate(&mut self, phone: &mut Phone) -> Result<(), ErrorCode> {
        self.ask(
            phone,
            Request::Allocate {
                family: None,
                lifetime: None,
            },
        )
        .map(|_| ())
    }

    pub(crate) fn allocate_with(
        &mut self,
        phone: &mut Phone,
        options: AllocateOptions,
    ) -> Result<(), ErrorCode> {
        self.ask(phone, Request::AllocateWith(options)).map(|_| ())
    }

    pub(crate) fn permit(&mut self, phone: &mut Phone, peer: &str) -> Result<(), ErrorCode> {
        let peers = vec![peer.parse().unwrap()];
        self.ask(phone, Request::CreatePermission { peers })
            .map(|_| ())
    }

    pub(crate) fn bind(
        &mut self,
        phone: &mut Phone,
        channel: u16,
        peer: &str,
    ) -> Result<(), ErrorCode> {
        let peer = peer.parse().unwrap();
        self.ask(phone, Request::ChannelBind { channel, peer })
            .map(|_| ())
    }

    pub(crate) fn refresh(&mut self, phone: &mut Phone, lifetime: u32) -> Result<u32, ErrorCode> {
        self.ask(phone, Request::Refresh { lifetime })
            .map(|lifetime| lifetime.unwrap())
    }

    /// Asks until there is a final answer, with the challenge answered in between; gives back
    /// LIFETIME.
    pub(crate) fn ask(
        &mut self,
        phone: &mut Phone,
        request: Request,
    ) -> Result<Option<u32>, ErrorCode> {
        let mut bytes = phone.conversation.request(request);
        loop {
            let answer = self.exchange(phone, &bytes).expect("an answer");
            match phone.conversation.handle(&answer) {
                Event::Retry(retry) => bytes = retry,
                Event::Success(answer) => {
                    phone.connection = answer.connection_id;
                    if answer.ticket.is_some() {
                        phone.ticket = answer.ticket;
                    }
                    if answer.relayed.is_some() {
                        phone.relayed = answer.relayed;
                        phone.relayed_v6 = answer.relayed_additional;
                        phone.token = answer.reservation_token;
                        phone.missing = answer.address_error;
                    }
                    return Ok(answer.lifetime);
                }
                Event::Refused(code) => return Err(code),
                event => panic!("{event:?}"),
            }
        }
    }

    /// Sends one packet, gives back the response if there is one.
    pub(crate) fn exchange(&mut self, phone: &Phone, bytes: &[u8]) -> Option<Vec<u8>> {
        assert_eq!(
            self.client_sends(phone, bytes),
            None,
            "a request is no media"
        );
        let (to, bytes) = self.sent.pop()?;
        assert_eq!(to, phone.at);
        Some(bytes)
    }

    pub(crate) fn client_sends(&mut self, phone: &Phone, packet: &[u8]) -> Option<Delivered> {
        // A path hears of what has ended from the relay's timer.
        self.advance(Duration::ZERO);
        let way = match phone.at.transport {
            Transport::Udp => self.path.handle_client_packet(self.now, phone.at, packet),
            _ => Way::Control,
        };
        let forward = self.relay.handle_client_packet(self.now, phone.at, packet);
        match way {
            Way::Control => {}
            Way::HandOver {
                owner, to, from, ..
            } => {
                assert_eq!((owner, self.owners.get(to)), (CONTROL, Some(CONTROL)));
                assert!([phone.relayed, phone.relayed_v6].contains(&Some(from)));
            }
            Way::Forward(_) | Way::Nowhere => assert_same(way, forward.as_ref(), packet),
        }
        self.drain();
        forward.map(|forward| deliver(forward, packet))
    }

    pub(crate) fn send(
        &mut self,
        phone: &mut Phone,
        peer: &str,
        payload: &str,
    ) -> Option<Delivered> {
        let peer = peer.parse().unwrap();
        let packet = phone
            .conversation
            .send_indication(peer, payload.as_bytes())
            .unwrap();
        self.client_sends(phone, &packet)
    }

    pub(crate) fn send_channel(
        &mut self,
        phone: &Phone,
        channel: u16,
        payload: &str,
    ) -> Option<Delivered> {
        let packet = Client::channel_data(channel, payload.as_bytes()).unwrap();
        self.client_sends(phone, &packet)
    }

    /// A datagram of a peer arrives at the relayed address of `phone`.
    pub(crate) fn peer_sends(
        &mut self,
        peer: &str,
        phone: &Phone,
        payload: &str,
    ) -> Option<Delivered> {
        let from: SocketAddr = peer.parse().unwrap();
        let relayed = [phone.relayed, phone.relayed_v6];
        let port = *self.ports.iter().flatten().find(|port| {
            relayed.contains(&Some(port.address)) && port.address.is_ipv4() == from.is_ipv4()
        })?;
        self.advance(Duration::ZERO);
        let way = self
            .path
            .handle_peer_datagram(self.now, port, from, payload.len());
        let forward = self
            .relay
            .handle_peer_datagram(self.now, port, from, payload.len());
        match phone.at.transport {
            Transport::Udp => assert_same(way, forward.as_ref(), payload.as_bytes()),
            _ => assert_eq!(way, Way::Nowhere),
        }
        self.drain();
        forward.map(|forward| deliver(forward, payload.as_bytes()))
    }

    /// The SFU hands a datagram of its media port `from` to the Allocation of `phone`.
    pub(crate) fn media_sends(
        &mut self,
        from: &str,
        phone: &Phone,
        payload: &str,
    ) -> Option<Delivered> {
        let from: SocketAddr = from.parse().unwrap();
        let both = [phone.relayed, phone.relayed_v6].into_iter().flatten();
        let to = both.into_iter().find(|to| to.is_ipv4() == from.is_ipv4())?;
        self.advance(Duration::ZERO);
        let way = self
            .path
            .handle_handed_over(self.now, to, from, payload.len());
        let forward = self
            .relay
            .handle_handed_over(self.now, to, from, payload.len());
        match way {
            // It is not this thread's.
            Way::HandOver { owner, .. } => assert_eq!(owner, CONTROL),
            way => assert_same(way, forward.as_ref(), payload.as_bytes()),
        }
        self.drain();
        forward.map(|forward| deliver(forward, payload.as_bytes()))
    }

    /// The SFU serves these media ports from now on, each with the thread of its place.
    pub(crate) fn set_media(&mut self, media: &[&str]) {
        let media = media.iter().map(|media| media.parse().unwrap()).zip(0..);
        self.relay.set_media_peers(media.collect());
        self.path.set_peers(self.relay.peers().clone());
    }

    /// What the thread for UDP clients does with a packet for `other`, who is about to be its own:
    /// whether it hands the payload to itself, behind the update that is on its way.
    pub(crate) fn hands_to_itself(&mut self, phone: &Phone, packet: &[u8], other: &Phone) -> bool {
        let relayed = other.relayed.unwrap();
        self.owners.set(relayed, Some(PATH));
        let way = self.path.handle_client_packet(self.now, phone.at, packet);
        let len = packet.len();
        let late = self
            .path
            .handle_handed_over(self.now, relayed, relayed, len);
        assert_eq!(late, Way::Nowhere, "and no more than once");
        matches!(way, Way::HandOver { owner: PATH, to, .. } if to == relayed)
    }

    /// ICMP says something about a datagram that went from the relayed address of `phone` to
    /// `peer`.
    pub(crate) fn icmp_says(&mut self, phone: &Phone, peer: &str, icmp: Icmp) -> Option<Delivered> {
        let peer: SocketAddr = peer.parse().unwrap();
        let relayed = [phone.relayed, phone.relayed_v6];
        let port = *self.ports.iter().flatten().find(|port| {
            relayed.contains(&Some(port.address)) && port.address.is_ipv4() == peer.is_ipv4()
        })?;
        self.advance(Duration::ZERO);
        let way = self.path.handle_icmp(self.now, port, peer, icmp);
        let forward = self.relay.handle_icmp(self.now, port, peer, icmp);
        match phone.at.transport {
            Transport::Udp => assert_same(way, forward.as_ref(), &[]),
            _ => assert_eq!(way, Way::Nowhere),
        }
        self.drain();
        forward.map(|forward| deliver(forward, &[]))
    }

    pub(crate) fn refusals(&self, cause: &str) -> u64 {
        self.relay.stats().refused(cause)
    }

    /// Does what a driver does.
    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.relay.poll_output() {
            match output {
                Output::Send { to, bytes } => self.sent.push((to, bytes)),
                Output::OpenPort(port) | Output::Listen(port)
                    if self.ports_fail
                        || self.v6_ports_fail && port.address.is_ipv6()
                        || self.busy_ports.contains(&port.address.port()) =>
                {
                    self.relay.handle_port_failed(self.now, port);
                }
                Output::OpenPort(port) => {
                    self.open(port);
                    self.owners.set(port.address, Some(CONTROL));
                    self.relay.handle_port_opened(self.now, port);
                }
                Output::Listen(port) => {
                    self.open(port);
                    self.relay.handle_port_opened(self.now, port);
                }
                Output::ClosePort(port) => {
                    if let Some(open) = self.ports.get_mut(port.index) {
                        *open = None;
                    }
                    self.owners.set(port.address, None);
                    self.path.close_port(port);
                }
                Output::MovePort { port, .. } => {
                    assert_eq!(self.ports[port.index], Some(port));
                    self.owners.set(port.address, Some(CONTROL));
                    self.path.close_port(port);
                }
                Output::Path(update) => {
                    if let PathUpdate::Open { port, .. } = update {
                        self.owners.set(port.address, Some(PATH));
                    }
                    self.path.handle_update(self.now, update);
                }
                Output::Connect { .. }
                | Output::Pair { .. }
                | Output::Splice { .. }
                | Output::Close(_) => self.told.push(output),
            }
        }
    }

    fn open(&mut self, port: RelayPort) {
        if self.ports.len() <= port.index {
            self.ports.resize(port.index + 1, None);
        }
        assert_eq!(
            self.ports[port.index], None,
            "an index is free again once closed"
        );
        self.ports[port.index] = Some(port);
    }
}

impl Phone {
    pub(crate) fn new(username: &str, password: &str, port: u16, transport: Transport) -> Phone {
        let at = FiveTuple {
            client: SocketAddr::new("203.0.113.1".parse().unwrap(), port),
            server: "7.7.7.7:3478".parse().unwrap(),
            transport,
        };
        Phone {
            at,
            conversation: Client::new(username, password, port.into()),
            relayed: None,
            relayed_v6: None,
            token: None,
            ticket: None,
            missing: None,
            connection: None,
        }
    }

    /// The same phone as it was before RFC 8489.
    pub(crate) fn legacy(mut self) -> Phone {
        self.conversation = self.conversation.legacy();
        self
    }

    pub(crate) fn relayed(&self) -> String {
        self.relayed.unwrap().to_string()
    }

    /// What the client reads in a delivered packet: who sent it, and what.
    pub(crate) fn reads(&mut self, delivered: Option<Delivered>) -> Option<String> {
        let Some(Delivered::Client { to, packet }) = delivered else {
            return None;
        };
        assert_eq!(to, self.at);
        if to.transport.is_stream() {
            assert!(
                packet.len().is_multiple_of(4),
                "a stream's frames are padded"
            );
        }
        Some(match self.conversation.handle(&packet) {
            Event::Data { peer, payload } => format!("{peer} {}", text(payload)),
            Event::Channel { channel, payload } => format!("{channel:#x} {}", text(payload)),
            Event::Icmp { peer, icmp } => {
                format!("{peer} {}/{} {}", icmp.kind, icmp.code, icmp.data)
            }
            event => format!("{event:?}"),
        })
    }
}

/// What a peer reads: who sent it, and what.
pub(crate) fn peer_reads(delivered: Option<Delivered>) -> Option<String> {
    match delivered? {
        Delivered::Peer {
            from, to, payload, ..
        } => Some(format!("{from} → {to} {}", text(&payload))),
        Delivered::Client { .. } | Delivered::Media { .. } => None,
    }
}

pub(crate) const V6: Request = Request::Allocate {
    family: Some(AddressFamily::V6),
    lifetime: None,
};

fn text(payload: &[u8]) -> &str {
    std::str::from_utf8(payload).unwrap()
}

/// A path and the relay agree on a packet, but for the random ids of Data indications and what is
/// obfuscated with them.
fn assert_same(way: Way, forward: Option<&Forward>, packet: &[u8]) {
    let without_id = |forward| match deliver(forward, packet) {
        Delivered::Client { to, packet } => match Message::parse(&packet) {
            Ok(message) => {
                let peer = message.xor_address(AttributeType::XOR_PEER_ADDRESS);
                let data = message.attribute(AttributeType::DATA).unwrap_or_default();
                let icmp = message.icmp();
                let said = format!("{:?} {peer:?} {icmp:?} ", message.method());
                let packet = [said.as_bytes(), data].concat();
                Delivered::Client { to, packet }
            }
            Err(_) => Delivered::Client { to, packet },
        },
        delivered => delivered,
    };
    let way = match way {
        Way::Forward(forward) => Some(without_id(forward)),
        _ => None,
    };
    assert_eq!(way, forward.cloned().map(without_id));
}

fn deliver(forward: Forward, packet: &[u8]) -> Delivered {
    match forward {
        Forward::ToPeer {
            port,
            to,
            payload,
            dont_fragment,
        } => Delivered::Peer {
            from: port.address,
            to,
            payload: packet[payload].to_vec(),
            whole: dont_fragment,
        },
        Forward::ToClient {
            to,
            prefix,
            payload,
            padding,
        } => {
            let mut bytes = prefix.as_bytes().to_vec();
            bytes.extend_from_slice(&packet[payload]);
            bytes.resize(bytes.len() + padding, 0);
            Delivered::Client { to, packet: bytes }
        }
        Forward::ToMedia {
            thread,
            from,
            to,
            payload,
        } => Delivered::Media {
            thread,
            from,
            to,
            payload: packet[payload].to_vec(),
        },
    }
}
