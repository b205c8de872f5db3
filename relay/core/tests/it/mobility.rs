//! Allocations that move with their client (RFC 8016).

use std::time::Duration;

use relay_core::Transport;
use relay_stun::client::{AllocateOptions, Client, Request};
use relay_stun::{Class, ErrorCode, Message};

use crate::world::{OTHER_PEER, PEER, PEER_V6, Phone, World, peer_reads};

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
    phone.relayed_v6 = before.relayed_v6;
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
    for from in Transport::ALL {
        for to in Transport::ALL {
            moves(from, to);
        }
    }
}

fn moves(from: Transport, to: Transport) {
    let mut world = World::new();
    let mut home = world.phone("alice", 1000, from);
    let options = AllocateOptions {
        additional: true,
        ..mobile()
    };
    world.allocate_with(&mut home, options).unwrap();
    world.bind(&mut home, 0x4000, PEER).unwrap();
    world.permit(&mut home, PEER_V6).unwrap();
    world.advance(Duration::from_secs(200));

    let mut train = elsewhere(&mut world, &home, 2000, to);
    arrive(&mut world, &mut train).unwrap();
    assert_ne!(train.ticket, home.ticket, "each stay has its own ticket");
    assert_eq!(world.relay.stats().allocations, 1);

    // Both ways are open, and peers reach her where she was, until she has come.
    assert_eq!(
        peer_reads(world.send_channel(&home, 0x4000, "leaving")).unwrap(),
        format!("{} → {PEER} leaving", home.relayed())
    );
    let delivered = world.peer_sends(PEER, &home, "hello");
    assert_eq!(home.reads(delivered).unwrap(), "0x4000 hello");
    assert_eq!(world.relay.stats().allocations_moved, 0);

    assert_eq!(
        peer_reads(world.send_channel(&train, 0x4000, "here I am")).unwrap(),
        format!("{} → {PEER} here I am", train.relayed())
    );
    assert_eq!(world.relay.stats().allocations_moved, 1);
    let delivered = world.peer_sends(PEER, &train, "hello");
    assert_eq!(train.reads(delivered).unwrap(), "0x4000 hello");
    let delivered = world.peer_sends(PEER_V6, &train, "hello");
    assert_eq!(train.reads(delivered).unwrap(), format!("{PEER_V6} hello"));
    assert_eq!(
        peer_reads(world.send_channel(&train, 0x4000, "again")).unwrap(),
        format!("{} → {PEER} again", train.relayed())
    );

    // Where she was, there is nothing any more.
    assert_eq!(world.send_channel(&home, 0x4000, "late"), None);
    assert_eq!(
        world.refresh(&mut home, 600),
        Err(ErrorCode::ALLOCATION_MISMATCH)
    );
    // Permissions end when they would have, and are refreshed from where she is.
    world.advance(Duration::from_secs(100));
    assert_eq!(world.peer_sends(PEER_V6, &train, "late"), None);
    world.permit(&mut train, PEER_V6).unwrap();
    let delivered = world.peer_sends(PEER_V6, &train, "hello");
    assert_eq!(train.reads(delivered).unwrap(), format!("{PEER_V6} hello"));

    let mut office = elsewhere(&mut world, &train, 3000, from);
    assert_eq!(arrive(&mut world, &mut office), Ok(()));
    assert_eq!(world.refresh(&mut office, 0), Ok(0));
    assert!(world.ports.iter().all(Option::is_none));
    assert_eq!(world.relay.stats().allocations_moved, 2);
    assert_eq!(world.send_channel(&train, 0x4000, "late"), None);
    assert_eq!(world.send_channel(&office, 0x4000, "late"), None);
}

#[test]
fn whatever_she_sends_from_there_but_the_ticket_ends_the_move() {
    for to in [Transport::Udp, Transport::Tcp] {
        let check = |what: &str, ends: bool, act: &mut dyn FnMut(&mut World, &mut Phone)| {
            let mut world = World::new();
            let mut home = world.phone("alice", 1000, Transport::Udp);
            world.allocate_with(&mut home, mobile()).unwrap();
            world.permit(&mut home, PEER).unwrap();
            let mut train = elsewhere(&mut world, &home, 2000, to);
            arrive(&mut world, &mut train).unwrap();
            act(&mut world, &mut train);
            let moved = world.relay.stats().allocations_moved;
            assert_eq!(moved, u64::from(ends), "{what}");
            let receiver = if ends { &mut train } else { &mut home };
            let delivered = world.peer_sends(PEER, receiver, "hello");
            assert_eq!(
                receiver.reads(delivered),
                Some(format!("{PEER} hello")),
                "{what}"
            );
        };
        check("nothing", false, &mut |_, _| {});
        check("data", true, &mut |world, train| {
            assert!(world.send(train, PEER, "x").is_some());
        });
        check("data for nobody", false, &mut |world, train| {
            assert_eq!(world.send(train, OTHER_PEER, "x"), None);
            assert_eq!(world.send_channel(train, 0x4000, "x"), None);
        });
        check("a Permission", true, &mut |world, train| {
            world.permit(train, OTHER_PEER).unwrap();
        });
        check("a Channel", true, &mut |world, train| {
            world.bind(train, 0x4000, OTHER_PEER).unwrap();
        });
        check("a Refresh", true, &mut |world, train| {
            assert_eq!(world.refresh(train, 600), Ok(600));
        });
        check("an Allocate", false, &mut |world, train| {
            let refused = world.allocate(train);
            assert_eq!(refused, Err(ErrorCode::ALLOCATION_MISMATCH));
        });
        check("the ticket again", false, &mut |world, train| {
            arrive(world, train).unwrap();
        });
    }
}

