//! What clients and peers can send to the relay.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use relay_core::{
    Alternates, Config, ConnectionId, Credentials, Direction, Discovery, FiveTuple, Forward,
    Limits, Output, PeerPolicy, Rates, Relay, RelayAddresses, RelayPort, Secret, Transport,
};
use relay_stun::client::{AllocateOptions, Client, Event, Request};
use relay_stun::{
    AccessToken, AddressFamily, AttributeType, CHANNEL_MAX, CHANNEL_MIN, ChannelData, Class,
    ErrorCode, Icmp, IntegrityKey, Message, MessageWriter, Method, STREAM_FRAME_LEN_MAX,
    TokenAlgorithm, TokenKey, next_frame,
};

/// The longest response of a relay with a short realm, in bytes.
const RESPONSE_LEN_MAX: usize = 1472;

/// A STUN message. Every look at it ends, what it says lies inside of it, and its attributes
/// written again read the same.
pub(crate) fn stun_message(data: &[u8]) {
    let mut conversation = Client::new("u", "p", 1);
    conversation.request(Request::Binding);
    conversation.handle(data);

    let Ok(message) = Message::parse(data) else {
        return;
    };
    assert_eq!(message.bytes(), data);
    let attributes: Vec<_> = message.attributes().collect();
    for (attribute, value) in &attributes {
        let first = attributes.iter().find(|(other, _)| other == attribute);
        assert_eq!(
            message.attribute(*attribute),
            first.map(|(_, value)| *value)
        );
        assert!(value.len() <= data.len());
    }
    std::hint::black_box((
        message.xor_address(AttributeType::XOR_PEER_ADDRESS),
        message.channel_number(),
        message.requested_transport(),
        message.requested_address_family(),
    ));
    assert!(
        message
            .error_code()
            .is_none_or(|code| (300..700).contains(&code.0))
    );
    assert!(!message.verify_integrity(&IntegrityKey::short_term("not in any input")));

    let mut buffer = vec![0; data.len() + 8];
    let mut writer = MessageWriter::new(
        &mut buffer,
        message.class(),
        message.method(),
        message.transaction_id(),
    );
    for (attribute, value) in &attributes {
        writer = writer.attribute(*attribute, value);
    }
    if data.len() + 8 <= usize::from(u16::MAX) {
        let again = writer
            .fingerprint()
            .finish()
            .expect("as long as the input, and a FINGERPRINT");
        let again = Message::parse(again).expect("what we write, we read");
        assert_eq!(again.verify_fingerprint(), Some(true));
        assert!(again.attributes().eq(message.attributes()));
    }
}

/// A ChannelData message.
pub(crate) fn channel_data(data: &[u8]) {
    if let Ok(ChannelData { channel, payload }) = ChannelData::parse(data) {
        assert!((CHANNEL_MIN..=CHANNEL_MAX).contains(&channel));
        let len = u16::try_from(payload.len()).expect("the header's field has 16 bits");
        assert!(data.starts_with(&ChannelData::header(channel, len)));
    }
}

/// An access token, sealed and as it was before: one that opens is the only way to seal what it
/// grants, and what can be sealed reads back.
pub(crate) fn access_token(data: &[u8]) {
    const SERVER_NAME: &str = "turn.example.com";
    let key = TokenKey::new(TokenAlgorithm::A128Gcm, b"1234567890123456");
    let key = key.expect("the key has 16 bytes");
    if let Ok(token) = key.open(SERVER_NAME, data) {
        let nonce = data[2..14].try_into().expect("12 bytes");
        let again = key.seal(SERVER_NAME, nonce, &token);
        assert_eq!(again.as_deref(), Some(data));
    }
    if let Ok(token) = AccessToken::parse(data) {
        std::hint::black_box(token.issued());
        assert_eq!(token.plain().as_deref(), Some(data));
        let sealed = key.seal(SERVER_NAME, [1; 12], &token);
        let sealed = sealed.expect("what was read can be written");
        assert_eq!(key.open(SERVER_NAME, &sealed), Ok(token));
    }
}

/// A TCP stream: the first byte says how long its segments are. However it was cut, the same
/// messages come out, and no more is kept than one of them needs.
pub(crate) fn turn_stream(data: &[u8]) {
    let Some((segment_len, stream)) = data.split_first() else {
        return;
    };
    assert_eq!(
        frames(stream, usize::from(*segment_len).max(1)),
        frames(stream, usize::MAX)
    );
}

