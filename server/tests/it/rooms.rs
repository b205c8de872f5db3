//! Rooms through the whole server: the answer of a real SFU, the relay's way to it, and a drain that lets them end.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use offhook::cli::{Cli, Command};
use offhook::commands;
use relay_service::client::{Client, ClientError};
use relay_stun::{
    AttributeType, Class, IntegrityKey, IntegrityKind, Message as Stun, MessageWriter, Method,
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::{PATIENCE, TestServer, until_closed};

/// Somebody with a WebSocket.
struct Person {
    socket: WebSocketStream<TcpStream>,
    seq: u64,
}

impl Person {
    /// Signs in by the demo and says hello.
    async fn arrive(t: &TestServer, number: u64, path: &str, body: &Value) -> (Self, Value) {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut stream = t.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = String::from_utf8(until_closed(&mut stream).await).unwrap();
        let signed_in = answer.split_once("\r\n\r\n").unwrap().1;
        let signed_in: Value = serde_json::from_str(signed_in).unwrap();
        Self::with_token(t, number, signed_in["token"].as_str().unwrap()).await
    }

    /// Says hello; returns `limits`, too.
    async fn with_token(t: &TestServer, number: u64, token: &str) -> (Self, Value) {
        let mut request = "ws://localhost/v1/calls".into_client_request().unwrap();
        let protocol = "calls.v1".parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let stream = t.connect().await;
        let connected = tokio_tungstenite::client_async(request, stream).await;
        let mut person = Self {
            socket: connected.unwrap().0,
            seq: 0,
        };
        let device = json!({ "id": ulid(number), "key": format!("BA{}", "A".repeat(85)) });
        let hello = json!({ "type": "hello", "data": { "token": token, "device": device } });
        person.say(&hello).await;
        let limits = person.next("welcome").await["data"]["limits"].clone();
        (person, limits)
    }

    async fn say(&mut self, frame: &Value) {
        let text = Message::text(frame.to_string());
        self.socket.send(text).await.unwrap();
    }

    async fn ask(&mut self, kind: &str, data: Value) -> Value {
        self.seq += 1;
        let id = ulid(1_000 + self.seq);
        self.say(&json!({ "type": kind, "id": id, "seq": self.seq, "data": data }))
            .await;
        loop {
            let frame = self.receive().await;
            if frame["reply_to"] == id.as_str() {
                return frame;
            }
        }
    }

    async fn next(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.receive().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    async fn receive(&mut self) -> Value {
        let message = timeout(PATIENCE, self.socket.next()).await.unwrap();
        serde_json::from_str(message.unwrap().unwrap().to_text().unwrap()).unwrap()
    }

    async fn join(&mut self) -> Value {
        let tracks = json!([{ "mid": "0", "source": "microphone" }]);
        let join = json!({ "room": "weekly", "generation": 1, "sdp": offer(), "tracks": tracks });
        let frame = self.ask("room.join", join).await;
        assert_eq!(frame["type"], "ok", "{frame}");
        frame["data"].clone()
    }
}

fn ulid(number: u64) -> String {
    format!("01JD{number:022}")
}

/// A microphone and a slot for a voice, as a browser writes them.
fn offer() -> String {
    let fingerprint = vec!["AB"; 32].join(":");
    let section = |mid: u8, direction: &str| {
        format!(
            "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
             a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=fingerprint:sha-256 {fingerprint}\r\n\
             a=setup:actpass\r\na=mid:{mid}\r\na=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n{direction}\r\n\
             a=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n"
        )
    };
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n{}{}",
        section(0, "a=sendonly\r\na=msid:- mic\r\na=ssrc:1234 cname:a"),
        section(1, "a=recvonly")
    )
}

#[tokio::test]
async fn people_meet_in_a_room_and_are_told_where_its_media_is() {
    let t = TestServer::local().await;
    let alice = json!({ "name": "Alice" });
    let (mut alice, limits) = Person::arrive(&t, 1, "/demo/sign-in", &alice).await;
    assert!(limits["room_participants_max"].is_number());
    let joined = alice.join().await;
    let sdp = joined["sdp"].as_str().unwrap();
    assert!(sdp.contains("a=ice-lite"), "{sdp}");
    let is_told = |line: &str| {
        let fields: Vec<_> = line.split(' ').collect();
        line.starts_with("a=candidate:")
            && t.server.sfu_addresses().iter().any(|address| {
                fields[4] == address.ip().to_string() && fields[5] == address.port().to_string()
            })
    };
    assert!(sdp.lines().any(is_told), "{sdp}");
    let tcp = format!(
        " {} {} typ host tcptype passive",
        t.address.ip(),
        t.address.port()
    );
    assert!(sdp.contains(&tcp), "{sdp}");

    let gina = json!({ "name": "Gina", "room": "weekly" });
    let (mut gina, _) = Person::arrive(&t, 2, "/demo/guest", &gina).await;
    assert_eq!(gina.join().await["role"], "speaker");
    let news = alice.next("room.participant").await;
    assert_eq!(news["data"]["participant"]["name"], "Gina");
    t.server.stop().await;
}

/// Asks the SFU at `media`, as ICE does, whether this way leads there; returns from where it was asked, as it says.
async fn checks(
    client: &mut Client,
    media: SocketAddr,
    user: &str,
    password: &str,
) -> Result<Option<SocketAddr>, ClientError> {
    let mut buffer = [0; 200];
    let writer = MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, [7; 12]);
    let request = writer
        .attribute(AttributeType::USERNAME, user.as_bytes())
        .attribute(AttributeType(0x0024), &[0, 0, 1, 0]) // PRIORITY
        .attribute(AttributeType(0x802A), &[0; 8]) // ICE-CONTROLLING
        .integrity(IntegrityKind::Sha1, &IntegrityKey::short_term(password))
        .fingerprint()
        .finish()
        .unwrap();
    client.channel_bind(0x4000, media).await?;
    client.send_channel(0x4000, request).await?;
    let answer = timeout(PATIENCE, client.receive()).await.unwrap()?;
    let answer = Stun::parse(&answer.payload).unwrap();
    assert_eq!(answer.class(), Class::Success);
    Ok(answer.xor_address(AttributeType::XOR_MAPPED_ADDRESS))
}

