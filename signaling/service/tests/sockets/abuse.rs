//! What hostile or broken clients get: a refusal with a code, and nobody else is harmed.

use std::time::Duration;

use futures_util::SinkExt;
use serde_json::json;
use signaling_service::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::harness::{Client, Closed, TestService, new_id};

#[tokio::test]
async fn a_frame_beyond_the_limit_is_refused() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;

    alice.text(&"x".repeat(256 * 1024 + 1)).await;
    assert_eq!(alice.refused().await, ("too_large".to_owned(), 1009));
    unharmed(&t).await;
}

#[tokio::test]
async fn who_has_not_said_hello_may_not_send_long_frames() {
    let t = TestService::start().await;
    let mut stranger = t.connect().await;

    stranger.text(&"x".repeat(64 * 1024 + 1)).await;
    assert_eq!(stranger.refused().await, ("too_large".to_owned(), 1009));
    unharmed(&t).await;
}

#[tokio::test]
async fn a_frame_beyond_the_limit_in_pieces_is_refused() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;

    // 40 KiB seven times, as fragments of one message (RFC 6455 §5.4), masked with zeros.
    let piece = vec![b'x'; 40 * 1024];
    let stream = alice.socket.get_mut();
    for first_byte in [0x01, 0, 0, 0, 0, 0, 0x80] {
        let mut header = vec![first_byte, 0x80 | 126];
        header.extend(u16::try_from(piece.len()).unwrap().to_be_bytes());
        header.extend([0; 4]);
        stream.write_all(&header).await.unwrap();
        stream.write_all(&piece).await.unwrap();
    }
    assert_eq!(alice.refused().await, ("too_large".to_owned(), 1009));
}

#[tokio::test]
async fn binary_frames_are_refused() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;

    alice
        .socket
        .send(Message::binary(vec![1, 2, 3]))
        .await
        .unwrap();
    assert_eq!(alice.refused().await, ("bad_frame".to_owned(), 4000));
    unharmed(&t).await;
}

#[tokio::test]
async fn what_is_no_websocket_frame_is_refused() {
    let t = TestService::start().await;

    for garbage in [
        &[0xff; 16][..],                       // reserved bits
        &[0x81, 0x05, 1, 2, 3, 4, 5],          // not masked
        &[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28], // not UTF-8
    ] {
        let mut alice = t.join("alice").await;
        alice.socket.get_mut().write_all(garbage).await.unwrap();
        assert_eq!(
            alice.refused().await,
            ("bad_frame".to_owned(), 4000),
            "{garbage:?}"
        );
    }
    unharmed(&t).await;
}

#[tokio::test]
async fn an_unknown_type_is_answered_and_the_session_goes_on() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;

    assert_eq!(
        alice.refusal("call.teleport", json!({})).await,
        "unknown_type"
    );
    assert_eq!(
        alice.refusal("call.accept", json!({"call": 7})).await,
        "bad_data"
    );
    alice.ask("history.list", json!({})).await;
}

#[tokio::test]
async fn text_that_is_no_frame_ends_the_socket_and_not_the_session() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;
    alice.text("hello?").await;
    assert_eq!(alice.refused().await, ("bad_frame".to_owned(), 4000));

    let mut again = t.connect().await;
    again.take_over(&alice);
    again.hello(&t.token("alice"), Some(alice.resume())).await;
    assert_eq!(again.next("welcome").await["data"]["resumed"], true);
}

#[tokio::test]
async fn a_gap_in_the_sequence_ends_the_socket() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;
    let _lost = alice.frame("history.list", new_id(), &json!({}));
    alice.send("history.list", json!({})).await;

    assert_eq!(alice.closed().await.0, 4002);
}

