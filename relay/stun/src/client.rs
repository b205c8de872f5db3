//! A TURN client without socket or clock: builds requests, answers the server's challenge, and
//! tells what arrived. For `offhook doctor`, tests and load.
//!
//! One request is under way at a time; resending it is the caller's.

use std::net::SocketAddr;

use crate::{
    AddressFamily, AttributeType, ChannelData, Class, ErrorCode, Icmp, IntegrityKey, IntegrityKind,
    Message, MessageWriter, Method, PacketKind, PasswordAlgorithm, SecurityFeatures, TransactionId,
    classify, decode_xor_address, padding_len, userhash,
};

/// The protocol number of UDP in REQUESTED-TRANSPORT (RFC 8656 §18.7).
pub const TRANSPORT_UDP: u8 = 17;

/// The protocol number of TCP in REQUESTED-TRANSPORT (RFC 6062 §4.1).
pub const TRANSPORT_TCP: u8 = 6;

/// How often a challenge is answered before the credentials count as wrong: once for the missing
/// nonce, once for a nonce that became stale meanwhile.
const CHALLENGES_MAX: u8 = 2;

/// The client's side of one TURN conversation.
#[derive(Debug)]
pub struct Client {
    username: String,
    password: String,
    /// Knows RFC 5389 only.
    legacy: bool,
    /// What a third party granted, and the key it comes with.
    token: Option<(Vec<u8>, IntegrityKey)>,
    challenge: Option<Challenge>,
    transactions: u64,
    seed: u32,
    pending: Option<Pending>,
}

/// What the server's 401 or 438 said.
#[derive(Debug)]
struct Challenge {
    realm: String,
    nonce: Vec<u8>,
    /// PASSWORD-ALGORITHMS as the server sent it, with our choice.
    algorithms: Option<(Vec<u8>, PasswordAlgorithm)>,
    /// What stands for our name, where the server wants it hidden.
    userhash: Option<[u8; 32]>,
    key: IntegrityKey,
}

impl Challenge {
    /// SHA-256 wherever the server offered a choice (RFC 8489 §9.2.5).
    fn integrity(&self) -> IntegrityKind {
        match self.algorithms {
            Some(_) => IntegrityKind::Sha256,
            None => IntegrityKind::Sha1,
        }
    }
}

/// Why a challenge can't be answered.
enum Unusable {
    /// It lacks what an answer needs.
    Missing,
    /// It was changed on its way, to make us use less than the server offers.
    BidDown,
}

#[derive(Debug)]
struct Pending {
    request: Request,
    transaction_id: TransactionId,
    challenges: u8,
}

/// A request a client can make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Binding: asks for the own address as the server sees it.
    Binding,
    /// Allocate over UDP; without a family the server chooses IPv4.
    Allocate {
        /// The wanted family of the relayed address.
        family: Option<AddressFamily>,
        /// The wanted lifetime, in seconds.
        lifetime: Option<u32>,
    },
    /// Allocate with all that can be asked for.
    AllocateWith(AllocateOptions),
    /// Refresh of one family of an Allocation that has both.
    RefreshFamily {
        /// The family.
        family: AddressFamily,
        /// The wanted lifetime, in seconds.
        lifetime: u32,
    },
    /// Refresh that moves the Allocation to where it is sent from.
    Move {
        /// The ticket last heard.
        ticket: Vec<u8>,
        /// The wanted lifetime, in seconds.
        lifetime: u32,
    },
    /// Refresh; a lifetime of zero seconds ends the Allocation.
    Refresh {
        /// The wanted lifetime, in seconds.
        lifetime: u32,
    },
    /// CreatePermission for these peers; ports are ignored by the server.
    CreatePermission {
        /// The peers.
        peers: Vec<SocketAddr>,
    },
    /// Connect, on an Allocation that was made with [`AllocateOptions::tcp`].
    Connect {
        /// The peer to connect to.
        peer: SocketAddr,
    },
    /// ConnectionBind, on a stream of its own, which belongs to the peer after its success.
    ConnectionBind {
        /// What the connection is known by.
        connection_id: u32,
    },
    /// ChannelBind.
    ChannelBind {
        /// The channel number.
        channel: u16,
        /// The peer the Channel leads to.
        peer: SocketAddr,
    },
}