#[tokio::test]
async fn the_relay_reaches_the_sfu_in_memory_at_an_address_no_packet_could_go_to() {
    let t = TestServer::local_with(|config| {
        config.sfu.listen_ips = vec!["127.0.0.1".parse().unwrap()];
        config.sfu.public_ips = vec!["203.0.113.7".parse().unwrap()];
        config.sfu.threads = 2;
    })
    .await;
    let alice = json!({ "name": "Alice" });
    let (mut alice, _) = Person::arrive(&t, 1, "/demo/sign-in", &alice).await;
    let joined = alice.join().await;
    let sdp = joined["sdp"].as_str().unwrap();
    let value = |name: &str| {
        let found = sdp.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_else(|| panic!("no {name} in {sdp}"))
    };
    let candidate = sdp.lines().find_map(|line| {
        let fields: Vec<_> = line.strip_prefix("a=candidate:")?.split(' ').collect();
        fields[2].eq_ignore_ascii_case("udp").then_some(fields)
    });
    let candidate = candidate.unwrap();
    let media: SocketAddr = format!("{}:{}", candidate[4], candidate[5])
        .parse()
        .unwrap();
    assert_eq!(media.ip().to_string(), "203.0.113.7");
    let (user, password) = (
        format!("{}:abcd", value("a=ice-ufrag:")),
        value("a=ice-pwd:"),
    );

    for mut client in [t.turn_udp().await, t.turn(t.connect().await)] {
        let relayed = client.allocate(None).await.unwrap().relayed;
        let seen = checks(&mut client, media, &user, password).await.unwrap();
        assert_eq!(seen, relayed);
        // Nothing else at that address is.
        let beside = SocketAddr::new(media.ip(), media.port() ^ 1024);
        let refused = client.channel_bind(0x4001, beside).await;
        assert!(
            matches!(refused, Err(ClientError::Refused(code)) if code.0 == 403),
            "{refused:?}"
        );
    }
    t.server.stop().await;
}

#[tokio::test]
async fn without_an_sfu_rooms_are_refused_with_a_reason() {
    let t = TestServer::local_with(|config| config.sfu.enabled = false).await;
    let alice = json!({ "name": "Alice" });
    let (mut alice, limits) = Person::arrive(&t, 1, "/demo/sign-in", &alice).await;
    assert!(limits["room_participants_max"].is_null());
    let join = json!({ "room": "weekly", "generation": 1, "sdp": offer() });
    let refused = alice.ask("room.join", join).await;
    assert_eq!(refused["data"]["reason"], "unavailable");
    t.server.stop().await;
}

#[tokio::test]
async fn a_server_that_ends_lets_its_rooms_end_first() {
    let t = TestServer::configured(|config| config.drain_seconds = 60).await;
    let options = ["offhook", "token", "--user", "alice"];
    let Some(Command::Token(options)) = Cli::parse_from(options).command else {
        panic!("no token");
    };
    let token = commands::token(&t.config, &options).await.unwrap();
    let (mut alice, _) = Person::with_token(&t, 1, token.trim()).await;
    let room = alice.join().await["state"]["room"].clone();

    let stopping = tokio::spawn(t.server.stop());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!stopping.is_finished(), "somebody is in a Room");
    alice.ask("room.leave", json!({ "room": room })).await;
    timeout(PATIENCE, stopping).await.unwrap().unwrap();
}
