//! Rooms over real sockets, with an SFU that is played by the test.

use model::RoomId;
use model::media::{MediaCommand, MediaCommandKind, MediaEvent, MediaEventKind};
use serde_json::{Value, json};
use signaling_service::Media;
use tokio::sync::mpsc;

use crate::harness::{Client, TestService};

/// What an SFU has at its ends.
struct Sfu {
    commands: mpsc::Receiver<MediaCommand>,
    events: mpsc::Sender<MediaEvent>,
}

impl Sfu {
    /// One with room for a single command and event, so that both sides have to wait.
    async fn connect(t: &TestService) -> Self {
        let (commands, taken) = mpsc::channel(1);
        let (events, news) = mpsc::channel(1);
        t.service
            .connect_media(Media {
                commands,
                events: news,
            })
            .await;
        Self {
            commands: taken,
            events,
        }
    }

    /// Takes the next command and answers it if it is an offer.
    async fn take(&mut self) -> MediaCommand {
        let command = self.commands.recv().await.unwrap();
        let offer = match &command.kind {
            MediaCommandKind::Join {
                participant, offer, ..
            }
            | MediaCommandKind::Offer { participant, offer } => Some((*participant, offer)),
            _ => None,
        };
        if let Some((participant, offer)) = offer {
            let kind = MediaEventKind::Answered {
                participant,
                generation: offer.generation,
                sdp: "answer".into(),
                slots: Vec::new(),
            };
            self.tell(&command, kind).await;
        }
        command
    }

    async fn tell(&self, about: &MediaCommand, kind: MediaEventKind) {
        let event = MediaEvent {
            account: about.account,
            room: about.room,
            kind,
        };
        self.events.send(event).await.unwrap();
    }
}

fn join(room: &str) -> Value {
    let fingerprint = vec!["AB"; 32].join(":");
    let sdp = format!(
        "v=0\r\na=fingerprint:sha-256 {fingerprint}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"
    );
    json!({ "room": room, "generation": 1, "sdp": sdp, "tracks": [{ "mid": "0", "source": "microphone" }] })
}

async fn enter(sfu: &mut Sfu, client: &mut Client) -> Value {
    let (joined, _) = tokio::join!(client.ask("room.join", join("weekly")), sfu.take());
    joined
}

#[tokio::test]
async fn two_people_meet_in_a_room() {
    let t = TestService::start().await;
    let mut sfu = Sfu::connect(&t).await;
    let mut alice = t.join("alice").await;
    let mut bob = t.join("bob").await;

    assert_eq!(enter(&mut sfu, &mut alice).await["role"], "moderator");
    let joined = enter(&mut sfu, &mut bob).await;
    assert_eq!(
        (&joined["role"], &joined["sdp"]),
        (&json!("speaker"), &json!("answer"))
    );
    let news = alice.next("room.participant").await;
    assert_eq!(news["data"]["participant"]["user"], "bob");

    let room = &joined["state"]["room"];
    alice
        .ask("room.chat", json!({ "room": room, "text": "hello" }))
        .await;
    let chat = bob.next("room.chat").await;
    assert_eq!(chat["data"]["message"]["text"], "hello");
}

#[tokio::test]
async fn an_offer_for_many_pictures_fits() {
    let t = TestService::start().await;
    let mut sfu = Sfu::connect(&t).await;
    let mut alice = t.join("alice").await;

    let mut long = join("weekly");
    let sdp = long["sdp"].as_str().unwrap().to_owned();
    long["sdp"] = (sdp + &format!("a=x:{}\r\n", "y".repeat(60)).repeat(3_200)).into();
    let (joined, command) = tokio::join!(alice.ask("room.join", long), sfu.take());
    assert_eq!(joined["generation"], 1);
    let MediaCommandKind::Join { offer, .. } = command.kind else {
        panic!("{command:?}");
    };
    assert!(offer.sdp.len() > 200_000);
}

