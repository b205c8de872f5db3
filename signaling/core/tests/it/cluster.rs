//! The same stories when the two sides have their Sessions on different nodes.

use serde_json::json;
use signaling_core::Limits;

use crate::harness::{TestSignaling, offer};

/// These Devices, each on the node of its place in the list.
fn people_apart(names: &[&str]) -> TestSignaling {
    let mut t = TestSignaling::cluster(names.len(), Limits::default());
    for (node, name) in names.iter().enumerate() {
        t.device(name).core = node;
        t.connect(name);
    }
    t.hush();
    t
}

#[test]
fn a_call_works_across_nodes() {
    let mut t = people_apart(&["alice", "bob", "bob2"]);
    let call = t.invite("alice", "bob");
    t.ok("bob", "call.ringing", json!({ "call": call }));
    t.accept("bob2", &call);
    t.ok("alice", "sdp.offer", offer(&call, 1));
    t.ok("bob2", "sdp.answer", offer(&call, 1));
    t.hangup("bob2", &call);

    assert_eq!(
        t.heard("alice"),
        [
            "call.update ringing",
            "call.update answered",
            "sdp.answer",
            "call.update ended",
            "history"
        ]
    );
    assert_eq!(
        t.heard("bob"),
        ["call.incoming", "call.update answered", "history"]
    );
    assert_eq!(
        t.heard("bob2"),
        [
            "call.incoming",
            "call.update ringing",
            "sdp.offer",
            "history"
        ]
    );
    assert_eq!(t.ended_records(), ["alice→bob Hangup"]);
}

#[test]
fn busy_presence_and_waiting_are_known_across_nodes() {
    let mut t = people_apart(&["alice", "bob", "carol", "dave"]);
    t.ok(
        "dave",
        "presence.subscribe",
        json!({ "users": ["alice", "bob"] }),
    );
    t.talk("alice", "bob");
    assert_eq!(
        t.heard("dave"),
        ["presence alice in_call", "presence bob in_call"]
    );

    t.hush();
    t.invite("carol", "bob");
    assert_eq!(
        t.take("bob", "call.incoming").unwrap()["data"]["waiting"],
        true
    );
    let third = t.invite("dave", "bob");
    assert_eq!(t.end("dave", &third), "busy -");
}

#[test]
fn a_session_that_ends_leaves_its_calls_at_the_owner() {
    let mut t = people_apart(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.send_text("bob", r#"{"type":"bye"}"#);
    assert_eq!(t.end("alice", &call), "gone bob");

    let call = t.invite("alice", "bob");
    assert_eq!(t.end("alice", &call), "unavailable -");
}

#[test]
fn transfers_work_across_nodes() {
    let mut t = people_apart(&["alice", "bob", "carol"]);
    let old = t.talk("alice", "bob");
    let state = t.ok(
        "alice",
        "call.transfer",
        json!({ "call": old, "to": "carol" }),
    )["state"]
        .clone();
    let new = state["transfer"]["call"].as_str().unwrap().to_owned();
    t.accept("carol", &new);
    assert_eq!(t.end("bob", &old), "transferred alice");
    t.ok("bob", "sdp.offer", offer(&new, 1));
    assert!(t.take("carol", "sdp.offer").is_some());
}

#[test]
fn a_device_that_comes_online_on_another_node_rings_too() {
    let mut t = people_apart(&["alice", "bob"]);
    t.invite("alice", "bob");
    t.device("bob2").core = 0;
    t.connect("bob2");
    assert_eq!(t.heard("bob2"), ["call.incoming"]);
}

#[test]
fn a_node_that_is_gone_takes_its_people_along() {
    let mut t = people_apart(&["alice", "bob"]);
    t.ok("alice", "presence.subscribe", json!({ "users": ["bob"] }));
    t.node_gone(1);
    assert_eq!(t.heard("alice"), ["presence bob offline"]);
}
