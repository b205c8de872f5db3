//! Allocations come, live and go.

use std::time::Duration;

use relay_core::{Alternates, Transport};
use relay_stun::client::{Client, Event, Request, TRANSPORT_UDP};
use relay_stun::{
    AddressFamily, AttributeType, Class, ErrorCode, IntegrityKey, IntegrityKind, Message,
    MessageWriter, Method, PasswordAlgorithm, decode_address,
};

use crate::world::{OTHER_PEER, PEER, PEER_V6, Phone, V6, World, peer_reads};

#[test]
fn a_binding_request_is_answered_with_the_clients_address() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    let request = alice.conversation.request(Request::Binding);
    let answer = world.exchange(&alice, &request).unwrap();
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.class(), Class::Success);
    assert_eq!(
        message.xor_address(AttributeType::XOR_MAPPED_ADDRESS),
        Some(alice.at.client)
    );
    assert_eq!(answer.len(), 32);
}

#[test]
fn a_stranger_gets_a_small_challenge_and_leaves_nothing_behind() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    let request = alice.conversation.request(Request::Allocate {
        family: None,
        lifetime: None,
    });
    let answer = world.exchange(&alice, &request).unwrap();

    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.error_code(), Some(ErrorCode::UNAUTHORIZED));
    assert_eq!(message.attribute(AttributeType::SOFTWARE), None);
    assert_eq!(message.integrity_kind(), None);
    let (ip_and_udp, asked, answered) = (28, request.len(), answer.len());
    assert!(
        answered + ip_and_udp <= 3 * (asked + ip_and_udp),
        "{answered} for {asked}"
    );
    assert_eq!(world.relay.stats().allocations, 0);
    assert_eq!(world.relay.poll_timeout(), None);
}

#[test]
fn an_allocation_has_a_port_of_the_range_and_an_address_of_its_family() {
    let mut world = World::new();
    let alice = world.allocated("alice", 1000);
    let relayed = alice.relayed.unwrap();
    assert_eq!(relayed.ip().to_string(), "7.7.7.7");
    assert!((50_000..=50_999).contains(&relayed.port()));

    let mut bob = world.phone("bob", 1001, Transport::Tcp);
    assert_eq!(world.ask(&mut bob, V6), Ok(Some(600)));
    assert_eq!(bob.relayed.unwrap().ip().to_string(), "2600::7");

    let mut world = World::with(|config| config.addresses.v6 = None);
    let mut carol = world.phone("carol", 1002, Transport::Udp);
    assert_eq!(
        world.ask(&mut carol, V6),
        Err(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED)
    );
}

#[test]
fn lifetimes_stay_within_their_bounds() {
    for (asked, granted) in [
        (None, 600),
        (Some(1), 600),
        (Some(700), 700),
        (Some(u32::MAX), 3600),
    ] {
        let mut world = World::new();
        let mut alice = world.phone("alice", 1000, Transport::Udp);
        let request = Request::Allocate {
            family: None,
            lifetime: asked,
        };
        assert_eq!(world.ask(&mut alice, request), Ok(Some(granted)));
        assert_eq!(world.refresh(&mut alice, asked.unwrap_or(600)), Ok(granted));
    }
}

#[test]
fn an_allocation_ends_when_its_time_is_over() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    world.permit(&mut alice, PEER).unwrap();

    world.advance(Duration::from_secs(599));
    assert_eq!(world.relay.stats().allocations, 1);
    assert_eq!(world.refresh(&mut alice, 600), Ok(600));

    world.advance(Duration::from_secs(599));
    assert_eq!(world.relay.stats().allocations, 1);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.relay.stats().allocations, 0);
    assert!(world.ports.iter().all(Option::is_none));
    assert_eq!(
        world.refresh(&mut alice, 600),
        Err(ErrorCode::ALLOCATION_MISMATCH)
    );
    assert_eq!(world.allocate(&mut alice), Ok(()));
}

#[test]
fn a_refresh_of_zero_seconds_ends_it_at_once() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    assert_eq!(world.refresh(&mut alice, 0), Ok(0));
    assert_eq!(world.relay.stats().allocations, 0);
    assert!(world.ports.iter().all(Option::is_none));
}

#[test]
fn a_closed_stream_ends_its_allocation() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Tls);
    world.allocate(&mut alice).unwrap();
    assert!(world.relay.has_allocation(&alice.at));
    world.relay.handle_stream_closed(world.now, alice.at);
    world.drain();
    assert!(!world.relay.has_allocation(&alice.at));
    assert!(world.ports.iter().all(Option::is_none));
}