#[tokio::test]
async fn commands_wait_for_a_slow_sfu_and_none_is_lost() {
    let t = TestService::start().await;
    let mut sfu = Sfu::connect(&t).await;
    let mut alice = t.join("alice").await;
    let joined = enter(&mut sfu, &mut alice).await;
    let room = &joined["state"]["room"];
    let track = &joined["tracks"][0]["track"];

    for number in 0..40 {
        let mute = json!({ "room": room, "track": track, "muted": number % 2 == 0 });
        alice.ask("room.mute", mute).await;
    }
    for number in 0..40 {
        let MediaCommandKind::Mute { muted, .. } = sfu.take().await.kind else {
            panic!("not a mute");
        };
        assert_eq!(muted, number % 2 == 0, "in order");
    }
}

#[tokio::test]
async fn an_sfu_that_ends_takes_its_rooms_along() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;
    assert_eq!(
        alice.refusal("room.join", join("weekly")).await,
        "media_refused"
    );

    let mut sfu = Sfu::connect(&t).await;
    enter(&mut sfu, &mut alice).await;
    drop(sfu);
    assert_eq!(alice.next("room.ended").await["data"]["reason"], "failed");
    assert_eq!(
        alice.refusal("room.join", join("weekly")).await,
        "media_refused"
    );

    let mut sfu = Sfu::connect(&t).await;
    assert_eq!(enter(&mut sfu, &mut alice).await["role"], "moderator");
}

#[tokio::test]
async fn news_of_a_strange_room_harm_nobody() {
    let t = TestService::start().await;
    let mut sfu = Sfu::connect(&t).await;
    let mut alice = t.join("alice").await;
    let (joined, command) = tokio::join!(alice.ask("room.join", join("weekly")), sfu.take());
    let strange = MediaCommand {
        room: RoomId::from_u128(7),
        ..command.clone()
    };
    sfu.tell(&strange, MediaEventKind::Failed).await;
    sfu.tell(&command, MediaEventKind::Failed).await;
    let ended = alice.next("room.ended").await;
    assert_eq!(ended["data"]["room"], joined["state"]["room"]);
}

#[tokio::test]
async fn a_guest_of_the_demo_may_join_one_room_and_call_nobody() {
    let t = TestService::start().await;
    let mut sfu = Sfu::connect(&t).await;
    let sign_in = async |body: &str| {
        let (code, body) = t.request("POST /demo/guest", body).await;
        (code, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (code, signed_in) = sign_in(r#"{"name":" Gina ","room":"weekly"}"#).await;
    assert_eq!((code, &signed_in["name"]), (200, &json!("Gina")));
    assert_eq!(sign_in(r#"{"name":"Gina","room":"No Room"}"#).await.0, 400);
    assert_eq!(sign_in(r#"{"name":"Gina"}"#).await.0, 400);

    let mut guest = t.connect().await;
    guest
        .hello(signed_in["token"].as_str().unwrap(), None)
        .await;
    guest.next("welcome").await;
    assert_eq!(
        guest.refusal("room.join", join("weekly")).await,
        "unknown_room"
    );
    assert_eq!(guest.refusal("room.join", join("other")).await, "forbidden");
    let media = json!({ "audio": true, "video": false });
    let invite = json!({ "call": crate::harness::new_id(), "to": "alice", "media": media });
    assert_eq!(guest.refusal("call.invite", invite).await, "forbidden");

    let (_, host) = t.request("POST /demo/sign-in", r#"{"name":"Hanna"}"#).await;
    let host: Value = serde_json::from_str(&host).unwrap();
    let mut hanna = t.connect().await;
    hanna.hello(host["token"].as_str().unwrap(), None).await;
    hanna.next("welcome").await;
    let mut begin = join("weekly");
    begin["settings"] = json!({ "lobby": true });
    let (joined, _) = tokio::join!(hanna.ask("room.join", begin), sfu.take());
    assert_eq!(
        guest.ask("room.join", join("weekly")).await["waiting"],
        true
    );
    let waiting = hanna.next("room.lobby").await["data"]["waiting"][0]["waiting"].clone();
    let room = &joined["state"]["room"];
    hanna
        .ask(
            "room.admit",
            json!({ "room": room, "waiting": [waiting], "admit": true }),
        )
        .await;
    guest.next("room.admitted").await;
    assert_eq!(enter(&mut sfu, &mut guest).await["role"], "speaker");

    let people = hanna.ask("presence.subscribe", json!({})).await;
    let users: Vec<_> = people["users"].as_array().unwrap().iter().collect();
    assert!(
        users.iter().all(|user| user["user"] != signed_in["user"]),
        "{users:?}"
    );
}
