//! From an invite to its answer or its end.

use serde_json::{Value, json};

use crate::harness::TestSignaling;

#[test]
fn the_first_device_to_accept_wins_and_the_others_hear_it() {
    let mut t = TestSignaling::people(&["alice", "bob", "bob2", "bob3"]);
    let call = t.invite("alice", "bob");
    assert_eq!(t.heard("bob"), ["call.incoming"]);
    assert_eq!(t.heard("bob2"), ["call.incoming"]);

    let state = t.accept("bob2", &call);
    let winner = t.device("bob2").id.clone();
    assert_eq!(state["callee"]["device"], winner);
    assert_eq!(t.heard("alice"), ["call.update answered"]);
    assert_eq!(t.heard("bob"), ["call.update answered"]);
    assert_eq!(t.seen("bob3", &call)["callee"]["device"], winner);

    let late = t.refused("bob", "call.accept", json!({ "call": call, "rev": 1 }));
    assert_eq!(late, "conflict");
    let later = t.refused("bob", "call.accept", json!({ "call": call, "rev": 2 }));
    assert_eq!(later, "wrong_phase");
}

#[test]
fn a_conflict_tells_the_state_that_holds() {
    let mut t = TestSignaling::people(&["alice", "bob", "bob2"]);
    let call = t.invite("alice", "bob");
    t.ok("bob2", "call.ringing", json!({ "call": call }));

    let id = t.send("bob", "call.accept", json!({ "call": call, "rev": 1 }));
    let error = t.answer_to("bob", &id).unwrap_err();
    assert_eq!(error["code"], "conflict");
    assert_eq!(error["state"]["rev"], 2);
    assert!(error["sealed"].is_string());
    t.accept("bob", &call);
}

#[test]
fn devices_that_ring_are_listed_once() {
    let mut t = TestSignaling::people(&["alice", "bob", "bob2"]);
    let call = t.invite("alice", "bob");
    for name in ["bob", "bob2", "bob"] {
        t.ok(name, "call.ringing", json!({ "call": call }));
    }

    assert_eq!(
        t.heard("alice"),
        ["call.update ringing", "call.update ringing"]
    );
    assert_eq!(
        t.seen("alice", &call)["ringing"].as_array().unwrap().len(),
        2
    );
    assert_eq!(
        t.refused("alice", "call.ringing", json!({ "call": call })),
        "not_a_party"
    );
}

#[test]
fn one_device_declines_for_all() {
    let mut t = TestSignaling::people(&["alice", "bob", "bob2"]);
    for (reason, end) in [("declined", "declined bob"), ("busy", "busy bob")] {
        let call = t.invite("alice", "bob");
        t.ok(
            "bob",
            "call.decline",
            json!({ "call": call, "rev": 1, "reason": reason }),
        );
        assert_eq!(t.end("alice", &call), end);
        assert_eq!(t.end("bob2", &call), end);
    }
    assert_eq!(t.ended_records(), ["alice→bob Declined", "alice→bob Busy"]);
}

#[test]
fn a_caller_who_cancels_is_missed() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.invite("alice", "bob");
    assert_eq!(
        t.refused("bob", "call.cancel", json!({ "call": call, "rev": 1 })),
        "not_a_party"
    );
    t.ok("alice", "call.cancel", json!({ "call": call, "rev": 1 }));

    assert_eq!(t.end("bob", &call), "cancelled alice");
    assert_eq!(
        t.heard("bob"),
        ["call.incoming", "call.update ended", "history"]
    );
    assert_eq!(t.ended_records(), ["alice→bob Cancelled missed"]);
}

#[test]
fn a_caller_who_hangs_up_while_it_rings_cancels() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.invite("alice", "bob");

    assert_eq!(
        t.refused("bob", "call.hangup", json!({ "call": call })),
        "wrong_phase"
    );
    t.hangup("alice", &call);
    assert_eq!(t.end("bob", &call), "cancelled alice");
}

#[test]
fn a_call_nobody_answers_is_missed() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.new_call();
    let media = json!({ "audio": true, "video": false });
    t.ok(
        "alice",
        "call.invite",
        json!({ "call": call, "to": "bob", "media": media, "ttl_ms": 5_000 }),
    );

    t.advance(4_999);
    assert_eq!(t.seen("alice", &call)["phase"], "ringing");
    t.advance(1);
    assert_eq!(t.end("alice", &call), "missed -");
    assert_eq!(t.seen("bob", &call)["end"]["cause"], 19);
    assert_eq!(t.ended_records(), ["alice→bob Missed missed"]);
}

#[test]
fn a_user_without_a_device_is_unavailable_and_misses_the_call() {
    let mut t = TestSignaling::people(&["alice"]);
    let call = t.invite("alice", "bob");

    assert_eq!(t.end("alice", &call), "unavailable -");
    assert_eq!(t.heard("alice"), ["history"]);
    assert_eq!(t.ended_records(), ["alice→bob Unavailable missed"]);
}

#[test]
fn hanging_up_ends_an_active_call_for_both_with_a_cause() {
    let mut t = TestSignaling::people(&["alice", "bob", "bob2"]);
    let call = t.talk("alice", "bob");
    assert_eq!(
        t.refused("bob2", "call.hangup", json!({ "call": call })),
        "not_a_party"
    );

    t.hush();
    t.ok("bob", "call.hangup", json!({ "call": call, "cause": 31 }));
    assert_eq!(t.end("alice", &call), "hangup bob");
    assert_eq!(t.seen("alice", &call)["end"]["cause"], 31);
    assert_eq!(
        t.heard("bob2"),
        ["history"],
        "another Device has no part in the Call"
    );
    assert_eq!(
        t.hangup("alice", &call)["end"]["by"],
        "bob",
        "to hang up again changes nothing"
    );
    assert_eq!(t.ended_records().len(), 1);
}

