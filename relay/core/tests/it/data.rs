//! Payloads find their way, or don't.

use std::time::Duration;

use relay_core::{CHANNEL_LIFETIME, PERMISSION_LIFETIME, Transport};
use relay_stun::client::Client;
use relay_stun::{AttributeType, Class, ErrorCode, MessageWriter, Method};

use crate::world::{OTHER_PEER, PEER, World, peer_reads};

#[test]
fn a_send_indication_reaches_the_peer_and_its_answer_comes_back() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    assert_eq!(world.send(&mut alice, PEER, "too early"), None);
    world.permit(&mut alice, PEER).unwrap();

    let delivered = world.send(&mut alice, PEER, "hello");
    assert_eq!(
        peer_reads(delivered),
        Some(format!("{} → {PEER} hello", alice.relayed()))
    );
    let delivered = world.peer_sends(PEER, &alice, "hello yourself");
    assert_eq!(
        alice.reads(delivered).unwrap(),
        format!("{PEER} hello yourself")
    );
}

#[test]
fn a_permission_is_for_an_address_and_not_for_a_port() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    world.permit(&mut alice, PEER).unwrap();
    let delivered = world.peer_sends("8.8.8.8:5001", &alice, "other port");
    assert_eq!(alice.reads(delivered).unwrap(), "8.8.8.8:5001 other port");
    assert_eq!(
        world.peer_sends("8.8.8.9:5000", &alice, "other address"),
        None
    );
    assert_eq!(world.refusals("no_permission"), 1);
}

#[test]
fn a_permission_ends_after_five_minutes_without_a_refresh() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    world.permit(&mut alice, PEER).unwrap();

    world.advance(PERMISSION_LIFETIME - Duration::from_secs(1));
    assert!(world.peer_sends(PEER, &alice, "still here").is_some());
    assert!(world.send(&mut alice, PEER, "still here").is_some());

    world.advance(Duration::from_secs(1));
    assert_eq!(world.peer_sends(PEER, &alice, "too late"), None);
    assert_eq!(world.send(&mut alice, PEER, "too late"), None);

    world.permit(&mut alice, PEER).unwrap();
    assert!(world.peer_sends(PEER, &alice, "again").is_some());
}

#[test]
fn a_channel_carries_both_ways_and_brings_its_permission() {
    for transport in Transport::ALL {
        let mut world = World::new();
        let mut alice = world.phone("alice", 1000, transport);
        world.allocate(&mut alice).unwrap();
        world.bind(&mut alice, 0x4000, PEER).unwrap();

        let delivered = world.send_channel(&alice, 0x4000, "hello");
        assert_eq!(
            peer_reads(delivered),
            Some(format!("{} → {PEER} hello", alice.relayed()))
        );
        for payload in ["", "1", "12", "123", "1234"] {
            let delivered = world.peer_sends(PEER, &alice, payload);
            assert_eq!(alice.reads(delivered).unwrap(), format!("0x4000 {payload}"));
        }
        // The same address, another port: permitted, but not the Channel's.
        let delivered = world.peer_sends("8.8.8.8:5001", &alice, "indirect");
        assert_eq!(alice.reads(delivered).unwrap(), "8.8.8.8:5001 indirect");
        assert_eq!(world.send_channel(&alice, 0x4001, "unbound"), None);
        assert_eq!(world.refusals("no_channel"), 1);
    }
}

#[test]
fn a_channel_ends_after_ten_minutes_without_a_refresh() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    world.refresh(&mut alice, 3600).unwrap();
    world.bind(&mut alice, 0x4000, PEER).unwrap();

    world.advance(CHANNEL_LIFETIME - Duration::from_secs(1));
    world.permit(&mut alice, PEER).unwrap();
    let delivered = world.peer_sends(PEER, &alice, "still here");
    assert_eq!(alice.reads(delivered).unwrap(), "0x4000 still here");
    assert!(world.send_channel(&alice, 0x4000, "still here").is_some());

    world.advance(Duration::from_secs(1));
    assert_eq!(world.send_channel(&alice, 0x4000, "too late"), None);
    let delivered = world.peer_sends(PEER, &alice, "by indication");
    assert_eq!(
        alice.reads(delivered).unwrap(),
        format!("{PEER} by indication")
    );
    assert_eq!(world.bind(&mut alice, 0x4000, OTHER_PEER), Ok(()));
}