#[test]
fn a_retransmitted_allocate_gets_the_same_answer_and_another_is_a_mismatch() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    let first = alice.conversation.request(Request::Allocate {
        family: None,
        lifetime: None,
    });
    let challenge = world.exchange(&alice, &first).unwrap();
    let Event::Retry(signed) = alice.conversation.handle(&challenge) else {
        panic!("not challenged");
    };
    let answer = world.exchange(&alice, &signed).unwrap();
    assert_eq!(world.exchange(&alice, &signed).unwrap(), answer);
    assert_eq!(world.relay.stats().allocations, 1);

    assert_eq!(
        world.allocate(&mut alice),
        Err(ErrorCode::ALLOCATION_MISMATCH)
    );
}

#[test]
fn a_five_tuple_differs_by_each_of_its_parts() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    let mut tcp = world.phone("alice", 1000, Transport::Tcp);
    let mut elsewhere = world.phone("alice", 1001, Transport::Udp);
    let mut other_server = world.phone("alice", 1000, Transport::Udp);
    other_server.at.server.set_port(443);
    for phone in [&mut tcp, &mut elsewhere, &mut other_server] {
        assert_eq!(
            world.refresh(phone, 600),
            Err(ErrorCode::ALLOCATION_MISMATCH)
        );
        assert_eq!(world.allocate(phone), Ok(()));
        assert_ne!(phone.relayed, alice.relayed);
    }
    assert_eq!(world.refresh(&mut alice, 600), Ok(600));
    assert_eq!(world.relay.stats().allocations, 4);
}

#[test]
fn quotas_are_per_user_and_in_total() {
    let mut world = World::with(|config| {
        config.limits.allocations_per_user_max = 2;
        config.limits.allocations_max = 3;
    });
    let mut first = world.allocated("alice", 1000);
    world.allocated("alice", 1001);
    let mut third = world.phone("alice", 1002, Transport::Udp);
    assert_eq!(
        world.allocate(&mut third),
        Err(ErrorCode::ALLOCATION_QUOTA_REACHED)
    );
    world.allocated("bob", 1003);
    let mut carol = world.phone("carol", 1004, Transport::Udp);
    assert_eq!(
        world.allocate(&mut carol),
        Err(ErrorCode::INSUFFICIENT_CAPACITY)
    );
    assert_eq!(world.refusals("allocation_quota_reached"), 1);
    assert_eq!(world.refusals("allocations_exhausted"), 1);

    world.refresh(&mut first, 0).unwrap();
    assert_eq!(world.allocate(&mut third), Ok(()));
}

#[test]
fn a_relay_that_drains_sends_its_clients_elsewhere() {
    let mut world = World::with(|config| {
        config.alternates = Alternates {
            servers: vec!["192.0.2.9:3478".parse().unwrap()],
            domain: Some("turn.example".to_owned()),
        };
    });
    let mut alice = world.allocated("alice", 1000);
    world.relay.set_draining(true);

    let answer = signed(&mut world, Method::ALLOCATE, &[]);
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.error_code(), Some(ErrorCode::ALLOCATION_MISMATCH));

    let mut bob = world.phone("bob", 1001, Transport::Udp);
    let mut bytes = bob.conversation.request(Request::Allocate {
        family: None,
        lifetime: None,
    });
    let answer = loop {
        let answer = world.exchange(&bob, &bytes).unwrap();
        match bob.conversation.handle(&answer) {
            Event::Retry(retry) => bytes = retry,
            event => {
                assert_eq!(event, Event::Refused(ErrorCode::TRY_ALTERNATE));
                break answer;
            }
        }
    };
    let message = Message::parse(&answer).unwrap();
    let alternate = message
        .attribute(AttributeType::ALTERNATE_SERVER)
        .and_then(decode_address);
    assert_eq!(alternate, Some("192.0.2.9:3478".parse().unwrap()));
    assert_eq!(
        message.text(AttributeType::ALTERNATE_DOMAIN),
        Some("turn.example")
    );
    assert!(message.integrity_kind().is_some());

    // Over IPv6 there is no other server.
    let mut carol = world.phone("carol", 1002, Transport::Udp);
    carol.at.client.set_ip("2600::2".parse().unwrap());
    assert_eq!(
        world.allocate(&mut carol),
        Err(ErrorCode::INSUFFICIENT_CAPACITY)
    );

    // What lives goes on, and after the drain everything is as before.
    assert_eq!(world.refresh(&mut alice, 600), Ok(600));
    world.relay.set_draining(false);
    assert_eq!(world.allocate(&mut bob), Ok(()));
}

