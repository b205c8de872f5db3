//! Calls that go on in Rooms, and Rooms that go on as Calls.

use serde_json::{Value, json};

use crate::harness::{TestSignaling, offer};
use crate::rooms::join;

/// A Room that goes on as a Call, with these Devices in it.
fn meeting(names: &[&str]) -> (TestSignaling, String) {
    let mut t = TestSignaling::people(names);
    let mut room = Value::Null;
    for name in names {
        let mut join = join("weekly");
        join["settings"] = json!({ "back_to_call": true });
        room = t.ok(name, "room.join", join)["state"]["room"].clone();
        t.advance(1);
    }
    t.hush();
    t.media.clear();
    (t, room.as_str().unwrap().to_owned())
}

/// The id of the Call a Device was told that it takes part in, if it was.
fn created(t: &mut TestSignaling, name: &str) -> Option<String> {
    let update = t.take(name, "call.update")?;
    assert_eq!(update["data"]["event"], "created", "{update}");
    Some(update["data"]["state"]["call"].as_str().unwrap().to_owned())
}

fn moved(t: &mut TestSignaling, name: &str, call: &str, to: &str) {
    t.ok(name, "call.moved", json!({ "call": call, "to": to }));
}

#[test]
fn a_call_goes_on_in_a_room_and_ends_once_both_hear_each_other_there() {
    let mut t = TestSignaling::people(&["alice", "alice2", "bob"]);
    let call = t.talk("alice", "bob");
    t.hush();
    let upgrade = json!({ "call": call });
    let room = t.ok("bob", "call.upgrade", upgrade.clone())["room"].clone();
    let told = t.take("alice", "call.upgraded").unwrap();
    assert_eq!(told["data"]["room"], room);
    assert_eq!(told["data"]["by"], "bob");
    assert!(t.heard("alice2").is_empty(), "that Device takes no part");
    assert_eq!(t.ok("bob", "call.upgrade", upgrade)["room"], room);

    let name = room.as_str().unwrap();
    for device in ["bob", "alice"] {
        t.ok(device, "room.join", join(name));
    }
    moved(&mut t, "bob", &call, "room");
    moved(&mut t, "bob", &call, "room");
    assert_eq!(
        t.seen("bob", &call)["phase"],
        "active",
        "Alice does not hear Bob there yet"
    );
    moved(&mut t, "alice", &call, "room");
    assert_eq!(t.end("bob", &call), "upgraded -");
    assert_eq!(t.seen("alice", &call)["end"]["room"], name);
    assert_eq!(t.ended_records(), ["alice→bob Upgraded"]);
    assert_eq!(
        t.refused("bob", "call.upgrade", json!({ "call": call })),
        "wrong_phase"
    );
}

#[test]
fn who_takes_no_part_moves_nothing() {
    let mut t = TestSignaling::people(&["alice", "alice2", "bob", "carol"]);
    let call = t.talk("alice", "bob");
    for device in ["alice2", "carol"] {
        for (kind, data) in [
            ("call.upgrade", json!({ "call": call })),
            ("call.moved", json!({ "call": call, "to": "room" })),
        ] {
            assert_eq!(t.refused(device, kind, data), "not_a_party");
        }
    }
}

#[test]
fn who_may_begin_no_room_takes_no_call_there() {
    let mut t = TestSignaling::new();
    t.device("bob").room_grants.create = false;
    t.connect("alice");
    t.connect("bob");
    let call = t.talk("alice", "bob");
    let upgrade = json!({ "call": call });
    assert_eq!(
        t.refused("bob", "call.upgrade", upgrade.clone()),
        "forbidden"
    );
    let now = t.now;
    t.cores[0].handle_media_available(now, false);
    assert_eq!(t.refused("alice", "call.upgrade", upgrade), "media_refused");
}

#[test]
fn a_call_that_is_being_transferred_goes_nowhere_else() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
    let call = t.talk("alice", "bob");
    t.ok(
        "alice",
        "call.transfer",
        json!({ "call": call, "to": "carol" }),
    );
    assert_eq!(
        t.refused("bob", "call.upgrade", json!({ "call": call })),
        "wrong_phase"
    );
}

