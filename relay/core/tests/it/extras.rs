//! What RFC 8656 added: two families at once, ports kept for later, ICMP, and how much a User
//! may relay.

use std::time::Duration;

use relay_core::{Rates, Transport};
use relay_stun::client::{AllocateOptions, Request};
use relay_stun::{AddressFamily, ErrorCode, Icmp};

use crate::world::{Delivered, OTHER_PEER, PEER, PEER_V6, Phone, World, peer_reads};

const BOTH: AllocateOptions = AllocateOptions {
    tcp: false,
    family: None,
    additional: true,
    lifetime: None,
    even_port: None,
    reservation_token: None,
    dont_fragment: false,
    mobile: false,
};

#[test]
fn an_allocation_of_both_families_reaches_peers_of_both() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    world.allocate_with(&mut alice, BOTH).unwrap();
    let (v4, v6) = (alice.relayed.unwrap(), alice.relayed_v6.unwrap());
    assert_eq!((v4.is_ipv4(), v6.is_ipv6()), (true, true));
    assert_eq!(alice.missing, None);
    assert_eq!(world.relay.stats().allocations, 1);
    assert_eq!(world.ports.iter().flatten().count(), 2);

    world.permit(&mut alice, PEER).unwrap();
    world.bind(&mut alice, 0x4000, PEER_V6).unwrap();
    assert_eq!(
        peer_reads(world.send(&mut alice, PEER, "four")).unwrap(),
        format!("{v4} → {PEER} four")
    );
    assert_eq!(
        peer_reads(world.send_channel(&alice, 0x4000, "six")).unwrap(),
        format!("{v6} → {PEER_V6} six")
    );
    let delivered = world.peer_sends(PEER, &alice, "four");
    assert_eq!(alice.reads(delivered).unwrap(), format!("{PEER} four"));
    let delivered = world.peer_sends(PEER_V6, &alice, "six");
    assert_eq!(alice.reads(delivered).unwrap(), "0x4000 six");

    // A retransmission hears of both, and the end is the end of both.
    assert_eq!(world.refresh(&mut alice, 0), Ok(0));
    assert!(world.ports.iter().all(Option::is_none));
}

#[test]
fn one_of_two_families_ends_alone() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    world.allocate_with(&mut alice, BOTH).unwrap();
    world.permit(&mut alice, PEER).unwrap();
    world.bind(&mut alice, 0x4000, PEER_V6).unwrap();
    let end = |family| Request::RefreshFamily {
        family,
        lifetime: 0,
    };

    assert_eq!(world.ask(&mut alice, end(AddressFamily::V6)), Ok(Some(0)));
    assert_eq!(world.ports.iter().flatten().count(), 1);
    assert_eq!(world.send_channel(&alice, 0x4000, "six"), None);
    assert_eq!(world.peer_sends(PEER_V6, &alice, "six"), None);
    assert_eq!(
        world.permit(&mut alice, PEER_V6),
        Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH)
    );
    assert!(world.send(&mut alice, PEER, "four").is_some());
    assert_eq!(
        world.ask(&mut alice, end(AddressFamily::V6)),
        Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH)
    );

    assert_eq!(world.ask(&mut alice, end(AddressFamily::V4)), Ok(Some(0)));
    assert_eq!(world.relay.stats().allocations, 0);
    assert!(world.ports.iter().all(Option::is_none));
}

#[test]
fn a_channel_of_a_family_that_ended_leads_to_the_other() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    world.allocate_with(&mut alice, BOTH).unwrap();
    world.bind(&mut alice, 0x4000, PEER_V6).unwrap();
    let end = Request::RefreshFamily {
        family: AddressFamily::V6,
        lifetime: 0,
    };
    assert_eq!(world.ask(&mut alice, end), Ok(Some(0)));
    world.bind(&mut alice, 0x4000, PEER).unwrap();
    assert_eq!(
        peer_reads(world.send_channel(&alice, 0x4000, "four")).unwrap(),
        format!("{} → {PEER} four", alice.relayed())
    );
}

