//! The relay with real sockets on loopback, and our own client in front of it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "what is skipped is said")]

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relay_service::client::{Client, ClientError, Source};
use relay_service::{Config, Credentials, Handle, Relay, Secret, StreamTransport};
use relay_stun::client::{Event, Request};
use relay_stun::{AddressFamily, ErrorCode};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::common::{Localhost, self_signed};

mod common;

const SECRET: &[u8] = b"a secret of the test";

#[tokio::test]
async fn a_peer_is_reached_over_every_transport() {
    let (relay, connector) = start(|config| config.peers_allow = vec!["127.0.0.0/8".to_owned()]);
    let echo = echo_peer().await;

    for transport in ["udp", "tcp", "tls", "dtls"] {
        let mut client = connect(&relay, &connector, transport, "acme:alice").await;
        let allocated = client.allocate(None).await.unwrap();
        assert!(allocated.relayed.unwrap().ip().is_loopback());
        assert_eq!(allocated.lifetime, Some(600));

        client.create_permission(echo).await.unwrap();
        for len in [0, 1, 2, 3, 4, 1200] {
            client.send_to(echo, &vec![7; len]).await.unwrap();
            let received = receive(&mut client).await;
            assert_eq!(
                (received.from, received.payload),
                (Source::Peer(echo), vec![7; len])
            );
        }

        client.channel_bind(0x4001, echo).await.unwrap();
        for len in [0, 1, 2, 3, 4, 1200] {
            client.send_channel(0x4001, &vec![9; len]).await.unwrap();
            let received = receive(&mut client).await;
            assert_eq!(
                (received.from, received.payload),
                (Source::Channel(0x4001), vec![9; len])
            );
        }

        client.refresh(0).await.unwrap();
        let error = client.refresh(600).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Refused(ErrorCode::ALLOCATION_MISMATCH)),
            "{error}"
        );
    }
    assert_eq!(relay.stats().await.allocations, 0);
    relay.shutdown().await;
}

#[tokio::test]
async fn two_relayed_clients_meet_although_loopback_is_denied() {
    let (relay, connector) = start(|_| {});

    for (one, other) in [
        ("udp", "udp"),
        ("udp", "tcp"),
        ("tcp", "tls"),
        ("tls", "udp"),
    ] {
        let mut alice = connect(&relay, &connector, one, "acme:alice").await;
        let mut bob = connect(&relay, &connector, other, "acme:bob").await;
        let alice_relayed = alice.allocate(None).await.unwrap().relayed.unwrap();
        let bob_relayed = bob.allocate(None).await.unwrap().relayed.unwrap();
        alice.create_permission(bob_relayed).await.unwrap();
        bob.create_permission(alice_relayed).await.unwrap();

        alice.send_to(bob_relayed, b"hello").await.unwrap();
        let received = receive(&mut bob).await;
        assert_eq!(
            (received.from, &received.payload[..]),
            (Source::Peer(alice_relayed), &b"hello"[..])
        );

        bob.channel_bind(0x4000, alice_relayed).await.unwrap();
        bob.send_channel(0x4000, b"hello yourself").await.unwrap();
        let received = receive(&mut alice).await;
        assert_eq!(
            (received.from, &received.payload[..]),
            (Source::Peer(bob_relayed), &b"hello yourself"[..])
        );
        alice.send_to(bob_relayed, b"odd").await.unwrap();
        assert_eq!(receive(&mut bob).await.from, Source::Channel(0x4000));
    }
    assert_eq!(relay.stats().await.handed_over.packets, 12);

    // What is not a live relayed address stays out of reach.
    let mut mallory = connect(&relay, &connector, "udp", "acme:mallory").await;
    mallory.allocate(None).await.unwrap();
    let peer = relay.udp_addresses()[0];
    let error = mallory.channel_bind(0x4000, peer).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Refused(ErrorCode::FORBIDDEN)),
        "{error}"
    );
    let metadata = "169.254.169.254:5000".parse().unwrap();
    let error = mallory.create_permission(metadata).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Refused(ErrorCode::FORBIDDEN)),
        "{error}"
    );
    relay.shutdown().await;
}

