use super::*;
use model::phone::rows::CallerRules;

/// 2026-11-23 is a Monday.
const MONDAY_NOON_IN_BERLIN: u64 = 1_795_431_600_000;
const HOUR: u64 = 3_600_000;

fn rows() -> Telephony {
    let text = r#"{
        "hours": {"office": {"zone": "Europe/Berlin", "weekly": {"monday": ["09:00-17:00"]}}},
        "prompts": {},
        "queues": {"sales": {"members": ["anna"], "nobody_answers": "busy", "record": true}},
        "menus": {"main": {"prompt": "welcome", "choices": {"1": "busy"}, "otherwise": "busy"}},
        "pins": {"standup": {"room": "standup"}},
        "users": {
            "away": {"forward": {"always": {"forward": "+4930777777"}}},
            "quiet": {"do_not_disturb": true, "voicemail": false},
            "single": {"call_waiting": false, "forward": {"busy": {"user": "anna"}}},
            "chain": {"number": "+4930111111", "ring_seconds": 12, "greeting": "hello",
                "forward": {"no_answer": {"forward": "+4930999999"}, "offline": {"queue": "sales"}}},
            "left": {"forward": {"always": {"user": "right"}}},
            "right": {"forward": {"always": {"user": "left"}}}
        },
        "numbers": {
            "+4930100000": {"to": {"user": "anna"}},
            "+4930100001": {"to": {"queue": "sales"}, "trunk": "provider"},
            "+4930100002": {"to": {"user": "anna"}, "hours": "office", "closed": {"voicemail": {"queue": "sales"}}},
            "+4930100003": {"to": {"menu": "main"}, "callers": [
                {"from": "+4940*", "to": {"user": "bert"}}, {"from": "anonymous", "to": "hang_up"}], "record": true},
            "+4930100004": {"to": {"extension": "42"}},
            "+4930100005": {"to": {"room": "standup"}},
            "+4930100006": {"to": "conference"},
            "+4930100007": {"to": {"announcement": "gone"}},
            "+4930100008": {"to": {"extension": "77"}},
            "+4930100009": {"to": {"queue": "nobody"}},
            "42": {"to": {"user": "bert"}}
        }
    }"#;
    serde_json::from_str(text).expect("rows")
}

fn number(text: &str) -> E164 {
    text.parse().expect("a number")
}

fn user(text: &str) -> UserId {
    text.parse().expect("a user")
}

