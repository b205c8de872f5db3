//! Sessions nobody attends: encoders and viewers over HTTP are in Rooms, and nowhere else.

use model::RecordChange;
use serde_json::json;
use signaling_core::{Counts, Limits};

use crate::harness::TestSignaling;

/// A server with an encoder of the User `camera`, connected.
fn with_encoder() -> TestSignaling {
    let mut t = TestSignaling::new();
    t.device("camera").attended = false;
    t.connect("camera");
    t
}

#[test]
fn an_encoder_makes_nobody_present_and_is_not_rung() {
    let mut t = with_encoder();
    assert!(!t.records.iter().any(|change| matches!(
        change,
        RecordChange::UserSeen { .. } | RecordChange::DeviceSeen { .. }
    )));

    t.connect("alice");
    let users = t.ok(
        "alice",
        "presence.subscribe",
        json!({ "users": ["camera"] }),
    );
    assert_eq!(users["users"][0]["status"], "offline");
    t.hush();
    t.invite("alice", "camera");
    assert_eq!(t.take("camera", "call.incoming"), None);
}

#[test]
fn an_encoder_comes_to_moderate_by_no_rule() {
    let mut t = with_encoder();
    assert_eq!(t.join("camera")["role"], "speaker", "it began the Room");
    t.connect("alice");
    assert_eq!(t.join("alice")["role"], "moderator");
    let room = t.join("camera")["state"]["room"].clone();
    t.ok("alice", "room.leave", json!({ "room": room }));
    let people = t.everybody(room.as_str().unwrap());
    assert_eq!((people.len(), &people[0]["role"]), (1, &json!("speaker")));

    // A User's encoder is not the User, and takes nothing of theirs away.
    t.device("alice2").attended = false;
    t.connect("alice2");
    assert_eq!(t.join("alice2")["role"], "speaker");
    t.ok("alice2", "room.leave", json!({ "room": room }));
    assert_eq!(t.join("alice")["role"], "moderator");
}

#[test]
fn an_encoder_ends_with_its_key_and_is_forgotten() {
    let mut t = with_encoder();
    let (account, api_key) = (t.device("camera").account, t.device("camera").api_key);
    t.join("camera");
    assert!(t.cores[0].serves(account));
    t.revoke(account, api_key);
    assert_eq!(t.device("camera").closed, Some(4003));

    t.advance(200_000);
    assert_eq!(t.cores[0].counts(), Counts::default());
    assert!(!t.cores[0].serves(account));
}

#[test]
fn an_account_has_so_many_encoders_whoever_they_belong_to() {
    let mut t = TestSignaling::with_limits(Limits {
        unattended_per_account_max: 2,
        sessions_per_user_max: 1,
        ..Limits::default()
    });
    for name in ["camera", "camera1", "screen"] {
        t.device(name).attended = false;
    }
    assert!(t.connect("camera").is_object());
    assert!(
        t.connect("camera1").is_object(),
        "as many as there are viewers of a User"
    );
    assert!(t.connect("screen").is_null());
    assert!(t.connect("alice").is_object());

    t.send_text("camera", r#"{"type":"bye"}"#);
    assert!(t.connect("screen").is_object());
}
