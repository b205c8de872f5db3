//! Joining and leaving Rooms, offers, and what the SFU says.

use model::media::{
    ConnectionQuality, GoneReason, LayerWanted, MediaCommandKind, MediaEvent, MediaEventKind,
    MediaRefusal, Slot,
};
use model::{AccountId, ParticipantId, Permissions, RoomGrants, TrackId};
use serde_json::{Value, json};
use signaling_core::Limits;

use crate::harness::{TestSignaling, answer_of, sdp};

/// What a page asks for that sends a voice and a face.
pub(crate) fn join(name: &str) -> Value {
    json!({
        "room": name, "generation": 1, "sdp": sdp(2),
        "tracks": [{ "mid": "0", "source": "microphone" }, { "mid": "1", "source": "camera" }],
    })
}

impl TestSignaling {
    /// A Room `weekly` with these Devices in it, a millisecond apart.
    pub(crate) fn room(names: &[&str]) -> (Self, String) {
        let mut t = Self::people(names);
        let mut room = String::new();
        for name in names {
            room = t.join(name)["state"]["room"].as_str().unwrap().to_owned();
            t.advance(1);
        }
        t.hush();
        t.media.clear();
        (t, room)
    }

    pub(crate) fn join(&mut self, name: &str) -> Value {
        self.ok(name, "room.join", join("weekly"))
    }

    /// The id of a Device's Participant, as another Device in the Room would know it.
    pub(crate) fn participant(&mut self, name: &str, room: &str) -> String {
        let user = self.device(name).user.clone();
        let seen = self.everybody(room);
        let one = seen.iter().find(|one| one["user"] == user.as_str());
        one.unwrap_or_else(|| panic!("{name} is not in the room"))["participant"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// All in a Room, as one of them is told.
    pub(crate) fn everybody(&mut self, room: &str) -> Vec<Value> {
        let names: Vec<String> = self.devices.keys().cloned().collect();
        let first = ParticipantId::from_u128(0);
        for name in names {
            if self.device(&name).connection.is_none() {
                continue;
            }
            let id = self.send(&name, "room.list", json!({ "room": room, "after": first }));
            if let Ok(page) = self.answer_to(&name, &id) {
                return page["participants"].as_array().unwrap().clone();
            }
        }
        Vec::new()
    }

    /// The Track of a Participant.
    pub(crate) fn track(&mut self, name: &str, room: &str, source: &str) -> String {
        let id = self.participant(name, room);
        let everybody = self.everybody(room);
        let one = everybody
            .iter()
            .find(|one| one["participant"] == id.as_str());
        let tracks = one.unwrap()["tracks"].as_array().unwrap().clone();
        let track = tracks.iter().find(|track| track["source"] == source);
        track.unwrap()["track"].as_str().unwrap().to_owned()
    }

    pub(crate) fn news(&mut self, room: &str, kind: MediaEventKind) {
        let account = AccountId::from_u128(1);
        let room = room.parse().unwrap();
        self.media_says(MediaEvent {
            account,
            room,
            kind,
        });
    }

    /// What the SFU was told since it was asked last, in short.
    pub(crate) fn told(&mut self) -> Vec<String> {
        let may = |permissions: &Permissions| {
            let Permissions {
                speak,
                video,
                share,
                ..
            } = *permissions;
            let words = [(speak, "speak"), (video, "video"), (share, "share")];
            let allowed: Vec<_> = words
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, w)| *w)
                .collect();
            allowed.join("+")
        };
        let commands = std::mem::take(&mut self.media);
        let in_short = commands.iter().map(|command| match &command.kind {
            MediaCommandKind::Join {
                permissions,
                encrypted,
                offer,
                ..
            } => {
                let encrypted = if *encrypted { " encrypted" } else { "" };
                format!(
                    "join {} {}{encrypted}",
                    may(permissions),
                    offer.tracks.len()
                )
            }
            MediaCommandKind::JoinPlain { permissions, .. } => {
                format!("join plain {}", may(permissions))
            }
            MediaCommandKind::Offer { offer, .. } => {
                format!("offer {} {}", offer.generation, offer.tracks.len())
            }
            MediaCommandKind::Leave { .. } => "leave".to_owned(),
            MediaCommandKind::Permit { permissions, .. } => format!("permit {}", may(permissions)),
            MediaCommandKind::Mute { muted, .. } => format!("mute {muted}"),
            MediaCommandKind::Want { wishes, .. } => format!("want {}", wishes.len()),
            MediaCommandKind::End => "end".to_owned(),
        });
        in_short.collect()
    }
}

