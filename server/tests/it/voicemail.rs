//! A message in a mailbox through the whole server: its row lies in the records, what was said in the folder of objects.

use backing::objects::{Objects, voicemail_key};
use backing::records::Records;
use model::phone::rows::{Mailbox, SoundFormat, Voicemail};
use model::{AccountId, RecordChange, Timestamp, VoicemailId};
use serde_json::{Value, json};

use crate::support::TestServer;

#[tokio::test]
async fn what_was_said_is_found_where_the_gateway_puts_it() {
    let t = TestServer::local().await;
    let alice = sign_in(&t, "Alice").await;
    let bob = sign_in(&t, "Bob").await;
    let account: AccountId = alice["account"].as_str().unwrap().parse().unwrap();
    let message = Voicemail {
        account,
        id: VoicemailId::from_u128(7),
        mailbox: Mailbox::User(alice["user"].as_str().unwrap().parse().unwrap()),
        call: None,
        from: None,
        name: None,
        left_at: Timestamp::from_millis(1_790_000_000_000),
        millis: 1_000,
        format: SoundFormat::OggOpus,
        heard_at: None,
    };
    let key = voicemail_key(account, message.id, message.format);
    let objects = Objects::in_folder(&t.config.data_dir.join("objects")).unwrap();
    objects.put(&key, b"OggS said".to_vec()).await.unwrap();
    let records = Records::open(&t.config.data_dir.join("offhook.sqlite"))
        .await
        .unwrap();
    let id = message.id;
    let left = RecordChange::VoicemailLeft(Box::new(message));
    records.record(left).await.unwrap();
    records.flush().await.unwrap();

    let ask = async |signed_in: &Value| {
        let token = signed_in["token"].as_str().unwrap();
        let head = format!(
            "GET /v1/voicemail/{id} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        );
        t.ask(&head).await
    };
    let answer = ask(&alice).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("audio/ogg") && answer.ends_with("OggS said"),
        "{answer}"
    );
    let answer = ask(&bob).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    t.server.stop().await;
}

async fn sign_in(t: &TestServer, name: &str) -> Value {
    let body = json!({ "name": name }).to_string();
    let head = format!(
        "POST /demo/sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = t.connect().await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes())
        .await
        .unwrap();
    let answer = String::from_utf8(crate::support::until_closed(&mut stream).await).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}
