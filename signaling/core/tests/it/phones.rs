//! Calls to phones and from them.

use model::phone::{
    Key, PhoneCommandKind, PhoneEnd, PhoneEventKind, PhonePlace, PhoneReason, Progress, Ring,
};
use model::{Grants, Millis};
use serde_json::{Value, json};

use crate::harness::{TestSignaling, offer};
use crate::rooms::join;

pub(crate) const NUMBER: &str = "tel:+4930123456";

impl TestSignaling {
    /// A server with these Devices connected, which may call phones.
    pub(crate) fn callers(names: &[&str]) -> Self {
        let mut t = Self::new();
        for name in names {
            t.device(name).grants = Grants {
                phone: true,
                ..Grants::default()
            };
            t.connect(name);
        }
        t.hush();
        t
    }

    pub(crate) fn dial(&mut self, name: &str, to: &str) -> String {
        let call = self.new_call();
        let media = json!({ "audio": true, "video": true });
        let invite = json!({ "call": call, "to": to, "media": media });
        self.ok(name, "call.invite", invite);
        call
    }

    /// Somebody talks with a phone they have dialled, and is in its Room.
    pub(crate) fn talk_with_phone(&mut self, name: &str, to: &str) -> String {
        let call = self.dial(name, to);
        self.enter_room_of(name, &call);
        self.phone_says(&call, PhoneEventKind::Answered);
        call
    }

    /// Joins the Room of a Call; returns what a join brings.
    pub(crate) fn enter_room_of(&mut self, name: &str, call: &str) -> Value {
        let room = self.room_of(name, call);
        self.ok(name, "room.join", join(&room))
    }

    pub(crate) fn room_of(&mut self, name: &str, call: &str) -> String {
        self.seen(name, call)["room"].as_str().unwrap().to_owned()
    }

    /// A phone call comes in for these Users.
    pub(crate) fn phone_rings(&mut self, phone: &str, users: &[&str]) {
        let users = users.iter().map(|user| user.parse().unwrap()).collect();
        let ring = Ring {
            users,
            from: "tel:+15550100".parse().ok(),
            name: Some("Erika\r\nMuster".to_owned()),
            to: "tel:+4930100".parse().ok(),
            ring: Millis::from_secs(20),
        };
        self.phone_says(phone, PhoneEventKind::Ring(Box::new(ring)));
    }

    pub(crate) fn phone_ends(&mut self, phone: &str, reason: PhoneReason) {
        self.phone_says(phone, PhoneEventKind::Ended(PhoneEnd::of(reason)));
    }

    /// The Call in which a Device was rung last.
    pub(crate) fn rung(&mut self, name: &str) -> String {
        let frame = self.take(name, "call.incoming").expect("it rings");
        frame["data"]["state"]["call"].as_str().unwrap().to_owned()
    }

    /// What the gateway was told since it was asked last, in short.
    pub(crate) fn phone_told(&mut self) -> Vec<String> {
        let commands = std::mem::take(&mut self.phone);
        let in_short = commands.iter().map(|command| match &command.kind {
            PhoneCommandKind::Dial(dial) => format!("dial {} for {}", dial.to, dial.user),
            PhoneCommandKind::Ringing => "ringing".to_owned(),
            PhoneCommandKind::Answer { user, .. } => format!("answer {user}"),
            PhoneCommandKind::Unanswered { user, why } => format!("{user} {why:?}").to_lowercase(),
            PhoneCommandKind::Move { .. } => "move".to_owned(),
            PhoneCommandKind::Keys(keys) => format!("keys {keys}"),
            PhoneCommandKind::Hold { on } => format!("hold {on}"),
            PhoneCommandKind::HangUp { cause } => format!("hang up {cause}"),
        });
        in_short.collect()
    }

    /// Where the gateway was told last that a phone is heard.
    fn place(&self) -> PhonePlace {
        let mut places = self.phone.iter().filter_map(|command| match &command.kind {
            PhoneCommandKind::Dial(dial) => Some(dial.place),
            PhoneCommandKind::Answer { place, .. } | PhoneCommandKind::Move { place } => {
                Some(*place)
            }
            _ => None,
        });
        places.next_back().expect("a phone has its place")
    }
}

