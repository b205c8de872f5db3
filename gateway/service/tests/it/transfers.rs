//! Transfers that phones ask for: blind, attended, and by an INVITE that takes the place of a Leg.

use gateway_core::transaction::Transport;
use gateway_service::LegId;
use gateway_sip::{HeaderName, Method, NameAddr, Request, Response, StatusCode};
use model::phone::rows::Telephony;
use model::phone::{PhoneCommandKind, PhoneEventKind, PhoneReason};

use crate::peer::Peer;
use crate::routes::{DESK, SETTINGS, desk, provider, registered, rings, with_desk, with_phone};
use crate::world::{NUMBER, Wanted, World, user};

const ELSEWHERE: &str = "+49170123456";

/// A call of the provider that Alice's desk phone took: its INVITE and the answer, and the INVITE that the desk phone answered.
async fn taken(
    t: &mut World,
    peer: &mut Peer,
    desk: &mut Peer,
    max_forwards: u8,
) -> (Request, Response, Request) {
    let mut invite = peer.invite(&format!("sip:{NUMBER}@127.0.0.1"));
    invite.headers.set(HeaderName::MaxForwards, max_forwards);
    peer.send(&invite.to_bytes()).await;
    rings(t, "alice").await;
    let rung = desk.request(&Method::Invite).await;
    desk.pick_up(&rung).await;
    let answer = peer.code(&Method::Invite, StatusCode::OK).await;
    let ack = peer.inside(&Method::Ack, 1, &invite, &answer);
    peer.send(&ack.to_bytes()).await;
    assert!(matches!(
        t.event().await,
        (_, PhoneEventKind::AnsweredElsewhere)
    ));
    (invite, answer, rung)
}

async fn world(change: impl FnOnce(Telephony) -> Telephony) -> (World, Peer) {
    let (peer, rows) = provider().await;
    let t = World::new(SETTINGS, change(rows)).await;
    let peer = peer.toward(t.address(Transport::Udp));
    (t, peer)
}

fn refer(mut refer: Request, to: &str) -> Request {
    refer
        .headers
        .push(HeaderName::ReferTo, format_args!("<{to}>"));
    refer
}

/// The next two Legs that are connected with each other, and were not `before`.
async fn connected(t: &mut World, before: &[[LegId; 2]]) -> [LegId; 2] {
    let mut legs = Vec::new();
    loop {
        if let Wanted::Connect(leg, "leg") = t.wants().await {
            legs.push(leg);
        }
        if let [one, other] = legs[..] {
            legs.clear();
            let pair = [one.min(other), one.max(other)];
            if !before.contains(&pair) {
                return pair;
            }
        }
    }
}

async fn hangs_up(peer: &mut Peer) {
    let bye = peer.request(&Method::Bye).await;
    peer.answer(&bye, StatusCode::OK, |_| {}).await;
}

#[tokio::test]
async fn a_desk_phone_sends_a_caller_on_to_a_number() {
    let (mut t, mut peer) = world(with_desk).await;
    let mut desk = desk(&t).await;
    let (invite, answer, rung) = taken(&mut t, &mut peer, &mut desk, 70).await;
    let first = connected(&mut t, &[]).await;
    let asked = desk.inside_of(&Method::Refer, 1, &rung);
    let asked = refer(asked, &format!("tel:{ELSEWHERE}"));
    desk.send(&asked.to_bytes()).await;
    desk.code(&Method::Refer, StatusCode::ACCEPTED).await;
    let dialled = peer.request(&Method::Invite).await;
    assert!(dialled.target.starts_with(&format!("sip:{ELSEWHERE}@")));
    peer.answer(&dialled, StatusCode::RINGING, |_| {}).await;
    desk.notified(180).await;
    peer.pick_up(&dialled).await;
    desk.notified(200).await;
    hangs_up(&mut desk).await;
    let second = connected(&mut t, &[first]).await;
    assert_eq!(second.iter().filter(|leg| first.contains(leg)).count(), 1);
    let bye = peer.inside(&Method::Bye, 2, &invite, &answer);
    peer.send(&bye.to_bytes()).await;
    peer.request(&Method::Bye).await;
    t.until(|figures| figures.transfers == 1 && figures.calls == 0)
        .await;
}

