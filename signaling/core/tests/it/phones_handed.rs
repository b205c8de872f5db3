//! Phones that go from one Call to another, or into a Room that others come into.

use model::phone::{PhoneEventKind, PhoneReason};
use serde_json::{Value, json};

use crate::harness::TestSignaling;
use crate::phones::NUMBER;
use crate::rooms::join;

const OTHER: &str = "tel:+33123456789";

/// The Call of a blind transfer, as the transferring side has it.
fn transfer(t: &mut TestSignaling, name: &str, call: &str, to: &str) -> String {
    let state = t.ok(name, "call.transfer", json!({ "call": call, "to": to }))["state"].clone();
    state["transfer"]["call"].as_str().unwrap().to_owned()
}

fn users_in(joined: &Value) -> Vec<String> {
    let all = joined["state"]["participants"].as_array().unwrap();
    all.iter()
        .map(|one| one["user"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_phone_is_handed_to_a_user_who_comes_into_its_room() {
    let mut t = TestSignaling::callers(&["alice", "carol"]);
    let old = t.talk_with_phone("alice", NUMBER);
    let room = t.room_of("alice", &old);
    t.phone_told();
    let new = transfer(&mut t, "alice", &old, "carol");
    assert_eq!(t.rung("carol"), new);
    assert_eq!(t.seen("carol", &new)["caller"]["user"], NUMBER);
    t.accept("carol", &new);

    assert_eq!(t.end("alice", &old), "transferred alice");
    assert!(t.heard("alice").contains(&"room.ended removed".to_owned()));
    assert_eq!(t.room_of("carol", &new), room);
    assert_eq!(users_in(&t.enter_room_of("carol", &new)), [NUMBER, "carol"]);
    assert_eq!(t.refused("alice", "room.join", join(&room)), "room_locked");
    assert_eq!(t.phone_told(), [""; 0], "it stays where it is");
    t.hangup("carol", &new);
    assert_eq!(t.phone_told(), ["hang up 16"]);
    assert_eq!(t.cores[0].counts().rooms, 0);
}

#[test]
fn a_user_is_handed_to_a_number_and_hears_it_ring() {
    let mut t = TestSignaling::callers(&["alice", "bob"]);
    let old = t.talk("alice", "bob");
    let new = transfer(&mut t, "alice", &old, "tel:+49 30 123456");
    assert_eq!(t.phone_told(), ["dial tel:+4930123456 for alice"]);
    assert_eq!(users_in(&t.enter_room_of("bob", &new)), [NUMBER, "bob"]);
    t.phone_says(&new, PhoneEventKind::Answered);
    assert_eq!(t.end("alice", &old), "transferred alice");
    assert_eq!(t.end("bob", &old), "transferred alice");
    t.phone_ends(&new, PhoneReason::Hangup);
    assert_eq!(t.end("bob", &new), "hangup tel:+4930123456");
}

#[test]
fn a_phone_is_handed_to_a_number() {
    let mut t = TestSignaling::callers(&["alice"]);
    let old = t.talk_with_phone("alice", NUMBER);
    t.phone_told();
    let new = transfer(&mut t, "alice", &old, OTHER);
    assert_eq!(t.phone_told(), ["dial tel:+33123456789 for alice"]);
    t.phone_says(&new, PhoneEventKind::Answered);
    assert_eq!(t.end("alice", &old), "transferred alice");
    assert_eq!(t.cores[0].counts().participants, 2, "two phones");

    t.phone_ends(&new, PhoneReason::Hangup);
    assert_eq!(t.phone_told(), ["hang up 16"], "the first one");
    assert_eq!(t.cores[0].counts().phone_calls, 0);
    assert_eq!(t.cores[0].counts().rooms, 0);
}

#[test]
fn a_number_that_does_not_answer_leaves_the_old_call() {
    let mut t = TestSignaling::callers(&["alice"]);
    let old = t.talk_with_phone("alice", NUMBER);
    let new = transfer(&mut t, "alice", &old, OTHER);
    t.phone_told();
    t.phone_ends(&new, PhoneReason::Busy);
    let state = t.seen("alice", &old);
    assert_eq!(
        (&state["phase"], &state["transfer"]),
        (&json!("active"), &Value::Null)
    );
    assert_eq!(t.phone_told(), [""; 0]);
    assert_eq!(
        t.cores[0].counts().participants,
        2,
        "alice and the first phone"
    );
}

#[test]
fn who_transfers_may_hang_up_while_the_number_rings() {
    let mut t = TestSignaling::callers(&["alice"]);
    let old = t.talk_with_phone("alice", NUMBER);
    let new = transfer(&mut t, "alice", &old, OTHER);
    t.phone_told();
    t.hangup("alice", &old);
    assert_eq!(t.phone_told(), [""; 0], "both phones go on");
    assert_eq!(t.seen("alice", &old)["end"]["into"], new);
    t.phone_ends(&new, PhoneReason::NoAnswer);
    assert_eq!(t.phone_told(), ["hang up 19"], "nobody is left to talk to");
    assert_eq!(t.cores[0].counts().phone_calls, 0);
}

#[test]
fn a_phone_that_goes_meanwhile_ends_its_transfer() {
    let mut t = TestSignaling::callers(&["alice"]);
    let old = t.talk_with_phone("alice", NUMBER);
    transfer(&mut t, "alice", &old, OTHER);
    t.phone_told();
    t.phone_ends(&old, PhoneReason::Hangup);
    assert_eq!(t.end("alice", &old), "hangup tel:+4930123456");
    assert_eq!(t.phone_told(), ["hang up 16"]);
    assert_eq!(t.cores[0].counts().phone_calls, 0);
}

#[test]
fn two_phones_are_connected() {
    let mut t = TestSignaling::callers(&["alice"]);
    let one = t.talk_with_phone("alice", NUMBER);
    let two = t.talk_with_phone("alice", OTHER);
    t.phone_told();
    t.ok(
        "alice",
        "call.transfer",
        json!({ "call": one, "with": two }),
    );
    assert_eq!(t.end("alice", &one), "transferred alice");
    assert_eq!(t.end("alice", &two), "transferred alice");
    assert_eq!(t.phone_told(), ["move"]);
    let counts = t.cores[0].counts();
    assert_eq!(
        (counts.phone_calls, counts.participants, counts.rooms),
        (2, 2, 1)
    );
    t.phone_ends(&two, PhoneReason::Hangup);
    assert_eq!(t.phone_told(), ["hang up 16"]);
    assert_eq!(t.cores[0].counts().rooms, 0);
}

#[test]
fn a_user_and_a_phone_are_connected() {
    for user_first in [true, false] {
        let mut t = TestSignaling::callers(&["alice", "bob"]);
        let with_bob = t.talk("alice", "bob");
        let with_phone = t.talk_with_phone("alice", NUMBER);
        t.phone_told();
        let (call, with) = if user_first {
            (&with_bob, &with_phone)
        } else {
            (&with_phone, &with_bob)
        };
        t.ok(
            "alice",
            "call.transfer",
            json!({ "call": call, "with": with }),
        );
        let new = t.seen("bob", &with_bob)["end"]["into"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(users_in(&t.enter_room_of("bob", &new)), [NUMBER, "bob"]);
        assert_eq!(t.phone_told(), [""; 0]);
        t.hangup("bob", &new);
        assert_eq!(t.phone_told(), ["hang up 16"]);
    }
}

#[test]
fn who_may_not_call_phones_may_not_transfer_to_them() {
    let mut t = TestSignaling::callers(&["alice"]);
    t.connect("bob");
    let call = t.talk("alice", "bob");
    let to = json!({ "call": call, "to": NUMBER });
    assert_eq!(t.refused("bob", "call.transfer", to), "forbidden");
    let to = json!({ "call": call, "to": "tel:x" });
    assert_eq!(t.refused("alice", "call.transfer", to), "bad_data");
    assert_eq!(t.cores[0].counts().rooms, 0);
}

#[test]
fn a_phone_call_grows_into_a_room_and_the_phone_stays_while_people_are_there() {
    let mut t = TestSignaling::callers(&["alice", "bob"]);
    let call = t.talk_with_phone("alice", NUMBER);
    let room = t.room_of("alice", &call);
    t.phone_told();
    let id = t.send("alice", "call.upgrade", json!({ "call": call }));
    assert_eq!(t.answer_to("alice", &id).unwrap()["room"], room);
    assert_eq!(t.end("alice", &call), "upgraded alice");
    t.send_as("alice", &id, "call.upgrade", &json!({ "call": call }));
    assert_eq!(t.answer_to("alice", &id).unwrap()["room"], room);

    let id = t.everybody_in(&room);
    t.ok("alice", "room.invite", json!({ "room": id, "user": "bob" }));
    t.ok("bob", "room.join", join(&room));
    t.ok("alice", "room.invite", json!({ "room": id, "user": OTHER }));
    assert_eq!(t.phone_told(), ["dial tel:+33123456789 for alice"]);
    assert_eq!(t.cores[0].counts().participants, 4);
    t.ok("alice", "room.leave", json!({ "room": id }));
    assert_eq!(t.phone_told(), [""; 0]);
    t.ok("bob", "room.leave", json!({ "room": id }));
    assert_eq!(t.phone_told(), ["hang up 16", "hang up 16"]);
    assert_eq!(t.cores[0].counts().phone_calls, 0);
    t.advance_alive(61_000);
    assert_eq!(t.cores[0].counts().rooms, 0);
}

#[test]
fn a_moderator_removes_a_phone_which_is_hung_up() {
    let mut t = TestSignaling::callers(&["alice", "bob"]);
    let joined = t.ok("alice", "room.join", join("weekly"));
    let room = joined["state"]["room"].clone();
    t.ok("bob", "room.join", join("weekly"));
    let invite = json!({ "room": room, "user": NUMBER });
    assert_eq!(t.refused("bob", "room.invite", invite.clone()), "forbidden");
    t.ok("alice", "room.invite", invite.clone());
    assert_eq!(t.refused("alice", "room.invite", invite), "self_call");
    t.phone_told();
    let news = t.take("bob", "room.participant").unwrap();
    let phone = news["data"]["participant"]["participant"].clone();
    t.ok(
        "alice",
        "room.remove",
        json!({ "room": room, "participant": phone }),
    );
    assert_eq!(t.phone_told(), ["hang up 16"]);
}

#[test]
fn why_a_phone_does_not_come_into_a_room_is_told_there() {
    let mut t = TestSignaling::callers(&["alice"]);
    let joined = t.ok("alice", "room.join", join("weekly"));
    let room = joined["state"]["room"].clone();
    t.ok(
        "alice",
        "room.invite",
        json!({ "room": room, "user": NUMBER }),
    );
    let call = t.phone.last().unwrap().call.to_string();
    t.phone_ends(&call, PhoneReason::Busy);
    let left = t.take("alice", "room.left").unwrap();
    assert_eq!(
        (&left["data"]["reason"], &left["data"]["phone"]),
        (&json!("left"), &json!("busy"))
    );
}

#[test]
fn who_mutes_a_phone_takes_it_back_since_the_phone_can_not() {
    let mut t = TestSignaling::callers(&["alice", "bob"]);
    let joined = t.ok("alice", "room.join", join("weekly"));
    let room = joined["state"]["room"].clone();
    t.ok("bob", "room.join", join("weekly"));
    t.ok(
        "alice",
        "room.invite",
        json!({ "room": room, "user": NUMBER }),
    );
    let phone = t.take("bob", "room.participant").unwrap();
    let track = phone["data"]["participant"]["tracks"][0]["track"].clone();
    let mute = |muted: bool| json!({ "room": room, "track": track, "muted": muted });
    assert_eq!(t.refused("bob", "room.mute", mute(true)), "forbidden");
    for muted in [true, false] {
        t.ok("alice", "room.mute", mute(muted));
        let news = t.take("bob", "room.participant").unwrap();
        let told = &news["data"]["participant"]["tracks"][0]["muted"];
        assert_eq!(*told, muted);
    }
    assert_eq!(t.refused("bob", "room.mute", mute(false)), "forbidden");
}

#[test]
fn no_phone_comes_into_an_encrypted_room() {
    let mut t = TestSignaling::callers(&["alice"]);
    let mut encrypted = join("secret");
    encrypted["encrypted"] = json!(true);
    encrypted["settings"] = json!({ "encrypted": true });
    let room = t.ok("alice", "room.join", encrypted)["state"]["room"].clone();
    let invite = json!({ "room": room, "user": NUMBER });
    assert_eq!(t.refused("alice", "room.invite", invite), "room_encrypted");
    assert_eq!(t.phone_told(), [""; 0]);
}

impl TestSignaling {
    /// The id of the Room of this name, of which there is one.
    fn everybody_in(&mut self, name: &str) -> String {
        let joined = self.ok("alice", "room.join", join(name));
        joined["state"]["room"].as_str().unwrap().to_owned()
    }
}
