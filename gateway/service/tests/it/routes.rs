//! Where calls go by the rows of an Account: desk phones, forwarding, Queues, limits.

use gateway_core::transaction::Transport;
use gateway_sip::digest::{Algorithm, Ha1};
use gateway_sip::{HeaderName, Method, StatusCode};
use model::CallId;
use model::phone::rows::{DIGEST_REALM, Destination, Ha1s, Phone, Telephony};
use model::phone::{PhoneCommandKind, PhoneEventKind, PhoneReason, Unanswered};

use crate::peer::Peer;
use crate::phone::{Phone as Caller, offer};
use crate::world::{NUMBER, Wanted, World, telephony, trunk, user};

pub(crate) const DESK: &str = "alice-desk";
pub(crate) const SETTINGS: &str =
    "domains = ['sip.example.com']\nstranger_messages_per_second = 1000";

/// A provider at an address of its own, and the rows of its Trunk.
pub(crate) async fn provider() -> (Peer, Telephony) {
    let peer = Peer::udp("127.0.0.1").await;
    let target = format!("sip:{}", peer.address);
    (peer, telephony([("provider", trunk(&[target]))]))
}

pub(crate) fn with_desk(rows: Telephony) -> Telephony {
    with_phone(rows, DESK, "user = 'alice'")
}

/// Another desk phone, of whom `row` says.
pub(crate) fn with_phone(mut rows: Telephony, name: &str, row: &str) -> Telephony {
    let ha1 = |algorithm| Ha1::new(algorithm, name, DIGEST_REALM, "hush");
    let (md5, sha256) = (ha1(Algorithm::Md5), ha1(Algorithm::Sha256));
    let mut phone: Phone = toml::from_str(row).unwrap();
    phone.ha1 = Some(Ha1s::new(md5.reveal_hex(), Some(sha256.reveal_hex())).unwrap());
    rows.phones.insert(name.parse().unwrap(), phone);
    rows
}

/// Alice's desk phone, registered.
pub(crate) async fn desk(t: &World) -> Peer {
    registered(t, DESK, "127.0.0.5", 1).await
}

/// A desk phone at `ip`, registered as one of so many.
pub(crate) async fn registered(t: &World, name: &str, ip: &str, phones: usize) -> Peer {
    let mut desk = Peer::udp(ip).await.toward(t.address(Transport::Udp));
    let mut register = desk.outside(&Method::Register, "sip:sip.example.com");
    let own = format!("<sip:{name}@sip.example.com>");
    register.headers.set(HeaderName::To, &own);
    register
        .headers
        .set(HeaderName::From, format_args!("{own};tag=desk"));
    desk.prove(&mut register, name, "hush").await;
    let registered = desk.code(&Method::Register, StatusCode::OK).await;
    assert!(registered.headers.get(&HeaderName::Contact).is_some());
    t.until(|figures| figures.phones == phones).await;
    desk
}

pub(crate) async fn rings(t: &mut World, whom: &str) -> CallId {
    let (call, PhoneEventKind::Ring(ring)) = t.event().await else {
        panic!("nobody rings");
    };
    assert_eq!(ring.users, [whom.parse().unwrap()]);
    call
}

#[tokio::test]
async fn a_desk_phone_rings_beside_the_browser_and_takes_the_call() {
    let (peer, rows) = provider().await;
    let mut t = World::new(SETTINGS, with_desk(rows)).await;
    let mut peer = peer.toward(t.address(Transport::Udp));
    let mut desk = desk(&t).await;
    let invite = peer.invite(&format!("sip:{NUMBER}@127.0.0.1"));
    peer.send(&invite.to_bytes()).await;
    let call = rings(&mut t, "alice").await;
    let rung = desk.request(&Method::Invite).await;
    assert_eq!(rung.target, desk.contact().uri.to_string());
    let from = rung.headers.get(&HeaderName::From).unwrap();
    assert!(from.contains("sip:+4989555@sip.example.com"), "{from}");
    desk.answer(&rung, StatusCode::RINGING, |_| {}).await;
    peer.code(&Method::Invite, StatusCode::RINGING).await;
    desk.pick_up(&rung).await;
    let answer = peer.code(&Method::Invite, StatusCode::OK).await;
    assert_eq!(t.event().await, (call, PhoneEventKind::AnsweredElsewhere));
    let ack = peer.inside(&Method::Ack, 1, &invite, &answer);
    peer.send(&ack.to_bytes()).await;
    let mut heard = 0;
    while heard < 2 {
        heard += usize::from(matches!(t.wants().await, Wanted::Connect(_, "leg")));
    }
    let bye = peer.inside(&Method::Bye, 2, &invite, &answer);
    peer.send(&bye.to_bytes()).await;
    let bye = desk.request(&Method::Bye).await;
    desk.answer(&bye, StatusCode::OK, |_| {}).await;
    let record = t.kept().await;
    assert_eq!((record.call, record.user), (call, Some(user())));
}

