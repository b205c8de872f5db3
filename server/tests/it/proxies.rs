//! Load balancers and proxies in front: whom the server believes.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;

use crate::support::{TestServer, exchange, until_closed};

const CLIENT: &str = "203.0.113.9:5555";

/// A PROXY v2 header that says the connection is from [`CLIENT`].
const HEADER: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xCB\x00\x71\x09\x7F\x00\x00\x01\x15\xB3\x01\xBB";

fn trusting() -> impl FnOnce(&mut offhook::config::Config) {
    |config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]
}

#[tokio::test]
async fn a_trusted_balancer_says_who_the_client_is() {
    let t = TestServer::configured(trusting()).await;
    let mut stream = t.connect().await;
    stream.write_all(HEADER).await.unwrap();

    // STUN answers with the client's address as the server sees it.
    let mapped = t.turn(stream).binding().await.unwrap().mapped;
    assert_eq!(mapped, Some(CLIENT.parse::<SocketAddr>().unwrap()));
    t.server.stop().await;
}

#[tokio::test]
async fn the_header_may_come_in_pieces_and_before_tls() {
    let t = TestServer::with_tls(trusting()).await;
    let mut stream = t.connect().await;
    for byte in HEADER {
        stream.write_all(&[*byte]).await.unwrap();
    }
    let tls = t.handshake(stream).await;
    let mapped = t.turn(tls).binding().await.unwrap().mapped;
    assert_eq!(mapped, Some(CLIENT.parse::<SocketAddr>().unwrap()));
    t.server.stop().await;
}

#[tokio::test]
async fn a_stranger_who_claims_to_be_a_balancer_is_hung_up_on() {
    let t = TestServer::configured(|_| {}).await;
    let mut stream = t.connect().await;
    stream.write_all(HEADER).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(until_closed(&mut stream).await, b"");
    t.server.stop().await;
}

#[tokio::test]
async fn a_second_header_and_a_damaged_one_are_refused() {
    let t = TestServer::configured(trusting()).await;
    let mut damaged = HEADER.to_vec();
    damaged[12] = 0x11;
    for bytes in [[HEADER, HEADER].concat(), damaged] {
        let mut stream = t.connect().await;
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(until_closed(&mut stream).await, b"");
    }
    t.server.stop().await;
}

#[tokio::test]
async fn what_a_balancer_passes_on_unencrypted_is_sent_to_tls() {
    let t = TestServer::with_tls(trusting()).await;
    let mut stream = t.connect().await;
    stream.write_all(HEADER).await.unwrap();
    let answer = exchange(stream, "GET / HTTP/1.1\r\nHost: localhost\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    t.server.stop().await;
}

#[tokio::test]
async fn clients_behind_a_balancer_compete_only_with_themselves() {
    let t = TestServer::configured(|config| {
        trusting()(config);
        config.limits.newcomers_per_address_max = 1;
    })
    .await;
    // One that says nothing after its header; the server has read that when it has answered somebody who came later.
    let mut silent = t.connect().await;
    silent.write_all(HEADER).await.unwrap();
    let ask = async |header: &[u8]| {
        let mut stream = t.connect().await;
        stream.write_all(header).await.unwrap();
        exchange(stream, "GET /healthz HTTP/1.1\r\nHost: a\r\n").await
    };
    let mut other = HEADER.to_vec();
    other[19] = 10;
    assert!(ask(&other).await.starts_with("HTTP/1.1 200 "));

    let mut second = t.connect().await;
    second.write_all(HEADER).await.unwrap();
    assert_eq!(until_closed(&mut second).await, b"");
    drop(silent);
    t.server.stop().await;
}

#[tokio::test]
async fn a_proxy_that_speaks_tls_for_us_is_not_sent_to_tls() {
    let t = TestServer::with_tls(trusting()).await;
    let request = "GET /version.json HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n";
    let answer = exchange(t.connect().await, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    t.server.stop().await;
}