fn id<T: std::str::FromStr<Err = model::id::IdError>>(text: &str) -> T {
    text.parse().unwrap()
}

#[test]
fn who_begins_a_room_moderates_it_and_hears_who_joins() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let alice = t.join("alice");
    t.advance(5);
    let bob = t.join("bob");

    assert_eq!(alice["role"], "moderator");
    assert_eq!(alice["sdp"], "answer 1");
    assert_eq!(alice["tracks"][1]["mid"], "1");
    assert_eq!(
        (&bob["role"], &bob["chat"]),
        (&json!("speaker"), &json!([]))
    );
    let there = bob["state"]["participants"].as_array().unwrap();
    let users: Vec<_> = there
        .iter()
        .map(|one| one["user"].as_str().unwrap())
        .collect();
    assert_eq!(users, ["alice", "bob"], "the longest first");
    assert_eq!(there[0]["tracks"][0]["track"], alice["tracks"][0]["track"]);
    assert_eq!(bob["state"]["room"], alice["state"]["room"]);

    assert_eq!(
        t.heard("alice"),
        ["room.participant bob speaker microphone camera"]
    );
    assert!(t.heard("bob").is_empty());
    assert_eq!(
        t.told(),
        ["join speak+video+share 2", "join speak+video+share 2"]
    );
}

#[test]
fn an_offer_is_answered_when_the_sfu_has() {
    let mut t = TestSignaling::people(&["alice"]);
    t.media_answers = false;
    let command = t.send("alice", "room.join", join("weekly"));
    assert!(t.device("alice").frames.is_empty());
    t.advance(9_999);
    assert_eq!(t.heard("alice"), ["ack"]);

    let answer = answer_of(&t.media[0]).unwrap();
    t.media_says(answer.clone());
    assert_eq!(t.answer_to("alice", &command).unwrap()["role"], "moderator");

    t.media_says(answer); // told again, it changes nothing
    assert!(t.heard("alice").is_empty());
}

#[test]
fn an_sfu_that_does_not_answer_is_given_up() {
    let mut t = TestSignaling::people(&["alice"]);
    t.media_answers = false;
    let command = t.send("alice", "room.join", join("weekly"));
    t.advance(10_000);

    let error = t.answer_to("alice", &command).unwrap_err();
    assert_eq!(
        (&error["code"], &error["reason"]),
        (&json!("media_refused"), &json!("timeout"))
    );
    assert_eq!(t.media.len(), 2);
    assert!(matches!(t.media[1].kind, MediaCommandKind::Leave { .. }));
    let late = answer_of(&t.media[0]).unwrap();
    t.hush();
    t.media_says(late);
    assert!(t.heard("alice").is_empty());
    assert_eq!(t.cores[0].counts().rooms, 0, "nobody was ever in it");
}

#[test]
fn what_the_sfu_refuses_is_told_with_its_reason() {
    let mut t = TestSignaling::people(&["alice"]);
    t.media_answers = false;
    let command = t.send("alice", "room.join", join("weekly"));
    let refused = answer_of(&t.media[0]).map(|event| {
        let MediaEventKind::Answered { participant, .. } = event.kind else {
            panic!("no answer");
        };
        let kind = MediaEventKind::Refused {
            participant,
            generation: 1,
            refusal: MediaRefusal::NoCodec,
        };
        MediaEvent { kind, ..event }
    });
    t.media_says(refused.unwrap());

    let error = t.answer_to("alice", &command).unwrap_err();
    assert_eq!(
        (&error["code"], &error["reason"]),
        (&json!("media_refused"), &json!("no_codec"))
    );
    assert_eq!(t.told(), ["join speak+video+share 2"], "it knows");
    assert_eq!(t.cores[0].counts().rooms, 0);
}