#[tokio::test]
async fn a_desk_phone_connects_those_it_talks_with() {
    let (mut t, mut peer) = world(with_desk).await;
    let mut desk = desk(&t).await;
    let (invite, answer, rung) = taken(&mut t, &mut peer, &mut desk, 70).await;
    let first = connected(&mut t, &[]).await;
    let mut consult = desk.invite(&format!("sip:{ELSEWHERE}@sip.example.com"));
    desk.prove(&mut consult, DESK, "hush").await;
    let dialled = peer.request(&Method::Invite).await;
    peer.pick_up(&dialled).await;
    let answered = desk.code(&Method::Invite, StatusCode::OK).await;
    let ack = desk.inside(&Method::Ack, 2, &consult, &answered);
    desk.send(&ack.to_bytes()).await;
    let second = connected(&mut t, &[first]).await;

    let tag = |name: &HeaderName, headers: &gateway_sip::Headers| {
        let value = headers.get(name).unwrap();
        let address = NameAddr::parse(value, "tag").unwrap();
        address.tag().unwrap().to_owned()
    };
    let replaces = format!(
        "{}%3Bto-tag%3D{}%3Bfrom-tag%3D{}",
        consult.headers.get(&HeaderName::CallId).unwrap(),
        tag(&HeaderName::To, &answered.headers),
        tag(&HeaderName::From, &consult.headers),
    );
    // What no call of theirs is called by connects nobody.
    let wrong = replaces.replace("to-tag%3D", "to-tag%3Dx");
    let asked = desk.inside_of(&Method::Refer, 1, &rung);
    let asked = refer(asked, &format!("sip:x@sip.example.com?Replaces={wrong}"));
    desk.send(&asked.to_bytes()).await;
    desk.code(&Method::Refer, StatusCode::ACCEPTED).await;
    desk.notified(481).await;

    let asked = desk.inside_of(&Method::Refer, 2, &rung);
    let asked = refer(asked, &format!("sip:x@sip.example.com?Replaces={replaces}"));
    desk.send(&asked.to_bytes()).await;
    desk.code(&Method::Refer, StatusCode::ACCEPTED).await;
    desk.notified(200).await;
    let joined = connected(&mut t, &[first, second]).await;
    assert!(first.contains(&joined[0]) || first.contains(&joined[1]));
    assert!(second.contains(&joined[0]) || second.contains(&joined[1]));
    hangs_up(&mut desk).await;
    hangs_up(&mut desk).await;
    t.until(|figures| figures.calls == 1 && figures.legs == 2)
        .await;
    let bye = peer.inside(&Method::Bye, 2, &invite, &answer);
    peer.send(&bye.to_bytes()).await;
    hangs_up(&mut peer).await;
    t.until(|figures| figures.calls == 0).await;
}

#[tokio::test]
async fn whom_a_desk_phone_sends_on_from_a_browser_keeps_its_room() {
    let (mut t, mut peer) = world(with_desk).await;
    let mut desk = desk(&t).await;
    let call = t.dial(&format!("tel:{NUMBER}")).await;
    let rung = desk.request(&Method::Invite).await;
    desk.pick_up(&rung).await;
    let old = loop {
        if let Wanted::Connect(leg, "room") = t.wants().await {
            break leg;
        }
    };
    let asked = desk.inside_of(&Method::Refer, 1, &rung);
    let asked = refer(asked, &format!("sip:{ELSEWHERE}@sip.example.com"));
    desk.send(&asked.to_bytes()).await;
    desk.code(&Method::Refer, StatusCode::ACCEPTED).await;
    let dialled = peer.request(&Method::Invite).await;
    // A blind one: who has asked is gone before anybody answers.
    let bye = desk.inside_of(&Method::Bye, 2, &rung);
    desk.send(&bye.to_bytes()).await;
    desk.code(&Method::Bye, StatusCode::OK).await;
    peer.pick_up(&dialled).await;
    let Wanted::Open(new) = t.wants().await else {
        panic!("a Leg opens, and the old one keeps its place")
    };
    let heard = [t.wants().await, t.wants().await, t.wants().await];
    let remote = "127.0.0.1:40000".parse().unwrap();
    assert_eq!(
        heard,
        [
            Wanted::Agree(new, remote),
            Wanted::HandOver(old, new),
            Wanted::Close(old)
        ]
    );
    t.tell(call, PhoneCommandKind::HangUp { cause: 16 }).await;
    hangs_up(&mut peer).await;
    let end = loop {
        if let (_, PhoneEventKind::Ended(end)) = t.event().await {
            break end;
        }
    };
    assert_eq!(end.reason, PhoneReason::Hangup);
}