/// The lengths of the messages in `stream`, and whether it ended in an error.
fn frames(stream: &[u8], segment_len: usize) -> (Vec<usize>, bool) {
    let mut buffered = Vec::new();
    let mut lens = Vec::new();
    for segment in stream.chunks(segment_len) {
        buffered.extend_from_slice(segment);
        loop {
            match next_frame(&buffered, STREAM_FRAME_LEN_MAX) {
                Ok(Some(frame)) => {
                    assert!(frame.len <= frame.consumed && frame.consumed <= buffered.len());
                    lens.push(frame.len);
                    buffered.drain(..frame.consumed);
                }
                Ok(None) => break,
                Err(_) => return (lens, true),
            }
        }
        assert!(buffered.len() < STREAM_FRAME_LEN_MAX);
    }
    (lens, false)
}

/// A conversation of two clients and some peers with the relay: each step is one byte that says
/// what happens and the bytes it needs. Ports match Allocations after every step, and nothing
/// refers to bytes that are not there.
pub(crate) fn relay_core_input(data: &[u8]) {
    let mut input = data.iter().copied();
    let mut world = World::new();
    while let Some(step) = input.next() {
        let mut byte = || input.next().unwrap_or_default();
        let client = usize::from(step >> 7);
        match step & 0x0F {
            0 => world.ask(
                client,
                Request::Allocate {
                    family: None,
                    lifetime: None,
                },
            ),
            1 => {
                let lifetime = Some(u32::from(byte()) * 64);
                world.ask(
                    client,
                    Request::Allocate {
                        family: None,
                        lifetime,
                    },
                );
            }
            2 => world.ask(
                client,
                Request::Refresh {
                    lifetime: u32::from(byte()) * 64,
                },
            ),
            3 => {
                let peers = vec![world.peer(byte()), world.peer(byte())];
                world.ask(client, Request::CreatePermission { peers });
            }
            4 => {
                let channel = CHANNEL_MIN - 1 + u16::from(byte() & 3);
                let peer = world.peer(byte());
                world.ask(client, Request::ChannelBind { channel, peer });
            }
            5 => {
                let (peer, len) = (world.peer(byte()), usize::from(byte()));
                if let Some(packet) = world.clients[client].1.send_indication(peer, &vec![0; len]) {
                    world.client_sends(client, &packet);
                }
            }
            6 => {
                let channel = CHANNEL_MIN - 1 + u16::from(byte() & 3);
                let len = usize::from(byte());
                if let Some(packet) = Client::channel_data(channel, &vec![0; len]) {
                    world.client_sends(client, &packet);
                }
            }
            7 => {
                let (from, len) = (world.peer(byte()), usize::from(byte()) * 300);
                world.peer_sends(usize::from(step >> 4), from, len);
            }
            8 => {
                world.now += Duration::from_secs(u64::from(byte()) * 8);
                world.relay.handle_timeout(world.now);
            }
            9 => world
                .relay
                .handle_stream_closed(world.now, world.clients[client].0),
            10 => world.ports_fail = !world.ports_fail,
            11 => {
                let asked = byte();
                let options = AllocateOptions {
                    tcp: asked & 128 != 0,
                    family: [None, Some(AddressFamily::V6)][usize::from(asked & 1)],
                    additional: asked & 2 != 0,
                    lifetime: None,
                    even_port: [None, Some(false), None, Some(true)][usize::from(asked >> 2 & 3)],
                    reservation_token: world.token.filter(|_| asked & 16 != 0),
                    dont_fragment: asked & 32 != 0,
                    mobile: asked & 64 != 0,
                };
                world.ask(client, Request::AllocateWith(options));
            }
            12 => {
                let family = [AddressFamily::V4, AddressFamily::V6][usize::from(byte() & 1)];
                let lifetime = u32::from(byte() & 1) * 600;
                world.ask(client, Request::RefreshFamily { family, lifetime });
            }
            13 => {
                let (peer, kind, code) = (world.peer(byte()), byte(), byte());
                if let Some(Some(port)) = world.ports.get(usize::from(step >> 4)).copied() {
                    let icmp = Icmp {
                        kind,
                        code,
                        data: 1280,
                    };
                    let forward = world.relay.handle_icmp(world.now, port, peer, icmp);
                    world.drain();
                    world.check(forward, 0);
                }
            }
            14 => {
                let (what, which) = (byte(), byte());
                world.tcp(what, which);
            }
            _ => {
                let len = usize::from(byte());
                let packet: Vec<u8> = input.by_ref().take(len).collect();
                world.client_sends(client, &packet);
            }
        }
        world.drain();
        let open = world.ports.iter().flatten().count();
        let allocations = world.relay.stats().allocations;
        assert!((allocations..=2 * allocations).contains(&open));
        assert_eq!(world.relay.stats().connections, world.connections.len());
    }
}

