//! Few ports, some of which other programs hold.

use std::time::Duration;

use relay_core::Transport;
use relay_stun::ErrorCode;
use relay_stun::client::AllocateOptions;

use crate::world::{PEER, Phone, World};

fn with_ports(min: u16, max: u16) -> World {
    World::with(|config| config.addresses.ports = min..=max)
}

/// Asks for an Allocation from a new client; the port, or why not.
fn ask(world: &mut World, client: u16, options: AllocateOptions) -> Result<Phone, ErrorCode> {
    let mut phone = world.phone(&format!("user{client}"), client, Transport::Udp);
    world.allocate_with(&mut phone, options).map(|()| phone)
}

fn port(phone: &Phone) -> u16 {
    phone.relayed.unwrap().port()
}

#[test]
fn one_port_serves_one_allocation_at_a_time() {
    let mut world = with_ports(50_001, 50_001);
    let any = AllocateOptions::default;
    let mut alice = ask(&mut world, 1000, any()).unwrap();
    assert_eq!(port(&alice), 50_001);
    let full = Err(ErrorCode::INSUFFICIENT_CAPACITY);
    assert_eq!(ask(&mut world, 1001, any()).map(|_| ()), full);
    assert_eq!(world.refusals("ports_exhausted"), 1);
    world.refresh(&mut alice, 0).unwrap();
    assert_eq!(port(&ask(&mut world, 1002, any()).unwrap()), 50_001);

    // Its port is odd.
    let mut world = with_ports(50_001, 50_001);
    let even = AllocateOptions {
        even_port: Some(false),
        ..any()
    };
    assert_eq!(ask(&mut world, 1003, even).map(|_| ()), full);
}

#[test]
fn four_ports_serve_a_pair_and_two_others() {
    let mut world = with_ports(50_001, 50_004);
    let pair = AllocateOptions {
        even_port: Some(true),
        ..AllocateOptions::default()
    };
    let alice = ask(&mut world, 1000, pair).unwrap();
    assert_eq!(port(&alice), 50_002, "the only even one with a neighbour");
    let others = [1001, 1002].map(|client| {
        let other = ask(&mut world, client, AllocateOptions::default()).unwrap();
        port(&other)
    });
    assert!(!others.contains(&50_003), "it is kept for alice");
    assert_ne!(others[0], others[1]);
    let more = ask(&mut world, 1003, AllocateOptions::default());
    assert_eq!(more.map(|_| ()), Err(ErrorCode::INSUFFICIENT_CAPACITY));

    let mut again = world.phone("user1000", 1004, Transport::Udp);
    let kept = AllocateOptions {
        reservation_token: alice.token,
        ..AllocateOptions::default()
    };
    world.allocate_with(&mut again, kept).unwrap();
    assert_eq!(port(&again), 50_003);
}

#[test]
fn both_families_share_the_range_and_not_the_ports() {
    let mut world = with_ports(50_001, 50_001);
    let both = || AllocateOptions {
        additional: true,
        ..AllocateOptions::default()
    };
    let alice = ask(&mut world, 1000, both()).unwrap();
    assert_eq!(port(&alice), 50_001);
    assert_eq!(alice.relayed_v6.unwrap().port(), 50_001);
    let more = ask(&mut world, 1001, both());
    assert_eq!(more.map(|_| ()), Err(ErrorCode::INSUFFICIENT_CAPACITY));
}

#[test]
fn ports_of_other_programs_are_passed_by() {
    let mut world = with_ports(50_000, 50_019);
    world.busy_ports = (50_000..50_020).filter(|port| *port != 50_007).collect();
    let alice = ask(&mut world, 1000, AllocateOptions::default()).unwrap();
    assert_eq!(port(&alice), 50_007);

    let full = ask(&mut world, 1001, AllocateOptions::default());
    assert_eq!(full.map(|_| ()), Err(ErrorCode::INSUFFICIENT_CAPACITY));

    // They are left alone for a while, and found again once they are free.
    world.busy_ports.clear();
    let bob = ask(&mut world, 1002, AllocateOptions::default());
    assert_eq!(bob.map(|_| ()), Err(ErrorCode::INSUFFICIENT_CAPACITY));
    world.advance(Duration::from_secs(30));
    assert!(ask(&mut world, 1003, AllocateOptions::default()).is_ok());
}