#[test]
fn a_channel_and_a_peer_are_bound_to_each_other_alone() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    world.bind(&mut alice, 0x4000, PEER).unwrap();
    assert_eq!(world.bind(&mut alice, 0x4000, PEER), Ok(()));
    assert_eq!(
        world.bind(&mut alice, 0x4000, OTHER_PEER),
        Err(ErrorCode::BAD_REQUEST)
    );
    assert_eq!(
        world.bind(&mut alice, 0x4001, PEER),
        Err(ErrorCode::BAD_REQUEST)
    );
    assert_eq!(world.bind(&mut alice, 0x4001, OTHER_PEER), Ok(()));
    assert_eq!(
        world.bind(&mut alice, 0x3FFF, "8.8.8.8:7000"),
        Err(ErrorCode::BAD_REQUEST)
    );
    assert_eq!(
        world.bind(&mut alice, 0x8000, "8.8.8.8:7000"),
        Err(ErrorCode::BAD_REQUEST)
    );
}

#[test]
fn permissions_and_channels_have_limits_and_the_expired_make_room() {
    let mut world = World::with(|config| {
        config.limits.permissions_per_allocation_max = 2;
        config.limits.channels_per_allocation_max = 1;
    });
    let mut alice = world.allocated("alice", 1000);
    world.refresh(&mut alice, 3600).unwrap();
    world.bind(&mut alice, 0x4000, PEER).unwrap();
    assert_eq!(
        world.bind(&mut alice, 0x4001, OTHER_PEER),
        Err(ErrorCode::INSUFFICIENT_CAPACITY)
    );
    world.permit(&mut alice, OTHER_PEER).unwrap();
    assert_eq!(
        world.permit(&mut alice, "1.1.1.1:5000"),
        Err(ErrorCode::INSUFFICIENT_CAPACITY)
    );
    assert_eq!(world.permit(&mut alice, PEER), Ok(()));

    world.advance(CHANNEL_LIFETIME);
    assert_eq!(world.permit(&mut alice, "1.1.1.1:5000"), Ok(()));
    assert_eq!(world.bind(&mut alice, 0x4001, OTHER_PEER), Ok(()));
}

#[test]
fn several_peers_are_permitted_together_or_not_at_all() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    let both = |second: &str| relay_stun::client::Request::CreatePermission {
        peers: vec![PEER.parse().unwrap(), second.parse().unwrap()],
    };
    assert_eq!(
        world.ask(&mut alice, both("10.0.0.1:5000")),
        Err(ErrorCode::FORBIDDEN)
    );
    assert_eq!(world.peer_sends(PEER, &alice, "not yet"), None);
    assert_eq!(world.ask(&mut alice, both(OTHER_PEER)), Ok(None));
    assert!(world.peer_sends(PEER, &alice, "now").is_some());
    assert!(world.peer_sends(OTHER_PEER, &alice, "now").is_some());
    let nobody = relay_stun::client::Request::CreatePermission { peers: vec![] };
    assert_eq!(world.ask(&mut alice, nobody), Err(ErrorCode::BAD_REQUEST));
}