struct World {
    relay: Relay,
    now: Instant,
    /// The last makes data connections for the one before.
    clients: [(FiveTuple, Client); 3],
    ports: Vec<Option<RelayPort>>,
    ports_fail: bool,
    answers: Vec<(FiveTuple, Vec<u8>)>,
    /// Connections that live.
    connections: Vec<ConnectionId>,
    /// What a port is kept under, for whoever wants to try it.
    token: Option<[u8; 8]>,
}

impl World {
    fn new() -> World {
        let now = Instant::now();
        let credentials = Credentials::new([Secret::new("secret")]);
        let config = Config {
            realm: "offhook".to_owned(),
            addresses: RelayAddresses {
                v4: Some([127, 0, 0, 1].into()),
                v6: Some([0x2600, 0, 0, 0, 0, 0, 0, 7].into()),
                ports: 50_000..=50_003,
            },
            limits: Limits {
                allocations_max: 3,
                allocations_per_user_max: 2,
                allocations_per_account_max: 3,
                user_rates: Rates::default(),
                account_rates: Rates {
                    bits_per_second_max: 0,
                    packets_per_second_max: 20,
                },
                permissions_per_allocation_max: 3,
                channels_per_allocation_max: 2,
                connections_max: 4,
                connections_per_allocation_max: 3,
                connections_unbound_per_allocation_max: 2,
                connections_per_user_max: 3,
                connections_per_account_max: 5,
                stranger_answers_per_second_max: 0,
            },
            tcp_allocations: true,
            connection_idle: Duration::from_secs(3600),
            lifetime_default: Duration::from_secs(600),
            lifetime_max: Duration::from_secs(3600),
            mobility: true,
            discovery: vec![Discovery {
                primary: ([127, 0, 0, 1], 3478).into(),
                alternate: ([127, 0, 0, 2], 3479).into(),
            }],
            peers: PeerPolicy::default(),
            alternates: Alternates::default(),
        };
        let client = |name: &str, port: u16, transport| {
            let expiry = Duration::from_secs(100_000);
            let (username, password) = credentials
                .issue(expiry, "acme", name)
                .expect("there is a secret");
            let at = FiveTuple {
                client: ([203, 0, 113, 1], port).into(),
                server: ([127, 0, 0, 1], 3478).into(),
                transport,
            };
            (at, Client::new(&username, &password, port.into()))
        };
        World {
            clients: [
                client("alice", 1, Transport::Udp),
                client("bob", 2, Transport::Tcp),
                client("bob", 3, Transport::Tls),
            ],
            relay: Relay::new(
                config,
                credentials,
                StdRng::seed_from_u64(1),
                now,
                Duration::ZERO,
            ),
            now,
            ports: Vec::new(),
            ports_fail: false,
            answers: Vec::new(),
            connections: Vec::new(),
            token: None,
        }
    }

    /// A peer for a byte of the input: public, forbidden, or a relayed address that may live.
    fn peer(&self, byte: u8) -> SocketAddr {
        match byte & 7 {
            0 | 1 => ([8, 8, 8, 8], 5000 + u16::from(byte >> 3)).into(),
            2 => ([10, 0, 0, 1], 5000).into(),
            3 => ([0x2600, 0, 0, 0, 0, 0, 0, 1], 5000).into(),
            _ => ([127, 0, 0, 1], 50_000 + u16::from(byte & 3)).into(),
        }
    }

    /// What may happen to TCP Allocations.
    fn tcp(&mut self, what: u8, which: u8) {
        let live = self.connections.get(usize::from(which >> 4));
        let id = live.copied().unwrap_or(ConnectionId(which.into()));
        let peer = self.peer(which);
        match what & 7 {
            0 => {
                let tcp = AllocateOptions {
                    tcp: true,
                    additional: which & 1 != 0,
                    ..AllocateOptions::default()
                };
                self.ask(1, Request::AllocateWith(tcp));
            }
            1 => self.ask(1, Request::Connect { peer }),
            2 => self.relay.handle_connected(self.now, id),
            3 => self.relay.handle_connect_failed(self.now, id),
            4 => {
                if let Some(Some(port)) = self.ports.get(usize::from(what >> 4)).copied() {
                    let taken = self.relay.handle_peer_connection(self.now, port, peer);
                    self.connections.extend(taken);
                }
            }
            5 => {
                let connection_id = id.0;
                self.ask(2, Request::ConnectionBind { connection_id });
            }
            6 => {
                let direction = [Direction::ToPeer, Direction::ToClient][usize::from(what >> 7)];
                let len = usize::from(which) * 64;
                self.relay
                    .handle_connection_data(self.now, id, direction, len);
            }
            _ => self.relay.handle_connection_closed(self.now, id),
        }
        self.drain();
        self.answers.clear();
    }

