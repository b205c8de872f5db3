//! The relay's public address is asked for where the operator says, and nowhere else.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relay_service::client::Client;
use relay_service::{Config, Credentials, Relay, Secret, find_public_ips, follow_public_ips};
use relay_stun::{AttributeType, Class, Message, MessageWriter, Method};
use tokio::net::UdpSocket;
use tokio::time::timeout;

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// What the STUN server sees.
type Seen = Arc<Mutex<SocketAddr>>;

/// A STUN server behind whose NAT everybody is at `seen`; it loses the first request, and says something else before each answer.
async fn stun_server(seen: Seen) -> SocketAddr {
    let socket = UdpSocket::bind(loopback(0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        socket.recv_from(&mut buffer).await.unwrap();
        loop {
            let (len, client) = socket.recv_from(&mut buffer).await.unwrap();
            let request = Message::parse(&buffer[..len]).unwrap();
            assert_eq!(request.method(), Method::BINDING);
            let mapped = *seen.lock().unwrap();
            let answer = |id, mapped| {
                let mut bytes = [0; 100];
                let len = MessageWriter::new(&mut bytes, Class::Success, Method::BINDING, id)
                    .xor_address(AttributeType::XOR_MAPPED_ADDRESS, mapped)
                    .finish()
                    .unwrap()
                    .len();
                bytes[..len].to_vec()
            };
            let of_another = answer([7; 12], "198.51.100.1:1".parse().unwrap());
            socket.send_to(&of_another, client).await.unwrap();
            let answer = answer(request.transaction_id(), mapped);
            socket.send_to(&answer, client).await.unwrap();
        }
    });
    address
}

fn seen_at(address: &str) -> Seen {
    Arc::new(Mutex::new(address.parse().unwrap()))
}

fn config() -> Config {
    Config {
        listen_udp: vec![loopback(0)],
        listen_tcp: Vec::new(),
        relay_ips: vec![Ipv4Addr::LOCALHOST.into()],
        ..Config::default()
    }
}

#[tokio::test]
async fn a_found_address_is_what_clients_are_given() {
    let mut config = config();
    // The first is no name that leads anywhere, so the second is asked.
    config.find_public_ips_by = vec![
        "nowhere.invalid:3478".to_owned(),
        stun_server(seen_at("203.0.113.7:4711")).await.to_string(),
    ];
    config.check().unwrap();
    let found = find_public_ips(&config).await.unwrap();
    assert_eq!(found, ["203.0.113.7".parse::<IpAddr>().unwrap()]);

    config.public_ips = found;
    config.find_public_ips_by.clear();
    let credentials = Credentials::new([Secret::new("secret")]);
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(60);
    let (username, password) = credentials.issue(expiry, "acme", "alice").unwrap();
    let relay = Relay::start(&config, credentials, None, None).unwrap();
    let mut client = Client::udp(relay.udp_addresses()[0], &username, &password)
        .await
        .unwrap();
    let relayed = client.allocate(None).await.unwrap().relayed.unwrap();
    assert_eq!(relayed.ip(), "203.0.113.7".parse::<IpAddr>().unwrap());
    relay.shutdown().await;
}

#[tokio::test]
async fn an_address_that_changes_is_followed_and_ends_nothing() {
    let seen = seen_at("203.0.113.7:4711");
    let mut config = config();
    config.find_public_ips_by = vec![stun_server(seen.clone()).await.to_string()];
    let found = find_public_ips(&config).await.unwrap();
    let credentials = Credentials::new([Secret::new("secret")]);
    let started = Config {
        public_ips: found.clone(),
        find_public_ips_by: Vec::new(),
        ..config.clone()
    };
    let relay = Relay::start(&started, credentials.clone(), None, None).unwrap();
    let followed = relay.clone();
    let following = tokio::spawn(async move {
        follow_public_ips(&followed, &config, found, Duration::from_millis(20)).await;
    });
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(60);
    let (username, password) = credentials.issue(expiry, "acme", "alice").unwrap();
    let server = relay.udp_addresses()[0];
    let allocated = async || {
        let mut client = Client::udp(server, &username, &password).await.unwrap();
        let relayed = client.allocate(None).await.unwrap().relayed.unwrap();
        (client, relayed)
    };

    let (mut alice, at_alice) = allocated().await;
    assert_eq!(at_alice.ip().to_string(), "203.0.113.7");
    *seen.lock().unwrap() = "203.0.113.8:4711".parse().unwrap();
    let changed = async {
        loop {
            let (client, relayed) = allocated().await;
            if relayed.ip().to_string() == "203.0.113.8" {
                return (client, relayed);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (mut bob, at_bob) = timeout(Duration::from_secs(20), changed).await.unwrap();

    // Who has the address of before is there, for Allocations of this relay.
    alice.channel_bind(0x4000, at_bob).await.unwrap();
    bob.channel_bind(0x4000, at_alice).await.unwrap();
    alice.send_channel(0x4000, b"hello").await.unwrap();
    let heard = timeout(Duration::from_secs(5), bob.receive()).await;
    assert_eq!(heard.unwrap().unwrap().payload, b"hello");
    bob.send_channel(0x4000, b"hello yourself").await.unwrap();
    let heard = timeout(Duration::from_secs(5), alice.receive()).await;
    assert_eq!(heard.unwrap().unwrap().payload, b"hello yourself");

    relay.shutdown().await;
    timeout(Duration::from_secs(20), following)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn without_an_answer_there_is_no_relay_and_the_reason_is_told() {
    let silent = UdpSocket::bind(loopback(0)).await.unwrap();
    let mut config = config();
    config.find_public_ips_by = vec![silent.local_addr().unwrap().to_string()];
    let error = find_public_ips(&config).await.unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("no answer") && error.contains("set `public_ips` instead"),
        "{error}"
    );
}

#[tokio::test]
async fn nobody_is_asked_unless_the_operator_names_them() {
    let mut config = config();
    config.public_ips = vec!["198.51.100.4".parse().unwrap()];
    assert_eq!(find_public_ips(&config).await.unwrap(), config.public_ips);
}
