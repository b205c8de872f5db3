//! Who is here.

use serde_json::json;

use crate::harness::TestSignaling;

#[test]
fn followers_hear_of_every_change() {
    let mut t = TestSignaling::people(&["alice"]);
    let users = t.ok(
        "alice",
        "presence.subscribe",
        json!({ "users": ["bob", "carol"] }),
    );
    assert_eq!(
        users["users"],
        json!([
            { "user": "bob", "name": null, "status": "offline" },
            { "user": "carol", "name": null, "status": "offline" },
        ])
    );

    t.connect("bob");
    t.connect("bob2");
    t.ok("bob2", "presence.set", json!({ "status": "away" }));
    t.connect("dave");
    let call = t.talk("dave", "bob");
    t.hangup("dave", &call);
    t.send_text("bob", r#"{"type":"bye"}"#);
    t.send_text("bob2", r#"{"type":"bye"}"#);
    assert_eq!(
        t.heard("alice"),
        [
            "presence bob available",
            "presence bob away",
            "presence bob in_call",
            "presence bob away",
            "presence bob offline",
        ]
    );
}

#[test]
fn what_a_user_has_said_is_told_to_their_next_device() {
    let mut t = TestSignaling::people(&["bob"]);
    let begin = json!({ "status": "available", "call_waiting": true, "chosen": false });
    assert_eq!(t.ok("bob", "presence.set", json!({})), begin);

    let set = json!({ "status": "do_not_disturb", "call_waiting": false });
    let said = json!({ "status": "do_not_disturb", "call_waiting": false, "chosen": true });
    assert_eq!(t.ok("bob", "presence.set", set), said);
    t.connect("bob2");
    assert_eq!(t.ok("bob2", "presence.set", json!({})), said);

    t.send_text("bob", r#"{"type":"bye"}"#);
    t.send_text("bob2", r#"{"type":"bye"}"#);
    t.connect("bob3");
    assert_eq!(t.ok("bob3", "presence.set", json!({})), begin);
}

#[test]
fn the_directory_joins_who_is_here_and_who_is_in_the_records() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let users = t.ok("alice", "presence.subscribe", json!({}))["users"].clone();
    assert_eq!(
        users,
        json!([
            { "user": "alice", "name": "ALICE", "status": "available" },
            { "user": "bob", "name": "BOB", "status": "available" },
            { "user": "zoe", "name": "Zoe", "status": "offline" },
        ])
    );

    t.device("eve").grants.directory = false;
    t.connect("eve");
    assert_eq!(
        t.refused("eve", "presence.subscribe", json!({})),
        "forbidden"
    );
    t.ok("eve", "presence.subscribe", json!({ "users": ["bob"] }));
}

#[test]
fn a_caller_is_in_a_call_and_a_rung_callee_is_not() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
    t.ok(
        "carol",
        "presence.subscribe",
        json!({ "users": ["alice", "bob"] }),
    );
    let call = t.invite("alice", "bob");
    assert_eq!(t.heard("carol"), ["presence alice in_call"]);
    t.accept("bob", &call);
    assert_eq!(t.heard("carol"), ["presence bob in_call"]);
}

#[test]
fn a_new_subscription_takes_the_place_of_the_old_one() {
    let mut t = TestSignaling::people(&["alice"]);
    t.ok("alice", "presence.subscribe", json!({ "users": ["bob"] }));
    t.ok("alice", "presence.subscribe", json!({ "users": ["carol"] }));
    t.connect("bob");
    t.connect("carol");
    assert_eq!(t.heard("alice"), ["presence carol available"]);
}
