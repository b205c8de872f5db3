//! Phones that come into a Room by its PIN.

use model::Role;
use model::phone::{Enter, PhoneEventKind, PhoneReason};
use serde_json::json;

use crate::harness::TestSignaling;
use crate::rooms::join;

impl TestSignaling {
    /// A phone has shown the PIN of the Room `weekly`; what the gateway is told.
    fn phone_enters(&mut self, phone: &str, change: impl FnOnce(&mut Enter)) -> Vec<String> {
        let mut enter = Enter {
            room: "weekly".parse().unwrap(),
            role: Role::Speaker,
            lobby: false,
            may_begin: false,
            from: "tel:+15550100".parse().ok(),
            name: Some("Erika".to_owned()),
            to: "tel:+4930100".parse().ok(),
        };
        change(&mut enter);
        self.phone_says(phone, PhoneEventKind::Enter(Box::new(enter)));
        self.phone_told()
    }
}

#[test]
fn a_phone_with_a_pin_is_in_the_room_until_it_hangs_up() {
    let mut t = TestSignaling::callers(&["alice"]);
    t.ok("alice", "room.join", join("weekly"));
    t.told();
    let phone = t.new_call();
    assert_eq!(t.phone_enters(&phone, |_| {}), ["move"]);
    assert_eq!(t.told(), ["join plain speak"]);
    let news = t
        .take("alice", "room.participant")
        .expect("she hears of it");
    let text = news.to_string();
    assert!(
        text.contains("tel:+15550100") && text.contains("talking"),
        "{text}"
    );
    // It comes again, as nobody's second wish.
    assert_eq!(t.phone_enters(&phone, |_| {}), [""; 0]);
    t.hush();
    t.phone_ends(&phone, PhoneReason::Hangup);
    assert!(t.take("alice", "room.left").is_some());

    let phone = t.new_call();
    t.told();
    assert_eq!(
        t.phone_enters(&phone, |enter| enter.role = Role::Listener),
        ["move"]
    );
    assert_eq!(t.told(), ["join plain "]);
    // Without people a Room that phones may not begin has no phones.
    t.disconnect("alice");
    t.advance(10 * 60 * 1_000);
    assert_eq!(t.phone_told(), ["hang up 16"]);
}

#[test]
fn a_phone_comes_in_nowhere_where_it_may_not() {
    let mut t = TestSignaling::callers(&["alice"]);
    let refused = ["hang up 21"];
    let phone = t.new_call();
    assert_eq!(t.phone_enters(&phone, |_| {}), refused, "nobody is there");
    let joined = t.ok("alice", "room.join", join("weekly"));
    let room = joined["state"]["room"].as_str().unwrap().to_owned();
    t.ok("alice", "room.set", json!({ "room": room, "lobby": true }));
    let phone = t.new_call();
    let told = t.phone_enters(&phone, |enter| enter.lobby = true);
    assert_eq!(told, refused, "it would have to wait");
    t.ok("alice", "room.set", json!({ "room": room, "locked": true }));
    let phone = t.new_call();
    assert_eq!(t.phone_enters(&phone, |_| {}), refused, "it is locked");
}

#[test]
fn phones_talk_among_themselves_where_they_may_begin_a_room() {
    let mut t = TestSignaling::callers(&["alice"]);
    let phones = [(); 3].map(|()| t.new_call());
    for phone in &phones {
        let told = t.phone_enters(phone, |enter| enter.may_begin = true);
        assert_eq!(told, ["move"]);
    }
    t.phone_ends(&phones[0], PhoneReason::Hangup);
    t.advance_alive(3 * 60 * 1_000);
    assert_eq!(t.phone_told(), [""; 0], "the others go on");
    let joined = t.ok("alice", "room.join", join("weekly"));
    let people = joined["state"]["participants"].as_array().unwrap();
    assert!(people.len() >= 2, "{joined}");
    for phone in &phones[1..] {
        t.phone_ends(phone, PhoneReason::Hangup);
    }
}
