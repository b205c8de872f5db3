//! A client that does what it is told, right or wrong, and a relay for it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use relay_core::Transport;
use relay_service::{Config, Credentials, Handle, Relay, StaticUser};
use relay_stun::{
    AttributeType, Class, ErrorCode, HEADER_LEN, IntegrityKey, IntegrityKind, Message,
    MessageWriter, Method, PasswordAlgorithm, userhash,
};
use rustls::ClientConfig;

use crate::common::Localhost;
use crate::wire::Wire;

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(150);

pub(crate) type Attributes = Vec<(AttributeType, Vec<u8>)>;

pub(crate) fn udp() -> (AttributeType, Vec<u8>) {
    (AttributeType::REQUESTED_TRANSPORT, vec![17, 0, 0, 0])
}

pub(crate) fn tcp() -> (AttributeType, Vec<u8>) {
    (AttributeType::REQUESTED_TRANSPORT, vec![6, 0, 0, 0])
}

/// A request without credentials.
pub(crate) fn bare(method: Method, attributes: &[(AttributeType, Vec<u8>)]) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let mut writer = MessageWriter::new(&mut buffer, Class::Request, method, rand::random());
    for (attribute, value) in attributes {
        writer = writer.attribute(*attribute, value);
    }
    writer.finish().unwrap().to_vec()
}

/// A relay, and how it is talked with.
pub(crate) struct Rig {
    pub(crate) relay: Handle,
    pub(crate) has_ipv6: bool,
    pub(crate) transport: Transport,
    tls: Arc<ClientConfig>,
}

impl Rig {
    pub(crate) fn start(
        has_ipv6: bool,
        transport: Transport,
        change: impl FnOnce(&mut Config),
    ) -> Rig {
        let user = |name: &str| StaticUser {
            name: format!("acme:{name}"),
            password: format!("{name}'s password"),
        };
        let listen: Vec<SocketAddr> = vec![(Ipv4Addr::LOCALHOST, 0).into()];
        let mut config = Config {
            listen_udp: listen.clone(),
            listen_tcp: listen.clone(),
            listen_tls: listen.clone(),
            listen_dtls: listen,
            users: vec![user("alice"), user("bob")],
            allocations_per_user_max: 1000,
            stranger_answers_per_second_max: 0,
            ..Config::default()
        };
        if has_ipv6 {
            config.relay_ips.push(Ipv6Addr::LOCALHOST.into());
        }
        change(&mut config);
        // Without a secret there are static users alone, whose hashes can all be told.
        let credentials = Credentials::new([]);
        let localhost = Localhost::new();
        let certificates = Some(localhost.certificates());
        let relay = Relay::start(&config, credentials, Some(localhost.server), certificates);
        Rig {
            relay: relay.unwrap(),
            has_ipv6,
            transport,
            tls: localhost.client,
        }
    }

    /// Where clients are served.
    pub(crate) fn server(&self) -> SocketAddr {
        match self.transport {
            Transport::Udp => self.relay.udp_addresses()[0],
            Transport::Tcp => self.relay.tcp_addresses()[0],
            Transport::Tls => self.relay.tls_addresses()[0],
            Transport::Dtls => self.relay.dtls_addresses()[0],
        }
    }

    /// Whether RFC 6062 has a say (§5.1).
    pub(crate) fn is_byte_stream(&self) -> bool {
        matches!(self.transport, Transport::Tcp | Transport::Tls)
    }

    pub(crate) fn wire(&self) -> Wire {
        Wire::connect(self.transport, self.server(), &self.tls)
    }

    /// A client that has asked once and knows what the server wants.
    pub(crate) fn phone(&self, name: &str) -> Phone {
        let mut phone = Phone {
            wire: self.wire(),
            username: format!("acme:{name}"),
            password: format!("{name}'s password"),
            nonce: Vec::new(),
            offered: Vec::new(),
            chosen: PasswordAlgorithm::Sha256.value().to_vec(),
            legacy: false,
            anonymous: false,
            without: None,
            behind: Vec::new(),
        };
        let challenge = phone.exchange(&bare(Method::ALLOCATE, &[udp()])).unwrap();
        assert_eq!(challenge.code(), ErrorCode::UNAUTHORIZED);
        let value = |attribute| challenge.value(attribute).unwrap().to_vec();
        phone.nonce = value(AttributeType::NONCE);
        phone.offered = value(AttributeType::PASSWORD_ALGORITHMS);
        phone
    }

    pub(crate) fn allocated(&self, name: &str) -> Phone {
        let mut phone = self.phone(name);
        phone.ask(Method::ALLOCATE, vec![udp()]).succeeds();
        phone
    }
}

/// A client that does what it is told, right or wrong.
pub(crate) struct Phone {
    pub(crate) wire: Wire,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) nonce: Vec<u8>,
    /// PASSWORD-ALGORITHMS and PASSWORD-ALGORITHM as it sends them.
    pub(crate) offered: Vec<u8>,
    pub(crate) chosen: Vec<u8>,
    /// Knows RFC 5389 only.
    pub(crate) legacy: bool,
    /// Sends USERHASH.
    pub(crate) anonymous: bool,
    /// What it forgets.
    pub(crate) without: Option<AttributeType>,
    /// What it writes behind the integrity.
    pub(crate) behind: Attributes,
}