#[test]
fn without_an_sfu_nobody_joins() {
    let mut t = TestSignaling::people(&["alice"]);
    let now = t.now;
    t.cores[0].handle_media_available(now, false);
    let command = t.send("alice", "room.join", join("weekly"));

    let error = t.answer_to("alice", &command).unwrap_err();
    assert_eq!(error["reason"], "unavailable");
    assert!(t.media.is_empty());
}

#[test]
fn an_sdp_that_binds_nothing_is_not_even_offered() {
    let mut t = TestSignaling::people(&["alice"]);
    let mut check = |sdp: String, code: &str, reason: Value| {
        let mut data = join("weekly");
        data["sdp"] = sdp.into();
        let command = t.send("alice", "room.join", data);
        let error = t.answer_to("alice", &command).unwrap_err();
        assert_eq!((&error["code"], &error["reason"]), (&json!(code), &reason));
    };

    check("hello".into(), "media_refused", json!("bad_sdp"));
    check(
        "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n".into(),
        "media_refused",
        json!("weak_fingerprint"),
    );
    check(sdp(129), "media_refused", json!("too_many_sections"));
    check("x".repeat(240 * 1024 + 1), "too_large", Value::Null);
    assert!(t.media.is_empty());
}

#[test]
fn a_repeated_join_gets_the_same_answer_and_joins_once() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    t.join("alice");
    let command = t.send("bob", "room.join", join("weekly"));
    let first = t.answer_to("bob", &command).unwrap();
    t.send_as("bob", &command, "room.join", &join("weekly"));
    let again = t.answer_to("bob", &command).unwrap();

    assert_eq!(first, again);
    assert_eq!(t.heard("alice").len(), 1);
    assert_eq!(t.told().len(), 2);
}

#[test]
fn a_join_repeated_before_its_answer_is_answered_once() {
    let mut t = TestSignaling::people(&["alice"]);
    t.media_answers = false;
    let command = t.send("alice", "room.join", join("weekly"));
    t.send_as("alice", &command, "room.join", &join("weekly"));
    let answer = answer_of(&t.media[0]).unwrap();
    t.media_says(answer);

    assert!(t.answer_to("alice", &command).is_ok());
    assert!(t.device("alice").frames.is_empty());
    assert_eq!(t.media.len(), 1);
}

#[test]
fn who_joins_again_takes_their_own_place() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let again = t.join("alice");

    assert_eq!(again["role"], "moderator", "what they were they are again");
    assert_eq!(again["state"]["room"], room);
    assert_eq!(again["state"]["participants"].as_array().unwrap().len(), 2);
    assert_eq!(
        t.heard("bob"),
        [
            "room.left left",
            "room.participant bob moderator microphone camera",
            "room.participant alice moderator microphone camera"
        ]
    );
    assert_eq!(
        t.told(),
        [
            "leave",
            "permit speak+video+share",
            "join speak+video+share 2"
        ]
    );
}

#[test]
fn a_join_that_overtakes_another_is_the_only_one() {
    let mut t = TestSignaling::people(&["alice"]);
    t.media_answers = false;
    let first = t.send("alice", "room.join", join("weekly"));
    let second = t.send("alice", "room.join", join("weekly"));
    assert_eq!(
        t.answer_to("alice", &first).unwrap_err()["reason"],
        "stale_generation"
    );

    for event in t.media.clone().iter().filter_map(answer_of) {
        t.media_says(event);
    }
    let joined = t.answer_to("alice", &second).unwrap();
    assert_eq!(joined["state"]["participants"].as_array().unwrap().len(), 1);
    assert_eq!(joined["role"], "moderator");
    assert_eq!(t.cores[0].counts().rooms, 1);
}

