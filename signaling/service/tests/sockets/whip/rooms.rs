//! What the people of a Room see of encoders and viewers, and what these see of the Room.

use super::*;

#[tokio::test]
async fn an_encoder_is_a_participant_like_others_and_no_person() {
    let (t, mut sfu) = started().await;
    let token = t.token("camera");
    let made = publishes(&t, "/v1/whip/weekly?source=screen", &token).await;
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
    let again = publishes(&t, "/v1/whip/weekly", &token).await;
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
    let made = publishes(&t, "/v1/whip/weekly", &t.token("other")).await;
    assert_eq!(made.status, 201);
    let news = alice.next("room.participant").await;
    sfu.lose(&news["data"]["participant"]["participant"]).await;
    assert_eq!(alice.next("room.left").await["data"]["reason"], "gone");
}

#[tokio::test]
async fn a_viewer_is_shown_who_matters() {
    let (t, mut sfu) = started().await;
    let camera = publishes(&t, "/v1/whip/weekly", &t.token("camera")).await;
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
