//! The server loses its memory; the Devices hand it back.

use model::{CallId, RecordChange};
use serde_json::{Value, json};

use crate::harness::{TestSignaling, offer};

#[test]
fn an_active_call_survives_a_crash() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.crash();
    for name in ["alice", "bob"] {
        assert_eq!(t.connect(name)["resumed"], false);
    }
    t.hush();

    let state = t.sync("alice", &call).unwrap()["state"].clone();
    assert_eq!((&state["epoch"], &state["rev"]), (&json!(2), &json!(2)));
    assert_eq!(t.heard("bob"), [""; 0], "bob may hold something newer");
    let state = t.sync("bob", &call).unwrap()["state"].clone();
    assert_eq!(state, t.seen("alice", &call));
    t.ok("alice", "sdp.offer", offer(&call, 9));
    t.hangup("bob", &call);
    assert_eq!(t.end("alice", &call), "hangup bob");
}

#[test]
fn the_newer_state_wins_whoever_syncs_first() {
    for first in ["alice", "bob"] {
        let mut t = TestSignaling::people(&["alice", "bob"]);
        let call = t.invite("alice", "bob");
        t.disconnect("alice"); // it does not hear of the answer
        t.accept("bob", &call);
        t.crash();
        t.connect("alice");
        t.connect("bob");

        let second = if first == "alice" { "bob" } else { "alice" };
        t.sync(first, &call).unwrap();
        let state = t.sync(second, &call).unwrap()["state"].clone();
        assert_eq!(
            (&state["phase"], &state["epoch"]),
            (&json!("active"), &json!(2))
        );
        assert_eq!(t.seen("alice", &call), t.seen("bob", &call));
    }
}

#[test]
fn an_end_always_wins() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.disconnect("alice");
    t.hangup("bob", &call);
    t.crash();
    t.connect("alice");
    t.connect("bob");

    t.sync("alice", &call).unwrap();
    t.advance(6_000); // settled: alice is alone in an active Call
    assert_eq!(t.seen("alice", &call)["phase"], "active");
    t.sync("bob", &call).unwrap();
    assert_eq!(t.end("alice", &call), "hangup bob");
}

#[test]
fn what_could_contradict_waits_until_all_have_synced_or_five_seconds() {
    let mut t = TestSignaling::people(&["alice", "bob", "bob2"]);
    let call = t.invite("alice", "bob");
    t.ok("bob", "call.ringing", json!({ "call": call }));
    t.ok("bob2", "call.ringing", json!({ "call": call }));
    let rev = t.rev("bob", &call);
    t.disconnect("bob");
    t.accept("bob2", &call); // bob does not hear of it
    t.crash();
    t.connect("bob");
    t.connect("bob2");

    t.sync("bob", &call).unwrap();
    let id = t.send("bob", "call.accept", json!({ "call": call, "rev": rev }));
    assert!(
        t.device("bob")
            .frames
            .iter()
            .all(|frame| frame["reply_to"] != id)
    );
    t.sync("bob2", &call).unwrap();
    t.advance(5_000); // alice does not come
    assert_eq!(t.answer_to("bob", &id).unwrap_err()["code"], "conflict");
    assert_eq!(
        t.seen("bob", &call)["callee"]["device"],
        t.device("bob2").id
    );
}

#[test]
fn a_device_that_was_rung_may_be_the_only_one_that_knows_the_end() {
    let mut t = TestSignaling::people(&["alice", "bob", "bob2"]);
    let call = t.invite("alice", "bob");
    t.disconnect("alice");
    t.disconnect("bob");
    t.ok(
        "bob2",
        "call.decline",
        json!({ "call": call, "rev": 1, "reason": "busy" }),
    );
    t.crash();
    t.connect("alice");
    t.connect("bob");
    t.sync("alice", &call).unwrap();
    t.sync("bob", &call).unwrap();

    // bob2 never said that it rings, and still the answer waits for it.
    let id = t.send("bob", "call.accept", json!({ "call": call, "rev": 1 }));
    t.connect("bob2");
    t.sync("bob2", &call).unwrap();
    assert!(t.answer_to("bob", &id).is_err());
    assert_eq!(t.end("alice", &call), "busy bob");
}

