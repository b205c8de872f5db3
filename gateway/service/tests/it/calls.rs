//! Calls in and out, from the first message to the end.

use gateway_core::transaction::Transport;
use gateway_service::{Event, EventKind};
use gateway_sip::{HeaderName, Method, NameAddr, StatusCode};
use model::phone::rows::LegSide;
use model::phone::{PhoneCommandKind, PhoneEventKind, PhoneReason, Progress, Unanswered};
use tokio::net::TcpListener;

use crate::peer::{Peer, SDP};
use crate::world::{NUMBER, Wanted, World, telephony, trunk, user};

fn ended(kind: PhoneEventKind) -> PhoneReason {
    match kind {
        PhoneEventKind::Ended(end) => end.reason,
        other => panic!("{other:?} is no end"),
    }
}

async fn provider() -> (Peer, World) {
    let peer = Peer::udp("127.0.0.1").await;
    let target = format!("sip:{}", peer.address);
    let world = World::new("", telephony([("provider", trunk(&[target]))])).await;
    let peer = peer.toward(world.address(Transport::Udp));
    (peer, world)
}

#[tokio::test]
async fn a_call_comes_in_is_answered_and_ends() {
    let (mut peer, mut t) = provider().await;
    let invite = peer.invite(&format!("sip:{NUMBER}@127.0.0.1"));
    peer.send(&invite.to_bytes()).await;
    let (call, PhoneEventKind::Ring(ring)) = t.event().await else {
        panic!("nobody rings");
    };
    assert_eq!(ring.users, [user()]);
    assert_eq!(ring.name.as_deref(), Some("Front desk"));
    assert_eq!(ring.from.unwrap().number(), Some("+4989555"));
    assert_eq!(ring.to.unwrap().number(), Some(NUMBER));

    t.tell(call, PhoneCommandKind::Ringing).await;
    peer.code(&Method::Invite, StatusCode::RINGING).await;
    let place = t.place();
    t.tell(
        call,
        PhoneCommandKind::Answer {
            user: user(),
            place,
        },
    )
    .await;
    let answer = peer.code(&Method::Invite, StatusCode::OK).await;
    assert!(String::from_utf8_lossy(&answer.body).contains("m=audio 30002 "));
    let ack = peer.inside(&Method::Ack, 1, &invite, &answer);
    peer.send(&ack.to_bytes()).await;
    let Wanted::Open(leg) = t.wants().await else {
        panic!("no port was opened");
    };
    assert_eq!(
        t.wants().await,
        Wanted::Agree(leg, "127.0.0.1:40000".parse().unwrap())
    );
    assert_eq!(t.wants().await, Wanted::Connect(leg, "room"));

    t.sound
        .send(Event {
            leg,
            kind: EventKind::Key('5'),
        })
        .await
        .unwrap();
    assert!(
        matches!(t.event().await, (of, PhoneEventKind::Key(key)) if of == call && key.as_char() == '5')
    );

    let bye = peer.inside(&Method::Bye, 2, &invite, &answer);
    peer.send(&bye.to_bytes()).await;
    peer.code(&Method::Bye, StatusCode::OK).await;
    let (of, end) = t.event().await;
    assert_eq!((of, ended(end)), (call, PhoneReason::Hangup));
    assert_eq!(t.wants().await, Wanted::Close(leg));

    let record = t.kept().await;
    assert_eq!((record.call, record.user), (call, Some(user())));
    assert_eq!(record.from.as_deref(), Some("+4989555"));
    assert_eq!(record.number.as_ref().map(|it| it.as_str()), Some(NUMBER));
    assert_eq!(record.ended_by, Some(LegSide::Theirs));
    assert!(record.ringing_at.is_some() && record.answered_at.is_some());
    assert_eq!(record.end.map(|end| end.reason), Some(PhoneReason::Hangup));
    assert_eq!(
        record.sound.map(|sound| sound.codec).as_deref(),
        Some("pcma")
    );
}

#[tokio::test]
async fn who_gives_up_is_heard_of_and_who_is_not_there_is_told_of() {
    let (mut peer, mut t) = provider().await;
    let invite = peer.invite(&format!("sip:{NUMBER}@127.0.0.1"));
    peer.send(&invite.to_bytes()).await;
    let (call, _) = t.event().await;
    let mut cancel = invite.clone();
    cancel.method = Method::Cancel;
    cancel.body.clear();
    cancel.headers.set(HeaderName::CSeq, "1 CANCEL");
    peer.send(&cancel.to_bytes()).await;
    peer.code(&Method::Invite, StatusCode::REQUEST_TERMINATED)
        .await;
    let (of, end) = t.event().await;
    assert_eq!((of, ended(end)), (call, PhoneReason::Cancelled));

    let invite = peer.invite(&format!("sip:{NUMBER}@127.0.0.1"));
    peer.send(&invite.to_bytes()).await;
    let (call, _) = t.event().await;
    let why = Unanswered::Busy;
    t.tell(call, PhoneCommandKind::Unanswered { user: user(), why })
        .await;
    peer.code(&Method::Invite, StatusCode::BUSY_HERE).await;
    let (_, end) = t.event().await;
    assert_eq!(ended(end), PhoneReason::Busy);

    let nowhere = peer.invite("sip:+4930999999@127.0.0.1");
    peer.send(&nowhere.to_bytes()).await;
    peer.code(&Method::Invite, StatusCode::NOT_FOUND).await;
    t.until(|figures| figures.refusals_in.get("unknown_number") == Some(&1))
        .await;
}