#[tokio::test]
async fn clients_of_different_threads_meet() {
    // The kernel shares 16 clients out among 4 threads: pairs within one and across two.
    let (relay, connector) = start(|config| config.threads = 4);
    let mut clients = Vec::new();
    for index in 0..16 {
        let mut client = connect(&relay, &connector, "udp", &format!("acme:{index}")).await;
        let relayed = client.allocate(None).await.unwrap().relayed.unwrap();
        clients.push((client, relayed));
    }
    for one in 0..clients.len() {
        let other = (one + 1) % clients.len();
        let (from, to) = (clients[one].1, clients[other].1);
        clients[other].0.create_permission(from).await.unwrap();
        clients[one].0.channel_bind(0x4000, to).await.unwrap();
        for payload in ["first", "second"] {
            clients[one]
                .0
                .send_channel(0x4000, payload.as_bytes())
                .await
                .unwrap();
            let received = receive(&mut clients[other].0).await;
            assert_eq!(
                (received.from, &received.payload[..]),
                (Source::Peer(from), payload.as_bytes())
            );
        }
    }
    assert_eq!(relay.stats().await.handed_over.packets, 32);

    // Who has gone is reached from nowhere.
    let gone = clients[0].1;
    clients[0].0.refresh(0).await.unwrap();
    let error = clients[1].0.channel_bind(0x4001, gone).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Refused(ErrorCode::FORBIDDEN)),
        "{error}"
    );
    relay.shutdown().await;
}

#[tokio::test]
async fn ipv6_is_relayed_where_it_is_configured() {
    if UdpSocket::bind("[::1]:0").await.is_err() {
        eprintln!("SKIPPED: no IPv6 loopback on this machine");
        return;
    }
    let (relay, connector) = start(|config| {
        config.listen_udp.push("[::1]:0".parse().unwrap());
        config.relay_ips.push("::1".parse().unwrap());
    });
    let (username, password) = credentials("acme:alice");
    let over_v6 = relay.udp_addresses()[1];
    let mut alice = Client::udp(over_v6, &username, &password).await.unwrap();
    let mut bob = connect(&relay, &connector, "udp", "acme:bob").await;
    let alice_relayed = alice
        .allocate(Some(AddressFamily::V6))
        .await
        .unwrap()
        .relayed
        .unwrap();
    let bob_relayed = bob
        .allocate(Some(AddressFamily::V6))
        .await
        .unwrap()
        .relayed
        .unwrap();
    assert!(alice_relayed.is_ipv6() && bob_relayed.is_ipv6());

    alice.create_permission(bob_relayed).await.unwrap();
    bob.create_permission(alice_relayed).await.unwrap();
    alice.send_to(bob_relayed, b"six").await.unwrap();
    assert_eq!(receive(&mut bob).await.from, Source::Peer(alice_relayed));
    relay.shutdown().await;
}

#[tokio::test]
async fn a_stream_the_server_accepted_is_served_with_what_it_read() {
    let (relay, _) = start(|_| {});
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let handle = relay.clone();
    tokio::spawn(async move {
        let (mut stream, client) = listener.accept().await.unwrap();
        let mut read = vec![0; 10]; // As much as a demultiplexer needs.
        stream.read_exact(&mut read).await.unwrap();
        handle.accept_stream(stream, read.into(), client, server, StreamTransport::Tcp);
    });

    let (username, password) = credentials("acme:alice");
    let stream = TcpStream::connect(server).await.unwrap();
    let mut client = Client::stream(stream, &username, &password);
    assert!(client.binding().await.unwrap().mapped.is_some());
    client.allocate(None).await.unwrap();
    assert_eq!(relay.stats().await.allocations, 1);

    drop(client);
    until(async || relay.stats().await.allocations == 0).await;
    relay.shutdown().await;
}

