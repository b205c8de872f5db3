//! Lobby, lock, roles, muting, and what people in a Room tell one another.

use model::RoomGrants;
use serde_json::{Value, json};
use signaling_core::Limits;

use crate::harness::TestSignaling;
use crate::rooms::join;

/// Alice moderates a Room with a lobby; guests by these names stand before it.
fn lobby(guests: &[&str]) -> (TestSignaling, String) {
    let mut t = TestSignaling::people(&["alice"]);
    let mut begin = join("weekly");
    begin["settings"] = json!({ "lobby": true });
    let room = t.ok("alice", "room.join", begin)["state"]["room"].clone();
    for name in guests {
        t.advance(1);
        guest(&mut t, name);
        t.ok(name, "room.join", join("weekly"));
    }
    (t, room.as_str().unwrap().to_owned())
}

fn guest(t: &mut TestSignaling, name: &str) {
    t.device(name).room_grants = RoomGrants {
        create: false,
        guest: true,
        ..RoomGrants::default()
    };
    t.connect(name);
}

/// The ids of those who wait, as the moderator was told last.
fn waiting(t: &mut TestSignaling, moderator: &str) -> Vec<Value> {
    let mut waiting = Vec::new();
    while let Some(news) = t.take(moderator, "room.lobby") {
        waiting = news["data"]["waiting"].as_array().unwrap().clone();
    }
    waiting.iter().map(|one| one["waiting"].clone()).collect()
}

#[test]
fn guests_wait_until_a_moderator_admits_them() {
    let (mut t, room) = lobby(&["gina", "hugo"]);
    assert_eq!(
        t.told(),
        ["join speak+video+share 2"],
        "the SFU knows of no guest"
    );
    t.ok("gina", "room.join", join("weekly")); // again: she keeps her place
    let ids = waiting(&mut t, "alice");
    assert_eq!(ids.len(), 2);

    let admit = json!({ "room": room, "waiting": [ids[0]], "admit": true });
    t.ok("alice", "room.admit", admit.clone());
    assert_eq!(t.heard("gina"), ["room.admitted"]);
    assert_eq!(t.join("gina")["role"], "speaker");
    assert_eq!(
        t.heard("alice"),
        [
            "room.lobby hugo",
            "room.participant gina speaker microphone camera"
        ]
    );
    t.ok("alice", "room.admit", admit);
    assert!(t.heard("hugo").is_empty());
}

#[test]
fn who_is_denied_hears_it_and_waits_before_asking_again() {
    let (mut t, room) = lobby(&["gina"]);
    let ids = waiting(&mut t, "alice");
    t.ok(
        "alice",
        "room.admit",
        json!({ "room": room, "waiting": ids, "admit": false }),
    );
    assert_eq!(t.heard("gina"), ["room.denied denied"]);
    assert_eq!(
        t.refused("gina", "room.join", join("weekly")),
        "lobby_denied"
    );

    t.advance_alive(60_000);
    assert_eq!(t.ok("gina", "room.join", join("weekly"))["waiting"], true);
}

#[test]
fn a_lobby_that_is_given_up_lets_all_guests_in() {
    let (mut t, room) = lobby(&["gina", "hugo"]);
    t.hush();
    let ok = t.ok("alice", "room.set", json!({ "room": room, "lobby": false }));
    assert_eq!(ok["settings"]["lobby"], false);
    assert_eq!(t.heard("gina"), ["room.admitted"]);
    assert_eq!(t.heard("hugo"), ["room.admitted"]);
    assert_eq!(t.heard("alice"), ["room.settings", "room.lobby"]);
}

#[test]
fn who_leaves_the_lobby_waits_no_more() {
    let (mut t, room) = lobby(&["gina", "hugo"]);
    t.hush();
    t.ok("gina", "room.leave", json!({ "room": room }));
    assert_eq!(t.heard("alice"), ["room.lobby hugo"]);
    t.forget("hugo");
    t.connect("hugo");
    assert_eq!(t.heard("alice"), ["room.lobby"]);
    assert_eq!(t.cores[0].counts().waiting, 0);
}

#[test]
fn a_lobby_has_a_limit() {
    let mut t = TestSignaling::with_limits(Limits {
        waiting_per_room_max: 1,
        ..Limits::default()
    });
    t.connect("alice");
    let mut begin = join("weekly");
    begin["settings"] = json!({ "lobby": true });
    t.ok("alice", "room.join", begin);
    guest(&mut t, "gina");
    guest(&mut t, "hugo");
    t.ok("gina", "room.join", join("weekly"));
    assert_eq!(t.refused("hugo", "room.join", join("weekly")), "room_full");
}

