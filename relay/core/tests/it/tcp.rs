//! Peers over TCP (RFC 6062).

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use relay_core::{ConnectionId, Direction, Output, Pace, Rates, RelayPort, Transport};
use relay_stun::client::{AllocateOptions, Event, Request};
use relay_stun::{AddressFamily, ErrorCode};

use crate::world::{OTHER_PEER, PEER, PEER_V6, Phone, World};

const TCP: AllocateOptions = AllocateOptions {
    tcp: true,
    family: None,
    additional: false,
    lifetime: None,
    even_port: None,
    reservation_token: None,
    dont_fragment: false,
    mobile: false,
};

#[test]
fn a_client_connects_to_a_peer() {
    let mut world = World::new();
    let mut alice = allocated(&mut world, "alice", 1000);
    let id = connect(&mut world, &mut alice, PEER).unwrap();
    let told = std::mem::take(&mut world.told);
    let port = port_of(&world, &alice);
    let peer = PEER.parse().unwrap();
    assert_eq!(told, [Output::Connect { id, port, peer }]);

    let mut data = world.phone("alice", 2000, Transport::Tls);
    assert_eq!(bind(&mut world, &mut data, id), Ok(()));
    let client = data.at;
    assert_eq!(world.told, [Output::Splice { id, client }]);
    assert_eq!(passes(&mut world, id, Direction::ToPeer, 100), Pace::Now);
    assert_eq!(passes(&mut world, id, Direction::ToClient, 30), Pace::Now);
    let stats = world.relay.stats();
    assert_eq!((stats.connections, stats.connections_bound), (1, 1));
    assert_eq!(stats.from_clients[Transport::Tls.index()].bytes, 100);
    assert_eq!(stats.to_clients[Transport::Tls.index()].bytes, 30);

    world.relay.handle_connection_closed(world.now, id);
    assert_eq!(passes(&mut world, id, Direction::ToPeer, 1), Pace::Never);
    assert_eq!(world.relay.stats().connections, 0);
    // The peer may be connected to again.
    connect(&mut world, &mut alice, PEER).unwrap();
}

#[test]
fn a_peer_that_is_permitted_connects_and_no_other() {
    let mut world = World::new();
    let mut alice = allocated(&mut world, "alice", 1000);
    assert_eq!(peer_connects(&mut world, &alice, PEER), None);
    assert_eq!(world.refusals("no_permission"), 1);
    world.permit(&mut alice, PEER).unwrap();
    let id = peer_connects(&mut world, &alice, PEER).unwrap();
    let (to, attempt) = world.sent.pop().unwrap();
    assert_eq!(to, alice.at);
    let told = Event::ConnectionAttempt {
        connection_id: id.0,
        peer: PEER.parse().unwrap(),
    };
    assert_eq!(alice.conversation.handle(&attempt), told);
    // It is connected already.
    let again = connect(&mut world, &mut alice, PEER);
    assert_eq!(again, Err(ErrorCode::CONNECTION_ALREADY_EXISTS));

    let mut data = world.phone("alice", 2000, Transport::Tcp);
    assert_eq!(bind(&mut world, &mut data, id), Ok(()));

    assert_eq!(peer_connects(&mut world, &alice, OTHER_PEER), None);
    assert_eq!(peer_connects(&mut world, &alice, "8.8.8.8:80"), None);
    assert_eq!(world.refusals("forbidden_low_port"), 1);
    assert_eq!(peer_connects(&mut world, &alice, "10.0.0.1:5000"), None);
    // A Permission of an own address is for what comes through memory.
    world.permit(&mut alice, "7.7.7.7:1").unwrap();
    assert_eq!(peer_connects(&mut world, &alice, "7.7.7.7:5000"), None);
    world.advance(Duration::from_secs(300));
    assert_eq!(peer_connects(&mut world, &alice, "8.8.8.8:5001"), None);
    assert_eq!(world.relay.stats().connections, 1);
}