#[test]
fn leaving_is_told_and_leaving_twice_is_fine() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    t.ok("bob", "room.leave", json!({ "room": room }));
    t.ok("bob", "room.leave", json!({ "room": room }));

    assert_eq!(t.heard("alice"), ["room.left left"]);
    assert_eq!(t.told(), ["leave"]);
    assert_eq!(
        t.refused("bob", "room.hand", json!({ "room": room, "up": true })),
        "not_in_room"
    );
}

#[test]
fn a_later_offer_keeps_the_tracks_whose_sections_go_on() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let (voice, face) = (
        t.track("alice", &room, "microphone"),
        t.track("alice", &room, "camera"),
    );
    let offer = json!({
        "room": room, "generation": 2, "sdp": sdp(3),
        "tracks": [{ "mid": "0", "source": "microphone", "muted": true }, { "mid": "2", "source": "screen" }],
    });
    let command = t.send("alice", "room.offer", offer.clone());
    let offered = t.answer_to("alice", &command).unwrap();

    assert_eq!(
        (&offered["generation"], &offered["sdp"]),
        (&json!(2), &json!("answer 2"))
    );
    assert_eq!(offered["tracks"][0]["track"], voice.as_str());
    let screen = offered["tracks"][1]["track"].as_str().unwrap().to_owned();
    assert!(screen != voice && screen != face);
    assert_eq!(
        t.heard("bob"),
        ["room.participant alice moderator microphone screen"],
        "room.mute mutes, not an offer"
    );

    t.send_as("alice", &command, "room.offer", &offer);
    assert_eq!(t.answer_to("alice", &command).unwrap(), offered);
    assert_eq!(t.told(), ["offer 2 2"]);
}

#[test]
fn an_ice_restart_is_nobody_elses_news() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let mut offer = join("weekly");
    offer["room"] = room.into();
    offer["generation"] = 2.into();
    t.ok("alice", "room.offer", offer);

    assert!(t.heard("bob").is_empty());
    assert_eq!(t.told(), ["offer 2 2"]);
}

#[test]
fn a_stale_offer_is_refused_and_an_overtaken_one_too() {
    let (mut t, room) = TestSignaling::room(&["alice"]);
    let offer = |generation: u32| json!({ "room": room, "generation": generation, "sdp": sdp(1) });
    let stale = t.send("alice", "room.offer", offer(1));
    assert_eq!(
        t.answer_to("alice", &stale).unwrap_err()["reason"],
        "stale_generation"
    );

    t.media_answers = false;
    let second = t.send("alice", "room.offer", offer(2));
    let fourth = t.send("alice", "room.offer", offer(4));
    let third = t.send("alice", "room.offer", offer(3));
    assert!(t.answer_to("alice", &second).is_err());
    assert!(t.answer_to("alice", &third).is_err());
    for event in t.media.clone().iter().filter_map(answer_of) {
        t.media_says(event);
    }
    assert_eq!(t.answer_to("alice", &fourth).unwrap()["generation"], 4);
    assert_eq!(t.told(), ["offer 2 0", "offer 4 0"]);
}

#[test]
fn a_refused_offer_leaves_everything_as_it_was() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let alice = id(&t.participant("alice", &room));
    t.media_answers = false;
    let offer = json!({ "room": room, "generation": 2, "sdp": sdp(1) });
    let command = t.send("alice", "room.offer", offer);
    t.news(
        &room,
        MediaEventKind::Refused {
            participant: alice,
            generation: 2,
            refusal: MediaRefusal::TooManySections,
        },
    );

    assert_eq!(
        t.answer_to("alice", &command).unwrap_err()["reason"],
        "too_many_sections"
    );
    assert!(t.heard("bob").is_empty());
    assert_eq!(t.everybody(&room)[0]["tracks"].as_array().unwrap().len(), 2);
}