#[tokio::test]
async fn wrong_credentials_are_refused() {
    let (relay, _) = start(|_| {});
    let udp = relay.udp_addresses()[0];
    let (username, password) = credentials("acme:alice");
    for (username, password) in [
        (&username[..], "guessed"),
        ("1:acme:alice", &password[..]),
        ("alice", "alice"),
        ("99999999999:acme:bob", &password[..]),
    ] {
        let mut client = Client::udp(udp, username, password).await.unwrap();
        let error = client.allocate(None).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Refused(ErrorCode::UNAUTHORIZED)),
            "{error}"
        );
    }

    // A new secret and the one before it both count.
    relay
        .set_credentials(Credentials::new([Secret::new("new"), Secret::new(SECRET)]))
        .await;
    let mut client = Client::udp(udp, &username, &password).await.unwrap();
    client.allocate(None).await.unwrap();
    relay
        .set_credentials(Credentials::new([Secret::new("new")]))
        .await;
    client.refresh(600).await.unwrap();
    let mut client = Client::udp(udp, &username, &password).await.unwrap();
    assert!(client.allocate(None).await.is_err());
    relay.shutdown().await;
}

#[tokio::test]
async fn a_static_user_outlives_a_change_of_secrets_and_a_drain_refuses_what_is_new() {
    let (relay, _) = start(|config| {
        config.users = vec![relay_service::StaticUser {
            name: "acme:door".to_owned(),
            password: "knock".to_owned(),
        }];
    });
    let udp = relay.udp_addresses()[0];
    let mut door = Client::udp(udp, "acme:door", "knock").await.unwrap();
    door.allocate(None).await.unwrap();
    relay
        .set_credentials(Credentials::new([Secret::new("new")]))
        .await;
    let mut again = Client::udp(udp, "acme:door", "knock").await.unwrap();
    again.allocate(None).await.unwrap();

    relay.set_draining(true).await;
    let mut late = Client::udp(udp, "acme:door", "knock").await.unwrap();
    let error = late.allocate(None).await.unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Refused(ErrorCode::INSUFFICIENT_CAPACITY)
        ),
        "{error}"
    );
    door.refresh(600).await.unwrap();
    relay.set_draining(false).await;
    late.allocate(None).await.unwrap();
    relay.shutdown().await;
}

#[tokio::test]
async fn other_settings_hold_for_what_lives_and_end_nothing() {
    let (relay, connector) = start(|config| config.peers_allow = vec!["127.0.0.0/8".to_owned()]);
    let (echo, other) = (echo_peer().await, echo_peer().await);
    let mut config = Config {
        peers_allow: vec!["127.0.0.0/8".to_owned()],
        ..Config::default()
    };
    for transport in ["udp", "tcp", "tls"] {
        let mut client = connect(&relay, &connector, transport, "acme:alice").await;
        client.allocate(None).await.unwrap();
        client.channel_bind(0x4001, echo).await.unwrap();
        client.channel_bind(0x4002, other).await.unwrap();

        config.peers_deny = vec![echo.to_string()];
        let reconfigure = async |config: &Config| {
            let credentials = Credentials::new([Secret::new(SECRET)]);
            relay.reconfigure(config, credentials).await
        };
        reconfigure(&config).await.unwrap();
        client.send_channel(0x4001, b"denied").await.unwrap();
        client.send_channel(0x4002, b"allowed").await.unwrap();
        let received = receive(&mut client).await;
        assert_eq!(
            (received.from, &received.payload[..]),
            (Source::Channel(0x4002), &b"allowed"[..]),
            "{transport}"
        );

        config.peers_deny = vec!["nonsense".to_owned()];
        let error = reconfigure(&config).await.unwrap_err();
        assert!(format!("{error:#}").contains("`peers_deny`"), "{error:#}");
        let refused = async |cause: &str| relay.stats().await.refused(cause);
        let before = refused("forbidden_deny_list").await;
        client.send_channel(0x4001, b"denied still").await.unwrap();
        until(async || refused("forbidden_deny_list").await > before).await;

        // One packet a second, two directions: the echo finds nothing left.
        config.peers_deny.clear();
        config.packets_per_second_per_user_max = 1;
        reconfigure(&config).await.unwrap();
        let before = refused("user_rate").await;
        client.send_channel(0x4001, b"too much").await.unwrap();
        until(async || refused("user_rate").await > before).await;
        config.packets_per_second_per_user_max = 0;
        reconfigure(&config).await.unwrap();
        client.send_channel(0x4001, b"at last").await.unwrap();
        assert_eq!(receive(&mut client).await.payload, b"at last");
    }
    assert_eq!(relay.stats().await.allocations_granted, 3);
    relay.shutdown().await;
}