#[test]
fn of_two_families_one_is_enough_and_the_other_is_named() {
    let mut world = World::with(|config| config.addresses.v6 = None);
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    world.allocate_with(&mut alice, BOTH).unwrap();
    assert!(alice.relayed.unwrap().is_ipv4());
    assert_eq!(alice.relayed_v6, None);
    assert_eq!(
        alice.missing,
        Some((AddressFamily::V6, ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED))
    );

    let mut world = World::with(|config| config.addresses.v4 = None);
    let mut bob = world.phone("bob", 1000, Transport::Udp);
    world.allocate_with(&mut bob, BOTH).unwrap();
    assert!(bob.relayed.unwrap().is_ipv6());
    assert_eq!(
        bob.missing,
        Some((AddressFamily::V4, ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED))
    );

    let mut world = World::new();
    world.ports_fail = true;
    let mut carol = world.phone("carol", 1000, Transport::Udp);
    assert_eq!(
        world.allocate_with(&mut carol, BOTH),
        Err(ErrorCode::INSUFFICIENT_CAPACITY)
    );
    assert_eq!(world.relay.stats().allocations, 0);
    world.ports_fail = false;
    world.v6_ports_fail = true;
    world.allocate_with(&mut carol, BOTH).unwrap();
    assert_eq!(
        carol.missing,
        Some((AddressFamily::V6, ErrorCode::INSUFFICIENT_CAPACITY))
    );
    assert_eq!(world.ports.iter().flatten().count(), 1);
}

#[test]
fn what_contradicts_itself_is_400() {
    let check = |options: AllocateOptions, expected: ErrorCode| {
        let mut world = World::new();
        let mut alice = world.phone("alice", 1000, Transport::Udp);
        let got = world.allocate_with(&mut alice, options.clone());
        assert_eq!(got, Err(expected), "{options:?}");
    };
    let none = AllocateOptions::default;
    let token = Some([7; 8]);

    for family in [AddressFamily::V4, AddressFamily::V6] {
        let family = Some(family);
        check(AllocateOptions { family, ..BOTH }, ErrorCode::BAD_REQUEST);
        let reservation_token = token;
        let asked = AllocateOptions {
            family,
            reservation_token,
            ..none()
        };
        check(asked, ErrorCode::BAD_REQUEST);
    }
    for even_port in [Some(true), Some(false)] {
        let asked = AllocateOptions {
            even_port,
            reservation_token: token,
            ..none()
        };
        check(asked, ErrorCode::BAD_REQUEST);
    }
    let even_port = Some(true);
    check(
        AllocateOptions { even_port, ..BOTH },
        ErrorCode::BAD_REQUEST,
    );
    let reservation_token = token;
    let asked = AllocateOptions {
        reservation_token,
        ..BOTH
    };
    check(asked, ErrorCode::BAD_REQUEST);
    let asked = AllocateOptions {
        reservation_token,
        ..none()
    };
    check(asked, ErrorCode::INSUFFICIENT_CAPACITY);
}

const NEXT_TOO: AllocateOptions = AllocateOptions {
    tcp: false,
    family: None,
    additional: false,
    lifetime: None,
    even_port: Some(true),
    reservation_token: None,
    dont_fragment: false,
    mobile: false,
};

fn with_token(phone: &Phone) -> AllocateOptions {
    AllocateOptions {
        reservation_token: phone.token,
        ..AllocateOptions::default()
    }
}

