//! Allocations that move with their client (RFC 8016).

use std::time::Duration;

use relay_core::Transport;
use relay_stun::ErrorCode;
use relay_stun::client::{AllocateOptions, Request};

use crate::world::{PEER, Phone, World, peer_reads};

fn mobile() -> AllocateOptions {
    AllocateOptions {
        mobile: true,
        ..AllocateOptions::default()
    }
}

/// Alice on a new port, with what she knew before.
fn elsewhere(world: &mut World, before: &Phone, port: u16, transport: Transport) -> Phone {
    let mut phone = world.phone("alice", port, transport);
    phone.relayed = before.relayed;
    phone.ticket = before.ticket.clone();
    phone
}

fn arrive(world: &mut World, phone: &mut Phone) -> Result<(), ErrorCode> {
    let ticket = phone.ticket.clone().unwrap();
    let lifetime = 600;
    world
        .ask(phone, Request::Move { ticket, lifetime })
        .map(|_| ())
}

#[test]
fn an_allocation_moves_with_its_peers_and_channels() {
    let mut world = World::new();
    let mut home = world.phone("alice", 1000, Transport::Tcp);
    world.allocate_with(&mut home, mobile()).unwrap();
    world.bind(&mut home, 0x4000, PEER).unwrap();

    let mut train = elsewhere(&mut world, &home, 2000, Transport::Tcp);
    arrive(&mut world, &mut train).unwrap();
    assert_ne!(train.ticket, home.ticket, "each stay has its own ticket");
    assert_eq!(world.relay.stats().allocations, 1);
    assert_eq!(world.relay.stats().allocations_moved, 1);
    assert_eq!(
        peer_reads(world.send_channel(&train, 0x4000, "hello")).unwrap(),
        format!("{} → {PEER} hello", train.relayed())
    );
    let delivered = world.peer_sends(PEER, &train, "hello");
    assert_eq!(train.reads(delivered).unwrap(), "0x4000 hello");

    // Where she was, there is nothing any more.
    assert_eq!(world.send_channel(&home, 0x4000, "late"), None);
    assert_eq!(
        world.refresh(&mut home, 600),
        Err(ErrorCode::ALLOCATION_MISMATCH)
    );
    // The answer that was lost is asked for again, with the ticket of before.
    train.ticket = home.ticket.clone();
    assert_eq!(arrive(&mut world, &mut train), Ok(()));

    let mut office = elsewhere(&mut world, &train, 3000, Transport::Tcp);
    assert_eq!(arrive(&mut world, &mut office), Ok(()));
    assert_eq!(world.refresh(&mut office, 0), Ok(0));
    assert!(world.ports.iter().all(Option::is_none));
}

#[test]
fn a_ticket_is_of_no_use_to_others_and_none_twice() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Tcp);
    world.allocate_with(&mut alice, mobile()).unwrap();

    let mut mallory = world.phone("mallory", 2000, Transport::Tcp);
    mallory.ticket = alice.ticket.clone();
    assert_eq!(
        arrive(&mut world, &mut mallory),
        Err(ErrorCode::WRONG_CREDENTIALS)
    );
    let mut forged = elsewhere(&mut world, &alice, 2001, Transport::Tcp);
    forged.ticket.as_mut().unwrap()[20] ^= 1;
    assert_eq!(arrive(&mut world, &mut forged), Err(ErrorCode::BAD_REQUEST));
    forged.ticket = Some(Vec::new());
    assert_eq!(arrive(&mut world, &mut forged), Err(ErrorCode::BAD_REQUEST));
    assert_eq!(world.refresh(&mut alice, 600), Ok(600));

    let mut moved = elsewhere(&mut world, &alice, 2002, Transport::Tcp);
    arrive(&mut world, &mut moved).unwrap();
    let mut replayed = elsewhere(&mut world, &alice, 2003, Transport::Tcp);
    assert_eq!(
        arrive(&mut world, &mut replayed),
        Err(ErrorCode::BAD_REQUEST)
    );
    world.refresh(&mut moved, 0).unwrap();
    let mut late = elsewhere(&mut world, &moved, 2004, Transport::Tcp);
    assert_eq!(arrive(&mut world, &mut late), Err(ErrorCode::BAD_REQUEST));
    assert_eq!(world.refusals("unknown_mobility_ticket"), 4);
}

#[test]
fn a_mobile_allocation_outlives_its_stream_for_a_minute() {
    let mut world = World::new();
    let mut home = world.phone("alice", 1000, Transport::Tls);
    world.allocate_with(&mut home, mobile()).unwrap();
    world.relay.handle_stream_closed(world.now, home.at);
    world.advance(Duration::from_secs(59));
    let mut train = elsewhere(&mut world, &home, 2000, Transport::Tls);
    arrive(&mut world, &mut train).unwrap();
    world.advance(Duration::from_secs(500));
    assert_eq!(world.relay.stats().allocations, 1);

    world.relay.handle_stream_closed(world.now, train.at);
    world.advance(Duration::from_secs(60));
    assert_eq!(world.relay.stats().allocations, 0);
}

#[test]
fn a_call_moves_although_its_credentials_have_expired() {
    let mut world = World::new();
    let expiry = world.unix_now() + Duration::from_secs(10);
    let (name, password) = world.credentials.issue(expiry, "acme", "alice").unwrap();
    let mut home = Phone::new(&name, &password, 1000, Transport::Tcp);
    world.allocate_with(&mut home, mobile()).unwrap();
    world.advance(Duration::from_secs(60));
    let mut train = Phone::new(&name, &password, 2000, Transport::Tcp);
    train.ticket = home.ticket.clone();
    assert_eq!(arrive(&mut world, &mut train), Ok(()));
}

#[test]
fn where_mobility_is_off_it_is_405() {
    let mut world = World::with(|config| config.mobility = false);
    let mut alice = world.phone("alice", 1000, Transport::Tcp);
    assert_eq!(
        world.allocate_with(&mut alice, mobile()),
        Err(ErrorCode::MOBILITY_FORBIDDEN)
    );
    alice.ticket = Some(vec![0; 40]);
    assert_eq!(
        arrive(&mut world, &mut alice),
        Err(ErrorCode::MOBILITY_FORBIDDEN)
    );

    // What a UDP client holds is bound to the thread its packets reach.
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Udp);
    assert_eq!(
        world.allocate_with(&mut alice, mobile()),
        Err(ErrorCode::MOBILITY_FORBIDDEN)
    );
    let mut home = world.phone("alice", 1001, Transport::Tcp);
    world.allocate_with(&mut home, mobile()).unwrap();
    let mut train = elsewhere(&mut world, &home, 1002, Transport::Udp);
    assert_eq!(
        arrive(&mut world, &mut train),
        Err(ErrorCode::MOBILITY_FORBIDDEN)
    );
}