#[test]
fn two_who_are_left_go_on_as_a_call_which_the_first_of_them_makes() {
    let (mut t, room) = meeting(&["alice", "bob", "carol"]);
    t.ok("alice", "room.leave", json!({ "room": room }));
    let call = created(&mut t, "bob").expect("a call for who is left");
    assert_eq!(created(&mut t, "carol"), Some(call.clone()));
    assert_eq!(created(&mut t, "alice"), None);
    let state = t.seen("carol", &call);
    assert_eq!(state["phase"], "active");
    assert_eq!(state["from_room"], "weekly");
    assert_eq!(state["caller"]["user"], "bob", "who has been there longer");
    assert_eq!(state["caller"]["name"], "BOB");
    assert_eq!(state["media"]["video"], true);
    t.hush();

    // They connect while the Room carries their media.
    t.ok("bob", "sdp.offer", offer(&call, 1));
    assert!(t.take("carol", "sdp.offer").is_some());
    t.ok("carol", "sdp.answer", offer(&call, 1));
    moved(&mut t, "carol", &call, "call");
    assert!(t.take("carol", "room.ended").is_none());
    moved(&mut t, "bob", &call, "call");
    for device in ["bob", "carol"] {
        let ended = t.take(device, "room.ended").unwrap();
        assert_eq!(ended["data"]["reason"], "call");
        assert_eq!(t.seen(device, &call)["phase"], "active");
    }
    assert_eq!(t.told(), ["leave", "permit speak+video+share", "end"]);
    assert_eq!(
        t.refused("bob", "room.leave", json!({ "room": "x" })),
        "bad_data"
    );

    // And once more the other way, into the Room whose link people have.
    assert_eq!(
        t.ok("carol", "call.upgrade", json!({ "call": call }))["room"],
        "weekly"
    );
}

#[test]
fn two_who_were_never_more_stay_in_their_room() {
    let (mut t, room) = meeting(&["alice", "bob"]);
    t.advance(60_000);
    assert_eq!(created(&mut t, "alice"), None);
    t.connect("carol");
    t.join("carol");
    t.hush();
    t.ok("carol", "room.leave", json!({ "room": room }));
    assert!(created(&mut t, "alice").is_some());
}

#[test]
fn a_room_goes_on_where_nobody_wished_for_a_call() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob", "carol"]);
    t.ok("carol", "room.leave", json!({ "room": room }));
    assert_eq!(created(&mut t, "alice"), None);
    // Until a moderator does.
    t.ok(
        "alice",
        "room.set",
        json!({ "room": room, "back_to_call": true }),
    );
    assert!(created(&mut t, "alice").is_some());
}

#[test]
fn while_a_screen_is_shared_or_somebody_waits_nobody_goes_back() {
    let (mut t, room) = meeting(&["alice", "bob", "carol"]);
    let mut screen = join("weekly");
    screen["room"] = json!(room);
    screen["generation"] = json!(2);
    let shared =
        json!([{ "mid": "0", "source": "microphone" }, { "mid": "1", "source": "screen" }]);
    screen["tracks"] = shared;
    t.ok("bob", "room.offer", screen.clone());
    t.ok("carol", "room.leave", json!({ "room": room }));
    assert_eq!(created(&mut t, "alice"), None, "a call has one picture");

    screen["generation"] = json!(3);
    screen["tracks"] = join("weekly")["tracks"].clone();
    t.ok("bob", "room.offer", screen);
    assert!(created(&mut t, "alice").is_some());

    let (mut t, room) = meeting(&["alice", "bob", "carol"]);
    t.device("gus").room_grants.guest = true;
    t.connect("gus");
    t.ok("alice", "room.set", json!({ "room": room, "lobby": true }));
    assert_eq!(t.ok("gus", "room.join", join("weekly"))["waiting"], true);
    t.ok("carol", "room.leave", json!({ "room": room }));
    assert_eq!(created(&mut t, "alice"), None, "somebody is at the door");
    t.ok("gus", "room.leave", json!({ "room": room }));
    assert!(created(&mut t, "alice").is_some());
}