#[test]
fn the_lobby_ends_with_its_room() {
    let (mut t, room) = lobby(&["gina"]);
    t.ok("alice", "room.end", json!({ "room": room }));
    assert_eq!(t.heard("gina"), ["room.denied ended"]);
    assert_eq!(t.told(), ["join speak+video+share 2", "end"]);
    assert_eq!(
        t.refused("gina", "room.join", join("weekly")),
        "unknown_room"
    );
}

#[test]
fn a_locked_room_takes_back_who_was_there_and_nobody_else() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    t.connect("carol");
    t.ok("alice", "room.set", json!({ "room": room, "locked": true }));
    assert_eq!(
        t.refused("carol", "room.join", join("weekly")),
        "room_locked"
    );
    t.ok("bob", "room.leave", json!({ "room": room }));
    assert_eq!(t.join("bob")["state"]["settings"]["locked"], true);
}

#[test]
fn who_is_removed_has_to_be_let_in_again() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob", "carol"]);
    let bob = t.participant("bob", &room);
    t.ok(
        "alice",
        "room.remove",
        json!({ "room": room, "participant": bob }),
    );
    assert_eq!(t.heard("bob"), ["room.ended removed"]);
    assert_eq!(t.heard("carol"), ["room.left removed"]);
    assert_eq!(t.told(), ["leave"]);

    assert_eq!(t.ok("bob", "room.join", join("weekly"))["waiting"], true);
    t.ok("alice", "room.set", json!({ "room": room, "lobby": true }));
    t.ok("alice", "room.set", json!({ "room": room, "lobby": false }));
    assert!(t.heard("bob").is_empty(), "a lobby less is not for them");
    let ids = waiting(&mut t, "alice");
    t.ok(
        "alice",
        "room.admit",
        json!({ "room": room, "waiting": ids, "admit": true }),
    );
    assert_eq!(t.join("bob")["role"], "speaker");
}

#[test]
fn who_is_removed_is_not_let_in_by_another_device_that_leaves() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let bob = t.participant("bob", &room);
    t.connect("bob2");
    t.join("bob2");
    let remove = json!({ "room": room, "participant": bob });
    t.ok("alice", "room.remove", remove);
    t.ok("bob2", "room.leave", json!({ "room": room }));

    assert_eq!(t.ok("bob", "room.join", join("weekly"))["waiting"], true);
    t.ok("bob", "room.leave", json!({ "room": room }));
    t.ok("alice", "room.set", json!({ "room": room, "locked": true }));
    assert_eq!(t.refused("bob", "room.join", join("weekly")), "room_locked");
}

#[test]
fn what_a_moderator_took_stays_taken() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let bob = t.participant("bob", &room);
    let permissions = json!({ "speak": false, "video": true, "share": true, "moderate": false });
    let silence = json!({ "room": room, "participant": bob, "permissions": permissions });
    t.ok("alice", "room.role", silence);
    t.hush();

    let again = t.ok("bob", "room.join", join("weekly"));
    let people = again["state"]["participants"].as_array().unwrap();
    let bob = people.iter().find(|one| one["user"] == "bob").unwrap();
    assert_eq!(bob["permissions"]["speak"], false);
    assert_eq!(bob["permissions"]["video"], true);
    assert_eq!(t.told().last().unwrap(), "join video+share 1");
}

#[test]
fn a_guest_who_begins_a_room_moderates_nothing() {
    let mut t = TestSignaling::people(&["alice"]);
    t.device("gina").room_grants = RoomGrants {
        guest: true,
        ..RoomGrants::default()
    };
    t.connect("gina");

    assert_eq!(t.join("gina")["role"], "speaker");
    assert_eq!(t.join("alice")["role"], "moderator");
}

#[test]
fn all_together_write_no_more_than_the_slowest_can_take() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob", "carol", "dora"]);
    let text = "x".repeat(4_000);
    let mut written = 0;
    let mut refused = 0;
    for name in ["alice", "bob", "carol"] {
        for _ in 0..40 {
            let command = t.send(name, "room.chat", json!({ "room": room, "text": text }));
            match t.answer_to(name, &command) {
                Ok(_) => written += text.len(),
                Err(error) => {
                    assert_eq!(error["code"], "rate_limited");
                    refused += 1;
                }
            }
        }
    }
    assert!(
        refused > 0 && written > 100_000 && written < 200_000,
        "{written}"
    );
    t.ok("dora", "room.hand", json!({ "room": room, "up": true }));
}

