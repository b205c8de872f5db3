//! Mailboxes and settings of telephony over real sockets, with records and objects on the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use backing::objects::{Objects, voicemail_key};
use backing::records::SecretKeys;
use model::phone::rows::{Mailbox, SoundFormat, Telephony, Voicemail};
use model::phone::{LeftVoicemail, PhoneCommand, PhoneEvent, PhoneEventKind};
use model::{AccountId, Timestamp, VoicemailId};
use serde_json::json;
use signaling_service::{Directory, Phone, Telephones};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::harness::{TestService, now_secs};

const SOUND: &[u8] = b"RIFF....WAVEfmt what Erika said";

/// A service whose Account has a Queue of alice and bob, with a gateway that is played by the test.
struct Office {
    t: TestService,
    objects: Objects,
    keys: SecretKeys,
    events: mpsc::Sender<PhoneEvent>,
    _open: (
        TempDir,
        watch::Sender<Directory>,
        mpsc::Receiver<PhoneCommand>,
    ),
}

impl Office {
    async fn start() -> Self {
        let t = TestService::start().await;
        let folder = TempDir::new().unwrap();
        let objects = Objects::in_folder(folder.path()).unwrap();
        let keys = SecretKeys::new([7; 32], &[]);
        let rows: Telephony = serde_json::from_value(json!({
            "dialling": { "country": "49" },
            "queues": { "sales": { "members": ["alice", "bob"], "nobody_answers": "busy" } },
            "users": { "alice": { "ring_seconds": 25, "limits": { "calls": 3 }, "forward": { "no_answer": { "queue": "sales" } } } },
        }))
        .unwrap();
        t.records
            .replace_telephony(t.key.account, 0, &rows, &keys)
            .await
            .unwrap();
        let all = BTreeMap::from([(t.key.account, Arc::new(rows))]);
        let (directory, follow) = watch::channel(Arc::new(all));
        t.service.connect_telephony(Telephones {
            directory: follow,
            keys: keys.clone(),
            objects: objects.clone(),
        });

        let (commands, taken) = mpsc::channel(10);
        let (events, news) = mpsc::channel(10);
        let phone = Phone {
            commands,
            events: news,
        };
        t.service.connect_phone(phone).await;
        Self {
            t,
            objects,
            keys,
            events,
            _open: (folder, directory, taken),
        }
    }

    fn account(&self) -> AccountId {
        self.t.key.account
    }

    /// Somebody leaves a message, as the gateway does it: what was said first.
    async fn leave(&self, id: u128, mailbox: Mailbox, users: &[&str]) -> String {
        let message = Voicemail {
            account: self.account(),
            id: VoicemailId::from_u128(id),
            mailbox,
            call: None,
            from: Some("tel:+15550100".to_owned()),
            name: None,
            left_at: Timestamp::from_millis(1_790_000_000_000),
            millis: 4_000,
            format: SoundFormat::Wav,
            heard_at: None,
        };
        let key = voicemail_key(message.account, message.id, message.format);
        self.objects.put(&key, SOUND.to_vec()).await.unwrap();
        let id = message.id.to_string();
        let users = users.iter().map(|user| user.parse().unwrap()).collect();
        let event = PhoneEvent {
            account: self.account(),
            call: "01JD0000000000000000000007".parse().unwrap(),
            kind: PhoneEventKind::Voicemail(Box::new(LeftVoicemail { message, users })),
        };
        self.events.send(event).await.unwrap();
        id
    }

    /// The answer to a request for what was said: its status, its head in lower case, its body.
    async fn ask(&self, method: &str, id: &str, headers: &str) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.t.address).await.unwrap();
        let host = self.t.address;
        let text = format!(
            "{method} /v1/voicemail/{id} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n");
        let body = answer.split_off(end.unwrap() + 4);
        let head = String::from_utf8(answer).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, body)
    }

    fn bearer(&self, user: &str) -> String {
        format!("authorization: Bearer {}\r\n", self.t.token(user))
    }
}

fn sales() -> Mailbox {
    Mailbox::Queue("sales".parse().unwrap())
}