/// The checks of RFC 6062 §5.1.
#[test]
fn who_may_have_a_tcp_allocation() {
    let check = |on: bool, transport, options, expected| {
        let mut world = World::with(|config| config.tcp_allocations = on);
        let mut alice = world.phone("alice", 1000, transport);
        assert_eq!(world.allocate_with(&mut alice, options), expected);
    };
    let bad = Err(ErrorCode::BAD_REQUEST);
    let family = Some(AddressFamily::V6);

    check(true, Transport::Tcp, TCP, Ok(()));
    check(true, Transport::Tls, TCP, Ok(()));
    check(
        true,
        Transport::Tcp,
        AllocateOptions { family, ..TCP },
        Ok(()),
    );
    check(true, Transport::Udp, TCP, bad);
    check(true, Transport::Dtls, TCP, bad);
    for even_port in [Some(false), Some(true)] {
        let options = AllocateOptions { even_port, ..TCP };
        check(true, Transport::Tcp, options, bad);
    }
    let dont_fragment = true;
    let options = AllocateOptions {
        dont_fragment,
        ..TCP
    };
    check(true, Transport::Tcp, options, bad);
    let reservation_token = Some([7; 8]);
    let options = AllocateOptions {
        reservation_token,
        ..TCP
    };
    check(true, Transport::Tcp, options, bad);
    let unsupported = Err(ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL);
    check(false, Transport::Tcp, TCP, unsupported);
}

/// The checks of RFC 6062 §5.2.
#[test]
fn the_checks_of_connect_have_their_codes() {
    let mut world = World::new();
    let mut alice = world.phone("alice", 1000, Transport::Tcp);
    let got = connect(&mut world, &mut alice, PEER);
    assert_eq!(got, Err(ErrorCode::ALLOCATION_MISMATCH));
    world.allocate(&mut alice).unwrap();
    let got = connect(&mut world, &mut alice, PEER);
    assert_eq!(got, Err(ErrorCode::FORBIDDEN), "peers over UDP");

    let mut bob = allocated(&mut world, "bob", 1001);
    let got = connect(&mut world, &mut bob, PEER_V6);
    assert_eq!(got, Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH));
    let own = bob.relayed();
    let udp = alice.relayed();
    for forbidden in [
        "10.0.0.1:5000",
        "169.254.169.254:5000",
        "8.8.8.8:80",
        "7.7.7.7:3478",
        own.as_str(),
        udp.as_str(),
    ] {
        let got = connect(&mut world, &mut bob, forbidden);
        assert_eq!(got, Err(ErrorCode::FORBIDDEN), "{forbidden}");
    }
    assert_eq!(world.told, [], "nobody was connected to");

    connect(&mut world, &mut bob, PEER).unwrap();
    let got = connect(&mut world, &mut bob, PEER);
    assert_eq!(got, Err(ErrorCode::CONNECTION_ALREADY_EXISTS));
    connect(&mut world, &mut bob, OTHER_PEER).unwrap();

    let peer = "8.8.4.4:5000";
    let id = ask_to_connect(&mut world, &mut bob, peer);
    let request = bob.conversation.request(Request::Connect {
        peer: peer.parse().unwrap(),
    });
    let answer = world.exchange(&bob, &request).unwrap();
    let refused = Event::Refused(ErrorCode::CONNECTION_ALREADY_EXISTS);
    assert_eq!(bob.conversation.handle(&answer), refused, "under way");
    world.relay.handle_connect_failed(world.now, id);
    world.drain();
    assert_eq!(world.told.pop(), Some(Output::Close(id)));
    assert_eq!(world.refusals("connection_failed"), 1);
    assert_eq!(world.sent.pop().map(|(to, _)| to), Some(bob.at));
    // What the driver says too late is about nothing.
    world.relay.handle_connected(world.now, id);
    world.drain();
    assert_eq!(world.sent, []);
    connect(&mut world, &mut bob, peer).unwrap();
}

/// The checks of RFC 6062 §5.4.
#[test]
fn the_checks_of_connection_bind_have_their_codes() {
    let mut world = World::new();
    let mut alice = allocated(&mut world, "alice", 1000);
    let bad = Err(ErrorCode::BAD_REQUEST);
    let pending = ask_to_connect(&mut world, &mut alice, OTHER_PEER);
    let id = connect(&mut world, &mut alice, PEER).unwrap();

    for transport in [Transport::Udp, Transport::Dtls] {
        let mut data = world.phone("alice", 2000, transport);
        assert_eq!(bind(&mut world, &mut data, id), bad, "{transport:?}");
    }
    assert_eq!(bind(&mut world, &mut alice, id), bad, "the control stream");
    let mut data = world.phone("alice", 2001, Transport::Tcp);
    let guessed = ConnectionId(id.0 ^ 1);
    assert_eq!(bind(&mut world, &mut data, guessed), bad);
    assert_eq!(bind(&mut world, &mut data, pending), bad, "no peer yet");
    assert_eq!(world.refusals("unknown_connection"), 2);

    // A stolen id is of no use, and not spoilt by the try.
    let mut mallory = world.phone("mallory", 2002, Transport::Tcp);
    let stolen = bind(&mut world, &mut mallory, id);
    assert_eq!(stolen, Err(ErrorCode::WRONG_CREDENTIALS));
    let mut nobody = Phone::new("acme:alice", "guessed", 2003, Transport::Tcp);
    let guessed = bind(&mut world, &mut nobody, id);
    assert_eq!(guessed, Err(ErrorCode::UNAUTHORIZED));

    assert_eq!(bind(&mut world, &mut data, id), Ok(()));
    let mut second = world.phone("alice", 2004, Transport::Tcp);
    assert_eq!(bind(&mut world, &mut second, id), bad, "it is bound");
}