#[test]
fn only_moderators_moderate() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob", "carol"]);
    let (alice, carol) = (t.participant("alice", &room), t.participant("carol", &room));
    let voice = t.track("carol", &room, "microphone");
    let mut check = |kind: &str, mut data: Value| {
        data["room"] = room.clone().into();
        assert_eq!(t.refused("bob", kind, data), "forbidden", "{kind}");
    };

    check("room.set", json!({ "locked": true }));
    check("room.admit", json!({ "waiting": [], "admit": true }));
    check(
        "room.role",
        json!({ "participant": carol, "role": "listener" }),
    );
    check("room.remove", json!({ "participant": alice }));
    check("room.mute", json!({ "track": voice, "muted": true }));
    check("room.end", json!({}));
    assert!(t.heard("carol").is_empty());
    assert!(t.told().is_empty());
}

#[test]
fn a_moderator_mutes_and_only_the_owner_unmutes() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob", "carol"]);
    let voice = t.track("bob", &room, "microphone");
    let mute = |muted: bool| json!({ "room": room, "track": voice, "muted": muted });
    t.ok("alice", "room.mute", mute(true));
    assert_eq!(
        t.heard("bob"),
        [
            "room.muted",
            "room.participant bob speaker microphone (muted) camera"
        ]
    );
    assert_eq!(t.refused("alice", "room.mute", mute(false)), "forbidden");
    t.ok("bob", "room.mute", mute(true)); // it is already
    t.ok("bob", "room.mute", mute(false));

    assert_eq!(t.told(), ["mute true", "mute false"]);
    assert_eq!(
        t.heard("carol"),
        [
            "room.participant bob speaker microphone (muted) camera",
            "room.participant bob speaker microphone camera"
        ]
    );
}

#[test]
fn a_listener_falls_silent_and_stays_so() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let bob = t.participant("bob", &room);
    let voice = t.track("bob", &room, "microphone");
    t.ok(
        "alice",
        "room.role",
        json!({ "room": room, "participant": bob, "role": "listener" }),
    );
    assert_eq!(t.told(), ["permit ", "mute true", "mute true"]);
    assert_eq!(
        t.heard("bob"),
        ["room.participant bob listener microphone (muted) camera (muted)"]
    );
    let unmute = json!({ "room": room, "track": voice, "muted": false });
    assert_eq!(t.refused("bob", "room.mute", unmute), "forbidden");

    let mut offer = join("weekly");
    offer["room"] = room.clone().into();
    offer["generation"] = 2.into();
    assert_eq!(t.ok("bob", "room.offer", offer)["tracks"], json!([]));
    assert_eq!(t.told(), ["offer 2 0"], "nothing of it may be sent");

    t.ok("bob", "room.leave", json!({ "room": room }));
    assert_eq!(t.join("bob")["role"], "listener", "not by coming again");
}

#[test]
fn permissions_can_be_others_than_the_roles() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let bob = t.participant("bob", &room);
    let permissions = json!({ "speak": true, "video": false, "share": false, "moderate": true });
    t.ok(
        "alice",
        "room.role",
        json!({ "room": room, "participant": bob, "permissions": permissions }),
    );
    assert_eq!(t.told(), ["permit speak", "mute true"]);
    t.ok("bob", "room.set", json!({ "room": room, "locked": true }));
}

#[test]
fn a_room_keeps_a_moderator() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let (alice, bob) = (t.participant("alice", &room), t.participant("bob", &room));
    let role = |who: &str, role: &str| json!({ "room": room, "participant": who, "role": role });
    assert_eq!(
        t.refused("alice", "room.role", role(&alice, "speaker")),
        "forbidden"
    );
    t.ok("alice", "room.role", role(&bob, "moderator"));
    t.ok("bob", "room.role", role(&alice, "speaker"));
    t.ok("bob", "room.leave", json!({ "room": room }));
    assert_eq!(
        t.heard("alice").last().unwrap(),
        "room.participant alice moderator microphone camera"
    );
}

#[test]
fn the_user_who_is_there_the_longest_takes_over_and_never_a_guest() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
    let room = t.join("alice")["state"]["room"]
        .as_str()
        .unwrap()
        .to_owned();
    guest(&mut t, "gina");
    for name in ["gina", "bob", "carol"] {
        t.advance(1);
        t.join(name);
    }
    t.hush();
    t.ok("alice", "room.leave", json!({ "room": room }));
    assert_eq!(
        t.heard("gina"),
        [
            "room.left left",
            "room.participant bob moderator microphone camera"
        ]
    );

    t.ok("bob", "room.leave", json!({ "room": room }));
    t.ok("carol", "room.leave", json!({ "room": room }));
    t.hush();
    assert_eq!(t.join("carol")["role"], "moderator", "guests are alone");
}

