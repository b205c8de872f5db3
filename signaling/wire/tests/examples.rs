//! An example of every frame, and of `data` that does not fit.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the tests may unwrap as the tests do"
)]

use std::collections::BTreeSet;

use model::media::{ConnectionQuality, LayerWanted, Slot};
use model::phone::Progress;
use model::room::{Announcement, ParticipantState, RoomSettings, RoomState, TrackState};
use model::{CallState, Media, Party, Phase, Role, Source, Status, Timestamp};
use serde_json::{Value, json};
use signaling_wire::room::{
    ChatAuthor, ChatMessage, DenyReason, LeaveReason, OnRoom, RefusedMedia, RoomChatNews,
    RoomConnection, RoomDenied, RoomEndReason, RoomEnded, RoomInvited, RoomJoined, RoomKeysNews,
    RoomLayers, RoomLeft, RoomLobby, RoomMuted, RoomOffered, RoomParticipant, RoomPaused,
    RoomQuality, RoomReaction, RoomSettingsNews, RoomSlots, RoomSpeakers, TrackTaken, Waiting,
};
use signaling_wire::{
    CallDtmf, CallEvent, CallProgress, Candidate, Candidates, ClientFrame, Empty, ErrorCode,
    ErrorData, Goaway, Head, HistoryNews, IceRestart, IceServer, Incoming, MediaSent, OkData,
    Picture, Sdp, ServerFrame, ServerLimits, Update, Upgraded, UserPresence, Verify, VoicemailNews,
    Welcome, decode, encode, schema,
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
        ("call.dtmf", json!({ "call": ID, "keys": "12#" })),
        ("call.accept", json!({ "call": ID, "rev": 3 })),
        (
            "call.decline",
            json!({ "call": ID, "rev": 3, "reason": "busy" }),
        ),
        ("call.cancel", json!({ "call": ID, "rev": 3 })),
        ("call.hangup", json!({ "call": ID, "cause": 16 })),
        ("call.hold", json!({ "call": ID, "on": true })),
        ("call.transfer", json!({ "call": ID, "to": "carol" })),
        ("call.upgrade", json!({ "call": ID })),
        ("call.moved", json!({ "call": ID, "to": "room" })),
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
        ("voicemail.list", json!({ "limit": 20 })),
        ("voicemail.heard", json!({ "voicemail": ID })),
        ("voicemail.delete", json!({ "voicemail": ID })),
        ("phone.settings", json!({})),
        (
            "phone.set",
            json!({ "do_not_disturb": false, "call_waiting": true, "ring_seconds": 30, "voicemail": true,
            "forward": { "busy": "voicemail", "no_answer": { "user": "bob" }, "offline": { "number": "+4930123456" } } }),
        ),
        (
            "room.join",
            json!({ "room": "weekly", "generation": 1, "sdp": "v=0\r\n", "metadata": "{}",
                "tracks": [{ "mid": "0", "source": "microphone", "muted": true }, { "mid": "1", "source": "screen" }],
                "settings": { "lobby": true, "locked": false, "role": "listener", "metadata": "" } }),
        ),
        (
            "room.offer",
            json!({ "room": ID, "generation": 2, "sdp": "v=0\r\n", "tracks": [] }),
        ),
        ("room.leave", json!({ "room": ID })),
        ("room.list", json!({ "room": ID, "after": ID })),
        (
            "room.mute",
            json!({ "room": ID, "track": ID, "muted": true }),
        ),
        ("room.ask", json!({ "room": ID, "track": ID })),
        ("room.invite", json!({ "room": ID, "user": "zoe" })),
        (
            "room.want",
            json!({ "room": ID, "automatic": false,
                "wishes": [{ "track": ID, "wanted": true, "height": 720, "pinned": true, "priority": 3 }] }),
        ),
        ("room.set", json!({ "room": ID, "locked": true })),
        (
            "room.admit",
            json!({ "room": ID, "waiting": [ID], "admit": true }),
        ),
        (
            "room.role",
            json!({ "room": ID, "participant": ID, "role": "speaker",
                "permissions": { "speak": true, "video": false, "share": false, "moderate": false } }),
        ),
        ("room.remove", json!({ "room": ID, "participant": ID })),
        ("room.end", json!({ "room": ID })),
        ("room.hand", json!({ "room": ID, "up": true })),
        ("room.react", json!({ "room": ID, "reaction": "👍" })),
        (
            "room.chat",
            json!({ "room": ID, "text": "one\n\ttwo", "to": [ID] }),
        ),
        ("room.metadata", json!({ "room": ID, "metadata": null })),
        (
            "room.announce",
            json!({ "room": ID, "e2ee": { "key": key, "signature": signature } }),
        ),
        (
            "room.keys",
            json!({ "room": ID, "epoch": 65_535, "keys": [{ "participant": ID, "ciphertext": "AQ" }] }),
        ),
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
    check("call.dtmf", json!({ "call": ID, "keys": "" }));
    check("call.dtmf", json!({ "call": ID, "keys": "12a" }));
    check("call.dtmf", json!({ "call": ID, "keys": "1".repeat(33) }));
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
    check("voicemail.list", json!({ "limit": 101 }));
    check("voicemail.heard", json!({ "voicemail": "1" }));
    let settings = |ring_seconds: u16, number: &str| {
        json!({ "do_not_disturb": false, "call_waiting": true, "ring_seconds": ring_seconds,
            "voicemail": true, "forward": { "busy": { "number": number } } })
    };
    check("phone.set", json!({}));
    check("phone.set", settings(4, "42"));
    check("phone.set", settings(30, &"4".repeat(65)));
}

