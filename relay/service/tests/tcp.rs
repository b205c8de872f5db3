//! TCP Allocations (RFC 6062) with real sockets on loopback.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use relay_service::client::{Client, ClientError};
use relay_service::{Config, Credentials, Handle, Relay, Secret, StreamTransport};
use relay_stun::ErrorCode;
use relay_stun::client::{Client as Conversation, Event, Request};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::common::Localhost;

mod common;

const SECRET: &[u8] = b"a secret of the test";

#[tokio::test]
async fn bytes_and_their_end_pass_both_ways_over_tcp_and_tls() {
    let (relay, tls) = start(|_| {});
    for (control, data) in [("tcp", "tcp"), ("tls", "tls"), ("tcp", "tls")] {
        let peer = listener().await;
        let mut alice = client(&relay, &tls, control, "acme:alice").await;
        let relayed = alice.allocate_tcp().await.unwrap().relayed.unwrap();
        let connecting = alice.connect(peer.local_addr().unwrap());
        let (connected, accepted) = tokio::join!(connecting, peer.accept());
        let id = connected.unwrap().connection_id.unwrap();
        let (mut peer, from) = accepted.unwrap();
        assert_eq!(from, relayed, "the peer sees the relayed address");

        // What the peer says before its client is there is not lost.
        peer.write_all(b"welcome").await.unwrap();
        let mut stream = bind(&relay, &tls, data, "acme:alice", id).await.unwrap();
        assert_eq!(read(&mut stream, 7).await, b"welcome");
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(read(&mut peer, 5).await, b"hello");

        // One side ends, the other still speaks.
        stream.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut peer).await, b"");
        peer.write_all(b"bye").await.unwrap();
        drop(peer);
        assert_eq!(read_to_end(&mut stream).await, b"bye");
        until(async || relay.stats().await.connections == 0).await;
    }
    let stats = relay.stats().await;
    assert_eq!(stats.connections_bound, 3);
    let from_clients: u64 = stats.from_clients.iter().map(|held| held.bytes).sum();
    let to_clients: u64 = stats.to_clients.iter().map(|held| held.bytes).sum();
    assert_eq!((from_clients, to_clients), (3 * 5, 3 * 10));
    relay.shutdown().await;
}