#[test]
fn somebody_who_joins_while_the_last_moderator_leaves_takes_over() {
    let (mut t, room) = TestSignaling::room(&["alice"]);
    t.connect("bob");
    t.media_answers = false;
    let command = t.send("bob", "room.join", join("weekly"));
    t.ok("alice", "room.leave", json!({ "room": room }));
    let answer = crate::harness::answer_of(&t.media[0]).unwrap();
    t.media_says(answer);
    assert_eq!(t.answer_to("bob", &command).unwrap()["role"], "speaker");
    assert_eq!(
        t.heard("bob"),
        ["room.participant bob moderator microphone camera"]
    );
}

#[test]
fn a_new_moderator_hears_who_waits() {
    let (mut t, room) = lobby(&["gina"]);
    t.connect("bob");
    t.join("bob");
    let bob = t.participant("bob", &room);
    t.ok(
        "alice",
        "room.role",
        json!({ "room": room, "participant": bob, "role": "moderator" }),
    );
    assert_eq!(
        t.heard("bob"),
        [
            "room.participant bob moderator microphone camera",
            "room.lobby gina"
        ]
    );
}

#[test]
fn who_comes_late_reads_what_was_written_to_all() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob", "carol"]);
    let carol = t.participant("carol", &room);
    let sent = t.ok(
        "alice",
        "room.chat",
        json!({ "room": room, "text": "hello\nall" }),
    );
    t.ok(
        "alice",
        "room.chat",
        json!({ "room": room, "text": "psst", "to": [carol] }),
    );
    assert_eq!(t.heard("bob"), ["room.chat hello\nall"]);
    assert_eq!(t.heard("carol"), ["room.chat hello\nall", "room.chat psst"]);
    assert!(t.heard("alice").is_empty());

    t.connect("dave");
    let chat = t.join("dave")["chat"].clone();
    assert_eq!(chat.as_array().unwrap().len(), 1);
    assert_eq!(
        (&chat[0]["id"], &chat[0]["from"]["name"]),
        (&sent["id"], &json!("ALICE"))
    );
}

#[test]
fn a_private_message_to_nobody_here_is_refused() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let bob = t.participant("bob", &room);
    t.ok("bob", "room.leave", json!({ "room": room }));
    let chat = json!({ "room": room, "text": "psst", "to": [bob] });
    assert_eq!(t.refused("alice", "room.chat", chat), "not_in_room");
}

#[test]
fn the_history_of_what_was_written_is_bounded() {
    let limits = Limits {
        room_events_burst: 10_000,
        commands_burst: 10_000,
        ..Limits::default()
    };
    let mut t = TestSignaling::with_limits(limits);
    t.connect("alice");
    t.connect("bob");
    let room = t.join("alice")["state"]["room"].clone();
    for number in 0..250 {
        t.ok(
            "alice",
            "room.chat",
            json!({ "room": room, "text": number.to_string() }),
        );
    }
    let chat = t.join("bob")["chat"].clone();
    assert_eq!(chat.as_array().unwrap().len(), 200);
    assert_eq!(chat[0]["text"], "50");

    for _ in 0..10 {
        t.ok(
            "alice",
            "room.chat",
            json!({ "room": room, "text": "x".repeat(4_096) }),
        );
    }
    assert_eq!(t.join("bob")["chat"].as_array().unwrap().len(), 6);
}

#[test]
fn what_is_sent_again_is_written_once() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let chat = json!({ "room": room, "text": "once" });
    let command = t.send("alice", "room.chat", chat.clone());
    let first = t.answer_to("alice", &command).unwrap();
    t.send_as("alice", &command, "room.chat", &chat);
    assert_eq!(t.answer_to("alice", &command).unwrap(), first);
    assert_eq!(t.heard("bob"), ["room.chat once"]);
}