fn of_alice() -> Mailbox {
    Mailbox::User("alice".parse().unwrap())
}

#[tokio::test]
async fn messages_are_told_listed_heard_and_deleted_by_those_whose_they_are() {
    let office = Office::start().await;
    let mut alice = office.t.join("alice").await;
    let mut bob = office.t.join("bob").await;
    let mut carol = office.t.join("carol").await;
    let own = office.leave(7, of_alice(), &["alice"]).await;
    let news = alice.next("voicemail").await["data"].clone();
    assert_eq!(
        (&news["entry"]["voicemail"], &news["unheard"]),
        (&json!(own), &json!(1))
    );
    let shared = office.leave(8, sales(), &["alice", "bob"]).await;
    assert_eq!(alice.next("voicemail").await["data"]["unheard"], 2);
    assert_eq!(bob.next("voicemail").await["data"]["unheard"], 1);

    let page = alice.ask("voicemail.list", json!({ "limit": 1 })).await;
    assert_eq!(
        page["voicemails"][0]["voicemail"], shared,
        "the newest first"
    );
    let next = json!({ "limit": 1, "before": page["next"] });
    let page = alice.ask("voicemail.list", next).await;
    assert_eq!(page["voicemails"][0]["voicemail"], own);
    assert!(page.get("next").is_none() && page["unheard"] == 2, "{page}");
    let page = bob.ask("voicemail.list", json!({})).await;
    assert_eq!(page["voicemails"].as_array().unwrap().len(), 1);
    let page = carol.ask("voicemail.list", json!({})).await;
    assert_eq!(
        (&page["voicemails"], &page["unheard"]),
        (&json!([]), &json!(0))
    );
    let page = alice.ask("voicemail.list", json!({ "before": "?" })).await;
    assert_eq!(page["voicemails"], json!([]));

    bob.ask("voicemail.heard", json!({ "voicemail": shared }))
        .await;
    let news = alice.next("voicemail").await["data"].clone();
    assert_eq!(
        (&news["entry"]["heard"], &news["unheard"]),
        (&json!(true), &json!(1))
    );
    for (client, message) in [(&mut bob, &own), (&mut carol, &shared)] {
        let on = json!({ "voicemail": message });
        for command in ["voicemail.heard", "voicemail.delete"] {
            assert_eq!(
                client.refusal(command, on.clone()).await,
                "unknown_voicemail"
            );
        }
    }
    bob.ask("voicemail.delete", json!({ "voicemail": shared }))
        .await;
    let news = alice.next("voicemail").await["data"].clone();
    assert_eq!(news, json!({ "deleted": shared, "unheard": 1 }));
    let key = voicemail_key(
        office.account(),
        VoicemailId::from_u128(8),
        SoundFormat::Wav,
    );
    assert!(!office.objects.has(&key).await.unwrap());
}