#[test]
fn the_port_above_an_even_one_is_kept_for_its_user() {
    let mut world = World::with(|config| config.addresses.ports = 50_000..=50_001);
    let mut rtp = world.phone("alice", 1000, Transport::Udp);
    world.allocate_with(&mut rtp, NEXT_TOO).unwrap();
    assert_eq!(rtp.relayed(), "7.7.7.7:50000");

    // Neither somebody else nor somebody with the token has it.
    let mut mallory = world.phone("mallory", 2000, Transport::Udp);
    assert_eq!(
        world.allocate(&mut mallory),
        Err(ErrorCode::INSUFFICIENT_CAPACITY)
    );
    assert_eq!(
        world.allocate_with(&mut mallory, with_token(&rtp)),
        Err(ErrorCode::INSUFFICIENT_CAPACITY)
    );
    assert_eq!(world.refusals("unknown_reservation"), 1);

    let mut rtcp = world.phone("alice", 1001, Transport::Udp);
    world.allocate_with(&mut rtcp, with_token(&rtp)).unwrap();
    assert_eq!(rtcp.relayed(), "7.7.7.7:50001");
    let mut again = world.phone("alice", 1002, Transport::Udp);
    assert_eq!(
        world.allocate_with(&mut again, with_token(&rtp)),
        Err(ErrorCode::INSUFFICIENT_CAPACITY),
        "a token is good for one Allocation"
    );
}

#[test]
fn a_kept_port_is_given_up_after_thirty_seconds() {
    let mut world = World::with(|config| config.addresses.ports = 50_000..=50_001);
    let mut rtp = world.phone("alice", 1000, Transport::Udp);
    world.allocate_with(&mut rtp, NEXT_TOO).unwrap();
    // The end of the Allocation is not the end of what was kept.
    world.refresh(&mut rtp, 0).unwrap();
    world.advance(Duration::from_secs(29));
    let mut bob = world.allocated("bob", 2000);
    assert_eq!(bob.relayed(), "7.7.7.7:50000");
    let mut carol = world.phone("carol", 2001, Transport::Udp);
    assert!(world.allocate(&mut carol).is_err());

    world.advance(Duration::from_secs(1));
    let late = with_token(&rtp);
    assert_eq!(
        world.allocate_with(&mut rtp, late),
        Err(ErrorCode::INSUFFICIENT_CAPACITY)
    );
    assert_eq!(world.allocate(&mut carol), Ok(()));
    assert_eq!(world.refresh(&mut bob, 600), Ok(600));
}

#[test]
fn a_kept_port_counts_in_the_quota() {
    let mut world = World::with(|config| config.limits.allocations_per_user_max = 2);
    let mut rtp = world.phone("alice", 1000, Transport::Udp);
    world.allocate_with(&mut rtp, NEXT_TOO).unwrap();
    let mut more = world.phone("alice", 1001, Transport::Udp);
    assert_eq!(
        world.allocate(&mut more),
        Err(ErrorCode::ALLOCATION_QUOTA_REACHED)
    );
    world.allocate_with(&mut more, with_token(&rtp)).unwrap();
    world.refresh(&mut more, 0).unwrap();
    assert_eq!(
        world.allocate_with(&mut more, NEXT_TOO),
        Err(ErrorCode::ALLOCATION_QUOTA_REACHED)
    );
    assert_eq!(world.allocate(&mut more), Ok(()));
}

#[test]
fn an_account_has_a_quota_of_its_own() {
    let mut world = World::with(|config| config.limits.allocations_per_account_max = 2);
    let mut alice = world.allocated("alice", 1000);
    world.allocated("bob", 1001);
    let mut carol = world.phone("carol", 1002, Transport::Udp);
    assert_eq!(
        world.allocate(&mut carol),
        Err(ErrorCode::ALLOCATION_QUOTA_REACHED)
    );
    assert_eq!(world.refusals("account_quota_reached"), 1);
    let expiry = world.unix_now() + Duration::from_secs(60);
    let (name, password) = world.credentials.issue(expiry, "globex", "dave").unwrap();
    let mut dave = Phone::new(&name, &password, 1003, Transport::Udp);
    assert_eq!(world.allocate(&mut dave), Ok(()));
    world.refresh(&mut alice, 0).unwrap();
    assert_eq!(world.allocate(&mut carol), Ok(()));
}