impl Phone {
    pub(crate) fn key(&self) -> IntegrityKey {
        let algorithm = match self.legacy {
            true => PasswordAlgorithm::Md5,
            false => PasswordAlgorithm::Sha256,
        };
        // The password goes with the name, so that another User can ask with the right one.
        let name = self.username.trim_start_matches("acme:");
        let password = match self.password == "guessed" {
            true => self.password.clone(),
            false => format!("{name}'s password"),
        };
        IntegrityKey::long_term(algorithm, &self.username, "offhook", &password)
    }

    pub(crate) fn signed(&self, method: Method, attributes: Attributes) -> Vec<u8> {
        self.with_peer(method, &[], attributes).0
    }

    /// A request with credentials, and an indication, about these peers.
    pub(crate) fn with_peer(
        &self,
        method: Method,
        peers: &[SocketAddr],
        attributes: Attributes,
    ) -> (Vec<u8>, Vec<u8>) {
        let name = match self.anonymous {
            true => (
                AttributeType::USERHASH,
                userhash(&self.username, "offhook").to_vec(),
            ),
            false => (AttributeType::USERNAME, self.username.clone().into_bytes()),
        };
        let mut credentials = vec![
            name,
            (AttributeType::REALM, b"offhook".to_vec()),
            (AttributeType::NONCE, self.nonce.clone()),
        ];
        if !self.legacy {
            credentials.push((AttributeType::PASSWORD_ALGORITHMS, self.offered.clone()));
            credentials.push((AttributeType::PASSWORD_ALGORITHM, self.chosen.clone()));
        }
        credentials.retain(|(attribute, _)| Some(*attribute) != self.without);
        let kind = match self.legacy {
            true => IntegrityKind::Sha1,
            false => IntegrityKind::Sha256,
        };
        let write = |class, attributes: &Attributes| {
            let mut buffer = [0; 2048];
            let mut writer = MessageWriter::new(&mut buffer, class, method, rand::random());
            for peer in peers {
                writer = writer.xor_address(AttributeType::XOR_PEER_ADDRESS, *peer);
            }
            for (attribute, value) in attributes {
                writer = writer.attribute(*attribute, value);
            }
            if class == Class::Request {
                writer = writer.integrity(kind, &self.key());
            }
            for (attribute, value) in &self.behind {
                writer = writer.attribute(*attribute, value);
            }
            writer.finish().unwrap().to_vec()
        };
        let indication = write(Class::Indication, &attributes);
        let request = write(Class::Request, &[attributes, credentials].concat());
        (request, indication)
    }

    pub(crate) fn exchange(&self, request: &[u8]) -> Option<Answer> {
        self.wire.send(request);
        let answer = Answer(self.wire.receive(PATIENCE)?);
        assert_eq!(answer.0[8..HEADER_LEN], request[8..HEADER_LEN]);
        Some(answer)
    }

    pub(crate) fn ask(&mut self, method: Method, attributes: Attributes) -> Answer {
        let request = self.signed(method, attributes);
        self.exchange(&request).unwrap()
    }

    pub(crate) fn is_refused(
        &mut self,
        method: Method,
        attributes: Attributes,
        expected: ErrorCode,
    ) {
        assert_eq!(self.ask(method, attributes).code(), expected);
    }

    pub(crate) fn is_not_answered(&self, bytes: &[u8]) {
        self.wire.send(bytes);
        assert_eq!(self.wire.receive(SILENCE), None);
    }

    pub(crate) fn permit(&mut self, peer: SocketAddr) -> Option<ErrorCode> {
        let (request, _) = self.with_peer(Method::CREATE_PERMISSION, &[peer], vec![]);
        self.exchange(&request).unwrap().message().error_code()
    }

    pub(crate) fn bind(&mut self, channel: u16, peer: SocketAddr) -> Option<ErrorCode> {
        let number = (u32::from(channel) << 16).to_be_bytes().to_vec();
        let number = vec![(AttributeType::CHANNEL_NUMBER, number)];
        let (request, _) = self.with_peer(Method::CHANNEL_BIND, &[peer], number);
        self.exchange(&request).unwrap().message().error_code()
    }
}

pub(crate) struct Answer(pub(crate) Vec<u8>);

impl Answer {
    pub(crate) fn message(&self) -> Message<'_> {
        Message::parse(&self.0).unwrap()
    }

    pub(crate) fn code(&self) -> ErrorCode {
        assert_eq!(self.message().class(), Class::Error);
        self.message().error_code().unwrap()
    }

    pub(crate) fn succeeds(&self) {
        assert_eq!(self.message().error_code(), None);
        assert_eq!(self.message().class(), Class::Success);
    }

    pub(crate) fn value(&self, attribute: AttributeType) -> Option<&[u8]> {
        self.message().attribute(attribute)
    }

    pub(crate) fn lifetime(&self) -> Option<u32> {
        self.message().u32(AttributeType::LIFETIME)
    }

    /// The client's own address.
    pub(crate) fn mapped(&self) -> Option<SocketAddr> {
        self.message()
            .xor_address(AttributeType::XOR_MAPPED_ADDRESS)
    }

    /// Whom it is about.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.message().xor_address(AttributeType::XOR_PEER_ADDRESS)
    }

    pub(crate) fn relayed(&self) -> Vec<SocketAddr> {
        let message = self.message();
        let relayed = message
            .attributes()
            .filter(|(attribute, _)| *attribute == AttributeType::XOR_RELAYED_ADDRESS);
        relayed
            .map(|(_, value)| {
                relay_stun::decode_xor_address(value, &message.transaction_id()).unwrap()
            })
            .collect()
    }
}