#[test]
fn an_offer_of_somebody_the_sfu_has_forgotten_ends_their_stay() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let bob = id(&t.participant("bob", &room));
    t.media_answers = false;
    let offer = json!({ "room": room, "generation": 2, "sdp": sdp(1) });
    t.send("bob", "room.offer", offer);
    t.news(
        &room,
        MediaEventKind::Refused {
            participant: bob,
            generation: 2,
            refusal: MediaRefusal::UnknownParticipant,
        },
    );

    assert_eq!(t.heard("bob"), ["room.ended failed"]);
    assert_eq!(t.heard("alice"), ["room.left gone"]);
}

#[test]
fn a_lost_socket_changes_nothing_and_a_lost_session_leaves() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    t.disconnect("bob");
    t.advance(20_000);
    let is_told = |frame: &String| frame.starts_with("room.");
    assert!(!t.heard("alice").iter().any(is_told));
    assert_eq!(t.connect("bob")["resumed"], true);
    t.ok("bob", "room.hand", json!({ "room": room, "up": true }));
    assert_eq!(
        t.heard("alice"),
        ["room.participant bob speaker microphone camera hand"]
    );

    t.disconnect("bob");
    t.advance_alive(61_000);
    assert_eq!(t.heard("alice"), ["room.left gone"]);
    assert_eq!(t.told(), ["leave"]);
}

#[test]
fn a_reloaded_page_leaves_and_joins_anew() {
    let (mut t, _) = TestSignaling::room(&["alice", "bob"]);
    t.forget("bob");
    t.connect("bob");
    assert_eq!(t.heard("alice"), ["room.left gone"]);
    let again = t.join("bob");
    assert_eq!(again["state"]["participants"].as_array().unwrap().len(), 2);
}

#[test]
fn a_session_that_ends_while_it_joins_is_forgotten() {
    let mut t = TestSignaling::people(&["alice"]);
    t.media_answers = false;
    t.send("alice", "room.join", join("weekly"));
    let late = answer_of(&t.media[0]).unwrap();
    t.forget("alice");
    t.connect("alice");
    t.media_says(late);

    assert_eq!(t.told(), ["join speak+video+share 2", "leave"]);
    assert_eq!(t.cores[0].counts().rooms, 0);
}

#[test]
fn an_empty_room_waits_a_minute_for_its_people() {
    let (mut t, room) = TestSignaling::room(&["alice"]);
    t.ok(
        "alice",
        "room.chat",
        json!({ "room": room, "text": "back soon" }),
    );
    t.ok("alice", "room.leave", json!({ "room": room }));
    t.advance_alive(59_000);
    let back = t.join("alice");
    assert_eq!(back["state"]["room"], room);
    assert_eq!(back["chat"][0]["text"], "back soon");

    t.ok("alice", "room.leave", json!({ "room": room }));
    t.advance_alive(60_000);
    assert_eq!(t.cores[0].counts().rooms, 0);
    let new = t.join("alice");
    assert_ne!(new["state"]["room"], room);
    assert_eq!(new["chat"], json!([]));
}

#[test]
fn after_a_crash_everybody_joins_again_by_name() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    t.ok(
        "alice",
        "room.chat",
        json!({ "room": room, "text": "hello" }),
    );
    t.crash();
    t.connect("alice");
    t.connect("bob");
    assert_eq!(
        t.refused("bob", "room.hand", json!({ "room": room, "up": true })),
        "not_in_room"
    );

    let bob = t.join("bob");
    assert_eq!(
        (&bob["role"], &bob["chat"]),
        (&json!("moderator"), &json!([]))
    );
    assert_eq!(t.join("alice")["role"], "speaker");
}

