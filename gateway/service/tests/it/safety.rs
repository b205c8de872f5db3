//! Strangers.

use gateway_core::transaction::Transport;
use gateway_sip::digest::{Answering, Challenge};
use gateway_sip::{HeaderName, Method, StatusCode};
use model::phone::PhoneEventKind;
use model::phone::rows::{Inbound, Peering, Secret, Trunk};

use crate::peer::Peer;
use crate::world::{NUMBER, World, telephony, trunk};

fn pbx() -> Trunk {
    Trunk {
        peering: Peering::Inbound(Inbound {
            user: "pbx".parse().unwrap(),
        }),
        password: Some(Secret::new("hush").unwrap()),
        ..trunk(&[])
    }
}

#[tokio::test]
async fn strangers_hear_nothing() {
    let t = World::new("", telephony([("pbx", pbx())])).await;
    let mut stranger = Peer::udp("127.0.0.2")
        .await
        .toward(t.address(Transport::Udp));
    for method in [
        Method::Options,
        Method::Invite,
        Method::Register,
        Method::Cancel,
        Method::Bye,
    ] {
        let request = stranger.outside(&method, &format!("sip:{NUMBER}@127.0.0.1"));
        stranger.send(&request.to_bytes()).await;
    }
    stranger.send(b"no SIP at all\r\n\r\n").await;
    stranger.send(b"INVITE sip:a SIP/7.0\r\n\r\n").await;
    t.until(|figures| {
        figures.silences.get("stranger") == Some(&5) && figures.unfit.values().sum::<u64>() == 2
    })
    .await;
    assert!(stranger.hears_nothing());
}

#[tokio::test]
async fn a_stranger_with_the_password_is_a_trunk_and_one_without_is_banned() {
    let settings = "domains = ['sip.example.com']\nfailures_max = 3";
    let mut t = World::new(settings, telephony([("pbx", pbx())])).await;
    let here = t.address(Transport::Udp);
    let target = format!("sip:{NUMBER}@sip.example.com");
    let mut pbx = Peer::udp("127.0.0.3").await.toward(here);
    let mut invite = pbx.invite(&target);
    pbx.send(&invite.to_bytes()).await;
    let challenged = pbx.code(&Method::Invite, StatusCode::UNAUTHORIZED).await;
    let challenge = |response: &gateway_sip::Response| {
        let value = response.headers.get(&HeaderName::WwwAuthenticate).unwrap();
        Challenge::parse(value, false).unwrap().unwrap()
    };
    let next = |invite: &mut gateway_sip::Request, number: u32| {
        let via = invite.headers.get(&HeaderName::Via).unwrap();
        let via = via.replace(";branch=z9hG4bK", &format!(";branch=z9hG4bK{number}x"));
        invite.headers.set(HeaderName::Via, via);
        invite
            .headers
            .set(HeaderName::CSeq, format_args!("{number} INVITE"));
    };
    next(&mut invite, 2);
    Answering::new(challenge(&challenged), "pbx", "hush").authorize(&mut invite, 5);
    pbx.send(&invite.to_bytes()).await;
    // It comes again, as UDP has it: its credentials are used up, and it is the same request all the same.
    pbx.send(&invite.to_bytes()).await;
    let (_, PhoneEventKind::Ring(_)) = t.event().await else {
        panic!("nobody rings");
    };
    t.until(|figures| figures.again == 1).await;

    let mut guesser = Peer::udp("127.0.0.4").await.toward(here);
    let mut invite = guesser.invite(&target);
    for number in 1..=4 {
        guesser.send(&invite.to_bytes()).await;
        if number == 4 {
            break;
        }
        let challenged = guesser
            .code(&Method::Invite, StatusCode::UNAUTHORIZED)
            .await;
        next(&mut invite, number + 1);
        let user = ["pbx", "nobody", "pbx"][usize::try_from(number).unwrap() - 1];
        Answering::new(challenge(&challenged), user, "guess").authorize(&mut invite, 5);
    }
    let last = guesser
        .code(&Method::Invite, StatusCode::UNAUTHORIZED)
        .await;
    assert!(last.headers.get(&HeaderName::WwwAuthenticate).is_some());
    t.until(|figures| figures.banned == 1 && figures.bans == 1)
        .await;
    guesser.send(&invite.to_bytes()).await;
    t.until(|figures| figures.silences.get("banned") == Some(&1))
        .await;
    assert!(guesser.hears_nothing());
}

#[tokio::test]
async fn a_connection_of_a_stranger_that_says_nothing_of_worth_is_counted_and_refused_beyond_its_share()
 {
    let settings = "connections_per_address_max = 2\nstranger_messages_per_second = 100";
    let t = World::new(settings, telephony([("pbx", pbx())])).await;
    let here = t.address(Transport::Tcp);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(Peer::connect(here).await);
    }
    t.until(|figures| figures.connections == 2 && figures.connections_refused == 1)
        .await;
    open.clear();
    t.until(|figures| figures.connections == 0).await;
}
