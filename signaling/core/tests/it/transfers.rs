//! One side hands the other over.

use serde_json::json;

use crate::harness::TestSignaling;

/// Alice talks to bob and sends him to carol, who rings.
fn ringing_carol() -> (TestSignaling, String, String) {
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

    assert_eq!(
        state["transfer"],
        json!({ "by": "alice", "to": "carol", "call": new })
    );
    assert_eq!(
        t.heard("bob"),
        ["call.update transferring", "call.update created"]
    );
    assert_eq!(t.heard("carol"), ["call.incoming"]);
    assert_eq!(t.seen("bob", &new)["replaces"], old);
    assert_eq!(t.seen("carol", &new)["caller"]["user"], "bob");
    (t, old, new)
}

#[test]
fn a_blind_transfer_that_is_answered_ends_the_old_call() {
    let (mut t, old, new) = ringing_carol();
    t.accept("carol", &new);

    assert_eq!(t.seen("bob", &new)["phase"], "active");
    for name in ["alice", "bob"] {
        assert_eq!(t.end(name, &old), "transferred alice");
        assert_eq!(t.seen(name, &old)["end"]["into"], new);
    }
    t.hangup("bob", &new);
    assert_eq!(t.end("carol", &new), "hangup bob");
}

#[test]
fn a_blind_transfer_that_fails_leaves_the_old_call() {
    for fail in ["declined", "missed", "cancelled"] {
        let (mut t, old, new) = ringing_carol();
        match fail {
            "declined" => {
                t.ok("carol", "call.decline", json!({ "call": new, "rev": 1 }));
            }
            "missed" => t.advance_alive(45_000),
            _ => {
                t.hangup("bob", &new);
            }
        }

        assert!(t.end("bob", &new).starts_with(fail));
        assert_eq!(t.seen("alice", &old)["phase"], "active");
        assert_eq!(t.seen("alice", &old)["transfer"], json!(null));
        assert!(
            t.heard("alice")
                .contains(&"call.update transfer_failed".to_owned())
        );
        assert_eq!(t.seen("bob", &old), t.seen("alice", &old));
    }
}

#[test]
fn a_transfer_to_nobody_fails_at_once() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let old = t.talk("alice", "bob");
    t.hush();
    let state = t.ok(
        "alice",
        "call.transfer",
        json!({ "call": old, "to": "nobody" }),
    )["state"]
        .clone();

    assert_eq!(
        (&state["phase"], &state["transfer"]),
        (&json!("active"), &json!(null))
    );
    assert_eq!(
        t.heard("bob"),
        [
            "call.update transferring",
            "call.update created",
            "call.update ended",
            "call.update transfer_failed",
            "history"
        ]
    );
}

#[test]
fn when_the_transferring_side_hangs_up_the_new_call_rings_on() {
    let (mut t, old, new) = ringing_carol();
    t.hangup("alice", &old);

    assert_eq!(t.end("bob", &old), "hangup alice");
    assert_eq!(t.seen("bob", &old)["end"]["into"], new);
    t.accept("carol", &new);
    assert_eq!(t.seen("bob", &new)["phase"], "active");
}

#[test]
fn when_the_transferred_side_hangs_up_nothing_rings_on() {
    let (mut t, old, new) = ringing_carol();
    t.hangup("bob", &old);

    assert_eq!(t.end("alice", &old), "hangup bob");
    assert_eq!(t.end("carol", &new), "cancelled bob");
}

#[test]
fn an_attended_transfer_joins_the_two_other_sides() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
    let first = t.talk("alice", "bob");
    t.ok("alice", "call.hold", json!({ "call": first, "on": true }));
    let second = t.talk("alice", "carol");
    t.hush();

    let state = t.ok(
        "alice",
        "call.transfer",
        json!({ "call": first, "with": second }),
    )["state"]
        .clone();
    let new = state["end"]["into"].as_str().unwrap().to_owned();
    assert_eq!(t.end("alice", &second), "transferred alice");
    for name in ["bob", "carol"] {
        let joined = t.seen(name, &new);
        assert_eq!(joined["phase"], "active");
        assert_eq!(joined["caller"]["device"], t.device("bob").id);
        assert_eq!(joined["callee"]["device"], t.device("carol").id);
        assert_eq!(joined["replaces"], first);
    }
    assert_eq!(
        t.heard("carol"),
        ["call.update created", "call.update ended", "history"]
    );
    assert_eq!(
        t.ended_records(),
        ["alice→bob Transferred", "alice→carol Transferred"]
    );
}

#[test]
fn a_transfer_needs_two_active_calls_a_third_user_and_the_grant() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
    let call = t.talk("alice", "bob");
    let transfer = |to: &str| json!({ "call": call, "to": to });

    assert_eq!(
        t.refused("alice", "call.transfer", transfer("bob")),
        "self_call"
    );
    assert_eq!(
        t.refused("alice", "call.transfer", transfer("alice")),
        "self_call"
    );
    assert_eq!(
        t.refused("alice", "call.transfer", json!({ "call": call })),
        "bad_data"
    );
    assert_eq!(
        t.refused("carol", "call.transfer", transfer("dave")),
        "not_a_party"
    );

    let ringing = t.invite("alice", "carol");
    let with = json!({ "call": call, "with": ringing });
    assert_eq!(t.refused("alice", "call.transfer", with), "wrong_phase");
    let unknown = t.new_call();
    let with = json!({ "call": call, "with": unknown });
    assert_eq!(t.refused("alice", "call.transfer", with), "unknown_call");

    t.device("eve").grants.transfer = false;
    t.connect("eve");
    let call = t.talk("eve", "bob");
    assert_eq!(
        t.refused(
            "eve",
            "call.transfer",
            json!({ "call": call, "to": "carol" })
        ),
        "forbidden"
    );
}
