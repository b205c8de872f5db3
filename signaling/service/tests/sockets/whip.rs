//! WHIP and WHEP over real HTTP, with an SFU that is played by the test: every answer of RFC 9725 and its companion.

use std::collections::HashMap;

use model::RoomGrants;
use model::media::{
    MediaCommand, MediaCommandKind, MediaEvent, MediaEventKind, MediaRefusal, SdpFault,
};
use serde_json::{Value, json};
use signaling_service::tokens::{self, Claims};
use signaling_service::{Config, Media};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::harness::{Client, TestService, now_secs};

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const PASSWORD: &str = "P2uYro0UCOQ4zxjKXaWCBui1";

#[tokio::test]
async fn a_session_lives_from_post_to_delete() {
    let (t, mut sfu) = started().await;
    let token = t.token("camera");

    let made = ask(&t, "POST", "/v1/whip/weekly", &token, (SDP, &publish())).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(
        (made.header("content-type"), made.header("etag")),
        (SDP, "\"1\"")
    );
    assert_eq!(made.header("accept-patch"), FRAGMENT);
    assert!(made.header("link").contains("; rel=\"ice-server\""));
    assert!(made.header("link").contains("credential-type=\"password\""));
    assert!(made.body.contains("a=ice-ufrag:ours1"), "{}", made.body);
    let session = made.header("location").to_owned();
    assert!(session.starts_with("/v1/whip/weekly/"), "{session}");
    let MediaCommandKind::Join { offer, .. } = sfu.next().await else {
        panic!("no join");
    };
    assert_eq!(offer.tracks.len(), 2);

    let trickled = ask_if(&t, &session, &token, Some("\"1\""), &fragment("EsAw")).await;
    assert_eq!((trickled.status, trickled.header("etag")), (204, ""));

    let restarted = ask_if(&t, &session, &token, Some("*"), &fragment("ysXw")).await;
    assert_eq!((restarted.status, restarted.header("etag")), (200, "\"2\""));
    assert_eq!(restarted.header("content-type"), FRAGMENT);
    assert!(
        restarted.body.contains("a=ice-ufrag:ours2"),
        "{restarted:?}"
    );
    assert!(restarted.body.contains("a=candidate:1") && !restarted.body.contains("rtpmap"));
    let MediaCommandKind::Offer { offer: again, .. } = sfu.next().await else {
        panic!("no offer");
    };
    assert_eq!(again.tracks, offer.tracks, "the same Tracks go on");
    assert!(again.sdp.contains("a=ice-ufrag:ysXw"));

    let outdated = ask_if(&t, &session, &token, Some("\"1\""), &fragment("ysXw")).await;
    assert_eq!(
        (outdated.status, outdated.code().as_str()),
        (412, "if_match_failed")
    );
    let unconditional = ask_if(&t, &session, &token, None, &fragment("ysXw")).await;
    assert_eq!(unconditional.status, 428);
    assert_eq!(
        ask_if(&t, &session, &token, Some("\"2\""), &fragment("ysXw"))
            .await
            .status,
        204
    );

    // The entity-tag is ignored.
    let ended = request(
        &t,
        "DELETE",
        &session,
        &[("authorization", &bearer(&token)), ("if-match", "\"1\"")],
        "",
    )
    .await;
    assert_eq!(ended.status, 200);
    assert!(matches!(sfu.next().await, MediaCommandKind::Leave { .. }));
    let again = ask(&t, "DELETE", &session, &token, (SDP, "")).await;
    assert_eq!(
        (again.status, again.code().as_str()),
        (404, "unknown_session")
    );
    assert_eq!(
        ask_if(&t, &session, &token, Some("*"), &fragment("EsAw"))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn whatever_else_is_asked_has_an_answer_of_its_own() {
    let (t, _sfu) = started().await;
    let (token, fragment) = (t.token("camera"), fragment("EsAw"));
    let bearer = bearer(&token);
    let made = ask(&t, "POST", "/v1/whip/weekly", &token, (SDP, &publish())).await;
    let session = made.header("location").to_owned();
    let endpoint = "/v1/whip/weekly";
    let auth = ("authorization", bearer.as_str());
    let sdp = ("content-type", SDP);
    let frag = ("content-type", FRAGMENT);
    let any = ("if-match", "*");
    let (offer, view) = (publish(), offer("a=recvonly"));
    let twice = format!("{offer}m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:2\r\n");
    let nameless = offer.replace("a=mid:0\r\n", "");
    let weak = offer.replace("sha-256", "sha-1");
    let silent = offer.replace("a=ice-ufrag", "a=x");
    let long = format!("{offer}{}", "a=x\r\n".repeat(20_000));
    let half = "a=ice-ufrag:EsAw\r\n";
    let candidates = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n".repeat(65);
    let wrong_token = ("authorization", "Bearer a.b.c");
    let over = format!("Bearer {}", t.token_until("camera", now_secs() - 600));

    type Row<'a> = (
        &'a str,
        &'a str,
        &'a [(&'a str, &'a str)],
        &'a str,
        u16,
        &'a str,
    );
    let rows: &[Row<'_>] = &[
        // The token (RFC 6750).
        ("POST", endpoint, &[sdp], &offer, 401, "unauthorized"),
        (
            "POST",
            endpoint,
            &[sdp, ("authorization", "Basic YTpi")],
            &offer,
            401,
            "unauthorized",
        ),
        (
            "POST",
            endpoint,
            &[sdp, wrong_token],
            &offer,
            401,
            "unauthorized",
        ),
        (
            "POST",
            endpoint,
            &[sdp, ("authorization", &over)],
            &offer,
            401,
            "token_expired",
        ),
        (
            "PATCH",
            &session,
            &[frag, any],
            &fragment,
            401,
            "unauthorized",
        ),
        ("DELETE", &session, &[], "", 401, "unauthorized"),
        // The body and its type.
        ("POST", endpoint, &[auth], &offer, 415, "wrong_type"),
        (
            "POST",
            endpoint,
            &[auth, ("content-type", "text/plain")],
            &offer,
            415,
            "wrong_type",
        ),
        ("POST", endpoint, &[auth, sdp], "", 400, "bad_offer"),
        ("POST", endpoint, &[auth, sdp], "hello", 400, "bad_offer"),
        ("POST", endpoint, &[auth, sdp], &nameless, 400, "bad_offer"),
        ("POST", endpoint, &[auth, sdp], &silent, 400, "bad_offer"),
        ("POST", endpoint, &[auth, sdp], &view, 422, "bad_offer"),
        (
            "POST",
            "/v1/whep/weekly",
            &[auth, sdp],
            &offer,
            422,
            "bad_offer",
        ),
        ("POST", endpoint, &[auth, sdp], &twice, 422, "bad_offer"),
        (
            "POST",
            endpoint,
            &[auth, sdp],
            &weak,
            422,
            "weak_fingerprint",
        ),
        ("POST", endpoint, &[auth, sdp], &long, 413, "too_large"),
        // The Room.
        (
            "POST",
            "/v1/whip/No%20Room",
            &[auth, sdp],
            &offer,
            400,
            "bad_request",
        ),
        ("POST", "/v1/whip", &[auth, sdp], &offer, 400, "bad_request"),
        (
            "POST",
            "/v1/whip/weekly?source=phone",
            &[auth, sdp],
            &offer,
            400,
            "bad_request",
        ),
        (
            "POST",
            "/v1/whep/nowhere",
            &[auth, sdp],
            &view,
            409,
            "unknown_room",
        ),
        // The fragment.
        (
            "PATCH",
            &session,
            &[auth, any],
            &fragment,
            415,
            "wrong_type",
        ),
        (
            "PATCH",
            &session,
            &[auth, any, sdp],
            &offer,
            415,
            "wrong_type",
        ),
        (
            "PATCH",
            &session,
            &[auth, any, frag],
            "",
            400,
            "bad_fragment",
        ),
        (
            "PATCH",
            &session,
            &[auth, any, frag],
            half,
            400,
            "bad_fragment",
        ),
        (
            "PATCH",
            &session,
            &[auth, any, frag],
            &candidates,
            422,
            "bad_fragment",
        ),
        (
            "PATCH",
            &session,
            &[auth, any, frag],
            &long,
            413,
            "too_large",
        ),
        (
            "PATCH",
            &session,
            &[auth, frag, ("if-match", "1")],
            &fragment,
            400,
            "bad_request",
        ),
        (
            "PATCH",
            &session,
            &[auth, frag],
            &fragment,
            428,
            "if_match_required",
        ),
        (
            "PATCH",
            &session,
            &[auth, frag, ("if-match", "\"9\"")],
            &fragment,
            412,
            "if_match_failed",
        ),
        // The session.
        (
            "DELETE",
            "/v1/whip/weekly/AAAA",
            &[auth],
            "",
            404,
            "unknown_session",
        ),
        (
            "DELETE",
            "/v1/whip/weekly/AAAAAAAAAAAAAAAAAAAAAA",
            &[auth],
            "",
            404,
            "unknown_session",
        ),
        (
            "DELETE",
            &session.replace("whip", "whep"),
            &[auth],
            "",
            404,
            "unknown_session",
        ),
        (
            "DELETE",
            &session.replace("weekly", "daily"),
            &[auth],
            "",
            404,
            "unknown_session",
        ),
        // Other methods.
        ("GET", endpoint, &[], "", 200, ""),
        ("HEAD", "/v1/whep/weekly", &[], "", 200, ""),
        ("PUT", endpoint, &[auth, sdp], &offer, 405, ""),
        ("DELETE", endpoint, &[auth], "", 405, ""),
        ("GET", &session, &[], "", 204, ""),
        ("POST", &session, &[auth, sdp], &offer, 405, ""),
        ("OPTIONS", endpoint, &[], "", 200, ""),
        ("OPTIONS", &session, &[], "", 200, ""),
        // It has lived through all of this, and a parameter of a type changes nothing.
        (
            "PATCH",
            &session,
            &[
                auth,
                ("content-type", "Application/Trickle-ICE-sdpfrag; a=b"),
                any,
            ],
            &fragment,
            204,
            "",
        ),
        // For a session that goes on an expired token is enough.
        ("DELETE", &session, &[("authorization", &over)], "", 200, ""),
    ];
    for (method, path, headers, body, status, code) in rows {
        let answer = request(&t, method, path, headers, body).await;
        assert_eq!(
            answer.status, *status,
            "{method} {path} {headers:?} {answer:?}"
        );
        if !code.is_empty() {
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert_eq!(
                answer.code(),
                *code,
                "{method} {path} {headers:?} {answer:?}"
            );
        }
        match status {
            401 => assert!(answer.header("www-authenticate").starts_with("Bearer")),
            405 => assert!(answer.header("allow").contains("OPTIONS")),
            409 => assert_eq!(answer.header("retry-after"), "5"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_player_sees_by_its_type_that_it_is_an_endpoint() {
    let (t, _sfu) = started().await;
    for path in ["/v1/whep/weekly", "/v1/whip"] {
        let looked = request(&t, "HEAD", path, &[], "").await;
        assert_eq!((looked.status, looked.header("content-type")), (200, SDP));
        let described = request(&t, "OPTIONS", path, &[], "").await;
        assert_eq!(described.header("accept-post"), SDP);
        assert_eq!(described.header("link"), "", "no credentials for strangers");
    }

    let authorization = bearer(&t.token("camera"));
    let known = [("authorization", authorization.as_str())];
    let told = request(&t, "OPTIONS", "/v1/whip/weekly", &known, "").await;
    assert!(
        told.header("link").contains("rel=\"ice-server\""),
        "{told:?}"
    );
    let preflight = [known[0], ("access-control-request-method", "POST")];
    let told = request(&t, "OPTIONS", "/v1/whip/weekly", &preflight, "").await;
    assert_eq!(told.header("link"), "");
}

#[tokio::test]
async fn pages_that_are_allowed_may_ask_and_others_may_not() {
    let (t, _sfu) = started().await;
    let (token, body) = (t.token("camera"), publish());
    let authorization = bearer(&token);
    let post = |origin: &'static str| {
        let headers = [
            ("authorization", authorization.clone()),
            ("content-type", SDP.to_owned()),
            ("origin", origin.to_owned()),
        ];
        let (t, body) = (&t, &body);
        async move {
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            request(t, "POST", "/v1/whip/weekly", &headers, body).await
        }
    };

    let made = post("https://app.example.com").await;
    assert_eq!(made.status, 201);
    assert_eq!(
        made.header("access-control-allow-origin"),
        "https://app.example.com"
    );
    assert_eq!(made.header("vary"), "origin");
    for readable in ["location", "etag", "link"] {
        assert!(
            made.header("access-control-expose-headers")
                .contains(readable)
        );
    }
    let foreign = post("https://evil.example").await;
    assert_eq!(
        (foreign.status, foreign.code().as_str()),
        (403, "origin_refused")
    );
    assert_eq!(foreign.header("access-control-allow-origin"), "");

    let asks = [
        ("origin", "https://app.example.com"),
        ("access-control-request-method", "PATCH"),
    ];
    let preflight = request(&t, "OPTIONS", made.header("location"), &asks, "").await;
    assert_eq!(preflight.status, 200);
    assert!(
        preflight
            .header("access-control-allow-methods")
            .contains("PATCH")
    );
    assert!(
        preflight
            .header("access-control-allow-headers")
            .contains("if-match")
    );
    assert_eq!(preflight.header("accept-patch"), FRAGMENT);
}

#[tokio::test]
async fn an_encoder_is_a_participant_like_others_and_no_person() {
    let (t, mut sfu) = started().await;
    let token = t.token("camera");
    let made = ask(
        &t,
        "POST",
        "/v1/whip/weekly?source=screen",
        &token,
        (SDP, &publish()),
    )
    .await;
    assert_eq!(made.status, 201, "{made:?}");
    sfu.next().await;

    // Who comes as the first person moderates; the encoder does not, and nobody sees its User online.
    let mut alice = t.join("alice").await;
    let seen = alice
        .ask("presence.subscribe", json!({ "users": ["camera"] }))
        .await;
    assert_eq!(seen["users"][0]["status"], "offline");
    let joined = enter(&mut alice).await;
    assert_eq!(joined["role"], "moderator");
    let encoder = &joined["state"]["participants"][0];
    assert_eq!(
        (&encoder["user"], &encoder["role"]),
        (&json!("camera"), &json!("speaker"))
    );
    let sources: Vec<_> = encoder["tracks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|track| &track["source"])
        .collect();
    assert_eq!(sources, ["screen_audio", "screen"]);

    // Whom a moderator removes is gone, and not let in again.
    let (room, participant) = (&joined["state"]["room"], &encoder["participant"]);
    // The news comes before the answer.
    let remove = json!({ "room": room, "participant": participant });
    alice.send("room.remove", remove).await;
    let left = alice.next("room.left").await;
    assert_eq!(left["data"]["reason"], "removed");
    let again = ask(&t, "POST", "/v1/whip/weekly", &token, (SDP, &publish())).await;
    assert_eq!((again.status, again.code().as_str()), (403, "lobby_denied"));
    let session = made.header("location").to_owned();
    // Its task hears of it as its client does.
    loop {
        let patched = ask_if(&t, &session, &token, Some("*"), &fragment("EsAw")).await;
        if patched.status == 404 {
            break;
        }
        assert_eq!(patched.status, 204);
    }

    // One whose media is lost leaves by itself.
    let made = ask(
        &t,
        "POST",
        "/v1/whip/weekly",
        &t.token("other"),
        (SDP, &publish()),
    )
    .await;
    assert_eq!(made.status, 201);
    let news = alice.next("room.participant").await;
    sfu.lose(&news["data"]["participant"]["participant"]).await;
    assert_eq!(alice.next("room.left").await["data"]["reason"], "gone");
}

#[tokio::test]
async fn a_viewer_is_shown_who_matters() {
    let (t, mut sfu) = started().await;
    let camera = ask(
        &t,
        "POST",
        "/v1/whip/weekly",
        &t.token("camera"),
        (SDP, &publish()),
    )
    .await;
    assert_eq!(camera.status, 201);
    let MediaCommandKind::Join { offer, .. } = sfu.next().await else {
        panic!("no join");
    };
    let picture = offer.tracks[1].track;

    // A token may be that of many viewers.
    let token = t.token("crowd");
    for path in [
        "/v1/whep/weekly",
        "/v1/whep/weekly?participant=camera",
        "/v1/whep/weekly?participant=nobody",
    ] {
        let view = ask(&t, "POST", path, &token, (SDP, &offer_to_view())).await;
        assert_eq!(view.status, 201, "{view:?}");
        let MediaCommandKind::Join { offer, .. } = sfu.next().await else {
            panic!("no join");
        };
        assert!(offer.tracks.is_empty());
        let MediaCommandKind::Want {
            automatic, wishes, ..
        } = sfu.next().await
        else {
            panic!("no wish");
        };
        assert_eq!(automatic, !path.contains('?'));
        let pinned: Vec<_> = wishes
            .iter()
            .filter(|wish| wish.pinned)
            .map(|wish| wish.track)
            .collect();
        let expected = if path.contains("nobody") {
            vec![]
        } else {
            vec![picture]
        };
        assert_eq!(pinned, expected, "{path}");
    }
}

#[tokio::test]
async fn a_token_for_one_room_needs_no_name_and_opens_no_other() {
    let (t, _sfu) = started().await;
    let mut alice = t.join("alice").await;
    enter(&mut alice).await;
    let with = |grants: RoomGrants| {
        let claims = Claims {
            sub: "camera".parse().unwrap(),
            nbf: None,
            exp: now_secs() + 600,
            name: None,
            call: model::Grants::default(),
            room: grants,
        };
        tokens::mint(t.key.id, &t.key.secret, &claims).unwrap()
    };
    let body = publish();
    let check = async |grants: RoomGrants, path: &str, status: u16, code: &str| {
        let answer = ask(&t, "POST", path, &with(grants), (SDP, &body)).await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status != 201 {
            assert_eq!(answer.code(), code, "{answer:?}");
        }
    };
    let one = RoomGrants {
        names: Some(vec!["weekly".parse().unwrap()]),
        ..RoomGrants::default()
    };
    let listener = RoomGrants {
        role: Some(model::Role::Listener),
        ..RoomGrants::default()
    };
    let joins_only = RoomGrants {
        create: false,
        ..RoomGrants::default()
    };

    check(one.clone(), "/v1/whip", 201, "").await;
    check(one, "/v1/whip/daily", 403, "forbidden").await;
    // No section is refused alone (RFC 9725 §4.4.3).
    check(listener, "/v1/whip/weekly", 403, "forbidden").await;
    check(joins_only.clone(), "/v1/whip/weekly", 201, "").await;
    check(joins_only, "/v1/whip/daily", 404, "unknown_room").await;
    let guest = RoomGrants {
        guest: true,
        ..RoomGrants::default()
    };
    let joined = enter(&mut alice).await;
    let room = &joined["state"]["room"];
    check(guest.clone(), "/v1/whip/weekly", 201, "").await;
    alice
        .ask("room.set", json!({ "room": room, "lobby": true }))
        .await;
    check(guest.clone(), "/v1/whip/weekly", 201, "").await;
    alice
        .ask("room.set", json!({ "room": room, "locked": true }))
        .await;
    check(guest, "/v1/whip/weekly", 201, "").await;
    let stranger = t.token("stranger");
    let locked = ask(&t, "POST", "/v1/whip/weekly", &stranger, (SDP, &body)).await;
    assert_eq!(
        (locked.status, locked.code().as_str()),
        (403, "room_locked")
    );
}

#[tokio::test]
async fn an_encrypted_room_takes_nothing_that_is_not() {
    let (t, _sfu) = started().await;
    let mut alice = t.join("alice").await;
    let mut join = join("weekly");
    join["encrypted"] = json!(true);
    join["settings"] = json!({ "encrypted": true });
    alice.ask("room.join", join).await;

    for (path, body) in [
        ("/v1/whip/weekly", publish()),
        ("/v1/whep/weekly", offer_to_view()),
    ] {
        let refused = ask(&t, "POST", path, &t.token("camera"), (SDP, &body)).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "room_encrypted")
        );
        assert!(
            refused.body.contains("encrypted from end to end"),
            "{}",
            refused.body
        );
    }
}

#[tokio::test]
async fn what_the_sfu_refuses_is_told_with_its_reason() {
    let (t, sfu) = started().await;
    for (refusal, status, code) in [
        (MediaRefusal::NoCodec, 422, "no_codec"),
        (MediaRefusal::BadSdp(SdpFault::Mid), 400, "bad_sdp"),
        (MediaRefusal::Full, 503, "full"),
    ] {
        sfu.refuse_next(refusal);
        let refused = ask(
            &t,
            "POST",
            "/v1/whip/weekly",
            &t.token("camera"),
            (SDP, &publish()),
        )
        .await;
        assert_eq!((refused.status, refused.code().as_str()), (status, code));
        assert_eq!(refused.header("retry-after").is_empty(), status != 503);
    }
    // A restart that fails ends nothing (RFC 9725 §4.3.3).
    let token = t.token("camera");
    let made = ask(&t, "POST", "/v1/whip/weekly", &token, (SDP, &publish())).await;
    sfu.refuse_next(MediaRefusal::BadSdp(SdpFault::Mid));
    let session = made.header("location");
    let refused = ask_if(&t, session, &token, Some("*"), &fragment("ysXw")).await;
    assert_eq!(refused.status, 400);
    assert_eq!(
        ask_if(&t, session, &token, Some("\"1\""), &fragment("EsAw"))
            .await
            .status,
        204
    );

    let bare = TestService::start().await;
    let refused = ask(
        &bare,
        "POST",
        "/v1/whip/weekly",
        &bare.token("camera"),
        (SDP, &publish()),
    )
    .await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "unavailable")
    );
}

#[tokio::test]
async fn whose_session_it_is_is_seen_by_the_token() {
    let (t, _sfu) = started().await;
    let token = t.token("camera");
    let made = ask(&t, "POST", "/v1/whip/weekly", &token, (SDP, &publish())).await;
    let session = made.header("location");
    let other = t.token("mallory");
    assert_eq!(
        ask(&t, "DELETE", session, &other, (SDP, "")).await.status,
        404
    );
    assert_eq!(
        ask_if(&t, session, &other, Some("*"), &fragment("EsAw"))
            .await
            .status,
        404
    );
    assert_eq!(
        ask_if(&t, session, &token, Some("*"), &fragment("EsAw"))
            .await
            .status,
        204
    );
}

#[tokio::test]
async fn an_account_has_so_many_sessions_and_a_server_that_ends_takes_none() {
    let mut config = Config::default();
    config.limits.unattended_per_account_max = 1;
    let t = TestService::start_with(config).await;
    let _sfu = Sfu::connect(&t).await;
    let token = t.token("camera");
    let first = ask(&t, "POST", "/v1/whip/weekly", &token, (SDP, &publish())).await;
    assert_eq!(first.status, 201);
    let second = ask(&t, "POST", "/v1/whip/weekly", &token, (SDP, &publish())).await;
    assert_eq!(
        (second.status, second.code().as_str()),
        (503, "too_many_sessions")
    );
    assert_eq!(second.header("retry-after"), "15");
    // Sockets of people are none of it.
    t.join("alice").await;
    ask(&t, "DELETE", first.header("location"), &token, (SDP, "")).await;
    let third = ask(&t, "POST", "/v1/whip/weekly", &token, (SDP, &publish())).await;
    assert_eq!(third.status, 201);

    t.service.drain(std::time::Duration::from_secs(10)).await;
    assert_eq!(t.service.sockets(), 0);
    let late = ask(&t, "POST", "/v1/whip/weekly", &token, (SDP, &publish())).await;
    assert_eq!((late.status, late.code().as_str()), (503, "draining"));
    assert_eq!(late.header("retry-after"), "15");
}

/// The SFU at its ends: it answers every offer, and the test hears of all it was told.
struct Sfu {
    told: mpsc::UnboundedReceiver<MediaCommand>,
    refusals: mpsc::UnboundedSender<MediaRefusal>,
    events: mpsc::Sender<MediaEvent>,
    last: Option<MediaCommand>,
}

impl Sfu {
    async fn connect(t: &TestService) -> Self {
        let (commands, mut taken) = mpsc::channel(8);
        let (events, news) = mpsc::channel(8);
        t.service
            .connect_media(Media {
                commands,
                events: news,
            })
            .await;
        let (tell, told) = mpsc::unbounded_channel();
        let (refusals, mut refused) = mpsc::unbounded_channel();
        let answers = events.clone();
        tokio::spawn(async move {
            while let Some(command) = taken.recv().await {
                if let MediaCommandKind::Join {
                    participant, offer, ..
                }
                | MediaCommandKind::Offer { participant, offer } = &command.kind
                {
                    let (participant, generation) = (*participant, offer.generation);
                    let kind = match refused.try_recv() {
                        Ok(refusal) => MediaEventKind::Refused {
                            participant,
                            generation,
                            refusal,
                        },
                        Err(_) => MediaEventKind::Answered {
                            participant,
                            generation,
                            sdp: answer(generation),
                            slots: Vec::new(),
                        },
                    };
                    let event = MediaEvent {
                        account: command.account,
                        room: command.room,
                        kind,
                    };
                    answers.send(event).await.unwrap();
                }
                let _ = tell.send(command); // A test that is over does not listen.
            }
        });
        Self {
            told,
            refusals,
            events,
            last: None,
        }
    }

    /// What it was told next.
    async fn next(&mut self) -> MediaCommandKind {
        let command = self.told.recv().await.unwrap();
        let kind = command.kind.clone();
        self.last = Some(command);
        kind
    }

    fn refuse_next(&self, refusal: MediaRefusal) {
        self.refusals.send(refusal).unwrap();
    }

    /// Gives a Participant of the Room it heard of last up.
    async fn lose(&self, participant: &Value) {
        let about = self.last.as_ref().unwrap();
        let kind = MediaEventKind::Gone {
            participant: participant.as_str().unwrap().parse().unwrap(),
            reason: model::media::GoneReason::Unreachable,
        };
        let event = MediaEvent {
            account: about.account,
            room: about.room,
            kind,
        };
        self.events.send(event).await.unwrap();
    }
}

/// An answer to an HTTP request.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// By names in lower case; several of one name are joined by commas.
    headers: HashMap<String, String>,
    body: String,
}

