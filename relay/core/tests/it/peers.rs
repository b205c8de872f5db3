//! The one address check stands behind every way to a peer.

use relay_core::Transport;
use relay_stun::ErrorCode;

use crate::world::{Delivered, PEER, World};

/// Peers no client may reach by default, in forms an address can take.
const FORBIDDEN: [&str; 12] = [
    "127.0.0.1:5000",
    "10.0.0.1:5000",
    "192.168.1.1:5000",
    "169.254.169.254:5000",
    "100.64.0.1:5000",
    "0.0.0.0:5000",
    "224.0.0.1:5000",
    "255.255.255.255:5000",
    "[::1]:5000",
    "[::ffff:127.0.0.1]:5000",
    "[64:ff9b::10.0.0.1]:5000",
    "[2002:7f00:1::1]:5000",
];

#[test]
fn a_forbidden_peer_is_403_for_permission_and_channel_and_never_gets_data() {
    for peer in FORBIDDEN {
        let mut world = World::new();
        let mut alice = world.phone("alice", 1000, Transport::Udp);
        if peer.starts_with('[') {
            world.ask(&mut alice, crate::world::V6).unwrap();
        } else {
            world.allocate(&mut alice).unwrap();
        }
        assert_eq!(
            world.permit(&mut alice, peer),
            Err(ErrorCode::FORBIDDEN),
            "{peer}"
        );
        assert_eq!(
            world.bind(&mut alice, 0x4000, peer),
            Err(ErrorCode::FORBIDDEN),
            "{peer}"
        );
        assert_eq!(world.send(&mut alice, peer, "x"), None, "{peer}");
        assert_eq!(world.send_channel(&alice, 0x4000, "x"), None, "{peer}");
        assert_eq!(world.peer_sends(peer, &alice, "x"), None, "{peer}");
    }
}

#[test]
fn a_low_port_gets_no_channel_and_no_data() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    assert_eq!(
        world.bind(&mut alice, 0x4000, "8.8.8.8:53"),
        Err(ErrorCode::FORBIDDEN)
    );
    world.permit(&mut alice, PEER).unwrap();
    assert_eq!(world.send(&mut alice, "8.8.8.8:53", "query"), None);
    assert_eq!(world.refusals("forbidden_low_port"), 2);
    assert!(world.send(&mut alice, "8.8.8.8:5353", "query").is_some());
}

#[test]
fn an_own_address_is_reached_only_where_an_allocation_lives() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    let free = format!(
        "7.7.7.7:{}",
        if alice.relayed().ends_with("50000") {
            50_001
        } else {
            50_000
        }
    );

    // A Permission names no port, so it is granted; what it is used for is looked at each time.
    assert_eq!(world.permit(&mut alice, "7.7.7.7:3478"), Ok(()));
    for nobody in [&free[..], "7.7.7.7:3478", "7.7.7.7:8080"] {
        assert_eq!(
            world.bind(&mut alice, 0x4000, nobody),
            Err(ErrorCode::FORBIDDEN),
            "{nobody}"
        );
        assert_eq!(world.send(&mut alice, nobody, "x"), None, "{nobody}");
        // From the network such a packet is forged, or another program on this machine.
        assert_eq!(world.peer_sends(nobody, &alice, "x"), None, "{nobody}");
    }
    let bob = world.allocated("bob", 1001);
    assert_eq!(world.bind(&mut alice, 0x4000, &bob.relayed()), Ok(()));
    assert_eq!(world.peer_sends(&bob.relayed(), &alice, "forged"), None);
}

#[test]
fn two_allocations_meet_on_a_loopback_relay_too() {
    let mut world = World::with(|config| config.addresses.v4 = Some("127.0.0.1".parse().unwrap()));
    let mut alice = world.allocated("alice", 1000);
    let mut bob = world.allocated("bob", 1001);
    world.permit(&mut alice, &bob.relayed()).unwrap();
    world.permit(&mut bob, &alice.relayed()).unwrap();
    let delivered = world.send(&mut alice, &bob.relayed(), "hello");
    assert_eq!(
        bob.reads(delivered).unwrap(),
        format!("{} hello", alice.relayed())
    );
    assert_eq!(world.send(&mut alice, "127.0.0.1:6379", "SHUTDOWN"), None);
    assert_eq!(
        world.permit(&mut alice, "127.0.0.2:5000"),
        Err(ErrorCode::FORBIDDEN)
    );
}

#[test]
fn the_lists_override() {
    let mut world = World::with(|config| {
        config.peers.allow = vec!["10.1.0.0/16".parse().unwrap()];
        config.peers.deny = vec!["8.8.8.0/24".parse().unwrap()];
    });
    let mut alice = world.allocated("alice", 1000);
    assert_eq!(world.permit(&mut alice, "10.1.2.3:5000"), Ok(()));
    assert!(world.send(&mut alice, "10.1.2.3:5000", "x").is_some());
    assert_eq!(
        world.permit(&mut alice, "10.2.2.3:5000"),
        Err(ErrorCode::FORBIDDEN)
    );
    assert_eq!(world.permit(&mut alice, PEER), Err(ErrorCode::FORBIDDEN));
    assert_eq!(world.refusals("forbidden_deny_list"), 1);
}