#[test]
fn a_moderator_lowers_hands_and_raises_none() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob", "carol"]);
    let bob = t.participant("bob", &room);
    let hand = |up: bool, whose: &str| json!({ "room": room, "up": up, "participant": whose });
    t.ok("bob", "room.hand", json!({ "room": room, "up": true }));
    t.hush();

    assert_eq!(
        t.refused("carol", "room.hand", hand(false, &bob)),
        "forbidden"
    );
    t.ok("alice", "room.hand", hand(false, &bob));
    assert_eq!(
        t.heard("bob"),
        ["room.participant bob speaker microphone camera"]
    );
    assert_eq!(
        t.refused("alice", "room.hand", hand(true, &bob)),
        "forbidden"
    );
    let gone = t.new_call();
    assert_eq!(
        t.refused("alice", "room.hand", hand(false, &gone)),
        "not_in_room"
    );
}

#[test]
fn a_moderator_asks_and_does_not_unmute() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob", "carol"]);
    let track = t.track("bob", &room, "microphone");
    let ask = json!({ "room": room, "track": track });
    t.ok("alice", "room.ask", ask.clone());
    assert!(t.take("bob", "room.asked").is_none(), "Bob is not muted");

    let mute = json!({ "room": room, "track": track, "muted": true });
    t.ok("alice", "room.mute", mute);
    t.media.clear();
    t.hush();
    assert_eq!(t.refused("carol", "room.ask", ask.clone()), "forbidden");
    t.ok("alice", "room.ask", ask);
    let asked = t.take("bob", "room.asked").unwrap();
    assert_eq!(asked["data"]["track"], track.as_str());
    assert_eq!(t.heard("carol"), [""; 0]);
    assert!(t.told().is_empty(), "he is as muted as before");

    let own = t.track("alice", &room, "microphone");
    let ask = json!({ "room": room, "track": own });
    assert_eq!(t.refused("alice", "room.ask", ask), "not_in_room");
}

#[test]
fn people_are_invited_and_a_moderators_guest_finds_the_door_open() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    t.device("gus").room_grants.guest = true;
    for name in ["gus", "zoe", "zoe2"] {
        t.connect(name);
    }
    let invite = |user: &str| json!({ "room": room, "user": user });
    t.ok("alice", "room.set", json!({ "room": room, "locked": true }));
    t.hush();

    t.ok("bob", "room.invite", invite("zoe"));
    for device in ["zoe", "zoe2"] {
        let invited = t.take(device, "room.invited").unwrap()["data"].clone();
        let (by, there) = (&invited["by"], &invited["participants"]);
        assert_eq!((by, there), (&json!("bob"), &json!(2)));
        assert_eq!(invited["room"], "weekly");
    }
    assert_eq!(t.refused("zoe", "room.join", join("weekly")), "room_locked");
    t.ok("alice", "room.invite", invite("zoe"));
    t.join("zoe");

    assert_eq!(t.refused("bob", "room.invite", invite("zoe")), "self_call");
    assert_eq!(
        t.refused("bob", "room.invite", invite("nobody")),
        "peer_gone"
    );
    t.ok("gus", "presence.set", json!({ "status": "do_not_disturb" }));
    assert_eq!(
        t.refused("alice", "room.invite", invite("gus")),
        "peer_gone"
    );
    t.ok("gus", "presence.set", json!({ "status": "available" }));
    t.ok("alice", "room.invite", invite("gus"));
    t.join("gus");
    t.connect("yan");
    assert_eq!(t.refused("gus", "room.invite", invite("yan")), "forbidden");
}

#[test]
fn hands_and_reactions_are_seen() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    t.ok("bob", "room.hand", json!({ "room": room, "up": true }));
    t.ok(
        "bob",
        "room.react",
        json!({ "room": room, "reaction": "👍" }),
    );
    t.ok("bob", "room.hand", json!({ "room": room, "up": true }));
    t.ok("bob", "room.hand", json!({ "room": room, "up": false }));
    assert_eq!(
        t.heard("alice"),
        [
            "room.participant bob speaker microphone camera hand",
            "room.reaction 👍",
            "room.participant bob speaker microphone camera"
        ]
    );
}

#[test]
fn nobody_shouts_all_the_others_down() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let react = json!({ "room": room, "reaction": "!" });
    for _ in 0..50 {
        t.ok("bob", "room.react", react.clone());
    }
    assert_eq!(
        t.refused("bob", "room.react", react.clone()),
        "rate_limited"
    );
    assert_eq!(t.heard("alice").len(), 50);
    t.advance(1_000);
    t.ok("bob", "room.react", react);
}

