//! Trunks: registration, and more than one address.

use gateway_core::transaction::Transport;
use gateway_sip::{HeaderName, Method, StatusCode};
use model::phone::PhoneEventKind;
use model::phone::rows::{Peering, Registration, Secret, Trunk};

use crate::peer::Peer;
use crate::world::{World, telephony, trunk, user};

const CHALLENGE: &str = "Digest realm=\"provider\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256";

fn registering(target: String) -> Trunk {
    Trunk {
        peering: Peering::Registration(Registration {
            user: "49301234".parse().unwrap(),
            auth_user: Some("auth77".parse().unwrap()),
            domain: Some("provider.example".parse().unwrap()),
            expires_seconds: 600,
        }),
        password: Some(Secret::new("hush").unwrap()),
        ..trunk(&[target])
    }
}

#[tokio::test]
async fn a_trunk_is_registered_and_taken_back_at_the_end() {
    let mut peer = Peer::udp("127.0.0.1").await;
    let trunk = registering(format!("sip:{}", peer.address));
    let t = World::new("", telephony([("provider", trunk)])).await;
    let first = peer.request(&Method::Register).await;
    assert_eq!(first.target, "sip:provider.example");
    assert_eq!(first.headers.get(&HeaderName::Expires), Some("600"));
    peer.answer(&first, StatusCode::UNAUTHORIZED, |response| {
        response
            .headers
            .push(HeaderName::WwwAuthenticate, CHALLENGE);
    })
    .await;
    let second = peer.request(&Method::Register).await;
    let credentials = second.headers.get(&HeaderName::Authorization).unwrap();
    assert!(credentials.contains("username=\"auth77\""), "{credentials}");
    assert!(!credentials.contains("hush"));
    let contact = second.headers.get(&HeaderName::Contact).unwrap().to_owned();
    let here = t.address(Transport::Udp);
    assert_eq!(contact, format!("<sip:49301234@{here}>"));
    assert_eq!(t.handle.trunks().await.len(), 1);
    assert!(!t.handle.trunks().await[0].1, "not yet");
    peer.answer(&second, StatusCode::OK, |response| {
        response
            .headers
            .push(HeaderName::Contact, format_args!("{contact};expires=600"));
    })
    .await;
    t.until(|figures| figures.trunks_up == 1).await;

    let handle = t.handle.clone();
    let (last, ()) = tokio::join!(
        async {
            let last = peer.request(&Method::Register).await;
            peer.answer(&last, StatusCode::OK, |_| {}).await;
            last
        },
        handle.shutdown()
    );
    assert_eq!(last.headers.get(&HeaderName::Expires), Some("0"));
}

#[tokio::test]
async fn the_next_address_is_called_when_the_first_takes_no_calls() {
    let (mut first, mut second) = (Peer::udp("127.0.0.1").await, Peer::udp("127.0.0.1").await);
    let targets = [&first, &second].map(|peer| format!("sip:{}", peer.address));
    let mut t = World::new("", telephony([("provider", trunk(&targets))])).await;
    let call = t.dial("tel:+49891234567").await;
    let refused = first.request(&Method::Invite).await;
    first
        .answer(&refused, StatusCode::SERVICE_UNAVAILABLE, |_| {})
        .await;
    let invite = second.request(&Method::Invite).await;
    second.pick_up(&invite).await;
    t.event().await;
    assert_eq!(t.event().await, (call, PhoneEventKind::Answered));
    assert_eq!(t.handle.figures().await.failovers, 1);
}

#[tokio::test]
async fn the_next_address_is_called_when_the_first_says_nothing() {
    let silent = Peer::udp("127.0.0.1").await;
    let mut second = Peer::udp("127.0.0.1").await;
    let targets = [&silent, &second].map(|peer| format!("sip:{}", peer.address));
    let mut t = World::new("", telephony([("provider", trunk(&targets))])).await;
    let call = t.dial("tel:+49891234567").await;
    let invite = second.request(&Method::Invite).await;
    second.pick_up(&invite).await;
    t.event().await;
    assert_eq!(t.event().await, (call, PhoneEventKind::Answered));
    // The next call does not try it first.
    t.dial("tel:+49891234567").await;
    second.request(&Method::Invite).await;
}

#[tokio::test]
async fn a_trunk_bears_so_many_calls_and_no_more() {
    let mut peer = Peer::udp("127.0.0.1").await;
    let mut narrow = trunk(&[format!("sip:{}", peer.address)]);
    narrow.limits.calls = 1;
    let mut telephony = telephony([("provider", narrow)]);
    // She may dial faster than most, so that the Trunk is what refuses.
    let alice = telephony.users.entry(user()).or_default();
    alice.limits.calls_per_second = 10;
    let mut t = World::new("", telephony).await;
    t.dial("tel:+49891234567").await;
    let invite = peer.request(&Method::Invite).await;
    t.event().await;
    let second = t.dial("tel:+49891234567").await;
    t.event().await;
    assert!(matches!(t.event().await, (call, PhoneEventKind::Ended(_)) if call == second));
    peer.answer(&invite, StatusCode::BUSY_HERE, |_| {}).await;
    t.event().await;
    t.dial("tel:+49891234567").await;
    peer.request(&Method::Invite).await;
}