#[test]
fn a_data_connection_comes_although_the_credentials_have_expired() {
    let mut world = World::new();
    let expiry = world.unix_now() + Duration::from_secs(10);
    let (name, password) = world.credentials.issue(expiry, "acme", "alice").unwrap();
    let mut alice = Phone::new(&name, &password, 1000, Transport::Tcp);
    world.allocate_with(&mut alice, TCP).unwrap();
    world.advance(Duration::from_secs(60));
    let id = connect(&mut world, &mut alice, PEER).unwrap();
    let mut data = Phone::new(&name, &password, 2000, Transport::Tcp);
    assert_eq!(bind(&mut world, &mut data, id), Ok(()));
}

#[test]
fn what_is_not_answered_bound_or_used_ends() {
    let mut world = World::with(|config| config.connection_idle = Duration::from_secs(100));
    let mut alice = allocated(&mut world, "alice", 1000);
    let silent = ask_to_connect(&mut world, &mut alice, OTHER_PEER);
    let unbound = connect(&mut world, &mut alice, PEER).unwrap();
    world.told.clear();
    world.advance(Duration::from_secs(29));
    assert_eq!(world.told, []);
    world.advance(Duration::from_secs(1));
    let mut closed = std::mem::take(&mut world.told);
    closed.sort_by_key(|output| *output == Output::Close(unbound));
    assert_eq!(closed, [Output::Close(silent), Output::Close(unbound)]);
    assert_eq!(world.sent.pop().map(|(to, _)| to), Some(alice.at), "447");
    assert_eq!(world.refusals("connection_failed"), 1);
    assert_eq!(world.refusals("connection_unbound"), 1);
    let mut data = world.phone("alice", 2000, Transport::Tcp);
    let late = bind(&mut world, &mut data, unbound);
    assert_eq!(late, Err(ErrorCode::BAD_REQUEST));

    let id = connect(&mut world, &mut alice, PEER).unwrap();
    bind(&mut world, &mut data, id).unwrap();
    world.told.clear();
    for _ in 0..3 {
        world.advance(Duration::from_secs(99));
        assert_eq!(passes(&mut world, id, Direction::ToClient, 1), Pace::Now);
    }
    world.advance(Duration::from_secs(99));
    assert_eq!(world.told, []);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.told, [Output::Close(id)]);
    assert_eq!(world.refusals("connection_idle"), 1);
}

#[test]
fn connections_end_with_their_allocation() {
    let mut world = World::new();
    let mut alice = allocated(&mut world, "alice", 1000);
    let bound = connect(&mut world, &mut alice, PEER).unwrap();
    let mut data = world.phone("alice", 2000, Transport::Tcp);
    bind(&mut world, &mut data, bound).unwrap();
    let pending = connect(&mut world, &mut alice, OTHER_PEER).unwrap();
    let asked = ask_to_connect(&mut world, &mut alice, "8.8.4.4:5000");
    world.told.clear();
    world.refresh(&mut alice, 0).unwrap();
    let closed = [bound, pending, asked].map(Output::Close);
    assert_eq!(world.told, closed);
    assert_eq!(world.relay.stats().connections, 0);
    assert!(world.ports.iter().all(Option::is_none));
    assert_eq!(world.relay.poll_timeout(), None);

    // So do those of one family with its address, and all with the control connection.
    let additional = true;
    let both = AllocateOptions { additional, ..TCP };
    world.sent.clear();
    world.allocate_with(&mut alice, both).unwrap();
    let four = connect(&mut world, &mut alice, PEER).unwrap();
    let six = connect(&mut world, &mut alice, PEER_V6).unwrap();
    world.told.clear();
    let end = Request::RefreshFamily {
        family: AddressFamily::V4,
        lifetime: 0,
    };
    world.ask(&mut alice, end).unwrap();
    assert_eq!(world.told, [Output::Close(four)]);
    world.relay.handle_stream_closed(world.now, alice.at);
    world.drain();
    assert_eq!(world.told, [four, six].map(Output::Close));
}

