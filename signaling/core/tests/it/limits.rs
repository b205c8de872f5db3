//! Bad input: a refusal with a stable code, and nobody else is harmed.

use model::AccountId;
use serde_json::{Value, json};
use signaling_core::Limits;

use crate::harness::TestSignaling;

#[test]
fn commands_beyond_the_burst_are_refused_until_time_passes() {
    let limits = Limits {
        commands_per_second: 2,
        commands_burst: 5,
        ..Limits::default()
    };
    let mut t = TestSignaling::with_limits(limits);
    t.connect("alice");
    let refresh = |t: &mut TestSignaling| {
        let id = t.send("alice", "turn.refresh", json!({}));
        t.answer_to("alice", &id)
            .map_or_else(|error| error["code"].to_string(), |_| "ok".into())
    };

    let first: Vec<String> = (0..6).map(|_| refresh(&mut t)).collect();
    assert_eq!(first, ["ok", "ok", "ok", "ok", "ok", "\"rate_limited\""]);
    t.advance(500);
    assert_eq!(refresh(&mut t), "ok");
    assert_eq!(refresh(&mut t), "\"rate_limited\"");
}

#[test]
fn who_never_stops_is_closed() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    for _ in 0..2_000 {
        t.send("alice", "turn.refresh", json!({}));
    }
    assert_eq!(t.device("alice").closed, Some(4008));
    t.ok("bob", "turn.refresh", json!({}));
}

#[test]
fn invites_are_limited_per_user_over_all_devices() {
    let limits = Limits {
        invites_per_user_burst: 2,
        ..Limits::default()
    };
    let mut t = TestSignaling::with_limits(limits);
    for name in ["alice", "alice2", "bob"] {
        t.connect(name);
    }
    t.invite("alice", "nobody");
    t.invite("alice2", "nobody");
    let call = t.new_call();
    let invite = json!({ "call": call, "to": "bob", "media": { "audio": true, "video": false } });
    assert_eq!(t.refused("alice", "call.invite", invite), "rate_limited");
    t.invite("bob", "nobody");
}

#[test]
fn an_account_has_a_limit_of_its_own() {
    let limits = Limits {
        commands_per_account_burst: 3,
        commands_per_account_per_second: 1,
        ..Limits::default()
    };
    let mut t = TestSignaling::with_limits(limits);
    t.device("stranger").account = AccountId::from_u128(2);
    for name in ["alice", "bob", "stranger"] {
        t.connect(name);
    }
    for name in ["alice", "bob", "alice"] {
        t.ok(name, "turn.refresh", json!({}));
    }
    assert_eq!(t.refused("bob", "turn.refresh", json!({})), "rate_limited");
    t.ok("stranger", "turn.refresh", json!({}));
}

#[test]
fn sessions_are_limited_per_user_account_and_address() {
    let limits = Limits {
        sessions_per_user_max: 2,
        sessions_per_account_max: 3,
        hellos_per_address_burst: 1,
        ..Limits::default()
    };
    let mut t = TestSignaling::with_limits(limits);
    let refusal = |t: &mut TestSignaling, name: &str| {
        assert_eq!(t.connect(name), Value::Null, "{name}");
        let code = t.take(name, "error").unwrap()["data"]["code"]
            .as_str()
            .unwrap()
            .to_owned();
        (code, t.device(name).closed.unwrap())
    };

    t.connect("alice");
    t.connect("alice2");
    assert_eq!(
        refusal(&mut t, "alice3"),
        ("too_many_sessions".into(), 4006)
    );
    t.connect("bob");
    assert_eq!(refusal(&mut t, "carol"), ("too_many_sessions".into(), 4006));

    for name in ["dave", "eve"] {
        t.device(name).address = Some(77);
        t.device(name).account = AccountId::from_u128(2);
    }
    t.connect("dave");
    assert_eq!(refusal(&mut t, "eve"), ("rate_limited".into(), 4008));
}

#[test]
fn what_cannot_be_read_is_refused_and_the_session_stays() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    let mut check = |text: &str, code: &str, closed: Option<u16>| {
        t.send_text("alice", text);
        assert_eq!(
            t.take("alice", "error").unwrap()["data"]["code"],
            code,
            "{text:.80}"
        );
        assert_eq!(t.device("alice").closed, closed);
        if closed.is_some() {
            assert_eq!(t.connect("alice")["resumed"], true);
        }
    };

    check("garbage", "bad_frame", Some(4000));
    check("{}", "bad_frame", Some(4000));
    check(r#"{"type":"turn.refresh"}"#, "bad_frame", Some(4000));
    check(r#"{"type":"hello","data":{}}"#, "bad_data", None);
    check(r#"{"type":"nonsense"}"#, "unknown_type", None);
    check(&"x".repeat(256 * 1024 + 1), "too_large", Some(1009));

    assert_eq!(t.refused("alice", "nonsense", json!({})), "unknown_type");
    assert_eq!(
        t.refused("alice", "call.hangup", json!({ "call": "x" })),
        "bad_data"
    );
    assert_eq!(t.refused("alice", "call.hangup", json!({})), "bad_data");
    t.talk("alice", "bob");
}

#[test]
fn another_accounts_calls_are_unknown() {
    let mut t = TestSignaling::people(&["alice", "bob"]);
    t.device("mallory").account = AccountId::from_u128(2);
    t.connect("mallory");
    t.device("bob9").account = AccountId::from_u128(2);
    t.connect("bob9");
    let call = t.talk("alice", "bob");
    let unknown = t.new_call();
    t.hush();

    for id in [&call, &unknown] {
        for kind in ["call.state", "call.hangup", "call.ringing"] {
            assert_eq!(
                t.refused("mallory", kind, json!({ "call": id })),
                "unknown_call"
            );
        }
    }
    let sealed = t.device("alice").sealed[&call].1.clone();
    let sync = json!({ "call": call, "sealed": sealed });
    assert_eq!(t.refused("mallory", "call.sync", sync), "forged_snapshot");

    // The same id is free in another Account, and the same user name is another User.
    t.invite_as("mallory", "bob", &call);
    assert_eq!(t.heard("bob9"), ["call.incoming"]);
    assert_eq!(t.heard("bob"), [""; 0]);
}

#[test]
fn who_takes_no_part_learns_nothing() {
    let mut t = TestSignaling::people(&["alice", "bob", "eve"]);
    let call = t.talk("alice", "bob");
    for kind in ["call.state", "call.hangup", "call.ringing", "ice.restart"] {
        assert_eq!(
            t.refused("eve", kind, json!({ "call": call })),
            "not_a_party"
        );
    }
    let sealed = t.device("alice").sealed[&call].1.clone();
    assert_eq!(
        t.refused(
            "eve",
            "call.sync",
            json!({ "call": call, "sealed": sealed })
        ),
        "not_a_party"
    );
}