#[test]
fn a_user_relays_so_much_and_no_more() {
    let mut world = World::with(|config| {
        config.limits.user_rates = Rates {
            bits_per_second_max: 0,
            packets_per_second_max: 10,
        };
    });
    // Over streams: the path of a UDP client runs beside the relay here, and both would charge.
    let mut alice = world.phone("alice", 1000, Transport::Tcp);
    let mut bob = world.phone("bob", 1001, Transport::Tcp);
    world.allocate(&mut alice).unwrap();
    world.allocate(&mut bob).unwrap();
    world.permit(&mut alice, PEER).unwrap();
    world.permit(&mut bob, PEER).unwrap();

    let mut passed = 0;
    for n in 0..50 {
        passed += match n % 2 {
            0 => u32::from(world.send(&mut alice, PEER, "x").is_some()),
            _ => u32::from(world.peer_sends(PEER, &alice, "x").is_some()),
        };
    }
    assert_eq!(passed, 10);
    assert_eq!(world.refusals("user_rate"), 40);
    assert!(world.send(&mut bob, PEER, "x").is_some());
    world.advance(Duration::from_millis(100));
    assert!(world.send(&mut alice, PEER, "x").is_some());
    assert_eq!(world.send(&mut alice, PEER, "x"), None);
}

#[test]
fn an_allocation_that_ends_and_comes_again_brings_no_new_second_s_worth() {
    const RATE: u64 = 100;
    for per_user in [true, false] {
        let mut world = World::with(|config| {
            let limits = &mut config.limits;
            let rates = match per_user {
                true => &mut limits.user_rates,
                false => &mut limits.account_rates,
            };
            rates.packets_per_second_max = RATE;
        });
        let mut passed = 0;
        for _ in 0..100 {
            let mut alice = world.phone("alice", 1000, Transport::Tcp);
            world.allocate(&mut alice).unwrap();
            world.permit(&mut alice, PEER).unwrap();
            for _ in 0..2 * RATE {
                passed += u64::from(world.send(&mut alice, PEER, "x").is_some());
            }
            world.refresh(&mut alice, 0).unwrap();
            world.advance(Duration::from_millis(100));
        }
        // Nothing goes after the last 100 ms.
        assert_eq!(passed, RATE + RATE * 99 / 10, "per User: {per_user}");

        // Nor does a port bring one that was kept, and whose Allocation ended before.
        let refused = world.refusals("user_rate") + world.refusals("account_rate");
        let mut alice = world.phone("alice", 1000, Transport::Udp);
        assert_eq!(refused + passed, 100 * 2 * RATE);
        world.allocate_with(&mut alice, NEXT_TOO).unwrap();
        world.refresh(&mut alice, 0).unwrap();
        let kept = with_token(&alice);
        let mut alice = world.phone("alice", 1001, Transport::Tcp);
        world.allocate_with(&mut alice, kept).unwrap();
        world.permit(&mut alice, PEER).unwrap();
        let passes = |_: &u64| world.send(&mut alice, PEER, "x").is_some();
        assert_eq!((0..RATE).filter(passes).count(), 10);
    }
}

#[test]
fn other_rates_hold_at_once_for_what_lives() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Tcp);
    world.allocate(&mut alice).unwrap();
    world.permit(&mut alice, PEER).unwrap();
    let passed = |world: &mut World, alice: &mut Phone| {
        let passed = |_: &i32| world.send(alice, PEER, "x").is_some();
        (0..50).filter(passed).count()
    };
    assert_eq!(passed(&mut world, &mut alice), 50);
    for (packets_per_second_max, expected) in [(10, 10), (20, 20), (0, 50)] {
        world.reconfigure(|config| {
            config.limits.account_rates.packets_per_second_max = packets_per_second_max;
        });
        assert_eq!(passed(&mut world, &mut alice), expected);
    }
    // A change of something else forgives nobody.
    for _ in 0..2 {
        world.reconfigure(|config| config.limits.account_rates.packets_per_second_max = 10);
    }
    assert_eq!(passed(&mut world, &mut alice), 10);
    world.reconfigure(|config| {
        config.limits.account_rates.packets_per_second_max = 10;
        config.limits.permissions_per_allocation_max = 1;
    });
    assert_eq!(passed(&mut world, &mut alice), 0);
    assert_eq!(
        world.permit(&mut alice, OTHER_PEER),
        Err(ErrorCode::INSUFFICIENT_CAPACITY)
    );
    world.permit(&mut alice, PEER).unwrap();
}

