//! An example of every frame, and of `data` that does not fit.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the tests may unwrap as the tests do"
)]

use std::collections::BTreeSet;

use model::{CallState, Media, Party, Phase, Status, Timestamp};
use serde_json::{Value, json};
use signaling_wire::{
    CallEvent, Candidate, Candidates, ClientFrame, Empty, ErrorCode, ErrorData, Goaway, Head,
    HistoryNews, IceRestart, IceServer, Incoming, MediaSent, OkData, Picture, Sdp, ServerFrame,
    ServerLimits, Update, UserPresence, Verify, Welcome, decode, encode, schema,
};

const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

#[test]
fn every_frame_of_a_client_is_read() {
    let key = format!("BA{}", "x".repeat(85));
    let (hash, signature) = ("h".repeat(43), "s".repeat(86));
    let media = json!({ "audio": true, "video": false });
    let shown = json!({ "key": key, "fingerprint": "sha-256 aa:bb", "nonce": hash });
    let sdp = json!({ "call": ID, "generation": 1, "sdp": "v=0\r\n", "signature": signature });
    let candidate = json!({ "candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdp_mid": "0",
        "sdp_m_line_index": 0, "username_fragment": "abcd" });

    let examples = [
        (
            "hello",
            json!({ "token": "a.b.c", "device": { "id": ID, "name": "Phone", "key": key },
            "resume": { "session": ID, "key": "k", "ack": 41 } }),
        ),
        ("ack", json!({})),
        ("ping", json!({})),
        ("pong", json!({})),
        ("bye", json!({})),
        ("turn.refresh", json!({})),
        ("presence.subscribe", json!({ "users": ["alice", "bob"] })),
        (
            "presence.set",
            json!({ "status": "do_not_disturb", "call_waiting": false }),
        ),
        (
            "call.invite",
            json!({ "call": ID, "to": "bob", "media": media, "commitment": hash, "ttl_ms": 45_000 }),
        ),
        ("call.ringing", json!({ "call": ID })),
        ("call.accept", json!({ "call": ID, "rev": 3 })),
        (
            "call.decline",
            json!({ "call": ID, "rev": 3, "reason": "busy" }),
        ),
        ("call.cancel", json!({ "call": ID, "rev": 3 })),
        ("call.hangup", json!({ "call": ID, "cause": 16 })),
        ("call.hold", json!({ "call": ID, "on": true })),
        ("call.transfer", json!({ "call": ID, "to": "carol" })),
        ("call.verify", json!({ "call": ID, "reveal": shown })),
        (
            "call.media",
            json!({ "call": ID, "audio": true, "video": "screen" }),
        ),
        ("call.sync", json!({ "call": ID, "sealed": "AQ" })),
        ("call.state", json!({ "call": ID })),
        ("sdp.offer", sdp.clone()),
        ("sdp.answer", sdp),
        (
            "ice.candidates",
            json!({ "call": ID, "generation": 1, "candidates": [candidate], "done": true }),
        ),
        ("ice.restart", json!({ "call": ID })),
        ("history.list", json!({ "before": "cursor", "limit": 20 })),
        ("history.seen", json!({})),
    ];

    let mut seen = BTreeSet::new();
    for (kind, data) in examples {
        let text =
            json!({ "type": kind, "id": ID, "seq": 17, "ack": 41, "data": data }).to_string();
        let frame = decode(&text).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(frame.content.kind(), kind);
        assert_eq!((frame.head.seq, frame.head.ack), (Some(17), Some(41)));
        seen.insert(format!("client.{kind}"));
    }
    assert_eq!(seen, of_schema("client."), "every type has an example");
}