    fn ask(&mut self, client: usize, request: Request) {
        let mut bytes = self.clients[client].1.request(request);
        // The request, and once more with the nonce.
        for _ in 0..2 {
            self.client_sends(client, &bytes);
            let Some((to, answer)) = self.answers.pop() else {
                return;
            };
            assert_eq!(to, self.clients[client].0);
            match self.clients[client].1.handle(&answer) {
                Event::Retry(retry) => bytes = retry,
                Event::Success(answer) => {
                    self.token = answer.reservation_token.or(self.token);
                    return;
                }
                event => return assert!(!matches!(event, Event::Ignored), "an answer fits"),
            }
        }
    }

    fn client_sends(&mut self, client: usize, packet: &[u8]) {
        let forward = self
            .relay
            .handle_client_packet(self.now, self.clients[client].0, packet);
        self.drain();
        self.check(forward, packet.len());
    }

    fn peer_sends(&mut self, at: usize, from: SocketAddr, len: usize) {
        if let Some(Some(port)) = self.ports.get(at).copied() {
            let forward = self.relay.handle_peer_datagram(self.now, port, from, len);
            self.drain();
            self.check(forward, len);
        }
    }

    fn check(&self, forward: Option<Forward>, packet_len: usize) {
        match forward {
            None => {}
            Some(Forward::ToPeer {
                port, to, payload, ..
            }) => {
                assert_eq!(self.ports[port.index], Some(port));
                assert!(payload.end <= packet_len);
                let allowed = [self.peer(0).ip(), self.peer(3).ip()];
                assert!(allowed.contains(&to.ip()), "not allowed");
                assert_eq!(port.address.is_ipv4(), to.is_ipv4());
            }
            Some(Forward::ToClient {
                to,
                prefix,
                payload,
                padding,
            }) => {
                assert!(self.relay.has_allocation(&to));
                assert!(payload.end <= packet_len && padding < 4);
                assert!(prefix.as_bytes().len() >= 4);
            }
            Some(Forward::ToMedia { .. }) => panic!("there is no SFU"),
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.relay.poll_output() {
            match output {
                Output::Send { to, bytes } => {
                    let message = Message::parse(&bytes).expect("what we write, we read");
                    assert!(bytes.len() <= RESPONSE_LEN_MAX);
                    if message.method() == Method::CONNECTION_ATTEMPT {
                        continue;
                    }
                    // What became of a Connect request comes when another may be under way.
                    let failed = ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE;
                    if message.method() == Method::CONNECT
                        && message.error_code().is_none_or(|code| code == failed)
                    {
                        continue;
                    }
                    let answer = matches!(message.class(), Class::Success | Class::Error);
                    assert!(answer);
                    self.answers.push((to, bytes));
                }
                Output::OpenPort(port) | Output::Listen(port) if self.ports_fail => {
                    self.relay.handle_port_failed(self.now, port);
                }
                Output::OpenPort(port) | Output::Listen(port) => {
                    if self.ports.len() <= port.index {
                        self.ports.resize(port.index + 1, None);
                    }
                    assert_eq!(self.ports[port.index].replace(port), None);
                    self.relay.handle_port_opened(self.now, port);
                }
                Output::ClosePort(port) => {
                    if let Some(open) = self.ports.get_mut(port.index) {
                        *open = None;
                    }
                }
                Output::Connect { id, peer, .. } => {
                    let allowed = [self.peer(0).ip(), self.peer(3).ip()];
                    assert!(allowed.contains(&peer.ip()), "not allowed");
                    self.connections.push(id);
                }
                Output::Pair { one, other } => self.connections.extend([one, other]),
                Output::Splice { id, client } => {
                    assert!(self.connections.contains(&id));
                    assert!(!self.relay.has_allocation(&client));
                }
                Output::Close(id) => self.connections.retain(|held| *held != id),
                Output::MovePort { port, .. } => {
                    assert_eq!(self.ports[port.index], Some(port));
                }
                Output::Path(_) => {} // This driver has one thread, and no Path.
            }
        }
    }
}