#[test]
fn ports_run_out_and_come_back() {
    let mut world = World::with(|config| config.addresses.ports = 50_000..=50_003);
    let mut phones: Vec<Phone> = (0..4)
        .map(|n| world.allocated(&format!("user{n}"), 1000 + n))
        .collect();
    let mut late = world.phone("late", 2000, Transport::Udp);
    assert_eq!(
        world.allocate(&mut late),
        Err(ErrorCode::INSUFFICIENT_CAPACITY)
    );
    world.refresh(&mut phones[2], 0).unwrap();
    assert_eq!(world.allocate(&mut late), Ok(()));
    assert_eq!(late.relayed, phones[2].relayed);
}

#[test]
fn a_port_that_can_not_be_bound_is_508_after_some_tries() {
    let mut world = World::new();
    world.ports_fail = true;
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    assert_eq!(
        world.allocate(&mut alice),
        Err(ErrorCode::INSUFFICIENT_CAPACITY)
    );
    assert_eq!(world.relay.stats().allocations, 0);
    assert_eq!(world.relay.poll_timeout(), None);
    world.ports_fail = false;
    assert_eq!(world.allocate(&mut alice), Ok(()));
}

#[test]
fn the_checks_of_allocate_have_their_codes() {
    let transport = (
        AttributeType::REQUESTED_TRANSPORT,
        vec![TRANSPORT_UDP, 0, 0, 0],
    );
    let check = |attributes: &[(AttributeType, Vec<u8>)], expected: Option<ErrorCode>| {
        let mut world = World::new();
        let answer = signed(&mut world, Method::ALLOCATE, attributes);
        let message = Message::parse(&answer).unwrap();
        assert_eq!(message.error_code(), expected, "{attributes:?}");
        assert!(
            message.verify_integrity(&key()),
            "answers to the authenticated are protected"
        );
    };

    check(std::slice::from_ref(&transport), None);
    check(&[], Some(ErrorCode::BAD_REQUEST));
    check(
        &[(AttributeType::REQUESTED_TRANSPORT, vec![33, 0, 0, 0])],
        Some(ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL),
    );
    check(
        &[(AttributeType::REQUESTED_TRANSPORT, vec![17])],
        Some(ErrorCode::BAD_REQUEST),
    );
    check(
        &[transport.clone(), (AttributeType::DONT_FRAGMENT, vec![])],
        None,
    );
    check(
        &[
            transport.clone(),
            (AttributeType::RESERVATION_TOKEN, vec![7; 7]),
        ],
        Some(ErrorCode::BAD_REQUEST),
    );
    for additional in [
        AttributeType::ADDITIONAL_ADDRESS_FAMILY,
        AttributeType::ADDITIONAL_ADDRESS_FAMILY_OF_A_DRAFT,
    ] {
        for family in [0, 1, 3] {
            check(
                &[transport.clone(), (additional, vec![family, 0, 0, 0])],
                Some(ErrorCode::BAD_REQUEST),
            );
        }
    }
    check(
        &[transport.clone(), (AttributeType(0x7ABC), vec![])],
        Some(ErrorCode::UNKNOWN_ATTRIBUTE),
    );
    check(
        &[transport.clone(), (AttributeType(0xFABC), vec![1, 2, 3])],
        None,
    );
    check(
        &[
            transport.clone(),
            (AttributeType::REQUESTED_ADDRESS_FAMILY, vec![3, 0, 0, 0]),
        ],
        Some(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED),
    );
    check(
        &[transport.clone(), (AttributeType::EVEN_PORT, vec![0])],
        None,
    );
    check(
        &[transport.clone(), (AttributeType::EVEN_PORT, vec![0x80])],
        None,
    );
    check(
        &[transport, (AttributeType::EVEN_PORT, vec![])],
        Some(ErrorCode::BAD_REQUEST),
    );
}

#[test]
fn an_unknown_attribute_is_named_in_the_answer() {
    let mut world = World::new();
    let attributes = [
        (AttributeType(0x7ABC), vec![]),
        (AttributeType(0x7ABD), vec![]),
    ];
    let answer = signed(&mut world, Method::ALLOCATE, &attributes);
    let message = Message::parse(&answer).unwrap();
    assert_eq!(
        message.attribute(AttributeType::UNKNOWN_ATTRIBUTES),
        Some(&[0x7A, 0xBC, 0x7A, 0xBD][..])
    );
}