#[tokio::test]
async fn a_transfer_goes_no_further_than_its_user_may_call() {
    let (mut t, mut peer) = world(|rows| {
        let mut rows = with_desk(rows);
        let settings = "destinations = { allow = ['+4930'] }";
        rows.users.insert(user(), toml::from_str(settings).unwrap());
        rows
    })
    .await;
    let mut desk = desk(&t).await;
    let (_, _, rung) = taken(&mut t, &mut peer, &mut desk, 2).await;
    let targets = [
        (format!("tel:{ELSEWHERE}"), 403),
        ("sip:+493099999@elsewhere.example".to_owned(), 404),
        ("tel:112".to_owned(), 403),
        // It has come through many hands already (RFC 3261 §16.3).
        ("tel:+493099999".to_owned(), 483),
    ];
    for (number, (target, code)) in (1..).zip(targets) {
        let asked = refer(desk.inside_of(&Method::Refer, number, &rung), &target);
        desk.send(&asked.to_bytes()).await;
        desk.code(&Method::Refer, StatusCode::ACCEPTED).await;
        desk.notified(code).await;
    }
    // Nothing was lost by asking.
    let bye = desk.inside_of(&Method::Bye, 9, &rung);
    desk.send(&bye.to_bytes()).await;
    hangs_up(&mut peer).await;
    let figures = t.handle.figures().await;
    let refused: u64 = figures.transfers_refused.values().sum();
    assert_eq!((figures.transfers, refused), (0, 4));
}

#[tokio::test]
async fn a_trunk_transfers_only_where_its_row_lets_it() {
    for allowed in [false, true] {
        let (mut t, mut peer) = world(|mut rows| {
            for trunk in rows.trunks.values_mut() {
                trunk.transfers = allowed;
            }
            rows
        })
        .await;
        let call = t.dial("tel:+49891234567").await;
        let invite = peer.request(&Method::Invite).await;
        peer.pick_up(&invite).await;
        let asked = peer.inside_of(&Method::Refer, 1, &invite);
        let asked = refer(asked, &format!("sip:{ELSEWHERE}@pbx.example"));
        peer.send(&asked.to_bytes()).await;
        peer.code(&Method::Refer, StatusCode::ACCEPTED).await;
        if allowed {
            let dialled = peer.request(&Method::Invite).await;
            assert!(dialled.target.starts_with(&format!("sip:{ELSEWHERE}@")));
            peer.answer(&dialled, StatusCode::BUSY_HERE, |_| {}).await;
            peer.notified(486).await;
        } else {
            peer.notified(403).await;
        }
        t.tell(call, PhoneCommandKind::HangUp { cause: 16 }).await;
        hangs_up(&mut peer).await;
        t.until(|figures| figures.calls == 0).await;
    }
}

#[tokio::test]
async fn another_desk_phone_takes_the_place_of_one_and_nobody_else_does() {
    let (mut t, mut peer) =
        world(|rows| with_phone(with_desk(rows), "bob-desk", "user = 'bob'")).await;
    let mut desk = desk(&t).await;
    let mut bob = registered(&t, "bob-desk", "127.0.0.6", 2).await;
    let (_, _, rung) = taken(&mut t, &mut peer, &mut desk, 70).await;
    let first = connected(&mut t, &[]).await;
    let header = |name: &HeaderName| rung.headers.get(name).unwrap();
    let from = NameAddr::parse(header(&HeaderName::From), "From").unwrap();
    let replaces = format!(
        "{};to-tag={};from-tag=peer",
        header(&HeaderName::CallId),
        from.tag().unwrap()
    );
    let name = HeaderName::Replaces;
    // The provider may know the words, and is no desk phone.
    let mut invite = peer.invite(&format!("sip:{NUMBER}@127.0.0.1"));
    invite.headers.push(name.clone(), &replaces);
    peer.send(&invite.to_bytes()).await;
    peer.code(&Method::Invite, StatusCode::FORBIDDEN).await;

    let mut invite = bob.invite("sip:alice@sip.example.com");
    invite.headers.push(name, &replaces);
    bob.prove(&mut invite, "bob-desk", "hush").await;
    let answer = bob.code(&Method::Invite, StatusCode::OK).await;
    let ack = bob.inside(&Method::Ack, 2, &invite, &answer);
    bob.send(&ack.to_bytes()).await;
    hangs_up(&mut desk).await;
    connected(&mut t, &[first]).await;
    let bye = bob.inside(&Method::Bye, 3, &invite, &answer);
    bob.send(&bye.to_bytes()).await;
    hangs_up(&mut peer).await;
    t.until(|figures| figures.calls == 0).await;
}