#[tokio::test]
async fn thousands_of_invites_a_second_are_refused_and_others_unharmed() {
    let t = TestService::start().await;
    let mut bob = t.join("bob").await;
    let mut flood = t.join("mallory").await;

    for _ in 0..5_000 {
        let media = json!({"audio": true, "video": false});
        let data = json!({"call": new_id(), "to": "bob", "media": media});
        let frame = flood.frame("call.invite", new_id(), &data);
        if flood.socket.send(Message::text(frame)).await.is_err() {
            break; // Closed for it.
        }
    }

    let started = std::time::Instant::now();
    bob.ask("history.list", json!({})).await;
    assert!(started.elapsed() < Duration::from_secs(5));
    unharmed(&t).await;

    // What the flood was answered is a refusal before long, and in the end the socket's.
    let mut codes = std::collections::BTreeSet::new();
    let closed = loop {
        match flood.receive().await {
            Ok(frame) if frame["type"] == "error" => {
                codes.insert(frame["data"]["code"].as_str().unwrap().to_owned());
            }
            Ok(_) => {}
            Err(closed) => break closed,
        }
    };
    assert!(codes.contains("rate_limited"), "{codes:?}");
    assert!([4004, 4008, 1006].contains(&closed.0), "{closed:?}");
}

#[tokio::test]
async fn a_slow_reader_is_closed_and_its_session_stays() {
    let config = Config {
        stall_ms: 100,
        ..Config::default()
    };
    let t = TestService::start_with(config).await;
    let mut alice = t.join("alice").await;
    let mut bob = t.join("bob").await;
    alice
        .ask("presence.subscribe", json!({"users": ["bob"]}))
        .await;

    // Alice asks and reads no answer, until nothing more fits into either direction of her socket.
    let ping = || Message::text(r#"{"type":"ping"}"#);
    while tokio::time::timeout(Duration::from_millis(400), alice.socket.send(ping()))
        .await
        .is_ok_and(|sent| sent.is_ok())
    {}
    assert_eq!(alice.closed().await, Closed(4004, "too slow".to_owned()));

    bob.ask("presence.set", json!({"status": "away"})).await;
    let mut again = t.connect().await;
    again.take_over(&alice);
    again.hello(&t.token("alice"), Some(alice.resume())).await;
    assert_eq!(again.next("welcome").await["data"]["resumed"], true);
    assert_eq!(again.next("presence").await["data"]["status"], "away");
    unharmed(&t).await;
}

#[tokio::test]
async fn a_half_open_socket_is_given_up() {
    let mut config = Config::default();
    config.limits.ping_ms = 300;
    let t = TestService::start_with(config).await;
    let mut alice = t.join("alice").await;
    let mut bob = t.join("bob").await;

    // Both are pinged. Bob answers; Alice is as silent as a phone in a tunnel.
    let answering = async {
        for _ in 0..6 {
            bob.next("ping").await;
            bob.text(r#"{"type":"pong"}"#).await;
        }
    };
    let (closed, ()) = tokio::join!(alice.closed(), answering);
    assert_eq!(closed.0, 4004);
}

#[tokio::test]
async fn an_address_has_a_limited_number_of_sockets() {
    let config = Config {
        connections_per_address_max: 3,
        ..Config::default()
    };
    let t = TestService::start_with(config).await;

    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(t.connect().await);
    }
    assert_eq!(status(&t.try_connect(|_| {}).await), 429);

    open.pop();
    for attempt in 0.. {
        assert!(attempt < 100, "the place is never free again");
        if t.try_connect(|_| {}).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_address_that_guesses_tokens_has_to_wait() {
    let t = TestService::start().await;

    for attempt in 0.. {
        assert!(attempt < 100, "it can guess for ever");
        match t.try_connect(|_| {}).await {
            Ok(mut client) => {
                client.hello("a.b.c", None).await;
                assert_eq!(client.refused().await.1, 4003);
            }
            refused => {
                assert_eq!(status(&refused), 429);
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_upgrades_and_leaves_costs_nothing() {
    let t = TestService::start().await;

    for _ in 0..200 {
        let mut stream = tokio::net::TcpStream::connect(t.address).await.unwrap();
        let request = format!(
            "GET /v1/calls HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: calls.v1\r\n\r\n",
            t.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 101");
    }
    unharmed(&t).await;
}

/// The HTTP status of a refused handshake.
pub(crate) fn status(connected: &Result<Client, Box<Error>>) -> u16 {
    match connected.as_ref().err().map(|error| &**error) {
        Some(Error::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    }
}

/// The service still serves others.
async fn unharmed(t: &TestService) {
    let mut carol = t.join("carol").await;
    carol.ask("history.list", json!({})).await;
}
