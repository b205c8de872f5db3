//! Sessions outlive their sockets; nothing is lost or doubled.

use model::ApiKeyId;
use serde_json::{Value, json};

use crate::harness::TestSignaling;

#[test]
fn a_resumed_session_hears_what_it_missed_once() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    t.disconnect("bob");
    let call = t.invite("alice", "bob");
    t.ok("alice", "call.cancel", json!({ "call": call, "rev": 1 }));

    t.advance(59_000);
    assert_eq!(t.connect("bob")["resumed"], true);
    assert_eq!(
        t.heard("bob"),
        ["call.incoming", "call.update ended", "history"]
    );
    t.disconnect("bob");
    assert_eq!(t.connect("bob")["resumed"], true);
    assert_eq!(t.heard("bob"), [""; 0]);
}

#[test]
fn a_command_sent_again_after_a_resume_is_done_once() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.new_call();
    let data = json!({ "call": call, "to": "bob", "media": { "audio": true, "video": true } });
    let id = t.send("alice", "call.invite", data.clone());
    t.disconnect("alice");
    assert_eq!(t.connect("alice")["ack"], 1);

    let again = json!({ "type": "call.invite", "id": id, "seq": 1, "data": data }).to_string();
    t.send_text("alice", &again);
    assert_eq!(t.heard("bob"), ["call.incoming"]);
    assert!(t.answer_to("alice", &id).is_ok());
}

#[test]
fn a_session_ends_a_minute_after_its_socket() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.disconnect("bob");
    t.advance_alive(59_000);
    assert_eq!(t.seen("alice", &call)["phase"], "active");

    t.advance_alive(2_000);
    assert_eq!(t.end("alice", &call), "gone bob");
    assert_eq!(t.connect("bob")["resumed"], false);
    let invite = t.invite("alice", "bob");
    assert_eq!(t.seen("bob", &invite)["phase"], "ringing");
}

#[test]
fn a_revoked_key_closes_its_sockets_and_a_new_one_loses_nothing() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    let (account, old, new) = (
        t.device("bob").account,
        t.device("bob").api_key,
        ApiKeyId::from_u128(2),
    );
    t.device("alice").api_key = new;
    t.disconnect("alice");
    assert_eq!(t.connect("alice")["resumed"], true);

    t.revoke(account, old);
    assert_eq!(t.device("bob").closed, Some(4003));
    assert_eq!(t.device("alice").closed, None, "her key holds");

    t.device("bob").api_key = new;
    assert_eq!(t.connect("bob")["resumed"], true);
    t.revoke(account, old);
    assert_eq!(t.device("bob").closed, None);
    assert_eq!(t.seen("alice", &call)["phase"], "active");
}

#[test]
fn bye_ends_the_session_at_once() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.send_text("bob", r#"{"type":"bye"}"#);

    assert_eq!(t.device("bob").closed, Some(1000));
    assert_eq!(t.end("alice", &call), "gone bob");
    let call = t.invite("alice", "bob");
    assert_eq!(t.end("alice", &call), "unavailable -");
}

#[test]
fn a_ringing_device_that_leaves_just_stops_ringing() {
    let mut t = TestSignaling::people(&["alice", "bob", "bob2"]);
    let call = t.invite("alice", "bob");
    t.ok("bob2", "call.ringing", json!({ "call": call }));
    t.send_text("bob2", r#"{"type":"bye"}"#);

    assert_eq!(t.seen("alice", &call)["ringing"], json!([]));
    t.accept("bob", &call);
}

#[test]
fn the_key_rotates_and_a_lost_welcome_does_no_harm() {
    let mut t = TestSignaling::people(&["alice"]);
    let first = t.device("alice").session.clone().unwrap();
    t.disconnect("alice");
    t.connect("alice");
    let second = t.device("alice").session.clone().unwrap();
    assert_ne!(first.1, second.1);

    // The second welcome was lost: the first key still resumes, as often as it takes.
    t.device("alice").session = Some(first.clone());
    assert_eq!(t.connect("alice")["resumed"], true);
    t.device("alice").session = Some(first.clone());
    assert_eq!(t.connect("alice")["resumed"], true);

    // A frame shows that the newest welcome has arrived.
    t.send_text("alice", r#"{"type":"ping"}"#);
    for stale in [first, second] {
        let before = t.device("alice").session.replace(stale);
        assert_eq!(t.connect("alice")["resumed"], false);
        assert_ne!(t.device("alice").session, before);
        t.send_text("alice", r#"{"type":"ping"}"#);
    }
}

#[test]
fn nobody_elses_session_can_be_resumed() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    t.device("bob").session = t.device("alice").session.clone();
    assert_eq!(t.connect("bob")["resumed"], false);

    let mut forged = t.device("alice").session.clone().unwrap();
    forged.1 = format!("B{}", &forged.1[1..]);
    t.disconnect("alice");
    t.device("alice").session = Some(forged);
    assert_eq!(t.connect("alice")["resumed"], false);
}

#[test]
fn a_newer_socket_takes_the_session_over() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let old = t.device("alice").connection;
    t.connect("alice");
    let new = t.device("alice").connection;
    assert_ne!(old, new);

    t.device("alice").connection = old;
    t.send_text("alice", r#"{"type":"ping"}"#);
    assert!(
        t.take("alice", "pong").is_none(),
        "the core has forgotten the old socket"
    );
}

#[test]
fn a_device_has_one_session() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.forget("bob"); // a page loaded again
    t.connect("bob");

    t.advance_alive(4_000);
    assert_eq!(t.seen("alice", &call)["phase"], "active");
    t.advance_alive(2_000);
    assert_eq!(t.end("alice", &call), "gone bob");
}

#[test]
fn a_new_session_that_syncs_keeps_its_calls() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.forget("bob");
    t.connect("bob");
    let state = t.sync("bob", &call).unwrap()["state"].clone();
    assert_eq!(
        (&state["epoch"], &state["phase"]),
        (&json!(1), &json!("active"))
    );

    t.advance_alive(120_000);
    assert_eq!(t.seen("alice", &call)["phase"], "active");
}

