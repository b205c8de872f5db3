//! What is relayed between the two Devices of a Call.

use serde_json::{Value, json};

use crate::harness::{TestSignaling, offer, sdp};

fn candidates(call: &str, generation: u64, count: usize) -> Value {
    let candidate = json!({ "candidate": "candidate:1 1 udp 1 10.0.0.1 1 typ host", "sdp_mid": "0",
        "sdp_m_line_index": 0, "username_fragment": "abcd" });
    json!({ "call": call, "generation": generation, "candidates": vec![candidate; count] })
}

#[test]
fn offers_answers_and_candidates_reach_the_other_device_alone() {
    let mut t = TestSignaling::people(&["alice", "alice2", "bob", "bob2"]);
    let call = t.talk("alice", "bob");
    t.hush();

    t.ok("alice", "sdp.offer", offer(&call, 1));
    t.ok("alice", "ice.candidates", candidates(&call, 1, 2));
    t.ok("bob", "sdp.answer", offer(&call, 1));
    t.ok("bob", "ice.restart", json!({ "call": call }));

    let alice = t.device("alice").id.clone();
    let got = t.take("bob", "sdp.offer").unwrap();
    assert_eq!(got["data"]["from"], alice);
    assert_eq!(got["data"]["sdp"], sdp(1));
    assert_eq!(
        t.take("bob", "ice.candidates").unwrap()["data"]["candidates"][1]["sdp_mid"],
        "0"
    );
    assert_eq!(t.heard("alice"), ["sdp.answer", "ice.restart"]);
    assert_eq!(t.heard("alice2"), [""; 0]);
    assert_eq!(t.heard("bob2"), [""; 0]);
}

#[test]
fn nobody_can_pretend_to_be_the_other_device() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    let (alice, bob) = (t.device("alice").id.clone(), t.device("bob").id.clone());
    t.ok("alice", "ice.restart", json!({ "call": call, "from": bob }));

    assert_eq!(t.take("bob", "ice.restart").unwrap()["data"]["from"], alice);
}

#[test]
fn a_stale_generation_is_refused_and_glare_passes() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");

    t.ok("alice", "sdp.offer", offer(&call, 1));
    t.ok("bob", "sdp.offer", offer(&call, 1));
    assert_eq!(
        t.refused("alice", "sdp.offer", offer(&call, 1)),
        "stale_generation"
    );
    t.ok("alice", "sdp.offer", offer(&call, 3));
    assert_eq!(
        t.refused("bob", "sdp.offer", offer(&call, 2)),
        "stale_generation"
    );
    assert_eq!(
        t.refused("bob", "sdp.answer", offer(&call, 1)),
        "stale_generation"
    );
    assert_eq!(
        t.refused("bob", "ice.candidates", candidates(&call, 2, 1)),
        "stale_generation"
    );
    t.ok("bob", "sdp.answer", offer(&call, 3));
}

#[test]
fn an_sdp_needs_a_strong_fingerprint_and_a_reasonable_size() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    let with = |sdp: String| {
        let mut offer = offer(&call, 1);
        offer["sdp"] = sdp.into();
        offer
    };

    let none = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n".to_owned();
    assert_eq!(
        t.refused("alice", "sdp.offer", with(none)),
        "weak_fingerprint"
    );
    let weak = sdp(1).replace("sha-256", "sha-1");
    assert_eq!(
        t.refused("alice", "sdp.offer", with(weak)),
        "weak_fingerprint"
    );
    let long = format!("{}{}", sdp(1), "a=x\r\n".repeat(8_000));
    assert_eq!(t.refused("alice", "sdp.offer", with(long)), "too_large");
    assert_eq!(
        t.refused("alice", "ice.candidates", candidates(&call, 1, 33)),
        "too_large"
    );
    assert_eq!(t.heard("bob"), ["call.incoming"]);
}

#[test]
fn nothing_is_relayed_before_the_answer_or_after_the_end() {
    let mut t = TestSignaling::people(&["alice", "bob", "bob2"]);
    let call = t.invite("alice", "bob");
    assert_eq!(
        t.refused("alice", "sdp.offer", offer(&call, 1)),
        "wrong_phase"
    );
    t.accept("bob", &call);
    assert_eq!(
        t.refused("bob2", "sdp.offer", offer(&call, 1)),
        "not_a_party"
    );
    t.hangup("bob", &call);
    assert_eq!(
        t.refused("alice", "sdp.offer", offer(&call, 1)),
        "wrong_phase"
    );
}

#[test]
fn the_steps_of_the_short_code_are_relayed() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.hush();
    let shown =
        json!({ "key": t.device("bob").key, "fingerprint": "sha-256 aa", "nonce": "A".repeat(43) });

    t.ok(
        "bob",
        "call.verify",
        json!({ "call": call, "answer": shown }),
    );
    t.ok(
        "alice",
        "call.verify",
        json!({ "call": call, "reveal": shown }),
    );
    assert_eq!(
        t.take("alice", "call.verify").unwrap()["data"]["answer"],
        shown
    );
    assert_eq!(
        t.take("bob", "call.verify").unwrap()["data"]["reveal"],
        shown
    );
    assert_eq!(
        t.refused("bob", "call.verify", json!({ "call": call })),
        "bad_data"
    );
}

#[test]
fn what_is_sent_is_told_to_the_other_device() {
    let mut t = TestSignaling::people(&["alice", "alice2", "bob"]);
    let call = t.talk("alice", "bob");
    t.hush();

    t.ok(
        "bob",
        "call.media",
        json!({ "call": call, "audio": false, "video": "screen" }),
    );
    let bob = t.device("bob").id.clone();
    assert_eq!(
        t.take("alice", "call.media").unwrap()["data"],
        json!({ "call": call, "from": bob, "audio": false, "video": "screen" })
    );
    assert_eq!(t.heard("alice2"), [""; 0]);
}

#[test]
fn what_is_sent_to_a_device_without_a_socket_waits_for_it() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.hush();
    t.disconnect("bob");
    t.ok("alice", "sdp.offer", offer(&call, 1));
    t.connect("bob");
    assert_eq!(t.heard("bob"), ["sdp.offer"]);
}