#[test]
fn room_data_that_does_not_fit_is_refused() {
    let check = |kind: &str, data: Value| {
        let text = json!({ "type": kind, "id": ID, "data": data }).to_string();
        assert_eq!(
            decode(&text).map_err(|error| error.code),
            Err(ErrorCode::BadData),
            "{text}"
        );
    };
    let join = |change: Value| {
        let mut data = json!({ "room": "weekly", "generation": 1, "sdp": "v=0" });
        for (name, value) in change.as_object().unwrap() {
            data[name] = value.clone();
        }
        data
    };
    let track = |mid: &str| json!({ "mid": mid, "source": "camera" });

    check("room.join", join(json!({ "room": "Weekly" })));
    check("room.join", join(json!({ "room": "" })));
    check("room.join", join(json!({ "generation": -1 })));
    check("room.join", join(json!({ "sdp": null })));
    check("room.join", join(json!({ "tracks": [track("")] })));
    check(
        "room.join",
        join(json!({ "tracks": [track(&"m".repeat(17))] })),
    );
    check("room.join", join(json!({ "tracks": [track("a b")] })));
    check(
        "room.join",
        join(json!({ "tracks": [track("0"), track("0")] })),
    );
    let of = |mid: &str, source: &str| json!({ "mid": mid, "source": source });
    for source in ["microphone", "screen_audio"] {
        let tracks = [of("0", source), of("1", source)];
        check("room.join", join(json!({ "tracks": tracks })));
    }
    let many: Vec<Value> = (0..17).map(|mid| track(&mid.to_string())).collect();
    check("room.join", join(json!({ "tracks": many })));
    check(
        "room.join",
        join(json!({ "tracks": [{ "mid": "0", "source": "window" }] })),
    );
    check("room.join", join(json!({ "metadata": "x".repeat(4_097) })));
    check("room.join", join(json!({ "metadata": "a\u{0}b" })));
    check(
        "room.join",
        join(json!({ "settings": { "metadata": "x".repeat(4_097) } })),
    );
    check("room.set", json!({ "room": ID, "role": "owner" }));
    check("room.role", json!({ "room": ID, "participant": ID }));
    check(
        "room.admit",
        json!({ "room": ID, "waiting": vec![ID; 257], "admit": true }),
    );
    check(
        "room.want",
        json!({ "room": ID, "automatic": true, "wishes": vec![json!({ "track": ID, "wanted": true }); 1_001] }),
    );
    check(
        "room.want",
        json!({ "room": ID, "automatic": true, "wishes": [{ "track": ID, "wanted": true, "height": 70_000 }] }),
    );
    check("room.react", json!({ "room": ID, "reaction": "" }));
    check(
        "room.react",
        json!({ "room": ID, "reaction": "x".repeat(17) }),
    );
    check("room.react", json!({ "room": ID, "reaction": "\n" }));
    let key = format!("BA{}", "x".repeat(85));
    let announce = |key: &str, signature: String| json!({ "room": ID, "e2ee": { "key": key, "signature": signature } });
    check("room.announce", announce(&key, "s".repeat(85)));
    check("room.announce", announce(&key[1..], "s".repeat(86)));
    let keys = |epoch: u32, count: usize, len: usize| {
        let key = json!({ "participant": ID, "ciphertext": "x".repeat(len) });
        json!({ "room": ID, "epoch": epoch, "keys": vec![key; count] })
    };
    check("room.keys", keys(65_536, 1, 1));
    check("room.keys", keys(1, 1_001, 1));
    check("room.keys", keys(1, 1, 129));
    check("room.keys", keys(1, 2, 1));
    check("room.chat", json!({ "room": ID, "text": "" }));
    check(
        "room.chat",
        json!({ "room": ID, "text": "x".repeat(4_097) }),
    );
    check("room.chat", json!({ "room": ID, "text": "a\rb" }));
    check("room.chat", json!({ "room": ID, "text": "a", "to": [] }));
    check(
        "room.chat",
        json!({ "room": ID, "text": "a", "to": vec![ID; 65] }),
    );
}