#[test]
fn a_gap_closes_the_socket_and_leaves_the_session() {
    let mut t = TestSignaling::people(&["alice"]);
    t.device("alice").sent = 5;
    t.send("alice", "turn.refresh", json!({}));
    assert_eq!(t.device("alice").closed, Some(4002));
    assert_eq!(
        t.take("alice", "error").unwrap()["data"]["code"],
        "wrong_sequence"
    );

    let welcome = t.connect("alice");
    assert_eq!(
        (&welcome["resumed"], &welcome["ack"]),
        (&json!(true), &json!(0))
    );
}

#[test]
fn an_ack_of_what_was_never_sent_closes_the_socket() {
    let mut t = TestSignaling::people(&["alice"]);
    t.send_text("alice", r#"{"type":"ack","ack":9}"#);
    assert_eq!(t.device("alice").closed, Some(4002));
}

#[test]
fn the_server_says_what_it_received_within_two_seconds_or_sixteen_frames() {
    let mut t = TestSignaling::people(&["alice"]);
    t.records_answer = false;
    t.send("alice", "turn.refresh", json!({}));
    assert!(t.take("alice", "ack").is_none());
    t.advance(2_000);
    assert_eq!(t.take("alice", "ack").unwrap()["ack"], 1);

    for _ in 0..16 {
        t.send("alice", "turn.refresh", json!({}));
    }
    assert_eq!(t.take("alice", "ack").unwrap()["ack"], 17);
}

#[test]
fn a_silent_socket_is_asked_twice_and_given_up() {
    let mut t = TestSignaling::people(&["alice"]);
    t.advance(25_000);
    assert!(t.take("alice", "ping").is_some());
    t.send_text("alice", r#"{"type":"pong"}"#);

    t.advance(50_000);
    assert!(t.take("alice", "ping").is_some() && t.take("alice", "ping").is_some());
    t.advance(25_000);
    assert_eq!(t.device("alice").closed, Some(4004));
    assert_eq!(t.connect("alice")["resumed"], true);
}

#[test]
fn a_reader_too_slow_for_1024_frames_loses_its_session() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    t.ok("alice", "presence.subscribe", json!({ "users": ["bob"] }));
    t.device("alice").acknowledges = false;
    let mut flips = 0;
    while t.device("alice").closed.is_none() && flips < 2_000 {
        let status = if flips % 2 == 0 { "away" } else { "available" };
        t.ok("bob", "presence.set", json!({ "status": status }));
        t.advance(50);
        flips += 1;
    }

    assert_eq!(t.device("alice").closed, Some(4004));
    assert!((1_018..1_028).contains(&flips), "{flips}");
    let last = t.device("alice").frames.pop_back().unwrap();
    assert_eq!(last["data"]["code"], "session_overflow");
    assert_eq!(t.connect("alice")["resumed"], false);
}

#[test]
fn an_expired_token_resumes_but_begins_nothing() {
    let mut t = TestSignaling::people(&["alice"]);
    t.disconnect("alice");
    assert_eq!(t.hello("alice", true)["resumed"], true);

    t.forget("alice");
    assert_eq!(t.hello("alice", true), Value::Null);
    assert_eq!(t.device("alice").closed, Some(4003));
    assert_eq!(
        t.take("alice", "error").unwrap()["data"]["code"],
        "token_expired"
    );
}

#[test]
fn goaway_and_stop_leave_the_sessions_to_be_resumed() {
    let mut t = TestSignaling::people(&["alice"]);
    let now = t.now;
    t.cores[0].handle_drain(now, 5_000, "deploy");
    t.pump();
    assert_eq!(
        t.take("alice", "goaway").unwrap()["data"],
        json!({ "in_ms": 5000, "reason": "deploy" })
    );

    t.cores[0].handle_stop(now);
    t.pump();
    assert_eq!(t.device("alice").closed, Some(1001));
    assert_eq!(t.connect("alice")["resumed"], true);
}

#[test]
fn an_idle_core_forgets_everything() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.hangup("alice", &call);
    t.send_text("alice", r#"{"type":"bye"}"#);
    t.send_text("bob", r#"{"type":"bye"}"#);
    t.advance(120_000);

    assert_eq!(t.cores[0].counts(), signaling_core::Counts::default());
    assert_eq!(t.cores[0].poll_timeout(), None);
}