#[test]
fn an_even_port_is_even() {
    for seed in 0..20 {
        let mut world = World::seeded(seed, |_| {});
        let answer = signed(
            &mut world,
            Method::ALLOCATE,
            &[
                (
                    AttributeType::REQUESTED_TRANSPORT,
                    vec![TRANSPORT_UDP, 0, 0, 0],
                ),
                (AttributeType::EVEN_PORT, vec![0]),
            ],
        );
        let relayed = Message::parse(&answer)
            .unwrap()
            .xor_address(AttributeType::XOR_RELAYED_ADDRESS)
            .unwrap();
        assert!(relayed.port().is_multiple_of(2));
    }
}

#[test]
fn a_refresh_for_the_other_family_is_443() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    let family = Request::CreatePermission {
        peers: vec![PEER_V6.parse().unwrap()],
    };
    assert_eq!(
        world.ask(&mut alice, family),
        Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH)
    );
    assert_eq!(
        world.bind(&mut alice, 0x4000, PEER_V6),
        Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH)
    );
    let mut bob = world.phone("bob", 1001, Transport::Udp);
    world.ask(&mut bob, V6).unwrap();
    assert_eq!(world.permit(&mut bob, PEER_V6), Ok(()));
    assert_eq!(
        world.permit(&mut bob, PEER),
        Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH)
    );
    assert_eq!(
        AddressFamily::of(bob.relayed.unwrap().ip()),
        AddressFamily::V6
    );
}

#[test]
fn an_allocation_that_ended_leaves_nothing_to_its_successor() {
    let mut world = World::with(|config| config.addresses.ports = 50_000..=50_000);
    let mut alice = world.allocated("alice", 1000);
    world.bind(&mut alice, 0x4000, PEER).unwrap();
    let stale = *world.ports[0].as_ref().unwrap();
    world.refresh(&mut alice, 0).unwrap();

    let mut bob = world.allocated("bob", 1001);
    assert_eq!(bob.relayed, alice.relayed);
    assert_eq!(world.peer_sends(PEER, &bob, "for alice"), None);
    assert_eq!(world.send_channel(&bob, 0x4000, "hello"), None);
    world.permit(&mut bob, OTHER_PEER).unwrap();
    assert!(peer_reads(world.send(&mut bob, OTHER_PEER, "hello")).is_some());
    assert_eq!(
        world
            .relay
            .handle_peer_datagram(world.now, stale, PEER.parse().unwrap(), 1),
        None
    );
}

/// The key of `signed`.
fn key() -> IntegrityKey {
    let world = World::new();
    let expiry = world.unix_now() + Duration::from_secs(86_400);
    let (username, password) = world.credentials.issue(expiry, "acme", "alice").unwrap();
    IntegrityKey::long_term(PasswordAlgorithm::Md5, &username, "offhook", &password)
}

/// The answer to a request of Alice with `attributes` and all that authentication needs.
fn signed(world: &mut World, method: Method, attributes: &[(AttributeType, Vec<u8>)]) -> Vec<u8> {
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    let expiry = world.unix_now() + Duration::from_secs(86_400);
    let (username, _) = world.credentials.issue(expiry, "acme", "alice").unwrap();
    let nonce = nonce(world, &mut alice.conversation, &alice.at.client.to_string());

    let mut buffer = [0; 1000];
    let mut writer = MessageWriter::new(&mut buffer, Class::Request, method, [9; 12]);
    for (attribute, value) in attributes {
        writer = writer.attribute(*attribute, value);
    }
    let bytes = writer
        .attribute(AttributeType::USERNAME, username.as_bytes())
        .attribute(AttributeType::REALM, b"offhook")
        .attribute(AttributeType::NONCE, &nonce)
        .integrity(IntegrityKind::Sha1, &key())
        .fingerprint()
        .finish()
        .unwrap()
        .to_vec();
    let answer = world.exchange(&alice, &bytes).unwrap();
    let verified = Message::parse(&answer).unwrap().verify_fingerprint();
    assert_eq!(verified, Some(true), "who sends a FINGERPRINT gets one");
    answer
}

fn nonce(world: &mut World, conversation: &mut Client, client: &str) -> Vec<u8> {
    let request = conversation.request(Request::Refresh { lifetime: 600 });
    let phone = Phone::new(
        "",
        "",
        client.rsplit_once(':').unwrap().1.parse().unwrap(),
        Transport::Udp,
    );
    let answer = world.exchange(&phone, &request).unwrap();
    Message::parse(&answer)
        .unwrap()
        .attribute(AttributeType::NONCE)
        .unwrap()
        .to_vec()
}