#[test]
fn what_icmp_says_reaches_the_client() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut world = World::new();
        let mut alice = world.phone("alice", 1000, transport);
        world.allocate_with(&mut alice, BOTH).unwrap();
        world.permit(&mut alice, PEER).unwrap();
        world.permit(&mut alice, PEER_V6).unwrap();

        let mut check = |peer: &str, kind: u8, code: u8, data: u32, expected: Option<&str>| {
            let icmp = Icmp { kind, code, data };
            let delivered = world.icmp_says(&alice, peer, icmp);
            let said = alice.reads(delivered);
            let expected = expected.map(|said| format!("{peer} {said}"));
            assert_eq!(said, expected, "{peer} {kind}/{code}");
        };

        check(PEER, 3, 3, 9, Some("3/3 0")); // Port unreachable.
        check(PEER, 3, 4, 1280, Some("3/4 1280")); // Fragmentation needed.
        check(PEER, 11, 0, 0, Some("11/0 0")); // Time exceeded.
        check(PEER, 5, 0, 0, None); // A redirect is for routers.
        check(PEER, 0, 0, 0, None);
        check(PEER_V6, 1, 4, 0, Some("1/4 0"));
        check(PEER_V6, 2, 0, 1280, Some("2/0 1280"));
        check(PEER_V6, 3, 0, 7, Some("3/0 0"));
        check(PEER_V6, 11, 0, 0, None);
        check(OTHER_PEER, 3, 3, 0, None); // Nobody she may talk to.
        assert_eq!(world.refusals("no_permission"), 1);
        assert_eq!(world.relay.stats().icmp_indications, 6);
        assert_eq!(world.sent, vec![], "it goes the way of media");
    }
}

#[test]
fn whoever_sends_much_icmp_has_little_of_it_told() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    let mut bob = world.allocated("bob", 1001);
    world.permit(&mut alice, PEER).unwrap();
    world.permit(&mut bob, PEER).unwrap();
    let unreachable = Icmp {
        kind: 3,
        code: 3,
        data: 0,
    };
    let told = |world: &mut World, phone: &Phone| {
        let said = |_: &i32| world.icmp_says(phone, PEER, unreachable).is_some();
        (0..1000).filter(said).count()
    };
    assert_eq!(told(&mut world, &alice), 8);
    assert_eq!(world.refusals("icmp_rate"), 992);
    assert_eq!(told(&mut world, &bob), 8, "each Allocation has its own");
    world.advance(Duration::from_secs(1));
    assert_eq!(told(&mut world, &alice), 8);
    world.advance(Duration::from_millis(125));
    assert_eq!(told(&mut world, &alice), 1);
}

#[test]
fn what_is_to_stay_whole_says_so_and_nothing_else_does() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut world = World::new();
        let mut alice = world.phone("alice", 1000, transport);
        let options = AllocateOptions {
            dont_fragment: true,
            ..AllocateOptions::default()
        };
        world.allocate_with(&mut alice, options).unwrap();
        world.bind(&mut alice, 0x4000, PEER).unwrap();
        let whole = |delivered| match delivered {
            Some(Delivered::Peer { whole, .. }) => whole,
            other => panic!("{other:?}"),
        };
        let peer = PEER.parse().unwrap();
        let packet = alice
            .conversation
            .send_indication_whole(peer, b"x")
            .unwrap();
        assert!(whole(world.client_sends(&alice, &packet)));
        assert!(!whole(world.send(&mut alice, PEER, "x")));
        assert!(!whole(world.send_channel(&alice, 0x4000, "x")));
    }
}