#[test]
fn two_allocations_of_one_relay_talk_without_the_network() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    let mut bob = world.phone("bob", 1001, Transport::Tls);
    world.allocate(&mut bob).unwrap();
    let (alice_relayed, bob_relayed) = (alice.relayed(), bob.relayed());

    // Without Bob's Permission nothing arrives, as if it had come through the network.
    world.permit(&mut alice, &bob_relayed).unwrap();
    assert_eq!(world.send(&mut alice, &bob_relayed, "too early"), None);
    world.permit(&mut bob, &alice_relayed).unwrap();
    let delivered = world.send(&mut alice, &bob_relayed, "hello");
    assert_eq!(
        bob.reads(delivered).unwrap(),
        format!("{alice_relayed} hello")
    );

    world.bind(&mut bob, 0x4000, &alice_relayed).unwrap();
    let delivered = world.send(&mut alice, &bob_relayed, "hi");
    assert_eq!(bob.reads(delivered).unwrap(), "0x4000 hi");
    let delivered = world.send_channel(&bob, 0x4000, "hello yourself");
    assert_eq!(
        alice.reads(delivered).unwrap(),
        format!("{bob_relayed} hello yourself")
    );
    assert_eq!(world.relay.stats().handed_over.packets, 3);

    // Bob leaves: his address is nobody's, and what is sent there goes nowhere.
    world.refresh(&mut bob, 0).unwrap();
    assert_eq!(world.send(&mut alice, &bob_relayed, "anybody?"), None);
    assert_eq!(world.refusals("forbidden_own_address"), 1);
}

#[test]
fn an_indication_that_is_not_understood_is_dropped_in_silence() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    world.permit(&mut alice, PEER).unwrap();
    let peer = PEER.parse().unwrap();
    let mut buffer = [0; 200];
    let mut indication = |extra: Option<AttributeType>, with_peer: bool, with_data: bool| {
        let mut writer = MessageWriter::new(&mut buffer, Class::Indication, Method::SEND, [1; 12]);
        if let Some(extra) = extra {
            writer = writer.attribute(extra, &[]);
        }
        if with_peer {
            writer = writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        }
        if with_data {
            writer = writer.attribute(AttributeType::DATA, b"hello");
        }
        let packet = writer.finish().unwrap().to_vec();
        let delivered = world.client_sends(&alice, &packet);
        assert_eq!(world.sent, vec![], "no answer to an indication");
        delivered.is_some()
    };
    assert!(indication(None, true, true));
    assert!(indication(Some(AttributeType(0xFABC)), true, true));
    assert!(!indication(Some(AttributeType(0x7ABC)), true, true));
    assert!(!indication(None, false, true));
    assert!(!indication(None, true, false));
}

#[test]
fn data_without_an_allocation_goes_nowhere() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    assert_eq!(world.send(&mut alice, PEER, "hello"), None);
    assert_eq!(world.send_channel(&alice, 0x4000, "hello"), None);
    assert_eq!(world.refusals("no_allocation"), 2);
    assert_eq!(world.sent, vec![]);
}

#[test]
fn what_no_request_is_gets_silence() {
    let mut world = World::new();
    let alice = world.allocated("alice", 1000);
    let mut buffer = [0; 100];
    for (class, method) in [
        (Class::Success, Method::BINDING),
        (Class::Error, Method::ALLOCATE),
        (Class::Indication, Method::DATA),
        (Class::Indication, Method::ALLOCATE),
        (Class::Indication, Method::BINDING),
        (Class::Request, Method::SEND),
        (Class::Request, Method::CONNECTION_ATTEMPT),
        (Class::Request, Method(0xFFF)),
    ] {
        let packet = MessageWriter::new(&mut buffer, class, method, [1; 12])
            .finish()
            .unwrap()
            .to_vec();
        assert_eq!(world.client_sends(&alice, &packet), None);
        assert_eq!(world.sent, vec![], "{class:?} {method:?}");
    }
    let mut forged = Client::new("", "", 1).request(relay_stun::client::Request::Binding);
    forged[3] = 8;
    forged.extend([0x80, 0x28, 0, 4, 1, 2, 3, 4]);
    assert_eq!(world.exchange(&alice, &forged), None);
    assert_eq!(world.refusals("wrong_fingerprint"), 1);
}