/// Facts in which `talks` is in a call.
fn with_facts<T>(at: u64, talks: &str, act: impl FnOnce(Facts<'_>) -> T) -> T {
    act(Facts {
        at: Timestamp::from_millis(at),
        is_talking: &|user| user.as_str() == talks,
    })
}

fn say(step: &Step) -> String {
    match step {
        Step::Ring { user, seconds } => format!("ring {user} {seconds}"),
        Step::Queue(name) => format!("queue {name}"),
        Step::Menu(name) => format!("menu {name}"),
        Step::Pin(name) => format!("pin {}", name.as_ref().map_or("any", RowName::as_str)),
        Step::Voicemail { mailbox, greeting } => {
            let whose = match mailbox {
                Mailbox::User(user) => user.to_string(),
                Mailbox::Queue(name) => name.to_string(),
            };
            let greeting = greeting.as_ref().map_or("", RowName::as_str);
            format!("voicemail {whose} {greeting}")
                .trim_end()
                .to_owned()
        }
        Step::Forward(number) => format!("forward {number}"),
        Step::Announce(name) => format!("announce {name}"),
        Step::End(why) => format!("end {} {}", why.as_str(), why.code()),
    }
}

fn begin(
    rows: &Telephony,
    at: u64,
    line: &str,
    trunk: Option<&str>,
    caller: &str,
) -> (Way, String) {
    let line = line.parse().expect("a line");
    let trunk = trunk.map(|trunk| trunk.parse().expect("a name"));
    let caller = (!caller.is_empty()).then(|| number(caller));
    let (way, step) = with_facts(at, "", |facts| {
        Way::begin(rows, facts, &line, trunk.as_ref(), caller.as_ref())
    });
    (way, say(&step))
}

#[test]
fn a_number_leads_where_its_row_says() {
    let rows = rows();
    let at = MONDAY_NOON_IN_BERLIN;
    for (line, trunk, caller, expected) in [
        (
            "+4930100000",
            Some("provider"),
            "+4940123456",
            "ring anna 30",
        ),
        (
            "+4930100001",
            Some("provider"),
            "+4940123456",
            "queue sales",
        ),
        (
            "+4930100001",
            Some("other"),
            "+4940123456",
            "end unknown_number 404",
        ),
        ("+4930100001", None, "+4940123456", "queue sales"),
        ("+4930100003", Some("provider"), "+4930555555", "menu main"),
        (
            "+4930100003",
            Some("provider"),
            "+4940123456",
            "ring bert 30",
        ),
        ("+4930100003", Some("provider"), "", "end hang_up 480"),
        (
            "+4930100004",
            Some("provider"),
            "+4940123456",
            "ring bert 30",
        ),
        ("42", None, "", "ring bert 30"),
        ("+4930100005", None, "", "pin standup"),
        ("+4930100006", None, "", "pin any"),
        ("+4930100007", None, "", "announce gone"),
        ("+4930100008", None, "", "end broken 480"),
        ("+4930100009", None, "", "end broken 480"),
        ("+4930999999", None, "", "end unknown_number 404"),
    ] {
        assert_eq!(
            begin(&rows, at, line, trunk, caller).1,
            expected,
            "{line} {caller}"
        );
    }
    assert!(begin(&rows, at, "+4930100003", None, "").0.record);
    assert!(begin(&rows, at, "+4930100001", None, "").0.record);
    assert!(!begin(&rows, at, "+4930100000", None, "").0.record);
}

#[test]
fn hours_are_those_of_their_place() {
    let rows = rows();
    for (hours, expected) in [
        (0, "ring anna 30"),
        (4, "ring anna 30"),
        (5, "voicemail sales"),
        (24, "voicemail sales"),
        (7 * 24, "ring anna 30"),
    ] {
        let at = MONDAY_NOON_IN_BERLIN + hours * HOUR;
        assert_eq!(
            begin(&rows, at, "+4930100002", None, "").1,
            expected,
            "{hours}"
        );
    }
}

#[test]
fn a_caller_who_is_blocked_reaches_nothing() {
    let mut rows = rows();
    rows.callers = CallerRules {
        blocked: vec!["+4940*".parse().expect("a pattern")],
        allowed: vec!["+4940123456".parse().expect("a pattern")],
        blocked_hear: None,
    };
    let check = |rows: &Telephony, trunk, caller, expected: &str| {
        let (_, step) = begin(rows, 0, "+4930100000", trunk, caller);
        assert_eq!(step, expected, "{caller}");
    };
    check(&rows, Some("provider"), "+4940555555", "end blocked 486");
    check(&rows, Some("provider"), "+4940123456", "ring anna 30");
    check(&rows, None, "+4940555555", "ring anna 30");
    rows.callers.blocked_hear = Some("not-you".parse().expect("a name"));
    check(&rows, Some("provider"), "+4940555555", "announce not-you");
}

#[test]
fn a_user_is_reached_as_they_wish() {
    let rows = rows();
    let lead = |to: &str, talks: &str| {
        let (mut way, _) = begin(&rows, 0, "+4930100000", None, "");
        let step = with_facts(0, talks, |facts| {
            way.lead(&rows, facts, &Destination::User(user(to)))
        });
        (say(&step), way.diverted_by(&rows))
    };
    let dialled = |why| Some((number("+4930100000"), why));
    for (to, talks, expected, by) in [
        ("anna", "anna", "ring anna 30", None),
        (
            "away",
            "",
            "forward +4930777777",
            dialled(Diverted::Unconditional),
        ),
        ("quiet", "", "end busy 486", None),
        ("single", "", "ring single 30", None),
        ("single", "single", "ring anna 30", dialled(Diverted::Busy)),
        (
            "left",
            "",
            "end circle 482",
            dialled(Diverted::Unconditional),
        ),
    ] {
        assert_eq!(lead(to, talks), (expected.to_owned(), by), "{to} {talks}");
    }
}

#[test]
fn who_does_not_answer_has_said_what_then() {
    let rows = rows();
    let after = |name: &str, outcome| {
        let (mut way, _) = begin(&rows, 0, "+4930100000", None, "");
        let step = with_facts(0, "", |facts| {
            way.after_user(&rows, facts, &user(name), outcome)
        });
        (say(&step), way.diverted_by(&rows))
    };
    let own = Some((number("+4930111111"), Diverted::NoAnswer));
    assert_eq!(
        after("chain", Unanswered::NoAnswer),
        ("forward +4930999999".to_owned(), own)
    );
    for (name, outcome, expected) in [
        ("chain", Unanswered::Offline, "queue sales"),
        ("chain", Unanswered::Busy, "voicemail chain hello"),
        ("anna", Unanswered::NoAnswer, "voicemail anna"),
        ("quiet", Unanswered::NoAnswer, "end no_answer 480"),
        ("quiet", Unanswered::Offline, "end offline 480"),
    ] {
        assert_eq!(after(name, outcome).0, expected, "{name} {outcome:?}");
    }
}

#[test]
fn a_call_is_led_on_a_bounded_number_of_times() {
    let rows = rows();
    let (mut way, _) = begin(&rows, 0, "+4930100000", None, "");
    let mut steps = 0;
    loop {
        let step = with_facts(0, "", |facts| {
            way.lead(
                &rows,
                facts,
                &Destination::Menu("main".parse().expect("a name")),
            )
        });
        if step == Step::End(NoWay::Circle) {
            break;
        }
        steps += 1;
    }
    assert_eq!(steps, HOPS_MAX - 1);
}