#[test]
fn nothing_of_tcp_comes_in_messages() {
    let mut world = World::new();
    let mut alice = allocated(&mut world, "alice", 1000);
    world.permit(&mut alice, PEER).unwrap();
    let bound = world.bind(&mut alice, 0x4000, PEER);
    assert_eq!(bound, Err(ErrorCode::FORBIDDEN));
    assert_eq!(world.send(&mut alice, PEER, "x"), None);
    assert_eq!(world.refusals("wrong_allocation_transport"), 2);

    // Nor is its address one for datagrams.
    let mut bob = world.allocated("bob", 1001);
    let relayed = alice.relayed();
    let bound = world.bind(&mut bob, 0x4000, &relayed);
    assert_eq!(bound, Err(ErrorCode::FORBIDDEN));
    world.permit(&mut bob, &relayed).unwrap();
    assert_eq!(world.send(&mut bob, &relayed, "x"), None);
}

#[test]
fn a_peer_that_is_denied_later_is_cut_off() {
    let mut world = World::new();
    let mut alice = allocated(&mut world, "alice", 1000);
    let id = connect(&mut world, &mut alice, PEER).unwrap();
    let mut data = world.phone("alice", 2000, Transport::Tcp);
    bind(&mut world, &mut data, id).unwrap();
    assert_eq!(passes(&mut world, id, Direction::ToPeer, 1), Pace::Now);
    world.reconfigure(|config| config.peers.deny = vec!["8.8.8.8".parse().unwrap()]);
    world.told.clear();
    assert_eq!(passes(&mut world, id, Direction::ToClient, 1), Pace::Never);
    assert_eq!(world.told, [Output::Close(id)]);
    assert_eq!(world.refusals("forbidden_deny_list"), 1);
}

#[test]
fn connections_have_limits() {
    let refused = |change: &dyn Fn(&mut relay_core::Limits), fit: usize, code: u16| {
        let mut world = World::with(|config| change(&mut config.limits));
        let mut alice = allocated(&mut world, "alice", 1000);
        for index in 0..fit {
            let peer = format!("8.8.8.8:{}", 5000 + index);
            connect(&mut world, &mut alice, &peer).unwrap();
        }
        let got = connect(&mut world, &mut alice, OTHER_PEER);
        assert_eq!(got, Err(ErrorCode(code)));
        world.permit(&mut alice, OTHER_PEER).unwrap();
        assert_eq!(peer_connects(&mut world, &alice, OTHER_PEER), None);
        // One that ends makes room.
        world.advance(Duration::from_secs(30));
        connect(&mut world, &mut alice, OTHER_PEER).unwrap();
    };
    refused(&|limits| limits.connections_max = 3, 3, 508);
    refused(&|limits| limits.connections_per_allocation_max = 2, 2, 508);
    refused(
        &|limits| limits.connections_unbound_per_allocation_max = 4,
        4,
        508,
    );
    refused(&|limits| limits.connections_per_user_max = 1, 1, 486);
    refused(&|limits| limits.connections_per_account_max = 2, 2, 486);

    // What is bound does not wait; another User has room of her own.
    let mut world = World::with(|config| {
        config.limits.connections_unbound_per_allocation_max = 1;
        config.limits.connections_per_user_max = 2;
    });
    let mut alice = allocated(&mut world, "alice", 1000);
    for (peer, port) in [(PEER, 2000), (OTHER_PEER, 2001)] {
        let id = connect(&mut world, &mut alice, peer).unwrap();
        let mut data = world.phone("alice", port, Transport::Tcp);
        bind(&mut world, &mut data, id).unwrap();
    }
    let mut second = allocated(&mut world, "alice", 1001);
    let got = connect(&mut world, &mut second, PEER);
    assert_eq!(got, Err(ErrorCode::ALLOCATION_QUOTA_REACHED));
    let mut bob = allocated(&mut world, "bob", 1002);
    connect(&mut world, &mut bob, PEER).unwrap();
}