#[test]
fn two_crashes_in_a_row_lose_nothing_that_one_device_alone_knows() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.disconnect("alice");
    t.ok("bob", "call.hold", json!({ "call": call, "on": true }));
    t.advance(1_000);
    t.crash();
    t.connect("alice");
    t.sync("alice", &call).unwrap(); // bob is not back yet when the next crash comes
    t.advance(1_000);
    t.crash();
    t.connect("alice");
    t.connect("bob");
    t.sync("alice", &call).unwrap();
    t.sync("bob", &call).unwrap();
    for name in ["alice", "bob"] {
        assert_eq!(t.seen(name, &call)["held_by"], json!(["bob"]), "{name}");
    }
}

#[test]
fn ends_of_two_lives_of_a_call_differ_in_their_version() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    let mut ends = Vec::new();
    for name in ["alice", "bob"] {
        t.advance(1_000);
        t.crash();
        t.connect(name);
        t.sync(name, &call).unwrap();
        t.hangup(name, &call);
        ends.push(t.seen(name, &call));
    }
    let version = |end: &Value| (end["epoch"].as_u64(), end["rev"].as_u64());
    assert!(version(&ends[0]) < version(&ends[1]), "{ends:?}");
}

#[test]
fn a_command_that_was_applied_before_the_crash_is_known_after_it() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.invite("alice", "bob");
    let accept = json!({ "call": call, "rev": 1 });
    let id = t.send("bob", "call.accept", accept.clone());
    t.crash();
    t.connect("alice");
    t.connect("bob");
    t.sync("alice", &call).unwrap(); // alice heard of the answer, bob's ok was lost
    t.sync("bob", &call).unwrap();

    t.send_as("bob", &id, "call.accept", &accept);
    let again = t
        .device("bob")
        .frames
        .iter()
        .rfind(|frame| frame["reply_to"] == id)
        .unwrap();
    assert_eq!(
        (&again["type"], &again["data"]["state"]["phase"]),
        (&json!("ok"), &json!("active"))
    );
}

#[test]
fn an_invite_whose_ok_was_lost_meets_the_call_the_callee_brought_back() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.new_call();
    let invite = json!({ "call": call, "to": "bob", "media": { "audio": true, "video": true } });
    let id = t.send("alice", "call.invite", invite.clone());
    t.crash();
    t.connect("alice");
    t.connect("bob");
    t.sync("bob", &call).unwrap();

    t.hush();
    t.send_as("alice", &id, "call.invite", &invite);
    let state = t.answer_to("alice", &id).unwrap()["state"].clone();
    assert_eq!(state["epoch"], 2);
    assert_eq!(t.heard("bob"), [""; 0], "it does not ring twice");
}

#[test]
fn something_newer_wins_after_the_window_too_if_nothing_has_happened() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.invite("alice", "bob");
    t.disconnect("alice");
    t.accept("bob", &call);
    t.crash();
    t.connect("alice");
    t.sync("alice", &call).unwrap();
    t.advance(6_000);
    assert_eq!(t.seen("alice", &call)["phase"], "ringing");

    t.connect("bob");
    t.sync("bob", &call).unwrap();
    assert_eq!(t.seen("alice", &call)["phase"], "active");
}

#[test]
fn a_callee_who_was_not_rung_before_the_crash_is_rung_after_it() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    t.disconnect("bob");
    let call = t.invite("alice", "bob");
    t.crash();
    t.connect("alice");
    t.connect("bob");
    t.hush();
    t.sync("alice", &call).unwrap();
    t.advance(5_000);

    assert!(t.heard("bob").contains(&"call.incoming".to_owned()));
    t.accept("bob", &call);
    assert_eq!(t.seen("alice", &call)["phase"], "active");
}