#[tokio::test]
async fn ten_connections_of_one_allocation_mix_nothing_up() {
    const LEN: usize = 1_000_000;
    let (relay, tls) = start(|_| {});
    let mut alice = client(&relay, &tls, "tcp", "acme:alice").await;
    alice.allocate_tcp().await.unwrap();
    let mut tasks = Vec::new();
    for number in 0..10_u8 {
        let peer = listener().await;
        let connecting = alice.connect(peer.local_addr().unwrap());
        let (connected, accepted) = tokio::join!(connecting, peer.accept());
        let id = connected.unwrap().connection_id.unwrap();
        let (mut peer, _) = accepted.unwrap();
        let transport = ["tcp", "tls"][usize::from(number % 2)];
        let stream = bind(&relay, &tls, transport, "acme:alice", id);
        let stream = stream.await.unwrap();
        tasks.push(tokio::spawn(async move {
            let pattern = |from: u8| -> Vec<u8> {
                let byte = |at: usize| {
                    at.to_le_bytes()
                        .into_iter()
                        .fold(number ^ from, |a, b| a ^ b)
                };
                (0..LEN).map(byte).collect()
            };
            let (mut reader, mut writer) = tokio::io::split(stream);
            let (mut peer_reader, mut peer_writer) = peer.split();
            let (up, down) = (pattern(0), pattern(128));
            let sending = async {
                writer.write_all(&up).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let answering = async {
                peer_writer.write_all(&down).await.unwrap();
                peer_writer.shutdown().await.unwrap();
            };
            let ((), (), at_peer, at_client) = tokio::join!(
                sending,
                answering,
                read_to_end(&mut peer_reader),
                read_to_end(&mut reader)
            );
            assert!(at_peer == up && at_client == down, "connection {number}");
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    until(async || relay.stats().await.connections == 0).await;
    relay.shutdown().await;
}

#[tokio::test]
async fn a_slow_reader_slows_its_peer_down_and_loses_nothing() {
    let (relay, tls) = start(|_| {});
    let (_alice, mut peer, mut stream) = connected(&relay, &tls).await;
    let mut written: u64 = 0;
    let chunk = vec![7; 64 * 1024];
    // The kernel's buffers take some megabytes at most, ours next to nothing.
    while let Ok(len) = timeout(Duration::from_millis(500), peer.write(&chunk)).await {
        written += len.unwrap() as u64;
        assert!(written < 256 << 20, "somebody takes it all");
    }
    // Others do not wait for it.
    let (_bob, mut others_peer, mut others) = connected(&relay, &tls).await;
    others_peer.write_all(b"quick").await.unwrap();
    assert_eq!(read(&mut others, 5).await, b"quick");

    drop(peer);
    assert_eq!(read_to_end(&mut stream).await.len() as u64, written);
    relay.shutdown().await;
}

#[tokio::test]
async fn a_rate_slows_down_and_drops_nothing() {
    let (relay, tls) = start(|config| config.bits_per_second_per_user_max = 800_000);
    let (_alice, mut peer, mut stream) = connected(&relay, &tls).await;
    let began = Instant::now();
    let sent = vec![9; 200_000];
    let (written, received) = tokio::join!(
        async {
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await
        },
        read_to_end(&mut peer)
    );
    written.unwrap();
    assert!(received == sent, "{} bytes", received.len());
    // A second's worth goes at once, the other 100,000 bytes take a second.
    let took = began.elapsed();
    assert!(took > Duration::from_millis(800), "{took:?}");
    relay.shutdown().await;
}

#[tokio::test]
async fn a_permitted_peer_connects_and_any_other_is_closed() {
    let (relay, tls) = start(|_| {});
    let mut alice = client(&relay, &tls, "tcp", "acme:alice").await;
    let relayed = alice.allocate_tcp().await.unwrap().relayed.unwrap();
    let mut stranger = TcpStream::connect(relayed).await.unwrap();
    assert_eq!(read_to_end(&mut stranger).await, b"");

    alice.create_permission(relayed).await.unwrap();
    let mut peer = TcpStream::connect(relayed).await.unwrap();
    peer.write_all(b"may I").await.unwrap();
    let (id, from) = soon(alice.connection_attempt()).await.unwrap();
    assert_eq!(from, peer.local_addr().unwrap());
    let mut stream = bind(&relay, &tls, "tcp", "acme:alice", id).await.unwrap();
    assert_eq!(read(&mut stream, 5).await, b"may I");

    // From the same port it goes out at the same time.
    let other = listener().await;
    let connecting = alice.connect(other.local_addr().unwrap());
    let (connected, accepted) = tokio::join!(connecting, other.accept());
    connected.unwrap();
    assert_eq!(accepted.unwrap().1, relayed);

    // The end of the Allocation is the end of all.
    alice.refresh(0).await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, b"");
    assert_eq!(read_to_end(&mut peer).await, b"");
    until(async || TcpStream::connect(relayed).await.is_err()).await;
    assert_eq!(relay.stats().await.connections, 0);
    relay.shutdown().await;
}

#[tokio::test]
async fn the_control_connection_takes_everything_with_it() {
    let (relay, tls) = start(|_| {});
    let (alice, mut peer, mut stream) = connected(&relay, &tls).await;
    drop(alice);
    assert_eq!(read_to_end(&mut stream).await, b"");
    assert_eq!(read_to_end(&mut peer).await, b"");
    until(async || relay.stats().await.allocations == 0).await;
    relay.shutdown().await;
}

#[tokio::test]
async fn two_allocations_meet_although_loopback_is_denied() {
    let (relay, tls) = start(|config| config.peers_allow = Vec::new());
    let mut alice = client(&relay, &tls, "tcp", "acme:alice").await;
    let mut bob = client(&relay, &tls, "tls", "acme:bob").await;
    let at_alice = alice.allocate_tcp().await.unwrap().relayed.unwrap();
    let at_bob = bob.allocate_tcp().await.unwrap().relayed.unwrap();
    refused(alice.connect(at_alice).await, 403, "itself");
    refused(alice.connect(relay.tcp_addresses()[0]).await, 403, "own");
    refused(alice.connect(at_bob).await, 447, "not permitted");

    bob.create_permission(at_alice).await.unwrap();
    let id = alice.connect(at_bob).await.unwrap().connection_id.unwrap();
    let (others_id, from) = soon(bob.connection_attempt()).await.unwrap();
    assert_eq!(from, at_alice);
    let mut one = bind(&relay, &tls, "tcp", "acme:alice", id).await.unwrap();
    one.write_all(b"early").await.unwrap();
    let other = bind(&relay, &tls, "tcp", "acme:bob", others_id).await;
    let mut other = other.unwrap();
    assert_eq!(read(&mut other, 5).await, b"early");
    one.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut other).await, b"");
    other.write_all(b"late").await.unwrap();
    other.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut one).await, b"late");
    until(async || relay.stats().await.connections == 0).await;
    assert_eq!(relay.stats().await.handed_over.bytes, 9);
    relay.shutdown().await;
}