#[test]
fn a_number_is_dialled_into_a_room_of_its_own() {
    let mut t = TestSignaling::callers(&["alice", "alice2", "bob"]);
    let call = t.dial("alice", "tel:+49 (30) 123-456");
    let place = t.place();
    assert_eq!(t.phone_told(), ["dial tel:+4930123456 for alice"]);
    assert_eq!(t.told(), ["join plain speak"]);
    let state = t.seen("alice", &call);
    assert_eq!(state["media"], json!({ "audio": true, "video": false }));
    assert_eq!(state["callee"]["user"], NUMBER);
    assert_eq!(state["callee"]["phone"]["call"], call);
    assert_eq!(
        state["callee"]["phone"]["participant"],
        place.participant.to_string()
    );
    assert_eq!(t.heard("alice2"), [""; 0]);

    let joined = t.enter_room_of("alice", &call);
    let phone = &joined["state"]["participants"][0];
    assert_eq!(
        (&phone["user"], &phone["phone"]),
        (&json!(NUMBER), &json!("ringing"))
    );
    assert_eq!(joined["state"]["room"], place.room.to_string());
    let join = join(&t.room_of("alice", &call));
    assert_eq!(t.refused("bob", "room.join", join), "room_locked");

    for progress in [
        Progress::Trying,
        Progress::Ringing,
        Progress::EarlyMedia,
        Progress::Queued { position: 2 },
    ] {
        t.phone_says(&call, PhoneEventKind::Progress(progress));
    }
    t.phone_says(&call, PhoneEventKind::Answered);
    let heard = t.heard("alice");
    let expected = [
        "call.progress trying",
        "call.progress ringing",
        "call.progress early_media",
        "call.progress queued",
        "room.participant tel:+4930123456 speaker microphone",
        "call.update answered",
    ];
    assert_eq!(heard, expected);
    assert_eq!(t.seen("alice", &call)["phase"], "active");

    t.hangup("alice", &call);
    assert_eq!(t.phone_told(), ["hang up 16"]);
    assert!(t.heard("alice").contains(&"room.ended ended".to_owned()));
    assert_eq!(t.ended_records(), ["alice→tel:+4930123456 Hangup"]);
    assert_eq!(t.cores[0].counts().phone_calls, 0);
    assert_eq!(t.cores[0].counts().rooms, 0);
}

#[test]
fn an_address_of_sip_is_dialled_too() {
    let mut t = TestSignaling::callers(&["alice"]);
    t.dial("alice", "SIP:Desk@PBX.example");
    assert_eq!(t.phone_told(), ["dial sip:Desk@pbx.example for alice"]);
}

#[test]
fn what_may_not_be_dialled_says_why() {
    let mut t = TestSignaling::callers(&["alice"]);
    t.connect("bob");
    let media = json!({ "audio": true, "video": false });
    let mut refused = |name: &str, to: &str| {
        let call = t.new_call();
        let invite = json!({ "call": call, "to": to, "media": media });
        t.refused(name, "call.invite", invite)
    };
    assert_eq!(refused("bob", NUMBER), "forbidden");
    assert_eq!(refused("alice", "tel:nobody"), "bad_data");
    assert_eq!(refused("alice", "tel:+4930123456;ext=7"), "bad_data");
    assert_eq!(refused("alice", "sip:a@b?Subject=x"), "bad_data");
    assert_eq!(
        refused("alice", "sip:anonymous@anonymous.invalid"),
        "unknown_user"
    );
    assert_eq!(t.phone_told(), [""; 0]);

    t.phone_available(false);
    let invite = json!({ "call": t.new_call(), "to": NUMBER, "media": media });
    assert_eq!(
        t.refused("alice", "call.invite", invite),
        "phone_unavailable"
    );
    assert_eq!(t.cores[0].counts().rooms, 0);
}

#[test]
fn a_client_hears_whether_it_may_call_phones() {
    let mut t = TestSignaling::callers(&["alice"]);
    assert_eq!(t.connect("bob")["phone"], false);
    t.forget("alice");
    assert_eq!(t.connect("alice")["phone"], true);
    t.phone_available(false);
    t.forget("alice");
    assert_eq!(t.connect("alice")["phone"], false);
}

#[test]
fn nobody_signs_in_as_a_number() {
    let mut t = TestSignaling::new();
    t.device("alice").user = "TEL:+4930123456".to_owned();
    t.connect("alice");
    assert_eq!(t.device("alice").closed, Some(4003));
}

