//! Whole Calls, printed as arrows.

use serde_json::json;

use crate::harness::{TestSignaling, offer};

fn check(t: &TestSignaling, expected: &str) {
    let got: Vec<&str> = t.ladder.iter().map(|line| line.trim()).collect();
    let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
    assert_eq!(got, expected, "\n{}", t.ladder.join("\n"));
}

#[test]
fn a_call_from_invite_to_hangup() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    t.hush();
    let call = t.invite("alice", "bob");
    t.ok("bob", "call.ringing", json!({ "call": call }));
    t.advance(3_000);
    t.accept("bob", &call);
    t.ok("alice", "sdp.offer", offer(&call, 1));
    t.ok("bob", "sdp.answer", offer(&call, 1));
    t.advance(20_000);
    t.hangup("alice", &call);

    check(
        &t,
        "
             0ms  alice → call.invite bob
             0ms  bob   ← call.incoming
             0ms  alice ← ok ringing
             0ms  bob   → call.ringing
             0ms  alice ← call.update ringing
             0ms  bob   ← ok ringing
          3000ms  bob   → call.accept
          3000ms  alice ← call.update answered
          3000ms  bob   ← ok active
          3000ms  alice → sdp.offer
          3000ms  bob   ← sdp.offer
          3000ms  alice ← ok
          3000ms  bob   → sdp.answer
          3000ms  alice ← sdp.answer
          3000ms  bob   ← ok
         23000ms  alice → call.hangup
         23000ms  bob   ← call.update ended
         23000ms  alice ← ok ended
        ",
    );
}

#[test]
fn a_blind_transfer() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
    let old = t.talk("alice", "bob");
    t.hush();
    let state = t.ok(
        "alice",
        "call.transfer",
        json!({ "call": old, "to": "carol" }),
    )["state"]
        .clone();
    let new = state["transfer"]["call"].as_str().unwrap().to_owned();
    t.advance(2_000);
    t.accept("carol", &new);

    check(
        &t,
        "
             0ms  alice → call.transfer
             0ms  bob   ← call.update transferring
             0ms  bob   ← call.update created
             0ms  carol ← call.incoming
             0ms  alice ← ok active
          2000ms  carol → call.accept
          2000ms  bob   ← call.update answered
          2000ms  alice ← call.update ended
          2000ms  bob   ← call.update ended
          2000ms  carol ← ok active
        ",
    );
}

#[test]
fn a_crash_in_mid_call() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.crash();
    t.connect("alice");
    t.connect("bob");
    t.hush();
    t.sync("alice", &call).unwrap();
    t.send("alice", "sdp.offer", offer(&call, 2));
    t.advance(300);
    t.sync("bob", &call).unwrap();

    check(
        &t,
        "
             0ms  alice → call.sync
             0ms  alice ← ok active
             0ms  alice → sdp.offer
           300ms  bob   → call.sync
           300ms  bob   ← sdp.offer
           300ms  alice ← ok
           300ms  bob   ← ok active
        ",
    );
}