#[tokio::test]
async fn a_user_dials_talks_and_hangs_up() {
    let (mut peer, mut t) = provider().await;
    let call = t.dial("tel:+49891234567").await;
    let invite = peer.request(&Method::Invite).await;
    assert!(
        invite.target.starts_with("sip:+49891234567@127.0.0.1"),
        "{}",
        invite.target
    );
    let from = NameAddr::parse(invite.headers.get(&HeaderName::From).unwrap(), "From").unwrap();
    assert_eq!(from.display.as_deref(), Some("Alice"));
    assert!(String::from_utf8_lossy(&invite.body).contains("m=audio 30002 RTP/AVP"));

    peer.answer(&invite, StatusCode::RINGING, |_| {}).await;
    let trying = PhoneEventKind::Progress(Progress::Trying);
    assert_eq!(t.event().await, (call, trying));
    let ringing = PhoneEventKind::Progress(Progress::Ringing);
    assert_eq!(t.event().await, (call, ringing));
    peer.pick_up(&invite).await;
    assert_eq!(t.event().await, (call, PhoneEventKind::Answered));

    let keys = "12#".parse().unwrap();
    t.tell(call, PhoneCommandKind::Keys(keys)).await;
    t.tell(call, PhoneCommandKind::HangUp { cause: 16 }).await;
    let bye = peer.request(&Method::Bye).await;
    assert_eq!(bye.headers.get(&HeaderName::Reason), Some("Q.850;cause=16"));
    peer.answer(&bye, StatusCode::OK, |_| {}).await;
    let (of, end) = t.event().await;
    assert_eq!((of, ended(end)), (call, PhoneReason::Hangup));
    let mut pressed = String::new();
    loop {
        match t.wants().await {
            Wanted::Key(_, key) => pressed.push(key),
            Wanted::Close(_) => break,
            _ => {}
        }
    }
    assert_eq!(pressed, "12#");
}

#[tokio::test]
async fn what_the_provider_says_before_the_answer_is_heard() {
    let (mut peer, mut t) = provider().await;
    let call = t.dial("tel:+49891234567").await;
    let invite = peer.request(&Method::Invite).await;
    peer.answer(&invite, StatusCode::SESSION_PROGRESS, |response| {
        response
            .headers
            .push(HeaderName::ContentType, "application/sdp");
        response.body = SDP.as_bytes().to_vec();
    })
    .await;
    t.event().await;
    let early = PhoneEventKind::Progress(Progress::EarlyMedia);
    assert_eq!(t.event().await, (call, early));
    let heard = [t.wants().await, t.wants().await, t.wants().await];
    assert!(
        matches!(
            heard,
            [
                Wanted::Open(_),
                Wanted::Agree(..),
                Wanted::Connect(_, "room")
            ]
        ),
        "{heard:?}"
    );
    peer.answer(&invite, StatusCode::BUSY_HERE, |_| {}).await;
    peer.request(&Method::Ack).await;
    let (_, end) = t.event().await;
    assert_eq!(ended(end), PhoneReason::Busy);
}

#[tokio::test]
async fn where_nobody_may_call_nobody_is_called() {
    let (peer, mut t) = provider().await;
    for (to, reason) in [
        ("tel:112", PhoneReason::Emergency),
        ("sip:bob@elsewhere.example", PhoneReason::Forbidden),
        ("tel:12345", PhoneReason::NoSuchNumber),
    ] {
        let call = t.dial(to).await;
        let (of, end) = t.event().await;
        assert_eq!((of, ended(end)), (call, reason), "{to}");
    }
    assert!(peer.hears_nothing());
    t.tell(
        model::CallId::from_u128(99),
        PhoneCommandKind::HangUp { cause: 16 },
    )
    .await;
    assert_eq!(ended(t.event().await.1), PhoneReason::Lost);
}

#[tokio::test]
async fn a_call_over_tcp_keeps_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("sip:{};transport=tcp", listener.local_addr().unwrap());
    let mut t = World::new("", telephony([("provider", trunk(&[target]))])).await;
    let call = t.dial("tel:+49891234567").await;
    let mut peer = Peer::accept(&listener).await;
    let invite = peer.request(&Method::Invite).await;
    peer.pick_up(&invite).await;
    t.event().await;
    assert_eq!(t.event().await, (call, PhoneEventKind::Answered));
    t.tell(call, PhoneCommandKind::HangUp { cause: 16 }).await;
    let bye = peer.request(&Method::Bye).await;
    peer.answer(&bye, StatusCode::OK, |_| {}).await;
    assert_eq!(ended(t.event().await.1), PhoneReason::Hangup);
    assert_eq!(t.handle.figures().await.connections, 1);
}