#[test]
fn each_answer_about_a_room_is_told_from_the_others() {
    let answers = [
        OkData::RoomJoined(Box::new(joined())),
        OkData::RoomWaiting {
            waiting: true,
            room: ID.parse().unwrap(),
        },
        OkData::RoomOffered(RoomOffered {
            generation: 2,
            sdp: "v=0\r\n".into(),
            tracks: Vec::new(),
            slots: Vec::new(),
        }),
        OkData::RoomParticipants {
            participants: Vec::new(),
            next: Some(ID.parse().unwrap()),
        },
        OkData::RoomSettings {
            settings: RoomSettings::default(),
        },
        OkData::RoomChat {
            id: ID.parse().unwrap(),
            at: Timestamp::from_millis(1),
        },
        OkData::Upgraded {
            room: "weekly".parse().unwrap(),
        },
        OkData::Empty(Empty {}),
    ];

    for answer in answers {
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<OkData>(&text).unwrap(), answer);
    }
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
            state: Some(Box::new(state())),
            sealed: Some("AQ".into()),
            ..ErrorData::new(ErrorCode::Conflict, "the call has moved on")
        }),
        ServerFrame::Error(ErrorData {
            reason: Some(RefusedMedia::NoCodec),
            ..ErrorData::new(ErrorCode::MediaRefused, "no codec in common")
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
        ServerFrame::CallProgress(CallProgress::new(
            ID.parse().unwrap(),
            Progress::Queued { position: 2 },
        )),
        ServerFrame::CallDtmf(CallDtmf {
            call: ID.parse().unwrap(),
            keys: "5".parse().unwrap(),
            by: Some("tel:+4930123456".parse().unwrap()),
        }),
        ServerFrame::CallUpgraded(Upgraded {
            call: ID.parse().unwrap(),
            room: "weekly".parse().unwrap(),
            by: "bob".parse().unwrap(),
        }),
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
        ServerFrame::Voicemail(Box::new(VoicemailNews {
            entry: None,
            deleted: Some(ID.parse().unwrap()),
            unheard: 2,
        })),
    ];
    let examples = examples.into_iter().chain(room_frames());

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
            ServerFrame::RoomParticipant(_) => {
                ServerFrame::RoomParticipant(serde_json::from_value(data).unwrap())
            }
            ServerFrame::RoomLobby(_) => {
                ServerFrame::RoomLobby(serde_json::from_value(data).unwrap())
            }
            ServerFrame::RoomSlots(_) => {
                ServerFrame::RoomSlots(serde_json::from_value(data).unwrap())
            }
            ServerFrame::RoomChat(_) => {
                ServerFrame::RoomChat(serde_json::from_value(data).unwrap())
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
        phone: None,
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
        from_room: None,
        room: None,
        end: None,
    }
}