#[tokio::test]
async fn what_follows_the_request_in_one_read_belongs_to_the_peer() {
    let (relay, tls) = start(|_| {});
    let mut alice = client(&relay, &tls, "tcp", "acme:alice").await;
    alice.allocate_tcp().await.unwrap();
    // Through a port of the relay, and through one that the server shares with others.
    let shared = listener().await;
    let addresses = [relay.tcp_addresses()[0], shared.local_addr().unwrap()];
    let handle = relay.clone();
    tokio::spawn(async move {
        let (mut stream, client) = shared.accept().await.unwrap();
        let server = stream.local_addr().unwrap();
        let mut read = vec![0; 10]; // As much as a demultiplexer needs.
        stream.read_exact(&mut read).await.unwrap();
        handle.accept_stream(stream, read.into(), client, server, StreamTransport::Tcp);
    });

    for address in addresses {
        let peer = listener().await;
        let connecting = alice.connect(peer.local_addr().unwrap());
        let (connected, accepted) = tokio::join!(connecting, peer.accept());
        let connection_id = connected.unwrap().connection_id.unwrap();
        let (mut peer, _) = accepted.unwrap();

        let mut stream = TcpStream::connect(address).await.unwrap();
        let (username, password) = credentials("acme:alice");
        let mut conversation = Conversation::new(&username, &password, 1);
        let bytes = conversation.request(Request::ConnectionBind { connection_id });
        stream.write_all(&bytes).await.unwrap();
        let mut answer = [0; 1000];
        let len = stream.read(&mut answer).await.unwrap();
        let Event::Retry(mut bytes) = conversation.handle(&answer[..len]) else {
            panic!("not challenged");
        };
        let early = vec![3; 100_000];
        bytes.extend_from_slice(&early);
        stream.write_all(&bytes).await.unwrap();
        assert!(read(&mut peer, early.len()).await == early);
    }
    relay.shutdown().await;
}

#[tokio::test]
async fn a_stolen_id_is_of_no_use_and_limits_hold() {
    let (relay, tls) = start(|config| config.tcp_connections_per_allocation_max = 2);
    let mut alice = client(&relay, &tls, "tcp", "acme:alice").await;
    alice.allocate_tcp().await.unwrap();
    let peer = listener().await;
    let address = peer.local_addr().unwrap();
    let id = alice.connect(address).await.unwrap().connection_id.unwrap();
    let stolen = bind(&relay, &tls, "tcp", "acme:mallory", id).await;
    refused(stolen, 441, "another User");
    let guessed = bind(&relay, &tls, "tcp", "acme:alice", id ^ 1).await;
    refused(guessed, 400, "no such connection");
    refused(alice.connect(address).await, 446, "connected already");
    bind(&relay, &tls, "tcp", "acme:alice", id).await.unwrap();

    // The address of nobody, after which there is room for one more, and no further.
    let nobody = listener().await.local_addr().unwrap();
    refused(alice.connect(nobody).await, 447, "nobody");
    let second = listener().await;
    let third = listener().await;
    alice.connect(second.local_addr().unwrap()).await.unwrap();
    let got = alice.connect(third.local_addr().unwrap()).await;
    refused(got, 508, "too many");
    relay.shutdown().await;
}

