//! What each Account has relayed is found, once.

use std::time::Duration;

use relay_core::{AccountUsage, Traffic, Transport};

use crate::world::{PEER, Phone, World};

fn usage(allocations: u64, to_peers: (u64, u64), to_clients: (u64, u64)) -> AccountUsage {
    let traffic = |(packets, bytes)| Traffic { packets, bytes };
    AccountUsage {
        allocations,
        to_peers: traffic(to_peers),
        to_clients: traffic(to_clients),
    }
}

#[test]
fn an_account_s_payload_is_summed_up_in_both_directions() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Tcp);
    world.allocate(&mut alice).unwrap();
    world.bind(&mut alice, 0x4001, PEER).unwrap();
    assert_eq!(world.relay.take_usage()["acme"], usage(1, (0, 0), (0, 0)));

    for _ in 0..3 {
        assert!(world.send_channel(&alice, 0x4001, "hello").is_some());
    }
    assert!(world.send(&mut alice, PEER, "hi").is_some());
    assert!(world.peer_sends(PEER, &alice, "answer").is_some());
    // What is refused is nobody's usage.
    assert_eq!(
        world.send(&mut alice, "9.9.9.9:5000", "no permission"),
        None
    );
    assert_eq!(world.peer_sends("9.9.9.9:5000", &alice, "nor here"), None);

    let taken = world.relay.take_usage();
    assert_eq!(taken["acme"], usage(0, (4, 17), (1, 6)));
    assert!(world.relay.take_usage().is_empty(), "it is taken once");
    world.relay.give_back_usage(taken);
    assert!(world.peer_sends(PEER, &alice, "more").is_some());
    assert_eq!(world.relay.take_usage()["acme"], usage(0, (4, 17), (2, 10)));
}

#[test]
fn a_thread_counts_what_it_relays_for_a_udp_client() {
    let mut world = World::new();
    let mut alice = world.allocated("alice", 1000);
    world.permit(&mut alice, PEER).unwrap();
    assert!(world.send(&mut alice, PEER, "hello").is_some());
    assert!(world.peer_sends(PEER, &alice, "answer!").is_some());
    // The path of a UDP client runs beside the relay here, and both count.
    assert_eq!(world.relay.take_usage()["acme"], usage(1, (2, 10), (2, 14)));
}

#[test]
fn what_is_handed_over_counts_for_both_sides() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Tcp);
    world.allocate(&mut alice).unwrap();
    let expiry = world.unix_now() + Duration::from_secs(60);
    let (name, password) = world.credentials.issue(expiry, "globex", "bob").unwrap();
    let mut bob = Phone::new(&name, &password, 1001, Transport::Tcp);
    world.allocate(&mut bob).unwrap();
    let (of_alice, of_bob) = (alice.relayed(), bob.relayed());
    world.permit(&mut alice, &of_bob).unwrap();
    assert_eq!(world.send(&mut alice, &of_bob, "uninvited"), None);
    world.permit(&mut bob, &of_alice).unwrap();
    assert!(world.send(&mut alice, &of_bob, "hello").is_some());

    let taken = world.relay.take_usage();
    // What its receiver refuses was sent all the same.
    assert_eq!(taken["acme"], usage(1, (2, 14), (0, 0)));
    assert_eq!(taken["globex"], usage(1, (0, 0), (1, 5)));
}

#[test]
fn an_allocation_that_has_ended_is_accounted_for() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Tcp);
    world.allocate(&mut alice).unwrap();
    world.permit(&mut alice, PEER).unwrap();
    assert!(world.send(&mut alice, PEER, "hello").is_some());
    world.refresh(&mut alice, 0).unwrap();
    assert_eq!(world.relay.take_usage()["acme"], usage(1, (1, 5), (0, 0)));
    assert!(world.relay.take_usage().is_empty());
}