#[test]
fn a_peer_that_is_denied_later_is_cut_off_and_one_that_is_allowed_later_is_reached() {
    for transport in [Transport::Udp, Transport::Tls] {
        let mut world = World::new();
        let mut alice = world.phone("alice", 1000, transport);
        world.allocate(&mut alice).unwrap();
        world.bind(&mut alice, 0x4000, PEER).unwrap();
        assert!(world.send_channel(&alice, 0x4000, "x").is_some());
        assert!(world.peer_sends(PEER, &alice, "x").is_some());

        let ip = PEER.split(':').next().unwrap();
        world.reconfigure(|config| {
            config.peers.deny = vec![ip.parse().unwrap()];
            config.peers.allow = vec!["10.1.0.0/16".parse().unwrap()];
            config.realm = "another".to_owned();
            config.addresses.v4 = None;
        });
        assert_eq!(world.send_channel(&alice, 0x4000, "x"), None);
        assert_eq!(world.send(&mut alice, PEER, "x"), None);
        assert_eq!(world.peer_sends(PEER, &alice, "x"), None);
        assert_eq!(
            world.bind(&mut alice, 0x4000, PEER),
            Err(ErrorCode::FORBIDDEN)
        );
        world.permit(&mut alice, "10.1.2.3:5000").unwrap();
        assert!(world.send(&mut alice, "10.1.2.3:5000", "x").is_some());
        // The relay's own address is guarded as before, and the realm still fits the client's key.
        world.permit(&mut alice, "7.7.7.7:3478").unwrap();
        assert_eq!(world.send(&mut alice, "7.7.7.7:3478", "x"), None);
        assert_eq!(world.refresh(&mut alice, 600), Ok(600));

        world.reconfigure(|_| {});
        assert!(world.send_channel(&alice, 0x4000, "x").is_some());
    }
}

#[test]
fn the_sfu_of_the_process_is_reached_in_memory_and_answers_there() {
    for transport in [Transport::Udp, Transport::Tls] {
        let mut world = World::new();
        // On loopback and an own address, which are denied to all but these ports.
        world.set_media(&["127.0.0.1:10000", "7.7.7.7:10001"]);
        let mut alice = world.phone("alice", 1000, transport);
        world.allocate(&mut alice).unwrap();
        assert_eq!(world.media_sends("7.7.7.7:10001", &alice, "x"), None);
        assert_eq!(world.refusals("no_permission"), 1);

        world.bind(&mut alice, 0x4000, "7.7.7.7:10001").unwrap();
        let relayed = alice.relayed.unwrap();
        let expected = Delivered::Media {
            thread: 1,
            from: relayed,
            to: "7.7.7.7:10001".parse().unwrap(),
            payload: b"hello".to_vec(),
        };
        assert_eq!(world.send_channel(&alice, 0x4000, "hello"), Some(expected));
        let delivered = world.media_sends("7.7.7.7:10001", &alice, "hello yourself");
        assert_eq!(alice.reads(delivered).unwrap(), "0x4000 hello yourself");

        world.permit(&mut alice, "127.0.0.1:10000").unwrap();
        let sent = world.send(&mut alice, "127.0.0.1:10000", "hi");
        assert!(
            matches!(sent, Some(Delivered::Media { thread: 0, .. })),
            "{sent:?}"
        );
        let delivered = world.media_sends("127.0.0.1:10000", &alice, "hi");
        assert_eq!(alice.reads(delivered).unwrap(), "127.0.0.1:10000 hi");

        // Beside them nothing is reached, and from the network nobody speaks for them.
        assert_eq!(world.send(&mut alice, "127.0.0.1:10001", "x"), None);
        assert_eq!(world.send(&mut alice, "7.7.7.7:10000", "x"), None);
        for media in ["127.0.0.1:10000", "7.7.7.7:10001"] {
            assert_eq!(world.peer_sends(media, &alice, "x"), None, "{media}");
        }
        if transport != Transport::Udp {
            // What a path counts is its own.
            let stats = world.relay.stats();
            let counted =
                [stats.to_media, stats.from_media].map(|traffic| (traffic.packets, traffic.bytes));
            assert_eq!(counted, [(2, 7), (2, 16)]);
            assert_eq!(stats.handed_over.packets, 0);
            assert_eq!(stats.from_clients[transport.index()].packets, 2);
        }
        world.refresh(&mut alice, 0).unwrap();
        assert_eq!(world.media_sends("7.7.7.7:10001", &alice, "x"), None);
        assert_eq!(world.refusals("no_allocation"), 1);
    }
}

#[test]
fn media_ports_stay_reachable_under_other_settings_and_end_with_the_sfu() {
    let mut world = World::new();
    world.set_media(&["10.0.0.7:10000"]);
    let mut alice = world.allocated("alice", 1000);
    world.bind(&mut alice, 0x4000, "10.0.0.7:10000").unwrap();
    world.reconfigure(|config| config.peers.deny = vec!["10.0.0.0/8".parse().unwrap()]);
    assert!(world.send_channel(&alice, 0x4000, "x").is_some());
    assert!(world.media_sends("10.0.0.7:10000", &alice, "x").is_some());

    world.set_media(&[]);
    assert_eq!(world.send_channel(&alice, 0x4000, "x"), None);
    assert_eq!(world.refusals("forbidden_deny_list"), 1);
}
