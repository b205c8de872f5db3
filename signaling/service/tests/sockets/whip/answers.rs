//! Every answer of RFC 9725 and its companion, over real HTTP.

use super::*;

#[tokio::test]
async fn a_session_lives_from_post_to_delete() {
    let (t, mut sfu) = started().await;
    let token = t.token("camera");

    let made = publishes(&t, "/v1/whip/weekly", &token).await;
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
    let made = publishes(&t, "/v1/whip/weekly", &token).await;
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
async fn what_the_sfu_refuses_is_told_with_its_reason() {
    let (t, sfu) = started().await;
    for (refusal, status, code) in [
        (MediaRefusal::NoCodec, 422, "no_codec"),
        (MediaRefusal::BadSdp(SdpFault::Mid), 400, "bad_sdp"),
        (MediaRefusal::Full, 503, "full"),
    ] {
        sfu.refuse_next(refusal);
        let refused = publishes(&t, "/v1/whip/weekly", &t.token("camera")).await;
        assert_eq!((refused.status, refused.code().as_str()), (status, code));
        assert_eq!(refused.header("retry-after").is_empty(), status != 503);
    }
    // A restart that fails ends nothing (RFC 9725 §4.3.3).
    let token = t.token("camera");
    let made = publishes(&t, "/v1/whip/weekly", &token).await;
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
    let made = publishes(&t, "/v1/whip/weekly", &token).await;
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
    let first = publishes(&t, "/v1/whip/weekly", &token).await;
    assert_eq!(first.status, 201);
    let second = publishes(&t, "/v1/whip/weekly", &token).await;
    assert_eq!(
        (second.status, second.code().as_str()),
        (503, "too_many_sessions")
    );
    assert_eq!(second.header("retry-after"), "15");
    // Sockets of people are none of it.
    t.join("alice").await;
    ask(&t, "DELETE", first.header("location"), &token, (SDP, "")).await;
    let third = publishes(&t, "/v1/whip/weekly", &token).await;
    assert_eq!(third.status, 201);

    t.service.drain(std::time::Duration::from_secs(10)).await;
    assert_eq!(t.service.sockets(), 0);
    let late = publishes(&t, "/v1/whip/weekly", &token).await;
    assert_eq!((late.status, late.code().as_str()), (503, "draining"));
    assert_eq!(late.header("retry-after"), "15");
}