#[test]
fn data_that_does_not_fit_is_refused() {
    let check = |kind: &str, data: Value| {
        let text = json!({ "type": kind, "id": ID, "data": data }).to_string();
        let error = decode(&text).unwrap_err();
        assert_eq!(
            (error.code, error.head.id.is_some()),
            (ErrorCode::BadData, true),
            "{text}"
        );
    };
    let media = json!({ "audio": true, "video": false });

    check(
        "hello",
        json!({ "token": "t", "device": { "id": ID, "key": "short" } }),
    );
    check(
        "hello",
        json!({ "token": "t".repeat(9_000), "device": { "id": ID, "key": "short" } }),
    );
    check("presence.set", json!({ "status": "in_call" }));
    check("presence.subscribe", json!({ "users": vec!["x"; 1_001] }));
    check("presence.subscribe", json!({ "users": [""] }));
    check("call.invite", json!({ "call": ID, "to": "bob" }));
    check(
        "call.invite",
        json!({ "call": ID, "to": "b\u{0}b", "media": media }),
    );
    check(
        "call.invite",
        json!({ "call": ID, "to": "bob", "media": media, "ttl_ms": 4_999 }),
    );
    check(
        "call.invite",
        json!({ "call": ID, "to": "bob", "media": media, "ttl_ms": 120_001 }),
    );
    check(
        "call.invite",
        json!({ "call": ID, "to": "bob", "media": media, "commitment": "short" }),
    );
    check("call.accept", json!({ "call": ID }));
    check("call.accept", json!({ "call": ID, "rev": -1 }));
    check(
        "call.accept",
        json!({ "call": ID.to_lowercase(), "rev": 1 }),
    );
    check(
        "call.decline",
        json!({ "call": ID, "rev": 1, "reason": "missed" }),
    );
    check("call.hangup", json!({ "call": ID, "cause": 128 }));
    check("call.transfer", json!({ "call": ID }));
    check(
        "call.transfer",
        json!({ "call": ID, "to": "bob", "with": ID }),
    );
    check("call.verify", json!({ "call": ID }));
    check("call.media", json!({ "call": ID, "video": "camera" }));
    check(
        "call.media",
        json!({ "call": ID, "audio": true, "video": "window" }),
    );
    check(
        "call.sync",
        json!({ "call": ID, "sealed": "x".repeat(20_000) }),
    );
    check(
        "sdp.offer",
        json!({ "call": ID, "generation": 1, "sdp": "v=0", "signature": "none" }),
    );
    check(
        "ice.candidates",
        json!({ "call": ID, "generation": 1, "candidates": [{ "candidate": "x".repeat(2_000) }] }),
    );
    check("history.list", json!({ "limit": 101 }));
    check("history.list", json!({ "limit": 0 }));
}

#[test]
fn every_frame_of_the_server_is_written_as_it_is_read() {
    let examples = [
        ServerFrame::Welcome(Box::new(welcome())),
        ServerFrame::Ok(OkData::Call {
            state: Box::new(state()),
            sealed: "AQ".into(),
        }),
        ServerFrame::Error(ErrorData {
            code: ErrorCode::Conflict,
            message: "the call has moved on".into(),
            state: Some(Box::new(state())),
            sealed: Some("AQ".into()),
        }),
        ServerFrame::Ack(Empty {}),
        ServerFrame::Ping(Empty {}),
        ServerFrame::Pong(Empty {}),
        ServerFrame::Goaway(Goaway {
            in_ms: 5_000,
            reason: "deploy".into(),
        }),
        ServerFrame::Presence(UserPresence {
            user: "bob".parse().unwrap(),
            name: None,
            status: Status::InCall,
        }),
        ServerFrame::CallIncoming(Box::new(Incoming {
            state: state(),
            sealed: "AQ".into(),
            waiting: false,
        })),
        ServerFrame::CallUpdate(Box::new(Update {
            state: state(),
            sealed: "AQ".into(),
            event: CallEvent::Answered,
            by: Some("bob".parse().unwrap()),
            device: Some(ID.parse().unwrap()),
        })),
        ServerFrame::CallVerify(Verify {
            call: ID.parse().unwrap(),
            from: Some(ID.parse().unwrap()),
            commitment: Some("h".repeat(43)),
            answer: None,
            reveal: None,
        }),
        ServerFrame::CallMedia(MediaSent {
            call: ID.parse().unwrap(),
            from: Some(ID.parse().unwrap()),
            audio: false,
            video: Some(Picture::Screen),
        }),
        ServerFrame::SdpOffer(sdp()),
        ServerFrame::SdpAnswer(sdp()),
        ServerFrame::IceCandidates(Candidates {
            call: ID.parse().unwrap(),
            from: Some(ID.parse().unwrap()),
            generation: 1,
            candidates: vec![Candidate {
                candidate: String::new(),
                sdp_mid: None,
                sdp_m_line_index: None,
                username_fragment: None,
            }],
            done: None,
        }),
        ServerFrame::IceRestart(IceRestart {
            call: ID.parse().unwrap(),
            from: Some(ID.parse().unwrap()),
        }),
        ServerFrame::History(HistoryNews {
            entry: None,
            missed: 2,
        }),
    ];

    let mut seen = BTreeSet::new();
    for frame in examples {
        let head = Head {
            id: Some(ID.parse().unwrap()),
            seq: Some(42),
            ack: Some(17),
            reply_to: None,
        };
        let json: Value =
            serde_json::from_str(&encode(frame.kind(), &head, &frame.data())).unwrap();
        assert_eq!(json["type"], frame.kind());
        assert_eq!(
            (&json["id"], &json["seq"], &json["ack"]),
            (&json!(ID), &json!(42), &json!(17))
        );

        let data = json["data"].clone();
        let again = match frame {
            ServerFrame::Welcome(_) => ServerFrame::Welcome(serde_json::from_value(data).unwrap()),
            ServerFrame::Ok(_) => ServerFrame::Ok(serde_json::from_value(data).unwrap()),
            ServerFrame::Error(_) => ServerFrame::Error(serde_json::from_value(data).unwrap()),
            ServerFrame::CallUpdate(_) => {
                ServerFrame::CallUpdate(serde_json::from_value(data).unwrap())
            }
            ref other => other.clone(),
        };
        assert_eq!(again, frame);
        seen.insert(format!("server.{}", frame.kind()));
    }
    assert_eq!(seen, of_schema("server."), "every type has an example");
}