#[test]
fn a_room_whose_media_fails_ends_and_so_do_all_without_an_sfu() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    t.ok("bob", "room.join", join("other"));
    t.hush();
    t.news(&room, MediaEventKind::Failed);
    assert_eq!(t.heard("alice"), ["room.ended failed"]);
    assert_eq!(t.heard("bob"), ["room.ended failed"]);
    assert_eq!(t.cores[0].counts().rooms, 1);

    let now = t.now;
    t.cores[0].handle_media_available(now, false);
    t.pump();
    assert_eq!(t.heard("bob"), ["room.ended failed"]);
    assert_eq!(t.cores[0].counts().rooms, 0);
}

#[test]
fn whom_the_sfu_gives_up_is_out() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    t.media.clear();
    let bob = id(&t.participant("bob", &room));
    let reason = GoneReason::Unreachable;
    t.news(
        &room,
        MediaEventKind::Gone {
            participant: bob,
            reason,
        },
    );

    assert_eq!(t.heard("bob"), ["room.ended failed"]);
    assert_eq!(t.heard("alice"), ["room.left gone"]);
    assert!(t.told().is_empty(), "the SFU knows");
}

#[test]
fn what_the_sfu_says_reaches_whom_it_concerns() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let alice: ParticipantId = id(&t.participant("alice", &room));
    let face: TrackId = id(&t.track("alice", &room, "camera"));
    t.hush();
    t.news(&room, MediaEventKind::Connected { participant: alice });
    let slot = Slot {
        mid: "7".into(),
        track: Some(face),
    };
    let slots = MediaEventKind::Slots {
        participant: alice,
        slots: vec![slot],
        audio_wanted: 4,
        video_wanted: 9,
    };
    t.news(&room, slots);
    let paused = MediaEventKind::Paused {
        participant: alice,
        track: face,
        paused: true,
    };
    t.news(&room, paused);
    let layers = MediaEventKind::Layers {
        participant: alice,
        track: face,
        wanted: vec![LayerWanted {
            rid: "h".into(),
            wanted: false,
        }],
    };
    t.news(&room, layers);

    let slots = t.device("alice").frames[1]["data"].clone();
    assert_eq!(
        (&slots["video_wanted"], &slots["slots"][0]["mid"]),
        (&json!(9), &json!("7"))
    );
    assert_eq!(
        t.heard("alice"),
        [
            "room.connection",
            "room.slots",
            "room.paused",
            "room.layers"
        ]
    );
    assert!(t.heard("bob").is_empty());
}

#[test]
fn fleeting_news_is_told_again_after_a_resume() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let alice: ParticipantId = id(&t.participant("alice", &room));
    let stranger = ParticipantId::from_u128(9);
    t.disconnect("bob");
    t.news(
        &room,
        MediaEventKind::Speakers {
            speakers: vec![stranger, alice],
        },
    );
    t.news(
        &room,
        MediaEventKind::Quality {
            participant: alice,
            quality: ConnectionQuality::Poor,
        },
    );
    let speakers = t.take("alice", "room.speakers").unwrap();
    assert!(speakers["seq"].is_null());
    assert_eq!(speakers["data"]["speakers"], json!([alice]));

    t.connect("bob");
    assert_eq!(
        t.take("bob", "room.quality").unwrap()["data"]["quality"],
        "poor"
    );
    assert_eq!(
        t.take("bob", "room.speakers").unwrap()["data"]["speakers"],
        json!([alice])
    );
    assert_eq!(
        t.join("alice")["speakers"],
        json!([]),
        "who left speaks no more"
    );
}

#[test]
fn wishes_about_tracks_of_others_reach_the_sfu() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let (own, other) = (
        t.track("bob", &room, "camera"),
        t.track("alice", &room, "camera"),
    );
    let gone = TrackId::from_u128(1);
    let wish =
        |track: &str| json!({ "track": track, "wanted": true, "height": 360, "pinned": true });
    let wishes = json!([wish(&own), wish(&other), wish(&gone.to_string())]);
    t.ok(
        "bob",
        "room.want",
        json!({ "room": room, "automatic": true, "wishes": wishes }),
    );

    assert!(matches!(
        &t.media[0].kind,
        MediaCommandKind::Want { automatic: true, wishes, .. }
            if wishes.len() == 1 && wishes[0].track == id(&other) && wishes[0].height == Some(360)
    ));
}