#[test]
fn an_answer_that_was_lost_is_made_again() {
    let mut world = World::new();
    let mut home = world.phone("alice", 1000, Transport::Udp);
    world.allocate_with(&mut home, mobile()).unwrap();
    world.permit(&mut home, PEER).unwrap();
    let mut train = elsewhere(&mut world, &home, 2000, Transport::Udp);
    // She knows the nonce already, so that one request is enough.
    world.refresh(&mut train, 600).unwrap_err();
    let ticket = train.ticket.clone().unwrap();
    let lifetime = 600;
    let request = train
        .conversation
        .request(Request::Move { ticket, lifetime });

    let answers = [0, 1, 2].map(|round| {
        if round == 2 {
            assert!(world.send(&mut train, PEER, "x").is_some());
        }
        let answer = world.exchange(&train, &request).unwrap();
        Message::parse(&answer).unwrap().class()
    });
    assert_eq!(answers, [Class::Success; 3], "before she came and after");
    assert_eq!(world.relay.stats().allocations_moved, 1);

    // Another Refresh with a ticket, from where she is, is of no sense (RFC 8016 §3.2.1).
    train.ticket = home.ticket.clone();
    assert_eq!(arrive(&mut world, &mut train), Err(ErrorCode::BAD_REQUEST));
    // The old one that was on its way for long changes nothing.
    let mut late = elsewhere(&mut world, &home, 1000, Transport::Udp);
    assert_eq!(arrive(&mut world, &mut late), Err(ErrorCode::BAD_REQUEST));
    assert!(world.send(&mut train, PEER, "x").is_some());
}

#[test]
fn who_changes_her_mind_on_the_way_goes_where_she_said_last() {
    for to in [Transport::Udp, Transport::Tls] {
        let mut world = World::new();
        let mut home = world.phone("alice", 1000, Transport::Udp);
        world.allocate_with(&mut home, mobile()).unwrap();
        world.permit(&mut home, PEER).unwrap();
        let mut train = elsewhere(&mut world, &home, 2000, to);
        arrive(&mut world, &mut train).unwrap();
        let mut office = elsewhere(&mut world, &train, 3000, to);
        arrive(&mut world, &mut office).unwrap();

        assert_eq!(world.send(&mut train, PEER, "x"), None);
        assert!(world.send(&mut home, PEER, "x").is_some());
        assert!(world.send(&mut office, PEER, "x").is_some());
        assert_eq!(world.send(&mut home, PEER, "x"), None);
        // The place on the train is free for somebody else.
        let mut bob = world.phone("bob", 2000, to);
        assert_eq!(world.allocate(&mut bob), Ok(()));
    }
}

#[test]
fn who_does_not_come_in_time_is_not_expected_there_any_more() {
    for to in [Transport::Udp, Transport::Tcp] {
        let mut world = World::new();
        let mut home = world.phone("alice", 1000, Transport::Udp);
        world.allocate_with(&mut home, mobile()).unwrap();
        world.bind(&mut home, 0x4000, PEER).unwrap();
        let mut train = elsewhere(&mut world, &home, 2000, to);
        arrive(&mut world, &mut train).unwrap();
        world.advance(Duration::from_secs(59));
        assert!(world.relay.has_allocation(&train.at));
        world.advance(Duration::from_secs(1));
        assert!(!world.relay.has_allocation(&train.at));

        // Whoever has the address by now sends nothing in her name, and takes nothing from her.
        assert_eq!(world.send_channel(&train, 0x4000, "as alice"), None);
        let mut bob = world.phone("bob", 2000, to);
        assert_eq!(world.allocate(&mut bob), Ok(()));
        let delivered = world.peer_sends(PEER, &home, "hello");
        assert_eq!(home.reads(delivered).unwrap(), "0x4000 hello");
        assert_eq!(world.relay.stats().allocations_moved, 0);

        // With the ticket of there she moves on all the same.
        let mut office = elsewhere(&mut world, &train, 3000, to);
        assert_eq!(arrive(&mut world, &mut office), Ok(()));
        assert!(world.send_channel(&office, 0x4000, "here I am").is_some());
        assert_eq!(world.relay.stats().allocations_moved, 1);
    }
}