#[test]
fn the_network_says_how_a_call_ends() {
    let mut t = TestSignaling::callers(&["alice"]);
    for (reason, expected) in [
        (PhoneReason::Busy, "busy tel:+4930123456"),
        (PhoneReason::NoAnswer, "missed -"),
        (PhoneReason::Declined, "declined tel:+4930123456"),
        (PhoneReason::NoSuchNumber, "unavailable -"),
        (PhoneReason::NoRoute, "unavailable -"),
        (PhoneReason::Emergency, "failed -"),
        (PhoneReason::Congested, "failed -"),
        (PhoneReason::Lost, "gone -"),
    ] {
        let call = t.dial("alice", NUMBER);
        t.phone_ends(&call, reason);
        assert_eq!(t.end("alice", &call), expected);
        let end = t.seen("alice", &call)["end"].clone();
        assert_eq!(end["phone"]["reason"], reason.label());
        assert_eq!(end["cause"], reason.cause());
        t.advance_alive(2_000);
    }
    assert_eq!(t.cores[0].counts().phone_calls, 0);
}

#[test]
fn who_does_not_answer_is_hung_up_after_the_time_told() {
    let mut t = TestSignaling::callers(&["alice"]);
    let call = t.dial("alice", NUMBER);
    t.phone_told();
    t.advance_alive(45_000);
    assert_eq!(t.end("alice", &call), "missed -");
    assert_eq!(t.phone_told(), ["hang up 19"]);
    t.phone_says(&call, PhoneEventKind::Answered); // it has crossed
    assert_eq!(t.end("alice", &call), "missed -");
}

#[test]
fn keys_go_both_ways_before_the_answer_too() {
    let mut t = TestSignaling::callers(&["alice", "alice2"]);
    let call = t.dial("alice", NUMBER);
    t.phone_told();
    let id = t.send("alice", "call.dtmf", json!({ "call": call, "keys": "1#" }));
    t.answer_to("alice", &id).unwrap();
    t.send_as(
        "alice",
        &id,
        "call.dtmf",
        &json!({ "call": call, "keys": "1#" }),
    );
    t.answer_to("alice", &id).unwrap();
    assert_eq!(t.phone_told(), ["keys 1#"], "sent again, pressed once");

    let keys = json!({ "call": call, "keys": "2" });
    assert_eq!(
        t.refused("alice2", "call.dtmf", keys.clone()),
        "not_a_party"
    );
    t.phone_says(&call, PhoneEventKind::Answered);
    t.hush();
    let five = Key::from_char('5').unwrap();
    t.phone_says(&call, PhoneEventKind::Key(five));
    assert_eq!(t.heard("alice"), ["call.dtmf 5"]);
    t.hangup("alice", &call);
    assert_eq!(t.refused("alice", "call.dtmf", keys), "wrong_phase");
}

#[test]
fn keys_need_a_phone() {
    let mut t = TestSignaling::callers(&["alice", "bob"]);
    let call = t.talk("alice", "bob");
    let keys = json!({ "call": call, "keys": "2" });
    assert_eq!(t.refused("alice", "call.dtmf", keys), "wrong_phase");
}

#[test]
fn both_sides_hold() {
    let mut t = TestSignaling::callers(&["alice"]);
    let call = t.talk_with_phone("alice", NUMBER);
    t.phone_told();
    t.ok("alice", "call.hold", json!({ "call": call, "on": true }));
    t.phone_says(&call, PhoneEventKind::Held { on: true });
    assert_eq!(t.seen("alice", &call)["held_by"], json!(["alice", NUMBER]));
    t.ok("alice", "call.hold", json!({ "call": call, "on": false }));
    t.phone_says(&call, PhoneEventKind::Held { on: false });
    assert_eq!(t.seen("alice", &call)["held_by"], json!([]));
    assert_eq!(t.phone_told(), ["hold true", "hold false"]);
}

#[test]
fn nothing_is_negotiated_with_a_phone() {
    let mut t = TestSignaling::callers(&["alice"]);
    let call = t.talk_with_phone("alice", NUMBER);
    assert_eq!(
        t.refused("alice", "sdp.offer", offer(&call, 1)),
        "peer_gone"
    );
}