#[test]
fn a_token_says_which_rooms_may_be_joined_and_begun() {
    let mut t = TestSignaling::new();
    let names = Some(vec!["weekly".parse().unwrap()]);
    t.device("bob").room_grants = RoomGrants {
        create: false,
        names,
        ..RoomGrants::default()
    };
    t.device("carol").room_grants.join = false;
    for name in ["alice", "bob", "carol"] {
        t.connect(name);
    }

    assert_eq!(
        t.refused("bob", "room.join", join("weekly")),
        "unknown_room"
    );
    t.join("alice");
    assert_eq!(t.join("bob")["role"], "speaker");
    assert_eq!(t.refused("bob", "room.join", join("other")), "forbidden");
    assert_eq!(t.refused("carol", "room.join", join("weekly")), "forbidden");
}

#[test]
fn rooms_belong_to_their_account() {
    let (mut t, room) = TestSignaling::room(&["alice"]);
    t.device("mallory").account = AccountId::from_u128(2);
    t.connect("mallory");

    assert_eq!(
        t.refused("mallory", "room.hand", json!({ "room": room, "up": true })),
        "not_in_room"
    );
    let own = t.join("mallory");
    assert_ne!(own["state"]["room"], room);
    assert_eq!(own["role"], "moderator");
    assert!(t.heard("alice").is_empty());
}

#[test]
fn everything_that_grows_has_a_limit() {
    let limits = Limits {
        rooms_per_account_max: 2,
        rooms_per_session_max: 1,
        participants_per_room_max: 2,
        ..Limits::default()
    };
    let mut t = TestSignaling::with_limits(limits);
    for name in ["alice", "bob", "carol", "dave"] {
        t.connect(name);
    }
    t.join("alice");
    t.join("bob");
    assert_eq!(t.refused("bob", "room.join", join("other")), "room_full");
    assert_eq!(t.refused("carol", "room.join", join("weekly")), "room_full");
    t.ok("carol", "room.join", join("other"));
    assert_eq!(t.refused("dave", "room.join", join("third")), "room_full");
}

#[test]
fn all_metadata_of_a_room_has_a_limit_together() {
    let (mut t, room) = TestSignaling::room(&["alice", "bob"]);
    let mut names = vec!["alice".to_owned(), "bob".to_owned()];
    for number in 2..9 {
        let name = format!("u{number}");
        t.connect(&name);
        t.join(&name);
        names.push(name);
    }
    let said = |len: usize| json!({ "room": room, "metadata": "x".repeat(len) });
    for name in &names[..8] {
        t.ok(name, "room.metadata", said(4_096));
    }
    assert_eq!(t.refused(&names[8], "room.metadata", said(1)), "too_large");

    t.ok(
        "bob",
        "room.metadata",
        json!({ "room": room, "metadata": null }),
    );
    t.ok(&names[8], "room.metadata", said(4_096));
    t.ok("alice", "room.leave", json!({ "room": room }));
    t.ok("bob", "room.metadata", said(4_096));
}

#[test]
fn a_large_room_is_told_in_pages() {
    let mut t = TestSignaling::new();
    for number in 0..150 {
        let name = format!("u{}", char::from(b'a' + number / 26)) + &format!("{}x", number % 26);
        t.connect(&name);
        t.device(&name).acknowledges = true;
        t.join(&name);
        t.advance(1);
    }
    t.connect("zoe");
    let joined = t.join("zoe");
    let first = joined["state"]["participants"].as_array().unwrap().len();
    let (room, next) = (joined["state"]["room"].clone(), joined["next"].clone());
    let page = t.ok("zoe", "room.list", json!({ "room": room, "after": next }));

    assert_eq!(
        (first, page["participants"].as_array().unwrap().len()),
        (100, 51)
    );
    assert!(page["next"].is_null());
    assert_eq!(page["participants"][50]["user"], "zoe");
}