#[tokio::test]
async fn a_connection_nobody_binds_is_closed_after_30_seconds() {
    let (relay, tls) = start(|_| {});
    let mut alice = client(&relay, &tls, "tcp", "acme:alice").await;
    alice.allocate_tcp().await.unwrap();
    let peer = listener().await;
    let connecting = alice.connect(peer.local_addr().unwrap());
    let (connected, accepted) = tokio::join!(connecting, peer.accept());
    let id = connected.unwrap().connection_id.unwrap();
    let (mut peer, _) = accepted.unwrap();
    let began = Instant::now();
    let ended = timeout(Duration::from_secs(40), peer.read(&mut [0; 1])).await;
    assert_eq!(ended.unwrap().unwrap(), 0);
    let took = began.elapsed();
    assert!(took > Duration::from_secs(29), "{took:?}");
    let late = bind(&relay, &tls, "tcp", "acme:alice", id).await;
    refused(late, 400, "too late");
    relay.shutdown().await;
}

#[tokio::test]
async fn it_is_off_unless_the_operator_wants_it() {
    let (relay, tls) = start(|config| config.tcp_allocations = false);
    let mut alice = client(&relay, &tls, "tcp", "acme:alice").await;
    refused(alice.allocate_tcp().await, 442, "off");
    relay.shutdown().await;
}

/// A client with an Allocation, its peer, and the data connection between the two.
async fn connected(
    relay: &Handle,
    tls: &TlsConnector,
) -> (
    Client,
    TcpStream,
    impl AsyncRead + AsyncWrite + Send + Unpin,
) {
    let peer = listener().await;
    let mut alice = client(relay, tls, "tcp", "acme:alice").await;
    alice.allocate_tcp().await.unwrap();
    let connecting = alice.connect(peer.local_addr().unwrap());
    let (connected, accepted) = tokio::join!(connecting, peer.accept());
    let id = connected.unwrap().connection_id.unwrap();
    let stream = bind(relay, tls, "tcp", "acme:alice", id).await.unwrap();
    (alice, accepted.unwrap().0, stream)
}

/// A data connection of `user`, with nothing read from it yet.
async fn bind(
    relay: &Handle,
    tls: &TlsConnector,
    transport: &str,
    user: &str,
    id: u32,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, ClientError> {
    let data = client(relay, tls, transport, user).await;
    let (stream, early) = data.bind_connection(id).await?;
    let (reader, writer) = tokio::io::split(stream);
    Ok(tokio::io::join(
        std::io::Cursor::new(early).chain(reader),
        writer,
    ))
}

async fn client(relay: &Handle, tls: &TlsConnector, transport: &str, user: &str) -> Client {
    let (username, password) = credentials(user);
    if transport == "tcp" {
        let stream = TcpStream::connect(relay.tcp_addresses()[0]).await.unwrap();
        return Client::stream(stream, &username, &password);
    }
    let stream = TcpStream::connect(relay.tls_addresses()[0]).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = tls.connect(name, stream).await.unwrap();
    Client::stream(stream, &username, &password)
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn refused<T>(got: Result<T, ClientError>, code: u16, case: &str) {
    match got {
        Err(ClientError::Refused(refused)) => assert_eq!(refused, ErrorCode(code), "{case}"),
        Err(error) => panic!("{case}: {error}"),
        Ok(_) => panic!("{case}: not refused"),
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.unwrap()
}

async fn read(stream: &mut (impl AsyncRead + Unpin), len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    soon(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset ends it as well as an orderly end does.
    soon(stream.read_to_end(&mut bytes)).await.ok();
    bytes
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    soon(async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn credentials(user: &str) -> (String, String) {
    let (account, user) = user.split_once(':').unwrap();
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(600);
    Credentials::new([Secret::new(SECRET)])
        .issue(expiry, account, user)
        .unwrap()
}

fn start(change: impl FnOnce(&mut Config)) -> (Handle, TlsConnector) {
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut config = Config {
        listen_udp: vec![loopback],
        listen_tcp: vec![loopback],
        listen_tls: vec![loopback],
        tcp_allocations: true,
        peers_allow: vec!["127.0.0.0/8".to_owned()],
        ..Config::default()
    };
    change(&mut config);
    let localhost = Localhost::new();
    let credentials = Credentials::new([Secret::new(SECRET)]);
    let relay = Relay::start(&config, credentials, Some(localhost.server), None).unwrap();
    (relay, TlsConnector::from(localhost.client))
}