#[tokio::test]
async fn streams_that_idle_drip_or_babble_are_closed() {
    let (relay, _) = start(|config| {
        config.stream_idle_seconds = 1;
        config.stream_message_seconds = 1;
    });
    let tcp = relay.tcp_addresses()[0];

    // Silent.
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    assert_eq!(read_until_closed(&mut stream).await, 0);

    // Unauthenticated for too long, although it talks.
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    for _ in 0..3 {
        stream.write_all(&BINDING).await.unwrap();
    }
    assert_eq!(read_until_closed(&mut stream).await, 3 * 32);

    // No STUN.
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(read_until_closed(&mut stream).await, 0);

    // A stranger's long message.
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    stream
        .write_all(&[0, 1, 0xFF, 0, 0x21, 0x12, 0xA4, 0x42])
        .await
        .unwrap();
    assert_eq!(read_until_closed(&mut stream).await, 0);

    // An Allocation does not buy time to drip.
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    allocate_on(&mut stream).await;
    stream.write_all(&BINDING[..5]).await.unwrap();
    assert_eq!(read_until_closed(&mut stream).await, 0);
    until(async || relay.stats().await.allocations == 0).await;
    relay.shutdown().await;
}

#[tokio::test]
async fn streams_have_a_limit() {
    let (relay, _) = start(|config| config.streams_per_address_max = 2);
    let tcp = relay.tcp_addresses()[0];
    let mut first = TcpStream::connect(tcp).await.unwrap();
    let mut second = TcpStream::connect(tcp).await.unwrap();
    for stream in [&mut first, &mut second] {
        stream.write_all(&BINDING).await.unwrap();
        stream.read_exact(&mut [0; 32]).await.unwrap();
    }
    let mut third = TcpStream::connect(tcp).await.unwrap();
    assert_eq!(read_until_closed(&mut third).await, 0);

    drop(first);
    let mut fourth = None;
    until(async || {
        let mut stream = TcpStream::connect(tcp).await.unwrap();
        let answered = stream.write_all(&BINDING).await.is_ok()
            && stream.read_exact(&mut [0; 32]).await.is_ok();
        fourth = Some(stream);
        answered
    })
    .await;
    relay.shutdown().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_harms_only_itself() {
    let (relay, connector) = start(|config| config.stream_queue_bytes_max = 8192);
    let mut sink = connect(&relay, &connector, "tcp", "acme:sink").await;
    let mut alice = connect(&relay, &connector, "udp", "acme:alice").await;
    let sink_relayed = sink.allocate(None).await.unwrap().relayed.unwrap();
    let alice_relayed = alice.allocate(None).await.unwrap().relayed.unwrap();
    sink.create_permission(alice_relayed).await.unwrap();
    alice.channel_bind(0x4000, sink_relayed).await.unwrap();

    for _ in 0..20_000 {
        alice.send_channel(0x4000, &[0; 1000]).await.unwrap();
    }
    assert!(alice.refresh(600).await.is_ok());
    // What the kernel took for it and what waited in its queue is still in order.
    let received = receive(&mut sink).await;
    assert_eq!(
        (received.from, received.payload.len()),
        (Source::Peer(alice_relayed), 1000)
    );
    relay.shutdown().await;
}

#[tokio::test]
async fn garbage_is_survived() {
    let (relay, connector) = start(|_| {});
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut state: u32 = 7;
    for len in 0..2000_usize {
        let mut bytes = BINDING.to_vec();
        bytes.resize(len % 200, 0);
        for byte in &mut bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 28 == 0 {
                *byte = state.to_be_bytes()[2];
            }
        }
        socket
            .send_to(&bytes, relay.udp_addresses()[0])
            .await
            .unwrap();
    }
    let mut client = connect(&relay, &connector, "udp", "acme:alice").await;
    client.allocate(None).await.unwrap();
    relay.shutdown().await;
}

