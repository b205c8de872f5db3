//! A Call between two clients, from invite to history.

use std::time::Duration;

use model::record::Participant;
use model::{AccountId, CallId, CallRecord, Media, RecordChange, Timestamp};
use serde_json::{Value, json};
use signaling_service::Config;

use crate::harness::{Client, TestService, new_id};

#[tokio::test]
async fn two_clients_call_each_other_and_find_it_in_their_history() {
    let t = TestService::start().await;
    let (mut alice, mut bob) = (t.join("alice").await, t.join("bob").await);
    let call = ring(&mut alice, &mut bob).await;

    let state = bob
        .ask("call.accept", json!({"call": call, "rev": 1}))
        .await["state"]
        .clone();
    assert_eq!(state["phase"], "active");
    assert_eq!(
        alice.update("answered").await["callee"]["device"],
        bob.device.to_string()
    );

    // What the two say to each other goes through unchanged, with its sender.
    let candidate =
        json!({"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdp_mid": "0"});
    let data = json!({"call": call, "generation": 1, "candidates": [candidate]});
    let offer = json!({"call": call, "generation": 1, "sdp": SDP, "signature": SIGNATURE});
    alice.ask("sdp.offer", offer).await;
    alice.ask("ice.candidates", data).await;
    assert_eq!(bob.next("sdp.offer").await["data"]["sdp"], SDP);
    let relayed = bob.next("ice.candidates").await;
    assert_eq!(relayed["data"]["from"], alice.device.to_string());
    assert_eq!(
        relayed["data"]["candidates"][0]["candidate"],
        candidate["candidate"]
    );

    alice.ask("call.hangup", json!({"call": call})).await;
    assert_eq!(bob.update("ended").await["end"]["reason"], "hangup");

    for (client, direction) in [(&mut alice, "out"), (&mut bob, "in")] {
        assert_eq!(client.next("history").await["data"]["entry"]["call"], call);

        let history = client.ask("history.list", json!({})).await;
        assert_eq!(history["entries"].as_array().unwrap().len(), 1);
        assert_eq!(history["entries"][0]["direction"], direction);
        assert_eq!(history["entries"][0]["reason"], "hangup");
        assert_eq!(history["missed"], 0);
    }
}

#[tokio::test]
async fn a_call_to_nobody_is_missed_until_it_is_seen() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;
    let state = alice
        .ask("call.invite", invite(&new_id().to_string(), "bob"))
        .await["state"]
        .clone();
    assert_eq!(state["end"]["reason"], "unavailable");

    let mut bob = t.join("bob").await;
    assert_eq!(bob.ask("history.list", json!({})).await["missed"], 1);
    bob.ask("history.seen", json!({})).await;
    assert_eq!(bob.next("history").await["data"]["missed"], 0);
    assert_eq!(
        bob.ask("history.list", json!({"before": "nonsense"})).await["entries"],
        json!([])
    );
}

#[tokio::test]
async fn the_directory_knows_users_who_were_here() {
    let t = TestService::start().await;
    let mut bob = t.join("bob").await;
    bob.text(r#"{"type":"bye"}"#).await;
    bob.closed().await;

    let mut alice = t.join("alice").await;
    let users = alice.ask("presence.subscribe", json!({})).await["users"].clone();
    let of = |user: &str| {
        users
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["user"] == user)
            .unwrap()
            .clone()
    };
    assert_eq!(
        of("bob"),
        json!({"user": "bob", "name": "BOB", "status": "offline"})
    );
    assert_eq!(of("alice")["status"], "available");
}

#[tokio::test]
async fn a_call_survives_the_sockets_of_both() {
    let t = TestService::start().await;
    let (mut alice, mut bob) = (t.join("alice").await, t.join("bob").await);
    let call = ring(&mut alice, &mut bob).await;
    bob.ask("call.accept", json!({"call": call, "rev": 1}))
        .await;

    let (mut alice, mut bob) = (back(&t, alice, "alice").await, back(&t, bob, "bob").await);
    alice
        .ask("call.hold", json!({"call": call, "on": true}))
        .await;
    assert_eq!(bob.update("held").await["held_by"], json!(["alice"]));
}