/// What an Allocate request may ask for (RFC 8656 §7.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllocateOptions {
    /// Peers are reached over TCP (RFC 6062).
    pub tcp: bool,
    /// The wanted family of the relayed address.
    pub family: Option<AddressFamily>,
    /// An IPv6 relayed address besides the IPv4 one.
    pub additional: bool,
    /// The wanted lifetime, in seconds.
    pub lifetime: Option<u32>,
    /// An even port; `Some(true)` has the next port kept for later.
    pub even_port: Option<bool>,
    /// The port that was kept before.
    pub reservation_token: Option<[u8; 8]>,
    /// Datagrams to peers may be kept whole.
    pub dont_fragment: bool,
    /// The Allocation may move to another address of ours.
    pub mobile: bool,
}

impl AllocateOptions {
    fn write<'b>(&self, mut writer: MessageWriter<'b>) -> MessageWriter<'b> {
        let transport = match self.tcp {
            true => TRANSPORT_TCP,
            false => TRANSPORT_UDP,
        };
        writer = writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[transport, 0, 0, 0]);
        if let Some(family) = self.family {
            let value = [family.byte(), 0, 0, 0];
            writer = writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &value);
        }
        if self.additional {
            let value = [AddressFamily::V6.byte(), 0, 0, 0];
            writer = writer.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &value);
        }
        if let Some(lifetime) = self.lifetime {
            writer = writer.u32(AttributeType::LIFETIME, lifetime);
        }
        if let Some(reserve) = self.even_port {
            writer = writer.attribute(AttributeType::EVEN_PORT, &[u8::from(reserve) << 7]);
        }
        if let Some(token) = &self.reservation_token {
            writer = writer.attribute(AttributeType::RESERVATION_TOKEN, token);
        }
        if self.dont_fragment {
            writer = writer.attribute(AttributeType::DONT_FRAGMENT, &[]);
        }
        if self.mobile {
            writer = writer.attribute(AttributeType::MOBILITY_TICKET, &[]);
        }
        writer
    }
}

impl Request {
    fn method(&self) -> Method {
        match self {
            Request::Binding => Method::BINDING,
            Request::Allocate { .. } | Request::AllocateWith(_) => Method::ALLOCATE,
            Request::Refresh { .. } | Request::RefreshFamily { .. } | Request::Move { .. } => {
                Method::REFRESH
            }
            Request::CreatePermission { .. } => Method::CREATE_PERMISSION,
            Request::ChannelBind { .. } => Method::CHANNEL_BIND,
            Request::Connect { .. } => Method::CONNECT,
            Request::ConnectionBind { .. } => Method::CONNECTION_BIND,
        }
    }
}

/// What a packet from the server means.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Send these bytes: the request again, with the credentials the server asked for.
    Retry(Vec<u8>),
    /// The request was carried out.
    Success(Answer),
    /// The request was refused.
    Refused(ErrorCode),
    /// A peer's datagram, as a Data indication.
    Data {
        /// The peer.
        peer: SocketAddr,
        /// What it sent.
        payload: &'a [u8],
    },
    /// What ICMP said about a datagram to a peer, as a Data indication.
    Icmp {
        /// The peer.
        peer: SocketAddr,
        /// What ICMP said.
        icmp: Icmp,
    },
    /// A peer's datagram, through a Channel.
    Channel {
        /// The channel number.
        channel: u16,
        /// What the peer sent.
        payload: &'a [u8],
    },
    /// A peer has connected; [`Request::ConnectionBind`] takes it.
    ConnectionAttempt {
        /// What the connection is known by.
        connection_id: u32,
        /// The peer.
        peer: SocketAddr,
    },
    /// Nothing of ours: malformed, forged, or the answer to a request given up.
    Ignored,
}

/// What a success response carried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The client's own address as the server sees it.
    pub mapped: Option<SocketAddr>,
    /// The relayed address of the Allocation.
    pub relayed: Option<SocketAddr>,
    /// The second relayed address of an Allocation of both families.
    pub relayed_additional: Option<SocketAddr>,
    /// Why there is no relayed address of one family.
    pub address_error: Option<(AddressFamily, ErrorCode)>,
    /// What the next port is kept under.
    pub reservation_token: Option<[u8; 8]>,
    /// What the Allocation moves to another address with.
    pub ticket: Option<Vec<u8>>,
    /// The lifetime granted, in seconds.
    pub lifetime: Option<u32>,
    /// What the connection to a peer is known by.
    pub connection_id: Option<u32>,
}