#[test]
fn a_device_that_does_not_come_back_is_gone_after_a_minute() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    t.crash();
    t.connect("alice");
    t.sync("alice", &call).unwrap();

    t.advance_alive(58_000);
    assert_eq!(t.seen("alice", &call)["phase"], "active");
    t.advance_alive(3_000);
    assert_eq!(t.end("alice", &call), "gone bob");
}

#[test]
fn a_call_that_rang_out_meanwhile_is_missed() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.invite("alice", "bob");
    t.crash();
    t.advance(50_000);
    t.connect("alice");
    t.sync("alice", &call).unwrap();
    t.advance(5_000);
    assert_eq!(t.end("alice", &call), "missed -");
}

#[test]
fn a_forged_or_foreign_snapshot_is_refused() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let (call, other) = (t.talk("alice", "bob"), t.invite("alice", "bob"));
    let sealed = t.device("alice").sealed[&call].1.clone();
    let mut forged = sealed.clone();
    forged.replace_range(40..41, if &sealed[40..41] == "A" { "B" } else { "A" });

    let mut check = |call: &str, sealed: &str| {
        let sync = json!({ "call": call, "sealed": sealed });
        assert_eq!(t.refused("alice", "call.sync", sync), "forged_snapshot");
    };
    check(&call, &forged);
    check(&other, &sealed);
    check(&call, "");
    check(&call, "AQ");
    check(&call, "?");
    t.crash();
    t.connect("alice");
    let sync = json!({ "call": call, "sealed": forged });
    assert_eq!(t.refused("alice", "call.sync", sync), "forged_snapshot");
}

#[test]
fn an_old_snapshot_changes_nothing() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let call = t.invite("alice", "bob");
    let sealed = t.device("alice").sealed[&call].1.clone();
    t.accept("bob", &call);

    let state = t.ok(
        "alice",
        "call.sync",
        json!({ "call": call, "sealed": sealed }),
    )["state"]
        .clone();
    assert_eq!(
        (&state["phase"], &state["epoch"]),
        (&json!("active"), &json!(1))
    );
}

#[test]
fn a_blind_transfer_survives_a_crash() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
    let old = t.talk("alice", "bob");
    let state = t.ok(
        "alice",
        "call.transfer",
        json!({ "call": old, "to": "carol" }),
    )["state"]
        .clone();
    let new = state["transfer"]["call"].as_str().unwrap().to_owned();
    t.crash();
    for name in ["alice", "bob", "carol"] {
        t.connect(name);
    }
    for (name, call) in [
        ("bob", &new),
        ("bob", &old),
        ("alice", &old),
        ("carol", &new),
    ] {
        t.sync(name, call).unwrap();
    }
    t.advance(5_000);
    t.accept("carol", &new);
    assert_eq!(t.end("alice", &old), "transferred alice");
}

#[test]
fn a_transferred_call_nobody_heard_of_comes_back_with_the_old_one() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
    let old = t.talk("alice", "bob");
    let state = t.ok(
        "alice",
        "call.transfer",
        json!({ "call": old, "to": "carol" }),
    )["state"]
        .clone();
    let new = state["transfer"]["call"].as_str().unwrap().to_owned();
    for name in ["bob", "carol"] {
        t.device(name).sealed.remove(&new);
    }
    t.crash();
    for name in ["alice", "bob", "carol"] {
        t.connect(name);
    }
    t.hush();
    t.sync("alice", &old).unwrap();
    t.sync("bob", &old).unwrap();
    t.advance(5_000);

    assert_eq!(t.heard("carol"), ["call.incoming"]);
    assert_eq!(t.heard("bob"), ["call.update adopted"]);
    t.accept("carol", &new);
    assert_eq!(t.end("alice", &old), "transferred alice");
}