fn room_frames() -> Vec<ServerFrame> {
    let (room, id) = (ID.parse().unwrap(), || ID.parse().unwrap());
    let participant = joined().state.participants.remove(0);
    let slots = vec![Slot {
        mid: "3".into(),
        track: Some(ID.parse().unwrap()),
    }];

    vec![
        ServerFrame::Ok(OkData::RoomJoined(Box::new(joined()))),
        ServerFrame::RoomAdmitted(OnRoom { room }),
        ServerFrame::RoomDenied(RoomDenied {
            room,
            reason: DenyReason::Denied,
        }),
        ServerFrame::RoomParticipant(Box::new(RoomParticipant { room, participant })),
        ServerFrame::RoomLeft(RoomLeft {
            room,
            participant: id(),
            reason: LeaveReason::Gone,
            phone: None,
        }),
        ServerFrame::RoomSettings(RoomSettingsNews {
            room,
            settings: RoomSettings::default(),
        }),
        ServerFrame::RoomLobby(RoomLobby {
            room,
            waiting: vec![Waiting {
                waiting: id(),
                user: "zoe".parse().unwrap(),
                name: None,
                at: Timestamp::from_millis(1),
            }],
        }),
        ServerFrame::RoomSlots(RoomSlots {
            room,
            slots,
            audio_wanted: 4,
            video_wanted: 8,
        }),
        ServerFrame::RoomSpeakers(RoomSpeakers {
            room,
            speakers: vec![id()],
        }),
        ServerFrame::RoomQuality(RoomQuality {
            room,
            participant: id(),
            quality: ConnectionQuality::Poor,
        }),
        ServerFrame::RoomPaused(RoomPaused {
            room,
            track: ID.parse().unwrap(),
            paused: true,
        }),
        ServerFrame::RoomLayers(RoomLayers {
            room,
            track: ID.parse().unwrap(),
            wanted: vec![LayerWanted {
                rid: "h".into(),
                wanted: false,
            }],
        }),
        ServerFrame::RoomConnection(RoomConnection {
            room,
            connected: true,
        }),
        ServerFrame::RoomChat(Box::new(RoomChatNews {
            room,
            message: joined().chat.remove(0),
        })),
        ServerFrame::RoomReaction(RoomReaction {
            room,
            participant: id(),
            reaction: "👍".into(),
        }),
        ServerFrame::RoomMuted(RoomMuted {
            room,
            track: ID.parse().unwrap(),
            by: id(),
        }),
        ServerFrame::RoomAsked(RoomMuted {
            room,
            track: ID.parse().unwrap(),
            by: id(),
        }),
        ServerFrame::RoomInvited(RoomInvited {
            room: "weekly".parse().unwrap(),
            by: "zoe".parse().unwrap(),
            name: None,
            participants: 2,
        }),
        ServerFrame::RoomKeys(RoomKeysNews {
            room,
            from: id(),
            epoch: 7,
            ciphertext: "AQ".into(),
        }),
        ServerFrame::RoomEnded(RoomEnded {
            room,
            reason: RoomEndReason::Failed,
        }),
    ]
}

fn joined() -> RoomJoined {
    let (participant, track) = (ID.parse().unwrap(), ID.parse().unwrap());
    let at = Timestamp::from_millis(1_790_000_000_000);
    let alice = ParticipantState {
        participant,
        user: "alice".parse().unwrap(),
        name: Some("Alice".into()),
        role: Role::Moderator,
        permissions: Role::Moderator.permissions(),
        hand_at: Some(at),
        joined_at: at,
        phone: None,
        tracks: vec![TrackState {
            track,
            source: Source::Microphone,
            muted: false,
        }],
        metadata: None,
        e2ee: Some(Announcement {
            device: ID.parse().unwrap(),
            device_key: "BA".into(),
            key: "BB".into(),
            signature: "AQ".into(),
        }),
    };

    RoomJoined {
        participant,
        role: Role::Moderator,
        permissions: Role::Moderator.permissions(),
        state: RoomState {
            room: ID.parse().unwrap(),
            name: "weekly".parse().unwrap(),
            settings: RoomSettings::default(),
            created_at: at,
            participants: vec![alice],
        },
        next: Some(participant),
        tracks: vec![TrackTaken {
            mid: "0".into(),
            track,
        }],
        generation: 1,
        sdp: "v=0\r\n".into(),
        slots: vec![Slot {
            mid: "1".into(),
            track: None,
        }],
        audio_wanted: 4,
        video_wanted: 8,
        speakers: vec![participant],
        chat: vec![ChatMessage {
            id: ID.parse().unwrap(),
            from: ChatAuthor {
                participant,
                user: "alice".parse().unwrap(),
                name: None,
            },
            text: "hello".into(),
            at,
            to: None,
        }],
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
            frame_bytes_max: 262_144,
            commands_per_second: 50,
            commands_burst: 200,
            calls_per_user_max: 8,
            sdp_bytes_max: 32_768,
            candidates_max: 32,
            room_participants_max: Some(500),
        },
        phone: false,
        resume_ms: 60_000,
        ping_ms: 25_000,
        server: "offhook/0.1.0".into(),
    }
}