#[test]
fn either_side_holds_and_takes_back() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.hush();

    let mut hold = |name: &str, on: bool| {
        t.ok(name, "call.hold", json!({ "call": call, "on": on }))["state"]["held_by"].clone()
    };
    assert_eq!(hold("alice", true), json!(["alice"]));
    assert_eq!(hold("bob", true), json!(["alice", "bob"]));
    assert_eq!(hold("bob", true), json!(["alice", "bob"]));
    assert_eq!(hold("alice", false), json!(["bob"]));
    assert_eq!(t.heard("bob"), ["call.update held", "call.update resumed"]);
}

#[test]
fn a_second_invite_waits_and_a_third_is_busy() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol", "dave"]);
    t.talk("alice", "bob");
    t.hush();

    let second = t.invite("carol", "bob");
    let incoming = t.take("bob", "call.incoming").unwrap();
    assert_eq!(incoming["data"]["waiting"], true);
    assert_eq!(t.seen("carol", &second)["phase"], "ringing");

    let third = t.invite("dave", "bob");
    assert_eq!(t.end("dave", &third), "busy -");
    assert_eq!(
        t.heard("bob"),
        ["history"],
        "bob is not rung but finds it in the history"
    );
    assert_eq!(t.ended_records(), ["dave→bob Busy missed"]);
}

#[test]
fn without_call_waiting_the_second_invite_is_busy() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
    t.ok("bob", "presence.set", json!({ "call_waiting": false }));
    t.talk("alice", "bob");

    let second = t.invite("carol", "bob");
    assert_eq!(t.end("carol", &second), "busy -");
}

#[test]
fn who_does_not_want_to_be_disturbed_is_busy() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    t.ok("bob", "presence.set", json!({ "status": "do_not_disturb" }));
    let call = t.invite("alice", "bob");
    assert_eq!(t.end("alice", &call), "busy -");

    t.ok("bob", "presence.set", json!({ "status": "available" }));
    let call = t.invite("alice", "bob");
    assert_eq!(t.seen("alice", &call)["phase"], "ringing");
}

#[test]
fn a_device_that_comes_online_while_it_rings_rings_too() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.invite("alice", "bob");
    t.connect("bob2");

    assert_eq!(t.heard("bob2"), ["call.incoming"]);
    t.accept("bob2", &call);
    assert_eq!(t.heard("bob"), ["call.incoming", "call.update answered"]);
}

#[test]
fn one_command_id_has_one_effect() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.new_call();
    let invite = json!({ "call": call, "to": "bob", "media": { "audio": true, "video": false } });
    let id = t.send("alice", "call.invite", invite.clone());
    let first = t.answer_to("alice", &id).unwrap();
    t.send_as("alice", &id, "call.invite", &invite);
    assert_eq!(t.answer_to("alice", &id).unwrap(), first);
    assert_eq!(t.heard("bob"), ["call.incoming"]);
    assert_eq!(t.refused("alice", "call.invite", invite), "call_exists");

    let accept = json!({ "call": call, "rev": 1 });
    let id = t.send("bob", "call.accept", accept.clone());
    let first = t.answer_to("bob", &id).unwrap();
    t.send_as("bob", &id, "call.accept", &accept);
    assert_eq!(t.answer_to("bob", &id).unwrap(), first);
    assert_eq!(t.heard("alice"), ["call.update answered"]);
}

#[test]
fn history_news_tell_each_side_its_own_entry() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.hangup("alice", &call);

    let entry = |frame: Option<Value>| {
        let entry = frame.unwrap()["data"]["entry"].clone();
        format!(
            "{} {} {}",
            entry["direction"], entry["peer"]["user"], entry["missed"]
        )
    };
    assert_eq!(entry(t.take("alice", "history")), r#""out" "bob" false"#);
    assert_eq!(entry(t.take("bob", "history")), r#""in" "alice" false"#);

    t.ok("bob", "history.seen", json!({}));
    assert_eq!(
        t.take("bob", "history").unwrap()["data"],
        json!({ "missed": 0 })
    );
    let page = t.ok("bob", "history.list", json!({ "limit": 10 }));
    assert_eq!(page, json!({ "entries": [], "missed": 3 }));
}

#[test]
fn grants_say_who_may_dial_answer_and_how_much() {
    let mut t = TestSignaling::new();
    t.device("mute").grants.dial = false;
    t.device("deaf").grants.answer = false;
    t.device("solo").grants.max_concurrent = Some(1);
    for name in ["alice", "mute", "deaf", "solo"] {
        t.connect(name);
    }
    let invite = |call: String, to: &str| json!({ "call": call, "to": to, "media": { "audio": true, "video": false } });

    let call = t.new_call();
    assert_eq!(
        t.refused("mute", "call.invite", invite(call, "alice")),
        "forbidden"
    );
    let call = t.invite("alice", "deaf");
    assert_eq!(t.end("alice", &call), "unavailable -");
    t.invite("solo", "alice");
    let call = t.new_call();
    assert_eq!(
        t.refused("solo", "call.invite", invite(call, "mute")),
        "too_many_calls"
    );
    let call = t.new_call();
    assert_eq!(
        t.refused("alice", "call.invite", invite(call, "alice")),
        "self_call"
    );
    let call = t.new_call();
    assert_eq!(
        t.refused("alice", "call.invite", invite(call, "tel:+431234")),
        "forbidden"
    );
}