#[test]
fn a_transfer_sent_again_after_a_crash_does_not_dial_twice() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
    let old = t.talk("alice", "bob");
    let before = t.device("alice").sealed[&old].1.clone();
    let transfer = json!({ "call": old, "to": "carol" });
    let id = t.send("alice", "call.transfer", transfer.clone());
    let new = id.clone();
    t.crash();
    for name in ["alice", "bob", "carol"] {
        t.connect(name);
    }
    for name in ["alice", "bob"] {
        t.device(name).held.insert(old.clone(), before.clone()); // they heard of the new Call alone
    }
    for (name, call) in [
        ("bob", &new),
        ("carol", &new),
        ("alice", &old),
        ("bob", &old),
    ] {
        t.sync(name, call).unwrap();
    }
    t.advance(5_000);
    t.hush();

    t.send_as("alice", &id, "call.transfer", &transfer);
    let state = t.answer_to("alice", &id).unwrap()["state"].clone();
    assert_eq!(state["transfer"]["call"], new);
    assert_eq!(t.heard("carol"), [""; 0], "it rings already");
    t.accept("carol", &new);
    assert_eq!(t.end("alice", &old), "transferred alice");
}

#[test]
fn who_is_missed_in_a_call_is_missed_in_the_one_it_went_into() {
    for comes_back in [true, false] {
        let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
        let first = t.talk("alice", "bob");
        let second = t.talk("alice", "carol");
        t.crash();
        for (name, call) in [("alice", &first), ("alice", &second), ("carol", &second)] {
            t.connect(name);
            t.sync(name, call).unwrap();
        }
        t.advance_alive(6_000);
        let state = t.ok(
            "alice",
            "call.transfer",
            json!({ "call": first, "with": second }),
        )["state"]
            .clone();
        let new = state["end"]["into"].as_str().unwrap().to_owned();

        if comes_back {
            t.connect("bob");
            t.sync("bob", &first).unwrap();
            assert_eq!(t.seen("bob", &new)["phase"], "active");
        }
        t.advance_alive(60_000);
        assert_eq!(
            t.end("carol", &new),
            if comes_back { "- -" } else { "gone bob" }
        );
    }
}

#[test]
fn a_call_that_nobody_brings_back_gets_an_end_in_history() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol", "dave"]);
    let lost = t.invite("alice", "bob");
    let kept = t.talk("carol", "dave");
    t.advance(1);
    t.crash();
    for name in ["bob", "carol", "dave"] {
        t.connect(name);
    }
    for name in ["carol", "dave"] {
        t.sync(name, &kept).unwrap();
    }
    t.hush();

    t.advance_alive(59_000);
    assert_eq!(t.ended_records(), [""; 0]);
    t.advance_alive(2_000);
    assert_eq!(t.ended_records(), ["alice→bob Gone missed"]);
    let news = t.take("bob", "history").unwrap();
    assert_eq!(news["data"]["entry"]["call"], lost);
    assert_eq!(news["data"]["missed"], 3);

    // Whoever brings it back after all decides how it ended.
    t.connect("alice");
    t.sync("alice", &lost).unwrap();
    t.advance_alive(60_000);
    assert_eq!(t.end("alice", &lost), "missed -");
    assert_eq!(t.ended_records().last().unwrap(), "alice→bob Missed missed");
    t.hangup("carol", &kept);
}

#[test]
fn lost_calls_are_looked_for_page_by_page_until_the_records_answer() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    t.invite("alice", "bob");
    let begun = t.records.iter().find_map(|change| match change {
        RecordChange::CallBegun(row) => Some(row.clone()),
        _ => None,
    });
    for number in 1_001..1_250 {
        let mut row = begun.clone().unwrap();
        row.call = CallId::from_u128(number);
        t.records.push(RecordChange::CallBegun(row));
    }
    t.advance(1);
    t.crash();

    t.records_answer = false;
    t.advance(80_000);
    assert_eq!(t.ended_records().len(), 0);
    t.fail_queries();
    t.records_answer = true;
    t.advance(30_000);
    assert_eq!(t.ended_records().len(), 250);
}
