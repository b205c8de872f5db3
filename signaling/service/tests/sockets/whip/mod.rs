//! WHIP and WHEP over real HTTP, with an SFU that is played by the test.

mod answers;
mod rooms;

use std::collections::HashMap;

use model::RoomGrants;
use model::media::{
    MediaCommand, MediaCommandKind, MediaEvent, MediaEventKind, MediaRefusal, SdpFault,
};
use serde_json::{Value, json};
use signaling_service::tokens::{self, Claims};
use signaling_service::{Config, Media};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::harness::{Client, TestService, now_secs};

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const PASSWORD: &str = "P2uYro0UCOQ4zxjKXaWCBui1";
/// The SFU at its ends: it answers every offer, and the test hears of all it was told.
struct Sfu {
    told: mpsc::UnboundedReceiver<MediaCommand>,
    refusals: mpsc::UnboundedSender<MediaRefusal>,
    events: mpsc::Sender<MediaEvent>,
    last: Option<MediaCommand>,
}

impl Sfu {
    async fn connect(t: &TestService) -> Self {
        let (commands, mut taken) = mpsc::channel(8);
        let (events, news) = mpsc::channel(8);
        t.service
            .connect_media(Media {
                commands,
                events: news,
            })
            .await;
        let (tell, told) = mpsc::unbounded_channel();
        let (refusals, mut refused) = mpsc::unbounded_channel();
        let answers = events.clone();
        tokio::spawn(async move {
            while let Some(command) = taken.recv().await {
                if let MediaCommandKind::Join {
                    participant, offer, ..
                }
                | MediaCommandKind::Offer { participant, offer } = &command.kind
                {
                    let (participant, generation) = (*participant, offer.generation);
                    let kind = match refused.try_recv() {
                        Ok(refusal) => MediaEventKind::Refused {
                            participant,
                            generation,
                            refusal,
                        },
                        Err(_) => MediaEventKind::Answered {
                            participant,
                            generation,
                            sdp: answer(generation),
                            slots: Vec::new(),
                        },
                    };
                    let event = MediaEvent {
                        account: command.account,
                        room: command.room,
                        kind,
                    };
                    answers.send(event).await.unwrap();
                }
                let _ = tell.send(command); // A test that is over does not listen.
            }
        });
        Self {
            told,
            refusals,
            events,
            last: None,
        }
    }

    /// What it was told next.
    async fn next(&mut self) -> MediaCommandKind {
        let command = self.told.recv().await.unwrap();
        let kind = command.kind.clone();
        self.last = Some(command);
        kind
    }

    fn refuse_next(&self, refusal: MediaRefusal) {
        self.refusals.send(refusal).unwrap();
    }

    /// Gives a Participant of the Room it heard of last up.
    async fn lose(&self, participant: &Value) {
        let about = self.last.as_ref().unwrap();
        let kind = MediaEventKind::Gone {
            participant: participant.as_str().unwrap().parse().unwrap(),
            reason: model::media::GoneReason::Unreachable,
        };
        let event = MediaEvent {
            account: about.account,
            room: about.room,
            kind,
        };
        self.events.send(event).await.unwrap();
    }
}

/// An answer to an HTTP request.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// By names in lower case; several of one name are joined by commas.
    headers: HashMap<String, String>,
    body: String,
}

impl Answer {
    /// Empty where there is none.
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The code of a problem.
    fn code(&self) -> String {
        let problem: Value = serde_json::from_str(&self.body).unwrap_or_default();
        assert_eq!(problem["status"], self.status, "{self:?}");
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}

async fn started() -> (TestService, Sfu) {
    let t = TestService::start().await;
    let sfu = Sfu::connect(&t).await;
    (t, sfu)
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn ask(
    t: &TestService,
    method: &str,
    path: &str,
    token: &str,
    (kind, body): (&str, &str),
) -> Answer {
    let headers = [("authorization", &*bearer(token)), ("content-type", kind)];
    request(t, method, path, &headers, body).await
}

/// A PATCH with or without `If-Match`.
async fn ask_if(
    t: &TestService,
    path: &str,
    token: &str,
    condition: Option<&str>,
    body: &str,
) -> Answer {
    let authorization = bearer(token);
    let mut headers = vec![
        ("authorization", authorization.as_str()),
        ("content-type", FRAGMENT),
    ];
    headers.extend(condition.map(|tags| ("if-match", tags)));
    request(t, "PATCH", path, &headers, body).await
}

async fn request(
    t: &TestService,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let fields: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n{fields}\r\n{body}",
        t.address,
        body.len()
    );
    let mut stream = TcpStream::connect(t.address).await.unwrap();
    // A body that is too long is refused before it was read.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();

    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let mut headers: HashMap<String, String> = HashMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let held = headers.entry(name.to_lowercase()).or_default();
        if !held.is_empty() {
            held.push_str(", ");
        }
        held.push_str(value);
    }
    Answer {
        status,
        headers,
        body: body.to_owned(),
    }
}

/// An encoder asks to publish a microphone and a camera.
async fn publishes(t: &TestService, path: &str, token: &str) -> Answer {
    ask(t, "POST", path, token, (SDP, &publish())).await
}

async fn enter(client: &mut Client) -> Value {
    client.ask("room.join", join("weekly")).await
}

fn join(room: &str) -> Value {
    json!({ "room": room, "generation": 1, "sdp": offer_to_view(), "tracks": [] })
}

fn fragment(ufrag: &str) -> String {
    format!(
        "a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{PASSWORD}\r\n\
         a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host\r\na=end-of-candidates\r\n"
    )
}

fn publish() -> String {
    offer("a=sendonly")
}

fn offer_to_view() -> String {
    offer("a=recvonly")
}

fn offer(direction: &str) -> String {
    let fingerprint = vec!["AB"; 32].join(":");
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-ufrag:EsAw\r\na=ice-pwd:{PASSWORD}\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n{direction}\r\na=rtpmap:111 opus/48000/2\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n{direction}\r\na=rtpmap:96 VP8/90000\r\n"
    )
}

/// As an SFU would answer the offer of this generation.
fn answer(generation: u32) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:ours{generation}\r\na=ice-pwd:2e13dde17c1cb009202f627fab90\r\n\
         a=candidate:1 1 UDP 2130706431 198.51.100.1 39132 typ host\r\na=rtpmap:111 opus/48000/2\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\n"
    )
}