#[test]
fn a_phone_rings_all_devices_and_the_losers_hear_that_it_was_answered_elsewhere() {
    let mut t = TestSignaling::callers(&["alice", "alice2", "bob", "carol"]);
    let phone = t.new_call();
    t.phone_rings(&phone, &["alice", "bob", "dave", "bob"]);
    assert_eq!(t.phone_told(), ["dave unavailable"]);
    let (ours, theirs) = (t.rung("alice"), t.rung("bob"));
    assert_eq!(t.rung("alice2"), ours);
    assert_eq!(t.heard("carol"), [""; 0]);
    let caller = t.seen("alice", &ours)["caller"].clone();
    assert_eq!(caller["user"], "tel:+15550100");
    assert_eq!(caller["name"], "ErikaMuster");
    assert_eq!(
        caller["phone"],
        json!({ "call": phone, "participant": null, "to": "tel:+4930100" })
    );

    t.ok("alice", "call.ringing", json!({ "call": ours }));
    t.ok("bob", "call.ringing", json!({ "call": theirs }));
    assert_eq!(t.phone_told(), ["ringing"], "the caller hears it once");
    assert_eq!(t.told(), [""; 0], "nobody is heard yet");

    t.accept("bob", &theirs);
    let place = t.place();
    assert_eq!(t.phone_told(), ["answer bob"]);
    assert_eq!(t.told(), ["join plain speak"]);
    assert_eq!(t.end("alice", &ours), "answered_elsewhere bob");
    assert_eq!(t.end("alice2", &ours), "answered_elsewhere bob");
    let joined = t.enter_room_of("bob", &theirs);
    assert_eq!(joined["state"]["room"], place.room.to_string());
    assert_eq!(joined["state"]["participants"][0]["phone"], "talking");

    t.phone_ends(&phone, PhoneReason::Hangup);
    assert_eq!(t.end("bob", &theirs), "hangup tel:+15550100");
    let expected = [
        "tel:+15550100→dave Unavailable missed",
        "tel:+15550100→alice AnsweredElsewhere",
        "tel:+15550100→bob Hangup",
    ];
    assert_eq!(t.ended_records(), expected);
    assert_eq!(t.phone_told(), [""; 0]);
    assert_eq!(t.cores[0].counts().phone_calls, 0);
}

#[test]
fn who_declines_is_told_to_the_gateway_which_may_ring_others() {
    let mut t = TestSignaling::callers(&["alice", "bob"]);
    let phone = t.new_call();
    t.phone_rings(&phone, &["alice"]);
    let call = t.rung("alice");
    t.ok("alice", "call.decline", json!({ "call": call, "rev": 1 }));
    assert_eq!(t.phone_told(), ["alice declined"]);

    t.phone_rings(&phone, &["bob"]);
    t.rung("bob");
    t.advance_alive(20_000);
    assert_eq!(t.phone_told(), ["bob missed"]);
    t.phone_ends(&phone, PhoneReason::NoAnswer);
    assert_eq!(t.phone_told(), [""; 0]);
    assert_eq!(t.cores[0].counts().phone_calls, 0);
}

#[test]
fn a_caller_who_gives_up_is_a_missed_call() {
    let mut t = TestSignaling::callers(&["alice", "bob"]);
    let phone = t.new_call();
    t.phone_rings(&phone, &["alice", "bob"]);
    let (ours, theirs) = (t.rung("alice"), t.rung("bob"));
    t.phone_ends(&phone, PhoneReason::Cancelled);
    assert_eq!(t.end("alice", &ours), "cancelled tel:+15550100");
    assert_eq!(t.end("bob", &theirs), "cancelled tel:+15550100");
    assert_eq!(
        t.ended_records(),
        [
            "tel:+15550100→alice Cancelled missed",
            "tel:+15550100→bob Cancelled missed"
        ]
    );
}

#[test]
fn a_desk_phone_that_answers_stops_the_ringing_and_nobody_has_missed_it() {
    let mut t = TestSignaling::callers(&["alice"]);
    let phone = t.new_call();
    t.phone_rings(&phone, &["alice"]);
    let call = t.rung("alice");
    t.phone_says(&phone, PhoneEventKind::AnsweredElsewhere);
    assert_eq!(t.end("alice", &call), "answered_elsewhere -");
    assert_eq!(t.phone_told(), [""; 0]);
    assert_eq!(t.ended_records(), ["tel:+15550100→alice AnsweredElsewhere"]);
}

#[test]
fn do_not_disturb_and_a_second_call_hold_for_phones_as_well() {
    let mut t = TestSignaling::callers(&["alice", "bob"]);
    t.ok(
        "alice",
        "presence.set",
        json!({ "status": "do_not_disturb" }),
    );
    t.ok("bob", "presence.set", json!({ "call_waiting": false }));
    t.talk_with_phone("bob", NUMBER);
    t.phone_told();
    let phone = t.new_call();
    t.phone_rings(&phone, &["alice", "bob"]);
    assert_eq!(t.phone_told(), ["alice busy", "bob busy"]);
}

#[test]
fn a_phone_that_calls_whom_it_is_called_by_is_another_call() {
    let mut t = TestSignaling::callers(&["alice"]);
    let phone = t.new_call();
    t.phone_rings(&phone, &["alice"]);
    t.rung("alice");
    let out = t.dial("alice", "tel:+15550100");
    assert_eq!(t.seen("alice", &out)["phase"], "ringing");
}

