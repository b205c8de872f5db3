//! What holds where the operator lets more pass than by default: peers on loopback, and peers over
//! TCP (RFC 6062).

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use relay_stun::{AttributeType, Class, ErrorCode, Icmp, Method};

use crate::Requirement;
use crate::phone::{Answer, PATIENCE, Phone, Rig, tcp, udp};

/// Over every transport.
pub(crate) const WHERE_ALL_IS_ON: &[Requirement] = &[
    ("8656 §11", "Send and Data indications, both ways", |rig| {
        for ip in loopbacks(rig) {
            let (alice, relayed, peer) = with_peer(rig, ip);
            let address = peer.local_addr().unwrap();
            send(&alice, address, vec![]);
            let mut got = [0; 8];
            let (len, from) = peer.recv_from(&mut got).unwrap();
            assert_eq!((&got[..len], from), (&b"anybody?"[..], relayed));

            peer.send_to(b"yes", relayed).unwrap();
            let heard = hear(&alice);
            assert_eq!(heard.peer(), Some(address));
            assert_eq!(heard.value(AttributeType::DATA), Some(&b"yes"[..]));
        }
    }),
    ("8656 §12.4", "ChannelData, both ways", |rig| {
        for ip in loopbacks(rig) {
            let (mut alice, relayed, peer) = with_peer(rig, ip);
            assert_eq!(alice.bind(0x4000, peer.local_addr().unwrap()), None);
            let packet = [&[0x40, 0, 0, 4], &b"ping"[..]].concat();
            alice.wire.send(&packet);
            let mut got = [0; 8];
            let (len, from) = peer.recv_from(&mut got).unwrap();
            assert_eq!((&got[..len], from), (&b"ping"[..], relayed));
            peer.send_to(b"ping", relayed).unwrap();
            assert_eq!(alice.wire.receive(PATIENCE), Some(packet));
        }
    }),
    (
        "8656 §7.2, §15",
        "DONT-FRAGMENT is understood, and what has it goes out",
        |rig| {
            let whole = (AttributeType::DONT_FRAGMENT, vec![]);
            let mut alice = rig.phone("alice");
            let answer = alice.ask(Method::ALLOCATE, vec![udp(), whole.clone()]);
            answer.succeeds();
            let peer = peer_at(Ipv4Addr::LOCALHOST.into());
            let address = peer.local_addr().unwrap();
            assert_eq!(alice.permit(address), None);
            send(&alice, address, vec![whole]);
            let mut got = [0; 8];
            assert_eq!(peer.recv(&mut got).unwrap(), got.len());
            assert_eq!(&got, b"anybody?");
        },
    ),
    (
        "8656 §11.5, §18.13",
        "what ICMP says of a peer comes as a Data indication with ICMP and without DATA",
        |rig| {
            for ip in loopbacks(rig) {
                let (alice, _, peer) = with_peer(rig, ip);
                let address = peer.local_addr().unwrap();
                drop(peer);
                send(&alice, address, vec![]);
                let told = hear(&alice);
                let (kind, code) = if ip.is_ipv4() { (3, 3) } else { (1, 4) };
                let unreachable = Icmp {
                    kind,
                    code,
                    data: 0,
                };
                assert_eq!(told.message().icmp(), Some(unreachable));
                assert_eq!(told.peer(), Some(address));
                assert_eq!(told.value(AttributeType::DATA), None);
            }
        },
    ),
    (
        "8016 §3.1.2",
        "who asks for a ticket gets one, and nobody else",
        |rig| {
            let answer = rig.phone("alice").ask(Method::ALLOCATE, vec![udp()]);
            assert_eq!(answer.value(AttributeType::MOBILITY_TICKET), None);
            let answer = rig
                .phone("alice")
                .ask(Method::ALLOCATE, vec![udp(), ticket(&[])]);
            assert!(answer.value(AttributeType::MOBILITY_TICKET).is_some());
        },
    ),
    (
        "8016 §3.2.2",
        "with its ticket an Allocation follows its User; a forged one: 400; a stolen one: 441",
        |rig| {
            let mut home = rig.phone("alice");
            let answer = home.ask(Method::ALLOCATE, vec![udp(), ticket(&[])]);
            let own = answer.value(AttributeType::MOBILITY_TICKET).unwrap();
            let mut forged = own.to_vec();
            forged[0] ^= 1;
            let mut train = rig.phone("alice");
            train.is_refused(
                Method::REFRESH,
                vec![ticket(&forged)],
                ErrorCode::BAD_REQUEST,
            );
            rig.phone("bob").is_refused(
                Method::REFRESH,
                vec![ticket(own)],
                ErrorCode::WRONG_CREDENTIALS,
            );

            let moved = train.ask(Method::REFRESH, vec![ticket(own)]);
            moved.succeeds();
            let next = moved.value(AttributeType::MOBILITY_TICKET);
            assert!(next.is_some() && next != Some(own));
            train.ask(Method::REFRESH, vec![]).succeeds();
            rig.phone("alice").is_refused(
                Method::REFRESH,
                vec![ticket(own)],
                ErrorCode::BAD_REQUEST,
            );
        },
    ),
    (
        "6062 §5.1",
        "peers over TCP are for clients over TCP and TLS, and no port is kept or even: 400",
        |rig| {
            let mut alice = rig.phone("alice");
            for contradiction in [
                (AttributeType::EVEN_PORT, vec![0]),
                (AttributeType::RESERVATION_TOKEN, vec![7; 8]),
                (AttributeType::DONT_FRAGMENT, vec![]),
            ] {
                alice.is_refused(
                    Method::ALLOCATE,
                    vec![tcp(), contradiction],
                    ErrorCode::BAD_REQUEST,
                );
            }
            let answer = alice.ask(Method::ALLOCATE, vec![tcp()]);
            match rig.is_byte_stream() {
                true => answer.succeeds(),
                false => assert_eq!(answer.code(), ErrorCode::BAD_REQUEST),
            }
        },
    ),
];