#[test]
fn the_users_of_an_account_share_its_connections() {
    let mut world = World::with(|config| config.limits.connections_per_account_max = 2);
    let mut alice = allocated(&mut world, "alice", 1000);
    let mut bob = allocated(&mut world, "bob", 1001);
    let mut carol = allocated(&mut world, "carol", 1002);
    for phone in [&mut alice, &mut bob] {
        connect(&mut world, phone, PEER).unwrap();
    }
    let got = connect(&mut world, &mut carol, PEER);
    assert_eq!(got, Err(ErrorCode::ALLOCATION_QUOTA_REACHED));
    assert_eq!(world.refusals("account_connection_quota_reached"), 1);

    // Another Account has room of its own.
    let expiry = world.unix_now() + Duration::from_secs(600);
    let (name, password) = world.credentials.issue(expiry, "globex", "dave").unwrap();
    let mut dave = Phone::new(&name, &password, 1003, Transport::Tcp);
    world.allocate_with(&mut dave, TCP).unwrap();
    connect(&mut world, &mut dave, PEER).unwrap();

    // With an Allocation its connections end.
    world.refresh(&mut alice, 0).unwrap();
    connect(&mut world, &mut carol, PEER).unwrap();
}

#[test]
fn two_allocations_of_one_relay_meet_in_memory() {
    let mut world = World::new();
    let mut alice = allocated(&mut world, "alice", 1000);
    let mut bob = allocated(&mut world, "bob", 1001);
    let (at_alice, at_bob) = (alice.relayed(), bob.relayed());
    let unwanted = connect(&mut world, &mut alice, &at_bob);
    assert_eq!(unwanted, Err(ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE));
    assert_eq!(world.refusals("no_permission"), 1);
    assert_eq!(world.relay.stats().connections, 0);

    world.told.clear();
    world.permit(&mut bob, &at_alice).unwrap();
    let one = connect(&mut world, &mut alice, &at_bob).unwrap();
    let (to, attempt) = world.sent.pop().unwrap();
    assert_eq!(to, bob.at);
    let Event::ConnectionAttempt {
        connection_id,
        peer,
    } = bob.conversation.handle(&attempt)
    else {
        panic!("no attempt");
    };
    assert_eq!(peer.to_string(), at_alice);
    let other = ConnectionId(connection_id);
    assert_eq!(world.told, [Output::Pair { one, other }]);

    let mut data = world.phone("alice", 2000, Transport::Tcp);
    bind(&mut world, &mut data, one).unwrap();
    assert_eq!(passes(&mut world, one, Direction::ToPeer, 70), Pace::Now);
    assert_eq!(world.relay.stats().handed_over.bytes, 70);
}

#[test]
fn a_connection_is_slowed_down_to_the_rate_of_its_user() {
    let mut world = World::with(|config| {
        config.limits.user_rates = Rates {
            bits_per_second_max: 8_000,
            packets_per_second_max: 0,
        };
    });
    let mut alice = allocated(&mut world, "alice", 1000);
    let id = connect(&mut world, &mut alice, PEER).unwrap();
    let mut data = world.phone("alice", 2000, Transport::Tcp);
    bind(&mut world, &mut data, id).unwrap();
    assert_eq!(passes(&mut world, id, Direction::ToPeer, 1000), Pace::Now);
    let Pace::After(wait) = passes(&mut world, id, Direction::ToClient, 500) else {
        panic!("not slowed down");
    };
    assert_eq!(wait, Duration::from_millis(500));
    world.advance(wait);
    assert_eq!(passes(&mut world, id, Direction::ToClient, 500), Pace::Now);
    assert_eq!(world.refusals("user_rate"), 0);
}