#[tokio::test]
async fn what_was_said_is_for_those_whose_mailbox_it_is_whole_or_in_parts() {
    let office = Office::start().await;
    let mut alice = office.t.join("alice").await;
    let id = office.leave(7, of_alice(), &["alice"]).await;
    alice.next("voicemail").await;
    let token = office.bearer("alice");

    let (status, head, body) = office.ask("GET", &id, &token).await;
    assert_eq!((status, body.as_slice()), (200, SOUND));
    for line in [
        "content-type: audio/wav",
        "accept-ranges: bytes",
        "cache-control: private, no-store",
    ] {
        assert!(head.contains(line), "{head}");
    }
    let (status, head, body) = office.ask("HEAD", &id, &token).await;
    assert_eq!((status, body.len()), (200, 0));
    assert!(
        head.contains(&format!("content-length: {}", SOUND.len())),
        "{head}"
    );
    let ranged = format!("{token}range: bytes=8-11\r\n");
    let (status, head, body) = office.ask("GET", &id, &ranged).await;
    assert_eq!((status, body.as_slice()), (206, &SOUND[8..12]));
    assert!(
        head.contains(&format!("content-range: bytes 8-11/{}", SOUND.len())),
        "{head}"
    );
    let other = format!("{ranged}if-range: \"another\"\r\n");
    assert_eq!(office.ask("GET", &id, &other).await.0, 200);
    let beyond = format!("{token}range: bytes=999-\r\n");
    assert_eq!(office.ask("GET", &id, &beyond).await.0, 416);

    let unknown = VoicemailId::from_u128(9).to_string();
    let expired = office.t.token_until("alice", now_secs() - 3_600);
    let expired = format!("authorization: Bearer {expired}\r\n");
    let foreign = format!("{token}origin: https://evil.example\r\n");
    for (method, id, headers, expected) in [
        ("GET", &id, "", 401),
        ("GET", &id, "authorization: Bearer a.b.c\r\n", 401),
        ("GET", &id, &expired, 401),
        ("GET", &id, &office.bearer("bob"), 404),
        ("GET", &unknown, &token, 404),
        ("GET", &"..%2f..%2fsecrets".to_owned(), &token, 404),
        ("GET", &id, &foreign, 403),
        ("POST", &id, &token, 405),
        ("OPTIONS", &id, "origin: https://app.example.com\r\n", 204),
    ] {
        let (status, head, body) = office.ask(method, id, headers).await;
        assert_eq!(status, expected, "{method} {id} {headers} {head}");
        assert_ne!(body, SOUND);
    }
}

#[tokio::test]
async fn a_user_says_how_they_want_to_be_called_and_the_rest_of_the_row_stays() {
    let office = Office::start().await;
    let mut alice = office.t.connect().await;
    alice.hello(&office.t.token_for_phones("alice"), None).await;
    alice.next("welcome").await;
    let mut wanted = alice.ask("phone.settings", json!({})).await;
    assert_eq!(wanted["ring_seconds"], 25);
    assert_eq!(
        wanted["forward"]["no_answer"],
        json!({ "other": "the queue sales" })
    );

    wanted["do_not_disturb"] = json!(true);
    wanted["forward"]["busy"] = json!("voicemail");
    wanted["forward"]["offline"] = json!({ "number": "030 123456" });
    let held = alice.ask("phone.set", wanted.clone()).await;
    assert_eq!(
        held["forward"]["offline"],
        json!({ "number": "+4930123456" })
    );
    let stored = office
        .t
        .records
        .telephony(office.account(), &office.keys)
        .await;
    let rows = stored.unwrap().telephony;
    let row = serde_json::to_value(&rows.users[&"alice".parse().unwrap()]).unwrap();
    assert_eq!(row["do_not_disturb"], true);
    assert_eq!(row["limits"]["calls"], 3, "not the User's to say");
    assert_eq!(row["forward"]["no_answer"], json!({ "queue": "sales" }));
    assert_eq!(
        row["forward"]["busy"],
        json!({ "voicemail": { "user": "alice" } })
    );
    assert_eq!(rows.queues.len(), 1);

    for wrong in [
        json!({ "number": "home" }),
        json!({ "user": "alice" }),
        json!({ "other": "the queue support" }),
    ] {
        wanted["forward"]["always"] = wrong;
        assert_eq!(alice.refusal("phone.set", wanted.clone()).await, "bad_data");
    }
    let mut bob = office.t.join("bob").await;
    wanted["forward"]["always"] = json!(null);
    assert_eq!(bob.refusal("phone.set", wanted).await, "forbidden");
}

#[tokio::test]
async fn without_telephony_a_mailbox_is_empty_and_nothing_can_be_set() {
    let t = TestService::start().await;
    let mut alice = t.connect().await;
    alice.hello(&t.token_for_phones("alice"), None).await;
    alice.next("welcome").await;
    let page = alice.ask("voicemail.list", json!({})).await;
    assert_eq!(page, json!({ "voicemails": [], "unheard": 0 }));
    let settings = alice.ask("phone.settings", json!({})).await;
    assert_eq!(settings["voicemail"], true);
    assert_eq!(alice.refusal("phone.set", settings).await, "internal");
}
