//! How frames are cut into segments, reads and fragments makes no difference.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Client, TestService, device_key, new_id};

#[tokio::test]
async fn frames_that_come_together_are_answered_in_order() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;

    let mut asked = Vec::new();
    for _ in 0..100 {
        let id = new_id();
        let frame = alice.frame("presence.set", id, &json!({"status": "away"}));
        alice.socket.feed(Message::text(frame)).await.unwrap();
        asked.push(id.to_string());
    }
    alice.socket.flush().await.unwrap();

    for id in asked {
        assert_eq!(alice.next("ok").await["reply_to"], id.as_str());
    }
}

#[tokio::test]
async fn what_comes_right_behind_hello_is_heard() {
    let t = TestService::start().await;
    let mut alice = t.connect().await;

    let device = json!({"id": alice.device, "key": device_key()});
    let data = json!({"token": t.token("alice"), "device": device});
    let hello = json!({"type": "hello", "id": new_id(), "data": data}).to_string();
    alice.socket.feed(Message::text(hello)).await.unwrap();
    let ping = Message::text(r#"{"type":"ping"}"#);
    alice.socket.send(ping).await.unwrap();

    alice.next("welcome").await;
    alice.next("pong").await;
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte_and_in_fragments() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;
    let text = br#"{"type":"ping"}"#;

    let bytes = masked(0x81, text);
    for byte in bytes.chunks(1) {
        write(&mut alice, byte).await;
        tokio::task::yield_now().await;
    }
    alice.next("pong").await;

    // A ping of the WebSocket may come between fragments (RFC 6455 §5.4).
    for bytes in [
        masked(0x01, &text[..5]),
        masked(0x89, b"there?"),
        masked(0x80, &text[5..]),
    ] {
        write(&mut alice, &bytes).await;
    }
    let answer = alice.socket.next().await.unwrap().unwrap();
    assert_eq!(answer, Message::Pong("there?".into()));
    alice.next("pong").await;
}

#[tokio::test]
async fn the_longest_frames_pass_in_both_directions() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;
    let limit = 64 * 1024;

    for _ in 0..3 {
        let ping = r#"{"type":"ping"}"#;
        let padding = " ".repeat(limit - ping.len());
        alice.text(&format!("{ping}{padding}")).await;
        alice.next("pong").await;
    }
    // Repeated in the error, which is short all the same.
    let frame = alice.frame(&"x".repeat(limit - 200), new_id(), &json!({}));
    alice.text(&frame).await;
    assert_eq!(alice.next("error").await["data"]["code"], "unknown_type");
}

#[tokio::test]
async fn a_close_of_the_client_is_answered() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;

    alice.socket.close(None).await.unwrap();
    assert!(matches!(
        alice.socket.next().await,
        Some(Ok(Message::Close(None)))
    ));
}

async fn write(client: &mut Client, bytes: &[u8]) {
    let stream = client.socket.get_mut();
    stream.write_all(bytes).await.unwrap();
}

/// A frame of a client, masked with zeros.
fn masked(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    let mut bytes = vec![first_byte, 0x80 | len, 0, 0, 0, 0];
    bytes.extend(payload);
    bytes
}