impl Client {
    /// A client with long-term credentials. `seed` makes the transaction ids of this client differ
    /// from another's.
    #[must_use]
    pub fn new(username: &str, password: &str, seed: u32) -> Client {
        Client {
            username: username.to_owned(),
            password: password.to_owned(),
            legacy: false,
            token: None,
            challenge: None,
            transactions: 0,
            seed,
            pending: None,
        }
    }

    /// The same client as it was before RFC 8489: MD5 and SHA-1, whatever the server offers.
    #[must_use]
    pub fn legacy(mut self) -> Client {
        self.legacy = true;
        self
    }

    /// A client with a token of a third party in place of a password (RFC 7635): `kid` names the
    /// key that `token` is sealed with, `mac_key` is the key inside of it.
    #[must_use]
    pub fn third_party(kid: &str, token: &[u8], mac_key: &[u8], seed: u32) -> Client {
        Client {
            token: Some((token.to_vec(), IntegrityKey::raw(mac_key))),
            ..Client::new(kid, "", seed)
        }
    }

    /// Begins `request`, giving up the one before; returns the bytes to send.
    pub fn request(&mut self, request: Request) -> Vec<u8> {
        self.begin(request, 0)
    }

    fn begin(&mut self, request: Request, challenges: u8) -> Vec<u8> {
        let transaction_id = self.next_transaction_id();
        let bytes = self.encode(&request, transaction_id);
        self.pending = Some(Pending {
            request,
            transaction_id,
            challenges,
        });
        bytes
    }

    /// A Send indication that carries `payload` to `peer`; `None` where it is too long.
    pub fn send_indication(&mut self, peer: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
        self.send_indication_with(peer, payload, false)
    }

    /// A Send indication whose payload the peer gets in one piece or not at all (DONT-FRAGMENT);
    /// `None` where `payload` is too long.
    #[must_use]
    pub fn send_indication_whole(&mut self, peer: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
        self.send_indication_with(peer, payload, true)
    }

    fn send_indication_with(
        &mut self,
        peer: SocketAddr,
        payload: &[u8],
        dont_fragment: bool,
    ) -> Option<Vec<u8>> {
        let transaction_id = self.next_transaction_id();
        let mut buffer = vec![0; 128 + payload.len()];
        let mut writer =
            MessageWriter::new(&mut buffer, Class::Indication, Method::SEND, transaction_id)
                .xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        if dont_fragment {
            writer = writer.attribute(AttributeType::DONT_FRAGMENT, &[]);
        }
        let len = writer
            .attribute(AttributeType::DATA, payload)
            .finish()
            .ok()?
            .len();
        buffer.truncate(len);
        Some(buffer)
    }