#[test]
fn nobody_keeps_the_sfu_busy_with_offers() {
    let (mut t, room) = TestSignaling::room(&["alice"]);
    let offer = |generation: u32| json!({ "room": room, "generation": generation, "sdp": crate::harness::sdp(1) });
    for generation in 2..21 {
        t.ok("alice", "room.offer", offer(generation));
    }
    assert_eq!(t.refused("alice", "room.offer", offer(21)), "rate_limited");
    t.advance(500);
    t.ok("alice", "room.offer", offer(21));
}

#[test]
fn a_webinar_has_listeners() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let mut begin = join("weekly");
    begin["settings"] = json!({ "role": "listener", "metadata": "town hall" });
    let alice = t.ok("alice", "room.join", begin);
    assert_eq!(alice["role"], "moderator");
    let bob = t.join("bob");
    assert_eq!(
        (&bob["role"], &bob["tracks"]),
        (&json!("listener"), &json!([]))
    );
    assert_eq!(bob["state"]["settings"]["metadata"], "town hall");
    assert_eq!(t.told(), ["join speak+video+share 2", "join  0"]);
}

/// Alice begins an encrypted Room.
fn encrypted(t: &mut TestSignaling) -> (Value, String) {
    let mut begin = join("weekly");
    begin["settings"] = json!({ "encrypted": true });
    assert_eq!(
        t.refused("alice", "room.join", begin.clone()),
        "room_encrypted"
    );
    begin["encrypted"] = true.into();
    let joined = t.ok("alice", "room.join", begin.clone());
    let room = joined["state"]["room"].as_str().unwrap().to_owned();
    (begin, room)
}

#[test]
fn into_an_encrypted_room_comes_who_encrypts() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
    let (begin, room) = encrypted(&mut t);
    assert_eq!(
        t.refused("bob", "room.join", join("weekly")),
        "room_encrypted"
    );
    let bob = t.ok("bob", "room.join", begin);
    assert_eq!(bob["state"]["settings"]["encrypted"], true);
    assert_eq!(t.told(), ["join speak+video+share 2 encrypted"; 2]);

    t.hush();
    let set = |on: bool| json!({ "room": room, "encrypted": on });
    t.ok("alice", "room.set", set(true)); // it is already
    t.ok("alice", "room.set", set(false));
    assert_eq!(t.heard("bob"), ["room.settings"]);
    assert_eq!(t.refused("alice", "room.set", set(true)), "forbidden");
    t.join("carol");
    assert_eq!(t.told(), ["join speak+video+share 2"]);
}

#[test]
fn keys_pass_to_those_they_are_for() {
    let mut t = TestSignaling::people(&["alice", "bob", "carol"]);
    let (begin, room) = encrypted(&mut t);
    t.ok("bob", "room.join", begin.clone());
    t.ok("carol", "room.join", begin);
    let (alice, bob) = (t.participant("alice", &room), t.participant("bob", &room));
    t.hush();
    let (key, signature) = (format!("BA{}", "x".repeat(85)), "s".repeat(86));
    let e2ee = json!({ "key": key, "signature": signature });
    t.ok(
        "alice",
        "room.announce",
        json!({ "room": room, "e2ee": e2ee }),
    );
    let told = t.take("carol", "room.participant").unwrap()["data"]["participant"]["e2ee"].clone();
    let device = t.device("alice").id.clone();
    assert_eq!(
        (&told["key"], &told["device"]),
        (&json!(key), &json!(device))
    );
    assert_eq!(told["device_key"], t.device("alice").key.as_str());

    t.hush();
    let wrapped = |who: &str| json!({ "participant": who, "ciphertext": "AQ" });
    let stranger = model::ParticipantId::from_u128(1).to_string();
    let keys = json!([wrapped(&bob), wrapped(&alice), wrapped(&stranger)]);
    t.ok(
        "alice",
        "room.keys",
        json!({ "room": room, "epoch": 3, "keys": keys }),
    );
    let got = t.take("bob", "room.keys").unwrap()["data"].clone();
    assert_eq!((&got["from"], &got["epoch"]), (&json!(alice), &json!(3)));
    assert!(t.heard("carol").is_empty() && t.heard("alice").is_empty());
}

#[test]
fn a_plain_room_has_no_keys() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let keys = json!({ "room": room, "epoch": 1, "keys": [] });
    assert_eq!(t.refused("alice", "room.keys", keys), "forbidden");
    t.ok("bob", "room.leave", json!({ "room": room }));
    let mut join = join("weekly");
    join["encrypted"] = true.into();
    let bob = t.ok("bob", "room.join", join);
    assert_eq!(
        bob["state"]["settings"]["encrypted"], false,
        "and is told so"
    );
}