impl Answer {
    /// Empty where there is none.
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The code of a problem.
    fn code(&self) -> String {
        let problem: Value = serde_json::from_str(&self.body).unwrap_or_default();
        assert_eq!(problem["status"], self.status, "{self:?}");
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}

async fn started() -> (TestService, Sfu) {
    let t = TestService::start().await;
    let sfu = Sfu::connect(&t).await;
    (t, sfu)
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn ask(
    t: &TestService,
    method: &str,
    path: &str,
    token: &str,
    (kind, body): (&str, &str),
) -> Answer {
    let headers = [("authorization", &*bearer(token)), ("content-type", kind)];
    request(t, method, path, &headers, body).await
}

/// A PATCH with or without `If-Match`.
async fn ask_if(
    t: &TestService,
    path: &str,
    token: &str,
    condition: Option<&str>,
    body: &str,
) -> Answer {
    let authorization = bearer(token);
    let mut headers = vec![
        ("authorization", authorization.as_str()),
        ("content-type", FRAGMENT),
    ];
    headers.extend(condition.map(|tags| ("if-match", tags)));
    request(t, "PATCH", path, &headers, body).await
}

async fn request(
    t: &TestService,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let fields: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n{fields}\r\n{body}",
        t.address,
        body.len()
    );
    let mut stream = TcpStream::connect(t.address).await.unwrap();
    // A body that is too long is refused before it was read.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();

    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let mut headers: HashMap<String, String> = HashMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let held = headers.entry(name.to_lowercase()).or_default();
        if !held.is_empty() {
            held.push_str(", ");
        }
        held.push_str(value);
    }
    Answer {
        status,
        headers,
        body: body.to_owned(),
    }
}

async fn enter(client: &mut Client) -> Value {
    client.ask("room.join", join("weekly")).await
}

fn join(room: &str) -> Value {
    json!({ "room": room, "generation": 1, "sdp": offer_to_view(), "tracks": [] })
}

fn fragment(ufrag: &str) -> String {
    format!(
        "a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{PASSWORD}\r\n\
         a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host\r\na=end-of-candidates\r\n"
    )
}

fn publish() -> String {
    offer("a=sendonly")
}

fn offer_to_view() -> String {
    offer("a=recvonly")
}

fn offer(direction: &str) -> String {
    let fingerprint = vec!["AB"; 32].join(":");
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-ufrag:EsAw\r\na=ice-pwd:{PASSWORD}\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n{direction}\r\na=rtpmap:111 opus/48000/2\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n{direction}\r\na=rtpmap:96 VP8/90000\r\n"
    )
}

/// As an SFU would answer the offer of this generation.
fn answer(generation: u32) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:ours{generation}\r\na=ice-pwd:2e13dde17c1cb009202f627fab90\r\n\
         a=candidate:1 1 UDP 2130706431 198.51.100.1 39132 typ host\r\na=rtpmap:111 opus/48000/2\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\n"
    )
}