    /// A ChannelData message, padded as streams need it; `None` where `payload` is too long.
    #[must_use]
    pub fn channel_data(channel: u16, payload: &[u8]) -> Option<Vec<u8>> {
        let len = u16::try_from(payload.len()).ok()?;
        let mut bytes = ChannelData::header(channel, len).to_vec();
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len() + padding_len(payload.len()), 0);
        Some(bytes)
    }

    /// Reads one packet from the server. Never fails.
    pub fn handle<'a>(&mut self, packet: &'a [u8]) -> Event<'a> {
        match classify(packet) {
            Some(PacketKind::ChannelData) => match ChannelData::parse(packet) {
                Ok(ChannelData { channel, payload }) => Event::Channel { channel, payload },
                Err(_) => Event::Ignored,
            },
            Some(PacketKind::Stun) => match Message::parse(packet) {
                Ok(message) => self.on_message(&message),
                Err(_) => Event::Ignored,
            },
            None => Event::Ignored,
        }
    }

    fn on_message<'a>(&mut self, message: &Message<'a>) -> Event<'a> {
        if message.class() == Class::Indication && message.method() == Method::DATA {
            return match (
                message.xor_address(AttributeType::XOR_PEER_ADDRESS),
                message.attribute(AttributeType::DATA),
            ) {
                (Some(peer), Some(payload)) => Event::Data { peer, payload },
                (Some(peer), None) => match message.icmp() {
                    Some(icmp) => Event::Icmp { peer, icmp },
                    None => Event::Ignored,
                },
                _ => Event::Ignored,
            };
        }
        if message.class() == Class::Indication && message.method() == Method::CONNECTION_ATTEMPT {
            return match (
                message.u32(AttributeType::CONNECTION_ID),
                message.xor_address(AttributeType::XOR_PEER_ADDRESS),
            ) {
                (Some(connection_id), Some(peer)) => Event::ConnectionAttempt {
                    connection_id,
                    peer,
                },
                _ => Event::Ignored,
            };
        }
        let ours = |pending: &mut Pending| {
            pending.transaction_id == message.transaction_id()
                && pending.request.method() == message.method()
                && matches!(message.class(), Class::Success | Class::Error)
        };
        let Some(pending) = self.pending.take_if(ours) else {
            return Event::Ignored;
        };

        if message.class() == Class::Success {
            let protected = match &self.challenge {
                Some(challenge) => {
                    message.integrity_kind() == Some(challenge.integrity())
                        && message.verify_integrity(&challenge.key)
                }
                None => false,
            };
            if !protected && pending.request != Request::Binding {
                self.pending = Some(pending); // A forgery must not end the request.
                return Event::Ignored;
            }
            let mut relayed = message
                .attributes()
                .filter(|(attribute, _)| *attribute == AttributeType::XOR_RELAYED_ADDRESS)
                .filter_map(|(_, value)| decode_xor_address(value, &message.transaction_id()));
            return Event::Success(Answer {
                mapped: message.xor_address(AttributeType::XOR_MAPPED_ADDRESS),
                relayed: relayed.next(),
                relayed_additional: relayed.next(),
                address_error: message.address_error_code(),
                reservation_token: message
                    .attribute(AttributeType::RESERVATION_TOKEN)
                    .and_then(|token| token.try_into().ok()),
                ticket: message
                    .attribute(AttributeType::MOBILITY_TICKET)
                    .map(<[u8]>::to_vec),
                lifetime: message.u32(AttributeType::LIFETIME),
                connection_id: message.u32(AttributeType::CONNECTION_ID),
            });
        }

        let code = message.error_code().unwrap_or(ErrorCode::BAD_REQUEST);
        let challenged = matches!(code, ErrorCode::UNAUTHORIZED | ErrorCode::STALE_NONCE);
        if !challenged || pending.challenges >= CHALLENGES_MAX {
            return Event::Refused(code);
        }
        // A second 401 in a row means that the credentials themselves are refused.
        if code == ErrorCode::UNAUTHORIZED && pending.challenges > 0 {
            return Event::Refused(code);
        }
        match self.read_challenge(message) {
            Ok(challenge) => {
                self.challenge = Some(challenge);
                Event::Retry(self.begin(pending.request, pending.challenges + 1))
            }
            Err(Unusable::Missing) => Event::Refused(code),
            Err(Unusable::BidDown) => {
                self.pending = Some(pending);
                Event::Ignored
            }
        }
    }

    /// Reads a 401 or 438; the checks are those of RFC 8489 §9.2.5, in its order.
    fn read_challenge(&self, message: &Message<'_>) -> Result<Challenge, Unusable> {
        let (Some(realm), Some(nonce)) = (
            message.text(AttributeType::REALM),
            message.attribute(AttributeType::NONCE),
        ) else {
            return Err(Unusable::Missing);
        };
        let features = match self.legacy {
            true => SecurityFeatures::default(),
            false => SecurityFeatures::of_nonce(nonce).unwrap_or_default(),
        };
        let offered = message
            .attribute(AttributeType::PASSWORD_ALGORITHMS)
            .filter(|_| !self.legacy);
        // The nonce promises algorithms and there are none: somebody took them out.
        if features.password_algorithms && offered.is_none() {
            return Err(Unusable::BidDown);
        }
        let algorithms = match offered.filter(|_| features.password_algorithms) {
            Some(offered) => {
                let chosen = PasswordAlgorithm::choose(offered).ok_or(Unusable::Missing)?;
                Some((offered.to_vec(), chosen))
            }
            None => None,
        };
        let algorithm = algorithms
            .as_ref()
            .map_or_else(PasswordAlgorithm::default, |(_, chosen)| *chosen);
        let key = match &self.token {
            Some((_, key)) => key.clone(),
            None => IntegrityKey::long_term(algorithm, &self.username, realm, &self.password),
        };
        Ok(Challenge {
            key,
            realm: realm.to_owned(),
            nonce: nonce.to_vec(),
            userhash: features
                .username_anonymity
                .then(|| userhash(&self.username, realm)),
            algorithms,
        })
    }

    fn encode(&self, request: &Request, transaction_id: TransactionId) -> Vec<u8> {
        let peers_len = match request {
            Request::CreatePermission { peers } => peers.len() * 24,
            _ => 0,
        };
        let mut buffer = vec![0; 1500 + peers_len + self.username.len()];
        let mut writer = MessageWriter::new(
            &mut buffer,
            Class::Request,
            request.method(),
            transaction_id,
        );

        writer = match request {
            Request::Binding => writer,
            Request::Allocate { family, lifetime } => AllocateOptions {
                family: *family,
                lifetime: *lifetime,
                ..AllocateOptions::default()
            }
            .write(writer),
            Request::AllocateWith(options) => options.write(writer),
            Request::Move { ticket, lifetime } => writer
                .u32(AttributeType::LIFETIME, *lifetime)
                .attribute(AttributeType::MOBILITY_TICKET, ticket),
            Request::RefreshFamily { family, lifetime } => {
                writer.u32(AttributeType::LIFETIME, *lifetime).attribute(
                    AttributeType::REQUESTED_ADDRESS_FAMILY,
                    &[family.byte(), 0, 0, 0],
                )
            }
            Request::Refresh { lifetime } => writer.u32(AttributeType::LIFETIME, *lifetime),
            Request::CreatePermission { peers } => peers.iter().fold(writer, |writer, peer| {
                writer.xor_address(AttributeType::XOR_PEER_ADDRESS, *peer)
            }),
            Request::Connect { peer } => writer.xor_address(AttributeType::XOR_PEER_ADDRESS, *peer),
            Request::ConnectionBind { connection_id } => {
                writer.u32(AttributeType::CONNECTION_ID, *connection_id)
            }
            Request::ChannelBind { channel, peer } => writer
                .u32(AttributeType::CHANNEL_NUMBER, u32::from(*channel) << 16)
                .xor_address(AttributeType::XOR_PEER_ADDRESS, *peer),
        };
        if let (Some(challenge), false) = (&self.challenge, *request == Request::Binding) {
            writer = match &challenge.userhash {
                Some(hash) => writer.attribute(AttributeType::USERHASH, hash),
                None => writer.attribute(AttributeType::USERNAME, self.username.as_bytes()),
            };
            writer = writer
                .attribute(AttributeType::REALM, challenge.realm.as_bytes())
                .attribute(AttributeType::NONCE, &challenge.nonce);
            if let Some((offered, chosen)) = &challenge.algorithms {
                writer = writer
                    .attribute(AttributeType::PASSWORD_ALGORITHMS, offered)
                    .attribute(AttributeType::PASSWORD_ALGORITHM, &chosen.value());
            }
            // The server keeps the key of a token for what else is asked (RFC 7635 §4).
            if let (Some((token, _)), Method::ALLOCATE | Method::REFRESH) =
                (&self.token, request.method())
            {
                writer = writer.attribute(AttributeType::ACCESS_TOKEN, token);
            }
            writer = writer.integrity(challenge.integrity(), &challenge.key);
        }
        // A request of more than 64 KiB can't be written; the server will not answer nothing.
        let len = writer.finish().map(<[u8]>::len).unwrap_or_default();
        buffer.truncate(len);
        buffer
    }

    fn next_transaction_id(&mut self) -> TransactionId {
        self.transactions += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.seed.to_be_bytes());
        id[4..].copy_from_slice(&self.transactions.to_be_bytes());
        id
    }
}