/// Over TCP and TLS.
pub(crate) const WITH_TCP_PEERS: &[Requirement] = &[
    (
        "6062 §5.2",
        "Connect without Allocation: 437; without a peer: 400; of an Allocation over UDP: 403",
        |rig| {
            let mut alice = rig.phone("alice");
            let peer = "127.0.0.1:5000".parse().unwrap();
            let mismatch = connect(&mut alice, peer).code();
            assert_eq!(mismatch, ErrorCode::ALLOCATION_MISMATCH);
            alice.ask(Method::ALLOCATE, vec![udp()]).succeeds();
            assert_eq!(connect(&mut alice, peer).code(), ErrorCode::FORBIDDEN);
            with_tcp_peers(rig, "alice").is_refused(
                Method::CONNECT,
                vec![],
                ErrorCode::BAD_REQUEST,
            );
        },
    ),
    (
        "6062 §5.2",
        "Connect to a denied peer: 403; of the other family: 443",
        |rig| {
            let mut alice = with_tcp_peers(rig, "alice");
            for (peer, code) in [
                ("10.0.0.1:5000", ErrorCode::FORBIDDEN),
                ("127.0.0.1:80", ErrorCode::FORBIDDEN),
                ("[::1]:5000", ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH),
            ] {
                let refused = connect(&mut alice, peer.parse().unwrap());
                assert_eq!(refused.code(), code, "{peer}");
            }
        },
    ),
    (
        "6062 §5.2",
        "a second Connect to one peer: 446, whether or not it is bound; another may",
        |rig| {
            let mut alice = with_tcp_peers(rig, "alice");
            let (peer, other) = (listener(), listener());
            let id = connection_of(&connect(&mut alice, peer.local_addr().unwrap()));
            let mut data = rig.phone("alice");
            for bound in [false, true] {
                if bound {
                    let id = vec![id.clone()];
                    data.ask(Method::CONNECTION_BIND, id).succeeds();
                }
                let refused = connect(&mut alice, peer.local_addr().unwrap());
                assert_eq!(refused.code(), ErrorCode::CONNECTION_ALREADY_EXISTS);
                assert!(refused.message().verify_integrity(&alice.key()));
            }
            connect(&mut alice, other.local_addr().unwrap()).succeeds();
        },
    ),
    (
        "6062 §5.2",
        "a peer that takes no connection: 447, and it may be tried again",
        |rig| {
            let mut alice = with_tcp_peers(rig, "alice");
            let peer = listener().local_addr().unwrap();
            for _ in 0..2 {
                let refused = connect(&mut alice, peer);
                assert_eq!(refused.code(), ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE);
                assert!(refused.message().verify_integrity(&alice.key()));
            }
            let _peer = TcpListener::bind(peer).unwrap();
            connect(&mut alice, peer).succeeds();
        },
    ),
    (
        "6062 §5.2, §5.4",
        "what is bound carries bytes and no messages",
        |rig| {
            let mut alice = with_tcp_peers(rig, "alice");
            let peer = listener();
            let id = connection_of(&connect(&mut alice, peer.local_addr().unwrap()));
            let (stream, _) = peer.accept().unwrap();
            pass_bytes(rig, id, stream);
        },
    ),
    (
        "6062 §5.3",
        "a permitted peer that connects is told of; any other is closed",
        |rig| {
            let mut alice = rig.phone("alice");
            let relayed = alice.ask(Method::ALLOCATE, vec![tcp()]).relayed()[0];
            let mut stranger = TcpStream::connect(relayed).unwrap();
            stranger.set_read_timeout(Some(PATIENCE)).unwrap();
            // A reset is an end, too.
            assert!(matches!(stranger.read(&mut [0; 1]), Ok(0) | Err(_)));

            assert_eq!(alice.permit(relayed), None);
            let peer = TcpStream::connect(relayed).unwrap();
            let told = Answer(alice.wire.receive(PATIENCE).unwrap());
            let message = told.message();
            let kind = (message.class(), message.method());
            assert_eq!(kind, (Class::Indication, Method::CONNECTION_ATTEMPT));
            assert_eq!(told.peer(), Some(peer.local_addr().unwrap()));
            pass_bytes(rig, connection_of(&told), peer);
        },
    ),
    (
        "6062 §5.4",
        "ConnectionBind of nothing: 400; of another User's: 441; on the control connection: 400",
        |rig| {
            let mut alice = with_tcp_peers(rig, "alice");
            let peer = listener();
            let id = connection_of(&connect(&mut alice, peer.local_addr().unwrap()));
            let mut guessed = id.clone();
            guessed.1[0] ^= 1;
            let bad = ErrorCode::BAD_REQUEST;
            alice.is_refused(Method::CONNECTION_BIND, vec![id.clone()], bad);
            let mut data = rig.phone("alice");
            data.is_refused(Method::CONNECTION_BIND, vec![], bad);
            data.is_refused(Method::CONNECTION_BIND, vec![guessed], bad);
            rig.phone("bob").is_refused(
                Method::CONNECTION_BIND,
                vec![id.clone()],
                ErrorCode::WRONG_CREDENTIALS,
            );
            data.ask(Method::CONNECTION_BIND, vec![id]).succeeds();
        },
    ),
    (
        "6062 §3",
        "no Channel leads to a peer over TCP: 403",
        |rig| {
            let mut alice = with_tcp_peers(rig, "alice");
            let peer = "127.0.0.1:5000".parse().unwrap();
            assert_eq!(alice.bind(0x4000, peer), Some(ErrorCode::FORBIDDEN));
        },
    ),
];

