//! Few ports, some of which other programs hold.

use std::time::Duration;

use relay_core::Transport;
use relay_stun::ErrorCode;
use relay_stun::client::AllocateOptions;

use crate::world::{Phone, World};

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