#[tokio::test]
async fn shutdown_frees_the_addresses() {
    let (relay, _) = start(|_| {});
    let (udp, tcp) = (relay.udp_addresses()[0], relay.tcp_addresses()[0]);
    relay.shutdown().await;
    relay.stopped().await;
    UdpSocket::bind(udp).await.unwrap();
    tokio::net::TcpListener::bind(tcp).await.unwrap();
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let config = Config {
        listen_udp: vec![address],
        listen_tcp: Vec::new(),
        ..Config::default()
    };
    let error = Relay::start(&config, Credentials::new([]), None, None).unwrap_err();
    assert_eq!(error.to_string(), format!("can't listen on UDP {address}"));
}

/// A Binding request.
const BINDING: [u8; 20] = [
    0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
];

fn start(change: impl FnOnce(&mut Config)) -> (Handle, TlsConnector) {
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut config = Config {
        listen_udp: vec![loopback],
        listen_tcp: vec![loopback],
        listen_tls: vec![loopback],
        listen_dtls: vec![loopback],
        ..Config::default()
    };
    change(&mut config);
    let localhost = Localhost::new();
    let certificates = Some(localhost.certificates());
    let credentials = Credentials::new([Secret::new(SECRET)]);
    let relay = Relay::start(&config, credentials, Some(localhost.server), certificates);
    (relay.unwrap(), TlsConnector::from(localhost.client))
}

fn credentials(user: &str) -> (String, String) {
    let (account, user) = user.split_once(':').unwrap();
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(60);
    Credentials::new([Secret::new(SECRET)])
        .issue(expiry, account, user)
        .unwrap()
}

async fn connect(relay: &Handle, connector: &TlsConnector, transport: &str, user: &str) -> Client {
    let (username, password) = credentials(user);
    match transport {
        "udp" => Client::udp(relay.udp_addresses()[0], &username, &password)
            .await
            .unwrap(),
        "tcp" => {
            let stream = TcpStream::connect(relay.tcp_addresses()[0]).await.unwrap();
            Client::stream(stream, &username, &password)
        }
        "dtls" => {
            let server = relay.dtls_addresses()[0];
            let client = Client::dtls(server, self_signed(), &username, &password).await;
            client.unwrap()
        }
        _ => {
            let stream = TcpStream::connect(relay.tls_addresses()[0]).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let stream = connector.connect(name, stream).await.unwrap();
            Client::stream(stream, &username, &password)
        }
    }
}

/// Makes an Allocation on a bare stream.
async fn allocate_on(stream: &mut TcpStream) {
    let (username, password) = credentials("acme:alice");
    let mut conversation = relay_stun::client::Client::new(&username, &password, 1);
    let mut bytes = conversation.request(Request::Allocate {
        family: None,
        lifetime: None,
    });
    loop {
        stream.write_all(&bytes).await.unwrap();
        let mut buffer = [0; 1000];
        let len = stream.read(&mut buffer).await.unwrap();
        match conversation.handle(&buffer[..len]) {
            Event::Retry(retry) => bytes = retry,
            event => return assert!(matches!(event, Event::Success(_)), "{event:?}"),
        }
    }
}

/// A peer that sends back what it gets.
async fn echo_peer() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2000];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&buffer[..len], from).await.unwrap();
        }
    });
    address
}

async fn receive(client: &mut Client) -> relay_service::client::Received {
    timeout(Duration::from_secs(5), client.receive())
        .await
        .unwrap()
        .unwrap()
}

async fn read_until_closed(stream: &mut TcpStream) -> usize {
    let mut bytes = Vec::new();
    // A reset ends it as well as an orderly end does.
    timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes))
        .await
        .unwrap()
        .ok();
    bytes.len()
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    timeout(Duration::from_secs(5), async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}