/// Where peers are, one place for each family there is.
fn loopbacks(rig: &Rig) -> Vec<IpAddr> {
    let v6 = rig.has_ipv6.then_some(Ipv6Addr::LOCALHOST.into());
    [Ipv4Addr::LOCALHOST.into()].into_iter().chain(v6).collect()
}

fn peer_at(ip: IpAddr) -> UdpSocket {
    let peer = UdpSocket::bind((ip, 0)).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer
}

/// A client with an Allocation of the family of `ip`, its relayed address, and a peer it permits.
fn with_peer(rig: &Rig, ip: IpAddr) -> (Phone, SocketAddr, UdpSocket) {
    let mut alice = rig.phone("alice");
    let family = if ip.is_ipv4() { 1 } else { 2 };
    let family = (
        AttributeType::REQUESTED_ADDRESS_FAMILY,
        vec![family, 0, 0, 0],
    );
    let relayed = alice.ask(Method::ALLOCATE, vec![udp(), family]).relayed()[0];
    let peer = peer_at(ip);
    assert_eq!(alice.permit(peer.local_addr().unwrap()), None);
    (alice, relayed, peer)
}

/// Sends a question to `peer` by a Send indication.
fn send(phone: &Phone, peer: SocketAddr, attributes: Vec<(AttributeType, Vec<u8>)>) {
    let question = (AttributeType::DATA, b"anybody?".to_vec());
    let attributes = [attributes, vec![question]].concat();
    let (_, send) = phone.with_peer(Method::SEND, &[peer], attributes);
    phone.wire.send(&send);
}

/// The next Data indication.
fn hear(phone: &Phone) -> Answer {
    let heard = Answer(phone.wire.receive(PATIENCE).unwrap());
    let kind = (heard.message().class(), heard.message().method());
    assert_eq!(kind, (Class::Indication, Method::DATA));
    heard
}

fn ticket(value: &[u8]) -> (AttributeType, Vec<u8>) {
    (AttributeType::MOBILITY_TICKET, value.to_vec())
}

fn with_tcp_peers(rig: &Rig, name: &str) -> Phone {
    let mut phone = rig.phone(name);
    phone.ask(Method::ALLOCATE, vec![tcp()]).succeeds();
    phone
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn connect(phone: &mut Phone, peer: SocketAddr) -> Answer {
    let (request, _) = phone.with_peer(Method::CONNECT, &[peer], vec![]);
    phone.exchange(&request).unwrap()
}

fn connection_of(answer: &Answer) -> (AttributeType, Vec<u8>) {
    let id = answer.value(AttributeType::CONNECTION_ID);
    (AttributeType::CONNECTION_ID, id.unwrap().to_vec())
}

/// Binds the connection `id`, and has bytes pass it in both directions.
fn pass_bytes(rig: &Rig, id: (AttributeType, Vec<u8>), mut peer: TcpStream) {
    let mut data = rig.phone("alice");
    data.ask(Method::CONNECTION_BIND, vec![id]).succeeds();
    data.wire.send(b"no message");
    let mut got = [0; 10];
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"no message");
    peer.write_all(b"nor this").unwrap();
    assert_eq!(data.wire.read(8, PATIENCE), b"nor this");
}
