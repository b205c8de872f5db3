use super::*;

/// Rows of every kind that refer to one another.
fn office() -> Telephony {
    let json = serde_json::json!({
        "dialling": { "country": "49" },
        "limits": { "calls": 20 },
        "emergency": { "routes": { "112": { "trunks": ["carrier"], "number": "+4930123450" } }, "refused": ["110"] },
        "callers": { "blocked": ["+49900*", "anonymous"] },
        "prompts": { "welcome": { "sha256": "a".repeat(64), "format": "wav", "millis": 4_000 } },
        "hours": { "office": { "zone": "Europe/Berlin", "weekly": { "monday": ["09:00-17:00"] } } },
        "trunks": {
            "carrier": {
                "peering": { "registration": { "user": "4930123450" } },
                "targets": ["sip:sip.carrier.example;transport=tls"],
                "srtp": "required",
                "destinations": { "allow": ["+49"] },
            },
            "pbx": { "peering": "address", "targets": ["sip:192.0.2.1"], "quirks": ["no_update"] },
        },
        "queues": {
            "sales": { "members": ["alice", "bob"], "nobody_answers": { "voicemail": { "queue": "sales" } } },
        },
        "menus": {
            "main": {
                "prompt": "welcome",
                "choices": { "1": { "queue": "sales" }, "0": { "user": "alice" } },
                "extensions": true,
                "otherwise": "hang_up",
            },
        },
        "pins": { "weekly": { "room": "weekly" } },
        "users": { "alice": { "limits": { "calls": 2 }, "number": "+4930123450" } },
        "phones": { "alice-desk": { "user": "alice" } },
        "numbers": {
            "+4930123450": { "to": { "menu": "main" }, "hours": "office", "closed": { "announcement": "welcome" } },
            "+4930123451": { "to": "conference", "callers": [{ "from": "+4315*", "to": { "user": "bob" } }] },
            "20": { "to": { "user": "alice" } },
        },
    });
    let mut telephony: Telephony = serde_json::from_value(json).unwrap();
    let trunk = telephony.trunks.get_mut(&name("carrier")).unwrap();
    trunk.password = Some(Secret::new("hush").unwrap());
    telephony.pins.get_mut(&name("weekly")).unwrap().pin = Some(Secret::new("123456").unwrap());
    telephony
        .phones
        .get_mut(&"alice-desk".parse().unwrap())
        .unwrap()
        .ha1 = Some(Ha1s::new(&"b".repeat(32), Some(&"c".repeat(64))).unwrap());
    telephony
}

fn name(text: &str) -> RowName {
    text.parse().unwrap()
}

fn wrongs(telephony: &Telephony) -> Vec<String> {
    telephony.check().iter().map(Wrong::to_string).collect()
}

/// The office with one value of its JSON in another's place.
fn with(pointer: &str, value: serde_json::Value) -> Telephony {
    let office = office();
    let mut json = serde_json::to_value(&office).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = json.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    parent.insert(key.to_owned(), value);
    let mut changed: Telephony = serde_json::from_value(json).unwrap();
    changed.set_secrets(office.secrets());
    changed
}

#[test]
fn rows_that_fit_together_are_right() {
    assert_eq!(wrongs(&office()), [""; 0]);
    assert_eq!(wrongs(&Telephony::default()), [""; 0]);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    use serde_json::json;

    let check = |pointer: &str, value: serde_json::Value, expected: &str| {
        let found = wrongs(&with(pointer, value));
        assert!(
            matches!(found.as_slice(), [only] if only.starts_with(expected)),
            "{pointer}\n  got      {found:?}\n  expected {expected}"
        );
    };
    check(
        "/numbers/20/to",
        json!({ "queue": "nobody" }),
        "numbers.20.to: there is no `nobody` in `queues`",
    );
    check(
        "/menus/main/choices",
        json!({ "2": { "menu": "other" } }),
        "menus.main.choices.2: there is no `other` in `menus`",
    );
    check(
        "/menus/main/otherwise",
        json!({ "menu": "main" }),
        "menus.main.otherwise: leads back to this Menu",
    );
    check(
        "/menus/main/prompt",
        json!("gone"),
        "menus.main.prompt: there is no `gone` in `prompts`",
    );
    check(
        "/queues/sales/nobody_answers",
        json!({ "queue": "sales" }),
        "queues.sales.nobody_answers: leads back to this Queue",
    );
    check(
        "/queues/sales/members",
        json!(["alice", "alice"]),
        "queues.sales.members: somebody stands there twice",
    );
    check(
        "/queues/sales/ring_seconds",
        json!(1),
        "queues.sales.ring_seconds: 1 is not 5 to 300",
    );
    check(
        "/trunks/pbx/srtp",
        json!("required"),
        "trunks.pbx.srtp: `required` needs `;transport=tls`",
    );
    check(
        "/trunks/pbx/targets",
        json!([]),
        "trunks.pbx.targets: a Trunk known by its address needs",
    );
    check(
        "/trunks/pbx/networks",
        json!(["0.0.0.0/0"]),
        "trunks.pbx.networks: everybody's addresses are in it",
    );
    check(
        "/trunks/pbx/codecs",
        json!(["pcma", "pcma"]),
        "trunks.pbx.codecs: one of them stands there twice",
    );
    check(
        "/trunks/pbx/peering",
        json!({ "inbound": { "user": "pbx" } }),
        "trunks.pbx.password: a Trunk that shows a password needs one",
    );
    check(
        "/trunks/carrier/destinations",
        json!({ "short": ["112"] }),
        "trunks.carrier.destinations.short: `112` is an emergency number",
    );
    check(
        "/trunks/carrier/limits",
        json!({ "calls": 0 }),
        "trunks.carrier.limits.calls: 0 is not 1 to",
    );
    check(
        "/emergency/routes",
        json!({ "112": { "trunks": ["gone"] } }),
        "emergency.routes.112.trunks: there is no `gone` in `trunks`",
    );
    check(
        "/emergency/refused",
        json!(["112"]),
        "emergency.refused: `112` has a route, too",
    );
    check(
        "/emergency/refused",
        json!(["20"]),
        "numbers.20: is an emergency number of `emergency`",
    );
    check(
        "/users/alice/number",
        json!("+4930999999"),
        "users.alice.number: `+4930999999` is no number of the Account",
    );
    check(
        "/users/alice/forward",
        json!({ "always": { "user": "alice" } }),
        "users.alice.forward.always: leads back to this User",
    );
    check(
        "/numbers/+4930123450/closed",
        json!(null),
        "numbers.+4930123450.hours: needs `closed` beside it",
    );
    check(
        "/hours/office/weekly",
        json!({ "monday": ["09:00-12:00", "11:00-13:00"] }),
        "hours.office.weekly.monday: 09:00-12:00 and 11:00-13:00 overlap",
    );
    check(
        "/hours/office/weekly",
        json!({}),
        "hours.office.weekly: never open",
    );
    check(
        "/dialling/international_prefix",
        json!("0"),
        "dialling.international_prefix: is the national one, too",
    );
    check(
        "/queues/sales/members",
        json!(["tel:+4930123456"]),
        "queues.sales.members: `tel:+4930123456` is no User",
    );
    check(
        "/numbers/20/to",
        json!({ "user": "sip:a@b" }),
        "numbers.20.to: `sip:a@b` is no User",
    );
    check(
        "/limits/minutes_per_day",
        json!(4_000_000_000_u32),
        "limits.minutes_per_day: 4000000000 is not",
    );
}