#[test]
fn what_the_server_relays_a_client_could_have_sent() {
    let frame = encode(
        "sdp.offer",
        &Head::default(),
        &ServerFrame::SdpOffer(sdp()).data(),
    );
    assert!(matches!(decode(&frame).unwrap().content, ClientFrame::SdpOffer(got) if got == sdp()));
}

fn of_schema(prefix: &str) -> BTreeSet<String> {
    let schema = schema();
    let definitions = schema["$defs"].as_object().unwrap();
    definitions
        .keys()
        .filter(|name| name.starts_with(prefix))
        .cloned()
        .collect()
}

fn sdp() -> Sdp {
    Sdp {
        call: ID.parse().unwrap(),
        from: Some(ID.parse().unwrap()),
        generation: 1,
        sdp: "v=0\r\n".into(),
        signature: "s".repeat(86),
    }
}

fn state() -> CallState {
    let party = |user: &str| Party {
        user: user.parse().unwrap(),
        name: None,
        device: None,
        key: None,
    };

    CallState {
        call: ID.parse().unwrap(),
        rev: 1,
        epoch: 1,
        phase: Phase::Ringing,
        media: Media {
            audio: true,
            video: true,
        },
        caller: party("alice"),
        callee: party("bob"),
        ringing: Vec::new(),
        held_by: Vec::new(),
        created_at: Timestamp::from_millis(1_790_000_000_000),
        answered_at: None,
        ended_at: None,
        commitment: None,
        transfer: None,
        replaces: None,
        end: None,
    }
}

fn welcome() -> Welcome {
    Welcome {
        session: ID.parse().unwrap(),
        key: "secret".into(),
        ack: 0,
        resumed: false,
        account: ID.parse().unwrap(),
        user: "alice".parse().unwrap(),
        name: Some("Alice".into()),
        ice_servers: vec![IceServer {
            urls: vec!["stun:example.com".into()],
            username: None,
            credential: None,
        }],
        limits: ServerLimits {
            frame_bytes_max: 65_536,
            commands_per_second: 50,
            commands_burst: 200,
            calls_per_user_max: 8,
            sdp_bytes_max: 32_768,
            candidates_max: 32,
        },
        resume_ms: 60_000,
        ping_ms: 25_000,
        server: "offhook/0.1.0".into(),
    }
}