#[test]
fn a_move_costs_no_quota_and_frees_none() {
    let mut world = World::with(|config| config.limits.allocations_per_user_max = 1);
    let mut home = world.phone("alice", 1000, Transport::Udp);
    world.allocate_with(&mut home, mobile()).unwrap();
    for port in 2000..2010 {
        let mut there = elsewhere(&mut world, &home, port, Transport::Udp);
        arrive(&mut world, &mut there).unwrap();
        if port % 2 == 0 {
            assert_eq!(world.refresh(&mut there, 600), Ok(600));
        }
        let mut other = world.phone("alice", 5000, Transport::Udp);
        assert_eq!(
            world.allocate(&mut other),
            Err(ErrorCode::ALLOCATION_QUOTA_REACHED)
        );
        home = there;
    }
    assert_eq!(world.relay.stats().allocations, 1);
}

#[test]
fn where_the_stream_has_ended_the_client_is_where_it_said() {
    let mut world = World::new();
    let mut home = world.phone("alice", 1000, Transport::Tcp);
    world.allocate_with(&mut home, mobile()).unwrap();
    world.permit(&mut home, PEER).unwrap();
    let mut train = elsewhere(&mut world, &home, 2000, Transport::Udp);
    arrive(&mut world, &mut train).unwrap();
    world.relay.handle_stream_closed(world.now, home.at);
    world.drain();
    let delivered = world.peer_sends(PEER, &train, "hello");
    assert_eq!(train.reads(delivered).unwrap(), format!("{PEER} hello"));

    // A stream that ends before anything came over it was no move.
    let mut office = elsewhere(&mut world, &train, 3000, Transport::Tls);
    arrive(&mut world, &mut office).unwrap();
    world.relay.handle_stream_closed(world.now, office.at);
    world.drain();
    world.advance(Duration::from_secs(100));
    let delivered = world.peer_sends(PEER, &train, "hello");
    assert_eq!(train.reads(delivered).unwrap(), format!("{PEER} hello"));
    // With the ticket of there she moves on.
    let mut hotel = elsewhere(&mut world, &office, 4000, Transport::Udp);
    assert_eq!(arrive(&mut world, &mut hotel), Ok(()));
}

#[test]
fn who_connects_from_where_a_stream_has_ended_inherits_nothing() {
    let mut world = World::new();
    let mut home = world.phone("alice", 1000, Transport::Tls);
    world.allocate_with(&mut home, mobile()).unwrap();
    world.bind(&mut home, 0x4000, PEER).unwrap();
    world.relay.handle_stream_closed(world.now, home.at);
    world.drain();

    // Another process gets her port; what peers send is for nobody.
    let mut mallory = world.phone("mallory", 1000, Transport::Tls);
    assert_eq!(world.send_channel(&mallory, 0x4000, "as alice"), None);
    assert_eq!(world.send(&mut mallory, PEER, "as alice"), None);
    assert_eq!(world.peer_sends(PEER, &home, "for alice"), None);
    assert_eq!(world.allocate(&mut mallory), Ok(()));

    let mut train = elsewhere(&mut world, &home, 2000, Transport::Udp);
    assert_eq!(arrive(&mut world, &mut train), Ok(()));
    let delivered = world.peer_sends(PEER, &train, "hello");
    assert_eq!(train.reads(delivered).unwrap(), "0x4000 hello");
    assert_eq!(world.refresh(&mut mallory, 600), Ok(600));
    assert_eq!(world.relay.stats().allocations, 2);
}

#[test]
fn a_client_comes_back_to_where_its_stream_has_ended() {
    let mut world = World::new();
    let mut home = world.phone("alice", 1000, Transport::Tcp);
    world.allocate_with(&mut home, mobile()).unwrap();
    world.bind(&mut home, 0x4000, PEER).unwrap();
    world.relay.handle_stream_closed(world.now, home.at);
    world.drain();

    let mut back = elsewhere(&mut world, &home, 1000, Transport::Tcp);
    assert_eq!(arrive(&mut world, &mut back), Ok(()));
    let delivered = world.peer_sends(PEER, &back, "hello");
    assert_eq!(back.reads(delivered).unwrap(), "0x4000 hello");
    assert_eq!(world.refresh(&mut back, 0), Ok(0));
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
}

#[test]
fn what_is_for_somebody_who_is_just_arriving_waits_for_her() {
    let mut world = World::new();
    let mut bob = world.allocated("bob", 1000);
    let mut alice = world.phone("alice", 2000, Transport::Tcp);
    world.allocate_with(&mut alice, mobile()).unwrap();
    world.bind(&mut bob, 0x4000, &alice.relayed()).unwrap();
    let packet = Client::channel_data(0x4000, b"hello").unwrap();
    assert!(world.hands_to_itself(&bob, &packet, &alice));
}
