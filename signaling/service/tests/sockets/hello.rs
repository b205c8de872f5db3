//! Who gets a Session, and how it comes back.

use std::time::Duration;

use serde_json::json;
use signaling_service::Config;

use crate::harness::{Closed, TestService, now_secs, token};

#[tokio::test]
async fn a_token_opens_a_session_with_what_the_client_needs() {
    let t = TestService::start().await;
    let mut client = t.connect().await;
    client.hello(&t.token("alice"), None).await;
    let welcome = client.next("welcome").await["data"].clone();

    assert_eq!(welcome["resumed"], false);
    assert_eq!(welcome["account"], t.key.account.to_string());
    assert_eq!(welcome["name"], "ALICE");
    assert_eq!(welcome["limits"]["frame_bytes_max"], 262_144);
    assert_eq!(welcome["ice_servers"][0]["urls"][0], "stun:127.0.0.1:3478");
    assert!(welcome["ice_servers"][1]["credential"].is_string());
}

#[tokio::test]
async fn fresh_turn_credentials_name_the_same_host() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;

    let servers = alice.ask("turn.refresh", json!({})).await["ice_servers"].clone();
    assert_eq!(servers[1]["urls"][0], "turn:127.0.0.1:3478?transport=udp");
}

#[tokio::test]
async fn a_wrong_token_is_refused_with_a_reason() {
    let t = TestService::start().await;
    let other = t.records.create_account("Other").await.unwrap();
    let other = t.records.create_api_key(other.account).await.unwrap();
    let mut crossed = other.clone();
    crossed.id = t.key.id;

    let cases = [
        ("nonsense".to_owned(), "unauthorized"),
        (t.token("alice") + "x", "unauthorized"),
        (token(&crossed, "alice", now_secs() + 60), "unauthorized"),
        (t.token_until("alice", now_secs() - 3_600), "token_expired"),
    ];
    for (token, code) in cases {
        let mut client = t.connect().await;
        client.hello(&token, None).await;
        assert_eq!(client.refused().await, (code.to_owned(), 4003), "{token}");
    }
}

#[tokio::test]
async fn a_revoked_key_is_felt_by_those_who_are_connected() {
    let t = TestService::start().await;
    let second = t.records.create_api_key(t.key.account).await.unwrap();
    let mut bob = t.connect().await;
    bob.hello(&token(&second, "bob", now_secs() + 60), None)
        .await;
    bob.next("welcome").await;
    let mut alice = t.join("alice").await;
    let resume = alice.resume();

    t.records.revoke_api_key(t.key.id).await.unwrap();
    assert_eq!(alice.closed().await.0, 4003);

    // Her old token is refused, one of another key finds the Session.
    let mut back = t.connect().await;
    back.take_over(&alice);
    back.hello(&t.token("alice"), Some(resume.clone())).await;
    assert_eq!(back.refused().await, ("unauthorized".to_owned(), 4003));
    let mut back = t.connect().await;
    back.take_over(&alice);
    back.hello(&token(&second, "alice", now_secs() + 60), Some(resume))
        .await;
    assert_eq!(back.next("welcome").await["data"]["resumed"], true);
    bob.ask("presence.set", json!({})).await;
}

#[tokio::test]
async fn another_accounts_users_and_calls_do_not_exist() {
    let t = TestService::start().await;
    let other = t.records.create_account("Other").await.unwrap();
    let other = t.records.create_api_key(other.account).await.unwrap();

    let mut bob = t.join("bob").await;
    let mut mallory = t.connect().await;
    mallory
        .hello(&token(&other, "mallory", now_secs() + 60), None)
        .await;
    mallory.next("welcome").await;

    let call = crate::harness::new_id();
    let media = json!({"audio": true, "video": false});
    mallory
        .ask(
            "call.invite",
            json!({"call": call, "to": "bob", "media": media}),
        )
        .await;

    // Bob hears nothing, and can't see the Call.
    assert_eq!(
        bob.refusal("call.state", json!({"call": call})).await,
        "unknown_call"
    );
}

#[tokio::test]
async fn a_session_resumes_with_nothing_lost() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;
    let mut bob = t.join("bob").await;
    alice
        .ask("presence.subscribe", json!({"users": ["bob"]}))
        .await;

    // The socket dies; what comes meanwhile waits.
    let mut again = t.connect().await;
    again.take_over(&alice);
    let resume = alice.resume();
    drop(alice);
    bob.ask("presence.set", json!({"status": "away"})).await;

    again.hello(&t.token("alice"), Some(resume)).await;
    assert_eq!(again.next("welcome").await["data"]["resumed"], true);
    assert_eq!(again.next("presence").await["data"]["status"], "away");
    again.ask("presence.set", json!({"status": "away"})).await;
}

#[tokio::test]
async fn an_expired_token_resumes_and_does_nothing_else() {
    let t = TestService::start().await;
    let alice = t.join("alice").await;
    let expired = t.token_until("alice", now_secs() - 3_600);

    let mut again = t.connect().await;
    again.take_over(&alice);
    again.hello(&expired, Some(alice.resume())).await;
    assert_eq!(again.next("welcome").await["data"]["resumed"], true);

    // Another User's expired token, and a guessed key, open nothing.
    let mut other = t.connect().await;
    other
        .hello(
            &t.token_until("bob", now_secs() - 3_600),
            Some(again.resume()),
        )
        .await;
    assert_eq!(other.refused().await, ("token_expired".to_owned(), 4003));

    let mut guessed = t.connect().await;
    let mut resume = again.resume();
    resume["key"] = json!("guessed");
    guessed.take_over(&again);
    guessed.hello(&expired, Some(resume)).await;
    assert_eq!(guessed.refused().await, ("token_expired".to_owned(), 4003));
}

#[tokio::test]
async fn an_older_socket_of_a_session_is_closed() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;

    let mut again = t.connect().await;
    again.take_over(&alice);
    again.hello(&t.token("alice"), Some(alice.resume())).await;
    again.next("welcome").await;

    assert_eq!(alice.closed().await.0, 4001);
}

#[tokio::test]
async fn who_says_no_hello_is_closed() {
    let t = TestService::start_with(Config {
        hello_ms: 200,
        ..Config::default()
    })
    .await;

    let mut silent = t.connect().await;
    assert_eq!(silent.refused().await, ("hello_expected".to_owned(), 4005));

    let mut rude = t.connect().await;
    rude.text(r#"{"type":"ping"}"#).await;
    assert_eq!(rude.refused().await, ("hello_expected".to_owned(), 4005));
}

#[tokio::test]
async fn bye_ends_the_session_at_once() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;
    alice.text(r#"{"type":"bye"}"#).await;
    assert_eq!(alice.closed().await.0, 1000);

    let mut again = t.connect().await;
    again.hello(&t.token("alice"), Some(alice.resume())).await;
    assert_eq!(again.next("welcome").await["data"]["resumed"], false);
}

#[tokio::test]
async fn a_drain_takes_leave_and_nobody_is_taken_after_it() {
    let t = TestService::start().await;
    let mut alice = t.join("alice").await;
    let mut silent = t.connect().await;
    assert!(t.service.ready());

    let service = t.service.clone();
    let drained = tokio::spawn(async move { service.drain(Duration::from_secs(15)).await });
    alice.next("goaway").await;
    assert_eq!(alice.closed().await, Closed(1001, "goaway".to_owned()));
    assert_eq!(silent.closed().await.0, 1001);

    tokio::time::timeout(Duration::from_secs(10), drained)
        .await
        .unwrap()
        .unwrap();
    assert!(!t.service.ready());
    assert!(t.try_connect(|_| {}).await.is_err());
}