/// Any order of what clients, peers and the driver do keeps the books: what lives is what was
/// taken and not closed, ids are not used twice, and everything ends with its Allocation.
#[test]
fn the_books_balance_in_any_order() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::seeded(seed, |config| {
            config.limits.connections_per_allocation_max = 4;
            config.limits.connections_max = 6;
        });
        let mut phones: Vec<Phone> = (1000..1003)
            .map(|port| allocated(&mut world, &format!("user{port}"), port))
            .collect();
        for phone in &mut phones {
            world.permit(phone, PEER).unwrap();
        }
        let mut live: Vec<ConnectionId> = Vec::new();
        let mut all: Vec<ConnectionId> = Vec::new();
        for step in 0..120_u16 {
            let context = format!("seed {seed}, step {step}");
            let at = rng.random_range(0..phones.len());
            let some = |rng: &mut StdRng| match all.is_empty() {
                true => ConnectionId(7),
                false => all[rng.random_range(0..all.len())],
            };
            match rng.random_range(0..8) {
                0..=1 => {
                    let peers = [PEER, OTHER_PEER, "7.7.7.7:3478"];
                    let peer = match rng.random_range(0..4) {
                        3 => phones[(at + 1) % 3].relayed(),
                        which => peers[which].to_owned(),
                    };
                    let peer = peer.parse().unwrap();
                    let bytes = phones[at].conversation.request(Request::Connect { peer });
                    world.client_sends(&phones[at], &bytes);
                }
                2 => {
                    let from = format!("8.8.8.8:{}", 6000 + step);
                    if let Some(id) = peer_connects(&mut world, &phones[at], &from) {
                        live.push(id);
                    }
                }
                3 => world.relay.handle_connected(world.now, some(&mut rng)),
                4 => world.relay.handle_connect_failed(world.now, some(&mut rng)),
                5 => {
                    let name = format!("user{}", 1000 + at);
                    let mut data = world.phone(&name, 3000 + step, Transport::Tcp);
                    bind(&mut world, &mut data, some(&mut rng)).ok();
                }
                6 => {
                    let id = some(&mut rng);
                    passes(&mut world, id, Direction::ToPeer, 10);
                }
                _ => world.advance(Duration::from_secs(rng.random_range(0..12))),
            }
            world.drain();
            for output in std::mem::take(&mut world.told) {
                match output {
                    Output::Connect { id, .. } => live.push(id),
                    Output::Pair { one, other } => live.extend([one, other]),
                    Output::Close(id) => {
                        // What ended before it was told of was refused by the other Allocation.
                        live.retain(|held| *held != id);
                    }
                    _ => {}
                }
            }
            for id in &live {
                if !all.contains(id) {
                    all.push(*id);
                }
            }
            assert_eq!(world.relay.stats().connections, live.len(), "{context}");
            assert!(live.len() <= 6, "{context}");
            world.sent.clear();
        }
        world.advance(Duration::from_secs(600));
        assert_eq!(world.relay.stats().connections, 0, "seed {seed}");
        assert_eq!(world.relay.poll_timeout(), None, "seed {seed}");
    }
}

fn allocated(world: &mut World, name: &str, port: u16) -> Phone {
    let mut phone = world.phone(name, port, Transport::Tcp);
    assert_eq!(world.allocate_with(&mut phone, TCP), Ok(()));
    phone
}

fn port_of(world: &World, phone: &Phone) -> RelayPort {
    let open = world.ports.iter().flatten();
    let mut its = open.filter(|port| Some(port.address) == phone.relayed);
    *its.next().unwrap()
}

/// Asks for a connection that the driver has not made yet.
fn ask_to_connect(world: &mut World, phone: &mut Phone, peer: &str) -> ConnectionId {
    let peer = peer.parse().unwrap();
    let request = phone.conversation.request(Request::Connect { peer });
    assert_eq!(world.exchange(phone, &request), None);
    let Some(Output::Connect { id, .. }) = world.told.last() else {
        panic!("nothing is connected");
    };
    *id
}

/// Asks for a connection, which the peer accepts.
fn connect(world: &mut World, phone: &mut Phone, peer: &str) -> Result<ConnectionId, ErrorCode> {
    let peer = peer.parse().unwrap();
    let mut request = phone.conversation.request(Request::Connect { peer });
    loop {
        let answer = world.exchange(phone, &request).unwrap_or_else(|| {
            let Some(Output::Connect { id, .. }) = world.told.last() else {
                panic!("no answer, and nothing is connected");
            };
            world.relay.handle_connected(world.now, *id);
            world.drain();
            world.sent.pop().unwrap().1
        });
        match phone.conversation.handle(&answer) {
            Event::Retry(retry) => request = retry,
            Event::Success(answer) => return Ok(ConnectionId(answer.connection_id.unwrap())),
            Event::Refused(code) => return Err(code),
            event => panic!("{event:?}"),
        }
    }
}

fn bind(world: &mut World, phone: &mut Phone, id: ConnectionId) -> Result<(), ErrorCode> {
    let connection_id = id.0;
    world.ask(phone, Request::ConnectionBind { connection_id })?;
    assert_eq!(phone.connection, Some(connection_id));
    Ok(())
}

fn peer_connects(world: &mut World, phone: &Phone, from: &str) -> Option<ConnectionId> {
    let port = port_of(world, phone);
    let from = from.parse().unwrap();
    let id = world.relay.handle_peer_connection(world.now, port, from);
    world.drain();
    id
}

fn passes(world: &mut World, id: ConnectionId, direction: Direction, len: usize) -> Pace {
    let relay = &mut world.relay;
    let pace = relay.handle_connection_data(world.now, id, direction, len);
    world.drain();
    pace
}