#[tokio::test]
async fn two_nodes_serve_one_call() {
    let here = TestService::start().await;
    let there = here.start_beside().await;
    let (mut alice, mut bob) = (here.join("alice").await, there.join("bob").await);
    let users = json!({"users": ["bob"]});
    if alice.ask("presence.subscribe", users).await["users"][0]["status"] == "offline" {
        alice.next("presence").await; // The nodes were still telling each other.
    }

    let call = ring(&mut alice, &mut bob).await;
    bob.ask("call.accept", json!({"call": call, "rev": 1}))
        .await;
    assert_eq!(
        alice.update("answered").await["callee"]["device"],
        bob.device.to_string()
    );
    bob.ask("call.hangup", json!({"call": call})).await;
    assert_eq!(alice.update("ended").await["end"]["by"], "bob");

    // A node that ends lets its clients move to the other one first.
    let service = here.service.clone();
    let drained = tokio::spawn(async move { service.drain(Duration::from_secs(20)).await });
    assert!(alice.next("goaway").await["data"]["in_ms"].as_u64() > Some(0));
    drop(alice);
    tokio::time::timeout(Duration::from_secs(15), drained)
        .await
        .expect("it ends as soon as all have left")
        .unwrap();
}

#[tokio::test]
async fn a_call_of_before_the_start_that_nobody_brings_back_is_over() {
    let mut config = Config::default();
    config.limits.resume_ms = 500;
    config.shards = 3;
    let lost = CallId::from_u128(7);
    let t = TestService::start_after(config, |account| {
        vec![RecordChange::CallAnswered(Box::new(row(account, lost)))]
    })
    .await;
    let (mut alice, mut bob) = (t.join("alice").await, t.join("bob").await);
    let call = ring(&mut alice, &mut bob).await;

    let news = bob.next("history").await["data"]["entry"].clone();
    assert_eq!(
        (&news["call"], &news["reason"], &news["missed"]),
        (&json!(lost), &json!("gone"), &json!(false))
    );
    let state = alice.ask("call.state", json!({"call": call})).await["state"].clone();
    assert_eq!(state["phase"], "ringing");
    let history = alice.ask("history.list", json!({})).await["entries"].clone();
    assert_eq!(
        (&history[0]["call"], &history[0]["ended_at"]),
        (&json!(call), &Value::Null)
    );
    assert_eq!(
        (&history[1]["call"], &history[1]["reason"]),
        (&json!(lost), &json!("gone"))
    );
}

/// The row of a Call from alice to bob that was answered and has no end.
fn row(account: AccountId, call: CallId) -> CallRecord {
    let participant = |user: &str| Participant {
        user: user.parse().unwrap(),
        name: None,
        device: None,
    };
    CallRecord {
        account,
        call,
        caller: participant("alice"),
        callee: participant("bob"),
        media: Media {
            audio: true,
            video: false,
        },
        created_at: Timestamp::from_millis(1_000),
        answered_at: Some(Timestamp::from_millis(2_000)),
        ended_at: None,
        reason: None,
        cause: None,
        phone: None,
        ended_by: None,
        missed: false,
        replaces: None,
        into: None,
    }
}

/// The same Session on a new socket.
async fn back(t: &TestService, client: Client, user: &str) -> Client {
    let mut again = t.connect().await;
    again.take_over(&client);
    again.hello(&t.token(user), Some(client.resume())).await;
    drop(client);
    assert_eq!(again.next("welcome").await["data"]["resumed"], true);
    again
}

/// The first client rings the second; returns the Call.
async fn ring(caller: &mut Client, callee: &mut Client) -> String {
    let call = new_id().to_string();
    let state = caller.ask("call.invite", invite(&call, "bob")).await["state"].clone();
    assert_eq!(state["phase"], "ringing");
    assert_eq!(
        callee.next("call.incoming").await["data"]["state"]["call"],
        call
    );
    call
}

fn invite(call: &str, to: &str) -> Value {
    json!({"call": call, "to": to, "media": {"audio": true, "video": true}})
}

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
    a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";

/// 64 bytes in base64url: the server passes signatures on, it does not judge them.
const SIGNATURE: &str =
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