#[tokio::test]
async fn a_desk_phone_calls_as_its_user_may() {
    let (mut peer, rows) = provider().await;
    let t = World::new(SETTINGS, with_desk(rows)).await;
    let mut desk = desk(&t).await;
    let mut invite = desk.invite("sip:+49891234567@sip.example.com");
    desk.prove(&mut invite, DESK, "hush").await;
    let dialled = peer.request(&Method::Invite).await;
    assert!(
        dialled.target.starts_with("sip:+49891234567@"),
        "{}",
        dialled.target
    );
    peer.pick_up(&dialled).await;
    let answer = desk.code(&Method::Invite, StatusCode::OK).await;
    let ack = desk.inside(&Method::Ack, 2, &invite, &answer);
    desk.send(&ack.to_bytes()).await;
    let bye = desk.inside(&Method::Bye, 3, &invite, &answer);
    desk.send(&bye.to_bytes()).await;
    desk.code(&Method::Bye, StatusCode::OK).await;
    peer.request(&Method::Bye).await;

    let mut nobody = desk.invite("sip:nobody@sip.example.com");
    desk.prove(&mut nobody, DESK, "hush").await;
    desk.code(&Method::Invite, StatusCode::NOT_FOUND).await;
    t.until(|figures| figures.refusals_in.get("no_number") == Some(&1))
        .await;
}

#[tokio::test]
async fn a_call_that_nobody_answers_goes_on_where_the_user_wishes() {
    let (peer, mut rows) = provider().await;
    let settings = "forward.no_answer = { forward = '+49170123456' }";
    rows.users.insert(user(), toml::from_str(settings).unwrap());
    let mut t = World::new("", rows).await;
    let mut peer = peer.toward(t.address(Transport::Udp));
    let invite = peer.invite(&format!("sip:{NUMBER}@127.0.0.1"));
    peer.send(&invite.to_bytes()).await;
    let call = rings(&mut t, "alice").await;
    t.tell(call, PhoneCommandKind::Ringing).await;
    let why = Unanswered::Missed;
    t.tell(call, PhoneCommandKind::Unanswered { user: user(), why })
        .await;
    let onward = peer.request(&Method::Invite).await;
    assert!(
        onward.target.starts_with("sip:+49170123456@"),
        "{}",
        onward.target
    );
    peer.answer(&onward, StatusCode::BUSY_HERE, |_| {}).await;
    peer.code(&Method::Invite, StatusCode::BUSY_HERE).await;
    let (_, PhoneEventKind::Ended(end)) = t.event().await else {
        panic!("the call is not over");
    };
    assert_eq!(end.reason, PhoneReason::Busy);
}

#[tokio::test]
async fn who_waits_in_a_queue_is_answered_and_its_members_ring_one_after_the_other() {
    let (peer, mut rows) = provider().await;
    let queue = "members = ['alice', 'bob']\nstrategy = 'in_order'\nnobody_answers = 'busy'";
    rows.queues
        .insert("sales".parse().unwrap(), toml::from_str(queue).unwrap());
    for number in rows.numbers.values_mut() {
        number.to = Destination::Queue("sales".parse().unwrap());
    }
    let mut t = World::new("", rows).await;
    let mut peer = peer.toward(t.address(Transport::Udp));
    let invite = peer.invite(&format!("sip:{NUMBER}@127.0.0.1"));
    peer.send(&invite.to_bytes()).await;
    let answer = peer.code(&Method::Invite, StatusCode::OK).await;
    let ack = peer.inside(&Method::Ack, 1, &invite, &answer);
    peer.send(&ack.to_bytes()).await;
    let call = rings(&mut t, "alice").await;
    t.until(|figures| figures.waiting == 1).await;
    let why = Unanswered::Declined;
    t.tell(call, PhoneCommandKind::Unanswered { user: user(), why })
        .await;
    assert_eq!(rings(&mut t, "bob").await, call);
    let place = t.place();
    let bob = "bob".parse().unwrap();
    t.tell(call, PhoneCommandKind::Answer { user: bob, place })
        .await;
    t.until(|figures| figures.waiting == 0).await;
    let mut heard = Vec::new();
    while heard.last() != Some(&"room") {
        if let Wanted::Connect(_, what) = t.wants().await {
            heard.push(what);
        }
    }
    assert_eq!(heard, ["play", "room"]);
    t.tell(call, PhoneCommandKind::HangUp { cause: 16 }).await;
    let bye = peer.request(&Method::Bye).await;
    peer.answer(&bye, StatusCode::OK, |_| {}).await;
    let record = t.kept().await;
    assert_eq!(
        record.queue.as_ref().map(|name| name.as_str()),
        Some("sales")
    );
}

#[tokio::test]
async fn a_call_too_many_is_refused() {
    let (mut peer, mut rows) = provider().await;
    rows.limits.0.calls = 1;
    let mut t = World::new("", rows).await;
    t.dial("tel:+49891234567").await;
    peer.request(&Method::Invite).await;
    t.event().await; // It is on its way.
    let second = t.dial("tel:+49891234568").await;
    let (of, PhoneEventKind::Ended(end)) = t.event().await else {
        panic!("it was not refused");
    };
    assert_eq!((of, end.reason), (second, PhoneReason::LimitReached));
}

#[tokio::test]
async fn who_dials_for_help_that_goes_nowhere_hears_so_before_an_answer() {
    let (_, rows) = provider().await;
    let t = World::real(SETTINGS, with_desk(rows)).await;
    let mut desk = desk(&t).await;
    let sound = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut invite = desk.invite("sip:112@sip.example.com");
    offer(&mut invite, sound.local_addr().unwrap().port());
    desk.prove(&mut invite, DESK, "hush").await;
    let mut phone = Caller::answered(desk, invite, sound, StatusCode::SESSION_PROGRESS).await;
    phone.until_tone(950.0).await;
    phone.until_tone(1_800.0).await;
    phone
        .peer
        .code(&Method::Invite, StatusCode::FORBIDDEN)
        .await;
    t.until(|figures| figures.calls == 0 && figures.refusals_in.get("help") == Some(&1))
        .await;
}