#[test]
fn an_account_has_a_limit_of_phone_calls() {
    let mut t = TestSignaling::callers(&["alice"]);
    t.limits.phone_calls_per_account_max = 1;
    t.crash();
    t.device("alice").session = None;
    t.connect("alice");
    t.dial("alice", NUMBER);
    let invite =
        json!({ "call": t.new_call(), "to": NUMBER, "media": { "audio": true, "video": false } });
    assert_eq!(t.refused("alice", "call.invite", invite), "too_many_calls");
    t.phone_told();
    let phone = t.new_call();
    t.phone_rings(&phone, &["alice"]);
    assert_eq!(t.phone_told(), ["alice busy"]);
}

#[test]
fn a_call_id_can_not_take_over_a_phone_call() {
    let mut t = TestSignaling::callers(&["alice", "bob"]);
    let phone = t.new_call();
    t.phone_rings(&phone, &["bob"]);
    let invite = json!({ "call": phone, "to": NUMBER, "media": { "audio": true, "video": false } });
    assert_eq!(t.refused("alice", "call.invite", invite), "call_exists");
}

#[test]
fn when_the_gateway_goes_so_do_its_calls() {
    let mut t = TestSignaling::callers(&["alice", "bob"]);
    let call = t.talk_with_phone("alice", NUMBER);
    let phone = t.new_call();
    t.phone_rings(&phone, &["bob"]);
    let rung = t.rung("bob");
    t.phone_available(false);
    assert_eq!(t.end("alice", &call), "gone -");
    assert_eq!(t.end("bob", &rung), "gone -");
    assert_eq!(t.cores[0].counts().phone_calls, 0);
    assert_eq!(t.cores[0].counts().rooms, 0);
}

#[test]
fn when_the_media_goes_so_do_phone_calls() {
    let mut t = TestSignaling::callers(&["alice"]);
    let call = t.talk_with_phone("alice", NUMBER);
    t.phone_told();
    let now = t.now;
    t.cores[0].handle_media_available(now, false);
    t.pump();
    assert_eq!(t.end("alice", &call), "failed -");
    assert_eq!(t.phone_told(), ["hang up 41"]);
}

#[test]
fn a_lost_session_ends_the_call_once_its_time_is_over() {
    let mut t = TestSignaling::callers(&["alice"]);
    let call = t.talk_with_phone("alice", NUMBER);
    t.phone_told();
    t.disconnect("alice");
    t.advance(59_000);
    assert_eq!(t.phone_told(), [""; 0]);
    t.connect("alice");
    assert_eq!(t.seen("alice", &call)["phase"], "active");
    t.disconnect("alice");
    t.advance(61_000);
    assert_eq!(t.phone_told(), ["hang up 27"]);
}

#[test]
fn after_a_crash_the_gateway_says_whether_the_phone_is_still_there() {
    for is_there in [true, false] {
        let mut t = TestSignaling::callers(&["alice"]);
        let call = t.talk_with_phone("alice", NUMBER);
        let room = t.room_of("alice", &call);
        t.crash();
        t.phone_told();
        t.connect("alice");
        t.sync("alice", &call).unwrap();
        let place = t.place();
        assert_eq!(t.phone_told(), ["move"]);
        assert_eq!(t.room_of("alice", &call), room);
        assert_eq!(
            t.seen("alice", &call)["callee"]["phone"]["participant"],
            place.participant.to_string()
        );
        if is_there {
            t.enter_room_of("alice", &call);
            t.hangup("alice", &call);
            assert_eq!(t.phone_told(), ["hang up 16"]);
        } else {
            t.phone_ends(&call, PhoneReason::Lost);
            assert_eq!(t.end("alice", &call), "gone -");
        }
        assert_eq!(t.cores[0].counts().phone_calls, 0);
    }
}

#[test]
fn after_a_crash_without_a_gateway_a_phone_call_is_gone_at_once() {
    let mut t = TestSignaling::callers(&["alice", "bob"]);
    let call = t.talk_with_phone("alice", NUMBER);
    let phone = t.new_call();
    t.phone_rings(&phone, &["bob"]);
    let rung = t.rung("bob");
    t.crash();
    t.phone_available(false);
    t.connect("alice");
    t.connect("bob");
    t.sync("alice", &call).unwrap();
    t.sync("bob", &rung).unwrap();
    assert_eq!(t.end("alice", &call), "gone -");
    assert_eq!(t.end("bob", &rung), "gone -");
    assert_eq!(t.cores[0].counts().phone_calls, 0);
}