#[test]
fn a_kept_port_that_another_program_took_is_not_replaced() {
    let mut world = with_ports(50_000, 50_009);
    let pair = AllocateOptions {
        even_port: Some(true),
        ..AllocateOptions::default()
    };
    let alice = ask(&mut world, 1000, pair).unwrap();
    world.busy_ports.push(port(&alice) + 1);
    let mut again = world.phone("user1000", 1001, Transport::Udp);
    let kept = AllocateOptions {
        reservation_token: alice.token,
        ..AllocateOptions::default()
    };
    assert_eq!(
        world.allocate_with(&mut again, kept),
        Err(ErrorCode::INSUFFICIENT_CAPACITY)
    );
    assert_eq!(world.refusals("ports_exhausted"), 1);
}

#[test]
fn a_relay_that_is_seen_elsewhere_gives_out_the_new_address_and_ends_nothing() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut world = with_ports(50_001, 50_002);
        let mut alice = world.phone("alice", 1000, transport);
        world.allocate(&mut alice).unwrap();
        world.bind(&mut alice, 0x4000, PEER).unwrap();
        world.move_relay("7.7.7.8");
        let mut bob = world.phone("bob", 1001, transport);
        world.allocate(&mut bob).unwrap();
        let ips = [&alice, &bob].map(|phone| phone.relayed.unwrap().ip().to_string());
        assert_eq!(ips, ["7.7.7.7", "7.7.7.8"]);
        assert_ne!(port(&alice), port(&bob), "it is one port of this machine");

        // Who was there goes on, and is met by who came.
        assert!(world.send_channel(&alice, 0x4000, "still here").is_some());
        let delivered = world.peer_sends(PEER, &alice, "hello");
        assert_eq!(alice.reads(delivered).unwrap(), "0x4000 hello");
        world.bind(&mut alice, 0x4001, &bob.relayed()).unwrap();
        world.bind(&mut bob, 0x4001, &alice.relayed()).unwrap();
        let delivered = world.send_channel(&alice, 0x4001, "hello");
        assert_eq!(bob.reads(delivered).unwrap(), "0x4001 hello");
        let delivered = world.send_channel(&bob, 0x4001, "hello");
        assert_eq!(alice.reads(delivered).unwrap(), "0x4001 hello");
        world.reconfigure(|config| config.addresses.ports = 1..=1);
        assert!(world.send_channel(&bob, 0x4001, "hello").is_some());

        // Both addresses are own ones, and the ports are nobody else's.
        for own in ["7.7.7.7:50002", "7.7.7.8:50001", "7.7.7.8:3478"] {
            let own = own.replace("50002", &port(&bob).to_string());
            let own = own.replace("50001", &port(&alice).to_string());
            let refused = world.bind(&mut bob, 0x4002, &own);
            assert_eq!(refused, Err(ErrorCode::FORBIDDEN), "{own}");
        }
        let mut carol = world.phone("carol", 1002, transport);
        let full = Err(ErrorCode::INSUFFICIENT_CAPACITY);
        assert_eq!(world.allocate(&mut carol), full);

        // Once nobody has the address any more, it may be another machine's.
        world.refresh(&mut alice, 0).unwrap();
        let before = "7.7.7.7:5000";
        let refused = world.bind(&mut bob, 0x4002, before);
        assert_eq!(refused, Err(ErrorCode::FORBIDDEN), "until it is looked at");
        world.move_relay("7.7.7.9");
        world.bind(&mut bob, 0x4002, before).unwrap();
        world.move_relay("7.7.7.8");
        world.move_relay("7.7.7.9");
        assert!(world.send_channel(&bob, 0x4002, "hello").is_some());
        let mut dave = world.phone("dave", 1003, transport);
        world.allocate(&mut dave).unwrap();
        assert_eq!(dave.relayed.unwrap().ip().to_string(), "7.7.7.9");
    }
}

#[test]
fn a_relay_that_is_seen_elsewhere_every_day_forgets_where_it_was() {
    let mut world = World::new();
    for day in 1..=20_u16 {
        world.move_relay(&format!("7.7.8.{day}"));
        let mut phone = world.phone("alice", day, Transport::Udp);
        world.allocate(&mut phone).unwrap();
    }
    let mut bob = world.allocated("bob", 1000);
    let own: Vec<u16> = (1..=20_u16)
        .filter(|day| {
            let peer = format!("7.7.8.{day}:3478");
            world.bind(&mut bob, 0x4000 + day, &peer) == Err(ErrorCode::FORBIDDEN)
        })
        .collect();
    let last: Vec<u16> = (12..=20).collect();
    assert_eq!(own, last, "the address of today, and eight before it");
}