#[test]
fn two_devices_of_one_user_make_no_call() {
    let (mut t, room) = meeting(&["alice", "alice2", "bob"]);
    t.ok("bob", "room.leave", json!({ "room": room }));
    assert_eq!(created(&mut t, "alice"), None);
}

#[test]
fn who_is_away_for_a_moment_is_waited_for() {
    let (mut t, room) = meeting(&["alice", "bob", "carol"]);
    t.disconnect("bob");
    t.ok("carol", "room.leave", json!({ "room": room }));
    assert_eq!(created(&mut t, "alice"), None);
    t.connect("bob");
    assert!(created(&mut t, "alice").is_some());
}

#[test]
fn who_finds_no_way_stays_in_the_room() {
    let (mut t, room) = meeting(&["alice", "bob", "carol"]);
    t.ok("carol", "room.leave", json!({ "room": room }));
    let call = created(&mut t, "alice").unwrap();
    moved(&mut t, "alice", &call, "call");
    t.advance_alive(19_000);
    assert_eq!(t.seen("alice", &call)["phase"], "active");
    t.advance_alive(2_000);
    assert_eq!(t.end("alice", &call), "failed -");
    assert_eq!(t.everybody(&room).len(), 2);
    t.hush();
    t.advance_alive(60_000);
    assert_eq!(created(&mut t, "alice"), None, "it is not tried again");
}

#[test]
fn who_comes_in_meanwhile_keeps_the_room_and_the_call_ends() {
    let (mut t, room) = meeting(&["alice", "bob", "carol"]);
    t.ok("carol", "room.leave", json!({ "room": room }));
    let call = created(&mut t, "alice").unwrap();
    moved(&mut t, "alice", &call, "call");
    t.connect("dave");
    t.join("dave");
    for device in ["alice", "bob"] {
        assert_eq!(t.end(device, &call), "upgraded -");
        assert_eq!(t.seen(device, &call)["end"]["room"], "weekly");
    }
    assert_eq!(t.everybody(&room).len(), 3);

    // And when two are left again, they try again.
    t.hush();
    t.ok("dave", "room.leave", json!({ "room": room }));
    assert!(created(&mut t, "bob").is_some());
}

#[test]
fn who_leaves_meanwhile_takes_the_call_along() {
    let (mut t, room) = meeting(&["alice", "bob", "carol"]);
    t.ok("carol", "room.leave", json!({ "room": room }));
    let call = created(&mut t, "alice").unwrap();
    t.ok("bob", "room.leave", json!({ "room": room }));
    assert_eq!(t.end("alice", &call), "gone -");
    assert_eq!(t.everybody(&room).len(), 1);
}

#[test]
fn over_a_crash_both_ways_come_to_their_end() {
    let (mut t, room) = meeting(&["alice", "bob", "carol"]);
    t.ok("carol", "room.leave", json!({ "room": room }));
    let call = created(&mut t, "alice").unwrap();
    t.crash();
    for device in ["alice", "bob"] {
        t.connect(device);
        t.sync(device, &call).unwrap();
        t.join(device);
    }
    for device in ["alice", "bob"] {
        moved(&mut t, device, &call, "call");
    }
    assert_eq!(
        t.take("alice", "room.ended").unwrap()["data"]["reason"],
        "call"
    );
    assert_eq!(t.seen("alice", &call)["phase"], "active");

    t.ok("bob", "call.upgrade", json!({ "call": call }));
    t.crash();
    for device in ["alice", "bob"] {
        t.connect(device);
        t.sync(device, &call).unwrap();
        t.join(device);
    }
    for device in ["alice", "bob"] {
        moved(&mut t, device, &call, "room");
    }
    assert_eq!(t.end("alice", &call), "upgraded -");
}

#[test]
fn nobody_makes_a_call_with_an_encoder() {
    let (mut t, room) = meeting(&["alice", "bob"]);
    t.device("camera").attended = false;
    t.connect("camera");
    t.ok("camera", "room.join", join("weekly"));
    t.ok("bob", "room.leave", json!({ "room": room }));
    assert_eq!(created(&mut t, "alice"), None);

    t.ok("bob", "room.join", join("weekly"));
    t.ok("camera", "room.leave", json!({ "room": room }));
    assert!(created(&mut t, "alice").is_some());
}