#[test]
fn a_sip_user_is_one_phone_or_one_trunk() {
    let mut telephony = office();
    let inbound = Trunk {
        peering: Peering::Inbound(Inbound {
            user: "alice-desk".parse().unwrap(),
        }),
        password: Some(Secret::new("hush").unwrap()),
        ..Trunk::default()
    };
    telephony.trunks.insert(name("one"), inbound.clone());
    assert_eq!(
        wrongs(&telephony),
        ["trunks.one.peering.inbound.user: `alice-desk` is a phone in `phones`, too"]
    );
    telephony.phones.clear();
    telephony.trunks.insert(name("two"), inbound);
    assert_eq!(
        wrongs(&telephony),
        ["trunks.two.peering.inbound.user: `alice-desk` is the user of `one`, too"]
    );
}

#[test]
fn a_pin_leads_to_one_room() {
    let mut telephony = office();
    let other = Pin {
        room: "daily".parse().unwrap(),
        ..telephony.pins[&name("weekly")].clone()
    };
    telephony.pins.insert(name("daily"), other);
    assert_eq!(
        wrongs(&telephony),
        ["pins.weekly.pin: `daily` has the same one"]
    );
    telephony.pins.get_mut(&name("daily")).unwrap().pin = Some(Secret::new("12a4").unwrap());
    assert_eq!(
        wrongs(&telephony),
        ["pins.daily.pin: it is not 4 to 12 digits"]
    );
}

#[test]
fn limits_that_are_not_told_are_those_of_whom_they_are_for() {
    let telephony = office();
    let alice = &telephony.users[&"alice".parse().unwrap()];
    assert_eq!(
        alice.limits,
        CallLimits {
            calls: 2,
            ..CallLimits::OF_USER
        }
    );
    assert_eq!(
        telephony.limits.0,
        CallLimits {
            calls: 20,
            ..CallLimits::OF_ACCOUNT
        }
    );
    assert_eq!(telephony.trunks[&name("pbx")].limits, CallLimits::default());
}

#[test]
fn rows_are_the_same_after_json_and_their_secrets_come_apart() {
    let office = office();
    let json = serde_json::to_string(&office).unwrap();
    for secret in ["hush", "123456", "bbbbbbbb", "cccccccc"] {
        assert!(!json.contains(secret), "JSON holds {secret}");
        assert!(
            !format!("{office:?}").contains(secret),
            "a log would hold {secret}"
        );
    }
    let mut read: Telephony = serde_json::from_str(&json).unwrap();
    assert_ne!(read, office);
    assert_eq!(office.secrets().len(), 4);
    read.set_secrets(office.secrets());
    assert_eq!(read, office);
}

#[test]
fn every_section_is_a_kind() {
    let json = serde_json::to_value(Telephony::default()).unwrap();
    let sections: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    let mut kinds: Vec<_> = Kind::ALL
        .iter()
        .map(|kind| kind.section().to_owned())
        .collect();
    kinds.sort();
    assert_eq!(sections, kinds);
    assert_eq!(Kind::of_section("queues"), Some(Kind::Queues));
    assert_eq!(Kind::of_section("queue"), None);
}

#[test]
fn the_server_knows_when_help_is_left_to_chance() {
    assert!(!office().lacks_emergency());
    let mut telephony = with("/emergency", serde_json::json!({}));
    assert!(telephony.lacks_emergency());
    telephony.trunks.clear();
    assert!(!telephony.lacks_emergency());
}
